//! `tramline-micro`: what single pieces of the broker cost by themselves.
//!
//! Job: run a piece as the broker does, without disk, network and other threads, and write its bytes and times to the standard output as JSON.
//!
//! Invariants: memory is what an allocator counted, and times are the thread's processor time: others on the machine make both no worse, but for
//! caches that they share.
//!
//! Not here: the broker as a whole (`bench/driver`).

mod allocator;
mod clock;
mod holes;
mod steps;

use clap::Parser;
use std::process::ExitCode;

/// What single pieces of the broker cost by themselves.
#[derive(Debug, Parser)]
#[command(version, about)]
enum Arguments {
    /// Messages of one queue under lease, acknowledged in random order
    QueueHoles {
        /// Messages at the start, in tenths of which is counted
        #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1000..=16_000_000))]
        messages: u64,
        /// Seed of the order
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// A fixed script for one node, for callgrind: `scripts/instructions.sh`
    Steps {
        /// Requests that are counted
        #[arg(long, value_enum)]
        counted: steps::Counted,
        /// Batches of 64 records of 1 KiB
        #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1024))]
        batches: u64,
        /// Requests that come within one turn of the shard
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=15))]
        per_turn: u64,
        /// Shards of the node
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
        shards: u16,
        /// Partitions of the topic
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
        partitions: u32,
        /// Connections of each shard
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1024))]
        connections: u64,
    },
}

fn main() -> ExitCode {
    let figures = match Arguments::parse() {
        Arguments::QueueHoles { messages, seed } => holes::run(messages, seed),
        Arguments::Steps { counted, batches, per_turn, shards, partitions, connections } => {
            let script = steps::Script { counted, batches, per_turn, shards, partitions, connections };
            [("records".to_owned(), steps::run(&script) as f64)].into()
        }
    };
    let figures: serde_json::Map<String, serde_json::Value> =
        figures.into_iter().map(|(name, value)| (name, serde_json::json!((value * 1000.0).round() / 1000.0))).collect();
    println!("{}", serde_json::json!({ "figures": figures }));
    ExitCode::SUCCESS
}
