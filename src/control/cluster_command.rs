//! Commands about what the cluster is made of: nodes, disks, replica groups, moves.
//!
//! Invariant: an archive's size is part of its format (the assertion below): what would make it larger goes into a box.
//!
//! Not here: what they do (`cluster.rs`), the commands of topics, consumer groups and queues (`command.rs`).

use super::moves::MoveStep;
use super::nodes::NodeState;
use crate::ids::ShardId;
use rkyv::{Archive, Deserialize, Serialize};

/// Where a node listens: once for everybody, and once per shard.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address as others reach it; empty as long as the node has not told it.
    pub host: String,
    /// The port that does not depend on the shard.
    pub port: u16,
    /// One port per shard, in order of shard.
    pub shard_ports: Vec<u16>,
}

impl Endpoint {
    /// `host:port`, for whoever does not care which shard answers; empty as long as the host is not known.
    pub fn address(&self) -> String {
        self.with(self.port)
    }

    /// `host:port` of a shard; of one that has no port of its own the common one.
    pub fn shard_address(&self, shard: ShardId) -> String {
        self.with(self.shard_ports.get(usize::from(shard.0)).copied().unwrap_or(self.port))
    }

    fn with(&self, port: u16) -> String {
        match self.host.as_str() {
            "" => String::new(),
            host if host.contains(':') => format!("[{host}]:{port}"),
            host => format!("{host}:{port}"),
        }
    }
}

/// What a node says about itself.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its number, from 1, never used again by another machine.
    pub node: u32,
    /// One life of its data directory, never 0.
    pub disk: u64,
    /// How many disks it had before this one; 0 for the first.
    pub generation: u32,
    /// Its shards.
    pub shards: u16,
    /// Groups that each shard leads, per replication factor.
    pub groups_per_shard: u16,
    /// What fails together with it; empty where nobody said.
    pub rack: String,
    /// For other nodes.
    pub cluster: Endpoint,
    /// For clients.
    pub client: Endpoint,
    /// Lowest feature level that it speaks.
    pub feature_min: u32,
    /// Highest feature level that it speaks.
    pub feature_max: u32,
}

/// What changes the cluster.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum ClusterCommand {
    /// A node joins, or one that is known tells its addresses, rack and features anew. The first one of a cluster is active at once.
    AddNode(Box<NodeSpec>),
    /// A node has come back with an empty disk; whoever proposes this has seen that the old one is not connected.
    ReplaceDisk {
        /// The node.
        node: u32,
        /// The new disk.
        disk: u64,
    },
    /// A node takes part, stands aside, or begins to leave for good.
    SetNodeState {
        /// The node.
        node: u32,
        /// What it becomes.
        state: NodeState,
    },
    /// A node that leaves, and has no replica any more, is gone.
    RemoveNode {
        /// The node.
        node: u32,
    },
    /// Makes the groups of one replication factor: as many for each shard of each active node as that said; those that are there count.
    CreateGroups {
        /// Replicas of each.
        replicas: u8,
    },
    /// Plans one change of the nodes that have a group.
    PlanMove {
        /// The group; 0 for the metadata's.
        group: u32,
        /// The node that gets a replica; the shard follows from the group's home.
        add: Option<u32>,
        /// The node that gives its replica up.
        drop: Option<u32>,
    },
    /// The group's leader has brought a move so far.
    NoteMove {
        /// The move.
        id: u64,
        /// The step that has ended.
        step: MoveStep,
        /// Index, in the group, of the configuration that it made.
        conf_index: u64,
    },
    /// A move that has not made a voter yet is given up.
    CancelMove {
        /// The move.
        id: u64,
    },
    /// Changes how many replicas a topic has, and with it the groups that it is in.
    SetReplicas {
        /// The topic's name.
        topic: String,
        /// Replicas.
        replicas: u8,
    },
    /// All nodes speak this level: what it gates may be used.
    SetFeatureLevel {
        /// The level.
        level: u32,
    },
    /// A majority of a group is gone for good: these go on without what only that majority had.
    UncleanRecover {
        /// The group; not 0, which cannot decide about itself.
        group: u32,
        /// Replica ids of those that are left.
        survivors: Vec<u64>,
    },
}

/// A larger archive would be looked for at another place, and old commands would not be read.
const _: () = assert!(size_of::<rkyv::Archived<ClusterCommand>>() == 32);
