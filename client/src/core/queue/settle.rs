//! Settlements: collected, sent in one request per owner, again where one may not have arrived.
//!
//! One that is sent again after its answer was lost, and is then refused with `unknown_lease`, was carried out the first time (or the message was settled otherwise): it counts as done.
//! An extension does not: it leaves the lease as it is, so it can be asked for again, and `unknown_lease` means what it says.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tramline_wire::error::ErrorCode;
use tramline_wire::kind::Kind;
use tramline_wire::prim::List;
use tramline_wire::queue::{DELAY_BY_POLICY, REASON_BYTES_MAX, SettleAction, SettleEntry, SettleRequest, SettledMessage};

use super::{QueueCore, Settling};
use crate::core::Now;
use crate::error::Error;
use crate::message::{LeaseToken, Settle};

/// Settlements of one request: with the longest reasons some 300 KiB.
const ENTRIES_MAX: usize = 1024;

/// Settlements that wait: sixteen times the messages of the largest call. More are left by a caller that drops its calls while no owner answers.
pub(super) const WAITING_MAX: usize = 1 << 16;

/// One settlement.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: u64,
    token: LeaseToken,
    action: SettleAction,
    delay_ms: u32,
    reason: String,
    /// It may have been carried out already.
    is_sent: bool,
    /// Why it is not done yet.
    last: Option<Arc<Error>>,
}

/// Refuses what cannot be said, before anything of a call is taken.
pub(crate) fn check(settle: &Settle) -> Result<(), Error> {
    match settle {
        Settle::Nack { reason, .. } | Settle::Reject { reason } if reason.len() > REASON_BYTES_MAX => {
            Err(Error::config(&format!("a reason has at most {REASON_BYTES_MAX} bytes, this one has {}", reason.len())))
        }
        Settle::Nack { delay: Some(delay), .. } => delay_ms(*delay).map(|_| ()),
        Settle::Extend(length) => delay_ms(*length).map(|_| ()),
        _ => Ok(()),
    }
}

/// Rounded up to the millisecond. What a queue allows is the broker's to say, of each settlement for itself.
fn delay_ms(delay: Duration) -> Result<u32, Error> {
    let ms = delay.as_micros().div_ceil(1000);
    match u32::try_from(ms) {
        Ok(ms) if ms != DELAY_BY_POLICY => Ok(ms),
        _ => Err(Error::config(&format!("a delay of {delay:?} cannot be sent: at most 49 days"))),
    }
}

impl QueueCore {
    /// Takes settlements whose results are then waited for, instead of those of the call before.
    pub(crate) fn begin_settle(&mut self, settlements: &[(LeaseToken, Settle)], now: Now) -> Result<(), Error> {
        settlements.iter().try_for_each(|(_, settle)| check(settle))?;
        if self.waiting.len() + settlements.len() > WAITING_MAX {
            return Err(Error::config(&format!(
                "{} settlements wait for the brokers, and {} more are above the most, {WAITING_MAX}: settle fewer at once, and wait for their results",
                self.waiting.len(),
                settlements.len()
            )));
        }
        // A call of `receive` whose future was dropped is over.
        self.end_receive();
        self.results.clear();
        let first = self.next_entry;
        self.wanted = first..first + settlements.len() as u64;
        for (token, settle) in settlements {
            if !self.by_uid.contains_key(&token.partition_uid) {
                self.wish.want(now); // of a partition that the topic got since
            }
            self.put_settlement(*token, settle);
        }
        Ok(())
    }

    /// Queues one settlement, which was [`check`]ed.
    pub(super) fn put_settlement(&mut self, token: LeaseToken, settle: &Settle) {
        let (action, delay_ms, reason) = match settle {
            Settle::Ack => (SettleAction::Ack, 0, ""),
            Settle::Nack { delay: None, reason } => (SettleAction::Nack, DELAY_BY_POLICY, reason.as_str()),
            Settle::Nack { delay: Some(delay), reason } => (SettleAction::Nack, delay_ms(*delay).unwrap_or(u32::MAX - 1), reason.as_str()),
            Settle::Extend(length) => (SettleAction::Extend, delay_ms(*length).unwrap_or(u32::MAX - 1), ""),
            Settle::Release => (SettleAction::Release, 0, ""),
            Settle::Reject { reason } => (SettleAction::Reject, 0, reason.as_str()),
        };
        let id = self.next_entry;
        self.next_entry += 1;
        self.waiting.push_back(Entry { id, token, action, delay_ms, reason: reason.to_string(), is_sent: false, last: None });
    }

    /// Whether every settlement of the call has its result.
    pub(crate) fn is_settled(&mut self) -> bool {
        self.results.len() as u64 == self.wanted.end - self.wanted.start
    }

    /// Whether any settlement is left to do, also of those that nobody waits for.
    pub(super) fn has_settlements(&self) -> bool {
        !self.waiting.is_empty() || self.lanes.iter().any(|lane| lane.settling.is_some())
    }

    /// The results of the call, in order. Settlements without one are given up: they took `after`, or their waiting was `cut` by an error.
    pub(crate) fn take_results(&mut self, after: Duration, cut: Option<&Error>) -> Vec<Result<(), Error>> {
        let wanted = self.wanted.clone();
        let mut given_up: Vec<(u64, Error)> = Vec::new();
        self.waiting.retain(|entry| {
            if wanted.contains(&entry.id) {
                given_up.push((entry.id, entry.given_up(after, cut)));
            }
            !wanted.contains(&entry.id)
        });
        for lane in &self.lanes {
            for entry in lane.settling.iter().flat_map(|settling| &settling.entries).filter(|entry| wanted.contains(&entry.id)) {
                let why = cut.map_or_else(|| format!("no answer within {after:?}"), Error::to_string);
                given_up.push((entry.id, entry.unknown(&lane.address, why)));
            }
        }
        self.wanted = 0..0;
        let mut results = std::mem::take(&mut self.results);
        results.extend(given_up.into_iter().map(|(id, error)| (id, Err(error))));
        results.into_values().collect()
    }

    fn put_result(&mut self, id: u64, result: Result<(), Error>) {
        if self.wanted.contains(&id) {
            self.results.insert(id, result);
        }
    }

    /// Sends what waits for a lane.
    pub(super) fn send_settlements(&mut self, lane_index: usize, now: Now) {
        let lane = &self.lanes[lane_index];
        if self.waiting.is_empty() || lane.settling.is_some() || lane.not_before_us > now.mono_us {
            return;
        }
        let mut entries = Vec::new();
        let mut rest = VecDeque::with_capacity(self.waiting.len());
        for entry in std::mem::take(&mut self.waiting) {
            let part = self.by_uid.get(&entry.token.partition_uid).map(|&id| &self.parts[id]);
            let is_here = part.is_some_and(|part| part.lane == lane_index && part.not_before_us <= now.mono_us);
            match is_here && entries.len() < ENTRIES_MAX {
                true => entries.push(entry),
                false => rest.push_back(entry),
            }
        }
        self.waiting = rest;
        if entries.is_empty() {
            return;
        }
        let told: Vec<SettleEntry<'_>> = entries.iter().map(Entry::told).collect();
        let request = SettleRequest { queue_uid: self.queue.uid, consumer: &self.config.consumer, entries: List::of(&told) };
        let lane = &mut self.lanes[lane_index];
        match lane.conn.request(Kind::Settle, |meta| request.encode(meta)) {
            Ok(correlation) => {
                lane.alive.on_sent(now);
                lane.settling = Some(Settling { correlation, sent_us: now.mono_us, entries });
            }
            Err(oversized) => {
                let error = Error::config(&oversized.to_string());
                entries.into_iter().for_each(|entry| self.put_result(entry.id, Err(error.clone())));
            }
        }
    }

    /// The answers to a lane's Settle. An error means that the connection has to be given up.
    pub(super) fn settled(&mut self, lane_index: usize, answers: &[SettledMessage], now: Now) -> Result<(), Error> {
        let lane = &mut self.lanes[lane_index];
        let Some(settling) = &lane.settling else { return Ok(()) };
        let is_same = |(entry, answer): (&Entry, &SettledMessage)| {
            (entry.token.partition_uid, entry.token.offset) == (answer.partition_uid, answer.offset)
        };
        if settling.entries.len() != answers.len() || !settling.entries.iter().zip(answers).all(is_same) {
            return Err(Error::protocol(&lane.address, "its reply to settle does not follow the order of the request"));
        }
        lane.failing_since_us = None;
        let Some(Settling { entries, sent_us, .. }) = lane.settling.take() else { return Ok(()) };
        // Partitions, each once for a row of entries, with what was said of them.
        let mut told: Vec<(usize, ErrorCode)> = Vec::new();
        let mut again = Vec::new();
        let mut tell = |id: Option<&usize>, code| {
            if let Some(&id) = id
                && told.last() != Some(&(id, code))
            {
                told.push((id, code));
            }
        };
        for (mut entry, answer) in entries.into_iter().zip(answers) {
            let code = answer.error;
            let id = self.by_uid.get(&entry.token.partition_uid);
            if code.is_ok() || entry.is_sent && says_done(entry.action, code) {
                tell(id, ErrorCode::Ok);
                self.metrics.settled += 1;
                self.put_result(entry.id, Ok(()));
            } else if code.retriable() {
                tell(id, code);
                entry.is_sent |= code.may_be_done();
                entry.last = Some(Arc::new(entry.refused(code)));
                again.push(entry);
            } else {
                self.metrics.refusals += 1;
                let error = entry.ended_by(entry.refused(code), &self.lanes[lane_index].address);
                self.put_result(entry.id, Err(error));
            }
        }
        self.put_before(again);
        // One refusal of a partition is more than any number of answers, and as much as several.
        told.sort_by_key(|(id, code)| (*id, code.is_ok()));
        told.dedup_by_key(|(id, _)| *id);
        for (id, code) in told {
            match code {
                ErrorCode::Ok => self.parts[id].answered(sent_us),
                code => self.part_refused(id, code, now),
            }
        }
        Ok(())
    }

    /// A lane's Settle was refused whole.
    pub(super) fn settle_refused(&mut self, lane_index: usize, error: Error, now: Now) {
        self.metrics.refusals += 1;
        if !error.retriable() {
            let lane = &mut self.lanes[lane_index];
            let entries = lane.settling.take().map(|settling| settling.entries).unwrap_or_default();
            let address = lane.address.clone();
            entries.into_iter().for_each(|entry| self.put_result(entry.id, Err(entry.ended_by(error.clone(), &address))));
            return;
        }
        if let Some(next) = error.next_address() {
            self.wish.redirect_to(next);
            let first = self.lanes[lane_index].settling.as_ref().and_then(|settling| settling.entries.first());
            if let Some(&id) = first.and_then(|entry| self.by_uid.get(&entry.token.partition_uid)) {
                self.follow(id, lane_index, &error);
            }
        }
        self.wish.want(now);
        let may_be_done = error.code().is_some_and(ErrorCode::may_be_done);
        let lane = &mut self.lanes[lane_index];
        lane.not_before_us = now.mono_us.saturating_add(lane.backoff.next_us());
        self.settle_again(lane_index, &Arc::new(error), may_be_done);
    }

    /// A lane's Settle has to be sent again.
    pub(super) fn settle_again(&mut self, lane_index: usize, error: &Arc<Error>, may_be_done: bool) {
        let mut entries = self.lanes[lane_index].settling.take().map(|settling| settling.entries).unwrap_or_default();
        for entry in &mut entries {
            entry.is_sent |= may_be_done;
            entry.last = Some(Arc::clone(error));
        }
        self.put_before(entries);
    }

    /// Entries that have to be sent again, before what came later: an extension that was overtaken by the ack of its message would be refused.
    fn put_before(&mut self, entries: Vec<Entry>) {
        entries.into_iter().rev().for_each(|entry| self.waiting.push_front(entry));
    }

    /// After a newer view: settlements of partitions that the topic does not have.
    pub(super) fn refuse_strangers(&mut self) {
        let by_uid = &self.by_uid;
        let (known, strangers): (VecDeque<Entry>, VecDeque<Entry>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|entry| by_uid.contains_key(&entry.token.partition_uid));
        self.waiting = known;
        for entry in strangers {
            let request = format!("{} message {}", entry.action.name(), entry.token);
            let message = format!(
                "queue {:?} has no partition with uid {}: the token is another queue's",
                self.queue.name, entry.token.partition_uid
            );
            let code = ErrorCode::UnknownLease;
            self.put_result(entry.id, Err(Error::Refused { request, code, retriable: false, message, next: None }));
        }
    }
}

impl Entry {
    fn told(&self) -> SettleEntry<'_> {
        let Entry { token: LeaseToken { partition_uid, offset, lease }, action, delay_ms, reason, .. } = self;
        SettleEntry { partition_uid: *partition_uid, offset: *offset, lease: *lease, action: *action, delay_ms: *delay_ms, reason }
    }

    fn request(&self) -> String {
        format!("{} message {}", self.action.name(), self.token)
    }

    fn refused(&self, code: ErrorCode) -> Error {
        Error::Refused { request: self.request(), code, retriable: code.retriable(), message: String::new(), next: None }
    }

    fn unknown(&self, address: &str, reason: String) -> Error {
        Error::OutcomeUnknown { request: self.request(), address: address.to_string(), reason }
    }

    /// The end of one that is not under way. `cut`: why it is not waited for, if not because its time is over.
    fn given_up(&self, after: Duration, cut: Option<&Error>) -> Error {
        match (&self.last, self.is_sent, cut) {
            (Some(last), true, _) => self.unknown("its owner", last.to_string()),
            (_, _, Some(cut)) => cut.clone(),
            (last, ..) => Error::Timeout { doing: self.request(), after, last: last.clone() },
        }
    }

    /// The end of one that was refused for good, if it was not done all the same.
    fn ended_by(&self, error: Error, address: &str) -> Error {
        match error.code().is_some_and(ErrorCode::may_be_done) {
            true => self.unknown(address, error.to_string()),
            false => error,
        }
    }
}

/// Whether a refusal of what is sent again says that it was carried out the first time, as far as anybody can tell: the message is not the sender's any more.
fn says_done(action: SettleAction, code: ErrorCode) -> bool {
    match action {
        SettleAction::Ack | SettleAction::Reject => code == ErrorCode::UnknownLease,
        // Somebody else may have got it at once.
        SettleAction::Nack | SettleAction::Release => matches!(code, ErrorCode::UnknownLease | ErrorCode::LeaseLost),
        SettleAction::Extend => false,
    }
}
