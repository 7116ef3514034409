//! When the records of one writer are due in the open loop: at a constant rate, as a Poisson process, or in bursts.
//!
//! Invariants: what is due depends on nothing that a server does; together the writers have the asked rate. A constant rate is one
//! schedule that they share; bursts of one writer come between those of the others; a Poisson process each writer has for itself, drawn
//! from its own seed (the sum of such processes is one of the whole rate). Times are nanoseconds since the run began.
//! Not here: clocks, and which record it is that becomes due.

use crate::random::Random;
use crate::schedule::{SECOND_NS, Schedule};
use std::collections::VecDeque;

/// How the records of an open loop arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// In equal distances.
    Constant,
    /// At random and independent of each other.
    Poisson,
    /// So many at once, in equal distances.
    Bursts(u64),
}

/// Drawn times that are kept ahead, at most: as many as a turn of a writer sends. What is due beyond is drawn when those are sent,
/// so a backlog needs no memory.
pub const AHEAD_MAX: usize = 64;

/// See the module's page.
pub struct Arrivals {
    source: Source,
    /// Records taken.
    taken: u64,
}

enum Source {
    Even(Schedule),
    Bursts { schedule: Schedule, burst: u64 },
    Poisson(Poisson),
}

impl Arrivals {
    /// Of writer number `writer` (from 0) of `writers`, which have `rate` records per second together.
    pub fn new(shape: Shape, rate: u64, writer: u64, writers: u64, seed: u64) -> Arrivals {
        let source = match shape {
            Shape::Constant => Source::Even(Schedule::new(rate, writer, writers)),
            Shape::Bursts(burst) => {
                assert!(burst > 0, "checked when the options were read");
                Source::Bursts { schedule: Schedule::new(rate, writer, writers), burst }
            }
            Shape::Poisson => {
                let mean_ns = SECOND_NS as f64 * writers as f64 / rate as f64;
                let mut random = Random::salted(seed, writer);
                let first = random.exponential(mean_ns);
                Source::Poisson(Poisson { random, mean_ns, next_ns: first, ahead: VecDeque::new() })
            }
        };
        Arrivals { source, taken: 0 }
    }

    /// When the next record is due.
    pub fn next_ns(&mut self) -> u64 {
        match &mut self.source {
            Source::Even(schedule) => schedule.due_ns(self.taken),
            Source::Bursts { schedule, burst } => schedule.group_due_ns(self.taken / *burst, *burst),
            Source::Poisson(poisson) => poisson.first(),
        }
    }

    /// Takes the next record, and says when it is due.
    pub fn take(&mut self) -> u64 {
        let due_ns = self.next_ns();
        if let Source::Poisson(poisson) = &mut self.source {
            poisson.ahead.pop_front();
        }
        self.taken += 1;
        due_ns
    }

    /// How many records are due at `now_ns` and not taken; of a Poisson process at most [`AHEAD_MAX`] are counted.
    pub fn due(&mut self, now_ns: u64) -> u64 {
        match &mut self.source {
            Source::Even(schedule) => schedule.due_count(now_ns).saturating_sub(self.taken),
            Source::Bursts { schedule, burst } => (schedule.groups_due(now_ns, *burst) * *burst).saturating_sub(self.taken),
            Source::Poisson(poisson) => poisson.due(now_ns),
        }
    }

    /// All records that are due at `now_ns` and not taken. Draws each, so it is for the end of a run.
    pub fn left(&self, now_ns: u64) -> u64 {
        match &self.source {
            Source::Even(schedule) => schedule.due_count(now_ns).saturating_sub(self.taken),
            Source::Bursts { schedule, burst } => (schedule.groups_due(now_ns, *burst) * *burst).saturating_sub(self.taken),
            Source::Poisson(poisson) => poisson.left(now_ns),
        }
    }
}

struct Poisson {
    random: Random,
    mean_ns: f64,
    /// The first time behind those in `ahead`. A float of 53 bits: exact to a nanosecond for a hundred days.
    next_ns: f64,
    ahead: VecDeque<u64>,
}

impl Poisson {
    fn draw(&mut self) -> u64 {
        let drawn = self.next_ns;
        self.next_ns += self.random.exponential(self.mean_ns);
        drawn as u64
    }

    fn first(&mut self) -> u64 {
        if let Some(&first) = self.ahead.front() {
            return first;
        }
        let first = self.draw();
        self.ahead.push_back(first);
        first
    }

    fn due(&mut self, now_ns: u64) -> u64 {
        while self.ahead.len() < AHEAD_MAX && self.next_ns as u64 <= now_ns {
            let drawn = self.draw();
            self.ahead.push_back(drawn);
        }
        self.ahead.iter().take_while(|&&due| due <= now_ns).count() as u64
    }

    fn left(&self, now_ns: u64) -> u64 {
        let mut count = self.ahead.iter().take_while(|&&due| due <= now_ns).count() as u64;
        let (mut random, mut next_ns) = (self.random.clone(), self.next_ns);
        while next_ns as u64 <= now_ns {
            count += 1;
            next_ns += random.exponential(self.mean_ns);
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(arrivals: &mut Arrivals, count: usize) -> Vec<u64> {
        (0..count).map(|_| arrivals.take()).collect()
    }

    #[test]
    fn a_constant_rate_is_its_schedule() {
        let mut arrivals = Arrivals::new(Shape::Constant, 1_000, 1, 2, 0);
        assert_eq!(arrivals.due(2_999_999), 1);
        assert_eq!(times(&mut arrivals, 3), [1_000_000, 3_000_000, 5_000_000]);
        assert_eq!((arrivals.next_ns(), arrivals.due(9_000_000), arrivals.left(9_000_000)), (7_000_000, 2, 2));
    }

    #[test]
    fn bursts_are_due_at_once_and_the_writers_take_turns() {
        let of = |writer| Arrivals::new(Shape::Bursts(3), 1_000, writer, 2, 0);
        let (mut first, mut second) = (of(0), of(1));
        assert_eq!((first.due(0), first.due(5_999_999), first.due(6_000_000)), (3, 3, 6));
        assert_eq!((second.due(2_999_999), second.due(3_000_000)), (0, 3));
        assert_eq!(times(&mut first, 4), [0, 0, 0, 6_000_000]);
        assert_eq!(times(&mut second, 4), [3_000_000, 3_000_000, 3_000_000, 9_000_000]);
        assert_eq!(first.left(6_000_000), 2, "the rest of the burst that was begun");
    }

    #[test]
    fn every_shape_has_the_asked_rate() {
        for shape in [Shape::Constant, Shape::Poisson, Shape::Bursts(7)] {
            for writers in [1, 10] {
                let sum: u64 = (0..writers).map(|writer| Arrivals::new(shape, 20_000, writer, writers, 42).left(10 * SECOND_NS)).sum();
                // A Poisson count of 200,000 has a standard deviation of 447.
                assert!((198_000..202_000).contains(&sum), "{shape:?} of {writers}: {sum}");
            }
        }
    }

    #[test]
    fn the_gaps_of_a_poisson_process_are_exponential_and_grow_in_time() {
        let mut arrivals = Arrivals::new(Shape::Poisson, 1_000, 0, 1, 7);
        let times = times(&mut arrivals, 100_000);
        let mut gaps: Vec<u64> = times.windows(2).map(|pair| pair[1].checked_sub(pair[0]).expect("times do not go back")).collect();
        let mean = gaps.iter().sum::<u64>() as f64 / gaps.len() as f64;
        assert!((mean / 1e6 - 1.0).abs() < 0.02, "{mean}");
        gaps.sort_unstable();
        for (share, expected_ns) in [(0.1, 105_360.0), (0.5, 693_147.0), (0.9, 2_302_585.0)] {
            let gap = gaps[(gaps.len() as f64 * share) as usize] as f64;
            assert!((gap / expected_ns - 1.0).abs() < 0.05, "{share}: {gap}");
        }
        // Counts per 10 ms have a variance equal to their mean, which a constant rate has not.
        let mut counts = vec![0f64; (times[times.len() - 1] / 10_000_000) as usize];
        for time in &times {
            if let Some(count) = counts.get_mut((time / 10_000_000) as usize) {
                *count += 1.0;
            }
        }
        let mean = counts.iter().sum::<f64>() / counts.len() as f64;
        let variance = counts.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / counts.len() as f64;
        assert!((variance / mean - 1.0).abs() < 0.06, "{variance} {mean}");
    }

    #[test]
    fn what_is_due_agrees_with_the_times_that_are_taken() {
        let mut counted = Arrivals::new(Shape::Poisson, 1_000, 3, 4, 7);
        let mut taken = Arrivals::new(Shape::Poisson, 1_000, 3, 4, 7);
        let times = times(&mut taken, 30);
        assert_eq!(counted.next_ns(), times[0]);
        for (number, &time) in times.iter().enumerate() {
            assert_eq!((counted.due(time), counted.left(time)), (1, 1), "{number}");
            assert_eq!(counted.due(time - 1), 0, "{number}");
            assert_eq!(counted.take(), time);
        }
    }

    #[test]
    fn a_backlog_is_counted_without_being_kept() {
        let mut arrivals = Arrivals::new(Shape::Poisson, 1_000_000, 0, 1, 7);
        assert_eq!(arrivals.due(SECOND_NS), AHEAD_MAX as u64);
        let left = arrivals.left(SECOND_NS);
        assert!((990_000..1_010_000).contains(&left), "{left}");
        arrivals.take();
        assert_eq!(arrivals.left(SECOND_NS), left - 1);
    }

    #[test]
    fn each_writer_has_a_process_of_its_own() {
        let of = |writer, seed| times(&mut Arrivals::new(Shape::Poisson, 1_000, writer, 2, seed), 5);
        assert_eq!(of(0, 1), of(0, 1));
        assert_ne!(of(0, 1), of(1, 1));
        assert_ne!(of(0, 1), of(0, 2));
    }
}
