//! The other nodes' shards that hold replicas of this shard's groups: connections to each, what is queued for it, what it has answered.
//!
//! Of the two connections of a pair of shards this shard dials one: on it go its appends, beats and votes, and come the acks. The other one was
//! accepted: there the peer's come, and this shard's acks go (docs/REPLICATION.md, 3.1).
//!
//! Invariants: nothing of a connection that was replaced or has ended is looked at; a frame's number is taken when it is made, and it is sent in that
//! order; bytes that were sent and not answered stay within the window, or are one frame.
//!
//! Not here: what frames say (`wire_raft.rs`), sockets, and who carries all that out (shard/pipelines.rs).

use super::storage::GroupPosition;
use crate::ids::{ConnId, GroupId, LogIndex, ReplicaId, Term};
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use tramline_wire::node::{AckGroup, BeatGroup, Numbers};

/// Dialing again: after 10 ms, doubling up to 1 s.
const REDIAL_US_MIN: u64 = 10_000;
const REDIAL_US_MAX: u64 = 1_000_000;
/// A live connection without an ack for so long is closed, and dialed again: a dead path with open sockets.
const SILENCE_US: u64 = 1_000_000;
/// Bytes sent and not answered on one connection.
const WINDOW_BYTES: u64 = 8 << 20;
/// Appends queued for one peer. Each is a description of 56 bytes; the crate has at most 256 of a group under way.
const QUEUE_MAX: usize = 64 << 10;
/// Of these the last ones are looked at when another one comes: one of each of a shard's groups.
const ASKED_AGAIN: usize = 64;

/// A peer, as a start knows it.
#[derive(Clone, Copy, Debug)]
pub struct PeerStart {
    /// Its replicas.
    pub replica: ReplicaId,
    /// Where the shard accepts that has the number of this one, if that is known.
    pub address: Option<SocketAddr>,
}

/// Entries to be sent: which ones. Their bytes are looked up when the frame is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareNote {
    /// The group.
    pub group: GroupId,
    /// The leader's term.
    pub term: Term,
    /// The entry before the first one.
    pub previous: GroupPosition,
    /// How many; none tells the commit, or asks.
    pub count: usize,
    /// The leader's commit.
    pub commit: LogIndex,
}

/// The connection that this shard dials.
#[derive(Clone, Copy, Debug)]
pub enum Dialed {
    /// None: dial again at this time.
    Idle {
        /// In microseconds of the process.
        at_us: u64,
    },
    /// Asked for, under this number.
    Dialing {
        /// The number.
        dial: u64,
    },
    /// The hello is on its way.
    Greeting {
        /// The connection.
        conn: ConnId,
        /// Of the frames that are sent.
        numbers: Numbers,
    },
    /// It carries what there is to say.
    Live {
        /// The connection.
        conn: ConnId,
        /// Of the frames that are sent.
        numbers: Numbers,
    },
}

/// A frame with a beat that was not answered yet.
#[derive(Clone, Copy, Debug)]
struct Unanswered {
    beat: u64,
    sent_us: u64,
    bytes: u64,
    /// It is one of a tick, no append.
    is_beat: bool,
}

/// The connection that the peer has dialed, and what it is to be told.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub conn: ConnId,
    /// Of the frames that are sent.
    pub numbers: Numbers,
    /// The highest beat that was handled.
    pub beat: u64,
    /// Of that, what was told.
    pub beat_told: u64,
    /// Groups of which the peer has to hear something.
    pub asked: Vec<GroupId>,
    /// Shares that were not taken.
    pub rejections: Vec<AckGroup>,
}

/// One other node's shard.
#[derive(Debug)]
pub struct Peer {
    /// Its replicas.
    pub replica: ReplicaId,
    /// Where it accepts, if that is known: else it is not dialed.
    pub address: Option<SocketAddr>,
    /// The connection that this shard dials.
    pub dialed: Dialed,
    /// The one that the peer dials.
    pub accepted: Option<Accepted>,
    /// Appends in the order in which they are to be sent.
    pub shares: VecDeque<ShareNote>,
    /// Beats to be sent together.
    pub beats: Vec<BeatGroup>,
    /// What it was told on this connection of views and leaders: the view's epoch, and how many changes of leaders were known then.
    pub told: (u64, u64),
    /// The view that all its shards act on, as far as it has said on the connection that it has dialed.
    pub view_in_force: u64,
    unanswered: VecDeque<Unanswered>,
    unanswered_bytes: u64,
    /// Among what was answered last was a beat of a tick.
    has_answered_beat: bool,
    beat: u64,
    heard_us: u64,
    live_since_us: u64,
    /// Groups that it has shown to have a replica of, on the connection that this shard has dialed.
    replicas: BTreeSet<GroupId>,
    /// How long to wait before dialing again after the next failure: shortest once something was acknowledged.
    backoff_us: u64,
}

impl Peer {
    /// A peer that is dialed at once.
    pub fn new(start: &PeerStart) -> Peer {
        Peer {
            replica: start.replica,
            address: start.address,
            dialed: Dialed::Idle { at_us: 0 },
            accepted: None,
            shares: VecDeque::new(),
            beats: Vec::new(),
            told: (0, 0),
            view_in_force: 0,
            unanswered: VecDeque::new(),
            unanswered_bytes: 0,
            has_answered_beat: false,
            beat: 0,
            heard_us: 0,
            live_since_us: 0,
            replicas: BTreeSet::new(),
            backoff_us: REDIAL_US_MIN,
        }
    }

    /// Since when that has been live.
    pub fn live_since_us(&self) -> Option<u64> {
        self.live().map(|_| self.live_since_us)
    }

    /// The live connection that this shard has dialed.
    pub fn live(&self) -> Option<ConnId> {
        match self.dialed {
            Dialed::Live { conn, .. } => Some(conn),
            _ => None,
        }
    }

    /// The number of the next frame on the connection that this shard has dialed. Panics without one.
    pub fn next_number(&mut self) -> (ConnId, u64) {
        match &mut self.dialed {
            Dialed::Greeting { conn, numbers } | Dialed::Live { conn, numbers } => (*conn, numbers.advance()),
            state => unreachable!("no connection to send on: {state:?}"),
        }
    }

    /// Where it is to be dialed now, if it is; then it counts as being dialed, under `dial`.
    pub fn begin_dial(&mut self, now_us: u64, dial: u64) -> Option<SocketAddr> {
        match self.dialed {
            Dialed::Idle { at_us } if at_us <= now_us => {
                let address = self.address?;
                self.dialed = Dialed::Dialing { dial };
                Some(address)
            }
            _ => None,
        }
    }

    /// The connections that there are, dialed and accepted.
    pub fn conns(&self) -> impl Iterator<Item = ConnId> {
        let dialed = match self.dialed {
            Dialed::Greeting { conn, .. } | Dialed::Live { conn, .. } => Some(conn),
            _ => None,
        };
        dialed.into_iter().chain(self.accepted.as_ref().map(|accepted| accepted.conn))
    }

    /// What was dialed stands, and the hello is sent next. False when it is none of this peer's.
    pub fn on_dialed(&mut self, now_us: u64, dial: u64, conn: ConnId) -> bool {
        match self.dialed {
            Dialed::Dialing { dial: ours } if ours == dial => {
                self.heard_us = now_us;
                self.dialed = Dialed::Greeting { conn, numbers: Numbers::new() };
                true
            }
            _ => false,
        }
    }

    /// The hello was answered.
    pub fn on_greeted(&mut self, now_us: u64) {
        if let Dialed::Greeting { conn, numbers } = self.dialed {
            (self.heard_us, self.live_since_us) = (now_us, now_us);
            self.dialed = Dialed::Live { conn, numbers };
        }
    }

    /// Nobody answered at `address`.
    pub fn on_dial_failed(&mut self, now_us: u64, dial: u64) {
        if matches!(self.dialed, Dialed::Dialing { dial: ours } if ours == dial) {
            self.dial_later(now_us);
        }
    }

    /// A connection has ended. Answers whether it was one of this peer's: `Some(true)` for the one that the peer had dialed.
    pub fn on_closed(&mut self, now_us: u64, conn: ConnId) -> Option<bool> {
        if self.accepted.as_ref().is_some_and(|accepted| accepted.conn == conn) {
            self.accepted = None;
            self.view_in_force = 0;
            return Some(true);
        }
        match self.dialed {
            Dialed::Greeting { conn: ours, .. } | Dialed::Live { conn: ours, .. } if ours == conn => {
                self.drop_dialed(now_us);
                Some(false)
            }
            _ => None,
        }
    }

    /// The connection that this shard has dialed is of no use any more; whatever was queued is lost with it.
    pub fn drop_dialed(&mut self, now_us: u64) {
        self.dial_later(now_us);
        self.shares.clear();
        self.beats.clear();
        self.told = (0, 0);
        self.unanswered.clear();
        self.unanswered_bytes = 0;
        self.beat = 0;
        self.replicas.clear();
    }

    /// It has told of its replica of a group.
    pub fn note_replica(&mut self, group: GroupId) {
        self.replicas.insert(group);
    }

    /// Whether it has a replica of a group for certain: what it answers says nothing of others.
    pub fn has_replica(&self, group: GroupId) -> bool {
        self.replicas.contains(&group)
    }

    /// Who takes the connection and refuses what comes on it is not dialed more often than one who does not answer.
    fn dial_later(&mut self, now_us: u64) {
        self.dialed = Dialed::Idle { at_us: now_us + self.backoff_us };
        self.backoff_us = (self.backoff_us * 2).min(REDIAL_US_MAX);
    }

    /// The peer has dialed this shard: it is there, so dialing it makes sense at once.
    pub fn on_accepted(&mut self, conn: ConnId) -> Option<ConnId> {
        if let Dialed::Idle { at_us } = &mut self.dialed {
            *at_us = 0;
        }
        let accepted = Accepted { conn, numbers: Numbers::new(), beat: 0, beat_told: 0, asked: Vec::new(), rejections: Vec::new() };
        self.view_in_force = 0;
        self.accepted.replace(accepted).map(|before| before.conn)
    }

    /// Queues an append. Dropped without a connection: the next one begins with asking what the peer has. Panics when there are more than the crate may
    /// have under way.
    pub fn push_share(&mut self, note: ShareNote) {
        if self.live().is_some() {
            // A follower that is probed is asked with each beat: what waits already is not sent again for each of them.
            let is_same = |other: &&mut ShareNote| (other.group, other.term, other.previous) == (note.group, note.term, note.previous);
            if let Some(waiting) = self.shares.iter_mut().rev().take(ASKED_AGAIN).find(is_same) {
                *waiting = note;
                return;
            }
            assert!(self.shares.len() < QUEUE_MAX, "{QUEUE_MAX} appends wait for one peer");
            self.shares.push_back(note);
        }
    }

    /// Whether another frame with entries may be sent.
    pub fn has_window(&self) -> bool {
        self.unanswered_bytes < WINDOW_BYTES
    }

    /// The beat of the next append, of `bytes` of entries.
    pub fn next_beat(&mut self, now_us: u64, bytes: u64) -> u64 {
        self.number_beat(now_us, bytes, false)
    }

    /// The next beat of a tick.
    pub fn next_tick_beat(&mut self, now_us: u64) -> u64 {
        self.number_beat(now_us, 0, true)
    }

    fn number_beat(&mut self, now_us: u64, bytes: u64, is_beat: bool) -> u64 {
        self.beat += 1;
        self.unanswered_bytes += bytes;
        self.unanswered.push_back(Unanswered { beat: self.beat, sent_us: now_us, bytes, is_beat });
        self.beat
    }

    /// Whether a beat of a tick was among what `on_beat` found answered.
    pub fn has_answered_beat(&self) -> bool {
        self.has_answered_beat
    }

    /// The beat is answered: everything sent up to it was handled. Answers when the latest of these was sent, if that is news; `None` for one that was
    /// never sent, too.
    pub fn on_beat(&mut self, now_us: u64, beat: u64) -> Option<u64> {
        self.heard_us = now_us;
        self.backoff_us = REDIAL_US_MIN;
        self.has_answered_beat = false;
        let mut sent_us = None;
        while let Some(front) = self.unanswered.front().filter(|front| front.beat <= beat) {
            sent_us = Some(front.sent_us);
            self.unanswered_bytes -= front.bytes;
            self.has_answered_beat |= front.is_beat;
            self.unanswered.pop_front();
        }
        sent_us
    }

    /// Whether the connection that this shard has dialed is silent although something was sent on it.
    pub fn is_silent(&self, now_us: u64) -> bool {
        match self.dialed {
            Dialed::Greeting { .. } => now_us > self.heard_us + SILENCE_US,
            Dialed::Live { .. } => {
                let sent_us = self.unanswered.front().map_or(u64::MAX, |front| front.sent_us);
                now_us > sent_us.max(self.heard_us).saturating_add(SILENCE_US)
            }
            _ => false,
        }
    }

    /// When something is to be done without an event: dialing, or giving a silent connection up.
    pub fn next_deadline_us(&self) -> u64 {
        match self.dialed {
            Dialed::Idle { at_us } if self.address.is_some() => at_us,
            Dialed::Greeting { .. } => self.heard_us + SILENCE_US + 1,
            _ => u64::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;

    fn peer() -> Peer {
        Peer::new(&PeerStart { replica: ReplicaId::of(0, NodeId(2)), address: "10.0.0.2:7700".parse().ok() })
    }

    fn live(now_us: u64) -> Peer {
        let mut peer = peer();
        assert!(peer.begin_dial(now_us, 1).is_some() && peer.on_dialed(now_us, 1, ConnId(5)));
        assert_eq!(peer.next_number(), (ConnId(5), 1));
        peer.on_greeted(now_us);
        peer
    }

    #[test]
    fn dialing_waits_longer_after_each_failure_and_not_at_all_when_the_peer_shows_itself() {
        let mut peer = peer();
        let (mut now_us, mut waits) = (0, Vec::new());
        for dial in 0..9 {
            assert!(peer.begin_dial(now_us, dial).is_some());
            assert!(peer.begin_dial(now_us, dial).is_none(), "one at a time");
            peer.on_dial_failed(now_us, dial + 100);
            peer.on_dial_failed(now_us, dial);
            waits.push((peer.next_deadline_us() - now_us) / 1000);
            assert!(peer.begin_dial(peer.next_deadline_us() - 1, 77).is_none());
            now_us = peer.next_deadline_us();
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        peer.begin_dial(now_us, 9);
        peer.on_dial_failed(now_us, 9);
        assert_eq!(peer.on_accepted(ConnId(8)), None);
        assert!(peer.begin_dial(now_us, 10).is_some());
        assert_eq!(peer.on_accepted(ConnId(9)), Some(ConnId(8)), "a newer connection takes the older one's place");
    }

    #[test]
    fn the_window_counts_what_is_not_answered() {
        let mut peer = live(100);
        assert!(peer.has_window());
        assert_eq!(peer.next_beat(100, WINDOW_BYTES - 1), 1);
        assert!(peer.has_window());
        assert_eq!(peer.next_beat(200, 5), 2);
        assert!(!peer.has_window());
        assert_eq!(peer.on_beat(300, 0), None);
        assert_eq!(peer.on_beat(300, 1), Some(100), "the time at which it was sent, not the one of the answer");
        assert!(peer.has_window());
        assert_eq!(peer.on_beat(300, 2), Some(200));
        assert_eq!(peer.on_beat(300, 2), None, "answered already");
    }

    #[test]
    fn beats_of_ticks_are_told_from_appends() {
        let mut peer = live(100);
        assert_eq!([peer.next_beat(100, 10), peer.next_tick_beat(110), peer.next_beat(120, 10), peer.next_beat(130, 10)], [1, 2, 3, 4]);
        let is_beat = |peer: &mut Peer, beat: u64| (peer.on_beat(300, beat), peer.has_answered_beat());
        assert_eq!(is_beat(&mut peer, 1), (Some(100), false));
        assert_eq!(is_beat(&mut peer, 3), (Some(120), true), "one of two");
        assert_eq!(is_beat(&mut peer, 4), (Some(130), false));
    }

    #[test]
    fn a_connection_is_silent_when_something_is_not_answered_for_a_second() {
        let mut peer = live(0);
        assert!(!peer.is_silent(10 * SILENCE_US), "nothing was asked");
        peer.next_beat(10 * SILENCE_US, 0);
        assert!(!peer.is_silent(11 * SILENCE_US) && peer.is_silent(11 * SILENCE_US + 1));
        peer.on_beat(11 * SILENCE_US, 1);
        assert!(!peer.is_silent(20 * SILENCE_US));
    }

    #[test]
    fn what_was_queued_ends_with_its_connection() {
        let mut peer = live(0);
        let note = ShareNote { group: GroupId(1), term: Term(1), previous: GroupPosition::default(), count: 1, commit: LogIndex(0) };
        peer.push_share(note);
        assert_eq!(peer.shares.len(), 1);
        peer.next_beat(0, 1000);
        assert_eq!(peer.on_closed(0, ConnId(6)), None);
        assert_eq!(peer.on_closed(0, ConnId(5)), Some(false));
        peer.push_share(note);
        assert!(peer.shares.is_empty() && peer.live().is_none());
        assert!(peer.begin_dial(0, 2).is_none() && peer.begin_dial(REDIAL_US_MIN, 2).is_some() && peer.on_dialed(0, 2, ConnId(6)));
        assert_eq!((peer.next_number().1, peer.next_beat(0, 0)), (1, 1), "numbers and beats begin again");
    }
}
