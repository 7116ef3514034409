//! SIGTERM and SIGINT: the first asks for an orderly stop, another one half a second later or more ends the process at once with exit code 130.
//!
//! ```text
//!   signal handler (async-signal-safe: writes one byte to a pipe)
//!      -> thread "tramline-signals" -> flag set -> every callback once (they wake the shards)
//! ```
//!
//! Invariants: `requested` never goes back to false; callbacks run exactly once each, on the signal thread or, when the stop is asked for from
//! inside (`request`) or was asked for already, on the caller's; a callback only wakes somebody, it never waits.
//!
//! Not here: what an orderly stop does (the shard loop: stop accepting, flush, exit 0).

use super::logging;
use crate::constants::{EXIT_FAILED, EXIT_INTERRUPTED};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Signals this close together are one request: `timeout` and terminals send one to the process and one to its group.
const SAME_REQUEST: Duration = Duration::from_millis(500);

type Callback = Box<dyn FnOnce() + Send>;

/// Asks for, and tells of, the orderly stop. Clones are the same stop.
#[derive(Clone, Default)]
pub struct Shutdown {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    requested: AtomicBool,
    callbacks: Mutex<Vec<Callback>>,
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown").field("requested", &self.is_requested()).finish()
    }
}

impl Shutdown {
    /// Not asked for.
    pub fn new() -> Shutdown {
        Shutdown::default()
    }

    /// Whether a stop was asked for. One load: a shard may look in every cycle.
    #[inline]
    pub fn is_requested(&self) -> bool {
        self.shared.requested.load(Ordering::Acquire)
    }

    /// Runs `callback` once the stop is asked for: at once if it was.
    pub fn on_request(&self, callback: impl FnOnce() + Send + 'static) {
        let mut callbacks = self.lock();
        if self.is_requested() {
            drop(callbacks);
            callback();
        } else {
            callbacks.push(Box::new(callback));
        }
    }

    /// Asks for the stop. Whether this was the first time.
    pub fn request(&self) -> bool {
        let callbacks = {
            let mut callbacks = self.lock();
            if self.shared.requested.swap(true, Ordering::AcqRel) {
                return false;
            }
            std::mem::take(&mut *callbacks)
        };
        callbacks.into_iter().for_each(|callback| callback());
        true
    }

    // A callback runs outside of the lock, so a panic in one cannot leave the list half taken.
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Callback>> {
        self.shared.callbacks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes SIGTERM and SIGINT from now on. To be called once, early, so that a stop during recovery is orderly too.
    pub fn listen(&self) -> io::Result<()> {
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        let shutdown = self.clone();
        std::thread::Builder::new().name("tramline-signals".to_owned()).spawn(move || {
            let mut asked: Option<Instant> = None;
            for signal in signals.forever() {
                let name = if signal == SIGINT { "SIGINT" } else { "SIGTERM" };
                if shutdown.request() {
                    asked = Some(Instant::now());
                    tracing::info!("{name}: orderly stop begins; a second signal ends the process at once");
                } else if asked.is_none_or(|at| at.elapsed() > SAME_REQUEST) {
                    tracing::warn!("{name} again: ending at once; what was acknowledged as durable is safe, the next start scans the log");
                    logging::flush();
                    std::process::exit(EXIT_INTERRUPTED);
                }
            }
        })?;
        Ok(())
    }

    /// Ends the process with exit code 1 when it still lives `limit` after the stop was asked for (setting shutdown.timeout): a disk that does not
    /// answer must not keep a supervisor waiting for ever.
    pub fn limit(&self, limit: Duration) {
        self.on_request(move || {
            let watch = move || {
                std::thread::sleep(limit);
                tracing::error!(
                    "the orderly stop has not ended within {} s (shutdown.timeout): ending at once; what was acknowledged as durable is safe",
                    limit.as_secs_f64()
                );
                logging::flush();
                std::process::exit(i32::from(EXIT_FAILED));
            };
            if let Err(error) = std::thread::Builder::new().name("tramline-limit".to_owned()).spawn(watch) {
                tracing::warn!("the time of the orderly stop is not limited: {error}");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn callbacks_run_once_early_and_late_ones_alike() {
        let (shutdown, count) = (Shutdown::new(), Arc::new(AtomicU32::new(0)));
        let add = |n: u32| {
            let count = Arc::clone(&count);
            move || {
                count.fetch_add(n, Ordering::SeqCst);
            }
        };
        shutdown.on_request(add(1));
        assert!(!shutdown.is_requested());
        assert!(shutdown.request());
        assert!(!shutdown.clone().request(), "only the first request is the first");
        shutdown.on_request(add(10));
        assert_eq!(count.load(Ordering::SeqCst), 11);
        assert!(shutdown.is_requested());
    }

    #[test]
    fn a_signal_asks_for_the_stop() {
        let shutdown = Shutdown::new();
        let (sender, receiver) = std::sync::mpsc::channel();
        shutdown.on_request(move || sender.send(()).expect("the test waits for it"));
        shutdown.listen().unwrap();
        signal_hook::low_level::raise(SIGTERM).unwrap();
        receiver.recv_timeout(std::time::Duration::from_secs(10)).expect("the signal arrives");
        assert!(shutdown.is_requested());
    }
}
