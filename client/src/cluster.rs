//! The cluster: nodes, replica groups, who leads, and nodes that stand aside.
//!
//! Not here: where partitions are (`Client::metadata`).

use tramline_wire::cluster::{
    AlterClusterReply, AlterClusterRequest, ClusterAction, ClusterGroup as WireGroup, ClusterNode as WireNode, DescribeClusterReply,
    DescribeClusterRequest,
};
use tramline_wire::kind::Kind;

pub use tramline_wire::cluster::NodeState;

use crate::client::Client;
use crate::error::Error;
use crate::link::Effect;

/// The cluster, as one of its nodes knows it: [`Client::describe_cluster`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterDescription {
    /// Who answered.
    pub node: u32,
    /// Rises with every change of the metadata.
    pub view_epoch: u64,
    /// What all nodes speak.
    pub feature_level: u32,
    /// All nodes, by number, removed ones too.
    pub nodes: Vec<ClusterNode>,
    /// All replica groups, by number; 0 is the metadata's.
    pub groups: Vec<ClusterGroup>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterNode {
    /// Its number.
    pub node: u32,
    /// How many disks it had before its present one.
    pub generation: u32,
    /// What it takes part in.
    pub state: NodeState,
    /// Whether the node that answered has a connection to it, or is it.
    pub connected: bool,
    /// Its shards.
    pub shards: u16,
    /// Groups that it is known to lead.
    pub leads: u32,
    /// Replicas that it has.
    pub replicas: u32,
    /// What fails together with it; empty where nobody said.
    pub rack: String,
    /// Where it listens for other nodes; empty as long as it has not told.
    pub cluster: String,
    /// Where it listens for clients; empty as long as it has not told.
    pub client: String,
}

/// A replica group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterGroup {
    /// Its number.
    pub group: u32,
    /// Replicas that it is to have.
    pub factor: u8,
    /// The node that leads it, if that is known.
    pub leader: Option<u32>,
    /// In this term.
    pub term: u64,
    /// Partitions in it.
    pub partitions: u32,
    /// The term with which it went on without a majority, if it ever did: records that were acknowledged before may be missing.
    pub unclean_term: Option<u64>,
    /// Nodes whose replicas vote, the preferred leader first.
    pub voters: Vec<u32>,
    /// Nodes that learn it.
    pub learners: Vec<u32>,
    /// A move that is under way, in words; empty for none.
    pub moving: String,
}

impl From<WireNode<'_>> for ClusterNode {
    fn from(node: WireNode<'_>) -> ClusterNode {
        ClusterNode {
            node: node.node,
            generation: node.generation,
            state: node.state,
            connected: node.connected != 0,
            shards: node.shards,
            leads: node.leads,
            replicas: node.replicas,
            rack: node.rack.to_string(),
            cluster: node.cluster.to_string(),
            client: node.client.to_string(),
        }
    }
}

impl From<WireGroup<'_>> for ClusterGroup {
    fn from(group: WireGroup<'_>) -> ClusterGroup {
        ClusterGroup {
            group: group.group,
            factor: group.factor,
            leader: (group.leader != 0).then_some(group.leader),
            term: group.term,
            partitions: group.partitions,
            unclean_term: (group.unclean_term != 0).then_some(group.unclean_term),
            voters: group.voters.iter().collect(),
            learners: group.learners.iter().collect(),
            moving: group.moving.to_string(),
        }
    }
}

impl Client {
    /// Nodes, replica groups and who leads them, as the node that answers knows it.
    pub fn describe_cluster(&self) -> Result<ClusterDescription, Error> {
        self.shared().call(
            "describe the cluster",
            Kind::DescribeCluster,
            Effect::Repeatable,
            |meta| DescribeClusterRequest {}.encode(meta),
            |meta| {
                let reply = DescribeClusterReply::decode(meta)?;
                Ok(ClusterDescription {
                    node: reply.node,
                    view_epoch: reply.view_epoch,
                    feature_level: reply.feature_level,
                    nodes: reply.nodes.iter().map(ClusterNode::from).collect(),
                    groups: reply.groups.iter().map(ClusterGroup::from).collect(),
                })
            },
        )
    }

    /// A node stands aside: it gives its leaderships away and gets no new replicas, so that it can be stopped. Returns when that is known to the
    /// cluster; its state is `drained` when it leads nothing more that another node could lead.
    pub fn drain_node(&self, node: u32) -> Result<(), Error> {
        self.alter_cluster("drain", ClusterAction::Drain, node)
    }

    /// A node that stood aside takes part again.
    pub fn undrain_node(&self, node: u32) -> Result<(), Error> {
        self.alter_cluster("undrain", ClusterAction::Undrain, node)
    }

    /// A node leaves for good: its replicas are moved away, then its number is refused for ever. Returns when that is known to the cluster; its state is
    /// `removed` when it has no replica any more.
    pub fn remove_node(&self, node: u32) -> Result<(), Error> {
        self.alter_cluster("remove", ClusterAction::Remove, node)
    }

    /// A replica of `group` comes to node `add`, goes from node `drop`, or both. Returns when the move is planned; the group's description tells how far
    /// it is.
    pub fn move_replica(&self, group: u32, add: Option<u32>, drop: Option<u32>) -> Result<(), Error> {
        let request = AlterClusterRequest { action: ClusterAction::Move, node: add.unwrap_or(0), group, from_node: drop.unwrap_or(0) };
        self.send_alteration(&format!("move group {group}"), &request)
    }

    /// A group's move is given up: whoever it was to bring gets no replica. An error says that there is none, or that it is too far for that.
    pub fn cancel_move(&self, group: u32) -> Result<(), Error> {
        let request = AlterClusterRequest { action: ClusterAction::CancelMove, node: 0, group, from_node: 0 };
        self.send_alteration(&format!("cancel the move of group {group}"), &request)
    }

    /// A group whose majority is gone for good goes on with the replicas that can be reached. **What only the others had is lost, also what was acknowledged.** An
    /// error says that a majority is there, or that nothing is.
    pub fn unclean_recover(&self, group: u32) -> Result<(), Error> {
        let request = AlterClusterRequest { action: ClusterAction::UncleanRecover, node: 0, group, from_node: 0 };
        self.send_alteration(&format!("recover group {group}"), &request)
    }

    /// Replicas and leaderships are moved until they are even. Returns when that is planned; an error says that there is nothing to move.
    pub fn balance_cluster(&self) -> Result<(), Error> {
        self.send_alteration("balance", &AlterClusterRequest { action: ClusterAction::Balance, node: 0, group: 0, from_node: 0 })
    }

    fn alter_cluster(&self, verb: &str, action: ClusterAction, node: u32) -> Result<(), Error> {
        self.send_alteration(&format!("{verb} node {node}"), &AlterClusterRequest { action, node, group: 0, from_node: 0 })
    }

    fn send_alteration(&self, what: &str, request: &AlterClusterRequest) -> Result<(), Error> {
        let decode = |meta: &[u8]| AlterClusterReply::decode(meta).map(|_| ());
        self.shared().call(what, Kind::AlterCluster, Effect::Once, |meta| request.encode(meta), decode)
    }
}
