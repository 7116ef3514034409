//! Clients of a cluster that produce idempotently: what has no answer that counts is sent again with the bytes it was first sent with, to whoever leads by
//! then, until it has one.
//!
//! All of it at level `durable`: so nothing that was acknowledged may ever be missing, and no answer may say that it is.
//!
//! Invariants: batches of a partition are sent in order; the next one after a failure only when nothing is under way any more.
//!
//! Not here: that each record is there once and in order (`truth.rs`).

use super::clients::{Asked, Clients};
use crate::constants::PRODUCER_BATCHES_KEPT;
use crate::sim::Check;
use crate::sim::totals::Event as Counted;
use crate::sim::world::World;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use tramline_wire::batch::ProducerMark;
use tramline_wire::error::ErrorCode;
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::produce::ProduceResult;
use tramline_wire::producer::{InitProducerReply, InitProducerRequest};

/// Batches of one partition without an answer that counts, at most: fewer than the broker remembers.
const OPEN_MAX: usize = 3;
/// For so long a stubborn client sends again to a node that does not lead: another one has led meanwhile, and with some luck this one leads again.
const STUBBORN_US: u64 = 8_000_000;

/// A batch without an answer that counts.
struct Open {
    sequence: u32,
    ids: Range<u64>,
    batch: Vec<u8>,
    is_under_way: bool,
    times: u32,
    /// Batches of its partition that had been acknowledged when it was made.
    acked_before: u64,
}

/// A producer's batches in one partition.
struct Part {
    /// Its number among all of the run.
    stream: u64,
    next: u32,
    /// In order of sequence.
    open: VecDeque<Open>,
    /// Something has no answer that counts and is not under way: all has to be sent again.
    has_failed: bool,
    /// Batches that were acknowledged.
    acked: u64,
    /// Where the last one was sent that was new, and when.
    sent: (usize, u64),
}

/// What an idempotent client knows of itself.
#[derive(Default)]
pub(super) struct Producer {
    is_stubborn: bool,
    id: Option<u64>,
    parts: BTreeMap<u64, Part>,
}

impl Producer {
    /// A batch has got no answer that counts.
    pub(super) fn is_open_again(&mut self, uid: u64, sequence: u32) {
        let Some(part) = self.parts.get_mut(&uid) else { return };
        if let Some(open) = part.open.iter_mut().find(|open| open.sequence == sequence) {
            open.is_under_way = false;
            part.has_failed = true;
        }
    }
}

impl Clients {
    /// One more batch, or what has to be sent again before.
    pub(super) fn produce_marked(&mut self, world: &mut World, at: usize, uid: u64) {
        let Some(id) = self.list[at].producer.id else { return self.ask_for_id(world, at) };
        if self.send_again(world, at, uid) {
            return;
        }
        if !self.list[at].producer.parts.contains_key(&uid) {
            self.streams += 1;
            let part = Part { stream: self.streams, next: 0, open: VecDeque::new(), has_failed: false, acked: 0, sent: (0, 0) };
            self.list[at].producer.parts.insert(uid, part);
        }
        let part = &self.list[at].producer.parts[&uid];
        if part.has_failed || part.open.len() >= OPEN_MAX {
            return;
        }
        let (stream, sequence, count) = (part.stream, part.next, 1 + self.dice.below(4));
        let mut batch = Vec::new();
        let mark = ProducerMark { id, epoch: 0, sequence };
        let ids = self.make_batch(world, uid, count, Some((stream, u64::from(sequence))), mark, &mut batch);
        let part = self.list[at].producer.parts.get_mut(&uid).expect("looked at above");
        part.next += count as u32;
        part.open.push_back(Open { sequence, ids, batch, is_under_way: false, times: 0, acked_before: part.acked });
        let slot = self.target(at, uid);
        self.list[at].producer.parts.get_mut(&uid).expect("looked at above").sent = (slot, world.now_us);
        self.send_open(world, at, slot, uid, sequence);
    }

    /// Sends all of a partition again where that is due. Answers whether it is, now or later.
    fn send_again(&mut self, world: &mut World, at: usize, uid: u64) -> bool {
        let Some(part) = self.list[at].producer.parts.get_mut(&uid).filter(|part| part.has_failed) else { return false };
        if part.open.iter().any(|open| open.is_under_way) {
            return true;
        }
        let sequences: Vec<u32> = part.open.iter().map(|open| open.sequence).collect();
        let (before, sent_us) = part.sent;
        let is_stubborn = self.list[at].producer.is_stubborn && !world.quiet && world.now_us < sent_us + STUBBORN_US;
        let slot = if is_stubborn { before } else { self.target(at, uid) };
        if self.can_send(world, at, slot) {
            self.list[at].producer.parts.get_mut(&uid).expect("looked at above").has_failed = false;
            sequences.into_iter().for_each(|sequence| self.send_open(world, at, slot, uid, sequence));
        } else {
            self.ask_metadata(world, at);
        }
        true
    }

    fn send_open(&mut self, world: &mut World, at: usize, slot: usize, uid: u64, sequence: u32) {
        let can_send = self.can_send(world, at, slot);
        let part = self.list[at].producer.parts.get_mut(&uid).expect("a partition with something to send");
        let Some(open) = part.open.iter_mut().find(|open| open.sequence == sequence) else { return };
        if !can_send {
            part.has_failed = true;
            return;
        }
        (open.is_under_way, open.times) = (true, open.times + 1);
        world.totals.add(Counted::MarkedAgain, u64::from(open.times > 1));
        let batch = open.batch.clone();
        self.send_batch(world, (at, slot), uid, Level::Durable, Asked::Marked { uid, sequence }, &batch);
    }

    fn ask_for_id(&mut self, world: &mut World, at: usize) {
        let is_asked = self.list[at].links.iter().flat_map(|link| link.pending()).any(|asked| matches!(asked, Asked::InitProducer));
        // The first shard of each node may have ids.
        let slot = self.dice.below(world.params.nodes as u64) as usize * usize::from(world.params.shards);
        if !is_asked && self.can_send(world, at, slot) {
            self.list[at].links[slot].send(world, Kind::InitProducer, Asked::InitProducer, |out| InitProducerRequest {}.encode(out));
        }
    }

    pub(super) fn on_init_producer(&mut self, world: &World, at: usize, reply: &InitProducerReply) -> Check {
        let is_taken = self.list.iter().any(|client| client.producer.id == Some(reply.producer_id));
        if reply.producer_id == 0 || is_taken {
            return Err(format!("client {at} is given the id {} of another producer", reply.producer_id));
        }
        let is_stubborn = self.stubborn.chance(world.params.stubborn_percent);
        self.list[at].producer = Producer { is_stubborn, id: Some(reply.producer_id), ..Producer::default() };
        Ok(())
    }

    /// A marked batch has an answer.
    pub(super) fn on_marked(&mut self, world: &mut World, at: usize, uid: u64, sequence: u32, result: &ProduceResult) -> Check {
        let part = self.list[at].producer.parts.get_mut(&uid).expect("who sent a batch has it");
        let Some(place) = part.open.iter().position(|open| open.sequence == sequence) else { return Ok(()) };
        part.open[place].is_under_way = false;
        match result.error {
            ErrorCode::Ok => {
                let open = part.open.remove(place).expect("found above");
                part.acked += 1;
                let end = result.base_offset + (open.ids.end - open.ids.start);
                if result.durable_end < end {
                    return Err(format!("partition {uid}: acknowledged as durable up to {end}, and durable is {}", result.durable_end));
                }
                self.truth.tell_end(uid, result.durable_end);
                world.totals.add(Counted::RecordsAcked, open.ids.end - open.ids.start);
                (result.base_offset..).zip(open.ids).try_for_each(|(offset, id)| self.truth.promise(uid, offset, id))
            }
            // Its answer was lost, and so many were acknowledged since that its place is not remembered: it is stored.
            ErrorCode::DuplicateTooOld if part.acked - part.open[place].acked_before >= PRODUCER_BATCHES_KEPT as u64 => {
                part.open.remove(place);
                Ok(())
            }
            ErrorCode::OutOfSequence if place == 0 => Err(format!(
                "partition {uid}: batch {sequence} of client {at}'s producer does not follow, and all before it was acknowledged"
            )),
            ErrorCode::OutOfSequence => {
                part.has_failed = true;
                Ok(())
            }
            code => {
                part.has_failed = true;
                self.on_batch_refused(world, at, uid, code)
            }
        }
    }

    /// Sends everything that has no answer that counts; whether there is none.
    pub(super) fn settle_marked(&mut self, world: &mut World) -> bool {
        let mut is_settled = true;
        for at in 0..self.list.len() {
            let open = self.list[at].producer.parts.iter().filter(|(_, part)| !part.open.is_empty()).map(|(uid, _)| *uid);
            for uid in open.collect::<Vec<_>>() {
                is_settled = false;
                self.send_again(world, at, uid);
            }
        }
        is_settled
    }
}
