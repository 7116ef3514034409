//! Who owns a partition, and under which addresses the owner is found.
//!
//! A connection is opened per owner, that is per (node, shard): first at the shard's own port, so that its requests need no
//! hop inside the node; if that port cannot be reached (a firewall, a port mapping) at the node's common port, where any
//! shard takes the connection and passes requests on.
//!
//! A view is replaced by one with the same or a higher epoch; by one of another cluster (a node that was set up anew at the same address,
//! whose epochs begin again); and by a lower one when nothing else was heard for long: one answer that was wrong must not stop its client
//! for good.

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

/// What became of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Learned {
    /// Not taken: an older view.
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

    /// One of the nodes, counted round; `None` while none is known.
    pub(crate) fn some_node(&self, number: usize) -> Option<u32> {
        self.nodes.get(number % self.nodes.len().max(1)).map(|node| node.id)
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

    fn view(epoch: u64, host: &str, shard_ports: &[u16]) -> Metadata {
        let node = Node { id: 1, host: host.to_string(), port: 7410, shard_ports: shard_ports.to_vec() };
        Metadata { view_epoch: epoch, nodes: vec![node], ..Metadata::default() }
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
