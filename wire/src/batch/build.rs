//! Building a batch from records.
//!
//! Invariants: a record that is pushed is either in the batch whole or refused with the batch unchanged; what
//! `finish` writes passes `validate` with the same limits. The builder keeps its buffers: after the first batches of a
//! size, a push allocates nothing.
//! Not here: compression (a closure does it), deciding when a batch is finished.

use super::layout::*;
use super::record::Attributes;
use super::view::body_crc;
use crate::codec::Codec;
use std::convert::Infallible;
use std::fmt;

/// A record to push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NewRecord<'a> {
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers: name and value.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// UTC microseconds.
    pub timestamp_us: i64,
    /// Queue attributes.
    pub attributes: Attributes<'a>,
}

/// An idempotent producer's mark on a batch; all zero for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProducerMark {
    /// Identity; 0 for none.
    pub id: u64,
    /// Epoch.
    pub epoch: u16,
    /// Sequence number of the batch's first record.
    pub sequence: u32,
}

/// Why a record was not pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushRefused {
    /// It does not fit into this batch (records, bytes, or more than 35 minutes from the first record): finish the
    /// batch, then push it again.
    Full,
    /// It fits into no batch.
    TooLarge {
        /// Which limit.
        what: &'static str,
        /// Its size (or count).
        size: u64,
        /// Accepted size (or count).
        max: u32,
    },
    /// Its timestamp is so far from this epoch that it cannot be encoded.
    BadTimestamp {
        /// The timestamp.
        timestamp_us: i64,
    },
}

impl fmt::Display for PushRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PushRefused::Full => write!(f, "the record does not fit into this batch: finish it and push again"),
            PushRefused::TooLarge { what, size, max } => write!(f, "the record is too large: {what} of {size}, at most {max} accepted"),
            PushRefused::BadTimestamp { timestamp_us } => write!(f, "timestamp {timestamp_us} us cannot be encoded"),
        }
    }
}

impl std::error::Error for PushRefused {}

/// Collects records into a batch; reusable.
#[derive(Debug, Clone, Default)]
pub struct BatchBuilder {
    limits: Limits,
    index: Vec<u8>,
    values: Vec<u8>,
    record_count: u32,
    flags: u16,
    first_timestamp_us: i64,
    newest_timestamp_us: i64,
}

impl BatchBuilder {
    /// An empty builder.
    pub fn new(limits: Limits) -> BatchBuilder {
        BatchBuilder { limits, ..BatchBuilder::default() }
    }
    /// Records so far.
    pub const fn record_count(&self) -> u32 {
        self.record_count
    }
    /// Whether there is no record.
    pub const fn is_empty(&self) -> bool {
        self.record_count == 0
    }
    /// Size of the batch if it were finished now, uncompressed.
    pub const fn batch_bytes(&self) -> usize {
        BATCH_HEADER_BYTES + self.index.len() + self.values.len()
    }
    /// Timestamp of the first record.
    pub const fn first_timestamp_us(&self) -> i64 {
        self.first_timestamp_us
    }
    /// Drops all records, keeps the memory.
    pub fn clear(&mut self) {
        self.index.clear();
        self.values.clear();
        self.record_count = 0;
        self.flags = 0;
    }

    /// Adds a record; returns its number in the batch.
    pub fn push(&mut self, record: &NewRecord<'_>) -> Result<u32, PushRefused> {
        let sizes = Sizes::of(record);
        sizes.check(record, &self.limits)?;
        let time_delta_us = if self.is_empty() {
            // The same bound as in `validate_records`.
            if record.timestamp_us.checked_add(i32::MIN as i64).is_none() || record.timestamp_us.checked_add(i32::MAX as i64).is_none() {
                return Err(PushRefused::BadTimestamp { timestamp_us: record.timestamp_us });
            }
            0
        } else {
            let delta = record.timestamp_us.checked_sub(self.first_timestamp_us);
            delta.and_then(|delta| i32::try_from(delta).ok()).ok_or(PushRefused::Full)?
        };
        let values_len = (self.values.len() + sizes.value + sizes.headers) as u64;
        let batch_bytes = (self.batch_bytes() + sizes.entry() + sizes.value + sizes.headers) as u64;
        if batch_bytes > self.limits.batch_bytes_max as u64
            || values_len > self.limits.values_bytes_max as u64
            || self.record_count == RECORDS_MAX
        {
            return Err(if self.is_empty() { alone_too_large(batch_bytes, values_len, &self.limits) } else { PushRefused::Full });
        }
        if self.is_empty() {
            self.first_timestamp_us = record.timestamp_us;
            self.newest_timestamp_us = record.timestamp_us;
        } else {
            self.newest_timestamp_us = self.newest_timestamp_us.max(record.timestamp_us);
        }
        self.write_entry(record, &sizes, time_delta_us);
        self.write_values(record);
        let number = self.record_count;
        self.record_count += 1;
        Ok(number)
    }

    fn write_entry(&mut self, record: &NewRecord<'_>, sizes: &Sizes, time_delta_us: i32) {
        let mut fixed = [0; INDEX_ENTRY_BYTES];
        fixed[0..2].copy_from_slice(&sizes.flags.to_le_bytes());
        fixed[2..4].copy_from_slice(&(self.record_count as u16).to_le_bytes());
        fixed[4..8].copy_from_slice(&time_delta_us.to_le_bytes());
        fixed[8..12].copy_from_slice(&(sizes.value as u32).to_le_bytes());
        self.index.extend_from_slice(&fixed);
        if sizes.flags == 0 {
            return;
        }
        if let Some(key) = record.key {
            put_short(&mut self.index, key);
        }
        if sizes.headers != 0 {
            self.index.extend_from_slice(&(sizes.headers as u32).to_le_bytes());
        }
        if record.value.is_none() {
            self.flags |= BATCH_HAS_TOMBSTONES;
        }
        let attributes = &record.attributes;
        if let Some(deliver_at_us) = attributes.deliver_at_us {
            self.index.extend_from_slice(&deliver_at_us.to_le_bytes());
        }
        if let Some(priority) = attributes.priority {
            self.index.push(priority);
        }
        if let Some(ttl_ms) = attributes.ttl_ms {
            self.index.extend_from_slice(&ttl_ms.to_le_bytes());
        }
        if let Some(group) = attributes.group {
            put_short(&mut self.index, group);
        }
        if let Some(message_id) = attributes.message_id {
            put_short(&mut self.index, message_id);
        }
    }

    fn write_values(&mut self, record: &NewRecord<'_>) {
        if let Some(value) = record.value {
            self.values.extend_from_slice(value);
        }
        if !record.headers.is_empty() {
            self.values.extend_from_slice(&(record.headers.len() as u16).to_le_bytes());
            for (name, value) in record.headers {
                put_short(&mut self.values, name.as_bytes());
                self.values.extend_from_slice(&(value.len() as u32).to_le_bytes());
                self.values.extend_from_slice(value);
            }
        }
    }

    /// Appends the batch to `out` uncompressed, empties the builder, and returns the batch's size. Panics without records.
    pub fn finish_plain(&mut self, out: &mut Vec<u8>, producer: ProducerMark) -> usize {
        let never = |_: &[u8], _: &mut Vec<u8>| Ok::<(), Infallible>(());
        match self.finish(out, producer, Codec::None, never) {
            Ok(len) => len,
            Err(never) => match never {},
        }
    }

    /// Appends the batch to `out`, empties the builder, and returns the batch's size. `compress` is called with the values
    /// and appends the compressed bytes; where they are not smaller, and for `Codec::None`, the values are stored as they
    /// are. After an error `out` and the builder are as before. Panics without records.
    pub fn finish<E>(
        &mut self,
        out: &mut Vec<u8>,
        producer: ProducerMark,
        codec: Codec,
        compress: impl FnOnce(&[u8], &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let start = out.len();
        let len = self.finish_unmarked(out, codec, compress)?;
        mark_producer(&mut out[start..], producer);
        Ok(len)
    }

    /// As [`BatchBuilder::finish`], but for the producer's mark and the body's checksum, which covers it: the batch is none before [`mark_producer`]
    /// has put them in. For who gives a batch its sequence number when it is sent, not when it is full.
    pub fn finish_unmarked<E>(
        &mut self,
        out: &mut Vec<u8>,
        codec: Codec,
        compress: impl FnOnce(&[u8], &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<usize, E> {
        assert!(!self.is_empty(), "a batch has at least one record");
        let start = out.len();
        out.reserve(self.batch_bytes());
        out.extend_from_slice(&[0; BATCH_HEADER_BYTES]);
        out.extend_from_slice(&self.index);
        let values_at = out.len();
        let mut stored = Codec::None;
        if codec != Codec::None && !self.values.is_empty() {
            if let Err(error) = compress(&self.values, out) {
                out.truncate(start);
                return Err(error);
            }
            assert!(out.len() >= values_at, "the compressor may only append");
            if out.len() - values_at < self.values.len() {
                stored = codec;
            } else {
                out.truncate(values_at);
            }
        }
        if stored == Codec::None {
            out.extend_from_slice(&self.values);
        }
        self.write_header(&mut out[start..], stored);
        self.clear();
        Ok(out.len() - start)
    }

    fn write_header(&self, batch: &mut [u8], codec: Codec) {
        let body_len = batch.len() - BATCH_HEADER_BYTES;
        let mut put = |at: usize, bytes: &[u8]| batch[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &BATCH_MAGIC);
        put(AT_VERSION, &[BATCH_VERSION, codec.as_u8(), CHECKSUM_CRC32C]);
        put(AT_FLAGS, &self.flags.to_le_bytes());
        put(AT_RECORD_COUNT, &self.record_count.to_le_bytes());
        put(AT_LAST_OFFSET_DELTA, &(self.record_count - 1).to_le_bytes());
        put(AT_BODY_LEN, &(body_len as u32).to_le_bytes());
        put(AT_INDEX_LEN, &(self.index.len() as u32).to_le_bytes());
        put(AT_VALUES_LEN, &(self.values.len() as u32).to_le_bytes());
        put(AT_FIRST_TIMESTAMP, &self.first_timestamp_us.to_le_bytes());
        put(AT_NEWEST_TIMESTAMP, &self.newest_timestamp_us.to_le_bytes());
    }
}

/// Writes the producer's mark into a batch that a [`BatchBuilder`] made, in the place of the one it has, and the checksum that covers it and the body
/// (which is why this takes as long as the body is large). Panics when `batch` is shorter than a header.
pub fn mark_producer(batch: &mut [u8], producer: ProducerMark) {
    batch[AT_PRODUCER_ID..AT_PRODUCER_EPOCH].copy_from_slice(&producer.id.to_le_bytes());
    batch[AT_PRODUCER_EPOCH..AT_RESERVED_58].copy_from_slice(&producer.epoch.to_le_bytes());
    batch[AT_SEQUENCE..AT_BODY_CRC].copy_from_slice(&producer.sequence.to_le_bytes());
    let crc = body_crc(batch);
    batch[AT_BODY_CRC..AT_RESERVED_68].copy_from_slice(&crc.to_le_bytes());
}

/// What a record will take.
struct Sizes {
    flags: u16,
    key: usize,
    value: usize,
    headers: usize,
    group: usize,
    message_id: usize,
}

impl Sizes {
    fn of(record: &NewRecord<'_>) -> Sizes {
        let attributes = &record.attributes;
        let bit = |on: bool, flag: u16| if on { flag } else { 0 };
        let len = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let headers = match record.headers {
            [] => 0,
            headers => 2 + headers.iter().map(|(name, value)| 6 + name.len() + value.len()).sum::<usize>(),
        };
        Sizes {
            flags: bit(record.key.is_some(), RECORD_KEY)
                | bit(headers != 0, RECORD_HEADERS)
                | bit(record.value.is_none(), RECORD_NULL)
                | bit(attributes.deliver_at_us.is_some(), RECORD_DELIVER_AT)
                | bit(attributes.priority.is_some(), RECORD_PRIORITY)
                | bit(attributes.ttl_ms.is_some(), RECORD_TTL)
                | bit(attributes.group.is_some(), RECORD_GROUP)
                | bit(attributes.message_id.is_some(), RECORD_MESSAGE_ID),
            key: len(record.key),
            value: len(record.value),
            headers,
            group: len(attributes.group),
            message_id: len(attributes.message_id),
        }
    }

    /// Bytes of the index entry.
    fn entry(&self) -> usize {
        let size = |flag: u16, bytes: usize| if self.flags & flag != 0 { bytes } else { 0 };
        INDEX_ENTRY_BYTES
            + size(RECORD_KEY, 2 + self.key)
            + size(RECORD_HEADERS, 4)
            + size(RECORD_DELIVER_AT, 8)
            + size(RECORD_PRIORITY, 1)
            + size(RECORD_TTL, 4)
            + size(RECORD_GROUP, 2 + self.group)
            + size(RECORD_MESSAGE_ID, 2 + self.message_id)
    }

    fn check(&self, record: &NewRecord<'_>, limits: &Limits) -> Result<(), PushRefused> {
        let total = self.key + self.value + self.headers + self.group + self.message_id;
        let name = record.headers.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        // The layout's own widths (u16 lengths and count) hold whatever the limits say.
        let short = u16::MAX as u32;
        let checks = [
            ("record bytes", total, limits.record_bytes_max),
            ("key bytes", self.key, limits.key_bytes_max.min(short)),
            ("number of headers", record.headers.len(), limits.headers_max.min(short)),
            ("headers bytes", self.headers, limits.headers_bytes_max),
            ("header name bytes", name, short),
            ("message group bytes", self.group, limits.id_bytes_max.min(short)),
            ("message id bytes", self.message_id, limits.id_bytes_max.min(short)),
        ];
        for (what, size, max) in checks {
            if size as u64 > max as u64 {
                return Err(PushRefused::TooLarge { what, size: size as u64, max });
            }
        }
        Ok(())
    }
}

/// Which limit a record is above that fits into no batch although it is within those of a record.
#[cold]
fn alone_too_large(batch_bytes: u64, values_len: u64, limits: &Limits) -> PushRefused {
    if batch_bytes > u64::from(limits.batch_bytes_max) {
        return PushRefused::TooLarge { what: "batch bytes", size: batch_bytes, max: limits.batch_bytes_max };
    }
    PushRefused::TooLarge { what: "values bytes of a batch", size: values_len, max: limits.values_bytes_max }
}

fn put_short(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
    to.extend_from_slice(bytes);
}
