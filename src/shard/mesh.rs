//! What shards of one node say to each other. Bytes are copied; nothing is shared but immutable views.
//!
//! Not here: the queues and wake-ups that carry these (runtime/), who answers what (`shard.rs`).

use crate::control::{ClusterCommand, View};
use crate::ids::{ConnId, GroupId, NodeId, PartitionUid, SubscriptionUid, Term};
use crate::subscription::queue::PartCounts;
use std::sync::Arc;
use tramline_wire::error::ErrorCode;
use tramline_wire::frame::FrameHeader;
use tramline_wire::storage::ShardStorage;

/// A request that arrived on one shard and belongs to another.
#[derive(Debug)]
pub struct Forwarded {
    /// The connection, a number of the shard that accepted it.
    pub conn: ConnId,
    /// The frame's header.
    pub header: FrameHeader,
    /// The frame's meta.
    pub meta: Vec<u8>,
    /// The frame's payload.
    pub payload: Vec<u8>,
    /// When it was taken from the socket, `Now::mono_us`: the shards' clocks agree.
    pub received_us: u64,
}

impl Forwarded {
    /// What it counts against the limit of bytes under way between two shards.
    pub fn weight(&self) -> u64 {
        (self.meta.len() + self.payload.len() + 256) as u64
    }
}

/// Numbers of one partition, for describe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The partition.
    pub uid: PartitionUid,
    /// First offset that still exists.
    pub log_start: u64,
    /// First offset that is not committed.
    pub committed_end: u64,
    /// Bytes of its batches.
    pub bytes: u64,
    /// Segments that hold some of it.
    pub segments: u32,
}

/// What one shard knows of a consumer group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// The group.
    pub uid: SubscriptionUid,
    /// Members; 0 where this is not its home.
    pub members: u32,
    /// When something was committed here last, or a member was there last, UTC microseconds; 0 for never.
    pub active_us: i64,
}

/// What a shard says of a consumer group that is to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retired {
    /// It has no member, and takes none for a while.
    TakesNone,
    /// It has members.
    HasMembers,
    /// This shard does not lead its home, or does not know its members yet.
    NotKnown,
}

/// How far a consumer group has read one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupProgress {
    /// The partition.
    pub uid: PartitionUid,
    /// The committed offset; `OFFSET_NONE` for none.
    pub offset: u64,
    /// When it was committed, UTC microseconds; 0 where nothing was.
    pub committed_us: i64,
    /// First offset that still exists.
    pub log_start: u64,
    /// First offset that is not committed.
    pub committed_end: u64,
    /// Bytes that are not read.
    pub lag_bytes: u64,
    /// Age of the oldest record that is not read, in milliseconds.
    pub lag_ms: u64,
    /// Milliseconds until nothing is left; `None` where the lag does not fall.
    pub drain_ms: Option<u64>,
}

/// How a queue stands in one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueStatus {
    /// The partition.
    pub uid: PartitionUid,
    /// All below is settled.
    pub settled_to: u64,
    /// All below was looked at.
    pub looked_to: u64,
    /// First offset that is not committed.
    pub committed_end: u64,
    /// Messages that may be delivered now.
    pub ready: u64,
    /// Messages that somebody has.
    pub leased: u64,
    /// Messages that wait for their time or their turn.
    pub delayed: u64,
    /// Messages that were given up.
    pub dead: u64,
    /// Time of the oldest message that is not settled, UTC microseconds; -1 for none.
    pub oldest_us: i64,
    /// What was done since the shard started.
    pub counts: PartCounts,
    /// Receives that wait, told with the first partition of a shard.
    pub waiting: u32,
    /// Who alone receives; empty for nobody.
    pub holder: Vec<u8>,
}

/// A batch of dead messages for a dead-letter topic.
#[derive(Debug)]
pub struct Letters {
    /// Names the answer.
    pub question: u64,
    /// The partition that they go to.
    pub to: PartitionUid,
    /// The batch, as a producer would send it.
    pub batch: Vec<u8>,
}

/// One message between shards.
#[derive(Debug)]
pub enum Message {
    /// Answer this request as if it had arrived at you; the answer goes back as `Reply`.
    Request(Box<Forwarded>),
    /// A finished frame for a connection of yours.
    Reply {
        /// The connection.
        conn: ConnId,
        /// Header, meta and payload.
        frame: Vec<u8>,
    },
    /// Forwarded requests of this weight were taken in: as much more may be sent.
    Taken {
        /// Sum of their weights.
        weight: u64,
    },
    /// A connection is gone: its streams end.
    ConnClosed {
        /// The connection.
        conn: ConnId,
    },
    /// The metadata changed.
    View(Arc<View>),
    /// Who leads a group.
    Leader {
        /// The group.
        group: GroupId,
        /// Its leader; 0 for nobody.
        node: NodeId,
        /// In this term.
        term: Term,
    },
    /// Say this about nodes and moves to whoever leads the metadata.
    Ask(Box<ClusterCommand>),
    /// This view is in force here.
    ViewInForce {
        /// Its epoch.
        epoch: u64,
    },
    /// Tell these partitions' numbers.
    StatusAsked {
        /// Names the question.
        question: u64,
        /// The partitions, all of the shard asked.
        uids: Vec<PartitionUid>,
    },
    /// The answer.
    Status {
        /// The question.
        question: u64,
        /// Those of the partitions that exist.
        partitions: Vec<PartitionStatus>,
    },
    /// Tell where the space of your disk went.
    StorageAsked {
        /// Names the question.
        question: u64,
    },
    /// The answer.
    Storage {
        /// The question.
        question: u64,
        /// The numbers.
        storage: Box<ShardStorage>,
    },
    /// Tell what you know of the consumer groups.
    GroupsAsked {
        /// Names the question.
        question: u64,
    },
    /// The answer.
    Groups {
        /// The question.
        question: u64,
        /// Those that have something here.
        groups: Vec<GroupStatus>,
    },
    /// Tell how a queue stands in your partitions.
    QueueAsked {
        /// Names the question.
        question: u64,
        /// The queue.
        uid: SubscriptionUid,
        /// The partitions, all of the shard asked.
        partitions: Vec<PartitionUid>,
    },
    /// The answer.
    Queue {
        /// The question.
        question: u64,
        /// Those of the partitions that are known.
        partitions: Vec<QueueStatus>,
    },
    /// Tell how far a group has read your partitions.
    GroupProgressAsked {
        /// Names the question.
        question: u64,
        /// The group.
        uid: SubscriptionUid,
        /// Partitions of yours that its members own: told also where nothing was committed.
        owned: Vec<PartitionUid>,
    },
    /// The answer.
    GroupProgress {
        /// The question.
        question: u64,
        /// The partitions.
        partitions: Vec<GroupProgress>,
    },
    /// A group that is at home with you is to be deleted: take no member any more, unless it has one.
    GroupRetireAsked {
        /// The group.
        uid: SubscriptionUid,
    },
    /// The answer.
    GroupRetired {
        /// The group.
        uid: SubscriptionUid,
        /// What became of it.
        retired: Retired,
    },
    /// Append these to a partition of yours.
    Letters(Box<Letters>),
    /// The answer, once they are durable or refused.
    LettersTaken {
        /// The question.
        question: u64,
        /// Why they were refused; `Ok`: they are durable.
        error: ErrorCode,
    },
    /// Stop in order: refuse new work, make durable what was taken in, say when that is so.
    Stop,
}
