//! Consumer groups that nobody uses any more are deleted, by shard 0.
//!
//! Every minute (or a quarter of `group.expiry`, if that is shorter) all shards are asked when each group was last active: a member heard of, an offset
//! committed. What was active nowhere for `group.expiry` is deleted as if somebody had asked for it, so a member that joins meanwhile keeps it.
//!
//! Invariants: one that is younger than `group.expiry`, or that this node has not watched for so long, stays; a look deletes a few.
//!
//! Not here: how a group is deleted (`gathers.rs`).

use super::mesh::GroupStatus;
use super::shard::{Phase, Shard};
use crate::effects::{Effects, Now};
use crate::ids::SubscriptionUid;
use std::collections::BTreeMap;

/// How often is looked, in microseconds.
const LOOK_US: u64 = 60_000_000;

/// Groups deleted after one look at most: each is a question to its home, and these are bounded for everybody.
const LOOK_DELETES_MAX: usize = 32;

/// The look that is under way, or when the next begins.
#[derive(Debug, Default)]
pub(super) struct GroupExpiry {
    next_look_us: u64,
    /// The look's answer, to be worked through.
    status: Option<Vec<GroupStatus>>,
    /// When this node began to watch: who was active before and not since is not known after a start.
    watches_since_us: Option<i64>,
}

impl GroupExpiry {
    /// All shards have answered.
    pub(super) fn on_status(&mut self, status: Vec<GroupStatus>) {
        self.status = Some(status);
    }
}

impl Shard {
    /// One turn of it.
    pub(super) fn expire_groups(&mut self, now: Now, effects: &mut Effects) {
        if self.seat.is_none() || self.phase != Phase::Serving {
            return;
        }
        let watches_since_us = *self.group_expiry.watches_since_us.get_or_insert(now.utc_us);
        if let Some(status) = self.group_expiry.status.take() {
            self.delete_idle(now, &status, watches_since_us, effects);
        }
        if now.mono_us >= self.group_expiry.next_look_us {
            self.group_expiry.next_look_us = now.mono_us + LOOK_US.min(self.settings.group_expiry_us / 4);
            if !self.view.groups().is_empty() {
                self.ask_for_groups(None, effects);
            }
        }
        effects.wake_at(self.group_expiry.next_look_us);
    }

    fn delete_idle(&mut self, now: Now, status: &[GroupStatus], watches_since_us: i64, effects: &mut Effects) {
        let mut active: BTreeMap<SubscriptionUid, i64> = BTreeMap::new();
        for of_shard in status {
            let active_us = if of_shard.members > 0 { now.utc_us } else { of_shard.active_us };
            let known = active.entry(of_shard.uid).or_insert(active_us);
            *known = (*known).max(active_us);
        }
        let before_us = now.utc_us.saturating_sub_unsigned(self.settings.group_expiry_us);
        let is_idle = |uid: SubscriptionUid, created_us: i64| {
            // Who was a member before this node was started, and came back to nothing that is known, is not known either.
            let known_us = active.get(&uid).copied().unwrap_or(0);
            known_us.max(created_us).max(watches_since_us) < before_us
        };
        let idle = self.view.groups().iter().filter(|group| is_idle(group.uid, group.created_us)).take(LOOK_DELETES_MAX);
        let idle: Vec<String> = idle.map(|group| group.name.clone()).collect();
        for name in idle {
            tracing::info!(group = name, "a consumer group that nobody has used for group.expiry is deleted");
            if self.retire_group(now, None, &name, effects).is_ok() {
                self.metrics.counters.groups_expired += 1;
            }
        }
    }
}
