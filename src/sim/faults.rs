//! When faults come, and which: ends of processes, cuts, slow and full disks, pauses, power cuts of all nodes.
//!
//! Invariants: each node has dice of its own, so a node more changes nothing for the others; what concerns all of them is the first one's.
//!
//! Not here: what a fault does (`process.rs`, `peer_faults.rs`, `storage.rs`, `pauses.rs`, `decay.rs`), and what clients make of it.

use super::Dice;
use super::node::Node;
use super::totals::Event as Counted;
use super::world::{Item, World};

const CRASH: u8 = 0;
const CUT: u8 = 1;
const SLOW: u8 = 2;
const FULL: u8 = 3;
const SPACE: u8 = 4;
const DECAY: u8 = 5;
const PAUSE: u8 = 6;
const CUT_WAY: u8 = 7;
const BLACKOUT: u8 = 8;
/// What strikes a new leader: its process ends, the power of all fails, nobody hears it. These come when they are planned, once.
const END: u8 = 9;
const ALL_DARK: u8 = 10;
const ISOLATE: u8 = 11;
/// A disk is lost; what was begun with disks goes on. Of clusters only.
const LOSE_DISK: u8 = 12;
pub(super) const SCENE: u8 = 13;
/// An operator goes on restarting nodes of a cluster.
pub(super) const RESTART: u8 = 14;
/// The disk of a node of a cluster fills up.
pub(super) const FILL: u8 = 15;

pub(super) struct Faults {
    /// By node. The first one's also says when clients do something.
    pub(super) dice: Vec<Dice>,
}

/// What whoever has clients has to carry out.
pub(super) enum Strike {
    Done,
    /// These processes end; with `true` by a power cut.
    Ends(Vec<(usize, bool)>),
    /// A client's connection is gone.
    Gone(u64),
    /// Something stored on this node decays; then the next fault of this kind is planned.
    Decay,
    /// A node loses its disk.
    LoseDisk,
    /// What was begun with a cluster's disks goes on.
    Scene,
    /// An operator stops a node in order, or looks whether it is back.
    Restart,
    /// The disk of some node fills up.
    Fill,
}

impl Faults {
    pub(super) fn new(seed: u64, nodes: usize) -> Faults {
        Faults { dice: (0..nodes).map(|node| Dice::of_node(seed, "faults", node)).collect() }
    }

    /// The first one of each kind.
    pub(super) fn plan_all(&mut self, world: &mut World) {
        for node in 0..world.nodes.len() {
            for (fault, mean_us) in means(world, node) {
                self.plan(world, node, fault, mean_us);
            }
        }
    }

    fn plan(&mut self, world: &mut World, node: usize, fault: u8, mean_us: u64) {
        if mean_us > 0 {
            let after = self.dice[node].wait_us(mean_us);
            world.plan(after, Item::Fault { node, fault });
        }
    }

    /// A fault comes, and the next of its kind is planned.
    pub(super) fn strike(&mut self, world: &mut World, node: usize, fault: u8) -> Strike {
        let it = &world.nodes[node];
        let mut strike = Strike::Done;
        match fault {
            // Most crashes come while something is being written: the others prove little.
            CRASH if it.is_serving() && !it.is_writing() && self.dice[node].chance(95) => {
                let after = self.dice[node].within(20..2000);
                world.plan(after, Item::Fault { node, fault: CRASH });
                return Strike::Done;
            }
            CRASH if it.is_up() => {
                let power = self.dice[node].chance(world.params.power_percent);
                strike = Strike::Ends(vec![(node, power)]);
            }
            CUT => strike = world.cut(node).map_or(Strike::Done, Strike::Gone),
            SLOW if world.params.is_cluster && self.dice[node].chance(40) => {
                (0..world.nodes.len()).for_each(|node| world.begin_slow_period(node));
            }
            SLOW => world.begin_slow_period(node),
            FULL => {
                let length = self.dice[node].within(200_000..5_000_000);
                world.nodes[node].space.full_until_us = world.now_us + length;
                world.totals.note(Counted::FullPeriods);
                world.tell_space();
                world.plan(length, Item::Fault { node, fault: SPACE });
            }
            SPACE => world.tell_space(),
            // The next one is planned when this one has drawn what it needs.
            DECAY => return Strike::Decay,
            LOSE_DISK => strike = Strike::LoseDisk,
            SCENE => strike = Strike::Scene,
            RESTART => strike = Strike::Restart,
            FILL => strike = Strike::Fill,
            PAUSE => {
                // Some are longer than any time-out of the core.
                let dice = &mut self.dice[node];
                let length_us = if dice.chance(25) { dice.within(500_000..4_000_000) } else { dice.within(500..200_000) };
                world.pause(node, length_us);
            }
            CUT_WAY => self.cut_ways(world),
            END if it.is_up() => {
                let power = self.dice[node].chance(world.params.power_percent);
                strike = Strike::Ends(vec![(node, power)]);
            }
            ISOLATE => {
                let length_us = self.dice[node].within(1_000_000..4_000_000);
                isolate(world, node, length_us);
            }
            // As with crashes: most come while something is being written.
            BLACKOUT if world.params.is_cluster && !world.nodes.iter().any(Node::is_writing) && self.dice[node].chance(95) => {
                let after = self.dice[node].within(20..2000);
                world.plan(after, Item::Fault { node, fault });
                return Strike::Done;
            }
            BLACKOUT | ALL_DARK => {
                world.totals.note(Counted::Blackouts);
                let up = (0..world.nodes.len()).filter(|node| world.nodes[*node].is_up());
                strike = Strike::Ends(up.map(|node| (node, true)).collect());
            }
            _ => {}
        }
        self.plan_next(world, node, fault);
        strike
    }

    /// The next fault of a kind.
    pub(super) fn plan_next(&mut self, world: &mut World, node: usize, fault: u8) {
        if let Some((_, mean_us)) = means(world, node).into_iter().find(|(f, _)| *f == fault) {
            self.plan(world, node, fault, mean_us);
        }
    }

    /// A node of a cluster has begun to lead something: now and then it gets into trouble in its first moments, or another one does that has just voted.
    pub(super) fn meet_leader(&mut self, world: &mut World, node: usize) {
        let count = world.nodes.len() as u64;
        let dice = &mut self.dice[0];
        if world.quiet || count == 1 || !dice.chance(world.params.strike_percent) {
            return;
        }
        let other = (node + dice.within(1..count) as usize) % count as usize;
        let (node, fault) =
            [(node, END), (other, END), (node, ALL_DARK), (node, ALL_DARK), (node, ISOLATE), (node, ISOLATE)][dice.below(6) as usize];
        // An isolated one has taken something in by then. Votes and first entries are on their way to disks for some 100 us, slow disks aside.
        let after = match fault {
            ISOLATE => dice.within(100..200_000),
            _ if dice.chance(50) => dice.within(1..150),
            _ => dice.within(1..4000),
        };
        world.plan(after, Item::Fault { node, fault });
    }

    /// One way, both between two nodes, or all of one node's: the network is cut for a while.
    fn cut_ways(&mut self, world: &mut World) {
        let count = world.nodes.len() as u64;
        if count == 1 {
            return;
        }
        let dice = &mut self.dice[0];
        let one = dice.below(count) as usize;
        let other = (one + dice.within(1..count) as usize) % count as usize;
        let length_us = if dice.chance(30) { dice.within(2_000_000..12_000_000) } else { dice.within(1000..2_000_000) };
        match dice.below(3) {
            0 => world.cut_way_for(one, other, length_us),
            1 => {
                world.cut_way_for(one, other, length_us);
                world.cut_way_for(other, one, length_us);
            }
            _ => isolate(world, one, length_us),
        }
    }
}

/// Nothing comes through from a node to any other one, nor back.
pub(super) fn isolate(world: &mut World, node: usize, length_us: u64) {
    for other in (0..world.nodes.len()).filter(|other| *other != node) {
        world.cut_way_for(node, other, length_us);
        world.cut_way_for(other, node, length_us);
    }
}

/// How often which fault comes to a node. What concerns all of them is the first one's.
fn means(world: &World, node: usize) -> [(u8, u64); 9] {
    let params = &world.params;
    let of_all = |mean_us| if node == 0 { mean_us } else { 0 };
    [
        (CRASH, params.crash_every_us),
        (CUT, params.cut_every_us),
        (SLOW, params.slow_every_us),
        (FULL, params.full_every_us),
        // Of a cluster one disk at a time rots.
        (DECAY, if params.is_cluster { of_all(params.decay_every_us) } else { params.decay_every_us }),
        (LOSE_DISK, of_all(params.lose_disk_every_us)),
        (PAUSE, params.pause_every_us),
        (CUT_WAY, of_all(params.link_cut_every_us)),
        (BLACKOUT, of_all(params.blackout_every_us)),
    ]
}
