//! Moves of the groups that this shard leads: each step follows from the plan in the metadata and the group's configuration alone, so whoever leads next goes on
//! where this one ended (docs/REPLICATION.md, 6.3).
//!
//! Invariants: one change of voters at a time; nobody votes who has not nearly everything, for a while, over a connection that stands; who leads is not dropped: it hands over first; nobody is, without whom those
//! that are there are no majority.
//!
//! Not here: which moves there are (control/), what they leave that ended early (`strays.rs`), what brings a new replica the log (`catchup.rs`), how a replica begins and ends (`replicas.rs`).

use super::shard::{Phase, Shard};
use crate::control::{ClusterCommand, MoveStep, MoveView};
use crate::effects::{Effects, Now};
use crate::ids::{GroupId, ReplicaId};
use crate::mutants::Mutant;
use crate::replication::{Action, Change};

/// Between two looks.
const LOOK_US: u64 = 250_000;
/// So long a replica is to be connected before it gets a vote.
const STEADY_US: u64 = 500_000;

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Tell the metadata.
    Propose(ClusterCommand),
    /// Change who votes.
    Change(Change),
    HandOver(ReplicaId),
    /// Look again, though nothing changes.
    Wait,
    Nothing,
}

impl Shard {
    /// A look at the moves of the data groups that are led here.
    pub(super) fn carry_moves_out(&mut self, now: Now, effects: &mut Effects) {
        if now.mono_us < self.pipelines.next_move_look_us || self.phase != Phase::Serving {
            return;
        }
        let view = std::sync::Arc::clone(&self.view);
        self.pipelines.next_move_look_us = now.mono_us + LOOK_US;
        for found in view.cluster.groups_on(self.node, self.id).filter(|group| group.id != GroupId(0)) {
            let group = found.id;
            if found.moving.is_some() {
                effects.wake_at(self.pipelines.next_move_look_us);
            }
            if self.groups.leader_term(group).is_none() || !self.groups.is_caught_up(group) || !self.groups.is_settled(group) {
                continue;
            }
            let next = match &found.moving {
                Some(moving) => self.next_of_move(now, group, moving),
                None => self.next_of_stray(now, found, effects),
            };
            // What stands in the open block gets its index before a change does, and before the group is somebody else's.
            if matches!(next, Next::Change(_) | Next::HandOver(_)) && !self.close_rows_of(now, group, effects) {
                continue;
            }
            match next {
                Next::Wait | Next::Nothing => {}
                Next::Propose(command) => self.ask_metadata(command, effects),
                Next::Change(change) => match self.groups.change(group, change) {
                    Ok(index) => {
                        tracing::info!(shard = self.id.0, group = group.0, index = index.0, ?change, "who votes in the group changes")
                    }
                    Err(error) => tracing::debug!("{error}: tried again"),
                },
                Next::HandOver(to) => {
                    if let Err(error) = self.groups.transfer(group, to) {
                        tracing::debug!("{error}: tried again");
                    }
                }
            }
        }
    }

    /// Closes the open block if it has rows of a group; false where that has to wait.
    fn close_rows_of(&mut self, now: Now, group: GroupId, effects: &mut Effects) -> bool {
        if self.log.open_groups().iter().all(|row| row.group != group) {
            return true;
        }
        self.urgent = true;
        if self.log.ready_to_close() {
            self.close_block(now, effects);
        }
        self.failure().is_none() && self.log.open_groups().iter().all(|row| row.group != group)
    }

    /// The step of a move that has ended, or what its next one needs.
    pub(super) fn next_of_move(&self, now: Now, group: GroupId, moving: &MoveView) -> Next {
        let members = self.groups.members_of(group).expect("this shard has it");
        let note = |step| Next::Propose(ClusterCommand::NoteMove { id: moving.id.0, step, conf_index: members.index.0 });
        let change = |action, replica: ReplicaId| Next::Change(Change { action, replica, serves: moving.id.0 });
        let votes = |replica: ReplicaId| members.voters.contains(&replica);
        let may_vote = |replica: ReplicaId| self.is_near(now, group, replica) || self.log.mutants().has(Mutant::PromoteEarly);
        if let Some(add) = &moving.add {
            match moving.step {
                // Its replica begins when its node has the view; what is sent before that is passed over there.
                MoveStep::Planned => return note(MoveStep::Prepared),
                MoveStep::Prepared if members.all().any(|member| member == add.id) => return note(MoveStep::Learner),
                // Every node learns group 0.
                MoveStep::Prepared if group != GroupId(0) => return change(Action::Learn, add.id),
                MoveStep::Learner if votes(add.id) || may_vote(add.id) => return note(MoveStep::CaughtUp),
                MoveStep::CaughtUp if votes(add.id) => return note(MoveStep::Promoted),
                MoveStep::CaughtUp if may_vote(add.id) => return change(Action::Vote, add.id),
                // Somebody has taken it for a stray meanwhile.
                MoveStep::Learner | MoveStep::CaughtUp if group != GroupId(0) && members.all().all(|member| member != add.id) => {
                    return change(Action::Learn, add.id);
                }
                MoveStep::Prepared | MoveStep::Learner | MoveStep::CaughtUp => return Next::Nothing,
                _ => {}
            }
        }
        let Some(drop) = &moving.drop else { return Next::Nothing };
        match moving.step {
            // It leads itself, perhaps again: it has to hand over first.
            step if step <= MoveStep::HandedOver && drop.id == self.replica() => {
                let others = members.voters.iter().filter(|voter| **voter != drop.id && self.is_near(now, group, **voter));
                others.max_by_key(|voter| self.groups.matched(group, **voter)).map_or(Next::Nothing, |to| Next::HandOver(*to))
            }
            MoveStep::HandedOver if votes(drop.id) && !drop.is_stale && !self.can_go_on_without(now, group, drop.id) => Next::Nothing,
            MoveStep::HandedOver if votes(drop.id) => change(Action::Leave, drop.id),
            MoveStep::HandedOver => note(MoveStep::Dropped),
            MoveStep::Dropped => note(MoveStep::Forgotten),
            _ => note(MoveStep::HandedOver),
        }
    }

    /// Whether a majority of the other voters of a group that is led here is there: of three with one away, the two that would be left have none.
    fn can_go_on_without(&self, now: Now, group: GroupId, replica: ReplicaId) -> bool {
        let members = self.groups.members_of(group).expect("this shard has it");
        let others = members.voters.iter().filter(|voter| **voter != replica);
        let is_there = |voter: &&ReplicaId| **voter == self.replica() || self.is_near(now, group, **voter);
        2 * others.clone().filter(is_there).count() > others.count()
    }

    /// Whether a replica of a group that is led here has nearly everything.
    pub(super) fn is_near(&self, now: Now, group: GroupId, replica: ReplicaId) -> bool {
        self.is_steady(now, replica, STEADY_US) && self.has_nearly(group, replica, self.groups.committed_of(group))
    }
}
