//! Leaderships go where the metadata want them: to the preferred leader of each group, once it is there again and has nearly everything. A node that drains is
//! preferred nowhere, so it gives away all that it leads.
//!
//! Invariants: one hand-over at a time on a shard; nothing is handed over to a replica that was not connected for a while.
//!
//! Not here: who is preferred (control/), how a hand-over goes (replication/).

use super::shard::{Phase, Shard};
use crate::control::NodeState;
use crate::effects::{Effect, Effects, Now};
use crate::ids::{GroupId, LogIndex, NodeId, ReplicaId};

/// Between two hand-overs of a shard.
const PAUSE_US: u64 = 200_000;
/// So long a replica is to be connected before it leads.
const STEADY_US: u64 = 5_000_000;
/// Between two hand-overs of one group.
const RETRY_US: u64 = 20_000_000;
/// So long an orderly stop tries to give everything away.
const STOP_US: u64 = 5_000_000;
/// A replica that is so many entries behind catches up at once.
const NEAR_ENTRIES: u64 = 64;

impl Shard {
    /// Hands a group over to its preferred leader, if there is one that another replica leads here.
    pub(super) fn prefer_leaders(&mut self, now: Now, effects: &mut Effects) {
        if now.mono_us < self.pipelines.next_hand_over_us {
            return effects.wake_at(self.pipelines.next_hand_over_us);
        }
        self.pipelines.next_hand_over_us = now.mono_us + PAUSE_US;
        effects.wake_at(self.pipelines.next_hand_over_us);
        if self.groups.is_transferring() || self.failure().is_some() {
            return;
        }
        if self.phase == Phase::Stopping {
            return self.give_all_away(now, effects);
        }
        let found = self.group_ids.iter().find_map(|group| Some((*group, self.better_leader(now, *group)?)));
        let Some((group, to)) = found else { return };
        tracing::info!(shard = self.id.0, group = group.0, node = to.node().0, "the group is handed over to its preferred leader");
        self.pipelines.handed_over_us.insert(group, now.mono_us);
        if let Err(error) = self.groups.transfer(group, to) {
            tracing::debug!("{error}: tried again");
        }
    }

    /// An orderly stop: every group goes to whoever has most of it, so that nobody has to find out that this shard is gone.
    fn give_all_away(&mut self, now: Now, effects: &mut Effects) {
        if self.has_given_all_away() && !self.pipelines.has_left {
            // What other leaders go on sending would keep this log busy for ever.
            self.pipelines.has_left = true;
            for conn in self.pipelines.conns() {
                effects.push(Effect::Close { conn, reason: "this node stops" });
            }
        }
        if self.pipelines.has_left {
            // Nor is anything heard any more that they commit: who waits for that is answered as where another one leads. And so is what it comes to lead only now,
            // by votes that were on their way: nobody is there any more to whom it could be given, and the stop would wait for it for ever.
            for group in self.group_ids.clone() {
                if self.groups.members_of(group).is_some_and(|members| members.voters.len() > 1) {
                    self.groups.step_down(group);
                }
            }
            return self.on_leaderships(now, effects);
        }
        let until_us = *self.pipelines.stop_until_us.get_or_insert(now.mono_us + STOP_US);
        if now.mono_us >= until_us {
            self.pipelines.gave_up_giving = true;
            return;
        }
        for group in self.group_ids.clone() {
            if self.groups.leader_term(group).is_none() {
                continue;
            }
            let Some(members) = self.groups.members_of(group) else { continue };
            let others = members.voters.iter().filter(|replica| self.pipelines.is_live(**replica));
            let Some(to) = others.max_by_key(|replica| self.groups.matched(group, **replica)).copied() else { continue };
            if let Err(error) = self.groups.transfer(group, to) {
                tracing::debug!("{error}: it is left to the others");
            }
        }
    }

    /// Whether an orderly stop has nothing to give away any more, or has tried for long enough.
    pub(super) fn has_given_all_away(&self) -> bool {
        let is_led = |group: &&GroupId| {
            self.groups.leads(**group) && self.groups.members_of(**group).is_some_and(|members| members.voters.len() > 1)
        };
        self.pipelines.is_alone() || self.pipelines.gave_up_giving || !self.group_ids.iter().any(|group| is_led(&group))
    }

    /// The replica that is to lead `group` instead of this one, if it can.
    fn better_leader(&self, now: Now, group: GroupId) -> Option<ReplicaId> {
        let replicas = &self.view.cluster.group(group)?.replicas;
        let may_give = self.groups.leader_term(group).is_some() && self.groups.is_caught_up(group);
        if !may_give || replicas.first()?.id == self.replica() {
            return None;
        }
        let is_recent = |at_us: Option<u64>, us: u64| at_us.is_some_and(|at_us| now.mono_us < at_us.saturating_add(us));
        // One that was given away a moment ago has its reason; one that did not work is not tried all the time.
        let is_new = is_recent(self.groups.led_since_us(group), STEADY_US);
        let was_tried = is_recent(self.pipelines.handed_over_us.get(&group).copied(), RETRY_US);
        if is_new || was_tried || self.log.open_groups().iter().any(|entry| entry.group == group) {
            return None;
        }
        // Who stands aside does not wait for one that is away.
        let count = if self.takes_part(self.node) { 1 } else { replicas.len() };
        let mut able = replicas.iter().take(count).enumerate().filter(|(at, replica)| *at == 0 || self.takes_part(replica.id.node()));
        able.find(|(_, replica)| !replica.is_stale && self.may_take_over(now, group, replica.id)).map(|(_, replica)| replica.id)
    }

    fn takes_part(&self, node: NodeId) -> bool {
        self.view.cluster.node(node).is_none_or(|found| found.state == NodeState::Active)
    }

    /// Whether another replica has been there for a while, votes, and has nearly everything.
    fn may_take_over(&self, now: Now, group: GroupId, to: ReplicaId) -> bool {
        let has_come = self.pipelines.peers.iter().any(|peer| peer.replica == to && peer.accepted.is_some());
        let votes = self.groups.members_of(group).is_some_and(|members| members.voters.contains(&to));
        let is_near = self.has_nearly(group, to, self.groups.last_of(group).index);
        to != self.replica() && has_come && votes && is_near && self.is_steady(now, to, STEADY_US)
    }

    /// Whether a replica has been connected for so long, without a break.
    pub(super) fn is_steady(&self, now: Now, replica: ReplicaId, steady_us: u64) -> bool {
        let peer = self.pipelines.peers.iter().find(|peer| peer.replica == replica);
        peer.and_then(|peer| peer.live_since_us()).is_some_and(|since_us| since_us.saturating_add(steady_us) <= now.mono_us)
    }

    /// Whether a replica of a group that is led here has nearly everything up to `end`. How far it is known to be stays known when it dies.
    pub(super) fn has_nearly(&self, group: GroupId, replica: ReplicaId, end: LogIndex) -> bool {
        self.groups.matched(group, replica).is_some_and(|matched| matched.0 > 0 && matched.0 + NEAR_ENTRIES >= end.0)
    }
}
