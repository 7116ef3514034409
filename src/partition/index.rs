//! Where a partition's batches are: per batch for segments that are not sealed, per segment (a run) for those that are.
//!
//! A run's batches are listed in the footer of its segment and are read from there when somebody wants them, so memory
//! grows with segments times partitions in them, not with batches. 40 bytes a batch in the tail, 56 a run.
//!
//! Invariants: runs are in offset order and all below the tail; the tail is in offset order and in block order.

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
    /// One past the last offset.
    pub fn end_offset(&self) -> u64 {
        self.base_offset + u64::from(self.last_delta) + 1
    }
}

/// All batches of one partition in one sealed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The segment.
    pub segment: SegmentUid,
    /// First offset.
    pub first_offset: u64,
    /// One past the last offset.
    pub end_offset: u64,
    /// Newest timestamp in it, UTC microseconds.
    pub newest_ts_us: i64,
    /// Bytes of its batches.
    pub bytes: u64,
    /// First of its entries in the segment's footer.
    pub footer_first: u32,
    /// Number of its entries in the footer.
    pub footer_count: u32,
}

/// The answer to "where is this offset".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// In the tail, at this position of it (see `Index::tail_at`).
    Tail(usize),
    /// In this run: read the footer's entries to go on.
    Run(Run),
    /// At or past the end.
    End,
}

/// The index of one partition.
#[derive(Debug, Default)]
pub struct Index {
    runs: VecDeque<Run>,
    tail: VecDeque<BatchRef>,
    bytes: u64,
}

impl Index {
    /// Adds a batch behind all others. Panics if it is not behind them.
    pub fn push(&mut self, batch: BatchRef) {
        if let Some(last) = self.tail.back() {
            assert!(batch.base_offset >= last.end_offset() && batch.block >= last.block, "batch {batch:?} behind {last:?}");
        } else if let Some(last) = self.runs.back() {
            assert!(batch.base_offset >= last.end_offset, "batch {batch:?} behind {last:?}");
        }
        self.bytes += u64::from(batch.len);
        self.tail.push_back(batch);
    }

    /// Adds a run of a checkpoint. Panics if it is not behind the others.
    pub fn push_run(&mut self, run: Run) {
        assert!(self.tail.is_empty() && self.runs.back().is_none_or(|r| r.end_offset <= run.first_offset), "run {run:?} out of order");
        self.bytes += run.bytes;
        self.runs.push_back(run);
    }

    /// The batch that holds `offset` or, where that one is missing, the first one after it.
    pub fn find(&self, offset: u64) -> Found {
        if self.tail.front().is_some_and(|b| b.base_offset <= offset) {
            let at = self.tail.partition_point(|b| b.end_offset() <= offset);
            return if at < self.tail.len() { Found::Tail(at) } else { Found::End };
        }
        let at = self.runs.partition_point(|r| r.end_offset <= offset);
        match self.runs.get(at) {
            Some(run) => Found::Run(*run),
            None if self.tail.is_empty() => Found::End,
            None => Found::Tail(0),
        }
    }

    /// The first batch or run whose newest timestamp is at or after `at_us`; timestamps need not be in order.
    pub fn find_time(&self, at_us: i64) -> Found {
        if let Some(run) = self.runs.iter().find(|r| r.newest_ts_us >= at_us) {
            return Found::Run(*run);
        }
        match self.tail.iter().position(|b| b.newest_ts_us >= at_us) {
            Some(at) => Found::Tail(at),
            None => Found::End,
        }
    }

    /// A batch of the tail.
    pub fn tail_at(&self, at: usize) -> Option<&BatchRef> {
        self.tail.get(at)
    }

    /// The tail from `at` on, with positions.
    pub fn tail_from(&self, at: usize) -> impl Iterator<Item = (usize, &BatchRef)> {
        self.tail.iter().enumerate().skip(at)
    }

    /// Takes the tail's batches whose blocks are at or below `last_block` (a segment that is being sealed), calling `each`
    /// in offset order, and puts one run in their place. `footer_first` is the place of their first footer entry.
    pub fn seal(&mut self, segment: SegmentUid, last_block: BlockSeq, footer_first: u32, mut each: impl FnMut(&BatchRef)) -> Option<Run> {
        let first = *self.tail.front().filter(|b| b.block <= last_block)?;
        let mut run = Run {
            segment,
            first_offset: first.base_offset,
            end_offset: first.base_offset,
            newest_ts_us: i64::MIN,
            bytes: 0,
            footer_first,
            footer_count: 0,
        };
        while let Some(batch) = self.tail.front().filter(|b| b.block <= last_block) {
            each(batch);
            run.end_offset = batch.end_offset();
            run.newest_ts_us = run.newest_ts_us.max(batch.newest_ts_us);
            run.bytes += u64::from(batch.len);
            run.footer_count += 1;
            self.tail.pop_front();
        }
        self.runs.push_back(run);
        Some(run)
    }

    /// Takes the oldest run out.
    pub fn pop_run(&mut self) -> Option<Run> {
        let run = self.runs.pop_front()?;
        self.bytes -= run.bytes;
        Some(run)
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
        self.runs.front().map(|r| r.first_offset).or(self.tail.front().map(|b| b.base_offset))
    }

    /// One past the last offset that is there.
    pub fn end_offset(&self) -> Option<u64> {
        self.tail.back().map(BatchRef::end_offset).or(self.runs.back().map(|r| r.end_offset))
    }

    /// Number of segments that hold something of this partition.
    pub fn segment_count(&self) -> u32 {
        self.runs.len() as u32 + u32::from(!self.tail.is_empty())
    }

    /// Number of batches listed one by one.
    pub fn tail_len(&self) -> usize {
        self.tail.len()
    }
}
