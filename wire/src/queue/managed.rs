//! Kinds 56 to 59: looking at messages, settling or delivering them once more, without leases.
//!
//! Not here: who may do so, reading bodies while browsing ([`crate::fetch`]).

use super::SettledMessage;
use crate::error::ErrorCode;
use crate::prim::{List, choices, flags, layout};

/// Highest priority of a message.
pub const PRIORITY_MAX: u8 = 9;

choices! {
    /// Which messages a Browse shows.
    pub enum BrowseState("state to browse for") {
        /// All that are not settled.
        Any = 0, "any";
        /// Those that could be delivered now.
        Ready = 1, "ready";
        /// Those under a lease.
        Leased = 2, "leased";
        /// Those that are not due yet.
        Delayed = 3, "delayed";
        /// Those that are given up.
        Dead = 4, "dead";
    }
}

choices! {
    /// What a message of a queue is; a settled one is none any more.
    pub enum MessageState("state of a message") {
        /// It could be delivered now.
        Ready = 1, "ready";
        /// It is under a lease.
        Leased = 2, "leased";
        /// It is not due yet.
        Delayed = 3, "delayed";
        /// It is given up.
        Dead = 4, "dead";
    }
}

layout! {
    /// Look at messages of one partition without leasing them.
    pub struct BrowseRequest {
        /// The queue.
        pub queue_uid: u64;
        /// The partition.
        pub partition_uid: u64;
        /// First offset to look at.
        pub from: u64;
        /// At most so many, 1 to [`super::QUEUE_MESSAGES_MAX`].
        pub max_messages: u32;
        /// Which.
        pub state: BrowseState => zero 3;
    }
}

layout! {
    /// A message of a queue.
    pub struct BrowsedMessage<'a> {
        /// Which.
        pub offset: u64;
        /// What it is.
        pub state: MessageState;
        /// Its priority; higher is sooner.
        pub priority: u8 => zero 2;
        /// How often it was delivered.
        pub deliveries: u32;
        /// The lease it is under; 0 unless leased.
        pub lease: u64;
        /// Delayed: when it is due. Leased: when the lease ends. UTC microseconds; else [`super::TIME_NONE_US`].
        pub until_us: i64;
        /// Who holds it; empty unless leased.
        pub consumer: &'a str;
        /// Why it failed last, as far as was said; else empty.
        pub reason: &'a str;
    }
}

layout! {
    /// Messages in order of offset.
    pub struct BrowseReply<'a> {
        /// Browse on from here.
        pub next: u64;
        /// Whether there is nothing from there on for now.
        pub end: bool;
        /// The messages. Their bodies are read with Fetch.
        pub messages: List<'a, BrowsedMessage<'a>>;
    }
}

layout! {
    /// Settle everything that is committed so far, leased messages too. All partitions are of one leader.
    pub struct PurgeRequest<'a> {
        /// The queue.
        pub queue_uid: u64;
        /// Partitions, by their identities.
        pub partitions: List<'a, u64>;
    }
}

layout! {
    /// What was purged of one partition.
    pub struct Purged {
        /// Which.
        pub partition_uid: u64;
        /// `Ok` (it is durable), or why nothing was.
        pub error: ErrorCode => zero 2;
        /// Messages that were settled by this.
        pub purged: u64;
    }
}

layout! {
    /// Answers in the order of the partitions.
    pub struct PurgeReply<'a> {
        /// One per partition.
        pub entries: List<'a, Purged>;
    }
}

layout! {
    /// A message of a partition.
    pub struct MessageAt {
        /// Its partition.
        pub partition_uid: u64;
        /// Which.
        pub offset: u64;
    }
}

layout! {
    /// Settle messages by their offsets, leased ones too. All partitions are of one leader.
    pub struct DeleteMessagesRequest<'a> {
        /// The queue.
        pub queue_uid: u64;
        /// Each message for itself: one that is refused does not stop the others.
        pub entries: List<'a, MessageAt>;
    }
}

layout! {
    /// Answers in the order of the entries.
    pub struct DeleteMessagesReply<'a> {
        /// One per entry.
        pub entries: List<'a, SettledMessage>;
    }
}

flags! {
    /// Flags of Redrive.
    pub struct RedriveFlags(u8, "redrive flags") {
        /// Only count.
        DRY_RUN = 1;
    }
}

layout! {
    /// Make dead messages that are still in the queue ready, as if they had never been delivered. All partitions are of one leader.
    pub struct RedriveRequest<'a> {
        /// The queue.
        pub queue_uid: u64;
        /// Flags.
        pub flags: RedriveFlags => zero 3;
        /// At most so many, the oldest first; 0: all.
        pub max_messages: u32;
        /// Partitions, by their identities, in order of preference.
        pub partitions: List<'a, u64>;
    }
}

layout! {
    /// What was redriven of one partition.
    pub struct Redriven {
        /// Which.
        pub partition_uid: u64;
        /// `Ok` (it is durable), or why nothing was.
        pub error: ErrorCode => zero 2;
        /// Messages that are ready by this, or would be.
        pub redriven: u64;
    }
}

layout! {
    /// Answers in the order of the partitions.
    pub struct RedriveReply<'a> {
        /// One per partition.
        pub entries: List<'a, Redriven>;
    }
}
