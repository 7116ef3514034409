//! Where the disk space of a shard went.
//!
//! Invariants: the five kinds of space sum up to the bytes of all segment files.
//!
//! Not here: what is live (`retention.rs`), the files (log/).

use super::shard::Shard;
use crate::log::LogStats;

/// Bytes of the segment files by what is in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space {
    /// Batches that are kept, in sealed segments.
    pub(super) live: u64,
    /// Batches that are listed and not kept, in sealed segments.
    pub(super) dead: u64,
    /// The rest of the sealed segments.
    pub(super) padding: u64,
    /// Segments without an index, or being given back.
    pub(super) open: u64,
    /// Free files.
    pub(super) free: u64,
}

impl Shard {
    pub(super) fn space(&self, log: &LogStats) -> Space {
        let live = self.retention.live_bytes();
        // A footer that was made anew after damage lists less than its runs had.
        let dead = log.sealed_batch_bytes.saturating_sub(live);
        Space {
            live,
            dead,
            padding: log.sealed_file_bytes.saturating_sub(live + dead),
            open: log.file_bytes - log.sealed_file_bytes - log.pool_file_bytes,
            free: log.pool_file_bytes,
        }
    }
}
