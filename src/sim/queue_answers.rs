//! What consumers of queues are answered: whether it may be so, and what follows.
//!
//! Not here: what is known of queues and messages (`queue_truth.rs`), steps (`queue_steps.rs`).

use super::Check;
use super::clients::{Clients, State};
use super::link::{Answer as Frame, broken};
use super::queue_admin::is_gone;
use super::queue_codes::Reads;
use super::queue_looks::Look;
use super::queue_message::{Answer, Token};
use super::queue_truth::Told;
use super::queue_work::{Asked, Browsed, Settling, Wanted, What, Workers};
use super::totals::Event as Counted;
use super::world::World;
use std::collections::BTreeSet;
use std::ops::Range;
use tramline_wire::batch::Batches;
use tramline_wire::error::ErrorCode;
use tramline_wire::fetch::FetchReply;
use tramline_wire::group::{FetchOffsetsReply, FindGroupReply};
use tramline_wire::metadata::MetadataReply;
use tramline_wire::produce::{ProduceReply, ProduceResult};
use tramline_wire::producer::InitProducerReply;
use tramline_wire::queue::{
    BrowseReply, CreateQueueReply, DeleteMessagesReply, DescribeQueueReply, ListQueuesReply, PurgeReply, ReceiveReply, Received,
    RedriveReply, SettleReply,
};
use tramline_wire::step::StepReply;
use tramline_wire::trim::TrimPartitionsReply;

/// In a calm run a delayed message that somebody waits for is told no later than so long after it is due: two milliseconds, and what a slow write to the
/// disk and one before it take.
pub(super) const LATE_US: i64 = 12_000;

/// Runs `each` over the records of batches: partition, offset, value, message id, time of appending.
fn each_record(batches: &[u8], mut each: impl FnMut(u64, &[u8], Option<&[u8]>, i64) -> Check) -> Check {
    for batch in Batches::new(batches) {
        let batch = batch.map_err(|e| broken(&e))?;
        batch.verify_header().and_then(|()| batch.verify_body()).map_err(|e| broken(&e))?;
        for record in batch.records(batch.stored_values()) {
            let record = record.map_err(|e| broken(&e))?;
            each(record.offset, record.value.unwrap_or_default(), record.attributes.message_id, batch.append_time_us())?;
        }
    }
    Ok(())
}

impl Workers {
    pub(super) fn on_frame(&mut self, world: &mut World, clients: &Clients, conn: u64, bytes: &[u8]) -> Check {
        let Some(at) = self.by_conn.get(&conn).copied() else { return Ok(()) };
        self.see(world, &clients.history);
        match self.list[at].link.take(bytes)? {
            Frame::Nothing => Ok(()),
            _ if !self.is_running => Ok(()),
            Frame::Good(asked, meta, payload) => {
                let text = if world.log.is_some() { format!("{asked:?}") } else { String::new() };
                self.on_good(world, at, asked, (meta, payload)).map_err(|error| format!("consumer {at}: {error} {text}"))
            }
            Frame::Refused(asked, code, message) => {
                world.say(|| format!("consumer {at} is refused: {code:?}: {message}, {asked:?}"));
                self.on_refused(world, at, asked, code).map_err(|error| format!("consumer {at}: {error}: {message}"))
            }
        }
    }

    fn on_good(&mut self, world: &mut World, at: usize, asked: Asked, (meta, payload): (&[u8], &[u8])) -> Check {
        let Asked { sent_us, utc_us, what } = asked;
        match what {
            What::CreateTopic(number) => {
                self.on_topic_made(number);
                Ok(())
            }
            What::DeleteTopic(number) => {
                self.found.topic_deleted = Some(());
                self.on_topic_deleted(world, number);
                Ok(())
            }
            What::Metadata => self.on_metadata(&MetadataReply::decode(meta).map_err(|e| broken(&e))?),
            What::CreateQueue(number) => self.on_created(world, number, &CreateQueueReply::decode(meta).map_err(|e| broken(&e))?),
            What::Pause(number, pauses) => {
                self.on_paused(world, number, pauses);
                Ok(())
            }
            What::DeleteQueue(number) => {
                self.on_deleted(world, number);
                Ok(())
            }
            What::ListQueues => self.on_listed(&ListQueuesReply::decode(meta).map_err(|e| broken(&e))?, sent_us),
            What::Alter(number) => {
                self.on_altered(world, number);
                Ok(())
            }
            What::Trim { uid, before } => self.on_trimmed(world, uid, before, &TrimPartitionsReply::decode(meta).map_err(|e| broken(&e))?),
            What::Describe(number) => self.on_described(number, sent_us, &DescribeQueueReply::decode(meta).map_err(|e| broken(&e))?),
            What::Produce { uid, ids } => {
                let reply = ProduceReply::decode(meta).map_err(|e| broken(&e))?;
                let result = reply.results.iter().next().ok_or("a produce reply without result")?;
                self.on_produced(world, uid, ids, &result)
            }
            What::Receive(wanted) => {
                let reply = ReceiveReply::decode(meta).map_err(|e| broken(&e))?;
                self.on_received(world, at, (sent_us, utc_us), &wanted, (&reply, payload))
            }
            What::Settle { queue, entries } => {
                let reply = SettleReply::decode(meta).map_err(|e| broken(&e))?;
                self.on_settled(world, queue, &entries, &reply)
            }
            What::Fetch { uid, offset } => {
                let reply = FetchReply::decode(meta).map_err(|e| broken(&e))?;
                let (entry, batches) = reply.parts(payload).map_err(|e| broken(&e))?.next().ok_or("a fetch reply without entry")?;
                self.on_fetched(world, (uid, offset), entry.error, entry.next_offset, batches)
            }
            What::Browse(look) => {
                let reply = BrowseReply::decode(meta).map_err(|e| broken(&e))?;
                world.totals.note(Counted::QueuesBrowsed);
                if self.is_draining {
                    let messages = reply.messages.iter().map(|told| (told.offset, (told.state, told.until_us))).collect();
                    self.found.browsed = Some(Browsed { messages, next: reply.next, is_end: reply.end });
                }
                self.truth.check_browsed(&look, sent_us, world.now_us, &reply)
            }
            What::Purge { queue, uid, number } => {
                self.on_purged(world, (queue, uid), number, sent_us, &PurgeReply::decode(meta).map_err(|e| broken(&e))?)
            }
            What::Delete { place } => {
                self.on_message_deleted(world, place, sent_us, &DeleteMessagesReply::decode(meta).map_err(|e| broken(&e))?)
            }
            What::Redrive { queue, uid, max, before_us } => {
                self.on_redriven(world, (queue, uid), max, before_us, &RedriveReply::decode(meta).map_err(|e| broken(&e))?)
            }
            What::InitProducer => {
                let reply = InitProducerReply::decode(meta).map_err(|e| broken(&e))?;
                self.list[at].maker.producer = Some(reply.producer_id);
                Ok(())
            }
            What::FindGroup => {
                let reply = FindGroupReply::decode(meta).map_err(|e| broken(&e))?;
                self.list[at].maker.group = Some(reply.group_uid);
                Ok(())
            }
            What::Step(number) => self.on_step(world, at, number, &StepReply::decode(meta).map_err(|e| broken(&e))?),
            What::Offset { uid, floor } => {
                let reply = FetchOffsetsReply::decode(meta).map_err(|e| broken(&e))?;
                self.on_offset(world, at, uid, floor, &reply)
            }
        }
    }

    fn on_produced(&mut self, world: &mut World, uid: u64, ids: Range<u64>, result: &ProduceResult) -> Check {
        if result.error.retriable() {
            return Ok(());
        }
        if !result.error.is_ok() || result.partition_uid != uid {
            return Err(format!("messages for partition {uid} are answered with {result:?}"));
        }
        world.totals.add(Counted::MessagesSent, ids.end - ids.start);
        for (offset, id) in (result.base_offset..).zip(ids) {
            self.truth.records.on_stored(uid, offset, id, result.append_time_us, world.now_us)?;
        }
        Ok(())
    }

    fn on_received(
        &mut self,
        world: &mut World,
        at: usize,
        asked: (u64, i64),
        wanted: &Wanted,
        (reply, payload): (&ReceiveReply<'_>, &[u8]),
    ) -> Check {
        let (mut count, mut batches) = (0, 0);
        let mut uids = BTreeSet::new();
        for (entry, part) in reply.parts(payload).map_err(|e| broken(&e))? {
            let uid = entry.partition_uid;
            if !wanted.partitions.contains(&uid) || !uids.insert(uid) {
                return Err(format!("{wanted:?} is answered with partition {uid}, among {uids:?}"));
            }
            if entry.error.is_ok() == entry.deliveries.is_empty() {
                return Err(format!("{wanted:?}: partition {uid} has {:?} and {} deliveries", entry.error, entry.deliveries.len()));
            }
            count += entry.deliveries.len();
            batches += Batches::new(part).count();
            self.on_received_of(world, at, asked, wanted, (&entry, part))?;
        }
        if count > wanted.max_messages as usize || payload.len() > wanted.max_bytes as usize && batches > 1 {
            return Err(format!("{wanted:?} is answered with {count} messages, in {batches} batches of {} bytes", payload.len()));
        }
        Ok(())
    }

    /// What was received of one partition.
    fn on_received_of(
        &mut self,
        world: &mut World,
        at: usize,
        (asked_us, asked_utc_us): (u64, i64),
        wanted: &Wanted,
        (entry, batches): (&Received<'_>, &[u8]),
    ) -> Check {
        let (queue, uid, now_us) = (wanted.queue, entry.partition_uid, world.now_us);
        let (mut steps, mut there) = (Vec::new(), BTreeSet::new());
        let truth = &mut self.truth;
        each_record(batches, |offset, value, _, append_us| {
            let number = truth.records.on_seen(uid, offset, value, append_us, now_us)?;
            steps.extend(truth.records.get(number).step);
            there.insert(offset);
            Ok(())
        })?;
        for step in steps {
            self.on_step_seen(step, now_us)?;
        }
        if !entry.error.is_ok() {
            self.check_part_code((queue, uid), entry.error, Reads::Yes)?;
        }
        let offsets: Vec<u64> = entry.deliveries.iter().map(|delivery| delivery.offset).collect();
        if let Some(missing) = offsets.iter().find(|offset| !there.remove(offset)) {
            return Err(format!("partition {uid}: of {offsets:?} the record {missing} is not in the payload, or is delivered twice"));
        }
        self.truth.check_priority(queue, uid, &offsets)?;
        let (lease_ms, lease_ms_max) = self.truth.queues[queue].lease_ms(wanted.visibility_ms, asked_us);
        for delivery in entry.deliveries.iter() {
            world.totals.note(Counted::MessagesDelivered);
            world.totals.add(Counted::MessagesRedelivered, u64::from(delivery.deliveries > 1));
            let token = Token {
                lease: delivery.lease,
                deliveries: delivery.deliveries,
                consumer: at,
                asked_us,
                got_us: now_us,
                lease_us: u64::from(lease_ms) * 1000,
                lease_us_max: u64::from(lease_ms_max) * 1000,
                life: world.life(),
                ends: Vec::new(),
                void_us: None,
            };
            let (partition, offset) = (uid, delivery.offset);
            if self.is_calm && (!self.is_draining || self.late_us_max.is_some()) {
                self.check_late(world, queue, &token, (uid, offset))?;
            }
            let never = self.truth.on_delivered(world, Told { queue, partition, offset, asked_utc_us, token })?;
            for step in never {
                self.on_step_never(step)?;
            }
            if !self.truth.decayed && self.truth.queues[queue].state != State::Gone {
                self.list[at].held.push(((queue, uid, offset), delivery.lease));
            }
        }
        Ok(())
    }

    /// Nothing is late in a calm run: a message that is told for the first time, to somebody who asked before it was due.
    fn check_late(&mut self, world: &mut World, queue: usize, token: &Token, (uid, offset): (u64, u64)) -> Check {
        let Some(record) = self.truth.records.at(uid, offset) else { return Ok(()) };
        let asked_utc_us = world.utc_us() - (world.now_us - token.asked_us) as i64;
        let Some(due_us) = record.wishes.deliver_at_us.filter(|due_us| *due_us > asked_utc_us) else { return Ok(()) };
        let is_waited_for = token.deliveries == 1 && record.wishes.group.is_none() && record.known_us.is_some_and(|us| us < token.asked_us);
        let rules = &self.truth.queues[queue].rules;
        if !is_waited_for || rules.max_in_flight < 1000 || rules.max_in_flight_per_consumer < 1000 || rules.exclusive {
            return Ok(());
        }
        world.totals.note(if self.late_us_max.is_some() { Counted::DelaysTimed } else { Counted::DelaysWaitedFor });
        let late_us = world.utc_us() - due_us;
        if late_us > self.late_us_max.unwrap_or(LATE_US) {
            return Err(format!("partition {uid}, offset {offset} was due at {due_us}, somebody waits, and it is {late_us} us late"));
        }
        Ok(())
    }

    fn on_settled(&mut self, world: &mut World, queue: usize, entries: &[Settling], reply: &SettleReply<'_>) -> Check {
        if reply.entries.len() != entries.len() {
            return Err(format!("{} entries, {} answers", entries.len(), reply.entries.len()));
        }
        if self.truth.decayed || self.truth.queues[queue].state == State::Gone {
            return Ok(());
        }
        let now_us = world.now_us;
        for (entry, told) in entries.iter().zip(reply.entries.iter()) {
            let (_, uid, offset) = entry.place;
            if (told.partition_uid, told.offset) != (uid, offset) {
                return Err(format!("settled offset {offset} of partition {uid}, told of {told:?}"));
            }
            let Some(number) = entry.end else {
                match told.error {
                    ErrorCode::UnknownLease => world.totals.note(Counted::ForeignRefused),
                    ErrorCode::Ok | ErrorCode::LeaseExpired | ErrorCode::LeaseLost => {
                        return Err(format!("{entry:?} has a lease that this queue never gave, and is answered with {:?}", told.error));
                    }
                    code => self.check_part_code((queue, uid), code, Reads::No)?,
                }
                continue;
            };
            let message = self.truth.message_mut(entry.place);
            match told.error {
                ErrorCode::Ok => {
                    let what = message.token(entry.lease).expect("asked with it").ends[number].action;
                    world.totals.note(if what.settles() { Counted::MessagesAcked } else { Counted::LeasesEnded });
                    message.on_ended(entry.lease, number, now_us).map_err(|error| format!("partition {uid}, offset {offset}: {error}"))?;
                    self.truth.check_letter(entry.place)?;
                }
                code @ (ErrorCode::UnknownLease | ErrorCode::LeaseExpired | ErrorCode::LeaseLost) => {
                    world.totals.note(Counted::TokensRefused);
                    self.truth.check_refusal(entry.place, entry.lease, number, code, now_us)?;
                    let token = self.truth.message_mut(entry.place).token_mut(entry.lease).expect("asked with it");
                    token.ends[number].answer = Answer::Never;
                    if code != ErrorCode::LeaseExpired {
                        token.void_us.get_or_insert(now_us);
                    }
                }
                code => self.check_part_code((queue, uid), code, Reads::No)?,
            }
        }
        Ok(())
    }

    fn on_fetched(&mut self, world: &mut World, (uid, from): (u64, u64), code: ErrorCode, next: u64, batches: &[u8]) -> Check {
        if matches!(code, ErrorCode::OffsetOutOfRange | ErrorCode::Damaged) {
            // What lies between was dropped, or is not to be had now.
            self.found.fetched_to = Some(next);
            if let Some(topic) = self.topics.iter_mut().find(|topic| topic.dead_uid == uid) {
                topic.dead_to = topic.dead_to.max(next);
            } else {
                self.truth.records.on_read(uid, next, next);
            }
            return Ok(());
        }
        if !code.is_ok() {
            return if code.retriable() || self.truth.decayed { Ok(()) } else { Err(format!("fetch of partition {uid}: {code:?}")) };
        }
        if self.topics.iter().any(|topic| topic.dead_uid == uid) {
            return self.on_letters(world, (uid, from), batches);
        }
        let (now_us, mut to, mut steps) = (world.now_us, from, Vec::new());
        let truth = &mut self.truth;
        each_record(batches, |offset, value, _, append_us| {
            let number = truth.records.on_seen(uid, offset, value, append_us, now_us)?;
            steps.extend(truth.records.get(number).step);
            to = to.max(offset + 1);
            Ok(())
        })?;
        truth.records.on_read(uid, from, to);
        self.found.fetched_to = Some(to);
        steps.into_iter().try_for_each(|step| self.on_step_seen(step, now_us))
    }

    /// Letters of dead messages: each is of a message that is there, with its bytes.
    fn on_letters(&mut self, world: &mut World, (uid, from): (u64, u64), batches: &[u8]) -> Check {
        let now_us = world.now_us;
        let (mut to, mut seen) = (from, Vec::new());
        let truth = &self.truth;
        each_record(batches, |offset, value, id, _| {
            to = to.max(offset + 1);
            let number = truth.records.number_of(value).map_err(|error| format!("letter {offset}: {error}"))?;
            let text = id.and_then(|id| std::str::from_utf8(id).ok()).unwrap_or_default();
            let numbers: Vec<u64> = text.split('/').filter_map(|number| number.parse().ok()).collect();
            let [queue_uid, partition, of] = numbers[..] else { return Err(format!("letter {offset} has the id {text:?}")) };
            let record = truth.records.get(number);
            if record.partition != partition || record.offset.is_some_and(|known| known != of) {
                return Err(format!("letter {offset} is about {text}, and holds message {number}: {record:?}"));
            }
            seen.push((queue_uid, partition, of));
            Ok(())
        })?;
        for (queue_uid, partition, of) in seen {
            world.totals.note(Counted::LettersSeen);
            let Some(queue) = self.truth.queues.iter().position(|queue| queue.uid == queue_uid) else {
                // That of one whose creation was not answered is not known.
                if self.truth.queues.iter().any(|queue| queue.uid == 0) {
                    continue;
                }
                return Err(format!("a letter is from queue {queue_uid}, which never was"));
            };
            if self.truth.queues[queue].is_live() && !self.truth.decayed {
                self.truth.message_mut((queue, partition, of)).letter_us.get_or_insert(now_us);
                self.truth.check_letter((queue, partition, of))?;
            }
        }
        let topic = self.topics.iter_mut().find(|topic| topic.dead_uid == uid).expect("one of them");
        topic.dead_to = topic.dead_to.max(to);
        // Not where somebody was already: a part that a read did not give is read again at the end.
        self.found.fetched_to = Some(to);
        Ok(())
    }

    fn on_refused(&mut self, world: &mut World, at: usize, asked: Asked, code: ErrorCode) -> Check {
        let queue = match &asked.what {
            What::Receive(Wanted { queue, .. })
            | What::Settle { queue, .. }
            | What::Browse(Look { queue, .. })
            | What::Purge { queue, .. }
            | What::Redrive { queue, .. }
            | What::Describe(queue)
            | What::Alter(queue)
            | What::Pause(queue, _) => Some(*queue),
            What::Delete { place } => Some(place.0),
            _ => None,
        };
        if matches!(asked.what, What::Receive(_)) && !code.retriable() {
            self.found.refused = Some(code);
        }
        match (asked.what, code) {
            (What::Step(number), code) => return self.on_step_refused(world, at, number, code),
            (What::DeleteTopic(number), ErrorCode::UnknownTopic) => {
                self.found.topic_deleted = Some(());
                self.on_topic_deleted(world, number);
            }
            (What::DeleteQueue(number), ErrorCode::UnknownQueue) => self.on_deleted(world, number),
            (what, code) if code.retriable() && code != ErrorCode::UnknownPartition => self.on_unknown(at, what, world.now_us),
            (what, code) if queue.is_some() && is_gone(code) => {
                self.check_unknown_queue(queue.expect("looked at"))?;
                self.on_unknown(at, what, world.now_us);
            }
            (What::CreateQueue(number), ErrorCode::UnknownTopic) if self.truth.decayed => self.truth.queues[number].state = State::Gone,
            (what, code) if self.truth.decayed => {
                world.say(|| format!("on a decayed disk {what:?} is refused: {code:?}"));
                self.on_unknown(at, what, world.now_us);
            }
            (what, code) => return Err(format!("{what:?} is refused: {code:?}")),
        }
        Ok(())
    }
}
