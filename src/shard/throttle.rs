//! Slowing producers down before something runs out: space on the disk, what waits for the sorter, memory that lists where batches are.
//!
//! Each of these is a budget. While it is plenty nobody waits. Once little is left, producers get a part of what is left each second, so it is used
//! up slower and slower instead of all at once, and what works against it (retention, the sorter, an operator) has time; where that gives back as
//! much as is taken, producers go on at just that speed. A frame waits where it is (TCP slows its sender down), requests of other connections pass.
//!
//! Invariants: a budget never stops producers for good (`FLOOR` bytes a second): whether something has to be refused is not decided here; a frame that
//! was begun is not held up; nothing but produce is.
//!
//! Not here: the marks of free space (`config/space.rs`), refusing (`produce.rs`).

use super::shard::Shard;
use super::sorting::Policy;
use crate::config::{DiskLevel, DiskLook};
use crate::effects::Now;

/// Producers of a shard get this much at the least, in bytes per second.
const FLOOR: u64 = 1 << 20;
/// Time in which the sorter's and the index's budgets may be used up, in microseconds: they only have to take in bursts until the rate that is
/// worked off and the one that is taken meet.
const USE_UP_US: u64 = 10_000_000;
/// Saved up at most, in microseconds' worth of the rate.
const SAVED_US: u64 = 100_000;
/// How often budgets are counted, in microseconds, and how often their balances.
const COUNT_US: u64 = 50_000;
const ACCRUE_US: u64 = 100;

/// Who waits is tried again each millisecond: who was not for this long, in microseconds, waits no more.
const TURN_US: u64 = 3_000;

/// What can run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scarce {
    Disk,
    Sorter,
    Index,
}

#[derive(Debug, Default)]
struct Budget {
    /// Bytes of batches that what is left would take in; `None` while it is plenty.
    left: Option<u64>,
    /// Bytes that may be taken now. Below zero after a frame that was larger than what there was.
    balance: i64,
    counted_us: u64,
    /// What is saved up at most, at the rate of the last count.
    saved_max: i64,
    held_since_us: Option<u64>,
    held_us: u64,
}

impl Budget {
    fn set(&mut self, now_us: u64, left: Option<u64>) {
        if self.left.is_none() && left.is_some() {
            (self.balance, self.counted_us) = (0, now_us);
        }
        self.left = left;
    }

    fn accrue(&mut self, now_us: u64, use_up_us: u64) {
        let Some(left) = self.left else { return };
        let passed_us = now_us.saturating_sub(self.counted_us);
        if passed_us < ACCRUE_US {
            return;
        }
        self.counted_us = now_us;
        let rate = FLOOR + (u128::from(left) * 1_000_000 / u128::from(use_up_us)) as u64;
        let part = |us: u64| (u128::from(rate) * u128::from(us) / 1_000_000) as i64;
        self.saved_max = part(SAVED_US);
        if self.balance < self.saved_max {
            self.balance = (self.balance + part(passed_us)).min(self.saved_max);
        }
    }

    /// Whether nothing may be taken now.
    fn is_used_up(&mut self, now_us: u64, use_up_us: u64) -> bool {
        self.accrue(now_us, use_up_us);
        let holds = self.left.is_some() && self.balance <= 0;
        if holds {
            self.held_since_us.get_or_insert(now_us);
        } else if let Some(since_us) = self.held_since_us.take() {
            self.held_us += now_us.saturating_sub(since_us);
        }
        holds
    }

    fn take(&mut self, bytes: u64) {
        if self.left.is_some() {
            self.balance -= bytes as i64;
        }
    }

    /// Somebody else takes `bytes`, which the next count of what is left shows: producers stop for a moment, and not for all of it.
    fn take_for_others(&mut self, bytes: u64) {
        if self.left.is_some() {
            self.balance = (self.balance - bytes as i64).max(self.balance.min(-self.saved_max));
        }
    }

    /// What comes back may be taken at once, but is not saved up.
    fn give_back(&mut self, bytes: u64) {
        if self.left.is_some() && self.balance < bytes as i64 {
            self.balance = (self.balance + bytes as i64).min(bytes as i64);
        }
    }
}

/// The budgets of a shard.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    budgets: [Budget; 3],
    look: DiskLook,
    /// Segment files created until then.
    created_at_look: u64,
    next_count_us: u64,
    /// The last frame was a forwarded one, and when one of an own connection was held up last.
    forwarded_last: bool,
    own_held_us: u64,
    /// Memory of all indexes and bytes that they list, as of the last pass over all partitions, and of the one under way.
    index: IndexUse,
    counting: IndexUse,
}

/// Memory of indexes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct IndexUse {
    memory_bytes: u64,
    batch_bytes: u64,
}

impl Throttle {
    fn use_up_us(scarce: usize, disk_us: u64) -> u64 {
        if scarce == Scarce::Disk as usize { disk_us } else { USE_UP_US }
    }

    /// Something was given back.
    pub(super) fn give_back(&mut self, scarce: Scarce, bytes: u64) {
        self.budgets[scarce as usize].give_back(bytes);
    }
    /// Something was taken by somebody else than producers.
    pub(super) fn take_for_others(&mut self, scarce: Scarce, bytes: u64) {
        self.budgets[scarce as usize].take_for_others(bytes);
    }

    /// A frame of `bytes` was taken in, from a connection of this shard's or of another's.
    pub(super) fn on_produced(&mut self, bytes: u64, is_forwarded: bool) {
        self.budgets.iter_mut().for_each(|budget| budget.take(bytes));
        self.forwarded_last = is_forwarded;
    }

    /// Whether it is the turn of producers on this shard's own connections: forwarded frames are looked at more often, and would take all there is.
    fn is_turn_of_own(&self, now: Now) -> bool {
        let is_scarce = self.budgets.iter().any(|budget| budget.left.is_some());
        is_scarce && self.forwarded_last && now.mono_us < self.own_held_us + TURN_US
    }

    /// Time that producers were held up for each, in microseconds.
    pub(super) fn held_us(&self, scarce: Scarce) -> u64 {
        self.budgets[scarce as usize].held_us
    }

    /// Memory of all indexes, in bytes, as of the last pass over all partitions.
    pub(super) fn index_bytes(&self) -> u64 {
        self.index.memory_bytes
    }

    /// The last look at the disk.
    pub(super) fn disk(&self) -> &DiskLook {
        &self.look
    }

    /// One partition of the pass over all of them.
    pub(super) fn count_index(&mut self, memory_bytes: u64, batch_bytes: u64) {
        self.counting.memory_bytes += memory_bytes;
        self.counting.batch_bytes += batch_bytes;
    }
    /// The pass is through.
    pub(super) fn index_counted(&mut self) {
        self.index = std::mem::take(&mut self.counting);
    }
}

impl Shard {
    /// What the file system has, until this is called again. Below the marks producers are slowed down, then refused; everything else goes on.
    pub fn set_disk(&mut self, look: DiskLook) {
        self.throttle.look = look;
        self.throttle.created_at_look = self.log.files_created();
        // Half of what is kept is for manifest and checkpoint: without them nothing can be freed.
        let for_last = look.free_bytes >= self.log.segment_bytes() + look.refuse_bytes / 2;
        self.log.set_segment_room(look.segments, for_last);
    }

    /// Whether a produce frame has to wait.
    pub(super) fn must_wait(&mut self, now: Now) -> bool {
        let disk_us = self.settings.throttle_time_us;
        let mut holds = false;
        for (scarce, budget) in self.throttle.budgets.iter_mut().enumerate() {
            holds |= budget.is_used_up(now.mono_us, Throttle::use_up_us(scarce, disk_us));
        }
        holds
    }

    /// Whether a produce frame has to wait, or another one goes first.
    pub(super) fn holds_produce(&mut self, now: Now, is_forwarded: bool) -> bool {
        let holds = self.must_wait(now);
        if is_forwarded {
            return holds || self.throttle.is_turn_of_own(now);
        }
        if holds {
            self.throttle.own_held_us = now.mono_us;
        }
        holds
    }

    /// Counts what is left of each budget.
    pub(super) fn count_budgets(&mut self, now: Now) {
        if now.mono_us < self.throttle.next_count_us {
            return;
        }
        self.throttle.next_count_us = now.mono_us + COUNT_US;
        let look = self.throttle.look;
        // A second is long: a fast disk takes a gigabyte meanwhile.
        let taken = (self.log.files_created() - self.throttle.created_at_look) * self.log.segment_bytes();
        let is_slow = look.level >= DiskLevel::Slow || look.free_bytes.saturating_sub(taken) < look.slow_bytes;
        let disk = is_slow.then(|| look.room_bytes.saturating_sub(taken) + self.log.prepared_bytes());
        // On a full disk only what wins space is sorted: slowing producers down would not help.
        let debt = if self.settings.sorter_segments == 0 || self.log.is_tight() { 0 } else { self.sorter_debt_bytes() };
        let sorter = scarce_part(debt, self.settings.sorter_debt_bytes);
        let IndexUse { memory_bytes, batch_bytes } = self.throttle.index;
        let per_byte = batch_bytes / memory_bytes.max(1);
        let index = scarce_part(memory_bytes, self.settings.index_bytes_max).map(|left| left.saturating_mul(per_byte));
        for (budget, left) in self.throttle.budgets.iter_mut().zip([disk, sorter, index]) {
            budget.set(now.mono_us, left);
        }
    }

    /// Bytes of segments that wait to be sorted because their partitions lie scattered.
    pub(super) fn sorter_debt_bytes(&self) -> u64 {
        let policy = Policy::of(&self.settings);
        let waits = |segment: &crate::log::SegmentInfo| {
            let usage = self.retention.use_of(segment.uid);
            usage.is_some_and(|usage| policy.is_scattered(segment, usage)) && self.may_be_sorted(segment)
        };
        self.log.segments().filter(waits).map(|segment| segment.file_bytes).sum()
    }
}

/// What is left of a budget, once more than half of it is used.
fn scarce_part(used: u64, budget: u64) -> Option<u64> {
    (used > budget / 2).then(|| budget.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_US: u64 = 60_000_000;

    /// Takes 64 KiB whenever it may, for a second in steps of a millisecond; answers how much.
    fn second(budget: &mut Budget, from_us: u64) -> u64 {
        let mut taken = 0;
        for now_us in (from_us..from_us + 1_000_000).step_by(1000) {
            while !budget.is_used_up(now_us, MINUTE_US) && taken < 1 << 40 {
                budget.take(64 << 10);
                taken += 64 << 10;
            }
        }
        taken
    }

    #[test]
    fn what_is_left_is_used_up_slower_and_slower() {
        let mut budget = Budget::default();
        assert!(!budget.is_used_up(5, MINUTE_US), "plenty");
        let mut left = 6 << 30;
        for second_at in 0..180 {
            budget.set(second_at * 1_000_000, Some(left));
            let taken = second(&mut budget, second_at * 1_000_000);
            let expected = FLOOR + left / 60;
            assert!(taken.abs_diff(expected) < 256 << 10, "second {second_at}: {taken} of {left}");
            left -= taken;
        }
        assert!(left > 6 << 20, "three minutes leave a twentieth: {left}");
        assert!(budget.held_us > 100_000_000);
    }

    #[test]
    fn what_comes_back_may_be_taken_at_once_but_is_not_saved_up() {
        let mut budget = Budget::default();
        budget.set(0, Some(0));
        budget.give_back(256 << 20);
        budget.give_back(256 << 20);
        let taken = second(&mut budget, 0);
        assert!(taken.abs_diff((256 << 20) + FLOOR) < 256 << 10, "{taken}");
        budget.set(1_000_000, None);
        budget.take(1 << 40);
        budget.set(1_000_000, Some(1 << 30));
        assert!(second(&mut budget, 1_000_000) > 1 << 20, "what was taken while there was plenty does not count");
    }

    #[test]
    fn what_others_take_stops_producers_for_a_moment() {
        let mut budget = Budget::default();
        budget.set(0, Some(600 << 20));
        second(&mut budget, 0);
        (0..16).for_each(|_| budget.take_for_others(256 << 20));
        let taken = second(&mut budget, 1_000_000);
        assert!(taken > 8 << 20, "11 MiB a second, and two tenths of one are gone: {taken}");
    }

    #[test]
    fn forwarded_frames_and_those_of_own_connections_take_turns_while_something_is_scarce() {
        let at = |mono_us| Now { mono_us, utc_us: 0 };
        let mut throttle = Throttle::default();
        throttle.on_produced(1, true);
        throttle.own_held_us = 10_000;
        assert!(!throttle.is_turn_of_own(at(11_000)), "there is plenty");
        throttle.budgets[0].set(0, Some(1));
        assert!(throttle.is_turn_of_own(at(11_000)));
        assert!(!throttle.is_turn_of_own(at(20_000)), "who waits comes back within a millisecond");
        throttle.on_produced(1, false);
        assert!(!throttle.is_turn_of_own(at(11_000)), "it had its turn");
    }

    #[test]
    fn half_of_a_budget_is_plenty() {
        assert_eq!((scarce_part(50, 100), scarce_part(51, 100), scarce_part(101, 100)), (None, Some(49), Some(0)));
    }
}
