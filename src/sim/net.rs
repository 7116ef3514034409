//! The network between clients and nodes: delays, frames in pieces, connections that are cut.
//!
//! Invariants: frames of a connection do not overtake each other; a cut connection loses what was on the way.
//!
//! Not here: the network between nodes (`peers.rs`).

use super::node::ShardAt;
use super::totals::Event as Counted;
use super::world::{CLIENTS_NODE, Item, Work, World};
use crate::effects::Event;
use crate::ids::ConnId;

/// A connection.
pub(super) struct Conn {
    pub(super) at: ShardAt,
    /// When the last frame arrives.
    last_to_server_us: u64,
    pub(super) last_to_client_us: u64,
    /// The rest of a frame never comes, and nothing behind it.
    is_stuck: bool,
    /// A piece of a frame is there, and the rest is not.
    has_piece: bool,
}

impl World {
    /// A client connects to a shard. `None` while no process listens.
    pub(super) fn connect(&mut self, at: ShardAt) -> Option<u64> {
        if !self.nodes[at.node].is_serving() {
            return None;
        }
        let conn = self.next_conn;
        self.next_conn += 1;
        self.conns
            .insert(conn, Conn { at, last_to_server_us: self.now_us, last_to_client_us: self.now_us, is_stuck: false, has_piece: false });
        self.hand(at, Work::Opened { conn });
        Some(conn)
    }

    /// A node that joins connects to the first shard of another one. What it is told comes as a client's frames do.
    pub(super) fn connect_node(&mut self, node: usize) -> u64 {
        let (at, conn) = (ShardAt { node, shard: 0 }, self.next_conn);
        self.next_conn += 1;
        self.conns
            .insert(conn, Conn { at, last_to_server_us: self.now_us, last_to_client_us: self.now_us, is_stuck: false, has_piece: false });
        self.step(at, Event::NodeOpened { conn: ConnId(conn) });
        self.end_of_turn(at);
        conn
    }

    /// A client sends. Now and then a frame arrives in two pieces, and once in a while the second one never comes.
    pub(super) fn send(&mut self, conn: u64, frame: Vec<u8>) {
        let node = self.conns.get(&conn).map_or(CLIENTS_NODE, |state| state.at.node);
        let delay = self.delay_us(node);
        let has_faults = !self.quiet && self.params.cut_every_us > 0;
        let dice = &mut self.nodes[node].net_dice;
        let rest_us = if has_faults && dice.once_in(100) { dice.within(10..200_000) } else { 0 };
        let stops = rest_us > 0 && dice.once_in(100);
        let Some(state) = self.conns.get_mut(&conn) else { return };
        if state.is_stuck {
            return self.give_back(frame);
        }
        let at = (self.now_us + delay).max(state.last_to_server_us);
        let after = at - self.now_us;
        state.last_to_server_us = at + rest_us;
        state.is_stuck = stops;
        if rest_us > 0 {
            self.totals.note(if stops { Counted::FramesCutShort } else { Counted::FramesInPieces });
            self.plan(after, Item::Piece { conn });
        }
        if !stops {
            self.plan(after + rest_us, Item::ToServer { conn, frame });
        }
    }

    pub(super) fn piece_came(&mut self, conn: u64) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        state.has_piece = true;
        let at = state.at;
        // Behind a frame that finds no room nothing is looked at.
        let seat = self.nodes[at.node].seats.get(at.shard);
        if !seat.is_some_and(|seat| seat.blocked.iter().any(|(blocked, _)| blocked.0 == conn)) {
            self.tell_piece(at, ConnId(conn));
        }
        self.end_of_turn(at);
    }

    /// A frame was taken in: what is behind it may be a piece.
    pub(super) fn tell_piece(&mut self, at: ShardAt, conn: ConnId) {
        if self.conns.get(&conn.0).is_some_and(|state| state.has_piece) {
            self.step(at, Event::Partial { conn });
        }
    }

    pub(super) fn deliver_to_server(&mut self, conn: u64, frame: Vec<u8>) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        state.has_piece = false;
        let at = state.at;
        self.frame(at, ConnId(conn), frame);
        self.end_of_turn(at);
    }

    pub(super) fn deliver_to_client(&mut self, node: usize, conn: u64, frame: Vec<u8>) {
        let delay = self.delay_us(node);
        let Some(state) = self.conns.get_mut(&conn) else { return };
        let at = (self.now_us + delay).max(state.last_to_client_us);
        state.last_to_client_us = at;
        let after = at - self.now_us;
        self.plan(after, Item::ToClient { conn, frame });
    }

    fn delay_us(&mut self, node: usize) -> u64 {
        if let Some(ruler) = &self.params.ruler {
            return ruler.client_way_us;
        }
        let dice = &mut self.nodes[node].net_dice;
        let usual = dice.within(5..60);
        // A lost packet that is sent again, a queue somewhere.
        if !self.quiet && self.params.cut_every_us > 0 && dice.once_in(200) { usual + dice.within(1000..300_000) } else { usual }
    }

    pub(super) fn close(&mut self, conn: u64) {
        let Some(state) = self.conns.remove(&conn) else { return };
        if let Some(seat) = self.nodes[state.at.node].seats.get_mut(state.at.shard) {
            seat.blocked.retain(|(c, _)| c.0 != conn);
            self.hand(state.at, Work::Closed { conn });
        }
    }

    /// Cuts a random connection of a client to this node. Answers which.
    pub(super) fn cut(&mut self, node: usize) -> Option<u64> {
        let count = self.conns.values().filter(|state| state.at.node == node).count() as u64;
        if count == 0 {
            return None;
        }
        let at = self.nodes[node].net_dice.below(count) as usize;
        let conn = *self.conns.iter().filter(|(_, state)| state.at.node == node).nth(at).expect("counted").0;
        self.close(conn);
        self.totals.note(Counted::ConnectionsCut);
        Some(conn)
    }
}
