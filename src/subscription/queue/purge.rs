//! Everything below an offset goes at once: it is settled with one note, and what was kept of it is dropped bit by bit.
//!
//! Invariant: no call drops, or goes through, more than some thousand messages, however many there are.
//!
//! Not here: which messages (shard/), one message at a time (`part.rs`).

use super::cells::{Cell, State};
use super::note::Why;
use super::part::{NO_LANE, Part};
use crate::effects::Now;

/// Messages behind those that are purged that are moved over: those that are not committed yet, usually. With more of them it goes message by message.
const MOVED_MAX: usize = 4000;
/// What is dropped at once of each list: with some of the cells 25 us, 83 us at the 99th percentile (seen with a million messages, half of them leased).
const DROPPED_AT_ONCE: usize = 500;
/// Messages with failed deliveries: each has some lists of its own.
const HISTORIES_AT_ONCE: usize = 50;

impl Part {
    /// Settles everything below `to`. Only what is above it is gone through.
    pub(super) fn purge(&mut self, now: Option<Now>, to: u64) {
        if to <= self.settled_to() {
            return;
        }
        let moved: Vec<(u64, Cell)> = self.cells.iter_from(to).map(|(offset, cell)| (offset, *cell)).take(MOVED_MAX + 1).collect();
        if moved.len() > MOVED_MAX {
            return self.settle_range(now, self.settled_to(), to, Why::Deleted);
        }
        let mut old = std::mem::take(self);
        self.has_begun = old.has_begun;
        self.begin_us = old.begin_us;
        self.looked_to = old.looked_to;
        self.ahead = std::mem::take(&mut old.ahead);
        self.settled_ahead(0, to);
        self.dedup = std::mem::take(&mut old.dedup);
        self.next_lease = old.next_lease;
        self.counts = old.counts;
        self.garbage = std::mem::take(&mut old.garbage);
        old.fresh.iter_from(to).for_each(|range| self.fresh.insert(range));
        for (offset, cell) in moved {
            self.take_over(now, &mut old, offset, cell);
        }
        if now.is_some() {
            self.count_settled(Why::Deleted, old.open_count() - self.open_count());
        }
        self.garbage.push(old);
    }

    /// A message that `old` had.
    fn take_over(&mut self, now: Option<Now>, old: &mut Part, offset: u64, mut cell: Cell) {
        cell.consumer = self.consumers.number(old.consumers.name(cell.consumer));
        if cell.lane != 0 && cell.lane != NO_LANE {
            let (lane, is_out) = self.lanes.enter(old.lanes.hash_of(cell.lane), offset);
            cell.lane = lane;
            if is_out && cell.state == State::Parked {
                let is_due = now.map_or(cell.until_us == 0, |now| cell.until_us <= now.utc_us.max(0) as u64);
                cell.state = if is_due { State::Ready } else { State::Delayed };
            }
        }
        if let Some(at_us) = old.expires_us.remove(&offset) {
            self.expires_us.insert(offset, at_us);
            if now.is_some() {
                self.waits_due.push(at_us.max(0) as u64, offset, 1);
            }
        }
        if let Some(history) = old.histories.remove(&offset) {
            self.histories.insert(offset, history);
        }
        self.put(offset, cell);
        match cell.state {
            State::Leased if now.is_some() => self.leases_due.push(cell.until_us, offset, 1),
            State::Delayed if now.is_some() => self.waits_due.push(cell.until_us, offset, 1),
            _ => {}
        }
    }

    /// Drops some of what was purged; whether there is more.
    pub fn tidy(&mut self) -> bool {
        if let Some(old) = self.garbage.last_mut()
            && !old.drop_some()
        {
            self.garbage.pop();
        }
        !self.garbage.is_empty()
    }

    /// Drops some of it, all of which nobody asks for again; whether there is more.
    pub fn drop_some(&mut self) -> bool {
        let mut has_more = self.tidy();
        has_more |= self.cells.drop_some();
        has_more |= drop_of(DROPPED_AT_ONCE, || self.ready.pop_first());
        has_more |= drop_of(DROPPED_AT_ONCE, || self.dead.pop_first());
        has_more |= drop_of(DROPPED_AT_ONCE, || self.expires_us.pop_first());
        has_more |= drop_of(HISTORIES_AT_ONCE, || self.histories.pop_first());
        has_more |= drop_of(DROPPED_AT_ONCE, || self.fresh.pop_first());
        has_more |= drop_of(DROPPED_AT_ONCE, || self.ahead.pop_first());
        has_more |= drop_of(DROPPED_AT_ONCE, || self.leases_due.pop_first());
        has_more |= drop_of(DROPPED_AT_ONCE, || self.waits_due.pop_first());
        has_more |= drop_of(DROPPED_AT_ONCE, || self.dedup.pop_first());
        has_more |= drop_of(DROPPED_AT_ONCE, || self.lanes.pop());
        has_more | drop_of(DROPPED_AT_ONCE, || self.consumers.pop())
    }

    /// Records below `log_start` are gone: whatever their state, they are settled. Answers whether there is more to do, after some thousand messages.
    pub fn drop_below(&mut self, now: Now, log_start: u64) -> bool {
        /// About a millisecond's work.
        const AT_ONCE: usize = 4000;
        let from = self.settled_to();
        if from >= log_start {
            return false;
        }
        let to = self.cells.iter_from(from).nth(AT_ONCE).map_or(log_start, |(offset, _)| offset.min(log_start));
        self.settle_range(Some(now), from, to, Why::Expired);
        if self.looked_to < to {
            self.ahead.remove(0..to);
            self.looked_to = to;
        }
        to < log_start
    }
}

/// Drops up to `count` of a list; whether there may be more.
fn drop_of<T>(count: usize, mut pop: impl FnMut() -> Option<T>) -> bool {
    (0..count).all(|_| pop().is_some())
}
