//! The reading thread: takes records from the client's consumer, checks their stamps and times them.
//!
//! Invariants: end-to-end latency is arrival minus the intended time in the stamp; a record is timed when the client hands it
//! over. With a writer (`both`) reading ends when all that was acknowledged is here, or nothing more came for the time-out
//! after the writer's end; what is missing then is lost.
//! Not here: what a finding is (`check.rs`).

use crate::check::{Checker, Found};
use crate::clock::Clock;
use crate::crew::Done;
use crate::environment::thread_cpu_ns;
use crate::payload;
use crate::schedule::Window;
use crate::stats::Side;
use crate::write::lock;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tramline_client::{Consumer, Error};

/// Longest wait in a poll, so that ends are seen in time.
const POLL_MAX: Duration = Duration::from_millis(10);

/// What a reading thread is to do.
#[derive(Clone)]
pub struct ReadPlan<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Ends at which reading stops; empty: the time decides.
    pub ends: Vec<(u32, u64)>,
    /// The runs to look for; none: all.
    pub runs: Option<Range<u64>>,
    /// Writing threads that tell when they are done.
    pub writing_threads: u64,
    /// Whether the streams' first numbers must be zero.
    pub from_zero: bool,
    /// Whether arrival minus intended time means something (not when reading what was written long ago).
    pub timed: bool,
    /// Measured part.
    pub window: Window,
    /// Without any sign for so long, the server has vanished.
    pub timeout: Duration,
    /// Whether the streams of the writer are keys.
    pub keyed: bool,
}

/// What came of it, beside the counts.
#[derive(Debug, Default)]
pub struct Seen {
    /// What the check found.
    pub found: Found,
    /// Records before the ends of the plan that were not read.
    pub left: u64,
    /// Why it ended early.
    pub vanished: Option<String>,
    /// When it ended, nanoseconds of the run.
    pub ended_ns: u64,
    /// Time on a core.
    pub cpu_ns: u64,
}

/// Reads until the window's end (or the ends of the plan), or with a writer until all is here.
pub fn read(
    mut consumer: Consumer,
    plan: &ReadPlan<'_>,
    clock: Clock,
    side: &Mutex<Side>,
    stop: &AtomicBool,
    writers: Option<&Receiver<Arc<Done>>>,
) -> Seen {
    let cpu_before = thread_cpu_ns();
    let mut checker = Checker::new(plan.runs.clone(), plan.from_zero);
    let vanished = drive(&mut consumer, plan, clock, side, stop, writers, &mut checker).err();
    Seen {
        found: checker.found(),
        left: left(&plan.ends, |partition| consumer.position(plan.topic, partition)),
        vanished,
        ended_ns: clock.now_ns(),
        cpu_ns: thread_cpu_ns().zip(cpu_before).map_or(0, |(after, before)| after - before),
    }
}

fn drive(
    consumer: &mut Consumer,
    plan: &ReadPlan<'_>,
    clock: Clock,
    side: &Mutex<Side>,
    stop: &AtomicBool,
    writers: Option<&Receiver<Arc<Done>>>,
    checker: &mut Checker,
) -> Result<(), String> {
    let mut writers_left = plan.writing_threads;
    let mut ends = plan.ends.clone();
    let mut last_new_ns = clock.now_ns();
    loop {
        let now_ns = clock.now_ns();
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        if writers.is_none() && (now_ns >= plan.window.end_ns || at(consumer, plan.topic, &ends)) {
            return Ok(());
        }
        if writers.is_some() && writers_left == 0 {
            let silent_ns = now_ns.saturating_sub(last_new_ns);
            let all_here = checker.found().lost == 0 && at(consumer, plan.topic, &ends);
            if all_here || silent_ns >= plan.timeout.as_nanos() as u64 {
                return Ok(());
            }
        }
        while writers_left > 0
            && let Some(done) = writers.and_then(|channel| channel.try_recv().ok())
        {
            writers_left -= 1;
            last_new_ns = now_ns;
            expect(checker, plan.keyed, &done);
            if done.vanished.is_some() {
                return Ok(());
            }
            if writers_left == 0 {
                // To the end of the log, and not only until the last one is here: a duplicate would come behind it.
                let found = consumer.end_offsets().map_err(|error| format!("the server vanished: {error}"))?;
                ends = found.into_iter().map(|(_, partition, end)| (partition, end)).collect();
            }
        }
        match poll(consumer, plan, clock, side, checker) {
            Ok(0) => {}
            Ok(_) => last_new_ns = clock.now_ns(),
            Err(error) => {
                let mut side = lock(side);
                side.failed += 1;
                side.interval.errors += 1;
                side.count_error(&error.to_string());
                drop(side);
                // Silence is no trouble for a reader: perhaps nobody writes. The client tells a lost broker when it stays away for
                // the request's time, and a partition that cannot be read on: then the others are read to the end.
                let (Error::Partition { partition, .. } | Error::Corrupt { partition, .. }) = &error else {
                    return Err(format!("the server vanished: {error}"));
                };
                if !error.retriable() {
                    consumer.unassign(plan.topic, *partition);
                    if consumer.assigned().next().is_none() {
                        return Err(format!("no partition can be read any more: {error}"));
                    }
                }
            }
        }
    }
}

/// Tells the check what was written and what need not come.
pub fn expect(checker: &mut Checker, keyed: bool, done: &Done) {
    for written in &done.written {
        for &(stream, end) in &written.streams {
            checker.expect_end(written.run, keyed, stream, end);
        }
        for &(stream, sequence) in &written.excused {
            checker.excuse(written.run, keyed, stream, sequence);
        }
    }
}

fn poll(consumer: &mut Consumer, plan: &ReadPlan<'_>, clock: Clock, side: &Mutex<Side>, checker: &mut Checker) -> Result<usize, Error> {
    let mut guard = None;
    let mut now_ns = 0;
    let mut seen = 0u64;
    consumer.poll(POLL_MAX, |view| {
        let side: &mut Side = guard.get_or_insert_with(|| lock(side));
        // One clock reading (25 ns) per record where it is timed, otherwise one per 64.
        if plan.timed || seen.is_multiple_of(64) {
            now_ns = clock.now_ns();
        }
        seen += 1;
        let value = view.value.unwrap_or_default();
        let stamp = payload::read(value);
        side.records += 1;
        side.interval.records += 1;
        side.interval.bytes += value.len() as u64;
        let looked_for = checker.take(view.partition, stamp);
        if !looked_for && plan.runs.is_some() {
            return;
        }
        if plan.window.contains(now_ns) {
            side.done_records += 1;
            side.done_bytes += value.len() as u64;
        }
        if let (true, true, Ok(stamp)) = (plan.timed, looked_for, stamp) {
            let intended_ns = clock.run_ns(stamp.intended_utc_ns);
            let latency_ns = (now_ns as i64).saturating_sub(intended_ns).max(0) as u64;
            let measured = u64::try_from(intended_ns).is_ok_and(|at| plan.window.contains(at));
            side.interval.time(latency_ns, measured);
            if measured {
                side.measured_records += 1;
                side.last_done_ns = now_ns;
            }
        } else {
            side.last_done_ns = now_ns;
        }
    })
}

/// Whether all partitions that are still read have reached these ends; false without ends.
fn at(consumer: &Consumer, topic: &str, ends: &[(u32, u64)]) -> bool {
    !ends.is_empty() && ends.iter().all(|&(partition, end)| consumer.position(topic, partition).is_none_or(|position| position >= end))
}

/// Offsets between these positions and the ends; of a partition that is not read any more, none.
fn left(ends: &[(u32, u64)], position: impl Fn(u32) -> Option<u64>) -> u64 {
    ends.iter().map(|&(partition, end)| position(partition).map_or(0, |position| end.saturating_sub(position))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_before_the_ends_is_counted() {
        let position = |partition| [Some(5), Some(20), None].get(partition as usize).copied().flatten();
        assert_eq!(left(&[(0, 12), (1, 10), (2, 8)], position), 7, "past its end, or given up, is not left");
        assert_eq!(left(&[], position), 0);
    }
}
