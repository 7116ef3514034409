//! The one clock of a shard: monotonic time, and UTC from one anchor taken at start, so that it never goes backwards.

use crate::effects::Now;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// An anchored clock. Copies of one clock agree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Instant,
    utc_us_at_start: i64,
}

/// Monotonic readings begin here, so that 0 can mean "never".
const MONO_US_AT_START: u64 = 1_000_000;

impl Clock {
    pub(super) fn new() -> Clock {
        // A clock before 1970 is wrong, but time stamps are not worth refusing to start for.
        let utc = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Clock { start: Instant::now(), utc_us_at_start: utc.as_micros() as i64 }
    }

    pub(super) fn now(&self) -> Now {
        let elapsed_us = self.start.elapsed().as_micros() as u64;
        Now { mono_us: MONO_US_AT_START + elapsed_us, utc_us: self.utc_us_at_start + elapsed_us as i64 }
    }
}
