//! Latency of durable produce while a queue on the same shard has a million messages under lease that are acknowledged in random order, and segments are
//! sealed (each with a state file that tells of all of them), against the same without a queue.
//!
//! Invariants: the load is open loop, so a shard that stands still makes all late that was due meanwhile; in each run some segments are filled and sealed, and
//! nine tenths of the acknowledgements that are due are made, or it does not count.
//!
//! Not here: the queue's state by itself (`bench/micro`).

use crate::batches::{BATCH_BYTES, now_us};
use crate::broker::Broker;
use crate::error::BenchError;
use crate::hot_socket::HotSocket;
use crate::many::keeps;
use crate::measures::{Figure, Measure};
use crate::outbox::{check_produced, produce_head};
use crate::produce::{self, Rate};
use crate::queue::{self, Message, Queue};
use crate::runs::{Pair, RETENTION_BYTES, Runs};
use crate::target::{self, Target};
use std::time::{Duration, Instant};
use tramline_wire::batch::{BatchBuilder, Limits, NewRecord, ProducerMark};
use tramline_wire::level::Level;

/// Small segments, so that some are sealed in each run.
const SETTINGS: [&str; 2] = ["segment.bytes=64MiB", "pool.segments=6"];
const SEGMENT_BYTES: f64 = (64 << 20) as f64;
/// Messages under lease when a run begins.
const MESSAGES: u32 = 1_000_000;
/// Records of one batch, and messages of one receive, while the queue is filled.
const FILL_RECORDS: u32 = 4096;
/// Messages acknowledged by one request, and how often: 16,000 a second.
const ACKS: usize = 64;
const ACK_EVERY: Duration = Duration::from_millis(4);
/// Of a run: long enough for three segments at the least load that counts.
const RUN: Duration = Duration::from_secs(4);
const PARTITION_RATE_GBPS: f64 = 0.1;
/// Of what is due in a run, so much has to be acknowledged in it: a broker that does less for the queue disturbs less.
const ACKED_SHARE: f64 = 0.9;

/// Acknowledgements that are due in a run.
fn wanted() -> f64 {
    RUN.as_secs_f64() / ACK_EVERY.as_secs_f64() * ACKS as f64
}

impl Runs {
    /// With a queue against without.
    pub fn queue_stall(&mut self, measure: Measure) -> Result<Vec<Pair>, BenchError> {
        let broker = self.own.start("queue-stall", &SETTINGS)?;
        broker.wait_for_pool(2)?;
        let load = target::create(&broker.address, "load", 1, &keeps(RETENTION_BYTES, 1))?;
        let rate = Rate { gbps: PARTITION_RATE_GBPS, batch_bytes: BATCH_BYTES, time: RUN };
        let mut number = 0;
        let pairs = self.alternate(
            measure,
            |_| sealing(&broker, || produce::open_loop(&load, rate, || Ok(()))),
            |_| {
                number += 1;
                let topic = target::create(&broker.address, &format!("queue-{number}"), 1, &[])?;
                let mut acks = Acks::begin(&topic)?;
                let figure = sealing(&broker, || produce::open_loop(&load, rate, || acks.go_on()))?;
                eprintln!("tramline-bench:   {} messages acknowledged meanwhile, {} still under lease", acks.settled, acks.left());
                if (acks.settled as f64) < ACKED_SHARE * wanted() {
                    let what = format!("of {:.0} messages only {} were acknowledged during the run", wanted(), acks.settled);
                    return Err(BenchError::Wrong(what));
                }
                target::delete(&broker.address, &topic)?;
                Ok(figure)
            },
        )?;
        broker.kill()?;
        self.own.remove("queue-stall")?;
        Ok(pairs)
    }
}

/// One run, in which segments have to be sealed.
fn sealing(broker: &Broker, run: impl FnOnce() -> Result<crate::stats::Quantiles, BenchError>) -> Result<Figure, BenchError> {
    let written = || broker.metric("tramline_log_write_bytes_total", "");
    let before = written()?;
    let latency = run()?;
    let segments = (written()? - before) / SEGMENT_BYTES;
    eprintln!(
        "tramline-bench:   latency: median {:.0} us, p99 {:.0} us, longest {:.0} us, {segments:.1} segments",
        latency.p50_us, latency.p99_us, latency.max_us
    );
    if segments < 3.0 {
        return Err(BenchError::Wrong(format!("only {segments:.1} segments were filled")));
    }
    Ok(Figure { value: latency.p99_us, p99_us: Some(latency.max_us) })
}

/// A queue whose messages are acknowledged in random order.
struct Acks {
    socket: HotSocket,
    queue: Queue,
    /// In the order of their acknowledgement, the last one first.
    messages: Vec<Message>,
    request: Vec<u8>,
    due: Instant,
    under_way: u32,
    settled: u64,
}

impl Acks {
    /// Fills the queue and leases all of it.
    fn begin(topic: &Target) -> Result<Acks, BenchError> {
        let most = MESSAGES.to_string();
        let settings = [("max.in.flight", most.clone()), ("max.in.flight.per.consumer", most)];
        let queue = queue::create(topic, &settings)?;
        let mut socket = HotSocket::connect(&topic.address)?;
        fill(&mut socket, topic)?;
        let (mut messages, mut received, mut request) = (Vec::with_capacity(MESSAGES as usize), Vec::new(), Vec::new());
        while messages.len() < MESSAGES as usize {
            request.clear();
            queue::receive(&mut socket, &mut request, &queue, FILL_RECORDS, 10_000)?;
            socket.send_all(&request)?;
            queue::take_received(&socket.wait_frame()?, &mut received)?;
            if received.is_empty() {
                return Err(BenchError::Wrong(format!("the queue ended after {} of {MESSAGES} messages", messages.len())));
            }
            messages.append(&mut received);
        }
        let mut state = 1u64;
        for at in (1..messages.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            messages.swap(at, ((state >> 33) % (at as u64 + 1)) as usize);
        }
        Ok(Acks { socket, queue, messages, request, due: Instant::now(), under_way: 0, settled: 0 })
    }

    fn left(&self) -> u64 {
        u64::from(MESSAGES) - self.settled
    }

    /// Acknowledges what is due, and takes replies.
    fn go_on(&mut self) -> Result<(), BenchError> {
        if self.under_way > 0
            && let Some(frame) = self.socket.poll_frame()?
        {
            self.settled += queue::take_settled(&frame)?;
            self.under_way -= 1;
        }
        if self.due > Instant::now() {
            return Ok(());
        }
        // What is late is made up for, as in any open loop.
        self.due += ACK_EVERY;
        let from = self.messages.len().saturating_sub(ACKS);
        let messages = self.messages.split_off(from);
        self.request.clear();
        queue::ack(&mut self.socket, &mut self.request, &self.queue, &messages)?;
        self.socket.send_all(&self.request)?;
        self.under_way += 1;
        Ok(())
    }
}

/// Sends the messages, small ones.
fn fill(socket: &mut HotSocket, topic: &Target) -> Result<(), BenchError> {
    let mut left = MESSAGES;
    while left > 0 {
        let mut builder = BatchBuilder::new(Limits::default());
        for _ in 0..left.min(FILL_RECORDS) {
            // Without a time of its own it would be of 1970, over by the retention of queues as soon as its segment is sealed.
            let record = NewRecord { value: Some(b"message"), timestamp_us: now_us(), ..NewRecord::default() };
            builder.push(&record).map_err(|e| BenchError::Wrong(format!("a small record: {e}")))?;
        }
        let mut batch = Vec::new();
        builder.finish_plain(&mut batch, ProducerMark::default());
        let mut request = Vec::new();
        produce_head(socket, &mut request, topic.uids[0], batch.len())?;
        request.extend_from_slice(&batch);
        socket.send_all(&request)?;
        check_produced(&socket.wait_frame()?, Level::Durable)?;
        left -= left.min(FILL_RECORDS);
    }
    Ok(())
}
