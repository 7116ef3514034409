//! Looking at batches: at once when they are appended, else read from the log.
//!
//! Invariants: a part looks at batches in order, each once; what it cannot read, also when it tries again, is passed over and told; a part whose partition has batches that it has not
//! looked at stands in `behind`, unless it is looking.
//!
//! Not here: what is seen (subscription/queue/look.rs).

use super::super::catchup::CATCHUP_TICKET;
use super::super::repair_answers::REPAIR_TICKET;
use super::super::shard::{Phase, Shard};
use super::burying::BURIAL_TICKET;
use super::care::{PartHere, PartKey, UNREAD_PAUSE_US};
use crate::effects::{Effects, Now};
use crate::ids::PartitionUid;
use crate::subscription::queue::{Looked, Stamp};
use crate::subscription::{Collected, Wants};
use std::ops::{Bound, Range};
use tramline_wire::batch::{BATCH_APPEND_TIME, BatchView, LeaderStamp};
use tramline_wire::error::ErrorCode;

/// Parts for which batches are being read, at most.
const LOOKING_MAX: usize = 4;
/// Parts that one turn asks whether they are behind.
const ASKED_AT_ONCE: usize = 64;
/// Bytes that one look reads: of small records a tenth of a millisecond's work.
const LOOK_BYTES: usize = 256 << 10;
/// How long a part that has as much as it may have waits before it looks on.
const FULL_PAUSE_US: u64 = 100_000;
/// Tickets of looks have this bit; those of receives and burials do not.
const LOOK_TICKET: u64 = 1 << 63;

impl Shard {
    /// A batch was appended: queues that have looked at everything before it look at it now.
    pub(in crate::shard) fn show_queues(
        &mut self,
        now: Now,
        uid: PartitionUid,
        view: &BatchView<'_>,
        stamp: &LeaderStamp,
        has_append_time: bool,
    ) {
        let flags = if has_append_time { view.flags() | BATCH_APPEND_TIME } else { view.flags() };
        let stamp = Stamp { base_offset: stamp.base_offset, append_us: stamp.append_time_us, flags };
        // By number: the list is not to be copied for each batch.
        for at in 0.. {
            let Some(queue) = self.queues.by_partition.get(&uid).and_then(|queues| queues.get(at)).copied() else { return };
            let key = (queue, uid);
            let rules = self.queues.queues[&queue].rules;
            let here = self.queues.parts.get_mut(&key).expect("queues of a partition have a part");
            let is_next = here.part.looked_to() == stamp.base_offset && !here.is_looking;
            if is_next && here.part.look_stamped(now, &rules, view, stamp) == Looked::Done {
                self.queues.refresh(now, key);
            } else {
                self.queues.behind.insert(key);
            }
        }
    }

    /// Begins to read for parts that are behind. Once in each turn.
    pub(in crate::shard) fn look_for_queues(&mut self, now: Now, effects: &mut Effects) {
        if self.queues.behind.is_empty() || self.phase != Phase::Serving {
            return;
        }
        let mut looking = self.queues.looks.len();
        // In turns, some at a time: whoever has looked goes to the end.
        let last = self.queues.looked_last;
        let after = self.queues.behind.range((Bound::Excluded(last), Bound::Unbounded));
        let keys: Vec<PartKey> = after.chain(self.queues.behind.range(..=last)).take(ASKED_AT_ONCE).copied().collect();
        for key in keys {
            if looking >= LOOKING_MAX {
                return;
            }
            self.queues.looked_last = key;
            let here = &self.queues.parts[&key];
            let (slot, from) = (here.slot, here.part.looked_to());
            let Some(partition) = self.partitions.get(slot) else { continue };
            if here.is_looking {
                continue;
            }
            if now.mono_us < here.look_from_us {
                effects.wake_at(here.look_from_us);
                continue;
            }
            let from = from.max(partition.log_start());
            if from >= partition.visible_end() {
                if from >= partition.next_offset() {
                    self.queues.behind.remove(&key);
                }
                continue;
            }
            let ticket = self.queues.next_look(key);
            self.queues.parts.get_mut(&key).expect("just seen").is_looking = true;
            self.sessions.collect(ticket, LOOK_BYTES, vec![(slot, key.1, Wants::From(from))]);
            looking += 1;
        }
    }

    /// Batches that were asked for are at hand.
    pub(in crate::shard) fn on_collected(&mut self, now: Now, effects: &mut Effects) {
        for collected in self.sessions.take_collected() {
            match collected.ticket & (LOOK_TICKET | BURIAL_TICKET | CATCHUP_TICKET | REPAIR_TICKET) {
                REPAIR_TICKET => self.on_collected_for_repair(&collected, effects),
                CATCHUP_TICKET => self.on_collected_for_snapshot(now, &collected, effects),
                LOOK_TICKET => self.on_look(now, collected),
                BURIAL_TICKET => self.on_collected_for_burial(now, &collected, effects),
                _ => self.on_collected_for_receive(now, collected, effects),
            }
        }
    }

    fn on_look(&mut self, now: Now, collected: Collected) {
        let Some(key) = self.queues.looks.remove(&collected.ticket) else { return };
        let Some(here) = self.queues.parts.get_mut(&key) else { return };
        here.is_looking = false;
        let rules = self.queues.queues[&key.0].rules;
        let Some(partition) = self.partitions.get(here.slot) else { return };
        let found = &collected.parts[0];
        // What lies below was trimmed or has expired.
        here.part.look_past(now, partition.log_start());
        let mut missing = found.missing.iter().filter(|(range, _)| range.end != u64::MAX).peekable();
        for batch in &found.batches {
            while let Some((range, code)) = missing.next_if(|(range, _)| range.end <= batch.base_offset) {
                if !may_pass(here, now, range, *code) {
                    return self.queues.refresh(now, key);
                }
                here.part.look_past(now, range.end);
            }
            let Ok(view) = BatchView::parse(batch.bytes.as_slice()) else { continue };
            here.was_read(batch.base_offset);
            if here.part.look(now, &rules, &view) == Looked::Full {
                // The rest is read again, perhaps when some are settled.
                here.look_from_us = now.mono_us + FULL_PAUSE_US;
                return self.queues.refresh(now, key);
            }
        }
        for (range, code) in missing {
            if !may_pass(here, now, range, *code) {
                break;
            }
            here.part.look_past(now, range.end);
        }
        self.queues.refresh(now, key);
    }
}

/// Whether what was not found may be passed over: settled for good. Otherwise it is read again, after a pause.
fn may_pass(here: &mut PartHere, now: Now, range: &Range<u64>, code: ErrorCode) -> bool {
    if code == ErrorCode::OffsetOutOfRange || range.end <= here.part.looked_to() {
        return true;
    }
    if here.is_unreadable(range.start) {
        let (first_offset, end_offset) = (range.start, range.end);
        tracing::error!(
            group = here.group.0,
            first_offset,
            end_offset,
            "a queue cannot read messages, and gives them up: run `tramline inspect` on the data directory"
        );
        return true;
    }
    here.look_from_us = now.mono_us + UNREAD_PAUSE_US;
    false
}

impl super::care::QueueCare {
    fn next_look(&mut self, key: PartKey) -> u64 {
        let ticket = self.next_ticket | LOOK_TICKET;
        self.next_ticket += 1;
        self.looks.insert(ticket, key);
        ticket
    }
}
