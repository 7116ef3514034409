//! A broker in memory that speaks the wire, for tests only: topics, logs, streams with credit, and scripted refusals.
//!
//! It takes bytes and gives bytes ([`FakeBroker::receive`]); `fake::tcp` puts it behind real sockets for the tests of the
//! facades. It is strict: what a broker would refuse (a batch that does not validate, a frame out of protocol) fails the test.

mod batches;
pub(crate) mod groups;
pub(crate) mod marks;
pub(crate) mod nodes;
pub(crate) mod queues;
mod script;
pub(crate) mod steps;
mod streams;
pub(crate) mod tcp;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tramline_wire::batch::{self, Batches, LeaderStamp, Limits as BatchLimits};
use tramline_wire::error::ErrorCode;
use tramline_wire::fetch::{FetchCancelReply, FetchCancelRequest, FetchCreditRequest, FetchReplyWriter};
use tramline_wire::frame::{self, Frame, Limits, Need};
use tramline_wire::hello::{HelloReply, HelloRequest};
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::metadata::{MetadataReply, MetadataRequest, PartitionMeta, TopicMeta};
use tramline_wire::offsets::{AT_EARLIEST, AT_LATEST, ListOffsetsReply, ListOffsetsRequest, OffsetAnswer};
use tramline_wire::prim::List;
use tramline_wire::produce::{ProduceReplyWriter, ProduceRequest, ProduceResult};
use tramline_wire::producer::InitProducerReply;
use tramline_wire::topics::{
    CreateFlags, CreateTopicReply, CreateTopicRequest, DeleteTopicReply, DeleteTopicRequest, DescribeTopicReply, DescribeTopicRequest,
    PartitionInfo,
};
use tramline_wire::trim::{TrimAnswer, TrimEntry, TrimPartitionsReply, TrimPartitionsRequest};

use crate::types::{Metadata, TopicMetadata};
use batches::{check_batch, first_at_or_after};
use groups::FakeGroup;
use marks::{BATCHES_KEPT, Check, Marks};
use script::{Script, reply};
pub(crate) use script::{frame_of, refusal_of, refusal_to, reply_to};
use streams::Stream;

/// One partition.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Stamped batches, one after the other.
    pub bytes: Vec<u8>,
    pub next_offset: u64,
    pub log_start: u64,
    /// Refusals for the next batches, in order; [`ErrorCode::Ok`] lets one through.
    pub refusals: VecDeque<ErrorCode>,
    /// The next batches are stored, and answered with these all the same.
    pub stored_but: VecDeque<ErrorCode>,
    /// Refusals for the next fetch entries.
    pub fetch_refusals: VecDeque<ErrorCode>,
    /// The same for trims.
    pub trim_refusals: VecDeque<ErrorCode>,
    pub marks: Marks,
    /// Bytes of the log that survive a restart.
    pub durable_bytes: usize,
}

/// One topic.
#[derive(Debug)]
pub(crate) struct FakeTopic {
    pub name: String,
    pub uid: u64,
    pub partitions: Vec<u64>,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct FakeBroker {
    pub topics: Vec<FakeTopic>,
    pub logs: BTreeMap<u64, Log>,
    pub port: u16,
    /// Told at hello.
    pub cluster_id: [u8; 16],
    pub node: u32,
    pub nodes: nodes::FakeNodes,
    /// The better address in refusals of whole requests.
    pub next_of_refusals: String,
    /// Ports of the shards; partitions go to shards in turn.
    pub shard_ports: Vec<u16>,
    pub view_epoch: u64,
    /// Metadata tells all topics, whichever were asked for.
    pub tells_all: bool,
    pub keepalive_ms: u32,
    pub expiry_ms: u32,
    /// The newest producer id given out.
    pub producer_id: u64,
    /// Credit above this does not count.
    pub credit_max: u32,
    /// Answers to produce requests are kept in `held` instead of being sent.
    pub holds_acks: bool,
    pub held: VecDeque<(u32, Vec<u8>)>,
    /// Refusals for whole requests of a kind, used once each.
    pub refuse_requests: VecDeque<(Kind, ErrorCode)>,
    /// Kinds and payload sizes of everything received.
    pub seen: Vec<(u32, Kind, usize)>,
    /// Largest credit outstanding of any stream after sending.
    pub overdrawn: bool,
    /// Bytes of empty replies that connections with a stream, or with a produce request that got no answer, are still flooded with.
    pub chatter_bytes: u64,
    /// A larger batch, and a batch with a larger record, is refused.
    pub batch_bytes_max: usize,
    pub record_bytes_max: u64,
    pub group: FakeGroup,
    pub queues: queues::Queues,
    pub steps: steps::FakeSteps,
    script: Script,
    streams: Vec<Stream>,
    outboxes: BTreeMap<u32, Vec<u8>>,
    inboxes: BTreeMap<u32, Vec<u8>>,
    next_uid: u64,
}

impl FakeBroker {
    pub(crate) fn new() -> FakeBroker {
        FakeBroker {
            topics: Vec::new(),
            logs: BTreeMap::new(),
            port: 7410,
            cluster_id: [7; 16],
            node: 1,
            nodes: nodes::FakeNodes::default(),
            next_of_refusals: String::new(),
            shard_ports: vec![7411],
            view_epoch: 1,
            tells_all: false,
            keepalive_ms: 0,
            expiry_ms: 3_600_000,
            producer_id: 0,
            credit_max: u32::MAX,
            holds_acks: false,
            held: VecDeque::new(),
            refuse_requests: VecDeque::new(),
            seen: Vec::new(),
            overdrawn: false,
            chatter_bytes: 0,
            batch_bytes_max: usize::MAX,
            record_bytes_max: u64::MAX,
            group: FakeGroup::default(),
            queues: queues::Queues::default(),
            steps: steps::FakeSteps::default(),
            script: Script::default(),
            streams: Vec::new(),
            outboxes: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            next_uid: 100,
        }
    }

    /// Creates a topic; returns the uids of its partitions.
    pub(crate) fn create(&mut self, name: &str, partitions: u32) -> Vec<u64> {
        let first = self.next_uid;
        self.next_uid += 1 + u64::from(partitions);
        let partitions: Vec<u64> = (first + 1..self.next_uid).collect();
        for uid in &partitions {
            self.logs.insert(*uid, Log::default());
        }
        self.topics.push(FakeTopic { name: name.to_string(), uid: first, partitions: partitions.clone() });
        self.view_epoch += 1;
        partitions
    }

    pub(crate) fn delete(&mut self, name: &str) {
        let at = self.topics.iter().position(|topic| topic.name == name).expect("the topic exists");
        for uid in self.topics.remove(at).partitions {
            self.logs.remove(&uid);
        }
        self.view_epoch += 1;
    }

    pub(crate) fn log(&mut self, uid: u64) -> &mut Log {
        self.logs.get_mut(&uid).expect("the partition exists")
    }

    /// The view that a metadata request gets.
    pub(crate) fn view(&self) -> Metadata {
        let topics = self.topics.iter().map(|topic| {
            let partitions = self.partitions_of(&topic.name);
            let meta = TopicMeta { error: ErrorCode::Ok, name: &topic.name, topic_uid: topic.uid, partitions: List::of(&partitions) };
            TopicMetadata::from(meta)
        });
        Metadata { cluster_id: self.cluster_id, view_epoch: self.view_epoch, nodes: self.all_nodes(), topics: topics.collect() }
    }

    /// Values of all records of a partition, uncompressed ones only.
    pub(crate) fn values(&self, uid: u64) -> Vec<Vec<u8>> {
        let mut values = Vec::new();
        for batch in Batches::new(&self.logs[&uid].bytes) {
            let batch = batch.expect("a stored batch");
            for record in batch.records(batch.stored_values()) {
                values.push(record.expect("a stored record").value.unwrap_or_default().to_vec());
            }
        }
        values
    }

    /// The connection is gone.
    pub(crate) fn disconnect(&mut self, conn: u32) {
        self.streams.retain(|stream| stream.conn != conn);
        self.outboxes.remove(&conn);
        self.inboxes.remove(&conn);
        self.held.retain(|(held, _)| *held != conn);
        self.forget_held(conn);
        self.queues.disconnect(conn);
    }

    /// Bytes arrive on a connection.
    pub(crate) fn receive(&mut self, conn: u32, bytes: &[u8]) {
        let mut inbox = self.inboxes.remove(&conn).unwrap_or_default();
        inbox.extend_from_slice(bytes);
        let mut read = 0;
        while let Need::Whole(frame, length) = frame::peek(&inbox[read..], &Limits::PROTOCOL).expect("a well-formed frame") {
            self.handle(conn, &frame);
            read += length;
        }
        inbox.drain(..read);
        self.inboxes.insert(conn, inbox);
    }

    /// Everything that was appended is durable now.
    pub(crate) fn sync(&mut self) {
        self.logs.values_mut().for_each(|log| log.durable_bytes = log.bytes.len());
    }

    /// Ends and starts again: what was not durable is gone, and so are all connections.
    pub(crate) fn restart(&mut self) {
        for log in self.logs.values_mut() {
            log.bytes.truncate(log.durable_bytes);
            log.next_offset = Batches::new(&log.bytes).last().map_or(0, |batch| batch.expect("a stored batch").next_offset());
            log.marks = Marks::of_log(&log.bytes);
        }
        self.streams.clear();
        self.outboxes.clear();
        self.inboxes.clear();
        self.held.clear();
    }

    /// What is to be sent on a connection.
    pub(crate) fn take_output(&mut self, conn: u32) -> Vec<u8> {
        self.advance_streams(conn);
        self.answer_held(conn);
        self.advance_receives(conn);
        self.outboxes.remove(&conn).unwrap_or_default()
    }

    /// What a connection hears while it is flooded: whole replies that say nothing. Empty: nothing.
    pub(crate) fn chatter(&mut self, conn: u32) -> Vec<u8> {
        if self.chatter_bytes == 0 {
            return Vec::new();
        }
        let stream = self.streams.iter().find(|stream| stream.conn == conn).map(|stream| stream.header.correlation);
        let mut one = Vec::new();
        let start = match stream {
            Some(stream) => frame::begin_frame(&mut one, Kind::Fetch.as_u8(), 1, frame::FLAG_REPLY | frame::FLAG_MORE, stream),
            None if self.held.iter().any(|(held, _)| *held == conn) => {
                frame::begin_frame(&mut one, Kind::Ping.as_u8(), 1, frame::FLAG_REPLY, u64::MAX)
            }
            None => return Vec::new(),
        };
        if stream.is_some() {
            FetchReplyWriter::begin(&mut one, 0).finish(&mut one);
        }
        frame::finish_frame(&mut one, start, 0).expect("within the limits");
        let chatter = one.repeat(65_536 / one.len());
        self.chatter_bytes = self.chatter_bytes.saturating_sub(chatter.len() as u64);
        chatter
    }

    /// Sends the oldest held answers.
    pub(crate) fn release(&mut self, count: usize) {
        for _ in 0..count {
            let Some((conn, bytes)) = self.held.pop_front() else { return };
            self.outboxes.entry(conn).or_default().extend_from_slice(&bytes);
        }
    }

    /// From now on this is asked first.
    pub(crate) fn answer_with(&mut self, script: impl FnMut(&Frame<'_>) -> Option<Vec<u8>> + Send + 'static) {
        self.script = Script::new(script);
    }

    /// How many requests of a kind came.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.seen.iter().filter(|seen| seen.1 == kind).count()
    }

    fn handle(&mut self, conn: u32, frame: &Frame<'_>) {
        let kind = frame.header.kind().expect("a known kind");
        self.seen.push((conn, kind, frame.payload.len()));
        let mut out = Vec::new();
        if let Some(bytes) = self.script.answer(frame) {
            self.outboxes.entry(conn).or_default().extend_from_slice(&bytes);
            return;
        }
        if let Some(at) = self.refuse_requests.iter().position(|(refused, _)| *refused == kind) {
            let (_, code) = self.refuse_requests.remove(at).expect("found");
            frame::write_error(
                &mut out,
                kind.as_u8(),
                kind.version(),
                frame.header.correlation,
                code,
                "as the test asked",
                &self.next_of_refusals,
            );
            self.outboxes.entry(conn).or_default().extend_from_slice(&out);
            return;
        }
        if let Some(bytes) = self.elsewhere(kind, frame) {
            self.outboxes.entry(conn).or_default().extend_from_slice(&bytes);
            return;
        }
        match kind {
            Kind::Hello => self.hello(frame, &mut out),
            Kind::Metadata => self.metadata(frame, &mut out),
            Kind::ListOffsets => self.list_offsets(frame, &mut out),
            Kind::DescribeTopic => self.describe_topic(frame, &mut out),
            Kind::TrimPartitions => self.trim(frame, &mut out),
            Kind::CreateTopic => self.create_topic(frame, &mut out),
            Kind::DeleteTopic => {
                let name = DeleteTopicRequest::decode(frame.meta).expect("decodes").name;
                self.delete(name);
                reply(&mut out, frame, |out| DeleteTopicReply {}.encode(out));
            }
            Kind::Ping => reply(&mut out, frame, |_| {}),
            Kind::InitProducer => {
                self.producer_id += 1;
                let body =
                    InitProducerReply { producer_id: self.producer_id, batches_kept: BATCHES_KEPT as u16, expiry_ms: self.expiry_ms };
                reply(&mut out, frame, |out| body.encode(out));
            }
            Kind::Produce => {
                self.produce(frame, &mut out);
                if self.holds_acks {
                    self.held.push_back((conn, out));
                    return;
                }
            }
            Kind::Receive => self.receive_messages(conn, frame),
            Kind::FindQueue | Kind::Settle | Kind::Browse | Kind::Purge | Kind::DeleteMessages | Kind::Redrive => {
                self.about_queue(kind, frame, &mut out);
            }
            Kind::Fetch => self.fetch(conn, frame),
            Kind::FetchCredit => {
                let credit = FetchCreditRequest::decode(frame.meta).expect("decodes");
                let stream = self.streams.iter_mut().find(|stream| stream.conn == conn && stream.header.correlation == credit.stream);
                if let Some(stream) = stream {
                    stream.credit += i64::from(credit.credit_bytes.min(self.credit_max));
                }
            }
            Kind::FetchCancel => {
                let cancel = FetchCancelRequest::decode(frame.meta).expect("decodes");
                self.streams.retain(|stream| stream.conn != conn || stream.header.correlation != cancel.stream);
                reply(&mut out, frame, |out| FetchCancelReply {}.encode(out));
            }
            Kind::Step => out = self.step(frame),
            Kind::FindGroup => out = self.find_group(frame),
            Kind::JoinGroup => out = self.join_group(frame),
            Kind::HeartbeatGroup => out = self.heartbeat(conn, frame).unwrap_or_default(),
            Kind::LeaveGroup => out = self.leave_group(frame),
            Kind::FetchOffsets => out = self.fetch_offsets(frame),
            Kind::CommitOffsets => out = self.commit_offsets(frame),
            other => panic!("the fake broker does not do {other}"),
        }
        self.outboxes.entry(conn).or_default().extend_from_slice(&out);
    }

    fn hello(&self, frame: &Frame<'_>, out: &mut Vec<u8>) {
        HelloRequest::decode(frame.meta).expect("decodes");
        let known = self.all_nodes();
        let nodes: Vec<_> = known.iter().map(nodes::told).collect();
        let body = HelloReply {
            protocol: 1,
            feature_level: 1,
            cluster_id: self.cluster_id,
            node: self.node,
            shard: 0,
            frame_max: 8 << 20,
            fetch_frame: streams::FETCH_FRAME_BYTES as u32,
            keepalive_ms: self.keepalive_ms,
            idle_timeout_ms: 0,
            apis: List::default(),
            mechanisms: List::default(),
            challenge: &[],
            nodes: List::of(&nodes),
        };
        reply(out, frame, |out| body.encode(out));
    }

    fn metadata(&self, frame: &Frame<'_>, out: &mut Vec<u8>) {
        let request = MetadataRequest::decode(frame.meta).expect("decodes");
        let known = self.all_nodes();
        let nodes: Vec<_> = known.iter().map(nodes::told).collect();
        let asked: Vec<&str> = match self.tells_all || request.topics.is_empty() {
            true => self.topics.iter().map(|topic| topic.name.as_str()).collect(),
            false => request.topics.iter().collect(),
        };
        let partitions: Vec<Vec<PartitionMeta>> = asked.iter().map(|name| self.partitions_of(name)).collect();
        let topics: Vec<TopicMeta<'_>> = asked
            .iter()
            .zip(&partitions)
            .map(|(&name, partitions)| match self.topics.iter().find(|topic| topic.name == name) {
                Some(topic) => TopicMeta { error: ErrorCode::Ok, name, topic_uid: topic.uid, partitions: List::of(partitions) },
                None => TopicMeta { error: ErrorCode::UnknownTopic, name, topic_uid: 0, partitions: List::default() },
            })
            .collect();
        let body = MetadataReply { view_epoch: self.view_epoch, nodes: List::of(&nodes), topics: List::of(&topics) };
        reply(out, frame, |out| body.encode(out));
    }

    fn partitions_of(&self, name: &str) -> Vec<PartitionMeta> {
        let Some(topic) = self.topics.iter().find(|topic| topic.name == name) else { return Vec::new() };
        let shards = self.shard_ports.len();
        let meta = |(index, &uid): (usize, &u64)| {
            let (index, leader_shard) = (index as u32, (index % shards) as u16);
            self.with_leader(PartitionMeta { index, uid, group: 1, leader_node: 1, leader_shard, term: 1 })
        };
        topic.partitions.iter().enumerate().map(meta).collect()
    }

    fn shard_of(&self, uid: u64) -> Option<usize> {
        let number = self.topics.iter().find_map(|topic| topic.partitions.iter().position(|known| *known == uid))?;
        Some(number % self.shard_ports.len())
    }

    fn create_topic(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>) {
        let request = CreateTopicRequest::decode(frame.meta).expect("decodes");
        let known = self.topics.iter().find(|topic| topic.name == request.name).map(|topic| (topic.uid, topic.partitions.len() as u32));
        let body = match known {
            Some(_) if !request.flags.has(CreateFlags::IF_NOT_EXISTS) => {
                let Frame { header, .. } = frame;
                return frame::write_error(out, header.kind, header.version, header.correlation, ErrorCode::TopicExists, "", "");
            }
            Some((topic_uid, partitions)) => CreateTopicReply { topic_uid, created: false, partitions },
            None => {
                self.create(request.name, request.partitions);
                let topic_uid = self.topics.last().expect("just created").uid;
                CreateTopicReply { topic_uid, created: true, partitions: request.partitions }
            }
        };
        reply(out, frame, |out| body.encode(out));
    }

    fn list_offsets(&self, frame: &Frame<'_>, out: &mut Vec<u8>) {
        let request = ListOffsetsRequest::decode(frame.meta).expect("decodes");
        let owners: BTreeSet<usize> = request.entries.iter().filter_map(|query| self.shard_of(query.partition_uid)).collect();
        assert!(owners.len() <= 1, "questions for several owners in one request");
        let answer = |partition_uid: u64, at: i64| match self.logs.get(&partition_uid) {
            None => OffsetAnswer { partition_uid, error: ErrorCode::UnknownPartition, offset: 0, timestamp_us: -1 },
            Some(log) => {
                let (offset, timestamp_us) = match at {
                    AT_EARLIEST => (log.log_start, -1),
                    AT_LATEST => (log.next_offset, -1),
                    time => first_at_or_after(log, time),
                };
                OffsetAnswer { partition_uid, error: ErrorCode::Ok, offset, timestamp_us }
            }
        };
        let answers: Vec<OffsetAnswer> = request.entries.iter().map(|query| answer(query.partition_uid, query.at)).collect();
        reply(out, frame, |out| ListOffsetsReply { entries: List::of(&answers) }.encode(out));
    }

    fn describe_topic(&self, frame: &Frame<'_>, out: &mut Vec<u8>) {
        let name = DescribeTopicRequest::decode(frame.meta).expect("decodes").name;
        let Some(topic) = self.topics.iter().find(|topic| topic.name == name) else {
            let Frame { header, .. } = frame;
            return frame::write_error(out, header.kind, header.version, header.correlation, ErrorCode::UnknownTopic, "", "");
        };
        let info = |(index, &uid): (usize, &u64)| {
            let Log { log_start, next_offset, .. } = self.logs[&uid];
            let (index, shard) = (index as u32, (index % self.shard_ports.len()) as u16);
            PartitionInfo { index, uid, group: 1, node: 1, shard, log_start, committed_end: next_offset, bytes: 0, segments: 0 }
        };
        let partitions: Vec<PartitionInfo> = topic.partitions.iter().enumerate().map(info).collect();
        let (topic_uid, settings, partitions) = (topic.uid, List::default(), List::of(&partitions));
        reply(out, frame, |out| DescribeTopicReply { topic_uid, name, created_us: 0, replication: 1, settings, partitions }.encode(out));
    }

    fn trim(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>) {
        let request = TrimPartitionsRequest::decode(frame.meta).expect("decodes");
        let owners: BTreeSet<usize> = request.entries.iter().filter_map(|entry| self.shard_of(entry.partition_uid)).collect();
        assert!(owners.len() <= 1, "trims of several owners in one request");
        let mut answers = Vec::new();
        for TrimEntry { partition_uid, before } in request.entries.iter() {
            let log = self.logs.get_mut(&partition_uid).expect("a partition of a topic");
            let mut error = log.trim_refusals.pop_front().unwrap_or(ErrorCode::Ok);
            if before > log.next_offset {
                error = ErrorCode::OffsetOutOfRange;
            }
            if error.is_ok() {
                log.log_start = log.log_start.max(before);
            }
            answers.push(TrimAnswer { partition_uid, error, log_start: log.log_start, committed_end: log.next_offset });
        }
        reply(out, frame, |out| TrimPartitionsReply { entries: List::of(&answers) }.encode(out));
    }

    fn produce(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>) {
        let request = ProduceRequest::decode(frame.meta).expect("decodes");
        let mut results = Vec::new();
        for (entry, bytes) in request.batches(frame.payload).expect("lengths add up") {
            let partition_uid = entry.partition_uid;
            let refused = |error| ProduceResult { partition_uid, error, base_offset: 0, append_time_us: 0, durable_end: 0 };
            let Some(log) = self.logs.get_mut(&partition_uid) else {
                results.push(refused(ErrorCode::UnknownPartition));
                continue;
            };
            let code = log.refusals.pop_front().unwrap_or_else(|| check_batch(bytes, self.batch_bytes_max, self.record_bytes_max));
            if !code.is_ok() {
                results.push(refused(code));
                continue;
            }
            let base_offset = match log.append_marked(partition_uid, bytes) {
                Ok(base_offset) => base_offset,
                Err(code) => {
                    results.push(refused(code));
                    continue;
                }
            };
            results.push(ProduceResult {
                partition_uid,
                error: log.stored_but.pop_front().unwrap_or(ErrorCode::Ok),
                base_offset,
                append_time_us: 5,
                durable_end: log.next_offset,
            });
        }
        if request.level == Level::None {
            return;
        }
        reply(out, frame, |out| {
            let mut writer = ProduceReplyWriter::begin(out, request.level, 0);
            for result in &results {
                writer.push(out, result);
            }
            writer.finish(out);
        });
    }
}

impl Log {
    /// Appends a producer's batch unless its mark says that it is there, or that one before it is not.
    fn append_marked(&mut self, uid: u64, bytes: &[u8]) -> Result<u64, ErrorCode> {
        let batch = batch::validate(bytes, &BatchLimits::default()).expect("a valid batch");
        let (mark, records) = (batch.producer(), batch.record_count());
        match self.marks.check(mark, records) {
            Check::Take => {
                let base_offset = self.append(uid, bytes);
                self.marks.take(mark, records, base_offset);
                Ok(base_offset)
            }
            Check::Repeated { base_offset } => Ok(base_offset),
            Check::Refuse(code) => Err(code),
        }
    }

    /// Appends a producer's batch; returns its base offset.
    pub(crate) fn append(&mut self, uid: u64, bytes: &[u8]) -> u64 {
        let records = batch::validate(bytes, &BatchLimits::default()).expect("a valid batch").record_count();
        let base_offset = self.next_offset;
        let at = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        batch::stamp_leader(&mut self.bytes[at..], &LeaderStamp { partition_uid: uid, base_offset, term: 1, append_time_us: 5 });
        self.next_offset += u64::from(records);
        base_offset
    }
}

/// Carries bytes between a core's connection and the broker, both ways; returns whether any moved.
pub(crate) fn carry(conn: &mut crate::core::Conn, broker: &mut FakeBroker, id: u32) -> bool {
    let mut moved = false;
    while !conn.out().is_empty() {
        let mut slices = [std::io::IoSlice::new(&[]); crate::core::IOVECS_MAX];
        let count = conn.out().io_slices(&mut slices);
        let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
        broker.receive(id, &bytes);
        conn.out_mut().advance(bytes.len());
        moved = true;
    }
    let bytes = broker.take_output(id);
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let room = conn.room();
        let take = rest.len().min(room.len());
        assert!(take > 0, "the receive buffer is full: read frames between two carries");
        room[..take].copy_from_slice(&rest[..take]);
        conn.received(take);
        rest = &rest[take..];
        moved = true;
    }
    moved
}
