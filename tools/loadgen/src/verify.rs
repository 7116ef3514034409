//! `produce` reads back what it wrote: nothing lost, doubled, out of order or changed.
//!
//! The ends of all partitions are noted before the first record and after the last answer; what stands between is read and checked as
//! `both` does it, only later. A weak level's answer comes before the record is committed, and an end is that of what is committed: while
//! something is missing, the ends are asked again, until nothing new came for the time-out.
//! Invariants: records of others in the topic are passed over; what failed or never got an answer may be missing; the time of reading
//! back is in no result. Where retention took records away meanwhile, nothing can be said, and that is said.
//! Not here: the check (`check.rs`).

use crate::check::{Checker, Found};
use crate::crew::Done;
use crate::interrupt::{Interrupt, Signal};
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
/// Pause before the ends are asked again: a commit takes a disk's flush, some 0.1 to 10 ms.
const PAUSE: Duration = Duration::from_millis(5);
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
pub fn read_back(client: &Client, wanted: &Wanted<'_>, done: &[Arc<Done>], interrupt: &Interrupt) -> Result<Found, Unverified> {
    refuse_dropped(client, wanted)?;
    let mut checker = checker(wanted, done);
    let ends = || refuse_interrupted(interrupt).and_then(|()| ends(client, wanted.topic).map_err(Unverified::Failed));
    follow(wanted, &mut checker, ends, |parts, checker| {
        if !wanted.quiet {
            let records: u64 = parts.iter().map(|(_, from, to)| to - from).sum();
            say(format_args!("reading back {records} records of {} partitions to check them", parts.len()));
        }
        for some in parts.chunks(PARTITIONS_MAX) {
            if !read_some(client, wanted, some, checker, interrupt)? {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    Ok(checker.found())
}

/// Reads to the ends, and to where they moved meanwhile, until nothing is missing or nothing new came for the time-out. `read` reads parts
/// (partition, from, to) and says whether it came to their ends.
fn follow(
    wanted: &Wanted<'_>,
    checker: &mut Checker,
    mut ends: impl FnMut() -> Result<Vec<u64>, Unverified>,
    mut read: impl FnMut(&[(u32, u64, u64)], &mut Checker) -> Result<bool, Unverified>,
) -> Result<(), Unverified> {
    let mut reached = wanted.before.to_vec();
    let mut last_new = Instant::now();
    loop {
        let now_at = ends()?;
        let between = (0..).zip(reached.iter().zip(&now_at)).map(|(partition, (from, to))| (partition, *from, *to));
        let parts: Vec<(u32, u64, u64)> = between.filter(|part| part.1 < part.2).collect();
        if parts.is_empty() {
            // Asked once more than needed, so that a duplicate behind the last record is seen, too.
            if checker.found().lost == 0 || last_new.elapsed() >= wanted.timeout {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
            continue;
        }
        if !read(&parts, checker)? {
            return Ok(());
        }
        for (partition, _, to) in parts {
            reached[partition as usize] = to;
        }
        last_new = Instant::now();
    }
}

/// A check that knows all that was written.
fn checker(wanted: &Wanted<'_>, done: &[Arc<Done>]) -> Checker {
    let mut checker = Checker::new(Some(wanted.runs.clone()), true);
    for done in done {
        expect(&mut checker, wanted.keyed, done);
    }
    checker
}

fn refuse_interrupted(interrupt: &Interrupt) -> Result<(), Unverified> {
    let ended = |signal: Signal| Unverified::Failed(format!("ended by {} before all was read", signal.name()));
    interrupt.signal().map_or(Ok(()), |signal| Err(ended(signal)))
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

/// False when nothing came for the time-out, and the rest is lost.
fn read_some(
    client: &Client,
    wanted: &Wanted<'_>,
    parts: &[(u32, u64, u64)],
    checker: &mut Checker,
    interrupt: &Interrupt,
) -> Result<bool, Unverified> {
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
        refuse_interrupted(interrupt)?;
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
            return Ok(false);
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
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{Maker, Stamp};
    use crate::write::Written;

    const WANTED: Wanted<'_> =
        Wanted { topic: "t", before: &[10], runs: 100..102, keyed: false, timeout: Duration::from_millis(20), quiet: true };

    /// A check that knows of two writers, who wrote 4 and 2 records into partition 0, of which one failed.
    fn check() -> Checker {
        let written = vec![
            Written { run: 100, streams: vec![(0, 4)], excused: vec![(0, 2)], unsent: 0 },
            Written { run: 101, streams: vec![(0, 2)], ..Written::default() },
        ];
        checker(&WANTED, &[Arc::new(Done { written, ..Done::default() })])
    }

    /// What is found when these values come back.
    fn found(values: &[Vec<u8>]) -> Found {
        let mut checker = check();
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

    /// What is found, and what was read, when the ends move like this from question to question, the last one staying, and these values
    /// lie in the partition.
    fn followed(ends: &[u64], values: &[Vec<u8>]) -> (Found, Vec<(u64, u64)>) {
        let (mut checker, mut ends, mut reads) = (check(), ends.iter().copied(), Vec::new());
        let mut last = 0;
        let ask = || {
            last = ends.next().unwrap_or(last);
            Ok(vec![last])
        };
        let read = |parts: &[(u32, u64, u64)], checker: &mut Checker| {
            let &[(0, from, to)] = parts else { panic!("one partition: {parts:?}") };
            reads.push((from, to));
            for value in &values[from as usize - 10..to as usize - 10] {
                checker.take(0, payload::read(value));
            }
            Ok(true)
        };
        follow(&WANTED, &mut checker, ask, read).unwrap();
        (checker.found(), reads)
    }

    #[test]
    fn what_is_committed_after_its_answer_is_waited_for() {
        let (found, reads) = followed(&[10, 12, 12, 12, 15], &all());
        assert!(found.good() && found.received == 5, "{found:?}");
        assert_eq!(reads, [(10, 12), (12, 15)], "nothing is read twice");
    }

    #[test]
    fn what_never_comes_is_lost_and_what_comes_behind_is_seen() {
        assert_eq!(followed(&[10, 13], &all()).0.lost, 2, "after the time-out");
        let mut values = all();
        values.push(value(100, 3));
        assert_eq!(followed(&[15, 16], &values).0.duplicates, 1, "a copy that was committed while the rest was read");
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
