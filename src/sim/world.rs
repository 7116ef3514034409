//! Events and their times: what the edges of all nodes do, in simulated time.
//!
//! Invariants: events are taken in the order of their times, those of one time in the order in which they were planned; an event of a process that has
//! ended is dropped, one of a process that is paused is kept for it.
//!
//! Not here: the loop around a shard (`cycle.rs`), disks (`storage.rs`), processes (`process.rs`, `pauses.rs`, `stopping.rs`), the network between clients and nodes
//! (`net.rs`) and between nodes (`peers.rs`), what clients do (`clients.rs`), when faults come (`run.rs`).

use super::Params;
use super::agenda::Agenda;
use super::net::Conn;
use super::node::{Node, ShardAt};
use super::peers::{Packet, Peers};
use super::totals::{Event as Counted, Totals};
use crate::effects::Event;
use crate::ids::{ConnId, ShardId};
use crate::mutants::Mutants;
use crate::shard::mesh::Message;
use std::collections::BTreeMap;

/// How often the shards are told how much space there is.
const SPACE_EVERY_US: u64 = 1_000_000;

/// The node that clients talk to: while each node is a cluster of one, what one of them keeps the others do not know.
pub(super) const CLIENTS_NODE: usize = 0;

/// Something that happens.
pub(super) enum Item {
    /// Something for a shard, if the process that it was planned for still lives.
    Work {
        at: ShardAt,
        life: u64,
        work: Work,
    },
    /// The first piece of a client's frame arrives.
    Piece {
        conn: u64,
    },
    ToServer {
        conn: u64,
        frame: Vec<u8>,
    },
    ToClient {
        conn: u64,
        frame: Vec<u8>,
    },
    /// A server's shard closed a connection, after what it had sent.
    ServerCloses {
        conn: u64,
    },
    Start {
        node: usize,
        life: u64,
    },
    /// A node that has lost its disk asks to be taken in, if it has not ended since.
    Rejoin {
        node: usize,
        life: u64,
    },
    /// A pause ends, if it is still the one that began then.
    Resume {
        node: usize,
        life: u64,
        began_us: u64,
    },
    /// The last thread of a process that was told to stop has ended, if that was not killed before.
    Stopped {
        node: usize,
        life: u64,
    },
    /// The time that an orderly stop may take is over, if the process still lives.
    StopOverdue {
        node: usize,
        life: u64,
    },
    /// A write lands whose process has died.
    Late {
        at: ShardAt,
        number: u64,
    },
    /// Between two nodes.
    Packet(Packet),
    /// A client's next operation.
    Operation,
    /// The next step of a member of a consumer group.
    MemberStep,
    /// The next step of a consumer of queues.
    QueueStep,
    /// A fault of a node, by its number in `run.rs`.
    Fault {
        node: usize,
        fault: u8,
    },
}

/// What a process is told, and does at once unless it is paused.
pub(super) enum Work {
    DiskDone {
        number: u64,
    },
    Mesh {
        from: usize,
        message: Box<Message>,
    },
    Deadline {
        due_us: u64,
    },
    Turn,
    Opened {
        conn: u64,
    },
    Piece {
        conn: u64,
    },
    Frame {
        conn: u64,
        frame: Vec<u8>,
    },
    Sent {
        conn: u64,
    },
    Closed {
        conn: u64,
    },
    Dialed {
        dial: u64,
        conn: u64,
    },
    DialFailed {
        dial: u64,
        errno: i32,
    },
    /// Some of what was sent to another node has gone out.
    PeerSent {
        conn: u64,
    },
    /// The loop looks whether an orderly stop is through.
    LookAtStop,
    /// A connection that the core closes has nothing left to send, or is not waited for any longer.
    PeerCloses {
        conn: u64,
        is_given_up: bool,
    },
}

/// What the clients see.
pub(super) enum Seen {
    Frame { conn: u64, frame: Vec<u8> },
    Gone { conn: u64 },
    Operation,
    MemberStep,
    QueueStep,
    Fault { node: usize, fault: u8 },
    Rejoin { node: usize },
    Stopped { node: usize },
    StopOverdue { node: usize },
}

pub(super) struct World {
    pub(super) now_us: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) params: Params,
    pub(super) totals: Totals,
    agenda: Agenda<Item>,
    /// Buffers of frames, to be used again.
    spare: Vec<Vec<u8>>,
    pub(super) mutants: Mutants,
    /// Connections of clients.
    pub(super) conns: BTreeMap<u64, Conn>,
    /// Connections between nodes. Their numbers are of one space with the clients'.
    pub(super) peers: Peers,
    pub(super) next_conn: u64,
    pub(super) next_number: u64,
    /// A produce was refused because the disk is full, by the process that clients talk to.
    pub(super) refused_for_space: bool,
    space_told_us: u64,
    pub(super) log: Option<Vec<String>>,
    pub(super) refused: Option<String>,
    /// Why a shard stopped last.
    pub(super) failed: Option<String>,
    /// A decayed block of the shard with the metadata was lost, and the creation of a topic with it, perhaps.
    pub(super) control_lost: bool,
    /// Faults are over.
    pub(super) quiet: bool,
    /// No operation of the disk takes longer than usual.
    pub(super) is_steady: bool,
}

/// Where the core panics, what happened before is all that there is to look at.
impl Drop for World {
    fn drop(&mut self) {
        if let Some(log) = self.log.take().filter(|_| std::thread::panicking()) {
            log.iter().for_each(|line| eprintln!("{line}"));
            self.shards().for_each(|(_, shard)| eprint!("{}", shard.in_words()));
        }
    }
}

impl World {
    pub(super) fn new(seed: u64, params: Params, mutants: Mutants, log: bool) -> World {
        World {
            now_us: 0,
            nodes: (0..params.nodes).map(|index| Node::new(seed, index, &params, mutants)).collect(),
            peers: Peers::new(seed, params.nodes),
            params,
            totals: Totals::default(),
            agenda: Agenda::new(),
            spare: Vec::new(),
            mutants,
            conns: BTreeMap::new(),
            next_conn: 1,
            next_number: 0,
            refused_for_space: false,
            space_told_us: 0,
            log: log.then(Vec::new),
            refused: None,
            failed: None,
            control_lost: false,
            quiet: false,
            is_steady: false,
        }
    }

    pub(super) fn say(&mut self, text: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(format!("{:>12} {}", self.now_us, text()));
        }
    }

    /// Says something of a node; which one only where there are several.
    pub(super) fn say_of(&mut self, node: usize, text: impl FnOnce() -> String) {
        let several = self.nodes.len() > 1;
        self.say(|| if several { format!("node {}: {}", node + 1, text()) } else { text() });
    }

    pub(super) fn plan(&mut self, after_us: u64, item: Item) {
        self.agenda.plan(self.now_us + after_us, item);
    }

    /// Plans something for the process that runs on this node now.
    pub(super) fn plan_work(&mut self, after_us: u64, at: ShardAt, work: Work) {
        let life = self.nodes[at.node].life;
        self.plan(after_us, Item::Work { at, life, work });
    }

    /// An empty buffer for a frame.
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// A frame was read, its buffer is free.
    pub(super) fn give_back(&mut self, mut frame: Vec<u8>) {
        frame.clear();
        self.spare.push(frame);
    }

    /// How many processes the node that clients talk to had before this one.
    pub(super) fn life(&self) -> u64 {
        self.nodes[CLIENTS_NODE].life
    }

    /// What that node's wall clock shows, or showed last.
    pub(super) fn utc_us(&self) -> i64 {
        self.nodes[CLIENTS_NODE].clock.now(self.now_us).utc_us
    }

    /// The latest that it has shown since `from_us`.
    pub(super) fn utc_max_since(&self, from_us: u64) -> i64 {
        self.nodes[CLIENTS_NODE].clock.utc_max_since(self.now_us, from_us)
    }

    /// Whether every node's shards serve.
    pub(super) fn all_serve(&self) -> bool {
        self.nodes.iter().all(Node::is_serving)
    }

    /// Takes the next event; what it means for clients is answered. `None`: nothing is planned before `until_us`.
    pub(super) fn next(&mut self, until_us: u64) -> Option<Option<Seen>> {
        let (at_us, item) = self.agenda.next(until_us)?;
        self.now_us = at_us;
        if self.now_us >= self.space_told_us + SPACE_EVERY_US {
            self.tell_space();
        }
        Some(self.take(item))
    }

    /// What the housekeeping threads tell the shards.
    pub(super) fn tell_space(&mut self) {
        self.space_told_us = self.now_us;
        for node in 0..self.nodes.len() {
            self.tell_space_of(node);
        }
    }

    fn take(&mut self, item: Item) -> Option<Seen> {
        match item {
            Item::Work { at, life, work } if life == self.nodes[at.node].life => {
                self.hand(at, work);
                None
            }
            Item::Work { .. } => None,
            Item::Piece { conn } => {
                let at = self.conns.get(&conn)?.at;
                self.hand(at, Work::Piece { conn });
                None
            }
            Item::ToServer { conn, frame } => {
                let at = self.conns.get(&conn)?.at;
                self.hand(at, Work::Frame { conn, frame });
                None
            }
            Item::ToClient { conn, frame } => {
                // The process may have ended since it has sent this.
                let at = self.conns.get(&conn).map(|state| state.at);
                if at.is_none() && !self.params.is_cluster {
                    return None;
                }
                at.into_iter().for_each(|at| self.hand(at, Work::Sent { conn }));
                Some(Seen::Frame { conn, frame })
            }
            Item::ServerCloses { conn } => {
                self.close(conn);
                Some(Seen::Gone { conn })
            }
            Item::Start { node, life } => {
                if life == self.nodes[node].life {
                    self.start(node);
                }
                None
            }
            Item::Rejoin { node, life } => (life == self.nodes[node].life).then_some(Seen::Rejoin { node }),
            Item::Resume { node, life, began_us } => {
                if life == self.nodes[node].life && self.nodes[node].pause.began_us == Some(began_us) {
                    self.resume(node);
                }
                None
            }
            Item::Stopped { node, life } => (life == self.nodes[node].life).then_some(Seen::Stopped { node }),
            Item::StopOverdue { node, life } => (life == self.nodes[node].life).then_some(Seen::StopOverdue { node }),
            Item::Late { at, number } => {
                self.totals.note(Counted::LateWrites);
                let place = self.nodes[at.node].disks[at.shard].disk.land(number);
                self.say_of(at.node, || format!("shard {}: a write of a dead process lands: {place:?}", at.shard));
                None
            }
            Item::Packet(packet) => {
                self.packet(packet);
                None
            }
            Item::Operation => Some(Seen::Operation),
            Item::MemberStep => Some(Seen::MemberStep),
            Item::QueueStep => Some(Seen::QueueStep),
            Item::Fault { node, fault } => Some(Seen::Fault { node, fault }),
        }
    }

    /// A process is told something, at once or when its pause is over.
    pub(super) fn hand(&mut self, at: ShardAt, work: Work) {
        let node = &mut self.nodes[at.node];
        if node.pause.is_on() {
            return node.pause.keep(at, work);
        }
        match work {
            Work::DiskDone { number } => self.disk_done(at, number),
            Work::Mesh { from, message } => {
                self.totals.note(Counted::MeshMessages);
                if matches!(*message, Message::Stop) {
                    self.begin_stop(at);
                }
                self.step(at, Event::Mesh { from: ShardId(from as u16), message: *message });
                self.end_of_turn(at);
            }
            Work::Deadline { due_us } => {
                let seat = &mut node.seats[at.shard];
                if seat.deadline_us == due_us {
                    seat.deadline_us = u64::MAX;
                    self.step(at, Event::Deadline);
                    self.end_of_turn(at);
                }
            }
            Work::Turn => self.turn(at),
            Work::Opened { conn } => {
                self.step(at, Event::Opened { conn: ConnId(conn) });
                self.end_of_turn(at);
            }
            Work::Piece { conn } => self.piece_came(conn),
            Work::Frame { conn, frame } => self.deliver_to_server(conn, frame),
            Work::Sent { conn } => {
                self.step(at, Event::Sent { conn: ConnId(conn), queued_bytes: 0 });
                self.end_of_turn(at);
            }
            Work::Closed { conn } => {
                self.step(at, Event::Closed { conn: ConnId(conn) });
                self.end_of_turn(at);
            }
            Work::Dialed { dial, conn } => self.on_dialed(at, dial, conn),
            Work::DialFailed { dial, errno } => {
                self.step(at, Event::DialFailed { dial, errno });
                self.end_of_turn(at);
            }
            Work::PeerSent { conn } => self.on_peer_sent(at, conn),
            Work::LookAtStop => self.look_at_stop(at),
            Work::PeerCloses { conn, is_given_up } => self.on_peer_closes(at, conn, is_given_up),
        }
    }
}
