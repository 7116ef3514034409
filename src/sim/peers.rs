//! The network between nodes: dialing, and connections that carry frames both ways, as two kernels and the rings above them do it.
//!
//! Shard S of node N listens at 10.0.0.N:7700+S while its process runs. Bytes travel as segments with delays (`peer_pipe.rs`); at the other end they
//! are framed and numbered by `tramline_wire::node::peek`, as the real edge does it, and given to the core one frame after the other. A frame that finds
//! no room stays with everything behind it, and what has not been read keeps the sender from sending more.
//!
//! Invariants: a dial ends in one `Dialed` or one `DialFailed`; after `Closed` nothing is told of a connection. What arrives is what was sent, from its
//! beginning, in order, without holes. Each ordered pair of nodes has dice of its own.
//!
//! Not here: cuts, kills, power (`peer_faults.rs`), clients (`net.rs`).

use super::Dice;
use super::node::ShardAt;
use super::peer_pipe::{Pipe, Segment};
use super::stopping::{ECANCELED, Stop};
use super::totals::Event as Counted;
use super::world::{Item, Work, World};
use crate::effects::Event;
use crate::ids::ConnId;
use crate::shard::Taken;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use tramline_wire::frame::Limits;
use tramline_wire::node::{self, Need, NodeError, Numbers};

const PORT: u16 = 7700;
pub(super) const ECONNREFUSED: i32 = 111;
pub(super) const ETIMEDOUT: i32 = 110;
/// A kernel sends the first packet of a connection again after this, and each time after twice as long.
const SYN_AGAIN_US: u64 = 1_000_000;
/// What a kernel sends again and again for so long, and nobody answers, ends the connection, or the dialing.
pub(super) const TIMEOUT_US: u64 = 5_000_000;
/// Four nodes, two shards on either side and four classes make 32 for a node; the rest is room for those that wait for their time-out.
const DIALS_MAX: usize = 1000;
/// How long a connection that is being closed may take for what was sent before: the runtime's number.
const CLOSE_US: u64 = 5_000_000;

/// What travels between nodes, and the clocks of their kernels.
pub(super) enum Packet {
    /// A dial's first packet arrives.
    Syn { dial: u64 },
    /// The answer to it arrives: the connection stands.
    SynAck { dial: u64, wire: u64 },
    /// The answer that nobody listens.
    Refused { dial: u64 },
    /// The first packet was not answered.
    SynAgain { dial: u64 },
    /// The next segment that `side` has sent arrives.
    Segment { wire: u64, side: usize },
    /// What was lost of what `side` has sent is sent again.
    Again { wire: u64, side: usize },
    /// `side` is told that there is nobody at the other end.
    Reset { wire: u64, side: usize },
    /// `side` has sent again and again since then.
    TimeOut { wire: u64, side: usize, since_us: u64 },
    /// A cut is mended, if it is still the one that began then.
    Heal { from: usize, to: usize, since_us: u64 },
}

/// A connection under way.
pub(super) struct Dialing {
    pub(super) at: ShardAt,
    /// The core's number for it.
    dial: u64,
    to: ShardAt,
    began_us: u64,
    tries: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndState {
    /// The process was not told of it yet.
    Waiting,
    Open,
    /// The core has closed it; what was sent before goes out.
    Closing,
    /// There is no such socket (any more).
    Gone,
}

/// One end of a connection.
pub(super) struct End {
    pub(super) at: ShardAt,
    pub(super) conn: u64,
    pub(super) state: EndState,
    /// What the edge has received and the core has not taken.
    inbox: Vec<u8>,
    numbers: Numbers,
}

/// A connection. Side 0 has dialed. `pipes[side]` is what `side` sends.
pub(super) struct Wire {
    pub(super) ends: [End; 2],
    pub(super) pipes: [Pipe; 2],
    /// The one who dials knows that it stands.
    pub(super) is_established: bool,
}

/// The way from one node to another.
pub(super) struct Path {
    pub(super) dice: Dice,
    /// Since when it loses everything.
    pub(super) cut_since_us: Option<u64>,
}

pub(super) struct Peers {
    pub(super) wires: BTreeMap<u64, Wire>,
    /// Which side of which wire a connection is.
    pub(super) conns: BTreeMap<u64, (u64, usize)>,
    pub(super) dials: BTreeMap<u64, Dialing>,
    /// Counts dials and wires.
    next: u64,
    nodes: usize,
    paths: Vec<Path>,
}

/// Where an address leads; `None` where no shard could be.
pub(super) fn shard_at(address: SocketAddr) -> Option<ShardAt> {
    let IpAddr::V4(ip) = address.ip() else { return None };
    let [10, 0, 0, id] = ip.octets() else { return None };
    Some(ShardAt { node: usize::from(id.checked_sub(1)?), shard: usize::from(address.port().checked_sub(PORT)?) })
}

impl Peers {
    pub(super) fn new(seed: u64, nodes: usize) -> Peers {
        let path = |from: usize, to: usize| Path { dice: Dice::stream(seed, &format!("way {from} {to}")), cut_since_us: None };
        let paths = (0..nodes * nodes).map(|number| path(number / nodes, number % nodes)).collect();
        Peers { wires: BTreeMap::new(), conns: BTreeMap::new(), dials: BTreeMap::new(), next: 1, nodes, paths }
    }

    /// Whether a connection is one between nodes.
    pub(super) fn has(&self, conn: u64) -> bool {
        self.conns.contains_key(&conn)
    }

    pub(super) fn path(&mut self, from: usize, to: usize) -> &mut Path {
        &mut self.paths[from * self.nodes + to]
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }
}

impl World {
    pub(super) fn packet(&mut self, packet: Packet) {
        match packet {
            Packet::Syn { dial } => self.on_syn(dial),
            Packet::SynAck { dial, wire } => self.on_syn_ack(dial, wire),
            Packet::Refused { dial } => self.on_refused_dial(dial),
            Packet::SynAgain { dial } => self.on_syn_again(dial),
            Packet::Segment { wire, side } => self.on_segment(wire, side),
            Packet::Again { wire, side } => self.on_again(wire, side),
            Packet::Reset { wire, side } => self.on_reset(wire, side),
            Packet::TimeOut { wire, side, since_us } => self.on_time_out(wire, side, since_us),
            Packet::Heal { from, to, since_us } => {
                if self.peers.path(from, to).cut_since_us == Some(since_us) {
                    self.heal_way(from, to);
                }
            }
        }
    }

    /// Whether what is sent arrives: the way is not cut, and the machine at its end has power.
    pub(super) fn reaches(&mut self, from: usize, to: usize) -> bool {
        self.nodes[to].has_power && self.peers.path(from, to).cut_since_us.is_none()
    }

    pub(super) fn plan_packet(&mut self, from: usize, to: usize, bytes: usize, packet: Packet) {
        let after = self.way_us(from, to, bytes);
        self.plan(after, Item::Packet(packet));
    }

    /// How long a packet takes from one node to another.
    fn way_us(&mut self, from: usize, to: usize, bytes: usize) -> u64 {
        if let Some(ruler) = &self.params.ruler {
            return ruler.way_us[from][to];
        }
        let has_faults = !self.quiet && self.params.cut_every_us > 0;
        let dice = &mut self.peers.path(from, to).dice;
        let usual = dice.within(15..80) + bytes as u64 / 2000;
        // A lost packet that is sent again, a queue somewhere.
        if has_faults && dice.once_in(500) { usual + dice.within(1000..300_000) } else { usual }
    }

    // --- dialing ----------------------------------------------------------------------------------------------------------------

    pub(super) fn dial(&mut self, at: ShardAt, dial: u64, address: SocketAddr) {
        let to = shard_at(address).filter(|to| to.node < self.nodes.len() && to.node != at.node);
        let to = to.unwrap_or_else(|| panic!("node {} dials {address}, where no other node is", at.node + 1));
        if self.nodes[at.node].seats.get(at.shard).is_some_and(|seat| matches!(seat.stop, Stop::Over { .. })) {
            return self.plan_work(0, at, Work::DialFailed { dial, errno: ECANCELED });
        }
        let number = self.peers.number();
        assert!(self.peers.dials.len() < DIALS_MAX, "{DIALS_MAX} dials are under way: who dials does not wait for the answer");
        self.peers.dials.insert(number, Dialing { at, dial, to, began_us: self.now_us, tries: 0 });
        self.send_syn(number);
    }

    fn send_syn(&mut self, number: u64) {
        let Some(dialing) = self.peers.dials.get_mut(&number) else { return };
        let (from, to) = (dialing.at.node, dialing.to.node);
        let again_us = SYN_AGAIN_US << dialing.tries;
        dialing.tries += 1;
        let left_us = (dialing.began_us + TIMEOUT_US).saturating_sub(self.now_us);
        self.plan(again_us.min(left_us), Item::Packet(Packet::SynAgain { dial: number }));
        self.plan_packet(from, to, 0, Packet::Syn { dial: number });
    }

    fn on_syn_again(&mut self, number: u64) {
        let Some(dialing) = self.peers.dials.get(&number) else { return };
        if self.now_us < dialing.began_us + TIMEOUT_US {
            return self.send_syn(number);
        }
        self.fail_dial(number, ETIMEDOUT);
    }

    fn fail_dial(&mut self, number: u64, errno: i32) {
        let Some(Dialing { at, dial, .. }) = self.peers.dials.remove(&number) else { return };
        self.hand(at, Work::DialFailed { dial, errno });
    }

    /// What a shard dials is given up: the core's numbers.
    pub(super) fn forget_dials(&mut self, at: ShardAt) -> Vec<u64> {
        let mut forgotten = Vec::new();
        self.peers.dials.retain(|_, dialing| {
            if dialing.at == at {
                forgotten.push(dialing.dial);
            }
            dialing.at != at
        });
        forgotten
    }

    fn on_syn(&mut self, number: u64) {
        let Some(dialing) = self.peers.dials.get(&number) else { return };
        let (at, to) = (dialing.at, dialing.to);
        if !self.reaches(at.node, to.node) {
            return;
        }
        // A process that is paused listens as well: its kernel accepts.
        if self.nodes[to.node].seats.get(to.shard).is_none_or(|seat| seat.failed || seat.stop != Stop::No) {
            return self.plan_packet(to.node, at.node, 0, Packet::Refused { dial: number });
        }
        let wire = self.peers.number();
        let ends = [at, to].map(|at| {
            let conn = self.next_conn;
            self.next_conn += 1;
            End { at, conn, state: EndState::Waiting, inbox: Vec::new(), numbers: Numbers::new() }
        });
        self.peers.wires.insert(wire, Wire { ends, pipes: Default::default(), is_established: false });
        self.plan_packet(to.node, at.node, 0, Packet::SynAck { dial: number, wire });
    }

    fn on_refused_dial(&mut self, number: u64) {
        let Some(dialing) = self.peers.dials.get(&number) else { return };
        let (at, to) = (dialing.at, dialing.to);
        if self.reaches(to.node, at.node) {
            self.fail_dial(number, ECONNREFUSED);
        }
    }

    fn on_syn_ack(&mut self, number: u64, wire: u64) {
        let ways = self.peers.dials.get(&number).map(|dialing| (dialing.to.node, dialing.at.node));
        let Some((to, from)) = ways.filter(|(to, from)| self.reaches(*to, *from)) else {
            // Lost, or a second answer. What was to be a connection is forgotten at its other end.
            self.peers.wires.remove(&wire);
            return;
        };
        let Some(state) = self.peers.wires.get_mut(&wire) else {
            // The one who accepted has ended meanwhile; where its machine has power, that says so.
            if self.nodes[to].has_power {
                self.plan_packet(to, from, 0, Packet::Refused { dial: number });
            }
            return;
        };
        state.is_established = true;
        let ends = [0, 1].map(|side| (state.ends[side].conn, (wire, side)));
        self.peers.conns.extend(ends);
        let Some(Dialing { at, dial, .. }) = self.peers.dials.remove(&number) else { return };
        self.totals.note(Counted::PeersConnected);
        self.put_on_way(wire, 0, Segment::Open);
        self.hand(at, Work::Dialed { dial, conn: ends[0].0 });
    }

    pub(super) fn on_dialed(&mut self, at: ShardAt, dial: u64, conn: u64) {
        let (wire, side) = self.peers.conns[&conn];
        self.peers.wires.get_mut(&wire).expect("who was not told of it has it").ends[side].state = EndState::Open;
        self.step(at, Event::Dialed { dial, conn: ConnId(conn) });
        self.read_again(conn);
        self.end_of_turn(at);
    }

    // --- sending ----------------------------------------------------------------------------------------------------------------

    pub(super) fn send_to_peer(&mut self, conn: u64, frame: Vec<u8>) {
        let Some((wire, side)) = self.peers.conns.get(&conn).copied() else { return self.give_back(frame) };
        let state = self.peers.wires.get_mut(&wire).expect("it has the connection");
        if state.ends[side].state != EndState::Open {
            return self.give_back(frame);
        }
        state.pipes[side].push(frame);
        self.pump(wire, side);
    }

    /// What there is room for goes out, while the sender's process runs.
    pub(super) fn pump(&mut self, wire: u64, side: usize) {
        let Some(state) = self.peers.wires.get_mut(&wire) else { return };
        let End { at, conn, state: is, .. } = state.ends[side];
        if self.nodes[at.node].pause.is_on() || !matches!(is, EndState::Open | EndState::Closing) {
            return;
        }
        let mut has_sent = false;
        while let Some(bytes) = self.peers.wires.get_mut(&wire).and_then(|state| state.pipes[side].pop_segment()) {
            has_sent = true;
            self.put_on_way(wire, side, Segment::Bytes(bytes));
        }
        let Some(state) = self.peers.wires.get_mut(&wire) else { return };
        let pipe = &mut state.pipes[side];
        if !has_sent {
            return;
        }
        if is == EndState::Closing && pipe.queued_bytes() == 0 {
            self.plan_work(0, at, Work::PeerCloses { conn, is_given_up: false });
        } else if !std::mem::replace(&mut pipe.is_sent_planned, true) {
            let after = if self.params.ruler.is_some() { 0 } else { self.sent_us(at.node) };
            self.plan_work(after, at, Work::PeerSent { conn });
        }
    }

    /// When a ring says what has gone out.
    fn sent_us(&mut self, node: usize) -> u64 {
        self.peers.path(node, node).dice.within(1..10)
    }

    pub(super) fn put_on_way(&mut self, wire: u64, side: usize, segment: Segment) {
        let Some(state) = self.peers.wires.get(&wire) else { return };
        let (from, to) = (state.ends[side].at.node, state.ends[1 - side].at.node);
        let bytes = if let Segment::Bytes(bytes) = &segment { bytes.len() } else { 0 };
        let at_us = self.now_us + self.way_us(from, to, bytes);
        let pipe = &mut self.peers.wires.get_mut(&wire).expect("looked at above").pipes[side];
        pipe.put_on_way(segment);
        pipe.last_us = pipe.last_us.max(at_us);
        let after = pipe.last_us - self.now_us;
        self.plan(after, Item::Packet(Packet::Segment { wire, side }));
    }

    pub(super) fn on_peer_sent(&mut self, at: ShardAt, conn: u64) {
        let Some((wire, side)) = self.peers.conns.get(&conn).copied() else { return };
        let pipe = &mut self.peers.wires.get_mut(&wire).expect("it has the connection").pipes[side];
        pipe.is_sent_planned = false;
        let queued_bytes = pipe.queued_bytes();
        self.step(at, Event::Sent { conn: ConnId(conn), queued_bytes });
        self.end_of_turn(at);
    }

    // --- receiving --------------------------------------------------------------------------------------------------------------

    fn on_segment(&mut self, wire: u64, side: usize) {
        let Some(state) = self.peers.wires.get(&wire) else { return };
        let (from, receiver) = (state.ends[side].at.node, state.ends[1 - side].at);
        let is_gone = state.ends[1 - side].state == EndState::Gone;
        let reaches = self.reaches(from, receiver.node);
        let pipe = &mut self.peers.wires.get_mut(&wire).expect("looked at above").pipes[side];
        let had_lost = pipe.has_lost();
        match pipe.arrive(!reaches || is_gone) {
            Some(mut segment) => {
                if let Segment::Bytes(bytes) = &mut segment {
                    self.maybe_flip(from, receiver.node, bytes);
                }
                let pipe = &mut self.peers.wires.get_mut(&wire).expect("looked at above").pipes[side];
                pipe.arrived.push_back(segment);
                self.read(wire, side);
                self.end_of_turn_if_running(receiver);
            }
            None if had_lost => {}
            None => {
                self.begin_stuck(wire, side);
                if reaches {
                    self.plan_packet(receiver.node, from, 0, Packet::Reset { wire, side });
                }
            }
        }
    }

    /// A bit flips on its way where no sum of the network's sees it: in a router's memory, say.
    fn maybe_flip(&mut self, from: usize, to: usize, bytes: &mut [u8]) {
        let (is_quiet, flip_in) = (self.quiet, self.params.flip_in);
        let dice = &mut self.peers.path(from, to).dice;
        if is_quiet || bytes.is_empty() || !dice.once_in(flip_in) {
            return;
        }
        let (at, bit) = (dice.below(bytes.len() as u64) as usize, dice.below(8));
        bytes[at] ^= 1 << bit;
        self.totals.note(Counted::PeerBitsFlipped);
    }

    /// What has arrived at the other end of `side` is read, as far as there is room and the process runs.
    pub(super) fn read(&mut self, wire: u64, side: usize) {
        loop {
            let Some(state) = self.peers.wires.get_mut(&wire) else { return };
            let End { at, conn, state: is, .. } = state.ends[1 - side];
            let (node, is_dialer) = (&self.nodes[at.node], side == 1);
            let is_blocked = node.seats.get(at.shard).is_none_or(|seat| seat.blocked_peers.contains(&conn));
            if node.pause.is_on() || is_blocked || is == EndState::Gone || is == EndState::Waiting && is_dialer {
                return;
            }
            match state.pipes[side].arrived.pop_front() {
                None => return,
                // It was on its way through the kernel when its shard began to stop.
                Some(Segment::Open) if node.seats[at.shard].stop != Stop::No => return self.abort_wire(wire, 1 - side),
                Some(Segment::Open) => {
                    state.ends[1 - side].state = EndState::Open;
                    self.step(at, Event::NodeOpened { conn: ConnId(conn) });
                }
                Some(Segment::Bytes(bytes)) => {
                    self.on_read(wire, side, bytes.len());
                    self.take_in(wire, 1 - side, bytes);
                    self.feed(wire, 1 - side);
                }
                Some(Segment::End) => self.end_wire(wire, 1 - side, true),
            }
        }
    }

    /// The window moves, and the sender hears of it unless the way back is cut.
    fn on_read(&mut self, wire: u64, side: usize, bytes: usize) {
        let Some(state) = self.peers.wires.get(&wire) else { return };
        let (from, to) = (state.ends[side].at.node, state.ends[1 - side].at.node);
        let is_told = self.reaches(to, from);
        if let Some(state) = self.peers.wires.get_mut(&wire) {
            state.pipes[side].on_read(bytes, is_told);
        }
        match is_told {
            true => self.pump(wire, side),
            false => self.begin_stuck(wire, side),
        }
    }

    fn take_in(&mut self, wire: u64, side: usize, bytes: Vec<u8>) {
        let Some(state) = self.peers.wires.get_mut(&wire) else { return };
        let inbox = &mut state.ends[side].inbox;
        if inbox.is_empty() {
            let spare = std::mem::replace(inbox, bytes);
            return self.give_back(spare);
        }
        inbox.extend_from_slice(&bytes);
        self.give_back(bytes);
    }

    /// Hands every whole frame to the core. One that is blocked stays, with what is behind it.
    fn feed(&mut self, wire: u64, side: usize) {
        let Some(state) = self.peers.wires.get_mut(&wire) else { return };
        let end = &mut state.ends[side];
        let (at, conn, mut numbers, mut inbox) = (end.at, end.conn, end.numbers, std::mem::take(&mut end.inbox));
        let mut taken_bytes = 0;
        let refused: Result<(), NodeError> = loop {
            let limits = if numbers == Numbers::new() { Limits::BEFORE_HELLO } else { Limits::PROTOCOL };
            match node::peek(&inbox[taken_bytes..], &limits, &numbers) {
                Ok(Need::More(_)) => break Ok(()),
                Ok(Need::Whole(frame, len)) => match self.step(at, Event::NodeFrame { conn: ConnId(conn), frame: &frame }) {
                    Some(Taken::Blocked) => {
                        self.nodes[at.node].seats[at.shard].blocked_peers.push_back(conn);
                        break Ok(());
                    }
                    _ => {
                        taken_bytes += len;
                        numbers.advance();
                    }
                },
                Err(error) => break Err(error),
            }
        };
        inbox.drain(..taken_bytes);
        let state = self.peers.wires.get_mut(&wire).expect("a core that is told a frame ends no wire at once");
        (state.ends[side].numbers, state.ends[side].inbox) = (numbers, inbox);
        if let Err(error) = refused {
            self.totals.note(Counted::PeerFramesRefused);
            self.say_of(at.node, || format!("shard {}: bytes of another node are refused: {error}", at.shard));
            self.abort_wire(wire, side);
        }
    }

    /// A frame that was blocked is tried again, then what is behind it.
    pub(super) fn read_again(&mut self, conn: u64) {
        let Some((wire, side)) = self.peers.conns.get(&conn).copied() else { return };
        self.feed(wire, side);
        self.read(wire, 1 - side);
    }

    /// A process that is paused has no turns.
    pub(super) fn end_of_turn_if_running(&mut self, at: ShardAt) {
        if !self.nodes[at.node].pause.is_on() {
            self.end_of_turn(at);
        }
    }

    // --- closing ----------------------------------------------------------------------------------------------------------------

    /// The core closes a connection: once what was sent before has gone out.
    pub(super) fn begin_peer_close(&mut self, conn: u64) {
        let Some((wire, side)) = self.peers.conns.get(&conn).copied() else { return };
        let state = self.peers.wires.get_mut(&wire).expect("it has the connection");
        if state.ends[side].state != EndState::Open {
            return;
        }
        state.ends[side].state = EndState::Closing;
        let at = state.ends[side].at;
        if state.pipes[side].queued_bytes() == 0 {
            self.plan_work(0, at, Work::PeerCloses { conn, is_given_up: false });
        }
        self.plan_work(CLOSE_US, at, Work::PeerCloses { conn, is_given_up: true });
    }

    pub(super) fn on_peer_closes(&mut self, at: ShardAt, conn: u64, is_given_up: bool) {
        let Some((wire, side)) = self.peers.conns.get(&conn).copied() else { return };
        match is_given_up {
            true => self.abort_wire(wire, side),
            false => {
                self.put_on_way(wire, side, Segment::End);
                self.end_wire(wire, side, true);
            }
        }
        self.end_of_turn(at);
    }

    /// `side` closes at once, and the other one is told.
    fn abort_wire(&mut self, wire: u64, side: usize) {
        let Some(state) = self.peers.wires.get(&wire) else { return };
        let (from, to) = (state.ends[side].at.node, state.ends[1 - side].at.node);
        self.plan_packet(from, to, 0, Packet::Reset { wire, side: 1 - side });
        self.end_wire(wire, side, true);
    }

    /// There is no such socket at `side` any more; the core there is told unless its process has ended. What is on its way from there goes on.
    pub(super) fn end_wire(&mut self, wire: u64, side: usize, tells: bool) {
        let Some(state) = self.peers.wires.get_mut(&wire) else { return };
        let End { at, conn, state: was, .. } = state.ends[side];
        if was == EndState::Gone {
            return;
        }
        let end = &mut state.ends[side];
        (end.state, end.inbox) = (EndState::Gone, Vec::new());
        state.pipes[side].forget_queue();
        state.pipes[1 - side].arrived.clear();
        let other = &state.ends[1 - side];
        // Who accepts and was not told yet never is, where nobody sends that again.
        if other.state == EndState::Gone || side == 0 && other.state == EndState::Waiting && state.pipes[side].is_abandoned {
            self.peers.conns.remove(&other.conn);
            self.peers.wires.remove(&wire);
        }
        self.peers.conns.remove(&conn);
        if let Some(seat) = self.nodes[at.node].seats.get_mut(at.shard) {
            seat.blocked_peers.retain(|blocked| *blocked != conn);
        }
        // One that was never told of it is not told of its end.
        if tells && was != EndState::Waiting {
            self.step(at, Event::Closed { conn: ConnId(conn) });
        }
    }
}
