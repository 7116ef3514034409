//! One writer: gives records to a client's producer when its flow says so, and counts their answers; a turn at a time, since a thread
//! may have many writers.
//!
//! Invariants: a turn waits only when it is told to; an answer is timed when it is drained, at most one turn after it came; what
//! fails or never gets an answer is handed to the reader as excused, so that it is not called lost.
//! Not here: whose turn it is (`crew.rs`), what is due and what an answer means (`flow.rs`), the protocol (the client).

use crate::args::Compression;
use crate::arrivals::Arrivals;
use crate::clock::Clock;
use crate::flow::{Flow, Next, Pace};
use crate::lateness::{Lateness, Lates};
use crate::lines::LineMaker;
use crate::load::Load;
use crate::payload::{Maker, Stamp, key_text};
use crate::pick::{Picker, Values};
use crate::schedule::{SECOND_NS, Window};
use crate::stats::{Side, record};
use crate::vanish::Vanish;
use std::sync::Mutex;
use std::time::Duration;
use tramline_client::wire::batch::Limits;
use tramline_client::{BROKER_LIMITS, Client, Codec, Error, Partitioner, Producer, ProducerConfig, Record, SendError};

/// Records given to the client between two polls: few enough that answers are not timed late (64 records of 1 KiB are copied in
/// some 10 us), enough that polling costs little.
const BURST_MAX: u64 = 64;

/// What a record has beside its value: its index entry and the longest key.
const RECORD_BYTES_BESIDE: u32 = 8 << 10;
/// A batch's header and some room.
const BATCH_HEADER_BYTES: u32 = 1 << 10;
/// Longest sleep, so that the end of the run and a request to stop are seen in time.
const WAIT_MAX: Duration = Duration::from_millis(10);
/// Longest part of a wait that is spent awake.
const SPIN_NS_MAX: u64 = 80_000;

/// What all writers are to do.
pub struct WritePlan<'a> {
    /// The options.
    pub load: &'a Load,
    /// Topic.
    pub topic: &'a str,
    /// Its partitions.
    pub partitions: u32,
    /// Number of connections among which a writer's records are spread.
    pub owners: u64,
    /// What stands in the values.
    pub values: Values,
    /// What everything random is drawn from.
    pub seed: u64,
    /// Number of the first writer's run; the others' follow.
    pub first_run: u64,
    /// Measured part.
    pub window: Window,
    /// Without any answer for so long, the server has vanished.
    pub timeout: Duration,
}

/// What came of a writer, beside the counts.
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
}

/// Streams that are drawn from a seed: each of these has its own, so that one more draw here does not change another.
const SALT_ARRIVALS: u64 = 1;
const SALT_PICKS: u64 = 2;
const SALT_VALUES: u64 = 3;

impl WritePlan<'_> {
    /// The producer's settings from the options.
    pub fn producer_config(&self) -> ProducerConfig {
        let load = self.load;
        // What is asked for is sent: whether it is too large, the broker says, and its settings may differ from the client's defaults.
        let record_bytes = match &self.values {
            Values::Sizes(_, max) => *max,
            Values::Lines(lines) => lines.value_bytes_max(),
        } + RECORD_BYTES_BESIDE;
        let batch_bytes = record_bytes.max(load.batch_bytes as u32) + BATCH_HEADER_BYTES;
        let limits = Limits {
            record_bytes_max: BROKER_LIMITS.record_bytes_max.max(record_bytes),
            values_bytes_max: BROKER_LIMITS.values_bytes_max.max(batch_bytes),
            batch_bytes_max: BROKER_LIMITS.batch_bytes_max.max(batch_bytes),
            ..BROKER_LIMITS
        };
        ProducerConfig {
            limits,
            level: load.level.of_client(),
            delivery_timeout: self.timeout,
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

    /// The flow of one writer.
    pub fn flow(&self, writer: u64) -> Flow {
        let load = self.load;
        let pace = match load.pacing.rate {
            Some(rate) => {
                Pace::Open(Arrivals::new(load.pacing.shape(), rate, writer, load.producers, self.seed.wrapping_add(SALT_ARRIVALS)))
            }
            None => Pace::Closed { outstanding_max: load.outstanding_max(&self.values, self.owners) },
        };
        let spread = load.spread(&self.values, self.partitions);
        let run_records = load.records_per_batch(&self.values);
        let seed = self.seed.wrapping_add(SALT_PICKS);
        let picker = Picker::new(spread, self.values.clone(), run_records, writer, load.producers, seed);
        Flow::new(pace, picker, self.window, load.producers)
    }

    /// What makes the values of thread number `thread`.
    fn maker(&self, thread: u64) -> AnyMaker {
        match &self.values {
            Values::Sizes(min, max) => {
                let seed = self.seed.wrapping_add(SALT_VALUES).wrapping_add(thread << 32);
                AnyMaker::Filled(Maker::new(*min as usize..=*max as usize, self.load.compressible, self.load.batch_bytes as usize, seed))
            }
            Values::Lines(lines) => AnyMaker::Lines(LineMaker::new(lines.clone())),
        }
    }
}

enum AnyMaker {
    Filled(Maker),
    Lines(LineMaker),
}

/// What the writers of a thread have in common.
pub struct Desk<'a> {
    /// The plan of all writers.
    pub plan: &'a WritePlan<'a>,
    /// The clock of the run.
    pub clock: Clock,
    /// Where their answers are counted.
    pub side: &'a Mutex<Side>,
    /// How late they sent.
    pub lates: Lates,
    maker: AnyMaker,
    /// The end of a wait that is spent awake.
    spin_ns: u64,
}

impl<'a> Desk<'a> {
    /// Of thread number `thread`.
    pub fn new(plan: &'a WritePlan<'a>, clock: Clock, side: &'a Mutex<Side>, thread: u64) -> Desk<'a> {
        let lates = Lates::new(plan.load.pacing.late_max.as_nanos() as u64);
        let spin_ns = spin_ns(plan.load.pacing.rate, plan.load.threads());
        Desk { plan, clock, side, lates, maker: plan.maker(thread), spin_ns }
    }

    /// How long to sleep when something is due at `until_ns`.
    pub fn wait(&self, now_ns: u64, until_ns: u64) -> Duration {
        wait(now_ns, until_ns, self.spin_ns)
    }
}

/// How long to sleep when something is due at `until_ns` and the last `spin_ns` are spent awake.
pub fn wait(now_ns: u64, until_ns: u64, spin_ns: u64) -> Duration {
    Duration::from_nanos(until_ns.saturating_sub(now_ns).saturating_sub(spin_ns)).min(WAIT_MAX)
}

/// A sleeping thread wakes up to 60 us late (the kernel's timer slack); where that costs at most a tenth of a core, the last
/// bit before a due time is spent awake, so that the generator's own lateness is not in the latency.
pub fn spin_ns(rate: Option<u64>, threads: u64) -> u64 {
    rate.map_or(0, |rate| SPIN_NS_MAX.min(SECOND_NS * threads / rate / 10))
}

/// What a turn left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Whether answers are missing.
    pub waiting: bool,
    /// Whether more could be sent at once.
    pub more: bool,
    /// When the next record is due; none in a closed loop, and after the end.
    pub due_ns: Option<u64>,
    /// Whether anything was sent or answered.
    pub moved: bool,
}

/// See the module's page.
pub struct Writer {
    run: u64,
    producer: Producer,
    /// Beginning of the producer's own clock, nanoseconds of the run.
    started_ns: u64,
    flow: Flow,
    lateness: Lateness,
    vanish: Vanish,
    excused: Vec<(u32, u64)>,
    /// Whether the turn after the end was had: what became due since the one before is sent in it.
    ended: bool,
}

impl Writer {
    /// Number `writer` of all. Connects when it sends for the first time.
    pub fn new(client: &Client, plan: &WritePlan<'_>, writer: u64, clock: Clock) -> Result<Writer, String> {
        let producer = client.producer(plan.producer_config()).map_err(|error| error.to_string())?;
        Ok(Writer {
            run: plan.first_run.wrapping_add(writer),
            started_ns: clock.ns_of(producer.started()),
            producer,
            flow: plan.flow(writer),
            lateness: Lateness::default(),
            vanish: Vanish::new(plan.timeout.as_nanos() as u64, clock.now_ns()),
            excused: Vec::new(),
            ended: false,
        })
    }

    /// When the next record is due.
    pub fn due_ns(&mut self) -> Option<u64> {
        self.flow.next_due_ns()
    }

    /// Sends what is due, at most 64 records, looks for answers, and counts what came. With a time in `wait_until_ns`, where somebody else
    /// is due, waits for the first answer if nothing more can be sent. When all is `over`, sends once more, then only looks. An error ends the run.
    pub fn turn(&mut self, desk: &mut Desk<'_>, over: bool, wait_until_ns: Option<u64>) -> Result<Turn, String> {
        let now_ns = desk.clock.now_ns();
        if self.flow.outstanding() == 0 {
            self.vanish.good(now_ns);
        }
        let ready = if self.ended { 0 } else { self.flow.ready(now_ns) };
        self.ended |= over;
        let (sent, full) = self.send(desk, ready.min(BURST_MAX))?;
        let more = !full && !over && ready > 0 && self.flow.ready(now_ns) > 0;
        if sent > 0 && !more && !full {
            self.lateness.catch_up();
            self.flow.end_burst();
        }
        let due_ns = self.flow.next_due_ns().filter(|_| !over);
        let wait = match wait_until_ns {
            Some(others_ns) if !more && self.flow.outstanding() > 0 => {
                // What is due and not taken waits for an answer, too.
                let own_ns = due_ns.filter(|_| !full).unwrap_or(u64::MAX);
                desk.wait(desk.clock.now_ns(), own_ns.min(others_ns))
            }
            _ => Duration::ZERO,
        };
        if let Err(error) = self.producer.poll(wait) {
            connection_error(&error, &mut self.vanish, desk.clock.now_ns())?;
        }
        let done_ns = desk.clock.now_ns();
        // A record that can be sent again does not fail when its connection does.
        if let Some(error) = self.producer.trouble().filter(|error| matches!(error, Error::Io { .. } | Error::Timeout { .. })) {
            self.vanish.broken(done_ns, &error.to_string());
        }
        let answers = self.take_answers(desk, done_ns);
        if over {
            self.producer.flush(Duration::ZERO).ok(); // sends what linger still holds; answers come by polling
        }
        if answers.good || self.flow.outstanding() == 0 {
            self.vanish.good(done_ns);
        }
        match self.vanish.check(done_ns) {
            Some(reason) => Err(reason),
            None => {
                // In a closed loop the answers made room.
                let more = !over && self.flow.ready(done_ns) > 0;
                Ok(Turn { waiting: self.flow.outstanding() > 0, more, due_ns, moved: sent > 0 || answers.any })
            }
        }
    }

    /// Gives up to `count` records to the client; returns how many it took, and whether its buffer is full.
    fn send(&mut self, desk: &mut Desk<'_>, count: u64) -> Result<(u64, bool), String> {
        let open = desk.plan.load.pacing.rate.is_some();
        for sent in 0..count {
            let now_ns = desk.clock.now_ns();
            let next = self.flow.next(now_ns);
            match offer(&mut self.producer, desk, self.run, &next) {
                Ok(()) if open => {
                    let late = self.lateness.send(next.intended_ns, now_ns);
                    if desk.plan.window.contains(next.intended_ns) {
                        desk.lates.take(late);
                    }
                }
                Ok(()) => {}
                Err(SendError::BufferFull { .. }) => {
                    self.flow.undo(&next);
                    self.lateness.block(now_ns);
                    count_sent(desk, sent);
                    return Ok((sent, true));
                }
                Err(error) => {
                    self.flow.undo(&next);
                    count_sent(desk, sent);
                    return Err(format!("a record could not be given to the client: {error}"));
                }
            }
        }
        count_sent(desk, count);
        Ok((count, false))
    }

    /// Counts all answers that are there.
    fn take_answers(&mut self, desk: &mut Desk<'_>, done_ns: u64) -> Answers {
        let mut answers = Answers::default();
        let mut guard = None;
        let Writer { producer, flow, excused, vanish, started_ns, .. } = self;
        let window = desk.plan.window;
        let in_window = window.contains(done_ns);
        producer.drain(|delivery| {
            let side: &mut Side = guard.get_or_insert_with(|| lock(desk.side));
            let sent_ns = delivery.first_sent_us.map(|sent_us| *started_ns + sent_us * 1_000);
            let Some(answer) = flow.answered(delivery.tag, done_ns, sent_ns) else { return };
            answers.any = true;
            if let Some(error) = &delivery.error {
                side.failed += 1;
                side.measured_refused += u64::from(answer.measured && !is_connection(error));
                side.interval.errors += 1;
                side.count_error(&error.to_string());
                excused.push((answer.stream, answer.sequence));
                if is_connection(error) {
                    vanish.broken(done_ns, &error.to_string());
                }
                return;
            }
            answers.good = true;
            side.acked += u64::from(delivery.level != tramline_client::Level::None);
            side.interval.records += 1;
            side.interval.bytes += u64::from(answer.size);
            side.interval.time(answer.latency_ns, answer.measured);
            if in_window {
                side.done_records += 1;
                side.done_bytes += u64::from(answer.size);
            }
            if answer.measured {
                side.measured_records += 1;
                side.last_done_ns = done_ns;
                record(&mut side.interval.service, answer.service_ns);
            }
        });
        answers
    }

    /// The end: what was not answered or not sent is counted.
    pub fn finish(mut self, desk: &mut Desk<'_>) -> Written {
        self.excused.extend(self.flow.unanswered());
        let unanswered = self.flow.outstanding();
        if unanswered > 0 {
            let mut side = lock(desk.side);
            side.failed += unanswered;
            *side.errors.entry("no answer until the end of the run".to_owned()).or_default() += unanswered;
        }
        let now_ns = desk.clock.now_ns();
        let unsent = self.flow.unsent(now_ns);
        // What is left because the run ended early is late by nobody's fault.
        if let Some(due_ns) = self.flow.next_due_ns().filter(|_| unsent > 0 && now_ns >= desk.plan.window.end_ns) {
            desk.lates.take_unsent(self.lateness.unsent(due_ns, now_ns), unsent);
        }
        Written { run: self.run, streams: self.flow.written(), excused: self.excused, unsent }
    }
}

/// What a look for answers found.
#[derive(Default)]
struct Answers {
    any: bool,
    good: bool,
}

fn count_sent(desk: &Desk<'_>, sent: u64) {
    if sent > 0 {
        lock(desk.side).records += sent;
    }
}

#[inline]
fn offer(producer: &mut Producer, desk: &mut Desk<'_>, run: u64, next: &Next) -> Result<(), SendError> {
    let plan = desk.plan;
    let keyed = plan.load.keyed();
    let pick = next.pick;
    let intended_utc_ns = desk.clock.utc_ns(next.intended_ns);
    let stamp = Stamp { stream: pick.stream, keyed, run, sequence: next.sequence, intended_utc_ns };
    let value = match &mut desk.maker {
        AnyMaker::Filled(maker) => maker.make(&stamp, pick.size as usize),
        AnyMaker::Lines(maker) => maker.make(&stamp, pick.line),
    };
    let numbered;
    let key = match &plan.values {
        _ if !keyed => None,
        Values::Lines(lines) if plan.load.key_field.is_some() => Some(lines.key(pick.stream)),
        _ => {
            numbered = key_text(pick.stream);
            Some(&numbered[..])
        }
    };
    let partition = (!keyed).then_some(pick.stream);
    producer.try_send(&Record { topic: plan.topic, partition, key, value: Some(value), tag: next.tag, ..Record::default() })
}

/// What the client reports for itself: a broken connection may heal, anything else does not.
fn connection_error(error: &Error, vanish: &mut Vanish, now_ns: u64) -> Result<(), String> {
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

/// A panic of the other thread ends the program anyway, so its half-made counts are as good as any.
pub fn lock(side: &Mutex<Side>) -> std::sync::MutexGuard<'_, Side> {
    side.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::load;

    fn plan(load: &Load) -> WritePlan<'_> {
        WritePlan {
            load,
            topic: "t",
            partitions: 4,
            owners: 2,
            values: load.values().unwrap(),
            seed: 7,
            first_run: 100,
            window: Window::new(0, SECOND_NS),
            timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn the_producer_gets_what_was_asked() {
        let load = load("produce --closed --level leader_durable --compression zstd --batch-bytes 4KiB --linger 2ms --in-flight 7");
        let config = plan(&load).producer_config();
        assert_eq!((config.level, config.compression), (tramline_client::Level::LeaderDurable, Codec::Zstd));
        assert_eq!((config.batch_bytes, config.linger_us, config.max_in_flight), (4096, 2000, 7));
    }

    #[test]
    fn the_client_refuses_nothing_that_the_options_allow() {
        for line in ["produce --closed --size 16MiB --buffer-bytes 1GiB", "produce --closed --batch-bytes 8MiB"] {
            let load = load(line);
            let config = plan(&load).producer_config();
            assert!(
                config.limits.record_bytes_max >= load.size.max && config.limits.batch_bytes_max as usize >= config.batch_bytes,
                "{line}"
            );
            assert!(config.limits.batch_bytes_max > config.limits.record_bytes_max, "{line}");
        }
        assert_eq!(plan(&load("produce --closed")).producer_config().limits, BROKER_LIMITS);
    }

    #[test]
    fn a_closed_loop_fills_the_window_of_each_owner() {
        for (line, ready) in [
            ("produce --closed --in-flight 3 --size 1000 --batch-bytes 64KiB", 3 * 64 * 2),
            ("produce --closed --outstanding 1", 1),
            ("produce --rate 10", 1),
            ("produce --rate 10 --arrivals bursts --burst 5", 5),
        ] {
            assert_eq!(plan(&load(line)).flow(0).ready(0), ready, "{line}");
        }
    }

    #[test]
    fn the_end_of_a_wait_is_spent_awake() {
        let (load, side) = (load("produce --rate 1000"), Mutex::new(Side::new()));
        let plan = plan(&load);
        let desk = Desk::new(&plan, Clock::start(), &side, 0);
        assert_eq!(desk.wait(500, 1_000_500), Duration::from_micros(920));
        assert_eq!((desk.wait(0, 50_000), desk.wait(9, 5)), (Duration::ZERO, Duration::ZERO));
        assert_eq!(desk.wait(0, u64::MAX), WAIT_MAX);
        assert_eq!([spin_ns(None, 1), spin_ns(Some(100_000), 1), spin_ns(Some(100_000), 4)], [0, 1_000, 4_000]);
    }

    #[test]
    fn writers_share_the_rate_and_a_seed_repeats_them() {
        let load = load("produce --rate 1000 --arrivals poisson --producers 4 --keys 100 --key-choice uniform");
        let picks = |writer| {
            let mut flow = plan(&load).flow(writer);
            (0..20).map(|_| flow.next(0)).map(|next| (next.intended_ns, next.pick.stream)).collect::<Vec<_>>()
        };
        assert_eq!(picks(1), picks(1));
        assert_ne!(picks(1), picks(2));
        let last_ns = picks(0)[19].0;
        assert!((30_000_000..200_000_000).contains(&last_ns), "20 records at 250 per second take 80 ms: {last_ns}");
    }
}
