//! Consumer groups whose home another node leads: what stands of them in the log, what is lost with a leadership, and what a checkpoint may tell.
//!
//! Invariants: what is kept of a group that is not at home here is what committed records say; whoever waits for one that is lost is told once.
//!
//! Not here: when a home is lost, and what it is put back to (`rebuild.rs`).

use super::{Change, Durable, MemberCare};
use crate::control::View;
use crate::effects::{Effects, Now};
use crate::ids::{GroupId, SubscriptionUid};
use crate::shard::acks::Acks;
use crate::shard::mesh::Retired;
use crate::shard::shard::Shard;
use tramline_wire::error::ErrorCode;

impl MemberCare {
    /// Takes in committed records of a group that is not at home here. Records that make no sense are told when a view claims the group: it may have been
    /// deleted.
    pub(in crate::shard) fn find_changes(&mut self, uid: SubscriptionUid, changes: &[Change]) {
        let found = self.unclaimed.entry(uid).or_insert_with(|| Ok(Durable::new(1)));
        if let Ok(durable) = found
            && let Err(error) = durable.apply(changes)
        {
            *found = Err(error);
        }
    }

    /// Whether all that was decided of the groups at home here is in the log and committed: a checkpoint tells how they stand, and what is not committed may be
    /// replaced.
    pub(in crate::shard) fn are_committed(&self, acks: &Acks) -> bool {
        let is_committed = |home: &super::Home| acks.is_committed(acks.bit_of(home.replica_group), home.last_block);
        self.homes.values().all(|home| home.changes.is_empty() && home.payloads.is_empty() && is_committed(home))
    }

    /// Whether the view knows every consumer group of which something stands.
    pub(in crate::shard) fn are_known(&self, view: &View) -> bool {
        self.unclaimed.keys().all(|uid| view.has_known_subscription(*uid))
    }

    /// Another node leads a replica group: the consumer groups that are at home in it are not any more. Those are named.
    pub(in crate::shard) fn lose(&mut self, group: GroupId, acks: &Acks, effects: &mut Effects) -> Vec<SubscriptionUid> {
        for answer in self.waiting.take_groups(acks.bit_of(group), acks) {
            self.answer_count -= 1;
            effects.refuse(&answer.caller, ErrorCode::LeadershipLost, "", "");
        }
        let uids: Vec<_> = self.homes.iter().filter(|(_, home)| home.replica_group == group).map(|(uid, _)| *uid).collect();
        for uid in &uids {
            let home = self.homes.remove(uid).expect("listed above");
            self.dirty.retain(|dirty| dirty != uid);
            self.deadlines.remove(&(home.deadline_us, *uid));
            self.answer_count -= home.answers.len();
            home.answers.iter().for_each(|answer| effects.refuse(&answer.caller, ErrorCode::LeadershipLost, "", ""));
            home.parked.values().for_each(|parked| effects.refuse(&parked.caller, ErrorCode::NotLeader, "", ""));
        }
        uids
    }

    /// Forgets what is kept of groups that are not at home here.
    pub(in crate::shard) fn forget_found(&mut self, mut is_forgotten: impl FnMut(SubscriptionUid) -> bool) {
        self.unclaimed.retain(|uid, _| !is_forgotten(*uid));
    }
}

impl Shard {
    /// Whether the group has no member; then it takes none for a while.
    pub(in crate::shard) fn retire_members(&mut self, now: Now, uid: SubscriptionUid) -> Retired {
        // Who was not heard by a majority lately does not know of members that another leader may have taken.
        let knows = |home: GroupId| self.is_state_ready(home) && self.groups.leader_term(home).is_some() && self.failure().is_none();
        match self.view.group_by_uid(uid).is_none_or(|place| knows(place.home)) {
            true if self.members.retire(now, uid) => Retired::TakesNone,
            true => Retired::HasMembers,
            false => Retired::NotKnown,
        }
    }

    /// Whether a consumer group was deleted, as far as is known here.
    pub(in crate::shard) fn is_group_gone(&self, uid: SubscriptionUid) -> bool {
        self.view.has_known_subscription(uid) && self.view.group_by_uid(uid).is_none()
    }

    /// What stands of each consumer group that is not at home here, as records.
    #[cfg(test)]
    pub(in crate::shard) fn found_members(&self) -> std::collections::BTreeMap<SubscriptionUid, Vec<Change>> {
        let told = |found: &Result<Durable, super::RestoreError>| found.as_ref().expect("records that make sense").snapshot();
        self.members.unclaimed.iter().map(|(uid, found)| (*uid, told(found))).collect()
    }
}
