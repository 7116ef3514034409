//! Ten thousand partitions against one.
//!
//! Not here: how batches are sent (`produce.rs`), what counts as a pair (`runs.rs`).

use crate::batches::{self, BATCH_BYTES};
use crate::broker::Broker;
use crate::error::BenchError;
use crate::measures::{Figure, Measure};
use crate::produce::{self, Rate, Until};
use crate::runs::{Pair, RETENTION_BYTES, Runs};
use crate::target::{self, Target};
use std::time::{Duration, Instant};

/// Partitions of the one topic: the most that a topic may have.
pub const PARTITIONS: u32 = 10_000;
/// Requests of 1 KiB in flight: as many bytes as a few large ones.
const SMALL_WINDOW: usize = 1024;
/// Share of the throughput that is a moderate load.
pub const MODERATE_SHARE: f64 = 1.0 / 3.0;

/// The broker of the sustained measure: segments so small that ten times the pool fit into some seconds, and a sorter whose rate is the
/// machine's.
const SUSTAINED_SETTINGS: [&str; 4] = ["segment.bytes=64MiB", "pool.segments=6", "sorter.bytes.per.second=16GiB", "tail.cache.bytes=64MiB"];
const SUSTAINED_POOL_BYTES: u64 = 6 * (64 << 20);
/// What the 10,000 partitions keep together: as much as one run writes, so that nothing expires before it was sorted.
const SUSTAINED_KEPT_BYTES: u64 = 10 * SUSTAINED_POOL_BYTES;
/// Who reads nothing for so long has nothing to sort: the sorter looks each second.
const SORTER_IDLE: Duration = Duration::from_millis(1500);
/// How long the sorter may take behind the last write.
const SORTER_PATIENCE: Duration = Duration::from_secs(120);

/// The setting that lets a topic of `partitions` keep `bytes` in all.
pub fn keeps(bytes: u64, partitions: u32) -> [(&'static str, String); 1] {
    [("retention.bytes", (bytes / u64::from(partitions)).to_string())]
}

impl Runs {
    /// Throughput at one batch size.
    pub fn many_throughput(&mut self, measure: Measure, one: &Target) -> Result<Vec<Pair>, BenchError> {
        let address = self.broker.address.clone();
        let many = target::create(&address, &format!("bench-{}-many", measure.name()), PARTITIONS, &keeps(RETENTION_BYTES, PARTITIONS))?;
        let (batch_bytes, window) = match measure {
            Measure::Partitions10000Small => (batches::single(1)?.len() as u32, SMALL_WINDOW),
            _ => (BATCH_BYTES, self.window),
        };
        // Each of the partitions has to receive something: 640 MB of large batches.
        let time = self.time * 2;
        let run = |target: &Target| {
            let seen = produce::throughput(target, batch_bytes, window, Until::Time(time))?;
            Ok(Figure { value: seen.gbps, p99_us: Some(seen.latency.p99_us) })
        };
        let pairs = self.alternate(measure, |_| run(one), |_| run(&many))?;
        target::delete(&address, &many)?;
        Ok(pairs)
    }

    /// Latency at a moderate load.
    pub fn many_p99(&mut self, measure: Measure, one: &Target) -> Result<Vec<Pair>, BenchError> {
        let address = self.broker.address.clone();
        let many = target::create(&address, "bench-partitions-10000-p99-many", PARTITIONS, &keeps(RETENTION_BYTES, PARTITIONS))?;
        let rate = self.share_of(one, MODERATE_SHARE)?;
        let run = |target: &Target| p99(target, rate);
        let pairs = self.alternate(measure, |_| run(one), |_| run(&many))?;
        target::delete(&address, &many)?;
        Ok(pairs)
    }

    /// This share of what the target takes in a closed loop.
    pub fn share_of(&self, target: &Target, share: f64) -> Result<Rate, BenchError> {
        let most = produce::throughput(target, BATCH_BYTES, self.window, Until::Time(self.time * 2))?;
        let gbps = most.gbps * share;
        eprintln!("tramline-bench:   load: {gbps:.3} GB/s of {:.3}", most.gbps);
        Ok(Rate { gbps, batch_bytes: BATCH_BYTES, time: self.time * 2 })
    }

    /// Ten times the pool, and until the sorter is through with it.
    pub fn many_sustained(&mut self, measure: Measure) -> Result<Vec<Pair>, BenchError> {
        let broker = self.own.start("sustained", &SUSTAINED_SETTINGS)?;
        broker.wait_for_pool(6)?;
        let one = target::create(&broker.address, "one", 1, &keeps(RETENTION_BYTES, 1))?;
        let many = target::create(&broker.address, "many", PARTITIONS, &keeps(SUSTAINED_KEPT_BYTES, PARTITIONS))?;
        let window = self.window;
        let reference = |_: &mut Runs| {
            let seen = produce::throughput(&one, BATCH_BYTES, window, Until::Bytes(10 * SUSTAINED_POOL_BYTES))?;
            Ok(Figure { value: seen.gbps, p99_us: Some(seen.latency.p99_us) })
        };
        let pairs = self.alternate(measure, reference, |_| sustained(&broker, &many, window))?;
        broker.kill()?;
        self.own.remove("sustained")?;
        Ok(pairs)
    }
}

fn sustained(broker: &Broker, many: &Target, window: usize) -> Result<Figure, BenchError> {
    let bytes = 10 * SUSTAINED_POOL_BYTES;
    let sorted_before = broker.metric("tramline_sorter_bytes_total", "")?;
    let start = Instant::now();
    let seen = produce::throughput(many, BATCH_BYTES, window, Until::Bytes(bytes))?;
    let written = start.elapsed();
    let over = wait_for_sorter(broker)?;
    let sorted = broker.metric("tramline_sorter_bytes_total", "")? - sorted_before;
    eprintln!(
        "tramline-bench:   written at {:.3} GB/s, the sorter was through {:.1} s later with {:.2} GB",
        seen.gbps,
        over.saturating_duration_since(start + written).as_secs_f64(),
        sorted / 1e9
    );
    if sorted < bytes as f64 / 2.0 {
        return Err(BenchError::Wrong(format!("the sorter moved only {sorted} of {bytes} bytes")));
    }
    let seconds = over.saturating_duration_since(start).max(written).as_secs_f64();
    Ok(Figure { value: bytes as f64 / seconds / 1e9, p99_us: Some(seen.latency.p99_us) })
}

/// Waits until the sorter reads nothing any more; answers when it did last.
fn wait_for_sorter(broker: &Broker) -> Result<Instant, BenchError> {
    let start = Instant::now();
    let (mut read, mut last) = (broker.metric("tramline_log_read_bytes_total", "")?, start);
    while last.elapsed() < SORTER_IDLE {
        if start.elapsed() > SORTER_PATIENCE {
            return Err(BenchError::Silent("waiting for the sorter to be through"));
        }
        std::thread::sleep(Duration::from_millis(50));
        let now = broker.metric("tramline_log_read_bytes_total", "")?;
        // The scrubber reads a little all the time, where it runs.
        if now - read > 1e6 {
            (read, last) = (now, Instant::now());
        }
    }
    Ok(last)
}

/// 99th percentile of the latency at `rate`.
pub fn p99(target: &Target, rate: Rate) -> Result<Figure, BenchError> {
    let latency = produce::open_loop(target, rate, || Ok(()))?;
    eprintln!("tramline-bench:   latency: median {:.0} us, p99 {:.0} us", latency.p50_us, latency.p99_us);
    Ok(Figure { value: latency.p99_us, p99_us: None })
}
