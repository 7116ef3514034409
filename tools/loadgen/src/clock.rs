//! The one clock of a run: monotonic nanoseconds since its beginning, and UTC by one anchor.
//!
//! Invariant: within a process, differences of stamps are those of the monotonic clock, so a step of the system's time does not
//! touch a latency. Between two processes (`consume --from latest`) the anchors may differ by what the system's time was corrected.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// See the module's page.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    origin_utc_ns: i64,
}

impl Clock {
    /// Starts now.
    pub fn start() -> Clock {
        let utc = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { origin: Instant::now(), origin_utc_ns: i64::try_from(utc.as_nanos()).unwrap_or(i64::MAX) }
    }

    /// Nanoseconds of the run.
    pub fn now_ns(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// Nanoseconds of the run at an instant; zero before the beginning.
    pub fn ns_of(&self, instant: Instant) -> u64 {
        instant.saturating_duration_since(self.origin).as_nanos() as u64
    }

    /// UTC nanoseconds of a time of the run.
    pub fn utc_ns(&self, run_ns: u64) -> i64 {
        self.origin_utc_ns.saturating_add_unsigned(run_ns)
    }

    /// The time of the run at a UTC time; negative before the beginning.
    pub fn run_ns(&self, utc_ns: i64) -> i64 {
        utc_ns.saturating_sub(self.origin_utc_ns)
    }

    /// The beginning as the system's time.
    pub fn started(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(u64::try_from(self.origin_utc_ns).unwrap_or(0))
    }

    /// UTC seconds of the beginning.
    pub fn started_unix_s(&self) -> f64 {
        self.origin_utc_ns as f64 / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_times_are_one_clock() {
        let clock = Clock::start();
        let now = clock.now_ns();
        assert_eq!(clock.run_ns(clock.utc_ns(now)), now as i64);
        assert!(clock.now_ns() >= now);
        assert!(clock.run_ns(clock.utc_ns(0) - 5) == -5);
    }
}
