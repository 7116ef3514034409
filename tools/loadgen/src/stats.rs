//! Histograms and counts of a run: kept per side, taken each second for the progress line, merged at the end.
//!
//! Invariants: percentiles come from merged histograms, never from averaged ones; values are nanoseconds from 1 ns to one
//! hour with three significant digits (an error below 0.1 %), what is longer counts as one hour. The lock of a side is held by
//! its worker for one batch of completions and by the progress thread for one swap of pointers, so it does not disturb what it measures.
//! A measured time is recorded in its second alone; the seconds added up are the run, so the interval log and the report cannot disagree.

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One hour: longer than any timeout that can be asked for.
const HIGHEST_NS: u64 = 3_600_000_000_000;

/// An empty histogram of the one shape used here, so that all can be merged.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, HIGHEST_NS, 3).expect("constant bounds are valid")
}

/// Records a time; zero counts as one nanosecond.
pub fn record(histogram: &mut Histogram<u64>, ns: u64) {
    histogram.saturating_record(ns.clamp(1, HIGHEST_NS));
}

/// What one second showed.
pub struct Interval {
    /// Records completed (acknowledged, or received).
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Records that failed.
    pub errors: u64,
    /// Completion minus intended time of the records that were not intended for the measured part: for the progress line alone.
    pub unmeasured: Histogram<u64>,
    /// Completion minus intended time of the measured ones, where the side has it.
    pub latency: Histogram<u64>,
    /// Completion minus the time on the wire of the measured ones; stays empty on the reading side.
    pub service: Histogram<u64>,
}

impl Interval {
    /// Nothing yet.
    pub fn new() -> Interval {
        Interval { records: 0, bytes: 0, errors: 0, unmeasured: histogram(), latency: histogram(), service: histogram() }
    }

    /// Records the latency of one record.
    pub fn time(&mut self, latency_ns: u64, measured: bool) {
        record(if measured { &mut self.latency } else { &mut self.unmeasured }, latency_ns);
    }

    /// Latencies of warm-up and measured part alike.
    pub fn all_latencies(&self) -> Histogram<u64> {
        let mut all = self.latency.clone();
        add(&mut all, &self.unmeasured);
        all
    }

    /// Adds another worker's second.
    pub fn merge(&mut self, other: &Interval) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.errors += other.errors;
        add(&mut self.unmeasured, &other.unmeasured);
        add(&mut self.latency, &other.latency);
        add(&mut self.service, &other.service);
    }

    /// Ready for the next second, without giving memory back.
    pub fn clear(&mut self) {
        (self.records, self.bytes, self.errors) = (0, 0, 0);
        for histogram in [&mut self.unmeasured, &mut self.latency, &mut self.service] {
            // Not clear(), which keeps the maximum and minimum of what was there before.
            histogram.reset();
        }
    }
}

/// Adds histograms of the one shape.
fn add(sum: &mut Histogram<u64>, part: &Histogram<u64>) {
    if !part.is_empty() {
        sum.add(part).expect("all histograms have one shape");
    }
}

/// One side of the run (writing or reading) as its worker counts it.
pub struct Side {
    /// The running second, of warm-up and measured part alike.
    pub interval: Interval,
    /// Records that completed in the measured part, whenever they were intended: the throughput.
    pub done_records: u64,
    /// Bytes of their values.
    pub done_bytes: u64,
    /// Completed records that were intended in the measured part: those in the histograms.
    pub measured_records: u64,
    /// When the last of them completed, nanoseconds of the run.
    pub last_done_ns: u64,
    /// Completion minus intended time, measured part: the sum of the seconds, empty until [`Side::add_seconds`].
    pub latency: Histogram<u64>,
    /// Completion minus the time on the wire, likewise; stays empty on the reading side.
    pub service: Histogram<u64>,
    /// All records sent (or received), warm-up included.
    pub records: u64,
    /// Acknowledged, warm-up included; stays zero on the reading side.
    pub acked: u64,
    /// Failed, warm-up included.
    pub failed: u64,
    /// Of them: intended for the measured part, and failed by their own fault (too large), not for want of time or a connection.
    pub measured_refused: u64,
    /// Sentences of the failures and how often; bounded, since a sentence may carry numbers.
    pub errors: BTreeMap<String, u64>,
}

/// Different sentences kept; the rest is counted under one name.
const ERROR_KINDS_MAX: usize = 20;

impl Side {
    /// Nothing yet.
    pub fn new() -> Side {
        Side {
            interval: Interval::new(),
            done_records: 0,
            done_bytes: 0,
            measured_records: 0,
            last_done_ns: 0,
            latency: histogram(),
            service: histogram(),
            records: 0,
            acked: 0,
            failed: 0,
            measured_refused: 0,
            errors: BTreeMap::new(),
        }
    }

    /// Counts a failure under its sentence.
    pub fn count_error(&mut self, sentence: &str) {
        if let Some(count) = self.errors.get_mut(sentence) {
            *count += 1;
        } else if self.errors.len() < ERROR_KINDS_MAX {
            self.errors.insert(sentence.to_owned(), 1);
        } else {
            *self.errors.entry("(other errors)".to_owned()).or_default() += 1;
        }
    }

    /// Adds another worker's side.
    pub fn merge(&mut self, other: &Side) {
        self.measured_records += other.measured_records;
        self.done_records += other.done_records;
        self.done_bytes += other.done_bytes;
        self.last_done_ns = self.last_done_ns.max(other.last_done_ns);
        add(&mut self.latency, &other.latency);
        add(&mut self.service, &other.service);
        self.records += other.records;
        self.acked += other.acked;
        self.failed += other.failed;
        self.measured_refused += other.measured_refused;
        for (sentence, count) in &other.errors {
            *self.errors.entry(sentence.clone()).or_default() += count;
        }
    }

    /// Adds the times of the seconds that were taken from this side while it ran.
    pub fn add_seconds(&mut self, seconds: &Interval) {
        add(&mut self.latency, &seconds.latency);
        add(&mut self.service, &seconds.service);
    }
}

/// Acknowledgement minus intended time (in a closed loop: minus send, which is the same there).
pub const ACK: &str = "ack";
/// Acknowledgement minus the time at which the record's batch was put on the wire.
pub const SERVICE: &str = "service";
/// Answer to the one request of a connection minus the time at which the connection was due.
pub const CONNECT: &str = "connect";
/// Arrival at the reader minus intended time.
pub const E2E: &str = "e2e";

/// The percentiles that are reported.
pub const PERCENTILES: [(&str, f64); 6] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("p99.99", 99.99), ("p99.999", 99.999)];

/// A percentile in microseconds.
pub fn percentile_us(histogram: &Histogram<u64>, percentile: f64) -> f64 {
    round_us(histogram.value_at_percentile(percentile))
}

/// Nanoseconds as microseconds with one decimal.
pub fn round_us(ns: u64) -> f64 {
    (ns as f64 / 100.0).round() / 10.0
}

/// The table of a histogram in microseconds: percentiles, `max`, then `min`, `mean` and the count. Null when it is empty.
pub fn histogram_json(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    let mut object = serde_json::Map::new();
    for (name, percentile) in PERCENTILES {
        object.insert(name.to_owned(), json!(percentile_us(histogram, percentile)));
    }
    object.insert("max".to_owned(), json!(round_us(histogram.max())));
    object.insert("min".to_owned(), json!(round_us(histogram.min())));
    object.insert("mean".to_owned(), json!(round_us(histogram.mean() as u64)));
    object.insert("count".to_owned(), json!(histogram.len()));
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_parts_are_those_of_the_whole() {
        let (mut fast, mut slow, mut whole) = (Side::new(), Side::new(), histogram());
        for n in 0..990u64 {
            record(&mut fast.latency, 1_000 + n);
            record(&mut whole, 1_000 + n);
        }
        for _ in 0..10 {
            record(&mut slow.latency, 50_000_000);
            record(&mut whole, 50_000_000);
        }
        fast.merge(&slow);
        assert_eq!(histogram_json(&fast.latency), histogram_json(&whole));
        // The average of the two p99 would be 25 ms; of all records the 99th of a hundred took 2 us, the last 50 ms.
        assert!(percentile_us(&fast.latency, 99.0) < 3.0 && percentile_us(&fast.latency, 99.9) > 49_000.0);
    }

    #[test]
    fn values_out_of_range_are_kept_at_the_edge() {
        let mut histogram = histogram();
        record(&mut histogram, 0);
        record(&mut histogram, u64::MAX);
        assert_eq!(histogram.len(), 2);
        assert!(percentile_us(&histogram, 100.0) >= 3.5e9);
    }

    #[test]
    fn percentiles_are_within_a_thousandth() {
        let mut histogram = histogram();
        for n in 1..=100_000u64 {
            record(&mut histogram, n * 1_000);
        }
        for (name, percentile) in PERCENTILES {
            let (got, expected) = (percentile_us(&histogram, percentile), percentile * 1_000.0);
            assert!((got - expected).abs() <= expected * 0.001 + 1.0, "{name}: {got} {expected}");
        }
    }

    #[test]
    fn a_second_keeps_measured_and_unmeasured_apart_and_shows_both() {
        let (mut second, mut side) = (Interval::new(), Side::new());
        second.time(1_000, false);
        second.time(2_000, true);
        record(&mut second.service, 500);
        side.add_seconds(&second);
        side.add_seconds(&second);
        assert_eq!((second.all_latencies().len(), side.latency.len(), side.service.len()), (2, 2, 2));
        second.clear();
        assert!(second.all_latencies().is_empty() && second.service.is_empty());
        second.time(300, true);
        assert_eq!((second.all_latencies().max(), second.all_latencies().min()), (300, 300), "a second does not know the one before");
    }

    #[test]
    fn an_empty_histogram_has_no_numbers() {
        assert_eq!(histogram_json(&histogram()), Value::Null);
    }

    #[test]
    fn error_sentences_are_counted_and_bounded() {
        let mut side = Side::new();
        for n in 0..100 {
            side.count_error(&format!("error {n}"));
            side.count_error("error 0");
        }
        assert!(side.errors.len() <= ERROR_KINDS_MAX + 1);
        assert_eq!(side.errors["error 0"], 101);
        assert_eq!(side.errors.values().sum::<u64>(), 200);
    }
}
