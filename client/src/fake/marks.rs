//! What the fake broker keeps of idempotent producers: the table of docs/PROTOCOL.md ("Idempotent producers"), row by row.
//!
//! Written from that page, not from the broker's code, so that the client is tested against the rules. Not here: expiry, the bound on producers.

use std::collections::{BTreeMap, VecDeque};

use tramline_wire::batch::{Batches, ProducerMark};
use tramline_wire::error::ErrorCode;

/// Batches that are kept of a producer.
pub(crate) const BATCHES_KEPT: usize = 5;

/// One producer in one partition.
#[derive(Debug, Default)]
struct Known {
    epoch: u16,
    next: u32,
    /// First number, record count, base offset.
    kept: VecDeque<(u32, u32, u64)>,
}

/// All producers of one partition.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    producers: BTreeMap<u64, Known>,
}

/// What becomes of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// Store it.
    Take,
    /// It is stored, at this offset.
    Repeated { base_offset: u64 },
    /// Refuse it.
    Refuse(ErrorCode),
}

impl Marks {
    pub(crate) fn check(&self, mark: ProducerMark, records: u32) -> Check {
        if mark.id == 0 {
            return Check::Take;
        }
        let known = self.producers.get(&mark.id);
        match known.filter(|known| known.epoch >= mark.epoch) {
            None if mark.sequence == 0 => Check::Take,
            None => Check::Refuse(ErrorCode::OutOfSequence),
            Some(known) if known.epoch > mark.epoch => Check::Refuse(ErrorCode::ProducerFenced),
            Some(known) if known.next == mark.sequence => Check::Take,
            Some(known) => {
                let found = known.kept.iter().find(|(sequence, count, _)| (*sequence, *count) == (mark.sequence, records));
                match (found, known.kept.front()) {
                    (Some(&(_, _, base_offset)), _) => Check::Repeated { base_offset },
                    (None, Some(&(oldest, _, _))) if mark.sequence < oldest => Check::Refuse(ErrorCode::DuplicateTooOld),
                    (None, _) => Check::Refuse(ErrorCode::OutOfSequence),
                }
            }
        }
    }

    /// A batch was stored.
    pub(crate) fn take(&mut self, mark: ProducerMark, records: u32, base_offset: u64) {
        if mark.id == 0 {
            return;
        }
        let known = self.producers.entry(mark.id).or_default();
        if known.epoch < mark.epoch {
            *known = Known { epoch: mark.epoch, ..Known::default() };
        }
        known.next = mark.sequence.wrapping_add(records);
        known.kept.push_back((mark.sequence, records, base_offset));
        if known.kept.len() > BATCHES_KEPT {
            known.kept.pop_front();
        }
    }

    /// As a restart finds them: from what is in the log.
    pub(crate) fn of_log(bytes: &[u8]) -> Marks {
        let mut marks = Marks::default();
        for batch in Batches::new(bytes) {
            let batch = batch.expect("a stored batch");
            marks.take(batch.producer(), batch.record_count(), batch.base_offset());
        }
        marks
    }
}
