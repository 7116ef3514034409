//! What is told of queues, as owned values.
//!
//! Not here: asking (`queues.rs`), messages under a lease (`message.rs`).

use std::collections::{BTreeMap, BTreeSet};

use tramline_wire::error::ErrorCode;
use tramline_wire::queue::{BrowseReply, BrowsedMessage, DescribeQueueReply, MessageState, QueueItem, QueuePartition, TIME_NONE_US};

use crate::everywhere::SilentNode;
use crate::types::TopicSetting;

/// The answer to [`Client::create_queue`](crate::Client::create_queue).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreatedQueue {
    /// Uid of the queue.
    pub uid: u64,
    /// False when it existed already (and `if_not_exists` was asked).
    pub created: bool,
}

/// One line of [`Client::list_queues`](crate::Client::list_queues).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSummary {
    /// Name.
    pub name: String,
    /// Uid, never reused, also not by a later queue of the same name.
    pub uid: u64,
    /// The topic whose messages it delivers.
    pub topic: String,
}

impl From<QueueItem<'_>> for QueueSummary {
    fn from(of: QueueItem<'_>) -> QueueSummary {
        QueueSummary { name: of.name.to_string(), uid: of.queue_uid, topic: of.topic.to_string() }
    }
}

/// The answer to [`Client::find_queue`](crate::Client::find_queue).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundQueue {
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: u64,
    /// The topic whose messages it delivers.
    pub topic: String,
    /// Uid of the topic.
    pub topic_uid: u64,
    /// How long a lease lasts where nothing else is asked for, in milliseconds.
    pub visibility_timeout_ms: u32,
    /// Nothing is delivered for now.
    pub is_paused: bool,
    /// At each shard one consumer at a time has the queue's partitions.
    pub is_exclusive: bool,
}

/// The answer to [`Client::describe_queue`](crate::Client::describe_queue).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueDescription {
    /// Uid.
    pub uid: u64,
    /// Name.
    pub name: String,
    /// The topic whose messages it delivers.
    pub topic: String,
    /// Time of creation, UTC microseconds.
    pub created_us: i64,
    /// All settings with their effective values.
    pub settings: Vec<TopicSetting>,
    /// Partitions in order of number.
    pub partitions: Vec<QueuePartitionDescription>,
    /// Nodes that were asked for numbers of partitions and did not answer.
    pub silent: Vec<SilentNode>,
}

impl QueueDescription {
    /// Nodes that lead partitions of which nothing was told yet, as far as is known.
    pub(crate) fn untold(&self) -> BTreeSet<u32> {
        self.partitions.iter().filter(|partition| !partition.error.is_ok()).map(|partition| partition.node).collect()
    }

    /// Takes over what another node tells of partitions that it leads.
    pub(crate) fn take_in(&mut self, other: Vec<QueuePartitionDescription>) {
        let mut told: BTreeMap<u64, _> = other.into_iter().filter(|told| told.error.is_ok()).map(|told| (told.uid, told)).collect();
        for partition in self.partitions.iter_mut().filter(|partition| !partition.error.is_ok()) {
            if let Some(told) = told.remove(&partition.uid) {
                *partition = told;
            }
        }
    }

    /// The effective value of a setting.
    pub fn setting(&self, key: &str) -> Option<&str> {
        self.settings.iter().find(|setting| setting.key == key).map(|setting| setting.value.as_str())
    }
}

/// How a queue stands in one partition. All numbers are 0 where `error` is not `Ok`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuePartitionDescription {
    /// Number of the partition.
    pub partition: u32,
    /// Its uid.
    pub uid: u64,
    /// Node of the leader.
    pub node: u32,
    /// Shard of the leader.
    pub shard: u16,
    /// `Ok`, or why nothing is told of it.
    pub error: ErrorCode,
    /// All messages below are settled.
    pub settled_to: u64,
    /// All messages below were looked at; those from there on are in no number yet.
    pub looked_to: u64,
    /// One past the last committed message.
    pub committed_end: u64,
    /// Messages that could be delivered now.
    pub ready: u64,
    /// Messages under a lease.
    pub leased: u64,
    /// Messages that are not due yet.
    pub delayed: u64,
    /// Messages that are given up and still here.
    pub dead: u64,
    /// Time of the oldest message that is not settled, UTC microseconds.
    pub oldest_us: Option<i64>,
    /// Acknowledged since the shard started; so are the following.
    pub acked: u64,
    /// Delivered once more.
    pub redelivered: u64,
    /// Over because their time to live was.
    pub expired: u64,
    /// Given up.
    pub dead_lettered: u64,
    /// Left out because their message id had been seen.
    pub duplicates: u64,
    /// Deleted or purged.
    pub deleted: u64,
    /// Receives that wait at the partition's shard: told with one of its partitions.
    pub waiting: u32,
    /// The consumer that has an exclusive queue at the partition's shard; else empty.
    pub active: String,
}

impl From<QueuePartition<'_>> for QueuePartitionDescription {
    fn from(of: QueuePartition<'_>) -> QueuePartitionDescription {
        QueuePartitionDescription {
            partition: of.partition,
            uid: of.partition_uid,
            node: of.node,
            shard: of.shard,
            error: of.error,
            settled_to: of.settled_to,
            looked_to: of.looked_to,
            committed_end: of.committed_end,
            ready: of.ready,
            leased: of.leased,
            delayed: of.delayed,
            dead: of.dead,
            oldest_us: (of.oldest_us != TIME_NONE_US).then_some(of.oldest_us),
            acked: of.acked,
            redelivered: of.redelivered,
            expired: of.expired,
            dead_lettered: of.dead_lettered,
            duplicates: of.duplicates,
            deleted: of.deleted,
            waiting: of.waiting,
            active: of.active.to_string(),
        }
    }
}

impl From<DescribeQueueReply<'_>> for QueueDescription {
    fn from(of: DescribeQueueReply<'_>) -> QueueDescription {
        QueueDescription {
            uid: of.queue_uid,
            name: of.name.to_string(),
            topic: of.topic.to_string(),
            created_us: of.created_us,
            settings: of.settings.iter().map(TopicSetting::from).collect(),
            partitions: of.partitions.iter().map(QueuePartitionDescription::from).collect(),
            silent: Vec::new(),
        }
    }
}

/// Some messages of one partition, in order of offset: the answer to [`Client::browse_queue`](crate::Client::browse_queue).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BrowsedPage {
    /// Browse on from here.
    pub next: u64,
    /// Whether there is nothing from there on for now.
    pub end: bool,
    /// The messages.
    pub messages: Vec<MessageDescription>,
}

impl From<BrowseReply<'_>> for BrowsedPage {
    fn from(of: BrowseReply<'_>) -> BrowsedPage {
        BrowsedPage { next: of.next, end: of.end, messages: of.messages.iter().map(MessageDescription::from).collect() }
    }
}

/// How one message of a queue stands. Its body is read with a [`Consumer`](crate::Consumer).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageDescription {
    /// Offset.
    pub offset: u64,
    /// What it is.
    pub state: MessageState,
    /// Its priority; higher is sooner.
    pub priority: u8,
    /// How often it was delivered.
    pub deliveries: u32,
    /// The lease that it is under.
    pub lease: Option<u64>,
    /// When a delayed message is due, or a lease ends, UTC microseconds.
    pub until_us: Option<i64>,
    /// Who holds it; empty unless leased.
    pub consumer: String,
    /// Why it failed last, as far as was said; else empty.
    pub reason: String,
}

impl From<BrowsedMessage<'_>> for MessageDescription {
    fn from(of: BrowsedMessage<'_>) -> MessageDescription {
        MessageDescription {
            offset: of.offset,
            state: of.state,
            priority: of.priority,
            deliveries: of.deliveries,
            lease: (of.lease != 0).then_some(of.lease),
            until_us: (of.until_us != TIME_NONE_US).then_some(of.until_us),
            consumer: of.consumer.to_string(),
            reason: of.reason.to_string(),
        }
    }
}
