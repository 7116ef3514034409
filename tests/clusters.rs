//! Several nodes as one cluster: real processes, killed, cut, moved and damaged. One binary: linking each file's tests by themselves took minutes.
//!
//! The files' nodes have addresses of their own (`common/nodes.rs`): a block is used by one test alone.

mod cluster;
mod cluster_damage;
mod cluster_disks;
mod cluster_factor;
mod cluster_groups;
mod cluster_moves;
mod cluster_told;
mod cluster_tools;
