//! Who leads which group, as far as this node knows, and where requests for it go.
//!
//! Each shard tells its siblings what it learns of the groups that it has replicas of. Shards 0 tell each other which groups their nodes lead, and which view all
//! their shards act on (docs/REPLICATION.md, 3, Leaders): that is what is known of groups without a replica here. All of it says where to go, and decides
//! nothing: whoever is asked knows whether it leads. Where nothing is known the preferred leader is told, with term 0.
//!
//! Not here: elections (replication/), what a request does (`requests.rs`).

use super::mesh::Message;
use super::pipelines::{NotTaken, check_term, write};
use super::shard::Shard;
use crate::api::metadata::Lead;
use crate::control::{GroupView, NodeState, PartitionView};
use crate::effects::{Caller, Effect, Effects};
use crate::ids::{GroupId, NodeId, ShardId, Term};
use std::collections::BTreeMap;
use tramline_wire::node::{self, Frame, GroupLeader, Kind, NodeError};
use tramline_wire::prim::List;

/// A leader that was told.
#[derive(Clone, Copy, Debug)]
struct Known {
    node: NodeId,
    term: Term,
    /// Other nodes are to hear of it from this one: it leads the group, or did before this.
    is_ours: bool,
    /// Which change of all that is known this was.
    change: u64,
    /// What the replica here has told the siblings last.
    said: Option<(NodeId, Term)>,
}

/// The leaders that were told, by group.
#[derive(Debug)]
pub(super) struct Leaders {
    me: NodeId,
    known: BTreeMap<GroupId, Known>,
    /// What others have told last of each group: who, and what. A replica here knows better as long as it is one; when it has been given up, which it hears of by
    /// silence, nobody tells it again.
    told: BTreeMap<GroupId, (NodeId, NodeId, Term)>,
    changes: u64,
    /// A shard that is alone has groups of which its siblings have not heard that it leads them.
    is_owed: bool,
}

impl Leaders {
    pub(super) fn new(me: NodeId) -> Leaders {
        Leaders { me, known: BTreeMap::new(), told: BTreeMap::new(), changes: 0, is_owed: true }
    }

    /// Who leads a group; `None` where nobody is known to.
    pub(super) fn of(&self, group: GroupId) -> Option<(NodeId, Term)> {
        self.known.get(&group).map(|known| (known.node, known.term))
    }

    /// Somebody leads the group in this term, or nobody in it (node 0). False when something newer is known.
    pub(super) fn note(&mut self, group: GroupId, node: NodeId, term: Term) -> bool {
        let before = self.known.get(&group);
        if before.is_some_and(|known| known.term > term || (known.node, known.term) == (node, term)) {
            return false;
        }
        let was_ours = before.is_some_and(|known| known.node == self.me || known.is_ours && node == NodeId(0));
        let said = before.and_then(|known| known.said);
        self.changes += 1;
        self.known.insert(group, Known { node, term, is_ours: was_ours || node == self.me, change: self.changes, said });
        true
    }

    /// The same, by the replica of the group that this shard has. True when the siblings are to be told: also of what is known here by hearsay already. They may
    /// have heard the same before, and then from here that nobody is known to lead in that term.
    fn say(&mut self, group: GroupId, node: NodeId, term: Term) -> bool {
        // Asked of every group in every turn, and mostly nothing has changed: one look.
        if self.known.get(&group).is_some_and(|known| known.said == Some((node, term)) && (known.node, known.term) == (node, term)) {
            return false;
        }
        let is_news = self.note(group, node, term);
        let known = self.known.get_mut(&group).expect("noted now or before");
        known.said.replace((node, term)) != Some((node, term)) || is_news
    }

    /// Another node tells of a group that this one has no replica of. False where that is no news: of two that say something of one term, who leads in it is
    /// right, and only the leader itself takes that back.
    fn hear(&mut self, from: NodeId, group: GroupId, node: NodeId, term: Term) -> bool {
        let is_foreign = |known: &Known| known.term == term && node == NodeId(0) && known.node != from;
        !self.known.get(&group).is_some_and(is_foreign) && self.note(group, node, term)
    }

    /// What other nodes are to hear of, of the changes behind this one.
    fn news_since(&self, change: u64) -> Vec<GroupLeader> {
        let news = self.known.iter().filter(|(_, known)| known.is_ours && known.change > change);
        news.map(|(group, known)| GroupLeader { group: group.0, node: known.node.0, term: known.term.0 }).collect()
    }
}

impl Shard {
    /// Tells the other shards of this node who leads the groups that this one has replicas of, where that is news.
    pub(super) fn tell_leaders(&mut self, effects: &mut Effects) {
        for group in &self.group_ids {
            let term = self.groups.term_of(*group);
            let node = self.groups.leader_of(*group).map_or(NodeId(0), |replica| replica.node());
            // One that has lost its vote hears of the leader no more; who leads tells the other nodes once, and what was known stays right.
            if node == NodeId(0) && self.shard_with(*group).is_none() {
                continue;
            }
            if self.leaders.say(*group, node, term) {
                tell_siblings(self.id, self.settings.shards, (*group, node, term), effects);
            }
        }
    }

    /// The same for a shard that is alone: it leads all its groups once they have begun, and looks only then.
    pub(super) fn tell_that_alone(&mut self, effects: &mut Effects) {
        self.leaders.is_owed |= self.groups.owes();
        if self.leaders.is_owed && self.groups.all_caught_up() {
            self.leaders.is_owed = false;
            self.tell_leaders(effects);
        }
    }

    /// Shard 0 tells those of the other nodes which groups this node leads, and which view all its shards act on, where that is news to them.
    pub(super) fn tell_nodes(&mut self, effects: &mut Effects) {
        let Some(view_in_force) = self.seat.as_ref().map(|seat| seat.view_in_force()) else { return };
        let news = (view_in_force, self.leaders.changes);
        for peer in self.pipelines.peers.iter_mut().filter(|peer| peer.live().is_some() && peer.told != news) {
            let groups = self.leaders.news_since(peer.told.1);
            let is_news = !groups.is_empty() || peer.told.0 != view_in_force;
            peer.told = news;
            if is_news {
                let (conn, number) = peer.next_number();
                let leaders = node::Leaders { view_in_force, groups: List::of(&groups) };
                effects.send(conn, [], |out| write(out, Kind::Leaders, number, |out| leaders.encode(out)));
            }
        }
    }

    /// The shard 0 of another node tells of its view and its leaderships.
    pub(super) fn on_leaders(&mut self, at: usize, frame: &Frame<'_>, effects: &mut Effects) -> Result<(), NotTaken> {
        let told = node::Leaders::decode(frame.meta).map_err(NodeError::from)?;
        if self.id != ShardId(0) {
            return Err(NotTaken::Wrong("shards 0 tell each other of leaders, and this is none".to_owned()));
        }
        let from = self.pipelines.peers[at].replica.node();
        self.pipelines.peers[at].view_in_force = told.view_in_force;
        for row in told.groups.iter() {
            check_term(row.term)?;
            let (group, node, term) = (GroupId(row.group), NodeId(row.node), Term(row.term));
            if self.leaders.told.get(&group).is_none_or(|(.., before)| *before <= term) {
                self.leaders.told.insert(group, (from, node, term));
            }
            self.hear_told(group, effects);
        }
        Ok(())
    }

    /// What others have told of a group counts where there is no replica of it here, and where that one hears nothing any more: by a higher term.
    fn hear_told(&mut self, group: GroupId, effects: &mut Effects) {
        let Some((from, node, term)) = self.leaders.told.get(&group).copied() else { return };
        let is_newer = self.leaders.of(group).is_some_and(|(_, known)| known < term);
        if (is_newer || self.shard_with(group).is_none()) && self.leaders.hear(from, group, node, term) {
            tell_siblings(self.id, self.settings.shards, (group, node, term), effects);
        }
    }

    /// A sibling tells of a group. That nobody leads in a term of which a leader is known says only the shard that has the replica: others may have heard it of whoever
    /// led before, and it may come last.
    pub(super) fn on_leader_told(&mut self, from: ShardId, group: GroupId, node: NodeId, term: Term) {
        let is_known = self.leaders.of(group).is_some_and(|(known, of)| of == term && known != NodeId(0));
        if node != NodeId(0) || !is_known || self.shard_with(group).is_none_or(|shard| shard == from) {
            self.leaders.note(group, node, term);
        }
    }

    /// The view has changed: replicas of this node may have been given up.
    pub(super) fn hear_all_told(&mut self, effects: &mut Effects) {
        let told: Vec<_> = self.leaders.told.keys().copied().collect();
        told.into_iter().for_each(|group| self.hear_told(group, effects));
    }

    /// Whether every node that is there acts on the view of `epoch`, as far as they have said.
    pub(super) fn is_in_force_elsewhere(&self, epoch: u64) -> bool {
        self.pipelines.peers.iter().filter(|peer| peer.live().is_some() && peer.view_in_force < epoch).all(|peer| {
            // Who is only coming has it when it is active; who has left needs none.
            let node = self.view.cluster.node(peer.replica.node());
            node.is_none_or(|node| {
                matches!(node.state, NodeState::Registered | NodeState::Removed) || node.generation != peer.replica.generation()
            })
        })
    }

    /// Where a group's leader is, by what this node knows.
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

    /// Where the leader of a consumer group's home is.
    pub(super) fn lead_of_home(&self, group: &GroupView) -> Lead {
        self.lead_of(group.home, (group.node, group.shard))
    }

    /// Tells of the cluster, as this node knows it.
    pub(super) fn describe_cluster(&self, caller: &Caller, effects: &mut Effects) {
        let mut meta = Vec::new();
        // Who cannot be reached is not known to lead: a replica here would have told who does by now.
        let is_there = |group: GroupId, node: NodeId| self.shard_with(group).is_some() || self.is_connected(node);
        let lead = |group: GroupId| self.leaders.of(group).filter(|(node, _)| *node != NodeId(0) && is_there(group, *node));
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

fn tell_siblings(me: ShardId, shards: u16, (group, node, term): (GroupId, NodeId, Term), effects: &mut Effects) {
    for shard in (0..shards).map(ShardId).filter(|shard| *shard != me) {
        effects.push(Effect::Mesh { to: shard, message: Message::Leader { group, node, term } });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(leaders: &Leaders, since: u64) -> Vec<(u32, u32, u64)> {
        leaders.news_since(since).iter().map(|row| (row.group, row.node, row.term)).collect()
    }

    #[test]
    fn the_highest_term_holds() {
        let mut leaders = Leaders::new(NodeId(9));
        assert!(leaders.note(GroupId(1), NodeId(2), Term(5)));
        assert!(!leaders.note(GroupId(1), NodeId(2), Term(5)), "no news");
        assert!(!leaders.note(GroupId(1), NodeId(3), Term(4)));
        assert!(leaders.note(GroupId(1), NodeId(0), Term(6)));
        assert!(leaders.note(GroupId(1), NodeId(3), Term(6)));
        assert_eq!(leaders.of(GroupId(1)), Some((NodeId(3), Term(6))));
        assert_eq!(leaders.of(GroupId(2)), None);
    }

    #[test]
    fn others_hear_of_what_this_node_leads_and_of_what_it_leads_no_more() {
        let mut leaders = Leaders::new(NodeId(1));
        leaders.note(GroupId(1), NodeId(1), Term(5));
        leaders.note(GroupId(2), NodeId(3), Term(5));
        assert_eq!(told(&leaders, 0), [(1, 1, 5)], "node 3 tells of its own");
        let before = leaders.changes;
        leaders.note(GroupId(1), NodeId(0), Term(6));
        assert_eq!(told(&leaders, before), [(1, 0, 6)]);
        leaders.note(GroupId(1), NodeId(0), Term(7));
        assert_eq!(told(&leaders, before), [(1, 0, 7)], "still nobody else can tell of it");
        leaders.note(GroupId(1), NodeId(2), Term(7));
        assert_eq!(told(&leaders, 0), [], "whoever leads it now does");
    }

    #[test]
    fn what_a_replica_learns_is_said_though_it_was_heard_before() {
        let mut leaders = Leaders::new(NodeId(1));
        assert!(leaders.say(GroupId(1), NodeId(0), Term(5)), "somebody asks for a vote");
        assert!(leaders.note(GroupId(1), NodeId(2), Term(5)), "a sibling has heard who got it; what was said above reaches it later");
        assert!(leaders.say(GroupId(1), NodeId(2), Term(5)));
        assert!(!leaders.say(GroupId(1), NodeId(2), Term(5)));
        assert!(leaders.say(GroupId(1), NodeId(3), Term(6)));
        assert!(leaders.say(GroupId(1), NodeId(0), Term(6)));
        assert_eq!(leaders.of(GroupId(1)), Some((NodeId(0), Term(6))));
    }

    #[test]
    fn nobody_but_the_leader_takes_back_that_it_leads() {
        let mut leaders = Leaders::new(NodeId(1));
        assert!(leaders.hear(NodeId(2), GroupId(7), NodeId(2), Term(5)));
        assert!(!leaders.hear(NodeId(3), GroupId(7), NodeId(0), Term(5)));
        assert_eq!(leaders.of(GroupId(7)), Some((NodeId(2), Term(5))));
        assert!(leaders.hear(NodeId(2), GroupId(7), NodeId(0), Term(5)));
        assert!(leaders.hear(NodeId(3), GroupId(7), NodeId(3), Term(6)));
        assert!(!leaders.hear(NodeId(2), GroupId(7), NodeId(2), Term(5)), "old news");
        assert_eq!(told(&leaders, 0), [], "what others say is not said again");
    }
}
