//! Answers to other nodes that ask for batches they have lost: as a fetch would read them, committed ones only.
//!
//! Invariants: answers come in the order of the questions of a connection, one is read for at a time; a replica that is suspect helps nobody.
//!
//! Not here: asking (`repair.rs`), reading (subscription/).

use super::pipelines::NotTaken;
use super::shard::Shard;
use crate::bytes::Bytes;
use crate::effects::{Effect, Effects};
use crate::ids::{ConnId, GroupId, PartitionUid, ReplicaId};
use crate::partition::Slot;
use crate::subscription::{Collected, Wants};
use std::collections::VecDeque;
use tramline_wire::error::ErrorCode;
use tramline_wire::frame::finish_frame;
use tramline_wire::node::{self, Class, Fetch, FetchReply, Frame, Kind, NodeError, Numbers, Side};
use tramline_wire::prim::List;

/// Tickets of collections for repair have this bit, and those of others have not.
pub(super) const REPAIR_TICKET: u64 = 1 << 60;
/// Questions of one connection that wait.
const QUESTIONS_MAX: usize = 64;
/// Bytes of one answer, or one batch.
const ANSWER_BYTES_MAX: usize = 1 << 20;

#[derive(Debug)]
struct Answering {
    from: ReplicaId,
    conn: ConnId,
    numbers: Numbers,
    questions: VecDeque<Fetch>,
    /// What is being read for the first one.
    reading: Option<u64>,
}

/// The connections on which others ask.
#[derive(Debug, Default)]
pub(super) struct RepairAnswers {
    list: Vec<Answering>,
    next_ticket: u64,
}

impl RepairAnswers {
    pub(super) fn conns(&self) -> impl Iterator<Item = ConnId> {
        self.list.iter().map(|answering| answering.conn)
    }

    /// A connection has ended; answers whether it was one of these, and what was being read for it.
    pub(super) fn on_closed(&mut self, conn: ConnId) -> Option<Option<u64>> {
        self.of(conn).map(|at| self.list.swap_remove(at).reading)
    }

    /// Which one has this connection.
    pub(super) fn of(&self, conn: ConnId) -> Option<usize> {
        self.list.iter().position(|answering| answering.conn == conn)
    }
}

impl Shard {
    /// A peer has dialed to ask for what it has lost.
    pub(super) fn answer_repairs_of(&mut self, from: ReplicaId, conn: ConnId, effects: &mut Effects) {
        let mut numbers = Numbers::new();
        self.answer_hello(conn, &mut numbers, &[], effects);
        if let Some(before) = self.repair_answers.list.iter().find(|answering| answering.from == from).map(|answering| answering.conn) {
            self.on_asker_closed(before);
            effects.push(Effect::Close { conn: before, reason: "a newer connection of the same node has come" });
        }
        self.repair_answers.list.push(Answering { from, conn, numbers, questions: VecDeque::new(), reading: None });
    }

    /// A connection has ended; answers whether it was one on which somebody asks.
    pub(super) fn on_asker_closed(&mut self, conn: ConnId) -> bool {
        let Some(reading) = self.repair_answers.on_closed(conn) else { return false };
        if let Some(ticket) = reading {
            self.sessions.drop_collections(|of| of == ticket);
        }
        true
    }

    /// What comes on a connection for repair that another node has dialed.
    pub(super) fn take_repair_question(&mut self, at: usize, frame: &Frame<'_>, effects: &mut Effects) -> Result<(), NotTaken> {
        frame.kind.check(Class::Repair, Side::Dialer)?;
        if frame.kind != Kind::Fetch {
            return Err(NotTaken::Wrong(format!("{} does not belong on this connection", frame.kind)));
        }
        let fetch = Fetch::decode(frame.meta).map_err(NodeError::from)?;
        let answering = &mut self.repair_answers.list[at];
        if answering.questions.len() >= QUESTIONS_MAX {
            return Err(NotTaken::Wrong(format!("{QUESTIONS_MAX} questions wait for their answers already")));
        }
        answering.questions.push_back(fetch);
        self.read_for_repairs(effects);
        Ok(())
    }

    /// Begins to read for each connection whose first question nobody reads for.
    fn read_for_repairs(&mut self, effects: &mut Effects) {
        for at in 0..self.repair_answers.list.len() {
            while self.repair_answers.list[at].reading.is_none()
                && let Some(fetch) = self.repair_answers.list[at].questions.front().copied()
            {
                match self.place_for_repair(&fetch) {
                    Err(error) => self.answer_repair(at, error, 0, None, effects),
                    Ok(slot) => {
                        let ticket = self.repair_answers.next_ticket | REPAIR_TICKET;
                        self.repair_answers.next_ticket += 1;
                        self.repair_answers.list[at].reading = Some(ticket);
                        let wants = Wants::Offsets(vec![fetch.first]);
                        self.sessions.collect(ticket, ANSWER_BYTES_MAX, vec![(slot, PartitionUid(fetch.uid), wants)]);
                        self.urgent = true;
                    }
                }
            }
        }
    }

    /// Where the first offset that is asked for can be read, or why it cannot.
    fn place_for_repair(&self, fetch: &Fetch) -> Result<Slot, ErrorCode> {
        let group = GroupId(fetch.group);
        let uid = PartitionUid(fetch.uid);
        // Of one that its view does not know yet it may have what a start has found.
        let unknown = if self.view.has_known(uid) { ErrorCode::UnknownPartition } else { ErrorCode::NotReady };
        let slot = self.partitions.slot(uid).ok_or(unknown)?;
        let partition = self.partitions.get(slot).filter(|partition| partition.group == group).ok_or(ErrorCode::UnknownPartition)?;
        if self.groups.is_suspect(group) || fetch.first >= partition.committed_end() {
            return Err(ErrorCode::NotReady);
        }
        if fetch.first < partition.log_start() {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        Ok(slot)
    }

    /// What was asked for has been read.
    pub(super) fn on_collected_for_repair(&mut self, collected: &Collected, effects: &mut Effects) {
        let Some(at) = self.repair_answers.list.iter().position(|answering| answering.reading == Some(collected.ticket)) else { return };
        let answering = &mut self.repair_answers.list[at];
        answering.reading = None;
        let first = answering.questions.front().expect("it was read for").first;
        let found = &collected.parts[0];
        match found.batches.first().filter(|batch| batch.base_offset <= first && first < batch.end_offset) {
            Some(batch) => self.answer_repair(at, ErrorCode::Ok, batch.end_offset, Some(batch.bytes.clone()), effects),
            None => {
                let error = found.missing.first().map_or(ErrorCode::OffsetOutOfRange, |(_, code)| *code);
                self.answer_repair(at, error, 0, None, effects);
            }
        }
        self.read_for_repairs(effects);
    }

    fn answer_repair(&mut self, at: usize, error: ErrorCode, next: u64, batch: Option<Bytes>, effects: &mut Effects) {
        let answering = &mut self.repair_answers.list[at];
        answering.questions.pop_front();
        let number = answering.numbers.advance();
        let reply = FetchReply { error, next, heads: List::of(&[]) };
        let bytes = batch.as_ref().map_or(0, Bytes::len);
        effects.send(answering.conn, batch, |out| {
            let start = node::begin(out, Kind::FetchReply, number);
            reply.encode(out);
            finish_frame(out, start, bytes).expect("one batch is within the limits");
        });
    }
}
