//! How the nodes become a cluster: the first begins it, the others ask it one by one, as runtime/join.rs does it; then the metadata get their voters.
//!
//! Not here: what is said (`../joining.rs`), what the nodes do then (`../cluster.rs`).

use super::ClusterRun;
use crate::control::Joined;
use crate::effects::Event;
use crate::ids::{ConnId, GroupId};
use crate::shard::Taken;
use crate::sim::Check;
use crate::sim::joining;
use crate::sim::node::ShardAt;
use crate::sim::world::{Seen, World};
use std::sync::Arc;
use tramline_wire::node::Numbers;

/// How long each step may take, in simulated time.
const STEP_US: u64 = 20_000_000;
/// A node that was refused asks again.
const AGAIN_US: u64 = 100_000;

impl ClusterRun {
    /// All nodes are members, and as many of them vote about the metadata as are to.
    pub(super) fn form(&mut self) -> Check {
        // What goes wrong meanwhile has tests of its own.
        self.world.quiet = true;
        self.world.start(0);
        self.until("the first node serves", |world| world.nodes[0].is_serving())?;
        for node in 1..self.world.nodes.len() {
            let joined = self.join(node)?;
            self.world.nodes[node].joined = Some(Arc::new(joined));
            self.world.start(node);
        }
        // The odd number that the nodes allow, five at most.
        let voters = ((self.world.nodes.len() - 1) | 1).min(5);
        let voters = if self.world.nodes.len() < 2 { 1 } else { voters };
        let votes = |world: &World| {
            let mut firsts = (0..world.nodes.len()).map(|node| world.shard(ShardAt { node, shard: 0 }));
            firsts.all(|shard| {
                shard.is_some_and(|shard| shard.group_looks().iter().any(|look| look.group == GroupId(0) && look.voters == voters))
            })
        };
        self.until("the metadata have their voters", votes)?;
        self.until("all nodes serve", World::all_serve)?;
        self.world.quiet = false;
        Ok(())
    }

    fn until(&mut self, what: &str, is_there: impl Fn(&World) -> bool) -> Check {
        let limit = self.world.now_us + STEP_US;
        while !is_there(&self.world) {
            if !self.advance(limit)? {
                return Err(format!("it does not come about that {what}\n{}", self.describe()));
            }
        }
        Ok(())
    }

    /// Asks until it is taken in.
    fn join(&mut self, node: usize) -> Result<Joined, String> {
        let limit = self.world.now_us + STEP_US;
        let spec = self.world.nodes[node].spec();
        let mut reason = String::new();
        while self.world.now_us < limit {
            let conn = self.world.connect_node(0);
            let (mut ours, mut theirs) = (Numbers::new(), Numbers::new());
            for bytes in joining::frames(&spec) {
                let at = ShardAt { node: 0, shard: 0 };
                let taken =
                    joining::as_frame(&bytes, &mut ours, |frame| self.world.step(at, Event::NodeFrame { conn: ConnId(conn), frame }));
                if taken == Some(Taken::Blocked) {
                    return Err("the frame of a node that joins finds no room".to_owned());
                }
                self.world.end_of_turn(at);
            }
            match self.hear(conn, limit, &mut theirs)? {
                Ok(joined) => return Ok(joined),
                Err(refused) => reason = refused,
            }
            let again = self.world.now_us + AGAIN_US;
            while self.advance(again)? {}
            self.world.now_us = again;
        }
        Err(format!("node {} is not taken in: {reason}", node + 1))
    }

    /// The answer to a call.
    fn hear(&mut self, conn: u64, limit: u64, numbers: &mut Numbers) -> Result<Result<Joined, String>, String> {
        loop {
            match self.world.next(limit) {
                None => return Err("a node that joins gets no answer".to_owned()),
                Some(Some(Seen::Frame { conn: of, frame })) if of == conn => {
                    if let Some(answer) = joining::as_frame(&frame, numbers, joining::answer) {
                        return Ok(answer);
                    }
                }
                Some(Some(Seen::Gone { conn: of })) if of == conn => return Ok(Err("its connection ends".to_owned())),
                Some(_) => {}
            }
        }
    }
}
