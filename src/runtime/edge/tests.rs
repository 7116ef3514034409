//! The edge over real sockets, with a double of the core that notes what it is told. Time is the test's: it can be moved on, nothing sleeps.

mod nodes;
mod wrong_port;

use super::edge::{Core, Edge, EdgeParts};
use crate::bytes::{Bytes, Slab};
use crate::config::{self, Machine, Settings, Sources};
use crate::effects::{Effect, Effects, Event, Now};
use crate::ids::{ConnId, ShardId};
use crate::metrics::{Health, ShardCounters, ShardMetrics};
use crate::ring::{Ring, RingConfig, Role, RoleLimits};
use crate::shard::Taken;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tramline_wire::frame::finish_frame;
use tramline_wire::node::{self, Kind, Numbers};

/// What takes longer has failed. Generous: the machine may be busy.
const LIMIT: Duration = Duration::from_secs(60);

/// An event, as the double keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Opened(ConnId),
    NodeOpened(ConnId),
    Dialed(u64, ConnId),
    DialFailed(u64, i32),
    /// A client's frame: its correlation.
    Frame(ConnId, u64),
    /// A node's frame: kind, number, meta's length, checksum over meta and payload, payload's length.
    NodeFrame(ConnId, Kind, u64, usize, u32, usize),
    Closed(ConnId),
}

/// Stands in for the core.
struct Double {
    seen: Vec<Seen>,
    /// Whose frames it cannot take.
    blocks: Vec<ConnId>,
    blocked_count: usize,
    metrics: ShardMetrics,
}

impl Core for Double {
    fn step(&mut self, _now: Now, event: Event<'_>, _effects: &mut Effects) -> Taken {
        let seen = match event {
            Event::Opened { conn } => Seen::Opened(conn),
            Event::NodeOpened { conn } => Seen::NodeOpened(conn),
            Event::Dialed { dial, conn } => Seen::Dialed(dial, conn),
            Event::DialFailed { dial, errno } => Seen::DialFailed(dial, errno),
            Event::Frame { conn, .. } | Event::NodeFrame { conn, .. } if self.blocks.contains(&conn) => {
                self.blocked_count += 1;
                return Taken::Blocked;
            }
            Event::Frame { conn, frame } => Seen::Frame(conn, frame.header.correlation),
            Event::NodeFrame { conn, frame } => {
                Seen::NodeFrame(conn, frame.kind, frame.number, frame.meta.len(), sum(frame.meta, frame.payload), frame.payload.len())
            }
            Event::Closed { conn } => Seen::Closed(conn),
            _ => return Taken::Yes,
        };
        self.seen.push(seen);
        Taken::Yes
    }
    fn metrics_mut(&mut self) -> &mut ShardMetrics {
        &mut self.metrics
    }
}

fn sum(meta: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(meta), payload)
}

/// One edge, its double, and where it listens.
struct Desk {
    edge: Edge,
    core: Double,
    clients: SocketAddr,
    nodes: SocketAddr,
    slab: Slab,
    started: Instant,
    /// How far the test has moved the time on.
    moved_us: u64,
    completions: Vec<crate::ring::Completion>,
    _dir: TempDir,
}

fn settings() -> Settings {
    let machine = Machine { cpus: vec![0], memory_bytes: 4 << 30, disk_of: |_| None };
    let given = [("data.dir", "d"), ("cluster.receive.bytes.max", "32MiB"), ("connection.send.queue.bytes", "1MiB")];
    let flags = given.map(|(key, text)| (key.to_owned(), text.to_owned())).to_vec();
    config::load(&Sources { flags, ..Sources::default() }, &machine).unwrap().settings(&machine).unwrap()
}

impl Desk {
    fn new() -> Desk {
        let dir = tempfile::tempdir().unwrap();
        let limits = |recv_bytes_max| RoleLimits { recv_bytes_first: 16 << 10, recv_bytes_max, conns_max: 64 };
        let mut ring = Ring::new(RingConfig {
            entries: 64,
            iowq_cpus: None,
            clients: limits((8 << 20) + 32),
            nodes: limits(crate::constants::NODE_FRAME_BYTES_MAX as usize),
            dir: dir.path().to_path_buf(),
        })
        .unwrap();
        let mut listen = |role| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            ring.add_listener(listener, role);
            address
        };
        let (clients, nodes) = (listen(Role::Client), listen(Role::NodeAccepted));
        let (settings, health, dir_path) = (Arc::new(settings()), Arc::new(Health::new(1)), dir.path().to_path_buf());
        let edge = Edge::new(EdgeParts { id: ShardId(0), settings, ring, effects: Effects::new(), health, dir: dir_path });
        let core = Double { seen: Vec::new(), blocks: Vec::new(), blocked_count: 0, metrics: ShardMetrics::new() };
        let (slab, started, completions) = (Slab::new(256 << 20), Instant::now(), Vec::new());
        Desk { edge, core, clients, nodes, slab, started, moved_us: 0, completions, _dir: dir }
    }

    fn now(&self) -> Now {
        Now { mono_us: 1_000_000 + self.moved_us + self.started.elapsed().as_micros() as u64, utc_us: 0 }
    }

    /// One cycle of the loop, without waiting.
    fn turn(&mut self) {
        let now = self.now();
        let mut completions = std::mem::take(&mut self.completions);
        self.edge.ring.reap(&mut completions);
        if completions.is_empty() {
            std::thread::yield_now();
        }
        for completion in completions.drain(..) {
            self.edge.on_completion(&mut self.core, now, completion);
        }
        self.completions = completions;
        self.edge.retry_blocked(&mut self.core, now);
        self.edge.maybe_sweep(&mut self.core, now);
    }

    /// Turns until `found` gives something.
    fn until<T>(&mut self, mut found: impl FnMut(&mut Desk) -> Option<T>) -> T {
        let until = Instant::now() + LIMIT;
        loop {
            if let Some(found) = found(self) {
                return found;
            }
            assert!(Instant::now() < until, "nothing came; seen: {:?}", self.core.seen);
            self.turn();
        }
    }

    /// Turns until nothing more is to be done right now.
    fn settle(&mut self) {
        while !self.edge.ring.park(Some(Duration::ZERO), || false) {
            self.turn();
        }
        self.turn();
    }

    /// Takes the next event.
    fn next(&mut self) -> Seen {
        self.until(|desk| (!desk.core.seen.is_empty()).then(|| desk.core.seen.remove(0)))
    }

    fn do_effect(&mut self, effect: Effect) {
        self.edge.effects().push(effect);
        let now = self.now();
        self.edge.carry(&mut self.core, now);
    }

    /// As the core sends: a frame whose payload lies in buffers of the slab.
    fn send(&mut self, conn: ConnId, kind: Kind, numbers: &mut Numbers, meta: &[u8], payload: &[u8]) {
        let parts: Vec<Bytes> = payload.chunks(crate::bytes::BUFFER_BYTES_MAX).map(|chunk| bytes(&mut self.slab, chunk)).collect();
        self.edge.effects().send(conn, parts, |out| head(out, kind, numbers, meta, payload.len()));
        let now = self.now();
        self.edge.carry(&mut self.core, now);
    }

    /// A stranger or node at the port for nodes, as std sees it, and as the edge does.
    fn node(&mut self) -> (TcpStream, ConnId) {
        let peer = connect(self.nodes);
        match self.next() {
            Seen::NodeOpened(conn) => (peer, conn),
            other => panic!("{other:?}"),
        }
    }

    fn client(&mut self) -> (TcpStream, ConnId) {
        let peer = connect(self.clients);
        match self.next() {
            Seen::Opened(conn) => (peer, conn),
            other => panic!("{other:?}"),
        }
    }

    fn counters(&mut self) -> ShardCounters {
        let Desk { edge, core, .. } = self;
        edge.fill_metrics(&mut core.metrics);
        core.metrics.counters
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let peer = TcpStream::connect(address).unwrap();
    peer.set_read_timeout(Some(LIMIT)).unwrap();
    peer
}

fn bytes(slab: &mut Slab, content: &[u8]) -> Bytes {
    let mut buf = slab.take(content.len()).unwrap();
    buf.as_mut_slice().copy_from_slice(content);
    slab.freeze(buf)
}

fn head(out: &mut Vec<u8>, kind: Kind, numbers: &mut Numbers, meta: &[u8], payload_bytes: usize) {
    let start = node::begin(out, kind, numbers.advance());
    out.extend_from_slice(meta);
    finish_frame(out, start, payload_bytes).unwrap();
}

/// A frame in one piece.
fn frame(kind: Kind, numbers: &mut Numbers, meta: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    head(&mut out, kind, numbers, meta, payload.len());
    out.extend_from_slice(payload);
    out
}

/// Bytes that differ from place to place.
fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(len).collect()
}
