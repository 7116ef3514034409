//! Latency of durable produce while something else works on the same disk: consumers that replay cold data, or the sorter.
//!
//! Invariants: what disturbs is measured too, alone and beside the load: whoever stands aside altogether disturbs nobody.
//!
//! Not here: the loads themselves (`produce.rs`, `replay.rs`).

use crate::batches::BATCH_BYTES;
use crate::broker::Broker;
use crate::error::BenchError;
use crate::many::{MODERATE_SHARE, keeps, p99};
use crate::measures::{Figure, Goal, Measure};
use crate::produce::{self, Rate, Until};
use crate::replay::Replay;
use crate::runs::{Condition, Pair, RETENTION_BYTES, Runs};
use crate::stats::median;
use crate::target::{self, Target};
use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

/// What disturbs has to go on at this share of the rate it has alone.
const SHARE_MIN: f64 = 0.3;

/// The broker of the sorter's measure: jobs of half as many segments as by default, so that one is soon written; producers are not slowed for the
/// backlog, and there is no scrubber, since reads are counted.
const SORTER_ON: [&str; 4] = ["pool.segments=6", "scrub.bytes.per.second=0B", "sorter.debt.bytes=1TiB", "sorter.segments=8"];
const SORTER_OFF: [&str; 4] = ["pool.segments=6", "scrub.bytes.per.second=0B", "sorter.debt.bytes=1TiB", "sorter.segments=0"];
/// Partitions of the backlog: batches of each lie some 256 MiB apart, so that hardly two of one are in the same segment.
const BACKLOG_PARTITIONS: u32 = 4000;
/// Written before the first run, and again before each: more than a run sorts at the default rate of 256 MiB/s.
const BACKLOG_BYTES: u64 = 3 << 30;
const BACKLOG_MORE_BYTES: u64 = 1280 << 20;
/// What the backlog's topic keeps, so that the disk does not fill with what was sorted.
const BACKLOG_KEPT_BYTES: u64 = 8 << 30;
/// Segments prepared before a run, and the time after a start or a flood of data in which nothing is measured.
const SETTLED_POOL: u32 = 2;
const SETTLE: Duration = Duration::from_millis(700);
/// How long the sorter may take to begin.
const SORTER_PATIENCE: Duration = Duration::from_secs(10);

/// What the broker did to the disk.
#[derive(Clone, Copy, Debug, Default)]
struct DiskUse {
    write_bytes: f64,
    writes: f64,
    read_bytes: f64,
    reads: f64,
    seconds: f64,
}

impl DiskUse {
    fn so_far(broker: &Broker) -> Result<DiskUse, BenchError> {
        Ok(DiskUse {
            write_bytes: broker.metric("tramline_log_write_bytes_total", "")?,
            writes: broker.metric("tramline_log_blocks_written_total", "")?,
            read_bytes: broker.metric("tramline_log_read_bytes_total", "")?,
            reads: broker.metric("tramline_log_reads_total", "")?,
            seconds: 0.0,
        })
    }

    fn since(&self, before: &DiskUse, seconds: f64) -> DiskUse {
        DiskUse {
            write_bytes: self.write_bytes - before.write_bytes,
            writes: self.writes - before.writes,
            read_bytes: self.read_bytes - before.read_bytes,
            reads: self.reads - before.reads,
            seconds,
        }
    }

    /// The same sizes and rates for `tramline-limits`.
    fn arguments(&self) -> Vec<String> {
        let named = [
            ("--beside-write-bytes", (self.write_bytes / self.writes).ceil()),
            ("--beside-write-gbps", self.write_bytes / self.seconds / 1e9),
            ("--beside-read-bytes", (self.read_bytes / self.reads).ceil()),
            ("--beside-read-gbps", self.read_bytes / self.seconds / 1e9),
        ];
        named.iter().flat_map(|(name, value)| [(*name).to_owned(), value.to_string()]).collect()
    }
}

impl Runs {
    /// Produce beside four consumers that replay, against raw writes beside raw reads of the same sizes at the same rates.
    pub fn replay_disturbance(&mut self, measure: Measure, cold: &Target) -> Result<Vec<Pair>, BenchError> {
        let (end, other) = self.write_cold(cold)?;
        let address = self.broker.address.clone();
        let load = target::create(&address, "bench-replay-load", 1, &keeps(RETENTION_BYTES, 1))?;
        self.broker.wait_for_pool(self.pool_segments)?;
        let rate = self.share_of(&load, MODERATE_SHARE)?;
        let used = Cell::new(DiskUse::default());
        let shares = RefCell::new(Vec::new());
        let run = |runs: &mut Runs| replay_run(runs, &load, cold, end, rate, &used, &shares);
        // Once before it counts: the raw side has to know what to do.
        run(self)?;
        shares.borrow_mut().clear();
        let pairs = self.alternate(measure, |runs| runs.raw_beside_reads(measure, &used.get(), rate.time), run)?;
        self.add_share("replay_disturbance_rate", &shares.borrow());
        self.limits.read_file = None;
        target::delete(&address, &load)?;
        target::delete(&address, &other)?;
        Ok(pairs)
    }

    fn add_share(&mut self, name: &'static str, shares: &[f64]) {
        let value = median(shares).unwrap_or(0.0);
        self.conditions.push(Condition { name, value, goal: Goal { at_least: Some(SHARE_MIN), at_most: None } });
    }

    fn raw_beside_reads(&mut self, measure: Measure, used: &DiskUse, time: Duration) -> Result<Figure, BenchError> {
        let (figure, figures) = self.raw_load(measure, "write-beside-reads", time, &used.arguments())?;
        let get = |name: &str| figures.get(name).copied().unwrap_or(0.0);
        eprintln!(
            "tramline-bench:   raw: median {:.0} us, p99 {:.0} us, writing {:.3} GB/s in {:.0} KiB, reading {:.3} GB/s in {:.0} KiB",
            get("beside_p50_us"),
            get("beside_p99_us"),
            get("beside_write_gbps"),
            used.write_bytes / used.writes / 1024.0,
            get("beside_read_gbps"),
            used.read_bytes / used.reads / 1024.0,
        );
        Ok(figure)
    }

    /// Produce while the sorter works, against the same while it does not.
    pub fn sorter_disturbance(&mut self, measure: Measure) -> Result<Vec<Pair>, BenchError> {
        let broker = self.own.start("sorter", &SORTER_OFF)?;
        let backlog = target::create(&broker.address, "backlog", BACKLOG_PARTITIONS, &keeps(BACKLOG_KEPT_BYTES, BACKLOG_PARTITIONS))?;
        let load = target::create(&broker.address, "load", 1, &keeps(RETENTION_BYTES / 2, 1))?;
        produce::throughput(&backlog, BATCH_BYTES, self.window, Until::Bytes(BACKLOG_BYTES))?;
        settle(&broker)?;
        let rate = self.share_of(&load, MODERATE_SHARE)?;
        broker.stop()?;
        let shares = RefCell::new(Vec::new());
        let calm = |runs: &mut Runs| calm_run(runs, &backlog, &load, rate);
        let pairs = self.alternate(measure, calm, |runs| sorting_run(runs, &load, rate, &shares))?;
        self.add_share("sorter_disturbance_rate", &shares.borrow());
        self.own.remove("sorter")?;
        Ok(pairs)
    }
}

/// One run beside replaying consumers.
fn replay_run(
    runs: &Runs,
    load: &Target,
    cold: &Target,
    end: u64,
    rate: Rate,
    used: &Cell<DiskUse>,
    shares: &RefCell<Vec<f64>>,
) -> Result<Figure, BenchError> {
    let broker = &runs.broker;
    let mut replay = Replay::begin(cold, end)?;
    let from_disk = broker.disk_read_bytes()?;
    let alone = replay.alone(rate.time / 2)?;
    let before = DiskUse::so_far(broker)?;
    let (start, bytes) = (Instant::now(), replay.bytes);
    let latency = produce::open_loop(load, rate, || replay.poll())?;
    let seconds = start.elapsed().as_secs_f64();
    used.set(DiskUse::so_far(broker)?.since(&before, seconds));
    let beside = (replay.bytes - bytes) as f64 / seconds / 1e9;
    let from_disk = broker.disk_read_bytes()?.saturating_sub(from_disk);
    if from_disk < replay.bytes / 10 * 9 {
        return Err(BenchError::Wrong(format!("only {from_disk} of {} bytes came from the disk: not cold", replay.bytes)));
    }
    eprintln!(
        "tramline-bench:   latency: median {:.0} us, p99 {:.0} us; replay: {beside:.3} GB/s of {alone:.3} alone",
        latency.p50_us, latency.p99_us
    );
    shares.borrow_mut().push(beside / alone);
    Ok(Figure { value: latency.p99_us, p99_us: None })
}

/// One run without the sorter, on more of a backlog.
fn calm_run(runs: &Runs, backlog: &Target, load: &Target, rate: Rate) -> Result<Figure, BenchError> {
    let broker = runs.own.start("sorter", &SORTER_OFF)?;
    produce::throughput(&on(&broker, backlog), BATCH_BYTES, runs.window, Until::Bytes(BACKLOG_MORE_BYTES))?;
    settle(&broker)?;
    let figure = p99(&on(&broker, load), rate)?;
    broker.stop()?;
    Ok(figure)
}

/// One run while the sorter works.
fn sorting_run(runs: &Runs, load: &Target, rate: Rate, shares: &RefCell<Vec<f64>>) -> Result<Figure, BenchError> {
    let broker = runs.own.start("sorter", &SORTER_ON)?;
    let read = || broker.metric("tramline_log_read_bytes_total", "");
    let start = Instant::now();
    while read()? == 0.0 {
        if start.elapsed() > SORTER_PATIENCE {
            return Err(BenchError::Silent("waiting for the sorter to begin"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    settle(&broker)?;
    let (since, before) = (Instant::now(), read()?);
    std::thread::sleep(rate.time / 2);
    let alone = (read()? - before) / since.elapsed().as_secs_f64() / 1e9;
    let (since, before) = (Instant::now(), read()?);
    let latency = produce::open_loop(&on(&broker, load), rate, || Ok(()))?;
    let beside = (read()? - before) / since.elapsed().as_secs_f64() / 1e9;
    eprintln!(
        "tramline-bench:   latency: median {:.0} us, p99 {:.0} us; the sorter reads {beside:.3} GB/s of {alone:.3} alone",
        latency.p50_us, latency.p99_us
    );
    shares.borrow_mut().push(beside / alone);
    broker.stop()?;
    Ok(Figure { value: latency.p99_us, p99_us: None })
}

/// The target where this start of the broker is.
fn on(broker: &Broker, target: &Target) -> Target {
    Target { address: broker.address.clone(), ..target.clone() }
}

/// Waits until a start or a flood of data is over: segments prepared, and a rest.
fn settle(broker: &Broker) -> Result<(), BenchError> {
    broker.wait_for_pool(SETTLED_POOL)?;
    std::thread::sleep(SETTLE);
    Ok(())
}
