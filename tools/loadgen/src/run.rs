//! A run from beginning to end: connects, sees to the topic, starts the writing and the reading threads, has them watched, and
//! puts the outcome together.
//!
//! Invariants: the clock of the run starts when all sides know what to do; a side that ends early ends the others; the threads
//! are joined before anything is reported. The calling thread only waits and prints, so it measures nothing and disturbs little.

use crate::args::{Common, From, Read};
use crate::clock::Clock;
use crate::crew::{Done, write};
use crate::environment::{cpu_warning, environment};
use crate::files::OutputFile;
use crate::hlog::{LINE_BYTES_MAX, Log, remarks};
use crate::lateness::Lates;
use crate::open_files;
use crate::plan::Plan;
use crate::read::{ReadPlan, Seen, read};
use crate::report::Outcome;
use crate::schedule::Window;
use crate::stats::{Interval, Side};
use crate::verify::{self, Unverified, Wanted};
use crate::watch::{Group, Watch, tags};
use crate::write::{Desk, WritePlan};
use hdrhistogram::serialization::V2DeflateSerializer;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{LineWriter, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tramline_client::{Client, Config, Consumer, ConsumerConfig, Error, ErrorCode, Metadata, Start};

/// What the broker says of the topic.
struct Topic {
    partitions: u32,
    /// Shards of nodes that own its partitions: the connections of a producer.
    owners: u64,
}

/// Runs and gives the outcome, or the reason why it could not begin. `hlog` gets the interval log.
pub fn run(plan: &Plan<'_>, hlog: Option<OutputFile>) -> Result<Outcome, String> {
    let client = connect(plan.common)?;
    let topic = topic(&client, plan.common)?;
    let run_number =
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64 ^ (u64::from(std::process::id()) << 48);
    let seed = plan.load.and_then(|load| load.pacing.seed).unwrap_or(run_number);
    let window = plan.window();
    let write_plan = writing(plan, &topic, window, run_number, seed);
    let sockets = (write_plan.as_ref().map_or(0, |write_plan| write_plan.load.producers) + plan.readers) * topic.owners;
    open_files::make_room(sockets)?;
    let before = plan.verify.then(|| verify::ends(&client, &plan.common.topic)).transpose()?;
    let reading = reading(&client, plan, &topic, window, run_number).map_err(|error| error.to_string())?;
    let mut warnings = plan.early_warnings(topic.partitions);
    let mut log_file = hlog.map(OutputFile::begin).transpose()?.map(|file| LineWriter::with_capacity(LINE_BYTES_MAX, file));
    let mut serializer = V2DeflateSerializer::new();
    let clock = Clock::start();
    let log = match &mut log_file {
        Some(file) => Some(Log::begin(file, &mut serializer, clock.started(), &remarks(plan.mode, plan.closed()))),
        None => None,
    };
    let log = log.transpose().map_err(|cause| format!("the interval log cannot be begun: {cause}"))?;
    let threads = Threads { plan, client: &client, clock, window };
    let ran = threads.run(write_plan.as_ref(), reading, log);

    warnings.extend(ran.warnings);
    let vanished = ran.done.iter().find_map(|done| done.vanished.clone());
    let vanished = vanished.or_else(|| ran.seen.iter().find_map(|seen| seen.vanished.clone()));
    let mut window = window;
    if vanished.is_some() || plan.mode == "consume" {
        // After a vanished server's last answer nothing was measured but the waiting for it.
        let last_ns = [&ran.produce, &ran.consume].into_iter().flatten().map(|side| side.last_done_ns).max().unwrap_or(0);
        let end_ns = if vanished.is_some() { last_ns } else { ran.ended_ns };
        window.end_ns = end_ns.clamp(window.from_ns, window.end_ns);
    }
    let mut parameters = plan.parameters(topic.partitions, topic.owners, run_number);
    parameters["started_unix_s"] = json!(clock.started_unix_s());
    let (mut found, mut unverified) = (None, None);
    if let (Some(before), Some(write_plan), None) = (&before, &write_plan, &vanished) {
        match verify::read_back(&client, &wanted(plan, write_plan, before), &ran.done) {
            Ok(all) => found = Some(all),
            Err(Unverified::Dropped(warning)) => warnings.push(warning),
            Err(Unverified::Failed(cause)) => unverified = Some(cause),
        }
    }
    let found = found.or_else(|| ran.seen.iter().map(|seen| seen.found).reduce(std::ops::Add::add));
    Ok(Outcome {
        mode: plan.mode,
        parameters,
        environment: environment(plan.common.disk.as_deref()),
        // As text, since it does not fit the numbers of every reader of JSON.
        seeds: plan.load.map_or(Value::Null, |_| json!({"seed": seed.to_string()})),
        log_error: ran.log_error,
        asked_rate: plan.load.and_then(|load| load.pacing.rate),
        window,
        produce: ran.produce,
        unsent: ran.done.iter().flat_map(|done| &done.written).map(|written| written.unsent).sum(),
        lates: ran.lates.filter(|_| !plan.closed()),
        consume: ran.consume,
        readers: plan.readers,
        found,
        unverified,
        series: ran.series,
        vanished,
        warnings,
    })
}

/// What the writers are to do, and when.
fn writing<'a>(plan: &Plan<'a>, topic: &Topic, window: Window, run_number: u64, seed: u64) -> Option<WritePlan<'a>> {
    let (load, values) = plan.load.zip(plan.values.clone())?;
    Some(WritePlan {
        load,
        topic: &plan.common.topic,
        partitions: topic.partitions,
        owners: topic.owners,
        values,
        seed,
        first_run: run_number,
        window,
        timeout: plan.common.timeout,
    })
}

/// What has to be found when it is read back.
fn wanted<'a>(plan: &Plan<'a>, write_plan: &WritePlan<'_>, before: &'a [u64]) -> Wanted<'a> {
    Wanted {
        topic: &plan.common.topic,
        before,
        runs: write_plan.first_run..write_plan.first_run.wrapping_add(write_plan.load.producers),
        keyed: write_plan.load.keyed(),
        timeout: plan.common.timeout,
        quiet: plan.common.quiet,
    }
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

/// Creates the topic when it is missing.
fn topic(client: &Client, common: &Common) -> Result<Topic, String> {
    let metadata = see_to_topic(client, common)?;
    let topic = metadata.topic(&common.topic).ok_or("the broker's metadata does not have the topic; run again")?;
    if topic.partitions.is_empty() {
        return Err(format!("topic {} has no partitions yet; run again", common.topic));
    }
    let owners: BTreeSet<_> = topic.partitions.iter().map(|partition| (partition.leader_node, partition.leader_shard)).collect();
    Ok(Topic { partitions: topic.partitions.len() as u32, owners: owners.len() as u64 })
}

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

/// Settings of all consumers.
fn consumer_config(options: &Read) -> ConsumerConfig {
    ConsumerConfig { credit_bytes: options.credit_bytes as u32, verify_checksums: !options.no_verify, ..ConsumerConfig::default() }
}

/// What to read, and consumers that stand where reading begins: with a writer that has to be before the first record is written.
fn reading<'a>(client: &Client, plan: &Plan<'a>, topic: &Topic, window: Window, run: u64) -> Result<Vec<(ReadPlan<'a>, Consumer)>, Error> {
    let name = plan.common.topic.as_str();
    let mut readers = Vec::new();
    for _ in 0..plan.readers {
        let Some(options) = plan.read else { break };
        let mut consumer = client.consumer(consumer_config(options))?;
        consumer.assign_all(name, if plan.from == From::Earliest { Start::Earliest } else { Start::Latest })?;
        let ends =
            if plan.until_end { client.end_offsets(name)?.iter().map(|end| (end.partition, end.offset)).collect() } else { Vec::new() };
        let all_kept = (0..topic.partitions).all(|partition| consumer.position(name, partition) == Some(0));
        let read_plan = ReadPlan {
            topic: name,
            from_zero: plan.load.is_some() || (plan.from == From::Earliest && all_kept),
            ends,
            runs: plan.load.map(|load| run..run.wrapping_add(load.producers)),
            writing_threads: plan.load.map_or(0, |load| load.threads()),
            timed: plan.from == From::Latest,
            window,
            timeout: plan.common.timeout,
            keyed: plan.load.is_some_and(|load| load.keyed()),
        };
        readers.push((read_plan, consumer));
    }
    Ok(readers)
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
    done: Vec<Arc<Done>>,
    lates: Option<Lates>,
    consume: Option<Side>,
    seen: Vec<Seen>,
    series: Vec<Value>,
    warnings: Vec<String>,
    log_error: Option<String>,
    ended_ns: u64,
}

/// One side for each thread.
fn sides(count: u64) -> Vec<Mutex<Side>> {
    (0..count).map(|_| Mutex::new(Side::new())).collect()
}

impl Threads<'_> {
    fn run(
        &self,
        writing: Option<&WritePlan<'_>>,
        reading: Vec<(ReadPlan<'_>, Consumer)>,
        mut log: Option<Log<'_, LineWriter<File>>>,
    ) -> Ran {
        let common = self.plan.common;
        let writers = writing.map_or(0, |writing| writing.load.threads());
        let (produce, consume) = (sides(writers), sides(reading.len() as u64));
        let stop = AtomicBool::new(false);
        let (ended_sender, ended) = channel::<()>();
        let (told, tells): (Vec<_>, Vec<_>) = reading.iter().map(|_| channel::<Arc<Done>>()).unzip();
        let (written, seen, watched) = std::thread::scope(|scope| {
            let stop = &stop;
            let mut threads = 0..;
            let mut pinned = || threads.next().and_then(|thread| common.cpu_of(thread));
            let writers: Vec<_> = (0..writers)
                .zip(&produce)
                .filter_map(|(thread, side)| Some((thread, side, writing?)))
                .map(|(thread, side, writing)| {
                    let (ended, told, cpu) = (ended_sender.clone(), told.clone(), pinned());
                    scope.spawn(move || {
                        pin(cpu);
                        let mut desk = Desk::new(writing, self.clock, side, thread);
                        let first = |thread| writing.load.producers * thread / writing.load.threads();
                        let done = Arc::new(write(self.client, &mut desk, first(thread)..first(thread + 1), stop));
                        for reader in told {
                            // A reader that ended early does not listen any more.
                            let _ = reader.send(Arc::clone(&done));
                        }
                        end(&done.vanished, stop);
                        drop(ended);
                        (done, desk.lates)
                    })
                })
                .collect();
            drop(told);
            let readers: Vec<_> = reading
                .into_iter()
                .zip(&consume)
                .zip(tells)
                .map(|(((read_plan, consumer), side), tells)| {
                    let (ended, cpu) = (ended_sender.clone(), pinned());
                    scope.spawn(move || {
                        pin(cpu);
                        let seen = read(consumer, &read_plan, self.clock, side, stop, self.plan.load.map(|_| &tells));
                        end(&seen.vanished, stop);
                        drop(ended);
                        seen
                    })
                })
                .collect();
            drop(ended_sender);
            let watched = self.watch(&produce, &consume, log.as_mut(), &ended);
            (writers.into_iter().map(join).collect::<Vec<_>>(), readers.into_iter().map(join).collect::<Vec<_>>(), watched)
        });
        let ended_ns = seen.iter().map(|seen| seen.ended_ns).max().unwrap_or_else(|| self.clock.now_ns());
        let (done, lates): (Vec<Arc<Done>>, Vec<Lates>) = written.into_iter().unzip();
        let mut warnings = Vec::new();
        let busiest = (done.iter().map(|done| done.cpu_ns).max(), seen.iter().map(|seen| seen.cpu_ns).max());
        for (name, cpu_ns) in [("writing", busiest.0), ("reading", busiest.1)] {
            warnings.extend(cpu_ns.and_then(|cpu_ns| cpu_warning(name, cpu_ns, self.clock.now_ns(), common.busy_poll)));
        }
        let lates = lates.into_iter().reduce(|mut sum, lates| {
            sum.merge(&lates);
            sum
        });
        let mut sums = watched.sums.iter();
        let produce = merged(produce, if done.is_empty() { None } else { sums.next() });
        let consume = merged(consume, sums.next());
        Ran { produce, done, lates, consume, seen, series: watched.series, warnings, log_error: watched.log_error, ended_ns }
    }

    fn watch<'l, W: Write>(
        &self,
        produce: &[Mutex<Side>],
        consume: &[Mutex<Side>],
        log: Option<&mut Log<'l, W>>,
        ended: &Receiver<()>,
    ) -> crate::watch::Watched {
        let closed = self.plan.closed();
        let groups = [
            Group { name: "write", workers: produce, tags: tags(true, closed) },
            Group { name: "read", workers: consume, tags: tags(false, closed) },
        ];
        let groups = groups.into_iter().filter(|group| !group.workers.is_empty()).collect();
        let (phase, quiet) = (self.plan.phase(), self.plan.common.quiet);
        Watch { clock: self.clock, window: self.window, phase, quiet, groups, log }.run(ended)
    }
}

/// A side that ended early ends all.
fn end(vanished: &Option<String>, stop: &AtomicBool) {
    if vanished.is_some() {
        stop.store(true, Ordering::Relaxed);
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

/// Binds the calling thread to a core that the plan found to exist; a kernel that refuses it now leaves the thread free.
fn pin(cpu: Option<usize>) {
    if let Some(id) = cpu
        && !core_affinity::set_for_current(core_affinity::CoreId { id })
    {
        eprintln!("tramline-loadgen: the kernel refused to bind a thread to core {id}; going on unbound");
    }
}
