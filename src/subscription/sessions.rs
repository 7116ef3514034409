//! All fetches of a shard: who waits for what, and whose turn it is.
//!
//! Invariants: a session stands in the queue at most once; a cursor waits at its partition at most once; a session that is gone
//! leaves nothing behind but numbers that nobody answers to (numbers are never reused).

mod turns;

use super::collect::{Collected, Collecting, Wants};
use super::cursor::{Cursor, Owner};
use super::frames::Frame;
use super::lookup::{LookupAnswer, LookupEntry};
use super::session::{FetchStart, Mode, Session};
use super::{CURSORS_MAX, FETCH_FRAME_BYTES, QUEUE_BYTES_HIGH, SESSIONS_MAX};
use crate::bytes::{Bytes, Slab};
use crate::effects::{Caller, Effects, Now};
use crate::ids::{ConnId, IdMap, PartitionUid, SegmentUid, ShardId};
use crate::log::{Log, ReadError};
use crate::partition::{Partitions, Slot};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use tramline_wire::error::ErrorCode;

/// What a fetch needs from its shard while it goes on.
pub struct Reading<'a> {
    /// The partitions.
    pub partitions: &'a Partitions,
    /// The log.
    pub log: &'a mut Log,
    /// The shard's buffers.
    pub slab: &'a mut Slab,
    /// Where reads and replies go.
    pub effects: &'a mut Effects,
    /// Bytes of all cold chunks (`Sessions` lends its own counter).
    pub(super) cold_bytes: &'a mut u64,
    pub(super) damage: &'a mut Vec<DamageFound>,
}

/// A batch that did not check when it came back from the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamageFound {
    /// The partition.
    pub uid: u64,
    /// First offset of the range that cannot be read.
    pub first_offset: u64,
    /// One past its last offset.
    pub end_offset: u64,
    /// The segment; 0 when nothing tells any more where the range was.
    pub segment: SegmentUid,
    /// Byte in the segment; 0 when its footer is what does not check.
    pub pos: u64,
}

/// What is counted, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchCounts {
    /// Payload bytes sent.
    pub bytes: u64,
    /// Batches sent.
    pub batches: u64,
    /// Replies sent.
    pub replies: u64,
}

/// Cursors that get another try when a read ends: more than begin one, since some of them may not send now.
const LATER_AT_ONCE: usize = 4;

/// Emptied lists of sessions that have ended are kept for those that begin, for one-shot fetches come and go as fast as requests do: so many of them, and of so many
/// places each; 64 of 16 cursors are 64 KiB.
const SPARES_MAX: usize = 64;
const SPARE_CURSORS_MAX: usize = 16;

type StreamKey = (ConnId, u32, u64);

/// The fetches of a shard.
#[derive(Default)]
pub struct Sessions {
    by_id: IdMap<u64, Session>,
    by_stream: HashMap<StreamKey, u64, BuildHasherDefault<crate::ids::IdHasher>>,
    next_id: u64,
    queue: VecDeque<u64>,
    /// Cursors at the end, by slot of their partition.
    waiters: Vec<Vec<(u64, u32)>>,
    starved: VecDeque<(u64, u32)>,
    /// Cursors that wait for the end of somebody else's read, in the order in which they came.
    later: VecDeque<(u64, u32)>,
    choked: Vec<u64>,
    /// Sessions that may not send and keep what they read ahead, each once (`Session::holds`).
    holders: Vec<u64>,
    deadlines: BinaryHeap<Reverse<(u64, u64)>>,
    cold_bytes: u64,
    damage: Vec<DamageFound>,
    /// What this pump has queued, by connection: the edge has not told yet.
    sent_in_pump: Vec<(ConnId, usize)>,
    wants_more: bool,
    /// `Now::mono_us` of this step.
    now_us: u64,
    /// Cursors of all sessions.
    cursors: usize,
    frame: Frame,
    spare_cursors: Vec<Vec<Cursor>>,
    spare_ready: Vec<VecDeque<u32>>,
    counts: FetchCounts,
    collected: Vec<Collected>,
}

fn stream_key(conn: ConnId, via: Option<ShardId>, stream: u64) -> StreamKey {
    (conn, via.map_or(u32::MAX, |s| u32::from(s.0)), stream)
}

impl Sessions {
    /// What time it is.
    #[inline]
    pub fn on_time(&mut self, now_us: u64) {
        self.now_us = now_us;
    }

    /// Begins a fetch. Refused when there are too many.
    pub fn start(&mut self, now: Now, caller: Caller, start: &FetchStart, cursors: Vec<Cursor>) -> Result<(), ErrorCode> {
        let ready = self.spare_ready.pop().unwrap_or_default();
        self.begin(now, caller, start, (cursors, ready), Vec::new())
    }

    /// An empty list for the cursors of a fetch that is about to begin.
    pub fn spare_cursors(&mut self) -> Vec<Cursor> {
        self.spare_cursors.pop().unwrap_or_default()
    }

    /// Begins a look-up by time: one cursor per question, at the place where its partition begins.
    /// `answers` are those already known, with their place; the rest is looked up.
    pub fn start_lookup(
        &mut self,
        now: Now,
        caller: Caller,
        answers: Vec<LookupAnswer>,
        open: Vec<(usize, LookupEntry, Slot, u64)>,
    ) -> Result<(), ErrorCode> {
        let mut cursors = Vec::with_capacity(answers.len());
        for answer in &answers {
            let mut cursor = Cursor::new(Slot(u32::MAX), answer.uid, 0, u32::MAX);
            cursor.over = true;
            cursors.push(cursor);
        }
        for (at, entry, slot, log_start) in &open {
            let mut cursor = Cursor::new(*slot, entry.uid, *log_start, u32::MAX);
            cursor.min_ts_us = Some(entry.at_us);
            cursors[*at] = cursor;
        }
        let start = FetchStart { mode: Mode::Lookup, max_wait_us: 0, min_bytes: 0, credit_bytes: 0 };
        self.begin(now, caller, &start, (cursors, VecDeque::new()), answers)
    }

    /// Begins a collection of up to `bytes_max` bytes (and the rest of one batch) for the shard itself; it ends among `take_collected`. The caller bounds
    /// how many are under way.
    pub fn collect(&mut self, ticket: u64, bytes_max: usize, wanted: Vec<(Slot, PartitionUid, Wants)>) {
        let (collecting, cursors) = Collecting::new(ticket, bytes_max, wanted);
        let id = self.next_id;
        self.next_id += 1;
        self.cursors += cursors.len();
        let caller = Caller { conn: ConnId(u64::MAX), via: None, kind: 0, version: 0, correlation: ticket, received_us: self.now_us };
        let mut session = Session {
            caller,
            mode: Mode::Collect,
            credit: i64::MAX,
            min_bytes: 0,
            overdue: false,
            unanswered: cursors.len(),
            cursors,
            ready: VecDeque::new(),
            queued: false,
            choked: false,
            holds: false,
            held: Frame::default(),
            answers: Vec::new(),
            collecting: Some(Box::new(collecting)),
        };
        (0..session.cursors.len() as u32).for_each(|at| session.make_ready(at));
        self.by_id.insert(id, session);
        self.enqueue(id);
    }

    /// Nobody waits any more for the collections of these tickets.
    pub fn drop_collections(&mut self, mut is_dropped: impl FnMut(u64) -> bool) {
        let is_named = |session: &Session, is_dropped: &mut dyn FnMut(u64) -> bool| {
            session.collecting.is_some() && is_dropped(session.caller.correlation)
        };
        let mut gone: Vec<u64> = self.by_id.iter().filter(|(_, session)| is_named(session, &mut is_dropped)).map(|(id, _)| *id).collect();
        gone.sort_unstable();
        gone.into_iter().for_each(|id| self.end(id));
        self.collected.retain(|collected| !is_dropped(collected.ticket));
    }

    /// Collections that have ended since the last call.
    pub fn take_collected(&mut self) -> Vec<Collected> {
        std::mem::take(&mut self.collected)
    }

    fn begin(
        &mut self,
        now: Now,
        caller: Caller,
        start: &FetchStart,
        (cursors, ready): (Vec<Cursor>, VecDeque<u32>),
        answers: Vec<LookupAnswer>,
    ) -> Result<(), ErrorCode> {
        if self.by_id.len() >= SESSIONS_MAX || self.cursors + cursors.len() > CURSORS_MAX {
            return Err(ErrorCode::LimitExceeded);
        }
        let key = stream_key(caller.conn, caller.via, caller.correlation);
        if start.mode == Mode::Streaming && self.by_stream.contains_key(&key) {
            return Err(ErrorCode::InvalidRequest);
        }
        let id = self.next_id;
        self.next_id += 1;
        self.cursors += cursors.len();
        let deadline_us = if start.mode == Mode::OneShot { now.mono_us.saturating_add(start.max_wait_us) } else { u64::MAX };
        let unanswered = cursors.iter().filter(|c| !c.over).count();
        let mut session = Session {
            caller,
            mode: start.mode,
            credit: cap_of_credit(caller.via, start.credit_bytes),
            min_bytes: start.min_bytes,
            overdue: false,
            cursors,
            ready,
            queued: true,
            choked: false,
            holds: false,
            held: Frame::default(),
            answers,
            unanswered,
            collecting: None,
        };
        if start.mode == Mode::OneShot {
            // What is read beyond the one reply is read for nobody.
            session
                .cursors
                .iter_mut()
                .for_each(|c| c.ahead_bytes = u64::from(c.max_bytes).min(start.credit_bytes.clamp(1, FETCH_FRAME_BYTES as u64)));
        }
        (0..session.cursors.len() as u32).for_each(|at| session.make_ready(at));
        match start.mode {
            Mode::Streaming => {
                self.by_stream.insert(key, id);
            }
            Mode::OneShot => self.deadlines.push(Reverse((deadline_us, id))),
            Mode::Lookup | Mode::Collect => {}
        }
        self.by_id.insert(id, session);
        self.queue.push_back(id);
        Ok(())
    }

    /// Grants a stream more credit. `false`: no such stream.
    /// The sum of what is granted and not used is capped at `credit_max`.
    pub fn credit(&mut self, conn: ConnId, via: Option<ShardId>, stream: u64, bytes: u32, credit_max: u32) -> bool {
        let Some(id) = self.by_stream.get(&stream_key(conn, via, stream)).copied() else { return false };
        let session = self.by_id.get_mut(&id).expect("a stream has a session");
        if session.credit <= 0 {
            session.caller.received_us = self.now_us;
        }
        session.credit = session.credit.saturating_add(i64::from(bytes)).min(cap_of_credit(session.caller.via, u64::from(credit_max)));
        self.enqueue(id);
        true
    }

    /// Ends a stream with an empty last reply. `false`: no such stream.
    pub fn cancel(&mut self, conn: ConnId, via: Option<ShardId>, stream: u64, partitions: &Partitions, effects: &mut Effects) -> bool {
        let Some(id) = self.by_stream.get(&stream_key(conn, via, stream)).copied() else { return false };
        let session = self.by_id.get_mut(&id).expect("a stream has a session");
        // What is answered is that it ends.
        session.caller.received_us = self.now_us;
        self.frame.send(&session.caller, false, &session.cursors, partitions, effects);
        self.end(id);
        true
    }

    /// A connection is gone: its fetches end.
    pub fn close_conn(&mut self, conn: ConnId, via: Option<ShardId>) {
        let mut gone: Vec<u64> =
            self.by_id.iter().filter(|(_, s)| s.caller.conn == conn && s.caller.via == via).map(|(id, _)| *id).collect();
        gone.sort_unstable();
        gone.into_iter().for_each(|id| self.end(id));
    }

    /// Something new is visible in a partition, or it is gone.
    pub fn wake(&mut self, slot: Slot) {
        let Some(list) = self.waiters.get_mut(slot.0 as usize).filter(|l| !l.is_empty()) else { return };
        let mut woken = std::mem::take(list);
        for (id, at) in woken.drain(..) {
            if let Some(session) = self.by_id.get_mut(&id) {
                session.note_begin(self.now_us);
                session.cursors[at as usize].waiting = false;
                session.make_ready(at);
                self.enqueue(id);
            }
        }
        self.waiters[slot.0 as usize] = woken;
    }

    /// These partitions are another node's to serve: who reads them here is told so. What the shard collects for itself goes on.
    pub fn leave(&mut self, is_left: impl Fn(Slot) -> bool) {
        let mut left = Vec::new();
        for (id, session) in self.by_id.iter_mut().filter(|(_, session)| session.mode != Mode::Collect) {
            for at in 0..session.cursors.len() {
                let cursor = &mut session.cursors[at];
                if !cursor.over && !cursor.is_left && is_left(cursor.slot) {
                    cursor.is_left = true;
                    session.note_begin(self.now_us);
                    session.make_ready(at as u32);
                    left.push(*id);
                }
            }
        }
        left.sort_unstable();
        left.dedup();
        left.into_iter().for_each(|id| self.enqueue(id));
    }

    /// A read ended.
    pub fn on_read(&mut self, owner: u64, ticket: u64, bytes: Result<Bytes, ReadError>) {
        let Owner { session: id, cursor: at } = Owner::unpack(owner);
        // Who waits goes first: else whose reads end would begin the next ones, and the others never come to read while the log writes.
        self.feed_later();
        if let Some(session) = self.by_id.get_mut(&id) {
            let taken = session.cursors.get_mut(at as usize).and_then(|c| c.cold.as_mut()).is_some_and(|cold| cold.on_read(ticket, bytes));
            if taken {
                session.make_ready(at);
                self.enqueue(id);
            }
        }
        self.feed_starved();
    }

    /// A connection's queue has drained to `queued_bytes`.
    pub fn on_sent(&mut self, conn: ConnId, queued_bytes: usize) {
        if self.choked.is_empty() || queued_bytes > QUEUE_BYTES_HIGH / 2 {
            return;
        }
        let mut at = 0;
        while at < self.choked.len() {
            let id = self.choked[at];
            match self.by_id.get_mut(&id) {
                Some(session) if session.caller.conn == conn && session.caller.via.is_none() => {
                    session.choked = false;
                    session.caller.received_us = self.now_us;
                    self.choked.swap_remove(at);
                    self.enqueue(id);
                }
                Some(_) => at += 1,
                None => {
                    self.choked.swap_remove(at);
                }
            }
        }
    }

    /// Time has passed: one-shot fetches whose wait is over are answered with what there is.
    pub fn on_deadline(&mut self, now: Now, partitions: &Partitions, effects: &mut Effects) {
        while let Some(Reverse((at_us, id))) = self.deadlines.peek().copied().filter(|Reverse((at_us, _))| *at_us <= now.mono_us) {
            self.deadlines.pop();
            debug_assert!(at_us <= now.mono_us);
            self.finish_one_shot(id, partitions, effects);
        }
        self.feed_later();
        self.feed_starved();
    }

    /// The next time at which `on_deadline` has work.
    pub fn next_deadline_us(&mut self) -> u64 {
        // Most fetches are answered long before: nobody has to be woken for them.
        while self.deadlines.peek().is_some_and(|Reverse((_, id))| !self.by_id.contains_key(id)) {
            self.deadlines.pop();
        }
        self.deadlines.peek().map_or(u64::MAX, |Reverse((at_us, _))| *at_us)
    }

    /// Whether a cursor waits for memory or a place among the reads: `on_deadline` tries again.
    pub fn has_starved(&self) -> bool {
        !self.starved.is_empty() || !self.later.is_empty()
    }

    /// Whether a session waits for its turn.
    pub fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Number of fetches under way.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Bytes of cold chunks.
    pub fn cold_bytes(&self) -> u64 {
        self.cold_bytes
    }

    /// Whether somebody waits at this partition.
    pub fn is_awaited(&self, slot: Slot) -> bool {
        self.waiters.get(slot.0 as usize).is_some_and(|list| !list.is_empty())
    }

    /// Whether, since the last call, a fetch came to records that are not committed yet.
    pub fn take_wants_more(&mut self) -> bool {
        std::mem::take(&mut self.wants_more)
    }

    /// What was sent since the last call.
    pub fn take_counts(&mut self) -> FetchCounts {
        std::mem::take(&mut self.counts)
    }

    /// Damage met since the last call.
    pub fn take_damage(&mut self) -> Vec<DamageFound> {
        std::mem::take(&mut self.damage)
    }

    /// A session that may not send keeps what it read ahead until somebody starves.
    fn note_holder(&mut self, id: u64, session: &mut Session) {
        if !session.holds && session.cursors.iter().any(|c| c.cold.is_some()) {
            session.holds = true;
            self.holders.push(id);
        }
    }

    /// Takes what was read ahead from all sessions that may not send: who does not read must not starve who does.
    fn reclaim(&mut self) {
        let mut holders = std::mem::take(&mut self.holders);
        for id in holders.drain(..) {
            let Some(session) = self.by_id.get_mut(&id) else { continue };
            session.holds = false;
            if !session.choked && session.credit > 0 {
                continue;
            }
            for at in 0..session.cursors.len() as u32 {
                let cursor = &mut session.cursors[at as usize];
                if cursor.cold.is_some() {
                    cursor.drop_cold(&mut self.cold_bytes);
                    session.make_ready(at);
                }
            }
        }
        self.holders = holders;
    }

    fn wait_at(&mut self, id: u64, at: u32, cursor: &mut Cursor) {
        if cursor.waiting {
            return;
        }
        cursor.waiting = true;
        let slot = cursor.slot.0 as usize;
        if self.waiters.len() <= slot {
            self.waiters.resize_with(slot + 1, Vec::new);
        }
        self.waiters[slot].push((id, at));
    }

    fn finish_one_shot(&mut self, id: u64, partitions: &Partitions, effects: &mut Effects) {
        let Some(session) = self.by_id.get_mut(&id) else { return };
        // Waiting is for records that are not there yet: what is there is looked at first, also with a wait of zero.
        if session.held.bytes() == 0 && session.is_looking() {
            session.overdue = true;
            return;
        }
        session.held.complete(&session.cursors);
        // It has waited for more than there is.
        session.caller.received_us = self.now_us;
        self.counts.bytes += session.held.bytes() as u64;
        self.counts.batches += session.held.batches();
        self.counts.replies += 1;
        session.held.send(&session.caller, false, &session.cursors, partitions, effects);
        self.end(id);
    }

    fn feed_starved(&mut self) {
        if self.starved.is_empty() {
            return;
        }
        self.reclaim();
        for _ in 0..self.starved.len() {
            let (id, at) = self.starved.pop_front().expect("bounded by the length");
            if let Some(session) = self.by_id.get_mut(&id) {
                session.make_ready(at);
                self.enqueue(id);
            }
        }
    }

    /// Gives a few of those who wait for a read another try; one of them begins the next one, the others wait on behind those who came after them.
    fn feed_later(&mut self) {
        for _ in 0..LATER_AT_ONCE.min(self.later.len()) {
            let (id, at) = self.later.pop_front().expect("bounded by the length");
            if let Some(session) = self.by_id.get_mut(&id) {
                session.make_ready(at);
                self.enqueue(id);
            }
        }
    }

    fn enqueue(&mut self, id: u64) {
        if let Some(session) = self.by_id.get_mut(&id).filter(|s| !s.queued && !s.choked) {
            session.queued = true;
            self.queue.push_back(id);
        }
    }

    fn end(&mut self, id: u64) {
        if let Some(session) = self.by_id.remove(&id) {
            self.close(id, session);
        }
    }

    /// What a session that was taken out leaves behind.
    fn close(&mut self, id: u64, mut session: Session) {
        self.cursors -= session.cursors.len();
        if self.deadlines.len() > 2 * self.by_id.len() + 1024 {
            let by_id = &self.by_id;
            self.deadlines.retain(|Reverse((_, id))| by_id.contains_key(id));
        }
        for (at, cursor) in session.cursors.iter_mut().enumerate() {
            cursor.drop_cold(&mut self.cold_bytes);
            if cursor.waiting {
                self.waiters[cursor.slot.0 as usize].retain(|w| *w != (id, at as u32));
            }
        }
        if session.mode == Mode::Streaming {
            self.by_stream.remove(&stream_key(session.caller.conn, session.caller.via, session.caller.correlation));
        }
        if self.spare_cursors.len() < SPARES_MAX && (1..=SPARE_CURSORS_MAX).contains(&session.cursors.capacity()) {
            session.cursors.clear();
            self.spare_cursors.push(session.cursors);
        }
        if self.spare_ready.len() < SPARES_MAX && (1..=SPARE_CURSORS_MAX).contains(&session.ready.capacity()) {
            session.ready.clear();
            self.spare_ready.push(session.ready);
        }
    }
}

/// Credit is the only back-pressure of a stream that goes over the mesh, whose frames are copies in the other shard's queue.
fn cap_of_credit(via: Option<ShardId>, credit_bytes: u64) -> i64 {
    let cap = if via.is_some() { QUEUE_BYTES_HIGH as u64 } else { i64::MAX as u64 };
    credit_bytes.min(cap) as i64
}
