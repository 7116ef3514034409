//! Sends lines of standard input to a topic, and tells what became of them.
//!
//! ```text
//! seq 1000 | cargo run --release -p tramline-client --example produce -- numbers
//! ```
//! The broker is found through `TRAMLINE_SERVER` (default 127.0.0.1:7410). The topic is created if it does not exist.

use std::error::Error;
use std::io::BufRead;
use std::time::{Duration, Instant};

use tramline_client::{Client, Config, Level, Producer, ProducerConfig, Record};

/// What became of the records so far.
#[derive(Default)]
struct Tally {
    acked: u64,
    failed: u64,
}

impl Tally {
    fn take(&mut self, producer: &mut Producer) {
        producer.drain(|delivery| match delivery.error {
            None => self.acked += 1,
            Some(error) => {
                self.failed += 1;
                eprintln!("line {}: {error}", delivery.tag);
            }
        });
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let topic = std::env::args().nth(1).unwrap_or_else(|| "lines".to_string());
    let client = Client::connect(Config::from_env())?;
    client.create_topic(&topic, 4, &[], true)?;

    let mut producer = client.producer(ProducerConfig { level: Level::Durable, ..ProducerConfig::default() })?;
    let mut tally = Tally::default();
    let start = Instant::now();
    for (number, line) in std::io::stdin().lock().lines().enumerate() {
        let line = line?;
        producer.send(&Record { topic: &topic, value: Some(line.as_bytes()), tag: number as u64 + 1, ..Record::default() })?;
        // Nothing moves by itself: this sends what is open as soon as the window has room, and does not wait.
        producer.poll(Duration::ZERO)?;
        tally.take(&mut producer);
    }
    producer.flush(Duration::from_secs(30))?;
    tally.take(&mut producer);
    println!("{} acknowledged, {} failed, in {:?}", tally.acked, tally.failed, start.elapsed());
    if tally.failed > 0 { Err("some lines were not acknowledged".into()) } else { Ok(()) }
}
