//! What the commands about nodes, groups and moves do to the state: each is checked against all of it, and then changes it.
//!
//! Invariants: `change_cluster` is only called for what `check_cluster` has let through; what one change makes impossible (moves towards a node that leaves, groups
//! of which no disk is left) ends in the same command, so that no state needs a second command to be right.
//!
//! Not here: rules that look at nodes only (`nodes.rs`) or at one group only (`groups.rs`, `moves.rs`), places (`placement.rs`).

use super::cluster_command::{ClusterCommand, Endpoint, NodeSpec};
use super::cluster_error::ClusterError;
use super::error::ControlError;
use super::groups::{Group, Groups, Place, majority};
use super::moves::Plan;
use super::nodes::{Node, NodeState, check_node};
use super::placement::{missing_groups, proposals, repairs, shards_of};
use super::state::{Applied, State};
use crate::constants::REPLICAS_MAX;
use crate::ids::{GroupId, LogIndex, MoveId, NodeId};
use std::collections::BTreeMap;

impl State {
    /// What group 0's leader should propose next to repair groups and to even out, as far as nothing else is under way. To be asked again whenever something has
    /// changed; nothing is remembered of it.
    pub fn proposals(&self) -> Vec<ClusterCommand> {
        proposals(&self.nodes, &self.groups).into_iter().map(command_of).collect()
    }

    /// Those of them that repair: what evens out is done when somebody asks for it.
    pub fn repairs(&self) -> Vec<ClusterCommand> {
        repairs(&self.nodes, &self.groups).into_iter().map(command_of).collect()
    }

    /// How many disks a node has had before its present one.
    pub fn generation_of(&self, node: NodeId) -> u32 {
        self.nodes.get(node).map_or(0, |found| found.generation())
    }

    /// What has to be said before a node is taken in whose number another disk has: nothing where it is that disk, or a new number. Refused where it could not be
    /// taken in then either.
    pub fn replacement(&self, spec: &NodeSpec) -> Result<Option<ClusterCommand>, ControlError> {
        let node = NodeId(spec.node);
        let is_other = |known: &Node| known.disk != 0 && known.disk != spec.disk && !known.past_disks.contains(&spec.disk);
        if !self.nodes.get(node).is_ok_and(is_other) {
            return Ok(None);
        }
        self.check_replace_disk(node, spec.disk)?;
        let mut then = self.nodes.clone();
        then.replace_disk(node, spec.disk);
        then.check_add(&NodeSpec { generation: spec.generation + 1, ..spec.clone() })?;
        Ok(Some(ClusterCommand::ReplaceDisk { node: spec.node, disk: spec.disk }))
    }

    /// Where each node's shards can be reached by the others.
    pub fn cluster_endpoints(&self) -> impl Iterator<Item = (NodeId, &Endpoint)> {
        self.nodes.iter().map(|(id, node)| (id, &node.cluster))
    }

    pub(super) fn check_register(&self, node: NodeId, shards: u16, groups_per_shard: u16) -> Result<(), ClusterError> {
        check_node(node.0, shards, groups_per_shard)?;
        match self.nodes.get(node) {
            Err(ClusterError::UnknownNode(_)) => self.nodes.check_room(),
            known => known.map(|_| ()),
        }
    }

    /// A node of which nothing but its size is known takes part at once.
    pub(super) fn register(&mut self, node: NodeId, shards: u16, groups_per_shard: u16) {
        // What it has is fixed at its first start, and so is what was registered then.
        if self.has_node(node) {
            return;
        }
        self.nodes.insert(node, Node::of_size(shards, groups_per_shard));
        self.on_active(node);
    }

    pub(super) fn check_cluster(&self, command: &ClusterCommand) -> Result<(), ControlError> {
        let checked = match command {
            ClusterCommand::AddNode(spec) => self.nodes.check_add(spec),
            ClusterCommand::ReplaceDisk { node, disk } => self.check_replace_disk(NodeId(*node), *disk),
            ClusterCommand::SetNodeState { node, state } => self.check_state(NodeId(*node), *state),
            ClusterCommand::RemoveNode { node } => self.check_remove(NodeId(*node)),
            ClusterCommand::CreateGroups { replicas } => self.check_create_groups(*replicas),
            ClusterCommand::PlanMove { group, add, drop } => self.groups.check_plan(&self.nodes, plan_of(*group, *add, *drop)),
            ClusterCommand::NoteMove { id, step, .. } => self.groups.check_note(MoveId(*id), *step),
            ClusterCommand::CancelMove { id } => self.groups.check_cancel(MoveId(*id)),
            ClusterCommand::SetReplicas { topic, replicas } => {
                if !self.topics.contains_key(topic) {
                    return Err(ControlError::UnknownTopic(topic.clone()));
                }
                self.check_factor(&format!("topic {topic:?}"), *replicas, self.nodes.staying())
            }
            ClusterCommand::SetFeatureLevel { level } => self.nodes.check_feature_level(*level),
            ClusterCommand::UncleanRecover { group, survivors } => self.groups.check_unclean(&self.nodes, GroupId(*group), survivors),
        };
        Ok(checked?)
    }

    /// Carries out what `check_cluster` has let through.
    pub(super) fn change_cluster(&mut self, command: &ClusterCommand) -> Applied {
        match command {
            ClusterCommand::AddNode(spec) => {
                let node = NodeId(spec.node);
                // One that comes back with another disk may have homes without groups: those that no other node had.
                let has_had_disks = spec.generation > 0;
                if (self.nodes.add(spec) || has_had_disks) && self.nodes.is_active(node) {
                    self.on_active(node);
                }
                Applied::Node
            }
            ClusterCommand::ReplaceDisk { node, disk } => {
                self.replace_disk(NodeId(*node), *disk);
                Applied::Node
            }
            ClusterCommand::SetNodeState { node, state } => {
                self.set_state(NodeId(*node), *state);
                Applied::Node
            }
            ClusterCommand::RemoveNode { node } => {
                let node = NodeId(*node);
                self.groups.end_partings(node);
                self.groups.leave_homes(&self.nodes, node);
                self.nodes.set_state(node, NodeState::Removed);
                Applied::Node
            }
            ClusterCommand::CreateGroups { replicas } => {
                self.groups.families.insert(*replicas);
                let made = self.missing(*replicas);
                self.groups.insert(&self.nodes, *replicas, &made);
                Applied::Groups(made.len() as u32)
            }
            ClusterCommand::PlanMove { group, add, drop } => Applied::Planned(self.groups.plan(&self.nodes, plan_of(*group, *add, *drop))),
            ClusterCommand::NoteMove { id, step, conf_index } => {
                self.groups.note(&self.nodes, MoveId(*id), *step, LogIndex(*conf_index));
                Applied::Cluster
            }
            ClusterCommand::CancelMove { id } => {
                self.groups.end(MoveId(*id));
                Applied::Cluster
            }
            ClusterCommand::SetReplicas { topic, replicas } => {
                self.set_replicas(topic, *replicas);
                Applied::Cluster
            }
            ClusterCommand::SetFeatureLevel { level } => {
                self.nodes.feature_level = *level;
                Applied::Cluster
            }
            ClusterCommand::UncleanRecover { group, survivors } => {
                self.groups.recover_unclean(self.applied, GroupId(*group), survivors);
                Applied::Cluster
            }
        }
    }

    pub(super) fn check_factor(&self, what: &str, replicas: u8, nodes: usize) -> Result<(), ClusterError> {
        if !(1..=REPLICAS_MAX).contains(&replicas) {
            return Err(ClusterError::Replicas(replicas));
        }
        if usize::from(replicas) > nodes {
            return Err(ClusterError::TooFewNodes { what: what.to_owned(), replicas, nodes });
        }
        Ok(())
    }

    /// A node takes part from now on: it gets its homes in each family, and the first one the only vote in group 0.
    fn on_active(&mut self, node: NodeId) {
        if self.groups.control.replicas.is_empty() {
            let home = shards_of(&self.nodes, node).next().expect("a node has a shard");
            self.groups.control = Group::new(&self.nodes, 1, &[home]);
            self.groups.families.insert(1);
        }
        let active = self.nodes.active().count();
        let families: Vec<u8> = self.groups.families.iter().copied().filter(|factor| usize::from(*factor) <= active).collect();
        let homes: Vec<_> = shards_of(&self.nodes, node).collect();
        for factor in families {
            let made = missing_groups(&self.nodes, &self.groups, factor, &homes);
            self.groups.insert(&self.nodes, factor, &made);
        }
    }

    /// The groups that a family lacks, over all active nodes.
    fn missing(&self, replicas: u8) -> Vec<Vec<Place>> {
        let homes: Vec<_> = self.nodes.active().flat_map(|(node, _)| shards_of(&self.nodes, node)).collect();
        missing_groups(&self.nodes, &self.groups, replicas, &homes)
    }

    fn check_create_groups(&self, replicas: u8) -> Result<(), ClusterError> {
        self.check_factor("a family of groups", replicas, self.nodes.active().count())?;
        if self.groups.open_to(&self.nodes, replicas).next().is_none() && self.missing(replicas).is_empty() {
            return Err(ClusterError::Limit(format!(
                "no shard has room for groups with {replicas} replicas: add nodes, or remove groups by lowering factors"
            )));
        }
        Ok(())
    }

    fn check_replace_disk(&self, node: NodeId, disk: u64) -> Result<(), ClusterError> {
        self.nodes.check_replace_disk(node, disk)?;
        let control = &self.groups.control;
        let left = control.living(&self.nodes).filter(|replica| replica.node() != node).count();
        let of = control.replicas.len();
        if control.replica_on(node).is_some() && left < majority(of) {
            return Err(ClusterError::Majority { group: GroupId(0), left, of, why: format!("without the disk of node {node}") });
        }
        Ok(())
    }

    fn replace_disk(&mut self, node: NodeId, disk: u64) {
        self.groups.end_arrivals(node);
        self.groups.end_partings(node);
        self.nodes.replace_disk(node, disk);
        // A group that cannot commit carries no move out, and one that could not afterwards is not to.
        let ended: Vec<_> = self
            .groups
            .all()
            .filter(|(_, group)| Groups::is_stuck(group, &self.nodes))
            .filter_map(|(_, group)| group.moving.as_ref().map(|m| m.id))
            .collect();
        ended.into_iter().for_each(|id| self.groups.end(id));
        self.groups.forget_lost(&self.nodes, &self.subscriptions.homes());
    }

    fn check_state(&self, node: NodeId, next: NodeState) -> Result<(), ClusterError> {
        self.nodes.check_state(node, next)?;
        let is_active = self.nodes.is_active(node);
        match next {
            NodeState::Draining => self.groups.check_standing_aside(&self.nodes, node),
            NodeState::Leaving => {
                self.groups.check_standing_aside(&self.nodes, node)?;
                if self.nodes.active().count() == usize::from(is_active) {
                    let is = self.nodes.get(node)?.state;
                    return Err(ClusterError::State { node, is, wanted: "it cannot leave, no other node is active: add one first".into() });
                }
                let most = self.topics.iter().max_by_key(|(_, topic)| topic.replicas);
                let left = self.nodes.staying() - 1;
                most.map_or(Ok(()), |(name, topic)| self.check_factor(&format!("topic {name:?}"), topic.replicas, left))
            }
            _ => Ok(()),
        }
    }

    fn set_state(&mut self, node: NodeId, next: NodeState) {
        self.nodes.set_state(node, next);
        match next {
            NodeState::Active => self.on_active(node),
            NodeState::Leaving => {
                self.groups.end_arrivals(node);
                self.groups.leave_homes(&self.nodes, node);
                // No topic needs more, so what has more holds none, or did for one that is deleted.
                let left = self.nodes.staying().min(usize::from(REPLICAS_MAX)) as u8;
                self.groups.data.values_mut().for_each(|group| group.factor = group.factor.min(left));
            }
            _ => {}
        }
    }

    fn check_remove(&self, node: NodeId) -> Result<(), ClusterError> {
        let is = self.nodes.get(node)?.state;
        if !matches!(is, NodeState::Leaving | NodeState::Registered) {
            return Err(ClusterError::State { node, is, wanted: "it is removed after it has left: let it become leaving first".into() });
        }
        let is_there = |group: &Group| group.replica_on(node).is_some() || group.arriving().is_some_and(|replica| replica.node() == node);
        match self.groups.all().find(|(_, group)| is_there(group)) {
            Some((group, _)) => Err(ClusterError::HasReplica(node, group)),
            None => Ok(()),
        }
    }

    /// A topic's factor is that of its groups: they get as many replicas as the topic in them that wants most. Those with consumer groups at home do not lose what
    /// new ones would get: who reads other topics is not to lose its offsets by this one.
    fn set_replicas(&mut self, topic: &str, replicas: u8) {
        self.topics.get_mut(topic).expect("checked").replicas = replicas;
        let (homes, of_new) = (self.subscriptions.homes(), self.nodes.default_replicas());
        let kept = |group: &GroupId| if homes.contains_key(group) { self.groups.data[group].factor.min(of_new) } else { 0 };
        let mut wanted: BTreeMap<GroupId, u8> = self.topics[topic].partitions.iter().map(|(_, group)| (*group, kept(group))).collect();
        for topic in self.topics.values() {
            for (_, group) in &topic.partitions {
                wanted.entry(*group).and_modify(|most| *most = (*most).max(topic.replicas));
            }
        }
        for (group, factor) in wanted {
            self.groups.known_mut(group).factor = factor;
        }
    }
}

fn command_of(plan: Plan) -> ClusterCommand {
    let (add, drop) = (plan.add.map(|node| node.0), plan.drop.map(|node| node.0));
    ClusterCommand::PlanMove { group: plan.group.0, add, drop }
}

fn plan_of(group: u32, add: Option<u32>, drop: Option<u32>) -> Plan {
    Plan { group: GroupId(group), add: add.map(NodeId), drop: drop.map(NodeId) }
}
