//! Jobs in a queue: producers, workers that fail and one that crashes, retries, priorities, and jobs that can never be done.
//!
//! ```text
//! cargo run --release -p tramline-client --example queue_jobs -- jobs
//! ```
//! Creates the topic and a queue of the same name where they do not exist. The broker is found through `TRAMLINE_SERVER` (default 127.0.0.1:7410). Ends with code 1 unless each job is done or dead.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tramline_client::{
    At, Attributes, Client, Config, ErrorCode, Message, ProducerConfig, QueueConsumer, QueueConsumerConfig, Record, Settle,
};

const JOBS: u64 = 300;
const PRODUCERS: u64 = 2;
const WORKERS: usize = 4;

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What the workers tell of their work.
#[derive(Default)]
struct Report {
    done: Mutex<BTreeSet<u64>>,
    deliveries: AtomicU64,
    failures: AtomicU64,
    late: AtomicU64,
    over: AtomicBool,
}

fn main() -> Fallible<()> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "jobs".to_string());
    let client = Client::connect(Config::from_env())?;
    client.create_topic(&name, 4, &[], true)?;
    // Short times, so that the example ends soon: a real queue gives its workers more.
    let settings = [("visibility.timeout.ms", "2000"), ("max.deliveries", "4"), ("retry.initial.ms", "20"), ("retry.max.ms", "100")];
    client.create_queue(&name, &name, At::Earliest, &settings, true)?;

    let report = Report::default();
    let failed = std::thread::scope(|scope| {
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|number| {
                scope.spawn({
                    let (client, name) = (&client, &name);
                    move || produce(client, name, number)
                })
            })
            .collect();
        let workers: Vec<_> = (0..WORKERS)
            .map(|number| {
                scope.spawn({
                    let (client, name, report) = (&client, &name, &report);
                    move || work(client, name, number, report)
                })
            })
            .collect();
        let mut results: Vec<Fallible<()>> = producers.into_iter().map(|thread| thread.join().expect("it does not panic")).collect();
        results.push(wait_until_idle(&client, &name));
        report.over.store(true, Ordering::Relaxed);
        results.extend(workers.into_iter().map(|thread| thread.join().expect("it does not panic")));
        results.into_iter().find_map(Result::err)
    });
    if let Some(error) = failed {
        return Err(error);
    }

    let done = report.done.lock().expect("no worker panicked").len() as u64;
    let dead: u64 = client.describe_queue(&name)?.partitions.iter().map(|partition| partition.dead).sum();
    println!("{JOBS} jobs sent: {done} done, {dead} dead");
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    println!(
        "{} deliveries, {} failures, {} acknowledged too late",
        count(&report.deliveries),
        count(&report.failures),
        count(&report.late)
    );
    if done + dead != JOBS {
        return Err("the numbers do not add up".into());
    }
    Ok(())
}

fn produce(client: &Client, topic: &str, producer_number: u64) -> Fallible<()> {
    let mut producer = client.producer(ProducerConfig::default())?;
    for job in (0..JOBS).filter(|job| job % PRODUCERS == producer_number) {
        let value = job.to_string();
        // Every tenth job is urgent. The key only spreads them over the partitions.
        let attributes = Attributes { priority: Some(if job % 10 == 0 { 9 } else { 1 }), ..Attributes::default() };
        producer.send(&Record { topic, key: Some(value.as_bytes()), value: Some(value.as_bytes()), attributes, ..Record::default() })?;
    }
    producer.flush(Duration::from_secs(30))?;
    let mut failed = None;
    producer.drain(|delivery| failed = delivery.error.cloned().or(failed.take()));
    failed.map_or(Ok(()), |error| Err(error.into()))
}

fn work(client: &Client, queue: &str, worker: usize, report: &Report) -> Fallible<()> {
    // Takes a few at once: all of them have to be done before their leases are over.
    let config = || QueueConsumerConfig { max_messages: 5, wait: Duration::from_millis(200), ..QueueConsumerConfig::default() };
    let mut consumer = client.queue_consumer(queue, config())?;
    let mut crashes = worker == 0;
    while !report.over.load(Ordering::Relaxed) {
        let messages = consumer.poll()?;
        report.deliveries.fetch_add(messages.len() as u64, Ordering::Relaxed);
        if crashes && !messages.is_empty() {
            // As a process that dies: nothing is settled, and the messages come back when their leases are over.
            crashes = false;
            consumer = client.queue_consumer(queue, config())?;
            continue;
        }
        let settlements: Vec<_> = messages.iter().map(|message| (message.token, run(message, report))).collect();
        settle(&mut consumer, &messages, &settlements, report)?;
    }
    consumer.close(Duration::from_secs(5))?;
    Ok(())
}

/// Does the job, or does not.
fn run(message: &Message, report: &Report) -> Settle {
    let fails = |reason: &str| {
        report.failures.fetch_add(1, Ordering::Relaxed);
        Settle::Nack { delay: None, reason: reason.to_string() }
    };
    match job(message) {
        None => Settle::Reject { reason: "not a number".to_string() },
        Some(job) if job % 25 == 0 => fails("this one can never be done"),
        Some(job) if job % 7 == 0 && message.deliveries == 1 => fails("not the first time"),
        Some(_) => Settle::Ack,
    }
}

fn job(message: &Message) -> Option<u64> {
    std::str::from_utf8(message.value.as_deref()?).ok()?.parse().ok()
}

/// One request per owner for all of them; each has its own result.
fn settle(
    consumer: &mut QueueConsumer,
    messages: &[Message],
    settlements: &[(tramline_client::LeaseToken, Settle)],
    report: &Report,
) -> Fallible<()> {
    let results = consumer.settle(settlements)?;
    for ((message, (_, settle)), result) in messages.iter().zip(settlements).zip(results) {
        match result {
            Ok(()) if *settle == Settle::Ack => {
                report.done.lock().expect("no worker panicked").extend(job(message));
            }
            Ok(()) => {}
            // Somebody else has it, or will have it.
            Err(error) if matches!(error.code(), Some(ErrorCode::LeaseExpired | ErrorCode::LeaseLost | ErrorCode::UnknownLease)) => {
                report.late.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Until nothing is left to deliver: all is settled, or dead.
fn wait_until_idle(client: &Client, queue: &str) -> Fallible<()> {
    for _ in 0..600 {
        let described = client.describe_queue(queue)?;
        let is_idle = |p: &tramline_client::QueuePartitionDescription| {
            p.error == ErrorCode::Ok && p.looked_to == p.committed_end && p.ready + p.leased + p.delayed == 0
        };
        if described.partitions.iter().all(is_idle) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err("jobs are left after a minute".into())
}
