//! A session's turn: what it sends of what there is, and what it waits for afterwards.
//!
//! Invariants: a turn ends with nothing left to send, or with the session standing where what it waits for will find it: at a partition's end, at its connection's queue,
//! at its credit, at a read, among the starved.
//!
//! Not here: who comes when, and who is woken (`sessions.rs`); a cursor's own way (`cursor.rs`).

use super::super::cursor::{Next, Owner};
use super::super::frames::Frame;
use super::super::lookup::{LookupAnswer, first_record_at};
use super::super::session::{Mode, Session};
use super::super::{FETCH_FRAME_BYTES, QUEUE_BYTES_HIGH};
use super::{Reading, Sessions};
use crate::bytes::Slab;
use crate::effects::{Caller, Effects};
use crate::ids::ConnId;
use crate::log::Log;
use crate::mutants::Mutant;
use crate::partition::Partitions;
use tramline_wire::error::ErrorCode;
use tramline_wire::offsets::{OffsetAnswer, TIMESTAMP_UNKNOWN};
use tramline_wire::prim::ListWriter;

impl Sessions {
    /// Gives every session that has something its turn. `queued_bytes` tells how much a connection has to send already.
    pub fn pump(
        &mut self,
        partitions: &Partitions,
        log: &mut Log,
        slab: &mut Slab,
        effects: &mut Effects,
        queued_bytes: impl Fn(ConnId) -> usize,
    ) {
        self.sent_in_pump.clear();
        // A session whose turn leaves something behind is woken by what it waits for, so one pass over the queue is enough.
        for _ in 0..self.queue.len() {
            let Some(id) = self.queue.pop_front() else { return };
            let Some(mut session) = self.by_id.remove(&id) else { continue };
            session.queued = false;
            let mut cold_bytes = self.cold_bytes;
            let mut damage = std::mem::take(&mut self.damage);
            let reading = &mut Reading { partitions, log, slab, effects, cold_bytes: &mut cold_bytes, damage: &mut damage };
            let over = match session.mode {
                Mode::Streaming => self.turn_of_stream(id, &mut session, reading, &queued_bytes),
                Mode::OneShot => self.turn_of_one_shot(id, &mut session, reading, &queued_bytes),
                Mode::Lookup => self.turn_of_lookup(id, &mut session, reading),
                Mode::Collect => self.turn_of_collection(id, &mut session, reading),
            };
            self.cold_bytes = cold_bytes;
            self.damage = damage;
            if over {
                self.close(id, session);
            } else {
                self.by_id.insert(id, session);
            }
        }
    }

    fn turn_of_stream(
        &mut self,
        id: u64,
        session: &mut Session,
        reading: &mut Reading<'_>,
        queued_bytes: &impl Fn(ConnId) -> usize,
    ) -> bool {
        // What this turn sends is not in the connection's queue before the edge has carried it out.
        let mut queued = self.queued_with_this_pump(session, queued_bytes);
        loop {
            if session.credit <= 0 {
                self.note_holder(id, session);
                return false;
            }
            if session.ready.is_empty() {
                return false;
            }
            if session.caller.via.is_none() && queued >= QUEUE_BYTES_HIGH {
                return self.choke(id, session);
            }
            let budget = FETCH_FRAME_BYTES.min(session.credit as usize);
            let mut frame = std::mem::take(&mut self.frame);
            self.fill(id, session, &mut frame, budget, reading);
            let (bytes, batches) = (frame.bytes(), frame.batches());
            let over = session.cursors.iter().all(|c| c.over);
            if frame.is_empty() {
                self.frame = frame;
                return over;
            }
            if !reading.log.mutants().has(Mutant::StreamOverspends) {
                session.credit -= bytes as i64;
            }
            queued += bytes;
            self.note_sent(session.caller.conn, bytes);
            frame.send(&session.caller, !over, &session.cursors, reading.partitions, reading.effects);
            session.caller.received_us = self.now_us;
            self.counts.bytes += bytes as u64;
            self.counts.batches += batches;
            self.counts.replies += 1;
            self.frame = frame;
            if over {
                return true;
            }
        }
    }

    /// Its connection has as much to send as it may: it waits for that, and its turn is not the last one.
    fn choke(&mut self, id: u64, session: &mut Session) -> bool {
        session.choked = true;
        self.choked.push(id);
        self.note_holder(id, session);
        false
    }

    fn turn_of_one_shot(
        &mut self,
        id: u64,
        session: &mut Session,
        reading: &mut Reading<'_>,
        queued_bytes: &impl Fn(ConnId) -> usize,
    ) -> bool {
        if session.caller.via.is_none() && self.queued_with_this_pump(session, queued_bytes) >= QUEUE_BYTES_HIGH {
            return self.choke(id, session);
        }
        let budget = FETCH_FRAME_BYTES.min(session.credit.max(1) as usize);
        // Mostly nothing is held from before, and nothing will be: the table's frame has its memory already.
        let mut held = std::mem::take(if session.held.is_empty() { &mut self.frame } else { &mut session.held });
        self.fill(id, session, &mut held, budget, reading);
        // Something is left in the queue only when the frame is full.
        let full = !session.ready.is_empty();
        let enough = held.bytes() > 0 && held.bytes() as u64 >= session.min_bytes;
        let over = full || enough || held.has_error() || session.overdue && (held.bytes() > 0 || !session.is_looking());
        if over {
            held.complete(&session.cursors);
            self.counts.bytes += held.bytes() as u64;
            self.counts.batches += held.batches();
            self.counts.replies += 1;
            self.note_sent(session.caller.conn, held.bytes());
            held.send(&session.caller, false, &session.cursors, reading.partitions, reading.effects);
        }
        let place = if held.is_empty() { &mut self.frame } else { &mut session.held };
        *place = held;
        over
    }

    fn turn_of_lookup(&mut self, id: u64, session: &mut Session, reading: &mut Reading<'_>) -> bool {
        while let Some(at) = session.ready.pop_front() {
            let cursor = &mut session.cursors[at as usize];
            cursor.ready = false;
            let answer = loop {
                match cursor.next(Owner { session: id, cursor: at }, reading) {
                    Next::Batch { bytes, end_offset } => {
                        let at_us = cursor.min_ts_us.expect("a look-up has a time");
                        let log_start = reading.partitions.get(cursor.slot).map_or(0, |p| p.log_start());
                        match first_record_at(bytes.as_slice(), at_us, log_start) {
                            Some((offset, time)) => break Some((ErrorCode::Ok, offset, Some(time))),
                            None => cursor.offset = end_offset,
                        }
                    }
                    Next::End => {
                        let end = reading.partitions.get(cursor.slot).map_or(0, |p| p.visible_end());
                        break Some((ErrorCode::Ok, end, None));
                    }
                    // The start moved up meanwhile: the answer is at it or behind it.
                    Next::Refused { code: ErrorCode::OffsetOutOfRange, next_offset } if next_offset > cursor.offset => {
                        cursor.drop_cold(reading.cold_bytes);
                        cursor.offset = next_offset;
                    }
                    Next::Refused { code, next_offset } => break Some((code, next_offset, None)),
                    Next::Wait => break None,
                    Next::Later => {
                        self.later.push_back((id, at));
                        break None;
                    }
                    Next::Starved => {
                        self.starved.push_back((id, at));
                        break None;
                    }
                }
            };
            if let Some((error, offset, timestamp_us)) = answer {
                session.answers[at as usize] = LookupAnswer { uid: cursor.uid, error, offset, timestamp_us };
                cursor.over = true;
                cursor.drop_cold(reading.cold_bytes);
                session.unanswered -= 1;
            }
        }
        if session.unanswered > 0 {
            return false;
        }
        reply_lookup(&session.caller, &session.answers, reading.effects);
        true
    }

    fn turn_of_collection(&mut self, id: u64, session: &mut Session, reading: &mut Reading<'_>) -> bool {
        let mut collecting = session.collecting.take().expect("a collection");
        while let Some(at) = session.ready.pop_front() {
            let cursor = &mut session.cursors[at as usize];
            cursor.ready = false;
            match collecting.turn(Owner { session: id, cursor: at }, cursor, reading) {
                None => session.unanswered -= 1,
                Some(Next::End) => {
                    self.wants_more |= reading.partitions.get(cursor.slot).is_some_and(|p| p.next_offset() > cursor.offset);
                    self.wait_at(id, at, cursor);
                }
                Some(Next::Later) => self.later.push_back((id, at)),
                Some(Next::Starved) => self.starved.push_back((id, at)),
                Some(Next::Wait | Next::Batch { .. } | Next::Refused { .. }) => {}
            }
        }
        if session.unanswered > 0 {
            session.collecting = Some(collecting);
            return false;
        }
        self.collected.push(collecting.end());
        true
    }

    /// Fills `frame` from the session's ready cursors, in turns of at most `Cursor::max_bytes`, up to `budget` bytes.
    fn fill(&mut self, id: u64, session: &mut Session, frame: &mut Frame, budget: usize, reading: &mut Reading<'_>) {
        while let Some(at) = session.ready.front().copied() {
            let cursor = &mut session.cursors[at as usize];
            if frame.bytes_of(at) >= cursor.max_bytes {
                // Its share of this frame is used up, and so is that of all who had their turn before it came round again.
                return;
            }
            let left_over = match cursor.next(Owner { session: id, cursor: at }, reading) {
                Next::Batch { bytes, end_offset } => {
                    if frame.bytes() > 0 && frame.bytes() + bytes.len() > budget {
                        if reading.log.mutants().has(Mutant::StreamSkips) {
                            cursor.offset = end_offset;
                        }
                        // Whoever did not fit is first in the next frame's second half: others get their turn before.
                        session.ready.rotate_left(1);
                        return;
                    }
                    cursor.offset = end_offset;
                    frame.push_batch(at, bytes, end_offset);
                    if frame.bytes_of(at) >= cursor.max_bytes {
                        session.ready.rotate_left(1);
                    }
                    if frame.bytes() >= budget {
                        return;
                    }
                    continue;
                }
                left_over => left_over,
            };
            session.ready.pop_front();
            cursor.ready = false;
            match left_over {
                Next::End => {
                    self.wants_more |= reading.partitions.get(cursor.slot).is_some_and(|p| p.next_offset() > cursor.offset);
                    self.wait_at(id, at, cursor);
                }
                Next::Later => self.later.push_back((id, at)),
                Next::Starved => self.starved.push_back((id, at)),
                Next::Refused { code, next_offset } => {
                    cursor.over = true;
                    cursor.drop_cold(reading.cold_bytes);
                    frame.push_error(at, code, next_offset);
                }
                Next::Wait | Next::Batch { .. } => {}
            }
        }
    }

    fn queued_with_this_pump(&self, session: &Session, queued_bytes: &impl Fn(ConnId) -> usize) -> usize {
        let conn = session.caller.conn;
        let here = self.sent_in_pump.iter().find(|(c, _)| *c == conn).map_or(0, |(_, bytes)| *bytes);
        if session.caller.via.is_none() { queued_bytes(conn) + here } else { 0 }
    }

    fn note_sent(&mut self, conn: ConnId, bytes: usize) {
        match self.sent_in_pump.iter_mut().find(|(c, _)| *c == conn) {
            Some((_, sum)) => *sum += bytes,
            None => self.sent_in_pump.push((conn, bytes)),
        }
    }
}

fn reply_lookup(caller: &Caller, answers: &[LookupAnswer], effects: &mut Effects) {
    effects.reply(caller, 0, &mut Vec::new(), |out| {
        let mut list = ListWriter::<OffsetAnswer>::begin(out);
        for answer in answers {
            let timestamp_us = answer.timestamp_us.unwrap_or(TIMESTAMP_UNKNOWN);
            list.push(out, &OffsetAnswer { partition_uid: answer.uid, error: answer.error, offset: answer.offset, timestamp_us });
        }
        list.finish(out);
    });
}
