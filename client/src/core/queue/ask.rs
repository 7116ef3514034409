//! A call of `receive`: whom to ask, for how long, and when it is over.
//!
//! A Receive names all partitions that the queue has at its owner, or at most [`RECEIVE_NAMED_MAX`]. Where some are left out (they were refused a moment ago) and the others are more
//! than that, they are named by turns: each has had one without a wait before the owner has had its say, and then they wait by short turns, so that none starves.

use tramline_wire::kind::Kind;
use tramline_wire::prim::List;
use tramline_wire::queue::{QUEUE_MESSAGES_MAX, RECEIVE_NAMED_MAX, ReceiveRequest};

use super::{Asked, QueueCore, Ready};
use crate::clock::micros;
use crate::core::Now;
use crate::message::{Message, Settle};

/// Of several owners each waits for so long at most: what it leases after another has ended the call lies here until the next one. Short enough that a lease has hardly begun by
/// then, long enough that waiting costs an owner one small frame per second.
pub(super) const WAIT_SLICE_US: u64 = 1_000_000;

/// A single owner waits for so long at most, so that a queue that went elsewhere is noticed.
const WAIT_US_MAX: u64 = 30_000_000;

/// Where an owner's partitions wait by turns, each turn waits for so long at most: with the most turns that there can be (16) a message is found within some two seconds.
const TURN_SLICE_US: u64 = 100_000;

/// Partitions of one request, as the protocol has it.
const PARTITIONS_MAX: usize = 4096;

/// A call under way, or the last one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Call {
    pub number: u64,
    pub is_open: bool,
    pub max_messages: u32,
    /// Monotonic microseconds.
    pub until_us: u64,
    /// Each owner was asked for what is there: now all of them wait.
    pub waits: bool,
}

impl QueueCore {
    /// A call for so many messages begins, which waits for the first of them for so long.
    pub(crate) fn begin_receive(&mut self, max_messages: u32, wait_us: u64, now: Now) {
        let number = self.call.number + 1;
        let until_us = now.mono_us.saturating_add(wait_us);
        self.call = Call { number, is_open: true, max_messages: max_messages.min(QUEUE_MESSAGES_MAX), until_us, waits: false };
        let patience_us = self.request_timeout_us;
        for lane in &mut self.lanes {
            // What a call before left under way, and who cannot be reached for a while, is not waited for.
            let is_away = |since_us: u64| !lane.open && since_us.saturating_add(patience_us) < now.mono_us;
            lane.named = 0;
            lane.said = lane.asked.is_some() || lane.failing_since_us.is_some_and(is_away);
        }
    }

    /// The call is over: nobody is asked any more.
    pub(crate) fn end_receive(&mut self) {
        self.call.is_open = false;
        self.call.until_us = 0;
    }

    /// Whether nothing comes of this call any more.
    pub(crate) fn is_receive_over(&self, now: Now) -> bool {
        let is_done = |lane: usize| self.lanes[lane].said || self.parts_to_ask(lane, now).next().is_none();
        now.mono_us >= self.call.until_us && (0..self.lanes.len()).all(is_done)
    }

    /// Gives everything back that was not handed out; whether that is done, and nothing more can come.
    pub(crate) fn give_back_and_is_done(&mut self) -> bool {
        while let Some(Ready { message, .. }) = self.ready.pop_front() {
            self.give_back(message);
        }
        !self.is_asking() && !self.has_settlements()
    }

    /// Whether a Receive has no answer yet.
    pub(super) fn is_asking(&self) -> bool {
        self.lanes.iter().any(|lane| lane.asked.is_some())
    }

    /// Messages to hand out, at most as many as the call is for. Those whose lease is half over are given back instead.
    pub(crate) fn take_messages(&mut self, now: Now) -> Vec<Message> {
        let mut taken = Vec::new();
        while taken.len() < self.call.max_messages as usize
            && let Some(Ready { message, stale_at_us }) = self.ready.pop_front()
        {
            match stale_at_us > now.mono_us {
                true => taken.push(message),
                false => self.give_back(message),
            }
        }
        self.metrics.messages += taken.len() as u64;
        taken
    }

    /// If it does not arrive the lease ends by itself.
    fn give_back(&mut self, message: Message) {
        self.metrics.given_back += 1;
        self.put_settlement(message.token, &Settle::Release);
    }

    /// Uids of a lane's partitions that may be asked for now.
    pub(super) fn parts_to_ask(&self, lane: usize, now: Now) -> impl Iterator<Item = u64> {
        self.parts.iter().filter(move |part| part.lane == lane && part.not_before_us <= now.mono_us).map(|part| part.uid)
    }

    /// Whether a lane can be asked now.
    fn is_askable(&self, lane: usize, now: Now) -> bool {
        let state = &self.lanes[lane];
        let is_free = state.open && state.asked.is_none() && state.not_before_us.max(state.ask_after_us) <= now.mono_us;
        is_free && self.parts_to_ask(lane, now).next().is_some()
    }

    /// Sends the Receives that the call needs now.
    pub(super) fn ask(&mut self, now: Now) {
        if !self.call.is_open || self.gone.is_some() || !self.ready.is_empty() {
            return;
        }
        let owners = self.lanes.iter().filter(|lane| lane.parts > 0).count();
        let max_messages = self.call.max_messages;
        if owners > 1 && !self.call.waits {
            if self.lanes.iter().any(|lane| lane.asked.is_some_and(|asked| asked.call == self.call.number)) {
                return; // one after the other
            }
            let count = self.lanes.len();
            let mut in_turn = (0..count).map(|step| (self.turn + step) % count);
            if let Some(lane) = in_turn.find(|&lane| !self.lanes[lane].said && self.is_askable(lane, now)) {
                self.turn = (lane + 1) % count;
                self.receive(lane, max_messages, 0, now);
                return;
            }
            self.call.waits = true;
        }
        let left_us = self.call.until_us.saturating_sub(now.mono_us);
        let (slice_us, share) = match owners {
            0 | 1 => (WAIT_US_MAX, max_messages),
            _ => (WAIT_SLICE_US, max_messages.div_ceil(owners as u32)),
        };
        for lane in 0..self.lanes.len() {
            if self.is_askable(lane, now) && (left_us > 0 || !self.lanes[lane].said) {
                self.receive(lane, share, left_us.min(slice_us), now);
            }
        }
    }

    /// The partitions that the next Receive of a lane names, which are marked with its number; the first of them; and whether others have to wait for the next turn.
    fn name_parts(&mut self, lane: usize, number: u64, now: Now) -> (Vec<u64>, usize, bool) {
        let askable = self.parts_to_ask(lane, now).count();
        let state = &mut self.lanes[lane];
        let is_all = askable == state.parts && askable <= PARTITIONS_MAX && !state.names_few;
        let is_turn = !is_all && askable > RECEIVE_NAMED_MAX;
        let count = if is_turn { RECEIVE_NAMED_MAX } else { askable };
        let (first, of) = (if is_turn { state.next_part } else { 0 }, self.parts.len());
        let mut uids = Vec::with_capacity(count);
        let mut first_named = 0;
        for id in (first..of).chain(0..first.min(of)) {
            let part = &mut self.parts[id];
            if uids.len() < count && part.lane == lane && part.not_before_us <= now.mono_us {
                part.asked = number;
                first_named = if uids.is_empty() { id } else { first_named };
                uids.push(part.uid);
                state.next_part = id + 1;
            }
        }
        (uids, first_named, is_turn)
    }

    fn receive(&mut self, lane: usize, max_messages: u32, wait_us: u64, now: Now) {
        let number = self.last_receive + 1;
        self.last_receive = number;
        let (uids, first, is_turn) = self.name_parts(lane, number, now);
        let wait_us = match is_turn {
            true if self.lanes[lane].said => wait_us.min(TURN_SLICE_US),
            true => 0,
            false => wait_us,
        };
        // Rounded up, so that the last millisecond is not asked for again and again.
        let wait_ms = u32::try_from(wait_us.div_ceil(1000)).unwrap_or(u32::MAX);
        let visibility_ms = self.config.visibility.map_or(0, |visibility| u32::try_from(visibility.as_millis()).unwrap_or(u32::MAX));
        let request = ReceiveRequest {
            queue_uid: self.queue.uid,
            max_messages,
            max_bytes: self.config.max_bytes,
            wait_ms,
            visibility_ms,
            consumer: &self.config.consumer,
            partitions: List::of(&uids),
        };
        let state = &mut self.lanes[lane];
        // 4,096 uids are 32 KiB: far below the limit.
        match state.conn.request(Kind::Receive, |meta| request.encode(meta)) {
            Ok(correlation) => {
                let (call, named) = (self.call.number, uids.len());
                state.asked = Some(Asked { number, correlation, call, max_messages, wait_us, sent_us: now.mono_us, first, named, is_turn });
                state.alive.on_sent(now);
                self.metrics.receives_sent += 1;
            }
            Err(oversized) => self.errors.push_back(crate::error::Error::config(&oversized.to_string())),
        }
    }

    /// When a message of this Receive is not handed out any more: when half of its lease is over, which began when the answer came, or at some time since it was asked where nobody
    /// looked.
    pub(super) fn stale_at_us(&self, asked: &Asked, now: Now) -> u64 {
        let lease_us = self.config.visibility.map_or(u64::from(self.queue.visibility_timeout_ms) * 1000, micros);
        let is_watched = self.call.is_open && asked.call == self.call.number;
        let since_us = if is_watched { now.mono_us } else { asked.sent_us };
        since_us.saturating_add(lease_us / 2)
    }
}
