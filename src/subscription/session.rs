//! One fetch under way: who asked, what it may still send, and its cursors.

use super::collect::Collecting;
use super::cursor::Cursor;
use super::frames::Frame;
use super::lookup::LookupAnswer;
use crate::effects::Caller;
use std::collections::VecDeque;

/// How a fetch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// With its one reply.
    OneShot,
    /// When it is cancelled or its connection is gone.
    Streaming,
    /// A look-up by time: with its one reply.
    Lookup,
    /// When everything that was asked for is there. There is no reply: the shard itself has asked.
    Collect,
}

/// What a fetch asks for.
#[derive(Clone, Debug)]
pub struct FetchStart {
    /// Once or streaming.
    pub mode: Mode,
    /// Wait this long for `min_bytes`, in microseconds.
    pub max_wait_us: u64,
    /// Wait for this much.
    pub min_bytes: u64,
    /// Payload bytes that may be sent.
    pub credit_bytes: u64,
}

/// Where a session stands.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) caller: Caller,
    pub(super) mode: Mode,
    /// Bytes that may still be sent. May be below zero by one batch.
    pub(super) credit: i64,
    pub(super) min_bytes: u64,
    /// One-shot: its wait is over, but a cursor had not had its turn or waits for the disk: it ends as soon as none does.
    pub(super) overdue: bool,
    pub(super) cursors: Vec<Cursor>,
    /// Cursors that may have something, in the order of their turns. Each is in it at most once (`Cursor::ready`).
    pub(super) ready: VecDeque<u32>,
    /// Whether the session stands in the table's queue already.
    pub(super) queued: bool,
    /// Whether it waits for its connection's queue to drain.
    pub(super) choked: bool,
    /// Whether it stands in the table's list of those who may not send and keep what they read ahead.
    pub(super) holds: bool,
    /// One-shot: the reply so far, held until there is enough or the wait is over.
    pub(super) held: Frame,
    /// Look-ups only: answers found so far, by cursor.
    pub(super) answers: Vec<LookupAnswer>,
    pub(super) unanswered: usize,
    /// Collections only.
    pub(super) collecting: Option<Box<Collecting>>,
}

impl Session {
    /// Whether what there is for some cursor has not been looked at yet: it waits for its turn or for the disk, not for new records.
    pub(super) fn is_looking(&self) -> bool {
        self.cursors.iter().any(|c| !c.over && !c.waiting)
    }

    /// It is about to be given something at this time. Where there was nothing for it until now, it has waited for that, and is not late.
    pub(super) fn note_begin(&mut self, now_us: u64) {
        if !self.queued && self.ready.is_empty() {
            self.caller.received_us = now_us;
        }
    }

    pub(super) fn make_ready(&mut self, cursor: u32) {
        let state = &mut self.cursors[cursor as usize];
        if !state.ready && !state.over {
            state.ready = true;
            self.ready.push_back(cursor);
        }
    }
}
