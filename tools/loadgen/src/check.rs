//! Loss, duplicates, reorder and change, found from the sequence numbers of each stream.
//!
//! What a stream (a partition without keys, a key otherwise) of one run must look like: 0, 1, 2, ... in this order. A number
//! that is skipped is missing; when it comes later it was reordered; a number that was there before is a duplicate.
//! Invariants: memory grows with streams and with open gaps, not with records; a record is counted once, under the first
//! thing found; what the writing side knows to have failed is no loss (`excuse`), because its absence was announced.
//! Not here: reading the stamp (`payload.rs`).

use crate::payload::{Stamp, Unreadable};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

/// What was found, in records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Records with a good stamp, duplicates included.
    pub received: u64,
    /// Missing between or before others that came (and, once `expect_end` was called, at the end).
    pub lost: u64,
    /// Seen more than once.
    pub duplicates: u64,
    /// Came after a later one of their stream.
    pub reordered: u64,
    /// Damaged, or in a partition other than the stamp's.
    pub changed: u64,
    /// Not written by a load generator, or by another run where one run was expected.
    pub foreign: u64,
}

impl Found {
    /// Whether all that was read is what was written.
    pub fn good(&self) -> bool {
        self.lost + self.duplicates + self.reordered + self.changed == 0
    }
}

impl std::ops::Add for Found {
    type Output = Found;

    fn add(self, other: Found) -> Found {
        Found {
            received: self.received + other.received,
            lost: self.lost + other.lost,
            duplicates: self.duplicates + other.duplicates,
            reordered: self.reordered + other.reordered,
            changed: self.changed + other.changed,
            foreign: self.foreign + other.foreign,
        }
    }
}

#[derive(Debug, Default)]
struct Stream {
    /// The number expected next: all below were seen or are in `gaps`.
    next: u64,
    /// All numbers below were written, as far as the writing side has told; zero before it did.
    end: u64,
    /// Skipped numbers as half-open ranges, first -> end.
    gaps: BTreeMap<u64, u64>,
    /// Numbers that need not come and have not come; none of them is in a gap.
    excused: BTreeSet<u64>,
}

/// The check of one reader.
pub struct Checker {
    /// Only these runs count (one per producer); others are foreign. None: every run is followed for itself.
    runs: Option<Range<u64>>,
    /// Whether a stream must begin with 0. Otherwise the first number seen is the beginning.
    from_zero: bool,
    streams: HashMap<(u64, bool, u32), Stream>,
    found: Found,
}

impl Checker {
    /// Checks certain runs (`both`) or whatever comes (`consume`).
    pub fn new(runs: Option<Range<u64>>, from_zero: bool) -> Checker {
        Checker { runs, from_zero, streams: HashMap::new(), found: Found::default() }
    }

    /// Takes a record; true when it is one of those that are looked for, so that its latency counts.
    pub fn take(&mut self, partition: u32, read: Result<Stamp, Unreadable>) -> bool {
        let stamp = match read {
            Ok(stamp) => stamp,
            Err(Unreadable::Changed) => {
                self.found.changed += 1;
                return false;
            }
            Err(Unreadable::Foreign) => {
                self.found.foreign += 1;
                return false;
            }
        };
        if self.runs.as_ref().is_some_and(|runs| !runs.contains(&stamp.run)) {
            self.found.foreign += 1;
            return false;
        }
        self.found.received += 1;
        if !stamp.keyed && stamp.stream != partition {
            self.found.changed += 1;
            return false;
        }
        let from_zero = self.from_zero;
        let stream = self
            .streams
            .entry((stamp.run, stamp.keyed, stamp.stream))
            .or_insert_with(|| Stream { next: if from_zero { 0 } else { stamp.sequence }, ..Stream::default() });
        let sequence = stamp.sequence;
        if sequence >= stream.next {
            self.found.lost += stream.skip_to(sequence);
            if sequence < stream.end && !stream.excused.remove(&sequence) {
                self.found.lost -= 1; // counted by `expect_end`, and here it is
            }
            stream.next = sequence + 1;
            return true;
        }
        if stream.remove_gap(sequence) {
            self.found.lost -= 1;
            self.found.reordered += 1;
            return true;
        }
        if stream.excused.remove(&sequence) {
            self.found.reordered += 1;
            return true;
        }
        self.found.duplicates += 1;
        false
    }

    /// Tells how many records the run wrote into a stream, numbers from 0: what is missing up to there is lost until it comes.
    pub fn expect_end(&mut self, run: u64, keyed: bool, stream: u32, end: u64) {
        let stream = self.streams.entry((run, keyed, stream)).or_default();
        self.found.lost += end.saturating_sub(stream.next.max(stream.end));
        stream.end = stream.end.max(end);
    }

    /// Tells that a number need not come, because its writing failed or its outcome is unknown. After `expect_end`.
    pub fn excuse(&mut self, run: u64, keyed: bool, stream: u32, sequence: u64) {
        let Some(stream) = self.streams.get_mut(&(run, keyed, stream)) else { return };
        let missing = stream.remove_gap(sequence) || (stream.next..stream.end).contains(&sequence);
        if missing && stream.excused.insert(sequence) {
            self.found.lost -= 1;
        }
    }

    /// What was found until now.
    pub fn found(&self) -> Found {
        self.found
    }
}

impl Stream {
    /// Opens a gap from the next number up to `sequence`; returns how many of them nobody counted as missing before.
    fn skip_to(&mut self, sequence: u64) -> u64 {
        if sequence > self.next {
            self.gaps.insert(self.next, sequence);
            let excused: Vec<u64> = self.excused.range(self.next..sequence).copied().collect();
            for number in excused {
                self.remove_gap(number);
            }
        }
        sequence.saturating_sub(self.next.max(self.end))
    }

    /// Takes a number out of the gaps; false when it is in none.
    fn remove_gap(&mut self, sequence: u64) -> bool {
        let Some((&first, &end)) = self.gaps.range(..=sequence).next_back() else { return false };
        if sequence >= end {
            return false;
        }
        self.gaps.remove(&first);
        if first < sequence {
            self.gaps.insert(first, sequence);
        }
        if sequence + 1 < end {
            self.gaps.insert(sequence + 1, end);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(stream: u32, sequence: u64) -> Result<Stamp, Unreadable> {
        Ok(Stamp { stream, keyed: false, run: 1, sequence, intended_utc_ns: 0 })
    }

    fn found(sequences: &[u64]) -> Found {
        let mut checker = Checker::new(Some(1..2), true);
        for &sequence in sequences {
            checker.take(0, stamp(0, sequence));
        }
        checker.found()
    }

    #[test]
    fn a_good_stream_has_no_findings() {
        let found = found(&[0, 1, 2, 3]);
        assert!(found.good());
        assert_eq!(found.received, 4);
    }

    #[test]
    fn each_kind_of_fault_is_counted_once_as_what_it_is() {
        for (sequences, lost, duplicates, reordered) in [
            (&[0, 2, 3][..], 1, 0, 0),
            (&[3], 3, 0, 0),
            (&[0, 1, 1, 2], 0, 1, 0),
            (&[0, 2, 1, 3], 0, 0, 1),
            (&[0, 5, 2, 2, 3, 6], 2, 1, 2),
            (&[2, 1, 0, 0], 0, 1, 2),
        ] {
            let found = found(sequences);
            assert_eq!((found.lost, found.duplicates, found.reordered), (lost, duplicates, reordered), "{sequences:?}");
            assert!(!found.good());
        }
    }

    #[test]
    fn streams_and_runs_are_followed_apart() {
        let mut checker = Checker::new(None, true);
        checker.take(0, stamp(0, 0));
        checker.take(1, stamp(1, 0));
        for run in [2, 3] {
            for keyed in [false, true] {
                assert!(checker.take(0, Ok(Stamp { stream: 0, keyed, run, sequence: 0, intended_utc_ns: 0 })));
            }
        }
        assert!(checker.found().good());
        assert_eq!(checker.found().received, 6);
    }

    #[test]
    fn other_runs_and_other_writers_are_foreign_where_one_run_is_expected() {
        let mut checker = Checker::new(Some(8..10), true);
        assert!(!checker.take(0, stamp(0, 0)));
        assert!(!checker.take(0, Err(Unreadable::Foreign)));
        assert_eq!(checker.found(), Found { foreign: 2, ..Found::default() });
        assert!(checker.found().good());
    }

    #[test]
    fn damage_and_the_wrong_partition_are_changes() {
        let mut checker = Checker::new(Some(1..2), true);
        checker.take(0, Err(Unreadable::Changed));
        checker.take(1, stamp(0, 0));
        assert_eq!(checker.found().changed, 2);
    }

    #[test]
    fn reading_from_the_middle_takes_the_first_number_as_the_beginning() {
        let mut checker = Checker::new(None, false);
        for sequence in [50, 51, 53] {
            checker.take(0, stamp(0, sequence));
        }
        assert_eq!(checker.found().lost, 1);
    }

    #[test]
    fn the_end_is_known_from_the_writing_side_and_failed_records_are_excused() {
        let mut checker = Checker::new(Some(1..2), true);
        for sequence in [0, 1, 3] {
            checker.take(0, stamp(0, sequence));
        }
        checker.expect_end(1, false, 0, 6);
        checker.expect_end(1, false, 1, 2);
        assert_eq!(checker.found().lost, 3 + 2);
        checker.excuse(1, false, 0, 2);
        checker.excuse(1, false, 0, 3); // arrived although it was reported as failed: nothing to excuse
        checker.excuse(1, false, 1, 1);
        assert_eq!(checker.found().lost, 3);
    }

    #[test]
    fn what_comes_after_the_writers_end_is_in_order_all_the_same() {
        let mut checker = Checker::new(Some(1..2), true);
        checker.take(0, stamp(0, 0));
        checker.expect_end(1, false, 0, 8);
        for sequence in [3, 5, 6] {
            checker.excuse(1, false, 0, sequence);
        }
        assert_eq!(checker.found().lost, 4);
        for sequence in [1, 2, 3, 4, 7] {
            assert!(checker.take(0, stamp(0, sequence)));
        }
        assert!(checker.found().good(), "{:?}", checker.found());
        checker.take(0, stamp(0, 6)); // outcome unknown, and written behind a later one
        assert_eq!((checker.found().reordered, checker.found().duplicates, checker.found().lost), (1, 0, 0));
    }

    #[test]
    fn a_gap_after_the_writers_end_is_counted_once() {
        let mut checker = Checker::new(Some(1..2), true);
        checker.expect_end(1, false, 0, 4);
        checker.take(0, stamp(0, 2));
        assert_eq!(checker.found().lost, 3);
        checker.take(0, stamp(0, 6)); // more than the writer knew of
        assert_eq!(checker.found().lost, 2 + 1 + 2);
    }

    #[test]
    fn random_orders_agree_with_a_naive_model() {
        let mut state = 7u64;
        let mut draw = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for _ in 0..200 {
            let sequences: Vec<u64> = (0..60).map(|_| draw(40)).collect();
            let (mut seen, mut highest, mut duplicates, mut reordered) = (std::collections::BTreeSet::new(), None, 0, 0);
            for &sequence in &sequences {
                if !seen.insert(sequence) {
                    duplicates += 1;
                } else if highest.is_some_and(|highest| sequence < highest) {
                    reordered += 1;
                }
                highest = highest.max(Some(sequence));
            }
            let lost = highest.map_or(0, |highest| highest + 1) - seen.len() as u64;
            let found = found(&sequences);
            assert_eq!((found.lost, found.duplicates, found.reordered), (lost, duplicates, reordered), "{sequences:?}");
        }
    }
}
