//! Dead messages go to their queue's dead-letter topic: read, rewritten as letters, appended there, and settled here once that is durable.
//!
//! Invariants: a message is settled as moved only after its letter is durable; one batch of letters of a part is on its way at a time, so they arrive in
//! order; of a shard at most [`PARTS_AT_ONCE`], which bounds the memory to as many batches of the largest size. A crash in between leaves a message in both
//! places: its letter is then written again, with the same message id.
//!
//! ```text
//! dead -> Noting: its death is durable -> Reading: its batch -> Posted: the letter's block -> settled
//!              ^                                |                  |
//!              +--------- a second's pause -----+------------------+   no such topic, disk full, not read, ...
//! ```
//! A message that does not fit into the topic, or whose batch is damaged, stays dead; it is tried again when the queue's settings or the topic's limits
//! have changed.
//!
//! Not here: what a letter says (subscription/queue/dead_letter.rs), how it is appended (`letters.rs`).

use super::super::admin::rules_of;
use super::super::mesh::{Letters, Message};
use super::super::shard::{Phase, Shard};
use super::care::{Awaited, PartKey};
use crate::api;
use crate::control::{PartitionView, TopicView};
use crate::effects::{Effect, Effects, Now};
use crate::ids::{SubscriptionUid, TopicUid};
use crate::metrics::ShardCounters;
use crate::subscription::queue::{Origin, Part, Why, push_letter};
use crate::subscription::{Collected, CollectedPart, Wants};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use tramline_wire::batch::{BatchBuilder, BatchView, Limits, ProducerMark, PushRefused};
use tramline_wire::codec::Codec;
use tramline_wire::compression::Decompressor;
use tramline_wire::error::ErrorCode;

/// Parts of a shard whose dead messages are on their way at once.
const PARTS_AT_ONCE: usize = 4;
/// Messages of one part that are on their way at once.
const LETTERS_AT_ONCE: usize = 16;
/// Bytes of batches that are read for them, and of letters in one batch, unless one is larger.
const BYTES_AT_ONCE: usize = 256 << 10;
/// Values that are decompressed in one turn of a part, unless those of one batch are more: about half a millisecond.
const VALUES_AT_ONCE: u64 = 512 << 10;
/// How long a part waits after its letters were not taken, in microseconds.
const RETRY_US: u64 = 1_000_000;
/// Messages of one part that are remembered as stuck. When they are as many, the part waits until some of them are gone.
const STUCK_MAX: usize = 1_000;
/// How often such a part looks whether some are gone, in microseconds.
const STUCK_RETRY_US: u64 = 60_000_000;
/// Tickets of burials have this bit (those of looks have another one, those of receives none).
pub(super) const BURIAL_TICKET: u64 = 1 << 62;

/// What decides whether a message fits: when it changes, those that are stuck are tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Target {
    topic: TopicUid,
    record_bytes_max: u32,
    batch_bytes_max: u32,
}

impl Target {
    fn of(topic: &TopicView) -> Target {
        let rules = rules_of(topic);
        Target { topic: topic.uid, record_bytes_max: rules.record_bytes_max, batch_bytes_max: rules.batch_bytes_max }
    }
}

/// What is known of a part with dead messages, beyond what the part itself knows.
#[derive(Debug, Default)]
struct Grave {
    /// Where its messages go, as it was when this was made.
    target: Option<Target>,
    /// Messages that do not fit, or cannot be read.
    stuck: BTreeSet<u64>,
    /// Nothing was left but those that are stuck when so many had died.
    nothing_at: Option<u64>,
    /// Until when it waits.
    paused_until_us: Option<u64>,
    is_busy: bool,
    /// That letters are not taken was told.
    has_warned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// That the messages are dead is being written.
    Noting,
    Reading,
    /// Their letters are with the shard that owns the place.
    Posted,
}

#[derive(Debug)]
struct Burial {
    key: PartKey,
    /// Of the messages, or of those that have a letter; they rise.
    offsets: Vec<u64>,
    step: Step,
}

/// All dead messages of a shard that have somewhere to go.
#[derive(Debug, Default)]
pub(super) struct Burying {
    /// Parts that have some and wait for their turn.
    ready: BTreeSet<PartKey>,
    /// Whose turn it was last.
    last: PartKey,
    graves: BTreeMap<PartKey, Grave>,
    /// Ends of pauses.
    pauses: BTreeSet<(u64, PartKey)>,
    /// By ticket, which is the letters' question too.
    under_way: BTreeMap<u64, Burial>,
}

impl Burying {
    /// A part has changed.
    pub(super) fn refresh(&mut self, key: PartKey, has_dead_letter: bool, part: &Part) {
        let may_begin = |grave: &Grave| !grave.is_busy && grave.paused_until_us.is_none() && grave.nothing_at != Some(part.counts().died);
        if has_dead_letter && part.dead_count() > 0 && self.graves.get(&key).is_none_or(may_begin) {
            self.ready.insert(key);
        } else if !self.ready.is_empty() {
            self.ready.remove(&key);
        }
    }

    /// A part is gone. What of it is on its way finds nobody when it ends.
    pub(super) fn forget(&mut self, key: PartKey) {
        self.ready.remove(&key);
        if let Some(until_us) = self.graves.remove(&key).and_then(|grave| grave.paused_until_us) {
            self.pauses.remove(&(until_us, key));
        }
    }

    /// Parts are not served here any more: their burials end, whose tickets are given back. (`forget` does the rest.)
    pub(super) fn lose(&mut self, keys: &BTreeSet<PartKey>) -> Vec<u64> {
        let tickets: Vec<u64> = self.under_way.iter().filter(|(_, burial)| keys.contains(&burial.key)).map(|(ticket, _)| *ticket).collect();
        tickets.iter().for_each(|ticket| drop(self.under_way.remove(ticket)));
        tickets
    }

    /// The log has failed.
    pub(super) fn give_up(&mut self) {
        *self = Burying::default();
    }

    /// When a pause ends next, on the monotonic clock.
    pub(super) fn next_deadline_us(&self) -> u64 {
        self.pauses.first().map_or(u64::MAX, |(until_us, _)| *until_us)
    }

    fn take_next(&mut self) -> Option<PartKey> {
        if self.under_way.len() >= PARTS_AT_ONCE {
            return None;
        }
        let behind = self.ready.range((Bound::Excluded(self.last), Bound::Unbounded)).next();
        let key = behind.or_else(|| self.ready.first()).copied()?;
        self.ready.remove(&key);
        self.last = key;
        Some(key)
    }

    fn pause(&mut self, key: PartKey, until_us: u64) {
        let grave = self.graves.entry(key).or_default();
        if let Some(before_us) = grave.paused_until_us.replace(until_us) {
            self.pauses.remove(&(before_us, key));
        }
        self.pauses.insert((until_us, key));
    }
}

/// Letters that are to be posted.
#[derive(Default)]
struct Written {
    batch: Vec<u8>,
    /// Of the messages that are in it.
    offsets: Vec<u64>,
    /// Messages that cannot be moved, and why the first of them cannot.
    stuck: Vec<u64>,
    why_stuck: String,
}

impl Written {
    fn leave(&mut self, offset: u64, why: impl FnOnce() -> String) {
        if self.stuck.is_empty() {
            self.why_stuck = why();
        }
        self.stuck.push(offset);
    }
}

impl Shard {
    /// Begins to move dead messages. Once in each turn, before what queues have to say is written.
    pub(in crate::shard) fn bury_dead(&mut self, now: Now, effects: &mut Effects) {
        self.take_letters(now, effects);
        if self.phase != Phase::Serving {
            return;
        }
        while self.queues.has_room()
            && let Some(key) = self.queues.burying.take_next()
        {
            self.begin_burial(now, key);
        }
        if !self.queues.burying.ready.is_empty() && self.queues.burying.under_way.len() < PARTS_AT_ONCE {
            // For want of room for notes, which comes with the next block.
            effects.wake_at(now.mono_us + 1000);
        }
    }

    fn begin_burial(&mut self, now: Now, key: PartKey) {
        let Some(topic) = self.dead_letter_topic(key.0) else {
            let name = self.queues.queues[&key.0].view.dead_letter_topic().unwrap_or_default().to_owned();
            let what = "it does not exist: create it, or give the queue another dead.letter.topic";
            return self.pause_burial(now, key, &name, what);
        };
        let (target, name) = (Target::of(topic), topic.name.clone());
        let number = self.view.find_partition(key.1).map(|(_, place)| place.number);
        let has_place = number.is_none_or(|number| self.place_of_letters(topic, number).is_some());
        self.queues.burying.graves.entry(key).or_default().target = Some(target);
        if !has_place {
            let what =
                "this node leads none of its partitions: create it with as many as the queue's topic has, and with co.locate=that topic";
            return self.pause_burial(now, key, &name, what);
        }
        let part = &self.queues.parts[&key].part;
        let burying = &mut self.queues.burying;
        let grave = burying.graves.get_mut(&key).expect("made above");
        let offsets: Vec<u64> = part.dead().filter(|offset| !grave.stuck.contains(offset)).take(LETTERS_AT_ONCE).collect();
        if offsets.is_empty() {
            grave.nothing_at = Some(part.counts().died);
            return;
        }
        grave.is_busy = true;
        let ticket = self.queues.next_ticket | BURIAL_TICKET;
        self.queues.next_ticket += 1;
        self.queues.burying.under_way.insert(ticket, Burial { key, offsets, step: Step::Noting });
        // A letter about a message that comes back to life with a crash would be one about nothing.
        let group = self.acks.bit_of(self.queues.parts[&key].group);
        self.queues.wait_for_notes(group, Awaited::Burial(ticket));
    }

    /// Where the dead messages of a queue go, if that exists.
    fn dead_letter_topic(&self, queue: SubscriptionUid) -> Option<&TopicView> {
        self.view.topic(self.queues.queues.get(&queue)?.view.dead_letter_topic()?)
    }

    /// That the messages are dead is durable: their batches are read.
    pub(super) fn read_dead(&mut self, now: Now, ticket: u64, effects: &mut Effects) {
        let Some(burial) = self.queues.burying.under_way.get_mut(&ticket) else { return };
        let Some(here) = self.queues.parts.get(&burial.key) else {
            self.queues.burying.under_way.remove(&ticket);
            return;
        };
        assert_eq!(burial.step, Step::Noting, "a burial goes its way once");
        burial.step = Step::Reading;
        self.sessions.collect(ticket, BYTES_AT_ONCE, vec![(here.slot, burial.key.1, Wants::Offsets(burial.offsets.clone()))]);
        effects.wake_at(now.mono_us);
    }

    pub(super) fn on_collected_for_burial(&mut self, now: Now, collected: &Collected, effects: &mut Effects) {
        let Some(burial) = self.queues.burying.under_way.remove(&collected.ticket) else { return };
        assert_eq!(burial.step, Step::Reading, "a burial goes its way once");
        let key = burial.key;
        let Some(queue) = self.queues.queues.get(&key.0).filter(|_| self.queues.parts.contains_key(&key)) else { return };
        let topic = self.view.topic(queue.view.dead_letter_topic().unwrap_or_default()).filter(|_| self.phase == Phase::Serving);
        let from = self.view.find_partition(key.1).map(|(_, place)| place.number);
        let place = topic.zip(from).and_then(|(topic, number)| self.place_of_letters(topic, number)).cloned();
        let (Some(topic), Some(number), Some(place)) = (topic, from, place) else { return self.end_burial(now, key, Some(now.mono_us)) };
        let found = &collected.parts[0];
        let here = self.queues.parts.get_mut(&key).expect("seen above");
        let mut is_doubtful = false;
        for offset in burial.offsets.iter().filter(|offset| is_gone(found, **offset)) {
            is_doubtful |= !here.is_unreadable(*offset);
        }
        if is_doubtful {
            return self.end_burial(now, key, Some(now.mono_us + RETRY_US));
        }
        let written = self.write_letters(key, number, &burial.offsets, found, topic);
        if !self.remember_stuck(now, key, &topic.name.clone(), &written) {
            return;
        }
        if written.offsets.is_empty() {
            // What could not be read now can be later.
            let pause = written.stuck.is_empty().then_some(now.mono_us + RETRY_US);
            return self.end_burial(now, key, pause);
        }
        let burial = Burial { key, offsets: written.offsets, step: Step::Posted };
        self.queues.burying.under_way.insert(collected.ticket, burial);
        self.post(now, collected.ticket, &place, written.batch, effects);
    }

    /// Where the letters of a topic's partition of this number go: to the partition of the same number (over how many there are), or the first one behind it that this
    /// node leads. Of the partitions that a queue has created that is the one beside its messages.
    fn place_of_letters<'a>(&self, topic: &'a TopicView, number: u32) -> Option<&'a PartitionView> {
        let first = number as usize % topic.partitions.len();
        let (front, behind) = topic.partitions.split_at(first);
        behind.iter().chain(front).find(|place| self.lead_of_partition(place).node == self.node)
    }

    /// Makes letters of those of `offsets` that were found, as many as one batch and one turn take.
    fn write_letters(&self, key: PartKey, number: u32, offsets: &[u64], found: &CollectedPart, topic: &TopicView) -> Written {
        let queue = &self.queues.queues[&key.0].view;
        let part = &self.queues.parts[&key].part;
        let (queue, from) = (queue.name.as_str(), queue.topic_name.as_str());
        let origin = Origin { queue, queue_uid: key.0, topic: from, partition: number, partition_uid: key.1 };
        let limits = api::produce::letter_limits(&rules_of(topic), &self.settings);
        let mut builder =
            BatchBuilder::new(Limits { batch_bytes_max: limits.batch_bytes_max.min(self.log.batch_bytes_max() as u32), ..limits });
        let mut written = Written::default();
        for offset in offsets.iter().copied().filter(|offset| is_gone(found, *offset)) {
            written.leave(offset, || "it is damaged, or not stored any more: delete it from the queue".to_owned());
        }
        let mut values_left = VALUES_AT_ONCE;
        for batch in &found.batches {
            let Ok(view) = BatchView::parse(batch.bytes.as_slice()) else { continue };
            let here = offsets.iter().copied().filter(|offset| (batch.base_offset..batch.end_offset).contains(offset));
            let here: Vec<u64> = here.filter(|offset| part.is_dead(*offset)).collect();
            if here.is_empty() {
                continue;
            }
            let values_len = if view.codec() == Codec::None { 0 } else { u64::from(view.values_len()) };
            if values_len > values_left && values_left < VALUES_AT_ONCE || !write_of(&view, here, part, &origin, &mut builder, &mut written)
            {
                break;
            }
            values_left = values_left.saturating_sub(values_len);
        }
        if !builder.is_empty() {
            builder.finish_plain(&mut written.batch, ProducerMark::default());
        }
        written
    }

    /// `false`: there are as many as there may be, and the part waits.
    fn remember_stuck(&mut self, now: Now, key: PartKey, topic: &str, written: &Written) -> bool {
        let part = &self.queues.parts[&key].part;
        let grave = self.queues.burying.graves.entry(key).or_default();
        if let Some(offset) = written.stuck.first()
            && grave.stuck.is_empty()
        {
            let (queue, partition, why) = (&self.queues.queues[&key.0].view.name, key.1.0, &written.why_stuck);
            tracing::warn!(
                shard = self.id.0,
                queue,
                partition,
                offset,
                topic,
                "a dead message stays in its queue and does not go to the dead-letter topic (further ones of this partition are not told): {why}"
            );
        }
        grave.stuck.extend(&written.stuck);
        if grave.stuck.len() < STUCK_MAX {
            return true;
        }
        grave.keep_dead(part);
        let is_full = grave.stuck.len() >= STUCK_MAX;
        if is_full {
            self.end_burial(now, key, Some(now.mono_us + STUCK_RETRY_US));
        }
        !is_full
    }

    fn post(&mut self, now: Now, question: u64, place: &PartitionView, batch: Vec<u8>, effects: &mut Effects) {
        let letters = Letters { question, to: place.uid, batch };
        // Of this node: else it would not have been chosen.
        let lead = self.lead_of_partition(place);
        if lead.shard == self.id {
            self.on_letters(now, None, letters, effects);
        } else {
            effects.push(Effect::Mesh { to: lead.shard, message: Message::Letters(Box::new(letters)) });
        }
    }

    /// The letters are durable where they belong, or were refused.
    pub(in crate::shard) fn on_letters_answered(&mut self, now: Now, question: u64, error: ErrorCode) {
        let Some(burial) = self.queues.burying.under_way.remove(&question) else { return };
        let key = burial.key;
        let Some(here) = self.queues.parts.get_mut(&key) else { return };
        if !error.is_ok() {
            let name = self.dead_letter_topic(key.0).map_or(String::new(), |topic| topic.name.clone());
            return self.pause_burial(now, key, &name, &format!("{}: {}", error.name(), error.sentence()));
        }
        let mut notes = Vec::new();
        for offset in burial.offsets {
            // Else it was deleted or brought back meanwhile.
            if here.part.is_dead(offset) {
                let why = here.part.attempts(offset).last().map_or(Why::None, |attempt| attempt.why);
                count(&mut self.metrics.counters, why);
                here.part.moved(now, offset, &mut notes);
            }
        }
        self.queues.say(key, notes);
        if let Some(grave) = self.queues.burying.graves.get_mut(&key) {
            grave.has_warned = false;
        }
        self.end_burial(now, key, None);
    }

    /// Letters are not taken: tried again in a while.
    fn pause_burial(&mut self, now: Now, key: PartKey, topic: &str, why: &str) {
        let grave = self.queues.burying.graves.entry(key).or_default();
        if !std::mem::replace(&mut grave.has_warned, true) {
            let queue = &self.queues.queues[&key.0].view.name;
            let partition = key.1.0;
            tracing::warn!(
                shard = self.id.0,
                queue,
                partition,
                topic,
                "dead messages stay in their queue for now, and are tried again: the dead-letter topic does not take them: {why}"
            );
        }
        self.end_burial(now, key, Some(now.mono_us + RETRY_US));
    }

    fn end_burial(&mut self, now: Now, key: PartKey, paused_until_us: Option<u64>) {
        let burying = &mut self.queues.burying;
        if let Some(until_us) = paused_until_us {
            burying.pause(key, until_us);
        }
        if let Some(grave) = burying.graves.get_mut(&key) {
            grave.is_busy = false;
            if grave.stuck.is_empty() && grave.paused_until_us.is_none() {
                burying.graves.remove(&key);
            }
        }
        self.queues.refresh(now, key);
    }

    /// Parts whose pause is over have their turn again.
    pub(super) fn end_burial_pauses(&mut self, now: Now) {
        while let Some((until_us, key)) = self.queues.burying.pauses.first().copied().filter(|(at_us, _)| *at_us <= now.mono_us) {
            self.queues.burying.pauses.remove(&(until_us, key));
            let grave = self.queues.burying.graves.get_mut(&key).expect("a part that pauses has one");
            grave.paused_until_us = None;
            grave.keep_dead(&self.queues.parts[&key].part);
            self.queues.refresh(now, key);
        }
    }

    /// A new view: where the place that messages did not fit into has changed, they are tried again.
    pub(super) fn renew_burials(&mut self, now: Now) {
        let keys: Vec<PartKey> = self.queues.burying.graves.keys().copied().collect();
        for key in keys {
            let target = self.dead_letter_topic(key.0).map(Target::of);
            let burying = &mut self.queues.burying;
            let grave = burying.graves.get_mut(&key).expect("just listed");
            if grave.target == target {
                continue;
            }
            if let Some(until_us) = grave.paused_until_us {
                burying.pauses.remove(&(until_us, key));
            }
            *grave = Grave { target, is_busy: grave.is_busy, ..Grave::default() };
            self.queues.refresh(now, key);
        }
    }
}

impl Grave {
    /// Forgets of those that are stuck whatever was deleted or brought back since.
    fn keep_dead(&mut self, part: &Part) {
        self.stuck.retain(|offset| part.is_dead(*offset));
    }
}

/// Whether a message is not to be had any more.
fn is_gone(found: &CollectedPart, offset: u64) -> bool {
    let is_final = |code: ErrorCode| code != ErrorCode::StorageFailed && code != ErrorCode::TopicDeleted;
    let is_missing = found.missing.iter().any(|(range, code)| is_final(*code) && range.contains(&offset));
    let is_passed_over = found.batches.iter().any(|batch| batch.base_offset > offset)
        && !found.batches.iter().any(|batch| (batch.base_offset..batch.end_offset).contains(&offset))
        && !found.missing.iter().any(|(range, _)| range.contains(&offset));
    is_missing || is_passed_over
}

/// Writes the letters about the messages `here` of one batch. `false`: the letters' batch is full.
fn write_of(
    view: &BatchView<'_>,
    mut here: Vec<u64>,
    part: &Part,
    origin: &Origin<'_>,
    builder: &mut BatchBuilder,
    written: &mut Written,
) -> bool {
    let mut decompressor = Decompressor::new();
    let values = match decompressor.decompress(view.codec(), view.stored_values(), view.values_len(), api::produce::VALUES_BYTES_MAX) {
        Ok(values) => values,
        Err(error) => {
            here.into_iter().for_each(|offset| written.leave(offset, || format!("its values cannot be decompressed: {error}")));
            return true;
        }
    };
    // Ends at the first record that does not check: nobody could read it, nor those behind it.
    for record in view.records(values).map_while(Result::ok) {
        let Ok(at) = here.binary_search(&record.offset) else { continue };
        if builder.batch_bytes() >= BYTES_AT_ONCE {
            return false;
        }
        let deliveries = part.deliveries(record.offset);
        match push_letter(builder, origin, &record, deliveries, part.attempts(record.offset)) {
            Ok(()) => written.offsets.push(record.offset),
            Err(PushRefused::Full) => return false,
            Err(refused) => written.leave(record.offset, || {
                format!("{refused}, also without its history: raise record.max.bytes and batch.max.bytes of the topic")
            }),
        }
        here.remove(at);
    }
    here.into_iter().for_each(|offset| written.leave(offset, || "its batch has no such record that can be read".to_owned()));
    true
}

fn count(counters: &mut ShardCounters, why: Why) {
    let counter = match why {
        Why::Nacked => &mut counters.queue_dead_lettered_nacked,
        Why::LeaseExpired => &mut counters.queue_dead_lettered_lease_expired,
        Why::Rejected => &mut counters.queue_dead_lettered_rejected,
        Why::Expired => &mut counters.queue_dead_lettered_expired,
        _ => &mut counters.queue_dead_lettered_unknown,
    };
    *counter += 1;
}
