//! What a queue does in all: messages are sent, received and acknowledged, each step durable, against only sending them.
//!
//! How it goes: `window` requests are in flight, as on the plain side. Each of them is followed by the next step of its round: 64 records are sent, up to 64
//! messages received, these acknowledged, and so on; on two connections, since large requests and large replies should not wait for each other.
//!
//! Invariants: a message counts when it is acknowledged; each comes once; a round that received less than a batch receives again
//! before more is sent, so that nothing heaps up.
//!
//! Not here: the plain side (`produce.rs`), the requests (`queue.rs`).

use crate::batches::{self, RECORD_BYTES};
use crate::error::BenchError;
use crate::hot_socket::HotSocket;
use crate::many::keeps;
use crate::measures::{Figure, Measure};
use crate::outbox::{Outbox, check_produced};
use crate::produce::{self, Until};
use crate::queue::{self, Message, Queue};
use crate::runs::{Pair, RETENTION_BYTES, Runs};
use crate::stats::{histogram, quantiles};
use crate::target::{self, Target};
use std::collections::BTreeMap;
use std::io::IoSlice;
use std::time::{Duration, Instant};
use tramline_wire::batch::{BATCH_HEADER_BYTES, INDEX_ENTRY_BYTES};
use tramline_wire::frame::Frame;
use tramline_wire::level::Level;

/// Records of a batch, and messages of a receive and of a settle.
const RECORDS: u32 = 64;
/// Queues of the row with many.
const QUEUES: u32 = 1000;
/// Distinct batches that are sent in turn, as on the plain side.
const DISTINCT: u64 = 8;
/// How long a receive waits for what another round sent.
const WAIT_MS: u32 = 1000;
/// Bytes in one vectored write, as on the plain side.
const WRITE_BYTES: usize = 256 << 10;

/// Bytes of a batch of [`RECORDS`] records.
const fn batch_bytes() -> u32 {
    (BATCH_HEADER_BYTES + RECORDS as usize * (INDEX_ENTRY_BYTES + RECORD_BYTES)) as u32
}

impl Runs {
    /// The whole round against plain durable produce.
    pub fn queue_cycle(&mut self, measure: Measure, plain: &Target) -> Result<Vec<Pair>, BenchError> {
        let address = self.broker.address.clone();
        let made = make(&address, "bench-queue", 1)?;
        let (window, time) = (self.window, self.time);
        let pairs = self.alternate(
            measure,
            |_| {
                let seen = produce::throughput(plain, batch_bytes(), window, Until::Time(time))?;
                let records = seen.gbps * 1e9 / f64::from(batch_bytes()) * f64::from(RECORDS);
                Ok(Figure { value: records / 1000.0, p99_us: Some(seen.latency.p99_us) })
            },
            |_| cycle(&address, &made.queues, window, time),
        )?;
        made.delete(&address)?;
        Ok(pairs)
    }

    /// The whole round over a thousand queues against that over one.
    pub fn queues_1000(&mut self, measure: Measure) -> Result<Vec<Pair>, BenchError> {
        let address = self.broker.address.clone();
        let one = make(&address, "bench-queue", 1)?;
        let many = make(&address, "bench-queues", QUEUES)?;
        let (window, time) = (self.window, self.time);
        let pairs =
            self.alternate(measure, |_| cycle(&address, &one.queues, window, time), |_| cycle(&address, &many.queues, window, time))?;
        one.delete(&address)?;
        many.delete(&address)?;
        Ok(pairs)
    }
}

/// Queues, each with a topic of its own.
struct Made {
    topics: Vec<Target>,
    queues: Vec<Queue>,
}

fn make(address: &str, name: &str, count: u32) -> Result<Made, BenchError> {
    let keeps = keeps(RETENTION_BYTES, count);
    let mut made = Made { topics: Vec::new(), queues: Vec::new() };
    for number in 0..count {
        let topic = target::create(address, &format!("{name}-{number}"), 1, &keeps)?;
        made.queues.push(queue::create(&topic, &[])?);
        made.topics.push(topic);
    }
    Ok(made)
}

impl Made {
    /// The topics take their queues with them.
    fn delete(&self, address: &str) -> Result<(), BenchError> {
        self.topics.iter().try_for_each(|topic| target::delete(address, topic))
    }
}

/// 10^3 records acknowledged per second; the first fifth of the time warms up. The latency is that of a round: from before the sending until all 64 are
/// acknowledged.
pub fn cycle(address: &str, queues: &[Queue], window: usize, time: Duration) -> Result<Figure, BenchError> {
    let mut rounds = Rounds::new(address, queues)?;
    let (mut counted, mut latency) = (0u64, histogram());
    let start = Instant::now();
    let mut counted_from: Option<Instant> = None;
    let seconds = loop {
        while rounds.under_way < window {
            rounds.under_way += 1;
            let queue = rounds.next_queue();
            rounds.send(Round { queue, since: Instant::now(), missing: RECORDS })?;
        }
        let done = rounds.step()?;
        let now = Instant::now();
        if let Some(from) = counted_from {
            counted += done.messages;
            done.rounds.iter().for_each(|took| latency.saturating_record(took.as_nanos() as u64));
            // Each queue has to have its turn, however slow the machine is.
            if now - start > time && rounds.next >= queues.len() {
                break (now - from).as_secs_f64();
            }
        } else if now - start > time / 5 {
            counted_from = Some(now);
        }
    };
    // What is under way ends its rounds, so that the next run finds the queues empty.
    while rounds.under_way > 0 {
        rounds.step()?;
    }
    rounds.check()?;
    Ok(Figure { value: counted as f64 / seconds / 1000.0, p99_us: Some(quantiles(&latency).p99_us) })
}

/// One of the rounds under way, and what is still to be received in it.
#[derive(Clone, Copy, Debug)]
struct Round {
    queue: usize,
    since: Instant,
    missing: u32,
}

/// What a step brought.
#[derive(Debug, Default)]
struct Done {
    /// Messages acknowledged.
    messages: u64,
    /// Times of the rounds that ended.
    rounds: Vec<Duration>,
}

struct Rounds<'a> {
    queues: &'a [Queue],
    /// Sends records.
    sender: HotSocket,
    /// Receives and acknowledges.
    receiver: HotSocket,
    outbox: Outbox,
    /// What waits to be written to the receiver's connection.
    requests: Vec<u8>,
    sends: BTreeMap<u64, Round>,
    receives: BTreeMap<u64, Round>,
    acks: BTreeMap<u64, Round>,
    under_way: usize,
    next: usize,
    messages: Vec<Message>,
    /// Of each queue the messages acknowledged.
    acked: Vec<u64>,
    /// Of each queue the records sent.
    sent: Vec<u64>,
}

impl<'a> Rounds<'a> {
    fn new(address: &str, queues: &'a [Queue]) -> Result<Rounds<'a>, BenchError> {
        let batches: Vec<_> = (1..=DISTINCT).map(|seed| batches::batch(batch_bytes(), seed)).collect::<Result<_, _>>()?;
        Ok(Rounds {
            queues,
            sender: HotSocket::connect(address)?,
            receiver: HotSocket::connect(address)?,
            outbox: Outbox::new(batches, WRITE_BYTES),
            requests: Vec::new(),
            sends: BTreeMap::new(),
            receives: BTreeMap::new(),
            acks: BTreeMap::new(),
            under_way: 0,
            next: 0,
            messages: Vec::new(),
            acked: vec![0; queues.len()],
            sent: vec![0; queues.len()],
        })
    }

    /// Queues have their turns one after the other.
    fn next_queue(&mut self) -> usize {
        let queue = self.next % self.queues.len();
        self.next += 1;
        queue
    }

    /// Makes the request with which a round begins.
    fn send(&mut self, round: Round) -> Result<(), BenchError> {
        let correlation = self.outbox.push(&mut self.sender, self.queues[round.queue].partition, self.next)?;
        self.sent[round.queue] += u64::from(RECORDS);
        self.sends.insert(correlation, round);
        Ok(())
    }

    /// Hands the kernel what it takes, and deals with one reply of each connection.
    fn step(&mut self) -> Result<Done, BenchError> {
        let mut done = Done::default();
        self.flush()?;
        self.take_sent()?;
        self.take_answer(&mut done)?;
        Ok(done)
    }

    fn flush(&mut self) -> Result<(), BenchError> {
        while !self.requests.is_empty() {
            let sent = self.receiver.send_some(&[IoSlice::new(&self.requests)])?;
            if sent == 0 {
                break;
            }
            self.requests.drain(..sent);
        }
        self.outbox.send(&mut self.sender)
    }

    fn take_sent(&mut self) -> Result<(), BenchError> {
        let Some(frame) = self.sender.poll_frame()? else { return Ok(()) };
        check_produced(&frame, Level::Durable)?;
        let round = known(self.sends.remove(&frame.header.correlation), &frame)?;
        self.receive(round)
    }

    fn receive(&mut self, round: Round) -> Result<(), BenchError> {
        let queue = &self.queues[round.queue];
        let correlation = queue::receive(&mut self.receiver, &mut self.requests, queue, round.missing, WAIT_MS)?;
        self.receives.insert(correlation, round);
        Ok(())
    }

    /// The reply of a receive or of a settle.
    fn take_answer(&mut self, done: &mut Done) -> Result<(), BenchError> {
        let Some(frame) = self.receiver.poll_frame()? else { return Ok(()) };
        let correlation = frame.header.correlation;
        if let Some(round) = self.acks.remove(&correlation) {
            let settled = queue::take_settled(&frame)?;
            self.acked[round.queue] += settled;
            done.messages += settled;
            if round.missing > 0 {
                return self.receive(round);
            }
            done.rounds.push(round.since.elapsed());
            self.under_way -= 1;
            return Ok(());
        }
        let mut round = known(self.receives.remove(&correlation), &frame)?;
        queue::take_received(&frame, &mut self.messages)?;
        if self.messages.is_empty() {
            return Err(BenchError::Silent("waiting for messages that were sent"));
        }
        round.missing -= self.messages.len() as u32;
        let queue = &self.queues[round.queue];
        let correlation = queue::ack(&mut self.receiver, &mut self.requests, queue, &self.messages)?;
        self.acks.insert(correlation, round);
        Ok(())
    }

    /// Everything that was sent is acknowledged, and each queue had something.
    fn check(&self) -> Result<(), BenchError> {
        match self.acked.iter().zip(&self.sent).position(|(acked, sent)| acked != sent || *acked == 0) {
            None => Ok(()),
            Some(at) => {
                Err(BenchError::Wrong(format!("queue {at}: {} records were sent, {} messages acknowledged", self.sent[at], self.acked[at])))
            }
        }
    }
}

fn known(round: Option<Round>, frame: &Frame<'_>) -> Result<Round, BenchError> {
    round.ok_or_else(|| BenchError::Wrong(format!("a reply to request {}, which is not under way", frame.header.correlation)))
}
