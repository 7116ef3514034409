//! `tramline-witness`: writes numbered records at a steady rate, notes when each was acknowledged, and in the end looks whether all of them are there. For
//! experiments in which nodes die (scripts/cluster/failover.sh).
//!
//! Each acknowledgement is a line of the file named with `--acks`: `UTC_US PARTITION NUMBER OFFSET` (offset `-` where only that it is stored is known). It ends at
//! SIGINT or SIGTERM: then it waits for what is under way, reads everything back, and prints one line,
//! `sent=.. acked=.. failed=.. lost=.. doubled=..`. Exit code 1 if anything acknowledged is lost or any record is there twice, 2 for wrong usage.
//!
//! Not here: latencies under load (`tramline-loadgen`), faults.

use clap::Parser;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tramline_client::{Client, Config, ConsumerConfig, Producer, ProducerConfig, Record, SendError, Start};

/// How long what is under way, and the reading back, may take.
const END_WAIT: Duration = Duration::from_secs(60);

#[derive(Parser)]
#[command(version, about = "Writes numbered records and looks in the end whether all that were acknowledged are there")]
struct Args {
    /// Addresses of nodes, separated by commas
    #[arg(long, env = "TRAMLINE_SERVER", default_value = "127.0.0.1:7410")]
    server: String,
    /// The topic, which has to exist and to be empty
    #[arg(long)]
    topic: String,
    /// Records per second, over all partitions [1 to 100000]
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rate: u64,
    /// The file that gets a line per acknowledgement
    #[arg(long)]
    acks: std::path::PathBuf,
}

struct Witness {
    producer: Producer,
    partitions: u32,
    sent: u64,
    failed: u64,
    /// By number: the partition.
    acked: HashMap<u64, u32>,
    acks: BufWriter<File>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("tramline-witness: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool, Box<dyn std::error::Error>> {
    let client = Client::connect(Config { client_name: "tramline-witness".to_owned(), ..Config::new(&args.server) })?;
    let partitions = client.describe_topic(&args.topic)?.partitions.len() as u32;
    let config = ProducerConfig { linger_us: 0, delivery_timeout: END_WAIT, ..ProducerConfig::default() };
    let mut witness = Witness {
        producer: client.producer(config)?,
        partitions,
        sent: 0,
        failed: 0,
        acked: HashMap::new(),
        acks: BufWriter::new(File::create(&args.acks)?),
    };
    let ends = ends()?;
    let (start, period) = (Instant::now(), Duration::from_secs(1).div_f64(args.rate as f64));
    while !ends.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_nanos() / period.as_nanos().max(1)) as u64;
        while witness.sent < due {
            witness.send(&args.topic)?;
        }
        witness.producer.poll(Duration::from_millis(1))?;
        witness.note()?;
    }
    witness.producer.flush(END_WAIT)?;
    witness.note()?;
    witness.acks.flush()?;
    let (lost, doubled) = witness.read_back(&client, &args.topic)?;
    let (sent, failed) = (witness.sent, witness.failed);
    println!("sent={sent} acked={} failed={failed} lost={lost} doubled={doubled}", witness.acked.len());
    Ok(lost == 0 && doubled == 0)
}

/// Set at a signal.
fn ends() -> Result<Arc<AtomicBool>, std::io::Error> {
    let ends = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&ends))?;
    }
    Ok(ends)
}

impl Witness {
    fn send(&mut self, topic: &str) -> Result<(), SendError> {
        let number = self.sent + 1;
        let value = number.to_le_bytes();
        let partition = Some((number % u64::from(self.partitions)) as u32);
        let record = Record { topic, partition, value: Some(&value), tag: number, ..Record::default() };
        self.producer.send(&record)?;
        self.sent = number;
        Ok(())
    }

    /// Notes what was acknowledged since the last time.
    fn note(&mut self) -> std::io::Result<()> {
        let now_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
        let (acked, failed, acks) = (&mut self.acked, &mut self.failed, &mut self.acks);
        let mut written = Ok(());
        self.producer.drain(|delivery| {
            if let Some(error) = delivery.error {
                eprintln!("tramline-witness: record {} of partition {} failed: {error}", delivery.tag, delivery.partition);
                *failed += 1;
                return;
            }
            acked.insert(delivery.tag, delivery.partition);
            let offset = delivery.offset.map_or("-".to_owned(), |offset| offset.to_string());
            let line = writeln!(acks, "{now_us} {} {} {offset}", delivery.partition, delivery.tag);
            if written.is_ok() {
                written = line;
            }
        });
        written?;
        // Somebody looks at it while it is written.
        self.acks.flush()
    }

    /// How many acknowledged records are missing, and how many are there twice.
    fn read_back(&self, client: &Client, topic: &str) -> Result<(usize, usize), Box<dyn std::error::Error>> {
        let mut consumer = client.consumer(ConsumerConfig::default())?;
        consumer.assign_all(topic, Start::Earliest)?;
        let (mut found, mut doubled) = (HashMap::new(), 0);
        consumer.read_to_end(END_WAIT, |record| {
            let number = record.value.and_then(|value| value.try_into().ok()).map_or(0, u64::from_le_bytes);
            doubled += usize::from(found.insert(number, record.partition).is_some());
        })?;
        let is_lost = |(number, partition): &(&u64, &u32)| found.get(*number) != Some(*partition);
        Ok((self.acked.iter().filter(is_lost).count(), doubled))
    }
}
