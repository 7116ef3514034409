//! Produce at level `durable`, one batch per request: throughput with as many in flight as keep the broker busy (closed loop), and latency at a
//! given rate (open loop).
//!
//! Invariants: in the open loop a request's time begins when it is due, whether or not it could be sent then: a broker that stands still makes
//! all that would have come meanwhile late.

use crate::batches;
use crate::error::BenchError;
use crate::hot_socket::HotSocket;
use crate::outbox::{Outbox, check_produced};
use crate::stats::{Quantiles, histogram, quantiles};
use crate::target::Target;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tramline_wire::level::Level;

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After this time; the first fifth warms up and does not count.
    Time(Duration),
    /// When this many bytes of batches are acknowledged; all of it counts.
    Bytes(u64),
}

/// What was seen.
#[derive(Clone, Copy, Debug)]
pub struct Throughput {
    /// 10^9 bytes of batches acknowledged per second.
    pub gbps: f64,
    /// From a request's making to its reply, under this load.
    pub latency: Quantiles,
    /// Batches acknowledged in all, also those that do not count.
    pub batches: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Distinct batches that are sent in turn. Together they stay within a core's own cache, as the limits' one chunk does.
const DISTINCT: u64 = 8;
/// Bytes in one vectored write, as the limits' stream.
const WRITE_BYTES: usize = 256 << 10;

/// Sends batches of `batch_bytes` to the target's partitions in turn, `window` requests in flight, one batch per request. Every partition has
/// to have received something.
pub fn throughput(target: &Target, batch_bytes: u32, window: usize, until: Until) -> Result<Throughput, BenchError> {
    let mut pump = Pump::new(target, batch_bytes)?;
    let mut histogram = histogram();
    let start = Instant::now();
    let mut counted_from = matches!(until, Until::Bytes(_)).then_some(start);
    let mut counted_bytes = 0u64;
    let (seconds, latency) = loop {
        pump.fill(window)?;
        pump.send()?;
        let Some(ack) = pump.receive()? else { continue };
        let Some(from) = counted_from else {
            if let Until::Time(time) = until
                && ack.at - start > time / 5
            {
                counted_from = Some(ack.at);
            }
            continue;
        };
        counted_bytes += ack.bytes;
        histogram.saturating_record(ack.latency.as_nanos() as u64);
        let over = match until {
            Until::Time(time) => ack.at - start > time,
            Until::Bytes(goal) => counted_bytes >= goal,
        };
        if over {
            break ((ack.at - from).as_secs_f64(), quantiles(&histogram));
        }
    };
    while !pump.waiting.is_empty() {
        pump.send()?;
        pump.receive()?;
    }
    if let Some(at) = pump.acks.iter().position(|acks| *acks == 0) {
        return Err(BenchError::Wrong(format!("partition {at} of {} received nothing: too little time", pump.acks.len())));
    }
    let gbps = counted_bytes as f64 / seconds / 1e9;
    Ok(Throughput { gbps, latency, batches: pump.acks.iter().sum(), bytes: pump.acked_bytes })
}

/// A load that does not wait for the broker.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// 10^9 bytes of batches per second.
    pub gbps: f64,
    /// Bytes of one batch at most.
    pub batch_bytes: u32,
    /// For how long; the first fifth warms up and does not count.
    pub time: Duration,
}

/// Latency of batches sent at `rate`, from the moment in which each is due to its acknowledgement. `beside` is called again and again meanwhile,
/// and has to be short.
pub fn open_loop(target: &Target, rate: Rate, mut beside: impl FnMut() -> Result<(), BenchError>) -> Result<Quantiles, BenchError> {
    let mut pump = Pump::new(target, rate.batch_bytes)?;
    let interval = Duration::from_secs_f64(pump.outbox.batch_len(0) as f64 / (rate.gbps * 1e9));
    let mut histogram = histogram();
    let start = Instant::now();
    let (counted_from, end) = (start + rate.time / 5, start + rate.time);
    let mut due = start;
    while due < end || !pump.waiting.is_empty() {
        let now = Instant::now();
        while due <= now && due < end {
            pump.push(due)?;
            due += interval;
        }
        pump.send()?;
        if let Some(ack) = pump.receive()?
            && ack.at - ack.latency >= counted_from
        {
            histogram.saturating_record(ack.latency.as_nanos() as u64);
        }
        beside()?;
    }
    Ok(quantiles(&histogram))
}

/// A request that waits for its reply.
#[derive(Debug)]
struct Waiting {
    correlation: u64,
    since: Instant,
    partition: usize,
    bytes: u64,
}

/// One acknowledged batch.
#[derive(Debug)]
struct Ack {
    at: Instant,
    latency: Duration,
    bytes: u64,
}

/// Keeps a window of requests in flight.
#[derive(Debug)]
struct Pump<'a> {
    target: &'a Target,
    socket: HotSocket,
    outbox: Outbox,
    /// In the order of sending; replies may come in any order, but mostly come in this one.
    waiting: VecDeque<Waiting>,
    /// Acknowledged batches per partition.
    acks: Vec<u64>,
    /// Their bytes, all partitions together.
    acked_bytes: u64,
    next: usize,
}

impl<'a> Pump<'a> {
    fn new(target: &'a Target, batch_bytes: u32) -> Result<Pump<'a>, BenchError> {
        Ok(Pump {
            target,
            socket: HotSocket::connect(&target.address)?,
            outbox: Outbox::new((1..=DISTINCT).map(|seed| batches::batch(batch_bytes, seed)).collect::<Result<_, _>>()?, WRITE_BYTES),
            waiting: VecDeque::new(),
            acks: vec![0; target.uids.len()],
            acked_bytes: 0,
            next: 0,
        })
    }

    /// Makes requests until the window is full.
    fn fill(&mut self, window: usize) -> Result<(), BenchError> {
        while self.waiting.len() < window {
            self.push(Instant::now())?;
        }
        Ok(())
    }

    /// Makes one request, whose time began at `since`.
    fn push(&mut self, since: Instant) -> Result<(), BenchError> {
        let partition = self.next % self.target.uids.len();
        let bytes = self.outbox.batch_len(self.next);
        let correlation = self.outbox.push(&mut self.socket, self.target.uids[partition], self.next)?;
        self.next += 1;
        self.waiting.push_back(Waiting { correlation, since, partition, bytes: bytes as u64 });
        Ok(())
    }

    /// Hands the kernel as much as it takes.
    fn send(&mut self) -> Result<(), BenchError> {
        self.outbox.send(&mut self.socket)
    }

    /// The next acknowledgement, if it is there.
    fn receive(&mut self) -> Result<Option<Ack>, BenchError> {
        let Some(frame) = self.socket.poll_frame()? else { return Ok(None) };
        let result = check_produced(&frame, Level::Durable)?;
        let correlation = frame.header.correlation;
        let at = self.waiting.iter().position(|waiting| waiting.correlation == correlation);
        let Some(waiting) = at.and_then(|at| self.waiting.remove(at)) else {
            return Err(BenchError::Wrong(format!("a reply to request {correlation}, which is not under way")));
        };
        if self.target.uids[waiting.partition] != result.partition_uid {
            return Err(BenchError::Wrong("a reply names another partition than its request".to_owned()));
        }
        self.acks[waiting.partition] += 1;
        self.acked_bytes += waiting.bytes;
        let now = Instant::now();
        Ok(Some(Ack { at: now, latency: now - waiting.since, bytes: waiting.bytes }))
    }
}
