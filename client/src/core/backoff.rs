//! Waiting times between attempts: doubling from 1 ms to 200 ms (or between other bounds), each one somewhere in its upper half.
//!
//! The first retry comes quickly, because the commonest refusals (a partition just created, a leader just chosen) pass
//! within a millisecond; 200 ms bounds both the load of a waiting client and the delay after a failover. The place within
//! the half is drawn, so that clients that were refused together do not come back together; the seed comes from outside, so
//! that a run stays repeatable.

/// See the module's page. Times are microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    attempts: u32,
    dice: u64,
    first_us: u64,
    last_us: u64,
}

const FIRST_US: u64 = 1_000;
const LAST_US: u64 = 200_000;

impl Backoff {
    /// Waits whose places are drawn from this seed.
    pub fn seeded(seed: u64) -> Backoff {
        Backoff::between(FIRST_US, LAST_US, seed)
    }

    /// The same, doubling from `first_us` (2 at least) to `last_us`.
    pub(crate) fn between(first_us: u64, last_us: u64, seed: u64) -> Backoff {
        Backoff { attempts: 0, dice: seed, first_us, last_us }
    }

    /// The wait before the next attempt.
    pub fn next_us(&mut self) -> u64 {
        let longest = self.first_us.saturating_mul(1 << self.attempts.min(10)).min(self.last_us);
        self.attempts = self.attempts.saturating_add(1);
        longest - self.draw() % (longest / 2)
    }

    /// It worked: start again from the shortest.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// SplitMix64: any seed is as good as another, 0 as well.
    fn draw(&mut self) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.dice;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_last_and_start_again_after_success() {
        for seed in 0..100 {
            let mut backoff = Backoff::seeded(seed);
            for longest in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 200_000, 200_000] {
                let wait = backoff.next_us();
                assert!(wait > longest / 2 && wait <= longest, "{wait} of {longest}");
            }
            backoff.reset();
            assert!(backoff.next_us() <= 1_000);
        }
    }

    #[test]
    fn other_bounds_give_other_waits() {
        let mut backoff = Backoff::between(10_000, 1_000_000, 3);
        for longest in [10_000, 20_000, 40_000, 80_000, 160_000, 320_000, 640_000, 1_000_000, 1_000_000] {
            let wait = backoff.next_us();
            assert!(wait > longest / 2 && wait <= longest, "{wait} of {longest}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_waits_and_another_one_others() {
        let waits = |seed| {
            let mut backoff = Backoff::seeded(seed);
            [0; 8].map(|_| backoff.next_us())
        };
        assert_eq!(waits(3), waits(3));
        assert_ne!(waits(3), waits(4));
    }
}
