//! Metadata: which topics there are and who owns their partitions.

use super::{ApiError, NodeInfo, hello};
use crate::control::{Endpoint, NodeState, NodeView, PartitionView, TopicView, View};
use crate::ids::{NodeId, ShardId, Term};
use tramline_wire::error::ErrorCode;
use tramline_wire::hello::Node;
use tramline_wire::metadata::{MetadataReply, MetadataRequest, PartitionMeta, TopicMeta};
use tramline_wire::prim::List;

/// Where the leader of a partition's group is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lead {
    /// Its node.
    pub(crate) node: NodeId,
    /// The shard of that.
    pub(crate) shard: ShardId,
    /// 0: it is the one that is to lead, and not known to.
    pub(crate) term: Term,
}

/// The nodes that clients are told: those that have said where they listen, and this one in any case.
pub fn nodes<'a>(view: &'a View, info: &'a NodeInfo) -> Vec<Node<'a>> {
    let mut nodes = vec![hello::node(info)];
    let told = view.cluster.nodes().iter().filter(|node| node.state != NodeState::Removed && !node.client.host.is_empty());
    let of_view = |node: &'a NodeView| {
        let Endpoint { host, port, shard_ports } = &node.client;
        Node { node: node.node.0, host, port: *port, shard_ports: List::of(shard_ports) }
    };
    nodes.extend(told.filter(|node| node.node != info.node).map(of_view));
    nodes.sort_unstable_by_key(|node| node.node);
    nodes
}

/// Answers with what `view` knows of the topics asked for (all, if none is named). `lead` tells who leads a partition.
pub(crate) fn answer(
    meta: &[u8],
    out: &mut Vec<u8>,
    view: &View,
    nodes: &[Node<'_>],
    lead: impl Fn(&PartitionView) -> Lead,
) -> Result<(), ApiError> {
    let request = MetadataRequest::decode(meta)?;
    let partitions_of = |topic: &TopicView| -> Vec<PartitionMeta> {
        let meta = |p: &PartitionView| {
            let Lead { node, shard, term } = lead(p);
            PartitionMeta { index: p.number, uid: p.uid.0, group: p.group.0, leader_node: node.0, leader_shard: shard.0, term: term.0 }
        };
        topic.partitions.iter().map(meta).collect()
    };
    let mut found: Vec<(&str, Option<&TopicView>, Vec<PartitionMeta>)> = Vec::new();
    if request.topics.is_empty() {
        found.extend(view.topics().iter().map(|t| (t.name.as_str(), Some(t), partitions_of(t))));
    } else {
        found.extend(request.topics.iter().map(|name| {
            let topic = view.topic(name);
            (name, topic, topic.map(partitions_of).unwrap_or_default())
        }));
    }
    let topics: Vec<_> = found
        .iter()
        .map(|(name, topic, partitions)| TopicMeta {
            error: if topic.is_some() { ErrorCode::Ok } else { ErrorCode::UnknownTopic },
            name,
            topic_uid: topic.map_or(0, |t| t.uid.0),
            partitions: List::of(partitions),
        })
        .collect();
    MetadataReply { view_epoch: view.epoch, nodes: List::of(nodes), topics: List::of(&topics) }.encode(out);
    Ok(())
}
