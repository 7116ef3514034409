//! Events and their times: what the edge does, in simulated time.
//!
//! The loop around a shard is the runtime's: an event, the end of a turn, at most once a millisecond a background turn, and the deadline asked for.
//! A connection keeps the order of its frames both ways; a cut connection loses what was on the way.
//!
//! Invariants: events are taken in the order of their times, those of one time in the order in which they were planned; an event of a process that has
//! ended is dropped.
//!
//! Not here: what clients do (`clients.rs`), when faults come (`run.rs`).

use super::agenda::Agenda;
use super::disk::{TEARS, Tear};
use super::net::Conn;
use super::node::{Node, Started};
use super::totals::{Event as Counted, Totals};
use super::{Dice, Params, UTC_START_US};
use crate::config::{DiskLevel, DiskSize};
use crate::effects::{Effect, Event, Now, Outcome};
use crate::ids::{ConnId, ShardId};
use crate::mutants::{Mutant, Mutants};
use crate::shard::Taken;
use crate::shard::mesh::Message;
use std::collections::BTreeMap;
use tramline_wire::frame::{self, Need};
use tramline_wire::kind::Kind;

/// A background turn at most this often, and how much it may do: the runtime's numbers.
const TURN_EVERY_US: u64 = 1000;
const TURN_BYTES: u64 = 4 << 20;
/// How long a node on a full disk serves nobody before somebody gives it space.
const OPERATOR_US: u64 = 5_000_000;
/// How often the shards are told how much space there is.
const SPACE_EVERY_US: u64 = 1_000_000;
/// How long after the death of its process a write may land (some 100 ms were seen; more gives a start that does not wait its chance).
const LATE_US: u64 = 700_000;
/// What one cycle of the loop takes at least.
const CYCLE_US: u64 = 5;

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
    life_began_us: u64,
    utc_at_start_us: i64,
    /// The wall clock's distance from true time.
    wall_offset_us: i64,
    /// What the node's wall clock showed when each process ended, and when that was.
    clock_ends: Vec<(u64, i64)>,
    /// The last write of a dead process lands then: until then it holds the lock of the directory.
    lock_free_us: u64,
    mutants: Mutants,
    pub(super) conns: BTreeMap<u64, Conn>,
    pub(super) next_conn: u64,
    next_number: u64,
    /// When the last message from one shard to another arrives.
    mesh_last_us: [[u64; 2]; 2],
    disk_dice: Dice,
    start_dice: Dice,
    pub(super) net_dice: Dice,
    pub(super) slow_until_us: u64,
    slow_factor: u64,
    /// Until when somebody else has all space that is left.
    pub(super) full_until_us: u64,
    /// The stage of the last look at the file system.
    disk_level: DiskLevel,
    /// When all shards served last.
    served_us: u64,
    /// A produce was refused because the disk is full, by this process.
    pub(super) refused_for_space: bool,
    space_told_us: u64,
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
    fn now(&self) -> Now {
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
    fn until(&self, due_us: u64) -> u64 {
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

    // --- the shard's loop -------------------------------------------------------------------------------------------------------

    pub(super) fn step(&mut self, shard: usize, event: Event<'_>) -> Option<Taken> {
        let now = self.now();
        let seat = self.node.seats.get_mut(shard)?;
        let taken = seat.shard.step(now, event, &mut seat.effects);
        self.carry(shard);
        Some(taken)
    }

    pub(super) fn end_of_turn(&mut self, shard: usize) {
        self.step(shard, Event::EndOfTurn);
        self.retry(shard);
        let now = self.now().mono_us;
        let Some(seat) = self.node.seats.get_mut(shard) else { return };
        if !seat.turn_planned {
            seat.turn_planned = true;
            let after = (seat.last_turn_us + TURN_EVERY_US).saturating_sub(now);
            self.plan(after, Item::Turn { life: self.life, shard });
        }
    }

    fn turn(&mut self, shard: usize) {
        let now = self.now().mono_us;
        let Some(seat) = self.node.seats.get_mut(shard) else { return };
        (seat.turn_planned, seat.last_turn_us) = (false, now);
        self.step(shard, Event::Turn { bytes: TURN_BYTES, us: crate::constants::TURN_US });
        self.step(shard, Event::EndOfTurn);
        self.retry(shard);
    }

    fn retry(&mut self, shard: usize) {
        let Some(seat) = self.node.seats.get_mut(shard) else { return };
        if std::mem::take(&mut seat.retry) {
            for (conn, frame) in std::mem::take(&mut seat.blocked) {
                self.frame(shard, conn, frame);
            }
        }
    }

    /// A frame for the core. One that is blocked is kept, and those behind it on the same connection wait with it.
    pub(super) fn frame(&mut self, shard: usize, conn: ConnId, bytes: Vec<u8>) {
        let Some(seat) = self.node.seats.get_mut(shard) else { return };
        if seat.blocked.iter().any(|(c, _)| *c == conn) {
            return seat.blocked.push_back((conn, bytes));
        }
        let Ok(Need::Whole(frame, _)) = frame::peek(&bytes, &frame::Limits::PROTOCOL) else { panic!("clients send whole frames") };
        match self.step(shard, Event::Frame { conn, frame: &frame }) {
            Some(Taken::Blocked) => {
                if frame.header.kind == Kind::Produce.as_u8() && self.disk_level >= DiskLevel::Slow {
                    self.totals.note(Counted::ProducersSlowed);
                }
                self.node.seats[shard].blocked.push_back((conn, bytes));
            }
            _ => {
                self.give_back(bytes);
                self.tell_piece(shard, conn);
            }
        }
    }

    fn carry(&mut self, shard: usize) {
        let seat = &mut self.node.seats[shard];
        if seat.effects.list.is_empty() && seat.effects.deadline_us >= seat.deadline_us {
            return seat.effects.clear();
        }
        let mut effects = std::mem::take(&mut seat.effects);
        let deadline_us = effects.deadline_us;
        for effect in effects.list.drain(..) {
            match effect {
                Effect::Send { conn, head, parts } => {
                    let mut frame = self.buffer();
                    frame.extend_from_slice(&effects.heads[head.start as usize..head.end as usize]);
                    effects.parts[parts.start as usize..parts.end as usize]
                        .iter()
                        .for_each(|part| frame.extend_from_slice(part.as_slice()));
                    self.deliver_to_client(conn.0, frame);
                }
                Effect::Close { conn, .. } => {
                    let after = self.conns.get(&conn.0).map_or(0, |c| c.last_to_client_us.saturating_sub(self.now_us));
                    self.plan(after, Item::ServerCloses { conn: conn.0 });
                }
                Effect::Unblock => self.node.seats[shard].retry = true,
                Effect::Fatal { reason } => {
                    self.say(|| format!("shard {shard} stops: {reason}"));
                    self.totals.note(Counted::ShardsFailed);
                    self.node.seats[shard].failed = true;
                    // What a start could not make sense of is told with the first view.
                    if reason.starts_with("what is stored of") {
                        self.refused = Some(reason);
                    }
                }
                Effect::Dial { address, .. } => unreachable!("no shard dials {address}"),
                Effect::Mesh { to, message } => {
                    // Inboxes are queues: messages of a pair of shards keep their order.
                    let last = &mut self.mesh_last_us[shard][usize::from(to.0)];
                    *last = (*last).max(self.now_us + self.net_dice.within(1..20));
                    let after = *last - self.now_us;
                    self.plan(after, Item::Mesh { life: self.life, from: shard, to: usize::from(to.0), message: Box::new(message) });
                }
                operation @ (Effect::Write { .. } | Effect::Read { .. } | Effect::File { .. }) => self.begin(shard, operation),
            }
        }
        effects.clear();
        let seat = &mut self.node.seats[shard];
        seat.effects = effects;
        if deadline_us < seat.deadline_us {
            seat.deadline_us = deadline_us;
            // A turn of the loop takes its time: who asks for "now" is asked again a moment later.
            let after = self.until(deadline_us).max(CYCLE_US);
            self.plan(after, Item::Deadline { life: self.life, shard, due_us: deadline_us });
        }
    }

    // --- the disk ---------------------------------------------------------------------------------------------------------------

    fn begin(&mut self, shard: usize, operation: Effect) {
        let dice = &mut self.disk_dice;
        let took_us = match &operation {
            Effect::Write { data, .. } => dice.within(60..200) + data.len() as u64 / 2000,
            Effect::Read { buf, .. } => dice.within(40..150) + buf.len() as u64 / 2000,
            _ => dice.within(20..500),
        };
        // Some take their time, so that the order of ends is not that of beginnings.
        let took_us = if dice.once_in(20) && !self.is_steady { took_us * dice.within(2..20) } else { took_us };
        let took_us = if self.now_us < self.slow_until_us { took_us * self.slow_factor } else { took_us };
        self.next_number += 1;
        let disk = &mut self.node.disks[shard];
        disk.disk.under_way.push(operation);
        disk.numbers.push(self.next_number);
        self.plan(took_us, Item::DiskDone { life: self.life, shard, number: self.next_number });
    }

    fn disk_done(&mut self, shard: usize, number: u64) {
        let disk = &mut self.node.disks[shard];
        let Some(index) = disk.numbers.iter().position(|n| *n == number) else { return };
        if !self.quiet {
            let dice = &mut self.disk_dice;
            match &disk.disk.under_way[index] {
                Effect::Write { data, .. } => {
                    if dice.once_in(self.params.short_write_in) && data.len() > 4096 {
                        disk.disk.short_next_write = Some(dice.within(1..data.len() as u64 / 512) as u32 * 512);
                        self.totals.note(Counted::ShortWrites);
                    } else if dice.once_in(self.params.write_error_in) {
                        disk.disk.fail_next_write = Some(super::disk::EIO);
                        self.totals.note(Counted::WriteErrors);
                    }
                }
                Effect::Read { .. } => {
                    self.totals.note(Counted::ColdReads);
                    if dice.once_in(self.params.read_error_in) {
                        disk.disk.fail_next_read = Some(super::disk::EIO);
                        self.totals.note(Counted::ReadErrors);
                    }
                }
                Effect::File { .. } if dice.once_in(self.params.dir_error_in) => {
                    disk.disk.fail_next_file = Some((super::disk::EIO, dice.chance(50)));
                    self.totals.note(Counted::DirErrors);
                }
                _ => {}
            }
        }
        let Some((token, outcome)) = disk.complete(number) else { return };
        if matches!(outcome, Outcome::Read(_, Err(_))) {
            self.say(|| format!("shard {shard}: a read fails"));
        }
        if let Outcome::Write(Err(errno)) | Outcome::File(Err(errno)) = &outcome {
            let (errno, what) = (*errno, if matches!(outcome, Outcome::Write(_)) { "a write" } else { "an operation on names" });
            self.say(|| format!("shard {shard}: {what} ends with {errno}"));
        }
        self.step(shard, Event::Done { token, outcome });
        self.end_of_turn(shard);
    }

    /// Whether a write is under way.
    pub(super) fn is_writing(&self) -> bool {
        self.node.disks.iter().any(|disk| disk.disk.under_way.iter().any(|operation| matches!(operation, Effect::Write { .. })))
    }

    pub(super) fn begin_slow_period(&mut self) {
        self.totals.note(Counted::SlowPeriods);
        self.slow_factor = self.disk_dice.within(10..300);
        self.slow_until_us = self.now_us + self.disk_dice.within(50_000..1_500_000);
    }

    // --- the process ------------------------------------------------------------------------------------------------------------

    /// Starts the node, maybe interrupted in the middle.
    pub(super) fn start(&mut self) {
        if self.now_us < self.lock_free_us && !self.mutants.has(Mutant::StartWithoutLock) {
            // The lock is held until the last write of the process before has landed.
            self.totals.note(Counted::StartsWaited);
            return self.plan(self.lock_free_us - self.now_us, Item::Start { life: self.life });
        }
        let dice = &mut self.disk_dice;
        let interrupt = !self.quiet && self.life > 0 && self.params.crash_every_us > 0 && dice.chance(15);
        let tear = TEARS[dice.below(TEARS.len() as u64) as usize];
        let interrupt = interrupt.then(|| (dice.below(60), tear, Dice(dice.next())));
        self.life_began_us = self.now_us;
        self.utc_at_start_us = UTC_START_US + self.now_us as i64 + self.wall_offset_us;
        let fails = interrupt.is_none() && !self.quiet && self.params.dir_error_in > 0 && self.start_dice.chance(20);
        let fail = fails.then(|| self.start_dice.below(40));
        match self.node.start(interrupt, fail) {
            Started::Yes(reports) => {
                self.totals.note(Counted::Starts);
                for (shard, report) in reports.iter().enumerate() {
                    let recovery = &report.recovery;
                    self.say(|| format!("shard {shard} starts: {recovery:?}, {} damaged, {} lost", report.damage, report.lost));
                    self.totals.add(Counted::TailsCut, u64::from(recovery.cut_from.is_some()));
                    self.totals.add(Counted::FootersRebuilt, u64::from(recovery.footers_rebuilt));
                    self.totals.add(Counted::DamageFound, report.damage as u64);
                    self.totals.add(Counted::BlocksLost, report.lost as u64);
                    self.control_lost |= shard == 0 && report.lost > 0;
                    self.totals.add(Counted::StaleBlocks, u64::from(self.node.disks[shard].disk.has_reused_files()));
                }
                for shard in 0..self.node.seats.len() {
                    self.carry(shard);
                    self.end_of_turn(shard);
                }
                self.tell_space();
            }
            Started::Interrupted => {
                self.totals.note(Counted::StartsInterrupted);
                self.say(|| "a start is interrupted".to_owned());
                let power = self.disk_dice.chance(self.params.power_percent);
                self.end_process(power);
            }
            Started::Failed(reason) => {
                self.totals.note(Counted::StartsFailed);
                self.say(|| format!("a start meets an error of the disk: {reason}"));
                let power = self.disk_dice.chance(self.params.power_percent);
                self.end_process(power);
            }
            Started::Refused(reason) => {
                self.say(|| format!("a start is refused: {reason}"));
                self.refused = Some(reason);
            }
        }
    }

    /// The process ends, and another is started a while later. Answers the connections that are gone.
    pub(super) fn end_process(&mut self, power: bool) -> Vec<u64> {
        let dice = &mut self.disk_dice;
        let tear = TEARS[dice.below(TEARS.len() as u64) as usize];
        self.totals.note(if power { Counted::PowerCuts } else { Counted::Kills });
        self.refused_for_space = false;
        self.clock_ends.push((self.now_us, self.utc_us()));
        for seat in &mut self.node.seats {
            self.totals.add(Counted::SortedSegments, seat.shard.metrics_mut().counters.sorter_segments);
            self.totals.add(Counted::BatchesCut, seat.shard.metrics_mut().counters.retention_batches);
            self.totals.add(Counted::DuplicatesFound, seat.shard.metrics_mut().counters.produce_duplicates);
            self.totals.add(Counted::SortsInterrupted, u64::from(seat.shard.is_sorting()));
        }
        if !power {
            self.put_off_writes(tear);
        }
        self.node.end(power, tear, &mut self.disk_dice);
        self.say(|| format!("the process ends: power {power}, what is under way lands: {tear:?}"));
        if self.params.clock_jumps && !self.quiet && self.disk_dice.chance(50) {
            self.totals.note(Counted::ClockJumps);
            self.wall_offset_us += self.disk_dice.below(200_000_000) as i64 - 100_000_000;
        }
        self.life += 1;
        let pause = self.disk_dice.within(10_000..800_000);
        self.plan(pause, Item::Start { life: self.life });
        std::mem::take(&mut self.conns).into_keys().collect()
    }

    /// What the kernel has of a dying process lands when it likes, some of it after the process is gone.
    fn put_off_writes(&mut self, tear: Tear) {
        for shard in 0..self.node.disks.len() {
            let numbers = self.node.disks[shard].disk.put_off_some(self.next_number, tear, &mut self.disk_dice);
            self.next_number = numbers.end;
            for number in numbers {
                let after = self.disk_dice.within(1000..LATE_US);
                self.lock_free_us = self.lock_free_us.max(self.now_us + after);
                self.plan(after, Item::Late { shard, number });
            }
        }
    }

    /// A shard has stopped after an error, so the node ends and is started again, as an operator would.
    pub(super) fn has_failed_shard(&self) -> bool {
        self.node.seats.iter().any(|seat| seat.failed)
    }

    /// Space comes or goes: what the housekeeping thread tells the shards.
    pub(super) fn tell_space(&mut self) {
        self.space_told_us = self.now_us;
        if self.node.is_serving() || !self.node.is_up() {
            self.served_us = self.now_us;
        } else if self.params.disk_segments > 0 && self.now_us > self.served_us + OPERATOR_US {
            // All that is kept for bookkeeping is used up, by thousands of operations for each segment: what helps then is space.
            self.params.disk_segments += 2 * u64::from(self.params.shards);
            self.served_us = self.now_us;
            self.totals.note(Counted::SpaceAdded);
        }
        let used: u64 = self.node.disks.iter().map(|disk| disk.disk.used_bytes()).sum();
        // Faults are over: somebody has added a disk.
        let total_bytes = match self.params.disk_segments {
            0 => 1 << 40,
            _ if self.quiet => 1 << 40,
            segments => segments * self.params.segment_bytes,
        };
        let others_have_it = self.now_us < self.full_until_us;
        let free_bytes = if others_have_it { 0 } else { total_bytes.saturating_sub(used) };
        let look = self.node.disk_marks().look(DiskSize { total_bytes, free_bytes });
        self.disk_level = look.level;
        for disk in &mut self.node.disks {
            disk.disk.free_bytes = Some(free_bytes);
        }
        for seat in &mut self.node.seats {
            seat.shard.set_disk(look);
        }
    }
}
