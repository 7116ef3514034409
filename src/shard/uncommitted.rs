//! How much of a group may be appended and not committed, where others vote in it.
//!
//! It stays in memory and is what a rebuild, a new leader and a follower that is behind have to go over: a quarter of `memory.bytes` for all groups that are
//! led here, half of that for each. Beyond it a produce request to the group waits where it is (its connection is not read); where that does not pass, it is
//! refused with `overloaded`, so that requests to other groups behind it go on. A leader that nobody hears is none before that: this is about
//! followers that are slower than producers. (What this shard follows is bounded by its leaders in the same way: with three replicas three quarters of the memory in all.)
//!
//! Invariants: a repeated batch is answered, however much there is; whatever was taken in stays taken in; but for producers nobody is held up.
//!
//! Not here: who counts the bytes (replication/storage.rs), other budgets of producers (`throttle.rs`).

use super::produce::NotTaken;
use super::shard::Shard;
use crate::effects::Now;
use crate::ids::GroupId;
use std::collections::BTreeMap;
use tramline_wire::error::ErrorCode;

/// A group that has had no room for so long is told to be overloaded. Twice the lease: who has no followers left is not a leader any more by then, and a burst
/// that a disk works off in a second is nobody's error.
const PATIENCE_US: u64 = 1_800_000;

/// Groups that have no room.
#[derive(Debug, Default)]
pub(super) struct Uncommitted {
    full_since_us: BTreeMap<GroupId, u64>,
    held_us: u64,
}

impl Uncommitted {
    /// Time for which a group had no room and somebody wanted some, in microseconds.
    pub(super) fn held_us(&self) -> u64 {
        self.held_us
    }

    /// Another node leads it.
    pub(super) fn forget(&mut self, now: Now, group: GroupId) {
        let since_us = self.full_since_us.remove(&group);
        self.held_us += since_us.map_or(0, |since_us| now.mono_us.saturating_sub(since_us));
    }
}

impl Shard {
    /// Bytes that all groups led here may have appended and not committed. Each may have half of it.
    fn uncommitted_max(&self) -> u64 {
        self.settings.memory_bytes as u64 / 4
    }

    fn has_room_in(&self, group: GroupId) -> bool {
        let max = self.uncommitted_max();
        self.groups.uncommitted_of(group) < max / 2 && self.groups.uncommitted_led() < max
    }

    /// Whether a producer's batch for `group` may be appended.
    pub(super) fn check_uncommitted(&mut self, now: Now, group: GroupId) -> Result<(), NotTaken> {
        if self.pipelines.is_alone() || self.has_room_in(group) {
            return Ok(());
        }
        let since_us = *self.uncommitted.full_since_us.entry(group).or_insert(now.mono_us);
        match now.mono_us < since_us + PATIENCE_US {
            true => Err(NotTaken::NoRoom),
            false => Err(NotTaken::Refused(ErrorCode::Overloaded)),
        }
    }

    /// More is committed.
    pub(super) fn note_room(&mut self, now: Now) {
        if self.uncommitted.full_since_us.is_empty() {
            return;
        }
        let mut full = std::mem::take(&mut self.uncommitted.full_since_us);
        let mut held_us = 0;
        full.retain(|group, since_us| {
            let has_room = self.has_room_in(*group);
            held_us += if has_room { now.mono_us.saturating_sub(*since_us) } else { 0 };
            !has_room
        });
        self.uncommitted.held_us += held_us;
        self.uncommitted.full_since_us = full;
    }
}
