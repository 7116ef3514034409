//! Who gets what, and what becomes of it: leases, and the ways in which they end.
//!
//! Each of these decides, changes the state by the note that it makes, and hands the note over: it has to reach the log before anybody hears of it.
//!
//! Not here: the log, those who wait (shard/).

use super::cells::{Cell, State};
use super::note::{Kind, QueueNote, Why, push_note};
use super::part::Part;
use super::rules::QueueRules;
use crate::effects::Now;
use crate::mutants::Mutant;

/// The end of a lease that its holder asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending<'a> {
    /// Done.
    Ack,
    /// Failed; the next delivery after `delay_us`, or as the queue's rules say.
    Nack {
        /// Microseconds.
        delay_us: Option<u64>,
        /// The consumer's words.
        reason: &'a [u8],
    },
    /// Go on for so many milliseconds from now.
    Extend {
        /// Milliseconds.
        ms: u32,
    },
    /// Given back untried: does not count.
    Release,
    /// Failed for good.
    Reject {
        /// The consumer's words.
        reason: &'a [u8],
    },
}

/// Why a lease does not end as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndRefused {
    /// The message is settled, was given back under this lease, or never had it.
    Unknown,
    /// The lease has run out.
    Expired,
    /// The message was delivered again, under another lease.
    Lost,
}

/// What a browser sees of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its offset.
    pub offset: u64,
    /// Its state; parked ones are told as delayed.
    pub state: State,
    /// Its priority.
    pub priority: u8,
    /// How often it was delivered.
    pub deliveries: u16,
    /// Its lease; 0 without one.
    pub lease: u32,
    /// Delayed: until when, UTC; leased: until when, on the monotonic clock; else 0. Microseconds.
    pub until_us: u64,
    /// Number of who has it or had it last.
    consumer: u16,
}

/// What a receiver asks for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Who asks.
    pub consumer: &'a [u8],
    /// Messages, at most.
    pub max: u32,
    /// The length of the lease, in milliseconds.
    pub lease_ms: u32,
}

/// Messages that one receive finds expired, at most: 0.35 ms.
const EXPIRED_AT_ONCE: u32 = 1000;

impl Part {
    /// Whether somebody could get a message now.
    pub fn has_ready(&self, rules: &QueueRules) -> bool {
        let is_paused = rules.paused && !rules.mutants.has(Mutant::DeliverPaused);
        !is_paused && self.leased_count() < u64::from(rules.max_in_flight) && !(self.fresh.is_empty() && self.ready.is_empty())
    }

    /// Leases up to `wanted.max` messages, those of higher priority first, then by offset; the notes go behind `out`. Answers how many.
    pub fn pick(&mut self, now: Now, rules: &QueueRules, wanted: Wanted<'_>, out: &mut Vec<QueueNote>) -> u32 {
        if !self.has_ready(rules) {
            return 0;
        }
        let room = u64::from(rules.max_in_flight) - self.leased_count();
        let of_consumer = rules.max_in_flight_per_consumer.saturating_sub(self.consumers.leased(wanted.consumer));
        let max = wanted.max.min(of_consumer).min(u32::try_from(room).unwrap_or(u32::MAX));
        let lease = self.next_lease;
        let (mut left, mut expired) = (max, 0);
        // More that expire at once are left to `on_due`, which has its own bound.
        while left > 0 && expired < EXPIRED_AT_ONCE {
            let cell = self.ready.first().copied();
            let fresh = self.fresh.first();
            let (offset, count, deliveries) = match (cell, fresh) {
                (None, None) => break,
                // Fresh messages have the lowest priority.
                (Some((rank, offset)), fresh) if rank < 9 || fresh.as_ref().is_none_or(|fresh| offset < fresh.start) => {
                    if self.expire_at(now, rules, offset, out) {
                        expired += 1;
                        continue;
                    }
                    (offset, 1, self.cells.get(offset).expect("ready").deliveries.saturating_add(1))
                }
                (cell, Some(fresh)) => {
                    let end = cell.map_or(fresh.end, |(_, offset)| fresh.end.min(offset));
                    (fresh.start, (end - fresh.start).min(u64::from(left)) as u32, 1)
                }
                (Some(_), None) => unreachable!("taken by the first of the two"),
            };
            let note = QueueNote {
                count,
                deliveries,
                number: u64::from(lease),
                ms: wanted.lease_ms,
                text: wanted.consumer.into(),
                ..QueueNote::new(Kind::Lease, offset)
            };
            self.apply(Some(now), &note);
            push_note(out, note);
            left -= count;
        }
        max - left
    }

    /// Ends a lease, or prolongs it. Answers for how long its receiver has had the message, since the lease was given or last extended, in microseconds.
    pub fn end(
        &mut self,
        now: Now,
        rules: &QueueRules,
        offset: u64,
        lease: u64,
        ending: Ending<'_>,
        out: &mut Vec<QueueNote>,
    ) -> Result<u64, EndRefused> {
        let cell = match self.check_lease(now, offset, lease) {
            Err(_) if rules.mutants.has(Mutant::TakeAnyToken) => *self.cells.get(offset).ok_or(EndRefused::Unknown)?,
            checked => checked?,
        };
        match ending {
            Ending::Ack => self.say(now, QueueNote { why: Why::Acked, ..QueueNote::new(Kind::Settle, offset) }, out),
            Ending::Extend { ms } => self.say(now, QueueNote { number: lease, ms, ..QueueNote::new(Kind::Extend, offset) }, out),
            Ending::Release => self.give_back(now, rules, offset, &cell, 0, out),
            Ending::Nack { delay_us, reason } => self.fail(now, rules, offset, &cell, Why::Nacked, delay_us, reason, out),
            Ending::Reject { reason } => self.bury(now, offset, &cell, Why::Rejected, reason, out),
        }
        let since_us = cell.until_us.saturating_sub(u64::from(cell.lease_ms) * 1000);
        Ok(now.mono_us.saturating_sub(since_us))
    }

    /// The message's cell, if `lease` is a lease on it that has not ended.
    pub fn check_lease(&self, now: Now, offset: u64, lease: u64) -> Result<Cell, EndRefused> {
        let cell = *self.cells.get(offset).ok_or(EndRefused::Unknown)?;
        if cell.lease == 0 {
            return Err(EndRefused::Unknown);
        }
        if u64::from(cell.lease) != lease {
            // Numbers begin anew after 2^32: the nearer way round tells which is older.
            let is_older = u32::try_from(lease).is_ok_and(|lease| cell.lease.wrapping_sub(lease) < 1 << 31);
            return Err(if is_older && lease > 0 { EndRefused::Lost } else { EndRefused::Unknown });
        }
        if cell.state != State::Leased || cell.until_us <= now.mono_us {
            return Err(EndRefused::Expired);
        }
        Ok(cell)
    }

    /// A lease that was just given could not be used: the message does not fit, or cannot be read now. It is as if it had not been given; the next one
    /// is given after `delay_us`.
    pub fn undo_lease(&mut self, now: Now, rules: &QueueRules, offset: u64, lease: u64, delay_us: u64, out: &mut Vec<QueueNote>) {
        // It may have run out meanwhile: then that is told already, and nobody had it.
        let is_his = |cell: &Cell| cell.state == State::Leased && u64::from(cell.lease) == lease;
        if let Some(cell) = self.cells.get(offset).copied().filter(is_his) {
            self.give_back(now, rules, offset, &cell, delay_us, out);
        }
    }

    /// A delivery does not count: the message waits for the next one.
    fn give_back(&mut self, now: Now, rules: &QueueRules, offset: u64, cell: &Cell, delay_us: u64, out: &mut Vec<QueueNote>) {
        let (deliveries, number) = (cell.deliveries.saturating_sub(1), due_at(now, delay_us));
        let text = self.consumers.name(cell.consumer).into();
        let note = QueueNote { deliveries, number, why: Why::Released, at_us: now.utc_us, text, ..QueueNote::new(Kind::Wait, offset) };
        self.say(now, note, out);
        self.expire_at(now, rules, offset, out);
    }

    /// What is stored of a leased message does not check: it is dead, whatever the rules say.
    pub fn bury_damaged(&mut self, now: Now, offset: u64, out: &mut Vec<QueueNote>) {
        if let Some(cell) = self.cells.get(offset).copied() {
            self.bury(now, offset, &cell, Why::Damaged, b"the stored batch is damaged", out);
        }
    }

    fn say(&mut self, now: Now, note: QueueNote, out: &mut Vec<QueueNote>) {
        self.apply(Some(now), &note);
        push_note(out, note);
    }

    /// A delivery has failed: the message waits for the next one, or is dead.
    fn fail(
        &mut self,
        now: Now,
        rules: &QueueRules,
        offset: u64,
        cell: &Cell,
        why: Why,
        delay_us: Option<u64>,
        reason: &[u8],
        out: &mut Vec<QueueNote>,
    ) {
        let has_end = !rules.mutants.has(Mutant::DeliverForEver);
        if rules.max_deliveries.filter(|_| has_end).is_some_and(|max| cell.deliveries >= max) {
            return self.bury(now, offset, cell, why, reason, out);
        }
        let delay_us = delay_us.unwrap_or_else(|| rules.retry_delay_us(offset, cell.deliveries));
        let delay_us = if rules.mutants.has(Mutant::RetryAtOnce) { 0 } else { delay_us };
        let number = due_at(now, delay_us);
        let text = self.consumers.name(cell.consumer).into();
        let deliveries = cell.deliveries;
        let note =
            QueueNote { deliveries, number, why, at_us: now.utc_us, text, more: reason.into(), ..QueueNote::new(Kind::Wait, offset) };
        self.say(now, note, out);
        self.expire_at(now, rules, offset, out);
    }

    fn bury(&mut self, now: Now, offset: u64, cell: &Cell, why: Why, reason: &[u8], out: &mut Vec<QueueNote>) {
        let text = self.consumers.name(cell.consumer).into();
        let deliveries = cell.deliveries;
        let note = QueueNote { deliveries, why, at_us: now.utc_us, text, more: reason.into(), ..QueueNote::new(Kind::Die, offset) };
        self.say(now, note, out);
    }

    /// Ends a message whose time to live has passed, unless somebody has it: whether it did. With a dead-letter topic it goes there.
    fn expire_at(&mut self, now: Now, rules: &QueueRules, offset: u64, out: &mut Vec<QueueNote>) -> bool {
        if self.expires_us.is_empty() || self.expires_us.get(&offset).is_none_or(|at_us| *at_us > now.utc_us) {
            return false;
        }
        let Some(cell) = self.cells.get(offset).copied().filter(|cell| !matches!(cell.state, State::Leased | State::Dead)) else {
            return false;
        };
        if rules.has_dead_letter {
            self.bury(now, offset, &cell, Why::Expired, b"", out);
        } else {
            self.say(now, QueueNote { why: Why::Expired, ..QueueNote::new(Kind::Settle, offset) }, out);
        }
        true
    }

    /// Deals with up to `max` of what is due: leases that ran out, delays that are over, messages that expire.
    pub fn on_due(&mut self, now: Now, rules: &QueueRules, max: usize, out: &mut Vec<QueueNote>) {
        let mut due = Vec::new();
        self.leases_due.take(now.mono_us, max, &mut due);
        // In order of offset: neighbours share a note.
        due.sort_unstable();
        for offset in due.drain(..) {
            let is_over = |cell: &Cell| cell.state == State::Leased && cell.until_us <= now.mono_us;
            if let Some(cell) = self.cells.get(offset).copied().filter(is_over) {
                self.counts.lease_expired += 1;
                // The lease itself was the wait.
                self.fail(now, rules, offset, &cell, Why::LeaseExpired, Some(0), b"", out);
            }
        }
        let utc_us = now.utc_us.max(0) as u64;
        self.waits_due.take(utc_us, max, &mut due);
        due.sort_unstable();
        for offset in due.drain(..) {
            if self.expire_at(now, rules, offset, out) {
                continue;
            }
            if self.cells.get(offset).is_some_and(|cell| cell.state == State::Delayed && cell.until_us <= utc_us) {
                self.change(offset, |cell| cell.state = State::Ready);
            }
        }
    }

    /// When `on_due` has something to do next, on the monotonic clock; `u64::MAX` for never.
    pub fn next_due_us(&self, now: Now) -> u64 {
        let wait_us = match self.waits_due.next_us() {
            u64::MAX => u64::MAX,
            at_us => now.mono_us.saturating_add(at_us.saturating_sub(now.utc_us.max(0) as u64)),
        };
        wait_us.min(self.leases_due.next_us())
    }

    /// Deletes a message below `committed_end`, whatever its state; `false`: there is none. One that was not looked at yet is taken for one.
    pub fn delete(&mut self, now: Now, offset: u64, committed_end: u64, out: &mut Vec<QueueNote>) -> bool {
        let is_there = offset < committed_end && self.is_open(offset);
        if is_there {
            self.say(now, QueueNote { why: Why::Deleted, ..QueueNote::new(Kind::Settle, offset) }, out);
        }
        is_there
    }

    /// Settles everything below `to`; answers how many messages there were.
    pub fn purge_to(&mut self, now: Now, to: u64, out: &mut Vec<QueueNote>) -> u64 {
        let open = self.open_count() + to.saturating_sub(self.looked_to);
        self.say(now, QueueNote::new(Kind::Purge, to), out);
        open - self.open_count()
    }

    /// A dead message was moved to the dead-letter topic.
    pub fn moved(&mut self, now: Now, offset: u64, out: &mut Vec<QueueNote>) {
        if self.is_dead(offset) {
            self.say(now, QueueNote { why: Why::Moved, ..QueueNote::new(Kind::Settle, offset) }, out);
        }
    }

    /// The dead messages, in order of offset.
    pub fn dead(&self) -> impl Iterator<Item = u64> {
        self.dead.iter().copied()
    }

    /// Whether a message is dead.
    pub fn is_dead(&self, offset: u64) -> bool {
        self.dead.contains(&offset)
    }

    /// Brings up to `max` dead messages back, the oldest first; answers how many.
    pub fn redrive(&mut self, now: Now, max: u64, out: &mut Vec<QueueNote>) -> u64 {
        let dead: Vec<u64> = self.dead.iter().copied().take(usize::try_from(max).unwrap_or(usize::MAX)).collect();
        for offset in &dead {
            self.say(now, QueueNote { why: Why::Redriven, at_us: now.utc_us, ..QueueNote::new(Kind::Wait, *offset) }, out);
        }
        dead.len() as u64
    }

    /// Messages that `consumer` has under a lease.
    pub fn leased_by(&self, consumer: &[u8]) -> u32 {
        self.consumers.leased(consumer)
    }

    /// How often a message was delivered that is not settled, as far as is known.
    pub fn deliveries(&self, offset: u64) -> u16 {
        self.cells.get(offset).map_or(0, |cell| cell.deliveries)
    }

    /// The name of who has what was seen, or had it last.
    pub fn consumer_of(&self, seen: &Seen) -> &[u8] {
        self.consumers.name(seen.consumer)
    }

    /// Goes through the messages from `from` on that were looked at, up to `max` of those that `wanted` wants and some thousands in all. Answers where
    /// to go on, and whether that was all.
    pub fn browse(&self, from: u64, max: usize, wanted: impl Fn(State) -> bool, mut each: impl FnMut(Seen)) -> (u64, bool) {
        const LOOKED_AT_MAX: usize = 10_000;
        let (mut found, mut next) = (0, from);
        let mut fresh = self.fresh.iter_from(from).peekable();
        let mut cells = self.cells.iter_from(from).peekable();
        for _ in 0..LOOKED_AT_MAX {
            let fresh_at = fresh.peek().map_or(u64::MAX, |range| range.start.max(next));
            // What was leased before a start and is not looked at again yet is shown when it is, with what lies before it.
            let cell_at = cells.peek().map(|(offset, _)| *offset).filter(|offset| *offset < self.looked_to).unwrap_or(u64::MAX);
            let seen = if fresh_at == u64::MAX && cell_at == u64::MAX {
                return (self.looked_to.max(from), true);
            } else if fresh_at < cell_at {
                let end = fresh.peek().expect("just seen").end;
                if !wanted(State::Ready) || fresh_at + 1 == end {
                    fresh.next();
                }
                next = if wanted(State::Ready) { fresh_at + 1 } else { end };
                Seen { offset: fresh_at, state: State::Ready, priority: 0, deliveries: 0, lease: 0, until_us: 0, consumer: 0 }
            } else {
                let (offset, cell) = cells.next().expect("just seen");
                next = offset + 1;
                let state = if cell.state == State::Parked { State::Delayed } else { cell.state };
                let lease = if state == State::Leased { cell.lease } else { 0 };
                // When one that waits for another of its group is due is not known, whatever its own delay.
                let until_us = if matches!(cell.state, State::Leased | State::Delayed) { cell.until_us } else { 0 };
                Seen { offset, state, priority: cell.priority, deliveries: cell.deliveries, lease, until_us, consumer: cell.consumer }
            };
            if wanted(seen.state) {
                each(seen);
                found += 1;
                if found == max {
                    break;
                }
            }
        }
        (next, false)
    }
}

/// When something is due that is to wait for so long, UTC microseconds; 0 for at once.
fn due_at(now: Now, delay_us: u64) -> u64 {
    if delay_us == 0 { 0 } else { (now.utc_us.max(0) as u64).saturating_add(delay_us) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_shows_nothing_beyond_where_it_goes_on() {
        let now = Now { mono_us: 1_000_000, utc_us: 1_800_000_000_000_000 };
        let mut part = Part::default();
        part.apply(Some(now), &QueueNote { at_us: i64::MIN, ..QueueNote::new(Kind::Begin, 0) });
        // As a start finds it in the log, before it looks at the message again.
        part.apply(Some(now), &QueueNote { deliveries: 1, number: 1, ms: 30_000, text: (*b"w").into(), ..QueueNote::new(Kind::Lease, 5) });
        let look = |part: &Part| {
            let mut seen = Vec::new();
            let told = part.browse(0, 10, |_| true, |message| seen.push(message.offset));
            (told, seen)
        };
        assert_eq!(look(&part), ((0, true), vec![]));
        part.apply(None, &QueueNote { number: 2, at_us: i64::MIN, ..QueueNote::new(Kind::Looked, 6) });
        assert_eq!(look(&part), ((6, true), vec![5]));
    }
}
