//! Retention within a run: batch by batch, what is not kept any more is cut off the oldest run of a partition, and its start moves up.
//!
//! Where the batches are stands in the footers, on the disk. A pass over all partitions is begun each second and done in steps; a partition is
//! looked up only when the batch in front, which is remembered, is not kept any more, or is not known yet. The first look reads one or two pages,
//! and where all that they list goes the next one reads more.
//!
//! Where: in runs that lie together (sorted, or as long as the sorter would make them), and in any run that a trim has cut through. Scattered runs
//! go whole (`retention.rs`) until they are sorted.
//!
//! Invariants: only the oldest run is cut, and never all of it (what goes whole is dropped as a run); at most `LOOKUPS_MAX` reads are under way and
//! `BYTES_PER_SECOND` are read; what a look finds is taken in only if the run still begins with what was looked at; a footer that cannot be read
//! makes its run go as a whole.
//!
//! Not here: what has expired (partition/), whole runs and segments (`retention.rs`).

use super::retention::PASS_US;
use super::shard::{Phase, Shard};
use crate::bytes::Bytes;
use crate::effects::{Effects, Now};
use crate::log::footer::{FOOTER_PAGE_ENTRIES, FooterPlan, decode_slice};
use crate::log::{BACKGROUND_OWNER, FooterEntry, ReadError, ReadRefused};
use crate::partition::{Oldest, Partition, Run, Slot};

/// Whom the log's reads belong to when they look for expired batches.
pub(super) const EXPIRY: u64 = BACKGROUND_OWNER + 2;
/// Looks under way at most.
const LOOKUPS_MAX: usize = 4;
/// Footer pages read per second, in bytes: some 500 to 1,000 looks, a thousandth of what the disk can. With 10,000 partitions of which something
/// expires all the time each is looked at every 10 to 20 seconds, and loses in one go what has expired since.
const BYTES_PER_SECOND: u64 = 4 << 20;
/// How much of it may be saved up while nothing is due.
const SAVED_BYTES_MAX: u64 = 256 << 10;
/// Entries of a first look, and of one that goes on.
const FIRST_ENTRIES: u32 = FOOTER_PAGE_ENTRIES;
const MORE_ENTRIES: u32 = 16 * FOOTER_PAGE_ENTRIES;
/// Partitions asked in one turn whether something is due.
const STEP: u32 = 256;

/// Looks under way, and the pass over the partitions.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    /// `LOOKUPS_MAX` at most.
    looks: Vec<Look>,
    /// The next partition of the pass under way.
    next_slot: Option<u32>,
    next_pass_us: u64,
    allowance: u64,
    counted_us: u64,
    scratch: Vec<FooterEntry>,
}

#[derive(Debug)]
struct Look {
    slot: Slot,
    entries: u32,
    /// Nothing before its read is begun.
    reading: Option<Reading>,
}

#[derive(Debug)]
struct Reading {
    ticket: u64,
    /// What the run began with.
    first_offset: u64,
    plan: FooterPlan,
}

/// Whether its batches are worth a look: short runs that lie scattered are not, the sorter will bring them together.
fn lies_together(log: &crate::log::Log, run_bytes: u64, run: &Run) -> bool {
    run.bytes >= run_bytes || log.is_sorted(run.segment)
}

impl Shard {
    /// One turn of it.
    pub(super) fn expire(&mut self, now: Now, effects: &mut Effects) {
        let passed_us = now.mono_us - std::mem::replace(&mut self.expiry.counted_us, now.mono_us);
        if self.phase != Phase::Serving {
            return;
        }
        self.expiry.allowance = (self.expiry.allowance + BYTES_PER_SECOND * passed_us.min(PASS_US) / 1_000_000).min(SAVED_BYTES_MAX);
        for at in (0..self.expiry.looks.len()).rev() {
            if self.expiry.looks[at].reading.is_none() && self.expiry.allowance > 0 {
                self.begin_look(at, now, effects);
            }
        }
        if self.expiry.next_slot.is_none() && now.mono_us >= self.expiry.next_pass_us {
            self.expiry.next_pass_us = now.mono_us + PASS_US;
            self.expiry.next_slot = Some(0);
        }
        self.find_due(now, effects);
        // Reads come with a turn of their own.
        let waits_for_bytes = self.expiry.looks.iter().any(|look| look.reading.is_none());
        if waits_for_bytes || self.expiry.next_slot.is_some() && self.expiry.looks.len() < LOOKUPS_MAX {
            effects.wake_at(now.mono_us + 1_000);
        }
    }

    /// One step of the pass: begins looks at the partitions of which something is due.
    fn find_due(&mut self, now: Now, effects: &mut Effects) {
        let Some(first) = self.expiry.next_slot else { return };
        let end = self.partitions.slot_count();
        let step_end = end.min(first + STEP);
        for slot in first..step_end {
            if self.expiry.looks.len() == LOOKUPS_MAX || self.expiry.allowance == 0 {
                return self.expiry.next_slot = Some(slot);
            }
            if self.is_due(Slot(slot), now) && !self.expiry.looks.iter().any(|look| look.slot == Slot(slot)) {
                self.expiry.looks.push(Look { slot: Slot(slot), entries: FIRST_ENTRIES, reading: None });
                self.begin_look(self.expiry.looks.len() - 1, now, effects);
            }
        }
        self.expiry.next_slot = (step_end < end).then_some(step_end);
    }

    fn is_due(&self, slot: Slot, now: Now) -> bool {
        self.partitions
            .get(slot)
            .is_some_and(|partition| partition.may_be_cut(|run| lies_together(&self.log, self.settings.sorter_run_bytes, run), now.utc_us))
    }

    /// Begins the read of a look, or ends the look when nothing is due any more.
    fn begin_look(&mut self, at: usize, now: Now, effects: &mut Effects) {
        let Look { slot, entries, .. } = self.expiry.looks[at];
        let run = self.partitions.get(slot).and_then(|partition| partition.index.runs().next()).copied();
        let Some(run) = run.filter(|_| self.is_due(slot, now)) else {
            self.expiry.looks.swap_remove(at);
            return;
        };
        let plan = self.log.footer_plan(run.segment, run.footer_first, run.footer_count.min(entries));
        let begun = plan.ok_or(ReadRefused::Gone).and_then(|plan| {
            let ticket = self.log.begin_read(&mut self.slab, effects, EXPIRY, run.segment, plan.pos, plan.len)?;
            Ok((ticket, plan))
        });
        match begun {
            Ok((ticket, plan)) => {
                self.expiry.allowance = self.expiry.allowance.saturating_sub(u64::from(plan.len));
                self.expiry.looks[at].reading = Some(Reading { ticket, first_offset: run.first_offset, plan });
                self.metrics.counters.retention_lookups += 1;
            }
            // Tried again with the next turn.
            Err(ReadRefused::Full) => {}
            Err(ReadRefused::Gone | ReadRefused::BadRange | ReadRefused::Failed) => {
                self.expiry.looks.swap_remove(at);
            }
        }
    }

    /// A look's read has ended.
    pub(super) fn on_expiry_read(&mut self, now: Now, ticket: u64, bytes: Result<Bytes, ReadError>) {
        let is_it = |look: &Look| look.reading.as_ref().is_some_and(|reading| reading.ticket == ticket);
        let Some(at) = self.expiry.looks.iter().position(is_it) else { return };
        let Look { slot, reading, .. } = self.expiry.looks.swap_remove(at);
        let Reading { first_offset, plan, .. } = reading.expect("looked at above");
        let Some(partition) = self.partitions.get_mut(slot) else { return };
        // Dropped, or cut by a look before this one: the next pass sees what is left.
        let Some(run) = partition.index.runs().next().copied().filter(|run| run.first_offset == first_offset) else { return };
        let mut entries = std::mem::take(&mut self.expiry.scratch);
        entries.clear();
        let read = bytes.is_ok_and(|bytes| decode_slice(&plan, bytes.as_slice(), &mut entries).is_ok());
        if read && begins_with(partition, &run, &entries) {
            self.cut(now, slot, &run, &entries);
        } else {
            tracing::warn!(
                shard = self.id.0,
                partition = partition.uid.0,
                segment = run.segment.0,
                "the index of a segment cannot be read: retention drops what it lists as a whole"
            );
            partition.note_front(Oldest::from(&run));
        }
        self.expiry.scratch = entries;
    }

    /// Cuts off `run`, a partition's oldest, what is not kept any more of `entries`, its first ones.
    fn cut(&mut self, now: Now, slot: Slot, run: &Run, entries: &[FooterEntry]) {
        let partition = self.partitions.get_mut(slot).expect("found before");
        let (mut count, mut gone_bytes) = (0, 0);
        while let Some(entry) = entries.get(count).filter(|entry| partition.has_expired(&Oldest::from(*entry), gone_bytes, now.utc_us)) {
            (count, gone_bytes) = (count + 1, gone_bytes + u64::from(entry.len));
        }
        let goes_on = count == entries.len();
        if count as u32 == run.footer_count {
            partition.index.pop_run();
            self.retention.on_run_dropped(run);
        } else {
            // Where more may go the last one that was read stays in front: what is behind it is not known yet.
            if goes_on {
                (count, gone_bytes) = (count - 1, gone_bytes - u64::from(entries[count - 1].len));
            }
            if count > 0 {
                partition.index.cut_run(count as u32, gone_bytes, entries[count].base_offset.0);
                self.retention.on_run_cut(run, count as u32, gone_bytes);
            }
            partition.note_front(Oldest::from(&entries[count]));
        }
        if count > 0 {
            partition.on_dropped(Oldest::from(&entries[count - 1]).end_offset);
            self.retention.starts_moved = true;
            self.metrics.counters.retention_batches += count as u64;
        }
        if goes_on {
            self.trim(now, slot);
            self.expiry.looks.push(Look { slot, entries: MORE_ENTRIES, reading: None });
        }
    }
}

/// Whether `entries` are the first ones of `run`, a partition's oldest: one behind the other, inside it, and no more than it says it has. Footer and
/// checkpoint vouch for themselves, not for each other.
fn begins_with(partition: &Partition, run: &Run, entries: &[FooterEntry]) -> bool {
    let end_of = |entry: &FooterEntry| Oldest::from(entry).end_offset;
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return false };
    let bytes: u64 = entries.iter().map(|entry| u64::from(entry.len)).sum();
    let is_whole = entries.len() as u32 == run.footer_count;
    first.base_offset.0 == run.first_offset
        && end_of(last) <= run.end_offset
        && entries.iter().all(|entry| entry.partition_uid == partition.uid)
        && entries.windows(2).all(|pair| end_of(&pair[0]) <= pair[1].base_offset.0)
        && entries.len() as u32 <= run.footer_count
        && if is_whole { bytes == run.bytes } else { bytes < run.bytes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{GroupId, Offset, PartitionUid, SegmentUid, TopicUid};
    use crate::partition::TopicRules;

    #[test]
    fn entries_that_do_not_fit_their_run_are_not_cut_by() {
        let partition = Partition::new(PartitionUid(7), TopicUid(1), 0, GroupId(1), TopicRules::default());
        let run =
            Run { segment: SegmentUid(3), first_offset: 10, end_offset: 30, newest_ts_us: 5, bytes: 300, footer_first: 4, footer_count: 3 };
        let entry = |base: u64, last_offset_delta: u32| FooterEntry {
            partition_uid: PartitionUid(7),
            base_offset: Offset(base),
            newest_ts: 5,
            pos: 4096,
            len: 100,
            last_offset_delta,
            group: GroupId(1),
        };
        let good = [entry(10, 4), entry(15, 4), entry(22, 7)];
        assert!(begins_with(&partition, &run, &good) && begins_with(&partition, &run, &good[..2]));
        let wrong: [&[FooterEntry]; 7] = [
            &[],
            &good[1..],
            &[good[0], entry(14, 1)],
            &[good[0], entry(15, 15)],
            &[good[0], FooterEntry { partition_uid: PartitionUid(8), ..good[1] }],
            &[good[0], FooterEntry { len: 200, ..good[1] }],
            &[good[0], good[1], FooterEntry { len: 101, ..good[2] }],
        ];
        for entries in wrong {
            assert!(!begins_with(&partition, &run, entries), "{entries:?}");
        }
    }
}
