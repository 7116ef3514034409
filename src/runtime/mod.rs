//! The edge of a node: it assembles the rooms, gives each shard its core, and carries events and effects between the core and
//! the ring. Only this room names glommio.
//!
//! Start: settings -> data directory (lock, what is there) -> probe of the kernel -> listeners -> identity (a new one: begins a cluster, or joins one) ->
//! housekeeping thread -> one executor per shard (recovery, ring, core) -> every shard serves -> one line on standard output -> wait for a signal -> stop
//! in order.
//!
//! Invariants: what is durable before the ready line is printed: the directory, the incarnation, the term; nothing is accepted before
//! recovery is through; an orderly stop answers what was taken in and ends with exit code 0.
//!
//! Not here: decisions (the core's rooms), system calls of the steady state (ring/).

mod admin_listener;
mod clock;
pub mod data_dir;
mod edge;
mod executors;
pub mod housekeeping;
pub mod inspect;
mod join;
pub mod listen;
pub mod logging;
mod mesh;
mod park;
mod ports;
pub mod recover;
mod shard_loop;
pub mod shutdown;
mod start;
pub mod start_disk;
mod stuck_writes;
pub mod topology;

pub use join::JoinError;
pub use start::{Ready, StartError, run, run_told};
