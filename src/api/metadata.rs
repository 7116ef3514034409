//! Metadata: which topics there are and who owns their partitions.

use super::{ApiError, NodeInfo, hello};
use crate::control::{TopicView, View};
use tramline_wire::error::ErrorCode;
use tramline_wire::metadata::{MetadataReply, MetadataRequest, PartitionMeta, TopicMeta};
use tramline_wire::prim::List;

/// Answers with what `view` knows of the topics asked for (all, if none is named). `term` is the one this node leads with.
pub fn answer(meta: &[u8], out: &mut Vec<u8>, view: &View, info: &NodeInfo, term: u64) -> Result<(), ApiError> {
    let request = MetadataRequest::decode(meta)?;
    let partitions_of = |topic: &TopicView| -> Vec<PartitionMeta> {
        let meta = |p: &crate::control::PartitionView| PartitionMeta {
            index: p.number,
            uid: p.uid.0,
            group: p.group.0,
            leader_node: p.node.0,
            leader_shard: p.shard.0,
            term,
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
    let nodes = [hello::node(info)];
    MetadataReply { view_epoch: view.epoch, nodes: List::of(&nodes), topics: List::of(&topics) }.encode(out);
    Ok(())
}
