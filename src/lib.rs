//! Tramline, the broker: a thread-per-core message broker on one durable log per core.
//!
//! `docs/ARCHITECTURE.md` has the bird's view, the map of the rooms below and who may know whom. The binary is `main.rs`.

pub mod admin;
pub mod api;
pub mod bytes;
pub mod config;
pub mod constants;
pub mod control;
pub mod effects;
pub mod fatal;
pub mod ids;
pub mod log;
pub mod metrics;
pub mod partition;
pub mod replication;
pub mod ring;
pub mod runtime;
pub mod shard;
pub mod subscription;
