//! Replicas that vote in a group, or learn it, and have no place in it by the metadata: what is left of a move that ended early, because it was cancelled, its
//! node leaves, or its disk was replaced. The group's leader sends them away.
//!
//! Invariants: only while no move of the group is under way; one whose disk is gone goes at once, of any other it is waited whether a newer view knows it: this
//! leader's may be behind what a leader before it has done.
//!
//! Not here: moves (`moving.rs`), what becomes of the replica there (`replicas.rs`).

use super::moving::Next;
use super::shard::Shard;
use crate::control::ReplicaGroupView;
use crate::effects::{Effects, Now};
use crate::ids::{GroupId, ReplicaId};
use crate::replication::{Action, Change};
use std::collections::BTreeMap;

/// So long a view may be behind: a node that is further back does not lead for so long.
const STRAY_US: u64 = 10_000_000;

/// Since when each was seen.
pub(super) type Strays = BTreeMap<(GroupId, ReplicaId), u64>;

impl Shard {
    /// What brings the configuration of a group that is led here, and is not being moved, closer to the metadata.
    pub(super) fn next_of_stray(&mut self, now: Now, found: &ReplicaGroupView, effects: &mut Effects) -> Next {
        let group = found.id;
        let members = self.groups.members_of(group).expect("this shard leads it");
        let stray = members.all().find(|member| found.replica(*member).is_none());
        let Some(stray) = stray else {
            self.pipelines.strays.retain(|(of, _), _| *of != group);
            return Next::Nothing;
        };
        let since_us = *self.pipelines.strays.entry((group, stray)).or_insert(now.mono_us);
        if !self.is_gone(stray) && now.mono_us < since_us + STRAY_US {
            effects.wake_at(since_us + STRAY_US);
            return Next::Nothing;
        }
        if stray != self.replica() {
            return Next::Change(Change { action: Action::Leave, replica: stray, serves: 0 });
        }
        let others = members.voters.iter().filter(|voter| **voter != stray && self.is_near(now, group, **voter));
        others.max_by_key(|voter| self.groups.matched(group, **voter)).map_or(Next::Nothing, |to| Next::HandOver(*to))
    }
}
