//! What sits on a seat: the released shard. Tests of the network between nodes put something smaller there, that says and hears what they want.
//!
//! Not here: what is done with its effects (`cycle.rs`).

use super::totals::{Event as Counted, Totals};
use crate::config::DiskLook;
use crate::effects::{Effects, Event, Now};
use crate::shard::{Shard, ShardStart, Taken};
use std::any::Any;

/// What a seat's loop needs of what sits on it.
pub(super) trait Core: Any {
    fn step(&mut self, now: Now, event: Event<'_>, effects: &mut Effects) -> Taken;
    fn is_serving(&self) -> bool;
    /// Whether an orderly stop has nothing left to do.
    fn has_stopped(&self) -> bool;
    /// Closes every client's connection.
    fn close_all(&mut self, effects: &mut Effects);
    /// What the file system has.
    fn set_disk(&mut self, look: DiskLook);
    /// Its process ends: adds what it has counted.
    fn count(&mut self, totals: &mut Totals);
}

/// Makes one, or tells in words why not.
pub(super) type Begin = fn(ShardStart, &mut Effects) -> Result<Box<dyn Core>, String>;

/// Makes a shard.
pub(super) fn begin_shard(start: ShardStart, effects: &mut Effects) -> Result<Box<dyn Core>, String> {
    match Shard::start(start, effects) {
        Ok(shard) => Ok(Box::new(shard)),
        Err(failure) => Err(failure.to_string()),
    }
}

impl Core for Shard {
    fn step(&mut self, now: Now, event: Event<'_>, effects: &mut Effects) -> Taken {
        Shard::step(self, now, event, effects)
    }
    fn is_serving(&self) -> bool {
        Shard::is_serving(self)
    }
    fn has_stopped(&self) -> bool {
        Shard::has_stopped(self)
    }
    fn close_all(&mut self, effects: &mut Effects) {
        Shard::close_all(self, effects);
    }
    fn set_disk(&mut self, look: DiskLook) {
        Shard::set_disk(self, look);
    }
    fn count(&mut self, totals: &mut Totals) {
        let counters = &self.metrics_mut().counters;
        totals.add(Counted::SortedSegments, counters.sorter_segments);
        totals.add(Counted::BatchesCut, counters.retention_batches);
        totals.add(Counted::DuplicatesFound, counters.produce_duplicates);
        totals.add(Counted::WoundsHealed, counters.repaired_ranges);
        totals.add(Counted::SnapshotsTaken, counters.snapshots_taken);
        totals.add(Counted::SortsInterrupted, u64::from(self.is_sorting()));
    }
}
