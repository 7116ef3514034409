//! The numbers of the header that are this crate's: statuses, partitioners, starts, and what stands for "none" and "all".
//!
//! Invariants: a number that was released never means something else; each stands in `include/tramline.h` with the same value, and the other way round
//! (`header_tests.rs`). Not here: levels, codecs and the broker's error codes, whose numbers are the
//! protocol's (also compared with the header).

use std::ffi::c_int;

macro_rules! constants {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $value:expr;)*) => {
        $($(#[$doc])* pub const $name: $type = $value;)*

        /// Names in C and values, as 64 bits.
        #[cfg(test)]
        pub const ALL: &[(&str, u64)] = &[$((concat!("TRAMLINE_", stringify!($name)), $name as u64),)*];
    };
}

constants! {
    /// Done.
    OK: c_int = 0;
    /// An argument makes no sense; nothing was done.
    E_ARGUMENT: c_int = 1;
    /// Null, closed or wrong handle.
    E_HANDLE: c_int = 2;
    /// The handle is in use by another call.
    E_BUSY: c_int = 3;
    /// No room just now.
    E_FULL: c_int = 4;
    /// Not done within the time allowed.
    E_TIMEOUT: c_int = 5;
    /// The broker said no.
    E_REFUSED: c_int = 6;
    /// The network or the operating system said no.
    E_IO: c_int = 7;
    /// What arrived does not match its checksum.
    E_CORRUPT: c_int = 8;
    /// A defect of this library was caught.
    E_PANIC: c_int = 9;
    /// It may or may not have happened.
    E_UNKNOWN_OUTCOME: c_int = 10;
    /// The other side does not speak the protocol.
    E_PROTOCOL: c_int = 11;

    /// By the key's hash.
    PARTITIONER_HASH: u32 = 0;
    /// Each record to the next partition.
    PARTITIONER_ROUND_ROBIN: u32 = 1;
    /// A batch to one partition, the next batch to the next.
    PARTITIONER_STICKY: u32 = 2;

    /// From the first record that can still be read.
    START_EARLIEST: c_int = 0;
    /// What comes from now on.
    START_LATEST: c_int = 1;
    /// From an offset.
    START_OFFSET: c_int = 2;
    /// From a time.
    START_TIME: c_int = 3;

    /// Evenly, moving as few as can be.
    ASSIGNOR_STICKY: u32 = 0;
    /// Evenly, by the order of members alone.
    ASSIGNOR_UNIFORM: u32 = 1;
    /// At the first record that still exists.
    RESET_EARLIEST: u32 = 0;
    /// Behind the last record.
    RESET_LATEST: u32 = 1;
    /// Nowhere: an error.
    RESET_NONE: u32 = 2;
    /// These are the member's now.
    PARTS_ASSIGNED: c_int = 0;
    /// These are about to be given up.
    PARTS_REVOKED: c_int = 1;
    /// These are another's already.
    PARTS_LOST: c_int = 2;

    /// Done.
    SETTLE_ACK: u32 = 1;
    /// It failed: again later.
    SETTLE_NACK: u32 = 2;
    /// Longer under its lease.
    SETTLE_EXTEND: u32 = 3;
    /// Given back as if it had not been delivered.
    SETTLE_RELEASE: u32 = 4;
    /// It can never be done.
    SETTLE_REJECT: u32 = 5;
    /// Not a delay: the queue's retry policy says when.
    DELAY_BY_POLICY_US: u64 = u64::MAX;
    /// Bytes of a token's text, its NUL included: three numbers of 16 digits and two dashes.
    TOKEN_TEXT_BYTES: usize = 3 * 16 + 2 + 1;

    /// Not a partition: the partitioner chooses.
    PARTITION_ANY: u32 = u32::MAX;
    /// Not a partition: all of the topic.
    PARTITION_ALL: u32 = u32::MAX;
    /// Not a partition: the error concerns none.
    PARTITION_NONE: u32 = u32::MAX;
    /// Not an offset. The largest offset is far below.
    OFFSET_NONE: u64 = u64::MAX;
    /// Not a time: the time of the call.
    TIMESTAMP_NOW: i64 = i64::MIN;

    /// For [`tramline_topic_create`](crate::client::tramline_topic_create).
    TOPIC_IF_NOT_EXISTS: u32 = 1;
    /// For [`tramline_queue_create`](crate::queue::tramline_queue_create).
    QUEUE_IF_NOT_EXISTS: u32 = 1;
    /// Bytes of the topic's name in an error, its NUL included: the broker's names have 249 at most.
    ERROR_TOPIC_BYTES: usize = 256;
}
