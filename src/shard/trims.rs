//! Trims: a request moves the start of partitions up, for good.
//!
//! How a trim goes: request -> checked against each partition -> one control payload per replica group into the open block -> durable
//! and committed -> the start moves -> reply. What is in runs below the start is dropped at once, segments are freed by retention.
//!
//! Invariants: nobody sees a start that a crash could take back; a payload that is in the log is taken in when it is committed, whether
//! or not its request is still waited for; replies leave in the order of their blocks, each once.
//!
//! Not here: the payload and what a trim does to a partition (partition/), a start's trims (`start.rs`), freeing (`retention.rs`).

use super::acks::Acks;
use super::in_order::InOrder;
use super::proposals::Proposals;
use super::shard::{Phase, Shard, Taken};
use crate::api::{self, ApiError};
use crate::effects::{Caller, Effects, Now};
use crate::ids::{BlockSeq, GroupId, PartitionUid};
use crate::log::Appended;
use crate::partition::{Partitions, Slot, Trim, encode_trims};
use tramline_wire::error::ErrorCode;
use tramline_wire::frame::Frame;
use tramline_wire::prim::List;
use tramline_wire::trim::{TrimAnswer, TrimPartitionsReply, TrimPartitionsRequest};

/// Entries of the requests that wait for their block: from here on others have to wait until they are taken in.
const WAITING_ENTRIES_MAX: usize = 65_536;
/// Trims in one payload of the log, so that it fits a block of any setting: some 4 KiB.
const PAYLOAD_TRIMS_MAX: usize = 256;

/// What a request's entry will be answered.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    uid: u64,
    /// `None` where the partition is not known here.
    slot: Option<Slot>,
    error: ErrorCode,
}

#[derive(Debug)]
struct Waiting {
    caller: Caller,
    outcomes: Vec<Outcome>,
}

/// All trims under way on a shard.
#[derive(Debug, Default)]
pub(super) struct Trims {
    /// Partitions, and where each is to begin.
    pub(super) proposed: Proposals<(Slot, u64)>,
    waiting: InOrder<Waiting>,
    /// Entries of `waiting`.
    waiting_entries: usize,
}

impl Trims {
    /// The group's entries in all blocks up to `block` are committed: its trims among them hold. The slots go into `trimmed`.
    pub(super) fn commit(&mut self, group: GroupId, block: BlockSeq, partitions: &mut Partitions, trimmed: &mut Vec<Slot>) {
        self.proposed.commit(group, block, |(slot, log_start)| {
            // A partition that was deleted meanwhile has nothing to trim.
            if let Some(partition) = partitions.get_mut(*slot) {
                partition.trim_to(*log_start);
                trimmed.push(*slot);
            }
        });
    }

    /// Answers every request whose groups are committed through its block.
    pub(super) fn release(&mut self, acks: &Acks, partitions: &Partitions, effects: &mut Effects) {
        while let Some(waiting) = self.waiting.pop(acks) {
            self.waiting_entries -= waiting.outcomes.len();
            reply(&waiting.caller, &waiting.outcomes, partitions, effects);
        }
    }

    /// Whoever waits for one of `groups` (as `Acks::bit_of`) is told that it is led by another node now: whether the trim holds is not known.
    pub(super) fn fail_group(&mut self, groups: u64, acks: &Acks, effects: &mut Effects) {
        for waiting in self.waiting.take_groups(groups, acks) {
            self.waiting_entries -= waiting.outcomes.len();
            effects.refuse(&waiting.caller, ErrorCode::LeadershipLost, "", "");
        }
    }

    /// The log has failed: whether a trim that waits holds is not known.
    pub(super) fn fail_all(&mut self, effects: &mut Effects, reason: &str) {
        self.proposed.clear();
        self.waiting_entries = 0;
        self.waiting.drain().for_each(|waiting| effects.refuse(&waiting.caller, ErrorCode::StorageFailed, reason, ""));
    }
}

impl Shard {
    pub(super) fn trim_partitions(&mut self, now: Now, caller: Caller, frame: &Frame<'_>, effects: &mut Effects) -> Taken {
        self.try_trim_partitions(now, caller, frame, effects).unwrap_or_else(|error| {
            self.refuse(&caller, &error, effects);
            Taken::Yes
        })
    }

    fn try_trim_partitions(&mut self, now: Now, caller: Caller, frame: &Frame<'_>, effects: &mut Effects) -> Result<Taken, ApiError> {
        let request = api::trim::decode(frame.meta)?;
        if let Phase::Failed(reason) = &self.phase {
            return Err(ApiError::new(ErrorCode::StorageFailed, reason.clone()));
        }
        if self.trims.waiting_entries >= WAITING_ENTRIES_MAX {
            return Ok(Taken::Blocked);
        }
        let (outcomes, mut wanted) = self.check_trims(&request);
        wanted.sort_by_key(|(group, ..)| *group);
        let (mut groups, mut last_block) = (0, BlockSeq(0));
        for of_payload in wanted.chunk_by(|a, b| a.0 == b.0).flat_map(|of_group| of_group.chunks(PAYLOAD_TRIMS_MAX)) {
            // A request that finds no room here is tried again as a whole: what is in the log already is said twice, which changes nothing.
            let Some(appended) = self.propose_trims(now, of_payload, effects)? else { return Ok(Taken::Blocked) };
            groups |= self.acks.bit_of(of_payload[0].0);
            last_block = appended.block;
        }
        if groups == 0 {
            reply(&caller, &outcomes, &self.partitions, effects);
        } else {
            self.trims.waiting_entries += outcomes.len();
            self.trims.waiting.push(groups, last_block, Waiting { caller, outcomes });
        }
        Ok(Taken::Yes)
    }

    /// What is to be answered, and what has to go into the log for it.
    fn check_trims(&mut self, request: &TrimPartitionsRequest<'_>) -> (Vec<Outcome>, Vec<(GroupId, Slot, Trim)>) {
        let mut outcomes = Vec::with_capacity(request.entries.len());
        let mut wanted = Vec::with_capacity(request.entries.len());
        for entry in request.entries.iter() {
            let uid = PartitionUid(entry.partition_uid);
            let mut outcome = Outcome { uid: uid.0, slot: None, error: ErrorCode::Ok };
            match self.readable(uid) {
                Err(error) => outcome.error = error.code,
                Ok(slot) => {
                    outcome.slot = Some(slot);
                    let partition = self.partitions.get(slot).expect("readable");
                    match partition.check_trim(entry.before) {
                        Err(error) => outcome.error = api::trim::code(error),
                        Ok(true) => wanted.push((partition.group, slot, Trim { uid, log_start: entry.before })),
                        Ok(false) => {}
                    }
                }
            }
            if !outcome.error.is_ok() {
                self.metrics.count_error(outcome.error);
            }
            outcomes.push(outcome);
        }
        (outcomes, wanted)
    }

    /// Puts trims of one group into the open block; `None` where there is no room now.
    fn propose_trims(&mut self, now: Now, trims: &[(GroupId, Slot, Trim)], effects: &mut Effects) -> Result<Option<Appended>, ApiError> {
        let group = trims[0].0;
        let list: Vec<Trim> = trims.iter().map(|(.., trim)| *trim).collect();
        let Some(appended) = self.append_payload(now, group, &encode_trims(&list), effects)? else { return Ok(None) };
        for (group, slot, trim) in trims {
            self.trims.proposed.push(*group, appended.block, (*slot, trim.log_start));
        }
        Ok(Some(appended))
    }

    /// Trims have become durable: what they leave no use for goes.
    pub(super) fn on_trimmed(&mut self, now: Now) {
        while let Some(slot) = self.trimmed.pop() {
            self.trim(now, slot);
            if let Some(uid) = self.partitions.get(slot).map(|partition| partition.uid) {
                self.untidy_queues(uid);
            }
        }
    }
}

fn reply(caller: &Caller, outcomes: &[Outcome], partitions: &Partitions, effects: &mut Effects) {
    let answer = |outcome: &Outcome| {
        let ends = outcome.slot.and_then(|slot| partitions.get(slot)).map(|p| (p.log_start(), p.committed_end()));
        let (log_start, committed_end) = ends.unwrap_or_default();
        // The topic was deleted while the trim was under way.
        let gone = outcome.slot.is_some() && ends.is_none();
        let error = if gone { ErrorCode::TopicDeleted } else { outcome.error };
        TrimAnswer { partition_uid: outcome.uid, error, log_start, committed_end }
    };
    let answers: Vec<TrimAnswer> = outcomes.iter().map(answer).collect();
    effects.reply(caller, 0, &mut Vec::new(), |out| TrimPartitionsReply { entries: List::of(&answers) }.encode(out));
}
