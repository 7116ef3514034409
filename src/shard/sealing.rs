//! Background work of a shard: sealing full segments with a checkpoint, the orderly stop.
//!
//! Invariants: a run takes the place of a tail's batches only once the footer that lists them is durable; the checkpoint describes
//! exactly the blocks it covers, all of whose entries are committed.
//!
//! Not here: taking down what a seal lists (`listing.rs`), which segments are freed (`retention.rs`).

use super::listing::ToldProducers;
use super::retention::Use;
use super::shard::{Phase, Shard};
use crate::api::ApiError;
use crate::config::DiskLevel;
use crate::effects::{Effect, Effects, Now};
use crate::ids::{BlockSeq, GroupId, PartitionUid, ReplicaId, SegmentUid, Term};
use crate::log::checkpoint::{GroupPositionV3, PartitionPositionV1, RunV1};
use crate::log::{CheckpointV5, FooterEntry, SealRefused};
use crate::mutants::Mutant;
use crate::partition::{Partition, Run, Slot};
use crate::replication::GroupPosition;
use crate::subscription::encode_notes;
use tramline_wire::error::ErrorCode;

/// A seal under way, as it was when it began.
#[derive(Debug)]
pub(super) struct Sealing {
    segment: SegmentUid,
    last_block: BlockSeq,
    /// With the slots of their partitions.
    runs: Vec<(RunV1, Slot)>,
    /// Where the groups were, to forget raft's entries once the checkpoint is durable.
    positions: Vec<(GroupId, GroupPosition, Term, u64)>,
}

impl Shard {
    /// One turn of background work.
    pub(super) fn background(&mut self, now: Now, effects: &mut Effects) {
        self.delete_retired(now, effects);
        if self.failure().is_some() {
            return;
        }
        self.slab.tidy(now.mono_us);
        self.maybe_seal(now, effects);
        self.retain(now, effects);
        self.expire(now, effects);
        self.give_producer_ids(now, effects);
        self.expire_producers(now);
        self.expire_groups(now, effects);
        self.tidy_queues(now);
        self.count_budgets(now);
        self.keep_starts(effects);
        self.keep_installs(effects);
        self.sort(now, effects);
        self.scrub(now, effects);
        self.repair(now, effects);
    }

    /// Seals the oldest full segment whose batches are all committed.
    fn maybe_seal(&mut self, now: Now, effects: &mut Effects) {
        if self.view.epoch == 0 || !self.may_write_checkpoint() {
            return;
        }
        let Some(segment) = self.log.seal_ready() else { return };
        let Some(last_block) = self.log.segments().find(|s| s.uid == segment).map(|s| s.last_block) else { return };
        // A footer, or a checkpoint, that told of an entry which another leader then replaces would bring it back.
        let is_committed = self.groups.are_committed_through(last_block) || self.log.mutants().has(Mutant::SealUncommitted);
        if !is_committed
            || !self.is_applied_through(last_block)
            || self.arrivals.needs(last_block)
            || !self.may_cover_suspects(last_block, effects)
            || !self.is_queue_state_kept(last_block, effects)
        {
            return;
        }
        if !self.list_for_seal(segment, last_block) {
            return effects.wake_at(now.mono_us + 1_000);
        }
        let mut footer = std::mem::take(&mut self.listing.footer);
        let producers = self.listing.take_producers();
        let runs = runs_of(segment, &footer);
        let checkpoint = self.checkpoint(last_block, &runs, producers);
        let members = self.members_told(&checkpoint);
        match self.log.seal(&mut self.slab, effects, segment, &mut footer, checkpoint) {
            Ok(()) => {
                tracing::debug!(shard = self.id.0, segment = segment.0, "sealing begins");
                self.on_checkpoint_begun(members);
                let slot_of = |run: &RunV1| self.partitions.slot(PartitionUid(run.uid)).expect("a run is of a partition that is there");
                let slots: Vec<_> = runs.iter().map(slot_of).collect();
                let runs = std::iter::zip(runs, slots).collect();
                self.sealing = Some(Sealing { segment, last_block, runs, positions: self.groups.positions_at(last_block) });
            }
            Err(SealRefused::Busy | SealRefused::Failed) => {}
        }
        footer.clear();
        self.listing.footer = footer;
    }

    /// The checkpoint that covers everything through `block` and seals nothing.
    pub(super) fn mere_checkpoint(&self, block: BlockSeq) -> CheckpointV5 {
        self.checkpoint(block, &[], self.all_producers())
    }

    /// The checkpoint that covers everything through `block`; `new_runs` are those of the segment being sealed.
    fn checkpoint(&self, block: BlockSeq, new_runs: &[RunV1], (producers, producer_batches): ToldProducers) -> CheckpointV5 {
        let is_committed = self.groups.are_committed_through(block) || self.log.mutants().has(Mutant::SealUncommitted);
        assert!(is_committed, "a checkpoint of block {block} tells of what is not committed");
        let positions = self.groups.positions_at(block);
        let raw = |ids: &[ReplicaId]| ids.iter().map(|id| id.0).collect();
        let groups = positions.iter().map(|(group, position, term, vote)| {
            let members = self.groups.members_of(*group).expect("a group of this shard");
            let since = self.applying.since.get(group).filter(|since| since.block > block).copied().unwrap_or_default();
            GroupPositionV3 {
                group: group.0,
                term: term.0,
                vote: *vote,
                commit: position.index.0,
                applied_index: position.index.0,
                applied_term: position.term.0,
                replica: self.replica().0,
                since_block: since.block.0,
                since_applied: since.applied.0,
                conf_index: members.index.0,
                voters: raw(&members.voters),
                learners: raw(&members.learners),
            }
        });
        let mut runs = Vec::new();
        let mut partitions = Vec::with_capacity(self.partitions.len());
        // Those that the view does not know as well: it may be of earlier metadata than they are, and what a checkpoint does not tell of is gone.
        let mut unclaimed: Vec<_> = self.unclaimed.values().collect();
        unclaimed.sort_unstable_by_key(|partition| partition.uid);
        for partition in self.partitions.iter().map(|(_, partition)| partition).chain(unclaimed) {
            runs.extend(partition.index.runs().map(|run| stored_run(partition, run)));
            let new_run = new_runs.binary_search_by_key(&partition.uid.0, |r| r.uid).ok().map(|at| &new_runs[at]);
            runs.extend(new_run.cloned());
            let last_run_end = new_run.map(|r| r.end_offset).or(partition.index.runs().last().map(|r| r.end_offset));
            // Offsets up to here are spoken for: those of the runs, and those given up to damage before what is in the tail.
            let lost_end =
                partition.lost().iter().map(|r| r.end).filter(|end| first_tail_offset(partition, block).is_none_or(|t| *end <= t)).max();
            let next_offset = last_run_end.unwrap_or(0).max(lost_end.unwrap_or(0)).max(partition.log_start());
            let newest_ts = runs.iter().rev().take_while(|r| r.uid == partition.uid.0).map(|r| r.newest_ts).max().unwrap_or(0);
            partitions.push(PartitionPositionV1 {
                uid: partition.uid.0,
                topic: partition.topic.0,
                group: partition.group.0,
                log_start: partition.log_start(),
                next_offset,
                newest_ts,
            });
        }
        CheckpointV5 {
            shard: self.id.0,
            covers_block: block.0,
            groups: groups.collect(),
            partitions,
            runs,
            producers,
            producer_batches,
            notes: self.notes(),
            control: self.seat.as_ref().map(|seat| seat.state.snapshot()).unwrap_or_default(),
            ..CheckpointV5::default()
        }
    }

    /// What consumer groups have committed and who their members are, as it would stand in the log; and which file says the same of queues.
    fn notes(&self) -> Vec<Vec<u8>> {
        let mut notes: Vec<_> = self.offsets.table.iter().filter_map(|(partition, progress)| progress.note(partition)).collect();
        let mutants = self.log.mutants();
        if mutants.has(Mutant::ForgetOffsets) {
            notes.clear();
        }
        if mutants.has(Mutant::ForgetTexts) {
            notes.iter_mut().for_each(|note| note.metadata = Box::default());
        }
        let members = if mutants.has(Mutant::ForgetMembers) { Vec::new() } else { self.members.snapshot() };
        encode_notes(&notes).into_iter().map(|(payload, _)| payload).chain(members).chain(self.queues.keeping.mark()).collect()
    }

    /// A segment is sealed: its runs take the place of the batches in the tails.
    pub(super) fn on_sealed(&mut self, now: Now, segment: SegmentUid) {
        let sealing = self.sealing.take().expect("a segment is sealed because we asked");
        assert_eq!(sealing.segment, segment, "one segment is sealed at a time");
        let mut usage = Use::default();
        let mut slots = Vec::with_capacity(sealing.runs.len());
        for (run, slot) in &sealing.runs {
            // A partition that was deleted meanwhile, or given up and begun anew in another slot, has no use for its run.
            let Some(partition) = self.partitions.get_mut(*slot) else { continue };
            let sealed = partition.index.seal(segment, sealing.last_block, run.footer_first).expect("its batches are in the tail");
            assert_eq!((sealed.end_offset, sealed.footer_count), (run.end_offset, run.footer_count), "the footer lists what the tail had");
            slots.push(*slot);
            usage.add(sealed.bytes, sealed.footer_count);
        }
        self.retention.on_sealed(segment, usage);
        slots.into_iter().for_each(|slot| self.trim(now, slot));
        self.groups.compact(&sealing.positions);
        self.on_checkpoint_covers();
        tracing::debug!(shard = self.id.0, segment = segment.0, "segment sealed");
    }

    /// Begins the orderly stop.
    pub(super) fn stop(&mut self, effects: &mut Effects) {
        if matches!(self.phase, Phase::Stopping | Phase::Failed(_)) {
            return;
        }
        self.phase = Phase::Stopping;
        self.refuse_deletions(&ApiError::of(ErrorCode::ShuttingDown), effects);
        self.log.stop_background();
        self.pipelines.next_hand_over_us = 0;
        effects.wake_at(0);
    }

    /// Whether nothing else that a checkpoint would tell of, or wait for, is under way. Whoever writes the one that a snapshot needs asks this; everybody else
    /// `may_write_checkpoint`.
    pub(super) fn is_checkpoint_free(&self) -> bool {
        self.sealing.is_none() && self.log.is_sealing_free() && self.may_tell_members() && !self.applying.rebuild.is_given_up
    }

    /// Whether a checkpoint may be written: not while one is owed for a snapshot.
    pub(super) fn may_write_checkpoint(&self) -> bool {
        self.is_checkpoint_free() && self.arrivals.is_all_written()
    }

    /// Whether an orderly stop has to write a checkpoint: retention has moved starts. Not on a full disk, where the stop might wait for space; nor while a snapshot
    /// waits for what it needs besides its own checkpoint; nor where a block that it would tell of cannot be read.
    pub(super) fn owes_checkpoint(&self) -> bool {
        let may_be = self.throttle.disk().level < DiskLevel::Refuse && self.arrivals.is_all_written() && !self.applying.rebuild.is_given_up;
        self.retention.starts_moved && may_be
    }

    /// At an orderly stop: the checkpoint that it owes, once no other one is under way.
    fn keep_starts(&mut self, effects: &mut Effects) {
        if self.phase == Phase::Stopping && self.owes_checkpoint() && self.may_write_checkpoint() {
            let checkpoint = self.mere_checkpoint(self.log.covered());
            // Refused when the log has failed: then there is no orderly stop.
            self.retention.starts_moved = self.log.write_checkpoint(&mut self.slab, effects, checkpoint).is_err();
        }
    }

    /// Takes every connection down with a reason (a failed shard's edge asks for it at the end).
    pub fn close_all(&mut self, effects: &mut Effects) {
        for conn in self.conns.ids() {
            effects.push(Effect::Close { conn, reason: "shutting down" });
        }
    }
}

fn first_tail_offset(partition: &Partition, after: BlockSeq) -> Option<u64> {
    partition.index.tail().find(|b| b.block > after).map(|b| b.base_offset)
}

fn stored_run(partition: &Partition, run: &Run) -> RunV1 {
    RunV1 {
        uid: partition.uid.0,
        segment: run.segment.0,
        first_offset: run.first_offset,
        end_offset: run.end_offset,
        newest_ts: run.newest_ts_us,
        bytes: run.bytes,
        footer_first: run.footer_first,
        footer_count: run.footer_count,
    }
}

/// The runs that a sorted footer holds, by uid.
fn runs_of(segment: SegmentUid, footer: &[FooterEntry]) -> Vec<RunV1> {
    let mut runs: Vec<RunV1> = Vec::new();
    for (at, entry) in footer.iter().enumerate() {
        let end_offset = entry.base_offset.0 + u64::from(entry.last_offset_delta) + 1;
        match runs.last_mut() {
            Some(run) if run.uid == entry.partition_uid.0 => {
                run.end_offset = end_offset;
                run.newest_ts = run.newest_ts.max(entry.newest_ts);
                run.bytes += u64::from(entry.len);
                run.footer_count += 1;
            }
            _ => runs.push(RunV1 {
                uid: entry.partition_uid.0,
                segment: segment.0,
                first_offset: entry.base_offset.0,
                end_offset,
                newest_ts: entry.newest_ts,
                bytes: u64::from(entry.len),
                footer_first: at as u32,
                footer_count: 1,
            }),
        }
    }
    runs
}
