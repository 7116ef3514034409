//! A connection to another node that this shard dials because it wants something there: whether it stands, and when it is dialed again.
//!
//! Invariants: a frame's number is taken when it is made; who does not answer, or refuses, is not dialed more often for it; nobody is woken for what cannot be
//! dialed.
//!
//! Not here: what is said on it once it stands (`catchup.rs`, `repair.rs`, `calling.rs`); connections that carry appends and beats (replication/peer.rs).

use super::pipelines::{NotTaken, Pipelines};
use super::shard::Shard;
use crate::effects::{Effect, Effects, Now};
use crate::ids::{ConnId, ReplicaId};
use tramline_wire::node::{Class, Frame, HelloReply, Kind, NodeError, Numbers, Refused, Side};

/// Dialing again: after 100 ms, doubling up to 5 s. A node that has no room for what is brought is not pressed.
const REDIAL_US_MIN: u64 = 100_000;
const REDIAL_US_MAX: u64 = 5_000_000;
/// A hello is answered within so long.
const GREETING_US: u64 = 3_000_000;

#[derive(Clone, Copy, Debug)]
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
    class: Class,
    link: Link,
    backoff_us: u64,
}

impl Outward {
    pub(super) fn new(to: ReplicaId, class: Class) -> Outward {
        Outward { to, heard_us: 0, class, link: Link::Idle { at_us: 0 }, backoff_us: REDIAL_US_MIN }
    }

    pub(super) fn conn(&self) -> Option<ConnId> {
        match self.link {
            Link::Greeting(conn, _) | Link::Live(conn, _) => Some(conn),
            Link::Idle { .. } | Link::Dialing { .. } => None,
        }
    }

    pub(super) fn is_on(&self, conn: ConnId) -> bool {
        self.conn() == Some(conn)
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.link, Link::Idle { .. })
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.link, Link::Live(..))
    }

    /// Dials when it may, and gives up a hello that is not answered: then the answer is false.
    ///
    /// Where no address is known nothing is done, and nobody is woken for it: a view that tells one wakes.
    pub(super) fn reach(&mut self, now: Now, pipelines: &mut Pipelines, effects: &mut Effects) -> bool {
        match self.link {
            Link::Idle { at_us } => match pipelines.address_of(self.to) {
                Some(address) if at_us <= now.mono_us => {
                    let dial = pipelines.next_dial();
                    self.link = Link::Dialing { dial };
                    effects.push(Effect::Dial { dial, address });
                }
                Some(_) => effects.wake_at(at_us),
                None => {}
            },
            Link::Greeting(conn, _) if now.mono_us >= self.heard_us + GREETING_US => {
                effects.push(Effect::Close { conn, reason: "its hello is not answered" });
                self.drop_link(now.mono_us);
                return false;
            }
            Link::Greeting(..) => effects.wake_at(self.heard_us + GREETING_US),
            Link::Dialing { .. } | Link::Live(..) => {}
        }
        true
    }

    /// False where this is not what was dialed under `dial`.
    fn on_dialed(&mut self, now_us: u64, dial: u64, conn: ConnId) -> bool {
        let is_ours = matches!(self.link, Link::Dialing { dial: ours } if ours == dial);
        if is_ours {
            self.heard_us = now_us;
            self.link = Link::Greeting(conn, Numbers::new());
        }
        is_ours
    }

    /// False where this is not what was dialed under `dial`.
    pub(super) fn on_dial_failed(&mut self, now_us: u64, dial: u64) -> bool {
        let is_ours = matches!(self.link, Link::Dialing { dial: ours } if ours == dial);
        if is_ours {
            self.drop_link(now_us);
        }
        is_ours
    }

    /// Takes in a frame that came on it, if every acceptor may say it: the answer to the hello, or why there is none. Answers whether it was one of these.
    pub(super) fn take_greeting(&mut self, now_us: u64, frame: &Frame<'_>) -> Result<bool, NotTaken> {
        frame.kind.check(self.class, Side::Acceptor)?;
        self.heard_us = now_us;
        match (frame.kind, self.link) {
            (Kind::HelloReply, Link::Greeting(conn, numbers)) => {
                HelloReply::decode(frame.meta).map_err(NodeError::from)?;
                self.link = Link::Live(conn, numbers);
                Ok(true)
            }
            (Kind::Refused, _) => {
                let refused = Refused::decode(frame.meta).map_err(NodeError::from)?;
                let node = self.to.node().0;
                tracing::warn!(node, class = ?self.class, "node {node} does not take this one's connection: {}", refused.message);
                Ok(true)
            }
            (kind, Link::Live(..)) if kind != Kind::HelloReply => Ok(false),
            (kind, state) => Err(NotTaken::Wrong(format!("{kind} does not belong here ({state:?})"))),
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

impl Shard {
    /// Whether `dial` was for one of these connections; then the hello is sent.
    pub(super) fn on_outward_dialed(&mut self, now: Now, dial: u64, conn: ConnId, effects: &mut Effects) -> bool {
        let mut all = self.catchups.outwards().chain(self.repairs.outwards()).chain(self.calling.outwards());
        let Some(outward) = all.find_map(|outward| outward.on_dialed(now.mono_us, dial, conn).then_some(outward)) else { return false };
        let (to, class, at) = (outward.to, outward.class, outward.conn_and_number());
        drop(all);
        self.say_hello(at, to, class, &[], effects);
        true
    }
}
