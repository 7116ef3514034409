//! All queues of a shard: their parts, what of them has to be written, and when something is due.
//!
//! Invariants: a note reaches the log in the order in which its part made it; nobody is told anything before the notes behind it are committed; what is
//! ready, due or behind is known without a walk over all parts.
//!
//! Not here: requests (`receiving.rs`, `settling.rs`, `telling.rs`), batches (`looking.rs`).

use super::super::in_order::InOrder;
use super::super::shard::{Phase, Shard};
use super::burying::Burying;
use super::found::Found;
use super::keeping::Keeping;
use super::letters::LetterBox;
use super::named::rules_of_queue;
use super::receiving::{Filling, Receive};
use super::settling::Settled;
use crate::control::{QueueStart, QueueView, View};
use crate::effects::{Caller, Effects, Now};
use crate::ids::{BlockSeq, ConnId, GroupId, IdMap, PartitionUid, ShardId, SubscriptionUid};
use crate::mutants::Mutant;
use crate::partition::{Partition, Slot};
use crate::subscription::queue::{Kind, Part, PartCounts, QueueNote, QueueRules, encode_some_notes};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;
use tramline_wire::error::ErrorCode;

/// Names a part: a queue and a partition.
pub(in crate::shard) type PartKey = (SubscriptionUid, PartitionUid);

/// The keys of all parts of a queue.
pub(super) fn of_queue(uid: SubscriptionUid) -> RangeInclusive<PartKey> {
    (uid, PartitionUid(0))..=(uid, PartitionUid(u64::MAX))
}

/// Notes that wait for room in the log: from here on requests that would add some have to wait.
const PENDING_MAX: usize = 65_536;
/// Messages that one turn deals with when they are due, per part: about half a millisecond.
const DUE_AT_ONCE: usize = 1_000;

/// So often, with [`UNREAD_PAUSE_US`] between two of them, something cannot be read until it is given up: chosen, not measured. What is given up is gone for the
/// queue, and what lies behind it waits meanwhile; whether the disk failed or the data is damaged is not told apart here.
const READS: u8 = 6;
/// What was not read waits so long before it is tried again.
pub(super) const UNREAD_PAUSE_US: u64 = 1_000_000;
/// Places in one part that could not be read of which is known how often.
const UNREAD_MAX: usize = 1000;

/// One queue in one partition of this shard.
#[derive(Debug)]
pub(super) struct PartHere {
    pub(super) part: Part,
    pub(super) slot: Slot,
    pub(super) group: GroupId,
    /// Its place in `QueueCare::due`.
    due_us: u64,
    /// Batches are being read for it.
    pub(super) is_looking: bool,
    /// It has as much as it may have: not before this time.
    pub(super) look_from_us: u64,
    /// How far its partition went when this shard began to serve it: what was there then is looked at before anything is delivered, so that priorities and
    /// groups hold over a restart.
    pub(super) look_first_to: u64,
    /// What could not be read, by its first offset: how often.
    unread: BTreeMap<u64, u8>,
}

impl PartHere {
    /// What begins at `from` could not be read once more, or does not check: whether that is to be believed. One failed read may pass.
    pub(super) fn is_unreadable(&mut self, from: u64) -> bool {
        if self.unread.len() == UNREAD_MAX && !self.unread.contains_key(&from) {
            self.unread.pop_first();
        }
        let times = self.unread.entry(from).or_default();
        *times += 1;
        let is_believed = *times >= READS;
        if is_believed {
            self.unread.remove(&from);
        }
        is_believed
    }

    /// What begins at `from` was read.
    pub(super) fn was_read(&mut self, from: u64) {
        if !self.unread.is_empty() {
            self.unread.remove(&from);
        }
    }

    /// The time of the oldest message that is not settled, UTC microseconds.
    pub(super) fn oldest_us(&self, partition: &Partition) -> Option<i64> {
        let settled_to = self.part.settled_to();
        if settled_to < partition.committed_end() { partition.index.time_at(settled_to) } else { None }
    }
}

/// Who alone receives from an exclusive queue, for now.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    pub(super) consumer: Box<[u8]>,
    pub(super) conn: (ConnId, Option<ShardId>),
    /// When he loses it if he has no lease then and was not heard of.
    pub(super) over_us: u64,
}

/// One queue that has parts on this shard.
#[derive(Debug)]
pub(super) struct QueueHere {
    pub(super) view: Arc<QueueView>,
    pub(super) rules: QueueRules,
    /// Receivers, in the order in which they came.
    pub(super) waiting: VecDeque<Receive>,
    /// Parts that have something to deliver.
    pub(super) ready: BTreeSet<PartitionUid>,
    /// The part that was delivered from last: the others go first.
    pub(super) last_served: PartitionUid,
    pub(super) holder: Option<Holder>,
    /// When the holder may lose it: its place among the waits.
    pub(super) holder_over_us: u64,
    /// The receive whose turn it is next, where a turn of the shard was over before all were looked at.
    pub(super) turn_of: Option<u64>,
    /// Something has changed since then: those that had their turn have it again.
    pub(super) has_changed: bool,
}

/// A note that has to reach the log.
#[derive(Debug)]
pub(super) struct Pending {
    key: PartKey,
    pub(super) group: GroupId,
    note: QueueNote,
}

/// Somebody who waits until what was pending when he came is committed.
#[derive(Debug)]
pub(super) enum Awaited {
    /// Messages that were leased: the collection of this ticket.
    Leases(u64),
    /// A reply.
    Answer(Caller, Settled),
    /// Messages that are dead: the burial of this ticket.
    Burial(u64),
    /// What the next state file tells.
    State,
}

/// All queues of a shard.
#[derive(Debug, Default)]
pub(in crate::shard) struct QueueCare {
    pub(super) queues: BTreeMap<SubscriptionUid, QueueHere>,
    pub(super) parts: BTreeMap<PartKey, PartHere>,
    /// Queues of each partition.
    pub(super) by_partition: IdMap<PartitionUid, Vec<SubscriptionUid>>,
    /// Parts that this node does not serve: found at the start, or of groups that another node leads.
    pub(super) found: Found,
    due: BTreeSet<(u64, PartKey)>,
    /// Ends of the waits of receivers: (time, queue, receive).
    pub(super) waits: BTreeSet<(u64, SubscriptionUid, u64)>,
    /// Parts with batches that were not looked at.
    pub(super) behind: BTreeSet<PartKey>,
    /// Connections that closed in this turn, with the shard that they came over: what they wait for is forgotten before anybody is served.
    pub(super) closed: BTreeSet<(ConnId, Option<ShardId>)>,
    /// Queues with something to deliver and somebody who waits, perhaps.
    pub(super) hungry: BTreeSet<SubscriptionUid>,
    /// The queue whose receivers are being looked at.
    pub(super) serving: Option<SubscriptionUid>,
    /// Parts with purged messages to drop.
    untidy: BTreeSet<PartKey>,
    /// Parts that are gone, to be dropped bit by bit.
    pub(super) dropped: Vec<Part>,
    pub(super) pending: VecDeque<Pending>,
    /// Whoever came while something was pending: the number of notes made by then, and the groups (as `Acks::bit_of`) that he waits for.
    pub(super) unwritten: VecDeque<(u64, u64, Awaited)>,
    pub(super) awaiting: InOrder<Awaited>,
    pub(super) notes_made: u64,
    pub(super) notes_written: u64,
    /// The last block of what was written.
    written: BlockSeq,
    pub(super) fillings: BTreeMap<u64, Filling>,
    /// Looks under way, by their tickets.
    pub(super) looks: BTreeMap<u64, PartKey>,
    /// For whom batches were read last: the others go first.
    pub(super) looked_last: PartKey,
    pub(super) next_ticket: u64,
    pub(in crate::shard) keeping: Keeping,
    pub(super) burying: Burying,
    pub(super) letters: LetterBox,
    /// What parts that are gone have counted.
    pub(super) gone: PartCounts,
    /// The part whose partition was told last what to hold.
    held_last: PartKey,
}

impl QueueCare {
    pub(in crate::shard) fn new(found: BTreeMap<PartKey, Part>, keeping: Keeping) -> QueueCare {
        QueueCare { found: Found::new(found), keeping, ..QueueCare::default() }
    }

    /// Whether a partition has queues.
    pub(in crate::shard) fn has_queues_on(&self, uid: PartitionUid) -> bool {
        !self.by_partition.is_empty() && self.by_partition.contains_key(&uid)
    }

    /// Whether there is room for more notes.
    pub(super) fn has_room(&self) -> bool {
        self.pending.len() < PENDING_MAX
    }

    /// Whether nobody waits for a block.
    pub(in crate::shard) fn is_quiet(&self) -> bool {
        self.pending.is_empty()
            && self.unwritten.is_empty()
            && self.awaiting.is_empty()
            && self.fillings.is_empty()
            && self.letters.is_quiet()
    }

    /// Whether somebody waits for notes to be written, if only for none.
    pub(in crate::shard) fn has_unwritten(&self) -> bool {
        !self.pending.is_empty() || !self.unwritten.is_empty()
    }

    /// When something has to be done next, on the monotonic clock.
    pub(in crate::shard) fn next_deadline_us(&self) -> u64 {
        let due_us = self.due.first().map_or(u64::MAX, |(at_us, _)| *at_us);
        due_us.min(self.waits.first().map_or(u64::MAX, |(at_us, ..)| *at_us)).min(self.burying.next_deadline_us())
    }

    /// Notes that a part has made.
    pub(super) fn say(&mut self, key: PartKey, notes: Vec<QueueNote>) {
        let Some(here) = self.parts.get(&key) else { return };
        self.notes_made += notes.len() as u64;
        self.pending.extend(notes.into_iter().map(|note| Pending { key, group: here.group, note }));
    }

    /// Whether notes wait for room in the log.
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// How many notes were made so far, and whether so many are in the log.
    pub(in crate::shard) fn notes_made(&self) -> u64 {
        self.notes_made
    }

    pub(in crate::shard) fn has_written(&self, notes: u64) -> bool {
        self.notes_written >= notes
    }

    /// Whoever waits from now on waits for this block as well.
    pub(super) fn wait_for_block(&mut self, block: BlockSeq) {
        self.written = self.written.max(block);
    }

    /// Tells `awaited` when all notes made so far are committed in these groups (as `Acks::bit_of`).
    pub(super) fn wait_for_notes(&mut self, groups: u64, awaited: Awaited) {
        self.unwritten.push_back((self.notes_made, groups, awaited));
    }

    /// Tells `awaited` whatever is committed: a bug on purpose.
    pub(super) fn wait_for_nothing(&mut self, awaited: Awaited) {
        self.awaiting.push(0, BlockSeq(0), awaited);
    }

    /// A part has changed: is there something to deliver, and when is something due?
    pub(super) fn refresh(&mut self, now: Now, key: PartKey) {
        let Some(here) = self.parts.get_mut(&key) else { return };
        let Some(queue) = self.queues.get_mut(&key.0) else { return };
        let is_ready = here.part.has_ready(&queue.rules) && here.part.looked_to() >= here.look_first_to;
        let is_new = is_ready && queue.ready.insert(key.1);
        if !is_ready {
            queue.ready.remove(&key.1);
        }
        // Of an exclusive queue the end of a lease may set the others free, whichever partition it was of.
        if is_new || !queue.waiting.is_empty() && (is_ready || queue.rules.exclusive && !queue.ready.is_empty()) {
            self.hungry.insert(key.0);
            queue.has_changed |= queue.turn_of.is_some() && self.serving != Some(key.0);
        }
        self.burying.refresh(key, queue.rules.has_dead_letter, &here.part);
        let due_us = here.part.next_due_us(now);
        if due_us != here.due_us {
            self.due.remove(&(here.due_us, key));
            here.due_us = due_us;
            if due_us != u64::MAX {
                self.due.insert((due_us, key));
            }
        }
    }

    pub(super) fn forget(&mut self, key: PartKey) {
        if let Some(here) = self.parts.remove(&key) {
            super::counting::add(&mut self.gone, here.part.counts());
            self.due.remove(&(here.due_us, key));
            self.dropped.push(here.part);
        }
        self.behind.remove(&key);
        self.untidy.remove(&key);
        self.burying.forget(key);
        if let Some(queue) = self.queues.get_mut(&key.0) {
            queue.ready.remove(&key.1);
        }
        if let Some(list) = self.by_partition.get_mut(&key.1) {
            list.retain(|queue| *queue != key.0);
            if list.is_empty() {
                self.by_partition.remove(&key.1);
            }
        }
    }
}

impl Shard {
    /// A new view: queues come, change and go.
    pub(in crate::shard) fn adopt_queues(&mut self, now: Now, before: &View, effects: &mut Effects) {
        let view = Arc::clone(&self.view);
        let gone: Vec<_> = self.queues.queues.keys().copied().filter(|uid| view.queue_by_uid(*uid).is_none()).collect();
        for uid in gone {
            self.drop_queue(uid, effects);
        }
        let gone: Vec<_> =
            self.queues.parts.iter().filter(|((_, uid), _)| self.partitions.slot(*uid).is_none()).map(|(key, _)| *key).collect();
        gone.into_iter().for_each(|key| self.queues.forget(key));
        for queue in view.queues() {
            self.adopt_queue(now, &view, queue);
        }
        self.renew_burials(now);
        self.tidy_found(before.epoch == 0);
    }

    fn adopt_queue(&mut self, now: Now, view: &View, queue: &Arc<QueueView>) {
        let uid = queue.uid;
        let Some(topic) = view.topic(&queue.topic_name) else { return };
        let known = self.queues.queues.get(&uid);
        let is_new_to_us = known.is_none_or(|known| !Arc::ptr_eq(&known.view, queue) && *known.view != **queue);
        let here: Vec<_> = topic
            .partitions
            .iter()
            .filter(|place| self.partitions.slot(place.uid).is_some() && self.groups.leads(place.group) && self.is_state_ready(place.group))
            .map(|place| place.uid)
            .collect();
        if here.is_empty() {
            return;
        }
        if is_new_to_us {
            let rules = rules_of_queue(queue, self.log.mutants());
            let fresh = || QueueHere {
                view: Arc::clone(queue),
                rules,
                waiting: VecDeque::new(),
                ready: BTreeSet::new(),
                last_served: PartitionUid(0),
                holder: None,
                holder_over_us: 0,
                turn_of: None,
                has_changed: false,
            };
            let known = self.queues.queues.entry(uid).or_insert_with(fresh);
            (known.view, known.rules) = (Arc::clone(queue), rules);
        }
        for partition in here {
            let key = (uid, partition);
            if !self.queues.parts.contains_key(&key) {
                self.begin_part(now, key, queue);
            }
            if is_new_to_us {
                self.queues.refresh(now, key);
            }
        }
        self.queues.hungry.insert(uid);
    }

    fn begin_part(&mut self, now: Now, key: PartKey, queue: &QueueView) {
        let slot = self.partitions.slot(key.1).expect("a partition of this shard");
        let partition = self.partitions.get(slot).expect("a uid's slot is filled");
        let found = self.queues.found.remove(&key).filter(Part::has_begun);
        let is_found = found.is_some();
        let mut part = found.unwrap_or_default();
        let look_first_to = if is_found { partition.next_offset() } else { 0 };
        let begin = (!is_found).then(|| begin_note(queue, partition));
        if let Some(begin) = &begin {
            part.apply(Some(now), begin);
        }
        let is_over = self.log.mutants().has(Mutant::EndLeasesAtStart);
        part.resume(if is_over { Now { mono_us: 0, ..now } } else { now });
        let here = PartHere {
            part,
            slot,
            group: partition.group,
            due_us: u64::MAX,
            is_looking: false,
            look_from_us: 0,
            look_first_to,
            unread: BTreeMap::new(),
        };
        self.queues.parts.insert(key, here);
        self.queues.by_partition.entry(key.1).or_default().push(key.0);
        self.queues.behind.insert(key);
        // What was trimmed is settled without a note: of what the part remembers, a start finds out by the partition's start.
        self.queues.untidy.insert(key);
        self.queues.say(key, begin.into_iter().collect());
        self.queues.refresh(now, key);
        self.hold(key.1);
    }

    /// The queue was deleted: whoever waits is told.
    fn drop_queue(&mut self, uid: SubscriptionUid, effects: &mut Effects) {
        let keys: Vec<_> = self.queues.parts.range(of_queue(uid)).map(|(key, _)| *key).collect();
        for key in keys {
            self.queues.forget(key);
            self.hold(key.1);
        }
        self.queues.hungry.remove(&uid);
        let Some(queue) = self.queues.queues.remove(&uid) else { return };
        for receive in queue.waiting {
            self.queues.waits.remove(&(receive.deadline_us, uid, receive.id));
            effects.refuse(&receive.caller, ErrorCode::QueueDeleted, "", "");
        }
    }

    /// Puts what is pending into the open block, as far as there is room.
    pub(in crate::shard) fn write_queues(&mut self, now: Now, effects: &mut Effects) {
        if self.phase != Phase::Serving && self.phase != Phase::Stopping {
            return;
        }
        while let Some(first) = self.queues.pending.front() {
            let (key, group) = (first.key, first.group);
            let of_part = self.queues.pending.iter().take_while(|pending| pending.key == key).map(|pending| &pending.note);
            // Payload by payload, so that what is written is not written again when the next one finds no room.
            let (payload, written) = encode_some_notes(key.1, key.0, of_part);
            match self.append_payload(now, group, &payload, effects) {
                Ok(Some(appended)) => {
                    self.queues.pending.drain(..written);
                    self.queues.notes_written += written as u64;
                    self.queues.wait_for_block(appended.block);
                    self.queues.move_written();
                }
                Ok(None) => return,
                Err(error) => {
                    // The log has failed: the shard stops with its own reason.
                    tracing::error!(shard = self.id.0, "words on a queue could not be written: {}", error.message);
                    return;
                }
            }
        }
        self.queues.move_written();
    }

    /// Tells those whose notes are committed.
    pub(in crate::shard) fn release_queues(&mut self, now: Now, effects: &mut Effects) {
        if self.log.mutants().has(Mutant::TellLeaseEarly) {
            let tickets: Vec<u64> = self.queues.fillings.keys().copied().collect();
            tickets.into_iter().for_each(|ticket| self.on_leases_durable(now, ticket, effects));
        }
        while let Some(awaited) = self.queues.awaiting.pop(&self.acks) {
            match awaited {
                Awaited::Leases(ticket) => self.on_leases_durable(now, ticket, effects),
                Awaited::Answer(caller, settled) => settled.reply(&caller, effects),
                Awaited::Burial(ticket) => self.read_dead(now, ticket, effects),
                Awaited::State => self.queues.keeping.on_told_durable(),
            }
        }
        self.release_letters(now, effects);
    }

    /// Time has passed.
    pub(in crate::shard) fn on_queue_deadline(&mut self, now: Now, effects: &mut Effects) {
        if self.phase != Phase::Serving {
            return;
        }
        while let Some((_, key)) = self.queues.due.first().copied().filter(|(at_us, _)| *at_us <= now.mono_us) {
            if !self.queues.has_room() {
                effects.wake_at(now.mono_us + 1000);
                break;
            }
            let rules = self.queues.queues[&key.0].rules;
            let mut notes = Vec::new();
            self.queues.parts.get_mut(&key).expect("due parts exist").part.on_due(now, &rules, DUE_AT_ONCE, &mut notes);
            let is_busy = notes.len() >= DUE_AT_ONCE / 2;
            self.queues.say(key, notes);
            self.queues.refresh(now, key);
            if is_busy {
                effects.wake_at(0);
                break;
            }
        }
        self.end_burial_pauses(now);
        self.end_waits(now, effects);
    }

    /// Drops some of what was purged, is gone from the partitions, or was deleted: one part's share each turn. And tells one partition how far its queues are.
    pub(in crate::shard) fn tidy_queues(&mut self, now: Now) {
        if !self.queues.by_partition.is_empty() || !self.queues.found.is_empty() {
            self.hold_next();
        }
        if let Some(part) = self.queues.dropped.last_mut()
            && !part.drop_some()
        {
            self.queues.dropped.pop();
        }
        if let Some(key) = self.queues.untidy.pop_first()
            && let Some(here) = self.queues.parts.get_mut(&key)
        {
            let log_start = self.partitions.get(here.slot).map_or(0, Partition::log_start);
            let has_more = here.part.drop_below(now, log_start) | here.part.tidy();
            if has_more {
                self.queues.untidy.insert(key);
            }
            self.queues.refresh(now, key);
        }
    }

    /// What the queues of a partition have not settled is kept for them.
    pub(super) fn hold(&mut self, uid: PartitionUid) {
        let queues = self.queues.by_partition.get(&uid);
        let served = queues.and_then(|list| list.iter().map(|queue| self.queues.parts[&(*queue, uid)].part.settled_to()).min());
        let settled_to = served.into_iter().chain(self.queues.found.settled_to(uid)).min();
        if let Some(partition) = self.partitions.slot(uid).and_then(|slot| self.partitions.get_mut(slot)) {
            let is_held = !self.log.mutants().has(Mutant::TrimUnsettled);
            partition.held_from = settled_to.filter(|_| is_held).unwrap_or(u64::MAX);
        }
    }

    fn hold_next(&mut self) {
        let after = self.queues.held_last;
        let next = self.queues.parts.range((std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded)).next();
        let key = next.or_else(|| self.queues.parts.first_key_value()).map(|(key, _)| *key);
        if let Some(key) = key {
            self.queues.held_last = key;
            self.hold(key.1);
        }
        if let Some(uid) = self.queues.found.next_held() {
            self.hold(uid);
        }
    }

    /// Records of a partition are gone, or messages were purged: to be tidied up.
    pub(in crate::shard) fn untidy_queues(&mut self, uid: PartitionUid) {
        if let Some(queues) = self.queues.by_partition.get(&uid) {
            self.queues.untidy.extend(queues.iter().map(|queue| (*queue, uid)));
        }
    }

    /// The log has failed: nobody hears whether what he did holds.
    pub(in crate::shard) fn fail_queues(&mut self, effects: &mut Effects, reason: &str) {
        self.queues.pending.clear();
        let waiting = self.queues.unwritten.drain(..).map(|(.., awaited)| awaited).chain(self.queues.awaiting.drain());
        for awaited in waiting {
            if let Awaited::Answer(caller, _) = awaited {
                effects.refuse(&caller, ErrorCode::StorageFailed, reason, "");
            }
        }
        for (_, filling) in std::mem::take(&mut self.queues.fillings) {
            effects.refuse(&filling.receive.caller, ErrorCode::StorageFailed, reason, "");
        }
        for queue in self.queues.queues.values_mut() {
            queue.waiting.drain(..).for_each(|receive| effects.refuse(&receive.caller, ErrorCode::StorageFailed, reason, ""));
        }
        self.queues.waits.clear();
        self.queues.burying.give_up();
        self.fail_letters(effects);
    }
}

impl QueueCare {
    /// Whoever waited for notes that are all written now waits for their block.
    fn move_written(&mut self) {
        while self.unwritten.front().is_some_and(|(notes, ..)| *notes <= self.notes_written) {
            let (_, groups, awaited) = self.unwritten.pop_front().expect("looked at above");
            self.awaiting.push(groups, self.written, awaited);
        }
    }
}

/// Where a queue begins in a partition.
fn begin_note(queue: &QueueView, partition: &Partition) -> QueueNote {
    let is_later = partition.number >= queue.partitions_at_creation;
    let (offset, at_us) = match queue.start {
        _ if is_later => (partition.log_start(), i64::MIN),
        QueueStart::Earliest => (partition.log_start(), i64::MIN),
        QueueStart::Latest => (partition.next_offset(), i64::MIN),
        QueueStart::Time(at_us) => (partition.index.first_offset_since(at_us).unwrap_or(partition.next_offset()), at_us),
    };
    QueueNote { at_us, ..QueueNote::new(Kind::Begin, offset) }
}
