//! Latency of durable produce at half of what the broker takes, against raw synced writes of as many bytes each at the same rate. The raw writer gathers what is due
//! while its writes are under way, as the broker does: one that did not was behind at this rate in most runs.
//!
//! Open loop on both sides: the time of a batch, and of a write, begins when it is due. What is compared is the 99.9th percentile; median and 99th percentile stand
//! beside it. A broker has a client on the other core, which spins; a raw writer has that core to itself, and the kernel its workers there. What this alone costs is
//! told by the same raw writes beside a thread that does nothing but give the client's core away again and again (`durable_half_load_p999_to_busy`, not wanted to be anything).
//!
//! Not here: the loads themselves (`produce.rs`, `tramline-limits`).

use crate::batches::BATCH_BYTES;
use crate::error::BenchError;
use crate::measures::{Figure, Goal, Measure};
use crate::produce;
use crate::runs::{Condition, Pair, Runs};
use crate::stats::{Quantiles, median};
use crate::target::Target;
use std::sync::Arc;
use std::time::Duration;

const P50: &str = "open_p50_us";
/// Of the throughput in a closed loop.
const SHARE: f64 = 0.5;
/// Long enough that some dozens are slower than the slowest thousandth.
const TIME: Duration = Duration::from_secs(4);

impl Runs {
    /// The pairs: raw writes, produce.
    pub fn half_load(&mut self, measure: Measure, target: &Target) -> Result<Vec<Pair>, BenchError> {
        let rate = produce::Rate { time: TIME, ..self.share_of(target, SHARE)? };
        let arguments =
            ["--beside-write-bytes", &BATCH_BYTES.to_string(), "--beside-write-gbps", &rate.gbps.to_string()].map(str::to_owned);
        let (mut raw_p50s, mut p50s) = (Vec::new(), Vec::new());
        let reference = |runs: &mut Runs| {
            let (figure, seen) = runs.raw_load(measure, "open-writes", TIME, &arguments)?;
            let get = |name: &str| seen.get(name).copied().unwrap_or(0.0);
            let (p50_us, gbps) = (get(P50), get("open_write_gbps"));
            tell("raw", p50_us, &figure);
            eprintln!("tramline-bench:   raw: {gbps:.3} GB/s");
            raw_p50s.push(p50_us);
            Ok(figure)
        };
        let subject = |_: &mut Runs| {
            let Quantiles { p50_us, p99_us, p999_us, .. } = produce::open_loop(target, rate, || Ok(()))?;
            let figure = Figure { value: p999_us, p99_us: Some(p99_us) };
            tell("produce", p50_us, &figure);
            p50s.push(p50_us);
            Ok(figure)
        };
        let pairs = self.alternate(measure, reference, subject)?;
        let value = median(&p50s).unwrap_or(0.0) / median(&raw_p50s).unwrap_or(0.0);
        self.conditions.push(Condition { name: "durable_half_load_p50", value, goal: Goal::NONE });
        let mut beside_busy = Vec::new();
        for _ in &pairs {
            let (figure, seen) = beside_a_busy_core(|| self.raw_load(measure, "open-writes", TIME, &arguments))?;
            tell("raw, the client's core busy", seen.get(P50).copied().unwrap_or(0.0), &figure);
            beside_busy.push(figure.value);
        }
        let broker: Vec<f64> = pairs.iter().map(|pair| pair.broker.value).collect();
        let value = median(&broker).unwrap_or(0.0) / median(&beside_busy).unwrap_or(0.0);
        self.conditions.push(Condition { name: "durable_half_load_p999_to_busy", value, goal: Goal::NONE });
        Ok(pairs)
    }
}

/// Runs it while this thread's core, which is the client's, is given away again and again, as a client does that has nothing to do.
fn beside_a_busy_core<T>(run: impl FnOnce() -> T) -> T {
    let running = Arc::new(());
    let seen = Arc::downgrade(&running);
    let busy = std::thread::spawn(move || {
        while seen.strong_count() > 0 {
            std::thread::yield_now();
        }
    });
    let got = run();
    drop(running);
    busy.join().expect("it only yields");
    got
}

fn tell(who: &str, p50_us: f64, figure: &Figure) {
    let p99_us = figure.p99_us.unwrap_or(0.0);
    eprintln!("tramline-bench:   {who}: median {p50_us:.0} us, p99 {p99_us:.0} us, p99.9 {:.0} us", figure.value);
}
