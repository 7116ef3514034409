//! The cluster's metadata: topics, partitions, consumer groups, queues, placement, nodes. A deterministic state machine on replica group 0.
//!
//! Invariants: `State::apply` depends on nothing but the state and the command (no clock, no chance, ordered maps only), so
//! every replica reaches the same state; uids are never reused; a command that is refused changes nothing.
//!
//! Not here: who proposes and when it is committed (replication/, shard/), requests and error codes (api/). The data path
//! never waits for this room: it works on the published `View`.

mod command;
mod queue_settings;
mod queues;
mod settings;
mod snapshot;
mod state;
mod stored;
mod subscriptions;
#[cfg(test)]
mod tests;
mod view;

pub use command::Command;
pub use queue_settings::{DEAD_LETTER_TOPIC, OfQueue, QUEUE_SETTINGS, QueueSettings};
pub use queues::QueueStart;
pub use settings::{OfTopic, Setting, SettingError, SettingKind, SettingTable, Settings, TOPIC_SETTINGS, TopicSettings, decimal};
pub use state::{Applied, ControlError, State, valid_topic_name};
pub use stored::StoredError;
pub use view::{GroupView, PartitionView, QueueView, TopicView, View};
