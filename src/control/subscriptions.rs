//! Consumer groups as the metadata know them: that they exist, under which identity, and which replica group is their home.
//!
//! Invariants: a uid is given once, to a group or to a queue; homes are spread over shards first and then over a shard's replica groups, as partitions are.
//!
//! Not here: members, assignments and offsets, which live in the replica groups (subscription/).

use super::error::ControlError;
use crate::constants::GROUPS_MAX;
use crate::ids::{GroupId, SubscriptionUid};
use std::collections::BTreeMap;

/// A consumer group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) uid: SubscriptionUid,
    /// The replica group that keeps who is a member.
    pub(super) home: GroupId,
    pub(super) created_us: i64,
}

/// All consumer groups of the cluster.
#[derive(Clone, Debug)]
pub(super) struct Subscriptions {
    pub(super) next_uid: u64,
    by_name: BTreeMap<String, Subscription>,
}

impl Default for Subscriptions {
    fn default() -> Subscriptions {
        Subscriptions { next_uid: 1, by_name: BTreeMap::new() }
    }
}

impl Subscriptions {
    pub(super) fn find(&self, name: &str) -> Option<&Subscription> {
        self.by_name.get(name)
    }

    /// All, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Subscription)> {
        self.by_name.iter()
    }

    /// Whether one more may be created under `name`, which is a valid one.
    pub(super) fn check_new(&self, name: &str) -> Result<(), ControlError> {
        if self.by_name.contains_key(name) {
            return Err(ControlError::GroupExists(name.to_owned()));
        }
        if self.by_name.len() as u64 >= GROUPS_MAX {
            return Err(ControlError::Limit(format!("the cluster has {GROUPS_MAX} consumer groups, its limit: delete some first")));
        }
        Ok(())
    }

    /// The group of this name and uid.
    pub(super) fn check_known(&self, name: &str, uid: u64) -> Result<(), ControlError> {
        match self.find(name) {
            Some(found) if found.uid.0 == uid => Ok(()),
            _ => Err(ControlError::UnknownGroup(name.to_owned())),
        }
    }

    /// The next uid: consumer groups and queues share them.
    pub(super) fn take_uid(&mut self) -> SubscriptionUid {
        let uid = SubscriptionUid(self.next_uid);
        self.next_uid += 1;
        uid
    }

    /// Creates one; `check_new` has been asked.
    pub(super) fn create(&mut self, name: &str, home: GroupId, created_us: i64) -> SubscriptionUid {
        let uid = self.take_uid();
        let taken = self.by_name.insert(name.to_owned(), Subscription { uid, home, created_us });
        assert!(taken.is_none(), "group {name:?} was created twice");
        uid
    }

    /// Deletes one; `check_known` has been asked.
    pub(super) fn delete(&mut self, name: &str) {
        self.by_name.remove(name).expect("known");
    }

    /// Takes one in from a snapshot; whether nothing is wrong with it.
    #[must_use]
    pub(super) fn restore(&mut self, name: String, subscription: Subscription) -> bool {
        let is_new = self.by_name.values().all(|known| known.uid != subscription.uid);
        is_new && subscription.uid.0 < self.next_uid && self.by_name.insert(name, subscription).is_none()
    }

    /// How many are at home in each replica group.
    pub(super) fn homes(&self) -> BTreeMap<GroupId, u64> {
        let mut homes = BTreeMap::new();
        self.by_name.values().for_each(|subscription| *homes.entry(subscription.home).or_default() += 1);
        homes
    }
}
