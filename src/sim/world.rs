//! Events and their times: what the edge does, in simulated time.
//!
//! Invariants: events are taken in the order of their times, those of one time in the order in which they were planned; an event of a process that has
//! ended is dropped.
//!
//! Not here: the loop around a shard (`cycle.rs`), disks (`storage.rs`), networks (`net.rs`), processes (`process.rs`), what clients do (`clients.rs`),
//! when faults come (`run.rs`).

use super::agenda::Agenda;
use super::net::Conn;
use super::node::Node;
use super::totals::{Event as Counted, Totals};
use super::{Dice, Params, UTC_START_US};
use crate::config::DiskLevel;
use crate::effects::{Event, Now};
use crate::ids::{ConnId, ShardId};
use crate::mutants::Mutants;
use crate::shard::mesh::Message;
use std::collections::BTreeMap;

/// How often the shards are told how much space there is.
const SPACE_EVERY_US: u64 = 1_000_000;

/// Something that happens.
pub(super) enum Item {
    DiskDone {
        life: u64,
        shard: usize,
        number: u64,
    },
    /// The first piece of a frame arrives.
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
    Mesh {
        life: u64,
        from: usize,
        to: usize,
        message: Box<Message>,
    },
    Deadline {
        life: u64,
        shard: usize,
        due_us: u64,
    },
    Turn {
        life: u64,
        shard: usize,
    },
    /// A server's shard closed a connection, after what it had sent.
    ServerCloses {
        conn: u64,
    },
    Start {
        life: u64,
    },
    /// A write lands whose process has died.
    Late {
        shard: usize,
        number: u64,
    },
    /// A client's next operation.
    Operation,
    /// The next step of a member of a consumer group.
    MemberStep,
    /// The next step of a consumer of queues.
    QueueStep,
    /// A fault, by its number in `run.rs`.
    Fault(u8),
}

/// What the clients see.
pub(super) enum Seen {
    Frame { conn: u64, frame: Vec<u8> },
    Gone { conn: u64 },
    Operation,
    MemberStep,
    QueueStep,
    Fault(u8),
}

pub(super) struct World {
    pub(super) now_us: u64,
    pub(super) node: Node,
    pub(super) params: Params,
    pub(super) totals: Totals,
    agenda: Agenda<Item>,
    /// Buffers of frames, to be used again.
    spare: Vec<Vec<u8>>,
    /// Counts processes.
    pub(super) life: u64,
    pub(super) life_began_us: u64,
    pub(super) utc_at_start_us: i64,
    /// The wall clock's distance from true time.
    pub(super) wall_offset_us: i64,
    /// What the node's wall clock showed when each process ended, and when that was.
    pub(super) clock_ends: Vec<(u64, i64)>,
    /// The last write of a dead process lands then: until then it holds the lock of the directory.
    pub(super) lock_free_us: u64,
    pub(super) mutants: Mutants,
    pub(super) conns: BTreeMap<u64, Conn>,
    pub(super) next_conn: u64,
    pub(super) next_number: u64,
    /// When the last message from one shard to another arrives.
    pub(super) mesh_last_us: [[u64; 2]; 2],
    pub(super) disk_dice: Dice,
    pub(super) start_dice: Dice,
    pub(super) net_dice: Dice,
    pub(super) slow_until_us: u64,
    pub(super) slow_factor: u64,
    /// Until when somebody else has all space that is left.
    pub(super) full_until_us: u64,
    /// The stage of the last look at the file system.
    pub(super) disk_level: DiskLevel,
    /// When all shards served last.
    pub(super) served_us: u64,
    /// A produce was refused because the disk is full, by this process.
    pub(super) refused_for_space: bool,
    pub(super) space_told_us: u64,
    pub(super) log: Option<Vec<String>>,
    pub(super) refused: Option<String>,
    /// A decayed block of the shard with the metadata was lost, and the creation of a topic with it, perhaps.
    pub(super) control_lost: bool,
    /// Faults are over.
    pub(super) quiet: bool,
    /// No operation of the disk takes longer than usual.
    pub(super) is_steady: bool,
}

impl World {
    pub(super) fn new(seed: u64, params: Params, mutants: Mutants, log: bool) -> World {
        let mut dice = Dice::stream(seed, "node");
        World {
            now_us: 0,
            node: Node::new(&params, mutants, &mut dice),
            params,
            totals: Totals::default(),
            agenda: Agenda::new(),
            spare: Vec::new(),
            life: 0,
            life_began_us: 0,
            utc_at_start_us: UTC_START_US,
            wall_offset_us: 0,
            clock_ends: Vec::new(),
            lock_free_us: 0,
            mutants,
            conns: BTreeMap::new(),
            next_conn: 1,
            next_number: 0,
            mesh_last_us: [[0; 2]; 2],
            disk_dice: Dice::stream(seed, "disk"),
            start_dice: Dice::stream(seed, "starts"),
            net_dice: Dice::stream(seed, "net"),
            slow_until_us: 0,
            slow_factor: 1,
            full_until_us: 0,
            disk_level: DiskLevel::Enough,
            served_us: 0,
            refused_for_space: false,
            space_told_us: 0,
            log: log.then(Vec::new),
            refused: None,
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

    pub(super) fn plan(&mut self, after_us: u64, item: Item) {
        self.agenda.plan(self.now_us + after_us, item);
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

    /// The node's clocks: the monotonic one drifts, the wall clock is read once, at the start.
    pub(super) fn now(&self) -> Now {
        let passed = (self.now_us - self.life_began_us) as i64;
        let mono_us = 1_000_000 + passed + passed * self.params.drift_ppm / 1_000_000;
        Now { mono_us: mono_us as u64, utc_us: self.utc_at_start_us + mono_us }
    }

    /// What the node's wall clock shows, or showed last.
    pub(super) fn utc_us(&self) -> i64 {
        self.now().utc_us
    }

    /// The latest that the node's wall clock has shown since `from_us`: it may jump back from one process to the next.
    pub(super) fn utc_max_since(&self, from_us: u64) -> i64 {
        let ends = self.clock_ends.iter().rev().take_while(|(end_us, _)| *end_us >= from_us);
        ends.map(|(_, utc_us)| *utc_us).fold(self.utc_us(), i64::max)
    }

    /// True time until the node's monotonic clock shows `due_us`.
    pub(super) fn until(&self, due_us: u64) -> u64 {
        let left = due_us.saturating_sub(self.now().mono_us);
        // A slow clock needs more; that a fast one is late by its drift harms nobody.
        left + left * self.params.drift_ppm.min(0).unsigned_abs() / 1_000_000 + u64::from(left > 0)
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

    fn take(&mut self, item: Item) -> Option<Seen> {
        match item {
            Item::DiskDone { life, shard, number } if life == self.life => {
                self.disk_done(shard, number);
                None
            }
            Item::Piece { conn } => {
                self.piece_came(conn);
                None
            }
            Item::ToServer { conn, frame } => {
                self.deliver_to_server(conn, frame);
                None
            }
            Item::ToClient { conn, frame } => {
                let shard = self.conns.get(&conn)?.shard;
                self.step(shard, Event::Sent { conn: ConnId(conn), queued_bytes: 0 });
                self.end_of_turn(shard);
                Some(Seen::Frame { conn, frame })
            }
            Item::Mesh { life, from, to, message } if life == self.life => {
                self.totals.note(Counted::MeshMessages);
                self.step(to, Event::Mesh { from: ShardId(from as u16), message: *message });
                self.end_of_turn(to);
                None
            }
            Item::Deadline { life, shard, due_us } if life == self.life && self.node.seats[shard].deadline_us == due_us => {
                self.node.seats[shard].deadline_us = u64::MAX;
                self.step(shard, Event::Deadline);
                self.end_of_turn(shard);
                None
            }
            Item::Turn { life, shard } if life == self.life => {
                self.turn(shard);
                None
            }
            Item::ServerCloses { conn } => {
                self.close(conn);
                Some(Seen::Gone { conn })
            }
            Item::Start { life } if life == self.life => {
                self.start();
                None
            }
            Item::Late { shard, number } => {
                self.totals.note(Counted::LateWrites);
                let place = self.node.disks[shard].disk.land(number);
                self.say(|| format!("shard {shard}: a write of a dead process lands: {place:?}"));
                None
            }
            Item::Operation => Some(Seen::Operation),
            Item::MemberStep => Some(Seen::MemberStep),
            Item::QueueStep => Some(Seen::QueueStep),
            Item::Fault(number) => Some(Seen::Fault(number)),
            _ => None,
        }
    }
}
