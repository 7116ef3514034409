//! Request kinds and their versions.
//!
//! Invariants: a number is never given to another kind; those up to 95 that are none are reserved in ranges (see [`reserved_for`]).
//! Not here: the bodies.

use std::fmt;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal, $min:literal..=$max:literal, reply $reply:literal;)*) => {
        /// What a request asks for; its reply carries the same kind.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $name = $number,)* }

        impl Kind {
            /// Every kind, in order of number.
            pub const ALL: &'static [Kind] = &[$(Kind::$name,)*];

            /// The kind with this number.
            pub const fn from_u8(number: u8) -> Option<Kind> {
                match number { $($number => Some(Kind::$name),)* _ => None }
            }
            /// The name as in the specification.
            pub const fn name(self) -> &'static str {
                match self { $(Kind::$name => $text,)* }
            }
            /// Lowest and highest version of this kind that this crate reads and writes.
            pub const fn versions(self) -> (u8, u8) {
                match self { $(Kind::$name => ($min, $max),)* }
            }
            /// Whether the request has a reply when it succeeds (`Produce` at level `none` has none all the same).
            pub const fn has_reply(self) -> bool {
                match self { $(Kind::$name => $reply,)* }
            }
        }
    };
}

kinds! {
    /// First request of a connection: versions, authentication, the node's figures.
    Hello = 1, "Hello", 1..=1, reply true;
    /// Nodes, topics, partitions and their owners.
    Metadata = 2, "Metadata", 1..=1, reply true;
    /// Append batches to partitions.
    Produce = 3, "Produce", 1..=1, reply true;
    /// Read batches, once or as a stream within credit.
    Fetch = 4, "Fetch", 1..=1, reply true;
    /// More credit for a streaming fetch.
    FetchCredit = 5, "FetchCredit", 1..=1, reply false;
    /// End a streaming fetch.
    FetchCancel = 6, "FetchCancel", 1..=1, reply true;
    /// Earliest, latest, or by time.
    ListOffsets = 7, "ListOffsets", 1..=1, reply true;
    /// Create a topic.
    CreateTopic = 8, "CreateTopic", 1..=1, reply true;
    /// Change settings, add partitions.
    AlterTopic = 9, "AlterTopic", 1..=1, reply true;
    /// Delete a topic.
    DeleteTopic = 10, "DeleteTopic", 1..=1, reply true;
    /// Names of all topics.
    ListTopics = 11, "ListTopics", 1..=1, reply true;
    /// One topic with settings and partitions.
    DescribeTopic = 12, "DescribeTopic", 1..=1, reply true;
    /// All topic settings with units, ranges and defaults.
    DescribeOptions = 13, "DescribeOptions", 1..=1, reply true;
    /// Keepalive.
    Ping = 14, "Ping", 1..=1, reply true;
    /// Drop the oldest records of partitions.
    TrimPartitions = 15, "TrimPartitions", 1..=1, reply true;
    /// Where the disk space of a node went.
    DescribeStorage = 16, "DescribeStorage", 1..=1, reply true;
    /// An identity for an idempotent producer.
    InitProducer = 17, "InitProducer", 1..=1, reply true;
    /// Where a consumer group is at home; creates it if asked to.
    FindGroup = 32, "FindGroup", 1..=1, reply true;
    /// Become a member of a consumer group.
    JoinGroup = 33, "JoinGroup", 1..=1, reply true;
    /// Stay a member, and learn which partitions it may own.
    HeartbeatGroup = 34, "HeartbeatGroup", 1..=1, reply true;
    /// Leave a consumer group.
    LeaveGroup = 35, "LeaveGroup", 1..=1, reply true;
    /// Keep how far partitions were read.
    CommitOffsets = 36, "CommitOffsets", 1..=1, reply true;
    /// How far partitions were read; earlier owners commit no more.
    FetchOffsets = 37, "FetchOffsets", 1..=1, reply true;
    /// Names of all consumer groups.
    ListGroups = 38, "ListGroups", 1..=1, reply true;
    /// One consumer group with members, offsets and lag.
    DescribeGroup = 39, "DescribeGroup", 1..=1, reply true;
    /// Delete a consumer group.
    DeleteGroup = 40, "DeleteGroup", 1..=1, reply true;
    /// Create a queue on a topic.
    CreateQueue = 48, "CreateQueue", 1..=1, reply true;
    /// Change settings of a queue.
    AlterQueue = 49, "AlterQueue", 1..=1, reply true;
    /// Delete a queue.
    DeleteQueue = 50, "DeleteQueue", 1..=1, reply true;
    /// Names of all queues.
    ListQueues = 51, "ListQueues", 1..=1, reply true;
    /// What a consumer has to know of a queue.
    FindQueue = 52, "FindQueue", 1..=1, reply true;
    /// One queue with settings, partitions and numbers.
    DescribeQueue = 53, "DescribeQueue", 1..=1, reply true;
    /// Lease messages of a queue.
    Receive = 54, "Receive", 1..=1, reply true;
    /// Say what became of leased messages.
    Settle = 55, "Settle", 1..=1, reply true;
    /// Look at a queue's messages without leasing them.
    Browse = 56, "Browse", 1..=1, reply true;
    /// Settle everything.
    Purge = 57, "Purge", 1..=1, reply true;
    /// Settle messages by their offsets.
    DeleteMessages = 58, "DeleteMessages", 1..=1, reply true;
    /// Deliver dead messages once more.
    Redrive = 59, "Redrive", 1..=1, reply true;
    /// Nodes and replica groups.
    DescribeCluster = 64, "DescribeCluster", 1..=1, reply true;
    /// What a node takes part in.
    AlterCluster = 65, "AlterCluster", 1..=1, reply true;
    /// Acknowledge inputs, publish outputs and commit offsets as one.
    Step = 80, "Step", 1..=1, reply true;
}

impl Kind {
    /// The number on the wire.
    pub const fn as_u8(self) -> u8 {
        self as u8
    }
    /// The version to write: the highest this crate knows.
    pub const fn version(self) -> u8 {
        self.versions().1
    }
    /// Whether this crate reads `version` of this kind.
    pub const fn reads(self, version: u8) -> bool {
        let (min, max) = self.versions();
        min <= version && version <= max
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a number outside [`Kind`] is kept for, if it is in a reserved range.
pub const fn reserved_for(number: u8) -> Option<&'static str> {
    match number {
        41..=47 => Some("consumer groups"),
        60..=63 => Some("queues"),
        66..=79 => Some("cluster"),
        81..=95 => Some("transactions"),
        _ => None,
    }
}
