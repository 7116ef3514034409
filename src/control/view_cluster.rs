//! The part of the view that tells of nodes and replica groups: who they are, where they listen, which shard has which replicas, what is being moved.
//!
//! Invariants: a group's replicas stand with the preferred leader first; each shard's groups are found by one search, so that a shard asks for its own without
//! looking at all. A preferred leader does not drain: a group whose home stands aside prefers, of its other replicas, the one that leads the fewest.
//!
//! Not here: topics, consumer groups, queues (`view.rs`); who leads now, which is no metadata.

use super::cluster_command::Endpoint;
use super::groups::{Group, Groups, Place, Replica};
use super::moves::MoveStep;
use super::nodes::{NodeState, Nodes};
use super::placement::control_voters;
use crate::constants::ERA_BITS;
use crate::ids::{GroupId, LogIndex, MoveId, NodeId, ReplicaId, ShardId, Term};
use std::collections::BTreeMap;

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Its number.
    pub node: NodeId,
    /// What it takes part in. A removed one is listed, so that it is known as such.
    pub state: NodeState,
    /// How many disks it had before its present one.
    pub generation: u32,
    /// Its present disk; 0 as long as it has not told.
    pub disk: u64,
    /// Its shards.
    pub shards: u16,
    /// What fails together with it; empty where nobody said.
    pub rack: String,
    /// Where it listens for other nodes; without a host as long as it has not told.
    pub cluster: Endpoint,
    /// Where it listens for clients; without a host as long as it has not told.
    pub client: Endpoint,
    /// Lowest feature level that it speaks.
    pub feature_min: u32,
    /// Highest feature level that it speaks.
    pub feature_max: u32,
}

/// A replica and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaView {
    /// Generation and node: on another disk of the node it would be another one.
    pub id: ReplicaId,
    /// Its node.
    pub node: NodeId,
    /// The shard of that node.
    pub shard: ShardId,
    /// The node's disk is another one by now: nothing is left of it.
    pub is_stale: bool,
}

/// A change of a group's nodes that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoveView {
    /// The move, as notes and the log of the group name it.
    pub id: MoveId,
    /// Who comes.
    pub add: Option<ReplicaView>,
    /// Who goes.
    pub drop: Option<ReplicaView>,
    /// The last step that has ended.
    pub step: MoveStep,
    /// Index, in the group, of the newest configuration that it made.
    pub conf_index: LogIndex,
}

/// A group that went on without a majority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UncleanView {
    /// Group 0's entry that said so: each recovery has its own.
    pub index: LogIndex,
    /// Who went on.
    pub survivors: Vec<ReplicaId>,
}

impl UncleanView {
    /// Terms from this one on are of replicas that went on: no leader before had one, since each recovery's are above those of the one before by far.
    pub fn first_term(&self) -> Term {
        Term(self.index.0 << ERA_BITS)
    }
}

/// A replica group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaGroupView {
    /// The group.
    pub id: GroupId,
    /// Replicas that it is to have.
    pub factor: u8,
    /// Its voters, the preferred leader first.
    pub replicas: Vec<ReplicaView>,
    /// Group 0's other nodes, which learn it; of other groups none.
    pub learners: Vec<ReplicaView>,
    /// Its move.
    pub moving: Option<MoveView>,
    /// Its last recovery without a majority.
    pub unclean: Option<UncleanView>,
}

/// Nodes and replica groups at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterView {
    /// What gates new records and frames.
    pub feature_level: u32,
    /// By number.
    nodes: Vec<NodeView>,
    /// By number.
    groups: Vec<ReplicaGroupView>,
    /// (node, shard, place in `groups`), in order.
    on_shards: Vec<(NodeId, ShardId, u32)>,
}

impl ClusterView {
    pub(super) fn of(nodes: &Nodes, groups: &Groups) -> ClusterView {
        let node_views = nodes.iter().map(|(id, node)| NodeView {
            node: id,
            state: node.state,
            generation: node.generation(),
            disk: node.disk,
            shards: node.shards,
            rack: node.rack.clone(),
            cluster: node.cluster.clone(),
            client: node.client.clone(),
            feature_min: node.feature_min,
            feature_max: node.feature_max,
        });
        let replica = |replica: Replica| view_of(nodes, replica);
        let mut leads = leads(nodes, groups);
        let mut group_views = Vec::with_capacity(groups.data.len() + 1);
        let mut on_shards = Vec::new();
        for (id, group) in groups.all().filter(|(_, group)| !group.replicas.is_empty()) {
            let learners = if id == GroupId(0) { learners(nodes, group) } else { Vec::new() };
            let present = group.everywhere().map(replica).chain(learners.iter().copied()).filter(|replica| !replica.is_stale);
            on_shards.extend(present.map(|replica| (replica.node, replica.shard, group_views.len() as u32)));
            let mut replicas: Vec<_> = group.replicas.iter().copied().map(replica).collect();
            let preferred = preferred(nodes, group, &mut leads);
            replicas[..=preferred].rotate_right(1);
            group_views.push(ReplicaGroupView {
                id,
                factor: if id == GroupId(0) { control_voters(nodes, &group.replicas).len() as u8 } else { group.factor },
                replicas,
                learners,
                moving: group.moving.as_ref().map(|m| MoveView {
                    id: m.id,
                    add: m.add.map(replica),
                    drop: m.drop.map(replica),
                    step: m.step,
                    conf_index: m.conf_index,
                }),
                unclean: group.unclean.as_ref().map(|unclean| UncleanView { index: unclean.index, survivors: unclean.survivors.clone() }),
            });
        }
        on_shards.sort_unstable();
        // A node that is to vote in group 0 learns it already.
        on_shards.dedup();
        ClusterView { feature_level: nodes.feature_level, nodes: node_views.collect(), groups: group_views, on_shards }
    }

    /// A node that is or was.
    pub fn node(&self, node: NodeId) -> Option<&NodeView> {
        self.nodes.binary_search_by_key(&node, |found| found.node).ok().map(|at| &self.nodes[at])
    }

    /// All nodes, by number, removed ones too.
    pub fn nodes(&self) -> &[NodeView] {
        &self.nodes
    }

    /// A replica group.
    pub fn group(&self, group: GroupId) -> Option<&ReplicaGroupView> {
        self.groups.binary_search_by_key(&group, |found| found.id).ok().map(|at| &self.groups[at])
    }

    /// All replica groups, by number; 0 is the metadata's.
    pub fn groups(&self) -> &[ReplicaGroupView] {
        &self.groups
    }

    /// Whether a node has a replica of a group, or one that comes or goes; what it learns of group 0 alone is none.
    pub fn has_replica(&self, node: NodeId) -> bool {
        let is_there = |replica: &ReplicaView| replica.node == node && !replica.is_stale;
        let moved = |group: &ReplicaGroupView| group.moving.iter().flat_map(|m| [&m.add, &m.drop]).flatten().any(is_there);
        self.groups.iter().any(|group| group.replicas.iter().any(is_there) || moved(group))
    }

    /// The groups that have something on a shard's present disk: a voter, a learner of group 0, a replica that a move brings or whose space is not free yet.
    pub fn groups_on(&self, node: NodeId, shard: ShardId) -> impl Iterator<Item = &ReplicaGroupView> {
        let from = self.on_shards.partition_point(|(n, s, _)| (*n, *s) < (node, shard));
        let here = self.on_shards[from..].iter().take_while(move |(n, s, _)| (*n, *s) == (node, shard));
        here.map(|(.., at)| &self.groups[*at as usize])
    }
}

impl ReplicaGroupView {
    /// The replica with this id, whatever it is: voter, learner, coming or going.
    pub fn replica(&self, id: ReplicaId) -> Option<&ReplicaView> {
        let moved = self.moving.iter().flat_map(|m| [&m.add, &m.drop]).flatten();
        self.replicas.iter().chain(&self.learners).chain(moved).find(|replica| replica.id == id)
    }
}

fn view_of(nodes: &Nodes, replica: Replica) -> ReplicaView {
    ReplicaView { id: replica.id(), node: replica.node(), shard: replica.place.shard, is_stale: replica.is_stale(nodes) }
}

/// Every node that has no vote in group 0 learns it, on its first shard.
fn learners(nodes: &Nodes, group: &Group) -> Vec<ReplicaView> {
    let is_other = |node: NodeId| group.replica_on(node).is_none_or(|replica| replica.is_stale(nodes));
    let other = nodes.iter().filter(|(id, node)| node.state != NodeState::Removed && is_other(*id));
    other.map(|(node, _)| view_of(nodes, Replica::new(nodes, Place { node, shard: ShardId(0) }))).collect()
}

/// Whether a replica may be preferred as leader.
fn may_lead(nodes: &Nodes, replica: &Replica) -> bool {
    nodes.is_active(replica.node()) && !replica.is_stale(nodes)
}

/// Groups that each node leads because they are at home there.
fn leads(nodes: &Nodes, groups: &Groups) -> BTreeMap<NodeId, u32> {
    let mut leads = BTreeMap::new();
    for group in groups.data.values() {
        if group.replica_on(group.home.node).is_some_and(|replica| may_lead(nodes, replica)) {
            *leads.entry(group.home.node).or_default() += 1;
        }
    }
    leads
}

/// Which of a group's replicas is preferred: the one at home, or for it the one that leads the fewest; where none may lead, the one at home, or the first one.
fn preferred(nodes: &Nodes, group: &Group, leads: &mut BTreeMap<NodeId, u32>) -> usize {
    let at_home = group.replicas.iter().position(|replica| replica.place == group.home);
    if let Some(at) = at_home.filter(|at| may_lead(nodes, &group.replicas[*at])) {
        return at;
    }
    let able = group.replicas.iter().enumerate().filter(|(_, replica)| may_lead(nodes, replica));
    let least = able.min_by_key(|(at, replica)| (leads.get(&replica.node()).copied().unwrap_or(0), *at));
    match least {
        Some((at, replica)) => {
            *leads.entry(replica.node()).or_default() += 1;
            at
        }
        None => at_home.unwrap_or(0),
    }
}
