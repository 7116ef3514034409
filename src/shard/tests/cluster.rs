//! Three nodes of one shard each, whose disks and links the test moves: what was acknowledged as durable survives, whatever ends, is cut or loses its
//! power, and the replicas hold the same.

mod clients;
mod damage;
mod disks;
mod factors;
mod groups;
mod installs;
mod joins;
mod moves;
mod queues;
mod recovering;
mod streams;
mod told;
mod uncommitted;
mod views;

use super::world::{log_config, request_frame, settings};
use crate::config::Settings;
use crate::control::Joined;
use crate::effects::{Effect, Effects, Event, FileOp, Now};
use crate::ids::{ConnId, GroupId, NodeId, ShardId};
use crate::log::checkpoint::CHECKPOINT_NAME;
use crate::log::{LogConfig, LogIdentity, recover};
use crate::shard::{Shard, ShardStart, Taken};
use crate::sim::{Dice, SimDisk, TEARS, replicas};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tramline_wire::error::ErrorCode;
use tramline_wire::frame::{self, Need};
use tramline_wire::hello::HelloRequest;
use tramline_wire::kind::Kind;
use tramline_wire::node;

const NODES: usize = 3;
const CLIENT: ConnId = ConnId(1);
const REFUSED: i32 = 111;
const TIMED_OUT: i32 = 110;
/// A connection whose other end is cut off dies after so long.
const DEAD_US: u64 = 3_000_000;

/// Group 0, and two groups with three replicas for each node.
const REPLICATED: usize = 7;

/// Values of the records of one batch.
type Values = Vec<Vec<u8>>;

struct Node {
    shard: Option<Shard>,
    disk: SimDisk,
    /// Which one: another after each loss.
    disk_number: u64,
    /// It is lost, and the node has not been taken in again.
    is_lost: bool,
    /// Its next start is told to go on with the metadata alone.
    is_metadata_forced: bool,
    effects: Effects,
    deadline_us: u64,
    blocked: VecDeque<(ConnId, Vec<u8>)>,
    /// Frames for the client.
    replies: VecDeque<Vec<u8>>,
    next_conn: u64,
    /// Counts its processes.
    life: u64,
    dials: Vec<Dialing>,
    /// Until then it does nothing.
    paused_until_us: u64,
    /// No operation of its disk ends.
    is_disk_stuck: bool,
    /// No checkpoint of it gets its name.
    are_checkpoints_stuck: bool,
    /// How often it came back at another address.
    moved: u8,
    /// What it was told when it joined.
    joined: Option<Arc<Joined>>,
    /// Connections from programs that are none of the nodes yet, and what was sent to them.
    outside: BTreeMap<ConnId, VecDeque<Vec<u8>>>,
}

/// A connection that a node wants.
struct Dialing {
    dial: u64,
    asked_us: u64,
    to: usize,
    /// At which of its addresses.
    moved: u8,
}

/// One connection between two nodes, and what is on its way in each direction.
struct Link {
    ends: [(usize, ConnId); 2],
    /// Of the processes at its ends.
    lives: [u64; 2],
    under_way: [VecDeque<Vec<u8>>; 2],
    /// Of the frames that each end expects next.
    numbers: [node::Numbers; 2],
    first: [bool; 2],
    /// Since when nothing could be delivered.
    stuck_us: u64,
}

struct Cluster {
    nodes: Vec<Node>,
    links: Vec<Link>,
    /// Which direction between nodes is cut: `cut[from][to]`.
    cut: [[bool; NODES]; NODES],
    now: Now,
    dice: Dice,
    settings: Arc<Settings>,
    next_correlation: u64,
    next_value: u64,
    /// By node and correlation: partitions, and what was sent to each.
    sent: BTreeMap<(usize, u64), Vec<(u64, Values)>>,
    acked: BTreeMap<(u64, u64), Vec<u8>>,
    /// Batches, by why.
    refused: BTreeMap<ErrorCode, usize>,
    uids: Vec<u64>,
    consumers: queues::Consumers,
    shape: Shape,
    /// Taken in by processes that have ended.
    snapshots: u64,
    ledger: replicas::Ledger,
    /// The nodes that are to.
    may_fail: Vec<usize>,
}

/// Sizes of a shard's log and memory.
#[derive(Clone, Copy)]
struct Shape {
    segment_bytes: u64,
    block_bytes_max: u32,
    memory_bytes: usize,
}

fn config(node: usize, disk_number: u64, shape: Shape) -> LogConfig {
    let Shape { segment_bytes, block_bytes_max, .. } = shape;
    let identity = LogIdentity { cluster_id: [7; 16], node: NodeId(node as u32 + 1), log_uid_if_new: 0xFEED_0000 + disk_number };
    LogConfig { identity, segment_bytes, block_bytes_max, tail_cache_bytes: (segment_bytes / 4).min(256 << 10) as usize, ..log_config() }
}

fn address(node: usize, moved: u8) -> std::net::SocketAddr {
    std::net::SocketAddr::from(([10, moved, 0, node as u8 + 1], 7700))
}

impl Cluster {
    fn new(seed: u64) -> Cluster {
        // Nothing that a follower may need is sealed in a run.
        Cluster::with(seed, 4 << 20)
    }

    fn with(seed: u64, segment_bytes: u64) -> Cluster {
        // Some of what a leader has uncommitted is bounded by nobody, and all of it stays in memory: see `queues.rs`.
        Cluster::of_shape(seed, Shape { segment_bytes, block_bytes_max: 16 << 10, memory_bytes: 256 << 20 })
    }

    fn of_shape(seed: u64, shape: Shape) -> Cluster {
        let nodes = (0..NODES).map(|at| Node {
            shard: None,
            disk: SimDisk::new(),
            disk_number: at as u64 + 1,
            is_lost: false,
            is_metadata_forced: false,
            effects: Effects::new(),
            deadline_us: 0,
            blocked: VecDeque::new(),
            replies: VecDeque::new(),
            next_conn: 2,
            life: 0,
            dials: Vec::new(),
            paused_until_us: 0,
            is_disk_stuck: false,
            are_checkpoints_stuck: false,
            moved: 0,
            joined: None,
            outside: BTreeMap::new(),
        });
        let mut cluster = Cluster {
            nodes: nodes.collect(),
            links: Vec::new(),
            cut: [[false; NODES]; NODES],
            now: Now { mono_us: 1_000_000, utc_us: 1_700_000_000_000_000 },
            dice: Dice::stream(seed, "cluster"),
            settings: Arc::new(Settings { memory_bytes: shape.memory_bytes, ..settings(&[("groups.per.shard", "2")]) }),
            next_correlation: 1,
            next_value: 0,
            sent: BTreeMap::new(),
            acked: BTreeMap::new(),
            refused: BTreeMap::new(),
            uids: Vec::new(),
            consumers: queues::Consumers::default(),
            shape,
            snapshots: 0,
            ledger: replicas::Ledger::default(),
            may_fail: Vec::new(),
        };
        cluster.form();
        cluster
    }

    fn start(&mut self, at: usize) {
        let (settings, now, info) = (Arc::clone(&self.settings), self.now, Arc::new(self.info(at)));
        let config = config(at, self.nodes[at].disk_number, self.shape);
        let node = &mut self.nodes[at];
        assert!(node.shard.is_none(), "one process at a time");
        node.life += 1;
        let recovered = recover(&mut node.disk, &config).expect("a start after any crash");
        let joined = node.joined.clone();
        let is_metadata_forced = std::mem::take(&mut node.is_metadata_forced);
        let start = ShardStart { id: ShardId(0), settings, info, recovered, joined, is_metadata_forced };
        node.shard = Some(Shard::start(start, &mut node.effects).expect("the shard starts"));
        node.deadline_us = now.mono_us;
        self.carry(at);
        self.tell(at, Event::Opened { conn: CLIENT });
        let hello = HelloRequest { protocol_min: 1, protocol_max: 1, client_name: "test", client_version: "", mechanism: "", auth: b"" };
        self.request(at, Kind::Hello, &[], |out| hello.encode(out));
    }

    /// The process ends; with `power` the machine.
    fn end(&mut self, at: usize, power: bool) {
        let tear = TEARS[self.dice.below(TEARS.len() as u64) as usize];
        let node = &mut self.nodes[at];
        self.snapshots += node.shard.take().map_or(0, |shard| shard.metrics.counters.snapshots_taken);
        node.effects.clear();
        node.blocked.clear();
        node.replies.clear();
        node.dials.clear();
        match power {
            true => node.disk.crash(tear, &mut self.dice),
            false => node.disk.kill(tear, &mut self.dice),
        }
        self.sent.retain(|(node, _), _| *node != at);
        self.consumers.forget_node(at);
        self.ledger.forget(at);
        // A kernel that lives on resets the connections of its dead process; one without power says nothing.
        if !power {
            self.close_links(|link| link.ends.iter().any(|(node, _)| *node == at));
        }
    }

    fn close_links(&mut self, mut which: impl FnMut(&Link) -> bool) {
        let (gone, kept) = std::mem::take(&mut self.links).into_iter().partition(|link| which(link));
        self.links = kept;
        let gone: Vec<Link> = gone;
        for ((node, conn), life) in gone.into_iter().flat_map(|link| std::iter::zip(link.ends, link.lives)) {
            if self.nodes[node].shard.is_some() && self.nodes[node].life == life {
                self.nodes[node].blocked.retain(|(of, _)| *of != conn);
                self.tell(node, Event::Closed { conn });
            }
        }
    }

    fn step(&mut self, at: usize, event: Event<'_>) -> Taken {
        let now = self.now;
        let node = &mut self.nodes[at];
        let Some(shard) = &mut node.shard else { return Taken::Yes };
        let taken = shard.step(now, event, &mut node.effects);
        self.carry(at);
        taken
    }

    /// An event that is never blocked.
    fn tell(&mut self, at: usize, event: Event<'_>) {
        assert_eq!(self.step(at, event), Taken::Yes);
    }

    fn turn(&mut self, at: usize) {
        // The client takes what was sent to it at once.
        self.tell(at, Event::Sent { conn: CLIENT, queued_bytes: 0 });
        self.tell(at, Event::EndOfTurn);
        let retried: Vec<_> = self.nodes[at].blocked.drain(..).collect();
        for (conn, bytes) in retried {
            self.arrive(at, conn, bytes);
        }
        self.tell(at, Event::Turn { bytes: 1 << 20, us: 50 });
        self.tell(at, Event::EndOfTurn);
    }

    fn carry(&mut self, at: usize) {
        let mut effects = std::mem::take(&mut self.nodes[at].effects);
        let mut closed = Vec::new();
        for effect in effects.list.drain(..) {
            match effect {
                Effect::Send { conn, head, parts } => {
                    let mut bytes = effects.heads[head.start as usize..head.end as usize].to_vec();
                    effects.parts[parts.start as usize..parts.end as usize]
                        .iter()
                        .for_each(|part| bytes.extend_from_slice(part.as_slice()));
                    if conn == CLIENT {
                        self.nodes[at].replies.push_back(bytes);
                    } else if let Some(outside) = self.nodes[at].outside.get_mut(&conn) {
                        outside.push_back(bytes);
                    } else if let Some((link, end)) = self.link_of(at, conn) {
                        self.links[link].under_way[1 - end].push_back(bytes);
                    }
                }
                Effect::Close { conn, .. } => closed.push(conn),
                Effect::Dial { dial, address } => {
                    let std::net::SocketAddr::V4(v4) = address else { panic!("{address}") };
                    let [_, moved, _, number] = v4.ip().octets();
                    self.nodes[at].dials.push(Dialing { dial, asked_us: self.now.mono_us, to: usize::from(number) - 1, moved });
                }
                Effect::Unblock => {}
                Effect::Fatal { .. } if self.may_fail.contains(&at) => {}
                Effect::Fatal { reason } => panic!("node {} fails: {reason}", at + 1),
                Effect::Mesh { .. } => panic!("one shard has nobody to talk to"),
                disk @ (Effect::Write { .. } | Effect::Read { .. } | Effect::File { .. }) => self.nodes[at].disk.under_way.push(disk),
            }
        }
        self.nodes[at].deadline_us = self.nodes[at].deadline_us.min(effects.deadline_us);
        effects.clear();
        self.nodes[at].effects = effects;
        for conn in closed {
            self.deliver_refusal(at, conn);
            self.close_links(|link| link.ends.contains(&(at, conn)));
        }
    }

    /// A socket is closed behind what was sent on it: who dialed hears why its hello was refused.
    fn deliver_refusal(&mut self, at: usize, conn: ConnId) {
        let Some((link, end)) = self.link_of(at, conn) else { return };
        let (other, theirs) = self.links[link].ends[1 - end];
        let is_there = self.links[link].lives[1 - end] == self.nodes[other].life && !self.cut[at][other];
        if self.links[link].first[1 - end] && is_there {
            let frames: Vec<_> = self.links[link].under_way[1 - end].drain(..).collect();
            frames.into_iter().for_each(|bytes| self.arrive(other, theirs, bytes));
        }
    }

    fn link_of(&self, at: usize, conn: ConnId) -> Option<(usize, usize)> {
        self.links.iter().enumerate().find_map(|(link, l)| Some((link, l.ends.iter().position(|end| *end == (at, conn))?)))
    }

    /// A frame arrives; one that finds no room is kept, and everything behind it.
    fn arrive(&mut self, at: usize, conn: ConnId, bytes: Vec<u8>) {
        if self.nodes[at].blocked.iter().any(|(of, _)| *of == conn) {
            return self.nodes[at].blocked.push_back((conn, bytes));
        }
        if conn == CLIENT {
            let Ok(Need::Whole(frame, _)) = frame::peek(&bytes, &frame::Limits::PROTOCOL) else { panic!("the test sends whole frames") };
            if self.step(at, Event::Frame { conn, frame: &frame }) == Taken::Blocked {
                self.nodes[at].blocked.push_back((conn, bytes));
            }
            return;
        }
        let Some((link, end)) = self.link_of(at, conn) else { return };
        let mut numbers = self.links[link].numbers[end];
        let limits = if self.links[link].first[end] { frame::Limits::BEFORE_HELLO } else { frame::Limits::PROTOCOL };
        let whole = match node::peek(&bytes, &limits, &numbers) {
            Ok(node::Need::Whole(frame, len)) => {
                assert_eq!(len, bytes.len());
                frame
            }
            other => panic!("a frame between nodes: {other:?}"),
        };
        match self.step(at, Event::NodeFrame { conn, frame: &whole }) {
            Taken::Blocked => self.nodes[at].blocked.push_back((conn, bytes)),
            Taken::Yes => {
                numbers.advance();
                if let Some((link, end)) = self.link_of(at, conn) {
                    self.links[link].numbers[end] = numbers;
                    self.links[link].first[end] = false;
                }
            }
        }
    }

    fn request(&mut self, at: usize, kind: Kind, payload: &[u8], meta: impl FnOnce(&mut Vec<u8>)) -> u64 {
        let correlation = self.next_correlation;
        self.next_correlation += 1;
        self.arrive(at, CLIENT, request_frame(correlation, kind, payload, meta));
        correlation
    }

    /// Something happens: the clock goes on a little, and one node is given what has come for it.
    fn happen(&mut self) {
        if let Some(at) = self.happen_but_replies() {
            self.take_replies(at);
        }
    }

    /// The same, and what was sent to the client stays where it is. Answers which node it was, if any.
    fn happen_but_replies(&mut self) -> Option<usize> {
        let us = 20 + self.dice.below(400);
        (self.now.mono_us, self.now.utc_us) = (self.now.mono_us + us, self.now.utc_us + us as i64);
        let at = self.dice.below(NODES as u64) as usize;
        if self.nodes[at].shard.is_none() || self.nodes[at].paused_until_us > self.now.mono_us {
            self.expire_links();
            return None;
        }
        let ops = self.nodes[at].disk.under_way.len() as u64;
        if ops > 0 && !self.nodes[at].is_disk_stuck && self.dice.chance(60) {
            let index = self.dice.below(ops) as usize;
            let gives_name = match &self.nodes[at].disk.under_way[index] {
                Effect::File { op: FileOp::Rename { to, .. }, .. } => Some(to),
                Effect::File { op: FileOp::Exchange { second, .. }, .. } => Some(second),
                _ => None,
            };
            let is_of_checkpoint = gives_name.is_some_and(|name| &**name == CHECKPOINT_NAME);
            if !(is_of_checkpoint && self.nodes[at].are_checkpoints_stuck) {
                let (token, outcome) = self.nodes[at].disk.complete(index);
                self.tell(at, Event::Done { token, outcome });
            }
        }
        self.dial(at);
        for link in 0..self.links.len() {
            self.deliver(at, link);
        }
        if self.nodes[at].deadline_us <= self.now.mono_us {
            self.nodes[at].deadline_us = u64::MAX;
            self.tell(at, Event::Deadline);
        }
        // Now and then more comes before the turn ends.
        if self.dice.chance(70) {
            self.turn(at);
        }
        self.expire_links();
        Some(at)
    }

    fn dial(&mut self, at: usize) {
        for dialing in std::mem::take(&mut self.nodes[at].dials) {
            let Dialing { dial, asked_us, to, moved } = dialing;
            if self.cut[at][to] || self.cut[to][at] {
                match self.now.mono_us > asked_us + 1_000_000 {
                    true => self.tell(at, Event::DialFailed { dial, errno: TIMED_OUT }),
                    false => self.nodes[at].dials.push(dialing),
                }
                continue;
            }
            if self.nodes[to].shard.is_none() || self.nodes[to].moved != moved {
                self.tell(at, Event::DialFailed { dial, errno: REFUSED });
                continue;
            }
            let conn = |node: &mut Node| {
                node.next_conn += 1;
                ConnId(node.next_conn)
            };
            let ends = [(at, conn(&mut self.nodes[at])), (to, conn(&mut self.nodes[to]))];
            self.links.push(Link {
                ends,
                lives: [self.nodes[at].life, self.nodes[to].life],
                under_way: [VecDeque::new(), VecDeque::new()],
                numbers: [node::Numbers::new(); 2],
                first: [true; 2],
                stuck_us: 0,
            });
            self.tell(to, Event::NodeOpened { conn: ends[1].1 });
            self.tell(at, Event::Dialed { dial, conn: ends[0].1 });
        }
    }

    /// Some of what is on its way to `at` over a link arrives.
    fn deliver(&mut self, at: usize, link: usize) {
        let Some(end) = self.links.get(link).and_then(|l| l.ends.iter().position(|(node, _)| *node == at)) else { return };
        let (conn, from) = (self.links[link].ends[end].1, self.links[link].ends[1 - end].0);
        if self.cut[from][at] {
            return;
        }
        // The kernel of a machine that was started again knows nothing of the connection, and says so.
        if self.links[link].lives[end] != self.nodes[at].life {
            let ends = self.links[link].ends;
            return self.close_links(|link| link.ends == ends);
        }
        for _ in 0..self.dice.below(4) {
            let Some(bytes) = self.links.get_mut(link).and_then(|l| l.under_way[end].pop_front()) else { return };
            self.links[link].stuck_us = 0;
            self.arrive(at, conn, bytes);
            if self.link_of(at, conn).is_none_or(|(now, _)| now != link) {
                return;
            }
        }
    }

    /// A connection with bytes that do not get through, or whose peer is another process by now, ends in the end.
    fn expire_links(&mut self) {
        let now_us = self.now.mono_us;
        let (nodes, cut) = (&self.nodes, &self.cut);
        for link in &mut self.links {
            let [(a, _), (b, _)] = link.ends;
            let is_stuck = link.lives != [nodes[a].life, nodes[b].life]
                || cut[a][b]
                || cut[b][a]
                || nodes[a].shard.is_none()
                || nodes[b].shard.is_none();
            match (is_stuck, link.stuck_us) {
                (false, _) => link.stuck_us = 0,
                (true, 0) => link.stuck_us = now_us,
                _ => {}
            }
        }
        if self.links.iter().any(|link| link.stuck_us > 0 && now_us > link.stuck_us + DEAD_US) {
            self.close_links(|link| link.stuck_us > 0 && now_us > link.stuck_us + DEAD_US);
        }
    }

    fn happen_until(&mut self, what: &str, mut is_there: impl FnMut(&Cluster) -> bool) {
        for _ in 0..200_000 {
            if is_there(self) {
                return;
            }
            self.happen();
        }
        panic!("{what} does not come about by {}: {:?}\n{}", self.now.mono_us, self.leaders(), self.describe());
    }

    /// The shards that run, with their nodes.
    fn shards(&self) -> impl Iterator<Item = (usize, &Shard)> {
        self.nodes.iter().enumerate().filter_map(|(at, node)| Some((at, node.shard.as_ref()?)))
    }

    /// Per group: nodes that lead it and have committed their first entry.
    fn leaders(&self) -> BTreeMap<GroupId, Vec<usize>> {
        replicas::leaders(self.shards())
    }

    /// The node that leads a group: at once, or when it has been handed over.
    fn leader_of(&mut self, group: GroupId) -> usize {
        self.happen_until("a leader", |cluster| cluster.leaders().get(&group).is_some_and(|nodes| nodes.len() == 1));
        self.leaders()[&group][0]
    }

    fn is_led(&self) -> bool {
        replicas::is_led(&self.leaders())
    }

    /// Nobody has anything left to do: every replica has what its leader has, and has taken it in.
    fn is_quiet(&self) -> bool {
        replicas::is_at_rest(&self.shards().collect::<Vec<_>>()).is_ok()
    }

    /// Those of `leaders` whose groups have three voters.
    fn replicated(&self) -> BTreeMap<GroupId, Vec<usize>> {
        let mut leaders = self.leaders();
        leaders.retain(|group, _| self.nodes.iter().filter_map(|node| node.shard.as_ref()).any(|shard| has_three_voters(shard, *group)));
        leaders
    }

    /// One fault, or the end of some.
    fn fault(&mut self) {
        let at = self.dice.below(NODES as u64) as usize;
        match self.dice.below(8) {
            0 if self.nodes[at].shard.is_some() => self.end(at, false),
            1 if self.nodes[at].shard.is_some() => self.end(at, true),
            2 => (0..NODES).for_each(|other| (self.cut[at][other], self.cut[other][at]) = (true, true)),
            3 => self.cut[at][(at + 1) % NODES] = true,
            4 => self.nodes[at].paused_until_us = self.now.mono_us + 3_000_000,
            5 if self.dice.chance(30) => {
                let up: Vec<_> = (0..NODES).filter(|node| self.nodes[*node].shard.is_some()).collect();
                up.into_iter().for_each(|node| self.end(node, true));
            }
            _ => self.heal(),
        }
    }

    fn heal(&mut self) {
        self.cut = [[false; NODES]; NODES];
        for at in 0..NODES {
            self.nodes[at].paused_until_us = 0;
            if self.nodes[at].shard.is_none() && !self.nodes[at].is_lost {
                self.start(at);
            }
        }
    }

    /// Nobody is asked for anything for a while.
    fn pass(&mut self, us: u64) {
        let until_us = self.now.mono_us + us;
        while self.now.mono_us < until_us {
            self.happen();
        }
    }

    /// Requests, with so many happenings behind each.
    fn work(&mut self, requests: usize, happenings: usize) {
        for _ in 0..requests {
            self.produce();
            (0..happenings).for_each(|_| self.happen());
        }
    }

    /// One node, whose place is told, has ended, and the others have freed what it would need.
    fn with_one_behind(seed: u64) -> (Cluster, usize) {
        let mut cluster = Cluster::with(seed, 128 << 10);
        cluster.create_topic();
        cluster.happen_until("rest", Cluster::is_quiet);
        let behind = cluster.dice.below(NODES as u64) as usize;
        cluster.end(behind, false);
        cluster.work(1500, 8);
        cluster.pass(3_000_000);
        (cluster, behind)
    }

    /// A fault, its time, and its end.
    fn fault_for_a_while(&mut self) {
        self.fault();
        let us = self.dice.below(3_000_000);
        self.pass(us);
        self.heal();
    }
}

fn has_three_voters(shard: &Shard, group: GroupId) -> bool {
    shard.groups.members_of(group).is_some_and(|members| members.voters.len() == NODES)
}

#[test]
fn three_nodes_elect_replicate_and_acknowledge() {
    let mut cluster = Cluster::new(1);
    cluster.create_topic();
    for _ in 0..200 {
        cluster.produce();
        (0..20).for_each(|_| cluster.happen());
    }
    let before = cluster.acked.len();
    assert!(before > 50, "{before} records were acknowledged");
    cluster.check();
}

#[test]
fn a_leader_without_a_majority_acknowledges_nothing() {
    let mut cluster = Cluster::new(2);
    cluster.create_topic();
    (1..NODES).for_each(|other| cluster.end(other, false));
    let acked = cluster.acked.len();
    for _ in 0..100 {
        cluster.produce();
        (0..20).for_each(|_| cluster.happen());
    }
    assert_eq!(cluster.acked.len(), acked);
    let cut_us = cluster.now.mono_us;
    let says_so =
        |shard: &Shard| shard.group_ids.iter().any(|group| has_three_voters(shard, *group) && shard.groups.leader_term(*group).is_some());
    cluster.happen_until("the end of its lease", |cluster| !cluster.nodes[0].shard.as_ref().is_some_and(says_so));
    assert!(cluster.now.mono_us < cut_us + 1_000_000, "within the election time-out it does not even say that it leads");
    cluster.heal();
    cluster.happen_until("rest", Cluster::is_quiet);
    cluster.check();
}

/// Records acknowledged, elections, and snapshots taken in.
fn survives(seed: u64, segment_bytes: u64) -> (usize, u64, u64) {
    let mut cluster = Cluster::with(seed, segment_bytes);
    cluster.create_topic();
    for round in 0..400 {
        cluster.produce();
        let happenings = cluster.dice.below(40);
        (0..happenings).for_each(|_| cluster.happen());
        if round % 8 == 7 {
            cluster.fault();
            // Long enough, now and then, for a lease and an election.
            let us = if cluster.dice.chance(25) { cluster.dice.below(4_000_000) } else { 0 };
            cluster.pass(us);
        }
        if round % 50 == 49 {
            cluster.check_replicas();
        }
    }
    cluster.heal();
    cluster.happen_until("rest", Cluster::is_quiet);
    replicas::check_metadata(&cluster.shards().collect::<Vec<_>>()).expect("the metadata are the same on all nodes");
    let first = cluster.check();
    // Whoever leads next has the same: each one ends in turn, and comes back.
    for at in 0..NODES {
        cluster.end(at, true);
        cluster.happen_until("leaders without one node", |cluster| {
            let leaders = cluster.replicated();
            leaders.len() == REPLICATED && leaders.values().all(|nodes| nodes.len() == 1 && nodes[0] != at)
        });
        cluster.start(at);
        cluster.happen_until("rest with it", Cluster::is_quiet);
        for (uid, records) in cluster.check() {
            let before = &first[&uid];
            assert!(before.iter().all(|(offset, value)| records.get(offset) == Some(value)), "what was served of {uid} is served again");
        }
    }
    let counters = || cluster.nodes.iter().filter_map(|node| node.shard.as_ref()).map(|shard| &shard.metrics.counters);
    let elections = counters().map(|c| c.groups_elected).sum();
    let snapshots: u64 = counters().map(|c| c.snapshots_taken).sum();
    (cluster.acked.len(), elections, snapshots + cluster.snapshots)
}

/// The first ones, unless a campaign by hand takes others: TRAMLINE_CLUSTER_SEEDS=100..900
fn seeds(variable: &str, count: u64) -> std::ops::Range<u64> {
    let asked = std::env::var(variable).ok();
    let asked = asked.as_deref().and_then(|seeds| seeds.split_once(".."));
    asked.map_or(0..count, |(from, to)| from.parse().unwrap()..to.parse().unwrap())
}

#[test]
fn what_was_acknowledged_survives_faults_of_all_kinds() {
    let (mut acked, mut elections) = (0, 0);
    for seed in seeds("TRAMLINE_CLUSTER_SEEDS", 6) {
        println!("seed {seed}");
        let (of_seed, of_seed_elections, _) = survives(seed, 4 << 20);
        acked += of_seed;
        elections += of_seed_elections;
    }
    assert!(acked > 1000 && elections > 20, "{acked} records acknowledged, {elections} elections");
}

#[test]
fn who_was_away_for_too_long_gets_a_snapshot() {
    let (mut acked, mut snapshots) = (0, 0);
    for seed in seeds("TRAMLINE_CLUSTER_SNAPSHOT_SEEDS", 6) {
        let (of_seed, _, of_seed_snapshots) = survives(seed, 128 << 10);
        println!("seed {seed}: {of_seed_snapshots} snapshots");
        acked += of_seed;
        snapshots += of_seed_snapshots;
    }
    assert!(acked > 1000 && snapshots > 10, "{acked} records acknowledged, {snapshots} snapshots");
}
