//! Clients that speak the wire: produce at all levels, fetch, seek, trim, create and delete topics. What they are told goes to the history.
//!
//! A client has one connection, to any shard, and a few requests under way on it. A request whose connection ends has no known outcome: what it carried
//! may be there or not, and is not sent again unless it carries a producer's mark (`idempotent.rs`). What was refused for want of space is not there: some of it is sent again.
//!
//! Not here: faults and phases (`run.rs`).

use super::history::{Ends, History, value_of};
use super::idempotent::Producer;
use super::link::broken;
use super::node::ShardAt;
use super::streams::Stream;
use super::totals::Event as Counted;
use super::world::{CLIENTS_NODE, World};
use super::{Check, Dice, Params, UTC_START_US};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use tramline_wire::batch::{BatchBuilder, Limits, NewRecord, ProducerMark};
use tramline_wire::error::{ErrorBody, ErrorCode};
use tramline_wire::fetch::FetchReply;
use tramline_wire::frame::{self, FLAG_ERROR, Frame, Need, begin_request, finish_frame};
use tramline_wire::hello::HelloRequest;
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::metadata::{MetadataReply, MetadataRequest};
use tramline_wire::offsets::{ListOffsetsReply, ListOffsetsRequest, OffsetQuery};
use tramline_wire::prim::List;
use tramline_wire::produce::{ProduceEntry, ProduceReply, ProduceRequestWriter};
use tramline_wire::producer::InitProducerReply;
use tramline_wire::topics::{CreateFlags, CreateTopicRequest, DeleteTopicRequest, Setting};
use tramline_wire::trim::{TrimAnswer, TrimEntry, TrimPartitionsReply, TrimPartitionsRequest};

/// Topics that live at the same time at most.
const TOPICS_MAX: usize = 5;
/// Refused requests that are remembered at most.
const REFUSED_MAX: usize = 64;
/// Requests of one client under way at most.
const WINDOW: usize = 8;

#[derive(Debug)]
pub(super) enum Pending {
    Hello,
    Produce {
        uid: u64,
        ids: Range<u64>,
        level: Level,
    },
    /// A batch of an idempotent producer.
    Marked {
        uid: u64,
    },
    InitProducer,
    Fetch {
        uid: u64,
        offset: u64,
        floor: Ends,
    },
    Offsets {
        uid: u64,
    },
    Trim {
        uid: u64,
        before: u64,
    },
    Create {
        topic: usize,
    },
    Delete {
        topic: usize,
    },
    Metadata,
    Cancel,
}

#[derive(Default)]
pub(super) struct Client {
    pub(super) conn: Option<u64>,
    /// Requests are numbered per client, not per connection.
    pub(super) sequence: u64,
    pub(super) pending: BTreeMap<u64, Pending>,
    pub(super) cursors: BTreeMap<u64, u64>,
    pub(super) hello_done: bool,
    /// Streams that are open, by the number of their request.
    pub(super) streams: BTreeMap<u64, Stream>,
    pub(super) producer: Producer,
    /// Where streams were that have ended: partition and offset. They are opened again.
    pub(super) to_resume: Vec<(u64, u64)>,
}

/// How it stands with something that is created and deleted by request: a topic, a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Wanted,
    Creating,
    Live,
    Deleting,
    Gone,
}

struct Topic {
    name: String,
    shows_early: bool,
    state: State,
    uids: Vec<u64>,
}

/// All clients, and what they know.
pub(super) struct Clients {
    pub(super) list: Vec<Client>,
    by_conn: BTreeMap<u64, usize>,
    topics: Vec<Topic>,
    /// Partitions of live topics.
    pub(super) uids: Vec<u64>,
    pub(super) history: History,
    pub(super) next_record: u64,
    /// Ids that were given to producers.
    pub(super) producer_ids: BTreeSet<u64>,
    /// Records that were refused for want of space: partition and numbers. Some are sent again.
    refused: Vec<(u64, Range<u64>)>,
    pub(super) dice: Dice,
    pub(super) scratch: Vec<u8>,
    pub(super) builder: BatchBuilder,
    batch: Vec<u8>,
    /// Produce requests answered at `durable` since it was last set to 0, for liveness.
    pub(super) durable_acks: u64,
}

impl Clients {
    pub(super) fn new(seed: u64, params: &Params) -> Clients {
        let mut history = History::default();
        history.value_bytes_max = params.value_bytes_max;
        history.retains = params.retention_bytes.is_some();
        Clients {
            list: (0..params.clients).map(|_| Client::default()).collect(),
            by_conn: BTreeMap::new(),
            topics: Vec::new(),
            uids: Vec::new(),
            history,
            next_record: 1,
            producer_ids: BTreeSet::new(),
            refused: Vec::new(),
            dice: Dice::stream(seed, "clients"),
            scratch: Vec::new(),
            builder: BatchBuilder::new(Limits::default()),
            batch: Vec::new(),
            durable_acks: 0,
        }
    }

    /// Whether every answer has come.
    pub(super) fn is_idle(&self) -> bool {
        self.list.iter().all(|client| client.pending.is_empty())
    }

    /// Requests without an answer, in words.
    pub(super) fn unanswered(&self) -> String {
        let open = |(at, client): (usize, &Client)| {
            let list: Vec<String> = client.pending.iter().map(|(number, pending)| format!("{number} {pending:?}")).collect();
            (!list.is_empty()).then(|| format!("client {at} on connection {:?}: {}", client.conn, list.join(", ")))
        };
        self.list.iter().enumerate().filter_map(open).collect::<Vec<_>>().join("; ")
    }

    /// Partitions of topics that are there.
    pub(super) fn partitions(&self) -> Vec<u64> {
        self.uids.clone()
    }

    /// Topics that are there, with their partitions.
    pub(super) fn live_topics(&self) -> impl Iterator<Item = (&str, &[u64])> {
        let live = self.topics.iter().filter(|topic| topic.state == State::Live);
        live.map(|topic| (topic.name.as_str(), topic.uids.as_slice()))
    }

    pub(super) fn on_gone(&mut self, world: &mut World, conn: u64) {
        let Some(at) = self.by_conn.remove(&conn) else { return };
        let client = &mut self.list[at];
        (client.conn, client.hello_done) = (None, false);
        world.totals.add(Counted::RequestsUnknown, client.pending.len() as u64);
        for pending in std::mem::take(&mut client.pending).into_values() {
            // What became of it is asked again.
            match pending {
                Pending::Create { topic } => self.topics[topic].state = State::Wanted,
                Pending::Delete { topic } => self.topics[topic].state = State::Deleting,
                _ => {}
            }
        }
        self.list[at].producer.on_gone();
        self.end_streams(at);
        self.history.on_disconnected(conn);
    }

    // --- sending ----------------------------------------------------------------------------------------------------------------

    /// One operation of a random client.
    pub(super) fn operate(&mut self, world: &mut World) {
        let at = self.dice.below(self.list.len() as u64) as usize;
        if self.list[at].conn.is_none() {
            self.connect(world, at);
            return;
        }
        if !self.list[at].hello_done || self.list[at].pending.len() >= WINDOW {
            return;
        }
        world.totals.note(Counted::Operations);
        if self.uids.is_empty() || self.dice.once_in(150) {
            return self.change_topics(world, at);
        }
        let uid = self.uids[self.dice.below(self.uids.len() as u64) as usize];
        match self.dice.below(100) {
            0..=19 => self.produce_marked(world, at, uid),
            20..=64 => {
                let level = [Level::Durable, Level::Durable, Level::LeaderDurable, Level::Leader, Level::None][self.dice.below(5) as usize];
                if self.refused.is_empty() || self.dice.chance(50) {
                    return self.produce(world, at, uid, level);
                }
                let (uid, ids) = self.refused.swap_remove(0);
                if self.uids.contains(&uid) {
                    world.totals.note(Counted::SentAgain);
                    self.send_records(world, at, uid, level, ids);
                }
            }
            65..=89 => self.fetch(world, at, uid),
            90..=94 => self.stream(world, at, uid),
            95..=97 => {
                let query = OffsetQuery { partition_uid: uid, at: [-2, -1, UTC_START_US + 30_000_000][self.dice.below(3) as usize] };
                self.send(world, at, Kind::ListOffsets, &[], Pending::Offsets { uid }, |out| {
                    ListOffsetsRequest { entries: List::of(&[query]) }.encode(out)
                });
            }
            98 => self.trim(world, at, uid),
            _ => self.ask_metadata(world, at),
        }
    }

    /// Mostly a little, so that most of what is there goes by retention or stays; now and then all of it, and once in a while too much.
    fn trim(&mut self, world: &mut World, at: usize, uid: u64) {
        let Ends { start, committed, .. } = self.history.ends(uid);
        let there = committed.saturating_sub(start);
        let before = match self.dice.below(40) {
            0 => committed + (1 << 40),
            1 => committed,
            _ => start + self.dice.below(there / 16 + 1),
        };
        self.history.on_trim_sent(uid, before);
        self.send(world, at, Kind::TrimPartitions, &[], Pending::Trim { uid, before }, |out| {
            TrimPartitionsRequest { entries: List::of(&[TrimEntry { partition_uid: uid, before }]) }.encode(out)
        });
    }

    fn connect(&mut self, world: &mut World, at: usize) {
        let shard = self.dice.below(u64::from(world.params.shards)) as usize;
        let Some(conn) = world.connect(ShardAt { node: CLIENTS_NODE, shard }) else { return };
        self.list[at].conn = Some(conn);
        self.by_conn.insert(conn, at);
        let hello = HelloRequest { protocol_min: 1, protocol_max: 1, client_name: "sim", client_version: "", mechanism: "", auth: b"" };
        self.send(world, at, Kind::Hello, &[], Pending::Hello, |out| hello.encode(out));
    }

    /// Every client that has none gets a connection.
    pub(super) fn connect_all(&mut self, world: &mut World) {
        for at in 0..self.list.len() {
            if self.list[at].conn.is_none() {
                self.connect(world, at);
            }
        }
    }

    pub(super) fn send(
        &mut self,
        world: &mut World,
        at: usize,
        kind: Kind,
        payload: &[u8],
        pending: Pending,
        meta: impl FnOnce(&mut Vec<u8>),
    ) {
        // At level `none` nobody answers.
        let is_answered = !matches!(pending, Pending::Produce { level: Level::None, .. });
        if let Some(sequence) = self.send_unanswered(world, at, kind, payload, meta)
            && is_answered
        {
            self.list[at].pending.insert(sequence, pending);
        }
    }

    /// Sends, and answers the request's number; `None` without a connection.
    pub(super) fn send_unanswered(
        &mut self,
        world: &mut World,
        at: usize,
        kind: Kind,
        payload: &[u8],
        meta: impl FnOnce(&mut Vec<u8>),
    ) -> Option<u64> {
        let client = &mut self.list[at];
        let conn = client.conn?;
        client.sequence += 1;
        let mut bytes = world.buffer();
        let start = begin_request(&mut bytes, kind, client.sequence);
        meta(&mut bytes);
        finish_frame(&mut bytes, start, payload.len()).expect("a small frame");
        bytes.extend_from_slice(payload);
        world.send(conn, bytes);
        Some(client.sequence)
    }

    fn produce(&mut self, world: &mut World, at: usize, uid: u64, level: Level) {
        let count = 1 + self.dice.below(6);
        let ids = self.next_record..self.next_record + count;
        self.next_record += count;
        ids.clone().for_each(|id| self.history.on_sent(uid, id));
        self.send_records(world, at, uid, level, ids);
    }

    fn send_records(&mut self, world: &mut World, at: usize, uid: u64, level: Level, ids: Range<u64>) {
        for id in ids.clone() {
            value_of(id, self.history.value_bytes_max, &mut self.scratch);
            let record = NewRecord { value: Some(&self.scratch), timestamp_us: UTC_START_US + world.now_us as i64, ..NewRecord::default() };
            self.builder.push(&record).expect("small records");
        }
        let mut batch = std::mem::take(&mut self.batch);
        batch.clear();
        self.builder.finish_plain(&mut batch, ProducerMark::default());
        self.send(world, at, Kind::Produce, &batch, Pending::Produce { uid, ids, level }, |out| {
            let mut writer = ProduceRequestWriter::begin(out, level, 0);
            writer.push(out, &ProduceEntry { partition_uid: uid, batch_len: batch.len() as u32 });
            writer.finish(out);
        });
        self.batch = batch;
    }

    /// Creates what is missing, deletes now and then, or asks again for what was left open.
    fn change_topics(&mut self, world: &mut World, at: usize) {
        if let Some(topic) = self.topics.iter().position(|t| t.state == State::Deleting) {
            return self.delete(world, at, topic);
        }
        if let Some(topic) = self.topics.iter().position(|t| t.state == State::Wanted) {
            return self.create(world, at, topic);
        }
        let live: Vec<usize> = (0..self.topics.len()).filter(|t| self.topics[*t].state == State::Live).collect();
        // The first topic stays for the whole run.
        if live.len() >= TOPICS_MAX || live.len() > 2 && self.dice.chance(30) {
            let topic = live[1 + self.dice.below(live.len() as u64 - 1) as usize];
            return self.delete(world, at, topic);
        }
        let number = self.topics.len();
        let shows_early = number > 0 && self.dice.chance(20);
        self.topics.push(Topic { name: format!("topic-{number}"), shows_early, state: State::Wanted, uids: Vec::new() });
        self.create(world, at, number);
    }

    fn create(&mut self, world: &mut World, at: usize, number: usize) {
        let retention = world.params.retention_bytes.map_or("-1".to_owned(), |bytes| bytes.to_string());
        let visible = if self.topics[number].shows_early { "leader" } else { "replicated" };
        let settings = [
            Setting { key: "retention.bytes", value: &retention },
            Setting { key: "retention.ms", value: "-1" },
            Setting { key: "visible.at", value: visible },
        ];
        let name = self.topics[number].name.clone();
        let partitions = 1 + (number as u32 * 7) % 4;
        world.say(|| format!("client {at} creates {name}"));
        self.topics[number].state = State::Creating;
        let request = CreateTopicRequest {
            name: &name,
            partitions,
            replication: 0,
            flags: CreateFlags::IF_NOT_EXISTS,
            settings: List::of(&settings),
        };
        self.send(world, at, Kind::CreateTopic, &[], Pending::Create { topic: number }, |out| request.encode(out));
    }

    fn delete(&mut self, world: &mut World, at: usize, topic: usize) {
        let name = self.topics[topic].name.clone();
        world.say(|| format!("client {at} deletes {name}"));
        // From here on nobody knows what is there.
        self.topics[topic].state = State::Deleting;
        let uids = std::mem::take(&mut self.topics[topic].uids);
        uids.iter().for_each(|uid| self.history.forget_partition(*uid));
        self.uids.retain(|uid| !uids.contains(uid));
        self.send(world, at, Kind::DeleteTopic, &[], Pending::Delete { topic }, |out| DeleteTopicRequest { name: &name }.encode(out));
    }

    fn ask_metadata(&mut self, world: &mut World, at: usize) {
        let names: Vec<String> = self.topics.iter().filter(|t| t.state == State::Live).map(|t| t.name.clone()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.send(world, at, Kind::Metadata, &[], Pending::Metadata, |out| MetadataRequest { topics: List::of(&names) }.encode(out));
    }

    // --- receiving --------------------------------------------------------------------------------------------------------------

    pub(super) fn on_frame(&mut self, world: &mut World, conn: u64, bytes: &[u8]) -> Check {
        let Some(at) = self.by_conn.get(&conn).copied() else { return Ok(()) };
        let Ok(Need::Whole(Frame { header, meta, payload }, len)) = frame::peek(bytes, &frame::Limits::PROTOCOL) else {
            return Err("a frame that is none came from the node".to_owned());
        };
        if len != bytes.len() {
            return Err("a frame was followed by something".to_owned());
        }
        if header.correlation == 0 {
            return Ok(());
        }
        if self.list[at].streams.contains_key(&header.correlation) {
            return self.on_streamed(world, at, &Frame { header, meta, payload });
        }
        let Some(pending) = self.list[at].pending.remove(&header.correlation) else {
            return Err(format!("an answer to request {} came twice, or to none", header.correlation));
        };
        if header.flags & FLAG_ERROR != 0 {
            let error = ErrorBody::decode(meta).map_err(|e| format!("an unreadable error: {e}"))?;
            let code = error.code().ok_or_else(|| "an error without a known code".to_owned())?;
            world.say(|| format!("refused: {code:?}: {}", error.message));
            if let Pending::Marked { uid } = pending {
                return self.on_marked(world, at, header.correlation, uid, Err(code));
            }
            return self.on_refused(world, at, pending, code);
        }
        match pending {
            Pending::Hello => self.list[at].hello_done = true,
            Pending::Produce { uid, ids, level } => {
                let reply = ProduceReply::decode(meta).map_err(|e| broken(&e))?;
                let result = reply.results.iter().next().ok_or("a produce reply without result")?;
                return self.on_produced(world, conn, header.correlation, (uid, ids, level), &result);
            }
            Pending::Marked { uid } => {
                let reply = ProduceReply::decode(meta).map_err(|e| broken(&e))?;
                let result = reply.results.iter().next().ok_or("a produce reply without result")?;
                return self.on_marked(world, at, header.correlation, uid, Ok(&result));
            }
            Pending::InitProducer => {
                let reply = InitProducerReply::decode(meta).map_err(|e| broken(&e))?;
                return self.on_init_producer(at, &reply);
            }
            Pending::Fetch { uid, offset, floor } => {
                let reply = FetchReply::decode(meta).map_err(|e| broken(&e))?;
                let (entry, batches) = reply.parts(payload).map_err(|e| broken(&e))?.next().ok_or("a fetch reply without entry")?;
                return self.on_fetched(world, at, (uid, offset, floor), &entry, batches).map(drop);
            }
            Pending::Offsets { uid } => {
                let reply = ListOffsetsReply::decode(meta).map_err(|e| broken(&e))?;
                let answer = reply.entries.iter().next().ok_or("a list-offsets reply without answer")?;
                if answer.partition_uid != uid {
                    return Err(format!("asked for partition {uid}, told of {}", answer.partition_uid));
                }
            }
            Pending::Trim { uid, before } => {
                let reply = TrimPartitionsReply::decode(meta).map_err(|e| broken(&e))?;
                let answer = reply.entries.iter().next().ok_or("a trim reply without answer")?;
                return self.on_trimmed(world, uid, before, &answer);
            }
            Pending::Create { topic } => {
                world.say(|| format!("client {at}: {} is created", self.topics[topic].name));
                self.topics[topic].state = State::Live;
                self.ask_metadata(world, at);
            }
            Pending::Delete { topic } => {
                world.say(|| format!("client {at}: {} is deleted", self.topics[topic].name));
                self.topics[topic].state = State::Gone;
                world.totals.note(Counted::TopicsDeleted);
            }
            Pending::Cancel => {}
            Pending::Metadata => {
                let reply = MetadataReply::decode(meta).map_err(|e| broken(&e))?;
                self.on_metadata(world, &reply)?;
            }
        }
        Ok(())
    }

    fn on_metadata(&mut self, world: &World, reply: &MetadataReply<'_>) -> Check {
        for found in reply.topics.iter() {
            let Some(topic) = self.topics.iter_mut().find(|t| t.name == found.name && t.state == State::Live) else { continue };
            if found.error == ErrorCode::UnknownTopic && world.control_lost {
                topic.state = State::Gone;
                let uids = std::mem::take(&mut topic.uids);
                uids.iter().for_each(|uid| self.history.forget_partition(*uid));
                self.uids.retain(|uid| !uids.contains(uid));
                continue;
            }
            if found.error != ErrorCode::Ok {
                return Err(format!("topic {} was created and is {:?}", found.name, found.error));
            }
            let uids: Vec<u64> = found.partitions.iter().map(|p| p.uid).collect();
            if !topic.uids.is_empty() && topic.uids != uids {
                return Err(format!("topic {} had partitions {:?} and has {uids:?}", found.name, topic.uids));
            }
            if topic.uids.is_empty() {
                uids.iter().for_each(|uid| self.history.add_partition(*uid, topic.shows_early));
                self.uids.extend(&uids);
                topic.uids = uids;
            }
        }
        Ok(())
    }

    /// After a block of the metadata was lost a partition may be unknown to the node: then nobody knows it any more.
    pub(super) fn forget_if_lost(&mut self, world: &World, uid: u64, code: ErrorCode) {
        if code == ErrorCode::UnknownPartition && world.control_lost {
            self.uids.retain(|known| *known != uid);
            self.topics.iter_mut().for_each(|topic| topic.uids.retain(|known| *known != uid));
            self.history.forget_partition(uid);
        }
    }

    fn on_refused(&mut self, world: &mut World, at: usize, pending: Pending, code: ErrorCode) -> Check {
        if let Pending::Produce { uid, .. } | Pending::Fetch { uid, .. } | Pending::Offsets { uid } | Pending::Trim { uid, .. } = &pending {
            self.forget_if_lost(world, *uid, code);
        }
        match (pending, code) {
            (Pending::Delete { topic }, ErrorCode::UnknownTopic) => self.topics[topic].state = State::Gone,
            (Pending::Create { topic }, code) if code.retriable() => self.topics[topic].state = State::Wanted,
            (Pending::Produce { uid, ids, .. }, ErrorCode::DiskFull) => self.on_disk_full(world, uid, ids),
            (_, code) if code.retriable() => {}
            // A request may overtake the deletion of its topic, and a failed shard says so.
            (Pending::Produce { uid, .. } | Pending::Fetch { uid, .. } | Pending::Offsets { uid } | Pending::Trim { uid, .. }, code) => {
                let known = self.uids.contains(&uid);
                let fits = matches!(code, ErrorCode::TopicDeleted | ErrorCode::UnknownPartition) && !known;
                if !fits && code != ErrorCode::StorageFailed {
                    return Err(format!("partition {uid} (known: {known}): {code:?}"));
                }
            }
            // It had ended by itself.
            (_, ErrorCode::StorageFailed) | (Pending::Cancel, ErrorCode::UnknownStream) => {}
            (_, code) => return Err(format!("client {at}: an administrative request is refused: {code:?}")),
        }
        Ok(())
    }

    fn on_trimmed(&mut self, world: &mut World, uid: u64, before: u64, answer: &TrimAnswer) -> Check {
        if answer.partition_uid != uid {
            return Err(format!("trimmed partition {uid}, told of {}", answer.partition_uid));
        }
        match answer.error {
            ErrorCode::Ok if answer.log_start < before => {
                Err(format!("partition {uid}: trimmed to {before}, and begins at {}", answer.log_start))
            }
            ErrorCode::Ok => {
                world.totals.note(Counted::Trims);
                self.history.on_trimmed(uid, before);
                Ok(())
            }
            ErrorCode::OffsetOutOfRange => self.history.on_trim_refused(uid, before, answer.committed_end),
            ErrorCode::TopicDeleted if !self.uids.contains(&uid) => Ok(()),
            code if code.retriable() => Ok(()),
            code => Err(format!("trim of partition {uid} to {before}: {code:?}")),
        }
    }

    /// A refusal is certain: none of the records was taken, and they may be sent again.
    fn on_disk_full(&mut self, world: &mut World, uid: u64, ids: Range<u64>) {
        world.totals.note(Counted::DiskFullRefusals);
        world.refused_for_space = true;
        if self.refused.len() < REFUSED_MAX {
            self.refused.push((uid, ids));
        }
    }

    fn on_produced(
        &mut self,
        world: &mut World,
        conn: u64,
        sequence: u64,
        (uid, ids, level): (u64, Range<u64>, Level),
        result: &tramline_wire::produce::ProduceResult,
    ) -> Check {
        if result.partition_uid != uid {
            return Err(format!("produced to partition {uid}, acknowledged for {}", result.partition_uid));
        }
        if result.error == ErrorCode::DiskFull {
            self.on_disk_full(world, uid, ids);
            return Ok(());
        }
        if result.error != ErrorCode::Ok {
            world.say(|| format!("partition {uid} takes no batch: {:?}", result.error));
            self.forget_if_lost(world, uid, result.error);
            let known = self.uids.contains(&uid);
            let gone = matches!(result.error, ErrorCode::TopicDeleted | ErrorCode::UnknownPartition) && !known;
            return match result.error.retriable() || gone || result.error == ErrorCode::StorageFailed {
                true => Ok(()),
                false => Err(format!("produce to partition {uid} (known: {known}): {:?}", result.error)),
            };
        }
        let durable = level >= Level::LeaderDurable;
        let end = result.base_offset + (ids.end - ids.start);
        if durable {
            self.check_durable(world, uid, end, result.durable_end, ids.end - ids.start)?;
            self.durable_acks += 1;
        }
        self.history.on_acked(conn, sequence, uid, result.base_offset, ids, durable)
    }

    /// Records up to `end` are acknowledged as durable, and the node says that `durable_end` is.
    pub(super) fn check_durable(&mut self, world: &mut World, uid: u64, end: u64, durable_end: u64, count: u64) -> Check {
        // Of a topic that was deleted meanwhile nobody knows the end any more.
        if durable_end < end && self.uids.contains(&uid) {
            return Err(format!("partition {uid}: acknowledged as durable up to {end}, and durable is {durable_end}"));
        }
        world.totals.add(Counted::RecordsAcked, count);
        if std::mem::take(&mut world.refused_for_space) && !world.quiet {
            world.totals.note(Counted::SpaceCameBack);
        }
        Ok(())
    }

    // --- for the end of a run ---------------------------------------------------------------------------------------------------

    /// One produce at `durable` to each partition; answers how many.
    pub(super) fn produce_to_all(&mut self, world: &mut World) -> u64 {
        let uids = self.uids.clone();
        for (number, uid) in uids.iter().enumerate() {
            let at = number % self.list.len();
            self.produce(world, at, *uid, Level::Durable);
        }
        uids.len() as u64
    }
}
