//! Tramline, the broker: a thread-per-core message broker on one durable log per core.
//!
//! `docs/ARCHITECTURE.md` has the bird's view, the map of the rooms below and who may know whom. The binary is `main.rs`.

#[cfg(not(feature = "sim"))]
pub mod admin;
pub mod api;
pub mod bytes;
pub mod config;
pub mod constants;
pub mod control;
#[cfg(not(feature = "sim"))]
pub mod doctor;
pub mod effects;
pub mod fatal;
pub mod ids;
pub mod log;
pub mod metrics;
pub mod mutants;
pub mod partition;
pub mod replication;
#[cfg(not(feature = "sim"))]
pub mod ring;
#[cfg(not(feature = "sim"))]
pub mod runtime;
pub mod shard;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod subscription;
