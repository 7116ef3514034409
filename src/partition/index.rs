//! Where a partition's batches are: per batch for segments that are not sealed, per segment (a run) for those that are.
//!
//! A run's batches are listed in the footer of its segment and are read from there when somebody wants them, so memory
//! grows with segments times partitions in them, not with batches. 40 bytes a batch in the tail, 56 a run.
//!
//! The newest batches of the runs stay listed as well as long as their blocks are in the tail cache: a consumer a few milliseconds
//! behind must not go to the disk because a segment was sealed in between.
//!
//! Invariants: runs are in offset order; the list is in offset order and in block order; its first `sealed` batches are in runs too, the
//! others, the tail, are behind all runs.

use crate::ids::{BlockSeq, SegmentUid};
use std::collections::VecDeque;

/// One batch of an unsealed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchRef {
    /// Offset of its first record.
    pub base_offset: u64,
    /// Newest timestamp in it, in UTC microseconds, by the topic's kind of time.
    pub newest_ts_us: i64,
    /// The block that carries it.
    pub block: BlockSeq,
    /// Where in the block, in bytes.
    pub at: u32,
    /// Its length, in bytes.
    pub len: u32,
    /// Offset of its last record minus `base_offset`.
    pub last_delta: u32,
}

impl BatchRef {
    /// Its records.
    pub fn record_count(&self) -> u32 {
        self.last_delta + 1
    }

    /// One past the last offset.
    pub fn end_offset(&self) -> u64 {
        self.base_offset + u64::from(self.last_delta) + 1
    }
}

/// Batches of one partition that follow one another in one sealed segment; of the oldest run the first ones can have been cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The segment.
    pub segment: SegmentUid,
    /// First offset.
    pub first_offset: u64,
    /// One past the last offset.
    pub end_offset: u64,
    /// Newest timestamp in it, UTC microseconds (of what was cut off it, too).
    pub newest_ts_us: i64,
    /// Bytes of its batches.
    pub bytes: u64,
    /// First of its entries in the segment's footer.
    pub footer_first: u32,
    /// Number of its entries in the footer.
    pub footer_count: u32,
}

impl Run {
    /// One past its last entry in the footer.
    pub fn footer_end(&self) -> u32 {
        self.footer_first + self.footer_count
    }
}

/// Batches of the tail that are added up one by one, at most: 1.3 us (release, warm).
const WALKED_MAX: usize = 4096;

/// The answer to "where is this offset".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// In the list of single batches, at this position of it (see `Index::listed`).
    Listed(usize),
    /// In this run: read the footer's entries to go on.
    Run(Run),
    /// At or past the end.
    End,
}

/// A place so near to the end of a list is found by a look at each from there.
const NEAR_BATCHES: usize = 16;

/// The index of one partition.
#[derive(Debug, Default)]
pub struct Index {
    runs: VecDeque<Run>,
    /// The newest batches: `sealed` of them are in runs, the tail is behind.
    list: VecDeque<BatchRef>,
    sealed: usize,
    bytes: u64,
}

impl Index {
    /// The newest timestamp of a batch; `i64::MIN` without one.
    pub fn newest_us(&self) -> i64 {
        let runs = self.runs.iter().map(|run| run.newest_ts_us);
        runs.chain(self.list.iter().map(|batch| batch.newest_ts_us)).max().unwrap_or(i64::MIN)
    }

    /// Memory of what is listed, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        (self.runs.len() * size_of::<Run>() + self.list.len() * size_of::<BatchRef>()) as u64
    }

    /// Adds a batch behind all others. Panics if it is not behind them.
    pub fn push(&mut self, batch: BatchRef) {
        if let Some(last) = self.list.back() {
            assert!(batch.base_offset >= last.end_offset() && batch.block >= last.block, "batch {batch:?} behind {last:?}");
        } else if let Some(last) = self.runs.back() {
            assert!(batch.base_offset >= last.end_offset, "batch {batch:?} behind {last:?}");
        }
        self.bytes += u64::from(batch.len);
        self.list.push_back(batch);
    }

    /// Takes the batches from `offset` on out again. Panics when one of them is sealed: what is sealed is committed.
    pub fn cut_from(&mut self, offset: u64) {
        while self.list.back().is_some_and(|batch| batch.base_offset >= offset) {
            assert!(self.list.len() > self.sealed, "a sealed batch is to be cut from {offset}");
            let batch = self.list.pop_back().expect("looked at");
            self.bytes -= u64::from(batch.len);
        }
    }

    /// Adds a run of a checkpoint. Panics if it is not behind the others.
    pub fn push_run(&mut self, run: Run) {
        assert!(self.list.is_empty() && self.runs.back().is_none_or(|r| r.end_offset <= run.first_offset), "run {run:?} out of order");
        self.bytes += run.bytes;
        self.runs.push_back(run);
    }

    /// The batch that holds `offset` or, where that one is missing, the first one after it. Of the sealed ones only those are found singly
    /// whose blocks are `cached_from` or later.
    pub fn find(&self, offset: u64, cached_from: BlockSeq) -> Found {
        let at = self.place_of(offset);
        let Some(batch) = self.list.get(at) else {
            return self.find_run(offset).map_or(Found::End, Found::Run);
        };
        let is_readable = at >= self.sealed || batch.block >= cached_from;
        // In front of the list's first batch there may be sealed ones that are not listed any more.
        if is_readable && (at > 0 || batch.base_offset <= offset) {
            return Found::Listed(at);
        }
        match self.find_run(offset) {
            Some(run) if !is_readable || run.first_offset < batch.base_offset => Found::Run(run),
            _ => Found::Listed(at),
        }
    }

    /// The place in the list of the first batch that ends behind `offset`: most who read are near its end, and the list may be long.
    fn place_of(&self, offset: u64) -> usize {
        let behind = self.list.iter().rev().take(NEAR_BATCHES).take_while(|batch| batch.end_offset() > offset).count();
        match behind {
            NEAR_BATCHES => self.list.partition_point(|batch| batch.end_offset() <= offset),
            near => self.list.len() - near,
        }
    }

    fn find_run(&self, offset: u64) -> Option<Run> {
        let at = self.runs.partition_point(|r| r.end_offset <= offset);
        self.runs.get(at).copied()
    }

    /// A batch of the list.
    pub fn listed(&self, at: usize) -> Option<&BatchRef> {
        self.list.get(at)
    }

    /// The list from `at` on, with positions.
    pub fn listed_from(&self, at: usize) -> impl Iterator<Item = (usize, &BatchRef)> {
        self.list.iter().enumerate().skip(at)
    }

    /// The batches that are not in a run.
    pub fn tail(&self) -> impl Iterator<Item = &BatchRef> {
        self.list.iter().skip(self.sealed)
    }

    /// Those of them that begin at `offset` or behind it.
    pub fn tail_from(&self, offset: u64) -> impl Iterator<Item = &BatchRef> {
        let at = self.list.partition_point(|batch| batch.base_offset < offset).max(self.sealed);
        self.list.range(at..)
    }

    /// The batch of the tail that begins with this offset.
    pub fn tail_at(&self, first: u64) -> Option<&BatchRef> {
        self.tail_from(first).next().filter(|batch| batch.base_offset == first)
    }

    /// Puts one run in the place of the tail's batches whose blocks are at or below `last_block` (a segment that is being sealed).
    /// `footer_first` is the place of their first footer entry. They stay listed until `forget_sealed`.
    pub fn seal(&mut self, segment: SegmentUid, last_block: BlockSeq, footer_first: u32) -> Option<Run> {
        let first = *self.list.get(self.sealed).filter(|b| b.block <= last_block)?;
        let mut run = Run {
            segment,
            first_offset: first.base_offset,
            end_offset: first.base_offset,
            newest_ts_us: i64::MIN,
            bytes: 0,
            footer_first,
            footer_count: 0,
        };
        while let Some(batch) = self.list.get(self.sealed).filter(|b| b.block <= last_block) {
            run.end_offset = batch.end_offset();
            run.newest_ts_us = run.newest_ts_us.max(batch.newest_ts_us);
            run.bytes += u64::from(batch.len);
            run.footer_count += 1;
            self.sealed += 1;
        }
        self.runs.push_back(run);
        Some(run)
    }

    /// Takes sealed batches off the list whose blocks are not cached any more.
    pub fn forget_sealed(&mut self, cached_from: BlockSeq) {
        while self.sealed > 0 && self.list.front().is_some_and(|b| b.block < cached_from) {
            self.list.pop_front();
            self.sealed -= 1;
        }
    }

    /// Takes the oldest run out.
    pub fn pop_run(&mut self) -> Option<Run> {
        let run = self.runs.pop_front()?;
        self.bytes -= run.bytes;
        self.forget_below(run.end_offset);
        Some(run)
    }

    /// Cuts the first `batches` batches off the oldest run, `bytes` in all; what is left begins at `first_offset`. Panics when nothing is left.
    pub fn cut_run(&mut self, batches: u32, bytes: u64, first_offset: u64) {
        let run = self.runs.front_mut().expect("there is a run to cut");
        let fits = batches < run.footer_count && bytes < run.bytes && run.first_offset < first_offset && first_offset < run.end_offset;
        assert!(fits, "{batches} batches of {bytes} bytes, up to {first_offset}, cut off {run:?}");
        run.footer_first += batches;
        run.footer_count -= batches;
        run.bytes -= bytes;
        run.first_offset = first_offset;
        self.bytes -= bytes;
        self.forget_below(first_offset);
    }

    /// Takes sealed batches below `offset` off the list.
    fn forget_below(&mut self, offset: u64) {
        while self.sealed > 0 && self.list.front().is_some_and(|b| b.base_offset < offset) {
            self.list.pop_front();
            self.sealed -= 1;
        }
    }

    /// Puts `new` in the place of the runs `old`, which follow one another, oldest first, and hold the same batches. What was dropped
    /// meanwhile (the oldest runs, and the front of the one behind them) stays so: `new` is cut to the rest. Answers what it became; the runs
    /// that it replaced, as they were, go behind `replaced`.
    pub fn replace_runs(&mut self, old: &[Run], mut new: Run, replaced: &mut Vec<Run>) -> Option<Run> {
        let first_kept = self.runs.front()?.first_offset;
        let dropped = old.partition_point(|run| run.end_offset <= first_kept);
        let left = &old[dropped..];
        let first = left.first()?;
        let at = self.runs.partition_point(|run| run.end_offset <= first.first_offset);
        let is_same =
            |(old, run): (&Run, &Run)| (old.segment, old.end_offset, old.footer_end()) == (run.segment, run.end_offset, run.footer_end());
        assert!(
            self.runs.len() - at >= left.len() && left.iter().zip(self.runs.iter().skip(at)).all(is_same),
            "runs are dropped at the old end only: {left:?} among {:?}",
            self.runs
        );
        let kept = self.runs[at];
        let cut_bytes = old[..dropped].iter().map(|run| run.bytes).sum::<u64>() + first.bytes - kept.bytes;
        let cut_batches = old[..dropped].iter().map(|run| run.footer_count).sum::<u32>() + first.footer_count - kept.footer_count;
        new.footer_first += cut_batches;
        new.footer_count -= cut_batches;
        new.bytes -= cut_bytes;
        new.first_offset = kept.first_offset;
        replaced.extend(self.runs.range(at..at + left.len()));
        self.runs[at] = new;
        self.runs.drain(at + 1..at + left.len());
        Some(new)
    }

    /// Bytes of the batches from `offset` on: exact to a batch among the last [`WALKED_MAX`] of the tail, elsewhere in proportion to the offsets.
    pub fn bytes_from(&self, offset: u64) -> u64 {
        let share = |bytes: u64, first: u64, end: u64| {
            let (all, left) = (end - first, end - offset.clamp(first, end));
            (u128::from(bytes) * u128::from(left) / u128::from(all.max(1))) as u64
        };
        let at = self.runs.partition_point(|run| run.end_offset <= offset);
        let in_runs = self.runs.range(at..).map(|run| share(run.bytes, run.first_offset, run.end_offset)).sum::<u64>();
        let Some(first) = self.list.get(self.sealed) else { return in_runs };
        let from = self.list.partition_point(|batch| batch.end_offset() <= offset).max(self.sealed);
        if self.list.len() - from <= WALKED_MAX {
            return in_runs + self.list.range(from..).map(|batch| u64::from(batch.len)).sum::<u64>();
        }
        let tail_bytes = self.bytes - self.runs.iter().map(|run| run.bytes).sum::<u64>();
        let end = self.list.back().expect("there is a tail").end_offset();
        in_runs + share(tail_bytes, first.base_offset, end)
    }

    /// About when the record at `offset` was written, by the topic's kind of time, UTC microseconds: the newest time of its batch in the tail; in a
    /// run in proportion to the offsets between the newest times of the run before and of this one. `None` at the end.
    pub fn time_at(&self, offset: u64) -> Option<i64> {
        let at = self.runs.partition_point(|run| run.end_offset <= offset);
        let Some(run) = self.runs.get(at) else {
            let at = self.list.partition_point(|batch| batch.end_offset() <= offset).max(self.sealed);
            return self.list.get(at).map(|batch| batch.newest_ts_us);
        };
        let before_us = at.checked_sub(1).map_or(run.newest_ts_us, |before| self.runs[before].newest_ts_us.min(run.newest_ts_us));
        let (all, passed) = (run.end_offset - run.first_offset, offset.max(run.first_offset) - run.first_offset);
        let share = (i128::from(run.newest_ts_us) - i128::from(before_us)) * i128::from(passed) / i128::from(all.max(1));
        Some(before_us.saturating_add(share as i64))
    }

    /// The first offset of a run, or of a batch in the tail, that may hold a record of `at_us` or later; `None` where all are older.
    pub fn first_offset_since(&self, at_us: i64) -> Option<u64> {
        let run = self.runs.iter().find(|run| run.newest_ts_us >= at_us).map(|run| run.first_offset);
        run.or_else(|| self.tail().find(|batch| batch.newest_ts_us >= at_us).map(|batch| batch.base_offset))
    }

    /// Runs, oldest first.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter()
    }

    /// Bytes of all batches.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// First offset that is still there.
    pub fn first_offset(&self) -> Option<u64> {
        self.runs.front().map(|r| r.first_offset).or(self.list.front().map(|b| b.base_offset))
    }

    /// One past the last offset that is there.
    pub fn end_offset(&self) -> Option<u64> {
        self.list.back().map(BatchRef::end_offset).or(self.runs.back().map(|r| r.end_offset))
    }

    /// Number of segments that hold something of this partition.
    pub fn segment_count(&self) -> u32 {
        self.runs.len() as u32 + u32::from(self.tail_len() > 0)
    }

    /// Number of batches that are not in a run.
    pub fn tail_len(&self) -> usize {
        self.list.len() - self.sealed
    }
}
