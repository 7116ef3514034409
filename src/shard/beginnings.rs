//! Which groups a shard has at a start, who votes in them, and what of their entries is known to be committed.
//!
//! Order of truth, for each group: the last replica record behind the checkpoint, the checkpoint, what the node was told when it joined (group 0), and
//! for the node that the cluster began with: itself alone (docs/REPLICATION.md, 2.2).
//!
//! Invariants: entries of a group that this shard has no replica of refuse the start; of a group with other voters what is behind the checkpoint is taken
//! as committed as far as a hard state says so; of one whose only voter is this replica everything, up to the change that gave another one a vote.
//!
//! Not here: groups that come later (`replicas.rs`), what the entries say (`start.rs`).

use super::start::{StartFailure, data_groups};
use crate::control::Joined;
use crate::ids::{BlockSeq, GroupId, LogIndex, ReplicaId, ShardId, Term};
use crate::log::checkpoint::GroupPositionV3;
use crate::log::{EntryKind, Recovered, ReplicaRecord};
use crate::mutants::{Mutant, Mutants};
use crate::replication::{Action, Change, GroupPosition, GroupStart, Members};
use std::collections::{BTreeMap, BTreeSet};

/// Where a group came as a snapshot: of what stood in its log in front of that only batches up to some entry count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Since {
    /// The last block that was closed then.
    pub(super) block: BlockSeq,
    /// What of the group's entries had been taken in.
    pub(super) applied: LogIndex,
}

/// What the checkpoint says of that.
pub(super) fn snapshots_of(recovered: &Recovered) -> BTreeMap<GroupId, Since> {
    if recovered.log.mutants().has(Mutant::ForgetSinceBlock) {
        return BTreeMap::new();
    }
    let stored = recovered.checkpoint.iter().flat_map(|checkpoint| &checkpoint.groups).filter(|group| group.since_block > 0);
    stored.map(|g| (GroupId(g.group), Since { block: BlockSeq(g.since_block), applied: LogIndex(g.since_applied) })).collect()
}

/// Leaves out of what was found whatever a snapshot took the place of, and what came of one that is not whole.
pub(super) fn pass_over(recovered: &mut Recovered) {
    let since = snapshots_of(recovered);
    let before = |group: GroupId, block: BlockSeq| since.get(&group).filter(|since| block <= since.block);
    recovered.entries.retain(|entry| before(entry.group, entry.block).is_none());
    recovered.controls.retain(|control| before(control.group, control.block).is_none());
    recovered.replicas.retain(|(block, record)| before(record.group, *block).is_none());
    recovered.batches.retain(|batch| match before(batch.group, batch.block) {
        Some(since) => batch.index <= since.applied,
        None => !batch.is_imported(),
    });
}

/// The groups of a start.
pub(super) struct Beginnings {
    pub(super) starts: Vec<GroupStart>,
    /// Changes of who votes, in log order.
    pub(super) changes: Vec<(GroupId, LogIndex, Change)>,
    /// Records that the log has to get, of replicas that begin with this start.
    pub(super) records: Vec<ReplicaRecord>,
    /// Up to where the entries of each group are known to be committed.
    known: BTreeMap<GroupId, LogIndex>,
}

/// Whose shard this is.
pub(super) struct Whose<'a> {
    pub(super) shard: ShardId,
    pub(super) me: ReplicaId,
    pub(super) groups_per_shard: u32,
    pub(super) joined: Option<&'a Joined>,
}

impl Beginnings {
    pub(super) fn of(whose: &Whose<'_>, recovered: &Recovered) -> Result<Beginnings, StartFailure> {
        let changes = changes(recovered)?;
        let stored = recovered.checkpoint.iter().flat_map(|checkpoint| &checkpoint.groups);
        let stored: BTreeMap<_, _> = stored.map(|group| (GroupId(group.group), group)).collect();
        let forgets = recovered.log.mutants().has(Mutant::ForgetRemoved);
        let records = recovered.replicas.iter().map(|(_, record)| (record.group, record));
        let records: BTreeMap<_, _> = records.filter(|(_, record)| !(forgets && record.is_removed)).collect();
        let named = stored.values().map(|group| ReplicaId(group.replica)).chain(records.values().map(|record| record.replica));
        if let Some(found) = named.into_iter().find(|replica| *replica != whose.me) {
            return Err(StartFailure::OtherReplica { found, me: whose.me });
        }
        let mut ids: BTreeSet<GroupId> = stored.keys().chain(records.keys()).copied().collect();
        // Whatever it has is in its checkpoint, once it has one.
        if whose.joined.is_none() && recovered.checkpoint.is_none() {
            ids.extend(data_groups(whose.shard, whose.groups_per_shard));
        }
        ids.retain(|id| records.get(id).is_none_or(|record| !record.is_removed));
        if whose.shard == ShardId(0) {
            ids.insert(GroupId(0));
        }
        if let Some(stray) = recovered.entries.iter().find(|entry| !ids.contains(&entry.group)) {
            let (group, block) = (stray.group, stray.block);
            return Err(StartFailure::OutOfOrder(format!(
                "block {block} has an entry of group {group}, of which this shard has no replica"
            )));
        }
        let mut beginnings = Beginnings { starts: Vec::new(), changes, records: Vec::new(), known: BTreeMap::new() };
        for id in ids {
            let start = beginning(id, whose, stored.get(&id).copied(), records.get(&id).copied());
            if start.base.index > LogIndex(0) && !stored.contains_key(&id) && !records.contains_key(&id) {
                beginnings.records.push(record_of(whose.me, &start));
            }
            beginnings.push(whose.me, with_terms(start, recovered), recovered.log.mutants());
        }
        Ok(beginnings)
    }

    /// What is known of its commit: of a lone voter's group everything, but for what follows the first change that gives another one a vote.
    fn push(&mut self, me: ReplicaId, mut start: GroupStart, mutants: Mutants) {
        let mut known = start.committed;
        if start.members.is_lone(me) || mutants.has(Mutant::ApplyAtStart) {
            let gives_vote = |(group, index, change): &&(GroupId, LogIndex, Change)| {
                *group == start.id && *index > start.members.index && change.action == Action::Vote && change.replica != me
            };
            known = LogIndex(u64::MAX);
            if let Some((_, index, _)) = self.changes.iter().find(gives_vote) {
                known = (*index).max(start.committed);
                start.committed = known;
            }
        }
        self.known.insert(start.id, known);
        self.starts.push(start);
    }

    /// Whether an entry is known to be committed.
    pub(super) fn is_committed(&self, group: GroupId, index: LogIndex) -> bool {
        self.known.get(&group).is_some_and(|known| index <= *known)
    }

    /// Up to where a start takes the entries of a group in.
    pub(super) fn known(&self, group: GroupId) -> LogIndex {
        self.known.get(&group).copied().unwrap_or_default()
    }
}

fn changes(recovered: &Recovered) -> Result<Vec<(GroupId, LogIndex, Change)>, StartFailure> {
    if recovered.log.mutants().has(Mutant::ForgetChange) {
        return Ok(Vec::new());
    }
    let is_change = |control: &&crate::log::RecoveredControl| control.kind == EntryKind::Raft && !control.payload.is_empty();
    let read = |control: &crate::log::RecoveredControl| match Change::decode(&control.payload) {
        Some(change) => Ok((control.group, control.index, change)),
        None => {
            let (group, index) = (control.group, control.index);
            Err(StartFailure::OutOfOrder(format!("entry {index} of group {group} changes who votes, and cannot be read")))
        }
    };
    recovered.controls.iter().filter(is_change).map(read).collect()
}

fn beginning(id: GroupId, whose: &Whose<'_>, stored: Option<&GroupPositionV3>, record: Option<&ReplicaRecord>) -> GroupStart {
    let ids = |raw: &[u64]| raw.iter().copied().map(ReplicaId).collect();
    let mut start = GroupStart { id, members: Members::of_voters([whose.me]), ..GroupStart::default() };
    match (record, stored, whose.joined) {
        (Some(record), ..) => {
            start.base = GroupPosition { index: record.base_index, term: record.base_term };
            start.members = Members { voters: record.voters.clone(), learners: record.learners.clone(), index: record.base_index };
            (start.term, start.vote) = (record.term, record.vote);
        }
        (None, Some(stored), _) => {
            start.base = GroupPosition { index: LogIndex(stored.applied_index), term: Term(stored.applied_term) };
            start.members = Members { voters: ids(&stored.voters), learners: ids(&stored.learners), index: LogIndex(stored.conf_index) };
            (start.term, start.vote) = (Term(stored.term), stored.vote);
        }
        (None, None, Some(joined)) => {
            start.base = GroupPosition { index: joined.index, term: joined.term };
            start.members = Members { voters: joined.voters.clone(), learners: joined.learners.clone(), index: joined.index };
            start.term = joined.term;
        }
        (None, None, None) => {}
    }
    start.committed = start.base.index;
    start
}

/// What the log is told of a replica that begins.
pub(super) fn record_of(me: ReplicaId, start: &GroupStart) -> ReplicaRecord {
    ReplicaRecord {
        group: start.id,
        is_removed: false,
        replica: me,
        base_index: start.base.index,
        base_term: start.base.term,
        term: start.term,
        vote: start.vote,
        voters: start.members.voters.clone(),
        learners: start.members.learners.clone(),
    }
}

/// With the newest term and vote that the log tells of.
fn with_terms(mut start: GroupStart, recovered: &Recovered) -> GroupStart {
    let id = start.id;
    if let Some(hard_state) = recovered.hard_states.iter().find(|h| h.group == id && h.term >= start.term)
        && !recovered.log.mutants().has(Mutant::ForgetVote)
    {
        start.term = hard_state.term;
        start.vote = hard_state.vote;
        // Told when who votes has changed: whoever was dropped then may be gone, and its vote with it.
        start.committed = start.committed.max(hard_state.commit);
    }
    // The hard state can have been in a block that damage took: an entry's term was the current one when it was written.
    let highest = recovered.entries.iter().filter(|e| e.group == id).map(|e| e.term).max().unwrap_or_default();
    if highest > start.term {
        start.term = highest;
        start.vote = 0;
    }
    start
}
