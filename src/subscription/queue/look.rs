//! Looking at batches: which messages a queue has, and what is special about them.
//!
//! The result depends on what is stored and on the queue's settings only, so a start that looks at the same batches again finds the same.
//!
//! Not here: where the batches come from (shard/).

use super::cells::{Cell, State};
use super::lanes::group_hash;
use super::part::{NO_LANE, Part, ready_key};
use super::rules::QueueRules;
use crate::effects::Now;
use crate::mutants::Mutant;
use tramline_wire::batch::{Attributes, BATCH_APPEND_TIME, BATCH_CONTROL, BatchView};
use tramline_wire::queue::PRIORITY_MAX;

/// Cells that one partition of a queue has, at most: no further messages are looked at until some are settled.
pub const CELLS_MAX: usize = 50_000_000;

/// What the leader says of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// Offset of its first record.
    pub base_offset: u64,
    /// When it was appended, UTC microseconds.
    pub append_us: i64,
    /// Its flags, with those of the leader.
    pub flags: u16,
}

/// Whether a batch was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a batch that was not looked at comes again"]
pub enum Looked {
    /// Yes.
    Done,
    /// There is no room for what may be special about its messages.
    Full,
}

impl Part {
    /// Looks at a batch; what was looked at before is passed over. Panics if it leaves out what was not looked at and is there (asserted by the caller's
    /// order: batches come in order of offset, what is missing between them is lost or compacted).
    pub fn look(&mut self, now: Now, rules: &QueueRules, batch: &BatchView<'_>) -> Looked {
        let stamp = Stamp { base_offset: batch.base_offset(), append_us: batch.append_time_us(), flags: batch.flags() };
        self.look_stamped(now, rules, batch, stamp)
    }

    /// The same for a batch that has just been appended, whose own header is not stamped.
    pub fn look_stamped(&mut self, now: Now, rules: &QueueRules, batch: &BatchView<'_>, stamp: Stamp) -> Looked {
        let (base, end) = (stamp.base_offset, stamp.base_offset + u64::from(batch.last_offset_delta()) + 1);
        if end <= self.looked_to {
            return Looked::Done;
        }
        if self.cells.len() >= CELLS_MAX {
            return Looked::Full;
        }
        if stamp.flags & BATCH_CONTROL == 0 {
            let append_us = stamp.append_us;
            let has_append_time = stamp.flags & BATCH_APPEND_TIME != 0;
            // Checked when it was taken in, or when it came back from the disk.
            for entry in batch.index().map_while(Result::ok) {
                let offset = base + u64::from(entry.offset_delta);
                if offset < self.looked_to {
                    continue;
                }
                let created_us = batch.first_timestamp_us().saturating_add(i64::from(entry.time_delta_us));
                let time_us = if has_append_time { append_us } else { created_us };
                // Between two records of a compacted batch there is nothing.
                self.looked_to = offset + 1;
                if time_us >= self.begin_us {
                    self.look_at(now, rules, offset, time_us, append_us, &entry.attributes);
                }
            }
        }
        self.looked_to = end;
        if !self.ahead.is_empty() {
            self.ahead.remove(0..end);
        }
        Looked::Done
    }

    /// What lies below `to` cannot be read: it was lost, or is damaged.
    pub fn look_past(&mut self, now: Now, to: u64) {
        if to > self.looked_to {
            let from = self.looked_to;
            self.looked_to = to;
            self.settle_range(Some(now), from, to, super::note::Why::Damaged);
            self.ahead.remove(0..to);
        }
    }

    fn look_at(&mut self, now: Now, rules: &QueueRules, offset: u64, time_us: i64, append_us: i64, attributes: &Attributes<'_>) {
        let is_plain = *attributes == Attributes::default();
        let is_settled = !self.ahead.is_empty() && self.ahead.contains(offset);
        if is_plain && !is_settled && (self.cells.is_empty() || self.cells.get(offset).is_none()) {
            return self.fresh.insert(offset..offset + 1);
        }
        // Also of a settled message: it was the first of its id.
        let window_us = if rules.mutants.has(Mutant::ShortDedup) { rules.dedup_window_us / 2 } else { rules.dedup_window_us };
        let is_duplicate = attributes.message_id.is_some_and(|id| self.dedup.is_duplicate(id, offset, append_us, window_us));
        if is_settled {
            return;
        }
        let known = self.cells.get(offset).copied();
        if is_duplicate && known.is_none() {
            self.counts.duplicates += 1;
            return;
        }
        let (lane, is_out) = match attributes.group {
            _ if known.is_some_and(|cell| cell.lane == NO_LANE) => (NO_LANE, true),
            Some(_) if rules.mutants.has(Mutant::OpenLanes) => (0, true),
            Some(group) => self.lanes.enter(group_hash(group), offset),
            None => (0, true),
        };
        // Dead, or brought back by hand: time does not end it any more.
        if let Some(ttl_ms) = attributes.ttl_ms.filter(|_| lane != NO_LANE) {
            let at_us = time_us.saturating_add(i64::from(ttl_ms) * 1000);
            self.expires_us.insert(offset, at_us);
            self.waits_due.push(at_us.max(0) as u64, offset, 1);
        }
        let has_priority = !rules.mutants.has(Mutant::IgnorePriority);
        let priority = attributes.priority.filter(|_| has_priority).unwrap_or(0).min(PRIORITY_MAX);
        if known.is_some() {
            self.change(offset, |cell| (cell.priority, cell.lane) = (priority, lane));
            return;
        }
        let has_delay = !rules.mutants.has(Mutant::IgnoreDelay);
        let until_us = attributes.deliver_at_us.filter(|_| has_delay).unwrap_or(0).max(0) as u64;
        let is_due = until_us <= now.utc_us.max(0) as u64;
        let state = match (is_out, is_due) {
            (false, _) => State::Parked,
            (true, false) => State::Delayed,
            (true, true) => State::Ready,
        };
        if lane == 0 && is_due && priority == 0 && attributes.ttl_ms.is_none() {
            return self.fresh.insert(offset..offset + 1);
        }
        self.put(offset, Cell { until_us, lane, priority, ..Cell::new(state) });
        if state == State::Delayed {
            self.waits_due.push(until_us, offset, 1);
        }
        debug_assert!(state != State::Ready || self.ready.contains(&ready_key(offset, self.cells.get(offset).expect("just put"))));
    }
}
