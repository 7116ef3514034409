//! Queues by name: requests into commands, views into replies.
//!
//! Not here: messages and leases.

use super::ApiError;
use super::topics::{Create, owned};
use crate::control::{Command, QueueStart, QueueView, View};
use crate::subscription::queue::QueueRules;
use tramline_wire::error::ErrorCode;
use tramline_wire::prim::List;
use tramline_wire::queue::{
    AlterQueueRequest, CreateQueueFlags, CreateQueueRequest, DeleteQueueRequest, FindQueueReply, ListQueuesReply, QueueFlags, QueueItem,
    QueueStart as WireStart,
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

/// Appends the list of all queues.
pub fn list(out: &mut Vec<u8>, view: &View) {
    let queues: Vec<_> =
        view.queues().iter().map(|queue| QueueItem { name: &queue.name, queue_uid: queue.uid.0, topic: &queue.topic_name }).collect();
    ListQueuesReply { queues: List::of(&queues) }.encode(out);
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
