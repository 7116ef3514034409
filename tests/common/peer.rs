//! A client of the broker for tests: one blocking connection, one request after the other or pipelined by hand.
//!
//! It asserts the layout of every reply (nothing missing, nothing left over). Not here: the bytes themselves (`layout`).

use crate::WAIT;
use crate::layout::{self, ERROR, FrameToSend, Get, Got, HEADER_BYTES, MORE, Put, REPLY, Rec, Stored, kind};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One reply frame.
#[derive(Debug)]
pub struct Reply {
    pub kind: u8,
    pub flags: u16,
    pub correlation: u64,
    pub meta: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Reply {
    /// Whether more replies follow with this correlation.
    pub fn more(&self) -> bool {
        self.flags & MORE != 0
    }

    /// The refusal, when it is one.
    pub fn refusal(&self) -> Option<Refusal> {
        (self.flags & ERROR != 0).then(|| {
            let mut meta = Get(&self.meta);
            let (code, retriable, reserved) = (meta.u16(), meta.u8(), meta.u8());
            let refusal = Refusal { code, retriable: retriable == 1, message: meta.str(), next: meta.str() };
            meta.end();
            assert!(retriable <= 1 && reserved == 0, "{refusal:?}");
            refusal
        })
    }
}

/// An error body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: u16,
    pub retriable: bool,
    pub message: String,
    pub next: String,
}

/// Why there was no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoReply {
    /// The broker closed or reset the connection.
    Closed,
    /// Nothing came within the time given.
    Silence,
}

/// A node as hello and metadata tell it.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    pub node: u32,
    pub host: String,
    pub port: u16,
    pub shard_ports: Vec<u16>,
}

/// What hello answered.
#[derive(Clone, Debug)]
pub struct Hello {
    pub protocol: u16,
    pub cluster_id: [u8; 16],
    pub node: u32,
    pub shard: u16,
    pub frame_max: u32,
    pub fetch_frame: u32,
    pub keepalive_ms: u32,
    pub idle_timeout_ms: u32,
    pub apis: Vec<(u8, u8, u8)>,
    pub nodes: Vec<NodeInfo>,
}

/// A partition as metadata tells it.
#[derive(Clone, Debug)]
pub struct Partition {
    pub index: u32,
    pub uid: u64,
    pub group: u32,
    pub leader_node: u32,
    pub leader_shard: u16,
    pub term: u64,
}

/// A topic as metadata tells it.
#[derive(Clone, Debug)]
pub struct Topic {
    pub error: u16,
    pub name: String,
    pub uid: u64,
    pub partitions: Vec<Partition>,
}

/// The result of one batch.
#[derive(Clone, Debug)]
pub struct Produced {
    pub level_reached: u8,
    pub partition_uid: u64,
    pub error: u16,
    pub base_offset: u64,
    pub append_time_us: i64,
    pub durable_end: u64,
}

/// The result of a fetch for one partition.
#[derive(Debug)]
pub struct Fetched {
    pub partition_uid: u64,
    pub error: u16,
    pub log_start: u64,
    pub committed_end: u64,
    pub next_offset: u64,
    pub batches: Vec<Stored>,
}

/// A connection.
pub struct Peer {
    stream: TcpStream,
    next_correlation: u64,
    /// What hello answered, on connections that said it.
    pub hello: Option<Hello>,
}

impl Peer {
    /// Connects and says hello.
    pub fn connect(address: SocketAddr) -> Peer {
        let mut peer = Peer::silent(address);
        let meta = Put::new().u16(1).u16(1).str("tests").str("0").str("").bytes16(b"").0;
        let reply = peer.call(kind::HELLO, meta, Vec::new()).unwrap_or_else(|e| panic!("hello was refused: {e:?}"));
        peer.hello = Some(read_hello(&reply.meta));
        peer
    }

    /// Connects and says nothing.
    pub fn silent(address: SocketAddr) -> Peer {
        let stream = TcpStream::connect_timeout(&address, WAIT).unwrap_or_else(|e| panic!("cannot connect to {address}: {e}"));
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_read_timeout(Some(WAIT)).expect("a read timeout");
        stream.set_write_timeout(Some(WAIT)).expect("a write timeout");
        Peer { stream, next_correlation: 1, hello: None }
    }

    /// The socket.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// The other half, for a test that writes and reads in two threads.
    pub fn split(&self) -> Peer {
        Peer {
            stream: self.stream.try_clone().expect("a second handle of the socket"),
            next_correlation: 1 << 32,
            hello: self.hello.clone(),
        }
    }

    /// Sends bytes as they are. An error (the broker closed already) is the caller's to expect.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a request; gives its correlation.
    pub fn send(&mut self, kind: u8, meta: Vec<u8>, payload: Vec<u8>) -> u64 {
        let correlation = self.next_correlation;
        self.next_correlation += 1;
        let bytes = FrameToSend::new(kind, correlation, meta, payload).bytes();
        self.send_bytes(&bytes).unwrap_or_else(|e| panic!("the broker does not take a request of kind {kind}: {e}"));
        correlation
    }

    /// The next frame, or why there is none.
    pub fn receive(&mut self) -> Result<Reply, NoReply> {
        self.receive_within(WAIT)
    }

    /// As `receive`, with a limit for each read.
    pub fn receive_within(&mut self, limit: Duration) -> Result<Reply, NoReply> {
        self.stream.set_read_timeout(Some(limit)).expect("a read timeout");
        let mut header = [0u8; HEADER_BYTES];
        self.fill(&mut header)?;
        let mut get = Get(&header);
        assert_eq!(get.bytes(4), b"TRL1", "magic of a reply");
        let (kind, version, flags, correlation) = (get.u8(), get.u8(), get.u16(), get.u64());
        let (meta_len, payload_len, reserved, crc) = (get.u32() as usize, get.u32() as usize, get.u32(), get.u32());
        assert_eq!((reserved, flags & REPLY), (0, REPLY), "reserved, reply flag");
        // A reply has its request's version, so only a refusal can carry a strange one.
        assert!(version == 1 || flags & ERROR != 0, "version {version} of a reply");
        assert_eq!(flags & !(REPLY | MORE | ERROR), 0, "flags {flags:#x}");
        assert!(meta_len <= 1 << 20 && payload_len <= 16 << 20, "lengths {meta_len} and {payload_len}");
        let mut reply = Reply { kind, flags, correlation, meta: vec![0; meta_len], payload: vec![0; payload_len] };
        self.fill(&mut reply.meta)?;
        self.fill(&mut reply.payload)?;
        assert_eq!(crc32c::crc32c_append(crc32c::crc32c(&header[..28]), &reply.meta), crc, "checksum of a reply");
        Ok(reply)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), NoReply> {
        match self.stream.read_exact(buffer) {
            Ok(()) => Ok(()),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Err(NoReply::Silence),
            Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                Err(NoReply::Closed)
            }
            Err(e) => panic!("reading failed: {e}"),
        }
    }

    /// Sends a request and waits for its (single) reply; an error reply is the `Err`. Panics when the connection ends instead.
    pub fn call(&mut self, kind: u8, meta: Vec<u8>, payload: Vec<u8>) -> Result<Reply, Refusal> {
        let correlation = self.send(kind, meta, payload);
        let reply = self.receive().unwrap_or_else(|e| panic!("no reply to a request of kind {kind}: {e:?}"));
        assert_eq!((reply.kind, reply.correlation), (kind, correlation), "kind and correlation of the reply");
        match reply.refusal() {
            Some(refusal) => Err(refusal),
            None => Ok(reply),
        }
    }

    /// An id for an idempotent producer.
    pub fn init_producer(&mut self) -> u64 {
        let reply = self.call(kind::INIT_PRODUCER, Vec::new(), Vec::new()).expect("an id");
        let mut get = Get(&reply.meta);
        let (id, kept, reserved, expiry_ms) = (get.u64(), get.u16(), get.u16(), get.u32());
        get.end();
        assert_eq!((kept, reserved), (5, 0));
        assert!(id > 0 && expiry_ms >= 600_000, "{id}, {expiry_ms} ms");
        id
    }

    /// Creates a topic; gives its uid.
    pub fn create_topic(&mut self, name: &str, partitions: u32, settings: &[(&str, &str)]) -> Result<u64, Refusal> {
        let meta = Put::new().str(name).u32(partitions).u16(0).u8(0).pairs(settings).0;
        let reply = self.call(kind::CREATE_TOPIC, meta, Vec::new())?;
        let mut get = Get(&reply.meta);
        let (uid, created, count) = (get.u64(), get.u8(), get.u32());
        get.end();
        assert_eq!((created, count), (1, partitions));
        Ok(uid)
    }

    /// Changes a topic.
    pub fn alter_topic(&mut self, name: &str, partitions: u32, settings: &[(&str, &str)]) -> Result<(), Refusal> {
        self.call(kind::ALTER_TOPIC, Put::new().str(name).u32(partitions).u16(0).pairs(settings).0, Vec::new()).map(|_| ())
    }

    /// Deletes a topic.
    pub fn delete_topic(&mut self, name: &str) -> Result<(), Refusal> {
        self.call(kind::DELETE_TOPIC, Put::new().str(name).0, Vec::new()).map(|_| ())
    }

    /// Metadata of topics (all when none is named).
    pub fn metadata(&mut self, topics: &[&str]) -> (Vec<NodeInfo>, Vec<Topic>) {
        let mut meta = Put::new().u32(topics.len() as u32);
        for topic in topics {
            meta = meta.str(topic);
        }
        let reply = self.call(kind::METADATA, meta.0, Vec::new()).unwrap_or_else(|e| panic!("metadata was refused: {e:?}"));
        read_metadata(&reply.meta)
    }

    /// The partitions of a topic that must exist.
    pub fn partitions(&mut self, topic: &str) -> Vec<Partition> {
        let (_, mut topics) = self.metadata(&[topic]);
        let topic = topics.pop().expect("the topic that was asked for");
        assert_eq!(topic.error, 0, "metadata of {}", topic.name);
        topic.partitions
    }

    /// Creates a topic and gives its partitions.
    pub fn topic(&mut self, name: &str, partitions: u32, settings: &[(&str, &str)]) -> Vec<Partition> {
        self.create_topic(name, partitions, settings).unwrap_or_else(|e| panic!("creating {name} was refused: {e:?}"));
        self.partitions(name)
    }

    /// Sends a produce request; gives its correlation.
    pub fn send_produce(&mut self, level: u8, batches: &[(u64, &[u8])]) -> u64 {
        let (meta, payload) = produce_parts(level, batches);
        self.send(kind::PRODUCE, meta, payload)
    }

    /// Produces and waits for the results.
    pub fn produce(&mut self, level: u8, batches: &[(u64, &[u8])]) -> Result<Vec<Produced>, Refusal> {
        let (meta, payload) = produce_parts(level, batches);
        let reply = self.call(kind::PRODUCE, meta, payload)?;
        Ok(read_produced(&reply.meta))
    }

    /// Produces one batch of records with level durable; gives its base offset.
    pub fn put(&mut self, partition_uid: u64, records: &[Rec]) -> u64 {
        let batch = layout::batch(layout::TIME_US, records);
        let results =
            self.produce(layout::level::DURABLE, &[(partition_uid, &batch)]).unwrap_or_else(|e| panic!("produce was refused: {e:?}"));
        assert_eq!((results.len(), results[0].error), (1, 0), "{results:?}");
        results[0].base_offset
    }

    /// One-shot fetch of one partition. Where records are followed by an error, the records: the next fetch meets the error.
    pub fn fetch(&mut self, partition_uid: u64, offset: u64, max_bytes: u32, max_wait_ms: u32) -> Result<Fetched, Refusal> {
        let reply = self.call(kind::FETCH, fetch_meta(0, max_wait_ms, 1, max_bytes, &[(partition_uid, offset, max_bytes)]), Vec::new())?;
        assert!(!reply.more(), "a one-shot fetch has one reply");
        // A partition can have two entries: what could be read, and the error behind it.
        let mut entries = read_fetched(&reply);
        assert!((1..=2).contains(&entries.len()) && entries.iter().all(|e| e.partition_uid == partition_uid), "{entries:?}");
        assert!(entries.len() == 1 || (entries[0].error == 0 && entries[1].error != 0 && entries[1].batches.is_empty()), "{entries:?}");
        Ok(entries.swap_remove(0))
    }

    /// Everything from `offset` to the committed end, with one-shot fetches: each offset once, in order, without holes (asserted).
    pub fn read_from(&mut self, partition_uid: u64, offset: u64) -> Vec<Got> {
        self.read_what_is_kept(partition_uid, offset)
            .unwrap_or_else(|start| panic!("partition {partition_uid} was read from {offset} on, and begins at {start} now"))
    }

    /// The same; retention may move the partition's start over what was to be read next: then the new start.
    pub fn read_what_is_kept(&mut self, partition_uid: u64, offset: u64) -> Result<Vec<Got>, u64> {
        let mut next = offset;
        let mut records = Vec::new();
        // The first fetch tells the end and does not wait, for there may be nothing; below the end something has to come.
        let mut wait_ms = 0;
        loop {
            let fetched =
                self.fetch(partition_uid, next, 1 << 20, wait_ms).unwrap_or_else(|e| panic!("fetch at {next} was refused: {e:?}"));
            if fetched.error == layout::code::OFFSET_OUT_OF_RANGE && fetched.log_start > next {
                return Err(fetched.log_start);
            }
            assert_eq!(fetched.error, 0, "fetch at {next}: {fetched:?}");
            let before = next;
            for batch in fetched.batches {
                assert_eq!(batch.partition_uid, partition_uid);
                assert!(batch.end_offset > next, "a batch that ends at {} where {next} was asked for", batch.end_offset);
                for record in batch.records {
                    // Only a first batch may begin before the asked offset.
                    if record.offset >= next {
                        assert_eq!(record.offset, next, "no hole and no repetition");
                        next += 1;
                        records.push(record);
                    }
                }
            }
            if next >= fetched.committed_end {
                return Ok(records);
            }
            assert!(next > before || wait_ms == 0, "a fetch at {before}, below the end {}, brings something", fetched.committed_end);
            wait_ms = 10_000;
        }
    }

    /// ListOffsets for one partition: `at` is -2 earliest, -1 latest, or a time in microseconds. Error, offset, timestamp.
    pub fn list_offset(&mut self, partition_uid: u64, at: i64) -> (u16, u64, i64) {
        let meta = Put::new().u32(1).u64(partition_uid).i64(at).0;
        let reply = self.call(kind::LIST_OFFSETS, meta, Vec::new()).unwrap_or_else(|e| panic!("list offsets was refused: {e:?}"));
        let mut get = Get(&reply.meta);
        assert_eq!((get.u32(), get.u64()), (1, partition_uid));
        let error = get.u16();
        // The reserved bytes that bring the offset to its place: what is left beside the two 8-byte fields.
        let reserved = get.0.len() - 16;
        get.bytes(reserved);
        let result = (error, get.u64(), get.i64());
        get.end();
        result
    }

    /// TrimPartitions: (error, log start, committed end) of each entry.
    pub fn trim(&mut self, entries: &[(u64, u64)]) -> Result<Vec<(u16, u64, u64)>, Refusal> {
        let meta = entries.iter().fold(Put::new().u32(entries.len() as u32), |meta, (uid, before)| meta.u64(*uid).u64(*before)).0;
        let reply = self.call(kind::TRIM_PARTITIONS, meta, Vec::new())?;
        let mut get = Get(&reply.meta);
        assert_eq!(get.u32() as usize, entries.len());
        let mut answer = |(uid, _): &(u64, u64)| {
            let (told, error, reserved) = (get.u64(), get.u16(), get.u16());
            assert_eq!((told, reserved), (*uid, 0));
            (error, get.u64(), get.u64())
        };
        let answers = entries.iter().map(&mut answer).collect();
        get.end();
        Ok(answers)
    }

    /// Asserts that the connection works: a ping is answered.
    pub fn ping(&mut self) {
        let reply = self.call(kind::PING, Vec::new(), Vec::new()).unwrap_or_else(|e| panic!("ping was refused: {e:?}"));
        assert!(reply.meta.is_empty() && reply.payload.is_empty());
    }
}

/// Meta and payload of a produce request.
pub fn produce_parts(level: u8, batches: &[(u64, &[u8])]) -> (Vec<u8>, Vec<u8>) {
    produce_parts_within(30_000, level, batches)
}

/// As `produce_parts`, with a time-out in milliseconds.
pub fn produce_parts_within(timeout_ms: u32, level: u8, batches: &[(u64, &[u8])]) -> (Vec<u8>, Vec<u8>) {
    let mut meta = Put::new().u8(level).u8(0).u16(0).u32(timeout_ms).u32(batches.len() as u32);
    let mut payload = Vec::new();
    for (uid, batch) in batches {
        meta = meta.u64(*uid).u32(batch.len() as u32);
        payload.extend_from_slice(batch);
    }
    (meta.0, payload)
}

/// Meta of a fetch request. `mode` 0 is one-shot, 1 streaming.
pub fn fetch_meta(mode: u8, max_wait_ms: u32, min_bytes: u32, credit_bytes: u32, entries: &[(u64, u64, u32)]) -> Vec<u8> {
    let mut meta = Put::new().u8(mode).u8(0).u16(0).u32(max_wait_ms).u32(min_bytes).u32(credit_bytes).u32(entries.len() as u32);
    for (uid, offset, max_bytes) in entries {
        meta = meta.u64(*uid).u64(*offset).u32(*max_bytes);
    }
    meta.0
}

/// Nodes and topics in a metadata reply.
pub fn read_metadata(meta: &[u8]) -> (Vec<NodeInfo>, Vec<Topic>) {
    let mut get = Get(meta);
    let _view_epoch = get.u64();
    let nodes = read_nodes(&mut get);
    let topics = (0..get.u32())
        .map(|_| Topic {
            error: get.u16(),
            name: get.str(),
            uid: get.u64(),
            partitions: (0..get.u32())
                .map(|_| Partition {
                    index: get.u32(),
                    uid: get.u64(),
                    group: get.u32(),
                    leader_node: get.u32(),
                    leader_shard: get.u16(),
                    term: get.u64(),
                })
                .collect(),
        })
        .collect();
    get.end();
    (nodes, topics)
}

/// The results in a produce reply.
pub fn read_produced(meta: &[u8]) -> Vec<Produced> {
    let mut get = Get(meta);
    let level_reached = get.u8();
    let _reserved = (get.u8(), get.u16());
    let _throttle_ms = get.u32();
    let results = (0..get.u32())
        .map(|_| {
            let (partition_uid, error) = (get.u64(), get.u16());
            assert_eq!((get.u16(), get.u32()), (0, 0), "reserved");
            Produced { level_reached, partition_uid, error, base_offset: get.u64(), append_time_us: get.i64(), durable_end: get.u64() }
        })
        .collect();
    get.end();
    results
}

/// The entries of a fetch reply, batches verified.
pub fn read_fetched(reply: &Reply) -> Vec<Fetched> {
    let mut get = Get(&reply.meta);
    let _throttle_ms = get.u32();
    let mut payload = Get(&reply.payload);
    let entries = (0..get.u32())
        .map(|_| {
            let (partition_uid, error, _flags, payload_bytes) = (get.u64(), get.u16(), get.u16(), get.u32() as usize);
            let (log_start, committed_end, _last_stable, next_offset) = (get.u64(), get.u64(), get.u64(), get.u64());
            let mut bytes = payload.bytes(payload_bytes);
            let mut batches = Vec::new();
            while !bytes.is_empty() {
                let batch = layout::read_batch(bytes);
                bytes = &bytes[batch.len..];
                batches.push(batch);
            }
            Fetched { partition_uid, error, log_start, committed_end, next_offset, batches }
        })
        .collect();
    get.end();
    payload.end();
    entries
}

fn read_nodes(get: &mut Get<'_>) -> Vec<NodeInfo> {
    (0..get.u32())
        .map(|_| NodeInfo { node: get.u32(), host: get.str(), port: get.u16(), shard_ports: (0..get.u32()).map(|_| get.u16()).collect() })
        .collect()
}

fn read_hello(meta: &[u8]) -> Hello {
    let mut get = Get(meta);
    let protocol = get.u16();
    let _feature_level = get.u32();
    let cluster_id = get.bytes(16).try_into().expect("16 bytes");
    let (node, shard, frame_max, fetch_frame) = (get.u32(), get.u16(), get.u32(), get.u32());
    let (keepalive_ms, idle_timeout_ms) = (get.u32(), get.u32());
    let apis = (0..get.u32()).map(|_| (get.u8(), get.u8(), get.u8())).collect();
    let _mechanisms: Vec<String> = (0..get.u32()).map(|_| get.str()).collect();
    let _challenge = get.bytes16();
    let nodes = read_nodes(&mut get);
    get.end();
    Hello { protocol, cluster_id, node, shard, frame_max, fetch_frame, keepalive_ms, idle_timeout_ms, apis, nodes }
}
