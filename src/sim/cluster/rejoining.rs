//! How a node that has lost its disk comes back under its number: it asks one of the others after the other, as runtime/join.rs does it, until whoever leads the
//! metadata takes it in with its new disk.
//!
//! Invariants: it asks one node at a time, under the same disk until it has an answer.
//!
//! Not here: what is said (`../joining.rs`), when disks are lost (`disks.rs`).

use super::ClusterRun;
use crate::effects::Event;
use crate::ids::ConnId;
use crate::shard::Taken;
use crate::sim::Dice;
use crate::sim::joining;
use crate::sim::node::ShardAt;
use crate::sim::totals::Event as Counted;
use std::sync::Arc;
use tramline_wire::node::Numbers;

/// How long an answer may take, and when it asks again.
const SILENCE_US: u64 = 2_000_000;
pub(super) const AGAIN_US: u64 = 100_000;

/// What is under way.
struct Asking {
    conn: u64,
    node: usize,
    theirs: Numbers,
    until_us: u64,
}

pub(super) struct Rejoining {
    dice: Dice,
    asking: Option<Asking>,
}

impl Rejoining {
    pub(super) fn new(seed: u64) -> Rejoining {
        Rejoining { dice: Dice::stream(seed, "rejoining"), asking: None }
    }

    pub(super) fn is_on(&self, conn: u64) -> bool {
        self.asking.as_ref().is_some_and(|asking| asking.conn == conn)
    }

    pub(super) fn on_gone(&mut self, conn: u64) {
        self.asking.take_if(|asking| asking.conn == conn);
    }
}

impl ClusterRun {
    /// A node that has no disk asks somebody, unless an answer is under way.
    pub(super) fn rejoin(&mut self, node: usize) {
        if !self.world.nodes[node].is_lost {
            return;
        }
        self.world.plan_rejoin(node, AGAIN_US);
        let now_us = self.world.now_us;
        match &self.disks.rejoining.asking {
            Some(asking) if now_us < asking.until_us => return,
            Some(asking) => {
                let conn = asking.conn;
                self.hang_up(conn);
            }
            None => {}
        }
        let count = self.world.nodes.len() as u64;
        let other = (node as u64 + self.disks.rejoining.dice.within(1..count)) % count;
        let other = other as usize;
        let it = &self.world.nodes[other];
        if !it.is_serving() || it.pause.is_on() || !self.world.reaches(node, other) || !self.world.reaches(other, node) {
            return;
        }
        let conn = self.world.connect_node(other);
        let (mut ours, at) = (Numbers::new(), ShardAt { node: other, shard: 0 });
        self.disks.rejoining.asking = Some(Asking { conn, node, theirs: Numbers::new(), until_us: now_us + SILENCE_US });
        for bytes in joining::frames(&self.world.nodes[node].spec()) {
            let taken = joining::as_frame(&bytes, &mut ours, |frame| self.world.step(at, Event::NodeFrame { conn: ConnId(conn), frame }));
            if taken == Some(Taken::Blocked) {
                return self.hang_up(conn);
            }
            self.world.end_of_turn(at);
        }
    }

    fn hang_up(&mut self, conn: u64) {
        self.disks.rejoining.asking = None;
        self.world.close(conn);
    }

    /// What comes to a node that asks.
    pub(super) fn on_asked(&mut self, frame: &[u8]) {
        let Some(asking) = &mut self.disks.rejoining.asking else { return };
        let Asking { conn, node, .. } = *asking;
        let Some(answer) = joining::as_frame(frame, &mut asking.theirs, joining::answer) else { return };
        self.hang_up(conn);
        match answer {
            Ok(joined) => {
                self.world.totals.note(Counted::NodesRejoined);
                self.world.say_of(node, || format!("it is taken in with its new disk, generation {}", joined.generation));
                let it = &mut self.world.nodes[node];
                (it.joined, it.is_lost) = (Some(Arc::new(joined)), false);
                self.world.start(node);
            }
            Err(why) => self.world.say_of(node, || format!("it is not taken in: {why}")),
        }
    }
}
