//! Why a batch is refused.
//!
//! Not here: the map of other errors to codes.

use crate::error::ErrorCode;
use std::fmt;

/// Why bytes are not an acceptable batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchError {
    /// Fewer bytes than the header declares (or than a header has).
    Short {
        /// Bytes that are needed.
        needed: u64,
        /// Bytes that are there.
        actual: usize,
    },
    /// Bytes follow the batch.
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// Not a batch.
    BadMagic([u8; 4]),
    /// A layout version nobody knows.
    UnknownVersion(u8),
    /// A codec nobody knows.
    UnknownCodec(u8),
    /// A checksum kind nobody knows.
    UnknownChecksumKind(u8),
    /// Batch flags nobody knows.
    UnknownFlags(u16),
    /// Batch flags that are not a producer's to set.
    NotForProducers(u16),
    /// A reserved field, at this position, is not zero.
    ReservedNotZero(usize),
    /// The leader's region of a producer's batch is not zero.
    LeaderRegionNotZero,
    /// No record, or more than the layout can hold.
    BadRecordCount(u32),
    /// The last offset delta does not fit the record count.
    BadLastOffsetDelta {
        /// The header's value.
        last_offset_delta: u32,
        /// The header's record count.
        record_count: u32,
    },
    /// The base offset is so high that the records' offsets do not exist.
    BadBaseOffset {
        /// The header's value.
        base_offset: u64,
    },
    /// index_len, values_len and body_len do not fit together.
    BadLengths {
        /// The header's value.
        body_len: u32,
        /// The header's value.
        index_len: u32,
        /// The header's value.
        values_len: u32,
    },
    /// The batch is above the limit.
    BatchTooLarge {
        /// Its bytes.
        bytes: u64,
        /// Accepted bytes.
        max: u32,
    },
    /// The declared uncompressed size is above the limit.
    ValuesTooLarge {
        /// Declared bytes.
        bytes: u32,
        /// Accepted bytes.
        max: u32,
    },
    /// The body checksum is wrong.
    BodyChecksum {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// The header checksum is wrong.
    HeaderChecksum {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// The index ends inside a record's entry.
    IndexShort {
        /// Number of the record in the batch.
        record: u32,
    },
    /// Bytes follow the last entry of the index.
    IndexTrailing {
        /// How many.
        bytes: usize,
    },
    /// Record flags nobody knows.
    UnknownRecordFlags {
        /// Number of the record in the batch.
        record: u32,
        /// Its flags.
        flags: u16,
    },
    /// An offset delta is not the expected one, or does not grow.
    BadOffsetDelta {
        /// Number of the record in the batch.
        record: u32,
        /// Its delta.
        delta: u16,
    },
    /// A null value has a length, or the batch's has-tombstones flag is missing.
    BadTombstone {
        /// Number of the record in the batch.
        record: u32,
    },
    /// The timestamps of the header are not those of the records.
    BadTimestamps {
        /// The header's value.
        first_us: i64,
        /// The header's value.
        newest_us: i64,
    },
    /// A record is above a limit.
    RecordTooLarge {
        /// Number of the record in the batch.
        record: u32,
        /// Which limit.
        what: &'static str,
        /// Its size (or count).
        size: u64,
        /// Accepted size (or count).
        max: u32,
    },
    /// The sizes in the index do not add up to the values section.
    BadValuesLength {
        /// Sum of the sizes in the index.
        declared: u64,
        /// Bytes of the values section, uncompressed.
        actual: u64,
    },
    /// The headers of a record are not laid out as specified.
    BadHeaders {
        /// Number of the record in the batch.
        record: u32,
    },
    /// An attribute for queues is out of range.
    AttributeOutOfRange {
        /// Number of the record in the batch.
        record: u32,
        /// Which.
        what: &'static str,
        /// Its value.
        value: i64,
        /// The lowest that is accepted.
        min: i64,
        /// The highest that is accepted.
        max: i64,
    },
}

impl BatchError {
    /// The code to refuse a produce entry with.
    pub const fn code(&self) -> ErrorCode {
        match self {
            BatchError::UnknownCodec(_) => ErrorCode::UnknownCodec,
            BatchError::UnknownVersion(_) => ErrorCode::UnsupportedVersion,
            BatchError::UnknownFlags(_) | BatchError::NotForProducers(_) | BatchError::UnknownRecordFlags { .. } => ErrorCode::UnknownFlag,
            BatchError::BatchTooLarge { .. } | BatchError::ValuesTooLarge { .. } => ErrorCode::BatchTooLarge,
            BatchError::BodyChecksum { .. } | BatchError::HeaderChecksum { .. } => ErrorCode::ChecksumMismatch,
            BatchError::RecordTooLarge { .. } => ErrorCode::RecordTooLarge,
            BatchError::AttributeOutOfRange { .. } => ErrorCode::InvalidAttribute,
            _ => ErrorCode::BadBatch,
        }
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BatchError::Short { needed, actual } => write!(f, "the batch needs {needed} bytes, {actual} are there"),
            BatchError::Trailing { bytes } => write!(f, "{bytes} bytes follow the batch"),
            BatchError::BadMagic(found) => write!(f, "not a batch: it starts with {found:02x?}"),
            BatchError::UnknownVersion(version) => write!(f, "unknown batch layout version {version}"),
            BatchError::UnknownCodec(codec) => write!(f, "unknown codec {codec}: use none, lz4, zstd or snappy"),
            BatchError::UnknownChecksumKind(kind) => write!(f, "unknown checksum kind {kind}: use 1 (crc32c)"),
            BatchError::UnknownFlags(flags) => write!(f, "unknown batch flags {flags:#06x}"),
            BatchError::NotForProducers(flags) => write!(f, "batch flags {flags:#06x} are not a producer's to set"),
            BatchError::ReservedNotZero(at) => write!(f, "the reserved field at byte {at} of the batch header is not zero"),
            BatchError::LeaderRegionNotZero => {
                write!(f, "the leader's region of a batch (bytes 68 to 111) has to be zero when it is produced")
            }
            BatchError::BadRecordCount(count) => write!(f, "a batch has 1 to {} records, not {count}", super::RECORDS_MAX),
            BatchError::BadLastOffsetDelta { last_offset_delta, record_count } => {
                write!(f, "last offset delta {last_offset_delta} does not fit {record_count} records")
            }
            BatchError::BadBaseOffset { base_offset } => {
                write!(f, "the base offset {base_offset} leaves no offsets for the records")
            }
            BatchError::BadLengths { body_len, index_len, values_len } => {
                write!(f, "the lengths of body ({body_len}), index ({index_len}) and values ({values_len}) do not fit together")
            }
            BatchError::BatchTooLarge { bytes, max } => write!(f, "the batch has {bytes} bytes, at most {max} are accepted"),
            BatchError::ValuesTooLarge { bytes, max } => {
                write!(f, "the batch has {bytes} bytes of values when uncompressed, at most {max} are accepted")
            }
            BatchError::BodyChecksum { stored, computed } => {
                write!(f, "wrong body checksum: {stored:#010x} stored, {computed:#010x} computed")
            }
            BatchError::HeaderChecksum { stored, computed } => {
                write!(f, "wrong header checksum: {stored:#010x} stored, {computed:#010x} computed")
            }
            BatchError::IndexShort { record } => write!(f, "the index ends inside record {record}"),
            BatchError::IndexTrailing { bytes } => write!(f, "{bytes} bytes follow the last entry of the index"),
            BatchError::UnknownRecordFlags { record, flags } => write!(f, "record {record} has unknown flags {flags:#06x}"),
            BatchError::BadOffsetDelta { record, delta } => write!(f, "record {record} has offset delta {delta}, which is out of order"),
            BatchError::BadTombstone { record } => {
                write!(f, "record {record} is a tombstone with a value length, or the batch lacks the has-tombstones flag")
            }
            BatchError::BadTimestamps { first_us, newest_us } => {
                write!(f, "first timestamp {first_us} or newest timestamp {newest_us} does not fit the records")
            }
            BatchError::RecordTooLarge { record, what, size, max } => {
                write!(f, "record {record}: {what} of {size}, at most {max} accepted")
            }
            BatchError::BadValuesLength { declared, actual } => {
                write!(f, "the index declares {declared} bytes of values, the values section has {actual}")
            }
            BatchError::AttributeOutOfRange { record, what, value, min, max } => {
                write!(f, "record {record} has a {what} of {value}, accepted are {min} to {max}")
            }
            BatchError::BadHeaders { record } => write!(f, "the headers of record {record} are not laid out as specified"),
        }
    }
}

impl std::error::Error for BatchError {}
