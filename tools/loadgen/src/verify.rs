//! `produce` reads back what it wrote: nothing lost, doubled, out of order or changed.
//!
//! The ends of all partitions are noted before the first record and after the last answer; what stands between is read and checked as
//! `both` does it, only later. Invariants: records of others in the topic are passed over; what failed or never got an answer may be missing;
//! the time of reading back is in no result. Where retention took records away meanwhile, nothing can be said, and that is said.
//! Not here: the check (`check.rs`).

use crate::check::{Checker, Found};
use crate::crew::Done;
use crate::payload;
use crate::read::expect;
use crate::tell::say;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tramline_client::{At, Client, ConsumerConfig, Start};

/// Partitions that one consumer reads: the broker's default limit (`entries.max`), in case all are of one shard.
const PARTITIONS_MAX: usize = 4096;
/// Ahead of what was consumed, per connection: 8 MiB keep a disk busy.
const CREDIT_BYTES: u32 = 8 << 20;
/// Longest wait in a poll.
const POLL_MAX: Duration = Duration::from_millis(10);

/// Why there is no result.
#[derive(Debug)]
pub enum Unverified {
    /// Records may be gone by right.
    Dropped(String),
    /// They could not be read.
    Failed(String),
}

/// What to look for.
pub struct Wanted<'a> {
    /// Topic.
    pub topic: &'a str,
    /// End of each partition before the first record, in order of partition.
    pub before: &'a [u64],
    /// Runs of the writers.
    pub runs: Range<u64>,
    /// Whether their streams are keys.
    pub keyed: bool,
    /// Without a record for so long, the rest is lost.
    pub timeout: Duration,
    /// Says on standard error what takes so long.
    pub quiet: bool,
}

/// The ends of all partitions, in order of partition.
pub fn ends(client: &Client, topic: &str) -> Result<Vec<u64>, String> {
    let ends = client.end_offsets(topic);
    ends.map(|ends| ends.into_iter().map(|end| end.offset).collect())
        .map_err(|error| format!("the topic's ends cannot be asked, so nothing could be read back (--no-verify does without): {error}"))
}

/// Reads back and checks.
pub fn read_back(client: &Client, wanted: &Wanted<'_>, done: &[Arc<Done>]) -> Result<Found, Unverified> {
    let after = ends(client, wanted.topic).map_err(Unverified::Failed)?;
    refuse_dropped(client, wanted)?;
    let mut checker = checker(wanted, done);
    let parts: Vec<(u32, u64, u64)> = (0..)
        .zip(wanted.before.iter().zip(&after))
        .map(|(partition, (from, to))| (partition, *from, *to))
        .filter(|part| part.1 < part.2)
        .collect();
    if !wanted.quiet {
        let records: u64 = parts.iter().map(|(_, from, to)| to - from).sum();
        say(format_args!("reading back {records} records of {} partitions to check them", parts.len()));
    }
    for some in parts.chunks(PARTITIONS_MAX) {
        read_some(client, wanted, some, &mut checker)?;
    }
    Ok(checker.found())
}

/// A check that knows all that was written.
fn checker(wanted: &Wanted<'_>, done: &[Arc<Done>]) -> Checker {
    let mut checker = Checker::new(Some(wanted.runs.clone()), true);
    for done in done {
        expect(&mut checker, wanted.keyed, done);
    }
    checker
}

fn refuse_dropped(client: &Client, wanted: &Wanted<'_>) -> Result<(), Unverified> {
    let asked: Vec<(u32, At)> = (0..wanted.before.len() as u32).map(|partition| (partition, At::Earliest)).collect();
    let earliest = client.list_offsets(wanted.topic, &asked).map_err(|error| Unverified::Failed(error.to_string()))?;
    let dropped = wanted.before.iter().zip(&earliest).find(|(before, first)| first.offset > **before);
    match dropped {
        None => Ok(()),
        Some((_, first)) => Err(Unverified::Dropped(format!(
            "not read back: retention took records of this run away (partition {} begins at {})",
            first.partition, first.offset
        ))),
    }
}

fn read_some(client: &Client, wanted: &Wanted<'_>, parts: &[(u32, u64, u64)], checker: &mut Checker) -> Result<(), Unverified> {
    let failed = |error: tramline_client::Error| Unverified::Failed(error.to_string());
    let config = ConsumerConfig { credit_bytes: CREDIT_BYTES, ..ConsumerConfig::default() };
    let mut consumer = client.consumer(config).map_err(failed)?;
    // Partitions that begin at the same offset, as those of a new topic do, cost one request together.
    let mut by_start: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    for &(partition, from, _) in parts {
        by_start.entry(from).or_default().push(partition);
    }
    for (from, partitions) in by_start {
        consumer.assign_many(wanted.topic, &partitions, Start::Offset(from)).map_err(failed)?;
    }
    let mut left = parts.to_vec();
    let mut last_new = Instant::now();
    let mut polls = 0u32;
    while !left.is_empty() {
        let count = consumer
            .poll(POLL_MAX, |view| {
                let end = parts.binary_search_by_key(&view.partition, |part| part.0).map_or(0, |place| parts[place].2);
                if view.offset < end {
                    checker.take(view.partition, payload::read(view.value.unwrap_or_default()));
                }
            })
            .map_err(failed)?;
        if count > 0 {
            last_new = Instant::now();
        } else if last_new.elapsed() >= wanted.timeout {
            return Ok(());
        }
        polls += 1;
        // Some 50 ns for each partition: not after every poll while there is much to read.
        if count > 0 && !polls.is_multiple_of(16) {
            continue;
        }
        left.retain(|&(partition, _, end)| {
            let read = consumer.position(wanted.topic, partition).is_none_or(|position| position >= end);
            if read {
                consumer.unassign(wanted.topic, partition);
            }
            !read
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{Maker, Stamp};
    use crate::write::Written;

    /// What is found when two writers wrote 4 and 2 records into partition 0, of which one failed, and these values come back.
    fn found(values: &[Vec<u8>]) -> Found {
        let wanted = Wanted { topic: "t", before: &[0], runs: 100..102, keyed: false, timeout: Duration::ZERO, quiet: true };
        let written = vec![
            Written { run: 100, streams: vec![(0, 4)], excused: vec![(0, 2)], unsent: 0 },
            Written { run: 101, streams: vec![(0, 2)], ..Written::default() },
        ];
        let mut checker = checker(&wanted, &[Arc::new(Done { written, ..Done::default() })]);
        for value in values {
            checker.take(0, payload::read(value));
        }
        checker.found()
    }

    fn value(run: u64, sequence: u64) -> Vec<u8> {
        Maker::new(100..=100, 0.5, 1000, run).make(&Stamp { stream: 0, keyed: false, run, sequence, intended_utc_ns: 5 }, 100).to_vec()
    }

    fn all() -> Vec<Vec<u8>> {
        [(100, 0), (101, 0), (100, 1), (100, 3), (101, 1)].map(|(run, sequence)| value(run, sequence)).to_vec()
    }

    #[test]
    fn what_was_acknowledged_and_comes_back_is_good() {
        assert!(found(&all()).good());
        let mut with_failed = all();
        with_failed.insert(3, value(100, 2));
        with_failed.push(value(7, 0));
        let found = found(&with_failed);
        assert!(
            found.good() && found.received == 6 && found.foreign == 1,
            "one whose answer was lost may be there; others are passed over: {found:?}"
        );
    }

    #[test]
    fn loss_duplicates_reorder_and_change_are_found() {
        let without = |place: usize| {
            let mut values = all();
            values.remove(place);
            values
        };
        assert_eq!((found(&without(2)).lost, found(&without(4)).lost, found(&[]).lost), (1, 1, 5), "the last one of a writer too");
        let mut values = all();
        values.push(value(100, 3));
        assert_eq!(found(&values), Found { received: 6, duplicates: 1, ..Found::default() });
        let mut values = all();
        values.swap(0, 2);
        assert_eq!(found(&values), Found { received: 5, reordered: 1, ..Found::default() });
        let mut values = all();
        values[3][70] ^= 1;
        assert_eq!(found(&values), Found { received: 4, changed: 1, lost: 1, ..Found::default() });
    }
}
