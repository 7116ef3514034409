//! The command line of `tramline-loadgen`: modes, and the options of all of them.
//!
//! Invariants: what can be wrong without a broker is refused here, with what is allowed; `Plan` is the checked whole, and no
//! other file looks at the raw options.
//! Not here: options of the writing side (`load.rs`), ranges (`ranges.rs`).

use crate::files::{is_special, tagged};
use crate::load::{Churn, Load};
use crate::ranges;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;
use tramline_client::wire::kind::Kind;

/// Load generator of the Tramline message broker.
#[derive(Parser, Debug)]
#[command(name = "tramline-loadgen", version, max_term_width = 110)]
#[command(about = "Load generator of the Tramline message broker: constant rate or closed loop, checked payloads, honest percentiles")]
#[command(after_help = "Latency is completion minus the INTENDED time of a record, so a stall counts for every record it delayed; \
service time is completion minus the time at which its batch was put on the wire. Rates are records per second, MB are 10^6 bytes of \
values.\n\
Exit code: 0 good; 1 the server vanished, records failed, or the check found loss, duplicates, reorder or change; 2 wrong usage; \
3 the achieved rate is below 99 % of the asked one, or more than 1 % of the records were sent late (--late-max) by the generator's own \
fault; 130 or 143 ended by SIGINT or SIGTERM, with a report of what was measured until then (a second signal ends it at once).\n\
tramline-loadgen --scenario FILE takes the mode from the file, too.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one per process")]
pub enum Command {
    /// Drive a broker.
    #[command(flatten)]
    Run(Mode),
    /// Compare two JSON reports: quantiles, rates, their ratios, and what differs between the runs
    Compare(Compare),
    /// Be a null sink: a server that acknowledges records unseen and keeps nothing, to find the generator's own limit
    #[command(hide = true)]
    Sink(Sink),
}

/// Options of `sink`.
#[derive(Args, Debug)]
pub struct Sink {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: String,
    /// Pin to this core [0 to 1023]
    #[arg(long, value_name = "N", value_parser = ranges::core)]
    pub cpu: Option<u16>,
    /// Spin instead of sleeping while waiting
    #[arg(long)]
    pub busy_poll: bool,
    /// Take no more than this, like a slow server [1k to 100G]
    #[arg(long, value_name = "N", value_parser = ranges::bytes_per_second)]
    pub bytes_per_second: Option<u64>,
}

/// Options of `compare`.
#[derive(Args, Debug)]
pub struct Compare {
    /// Report of --json that the other one is measured by
    #[arg(value_name = "A.json", value_parser = ranges::file_name)]
    pub a: String,
    /// The other report
    #[arg(value_name = "B.json", value_parser = ranges::file_name)]
    pub b: String,
    /// Draw both into this SVG file
    #[arg(long, value_name = "FILE.svg", value_parser = ranges::file_name)]
    pub plot: Option<String>,
}

/// What to drive.
#[derive(Subcommand, Debug)]
pub enum Mode {
    /// Write records and measure acknowledgements; at the end read back and check what was written
    Produce(Produce),
    /// Read records, check them and measure throughput (and latency with --from latest)
    Consume(Consume),
    /// Write and read at once: end-to-end latency, and every record is checked for loss, duplicates, reorder and change
    Both(Both),
    /// Write, read at the tail, and have cold readers go round from the beginning: what a replay does to latency. Fill the topic before
    Replay(Replay),
    /// Write, and read with several readers at the tail, each of which gets all records
    Fanout(Fanout),
    /// Open connections at a rate: connect, hello, one record or fetch, close
    Churn(Churned),
}

/// Options of `replay`.
#[derive(Args, Debug)]
pub struct Replay {
    /// Options of every mode.
    #[command(flatten)]
    pub common: Common,
    /// Options of the writing side.
    #[command(flatten)]
    pub load: Load,
    /// Options of the reading side.
    #[command(flatten)]
    pub read: Read,
    /// Cold readers, a thread each [1 to 64]
    #[arg(long, default_value = "1", value_name = "N", value_parser = ranges::threads)]
    pub readers: u64,
}

/// Options of `fanout`.
#[derive(Args, Debug)]
pub struct Fanout {
    /// Options of every mode.
    #[command(flatten)]
    pub common: Common,
    /// Options of the writing side.
    #[command(flatten)]
    pub load: Load,
    /// Options of the reading side.
    #[command(flatten)]
    pub read: Read,
    /// Readers, a thread each [1 to 64]
    #[arg(long, default_value = "4", value_name = "N", value_parser = ranges::threads)]
    pub readers: u64,
}

/// Options of `churn`.
#[derive(Args, Debug)]
pub struct Churned {
    /// Options of every mode.
    #[command(flatten)]
    pub common: Common,
    /// What connections do, and when.
    #[command(flatten)]
    pub churn: Churn,
}

/// Options of `produce`.
#[derive(Args, Debug)]
pub struct Produce {
    /// Options of every mode.
    #[command(flatten)]
    pub common: Common,
    /// Options of the writing side.
    #[command(flatten)]
    pub load: Load,
    /// Do not read back and check at the end what was written (level none is never read back)
    #[arg(long)]
    pub no_verify: bool,
}

/// Options of `consume`.
#[derive(Args, Debug)]
pub struct Consume {
    /// Options of every mode.
    #[command(flatten)]
    pub common: Common,
    /// Options of the reading side.
    #[command(flatten)]
    pub read: Read,
    /// Where to start; `earliest` reads what is there, `latest` what comes
    #[arg(long, default_value = "earliest")]
    pub from: From,
    /// End when the end as of the start is reached, also before --duration is over (sets --warmup to 0)
    #[arg(long)]
    pub until_end: bool,
}

/// Options of `both`.
#[derive(Args, Debug)]
pub struct Both {
    /// Options of every mode.
    #[command(flatten)]
    pub common: Common,
    /// Options of the writing side.
    #[command(flatten)]
    pub load: Load,
    /// Options of the reading side.
    #[command(flatten)]
    pub read: Read,
}

/// Options of every mode.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Take options from this TOML file: its keys are their names, mode = "both" names the mode; the command line wins
    #[arg(long, value_name = "FILE", value_parser = ranges::input_name)]
    pub scenario: Option<String>,
    /// Address of a node; several are separated by commas
    #[arg(long, env = "TRAMLINE_SERVER", default_value = "127.0.0.1:7410", value_name = "HOST:PORT", value_parser = ranges::servers)]
    pub server: String,
    /// Topic; created when missing
    #[arg(long, default_value = "loadgen")]
    pub topic: String,
    /// Partitions of the topic when it is created; an existing topic keeps its own [default: 1; 1 to 100000]
    #[arg(long, value_name = "N", value_parser = ranges::partitions)]
    pub partitions: Option<u32>,
    /// Measured time, after the warm-up [100ms to 24h]
    #[arg(long, default_value = "10s", value_parser = ranges::duration)]
    pub duration: Duration,
    /// Time before measuring starts, whose records are not in any result [0s to 1h]
    #[arg(long, default_value = "2s", value_parser = ranges::warmup)]
    pub warmup: Duration,
    /// How long without any answer until the server counts as vanished; also the limit of one request [100ms to 10m]
    #[arg(long, default_value = "10s", value_parser = ranges::timeout)]
    pub timeout: Duration,
    /// Spin instead of sleeping while waiting (lower latency, a whole core per side)
    #[arg(long)]
    pub busy_poll: bool,
    /// Pin the threads to these cores in turn (1,2), the writing threads first, then the readers [0 to 1023]
    #[arg(long, value_name = "N", value_delimiter = ',', num_args = 1, value_parser = ranges::core)]
    pub cpu: Vec<u16>,
    /// Write the report as JSON to this file, or to standard output with - (instead of the table)
    #[arg(long, value_name = "FILE", value_parser = ranges::file_or_output)]
    pub json: Option<String>,
    /// Write the percentile distribution in HdrHistogram's text form (milliseconds): end to end when there is a reader, else
    /// acknowledgements. The other latencies go to files beside it, with their name before the extension (run.service.hgrm), or behind it
    /// where FILE is a pipe or a device
    #[arg(long, value_name = "FILE", value_parser = ranges::file_name)]
    pub hgrm: Option<String>,
    /// Write an HdrHistogram interval log (V2, nanoseconds) while the run goes on, a line per second and latency, with the tags
    /// ack (from the intended time), service (from the wire), e2e (end to end) and connect
    #[arg(long, value_name = "FILE", value_parser = ranges::file_name)]
    pub hlog: Option<String>,
    /// Draw the percentile curves and the seconds into this SVG file
    #[arg(long, value_name = "FILE.svg", value_parser = ranges::file_name)]
    pub plot: Option<String>,
    /// Data directory of a server on this machine: its file system and the disk's write cache go into the report
    #[arg(long, value_name = "DIR", value_parser = ranges::directory)]
    pub disk: Option<PathBuf>,
    /// No progress lines on standard error
    #[arg(long)]
    pub quiet: bool,
}

/// Options of the reading side.
#[derive(Args, Clone, Debug)]
pub struct Read {
    /// Bytes the broker may send ahead of what was consumed, per connection [64KiB to 256MiB]
    #[arg(long, default_value = "1MiB", value_parser = ranges::credit_bytes)]
    pub credit_bytes: u64,
    /// Do not check the checksums of batches (the stamps are checked all the same)
    #[arg(long)]
    pub no_verify: bool,
}

/// Where the reading side starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum From {
    /// The oldest kept record.
    Earliest,
    /// Only what comes from now on.
    Latest,
}

/// Durability levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Level {
    /// No answer at all.
    None,
    /// The leader has it in memory.
    Leader,
    /// The leader has it on disk.
    #[value(alias = "leader-durable")]
    LeaderDurable,
    /// A majority has it in memory.
    Replicated,
    /// A majority has it on disk.
    Durable,
}

impl Level {
    /// As the client calls it.
    pub fn of_client(self) -> tramline_client::Level {
        match self {
            Level::None => tramline_client::Level::None,
            Level::Leader => tramline_client::Level::Leader,
            Level::LeaderDurable => tramline_client::Level::LeaderDurable,
            Level::Replicated => tramline_client::Level::Replicated,
            Level::Durable => tramline_client::Level::Durable,
        }
    }
}

/// What a connection of `churn` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Action {
    /// Send one record.
    Produce,
    /// Ask for the first records once.
    Fetch,
}

impl Action {
    /// The request.
    pub fn kind(self) -> Kind {
        match self {
            Action::Produce => Kind::Produce,
            Action::Fetch => Kind::Fetch,
        }
    }
}

/// Codecs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    /// As it is.
    None,
    /// Fast, moderate ratio.
    Lz4,
    /// Slower, best ratio.
    Zstd,
    /// Fast, moderate ratio.
    Snappy,
}

/// The name an option's value has on the command line.
pub fn name_of<V: ValueEnum>(value: V) -> String {
    value.to_possible_value().map(|possible| possible.get_name().to_owned()).unwrap_or_default()
}

impl Common {
    /// The core of thread number `thread`: the list in turn.
    pub fn cpu_of(&self, thread: usize) -> Option<usize> {
        let place = thread.checked_rem(self.cpu.len())?;
        Some(usize::from(self.cpu[place]))
    }

    /// The option that makes no sense without a latency, if one was given.
    pub fn needs_latency(&self) -> Option<&'static str> {
        self.hgrm.as_ref().map(|_| "--hgrm").or(self.hlog.as_ref().map(|_| "--hlog"))
    }

    /// The `.hgrm` files: the main latency (the first tag) in the named one, the others beside it. A pipe or a device gets all of them, one
    /// after the other: beside it would be a file that nobody asked for, as in `/dev/null.service`.
    pub fn hgrm_files(&self, tags: &[&'static str]) -> Vec<(&'static str, String)> {
        let Some(path) = &self.hgrm else { return Vec::new() };
        let in_one = is_special(path);
        let named = |(index, tag): (usize, &&'static str)| (*tag, if index == 0 || in_one { path.clone() } else { tagged(path, tag) });
        tags.iter().enumerate().map(named).collect()
    }

    /// All files that will be written, each with the option that names it.
    pub fn outputs(&self, tags: &[&'static str]) -> Vec<(&'static str, String)> {
        let mut outputs: Vec<(&'static str, String)> = Vec::new();
        let single =
            [("--json", self.json.as_ref().filter(|path| *path != "-")), ("--hlog", self.hlog.as_ref()), ("--plot", self.plot.as_ref())];
        outputs.extend(single.into_iter().filter_map(|(option, path)| Some((option, path?.clone()))));
        let mut tables: Vec<String> = self.hgrm_files(tags).into_iter().map(|(_, path)| path).collect();
        tables.dedup();
        outputs.extend(tables.into_iter().map(|path| ("--hgrm", path)));
        outputs
    }
}

impl Common {
    /// What the options do not say each for itself but only together.
    pub fn check(&self) -> Result<(), String> {
        if self.topic.is_empty() {
            return Err("--topic must not be empty".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{mode, parse};

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_help() {
        let Mode::Both(both) = mode("both --rate 1000") else { panic!("not both") };
        assert_eq!((both.common.duration, both.common.warmup), (Duration::from_secs(10), Duration::from_secs(2)));
        assert_eq!((both.load.size.mean(), both.load.batch_bytes, both.load.in_flight, both.load.level), (1000, 65_536, 5, Level::Durable));
        let help = parse("both --help").unwrap_err().to_string();
        assert!(help.contains("[default: durable]") && help.contains("[default: 64KiB]") && help.contains("[default: 10s]"), "{help}");
    }

    #[test]
    fn wrong_usage_is_refused_with_what_is_allowed() {
        for (line, part) in [
            ("", "Usage"),
            ("produce", "--rate"),
            ("produce --rate 0", "1 to 100000000"),
            ("produce --rate 1000 --closed", "cannot be used with"),
            ("produce --rate 1000 --outstanding 5", "cannot be used with"),
            ("produce --closed --outstanding 0", "1 to 10000000"),
            ("produce --closed --size 47", "48 to 16777216"),
            ("produce --closed --size 17MiB", "48 to 16777216"),
            ("produce --closed --batch-bytes 127", "128 to 8388608"),
            ("produce --closed --in-flight 0", "1 to 1024"),
            ("produce --closed --producers 10001", "1 to 10000"),
            ("produce --closed --threads 65", "1 to 64"),
            ("produce --rate 5 --late-max 11s", "0s to 10s"),
            ("produce --closed --late-max 1s", "cannot be used with"),
            ("produce --closed --keys 10000001", "0 to 10000000"),
            ("produce --closed --size 100..47", "48 to 16777216"),
            ("produce --closed --compressible 1.5", "0 to 1"),
            ("produce --closed --key-choice zipf", "0.1 to 5"),
            ("produce --closed --records f --key-field 0", "1 to 10000"),
            ("produce --closed --records f --keys 2 --key-field 1", "cannot be used with"),
            ("produce --closed --records f --size 100", "cannot be used with"),
            ("produce --closed --arrivals poisson", "cannot be used with"),
            ("produce --rate 5 --arrivals gauss", "constant, poisson, bursts"),
            ("produce --rate 5 --burst 0", "1 to 1000000"),
            ("produce --rate 5 --seed x", "--seed"),
            ("produce --rate 5 --seed=-1", "'-1' is no seed; allowed is 0 to 18446744073709551615"),
            ("produce --rate 5 --seed=18446744073709551616", "allowed is 0 to 18446744073709551615"),
            ("produce --closed --partitions 0", "1 to 100000"),
            ("produce --closed --duration 99ms", "100ms to 24h"),
            ("produce --closed --duration 10", "unit"),
            ("produce --closed --warmup 2h", "0s to 1h"),
            ("produce --closed --timeout 0s", "100ms to 10m"),
            ("produce --closed --cpu 1024", "0 to 1023"),
            ("produce --closed --cpu=NaN", "'NaN' is no number of a core; allowed is 0 to 1023"),
            ("produce --closed --cpu=", "0 to 1023"),
            ("produce --closed --cpu=1,", "0 to 1023"),
            ("sink --listen h:1 --cpu=-1", "0 to 1023"),
            ("produce --closed --level most", "leader_durable"),
            ("produce --closed --server x", "HOST:PORT"),
            ("produce --closed --linger 11s", "0s to 10s"),
            ("produce --closed --hgrm -", "name a file"),
            ("produce --closed --hlog -", "name a file"),
            ("produce --closed --plot=", "must not be empty"),
            ("produce --closed --json=", "must not be empty"),
            ("produce --closed --records=", "must not be empty"),
            ("produce --closed --scenario=", "must not be empty"),
            ("produce --closed --disk /nonexistent", "not a directory"),
            ("compare a.json", "B.json"),
            ("compare a.json -", "name a file"),
            ("replay --rate 5 --readers 0", "1 to 64"),
            ("fanout --rate 5 --readers 65", "1 to 64"),
            ("fanout", "--rate"),
            ("churn", "--rate"),
            ("churn --rate 5 --closed", "--closed"),
            ("churn --rate 5 --threads 65", "1 to 64"),
            ("churn --rate 5 --size 47", "48 to 1000000"),
            ("churn --rate 5 --action look", "produce, fetch"),
            ("consume --rate 5", "--rate"),
            ("consume --from 7", "earliest, latest"),
            ("consume --credit-bytes 1", "65536 to 268435456"),
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn a_device_gets_all_tables_and_a_file_one() {
        for (path, expected) in [("/dev/null", ["/dev/null", "/dev/null"]), ("run.hgrm", ["run.hgrm", "run.service.hgrm"])] {
            let Mode::Produce(produce) = mode(&format!("produce --rate 5 --hgrm {path}")) else { panic!("not produce") };
            let files = produce.common.hgrm_files(&["ack", "service"]);
            assert_eq!(files.iter().map(|(_, path)| path.as_str()).collect::<Vec<_>>(), expected);
            assert!(crate::files::check_distinct(&[], &produce.common.outputs(&["ack", "service"])).is_ok(), "{path}");
        }
    }

    #[test]
    fn threads_take_the_cores_in_turn() {
        for (line, expected) in [
            ("both --closed", [None, None, None]),
            ("both --closed --cpu 1", [Some(1), Some(1), Some(1)]),
            ("both --closed --cpu 1,0", [Some(1), Some(0), Some(1)]),
        ] {
            let Mode::Both(both) = mode(line) else { panic!("not both") };
            assert_eq!([0, 1, 2].map(|thread| both.common.cpu_of(thread)), expected, "{line}");
        }
    }
}
