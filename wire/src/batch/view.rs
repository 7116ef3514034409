//! A batch's header: reading it, checksums, the leader's stamp, and walking concatenated batches.
//!
//! Invariants: a `BatchView` is exactly one batch long; its lengths, codec, flags and counts fit together, and its offsets into
//! a u64. Checksums and records are checked only when asked for.
//! Not here: the record index (`record.rs`).

use super::build::ProducerMark;
use super::error::BatchError;
use super::layout::*;
use super::record::Attributes;
use crate::codec::Codec;
use std::fmt;

/// One batch, borrowed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BatchView<'a> {
    bytes: &'a [u8],
}

macro_rules! accessors {
    ($($(#[$doc:meta])* $name:ident: $type:ident at $at:ident;)*) => {$(
        $(#[$doc])*
        #[inline]
        pub fn $name(&self) -> $type {
            $type::from_le_bytes(self.array::<{ std::mem::size_of::<$type>() }>($at))
        }
    )*};
}

impl<'a> BatchView<'a> {
    /// Looks at the batch at the start of `bytes`, which may go on after it. Cheap: reads the header only.
    pub fn parse(bytes: &'a [u8]) -> Result<BatchView<'a>, BatchError> {
        if bytes.len() < BATCH_HEADER_BYTES {
            return Err(BatchError::Short { needed: BATCH_HEADER_BYTES as u64, actual: bytes.len() });
        }
        let view = BatchView { bytes };
        if view.array::<4>(0) != BATCH_MAGIC {
            return Err(BatchError::BadMagic(view.array(0)));
        }
        if bytes[AT_VERSION] != BATCH_VERSION {
            return Err(BatchError::UnknownVersion(bytes[AT_VERSION]));
        }
        let Some(codec) = Codec::from_u8(bytes[AT_CODEC]) else {
            return Err(BatchError::UnknownCodec(bytes[AT_CODEC]));
        };
        if bytes[AT_CHECKSUM_KIND] != CHECKSUM_CRC32C {
            return Err(BatchError::UnknownChecksumKind(bytes[AT_CHECKSUM_KIND]));
        }
        if view.flags() & !BATCH_FLAGS_KNOWN != 0 {
            return Err(BatchError::UnknownFlags(view.flags()));
        }
        if bytes[AT_RESERVED_7] != 0 {
            return Err(BatchError::ReservedNotZero(AT_RESERVED_7));
        }
        if view.array::<2>(AT_RESERVED_58) != [0; 2] {
            return Err(BatchError::ReservedNotZero(AT_RESERVED_58));
        }
        if view.array::<4>(AT_RESERVED_68) != [0; 4] {
            return Err(BatchError::ReservedNotZero(AT_RESERVED_68));
        }
        if view.array::<4>(AT_RESERVED_108) != [0; 4] {
            return Err(BatchError::ReservedNotZero(AT_RESERVED_108));
        }
        let record_count = view.record_count();
        if record_count == 0 || record_count > RECORDS_MAX {
            return Err(BatchError::BadRecordCount(record_count));
        }
        let last_offset_delta = view.last_offset_delta();
        let delta_fits = if view.is_compacted() {
            record_count - 1 <= last_offset_delta && last_offset_delta < RECORDS_MAX
        } else {
            record_count - 1 == last_offset_delta
        };
        if !delta_fits {
            return Err(BatchError::BadLastOffsetDelta { last_offset_delta, record_count });
        }
        // The offset after the last record has to exist, too: positions are counted on from it.
        if view.base_offset() > u64::MAX - (u64::from(last_offset_delta) + 1) {
            return Err(BatchError::BadBaseOffset { base_offset: view.base_offset() });
        }
        let (body_len, index_len, values_len) = (view.body_len(), view.index_len(), view.values_len());
        let index_fits = index_len <= body_len && index_len as u64 >= record_count as u64 * INDEX_ENTRY_BYTES as u64;
        let values_fit = codec != Codec::None || index_fits && body_len - index_len == values_len;
        if !index_fits || !values_fit {
            return Err(BatchError::BadLengths { body_len, index_len, values_len });
        }
        let needed = BATCH_HEADER_BYTES as u64 + body_len as u64;
        if (bytes.len() as u64) < needed {
            return Err(BatchError::Short { needed, actual: bytes.len() });
        }
        Ok(BatchView { bytes: &bytes[..needed as usize] })
    }

    /// As [`BatchView::parse`], and refuses bytes after the batch.
    pub fn parse_exact(bytes: &'a [u8]) -> Result<BatchView<'a>, BatchError> {
        let view = BatchView::parse(bytes)?;
        if view.bytes.len() != bytes.len() {
            return Err(BatchError::Trailing { bytes: bytes.len() - view.bytes.len() });
        }
        Ok(view)
    }

    /// Bytes of the whole batch whose header starts `head`, if at least its first 24 bytes are there; unchecked.
    pub fn declared_len(head: &[u8]) -> Option<u64> {
        let len = head.get(AT_BODY_LEN..AT_BODY_LEN + 4)?;
        Some(BATCH_HEADER_BYTES as u64 + u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as u64)
    }

    #[inline]
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        // At least a whole header is there (checked by `parse` before the first call), and positions are constants.
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes[at..at + N]);
        array
    }

    accessors! {
        /// `BATCH_*` flags.
        flags: u16 at AT_FLAGS;
        /// Key that the values are encrypted with; 0 for none.
        encryption_key_id: u16 at AT_ENCRYPTION_KEY;
        /// Number of records.
        record_count: u32 at AT_RECORD_COUNT;
        /// Offset of the last record minus the base offset (in a compacted batch: of the last one there was or is).
        last_offset_delta: u32 at AT_LAST_OFFSET_DELTA;
        /// Bytes of index and stored values.
        body_len: u32 at AT_BODY_LEN;
        /// Bytes of the record index.
        index_len: u32 at AT_INDEX_LEN;
        /// Bytes of the values section when uncompressed.
        values_len: u32 at AT_VALUES_LEN;
        /// Base of the records' time deltas, UTC microseconds.
        first_timestamp_us: i64 at AT_FIRST_TIMESTAMP;
        /// Highest timestamp of a record, UTC microseconds.
        newest_timestamp_us: i64 at AT_NEWEST_TIMESTAMP;
        /// Identity of an idempotent producer; 0 for none.
        producer_id: u64 at AT_PRODUCER_ID;
        /// Its epoch.
        producer_epoch: u16 at AT_PRODUCER_EPOCH;
        /// Its sequence number of the batch's first record.
        sequence: u32 at AT_SEQUENCE;
        /// Checksum over the producer's region and the body.
        body_crc: u32 at AT_BODY_CRC;
        /// The partition; 0 until stamped.
        partition_uid: u64 at AT_PARTITION_UID;
        /// Offset of the first record.
        base_offset: u64 at AT_BASE_OFFSET;
        /// Term of the leader that stamped it.
        term: u64 at AT_TERM;
        /// When the leader appended it, UTC microseconds.
        append_time_us: i64 at AT_APPEND_TIME;
        /// Checksum over the header.
        header_crc: u32 at AT_HEADER_CRC;
    }

    /// The batch's bytes.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
    /// Bytes of the batch, header included. Never 0.
    #[allow(clippy::len_without_is_empty)]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }
    /// Compression of the values.
    pub fn codec(&self) -> Codec {
        // `parse` refused unknown numbers.
        Codec::from_u8(self.bytes[AT_CODEC]).unwrap_or_default()
    }
    /// Whether offset deltas have gaps.
    pub fn is_compacted(&self) -> bool {
        self.flags() & BATCH_COMPACTED != 0
    }
    /// Whether this is the broker's, not to be delivered.
    pub fn is_control(&self) -> bool {
        self.flags() & BATCH_CONTROL != 0
    }
    /// Offset of the last record.
    pub fn last_offset(&self) -> u64 {
        self.base_offset() + u64::from(self.last_offset_delta())
    }
    /// Offset after the last record.
    pub fn next_offset(&self) -> u64 {
        self.last_offset() + 1
    }
    /// The timestamp that retention and lookups by time count with.
    pub fn effective_newest_us(&self) -> i64 {
        if self.flags() & BATCH_APPEND_TIME != 0 { self.append_time_us() } else { self.newest_timestamp_us() }
    }
    /// Index and stored values.
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[BATCH_HEADER_BYTES..]
    }
    /// The record index.
    pub fn index_bytes(&self) -> &'a [u8] {
        &self.body()[..self.index_len() as usize]
    }
    /// The values section as stored: decompress it to `values_len()` bytes unless the codec is none.
    pub fn stored_values(&self) -> &'a [u8] {
        &self.body()[self.index_len() as usize..]
    }

    /// The mark of an idempotent producer; its id is 0 where there is none.
    pub fn producer(&self) -> ProducerMark {
        ProducerMark { id: self.producer_id(), epoch: self.producer_epoch(), sequence: self.sequence() }
    }

    /// Checks the body checksum: that these are the bytes the producer made.
    pub fn verify_body(&self) -> Result<(), BatchError> {
        let computed = body_crc(self.bytes);
        if computed == self.body_crc() { Ok(()) } else { Err(BatchError::BodyChecksum { stored: self.body_crc(), computed }) }
    }

    /// Checks the header checksum: that these are the regions the leader stamped.
    pub fn verify_header(&self) -> Result<(), BatchError> {
        let computed = crc32c::crc32c(&self.bytes[..AT_HEADER_CRC]);
        if computed == self.header_crc() { Ok(()) } else { Err(BatchError::HeaderChecksum { stored: self.header_crc(), computed }) }
    }

    /// Checks what only a batch on its way from a producer has to be: no leader's region, no flags of the broker.
    pub fn check_from_producer(&self) -> Result<(), BatchError> {
        // As one: byte by byte it takes a hundred instructions.
        if self.array::<{ BATCH_HEADER_BYTES - AT_RESERVED_68 }>(AT_RESERVED_68) != [0; BATCH_HEADER_BYTES - AT_RESERVED_68] {
            return Err(BatchError::LeaderRegionNotZero);
        }
        if self.flags() & !BATCH_FLAGS_PRODUCER != 0 {
            return Err(BatchError::NotForProducers(self.flags() & !BATCH_FLAGS_PRODUCER));
        }
        Ok(())
    }
}

impl fmt::Debug for BatchView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchView")
            .field("partition_uid", &self.partition_uid())
            .field("base_offset", &self.base_offset())
            .field("term", &self.term())
            .field("record_count", &self.record_count())
            .field("last_offset_delta", &self.last_offset_delta())
            .field("flags", &self.flags())
            .field("codec", &self.codec())
            .field("body_len", &self.body_len())
            .field("index_len", &self.index_len())
            .field("values_len", &self.values_len())
            .field("newest_timestamp_us", &self.newest_timestamp_us())
            .field("append_time_us", &self.append_time_us())
            .finish()
    }
}

pub(super) fn body_crc(batch: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&batch[..AT_BODY_CRC]), &batch[BATCH_HEADER_BYTES..])
}

/// Everything a broker checks of a batch that a producer sent: exact length, limits, producer's flags, checksum, records.
pub fn validate<'a>(bytes: &'a [u8], limits: &Limits) -> Result<BatchView<'a>, BatchError> {
    validate_and(bytes, limits, |_, _| Ok(()))
}

/// The same, and what [`BatchView::validate_records_and`] has to be told.
pub fn validate_and<'a>(
    bytes: &'a [u8],
    limits: &Limits,
    attributes: impl FnMut(u32, &Attributes<'_>) -> Result<(), BatchError>,
) -> Result<BatchView<'a>, BatchError> {
    if bytes.len() as u64 > limits.batch_bytes_max as u64 {
        return Err(BatchError::BatchTooLarge { bytes: bytes.len() as u64, max: limits.batch_bytes_max });
    }
    let view = BatchView::parse_exact(bytes)?;
    view.check_from_producer()?;
    view.verify_body()?;
    view.validate_records_and(limits, attributes)?;
    Ok(view)
}

/// What the leader writes into a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeaderStamp {
    /// The partition.
    pub partition_uid: u64,
    /// Offset of the first record.
    pub base_offset: u64,
    /// The leader's term.
    pub term: u64,
    /// Now, UTC microseconds.
    pub append_time_us: i64,
}

/// Writes the leader's region and its checksum. `batch` may go on after the header. Panics below a header's size.
#[inline]
pub fn stamp_leader(batch: &mut [u8], stamp: &LeaderStamp) {
    assert!(batch.len() >= BATCH_HEADER_BYTES, "{} bytes are no batch", batch.len());
    batch[AT_RESERVED_68..AT_PARTITION_UID].fill(0);
    batch[AT_PARTITION_UID..AT_BASE_OFFSET].copy_from_slice(&stamp.partition_uid.to_le_bytes());
    batch[AT_BASE_OFFSET..AT_TERM].copy_from_slice(&stamp.base_offset.to_le_bytes());
    batch[AT_TERM..AT_APPEND_TIME].copy_from_slice(&stamp.term.to_le_bytes());
    batch[AT_APPEND_TIME..AT_HEADER_CRC].copy_from_slice(&stamp.append_time_us.to_le_bytes());
    let crc = crc32c::crc32c(&batch[..AT_HEADER_CRC]);
    batch[AT_HEADER_CRC..AT_RESERVED_108].copy_from_slice(&crc.to_le_bytes());
    batch[AT_RESERVED_108..BATCH_HEADER_BYTES].fill(0);
}

/// Sets the append-time flag of one whole, checked batch and mends the body checksum without reading the body again.
/// For topics whose append time counts; call it before [`stamp_leader`].
pub fn mark_append_time(batch: &mut [u8]) {
    assert!(batch.len() >= BATCH_HEADER_BYTES, "{} bytes are no batch", batch.len());
    let flags = u16::from_le_bytes([batch[AT_FLAGS], batch[AT_FLAGS + 1]]) | BATCH_APPEND_TIME;
    let before = crc32c::crc32c(&batch[..AT_BODY_CRC]);
    batch[AT_FLAGS..AT_FLAGS + 2].copy_from_slice(&flags.to_le_bytes());
    let after = crc32c::crc32c(&batch[..AT_BODY_CRC]);
    // crc(region ++ body) = shift(crc(region), body) ^ crc(body), so the change of the first part shifts through.
    let stored = u32::from_le_bytes([batch[AT_BODY_CRC], batch[AT_BODY_CRC + 1], batch[AT_BODY_CRC + 2], batch[AT_BODY_CRC + 3]]);
    let mended = crc32c::crc32c_combine(before ^ after, stored, batch.len() - BATCH_HEADER_BYTES);
    batch[AT_BODY_CRC..AT_RESERVED_68].copy_from_slice(&mended.to_le_bytes());
}

/// Goes through concatenated batches, e.g. an entry's share of a fetch reply. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Batches<'a> {
    rest: &'a [u8],
}

impl<'a> Batches<'a> {
    /// Starts at the first byte.
    pub const fn new(bytes: &'a [u8]) -> Batches<'a> {
        Batches { rest: bytes }
    }
    /// What was not gone through yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<BatchView<'a>, BatchError>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let parsed = BatchView::parse(self.rest);
        self.rest = match &parsed {
            Ok(view) => &self.rest[view.len()..],
            Err(_) => &[],
        };
        Some(parsed)
    }
}
