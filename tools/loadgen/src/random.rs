//! Random numbers from a seed, the same in every build: for arrivals, keys, sizes and fillings.
//!
//! The generator is splitmix64: a counter with a mixed output, one addition and two multiplications per draw (about 1 ns), no state that
//! must not be zero, and streams of neighbouring seeds have nothing to do with each other because the seed is mixed as well.
//! Invariant: nothing here looks at a clock or the system's dice; a report carries the seed, and with it a run can be repeated.

/// Step of the counter: 2^64 divided by the golden ratio, made odd, so that it visits all values.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// See the module's page.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Random {
        Random { state: mix(seed) }
    }

    /// The stream number `salt` of a seed: what draws it has no effect on the others.
    pub fn salted(seed: u64, salt: u64) -> Random {
        Random { state: mix(mix(seed) ^ mix(salt.wrapping_add(STEP))) }
    }

    /// 64 bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        mix(self.state)
    }

    /// A number in `[0, 1)`, one of 2^53.
    #[inline]
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number below `end`, which is not zero. The upper half of a product: for the ends used here (at most 2^24) some values are more
    /// likely than others by one part in 2^40.
    #[inline]
    pub fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0, "there is no number below zero");
        ((u128::from(self.next_u64()) * u128::from(end)) >> 64) as u64
    }

    /// A time of an exponential distribution with this mean: the gap between two events of a Poisson process.
    #[inline]
    pub fn exponential(&mut self, mean: f64) -> f64 {
        // 1 - unit() is never zero, so the logarithm is finite: at most 36.7 means.
        -(1.0 - self.unit()).ln() * mean
    }
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_stream_and_neighbours_give_others() {
        let draw = |mut random: Random| (0..4).map(|_| random.next_u64()).collect::<Vec<_>>();
        assert_eq!(draw(Random::new(7)), draw(Random::new(7)));
        let streams = [Random::new(7), Random::new(8), Random::salted(7, 0), Random::salted(7, 1), Random::salted(8, 0)].map(draw);
        for (index, stream) in streams.iter().enumerate() {
            assert!(streams[..index].iter().all(|other| other.iter().all(|value| !stream.contains(value))), "{index}");
        }
    }

    #[test]
    fn numbers_below_an_end_are_equally_likely() {
        let mut random = Random::new(1);
        let mut counts = [0u32; 10];
        for _ in 0..100_000 {
            counts[random.below(10) as usize] += 1;
        }
        // 10,000 each, with a standard deviation of 95.
        assert!(counts.iter().all(|count| (9_600..10_400).contains(count)), "{counts:?}");
        assert_eq!(random.below(1), 0);
    }

    #[test]
    fn units_fill_their_range() {
        let mut random = Random::new(2);
        let drawn: Vec<f64> = (0..100_000).map(|_| random.unit()).collect();
        assert!(drawn.iter().all(|unit| (0.0..1.0).contains(unit)));
        let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
        assert!((mean - 0.5).abs() < 0.005, "{mean}");
    }

    #[test]
    fn exponential_times_have_their_mean_and_quantiles() {
        let mut random = Random::new(3);
        let mut drawn: Vec<f64> = (0..200_000).map(|_| random.exponential(1_000.0)).collect();
        let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
        assert!((mean - 1_000.0).abs() < 10.0, "{mean}");
        drawn.sort_by(f64::total_cmp);
        for (share, expected) in [(0.5, 693.1), (0.9, 2_302.6), (0.99, 4_605.2)] {
            let quantile = drawn[(drawn.len() as f64 * share) as usize];
            assert!((quantile / expected - 1.0).abs() < 0.03, "{share}: {quantile}");
        }
    }
}
