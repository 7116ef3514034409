//! Latency of durable produce at half of what the broker takes, against raw synced writes of as many bytes each at the same rate. The raw writer gathers what is due
//! while its writes are under way, as the broker does: one that did not would be behind for ever at this rate.
//!
//! Open loop on both sides: the time of a batch, and of a write, begins when it is due. What is compared is the 99.9th percentile; median and 99th percentile stand
//! beside it.
//!
//! Not here: the loads themselves (`produce.rs`, `tramline-limits`).

use crate::batches::BATCH_BYTES;
use crate::error::BenchError;
use crate::measures::{Figure, Goal, Measure};
use crate::produce;
use crate::runs::{Condition, Pair, Runs};
use crate::stats::{Quantiles, median};
use crate::target::Target;
use std::cell::RefCell;
use std::time::Duration;

/// Of the throughput in a closed loop.
const SHARE: f64 = 0.5;
/// Long enough that some dozens are slower than the slowest thousandth.
const TIME: Duration = Duration::from_secs(4);

impl Runs {
    /// The pairs: raw writes, produce.
    pub fn half_load(&mut self, measure: Measure, target: &Target) -> Result<Vec<Pair>, BenchError> {
        let rate = produce::Rate { time: TIME, ..self.share_of(target, SHARE)? };
        let (raw_p50s, p50s) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
        let run = |_: &mut Runs| {
            let seen = produce::open_loop(target, rate, || Ok(()))?;
            let Quantiles { p50_us, p99_us, p999_us, .. } = seen;
            eprintln!("tramline-bench:   produce: median {p50_us:.0} us, p99 {p99_us:.0} us, p99.9 {p999_us:.0} us");
            p50s.borrow_mut().push(seen.p50_us);
            Ok(Figure { value: seen.p999_us, p99_us: Some(seen.p99_us) })
        };
        let pairs = self.alternate(
            measure,
            |runs| {
                let (figure, p50_us) = runs.raw_writes(measure, rate.gbps)?;
                raw_p50s.borrow_mut().push(p50_us);
                Ok(figure)
            },
            run,
        )?;
        let of = |values: &RefCell<Vec<f64>>| median(&values.borrow()).unwrap_or(0.0);
        let value = of(&p50s) / of(&raw_p50s);
        self.conditions.push(Condition { name: "durable_half_load_p50", value, goal: Goal { at_least: None, at_most: None } });
        Ok(pairs)
    }

    /// 99.9th and 99th percentile, and the median.
    fn raw_writes(&mut self, measure: Measure, gbps: f64) -> Result<(Figure, f64), BenchError> {
        self.broker.pause()?;
        let arguments = ["--beside-write-bytes", &BATCH_BYTES.to_string(), "--beside-write-gbps", &gbps.to_string()].map(str::to_owned);
        let figures = self.limits.for_seconds(TIME.as_secs_f64()).run_with("open-writes", &arguments);
        self.broker.resume()?;
        let figures = figures?;
        let figure = measure.bound(&figures).ok_or_else(|| BenchError::Limits("a figure is missing".to_owned()))?;
        let get = |name: &str| figures.get(name).copied().unwrap_or(0.0);
        eprintln!(
            "tramline-bench:   raw: median {:.0} us, p99 {:.0} us, p99.9 {:.0} us, writing {:.3} GB/s",
            get("open_p50_us"),
            get("open_p99_us"),
            get("open_p999_us"),
            get("open_write_gbps")
        );
        let p50_us = get("open_p50_us");
        self.all_limits.push(figures);
        Ok((figure, p50_us))
    }
}
