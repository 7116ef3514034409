//! Disks of a cluster that fill up, one at a time and for a while, and shards that have stopped after a write that failed: their nodes are started again.
//!
//! Whoever leads on a full disk refuses what is produced, and goes on leading; whoever follows takes nothing in until there is space. Others go on without it.
//!
//! Invariants: a seed without these faults is what it was before there were any: all draws are of dice that nothing else has.
//!
//! Not here: what a full disk gives (`../storage.rs`), what a shard makes of it (shard/throttle.rs).

use super::ClusterRun;
use crate::sim::faults::FILL;
use crate::sim::node::Node;
use crate::sim::totals::Event as Counted;
use crate::sim::world::{Item, World};
use crate::sim::{Check, Dice};

pub(super) struct Spaces {
    dice: Dice,
}

impl Spaces {
    pub(super) fn new(seed: u64) -> Spaces {
        Spaces { dice: Dice::stream(seed, "spaces") }
    }
}

impl World {
    /// A client was told that a disk is full.
    pub(super) fn on_disk_full_told(&mut self) -> Check {
        if self.params.fill_every_us == 0 {
            return Err("a node tells that its disk is full, and none was".to_owned());
        }
        self.totals.note(Counted::DiskFullRefusals);
        Ok(())
    }
}

impl ClusterRun {
    /// The next time that a disk fills up, where any does.
    pub(super) fn plan_fill(&mut self) {
        let every_us = self.world.params.fill_every_us;
        if every_us > 0 {
            let after_us = self.spaces.dice.wait_us(every_us);
            self.world.plan(after_us, Item::Fault { node: 0, fault: FILL });
        }
    }

    /// Somebody else takes all space of a node, or gives it back.
    pub(super) fn fill(&mut self) {
        let now_us = self.world.now_us;
        self.space_comes_back();
        let node = self.spaces.dice.below(self.world.nodes.len() as u64) as usize;
        let length_us = self.spaces.dice.within(300_000..8_000_000);
        self.world.nodes[node].space.full_until_us = now_us + length_us;
        self.world.totals.note(Counted::FullPeriods);
        self.world.say_of(node, || format!("its disk is full for {length_us} us"));
        self.world.tell_space_of(node);
        self.plan_fill();
    }

    /// The disk that was full has space again, as its node is told at once.
    pub(super) fn space_comes_back(&mut self) {
        for node in 0..self.world.nodes.len() {
            if std::mem::take(&mut self.world.nodes[node].space.full_until_us) > 0 {
                self.world.tell_space_of(node);
            }
        }
    }

    /// Now and then a node of which a shard has failed is started again, as an operator would.
    pub(super) fn end_failed(&mut self) -> Check {
        if self.world.params.write_error_in == 0 || !self.world.nodes.iter().any(Node::has_failed_shard) {
            return Ok(());
        }
        for node in 0..self.world.nodes.len() {
            let is_due = self.world.nodes[node].has_failed_shard() && (self.world.quiet || self.spaces.dice.once_in(500));
            if is_due {
                self.look()?;
                self.end_process(node, false);
            }
        }
        Ok(())
    }
}
