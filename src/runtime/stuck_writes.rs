//! Writes that do not complete although the device may be done: when a shard lets go of its core for a moment.
//!
//! A synced direct write ends in a worker of the kernel that runs on the core where the device's interrupt came, and that can be a shard's. A spinning shard
//! yields while writes are under way (`sched_yield`), which is enough as a rule, and was not always: on kernel 6.18, with other work on the machine, such a
//! worker stood ready for 30 s beside a shard that was switched away from some 2,450 times a second; the device had nothing to do. (Seen in the kill campaign
//! with compilers beside it: in rounds 880 and 555 of two, three times in the first 19 rounds of a third.) Only sleeping gives the core away for certain.
//!
//! Invariants: while a write completes now and then, nobody naps; while none does, there is one nap in a millisecond at most, and none where the shard sleeps
//! of its own accord.
//!
//! Not here: sleeping when there is nothing to do (`park.rs`).

use std::time::Duration;

/// Writes take longer than this where something is wrong: a slow disk, or this.
const STUCK_US: u64 = 5_000;
/// From one nap to the next.
const EVERY_US: u64 = 1_000;
/// How long a nap is asked to be: for a worker to have its turn, whatever that lasts.
pub(super) const NAP: Duration = Duration::from_micros(100);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct StuckWrites {
    completed: u64,
    /// Since when none has completed.
    since_us: u64,
    /// When the next nap may be.
    next_us: u64,
}

impl StuckWrites {
    /// Whether to nap now. `completed`: writes that have completed so far; `in_flight`: those that have not.
    pub(super) fn nap_is_due(&mut self, now_us: u64, completed: u64, in_flight: usize) -> bool {
        if in_flight == 0 || completed != self.completed {
            (self.completed, self.since_us) = (completed, now_us);
            return false;
        }
        let is_due = now_us.saturating_sub(self.since_us) >= STUCK_US && now_us >= self.next_us;
        if is_due {
            self.next_us = now_us + EVERY_US;
        }
        is_due
    }

    /// The shard had nothing to do and slept: that is as good as a nap, if it was no shorter.
    pub(super) fn on_slept(&mut self, from_us: u64, to_us: u64) {
        if u128::from(to_us.saturating_sub(from_us)) >= NAP.as_micros() {
            self.next_us = to_us + EVERY_US;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nap_is_due_when_nothing_completes_and_not_too_often() {
        let mut writes = StuckWrites::default();
        assert!(!writes.nap_is_due(1_000_000, 7, 0));
        let naps = |writes: &mut StuckWrites, range: std::ops::Range<u64>, completed: u64, in_flight: usize| {
            range.step_by(10).filter(|now_us| writes.nap_is_due(1_000_000 + now_us, completed, in_flight)).count()
        };
        assert_eq!(naps(&mut writes, 0..4_990, 7, 3), 0);
        assert_eq!(naps(&mut writes, 5_000..15_000, 7, 3), 10);
        // One that completes begins a new time, and so does having none.
        assert_eq!(naps(&mut writes, 15_000..19_000, 8, 2), 0);
        assert_eq!(naps(&mut writes, 19_000..19_010, 8, 0), 0);
        assert_eq!(naps(&mut writes, 20_000..24_000, 8, 2), 0);
        assert_eq!(naps(&mut writes, 24_000..26_000, 8, 2), 2);
        // Whoever slept has let go already.
        writes.on_slept(1_025_800, 1_026_000);
        assert_eq!(naps(&mut writes, 26_000..27_000, 8, 2), 0);
        writes.on_slept(1_026_990, 1_026_999);
        assert_eq!(naps(&mut writes, 27_000..27_010, 8, 2), 1);
    }
}
