//! The record index and records: walking, validating, slicing in place.
//!
//! Invariants: nothing allocates; every length is checked before it is used, so a walk over a batch that was never
//! validated ends in an error, not in a panic and not in wrong data silently left out.
//! Offsets come from outside like everything else: a walk gives each record a higher one than the last, all of them below
//! the batch's end, so that a reader's position cannot jump or turn back within a batch.
//! Cost: a record without optional fields is 12 bytes read; a walk takes some four nanoseconds for it, the check of them in `plain.rs` less.
//! Not here: building (`build.rs`), decompression.

use super::error::BatchError;
use super::layout::*;
use super::plain::{Plain, split_plain};
use super::view::BatchView;
use crate::codec::Codec;

/// Queue attributes of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes<'a> {
    /// Not to be delivered before, UTC microseconds.
    pub deliver_at_us: Option<i64>,
    /// Priority; higher is sooner.
    pub priority: Option<u8>,
    /// Time to live from the record's timestamp, in milliseconds.
    pub ttl_ms: Option<u32>,
    /// Message group: order is kept within it.
    pub group: Option<&'a [u8]>,
    /// Message id for deduplication.
    pub message_id: Option<&'a [u8]>,
}

/// One entry of the record index: all of a record but its value's and headers' bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry<'a> {
    /// `RECORD_*` flags.
    pub flags: u16,
    /// Offset minus the batch's base offset.
    pub offset_delta: u16,
    /// Timestamp minus the batch's first timestamp.
    pub time_delta_us: i32,
    /// Bytes of value.
    pub value_len: u32,
    /// Bytes of headers, which follow the value.
    pub headers_len: u32,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// Queue attributes.
    pub attributes: Attributes<'a>,
}

impl IndexEntry<'_> {
    /// Whether the value is null.
    pub const fn is_tombstone(&self) -> bool {
        self.flags & RECORD_NULL != 0
    }
    /// What counts against the record limit: key, value, headers, group and id.
    pub fn record_bytes(&self) -> u64 {
        let len = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len) as u64;
        self.value_len as u64 + self.headers_len as u64 + len(self.key) + len(self.attributes.group) + len(self.attributes.message_id)
    }
}

/// Splits one entry off the index.
#[inline]
fn split_entry<'a>(index: &mut &'a [u8], record: u32) -> Result<IndexEntry<'a>, BatchError> {
    let Some((fixed, rest)) = index.split_first_chunk::<INDEX_ENTRY_BYTES>() else {
        return Err(BatchError::IndexShort { record });
    };
    *index = rest;
    let flags = u16::from_le_bytes([fixed[0], fixed[1]]);
    let mut entry = IndexEntry {
        flags,
        offset_delta: u16::from_le_bytes([fixed[2], fixed[3]]),
        time_delta_us: i32::from_le_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
        value_len: u32::from_le_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
        headers_len: 0,
        key: None,
        attributes: Attributes::default(),
    };
    if flags == 0 {
        return Ok(entry);
    }
    if flags & !RECORD_FLAGS_KNOWN != 0 {
        return Err(BatchError::UnknownRecordFlags { record, flags });
    }
    match split_optional(index, &mut entry) {
        Some(()) => Ok(entry),
        None => Err(BatchError::IndexShort { record }),
    }
}

#[inline]
fn split_optional<'a>(index: &mut &'a [u8], entry: &mut IndexEntry<'a>) -> Option<()> {
    if entry.flags & RECORD_KEY != 0 {
        entry.key = Some(split_bytes(index)?);
    }
    if entry.flags & RECORD_HEADERS != 0 {
        entry.headers_len = u32::from_le_bytes(split_array(index)?);
    }
    if entry.flags & !(RECORD_KEY | RECORD_HEADERS | RECORD_NULL) == 0 {
        return Some(());
    }
    if entry.flags & RECORD_DELIVER_AT != 0 {
        entry.attributes.deliver_at_us = Some(i64::from_le_bytes(split_array(index)?));
    }
    if entry.flags & RECORD_PRIORITY != 0 {
        entry.attributes.priority = Some(split_array::<1>(index)?[0]);
    }
    if entry.flags & RECORD_TTL != 0 {
        entry.attributes.ttl_ms = Some(u32::from_le_bytes(split_array(index)?));
    }
    if entry.flags & RECORD_GROUP != 0 {
        entry.attributes.group = Some(split_bytes(index)?);
    }
    if entry.flags & RECORD_MESSAGE_ID != 0 {
        entry.attributes.message_id = Some(split_bytes(index)?);
    }
    Some(())
}

#[inline]
fn split_array<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = from.split_first_chunk::<N>()?;
    *from = rest;
    Some(*head)
}

#[inline]
fn split_len<'a>(from: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, rest) = from.split_at_checked(len)?;
    *from = rest;
    Some(head)
}

#[inline]
fn split_bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = u16::from_le_bytes(split_array(from)?);
    split_len(from, len as usize)
}

/// Goes through the record index without touching values: keys and attributes also of compressed batches. Ends after
/// the first error; bytes left after the last record are one.
#[derive(Debug, Clone)]
pub struct Index<'a> {
    rest: &'a [u8],
    record: u32,
    record_count: u32,
}

impl<'a> Iterator for Index<'a> {
    type Item = Result<IndexEntry<'a>, BatchError>;
    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.record == self.record_count {
            if self.rest.is_empty() {
                return None;
            }
            let bytes = std::mem::take(&mut self.rest).len();
            return Some(Err(BatchError::IndexTrailing { bytes }));
        }
        let entry = split_entry(&mut self.rest, self.record);
        match entry {
            Ok(_) => self.record += 1,
            Err(_) => {
                self.record = self.record_count;
                self.rest = &[];
            }
        }
        Some(entry)
    }
}

/// One header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Name.
    pub name: &'a str,
    /// Value.
    pub value: &'a [u8],
}

/// Headers of a record; they were checked when the record was sliced, so iterating cannot fail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    rest: &'a [u8],
    left: u16,
}

impl<'a> Headers<'a> {
    fn check(bytes: &'a [u8]) -> Option<Headers<'a>> {
        let mut rest = bytes;
        let left = u16::from_le_bytes(split_array(&mut rest)?);
        let headers = Headers { rest, left };
        for _ in 0..left {
            split_header(&mut rest)?;
        }
        rest.is_empty().then_some(headers)
    }
}

#[inline]
fn split_header<'a>(from: &mut &'a [u8]) -> Option<Header<'a>> {
    let name = std::str::from_utf8(split_bytes(from)?).ok()?;
    let value_len = u32::from_le_bytes(split_array(from)?);
    let value = split_len(from, value_len as usize)?;
    Some(Header { name, value })
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;
    fn next(&mut self) -> Option<Header<'a>> {
        self.left = self.left.checked_sub(1)?;
        split_header(&mut self.rest)
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// One record, borrowed from its batch (and from the decompressed values, if they were compressed).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Its offset in the partition.
    pub offset: u64,
    /// Its timestamp, UTC microseconds: the producer's, or the append time where the topic says so.
    pub timestamp_us: i64,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: Headers<'a>,
    /// Queue attributes.
    pub attributes: Attributes<'a>,
}

/// Goes through the records of a batch. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    index: Index<'a>,
    values: &'a [u8],
    /// `values_len` of the header when the given values have another size: reported first.
    mismatch: Option<u32>,
    compacted: bool,
    /// Compacted: between these is the next record's offset delta.
    lowest_delta: u32,
    last_offset_delta: u32,
    base_offset: u64,
    first_timestamp_us: i64,
    append_time_us: Option<i64>,
}

impl<'a> Records<'a> {
    #[cold]
    fn short_of(&self, declared: u32) -> BatchError {
        BatchError::BadValuesLength { declared: declared as u64, actual: self.values.len() as u64 }
    }

    /// Deltas of a compacted batch have gaps; any other batch comes here when one is not the record's number.
    #[cold]
    fn check_delta(&mut self, record: u32, delta: u16) -> Result<(), BatchError> {
        if !self.compacted || !(self.lowest_delta..=self.last_offset_delta).contains(&u32::from(delta)) {
            return Err(BatchError::BadOffsetDelta { record, delta });
        }
        self.lowest_delta = u32::from(delta) + 1;
        Ok(())
    }

    #[inline]
    fn slice(&mut self, entry: &IndexEntry<'a>) -> Result<RecordView<'a>, BatchError> {
        let record = self.index.record - 1;
        let delta = u32::from(entry.offset_delta);
        if delta != record || self.compacted {
            self.check_delta(record, entry.offset_delta)?;
        }
        let Some(value) = split_len(&mut self.values, entry.value_len as usize) else {
            return Err(self.short_of(entry.value_len));
        };
        let headers = if entry.flags & RECORD_HEADERS != 0 {
            let Some(bytes) = split_len(&mut self.values, entry.headers_len as usize) else {
                return Err(self.short_of(entry.headers_len));
            };
            Headers::check(bytes).ok_or(BatchError::BadHeaders { record })?
        } else {
            Headers::default()
        };
        if entry.is_tombstone() && entry.value_len != 0 {
            return Err(BatchError::BadTombstone { record });
        }
        if record + 1 == self.index.record_count && !self.values.is_empty() {
            return Err(BatchError::BadValuesLength { declared: 0, actual: self.values.len() as u64 });
        }
        Ok(RecordView {
            offset: self.base_offset + u64::from(delta), // fits: `BatchView::parse` looked at the last one
            timestamp_us: self.append_time_us.unwrap_or_else(|| self.first_timestamp_us.saturating_add(entry.time_delta_us as i64)),
            key: entry.key,
            value: (!entry.is_tombstone()).then_some(value),
            headers,
            attributes: entry.attributes,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordView<'a>, BatchError>;
    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if let Some(declared) = self.mismatch.take() {
            self.index = Index { rest: &[], record: 0, record_count: 0 };
            return Some(Err(BatchError::BadValuesLength { declared: declared as u64, actual: self.values.len() as u64 }));
        }
        let record = match self.index.next()? {
            Ok(entry) => self.slice(&entry),
            Err(error) => Err(error),
        };
        if record.is_err() {
            self.index = Index { rest: &[], record: 0, record_count: 0 };
        }
        Some(record)
    }
}

impl<'a> BatchView<'a> {
    /// Goes through the record index.
    pub fn index(&self) -> Index<'a> {
        Index { rest: self.index_bytes(), record: 0, record_count: self.record_count() }
    }

    /// Goes through the records. `values` are the uncompressed values: `stored_values()` for codec none, else what the
    /// caller decompressed to exactly `values_len()` bytes.
    pub fn records(&self, values: &'a [u8]) -> Records<'a> {
        Records {
            index: self.index(),
            values,
            mismatch: (values.len() != self.values_len() as usize).then_some(self.values_len()),
            compacted: self.is_compacted(),
            lowest_delta: 0,
            last_offset_delta: self.last_offset_delta(),
            base_offset: self.base_offset(),
            first_timestamp_us: self.first_timestamp_us(),
            append_time_us: (self.flags() & BATCH_APPEND_TIME != 0).then(|| self.append_time_us()),
        }
    }

    /// Walks the index and checks everything that can be checked without decompressing: flags, deltas, sizes, sums,
    /// timestamps, and for codec none the headers.
    pub fn validate_records(&self, limits: &Limits) -> Result<(), BatchError> {
        self.validate_records_and(limits, |_, _| Ok(()))
    }

    /// The same, and what else `attributes` wants to be true of a record, by its number in the batch, that has a delivery time, a priority or a time to
    /// live. Records without them cost nothing.
    pub fn validate_records_and(
        &self,
        limits: &Limits,
        mut attributes: impl FnMut(u32, &Attributes<'_>) -> Result<(), BatchError>,
    ) -> Result<(), BatchError> {
        if self.values_len() > limits.values_bytes_max {
            return Err(BatchError::ValuesTooLarge { bytes: self.values_len(), max: limits.values_bytes_max });
        }
        let compacted = self.is_compacted();
        let tombstones = self.flags() & BATCH_HAS_TOMBSTONES != 0;
        let plain_values = (self.codec() == Codec::None).then(|| self.stored_values());
        let record_count = self.record_count();
        let mut index = self.index_bytes();
        let newest_delta_us = self.newest_timestamp_us().checked_sub(self.first_timestamp_us()).and_then(|us| i32::try_from(us).ok());
        let plain = split_plain(&mut index, record_count, limits.record_bytes_max, newest_delta_us);
        let Plain { records: mut next_delta, mut values_len, mut first_delta_us, mut newest_delta_us } = plain;
        for record in plain.records..record_count {
            let entry = split_entry(&mut index, record)?;
            let delta = entry.offset_delta as u32;
            if delta != next_delta && (!compacted || delta < next_delta) {
                return Err(BatchError::BadOffsetDelta { record, delta: entry.offset_delta });
            }
            next_delta = delta + 1;
            if record == 0 {
                first_delta_us = entry.time_delta_us;
            }
            newest_delta_us = newest_delta_us.max(entry.time_delta_us);
            if entry.flags == 0 {
                if entry.value_len > limits.record_bytes_max {
                    return Err(too_large(record, "value bytes", entry.value_len as u64, limits.record_bytes_max));
                }
                values_len += entry.value_len as u64;
                continue;
            }
            check_sizes(&entry, record, limits)?;
            if entry.flags & (RECORD_DELIVER_AT | RECORD_PRIORITY | RECORD_TTL) != 0 {
                attributes(record, &entry.attributes)?;
            }
            if entry.is_tombstone() && (entry.value_len != 0 || !tombstones) {
                return Err(BatchError::BadTombstone { record });
            }
            let headers_at = values_len + entry.value_len as u64;
            values_len = headers_at + entry.headers_len as u64;
            if entry.flags & RECORD_HEADERS != 0
                && let Some(values) = plain_values
            {
                let bytes = values.get(headers_at as usize..values_len as usize);
                let headers = bytes.and_then(Headers::check).ok_or(BatchError::BadHeaders { record })?;
                if headers.left as u32 > limits.headers_max {
                    return Err(too_large(record, "number of headers", headers.left as u64, limits.headers_max));
                }
            }
        }
        if !index.is_empty() {
            return Err(BatchError::IndexTrailing { bytes: index.len() });
        }
        if next_delta != self.last_offset_delta() + 1 {
            return Err(BatchError::BadLastOffsetDelta { last_offset_delta: self.last_offset_delta(), record_count });
        }
        if values_len != self.values_len() as u64 {
            return Err(BatchError::BadValuesLength { declared: values_len, actual: self.values_len() as u64 });
        }
        let (first_us, newest_us) = (self.first_timestamp_us(), self.newest_timestamp_us());
        // The lowest delta may not leave the range of i64 either: timestamps are added without a check later.
        let in_range = first_us.checked_add(i32::MIN as i64).is_some();
        if first_us.checked_add(newest_delta_us as i64) != Some(newest_us) || !in_range || !compacted && first_delta_us != 0 {
            return Err(BatchError::BadTimestamps { first_us, newest_us });
        }
        Ok(())
    }
}

fn too_large(record: u32, what: &'static str, size: u64, max: u32) -> BatchError {
    BatchError::RecordTooLarge { record, what, size, max }
}

/// Compares the sizes of an entry with optional fields with the limits.
#[inline]
fn check_sizes(entry: &IndexEntry<'_>, record: u32, limits: &Limits) -> Result<(), BatchError> {
    let len = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len) as u64;
    let check = |what, size, max| if size > max as u64 { Err(too_large(record, what, size, max)) } else { Ok(()) };
    check("record bytes", entry.record_bytes(), limits.record_bytes_max)?;
    check("key bytes", len(entry.key), limits.key_bytes_max)?;
    check("headers bytes", entry.headers_len as u64, limits.headers_bytes_max)?;
    check("message group bytes", len(entry.attributes.group), limits.id_bytes_max)?;
    check("message id bytes", len(entry.attributes.message_id), limits.id_bytes_max)
}
