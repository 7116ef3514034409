//! Moves: planned changes of the nodes that have a group, one at a time per group. Group 0 holds the plan, the group's leader carries it out and notes how far it
//! is; both may be said twice, and a note may pass over steps.
//!
//! ```text
//! planned -> prepared -> learner -> caught up -> promoted  [-> handed over -> dropped -> forgotten]      add, or add and drop
//! planned -> handed over -> dropped -> forgotten                                                         drop only
//! ```
//!
//! Invariants: what is added is a voter from `promoted` on, what is dropped is none from `dropped` on, so a group never has fewer voters than before on its
//! way; a replica whose disk is gone is dropped first and by itself, since it counts for the majority and can do nothing; nobody waits for it to be forgotten.
//!
//! Not here: which moves are good (`placement.rs`); how a leader carries one out (docs/REPLICATION.md, 6.3).

use super::cluster_error::ClusterError;
use super::groups::{Group, Groups, Place, Replica, Unclean, majority};
use super::nodes::{NodeState, Nodes};
use super::placement::held_on;
use crate::constants::{NODE_MOVES_MAX, REPLICAS_MAX, SHARD_REPLICAS_MAX};
use crate::ids::{GroupId, LogIndex, MoveId, NodeId, ReplicaId};
use rkyv::{Archive, Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// How far a move is: the last step that has ended.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MoveStep {
    /// Nothing has been done.
    Planned,
    /// The new node has its replica record.
    Prepared,
    /// It is a learner.
    Learner,
    /// It has nearly everything.
    CaughtUp,
    /// It is a voter.
    Promoted,
    /// Another one leads than the one that is dropped.
    HandedOver,
    /// The old one is no voter.
    Dropped,
    /// The old one has freed its space.
    Forgotten,
}

impl fmt::Display for MoveStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MoveStep::Planned => "planned",
            MoveStep::Prepared => "prepared",
            MoveStep::Learner => "learner",
            MoveStep::CaughtUp => "caught up",
            MoveStep::Promoted => "promoted",
            MoveStep::HandedOver => "handed over",
            MoveStep::Dropped => "dropped",
            MoveStep::Forgotten => "forgotten",
        })
    }
}

/// A move that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) id: MoveId,
    pub(super) add: Option<Replica>,
    pub(super) drop: Option<Replica>,
    /// The last step that has ended.
    pub(super) step: MoveStep,
    /// Index, in the group, of the newest configuration that it made.
    pub(super) conf_index: LogIndex,
}

impl Move {
    pub(super) fn has_step(&self, step: MoveStep) -> bool {
        if step <= MoveStep::Promoted { self.add.is_some() } else { self.drop.is_some() }
    }

    /// The step with which nothing is left to do.
    pub(super) fn last_step(&self, nodes: &Nodes) -> MoveStep {
        match self.drop {
            None => MoveStep::Promoted,
            Some(drop) if drop.is_stale(nodes) => MoveStep::Dropped,
            Some(_) => MoveStep::Forgotten,
        }
    }
}

/// A plan, before it is a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) group: GroupId,
    pub(super) add: Option<NodeId>,
    pub(super) drop: Option<NodeId>,
}

impl Groups {
    pub(super) fn check_plan(&self, nodes: &Nodes, plan: Plan) -> Result<(), ClusterError> {
        let Plan { group: id, add, drop } = plan;
        let group = self.get(id)?;
        let wrong = |what: String| Err(ClusterError::Plan(id, what));
        if let Some(moving) = &group.moving {
            return Err(ClusterError::Moving(id, moving.id));
        }
        if add.is_none() && drop.is_none() {
            return wrong("name a node to add, one to drop, or both".into());
        }
        if !group.has_majority(nodes) {
            let (left, of) = (group.living(nodes).count(), group.replicas.len());
            return Err(ClusterError::Majority { group: id, left, of, why: "with the disk that they were put on".into() });
        }
        let dropped = match drop {
            None => None,
            Some(node) => match group.replica_on(node) {
                None => return wrong(format!("node {node} has no replica of it")),
                found => found,
            },
        };
        if let Some(node) = add {
            self.check_add(nodes, plan, node)?;
        }
        let drops_stale = dropped.is_some_and(|replica| replica.is_stale(nodes));
        let (has, wants) = (group.replicas.len(), if id == GroupId(0) { REPLICAS_MAX } else { group.factor });
        match (add, dropped) {
            (Some(_), Some(replica)) if drops_stale => {
                return wrong(format!(
                    "the disk of its replica on node {} is gone: plan to drop that first, and to add one then",
                    replica.node()
                ));
            }
            (Some(_), None) if has >= usize::from(wants) => return wrong(format!("it has its {has} replicas: name one to drop")),
            (None, Some(replica)) if !group.can_spare(nodes, *replica) && has > 1 => {
                return wrong(format!("without its replica on node {} it has no majority of disks that were not replaced", replica.node()));
            }
            (None, Some(_)) if has == 1 => return wrong("it would have no replica: name a node to add".into()),
            (None, Some(_)) if !drops_stale && id != GroupId(0) && has <= usize::from(wants) => {
                return wrong(format!("it would have fewer than its {wants} replicas: name a node to add"));
            }
            _ => {}
        }
        for node in [add, drop].into_iter().flatten() {
            if self.moves_of(node) >= NODE_MOVES_MAX {
                return wrong(format!("node {node} takes part in {NODE_MOVES_MAX} moves, as many as at one time can be: wait for one"));
            }
        }
        Ok(())
    }

    fn check_add(&self, nodes: &Nodes, plan: Plan, node: NodeId) -> Result<(), ClusterError> {
        let (group, is) = (self.get(plan.group)?, nodes.get(node)?.state);
        if !nodes.is_active(node) {
            return Err(ClusterError::State { node, is, wanted: "replicas are placed on active nodes only".into() });
        }
        if group.replica_on(node).is_some() {
            return Err(ClusterError::Plan(plan.group, format!("node {node} has a replica of it already")));
        }
        let place = nodes.place_on(node, group.home);
        if plan.group != GroupId(0) && held_on(self, nodes, place) >= SHARD_REPLICAS_MAX {
            return Err(ClusterError::Limit(format!(
                "shard {} of node {node} has {SHARD_REPLICAS_MAX} replicas, its limit: choose another node",
                place.shard
            )));
        }
        Ok(())
    }

    /// Whether a move can still be carried out, after a disk was replaced.
    pub(super) fn is_stuck(group: &Group, nodes: &Nodes) -> bool {
        let shrinks = group.moving.as_ref().filter(|m| m.add.is_none() && m.step < MoveStep::Dropped).and_then(|m| m.drop);
        !group.has_majority(nodes) || shrinks.is_some_and(|drop| !group.can_spare(nodes, drop))
    }

    /// Moves that a node takes part in.
    pub(super) fn moves_of(&self, node: NodeId) -> u32 {
        let is_in = |replica: Option<Replica>| replica.is_some_and(|r| r.node() == node);
        let under_way = self.moves.values().map(|group| self.get(*group).expect("a group that is moved").moving.as_ref());
        under_way.flatten().filter(|m| is_in(m.add) || is_in(m.drop)).count() as u32
    }

    /// Plans a move; `check_plan` has been asked.
    pub(super) fn plan(&mut self, nodes: &Nodes, plan: Plan) -> MoveId {
        let id = MoveId(self.next_move);
        self.next_move += 1;
        self.moves.insert(id, plan.group);
        let group = self.known_mut(plan.group);
        let add = plan.add.map(|node| Replica::new(nodes, nodes.place_on(node, group.home)));
        let drop = plan.drop.map(|node| *group.replica_on(node).expect("checked"));
        group.moving = Some(Move { id, add, drop, step: MoveStep::Planned, conf_index: LogIndex(0) });
        id
    }

    fn moving(&self, id: MoveId) -> Result<(GroupId, &Move), ClusterError> {
        let group = *self.moves.get(&id).ok_or(ClusterError::UnknownMove(id))?;
        Ok((group, self.get(group)?.moving.as_ref().expect("the table of moves says so")))
    }

    /// A step that has passed may be noted again.
    pub(super) fn check_note(&self, id: MoveId, step: MoveStep) -> Result<(), ClusterError> {
        let (_, found) = self.moving(id)?;
        if found.has_step(step) || step <= found.step {
            return Ok(());
        }
        Err(ClusterError::Step { id, at: found.step, wanted: format!("it has no step {step}") })
    }

    /// Takes in how far a move is; `check_note` has been asked.
    pub(super) fn note(&mut self, nodes: &Nodes, id: MoveId, step: MoveStep, conf_index: LogIndex) {
        let group_id = self.moves[&id];
        let group = self.known_mut(group_id);
        let found = group.moving.as_mut().expect("the table of moves says so");
        if step <= found.step {
            return;
        }
        found.step = step;
        found.conf_index = found.conf_index.max(conf_index);
        let (add, drop, is_over) = (found.add, found.drop, step >= found.last_step(nodes));
        if let Some(add) = add.filter(|_| step >= MoveStep::Promoted)
            && group.replica_on(add.node()).is_none()
        {
            group.replicas.push(add);
        }
        if let Some(drop) = drop.filter(|_| step >= MoveStep::Dropped) {
            group.home = group.home_aim();
            group.replicas.retain(|replica| *replica != drop);
            // A node whose disk was replaced keeps its homes: it is to get a replica again.
            let comes_back = drop.is_stale(nodes) && nodes.known(drop.node()).state != NodeState::Leaving;
            if add.is_none() && group.home.node == drop.node() && !comes_back {
                group.home = group.replicas.first().map_or(group.home, |replica| replica.place);
            }
            assert!(!group.replicas.is_empty(), "replica group {group_id} has lost its last replica to move {id}");
        }
        if is_over {
            self.end(id);
        }
    }

    pub(super) fn check_cancel(&self, id: MoveId) -> Result<(), ClusterError> {
        let (_, found) = self.moving(id)?;
        let is_early = if found.add.is_some() { found.step < MoveStep::Promoted } else { found.step < MoveStep::Dropped };
        if is_early {
            return Ok(());
        }
        Err(ClusterError::Step { id, at: found.step, wanted: "the voters have changed already: let it end, and plan another one".into() })
    }

    /// A move is over, for whatever reason.
    pub(super) fn end(&mut self, id: MoveId) {
        let group = self.moves.remove(&id).expect("under way");
        self.known_mut(group).moving = None;
    }

    /// `node` takes nothing more (it leaves, or has another disk): moves that would bring it a replica end. Where that is a voter already, only what would be
    /// dropped for it stays.
    pub(super) fn end_arrivals(&mut self, node: NodeId) {
        let is_bound = |group: &Group| {
            group.moving.as_ref().is_some_and(|m| m.add.is_some_and(|add| add.node() == node) && m.step < MoveStep::Dropped)
        };
        let ended: Vec<_> =
            self.all().filter(|(_, group)| is_bound(group)).filter_map(|(_, group)| group.moving.as_ref().map(|m| m.id)).collect();
        ended.into_iter().for_each(|id| self.end(id));
    }

    /// Moves that only wait for `node` to free its space end: it is gone.
    pub(super) fn end_partings(&mut self, node: NodeId) {
        let is_bound = |group: &Group| group.parting().is_some_and(|replica| replica.node() == node);
        let ended: Vec<_> =
            self.all().filter(|(_, group)| is_bound(group)).filter_map(|(_, group)| group.moving.as_ref().map(|m| m.id)).collect();
        ended.into_iter().for_each(|id| self.end(id));
    }

    /// Homes on a node that will not come back go to the replicas that are left.
    pub(super) fn leave_homes(&mut self, nodes: &Nodes, node: NodeId) {
        for (_, group) in self.all_mut().filter(|(_, group)| group.home.node == node && group.replica_on(node).is_none()) {
            let next: Option<Place> = group.living(nodes).chain(&group.replicas).map(|replica| replica.place).next();
            group.home = next.unwrap_or(group.home);
        }
    }

    pub(super) fn check_unclean(&self, nodes: &Nodes, id: GroupId, survivors: &[u64]) -> Result<(), ClusterError> {
        let wrong = |what: String| Err(ClusterError::Survivors(id, what));
        if id == GroupId(0) {
            return wrong("the metadata's own group cannot decide about itself: tell the survivor while it is stopped".into());
        }
        let group = self.get(id)?;
        let named: BTreeSet<u64> = survivors.iter().copied().collect();
        if named.is_empty() || named.len() != survivors.len() {
            return wrong("name each replica that is left, once".into());
        }
        for replica in &named {
            match group.replicas.iter().find(|r| r.id().0 == *replica) {
                None => {
                    return wrong(format!(
                        "replica {replica} is none of its voters, which are {:?}",
                        group.replicas.iter().map(|r| r.id().0).collect::<Vec<_>>()
                    ));
                }
                Some(found) if found.is_stale(nodes) => {
                    return wrong(format!("the disk of replica {replica} was replaced: nothing of it is left"));
                }
                Some(_) => {}
            }
        }
        if named.len() >= majority(group.replicas.len()) {
            return wrong(format!("{} of {} replicas are a majority: it goes on by itself", named.len(), group.replicas.len()));
        }
        Ok(())
    }

    /// The survivors go on alone; `check_unclean` has been asked. A move cannot be finished any more.
    pub(super) fn recover_unclean(&mut self, index: LogIndex, id: GroupId, survivors: &[u64]) {
        if let Some(moving) = self.known_mut(id).moving.as_ref().map(|m| m.id) {
            self.end(moving);
        }
        let group = self.known_mut(id);
        group.replicas.retain(|replica| survivors.contains(&replica.id().0));
        assert!(!group.replicas.is_empty(), "replica group {id} has no survivor");
        group.unclean = Some(Unclean { index, survivors: group.replicas.iter().map(|r| r.id()).collect::<Vec<ReplicaId>>() });
    }
}
