//! Sends numbers and reads them back in a Tokio runtime, both at once.
//!
//! ```text
//! cargo run --release -p tramline-client --features tokio --example tokio -- numbers
//! ```
//! The broker is found through `TRAMLINE_SERVER` (default 127.0.0.1:7410). The topic is created if it does not exist.

use std::error::Error;

use tramline_client::asynchronous::Client;
use tramline_client::{Config, ConsumerConfig, ProducerConfig, Record, Start};

const COUNT: u64 = 1000;

/// Sends the numbers; returns how many failed.
async fn produce(client: Client, topic: String) -> Result<u64, tramline_client::SendError> {
    let mut producer = client.producer(ProducerConfig::default())?;
    for number in 0..COUNT {
        let value = number.to_string();
        producer.send(&Record { topic: &topic, value: Some(value.as_bytes()), tag: number, ..Record::default() }).await?;
    }
    producer.flush().await;
    let mut failed = 0;
    producer.drain(|delivery| {
        if let Some(error) = delivery.error {
            failed += 1;
            eprintln!("number {}: {error}", delivery.tag);
        }
    });
    Ok(failed)
}

async fn run(topic: String) -> Result<(), Box<dyn Error>> {
    let client = Client::connect(Config::from_env()).await?;
    let name = topic.clone();
    client.run(move |client| client.create_topic(&name, 4, &[], true)).await?;

    let mut consumer = client.consumer(ConsumerConfig::default())?;
    consumer.assign_all(&topic, Start::Latest).await?;
    let producing = tokio::task::spawn(produce(client.clone(), topic));
    let (mut count, mut sum) = (0, 0);
    while count < COUNT {
        // A record borrows the receive buffer: use it here, or copy it.
        consumer
            .poll(|record| {
                let number = record.value.and_then(|value| std::str::from_utf8(value).ok()).and_then(|text| text.parse::<u64>().ok());
                sum += number.unwrap_or(0);
                count += 1;
            })
            .await?;
    }
    let failed = producing.await??;
    println!("read {count} numbers, their sum is {sum}; {failed} failed");
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let topic = std::env::args().nth(1).unwrap_or_else(|| "numbers".to_string());
    tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?.block_on(run(topic))
}
