//! One shard, a simulated disk, and clients that speak the wire: everything between them is the real code.

use crate::api::NodeInfo;
use crate::config::{self, Settings, Sources};
use crate::control::Endpoint;
use crate::effects::{Effect, Effects, Event, Now, Outcome, Token};
use crate::ids::{ConnId, NodeId, ShardId};
use crate::log::{LogConfig, LogIdentity, recover};
use crate::runtime::topology;
use crate::shard::mesh::Message;
use crate::shard::{Shard, ShardStart, Taken};
use crate::sim::{Dice, SimDisk, Tear};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tramline_wire::batch::{BatchBuilder, Batches, Limits, NewRecord, ProducerMark};
use tramline_wire::error::{ErrorBody, ErrorCode};
use tramline_wire::fetch::{FetchEntry, FetchMode, FetchReply, FetchRequestWriter};
use tramline_wire::frame::{self, Frame, Need, begin_request, finish_frame};
use tramline_wire::hello::HelloRequest;
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::metadata::{MetadataReply, MetadataRequest};
use tramline_wire::prim::List;
use tramline_wire::produce::{ProduceEntry, ProduceReply, ProduceRequestWriter, ProduceResult};
use tramline_wire::topics::{CreateFlags, CreateTopicRequest, Setting};

/// The one connection of a world's client.
pub(super) const CLIENT: ConnId = ConnId(7);

/// Values by offset.
pub(super) type Records = BTreeMap<u64, Vec<u8>>;

pub(super) struct World {
    pub(super) shard: Shard,
    pub(super) disk: SimDisk,
    pub(super) effects: Effects,
    pub(super) now: Now,
    pub(super) settings: Arc<Settings>,
    /// Whole frames sent to clients, in order.
    pub(super) replies: VecDeque<(ConnId, Vec<u8>)>,
    pub(super) closed: Vec<(ConnId, &'static str)>,
    pub(super) fatal: Option<String>,
    /// What was said to other shards, which are not there; that a view is in force is answered for them.
    pub(super) mesh: Vec<(ShardId, Message)>,
    views: Vec<(ShardId, u64)>,
    blocked: VecDeque<(ConnId, Vec<u8>)>,
    retry: bool,
    next_correlation: u64,
}

pub(super) fn settings(more: &[(&str, &str)]) -> Settings {
    let machine = topology::machine();
    let flags = [("data.dir", "."), ("shards", "1"), ("memory.bytes", "64MiB")];
    let usual = flags.iter().filter(|(key, _)| !more.iter().any(|(other, _)| other == key));
    let flags = usual.chain(more).map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let sources = Sources { flags, ..Sources::default() };
    config::load(&sources, &machine).unwrap().settings(&machine).unwrap()
}

pub(super) fn log_config() -> LogConfig {
    let identity = LogIdentity { cluster_id: [7; 16], node: NodeId(1), log_uid_if_new: 0xFEED_BEEF };
    LogConfig {
        segment_bytes: 128 << 10,
        block_bytes_max: 16 << 10,
        batch_bytes_max: 8 << 10,
        tail_cache_bytes: 64 << 10,
        pool_segments: 1,
        fill_write_bytes: 32 << 10,
        fill_idle_us: 0,
        ..LogConfig::new(identity, ShardId(0), 1)
    }
}

fn open(disk: &mut SimDisk, settings: &Arc<Settings>, effects: &mut Effects) -> Shard {
    let recovered = recover(disk, &log_config()).expect("a start after any crash");
    let info = NodeInfo {
        node: NodeId(1),
        cluster_id: [7; 16],
        client: Endpoint { host: "127.0.0.1".into(), port: 7410, shard_ports: vec![7411] },
        disk: 1,
        generation: 0,
        rack: String::new(),
        cluster: None,
    };
    let start = ShardStart {
        id: ShardId(0),
        settings: Arc::clone(settings),
        info: Arc::new(info),
        recovered,
        joined: None,
        is_metadata_forced: false,
    };
    Shard::start(start, effects).expect("the shard starts")
}

impl World {
    pub(super) fn new() -> World {
        World::with(&[])
    }

    /// With other settings than the usual ones.
    pub(super) fn with(more: &[(&str, &str)]) -> World {
        World::start(SimDisk::new(), Now { mono_us: 1_000_000, utc_us: 1_700_000_000_000_000 }, more)
    }

    pub(super) fn over(disk: SimDisk, now: Now) -> World {
        World::start(disk, now, &[])
    }

    /// Over this disk, with other settings than the usual ones.
    pub(super) fn start(mut disk: SimDisk, now: Now, more: &[(&str, &str)]) -> World {
        let mut effects = Effects::new();
        let settings = Arc::new(settings(more));
        let shard = open(&mut disk, &settings, &mut effects);
        let (replies, blocked) = (VecDeque::new(), VecDeque::new());
        let mut world = World {
            shard,
            disk,
            effects,
            now,
            settings,
            replies,
            closed: Vec::new(),
            fatal: None,
            mesh: Vec::new(),
            views: Vec::new(),
            blocked,
            retry: false,
            next_correlation: 1,
        };
        world.carry();
        world.settle();
        assert!(world.shard.is_serving(), "a start serves once its first block is durable");
        world.connect();
        world
    }

    /// The client's connection, at a start or after it was closed.
    pub(super) fn connect(&mut self) {
        let _ = self.step(Event::Opened { conn: CLIENT });
        let hello = HelloRequest { protocol_min: 1, protocol_max: 1, client_name: "test", client_version: "", mechanism: "", auth: b"" };
        self.request(Kind::Hello, &[], |out| hello.encode(out));
        self.settle();
        self.reply_ok();
    }

    /// The machine dies with writes torn as `tear` says, and the node is started again.
    pub(super) fn crash(self, tear: Tear, dice: &mut Dice) -> World {
        let World { mut disk, now, .. } = self;
        disk.crash(tear, dice);
        World::over(disk, now)
    }

    pub(super) fn step(&mut self, event: Event<'_>) -> Taken {
        let taken = self.shard.step(self.now, event, &mut self.effects);
        self.carry();
        taken
    }

    fn carry(&mut self) {
        for effect in self.effects.list.drain(..) {
            match effect {
                Effect::Send { conn, head, parts } => {
                    let mut bytes = self.effects.heads[head.start as usize..head.end as usize].to_vec();
                    for part in &self.effects.parts[parts.start as usize..parts.end as usize] {
                        bytes.extend_from_slice(part.as_slice());
                    }
                    self.replies.push_back((conn, bytes));
                }
                Effect::Close { conn, reason } => self.closed.push((conn, reason)),
                Effect::Unblock => self.retry = true,
                Effect::Fatal { reason } => self.fatal = Some(reason),
                Effect::Dial { .. } => unreachable!("no shard dials"),
                Effect::Mesh { .. } if self.settings.shards == 1 => panic!("one shard has nobody to talk to"),
                Effect::Mesh { to, message: Message::View(view) } => self.views.push((to, view.epoch)),
                // Who leads the groups here: no test asks another shard for it.
                Effect::Mesh { message: Message::Leader { .. }, .. } => {}
                Effect::Mesh { to, message } => self.mesh.push((to, message)),
                disk @ (Effect::Write { .. } | Effect::Read { .. } | Effect::File { .. }) => self.disk.under_way.push(disk),
            }
        }
        self.effects.clear();
    }

    /// A client's frame arrives; one that is blocked is kept and tried again.
    pub(super) fn arrive(&mut self, conn: ConnId, bytes: Vec<u8>) {
        let Ok(Need::Whole(frame, len)) = frame::peek(&bytes, &frame::Limits::PROTOCOL) else { panic!("the test sends whole frames") };
        assert_eq!(len, bytes.len());
        let taken = self.shard.step(self.now, Event::Frame { conn, frame: &frame }, &mut self.effects);
        self.carry();
        if taken == Taken::Blocked {
            self.blocked.push_back((conn, bytes));
        }
    }

    pub(super) fn request(&mut self, kind: Kind, payload: &[u8], meta: impl FnOnce(&mut Vec<u8>)) -> u64 {
        let correlation = self.next_correlation;
        self.next_correlation += 1;
        self.arrive(CLIENT, request_frame(correlation, kind, payload, meta));
        correlation
    }

    /// The end of a turn, and a background turn. The client takes what was sent to it at once.
    pub(super) fn turn(&mut self) {
        let _ = self.step(Event::Sent { conn: CLIENT, queued_bytes: 0 });
        let _ = self.step(Event::EndOfTurn);
        let _ = self.step(Event::Turn { bytes: 1 << 20, us: 50 });
        let _ = self.step(Event::EndOfTurn);
        for (from, epoch) in std::mem::take(&mut self.views) {
            let _ = self.step(Event::Mesh { from, message: Message::ViewInForce { epoch } });
        }
        if std::mem::take(&mut self.retry) {
            for _ in 0..self.blocked.len() {
                let (conn, bytes) = self.blocked.pop_front().unwrap();
                self.arrive(conn, bytes);
            }
        }
    }

    /// One operation of the disk ends: the one at `index` of those under way.
    pub(super) fn complete(&mut self, index: usize) {
        let (token, outcome): (Token, Outcome) = self.disk.complete(index);
        let _ = self.step(Event::Done { token, outcome });
    }

    /// Lets everything come to rest.
    pub(super) fn settle(&mut self) {
        for _ in 0..100_000 {
            self.turn();
            if self.disk.under_way.is_empty() && self.blocked.is_empty() && !self.shard.listing.is_under_way() {
                return;
            }
            if !self.disk.under_way.is_empty() {
                self.complete(0);
            }
        }
        panic!("the shard does not come to rest");
    }

    /// Whether a frame waits.
    pub(super) fn is_blocked(&self) -> bool {
        !self.blocked.is_empty()
    }

    pub(super) fn pass(&mut self, us: u64) {
        self.now.mono_us += us;
        self.now.utc_us += us as i64;
    }

    /// The next reply, as (correlation, flags, meta, payload).
    pub(super) fn reply(&mut self) -> Option<(u64, u16, Vec<u8>, Vec<u8>)> {
        let (_, bytes) = self.replies.pop_front()?;
        let Ok(Need::Whole(Frame { header, meta, payload }, _)) = frame::peek(&bytes, &frame::Limits::PROTOCOL) else {
            panic!("the shard sends whole frames")
        };
        Some((header.correlation, header.flags, meta.to_vec(), payload.to_vec()))
    }

    /// The meta of the reply to `correlation`, which is no error; other replies stay where they are.
    pub(super) fn reply_to(&mut self, correlation: u64) -> Vec<u8> {
        self.parts_of_reply_to(correlation).0
    }

    /// The same with the payload.
    pub(super) fn parts_of_reply_to(&mut self, correlation: u64) -> (Vec<u8>, Vec<u8>) {
        let is_it = |bytes: &[u8]| matches!(frame::peek(bytes, &frame::Limits::PROTOCOL), Ok(Need::Whole(f, _)) if f.header.correlation == correlation);
        let at = self.replies.iter().position(|(_, bytes)| is_it(bytes)).expect("a reply");
        let reply = self.replies.remove(at).expect("found");
        self.replies.push_front(reply);
        let (_, meta, payload) = self.reply_ok();
        (meta, payload)
    }

    pub(super) fn reply_ok(&mut self) -> (u64, Vec<u8>, Vec<u8>) {
        let (correlation, flags, meta, payload) = self.reply().expect("a reply");
        assert_eq!(flags & frame::FLAG_ERROR, 0, "{:?}", ErrorBody::decode(&meta));
        (correlation, meta, payload)
    }

    pub(super) fn reply_error(&mut self) -> ErrorCode {
        let (_, flags, meta, _) = self.reply().expect("a reply");
        assert_ne!(flags & frame::FLAG_ERROR, 0, "an error was expected");
        ErrorBody::decode(&meta).unwrap().code().unwrap()
    }

    pub(super) fn create_topic(&mut self, name: &str, partitions: u32, settings: &[(&str, &str)]) {
        let settings: Vec<_> = settings.iter().map(|(key, value)| Setting { key, value }).collect();
        let request =
            CreateTopicRequest { name, partitions, replication: 0, flags: CreateFlags::IF_NOT_EXISTS, settings: List::of(&settings) };
        let asked = self.request(Kind::CreateTopic, &[], |out| request.encode(out));
        self.settle();
        self.reply_to(asked);
    }

    pub(super) fn uids(&mut self, topic: &str) -> Vec<u64> {
        let asked = self.request(Kind::Metadata, &[], |out| MetadataRequest { topics: List::of(&[topic]) }.encode(out));
        let meta = self.reply_to(asked);
        let reply = MetadataReply::decode(&meta).unwrap();
        reply.topics.iter().next().unwrap().partitions.iter().map(|p| p.uid).collect()
    }

    /// Sends one batch; answers the request's correlation.
    pub(super) fn produce(&mut self, uid: u64, level: Level, values: &[Vec<u8>]) -> u64 {
        let batch = batch(values, self.now.utc_us);
        self.request(Kind::Produce, &batch, |out| {
            let mut writer = ProduceRequestWriter::begin(out, level, 0);
            writer.push(out, &ProduceEntry { partition_uid: uid, batch_len: batch.len() as u32 });
            writer.finish(out);
        })
    }

    /// Everything readable of a partition from `offset` on: (offset, value), and the ranges told as damaged.
    pub(super) fn read(&mut self, uid: u64, mut offset: u64) -> (Records, Vec<(u64, u64)>) {
        let (mut found, mut damaged) = (BTreeMap::new(), Vec::new());
        loop {
            self.request(Kind::Fetch, &[], |out| {
                let mut writer = FetchRequestWriter::begin(out, FetchMode::OneShot, 1000, 1, 1 << 20);
                writer.push(out, &FetchEntry { partition_uid: uid, offset, max_bytes: 1 << 20 });
                writer.finish(out);
            });
            self.settle();
            if self.replies.is_empty() {
                self.pass(1_000_001);
                let _ = self.step(Event::Deadline);
            }
            let (_, meta, payload) = self.reply_ok();
            let reply = FetchReply::decode(&meta).unwrap();
            let (entry, bytes) = reply.parts(&payload).unwrap().next().unwrap();
            match entry.error {
                ErrorCode::Ok => {}
                ErrorCode::Damaged => damaged.push((offset, entry.next_offset)),
                ErrorCode::OffsetOutOfRange if entry.next_offset > offset => {}
                other => panic!("{other:?} at {offset} of {uid}"),
            }
            for (at, value) in records_of(bytes).into_iter().filter(|(at, _)| *at >= offset) {
                let before = found.insert(at, value);
                assert!(before.is_none(), "offset {at} of {uid} came twice");
            }
            if entry.next_offset >= entry.committed_end {
                return (found, damaged);
            }
            assert!(entry.next_offset > offset, "no progress at {offset}: {entry:?}");
            offset = entry.next_offset;
        }
    }
}

/// A client's request.
pub(super) fn request_frame(correlation: u64, kind: Kind, payload: &[u8], meta: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let start = begin_request(&mut bytes, kind, correlation);
    meta(&mut bytes);
    finish_frame(&mut bytes, start, payload.len()).unwrap();
    bytes.extend_from_slice(payload);
    bytes
}

/// The records of whole batches, each checked: (offset, value).
pub(super) fn records_of(bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut records = Vec::new();
    for view in Batches::new(bytes) {
        let view = view.unwrap();
        view.verify_body().unwrap();
        view.verify_header().unwrap();
        let values = view.records(view.stored_values()).map(|record| record.unwrap());
        records.extend(values.map(|record| (record.offset, record.value.unwrap_or_default().to_vec())));
    }
    records
}

pub(super) fn batch(values: &[Vec<u8>], timestamp_us: i64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Limits::default());
    for value in values {
        builder.push(&NewRecord { value: Some(value), timestamp_us, ..NewRecord::default() }).unwrap();
    }
    let mut out = Vec::new();
    builder.finish_plain(&mut out, ProducerMark::default());
    out
}

pub(super) fn produce_results(meta: &[u8]) -> Vec<ProduceResult> {
    ProduceReply::decode(meta).unwrap().results.iter().collect()
}
