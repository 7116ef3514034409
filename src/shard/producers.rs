//! Idempotent producers on this shard: which batches are new, how many producers there may be, when one is forgotten; on shard 0 their ids.
//!
//! Invariants: an id is given out once, by a node that has taken it from the metadata before (what is left of a lease at a crash is never given out), and
//! says nothing of its neighbours: a client that makes one up, or copies batches with their marks, hits nobody else's;
//! nobody is forgotten before `producer.expiry`, however many there are: to be told "unknown" makes a client send anew what may be
//! stored.
//!
//! Not here: what a partition remembers (partition/producers.rs).

use super::acks::BatchResult;
use super::shard::{Phase, Shard, Taken};
use crate::api::{self, ApiError};
use crate::constants::PRODUCER_LEASE_IDS;
use crate::control::Command;
use crate::effects::{Caller, Effects, Now};
use crate::ids::BlockSeq;
use crate::metrics::ShardMetrics;
use crate::mutants::Mutant;
use crate::partition::{ProducerBatch, Slot, Verdict};
use std::collections::VecDeque;
use std::ops::Range;
use tramline_wire::batch::BatchView;
use tramline_wire::error::ErrorCode;

/// How often everyone is looked at.
const LOOK_US: u64 = 60_000_000;
/// How often it is said that there is no room for another one.
const TELL_US: u64 = 60_000_000;
/// Partitions looked at in one turn: some 100 ns each where there is nobody to forget.
const LOOK_PARTITIONS: u32 = 64;
/// Callers that wait for an id at most.
const WAITING_MAX: usize = 1024;

/// The look at all producers that is under way, or when the next begins.
#[derive(Debug, Default)]
pub(super) struct ProducerCare {
    next_slot: u32,
    next_look_us: u64,
    /// When it was said last that there is no room for another one.
    told_full_us: Option<u64>,
}

/// Shard 0's ids for producers.
#[derive(Debug, Default)]
pub(super) struct ProducerIds {
    lease: Range<u64>,
    /// Who came when the lease was used up.
    waiting: VecDeque<Caller>,
    /// A further lease is on its way.
    is_asked: bool,
}

impl ProducerIds {
    /// A lease has come.
    pub(super) fn on_leased(&mut self, lease: Range<u64>) {
        assert!(self.lease.is_empty(), "a lease is asked for when the last one is used up");
        (self.lease, self.is_asked) = (lease, false);
    }

    /// A lease was refused: whoever waits is told.
    pub(super) fn on_refused(&mut self, effects: &mut Effects, metrics: &mut ShardMetrics, error: &ApiError) {
        self.is_asked = false;
        for caller in self.waiting.drain(..) {
            metrics.count_error(error.code);
            effects.refuse(&caller, error.code, &error.message, &error.next);
        }
    }
}

/// The id for a number of the lease: the finalizer of splitmix64 (Steele and others 2014), which gives each number another id.
fn id_of(number: u64, cluster_id: &[u8; 16]) -> u64 {
    let key = cluster_id.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let mut z = number ^ key;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// What a marked batch is to `Shard::take_batch`.
pub(super) enum Marked {
    /// To be appended.
    New,
    /// Answered by what was appended before: its result, the group's bit and the block to wait for (0 when it is committed).
    Repeated(BatchResult, u64, BlockSeq),
    Refused(ErrorCode),
}

impl Shard {
    /// What a batch with a producer's mark is.
    pub(super) fn check_mark(&mut self, now: Now, slot: Slot, view: &BatchView<'_>) -> Marked {
        let partition = self.partitions.get(slot).expect("the slot of a batch is filled");
        match partition.producers().check(&view.producer(), view.record_count()) {
            Verdict::New { is_known: false } if self.partitions.producer_count() >= self.settings.producers_max => {
                self.tell_full(now);
                Marked::Refused(ErrorCode::Overloaded)
            }
            Verdict::New { .. } => Marked::New,
            Verdict::Duplicate(batch) => self.repeated(slot, &batch),
            Verdict::OutOfSequence => Marked::Refused(ErrorCode::OutOfSequence),
            Verdict::Fenced => Marked::Refused(ErrorCode::ProducerFenced),
            Verdict::TooOld => {
                self.metrics.counters.produce_duplicates += 1;
                Marked::Refused(ErrorCode::DuplicateTooOld)
            }
        }
    }

    /// The client is told no more than "overloaded": what to do about it is the operator's.
    fn tell_full(&mut self, now: Now) {
        let told_us = &mut self.producer_care.told_full_us;
        if told_us.is_some_and(|at_us| now.mono_us < at_us + TELL_US) {
            return;
        }
        *told_us = Some(now.mono_us);
        tracing::warn!(
            shard = self.id.0,
            "further idempotent producers are refused: producers.max is {}, counted once per partition they send to, and none is forgotten before producer.expiry; raise producers.max (some 350 bytes each)",
            self.settings.producers_max
        );
    }

    fn repeated(&mut self, slot: Slot, batch: &ProducerBatch) -> Marked {
        let partition = self.partitions.get(slot).expect("looked at before");
        self.metrics.counters.produce_duplicates += 1;
        let result = BatchResult {
            uid: partition.uid.0,
            slot: Some(slot),
            error: ErrorCode::Ok,
            base_offset: batch.base_offset,
            append_time_us: batch.append_time_us,
        };
        let mutants = self.log.mutants();
        let is_told_early =
            mutants.has(Mutant::AckDuplicateEarly) || mutants.has(Mutant::AnswerCutDuplicate) && batch.block <= self.log.durable_through();
        let is_committed = is_told_early || batch.end_offset() <= partition.committed_end();
        match is_committed {
            true => Marked::Repeated(result, 0, BlockSeq(0)),
            false => Marked::Repeated(result, self.acks.bit_of(partition.group), batch.block),
        }
    }

    /// Answers InitProducer, on shard 0.
    pub(super) fn init_producer(&mut self, now: Now, caller: Caller, effects: &mut Effects) -> Result<Taken, ApiError> {
        if let Phase::Failed(reason) = &self.phase {
            return Err(ApiError::new(ErrorCode::StorageFailed, reason.clone()));
        }
        let Some(seat) = &mut self.seat else { return Err(ApiError::of(ErrorCode::NotLeader)) };
        if seat.producer_ids.waiting.len() >= WAITING_MAX {
            return Ok(Taken::Blocked);
        }
        seat.producer_ids.waiting.push_back(caller);
        self.give_producer_ids(now, effects);
        Ok(Taken::Yes)
    }

    /// Gives ids to those who wait, and asks for more when they do not suffice. When none can be had, all who wait are refused.
    pub(super) fn give_producer_ids(&mut self, now: Now, effects: &mut Effects) {
        let Some(seat) = &mut self.seat else { return };
        let ids = &mut seat.producer_ids;
        while let Some(caller) = ids.waiting.front() {
            // One number has the id 0, which is none.
            let Some(id) = ids.lease.by_ref().map(|number| id_of(number, &self.info.cluster_id)).find(|id| *id != 0) else { break };
            effects.reply(caller, 0, &mut Vec::new(), |out| api::producer::reply(out, id, &self.settings));
            ids.waiting.pop_front();
        }
        if ids.waiting.is_empty() || ids.is_asked {
            return;
        }
        // Without room for it now, whoever waits is served with the next one who asks, or at the next look.
        let from = u64::try_from(now.utc_us).unwrap_or(0);
        let taken = self.propose(Command::ReserveProducerIds { count: PRODUCER_LEASE_IDS, from }, None, false);
        let ids = &mut self.seat.as_mut().expect("looked at above").producer_ids;
        match taken {
            Ok(taken) => ids.is_asked = taken == Taken::Yes,
            Err(error) => ids.on_refused(effects, &mut self.metrics, &error),
        }
    }

    /// A turn of forgetting who has been silent for too long.
    pub(super) fn expire_producers(&mut self, now: Now) {
        if now.mono_us < self.producer_care.next_look_us {
            return;
        }
        let before_us = now.mono_us.saturating_sub(self.settings.producer_expiry_us);
        let first = self.producer_care.next_slot;
        let end = self.partitions.slot_count().min(first + LOOK_PARTITIONS);
        (first..end).for_each(|slot| self.partitions.expire_producers(Slot(slot), before_us, now.mono_us));
        self.producer_care.next_slot = end;
        if end == self.partitions.slot_count() {
            self.producer_care = ProducerCare { next_slot: 0, next_look_us: now.mono_us + LOOK_US, ..self.producer_care };
        }
    }
}
