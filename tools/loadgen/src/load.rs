//! Options of the writing side: how many records, when, of what kind.
//!
//! Invariants: what only several options say together is refused by `check`, before anything is done; defaults that depend on other
//! options are decided here and nowhere else.
//! Not here: single values (`ranges.rs`), the options of every mode (`args.rs`).

use crate::args::{Action, Compression, Level, name_of};
use crate::arrivals::Shape;
use crate::lines::Lines;
use crate::pick::{Choice, Spread, Values};
use crate::ranges::{self, Sizes};
use clap::{Args, ValueEnum};
use std::sync::Arc;
use std::time::Duration;

/// Records of a burst where none are named.
const BURST_DEFAULT: u64 = 100;
/// Keys and producers together: each producer counts the records of each key, 8 bytes or some 40 where there are many.
const KEYS_OF_ALL_MAX: u64 = 100_000_000;

/// Options of an open loop.
#[derive(Args, Clone, Debug)]
pub struct Pacing {
    /// Open loop: this many records (churn: connections) per second in all, whatever the server does (1000, 20k, 1M) [1 to 100M]
    #[arg(long, value_name = "R", value_parser = ranges::rate)]
    pub rate: Option<u64>,
    /// Open loop: when they are due; bursts have --burst at once
    #[arg(long, default_value = "constant")]
    pub arrivals: ArrivalsName,
    /// Open loop with --arrivals bursts: records of one burst [default: 100; 1 to 1M]
    #[arg(long, value_name = "N", value_parser = ranges::burst)]
    pub burst: Option<u64>,
    /// Open loop: a record that is sent later than this by the load generator's own fault is late; with more than 1 % of such records
    /// the exit code is 3 [0s to 10s]
    #[arg(long, default_value = "1ms", value_parser = ranges::linger)]
    pub late_max: Duration,
    /// What random arrivals, keys, sizes and values are drawn from; the report has it [0 to 2^64 - 1; default: another one
    /// each time]
    #[arg(long, value_name = "N", value_parser = ranges::seed)]
    pub seed: Option<u64>,
}

/// Names of the shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ArrivalsName {
    /// In equal distances.
    Constant,
    /// At random and independent of each other; each producer for itself.
    Poisson,
    /// Several at once, in equal distances.
    Bursts,
}

impl Pacing {
    /// The shape of the arrivals.
    pub fn shape(&self) -> Shape {
        match self.arrivals {
            ArrivalsName::Constant => Shape::Constant,
            ArrivalsName::Poisson => Shape::Poisson,
            ArrivalsName::Bursts => Shape::Bursts(self.burst.unwrap_or(BURST_DEFAULT)),
        }
    }

    /// Records of a burst, where there are bursts.
    pub fn burst_len(&self) -> Option<u64> {
        match self.shape() {
            Shape::Bursts(burst) => Some(burst),
            Shape::Constant | Shape::Poisson => None,
        }
    }

    /// What the options do not say each for itself but only together.
    pub fn check(&self) -> Result<(), String> {
        if self.burst.is_some() && self.arrivals != ArrivalsName::Bursts {
            return Err(format!("--burst needs --arrivals bursts, not {}", name_of(self.arrivals)));
        }
        Ok(())
    }
}

/// Options of the writing side.
#[derive(Args, Clone, Debug)]
#[command(group = clap::ArgGroup::new("loop").args(["rate", "closed"]).required(true))]
pub struct Load {
    /// When records are due.
    #[command(flatten)]
    pub pacing: Pacing,
    /// Closed loop: the next record waits for an answer. For maximum throughput; its latencies leave out what a stall delays
    #[arg(long, conflicts_with_all = ["rate", "arrivals", "burst", "late_max"])]
    pub closed: bool,
    /// Closed loop: records waiting for an answer at most [default: what fills --in-flight batches; 1 to 10M]
    #[arg(long, value_name = "N", value_parser = ranges::outstanding, conflicts_with = "rate")]
    pub outstanding: Option<u64>,
    /// Bytes of a value, or a range as in 100..2000, whose sizes are equally likely; 48 of them are the stamp [48 to 16MiB]
    #[arg(long, default_value = "1000", value_parser = ranges::sizes)]
    pub size: Sizes,
    /// Share of the values, without their stamps, that a codec makes nothing of [0 to 1]
    #[arg(long, default_value = "0.5", value_name = "SHARE", value_parser = ranges::share)]
    pub compressible: f64,
    /// Send the lines of this file, round and round, each behind a stamp of 48 bytes; .gz is unpacked [at most 1 GiB]
    #[arg(long, value_name = "FILE", value_parser = ranges::input_name, conflicts_with_all = ["size", "compressible"])]
    pub records: Option<String>,
    /// A batch closes at this many bytes [128 to 8MiB]
    #[arg(long, default_value = "64KiB", value_parser = ranges::batch_bytes)]
    pub batch_bytes: u64,
    /// How long a batch may wait for more records [0s to 10s]
    #[arg(long, default_value = "0s", value_parser = ranges::linger)]
    pub linger: Duration,
    /// Unanswered requests per connection [1 to 1024]
    #[arg(long, default_value = "5", value_name = "N", value_parser = ranges::in_flight)]
    pub in_flight: u64,
    /// Bytes of records held by each producer; above it sending waits [1MiB to 4GiB]
    #[arg(long, default_value = "32MiB", value_parser = ranges::buffer_bytes)]
    pub buffer_bytes: u64,
    /// What an acknowledgement promises
    #[arg(long, default_value = "durable")]
    pub level: Level,
    /// Compression of the batches
    #[arg(long, default_value = "none")]
    pub compression: Compression,
    /// Producers, each with its own connections; they share --rate, the other limits hold for each [1 to 10000]
    #[arg(long, default_value = "1", value_name = "N", value_parser = ranges::producers)]
    pub producers: u64,
    /// Threads that share the producers; with several on one, answers are timed up to 0.1 ms late unless it spins (--busy-poll) [default: one per producer, at most one
    /// per core; 1 to 64]
    #[arg(long, value_name = "N", value_parser = ranges::threads)]
    pub threads: Option<u64>,
    /// Different keys; 0: no keys, partitions in turn, a batch each [0 to 10M]
    #[arg(long, default_value = "0", value_name = "N", value_parser = ranges::keys)]
    pub keys: u64,
    /// Which of the --keys is next: turn, uniform (equally likely), or zipf:S (key k, from 0, as likely as 1 / (k + 1)^S) [S: 0.1 to 5]
    #[arg(long, default_value = "turn", value_name = "CHOICE", value_parser = ranges::key_choice)]
    pub key_choice: Choice,
    /// Key of each record: this column of its line, separated by commas, from 1; needs --records [1 to 10000]
    #[arg(long, value_name = "N", value_parser = ranges::key_field, conflicts_with_all = ["keys", "key_choice"])]
    pub key_field: Option<u32>,
}

/// Options of `churn`.
#[derive(Args, Clone, Debug)]
#[command(group = clap::ArgGroup::new("open").args(["rate"]).required(true))]
pub struct Churn {
    /// When connections are due.
    #[command(flatten)]
    pub pacing: Pacing,
    /// Threads, each with one connection at a time [1 to 64]
    #[arg(long, default_value = "4", value_name = "N", value_parser = ranges::threads)]
    pub threads: u64,
    /// What each connection does
    #[arg(long, default_value = "produce")]
    pub action: Action,
    /// Bytes of the record's value; 48 of them are the stamp [48 to 1M]
    #[arg(long, default_value = "100", value_parser = ranges::size)]
    pub size: u64,
    /// What the acknowledgement of the record promises; none has no answer to wait for and is refused
    #[arg(long, default_value = "durable")]
    pub level: Level,
}

impl Churn {
    /// What the options do not say each for itself but only together.
    pub fn check(&self) -> Result<(), String> {
        if self.level == Level::None {
            return Err("--level none has no answer, so there would be nothing to measure; use leader or a stronger one".to_owned());
        }
        self.pacing.check()
    }
}

impl Load {
    /// What the options do not say each for itself but only together.
    pub fn check(&self) -> Result<(), String> {
        self.pacing.check()?;
        if self.buffer_bytes < self.batch_bytes {
            return Err(format!(
                "--buffer-bytes {} is below --batch-bytes {}; it must hold at least one batch",
                self.buffer_bytes, self.batch_bytes
            ));
        }
        if self.key_field.is_some() && self.records.is_none() {
            return Err("--key-field needs --records, whose columns it counts".to_owned());
        }
        if self.key_choice != Choice::Turn && self.keys == 0 {
            return Err("--key-choice needs --keys, the number of keys to choose from".to_owned());
        }
        if self.keys.saturating_mul(self.producers) > KEYS_OF_ALL_MAX {
            return Err(format!("--keys times --producers is above {KEYS_OF_ALL_MAX}: the counts of so many would not fit in memory"));
        }
        Ok(())
    }

    /// Number of writing threads: none is without a producer.
    pub fn threads(&self) -> u64 {
        self.threads.unwrap_or_else(cores).min(self.producers)
    }

    /// Reads the file of real records, if one is named.
    pub fn values(&self) -> Result<Values, String> {
        match &self.records {
            Some(path) => Ok(Values::Lines(Arc::new(Lines::load(path, self.key_field)?))),
            None => Ok(Values::Sizes(self.size.min, self.size.max)),
        }
    }

    /// How records are spread over a topic of so many partitions.
    pub fn spread(&self, values: &Values, partitions: u32) -> Spread {
        match (values, self.key_field) {
            (Values::Lines(lines), Some(_)) => Spread::Lines(lines.key_count()),
            _ if self.keys > 0 => Spread::Keys(self.keys as u32, self.key_choice),
            _ => Spread::Partitions(partitions),
        }
    }

    /// Whether records have keys.
    pub fn keyed(&self) -> bool {
        self.keys > 0 || self.key_field.is_some()
    }

    /// Records that fit into one batch: the length of a run on one partition, at least one.
    pub fn records_per_batch(&self, values: &Values) -> u64 {
        let size = match values {
            Values::Sizes(min, max) => Sizes { min: *min, max: *max }.mean(),
            Values::Lines(lines) => lines.value_bytes_mean(),
        };
        // Batch header 112 bytes; each record an index entry of 12 bytes, with a key 2 + 12 more. A batch counts at most 65,535.
        let record = size + 12 + if self.keyed() { 14 } else { 0 };
        (self.batch_bytes.saturating_sub(112) / record).clamp(1, 65_535)
    }

    /// Closed loop: records waiting for an answer at most, of one producer with so many connections.
    pub fn outstanding_max(&self, values: &Values, owners: u64) -> u64 {
        self.outstanding.unwrap_or(self.in_flight * self.records_per_batch(values) * owners)
    }
}

/// Cores that this process may use. Asked once, before any thread is bound to one: such a thread would see one, and share the producers out among other threads than there are.
fn cores() -> u64 {
    static CORES: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::load;

    const FIXED: Values = Values::Sizes(1000, 1000);

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        for (line, part) in [
            ("produce --closed --buffer-bytes 1MiB --batch-bytes 2MiB", "at least one batch"),
            ("produce --closed --key-field 2", "--key-field needs --records"),
            ("produce --closed --key-choice uniform", "--key-choice needs --keys"),
            ("produce --closed --keys 10M --producers 11", "above 100000000"),
            ("produce --rate 1 --burst 2", "--burst needs --arrivals bursts, not constant"),
            ("produce --rate 1 --arrivals poisson --burst 2", "not poisson"),
        ] {
            assert!(load(line).check().unwrap_err().contains(part), "{line}");
        }
        load("produce --rate 1 --arrivals bursts --keys 5 --key-choice zipf:1.2").check().unwrap();
    }

    #[test]
    fn a_run_on_one_partition_is_what_fits_a_batch() {
        let of = |line: &str| load(line).records_per_batch(&load(line).values().unwrap());
        assert_eq!(of("produce --closed"), (65_536 - 112) / 1012);
        assert_eq!(of("produce --closed --size 500..1500"), (65_536 - 112) / 1012);
        assert_eq!(of("produce --closed --batch-bytes 128"), 1);
        assert_eq!(of("produce --closed --size 48 --batch-bytes 8MiB"), 65_535);
        assert_eq!(load("produce --closed --in-flight 3").outstanding_max(&FIXED, 2), 3 * 64 * 2);
        assert_eq!(load("produce --closed --outstanding 7").outstanding_max(&FIXED, 2), 7);
    }

    #[test]
    fn records_are_spread_by_key_or_by_partition() {
        assert_eq!(load("produce --closed").spread(&FIXED, 3), Spread::Partitions(3));
        assert_eq!(load("produce --closed --keys 9 --key-choice zipf:2").spread(&FIXED, 3), Spread::Keys(9, Choice::Zipf(2.0)));
        let lines = Values::Lines(Arc::new(Lines::new(b"a,x\nb,y\n".to_vec(), Some(2)).unwrap()));
        let keyed = load("produce --closed --records f --key-field 2");
        assert_eq!((keyed.spread(&lines, 3), keyed.keyed()), (Spread::Lines(2), true));
        assert_eq!(load("produce --closed --records f").spread(&lines, 3), Spread::Partitions(3));
    }

    #[test]
    fn no_thread_is_without_a_producer() {
        assert_eq!(load("produce --closed --threads 7 --producers 3").threads(), 3);
        assert_eq!(load("produce --closed --threads 7 --producers 300").threads(), 7);
        assert_eq!(load("produce --closed").threads(), 1);
        // Also on a thread that is bound to a core.
        let many = load("produce --closed --producers 300");
        let told = many.threads();
        let bound = std::thread::spawn(move || {
            let core = core_affinity::get_core_ids().and_then(|cores| cores.into_iter().next()).expect("a core");
            assert!(core_affinity::set_for_current(core));
            many.threads()
        });
        assert_eq!(bound.join().expect("no panic"), told);
    }

    #[test]
    fn arrivals_are_constant_unless_another_shape_is_asked() {
        for (line, shape) in [
            ("produce --rate 5", Shape::Constant),
            ("produce --rate 5 --arrivals poisson", Shape::Poisson),
            ("produce --rate 5 --arrivals bursts", Shape::Bursts(100)),
            ("produce --rate 5 --arrivals bursts --burst 7", Shape::Bursts(7)),
        ] {
            assert_eq!(load(line).pacing.shape(), shape, "{line}");
        }
    }
}
