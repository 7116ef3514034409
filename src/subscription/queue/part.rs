//! One queue in one partition: how things stand with each message, and how notes change that.
//!
//! A message below `looked_to` is *fresh* (never delivered, nothing special about it: kept as ranges), has a *cell*, or is settled. What lies above has not
//! been looked at: its batch was not read yet. Everything that must survive a crash changes by notes (`apply`), the same ones that stand in the log; a start
//! takes in a snapshot and the notes behind it, then looks at the batches again.
//!
//! Invariants: a settled message never comes back; the number of deliveries of a message falls by a release or a redrive only; one lease per message at a
//! time; the counts agree with the cells (asserted in tests).
//!
//! Not here: reading batches (`look.rs`), who gets what (`pick.rs`), all at once (`purge.rs`), the log's and the snapshot's bytes (`note.rs`, `stored.rs`), waiting (shard/).

use super::cells::{Cell, Cells, State};
use super::consumers::Consumers;
use super::dedup::Dedup;
use super::due::Due;
use super::lanes::Lanes;
use super::note::{Kind, QueueNote, Why};
use super::ranges::Ranges;
use crate::effects::Now;
use std::collections::{BTreeMap, BTreeSet};
use tramline_wire::queue::PRIORITY_MAX;

/// Ticks of leases: a lease ends up to so many microseconds late.
const LEASE_TICK_US: u64 = 8_000;
/// Ticks of delays, in microseconds.
const DELAY_TICK_US: u64 = 1_000;
/// Failed deliveries of one message that are remembered: the latest ones.
pub const ATTEMPTS_MAX: usize = 16;
/// Messages whose failed deliveries are remembered, in one partition; of further ones only the number of deliveries is known.
pub const HISTORIES_MAX: usize = 100_000;
/// The lane of a message that has left its group's order (dead, redriven).
pub(super) const NO_LANE: u32 = u32::MAX;

/// A delivery that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When it failed, UTC microseconds.
    pub at_us: i64,
    /// How.
    pub why: Why,
    /// Which delivery it was, counted from 1.
    pub deliveries: u16,
    /// Who had the message.
    pub consumer: Box<[u8]>,
    /// The consumer's words.
    pub reason: Box<[u8]>,
}

/// What was done since the shard started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartCounts {
    /// Messages acked.
    pub acked: u64,
    /// Deliveries after the first one of a message.
    pub redelivered: u64,
    /// Messages whose time to live passed.
    pub expired: u64,
    /// Messages moved to the dead-letter topic.
    pub dead_lettered: u64,
    /// Messages that were duplicates.
    pub duplicates: u64,
    /// Messages deleted or purged by request.
    pub deleted: u64,
    /// Times that a message was given up.
    pub died: u64,
    /// Leases that ran out.
    pub lease_expired: u64,
}

/// One queue in one partition.
#[derive(Debug)]
pub struct Part {
    pub(super) looked_to: u64,
    /// Records older than this are not in the queue.
    pub(super) begin_us: i64,
    pub(super) fresh: Ranges,
    pub(super) cells: Cells,
    /// Settled above `looked_to`.
    pub(super) ahead: Ranges,
    /// Ready messages that have a cell: (9 - priority, offset).
    pub(super) ready: BTreeSet<(u8, u64)>,
    pub(super) dead: BTreeSet<u64>,
    /// Cells by state.
    pub(super) by_state: [u64; 6],
    pub(super) leases_due: Due,
    /// Delays and times to live, UTC.
    pub(super) waits_due: Due,
    pub(super) lanes: Lanes,
    pub(super) dedup: Dedup,
    /// When messages that have a time to live expire, UTC microseconds.
    pub(super) expires_us: BTreeMap<u64, i64>,
    pub(super) histories: BTreeMap<u64, Vec<Attempt>>,
    pub(super) consumers: Consumers,
    pub(super) next_lease: u32,
    pub(super) counts: PartCounts,
    /// What was kept of messages that were purged, to be dropped bit by bit.
    pub(super) garbage: Vec<Part>,
    pub(super) has_begun: bool,
}

impl Default for Part {
    fn default() -> Part {
        Part {
            looked_to: 0,
            begin_us: i64::MIN,
            fresh: Ranges::default(),
            cells: Cells::default(),
            ahead: Ranges::default(),
            ready: BTreeSet::new(),
            dead: BTreeSet::new(),
            by_state: [0; 6],
            leases_due: Due::new(LEASE_TICK_US),
            waits_due: Due::new(DELAY_TICK_US),
            lanes: Lanes::default(),
            dedup: Dedup::default(),
            expires_us: BTreeMap::new(),
            histories: BTreeMap::new(),
            consumers: Consumers::default(),
            next_lease: 1,
            counts: PartCounts::default(),
            garbage: Vec::new(),
            has_begun: false,
        }
    }
}

impl Part {
    /// Whether it is known where the queue begins.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// All below was looked at.
    pub fn looked_to(&self) -> u64 {
        self.looked_to
    }

    /// All below is settled.
    pub fn settled_to(&self) -> u64 {
        let fresh = self.fresh.first().map_or(u64::MAX, |range| range.start);
        fresh.min(self.cells.first().unwrap_or(u64::MAX)).min(self.looked_to)
    }

    /// All below is settled, of a part that looks at nothing: what notes tell of messages that were not looked at counts as well.
    pub fn settled_unseen_to(&self) -> u64 {
        let settled_to = self.settled_to();
        let ahead = self.ahead.first().filter(|range| range.start <= settled_to && settled_to == self.looked_to);
        ahead.map_or(settled_to, |range| range.end.max(settled_to))
    }

    /// Messages that may be delivered now, of those that were looked at.
    pub fn ready_count(&self) -> u64 {
        self.fresh.len() + self.ready.len() as u64
    }

    /// Messages that somebody has.
    pub fn leased_count(&self) -> u64 {
        self.by_state[State::Leased as usize]
    }

    /// Messages that wait for their time, or for another one of their group.
    pub fn delayed_count(&self) -> u64 {
        self.by_state[State::Delayed as usize] + self.by_state[State::Parked as usize]
    }

    /// Messages that were given up and are still here.
    pub fn dead_count(&self) -> u64 {
        self.by_state[State::Dead as usize]
    }

    /// Messages that are not settled, of those that were looked at.
    pub fn open_count(&self) -> u64 {
        self.fresh.len() + self.cells.len() as u64
    }

    /// What was done since the start.
    pub fn counts(&self) -> PartCounts {
        self.counts
    }

    /// The failed deliveries of a message, oldest first.
    pub fn attempts(&self, offset: u64) -> &[Attempt] {
        self.histories.get(&offset).map_or(&[], Vec::as_slice)
    }

    /// Bytes of memory, by the sizes of what is allocated: what `memory_bytes_about` is compared with.
    #[cfg(test)]
    pub fn memory_bytes(&self) -> usize {
        let attempts =
            |list: &Vec<Attempt>| 24 + list.iter().map(|a| size_of::<Attempt>() + a.consumer.len() + a.reason.len()).sum::<usize>();
        self.cells.memory_bytes()
            + self.fresh.memory_bytes()
            + self.leases_due.memory_bytes()
            + self.waits_due.memory_bytes()
            + self.lanes.memory_bytes()
            + (self.ready.len() + self.expires_us.len() + self.dead.len()) * 28
            + self.dedup.len() * 160
            + self.histories.values().map(attempts).sum::<usize>()
    }

    /// Takes a note in. `now` is missing at a start, when nobody waits and no time runs yet.
    pub fn apply(&mut self, now: Option<Now>, note: &QueueNote) {
        match note.kind {
            Kind::Begin => {
                if !self.has_begun {
                    (self.looked_to, self.begin_us, self.has_begun) = (note.offset, note.at_us, true);
                }
            }
            Kind::Lease => self.lease(now, note),
            Kind::Extend => self.extend(now, note),
            Kind::Settle => self.settle_range(now, note.offset, note.end(), note.why),
            Kind::Wait => (note.offset..note.end()).for_each(|offset| self.wait(now, offset, note)),
            Kind::Die => self.die(now, note),
            Kind::Purge => self.purge(now, note.offset),
            Kind::Looked | Kind::Fresh | Kind::Message | Kind::Attempt | Kind::Id => self.restore(note),
        }
    }

    /// Whether `offset` is not settled, as far as is known.
    pub(super) fn is_open(&self, offset: u64) -> bool {
        if self.cells.get(offset).is_some() {
            return true;
        }
        if offset < self.looked_to { self.fresh.contains(offset) } else { !self.ahead.contains(offset) }
    }

    /// Changes the cell of a message that is not settled; gives it one if it has none. `false`: it is settled.
    pub(super) fn change(&mut self, offset: u64, change: impl FnOnce(&mut Cell)) -> bool {
        if let Some(cell) = self.cells.get_mut(offset) {
            let before = *cell;
            change(cell);
            let after = *cell;
            // First the new name, then the old one: a name without messages is forgotten.
            self.consumers.enter(after.consumer, after.state == State::Leased);
            self.consumers.leave(before.consumer, before.state == State::Leased);
            self.account(offset, &before, false);
            self.account(offset, &after, true);
            return true;
        }
        if !self.is_open(offset) {
            return false;
        }
        self.fresh.remove(offset..offset + 1);
        let mut cell = Cell::new(State::Ready);
        change(&mut cell);
        self.put(offset, cell);
        true
    }

    /// Keeps the counts and lists true: a cell comes (or goes).
    fn account(&mut self, offset: u64, cell: &Cell, comes: bool) {
        let count = &mut self.by_state[cell.state as usize];
        *count = if comes { *count + 1 } else { *count - 1 };
        match cell.state {
            // What was not looked at has no priority yet: it comes in when it is looked at.
            State::Ready if comes && offset < self.looked_to => {
                self.ready.insert(ready_key(offset, cell));
            }
            State::Ready => {
                self.ready.remove(&ready_key(offset, cell));
            }
            State::Dead if comes => {
                self.dead.insert(offset);
            }
            State::Dead => {
                self.dead.remove(&offset);
            }
            State::Leased | State::Delayed | State::Parked => {}
        }
    }

    /// Gives a message a cell.
    pub(super) fn put(&mut self, offset: u64, cell: Cell) {
        self.cells.insert(offset, cell);
        self.consumers.enter(cell.consumer, cell.state == State::Leased);
        self.account(offset, &cell, true);
    }

    fn take(&mut self, offset: u64) -> Option<Cell> {
        let cell = self.cells.remove(offset)?;
        self.consumers.leave(cell.consumer, cell.state == State::Leased);
        self.account(offset, &cell, false);
        Some(cell)
    }

    fn lease(&mut self, now: Option<Now>, note: &QueueNote) {
        let lease = note.number as u32;
        let until_us = now.map_or(0, |now| now.mono_us + u64::from(note.ms) * 1000);
        // Once for all of them: a name is forgotten only after a message named it.
        let consumer = self.consumers.number(&note.text);
        for offset in note.offset..note.end() {
            self.change(offset, |cell| {
                cell.state = State::Leased;
                cell.until_us = until_us;
                cell.lease = lease;
                cell.lease_ms = note.ms;
                cell.consumer = consumer;
                cell.deliveries = note.deliveries;
            });
        }
        self.next_lease = lease.wrapping_add(1).max(1);
        if now.is_some() {
            self.leases_due.push(until_us, note.offset, note.count);
            if note.deliveries > 1 {
                self.counts.redelivered += u64::from(note.count);
            }
        }
    }

    fn extend(&mut self, now: Option<Now>, note: &QueueNote) {
        let until_us = now.map_or(0, |now| now.mono_us + u64::from(note.ms) * 1000);
        for offset in note.offset..note.end() {
            let is_his = |cell: &&Cell| cell.state == State::Leased && u64::from(cell.lease) == note.number;
            if self.cells.get(offset).filter(is_his).is_some() {
                self.change(offset, |cell| (cell.until_us, cell.lease_ms) = (until_us, note.ms));
            }
        }
        if now.is_some() {
            self.leases_due.push(until_us, note.offset, note.count);
        }
    }

    fn wait(&mut self, now: Option<Now>, offset: u64, note: &QueueNote) {
        let consumer = self.consumers.number(&note.text);
        let keeps_token = note.why == Why::LeaseExpired;
        let is_due = now.is_some_and(|now| note.number <= now.utc_us.max(0) as u64);
        let changed = self.change(offset, |cell| {
            cell.state = if is_due || note.number == 0 { State::Ready } else { State::Delayed };
            cell.until_us = note.number;
            cell.deliveries = note.deliveries;
            cell.consumer = consumer;
            cell.lease_ms = 0;
            if !keeps_token {
                cell.lease = 0;
            }
            if note.why == Why::Redriven {
                cell.lane = NO_LANE;
            }
        });
        if !changed {
            return;
        }
        if note.why == Why::Redriven {
            self.histories.remove(&offset);
            self.expires_us.remove(&offset);
        }
        self.remember(offset, note);
        if now.is_some() && !is_due && note.number != 0 {
            self.waits_due.push(note.number, offset, 1);
        }
    }

    fn die(&mut self, now: Option<Now>, note: &QueueNote) {
        let consumer = self.consumers.number(&note.text);
        let lane = self.cells.get(note.offset).map_or(0, |cell| cell.lane);
        let changed = self.change(note.offset, |cell| {
            cell.state = State::Dead;
            cell.until_us = 0;
            cell.deliveries = note.deliveries;
            cell.consumer = consumer;
            cell.lease_ms = 0;
            cell.lane = NO_LANE;
            if note.why != Why::LeaseExpired {
                cell.lease = 0;
            }
        });
        if changed {
            self.counts.died += 1;
            self.expires_us.remove(&note.offset);
            self.remember(note.offset, note);
            self.leave_lane(now, lane, note.offset);
        }
    }

    /// Remembers a delivery that has failed.
    fn remember(&mut self, offset: u64, note: &QueueNote) {
        if !note.why.is_failure() && note.why != Why::Expired {
            return;
        }
        if !self.histories.contains_key(&offset) && self.histories.len() >= HISTORIES_MAX {
            return;
        }
        let attempt = Attempt {
            at_us: note.at_us,
            why: note.why,
            deliveries: note.deliveries,
            consumer: note.text.clone(),
            reason: note.more.clone(),
        };
        let list = self.histories.entry(offset).or_default();
        // A snapshot may know of it already.
        if list.iter().any(|known| (known.at_us, known.deliveries, known.why) == (attempt.at_us, attempt.deliveries, attempt.why)) {
            return;
        }
        if list.len() == ATTEMPTS_MAX {
            list.remove(0);
        }
        list.push(attempt);
    }

    /// Settles all of `from..to` that is not.
    pub(super) fn settle_range(&mut self, now: Option<Now>, from: u64, to: u64, why: Why) {
        if to == from + 1
            && let Some(cell) = self.take(from)
        {
            // The most frequent one by far, an ack: no need to look for more.
            self.settled_one(now, from, &cell);
            if now.is_some() {
                self.count_settled(why, 1);
            }
            return self.settled_ahead(from, to);
        }
        let mut settled = self.fresh.remove(from..to);
        let mut next = from;
        loop {
            let found = self.cells.iter_from(next).next().map(|(offset, _)| offset);
            let Some(offset) = found.filter(|offset| *offset < to) else { break };
            let cell = self.take(offset).expect("just seen");
            self.settled_one(now, offset, &cell);
            settled += 1;
            next = offset + 1;
        }
        if now.is_some() {
            self.count_settled(why, settled);
        }
        self.settled_ahead(from, to);
    }

    /// What is settled of `from..to` and was not looked at yet stays settled.
    pub(super) fn settled_ahead(&mut self, from: u64, to: u64) {
        if to > self.looked_to {
            self.ahead.insert(from.max(self.looked_to)..to);
        }
    }

    fn settled_one(&mut self, now: Option<Now>, offset: u64, cell: &Cell) {
        if !self.expires_us.is_empty() {
            self.expires_us.remove(&offset);
        }
        if !self.histories.is_empty() {
            self.histories.remove(&offset);
        }
        self.leave_lane(now, cell.lane, offset);
    }

    pub(super) fn count_settled(&mut self, why: Why, settled: u64) {
        let counts = &mut self.counts;
        match why {
            Why::Acked => counts.acked += settled,
            Why::Expired => counts.expired += settled,
            Why::Moved => counts.dead_lettered += settled,
            Why::Deleted => counts.deleted += settled,
            _ => {}
        }
    }

    /// A message is over for its group: the next one of it is out.
    fn leave_lane(&mut self, now: Option<Now>, lane: u32, offset: u64) {
        if lane == 0 || lane == NO_LANE {
            return;
        }
        let cells = &self.cells;
        let is_of_lane = |next: u64| cells.get(next).is_some_and(|cell| cell.lane == lane);
        let Some(next) = self.lanes.leave(lane, offset, is_of_lane) else { return };
        // At a start a snapshot may have told of a later moment: the next one was out already.
        if self.cells.get(next).is_none_or(|cell| cell.state != State::Parked) {
            return;
        }
        let mut until_us = 0;
        self.change(next, |cell| {
            until_us = cell.until_us;
            let is_due = now.map_or(until_us == 0, |now| until_us <= now.utc_us.max(0) as u64);
            cell.state = if is_due { State::Ready } else { State::Delayed };
        });
        if self.cells.get(next).is_some_and(|cell| cell.state == State::Delayed) && now.is_some() {
            self.waits_due.push(until_us, next, 1);
        }
    }

    /// After a start, or when another node took over: leases begin anew, and time runs.
    pub fn resume(&mut self, now: Now) {
        let mut leased = Vec::new();
        for (offset, cell) in self.cells.iter_from(0) {
            match cell.state {
                State::Leased => leased.push((offset, now.mono_us + u64::from(cell.lease_ms) * 1000)),
                State::Delayed => self.waits_due.push(cell.until_us, offset, 1),
                State::Ready | State::Parked | State::Dead => {}
            }
        }
        for (offset, until_us) in leased {
            self.cells.get_mut(offset).expect("just seen").until_us = until_us;
            self.leases_due.push(until_us, offset, 1);
        }
        let expiries: Vec<_> = self.expires_us.iter().map(|(offset, at_us)| (*offset, *at_us)).collect();
        expiries.into_iter().for_each(|(offset, at_us)| self.waits_due.push(at_us.max(0) as u64, offset, 1));
    }
}

pub(super) fn ready_key(offset: u64, cell: &Cell) -> (u8, u64) {
    (PRIORITY_MAX - cell.priority.min(PRIORITY_MAX), offset)
}
