//! The core's own instructions: one node of the released code, clients that speak the wire, and disks in memory, over a fixed script.
//!
//! `counted_step` is what callgrind is told to count (`--toggle-collect`), and it is called for the requests of the script alone: neither this program's own work
//! nor the start nor the other kind of request is in the count. `scripts/instructions.sh` runs it and takes checksums and copies apart.
//!
//! Invariants: the same script gives the same events, so the same instructions (but for the hash of a map, none of which is seeded); nothing waits for anything.
//!
//! Not here: ring and sockets (their cost is the kernel's), times.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tramline::api::NodeInfo;
use tramline::config::{self, Machine, Settings, Sources};
use tramline::constants::{TURN_BYTES, TURN_EVERY_US, TURN_US};
use tramline::control::Endpoint;
use tramline::effects::{Effect, Effects, Event, FileOp, Now, Outcome, Token};
use tramline::ids::{ConnId, FileId, NodeId, ShardId};
use tramline::log::{DiskError, LogConfig, LogIdentity, StartDisk, recover};
use tramline::runtime::topology;
use tramline::shard::mesh::Message;
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

/// One shard, its disk, and what it has asked for.
struct Place {
    shard: Shard,
    disk: Ram,
    effects: Effects,
    under_way: Vec<Effect>,
    background_at_us: u64,
    /// Something has come since the last end of a turn.
    has_worked: bool,
}

/// One node: shards that each work where something has come for them, as their loops do.
struct World {
    places: Vec<Place>,
    mail: Vec<(ShardId, ShardId, Message)>,
    now: Now,
    is_counting: bool,
    replies: Vec<Vec<u8>>,
    correlation: u64,
}

fn settings(shards: u16) -> Settings {
    // As many cores as that takes: nothing here runs on them.
    let machine = Machine { cpus: (0..=usize::from(shards)).collect(), memory_bytes: 64 << 30, ..topology::machine() };
    // No segment is full before the end of a script: what sealing costs is not what is asked. Many shards have little each.
    let segment = if shards == 1 { "512MiB" } else { "128MiB" };
    let flags = [("data.dir", "."), ("shards", &shards.to_string()), ("memory.bytes", "256MiB"), ("segment.bytes", segment)];
    let flags = flags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    config::load(&Sources { flags, ..Sources::default() }, &machine).expect("settings").settings(&machine).expect("settings that hold")
}

fn log_config(settings: &Settings, shard: ShardId) -> LogConfig {
    let identity = LogIdentity { cluster_id: [7; 16], node: NodeId(1), log_uid_if_new: 9 + u64::from(shard.0) };
    LogConfig {
        segment_bytes: settings.segment_bytes,
        block_bytes_max: settings.block_bytes_max,
        batch_bytes_max: settings.batch_max_bytes,
        writes_in_flight_max: settings.writes_in_flight_max,
        tail_cache_bytes: settings.tail_cache_bytes,
        pool_segments: 1,
        ..LogConfig::new(identity, shard, settings.shards)
    }
}

impl Place {
    fn start(id: ShardId, settings: &Arc<Settings>, info: &Arc<NodeInfo>) -> Place {
        let mut disk = Ram::default();
        let recovered = recover(&mut disk, &log_config(settings, id)).expect("an empty disk");
        let (settings, info) = (Arc::clone(settings), Arc::clone(info));
        let start = ShardStart { id, settings, info, recovered, joined: None, is_metadata_forced: false };
        let mut effects = Effects::new();
        let shard = Shard::start(start, &mut effects).expect("a start");
        Place { shard, disk, effects, under_way: Vec::new(), background_at_us: 0, has_worked: true }
    }
}

impl World {
    fn start(shards: u16, connections: u64) -> World {
        let settings = Arc::new(settings(shards));
        let client = Endpoint { host: "127.0.0.1".into(), port: 7410, shard_ports: (0..shards).map(|shard| 7411 + shard).collect() };
        let info = NodeInfo { node: NodeId(1), cluster_id: [7; 16], client, disk: 1, generation: 0, rack: String::new(), cluster: None };
        let info = Arc::new(info);
        let mut world = World {
            places: (0..shards).map(|shard| Place::start(ShardId(shard), &settings, &info)).collect(),
            mail: Vec::new(),
            now: Now { mono_us: 1_000_000, utc_us: 1_700_000_000_000_000 },
            is_counting: false,
            replies: Vec::new(),
            correlation: 0,
        };
        (0..world.places.len()).for_each(|at| world.carry(at));
        world.settle();
        assert!(world.places.iter().all(|place| place.shard.is_serving()), "they serve once their first blocks are durable");
        let hello = HelloRequest { protocol_min: 1, protocol_max: 1, client_name: "micro", client_version: "", mechanism: "", auth: b"" };
        for at in 0..world.places.len() {
            for conn in 0..connections {
                world.step(at, Event::Opened { conn: ConnId(conn) });
                let request = world.request(Kind::Hello, &[], |out| hello.encode(out));
                world.exchange(&[(at, ConnId(conn), request)]);
            }
        }
        world
    }

    fn step(&mut self, at: usize, event: Event<'_>) {
        let place = &mut self.places[at];
        let taken = match self.is_counting {
            true => counted_step(&mut place.shard, self.now, event, &mut place.effects),
            false => place.shard.step(self.now, event, &mut place.effects),
        };
        assert_eq!(taken, Taken::Yes, "there is room for all of the script");
        place.has_worked = true;
        self.carry(at);
    }

    fn carry(&mut self, at: usize) {
        let Place { effects, under_way, .. } = &mut self.places[at];
        for effect in effects.list.drain(..) {
            match effect {
                Effect::Send { head, parts, .. } => {
                    let mut bytes = effects.heads[head.start as usize..head.end as usize].to_vec();
                    for part in &effects.parts[parts.start as usize..parts.end as usize] {
                        bytes.extend_from_slice(part.as_slice());
                    }
                    self.replies.push(bytes);
                }
                Effect::Write { .. } | Effect::Read { .. } | Effect::File { .. } => under_way.push(effect),
                Effect::Mesh { to, message } => self.mail.push((ShardId(at as u16), to, message)),
                Effect::Unblock => {}
                other => panic!("{other:?} does not belong to the script"),
            }
        }
        effects.clear();
    }

    /// A turn of each shard's loop that has something to do: what has come, the end of the turn, some background work if it is time: as a
    /// loop that always has something to do has it (one that has nothing to do does more, when nobody waits).
    fn turn(&mut self) {
        for (from, to, message) in std::mem::take(&mut self.mail) {
            self.step(usize::from(to.0), Event::Mesh { from, message });
        }
        for at in 0..self.places.len() {
            for effect in std::mem::take(&mut self.places[at].under_way) {
                let (token, outcome) = self.places[at].disk.carry(effect);
                self.step(at, Event::Done { token, outcome });
            }
            if !self.places[at].has_worked {
                continue;
            }
            self.step(at, Event::EndOfTurn);
            if self.now.mono_us >= self.places[at].background_at_us {
                self.places[at].background_at_us = self.now.mono_us + TURN_EVERY_US;
                self.step(at, Event::Turn { bytes: TURN_BYTES, us: TURN_US });
                self.step(at, Event::EndOfTurn);
            }
            self.places[at].has_worked = false;
        }
    }

    /// Until nothing is under way.
    fn settle(&mut self) {
        self.turn();
        while !self.mail.is_empty() || self.places.iter().any(|place| !place.under_way.is_empty()) {
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

    /// Requests that come within one turn, each to a shard over a connection, and their answers: meta and payload of each.
    fn exchange(&mut self, requests: &[(usize, ConnId, Vec<u8>)]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let took_us = EVERY_US * requests.len() as u64;
        self.now.mono_us += took_us;
        self.now.utc_us += took_us as i64;
        for (at, conn, bytes) in requests {
            let Ok(Need::Whole(frame, _)) = frame::peek(bytes, &frame::Limits::PROTOCOL) else { panic!("a whole frame") };
            self.step(*at, Event::Frame { conn: *conn, frame: &frame });
        }
        self.settle();
        let sent_to: BTreeSet<(usize, ConnId)> = requests.iter().map(|(at, conn, _)| (*at, *conn)).collect();
        for (at, conn) in sent_to {
            self.step(at, Event::Sent { conn, queued_bytes: 0 });
            // Its turn ends with that of what comes next.
            self.places[at].has_worked = false;
        }
        assert_eq!(self.replies.len(), requests.len(), "one answer to each request");
        let replies = self.replies.drain(..).map(|reply| {
            let Ok(Need::Whole(frame, _)) = frame::peek(&reply, &frame::Limits::PROTOCOL) else { panic!("a whole frame") };
            assert_eq!(frame.header.flags & FLAG_ERROR, 0, "a request is refused");
            (frame.meta.to_vec(), frame.payload.to_vec())
        });
        replies.collect()
    }

    /// One request to shard 0, and its answer.
    fn ask(&mut self, kind: Kind, payload: &[u8], meta: impl FnOnce(&mut Vec<u8>)) -> (Vec<u8>, Vec<u8>) {
        let request = self.request(kind, payload, meta);
        self.exchange(&[(0, ConnId(0), request)]).pop().expect("counted")
    }

    /// A topic: its partitions.
    fn create_topic(&mut self, partitions: u32) -> Vec<Partition> {
        let request =
            CreateTopicRequest { name: "t", partitions, replication: 0, flags: CreateFlags::IF_NOT_EXISTS, settings: List::of(&[]) };
        self.ask(Kind::CreateTopic, &[], |out| request.encode(out));
        let (meta, _) = self.ask(Kind::Metadata, &[], |out| MetadataRequest { topics: List::of(&["t"]) }.encode(out));
        let reply = MetadataReply::decode(&meta).expect("metadata");
        let topic = reply.topics.iter().next().expect("the topic");
        topic.partitions.iter().map(|told| Partition { uid: told.uid, at: usize::from(told.leader_shard), next_offset: 0 }).collect()
    }

    /// A batch for each of these partitions, each by a request of its own.
    fn produce(&mut self, to: &[(Partition, ConnId)]) {
        let mut builder = BatchBuilder::new(Limits::default());
        let value = [b'v'; VALUE_BYTES];
        for _ in 0..RECORDS {
            builder
                .push(&NewRecord { value: Some(&value), timestamp_us: self.now.utc_us, ..NewRecord::default() })
                .expect("room for a record");
        }
        let mut batch = Vec::new();
        builder.finish_plain(&mut batch, ProducerMark::default());
        let requests: Vec<_> = to
            .iter()
            .map(|(partition, conn)| {
                let bytes = self.request(Kind::Produce, &batch, |out| {
                    let mut writer = ProduceRequestWriter::begin(out, Level::Durable, 0);
                    writer.push(out, &ProduceEntry { partition_uid: partition.uid, batch_len: batch.len() as u32 });
                    writer.finish(out);
                });
                (partition.at, *conn, bytes)
            })
            .collect();
        for (meta, _) in self.exchange(&requests) {
            let result = ProduceReply::decode(&meta).expect("a reply").results.iter().next().expect("one batch");
            let is_asked =
                |(partition, _): &(Partition, ConnId)| (partition.uid, partition.next_offset) == (result.partition_uid, result.base_offset);
            assert!(result.error == ErrorCode::Ok && to.iter().any(is_asked), "{result:?}");
        }
    }

    /// The batches at these offsets, each by a request of its own.
    fn fetch(&mut self, from: &[(Partition, ConnId)]) {
        let requests: Vec<_> = from
            .iter()
            .map(|(partition, conn)| {
                let bytes = self.request(Kind::Fetch, &[], |out| {
                    let mut writer = FetchRequestWriter::begin(out, FetchMode::OneShot, 1000, 1, BATCH_ROOM);
                    let offset = partition.next_offset;
                    writer.push(out, &FetchEntry { partition_uid: partition.uid, offset, max_bytes: BATCH_ROOM });
                    writer.finish(out);
                });
                (partition.at, *conn, bytes)
            })
            .collect();
        for (meta, payload) in self.exchange(&requests) {
            let reply = FetchReply::decode(&meta).expect("a reply");
            let (entry, bytes) = reply.parts(&payload).expect("whole batches").next().expect("one partition");
            let is_asked = |(partition, _): &(Partition, ConnId)| {
                (partition.uid, partition.next_offset + u64::from(RECORDS)) == (entry.partition_uid, entry.next_offset)
            };
            assert!(entry.error == ErrorCode::Ok && from.iter().any(is_asked), "{entry:?}");
            assert!(bytes.len() > RECORDS as usize * VALUE_BYTES);
        }
    }
}

/// A partition, the shard that leads it, and where the next batch begins.
#[derive(Clone, Copy, Debug)]
struct Partition {
    uid: u64,
    at: usize,
    next_offset: u64,
}

/// What the script is made for.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    /// Which requests are counted.
    pub counted: Counted,
    /// Batches that are produced, and fetched, while it is counted.
    pub batches: u64,
    /// Requests that come within one turn.
    pub per_turn: u64,
    /// Shards of the node; partitions of the topic, and connections of each shard, that have their turn one after another.
    pub shards: u16,
    pub partitions: u32,
    pub connections: u64,
}

/// Produces so many batches and fetches each, `per_turn` requests at a time; answers how many records the counted requests had.
pub fn run(script: &Script) -> u64 {
    let Script { counted, batches, per_turn, shards, partitions, connections } = *script;
    let mut world = World::start(shards, connections);
    let mut topic = world.create_topic(partitions);
    // Those of a shard follow one another, so that what comes within a turn is for one shard, as far as it has so many partitions.
    topic.sort_by_key(|partition| partition.at);
    // What is set up at the first use of a thing is not counted: of every partition and connection.
    let warm = (16 * per_turn).max(2 * u64::from(partitions)).max(2 * connections).next_multiple_of(per_turn);
    for first in (0..warm + batches).step_by(per_turn as usize) {
        let mut requests = Vec::new();
        for number in first..(first + per_turn).min(warm + batches) {
            let partition = &mut topic[number as usize % partitions as usize];
            requests.push((*partition, ConnId(number % connections)));
            partition.next_offset += u64::from(RECORDS);
        }
        world.is_counting = first >= warm && counted == Counted::Produce;
        world.produce(&requests);
        world.is_counting = first >= warm && counted == Counted::Fetch;
        world.fetch(&requests);
    }
    batches * u64::from(RECORDS)
}
