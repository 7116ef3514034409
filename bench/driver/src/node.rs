//! What a node costs its machine, and how long it is away: memory, and the start after a crash.
//!
//! Invariants: their limits are numbers that no machine changes; a start is timed from the moment the process is begun to the first acknowledged
//! record, and /readyz has to have said yes before.
//!
//! Not here: how much a load takes (`many.rs`).

use crate::batches::{self, BATCH_BYTES};
use crate::broker::Broker;
use crate::error::BenchError;
use crate::many::{PARTITIONS, keeps};
use crate::measures::Measure;
use crate::produce::{self, Rate, Until};
use crate::runs::{Pair, RETENTION_BYTES, Runs};
use crate::stats;
use crate::target::{self, Target};
use std::time::{Duration, Instant};

/// What an idle node may have beside its budgets.
const IDLE_MIB: f64 = 256.0;
/// How long it is idle before it is looked at.
const IDLE: Duration = Duration::from_secs(5);
/// A run at half load: its warming up (until what is dropped keeps pace with what comes), and its length.
const GROWTH_WARM_UP: Duration = Duration::from_secs(15);
const GROWTH_RUN: Duration = Duration::from_secs(30);
/// How often what is resident is looked at meanwhile.
const GROWTH_SAMPLE: Duration = Duration::from_millis(250);
/// What counts as no growth: allocators keep what a peak needed.
const GROWTH_MIB: f64 = 16.0;
/// Starts timed per amount of data.
const STARTS: u32 = 3;
/// How long a start may take.
const START_S: f64 = 2.0;
/// The load under which the process is killed, and how long it had it.
const KILL_GBPS: f64 = 0.2;
const KILL_AFTER: Duration = Duration::from_millis(400);

/// The data directory that the start-up measures let grow.
const AGED: &str = "aged";

impl Runs {
    /// An idle node whose 10,000 partitions each have something.
    pub fn memory_idle(&mut self, measure: Measure) -> Result<Vec<Pair>, BenchError> {
        let pair = self.beside_a_constant(measure, |runs| {
            let broker = runs.own.start("idle", &[])?;
            let many = target::create(&broker.address, "many", PARTITIONS, &[])?;
            let batch_bytes = batches::single(1)?.len() as u32;
            produce::throughput(&many, batch_bytes, 256, Until::Bytes(u64::from(2 * PARTITIONS * batch_bytes)))?;
            std::thread::sleep(IDLE);
            let budget = broker.metric("tramline_memory_bytes", "use=\"budget\"")? / f64::from(1 << 20);
            let resident = broker.resident_mib()?;
            eprintln!("tramline-bench:   {resident:.0} MiB resident, of which memory.bytes are {budget:.0}");
            broker.kill()?;
            Ok((resident, IDLE_MIB + budget))
        })?;
        self.own.remove("idle")?;
        Ok(vec![pair])
    }

    /// A run at half load over 10,000 partitions, retention and sorter at work: the median of what is resident in its last third, less that in its
    /// first. Not two single looks: the buffers of `memory.bytes` are at 0.92 to 1.13 of that from one second to the next (whoever needs a block
    /// where none is free at home makes other pages go), which told growths of -42 to 29 MiB while all the rest stayed at 10.9 MiB.
    pub fn memory_growth(&mut self, measure: Measure) -> Result<Vec<Pair>, BenchError> {
        let window = self.window;
        let pair = self.beside_a_constant(measure, |runs| {
            let broker = runs.own.start("growth", &[])?;
            let many = target::create(&broker.address, "many", PARTITIONS, &keeps(RETENTION_BYTES, PARTITIONS))?;
            let most = produce::throughput(&many, BATCH_BYTES, window, Until::Time(Duration::from_secs(2)))?;
            let half = |time| Rate { gbps: most.gbps / 2.0, batch_bytes: BATCH_BYTES, time };
            produce::open_loop(&many, half(GROWTH_WARM_UP), || Ok(()))?;
            let mut resident_mib = Vec::new();
            let mut due = Instant::now();
            let latency = produce::open_loop(&many, half(GROWTH_RUN), || {
                let now = Instant::now();
                if due <= now {
                    resident_mib.push(broker.resident_mib()?);
                    due = now + GROWTH_SAMPLE;
                }
                Ok(())
            })?;
            let third = resident_mib.len() / 3;
            let (first, last) = (&resident_mib[..third], &resident_mib[resident_mib.len() - third..]);
            let (Some(before), Some(after)) = (stats::median(first), stats::median(last)) else {
                return Err(BenchError::Wrong("the run was too short to look at the memory".to_owned()));
            };
            let peak = resident_mib.iter().copied().fold(0.0, f64::max);
            eprintln!(
                "tramline-bench:   {before:.1} MiB, {after:.1} MiB after {} s at {:.2} GB/s, {peak:.1} at most, p99 {:.0} us",
                GROWTH_RUN.as_secs(),
                half(GROWTH_RUN).gbps,
                latency.p99_us
            );
            broker.kill()?;
            Ok((after - before, GROWTH_MIB))
        })?;
        self.own.remove("growth")?;
        Ok(vec![pair])
    }

    /// Starts after kills under load, on a data directory of `gib` GiB that is kept for the next one of these measures.
    pub fn startup(&mut self, measure: Measure, gib: u64) -> Result<Vec<Pair>, BenchError> {
        let mut broker = self.own.start(AGED, &[])?;
        let mut many = match self.aged_gib {
            0 => target::create(&broker.address, "many", PARTITIONS, &[])?,
            _ => target::find(&broker.address, "many", PARTITIONS)?,
        };
        let more = gib.saturating_sub(self.aged_gib);
        if more > 0 {
            eprintln!("tramline-bench:   writing {more} GiB");
            produce::throughput(&many, BATCH_BYTES, self.window, Until::Bytes(more << 30))?;
            self.aged_gib = gib;
        }
        let mut pairs = Vec::new();
        for _ in 0..self.pairs.min(STARTS) {
            kill_under_load(broker, &many)?;
            let mut started = None;
            let pair = self.beside_a_constant(measure, |runs| {
                let (seconds, again) = timed_start(runs, &many)?;
                started = Some(again);
                Ok((seconds, START_S))
            })?;
            broker = started.ok_or_else(|| BenchError::Wrong("no start was timed".to_owned()))?;
            many.address = broker.address.clone();
            pairs.push(pair);
        }
        broker.kill()?;
        Ok(pairs)
    }
}

/// Ends the broker in the middle of a load, which fails by it.
fn kill_under_load(broker: Broker, many: &Target) -> Result<(), BenchError> {
    let rate = Rate { gbps: KILL_GBPS, batch_bytes: BATCH_BYTES, time: Duration::from_secs(60) };
    let start = Instant::now();
    let mut broker = Some(broker);
    let mut killed = Ok(());
    let ended = produce::open_loop(many, rate, || {
        if start.elapsed() > KILL_AFTER
            && let Some(broker) = broker.take()
        {
            killed = broker.kill();
        }
        Ok(())
    });
    killed?;
    match ended {
        Err(BenchError::Broker(_) | BenchError::Io(..)) if broker.is_none() => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(BenchError::Wrong("the load outlived the broker".to_owned())),
    }
}

/// Seconds from the beginning of the process to the first record acknowledged, and the process.
fn timed_start(runs: &Runs, many: &Target) -> Result<(f64, Broker), BenchError> {
    let start = Instant::now();
    let broker = runs.own.start(AGED, &[])?;
    let serving = start.elapsed();
    if !broker.is_ready()? {
        return Err(BenchError::Broker("it said that it is ready, and /readyz that it is not".to_owned()));
    }
    let first = Target { topic: many.topic.clone(), address: broker.address.clone(), uids: many.uids[..1].to_vec() };
    produce::throughput(&first, BATCH_BYTES, 1, Until::Bytes(1))?;
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("tramline-bench:   serving after {:.3} s, first record acknowledged after {seconds:.3} s", serving.as_secs_f64());
    Ok((seconds, broker))
}
