//! Who owns a partition, and under which addresses the owner is found.
//!
//! A connection is opened per owner, that is per (node, shard): first at the shard's own port, so that its requests need no
//! hop inside the node; if that port cannot be reached (a firewall, a port mapping) at the node's common port, where any
//! shard takes the connection and passes requests on.
//!
//! Invariant: a view is replaced only by one with the same or a higher epoch.

use crate::types::{Metadata, Node, PartitionMetadata};

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

/// Addresses of the nodes, as of the newest view seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClusterView {
    epoch: u64,
    nodes: Vec<Node>,
}

impl ClusterView {
    /// Takes over the nodes of a newer view; returns whether it was new enough.
    pub(crate) fn learn(&mut self, metadata: &Metadata) -> bool {
        if metadata.view_epoch < self.epoch {
            return false;
        }
        self.epoch = metadata.view_epoch;
        if !metadata.nodes.is_empty() {
            self.nodes.clone_from(&metadata.nodes);
        }
        true
    }

    /// The common address of each node.
    pub(crate) fn node_addresses(&self) -> Vec<String> {
        self.nodes.iter().map(Node::address).collect()
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
        Metadata { view_epoch: epoch, nodes: vec![node], topics: Vec::new() }
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
    fn an_ipv6_host_gets_brackets() {
        let mut cluster = ClusterView::default();
        assert!(cluster.learn(&view(1, "::1", &[7411, 0])));
        assert_eq!(cluster.node_addresses(), ["[::1]:7410"]);
        assert_eq!(cluster.addresses(Owner { node: 1, shard: 0 }), ["[::1]:7411", "[::1]:7410"]);
        // A shard without a port of its own is found at the common one.
        assert_eq!(cluster.addresses(Owner { node: 1, shard: 1 }), ["[::1]:7410"]);
    }
}
