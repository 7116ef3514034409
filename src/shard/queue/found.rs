//! Found: parts of queues that this node does not serve, because no view told yet what they are, or because another node leads their group.
//!
//! They are what the state file and the notes of the log say (`rebuild.rs`), committed ones only: nobody waits for them, no time runs, and no batch is looked
//! at. Where this node serves their group they are taken out and resumed.
//!
//! Not here: parts that are served (`care.rs`).

use super::super::shard::Shard;
use super::care::PartKey;
use crate::ids::{GroupId, IdMap, PartitionUid, SubscriptionUid};
use crate::subscription::queue::{Part, QueueNote};
use std::collections::BTreeMap;
use std::ops::Bound;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Found {
    parts: BTreeMap<PartKey, Part>,
    /// Queues of each partition, each once.
    by_partition: IdMap<PartitionUid, Vec<SubscriptionUid>>,
    /// The part whose partition was told last what to hold.
    held_last: PartKey,
}

impl Found {
    pub(super) fn new(parts: BTreeMap<PartKey, Part>) -> Found {
        let mut by_partition: IdMap<PartitionUid, Vec<SubscriptionUid>> = IdMap::default();
        parts.keys().for_each(|(queue, uid)| by_partition.entry(*uid).or_default().push(*queue));
        Found { parts, by_partition, ..Found::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.parts.len()
    }

    /// Takes committed notes in; whether the part is new.
    fn apply(&mut self, key: PartKey, notes: &[QueueNote]) -> bool {
        let is_new = !self.parts.contains_key(&key);
        if is_new {
            self.by_partition.entry(key.1).or_default().push(key.0);
        }
        let part = self.parts.entry(key).or_default();
        notes.iter().for_each(|note| part.apply(None, note));
        is_new
    }

    pub(super) fn remove(&mut self, key: &PartKey) -> Option<Part> {
        let part = self.parts.remove(key)?;
        let list = self.by_partition.get_mut(&key.1).expect("each part stands in both");
        list.retain(|queue| *queue != key.0);
        if list.is_empty() {
            self.by_partition.remove(&key.1);
        }
        Some(part)
    }

    /// Takes out those that are named.
    pub(super) fn take(&mut self, mut is_named: impl FnMut(&PartKey) -> bool) -> Vec<(PartKey, Part)> {
        let keys: Vec<PartKey> = self.parts.keys().filter(|key| is_named(key)).copied().collect();
        keys.into_iter().filter_map(|key| Some((key, self.remove(&key)?))).collect()
    }

    /// The next part behind a place, in order of keys.
    pub(super) fn next_from(&self, from: Bound<PartKey>) -> Option<(&PartKey, &Part)> {
        self.parts.range((from, Bound::Unbounded)).next()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&PartKey, &Part)> {
        self.parts.iter()
    }

    /// Everything of a partition below is settled by all of its queues here; `None` without one.
    pub(super) fn settled_to(&self, uid: PartitionUid) -> Option<u64> {
        self.by_partition.get(&uid)?.iter().map(|queue| self.parts[&(*queue, uid)].settled_unseen_to()).min()
    }

    /// The partition that is to be told next what to hold: in turns.
    pub(super) fn next_held(&mut self) -> Option<PartitionUid> {
        let next = self.next_from(Bound::Excluded(self.held_last)).or_else(|| self.parts.first_key_value()).map(|(key, _)| *key)?;
        self.held_last = next;
        Some(next.1)
    }

    fn partitions(&self) -> Vec<PartitionUid> {
        self.by_partition.keys().copied().collect()
    }
}

impl Shard {
    /// Takes in committed notes on a part that this node does not serve. Of what was deleted nothing is kept.
    pub(in crate::shard) fn find_notes(&mut self, key: PartKey, notes: &[QueueNote]) {
        if !self.is_part_gone(&key) && self.queues.found.apply(key, notes) {
            self.hold(key.1);
        }
    }

    /// Whether a part's queue or partition was deleted, as far as is known here.
    fn is_part_gone(&self, (queue, uid): &PartKey) -> bool {
        self.view.has_known_subscription(*queue) && self.view.queue_by_uid(*queue).is_none()
            || self.view.has_known(*uid) && self.view.find_partition(*uid).is_none()
    }

    /// Forgets the parts of a group that this node does not serve: they come again.
    pub(in crate::shard) fn forget_found_queues(&mut self, group: GroupId) {
        let mut found = std::mem::take(&mut self.queues.found);
        let gone = found.take(|key| self.group_of(key.1) == Some(group));
        self.queues.found = found;
        self.queues.dropped.extend(gone.into_iter().map(|(_, part)| part));
    }

    /// A new view: what was deleted goes. A lone node leads all its groups: whatever its first view does not claim was deleted.
    pub(super) fn tidy_found(&mut self, is_first_view: bool) {
        if self.queues.found.is_empty() {
            return;
        }
        let goes_all = self.pipelines.is_alone() && is_first_view;
        if goes_all {
            tracing::info!(shard = self.id.0, parts = self.queues.found.len(), "dropped what is left of deleted queues");
        }
        let mut found = std::mem::take(&mut self.queues.found);
        let partitions = found.partitions();
        let gone = found.take(|key| goes_all || self.is_part_gone(key));
        self.queues.found = found;
        self.queues.dropped.extend(gone.into_iter().map(|(_, part)| part));
        partitions.into_iter().for_each(|uid| self.hold(uid));
    }

    /// What the state file and the notes of the log say of each part that this node does not serve, as notes: the same for the same state.
    #[cfg(test)]
    pub(in crate::shard) fn found_queues(&self) -> BTreeMap<PartKey, Vec<QueueNote>> {
        use crate::subscription::queue::SnapshotCursor;
        let told = |part: &Part| {
            let (mut cursor, mut notes) = (SnapshotCursor::default(), Vec::new());
            while !part.snapshot(&mut cursor, u64::MAX, &mut usize::MAX.clone(), &mut notes) {}
            notes
        };
        self.queues.found.iter().map(|(key, part)| (*key, told(part))).collect()
    }

    /// Messages that are dead, of the parts that this node serves.
    #[cfg(test)]
    pub(in crate::shard) fn dead_messages(&self) -> Vec<(PartitionUid, u64)> {
        self.queues.parts.iter().flat_map(|(key, here)| here.part.dead().map(|offset| (key.1, offset))).collect()
    }
}
