//! TrimPartitions (kind 15): the oldest records of partitions are dropped, up to an offset.
//!
//! Not here: times and "everything committed now"; a client turns those into offsets with ListOffsets and DescribeTopic.

use crate::error::ErrorCode;
use crate::prim::{List, layout};

layout! {
    /// How far one partition is trimmed.
    pub struct TrimEntry {
        /// Which partition.
        pub partition_uid: u64;
        /// Offsets below this one are dropped. Not above the committed end; at or below the log start there is nothing to do.
        pub before: u64;
    }
}

layout! {
    /// What is to be dropped.
    pub struct TrimPartitionsRequest<'a> {
        /// Each partition for itself: one that is refused does not stop the others.
        pub entries: List<'a, TrimEntry>;
    }
}

layout! {
    /// What became of one partition.
    pub struct TrimAnswer {
        /// Which partition.
        pub partition_uid: u64;
        /// `Ok` (the new log start is durable), or why nothing was dropped.
        pub error: ErrorCode => zero 2;
        /// First offset that still exists; 0 where the partition is not known.
        pub log_start: u64;
        /// First offset that is not committed: how far a trim may go; 0 where the partition is not known.
        pub committed_end: u64;
    }
}

layout! {
    /// Answers in the order of the entries.
    pub struct TrimPartitionsReply<'a> {
        /// One per entry.
        pub entries: List<'a, TrimAnswer>;
    }
}
