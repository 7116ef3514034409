//! What an operator of a cluster does while clients work: replicas are moved, leaderships and replicas evened out, nodes stand aside for a while.
//!
//! Now and then he has a replica back where it was as soon as it has left, and another voter of its group hears from that node alone meanwhile: it does not know
//! that anything has moved, and asks whoever is there for its vote.
//!
//! Invariants: he knows nothing but what nodes tell him; one node stands aside at a time, and none does at the end.
//!
//! Not here: what follows from it (shard/moving.rs), other requests (`clients.rs`).

use super::clients::{Asked, Clients};
use crate::sim::link::broken;
use crate::sim::node::ShardAt;
use crate::sim::totals::Event as Counted;
use crate::sim::world::World;
use crate::sim::{Check, Dice};
use tramline_wire::cluster::{AlterClusterRequest, ClusterAction, DescribeClusterReply, DescribeClusterRequest, NodeState};
use tramline_wire::error::ErrorCode;
use tramline_wire::kind::Kind;

/// What he was told last.
#[derive(Default)]
struct Known {
    /// Nodes that take part, and those that stand aside.
    active: Vec<u32>,
    aside: Vec<u32>,
    /// Of groups that do not move: number, voters, whether partitions are in it.
    groups: Vec<(u32, Vec<u32>, bool)>,
    /// Who leads the metadata.
    leader: u32,
}

pub(super) struct Operator {
    dice: Dice,
    known: Option<Known>,
    /// The last move that he asked for, and has not had undone: group, to, from.
    trip: Option<(u32, u32, u32)>,
}

impl Operator {
    pub(super) fn new(seed: u64) -> Operator {
        Operator { dice: Dice::stream(seed, "operator"), known: None, trip: None }
    }
}

impl Clients {
    /// Whether this operation is the operator's.
    pub(super) fn is_operators_turn(&mut self, world: &World) -> bool {
        let one_in = world.params.operator_in;
        one_in > 0 && !self.uids.is_empty() && self.operator.dice.once_in(one_in)
    }

    /// He asks who is where, or has something done by what he was told. Each answer is good for one action.
    pub(super) fn operate_cluster(&mut self, world: &mut World, at: usize, is_disk_bad: bool) {
        let nodes = world.nodes.len() as u64;
        let node = match &self.operator.known {
            Some(known) if known.leader > 0 && self.operator.dice.chance(90) => known.leader as usize - 1,
            _ => self.operator.dice.below(nodes) as usize,
        };
        let slot = self.slot(ShardAt { node, shard: 0 });
        if !self.can_send(world, at, slot) {
            return;
        }
        let Some((request, voters)) = self.operator.known.take().and_then(|known| self.operator.wish(known, is_disk_bad)) else {
            return self.list[at].links[slot]
                .send(world, Kind::DescribeCluster, Asked::Describe, |out| DescribeClusterRequest {}.encode(out));
        };
        if request.action == ClusterAction::Move && self.operator.dice.chance(30) {
            self.operator.leave_behind(world, request.from_node, &voters);
        }
        world.say(|| format!("the operator asks node {}: {request:?}", node + 1));
        self.list[at].links[slot].send(world, Kind::AlterCluster, Asked::Alter, |out| request.encode(out));
    }

    pub(super) fn on_described(&mut self, meta: &[u8]) -> Check {
        let reply = DescribeClusterReply::decode(meta).map_err(|e| broken(&e))?;
        let in_state = |state: &[NodeState]| reply.nodes.iter().filter(|node| state.contains(&node.state)).map(|node| node.node).collect();
        let groups = reply.groups.iter().filter(|group| group.group != 0 && group.moving.is_empty());
        self.operator.known = Some(Known {
            active: in_state(&[NodeState::Active]),
            aside: in_state(&[NodeState::Draining, NodeState::Drained]),
            groups: groups.map(|group| (group.group, group.voters.iter().collect(), group.partitions > 0)).collect(),
            leader: reply.groups.iter().find(|group| group.group == 0).map_or(0, |group| group.leader),
        });
        Ok(())
    }

    pub(super) fn on_altered(&mut self, world: &mut World) {
        world.totals.note(Counted::ClusterAltered);
    }

    /// Whether nobody stands aside; else the node takes part again.
    pub(super) fn settle_nodes(&mut self, world: &mut World) -> bool {
        let aside = |node: &u32| world.shard(ShardAt { node: *node as usize - 1, shard: 0 }).is_some_and(|shard| shard.stands_aside());
        let Some(node) = (1..=world.nodes.len() as u32).find(aside) else { return true };
        let leader = self.operator.dice.below(world.nodes.len() as u64) as usize;
        let slot = self.slot(ShardAt { node: leader, shard: 0 });
        let is_asked = self.list[0].links[slot].pending().any(|asked| matches!(asked, Asked::Alter));
        if !is_asked && self.can_send(world, 0, slot) {
            let request = AlterClusterRequest { action: ClusterAction::Undrain, node, group: 0, from_node: 0 };
            self.list[0].links[slot].send(world, Kind::AlterCluster, Asked::Alter, |out| request.encode(out));
        }
        false
    }
}

impl Operator {
    fn one_of<T: Copy>(&mut self, list: &[T]) -> Option<T> {
        (!list.is_empty()).then(|| list[self.dice.below(list.len() as u64) as usize])
    }

    /// One of `voters` is cut off from all nodes but `from`.
    fn leave_behind(&mut self, world: &mut World, from: u32, voters: &[u32]) {
        let others: Vec<u32> = voters.iter().copied().filter(|voter| *voter != from).collect();
        let Some(behind) = self.one_of(&others).map(|node| node as usize - 1) else { return };
        let length_us = self.dice.within(2_000_000..8_000_000);
        for other in (0..world.nodes.len()).filter(|other| *other != behind && *other != from as usize - 1) {
            world.cut_way_for(behind, other, length_us);
            world.cut_way_for(other, behind, length_us);
        }
    }

    /// What is to be done, and of a move who votes in its group.
    fn wish(&mut self, mut known: Known, is_disk_bad: bool) -> Option<(AlterClusterRequest, Vec<u32>)> {
        if is_disk_bad {
            known.groups.retain(|(_, voters, _)| voters.len() > 1);
        }
        let of_node = |action, node| Some((AlterClusterRequest { action, node, group: 0, from_node: 0 }, Vec::new()));
        let a_move = |group, node, from_node| AlterClusterRequest { action: ClusterAction::Move, node, group, from_node };
        let back = self.trip.and_then(|(of, to, from)| {
            let (group, voters, _) = known.groups.iter().find(|(group, ..)| *group == of)?;
            let has_left = voters.contains(&to) && !voters.contains(&from) && known.active.contains(&from);
            has_left.then(|| (a_move(*group, from, to), voters.clone()))
        });
        if back.is_some() && self.dice.chance(60) {
            self.trip = None;
            return back;
        }
        match self.dice.below(100) {
            0..=19 if !is_disk_bad => of_node(ClusterAction::Balance, 0),
            20..=39 => match known.aside.first() {
                Some(node) => of_node(ClusterAction::Undrain, *node),
                None => of_node(ClusterAction::Drain, self.one_of(&known.active)?),
            },
            _ => {
                // Mostly of those in which something happens.
                let used: Vec<_> = known.groups.iter().filter(|(.., is_used)| *is_used).collect();
                let all: Vec<_> = known.groups.iter().collect();
                let among = if self.dice.chance(80) { used } else { all };
                let (group, voters, _) = self.one_of(&among)?;
                let others: Vec<u32> = known.active.iter().copied().filter(|node| !voters.contains(node)).collect();
                let (node, from_node) = (self.one_of(&others)?, self.one_of(voters)?);
                self.trip = Some((*group, node, from_node));
                Some((a_move(*group, node, from_node), voters.clone()))
            }
        }
    }
}

/// What an operator may be told: another time, or not as things are now.
pub(super) fn fits_operator(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::InvalidRequest | ErrorCode::LimitExceeded)
}
