//! Where the disk space of a shard went, and the answer for all shards of the node.
//!
//! Invariants: the five kinds of space sum up to the bytes of all segment files.
//!
//! Not here: what is live (`retention.rs`), the files (log/), how questions over all shards go (`admin.rs`).

use super::shard::Shard;
use crate::config::DiskLevel;
use crate::log::LogStats;
use tramline_wire::storage::{DiskStage, ShardStorage};

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

    /// What this shard says of itself.
    pub(super) fn storage(&self) -> ShardStorage {
        let log = self.log.stats();
        let space = self.space(&log);
        let look = self.throttle.disk();
        ShardStorage {
            shard: self.id.0,
            stage: stage_of(look.level),
            segments_open: log.segments_open,
            segments_sealed: log.segments_sealed,
            segments_sorted: log.segments_sorted,
            pool_written: log.pool_filled,
            pool_fresh: log.pool_unfilled,
            live_bytes: space.live,
            dead_bytes: space.dead,
            padding_bytes: space.padding,
            open_bytes: space.open,
            free_bytes: space.free,
            sorter_waiting_bytes: self.sorter_debt_bytes(),
            disk_free_bytes: look.free_bytes,
        }
    }
}

/// The number that clients are told for a stage.
fn stage_of(level: DiskLevel) -> DiskStage {
    match level {
        DiskLevel::Enough => DiskStage::OK,
        DiskLevel::Low => DiskStage::WARN,
        DiskLevel::Slow => DiskStage::SLOW,
        DiskLevel::Refuse => DiskStage::REFUSE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_the_stage_by_the_name_that_readyz_has() {
        for level in DiskLevel::ALL {
            assert_eq!(stage_of(level).name(), Some(level.name()));
        }
        assert!(DiskLevel::ALL.is_sorted_by_key(|level| stage_of(*level)), "higher is worse");
    }
}
