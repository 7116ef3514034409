//! `churn`: connections come and go. Each connects, says hello, sends one record or asks for one, and closes.
//!
//! An open loop of connections: when each is due does not depend on the server. Latency (`connect`) is from the due time to the answer of
//! the one request, service time from the beginning of connecting. A thread has one connection at a time; what becomes due meanwhile waits,
//! and that counts as waiting for the server.
//! Invariants: connections go to the owners of the partitions in turn, as a client's hot ones do; the values carry stamps, so that
//! a reader can check them.
//! Not here: the broker's own count of connections; reading back (a record whose answer never came may be there or not).

use crate::args::Action;
use crate::arrivals::Arrivals;
use crate::clock::Clock;
use crate::lateness::{Lateness, Lates};
use crate::load::Churn;
use crate::payload::{Maker, Stamp};
use crate::schedule::Window;
use crate::stats::{Side, record};
use crate::vanish::Vanish;
use crate::write::{lock, spin_ns, wait};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tramline_client::wire::batch::{BatchBuilder, Limits, NewRecord, ProducerMark};
use tramline_client::wire::error::ErrorBody;
use tramline_client::wire::fetch::{FetchEntry, FetchMode, FetchReply, FetchRequestWriter};
use tramline_client::wire::frame::Frame;
use tramline_client::wire::prim::List;
use tramline_client::wire::produce::{ProduceEntry, ProduceReply, ProduceRequest};
use tramline_client::{Config, ErrorCode, RawConn};

/// Most bytes that the one fetch asks for.
const FETCH_BYTES: u32 = 64 << 10;

/// A partition to connect to.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its owner's address.
    pub address: String,
    /// Its number in the topic.
    pub index: u32,
    /// Its identity.
    pub uid: u64,
    /// The first offset that can be read.
    pub first: u64,
}

/// What the threads are to do.
pub struct ChurnPlan<'a> {
    /// The options.
    pub churn: &'a Churn,
    /// The partitions.
    pub targets: Vec<Target>,
    /// Settings of each connection.
    pub config: Config,
    /// What everything random is drawn from.
    pub seed: u64,
    /// Number of the first thread's run.
    pub first_run: u64,
    /// Measured part.
    pub window: Window,
}

/// What came of a thread, beside the counts.
pub struct Churned {
    /// How late connections were begun.
    pub lates: Lates,
    /// Connections due and never begun.
    pub unsent: u64,
    /// Why it ended early.
    pub vanished: Option<String>,
}

/// Connects and closes until the window's end, as thread number `thread`.
pub fn churn(plan: &ChurnPlan<'_>, clock: Clock, side: &Mutex<Side>, thread: u64, stop: &AtomicBool) -> Churned {
    let pacing = &plan.churn.pacing;
    // The mode's options have a rate; without one there would be nothing to do.
    let rate = pacing.rate.unwrap_or(1);
    let mut arrivals = Arrivals::new(pacing.shape(), rate, thread, plan.churn.threads, plan.seed);
    let mut caller = Caller::new(plan, thread);
    let (mut lateness, mut lates) = (Lateness::default(), Lates::new(pacing.late_max.as_nanos() as u64));
    let mut vanish = Vanish::new(plan.config.call_timeout.as_nanos() as u64, clock.now_ns());
    let spin_ns = spin_ns(pacing.rate, plan.churn.threads);
    let mut vanished = None;
    while vanished.is_none() {
        let due_ns = arrivals.next_ns();
        let start_ns = clock.now_ns();
        if start_ns >= plan.window.end_ns || due_ns >= plan.window.end_ns || stop.load(Ordering::Relaxed) {
            break;
        }
        if due_ns > start_ns {
            match wait(start_ns, due_ns, spin_ns) {
                Duration::ZERO => std::thread::yield_now(),
                time => std::thread::sleep(time),
            }
            continue;
        }
        arrivals.take();
        let late = lateness.send(due_ns, start_ns);
        let measured = plan.window.contains(due_ns);
        if measured {
            lates.take(late);
        }
        let called = caller.call(clock.utc_ns(due_ns));
        let done_ns = clock.now_ns();
        match arrivals.next_ns() {
            next_ns if next_ns < done_ns => lateness.block(next_ns.max(start_ns)),
            _ => lateness.catch_up(),
        }
        let mut side = lock(side);
        side.records += 1;
        match called {
            Ok(bytes) => {
                vanish.good(done_ns);
                side.acked += 1;
                side.interval.records += 1;
                side.interval.bytes += bytes;
                side.interval.time(done_ns.saturating_sub(due_ns), measured);
                if plan.window.contains(done_ns) {
                    side.done_records += 1;
                    side.done_bytes += bytes;
                }
                if measured {
                    side.measured_records += 1;
                    side.last_done_ns = done_ns;
                    record(&mut side.interval.service, done_ns - start_ns);
                }
            }
            Err(error) => {
                side.failed += 1;
                side.interval.errors += 1;
                side.count_error(&error);
                vanish.broken(done_ns, &error);
                vanished = vanish.check(done_ns);
            }
        }
    }
    let unsent = if vanished.is_some() { 0 } else { arrivals.left(plan.window.end_ns - 1) };
    if unsent > 0 {
        lates.take_unsent(lateness.unsent(arrivals.next_ns(), clock.now_ns()), unsent);
    }
    Churned { lates, unsent, vanished }
}

/// Makes the connections of a thread.
struct Caller<'a> {
    plan: &'a ChurnPlan<'a>,
    maker: Maker,
    run: u64,
    size: usize,
    /// Place of the next target.
    turn: usize,
    /// Next number of each target's stream.
    sequences: Vec<u64>,
    meta: Vec<u8>,
    payload: Vec<u8>,
}

impl<'a> Caller<'a> {
    fn new(plan: &'a ChurnPlan<'a>, thread: u64) -> Caller<'a> {
        let size = plan.churn.size as usize;
        Caller {
            plan,
            maker: Maker::new(size..=size, 0.5, 0, plan.seed.wrapping_add(thread)),
            run: plan.first_run.wrapping_add(thread),
            size,
            turn: thread as usize % plan.targets.len(),
            sequences: vec![0; plan.targets.len()],
            meta: Vec::new(),
            payload: Vec::new(),
        }
    }

    /// One connection from first to last; returns the bytes of its record.
    fn call(&mut self, intended_utc_ns: i64) -> Result<u64, String> {
        let place = self.turn;
        self.turn = (place + 1) % self.plan.targets.len();
        let target = &self.plan.targets[place];
        let kind = self.plan.churn.action.kind();
        let mut conn = RawConn::open(&target.address, &self.plan.config).map_err(|error| error.to_string())?;
        self.meta.clear();
        self.payload.clear();
        match self.plan.churn.action {
            Action::Produce => {
                let stamp = Stamp { stream: target.index, keyed: false, run: self.run, sequence: self.sequences[place], intended_utc_ns };
                let record = NewRecord {
                    value: Some(self.maker.make(&stamp, self.size)),
                    timestamp_us: intended_utc_ns / 1000,
                    ..NewRecord::default()
                };
                let mut builder = BatchBuilder::new(Limits::default());
                builder.push(&record).map_err(|refused| refused.to_string())?;
                let batch_len = builder.finish_plain(&mut self.payload, ProducerMark::default()) as u32;
                let entries = [ProduceEntry { partition_uid: target.uid, batch_len }];
                let timeout_ms = self.plan.config.call_timeout.as_millis() as u32;
                ProduceRequest { level: self.plan.churn.level.of_client(), timeout_ms, entries: List::of(&entries) }.encode(&mut self.meta);
                self.sequences[place] += 1;
            }
            Action::Fetch => {
                let mut writer = FetchRequestWriter::begin(&mut self.meta, FetchMode::OneShot, 0, 0, FETCH_BYTES);
                writer.push(&mut self.meta, &FetchEntry { partition_uid: target.uid, offset: target.first, max_bytes: FETCH_BYTES });
                writer.finish(&mut self.meta);
            }
        }
        let correlation = conn.next_correlation();
        conn.send_frame(kind, 0, correlation, &self.meta, &[&self.payload]).map_err(|error| error.to_string())?;
        let answer = conn.recv_frame(self.plan.config.call_timeout).map_err(|error| error.to_string())?;
        let answer = answer.ok_or("no answer in time")?;
        if answer.header.correlation != correlation {
            return Err("an answer to something else".to_owned());
        }
        read_answer(self.plan.churn.action, &answer).map(|fetched| fetched.unwrap_or(self.size as u64))
    }
}

/// Bytes that were fetched, if that was asked; or the refusal.
fn read_answer(action: Action, answer: &Frame<'_>) -> Result<Option<u64>, String> {
    if answer.header.is_error() {
        let body = ErrorBody::decode(answer.meta).map_err(|error| error.to_string())?;
        return Err(format!("refused: {}", body.message));
    }
    let undecoded = |error: tramline_client::wire::prim::DecodeError| error.to_string();
    let (codes, bytes): (Vec<ErrorCode>, Option<u64>) = match action {
        Action::Produce => {
            (ProduceReply::decode(answer.meta).map_err(undecoded)?.results.iter().map(|result| result.error).collect(), None)
        }
        Action::Fetch => {
            let reply = FetchReply::decode(answer.meta).map_err(undecoded)?;
            (reply.entries.iter().map(|entry| entry.error).collect(), Some(answer.payload.len() as u64))
        }
    };
    match codes.iter().find(|code| !code.is_ok()) {
        Some(code) => Err(format!("refused: {}", code.sentence())),
        None => Ok(bytes),
    }
}
