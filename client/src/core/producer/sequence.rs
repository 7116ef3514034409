//! One partition's numbers of an idempotent producer: marks, epochs, and what answers mean for them. Pure; no batches, no queues.
//!
//! A batch gets its mark (id, epoch, number of its first record) when it first goes into a request, and keeps it until it has a fate or is known not to
//! be stored. The broker takes numbers without holes, so it tells a repeated batch from a new one; docs/PROTOCOL.md ("Idempotent producers") has its
//! side. Invariants of this side:
//!
//! 1. Within an epoch numbers are given without holes, in the order of the batches.
//! 2. A number that was given is never given again in the same epoch, also when its batch was given up: a copy of that one may still be on its way, and
//!    would be stored in the other's place, or make the broker take the other for a repetition and drop it. So giving a batch up, or having it refused
//!    for good, leaves a *gap*, and nothing new is marked before the epoch rose, which shuts all late copies out.
//! 3. The epoch rises only when no batch of the old one is without an answer that counts. A copy is *in doubt* when it got none: its connection was lost
//!    after it was written, or the broker said that it does not know.
//!
//! When is a batch known not to be stored, so that its records may get new numbers? When the broker misses something before it
//! ([`Meaning::Missing`]) although everything before it has its answer: the broker forgot (it lost a tail that was not durable in a crash, or the
//! producer was away for long). Copies of a connection to the process that crashed cannot come any more. Behind a gap that is in doubt this is not
//! enough: the one that was given up may come late, and then a late copy of this one would be taken; there it has to have no copy in doubt itself.
//! What is behind a batch that is not stored is not stored either.
//!
//! Known limit: when all 65,536 epochs of an id were used, the next id does not shut late copies of the last epoch out. Such a copy (its records were
//! told as unknown) could be stored behind records sent after it; it is never stored twice.

use tramline_wire::batch::ProducerMark;
use tramline_wire::error::ErrorCode;

/// What a code says about one copy of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// It is stored: this copy, or one before.
    Stored,
    /// This copy is not stored; the same one sent later may be.
    NotNow,
    /// This copy is not stored, and no other will be.
    Never,
    /// This copy is not stored: one before it is missing.
    Missing,
    /// This copy is not stored: the broker knows a higher epoch of this id.
    Fenced,
    /// It may be stored.
    Unknown,
}

impl Meaning {
    /// What the broker's code for a batch means.
    pub(crate) fn of(code: ErrorCode) -> Meaning {
        match code {
            ErrorCode::Ok | ErrorCode::DuplicateTooOld => Meaning::Stored,
            ErrorCode::Overloaded
            | ErrorCode::NotReady
            | ErrorCode::NotLeader
            | ErrorCode::UnknownPartition
            | ErrorCode::DiskFull
            | ErrorCode::ShuttingDown => Meaning::NotNow,
            ErrorCode::OutOfSequence => Meaning::Missing,
            ErrorCode::ProducerFenced => Meaning::Fenced,
            code if code.may_be_done() => Meaning::Unknown,
            _ => Meaning::Never,
        }
    }
}

/// A batch's mark, and what is known of its copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marked {
    pub mark: ProducerMark,
    /// The partition it was made for: another topic of the same name has others.
    pub uid: u64,
    /// Some copy got no answer that counts.
    pub in_doubt: bool,
    /// What is known of the newest copy.
    pub last: Meaning,
}

/// What to do with the first batch that has a mark and no fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The same bytes again.
    SendAgain,
    /// Neither stored for sure nor not: it ends as unknown.
    GiveUp,
    /// It is not stored, and neither is what is behind it: all get new numbers. `fenced`: and a new id.
    Renumber { fenced: bool },
}

/// Whether a new batch may get its mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Now.
    Ready,
    /// Once what is in flight is answered: the epoch has to rise first.
    AfterAnswers,
    /// Once there is an id.
    NoId,
}

/// Numbers of this epoch that no batch will bring any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gap {
    /// The newest batch that was given up, by its place in the partition's order.
    newest: u64,
    /// Whether a copy of one of them may still come.
    in_doubt: bool,
}

/// See the module's page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sequence {
    /// 0: none yet.
    id: u64,
    epoch: u16,
    /// Number of the next record.
    next: u32,
    gap: Option<Gap>,
}

impl Sequence {
    /// Begins with an id; does nothing when there is one.
    pub(crate) fn name(&mut self, id: u64) {
        if self.id == 0 {
            *self = Sequence { id, ..Sequence::default() };
        }
    }

    /// Whether a new batch may be marked while `in_flight` batches are. Raises the epoch where that is due and allowed; returns whether it did, too.
    pub(crate) fn prepare(&mut self, in_flight: u32) -> (Readiness, bool) {
        let due = self.gap.is_some();
        if due && in_flight > 0 {
            return (Readiness::AfterAnswers, false);
        }
        if due {
            self.raise();
        }
        (if self.id == 0 { Readiness::NoId } else { Readiness::Ready }, due)
    }

    /// The mark of a new batch of so many records. Only after [`prepare`](Self::prepare) said that it may.
    pub(crate) fn mark(&mut self, uid: u64, records: u32) -> Marked {
        assert!(self.id != 0 && self.gap.is_none(), "marked without an id or behind a gap: {self:?}");
        let mark = ProducerMark { id: self.id, epoch: self.epoch, sequence: self.next };
        self.next = self.next.wrapping_add(records);
        Marked { mark, uid, in_doubt: false, last: Meaning::NotNow }
    }

    /// Batch number `place` is stored, so everything before it is.
    pub(crate) fn on_stored(&mut self, marked: &Marked, place: u64) {
        if self.is_of(marked) && self.gap.is_some_and(|gap| gap.newest < place) {
            self.gap = None;
        }
    }

    /// Batch number `place` will not be sent any more.
    pub(crate) fn on_given_up(&mut self, marked: &Marked, place: u64) {
        if self.is_of(marked) {
            let before = self.gap.unwrap_or(Gap { newest: place, in_doubt: false });
            self.gap = Some(Gap { newest: before.newest.max(place), in_doubt: before.in_doubt || marked.in_doubt });
        }
    }

    /// What becomes of the first batch without a fate; nothing of the partition is in flight.
    pub(crate) fn verdict(&self, first: &Marked) -> Verdict {
        match first.last {
            Meaning::Missing if !first.in_doubt || self.gap.is_none_or(|gap| !gap.in_doubt) => Verdict::Renumber { fenced: false },
            // Somebody else has the id (a copy of this process); whatever of it is still on its way is shut out as well.
            Meaning::Fenced if !first.in_doubt => Verdict::Renumber { fenced: true },
            Meaning::Missing | Meaning::Fenced => Verdict::GiveUp,
            Meaning::Stored | Meaning::NotNow | Meaning::Never | Meaning::Unknown => Verdict::SendAgain,
        }
    }

    /// After [`Verdict::Renumber`]: the next epoch, or no id.
    pub(crate) fn renumber(&mut self, fenced: bool) {
        if fenced {
            *self = Sequence::default();
        } else {
            self.raise();
        }
    }

    /// The partition is another one, which knows nothing of this producer.
    pub(crate) fn restart(&mut self) {
        *self = Sequence { id: self.id, ..Sequence::default() };
    }

    /// The id in use; 0: none.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    fn raise(&mut self) {
        *self = match self.epoch.checked_add(1) {
            Some(epoch) => Sequence { id: self.id, epoch, next: 0, gap: None },
            None => Sequence::default(),
        };
    }

    fn is_of(&self, marked: &Marked) -> bool {
        (marked.mark.id, marked.mark.epoch) == (self.id, self.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named() -> Sequence {
        let mut sequence = Sequence::default();
        sequence.name(7);
        sequence
    }

    #[test]
    fn numbers_follow_each_other_and_wrap() {
        let mut sequence = Sequence { next: u32::MAX - 1, ..named() };
        let given: Vec<u32> = [2, 3, 1].map(|records| sequence.mark(1, records).mark.sequence).to_vec();
        assert_eq!(given, [u32::MAX - 1, 0, 3]);
    }

    #[test]
    fn what_codes_mean() {
        let table = [
            (Meaning::Stored, vec!["ok", "duplicate_too_old"]),
            (Meaning::NotNow, vec!["unknown_partition", "not_leader", "not_ready", "overloaded", "disk_full", "shutting_down"]),
            (Meaning::Missing, vec!["out_of_sequence"]),
            (Meaning::Fenced, vec!["producer_fenced"]),
            (Meaning::Unknown, vec!["storage_failed", "timed_out", "leadership_lost", "internal"]),
        ];
        for &code in ErrorCode::ALL {
            let listed = table.iter().find(|(_, names)| names.contains(&code.name()));
            assert_eq!(Meaning::of(code), listed.map_or(Meaning::Never, |(meaning, _)| *meaning), "{code:?}");
        }
    }

    #[test]
    fn verdicts() {
        let none: Option<bool> = None;
        // What the first batch was answered, whether a copy of it is in doubt, the gap before it (in doubt or not): what becomes of it.
        let table = [
            (Meaning::Unknown, true, none, Verdict::SendAgain),
            (Meaning::NotNow, false, none, Verdict::SendAgain),
            (Meaning::NotNow, true, Some(true), Verdict::SendAgain),
            (Meaning::Missing, false, none, Verdict::Renumber { fenced: false }),
            (Meaning::Missing, true, none, Verdict::Renumber { fenced: false }),
            (Meaning::Missing, true, Some(false), Verdict::Renumber { fenced: false }),
            (Meaning::Missing, false, Some(true), Verdict::Renumber { fenced: false }),
            (Meaning::Missing, true, Some(true), Verdict::GiveUp),
            (Meaning::Fenced, false, none, Verdict::Renumber { fenced: true }),
            (Meaning::Fenced, true, none, Verdict::GiveUp),
        ];
        for (last, in_doubt, gap, expected) in table {
            let mut sequence = named();
            let before = sequence.mark(1, 1);
            let first = Marked { in_doubt, last, ..sequence.mark(1, 1) };
            if let Some(in_doubt) = gap {
                sequence.on_given_up(&Marked { in_doubt, ..before }, 0);
            }
            assert_eq!(sequence.verdict(&first), expected, "{last:?} in doubt {in_doubt} gap {gap:?}");
        }
    }

    #[test]
    fn after_giving_up_the_epoch_rises_once_all_is_answered() {
        let mut sequence = named();
        let given_up = sequence.mark(1, 4);
        sequence.on_given_up(&given_up, 0);
        assert_eq!(sequence.prepare(1), (Readiness::AfterAnswers, false));
        assert_eq!(sequence.prepare(0), (Readiness::Ready, true));
        assert_eq!(sequence.mark(1, 1).mark, ProducerMark { id: 7, epoch: 1, sequence: 0 });
        // A late word about the old epoch changes nothing.
        sequence.on_given_up(&given_up, 9);
        assert_eq!(sequence.prepare(3), (Readiness::Ready, false));
    }

    #[test]
    fn a_gap_closes_when_something_behind_it_turns_out_to_be_stored() {
        let mut sequence = named();
        let marks = [0, 1, 2].map(|_| sequence.mark(1, 1));
        sequence.on_given_up(&marks[1], 1);
        sequence.on_stored(&marks[0], 0);
        assert_eq!(sequence.prepare(1).0, Readiness::AfterAnswers, "what is before it says nothing");
        sequence.on_stored(&marks[2], 2);
        assert_eq!(sequence.prepare(1), (Readiness::Ready, false));
        assert_eq!(sequence.mark(1, 1).mark, ProducerMark { id: 7, epoch: 0, sequence: 3 });
    }

    #[test]
    fn after_the_last_epoch_and_when_fenced_a_new_id_is_needed() {
        let mut sequence = Sequence { epoch: u16::MAX, ..named() };
        let marked = sequence.mark(1, 1);
        sequence.on_given_up(&marked, 0);
        assert_eq!(sequence.prepare(0), (Readiness::NoId, true));
        sequence.name(8);
        assert_eq!(sequence.mark(1, 1).mark, ProducerMark { id: 8, epoch: 0, sequence: 0 });
        sequence.renumber(true);
        assert_eq!(sequence.prepare(0), (Readiness::NoId, false));
    }

    #[test]
    fn another_partition_begins_anew_with_the_same_id() {
        let mut sequence = named();
        let marked = sequence.mark(1, 5);
        sequence.on_given_up(&marked, 0);
        sequence.restart();
        assert_eq!(sequence.prepare(0), (Readiness::Ready, false));
        assert_eq!(sequence.mark(2, 1).mark, ProducerMark { id: 7, epoch: 0, sequence: 0 });
    }
}
