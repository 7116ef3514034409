//! The cluster's metadata: topics, partitions, consumer groups, queues, nodes, replica groups, placement. A deterministic state machine on replica group 0.
//!
//! Invariants: `State::apply` depends on nothing but the state and the command (no clock, no chance, ordered maps only), so
//! every replica reaches the same state; uids are never reused; a command that is refused changes nothing.
//!
//! Not here: who proposes and when it is committed (replication/, shard/), requests and error codes (api/). The data path
//! never waits for this room: it works on the published `View`.

mod cluster;
mod cluster_command;
mod cluster_error;
mod command;
mod error;
mod groups;
mod joined;
mod moves;
mod nodes;
mod placement;
mod queue_settings;
mod queues;
mod settings;
mod snapshot;
mod snapshot_cluster;
mod state;
mod stored;
mod subscriptions;
#[cfg(test)]
mod tests;
mod view;
mod view_cluster;

pub use cluster_command::{ClusterCommand, Endpoint, NodeSpec};
pub use cluster_error::ClusterError;
pub use command::Command;
pub use error::ControlError;
pub use joined::Joined;
pub use moves::MoveStep;
pub use nodes::NodeState;
pub use queue_settings::{DEAD_LETTER_TOPIC, OfQueue, QUEUE_SETTINGS, QueueSettings};
pub use queues::QueueStart;
pub use settings::{OfTopic, Setting, SettingError, SettingKind, SettingTable, Settings, TOPIC_SETTINGS, TopicSettings, decimal};
pub use state::{Applied, State, valid_topic_name};
pub use stored::StoredError;
pub use view::{GroupView, PartitionView, QueueView, TopicView, View};
pub use view_cluster::{ClusterView, MoveView, NodeView, ReplicaGroupView, ReplicaView, UncleanView};
