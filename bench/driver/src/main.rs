//! `tramline-bench`: the broker against what this machine can do, in interleaved pairs.
//!
//! Job: start the real `tramline` on one core, drive it from another, run `tramline-limits` on the same two cores between any
//! two of its measurements (the broker is halted meanwhile), and write `bench/results/latest.json`. Limits and broker alternate
//! within seconds because a shared machine has moods: the same loopback round trip was seen at 6.7 us and, for
//! minutes on end, at 10.2 us.
//!
//! Invariants: a measurement that fails is reported and the others go on; the exit code is not 0 only then, not when a target
//! is missed; nothing stays behind in the work directory.
//!
//! Not here: open-loop load and other shapes (`tools/loadgen`), the limits themselves (`bench/limits`).

mod batches;
mod broker;
mod clients;
mod cluster;
mod contention;
mod distance;
mod disturbed;
mod environment;
mod error;
#[cfg(test)]
mod fake;
mod fetch;
mod group;
mod half;
mod hot_socket;
mod limits;
mod many;
mod many_producers;
mod measures;
mod node;
mod outbox;
mod outcome;
mod produce;
mod queue;
mod queue_cycle;
mod queue_delay;
mod queue_holes;
mod queue_latency;
mod queue_stall;
mod replay;
mod replicated;
mod rtt;
mod runs;
#[cfg(test)]
mod smoke;
mod stats;
mod target;

use broker::{Broker, BrokerOptions};
use clap::{Parser, ValueEnum};
use environment::Environment;
use error::{BenchError, io_error};
use limits::Limits;
use measures::Measure;
use outcome::Outcome;
use runs::{OwnBrokers, Runs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What a set of processors has room for (glibc's CPU_SETSIZE).
const CPUS_MAX: usize = 1024;
/// Segments that the broker keeps prepared. Filling one takes some seconds when the file system is slow to convert extents, so not more.
const POOL_SEGMENTS: u32 = 6;

/// Disturbed pairs are repeated within this time of the beginning of each measure (those with a broker of their own have less).
const REPEAT_WITHIN: Duration = Duration::from_secs(120);

/// Measures the broker against the limits of this machine.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// The broker's binary [default: `tramline` beside this one]
    #[arg(long)]
    tramline: Option<PathBuf>,
    /// The limits' binary [default: `tramline-limits` beside this one]
    #[arg(long)]
    limits: Option<PathBuf>,
    /// Work directory on the disk to be measured; what is in it under the names `data`, `limits` and `own` is deleted
    #[arg(long)]
    dir: PathBuf,
    /// Result file
    #[arg(long, default_value = "bench/results/latest.json")]
    out: PathBuf,
    /// Only these measures
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<Measure>,
    /// Pairs of limit and broker per measure
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    pairs: u32,
    /// Seconds of each of the broker's measurements
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Seconds of each point of `tramline-limits`
    #[arg(long, default_value_t = 0.3)]
    limit_seconds: f64,
    /// The shard's CPU and the client's CPU; the shards of a cluster take further ones where there are some, else they share the shard's
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1])]
    cpus: Vec<usize>,
    /// The broker's --spin
    #[arg(long, default_value = "always", value_parser = ["always", "adaptive", "never"])]
    spin: String,
    /// Requests in flight in the throughput measures, each one batch of 64 KiB
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    window: u32,
    /// The broker's tail cache in MiB; cold data are four times as much
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(8..=65536))]
    cache_mib: u32,
    /// A further setting of the broker (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("tramline-bench: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything could be measured.
fn run(arguments: &Arguments) -> Result<bool, BenchError> {
    let &[server, client] = arguments.cpus.as_slice() else {
        return Err(BenchError::Wrong("--cpus takes two CPUs: the shard's and the client's".to_owned()));
    };
    if server.max(client) >= CPUS_MAX {
        return Err(BenchError::Wrong(format!("--cpus: there is no CPU {}", server.max(client))));
    }
    let time = Duration::try_from_secs_f64(arguments.seconds).map_err(|e| BenchError::Wrong(format!("--seconds: {e}")))?;
    let beside = std::env::current_exe().map_err(io_error("cannot find this binary"))?;
    let binary = |given: &Option<PathBuf>, name: &str| given.clone().unwrap_or_else(|| beside.with_file_name(name));
    let tramline = binary(&arguments.tramline, "tramline");
    let data_dir = arguments.dir.join("data");
    let limits_dir = arguments.dir.join("limits");
    let own_dir = arguments.dir.join("own");
    for dir in [&data_dir, &limits_dir, &own_dir] {
        if dir.exists() {
            std::fs::remove_dir_all(dir).map_err(io_error("cannot empty the work directory"))?;
        }
        std::fs::create_dir_all(dir).map_err(io_error("cannot make the work directory"))?;
    }
    let start = Instant::now();
    let mut outcome = Outcome::new(Environment::look(&arguments.dir, &tramline));
    warn(&outcome.environment);
    // The limits write into extents that were written before; so does a broker whose pool is filled and fed by retention.
    let mut settings = vec![format!("tail.cache.bytes={}MiB", arguments.cache_mib), format!("pool.segments={POOL_SEGMENTS}")];
    settings.extend(arguments.settings.iter().cloned());
    outcome.parameters = [
        ("pairs", serde_json::json!(arguments.pairs)),
        ("seconds", serde_json::json!(arguments.seconds)),
        ("limit_seconds", serde_json::json!(arguments.limit_seconds)),
        ("cpus", serde_json::json!(arguments.cpus)),
        ("spin", serde_json::json!(arguments.spin)),
        ("window_batches", serde_json::json!(arguments.window)),
        ("record_bytes", serde_json::json!(batches::RECORD_BYTES)),
        ("batch_bytes", serde_json::json!(batches::BATCH_BYTES)),
        ("broker_settings", serde_json::json!(settings)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();

    let mut chosen = if arguments.only.is_empty() { Measure::value_variants().to_vec() } else { arguments.only.clone() };
    chosen.sort();
    chosen.dedup();
    let limits = Limits {
        binary: binary(&arguments.limits, "tramline-limits"),
        dir: limits_dir.clone(),
        cpus: [server, client],
        seconds: arguments.limit_seconds,
        read_file: None,
    };
    let expected_s: u64 = 30 + chosen.iter().map(|measure| measure.expected_s()).sum::<u64>();
    eprintln!("tramline-bench: {} measures, some {} minutes, more where others disturb", chosen.len(), expected_s.div_ceil(60));
    let pid_file = arguments.dir.join("broker.pid");
    let options = BrokerOptions {
        binary: &tramline,
        data_dir: &data_dir,
        cpu: server,
        spin: &arguments.spin,
        settings: &settings,
        pid_file: &pid_file,
        arguments: &[],
    };
    let broker = Broker::start(&options)?;
    eprintln!("tramline-bench: waiting for {POOL_SEGMENTS} prepared segments");
    broker.wait_for_pool(POOL_SEGMENTS)?;
    let allowed =
        rustix::thread::sched_getaffinity(None).map_err(|e| BenchError::Io("cannot ask for this program's processors", e.into()))?;
    // Threads that come later inherit it; the broker is already running and pins itself.
    if !core_affinity::set_for_current(core_affinity::CoreId { id: client }) {
        return Err(BenchError::Wrong(format!("cannot run on CPU {client}: choose others with --cpus")));
    }
    let mut runs = Runs {
        broker,
        limits,
        pairs: arguments.pairs,
        pool_segments: POOL_SEGMENTS,
        time,
        repeat_within: REPEAT_WITHIN,
        repeat_until: start,
        window: arguments.window as usize,
        cache_bytes: u64::from(arguments.cache_mib) << 20,
        measured: None,
        data_dir: data_dir.clone(),
        all_limits: Vec::new(),
        own: OwnBrokers {
            binary: tramline.clone(),
            dir: own_dir.clone(),
            pid_file: arguments.dir.join("own.pid"),
            cpu: server,
            spin: arguments.spin.clone(),
            allowed,
        },
        conditions: Vec::new(),
        aged_gib: 0,
        settings: settings.clone(),
        cluster: None,
    };
    for (at, measure) in chosen.iter().enumerate() {
        eprintln!("tramline-bench: {}/{} {} ({} s so far)", at + 1, chosen.len(), measure.name(), start.elapsed().as_secs());
        match runs.measure(*measure) {
            Ok(pairs) => outcome.add(*measure, &pairs),
            Err(e) => {
                eprintln!("tramline-bench: {} could not be measured: {e}", measure.name());
                outcome.not_measured.insert(measure.name().to_owned(), e.to_string());
            }
        }
    }
    outcome.add_limits(&runs.all_limits);
    runs.conditions.iter().for_each(|condition| outcome.add_condition(condition));
    drop(runs);
    for dir in [&data_dir, &limits_dir, &own_dir] {
        std::fs::remove_dir_all(dir).map_err(io_error("cannot empty the work directory"))?;
    }
    let own_pid = arguments.dir.join("own.pid");
    for file in (0..cluster::NODES).map(|at| cluster::pid_file(&own_pid, at)).chain([pid_file.clone(), own_pid.clone()]) {
        let _ = std::fs::remove_file(file);
    }
    outcome.environment.took_s = start.elapsed().as_secs_f64().round();
    outcome.environment.load_average[1] = environment::load_average();
    outcome.write(&arguments.out).map_err(io_error("cannot write the result file"))?;
    println!("{}", outcome.table(&chosen));
    println!("written to {} after {} s", arguments.out.display(), outcome.environment.took_s);
    Ok(outcome.not_measured.is_empty())
}

/// Says what makes the figures worth less.
fn warn(environment: &Environment) {
    if !environment.release_build {
        eprintln!("tramline-bench: warning: not a release build, these figures mean nothing");
    }
    if environment.load_average[0] > 0.5 {
        eprintln!("tramline-bench: warning: load average {} at the start, others use this machine", environment.load_average[0]);
    }
    if environment.disk.free_gib < 40 {
        eprintln!("tramline-bench: warning: {} GiB free, 40 are recommended", environment.disk.free_gib);
    }
}
