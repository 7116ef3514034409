//! Single nodes and tools as their users have them: real processes, real sockets, real files. One binary: linking each file's tests by themselves took minutes.
//!
//! Not here: several nodes (`clusters.rs`), and what must be alone in its process or on its machine (`allocations.rs`, `idle.rs`).

mod capi;
mod cli;
mod clients;
mod damage;
mod dead_letters;
mod disk;
mod disk_full;
mod doctor;
mod documents;
mod durability;
mod examples;
mod fdinfo;
mod group_members;
mod group_recipes;
mod groups;
mod http;
mod joining;
mod loadgen;
mod mesh;
mod mutants;
mod node_ports;
mod produce_consume;
mod protocol_faults;
mod queues;
mod readme;
mod retention;
mod serve_lifecycle;
mod sorting;
mod steps;
mod systemd;
mod tidy;
mod topics;
mod trim;
mod tune;
