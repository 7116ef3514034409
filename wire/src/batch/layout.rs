//! Byte positions, flags and limits of a batch.
//!
//! ```text
//! producer's region                                                        leader's region
//!  0 magic "TRB1"          16 last_offset_delta u32   48 producer_id u64      68 reserved u32 = 0
//!  4 version u8 = 1        20 body_len u32            56 producer_epoch u16   72 partition_uid u64
//!  5 codec u8              24 index_len u32           58 reserved u16 = 0     80 base_offset u64
//!  6 checksum kind u8 = 1  28 values_len u32          60 sequence u32         88 term u64
//!  7 reserved u8 = 0       32 first_timestamp_us i64  64 body_crc u32         96 append_time_us i64
//!  8 flags u16             40 newest_timestamp_us i64    = crc32c(0..64 ++   104 header_crc u32 = crc32c(0..104)
//! 10 encryption key u16                                   body)              108 reserved u32 = 0
//! 12 record_count u32
//!
//! index entry: 0 flags u16 | 2 offset_delta u16 | 4 time_delta_us i32 | 8 value_len u32 | optional fields by flag, in order of bit
//! values:      per record: value bytes, then headers' bytes {u16 count, each: u16 len, name, u32 len, value}
//! ```
//! Not here: code that reads or writes them.

/// Size of the header.
pub const BATCH_HEADER_BYTES: usize = 112;
/// First bytes of every batch.
pub const BATCH_MAGIC: [u8; 4] = *b"TRB1";
/// Layout version.
pub const BATCH_VERSION: u8 = 1;
/// The only checksum kind: crc32c.
pub const CHECKSUM_CRC32C: u8 = 1;
/// End of what the body checksum covers of the header.
pub const PRODUCER_REGION_BYTES: usize = 64;

/// Position of `version`.
pub const AT_VERSION: usize = 4;
/// Position of `codec`.
pub const AT_CODEC: usize = 5;
/// Position of the checksum kind.
pub const AT_CHECKSUM_KIND: usize = 6;
/// Position of the reserved byte.
pub const AT_RESERVED_7: usize = 7;
/// Position of `flags`.
pub const AT_FLAGS: usize = 8;
/// Position of the encryption key id.
pub const AT_ENCRYPTION_KEY: usize = 10;
/// Position of `record_count`.
pub const AT_RECORD_COUNT: usize = 12;
/// Position of `last_offset_delta`.
pub const AT_LAST_OFFSET_DELTA: usize = 16;
/// Position of `body_len`.
pub const AT_BODY_LEN: usize = 20;
/// Position of `index_len`.
pub const AT_INDEX_LEN: usize = 24;
/// Position of `values_len`.
pub const AT_VALUES_LEN: usize = 28;
/// Position of `first_timestamp_us`.
pub const AT_FIRST_TIMESTAMP: usize = 32;
/// Position of `newest_timestamp_us`.
pub const AT_NEWEST_TIMESTAMP: usize = 40;
/// Position of `producer_id`.
pub const AT_PRODUCER_ID: usize = 48;
/// Position of `producer_epoch`.
pub const AT_PRODUCER_EPOCH: usize = 56;
/// Position of the reserved u16.
pub const AT_RESERVED_58: usize = 58;
/// Position of `sequence`.
pub const AT_SEQUENCE: usize = 60;
/// Position of `body_crc`.
pub const AT_BODY_CRC: usize = 64;
/// Position of the leader's region's reserved u32.
pub const AT_RESERVED_68: usize = 68;
/// Position of `partition_uid`.
pub const AT_PARTITION_UID: usize = 72;
/// Position of `base_offset`.
pub const AT_BASE_OFFSET: usize = 80;
/// Position of `term`.
pub const AT_TERM: usize = 88;
/// Position of `append_time_us`.
pub const AT_APPEND_TIME: usize = 96;
/// Position of `header_crc`.
pub const AT_HEADER_CRC: usize = 104;
/// Position of the last reserved u32.
pub const AT_RESERVED_108: usize = 108;

const _: () = {
    assert!(AT_BODY_CRC == PRODUCER_REGION_BYTES, "the body checksum covers exactly what stands before it");
    assert!(AT_RESERVED_68 == AT_BODY_CRC + 4, "the leader's region follows the body checksum");
    assert!(AT_SEQUENCE + 4 == AT_BODY_CRC);
    assert!(AT_RESERVED_108 + 4 == BATCH_HEADER_BYTES, "no padding at the end");
    assert!(BATCH_HEADER_BYTES <= 128, "the design allows 128 bytes");
    assert!(
        AT_FIRST_TIMESTAMP.is_multiple_of(8) && AT_PARTITION_UID.is_multiple_of(8) && AT_BASE_OFFSET.is_multiple_of(8),
        "64-bit fields are aligned"
    );
};

/// Written by the broker, not by a user: delivered to nobody.
pub const BATCH_CONTROL: u16 = 1;
/// Part of a transaction.
pub const BATCH_TRANSACTIONAL: u16 = 2;
/// Lost records to compaction: offset deltas have gaps.
pub const BATCH_COMPACTED: u16 = 4;
/// At least one record has a null value.
pub const BATCH_HAS_TOMBSTONES: u16 = 8;
/// The append time counts as every record's timestamp.
pub const BATCH_APPEND_TIME: u16 = 16;
/// All batch flags with a meaning.
pub const BATCH_FLAGS_KNOWN: u16 = BATCH_CONTROL | BATCH_TRANSACTIONAL | BATCH_COMPACTED | BATCH_HAS_TOMBSTONES | BATCH_APPEND_TIME;
/// Batch flags that a producer may set; the others are the broker's, or wait for transactions.
pub const BATCH_FLAGS_PRODUCER: u16 = BATCH_HAS_TOMBSTONES;

/// Fixed part of an index entry: all of it for a record without key, headers and attributes.
pub const INDEX_ENTRY_BYTES: usize = 12;

/// Key: u16 length + bytes.
pub const RECORD_KEY: u16 = 1;
/// Headers: u32 length; the bytes follow the value.
pub const RECORD_HEADERS: u16 = 2;
/// No value (a tombstone).
pub const RECORD_NULL: u16 = 4;
/// Not to be delivered before: i64 UTC microseconds.
pub const RECORD_DELIVER_AT: u16 = 8;
/// Priority: u8.
pub const RECORD_PRIORITY: u16 = 16;
/// Time to live: u32 milliseconds.
pub const RECORD_TTL: u16 = 32;
/// Message group: u16 length + bytes.
pub const RECORD_GROUP: u16 = 64;
/// Message id: u16 length + bytes.
pub const RECORD_MESSAGE_ID: u16 = 128;
/// All record flags with a meaning.
pub const RECORD_FLAGS_KNOWN: u16 = 255;
const _: () = assert!(
    RECORD_FLAGS_KNOWN
        == RECORD_KEY | RECORD_HEADERS | RECORD_NULL | RECORD_DELIVER_AT | RECORD_PRIORITY | RECORD_TTL | RECORD_GROUP | RECORD_MESSAGE_ID
);

/// Most records of a batch: offset deltas are u16.
pub const RECORDS_MAX: u32 = u16::MAX as u32;

/// What is accepted of batches and records. All sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest batch, header included, as it is stored.
    pub batch_bytes_max: u32,
    /// Largest declared size of the uncompressed values section: bounds what a reader has to hold when it decompresses.
    pub values_bytes_max: u32,
    /// Largest record: key, value, headers, message group and message id together.
    pub record_bytes_max: u32,
    /// Longest key.
    pub key_bytes_max: u32,
    /// Most headers of a record. Of compressed batches the broker sees only their size.
    pub headers_max: u32,
    /// Largest headers of a record, all together.
    pub headers_bytes_max: u32,
    /// Longest message group, and longest message id.
    pub id_bytes_max: u32,
}

impl Limits {
    /// What the layout itself can hold: for readers of batches that a broker has accepted already.
    pub const LAYOUT: Limits = Limits {
        batch_bytes_max: u32::MAX,
        values_bytes_max: u32::MAX,
        record_bytes_max: u32::MAX,
        key_bytes_max: u16::MAX as u32,
        headers_max: u16::MAX as u32,
        headers_bytes_max: u32::MAX,
        id_bytes_max: u16::MAX as u32,
    };
}

impl Default for Limits {
    /// The broker's own defaults: 4 MiB per batch (half a default frame), 16 MiB of values when uncompressed, records of
    /// 1 MiB, keys of 4 KiB.
    fn default() -> Limits {
        Limits {
            batch_bytes_max: 4 << 20,
            values_bytes_max: 16 << 20,
            record_bytes_max: 1 << 20,
            key_bytes_max: 4 << 10,
            headers_max: 64,
            headers_bytes_max: 64 << 10,
            id_bytes_max: 256,
        }
    }
}
