//! Who leads which group, as far as this node knows, and where requests for it go.
//!
//! Each shard tells its siblings what it learns of the groups that it has replicas of. It says where to go, and decides nothing: whoever is asked knows
//! whether it leads. Of groups that this node has no replica of the preferred leader is told, with term 0.
//!
//! Not here: elections (replication/), what a request does (`requests.rs`).

use super::mesh::Message;
use super::shard::Shard;
use crate::api::metadata::Lead;
use crate::control::PartitionView;
use crate::effects::{Caller, Effect, Effects};
use crate::ids::{GroupId, NodeId, ShardId, Term};
use std::collections::BTreeMap;

/// The leaders that were told, by group.
#[derive(Debug, Default)]
pub(super) struct Leaders {
    known: BTreeMap<GroupId, (NodeId, Term)>,
}

impl Leaders {
    /// Who leads a group; `None` where nobody is known to.
    pub(super) fn of(&self, group: GroupId) -> Option<(NodeId, Term)> {
        self.known.get(&group).copied()
    }

    /// Somebody leads the group in this term, or nobody in it (node 0). False when something newer is known.
    pub(super) fn note(&mut self, group: GroupId, node: NodeId, term: Term) -> bool {
        match self.known.get(&group) {
            Some((_, newest)) if *newest > term => false,
            Some(known) if *known == (node, term) => false,
            _ => {
                self.known.insert(group, (node, term));
                true
            }
        }
    }
}

impl Shard {
    /// Tells the other shards of this node who leads the groups that this one has replicas of, where that is news.
    pub(super) fn tell_leaders(&mut self, effects: &mut Effects) {
        for group in &self.group_ids {
            let term = self.groups.term_of(*group);
            let node = self.groups.leader_of(*group).map_or(NodeId(0), |replica| replica.node());
            if !self.leaders.note(*group, node, term) {
                continue;
            }
            for shard in (0..self.settings.shards).map(ShardId).filter(|shard| *shard != self.id) {
                effects.push(Effect::Mesh { to: shard, message: Message::Leader { group: *group, node, term } });
            }
        }
    }

    /// Where a group's leader is, by what this node knows. Alone, every group is led here.
    pub(super) fn lead_of(&self, group: GroupId, preferred: (NodeId, ShardId)) -> Lead {
        let (node, term) = match self.leaders.of(group) {
            Some((node, term)) if node != NodeId(0) => (node, term),
            _ => return Lead { node: preferred.0, shard: preferred.1, term: Term(0) },
        };
        let replica = self.view.cluster.group(group).and_then(|found| found.replicas.iter().find(|replica| replica.node == node));
        Lead { node, shard: replica.map_or(preferred.1, |replica| replica.shard), term }
    }

    /// Where a partition's leader is.
    pub(super) fn lead_of_partition(&self, place: &PartitionView) -> Lead {
        self.lead_of(place.group, (place.node, place.shard))
    }

    /// What metadata tell of a partition's leader. The term of a shard that is alone is the same for all its groups, or nearly: it rises with each start.
    pub(super) fn told_lead(&self, place: &PartitionView) -> Lead {
        match self.pipelines.is_alone() {
            true => {
                let term = self.group_ids.last().and_then(|group| self.groups.leader_term(*group)).unwrap_or_default();
                Lead { node: place.node, shard: place.shard, term }
            }
            false => self.lead_of_partition(place),
        }
    }

    /// Tells of the cluster, as this node knows it.
    pub(super) fn describe_cluster(&self, caller: &Caller, effects: &mut Effects) {
        let mut meta = Vec::new();
        let is_alone = self.pipelines.is_alone();
        let lead = |group: GroupId| match self.leaders.of(group) {
            Some((node, term)) if node != NodeId(0) => Some((node, term)),
            None if is_alone => Some((self.node, self.groups.led_in(group)?)),
            _ => None,
        };
        crate::api::cluster::describe(&mut meta, &self.view, self.node, lead, |node| self.is_connected(node));
        effects.reply(caller, 0, &mut Vec::new(), |out| out.extend_from_slice(&meta));
    }

    /// The address for clients of a shard of some node; empty where it is not known.
    pub(super) fn client_address(&self, node: NodeId, shard: ShardId) -> String {
        if node == self.node {
            return self.info.client.shard_address(shard);
        }
        self.view.cluster.node(node).map_or_else(String::new, |found| found.client.shard_address(shard))
    }

    /// Where whoever leads `group` takes requests of clients; empty where nobody is known to, or it is this shard.
    pub(super) fn leader_address(&self, group: GroupId) -> String {
        let Some(found) = self.view.cluster.group(group) else { return String::new() };
        let lead = self.lead_of(group, (found.replicas[0].node, found.replicas[0].shard));
        match (lead.node, lead.shard) == (self.node, self.id) {
            true => String::new(),
            false => self.client_address(lead.node, lead.shard),
        }
    }

    /// The shard of this node that has a replica of `group`.
    pub(super) fn shard_with(&self, group: GroupId) -> Option<ShardId> {
        let found = self.view.cluster.group(group)?;
        found.replicas.iter().find(|replica| replica.node == self.node).map(|replica| replica.shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_term_holds() {
        let mut leaders = Leaders::default();
        assert!(leaders.note(GroupId(1), NodeId(2), Term(5)));
        assert!(!leaders.note(GroupId(1), NodeId(2), Term(5)), "no news");
        assert!(!leaders.note(GroupId(1), NodeId(3), Term(4)));
        assert!(leaders.note(GroupId(1), NodeId(0), Term(6)));
        assert!(leaders.note(GroupId(1), NodeId(3), Term(6)));
        assert_eq!(leaders.of(GroupId(1)), Some((NodeId(3), Term(6))));
        assert_eq!(leaders.of(GroupId(2)), None);
    }
}
