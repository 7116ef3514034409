//! Disks of a cluster that rot, or are lost: of one node at a time, and of the next one only when the one before is made good.
//!
//! The patient is the node whose disk is not what it was: something on it has rotted that its log still uses, a replica of it is suspect, a batch is known to be
//! damaged, or it came back with an empty disk and not every group has its voters again. All that is acknowledged stands on the disks of the others.
//!
//! Some rot is not left to chance: in a *scene* one node is cut off, a block that was written meanwhile rots on a second one, and then the third, which alone has
//! everything, goes dark while the first one comes back. Whoever votes then without its past elects somebody who never had what was acknowledged.
//!
//! Invariants: there is one patient at most, and what is not of the patient is whole.
//!
//! Not here: what rots (`../rot.rs`), how a node without a disk comes back (`rejoining.rs`), what nodes make of it (shard/suspects.rs, repair.rs, disks.rs).

use super::ClusterRun;
use super::rejoining::Rejoining;
use crate::ids::{BlockSeq, GroupId};
use crate::sim::decay::Decay;
use crate::sim::faults::{SCENE, isolate};
use crate::sim::node::ShardAt;
use crate::sim::replicas;
use crate::sim::rot::Aim;
use crate::sim::totals::Event as Counted;
use crate::sim::world::Item;
use crate::sim::{Check, Dice};

/// How long a node may be cut off in a scene: longer than it lasts.
const SCENE_US: u64 = 30_000_000;
/// Between two looks at whether the second node has started again.
const LOOK_US: u64 = 1000;
/// For so long it may not.
const START_US: u64 = 3_000_000;

/// What happens next in a scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Rot,
    /// The damaged node runs again: it and the last one end.
    EndBoth {
        until_us: u64,
        is_up: bool,
    },
}

struct Scene {
    /// It is cut off, and has nothing of what is written meanwhile.
    third: usize,
    damaged: usize,
    /// It has everything.
    last: usize,
    /// The damaged one's open blocks when the scene began, by shard.
    behind: Vec<BlockSeq>,
    next: Next,
}

pub(super) struct Disks {
    dice: Dice,
    patient: Option<usize>,
    /// When it was seen to be whole last: answers of before may be on their way.
    healed_us: Vec<Option<u64>>,
    scene: Option<Scene>,
    pub(super) rejoining: Rejoining,
}

impl Disks {
    pub(super) fn new(seed: u64, nodes: usize) -> Disks {
        Disks {
            dice: Dice::stream(seed, "disks of a cluster"),
            patient: None,
            healed_us: vec![None; nodes],
            scene: None,
            rejoining: Rejoining::new(seed),
        }
    }

    /// Whether a node may have lost what it had.
    pub(super) fn is_patient(&self, node: usize) -> bool {
        self.patient == Some(node)
    }

    pub(super) fn has_patient(&self) -> bool {
        self.patient.is_some()
    }

    /// Whether it may have said at `asked_us` or later that something is damaged.
    pub(super) fn may_tell_damage(&self, node: usize, asked_us: u64) -> bool {
        self.is_patient(node) || self.healed_us[node].is_some_and(|healed_us| asked_us <= healed_us)
    }
}

impl ClusterRun {
    // --- rot ----------------------------------------------------------------------------------------------------------------------

    /// The disk of the patient rots, or that of another node where there is none.
    pub(super) fn rot(&mut self) {
        let count = self.world.nodes.len();
        if count < 3 || self.disks.scene.is_some() {
            return;
        }
        self.look_after_patient();
        // Of two voters a suspect leaves nobody who could lead: docs/REPLICATION.md, 8.
        if self.world.shards().any(|(_, shard)| shard.lone_moves_under_way() > 0) {
            return;
        }
        let drawn = self.disks.dice.below(count as u64) as usize;
        let node = self.disks.patient.unwrap_or(drawn);
        let it = &self.world.nodes[node];
        if !it.is_serving() || it.is_lost || it.pause.is_on() {
            return;
        }
        if self.disks.dice.chance(40) {
            return self.begin_scene(node);
        }
        let is_sealed = self.disks.dice.chance(60);
        let shard = self.disks.dice.below(u64::from(self.world.params.shards)) as usize;
        self.rot_at(ShardAt { node, shard }, if is_sealed { Aim::Sealed } else { Aim::Behind(BlockSeq(0)) });
    }

    fn rot_at(&mut self, at: ShardAt, aim: Aim) -> bool {
        let Some(used) = self.world.shard(at).map(|shard| shard.segments_in_use()) else { return false };
        let disk = &mut self.world.nodes[at.node].disks[at.shard].disk;
        let Some((what, place)) = disk.rot(aim, &used, &mut self.disks.dice) else { return false };
        self.disks.patient = Some(at.node);
        self.world.say_of(at.node, || format!("shard {}: {what:?} in {place}", at.shard));
        self.world.totals.note(match what {
            Decay::Flipped => Counted::BitsFlipped,
            Decay::Lost => Counted::WritesLost,
            Decay::Misplaced => Counted::WritesMisplaced,
            Decay::Unreadable => Counted::PagesUnreadable,
        });
        true
    }

    // --- scenes -------------------------------------------------------------------------------------------------------------------

    fn begin_scene(&mut self, damaged: usize) {
        let mut others: Vec<usize> = (0..self.world.nodes.len()).filter(|node| *node != damaged).collect();
        let dice = &mut self.disks.dice;
        let third = others.swap_remove(dice.below(others.len() as u64) as usize);
        let last = others[dice.below(others.len() as u64) as usize];
        if !self.world.all_serve() {
            return;
        }
        let shards = 0..usize::from(self.world.params.shards);
        let open = |shard| self.world.shard(ShardAt { node: damaged, shard }).map(|shard| shard.open_block());
        let behind: Vec<_> = shards.filter_map(open).collect();
        isolate(&mut self.world, third, SCENE_US);
        // Who was cut off led, perhaps: then somebody else has to.
        let length_us = self.disks.dice.within(1_500_000..4_000_000);
        self.disks.scene = Some(Scene { third, damaged, last, behind, next: Next::Rot });
        self.world.plan(length_us, Item::Fault { node: 0, fault: SCENE });
    }

    /// The scene goes on.
    pub(super) fn play(&mut self) -> Check {
        let Some(scene) = self.disks.scene.take() else { return Ok(()) };
        let Scene { third, damaged, last, ref behind, next } = scene;
        match next {
            Next::Rot => {
                let is_twice = self.disks.dice.chance(40);
                let aim = if is_twice || self.disks.dice.chance(20) { Aim::BatchBehind } else { Aim::Behind };
                let behind = behind.clone();
                let node = &self.world.nodes[damaged];
                let can = node.is_serving() && !node.pause.is_on() && self.world.nodes[last].is_up();
                let mut has_rotted = false;
                for (shard, block) in behind.into_iter().enumerate().filter(|_| can) {
                    has_rotted |= self.rot_at(ShardAt { node: damaged, shard }, aim(block));
                }
                if !has_rotted {
                    self.end_scene(third);
                    return Ok(());
                }
                self.world.totals.note(Counted::Scenes);
                self.look()?;
                let power = self.disks.dice.chance(30);
                self.end_process(damaged, power);
                if is_twice {
                    let until_us = self.world.now_us + START_US;
                    self.disks.scene = Some(Scene { next: Next::EndBoth { until_us, is_up: false }, ..scene });
                    self.world.plan(LOOK_US, Item::Fault { node: 0, fault: SCENE });
                    return Ok(());
                }
                self.darken(last);
                self.end_scene(third);
            }
            Next::EndBoth { until_us, is_up } => {
                if is_up || self.world.now_us > until_us {
                    self.look()?;
                    if self.world.nodes[damaged].is_up() {
                        self.end_process(damaged, false);
                    }
                    self.darken(last);
                    self.end_scene(third);
                    return Ok(());
                }
                // It has come back: a part of what it has lost has been brought to it when both end.
                let is_up = self.world.nodes[damaged].is_up();
                let after_us = if is_up { self.disks.dice.within(100..30_000) } else { LOOK_US };
                self.disks.scene = Some(Scene { next: Next::EndBoth { until_us, is_up }, ..scene });
                self.world.plan(after_us, Item::Fault { node: 0, fault: SCENE });
            }
        }
        Ok(())
    }

    /// The node has no power for a while.
    fn darken(&mut self, node: usize) {
        if self.world.nodes[node].is_up() {
            self.end_process(node, true);
        }
        let down_us = self.disks.dice.within(3_000_000..7_000_000);
        self.world.nodes[node].down_until_us = self.world.now_us + down_us;
    }

    fn end_scene(&mut self, third: usize) {
        self.disks.scene = None;
        for other in (0..self.world.nodes.len()).filter(|other| *other != third) {
            self.world.heal_way(third, other);
            self.world.heal_way(other, third);
        }
    }

    // --- lost disks ---------------------------------------------------------------------------------------------------------------

    /// A machine loses its power and its disk; it comes back under its number with an empty one.
    pub(super) fn lose_disk(&mut self) -> Check {
        let count = self.world.nodes.len();
        if count < 3 || self.disks.scene.is_some() {
            return Ok(());
        }
        self.look_after_patient();
        let drawn = self.disks.dice.below(count as u64) as usize;
        let node = self.disks.patient.unwrap_or(drawn);
        // What its kernel has not written yet is written first, and who has lost its disk has nothing to lose.
        if self.world.nodes[node].is_lost || self.world.now_us < self.world.nodes[node].lock_free_us || !self.is_restored(true) {
            return Ok(());
        }
        self.look()?;
        if self.world.nodes[node].is_up() {
            self.end_process(node, true);
        }
        self.world.nodes[node].lose_disk();
        self.disks.patient = Some(node);
        self.world.totals.note(Counted::DisksLost);
        self.world.say_of(node, || "its disk is gone".to_owned());
        Ok(())
    }

    // --- the patient --------------------------------------------------------------------------------------------------------------

    /// Forgets the patient where it is whole.
    fn look_after_patient(&mut self) {
        let Some(node) = self.disks.patient else { return };
        let is_free = self.forget_freed(node);
        if is_free && self.is_restored(false) {
            self.disks.patient = None;
            self.disks.healed_us[node] = Some(self.world.now_us);
            self.world.say_of(node, || "its disk is made good".to_owned());
        }
    }

    /// Whether nothing that has rotted on a node is in use any more.
    fn forget_freed(&mut self, node: usize) -> bool {
        let mut is_free = true;
        for shard in 0..usize::from(self.world.params.shards) {
            let used = self.world.shard(ShardAt { node, shard }).map(|shard| shard.segments_in_use());
            let disk = &mut self.world.nodes[node].disks[shard].disk;
            is_free &= match used {
                Some(used) => !disk.forget_freed(&used),
                None => !disk.has_rotten(),
            };
        }
        is_free
    }

    /// Whether every replica is what it should be, as far as nodes know; with `is_of_voters` only whether who is to vote does.
    pub(super) fn is_restored(&self, is_of_voters: bool) -> bool {
        self.ailments(is_of_voters).is_empty()
    }

    /// What is not as it should be: a replica is suspect, a batch is known to be damaged, a group lacks a voter or has one on a disk that is gone, or replicas move.
    fn ailments(&self, is_of_voters: bool) -> Vec<String> {
        let count = self.world.nodes.len();
        let of_metadata = ((count - 1) | 1).min(5);
        let mut found = Vec::new();
        if !is_of_voters && !self.world.all_serve() {
            found.push("a node does not serve".to_owned());
        }
        for (at, shard) in self.world.shards() {
            let (suspects, wounds, node) = (shard.suspect_count(), shard.wound_count(), at.node + 1);
            if !is_of_voters && (suspects, wounds) != (0, 0) {
                found.push(format!("node {node} has {suspects} suspects and {wounds} wounds"));
            }
            for look in shard.group_looks() {
                let wanted = if look.group == GroupId(0) { of_metadata } else { replicas::FACTOR.min(count) };
                if look.voters != wanted && look.voters != 1 || shard.has_gone_members(look.group) {
                    found.push(format!(
                        "node {node}: group {} has {} of {wanted} voters, or one on a disk that is gone",
                        look.group, look.voters
                    ));
                }
            }
        }
        if self.moves_under_way() > 0 {
            found.push(format!("{} moves are under way", self.moves_under_way()));
        }
        found
    }

    /// Whether the patient, if there is one, is as well as it can be while what has rotted is in use.
    pub(super) fn is_made_good(&self) -> bool {
        self.disks.patient.is_none() || self.is_restored(false)
    }

    /// What keeps the patient from being as well as it can be, in words.
    pub(super) fn what_ails(&self) -> String {
        match self.disks.patient {
            Some(patient) => format!("of node {}'s disk: {}", patient + 1, self.ailments(false).join(", ")),
            None => "no disk is bad".to_owned(),
        }
    }

    /// Faults are over: whoever was told to stay down comes, and a disk that is known to rot is looked over by a start.
    pub(super) fn calm_disks(&mut self) {
        if let Some(Scene { third, .. }) = self.disks.scene {
            self.end_scene(third);
        }
        if let Some(node) = self.disks.patient.filter(|node| self.world.nodes[*node].is_up()) {
            self.end_process(node, false);
        }
    }
}
