//! Who may receive while memory for received bytes is short.
//!
//! Invariants: small frames always get room; of the connections that want more one is let through, until its frame is whole, or nothing has come of it
//! for a second: if none were, all could wait for each other's memory. The others wait in order.
//!
//! Not here: how much memory there is (the ring counts it), buffers.

use crate::ids::ConnId;
use std::collections::VecDeque;

/// The connection that is let through while memory is short loses that when nothing came of it for this long.
const LUCKY_US: u64 = 1_000_000;
/// Frames above this many bytes wait when receive memory is short; smaller ones always get room.
const SMALL_FRAME_BYTES: usize = 64 << 10;

/// One account of memory and those who wait for it.
#[derive(Debug)]
pub(super) struct Rations {
    bytes_max: usize,
    /// Connections that wait: (connection, bytes wanted).
    hungry: VecDeque<(ConnId, usize)>,
    /// While memory is short, the one connection that may receive all the same, and when it last did.
    lucky: Option<(ConnId, u64)>,
}

impl Rations {
    pub(super) fn new(bytes_max: usize) -> Rations {
        Rations { bytes_max, hungry: VecDeque::new(), lucky: None }
    }

    pub(super) fn is_short(&self, used_bytes: usize) -> bool {
        used_bytes > self.bytes_max
    }

    /// Whether a connection that wants so many bytes may receive now; else it is among those who wait.
    pub(super) fn ask(&mut self, now_us: u64, conn: ConnId, wanted: usize, used_bytes: usize) -> bool {
        if !self.is_short(used_bytes) || wanted <= SMALL_FRAME_BYTES {
            return true;
        }
        let may = match self.lucky {
            Some((lucky, _)) => lucky == conn,
            None => self.hungry.is_empty(),
        };
        if may {
            self.lucky = Some((conn, now_us));
        } else {
            self.hungry.push_back((conn, wanted));
        }
        may
    }

    /// The next one of those who wait that may receive now: all while there is memory, else one.
    pub(super) fn next(&mut self, now_us: u64, used_bytes: usize) -> Option<(ConnId, usize)> {
        let short = self.is_short(used_bytes);
        if short && self.lucky.is_some() {
            return None;
        }
        let (conn, wanted) = self.hungry.pop_front()?;
        if short {
            self.lucky = Some((conn, now_us));
        }
        Some((conn, wanted))
    }

    /// A connection's frame is whole, or the connection is gone. Answers whether the next one may be asked for.
    pub(super) fn end_luck(&mut self, conn: ConnId) -> bool {
        let ends = self.lucky.is_some_and(|(lucky, _)| lucky == conn);
        if ends {
            self.lucky = None;
        }
        ends
    }

    /// Who is let through and then sends nothing is not waited for: others have something to send.
    pub(super) fn expire_luck(&mut self, now_us: u64) {
        if self.lucky.is_some_and(|(_, at_us)| now_us.saturating_sub(at_us) > LUCKY_US) {
            self.lucky = None;
        }
    }

    /// The connection is gone.
    pub(super) fn forget(&mut self, conn: ConnId) {
        self.hungry.retain(|(c, _)| *c != conn);
    }

    pub(super) fn is_anybody_waiting(&self) -> bool {
        !self.hungry.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = 1 << 20;

    #[test]
    fn one_is_let_through_while_memory_is_short_and_small_frames_always() {
        let mut rations = Rations::new(100);
        let [a, b, c] = [1, 2, 3].map(ConnId);
        assert!(rations.ask(0, a, LARGE, 100), "not short");
        assert!(rations.ask(0, a, LARGE, 101) && rations.ask(1, a, LARGE, 101), "the lucky one goes on");
        assert!(!rations.ask(0, b, LARGE, 101) && !rations.ask(0, c, LARGE, 101));
        assert!(rations.ask(0, b, SMALL_FRAME_BYTES, 101));
        assert_eq!(rations.next(2, 101), None);
        assert!(!rations.end_luck(b) && rations.end_luck(a));
        assert_eq!((rations.next(2, 101), rations.next(2, 101)), (Some((b, LARGE)), None), "in order, one at a time");
        assert!(!rations.ask(3, a, LARGE, 101), "behind those who wait");
        assert_eq!((rations.next(3, 100), rations.next(3, 100), rations.next(3, 100)), (Some((c, LARGE)), Some((a, LARGE)), None));
    }

    #[test]
    fn luck_runs_out_and_who_is_gone_is_not_served() {
        let mut rations = Rations::new(0);
        let [a, b, c] = [1, 2, 3].map(ConnId);
        assert!(rations.ask(0, a, LARGE, 1) && !rations.ask(0, b, LARGE, 1) && !rations.ask(0, c, LARGE, 1));
        rations.expire_luck(LUCKY_US);
        assert_eq!(rations.next(LUCKY_US, 1), None);
        rations.expire_luck(LUCKY_US + 1);
        rations.forget(b);
        assert!(rations.is_anybody_waiting());
        assert_eq!(rations.next(LUCKY_US + 1, 1), Some((c, LARGE)));
        assert!(!rations.is_anybody_waiting());
    }
}
