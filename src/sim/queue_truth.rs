//! What is known of queues, and what follows from it for whoever receives from them.
//!
//! Known for certain is what was answered; what was asked for and has no answer may have happened, or not. A check speaks where both come to the same.
//!
//! Checked, of each delivery: the queue has the message, and nobody settled it, has it under a lease that certainly holds, or has one of its group; no
//! earlier message of its group is certainly open; it is not early, not too old, and not delivered too often; what comes in one reply comes by priority.
//! Of each answer to a lease's holder: whether it can be so. Of each look: that nothing is missing that is certainly there, and nothing there that is not.
//!
//! Where the disk has decayed only the messages' bytes are checked: what was lost with a block is lost with what was known of it.
//!
//! Not here: one message by itself (`queue_message.rs`), who asks (`queue_work.rs`), steps (`queue_steps.rs`).

use super::Check;
use super::clients::State;
use super::queue_message::{Answer, End, Message, Token};
use super::queue_records::{Record, Records, Within};
use super::world::World;
use std::collections::BTreeMap;
use tramline_wire::error::ErrorCode;

/// A message of a queue: number of the queue, uid of the partition, offset.
pub(super) type Place = (usize, u64, u64);

/// Where a queue begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Latest,
    Earliest,
    Time(i64),
}

/// The settings of a queue. Where it begins, its window of ids and whether it is exclusive do not change as long as it lives; `paused` has a place of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) start: Start,
    pub(super) visibility_ms: u32,
    pub(super) max_deliveries: Option<u32>,
    pub(super) retry_initial_ms: u64,
    pub(super) retry_multiplier: u64,
    pub(super) retry_max_ms: u64,
    pub(super) retry_jitter_percent: u64,
    pub(super) dedup_window_ms: u64,
    pub(super) max_in_flight: usize,
    pub(super) max_in_flight_per_consumer: usize,
    pub(super) exclusive: bool,
    pub(super) has_dead_letter: bool,
}

impl Rules {
    /// The shortest time that a message waits after it failed for the `deliveries`th time.
    pub(super) fn retry_us_min(&self, deliveries: u32) -> u64 {
        let mut delay_us = (self.retry_initial_ms * 1000).min(self.retry_max_ms * 1000);
        for _ in 1..deliveries.min(40) {
            delay_us = (delay_us * self.retry_multiplier).min(self.retry_max_ms * 1000);
        }
        delay_us - delay_us / 100 * self.retry_jitter_percent
    }
}

/// A purge that may have been carried out at any time until then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Purge {
    pub(super) until_us: u64,
}

/// A queue in one partition.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) messages: BTreeMap<u64, Message>,
    /// Until then a redrive may have brought back what was dead; 0 for never.
    pub(super) redriven_until_us: u64,
    /// By number of the request.
    pub(super) purges: Vec<Purge>,
    /// A purge that was sent then was answered: what was durable before is settled.
    pub(super) purged_us: Option<u64>,
}

impl Part {
    /// The lease that certainly holds on a message: one that nothing but its holder or time could have ended.
    pub(super) fn held<'a>(&self, message: &'a Message, now_us: u64) -> Option<&'a Token> {
        message.held(now_us).filter(|held| !message.may_be_deleted() && !self.may_be_purged(held.asked_us))
    }

    /// Whether a purge may have been carried out at `since_us` or later: when a message was sent, so that it may be settled; when a lease was asked for, so
    /// that its message may be, also while the reply was on its way.
    pub(super) fn may_be_purged(&self, since_us: u64) -> bool {
        self.purges.iter().any(|purge| purge.until_us >= since_us)
    }
}

/// A queue.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) name: String,
    pub(super) topic: usize,
    /// As they were asked for last.
    pub(super) rules: Rules,
    /// Those of before, and until when they may have counted: for ever, as long as the change is not answered.
    pub(super) rules_before: Vec<(Rules, u64)>,
    /// A change is asked for and not answered.
    pub(super) is_alter_open: bool,
    pub(super) state: State,
    pub(super) uid: u64,
    /// When its creation was asked for first, and when that was answered.
    pub(super) asked_us: u64,
    pub(super) created_us: Option<u64>,
    /// Since then its pause is acknowledged, and nobody has asked to end it.
    pub(super) paused_since_us: Option<u64>,
    /// The pause that is wanted, and whether that is known to hold.
    pub(super) is_paused: bool,
    pub(super) is_pause_open: bool,
    pub(super) parts: BTreeMap<u64, Part>,
}

impl Queue {
    /// All rules that may have counted at `since_us` or later.
    pub(super) fn rules_since(&self, since_us: u64) -> impl Iterator<Item = &Rules> {
        let before = self.rules_before.iter().filter(move |(_, until_us)| *until_us >= since_us);
        before.map(|(rules, _)| rules).chain([&self.rules])
    }

    /// Whether a change of the settings is known not to have counted yet, or not known to count.
    pub(super) fn is_being_altered(&self) -> bool {
        self.rules_before.iter().any(|(_, until_us)| *until_us == u64::MAX)
    }

    /// Whether a message that is dead may go somewhere, or may have.
    pub(super) fn may_have_dead_letter(&self) -> bool {
        self.rules_since(0).any(|rules| rules.has_dead_letter)
    }

    /// How long a lease lasts that was asked for at `since_us`, at least and at most, in milliseconds.
    pub(super) fn lease_ms(&self, visibility_ms: u32, since_us: u64) -> (u32, u32) {
        if visibility_ms > 0 {
            return (visibility_ms, visibility_ms);
        }
        let of = |rules: &Rules| rules.visibility_ms;
        self.rules_since(since_us).fold((u32::MAX, 0), |(least, most), rules| (least.min(of(rules)), most.max(of(rules))))
    }

    /// Whether the queue has a record.
    pub(super) fn within(&self, record: &Record) -> Within {
        match self.rules.start {
            Start::Time(start_us) if record.timestamp_us < start_us => return Within::No,
            Start::Latest if record.known_us.is_some_and(|known_us| known_us <= self.asked_us) => return Within::No,
            _ => {}
        }
        let is_later = self.created_us.is_some_and(|created_us| created_us <= record.sent_us);
        if is_later { Within::Yes } else { Within::Perhaps }
    }

    pub(super) fn is_live(&self) -> bool {
        self.state == State::Live
    }

    /// Whether somebody may have settled a message without a lease, or with one.
    fn may_be_settled(&self, part: &Part, message: Option<&Message>, record: &Record) -> bool {
        let is_settled = |message: &Message| message.settled_us.is_some() || message.may_be_deleted() || message.may_be_acked();
        part.may_be_purged(record.sent_us) || message.is_some_and(is_settled)
    }

    /// Whether a message is certainly in the queue, and not settled. One that is dead is.
    pub(super) fn is_open(&self, records: &Records, uid: u64, offset: u64, record: &Record) -> bool {
        !(self.rules.dedup_window_ms > 0 && records.may_be_duplicate(record)) && self.is_open_but_for_id(records, uid, offset, record)
    }

    /// The same, unless its id makes it a duplicate.
    pub(super) fn is_open_but_for_id(&self, records: &Records, uid: u64, offset: u64, record: &Record) -> bool {
        let Some(part) = self.parts.get(&uid) else { return false };
        record.wishes.ttl_ms.is_none()
            && !records.may_be_trimmed(uid, offset)
            && record.known_us.is_some()
            && self.within(record) == Within::Yes
            && !self.may_be_settled(part, part.messages.get(&offset), record)
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Truth {
    pub(super) queues: Vec<Queue>,
    pub(super) records: Records,
    /// The disk has decayed.
    pub(super) decayed: bool,
}

/// A delivery as it was told.
pub(super) struct Told {
    pub(super) queue: usize,
    pub(super) partition: u64,
    pub(super) offset: u64,
    pub(super) asked_utc_us: i64,
    pub(super) token: Token,
}

impl Truth {
    pub(super) fn part(&self, queue: usize, partition: u64) -> &Part {
        &self.queues[queue].parts[&partition]
    }

    pub(super) fn part_mut(&mut self, queue: usize, partition: u64) -> &mut Part {
        self.queues[queue].parts.entry(partition).or_default()
    }

    pub(super) fn message_mut(&mut self, (queue, partition, offset): Place) -> &mut Message {
        self.part_mut(queue, partition).messages.entry(offset).or_default()
    }

    /// A message is delivered whose record is known. Answers which steps are certainly not carried out.
    pub(super) fn on_delivered(&mut self, world: &World, told: Told) -> Result<Vec<usize>, String> {
        if self.decayed {
            return Ok(Vec::new());
        }
        let Told { queue, partition, offset, token, asked_utc_us } = told;
        let record = *self.records.at(partition, offset).ok_or("delivered without its record")?;
        let of = &self.queues[queue];
        let name = format!("{} ({}) in partition {partition}, offset {offset}, {record:?}", of.name, of.uid);
        self.check_delivery(world, queue, partition, &record, &token, asked_utc_us).map_err(|error| format!("{name}: {error}"))?;
        self.check_group(queue, partition, (offset, &record), &token).map_err(|error| format!("{name}: {error}"))?;
        let is_trimmed = self.records.may_be_trimmed(partition, offset);
        let part = self.part_mut(queue, partition);
        let revived_until_us = part.redriven_until_us;
        let message = part.messages.entry(offset).or_default();
        if is_trimmed {
            message.deletes = message.deletes.max(1);
        }
        let first_us = message.tokens.first().map_or(0, |token| token.asked_us);
        let is_revived = revived_until_us > 0 && revived_until_us >= first_us;
        let delivered = message.on_delivered(token, is_revived, |from_us| world.utc_max_since(from_us));
        let never = delivered.map_err(|error| format!("{name}: {error}"))?;
        self.check_in_flight(queue, partition, world.now_us)?;
        Ok(never)
    }

    fn check_delivery(&self, world: &World, queue: usize, uid: u64, record: &Record, token: &Token, asked_utc_us: i64) -> Check {
        let of = &self.queues[queue];
        let part = &of.parts[&uid];
        if of.within(record) == Within::No {
            return Err(format!("the queue begins later: {of:?}", of = of.rules));
        }
        // What was given back under other rules comes once more.
        let is_too_often = |rules: &Rules| rules.max_deliveries.is_some_and(|max| token.deliveries > max);
        if of.rules_since(record.sent_us).all(is_too_often) || token.deliveries == 0 {
            return Err(format!("it is delivered for the {}th time, and {:?} is the last", token.deliveries, of.rules.max_deliveries));
        }
        let trimmed_us = record.offset.and_then(|offset| self.records.trimmed_us(uid, offset));
        if trimmed_us.is_some_and(|trimmed_us| trimmed_us <= token.asked_us) {
            return Err(format!("it was trimmed, known at {trimmed_us:?}"));
        }
        if of.paused_since_us.is_some_and(|since_us| since_us <= token.asked_us) {
            return Err("the queue is paused".to_owned());
        }
        let is_purged = part.purged_us.is_some_and(|sent_us| record.known_us.is_some_and(|known_us| known_us <= sent_us));
        if is_purged && !part.may_be_purged(token.asked_us) {
            return Err("it was purged".to_owned());
        }
        // What was brought back is as if it had no delay and no time to live.
        if part.redriven_until_us >= record.sent_us {
            return Ok(());
        }
        let clock_us = world.utc_max_since(record.sent_us);
        if let Some(due_us) = record.wishes.deliver_at_us.filter(|due_us| *due_us > clock_us) {
            return Err(format!("it is due at {due_us}, and delivered at {clock_us}"));
        }
        let over_us = record.wishes.ttl_ms.map(|ttl_ms| record.timestamp_us + i64::from(ttl_ms) * 1000);
        if let Some(over_us) = over_us.filter(|over_us| *over_us <= asked_utc_us) {
            return Err(format!("its time was over at {over_us}, and it was asked for at {asked_utc_us}"));
        }
        let letter_us = record.offset.and_then(|offset| part.messages.get(&offset)?.letter_us);
        match letter_us.filter(|letter_us| *letter_us <= token.asked_us) {
            Some(letter_us) => Err(format!("it went to the dead-letter topic, seen at {letter_us}")),
            None => Ok(()),
        }
    }

    /// One of a group at a time, and in order. An earlier message that is passed over is dead, or over; when it comes later all the same, it was neither.
    fn check_group(&mut self, queue: usize, uid: u64, (offset, record): (u64, &Record), token: &Token) -> Check {
        let Some(group) = record.wishes.group else { return Ok(()) };
        let of = &self.queues[queue];
        let part = &of.parts[&uid];
        // What was brought back has left its group's order.
        let is_in_order = |record: &Record| record.sent_us > part.redriven_until_us;
        if !is_in_order(record) {
            return Ok(());
        }
        if let Some((lease, asked_us)) = part.messages.get(&offset).and_then(|message| message.overtaken)
            && token.lease > lease
        {
            return Err(format!(
                "it was overtaken in its group {group} by what was asked for at {asked_us}, under lease {lease}: {token:?}"
            ));
        }
        let mut overtaken = Vec::new();
        for other in self.records.of_group(uid, group).iter().copied().filter(|other| *other != offset) {
            let message = part.messages.get(&other);
            let before = self.records.at(uid, other).expect("of the group");
            if !is_in_order(before) {
                continue;
            }
            let now_us = token.got_us;
            if let Some(held) = message
                .and_then(|message| part.held(message, now_us))
                .filter(|_| token.is_held(now_us) && !part.may_be_purged(token.asked_us))
                // A trim while the reply is on its way ends the lease that it tells of, and the next of the group goes out.
                .filter(|_| !self.records.may_be_trimmed(uid, offset))
            {
                return Err(format!("two of group {group} are out: {held:?} of offset {other}, and {token:?}"));
            }
            // A start does not know the ids of what was trimmed: what was a duplicate before may be none any more.
            let is_doubtful = before.wishes.id.is_some_and(|id| self.records.is_id_trimmed(uid, id));
            if other < offset && !is_doubtful && before.known_us.is_some_and(|known_us| known_us <= token.asked_us) {
                overtaken.push(other);
            }
        }
        let by = (token.lease, token.asked_us);
        for other in overtaken {
            self.message_mut((queue, uid, other)).overtaken.get_or_insert(by);
        }
        Ok(())
    }

    /// Leases that certainly hold are no more than there may be, and of one consumer where the queue is exclusive.
    fn check_in_flight(&self, queue: usize, uid: u64, now_us: u64) -> Check {
        let of = &self.queues[queue];
        let has_bounds = |rules: &Rules| rules.max_in_flight <= 1000 || rules.max_in_flight_per_consumer <= 1000 || rules.exclusive;
        if !has_bounds(&of.rules) {
            return Ok(());
        }
        let (mut by_consumer, mut since_us): (BTreeMap<usize, usize>, _) = (BTreeMap::new(), now_us);
        let part = self.part(queue, uid);
        for held in part.messages.values().filter_map(|message| part.held(message, now_us)) {
            *by_consumer.entry(held.consumer).or_default() += 1;
            since_us = since_us.min(held.asked_us);
        }
        let (sum, most) = (by_consumer.values().sum::<usize>(), by_consumer.values().copied().max().unwrap_or(0));
        // Leases stay that were given under other rules: of each bound the widest counts.
        let widest = |bound: fn(&Rules) -> usize| of.rules_since(since_us).map(bound).max().unwrap_or(usize::MAX);
        let (sum_max, most_max) = (widest(|rules| rules.max_in_flight), widest(|rules| rules.max_in_flight_per_consumer));
        if sum > sum_max || most > most_max || of.rules.exclusive && by_consumer.len() > 1 {
            return Err(format!("{}, partition {uid}: leased by consumer are {by_consumer:?}, with {:?}", of.name, of.rules));
        }
        Ok(())
    }

    /// What came in one reply from one partition comes by priority, then by offset.
    pub(super) fn check_priority(&self, queue: usize, uid: u64, offsets: &[u64]) -> Check {
        if self.decayed {
            return Ok(());
        }
        // Where a message of a group may be over by itself, the next one comes out in the middle of a reply.
        let counts = |record: &Record| record.wishes.group.is_none_or(|group| !self.records.is_mortal(uid, group));
        let rank = |offset: &u64| {
            let record = self.records.at(uid, *offset).filter(|record| counts(record))?;
            Some((9 - record.wishes.priority.unwrap_or(0), *offset))
        };
        let ranks: Vec<(u8, u64)> = offsets.iter().filter_map(rank).collect();
        if ranks.is_sorted() {
            return Ok(());
        }
        Err(format!("{}, partition {uid}: (9 - priority, offset) come in one reply as {ranks:?}", self.queues[queue].name))
    }

    /// Somebody asks to trim a partition: what is below may be settled from now on, in each queue.
    pub(super) fn on_trim_sent(&mut self, uid: u64, before: u64) {
        self.records.on_trim_sent(uid, before);
        let parts = self.queues.iter_mut().filter_map(|queue| queue.parts.get_mut(&uid));
        parts.flat_map(|part| part.messages.range_mut(..before)).for_each(|(_, message)| message.deletes += 1);
    }

    /// A letter is of a message that was dead, and in a queue that has somewhere to send it: whoever has acked the message had it before it died. Unless it
    /// was brought back to life since.
    pub(super) fn check_letter(&self, (queue, uid, offset): Place) -> Check {
        let of = &self.queues[queue];
        let Some((part, message)) = of.parts.get(&uid).and_then(|part| Some((part, part.messages.get(&offset)?))) else { return Ok(()) };
        let Some(letter_us) = message.letter_us.filter(|_| !self.decayed) else { return Ok(()) };
        let wrong =
            |why: String| Err(format!("{}, partition {uid}, offset {offset}: a letter of it was seen at {letter_us}, and {why}", of.name));
        if !of.may_have_dead_letter() {
            return wrong("the queue has no dead-letter topic".to_owned());
        }
        let Some(record) = self.records.at(uid, offset) else { return Ok(()) };
        if of.within(record) == Within::No {
            return wrong(format!("the queue begins later: {record:?}"));
        }
        match message.acked() {
            Some(end) if part.redriven_until_us < record.sent_us => wrong(format!("it was acked: {end:?} of {message:?}")),
            _ => Ok(()),
        }
    }

    /// A request of a lease's holder was refused with `code`; it was sent when the lease's `number`th end was noted.
    pub(super) fn check_refusal(&self, (queue, uid, offset): Place, lease: u64, number: usize, code: ErrorCode, now_us: u64) -> Check {
        if self.decayed {
            return Ok(());
        }
        let of = &self.queues[queue];
        let (part, message) = (&of.parts[&uid], &of.parts[&uid].messages[&offset]);
        let token = message.token(lease).expect("asked with it");
        let end = token.ends[number];
        let was_done = |other: &End| other.ends() && matches!(other.answer, Answer::Done(known_us) if known_us <= end.sent_us);
        let record = self.records.at(uid, offset).expect("delivered before");
        let is_untouched = token.ends.iter().enumerate().all(|(at, other)| at == number || !other.ends() || other.answer == Answer::Never);
        let may_be_gone = message.may_be_deleted() || part.may_be_purged(record.sent_us);
        let is_newest = message.tokens.last().is_some_and(|last| last.lease == lease);
        let wrong = |why: &str| Err(format!("{}, partition {uid}, offset {offset}: {code:?} for {token:?}, and {why}", of.name));
        if is_newest && is_untouched && token.void_us.is_none() && !may_be_gone && now_us < token.holds_until_us() {
            return wrong("it certainly holds");
        }
        if message.settled_us.is_some_and(|settled_us| settled_us <= end.sent_us) && code != ErrorCode::UnknownLease {
            return wrong("the message is settled");
        }
        if code == ErrorCode::LeaseExpired && token.ends.iter().any(was_done) {
            return wrong("it has ended otherwise");
        }
        let later = message.tokens.last().filter(|last| last.lease != lease && last.got_us <= end.sent_us && last.is_held(now_us));
        if later.is_some() && !may_be_gone && code != ErrorCode::LeaseLost {
            return wrong(&format!("another holds it: {later:?}"));
        }
        Ok(())
    }
}
