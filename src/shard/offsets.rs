//! Committed offsets of consumer groups on this shard: commits and claims, from the request to the reply.
//!
//! How one goes: request -> each entry checked against what the partition has seen -> control payloads into the open block, one row per replica
//! group -> durable and committed -> taken in -> reply. A claim (a question with an assignment epoch) goes the same way, once per owner; a
//! question without one is answered at once.
//!
//! Invariants: what is answered survives a crash; a claim is answered when no lower epoch can be taken in any more; replies leave in the order of
//! their blocks, each once.
//!
//! Not here: what a note does to an offset (subscription/offsets.rs), who may own a partition (`groups.rs`).

use super::acks::Acks;
use super::in_order::InOrder;
use super::proposals::Proposals;
use super::shard::{Phase, Shard, Taken};
use crate::api::{self, ApiError};
use crate::control::View;
use crate::effects::{Caller, Effects, Now};
use crate::ids::{BlockSeq, GroupId, PartitionUid, SubscriptionUid};
use crate::metrics::ShardMetrics;
use crate::mutants::Mutant;
use crate::partition::Partitions;
use crate::subscription::{NoteKind, OffsetNote, OffsetRefused, Offsets, encode_notes};
use tramline_wire::error::ErrorCode;
use tramline_wire::frame::Frame;
use tramline_wire::group::{CommitOffsetsReply, FetchOffsetsReply, OFFSET_NONE, OffsetCommitted, OffsetFetched};
use tramline_wire::prim::List;

/// Entries of the requests that wait for their block: from here on others have to wait until they are taken in.
const WAITING_ENTRIES_MAX: usize = 65_536;

/// What a request's entry will be answered.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    uid: PartitionUid,
    error: ErrorCode,
    /// A note on it went into the log; else the entry only looks.
    is_noted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Commit,
    Fetch,
}

#[derive(Debug)]
struct Waiting {
    caller: Caller,
    asked: Asked,
    subscription: SubscriptionUid,
    outcomes: Vec<Outcome>,
}

/// Committed offsets, and the commits under way.
#[derive(Debug, Default)]
pub(super) struct OffsetCare {
    pub(super) table: Offsets,
    /// In the order of appending.
    pub(super) proposed: Proposals<OffsetNote>,
    waiting: InOrder<Waiting>,
    /// Entries of `waiting`.
    waiting_entries: usize,
}

impl OffsetCare {
    pub(super) fn new(table: Offsets) -> OffsetCare {
        OffsetCare { table, ..OffsetCare::default() }
    }

    /// The group's entries in all blocks up to `block` are committed: the notes among them hold.
    pub(super) fn commit(&mut self, now: Now, group: GroupId, block: BlockSeq, partitions: &Partitions, metrics: &mut ShardMetrics) {
        let table = &mut self.table;
        self.proposed.commit(group, block, |note| {
            take_in(now, table, note, partitions);
            metrics.counters.offset_commits += u64::from(note.kind == NoteKind::Commit);
        });
    }

    /// Answers every request whose groups are committed through its block.
    pub(super) fn release(&mut self, acks: &Acks, view: &View, effects: &mut Effects) {
        while let Some(waiting) = self.waiting.pop(acks) {
            self.waiting_entries -= waiting.outcomes.len();
            let mut outcomes = waiting.outcomes;
            // What was written is known now, unless its partition or group was deleted meanwhile. Where somebody only looks there may be nothing.
            let is_group_there = view.group_by_uid(waiting.subscription).is_some();
            for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_noted) {
                if self.table.find(outcome.uid, waiting.subscription).is_none() {
                    outcome.error = if is_group_there { ErrorCode::TopicDeleted } else { ErrorCode::UnknownGroup };
                }
            }
            reply(&waiting.caller, waiting.asked, waiting.subscription, &outcomes, &self.table, effects);
        }
    }

    /// Whoever waits for one of `groups` (as `Acks::bit_of`) is told that it is led by another node now: whether the commit holds is not known.
    pub(super) fn fail_group(&mut self, groups: u64, acks: &Acks, effects: &mut Effects) {
        for waiting in self.waiting.take_groups(groups, acks) {
            self.waiting_entries -= waiting.outcomes.len();
            effects.refuse(&waiting.caller, ErrorCode::LeadershipLost, "", "");
        }
    }

    /// The log has failed: whether a commit that waits holds is not known.
    pub(super) fn fail_all(&mut self, effects: &mut Effects, reason: &str) {
        self.proposed.clear();
        self.waiting_entries = 0;
        self.waiting.drain().for_each(|waiting| effects.refuse(&waiting.caller, ErrorCode::StorageFailed, reason, ""));
    }
}

/// Takes a note in, unless its partition or group was deleted meanwhile: then nothing is known of the two any more.
fn take_in(now: Now, table: &mut Offsets, note: &OffsetNote, partitions: &Partitions) {
    let Some(partition) = partitions.slot(note.partition).and_then(|slot| partitions.get(slot)) else { return };
    if table.find(note.partition, note.subscription).is_none() {
        return;
    }
    table.apply(note);
    if note.kind == NoteKind::Commit
        && note.offset != OFFSET_NONE
        && let Some(progress) = table.find_mut(note.partition, note.subscription)
    {
        progress.note_lag(now.utc_us, partition.committed_end().saturating_sub(note.offset));
    }
}

impl Shard {
    pub(super) fn commit_offsets(&mut self, now: Now, caller: Caller, frame: &Frame<'_>, effects: &mut Effects) -> Result<Taken, ApiError> {
        let request = api::groups::commit(frame.meta)?;
        let subscription = self.known_group(request.group_uid)?;
        let (mut outcomes, mut wanted) = (Vec::with_capacity(request.entries.len()), Vec::with_capacity(request.entries.len()));
        if !self.has_room_for_offsets()? {
            return Ok(Taken::Blocked);
        }
        for entry in request.entries.iter() {
            let uid = PartitionUid(entry.partition_uid);
            let note = OffsetNote {
                partition: uid,
                subscription,
                epoch: entry.assignment_epoch,
                kind: NoteKind::Commit,
                offset: entry.offset,
                committed_us: now.utc_us,
                metadata: entry.metadata.into(),
            };
            let error = self.want_note(note, &mut wanted);
            outcomes.push(Outcome { uid, error, is_noted: error.is_ok() });
        }
        self.propose_notes(now, caller, Asked::Commit, subscription, outcomes, wanted, effects)
    }

    pub(super) fn fetch_offsets(&mut self, now: Now, caller: Caller, frame: &Frame<'_>, effects: &mut Effects) -> Result<Taken, ApiError> {
        let request = api::groups::fetch(frame.meta)?;
        let subscription = self.known_group(request.group_uid)?;
        let (mut outcomes, mut wanted) = (Vec::with_capacity(request.entries.len()), Vec::new());
        if !self.has_room_for_offsets()? {
            return Ok(Taken::Blocked);
        }
        for entry in request.entries.iter() {
            let uid = PartitionUid(entry.partition_uid);
            let known_epoch = self.offsets.table.find(uid, subscription).map_or(0, |progress| progress.epoch);
            // Who only looks, and who looks again at what he has claimed, leaves no trace in the log.
            let only_looks = entry.assignment_epoch == 0 || entry.assignment_epoch == known_epoch;
            let error = if only_looks {
                self.readable(uid).err().map_or(ErrorCode::Ok, |error| error.code)
            } else {
                let (kind, metadata) = (NoteKind::Claim, Box::default());
                let (epoch, offset) = (entry.assignment_epoch, OFFSET_NONE);
                self.want_note(OffsetNote { partition: uid, subscription, epoch, kind, offset, committed_us: 0, metadata }, &mut wanted)
            };
            outcomes.push(Outcome { uid, error, is_noted: !only_looks && error.is_ok() });
        }
        self.propose_notes(now, caller, Asked::Fetch, subscription, outcomes, wanted, effects)
    }

    /// The group that a request names.
    pub(super) fn known_group(&self, uid: u64) -> Result<SubscriptionUid, ApiError> {
        let uid = SubscriptionUid(uid);
        match self.view.group_by_uid(uid) {
            Some(_) => Ok(uid),
            None => Err(ApiError::new(
                ErrorCode::UnknownGroup,
                format!("no consumer group has the uid {uid}: it was deleted, or never created"),
            )),
        }
    }

    fn has_room_for_offsets(&self) -> Result<bool, ApiError> {
        if let Phase::Failed(reason) = &self.phase {
            return Err(ApiError::new(ErrorCode::StorageFailed, reason.clone()));
        }
        Ok(self.offsets.waiting_entries < WAITING_ENTRIES_MAX)
    }

    /// Checks one note: whether it may go into the log, and of which group.
    pub(super) fn check_note(&self, note: &OffsetNote) -> Result<GroupId, ErrorCode> {
        let slot = self.readable(note.partition).map_err(|error| error.code)?;
        let partition = self.partitions.get(slot).expect("readable");
        if note.offset != OFFSET_NONE && note.offset > partition.next_offset() {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        match self.offsets.table.check(note) {
            Err(OffsetRefused::Stale) if self.log.mutants().has(Mutant::TakeStaleCommit) => Ok(partition.group),
            checked => checked.map(|()| partition.group).map_err(api::groups::offset_code),
        }
    }

    /// A note that is found to be right goes behind `wanted`.
    fn want_note(&mut self, note: OffsetNote, wanted: &mut Vec<(GroupId, OffsetNote)>) -> ErrorCode {
        match self.check_note(&note) {
            Ok(group) => {
                self.offsets.table.propose(&note);
                wanted.push((group, note));
                ErrorCode::Ok
            }
            Err(error) => {
                self.metrics.count_error(error);
                error
            }
        }
    }

    /// Puts the notes into the log, and the reply behind those that wait.
    fn propose_notes(
        &mut self,
        now: Now,
        caller: Caller,
        asked: Asked,
        subscription: SubscriptionUid,
        outcomes: Vec<Outcome>,
        mut wanted: Vec<(GroupId, OffsetNote)>,
        effects: &mut Effects,
    ) -> Result<Taken, ApiError> {
        // Stable: notes on one partition stay in the order of the request.
        wanted.sort_by_key(|(group, _)| *group);
        let (mut groups, mut last_block) = (0, BlockSeq(0));
        for of_group in wanted.chunk_by(|a, b| a.0 == b.0) {
            let group = of_group[0].0;
            let notes: Vec<OffsetNote> = of_group.iter().map(|(_, note)| note.clone()).collect();
            let Some(block) = self.append_offset_notes(now, group, &notes, effects)? else { return Ok(Taken::Blocked) };
            groups |= self.acks.bit_of(group);
            last_block = block;
        }
        let is_early = asked == Asked::Commit && self.log.mutants().has(Mutant::AckOffsetEarly);
        if groups == 0 || is_early {
            reply(&caller, asked, subscription, &outcomes, &self.offsets.table, effects);
            return Ok(Taken::Yes);
        }
        self.offsets.waiting_entries += outcomes.len();
        self.offsets.waiting.push(groups, last_block, Waiting { caller, asked, subscription, outcomes });
        Ok(Taken::Yes)
    }

    /// Puts notes of one replica group into the log; `None` where there is no room. A request that finds none is tried again as a whole: what is in the log
    /// already is said twice, which changes nothing.
    pub(super) fn append_offset_notes(
        &mut self,
        now: Now,
        group: GroupId,
        notes: &[OffsetNote],
        effects: &mut Effects,
    ) -> Result<Option<BlockSeq>, ApiError> {
        let mut last_block = None;
        for (payload, of_payload) in encode_notes(notes) {
            let Some(appended) = self.append_payload(now, group, &payload, effects)? else { return Ok(None) };
            last_block = Some(appended.block);
            notes[of_payload].iter().for_each(|note| self.offsets.proposed.push(group, appended.block, note.clone()));
        }
        Ok(last_block)
    }

    /// Partitions and groups that are gone take their offsets along.
    pub(super) fn drop_offsets_of_the_gone(&mut self) {
        // What the view does not know yet is newer than it: a follower takes commits in before it hears of the topic, or the group.
        let mut table = std::mem::take(&mut self.offsets.table);
        let is_gone = |uid: PartitionUid| self.view.has_known(uid) && self.partitions.slot(uid).is_none();
        table.retain(|uid, subscription| !is_gone(uid) && !self.is_group_gone(subscription));
        self.offsets.table = table;
    }
}

fn reply(caller: &Caller, asked: Asked, subscription: SubscriptionUid, outcomes: &[Outcome], table: &Offsets, effects: &mut Effects) {
    match asked {
        Asked::Commit => {
            let told: Vec<_> = outcomes.iter().map(|o| OffsetCommitted { partition_uid: o.uid.0, error: o.error }).collect();
            effects.reply(caller, 0, &mut Vec::new(), |out| CommitOffsetsReply { entries: List::of(&told) }.encode(out));
        }
        Asked::Fetch => {
            let told: Vec<_> = outcomes.iter().map(|outcome| fetched(outcome, subscription, table)).collect();
            effects.reply(caller, 0, &mut Vec::new(), |out| FetchOffsetsReply { entries: List::of(&told) }.encode(out));
        }
    }
}

fn fetched<'a>(outcome: &Outcome, subscription: SubscriptionUid, table: &'a Offsets) -> OffsetFetched<'a> {
    let (partition_uid, error) = (outcome.uid.0, outcome.error);
    let progress = table.find(outcome.uid, subscription).filter(|_| error.is_ok());
    match progress {
        Some(p) => OffsetFetched { partition_uid, error, offset: p.offset, committed_us: p.committed_us, metadata: &p.metadata },
        None => OffsetFetched { partition_uid, error, offset: OFFSET_NONE, committed_us: 0, metadata: "" },
    }
}
