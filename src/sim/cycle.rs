//! The loop around a shard, as the runtime has it: an event, the end of a turn, at most once a millisecond a background turn, and the deadline
//! asked for; then everything is carried out that the core asked for.
//!
//! Not here: the order of events (`world.rs`), what disks (`storage.rs`) and networks (`net.rs`) make of it.

use super::totals::Event as Counted;
use super::world::{Item, World};
use crate::config::DiskLevel;
use crate::effects::{Effect, Event};
use crate::ids::ConnId;
use crate::shard::Taken;
use tramline_wire::frame::{self, Need};
use tramline_wire::kind::Kind;

/// A background turn at most this often, and how much it may do: the runtime's numbers.
const TURN_EVERY_US: u64 = 1000;
const TURN_BYTES: u64 = 4 << 20;
/// What one cycle of the loop takes at least.
const CYCLE_US: u64 = 5;

impl World {
    pub(super) fn step(&mut self, shard: usize, event: Event<'_>) -> Option<Taken> {
        let now = self.now();
        let seat = self.node.seats.get_mut(shard)?;
        let taken = seat.shard.step(now, event, &mut seat.effects);
        self.carry(shard);
        Some(taken)
    }

    pub(super) fn end_of_turn(&mut self, shard: usize) {
        self.step(shard, Event::EndOfTurn);
        self.retry(shard);
        let now = self.now().mono_us;
        let Some(seat) = self.node.seats.get_mut(shard) else { return };
        if !seat.turn_planned {
            seat.turn_planned = true;
            let after = (seat.last_turn_us + TURN_EVERY_US).saturating_sub(now);
            self.plan(after, Item::Turn { life: self.life, shard });
        }
    }

    pub(super) fn turn(&mut self, shard: usize) {
        let now = self.now().mono_us;
        let Some(seat) = self.node.seats.get_mut(shard) else { return };
        (seat.turn_planned, seat.last_turn_us) = (false, now);
        self.step(shard, Event::Turn { bytes: TURN_BYTES, us: crate::constants::TURN_US });
        self.step(shard, Event::EndOfTurn);
        self.retry(shard);
    }

    fn retry(&mut self, shard: usize) {
        let Some(seat) = self.node.seats.get_mut(shard) else { return };
        if std::mem::take(&mut seat.retry) {
            for (conn, frame) in std::mem::take(&mut seat.blocked) {
                self.frame(shard, conn, frame);
            }
        }
    }

    /// A frame for the core. One that is blocked is kept, and those behind it on the same connection wait with it.
    pub(super) fn frame(&mut self, shard: usize, conn: ConnId, bytes: Vec<u8>) {
        let Some(seat) = self.node.seats.get_mut(shard) else { return };
        if seat.blocked.iter().any(|(c, _)| *c == conn) {
            return seat.blocked.push_back((conn, bytes));
        }
        let Ok(Need::Whole(frame, _)) = frame::peek(&bytes, &frame::Limits::PROTOCOL) else { panic!("clients send whole frames") };
        match self.step(shard, Event::Frame { conn, frame: &frame }) {
            Some(Taken::Blocked) => {
                if frame.header.kind == Kind::Produce.as_u8() && self.disk_level >= DiskLevel::Slow {
                    self.totals.note(Counted::ProducersSlowed);
                }
                self.node.seats[shard].blocked.push_back((conn, bytes));
            }
            _ => {
                self.give_back(bytes);
                self.tell_piece(shard, conn);
            }
        }
    }

    pub(super) fn carry(&mut self, shard: usize) {
        let seat = &mut self.node.seats[shard];
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
                    self.deliver_to_client(conn.0, frame);
                }
                Effect::Close { conn, .. } => {
                    let after = self.conns.get(&conn.0).map_or(0, |c| c.last_to_client_us.saturating_sub(self.now_us));
                    self.plan(after, Item::ServerCloses { conn: conn.0 });
                }
                Effect::Unblock => self.node.seats[shard].retry = true,
                Effect::Fatal { reason } => {
                    self.say(|| format!("shard {shard} stops: {reason}"));
                    self.totals.note(Counted::ShardsFailed);
                    self.node.seats[shard].failed = true;
                    // What a start could not make sense of is told with the first view.
                    if reason.starts_with("what is stored of") {
                        self.refused = Some(reason);
                    }
                }
                Effect::Dial { address, .. } => unreachable!("no shard dials {address}"),
                Effect::Mesh { to, message } => {
                    // Inboxes are queues: messages of a pair of shards keep their order.
                    let last = &mut self.mesh_last_us[shard][usize::from(to.0)];
                    *last = (*last).max(self.now_us + self.net_dice.within(1..20));
                    let after = *last - self.now_us;
                    self.plan(after, Item::Mesh { life: self.life, from: shard, to: usize::from(to.0), message: Box::new(message) });
                }
                operation @ (Effect::Write { .. } | Effect::Read { .. } | Effect::File { .. }) => self.begin(shard, operation),
            }
        }
        effects.clear();
        let seat = &mut self.node.seats[shard];
        seat.effects = effects;
        if deadline_us < seat.deadline_us {
            seat.deadline_us = deadline_us;
            // A turn of the loop takes its time: who asks for "now" is asked again a moment later.
            let after = self.until(deadline_us).max(CYCLE_US);
            self.plan(after, Item::Deadline { life: self.life, shard, due_us: deadline_us });
        }
    }
}
