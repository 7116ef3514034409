//! Sends numbered records until it is told to end, and notes which of them were acknowledged.
//!
//! Invariants: a number is sent once; a record's bytes follow from its number, so that any that nobody wrote are seen.
//!
//! Not here: what is made of the notes.

use crate::{Args, END_WAIT, Failure};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tramline_client::{Client, Producer, ProducerConfig, Record, SendError};

/// Bytes of a record's value: enough that a flipped bit of a block meets one.
const VALUE_BYTES: usize = 128;

/// Where an acknowledged record is: partition, and offset where it was told.
pub type Place = (u32, Option<u64>);

/// What was sent, and what came of it.
pub struct Sent {
    /// Records handed to the producer.
    pub sent: u64,
    /// Those that the producer gave up, or that were refused.
    pub failed: u64,
    /// By number: the place.
    pub acked: HashMap<u64, Place>,
}

/// The value of a record.
pub fn value_of(number: u64) -> [u8; VALUE_BYTES] {
    let mut value = [0; VALUE_BYTES];
    for (at, chunk) in value.chunks_exact_mut(8).enumerate() {
        chunk.copy_from_slice(&(number ^ (at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)).to_le_bytes());
    }
    value
}

/// The number of a record, if all of its bytes are what somebody wrote.
pub fn number_of(value: Option<&[u8]>) -> Option<u64> {
    let value = value?;
    let number = u64::from_le_bytes(value.first_chunk().copied()?);
    (value == value_of(number)).then_some(number)
}

struct Sender {
    producer: Producer,
    partitions: u32,
    told: Sent,
    acks: BufWriter<File>,
}

/// Sends until `ends`, then waits for what is under way.
pub fn send(client: &Client, args: &Args, ends: &AtomicBool) -> Result<Sent, Failure> {
    let partitions = client.describe_topic(&args.topic)?.partitions.len() as u32;
    let config = ProducerConfig { linger_us: 0, delivery_timeout: END_WAIT, ..ProducerConfig::default() };
    let mut sender = Sender {
        producer: client.producer(config)?,
        partitions,
        told: Sent { sent: 0, failed: 0, acked: HashMap::new() },
        acks: BufWriter::new(File::create(&args.acks)?),
    };
    let (start, period) = (Instant::now(), Duration::from_secs(1).div_f64(args.rate as f64));
    while !ends.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_nanos() / period.as_nanos().max(1)) as u64;
        while sender.told.sent < due && !ends.load(Ordering::Relaxed) {
            sender.send(&args.topic)?;
        }
        sender.producer.poll(Duration::from_millis(1))?;
        sender.note()?;
    }
    sender.producer.flush(END_WAIT)?;
    sender.note()?;
    Ok(sender.told)
}

impl Sender {
    fn send(&mut self, topic: &str) -> Result<(), SendError> {
        let number = self.told.sent + 1;
        let value = value_of(number);
        let partition = Some((number % u64::from(self.partitions)) as u32);
        let record = Record { topic, partition, value: Some(&value), tag: number, ..Record::default() };
        self.producer.send(&record)?;
        self.told.sent = number;
        Ok(())
    }

    /// Notes what was acknowledged since the last time.
    fn note(&mut self) -> std::io::Result<()> {
        let now_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
        let (told, acks) = (&mut self.told, &mut self.acks);
        let mut written = Ok(());
        self.producer.drain(|delivery| {
            if let Some(error) = delivery.error {
                eprintln!("tramline-witness: record {} of partition {} failed: {error}", delivery.tag, delivery.partition);
                told.failed += 1;
                return;
            }
            told.acked.insert(delivery.tag, (delivery.partition, delivery.offset));
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
}
