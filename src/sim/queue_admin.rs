//! Topics and queues of the consumers of queues: they are created, paused, gone on with and deleted, until it is known that they are.
//!
//! A topic has a second one beside it, in the same replica groups, to which steps publish, and a third one for dead letters.
//!
//! Not here: messages (`queue_work.rs`).

use super::clients::State;
use super::queue_truth::{Queue, Rules, Start};
use super::queue_work::{Numbers, What, Worker, Workers};
use super::totals::Event as Counted;
use super::world::World;
use super::{Check, Dice, UTC_START_US};
use std::collections::BTreeMap;
use tramline_wire::error::ErrorCode;
use tramline_wire::kind::Kind;
use tramline_wire::metadata::{MetadataReply, MetadataRequest};
use tramline_wire::prim::List;
use tramline_wire::queue::{
    AlterQueueRequest, CreateQueueFlags, CreateQueueReply, CreateQueueRequest, DeleteQueueRequest, DescribeQueueReply,
    DescribeQueueRequest, ListQueuesReply, ListQueuesRequest, QueuePartition, QueueStart,
};
use tramline_wire::topics::{CreateFlags, CreateTopicRequest, Origin, Setting};

/// Queues at the same time.
const QUEUES_MAX: usize = 3;
/// Bytes that a topic keeps beside what its queues have not settled.
const RETENTION_BYTES: &str = "16384";
/// Kinds of topics: for the queues, for steps, for letters.
const KINDS: usize = 3;

/// A topic with queues.
#[derive(Debug, Default)]
pub(super) struct Topic {
    partitions: u32,
    /// How many of its three are known to be there.
    pub(super) made: usize,
    /// The first of them was deleted.
    pub(super) is_gone: bool,
    pub(super) uids: Vec<u64>,
    /// The partitions to which steps publish that ack what is in `uids`.
    pub(super) out_uids: Vec<u64>,
    pub(super) dead_uid: u64,
    /// How far the letters were read.
    pub(super) dead_to: u64,
}

impl Topic {
    pub(super) fn draw(dice: &mut Dice) -> Vec<Topic> {
        let count = 1 + dice.below(2);
        (0..count).map(|_| Topic { partitions: 1 + dice.below(2) as u32, ..Topic::default() }).collect()
    }

    pub(super) fn name(number: usize, kind: usize) -> String {
        format!("{}-{number}", ["work", "out", "dead"][kind])
    }
}

impl Rules {
    fn draw(dice: &mut Dice, world: &World) -> Rules {
        let start = match dice.below(4) {
            0 => Start::Latest,
            1 => Start::Time(UTC_START_US + world.now_us as i64 - dice.below(3_000_000) as i64),
            _ => Start::Earliest,
        };
        let few = |dice: &mut Dice| if dice.chance(70) { 100_000 } else { dice.within(1..10) as usize };
        Rules {
            start,
            visibility_ms: dice.within(200..1500) as u32,
            max_deliveries: dice.chance(50).then(|| dice.within(1..5) as u32),
            retry_initial_ms: dice.below(800),
            retry_multiplier: dice.within(1..4),
            retry_max_ms: dice.within(200..3000),
            retry_jitter_percent: if dice.chance(50) { 0 } else { dice.below(40) },
            dedup_window_ms: if dice.chance(20) { 0 } else { dice.within(300..20_000) },
            max_in_flight: few(dice),
            max_in_flight_per_consumer: few(dice),
            exclusive: dice.chance(15),
            has_dead_letter: dice.chance(35),
        }
    }

    fn settings(&self, dead_letter_topic: String) -> Vec<(&'static str, String)> {
        let mut settings = vec![
            ("visibility.timeout.ms", self.visibility_ms.to_string()),
            ("max.deliveries", self.max_deliveries.map_or("-1".to_owned(), |max| max.to_string())),
            ("retry.initial.ms", self.retry_initial_ms.to_string()),
            ("retry.multiplier", self.retry_multiplier.to_string()),
            ("retry.max.ms", self.retry_max_ms.to_string()),
            ("retry.jitter.percent", self.retry_jitter_percent.to_string()),
            ("dedup.window.ms", self.dedup_window_ms.to_string()),
            ("max.in.flight", self.max_in_flight.to_string()),
            ("max.in.flight.per.consumer", self.max_in_flight_per_consumer.min(20_000).to_string()),
            ("exclusive", self.exclusive.to_string()),
            ("consumer.timeout.ms", "1000".to_owned()),
        ];
        settings.push(("dead.letter.topic", if self.has_dead_letter { dead_letter_topic } else { String::new() }));
        settings
    }

    /// Others, in what may change while a queue lives and can be checked all the same.
    fn altered(&self, dice: &mut Dice, world: &World) -> Rules {
        let Rules { start, dedup_window_ms, exclusive, .. } = *self;
        Rules { start, dedup_window_ms, exclusive, ..Rules::draw(dice, world) }
    }
}

fn on_wire<'a>(settings: &'a [(&'static str, String)]) -> Vec<Setting<'a>> {
    settings.iter().map(|(key, value)| Setting { key, value }).collect()
}

impl Workers {
    /// What has to be there before anything else; whether something of it was done.
    pub(super) fn prepare(&mut self, world: &mut World, at: usize) -> bool {
        if let Some(number) = self.topics.iter().position(|topic| topic.made < KINDS) {
            let is_asked = (0..self.list.len()).any(|other| self.is_asked(other, |what| matches!(what, What::CreateTopic(_))));
            if !is_asked {
                self.create_topic(world, at, number);
            }
            return true;
        }
        if self.topics.iter().any(|topic| topic.uids.is_empty()) {
            if !self.is_asked(at, |what| matches!(what, What::Metadata)) {
                let names: Vec<String> =
                    (0..self.topics.len()).flat_map(|number| (0..KINDS).map(move |kind| Topic::name(number, kind))).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                self.send(world, at, Kind::Metadata, What::Metadata, |out| MetadataRequest { topics: List::of(&names) }.encode(out));
            }
            return true;
        }
        if self.truth.queues.iter().all(|queue| queue.state == State::Gone || queue.state == State::Wanted) {
            self.change_queues(world, at);
            return true;
        }
        self.prepare_maker(world, at)
    }

    pub(super) fn create_topic(&mut self, world: &mut World, at: usize, number: usize) {
        let kind = self.topics[number].made;
        let name = Topic::name(number, kind);
        let beside = Topic::name(number, 0);
        let mut settings = vec![("retention.ms", "-1".to_owned())];
        match kind {
            0 => settings.push(("retention.bytes", RETENTION_BYTES.to_owned())),
            1 => settings.extend([("retention.bytes", RETENTION_BYTES.to_owned()), ("co.locate", beside)]),
            _ => {}
        }
        let settings = on_wire(&settings);
        let request = CreateTopicRequest {
            name: &name,
            partitions: if kind == 2 { 1 } else { self.topics[number].partitions },
            replication: 0,
            flags: CreateFlags::IF_NOT_EXISTS,
            settings: List::of(&settings),
        };
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        self.send(world, at, Kind::CreateTopic, What::CreateTopic(number), |out| out.extend_from_slice(&bytes));
    }

    pub(super) fn on_metadata(&mut self, reply: &MetadataReply<'_>) -> Check {
        let found: BTreeMap<&str, Vec<u64>> =
            reply.topics.iter().map(|topic| (topic.name, topic.partitions.iter().map(|partition| partition.uid).collect())).collect();
        for (number, topic) in self.topics.iter_mut().enumerate().filter(|(_, topic)| topic.uids.is_empty()) {
            let uids = |kind: usize| found.get(Topic::name(number, kind).as_str()).cloned().unwrap_or_default();
            let (work, out, dead) = (uids(0), uids(1), uids(2));
            let wanted = topic.partitions as usize;
            if (work.len(), out.len(), dead.len()) != (wanted, wanted, 1) {
                return Err(format!("topics of {number} have partitions {work:?}, {out:?}, {dead:?}"));
            }
            (topic.uids, topic.out_uids, topic.dead_uid) = (work, out, dead[0]);
        }
        Ok(())
    }

    // --- queues -----------------------------------------------------------------------------------------------------------------

    /// A partition of a topic with queues; or any that is read.
    pub(super) fn some_partition(&mut self, any: bool) -> Option<u64> {
        let topic = &self.topics[self.dice.below(self.topics.len() as u64) as usize];
        let mut uids = topic.uids.clone();
        if any {
            uids.extend(&topic.out_uids);
            uids.push(topic.dead_uid);
        }
        (!uids.is_empty()).then(|| uids[self.dice.below(uids.len() as u64) as usize])
    }

    pub(super) fn some_queue(&mut self) -> Option<usize> {
        let live: Vec<usize> = self.live_queues();
        (!live.is_empty()).then(|| live[self.dice.below(live.len() as u64) as usize])
    }

    pub(super) fn live_queues(&self) -> Vec<usize> {
        (0..self.truth.queues.len()).filter(|queue| self.truth.queues[*queue].is_live()).collect()
    }

    pub(super) fn some_part(&mut self) -> Option<(usize, u64)> {
        let queue = self.some_queue()?;
        let uids = &self.topics[self.truth.queues[queue].topic].uids;
        Some((queue, uids[self.dice.below(uids.len() as u64) as usize]))
    }

    /// How far a partition was read.
    pub(super) fn read_to(&self, uid: u64) -> u64 {
        let dead = self.topics.iter().find(|topic| topic.dead_uid == uid);
        dead.map_or_else(|| self.truth.records.read_to(uid), |topic| topic.dead_to)
    }

    /// Asks again for what is open, or for something new.
    pub(super) fn change_queues(&mut self, world: &mut World, at: usize) {
        if self.ask_again(world, at) || self.is_draining {
            return;
        }
        let live = self.live_queues();
        let there = self.truth.queues.iter().filter(|queue| queue.state != State::Gone).count();
        if there < QUEUES_MAX {
            return self.new_queue(world, at);
        }
        let Some(queue) = (!live.is_empty()).then(|| live[self.dice.below(live.len() as u64) as usize]) else { return };
        match self.dice.below(100) {
            0..=5 => self.delete_queue(world, at, queue),
            6..=20 => self.send(world, at, Kind::ListQueues, What::ListQueues, |out| ListQueuesRequest { after: "" }.encode(out)),
            21..=40 => self.describe(world, at, queue),
            41..=60 => self.pause(world, at, queue, true),
            61..=80 => self.alter(world, at, queue),
            _ => {}
        }
    }

    /// What is wanted and not known to be so is asked for; whether there was something.
    pub(super) fn ask_again(&mut self, world: &mut World, at: usize) -> bool {
        let is_it = |state: State| self.truth.queues.iter().position(|queue| queue.state == state);
        if let Some(queue) = is_it(State::Wanted) {
            self.create_queue(world, at, queue);
            return true;
        }
        let is_deleting = |number: usize| {
            (0..self.list.len()).any(|other| self.is_asked(other, |what| matches!(what, What::DeleteQueue(n) if *n == number)))
        };
        let queue = (0..self.truth.queues.len()).find(|queue| self.truth.queues[*queue].state == State::Deleting && !is_deleting(*queue));
        if let Some(queue) = queue {
            self.delete_queue(world, at, queue);
            return true;
        }
        let altered = self.truth.queues.iter().position(|queue| queue.is_live() && !queue.is_alter_open && queue.is_being_altered());
        if let Some(queue) = altered {
            self.send_rules(world, at, queue);
            return true;
        }
        let paused = self.truth.queues.iter().position(|queue| queue.is_live() && !queue.is_pause_open && queue.is_paused);
        if let Some(queue) = paused.filter(|_| self.is_draining || self.dice.chance(60)) {
            self.pause(world, at, queue, false);
            return true;
        }
        false
    }

    fn new_queue(&mut self, world: &mut World, at: usize) {
        let is_free = |name: &String| self.truth.queues.iter().all(|queue| queue.state == State::Gone || queue.name != *name);
        let name = (0..QUEUES_MAX).map(|number| format!("queue-{number}")).find(is_free).expect("fewer than there may be");
        let (topic, rules) = (self.dice.below(self.topics.len() as u64) as usize, Rules::draw(&mut self.dice, world));
        self.truth.queues.push(Queue {
            name,
            topic,
            rules,
            rules_before: Vec::new(),
            is_alter_open: false,
            state: State::Wanted,
            uid: 0,
            asked_us: world.now_us,
            created_us: None,
            paused_since_us: None,
            is_paused: false,
            is_pause_open: false,
            parts: BTreeMap::new(),
        });
        self.create_queue(world, at, self.truth.queues.len() - 1);
    }

    fn create_queue(&mut self, world: &mut World, at: usize, number: usize) {
        let queue = &mut self.truth.queues[number];
        queue.state = State::Creating;
        let name = queue.name.clone();
        world.say(|| format!("consumer {at} creates {name} (number {number}): {:?}", queue.rules));
        let (start, start_us) = match queue.rules.start {
            Start::Latest => (QueueStart::Latest, 0),
            Start::Earliest => (QueueStart::Earliest, 0),
            Start::Time(at_us) => (QueueStart::Time, at_us),
        };
        let (topic, mut settings) = (Topic::name(queue.topic, 0), queue.rules.settings(Topic::name(queue.topic, 2)));
        settings.retain(|(_, value)| !value.is_empty());
        let (flags, settings) = (CreateQueueFlags::IF_NOT_EXISTS, on_wire(&settings));
        let request = CreateQueueRequest { name: &name, topic: &topic, flags, start, start_us, settings: List::of(&settings) };
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        self.send(world, at, Kind::CreateQueue, What::CreateQueue(number), |out| out.extend_from_slice(&bytes));
    }

    pub(super) fn on_created(&mut self, world: &mut World, number: usize, reply: &CreateQueueReply) -> Check {
        let is_known = self.truth.queues.iter().enumerate().any(|(other, queue)| other != number && queue.uid == reply.queue_uid);
        let queue = &mut self.truth.queues[number];
        let is_another = queue.uid != 0 && queue.uid != reply.queue_uid;
        if (is_known || is_another || reply.queue_uid == 0) && !self.truth.decayed {
            return Err(format!("{} (number {number}) gets the uid {}, and {queue:?}", queue.name, reply.queue_uid));
        }
        world.totals.note(Counted::QueuesCreated);
        queue.uid = reply.queue_uid;
        queue.created_us.get_or_insert(world.now_us);
        if queue.state == State::Creating {
            queue.state = State::Live;
        }
        let uids = &self.topics[queue.topic].uids;
        queue.parts.extend(uids.iter().map(|uid| (*uid, Default::default())));
        Ok(())
    }

    pub(super) fn pause(&mut self, world: &mut World, at: usize, number: usize, pauses: bool) {
        let queue = &mut self.truth.queues[number];
        if queue.is_pause_open {
            return;
        }
        (queue.is_pause_open, queue.is_paused, queue.paused_since_us) = (true, true, None);
        let name = queue.name.clone();
        let settings = [Setting { key: "paused", value: if pauses { "true" } else { "" } }];
        let request = AlterQueueRequest { name: &name, settings: List::of(&settings) };
        self.send(world, at, Kind::AlterQueue, What::Pause(number, pauses), |out| request.encode(out));
    }

    /// Other settings. Not while somebody gives a message back: by which of the retry policies would not be known.
    fn alter(&mut self, world: &mut World, at: usize, number: usize) {
        let is_settling = |worker: &Worker| {
            let mut pending = worker.link.pending();
            worker.maker.rests_until_us > world.now_us
                || pending.any(|asked| matches!(asked.what, What::Settle { queue, .. } if queue == number))
        };
        if self.truth.queues[number].is_being_altered() || self.list.iter().any(is_settling) {
            return;
        }
        let rules = self.truth.queues[number].rules.altered(&mut self.dice, world);
        let queue = &mut self.truth.queues[number];
        let before = std::mem::replace(&mut queue.rules, rules);
        queue.rules_before.push((before, u64::MAX));
        world.say(|| format!("consumer {at} alters {} (number {number}): {rules:?}", queue.name));
        self.send_rules(world, at, number);
    }

    fn send_rules(&mut self, world: &mut World, at: usize, number: usize) {
        let queue = &mut self.truth.queues[number];
        queue.is_alter_open = true;
        let (name, settings) = (queue.name.clone(), queue.rules.settings(Topic::name(queue.topic, 2)));
        let settings = on_wire(&settings);
        let request = AlterQueueRequest { name: &name, settings: List::of(&settings) };
        self.send(world, at, Kind::AlterQueue, What::Alter(number), |out| request.encode(out));
    }

    pub(super) fn on_altered(&mut self, world: &mut World, number: usize) {
        world.totals.note(Counted::QueuesAltered);
        let queue = &mut self.truth.queues[number];
        queue.is_alter_open = false;
        queue.rules_before.iter_mut().for_each(|(_, until_us)| *until_us = world.now_us.min(*until_us));
    }

    fn delete_queue(&mut self, world: &mut World, at: usize, number: usize) {
        let queue = &mut self.truth.queues[number];
        queue.state = State::Deleting;
        let name = queue.name.clone();
        world.say(|| format!("consumer {at} deletes {name} (number {number})"));
        self.send(world, at, Kind::DeleteQueue, What::DeleteQueue(number), |out| DeleteQueueRequest { name: &name }.encode(out));
    }

    pub(super) fn on_deleted(&mut self, world: &mut World, number: usize) {
        world.totals.note(Counted::QueuesDeleted);
        let queue = &mut self.truth.queues[number];
        queue.state = State::Gone;
        queue.parts.values_mut().for_each(|part| part.messages.clear());
    }

    pub(super) fn describe(&mut self, world: &mut World, at: usize, number: usize) {
        let name = self.truth.queues[number].name.clone();
        self.send(world, at, Kind::DescribeQueue, What::Describe(number), |out| {
            DescribeQueueRequest { name: &name, first_partition: 0 }.encode(out)
        });
    }

    pub(super) fn on_described(&mut self, number: usize, sent_us: u64, reply: &DescribeQueueReply<'_>) -> Check {
        let queue = &self.truth.queues[number];
        if queue.is_live() && !self.truth.decayed {
            check_settings(queue, sent_us, reply)?;
        }
        if queue.is_live() && reply.queue_uid != queue.uid && !self.truth.decayed {
            return Err(format!("{} is {}, and described as {}", queue.name, queue.uid, reply.queue_uid));
        }
        if self.is_draining {
            let told = reply.partitions.iter().filter(|part| part.error.is_ok() && part.looked_to == part.committed_end);
            let numbers = |part: QueuePartition<'_>| {
                let QueuePartition { ready, leased, delayed, dead, .. } = part;
                (part.partition_uid, Numbers { ready, leased, delayed, dead })
            };
            self.found.numbers = Some(told.map(numbers).collect());
        }
        Ok(())
    }

    pub(super) fn on_listed(&mut self, reply: &ListQueuesReply<'_>, sent_us: u64) -> Check {
        self.found.listed = Some(reply.queues.iter().map(|told| told.queue_uid).collect());
        for queue in self.truth.queues.iter().filter(|queue| queue.is_live() && queue.created_us.is_some_and(|us| us <= sent_us)) {
            let told = reply.queues.iter().find(|told| told.name == queue.name).map(|told| told.queue_uid);
            if told != Some(queue.uid) && !self.truth.decayed {
                return Err(format!("{} is {}, and listed as {told:?}", queue.name, queue.uid));
            }
        }
        Ok(())
    }

    /// A request about a topic or a queue was answered.
    pub(super) fn on_paused(&mut self, world: &mut World, number: usize, pauses: bool) {
        let queue = &mut self.truth.queues[number];
        (queue.is_pause_open, queue.is_paused) = (false, pauses);
        queue.paused_since_us = pauses.then_some(world.now_us);
        world.totals.add(Counted::QueuesPaused, u64::from(pauses));
    }

    pub(super) fn on_topic_made(&mut self, number: usize) {
        self.topics[number].made += 1;
    }

    /// A request about topics or queues has no answer, or one that says no more than that.
    pub(super) fn on_admin_unknown(&mut self, what: What) {
        match what {
            What::CreateQueue(number) if self.truth.queues[number].state == State::Creating => {
                self.truth.queues[number].state = State::Wanted;
            }
            What::Alter(number) => self.truth.queues[number].is_alter_open = false,
            What::Pause(number, _) => self.truth.queues[number].is_pause_open = false,
            _ => {}
        }
    }

    /// A request by a queue's uid or name found none.
    pub(super) fn check_unknown_queue(&self, number: usize) -> Check {
        let queue = &self.truth.queues[number];
        if queue.is_live() && !self.truth.decayed {
            return Err(format!("{} ({}, number {number}) is there, and told to be unknown", queue.name, queue.uid));
        }
        Ok(())
    }
}

/// The settings are told as they are.
fn check_settings(queue: &Queue, sent_us: u64, reply: &DescribeQueueReply<'_>) -> Check {
    if queue.rules_before.iter().any(|(_, until_us)| *until_us > sent_us) {
        return Ok(());
    }
    for (key, value) in queue.rules.settings(Topic::name(queue.topic, 2)) {
        let origin = if value.is_empty() { Origin::Default } else { Origin::Explicit };
        let told = reply.settings.iter().find(|told| told.key == key);
        if told.is_none_or(|told| (told.value, told.origin) != (value.as_str(), origin)) {
            return Err(format!("{}: {key} is {value:?}, and told as {told:?}", queue.name));
        }
    }
    Ok(())
}

/// Whether a code says that a queue is not there.
pub(super) fn is_gone(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::UnknownQueue | ErrorCode::QueueDeleted)
}
