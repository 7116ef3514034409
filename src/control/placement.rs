//! Where replicas go: the places of new groups, the moves that repair and even out, the voters of group 0. And which groups new partitions are given to.
//!
//! A replica's place is the active node with the least of, in this order: replicas of this group in its rack; (for a group that lost the replica at home: whether
//! it is another node than that); replicas on the shard that it would be; replicas per shard of the node, in 1/1000; groups with the same home node that it
//! follows already; (node - home) modulo the number of active nodes; its number. On that node it is the shard with the home's number, modulo its shards, so that two nodes of N shards need N connections
//! and not N squared.
//!
//! Invariants: integers and ordered maps only, so that each replica of the metadata comes to the same; no shard holds more than `SHARD_REPLICAS_MAX` replicas,
//! what moves bring and what they have not freed yet counted; each balancing move lowers (sum of squares of leads, sum of squares of replicas), so it ends.
//!
//! Not here: whether a plan may be taken (`moves.rs`), who carries it out (shard/).

use super::groups::{Group, Groups, Place, Replica};
use super::moves::Plan;
use super::nodes::{Node, NodeState, Nodes};
use crate::constants::{NODE_MOVES_MAX, SHARD_REPLICAS_MAX};
use crate::ids::{GroupId, NodeId, ShardId};
use std::collections::{BTreeMap, BTreeSet};

/// Replicas of data groups on a shard's present disk, with those that a move brings or has not freed.
pub(super) fn held_on(groups: &Groups, nodes: &Nodes, place: Place) -> u32 {
    let is_there = |replica: &Replica| replica.place == place && !replica.is_stale(nodes);
    groups.data.values().map(|group| group.everywhere().filter(is_there).count() as u32).sum()
}

/// How much each shard and node has, in data groups.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// On the disk: what the limit is about.
    held: BTreeMap<Place, u32>,
    /// Once all moves are done.
    aim: BTreeMap<Place, u32>,
    leads: BTreeMap<Place, u32>,
    of_node: BTreeMap<NodeId, u32>,
    /// (home, node) -> groups of that home's node that the node follows.
    follows: BTreeMap<(NodeId, NodeId), u32>,
}

impl Load {
    pub(super) fn of(nodes: &Nodes, groups: &Groups) -> Load {
        let mut load = Load::default();
        for group in groups.data.values() {
            for replica in group.everywhere().filter(|replica| !replica.is_stale(nodes)) {
                *load.held.entry(replica.place).or_default() += 1;
            }
            let home = group.home_aim();
            *load.leads.entry(home).or_default() += 1;
            for replica in group.aim().filter(|replica| !replica.is_stale(nodes)) {
                load.count(home, replica.place);
            }
        }
        load
    }

    /// The shard with the most replicas on its disk.
    pub(super) fn fullest(&self) -> Option<(Place, u32)> {
        self.held.iter().map(|(place, held)| (*place, *held)).max_by_key(|(_, held)| *held)
    }

    fn count(&mut self, home: Place, place: Place) {
        *self.aim.entry(place).or_default() += 1;
        *self.of_node.entry(place.node).or_default() += 1;
        if place.node != home.node {
            *self.follows.entry((home.node, place.node)).or_default() += 1;
        }
    }

    /// A new replica of a group with this home.
    fn add(&mut self, home: Place, place: Place) {
        *self.leads.entry(home).or_default() += u32::from(place == home);
        *self.held.entry(place).or_default() += 1;
        self.count(home, place);
    }

    /// There was no room for the rest of a group: its home was counted before.
    fn take_back(&mut self, home: Place) {
        for counts in [&mut self.leads, &mut self.held, &mut self.aim] {
            *counts.get_mut(&home).expect("counted before") -= 1;
        }
        *self.of_node.get_mut(&home.node).expect("counted before") -= 1;
    }

    /// A replica goes from one place to another.
    fn shift(&mut self, group: &Group, add: Option<Place>, drop: Option<Place>) {
        if let Some(place) = add {
            *self.held.entry(place).or_default() += 1;
            self.count(group.home, place);
        }
        if let Some(place) = drop {
            // A stale replica is counted nowhere.
            let less = |count: Option<&mut u32>| count.into_iter().for_each(|count| *count = count.saturating_sub(1));
            less(self.aim.get_mut(&place));
            less(self.of_node.get_mut(&place.node));
            less(self.follows.get_mut(&(group.home.node, place.node)));
            if let Some(to) = add.filter(|_| place == group.home) {
                less(self.leads.get_mut(&place));
                *self.leads.entry(to).or_default() += 1;
            }
        }
    }

    fn held(&self, place: Place) -> u32 {
        self.held.get(&place).copied().unwrap_or(0)
    }

    fn aim(&self, place: Place) -> u32 {
        self.aim.get(&place).copied().unwrap_or(0)
    }

    fn leads(&self, place: Place) -> u32 {
        self.leads.get(&place).copied().unwrap_or(0)
    }
}

/// The next replica's place for a group with `members` and `home`; not on `barred` nodes.
fn choose(nodes: &Nodes, load: &Load, home: Place, members: &[NodeId], barred: &[NodeId]) -> Option<Place> {
    let in_rack = |rack: &str| members.iter().filter(|member| nodes.known(**member).rack == rack).count();
    let count = nodes.active().count() as i64;
    let key = |node: NodeId, known: &Node| {
        let per_shard = 1000 * load.of_node.get(&node).copied().unwrap_or(0) / u32::from(known.shards);
        let follows = load.follows.get(&(home.node, node)).copied().unwrap_or(0);
        let around = (i64::from(node.0) - i64::from(home.node.0)).rem_euclid(count);
        (in_rack(&known.rack), node != home.node, load.aim(nodes.place_on(node, home)), per_shard, follows, around, node)
    };
    nodes
        .active()
        .filter(|(node, _)| !members.contains(node) && !barred.contains(node))
        .filter(|(node, _)| load.held(nodes.place_on(*node, home)) < SHARD_REPLICAS_MAX)
        .min_by_key(|(node, known)| key(*node, known))
        .map(|(node, _)| nodes.place_on(node, home))
}

/// The groups that `homes`, shards of active nodes, lack in the family of `factor`, each as its places with the home first. In the order of the homes; made round
/// by round, so that where room ends all homes have the same number or one less.
pub(super) fn missing_groups(nodes: &Nodes, groups: &Groups, factor: u8, homes: &[Place]) -> Vec<Vec<Place>> {
    let mut load = Load::of(nodes, groups);
    let mut has: BTreeMap<Place, u32> = BTreeMap::new();
    // One without any disk left is none.
    for group in groups.data.values().filter(|group| group.factor == factor && group.living(nodes).next().is_some()) {
        *has.entry(group.home).or_default() += 1;
    }
    let wanted = |home: &Place| u32::from(nodes.known(home.node).groups_per_shard);
    let rounds = homes.iter().map(wanted).max().unwrap_or(0);
    let mut made: Vec<Vec<Place>> = Vec::new();
    for round in 0..rounds {
        let lacks = |home: &&Place| wanted(home) > round && has.get(home).is_none_or(|has| *has <= round);
        let open: Vec<Place> = homes.iter().filter(lacks).filter(|home| load.held(**home) < SHARD_REPLICAS_MAX).copied().collect();
        // All homes of the round are counted first, so that followers see what each shard will have.
        open.iter().for_each(|home| load.add(*home, *home));
        for home in open {
            match places_of_new(nodes, &load, factor, home) {
                Some(places) => {
                    places[1..].iter().for_each(|place| load.add(home, *place));
                    made.push(places);
                }
                None => load.take_back(home),
            }
        }
    }
    // Stable: groups of a home follow each other, and the first node's have the numbers that its data directory was made with.
    made.sort_by_key(|places| places[0]);
    made
}

/// The places of a new group: home, and what follows.
fn places_of_new(nodes: &Nodes, load: &Load, factor: u8, home: Place) -> Option<Vec<Place>> {
    let mut places = vec![home];
    while places.len() < usize::from(factor) {
        let members: Vec<_> = places.iter().map(|place| place.node).collect();
        places.push(choose(nodes, load, home, &members, &[])?);
    }
    Some(places)
}

/// The shards of a node.
pub(super) fn shards_of(nodes: &Nodes, node: NodeId) -> impl Iterator<Item = Place> {
    (0..nodes.known(node).shards).map(move |shard| Place { node, shard: ShardId(shard) })
}

/// The nodes that are to vote in group 0, given those that do: 1, 3 or 5, spread over racks, those that vote already before others. Where none may (all leave, or stand
/// aside and never voted), those that vote go on.
pub(super) fn control_voters(nodes: &Nodes, now: &[Replica]) -> BTreeSet<NodeId> {
    let votes = |node: NodeId| now.iter().any(|replica| replica.node() == node && !replica.is_stale(nodes));
    // A voter that only stands aside stays one: it comes back.
    let may = |node: NodeId, state: NodeState| match state {
        NodeState::Active => true,
        NodeState::Draining | NodeState::Drained => votes(node),
        NodeState::Registered | NodeState::Leaving | NodeState::Removed => false,
    };
    let mut left: Vec<(NodeId, &str)> =
        nodes.iter().filter(|(id, node)| may(*id, node.state)).map(|(id, node)| (id, node.rack.as_str())).collect();
    if left.is_empty() {
        return now.iter().filter(|replica| !replica.is_stale(nodes)).map(|replica| replica.node()).collect();
    }
    let wanted = [0, 1, 1, 3, 3, 5][left.len().min(5)];
    let mut chosen = BTreeSet::new();
    let mut in_rack: BTreeMap<&str, u32> = BTreeMap::new();
    while chosen.len() < wanted {
        let key = |(node, rack): &(NodeId, &str)| (in_rack.get(rack).copied().unwrap_or(0), !votes(*node), *node);
        let at = (0..left.len()).min_by_key(|at| key(&left[*at])).expect("as many as are wanted");
        let (node, rack) = left.swap_remove(at);
        *in_rack.entry(rack).or_default() += 1;
        chosen.insert(node);
    }
    chosen
}

/// The moves to plan now: repairs first, then group 0's voters, then what evens out. Each could be taken after the ones before it; what is under way counts as
/// done. To be asked when something has changed, not per event: it looks at all groups.
pub(super) fn proposals(nodes: &Nodes, groups: &Groups) -> Vec<Plan> {
    let mut planner = repairing(nodes, groups);
    planner.balance();
    planner.plans
}

/// Those of them that repair.
pub(super) fn repairs(nodes: &Nodes, groups: &Groups) -> Vec<Plan> {
    repairing(nodes, groups).plans
}

fn repairing<'a>(nodes: &'a Nodes, groups: &'a Groups) -> Planner<'a> {
    let mut planner = Planner { nodes, groups, load: Load::of(nodes, groups), busy: BTreeMap::new(), plans: Vec::new() };
    for group in groups.moves.values() {
        let moving = groups.get(*group).expect("a group that is moved").moving.as_ref();
        let (add, drop) = moving.map_or((None, None), |m| (m.add, m.drop));
        planner.occupy(add.map(Replica::node), drop.map(Replica::node));
    }
    planner.repair();
    planner.control();
    planner
}

struct Planner<'a> {
    nodes: &'a Nodes,
    groups: &'a Groups,
    load: Load,
    /// Moves that each node takes part in.
    busy: BTreeMap<NodeId, u32>,
    plans: Vec<Plan>,
}

impl Planner<'_> {
    fn occupy(&mut self, add: Option<NodeId>, drop: Option<NodeId>) {
        for node in [add, drop].into_iter().flatten() {
            *self.busy.entry(node).or_default() += 1;
        }
    }

    fn is_free(&self, node: NodeId) -> bool {
        self.busy.get(&node).is_none_or(|moves| *moves < NODE_MOVES_MAX)
    }

    fn take(&mut self, id: GroupId, group: &Group, add: Option<Place>, drop: Option<Replica>) {
        let (add_node, drop_node) = (add.map(|place| place.node), drop.map(Replica::node));
        if ![add_node, drop_node].into_iter().flatten().all(|node| self.is_free(node)) {
            return;
        }
        self.occupy(add_node, drop_node);
        if id != GroupId(0) {
            self.load.shift(group, add, drop.filter(|replica| !replica.is_stale(self.nodes)).map(|replica| replica.place));
        }
        self.plans.push(Plan { group: id, add: add_node, drop: drop_node });
    }

    /// Groups with too few replicas, too many, or some where they may not stay.
    fn repair(&mut self) {
        let (nodes, groups) = (self.nodes, self.groups);
        for (id, group) in groups.data.iter().filter(|(_, group)| group.moving.is_none() && group.has_majority(nodes)) {
            let is_leaving = |replica: &&Replica| nodes.known(replica.node()).state == NodeState::Leaving;
            let has = group.replicas.len();
            if let Some(stale) = group.replicas.iter().find(|replica| replica.is_stale(nodes)).filter(|_| has > 1) {
                self.take(*id, group, None, Some(*stale));
            } else if has < usize::from(group.factor) {
                if let Some(place) = self.place_for(group, None) {
                    self.take(*id, group, Some(place), None);
                }
            } else if has > usize::from(group.factor) {
                self.take(*id, group, None, Some(self.least_useful(group)));
            } else if let Some(leaving) = group.replicas.iter().find(is_leaving)
                && let Some(place) = self.place_for(group, Some(leaving.node()))
            {
                self.take(*id, group, Some(place), Some(*leaving));
            }
        }
    }

    /// Where one more replica of a group goes, when that on `dropped` is gone.
    fn place_for(&self, group: &Group, dropped: Option<NodeId>) -> Option<Place> {
        let members: Vec<_> = group.replicas.iter().map(|replica| replica.node()).filter(|node| Some(*node) != dropped).collect();
        let barred: Vec<_> =
            dropped.into_iter().chain(self.nodes.active().map(|(node, _)| node).filter(|node| !self.is_free(*node))).collect();
        choose(self.nodes, &self.load, group.home, &members, &barred)
    }

    /// The replica that a group with too many gives up: one that has to go anyway, else one in the fullest rack, on the fullest node; the home last.
    fn least_useful(&self, group: &Group) -> Replica {
        let nodes = self.nodes;
        let key = |replica: &&Replica| {
            let node = nodes.known(replica.node());
            let in_rack = group.replicas.iter().filter(|other| nodes.known(other.node()).rack == node.rack).count();
            let per_shard = 1000 * self.load.of_node.get(&replica.node()).copied().unwrap_or(0) / u32::from(node.shards);
            (node.state == NodeState::Leaving, replica.place != group.home, in_rack, per_shard, replica.node())
        };
        *group.replicas.iter().max_by_key(key).expect("a group has replicas")
    }

    /// Group 0's voters become those that are to vote, one by one.
    fn control(&mut self) {
        let (nodes, group) = (self.nodes, &self.groups.control);
        if group.moving.is_some() || group.replicas.is_empty() || !group.has_majority(nodes) {
            return;
        }
        let wanted = control_voters(nodes, &group.replicas);
        let add = wanted.iter().find(|node| group.replica_on(**node).is_none()).map(|node| nodes.place_on(*node, group.home));
        // One whose disk is gone goes first, by itself.
        let stale = group.replicas.iter().find(|replica| replica.is_stale(nodes)).filter(|_| group.replicas.len() > 1);
        let drop = stale.or(group.replicas.iter().find(|replica| !wanted.contains(&replica.node())));
        match (stale, add, drop) {
            (None, None, None) => {}
            (Some(stale), ..) => self.take(GroupId(0), group, None, Some(*stale)),
            (None, add, drop) => self.take(GroupId(0), group, add, drop.copied()),
        }
    }

    /// Within each rack, shards that lead or hold two more than others give one up. One pass: what is left is found the next time.
    fn balance(&mut self) {
        let (nodes, groups) = (self.nodes, self.groups);
        let mut racks: BTreeMap<&str, Vec<NodeId>> = BTreeMap::new();
        for (id, node) in nodes.active() {
            racks.entry(&node.rack).or_default().push(id);
        }
        let planned: BTreeSet<GroupId> = self.plans.iter().map(|plan| plan.group).collect();
        let is_settled = |id: &GroupId, group: &Group| {
            let is_whole = group.replicas.len() == usize::from(group.factor) && group.replicas.iter().all(|r| nodes.is_active(r.node()));
            is_whole && group.moving.is_none() && group.living(nodes).count() == group.replicas.len() && !planned.contains(id)
        };
        let mut on: BTreeMap<Place, Vec<GroupId>> = BTreeMap::new();
        for (id, group) in groups.data.iter().filter(|(id, group)| is_settled(id, group)) {
            group.replicas.iter().for_each(|replica| on.entry(replica.place).or_default().push(*id));
        }
        let mut moved = BTreeSet::new();
        for rack in racks.values() {
            if !self.is_uneven(rack) {
                continue;
            }
            for from in rack.iter().flat_map(|node| shards_of(nodes, *node)) {
                for to in rack.iter().filter(|to| **to != from.node) {
                    let candidates = on.get(&from).into_iter().flatten().filter(|id| !moved.contains(*id));
                    let good = candidates.copied().find(|id| self.is_relief(&groups.data[id], from, *to));
                    if let Some(id) = good.filter(|_| self.is_free(from.node) && self.is_free(*to)) {
                        let group = &groups.data[&id];
                        let drop = group.replica_on(from.node).copied();
                        self.take(id, group, Some(nodes.place_on(*to, group.home)), drop);
                        moved.insert(id);
                    }
                }
            }
        }
    }

    fn is_uneven(&self, rack: &[NodeId]) -> bool {
        let apart = |count: &dyn Fn(Place) -> u32| {
            let counts = || rack.iter().flat_map(|node| shards_of(self.nodes, *node)).map(count);
            counts().max().unwrap_or(0) >= counts().min().unwrap_or(0) + 2
        };
        apart(&|place| self.load.leads(place)) || apart(&|place| self.load.aim(place))
    }

    /// Whether a group's replica at `from` is better on node `to`: it leads there and two more are led here, or two more are held here and leads get no worse.
    fn is_relief(&self, group: &Group, from: Place, to: NodeId) -> bool {
        let place = self.nodes.place_on(to, group.home);
        if group.replica_on(to).is_some() || self.load.held(place) >= SHARD_REPLICAS_MAX {
            return false;
        }
        let (is_fuller, leads) = (self.load.aim(from) >= self.load.aim(place) + 2, (self.load.leads(from), self.load.leads(place)));
        if group.home == from { leads.0 >= leads.1 + 2 || (is_fuller && leads.0 > leads.1) } else { is_fuller }
    }
}

/// The groups that partitions are given to, in the order in which they are: the one with the fewest partitions on the shard that leads the fewest; among equals
/// the lower number. Kept as a set per shard and one over shards, for 10,000 partitions over a thousand groups.
#[derive(Debug, Default)]
pub(super) struct Spread {
    /// Per shard: (partitions, group).
    groups: BTreeMap<Place, BTreeSet<(u64, GroupId)>>,
    /// (partitions of the shard, partitions of its best group, that group, shard).
    shards: BTreeSet<(u64, u64, GroupId, Place)>,
}

impl Spread {
    /// `open` may be given something; `loads` tells what shards have, other groups included.
    pub(super) fn new(open: impl Iterator<Item = (GroupId, Place, u64)>, loads: &BTreeMap<Place, u64>) -> Spread {
        let mut spread = Spread::default();
        for (id, home, count) in open {
            spread.groups.entry(home).or_default().insert((count, id));
        }
        for (home, groups) in &spread.groups {
            let (count, id) = groups.first().expect("a group was put in");
            spread.shards.insert((loads.get(home).copied().unwrap_or(0), *count, *id, *home));
        }
        spread
    }

    /// The next one is counted in it; `None` where no group may be given anything.
    pub(super) fn next(&mut self) -> Option<GroupId> {
        let (load, count, id, home) = self.shards.pop_first()?;
        let groups = self.groups.get_mut(&home).expect("a shard has groups");
        assert!(groups.remove(&(count, id)), "the best group of {home:?} is {id}");
        groups.insert((count + 1, id));
        let (best, best_id) = *groups.first().expect("one was put in");
        self.shards.insert((load + 1, best, best_id, home));
        Some(id)
    }
}
