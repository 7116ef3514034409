//! What a measurement gives back: plain numbers that print as JSON, and the histogram they come from.
//!
//! Units are in the names: `_us` microseconds, `_gbps` 10^9 bytes per second.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;

/// Numbers by name, in the order of the names.
pub type Numbers = BTreeMap<String, f64>;

/// Everything one run found out.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Kernel release.
    pub kernel: String,
    /// CPUs used: server's, client's.
    pub cpus: [usize; 2],
    /// Seconds spent on each point.
    pub seconds: f64,
    /// Whether the build was optimised: figures of other builds mean nothing.
    pub release_build: bool,
    /// The limits: what a broker on this machine is compared with.
    pub limits: Numbers,
    /// The points that led there (each mode and depth), for whoever wants to know why.
    pub points: Numbers,
}

/// A histogram of nanoseconds up to ten seconds, with three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 10_000_000_000, 3).unwrap_or_else(|e| unreachable!("constant bounds: {e}"))
}

/// Microseconds at `quantile`, with two digits after the point.
pub fn quantile_us(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    round(histogram.value_at_quantile(quantile) as f64 / 1000.0, 100.0)
}

/// 10^9 bytes per second, with three digits after the point.
pub fn gbps(bytes: u64, seconds: f64) -> f64 {
    round(bytes as f64 / seconds / 1e9, 1000.0)
}

fn round(value: f64, digits: f64) -> f64 {
    (value * digits).round() / digits
}
