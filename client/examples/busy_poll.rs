//! Measures round trips with the lowest latency there is: one record in flight, spinning instead of sleeping.
//!
//! ```text
//! cargo run --release -p tramline-client --example busy_poll -- numbers 10000
//! ```
//! The broker is found through `TRAMLINE_SERVER` (default 127.0.0.1:7410). The topic is created if it does not exist. A spinning thread costs a core; give
//! it one of its own (`taskset -c 3`), and set `yield_when_empty: false` only where that core is isolated.

use std::error::Error;
use std::time::{Duration, Instant};

use tramline_client::{Client, Config, Level, ProducerConfig, Record};

fn main() -> Result<(), Box<dyn Error>> {
    let topic = std::env::args().nth(1).unwrap_or_else(|| "numbers".to_string());
    let count: usize = std::env::args().nth(2).map_or(Ok(1000), |count| count.parse())?;
    let client = Client::connect(Config { busy_poll: true, ..Config::from_env() })?;
    client.create_topic(&topic, 1, &[], true)?;

    let mut producer = client.producer(ProducerConfig { level: Level::Leader, ..ProducerConfig::default() })?;
    let mut round_trips = Vec::with_capacity(count);
    let mut failed = None;
    for number in 0..count {
        let start = Instant::now();
        producer.send(&Record { topic: &topic, value: Some(&number.to_le_bytes()), ..Record::default() })?;
        while producer.poll(Duration::from_secs(1))? == 0 {
            // Nothing for a second: say why, and go on. The record has its fate when `delivery_timeout` is over at the latest.
            if let Some(trouble) = producer.trouble() {
                eprintln!("{trouble}");
            }
        }
        producer.drain(|delivery| failed = delivery.error.cloned());
        if let Some(error) = failed {
            return Err(error.into());
        }
        round_trips.push(start.elapsed());
    }
    round_trips.sort_unstable();
    if let (Some(median), Some(longest)) = (round_trips.get(count / 2), round_trips.last()) {
        println!("{count} round trips: median {median:?}, longest {longest:?}");
    }
    Ok(())
}
