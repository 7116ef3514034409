//! The one place that reads clocks; the cores get the time as an argument.
//!
//! One reading of the monotonic clock (some 25 ns) gives both times: UTC is the anchor plus the monotonic time since. The
//! anchor is renewed each second, so corrections of the system's clock are followed without a second reading per record.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::core::Now;

/// How long an anchor is used, in microseconds.
const ANCHOR_AGE_US_MAX: u64 = 1_000_000;

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Clock {
    origin: Instant,
    anchor_mono_us: u64,
    anchor_utc_us: i64,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        Clock { origin: Instant::now(), anchor_mono_us: 0, anchor_utc_us: utc_us() }
    }

    /// The time from which monotonic microseconds are counted.
    pub(crate) fn origin(&self) -> Instant {
        self.origin
    }

    #[inline]
    pub(crate) fn now(&mut self) -> Now {
        let mono_us = self.origin.elapsed().as_micros() as u64;
        let age_us = mono_us - self.anchor_mono_us;
        if age_us > ANCHOR_AGE_US_MAX {
            self.anchor_mono_us = mono_us;
            self.anchor_utc_us = utc_us();
            return Now { mono_us, utc_us: self.anchor_utc_us };
        }
        Now { mono_us, utc_us: self.anchor_utc_us + age_us as i64 }
    }
}

#[cfg(test)]
impl Clock {
    /// Pretends that time went by.
    pub(crate) fn skip_ahead(&mut self, by_us: u64) {
        self.origin -= Duration::from_micros(by_us);
    }
}

pub(crate) fn utc_us() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_micros() as i64,
        Err(before) => -(before.duration().as_micros() as i64),
    }
}

/// Something that differs between two programs and two moments: to seed waits with, nothing that has to be secret.
pub(crate) fn seed() -> u64 {
    utc_us() as u64 ^ u64::from(std::process::id()) << 40
}

/// The moment after so long; some thirty years from now where the clock has none so late.
pub(crate) fn deadline(after: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(after).unwrap_or_else(|| now + Duration::from_secs(1_000_000_000))
}

/// Microseconds of a duration, saturating.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_without_an_end_has_a_deadline() {
        assert!(deadline(Duration::MAX) > Instant::now() + Duration::from_secs(900_000_000));
        assert!(deadline(Duration::ZERO) <= Instant::now());
    }

    #[test]
    fn both_times_go_forward_together() {
        let mut clock = Clock::new();
        let mut last = clock.now();
        for _ in 0..10_000 {
            let now = clock.now();
            assert!(now.mono_us >= last.mono_us);
            assert!((now.utc_us - utc_us()).abs() < 5_000_000);
            last = now;
        }
    }
}
