//! Whether every shard's loop moves: each tells when it was there last, and by when it will be there again; the housekeeping thread compares, and says where a
//! thread stands that is late.
//!
//! Invariants: telling costs a shard one store per cycle; a shard that sleeps without an end is never late, nor is one whose whole process was halted.
//!
//! Not here: cycles that are merely long (`tramline_shard_stalls_total`), whether a shard answers (`/readyz`).

use super::clock::Clock;
use crate::ids::ShardId;
use std::fmt;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

/// A shard that is late by so much stands still. Longer than a disk takes that is worth its name, shorter than what makes others elect.
const LATE_US: u64 = 2_000_000;

/// What the loop of a shard tells.
#[derive(Debug)]
struct Pulse {
    /// When the shard is to be here again; never before the loop begins and after it has ended.
    due_us: AtomicU64,
    is_asleep: AtomicBool,
    /// How often it went to sleep.
    sleeps: AtomicU64,
    /// The shard's thread; 0 before it runs.
    thread: AtomicI32,
}

/// The pulses of a node's shards.
#[derive(Debug)]
pub(super) struct Pulses {
    clock: Clock,
    shards: Box<[Pulse]>,
}

impl Pulses {
    pub(super) fn new(clock: Clock, shards: u16) -> Arc<Pulses> {
        let pulse = || Pulse {
            due_us: AtomicU64::new(u64::MAX),
            is_asleep: AtomicBool::new(false),
            sleeps: AtomicU64::new(0),
            thread: AtomicI32::new(0),
        };
        Arc::new(Pulses { clock, shards: (0..shards).map(|_| pulse()).collect() })
    }

    /// The calling thread is the shard's.
    pub(super) fn begin(&self, shard: ShardId) {
        self.pulse(shard).thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Relaxed);
    }

    /// The shard is at work.
    pub(super) fn beat(&self, shard: ShardId, now_us: u64) {
        self.pulse(shard).due_us.store(now_us, Ordering::Relaxed);
    }

    /// The shard sleeps until `until_us`, or something wakes it.
    pub(super) fn sleeps(&self, shard: ShardId, until_us: u64) {
        let pulse = self.pulse(shard);
        // Nobody else counts.
        pulse.sleeps.store(pulse.sleeps.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        pulse.is_asleep.store(true, Ordering::Relaxed);
        pulse.due_us.store(until_us, Ordering::Relaxed);
    }

    /// The shard is awake again.
    pub(super) fn wakes(&self, shard: ShardId) {
        self.pulse(shard).is_asleep.store(false, Ordering::Relaxed);
    }

    /// Which sleep all shards are in, while they are: the same answer later says that none of them woke in between.
    pub(super) fn rest(&self) -> Option<u64> {
        let sleeps = |pulse: &Pulse| pulse.is_asleep.load(Ordering::Relaxed).then(|| pulse.sleeps.load(Ordering::Relaxed));
        self.shards.iter().map(sleeps).sum()
    }

    /// The loop has ended.
    pub(super) fn end(&self, shard: ShardId) {
        self.pulse(shard).due_us.store(u64::MAX, Ordering::Relaxed);
    }

    fn pulse(&self, shard: ShardId) -> &Pulse {
        &self.shards[usize::from(shard.0)]
    }
}

/// A shard that stands still.
#[derive(Debug, PartialEq, Eq)]
struct Late {
    shard: ShardId,
    late_us: u64,
    is_asleep: bool,
    thread: i32,
}

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doing = if self.is_asleep { "it sleeps and was not woken" } else { "it is at work" };
        write!(f, "shard {} has not moved for {:.1} s: {doing}", self.shard, self.late_us as f64 / 1e6)
    }
}

/// The housekeeping thread's side.
pub(super) struct Watch {
    pulses: Arc<Pulses>,
    /// By shard: how late it was when that was said last; 0 while it moves.
    said_us: Vec<u64>,
    /// When it looked last; 0 before.
    looked_us: u64,
}

impl Watch {
    pub(super) fn new(pulses: Arc<Pulses>) -> Watch {
        let said_us = vec![0; pulses.shards.len()];
        Watch { pulses, said_us, looked_us: 0 }
    }

    /// Once a second: looks at every shard and says which ones stand still, each at the double of the time before, and that it moves again.
    pub(super) fn look(&mut self) {
        for late in self.newly_late(self.pulses.clock.now().mono_us) {
            match late {
                Ok(late) => tracing::error!("{late}; {}", Stand::of(late.thread)),
                Err(shard) => tracing::warn!("shard {shard} moves again"),
            }
        }
    }

    /// Those that are to be told as late, and those that were and are not any more.
    fn newly_late(&mut self, now_us: u64) -> Vec<Result<Late, ShardId>> {
        let mut news = Vec::new();
        // The whole process stood still, or this thread: what the shards told is as old as the last look.
        let was_away = self.looked_us > 0 && now_us.saturating_sub(self.looked_us) >= LATE_US;
        self.looked_us = now_us;
        if was_away {
            return news;
        }
        for ((pulse, said_us), shard) in self.pulses.shards.iter().zip(&mut self.said_us).zip(0..) {
            let late_us = now_us.saturating_sub(pulse.due_us.load(Ordering::Relaxed));
            if late_us < LATE_US {
                if std::mem::take(said_us) > 0 {
                    news.push(Err(ShardId(shard)));
                }
            } else if late_us >= *said_us * 2 {
                *said_us = late_us;
                let (is_asleep, thread) = (pulse.is_asleep.load(Ordering::Relaxed), pulse.thread.load(Ordering::Relaxed));
                news.push(Ok(Late { shard: ShardId(shard), late_us, is_asleep, thread }));
            }
        }
        news
    }
}

/// Where the kernel says that a thread is.
struct Stand {
    thread: i32,
    /// Of /proc/self/task/THREAD: `stat` (from the state on), `wchan`, `syscall`.
    files: [String; 3],
}

impl Stand {
    fn of(thread: i32) -> Stand {
        let read = |name| fs::read_to_string(format!("/proc/self/task/{thread}/{name}")).unwrap_or_else(|error| error.to_string());
        let stat = read("stat");
        // State, and user and system time in ticks: whether it runs shows in two messages.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let field = |at: usize| fields.get(at).copied().unwrap_or("?");
        let stat = format!("state {}, {} + {} ticks", field(0), field(11), field(12));
        Stand { thread, files: [stat, read("wchan"), read("syscall")] }
    }
}

impl fmt::Display for Stand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [stat, wchan, syscall] = &self.files;
        write!(f, "its thread {}: {stat}, waits in {}, system call {}", self.thread, wchan.trim(), syscall.trim())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_late_is_told_at_growing_intervals_and_when_it_moves_again() {
        let pulses = Pulses::new(Clock::new(), 2);
        let mut watch = Watch::new(Arc::clone(&pulses));
        let (first, second) = (ShardId(0), ShardId(1));
        assert_eq!(watch.newly_late(1_000_000), [], "nobody has begun");
        pulses.beat(first, 1_000_000);
        pulses.sleeps(second, 9_000_000);
        assert_eq!(watch.newly_late(2_000_000), []);
        assert_eq!(watch.newly_late(2_999_999), []);
        let late = |shard, late_us, is_asleep| Ok(Late { shard, late_us, is_asleep, thread: 0 });
        assert_eq!(watch.newly_late(3_000_000), [late(first, 2_000_000, false)]);
        assert_eq!(watch.newly_late(4_000_000), []);
        assert_eq!(watch.newly_late(5_000_000), [late(first, 4_000_000, false)]);
        for now_us in [6_000_000, 7_000_000, 8_000_000] {
            assert_eq!(watch.newly_late(now_us), []);
        }
        assert_eq!(watch.newly_late(9_000_000), [late(first, 8_000_000, false)]);
        assert_eq!(watch.newly_late(10_000_000), []);
        pulses.beat(first, 10_900_000);
        assert_eq!(watch.newly_late(11_000_000), [Err(first), late(second, 2_000_000, true)]);
        pulses.wakes(second);
        pulses.beat(second, 11_000_000);
        pulses.end(first);
        assert_eq!(watch.newly_late(12_000_000), [Err(second)]);
    }

    #[test]
    fn all_shards_rest_as_long_as_none_wakes() {
        let pulses = Pulses::new(Clock::new(), 2);
        let (first, second) = (ShardId(0), ShardId(1));
        assert_eq!(pulses.rest(), None, "they have not begun");
        pulses.sleeps(first, 1_000);
        assert_eq!(pulses.rest(), None);
        pulses.sleeps(second, 1_000);
        let rest = pulses.rest();
        assert!(rest.is_some() && pulses.rest() == rest);
        pulses.wakes(first);
        assert_eq!(pulses.rest(), None);
        pulses.sleeps(first, 2_000);
        assert!(pulses.rest().is_some() && pulses.rest() != rest, "another sleep");
    }

    #[test]
    fn who_was_halted_with_the_whole_process_is_not_late() {
        let pulses = Pulses::new(Clock::new(), 1);
        let mut watch = Watch::new(Arc::clone(&pulses));
        pulses.beat(ShardId(0), 1_000_000);
        assert_eq!(watch.newly_late(1_500_000), []);
        assert_eq!(watch.newly_late(21_500_000), [], "this thread was away as well");
        pulses.beat(ShardId(0), 22_400_000);
        assert_eq!(watch.newly_late(22_500_000), []);
        // One that stands still beyond that is told with the look after.
        assert_eq!(watch.newly_late(23_900_000), []);
        assert!(matches!(watch.newly_late(25_000_000)[..], [Ok(Late { late_us: 2_600_000, .. })]));
    }

    #[test]
    fn the_kernel_is_asked_where_a_thread_stands() {
        let (told, heard) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let pulses = Pulses::new(Clock::new(), 1);
            pulses.begin(ShardId(0));
            told.send(pulses.pulse(ShardId(0)).thread.load(Ordering::Relaxed)).unwrap();
            // Blocks until the other end is dropped.
            assert!(ended.recv().is_err());
        });
        let id = heard.recv().unwrap();
        // Blocked, or on its way there.
        let stand = Stand::of(id).to_string();
        assert!(stand.starts_with(&format!("its thread {id}: state ")) && !stand.contains('?') && !stand.contains("No such"), "{stand}");
        drop(end);
        thread.join().unwrap();
        assert!(Stand::of(id).to_string().contains("No such file"));
    }
}
