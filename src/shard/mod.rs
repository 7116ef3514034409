//! One core's share of the node: it owns its partitions, its log, its replica groups, its connections' state and its memory
//! budget, and decides everything about them. The edge (runtime/, or the simulator) feeds `Shard::step` and carries effects out.
//!
//! Invariants: an acknowledgement at `leader_durable` or above is sent only after the block that carries the records, and all
//! before it, are durable and committed; what is visible to consumers moves only at commit (or, where the topic says so, when
//! the block closes); a shard whose log has failed answers no produce any more; a request is answered once or its connection ends.
//!
//! Not here: sockets, files, clocks, threads (ring/, runtime/), layouts (the wire crate, log/).

mod acks;
mod admin;
mod advice;
mod applying;
mod beginnings;
mod calling;
mod cancelling;
mod catchup;
mod catchup_line;
mod conns;
mod controls;
mod disks;
mod expiry;
mod gathers;
mod gauges;
mod group_deletion;
mod group_expiry;
mod groups;
mod in_order;
mod install;
mod joining;
mod lags;
mod leaders;
mod leadership;
mod listing;
#[cfg(any(test, feature = "sim"))]
mod looks;
pub mod mesh;
mod moving;
mod offsets;
mod outward;
mod pipelines;
mod planning;
mod preferring;
mod produce;
mod producers;
mod proposals;
mod queue;
mod reads;
mod rebuild;
mod recovering;
mod repair;
mod repair_answers;
mod replicas;
mod requests;
mod retention;
mod scrubbing;
mod sealing;
mod seldom;
mod shard;
mod shipping;
mod sort_job;
mod sorting;
mod start;
mod storage;
mod strays;
mod suspects;
#[cfg(test)]
mod tests;
mod throttle;
mod timing;
mod trims;
mod uncommitted;

#[cfg(any(test, feature = "sim"))]
pub(crate) use looks::{BatchLook, EntryLook, GroupLook};
pub use shard::{Shard, Taken};
pub use start::{ShardStart, StartFailure};
