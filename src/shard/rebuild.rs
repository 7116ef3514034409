//! Queues and members of replica groups with other replicas: up to where the log's words on them are taken in, who serves them, and how they are put back to
//! what is committed when a leadership is lost (docs/REPLICATION.md, 5.5).
//!
//! A leader changes them when it appends; whoever does not serve them takes the same words in when they are committed, in order of index. Both know them as what
//! the last checkpoint and state file told and all words behind that. So who loses a group drops what it served, takes in again what was told (a piece in each turn),
//! then the words behind it (out of the tail cache, or read back block by block), and goes on as a follower. Batches, offsets and trims are not touched by that: they have
//! a mark of their own (`applying.rs`), which does not go back further than to what is committed.
//!
//! ```text
//! not served: noted -> committed  --- leads, own entry committed, all that it inherited noted --->  served: noted with each append
//!       ^  told again, piece by piece; then noted from the checkpoint on                                         |
//!       +------------------------------------- another node leads ----------------------------------------------+
//! ```
//!
//! Invariants: what is not served has committed words only; a word is taken in after all those before it of its group; no checkpoint covers a word that is not
//! taken in; what is told again is at least as new as the checkpoint that `groups.base_of` names.
//!
//! Not here: what the words do (subscription/), what is answered to whom when a group is lost (`queue/losing.rs`, `groups/losing.rs`), reading an entry
//! (`applying.rs`).

use super::applying::Content;
use super::shard::Shard;
use super::shipping::BlockRead;
use crate::effects::{Effects, Now};
use crate::ids::{GroupId, LogIndex, PartitionUid, SubscriptionUid};
use crate::log::{BACKGROUND_OWNER, CheckpointV5, Recovered, envelope};
use crate::partition::{Partition, Slot};
use crate::subscription::membership::{self, CHANGE_SCHEMA};
use crate::subscription::queue::{QUEUE_SCHEMA, decode_queue_notes};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Whom the log's reads belong to that bring back what has to be taken in.
pub(super) const REBUILDER: u64 = BACKGROUND_OWNER + 4;
/// Entries of a group whose words are taken in in one turn, and pieces of what was told: of pieces of the largest size about a millisecond.
const ENTRIES_AT_ONCE: usize = 64;

/// What was told is taken in again.
#[derive(Debug)]
struct Telling {
    payloads: Arc<Vec<Vec<u8>>>,
    next: usize,
}

/// Where the queues and members of each group with other replicas are.
#[derive(Debug, Default)]
pub(super) struct Rebuild {
    /// Words of entries up to here are taken in.
    noted: BTreeMap<GroupId, LogIndex>,
    /// Groups that this node leads and serves.
    served: BTreeSet<GroupId>,
    /// Of groups that this node leads: the last entry that it has inherited.
    inherited: BTreeMap<GroupId, LogIndex>,
    telling: BTreeMap<GroupId, Telling>,
    /// Words on members in the last durable checkpoint, and in the one that is being written.
    members: Arc<Vec<Vec<u8>>>,
    members_next: Option<Vec<Vec<u8>>>,
    /// A block that is not in the tail cache.
    pub(super) read: BlockRead,
    /// The node stops, and a block that is needed cannot be read: nothing is put together any more, and no checkpoint tells of what is there.
    pub(super) is_given_up: bool,
}

/// The words on members among a checkpoint's notes.
fn members_of(checkpoint: &CheckpointV5) -> Vec<Vec<u8>> {
    checkpoint.notes.iter().filter(|payload| envelope::schema_of(payload) == Some(CHANGE_SCHEMA)).cloned().collect()
}

impl Rebuild {
    /// A group with other replicas, of which words up to `base` are taken in. The metadata's has neither queues nor members.
    pub(super) fn track(&mut self, group: GroupId, base: LogIndex) {
        if group != GroupId(0) {
            self.noted.insert(group, base);
        }
    }

    /// Whether the group has other replicas, and may have queues and members.
    fn tracks(&self, group: GroupId) -> bool {
        self.noted.contains_key(&group)
    }

    /// The group is none of this shard's any more.
    pub(super) fn remove(&mut self, group: GroupId) {
        self.noted.remove(&group);
        self.served.remove(&group);
        self.inherited.remove(&group);
        self.telling.remove(&group);
    }

    /// What a start has found is remembered, and taken in already.
    pub(super) fn remember(&mut self, recovered: &Recovered) {
        self.members = Arc::new(recovered.checkpoint.as_ref().map(members_of).unwrap_or_default());
    }

    /// Up to where the words of `group` are taken in. As far as anybody can ask where it has no other replica.
    pub(super) fn noted(&self, group: GroupId) -> LogIndex {
        self.noted.get(&group).copied().unwrap_or(LogIndex(u64::MAX))
    }

    /// Whether all words up to `index` are taken in, and nothing is being told again.
    pub(super) fn has_noted(&self, group: GroupId, index: LogIndex) -> bool {
        !self.telling.contains_key(&group) && self.noted(group) >= index
    }

    /// Whether the words of this entry are the next ones to be taken in.
    pub(super) fn is_next(&self, group: GroupId, index: LogIndex) -> bool {
        !self.telling.contains_key(&group) && self.noted.get(&group).is_some_and(|noted| noted.0 + 1 == index.0)
    }

    pub(super) fn set_noted(&mut self, group: GroupId, index: LogIndex) {
        if let Some(noted) = self.noted.get_mut(&group) {
            *noted = index;
        }
    }

    /// This node leads a group, whose last entry of others is `inherited`.
    pub(super) fn on_led(&mut self, group: GroupId, inherited: LogIndex) {
        self.inherited.insert(group, inherited);
    }

    /// Whether a group's queues and members are served here.
    pub(super) fn serves(&self, group: GroupId) -> bool {
        self.served.contains(&group)
    }
}

impl Shard {
    /// Whether nothing of a group's queues and members is left to be taken in before they may be served: always where there is no other replica.
    pub(super) fn is_state_ready(&self, group: GroupId) -> bool {
        !self.applying.rebuild.tracks(group) || self.applying.rebuild.serves(group)
    }

    /// The same of the group of a partition. And whoever was not heard by a majority lately may be none of those who know any more, and does not refuse either.
    pub(super) fn is_partition_served(&self, slot: Slot) -> bool {
        let is_served = |group: GroupId| {
            self.is_state_ready(group) && (!self.applying.rebuild.tracks(group) || self.groups.leader_term(group).is_some())
        };
        self.partitions.get(slot).is_some_and(|partition| is_served(partition.group))
    }

    /// Another node leads a group: what this one served of it goes, and is put together again out of what is committed.
    pub(super) fn lose_state(&mut self, now: Now, group: GroupId, effects: &mut Effects) {
        let bit = self.acks.bit_of(group);
        self.applying.rebuild.inherited.remove(&group);
        if self.applying.rebuild.served.remove(&group) {
            self.lose_queues(group, effects);
            let homes = self.members.lose(group, &self.acks, effects);
            self.tell_again(group, &homes);
            effects.wake_at(now.mono_us);
        }
        self.lose_letters(now, bit, effects);
    }

    /// Puts the queues and members of a group back to what the last durable checkpoint told: of `homes`, and of those whose home it is.
    fn tell_again(&mut self, group: GroupId, homes: &[SubscriptionUid]) {
        let view = Arc::clone(&self.view);
        let is_home = |uid: SubscriptionUid| homes.contains(&uid) || view.group_by_uid(uid).is_some_and(|place| place.home == group);
        self.members.forget_found(is_home);
        let members = Arc::clone(&self.applying.rebuild.members);
        for payload in members.iter() {
            // It was read before it was written, or at the start.
            let (uid, changes) = membership::decode(payload).expect("words of a checkpoint of this process");
            if is_home(uid) && !self.is_group_gone(uid) {
                self.members.find_changes(uid, &changes);
            }
        }
        self.forget_found_queues(group);
        let base = self.groups.base_of(group).unwrap_or_default().index;
        let payloads = self.queues.keeping.told();
        let rebuild = &mut self.applying.rebuild;
        rebuild.set_noted(group, base);
        rebuild.telling.insert(group, Telling { payloads, next: 0 });
        tracing::info!(shard = self.id.0, group = group.0, from = base.0, "queues and members of the group are rebuilt from the log");
    }

    /// What stands of a group's queues and members is to come from a snapshot, which has the words of all entries up to `index`.
    pub(super) fn forget_state(&mut self, group: GroupId, index: LogIndex) {
        let view = Arc::clone(&self.view);
        self.members.forget_found(|uid| view.group_by_uid(uid).is_some_and(|place| place.home == group));
        self.forget_found_queues(group);
        self.applying.rebuild.telling.remove(&group);
        self.applying.rebuild.set_noted(group, index);
    }

    /// The group that a partition is in, as far as anybody knows it.
    pub(super) fn group_of(&self, uid: PartitionUid) -> Option<GroupId> {
        self.found_partition(uid).map(|partition| partition.group)
    }

    /// A partition, also one that the view does not know.
    pub(super) fn found_partition(&self, uid: PartitionUid) -> Option<&Partition> {
        self.partitions.slot(uid).and_then(|slot| self.partitions.get(slot)).or_else(|| self.unclaimed.get(&uid))
    }

    /// Goes on with every group: once at the end of each turn, when what is committed was told.
    pub(super) fn rebuild(&mut self, now: Now, effects: &mut Effects) {
        let mut is_any_ready = false;
        for at in 0.. {
            // A view that comes into force in between can end some.
            let Some(group) = self.group_ids.get(at).copied() else { break };
            if !self.applying.rebuild.tracks(group) || self.failure().is_some() {
                continue;
            }
            if self.applying.rebuild.serves(group) {
                let last = self.groups.last_of(group).index;
                self.applying.rebuild.set_noted(group, last);
                continue;
            }
            if !self.tell_some(group) || !self.note_some(now, group, effects) {
                effects.wake_at(now.mono_us);
                continue;
            }
            let inherited = self.applying.rebuild.inherited.get(&group).copied();
            let has_all = inherited.is_some_and(|inherited| self.applying.rebuild.noted(group) >= inherited);
            if has_all && self.groups.is_caught_up(group) {
                self.applying.rebuild.served.insert(group);
                let last = self.groups.last_of(group).index;
                self.applying.rebuild.set_noted(group, last);
                is_any_ready = true;
            }
        }
        if is_any_ready && self.view.epoch > 0 && self.failure().is_none() {
            let view = Arc::clone(&self.view);
            self.adopt_groups(now, &view, effects);
            self.adopt_queues(now, &view, effects);
            effects.wake_at(now.mono_us);
        }
    }

    /// Takes in the next piece of what was told; whether there is none left.
    fn tell_some(&mut self, group: GroupId) -> bool {
        let Some(Telling { payloads, next }) = self.applying.rebuild.telling.get_mut(&group) else { return true };
        let Some(payload) = payloads.get(*next) else {
            self.applying.rebuild.telling.remove(&group);
            return true;
        };
        *next += 1;
        let (partition, queue, notes) = decode_queue_notes(payload).expect("words of a state file of this process");
        if self.group_of(partition) == Some(group) {
            self.find_notes((queue, partition), &notes);
        }
        false
    }

    /// Takes in the words of some entries that are committed; false where more could be done at once.
    fn note_some(&mut self, now: Now, group: GroupId, effects: &mut Effects) -> bool {
        // What a leader has appended itself is taken in already, or holds nothing: it serves no queue before it has all that it inherited.
        let inherited = self.applying.rebuild.inherited.get(&group).copied();
        let end = inherited.unwrap_or(self.applying.applied(group)).min(self.groups.committed_of(group));
        for _ in 0..ENTRIES_AT_ONCE {
            let index = LogIndex(self.applying.rebuild.noted(group).0 + 1);
            if index > end || self.failure().is_some() {
                return true;
            }
            // On its way from the disk, or in the block that is open.
            let Some(content) = self.content_of(now, group, index, effects) else { return true };
            if let Err(what) = self.note_entry(group, &content) {
                self.fail(&format!("entry {index} of group {group} cannot be read: {what}"), effects);
                return true;
            }
            self.applying.rebuild.set_noted(group, index);
        }
        self.applying.rebuild.noted(group) >= end
    }

    /// Takes in what a committed entry says of queues and members.
    pub(super) fn note_entry(&mut self, group: GroupId, content: &Content) -> Result<(), String> {
        for payload in &content.payloads {
            match envelope::schema_of(payload) {
                Some(QUEUE_SCHEMA) => {
                    let (partition, queue, notes) = decode_queue_notes(payload).map_err(|error| error.to_string())?;
                    // The metadata that tell of it may be on their way.
                    self.imported(group, partition, |_| ());
                    self.find_notes((queue, partition), &notes);
                }
                Some(CHANGE_SCHEMA) => {
                    let (uid, changes) = membership::decode(payload).map_err(|error| error.to_string())?;
                    if !self.is_group_gone(uid) {
                        self.members.find_changes(uid, &changes);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether a checkpoint may be written: it tells of members as they are, and that has to be committed where another node may replace it.
    pub(super) fn may_tell_members(&self) -> bool {
        self.pipelines.is_alone() || self.members.are_committed(&self.acks)
    }

    /// A checkpoint begins to be written that covers more than the last one.
    pub(super) fn on_checkpoint_begun(&mut self, members: Option<Vec<Vec<u8>>>) {
        self.applying.rebuild.members_next = members;
    }

    /// What it tells of members, where that is to be remembered.
    pub(super) fn members_told(&self, checkpoint: &CheckpointV5) -> Option<Vec<Vec<u8>>> {
        (!self.pipelines.is_alone()).then(|| members_of(checkpoint))
    }

    /// It is durable, and the groups have forgotten what it covers: a rebuild that has not come that far begins again, with what it tells.
    pub(super) fn on_checkpoint_covers(&mut self) {
        let Some(members) = self.applying.rebuild.members_next.take() else { return };
        self.applying.rebuild.members = Arc::new(members);
        for at in 0..self.group_ids.len() {
            let group = self.group_ids[at];
            let base = self.groups.base_of(group).unwrap_or_default().index;
            if self.applying.rebuild.tracks(group) && self.applying.rebuild.noted(group) < base {
                self.tell_again(group, &[]);
            }
        }
    }
}
