//! Nodes and replica groups in a snapshot.
//!
//! Invariant: what is restored keeps every rule that commands keep, or is refused: nothing that a state is asked later may meet what cannot be.
//!
//! Not here: topics, consumer groups and queues (`snapshot.rs`).

use super::cluster_command::Endpoint;
use super::groups::{Group, Groups, Place, Replica, Unclean};
use super::moves::{Move, MoveStep};
use super::nodes::{Node, NodeState, Nodes, check_node, is_endpoint, is_rack};
use super::placement::Load;
use super::snapshot::wrong;
use super::state::{COUNTER_MAX, State};
use super::stored::StoredError;
use crate::constants::{NODE_DISKS_MAX, NODE_IDS_MAX, NODES_MAX, REPLICAS_MAX, SHARD_REPLICAS_MAX};
use crate::ids::{GroupId, LogIndex, MoveId, NodeId, ReplicaId, ShardId};
use rkyv::{Archive, Deserialize, Serialize};
use std::collections::BTreeSet;

/// Of snapshots until version 4.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub(super) struct NodeV1 {
    node: u32,
    shards: u16,
    groups_per_shard: u16,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
struct NodeV2 {
    node: u32,
    state: NodeState,
    disk: u64,
    past_disks: Vec<u64>,
    shards: u16,
    groups_per_shard: u16,
    rack: String,
    cluster: Endpoint,
    client: Endpoint,
    feature_min: u32,
    feature_max: u32,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
struct ReplicaV1 {
    node: u32,
    generation: u32,
    shard: u16,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
struct MoveV1 {
    id: u64,
    add: Option<ReplicaV1>,
    drop: Option<ReplicaV1>,
    step: MoveStep,
    conf_index: u64,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
struct UncleanV1 {
    index: u64,
    survivors: Vec<u64>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
struct ReplicaGroupV1 {
    id: u32,
    factor: u8,
    home_node: u32,
    home_shard: u16,
    replicas: Vec<ReplicaV1>,
    moving: Option<MoveV1>,
    unclean: Option<UncleanV1>,
}

/// All of it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub(super) struct ClusterV1 {
    feature_level: u32,
    nodes: Vec<NodeV2>,
    families: Vec<u8>,
    next_group: u32,
    next_move: u64,
    /// By number; group 0 is the first as soon as there is a node.
    groups: Vec<ReplicaGroupV1>,
}

impl ReplicaV1 {
    fn of(replica: Replica) -> ReplicaV1 {
        ReplicaV1 { node: replica.node().0, generation: replica.generation, shard: replica.place.shard.0 }
    }

    fn restore(self) -> Replica {
        Replica { place: Place { node: NodeId(self.node), shard: ShardId(self.shard) }, generation: self.generation }
    }
}

impl ClusterV1 {
    pub(super) fn of(nodes: &Nodes, groups: &Groups) -> ClusterV1 {
        let node = |(id, node): (NodeId, &Node)| NodeV2 {
            node: id.0,
            state: node.state,
            disk: node.disk,
            past_disks: node.past_disks.clone(),
            shards: node.shards,
            groups_per_shard: node.groups_per_shard,
            rack: node.rack.clone(),
            cluster: node.cluster.clone(),
            client: node.client.clone(),
            feature_min: node.feature_min,
            feature_max: node.feature_max,
        };
        let moving = |m: &Move| MoveV1 {
            id: m.id.0,
            add: m.add.map(ReplicaV1::of),
            drop: m.drop.map(ReplicaV1::of),
            step: m.step,
            conf_index: m.conf_index.0,
        };
        let unclean = |u: &Unclean| UncleanV1 { index: u.index.0, survivors: u.survivors.iter().map(|id| id.0).collect() };
        let group = |(id, group): (GroupId, &Group)| ReplicaGroupV1 {
            id: id.0,
            factor: group.factor,
            home_node: group.home.node.0,
            home_shard: group.home.shard.0,
            replicas: group.replicas.iter().copied().map(ReplicaV1::of).collect(),
            moving: group.moving.as_ref().map(moving),
            unclean: group.unclean.as_ref().map(unclean),
        };
        ClusterV1 {
            feature_level: nodes.feature_level,
            nodes: nodes.iter().map(node).collect(),
            families: groups.families.iter().copied().collect(),
            next_group: groups.next_group,
            next_move: groups.next_move,
            groups: groups.all().filter(|(_, group)| !group.replicas.is_empty()).map(group).collect(),
        }
    }

    /// Nodes that had registered, in that order: it gave their groups numbers.
    pub(super) fn of_v4(nodes: &[NodeV1]) -> Result<ClusterV1, StoredError> {
        let mut state = State::new();
        for node in nodes {
            state.check_register(NodeId(node.node), node.shards, node.groups_per_shard).map_err(StoredError::archive)?;
            if state.has_node(NodeId(node.node)) {
                return wrong(format!("node {} twice", node.node));
            }
            state.register(NodeId(node.node), node.shards, node.groups_per_shard);
        }
        Ok(ClusterV1::of(&state.nodes, &state.groups))
    }

    /// `applied` is what the snapshot has taken in.
    pub(super) fn restore(self, applied: u64) -> Result<(Nodes, Groups), StoredError> {
        let nodes = restore_nodes(self.nodes, self.feature_level)?;
        let mut groups = Groups { next_group: self.next_group, next_move: self.next_move, ..Groups::default() };
        groups.families = self.families.iter().copied().collect();
        let is_right = self.families.is_sorted() && self.families.len() == groups.families.len();
        let families_fit = groups.families.iter().all(|factor| (1..=REPLICAS_MAX).contains(factor));
        if !is_right || !families_fit || self.next_move > COUNTER_MAX || !(1..=u32::MAX / 2).contains(&self.next_group) {
            return wrong(format!("families {:?}, next group {}, next move {}", self.families, self.next_group, self.next_move));
        }
        if nodes.is_empty() != self.groups.is_empty() || self.groups.first().is_some_and(|group| group.id != 0) {
            return wrong("nodes without group 0, or the other way round".into());
        }
        for stored in self.groups {
            let id = GroupId(stored.id);
            let group = restore_group(&nodes, applied, stored)?;
            if let Some(moving) = &group.moving
                && (moving.id.0 >= groups.next_move || groups.moves.insert(moving.id, id).is_some())
            {
                return wrong(format!("move {} twice, or of a later time", moving.id));
            }
            if id == GroupId(0) {
                groups.control = group;
            } else if id.0 >= groups.next_group || groups.data.insert(id, group).is_some() {
                return wrong(format!("replica group {id} twice, or of a later time"));
            }
        }
        check_limits(&nodes, &groups)?;
        Ok((nodes, groups))
    }
}

fn restore_nodes(stored: Vec<NodeV2>, feature_level: u32) -> Result<Nodes, StoredError> {
    let mut nodes = Nodes::at_level(feature_level);
    let mut disks = BTreeSet::new();
    let here = stored.iter().filter(|node| node.state != NodeState::Removed).count();
    if stored.len() > NODE_IDS_MAX || here > NODES_MAX || feature_level == 0 || !stored.is_sorted_by(|a, b| a.node < b.node) {
        return wrong(format!("{} nodes, {here} of them not removed, at feature level {feature_level}", stored.len()));
    }
    for node in stored {
        check_node(node.node, node.shards, node.groups_per_shard).map_err(StoredError::archive)?;
        let is_known = is_rack(&node.rack) && is_endpoint(&node.cluster, node.shards) && is_endpoint(&node.client, node.shards);
        let speaks = 1 <= node.feature_min && node.feature_min <= node.feature_max;
        let in_common = node.state == NodeState::Removed || (node.feature_min..=node.feature_max).contains(&feature_level);
        // A node that registered before there were disks has had disk 0.
        let is_new = |disk: &u64| *disk == 0 || disks.insert(*disk);
        let has_own_disks = node.past_disks.iter().chain([&node.disk]).all(is_new) && node.past_disks.len() < NODE_DISKS_MAX;
        if !(is_known && speaks && in_common && has_own_disks) {
            return wrong(format!("node {node:?}"));
        }
        let restored = Node {
            state: node.state,
            disk: node.disk,
            past_disks: node.past_disks,
            shards: node.shards,
            groups_per_shard: node.groups_per_shard,
            rack: node.rack,
            cluster: node.cluster,
            client: node.client,
            feature_min: node.feature_min,
            feature_max: node.feature_max,
        };
        nodes.insert(NodeId(node.node), restored);
    }
    Ok(nodes)
}

fn restore_group(nodes: &Nodes, applied: u64, stored: ReplicaGroupV1) -> Result<Group, StoredError> {
    let said = format!("replica group {stored:?}");
    let restored = Group {
        factor: stored.factor,
        home: Place { node: NodeId(stored.home_node), shard: ShardId(stored.home_shard) },
        replicas: stored.replicas.into_iter().map(ReplicaV1::restore).collect(),
        moving: stored.moving.map(|m| Move {
            id: MoveId(m.id),
            add: m.add.map(ReplicaV1::restore),
            drop: m.drop.map(ReplicaV1::restore),
            step: m.step,
            conf_index: LogIndex(m.conf_index),
        }),
        unclean: stored.unclean.map(|u| Unclean { index: LogIndex(u.index), survivors: u.survivors.into_iter().map(ReplicaId).collect() }),
        partitions: 0,
    };
    // While one is added to as many as there can be there is one more.
    let count_max = usize::from(REPLICAS_MAX) + 1;
    let unclean_fits = restored.unclean.as_ref().is_none_or(|u| u.index.0 <= applied && (1..=count_max).contains(&u.survivors.len()));
    let on: BTreeSet<NodeId> = restored.replicas.iter().map(|replica| replica.node()).collect();
    let is_right = (1..=REPLICAS_MAX).contains(&restored.factor)
        && (1..=count_max).contains(&restored.replicas.len())
        && on.len() == restored.replicas.len()
        && restored.replicas.iter().all(|replica| is_replica(nodes, replica))
        && is_place(nodes, restored.home)
        && restored.moving.as_ref().is_none_or(|m| is_move(nodes, &restored, m))
        && unclean_fits;
    if is_right { Ok(restored) } else { wrong(said) }
}

fn is_place(nodes: &Nodes, place: Place) -> bool {
    nodes.get(place.node).is_ok_and(|node| place.shard.0 < node.shards)
}

/// Nothing is on a node that only registered, nor on a removed one.
fn is_replica(nodes: &Nodes, replica: &Replica) -> bool {
    let takes_part =
        nodes.get(replica.node()).is_ok_and(|node| node.state != NodeState::Registered && replica.generation <= node.generation());
    takes_part && is_place(nodes, replica.place)
}

/// Whether a move is where its step says it is.
fn is_move(nodes: &Nodes, group: &Group, m: &Move) -> bool {
    let has = |replica: &Replica| group.replicas.contains(replica);
    let is_on = |replica: &Replica| group.replica_on(replica.node()).is_some();
    let both = [m.add, m.drop];
    let has_add = m.add.is_none_or(|add| if m.step >= MoveStep::Promoted { has(&add) } else { !is_on(&add) && !add.is_stale(nodes) });
    let has_drop = m.drop.is_none_or(|drop| if m.step < MoveStep::Dropped { has(&drop) } else { !is_on(&drop) });
    both.iter().flatten().all(|replica| is_replica(nodes, replica))
        && both.iter().any(Option::is_some)
        && m.add.map(Replica::node) != m.drop.map(Replica::node)
        && (m.step == MoveStep::Planned || m.has_step(m.step))
        && m.step < m.last_step(nodes)
        && has_add
        && has_drop
        && group.living(nodes).next().is_some()
}

fn check_limits(nodes: &Nodes, groups: &Groups) -> Result<(), StoredError> {
    match Load::of(nodes, groups).fullest() {
        Some((place, held)) if held > SHARD_REPLICAS_MAX => wrong(format!("{held} replicas on {place:?}: {SHARD_REPLICAS_MAX} can be")),
        _ => Ok(()),
    }
}
