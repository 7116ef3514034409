//! The command line, and its check: bad input ends here with a sentence that says what to do.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;

use crate::campaign::Campaign;
use crate::fault::{Fallible, Told, fault};
use crate::kinds::{Cell, Class, PeerKind};
use crate::machine;
use crate::round::Options;
use crate::servers::Setup;

/// Measures Tramline side by side with NATS JetStream, Redis Streams, RabbitMQ and Apache Kafka on this machine.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// Brokers, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = PeerKind::ALL)]
    pub peers: Vec<PeerKind>,
    /// Classes of durability, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Class::Synced, Class::Memory])]
    pub classes: Vec<Class>,
    /// Measured seconds of each trial (0.2 to 300).
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Seconds before them that do not count (0 to 60); by default a third of --seconds.
    #[arg(long)]
    pub warm_up: Option<f64>,
    /// Repetitions, interleaved (1 to 99).
    #[arg(long, default_value_t = 3)]
    pub rounds: u32,
    /// Bytes of a record (16 to 500000).
    #[arg(long, default_value_t = 1024)]
    pub record_bytes: usize,
    /// Numbers of partitions (or streams, or queues), separated by commas (1 to 2000 each).
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 1000])]
    pub partitions: Vec<u32>,
    /// Only these cells, by name, separated by commas; a wrong name is answered with the list.
    #[arg(long, value_delimiter = ',')]
    pub cells: Vec<String>,
    /// Cores of the broker, as 0-2,5.
    #[arg(long, default_value = "0")]
    pub broker_cpus: String,
    /// Cores of the generator and its clients.
    #[arg(long, default_value = "1")]
    pub client_cpus: String,
    /// First port: the one before it and six from it on have to be free.
    #[arg(long, default_value_t = 17_400)]
    pub port_base: u16,
    /// Seed of the records' bytes.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Folder for the brokers' data: on the disk that is to be measured. It must exist.
    #[arg(long)]
    pub work_dir: PathBuf,
    /// Folder for the report. Made where there is none.
    #[arg(long)]
    pub output: PathBuf,
    /// Tramline's binary.
    #[arg(long)]
    pub tramline: PathBuf,
    /// NATS's binary.
    #[arg(long, default_value = "nats-server")]
    pub nats: PathBuf,
    /// Folder with Kafka's jars.
    #[arg(long, default_value = "kafka-libs")]
    pub kafka_libs: PathBuf,
}

impl Cli {
    /// What it says, or what is wrong with it.
    pub fn checked(&self) -> Fallible<(Campaign, Setup, Options)> {
        within("--seconds", self.seconds, 0.2, 300.0)?;
        let warm_up = self.warm_up.unwrap_or(self.seconds / 3.0);
        within("--warm-up", warm_up, 0.0, 60.0)?;
        within("--rounds", f64::from(self.rounds), 1.0, 99.0)?;
        within("--record-bytes", self.record_bytes as f64, 16.0, 500_000.0)?;
        within("--port-base", f64::from(self.port_base), 1025.0, 65_000.0)?;
        for partitions in &self.partitions {
            within("--partitions", f64::from(*partitions), 1.0, 2000.0)?;
        }
        let (broker, client) = (machine::cpus(&self.broker_cpus)?, machine::cpus(&self.client_cpus)?);
        if broker.iter().any(|cpu| client.contains(cpu)) {
            return fault(format!(
                "--broker-cpus {} and --client-cpus {} share a core: give each its own",
                self.broker_cpus, self.client_cpus
            ));
        }
        let setup = Setup {
            work_dir: existing(&self.work_dir, "--work-dir")?,
            broker_cpus: self.broker_cpus.clone(),
            port_base: self.port_base,
            tramline: existing(&self.tramline, "--tramline")?,
            nats: self.nats.clone(),
            kafka_libs: self.kafka_libs.canonicalize().unwrap_or_else(|_| self.kafka_libs.clone()),
        };
        let (length, warm_up) = (Duration::from_secs_f64(self.seconds), Duration::from_secs_f64(warm_up));
        let options = Options { length, warm_up, record_bytes: self.record_bytes, seed: self.seed, cells: self.chosen_cells()? };
        let campaign = Campaign { peers: once(&self.peers), classes: once(&self.classes), rounds: self.rounds };
        Ok((campaign, setup, options))
    }

    fn chosen_cells(&self) -> Fallible<Vec<Cell>> {
        let all = Cell::all(&once(&self.partitions));
        if self.cells.is_empty() {
            return Ok(all);
        }
        for name in &self.cells {
            if !all.iter().any(|cell| cell.name() == *name) {
                let names: Vec<String> = all.iter().map(|cell| cell.name()).collect();
                return fault(format!("--cells: there is no {name:?}: choose from {}", names.join(", ")));
            }
        }
        Ok(all.into_iter().filter(|cell| self.cells.contains(&cell.name())).collect())
    }
}

/// In order, without repetitions.
fn once<T: PartialEq + Copy>(values: &[T]) -> Vec<T> {
    let mut kept = Vec::new();
    for value in values {
        if !kept.contains(value) {
            kept.push(*value);
        }
    }
    kept
}

fn within(name: &str, value: f64, lowest: f64, highest: f64) -> Fallible<()> {
    if (lowest..=highest).contains(&value) { Ok(()) } else { fault(format!("{name} is {value}: give {lowest} to {highest}")) }
}

fn existing(path: &Path, option: &str) -> Fallible<PathBuf> {
    path.canonicalize().told(&format!("{option} {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(more: &[&str]) -> Fallible<(Campaign, Setup, Options)> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().display().to_string();
        let arguments = ["tramline-peers", "--work-dir", &path, "--output", "out", "--tramline", &path];
        Cli::try_parse_from(arguments.iter().chain(more)).told("usage")?.checked()
    }

    #[test]
    fn bad_input_is_answered_with_what_to_do() {
        let table: [(&[&str], &str); 7] = [
            (&["--seconds", "0"], "give 0.2 to 300"),
            (&["--seconds", "NaN"], "give 0.2 to 300"),
            (&["--rounds", "0"], "give 1 to 99"),
            (&["--broker-cpus", "0-1"], "give each its own"),
            (&["--broker-cpus", "x"], "write 0-2,5"),
            (&["--cells", "warp"], "choose from one_in_flight"),
            (&["--peers", "pulsar"], "possible values"),
        ];
        for (arguments, expected) in table {
            let told = checked(arguments).err().map(|fault| fault.0).unwrap_or_default();
            assert!(told.contains(expected), "{arguments:?}: {told}");
        }
    }

    #[test]
    fn what_is_given_is_taken() {
        let (campaign, _, options) = checked(&["--peers", "redis,nats,redis", "--classes", "synced", "--cells", "max_p1"]).expect("good");
        assert_eq!((campaign.peers, campaign.classes), (vec![PeerKind::Redis, PeerKind::Nats], vec![Class::Synced]));
        assert_eq!((options.cells, options.warm_up), (vec![Cell::Max { partitions: 1 }], Duration::from_secs(1)));
    }
}
