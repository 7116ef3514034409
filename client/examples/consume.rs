//! Prints the records of a topic, from the earliest to the end as it is when this starts.
//!
//! ```text
//! cargo run --release -p tramline-client --example consume -- numbers
//! ```
//! The broker is found through `TRAMLINE_SERVER` (default 127.0.0.1:7410).

use std::error::Error;
use std::io::Write;
use std::time::Duration;

use tramline_client::{Client, Config, ConsumerConfig, Start};

fn main() -> Result<(), Box<dyn Error>> {
    let topic = std::env::args().nth(1).unwrap_or_else(|| "lines".to_string());
    let client = Client::connect(Config::from_env())?;
    let mut consumer = client.consumer(ConsumerConfig::default())?;
    consumer.assign_all(&topic, Start::Earliest)?;

    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut written = Ok(());
    consumer.read_to_end(Duration::from_secs(60), |record| {
        // A record borrows the receive buffer: use it here, or copy it.
        if written.is_ok() {
            written = write!(out, "{}/{} ", record.partition, record.offset)
                .and_then(|()| out.write_all(record.value.unwrap_or_default()))
                .and_then(|()| out.write_all(b"\n"));
        }
    })?;
    written?;
    out.flush()?;
    Ok(())
}
