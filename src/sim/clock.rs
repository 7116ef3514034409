//! A node's clocks: the monotonic one drifts; the wall clock is read once by each process, at its start, and may have jumped since the last one.
//!
//! Invariants: while a process lives neither goes back.
//!
//! Not here: when the wall clock jumps (`process.rs`).

use super::UTC_START_US;
use crate::effects::Now;

pub(super) struct Clock {
    /// Parts per million that the monotonic clock is fast (or slow, below zero).
    drift_ppm: i64,
    /// When the process began, in true time.
    began_us: u64,
    utc_at_start_us: i64,
    /// The wall clock's distance from true time.
    wall_offset_us: i64,
    /// What the wall clock showed when each process ended, and when that was.
    ends: Vec<(u64, i64)>,
}

impl Clock {
    pub(super) fn new(drift_ppm: i64, wall_offset_us: i64) -> Clock {
        Clock { drift_ppm, began_us: 0, utc_at_start_us: UTC_START_US + wall_offset_us, wall_offset_us, ends: Vec::new() }
    }

    /// A process begins.
    pub(super) fn on_start(&mut self, now_us: u64) {
        self.began_us = now_us;
        self.utc_at_start_us = UTC_START_US + now_us as i64 + self.wall_offset_us;
    }

    /// A process ends.
    pub(super) fn on_end(&mut self, now_us: u64) {
        self.ends.push((now_us, self.now(now_us).utc_us));
    }

    /// Somebody sets the wall clock; the next process sees it.
    pub(super) fn jump(&mut self, by_us: i64) {
        self.wall_offset_us += by_us;
    }

    /// What the process reads at `now_us` of true time.
    pub(super) fn now(&self, now_us: u64) -> Now {
        let passed = (now_us - self.began_us) as i64;
        let mono_us = 1_000_000 + passed + passed * self.drift_ppm / 1_000_000;
        Now { mono_us: mono_us as u64, utc_us: self.utc_at_start_us + mono_us }
    }

    /// The latest that the wall clock has shown since `from_us`: it may jump back from one process to the next.
    pub(super) fn utc_max_since(&self, now_us: u64, from_us: u64) -> i64 {
        let ends = self.ends.iter().rev().take_while(|(end_us, _)| *end_us >= from_us);
        ends.map(|(_, utc_us)| *utc_us).fold(self.now(now_us).utc_us, i64::max)
    }

    /// True time until the monotonic clock shows `due_us`.
    pub(super) fn until(&self, now_us: u64, due_us: u64) -> u64 {
        let left = due_us.saturating_sub(self.now(now_us).mono_us);
        // A slow clock needs more; that a fast one is late by its drift harms nobody.
        left + left * self.drift_ppm.min(0).unsigned_abs() / 1_000_000 + u64::from(left > 0)
    }
}
