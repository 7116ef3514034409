//! A worker of a queue that writes one output for each message, in one atomic step with its ack: whatever crashes, and when, each output is there once.
//!
//! ```text
//! cargo run --release -p tramline-client --example atomic_step -- orders invoices
//! ```
//! Reads the queue `orders` of the topic `orders`, and writes to the topic `invoices`; all of them are created where they do not exist. Run several, kill one and start it again: messages come
//! again, outputs do not. It ends when nothing has come for some seconds. The broker is found through `TRAMLINE_SERVER` (default 127.0.0.1:7410).

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use tramline_client::{At, Client, Config, Error as ClientError, ErrorCode, Message, QueueConsumerConfig, Record, Step, Steps};

/// So many messages are taken at once: all of them have to be done before their leases are over.
const PORTION: u32 = 20;
/// So many of them at most are done in one step: when one is too late, nothing of its step happens.
const STEP: usize = 5;
/// It ends when nothing has come for so long; longer than the leases of a worker that crashed.
const IDLE: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, output] = arguments.as_slice() else { return Err("usage: atomic_step INPUT OUTPUT".into()) };
    let client = Client::connect(Config::from_env())?;
    let partitions = client.create_topic(input, 4, &[], true)?.partitions;
    // What a step names lies in one replica group: partition 3 of the output where partition 3 of the input is.
    client.create_topic(output, partitions, &[("co.locate", input)], true)?;
    // A short time, so that the example ends soon: a real queue gives its workers more. No crash is a message's fault here.
    let settings = [("visibility.timeout.ms", "2000"), ("max.deliveries", "-1")];
    let queue_uid = client.create_queue(input, input, At::Earliest, &settings, true)?.uid;

    let config = QueueConsumerConfig { max_messages: PORTION, wait: Duration::from_millis(200), ..QueueConsumerConfig::default() };
    let mut consumer = client.queue_consumer(input, config)?;
    let mut steps = client.steps()?;
    let mut heard = Instant::now();
    while heard.elapsed() < IDLE {
        let mut by_partition: BTreeMap<u32, Vec<Message>> = BTreeMap::new();
        for message in consumer.poll()? {
            heard = Instant::now();
            by_partition.entry(message.partition).or_default().push(message);
        }
        for (partition, messages) in by_partition {
            for messages in messages.chunks(STEP) {
                take(&mut steps, queue_uid, output, partition, messages)?;
            }
        }
    }
    // Of the last step, if it got no answer: it is carried out by now, or refused.
    steps.settle()?;
    consumer.close(Duration::from_secs(10))?;
    Ok(())
}

/// The work: it may be done more than once, what comes of it is written once.
fn work(message: &Message) -> Vec<u8> {
    [b"done: ", message.value.as_deref().unwrap_or_default()].concat()
}

/// The outputs of these messages are written and the messages are over, or neither.
fn take(steps: &mut Steps, queue_uid: u64, output: &str, partition: u32, messages: &[Message]) -> Result<(), ClientError> {
    let outputs: Vec<Vec<u8>> = messages.iter().map(work).collect();
    let mut step = Step::new();
    for (message, value) in messages.iter().zip(&outputs) {
        let record =
            Record { topic: output, partition: Some(partition), key: message.key.as_deref(), value: Some(value), ..Record::default() };
        step = step.ack(queue_uid, message.token).publish(record);
    }
    match steps.take(&step) {
        Ok(published) => {
            let (_, first) = published.first().copied().unwrap_or_default();
            for (message, offset) in messages.iter().zip(first..) {
                println!("{partition}/{} is done, its output is {partition}/{offset}", message.offset);
            }
            Ok(())
        }
        // The lease of one was over: nothing of it happened, and all of them come again.
        Err(error) if matches!(error.code(), Some(ErrorCode::LeaseExpired | ErrorCode::LeaseLost | ErrorCode::UnknownLease)) => {
            eprintln!("too late: {error}");
            Ok(())
        }
        // It happened, or will, or not; the next step finds out before it does anything. What was not done comes again.
        Err(error @ ClientError::OutcomeUnknown { .. }) => {
            eprintln!("not known yet: {error}");
            Ok(())
        }
        Err(error) => Err(error),
    }
}
