//! Connections with other nodes, as far as the edge has to know them: dials under way, the numbers of frames that come, who has not spoken yet.
//!
//! ```text
//!   dial --> under way --stands--> link: first frame within `Limits::BEFORE_HELLO` --> link: within `Limits::PROTOCOL` --> gone
//!                |  fails, or `NODE_DIAL_US` are over                                     |
//!                +--> gone                                  an accepted one says nothing for `NODE_HELLO_US`: closed
//! ```
//! Invariants: a dial ends once, in `Event::Dialed` or in `Event::DialFailed`; frames are numbered from 1 on each connection, and a number counts when
//! the core has taken the frame.
//!
//! Not here: the numbers of frames that are sent (the core's), when to dial again, silence later on (the core).

use crate::constants::{NODE_DIAL_US, NODE_HELLO_US};
use crate::ids::{ConnId, IdMap};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use tramline_wire::frame::Limits;
use tramline_wire::node::{self, Need, NodeError, Numbers};

/// One connection with another node.
#[derive(Debug)]
pub(super) struct Link {
    peer: Peer,
    /// Of the frames that come.
    numbers: Numbers,
    /// The core has sent something, so the numbers of this direction are its own.
    pub(super) has_spoken: bool,
}

/// An address for the log; none where the connection was gone before anybody asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(Option<SocketAddr>);

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("an address that is not known any more"),
        }
    }
}

impl Link {
    /// Looks for the next frame at the start of `bytes`.
    pub(super) fn peek<'a>(&self, bytes: &'a [u8]) -> Result<Need<'a>, NodeError> {
        let limits = if self.numbers == Numbers::new() { Limits::BEFORE_HELLO } else { Limits::PROTOCOL };
        node::peek(bytes, &limits, &self.numbers)
    }

    pub(super) fn peer(&self) -> Peer {
        self.peer
    }
}

/// Ends of connections with one host that are told in a minute: a node that nobody wants dials on, and would fill the log.
const ENDS_TOLD_MAX: u32 = 5;
const MINUTE_US: u64 = 60_000_000;
/// Hosts whose ends are counted.
const HOSTS_MAX: usize = 1024;

/// Ends of connections with one host.
#[derive(Debug, Default)]
struct Ends {
    since_us: u64,
    told: u32,
    untold: u64,
}

/// A dial under way.
#[derive(Debug)]
struct Dial {
    conn: ConnId,
    /// The core's number.
    dial: u64,
    address: SocketAddr,
    /// When it is given up.
    until_us: u64,
    is_given_up: bool,
}

/// All connections of a shard with other nodes.
#[derive(Debug, Default)]
pub(super) struct Links {
    open: IdMap<ConnId, Link>,
    /// Oldest first: all may take equally long.
    dials: VecDeque<Dial>,
    /// Accepted and not heard of, and until when: oldest first.
    unheard: VecDeque<(ConnId, u64)>,
    ends: BTreeMap<Option<IpAddr>, Ends>,
}

impl Links {
    pub(super) fn get(&self, conn: ConnId) -> Option<&Link> {
        self.open.get(&conn)
    }

    pub(super) fn get_mut(&mut self, conn: ConnId) -> Option<&mut Link> {
        self.open.get_mut(&conn)
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// All connections that stand, in order.
    pub(super) fn ids(&self) -> Vec<ConnId> {
        let mut ids: Vec<_> = self.open.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    pub(super) fn accepted(&mut self, now_us: u64, conn: ConnId, peer: Option<SocketAddr>) {
        self.open(conn, peer);
        self.unheard.push_back((conn, now_us + NODE_HELLO_US));
    }

    fn open(&mut self, conn: ConnId, peer: Option<SocketAddr>) {
        let before = self.open.insert(conn, Link { peer: Peer(peer), numbers: Numbers::new(), has_spoken: false });
        assert!(before.is_none(), "{conn:?} was opened twice");
    }

    /// The core has taken the next frame.
    pub(super) fn took_frame(&mut self, conn: ConnId) {
        let Some(link) = self.open.get_mut(&conn) else { return };
        if link.numbers.advance() == 1 {
            self.unheard.retain(|(c, _)| *c != conn);
        }
    }

    /// The connection is gone.
    pub(super) fn closed(&mut self, conn: ConnId) -> Option<Link> {
        self.unheard.retain(|(c, _)| *c != conn);
        self.open.remove(&conn)
    }

    /// Whether the end of a connection is told in the log: then how many with the same host were not since the last one.
    pub(super) fn tells_end(&mut self, now_us: u64, peer: Peer) -> Option<u64> {
        let host = peer.0.map(|address| address.ip());
        if self.ends.len() >= HOSTS_MAX && !self.ends.contains_key(&host) {
            self.ends.clear();
        }
        let ends = self.ends.entry(host).or_default();
        if now_us >= ends.since_us.saturating_add(MINUTE_US) {
            (ends.since_us, ends.told) = (now_us, 0);
        }
        if ends.told == ENDS_TOLD_MAX {
            ends.untold += 1;
            return None;
        }
        ends.told += 1;
        Some(std::mem::take(&mut ends.untold))
    }

    pub(super) fn dialing(&mut self, now_us: u64, conn: ConnId, dial: u64, address: SocketAddr) {
        self.dials.push_back(Dial { conn, dial, address, until_us: now_us + NODE_DIAL_US, is_given_up: false });
    }

    /// The dial stands. Answers the core's number.
    pub(super) fn dialed(&mut self, conn: ConnId) -> u64 {
        let Dial { dial, address, .. } = self.take_dial(conn);
        self.open(conn, Some(address));
        dial
    }

    /// The dial has come to nothing. Answers the core's number, the address, and the errno that the core is told.
    pub(super) fn dial_failed(&mut self, conn: ConnId, errno: i32) -> (u64, SocketAddr, i32) {
        let Dial { dial, address, is_given_up, .. } = self.take_dial(conn);
        let timed_out = is_given_up && errno == libc::ECANCELED;
        (dial, address, if timed_out { libc::ETIMEDOUT } else { errno })
    }

    fn take_dial(&mut self, conn: ConnId) -> Dial {
        let at = self.dials.iter().position(|dial| dial.conn == conn).expect("a dial is here until it has ended");
        self.dials.remove(at).expect("found above")
    }

    /// The next dial that takes too long, once each: it is to be given up.
    pub(super) fn next_overdue_dial(&mut self, now_us: u64) -> Option<ConnId> {
        let dial = self.dials.iter_mut().find(|dial| !dial.is_given_up).filter(|dial| dial.until_us <= now_us)?;
        dial.is_given_up = true;
        Some(dial.conn)
    }

    /// The next accepted connection that has said nothing for too long, once each.
    pub(super) fn next_unheard(&mut self, now_us: u64) -> Option<ConnId> {
        let is_due = self.unheard.front().is_some_and(|(_, until_us)| *until_us <= now_us);
        if is_due { self.unheard.pop_front().map(|(conn, _)| conn) } else { None }
    }

    /// Connections that are dialed.
    pub(super) fn dials(&self) -> impl Iterator<Item = ConnId> {
        self.dials.iter().map(|dial| dial.conn)
    }

    /// Whether time alone changes something.
    pub(super) fn is_anything_due(&self) -> bool {
        !self.dials.is_empty() || !self.unheard.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_whose_connections_end_all_the_time_does_not_fill_the_log() {
        let mut links = Links::default();
        let peer = |port: u16| Peer(Some(SocketAddr::from(([10, 0, 0, 1], port))));
        let told: Vec<_> = (0..100).filter_map(|at| links.tells_end(u64::from(at) * 10_000, peer(at))).collect();
        assert_eq!(told, [0; ENDS_TOLD_MAX as usize]);
        assert_eq!(links.tells_end(0, Peer(Some(SocketAddr::from(([10, 0, 0, 2], 1))))), Some(0), "another host");
        assert_eq!(links.tells_end(MINUTE_US, peer(1)), Some(100 - u64::from(ENDS_TOLD_MAX)));
        assert_eq!(links.tells_end(MINUTE_US, peer(2)), Some(0));
    }
}
