//! The table of a queue's settings.
//!
//! Not here: how settings are checked and kept (`settings.rs`), what they do (subscription/).

use super::settings::{Setting, SettingKind, SettingTable, Settings};

/// Settings of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfQueue;

impl SettingTable for OfQueue {
    const OF: &'static str = "queue";
    const TABLE: &'static [Setting] = QUEUE_SETTINGS;
}

/// The settings of one queue.
pub type QueueSettings = Settings<OfQueue>;

/// The key of the setting that names where dead messages go.
pub const DEAD_LETTER_TOPIC: &str = "dead.letter.topic";

/// Every setting of a queue, in alphabetical order.
pub const QUEUE_SETTINGS: &[Setting] = &[
    Setting {
        key: "consumer.timeout.ms",
        kind: SettingKind::Integer { min: 1_000, max: 3_600_000, unlimited: false },
        unit: "milliseconds",
        default: "10000",
        doc: "Exclusive queues: a holder that was not heard of for so long, and has no lease, loses the partitions of a shard to the next consumer; at once where its connection is closed.",
    },
    Setting {
        key: DEAD_LETTER_TOPIC,
        kind: SettingKind::Topic,
        unit: "",
        default: "",
        doc: "Where dead messages go; created where it does not exist, with as many partitions as the queue's topic and beside them (`co.locate`). Empty: they stay in the queue as dead.",
    },
    Setting {
        key: "dedup.window.ms",
        kind: SettingKind::Integer { min: 0, max: 86_400_000, unlimited: false },
        unit: "milliseconds",
        default: "300000",
        doc: "A message whose id was seen in its partition within this time is not delivered; of more than 1,000,000 ids the oldest are forgotten. 0: ids are not looked at.",
    },
    Setting {
        key: "exclusive",
        kind: SettingKind::Word(&["false", "true"]),
        unit: "",
        default: "false",
        doc: "Whether one consumer at a time has the partitions of a shard, and the others wait until it has gone.",
    },
    Setting {
        key: "max.deliveries",
        kind: SettingKind::Integer { min: 1, max: 65_535, unlimited: true },
        unit: "deliveries",
        default: "5",
        doc: "A message that was delivered so often and not acknowledged is dead. -1: it is delivered for ever.",
    },
    Setting {
        key: "max.in.flight",
        kind: SettingKind::Integer { min: 1, max: 20_000_000, unlimited: false },
        unit: "messages per partition",
        default: "100000",
        doc: "Messages under lease, of all consumers together; beyond it nothing is delivered until some are settled.",
    },
    Setting {
        key: "max.in.flight.per.consumer",
        kind: SettingKind::Integer { min: 1, max: 20_000_000, unlimited: false },
        unit: "messages per partition",
        default: "20000",
        doc: "The same for each consumer.",
    },
    Setting {
        key: "paused",
        kind: SettingKind::Word(&["false", "true"]),
        unit: "",
        default: "false",
        doc: "Whether nothing is delivered for now; what is leased can be settled.",
    },
    Setting {
        key: "retry.initial.ms",
        kind: SettingKind::Integer { min: 0, max: 86_400_000, unlimited: false },
        unit: "milliseconds",
        default: "1000",
        doc: "Delay before a failed message is delivered for the second time.",
    },
    Setting {
        key: "retry.jitter.percent",
        kind: SettingKind::Integer { min: 0, max: 100, unlimited: false },
        unit: "per cent",
        default: "10",
        doc: "How much each delay is changed at random, up or down, so that what failed together does not come back together.",
    },
    Setting {
        key: "retry.max.ms",
        kind: SettingKind::Integer { min: 0, max: 86_400_000, unlimited: false },
        unit: "milliseconds",
        default: "300000",
        doc: "The longest delay that the multiplier leads to.",
    },
    Setting {
        key: "retry.multiplier",
        kind: SettingKind::Decimal { min: 100, max: 10_000 },
        unit: "",
        default: "2",
        doc: "By what the delay grows with each further delivery.",
    },
    Setting {
        key: "visibility.timeout.ms",
        kind: SettingKind::Integer { min: 100, max: 43_200_000, unlimited: false },
        unit: "milliseconds",
        default: "30000",
        doc: "How long a lease lasts where a consumer says nothing else.",
    },
];
