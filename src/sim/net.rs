//! The network between clients and the node: delays, frames in pieces, connections that are cut.
//!
//! Invariants: frames of a connection do not overtake each other; a cut connection loses what was on the way.

use super::totals::Event as Counted;
use super::world::{Item, World};
use crate::effects::Event;
use crate::ids::ConnId;

/// A connection.
pub(super) struct Conn {
    pub(super) shard: usize,
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
    pub(super) fn connect(&mut self, shard: usize) -> Option<u64> {
        if !self.node.is_serving() {
            return None;
        }
        let conn = self.next_conn;
        self.next_conn += 1;
        self.conns.insert(
            conn,
            Conn { shard, last_to_server_us: self.now_us, last_to_client_us: self.now_us, is_stuck: false, has_piece: false },
        );
        self.step(shard, Event::Opened { conn: ConnId(conn) });
        self.end_of_turn(shard);
        Some(conn)
    }

    /// A client sends. Now and then a frame arrives in two pieces, and once in a while the second one never comes.
    pub(super) fn send(&mut self, conn: u64, frame: Vec<u8>) {
        let delay = self.delay_us();
        let has_faults = !self.quiet && self.params.cut_every_us > 0;
        let rest_us = if has_faults && self.net_dice.once_in(100) { self.net_dice.within(10..200_000) } else { 0 };
        let stops = rest_us > 0 && self.net_dice.once_in(100);
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
        let shard = state.shard;
        // Behind a frame that finds no room nothing is looked at.
        if !self.node.seats.get(shard).is_some_and(|seat| seat.blocked.iter().any(|(blocked, _)| blocked.0 == conn)) {
            self.tell_piece(shard, ConnId(conn));
        }
        self.end_of_turn(shard);
    }

    /// A frame was taken in: what is behind it may be a piece.
    pub(super) fn tell_piece(&mut self, shard: usize, conn: ConnId) {
        if self.conns.get(&conn.0).is_some_and(|state| state.has_piece) {
            self.step(shard, Event::Partial { conn });
        }
    }

    pub(super) fn deliver_to_server(&mut self, conn: u64, frame: Vec<u8>) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        state.has_piece = false;
        let shard = state.shard;
        self.frame(shard, ConnId(conn), frame);
        self.end_of_turn(shard);
    }

    pub(super) fn deliver_to_client(&mut self, conn: u64, frame: Vec<u8>) {
        let delay = self.delay_us();
        let Some(state) = self.conns.get_mut(&conn) else { return };
        let at = (self.now_us + delay).max(state.last_to_client_us);
        state.last_to_client_us = at;
        let after = at - self.now_us;
        self.plan(after, Item::ToClient { conn, frame });
    }

    fn delay_us(&mut self) -> u64 {
        let dice = &mut self.net_dice;
        let usual = dice.within(5..60);
        // A lost packet that is sent again, a queue somewhere.
        if !self.quiet && self.params.cut_every_us > 0 && dice.once_in(200) { usual + dice.within(1000..300_000) } else { usual }
    }

    pub(super) fn close(&mut self, conn: u64) {
        let Some(state) = self.conns.remove(&conn) else { return };
        if let Some(seat) = self.node.seats.get_mut(state.shard) {
            seat.blocked.retain(|(c, _)| c.0 != conn);
            self.step(state.shard, Event::Closed { conn: ConnId(conn) });
            self.end_of_turn(state.shard);
        }
    }

    /// Cuts a random connection. Answers which.
    pub(super) fn cut(&mut self) -> Option<u64> {
        let count = self.conns.len() as u64;
        if count == 0 {
            return None;
        }
        let at = self.net_dice.below(count) as usize;
        let conn = *self.conns.keys().nth(at).expect("counted");
        self.close(conn);
        self.totals.note(Counted::ConnectionsCut);
        Some(conn)
    }
}
