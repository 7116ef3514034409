//! Queues by name: requests into commands, views into replies.
//!
//! Not here: messages and leases.

use super::ApiError;
use super::metadata::Lead;
use super::topics::{Create, owned, told};
use crate::constants::{QUEUE_PARTITIONS_AT_ONCE, QUEUES_AT_ONCE};
use crate::control::{Command, PartitionView, QueueStart, QueueView, TopicView, View};
use crate::shard::mesh::QueueStatus;
use crate::subscription::queue::QueueRules;
use tramline_wire::error::ErrorCode;
use tramline_wire::prim::List;
use tramline_wire::queue::{
    AlterQueueRequest, CreateQueueFlags, CreateQueueRequest, DeleteQueueRequest, DescribeQueueReply, FindQueueReply, ListQueuesReply,
    ListQueuesRequest, QueueFlags, QueueItem, QueuePartition, QueueStart as WireStart, TIME_NONE_US,
};

/// Decodes a create request; `utc_us` becomes the queue's birthday.
pub fn create(meta: &[u8], utc_us: i64) -> Result<Create, ApiError> {
    let request = CreateQueueRequest::decode(meta)?;
    let start = match request.start {
        WireStart::Time if request.start_us < 0 => {
            let message = format!("a queue cannot start at time {}: microseconds since 1970, UTC, are not negative", request.start_us);
            return Err(ApiError::new(ErrorCode::InvalidRequest, message));
        }
        WireStart::Time => QueueStart::Time(request.start_us),
        start if request.start_us != 0 => {
            let message = format!("a queue that starts with the {} has no start time: start_us is {}", start.name(), request.start_us);
            return Err(ApiError::new(ErrorCode::InvalidRequest, message));
        }
        WireStart::Latest => QueueStart::Latest,
        WireStart::Earliest => QueueStart::Earliest,
    };
    let command = Command::CreateQueue {
        name: request.name.to_owned(),
        topic: request.topic.to_owned(),
        start,
        settings: owned(&request.settings),
        created_us: utc_us,
    };
    Ok(Create {
        command,
        if_not_exists: request.flags.has(CreateQueueFlags::IF_NOT_EXISTS),
        validate_only: request.flags.has(CreateQueueFlags::VALIDATE_ONLY),
    })
}

/// Decodes an alter request; `utc_us` becomes the birthday of a dead-letter topic that is created.
pub fn alter(meta: &[u8], utc_us: i64) -> Result<Command, ApiError> {
    let request = AlterQueueRequest::decode(meta)?;
    Ok(Command::AlterQueue { name: request.name.to_owned(), settings: owned(&request.settings), altered_us: utc_us })
}

/// Decodes a delete request.
pub fn delete(meta: &[u8]) -> Result<Command, ApiError> {
    Ok(Command::DeleteQueue { name: DeleteQueueRequest::decode(meta)?.name.to_owned() })
}

/// Decodes a request for a list, and appends as much of it as one reply holds.
pub fn list(out: &mut Vec<u8>, meta: &[u8], view: &View) -> Result<(), ApiError> {
    let after = ListQueuesRequest::decode(meta)?.after;
    let behind = &view.queues()[view.queues().partition_point(|queue| queue.name.as_str() <= after)..];
    let now = &behind[..behind.len().min(QUEUES_AT_ONCE)];
    let queues: Vec<_> =
        now.iter().map(|queue| QueueItem { name: &queue.name, queue_uid: queue.uid.0, topic: &queue.topic_name }).collect();
    ListQueuesReply { more: now.len() < behind.len(), queues: List::of(&queues) }.encode(out);
    Ok(())
}

/// The partitions that one reply tells of, from a number on, and whether there are more.
pub fn page(topic: &TopicView, first_partition: u32) -> (&[PartitionView], bool) {
    let behind = &topic.partitions[topic.partitions.partition_point(|place| place.number < first_partition)..];
    let now = &behind[..behind.len().min(QUEUE_PARTITIONS_AT_ONCE)];
    (now, now.len() < behind.len())
}

/// Appends what a consumer has to know of a queue.
pub fn found(out: &mut Vec<u8>, queue: &QueueView, rules: &QueueRules) {
    let flag = |is_set, flag| if is_set { flag } else { QueueFlags::default() };
    let reply = FindQueueReply {
        queue_uid: queue.uid.0,
        topic_uid: queue.topic.0,
        topic: &queue.topic_name,
        visibility_timeout_ms: (rules.visibility_timeout_us / 1000) as u32,
        flags: flag(rules.paused, QueueFlags::PAUSED).with(flag(rules.exclusive, QueueFlags::EXCLUSIVE)),
    };
    reply.encode(out);
}

/// Appends what is known of a queue and of its partitions from a number on; of one that no shard has told of (another node leads it) there are no numbers.
/// `lead` tells who leads a partition.
pub(crate) fn describe(
    out: &mut Vec<u8>,
    queue: &QueueView,
    topic: &TopicView,
    first_partition: u32,
    status: &[QueueStatus],
    lead: impl Fn(&PartitionView) -> Lead,
) {
    let settings = told(&queue.settings);
    let none = QueueStatus { oldest_us: TIME_NONE_US, ..QueueStatus::default() };
    let mut sorted: Vec<_> = status.iter().collect();
    sorted.sort_unstable_by_key(|status| status.uid);
    let (places, more) = page(topic, first_partition);
    let partitions: Vec<_> = places
        .iter()
        .map(|place| {
            let found = sorted.binary_search_by_key(&place.uid, |status| status.uid).ok().map(|at| sorted[at]);
            let (of, lead) = (found.unwrap_or(&none), lead(place));
            QueuePartition {
                partition: place.number,
                partition_uid: place.uid.0,
                node: lead.node.0,
                shard: lead.shard.0,
                error: if found.is_some() { ErrorCode::Ok } else { ErrorCode::NotReady },
                settled_to: of.settled_to,
                looked_to: of.looked_to,
                committed_end: of.committed_end,
                ready: of.ready,
                leased: of.leased,
                delayed: of.delayed,
                dead: of.dead,
                oldest_us: of.oldest_us,
                acked: of.counts.acked,
                redelivered: of.counts.redelivered,
                expired: of.counts.expired,
                dead_lettered: of.counts.dead_lettered,
                duplicates: of.counts.duplicates,
                deleted: of.counts.deleted,
                waiting: of.waiting,
                active: std::str::from_utf8(&of.holder).unwrap_or(""),
            }
        })
        .collect();
    DescribeQueueReply {
        queue_uid: queue.uid.0,
        name: &queue.name,
        topic: &queue.topic_name,
        created_us: queue.created_us,
        settings: List::of(&settings),
        more,
        partitions: List::of(&partitions),
    }
    .encode(out);
}
