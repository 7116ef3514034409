//! Why commands are refused: one enum for all, each with a sentence that says what would be right.
//!
//! Invariant: a command that is refused has changed nothing.
//!
//! Not here: who is told and with which code (api/).

use super::cluster_error::ClusterError;
use super::settings::SettingError;
use crate::constants::TOPIC_NAME_BYTES_MAX;
use std::fmt;

/// Why a command was refused. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlError {
    /// No topic of this name.
    UnknownTopic(String),
    /// There is one already.
    TopicExists(String),
    /// Not a name.
    InvalidName(String),
    /// No consumer group of this name (and identity).
    UnknownGroup(String),
    /// There is one already.
    GroupExists(String),
    /// Not a name of a consumer group.
    InvalidGroupName(String),
    /// No queue of this name.
    UnknownQueue(String),
    /// There is one already.
    QueueExists(String),
    /// Not a name of a queue.
    InvalidQueueName(String),
    /// Dead messages would come back to where they came from.
    DeadLetterCircle {
        /// The queue's topic.
        topic: String,
        /// Where its dead messages would go.
        dead_letter: String,
    },
    /// A setting.
    Setting(SettingError),
    /// A number of partitions that cannot be.
    Partitions(String),
    /// A limit of the cluster.
    Limit(String),
    /// No node has registered yet.
    NoNodes,
    /// Nodes, groups or moves.
    Cluster(ClusterError),
}

impl From<ClusterError> for ControlError {
    fn from(cause: ClusterError) -> ControlError {
        ControlError::Cluster(cause)
    }
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ControlError::UnknownTopic(name) => write!(f, "topic {name:?} does not exist"),
            ControlError::TopicExists(name) => write!(f, "topic {name:?} exists already"),
            ControlError::InvalidName(name) => write!(
                f,
                "{name:?} is not a topic name: 1 to {TOPIC_NAME_BYTES_MAX} of the characters a-z, A-Z, 0-9, '.', '_' and '-', not only dots"
            ),
            ControlError::UnknownGroup(name) => write!(f, "consumer group {name:?} does not exist"),
            ControlError::GroupExists(name) => write!(f, "consumer group {name:?} exists already"),
            ControlError::InvalidGroupName(name) => write!(
                f,
                "{name:?} is not a name of a consumer group: 1 to {TOPIC_NAME_BYTES_MAX} of the characters a-z, A-Z, 0-9, '.', '_' and '-', not only dots"
            ),
            ControlError::UnknownQueue(name) => write!(f, "queue {name:?} does not exist"),
            ControlError::QueueExists(name) => write!(f, "queue {name:?} exists already"),
            ControlError::InvalidQueueName(name) => write!(
                f,
                "{name:?} is not a name of a queue: 1 to {TOPIC_NAME_BYTES_MAX} of the characters a-z, A-Z, 0-9, '.', '_' and '-', not only dots"
            ),
            ControlError::DeadLetterCircle { topic, dead_letter } if topic == dead_letter => {
                write!(f, "topic {topic:?} cannot be its own dead-letter topic: choose another")
            }
            ControlError::DeadLetterCircle { topic, dead_letter } => write!(
                f,
                "dead messages of {dead_letter:?} lead back to {topic:?}, by the queues' dead-letter topics: choose another dead-letter topic"
            ),
            ControlError::Setting(cause) => cause.fmt(f),
            ControlError::Partitions(what) | ControlError::Limit(what) => f.write_str(what),
            ControlError::Cluster(cause) => cause.fmt(f),
            ControlError::NoNodes => f.write_str("the cluster has no registered node yet: try again"),
        }
    }
}

impl std::error::Error for ControlError {}
