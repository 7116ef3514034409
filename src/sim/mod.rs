//! The simulator: nodes of the real core, their disks, their network and their clocks in one thread, from one seed.
//!
//! Everything between the clients' frames and the disks' sectors is the code that is released: `log::recover`, `Shard::start`, `Shard::step`.
//! What is made up is what the edge does: `disk.rs` (volatile until synced, torn at 512 bytes, faulty on demand), the events and their times
//! (`world.rs`), networks (`net.rs`, `peers.rs`), clients (`clients.rs`) and what they may believe (`history.rs`). docs/SIMULATION.md has the fault model.
//!
//! Invariants: the same seed gives the same run, byte for byte: no clock, no thread, no map in random order takes part in a decision.
//!
//! Not here: the command line (tools/sim). Compiled for tests and for `tools/sim` only, which builds the core once more, with the feature `sim`, so
//! nothing of this can reach the released binary.

mod agenda;
mod claims;
mod clients;
mod clock;
mod cluster;
mod cycle;
mod decay;
mod dice;
mod disk;
mod faults;
mod groups;
mod history;
mod idempotent;
#[cfg(feature = "sim")]
mod image;
pub(crate) mod joining;
mod link;
mod member_answers;
mod members;
mod members_rest;
#[cfg(feature = "sim")]
mod mutants;
mod net;
mod node;
mod params;
mod pauses;
mod peer_faults;
mod peer_pipe;
mod peers;
mod process;
mod queue_admin;
mod queue_answers;
mod queue_codes;
mod queue_gone;
mod queue_idle;
mod queue_looks;
mod queue_message;
mod queue_records;
mod queue_rest;
mod queue_steps;
mod queue_truth;
mod queue_work;
mod reading;
pub(crate) mod replicas;
mod rot;
mod run;
mod seat_core;
mod start_disk;
mod stopping;
mod storage;
mod streams;
mod totals;
mod world;

pub use cluster::latency::{Latency, measure};
pub use dice::Dice;
#[cfg(feature = "sim")]
pub use image::Image;
#[cfg(feature = "sim")]
pub use mutants::{MUTANTS, Named};
pub use params::{Params, Profile};
#[cfg(feature = "sim")]
pub use run::run_as;
pub use run::{Outcome, run};
pub use totals::{Event, Totals};

/// What a check finds: nothing, or what is wrong, in words.
type Check = Result<(), String>;

/// UTC at the first start, in microseconds: what clients write as the time of their records counts from it, too.
const UTC_START_US: i64 = 1_700_000_000_000_000;

#[cfg(test)]
pub(crate) use disk::TEARS;
#[cfg(test)]
pub(crate) use disk::{SimDisk, Tear};

#[cfg(test)]
mod tests;
