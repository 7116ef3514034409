//! The order of things: what is prepared for each measure, and limits and broker in turns.
//!
//! Invariants: while `tramline-limits` runs the broker is halted; each pair's limit is the mean of the one measured right before
//! and the one right after the broker; a pair in which others disturbed, or during which the processors were moved, is taken
//! again while there is time, and the least disturbed ones count.

use crate::batches::BATCH_BYTES;
use crate::broker::{Broker, BrokerOptions};
use crate::cluster::Cluster;
use crate::contention::{UNDISTURBED_SHARE, Watch};
use crate::distance::{BETWEEN, Looks, look};
use crate::error::{BenchError, io_error};
use crate::limits::Limits;
use crate::many::keeps;
use crate::measures::{Figure, Goal, Measure};
use crate::produce::{self, Until};
use crate::target::{self, Target};
use crate::{fetch, rtt};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tramline_wire::level::Level;

/// Bytes of the newest data that the tail consumer reads: what a consumer that keeps up finds there, well within the cache.
const TAIL_BYTES: u64 = 64 << 20;
/// How often newer data are written when those written last do not come from memory.
const TAIL_ATTEMPTS: u32 = 4;
/// What the throughput topic keeps, so that space is used again as in steady state.
pub const RETENTION_BYTES: u64 = 1 << 30;

/// At most this many times as many pairs are tried as are wanted.
const TRIES_PER_PAIR: u32 = 8;

/// Disturbed pairs of measures with a broker of their own are repeated within this time only: there are many of them.
const REPEAT_OWN_WITHIN: Duration = Duration::from_secs(60);
/// Pairs of a measure whose runs are as long as that of a whole pool's worth, at the most.
const LONG_PAIRS: u32 = 3;

/// Seconds per point of a TCP stream that is measured again beside each run of the broker, and of that run: short, so that the processors are
/// seldom moved during one.
const BESIDE_SECONDS: f64 = 0.1;
const RUN_BESIDE: Duration = Duration::from_millis(400);

/// How much the processors' distance may differ within a pair, the largest to the smallest. They are near (60 or 130 ns) or far (350).
const MOVED_RATIO: f64 = 2.5;
/// How far apart the references before and after may be, as the larger to the smaller.
const STEADY_RATIO: f64 = 1.4;

/// One pair.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// Of the machine, or of the broker over one partition.
    pub limit: Figure,
    /// Of the broker.
    pub broker: Figure,
    /// Share of the time in which something waited for a processor: the worst of the broker's run (not of three nodes') and its two neighbours.
    pub waited_share: f64,
    /// The larger of the limits before and after to the smaller.
    pub limits_ratio: f64,
    /// The processors' distance, the largest of the looks during the three runs to the smallest.
    pub distance_ratio: f64,
    /// Its median, nanoseconds there and back.
    pub distance_ns: f64,
}

impl Pair {
    fn of(before: &Seen, seen: &Seen, after: &Seen) -> Pair {
        let (first, second) = (before.figure.value, after.figure.value);
        let mut distances = [before, seen, after].map(|run| run.distances.as_slice()).concat();
        distances.sort_by(f64::total_cmp);
        Pair {
            limit: mean(before.figure, after.figure),
            broker: seen.figure,
            waited_share: before.waited_share.max(seen.waited_share).max(after.waited_share),
            limits_ratio: first.max(second) / first.min(second),
            // All looks held up: nothing is known, which is no reason to throw the pair away.
            distance_ratio: distances.last().zip(distances.first()).map_or(1.0, |(far, near)| far / near),
            distance_ns: distances.get(distances.len() / 2).copied().unwrap_or(0.0),
        }
    }

    /// The machine during this pair, for people.
    fn machine_words(&self) -> String {
        let mut words = format!(", processors {:.0} ns apart", self.distance_ns);
        if self.distance_ratio > MOVED_RATIO {
            words += &format!(" (they were moved: factor {:.1})", self.distance_ratio);
        }
        if self.waited_share > UNDISTURBED_SHARE {
            words += &format!(" (others disturbed {:.0} % of the time)", self.waited_share * 100.0);
        }
        if self.limits_ratio > STEADY_RATIO {
            words += &format!(" (the limits before and after differ: factor {:.1})", self.limits_ratio);
        }
        words
    }

    fn tell(&self, number: usize, measure: Measure) {
        eprintln!(
            "tramline-bench:   pair {number}: limit {:.2} {unit}, tramline {:.2} {unit}, ratio {:.2}{}",
            self.limit.value,
            self.broker.value,
            self.broker.value / self.limit.value,
            self.machine_words(),
            unit = measure.unit()
        );
    }

    /// What speaks against it; nothing of what is below the marks.
    fn doubt(&self) -> f64 {
        (self.waited_share - UNDISTURBED_SHARE).max(0.0)
            + (self.limits_ratio - STEADY_RATIO).max(0.0)
            + (self.distance_ratio - MOVED_RATIO).max(0.0)
    }
}

/// A run, and how much others disturbed it.
#[derive(Clone, Debug)]
pub struct Seen {
    figure: Figure,
    waited_share: f64,
    /// The processors' distance meanwhile, nanoseconds.
    distances: Vec<f64>,
}

/// A figure beside a measure's ratio that has to reach something too.
#[derive(Clone, Debug)]
pub struct Condition {
    /// Its name in the result file.
    pub name: &'static str,
    /// What was seen (a median).
    pub value: f64,
    /// What it has to be.
    pub goal: Goal,
}

/// How brokers are started that only one measure uses.
#[derive(Debug)]
pub struct OwnBrokers {
    /// The binary.
    pub binary: PathBuf,
    /// Holds their data directories.
    pub dir: PathBuf,
    /// Where the process id of the one that runs is written.
    pub pid_file: PathBuf,
    /// Their one core.
    pub cpu: usize,
    /// `--spin`.
    pub spin: String,
    /// The processors that this program may use; the thread that measures has only one of them.
    pub allowed: CpuSet,
}

impl OwnBrokers {
    /// Starts one on the data directory `name`.
    pub fn start(&self, name: &str, settings: &[&str]) -> Result<Broker, BenchError> {
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let place = Place { name, pid_file: self.pid_file.clone(), cpu: self.cpu, spin: &self.spin, arguments: &[] };
        self.start_at(&place, &settings)
    }

    /// Starts one of several.
    pub fn start_at(&self, place: &Place<'_>, settings: &[String]) -> Result<Broker, BenchError> {
        let data_dir = self.dir.join(place.name);
        std::fs::create_dir_all(&data_dir).map_err(io_error("cannot make a data directory"))?;
        let options = BrokerOptions {
            binary: &self.binary,
            data_dir: &data_dir,
            cpu: place.cpu,
            spin: place.spin,
            settings,
            pid_file: &place.pid_file,
            arguments: place.arguments,
        };
        // A process inherits the processors of the thread that begins it.
        let start = || {
            sched_setaffinity(None, &self.allowed).map_err(|e| BenchError::Io("cannot use all processors", e.into()))?;
            Broker::start(&options)
        };
        let joined = std::thread::scope(|scope| scope.spawn(start).join());
        joined.map_err(|_| BenchError::Wrong("the thread that starts a broker panicked".to_owned()))?
    }

    /// Gives the space of a data directory back.
    pub fn remove(&self, name: &str) -> Result<(), BenchError> {
        std::fs::remove_dir_all(self.dir.join(name)).map_err(io_error("cannot remove a data directory"))
    }
}

/// What tells brokers that run at once apart.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// Its data directory.
    pub name: &'a str,
    /// Where its process id is written.
    pub pid_file: PathBuf,
    /// Its one core.
    pub cpu: usize,
    /// `--spin`.
    pub spin: &'a str,
    /// Further arguments.
    pub arguments: &'a [String],
}

/// Everything the measures share.
#[derive(Debug)]
pub struct Runs {
    /// The broker under test.
    pub broker: Broker,
    /// The yardstick.
    pub limits: Limits,
    /// Pairs per measure.
    pub pairs: u32,
    /// Prepared segments that the broker shall have before each measure.
    pub pool_segments: u32,
    /// Length of one of the broker's runs.
    pub time: Duration,
    /// Time for the pairs of one measure, as long as it has enough of them.
    pub repeat_within: Duration,
    /// No pair of this measure is repeated after this.
    pub repeat_until: Instant,
    /// Requests in flight.
    pub window: usize,
    /// The broker's tail cache.
    pub cache_bytes: u64,
    /// Where the broker's files are.
    pub data_dir: PathBuf,
    /// The limits' figures of this measure so far.
    pub measured: Option<BTreeMap<String, f64>>,
    /// Every run of the limits.
    pub all_limits: Vec<BTreeMap<String, f64>>,
    /// Brokers with settings of their own.
    pub own: OwnBrokers,
    /// What the measures so far have to reach beside their ratios.
    pub conditions: Vec<Condition>,
    /// GiB that the data directory of the start-up measures holds.
    pub aged_gib: u64,
    /// The settings of `broker`.
    pub settings: Vec<String>,
    /// Three nodes with these settings, as long as the measures that follow one another use them.
    pub cluster: Option<Cluster>,
}

impl Runs {
    /// The pairs of one measure: limit, broker.
    pub fn measure(&mut self, measure: Measure) -> Result<Vec<Pair>, BenchError> {
        let topic = format!("bench-{}", measure.name());
        // The measure before this one may have failed while it was halted; a process that goes on already does not notice.
        self.broker.resume()?;
        if !measure.is_replicated() {
            self.cluster = None;
        }
        if measure.has_own_broker() {
            self.repeat_until = Instant::now() + self.repeat_within.min(REPEAT_OWN_WITHIN);
            self.broker.pause()?;
            let pairs = self.with_own_broker(measure);
            self.broker.resume()?;
            return pairs;
        }
        // The measure before this one may have used the prepared segments up, and its data are being freed.
        self.broker.wait_for_pool(self.pool_segments)?;
        self.repeat_until = Instant::now() + self.repeat_within;
        let address = self.broker.address.clone();
        // What is read again has to stay; what is only written shall be dropped, so that space is used again as in steady state.
        let kept = matches!(measure, Measure::TailFetchThroughput | Measure::ColdFetchThroughput | Measure::ReplayDisturbanceP99);
        let settings = keeps(RETENTION_BYTES, 1);
        let target = target::create(&address, &topic, 1, if kept { &[] } else { &settings })?;
        let pairs = match measure {
            Measure::ProduceLeaderRtt => self.interleave(measure, |_, time| {
                let latency = rtt::producer_round_trips(&target, &topic, Level::Leader, time)?;
                Ok(Figure { value: latency.p50_us, p99_us: Some(latency.p99_us) })
            }),
            Measure::ProduceLeaderRttBare => self.interleave(measure, |_, time| round_trip(&target, Level::Leader, time)),
            Measure::ProduceDurableRtt => self.interleave(measure, |_, time| round_trip(&target, Level::Durable, time)),
            Measure::DurableThroughput => {
                let window = self.window;
                self.interleave(measure, |_, time| write(&target, window, time))
            }
            Measure::TailFetchThroughput => self.tail(measure, &target),
            Measure::ColdFetchThroughput => self.cold(measure, &target),
            Measure::Partitions1000 => self.partitions(measure, &target),
            Measure::DurableHalfLoadP999 => self.half_load(measure, &target),
            Measure::Partitions10000P99 => self.many_p99(measure, &target),
            Measure::QueueCycle => self.queue_cycle(measure, &target),
            Measure::Queues1000 => self.queues_1000(measure),
            Measure::QueueReceiveLatency => self.queue_receive_latency(measure, &target),
            Measure::ReplayDisturbanceP99 => self.replay_disturbance(measure, &target),
            _ => self.many_throughput(measure, &target),
        };
        self.broker.resume()?;
        let pairs = pairs?;
        target::delete(&address, &target)?;
        Ok(pairs)
    }

    fn with_own_broker(&mut self, measure: Measure) -> Result<Vec<Pair>, BenchError> {
        match measure {
            Measure::SorterDisturbanceP99 => self.sorter_disturbance(measure),
            Measure::Partitions10000Sustained => self.many_sustained(measure),
            Measure::MemoryIdleMib => self.memory_idle(measure),
            Measure::MemoryGrowthMib => self.memory_growth(measure),
            Measure::Startup1Gib => self.startup(measure, 1),
            Measure::Startup4Gib => self.startup(measure, 4),
            Measure::ClientOverheadNsPerRecord => self.client_overhead(measure),
            Measure::LoadgenNullSink => self.loadgen_into_sink(measure),
            Measure::ManyProducers => self.many_producers(measure),
            Measure::GroupJoinPause => self.group_join_pause(measure),
            Measure::QueueDelayLate => self.queue_delay_late(measure),
            Measure::QueueHoles => self.queue_holes(measure),
            Measure::QueueStallP99 => self.queue_stall(measure),
            _ if measure.is_replicated() => self.replicated(measure),
            _ => self.startup(measure, 10),
        }
    }

    /// One run beside a limit that no machine changes.
    pub fn beside_a_constant(
        &mut self,
        measure: Measure,
        run: impl FnOnce(&mut Runs) -> Result<(f64, f64), BenchError>,
    ) -> Result<Pair, BenchError> {
        let mut limit = Figure { value: 0.0, p99_us: None };
        let seen = self.watched_subject(measure, |runs| {
            let (value, most) = run(runs)?;
            limit.value = most;
            Ok(Figure { value, p99_us: None })
        })?;
        let reference = Seen { figure: limit, ..seen.clone() };
        let pair = Pair::of(&reference, &seen, &reference);
        pair.tell(1, measure);
        Ok(pair)
    }

    /// Looks at the machine during `run`.
    fn watched(&mut self, measure: Measure, run: impl FnOnce(&mut Runs) -> Result<Figure, BenchError>) -> Result<Seen, BenchError> {
        let cpus = self.limits.cpus;
        let looks = (!measure.is_p99()).then(|| Looks::begin(cpus, BETWEEN));
        let before = if looks.is_none() { look(cpus)? } else { None };
        let watch = Watch::start();
        let figure = run(self);
        let waited_share = watch.waited_share();
        let distances = match looks {
            Some(looks) => looks.end()?,
            None => before.into_iter().chain(look(cpus)?).collect(),
        };
        Ok(Seen { figure: figure?, waited_share, distances })
    }

    /// The same for what is compared: nodes of a cluster may share a processor, so that they wait for each other and nobody disturbs.
    fn watched_subject(&mut self, measure: Measure, run: impl FnOnce(&mut Runs) -> Result<Figure, BenchError>) -> Result<Seen, BenchError> {
        let seen = self.watched(measure, run)?;
        Ok(if measure.is_replicated() { Seen { waited_share: 0.0, ..seen } } else { seen })
    }

    fn limit(&mut self, measure: Measure, only: &str) -> Result<Figure, BenchError> {
        self.broker.pause()?;
        // Writes do not follow the distance: they are measured once per measure, the TCP stream beside each run.
        let figures = match self.measured.take() {
            Some(mut all) if only.contains("tcp-stream") => {
                // Cold data excepted: how fast a file is read depends on the file (1.2 and 2.7 GB/s were seen, with nothing but reads).
                let again = if measure == Measure::ColdFetchThroughput { only } else { "tcp-stream" };
                all.extend(self.limits.for_seconds(BESIDE_SECONDS).run(again)?);
                all
            }
            _ => self.limits.run(only)?,
        };
        self.measured = Some(figures.clone());
        self.broker.resume()?;
        let figure =
            measure.bound(&figures).ok_or_else(|| BenchError::Limits(format!("a figure is missing among {:?}", figures.keys())))?;
        let shown: Vec<String> =
            figures.iter().filter(|(name, _)| !name.contains("p99")).map(|(name, value)| format!("{name} {value:.2}")).collect();
        eprintln!("tramline-bench:   limits: {}", shown.join(", "));
        self.all_limits.push(figures);
        Ok(figure)
    }

    /// A raw load with these arguments while the broker is halted: what bounds the measure, and all figures of it.
    pub fn raw_load(
        &mut self,
        measure: Measure,
        only: &str,
        time: Duration,
        arguments: &[String],
    ) -> Result<(Figure, BTreeMap<String, f64>), BenchError> {
        let figures = self.raw_figures(only, time, arguments)?;
        let figure = measure.bound(&figures).ok_or_else(|| BenchError::Limits("a figure is missing".to_owned()))?;
        Ok((figure, figures))
    }

    /// The figures of a raw load while the broker is halted.
    pub fn raw_figures(&mut self, only: &str, time: Duration, arguments: &[String]) -> Result<BTreeMap<String, f64>, BenchError> {
        self.broker.pause()?;
        let figures = self.limits.for_seconds(time.as_secs_f64()).run_with(only, arguments);
        self.broker.resume()?;
        let figures = figures?;
        self.all_limits.push(figures.clone());
        Ok(figures)
    }

    fn interleave(
        &mut self,
        measure: Measure,
        mut broker_run: impl FnMut(&Broker, Duration) -> Result<Figure, BenchError>,
    ) -> Result<Vec<Pair>, BenchError> {
        let Some(only) = measure.limits() else { return Ok(Vec::new()) };
        let time = if only.contains("tcp-stream") { RUN_BESIDE.min(self.time) } else { self.time };
        self.alternate(measure, |runs| runs.limit(measure, only), |runs| broker_run(&runs.broker, time))
    }

    /// Reference, subject, reference, subject, ..., reference: until there are enough undisturbed pairs, or no more may be tried.
    pub fn alternate(
        &mut self,
        measure: Measure,
        mut reference: impl FnMut(&mut Runs) -> Result<Figure, BenchError>,
        mut subject: impl FnMut(&mut Runs) -> Result<Figure, BenchError>,
    ) -> Result<Vec<Pair>, BenchError> {
        let wanted = if measure == Measure::Partitions10000Sustained { self.pairs.min(LONG_PAIRS) } else { self.pairs } as usize;
        let mut pairs: Vec<Pair> = Vec::new();
        self.measured = None;
        let mut before = self.watched(measure, &mut reference)?;
        if self.measured.is_some() {
            // The first one took long, with the disk in it: once more, right before the broker's first run.
            before = self.watched(measure, &mut reference)?;
        }
        loop {
            let seen = self.watched_subject(measure, &mut subject)?;
            let after = self.watched(measure, &mut reference)?;
            let pair = Pair::of(&before, &seen, &after);
            before = after;
            pair.tell(pairs.len() + 1, measure);
            pairs.push(pair);
            let undisturbed = pairs.iter().filter(|pair| pair.doubt() == 0.0).count();
            let may_repeat = pairs.len() < wanted * TRIES_PER_PAIR as usize && Instant::now() < self.repeat_until;
            if undisturbed >= wanted || (pairs.len() >= wanted && !may_repeat) {
                break;
            }
        }
        // Stable, so that among equally undisturbed ones the order of time stays.
        pairs.sort_by(|a, b| a.doubt().total_cmp(&b.doubt()));
        pairs.truncate(wanted);
        Ok(pairs)
    }

    /// The newest data, read again and again from memory.
    fn tail(&mut self, measure: Measure, target: &Target) -> Result<Vec<Pair>, BenchError> {
        let mut from = 0;
        let mut end = 0;
        for attempt in 1..=TAIL_ATTEMPTS {
            from = end;
            produce::throughput(target, BATCH_BYTES, self.window, Until::Bytes(TAIL_BYTES.min(self.cache_bytes / 2)))?;
            end = target::end_offset(&self.broker.address, target)?;
            match tail_run(&self.broker, target, from, end, Duration::ZERO) {
                Ok(_) => break,
                // A segment that is sealed right behind these data may take them out of the cache's reach: newer ones then.
                Err(e) if attempt < TAIL_ATTEMPTS => eprintln!("tramline-bench:   {e}: once more with newer data"),
                Err(e) => return Err(e),
            }
        }
        self.interleave(measure, |broker, time| tail_run(broker, target, from, end, time))
    }

    /// Data four times the cache, pushed out of it by as much again as the cache holds.
    fn cold(&mut self, measure: Measure, target: &Target) -> Result<Vec<Pair>, BenchError> {
        let (end, other) = self.write_cold(target)?;
        let pairs = self.interleave(measure, |broker, time| {
            let before = broker.disk_read_bytes()?;
            let fetched = fetch::throughput(target, 0, end, true, time)?;
            let from_disk = broker.disk_read_bytes()?.saturating_sub(before);
            if from_disk < fetched.bytes / 10 * 9 {
                return Err(BenchError::Wrong(format!("only {from_disk} of {} bytes came from the disk: not cold", fetched.bytes)));
            }
            Ok(Figure { value: fetched.gbps, p99_us: Some(fetched.gaps.p99_us) })
        });
        self.limits.read_file = None;
        self.broker.resume()?;
        target::delete(&self.broker.address, &other)?;
        pairs
    }

    /// Fills a topic with cold data; answers where they end, and the topic that pushed them out of the cache.
    pub fn write_cold(&mut self, target: &Target) -> Result<(u64, Target), BenchError> {
        eprintln!("tramline-bench:   writing {} MiB of cold data", (5 * self.cache_bytes) >> 20);
        produce::throughput(target, BATCH_BYTES, self.window, Until::Bytes(4 * self.cache_bytes))?;
        let end = target::end_offset(&self.broker.address, target)?;
        let address = self.broker.address.clone();
        let other = target::create(&address, "bench-cold-flush", 1, &[])?;
        produce::throughput(&other, BATCH_BYTES, self.window, Until::Bytes(self.cache_bytes + (32 << 20)))?;
        // The limit reads what the broker reads: one of the segments that hold these data.
        self.limits.read_file = Some(cold_segment(&self.data_dir)?);
        Ok((end, other))
    }

    /// Over one partition, over a thousand, over one, ...
    fn partitions(&mut self, measure: Measure, one: &Target) -> Result<Vec<Pair>, BenchError> {
        let address = self.broker.address.clone();
        let many = target::create(&address, "bench-partitions-1000-many", 1000, &keeps(RETENTION_BYTES, 1000))?;
        let run = |target: &Target, runs: &Runs| write(target, runs.window, runs.time);
        let pairs = self.alternate(measure, |runs| run(one, runs), |runs| run(&many, runs))?;
        target::delete(&address, &many)?;
        Ok(pairs)
    }
}

/// The segment that was written longest ago among the last four: the middle of the cold data.
fn cold_segment(data_dir: &Path) -> Result<PathBuf, BenchError> {
    let mut segments = Vec::new();
    let mut dirs = vec![data_dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).map_err(io_error("cannot list the broker's files"))?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("seg-")) {
                segments.push((entry.metadata().and_then(|m| m.modified()).map_err(io_error("cannot look at a segment"))?, path));
            }
        }
    }
    segments.sort();
    let at = segments.len().saturating_sub(4);
    segments.into_iter().nth(at).map(|(_, path)| path).ok_or_else(|| BenchError::Wrong("the broker has no segment".to_owned()))
}

/// Reads from memory; data that came from the disk are an error.
fn tail_run(broker: &Broker, target: &Target, from: u64, end: u64, time: Duration) -> Result<Figure, BenchError> {
    let before = broker.disk_read_bytes()?;
    let fetched = fetch::throughput(target, from, end, false, time)?;
    let from_disk = broker.disk_read_bytes()?.saturating_sub(before);
    if from_disk > fetched.bytes / 10 {
        return Err(BenchError::Wrong(format!("{from_disk} of {} bytes of the tail came from the disk", fetched.bytes)));
    }
    Ok(Figure { value: fetched.gbps, p99_us: Some(fetched.gaps.p99_us) })
}

fn mean(a: Figure, b: Figure) -> Figure {
    let p99_us = a.p99_us.zip(b.p99_us).map(|(a, b)| (a + b) / 2.0);
    Figure { value: (a.value + b.value) / 2.0, p99_us }
}

/// A figure of round trips over a bare connection.
pub fn round_trip(target: &Target, level: Level, time: Duration) -> Result<Figure, BenchError> {
    let latency = rtt::produce_round_trips(target, level, time)?;
    Ok(Figure { value: latency.p50_us, p99_us: Some(latency.p99_us) })
}

/// A figure of durable produce in a closed loop.
pub fn write(target: &Target, window: usize, time: Duration) -> Result<Figure, BenchError> {
    let seen = produce::throughput(target, BATCH_BYTES, window, Until::Time(time))?;
    Ok(Figure { value: seen.gbps, p99_us: Some(seen.latency.p99_us) })
}
