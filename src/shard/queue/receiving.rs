//! Receiving: from the request to the reply, over a wait, leases, their block, and the batches.
//!
//! Invariants: a receive is answered once, with messages whose leases are durable; messages that were leased and do not fit, or whose connection is gone,
//! are released; receivers of a queue are served in the order in which they came.
//!
//! Not here: which messages (subscription/queue), reading (subscription/collect).

use super::super::shard::{Phase, Shard, Taken};
use super::care::{Awaited, Holder, PartHere, QueueHere, UNREAD_PAUSE_US, of_queue};
use super::lease_number;
use crate::api::{self, ApiError};
use crate::bytes::Bytes;
use crate::effects::{Caller, Effects, Now};
use crate::ids::{ConnId, PartitionUid, ShardId, SubscriptionUid};
use crate::mutants::Mutant;
use crate::subscription::queue::{Kind, Wanted};
use crate::subscription::{Collected, CollectedBatch, CollectedPart, Wants};
use std::ops::Bound;
use tramline_wire::error::ErrorCode;
use tramline_wire::frame::Frame;
use tramline_wire::queue::{Delivery, RECEIVE_BYTES_MAX, RECEIVE_NAMED_MAX, ReceiveReplyWriter};

/// Receives that wait on one shard, at most.
const RECEIVES_MAX: usize = 20_000;
/// Receives whose messages are leased and on their way, at most.
const FILLINGS_MAX: usize = 1_000;
/// Among the waits: not a receive's, but the time at which the holder of an exclusive queue may lose it.
const HOLDER: u64 = u64::MAX;
/// Receivers of one queue that one look at it goes through: some 0.2 us each where one partition has something ready (5,000 in 0.9 ms).
const LOOKS_AT_ONCE: usize = 100;

/// A receive that waits for messages.
#[derive(Debug)]
pub(super) struct Receive {
    pub(super) id: u64,
    pub(super) caller: Caller,
    consumer: Box<[u8]>,
    max_messages: u32,
    max_bytes: u32,
    lease_ms: u32,
    pub(super) deadline_us: u64,
    /// In order; `None` for all that the queue has here.
    pub(super) partitions: Option<Vec<PartitionUid>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Leased {
    offset: u64,
    deliveries: u16,
    lease: u64,
}

/// A receive that has its messages: their leases are being written, and their batches read.
#[derive(Debug)]
pub(super) struct Filling {
    pub(super) receive: Receive,
    pub(super) queue: SubscriptionUid,
    /// In the order of their delivery.
    pub(super) leased: Vec<(PartitionUid, Vec<Leased>)>,
    is_durable: bool,
    pub(super) collected: Option<Collected>,
    /// Its connection is gone.
    pub(super) is_orphaned: bool,
}

impl Shard {
    pub(in crate::shard) fn receive(
        &mut self,
        now: Now,
        caller: Caller,
        frame: &Frame<'_>,
        effects: &mut Effects,
    ) -> Result<Taken, ApiError> {
        let request = api::queue_messages::receive(frame.meta)?;
        let uid = self.known_queue(request.queue_uid)?;
        if let Phase::Failed(reason) = &self.phase {
            return Err(ApiError::new(ErrorCode::StorageFailed, reason.clone()));
        }
        if request.consumer.is_empty() && self.queues.queues.get(&uid).is_some_and(|queue| queue.rules.exclusive) {
            return Err(ApiError::new(ErrorCode::InvalidRequest, "an exclusive queue has to know its consumers: name this one"));
        }
        let mut partitions: Vec<_> = request.partitions.iter().map(PartitionUid).collect();
        partitions.sort_unstable();
        partitions.dedup();
        let mut refused = Vec::new();
        partitions.retain(|partition| {
            let error = match self.readable(*partition) {
                Err(error) => Some(error.code),
                Ok(slot) if !self.is_partition_served(slot) => Some(ErrorCode::NotReady),
                Ok(_) => (!self.queues.parts.contains_key(&(uid, *partition))).then_some(ErrorCode::UnknownPartition),
            };
            refused.extend(error.map(|error| (*partition, error)));
            error.is_none()
        });
        if !refused.is_empty() {
            // What can be received from the others comes with the next request.
            effects.reply(&caller, 0, &mut Vec::new(), |out| {
                let mut writer = ReceiveReplyWriter::begin(out, 0);
                refused.iter().for_each(|(partition, error)| writer.entry(out, partition.0, *error));
                writer.finish(out);
            });
            return Ok(Taken::Yes);
        }
        if self.queues.waits.len() >= RECEIVES_MAX {
            return Err(ApiError::new(ErrorCode::LimitExceeded, "the shard has as many waiting receivers as it may have: close some"));
        }
        let is_all = self.queues.parts.range(of_queue(uid)).take(partitions.len() + 1).count() == partitions.len();
        if !is_all && partitions.len() > RECEIVE_NAMED_MAX {
            let message =
                format!("a receive names all partitions that the queue has at this shard, or at most {RECEIVE_NAMED_MAX} of them");
            return Err(ApiError::new(ErrorCode::LimitExceeded, message));
        }
        let queue = self.queues.queues.get_mut(&uid).expect("it has parts here");
        let lease_ms = if request.visibility_ms == 0 { (queue.rules.visibility_timeout_us / 1000) as u32 } else { request.visibility_ms };
        let id = self.queues.next_ticket;
        self.queues.next_ticket += 1;
        let receive = Receive {
            id,
            caller,
            consumer: request.consumer.as_bytes().into(),
            max_messages: request.max_messages,
            max_bytes: request.max_bytes.min(RECEIVE_BYTES_MAX),
            lease_ms,
            deadline_us: now.mono_us.saturating_add(u64::from(request.wait_ms) * 1000),
            partitions: (!is_all).then_some(partitions),
        };
        if let Some(holder) = &mut queue.holder
            && holder.consumer == receive.consumer
        {
            (holder.over_us, holder.conn) = (now.mono_us + queue.rules.consumer_timeout_us, (caller.conn, caller.via));
        }
        self.queues.waits.insert((receive.deadline_us, uid, id));
        queue.waiting.push_back(receive);
        self.queues.hungry.insert(uid);
        Ok(Taken::Yes)
    }

    /// The queue that a request names.
    pub(super) fn known_queue(&self, uid: u64) -> Result<SubscriptionUid, ApiError> {
        let uid = SubscriptionUid(uid);
        match self.view.queue_by_uid(uid) {
            Some(_) => Ok(uid),
            None => Err(ApiError::new(ErrorCode::UnknownQueue, format!("no queue has the uid {uid}: it was deleted, or never created"))),
        }
    }

    /// Gives whoever waits what there is. Once in each turn, before blocks are closed.
    pub(in crate::shard) fn serve_queues(&mut self, now: Now, effects: &mut Effects) {
        self.forget_closed(now);
        if self.phase != Phase::Serving {
            return;
        }
        let mut unfinished = Vec::new();
        while self.queues.has_room()
            && self.queues.fillings.len() < FILLINGS_MAX
            && let Some(uid) = self.queues.hungry.pop_first()
        {
            self.queues.serving = Some(uid);
            if !self.serve_queue(now, uid, effects) {
                unfinished.push(uid);
            }
        }
        self.queues.serving = None;
        if !unfinished.is_empty() {
            self.queues.hungry.extend(unfinished);
            effects.wake_at(now.mono_us);
        }
    }

    /// Looks at who waits, in the order in which they came, at some in each turn; whether all have had their turn.
    fn serve_queue(&mut self, now: Now, uid: SubscriptionUid, effects: &mut Effects) -> bool {
        self.let_go_of_holder(now, uid, effects);
        let Some(queue) = self.queues.queues.get_mut(&uid) else { return true };
        let from = queue.turn_of.take().unwrap_or(0);
        let mut at = queue.waiting.partition_point(|receive| receive.id < from);
        let mut looks = 0;
        loop {
            let Some(queue) = self.queues.queues.get_mut(&uid) else { return true };
            if queue.ready.is_empty() || at >= queue.waiting.len() {
                // All had their turn. Whoever got nothing has it again when something changes: looking for a message does not count (`refresh` calls the
                // queue hungry as long as somebody waits), or two that may have no more would be looked at for ever.
                self.queues.hungry.remove(&uid);
                return !std::mem::take(&mut queue.has_changed);
            }
            if looks == LOOKS_AT_ONCE {
                queue.turn_of = Some(queue.waiting[at].id);
                self.queues.hungry.remove(&uid);
                return false;
            }
            if queue.rules.exclusive && queue.holder.as_ref().is_some_and(|holder| holder.consumer != queue.waiting[at].consumer) {
                at += 1;
                continue;
            }
            looks += 1;
            if queue.rules.exclusive && !queue.is_held_for(at, now, self.queues.parts.range(of_queue(uid)).map(|(_, here)| here))
                || !self.queues.may_get(uid, at)
            {
                at += 1;
                continue;
            }
            let queue = self.queues.queues.get_mut(&uid).expect("just seen");
            let receive = queue.waiting.remove(at).expect("just seen");
            let leased = self.lease_for(now, uid, &receive);
            if leased.is_empty() {
                self.queues.queues.get_mut(&uid).expect("just seen").waiting.insert(at, receive);
                at += 1;
                continue;
            }
            self.queues.waits.remove(&(receive.deadline_us, uid, receive.id));
            self.fill(uid, receive, leased);
            if !self.queues.has_room() || self.queues.fillings.len() >= FILLINGS_MAX {
                self.queues.hungry.insert(uid);
                return true;
            }
        }
    }

    /// Leases from the receiver's parts in turn, beginning behind the one that was delivered from last.
    fn lease_for(&mut self, now: Now, uid: SubscriptionUid, receive: &Receive) -> Vec<(PartitionUid, Vec<Leased>)> {
        let queue = &self.queues.queues[&uid];
        let (rules, mut last, turns) = (queue.rules, queue.last_served, queue.ready.len());
        let mut all = Vec::new();
        let (mut left, mut left_bytes) = (receive.max_messages, u64::from(receive.max_bytes));
        for _ in 0..turns {
            if left == 0 || left_bytes == 0 {
                break;
            }
            let ready = &self.queues.queues[&uid].ready;
            let Some(partition) = ready.range((Bound::Excluded(last), Bound::Unbounded)).next().or(ready.first()).copied() else { break };
            last = partition;
            if receive.partitions.as_ref().is_some_and(|named| named.binary_search(&partition).is_err()) {
                continue;
            }
            let key = (uid, partition);
            let here = self.queues.parts.get_mut(&key).expect("ready parts exist");
            // Sizes of single messages are known once they are read; what does not fit then is released.
            let average = self.partitions.get(here.slot).map_or(1, |partition| {
                let records = partition.next_offset().saturating_sub(partition.log_start());
                (partition.index.bytes() / records.max(1)).max(1)
            });
            let max = left.min(u32::try_from((left_bytes / average).max(1)).unwrap_or(u32::MAX));
            let mut notes = Vec::new();
            let picked = here.part.pick(now, &rules, Wanted { consumer: &receive.consumer, max, lease_ms: receive.lease_ms }, &mut notes);
            let leases = notes.iter().filter(|note| note.kind == Kind::Lease);
            let leased: Vec<_> = leases
                .flat_map(|note| (note.offset..note.end()).map(|offset| Leased { offset, deliveries: note.deliveries, lease: note.number }))
                .collect();
            assert_eq!(leased.len(), picked as usize, "each message that was picked has a lease");
            left -= picked;
            left_bytes = left_bytes.saturating_sub(u64::from(picked) * average);
            if self.log.mutants().has(Mutant::ForgetLease) {
                notes.clear();
            }
            self.queues.say(key, notes);
            self.queues.refresh(now, key);
            if !leased.is_empty() {
                all.push((partition, leased));
                self.queues.queues.get_mut(&uid).expect("just seen").last_served = partition;
            }
        }
        all
    }

    fn fill(&mut self, queue: SubscriptionUid, receive: Receive, leased: Vec<(PartitionUid, Vec<Leased>)>) {
        let ticket = receive.id;
        let filling = Filling { receive, queue, leased, is_durable: false, collected: None, is_orphaned: false };
        self.queues.fillings.insert(ticket, filling);
        let groups = self.collect_leased(ticket);
        self.queues.wait_for_notes(groups, Awaited::Leases(ticket));
        self.urgent = true;
    }

    /// Asks for the batches of what was leased; answers the groups of the leases (as `Acks::bit_of`).
    pub(super) fn collect_leased(&mut self, ticket: u64) -> u64 {
        let Filling { leased, queue, receive, .. } = &self.queues.fillings[&ticket];
        let (mut wanted, mut groups) = (Vec::with_capacity(leased.len()), 0);
        for (partition, leases) in leased {
            let mut offsets: Vec<_> = leases.iter().map(|leased| leased.offset).collect();
            offsets.sort_unstable();
            let here = &self.queues.parts[&(*queue, *partition)];
            groups |= self.acks.bit_of(here.group);
            wanted.push((here.slot, *partition, Wants::Offsets(offsets)));
        }
        self.sessions.collect(ticket, receive.max_bytes as usize, wanted);
        groups
    }

    pub(super) fn on_leases_durable(&mut self, now: Now, ticket: u64, effects: &mut Effects) {
        if let Some(filling) = self.queues.fillings.get_mut(&ticket) {
            filling.is_durable = true;
            if filling.collected.is_some() {
                self.deliver(now, ticket, effects);
            }
        }
    }

    /// A receive's batches are at hand.
    pub(super) fn on_collected_for_receive(&mut self, now: Now, collected: Collected, effects: &mut Effects) {
        let ticket = collected.ticket;
        if let Some(filling) = self.queues.fillings.get_mut(&ticket) {
            filling.collected = Some(collected);
            if filling.is_durable {
                self.deliver(now, ticket, effects);
            }
        }
    }

    /// Sends what was leased. What could not be read, or does not fit any more, is not.
    fn deliver(&mut self, now: Now, ticket: u64, effects: &mut Effects) {
        let filling = self.queues.fillings.remove(&ticket).expect("the caller has seen it");
        let collected = filling.collected.expect("the caller has seen it");
        let Some(rules) = self.queues.queues.get(&filling.queue).map(|queue| queue.rules) else {
            return effects.refuse(&filling.receive.caller, ErrorCode::QueueDeleted, "", "");
        };
        let mut sent = Vec::with_capacity(filling.leased.len());
        for ((partition, leases), found) in filling.leased.into_iter().zip(collected.parts) {
            let key = (filling.queue, partition);
            let (mut notes, mut delivered) = (Vec::new(), Vec::with_capacity(leases.len()));
            let mut error = ErrorCode::Ok;
            for leased in leases {
                let Some(here) = self.queues.parts.get_mut(&key) else { continue };
                let (offset, lease) = (leased.offset, leased.lease);
                // It was deleted or purged meanwhile, or so much time has passed that it is another's already.
                if here.part.check_lease(now, offset, lease).is_err() {
                    continue;
                }
                match standing(&found, offset) {
                    _ if filling.is_orphaned => here.part.undo_lease(now, &rules, offset, lease, 0, &mut notes),
                    Standing::Here => {
                        here.was_read(offset);
                        delivered.push(leased);
                    }
                    Standing::Damaged if here.is_unreadable(offset) => {
                        here.part.bury_damaged(now, offset, &mut notes);
                        error = ErrorCode::Damaged;
                    }
                    Standing::NotRead => here.part.undo_lease(now, &rules, offset, lease, 0, &mut notes),
                    Standing::Damaged => here.part.undo_lease(now, &rules, offset, lease, UNREAD_PAUSE_US, &mut notes),
                    Standing::Failed(code) => {
                        here.part.undo_lease(now, &rules, offset, lease, UNREAD_PAUSE_US, &mut notes);
                        // What was trimmed meanwhile is settled before long, and nobody's error.
                        error = if code == ErrorCode::OffsetOutOfRange { error } else { code };
                    }
                }
            }
            if !notes.is_empty() {
                self.queues.say(key, notes);
                self.queues.refresh(now, key);
            }
            let error = if delivered.is_empty() { error } else { ErrorCode::Ok };
            if !delivered.is_empty() || !error.is_ok() {
                sent.push((partition, error, only_with(found.batches, &delivered), delivered));
            }
        }
        if filling.is_orphaned {
            return;
        }
        let mut payload: Vec<Bytes> = sent.iter().flat_map(|(_, _, batches, _)| batches).map(|batch| batch.bytes.clone()).collect();
        let counters = &mut self.metrics.counters;
        counters.fetch_bytes += payload.iter().map(Bytes::len).sum::<usize>() as u64;
        counters.fetch_batches += payload.len() as u64;
        counters.queue_received += sent.iter().map(|(.., delivered)| delivered.len() as u64).sum::<u64>();
        effects.reply(&filling.receive.caller, 0, &mut payload, |out| {
            let mut writer = ReceiveReplyWriter::begin(out, 0);
            for (partition, error, batches, delivered) in &sent {
                writer.entry(out, partition.0, *error);
                for leased in delivered {
                    let lease = lease_number::to_wire(filling.queue, leased.lease);
                    writer.delivery(out, &Delivery { offset: leased.offset, lease, deliveries: u32::from(leased.deliveries) });
                }
                batches.iter().for_each(|batch| writer.payload(batch.bytes.len() as u32));
            }
            writer.finish(out);
        });
    }

    /// Receivers whose wait is over get an empty reply.
    pub(super) fn end_waits(&mut self, now: Now, effects: &mut Effects) {
        let due: Vec<_> = self.queues.waits.range(..=(now.mono_us, SubscriptionUid(u64::MAX), u64::MAX)).copied().collect();
        for (at_us, uid, id) in due {
            let had_its_turn = |queue: &QueueHere| queue.turn_of.is_some_and(|next| id < next);
            if id != HOLDER && self.queues.hungry.contains(&uid) && !self.queues.queues.get(&uid).is_some_and(had_its_turn) {
                // What is at hand is looked at first, also with a wait of zero: it has not had its turn.
                effects.wake_at(now.mono_us);
                continue;
            }
            self.queues.waits.remove(&(at_us, uid, id));
            if id == HOLDER {
                self.queues.hungry.insert(uid);
                continue;
            }
            let Some(queue) = self.queues.queues.get_mut(&uid) else { continue };
            if let Some(at) = queue.waiting.iter().position(|receive| receive.id == id) {
                let receive = queue.waiting.remove(at).expect("just found");
                effects.reply(&receive.caller, 0, &mut Vec::new(), |out| ReceiveReplyWriter::begin(out, 0).finish(out));
            }
        }
    }

    /// A connection is gone: its receivers wait no more, and messages on their way to it go to others.
    pub(in crate::shard) fn close_receivers(&mut self, conn: ConnId, via: Option<ShardId>) {
        let is_his = |caller: &Caller| (caller.conn, caller.via) == (conn, via);
        for filling in self.queues.fillings.values_mut().filter(|filling| is_his(&filling.receive.caller)) {
            filling.is_orphaned = true;
        }
        self.queues.closed.insert((conn, via));
    }

    /// Forgets the waits of connections that are gone, of all at once: there may be 20,000 waits, and thousands of connections that are gone in one turn.
    fn forget_closed(&mut self, now: Now) {
        let closed = std::mem::take(&mut self.queues.closed);
        if closed.is_empty() {
            return;
        }
        let waits = &mut self.queues.waits;
        for (uid, queue) in &mut self.queues.queues {
            queue.waiting.retain(|receive| {
                let stays = !closed.contains(&(receive.caller.conn, receive.caller.via));
                if !stays {
                    waits.remove(&(receive.deadline_us, *uid, receive.id));
                }
                stays
            });
            if let Some(holder) = queue.holder.as_mut().filter(|holder| closed.contains(&holder.conn)) {
                // Leases outlive their connection; without any the next one need not wait.
                holder.over_us = now.mono_us;
                self.queues.hungry.insert(*uid);
            }
        }
    }

    /// Whoever holds an exclusive queue loses it when he was not heard of for a while and has no messages.
    fn let_go_of_holder(&mut self, now: Now, uid: SubscriptionUid, effects: &mut Effects) {
        let Some(queue) = self.queues.queues.get_mut(&uid) else { return };
        let Some(holder) = queue.holder.clone() else { return };
        if !queue.rules.exclusive {
            queue.holder = None;
            return;
        }
        let over_us = holder.over_us;
        let waits = queue.waiting.iter().any(|receive| receive.consumer == holder.consumer);
        let has_messages = self.queues.parts.range(of_queue(uid)).any(|(_, here)| here.part.leased_by(&holder.consumer) > 0);
        if waits || has_messages {
            return;
        }
        if over_us <= now.mono_us {
            queue.holder = None;
        } else if !queue.waiting.is_empty() {
            let before_us = std::mem::replace(&mut queue.holder_over_us, over_us);
            self.queues.waits.remove(&(before_us, uid, HOLDER));
            self.queues.waits.insert((over_us, uid, HOLDER));
            effects.wake_at(over_us);
        }
    }
}

impl super::care::QueueCare {
    /// A queue is not served here any more: nobody waits for the end of its holder.
    pub(super) fn forget_holder(&mut self, uid: SubscriptionUid, queue: &QueueHere) {
        self.waits.remove(&(queue.holder_over_us, uid, HOLDER));
    }

    /// Whether the receiver at `at` may get one of the messages that are ready, as far as is seen without taking it out.
    fn may_get(&self, uid: SubscriptionUid, at: usize) -> bool {
        let queue = &self.queues[&uid];
        let Receive { consumer, partitions, .. } = &queue.waiting[at];
        queue.ready.iter().any(|partition| {
            let is_named = partitions.as_ref().is_none_or(|named| named.binary_search(partition).is_ok());
            is_named && self.parts[&(uid, *partition)].part.leased_by(consumer) < queue.rules.max_in_flight_per_consumer
        })
    }
}

impl QueueHere {
    /// Whether the receiver at `at` has the exclusive queue here, or gets it now: nobody has it, and no lease of its parts here is another's. There are such
    /// leases after a start, which finds no holder, and where a queue has become exclusive.
    fn is_held_for<'a>(&mut self, at: usize, now: Now, mut parts: impl Iterator<Item = &'a PartHere>) -> bool {
        let Receive { consumer, caller, .. } = &self.waiting[at];
        if let Some(holder) = &self.holder {
            return holder.consumer == *consumer;
        }
        if parts.any(|here| here.part.leased_count() > u64::from(here.part.leased_by(consumer))) {
            return false;
        }
        let over_us = now.mono_us + self.rules.consumer_timeout_us;
        self.holder = Some(Holder { consumer: consumer.clone(), conn: (caller.conn, caller.via), over_us });
        true
    }
}

enum Standing {
    Here,
    Damaged,
    /// It did not fit.
    NotRead,
    /// The disk did not give it, or the partition is gone.
    Failed(ErrorCode),
}

/// By a search in the batches, which are in order of offset: there may be as many of them as messages.
fn standing(found: &CollectedPart, offset: u64) -> Standing {
    let at = found.batches.partition_point(|batch| batch.end_offset <= offset);
    if found.batches.get(at).is_some_and(|batch| batch.base_offset <= offset) {
        return Standing::Here;
    }
    match found.missing.iter().find(|(range, _)| range.contains(&offset)) {
        Some((_, ErrorCode::Damaged)) => Standing::Damaged,
        Some((_, code)) => Standing::Failed(*code),
        None => Standing::NotRead,
    }
}

/// The batches that hold a message that is delivered.
fn only_with(mut batches: Vec<CollectedBatch>, delivered: &[Leased]) -> Vec<CollectedBatch> {
    // In the order of their delivery, which is not that of offsets where there are priorities.
    let mut offsets: Vec<u64> = delivered.iter().map(|leased| leased.offset).collect();
    offsets.sort_unstable();
    let next_from = |offset: u64| offsets.get(offsets.partition_point(|delivered| *delivered < offset));
    batches.retain(|batch| next_from(batch.base_offset).is_some_and(|offset| *offset < batch.end_offset));
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Slab;

    fn batch(slab: &mut Slab, base_offset: u64, end_offset: u64) -> CollectedBatch {
        let buffer = slab.take(16).expect("room for one");
        CollectedBatch { base_offset, end_offset, bytes: slab.freeze(buffer) }
    }

    /// Every subset of ten messages in some batches with a hole between them, in falling order of offset as well, against plain loops.
    #[test]
    fn messages_are_found_in_their_batches_and_the_others_stay_here() {
        let slab = &mut Slab::new(1 << 20);
        let batches = [batch(slab, 2, 3), batch(slab, 3, 6), batch(slab, 8, 10)];
        let holds = |batch: &CollectedBatch, offset: u64| (batch.base_offset..batch.end_offset).contains(&offset);
        let found = CollectedPart { batches: batches.to_vec(), missing: vec![(6..8, ErrorCode::Damaged)], ..CollectedPart::default() };
        for offset in 0..12 {
            let expected = batches.iter().any(|batch| holds(batch, offset));
            assert_eq!(matches!(standing(&found, offset), Standing::Here), expected, "{offset}");
            assert_eq!(matches!(standing(&found, offset), Standing::Damaged), (6..8).contains(&offset), "{offset}");
        }
        for set in 0..1u64 << 10 {
            let mut delivered: Vec<_> =
                (0..10).filter(|offset| set >> offset & 1 == 1).map(|offset| Leased { offset, deliveries: 1, lease: 1 }).collect();
            if set % 2 == 1 {
                delivered.reverse();
            }
            let expected: Vec<u64> = batches
                .iter()
                .filter(|batch| delivered.iter().any(|leased| holds(batch, leased.offset)))
                .map(|batch| batch.base_offset)
                .collect();
            let kept: Vec<u64> = only_with(batches.to_vec(), &delivered).iter().map(|batch| batch.base_offset).collect();
            assert_eq!(kept, expected, "{set:b}");
        }
    }
}
