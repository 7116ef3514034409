//! How late a delayed message comes to a consumer that waits, on an idle broker.
//!
//! Invariants: a message that comes before its time ends the measurement: there is no early. Sender, consumer and broker read the same clock. One message is
//! under way at a time, and its delay is another one each time, so that no tick of the broker's is met by design. A message counts if a receive waited for it
//! when it became due: where its sending took longer than its delay, nothing is said of the broker.
//!
//! Not here: messages that are due at once (`queue_latency.rs`).

use crate::batches::now_us;
use crate::error::BenchError;
use crate::measures::Measure;
use crate::runs::{Pair, Runs};
use crate::stats::{histogram, quantiles};
use crate::target;
use std::time::{Duration, Instant};
use tramline_client::{At, Attributes, Client, Config, ProducerConfig, QueueConsumerConfig, Record};

const NAME: &str = "delayed";
/// A shard that never sleeps: what it takes to be woken is the kernel's matter.
const SETTINGS: [&str; 1] = ["spin=always"];
/// The shortest and the longest delay.
const DELAY_US: std::ops::Range<i64> = 3_000..12_000;
/// Between two delays; has no divisor in common with a tick.
const STEP_US: i64 = 1_237;
/// What is allowed, in milliseconds.
const LATE_MS: f64 = 2.0;
const WAIT: Duration = Duration::from_secs(10);
/// So long before a message is due the receive is sent that waits for it: a hundred times what its way takes.
const AHEAD_US: i64 = 1000;
/// At most this many messages for one that counts.
const TRIES: u64 = 10;
/// Each has hundreds of messages: more say nothing new.
const RUNS: u32 = 5;

impl Runs {
    /// The 99th percentile of how late messages come, in milliseconds.
    pub fn queue_delay_late(&mut self, measure: Measure) -> Result<Vec<Pair>, BenchError> {
        let broker = self.own.start("queue-delay", &SETTINGS)?;
        target::create(&broker.address, NAME, 1, &[])?;
        let client = Client::connect(Config::new(&broker.address))?;
        client.create_queue(NAME, NAME, At::Earliest, &[], false)?;
        let time = self.time;
        let run = |_: &mut Runs| Ok((late_ms(&client, time)?, LATE_MS));
        let pairs = (0..self.pairs.min(RUNS)).map(|_| self.beside_a_constant(measure, run)).collect();
        broker.kill()?;
        self.own.remove("queue-delay")?;
        pairs
    }
}

fn late_ms(client: &Client, time: Duration) -> Result<f64, BenchError> {
    let mut producer = client.producer(ProducerConfig::default())?;
    let mut consumer = client.queue_consumer(NAME, QueueConsumerConfig::default())?;
    let mut late = histogram();
    let start = Instant::now();
    let mut delay_us = DELAY_US.start;
    let mut sent = 0;
    while start.elapsed() < time || late.is_empty() {
        sent += 1;
        delay_us += STEP_US;
        if delay_us >= DELAY_US.end {
            delay_us -= DELAY_US.end - DELAY_US.start;
        }
        let due_us = now_us() + delay_us;
        let attributes = Attributes { deliver_at_us: Some(due_us), ..Attributes::default() };
        producer.send(&Record { topic: NAME, value: Some(b"v"), attributes, ..Record::default() })?;
        producer.flush(WAIT)?;
        let is_waited_for = now_us() + AHEAD_US <= due_us;
        let messages = consumer.receive(1, WAIT)?;
        let late_us = now_us() - due_us;
        let [message] = messages.as_slice() else { return Err(BenchError::Silent("a delayed message")) };
        if late_us < 0 {
            return Err(BenchError::Wrong(format!("a message came {} us before its time", -late_us)));
        }
        if is_waited_for {
            late.saturating_record(late_us as u64 * 1000);
        } else if sent > TRIES * (late.len() + 1) {
            return Err(BenchError::Wrong(format!("of {sent} messages only {} were sent before they were due", late.len())));
        }
        consumer.ack(message.token)?;
    }
    let seen = quantiles(&late);
    eprintln!(
        "tramline-bench:   {} of {sent} messages were waited for, and late by: median {:.0} us, p99 {:.0} us, longest {:.0} us",
        late.len(),
        seen.p50_us,
        seen.p99_us,
        seen.max_us
    );
    Ok(seen.p99_us / 1000.0)
}
