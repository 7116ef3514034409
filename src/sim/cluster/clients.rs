//! Clients of a cluster: they know leaders by what metadata tell, ask anew when they are refused, and go on at another node.
//!
//! Each has a connection to each shard that it has talked to. A request whose connection ends has no known outcome; what carries a producer's mark is sent
//! again, to whoever leads next (`idempotent.rs`).
//!
//! Invariants: clients know nothing but what nodes tell them; what they are told goes to `Truth`.
//!
//! Not here: when they do something (`../cluster.rs`).

use super::idempotent::Producer;
use super::levels::Reached;
use super::operator::{Operator, fits_operator};
use super::truth::Truth;
use crate::sim::link::{Answer, Link, broken};
use crate::sim::node::ShardAt;
use crate::sim::totals::Event as Counted;
use crate::sim::world::World;
use crate::sim::{Check, Dice, Params, UTC_START_US};
use std::collections::BTreeMap;
use std::ops::Range;
use tramline_wire::batch::{BatchBuilder, Batches, Limits, NewRecord, ProducerMark};
use tramline_wire::error::ErrorCode;
use tramline_wire::fetch::{FetchEntry, FetchMode, FetchReply, FetchRequestWriter, FetchResult};
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::metadata::{MetadataReply, MetadataRequest};
use tramline_wire::prim::List;
use tramline_wire::produce::{ProduceEntry, ProduceReply, ProduceRequestWriter, ProduceResult};
use tramline_wire::producer::InitProducerReply;
use tramline_wire::topics::{CreateFlags, CreateTopicRequest};

/// Topics that a run creates.
const TOPICS_MAX: usize = 3;
/// Requests of one connection under way at most.
const WINDOW: usize = 8;
/// How long a level may take: then the outcome is unknown.
const TIMEOUT_MS: u32 = 3000;

/// A request, as its client remembers it.
#[derive(Debug)]
pub(super) enum Asked {
    Produce { uid: u64, ids: Range<u64>, level: Level, number: u64, asked_us: u64, lives: u64 },
    Marked { uid: u64, sequence: u32 },
    Fetch { uid: u64, offset: u64, floor: u64, asked_us: u64 },
    Metadata,
    InitProducer,
    Create { topic: usize },
    Describe,
    Alter,
}

/// What an answer says about the node that has given it, which only the run can judge.
pub(super) enum Claim {
    /// It took records of a partition in at a level below `durable`.
    Took { node: usize, uid: u64 },
    /// It told such a level.
    Reached(Reached),
    /// It told that something is damaged.
    Damaged { node: usize, uid: u64, asked_us: u64 },
    /// It told an end of a partition below what was known when it was asked, at this time.
    Behind { node: usize, uid: u64, asked_us: u64, what: String },
}

#[derive(Default)]
pub(super) struct Client {
    /// By node and shard.
    pub(super) links: Vec<Link<Asked>>,
    /// Who leads a partition, and in which term.
    leaders: BTreeMap<u64, (u64, ShardAt)>,
    cursors: BTreeMap<u64, u64>,
    pub(super) producer: Producer,
}

/// A topic: wanted until it is acknowledged.
struct Topic {
    name: String,
    is_live: bool,
    uids: Vec<u64>,
}

pub(super) struct Clients {
    pub(super) list: Vec<Client>,
    by_conn: BTreeMap<u64, (usize, usize)>,
    topics: Vec<Topic>,
    /// Partitions that metadata have told of.
    pub(super) uids: Vec<u64>,
    pub(super) truth: Truth,
    pub(super) dice: Dice,
    pub(super) scratch: Vec<u8>,
    pub(super) builder: BatchBuilder,
    batch: Vec<u8>,
    next_request: u64,
    /// Of records without a mark: the request acknowledged last as durable on a connection, and its offset.
    acked_last: BTreeMap<(u64, u64), (u64, u64)>,
    /// Partitions that have acknowledged at `durable` since it was last cleared.
    pub(super) acked_by: BTreeMap<u64, u64>,
    pub(super) claims: Vec<Claim>,
    /// What is being read at the end of a run.
    pub(super) reading: Option<Reading>,
    /// Streams of marked batches so far.
    pub(super) streams: u64,
    pub(super) operator: Operator,
    /// Who of the idempotent clients is stubborn.
    pub(super) stubborn: Dice,
    shards: usize,
}

/// A partition that is read from its beginning.
pub(super) struct Reading {
    pub(super) uid: u64,
    pub(super) found: BTreeMap<u64, u64>,
    pub(super) next: u64,
    pub(super) is_end: bool,
    pub(super) is_asked: bool,
}

impl Clients {
    pub(super) fn new(seed: u64, params: &Params) -> Clients {
        let links = params.nodes * usize::from(params.shards);
        let client = || Client { links: (0..links).map(|_| Link::default()).collect(), ..Client::default() };
        Clients {
            list: (0..params.clients).map(|_| client()).collect(),
            by_conn: BTreeMap::new(),
            topics: Vec::new(),
            uids: Vec::new(),
            truth: Truth::new(params.value_bytes_max),
            dice: Dice::stream(seed, "clients"),
            scratch: Vec::new(),
            builder: BatchBuilder::new(Limits::default()),
            batch: Vec::new(),
            next_request: 0,
            acked_last: BTreeMap::new(),
            acked_by: BTreeMap::new(),
            claims: Vec::new(),
            reading: None,
            streams: 0,
            operator: Operator::new(seed),
            stubborn: Dice::stream(seed, "who is stubborn"),
            shards: usize::from(params.shards),
        }
    }

    /// Whether every answer has come.
    pub(super) fn is_idle(&self) -> bool {
        self.list.iter().all(|client| client.links.iter().all(|link| !link.is_waiting()))
    }

    /// Requests without an answer, in words.
    pub(super) fn unanswered(&self) -> String {
        let open = self.list.iter().flat_map(|client| client.links.iter().flat_map(Link::pending));
        open.map(|asked| format!("{asked:?}")).collect::<Vec<_>>().join("; ")
    }

    pub(super) fn on_gone(&mut self, world: &mut World, conn: u64) {
        let Some((at, slot)) = self.by_conn.remove(&conn) else { return };
        let client = &mut self.list[at];
        let pending = client.links[slot].take_pending();
        client.links[slot].on_gone();
        world.totals.add(Counted::RequestsUnknown, pending.len() as u64);
        for asked in pending {
            match asked {
                Asked::Marked { uid, sequence } => client.producer.is_open_again(uid, sequence),
                Asked::Fetch { .. } => self.reading.iter_mut().for_each(|reading| reading.is_asked = false),
                _ => {}
            }
        }
    }

    // --- sending ----------------------------------------------------------------------------------------------------------------

    pub(super) fn slot(&self, at: ShardAt) -> usize {
        at.node * self.shards + at.shard
    }

    fn shard_at(&self, slot: usize) -> ShardAt {
        ShardAt { node: slot / self.shards, shard: slot % self.shards }
    }

    fn some_slot(&mut self) -> usize {
        self.dice.below(self.list[0].links.len() as u64) as usize
    }

    /// Whether a client can send to this shard now; it connects where it is not connected.
    pub(super) fn can_send(&mut self, world: &mut World, at: usize, slot: usize) -> bool {
        let shard_at = self.shard_at(slot);
        let link = &mut self.list[at].links[slot];
        if link.conn().is_none()
            && let Some(conn) = link.connect_to(world, shard_at)
        {
            self.by_conn.insert(conn, (at, slot));
        }
        let link = &self.list[at].links[slot];
        link.is_open() && link.pending().count() < WINDOW
    }

    /// Where a client sends what is for a partition: mostly to who it thinks leads.
    pub(super) fn target(&mut self, at: usize, uid: u64) -> usize {
        match self.list[at].leaders.get(&uid).copied() {
            Some((_, leader)) if self.dice.chance(92) => self.slot(leader),
            _ => self.some_slot(),
        }
    }

    /// One operation of a random client; `is_disk_bad`: the operator leaves groups of one replica where they are.
    pub(super) fn operate(&mut self, world: &mut World, is_disk_bad: bool) {
        let at = self.dice.below(self.list.len() as u64) as usize;
        world.totals.note(Counted::Operations);
        if self.is_operators_turn(world) {
            return self.operate_cluster(world, at, is_disk_bad);
        }
        if self.uids.is_empty() || self.dice.once_in(100) {
            return self.change_topics(world, at);
        }
        let uid = self.uids[self.dice.below(self.uids.len() as u64) as usize];
        let slot = self.target(at, uid);
        if !self.can_send(world, at, slot) {
            // Nobody is there: somebody else may know more.
            return self.ask_metadata(world, at);
        }
        match self.dice.below(100) {
            0..=29 => self.produce_marked(world, at, uid),
            30..=64 => {
                let levels =
                    [Level::Durable, Level::Durable, Level::Replicated, Level::LeaderDurable, Level::Leader, Level::Leader, Level::None];
                let level = levels[self.dice.below(levels.len() as u64) as usize];
                self.produce(world, at, slot, uid, level);
            }
            65..=94 => self.fetch(world, at, slot, uid),
            _ => self.ask_metadata(world, at),
        }
    }

    pub(super) fn produce(&mut self, world: &mut World, at: usize, slot: usize, uid: u64, level: Level) {
        let count = 1 + self.dice.below(5);
        let mut batch = std::mem::take(&mut self.batch);
        let ids = self.make_batch(world, uid, count, None, ProducerMark::default(), &mut batch);
        self.next_request += 1;
        let asked = Asked::Produce { uid, ids, level, number: self.next_request, asked_us: world.now_us, lives: world.lives() };
        self.send_batch(world, (at, slot), uid, level, asked, &batch);
        self.batch = batch;
    }

    /// New records; `of` is the stream of a producer, and the number of the first one in it.
    pub(super) fn make_batch(
        &mut self,
        world: &World,
        uid: u64,
        count: u64,
        of: Option<(u64, u64)>,
        mark: ProducerMark,
        batch: &mut Vec<u8>,
    ) -> Range<u64> {
        let mut first = 0;
        for number in 0..count {
            let id = self.truth.send(uid, of.map(|(stream, first)| (stream, first + number)), &mut self.scratch);
            first = if number == 0 { id } else { first };
            let timestamp_us = UTC_START_US + world.now_us as i64;
            self.builder.push(&NewRecord { value: Some(&self.scratch), timestamp_us, ..NewRecord::default() }).expect("small records");
        }
        batch.clear();
        self.builder.finish_plain(batch, mark);
        first..first + count
    }

    pub(super) fn send_batch(&mut self, world: &mut World, (at, slot): (usize, usize), uid: u64, level: Level, asked: Asked, batch: &[u8]) {
        let link = &mut self.list[at].links[slot];
        let meta = |out: &mut Vec<u8>| {
            let mut writer = ProduceRequestWriter::begin(out, level, TIMEOUT_MS);
            writer.push(out, &ProduceEntry { partition_uid: uid, batch_len: batch.len() as u32 });
            writer.finish(out);
        };
        // At level `none` nobody answers.
        match level {
            Level::None => link.send_unanswered(world, Kind::Produce, batch, meta),
            _ => link.send_with(world, Kind::Produce, asked, batch, meta),
        }
    }

    fn fetch(&mut self, world: &mut World, at: usize, slot: usize, uid: u64) {
        let cursor = self.list[at].cursors.get(&uid).copied().unwrap_or(0);
        // Now and then from somewhere before.
        let offset = if self.dice.chance(10) { self.dice.below(cursor + 1) } else { cursor };
        self.fetch_at(world, (at, slot), uid, offset, 16 << 10);
    }

    fn fetch_at(&mut self, world: &mut World, (at, slot): (usize, usize), uid: u64, offset: u64, max_bytes: u32) {
        let asked = Asked::Fetch { uid, offset, floor: self.truth.end(uid), asked_us: world.now_us };
        self.list[at].links[slot].send(world, Kind::Fetch, asked, |out| {
            let mut writer = FetchRequestWriter::begin(out, FetchMode::OneShot, 1, 0, max_bytes);
            writer.push(out, &FetchEntry { partition_uid: uid, offset, max_bytes });
            writer.finish(out);
        });
    }

    fn change_topics(&mut self, world: &mut World, at: usize) {
        let slot = self.some_slot();
        if !self.can_send(world, at, slot) {
            return;
        }
        let wanted = self.topics.iter().position(|topic| !topic.is_live);
        if wanted.is_none() && self.topics.len() >= TOPICS_MAX {
            return self.ask_metadata(world, at);
        }
        let topic = wanted.unwrap_or_else(|| {
            self.topics.push(Topic { name: format!("topic-{}", self.topics.len()), is_live: false, uids: Vec::new() });
            self.topics.len() - 1
        });
        let partitions = 1 + (topic as u32 * 2 + 3) % 5;
        let (name, flags) = (self.topics[topic].name.clone(), CreateFlags::IF_NOT_EXISTS);
        let request = CreateTopicRequest { name: &name, partitions, replication: 0, flags, settings: List::of(&[]) };
        self.list[at].links[slot].send(world, Kind::CreateTopic, Asked::Create { topic }, |out| request.encode(out));
    }

    /// Asks some node who leads what.
    pub(super) fn ask_metadata(&mut self, world: &mut World, at: usize) {
        let slot = self.some_slot();
        let is_asked = self.list[at].links[slot].pending().any(|asked| matches!(asked, Asked::Metadata));
        if !is_asked && self.can_send(world, at, slot) {
            let names: Vec<&str> = self.topics.iter().map(|topic| topic.name.as_str()).collect();
            let link = &mut self.list[at].links[slot];
            link.send(world, Kind::Metadata, Asked::Metadata, |out| MetadataRequest { topics: List::of(&names) }.encode(out));
        }
    }

    // --- receiving --------------------------------------------------------------------------------------------------------------

    pub(super) fn on_frame(&mut self, world: &mut World, conn: u64, bytes: &[u8]) -> Check {
        let Some((at, slot)) = self.by_conn.get(&conn).copied() else { return Ok(()) };
        let node = self.shard_at(slot).node;
        match self.list[at].links[slot].take(bytes)? {
            Answer::Nothing => Ok(()),
            Answer::Refused(asked, code, text) => self.on_refused(world, at, asked, code, text),
            Answer::Good(asked, meta, payload) => match asked {
                Asked::Produce { uid, ids, level, number, asked_us, lives } => {
                    let (told, result) = only_result(meta, uid)?;
                    if told < Level::Durable && result.error.is_ok() {
                        let offset = result.base_offset;
                        self.claims.push(Claim::Reached(Reached { node, uid, offset, asked: level, told, asked_us, lives }));
                    }
                    self.on_produced(world, (at, conn, node), (uid, ids, told, number), &result)
                }
                Asked::Marked { uid, sequence } => {
                    let (told, result) = only_result(meta, uid)?;
                    if told < Level::Durable && result.error.is_ok() {
                        return Err(format!("partition {uid}: durable was asked for, and {told} is told"));
                    }
                    self.on_marked(world, at, uid, sequence, &result)
                }
                Asked::Fetch { uid, offset, floor, asked_us } => {
                    let reply = FetchReply::decode(meta).map_err(|e| broken(&e))?;
                    let (entry, batches) = reply.parts(payload).map_err(|e| broken(&e))?.next().ok_or("a fetch reply without entry")?;
                    self.on_fetched(world, (at, node), (uid, offset, floor, asked_us), &entry, batches)
                }
                Asked::Metadata => {
                    let reply = MetadataReply::decode(meta).map_err(|e| broken(&e))?;
                    self.on_metadata(at, &reply)
                }
                Asked::InitProducer => {
                    let reply = InitProducerReply::decode(meta).map_err(|e| broken(&e))?;
                    self.on_init_producer(world, at, &reply)
                }
                Asked::Create { topic } => {
                    self.topics[topic].is_live = true;
                    Ok(())
                }
                Asked::Describe => self.on_described(meta),
                Asked::Alter => {
                    self.on_altered(world);
                    Ok(())
                }
            },
        }
    }

    fn on_refused(&mut self, world: &mut World, at: usize, asked: Asked, code: ErrorCode, text: &str) -> Check {
        world.say(|| format!("client {at}: {asked:?} is refused: {code:?} {text}"));
        if code == ErrorCode::DiskFull {
            world.on_disk_full_told()?;
        }
        if !(fits(code) || matches!(asked, Asked::Alter) && fits_operator(code)) {
            return Err(format!("{asked:?} is refused: {code:?} {text}"));
        }
        match asked {
            Asked::Marked { uid, sequence } => self.list[at].producer.is_open_again(uid, sequence),
            Asked::Fetch { .. } => self.reading.iter_mut().for_each(|reading| reading.is_asked = false),
            _ => {}
        }
        self.ask_metadata(world, at);
        Ok(())
    }

    fn on_produced(
        &mut self,
        world: &mut World,
        (at, conn, node): (usize, u64, usize),
        (uid, ids, told, number): (u64, Range<u64>, Level, u64),
        result: &ProduceResult,
    ) -> Check {
        if !result.error.is_ok() {
            return self.on_batch_refused(world, at, uid, result.error);
        }
        if told < Level::Durable {
            self.claims.push(Claim::Took { node, uid });
        }
        self.truth.tell_end(uid, result.durable_end);
        let (base, end) = (result.base_offset, result.base_offset + (ids.end - ids.start));
        if end > result.durable_end {
            return match told == Level::Durable {
                true => Err(format!("partition {uid}: acknowledged as durable up to {end}, and durable is {}", result.durable_end)),
                false => Ok(()),
            };
        }
        // Requests of one connection keep their order.
        let last = self.acked_last.entry((conn, uid)).or_insert((number, base));
        if (number > last.0 && base < last.1) || (number < last.0 && base > last.1) {
            return Err(format!("partition {uid}: request {number} is at {base}, and request {} of its connection at {}", last.0, last.1));
        }
        *last = (*last).max((number, base));
        world.totals.add(Counted::RecordsAcked, ids.end - ids.start);
        if told == Level::Durable {
            *self.acked_by.entry(uid).or_default() += 1;
        }
        (base..).zip(ids).try_for_each(|(offset, id)| self.truth.promise(uid, offset, id))
    }

    pub(super) fn on_batch_refused(&mut self, world: &mut World, at: usize, uid: u64, code: ErrorCode) -> Check {
        world.say(|| format!("client {at}: partition {uid} takes no batch: {code:?}"));
        if !fits(code) {
            return Err(format!("partition {uid} takes no batch: {code:?}"));
        }
        self.ask_metadata(world, at);
        Ok(())
    }

    fn on_fetched(
        &mut self,
        world: &mut World,
        (at, node): (usize, usize),
        (uid, offset, floor, asked_us): (u64, u64, u64, u64),
        entry: &FetchResult,
        batches: &[u8],
    ) -> Check {
        self.reading.iter_mut().for_each(|reading| reading.is_asked = false);
        let behind = |what: String| Claim::Behind { node, uid, asked_us, what };
        match entry.error {
            ErrorCode::Ok => {}
            ErrorCode::OffsetOutOfRange if offset <= floor => {
                self.claims.push(behind(format!("{offset} is out of range, and {floor} was committed")));
                return Ok(());
            }
            code if fits(code) || code == ErrorCode::Damaged => {
                if code == ErrorCode::Damaged {
                    world.totals.note(Counted::DamageTold);
                    self.claims.push(Claim::Damaged { node, uid, asked_us });
                }
                self.ask_metadata(world, at);
                return Ok(());
            }
            code => return Err(format!("partition {uid} cannot be read at {offset}: {code:?}")),
        }
        if entry.committed_end < floor {
            self.claims.push(behind(format!("it ends at {}, and {floor} was committed", entry.committed_end)));
        }
        let mut due = offset;
        for batch in Batches::new(batches) {
            let batch = batch.map_err(|e| broken(&e))?;
            for record in batch.records(batch.stored_values()) {
                let record = record.map_err(|e| broken(&e))?;
                if record.offset < offset {
                    continue;
                }
                if record.offset != due {
                    return Err(format!("partition {uid}, read at {offset}: {due} is due, and {} comes", record.offset));
                }
                due += 1;
                world.totals.note(Counted::RecordsRead);
                let id = self.truth.read(uid, record.offset, record.value.unwrap_or_default())?;
                if let Some(reading) = self.reading.as_mut().filter(|reading| reading.uid == uid) {
                    reading.found.insert(record.offset, id);
                }
            }
        }
        // Of where nothing comes the end that is told is a lower bound: who led before and hears nobody knows of no commit since then (docs/REPLICATION.md, 5.2).
        if due > offset && due > entry.committed_end {
            let (node, from) = (node + 1, entry.log_start);
            return Err(format!(
                "partition {uid} on node {node}: records {offset} to {due} are read, and {from} to {} is committed",
                entry.committed_end
            ));
        }
        self.truth.tell_end(uid, entry.committed_end);
        self.list[at].cursors.entry(uid).and_modify(|cursor| *cursor = due.max(*cursor)).or_insert(due);
        if let Some(reading) = self.reading.as_mut().filter(|reading| reading.uid == uid) {
            (reading.next, reading.is_end) = (due, due >= entry.committed_end);
        }
        Ok(())
    }

    fn on_metadata(&mut self, at: usize, reply: &MetadataReply<'_>) -> Check {
        for found in reply.topics.iter() {
            let Some(topic) = self.topics.iter_mut().find(|topic| topic.name == found.name) else { continue };
            // A node may not know it yet.
            if !found.error.is_ok() {
                continue;
            }
            let uids: Vec<u64> = found.partitions.iter().map(|p| p.uid).collect();
            if topic.uids.is_empty() {
                topic.uids = uids;
                self.uids.extend(&topic.uids);
            } else if topic.uids != uids {
                return Err(format!("topic {} had partitions {:?} and has {uids:?}", found.name, topic.uids));
            }
            for partition in found.partitions.iter() {
                let leader = ShardAt { node: partition.leader_node as usize - 1, shard: usize::from(partition.leader_shard) };
                let known = self.list[at].leaders.entry(partition.uid).or_insert((partition.term, leader));
                if partition.term >= known.0 {
                    *known = (partition.term, leader);
                }
            }
        }
        Ok(())
    }

    // --- for the end of a run ---------------------------------------------------------------------------------------------------

    /// Whether every topic that was asked for is acknowledged, and every partition known; else they are asked for.
    pub(super) fn settle_topics(&mut self, world: &mut World) -> bool {
        let is_settled = self.topics.iter().all(|topic| topic.is_live && !topic.uids.is_empty());
        if !is_settled {
            self.change_topics(world, 0);
            self.ask_metadata(world, 0);
        }
        is_settled
    }

    /// One record at `durable` for each partition that has not acknowledged one since `acked_by` was cleared; whether there is none.
    pub(super) fn settle_partitions(&mut self, world: &mut World) -> bool {
        let left: Vec<u64> = self.uids.iter().copied().filter(|uid| !self.acked_by.contains_key(uid)).collect();
        let clients = self.list.len();
        for (at, uid) in left.iter().enumerate().map(|(number, uid)| (number % clients, *uid)) {
            let slot = self.target(at, uid);
            if self.can_send(world, at, slot) {
                self.produce(world, at, slot, uid, Level::Durable);
            }
            self.ask_metadata(world, at);
        }
        left.is_empty()
    }

    /// Goes on reading the partition that is being read. The first client does it.
    pub(super) fn read_on(&mut self, world: &mut World) {
        let Some((uid, next)) = self.reading.as_ref().filter(|reading| !reading.is_asked && !reading.is_end).map(|r| (r.uid, r.next))
        else {
            return;
        };
        let slot = self.target(0, uid);
        if self.can_send(world, 0, slot) {
            self.fetch_at(world, (0, slot), uid, next, 1 << 20);
            self.reading.iter_mut().for_each(|reading| reading.is_asked = true);
        }
    }
}

/// The level that is told, and the result of the only batch.
fn only_result(meta: &[u8], uid: u64) -> Result<(Level, ProduceResult), String> {
    let reply = ProduceReply::decode(meta).map_err(|e| broken(&e))?;
    let result = reply.results.iter().next().ok_or("a produce reply without result")?;
    match result.partition_uid == uid {
        true => Ok((reply.level_reached, result)),
        false => Err(format!("produced to partition {uid}, acknowledged for {}", result.partition_uid)),
    }
}

/// Whether a client of a cluster may be told this: another time, or somewhere else. A node that has just come may not know a topic yet.
fn fits(code: ErrorCode) -> bool {
    code.retriable()
        || matches!(code, ErrorCode::UnknownPartition | ErrorCode::UnknownTopic | ErrorCode::LeadershipLost | ErrorCode::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutants::Mutants;
    use crate::sim::Profile;
    use tramline_wire::fetch::FetchFlags;

    fn answer(payload_bytes: u32, committed_end: u64) -> FetchResult {
        FetchResult {
            partition_uid: 7,
            error: ErrorCode::Ok,
            flags: FetchFlags::default(),
            payload_bytes,
            log_start: 0,
            committed_end,
            last_stable: committed_end,
            next_offset: 0,
        }
    }

    #[test]
    fn who_has_nothing_new_may_know_less_than_the_reader_and_who_sends_a_record_knows_that_it_is_committed() {
        let params = Params::draw(1, Profile::Cluster);
        let (mut world, mut clients) = (World::new(1, params.clone(), Mutants::default(), false), Clients::new(1, &params));
        let mut batch = Vec::new();
        clients.make_batch(&world, 7, 1, None, ProducerMark::default(), &mut batch);
        // The reader is at 4, which it got from another node; this one, which led before, has committed nothing.
        assert_eq!(clients.on_fetched(&mut world, (0, 0), (7, 4, 5, 0), &answer(0, 0), &[]), Ok(()));
        assert_eq!(clients.claims.len(), 1, "whether this node leads still is for the run to judge");
        assert_eq!(clients.truth.end(7), 0);
        let shown =
            |clients: &mut Clients, world: &mut World, end| clients.on_fetched(world, (0, 0), (7, 0, 0, 0), &answer(1, end), &batch);
        assert_eq!(shown(&mut clients, &mut world, 1), Ok(()));
        assert!(shown(&mut clients, &mut world, 0).is_err(), "a record that is not committed");
    }
}
