//! A run from beginning to end: connects, sees to the topic, starts the writing and the reading thread, has them watched, and
//! puts the outcome together.
//!
//! Invariants: the clock of the run starts when both sides know what to do; a side that ends early ends the other; the threads
//! are joined before anything is reported. The calling thread only waits and prints, so it measures nothing and disturbs little.

use crate::args::{Common, From, Level, Load, Mode, Read, name_of};
use crate::clock::Clock;
use crate::environment::{build_warning, cpu_warning, environment};
use crate::files::{OutputFile, check_distinct};
use crate::flow::Flow;
use crate::hlog::{LINE_BYTES_MAX, Log, remarks};
use crate::read::{Ends, ReadPlan, Seen, read};
use crate::report::Outcome;
use crate::schedule::Window;
use crate::stats::{Interval, Side};
use crate::watch::{Group, Watch, tags};
use crate::write::{WritePlan, Written, flow, write};
use hdrhistogram::serialization::V2DeflateSerializer;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{LineWriter, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
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

    fn closed(&self) -> bool {
        self.load.is_some_and(|load| load.closed)
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
    if let Some(option) = plan.common.needs_latency().filter(|_| latencies(mode).is_empty()) {
        return Err(format!("{option} needs a latency, and reading what was written long ago has none; use --from latest"));
    }
    check_distinct(&plan.common.outputs(&latencies(mode)))?;
    for cpu in &plan.common.cpu {
        if !cores.contains(&usize::from(*cpu)) {
            let known = cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
            return Err(format!("--cpu {cpu} is not a core this process may use; allowed is one of {known}"));
        }
    }
    Ok(())
}

/// The tags of the latencies that this mode measures, the main one first; empty when it measures none.
pub fn latencies(mode: &Mode) -> Vec<&'static str> {
    let plan = Plan::new(mode);
    let mut found = Vec::new();
    if plan.read.is_some() && plan.from == From::Latest {
        found.extend(tags(false, plan.closed()));
    }
    if plan.load.is_some() {
        found.extend(tags(true, plan.closed()));
    }
    found
}

/// Runs and gives the outcome, or the reason why it could not begin. `hlog` gets the interval log.
pub fn run(mode: &Mode, hlog: Option<OutputFile>) -> Result<Outcome, String> {
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
    let writing = writing(&plan, partitions, owners, window, run_number);
    let mut warnings = early_warnings(&plan, partitions);
    let mut log_file = hlog.map(OutputFile::begin).transpose()?.map(|file| LineWriter::with_capacity(LINE_BYTES_MAX, file));
    let mut serializer = V2DeflateSerializer::new();
    let clock = Clock::start();
    let log = match &mut log_file {
        Some(file) => Some(Log::begin(file, &mut serializer, clock.started(), &remarks(plan.mode, plan.closed()))),
        None => None,
    };
    let log = log.transpose().map_err(|cause| format!("the interval log cannot be begun: {cause}"))?;
    let threads = Threads { plan: &plan, client: &client, clock, window };
    let ran = threads.run(writing, reading, log);

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
        environment: environment(plan.common.disk.as_deref()),
        // As text, since it does not fit the numbers of every reader of JSON.
        seeds: plan.load.map_or(Value::Null, |load| json!({"payload_first": run_number.to_string(), "payload_count": load.producers})),
        log_error: ran.log_error,
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

/// What each writer is to do, and when.
fn writing<'a>(plan: &Plan<'a>, partitions: u32, owners: u64, window: Window, run_number: u64) -> Vec<(WritePlan<'a>, Flow)> {
    let Some(load) = plan.load else { return Vec::new() };
    let of = |writer| {
        let run = run_number.wrapping_add(writer);
        let write_plan = WritePlan { load, topic: &plan.common.topic, run, window, timeout: plan.common.timeout };
        (write_plan, flow(load, writer, partitions, owners, window))
    };
    (0..load.producers).map(of).collect()
}

/// What makes the numbers doubtful before there are any.
fn early_warnings(plan: &Plan<'_>, partitions: u32) -> Vec<String> {
    let mut warnings: Vec<String> = build_warning().into_iter().collect();
    if let Some(asked) = plan.common.partitions.filter(|asked| *asked != partitions) {
        warnings.push(format!("the topic has {partitions} partitions already, --partitions {asked} was not used"));
    }
    if plan.load.is_some_and(|load| load.level == Level::None) {
        warnings.push("level none has no acknowledgements: write latencies are those of handing the records to the kernel".to_owned());
    }
    warnings
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
    log_error: Option<String>,
    ended_ns: u64,
}

impl Threads<'_> {
    fn run(
        &self,
        writing: Vec<(WritePlan<'_>, Flow)>,
        reading: Option<(ReadPlan<'_>, Consumer)>,
        mut log: Option<Log<'_, LineWriter<File>>>,
    ) -> Ran {
        let common = self.plan.common;
        let (has_writer, has_reader) = (!writing.is_empty(), reading.is_some());
        let produce: Vec<Mutex<Side>> = writing.iter().map(|_| Mutex::new(Side::new())).collect();
        let consume: Vec<Mutex<Side>> = reading.iter().map(|_| Mutex::new(Side::new())).collect();
        let stop = AtomicBool::new(false);
        let (ended_sender, ended) = channel::<()>();
        let (ends_sender, ends) = channel::<Ends>();
        let (written, seen, watched) = std::thread::scope(|scope| {
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
            let mut groups = Vec::new();
            if has_writer {
                groups.push(Group { name: "write", workers: &produce, tags: tags(true, self.plan.closed()) });
            }
            if has_reader {
                groups.push(Group { name: "read", workers: &consume, tags: tags(false, self.plan.closed()) });
            }
            let watched = self.watch(groups, log.as_mut()).run(&ended);
            (writers.into_iter().map(join).collect::<Vec<_>>(), reader.map(join), watched)
        });
        let ended_ns = seen.as_ref().map_or_else(|| self.clock.now_ns(), |seen| seen.ended_ns);
        let mut warnings = Vec::new();
        let busiest_writer = written.iter().map(|written| written.cpu_ns).max();
        for (name, cpu_ns) in [("writing", busiest_writer), ("reading", seen.as_ref().map(|seen| seen.cpu_ns))] {
            warnings.extend(cpu_ns.and_then(|cpu_ns| cpu_warning(name, cpu_ns, self.clock.now_ns(), common.busy_poll)));
        }
        let mut sums = watched.sums.iter();
        let produce = merged(produce, if has_writer { sums.next() } else { None });
        let consume = merged(consume, sums.next());
        Ran { produce, written, consume, seen, series: watched.series, warnings, log_error: watched.log_error, ended_ns }
    }

    fn watch<'w, 'l, W: Write>(&self, groups: Vec<Group<'w>>, log: Option<&'w mut Log<'l, W>>) -> Watch<'w, 'l, W> {
        let (phase, quiet) = (self.plan.phase(), self.plan.common.quiet);
        Watch { clock: self.clock, window: self.window, phase, quiet, groups, log }
    }
}

/// The workers of one side as one, with the times of its seconds; none when there were none.
fn merged(sides: Vec<Mutex<Side>>, seconds: Option<&Interval>) -> Option<Side> {
    let mut sides = sides.into_iter().map(|side| side.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner));
    let mut first = sides.next()?;
    for side in sides {
        first.merge(&side);
    }
    if let Some(seconds) = seconds {
        first.add_seconds(seconds);
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
