//! Asks the server whether it is still there, where the run itself would not see it: a reader alone (silence may mean that nobody writes),
//! and records at level none (what the kernel took counts as done, and it takes for a while what a server that stands still does not read).
//!
//! A thread and a connection of its own, so that a question delays no record and no answer. Times, in parts of `--timeout`: silence is
//! looked for every eighth, asked about after a half, and the answer has three eighths: a server that stops is noticed within the whole.
//! Invariants: where records come, a reader's server is not asked, since one that is too busy to answer is no vanished one; with level none
//! it is asked all the time, and once more at the end.
//! Not here: writers at other levels, whose answers tell (`vanish.rs`).

use crate::clock::Clock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;
use tramline_client::{Client, Config};

/// When there is a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// Never: what is written is answered.
    Never,
    /// When nothing was read for a while.
    WhenSilent,
    /// Again and again, and at the end.
    Always,
}

/// See the module's page.
pub struct Asker<'a> {
    client: Client,
    topic: &'a str,
    asks: Asks,
    timeout: Duration,
}

impl<'a> Asker<'a> {
    /// Connects; none where there is nothing to ask. `config` is that of the run.
    pub fn new(asks: Asks, config: Config, topic: &'a str, timeout: Duration) -> Result<Option<Asker<'a>>, String> {
        if asks == Asks::Never {
            return Ok(None);
        }
        let limit = timeout * 3 / 8;
        // One attempt has all the time: a second one would begin with connecting and could double it.
        let config = Config { call_timeout: limit, request_timeout: limit, connect_timeout: config.connect_timeout.min(limit), ..config };
        let client = Client::connect(config).map_err(|error| error.to_string())?;
        Ok(Some(Asker { client, topic, asks, timeout }))
    }

    /// Watches until nobody holds the other end of `over`; `read` counts what was read. Stops the run when the server does not answer, and
    /// says why.
    pub fn watch(&self, clock: Clock, read: impl Fn() -> u64, stop: &AtomicBool, over: &Receiver<()>) -> Option<String> {
        let mut silence = Silence::new(self.asks, self.timeout.as_nanos() as u64, clock.now_ns());
        loop {
            let ended = over.recv_timeout(self.timeout / 8) == Err(RecvTimeoutError::Disconnected);
            let asks = if ended { self.asks == Asks::Always } else { silence.asks(clock.now_ns(), read()) };
            if asks && let Err(reason) = self.ask() {
                stop.store(true, Ordering::Relaxed);
                return Some(reason);
            }
            if ended {
                return None;
            }
        }
    }

    fn ask(&self) -> Result<(), String> {
        let beside = if self.asks == Asks::Always { "; at level none nobody knows what of the last records arrived" } else { "" };
        self.client.end_offsets(self.topic).map(drop).map_err(|error| format!("the server vanished: {error}{beside}"))
    }
}

/// When to ask.
struct Silence {
    asks: Asks,
    after_ns: u64,
    since_ns: u64,
    read: u64,
}

impl Silence {
    fn new(asks: Asks, timeout_ns: u64, now_ns: u64) -> Silence {
        Silence { asks, after_ns: timeout_ns / 2, since_ns: now_ns, read: 0 }
    }

    /// Whether it is time to ask, where so many were read until now. After a question the time begins anew.
    fn asks(&mut self, now_ns: u64, read: u64) -> bool {
        if self.asks == Asks::WhenSilent && read != self.read {
            (self.since_ns, self.read) = (now_ns, read);
        }
        let is_due = self.asks != Asks::Never && now_ns.saturating_sub(self.since_ns) >= self.after_ns;
        if is_due {
            self.since_ns = now_ns;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_of_half_the_timeout_is_asked_about_and_again() {
        let mut silence = Silence::new(Asks::WhenSilent, 1_000, 0);
        assert!(!silence.asks(499, 0) && silence.asks(500, 0));
        assert!(!silence.asks(999, 0) && silence.asks(1_000, 0));
        assert!(!silence.asks(1_400, 7) && !silence.asks(1_899, 7) && silence.asks(1_900, 7), "what came begins the time anew");
        assert!(!(2_000..9_000).step_by(100).any(|now| silence.asks(now, now)), "nobody asks where records come");
    }

    #[test]
    fn without_answers_the_server_is_asked_whatever_is_counted() {
        let mut silence = Silence::new(Asks::Always, 1_000, 0);
        assert_eq!((0..=4_000).step_by(125).filter(|now| silence.asks(*now, *now)).count(), 8);
        let mut never = Silence::new(Asks::Never, 1_000, 0);
        assert!(!never.asks(9_999, 0));
    }
}
