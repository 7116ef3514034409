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
use crate::constants::ERA_BITS;
use crate::control::Joined;
use crate::ids::{BlockSeq, GroupId, LogIndex, PartitionUid, ReplicaId, ShardId, Term};
use crate::log::checkpoint::GroupPositionV3;
use crate::log::{DamageKind, EntryKind, Recovered, RecoveredBatch, ReplicaRecord, ReplicaState};
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

/// Leaves out of what was found whatever a snapshot or another replica took the place of, and what came of a snapshot that is not whole.
pub(super) fn pass_over(recovered: &mut Recovered) {
    let since = snapshots_of(recovered);
    let before = |group: GroupId, block: BlockSeq| since.get(&group).filter(|since| block <= since.block);
    recovered.entries.retain(|entry| before(entry.group, entry.block).is_none());
    recovered.controls.retain(|control| before(control.group, control.block).is_none());
    recovered.replicas.retain(|(block, record)| before(record.group, *block).is_none());
    recovered.forced.retain(|(block, record)| before(record.group, *block).is_none());
    recovered.batches.retain(|batch| match before(batch.group, batch.block) {
        Some(since) => batch.index <= since.applied,
        None => !batch.is_imported(),
    });
    leave_out_former_replicas(recovered);
    let partitions = recovered.checkpoint.iter().flat_map(|checkpoint| &checkpoint.partitions);
    let ends = partitions.map(|partition| (PartitionUid(partition.uid), partition.next_offset)).collect();
    leave_out_given_up(&mut recovered.batches, &ends);
}

/// Where a replica was given up, or begun anew, behind the checkpoint, this tells of the one before: its segments may be freed by now, so that another one that
/// took over where it ended would have a hole in front of that. (What stands of offsets goes when the view comes, of members and queues when the snapshot does: nobody serves them before.)
fn leave_out_former_replicas(recovered: &mut Recovered) {
    let Recovered { checkpoint: Some(checkpoint), replicas, .. } = recovered else { return };
    let ended: BTreeSet<u32> = replicas.iter().map(|(_, record)| record.group.0).collect();
    let former: BTreeSet<u64> = checkpoint.partitions.iter().filter(|p| ended.contains(&p.group)).map(|p| p.uid).collect();
    if former.is_empty() {
        return;
    }
    checkpoint.partitions.retain(|partition| !former.contains(&partition.uid));
    checkpoint.runs.retain(|run| !former.contains(&run.uid));
    let batches = std::mem::take(&mut checkpoint.producer_batches);
    let mut rest = batches.as_slice();
    checkpoint.producers.retain(|producer| {
        let own = rest.split_off(..usize::from(producer.batches)).expect("a checkpoint with fewer batches is refused");
        let is_kept = !former.contains(&producer.partition);
        if is_kept {
            checkpoint.producer_batches.extend_from_slice(own);
        }
        is_kept
    });
}

/// A snapshot that was given up leaves batches behind, and the next one that comes begins anew where the partition ended, at `ends` or behind. What is left of the
/// first may begin with a gap: the batches in front are in a segment that was sealed meanwhile, in whose footer they are not. Then it stands in front of what
/// fills the gap, and would be taken for what is behind it. (Without a gap it does no harm: it is the same as what follows.)
fn leave_out_given_up(batches: &mut Vec<RecoveredBatch>, ends: &BTreeMap<PartitionUid, u64>) {
    if !batches.iter().any(RecoveredBatch::is_imported) {
        return;
    }
    let mut of_partition: BTreeMap<PartitionUid, Vec<usize>> = BTreeMap::new();
    for (at, batch) in batches.iter().enumerate() {
        of_partition.entry(batch.uid).or_default().push(at);
    }
    let mut is_kept = vec![true; batches.len()];
    for (uid, list) in of_partition {
        let mut end = ends.get(&uid).copied().unwrap_or(0);
        for (place, at) in list.iter().enumerate() {
            let batch = &batches[*at];
            let gap = end..batch.base_offset.0;
            let fills = |later: &usize| gap.contains(&batches[*later].base_offset.0);
            if batch.is_imported() && !gap.is_empty() && list[place + 1..].iter().any(fills) {
                is_kept[*at] = false;
            } else {
                end = end.max(batch.base_offset.0 + u64::from(batch.last_offset_delta) + 1);
            }
        }
    }
    let mut is_kept = is_kept.into_iter();
    batches.retain(|_| is_kept.next().expect("one of each"));
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
    /// Groups in which others vote, whatever a base says that entries behind it have changed.
    shared: BTreeSet<GroupId>,
    /// Groups of which there are traces, and whose records are lost: who votes in them is not known, and nothing of them counts.
    pub(super) strays: BTreeSet<GroupId>,
}

/// Whose shard this is.
pub(super) struct Whose<'a> {
    pub(super) shard: ShardId,
    pub(super) me: ReplicaId,
    pub(super) groups_per_shard: u32,
    pub(super) joined: Option<&'a Joined>,
    /// Group 0 goes on with this replica alone.
    pub(super) is_metadata_forced: bool,
}

impl Beginnings {
    pub(super) fn of(whose: &Whose<'_>, recovered: &Recovered) -> Result<Beginnings, StartFailure> {
        let changes = changes(recovered)?;
        let stored = recovered.checkpoint.iter().flat_map(|checkpoint| &checkpoint.groups);
        let stored: BTreeMap<_, _> = stored.map(|group| (GroupId(group.group), group)).collect();
        let records: BTreeMap<_, _> = recovered.replicas.iter().map(|(_, record)| (record.group, record)).collect();
        let named = stored.values().map(|group| ReplicaId(group.replica)).chain(records.values().map(|record| record.replica));
        if let Some(found) = named.into_iter().find(|replica| *replica != whose.me) {
            return Err(StartFailure::OtherReplica { found, me: whose.me });
        }
        let mut ids: BTreeSet<GroupId> = stored.keys().chain(records.keys()).copied().collect();
        // Whatever it has is in its checkpoint, once it has one.
        if whose.joined.is_none() && recovered.checkpoint.is_none() {
            ids.extend(data_groups(whose.shard, whose.groups_per_shard));
        }
        ids.retain(|id| records.get(id).is_none_or(|record| record.state != ReplicaState::Removed));
        if whose.shard == ShardId(0) {
            ids.insert(GroupId(0));
        }
        let has_lost =
            !recovered.lost.is_empty() || recovered.damage.iter().any(|damage| matches!(damage.kind, DamageKind::Payload { .. }));
        let mut strays = if has_lost { groups_without_record(recovered, &ids) } else { BTreeSet::new() };
        let lone = lone_without_record(whose.me, recovered, &ids, &strays);
        strays.retain(|id| !lone.contains_key(id));
        ids.extend(&strays);
        ids.extend(lone.keys());
        if let Some(stray) = recovered.entries.iter().find(|entry| !ids.contains(&entry.group)) {
            let (group, block) = (stray.group, stray.block);
            return Err(StartFailure::OutOfOrder(format!(
                "block {block} has an entry of group {group}, of which this shard has no replica"
            )));
        }
        let shared = shared_by_hard_states(whose, recovered);
        let mut beginnings = Beginnings { starts: Vec::new(), changes, records: Vec::new(), known: BTreeMap::new(), shared, strays };
        for id in ids {
            let is_stray = beginnings.strays.contains(&id);
            let start = match lone.get(&id) {
                Some(base) => lone_beginning(id, whose.me, *base),
                None if is_stray => GroupStart { id, members: Members::default(), ..GroupStart::default() },
                None => beginning(id, whose, stored.get(&id).copied(), records.get(&id).copied()),
            };
            let forced = recovered.forced.iter().map(|(_, record)| record).find(|record| record.group == id);
            let start = with_force(start, forced);
            let is_joining = start.base.index > LogIndex(0) && !stored.contains_key(&id) && !records.contains_key(&id);
            if lone.contains_key(&id) && forced.is_none() {
                let base = (start.base.index, start.base.term);
                tracing::error!(
                    shard = whose.shard.0,
                    group = id.0,
                    ?base,
                    "the record of this group's replica is lost: its only voter goes on with what is found"
                );
                beginnings.records.push(ReplicaRecord { state: ReplicaState::Forced, ..record_of(whose.me, &start) });
            }
            let mut start = with_terms(start, recovered);
            if !lone.contains_key(&id) && (is_stray || is_joining && !has_lost) {
                // With the newest term and vote: no word in front of it counts any more. Where blocks are lost a replica that was told of when its node joined may have
                // begun before, and the record that said so be among them: another one would stand behind its entries, and the next start would leave them out as
                // another replica's, and with them that some are missing. What the node was told is there at every start, until a checkpoint has it.
                beginnings.records.push(record_of(whose.me, &start));
            }
            if id == GroupId(0) && whose.is_metadata_forced {
                if !start.members.voters.contains(&whose.me) {
                    return Err(StartFailure::OnlyLearned(
                        start.members.voters.iter().map(|voter| voter.node()).filter(|node| *node != whose.me.node()).collect(),
                    ));
                }
                let record = forced_alone(whose.me, &start, recovered);
                start = with_force(start, Some(&record));
                beginnings.records.push(record);
            }
            beginnings.push(whose.me, start, recovered.log.mutants());
        }
        Ok(beginnings)
    }

    /// What is known of its commit: of a lone voter's group everything, but for what follows the first change that gives another one a vote.
    fn push(&mut self, me: ReplicaId, mut start: GroupStart, mutants: Mutants) {
        let mut known = start.committed;
        if start.members.is_lone(me) && !self.shared.contains(&start.id) || mutants.has(Mutant::ApplyAtStart) {
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

    /// Whether others vote in a group, or may.
    pub(super) fn is_shared(&self, me: ReplicaId, start: &GroupStart) -> bool {
        !start.members.is_lone(me) || self.shared.contains(&start.id) || self.known(start.id) != LogIndex(u64::MAX)
    }

    /// Terms and votes that `whole` has found, who was not told that entries are gone: they were told to others. And strays of which there was nothing else.
    pub(super) fn keep_terms(&mut self, whole: &Beginnings) {
        for before in &whole.starts {
            match self.starts.iter_mut().find(|start| start.id == before.id) {
                Some(start) => (start.term, start.vote) = (before.term, before.vote),
                None => {
                    assert!(whole.strays.contains(&before.id), "no group but a stray goes with its entries");
                    self.strays.insert(before.id);
                    self.known.insert(before.id, whole.known(before.id));
                    self.starts.push(before.clone());
                }
            }
        }
        self.starts.sort_by_key(|start| start.id);
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

/// Groups of which the log has entries or words, but not the record of a replica.
fn groups_without_record(recovered: &Recovered, known: &BTreeSet<GroupId>) -> BTreeSet<GroupId> {
    let of_entries = recovered.entries.iter().map(|entry| entry.group);
    let of_words = recovered.hard_states.iter().map(|state| state.group).chain(recovered.doubts.keys().copied());
    let has_record = |group: &GroupId| known.contains(group) || recovered.replicas.iter().any(|(_, record)| record.group == *group);
    of_entries.chain(of_words).filter(|group| !has_record(group)).collect()
}

/// Groups without a record in which nobody votes but this replica: by the last hard state, or because a start before has written so. With where their logs begin:
/// in front of the first entry that was found. The record that is written now keeps what stands in front of it (one of a beginning would not).
fn lone_without_record(
    me: ReplicaId,
    recovered: &Recovered,
    known: &BTreeSet<GroupId>,
    strays: &BTreeSet<GroupId>,
) -> BTreeMap<GroupId, GroupPosition> {
    let in_front = |group: GroupId| {
        let first = recovered.entries.iter().filter(|entry| entry.group == group).min_by_key(|entry| entry.index)?;
        let is_behind = first.index > LogIndex(1);
        Some(if is_behind { GroupPosition { index: LogIndex(first.index.0 - 1), term: first.term } } else { GroupPosition::default() })
    };
    let alone = recovered.forced.iter().map(|(_, record)| record).filter(|record| record.voters == [me] && !known.contains(&record.group));
    let forced = alone.map(|record| {
        // One of an unclean recovery names what was committed then, and the log begins in front of that.
        let of_record = GroupPosition { index: record.base_index, term: record.base_term };
        (record.group, in_front(record.group).filter(|found| found.index < record.base_index).unwrap_or(of_record))
    });
    let is_lone = |group: &&GroupId| recovered.hard_states.iter().any(|state| state.group == **group && !state.is_shared);
    strays.iter().filter(is_lone).map(|group| (*group, in_front(*group).unwrap_or_default())).chain(forced).collect()
}

fn lone_beginning(id: GroupId, me: ReplicaId, base: GroupPosition) -> GroupStart {
    let members = Members { index: base.index, ..Members::of_voters([me]) };
    GroupStart { id, base, members, committed: base.index, ..GroupStart::default() }
}

/// Groups of which the last hard state says that others vote. Of the metadata it is enough that others have anything to do with this shard: the entry that gave
/// them their votes, and every word of it, may be what is gone.
fn shared_by_hard_states(whose: &Whose<'_>, recovered: &Recovered) -> BTreeSet<GroupId> {
    let mut shared: BTreeSet<_> = recovered.hard_states.iter().filter(|state| state.is_shared).map(|state| state.group).collect();
    let names_others = |ids: &[u64]| ids.iter().any(|id| *id != whose.me.0);
    let stored = recovered.checkpoint.iter().flat_map(|checkpoint| &checkpoint.groups);
    let has_others = recovered.replicas.iter().any(|(_, record)| record.voters.iter().any(|voter| *voter != whose.me))
        || stored.map(|group| &group.voters).any(|voters| names_others(voters));
    // Whoever was told to go on alone is alone: of that a hard state that stands behind knows (`take_record` of the log's recovery).
    let is_told = recovered.forced.iter().any(|(_, record)| record.group == GroupId(0) && record.voters == [whose.me]);
    if (has_others || !shared.is_empty()) && !is_told {
        shared.insert(GroupId(0));
    }
    if whose.is_metadata_forced {
        shared.remove(&GroupId(0));
    }
    shared
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

/// Group 0 cannot say about itself who goes on: this replica does, in an era above any that it has seen, since each leader adds an entry.
fn forced_alone(me: ReplicaId, start: &GroupStart, recovered: &Recovered) -> ReplicaRecord {
    let last = recovered.entries.iter().filter(|entry| entry.group == start.id).map(|entry| entry.index).max();
    let last = last.unwrap_or(start.base.index).max(start.base.index);
    let members = Members::of_voters([me]);
    let record = record_of(me, &GroupStart { members, ..start.clone() });
    let term = Term((last.0 + 1) << ERA_BITS);
    assert!(term > start.term, "group 0 is in term {} at entry {last}", start.term);
    ReplicaRecord { state: ReplicaState::Forced, term, vote: 0, base_index: start.committed, ..record }
}

/// The group goes on without a majority: whoever voted before, and whatever changes of that stand in front of the record, counts no more.
fn with_force(mut start: GroupStart, forced: Option<&ReplicaRecord>) -> GroupStart {
    let Some(record) = forced else { return start };
    start.members = Members { voters: record.voters.clone(), learners: Vec::new(), index: record.base_index };
    if record.term > start.term {
        (start.term, start.vote) = (record.term, record.vote);
    }
    start.committed = start.committed.max(record.base_index);
    start
}

/// What the log is told of a replica that begins.
pub(super) fn record_of(me: ReplicaId, start: &GroupStart) -> ReplicaRecord {
    ReplicaRecord {
        group: start.id,
        state: ReplicaState::Present,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Offset, SegmentUid};
    use tramline_wire::batch::ProducerMark;

    #[test]
    fn what_is_left_of_a_snapshot_that_was_given_up_hides_nothing() {
        // (partition, first offset, block, index of its entry): two records each.
        let batch = |(uid, base, block, index): (u64, u64, u64, u64)| RecoveredBatch {
            group: GroupId(1),
            index: LogIndex(index),
            term: Term(1),
            uid: PartitionUid(uid),
            base_offset: Offset(base),
            last_offset_delta: 1,
            newest_ts: 0,
            append_time_us: 0,
            producer: ProducerMark::default(),
            block: BlockSeq(block),
            at: 96,
            len: 200,
            segment: SegmentUid(1),
            pos: 4192,
            damaged: false,
        };
        let ends = [(PartitionUid(7), 10)].into();
        let left = |found: &[(u64, u64, u64, u64)]| {
            let mut batches: Vec<_> = found.iter().copied().map(batch).collect();
            leave_out_given_up(&mut batches, &ends);
            batches.iter().map(|b| (b.uid.0, b.base_offset.0, b.block.0, b.index.0)).collect::<Vec<_>>()
        };
        // The beginning of the first one is sealed; others' batches stand between.
        let (first, second) =
            ([(7, 14, 50, 0), (7, 16, 50, 0)], [(8, 0, 51, 0), (7, 10, 52, 0), (7, 12, 52, 0), (7, 14, 53, 0), (7, 16, 53, 0)]);
        assert_eq!(left(&[&first[..], &second].concat()), second);
        // Entries came in its place.
        let entries = [(7, 10, 51, 4), (7, 12, 52, 5), (7, 14, 52, 6)];
        assert_eq!(left(&[&first[..], &entries].concat()), entries);
        // Whole ones are the same as what follows, which is passed over where it is there.
        let whole = [(7, 10, 50, 0), (7, 12, 50, 0), (7, 10, 51, 4), (7, 12, 52, 5)];
        assert_eq!(left(&whole), whole);
        // A gap that nothing fills is one that the snapshot had.
        let holed = [(7, 10, 50, 0), (7, 14, 50, 0), (7, 16, 52, 4)];
        assert_eq!(left(&holed), holed);
    }
}
