//! The threads of a run: writers, readers at the tail, cold readers, connections that come and go; pinned, watched, joined.
//!
//! Invariants: a side that ends early ends the others; each reader is told by each writing thread what was written; all threads are joined
//! before anything is reported. The calling thread only waits and prints, so it measures nothing and disturbs little.
//! Not here: what is prepared for them and what is made of it (`run.rs`).

use crate::asker::Asker;
use crate::churn::{ChurnPlan, Churned, churn};
use crate::clock::Clock;
use crate::cold::{ColdPlan, Laps, go_round};
use crate::crew::{Done, write};
use crate::environment::cpu_warning;
use crate::hlog::Log;
use crate::lateness::Lates;
use crate::plan::Plan;
use crate::read::{ReadPlan, Seen, read};
use crate::report::Kept;
use crate::schedule::Window;
use crate::stats::{CONNECT, Interval, SERVICE, Side};
use crate::tell::tell;
use crate::watch::{Group, Watch, Watched, tags};
use crate::write::{Desk, WritePlan, lock};
use serde_json::Value;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use tramline_client::{Client, Consumer};

/// What the threads are to do.
pub struct Work<'a> {
    /// The writers.
    pub writing: Option<WritePlan<'a>>,
    /// The readers at the tail.
    pub reading: Vec<(ReadPlan<'a>, Consumer)>,
    /// The cold readers.
    pub cold: Option<ColdPlan<'a>>,
    /// Connections.
    pub churning: Option<ChurnPlan<'a>>,
}

/// Who starts them.
pub struct Threads<'a> {
    /// The options.
    pub plan: &'a Plan<'a>,
    /// For producers and cold readers.
    pub client: &'a Client,
    /// Asks the server where the threads' own answers would not show that it is gone.
    pub asker: Option<&'a Asker<'a>>,
    /// Set when the run has to end.
    pub stop: &'a AtomicBool,
    /// The clock of the run.
    pub clock: Clock,
    /// The measured part.
    pub window: Window,
}

/// What they brought.
pub struct Ran {
    /// The writing side.
    pub produce: Option<Side>,
    /// Of each writing thread.
    pub done: Vec<Arc<Done>>,
    /// How late records or connections were.
    pub lates: Option<Lates>,
    /// The readers at the tail together.
    pub consume: Option<Side>,
    /// What each of them kept up with.
    pub readers: Vec<Kept>,
    /// Of each of them.
    pub seen: Vec<Seen>,
    /// The cold readers together.
    pub replay: Option<Side>,
    /// Of each of them.
    pub laps: Vec<Laps>,
    /// The connections.
    pub connect: Option<Side>,
    /// Records or connections due and never sent.
    pub unsent: u64,
    /// Why one of them ended early.
    pub vanished: Option<String>,
    /// A line per second.
    pub series: Vec<Value>,
    /// What makes the numbers doubtful.
    pub warnings: Vec<String>,
    /// Why the interval log is not complete.
    pub log_error: Option<String>,
    /// When reading ended.
    pub ended_ns: u64,
}

/// The workers of all sides, one each for a thread.
struct Sides {
    produce: Vec<Mutex<Side>>,
    consume: Vec<Mutex<Side>>,
    replay: Vec<Mutex<Side>>,
    connect: Vec<Mutex<Side>>,
}

fn sides(count: u64) -> Vec<Mutex<Side>> {
    (0..count).map(|_| Mutex::new(Side::new())).collect()
}

impl Threads<'_> {
    /// Runs them to their end.
    pub fn run<W: Write>(&self, work: Work<'_>, mut log: Option<Log<'_, W>>) -> Ran {
        let Work { writing, reading, cold, churning } = work;
        let sides = Sides {
            produce: sides(writing.as_ref().map_or(0, |writing| writing.load.threads())),
            consume: sides(reading.len() as u64),
            replay: sides(cold.as_ref().map_or(0, |_| self.plan.cold)),
            connect: sides(churning.as_ref().map_or(0, |churning| churning.churn.threads)),
        };
        let (common, has_writers) = (self.plan.common, writing.is_some());
        let stop = self.stop;
        let (ended_sender, ended) = channel::<()>();
        let (told, tells): (Vec<_>, Vec<_>) = reading.iter().map(|_| channel::<Arc<Done>>()).unzip();
        let ((written, seen, laps, churned, watched), gone) = std::thread::scope(|scope| {
            let (over, running) = channel::<()>();
            let asking = self.asker.map(|asker| {
                let read = || sides.consume.iter().map(|side| lock(side).records).sum();
                scope.spawn(move || asker.watch(self.clock, read, stop, &running))
            });
            let mut threads = 0..;
            // Each thread holds the other end of `ended`, so that the watch ends with the last one.
            let mut next = || (ended_sender.clone(), threads.next().and_then(|thread| common.cpu_of(thread)));
            let writers = writing.iter().flat_map(|writing| (0..).zip(&sides.produce).map(move |worker| (writing, worker)));
            let writers: Vec<_> = writers
                .map(|(writing, (thread, side))| {
                    let ((ended, cpu), told) = (next(), told.clone());
                    scope.spawn(move || {
                        pin(cpu);
                        let mut desk = Desk::new(writing, self.clock, side, thread);
                        let first = |thread| writing.load.producers * thread / writing.load.threads();
                        let done = Arc::new(write(self.client, &mut desk, first(thread)..first(thread + 1), stop));
                        for reader in told {
                            // A reader that ended early does not listen any more.
                            let _ = reader.send(Arc::clone(&done));
                        }
                        end(&done.vanished, stop, ended);
                        (done, desk.lates)
                    })
                })
                .collect();
            drop(told);
            let readers: Vec<_> = (reading.into_iter().zip(&sides.consume).zip(tells))
                .map(|(((plan, consumer), side), tells)| {
                    let (ended, cpu) = next();
                    scope.spawn(move || {
                        pin(cpu);
                        let seen = read(consumer, &plan, self.clock, side, stop, has_writers.then_some(&tells));
                        end(&seen.vanished, stop, ended);
                        seen
                    })
                })
                .collect();
            let cold = cold.iter().flat_map(|plan| sides.replay.iter().map(move |side| (plan, side)));
            let cold: Vec<_> = cold
                .map(|(plan, side)| {
                    let (ended, cpu) = next();
                    scope.spawn(move || {
                        pin(cpu);
                        let laps = go_round(self.client, plan, self.clock, side, stop);
                        end(&laps.vanished, stop, ended);
                        laps
                    })
                })
                .collect();
            let churning = churning.iter().flat_map(|plan| (0..).zip(&sides.connect).map(move |worker| (plan, worker)));
            let churning: Vec<_> = churning
                .map(|(plan, (thread, side))| {
                    let (ended, cpu) = next();
                    scope.spawn(move || {
                        pin(cpu);
                        let churned = churn(plan, self.clock, side, thread, stop);
                        end(&churned.vanished, stop, ended);
                        churned
                    })
                })
                .collect();
            drop(ended_sender);
            let watched = self.watch(&sides, log.as_mut(), &ended);
            drop(over);
            let gone = joined(asking.into_iter().collect()).into_iter().flatten().next();
            ((joined(writers), joined(readers), joined(cold), joined(churning), watched), gone)
        });
        let ran = self.gather(sides, written, seen, laps, churned, watched);
        Ran { vanished: ran.vanished.or(gone), ..ran }
    }

    fn gather(
        &self,
        sides: Sides,
        written: Vec<(Arc<Done>, Lates)>,
        seen: Vec<Seen>,
        laps: Vec<Laps>,
        churned: Vec<Churned>,
        watched: Watched,
    ) -> Ran {
        let (done, mut lates): (Vec<Arc<Done>>, Vec<Lates>) = written.into_iter().unzip();
        let mut unsent: u64 = done.iter().flat_map(|done| &done.written).map(|written| written.unsent).sum();
        let mut vanished = done.iter().find_map(|done| done.vanished.clone());
        vanished = vanished.or_else(|| seen.iter().find_map(|seen| seen.vanished.clone()));
        vanished = vanished.or_else(|| laps.iter().find_map(|laps| laps.vanished.clone()));
        for churned in churned {
            lates.push(churned.lates);
            unsent += churned.unsent;
            vanished = vanished.or(churned.vanished);
        }
        let mut warnings = Vec::new();
        let busiest = [
            ("writing", done.iter().map(|done| done.cpu_ns).max()),
            ("reading", seen.iter().map(|seen| seen.cpu_ns).max()),
            ("cold reading", laps.iter().map(|laps| laps.cpu_ns).max()),
        ];
        for (name, cpu_ns) in busiest {
            warnings.extend(cpu_ns.and_then(|cpu_ns| cpu_warning(name, cpu_ns, self.clock.now_ns(), self.plan.common.busy_poll)));
        }
        let lates = lates.into_iter().reduce(|mut sum, lates| {
            sum.merge(&lates);
            sum
        });
        let mut sums = watched.sums.iter();
        Ran {
            produce: merged(sides.produce, &mut sums),
            readers: sides.consume.iter().map(|side| Kept::of(&lock(side))).collect(),
            consume: merged(sides.consume, &mut sums),
            replay: merged(sides.replay, &mut sums),
            connect: merged(sides.connect, &mut sums),
            done,
            lates,
            ended_ns: seen.iter().map(|seen| seen.ended_ns).max().unwrap_or_else(|| self.clock.now_ns()),
            seen,
            laps,
            unsent,
            vanished,
            series: watched.series,
            warnings,
            log_error: watched.log_error,
        }
    }

    fn watch<'l, W: Write>(&self, sides: &Sides, log: Option<&mut Log<'l, W>>, ended: &Receiver<()>) -> Watched {
        let closed = self.plan.closed();
        // In the order in which `gather` takes their sums.
        let groups = [
            Group { name: "write", workers: &sides.produce, tags: tags(true, closed) },
            Group { name: "read", workers: &sides.consume, tags: tags(false, closed) },
            Group { name: "replay", workers: &sides.replay, tags: &[] },
            Group { name: "connect", workers: &sides.connect, tags: &[CONNECT, SERVICE] },
        ];
        let groups = groups.into_iter().filter(|group| !group.workers.is_empty()).collect();
        let (phase, quiet) = (self.plan.phase(), self.plan.common.quiet);
        Watch { clock: self.clock, window: self.window, phase, quiet, groups, log }.run(ended)
    }
}

/// A thread is through; one that ended early ends all.
fn end(vanished: &Option<String>, stop: &AtomicBool, ended: std::sync::mpsc::Sender<()>) {
    if vanished.is_some() {
        stop.store(true, Ordering::Relaxed);
    }
    drop(ended);
}

/// The workers of one side as one, with the times of its seconds, which are the next sum; none when there were none.
fn merged<'s>(sides: Vec<Mutex<Side>>, sums: &mut impl Iterator<Item = &'s Interval>) -> Option<Side> {
    let mut sides = sides.into_iter().map(|side| side.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner));
    let mut first = sides.next()?;
    for side in sides {
        first.merge(&side);
    }
    if let Some(seconds) = sums.next() {
        first.add_seconds(seconds);
    }
    Some(first)
}

fn joined<T>(threads: Vec<std::thread::ScopedJoinHandle<'_, T>>) -> Vec<T> {
    threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
}

/// Binds the calling thread to a core that the plan found to exist; a kernel that refuses it now leaves the thread free.
fn pin(cpu: Option<usize>) {
    if let Some(id) = cpu
        && !core_affinity::set_for_current(core_affinity::CoreId { id })
    {
        tell(format_args!("the kernel refused to bind a thread to core {id}; going on unbound"));
    }
}
