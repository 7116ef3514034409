//! Consumers of queues: they send messages with all that a message can be given, receive, and ack, nack, extend, release and reject what they have, alone
//! and together, in time and too late, with tokens that are theirs and with some that never were. They browse, purge, delete and redrive, pause queues and
//! delete them, and take steps in which acks, batches and offsets go together.
//!
//! A consumer has a connection of its own (`link.rs`), to any shard. It does one thing at a tick.
//!
//! Not here: topics and queues (`queue_admin.rs`), what answers mean (`queue_answers.rs`), what follows from them (`queue_truth.rs`), steps
//! (`queue_steps.rs`), the end of a run (`queue_rest.rs`).

use super::history::History;
use super::link::Link;
use super::queue_admin::Topic;
use super::queue_looks::Look;
use super::queue_message::{Action, Answer, End};
use super::queue_records::{Records, Wishes};
use super::queue_steps::{Maker, Step};
use super::queue_truth::{Place, Purge, Rules, Truth};
use super::totals::Event as Counted;
use super::world::World;
use super::{Dice, Params};
use std::collections::BTreeMap;
use std::ops::Range;
use tramline_wire::batch::{BatchBuilder, Limits, ProducerMark};
use tramline_wire::error::ErrorCode;
use tramline_wire::fetch::{FetchEntry, FetchMode, FetchRequestWriter};
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::prim::List;
use tramline_wire::produce::{ProduceEntry, ProduceRequestWriter};
use tramline_wire::queue::{
    BrowseRequest, BrowseState, DELAY_BY_POLICY, DeleteMessagesRequest, MessageAt, MessageState, PurgeRequest, ReceiveRequest,
    RedriveFlags, RedriveRequest, SettleAction, SettleEntry, SettleRequest,
};
use tramline_wire::trim::{TrimEntry, TrimPartitionsRequest};

/// Requests of one consumer under way at most.
const WINDOW: usize = 6;
/// Tokens that a consumer remembers.
const HELD_MAX: usize = 16;
/// A lease's number in its queue that no message of a run gets.
const FOREIGN_LEASE: u64 = 1 << 30;

/// A request, and what was known when it was sent.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) sent_us: u64,
    /// What the node's wall clock showed.
    pub(super) utc_us: i64,
    pub(super) what: What,
}

/// One entry of a settle request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settling {
    pub(super) place: Place,
    pub(super) lease: u64,
    /// Which of the token's ends it is; `None` for a token that never was.
    pub(super) end: Option<usize>,
}

/// What a receiver asks for.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) queue: usize,
    pub(super) partitions: Vec<u64>,
    pub(super) max_messages: u32,
    pub(super) max_bytes: u32,
    pub(super) wait_ms: u32,
    /// 0 for the queue's own.
    pub(super) visibility_ms: u32,
}

impl Wanted {
    /// As much of one partition as comes, for as long as the queue says.
    pub(super) fn plain(queue: usize, uid: u64, max_messages: u32, wait_ms: u32) -> Wanted {
        Wanted { queue, partitions: vec![uid], max_messages, max_bytes: 1 << 20, wait_ms, visibility_ms: 0 }
    }
}

/// What the first consumer has found out with its last question, at the end of a run.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) browsed: Option<Browsed>,
    /// Numbers of a queue, by partition; of those of which something is told.
    pub(super) numbers: Option<BTreeMap<u64, Numbers>>,
    /// Queues, by uid.
    pub(super) listed: Option<Vec<u64>>,
    /// Why a receive was refused.
    pub(super) refused: Option<ErrorCode>,
    pub(super) topic_deleted: Option<()>,
    /// Where a fetch has ended.
    pub(super) fetched_to: Option<u64>,
}

/// What a look has shown: states, and until when they last.
#[derive(Debug)]
pub(super) struct Browsed {
    pub(super) messages: Vec<(u64, (MessageState, i64))>,
    pub(super) next: u64,
    pub(super) is_end: bool,
}

/// How many messages of a queue and partition are in which state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    pub(super) ready: u64,
    pub(super) leased: u64,
    pub(super) delayed: u64,
    pub(super) dead: u64,
}

#[derive(Debug)]
pub(super) enum What {
    CreateTopic(usize),
    DeleteTopic(usize),
    Metadata,
    CreateQueue(usize),
    Pause(usize, bool),
    Alter(usize),
    DeleteQueue(usize),
    ListQueues,
    Describe(usize),
    Produce {
        uid: u64,
        ids: Range<u64>,
    },
    Receive(Wanted),
    Settle {
        queue: usize,
        entries: Vec<Settling>,
    },
    Fetch {
        uid: u64,
        offset: u64,
    },
    Browse(Look),
    Purge {
        queue: usize,
        uid: u64,
        number: usize,
    },
    Delete {
        place: Place,
    },
    /// `before_us`: until when an earlier one may have been carried out.
    Redrive {
        queue: usize,
        uid: u64,
        max: u32,
        before_us: u64,
    },
    Trim {
        uid: u64,
        before: u64,
    },
    InitProducer,
    FindGroup,
    Step(usize),
    Offset {
        uid: u64,
        floor: Option<usize>,
    },
}

/// One consumer.
#[derive(Default)]
pub(super) struct Worker {
    pub(super) link: Link<Asked>,
    /// Tokens, also of leases that are over.
    pub(super) held: Vec<(Place, u64)>,
    pub(super) maker: Maker,
}

/// All of them.
pub(super) struct Workers {
    pub(super) list: Vec<Worker>,
    pub(super) by_conn: BTreeMap<u64, usize>,
    pub(super) topics: Vec<Topic>,
    pub(super) truth: Truth,
    pub(super) steps: Vec<Step>,
    pub(super) dice: Dice,
    pub(super) builder: BatchBuilder,
    /// Whether anything is done at a tick.
    pub(super) is_running: bool,
    /// Messages come no more, and only one consumer receives.
    pub(super) is_draining: bool,
    /// Whether delays are to be met to the millisecond: nothing goes wrong.
    pub(super) is_calm: bool,
    /// Nothing else is done, and a message that somebody waits for is told no later than so long after it is due.
    pub(super) late_us_max: Option<i64>,
    pub(super) found: Found,
}

impl Workers {
    pub(super) fn new(seed: u64, params: &Params) -> Workers {
        let mut dice = Dice::stream(seed, "queues");
        let topics = if params.consumers == 0 { Vec::new() } else { Topic::draw(&mut dice) };
        Workers {
            list: (0..params.consumers).map(|_| Worker::default()).collect(),
            by_conn: BTreeMap::new(),
            topics,
            truth: Truth::default(),
            steps: Vec::new(),
            dice,
            builder: BatchBuilder::new(Limits::default()),
            is_running: params.consumers > 0,
            is_draining: false,
            found: Found::default(),
            is_calm: params.is_calm,
            late_us_max: None,
        }
    }

    pub(super) fn has(&self, conn: u64) -> bool {
        self.by_conn.contains_key(&conn)
    }

    pub(super) fn on_gone(&mut self, world: &mut World, conn: u64) {
        let Some(at) = self.by_conn.remove(&conn) else { return };
        // What was on its way between two shards is there within a moment, or not at all.
        let until_us = world.now_us + 1000;
        let lost: Vec<Asked> = self.list[at].link.take_pending();
        world.totals.add(Counted::RequestsUnknown, lost.len() as u64);
        self.list[at].link.on_gone();
        self.list[at].maker.rests_until_us = until_us;
        for asked in lost {
            self.on_unknown(at, asked.what, until_us);
        }
    }

    /// Nobody will say what became of a request; if it is carried out, then before `until_us`.
    pub(super) fn on_unknown(&mut self, at: usize, what: What, until_us: u64) {
        match what {
            What::Purge { queue, uid, number } => self.truth.part_mut(queue, uid).purges[number].until_us = until_us,
            What::Redrive { queue, uid, .. } => self.truth.part_mut(queue, uid).redriven_until_us = until_us,
            What::Step(_) => self.list[at].maker.is_asking = false,
            what => self.on_admin_unknown(what),
        }
    }

    /// What happened to the node. Where the creation of a queue may have been lost with a block, nobody uses queues any more.
    pub(super) fn see(&mut self, world: &mut World, history: &History) {
        self.truth.decayed = history.decayed;
        if world.control_lost && self.is_running {
            self.stop(world);
        }
    }

    /// Nothing is done any more.
    pub(super) fn stop(&mut self, world: &mut World) {
        self.is_running = false;
        for at in 0..self.list.len() {
            if let Some(conn) = self.list[at].link.conn() {
                world.close(conn);
                self.on_gone(world, conn);
            }
        }
    }

    // --- what is done at a tick -------------------------------------------------------------------------------------------------

    /// One thing of a random consumer.
    pub(super) fn tick(&mut self, world: &mut World, history: &History) {
        self.see(world, history);
        let at = self.dice.below(self.list.len() as u64) as usize;
        if !self.is_running || !self.is_ready(world, at) {
            return;
        }
        world.totals.note(Counted::QueueSteps);
        if self.prepare(world, at) {
            return;
        }
        match self.dice.below(1000) {
            0..=219 => self.produce(world, at),
            220..=499 => self.receive(world, at),
            500..=749 => self.settle(world, at),
            750..=859 => self.follow(world, at),
            860..=929 => self.go_on_with_step(world, at),
            930..=959 => self.browse(world, at),
            960..=968 => self.delete(world, at),
            969..=971 => self.purge(world, at),
            972..=975 => self.redrive(world, at),
            976..=983 => self.ask_offset(world, at),
            984..=985 => self.trim(world, at),
            _ => self.change_queues(world, at),
        }
    }

    /// Whether a consumer has a connection and may send; else it connects.
    pub(super) fn is_ready(&mut self, world: &mut World, at: usize) -> bool {
        if self.list[at].link.conn().is_none() {
            let shard = self.dice.below(u64::from(world.params.shards)) as usize;
            if let Some(conn) = self.list[at].link.connect(world, shard) {
                self.by_conn.insert(conn, at);
            }
            return false;
        }
        self.list[at].link.is_open() && self.list[at].link.pending().count() < WINDOW
    }

    pub(super) fn is_asked(&self, at: usize, is_it: impl Fn(&What) -> bool) -> bool {
        self.list[at].link.pending().any(|asked| is_it(&asked.what))
    }

    pub(super) fn send(&mut self, world: &mut World, at: usize, kind: Kind, what: What, meta: impl FnOnce(&mut Vec<u8>)) {
        let asked = Asked { sent_us: world.now_us, utc_us: world.utc_us(), what };
        self.list[at].link.send(world, kind, asked, meta);
    }

    /// Wishes of the next message. Groups and ids are few, so that they meet.
    fn wishes(&mut self, world: &World) -> Wishes {
        let dice = &mut self.dice;
        let utc_us = world.utc_us();
        Wishes {
            deliver_at_us: dice.chance(20).then(|| utc_us - 200_000 + dice.below(3_000_000) as i64),
            priority: dice.chance(40).then(|| dice.below(10) as u8),
            ttl_ms: dice.chance(8).then(|| dice.within(300..6000) as u32),
            group: dice.chance(40).then(|| dice.below(4) as u8),
            id: dice.chance(30).then(|| dice.below(40) as u16),
        }
    }

    /// A batch of some messages for a partition goes into `batch`; answers their numbers.
    pub(super) fn write_batch(
        &mut self,
        world: &World,
        uid: u64,
        mark: ProducerMark,
        step: Option<usize>,
        batch: &mut Vec<u8>,
    ) -> Range<u64> {
        let first = self.truth.records.next();
        for _ in 0..self.dice.within(1..5) {
            let wishes = self.wishes(world);
            self.truth.records.push(&mut self.builder, Records::new_record(uid, world.now_us, wishes, step));
        }
        batch.clear();
        self.builder.finish_plain(batch, mark);
        first..self.truth.records.next()
    }

    fn produce(&mut self, world: &mut World, at: usize) {
        let Some(uid) = self.some_partition(false) else { return };
        let mut batch = Vec::new();
        let ids = self.write_batch(world, uid, ProducerMark::default(), None, &mut batch);
        let level = if self.dice.chance(70) { Level::Durable } else { Level::LeaderDurable };
        self.send_batch(world, at, level, uid, ids, &batch);
    }

    pub(super) fn send_batch(&mut self, world: &mut World, at: usize, level: Level, uid: u64, ids: Range<u64>, batch: &[u8]) {
        let asked = Asked { sent_us: world.now_us, utc_us: world.utc_us(), what: What::Produce { uid, ids } };
        self.list[at].link.send_with(world, Kind::Produce, asked, batch, |out| {
            let mut writer = ProduceRequestWriter::begin(out, level, 0);
            writer.push(out, &ProduceEntry { partition_uid: uid, batch_len: batch.len() as u32 });
            writer.finish(out);
        });
    }

    fn receive(&mut self, world: &mut World, at: usize) {
        let surplus = self.list[at].held.len().saturating_sub(HELD_MAX);
        self.list[at].held.drain(..surplus);
        if self.is_asked(at, |what| matches!(what, What::Receive(_))) {
            return;
        }
        let Some(queue) = self.some_queue() else { return };
        let uids = self.topics[self.truth.queues[queue].topic].uids.clone();
        let one = uids[self.dice.below(uids.len() as u64) as usize];
        let partitions = if world.params.shards == 1 && self.dice.chance(30) { uids } else { vec![one] };
        let max_messages = self.dice.within(1..12) as u32;
        let wait_ms = if self.dice.chance(50) { self.dice.below(800) as u32 } else { 0 };
        let max_bytes = if self.dice.chance(20) { self.dice.within(100..2000) as u32 } else { 1 << 20 };
        let visibility_ms = if self.dice.chance(30) { self.dice.within(100..1500) as u32 } else { 0 };
        self.ask_for(world, at, Wanted { queue, partitions, max_messages, max_bytes, wait_ms, visibility_ms });
    }

    /// Asks for messages.
    pub(super) fn ask_for(&mut self, world: &mut World, at: usize, wanted: Wanted) {
        let consumer = format!("consumer-{at}");
        let Wanted { queue, partitions, max_messages, max_bytes, wait_ms, visibility_ms } = wanted.clone();
        let queue_uid = self.truth.queues[queue].uid;
        let partitions = List::of(&partitions);
        let request = ReceiveRequest { queue_uid, max_messages, max_bytes, wait_ms, visibility_ms, consumer: &consumer, partitions };
        self.send(world, at, Kind::Receive, What::Receive(wanted), |out| request.encode(out));
    }

    /// Some tokens of one queue. Mostly each is used once; some again, some late, some with another queue, and some never were.
    fn settle(&mut self, world: &mut World, at: usize) {
        let Some(first) = self.some_held(at) else { return };
        let (queue, uid) = (first.0.0, first.0.1);
        let mut wanted = vec![first];
        for _ in 0..self.dice.below(4) {
            let other = self.some_held(at).expect("one is there");
            if other.0.0 == queue && other.0.1 == uid && !wanted.contains(&other) {
                wanted.push(other);
            }
        }
        let other = self.some_other_queue(queue).filter(|_| self.dice.once_in(30));
        let mut list = Vec::with_capacity(wanted.len());
        for (place, lease) in wanted {
            let (action, wire, delay_ms, is_kept) = self.some_action(world);
            if let Some(other) = other {
                list.push(((other, place.1, place.2), lease, None, wire, delay_ms));
                continue;
            }
            let is_foreign = self.dice.once_in(50);
            let lease = if is_foreign { self.some_foreign_lease(queue, lease) } else { lease };
            if !is_kept && !is_foreign {
                self.list[at].held.retain(|held| *held != (place, lease));
            }
            list.push((place, lease, (!is_foreign).then_some(action), wire, delay_ms));
        }
        self.settle_all(world, at, other.unwrap_or(queue), list);
    }

    /// Another queue of the same topic.
    fn some_other_queue(&mut self, queue: usize) -> Option<usize> {
        let topic = self.truth.queues[queue].topic;
        let others: Vec<usize> =
            self.live_queues().into_iter().filter(|other| *other != queue && self.truth.queues[*other].topic == topic).collect();
        (!others.is_empty()).then(|| others[self.dice.below(others.len() as u64) as usize])
    }

    /// A lease that the queue never gave: a number beyond all that it gave, with the queue's own uid or without, or one that it gave with another uid. (The
    /// low half of the uid stands in its upper half.)
    fn some_foreign_lease(&mut self, queue: usize, lease: u64) -> u64 {
        let of_queue = self.truth.queues[queue].uid << 32;
        match self.dice.below(4) {
            0 => FOREIGN_LEASE + self.dice.below(9),
            1 => of_queue | (FOREIGN_LEASE + self.dice.below(9)),
            _ => lease ^ ((1 + self.dice.below(7)) << 32),
        }
    }

    /// What to do with a token: also what that is on the wire, its delay, and whether the token is used again all the same.
    fn some_action(&mut self, world: &World) -> (Action, SettleAction, u32, bool) {
        let is_kept = self.dice.chance(10);
        let utc_us = world.utc_us();
        match self.dice.below(100) {
            0..=59 => (Action::Ack, SettleAction::Ack, 0, is_kept),
            60..=69 => {
                let delay_ms = self.dice.below(2000) as u32;
                (Action::Nack { due_utc_us: utc_us + i64::from(delay_ms) * 1000 }, SettleAction::Nack, delay_ms, is_kept)
            }
            70..=77 => (Action::Nack { due_utc_us: utc_us }, SettleAction::Nack, DELAY_BY_POLICY, is_kept),
            78..=87 => {
                let ms = self.dice.within(100..2000) as u32;
                (Action::Extend { ms }, SettleAction::Extend, ms, true)
            }
            88..=95 => (Action::Release, SettleAction::Release, 0, is_kept),
            _ => (Action::Reject, SettleAction::Reject, 0, is_kept),
        }
    }

    /// Sends what becomes of tokens of one queue; `None` for an action with a token that never was.
    pub(super) fn settle_all(
        &mut self,
        world: &mut World,
        at: usize,
        queue: usize,
        list: Vec<(Place, u64, Option<Action>, SettleAction, u32)>,
    ) {
        let (life, sent_us) = (world.life(), world.now_us);
        let rules: Vec<Rules> = self.truth.queues[queue].rules_since(sent_us).copied().collect();
        let mut entries = Vec::with_capacity(list.len());
        let mut wire = Vec::with_capacity(list.len());
        for (place, lease, action, on_wire, delay_ms) in list {
            let end = action.map(|action| {
                let token = self.truth.message_mut(place).token_mut(lease).expect("held");
                let action = match action {
                    Action::Nack { due_utc_us } if delay_ms == DELAY_BY_POLICY => {
                        let delays = rules.iter().map(|rules| rules.retry_us_min(token.deliveries));
                        Action::Nack { due_utc_us: due_utc_us + delays.min().unwrap_or(0) as i64 }
                    }
                    action => action,
                };
                token.ends.push(End { action, sent_us, life, answer: Answer::Open });
                token.ends.len() - 1
            });
            entries.push(Settling { place, lease, end });
            let reason = if matches!(on_wire, SettleAction::Nack | SettleAction::Reject) { "not today" } else { "" };
            wire.push(SettleEntry { partition_uid: place.1, offset: place.2, lease, action: on_wire, delay_ms, reason });
        }
        let consumer = format!("consumer-{at}");
        let request = SettleRequest { queue_uid: self.truth.queues[queue].uid, consumer: &consumer, entries: List::of(&wire) };
        self.send(world, at, Kind::Settle, What::Settle { queue, entries }, |out| request.encode(out));
    }

    pub(super) fn some_held(&mut self, at: usize) -> Option<(Place, u64)> {
        let truth = &self.truth;
        self.list[at].held.retain(|(place, _)| truth.queues[place.0].is_live());
        let held = &self.list[at].held;
        // Mostly the newest ones: of the others the leases are over.
        let recent = if self.dice.chance(80) { held.len().min(4) } else { held.len() };
        (!held.is_empty()).then(|| held[held.len() - 1 - self.dice.below(recent as u64) as usize])
    }

    /// Reads a topic on, so that it is known what is there.
    fn follow(&mut self, world: &mut World, at: usize) {
        let Some(uid) = self.some_partition(true) else { return };
        self.read_on(world, at, uid);
    }

    pub(super) fn read_on(&mut self, world: &mut World, at: usize, uid: u64) {
        let offset = self.read_to(uid);
        self.read_from(world, at, uid, offset);
    }

    pub(super) fn read_from(&mut self, world: &mut World, at: usize, uid: u64, offset: u64) {
        self.send(world, at, Kind::Fetch, What::Fetch { uid, offset }, |out| {
            let mut writer = FetchRequestWriter::begin(out, FetchMode::OneShot, 0, 1, 64 << 10);
            writer.push(out, &FetchEntry { partition_uid: uid, offset, max_bytes: 32 << 10 });
            writer.finish(out);
        });
    }

    fn browse(&mut self, world: &mut World, at: usize) {
        let Some((queue, uid)) = self.some_part() else { return };
        let from = if self.dice.chance(50) { 0 } else { self.dice.below(self.truth.records.read_to(uid) + 1) };
        let states = [BrowseState::Any, BrowseState::Any, BrowseState::Leased, BrowseState::Dead, BrowseState::Delayed, BrowseState::Ready];
        let max_messages = self.dice.within(1..400) as u32;
        let wanted = states[self.dice.below(6) as usize];
        self.look(world, at, Look { queue, uid, from, max_messages, wanted });
    }

    pub(super) fn look(&mut self, world: &mut World, at: usize, look: Look) {
        let Look { queue, uid, from, max_messages, wanted } = look;
        let request = BrowseRequest { queue_uid: self.truth.queues[queue].uid, partition_uid: uid, from, max_messages, state: wanted };
        self.send(world, at, Kind::Browse, What::Browse(look), |out| request.encode(out));
    }

    fn delete(&mut self, world: &mut World, at: usize) {
        let Some((queue, uid)) = self.some_part() else { return };
        let end = self.truth.records.read_to(uid);
        let offset = end.saturating_sub(1 + self.dice.below(20));
        let place = (queue, uid, offset);
        self.truth.message_mut(place).deletes += 1;
        let entries = [MessageAt { partition_uid: uid, offset }];
        let request = DeleteMessagesRequest { queue_uid: self.truth.queues[queue].uid, entries: List::of(&entries) };
        self.send(world, at, Kind::DeleteMessages, What::Delete { place }, |out| request.encode(out));
    }

    /// Trims a topic that has queues, mostly where all is settled.
    fn trim(&mut self, world: &mut World, at: usize) {
        let Some(uid) = self.some_partition(false) else { return };
        let before = self.truth.records.read_to(uid).saturating_sub(self.dice.below(60));
        self.truth.on_trim_sent(uid, before);
        let entries = [TrimEntry { partition_uid: uid, before }];
        self.send(world, at, Kind::TrimPartitions, What::Trim { uid, before }, |out| {
            TrimPartitionsRequest { entries: List::of(&entries) }.encode(out)
        });
    }

    fn purge(&mut self, world: &mut World, at: usize) {
        let Some((queue, uid)) = self.some_part() else { return };
        let part = self.truth.part_mut(queue, uid);
        part.purges.push(Purge { until_us: u64::MAX });
        let number = part.purges.len() - 1;
        let uids = [uid];
        let request = PurgeRequest { queue_uid: self.truth.queues[queue].uid, partitions: List::of(&uids) };
        self.send(world, at, Kind::Purge, What::Purge { queue, uid, number }, |out| request.encode(out));
    }

    pub(super) fn redrive(&mut self, world: &mut World, at: usize) {
        let Some((queue, uid)) = self.some_part() else { return };
        self.redrive_part(world, at, queue, uid);
    }

    pub(super) fn redrive_part(&mut self, world: &mut World, at: usize, queue: usize, uid: u64) {
        // One at a time: then its answer says until when it was carried out.
        let before_us = self.truth.part_mut(queue, uid).redriven_until_us;
        if before_us == u64::MAX {
            return;
        }
        self.truth.part_mut(queue, uid).redriven_until_us = u64::MAX;
        let max_messages = if self.is_draining { 0 } else { self.dice.below(4) as u32 };
        let partitions = [uid];
        let flags = RedriveFlags::default();
        let request = RedriveRequest { queue_uid: self.truth.queues[queue].uid, flags, max_messages, partitions: List::of(&partitions) };
        self.send(world, at, Kind::Redrive, What::Redrive { queue, uid, max: max_messages, before_us }, |out| request.encode(out));
    }
}
