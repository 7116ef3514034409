//! Produce requests that wait for their level, in the order in which they were appended.
//!
//! Invariants: an ack leaves only when every group it wrote to is committed through its block; acks leave in order of blocks;
//! each request is answered once (an answer "timed out" takes the place of the ack).

use crate::effects::{Caller, Effects, Now};
use crate::ids::{BlockSeq, GroupId};
use crate::metrics::{RequestClass, ShardMetrics, Stamps};
use crate::partition::{Partitions, Slot};
use std::collections::VecDeque;
use tramline_wire::error::ErrorCode;
use tramline_wire::level::Level;
use tramline_wire::produce::{ProduceReplyWriter, ProduceResult};

/// What became of one batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchResult {
    pub(super) uid: u64,
    /// `None` where the partition is not known here.
    pub(super) slot: Option<Slot>,
    pub(super) error: ErrorCode,
    pub(super) base_offset: u64,
    pub(super) append_time_us: i64,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    caller: Caller,
    level: Level,
    block: BlockSeq,
    /// Groups written to, a bit per place in `committed`.
    groups: u64,
    results: u32,
    deadline_us: u64,
    received_us: u64,
    payload_bytes: u64,
    answered: bool,
}

/// A request to be entered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) caller: Caller,
    pub(super) level: Level,
    /// The block of its last batch.
    pub(super) block: BlockSeq,
    /// Groups it wrote to, as `Acks::bit_of`.
    pub(super) groups: u64,
    pub(super) deadline_us: u64,
    pub(super) received_us: u64,
    pub(super) payload_bytes: u64,
}

/// Groups of a shard, a bit for each in a mask: 63 replicas of data groups (docs/REPLICATION.md, 6.2), and group 0's.
const GROUPS_MAX: usize = u64::BITS as usize;

/// In the place of a group that was removed.
const NO_GROUP: GroupId = GroupId(u32::MAX);

/// All waiting acks of a shard.
#[derive(Debug, Default)]
pub(super) struct Acks {
    queue: VecDeque<Pending>,
    results: VecDeque<BatchResult>,
    /// Per group: all its entries up to this block are committed.
    committed: Vec<(GroupId, BlockSeq)>,
}

impl Acks {
    pub(super) fn new(groups: impl IntoIterator<Item = GroupId>) -> Acks {
        let mut acks = Acks::default();
        groups.into_iter().for_each(|group| acks.add_group(group));
        acks
    }

    /// A group that is none of this shard's any more. Nobody waits for it, and its place may be given to another one.
    pub(super) fn remove_group(&mut self, group: GroupId) {
        let place = self.committed.iter_mut().find(|(other, _)| *other == group).expect("a group of this shard");
        *place = (NO_GROUP, BlockSeq(u64::MAX));
    }

    /// One more group, of which nothing is committed.
    pub(super) fn add_group(&mut self, group: GroupId) {
        if let Some(place) = self.committed.iter_mut().find(|(other, _)| *other == NO_GROUP) {
            *place = (group, BlockSeq(0));
            return;
        }
        assert!(self.committed.len() < GROUPS_MAX, "a shard has at most {GROUPS_MAX} groups");
        assert!(self.committed.iter().all(|(other, _)| *other != group), "group {group} is here already");
        self.committed.push((group, BlockSeq(0)));
    }

    pub(super) fn bit_of(&self, group: GroupId) -> u64 {
        1 << self.committed.iter().position(|(g, _)| *g == group).expect("a group of this shard")
    }

    pub(super) fn push(&mut self, waiting: Waiting, results: &[BatchResult]) {
        assert!(self.queue.back().is_none_or(|last| last.block <= waiting.block), "acks wait in order of blocks");
        let Waiting { caller, level, block, groups, deadline_us, received_us, payload_bytes } = waiting;
        let results_len = results.len() as u32;
        let answered = false;
        self.queue.push_back(Pending {
            caller,
            level,
            block,
            groups,
            results: results_len,
            deadline_us,
            received_us,
            payload_bytes,
            answered,
        });
        self.results.extend(results);
    }

    /// Everything of the group in blocks up to this one is committed.
    pub(super) fn committed_through(&self, group: GroupId) -> BlockSeq {
        self.committed.iter().find(|(g, _)| *g == group).expect("a group of this shard").1
    }

    pub(super) fn on_commit(&mut self, group: GroupId, block: BlockSeq) {
        let entry = self.committed.iter_mut().find(|(g, _)| *g == group).expect("a group of this shard");
        assert!(entry.1 <= block, "commit of group {group} went back from {} to {block}", entry.1);
        entry.1 = block;
    }

    /// Whether each of these groups (as `bit_of`) is committed through `block`.
    pub(super) fn is_committed(&self, mut groups: u64, block: BlockSeq) -> bool {
        while groups != 0 {
            if self.committed[groups.trailing_zeros() as usize].1 < block {
                return false;
            }
            groups &= groups - 1;
        }
        true
    }

    /// The block of the last request that waits.
    pub(super) fn last_block(&self) -> BlockSeq {
        self.queue.back().map_or(BlockSeq(0), |last| last.block)
    }

    /// Answers every request whose groups are committed through its block.
    pub(super) fn release(&mut self, now: Now, partitions: &Partitions, effects: &mut Effects, metrics: &mut ShardMetrics) {
        while let Some(front) = self.queue.front() {
            if !self.is_committed(front.groups, front.block) {
                return;
            }
            let pending = self.queue.pop_front().expect("looked at above");
            let results = self.results.drain(..pending.results as usize);
            if pending.answered {
                continue;
            }
            reply(&pending.caller, pending.level, results, partitions, effects);
            let (received_ns, now_ns) = (pending.received_us * 1000, now.mono_us * 1000);
            let stamps = Stamps { received_ns, parsed_ns: 0, appended_ns: received_ns, written_ns: now_ns, replied_ns: now_ns };
            metrics.record(RequestClass::Produce, &stamps, now.utc_us, pending.payload_bytes);
        }
    }

    /// Tells those whose time is over. Their records may still become durable.
    pub(super) fn on_deadline(&mut self, now: Now, effects: &mut Effects, metrics: &mut ShardMetrics) {
        for pending in self.queue.iter_mut().filter(|p| !p.answered && p.deadline_us <= now.mono_us) {
            pending.answered = true;
            metrics.count_error(ErrorCode::TimedOut);
            effects.refuse(&pending.caller, ErrorCode::TimedOut, "", "");
        }
    }

    /// The earliest time-out. Requests of one client mostly ask for the same, so this is the front's; others are found a little late.
    pub(super) fn next_deadline_us(&self) -> u64 {
        self.queue.iter().find(|p| !p.answered).map_or(u64::MAX, |p| p.deadline_us)
    }

    /// Another node leads one of `groups` (as `bit_of`): whoever waits for it is told that what was appended may be stored, or not.
    pub(super) fn fail_group(&mut self, groups: u64, effects: &mut Effects, metrics: &mut ShardMetrics) {
        for at in 0..self.queue.len() {
            let Pending { groups: of_request, block, caller, answered, .. } = self.queue[at];
            if answered || of_request & groups == 0 || self.is_committed(of_request, block) {
                continue;
            }
            self.queue[at].answered = true;
            // Nothing is left to wait for.
            self.queue[at].groups = 0;
            metrics.count_error(ErrorCode::LeadershipLost);
            effects.refuse(&caller, ErrorCode::LeadershipLost, "", "");
        }
    }

    /// The log has failed: nobody who waits will get his level.
    pub(super) fn fail_all(&mut self, effects: &mut Effects, metrics: &mut ShardMetrics, reason: &str) {
        for pending in self.queue.drain(..).filter(|p| !p.answered) {
            metrics.count_error(ErrorCode::StorageFailed);
            effects.refuse(&pending.caller, ErrorCode::StorageFailed, reason, "");
        }
        self.results.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

/// Appends the reply's effects.
pub(super) fn reply(
    caller: &Caller,
    level: Level,
    results: impl Iterator<Item = BatchResult>,
    partitions: &Partitions,
    effects: &mut Effects,
) {
    let mut no_parts = Vec::new();
    effects.reply(caller, 0, &mut no_parts, |out| {
        let mut writer = ProduceReplyWriter::begin(out, level, 0);
        for result in results {
            let durable_end = result.slot.and_then(|s| partitions.get(s)).map_or(0, |p| p.committed_end());
            let told = ProduceResult {
                partition_uid: result.uid,
                error: result.error,
                base_offset: result.base_offset,
                append_time_us: result.append_time_us,
                durable_end,
            };
            writer.push(out, &told);
        }
        writer.finish(out);
    });
}
