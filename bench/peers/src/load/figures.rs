//! What one trial of one cell comes to, and the median of several.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::fault::{Fallible, Told};

/// A minute: longer than any wait here.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Of the asked rate, what counts as held: the rest is the granularity of where a trial begins and ends.
const HELD_SHARE: f64 = 0.98;

/// Percentiles of the curves in the plots.
pub const CURVE: [f64; 9] = [1.0, 10.0, 25.0, 50.0, 75.0, 90.0, 99.0, 99.9, 100.0];

/// A histogram of nanoseconds.
pub fn histogram() -> Fallible<Histogram<u64>> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).told("histogram")
}

/// The figures of a trial. Times in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Records that count: after the warm-up.
    pub records: u64,
    /// Acknowledged (read, cycled) per second of the measured time.
    pub rate_per_s: f64,
    /// What was asked for in open loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked_per_s: Option<f64>,
    /// Whether the asked rate was held. Where not, latencies are a lower bound: records that were due and never sent have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<bool>,
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
    /// Latencies at the percentiles of [`CURVE`].
    pub curve_us: Vec<f64>,
    /// How late the generator handed records to the client (99th percentile): what is near the latency is not the broker's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generator_late_p99_us: Option<f64>,
    /// Records whose fate was not known at the end.
    pub unfinished: u64,
    /// Records that failed.
    pub failed: u64,
    /// The first reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Records under way at most (closed loop).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
    /// Processor time of the broker per record of the whole trial, warm-up included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_cpu_us_per_record: Option<f64>,
    /// The same of the generator with the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_cpu_us_per_record: Option<f64>,
    /// Syncs of the broker per acknowledged record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syncs_per_record: Option<f64>,
    /// Flushes that the disk was asked for meanwhile, by whomever, per acknowledged record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_flushes_per_record: Option<f64>,
    /// How the syncs were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counted_by: Option<String>,
}

impl Figures {
    /// With the latencies of a histogram of nanoseconds.
    pub fn of(latencies_ns: &Histogram<u64>, seconds: f64) -> Figures {
        let at = |percentile: f64| {
            if latencies_ns.is_empty() { 0.0 } else { latencies_ns.value_at_percentile(percentile) as f64 / 1000.0 }
        };
        Figures {
            records: latencies_ns.len(),
            rate_per_s: if seconds > 0.0 { latencies_ns.len() as f64 / seconds } else { 0.0 },
            p50_us: at(50.0),
            p99_us: at(99.0),
            p999_us: at(99.9),
            max_us: latencies_ns.max() as f64 / 1000.0,
            curve_us: CURVE.iter().map(|percentile| at(*percentile)).collect(),
            ..Figures::default()
        }
    }

    /// With an asked rate, and whether it was held.
    pub fn asked(mut self, rate_per_s: f64) -> Figures {
        self.asked_per_s = Some(rate_per_s);
        self.held = Some(self.rate_per_s >= HELD_SHARE * rate_per_s && self.unfinished == 0 && self.failed == 0);
        self
    }
}

/// Of several trials, each figure's median by itself; a rate was held when most trials held it.
pub fn median(trials: &[Figures]) -> Option<Figures> {
    let first = trials.first()?;
    let of = |get: &dyn Fn(&Figures) -> f64| middle(trials.iter().map(get).collect());
    let maybe = |get: &dyn Fn(&Figures) -> Option<f64>| {
        let there: Vec<f64> = trials.iter().filter_map(get).collect();
        (!there.is_empty()).then(|| middle(there))
    };
    let held_count = trials.iter().filter(|trial| trial.held == Some(true)).count();
    Some(Figures {
        records: of(&|trial| trial.records as f64) as u64,
        rate_per_s: of(&|trial| trial.rate_per_s),
        asked_per_s: first.asked_per_s,
        held: first.held.map(|_| held_count * 2 > trials.len()),
        p50_us: of(&|trial| trial.p50_us),
        p99_us: of(&|trial| trial.p99_us),
        p999_us: of(&|trial| trial.p999_us),
        max_us: of(&|trial| trial.max_us),
        curve_us: (0..first.curve_us.len()).map(|index| of(&|trial| trial.curve_us[index])).collect(),
        generator_late_p99_us: maybe(&|trial| trial.generator_late_p99_us),
        unfinished: trials.iter().map(|trial| trial.unfinished).sum(),
        failed: trials.iter().map(|trial| trial.failed).sum(),
        failure: trials.iter().find_map(|trial| trial.failure.clone()),
        window: maybe(&|trial| trial.window.map(|window| window as f64)).map(|window| window as usize),
        broker_cpu_us_per_record: maybe(&|trial| trial.broker_cpu_us_per_record),
        client_cpu_us_per_record: maybe(&|trial| trial.client_cpu_us_per_record),
        syncs_per_record: maybe(&|trial| trial.syncs_per_record),
        device_flushes_per_record: maybe(&|trial| trial.device_flushes_per_record),
        counted_by: first.counted_by.clone(),
    })
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len() % 2 == 1 { values[half] } else { (values[half - 1] + values[half]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(p50_us: f64, held: bool) -> Figures {
        Figures { p50_us, held: Some(held), curve_us: vec![p50_us], ..Figures::default() }
    }

    #[test]
    fn the_median_is_taken_figure_by_figure() {
        let odd = median(&[with(9.0, true), with(1.0, false), with(5.0, true)]).expect("there are some");
        assert_eq!((odd.p50_us, odd.held, odd.curve_us), (5.0, Some(true), vec![5.0]));
        let even = median(&[with(1.0, true), with(4.0, false)]).expect("there are some");
        assert_eq!((even.p50_us, even.held), (2.5, Some(false)), "half is not most");
        assert!(median(&[]).is_none());
    }

    #[test]
    fn percentiles_and_rate_come_from_the_histogram() {
        let mut latencies = histogram().expect("a histogram");
        (1..=1000u64).for_each(|us| latencies.record(us * 1000).expect("in range"));
        let figures = Figures::of(&latencies, 2.0).asked(500.0);
        assert_eq!((figures.records, figures.rate_per_s, figures.held), (1000, 500.0, Some(true)));
        assert!((figures.p50_us - 500.0).abs() < 2.0 && (figures.p99_us - 990.0).abs() < 2.0, "{figures:?}");
        assert!((figures.max_us - 1000.0).abs() < 2.0);
        assert_eq!(Figures::of(&latencies, 2.1).asked(500.0).held, Some(false), "476 of 500");
    }
}
