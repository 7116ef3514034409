//! Commands of the metadata state machine, as they are stored in the log and (later) sent between nodes. Those about nodes and groups are in `cluster_command.rs`.
//!
//! One type per version; a released version stays readable. The bytes are an rkyv archive inside the project's envelope.

use super::cluster_command::ClusterCommand;
use super::queues::QueueStart;
use super::stored::{self, StoredError};
use crate::ids::NodeId;
use rkyv::{Archive, Deserialize, Serialize};

/// Version 1 of the commands.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A node says what it has: its shards and how many data groups each carries. Sent at the first start of a cluster's first node, before it knows more
    /// about itself (`ClusterCommand::AddNode` tells the rest); it is active at once.
    RegisterNode {
        /// The node.
        node: u32,
        /// Its shards.
        shards: u16,
        /// Data groups per shard.
        groups_per_shard: u16,
    },
    /// Creates a topic.
    CreateTopic {
        /// Its name, valid by `valid_topic_name`.
        name: String,
        /// Number of partitions, at least 1.
        partitions: u32,
        /// Explicit settings, valid by `TopicSettings::parse`.
        settings: Vec<(String, String)>,
        /// UTC microseconds, chosen by the proposer.
        created_us: i64,
    },
    /// Changes settings (an empty value goes back to the default) and may add partitions.
    AlterTopic {
        /// Its name.
        name: String,
        /// New number of partitions; 0 keeps it.
        partitions: u32,
        /// Settings to change.
        settings: Vec<(String, String)>,
    },
    /// Deletes a topic.
    DeleteTopic {
        /// Its name.
        name: String,
    },
    /// Takes the next ids for producers, so that nobody else is given them.
    ReserveProducerIds {
        /// How many, 1 to [`crate::constants::PRODUCER_LEASE_IDS`].
        count: u32,
        /// None below this, chosen by the proposer: its clock in UTC microseconds. Where damage or an old copy of the metadata took a reservation back, other
        /// shards still know the ids that were given out; time goes on meanwhile.
        from: u64,
    },
    /// Creates a consumer group.
    CreateGroup {
        /// Its name, valid by `valid_topic_name`.
        name: String,
        /// UTC microseconds, chosen by the proposer.
        created_us: i64,
    },
    /// Deletes a consumer group.
    DeleteGroup {
        /// Its name.
        name: String,
        /// Which one of this name: another one is left alone.
        uid: u64,
    },
    /// Creates a queue, and its dead-letter topic where that does not exist.
    CreateQueue {
        /// Its name, valid by `valid_topic_name`.
        name: String,
        /// The name of its topic.
        topic: String,
        /// Where it begins.
        start: QueueStart,
        /// Explicit settings, valid by `QueueSettings::parse`.
        settings: Vec<(String, String)>,
        /// UTC microseconds, chosen by the proposer.
        created_us: i64,
    },
    /// Changes settings of a queue (an empty value goes back to the default), and creates its dead-letter topic where that is named anew and does not exist.
    AlterQueue {
        /// Its name.
        name: String,
        /// Settings to change.
        settings: Vec<(String, String)>,
        /// UTC microseconds, chosen by the proposer: when a dead-letter topic is created.
        altered_us: i64,
    },
    /// Deletes a queue.
    DeleteQueue {
        /// Its name.
        name: String,
    },
    /// Creates a topic with a number of replicas of its own; `CreateTopic` leaves that to the cluster.
    CreateReplicatedTopic {
        /// Its name, valid by `valid_topic_name`.
        name: String,
        /// Number of partitions, at least 1.
        partitions: u32,
        /// Explicit settings, valid by `TopicSettings::parse`.
        settings: Vec<(String, String)>,
        /// UTC microseconds, chosen by the proposer.
        created_us: i64,
        /// Replicas, at least 1.
        replicas: u8,
    },
    /// Changes what the cluster is made of.
    Cluster(Box<ClusterCommand>),
}

/// The root stands at the end of an archive: were it larger, old commands would not be found.
const _: () = assert!(size_of::<rkyv::Archived<Command>>() == 56);

impl From<ClusterCommand> for Command {
    fn from(command: ClusterCommand) -> Command {
        Command::Cluster(Box::new(command))
    }
}

impl Command {
    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        let archive = rkyv::to_bytes::<rkyv::rancor::Error>(self).expect("serialising plain values into memory cannot fail");
        stored::seal(stored::COMMAND_SCHEMA, 1, &archive)
    }

    /// The node that it takes in, or tells of anew.
    pub fn added_node(&self) -> Option<NodeId> {
        match self {
            Command::Cluster(command) => match command.as_ref() {
                ClusterCommand::AddNode(spec) => Some(NodeId(spec.node)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Reads stored bytes; checked throughout.
    pub fn decode(bytes: &[u8]) -> Result<Command, StoredError> {
        let archive = stored::open(bytes, stored::COMMAND_SCHEMA, 1)?;
        rkyv::from_bytes::<Command, rkyv::rancor::Error>(&archive).map_err(StoredError::archive)
    }
}
