//! The cluster as one of its nodes knows it: nodes, replica groups, who leads; and nodes that are to stand aside.
//!
//! Not here: who leads (shard/leaders.rs), what standing aside means (control/).

use super::ApiError;
use crate::control::{ClusterCommand, ClusterView, Command, MoveView, NodeState, NodeView, ReplicaGroupView, View};
use crate::ids::{GroupId, NodeId, Term};
use std::collections::BTreeMap;
use tramline_wire::cluster::{AlterClusterRequest, ClusterAction, ClusterGroup, ClusterNode, DescribeClusterReply, NodeState as State};
use tramline_wire::error::ErrorCode;
use tramline_wire::prim::List;

/// What an alter request asks for.
#[derive(Debug)]
pub enum Alteration {
    /// This.
    Command(Command),
    /// Whatever evens the cluster out.
    Balance,
    /// The end of this group's move.
    CancelMove(GroupId),
    /// That this group goes on with what is left of it.
    UncleanRecover(GroupId),
}

/// Decodes an alter request.
pub fn alter(meta: &[u8]) -> Result<Alteration, ApiError> {
    let AlterClusterRequest { action, node, group, from_node } = AlterClusterRequest::decode(meta)?;
    let named = |node: u32| (node != 0).then_some(node);
    match action {
        ClusterAction::CancelMove if (node, from_node) == (0, 0) => return Ok(Alteration::CancelMove(GroupId(group))),
        ClusterAction::UncleanRecover if (node, from_node) == (0, 0) => return Ok(Alteration::UncleanRecover(GroupId(group))),
        ClusterAction::CancelMove | ClusterAction::UncleanRecover => {
            return Err(ApiError::new(ErrorCode::InvalidRequest, format!("{} takes a group, and no node", action.name())));
        }
        _ => {}
    }
    if action != ClusterAction::Move && (group, from_node) != (0, 0) {
        return Err(ApiError::new(ErrorCode::InvalidRequest, format!("{} takes a node, and no group", action.name())));
    }
    let state = match action {
        ClusterAction::Drain => NodeState::Draining,
        ClusterAction::Undrain => NodeState::Active,
        ClusterAction::Remove => NodeState::Leaving,
        ClusterAction::Move => {
            return Ok(Alteration::Command(ClusterCommand::PlanMove { group, add: named(node), drop: named(from_node) }.into()));
        }
        ClusterAction::Balance => return Ok(Alteration::Balance),
        ClusterAction::CancelMove | ClusterAction::UncleanRecover => unreachable!("answered above"),
    };
    Ok(Alteration::Command(ClusterCommand::SetNodeState { node, state }.into()))
}

/// Appends the description. `lead` tells who leads a group and in which term, as far as that is known; `is_connected` which nodes can be reached.
pub(crate) fn describe(
    out: &mut Vec<u8>,
    view: &View,
    node: NodeId,
    lead: impl Fn(GroupId) -> Option<(NodeId, Term)>,
    is_connected: impl Fn(NodeId) -> bool,
) {
    let mut partitions: BTreeMap<GroupId, u32> = BTreeMap::new();
    view.partitions().for_each(|(_, place)| *partitions.entry(place.group).or_default() += 1);
    let cluster = &view.cluster;
    let texts: Vec<_> = cluster.nodes().iter().map(|node| (node.cluster.address(), node.client.address())).collect();
    let numbers = numbers(cluster, &lead);
    let nodes: Vec<_> = std::iter::zip(cluster.nodes(), &texts)
        .map(|(found, (cluster, client))| {
            let (leads, replicas) = numbers.get(&found.node).copied().unwrap_or_default();
            let connected = u8::from(found.node == node || is_connected(found.node));
            node_of(found, connected, (leads, replicas), cluster, client)
        })
        .collect();
    let groups: Vec<_> = cluster.groups().iter().map(|group| (group, ids(&group.replicas), ids(&group.learners), moving(group))).collect();
    let groups: Vec<_> = groups
        .iter()
        .map(|(group, voters, learners, moving)| {
            let (leader, term) = lead(group.id).unwrap_or_default();
            ClusterGroup {
                group: group.id.0,
                factor: group.factor,
                leader: leader.0,
                term: term.0,
                partitions: partitions.get(&group.id).copied().unwrap_or(0),
                unclean_term: group.unclean.as_ref().map_or(0, |unclean| unclean.first_term().0),
                voters: List::of(voters),
                learners: List::of(learners),
                moving,
            }
        })
        .collect();
    let reply = DescribeClusterReply {
        node: node.0,
        view_epoch: view.epoch,
        feature_level: cluster.feature_level,
        nodes: List::of(&nodes),
        groups: List::of(&groups),
    };
    reply.encode(out);
}

fn node_of<'a>(found: &'a NodeView, connected: u8, (leads, replicas): (u32, u32), cluster: &'a str, client: &'a str) -> ClusterNode<'a> {
    ClusterNode {
        node: found.node.0,
        generation: found.generation,
        state: match found.state {
            NodeState::Registered => State::Registered,
            NodeState::Active => State::Active,
            NodeState::Draining => State::Draining,
            NodeState::Drained => State::Drained,
            NodeState::Leaving => State::Leaving,
            NodeState::Removed => State::Removed,
        },
        connected,
        shards: found.shards,
        leads,
        replicas,
        rack: &found.rack,
        cluster,
        client,
    }
}

/// Groups that each node leads, and replicas that it has.
fn numbers(cluster: &ClusterView, lead: impl Fn(GroupId) -> Option<(NodeId, Term)>) -> BTreeMap<NodeId, (u32, u32)> {
    let mut numbers: BTreeMap<NodeId, (u32, u32)> = BTreeMap::new();
    for group in cluster.groups() {
        if let Some((leader, _)) = lead(group.id) {
            numbers.entry(leader).or_default().0 += 1;
        }
        for replica in group.replicas.iter().filter(|replica| !replica.is_stale) {
            numbers.entry(replica.node).or_default().1 += 1;
        }
    }
    numbers
}

fn ids(replicas: &[crate::control::ReplicaView]) -> Vec<u32> {
    replicas.iter().map(|replica| replica.node.0).collect()
}

fn moving(group: &ReplicaGroupView) -> String {
    let Some(MoveView { add, drop, step, .. }) = &group.moving else { return String::new() };
    let add = add.map(|replica| format!("adds node {}", replica.node));
    let drop = drop.map(|replica| format!("drops node {}", replica.node));
    let words: Vec<_> = add.into_iter().chain(drop).collect();
    format!("{}: {step}", words.join(", "))
}
