//! Clients that produce idempotently, by the rules of docs/PROTOCOL.md: whatever has no answer that counts is sent again, with the bytes it was first
//! sent with, on whichever connection, until it has one.
//!
//! What the history then checks: that a record is read at one place only, and is there when it was acknowledged; here: that no answer says that
//! something is missing which was acknowledged as durable, and that batches of one producer lie in the order of their numbers.
//!
//! Where the disk has decayed a producer begins anew with each process: what was lost with a block is lost with what was known of it.

use super::clients::{Clients, Pending};
use super::history::value_of;
use super::totals::Event as Counted;
use super::world::World;
use super::{Check, UTC_START_US};
use crate::constants::PRODUCER_BATCHES_KEPT;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use tramline_wire::batch::{NewRecord, ProducerMark, mark_producer};
use tramline_wire::error::ErrorCode;
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::produce::{ProduceEntry, ProduceRequestWriter, ProduceResult};
use tramline_wire::producer::{InitProducerReply, InitProducerRequest};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    ToSend,
    /// With the request of this number.
    UnderWay(u64),
    /// Answered with "out of sequence", and nothing before it may still come: it is certainly not stored.
    NotStored,
}

/// A batch without an answer that counts.
#[derive(Debug)]
struct Open {
    sequence: u32,
    ids: Range<u64>,
    level: Level,
    batch: Vec<u8>,
    state: State,
    times: u32,
}

/// A producer's batches in one partition.
#[derive(Debug)]
struct Part {
    epoch: u16,
    next: u32,
    /// Everything is acknowledged at a durable level: nothing that was acknowledged may ever be missing.
    durable: bool,
    /// In order of sequence.
    open: VecDeque<Open>,
}

/// What an idempotent client knows of itself.
#[derive(Debug, Default)]
pub(super) struct Producer {
    id: Option<u64>,
    parts: BTreeMap<u64, Part>,
    /// Partitions of which something has to be sent.
    to_send: BTreeSet<u64>,
    /// Batches' memory, for the next ones.
    spare: Vec<Vec<u8>>,
}

impl Producer {
    /// A connection is gone, and with it every answer that was on its way.
    pub(super) fn on_gone(&mut self) {
        for (uid, part) in &mut self.parts {
            for open in part.open.iter_mut().filter(|open| matches!(open.state, State::UnderWay(_))) {
                open.state = State::ToSend;
                self.to_send.insert(*uid);
            }
        }
    }

    fn forget(&mut self, uid: u64) {
        self.parts.remove(&uid);
        self.to_send.remove(&uid);
    }
}

impl Clients {
    /// One more batch, or what has to be sent again before.
    pub(super) fn produce_marked(&mut self, world: &mut World, at: usize, uid: u64) {
        let Some(id) = self.list[at].producer.id else {
            if !self.list[at].pending.values().any(|pending| matches!(pending, Pending::InitProducer)) {
                self.send(world, at, Kind::InitProducer, &[], Pending::InitProducer, |out| InitProducerRequest {}.encode(out));
            }
            return;
        };
        if self.send_again(world, at) {
            return;
        }
        let durable = self.dice.chance(70);
        let part = self.list[at].producer.parts.entry(uid).or_insert_with(|| Part { epoch: 0, next: 0, durable, open: VecDeque::new() });
        let is_waiting = part.open.iter().any(|open| !matches!(open.state, State::UnderWay(_)));
        if is_waiting || part.open.len() >= PRODUCER_BATCHES_KEPT {
            return;
        }
        let levels = [Level::Durable, Level::LeaderDurable, Level::Leader];
        let level = levels[self.dice.below(if part.durable { 2 } else { 3 }) as usize];
        let (mark, count) = (ProducerMark { id, epoch: part.epoch, sequence: part.next }, 1 + self.dice.below(6));
        part.next += count as u32;
        let ids = self.next_record..self.next_record + count;
        self.next_record += count;
        for id in ids.clone() {
            self.history.on_sent(uid, id);
            value_of(id, self.history.value_bytes_max, &mut self.scratch);
            let timestamp_us = UTC_START_US + world.now_us as i64;
            self.builder.push(&NewRecord { value: Some(&self.scratch), timestamp_us, ..NewRecord::default() }).expect("small records");
        }
        let producer = &mut self.list[at].producer;
        let mut batch = producer.spare.pop().unwrap_or_default();
        batch.clear();
        self.builder.finish_plain(&mut batch, mark);
        let open = Open { sequence: mark.sequence, ids, level, batch, state: State::ToSend, times: 0 };
        producer.parts.get_mut(&uid).expect("entered above").open.push_back(open);
        producer.to_send.insert(uid);
        self.send_again(world, at);
    }

    /// Sends what a partition has to send, in order. Answers whether there was any.
    pub(super) fn send_again(&mut self, world: &mut World, at: usize) -> bool {
        let Some(uid) = self.list[at].producer.to_send.first().copied() else { return false };
        if !self.uids.contains(&uid) {
            // Its topic is gone, and nobody asks for it any more.
            self.list[at].producer.forget(uid);
            return true;
        }
        let producer = &mut self.list[at].producer;
        producer.to_send.remove(&uid);
        let mut all = std::mem::take(&mut producer.parts.get_mut(&uid).expect("a partition with something to send").open);
        for open in all.iter_mut().filter(|open| open.state == State::ToSend) {
            let pending = Pending::Marked { uid };
            let (level, len) = (open.level, open.batch.len() as u32);
            self.send(world, at, Kind::Produce, &open.batch, pending, |out| {
                let mut writer = ProduceRequestWriter::begin(out, level, 0);
                writer.push(out, &ProduceEntry { partition_uid: uid, batch_len: len });
                writer.finish(out);
            });
            if self.list[at].conn.is_some() {
                open.state = State::UnderWay(self.list[at].sequence);
                open.times += 1;
                world.totals.add(Counted::MarkedAgain, u64::from(open.times > 1));
            } else {
                self.list[at].producer.to_send.insert(uid);
            }
        }
        self.list[at].producer.parts.get_mut(&uid).expect("as above").open = all;
        true
    }

    pub(super) fn on_init_producer(&mut self, at: usize, reply: &InitProducerReply) -> Check {
        if reply.producer_id == 0 || !self.producer_ids.insert(reply.producer_id) {
            return Err(format!("client {at} is given the id {} of another producer", reply.producer_id));
        }
        self.list[at].producer.id = Some(reply.producer_id);
        Ok(())
    }

    /// A marked batch has an answer; `correlation` is its request's number.
    pub(super) fn on_marked(
        &mut self,
        world: &mut World,
        at: usize,
        correlation: u64,
        uid: u64,
        answer: Result<&ProduceResult, ErrorCode>,
    ) -> Check {
        let code = answer.map_or_else(|code| code, |result| result.error);
        self.forget_if_lost(world, uid, code);
        let is_known = self.uids.contains(&uid);
        let producer = &mut self.list[at].producer;
        let Some(part) = producer.parts.get_mut(&uid) else { return Ok(()) };
        let Some(place) = part.open.iter().position(|open| open.state == State::UnderWay(correlation)) else { return Ok(()) };
        match code {
            ErrorCode::Ok => {
                let open = part.open.remove(place).expect("found above");
                let number = u64::from(part.epoch) << 32 | u64::from(open.sequence);
                let result = answer.expect("a good answer is a result");
                let checked = self.on_marked_acked(world, at, uid, number, &open, result);
                self.list[at].producer.spare.push(open.batch);
                checked
            }
            ErrorCode::OutOfSequence => {
                let is_oldest = part.open.iter().take(place).all(|open| open.state == State::NotStored);
                if is_oldest && part.durable && !self.history.decayed {
                    let (epoch, sequence) = (part.epoch, part.open[place].sequence);
                    return Err(format!(
                        "partition {uid}: batch {sequence} of epoch {epoch} of client {at}'s producer does not follow, and all before it was acknowledged as durable"
                    ));
                }
                part.open[place].state = if is_oldest { State::NotStored } else { State::ToSend };
                if !is_oldest {
                    producer.to_send.insert(uid);
                }
                self.maybe_raise_epoch(world, at, uid);
                Ok(())
            }
            ErrorCode::TopicDeleted | ErrorCode::UnknownPartition if !is_known => {
                producer.forget(uid);
                Ok(())
            }
            code if code.retriable() => {
                if code == ErrorCode::DiskFull {
                    world.totals.note(Counted::DiskFullRefusals);
                    world.refused_for_space = true;
                }
                part.open[place].state = State::ToSend;
                producer.to_send.insert(uid);
                Ok(())
            }
            code => Err(format!("a marked batch to partition {uid} (known: {is_known}): {code:?}")),
        }
    }

    fn on_marked_acked(&mut self, world: &mut World, at: usize, uid: u64, number: u64, open: &Open, result: &ProduceResult) -> Check {
        if result.partition_uid != uid {
            return Err(format!("produced to partition {uid}, acknowledged for {}", result.partition_uid));
        }
        if open.level < Level::LeaderDurable {
            return Ok(());
        }
        let end = result.base_offset + (open.ids.end - open.ids.start);
        self.check_durable(world, uid, end, result.durable_end, open.ids.end - open.ids.start)?;
        let producer = self.list[at].producer.id.expect("who sent a marked batch has an id");
        self.history.on_acked(PRODUCERS | producer, number, uid, result.base_offset, open.ids.clone(), true)
    }

    /// Once nothing of the old epoch can still be stored, all that is left is sent with the next.
    fn maybe_raise_epoch(&mut self, world: &mut World, at: usize, uid: u64) {
        let producer = &mut self.list[at].producer;
        let (Some(id), Some(part)) = (producer.id, producer.parts.get_mut(&uid)) else { return };
        if part.open.iter().any(|open| open.state != State::NotStored) {
            return;
        }
        world.totals.note(Counted::EpochsRaised);
        (part.epoch, part.next) = (part.epoch + 1, 0);
        for open in &mut part.open {
            (open.sequence, open.state, open.times) = (part.next, State::ToSend, 0);
            part.next += (open.ids.end - open.ids.start) as u32;
            mark_producer(&mut open.batch, ProducerMark { id, epoch: part.epoch, sequence: open.sequence });
        }
        producer.to_send.insert(uid);
    }

    /// After damage: whoever was known may be forgotten.
    pub(super) fn begin_producers_anew(&mut self) {
        self.list.iter_mut().for_each(|client| client.producer = Producer::default());
    }

    /// Sends everything that has no answer that counts; answers whether there is any.
    pub(super) fn settle_marked(&mut self, world: &mut World) -> bool {
        let mut any = false;
        for at in 0..self.list.len() {
            while self.list[at].conn.is_some() && self.send_again(world, at) {}
            any |= self.list[at].producer.parts.values().any(|part| !part.open.is_empty());
        }
        any
    }
}

/// In the history a producer's numbers stand beside those of connections.
const PRODUCERS: u64 = 1 << 63;
