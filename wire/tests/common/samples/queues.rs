//! Samples of the requests and replies of queues.

use super::{EFFECTIVE, NOW_US, REPLY, REQUEST, Sample, same};
use tramline_wire::error::ErrorCode;
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::prim::List;
use tramline_wire::queue::*;
use tramline_wire::step::*;
use tramline_wire::topics::Setting;

const QUEUE_PARTITIONS: &[QueuePartition<'static>] = &[
    QueuePartition {
        partition: 3,
        partition_uid: 0x0102_0304_0506_0708,
        node: 1,
        shard: 2,
        error: ErrorCode::Ok,
        settled_to: 900,
        looked_to: 990,
        committed_end: 1000,
        ready: 40,
        leased: 30,
        delayed: 7,
        dead: 2,
        oldest_us: NOW_US,
        acked: 1 << 33,
        redelivered: 11,
        expired: 12,
        dead_lettered: 13,
        duplicates: 14,
        deleted: 15,
        waiting: 4,
        active: "worker-1",
    },
    QueuePartition {
        partition: 4,
        partition_uid: 0x0102_0304_0506_0709,
        node: 2,
        shard: 0,
        error: ErrorCode::StorageFailed,
        settled_to: 0,
        looked_to: 0,
        committed_end: 0,
        ready: 0,
        leased: 0,
        delayed: 0,
        dead: 0,
        oldest_us: TIME_NONE_US,
        acked: 0,
        redelivered: 0,
        expired: 0,
        dead_lettered: 0,
        duplicates: 0,
        deleted: 0,
        waiting: 0,
        active: "",
    },
];
const SETTLES: &[SettleEntry<'static>] = &[
    SettleEntry { partition_uid: 1, offset: 900, lease: 77, action: SettleAction::Ack, delay_ms: 0, reason: "" },
    SettleEntry { partition_uid: 1, offset: 901, lease: 78, action: SettleAction::Nack, delay_ms: DELAY_BY_POLICY, reason: "no answer" },
    SettleEntry { partition_uid: 1, offset: 902, lease: 79, action: SettleAction::Extend, delay_ms: 60_000, reason: "" },
    SettleEntry { partition_uid: 3, offset: 5, lease: 1, action: SettleAction::Release, delay_ms: 0, reason: "" },
    SettleEntry { partition_uid: 3, offset: 6, lease: 2, action: SettleAction::Reject, delay_ms: 0, reason: "not an invoice" },
];
const BROWSED: &[BrowsedMessage<'static>] = &[
    BrowsedMessage {
        offset: 900,
        state: MessageState::Leased,
        priority: 9,
        deliveries: 2,
        lease: 77,
        until_us: NOW_US + 30_000_000,
        consumer: "worker-1",
        reason: "no answer",
    },
    BrowsedMessage {
        offset: 901,
        state: MessageState::Ready,
        priority: 0,
        deliveries: 0,
        lease: 0,
        until_us: TIME_NONE_US,
        consumer: "",
        reason: "",
    },
];

/// All of them.
pub(super) fn push(samples: &mut Vec<Sample>) {
    named(samples);
    delivered(samples);
    managed(samples);
}

fn named(samples: &mut Vec<Sample>) {
    macro_rules! sample {
        ($($sample:tt)*) => { push_sample!(samples, $($sample)*) };
    }
    sample!(
        "create_queue_request",
        CreateQueue,
        REQUEST,
        CreateQueueRequest {
            name: "invoices.print",
            topic: "invoices",
            flags: CreateQueueFlags::IF_NOT_EXISTS,
            start: QueueStart::Time,
            start_us: NOW_US,
            settings: List::of(&[Setting { key: "max.deliveries", value: "9" }, Setting { key: "paused", value: "true" }]),
        }
    );
    sample!("create_queue_reply", CreateQueue, REPLY, CreateQueueReply { queue_uid: 6, created: true });
    sample!(
        "alter_queue_request",
        AlterQueue,
        REQUEST,
        AlterQueueRequest { name: "invoices.print", settings: List::of(&[Setting { key: "paused", value: "" }]) }
    );
    sample!("alter_queue_reply", AlterQueue, REPLY, AlterQueueReply {});
    sample!("delete_queue_request", DeleteQueue, REQUEST, DeleteQueueRequest { name: "invoices.print" });
    sample!("delete_queue_reply", DeleteQueue, REPLY, DeleteQueueReply {});
    sample!("list_queues_request", ListQueues, REQUEST, ListQueuesRequest { after: "invoices" });
    sample!(
        "list_queues_reply",
        ListQueues,
        REPLY,
        ListQueuesReply { more: false, queues: List::of(&[QueueItem { name: "invoices.print", queue_uid: 6, topic: "invoices" }]) }
    );
    sample!("find_queue_request", FindQueue, REQUEST, FindQueueRequest { name: "invoices.print" });
    sample!(
        "find_queue_reply",
        FindQueue,
        REPLY,
        FindQueueReply { queue_uid: 6, topic_uid: 42, topic: "invoices", visibility_timeout_ms: 30_000, flags: QueueFlags::EXCLUSIVE }
    );
    sample!("describe_queue_request", DescribeQueue, REQUEST, DescribeQueueRequest { name: "invoices.print", first_partition: 3 });
    sample!(
        "describe_queue_reply",
        DescribeQueue,
        REPLY,
        DescribeQueueReply {
            queue_uid: 6,
            name: "invoices.print",
            topic: "invoices",
            created_us: NOW_US,
            settings: List::of(EFFECTIVE),
            more: true,
            partitions: List::of(QUEUE_PARTITIONS),
        }
    );
}

fn delivered(samples: &mut Vec<Sample>) {
    macro_rules! sample {
        ($($sample:tt)*) => { push_sample!(samples, $($sample)*) };
    }
    sample!(
        "receive_request",
        Receive,
        REQUEST,
        ReceiveRequest {
            queue_uid: 6,
            max_messages: 100,
            max_bytes: 1 << 20,
            wait_ms: 5000,
            visibility_ms: 60_000,
            consumer: "worker-1",
            partitions: List::of(&[1, 3]),
        }
    );
    sample!(
        "receive_reply",
        Receive,
        REPLY,
        ReceiveReply {
            throttle_ms: 7,
            entries: List::of(&[
                Received {
                    partition_uid: 1,
                    error: ErrorCode::Ok,
                    payload_bytes: 0,
                    deliveries: List::of(&[
                        Delivery { offset: 900, lease: 77, deliveries: 1 },
                        Delivery { offset: 902, lease: 0x0102_0304_0506_0708, deliveries: 3 },
                    ]),
                },
                Received { partition_uid: 3, error: ErrorCode::NotLeader, payload_bytes: 0, deliveries: List::of(&[]) },
            ]),
        }
    );
    sample!("settle_request", Settle, REQUEST, SettleRequest { queue_uid: 6, consumer: "worker-1", entries: List::of(SETTLES) });
    sample!(
        "settle_reply",
        Settle,
        REPLY,
        SettleReply {
            throttle_ms: 0,
            entries: List::of(&[
                SettledMessage { partition_uid: 1, offset: 900, error: ErrorCode::Ok },
                SettledMessage { partition_uid: 1, offset: 901, error: ErrorCode::LeaseExpired },
                SettledMessage { partition_uid: 1, offset: 902, error: ErrorCode::LeaseLost },
                SettledMessage { partition_uid: 3, offset: 5, error: ErrorCode::UnknownLease },
                SettledMessage { partition_uid: 3, offset: 6, error: ErrorCode::NotLeader },
            ]),
        }
    );
}

fn managed(samples: &mut Vec<Sample>) {
    macro_rules! sample {
        ($($sample:tt)*) => { push_sample!(samples, $($sample)*) };
    }
    sample!(
        "browse_request",
        Browse,
        REQUEST,
        BrowseRequest { queue_uid: 6, partition_uid: 1, from: 900, max_messages: 100, state: BrowseState::Leased }
    );
    sample!("browse_reply", Browse, REPLY, BrowseReply { next: 902, end: true, messages: List::of(BROWSED) });
    sample!("purge_request", Purge, REQUEST, PurgeRequest { queue_uid: 6, partitions: List::of(&[1, 3]) });
    sample!(
        "purge_reply",
        Purge,
        REPLY,
        PurgeReply {
            entries: List::of(&[
                Purged { partition_uid: 1, error: ErrorCode::Ok, purged: 79 },
                Purged { partition_uid: 3, error: ErrorCode::UnknownPartition, purged: 0 },
            ]),
        }
    );
    sample!(
        "delete_messages_request",
        DeleteMessages,
        REQUEST,
        DeleteMessagesRequest {
            queue_uid: 6,
            entries: List::of(&[MessageAt { partition_uid: 1, offset: 900 }, MessageAt { partition_uid: 1, offset: 2 }]),
        }
    );
    sample!(
        "delete_messages_reply",
        DeleteMessages,
        REPLY,
        DeleteMessagesReply {
            entries: List::of(&[
                SettledMessage { partition_uid: 1, offset: 900, error: ErrorCode::Ok },
                SettledMessage { partition_uid: 1, offset: 2, error: ErrorCode::UnknownMessage },
            ]),
        }
    );
    sample!(
        "redrive_request",
        Redrive,
        REQUEST,
        RedriveRequest { queue_uid: 6, flags: RedriveFlags::DRY_RUN, max_messages: 10, partitions: List::of(&[1]) }
    );
    sample!(
        "redrive_reply",
        Redrive,
        REPLY,
        RedriveReply { entries: List::of(&[Redriven { partition_uid: 1, error: ErrorCode::Ok, redriven: 2 }]) }
    );
    sample!(
        "step_request",
        Step,
        REQUEST,
        StepRequest {
            flags: 0,
            acks: List::of(&[StepAck { queue_uid: 6, partition_uid: 1, offset: 900, lease: 7 }]),
            commits: List::of(&[StepCommit { group_uid: 4, partition_uid: 3, assignment_epoch: 2, offset: 50, metadata: "here" }]),
            entries: List::of(&[]),
        }
    );
    sample!(
        "step_reply",
        Step,
        REPLY,
        StepReply {
            level_reached: Level::Durable,
            throttle_ms: 0,
            results: List::of(&[StepResult { partition_uid: 1, base_offset: 901, append_time_us: 1_700_000_000_000_000 }]),
        }
    );
}
