//! A run from beginning to end: connects, sees to the topic, prepares what the threads do, and puts the outcome together.
//!
//! Invariant: the clock of the run starts when all sides know what to do.
//! Not here: the threads (`threads.rs`).

use crate::args::{Common, From, Read};
use crate::arrivals::Shape;
use crate::asker::Asker;
use crate::check::Found;
use crate::churn::{ChurnPlan, Target};
use crate::clock::Clock;
use crate::cold::ColdPlan;
use crate::environment::environment;
use crate::files::OutputFile;
use crate::hlog::{LINE_BYTES_MAX, Log, remarks};
use crate::interrupt::Interrupt;
use crate::open_files;
use crate::plan::Plan;
use crate::read::ReadPlan;
use crate::report::{Outcome, Replayed};
use crate::schedule::Window;
use crate::threads::{Threads, Work};
use crate::verify::{self, Unverified, Wanted};
use crate::write::WritePlan;
use hdrhistogram::serialization::V2DeflateSerializer;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::LineWriter;
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tramline_client::{At, Client, Config, Consumer, ConsumerConfig, Error, ErrorCode, Metadata, PartitionMetadata, Start};

/// What the broker says of the topic.
struct Topic {
    partitions: u32,
    /// Shards of nodes that own its partitions: the connections of a producer.
    owners: u64,
}

/// Runs and gives the outcome, or the reason why it could not begin. `hlog` gets the interval log.
pub fn run(plan: &Plan<'_>, hlog: Option<OutputFile>, interrupt: &Interrupt) -> Result<Outcome, String> {
    let client = Client::connect(config(plan.common)).map_err(|error| error.to_string())?;
    let topic = topic(&client, plan.common)?;
    let run_number =
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64 ^ (u64::from(std::process::id()) << 48);
    let seed = plan.pacing().and_then(|pacing| pacing.seed).unwrap_or(run_number);
    let window = plan.window();
    let writing = writing(plan, &topic, window, run_number, seed);
    open_files::make_room((plan.load.map_or(0, |load| load.producers) + plan.readers + plan.cold) * topic.owners)?;
    let before = plan.verify.then(|| verify::ends(&client, &plan.common.topic)).transpose()?;
    let reading = reading(&client, plan, &topic, window, run_number).map_err(|error| error.to_string())?;
    let cold = cold(plan, window);
    let churning = churning(&client, plan, window, run_number, seed)?;
    let asker = Asker::new(plan.asks(), config(plan.common), &plan.common.topic, plan.common.timeout)?;
    let mut warnings = plan.early_warnings(topic.partitions);
    let mut log_file = hlog.map(OutputFile::begin).transpose()?.map(|file| LineWriter::with_capacity(LINE_BYTES_MAX, file));
    let mut serializer = V2DeflateSerializer::new();
    let clock = Clock::start();
    let log = match &mut log_file {
        Some(file) => Some(Log::begin(file, &mut serializer, clock.started(), &remarks(plan.mode, plan.closed()))),
        None => None,
    };
    let log = log.transpose().map_err(|cause| format!("the interval log cannot be begun: {cause}"))?;
    let threads = Threads { plan, client: &client, asker: asker.as_ref(), stop: interrupt.stop(), clock, window };
    let wanted = writing.as_ref().zip(before.as_deref()).map(|(writing, before)| wanted(plan, writing, before));
    let ran = threads.run(Work { writing, reading, cold, churning }, log);

    warnings.extend(ran.warnings);
    // Asked now: a signal during reading back ends that, and not the run.
    let vanished = interrupt.signal().map(|signal| format!("ended by {}", signal.name())).or(ran.vanished);
    let mut window = window;
    if vanished.is_some() || plan.mode == "consume" {
        // After a vanished server's last answer nothing was measured but the waiting for it; a signal ends the writing, and what was under
        // way is still answered.
        let last_ns =
            [&ran.produce, &ran.consume, &ran.replay, &ran.connect].into_iter().flatten().map(|side| side.last_done_ns).max().unwrap_or(0);
        let end_ns = if vanished.is_some() { last_ns } else { ran.ended_ns };
        window.end_ns = end_ns.clamp(window.from_ns, window.end_ns);
    }
    let mut parameters = plan.parameters(topic.partitions, topic.owners, run_number);
    parameters["started_unix_s"] = json!(clock.started_unix_s());
    let (mut found, mut unverified) = (None, None);
    if let (Some(wanted), None) = (&wanted, &vanished) {
        match verify::read_back(&client, wanted, &ran.done, interrupt) {
            Ok(all) => found = Some(all),
            Err(Unverified::Dropped(warning)) => warnings.push(warning),
            Err(Unverified::Failed(cause)) => unverified = Some(cause),
        }
    }
    let mut found = found.or_else(|| ran.seen.iter().map(|seen| seen.found).reduce(std::ops::Add::add));
    if let (Some(found), true) = (&mut found, vanished.is_some()) {
        // Readers did not wait for it.
        found.lost = 0;
    }
    Ok(Outcome {
        mode: plan.mode,
        parameters,
        environment: environment(plan.common.disk.as_deref()),
        // As text, since it does not fit the numbers of every reader of JSON.
        seeds: plan.pacing().map_or(Value::Null, |_| json!({"seed": seed.to_string()})),
        log_error: ran.log_error,
        asked_rate: plan.pacing().and_then(|pacing| pacing.rate),
        random_arrivals: plan.pacing().is_some_and(|pacing| pacing.shape() == Shape::Poisson),
        window,
        produce: ran.produce,
        unsent: ran.unsent,
        lates: ran.lates.filter(|_| !plan.closed()),
        consume: ran.consume,
        readers: ran.readers,
        replay: ran.replay.map(|side| Replayed {
            side,
            laps: ran.laps.iter().map(|laps| laps.count).sum(),
            found: ran.laps.iter().map(|laps| laps.found).fold(Found::default(), std::ops::Add::add),
        }),
        connect: ran.connect,
        found,
        left: ran.seen.iter().map(|seen| seen.left).sum(),
        unverified,
        series: ran.series,
        vanished,
        signal: interrupt.signal(),
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

/// What the cold readers are to do.
fn cold<'a>(plan: &Plan<'a>, window: Window) -> Option<ColdPlan<'a>> {
    let options = plan.read.filter(|_| plan.cold > 0)?;
    Some(ColdPlan { topic: &plan.common.topic, config: consumer_config(options), window })
}

/// Where connections go, and what they do there.
fn churning<'a>(client: &Client, plan: &Plan<'a>, window: Window, first_run: u64, seed: u64) -> Result<Option<ChurnPlan<'a>>, String> {
    let Some(churn) = plan.churn else { return Ok(None) };
    let told = |error: Error| error.to_string();
    let topic = plan.common.topic.as_str();
    let metadata = client.metadata(&[topic]).map_err(told)?;
    let partitions = metadata.topic(topic).map(|topic| topic.partitions.as_slice()).unwrap_or_default();
    let firsts = match churn.action {
        crate::args::Action::Fetch => {
            let asked: Vec<(u32, At)> = partitions.iter().map(|partition| (partition.index, At::Earliest)).collect();
            client.list_offsets(topic, &asked).map_err(told)?.into_iter().map(|first| first.offset).collect()
        }
        crate::args::Action::Produce => vec![0; partitions.len()],
    };
    let target = |(partition, first): (&PartitionMetadata, u64)| {
        let node = metadata.nodes.iter().find(|node| node.id == partition.leader_node);
        // The shard's own port where it has one; any shard of the node passes a request on.
        let address = node.map(|node| node.shard_address(partition.leader_shard).unwrap_or_else(|| node.address()));
        let address = address.ok_or_else(|| format!("the owner of partition {} is not in the metadata; run again", partition.index))?;
        Ok(Target { address, index: partition.index, uid: partition.uid, first })
    };
    let targets = partitions.iter().zip(firsts).map(target).collect::<Result<Vec<_>, String>>()?;
    Ok(Some(ChurnPlan { churn, targets, config: config(plan.common), seed, first_run, window }))
}

/// What has to be found when it is read back.
fn wanted<'a>(plan: &Plan<'a>, writing: &WritePlan<'_>, before: &'a [u64]) -> Wanted<'a> {
    Wanted {
        topic: &plan.common.topic,
        before,
        runs: runs(writing.first_run, writing.load.producers),
        keyed: writing.load.keyed(),
        timeout: plan.common.timeout,
        quiet: plan.common.quiet,
    }
}

/// Numbers of the runs of so many writers.
fn runs(first: u64, writers: u64) -> Range<u64> {
    first..first.wrapping_add(writers)
}

fn config(common: &Common) -> Config {
    Config {
        client_name: "tramline-loadgen".to_owned(),
        connect_timeout: common.timeout.min(Duration::from_secs(5)),
        request_timeout: common.timeout.min(Config::default().request_timeout),
        call_timeout: common.timeout,
        busy_poll: common.busy_poll,
        ..Config::new(&common.server)
    }
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
            runs: plan.load.map(|load| runs(run, load.producers)),
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
