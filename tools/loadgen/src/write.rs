//! The writing thread: gives records to the client's producer when the flow says so, and counts their answers.
//!
//! Invariants: an answer is timed when it is drained, at most one poll after it came; what fails or never gets an answer is
//! handed to the reader as excused, so that it is not called lost.
//! Not here: what is due and what an answer means (`flow.rs`), the protocol (the client).

use crate::args::{Compression, Level, Load};
use crate::clock::Clock;
use crate::environment::thread_cpu_ns;
use crate::flow::{Flow, Next, Pace, Spread};
use crate::payload::{Maker, Stamp, key_text};
use crate::schedule::{SECOND_NS, Schedule, Window};
use crate::stats::{Side, record};
use crate::vanish::Vanish;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tramline_client::{Client, Codec, Error, Partitioner, Producer, ProducerConfig, Record, SendError};

/// Records given to the client between two polls: few enough that answers are not timed late (64 records of 1 KiB are copied in
/// some 10 us), enough that polling costs little.
const BURST_MAX: u64 = 64;
/// Longest sleep in a poll, so that the end of the run and a request to stop are seen in time.
const POLL_MAX: Duration = Duration::from_millis(10);
/// Longest part of a wait that is spent awake.
const SPIN_NS_MAX: u64 = 80_000;

/// Share of a value behind its stamp that a codec makes nothing of.
const COMPRESSIBLE: f64 = 0.5;

/// What the writing thread is to do.
pub struct WritePlan<'a> {
    /// Its options.
    pub load: &'a Load,
    /// Topic.
    pub topic: &'a str,
    /// Number of this writer's run.
    pub run: u64,
    /// Measured part.
    pub window: Window,
    /// Without any answer for so long, the server has vanished.
    pub timeout: Duration,
}

/// What came of it, beside the counts.
#[derive(Debug, Default)]
pub struct Written {
    /// Number of the run.
    pub run: u64,
    /// Stream and number of records given to the client.
    pub streams: Vec<(u32, u64)>,
    /// Stream and sequence of records that failed or whose outcome is unknown.
    pub excused: Vec<(u32, u64)>,
    /// Records due and never sent.
    pub unsent: u64,
    /// Why it ended early.
    pub vanished: Option<String>,
    /// Time on a core.
    pub cpu_ns: u64,
}

/// The producer's settings from the options.
pub fn producer_config(load: &Load) -> ProducerConfig {
    ProducerConfig {
        level: match load.level {
            Level::None => tramline_client::Level::None,
            Level::Leader => tramline_client::Level::Leader,
            Level::LeaderDurable => tramline_client::Level::LeaderDurable,
            Level::Replicated => tramline_client::Level::Replicated,
            Level::Durable => tramline_client::Level::Durable,
        },
        batch_bytes: load.batch_bytes as usize,
        linger_us: load.linger.as_micros() as u64,
        max_in_flight: load.in_flight as usize,
        compression: match load.compression {
            Compression::None => Codec::None,
            Compression::Lz4 => Codec::Lz4,
            Compression::Zstd => Codec::Zstd,
            Compression::Snappy => Codec::Snappy,
        },
        buffer_bytes: load.buffer_bytes as usize,
        partitioner: Partitioner::Hash,
        ..ProducerConfig::default()
    }
}

/// The flow of one writer from the options. `owners` is the number of connections among which the records are spread.
pub fn flow(load: &Load, writer: u64, partitions: u32, owners: u64, window: Window) -> Flow {
    let run_records = load.records_per_batch();
    let pace = match load.rate {
        Some(rate) => Pace::Open(Schedule::new(rate, writer, load.producers)),
        None => Pace::Closed { outstanding_max: load.outstanding.unwrap_or(load.in_flight * run_records * owners) },
    };
    let spread = if load.keys > 0 { Spread::Keys(load.keys as u32) } else { Spread::Partitions(partitions) };
    Flow::new(pace, spread, window, run_records)
}

/// Writes until the end of the window, then waits for the answers.
pub fn write(client: &Client, plan: &WritePlan<'_>, mut flow: Flow, clock: Clock, side: &Mutex<Side>, stop: &AtomicBool) -> Written {
    let cpu_before = thread_cpu_ns();
    let mut excused = Vec::new();
    let vanished = drive(client, plan, &mut flow, clock, side, stop, &mut excused).err();
    excused.extend(flow.unanswered());
    let unanswered = flow.outstanding();
    if unanswered > 0 {
        let mut side = lock(side);
        side.failed += unanswered;
        *side.errors.entry("no answer until the end of the run".to_owned()).or_default() += unanswered;
    }
    Written {
        run: plan.run,
        streams: flow.written().collect(),
        excused,
        unsent: flow.unsent(),
        vanished,
        cpu_ns: thread_cpu_ns().zip(cpu_before).map_or(0, |(after, before)| after - before),
    }
}

fn drive(
    client: &Client,
    plan: &WritePlan<'_>,
    flow: &mut Flow,
    clock: Clock,
    side: &Mutex<Side>,
    stop: &AtomicBool,
    excused: &mut Vec<(u32, u64)>,
) -> Result<(), String> {
    let mut producer = client.producer(producer_config(plan.load)).map_err(|error| error.to_string())?;
    let size = plan.load.size as usize;
    let mut sender = Sender { plan, maker: Maker::new(size..=size, COMPRESSIBLE, plan.load.batch_bytes as usize, plan.run), clock };
    let busy_poll = client.config().busy_poll;
    // A sleeping thread wakes up to 60 us late (the kernel's timer slack); where that costs at most a tenth of a core, the last
    // bit before a due time is spent awake, so that the generator's own lateness is not in the latency.
    let spin_ns = plan.load.rate.map_or(0, |rate| SPIN_NS_MAX.min(SECOND_NS * plan.load.producers / rate / 10));
    let mut vanish = Vanish::new(plan.timeout.as_nanos() as u64, clock.now_ns());
    loop {
        let now_ns = clock.now_ns();
        let ready = flow.ready(now_ns);
        let over = now_ns >= plan.window.end_ns || stop.load(Ordering::Relaxed);
        if over && flow.outstanding() == 0 {
            return Ok(());
        }
        let mut full = false;
        let mut sent = 0;
        while !over && sent < ready.min(BURST_MAX) && !full {
            let next = flow.next(clock.now_ns());
            match sender.send(&mut producer, &next) {
                Ok(()) => sent += 1,
                Err(SendError::BufferFull { .. }) => {
                    flow.undo(&next);
                    full = true;
                }
                Err(error) => {
                    flow.undo(&next);
                    return Err(format!("a record could not be given to the client: {error}"));
                }
            }
        }
        if sent > 0 {
            lock(side).records += sent;
            if sent == ready {
                flow.end_burst();
            }
        }
        let wait = if !over && ready > sent && !full {
            Duration::ZERO
        } else {
            flow.next_due_ns().filter(|_| !over).map_or(POLL_MAX, |due| wait_until(due.saturating_sub(clock.now_ns()), spin_ns))
        };
        if flow.outstanding() == 0 && !wait.is_zero() {
            // The client does not wait when no answer is due.
            idle(wait, busy_poll);
        }
        if let Err(error) = producer.poll(wait) {
            connection_error(&error, &mut vanish, clock.now_ns())?;
        }
        let done_ns = clock.now_ns();
        let good = take_answers(&mut producer, plan, flow, done_ns, side, excused, &mut vanish);
        if over {
            producer.flush(Duration::ZERO).ok(); // sends what linger still holds; answers come by polling
        }
        if good || flow.outstanding() == 0 {
            vanish.good(done_ns);
        }
        if let Some(reason) = vanish.check(done_ns) {
            return Err(reason);
        }
    }
}

/// How long to sleep when the next record is due in `due_in_ns` and the last `spin_ns` are spent awake.
fn wait_until(due_in_ns: u64, spin_ns: u64) -> Duration {
    Duration::from_nanos(due_in_ns.saturating_sub(spin_ns)).min(POLL_MAX)
}

/// Waits for the next due time, not past it.
fn idle(wait: Duration, busy_poll: bool) {
    if busy_poll {
        std::thread::yield_now();
    } else {
        std::thread::sleep(wait);
    }
}

/// What the client reports for itself: a broken connection may heal, anything else does not.
pub fn connection_error(error: &Error, vanish: &mut Vanish, now_ns: u64) -> Result<(), String> {
    if is_connection(error) {
        vanish.broken(now_ns, &error.to_string());
        Ok(())
    } else {
        Err(error.to_string())
    }
}

fn is_connection(error: &Error) -> bool {
    match error {
        Error::Io { .. } | Error::OutcomeUnknown { .. } | Error::Timeout { .. } => true,
        Error::Partition { source, .. } => is_connection(source),
        other => other.retriable(),
    }
}

/// Counts all answers that are there; true when one of them was good.
fn take_answers(
    producer: &mut Producer,
    plan: &WritePlan<'_>,
    flow: &mut Flow,
    done_ns: u64,
    side: &Mutex<Side>,
    excused: &mut Vec<(u32, u64)>,
    vanish: &mut Vanish,
) -> bool {
    let mut good = false;
    let mut side_guard = None;
    producer.drain(|delivery| {
        let side: &mut Side = side_guard.get_or_insert_with(|| lock(side));
        let Some(answer) = flow.answered(delivery.tag, done_ns) else { return };
        if let Some(error) = &delivery.error {
            side.failed += 1;
            side.interval.errors += 1;
            side.count_error(&error.to_string());
            excused.push((answer.stream, answer.sequence));
            if is_connection(error) {
                vanish.broken(done_ns, &error.to_string());
            }
            return;
        }
        good = true;
        side.acked += u64::from(delivery.level != tramline_client::Level::None);
        side.interval.records += 1;
        side.interval.bytes += plan.load.size;
        side.interval.time(answer.latency_ns, answer.measured);
        if plan.window.contains(done_ns) {
            side.done_records += 1;
            side.done_bytes += plan.load.size;
        }
        if answer.measured {
            side.measured_records += 1;
            side.last_done_ns = done_ns;
            record(&mut side.interval.service, answer.service_ns);
        }
    });
    good
}

struct Sender<'a> {
    plan: &'a WritePlan<'a>,
    maker: Maker,
    clock: Clock,
}

impl Sender<'_> {
    fn send(&mut self, producer: &mut Producer, next: &Next) -> Result<(), SendError> {
        let keyed = self.plan.load.keys > 0;
        let stamp = Stamp {
            stream: next.stream,
            keyed,
            run: self.plan.run,
            sequence: next.sequence,
            intended_utc_ns: self.clock.utc_ns(next.intended_ns),
        };
        let key = key_text(next.stream);
        let record = Record {
            topic: self.plan.topic,
            partition: (!keyed).then_some(next.stream),
            key: keyed.then_some(&key[..]),
            value: Some(self.maker.make(&stamp, self.plan.load.size as usize)),
            tag: next.tag,
            ..Record::default()
        };
        producer.try_send(&record)
    }
}

/// A panic of the other thread ends the program anyway, so its half-made counts are as good as any.
pub fn lock(side: &Mutex<Side>) -> std::sync::MutexGuard<'_, Side> {
    side.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn load(line: &str) -> Load {
        match crate::args::Cli::try_parse_from(line.split_whitespace()).unwrap().command {
            crate::args::Command::Run(crate::args::Mode::Produce(produce)) => produce.load,
            _ => panic!("not produce"),
        }
    }

    #[test]
    fn the_producer_gets_what_was_asked() {
        let config = producer_config(&load(
            "x produce --closed --level leader_durable --compression zstd --batch-bytes 4KiB --linger 2ms --in-flight 7",
        ));
        assert_eq!((config.level, config.compression), (tramline_client::Level::LeaderDurable, Codec::Zstd));
        assert_eq!((config.batch_bytes, config.linger_us, config.max_in_flight), (4096, 2000, 7));
    }

    #[test]
    fn a_closed_loop_fills_the_window_of_each_owner() {
        let window = Window::new(0, SECOND_NS);
        assert_eq!(flow(&load("x produce --closed --in-flight 3 --size 1000 --batch-bytes 64KiB"), 0, 4, 2, window).ready(0), 3 * 64 * 2);
        assert_eq!(flow(&load("x produce --closed --outstanding 1"), 0, 4, 2, window).ready(0), 1);
        assert_eq!(flow(&load("x produce --rate 10"), 0, 4, 2, window).ready(0), 1);
    }

    #[test]
    fn the_end_of_a_wait_is_spent_awake() {
        assert_eq!(wait_until(1_000_000, 80_000), Duration::from_micros(920));
        assert_eq!(wait_until(50_000, 80_000), Duration::ZERO);
        assert_eq!(wait_until(u64::MAX, 0), POLL_MAX);
    }
}
