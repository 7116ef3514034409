//! Which of a partition's oldest records are not kept any more: by time, by size, or because they lie below its start.
//!
//! One rule for a whole run and for a single batch of it, from the old end on, and never past what is to stay. Which batches a run has stands on
//! the disk, in its footer; the partition remembers the first one once somebody has looked, so that nobody looks when nothing is due.
//!
//! Not here: who looks and when, what is done with what goes (shard/).

use super::index::Run;
use super::partition::Partition;
use crate::log::FooterEntry;

/// A run or a batch at the old end of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oldest {
    /// First offset.
    pub first_offset: u64,
    /// One past the last offset.
    pub end_offset: u64,
    /// Newest timestamp in it, UTC microseconds.
    pub newest_ts_us: i64,
    /// Bytes of its batches.
    pub bytes: u64,
}

impl From<&Run> for Oldest {
    fn from(run: &Run) -> Oldest {
        Oldest { first_offset: run.first_offset, end_offset: run.end_offset, newest_ts_us: run.newest_ts_us, bytes: run.bytes }
    }
}

impl From<&FooterEntry> for Oldest {
    fn from(entry: &FooterEntry) -> Oldest {
        Oldest {
            first_offset: entry.base_offset.0,
            end_offset: entry.base_offset.0 + u64::from(entry.last_offset_delta) + 1,
            newest_ts_us: entry.newest_ts,
            bytes: u64::from(entry.len),
        }
    }
}

impl Partition {
    /// Whether `oldest` is not kept any more, once `gone_bytes` in front of it are gone: it lies below the start, or all of it is older than the
    /// topic's retention.ms, or retention.bytes are there without it. What a queue has not settled stays up to queue.retention.ms.
    pub fn has_expired(&self, oldest: &Oldest, gone_bytes: u64, utc_us: i64) -> bool {
        let trimmed = oldest.end_offset <= self.log_start();
        let too_old = self.rules.retention_ms.is_some_and(|ms| {
            let kept_us = i64::try_from(ms.saturating_mul(1000)).unwrap_or(i64::MAX);
            oldest.newest_ts_us.saturating_add(kept_us) < utc_us
        });
        let too_much = self.rules.retention_bytes.is_some_and(|keep| self.index.bytes() - gone_bytes - oldest.bytes >= keep);
        trimmed || (too_old || too_much) && !self.is_held(oldest, utc_us)
    }

    /// Whether a queue has not settled all of it, and still may.
    fn is_held(&self, oldest: &Oldest, utc_us: i64) -> bool {
        let kept_us = self.rules.queue_retention_us.map_or(i64::MAX, |us| i64::try_from(us).unwrap_or(i64::MAX));
        oldest.end_offset > self.held_from && oldest.newest_ts_us.saturating_add(kept_us) >= utc_us
    }

    /// Whether a look at the batches of the oldest run may find some that are not kept any more. Nothing is known of a run's first batch before the
    /// first look: that one is made where the run `lies_together`, or where the start is inside it.
    pub fn may_be_cut(&self, lies_together: impl FnOnce(&Run) -> bool, utc_us: i64) -> bool {
        let Some(run) = self.index.runs().next() else { return false };
        if let Some(front) = self.front.filter(|front| front.first_offset == run.first_offset) {
            return self.has_expired(&front, 0, utc_us);
        }
        let has_limit = self.rules.retention_ms.is_some() || self.rules.retention_bytes.is_some_and(|keep| self.index.bytes() > keep);
        run.first_offset < self.log_start() || has_limit && lies_together(run)
    }

    /// What the oldest run begins with. Where that cannot be found out it is the run as a whole, which then goes as a whole.
    pub fn note_front(&mut self, front: Oldest) {
        self.front = Some(front);
    }
}
