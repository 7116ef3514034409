//! Consumer groups that nobody uses any more are deleted, by the node that leads their home.
//!
//! Every minute (or a quarter of `group.expiry`, if that is shorter) each shard 0 asks all shards of its node when each group was last active, a member heard of or
//! an offset committed, and tells those of the other nodes. What was active nowhere for `group.expiry` is deleted as if somebody had asked for it, so a member that
//! joins meanwhile keeps it.
//!
//! Invariants: one that is younger than `group.expiry`, or that this process has not watched for so long, stays; what a node has not told yet may be that the group
//! is in use, so only the time counts through which every node that has replicas has told; a look deletes a few.
//!
//! Not here: how a group is deleted (`group_deletion.rs`).

use super::mesh::GroupStatus;
use super::pipelines::{NotTaken, write};
use super::shard::{Phase, Shard};
use crate::control::NodeState;
use crate::effects::{Effects, Now};
use crate::ids::{NodeId, ShardId, SubscriptionUid};
use std::collections::BTreeMap;
use tramline_wire::node::{self, Frame, GroupActive, Kind, NodeError};
use tramline_wire::prim::List;

/// How often is looked, in microseconds.
const LOOK_US: u64 = 60_000_000;

/// Groups deleted after one look at most: each is a question to its home, and these are bounded for everybody.
const LOOK_DELETES_MAX: usize = 32;

/// Groups that one frame tells of: 64 KiB.
const ROWS_MAX: usize = 4096;

/// When groups were active, as far as this node knows, and the look that is under way.
#[derive(Debug, Default)]
pub(super) struct GroupExpiry {
    next_look_us: u64,
    /// The look's answer, to be worked through.
    status: Option<Vec<GroupStatus>>,
    /// When this node began to watch: who was active before and not since is not known after a start.
    watches_since_us: Option<i64>,
    /// When groups were active on any node, in UTC microseconds of this one.
    active_us: BTreeMap<SubscriptionUid, i64>,
    /// Through when each other node has told.
    heard_us: BTreeMap<NodeId, i64>,
}

impl GroupExpiry {
    /// All shards have answered.
    pub(super) fn on_status(&mut self, status: Vec<GroupStatus>) {
        self.status = Some(status);
    }
}

/// The latest time counts.
fn note(known: &mut BTreeMap<SubscriptionUid, i64>, uid: SubscriptionUid, active_us: i64) {
    let known_us = known.entry(uid).or_insert(active_us);
    *known_us = (*known_us).max(active_us);
}

impl Shard {
    /// One turn of it.
    pub(super) fn expire_groups(&mut self, now: Now, effects: &mut Effects) {
        if self.seat.is_none() || self.phase != Phase::Serving {
            return;
        }
        let watches_since_us = *self.group_expiry.watches_since_us.get_or_insert(now.utc_us);
        if let Some(status) = self.group_expiry.status.take() {
            let view = &self.view;
            let mut active_us = BTreeMap::new();
            for of_shard in status.iter().filter(|of_shard| view.group_by_uid(of_shard.uid).is_some()) {
                note(&mut active_us, of_shard.uid, if of_shard.members > 0 { now.utc_us } else { of_shard.active_us });
            }
            let known = &mut self.group_expiry.active_us;
            known.retain(|uid, _| view.group_by_uid(*uid).is_some());
            active_us.iter().for_each(|(uid, active_us)| note(known, *uid, *active_us));
            self.tell_activity(now, &active_us, effects);
            self.delete_idle(now, watches_since_us, effects);
        }
        if now.mono_us >= self.group_expiry.next_look_us {
            self.group_expiry.next_look_us = now.mono_us + LOOK_US.min(self.settings.group_expiry_us / 4);
            if !self.view.groups().is_empty() {
                self.ask_for_groups(None, effects);
            }
        }
        effects.wake_at(self.group_expiry.next_look_us);
    }

    /// Tells the other nodes what this one knows by itself: what it has heard, they hear from whom it has that.
    fn tell_activity(&mut self, now: Now, active_us: &BTreeMap<SubscriptionUid, i64>, effects: &mut Effects) {
        let idle_ms = |active_us: i64| u64::try_from(now.utc_us.saturating_sub(active_us)).unwrap_or(0) / 1000;
        let row = |(uid, active_us): (&SubscriptionUid, &i64)| GroupActive { group_uid: uid.0, idle_ms: idle_ms(*active_us) };
        let rows: Vec<_> = active_us.iter().map(row).collect();
        for peer in self.pipelines.peers.iter_mut().filter(|peer| peer.live().is_some()) {
            let mut left = rows.as_slice();
            loop {
                let (groups, rest) = left.split_at(left.len().min(ROWS_MAX));
                let (conn, number) = peer.next_number();
                let activity = node::Activity { groups: List::of(groups) };
                effects.send(conn, [], |out| write(out, Kind::Activity, number, |out| activity.encode(out)));
                left = rest;
                // A full frame is not the last one.
                if groups.len() < ROWS_MAX {
                    break;
                }
            }
        }
    }

    /// The shard 0 of another node tells which groups were active there.
    pub(super) fn on_activity(&mut self, now: Now, at: usize, frame: &Frame<'_>) -> Result<(), NotTaken> {
        let told = node::Activity::decode(frame.meta).map_err(NodeError::from)?;
        if self.id != ShardId(0) {
            return Err(NotTaken::Wrong("shards 0 tell each other of consumer groups, and this is none".to_owned()));
        }
        for row in told.groups.iter() {
            let uid = SubscriptionUid(row.group_uid);
            // One that is not in the view yet is younger than any `group.expiry`, and told of again; one that is not there any more is of no use.
            if self.view.group_by_uid(uid).is_some() {
                note(&mut self.group_expiry.active_us, uid, now.utc_us.saturating_sub_unsigned(row.idle_ms.saturating_mul(1000)));
            }
        }
        if told.groups.iter().len() < ROWS_MAX {
            let from = self.pipelines.peers[at].replica.node();
            self.group_expiry.heard_us.insert(from, now.utc_us);
        }
        Ok(())
    }

    /// Through when this node knows which groups were active; `None` where a node has told nothing yet.
    fn knows_activity_through(&self, now: Now) -> Option<i64> {
        let others = self.view.cluster.nodes().iter().filter(|other| other.node != self.node);
        let mut has_replicas = others.filter(|other| !matches!(other.state, NodeState::Registered | NodeState::Removed));
        has_replicas.try_fold(now.utc_us, |through_us, other| Some(through_us.min(*self.group_expiry.heard_us.get(&other.node)?)))
    }

    fn delete_idle(&mut self, now: Now, watches_since_us: i64, effects: &mut Effects) {
        let Some(through_us) = self.knows_activity_through(now) else { return };
        let before_us = through_us.saturating_sub_unsigned(self.settings.group_expiry_us);
        let is_idle = |uid: SubscriptionUid, created_us: i64| {
            // Who was a member before this node was started, and came back to nothing that is known, is not known either.
            let known_us = self.group_expiry.active_us.get(&uid).copied().unwrap_or(0);
            known_us.max(created_us).max(watches_since_us) < before_us
        };
        let ours = self.view.groups().iter().filter(|group| self.home_of(group).node == self.node);
        let idle = ours.filter(|group| is_idle(group.uid, group.created_us) && !self.deletions.has(group.uid)).take(LOOK_DELETES_MAX);
        let idle: Vec<String> = idle.map(|group| group.name.clone()).collect();
        for name in idle {
            tracing::info!(group = name, "a consumer group that nobody has used for group.expiry is deleted");
            if self.retire_group(now, None, &name, effects).is_ok() {
                self.metrics.counters.groups_expired += 1;
            }
        }
    }
}
