//! A connection to another node that this shard dials because it wants something there: whether it stands, and when it is dialed again.
//!
//! Invariants: a frame's number is taken when it is made; who does not answer, or refuses, is not dialed more often for it.
//!
//! Not here: what is said on it (`catchup.rs`, `repair.rs`); connections that carry appends and beats (replication/peer.rs).

use crate::ids::{ConnId, ReplicaId};
use tramline_wire::node::Numbers;

/// Dialing again: after 100 ms, doubling up to 5 s. A node that has no room for what is brought is not pressed.
const REDIAL_US_MIN: u64 = 100_000;
const REDIAL_US_MAX: u64 = 5_000_000;
/// A hello is answered within so long.
const GREETING_US: u64 = 3_000_000;

#[derive(Debug)]
enum Link {
    /// None: dial again at this time, in microseconds of the process.
    Idle { at_us: u64 },
    /// Asked for, under this number.
    Dialing { dial: u64 },
    /// The hello is on its way.
    Greeting(ConnId, Numbers),
    /// The hello was answered.
    Live(ConnId, Numbers),
}

/// The connection.
#[derive(Debug)]
pub(super) struct Outward {
    /// To whom.
    pub(super) to: ReplicaId,
    /// When something came from there last, in microseconds of the process.
    pub(super) heard_us: u64,
    link: Link,
    backoff_us: u64,
}

impl Outward {
    pub(super) fn new(to: ReplicaId) -> Outward {
        Outward { to, heard_us: 0, link: Link::Idle { at_us: 0 }, backoff_us: REDIAL_US_MIN }
    }

    pub(super) fn conn(&self) -> Option<ConnId> {
        match self.link {
            Link::Greeting(conn, _) | Link::Live(conn, _) => Some(conn),
            Link::Idle { .. } | Link::Dialing { .. } => None,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.link, Link::Idle { .. })
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.link, Link::Live(..))
    }

    /// Whether it may be dialed.
    pub(super) fn may_dial(&self, now_us: u64) -> bool {
        matches!(self.link, Link::Idle { at_us } if at_us <= now_us)
    }

    /// When it may be dialed, or a hello has to have been answered.
    pub(super) fn next_deadline_us(&self) -> u64 {
        match self.link {
            Link::Idle { at_us } => at_us,
            Link::Greeting(..) => self.heard_us + GREETING_US,
            Link::Dialing { .. } | Link::Live(..) => u64::MAX,
        }
    }

    /// Whether a hello was not answered in time.
    pub(super) fn is_silent(&self, now_us: u64) -> bool {
        matches!(self.link, Link::Greeting(..)) && now_us >= self.heard_us + GREETING_US
    }

    /// It is being dialed, under `dial`.
    pub(super) fn begin_dial(&mut self, dial: u64) {
        self.link = Link::Dialing { dial };
    }

    /// False where this is not what was dialed under `dial`.
    pub(super) fn on_dialed(&mut self, now_us: u64, dial: u64, conn: ConnId) -> bool {
        let is_ours = matches!(self.link, Link::Dialing { dial: ours } if ours == dial);
        if is_ours {
            self.heard_us = now_us;
            self.link = Link::Greeting(conn, Numbers::new());
        }
        is_ours
    }

    pub(super) fn on_dial_failed(&mut self, now_us: u64, dial: u64) {
        if matches!(self.link, Link::Dialing { dial: ours } if ours == dial) {
            self.drop_link(now_us);
        }
    }

    pub(super) fn on_greeted(&mut self) {
        if let Link::Greeting(conn, numbers) = self.link {
            self.link = Link::Live(conn, numbers);
        }
    }

    /// The other side does what it is asked.
    pub(super) fn on_served(&mut self) {
        self.backoff_us = REDIAL_US_MIN;
    }

    /// The connection is of no use any more.
    pub(super) fn drop_link(&mut self, now_us: u64) {
        self.link = Link::Idle { at_us: now_us + self.backoff_us };
        self.backoff_us = (self.backoff_us * 2).min(REDIAL_US_MAX);
    }

    /// The number of the next frame, and where it goes. Panics without a connection.
    pub(super) fn conn_and_number(&mut self) -> (ConnId, u64) {
        match &mut self.link {
            Link::Greeting(conn, numbers) | Link::Live(conn, numbers) => (*conn, numbers.advance()),
            state => unreachable!("no connection to send on: {state:?}"),
        }
    }
}
