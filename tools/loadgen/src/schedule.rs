//! The arithmetic of a constant rate, of single records or of groups that come at once, and the three times of a run (warm-up,
//! measured, over).
//!
//! Invariants: the n-th record is due at `n * 1 s / rate`, computed from n and not by adding up, so that no rounding
//! accumulates; what is due does not depend on what the server does (open loop). Times are nanoseconds since the run began.
//! Not here: clocks. The caller reads one and passes the number.

/// Nanoseconds in a second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// A constant rate, of which one writer among several has every so-and-so-many-th record.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    rate: u64,
    writers: u64,
    writer: u64,
}

impl Schedule {
    /// `rate` records per second in all, at least one; this is writer number `writer` (from 0) of `writers`.
    pub fn new(rate: u64, writer: u64, writers: u64) -> Schedule {
        assert!(rate > 0 && writer < writers, "a rate of zero has no due times, and writers count from 0");
        Schedule { rate, writers, writer }
    }

    /// When this writer's record `n` (from 0) is due.
    pub fn due_ns(&self, n: u64) -> u64 {
        self.group_due_ns(n, 1)
    }

    /// How many of this writer's records are due at `now_ns`, that is, have a due time at or before it.
    pub fn due_count(&self, now_ns: u64) -> u64 {
        self.groups_due(now_ns, 1)
    }

    /// When this writer's group `n` of `size` records is due, where all its records come at once: a schedule of groups at a `size`-th of
    /// the rate.
    pub fn group_due_ns(&self, n: u64, size: u64) -> u64 {
        // A day of records of the highest rate and all writers is below 2^57.
        let of_all = n * self.writers + self.writer;
        match of_all.checked_mul(size).and_then(|records| records.checked_mul(SECOND_NS)) {
            // The first 18 G records: a division of 128 bits takes some 30 ns more, once per record.
            Some(scaled) => scaled / self.rate,
            None => (u128::from(of_all) * u128::from(size) * u128::from(SECOND_NS) / u128::from(self.rate)) as u64,
        }
    }

    /// How many of this writer's groups are due at `now_ns`.
    pub fn groups_due(&self, now_ns: u64, size: u64) -> u64 {
        // Group k of all is due when k * size * S / rate <= now in whole numbers, that is k * size * S < (now + 1) * rate.
        let scaled = (u128::from(now_ns) + 1) * u128::from(self.rate);
        let of_all = scaled.div_ceil(u128::from(SECOND_NS) * u128::from(size)) as u64;
        of_all.saturating_sub(self.writer).div_ceil(self.writers)
    }
}

/// The measured part of a run: `[from_ns, end_ns)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// End of the warm-up.
    pub from_ns: u64,
    /// End of the run.
    pub end_ns: u64,
}

impl Window {
    /// From the two durations of the command line.
    pub fn new(warmup_ns: u64, duration_ns: u64) -> Window {
        Window { from_ns: warmup_ns, end_ns: warmup_ns + duration_ns }
    }

    /// Whether a record that was intended for `at_ns` counts.
    pub fn contains(&self, at_ns: u64) -> bool {
        (self.from_ns..self.end_ns).contains(&at_ns)
    }

    /// Length of the measured part.
    pub fn length_ns(&self) -> u64 {
        self.end_ns - self.from_ns
    }
}

/// Records per second that were kept up with: of the records intended for the window, `done` completed, the last at
/// `last_done_ns`. What completes after the end of the window makes the time longer, so that a backlog lowers the rate instead
/// of hiding in it. Without a warm-up the answer to the very last record is behind the end and none came in at the beginning, so
/// a usual answer's time (100 ms) does not count as backlog then.
pub fn kept_rate(done: u64, window: Window, last_done_ns: u64) -> f64 {
    let grace_ns = if window.from_ns == 0 { 100_000_000 } else { 0 };
    let elapsed_ns = last_done_ns.saturating_sub(grace_ns).max(window.end_ns) - window.from_ns;
    per_second(done, elapsed_ns)
}

/// A count as a rate; zero where no time passed (ended before the measured part began).
pub fn per_second(count: u64, elapsed_ns: u64) -> f64 {
    if elapsed_ns == 0 { 0.0 } else { count as f64 * SECOND_NS as f64 / elapsed_ns as f64 }
}

/// Whether the achieved rate is good enough to believe the latencies: 99 % of the asked one (below it the generator or the
/// server did not keep up, and the run says nothing about the asked load).
pub fn rate_is_held(achieved: f64, asked: f64) -> bool {
    achieved >= asked * 0.99
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_times_do_not_drift() {
        let schedule = Schedule::new(3, 0, 1);
        assert_eq!([0, 1, 2, 3].map(|n| schedule.due_ns(n)), [0, 333_333_333, 666_666_666, 1_000_000_000]);
        for rate in [1, 3, 7, 999, 1_000_003, 99_999_999] {
            assert_eq!(Schedule::new(rate, 0, 1).due_ns(rate * 86_400), 86_400 * SECOND_NS, "{rate}");
        }
    }

    #[test]
    fn the_count_of_due_records_agrees_with_the_due_times() {
        for rate in [1u64, 3, 7, 1_000, 1_000_003, 100_000_000] {
            let schedule = Schedule::new(rate, 0, 1);
            for n in [0u64, 1, 2, 5, 1_000, 123_457] {
                let due = schedule.due_ns(n);
                assert!(schedule.due_count(due) > n, "rate {rate}: record {n} is due at its time");
                assert!(due == 0 || schedule.due_count(due - 1) <= n, "rate {rate}: record {n} is not due before its time");
            }
        }
        assert_eq!(Schedule::new(1_000, 0, 1).due_count(0), 1, "the first record is due at once");
    }

    #[test]
    fn several_writers_share_the_schedule_without_overlap() {
        for writers in [1u64, 2, 3, 7] {
            let all = Schedule::new(1_000, 0, 1);
            let parts: Vec<Schedule> = (0..writers).map(|writer| Schedule::new(1_000, writer, writers)).collect();
            let mut due: Vec<u64> = parts.iter().flat_map(|part| (0..5).map(|n| part.due_ns(n))).collect();
            due.sort_unstable();
            assert_eq!(due, (0..5 * writers).map(|n| all.due_ns(n)).collect::<Vec<_>>());
            for now in [0, 1, 999_999, 1_000_000, 12_345_678] {
                assert_eq!(parts.iter().map(|part| part.due_count(now)).sum::<u64>(), all.due_count(now), "{writers} {now}");
            }
        }
    }

    #[test]
    fn the_window_is_half_open() {
        let window = Window::new(2, 10);
        assert_eq!([1, 2, 11, 12].map(|at| window.contains(at)), [false, true, true, false]);
        assert_eq!(window.length_ns(), 10);
    }

    #[test]
    fn a_backlog_at_the_end_lowers_the_rate() {
        let window = Window::new(SECOND_NS, 10 * SECOND_NS);
        assert_eq!(kept_rate(1_000, window, 0), 100.0);
        assert_eq!(kept_rate(1_000, window, 11 * SECOND_NS), 100.0);
        assert_eq!(kept_rate(1_000, window, 21 * SECOND_NS), 50.0);
        assert_eq!(kept_rate(0, Window::new(5, 0), 0), 0.0);
    }

    #[test]
    fn without_a_warm_up_the_last_answers_time_is_no_backlog() {
        let window = Window::new(0, SECOND_NS);
        assert_eq!(kept_rate(1_000, window, SECOND_NS + SECOND_NS / 20), 1_000.0);
        assert!(!rate_is_held(kept_rate(1_000, window, SECOND_NS + SECOND_NS / 2), 1_000.0));
    }

    #[test]
    fn a_rate_is_held_from_99_percent_on() {
        assert!(rate_is_held(990.0, 1_000.0) && !rate_is_held(989.9, 1_000.0));
    }
}
