//! Why a command about nodes, groups or moves was refused, with what would be right.
//!
//! Not here: refusals of topics, consumer groups and queues (`error.rs`).

use super::moves::MoveStep;
use super::nodes::NodeState;
use crate::ids::{GroupId, MoveId, NodeId};
use std::fmt;

/// Why a command about the cluster was refused. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterError {
    /// What a node said about itself cannot be; what, and what can.
    Spec(NodeId, String),
    /// No such node.
    UnknownNode(NodeId),
    /// The node was removed, and its number with it.
    RemovedNode(NodeId),
    /// The node's number belongs to another disk.
    OtherDisk(NodeId),
    /// A disk that this node had before, or that another node has or had.
    KnownDisk {
        /// The disk.
        disk: u64,
        /// Whose it is or was.
        of: NodeId,
    },
    /// The node is in another state.
    State {
        /// The node.
        node: NodeId,
        /// Its state.
        is: NodeState,
        /// What it was to become, or what was to be done.
        wanted: String,
    },
    /// No feature level in common.
    Feature(String),
    /// A factor that the cluster has too few nodes for.
    TooFewNodes {
        /// Who asks for it.
        what: String,
        /// The factor.
        replicas: u8,
        /// Nodes that there are, or would be left.
        nodes: usize,
    },
    /// No factor.
    Replicas(u8),
    /// No groups of this factor have been made, or none can take partitions.
    NoGroups(u8),
    /// A group would have no majority.
    Majority {
        /// The group.
        group: GroupId,
        /// Replicas that would be left.
        left: usize,
        /// Of so many.
        of: usize,
        /// What would be left without it.
        why: String,
    },
    /// The node has a replica.
    HasReplica(NodeId, GroupId),
    /// No such group.
    UnknownGroup(GroupId),
    /// The group is being moved.
    Moving(GroupId, MoveId),
    /// No such move is under way.
    UnknownMove(MoveId),
    /// A step that this move has not, or that has passed the point.
    Step {
        /// The move.
        id: MoveId,
        /// How far it is.
        at: MoveStep,
        /// What was asked.
        wanted: String,
    },
    /// The plan cannot be.
    Plan(GroupId, String),
    /// A limit of the cluster.
    Limit(String),
    /// Survivors that cannot go on.
    Survivors(GroupId, String),
}

impl fmt::Display for ClusterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClusterError::Spec(node, what) => write!(f, "node {node}: {what}"),
            ClusterError::UnknownNode(node) => write!(f, "the cluster has no node {node}"),
            ClusterError::RemovedNode(node) => {
                write!(f, "node {node} was removed from the cluster: join with another --node-id, on an empty --data-dir")
            }
            ClusterError::OtherDisk(node) => write!(
                f,
                "node {node} is in the cluster with another disk, so this --node-id is taken: choose another one, or, if that disk is gone, stop the process that has it and join again"
            ),
            ClusterError::KnownDisk { disk, of } => {
                write!(
                    f,
                    "disk {disk:016x} was seen before, on node {of}: a data directory is not copied or brought back; start on an empty one"
                )
            }
            ClusterError::State { node, is, wanted } => write!(f, "node {node} is {is}: {wanted}"),
            ClusterError::Feature(what) | ClusterError::Limit(what) => f.write_str(what),
            ClusterError::TooFewNodes { what, replicas, nodes } => {
                write!(f, "{what} asks for {replicas} replicas, and {nodes} nodes can have one each: add nodes or ask for fewer")
            }
            ClusterError::Replicas(replicas) => {
                write!(f, "a topic has 1 to {} replicas, not {replicas}", crate::constants::REPLICAS_MAX)
            }
            ClusterError::NoGroups(replicas) => {
                write!(
                    f,
                    "no replica group with {replicas} replicas can take partitions yet: groups have to be created, or nodes become active"
                )
            }
            ClusterError::Majority { group, left, of, why } => {
                write!(f, "replica group {group} has {left} of {of} replicas {why}, which is no majority: bring the others back first")
            }
            ClusterError::HasReplica(node, group) => {
                write!(
                    f,
                    "node {node} still has a replica of group {group}: it is moved away first (a topic whose only replica is lost has to be deleted)"
                )
            }
            ClusterError::UnknownGroup(group) => write!(f, "there is no replica group {group}"),
            ClusterError::Moving(group, id) => write!(f, "replica group {group} is being moved (move {id}): wait for it or cancel it"),
            ClusterError::UnknownMove(id) => write!(f, "move {id} is not under way: it has ended or was cancelled"),
            ClusterError::Step { id, at, wanted } => write!(f, "move {id} is at step {at}: {wanted}"),
            ClusterError::Plan(group, what) => write!(f, "replica group {group} cannot be moved so: {what}"),
            ClusterError::Survivors(group, what) => write!(f, "replica group {group} is not recovered so: {what}"),
        }
    }
}

impl std::error::Error for ClusterError {}
