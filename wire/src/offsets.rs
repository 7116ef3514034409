//! ListOffsets (kind 7): earliest, latest, or by time.

use crate::error::ErrorCode;
use crate::prim::{List, layout};

/// `at` for the first offset that still exists.
pub const AT_EARLIEST: i64 = -2;
/// `at` for the committed end: the offset the next committed record will have.
pub const AT_LATEST: i64 = -1;
/// `timestamp_us` of an answer that has none.
pub const TIMESTAMP_UNKNOWN: i64 = -1;

layout! {
    /// One question.
    pub struct OffsetQuery {
        /// Which partition.
        pub partition_uid: u64;
        /// [`AT_EARLIEST`], [`AT_LATEST`], or UTC microseconds (0 or more): the first record with that time or a later one.
        pub at: i64;
    }
}

layout! {
    /// Questions.
    pub struct ListOffsetsRequest<'a> {
        /// One per partition.
        pub entries: List<'a, OffsetQuery>;
    }
}

layout! {
    /// One answer.
    pub struct OffsetAnswer {
        /// Which partition.
        pub partition_uid: u64;
        /// `Ok`, or why there is no answer.
        pub error: ErrorCode => zero 2;
        /// The offset. By time, the committed end when there is no such record.
        pub offset: u64;
        /// Time of the record there, UTC microseconds, or [`TIMESTAMP_UNKNOWN`].
        pub timestamp_us: i64;
    }
}

layout! {
    /// Answers in the order of the questions.
    pub struct ListOffsetsReply<'a> {
        /// One per question.
        pub entries: List<'a, OffsetAnswer>;
    }
}
