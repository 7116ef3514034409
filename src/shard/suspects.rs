//! Replicas of this shard that may have lost what they had acknowledged, because the log is damaged where others may count on it (docs/REPLICATION.md, 8).
//!
//! A group whose only voter is this replica goes on with what there is, as ever. Of one with other voters nothing is made up: where an entry is gone, or cannot be
//! read as it was written, the replica's log ends in front of it, and the leader brings the rest again.
//!
//! Invariants: a record says that a replica is suspect before it takes an entry; that record stands in front of no checkpoint that would forget it; a whole
//! replica's record stands behind everything that made it whole.
//!
//! Not here: what a suspect may do, and when it is whole (replication/doubt.rs); batches whose bodies are damaged (`repair.rs`).

use super::beginnings::{Beginnings, snapshots_of};
use super::shard::Shard;
use crate::effects::{Effects, Now};
use crate::ids::{BlockSeq, GroupId, LogIndex, ReplicaId, Term};
use crate::log::{DamageKind, Doubt, Recovered, RecoveredEntry, ReplicaRecord, ReplicaState};
use crate::replication::GroupPosition;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use tramline_wire::node::{ShareBase, ShareFlags};

/// What a start finds out about the replica of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// Its log ends in front of this entry.
    cut: LogIndex,
    /// It may have acknowledged what is not there.
    pub(super) is_suspect: bool,
    /// The block of the record that tells that it is suspect already.
    record: Option<BlockSeq>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this replica may have lost what it had acknowledged")?;
        if self.cut < LogIndex(u64::MAX) {
            write!(f, " (its log ends in front of entry {})", self.cut)?;
        }
        f.write_str(": it does not vote until its leader has brought it again; look at its disk")
    }
}

/// What is wrong with the shared groups of a start.
pub(super) fn findings(me: ReplicaId, recovered: &Recovered, beginnings: &Beginnings) -> BTreeMap<GroupId, Finding> {
    let snapshots = snapshots_of(recovered);
    let mut found = BTreeMap::new();
    for start in beginnings.starts.iter().filter(|start| beginnings.is_shared(me, start)) {
        let group = start.id;
        let doubt = recovered.doubts.get(&group);
        let began = recovered.replicas.iter().find(|(_, record)| record.group == group).map(|(block, _)| *block);
        let whole = doubt.filter(|doubt| !doubt.is_suspect).map(|doubt| doubt.block);
        // What was lost in front of these is made good, or was of no use any more.
        let forced = recovered.forced.iter().find(|(_, record)| record.group == group).map(|(block, _)| *block);
        let of_record = [began, whole, forced].into_iter().flatten().max().unwrap_or_default();
        let since = snapshots.get(&group).map_or(of_record, |since| since.block.max(of_record));
        let is_stray = beginnings.strays.contains(&group);
        let missing = if is_stray { Some(LogIndex(0)) } else { first_missing(group, start.base.index, recovered) };
        let damaged = first_damaged(group, start.base.index, recovered);
        // Where every block is there, what stands behind a hole came after a snapshot that no checkpoint has: until one had it nothing was acknowledged.
        let is_gone = missing.is_some() && (is_stray || !recovered.lost.is_empty());
        let cut = missing.into_iter().chain(damaged).min();
        let has_lost = recovered.lost.iter().any(|lost| lost.last > since);
        // A snapshot does not end a doubt: its leader need not know yet of everything that this replica had acknowledged.
        // One that is left stands behind the record of a beginning, though perhaps in the same block: that drops those in front of it.
        let is_open = |doubt: &&Doubt| doubt.is_suspect && forced.is_none_or(|forced| doubt.block > forced);
        let record = doubt.filter(is_open).map(|doubt| doubt.block);
        if cut.is_some() || has_lost || record.is_some() {
            let is_suspect = is_gone || damaged.is_some() || has_lost || record.is_some();
            found.insert(group, Finding { cut: cut.unwrap_or(LogIndex(u64::MAX)), is_suspect, record });
        }
    }
    found
}

/// The first entry behind `base` that is missing among others.
fn first_missing(group: GroupId, base: LogIndex, recovered: &Recovered) -> Option<LogIndex> {
    let mut last = base;
    for entry in entries_behind(group, base, recovered) {
        if entry.index.0 > last.0 + 1 {
            return Some(LogIndex(last.0 + 1));
        }
        last = entry.index;
    }
    None
}

/// The first entry behind `base` of which something does not check that is no batch's body.
fn first_damaged(group: GroupId, base: LogIndex, recovered: &Recovered) -> Option<LogIndex> {
    let damaged = recovered.damage.iter().filter_map(|damage| match damage.kind {
        DamageKind::Payload { seq, group: of, index, .. } | DamageKind::BatchHeader { seq, group: of, index } if of == group => {
            entries_behind(group, base, recovered).find(|entry| entry.index == index && entry.block == seq).map(|entry| entry.index)
        }
        _ => None,
    });
    damaged.min()
}

fn entries_behind(group: GroupId, base: LogIndex, recovered: &Recovered) -> impl Iterator<Item = &RecoveredEntry> {
    recovered.entries.iter().filter(move |entry| entry.group == group && entry.index > base)
}

/// Leaves the entries out that the replicas' logs do not have any more.
pub(super) fn cut(recovered: &mut Recovered, findings: &BTreeMap<GroupId, Finding>) {
    let is_kept = |group: GroupId, index: LogIndex| findings.get(&group).is_none_or(|finding| index < finding.cut);
    recovered.entries.retain(|entry| is_kept(entry.group, entry.index));
    recovered.batches.retain(|batch| is_kept(batch.group, batch.index));
    recovered.controls.retain(|control| is_kept(control.group, control.index));
}

/// The suspects of a shard.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    /// With the block of the record that says so; none where it has to be written, anew or for the first time.
    records: BTreeMap<GroupId, Option<BlockSeq>>,
    /// Those that are whole, and have no record of that yet.
    whole: BTreeSet<GroupId>,
    /// Blocks are gone: of a group of which nothing is known there may have been a replica.
    has_lost_blocks: bool,
}

impl Suspects {
    pub(super) fn new(findings: &BTreeMap<GroupId, Finding>, recovered: &Recovered) -> Suspects {
        let records = findings.iter().map(|(group, finding)| (*group, finding.record)).collect();
        Suspects { records, whole: BTreeSet::new(), has_lost_blocks: !recovered.lost.is_empty() }
    }

    /// A replica of a group begins that is not known to the log; answers whether it is suspect.
    pub(super) fn on_begun(&mut self, group: GroupId) -> bool {
        if self.has_lost_blocks {
            self.records.insert(group, None);
        }
        self.has_lost_blocks
    }

    pub(super) fn count(&self) -> usize {
        self.records.len()
    }

    /// All of them.
    #[cfg(test)]
    pub(super) fn groups(&self) -> Vec<GroupId> {
        self.records.keys().copied().collect()
    }

    /// Those that have no record.
    pub(super) fn unrecorded(&self) -> Vec<GroupId> {
        self.records.iter().filter(|(_, record)| record.is_none()).map(|(group, _)| *group).collect()
    }

    pub(super) fn note_record(&mut self, group: GroupId, block: BlockSeq) {
        self.records.insert(group, Some(block));
    }

    /// What the replica has lost is accepted: the group goes on without it.
    pub(super) fn accept(&mut self, group: GroupId) {
        if self.records.remove(&group).is_some() {
            self.whole.insert(group);
        }
    }

    /// The replica is given up.
    pub(super) fn remove(&mut self, group: GroupId) {
        self.records.remove(&group);
        self.whole.remove(&group);
    }

    /// Whether a checkpoint that covers blocks up to `block` forgets no suspect. One whose record it would cover gets another one.
    fn may_be_covered(&mut self, block: BlockSeq, durable: BlockSeq) -> bool {
        let mut may = true;
        for record in self.records.values_mut() {
            record.take_if(|at| *at <= block);
            may &= record.is_some_and(|at| at <= durable);
        }
        may
    }
}

/// What the log is told of a replica that is suspect, or is not any more.
pub(super) fn record_of_doubt(me: ReplicaId, group: GroupId, state: ReplicaState) -> ReplicaRecord {
    ReplicaRecord {
        group,
        state,
        replica: me,
        base_index: LogIndex(0),
        base_term: Term(0),
        term: Term(0),
        vote: 0,
        voters: Vec::new(),
        learners: Vec::new(),
    }
}

impl Shard {
    /// What a leader's share says besides its entries, which are taken.
    pub(super) fn heed_words(&mut self, now: Now, base: &ShareBase, effects: &mut Effects) {
        let (group, term) = (GroupId(base.group), Term(base.term));
        let is_leaders = term == self.groups.term_of(group) && !self.groups.leads(group) && self.has_group(group);
        if is_leaders && base.flags.has(ShareFlags::YOU_LOST) && !self.groups.is_suspect(group) {
            tracing::error!(
                shard = self.id.0,
                group = group.0,
                "this replica has lost entries that it had acknowledged: it does not vote until its leader has brought them again; look at its disk"
            );
            self.begin_doubt(now, group, effects);
        }
        if is_leaders && base.flags.has(ShareFlags::PROVEN) {
            let at = GroupPosition { index: LogIndex(base.prev_index), term: Term(base.prev_term) };
            self.groups.on_proven(group, term, at);
        }
    }

    /// An entry that is not committed cannot be read here, and this node leads: nobody would ever get it, nor what stands behind it. Who leads next has it, or puts
    /// another one in its place.
    pub(super) fn stand_back(&mut self, now: Now, group: GroupId, effects: &mut Effects) {
        let members = self.groups.members_of(group).expect("this shard leads it");
        let others = members.voters.iter().filter(|voter| self.pipelines.is_live(**voter)).count();
        if others <= members.voters.len() / 2 {
            // Without this one's vote they could not go on.
            return;
        }
        tracing::error!(
            shard = self.id.0,
            group = group.0,
            "an entry that is not committed yet cannot be read back: this replica leads its group no more, and does not vote until its leader has brought it again; \
             look at its disk"
        );
        self.groups.step_down(group);
        // What is open of it is voided before anything is written.
        self.on_leaderships(now, effects);
        self.begin_doubt(now, group, effects);
    }

    /// The replica is suspect from now on, while this process runs.
    fn begin_doubt(&mut self, now: Now, group: GroupId, effects: &mut Effects) {
        self.groups.suspect(group);
        self.suspects.whole.remove(&group);
        self.suspects.records.insert(group, None);
        self.care_for_suspects(now, effects);
    }

    /// Writes the records that are owed. What finds no room is written with a later turn.
    pub(super) fn care_for_suspects(&mut self, now: Now, effects: &mut Effects) {
        if self.suspects.records.is_empty() && self.suspects.whole.is_empty() || self.failure().is_some() {
            return;
        }
        for group in self.groups.take_whole() {
            tracing::info!(shard = self.id.0, group = group.0, "the group's replica here is whole again, and votes");
            self.suspects.records.remove(&group);
            self.suspects.whole.insert(group);
        }
        let owed = self.suspects.unrecorded().into_iter().map(|group| (group, ReplicaState::Suspect));
        let owed: Vec<_> = owed.chain(self.suspects.whole.iter().map(|group| (*group, ReplicaState::Whole))).collect();
        for (group, state) in owed {
            let record = record_of_doubt(self.replica(), group, state);
            let Some(block) = self.write_record(now, &record, effects) else { return effects.wake_at(now.mono_us + 1000) };
            match state {
                ReplicaState::Suspect => self.suspects.note_record(group, block),
                _ => drop(self.suspects.whole.remove(&group)),
            }
        }
    }

    /// Whether a checkpoint may cover blocks up to `block`.
    pub(super) fn may_cover_suspects(&mut self, block: BlockSeq, effects: &mut Effects) -> bool {
        let may = self.suspects.may_be_covered(block, self.log.durable_through());
        if !may {
            effects.wake_at(0);
        }
        may
    }
}
