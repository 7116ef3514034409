//! Several nodes in the fake broker: they share all that is stored, and differ in what they lead and tell.
//!
//! Which of them answers is [`FakeBroker::node`](super::FakeBroker), set by the test before bytes are carried. Node 1 leads what nothing else
//! is said about. A request at a node that does not lead the first partition it names is refused with `not_leader`.

use std::collections::{BTreeMap, BTreeSet};

use tramline_wire::error::ErrorCode;
use tramline_wire::fetch::FetchRequest;
use tramline_wire::frame::{self, Frame};
use tramline_wire::kind::Kind;
use tramline_wire::metadata::PartitionMeta;
use tramline_wire::prim::List;
use tramline_wire::produce::ProduceRequest;

use super::FakeBroker;
use crate::types::Node;

/// What tests ask for.
#[derive(Debug, Default)]
pub(crate) struct FakeNodes {
    /// Nodes besides the first.
    pub others: Vec<Node>,
    /// Leader (node, shard) and term of partitions, by uid.
    pub leaders: BTreeMap<u64, (u32, u16, u64)>,
    /// Requests of these kinds are answered by this node alone.
    pub only: BTreeMap<u8, u32>,
    /// Refusals name who leads.
    pub names: bool,
    /// Refusals name these nodes instead, by the node that refuses.
    pub names_wrongly: BTreeMap<u32, u32>,
    /// Nodes that have not heard of any leader but the first ones, in term 1.
    pub stale: BTreeSet<u32>,
    /// Nodes that do not answer requests of a kind.
    pub silent: BTreeSet<(u32, u8)>,
}

/// Node `id` with a common port and one shard.
pub(crate) fn node_at(id: u32, port: u16, shard_port: u16) -> Node {
    Node { id, host: "127.0.0.1".to_string(), port, shard_ports: vec![shard_port] }
}

/// As it is told.
pub(super) fn told(node: &Node) -> tramline_wire::hello::Node<'_> {
    tramline_wire::hello::Node { node: node.id, host: &node.host, port: node.port, shard_ports: List::of(&node.shard_ports) }
}

impl FakeBroker {
    /// All nodes.
    pub(super) fn all_nodes(&self) -> Vec<Node> {
        let first = Node { id: 1, host: "127.0.0.1".to_string(), port: self.port, shard_ports: self.shard_ports.clone() };
        std::iter::once(first).chain(self.nodes.others.iter().cloned()).collect()
    }

    /// Puts the leader that the answering node knows into what it tells of a partition.
    pub(super) fn with_leader(&self, meta: PartitionMeta) -> PartitionMeta {
        match self.nodes.leaders.get(&meta.uid) {
            Some(&(leader_node, leader_shard, term)) if !self.nodes.stale.contains(&self.node) => {
                PartitionMeta { leader_node, leader_shard, term, ..meta }
            }
            _ => meta,
        }
    }

    /// What a node answers that is not the one to be asked; `None`: it is.
    pub(super) fn elsewhere(&self, kind: Kind, frame: &Frame<'_>) -> Option<Vec<u8>> {
        if self.nodes.silent.contains(&(self.node, kind.as_u8())) {
            return Some(Vec::new());
        }
        let first = match kind {
            Kind::Produce => ProduceRequest::decode(frame.meta).expect("decodes").entries.iter().next().map(|entry| entry.partition_uid),
            Kind::Fetch => FetchRequest::decode(frame.meta).expect("decodes").entries.iter().next().map(|entry| entry.partition_uid),
            _ => None,
        };
        let of_partition = first.and_then(|uid| self.nodes.leaders.get(&uid)).map(|&(node, shard, _)| (node, shard));
        let (node, shard) = of_partition.or_else(|| self.nodes.only.get(&kind.as_u8()).map(|node| (*node, 0)))?;
        let wrongly = self.nodes.names_wrongly.get(&self.node);
        if node == self.node && wrongly.is_none() {
            return None;
        }
        let named = wrongly.copied().unwrap_or(node);
        let nodes = self.all_nodes();
        let next = nodes.iter().find(|node| node.id == named && self.nodes.names).and_then(|node| node.shard_address(shard));
        let mut out = Vec::new();
        let header = frame.header;
        frame::write_error(
            &mut out,
            header.kind,
            header.version,
            header.correlation,
            ErrorCode::NotLeader,
            "another node leads",
            &next.unwrap_or_default(),
        );
        Some(out)
    }
}
