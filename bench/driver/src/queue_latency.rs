//! From the sending of a durable record until a consumer that waits has it: a queue's, against one that streams a plain topic.
//!
//! Invariants: the time begins before the request is handed to the kernel and ends when the whole frame with the record was read; sender and consumer are two
//! connections of one thread, which busy-polls both; one record is under way at a time, and whoever consumes waits when it is sent.
//!
//! Not here: what a queue does under load (`queue_cycle.rs`).

use crate::batches;
use crate::error::BenchError;
use crate::fetch::{CREDIT_BYTES, take_frame};
use crate::hot_socket::HotSocket;
use crate::many::keeps;
use crate::measures::{Figure, Measure};
use crate::outbox::{check_produced, produce_head};
use crate::queue::{self, Queue};
use crate::runs::{Pair, RETENTION_BYTES, Runs};
use crate::stats::{histogram, quantiles};
use crate::target::{self, Target};
use std::time::{Duration, Instant};
use tramline_wire::fetch::{FetchCreditRequest, FetchEntry, FetchMode, FetchRequestWriter};
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;

/// How long a receive waits: far longer than a record takes.
const WAIT_MS: u32 = 10_000;

impl Runs {
    /// The queue's consumer against the stream's.
    pub fn queue_receive_latency(&mut self, measure: Measure, plain: &Target) -> Result<Vec<Pair>, BenchError> {
        let address = self.broker.address.clone();
        let topic = target::create(&address, "bench-queue-latency", 1, &keeps(RETENTION_BYTES, 1))?;
        let queue = queue::create(&topic, &[])?;
        let time = self.time;
        let pairs = self.alternate(measure, |_| streamed(plain, time), |_| received(&topic, &queue, time))?;
        target::delete(&address, &topic)?;
        Ok(pairs)
    }
}

/// Sends one record at a time.
struct Sender {
    socket: HotSocket,
    uid: u64,
    batch: Vec<u8>,
    request: Vec<u8>,
}

impl Sender {
    fn new(target: &Target) -> Result<Sender, BenchError> {
        Ok(Sender { socket: HotSocket::connect(&target.address)?, uid: target.uids[0], batch: batches::single(7)?, request: Vec::new() })
    }

    fn send(&mut self) -> Result<Instant, BenchError> {
        self.request.clear();
        produce_head(&mut self.socket, &mut self.request, self.uid, self.batch.len())?;
        self.request.extend_from_slice(&self.batch);
        let since = Instant::now();
        self.socket.send_all(&self.request)?;
        Ok(since)
    }

    /// Whether the acknowledgement is here.
    fn is_acknowledged(&mut self) -> Result<bool, BenchError> {
        match self.socket.poll_frame()? {
            Some(frame) => check_produced(&frame, Level::Durable).map(|_| true),
            None => Ok(false),
        }
    }
}

/// Repeats `once` for `time`, of which the first fifth warms up; quantiles of what it answers.
fn repeat(time: Duration, mut once: impl FnMut() -> Result<Duration, BenchError>) -> Result<Figure, BenchError> {
    let mut histogram = histogram();
    let start = Instant::now();
    while start.elapsed() < time {
        let took = once()?;
        if start.elapsed() > time / 5 {
            histogram.saturating_record(took.as_nanos() as u64);
        }
    }
    if histogram.is_empty() {
        return Err(BenchError::Wrong("no record arrived in the time that counts".to_owned()));
    }
    let seen = quantiles(&histogram);
    Ok(Figure { value: seen.p50_us, p99_us: Some(seen.p99_us) })
}

/// A stream that has credit and waits at the end of the partition.
fn streamed(target: &Target, time: Duration) -> Result<Figure, BenchError> {
    let mut next = target::end_offset(&target.address, target)?;
    let uid = target.uids[0];
    let mut sender = Sender::new(target)?;
    let mut consumer = HotSocket::connect(&target.address)?;
    let mut request = Vec::new();
    let stream = consumer.request(&mut request, Kind::Fetch, 0, |out| {
        let mut writer = FetchRequestWriter::begin(out, FetchMode::Streaming, 500, 1, CREDIT_BYTES);
        writer.push(out, &FetchEntry { partition_uid: uid, offset: next, max_bytes: 1 << 20 });
        writer.finish(out);
    })?;
    consumer.send_all(&request)?;
    let mut used = 0u32;
    repeat(time, || {
        let since = sender.send()?;
        let (mut took, mut is_acknowledged) = (None, false);
        while took.is_none() || !is_acknowledged {
            is_acknowledged |= sender.is_acknowledged()?;
            let Some(frame) = consumer.poll_frame()? else { continue };
            let before = next;
            next = take_frame(&frame, uid, next, false)?;
            used += frame.payload.len() as u32;
            if next > before {
                took = Some(since.elapsed());
            }
        }
        if used >= CREDIT_BYTES / 2 {
            request.clear();
            let credit = FetchCreditRequest { stream, credit_bytes: std::mem::take(&mut used) };
            consumer.request(&mut request, Kind::FetchCredit, 0, |out| credit.encode(out))?;
            consumer.send_all(&request)?;
        }
        took.ok_or(BenchError::Silent("a record of the stream"))
    })
}

/// A receive that waits. What it got is acknowledged, and the next one is under way, before the next record is sent.
fn received(target: &Target, queue: &Queue, time: Duration) -> Result<Figure, BenchError> {
    let mut sender = Sender::new(target)?;
    let mut consumer = HotSocket::connect(&target.address)?;
    let (mut request, mut messages) = (Vec::new(), Vec::new());
    let mut waiting = queue::receive(&mut consumer, &mut request, queue, 1, WAIT_MS)?;
    consumer.send_all(&request)?;
    repeat(time, || {
        let since = sender.send()?;
        let (mut took, mut is_acknowledged, mut is_settled) = (None, false, false);
        let mut settling = None;
        while !(is_acknowledged && is_settled) {
            is_acknowledged |= sender.is_acknowledged()?;
            let Some(frame) = consumer.poll_frame()? else { continue };
            if Some(frame.header.correlation) == settling {
                is_settled = queue::take_settled(&frame)? == 1;
                continue;
            }
            if frame.header.correlation != waiting {
                return Err(BenchError::Wrong(format!("a reply to request {}, which is not under way", frame.header.correlation)));
            }
            took = Some(since.elapsed());
            queue::take_received(&frame, &mut messages)?;
            if messages.len() != 1 {
                return Err(BenchError::Wrong(format!("{} messages where one was sent", messages.len())));
            }
            request.clear();
            // Requests of a connection are dealt with in order: with the settle's reply the receive waits.
            waiting = queue::receive(&mut consumer, &mut request, queue, 1, WAIT_MS)?;
            settling = Some(queue::ack(&mut consumer, &mut request, queue, &messages)?);
            consumer.send_all(&request)?;
        }
        took.ok_or(BenchError::Silent("a message of the queue"))
    })
}
