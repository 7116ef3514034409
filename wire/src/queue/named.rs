//! Kinds 48 to 53: creating, changing, deleting, listing, finding and describing queues by name.
//!
//! Not here: which settings exist, what they mean.

use crate::error::ErrorCode;
use crate::prim::{List, choices, flags, layout};
use crate::topics::{EffectiveSetting, Setting};

/// In place of a time: there is none.
pub const TIME_NONE_US: i64 = -1;

choices! {
    /// Where a new queue begins.
    pub enum QueueStart("start of a queue") {
        /// With what is stored from now on.
        Latest = 0, "latest";
        /// With what is oldest.
        Earliest = 1, "earliest";
        /// With the first message of a time or a later one.
        Time = 2, "time";
    }
}

flags! {
    /// Flags of CreateQueue.
    pub struct CreateQueueFlags(u8, "create queue flags") {
        /// A queue of this name is fine.
        IF_NOT_EXISTS = 1;
        /// Check everything, create nothing.
        VALIDATE_ONLY = 2;
    }
}

layout! {
    /// Create a queue.
    pub struct CreateQueueRequest<'a> {
        /// Its name.
        pub name: &'a str;
        /// The topic whose messages it delivers.
        pub topic: &'a str;
        /// Flags.
        pub flags: CreateQueueFlags;
        /// Where it begins.
        pub start: QueueStart => zero 2;
        /// With [`QueueStart::Time`], UTC microseconds; else 0.
        pub start_us: i64;
        /// Explicit settings.
        pub settings: List<'a, Setting<'a>>;
    }
}

layout! {
    /// The queue.
    pub struct CreateQueueReply {
        /// Its identity, never given to another subscription; 0 after validate-only.
        pub queue_uid: u64;
        /// Whether this request created it.
        pub created: bool;
    }
}

layout! {
    /// Change a queue.
    pub struct AlterQueueRequest<'a> {
        /// Its name.
        pub name: &'a str;
        /// Settings to change; an empty value means back to the default.
        pub settings: List<'a, Setting<'a>>;
    }
}

layout! {
    /// Changed.
    pub struct AlterQueueReply {}
}

layout! {
    /// Delete a queue: its messages stay in the topic.
    pub struct DeleteQueueRequest<'a> {
        /// Its name.
        pub name: &'a str;
    }
}

layout! {
    /// Deleted.
    pub struct DeleteQueueReply {}
}

layout! {
    /// List queues.
    pub struct ListQueuesRequest<'a> {
        /// Only those behind this name; empty: from the first one on.
        pub after: &'a str;
    }
}

layout! {
    /// A queue in a list.
    pub struct QueueItem<'a> {
        /// Its name.
        pub name: &'a str;
        /// Its identity.
        pub queue_uid: u64;
        /// Its topic.
        pub topic: &'a str;
    }
}

layout! {
    /// Queues in order of name.
    pub struct ListQueuesReply<'a> {
        /// Whether there are more behind the last one.
        pub more: bool;
        /// The queues; 1 at least where there are more.
        pub queues: List<'a, QueueItem<'a>>;
    }
}

layout! {
    /// Ask for what a consumer has to know of a queue.
    pub struct FindQueueRequest<'a> {
        /// Its name.
        pub name: &'a str;
    }
}

flags! {
    /// What a queue is set to.
    pub struct QueueFlags(u8, "queue flags") {
        /// Nothing is delivered for now.
        PAUSED = 1;
        /// One consumer at a time has a partition.
        EXCLUSIVE = 2;
    }
}

layout! {
    /// The queue.
    pub struct FindQueueReply<'a> {
        /// Its identity.
        pub queue_uid: u64;
        /// Identity of its topic.
        pub topic_uid: u64;
        /// Its topic.
        pub topic: &'a str;
        /// How long a lease lasts where a Receive says nothing, in milliseconds.
        pub visibility_timeout_ms: u32;
        /// What it is set to.
        pub flags: QueueFlags;
    }
}

layout! {
    /// Describe one queue.
    pub struct DescribeQueueRequest<'a> {
        /// Its name.
        pub name: &'a str;
        /// The first partition to tell of, by its number.
        pub first_partition: u32;
    }
}

layout! {
    /// One partition as a queue sees it. All numbers are 0 where `error` is not `Ok`.
    pub struct QueuePartition<'a> {
        /// Number within the topic.
        pub partition: u32;
        /// Identity.
        pub partition_uid: u64;
        /// Node of the leader.
        pub node: u32;
        /// Shard of the leader.
        pub shard: u16;
        /// `Ok`, or why nothing is told of it.
        pub error: ErrorCode;
        /// All below is settled.
        pub settled_to: u64;
        /// All below was looked at.
        pub looked_to: u64;
        /// First offset that is not committed.
        pub committed_end: u64;
        /// Messages that could be delivered now.
        pub ready: u64;
        /// Messages under a lease.
        pub leased: u64;
        /// Messages that are not due yet.
        pub delayed: u64;
        /// Messages that are given up and still here.
        pub dead: u64;
        /// Time of the oldest message that is not settled, UTC microseconds; [`TIME_NONE_US`] for none.
        pub oldest_us: i64;
        /// Acknowledged since the shard started; so are the following.
        pub acked: u64;
        /// Delivered once more.
        pub redelivered: u64;
        /// Over because their time to live was.
        pub expired: u64;
        /// Given up.
        pub dead_lettered: u64;
        /// Left out because their message id had been seen.
        pub duplicates: u64;
        /// Settled by DeleteMessages or Purge.
        pub deleted: u64;
        /// Receives that wait.
        pub waiting: u32;
        /// The consumer that has an exclusive queue's partition; else empty.
        pub active: &'a str;
    }
}

layout! {
    /// One queue.
    pub struct DescribeQueueReply<'a> {
        /// Its identity.
        pub queue_uid: u64;
        /// Its name.
        pub name: &'a str;
        /// Its topic.
        pub topic: &'a str;
        /// When it was created, UTC microseconds.
        pub created_us: i64;
        /// All settings.
        pub settings: List<'a, EffectiveSetting<'a>>;
        /// Whether there are more partitions behind the last one.
        pub more: bool;
        /// Partitions in order of number; 1 at least where there are more.
        pub partitions: List<'a, QueuePartition<'a>>;
    }
}
