//! A process that does nothing for a while and then goes on (a stopped process, a machine that swaps, a hypervisor that gives its processor away).
//!
//! Its sockets stay open and take what comes; what its disks were given goes on. All that it would have been told is kept, and told in that order
//! when it goes on, at a time that has moved; deadlines come last.
//!
//! Not here: what arrived from other nodes stays in its connection (`peers.rs`).

use super::node::ShardAt;
use super::totals::Event as Counted;
use super::world::{Item, Work, World};
use std::collections::VecDeque;

/// What is kept for one process at most: windows of clients and operations under way bound it far below.
const KEPT_MAX: usize = 1 << 20;

#[derive(Default)]
pub(super) struct Pause {
    /// When it began; `None` while the process runs.
    pub(super) began_us: Option<u64>,
    kept: VecDeque<(ShardAt, Work)>,
}

impl Pause {
    pub(super) fn is_on(&self) -> bool {
        self.began_us.is_some()
    }

    pub(super) fn keep(&mut self, at: ShardAt, work: Work) {
        assert!(self.is_on() && self.kept.len() < KEPT_MAX, "{} pieces of work are kept", self.kept.len());
        self.kept.push_back((at, work));
    }

    /// The process has ended.
    pub(super) fn forget(&mut self) {
        *self = Pause::default();
    }
}

impl World {
    /// The process stops for a time. Nothing happens where there is none, or it is paused already.
    pub(super) fn pause(&mut self, node: usize, length_us: u64) {
        let now_us = self.now_us;
        let paused = &mut self.nodes[node];
        if !paused.is_up() || paused.pause.is_on() {
            return;
        }
        paused.pause.began_us = Some(now_us);
        let life = paused.life;
        self.totals.note(Counted::Pauses);
        self.say_of(node, || format!("the process is paused for {length_us} us"));
        self.plan(length_us, Item::Resume { node, life, began_us: now_us });
    }

    pub(super) fn resume(&mut self, node: usize) {
        let pause = &mut self.nodes[node].pause;
        if pause.began_us.take().is_none() {
            return;
        }
        let kept = std::mem::take(&mut pause.kept);
        self.say_of(node, || format!("the process goes on, {} things have happened", kept.len()));
        // As in a cycle of the runtime's loop: what has come is looked at before the clock is.
        let (timed, come): (Vec<_>, Vec<_>) = kept.into_iter().partition(|(_, work)| matches!(work, Work::Deadline { .. } | Work::Turn));
        for (at, work) in come {
            self.hand(at, work);
        }
        self.peers_resume(node);
        for (at, work) in timed {
            self.hand(at, work);
        }
    }

    pub(super) fn resume_all(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.resume(node));
    }
}
