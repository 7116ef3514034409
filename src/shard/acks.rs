//! Produce requests that wait for their level (docs/REPLICATION.md, 5.2), in lines: one for each level and group, so that nobody waits for what another level
//! or another group waits for. Requests for several groups stand in lines of their own.
//!
//! Invariants: an ack leaves only when every group it wrote to has the level through its block, and tells the highest level that all of them have; what is
//! committed has every level; the acks of a line leave in order of blocks; each request is answered once (an answer "timed out" takes the place of the ack).
//!
//! Not here: what a group has before it is committed (replication/), who asks for which level (`produce.rs`).

#[cfg(test)]
mod tests;

use crate::effects::{Answered, Caller, Effects, Now};
use crate::ids::{BlockSeq, GroupId};
use crate::metrics::ShardMetrics;
use crate::partition::{Partitions, Slot};
use crate::replication::Held;
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
    taken_us: u64,
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
    /// When its last batch was appended, `Now::mono_us`.
    pub(super) taken_us: u64,
    pub(super) payload_bytes: u64,
}

/// Groups of a shard, a bit for each in a mask: 63 replicas of data groups (docs/REPLICATION.md, 6.2), and group 0's.
const GROUPS_MAX: usize = u64::BITS as usize;

/// In the place of a group that was removed.
const NO_GROUP: GroupId = GroupId(u32::MAX);

/// Levels that can be waited for: all but `none`. `leader` is when a leader that was not heard lately takes in the rest of a request.
const LEVELS: usize = Level::Durable as usize;

/// Of each level: the line of requests that wrote to several groups. That of a group stands one behind its place.
const SEVERAL: usize = 0;

/// Lets a request know what a group has, before it is committed, in blocks up to one: `Groups::held_through`.
pub(super) type HeldIn<'a> = &'a dyn Fn(GroupId, BlockSeq) -> Option<Held>;

/// Requests that wait for one another, in order of blocks, and their results.
#[derive(Debug, Default)]
struct Line {
    queue: VecDeque<Pending>,
    results: VecDeque<BatchResult>,
}

/// All waiting acks of a shard.
#[derive(Debug, Default)]
pub(super) struct Acks {
    /// By level, then `SEVERAL` and the groups' places: as long as the last one that was needed.
    lines: [Vec<Line>; LEVELS],
    /// Lines in which somebody waits, a bit for each.
    busy: [u128; LEVELS],
    /// Per group: all its entries up to this block are committed.
    committed: Vec<(GroupId, BlockSeq)>,
    closed: ClosedAt,
}

/// When the last blocks were closed, each at the place of its number.
#[derive(Debug, Default)]
struct ClosedAt([(BlockSeq, u64); CLOSED_KEPT]);

/// Who waits for more blocks than these is not told how long it took to close his.
const CLOSED_KEPT: usize = 16;

impl ClosedAt {
    fn note(&mut self, block: BlockSeq, at_us: u64) {
        self.0[block.0 as usize % CLOSED_KEPT] = (block, at_us);
    }
    /// 0 where it is not known.
    fn of(&self, block: BlockSeq) -> u64 {
        let (noted, at_us) = self.0[block.0 as usize % CLOSED_KEPT];
        if noted == block { at_us } else { 0 }
    }
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

    /// Enters a request. On a node without others there is one line: everybody waits for the same disk.
    pub(super) fn push(&mut self, waiting: Waiting, is_alone: bool, results: &[BatchResult]) {
        let Waiting { caller, level, block, groups, deadline_us, taken_us, payload_bytes } = waiting;
        assert!(level != Level::None && groups != 0, "{waiting:?} has nothing to wait for");
        let (of_level, at) = match is_alone {
            true => (LEVELS - 1, SEVERAL),
            false if groups.is_power_of_two() => (level as usize - 1, groups.trailing_zeros() as usize + 1),
            false => (level as usize - 1, SEVERAL),
        };
        let lines = &mut self.lines[of_level];
        if lines.len() <= at {
            lines.resize_with(at + 1, Line::default);
        }
        self.busy[of_level] |= 1 << at;
        let line = &mut lines[at];
        // Others may have been taken in while this one waited for room: acks leave in order.
        let block = block.max(line.queue.back().map_or(BlockSeq(0), |last| last.block));
        let results_len = results.len() as u32;
        let answered = false;
        line.queue.push_back(Pending {
            caller,
            level,
            block,
            groups,
            results: results_len,
            deadline_us,
            taken_us,
            payload_bytes,
            answered,
        });
        // One by one, as they are taken out again.
        results.iter().for_each(|result| line.results.push_back(*result));
    }

    /// A block was closed, and is handed to the disk.
    pub(super) fn on_closed(&mut self, now: Now, block: BlockSeq) {
        self.closed.note(block, now.mono_us);
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
    pub(super) fn is_committed(&self, groups: u64, block: BlockSeq) -> bool {
        are_committed(&self.committed, groups, block)
    }

    /// The highest level that `groups` have through `block`, if that is what is asked for, or more.
    pub(super) fn reached(&self, asked: Level, groups: u64, block: BlockSeq, held: HeldIn<'_>) -> Option<Level> {
        level_reached(&self.committed, asked, groups, block, held)
    }

    /// Answers every request whose level is reached. `held` is none on a node without others: there levels below `durable` wait for the commit as well, and
    /// are told as they were asked for.
    pub(super) fn release(&mut self, held: Option<HeldIn<'_>>, partitions: &Partitions, effects: &mut Effects) {
        for (lines, busy) in std::iter::zip(&mut self.lines, &mut self.busy) {
            for at in bits(*busy) {
                let line = &mut lines[at];
                while let Some(&Pending { level, groups, block, .. }) = line.queue.front() {
                    let told = match held {
                        Some(held) => level_reached(&self.committed, level, groups, block, held),
                        None => are_committed(&self.committed, groups, block).then_some(level),
                    };
                    let Some(told) = told else { break };
                    line.answer_front(told, &self.closed, partitions, effects);
                }
                if line.queue.is_empty() {
                    *busy &= !(1 << at);
                }
            }
        }
    }

    /// Tells those whose time is over. Their records may still become durable.
    pub(super) fn on_deadline(&mut self, now: Now, effects: &mut Effects, metrics: &mut ShardMetrics) {
        for pending in self.waiting_mut().filter(|p| p.deadline_us <= now.mono_us) {
            pending.answered = true;
            metrics.count_error(ErrorCode::TimedOut);
            effects.refuse(&pending.caller, ErrorCode::TimedOut, "", "");
        }
    }

    /// The earliest time-out. Requests of one client mostly ask for the same, so this is one of the lines' fronts; others are found a little late.
    pub(super) fn next_deadline_us(&self) -> u64 {
        let busy = std::iter::zip(&self.lines, self.busy).flat_map(|(lines, busy)| bits(busy).map(|at| &lines[at]));
        busy.filter_map(|line| line.queue.iter().find(|p| !p.answered)).map(|p| p.deadline_us).min().unwrap_or(u64::MAX)
    }

    /// Another node leads one of `groups` (as `bit_of`): whoever waits for it is told that what was appended may be stored, or not.
    pub(super) fn fail_group(&mut self, groups: u64, effects: &mut Effects, metrics: &mut ShardMetrics) {
        let committed = std::mem::take(&mut self.committed);
        for pending in self.waiting_mut().filter(|p| p.groups & groups != 0 && !are_committed(&committed, p.groups, p.block)) {
            pending.answered = true;
            // Nothing is left to wait for.
            pending.groups = 0;
            metrics.count_error(ErrorCode::LeadershipLost);
            effects.refuse(&pending.caller, ErrorCode::LeadershipLost, "", "");
        }
        self.committed = committed;
    }

    /// The log has failed: nobody who waits will get his level.
    pub(super) fn fail_all(&mut self, effects: &mut Effects, metrics: &mut ShardMetrics, reason: &str) {
        for pending in self.waiting_mut() {
            metrics.count_error(ErrorCode::StorageFailed);
            effects.refuse(&pending.caller, ErrorCode::StorageFailed, reason, "");
        }
        (self.lines, self.busy) = Default::default();
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.busy == [0; LEVELS]
    }

    /// Whether everybody has an answer: some of them were told that their time was over, and what they sent is not committed.
    pub(super) fn are_answered(&self) -> bool {
        self.lines.iter().flatten().all(|line| line.queue.iter().all(|pending| pending.answered))
    }

    /// Those who have no answer.
    fn waiting_mut(&mut self) -> impl Iterator<Item = &mut Pending> {
        self.lines.iter_mut().flatten().flat_map(|line| &mut line.queue).filter(|pending| !pending.answered)
    }
}

impl Line {
    /// The first one has reached a level.
    fn answer_front(&mut self, told: Level, closed: &ClosedAt, partitions: &Partitions, effects: &mut Effects) {
        let pending = self.queue.pop_front().expect("somebody waits");
        if pending.answered {
            self.results.drain(..pending.results as usize);
            return;
        }
        // One by one, since mostly it is one: a drain moves what is behind it.
        let results = &mut self.results;
        let results = (0..pending.results).map(|_| results.pop_front().expect("a result per batch"));
        let answered = Answered {
            bytes: pending.payload_bytes,
            taken_us: pending.taken_us,
            closed_us: closed.of(pending.block),
            ..Answered::one(&pending.caller, 0)
        };
        reply(&pending.caller, &answered, told, results, partitions, effects);
    }
}

/// The places of the bits that are set.
fn bits(mut mask: u128) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let at = (mask != 0).then(|| mask.trailing_zeros() as usize)?;
        mask &= mask - 1;
        Some(at)
    })
}

fn are_committed(committed: &[(GroupId, BlockSeq)], groups: u64, block: BlockSeq) -> bool {
    bits(groups.into()).all(|place| committed[place].1 >= block)
}

/// The highest level that all of `groups` have through `block`; `None` where one of them has less than `asked`, or may not be answered for.
fn level_reached(committed: &[(GroupId, BlockSeq)], asked: Level, groups: u64, block: BlockSeq, held: HeldIn<'_>) -> Option<Level> {
    let mut lowest = Level::Durable;
    for (group, through) in bits(groups.into()).map(|place| committed[place]) {
        if through >= block {
            continue;
        }
        if asked == Level::Durable {
            return None;
        }
        let Held { leader_durable, replicated } = held(group, block)?;
        let has = match asked {
            Level::LeaderDurable => leader_durable,
            Level::Replicated => replicated,
            _ => true,
        };
        if !has {
            return None;
        }
        lowest = lowest.min(match (replicated, leader_durable) {
            (true, _) => Level::Replicated,
            (false, true) => Level::LeaderDurable,
            (false, false) => Level::Leader,
        });
    }
    Some(lowest)
}

/// Appends the reply's effects. Takes all of `results`, whatever comes of it: they may be the front of a line.
pub(super) fn reply(
    caller: &Caller,
    answered: &Answered,
    level: Level,
    results: impl Iterator<Item = BatchResult>,
    partitions: &Partitions,
    effects: &mut Effects,
) {
    effects.reply_timed(caller, answered, |out| {
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
