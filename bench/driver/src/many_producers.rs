//! Many connections with a record in flight each, against one that has as many in flight, which its producer puts into batches. Beside it stands what a raw ring and a raw
//! client do over as many connections, with nothing stored and nothing asked: more there is not, whatever the broker does.
//!
//! Invariants: the same keys on both sides, so the same partitions; a broker for each run, since who has sent once is remembered for hours, and the next run's producers would
//! be looked up among 40,000 more.
//!
//! Not here: the generator (`tools/loadgen`).

use crate::clients::{program, records_per_s};
use crate::error::BenchError;
use crate::many::keeps;
use crate::measures::{Figure, Goal, Measure};
use crate::runs::{Condition, Pair, RETENTION_BYTES, Runs};
use crate::stats::median;
use crate::target;
use std::path::Path;
use std::time::{Duration, Instant};

/// Connections, or records in flight of one.
const PRODUCERS: usize = 400;
/// Partitions over which the keys go.
const PARTITIONS: u32 = 100;
/// Runs of the raw side, and the length of each.
const RAW_RUNS: usize = 3;
const RAW_TIME: Duration = Duration::from_secs(2);
/// Room for the producers of one run in each partition.
const SETTINGS: [&str; 1] = ["producers.max=200000"];

impl Runs {
    /// The pairs: one producer, many of them.
    pub fn many_producers(&mut self, measure: Measure) -> Result<Vec<Pair>, BenchError> {
        let program = program()?;
        let (mut one, mut many) = (Vec::new(), Vec::new());
        let reference = |runs: &mut Runs| side(runs, &program, 1, PRODUCERS, &mut one);
        let pairs = self.alternate(measure, reference, |runs| side(runs, &program, PRODUCERS, 1, &mut many))?;
        let value = median(&many).unwrap_or(0.0) / median(&one).unwrap_or(0.0);
        self.conditions.push(Condition { name: "many_producers_of_shard", value, goal: Goal::NONE });
        let rate_of = |side: fn(&Pair) -> f64| median(&pairs.iter().map(side).collect::<Vec<_>>()).unwrap_or(0.0);
        let raw = self.raw_round_trips()?;
        let (ceiling, to_raw) = (raw / rate_of(|pair| pair.limit.value), rate_of(|pair| pair.broker.value) / raw);
        self.conditions.push(Condition { name: "many_producers_ceiling", value: ceiling, goal: Goal::NONE });
        self.conditions.push(Condition { name: "many_producers_to_raw", value: to_raw, goal: Goal::NONE });
        Ok(pairs)
    }

    /// 1,000 a second.
    fn raw_round_trips(&mut self) -> Result<f64, BenchError> {
        let mut rates = Vec::new();
        for _ in 0..RAW_RUNS {
            let figures = self.raw_figures("many-rtt", RAW_TIME, &[])?;
            rates.push(*figures.get("many_rtt_per_s").ok_or_else(|| BenchError::Limits("a figure is missing".to_owned()))?);
        }
        let rate = median(&rates).unwrap_or(0.0);
        eprintln!("tramline-bench:   raw: {rate:.0} round trips/s over {PRODUCERS} connections");
        Ok(rate / 1e3)
    }
}

/// One run. Adds to `capacities` what the shard would take in if it were busy all of the time.
fn side(runs: &Runs, program: &Path, producers: usize, outstanding: usize, capacities: &mut Vec<f64>) -> Result<Figure, BenchError> {
    let broker = runs.own.start("many-producers", &SETTINGS)?;
    broker.wait_for_pool(2)?;
    let target = target::create(&broker.address, "keyed", PARTITIONS, &keeps(RETENTION_BYTES, PARTITIONS))?;
    let busy_s = || broker.metric("tramline_shard_busy_seconds_total", "");
    let (of_producers, in_flight) = (producers.to_string(), outstanding.to_string());
    let arguments = ["--topic", "keyed", "--duration", "3s", "--warmup", "1s", "--size", "1024", "--level", "durable"];
    let shape = ["--keys", "100000", "--producers", &of_producers, "--outstanding", &in_flight];
    let (start, before_s) = (Instant::now(), busy_s()?);
    let rate = records_per_s(program, &broker.address, runs.limits.cpus[1], &[&arguments[..], &shape].concat())?;
    let busy_share = (busy_s()? - before_s) / start.elapsed().as_secs_f64();
    let busy_percent = busy_share * 100.0;
    eprintln!("tramline-bench:   {producers} producers: {rate:.0} records/s, the shard busy for {busy_percent:.0} % of the time");
    capacities.push(rate / busy_share);
    target::delete(&broker.address, &target)?;
    broker.stop()?;
    runs.own.remove("many-producers")?;
    Ok(Figure { value: rate / 1e3, p99_us: None })
}
