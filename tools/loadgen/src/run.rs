//! A run from beginning to end: connects, sees to the topic, starts the writing and the reading thread, shows progress, and
//! puts the outcome together.
//!
//! Invariants: the clock of the run starts when both sides know what to do; a side that ends early ends the other; the threads
//! are joined before anything is reported. The calling thread only waits and prints, so it measures nothing and disturbs little.

use crate::args::{Common, From, Level, Load, Mode, Read, name_of};
use crate::clock::Clock;
use crate::environment::{build_warning, cpu_warning, environment};
use crate::flow::Flow;
use crate::read::{Ends, ReadPlan, Seen, read};
use crate::report::{Outcome, progress_json, progress_line};
use crate::schedule::{SECOND_NS, Window};
use crate::stats::{Interval, Side};
use crate::write::{WritePlan, Written, flow, lock, write};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tramline_client::{Client, Config, Consumer, ConsumerConfig, Error, ErrorCode, Metadata, Start};

/// The checked options of a run.
struct Plan<'a> {
    mode: &'static str,
    common: &'a Common,
    load: Option<&'a Load>,
    read: Option<&'a Read>,
    from: From,
    until_end: bool,
}

impl<'a> Plan<'a> {
    fn new(mode: &'a Mode) -> Plan<'a> {
        match mode {
            Mode::Produce(it) => {
                Plan { mode: "produce", common: &it.common, load: Some(&it.load), read: None, from: From::Latest, until_end: false }
            }
            Mode::Consume(it) => {
                Plan { mode: "consume", common: &it.common, load: None, read: Some(&it.read), from: it.from, until_end: it.until_end }
            }
            Mode::Both(it) => {
                Plan { mode: "both", common: &it.common, load: Some(&it.load), read: Some(&it.read), from: From::Latest, until_end: false }
            }
        }
    }

    fn window(&self) -> Window {
        let warmup_ns = if self.until_end { 0 } else { self.common.warmup.as_nanos() as u64 };
        Window::new(warmup_ns, self.common.duration.as_nanos() as u64)
    }

    /// What a progress line calls the measured part.
    fn phase(&self) -> &'static str {
        match self.load {
            Some(load) if load.closed => "CLOSED",
            Some(_) => "open",
            None => "read",
        }
    }
}

/// Refuses what the options only say together, before anything is done.
pub fn check(mode: &Mode) -> Result<(), String> {
    let plan = Plan::new(mode);
    plan.common.check()?;
    if let Some(load) = plan.load {
        load.check()?;
    }
    let cores: Vec<usize> = core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    for cpu in &plan.common.cpu {
        if !cores.contains(&usize::from(*cpu)) {
            let known = cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
            return Err(format!("--cpu {cpu} is not a core this process may use; allowed is one of {known}"));
        }
    }
    Ok(())
}

/// Runs and gives the outcome, or the reason why it could not begin.
pub fn run(mode: &Mode) -> Result<Outcome, String> {
    let plan = Plan::new(mode);
    let client = connect(plan.common)?;
    let metadata = see_to_topic(&client, plan.common)?;
    let topic = metadata.topic(&plan.common.topic).ok_or("the broker's metadata does not have the topic; run again")?;
    let partitions = topic.partitions.len() as u32;
    let owners =
        topic.partitions.iter().map(|partition| (partition.leader_node, partition.leader_shard)).collect::<BTreeSet<_>>().len() as u64;
    if partitions == 0 {
        return Err(format!("topic {} has no partitions yet; run again", plan.common.topic));
    }
    let run_number =
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64 ^ (u64::from(std::process::id()) << 48);
    let window = plan.window();
    let reading = plan.read.map(|options| reading(&client, &plan, options, partitions, window, run_number));
    let reading = reading.transpose().map_err(|error| error.to_string())?;
    let mut writing = Vec::new();
    if let Some(load) = plan.load {
        for writer in 0..load.producers {
            let run = run_number.wrapping_add(writer);
            let write_plan = WritePlan { load, topic: &plan.common.topic, run, window, timeout: plan.common.timeout };
            writing.push((write_plan, flow(load, writer, partitions, owners, window)));
        }
    }

    let mut warnings: Vec<String> = build_warning().into_iter().collect();
    if let Some(asked) = plan.common.partitions.filter(|asked| *asked != partitions) {
        warnings.push(format!("the topic has {partitions} partitions already, --partitions {asked} was not used"));
    }
    if plan.load.is_some_and(|load| load.level == Level::None) {
        warnings.push("level none has no acknowledgements: write latencies are those of handing the records to the kernel".to_owned());
    }
    let clock = Clock::start();
    let threads = Threads { plan: &plan, client: &client, clock, window };
    let ran = threads.run(writing, reading);

    warnings.extend(ran.warnings);
    let vanished = ran.written.iter().find_map(|written| written.vanished.clone());
    let vanished = vanished.or_else(|| ran.seen.as_ref().and_then(|seen| seen.vanished.clone()));
    let mut window = window;
    if vanished.is_some() || plan.mode == "consume" {
        // After a vanished server's last answer nothing was measured but the waiting for it.
        let last_ns = [&ran.produce, &ran.consume].into_iter().flatten().map(|side| side.last_done_ns).max().unwrap_or(0);
        let end_ns = if vanished.is_some() { last_ns } else { ran.ended_ns };
        window.end_ns = end_ns.clamp(window.from_ns, window.end_ns);
    }
    let mut parameters = parameters(&plan, partitions, owners, run_number);
    parameters["started_unix_s"] = json!(clock.started_unix_s());
    Ok(Outcome {
        mode: plan.mode,
        parameters,
        environment: environment(),
        asked_rate: plan.load.and_then(|load| load.rate),
        window,
        produce: ran.produce,
        unsent: ran.written.iter().map(|written| written.unsent).sum(),
        consume: ran.consume,
        found: ran.seen.as_ref().map(|seen| seen.found),
        series: ran.series,
        vanished,
        warnings,
    })
}

fn connect(common: &Common) -> Result<Client, String> {
    let config = Config {
        client_name: "tramline-loadgen".to_owned(),
        connect_timeout: common.timeout.min(Duration::from_secs(5)),
        request_timeout: common.timeout,
        busy_poll: common.busy_poll,
        ..Config::new(&common.server)
    };
    Client::connect(config).map_err(|error| error.to_string())
}

/// The topic's metadata; creates the topic when it is missing.
fn see_to_topic(client: &Client, common: &Common) -> Result<Metadata, String> {
    let ask = || client.metadata(&[&common.topic]).map_err(|error| error.to_string());
    let metadata = ask()?;
    match metadata.topic(&common.topic).map(|topic| topic.error) {
        Some(ErrorCode::Ok) => return Ok(metadata),
        Some(ErrorCode::UnknownTopic) | None => {}
        Some(code) => return Err(format!("topic {}: {}", common.topic, code.sentence())),
    }
    client.create_topic(&common.topic, common.partitions.unwrap_or(1), &[], true).map_err(|error| error.to_string())?;
    ask()
}

/// What to read, and a consumer that stands where reading begins: for `both` that has to be before the first record is written.
fn reading<'a>(
    client: &Client,
    plan: &Plan<'a>,
    options: &Read,
    partitions: u32,
    window: Window,
    run: u64,
) -> Result<(ReadPlan<'a>, Consumer), Error> {
    let topic = plan.common.topic.as_str();
    let config =
        ConsumerConfig { credit_bytes: options.credit_bytes as u32, verify_checksums: !options.no_verify, ..ConsumerConfig::default() };
    let mut consumer = client.consumer(config)?;
    consumer.assign_all(topic, if plan.from == From::Earliest { Start::Earliest } else { Start::Latest })?;
    let ends = if plan.until_end { client.end_offsets(topic)?.iter().map(|end| (end.partition, end.offset)).collect() } else { Vec::new() };
    let both = plan.load.is_some();
    let all_kept = (0..partitions).all(|partition| consumer.position(topic, partition) == Some(0));
    let read_plan = ReadPlan {
        topic,
        from_zero: both || (plan.from == From::Earliest && all_kept),
        ends,
        runs: plan.load.map(|load| run..run.wrapping_add(load.producers)),
        writers: plan.load.map_or(0, |load| load.producers),
        timed: plan.from == From::Latest,
        window,
        timeout: plan.common.timeout,
        keyed: plan.load.is_some_and(|load| load.keys > 0),
    };
    Ok((read_plan, consumer))
}

struct Threads<'a> {
    plan: &'a Plan<'a>,
    client: &'a Client,
    clock: Clock,
    window: Window,
}

/// What the threads brought.
struct Ran {
    produce: Option<Side>,
    written: Vec<Written>,
    consume: Option<Side>,
    seen: Option<Seen>,
    series: Vec<Value>,
    warnings: Vec<String>,
    ended_ns: u64,
}

impl Threads<'_> {
    fn run(&self, writing: Vec<(WritePlan<'_>, Flow)>, reading: Option<(ReadPlan<'_>, Consumer)>) -> Ran {
        let common = self.plan.common;
        let (has_writer, has_reader) = (!writing.is_empty(), reading.is_some());
        let produce: Vec<Mutex<Side>> = writing.iter().map(|_| Mutex::new(Side::new())).collect();
        let consume: Vec<Mutex<Side>> = reading.iter().map(|_| Mutex::new(Side::new())).collect();
        let stop = AtomicBool::new(false);
        let (ended_sender, ended) = channel::<()>();
        let (ends_sender, ends) = channel::<Ends>();
        let mut series = Vec::new();
        let (written, seen) = std::thread::scope(|scope| {
            let stop = &stop;
            let reader = reading.zip(consume.first()).map(|((plan, consumer), side)| {
                let ended = ended_sender.clone();
                scope.spawn(move || {
                    pin(common.consume_cpu());
                    let seen = read(consumer, &plan, self.clock, side, stop, has_writer.then_some(&ends));
                    if seen.vanished.is_some() {
                        stop.store(true, Ordering::Relaxed);
                    }
                    // The receiver is gone only when nobody waits any more.
                    let _ = ended.send(());
                    seen
                })
            });
            let writers = writing.into_iter().zip(&produce).map(|((plan, flow), side)| {
                let (ended, ends_sender) = (ended_sender.clone(), ends_sender.clone());
                scope.spawn(move || {
                    pin(common.produce_cpu());
                    let written = write(self.client, &plan, flow, self.clock, side, stop);
                    let _ = ends_sender.send(Ends::of(&written));
                    if written.vanished.is_some() {
                        stop.store(true, Ordering::Relaxed);
                    }
                    let _ = ended.send(());
                    written
                })
            });
            let writers: Vec<_> = writers.collect();
            drop((ended_sender, ends_sender));
            let mut sides: Vec<(&str, &[Mutex<Side>])> = Vec::new();
            if has_writer {
                sides.push(("write", &produce));
            }
            if has_reader {
                sides.push(("read", &consume));
            }
            self.watch(&sides, &ended, &mut series);
            (writers.into_iter().map(join).collect::<Vec<_>>(), reader.map(join))
        });
        let ended_ns = seen.as_ref().map_or_else(|| self.clock.now_ns(), |seen| seen.ended_ns);
        let mut warnings = Vec::new();
        let busiest_writer = written.iter().map(|written| written.cpu_ns).max();
        for (name, cpu_ns) in [("writing", busiest_writer), ("reading", seen.as_ref().map(|seen| seen.cpu_ns))] {
            warnings.extend(cpu_ns.and_then(|cpu_ns| cpu_warning(name, cpu_ns, self.clock.now_ns(), common.busy_poll)));
        }
        Ran { produce: merged(produce), written, consume: merged(consume), seen, series, warnings, ended_ns }
    }

    /// Shows each second until all threads have ended.
    fn watch(&self, sides: &[(&str, &[Mutex<Side>])], ended: &std::sync::mpsc::Receiver<()>, series: &mut Vec<Value>) {
        let mut totals: Vec<Interval> = sides.iter().map(|_| Interval::new()).collect();
        let mut spare = Interval::new();
        let mut second = 0;
        let mut last_ns = 0;
        loop {
            let next_ns = (second + 1) * SECOND_NS;
            match ended.recv_timeout(Duration::from_nanos(next_ns.saturating_sub(self.clock.now_ns()))) {
                Ok(()) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            second += 1;
            let now_ns = self.clock.now_ns();
            let elapsed_s = (now_ns - last_ns).max(1) as f64 / 1e9;
            for ((_, workers), total) in sides.iter().zip(&mut totals) {
                total.clear();
                for worker in *workers {
                    spare.clear();
                    std::mem::swap(&mut lock(worker).interval, &mut spare);
                    total.merge(&spare);
                }
            }
            let shown: Vec<(&str, &Interval)> = sides.iter().map(|(name, _)| *name).zip(&totals).collect();
            let middle_ns = last_ns + (now_ns - last_ns) / 2;
            let phase = if middle_ns < self.window.from_ns {
                "warm-up"
            } else if middle_ns < self.window.end_ns {
                self.plan.phase()
            } else {
                "drain"
            };
            if !self.plan.common.quiet {
                eprintln!("{}", progress_line(second, phase, &shown, elapsed_s));
            }
            series.push(progress_json(second, phase, &shown, elapsed_s));
            last_ns = now_ns;
        }
    }
}

/// The workers of one side as one; none when there were none.
fn merged(sides: Vec<Mutex<Side>>) -> Option<Side> {
    let mut sides = sides.into_iter().map(|side| side.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner));
    let mut first = sides.next()?;
    for side in sides {
        first.merge(&side);
    }
    Some(first)
}

fn join<T>(handle: std::thread::ScopedJoinHandle<'_, T>) -> T {
    handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Binds the calling thread to a core that `check` found to exist; a kernel that refuses it now leaves the thread free.
fn pin(cpu: Option<usize>) {
    if let Some(id) = cpu
        && !core_affinity::set_for_current(core_affinity::CoreId { id })
    {
        eprintln!("tramline-loadgen: the kernel refused to bind a thread to core {id}; going on unbound");
    }
}

fn parameters(plan: &Plan<'_>, partitions: u32, owners: u64, run: u64) -> Value {
    let common = plan.common;
    let mut object = json!({
        "server": common.server, "topic": common.topic, "partitions": partitions, "owners": owners, "run": run,
        "duration_s": common.duration.as_secs_f64(), "warmup_s": plan.window().from_ns as f64 / 1e9,
        "busy_poll": common.busy_poll, "cpu": common.cpu,
    });
    if let Some(load) = plan.load {
        let outstanding = load.closed.then(|| load.outstanding.unwrap_or(load.in_flight * load.records_per_batch() * owners));
        for (name, value) in [
            ("rate", json!(load.rate)),
            ("outstanding", json!(outstanding)),
            ("size", json!(load.size)),
            ("batch_bytes", json!(load.batch_bytes)),
            ("linger_us", json!(load.linger.as_micros() as u64)),
            ("in_flight", json!(load.in_flight)),
            ("buffer_bytes", json!(load.buffer_bytes)),
            ("level", json!(name_of(load.level))),
            ("compression", json!(name_of(load.compression))),
            ("producers", json!(load.producers)),
            ("keys", json!(load.keys)),
        ] {
            object[name] = value;
        }
    }
    if let Some(read) = plan.read {
        object["credit_bytes"] = json!(read.credit_bytes);
        object["verify"] = json!(!read.no_verify);
        object["from"] = json!(name_of(plan.from));
    }
    object
}
