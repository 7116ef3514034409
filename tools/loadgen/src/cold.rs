//! Cold readers (`replay`): each reads the topic from its beginning to its end as of then, and again, as fast as it can.
//!
//! Invariants: a lap ends where the topic ended when it began, so that it ends though writers go on; each lap is checked for itself, from the
//! first record that it sees (retention may have moved the beginning). Nothing is timed: how long a record lay there says nothing.
//! Not here: the reader at the tail, whose latency a replay must not disturb (`read.rs`).

use crate::check::{Checker, Found};
use crate::clock::Clock;
use crate::environment::thread_cpu_ns;
use crate::payload;
use crate::schedule::Window;
use crate::stats::Side;
use crate::write::lock;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tramline_client::{Client, Consumer, ConsumerConfig, Error, ErrorCode, Start};

/// Longest wait in a poll, so that the end is seen in time.
const POLL_MAX: Duration = Duration::from_millis(10);
/// Polls between two looks at whether the lap is over, which cost some 50 ns for each partition.
const POLLS_PER_LOOK: u32 = 16;

/// What a cold reader is to do.
pub struct ColdPlan<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Settings of the consumer.
    pub config: ConsumerConfig,
    /// Measured part; the reader ends with it.
    pub window: Window,
}

/// What came of it, beside the counts.
#[derive(Debug, Default)]
pub struct Laps {
    /// Whole laps.
    pub count: u64,
    /// What the checks found, of all laps.
    pub found: Found,
    /// Why it ended early.
    pub vanished: Option<String>,
    /// Time on a core.
    pub cpu_ns: u64,
}

/// Goes round until the window's end.
pub fn go_round(client: &Client, plan: &ColdPlan<'_>, clock: Clock, side: &Mutex<Side>, stop: &AtomicBool) -> Laps {
    let cpu_before = thread_cpu_ns();
    let mut laps = Laps::default();
    let mut reader = Reader { client, plan, clock, side, stop };
    laps.vanished = reader.drive(&mut laps).err().map(|error| format!("the server vanished: {error}"));
    laps.cpu_ns = thread_cpu_ns().zip(cpu_before).map_or(0, |(after, before)| after - before);
    laps
}

struct Reader<'a> {
    client: &'a Client,
    plan: &'a ColdPlan<'a>,
    clock: Clock,
    side: &'a Mutex<Side>,
    stop: &'a AtomicBool,
}

impl Reader<'_> {
    fn drive(&mut self, laps: &mut Laps) -> Result<(), Error> {
        let mut consumer = self.client.consumer(self.plan.config.clone())?;
        while !self.over() {
            let ends: Vec<(u32, u64)> =
                self.client.end_offsets(self.plan.topic)?.into_iter().map(|end| (end.partition, end.offset)).collect();
            // A seek, from the second time on.
            consumer.assign_all(self.plan.topic, Start::Earliest)?;
            let mut checker = Checker::new(None, false);
            let whole = self.lap(&mut consumer, &ends, &mut checker)?;
            laps.count += u64::from(whole && checker.found().received > 0);
            laps.found = laps.found + checker.found();
        }
        Ok(())
    }

    fn over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.clock.now_ns() >= self.plan.window.end_ns
    }

    /// Reads to the ends; false when the time was over before.
    fn lap(&mut self, consumer: &mut Consumer, ends: &[(u32, u64)], checker: &mut Checker) -> Result<bool, Error> {
        let mut polls = 0u32;
        loop {
            if self.over() {
                return Ok(false);
            }
            let count = match self.poll(consumer, checker) {
                Ok(count) => count,
                // Retention was faster than this reader: the next lap begins where the topic does now.
                Err(Error::Partition { source, .. }) if source.code() == Some(ErrorCode::OffsetOutOfRange) => return Ok(false),
                Err(error @ (Error::Partition { .. } | Error::Corrupt { .. })) => {
                    let mut side = lock(self.side);
                    side.failed += 1;
                    side.interval.errors += 1;
                    side.count_error(&error.to_string());
                    return Ok(false);
                }
                Err(error) => return Err(error),
            };
            polls += 1;
            let looks = count == 0 || polls.is_multiple_of(POLLS_PER_LOOK);
            if looks && ends.iter().all(|&(partition, end)| consumer.position(self.plan.topic, partition).is_none_or(|at| at >= end)) {
                return Ok(true);
            }
        }
    }

    fn poll(&self, consumer: &mut Consumer, checker: &mut Checker) -> Result<usize, Error> {
        let now_ns = self.clock.now_ns();
        let in_window = self.plan.window.contains(now_ns);
        let (mut records, mut bytes) = (0, 0);
        let polled = consumer.poll(POLL_MAX, |view| {
            let value = view.value.unwrap_or_default();
            checker.take(view.partition, payload::read(value));
            records += 1;
            bytes += value.len() as u64;
        });
        if records > 0 {
            let mut side = lock(self.side);
            side.records += records;
            side.interval.records += records;
            side.interval.bytes += bytes;
            if in_window {
                side.done_records += records;
                side.done_bytes += bytes;
                side.last_done_ns = now_ns;
            }
        }
        polled
    }
}
