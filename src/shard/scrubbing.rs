//! The scrubber: reads sealed segments again, slowly, and checks every batch that is still wanted, so that damage is found while a replica or
//! a backup can still help, and not when somebody needs the data years later.
//!
//! A pass goes over all sealed segments by uid and begins `scrub.interval` after the one before it; the first one begins with the process, for a
//! node that is restarted often would never be looked at.
//!
//! Invariants: one read under way; never more than `scrub.bytes.per.second`; what is found is reported like what a fetch finds: counted, and
//! logged with its place. Nothing is changed: what does not check stays where it is, and is not served.
//!
//! Not here: blocks of segments that are not sealed (a start reads those), space between batches (nobody needs it), repair.

use super::shard::{Phase, Shard};
use crate::bytes::Bytes;
use crate::effects::{Effects, Now};
use crate::ids::SegmentUid;
use crate::log::footer::{FooterPlan, decode_slice, one_read};
use crate::log::{BACKGROUND_OWNER, FooterEntry, ReadError, ReadRefused, check_batch};
use crate::subscription::DamageFound;

/// Whom the log's reads belong to when the scrubber began them.
pub(super) const SCRUBBER: u64 = BACKGROUND_OWNER;
/// Bytes of one read, unless one batch is larger.
const READ_BYTES: u64 = 256 << 10;
/// Bytes of no interest that are read through rather than around.
const GAP_BYTES_MAX: u64 = 16 << 10;
/// Footer entries looked at together: 16 pages.
const WINDOW_ENTRIES: u32 = 16 * 102;
/// How much may be saved up while reads are under way, in bytes.
const SAVED_BYTES_MAX: u64 = 1 << 20;

/// The scrubber of a shard.
#[derive(Debug, Default)]
pub(super) struct Scrubbing {
    /// When the next pass begins, in microseconds; 0: at once.
    next_pass_us: u64,
    /// A pass is under way, past this segment.
    past: Option<SegmentUid>,
    segment: Option<Segment>,
    allowance: u64,
    counted_us: u64,
}

/// The segment being looked at.
#[derive(Debug)]
struct Segment {
    uid: SegmentUid,
    total: u32,
    next_entry: u32,
    /// Entries of the window that were not looked at yet, the last in the file first.
    window: Vec<FooterEntry>,
    reading: Option<Reading>,
}

#[derive(Debug)]
enum Reading {
    Footer(u64, FooterPlan),
    /// Position of the first byte, and the batches in it.
    Batches(u64, u64, Vec<FooterEntry>),
}

impl Shard {
    /// One turn of scrubbing.
    pub(super) fn scrub(&mut self, now: Now, effects: &mut Effects) {
        let rate = self.settings.scrub_bytes_per_second;
        let passed_us = now.mono_us - std::mem::replace(&mut self.scrubbing.counted_us, now.mono_us);
        if self.phase != Phase::Serving || rate == 0 {
            return;
        }
        self.scrubbing.allowance = (self.scrubbing.allowance + rate.saturating_mul(passed_us) / 1_000_000).min(SAVED_BYTES_MAX);
        if self.scrubbing.segment.is_none() && !self.next_to_scrub(now, effects) {
            return;
        }
        let segment = self.scrubbing.segment.as_mut().expect("chosen above");
        if segment.reading.is_some() {
            return;
        }
        if self.scrubbing.allowance < READ_BYTES {
            return effects.wake_at(now.mono_us + ((READ_BYTES - self.scrubbing.allowance) * 1_000_000).div_ceil(rate));
        }
        match segment.read_next(&mut self.log, &mut self.slab, effects) {
            Ok(Some(bytes)) => self.scrubbing.allowance = self.scrubbing.allowance.saturating_sub(bytes),
            Ok(None) => self.end_segment(effects, now),
            Err(ReadRefused::Full) => effects.wake_at(now.mono_us + 10_000),
            // Freed meanwhile, or the log has failed.
            Err(_) => self.end_segment(effects, now),
        }
    }

    /// Goes to the next sealed segment; false when a pass is over, or none is due.
    fn next_to_scrub(&mut self, now: Now, effects: &mut Effects) -> bool {
        let scrubbing = &mut self.scrubbing;
        if scrubbing.past.is_none() {
            if now.mono_us < scrubbing.next_pass_us {
                return false;
            }
            scrubbing.next_pass_us = now.mono_us + self.settings.scrub_interval_us;
            scrubbing.past = Some(SegmentUid(0));
        }
        let next = self.log.segments().filter(|s| s.sealed && Some(s.uid) > scrubbing.past).map(|s| s.uid).min();
        let Some((uid, total)) = next.and_then(|uid| Some((uid, self.log.footer_entries(uid)?))) else {
            scrubbing.past = None;
            self.metrics.counters.scrub_passes += 1;
            effects.wake_at(scrubbing.next_pass_us);
            return false;
        };
        scrubbing.past = Some(uid);
        scrubbing.segment = Some(Segment { uid, total, next_entry: 0, window: Vec::new(), reading: None });
        true
    }

    fn end_segment(&mut self, effects: &mut Effects, now: Now) {
        self.scrubbing.segment = None;
        effects.wake_at(now.mono_us + 1_000);
    }

    /// A read of the scrubber's has ended.
    pub(super) fn on_scrubber_read(&mut self, ticket: u64, bytes: Result<Bytes, ReadError>) {
        let Some(segment) = &mut self.scrubbing.segment else { return };
        let mut found = Vec::new();
        match segment.reading.take() {
            Some(Reading::Footer(t, plan)) if t == ticket => {
                let read = bytes.is_ok_and(|bytes| decode_slice(&plan, bytes.as_slice(), &mut segment.window).is_ok());
                if !read {
                    // Which batches a bad page lists nobody can tell; a fetch of one of them tells its offsets.
                    found.push(DamageFound { uid: 0, first_offset: 0, end_offset: 0, segment: segment.uid, pos: u64::from(plan.pos) });
                }
                segment.window.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.pos));
            }
            Some(Reading::Batches(t, pos, entries)) if t == ticket => {
                let partitions = &self.partitions;
                let is_wanted = |entry: &FooterEntry| {
                    let partition = partitions.slot(entry.partition_uid).and_then(|slot| partitions.get(slot));
                    partition.is_some_and(|p| entry.base_offset.0 + u64::from(entry.last_offset_delta) >= p.log_start())
                };
                for entry in entries.into_iter().filter(is_wanted) {
                    let from = (u64::from(entry.pos) - pos) as usize;
                    let batch = bytes.as_ref().ok().map(|bytes| &bytes.as_slice()[from..from + entry.len as usize]);
                    if batch.is_none_or(|batch| check_batch(batch, entry.partition_uid, entry.base_offset).is_err()) {
                        let first_offset = entry.base_offset.0;
                        let end_offset = first_offset + u64::from(entry.last_offset_delta) + 1;
                        let (uid, pos) = (entry.partition_uid.0, u64::from(entry.pos));
                        found.push(DamageFound { uid, first_offset, end_offset, segment: segment.uid, pos });
                    }
                    self.metrics.counters.scrub_bytes += u64::from(entry.len);
                }
            }
            other => segment.reading = other,
        }
        self.report_damage(&found);
    }
}

impl Segment {
    /// Begins the next read. Answers its bytes, or nothing when the segment is done.
    fn read_next(
        &mut self,
        log: &mut crate::log::Log,
        slab: &mut crate::bytes::Slab,
        effects: &mut Effects,
    ) -> Result<Option<u64>, ReadRefused> {
        let Some(first) = self.window.last().copied() else {
            let count = (self.total - self.next_entry).min(WINDOW_ENTRIES);
            if count == 0 {
                return Ok(None);
            }
            let plan = log.footer_plan(self.uid, self.next_entry, count).ok_or(ReadRefused::Gone)?;
            let ticket = log.begin_read(slab, effects, SCRUBBER, self.uid, plan.pos, plan.len)?;
            self.next_entry += count;
            self.reading = Some(Reading::Footer(ticket, plan));
            return Ok(Some(u64::from(plan.len)));
        };
        let pos = u64::from(first.pos);
        let (count, end) = one_read(self.window.iter().rev(), READ_BYTES, GAP_BYTES_MAX);
        let ticket = log.begin_read(slab, effects, SCRUBBER, self.uid, pos as u32, (end - pos) as u32)?;
        let entries = self.window.split_off(self.window.len() - count);
        self.reading = Some(Reading::Batches(ticket, pos, entries));
        Ok(Some(end - pos))
    }
}
