//! Who owns a partition, and under which addresses the owner is found.
//!
//! A connection is opened per owner, that is per (node, shard): first at the shard's own port, so that its requests need no
//! hop inside the node; if that port cannot be reached (a firewall, a port mapping) at the node's common port, where any
//! shard takes the connection and passes requests on.
//!
//! A view is replaced by one with the same or a higher epoch; by one of another cluster (a node that was set up anew at the same address,
//! whose epochs begin again); and by a lower one when nothing else was heard for long: one answer that was wrong must not stop its client
//! for good.
//!
//! Who leads a partition is no part of the view's epoch: each node tells what it has heard, and the highest term is the newest word
//! ([`Leadership`]), whatever the epoch of the view that it came with. Term 0 is a guess.

use super::Now;
use crate::types::{Metadata, Node, PartitionMetadata};

/// So many answers in a row with an epoch below the known one, over so long, are believed. Nodes that lag behind the newest view catch up
/// within a second.
const LOWER_ANSWERS_MIN: u32 = 5;
const LOWER_TIME_US_MIN: u64 = 10_000_000;

/// The shard that leads a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    /// Node id.
    pub node: u32,
    /// Shard on that node.
    pub shard: u16,
}

impl From<&PartitionMetadata> for Owner {
    fn from(partition: &PartitionMetadata) -> Owner {
        Owner { node: partition.leader_node, shard: partition.leader_shard }
    }
}

/// So often in a row a refusal that names another node is followed at once. A cluster that has one leader per partition needs one or two.
const HOPS_MAX: u8 = 3;

/// Refusals that name a better address, followed at once: a few in a row, and never straight back to the one that has just refused. Then
/// there is a wait, after which it begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Hops {
    count: u8,
    from: Option<Owner>,
}

impl Hops {
    /// `at` refused and named `next`: whether to go there without a wait.
    pub(crate) fn may_follow(&mut self, at: Owner, next: Owner) -> bool {
        if next == at || self.from == Some(next) || self.count == HOPS_MAX {
            *self = Hops::default();
            return false;
        }
        *self = Hops { count: self.count + 1, from: Some(at) };
        true
    }
}

/// What is known of who leads one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Leadership {
    /// The highest term that was told; 0: nobody knew a leader.
    term: u64,
    /// The leader of that term refused and named another one, which is taken to be the leader since.
    is_named: bool,
    hops: Hops,
}

impl Leadership {
    /// As metadata tells it.
    pub(crate) fn told(term: u64) -> Leadership {
        Leadership { term, ..Leadership::default() }
    }

    /// Whether metadata with this term is believed. `is_older`: it came with an older view, so only news counts.
    pub(crate) fn believes(&self, term: u64, is_older: bool) -> bool {
        if self.is_named || is_older { term > self.term } else { term >= self.term }
    }

    /// Metadata that is believed tells this term.
    pub(crate) fn learn(&mut self, term: u64) {
        let hops = if term > self.term { Hops::default() } else { self.hops };
        *self = Leadership { term, is_named: false, hops };
    }

    /// `at`, which was taken for the leader, refused and named `next`: whether to go there at once.
    pub(crate) fn follow(&mut self, at: Owner, next: Owner) -> bool {
        let follows = self.hops.may_follow(at, next);
        self.is_named = follows;
        follows
    }

    /// It did what a leader does.
    pub(crate) fn worked(&mut self) {
        self.hops = Hops::default();
    }

    /// Who was named cannot be reached: metadata of the term known is believed again.
    pub(crate) fn failed(&mut self) {
        self.is_named = false;
    }
}

/// What became of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Learned {
    /// Not taken: an older view. What it says of leaders counts all the same, where its term is higher.
    Older,
    /// Taken.
    Newer,
    /// Taken although its epoch is lower: what is known of terms is of no use.
    Lower,
    /// Taken, and of another cluster: nothing else that is known holds there.
    OtherCluster,
}

/// Answers with a lower epoch, in a row.
#[derive(Debug, Clone, Copy)]
struct Lower {
    count: u32,
    since_us: u64,
}

/// Addresses of the nodes, as of the newest view seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClusterView {
    /// Identity of the cluster, once there was an answer.
    cluster_id: Option<[u8; 16]>,
    epoch: u64,
    nodes: Vec<Node>,
    lower: Option<Lower>,
}

impl ClusterView {
    /// Takes over the nodes of a newer view; returns whether it was new enough. Without the time, lower epochs are never believed.
    pub(crate) fn learn(&mut self, metadata: &Metadata) -> bool {
        let is_new = metadata.view_epoch >= self.epoch || self.is_other(&metadata.cluster_id);
        if is_new {
            self.take(metadata);
        }
        is_new
    }

    /// Takes over the nodes of a view that is newer, or has to be believed.
    pub(crate) fn learn_at(&mut self, metadata: &Metadata, now: Now) -> Learned {
        let learned = if self.is_other(&metadata.cluster_id) {
            Learned::OtherCluster
        } else if metadata.view_epoch >= self.epoch {
            Learned::Newer
        } else {
            let lower = self.lower.get_or_insert(Lower { count: 0, since_us: now.mono_us });
            lower.count = lower.count.saturating_add(1);
            if lower.count < LOWER_ANSWERS_MIN || now.mono_us.saturating_sub(lower.since_us) < LOWER_TIME_US_MIN {
                return Learned::Older;
            }
            Learned::Lower
        };
        self.take(metadata);
        learned
    }

    /// Whether this is the identity of another cluster than the one that is known.
    pub(crate) fn is_other(&self, cluster_id: &[u8; 16]) -> bool {
        self.cluster_id.is_some_and(|known| known != *cluster_id)
    }

    fn take(&mut self, metadata: &Metadata) {
        self.cluster_id = Some(metadata.cluster_id);
        self.epoch = metadata.view_epoch;
        self.lower = None;
        if !metadata.nodes.is_empty() {
            self.nodes.clone_from(&metadata.nodes);
        }
    }

    /// The common addresses of so many nodes at most, from number `first` on (counted round): a view may have any number of them.
    pub(crate) fn some_addresses(&self, first: usize, count_max: usize) -> Vec<String> {
        let count = self.nodes.len();
        (0..count.min(count_max)).map(|place| self.nodes[(first % count + place) % count].address()).collect()
    }

    /// How many nodes are known.
    pub(crate) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// One of the nodes, counted round; `None` while none is known.
    pub(crate) fn some_node(&self, number: usize) -> Option<u32> {
        self.nodes.get(number % self.nodes.len().max(1)).map(|node| node.id)
    }

    /// The shard at an address, of the nodes known. A node's common address stands for its first shard, which passes requests on.
    pub(crate) fn owner_at(&self, address: &str) -> Option<Owner> {
        self.nodes.iter().find_map(|node| {
            let is_there = |shard: &u16| node.shard_address(*shard).is_some_and(|known| known == address);
            let shard = (0..node.shard_ports.len().min(usize::from(u16::MAX)) as u16).find(is_there);
            let shard = shard.or_else(|| (node.address() == address).then_some(0))?;
            Some(Owner { node: node.id, shard })
        })
    }

    /// Addresses of an owner, best first. Empty when the node is unknown.
    pub(crate) fn addresses(&self, owner: Owner) -> Vec<String> {
        let Some(node) = self.nodes.iter().find(|node| node.id == owner.node) else {
            return Vec::new();
        };
        node.shard_address(owner.shard).into_iter().chain([node.address()]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u32, host: &str, shard_ports: &[u16]) -> Node {
        Node { id, host: host.to_string(), port: 7410, shard_ports: shard_ports.to_vec() }
    }

    fn view(epoch: u64, host: &str, shard_ports: &[u16]) -> Metadata {
        Metadata { view_epoch: epoch, nodes: vec![node(1, host, shard_ports)], ..Metadata::default() }
    }

    #[test]
    fn the_shards_own_port_comes_first_and_the_common_port_second() {
        let mut cluster = ClusterView::default();
        assert!(cluster.learn(&view(3, "broker", &[7411, 7412])));
        assert_eq!(cluster.addresses(Owner { node: 1, shard: 1 }), ["broker:7412", "broker:7410"]);
        assert_eq!(cluster.addresses(Owner { node: 1, shard: 7 }), ["broker:7410"]);
        assert!(cluster.addresses(Owner { node: 2, shard: 0 }).is_empty());
    }

    #[test]
    fn an_address_is_known_by_its_shard() {
        let mut cluster = ClusterView::default();
        cluster.learn(&Metadata { nodes: vec![node(1, "a", &[7411, 7412]), node(2, "b", &[7411, 0])], ..Metadata::default() });
        let found = ["a:7412", "b:7411", "b:7410", "b:7412", "c:7411"].map(|address| cluster.owner_at(address));
        let owner = |node, shard| Some(Owner { node, shard });
        assert_eq!(found, [owner(1, 1), owner(2, 0), owner(2, 0), None, None]);
    }

    #[test]
    fn the_highest_term_is_believed_and_a_guess_only_while_nothing_better_is_known() {
        let mut leader = Leadership::told(0);
        assert!(leader.believes(0, false) && leader.believes(3, false) && !leader.believes(0, true) && leader.believes(3, true));
        leader.learn(3);
        assert!(!leader.believes(0, false) && !leader.believes(2, false) && leader.believes(3, false));
        assert!(!leader.believes(3, true) && leader.believes(4, true), "of an older view only news");
        // Named by the one that led in term 3: who says that it leads in term 3 tells nothing new.
        let [a, b] = [1, 2].map(|node| Owner { node, shard: 0 });
        assert!(leader.follow(a, b) && !leader.believes(3, false) && leader.believes(4, false));
        leader.failed();
        assert!(leader.believes(3, false), "unless the one that was named is not there");
    }

    #[test]
    fn a_few_hops_are_made_at_once_and_none_straight_back() {
        let [a, b, c, d, e] = [1, 2, 3, 4, 5].map(|node| Owner { node, shard: 0 });
        let mut hops = Hops::default();
        assert!(!hops.may_follow(a, a), "to itself");
        assert!(hops.may_follow(a, b) && !hops.may_follow(b, a), "back");
        let round = [(a, b), (b, c), (c, d), (d, e), (e, a)].map(|(at, next)| hops.may_follow(at, next));
        assert_eq!(round, [true, true, true, false, true], "three, a wait, and anew");
    }

    #[test]
    fn an_older_view_is_not_taken() {
        let mut cluster = ClusterView::default();
        assert!(cluster.learn(&view(3, "new", &[])));
        assert!(!cluster.learn(&view(2, "old", &[])));
        assert_eq!(cluster.addresses(Owner { node: 1, shard: 0 }), ["new:7410"]);
    }

    #[test]
    fn lower_epochs_are_believed_after_some_answers_and_some_time() {
        let at = |mono_us| Now { mono_us, utc_us: 0 };
        let mut cluster = ClusterView::default();
        assert_eq!(cluster.learn_at(&view(u64::MAX, "wrong", &[]), at(0)), Learned::Newer);
        let learned = [1, 2, 3, 4].map(|second| cluster.learn_at(&view(3, "right", &[]), at(second * 1_000_000)));
        assert_eq!(learned, [Learned::Older; 4]);
        assert_eq!(cluster.learn_at(&view(3, "right", &[]), at(10_999_999)), Learned::Older, "answers enough, but not for long enough");
        assert_eq!(cluster.learn_at(&view(3, "right", &[]), at(11_000_000)), Learned::Lower);
        assert_eq!(cluster.some_addresses(0, 9), ["right:7410"]);
        // One that is not lower ends the row.
        assert_eq!(cluster.learn_at(&view(2, "old", &[]), at(12_000_000)), Learned::Older);
        assert_eq!(cluster.learn_at(&view(3, "right", &[]), at(13_000_000)), Learned::Newer);
        let learned = [31, 32, 33, 34].map(|second| cluster.learn_at(&view(2, "old", &[]), at(second * 1_000_000)));
        assert_eq!(learned, [Learned::Older; 4]);
    }

    #[test]
    fn another_cluster_has_a_view_of_its_own() {
        let other = Metadata { cluster_id: [9; 16], ..view(1, "other", &[]) };
        let mut cluster = ClusterView::default();
        assert!(cluster.learn(&view(3, "this", &[])) && !cluster.is_other(&[0; 16]) && cluster.is_other(&[9; 16]));
        assert_eq!(cluster.learn_at(&other, Now { mono_us: 1, utc_us: 0 }), Learned::OtherCluster);
        assert_eq!(cluster.some_addresses(0, 9), ["other:7410"]);
        assert!(!cluster.is_other(&[9; 16]));
    }

    #[test]
    fn an_ipv6_host_gets_brackets() {
        let mut cluster = ClusterView::default();
        assert!(cluster.learn(&view(1, "::1", &[7411, 0])));
        assert_eq!(cluster.some_addresses(0, 9), ["[::1]:7410"]);
        assert_eq!(cluster.addresses(Owner { node: 1, shard: 0 }), ["[::1]:7411", "[::1]:7410"]);
        // A shard without a port of its own is found at the common one.
        assert_eq!(cluster.addresses(Owner { node: 1, shard: 1 }), ["[::1]:7410"]);
    }
}
