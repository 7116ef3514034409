//! `tramline-witness`: writes numbered records at a steady rate, notes when each was acknowledged, and in the end looks whether all of them are there. For
//! experiments in which nodes die (scripts/cluster/failover.sh, scripts/cluster/faults.sh).
//!
//! Each acknowledgement is a line of the file named with `--acks`: `UTC_US PARTITION NUMBER OFFSET` (offset `-` where only that it is stored is known). It ends at
//! SIGINT or SIGTERM: then it waits for what is under way, checks, and prints one line. Exit code 1 if anything is as it must not be, 2 for wrong usage.
//!
//! | what | file | its line |
//! |---|---|---|
//! | records of a topic, read back from its beginning | `stream` | `sent=.. acked=.. failed=.. lost=.. doubled=.. wrong=.. disordered=..` |
//! | messages of a queue, received and acknowledged all along (`--queue`) | `queue` | `sent=.. acked=.. failed=.. received=.. settled=.. again=.. lost=.. doubled=.. wrong=.. revived=.. stuck=..` |
//! | what another witness noted (`--check`) | `stream` | `acked=.. lost=.. doubled=.. wrong=.. disordered=.. unread=..` |
//!
//! - *lost*: acknowledged and not there, or elsewhere than it was said to be. *doubled*: there twice. *wrong*: bytes that nobody wrote. *disordered*: behind a later one
//!   of its partition. *unread*: partitions that could not be read to their end: refusing is no lie, so it is told and not held against anybody.
//! - *again*: delivered more than once, which leases allow. *revived*: delivered after its acknowledgement was confirmed, which nothing allows. *stuck*: never settled, and not coming again.
//!
//! Not here: latencies under load (`tramline-loadgen`), faults.

mod queue;
mod sender;
mod stream;

use clap::Parser;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tramline_client::{Client, Config};

/// How long what is under way, and the reading back, may take.
const END_WAIT: Duration = Duration::from_secs(60);

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
#[command(version, about = "Writes numbered records and looks in the end whether all that were acknowledged are there")]
struct Args {
    /// Addresses of nodes, separated by commas
    #[arg(long, env = "TRAMLINE_SERVER", default_value = "127.0.0.1:7410")]
    server: String,
    /// The topic, which has to exist and to be empty
    #[arg(long)]
    topic: String,
    /// A queue on the topic: its messages are received and acknowledged all along
    #[arg(long, conflicts_with = "check")]
    queue: Option<String>,
    /// Records per second, over all partitions [1 to 100000]
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rate: u64,
    /// The file that gets a line per acknowledgement
    #[arg(long)]
    acks: std::path::PathBuf,
    /// Write nothing: read the topic and compare it with the file of acknowledgements
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok((line, is_right)) => {
            println!("{line}");
            if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("tramline-witness: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The last line, and whether all is as it has to be.
fn run(args: &Args) -> Result<(String, bool), Failure> {
    let client = Client::connect(Config { client_name: "tramline-witness".to_owned(), ..Config::new(&args.server) })?;
    let ends = ends()?;
    match &args.queue {
        _ if args.check => stream::check(&client, &args.topic, &args.acks),
        Some(queue) => queue::run(&client, args, queue, &ends),
        None => stream::run(&client, args, &ends),
    }
}

/// Set at a signal.
fn ends() -> Result<Arc<AtomicBool>, std::io::Error> {
    let ends = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&ends))?;
    }
    Ok(ends)
}
