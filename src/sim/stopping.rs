//! The orderly stop of a node, as SIGTERM begins it: what `runtime/shard_loop.rs` and the edge do around `Shard::has_stopped`.
//!
//! Each shard is told by a message, accepts nobody from then on, and is looked at after each of its turns. When it has nothing left to do, all its connections
//! are closed, those with other nodes too, nothing is dialed any more, and who does not go within half a second is cut. With its last connection its thread
//! ends, and with the last thread the process.
//!
//! Invariants: a shard whose thread has ended is told nothing; nothing of its is under way on its disk.
//!
//! Not here: what a shard does in it (shard/sealing.rs, shard/preferring.rs), when nodes are stopped (`cluster/restarting.rs`).

use super::node::ShardAt;
use super::peers::EndState;
use super::totals::Event as Counted;
use super::world::{Item, Work, World};
use crate::shard::mesh::Message;

/// Who does not read is cut so long after the last close: the runtime's number.
const LAST_CLOSE_US: u64 = 500_000;
/// Between a turn of a shard that stops and the look at whether it is through: a cycle of its loop.
const LOOK_US: u64 = 5;
pub(super) const ECANCELED: i32 = 125;

/// How far the stop of a shard has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stop {
    #[default]
    No,
    Begun,
    /// Its connections have been closed, and are cut at this time.
    Over {
        cut_us: u64,
    },
    /// Its thread has ended.
    Ended,
}

impl World {
    /// The process gets a SIGTERM. One that is paused takes it when it goes on.
    pub(super) fn stop_in_order(&mut self, node: usize) {
        self.say_of(node, || "it is told to stop in order".to_owned());
        let it = &mut self.nodes[node];
        it.is_stopping = true;
        let (life, limit_us) = (it.life, it.settings.shutdown_timeout_us);
        for shard in 0..it.seats.len() {
            let at = ShardAt { node, shard };
            self.plan_work(LOOK_US, at, Work::Mesh { from: shard, message: Box::new(Message::Stop) });
        }
        self.plan(limit_us, Item::StopOverdue { node, life });
    }

    /// A shard is told to stop: its sockets are closed for whoever would connect.
    pub(super) fn begin_stop(&mut self, at: ShardAt) {
        if let Some(seat) = self.nodes[at.node].seats.get_mut(at.shard).filter(|seat| seat.stop == Stop::No) {
            seat.stop = Stop::Begun;
        }
    }

    /// Behind a turn of a shard that stops.
    pub(super) fn plan_look_at_stop(&mut self, at: ShardAt) {
        let Some(seat) = self.nodes[at.node].seats.get_mut(at.shard) else { return };
        if matches!(seat.stop, Stop::Begun | Stop::Over { .. }) && !std::mem::replace(&mut seat.stop_look_planned, true) {
            self.plan_work(LOOK_US, at, Work::LookAtStop);
        }
    }

    /// Whether the shard's stop has nothing left to do: then its connections are closed, and behind the last one its thread ends.
    pub(super) fn look_at_stop(&mut self, at: ShardAt) {
        let now_us = self.now_us;
        let Some(seat) = self.nodes[at.node].seats.get_mut(at.shard) else { return };
        seat.stop_look_planned = false;
        if !seat.core.has_stopped() {
            return;
        }
        let is_closing = matches!(seat.stop, Stop::Over { cut_us } if now_us < cut_us);
        if self.has_conns(at) && !is_closing {
            self.close_for_good(at);
        }
        if self.has_conns(at) {
            return;
        }
        let node = &mut self.nodes[at.node];
        let under_way = node.disks[at.shard].disk.under_way.len();
        if under_way > 0 {
            // The ring of a shard that has failed waits for that.
            assert!(node.seats[at.shard].failed, "shard {} of node {} has stopped, and its disk is at work", at.shard, at.node + 1);
            return;
        }
        node.seats[at.shard].stop = Stop::Ended;
        if node.seats.iter().all(|seat| seat.stop == Stop::Ended) {
            let life = node.life;
            self.plan(1, Item::Stopped { node: at.node, life });
        }
    }

    /// How far each shard's stop is, and the connections that it has.
    pub(super) fn stop_in_words(&self, node: usize) -> String {
        let seats = self.nodes[node].seats.iter().enumerate().map(|(shard, seat)| {
            let at = ShardAt { node, shard };
            let clients = self.conns.values().filter(|conn| conn.at == at).count();
            let ends = self.peers.wires.values().flat_map(|wire| &wire.ends).filter(|end| end.at == at);
            let peers: Vec<_> = ends.map(|end| (end.conn, end.state)).collect();
            format!("shard {shard}: {:?}, through {}, {clients} clients, {peers:?}", seat.stop, seat.core.has_stopped())
        });
        seats.collect::<Vec<_>>().join("; ")
    }

    fn has_conns(&self, at: ShardAt) -> bool {
        let mut ends = self.peers.wires.values().flat_map(|wire| &wire.ends);
        self.conns.values().any(|conn| conn.at == at)
            || ends.any(|end| end.at == at && matches!(end.state, EndState::Open | EndState::Closing))
    }

    fn close_for_good(&mut self, at: ShardAt) {
        let cut_us = self.now_us + LAST_CLOSE_US;
        let seat = &mut self.nodes[at.node].seats[at.shard];
        seat.stop = Stop::Over { cut_us };
        seat.core.close_all(&mut seat.effects);
        self.carry(at);
        // Nodes that joined have left connections that the core knows as theirs.
        let conns = self.conns.iter().filter(|(_, conn)| conn.at == at);
        let left: Vec<_> = conns.map(|(conn, state)| (*conn, state.last_to_client_us.saturating_sub(self.now_us))).collect();
        left.into_iter().for_each(|(conn, after_us)| self.plan(after_us, Item::ServerCloses { conn }));
        let ends = self.peers.wires.values().flat_map(|wire| &wire.ends).filter(|end| end.at == at);
        let conns: Vec<u64> = ends.filter(|end| matches!(end.state, EndState::Open | EndState::Closing)).map(|end| end.conn).collect();
        for conn in conns {
            self.begin_peer_close(conn);
            self.plan_work(LAST_CLOSE_US, at, Work::PeerCloses { conn, is_given_up: true });
        }
        for dial in self.forget_dials(at) {
            self.plan_work(0, at, Work::DialFailed { dial, errno: ECANCELED });
        }
        // Whoever has come in between is closed then.
        self.plan_work(LAST_CLOSE_US + 1, at, Work::LookAtStop);
    }

    /// The last thread has ended, and the process with it. Answers the clients' connections that are gone, of which there are none.
    pub(super) fn end_in_order(&mut self, node: usize) -> Vec<u64> {
        self.totals.note(Counted::OrderlyStops);
        self.say_of(node, || "it has stopped in order".to_owned());
        self.nodes[node].has_ended_in_order = !self.nodes[node].has_failing_disk;
        self.end_life(node, false)
    }
}
