//! Whether the other side of a connection is still there: when to ask, and how long to wait for the answer.
//!
//! A peer whose machine is gone says nothing; the kernel notices only when something is sent to it, after minutes. So a ping goes out when nothing was
//! heard for a while (or the broker wants to hear something more often), and anything that arrives is its answer. Time passes only in the caller's calls:
//! the owner of the connection gives it up when the answer is overdue *and* a read brought nothing, so that an answer that lies in the socket because the
//! caller was away counts.
//!
//! Not here: the requests themselves, and how long each of them may take.

use super::Now;

/// A ping after so long without a word: with the wait for its answer, a dead peer is noticed within some 20 s, for four small frames per minute.
const PING_AFTER_US: u64 = 15_000_000;

/// No broker is pinged more often, whatever it asks for: a `keepalive_ms` of 1 is a mistake, and a thousand frames a second for nothing.
const KEEPALIVE_US_MIN: u64 = 1_000_000;

/// See the module's page. All times monotonic microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Alive {
    /// The broker closes the connection unless it hears something so often; 0: it does not.
    keepalive_us: u64,
    sent_us: u64,
    heard_us: u64,
    /// When a ping was sent that was not answered.
    pinged_us: Option<u64>,
}

impl Alive {
    /// The connection was opened.
    pub(crate) fn opened(keepalive_ms: u32, now: Now) -> Alive {
        let keepalive_us = match keepalive_ms {
            0 => 0,
            asked_ms => (u64::from(asked_ms) * 1000).max(KEEPALIVE_US_MIN),
        };
        Alive { keepalive_us, sent_us: now.mono_us, heard_us: now.mono_us, pinged_us: None }
    }

    /// A request was queued.
    #[inline]
    pub(crate) fn on_sent(&mut self, now: Now) {
        self.sent_us = now.mono_us;
    }

    /// Whole frames arrived.
    #[inline]
    pub(crate) fn on_heard(&mut self, now: Now) {
        self.heard_us = now.mono_us;
        self.pinged_us = None;
    }

    /// A ping was queued.
    pub(crate) fn on_pinged(&mut self, now: Now) {
        self.sent_us = now.mono_us;
        self.pinged_us = Some(now.mono_us);
    }

    /// When a ping is due; never while one is unanswered.
    #[inline]
    pub(crate) fn ping_at_us(&self) -> u64 {
        if self.pinged_us.is_some() {
            return u64::MAX;
        }
        let keepalive_at_us = if self.keepalive_us > 0 { self.sent_us.saturating_add(self.keepalive_us) } else { u64::MAX };
        keepalive_at_us.min(self.heard_us.saturating_add(PING_AFTER_US))
    }

    /// When a ping's answer is overdue.
    pub(crate) fn dead_at_us(&self, patience_us: u64) -> u64 {
        self.pinged_us.map_or(u64::MAX, |at| at.saturating_add(patience_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_us: u64) -> Now {
        Now { mono_us, utc_us: 0 }
    }

    #[test]
    fn a_ping_is_due_after_silence_and_its_answer_before_long() {
        let mut alive = Alive::opened(0, at(1_000));
        assert_eq!(alive.ping_at_us(), 1_000 + PING_AFTER_US);
        assert_eq!(alive.dead_at_us(5), u64::MAX);
        alive.on_pinged(at(20_000_000));
        assert_eq!((alive.ping_at_us(), alive.dead_at_us(5)), (u64::MAX, 20_000_005), "one at a time");
        alive.on_heard(at(20_000_003));
        assert_eq!((alive.ping_at_us(), alive.dead_at_us(5)), (20_000_003 + PING_AFTER_US, u64::MAX));
    }

    #[test]
    fn a_broker_that_wants_to_hear_more_often_does() {
        let mut alive = Alive::opened(2_000, at(0));
        assert_eq!(alive.ping_at_us(), 2_000_000);
        alive.on_sent(at(1_500_000));
        assert_eq!(alive.ping_at_us(), 3_500_000);
        alive.on_heard(at(3_000_000));
        assert_eq!(alive.ping_at_us(), 3_500_000, "what it says is no word of ours");
    }

    #[test]
    fn a_broker_that_wants_to_hear_all_the_time_does_so_each_second() {
        for keepalive_ms in [1, 999, 1_000] {
            assert_eq!(Alive::opened(keepalive_ms, at(0)).ping_at_us(), 1_000_000, "{keepalive_ms}");
        }
        assert_eq!(Alive::opened(1_001, at(0)).ping_at_us(), 1_001_000);
        assert_eq!(Alive::opened(u32::MAX, at(0)).ping_at_us(), PING_AFTER_US);
    }
}
