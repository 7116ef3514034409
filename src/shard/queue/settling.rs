//! Settling: what becomes of leased messages, and of messages that are deleted, purged and redriven.
//!
//! Invariant: each of these is answered when it is durable.
//!
//! Not here: what it does to a message (subscription/queue).

use super::super::shard::{Phase, Shard, Taken};
use super::care::{Awaited, PartKey};
use super::lease_number;
use crate::api::{self, ApiError};
use crate::effects::{Caller, Effects, Now};
use crate::ids::{PartitionUid, SubscriptionUid};
use crate::metrics::ShardCounters;
use crate::mutants::Mutant;
use crate::subscription::queue::{EndRefused, Ending, QueueNote};
use tramline_wire::error::ErrorCode;
use tramline_wire::frame::Frame;
use tramline_wire::level::Level;
use tramline_wire::prim::List;
use tramline_wire::queue::{
    DELAY_BY_POLICY, DeleteMessagesReply, PurgeReply, Purged, REDRIVEN_MAX, RedriveFlags, RedriveReply, Redriven, SettleAction,
    SettleEntry, SettleReply, SettledMessage,
};
use tramline_wire::step::{StepReply, StepResult};

/// What a request's reply will say.
#[derive(Debug)]
pub(super) enum Settled {
    Settle(Vec<SettledMessage>),
    Delete(Vec<SettledMessage>),
    Purge(Vec<Purged>),
    Redrive(Vec<Redriven>),
    Step(Vec<StepResult>),
}

impl Settled {
    pub(super) fn reply(&self, caller: &Caller, effects: &mut Effects) {
        effects.reply(caller, 0, &mut Vec::new(), |out| match self {
            Settled::Settle(entries) => SettleReply { throttle_ms: 0, entries: List::of(entries) }.encode(out),
            Settled::Delete(entries) => DeleteMessagesReply { entries: List::of(entries) }.encode(out),
            Settled::Purge(entries) => PurgeReply { entries: List::of(entries) }.encode(out),
            Settled::Step(results) => {
                StepReply { level_reached: Level::Durable, throttle_ms: 0, results: List::of(results) }.encode(out);
            }
            Settled::Redrive(entries) => RedriveReply { entries: List::of(entries) }.encode(out),
        });
    }
}

impl Settled {
    /// Another node leads the group of some partitions: what was done there may hold, or not. False where the request is answered as a whole.
    pub(super) fn lose(&mut self, is_lost: impl Fn(PartitionUid) -> bool) -> bool {
        let lose = |uid: u64, error: &mut ErrorCode| {
            if error.is_ok() && is_lost(PartitionUid(uid)) {
                *error = ErrorCode::LeadershipLost;
            }
        };
        match self {
            Settled::Settle(entries) | Settled::Delete(entries) => entries.iter_mut().for_each(|e| lose(e.partition_uid, &mut e.error)),
            Settled::Purge(entries) => entries.iter_mut().for_each(|e| lose(e.partition_uid, &mut e.error)),
            Settled::Redrive(entries) => entries.iter_mut().for_each(|e| lose(e.partition_uid, &mut e.error)),
            Settled::Step(_) => return false,
        }
        true
    }
}

/// The notes of a request, as far as they are of one part.
#[derive(Default)]
struct Said {
    key: Option<PartKey>,
    notes: Vec<QueueNote>,
    /// Groups of all parts that the request is about (as `Acks::bit_of`).
    groups: u64,
}

impl Shard {
    pub(in crate::shard) fn settle(&mut self, now: Now, caller: Caller, frame: &Frame<'_>) -> Result<Taken, ApiError> {
        let request = api::queue_messages::settle(frame.meta)?;
        let Some(uid) = self.queue_to_change(request.queue_uid)? else { return Ok(Taken::Blocked) };
        let mut said = Said::default();
        let mut results = Vec::with_capacity(request.entries.len());
        for entry in request.entries.iter() {
            let (partition, offset) = (PartitionUid(entry.partition_uid), entry.offset);
            let error = self.settle_one(now, uid, &entry, &mut said);
            if !error.is_ok() {
                self.metrics.count_error(error);
            }
            results.push(SettledMessage { partition_uid: partition.0, offset, error });
        }
        self.finish_saying(now, &mut said);
        let consumer = request.consumer.as_bytes();
        if let Some(queue) = self.queues.queues.get_mut(&uid)
            && let Some(holder) = queue.holder.as_mut().filter(|holder| *holder.consumer == *consumer)
        {
            holder.over_us = now.mono_us + queue.rules.consumer_timeout_us;
        }
        let answer = Awaited::Answer(caller, Settled::Settle(results));
        match self.log.mutants().has(Mutant::AckMessageEarly) {
            true => self.queues.wait_for_nothing(answer),
            false => self.queues.wait_for_notes(said.groups, answer),
        }
        Ok(Taken::Yes)
    }

    /// The queue that a request wants to change; `None` where there is no room for that now.
    fn queue_to_change(&self, uid: u64) -> Result<Option<SubscriptionUid>, ApiError> {
        let uid = self.known_queue(uid)?;
        match &self.phase {
            Phase::Failed(reason) => Err(ApiError::new(ErrorCode::StorageFailed, reason.clone())),
            _ => Ok(self.queues.has_room().then_some(uid)),
        }
    }

    /// The part that an entry names.
    pub(super) fn part_of(&self, uid: SubscriptionUid, partition: PartitionUid) -> Result<PartKey, ErrorCode> {
        let slot = self.readable(partition).map_err(|error| error.code)?;
        if !self.is_partition_served(slot) {
            return Err(ErrorCode::NotReady);
        }
        let key = (uid, partition);
        if self.queues.parts.contains_key(&key) { Ok(key) } else { Err(ErrorCode::UnknownPartition) }
    }

    fn settle_one(&mut self, now: Now, uid: SubscriptionUid, entry: &SettleEntry<'_>, said: &mut Said) -> ErrorCode {
        if !api::queue_messages::is_right_delay(entry) {
            return ErrorCode::InvalidAttribute;
        }
        let partition = PartitionUid(entry.partition_uid);
        let key = match said.key {
            Some(key) if key == (uid, partition) => key,
            _ => match self.part_of(uid, partition) {
                Ok(key) => {
                    self.begin_saying(now, key, said);
                    key
                }
                Err(error) => return error,
            },
        };
        let reason = entry.reason.as_bytes();
        let ending = match entry.action {
            SettleAction::Ack => Ending::Ack,
            SettleAction::Nack => {
                let delay_us = (entry.delay_ms != DELAY_BY_POLICY).then_some(u64::from(entry.delay_ms) * 1000);
                Ending::Nack { delay_us, reason }
            }
            SettleAction::Extend => Ending::Extend { ms: entry.delay_ms },
            SettleAction::Release => Ending::Release,
            SettleAction::Reject => Ending::Reject { reason },
        };
        match self.end_lease(now, key, (entry.offset, entry.lease), ending, &mut said.notes) {
            Ok(()) => ErrorCode::Ok,
            Err(refused) => code_of(refused),
        }
    }

    /// Ends a lease, by the number that its holder was told, and counts it. Panics if there is no such part.
    pub(super) fn end_lease(
        &mut self,
        now: Now,
        key: PartKey,
        (offset, lease): (u64, u64),
        ending: Ending<'_>,
        notes: &mut Vec<QueueNote>,
    ) -> Result<(), EndRefused> {
        let rules = &self.queues.queues[&key.0].rules;
        let part = &mut self.queues.parts.get_mut(&key).expect("the caller has seen it").part;
        let held_us = part.end(now, rules, offset, lease_number::from_wire(key.0, lease), ending, notes)?;
        count(&mut self.metrics.counters, ending);
        if ending == Ending::Ack {
            self.metrics.record_queue_ack(held_us.saturating_mul(1000));
        }
        Ok(())
    }

    fn begin_saying(&mut self, now: Now, key: PartKey, said: &mut Said) {
        if said.key != Some(key) {
            self.finish_saying(now, said);
            said.key = Some(key);
            said.groups |= self.acks.bit_of(self.queues.parts[&key].group);
        }
    }

    fn finish_saying(&mut self, now: Now, said: &mut Said) {
        if let Some(key) = said.key.take() {
            self.queues.say(key, std::mem::take(&mut said.notes));
            self.queues.refresh(now, key);
            self.urgent = true;
        }
    }

    pub(in crate::shard) fn delete_messages(&mut self, now: Now, caller: Caller, frame: &Frame<'_>) -> Result<Taken, ApiError> {
        let request = api::queue_messages::delete(frame.meta)?;
        let Some(uid) = self.queue_to_change(request.queue_uid)? else { return Ok(Taken::Blocked) };
        let mut said = Said::default();
        let mut results = Vec::with_capacity(request.entries.len());
        for entry in request.entries.iter() {
            let error = match self.part_of(uid, PartitionUid(entry.partition_uid)) {
                Err(error) => error,
                Ok(key) => {
                    self.begin_saying(now, key, &mut said);
                    let here = self.queues.parts.get_mut(&key).expect("part_of has seen it");
                    let committed_end = self.partitions.get(here.slot).expect("readable").committed_end();
                    let is_deleted = here.part.delete(now, entry.offset, committed_end, &mut said.notes);
                    if is_deleted { ErrorCode::Ok } else { ErrorCode::UnknownMessage }
                }
            };
            results.push(SettledMessage { partition_uid: entry.partition_uid, offset: entry.offset, error });
        }
        self.finish_saying(now, &mut said);
        self.queues.wait_for_notes(said.groups, Awaited::Answer(caller, Settled::Delete(results)));
        Ok(Taken::Yes)
    }

    pub(in crate::shard) fn purge_queue(&mut self, now: Now, caller: Caller, frame: &Frame<'_>) -> Result<Taken, ApiError> {
        let request = api::queue_messages::purge(frame.meta)?;
        let Some(uid) = self.queue_to_change(request.queue_uid)? else { return Ok(Taken::Blocked) };
        let mut said = Said::default();
        let mut results = Vec::with_capacity(request.partitions.len());
        for partition in request.partitions.iter().map(PartitionUid) {
            let (error, purged) = match self.part_of(uid, partition) {
                Err(error) => (error, 0),
                Ok(key) => {
                    self.begin_saying(now, key, &mut said);
                    let here = self.queues.parts.get_mut(&key).expect("part_of has seen it");
                    // Also what was appended and is not committed: nobody was told of it yet.
                    let end = self.partitions.get(here.slot).expect("readable").next_offset();
                    let purged = here.part.purge_to(now, end, &mut said.notes);
                    self.untidy_queues(partition);
                    (ErrorCode::Ok, purged)
                }
            };
            results.push(Purged { partition_uid: partition.0, error, purged });
        }
        self.finish_saying(now, &mut said);
        self.queues.wait_for_notes(said.groups, Awaited::Answer(caller, Settled::Purge(results)));
        Ok(Taken::Yes)
    }

    pub(in crate::shard) fn redrive_queue(&mut self, now: Now, caller: Caller, frame: &Frame<'_>) -> Result<Taken, ApiError> {
        let request = api::queue_messages::redrive(frame.meta)?;
        let Some(uid) = self.queue_to_change(request.queue_uid)? else { return Ok(Taken::Blocked) };
        let is_dry = request.flags.has(RedriveFlags::DRY_RUN);
        let mut left = if request.max_messages == 0 { u64::MAX } else { u64::from(request.max_messages) };
        let mut said = Said::default();
        let mut results = Vec::with_capacity(request.partitions.len());
        for partition in request.partitions.iter().map(PartitionUid) {
            let (error, redriven) = match self.part_of(uid, partition) {
                Err(error) => (error, 0),
                Ok(key) => {
                    self.begin_saying(now, key, &mut said);
                    let part = &mut self.queues.parts.get_mut(&key).expect("part_of has seen it").part;
                    let max = left.min(REDRIVEN_MAX);
                    let redriven = if is_dry { part.dead_count().min(left) } else { part.redrive(now, max, &mut said.notes) };
                    (ErrorCode::Ok, redriven)
                }
            };
            left = left.saturating_sub(redriven);
            results.push(Redriven { partition_uid: partition.0, error, redriven });
        }
        self.finish_saying(now, &mut said);
        self.queues.wait_for_notes(said.groups, Awaited::Answer(caller, Settled::Redrive(results)));
        Ok(Taken::Yes)
    }
}

/// The code of a lease that did not end as asked.
pub(super) fn code_of(refused: EndRefused) -> ErrorCode {
    match refused {
        EndRefused::Unknown => ErrorCode::UnknownLease,
        EndRefused::Expired => ErrorCode::LeaseExpired,
        EndRefused::Lost => ErrorCode::LeaseLost,
    }
}

fn count(counters: &mut ShardCounters, ending: Ending<'_>) {
    let counter = match ending {
        Ending::Ack => &mut counters.queue_acked,
        Ending::Nack { .. } => &mut counters.queue_nacked,
        Ending::Extend { .. } => &mut counters.queue_extended,
        Ending::Release => &mut counters.queue_released,
        Ending::Reject { .. } => &mut counters.queue_rejected,
    };
    *counter += 1;
}
