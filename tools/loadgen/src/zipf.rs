//! Zipf's distribution: rank k of n comes with a probability proportional to 1 / k^s, in constant time and memory.
//!
//! Rejection-inversion (W. Hörmann, G. Derflinger, "Rejection-inversion to generate variates from monotone discrete distributions", ACM
//! TOMACS 6(3), 1996): the histogram of the ranks lies under the curve h(x) = x^-s, whose integral H can be inverted; a point drawn under
//! the curve is mostly in the bar of the rank it is nearest to, else it is drawn again (at most a few in a hundred times).
//! Invariant: ranks are `1..=n`. Not here: which key a rank is (the load generator takes them in order, so key 0 is the hottest).

use crate::random::Random;

/// See the module's page.
#[derive(Clone, Copy, Debug)]
pub struct Zipf {
    n: f64,
    exponent: f64,
    /// H at the left end of the first bar, which is cut to the height of its rank.
    from: f64,
    /// H at the right end of the last bar.
    to: f64,
    /// A point at most so far left of its rank is under the bar whatever its height: most draws end here.
    sure: f64,
}

impl Zipf {
    /// Ranks `1..=n`, at least one; `exponent` above zero.
    pub fn new(n: u64, exponent: f64) -> Zipf {
        assert!(n > 0 && exponent > 0.0, "checked when the options were read");
        let mut zipf = Zipf { n: n as f64, exponent, from: 0.0, to: 0.0, sure: 0.0 };
        zipf.from = zipf.integral(1.5) - 1.0;
        zipf.to = zipf.integral(n as f64 + 0.5);
        zipf.sure = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.height(2.0));
        zipf
    }

    /// A rank.
    pub fn draw(&self, random: &mut Random) -> u64 {
        loop {
            let area = self.to + random.unit() * (self.from - self.to);
            let x = self.inverse(area);
            let rank = x.round().clamp(1.0, self.n);
            if rank - x <= self.sure || area >= self.integral(rank + 0.5) - self.height(rank) {
                return rank as u64;
            }
        }
    }

    /// h(x) = x^-s.
    fn height(&self, x: f64) -> f64 {
        (-self.exponent * x.ln()).exp()
    }

    /// H(x) = (x^(1-s) - 1) / (1-s), which is ln x for s = 1.
    fn integral(&self, x: f64) -> f64 {
        let log = x.ln();
        log * exp_m1_by(log * (1.0 - self.exponent))
    }

    /// The x with H(x) = y.
    fn inverse(&self, y: f64) -> f64 {
        // Rounding can bring the product a bit below -1, where there is no logarithm.
        let scaled = (y * (1.0 - self.exponent)).max(-1.0);
        (y * ln_1p_by(scaled)).exp()
    }
}

/// (e^t - 1) / t, which is 1 at zero. Without the series a t near zero would lose all its digits, and s near 1 makes such.
fn exp_m1_by(t: f64) -> f64 {
    if t.abs() > 1e-8 { t.exp_m1() / t } else { 1.0 + t / 2.0 }
}

/// ln(1 + t) / t, likewise.
fn ln_1p_by(t: f64) -> f64 {
    if t.abs() > 1e-8 { t.ln_1p() / t } else { 1.0 - t / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_come_as_often_as_the_distribution_says() {
        for (n, exponent) in [(10u64, 1.1), (10, 1.0), (10, 0.5), (3, 2.0), (1000, 1.0), (1, 1.1), (2, 5.0), (100, 0.1)] {
            let (zipf, mut random) = (Zipf::new(n, exponent), Random::new(n));
            let draws = 200_000;
            let mut counts = vec![0u64; n as usize];
            for _ in 0..draws {
                counts[zipf.draw(&mut random) as usize - 1] += 1;
            }
            let sum: f64 = (1..=n).map(|rank| (rank as f64).powf(-exponent)).sum();
            for rank in [1, 2, 3, n / 2, n].into_iter().filter(|rank| (1..=n).contains(rank)) {
                let expected = draws as f64 * (rank as f64).powf(-exponent) / sum;
                let got = counts[rank as usize - 1] as f64;
                // Five standard deviations of a binomial count, and one for rounding.
                assert!((got - expected).abs() < 5.0 * expected.sqrt() + 1.0, "n {n} s {exponent} rank {rank}: {got}, not {expected}");
            }
        }
    }

    #[test]
    fn many_ranks_are_drawn_from_their_whole_range() {
        let (zipf, mut random) = (Zipf::new(10_000_000, 1.01), Random::new(5));
        let drawn: Vec<u64> = (0..100_000).map(|_| zipf.draw(&mut random)).collect();
        assert!(drawn.iter().all(|rank| (1..=10_000_000).contains(rank)));
        assert!(drawn.iter().any(|&rank| rank > 5_000_000) && drawn.iter().filter(|&&rank| rank == 1).count() > 4_000);
    }
}
