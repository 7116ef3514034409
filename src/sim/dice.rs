//! Random numbers from one seed (splitmix64, Steele and others 2014), a stream of its own for each purpose, so that one more draw here
//! does not shift the draws there.

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// The stream of `seed` for one purpose.
    pub fn stream(seed: u64, purpose: &str) -> Dice {
        let mixed =
            purpose.bytes().fold(seed ^ 0x51_7C_C1_B7_27_22_0A_95, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3));
        let mut dice = Dice(mixed);
        dice.next();
        dice
    }
    /// The stream of `seed` for one purpose of one node. The first node has the stream that it has in a run of one node.
    pub fn of_node(seed: u64, purpose: &str, node: usize) -> Dice {
        if node == 0 { Dice::stream(seed, purpose) } else { Dice::stream(seed, &format!("{purpose} {}", node + 1)) }
    }
    /// The next 64 bits.
    #[allow(clippy::should_implement_trait)] // not an iterator: it never ends and borrows nothing
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// A number below `end`. The remainder's bias is below 2^-40 for the ends used here.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
    /// A number of `range`.
    pub fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        range.start + self.below(range.end - range.start)
    }
    /// True in `percent` of a hundred cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
    /// True once in `count` cases; never for 0.
    pub fn once_in(&mut self, count: u64) -> bool {
        count > 0 && self.below(count) == 0
    }
    /// Waiting time of a Poisson process with this mean, in whole microseconds, at least 1 and at most 20 times the mean.
    pub fn wait_us(&mut self, mean_us: u64) -> u64 {
        let uniform = (self.below(1 << 30) + 1) as f64 / (1u64 << 30) as f64;
        ((-uniform.ln() * mean_us as f64) as u64).clamp(1, 20 * mean_us)
    }
}
