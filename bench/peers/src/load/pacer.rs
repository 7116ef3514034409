//! Waits until a moment, to some microseconds, without spinning: a timer of the kernel in the runtime's reactor. Tokio's own timer counts milliseconds, which is ten
//! records too late at 10,000 per second; and spinning would take the core from those clients that have threads of their own.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};
use tokio::io::unix::AsyncFd;

use crate::fault::{Fallible, Told};

/// One exact timer.
pub struct Pacer(AsyncFd<OwnedFd>);

impl Pacer {
    /// Needs a runtime with its reactor.
    pub fn new() -> Fallible<Pacer> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC).told("timerfd")?;
        // Deprecated for types whose descriptor may change; an owned one cannot, and its successor is unsafe.
        #[allow(deprecated)]
        Ok(Pacer(AsyncFd::new(timer).told("timerfd in the reactor")?))
    }

    /// Returns at `moment` or a little later. Dropping the future is harmless.
    pub async fn until(&self, moment: Instant) -> Fallible<()> {
        let left = moment.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // Late already: the clients' own tasks still have to have their turn.
            tokio::task::yield_now().await;
            return Ok(());
        }
        let no_repeat = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        // Arming also forgets an expiry that nobody waited for any more.
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &Itimerspec { it_interval: no_repeat, it_value: value })
            .told("timerfd")?;
        loop {
            let mut ready = self.0.readable().await.told("timerfd")?;
            if moment <= Instant::now() {
                ready.clear_ready();
                return Ok(());
            }
            ready.clear_ready();
        }
    }
}

/// The longest that a part of a measurement waits for stragglers.
pub const DRAIN_PATIENCE: Duration = Duration::from_secs(10);
/// In open loop, what comes so soon after the schedule's end has kept up with it: else one slow record at the end of a short trial would make a rate look lost.
pub const DRAIN_GRACE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_returns_early_and_can_be_used_again() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let pacer = Pacer::new().expect("a timer");
            for wait_us in [50u64, 300, 2_000, 0, 700] {
                let moment = Instant::now() + Duration::from_micros(wait_us);
                pacer.until(moment).await.expect("it waits");
                assert!(Instant::now() >= moment, "{wait_us} us");
            }
            // Given up half-way: the next wait is not shortened by it.
            let far = Instant::now() + Duration::from_millis(1);
            let _ = tokio::time::timeout(Duration::from_micros(1), pacer.until(far)).await;
            let moment = Instant::now() + Duration::from_millis(5);
            pacer.until(moment).await.expect("it waits");
            assert!(Instant::now() >= moment);
        });
    }
}
