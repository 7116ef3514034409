//! The core's own instructions: one shard of the released code, a client that speaks the wire, and a disk in memory, over a fixed script.
//!
//! `counted_step` is what callgrind is told to count (`--toggle-collect`), and it is called for the requests of the script alone: neither this program's own work
//! nor the start nor the other kind of request is in the count. `scripts/instructions.sh` runs it and takes checksums and copies apart.
//!
//! Invariants: the same script gives the same events, so the same instructions (but for the hash of a map, none of which is seeded); nothing waits for anything.
//!
//! Not here: ring and sockets (their cost is the kernel's), times.

use std::collections::BTreeMap;
use std::sync::Arc;
use tramline::api::NodeInfo;
use tramline::config::{self, Settings, Sources};
use tramline::control::Endpoint;
use tramline::effects::{Effect, Effects, Event, FileOp, Now, Outcome, Token};
use tramline::ids::{ConnId, FileId, NodeId, ShardId};
use tramline::log::{DiskError, LogConfig, LogIdentity, StartDisk, recover};
use tramline::runtime::topology;
use tramline::shard::{Shard, ShardStart, Taken};
use tramline_wire::batch::{BatchBuilder, Limits, NewRecord, ProducerMark};
use tramline_wire::error::ErrorCode;
use tramline_wire::fetch::{FetchEntry, FetchMode, FetchReply, FetchRequestWriter};
use tramline_wire::frame::{self, FLAG_ERROR, Need, begin_request, finish_frame};
use tramline_wire::hello::HelloRequest;
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::metadata::{MetadataReply, MetadataRequest};
use tramline_wire::prim::List;
use tramline_wire::produce::{ProduceEntry, ProduceReply, ProduceRequestWriter};
use tramline_wire::topics::{CreateFlags, CreateTopicRequest};

/// Records of a batch, and bytes of each one's value.
const RECORDS: u32 = 64;
const VALUE_BYTES: usize = 1024;
/// What a fetch has room for: one batch and not two.
const BATCH_ROOM: u32 = 100 << 10;
/// Between two requests: a batch each 200 us, 320,000 records a second.
const EVERY_US: u64 = 200;

/// Which requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Counted {
    /// Produce, durable: from the frame to the acknowledgement, the disk's answers included.
    Produce,
    /// Fetch of what was just written.
    Fetch,
}

/// Files by name; those that are open by id.
#[derive(Default)]
struct Ram {
    names: BTreeMap<String, usize>,
    files: Vec<Vec<u8>>,
    open: BTreeMap<u64, usize>,
}

impl Ram {
    fn file(&mut self, file: FileId) -> &mut Vec<u8> {
        let at = self.open[&file.0];
        &mut self.files[at]
    }

    fn write(&mut self, file: FileId, pos: u64, data: &[u8]) {
        self.file(file)[pos as usize..pos as usize + data.len()].copy_from_slice(data);
    }

    fn add(&mut self, name: &str, file: FileId, len: u64) {
        self.files.push(vec![0; len as usize]);
        let at = self.files.len() - 1;
        self.names.insert(name.to_owned(), at);
        self.open.insert(file.0, at);
    }

    fn move_name(&mut self, from: &str, to: &str) {
        let at = self.names.remove(from).expect("a file of this name");
        self.names.insert(to.to_owned(), at);
    }

    /// Carries one effect out.
    fn carry(&mut self, effect: Effect) -> (Token, Outcome) {
        match effect {
            Effect::Write { token, file, pos, data } => {
                self.write(file, pos, data.as_slice());
                (token, Outcome::Write(Ok(data.len() as u32)))
            }
            Effect::Read { token, file, pos, mut buf } => {
                let len = buf.len();
                let bytes = &self.file(file)[pos as usize..pos as usize + len];
                buf.as_mut_slice()[..len].copy_from_slice(bytes);
                (token, Outcome::Read(buf, Ok(len as u32)))
            }
            Effect::File { token, op } => {
                match op {
                    FileOp::Create { file, name, len_bytes } => self.add(&name, file, len_bytes),
                    FileOp::Rename { from, to } => self.move_name(&from, &to),
                    FileOp::Exchange { first, second } => {
                        let (one, other) = (self.names[&*first], self.names[&*second]);
                        self.names.insert(first.to_string(), other);
                        self.names.insert(second.to_string(), one);
                    }
                    FileOp::Remove { name } => drop(self.names.remove(&*name)),
                    FileOp::Cut { file, len_bytes } => self.file(file).truncate(len_bytes as usize),
                    FileOp::Close { file } => drop(self.open.remove(&file.0)),
                    FileOp::SyncDir => {}
                }
                (token, Outcome::File(Ok(())))
            }
            other => panic!("{other:?} is none of the disk's"),
        }
    }
}

impl StartDisk for Ram {
    fn list(&mut self) -> Result<Vec<String>, DiskError> {
        Ok(self.names.keys().cloned().collect())
    }
    fn open(&mut self, name: &str, file: FileId) -> Result<u64, DiskError> {
        let at = self.names[name];
        self.open.insert(file.0, at);
        Ok(self.files[at].len() as u64)
    }
    fn create(&mut self, name: &str, file: FileId, len: u64) -> Result<(), DiskError> {
        self.add(name, file, len);
        Ok(())
    }
    fn close(&mut self, file: FileId) -> Result<(), DiskError> {
        self.open.remove(&file.0);
        Ok(())
    }
    fn read_at(&mut self, file: FileId, pos: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        let len = buf.len();
        buf.copy_from_slice(&self.file(file)[pos as usize..pos as usize + len]);
        Ok(())
    }
    fn write_at(&mut self, file: FileId, pos: u64, data: &[u8]) -> Result<(), DiskError> {
        self.write(file, pos, data);
        Ok(())
    }
    fn sync(&mut self, _file: FileId) -> Result<(), DiskError> {
        Ok(())
    }
    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        self.move_name(from, to);
        Ok(())
    }
    fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        self.names.remove(name);
        Ok(())
    }
    fn sync_dir(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

/// What callgrind counts. Not inlined, or there would be nothing to name; not the same as what calls it otherwise, or the linker would make one of both.
#[inline(never)]
fn counted_step(shard: &mut Shard, now: Now, event: Event<'_>, effects: &mut Effects) -> Taken {
    std::hint::black_box(shard).step(now, event, effects)
}

struct World {
    shard: Shard,
    disk: Ram,
    effects: Effects,
    now: Now,
    is_counting: bool,
    under_way: Vec<Effect>,
    replies: Vec<Vec<u8>>,
    conn: ConnId,
    correlation: u64,
}

fn settings() -> Settings {
    let machine = topology::machine();
    let flags = [("data.dir", "."), ("shards", "1"), ("memory.bytes", "256MiB"), ("segment.bytes", "128MiB")];
    let flags = flags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    config::load(&Sources { flags, ..Sources::default() }, &machine).expect("settings").settings(&machine).expect("settings that hold")
}

fn log_config(settings: &Settings) -> LogConfig {
    let identity = LogIdentity { cluster_id: [7; 16], node: NodeId(1), log_uid_if_new: 9 };
    LogConfig {
        segment_bytes: settings.segment_bytes,
        block_bytes_max: settings.block_bytes_max,
        batch_bytes_max: settings.batch_max_bytes,
        writes_in_flight_max: settings.writes_in_flight_max,
        tail_cache_bytes: settings.tail_cache_bytes,
        pool_segments: 1,
        ..LogConfig::new(identity, ShardId(0), 1)
    }
}

impl World {
    fn start() -> World {
        let settings = Arc::new(settings());
        let mut disk = Ram::default();
        let recovered = recover(&mut disk, &log_config(&settings)).expect("an empty disk");
        let client = Endpoint { host: "127.0.0.1".into(), port: 7410, shard_ports: vec![7411] };
        let info = NodeInfo { node: NodeId(1), cluster_id: [7; 16], client, disk: 1, generation: 0, rack: String::new(), cluster: None };
        let start = ShardStart { id: ShardId(0), settings, info: Arc::new(info), recovered, joined: None, is_metadata_forced: false };
        let mut effects = Effects::new();
        let shard = Shard::start(start, &mut effects).expect("a start");
        let now = Now { mono_us: 1_000_000, utc_us: 1_700_000_000_000_000 };
        let mut world = World {
            shard,
            disk,
            effects,
            now,
            is_counting: false,
            under_way: Vec::new(),
            replies: Vec::new(),
            conn: ConnId(7),
            correlation: 0,
        };
        world.carry();
        world.settle();
        assert!(world.shard.is_serving(), "it serves once its first block is durable");
        world.step(Event::Opened { conn: ConnId(7) });
        let hello = HelloRequest { protocol_min: 1, protocol_max: 1, client_name: "micro", client_version: "", mechanism: "", auth: b"" };
        world.ask(Kind::Hello, &[], |out| hello.encode(out));
        world
    }

    fn step(&mut self, event: Event<'_>) {
        let taken = match self.is_counting {
            true => counted_step(&mut self.shard, self.now, event, &mut self.effects),
            false => self.shard.step(self.now, event, &mut self.effects),
        };
        assert_eq!(taken, Taken::Yes, "there is room for all of the script");
        self.carry();
    }

    fn carry(&mut self) {
        for effect in self.effects.list.drain(..) {
            match effect {
                Effect::Send { head, parts, .. } => {
                    let mut bytes = self.effects.heads[head.start as usize..head.end as usize].to_vec();
                    for part in &self.effects.parts[parts.start as usize..parts.end as usize] {
                        bytes.extend_from_slice(part.as_slice());
                    }
                    self.replies.push(bytes);
                }
                Effect::Write { .. } | Effect::Read { .. } | Effect::File { .. } => self.under_way.push(effect),
                Effect::Unblock => {}
                other => panic!("{other:?} does not belong to the script"),
            }
        }
        self.effects.clear();
    }

    /// A turn of the shard's loop: what the disk has done, the end of the turn, some background work.
    fn turn(&mut self) {
        for effect in std::mem::take(&mut self.under_way) {
            let (token, outcome) = self.disk.carry(effect);
            self.step(Event::Done { token, outcome });
        }
        self.step(Event::EndOfTurn);
        self.step(Event::Turn { bytes: 1 << 20, us: 50 });
        self.step(Event::EndOfTurn);
    }

    /// Until nothing is under way.
    fn settle(&mut self) {
        self.turn();
        while !self.under_way.is_empty() {
            self.turn();
        }
    }

    /// A request as it comes from a client.
    fn request(&mut self, kind: Kind, payload: &[u8], meta: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        self.correlation += 1;
        let mut bytes = Vec::new();
        let start = begin_request(&mut bytes, kind, self.correlation);
        meta(&mut bytes);
        finish_frame(&mut bytes, start, payload.len()).expect("a small meta");
        bytes.extend_from_slice(payload);
        bytes
    }

    /// Requests that come within one turn, and their answers: meta and payload of each.
    fn exchange(&mut self, requests: &[Vec<u8>]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let took_us = EVERY_US * requests.len() as u64;
        self.now.mono_us += took_us;
        self.now.utc_us += took_us as i64;
        let conn = self.conn;
        for bytes in requests {
            let Ok(Need::Whole(frame, _)) = frame::peek(bytes, &frame::Limits::PROTOCOL) else { panic!("a whole frame") };
            self.step(Event::Frame { conn, frame: &frame });
        }
        self.settle();
        self.step(Event::Sent { conn, queued_bytes: 0 });
        assert_eq!(self.replies.len(), requests.len(), "one answer to each request");
        let replies = self.replies.drain(..).map(|reply| {
            let Ok(Need::Whole(frame, _)) = frame::peek(&reply, &frame::Limits::PROTOCOL) else { panic!("a whole frame") };
            assert_eq!(frame.header.flags & FLAG_ERROR, 0, "a request is refused");
            (frame.meta.to_vec(), frame.payload.to_vec())
        });
        replies.collect()
    }

    /// One request, and its answer.
    fn ask(&mut self, kind: Kind, payload: &[u8], meta: impl FnOnce(&mut Vec<u8>)) -> (Vec<u8>, Vec<u8>) {
        let request = self.request(kind, payload, meta);
        self.exchange(&[request]).pop().expect("counted")
    }

    /// A topic of one partition: its uid.
    fn create_topic(&mut self) -> u64 {
        let request =
            CreateTopicRequest { name: "t", partitions: 1, replication: 0, flags: CreateFlags::IF_NOT_EXISTS, settings: List::of(&[]) };
        self.ask(Kind::CreateTopic, &[], |out| request.encode(out));
        let (meta, _) = self.ask(Kind::Metadata, &[], |out| MetadataRequest { topics: List::of(&["t"]) }.encode(out));
        let reply = MetadataReply::decode(&meta).expect("metadata");
        let topic = reply.topics.iter().next().expect("the topic");
        topic.partitions.iter().next().expect("its partition").uid
    }

    /// Batches that get these offsets, each by a request of its own.
    fn produce(&mut self, uid: u64, offsets: &[u64]) {
        let mut builder = BatchBuilder::new(Limits::default());
        let value = [b'v'; VALUE_BYTES];
        for _ in 0..RECORDS {
            builder
                .push(&NewRecord { value: Some(&value), timestamp_us: self.now.utc_us, ..NewRecord::default() })
                .expect("room for a record");
        }
        let mut batch = Vec::new();
        builder.finish_plain(&mut batch, ProducerMark::default());
        let request = |world: &mut World| {
            world.request(Kind::Produce, &batch, |out| {
                let mut writer = ProduceRequestWriter::begin(out, Level::Durable, 0);
                writer.push(out, &ProduceEntry { partition_uid: uid, batch_len: batch.len() as u32 });
                writer.finish(out);
            })
        };
        let requests: Vec<_> = offsets.iter().map(|_| request(self)).collect();
        for ((meta, _), offset) in self.exchange(&requests).iter().zip(offsets) {
            let result = ProduceReply::decode(meta).expect("a reply").results.iter().next().expect("one batch");
            assert_eq!((result.error, result.base_offset), (ErrorCode::Ok, *offset));
        }
    }

    /// The batches at these offsets, each by a request of its own.
    fn fetch(&mut self, uid: u64, offsets: &[u64]) {
        let request = |world: &mut World, offset: u64| {
            world.request(Kind::Fetch, &[], |out| {
                let mut writer = FetchRequestWriter::begin(out, FetchMode::OneShot, 1000, 1, BATCH_ROOM);
                writer.push(out, &FetchEntry { partition_uid: uid, offset, max_bytes: BATCH_ROOM });
                writer.finish(out);
            })
        };
        let requests: Vec<_> = offsets.iter().map(|offset| request(self, *offset)).collect();
        for ((meta, payload), offset) in self.exchange(&requests).iter().zip(offsets) {
            let reply = FetchReply::decode(meta).expect("a reply");
            let (entry, bytes) = reply.parts(payload).expect("whole batches").next().expect("one partition");
            assert_eq!((entry.error, entry.next_offset), (ErrorCode::Ok, offset + u64::from(RECORDS)));
            assert!(bytes.len() > RECORDS as usize * VALUE_BYTES);
        }
    }
}

/// Produces so many batches and fetches each, `per_turn` requests at a time; answers how many records the counted requests had.
pub fn run(counted: Counted, batches: u64, per_turn: u64) -> u64 {
    let mut world = World::start();
    let uid = world.create_topic();
    // What is set up at the first use of a thing is not counted.
    let (warm, end) = (16 * per_turn, 16 * per_turn + batches);
    for at in (0..end).step_by(per_turn as usize) {
        let offsets: Vec<u64> = (at..end.min(at + per_turn)).map(|number| number * u64::from(RECORDS)).collect();
        world.is_counting = at >= warm && counted == Counted::Produce;
        world.produce(uid, &offsets);
        world.is_counting = at >= warm && counted == Counted::Fetch;
        world.fetch(uid, &offsets);
    }
    batches * u64::from(RECORDS)
}
