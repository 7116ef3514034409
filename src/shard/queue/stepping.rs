//! The atomic step: messages are acked, batches published and offsets committed together, or nothing of it happens.
//!
//! How it goes: everything is checked first; then all of it goes into one block, in which room was made for it, as entries of one replica group.
//!
//! Invariant: after the first thing is appended nothing can be refused any more; a block is found whole at a start, or not at all.
//!
//! A step whose reply was lost is sent again: where every batch of it is known to have come before, the step was taken before, and is answered as then.
//! So a step that publishes with an idempotent producer's marks is done once.
//!
//! Not here: what an ack or a commit is (`settling.rs`, `offsets.rs`), what a batch has to be (api/produce.rs).

use super::super::produce::Source;
use super::super::producers::Marked;
use super::super::shard::{Phase, Shard, Taken};
use super::care::{Awaited, PartKey};
use super::lease_number;
use super::settling::{Settled, code_of};
use crate::api::{self, ApiError};
use crate::effects::{Caller, Effects, Now};
use crate::ids::{GroupId, PartitionUid};
use crate::log::AppendRefused;
use crate::mutants::Mutant;
use crate::partition::Slot;
use crate::subscription::queue::{Ending, PAYLOAD_BYTES_MAX, QueueNote, encode_queue_notes};
use crate::subscription::{NoteKind, OffsetNote};
use std::collections::BTreeSet;
use tramline_wire::batch::BatchView;
use tramline_wire::error::ErrorCode;
use tramline_wire::frame::Frame;
use tramline_wire::group::OFFSET_METADATA_BYTES_MAX;
use tramline_wire::step::{StepRequest, StepResult};

/// Bytes of a note without its text, in a payload of its own: 56 and 16 and the envelope's 32, generously.
const NOTE_ROOM_BYTES: usize = 128;

/// What a step comes to, once all of it is found to be right.
struct Checked<'a> {
    group: GroupId,
    acks: Vec<(PartKey, u64, u64)>,
    commits: Vec<OffsetNote>,
    batches: Vec<(Slot, &'a [u8], BatchView<'a>)>,
}

/// The batches of a step.
enum Batches<'a> {
    New(Vec<(Slot, &'a [u8], BatchView<'a>)>),
    /// All of them came before: in these groups (as `Acks::bit_of`).
    Again(Vec<StepResult>, u64),
}

fn refused(code: ErrorCode, what: &str) -> ApiError {
    ApiError::new(code, format!("nothing of the step was done: {what}: {}", code.sentence()))
}

/// A partition that is led elsewhere, beside one that is led here, lies in another replica group: to go there would not help.
fn apart(error: ErrorCode, group: Option<GroupId>) -> ErrorCode {
    if error == ErrorCode::NotLeader && group.is_some() { ErrorCode::NotCoLocated } else { error }
}

impl Shard {
    pub(in crate::shard) fn step_together(
        &mut self,
        now: Now,
        caller: Caller,
        frame: &Frame<'_>,
        effects: &mut Effects,
    ) -> Result<Taken, ApiError> {
        let request = api::queue_messages::step(frame.meta)?;
        if let Phase::Failed(reason) = &self.phase {
            return Err(ApiError::new(ErrorCode::StorageFailed, reason.clone()));
        }
        if !request.entries.is_empty() && self.log.is_out_of_space(frame.payload.len() as u64) {
            return Err(ApiError::of(ErrorCode::DiskFull));
        }
        if !request.entries.is_empty() && self.holds_produce(now, caller.via.is_some()) {
            return Ok(Taken::Blocked);
        }
        // What queues have to say stands in front of this in the log.
        self.write_queues(now, effects);
        if self.queues.has_pending() {
            return Ok(Taken::Blocked);
        }
        let mut group = None;
        let batches = match self.check_batches(now, &request, frame.payload, &mut group)? {
            Batches::New(batches) => batches,
            // Its acks and commits were taken with them.
            Batches::Again(results, groups) => {
                self.queues.wait_for_notes(groups, Awaited::Answer(caller, Settled::Step(results)));
                return Ok(Taken::Yes);
            }
        };
        let checked = self.check_rest(now, &request, batches, group)?;
        // Each note in a payload of its own is the most there can be.
        let acks = std::iter::repeat_n(NOTE_ROOM_BYTES, checked.acks.len());
        let commits = checked.commits.iter().map(|note| NOTE_ROOM_BYTES + note.metadata.len());
        let sizes: Vec<usize> = checked.batches.iter().map(|(_, batch, _)| batch.len()).chain(acks).chain(commits).collect();
        match self.in_open_block(now, effects, |log, slab| log.reserve_together(slab, 2, &sizes)) {
            Ok(()) => {}
            Err(AppendRefused::Full) => return Ok(Taken::Blocked),
            Err(AppendRefused::TooLarge) => {
                let message = "a step has to fit one block of the log: publish less at once";
                return Err(ApiError::new(ErrorCode::LimitExceeded, message));
            }
            Err(AppendRefused::Failed) => return Err(ApiError::of(ErrorCode::StorageFailed)),
        }
        let group = self.acks.bit_of(checked.group);
        let results = self.take_step(now, checked, effects);
        if !results.is_empty() {
            self.throttle.on_produced(frame.payload.len() as u64, caller.via.is_some());
        }
        self.urgent = true;
        self.queues.wait_for_notes(group, Awaited::Answer(caller, Settled::Step(results)));
        Ok(Taken::Yes)
    }

    /// Checks the batches. Where every one of them came before, the step did: it is answered as then. One of which some did cannot be.
    fn check_batches<'a>(
        &mut self,
        now: Now,
        request: &StepRequest<'a>,
        payload: &'a [u8],
        group: &mut Option<GroupId>,
    ) -> Result<Batches<'a>, ApiError> {
        let mut batches: Vec<(Slot, &'a [u8], BatchView<'a>)> = Vec::with_capacity(request.entries.len());
        let (mut again, mut again_in) = (Vec::new(), 0);
        for (entry, batch) in request.batches(payload)? {
            let uid = PartitionUid(entry.partition_uid);
            let what = format!("the batch for partition {uid}");
            self.readable(uid).map_err(|error| refused(apart(error.code, *group), &what))?;
            self.in_one_group(group, uid)?;
            let (slot, view) = self.check_batch(now, uid, batch, Source::Producer).map_err(|error| refused(error, &what))?;
            if view.producer().id != 0 {
                // A second batch of one producer for one partition would be found out of sequence before the first is appended.
                if batches.iter().any(|(other, ..)| *other == slot) {
                    return Err(refused(ErrorCode::InvalidRequest, "a step has one marked batch for each partition"));
                }
                match self.check_mark(now, slot, &view) {
                    Marked::New => {}
                    Marked::Repeated(..) if self.log.mutants().has(Mutant::RepeatStep) => {}
                    Marked::Repeated(result, groups, in_block) => {
                        self.queues.wait_for_block(in_block);
                        again_in |= groups;
                        let (partition_uid, base_offset) = (result.uid, result.base_offset);
                        again.push(StepResult { partition_uid, base_offset, append_time_us: result.append_time_us });
                    }
                    Marked::Refused(error) => return Err(refused(error, &what)),
                }
            }
            batches.push((slot, batch, view));
        }
        match again.len() {
            0 => Ok(Batches::New(batches)),
            all if all == batches.len() => Ok(Batches::Again(again, again_in)),
            _ => Err(refused(ErrorCode::InvalidRequest, "some of its batches came before, and not all")),
        }
    }

    /// Checks everything else. Nothing is changed.
    fn check_rest<'a>(
        &mut self,
        now: Now,
        request: &StepRequest<'_>,
        batches: Vec<(Slot, &'a [u8], BatchView<'a>)>,
        mut group: Option<GroupId>,
    ) -> Result<Checked<'a>, ApiError> {
        let mut named = BTreeSet::new();
        let mut acks = Vec::with_capacity(request.acks.len());
        for ack in request.acks.iter() {
            let what = format!("the ack of {} of partition {}", ack.offset, ack.partition_uid);
            let queue = self.known_queue(ack.queue_uid)?;
            let key = self.part_of(queue, PartitionUid(ack.partition_uid)).map_err(|error| refused(apart(error, group), &what))?;
            self.in_one_group(&mut group, key.1)?;
            let part = &self.queues.parts[&key].part;
            part.check_lease(now, ack.offset, lease_number::from_wire(queue, ack.lease)).map_err(|error| refused(code_of(error), &what))?;
            if !named.insert((key, ack.offset)) {
                return Err(refused(ErrorCode::InvalidRequest, &format!("{what} is there twice")));
            }
            acks.push((key, ack.offset, ack.lease));
        }
        let (mut committed, mut commits) = (BTreeSet::new(), Vec::with_capacity(request.commits.len()));
        for commit in request.commits.iter() {
            let uid = PartitionUid(commit.partition_uid);
            let what = format!("the offset of partition {uid}");
            let subscription = self.known_group(commit.group_uid)?;
            self.readable(uid).map_err(|error| refused(apart(error.code, group), &what))?;
            self.in_one_group(&mut group, uid)?;
            if commit.metadata.len() > OFFSET_METADATA_BYTES_MAX {
                return Err(refused(
                    ErrorCode::InvalidRequest,
                    &format!("{what} has more than {OFFSET_METADATA_BYTES_MAX} bytes of metadata"),
                ));
            }
            let note = OffsetNote {
                partition: uid,
                subscription,
                epoch: commit.assignment_epoch,
                kind: NoteKind::Commit,
                offset: commit.offset,
                committed_us: now.utc_us,
                metadata: commit.metadata.into(),
            };
            self.check_note(&note).map_err(|error| refused(error, &what))?;
            if !committed.insert((uid, subscription)) {
                return Err(refused(ErrorCode::InvalidRequest, &format!("{what} is there twice")));
            }
            commits.push(note);
        }
        Ok(Checked { group: group.expect("a step names something"), acks, commits, batches })
    }

    /// Everything of a step lies in one replica group.
    fn in_one_group(&self, group: &mut Option<GroupId>, uid: PartitionUid) -> Result<(), ApiError> {
        let of_partition = self.partitions.slot(uid).and_then(|slot| self.partitions.get(slot)).expect("looked at before").group;
        match *group.get_or_insert(of_partition) == of_partition {
            true => Ok(()),
            false => Err(refused(ErrorCode::NotCoLocated, &format!("partition {uid} lies in another replica group"))),
        }
    }

    /// Puts all of it into the open block, in which there is room.
    fn take_step(&mut self, now: Now, checked: Checked<'_>, effects: &mut Effects) -> Vec<StepResult> {
        let Checked { group, mut acks, commits, batches } = checked;
        if self.log.mutants().has(Mutant::HalfStep) && !batches.is_empty() {
            acks.clear();
        }
        let block = self.log.open_block_seq();
        let mut results = Vec::with_capacity(batches.len());
        for (slot, batch, view) in batches {
            let taken = self.append_checked(now, slot, batch, &view, Source::Producer, effects);
            let Ok((result, _, in_block)) = taken else { unreachable!("checked, and there is room") };
            assert_eq!(in_block, block, "a step stands in one block");
            let (base_offset, append_time_us) = (result.base_offset, result.append_time_us);
            results.push(StepResult { partition_uid: result.uid, base_offset, append_time_us });
        }
        let mut at = 0;
        while at < acks.len() {
            let key = acks[at].0;
            let mut notes: Vec<QueueNote> = Vec::new();
            while let Some((_, offset, lease)) = acks.get(at).filter(|(of, ..)| *of == key) {
                self.end_lease(now, key, (*offset, *lease), Ending::Ack, &mut notes).expect("checked");
                at += 1;
            }
            let mut payloads = Vec::new();
            encode_queue_notes(key.1, key.0, notes, PAYLOAD_BYTES_MAX, |payload| payloads.push(payload));
            for payload in payloads {
                let appended = self.append_payload(now, group, &payload, effects);
                assert!(matches!(&appended, Ok(Some(appended)) if appended.block == block), "a step stands in one block: {appended:?}");
            }
            self.queues.refresh(now, key);
        }
        if !commits.is_empty() {
            commits.iter().for_each(|note| self.offsets.table.propose(note));
            let written = self.append_offset_notes(now, group, &commits, effects);
            assert!(matches!(written, Ok(Some(in_block)) if in_block == block), "a step stands in one block: {written:?}");
        }
        self.queues.wait_for_block(block);
        results
    }
}
