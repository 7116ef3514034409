//! Producers, and members of one group that come and go: one crashes, another one joins, and every record is worked on at least once.
//!
//! ```text
//! cargo run --release -p tramline-client --example stream_group -- numbers
//! ```
//! The broker is found through `TRAMLINE_SERVER` (default 127.0.0.1:7410). The topic is created if it does not exist.

use std::collections::BTreeMap;
use std::error::Error;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tramline_client::{Client, Config, GroupConfig, GroupListener, ProducerConfig, Record, Revoked, TopicPartition};

const PARTITIONS: u32 = 8;
const PRODUCERS: u64 = 2;
const PER_PRODUCER: u64 = 5_000;
const ALL: usize = (PRODUCERS * PER_PRODUCER) as usize;
/// A crash is noticed after so long.
const SESSION: Duration = Duration::from_secs(2);
const WAIT: Duration = Duration::from_secs(10);

/// How often each number was worked on; how many were at all.
#[derive(Default)]
struct Work {
    done: Mutex<BTreeMap<u64, u32>>,
    distinct: AtomicUsize,
    /// Members that have had half of the partitions.
    sharing: AtomicUsize,
    over: AtomicBool,
}

impl Work {
    fn do_one(&self, number: u64) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let times = done.entry(number).or_default();
        *times += 1;
        if *times == 1 && self.distinct.fetch_add(1, Ordering::SeqCst) + 1 == ALL {
            self.over.store(true, Ordering::SeqCst);
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}

/// Says on standard error what comes and goes.
struct Name(&'static str);

impl GroupListener for Name {
    fn on_assigned(&mut self, partitions: &[TopicPartition]) {
        eprintln!("{}: {} more partitions", self.0, partitions.len());
    }
    fn on_revoked(&mut self, revoked: &mut Revoked<'_>) {
        eprintln!("{}: gives {} up", self.0, revoked.partitions().len());
    }
    fn on_lost(&mut self, partitions: &[TopicPartition]) {
        eprintln!("{}: has lost {}", self.0, partitions.len());
    }
}

fn produce(client: &Client, topic: &str, numbers: Range<u64>) -> Result<(), tramline_client::SendError> {
    let mut producer = client.producer(ProducerConfig::default())?;
    for number in numbers {
        let (key, value) = ((number % 100).to_le_bytes(), number.to_le_bytes());
        producer.send(&Record { topic, key: Some(&key), value: Some(&value), ..Record::default() })?;
    }
    Ok(producer.flush(WAIT)?)
}

/// A member that works until all is done, or dies without a word after so many records.
fn member(client: &Client, topic: &str, name: &'static str, work: &Work, dies_after: Option<usize>) -> Result<(), tramline_client::Error> {
    let config =
        GroupConfig { session_timeout: SESSION, auto_commit_interval: Duration::from_millis(100), ..GroupConfig::new("workers", &[topic]) };
    let mut member = client.group_consumer_with(config, Name(name))?;
    let (mut count, mut has_shared) = (0, false);
    while !work.is_over() {
        if !has_shared && member.assigned().len() == PARTITIONS as usize / 2 {
            has_shared = true;
            work.sharing.fetch_add(1, Ordering::SeqCst);
        }
        // What is worked on in here is committed after the next call of poll has begun, so a crash repeats it at worst.
        count += member.poll(Duration::from_millis(100), |record| {
            work.do_one(record.value.and_then(|value| value.try_into().ok()).map_or(u64::MAX, u64::from_le_bytes));
        })?;
        if dies_after.is_some_and(|limit| count >= limit) {
            eprintln!("{name}: crashes after {count} records");
            return Ok(()); // dropped, not closed
        }
    }
    member.close(WAIT)
}

/// Until so many members have had half of the partitions, or that will not be.
fn wait_for_shares(work: &Work, count: usize, is_in_vain: impl Fn() -> bool) {
    while work.sharing.load(Ordering::SeqCst) < count && !is_in_vain() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Each producer sends its numbers of a range; the first error.
fn produce_all(client: &Client, topic: &str, range: Range<u64>) -> Result<(), Box<dyn Error>> {
    std::thread::scope(|scope| {
        let of = |number: u64| number * PER_PRODUCER + range.start..number * PER_PRODUCER + range.end;
        let spawn = |numbers: Range<u64>| scope.spawn(move || produce(client, topic, numbers));
        let producers: Vec<_> = (0..PRODUCERS).map(|number| spawn(of(number))).collect();
        producers.into_iter().try_for_each(|producer| Ok(producer.join().map_err(|_| "a producer panicked")??))
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let topic = std::env::args().nth(1).unwrap_or_else(|| "numbers".to_string());
    let client = Client::connect(Config::from_env())?;
    client.create_topic(&topic, PARTITIONS, &[], true)?;
    let work = Work::default();
    let (client, topic, shared) = (&client, topic.as_str(), &work);
    std::thread::scope(|scope| -> Result<(), Box<dyn Error>> {
        let steady = scope.spawn(move || member(client, topic, "steady", shared, None));
        let crashing = scope.spawn(move || member(client, topic, "crashing", shared, Some(500)));
        // Whatever goes wrong, nobody works on for ever.
        let ended = (|| -> Result<(), Box<dyn Error>> {
            // Both have their share before there is work, so that both get some.
            wait_for_shares(shared, 2, || steady.is_finished() || crashing.is_finished());
            produce_all(client, topic, 0..PER_PRODUCER / 2)?;
            crashing.join().map_err(|_| "a member panicked")??;
            let late = scope.spawn(move || member(client, topic, "late", shared, None));
            // It gets what the one that crashed had, once the broker has noticed.
            wait_for_shares(shared, 3, || steady.is_finished() || late.is_finished());
            produce_all(client, topic, PER_PRODUCER / 2..PER_PRODUCER)?;
            late.join().map_err(|_| "a member panicked")??;
            Ok(())
        })();
        shared.over.store(true, Ordering::SeqCst);
        steady.join().map_err(|_| "a member panicked")??;
        ended
    })?;
    let done = work.done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let missing = (0..ALL as u64).filter(|number| !done.contains_key(number)).count();
    let again: u32 = done.values().map(|times| times - 1).sum();
    println!("{} of {ALL} records worked on, {missing} missing, {again} of them once more", done.len());
    Ok(())
}
