//! Waiting times between attempts: doubling from 1 ms to 200 ms.
//!
//! The first retry comes quickly, because the commonest refusals (a partition just created, a leader just chosen) pass
//! within a millisecond; 200 ms bounds both the load of a waiting client and the delay after a failover. No dice: the
//! attempts of many clients differ enough by their own timing, and a run stays repeatable.

/// See the module's page. Times are microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backoff {
    attempts: u32,
}

const FIRST_US: u64 = 1_000;
const LAST_US: u64 = 200_000;

impl Backoff {
    /// The wait before the next attempt.
    pub fn next_us(&mut self) -> u64 {
        let wait = FIRST_US.saturating_mul(1 << self.attempts.min(10)).min(LAST_US);
        self.attempts = self.attempts.saturating_add(1);
        wait
    }

    /// It worked: start again from the shortest.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_last_and_start_again_after_success() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..10).map(|_| backoff.next_us()).collect();
        assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 200_000, 200_000]);
        backoff.reset();
        assert_eq!(backoff.next_us(), 1_000);
    }
}
