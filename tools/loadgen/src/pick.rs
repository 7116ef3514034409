//! What the next record of a writer is: its stream (a partition or a key), its size, its line of the file of real records.
//!
//! Invariants: everything that is random comes from the writer's seed, so a run can be repeated; partitions are changed when a batch is
//! full or a burst is over, not with every record, since a batch holds records of one partition.
//! Not here: when it is due (`arrivals.rs`), its number in its stream (`flow.rs`), its bytes (`payload.rs`, `lines.rs`).

use crate::lines::Lines;
use crate::random::Random;
use crate::zipf::Zipf;
use std::sync::Arc;

/// How records are spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spread {
    /// So many partitions in turn, a run of records on each.
    Partitions(u32),
    /// So many keys; the client's partitioner chooses the partition.
    Keys(u32, Choice),
    /// Each record has the key of its line, of which there are so many.
    Lines(u32),
}

/// Which key is next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice {
    /// One after the other.
    Turn,
    /// Each as likely as any other.
    Uniform,
    /// Key k (from 0) with a probability proportional to 1 / (k + 1)^s.
    Zipf(f64),
}

impl Spread {
    /// Number of streams.
    pub fn streams(self) -> u32 {
        match self {
            Spread::Partitions(count) | Spread::Keys(count, _) | Spread::Lines(count) => count,
        }
    }
}

/// What stands in the values.
#[derive(Clone, Debug)]
pub enum Values {
    /// A size of this range, both ends included and each as likely; a fixed size where they are equal.
    Sizes(u32, u32),
    /// The lines of a file in turn.
    Lines(Arc<Lines>),
}

/// The next record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Number of the key, or index of the partition.
    pub stream: u32,
    /// Bytes of the value.
    pub size: u32,
    /// Line of the file; zero without one.
    pub line: u32,
}

/// See the module's page.
pub struct Picker {
    spread: Spread,
    zipf: Option<Zipf>,
    values: Values,
    random: Random,
    /// Records of one run on one partition: what fills a batch.
    run_records: u64,
    /// Records left of the present run.
    run_left: u64,
    /// The stream of the next record, where they come in turn.
    turn: u32,
    /// The next line.
    line: u32,
}

impl Picker {
    /// Of writer number `writer` (from 0) of `writers`: each begins at another stream and another part of the file.
    pub fn new(spread: Spread, values: Values, run_records: u64, writer: u64, writers: u64, seed: u64) -> Picker {
        assert!(spread.streams() > 0 && run_records > 0, "checked when the options were read");
        let zipf = match spread {
            Spread::Keys(count, Choice::Zipf(exponent)) => Some(Zipf::new(u64::from(count), exponent)),
            _ => None,
        };
        let turn = (writer % u64::from(spread.streams())) as u32;
        let line = match &values {
            Values::Sizes(..) => 0,
            Values::Lines(lines) => (u64::from(lines.count()) * writer / writers) as u32,
        };
        let random = Random::salted(seed, writer);
        Picker { spread, zipf, values, random, run_records, run_left: run_records, turn, line }
    }

    /// Number of streams.
    pub fn streams(&self) -> u32 {
        self.spread.streams()
    }

    /// Records of one run on one partition.
    pub fn run_records(&self) -> u64 {
        self.run_records
    }

    /// The next record.
    #[inline]
    pub fn next(&mut self) -> Pick {
        let (size, line) = match &self.values {
            Values::Sizes(least, most) if least == most => (*least, 0),
            Values::Sizes(least, most) => (least + self.random.below(u64::from(most - least) + 1) as u32, 0),
            Values::Lines(lines) => {
                let line = self.line;
                self.line = if line + 1 == lines.count() { 0 } else { line + 1 };
                (lines.value_bytes(line), line)
            }
        };
        let stream = match self.spread {
            Spread::Partitions(_) => {
                let stream = self.turn;
                self.run_left -= 1;
                if self.run_left == 0 {
                    self.turn_on();
                }
                stream
            }
            Spread::Keys(count, Choice::Uniform) => self.random.below(u64::from(count)) as u32,
            Spread::Keys(_, _) => match &self.zipf {
                Some(zipf) => (zipf.draw(&mut self.random) - 1) as u32,
                None => {
                    let stream = self.turn;
                    self.turn_on();
                    stream
                }
            },
            Spread::Lines(_) => match &self.values {
                Values::Lines(lines) => lines.key_of(line),
                Values::Sizes(..) => 0,
            },
        };
        Pick { stream, size, line }
    }

    /// A burst is over and goes out as it is: the next one begins on another partition. Without this, a rate of less than one
    /// batch per answer would stay on one partition for long.
    pub fn end_burst(&mut self) {
        if matches!(self.spread, Spread::Partitions(_)) && self.run_left < self.run_records {
            self.turn_on();
        }
    }

    fn turn_on(&mut self) {
        self.turn = if self.turn + 1 >= self.spread.streams() { 0 } else { self.turn + 1 };
        self.run_left = self.run_records;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXED: Values = Values::Sizes(100, 100);

    fn streams(spread: Spread, run_records: u64, writer: u64, count: usize) -> Vec<u32> {
        let mut picker = Picker::new(spread, FIXED, run_records, writer, 4, 7);
        (0..count).map(|_| picker.next().stream).collect()
    }

    #[test]
    fn partitions_come_in_runs_of_a_batch_and_keys_one_by_one() {
        assert_eq!(streams(Spread::Partitions(3), 2, 0, 7), [0, 0, 1, 1, 2, 2, 0]);
        assert_eq!(streams(Spread::Keys(3, Choice::Turn), 2, 0, 7), [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(streams(Spread::Keys(3, Choice::Turn), 2, 2, 3), [2, 0, 1], "writers begin apart");
        assert_eq!(streams(Spread::Partitions(3), 2, 4, 3), [1, 1, 2]);
    }

    #[test]
    fn the_end_of_a_burst_ends_a_run() {
        let mut picker = Picker::new(Spread::Partitions(3), FIXED, 2, 0, 1, 7);
        picker.end_burst();
        assert_eq!(picker.next().stream, 0, "nothing was sent, so there is nothing to end");
        picker.end_burst();
        assert_eq!([picker.next().stream, picker.next().stream, picker.next().stream], [1, 1, 2]);
        let mut keyed = Picker::new(Spread::Keys(3, Choice::Turn), FIXED, 2, 0, 1, 7);
        keyed.next();
        keyed.end_burst();
        assert_eq!(keyed.next().stream, 1, "keys have no runs");
    }

    #[test]
    fn chosen_keys_follow_their_distribution() {
        let count = |drawn: &[u32], key| drawn.iter().filter(|&&stream| stream == key).count();
        let uniform = streams(Spread::Keys(4, Choice::Uniform), 1, 0, 40_000);
        assert!((0..4).all(|key| (9_600..10_400).contains(&count(&uniform, key))), "{:?}", count(&uniform, 0));
        // 1 / (1 + 1/2 + 1/3 + 1/4) = 0.48.
        let zipf = streams(Spread::Keys(4, Choice::Zipf(1.0)), 1, 0, 40_000);
        assert!((18_800..19_600).contains(&count(&zipf, 0)) && (4_500..5_100).contains(&count(&zipf, 3)), "{}", count(&zipf, 0));
        assert_eq!(zipf, streams(Spread::Keys(4, Choice::Zipf(1.0)), 1, 0, 40_000), "the same seed, the same keys");
        assert_ne!(zipf, streams(Spread::Keys(4, Choice::Zipf(1.0)), 1, 1, 40_000), "each writer draws for itself");
    }

    #[test]
    fn sizes_fill_their_range_evenly() {
        let mut picker = Picker::new(Spread::Partitions(1), Values::Sizes(100, 199), 1, 0, 1, 7);
        let sizes: Vec<u32> = (0..50_000).map(|_| picker.next().size).collect();
        assert!(sizes.iter().all(|size| (100..=199).contains(size)) && sizes.contains(&100) && sizes.contains(&199));
        let mean = sizes.iter().map(|&size| f64::from(size)).sum::<f64>() / sizes.len() as f64;
        assert!((mean - 149.5).abs() < 0.7, "{mean}");
    }

    #[test]
    fn lines_go_round_and_bring_their_keys() {
        let lines = Arc::new(Lines::new(b"a,x\nbb,y\nc,x\n".to_vec(), Some(2)).unwrap());
        let mut picker = Picker::new(Spread::Lines(2), Values::Lines(lines), 1, 1, 3, 7);
        let picks: Vec<(u32, u32, u32)> = (0..4).map(|_| picker.next()).map(|pick| (pick.line, pick.stream, pick.size)).collect();
        assert_eq!(picks, [(1, 1, 52), (2, 0, 51), (0, 0, 51), (1, 1, 52)]);
    }
}
