//! How far apart two processors are: the time of one cache line's way to the other and back.
//!
//! A virtual machine's processors are moved by its host: now two cores share a cache, now they do not. Seen here: 60 or 350 ns, changing within
//! seconds, and with it a TCP stream of 5.2 or 1.9 GB/s. What is compared has to be measured at the same distance.
//!
//! Not here: which runs are thrown away for it (`runs.rs`).

use crate::error::BenchError;
use core_affinity::CoreId;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time of one look. A look can be interrupted, so the best of `LOOKS` counts.
const LOOK: Duration = Duration::from_micros(100);
const LOOKS: u32 = 5;
/// Time between two looks during a run: each takes under a millisecond of both processors. Where a 99th percentile is what counts nobody looks
/// during the run: one look a second was the slowest hundredth (16 ms in a trace, as long as the two sides did not wait for each other first).
pub const BETWEEN: Duration = Duration::from_millis(100);
/// What takes longer says how long a thread waited for its turn, not how far it is.
const FAR_NS_MAX: f64 = 2000.0;
/// The other side has left, or never came.
const OVER: u32 = u32::MAX;
/// How long the other side may take to come: both processors may have something else to do.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks again and again, from its making until `end`: the host moves processors also while both are busy, and back when one of them rests.
#[derive(Debug)]
pub struct Looks {
    stop: Sender<()>,
    thread: JoinHandle<Result<Vec<f64>, BenchError>>,
}

/// One look; nothing where it was held up.
pub fn look(cpus: [usize; 2]) -> Result<Option<f64>, BenchError> {
    Ok(Some(round_trip_ns(cpus)?).filter(|ns| *ns < FAR_NS_MAX))
}

impl Looks {
    /// Begins with a look, and looks again after each `between`.
    pub fn begin(cpus: [usize; 2], between: Duration) -> Looks {
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let mut seen = Vec::new();
            loop {
                seen.extend(look(cpus)?);
                if stopped.recv_timeout(between) != Err(RecvTimeoutError::Timeout) {
                    return Ok(seen);
                }
            }
        });
        Looks { stop, thread }
    }

    /// All that were seen, in order; those that were held up are left out.
    pub fn end(self) -> Result<Vec<f64>, BenchError> {
        // A thread that has ended has its reason to tell.
        let _ = self.stop.send(());
        self.thread.join().map_err(|_| BenchError::Wrong("the thread that looks at the processors' distance panicked".to_owned()))?
    }
}

/// Nanoseconds for one way there and back between `cpus`, at best of five looks of 0.1 ms. The threads that look go before others, where this
/// process may ask for that: they would wait for milliseconds behind one that spins.
pub fn round_trip_ns(cpus: [usize; 2]) -> Result<f64, BenchError> {
    let line = AtomicU32::new(0);
    // Neither spins before both are where they belong: a thread that was born on the other one's processor waited 16 ms behind its spinning.
    let both = Barrier::new(2);
    std::thread::scope(|scope| {
        let far = scope.spawn(|| pinned(cpus[1], &both, || answer(&line)));
        let near = scope.spawn(|| pinned(cpus[0], &both, || ask(&line))).join();
        // Whatever became of this side, the other one shall not wait for it.
        line.store(OVER, Ordering::Release);
        let far = far.join();
        let panicked = || BenchError::Wrong("a thread that measures the processors' distance panicked".to_owned());
        let near = near.map_err(|_| panicked())??;
        far.map_err(|_| panicked())??;
        near.ok_or_else(|| BenchError::Wrong(format!("CPU {} did not answer CPU {} within {PATIENCE:?}", cpus[1], cpus[0])))
    })
}

fn pinned<T>(cpu: usize, both: &Barrier, run: impl FnOnce() -> T) -> Result<T, BenchError> {
    // Without the right to it they wait a little longer.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), -20);
    let is_there = core_affinity::set_for_current(CoreId { id: cpu });
    both.wait();
    if is_there { Ok(run()) } else { Err(BenchError::Wrong(format!("cannot run on CPU {cpu}"))) }
}

/// Stores odd numbers, waits for the next even one. `None`: nobody answers.
fn ask(line: &AtomicU32) -> Option<f64> {
    let mut number = 0;
    let mut best = f64::MAX;
    for look in 0..=LOOKS {
        let (began, first) = (Instant::now(), number);
        while began.elapsed() < LOOK {
            line.store(number + 1, Ordering::Release);
            while line.load(Ordering::Acquire) != number + 2 {
                std::hint::spin_loop();
                // Once it has come it answers: asking for the time at each look would be part of what is measured.
                if number == 0 && began.elapsed() > PATIENCE {
                    return None;
                }
            }
            number += 2;
        }
        // The first one counts the other side's coming.
        if look > 0 {
            best = best.min(began.elapsed().as_nanos() as f64 / f64::from((number - first) / 2));
        }
    }
    Some(best)
}

fn answer(line: &AtomicU32) {
    loop {
        match line.load(Ordering::Acquire) {
            OVER => return,
            odd if odd % 2 == 1 => line.store(odd + 1, Ordering::Release),
            _ => std::hint::spin_loop(),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_processors_answer_each_other() {
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let &[first, second, ..] = cores.as_slice() else {
            eprintln!("NOT RUN: two_processors_answer_each_other: there is only one");
            return;
        };
        let seen = super::round_trip_ns([first.id, second.id]).unwrap();
        // A round trip takes longer than a few cycles, and less than a scheduler's turn.
        assert!((5.0..10_000_000.0).contains(&seen), "{seen} ns");
        assert!(super::round_trip_ns([first.id, 1023]).is_err(), "there are not that many");
    }
}
