//! What payloads between nodes are made of: batches one behind the other, and items each behind its length. Checked once, then gone through
//! without errors.
//!
//! ```text
//! batches   batch | batch | ...                       a batch tells its own length and checks itself
//! items     length u32 | bytes | length u32 | ...     covered by one crc32c that stands in the meta
//! ```
//! Invariants: [`CheckedBatches`] and [`CheckedItems`] are made by the checks of this file only, so their iterators give every byte and cannot
//! fail. Of a batch its header and body are checked by their sums; its records are not walked: the leader did that before it stamped the
//! batch, and the sums say that these are those bytes.
//! Not here: what a batch has to be besides, which its owner knows (term, partition, offset).

use super::error::{NodeError, Place};
use crate::batch::{self, BatchError, BatchView, Batches};
use crate::frame::PAYLOAD_BYTES_MAX;

/// What a node takes from another one. In bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadLimits {
    /// Largest batch, header included, as it is stored.
    pub batch_bytes_max: u32,
    /// Largest entry: its batches and control payloads together, each of these with its length. What a block can hold.
    pub entry_bytes_max: u32,
}

impl Default for PayloadLimits {
    /// The broker's own default for batches; for entries whatever a frame can carry.
    fn default() -> PayloadLimits {
        PayloadLimits { batch_bytes_max: batch::Limits::default().batch_bytes_max, entry_bytes_max: PAYLOAD_BYTES_MAX }
    }
}

/// Concatenated batches whose sums are right.
#[derive(Debug, Clone)]
pub struct CheckedBatches<'a>(Batches<'a>);

impl<'a> CheckedBatches<'a> {
    /// For bytes that [`check_batches`] has taken.
    pub(super) const fn of(bytes: &'a [u8]) -> CheckedBatches<'a> {
        CheckedBatches(Batches::new(bytes))
    }
    /// Those that were not gone through yet, as they stand in the payload.
    pub const fn bytes(&self) -> &'a [u8] {
        self.0.rest()
    }
}

impl<'a> Iterator for CheckedBatches<'a> {
    type Item = BatchView<'a>;
    #[inline]
    fn next(&mut self) -> Option<BatchView<'a>> {
        let next = self.0.next()?;
        debug_assert!(next.is_ok(), "a checked batch does not parse");
        next.ok()
    }
}

/// Items whose lengths add up.
#[derive(Debug, Clone)]
pub struct CheckedItems<'a> {
    rest: &'a [u8],
}

impl<'a> CheckedItems<'a> {
    /// For bytes that [`check_items`] has taken.
    pub(super) const fn of(bytes: &'a [u8]) -> CheckedItems<'a> {
        CheckedItems { rest: bytes }
    }
}

impl<'a> Iterator for CheckedItems<'a> {
    type Item = &'a [u8];
    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.rest.split_first_chunk::<4>()?;
        let (item, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        self.rest = rest;
        Some(item)
    }
}

/// Checks batches one behind the other. `also` sees each one's number and header, whose sum is right, before its body is read.
#[inline]
pub(super) fn check_batches<'a>(
    bytes: &'a [u8],
    batch_bytes_max: u32,
    at: Place,
    mut also: impl FnMut(u32, &BatchView<'a>) -> Result<(), NodeError>,
) -> Result<(), NodeError> {
    let mut rest = bytes;
    let mut number = 0;
    while !rest.is_empty() {
        let refused = |error| NodeError::Batch { at, batch: number, error };
        let view = BatchView::parse(rest).map_err(refused)?;
        if view.len() as u64 > u64::from(batch_bytes_max) {
            return Err(refused(BatchError::BatchTooLarge { bytes: view.len() as u64, max: batch_bytes_max }));
        }
        view.verify_header().map_err(refused)?;
        also(number, &view)?;
        view.verify_body().map_err(refused)?;
        rest = &rest[view.len()..];
        number += 1;
    }
    Ok(())
}

/// Checks the sum over bytes that have none of their own.
#[inline]
pub(super) fn check_crc(bytes: &[u8], stored: u32, at: Place) -> Result<(), NodeError> {
    let computed = crc32c::crc32c(bytes);
    if computed == stored { Ok(()) } else { Err(NodeError::PayloadChecksum { at, stored, computed }) }
}

/// Checks that lengths and items alternate to the end, with no item empty; returns how many there are. The sum is the caller's.
#[inline]
pub(super) fn check_items(bytes: &[u8], at: Place) -> Result<u32, NodeError> {
    let mut rest = bytes;
    let mut item = 0;
    while !rest.is_empty() {
        let needed = match rest.first_chunk::<4>() {
            Some(len) => u64::from(u32::from_le_bytes(*len)) + 4,
            None => 4,
        };
        let left = rest.len();
        if rest.len() >= 4 && needed == 4 {
            return Err(NodeError::ItemLength { at, item, needed: 0, left });
        }
        if needed > left as u64 {
            return Err(NodeError::ItemLength { at, item, needed, left });
        }
        rest = &rest[needed as usize..];
        item += 1;
    }
    Ok(item)
}

/// The sender's sum over items: their lengths are written between them, and nothing is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ItemsSum {
    bytes: u32,
    crc: u32,
}

impl ItemsSum {
    /// Of no items.
    pub const fn new() -> ItemsSum {
        ItemsSum { bytes: 0, crc: 0 }
    }
    /// Adds an item, 1 byte to 4 GiB. Returns what has to be sent in front of it.
    pub fn add(&mut self, item: &[u8]) -> [u8; 4] {
        self.add_summed(item.len(), crc32c::crc32c(item))
    }
    /// Adds an item of which the sum is known, as that of a payload in a block's table: it is not read again, and the receiver checks the bytes
    /// against a sum as old as they are. Panics when all items together have 4 GiB, or this one has no byte.
    pub fn add_summed(&mut self, len: usize, crc: u32) -> [u8; 4] {
        assert!(len > 0, "an item without bytes is not taken by the receiver");
        let total = self.bytes as u64 + 4 + len as u64;
        assert!(total <= u32::MAX as u64, "payloads of {total} bytes in one entry");
        self.bytes = total as u32;
        let prefix = (len as u32).to_le_bytes();
        self.crc = crc32c::crc32c_combine(crc32c::crc32c_append(self.crc, &prefix), crc, len);
        prefix
    }
    /// Bytes of all items with their lengths.
    pub const fn bytes(&self) -> u32 {
        self.bytes
    }
    /// crc32c over items and lengths.
    pub const fn crc(&self) -> u32 {
        self.crc
    }
}
