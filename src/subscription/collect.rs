//! Collecting: batches for the shard itself, by offset. Whoever delivers messages of a queue, looks at what a queue has, or moves dead letters says which
//! messages it needs and gets the batches that hold them, from memory or from the disk, as a fetch would.
//!
//! Invariants: a collection ends once, when each of its places is done or its budget is used up; what is not committed yet is waited for. What is found is within
//! the budget, or one batch.
//!
//! Not here: turns and reads (`sessions.rs`, `cursor.rs`).

use super::cursor::{Cursor, Next, Owner};
use super::sessions::Reading;
use crate::bytes::Bytes;
use crate::ids::PartitionUid;
use crate::partition::Slot;
use std::collections::VecDeque;
use std::ops::Range;
use tramline_wire::batch::BatchView;
use tramline_wire::error::ErrorCode;

/// Bytes that one place reads ahead.
const AHEAD_BYTES: u64 = 256 << 10;

/// What is wanted of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wants {
    /// The batches that hold these offsets, which rise.
    Offsets(Vec<u64>),
    /// Everything visible from this offset on.
    From(u64),
}

/// A batch that was asked for.
#[derive(Clone, Debug)]
pub struct CollectedBatch {
    /// Offset of its first record.
    pub base_offset: u64,
    /// One past that of its last.
    pub end_offset: u64,
    /// The batch.
    pub bytes: Bytes,
}

/// What was found in one partition.
#[derive(Clone, Debug, Default)]
pub struct CollectedPart {
    /// The partition.
    pub uid: PartitionUid,
    /// Batches, in order of offset.
    pub batches: Vec<CollectedBatch>,
    /// Offsets that are not to be had, and why.
    pub missing: Vec<(Range<u64>, ErrorCode)>,
}

/// A collection that has ended.
#[derive(Clone, Debug)]
pub struct Collected {
    /// As it was asked for.
    pub ticket: u64,
    /// In the order in which partitions were named.
    pub parts: Vec<CollectedPart>,
}

#[derive(Debug)]
pub(super) struct Place {
    wants: Wanting,
    found: CollectedPart,
}

#[derive(Debug)]
enum Wanting {
    Offsets(VecDeque<u64>),
    All,
}

/// A collection under way; its cursors are its session's.
#[derive(Debug)]
pub(super) struct Collecting {
    ticket: u64,
    left_bytes: usize,
    has_found: bool,
    places: Vec<Place>,
}

impl Collecting {
    pub(super) fn new(ticket: u64, bytes_max: usize, wanted: Vec<(Slot, PartitionUid, Wants)>) -> (Collecting, Vec<Cursor>) {
        let (mut places, mut cursors) = (Vec::with_capacity(wanted.len()), Vec::with_capacity(wanted.len()));
        for (slot, uid, wants) in wanted {
            let (from, wants) = match wants {
                Wants::Offsets(offsets) => {
                    assert!(offsets.is_sorted() && !offsets.is_empty(), "offsets to collect rise");
                    (offsets[0], Wanting::Offsets(offsets.into()))
                }
                Wants::From(from) => (from, Wanting::All),
            };
            let mut cursor = Cursor::new(slot, uid.0, from, u32::MAX);
            cursor.ahead_bytes = AHEAD_BYTES;
            cursors.push(cursor);
            places.push(Place { wants, found: CollectedPart { uid, ..CollectedPart::default() } });
        }
        (Collecting { ticket, left_bytes: bytes_max, has_found: false, places }, cursors)
    }

    /// One cursor's turn; what it stopped at, if it is not over.
    pub(super) fn turn(&mut self, owner: Owner, cursor: &mut Cursor, reading: &mut Reading<'_>) -> Option<Next> {
        let place = &mut self.places[owner.cursor as usize];
        while !cursor.over {
            if self.left_bytes == 0 {
                cursor.over = true;
                break;
            }
            match cursor.next(owner, reading) {
                // The next one does not fit: nothing behind it is taken either, so that offsets keep their order.
                Next::Batch { bytes, .. } if self.has_found && bytes.len() > self.left_bytes => self.left_bytes = 0,
                Next::Batch { bytes, end_offset } => {
                    self.has_found = true;
                    self.left_bytes = self.left_bytes.saturating_sub(bytes.len());
                    let base_offset = BatchView::parse(bytes.as_slice()).map_or(cursor.offset, |view| view.base_offset());
                    place.found.batches.push(CollectedBatch { base_offset, end_offset, bytes });
                    place.go_on(cursor, end_offset);
                }
                Next::Refused { code, next_offset } => {
                    let end = next_offset.max(cursor.offset + 1);
                    let is_final = code == ErrorCode::TopicDeleted || code == ErrorCode::StorageFailed;
                    place.found.missing.push((cursor.offset..if is_final { u64::MAX } else { end }, code));
                    cursor.drop_cold(reading.cold_bytes);
                    if is_final {
                        cursor.over = true;
                    } else {
                        place.go_on(cursor, end);
                    }
                }
                Next::End if matches!(place.wants, Wanting::All) => cursor.over = true,
                stopped => return Some(stopped),
            }
        }
        cursor.drop_cold(reading.cold_bytes);
        None
    }

    pub(super) fn end(self) -> Collected {
        Collected { ticket: self.ticket, parts: self.places.into_iter().map(|place| place.found).collect() }
    }
}

impl Place {
    /// All below `end` is done.
    fn go_on(&mut self, cursor: &mut Cursor, end: u64) {
        cursor.offset = end;
        if let Wanting::Offsets(offsets) = &mut self.wants {
            while offsets.front().is_some_and(|offset| *offset < end) {
                offsets.pop_front();
            }
            match offsets.front() {
                Some(next) => cursor.offset = *next,
                None => cursor.over = true,
            }
        }
    }
}
