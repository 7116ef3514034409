//! A cursor: one session's place in one partition, and the next batch from there.

use super::cold::{Cold, ColdNext};
use super::sessions::{DamageFound, Reading};
use crate::bytes::Bytes;
use crate::ids::SegmentUid;
use crate::log::Place;
use crate::partition::{Found, Slot};
use tramline_wire::error::ErrorCode;

/// A place in a partition.
#[derive(Debug)]
pub struct Cursor {
    /// The partition's place in the shard's table.
    pub slot: Slot,
    /// Its uid as asked for.
    pub uid: u64,
    /// The next offset wanted.
    pub offset: u64,
    /// Bytes of one reply, at most (one batch is always sent whole).
    pub max_bytes: u32,
    /// Bytes of its batches that are read ahead, at most (one batch is always read whole).
    pub(super) ahead_bytes: u64,
    /// Skip batches whose newest time is older, UTC microseconds (look-ups).
    pub min_ts_us: Option<i64>,
    /// No more is to be had: an error was sent.
    pub(super) over: bool,
    /// Another node leads the partition by now, or has its replica: whoever reads goes there.
    pub(super) is_left: bool,
    /// Stands in its session's queue.
    pub(super) ready: bool,
    /// Registered with its partition.
    pub(super) waiting: bool,
    /// Asked for with one-shot and not in a reply yet.
    pub(super) cold: Option<Box<Cold>>,
}

impl Cursor {
    /// A cursor at `offset`.
    pub fn new(slot: Slot, uid: u64, offset: u64, max_bytes: u32) -> Cursor {
        let ahead_bytes = u64::MAX;
        Cursor {
            slot,
            uid,
            offset,
            max_bytes,
            ahead_bytes,
            min_ts_us: None,
            over: false,
            is_left: false,
            ready: false,
            waiting: false,
            cold: None,
        }
    }
}

/// What is next at a cursor.
#[derive(Debug)]
pub(super) enum Next {
    /// A whole batch; the cursor goes on at `end_offset` once it was taken.
    Batch { bytes: Bytes, end_offset: u64 },
    /// A read is under way; its end wakes the session.
    Wait,
    /// A read of somebody else's has to end first.
    Later,
    /// No memory or no read to be had: try again later.
    Starved,
    /// Nothing more is visible.
    End,
    /// It cannot go on here; `next_offset` is where it could.
    Refused { code: ErrorCode, next_offset: u64 },
}

/// Names a read for the log: the session and the cursor in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) session: u64,
    pub(super) cursor: u32,
}

impl Owner {
    /// Sessions are numbered below 2^44, cursors below 2^20 (`FETCH_ENTRIES_MAX`).
    pub(super) fn pack(self) -> u64 {
        assert!(self.session < 1 << 44 && self.cursor < 1 << 20, "owner {self:?} out of range");
        self.session << 20 | u64::from(self.cursor)
    }
    pub(super) fn unpack(packed: u64) -> Owner {
        Owner { session: packed >> 20, cursor: (packed & ((1 << 20) - 1)) as u32 }
    }
}

impl Cursor {
    /// Gives up what was read ahead, and its share of the budget.
    pub(super) fn drop_cold(&mut self, cold_bytes: &mut u64) {
        if let Some(mut cold) = self.cold.take() {
            cold.abandon(cold_bytes);
        }
    }

    /// The next batch at or after the cursor's offset.
    pub(super) fn next(&mut self, owner: Owner, reading: &mut Reading<'_>) -> Next {
        if self.is_left {
            return Next::Refused { code: ErrorCode::NotLeader, next_offset: self.offset };
        }
        let Some(partition) = reading.partitions.get(self.slot) else {
            return Next::Refused { code: ErrorCode::TopicDeleted, next_offset: self.offset };
        };
        if self.offset < partition.log_start() {
            return Next::Refused { code: ErrorCode::OffsetOutOfRange, next_offset: partition.log_start() };
        }
        let visible_end = partition.visible_end();
        if self.offset >= visible_end {
            self.drop_cold(reading.cold_bytes);
            if self.offset > partition.next_offset() {
                return Next::Refused { code: ErrorCode::OffsetOutOfRange, next_offset: visible_end };
            }
            return Next::End;
        }
        if let Some(lost) = partition.lost_at(self.offset) {
            return Next::Refused { code: ErrorCode::Damaged, next_offset: lost.end };
        }
        if let Some(cold) = &mut self.cold {
            match cold.next(self.offset, self.min_ts_us, owner, reading) {
                ColdNext::Batch { bytes, end_offset } => return Next::Batch { bytes, end_offset },
                ColdNext::Wait => return Next::Wait,
                ColdNext::Later => return Next::Later,
                ColdNext::Starved => return Next::Starved,
                ColdNext::Refused { code, next_offset } => return Next::Refused { code, next_offset },
                ColdNext::Skip { to } => {
                    self.offset = to;
                    return self.next(owner, reading);
                }
                ColdNext::Warm => self.drop_cold(reading.cold_bytes),
            }
        }
        let partition = reading.partitions.get(self.slot).expect("found above");
        let mut found = partition.index.find(self.offset, reading.log.cached_from());
        if let (Found::Listed(at), Some(min_ts_us)) = (found, self.min_ts_us) {
            found =
                partition.index.listed_from(at).find(|(_, b)| b.newest_ts_us >= min_ts_us).map_or(Found::End, |(at, _)| Found::Listed(at));
        }
        match found {
            // Offsets follow one another: what is below the end and in no index is gone with its footer or its blocks.
            Found::End if self.min_ts_us.is_none() => self.lost_to(visible_end, reading),
            Found::End => Next::End,
            Found::Run(_) => self.go_cold(owner, reading),
            Found::Listed(at) => {
                let batch = *partition.index.listed(at).expect("just found");
                if batch.end_offset() > visible_end {
                    return Next::End;
                }
                if self.min_ts_us.is_none() && batch.base_offset > self.offset {
                    return self.lost_to(batch.base_offset, reading);
                }
                match reading.log.locate(batch.block, batch.at, batch.len) {
                    Place::Cached(bytes) => Next::Batch { bytes, end_offset: batch.end_offset() },
                    Place::Open => Next::End,
                    Place::Disk { .. } => self.go_cold(owner, reading),
                    Place::Gone => Next::Refused { code: ErrorCode::Internal, next_offset: batch.end_offset() },
                }
            }
        }
    }

    /// Nothing is known of the offsets from here to `end_offset`: told, and counted.
    fn lost_to(&mut self, end_offset: u64, reading: &mut Reading<'_>) -> Next {
        self.drop_cold(reading.cold_bytes);
        reading.damage.push(DamageFound { uid: self.uid, first_offset: self.offset, end_offset, segment: SegmentUid(0), pos: 0 });
        Next::Refused { code: ErrorCode::Damaged, next_offset: end_offset }
    }

    fn go_cold(&mut self, owner: Owner, reading: &mut Reading<'_>) -> Next {
        self.cold = Some(Box::new(Cold::new(self.slot, self.uid, self.offset, self.ahead_bytes)));
        match self.cold.as_mut().expect("set above").next(self.offset, self.min_ts_us, owner, reading) {
            ColdNext::Batch { bytes, end_offset } => Next::Batch { bytes, end_offset },
            ColdNext::Wait => Next::Wait,
            ColdNext::Later => Next::Later,
            ColdNext::Starved => Next::Starved,
            ColdNext::Refused { code, next_offset } => Next::Refused { code, next_offset },
            // The index was just asked: it is cold. It can be warm only when a skip led there, and then the next call finds it.
            ColdNext::Warm => Next::Starved,
            ColdNext::Skip { to } => {
                self.offset = to;
                self.next(owner, reading)
            }
        }
    }
}
