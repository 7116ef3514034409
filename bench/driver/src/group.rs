//! Whether members of a large consumer group read on while another one joins.
//!
//! Invariants: a record's time begins when it was due to be sent, so that a producer that stands still shows; looked at are the partitions that stay with their member, and each
//! of them has to have had records meanwhile; the group is whole before and after.
//!
//! All members share one thread and one core, so their round is part of what is measured.

use crate::batches::now_us;
use crate::error::BenchError;
use crate::measures::Measure;
use crate::runs::{Pair, Runs};
use crate::target;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tramline_client::{Client, Config, GroupConfig, GroupConsumer, ProducerConfig, Record};

const TOPIC: &str = "shared";
const MEMBERS: usize = 100;
const PARTITIONS: u32 = 1000;
/// Members have to beat three times as often.
const SESSION: Duration = Duration::from_secs(3);
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Records due per second, over all partitions in turn: five in each.
const RATE: u32 = 5 * PARTITIONS;
/// How long the load runs before it is looked at, and before the join: each member has committed by itself once (5 s).
const WARM_UP: Duration = Duration::from_secs(2);
const USUAL: Duration = Duration::from_secs(6);
/// How long a group may take to be whole.
const PATIENCE: Duration = Duration::from_secs(60);
/// A join each; every run starts a broker and a hundred members.
const RUNS: u32 = 3;

impl Runs {
    /// The longest time from when a record was due until it was handed out, in milliseconds, in partitions that stay where they are.
    pub fn group_join_pause(&mut self, measure: Measure) -> Result<Vec<Pair>, BenchError> {
        let run = |runs: &mut Runs| {
            let broker = runs.own.start("group", &[])?;
            target::create(&broker.address, TOPIC, PARTITIONS, &[])?;
            let pause = longest_pause(&broker.address)?;
            broker.kill()?;
            runs.own.remove("group")?;
            Ok((pause.as_secs_f64() * 1000.0, HEARTBEAT.as_secs_f64() * 1000.0))
        };
        (0..self.pairs.min(RUNS)).map(|_| self.beside_a_constant(measure, run)).collect()
    }
}

/// All members, and how late records came to each partition since the last look.
struct Group {
    client: Client,
    members: Vec<GroupConsumer>,
    late: Vec<Option<Duration>>,
}

impl Group {
    fn join(&mut self) -> Result<(), BenchError> {
        let config = GroupConfig { session_timeout: SESSION, ..GroupConfig::new("members", &[TOPIC]) };
        self.members.push(self.client.group_consumer(config)?);
        Ok(())
    }

    /// One round over all members.
    fn poll(&mut self) -> Result<(), BenchError> {
        let late = &mut self.late;
        let mut count = 0;
        for member in &mut self.members {
            count += member.poll(Duration::ZERO, |record| {
                let delay = Duration::from_micros(now_us().saturating_sub(record.timestamp_us).max(0) as u64);
                let worst = &mut late[record.partition as usize];
                *worst = Some(worst.map_or(delay, |worst| worst.max(delay)));
            })?;
        }
        if count == 0 {
            // The producer has the same core.
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn poll_for(&mut self, time: Duration) -> Result<(), BenchError> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.poll()?;
        }
        Ok(())
    }

    fn owned(&self) -> Vec<BTreeSet<u32>> {
        self.members.iter().map(|member| member.assigned().into_iter().map(|part| part.partition).collect()).collect()
    }

    /// Whether everybody has his share, and all partitions are somebody's.
    fn is_whole(&self) -> bool {
        let (owned, share) = (self.owned(), PARTITIONS as usize / self.members.len());
        owned.iter().all(|own| (share..=share + 1).contains(&own.len()))
            && owned.iter().flatten().collect::<BTreeSet<_>>().len() == PARTITIONS as usize
    }

    /// Polls until the group is whole; how long that took.
    fn settle(&mut self) -> Result<Duration, BenchError> {
        let start = Instant::now();
        while !self.is_whole() {
            if start.elapsed() > PATIENCE {
                return Err(BenchError::Silent("waiting until each member of the group has its share"));
            }
            self.poll()?;
        }
        Ok(start.elapsed())
    }
}

fn longest_pause(address: &str) -> Result<Duration, BenchError> {
    let client = Client::connect(Config::new(address))?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut group = Group { client, members: Vec::new(), late: vec![None; PARTITIONS as usize] };
        for _ in 0..MEMBERS {
            group.join()?;
        }
        let together = group.settle()?;
        let producer = scope.spawn(|| produce(address, &stop));
        let pause = while_one_joins(&mut group, together);
        stop.store(true, Ordering::Relaxed);
        producer.join().map_err(|_| BenchError::Wrong("the producer panicked".to_owned()))??;
        pause
    })
}

fn while_one_joins(group: &mut Group, together: Duration) -> Result<Duration, BenchError> {
    group.poll_for(WARM_UP)?;
    group.late.fill(None);
    group.poll_for(USUAL)?;
    let usual = group.late.iter().flatten().max().copied().unwrap_or_default();
    group.late.fill(None);
    let before = group.owned();
    group.join()?;
    let joined = group.settle()?;
    // What was held up by it comes within the next heartbeat, or is later than allowed.
    group.poll_for(2 * HEARTBEAT)?;
    let after = group.owned();
    let kept: Vec<u32> = before.iter().zip(&after).flat_map(|(before, after)| before.intersection(after)).copied().collect();
    let late: Option<Vec<Duration>> = kept.iter().map(|partition| group.late[*partition as usize]).collect();
    let longest = late.and_then(|late| late.into_iter().max());
    let longest = longest.ok_or_else(|| BenchError::Wrong("a partition that stayed with its member had no record".to_owned()))?;
    eprintln!(
        "tramline-bench:   {MEMBERS} members whole after {together:.1?}, one more after {joined:.1?}; {} of {PARTITIONS} partitions stayed, \
         there {longest:.1?} late at most, {usual:.1?} before",
        kept.len()
    );
    Ok(longest)
}

/// Sends records to all partitions in turn when they are due, until it is told to stop.
fn produce(address: &str, stop: &AtomicBool) -> Result<(), BenchError> {
    let client = Client::connect(Config::new(address))?;
    let mut producer = client.producer(ProducerConfig::default())?;
    let (start, start_us) = (Instant::now(), now_us());
    let mut sent = 0u32;
    let mut failed = None;
    while !stop.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_secs_f64() * f64::from(RATE)) as u32;
        while sent < due {
            let due_us = start_us + i64::from(sent) * 1_000_000 / i64::from(RATE);
            let record = Record {
                topic: TOPIC,
                partition: Some(sent % PARTITIONS),
                value: Some(&[7; 100]),
                timestamp_us: Some(due_us),
                ..Record::default()
            };
            producer.send(&record).map_err(|error| BenchError::Wrong(error.to_string()))?;
            sent += 1;
        }
        producer.poll(Duration::from_millis(1))?;
        producer.drain(|delivery| failed = failed.take().or_else(|| delivery.error.cloned()));
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}
