//! Step (80): acknowledge inputs, publish outputs and commit offsets as one, all or nothing.
//!
//! Not here: what has to lie together (docs/PROTOCOL.md, "The atomic step").

use crate::level::Level;
use crate::prim::{DecodeError, List, layout};
use crate::produce::{ProduceBatches, ProduceEntry};

layout! {
    /// A leased message that is done.
    pub struct StepAck {
        /// The queue.
        pub queue_uid: u64;
        /// The lease token's partition.
        pub partition_uid: u64;
        /// The lease token's message.
        pub offset: u64;
        /// The lease token's lease.
        pub lease: u64;
    }
}

layout! {
    /// An offset of a consumer group.
    pub struct StepCommit<'a> {
        /// The group.
        pub group_uid: u64;
        /// The partition.
        pub partition_uid: u64;
        /// The epoch under which the partition is owned.
        pub assignment_epoch: u64;
        /// The next offset to read.
        pub offset: u64;
        /// The user's text.
        pub metadata: &'a str;
    }
}

layout! {
    /// Everything that becomes true together.
    pub struct StepRequest<'a> {
        /// Kept for more; 0.
        pub flags: u32;
        /// Messages of queues that are settled.
        pub acks: List<'a, StepAck>;
        /// Offsets that are committed.
        pub commits: List<'a, StepCommit<'a>>;
        /// Batches of the payload, in its order.
        pub entries: List<'a, ProduceEntry>;
    }
}

impl<'a> StepRequest<'a> {
    /// The entries with their batches; refused when the lengths do not add up to the payload.
    pub fn batches(&self, payload: &'a [u8]) -> Result<ProduceBatches<'a>, DecodeError> {
        ProduceBatches::of(self.entries, payload)
    }
}

layout! {
    /// Where one batch is.
    pub struct StepResult {
        /// Its partition.
        pub partition_uid: u64;
        /// Offset of its first record.
        pub base_offset: u64;
        /// When the leader appended it, UTC microseconds.
        pub append_time_us: i64;
    }
}

layout! {
    /// It is done, all of it.
    pub struct StepReply<'a> {
        /// The level that all of it reached.
        pub level_reached: Level => zero 3;
        /// Wait this long before the next request, in milliseconds.
        pub throttle_ms: u32;
        /// One result per batch, in the same order.
        pub results: List<'a, StepResult>;
    }
}
