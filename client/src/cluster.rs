//! The cluster: nodes, replica groups, who leads, and nodes that stand aside.
//!
//! One node knows by its replicas who leads a group, or by what the leader told; which nodes reach each other each one knows for itself. A survey asks them all.
//!
//! Not here: where partitions are (`Client::metadata`).

use std::time::Instant;

use tramline_wire::cluster::{
    AlterClusterReply, AlterClusterRequest, ClusterAction, ClusterGroup as WireGroup, ClusterNode as WireNode, DescribeClusterReply,
    DescribeClusterRequest,
};
use tramline_wire::kind::Kind;
use tramline_wire::prim::DecodeError;

pub use tramline_wire::cluster::NodeState;

use crate::admin::Shared;
use crate::client::Client;
use crate::error::Error;
use crate::everywhere::{Asked, Place, SilentNode};
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

/// The cluster, as all of its nodes that answer know it: [`Client::survey_cluster`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSurvey {
    /// What they know together: nodes and groups as of the newest metadata, of each group the leader of the highest term that anybody knows; `connected` of a
    /// node is that all who answered have a connection to it; `node` is one of those with the newest metadata.
    pub cluster: ClusterDescription,
    /// What each of them told, by number of the node.
    pub answers: Vec<ClusterDescription>,
    /// Nodes that did not answer.
    pub silent: Vec<SilentNode>,
}

impl ClusterSurvey {
    /// Of at least one answer.
    fn of(mut answers: Vec<ClusterDescription>, silent: Vec<SilentNode>) -> ClusterSurvey {
        answers.sort_by_key(|answer| answer.node);
        let newest = answers.iter().max_by_key(|answer| answer.view_epoch).expect("one has answered");
        let mut cluster = newest.clone();
        for group in &mut cluster.groups {
            let told = answers.iter().flat_map(|answer| &answer.groups).filter(|told| told.group == group.group && told.leader.is_some());
            if let Some(told) = told.max_by_key(|told| told.term) {
                (group.leader, group.term) = (told.leader, told.term);
            }
        }
        for node in &mut cluster.nodes {
            let mut told = answers.iter().flat_map(|answer| &answer.nodes).filter(|told| told.node == node.node);
            node.connected = told.all(|told| told.connected);
            node.leads = cluster.groups.iter().filter(|group| group.leader == Some(node.node)).count() as u32;
        }
        ClusterSurvey { cluster, answers, silent }
    }
}

impl ClusterDescription {
    /// Where its nodes are asked. Those that were removed are gone.
    pub(crate) fn places(&self) -> Vec<Place> {
        let there = self.nodes.iter().filter(|node| node.state != NodeState::Removed);
        there.map(|node| Place { node: node.node, address: node.client.clone() }).collect()
    }
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
    /// Nodes, replica groups and who leads them, as the node that answers knows it. Of groups that it has no replica of it knows what their leaders told, and
    /// nothing where it does not reach them: see [`survey_cluster`](Self::survey_cluster).
    pub fn describe_cluster(&self) -> Result<ClusterDescription, Error> {
        self.shared().cluster_of_one(self.shared().deadline())
    }

    /// The same, asked of every node.
    pub fn survey_cluster(&self) -> Result<ClusterSurvey, Error> {
        let (shared, deadline) = (self.shared(), self.shared().deadline());
        let first = shared.cluster_of_one(deadline)?;
        let mut places = first.places();
        places.retain(|place| place.node != first.node);
        let ask = |asked: &mut Asked<'_>| asked.call(Kind::DescribeCluster, |meta| DescribeClusterRequest {}.encode(meta), read);
        let (told, silent) = shared.ask_each(WHAT, &places, deadline, &ask);
        let answers = std::iter::once(first).chain(told.into_iter().map(|(_, answer)| answer)).collect();
        Ok(ClusterSurvey::of(answers, silent))
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

/// What is asked, in words.
const WHAT: &str = "describe the cluster";

fn read(meta: &[u8]) -> Result<ClusterDescription, DecodeError> {
    let reply = DescribeClusterReply::decode(meta)?;
    Ok(ClusterDescription {
        node: reply.node,
        view_epoch: reply.view_epoch,
        feature_level: reply.feature_level,
        nodes: reply.nodes.iter().map(ClusterNode::from).collect(),
        groups: reply.groups.iter().map(ClusterGroup::from).collect(),
    })
}

impl Shared {
    /// The cluster, as whoever answers knows it.
    pub(crate) fn cluster_of_one(&self, deadline: Instant) -> Result<ClusterDescription, Error> {
        let encode = |meta: &mut Vec<u8>| DescribeClusterRequest {}.encode(meta);
        self.call_until(deadline, WHAT, Kind::DescribeCluster, Effect::Repeatable, encode, read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(node: u32, view_epoch: u64, connected: [bool; 3], leaders: [(u32, u64); 2]) -> ClusterDescription {
        let nodes = connected.iter().zip(1..).map(|(connected, number)| ClusterNode {
            node: number,
            generation: 0,
            state: NodeState::Active,
            connected: *connected,
            shards: 1,
            leads: 9,
            replicas: 2,
            rack: String::new(),
            cluster: String::new(),
            client: format!("node{number}:1"),
        });
        let groups = leaders.iter().zip(0..).map(|(&(leader, term), group)| ClusterGroup {
            group,
            factor: 1,
            leader: (leader != 0).then_some(leader),
            term,
            partitions: 1,
            unclean_term: None,
            voters: vec![1, 2],
            learners: vec![],
            moving: String::new(),
        });
        ClusterDescription { node, view_epoch, feature_level: 1, nodes: nodes.collect(), groups: groups.collect() }
    }

    #[test]
    fn a_survey_believes_the_highest_term_and_the_newest_metadata() {
        // Node 3 has no replica of group 1; node 2 has not heard of its new leader.
        let told = vec![
            answer(3, 7, [true, true, true], [(1, 4), (0, 0)]),
            answer(2, 8, [true, true, false], [(1, 4), (2, 5)]),
            answer(1, 8, [true, true, true], [(1, 4), (1, 6)]),
        ];
        let survey = ClusterSurvey::of(told, Vec::new());
        assert_eq!(survey.answers.iter().map(|answer| answer.node).collect::<Vec<_>>(), [1, 2, 3]);
        let cluster = survey.cluster;
        assert_eq!(cluster.view_epoch, 8);
        assert_eq!(cluster.groups.iter().map(|group| (group.leader, group.term)).collect::<Vec<_>>(), [(Some(1), 4), (Some(1), 6)]);
        assert_eq!(cluster.nodes.iter().map(|node| (node.connected, node.leads)).collect::<Vec<_>>(), [(true, 2), (true, 0), (false, 0)]);
    }

    #[test]
    fn removed_nodes_are_not_asked() {
        let mut cluster = answer(1, 1, [true; 3], [(1, 1), (1, 1)]);
        cluster.nodes[1].state = NodeState::Removed;
        assert_eq!(cluster.places().iter().map(|place| place.address.as_str()).collect::<Vec<_>>(), ["node1:1", "node3:1"]);
    }
}
