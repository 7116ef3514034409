//! Partitions: offsets, where their batches are, and how far they are committed.
//!
//! Invariants: `log_start <= committed_end <= next_offset`; offsets are handed out once and grow without a hole except
//! where damage of the log took batches away (`Partition::lost`); a batch is in exactly one of tail and runs.
//!
//! Not here: bytes (log/), who may append (replication/), requests (api/).

mod expiry;
mod index;
mod partition;
mod producers;
mod table;
#[cfg(test)]
mod tests;
mod trim;

pub use expiry::Oldest;
pub use index::{BatchRef, Found, Index, Run};
pub use partition::{Partition, TopicRules};
pub use producers::{ProducerBatch, Producers, Verdict};
pub use table::{Partitions, Slot};
pub use trim::{StoredTrimError, Trim, TrimError, decode_trims, encode_trims};
