//! What tests of several files have in common: command lines, and the outcome of a run that never was.

use crate::args::{Cli, Command, Mode};
use crate::lateness::Lates;
use crate::load::Load;
use crate::report::{Kept, Outcome};
use crate::schedule::{SECOND_NS, Window};
use crate::stats::{Side, record};
use clap::Parser;
use serde_json::json;

/// A command line without the program's name.
pub fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("tramline-loadgen").chain(line.split_whitespace()))
}

/// The writing side of a command line.
pub fn load(line: &str) -> Load {
    match mode(line) {
        Mode::Produce(produce) => produce.load,
        Mode::Both(both) => both.load,
        Mode::Replay(replay) => replay.load,
        Mode::Fanout(fanout) => fanout.load,
        Mode::Consume(_) | Mode::Churn(_) => panic!("it has no load"),
    }
}

/// The mode of a command line.
pub fn mode(line: &str) -> Mode {
    match parse(line).unwrap().command {
        Command::Run(mode) => mode,
        Command::Compare(_) | Command::Sink(_) => panic!("it drives nothing"),
    }
}

/// A side that completed so many records in the measured part, each after this time.
pub fn side(records: u64, latency_ns: u64) -> Side {
    let mut side = Side::new();
    (side.records, side.acked, side.measured_records) = (records, records, records);
    (side.done_records, side.done_bytes) = (records, records * 1000);
    side.last_done_ns = 11 * SECOND_NS;
    for _ in 0..records {
        record(&mut side.latency, latency_ns);
        record(&mut side.service, latency_ns / 2);
    }
    side
}

/// Of a run with 10 s of measured time.
pub fn outcome(asked: Option<u64>, produce: Option<Side>, consume: Option<Side>) -> Outcome {
    Outcome {
        mode: "both",
        parameters: json!({"level": "durable", "size": 1000}),
        environment: json!({}),
        asked_rate: asked,
        random_arrivals: false,
        window: Window::new(SECOND_NS, 10 * SECOND_NS),
        produce,
        unsent: 0,
        lates: asked.map(|_| Lates::new(1_000_000)),
        readers: consume.iter().map(Kept::of).collect(),
        consume,
        replay: None,
        connect: None,
        found: None,
        left: 0,
        unverified: None,
        series: Vec::new(),
        vanished: None,
        signal: None,
        warnings: Vec::new(),
        seeds: json!({}),
        log_error: None,
    }
}
