//! Retention of whole runs: which have expired, and which sealed segments nobody needs any more.
//!
//! A partition is looked at when a segment with a run of it was sealed (so that a full topic gives a file back for each one it takes,
//! and the log goes on in extents that were written before), and in a pass over all partitions that is begun each second and done in
//! steps, for what only time expires.
//!
//! Invariants: retention takes from a partition's old end only, and moves its start also where a neighbour keeps the segment: else a
//! later segment that nobody else needs would be freed out of the middle of this partition. `runs` counts, for each sealed segment,
//! the runs of live partitions in it; a segment is freed when, and only when, that is none, and what the log says of replicas that were given up is durable.
//!
//! Retention moves starts without a word in the log. A checkpoint (each seal, each sorted segment, an orderly stop) makes that durable; after a
//! crash a start can be back where the last one had it, until the first pass has found again what is not kept.
//!
//! Not here: what of a run has expired (`expiry.rs`).

use super::shard::{Phase, Shard};
use crate::effects::{Effects, Now};
use crate::ids::{BlockSeq, SegmentUid};
use crate::partition::{Oldest, Partition, Run, Slot};
use std::collections::BTreeMap;

/// How often a pass over all partitions begins, in microseconds.
pub(super) const PASS_US: u64 = 1_000_000;
/// Partitions looked at in one turn. With a turn each millisecond under load 100,000 take 0.4 s, less than the pass has.
const STEP: u32 = 256;

/// What is wanted of a sealed segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Use {
    /// Runs of live partitions in it.
    pub(super) runs: u32,
    /// Bytes of their batches.
    pub(super) live_bytes: u64,
    /// Their batches.
    pub(super) batches: u32,
}

impl Use {
    /// One more run.
    pub(super) fn add(&mut self, bytes: u64, batches: u32) {
        self.runs += 1;
        self.live_bytes += bytes;
        self.batches += batches;
    }
}

/// What retention keeps in mind.
#[derive(Debug, Default)]
pub(super) struct Retention {
    /// Use of each sealed segment.
    runs: BTreeMap<SegmentUid, Use>,
    /// Sealed segments without a run, not freed yet.
    unused: Vec<SegmentUid>,
    /// The next partition of the pass under way.
    next_slot: Option<u32>,
    next_pass_us: u64,
    /// Nothing is freed before this block is durable: it says that a replica is none any more. Else a power cut brought it back without what was freed.
    held_until: BlockSeq,
    /// A start was moved since this process began: an orderly stop writes a checkpoint that says so.
    pub(super) starts_moved: bool,
}

impl Retention {
    /// A segment was sealed, or was found sealed at the start.
    pub(super) fn on_sealed(&mut self, segment: SegmentUid, usage: Use) {
        let before = self.runs.insert(segment, usage);
        assert_eq!(before, None, "segment {segment} is sealed once");
        if usage.runs == 0 {
            self.unused.push(segment);
        }
    }

    /// A run is not wanted any more.
    pub(super) fn on_run_dropped(&mut self, run: &Run) {
        let usage = self.runs.get_mut(&run.segment).expect("runs are in sealed segments");
        usage.runs -= 1;
        usage.live_bytes -= run.bytes;
        usage.batches -= run.footer_count;
        if usage.runs == 0 {
            self.unused.push(run.segment);
        }
    }

    /// The first batches of a run are not wanted any more.
    pub(super) fn on_run_cut(&mut self, run: &Run, batches: u32, bytes: u64) {
        let usage = self.runs.get_mut(&run.segment).expect("runs are in sealed segments");
        usage.batches -= batches;
        usage.live_bytes -= bytes;
    }

    /// Bytes of all that is wanted of sealed segments.
    pub(super) fn live_bytes(&self) -> u64 {
        self.runs.values().map(|usage| usage.live_bytes).sum()
    }

    /// What is wanted of a sealed segment; nothing when it is not sealed, or freed.
    pub(super) fn use_of(&self, segment: SegmentUid) -> Option<&Use> {
        self.runs.get(&segment)
    }

    /// What `block` says of a replica that was given up makes segments useless.
    pub(super) fn hold_until(&mut self, block: BlockSeq) {
        self.held_until = self.held_until.max(block);
    }

    /// A partition is gone (its topic was deleted).
    pub(super) fn on_partition_dropped(&mut self, partition: &Partition) {
        partition.index.runs().for_each(|run| self.on_run_dropped(run));
    }
}

impl Shard {
    /// At a start: what is sealed, and whose runs are in it.
    pub(super) fn count_runs(&mut self) {
        let mut counts: BTreeMap<SegmentUid, Use> = self.log.segments().filter(|s| s.sealed).map(|s| (s.uid, Use::default())).collect();
        for run in self.unclaimed.values().flat_map(|partition| partition.index.runs()) {
            counts
                .get_mut(&run.segment)
                .expect("recovery dropped the runs of segments that are not there")
                .add(run.bytes, run.footer_count);
        }
        counts.into_iter().for_each(|(segment, runs)| self.retention.on_sealed(segment, runs));
    }

    /// One step of the pass, and the segments that nobody needs are freed.
    pub(super) fn retain(&mut self, now: Now, effects: &mut Effects) {
        if self.phase != Phase::Serving {
            return;
        }
        if self.retention.next_slot.is_none() && now.mono_us >= self.retention.next_pass_us {
            self.retention.next_pass_us = now.mono_us + PASS_US;
            self.retention.next_slot = Some(0);
        }
        if let Some(first) = self.retention.next_slot {
            let end = self.partitions.slot_count();
            let step_end = end.min(first + STEP);
            for slot in (first..step_end).map(Slot) {
                self.trim(now, slot);
                if let Some(partition) = self.partitions.get(slot) {
                    self.throttle.count_index(partition.index.memory_bytes(), partition.index.bytes());
                }
            }
            self.retention.next_slot = (step_end < end).then_some(step_end);
            if self.retention.next_slot.is_none() {
                self.throttle.index_counted();
            }
            effects.wake_at(if step_end < end { now.mono_us } else { self.retention.next_pass_us });
        }
        if self.log.durable_through() < self.retention.held_until {
            return;
        }
        while let Some(segment) = self.retention.unused.last().copied() {
            let file_bytes = self.log.segments().find(|s| s.uid == segment).map_or(0, |s| s.file_bytes);
            // The log has failed, or the seal is not in the manifest yet: later.
            if self.log.free_segment(&mut self.slab, effects, segment).is_err() {
                return;
            }
            self.retention.unused.pop();
            self.retention.runs.remove(&segment);
            self.metrics.counters.retention_bytes += file_bytes;
        }
    }

    /// Drops the expired runs of one partition, and what its index lists singly for no reason any more.
    pub(super) fn trim(&mut self, now: Now, slot: Slot) {
        let Some(partition) = self.partitions.get_mut(slot) else { return };
        partition.index.forget_sealed(self.log.cached_from());
        let mut dropped = None;
        loop {
            let oldest = partition.index.runs().next().copied();
            let Some(run) = oldest.filter(|run| partition.has_expired(&Oldest::from(run), 0, now.utc_us)) else { break };
            partition.index.pop_run();
            self.retention.on_run_dropped(&run);
            dropped = Some(run.end_offset);
        }
        if let Some(end) = dropped {
            partition.on_dropped(end);
            let uid = partition.uid;
            self.retention.starts_moved = true;
            self.untidy_queues(uid);
        }
    }
}
