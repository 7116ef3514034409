//! What the leader of group 0 does so that the cluster becomes what the metadata want: it tells what this node is, lets new nodes learn group 0, makes them
//! active when they have it, and carries out moves of group 0's own replicas. (Groups of a factor are created when somebody needs them: `admin.rs`.)
//!
//! One thing at a time, each derived from the metadata and the group's configuration alone: whoever leads next goes on where this one ended.
//!
//! Not here: which moves are good (control/placement.rs), how moves of other groups are carried out (`moving.rs`).

use super::moving::Next;
use super::shard::Shard;
use crate::control::{ClusterCommand, NodeSpec, NodeState, NodeView};
use crate::effects::{Effects, Now};
use crate::ids::{GroupId, NodeId, ReplicaId};
use crate::replication::{Action, Change};

/// Between two looks.
const LOOK_US: u64 = 100_000;
/// Between two words of a node about itself.
const SAY_US: u64 = 1_000_000;

impl Shard {
    /// A look at what is to be done for the cluster.
    pub(super) fn plan(&mut self, now: Now, effects: &mut Effects) {
        let group = GroupId(0);
        if self.seat.is_none() {
            return;
        }
        if self.info.cluster.is_none() && self.pipelines.is_alone() || self.failure().is_some() {
            return;
        }
        if !self.groups.is_caught_up(group) {
            // Whoever leads counts for itself how long nodes are away.
            self.seat.iter_mut().for_each(|seat| seat.away.clear());
            return self.say_who_this_is(now, effects);
        }
        let Some(seat) = self.seat.as_mut().filter(|seat| seat.next_plan_us <= now.mono_us) else {
            let at_us = self.seat.as_ref().map_or(u64::MAX, |seat| seat.next_plan_us);
            return effects.wake_at(at_us);
        };
        seat.next_plan_us = now.mono_us + LOOK_US;
        effects.wake_at(seat.next_plan_us);
        if seat.is_busy()
            || seat.state.view_epoch() != self.view.epoch
            || self.groups.leader_term(group).is_none()
            || !self.groups.is_settled(group)
        {
            return;
        }
        match self.next_step(now, effects) {
            Next::Wait => {}
            Next::Nothing => self.seat.as_mut().expect("looked at above").planned_epoch = self.view.epoch,
            Next::Change(change) => match self.groups.change(group, change) {
                Ok(index) => tracing::info!(index = index.0, ?change, "who votes in the metadata changes"),
                Err(error) => tracing::debug!("{error}: tried again"),
            },
            Next::HandOver(to) => {
                if let Err(error) = self.groups.transfer(group, to) {
                    tracing::debug!("{error}: tried again");
                }
            }
            Next::Propose(command) => {
                tracing::info!(?command, "the cluster changes");
                if let Err(error) = self.propose(command.into(), None, false) {
                    tracing::debug!("{}: tried again", error.message);
                }
            }
        }
    }

    /// A node that came back at another address, or in another rack, tells whoever leads the metadata.
    fn say_who_this_is(&mut self, now: Now, effects: &mut Effects) {
        let Some(mut spec) = self.own_spec().filter(|spec| self.is_told_otherwise(spec)) else { return };
        let Some(seat) = self.seat.as_mut() else { return };
        effects.wake_at(seat.next_plan_us.max(now.mono_us + 1));
        if seat.next_plan_us > now.mono_us || self.groups.leads(GroupId(0)) {
            return;
        }
        seat.next_plan_us = now.mono_us + SAY_US;
        spec.generation = self.info.generation;
        self.ask_metadata(ClusterCommand::AddNode(Box::new(spec)), effects);
    }

    /// Whether the metadata say something else of this node. Before a leader has told how far they go, that is what the log tells of the address: who has another
    /// one now hears of no leader.
    fn is_told_otherwise(&self, spec: &NodeSpec) -> bool {
        match self.view.cluster.node(self.node) {
            Some(known) => !says_the_same(known, spec),
            None => self.seat.iter().flat_map(|seat| &seat.addresses).any(|(node, at)| *node == self.node && *at != spec.cluster),
        }
    }

    fn next_step(&mut self, now: Now, effects: &mut Effects) -> Next {
        let members = self.groups.members_of(GroupId(0)).expect("shard 0 has it").clone();
        let view = std::sync::Arc::clone(&self.view);
        let cluster = &view.cluster;
        let me = cluster.node(self.node);
        if let Some(spec) = self.own_spec().filter(|spec| me.is_none_or(|known| !says_the_same(known, spec))) {
            return Next::Propose(ClusterCommand::AddNode(Box::new(spec)));
        }
        let there = cluster.nodes().iter().filter(|node| node.state != NodeState::Removed);
        for node in there {
            let replica = ReplicaId::of(node.generation, node.node);
            if members.all().all(|member| member != replica) {
                return Next::Change(Change { action: Action::Learn, replica, serves: 0 });
            }
            if node.state == NodeState::Registered && self.is_near(now, GroupId(0), replica) {
                return Next::Propose(ClusterCommand::SetNodeState { node: node.node.0, state: NodeState::Active });
            }
        }
        if let Some(node) = cluster.nodes().iter().find(|node| node.state == NodeState::Leaving && !cluster.has_replica(node.node)) {
            return Next::Propose(ClusterCommand::RemoveNode { node: node.node.0 });
        }
        if let Some(command) = self.hopeless_move(now) {
            return Next::Propose(command);
        }
        // Who was removed, or has another disk, learns group 0 no more. A voter is dropped by a move.
        let is_gone = |replica: &&ReplicaId| {
            let node = cluster.node(replica.node());
            node.is_none_or(|node| node.state == NodeState::Removed || node.generation != replica.generation())
        };
        if let Some(replica) = members.learners.iter().find(is_gone) {
            return Next::Change(Change { action: Action::Leave, replica: *replica, serves: 0 });
        }
        if let Some(node) = cluster.nodes().iter().find(|node| node.state == NodeState::Draining && self.has_given_away(node.node)) {
            return Next::Propose(ClusterCommand::SetNodeState { node: node.node.0, state: NodeState::Drained });
        }
        let control = cluster.group(GroupId(0));
        if let Some(moving) = control.and_then(|control| control.moving.as_ref()) {
            return self.next_of_move(now, GroupId(0), moving);
        }
        match control.map_or(Next::Nothing, |control| self.next_of_stray(now, control, effects)) {
            Next::Nothing => {}
            next => return next,
        }
        let seat = self.seat.as_ref().expect("who plans has it");
        match seat.planned_epoch == self.view.epoch {
            true => Next::Nothing,
            false => {
                let plans = seat.state.repairs();
                let can_be = |plan: &ClusterCommand| match plan {
                    ClusterCommand::PlanMove { add: Some(add), .. } => self.is_connected(NodeId(*add)),
                    ClusterCommand::PlanMove { group, add: None, drop: Some(drop) } => self.can_do_without(GroupId(*group), NodeId(*drop)),
                    _ => true,
                };
                let is_waiting = !plans.is_empty();
                match plans.into_iter().find(can_be) {
                    Some(plan) => Next::Propose(plan),
                    // Nobody brings anything to a node that is away, nor leaves a group to it.
                    None if is_waiting => Next::Wait,
                    None => Next::Nothing,
                }
            }
        }
    }

    /// Whether a group may lose its replica on a node while none comes: that of a disk that is gone, or one without which a majority of it is connected. Its leader
    /// would wait with it otherwise, and nothing else could be planned for the group meanwhile.
    fn can_do_without(&self, group: GroupId, node: NodeId) -> bool {
        let Some(found) = self.view.cluster.group(group) else { return false };
        let is_stale = found.replicas.iter().any(|replica| replica.node == node && replica.is_stale);
        let others = found.replicas.iter().filter(|replica| replica.node != node);
        let connected = others.clone().filter(|replica| !replica.is_stale && self.is_connected(replica.node)).count();
        is_stale || 2 * connected > others.count()
    }

    /// Whether a node leads nothing that another one could lead. Of groups without a replica here whoever leads them has told.
    fn has_given_away(&self, node: NodeId) -> bool {
        let has = |group: &&crate::control::ReplicaGroupView| {
            group.replicas.len() > 1 && group.replicas.iter().any(|replica| replica.node == node)
        };
        let mut shared = self.view.cluster.groups().iter().filter(has);
        shared.all(|group| self.leaders.of(group.id).is_some_and(|(leader, _)| leader != node))
    }

    /// What this node says about itself, if it says where it listens for others.
    fn own_spec(&self) -> Option<NodeSpec> {
        self.info.cluster.is_some().then(|| self.info.spec(&self.settings))
    }
}

fn says_the_same(known: &NodeView, spec: &NodeSpec) -> bool {
    (known.disk, &known.rack, &known.cluster, &known.client) == (spec.disk, &spec.rack, &spec.cluster, &spec.client)
        && (known.feature_min, known.feature_max) == (spec.feature_min, spec.feature_max)
}
