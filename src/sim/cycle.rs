//! The loop around a shard, as the runtime has it: an event, the end of a turn, at most once a millisecond a background turn, and the deadline
//! asked for; then everything is carried out that the core asked for.
//!
//! Not here: the order of events (`world.rs`), what disks (`storage.rs`) and networks (`net.rs`, `peers.rs`) make of it.

use super::node::ShardAt;
use super::stopping::Stop;
use super::totals::Event as Counted;
use super::world::{Item, Work, World};
use crate::config::DiskLevel;
use crate::constants::{TURN_BYTES, TURN_EVERY_US, TURN_US};
use crate::effects::{Effect, Event};
use crate::ids::ConnId;
use crate::shard::Taken;
use crate::shard::mesh::Message;
use tramline_wire::frame::{self, Need};
use tramline_wire::kind::Kind;

/// A background turn at most this often: `TURN_EVERY_US`, and in a cluster less often: what it does in turns is not what is looked at, and most of a run's time went there.
const CLUSTER_TURN_EVERY_US: u64 = 5000;
/// What one cycle of the loop takes at least.
const CYCLE_US: u64 = 5;

impl World {
    pub(super) fn step(&mut self, at: ShardAt, event: Event<'_>) -> Option<Taken> {
        let node = &mut self.nodes[at.node];
        assert!(!node.pause.is_on(), "a process that is paused does nothing");
        let now = node.clock.now(self.now_us);
        let seat = node.seats.get_mut(at.shard).filter(|seat| seat.stop != Stop::Ended)?;
        let taken = seat.core.step(now, event, &mut seat.effects);
        self.carry(at);
        Some(taken)
    }

    pub(super) fn end_of_turn(&mut self, at: ShardAt) {
        self.step(at, Event::EndOfTurn);
        self.retry(at);
        self.plan_look_at_stop(at);
        let node = &mut self.nodes[at.node];
        let now = node.clock.now(self.now_us).mono_us;
        let Some(seat) = node.seats.get_mut(at.shard) else { return };
        if !seat.turn_planned {
            seat.turn_planned = true;
            let every_us = if self.params.is_cluster { CLUSTER_TURN_EVERY_US } else { TURN_EVERY_US };
            let after = (seat.last_turn_us + every_us).saturating_sub(now);
            self.plan_work(after, at, Work::Turn);
        }
    }

    pub(super) fn turn(&mut self, at: ShardAt) {
        let node = &mut self.nodes[at.node];
        let now = node.clock.now(self.now_us).mono_us;
        let Some(seat) = node.seats.get_mut(at.shard) else { return };
        (seat.turn_planned, seat.last_turn_us) = (false, now);
        self.step(at, Event::Turn { bytes: TURN_BYTES, us: TURN_US });
        self.step(at, Event::EndOfTurn);
        self.retry(at);
        self.plan_look_at_stop(at);
    }

    fn retry(&mut self, at: ShardAt) {
        let Some(seat) = self.nodes[at.node].seats.get_mut(at.shard) else { return };
        if std::mem::take(&mut seat.retry) {
            let peers = std::mem::take(&mut seat.blocked_peers);
            for (conn, frame) in std::mem::take(&mut seat.blocked) {
                self.frame(at, conn, frame);
            }
            for conn in peers {
                self.read_again(conn);
            }
        }
    }

    /// A frame for the core. One that is blocked is kept, and those behind it on the same connection wait with it.
    pub(super) fn frame(&mut self, at: ShardAt, conn: ConnId, bytes: Vec<u8>) {
        let Some(seat) = self.nodes[at.node].seats.get_mut(at.shard) else { return };
        if seat.blocked.iter().any(|(c, _)| *c == conn) {
            return seat.blocked.push_back((conn, bytes));
        }
        let Ok(Need::Whole(frame, _)) = frame::peek(&bytes, &frame::Limits::PROTOCOL) else { panic!("clients send whole frames") };
        match self.step(at, Event::Frame { conn, frame: &frame }) {
            Some(Taken::Blocked) => {
                let node = &mut self.nodes[at.node];
                if frame.header.kind == Kind::Produce.as_u8() && node.space.level >= DiskLevel::Slow {
                    self.totals.note(Counted::ProducersSlowed);
                }
                node.seats[at.shard].blocked.push_back((conn, bytes));
            }
            _ => {
                self.give_back(bytes);
                self.tell_piece(at, conn);
            }
        }
    }

    pub(super) fn carry(&mut self, at: ShardAt) {
        let seat = &mut self.nodes[at.node].seats[at.shard];
        if seat.effects.list.is_empty() && seat.effects.deadline_us >= seat.deadline_us {
            return seat.effects.clear();
        }
        let mut effects = std::mem::take(&mut seat.effects);
        let deadline_us = effects.deadline_us;
        for effect in effects.list.drain(..) {
            match effect {
                Effect::Send { conn, head, parts } => {
                    let mut frame = self.buffer();
                    frame.extend_from_slice(&effects.heads[head.start as usize..head.end as usize]);
                    effects.parts[parts.start as usize..parts.end as usize]
                        .iter()
                        .for_each(|part| frame.extend_from_slice(part.as_slice()));
                    if self.peers.has(conn.0) {
                        self.send_to_peer(conn.0, frame);
                    } else {
                        self.deliver_to_client(at.node, conn.0, frame);
                    }
                }
                Effect::Close { conn, reason } if self.peers.has(conn.0) => {
                    self.say_of(at.node, || format!("it closes connection {} with another node: {reason}", conn.0));
                    self.begin_peer_close(conn.0);
                }
                Effect::Close { conn, .. } => {
                    let after = self.conns.get(&conn.0).map_or(0, |c| c.last_to_client_us.saturating_sub(self.now_us));
                    self.plan(after, Item::ServerCloses { conn: conn.0 });
                }
                Effect::Unblock => self.nodes[at.node].seats[at.shard].retry = true,
                Effect::Fatal { reason } => self.on_fatal(at, reason),
                Effect::Dial { dial, address } => self.dial(at, dial, address),
                Effect::Mesh { to, message } => self.send_over_mesh(at, usize::from(to.0), message),
                operation @ (Effect::Write { .. } | Effect::Read { .. } | Effect::File { .. }) => self.begin(at, operation),
            }
        }
        effects.clear();
        let node = &mut self.nodes[at.node];
        let seat = &mut node.seats[at.shard];
        seat.effects = effects;
        if deadline_us < seat.deadline_us {
            seat.deadline_us = deadline_us;
            // A turn of the loop takes its time: who asks for "now" is asked again a moment later.
            let cycle_us = if self.params.ruler.is_some() { 1 } else { CYCLE_US };
            let after = node.clock.until(self.now_us, deadline_us).max(cycle_us);
            self.plan_work(after, at, Work::Deadline { due_us: deadline_us });
        }
    }

    fn on_fatal(&mut self, at: ShardAt, reason: String) {
        self.say_of(at.node, || format!("shard {} stops: {reason}", at.shard));
        self.totals.note(Counted::ShardsFailed);
        self.nodes[at.node].seats[at.shard].failed = true;
        let node = &self.nodes[at.node];
        // What has rotted can be needed to take an entry in: the shard ends, and the next start makes it a suspect (docs/REPLICATION.md, 8).
        let has_rotted = node.disks[at.shard].disk.has_rotten() && reason.ends_with("the block cannot be read back");
        if self.params.is_cluster && (node.has_failing_disk || has_rotted) {
            return;
        }
        self.failed = Some(format!("shard {} of node {} stops: {reason}", at.shard, at.node + 1));
        // What a start could not make sense of is told with the first view.
        if reason.starts_with("what is stored of") {
            self.refused = Some(reason);
        }
    }

    /// Inboxes are queues: messages of a pair of shards keep their order.
    fn send_over_mesh(&mut self, at: ShardAt, to: usize, message: Message) {
        let node = &mut self.nodes[at.node];
        let took_us = if self.params.ruler.is_some() { 0 } else { node.net_dice.within(1..20) };
        let last = &mut node.mesh_last_us[at.shard][to];
        *last = (*last).max(self.now_us + took_us);
        let after = *last - self.now_us;
        self.plan_work(after, ShardAt { node: at.node, shard: to }, Work::Mesh { from: at.shard, message: Box::new(message) });
    }
}
