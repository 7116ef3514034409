//! Requests: one file per request (or family), decoding and answering. The only map from the rooms' errors to codes.
//!
//! Invariants: nothing here changes state; a request is checked whole before anything is done for it.
//! Not here: what is done (shard/), the layouts (the wire crate).

pub mod cluster;
pub mod fetch;
pub mod groups;
pub mod hello;
pub mod list_offsets;
pub mod metadata;
pub mod produce;
pub mod producer;
pub mod queue_messages;
pub mod queues;
pub mod storage;
pub mod topics;
pub mod trim;

use crate::config::Settings;
use crate::constants::{FEATURE_LEVEL, FEATURE_LEVEL_MIN};
use crate::control::{ClusterError, ControlError, Endpoint, NodeSpec, SettingError};
use crate::ids::NodeId;
use tramline_wire::batch::BatchError;
use tramline_wire::error::ErrorCode;
use tramline_wire::prim::DecodeError;

/// Why a request is refused, as the client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The code.
    pub code: ErrorCode,
    /// A sentence; empty for the code's own.
    pub message: String,
    /// The address to try next; empty for none.
    pub next: String,
}

impl ApiError {
    /// An error with the code's own sentence.
    pub fn of(code: ErrorCode) -> ApiError {
        ApiError { code, message: String::new(), next: String::new() }
    }

    /// An error with a sentence of its own.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> ApiError {
        ApiError { code, message: message.into(), next: String::new() }
    }
}

impl From<DecodeError> for ApiError {
    fn from(error: DecodeError) -> ApiError {
        ApiError::new(error.code(), error.to_string())
    }
}

impl From<BatchError> for ApiError {
    fn from(error: BatchError) -> ApiError {
        ApiError::new(error.code(), error.to_string())
    }
}

impl From<&ControlError> for ApiError {
    fn from(error: &ControlError) -> ApiError {
        let code = match error {
            ControlError::UnknownTopic(_) => ErrorCode::UnknownTopic,
            ControlError::TopicExists(_) => ErrorCode::TopicExists,
            ControlError::InvalidName(_) => ErrorCode::InvalidTopicName,
            ControlError::UnknownGroup(_) => ErrorCode::UnknownGroup,
            ControlError::InvalidGroupName(_) => ErrorCode::InvalidGroupName,
            // Who creates a group asks for it to be there, so this is none that a client sees.
            ControlError::GroupExists(_) => ErrorCode::InvalidRequest,
            ControlError::UnknownQueue(_) => ErrorCode::UnknownQueue,
            ControlError::QueueExists(_) => ErrorCode::QueueExists,
            ControlError::InvalidQueueName(_) => ErrorCode::InvalidQueueName,
            ControlError::DeadLetterCircle { .. } => ErrorCode::DeadLetterCircle,
            ControlError::Setting(SettingError::Unknown { .. }) => ErrorCode::UnknownSetting,
            ControlError::Setting(SettingError::Invalid { .. }) => ErrorCode::InvalidSetting,
            ControlError::Partitions(_) => ErrorCode::InvalidRequest,
            ControlError::Limit(_) => ErrorCode::LimitExceeded,
            ControlError::NoNodes | ControlError::Cluster(ClusterError::NoGroups(_)) => ErrorCode::NotReady,
            ControlError::Cluster(ClusterError::Limit(_)) => ErrorCode::LimitExceeded,
            ControlError::Cluster(_) => ErrorCode::InvalidRequest,
        };
        ApiError::new(code, error.to_string())
    }
}

/// What clients are told about this node.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// The node.
    pub node: NodeId,
    /// The cluster's identity.
    pub cluster_id: [u8; 16],
    /// Where clients find it: the advertised host, the port every shard accepts on, one port per shard.
    pub client: Endpoint,
    /// The life of its data directory: random at that directory's first start.
    pub disk: u64,
    /// How many disks it had before this one.
    pub generation: u32,
    /// What fails together with it; empty where nobody said.
    pub rack: String,
    /// Where it listens for other nodes; `None`: it is a cluster of one.
    pub cluster: Option<Endpoint>,
}

impl NodeInfo {
    /// What the metadata are told of it. The address for other nodes is empty of a node that is a cluster of one.
    pub fn spec(&self, settings: &Settings) -> NodeSpec {
        NodeSpec {
            node: self.node.0,
            disk: self.disk,
            generation: self.generation,
            shards: settings.shards,
            // At most `GROUPS_PER_SHARD_MAX`.
            groups_per_shard: settings.groups_per_shard as u16,
            rack: self.rack.clone(),
            cluster: self.cluster.clone().unwrap_or_default(),
            client: self.client.clone(),
            feature_min: FEATURE_LEVEL_MIN,
            feature_max: FEATURE_LEVEL,
        }
    }
}
