//! Nodes that are restarted in order while clients work: one after the other as an upgrade goes, one alone, or all at once.
//!
//! Who restarts them mostly waits until all nodes serve before he goes on with the next one; now and then he does not, and now and then a node is told to stop
//! that has not begun to serve. Whatever else goes wrong goes wrong meanwhile.
//!
//! Invariants: a seed without restarts is what it was before there were any: all draws are of dice that nothing else has.
//!
//! Not here: what an orderly stop is (`../stopping.rs`).

use super::ClusterRun;
use crate::sim::Dice;
use crate::sim::faults::RESTART;
use crate::sim::world::Item;

/// Between two looks at whether the next node may be stopped, and how long he waits for that at most.
const LOOK_US: u64 = 50_000;
const PATIENCE_US: u64 = 15_000_000;

pub(super) struct Restarting {
    dice: Dice,
    /// Nodes that are still to be restarted in this round, the next one last.
    left: Vec<usize>,
    /// He waits for all nodes, until this time at most.
    is_careful: bool,
    until_us: u64,
}

impl Restarting {
    pub(super) fn new(seed: u64) -> Restarting {
        Restarting { dice: Dice::stream(seed, "restarts"), left: Vec::new(), is_careful: true, until_us: 0 }
    }
}

impl ClusterRun {
    /// The next round, where there are any.
    pub(super) fn plan_round(&mut self) {
        let every_us = self.world.params.restart_every_us;
        if every_us > 0 {
            let after_us = self.restarting.dice.wait_us(every_us);
            self.plan_restart(after_us);
        }
    }

    fn plan_restart(&mut self, after_us: u64) {
        self.world.plan(after_us, Item::Fault { node: 0, fault: RESTART });
    }

    /// A round begins, or goes on.
    pub(super) fn restart(&mut self) {
        if self.restarting.left.is_empty() {
            self.begin_round();
        }
        let now_us = self.world.now_us;
        if self.restarting.is_careful && !self.world.all_serve() && now_us < self.restarting.until_us {
            return self.plan_restart(LOOK_US);
        }
        let Some(node) = self.restarting.left.pop() else { return self.plan_round() };
        self.stop(node);
        if self.restarting.left.is_empty() {
            return self.plan_round();
        }
        self.restarting.until_us = now_us + PATIENCE_US;
        let after_us = if self.restarting.is_careful { LOOK_US } else { self.restarting.dice.within(1000..2_000_000) };
        self.plan_restart(after_us);
    }

    fn begin_round(&mut self) {
        let count = self.world.nodes.len();
        let dice = &mut self.restarting.dice;
        let first = dice.below(count as u64) as usize;
        let all: Vec<usize> = (0..count).map(|number| (first + number) % count).collect();
        let kind = dice.below(100);
        self.restarting.is_careful = kind < 60;
        self.restarting.until_us = self.world.now_us + PATIENCE_US;
        match kind {
            // One after the other.
            0..=44 | 60..=79 => self.restarting.left = all,
            // One.
            45..=59 | 80..=89 => self.restarting.left = vec![first],
            // All of them: nobody is there to give anything to.
            _ => all.into_iter().for_each(|node| self.stop(node)),
        }
    }

    /// A node is told to stop, if it runs and was not told yet.
    fn stop(&mut self, node: usize) {
        let it = &self.world.nodes[node];
        if it.is_up() && !it.is_stopping {
            self.world.stop_in_order(node);
        }
    }
}
