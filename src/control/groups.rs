//! The replica groups: how many replicas each is to have, where they are, and who leads by preference.
//!
//! A group's **home** is the (node, shard) that is to lead it, whether it has a replica now or not (its disk may just be replaced). A **family** is all groups of
//! one replication factor; `families` tells which ones are kept up, so that a node that becomes active later gets its homes in them.
//!
//! Invariants: at most one replica of a group on a node; a replica that is listed is a voter, as far as group 0 knows; a group id is given once; group 0 stands
//! apart (`control`), carries no partitions, and lies on shard 0 of its nodes.
//!
//! Not here: moves (`moves.rs`), where replicas are placed (`placement.rs`).

use super::cluster_error::ClusterError;
use super::moves::Move;
use super::nodes::Nodes;
use crate::ids::{GroupId, LogIndex, MoveId, NodeId, ReplicaId, ShardId};
use std::collections::{BTreeMap, BTreeSet};

/// A shard of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) node: NodeId,
    pub(super) shard: ShardId,
}

/// A group's copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Replica {
    pub(super) place: Place,
    /// Of the disk that it was put on. Where the node has a higher one the replica is *stale*: its log is gone.
    pub(super) generation: u32,
}

impl Replica {
    /// One on the disk that the node has now.
    pub(super) fn new(nodes: &Nodes, place: Place) -> Replica {
        Replica { place, generation: nodes.known(place.node).generation() }
    }

    pub(super) fn node(self) -> NodeId {
        self.place.node
    }

    pub(super) fn id(self) -> ReplicaId {
        ReplicaId::of(self.generation, self.place.node)
    }

    pub(super) fn is_stale(self, nodes: &Nodes) -> bool {
        nodes.known(self.place.node).generation() != self.generation
    }
}

/// A recovery without a majority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unclean {
    /// Group 0's entry that said so: a later one is another recovery.
    pub(super) index: LogIndex,
    /// Who went on.
    pub(super) survivors: Vec<ReplicaId>,
}

/// A replica group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    /// Replicas that it is to have; meaningless for group 0, whose voters follow from the nodes.
    pub(super) factor: u8,
    pub(super) home: Place,
    /// In the order in which they came.
    pub(super) replicas: Vec<Replica>,
    pub(super) moving: Option<Move>,
    pub(super) unclean: Option<Unclean>,
    /// Partitions in it: derived from the topics.
    pub(super) partitions: u64,
}

impl Group {
    /// A new one, whose first replica is at home.
    pub(super) fn new(nodes: &Nodes, factor: u8, places: &[Place]) -> Group {
        let replicas = places.iter().map(|place| Replica::new(nodes, *place)).collect();
        Group { factor, home: places[0], replicas, ..Group::default() }
    }

    pub(super) fn replica_on(&self, node: NodeId) -> Option<&Replica> {
        self.replicas.iter().find(|replica| replica.node() == node)
    }

    /// Replicas whose disk is the one that they were put on.
    pub(super) fn living<'a>(&'a self, nodes: &'a Nodes) -> impl Iterator<Item = &'a Replica> {
        self.replicas.iter().filter(|replica| !replica.is_stale(nodes))
    }

    /// Whether enough disks are left to change anything.
    pub(super) fn has_majority(&self, nodes: &Nodes) -> bool {
        self.living(nodes).count() >= majority(self.replicas.len())
    }

    /// Whether enough disks are left when one replica is taken away and none comes.
    pub(super) fn can_spare(&self, nodes: &Nodes, replica: Replica) -> bool {
        let left = self.living(nodes).filter(|other| **other != replica).count();
        self.replicas.len() > 1 && left >= majority(self.replicas.len() - 1)
    }

    /// The replica that a move brings, as long as it is no voter.
    pub(super) fn arriving(&self) -> Option<Replica> {
        let add = self.moving.as_ref()?.add?;
        self.replica_on(add.node()).is_none().then_some(add)
    }

    /// The replica that a move has taken from the voters, and whose space is not free yet.
    pub(super) fn parting(&self) -> Option<Replica> {
        let drop = self.moving.as_ref()?.drop?;
        self.replica_on(drop.node()).is_none().then_some(drop)
    }

    /// Everything of it that lies on some disk.
    pub(super) fn everywhere(&self) -> impl Iterator<Item = Replica> {
        self.replicas.iter().copied().chain(self.arriving()).chain(self.parting())
    }

    /// The voters that there are when its move is done.
    pub(super) fn aim(&self) -> impl Iterator<Item = Replica> {
        let drop = self.moving.as_ref().and_then(|m| m.drop);
        self.replicas.iter().copied().chain(self.arriving()).filter(move |replica| Some(*replica) != drop)
    }

    /// Its home when its move is done.
    pub(super) fn home_aim(&self) -> Place {
        match &self.moving {
            Some(Move { add: Some(add), drop: Some(drop), .. }) if drop.node() == self.home.node => add.place,
            _ => self.home,
        }
    }
}

/// How many of `count` decide.
pub(super) fn majority(count: usize) -> usize {
    count / 2 + 1
}

/// All groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Groups {
    pub(super) data: BTreeMap<GroupId, Group>,
    /// Group 0; without replicas as long as there is no node.
    pub(super) control: Group,
    pub(super) families: BTreeSet<u8>,
    pub(super) next_group: u32,
    pub(super) next_move: u64,
    /// Where each move that is under way is.
    pub(super) moves: BTreeMap<MoveId, GroupId>,
}

impl Default for Groups {
    fn default() -> Groups {
        Groups {
            data: BTreeMap::new(),
            control: Group::default(),
            families: BTreeSet::new(),
            next_group: 1,
            next_move: 1,
            moves: BTreeMap::new(),
        }
    }
}

impl Groups {
    pub(super) fn get(&self, group: GroupId) -> Result<&Group, ClusterError> {
        let found = if group == GroupId(0) { Some(&self.control) } else { self.data.get(&group) };
        found.filter(|found| !found.replicas.is_empty()).ok_or(ClusterError::UnknownGroup(group))
    }

    pub(super) fn known_mut(&mut self, group: GroupId) -> &mut Group {
        let found = if group == GroupId(0) { Some(&mut self.control) } else { self.data.get_mut(&group) };
        found.unwrap_or_else(|| panic!("replica group {group} is not known"))
    }

    /// All, group 0 first.
    pub(super) fn all(&self) -> impl Iterator<Item = (GroupId, &Group)> {
        std::iter::once((GroupId(0), &self.control)).chain(self.data.iter().map(|(id, group)| (*id, group)))
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = (GroupId, &mut Group)> {
        std::iter::once((GroupId(0), &mut self.control)).chain(self.data.iter_mut().map(|(id, group)| (*id, group)))
    }

    /// Groups of a factor that partitions may be given to: their home takes part, and they can commit.
    pub(super) fn open_to<'a>(&'a self, nodes: &'a Nodes, factor: u8) -> impl Iterator<Item = (GroupId, &'a Group)> {
        let is_open = move |group: &Group| group.factor == factor && nodes.is_active(group.home.node) && group.has_majority(nodes);
        self.data.iter().filter(move |(_, group)| is_open(group)).map(|(id, group)| (*id, group))
    }

    /// Takes new groups in, each given as its places, home first.
    pub(super) fn insert(&mut self, nodes: &Nodes, factor: u8, groups: &[Vec<Place>]) {
        for places in groups {
            self.data.insert(GroupId(self.next_group), Group::new(nodes, factor, places));
            self.next_group += 1;
        }
    }

    /// Whether all of `node`'s replicas may stand still: no group may lose its majority by that. One that has no replica on another node that stands still loses
    /// nothing that an operator could keep (a single copy stops with its node, whoever asks).
    pub(super) fn check_standing_aside(&self, nodes: &Nodes, node: NodeId) -> Result<(), ClusterError> {
        for (id, group) in self.all().filter(|(_, group)| group.replica_on(node).is_some()) {
            let is_up = |replica: &&Replica| replica.node() != node && nodes.is_active(replica.node()) && !replica.is_stale(nodes);
            let (left, of) = (group.replicas.iter().filter(is_up).count(), group.replicas.len());
            if left + 1 < of && left < majority(of) {
                let why = format!("left on active nodes if node {node} stands aside");
                return Err(ClusterError::Majority { group: id, left, of, why });
            }
        }
        Ok(())
    }

    /// What is left of groups without a living replica goes, where nothing is in them. `homes` are those with consumer groups.
    pub(super) fn forget_lost(&mut self, nodes: &Nodes, homes: &BTreeMap<GroupId, u64>) {
        self.data.retain(|id, group| {
            let is_kept = group.partitions > 0 || homes.contains_key(id) || group.living(nodes).next().is_some();
            assert!(is_kept || group.moving.is_none(), "a group without a living replica is not moved: {group:?}");
            is_kept
        });
    }
}
