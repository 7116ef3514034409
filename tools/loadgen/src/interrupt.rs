//! SIGINT and SIGTERM: the first ends the run with a report of what was measured, a second one the process at once.
//!
//! Invariants: the first signal only sets marks that all threads look at anyway, so a run ends as it does when a server vanishes; before
//! the threads begin (connecting, at most seconds) it is kept for them, and the run ends right after it began.
//! Not here: what the report says of it (`verdict.rs`). Without a run (`compare`, `sink`) signals do what they do to any process.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

/// A second signal so soon is the first once more: a terminal and a supervisor both pass on what they get.
const SAME_REQUEST: Duration = Duration::from_millis(100);

/// A signal that ended a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(i32);

impl Signal {
    /// Its name.
    pub fn name(self) -> &'static str {
        if self.0 == SIGINT { "SIGINT" } else { "SIGTERM" }
    }

    /// The exit code that shells give it: 130 or 143.
    pub fn exit_code(self) -> u8 {
        (128 + self.0) as u8
    }
}

/// See the module's page.
#[derive(Clone, Default)]
pub struct Interrupt {
    /// The number of the first signal; zero when none came.
    signal: Arc<AtomicI32>,
    /// Set when the run has to end, for whatever reason.
    stop: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes the signals from now on.
    pub fn listen() -> Result<Interrupt, String> {
        let interrupt = Interrupt::default();
        let failed = |cause: std::io::Error| format!("signals cannot be listened to: {cause}");
        let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
        let taken = interrupt.clone();
        let listens = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let mut first = None;
            for number in signals.forever() {
                let first: Instant = *first.get_or_insert_with(Instant::now);
                if !taken.take(number) && first.elapsed() > SAME_REQUEST {
                    std::process::exit(i32::from(Signal(number).exit_code()));
                }
            }
        });
        listens.map(|_| interrupt).map_err(failed)
    }

    /// A signal came; whether it was the first.
    fn take(&self, number: i32) -> bool {
        let is_first = self.signal.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        self.stop.store(true, Ordering::Relaxed);
        is_first
    }

    /// The signal that came first, if any did.
    pub fn signal(&self) -> Option<Signal> {
        Some(self.signal.load(Ordering::Relaxed)).filter(|number| *number != 0).map(Signal)
    }

    /// What all threads of the run look at.
    pub fn stop(&self) -> &AtomicBool {
        &self.stop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_counts() {
        let interrupt = Interrupt::default();
        assert!(interrupt.signal().is_none() && !interrupt.stop().load(Ordering::Relaxed));
        assert!(interrupt.take(SIGTERM) && !interrupt.take(SIGINT));
        assert!(interrupt.stop().load(Ordering::Relaxed));
        assert_eq!(interrupt.signal().map(|signal| (signal.name(), signal.exit_code())), Some(("SIGTERM", 143)));
        assert_eq!((Signal(SIGINT).name(), Signal(SIGINT).exit_code()), ("SIGINT", 130));
    }
}
