//! Messages of a queue: sent by one thread, received and acknowledged by another; when sending has ended, everything has to come to its end.
//!
//! Invariants: a message is acknowledged once it was received, and its confirmed acknowledgement is final; a settlement whose outcome is unknown promises nothing.
//!
//! Not here: sending (`sender.rs`); priorities, delays, dead letters (tests of the broker).

use crate::sender::{Sent, number_of, send};
use crate::{Args, END_WAIT, Failure};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tramline_client::{Client, Message, QueueConsumer, QueueConsumerConfig};

/// Messages leased at once.
const AT_ONCE: u32 = 500;
/// How long a receive waits for the first of them.
const WAIT: Duration = Duration::from_millis(200);
/// Short, so that what a fault left under a lease comes back within the time of an experiment.
const LEASE: Duration = Duration::from_secs(10);

/// What was received.
#[derive(Default)]
struct Received {
    /// By number: partition and offset of the first delivery.
    places: HashMap<u64, (u32, u64)>,
    /// Those whose acknowledgement was confirmed.
    settled: HashSet<u64>,
    /// Those whose acknowledgement may have been taken.
    unknown: HashSet<u64>,
    again: u64,
    doubled: u64,
    wrong: u64,
    revived: u64,
}

impl Received {
    /// Notes a delivery; its number.
    fn take(&mut self, partition: u32, offset: u64, value: Option<&[u8]>) -> Option<u64> {
        let Some(number) = number_of(value) else {
            eprintln!("tramline-witness: message {offset} of partition {partition} has bytes that nobody wrote");
            self.wrong += 1;
            return None;
        };
        match self.places.insert(number, (partition, offset)) {
            None => {}
            Some(before) if before == (partition, offset) => self.again += 1,
            Some(before) => {
                eprintln!("tramline-witness: message {number} is at {before:?} and at {:?}", (partition, offset));
                self.doubled += 1;
            }
        }
        if self.settled.contains(&number) {
            eprintln!(
                "tramline-witness: message {number} of partition {partition}, at {offset}, comes after its acknowledgement was confirmed"
            );
            self.revived += 1;
        }
        Some(number)
    }

    fn lost(&self, told: &Sent) -> u64 {
        let lost: Vec<_> = told.acked.keys().filter(|number| !self.places.contains_key(number)).collect();
        lost.iter().take(20).for_each(|number| eprintln!("tramline-witness: message {number} was acknowledged and never delivered"));
        lost.len() as u64
    }

    /// Those that were acknowledged to their sender and came to no end.
    fn stuck(&self, told: &Sent) -> u64 {
        let has_ended = |number: &&u64| self.settled.contains(*number) || self.unknown.contains(*number);
        let stuck: Vec<_> = told.acked.keys().filter(|number| !has_ended(number)).collect();
        stuck.iter().take(20).for_each(|number| eprintln!("tramline-witness: message {number} is not settled, and does not come again"));
        stuck.len() as u64
    }
}

/// Sends and receives until `ends`, then receives until all is settled, or nothing comes for longer than a lease.
pub fn run(client: &Client, args: &Args, queue: &str, ends: &AtomicBool) -> Result<(String, bool), Failure> {
    let config = QueueConsumerConfig { visibility: Some(LEASE), ..QueueConsumerConfig::default() };
    let mut consumer = client.queue_consumer(queue, config)?;
    let mut received = Received::default();
    let told = std::thread::scope(|scope| -> Result<Sent, Failure> {
        let sending = scope.spawn(|| send(client, args, ends));
        while !sending.is_finished() {
            turn(&mut consumer, &mut received)?;
        }
        sending.join().map_err(|_| "the sender panicked")?
    })?;
    let until = Instant::now() + END_WAIT;
    let mut quiet_since = Instant::now();
    // One turn at least: what comes after the last acknowledgement would be one too many.
    loop {
        if turn(&mut consumer, &mut received)? {
            quiet_since = Instant::now();
        }
        let is_quiet = quiet_since.elapsed() > LEASE + LEASE / 2;
        if told.acked.keys().all(|number| received.settled.contains(number)) || is_quiet || Instant::now() > until {
            break;
        }
    }
    let (lost, stuck) = (received.lost(&told), received.stuck(&told));
    let (sent, acked, failed) = (told.sent, told.acked.len(), told.failed);
    let Received { places, settled, again, doubled, wrong, revived, .. } = received;
    let line = format!(
        "sent={sent} acked={acked} failed={failed} received={} settled={} again={again} lost={lost} doubled={doubled} wrong={wrong} revived={revived} stuck={stuck}",
        places.len(),
        settled.len()
    );
    Ok((line, lost + doubled + wrong + revived + stuck == 0))
}

/// Receives some and acknowledges them; whether there were any. What fails comes again: leases end.
fn turn(consumer: &mut QueueConsumer, received: &mut Received) -> Result<bool, Failure> {
    let messages: Vec<Message> = match consumer.receive(AT_ONCE, WAIT) {
        Ok(messages) => messages,
        Err(error) => {
            eprintln!("tramline-witness: receive: {error}");
            return Ok(false);
        }
    };
    let (mut numbers, mut tokens) = (Vec::new(), Vec::new());
    for message in &messages {
        if let Some(number) = received.take(message.partition, message.offset, message.value.as_deref()) {
            numbers.push(number);
            tokens.push(message.token);
        }
    }
    if tokens.is_empty() {
        return Ok(false);
    }
    for (number, result) in numbers.into_iter().zip(consumer.ack_all(&tokens)?) {
        match result {
            Ok(()) => _ = received.settled.insert(number),
            Err(error) => {
                eprintln!("tramline-witness: the acknowledgement of message {number} failed: {error}");
                // Refused: the lease was over, so it comes again. Without an answer it may be done, and then nothing comes.
                if error.outcome_unknown() {
                    received.unknown.insert(number);
                }
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sender::value_of;

    #[test]
    fn deliveries_are_counted_for_what_they_are() {
        let mut received = Received::default();
        assert_eq!(received.take(0, 0, Some(&value_of(1))), Some(1));
        assert_eq!(received.take(0, 0, Some(&value_of(1))), Some(1));
        received.settled.insert(1);
        received.take(0, 0, Some(&value_of(1)));
        received.take(0, 1, Some(&value_of(1)));
        assert_eq!(received.take(0, 2, Some(b"something else")), None);
        assert_eq!((received.again, received.doubled, received.revived, received.wrong), (2, 1, 2, 1));
        let told = Sent { sent: 2, failed: 0, acked: [(1, (0, None)), (2, (0, None))].into() };
        assert_eq!((received.lost(&told), received.stuck(&told)), (1, 1));
        received.unknown.insert(2);
        assert_eq!(received.stuck(&told), 0);
    }
}
