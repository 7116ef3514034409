//! What the leader of group 0 does so that the cluster becomes what the metadata want: it tells what this node is, lets new nodes learn group 0, makes them
//! active when they have it, and carries out moves of group 0's own replicas. (Groups of a factor are created when somebody needs them: `admin.rs`.)
//!
//! One thing at a time, each derived from the metadata and the group's configuration alone: whoever leads next goes on where this one ended.
//!
//! Not here: which moves are good (control/placement.rs), moves of other groups (a limit of today: they are not proposed).

use super::shard::Shard;
use crate::control::{ClusterCommand, MoveStep, MoveView, NodeSpec, NodeState, NodeView};
use crate::effects::{Effects, Now};
use crate::ids::{GroupId, NodeId, ReplicaId};
use crate::replication::{Action, Change};

/// Between two looks.
const LOOK_US: u64 = 100_000;
/// So long a node is to be connected before it gets a vote, or is active.
const STEADY_US: u64 = 500_000;

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Propose(ClusterCommand),
    Change(Change),
    HandOver(ReplicaId),
    Nothing,
}

impl Shard {
    /// A look at what is to be done for the cluster.
    pub(super) fn plan(&mut self, now: Now, effects: &mut Effects) {
        let group = GroupId(0);
        if self.seat.is_none() {
            return;
        }
        if self.info.cluster.is_none() && self.pipelines.is_alone() || !self.groups.is_caught_up(group) || self.failure().is_some() {
            return;
        }
        let Some(seat) = self.seat.as_mut().filter(|seat| seat.next_plan_us <= now.mono_us) else {
            let at_us = self.seat.as_ref().map_or(u64::MAX, |seat| seat.next_plan_us);
            return effects.wake_at(at_us);
        };
        seat.next_plan_us = now.mono_us + LOOK_US;
        effects.wake_at(seat.next_plan_us);
        if seat.is_busy() || seat.state.view_epoch() != self.view.epoch || self.groups.leader_term(group).is_none() {
            return;
        }
        match self.next_step(now) {
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

    fn next_step(&self, now: Now) -> Next {
        let seat = self.seat.as_ref().expect("looked at above");
        let members = self.groups.members_of(GroupId(0)).expect("shard 0 has it");
        let cluster = &self.view.cluster;
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
            if node.state == NodeState::Registered && self.is_near(now, replica) {
                return Next::Propose(ClusterCommand::SetNodeState { node: node.node.0, state: NodeState::Active });
            }
        }
        if let Some(node) = cluster.nodes().iter().find(|node| node.state == NodeState::Draining && self.has_given_away(node.node)) {
            return Next::Propose(ClusterCommand::SetNodeState { node: node.node.0, state: NodeState::Drained });
        }
        match cluster.group(GroupId(0)).and_then(|control| control.moving.as_ref()) {
            Some(moving) => self.next_of_move(now, moving),
            None if seat.planned_epoch == self.view.epoch => Next::Nothing,
            None => {
                let of_control = |command: &ClusterCommand| matches!(command, ClusterCommand::PlanMove { group: 0, .. });
                seat.state.proposals().into_iter().find(of_control).map_or(Next::Nothing, Next::Propose)
            }
        }
    }

    /// The step of a move of group 0's that has ended, or what its next one needs.
    fn next_of_move(&self, now: Now, moving: &MoveView) -> Next {
        let members = self.groups.members_of(GroupId(0)).expect("shard 0 has it");
        let note = |step| Next::Propose(ClusterCommand::NoteMove { id: moving.id.0, step, conf_index: members.index.0 });
        let change = |action, replica: ReplicaId| Next::Change(Change { action, replica, serves: moving.id.0 });
        let votes = |replica: ReplicaId| members.voters.contains(&replica);
        if let Some(add) = &moving.add {
            match moving.step {
                // Every node learns group 0.
                MoveStep::Planned => return note(MoveStep::Prepared),
                MoveStep::Prepared if members.all().any(|member| member == add.id) => return note(MoveStep::Learner),
                MoveStep::Learner if votes(add.id) || self.is_near(now, add.id) => return note(MoveStep::CaughtUp),
                MoveStep::CaughtUp if votes(add.id) => return note(MoveStep::Promoted),
                MoveStep::CaughtUp if self.is_near(now, add.id) => return change(Action::Vote, add.id),
                MoveStep::Prepared | MoveStep::Learner | MoveStep::CaughtUp => return Next::Nothing,
                _ => {}
            }
        }
        let Some(drop) = &moving.drop else { return Next::Nothing };
        match moving.step {
            MoveStep::HandedOver if votes(drop.id) => change(Action::Leave, drop.id),
            MoveStep::HandedOver => note(MoveStep::Dropped),
            MoveStep::Dropped => note(MoveStep::Forgotten),
            // It leads itself: it has to hand over first.
            _ if drop.id == self.replica() => {
                let others = members.voters.iter().filter(|voter| **voter != drop.id && self.is_near(now, **voter));
                others.max_by_key(|voter| self.groups.matched(GroupId(0), **voter)).map_or(Next::Nothing, |to| Next::HandOver(*to))
            }
            _ => note(MoveStep::HandedOver),
        }
    }

    /// Whether a node leads nothing that another one could lead, as far as is known here.
    fn has_given_away(&self, node: NodeId) -> bool {
        let has = |group: &&crate::control::ReplicaGroupView| {
            group.replicas.len() > 1 && group.replicas.iter().any(|replica| replica.node == node)
        };
        let mut shared = self.view.cluster.groups().iter().filter(has);
        shared.all(|group| self.leaders.of(group.id).is_some_and(|(leader, _)| leader != node))
    }

    /// Whether a replica of group 0 has nearly everything.
    fn is_near(&self, now: Now, replica: ReplicaId) -> bool {
        self.is_steady(now, replica, STEADY_US) && self.has_nearly(GroupId(0), replica, self.groups.committed_of(GroupId(0)))
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
