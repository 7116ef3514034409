//! Owned answers of the administrative requests, and the small enums of their arguments.
//!
//! Plain data, copied out of the wire's borrowed views once per request: administration is off the hot path.

use std::collections::BTreeSet;

use tramline_wire::error::ErrorCode;
use tramline_wire::prim::DecodeError;
pub use tramline_wire::storage::{DiskStage, ShardStorage};
use tramline_wire::{hello, metadata, topics};

use crate::everywhere::SilentNode;

/// A reply to [`Client::metadata`](crate::Client::metadata): who owns what, as of `view_epoch`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Identity of the cluster that answered; `view_epoch` counts within it.
    pub cluster_id: [u8; 16],
    /// Rises with every change of the cluster's metadata.
    pub view_epoch: u64,
    /// The nodes and their addresses.
    pub nodes: Vec<Node>,
    /// The topics asked for (all, when none was named). A topic that does not exist has `error` set and no partitions.
    pub topics: Vec<TopicMetadata>,
}

impl Metadata {
    /// Leaves out topics nobody asked for: who keeps what a broker names can be filled with names.
    pub(crate) fn keep_topics(&mut self, asked: &[impl AsRef<str>]) {
        self.topics.retain(|topic| asked.iter().any(|name| name.as_ref() == topic.name));
    }

    /// The topic of this name, if it was asked for.
    pub fn topic(&self, name: &str) -> Option<&TopicMetadata> {
        self.topics.iter().find(|topic| topic.name == name)
    }
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Node id.
    pub id: u32,
    /// Advertised host.
    pub host: String,
    /// Common port, served by every shard.
    pub port: u16,
    /// Port of each shard, by shard number.
    pub shard_ports: Vec<u16>,
}

impl Node {
    /// `host:port` of its common port, with brackets around an IPv6 address.
    pub fn address(&self) -> String {
        host_port(&self.host, self.port)
    }

    /// The same of a shard's own port; `None` when it has none, and any shard takes a connection at the common one.
    pub fn shard_address(&self, shard: u16) -> Option<String> {
        let own = self.shard_ports.get(usize::from(shard)).copied().filter(|port| *port != 0 && *port != self.port);
        own.map(|port| host_port(&self.host, port))
    }
}

fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// One topic of [`Metadata`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicMetadata {
    /// `Ok` when the topic exists.
    pub error: ErrorCode,
    /// Name.
    pub name: String,
    /// Uid, never reused, also not by a later topic of the same name.
    pub uid: u64,
    /// Partitions in order of `index`.
    pub partitions: Vec<PartitionMetadata>,
}

/// One partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// Number within the topic, from 0.
    pub index: u32,
    /// Uid, never reused.
    pub uid: u64,
    /// Replica group.
    pub group: u32,
    /// Node that leads it.
    pub leader_node: u32,
    /// Shard on that node.
    pub leader_shard: u16,
    /// Term of the leader.
    pub term: u64,
}

/// The answer to [`Client::create_topic`](crate::Client::create_topic).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Uid of the topic.
    pub uid: u64,
    /// False when it existed already (and `if_not_exists` was asked).
    pub created: bool,
    /// Number of partitions it has.
    pub partitions: u32,
}

/// One line of [`Client::list_topics`](crate::Client::list_topics).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSummary {
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: u64,
    /// Number of partitions.
    pub partitions: u32,
}

/// The answer to [`Client::describe_topic`](crate::Client::describe_topic).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// Uid.
    pub uid: u64,
    /// Name.
    pub name: String,
    /// Time of creation, UTC microseconds.
    pub created_us: i64,
    /// Replicas that it is to have; how many each partition has by now [`Client::describe_cluster`](crate::Client::describe_cluster) tells, by its `group`.
    pub replicas: u16,
    /// All settings with their effective values.
    pub settings: Vec<TopicSetting>,
    /// Partitions in order of `index`.
    pub partitions: Vec<PartitionDescription>,
    /// Nodes that were asked for numbers of partitions and did not answer.
    pub silent: Vec<SilentNode>,
}

/// One setting of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSetting {
    /// Name.
    pub key: String,
    /// Value in effect.
    pub value: String,
    /// True when set for this topic, false when it is the default.
    pub explicit: bool,
}

impl From<topics::EffectiveSetting<'_>> for TopicSetting {
    fn from(of: topics::EffectiveSetting<'_>) -> TopicSetting {
        TopicSetting { key: of.key.to_string(), value: of.value.to_string(), explicit: of.origin == topics::Origin::Explicit }
    }
}

/// One partition of [`TopicDescription`]. The numbers are those of its leader; all are 0 where `error` is not `Ok`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionDescription {
    /// Number within the topic, from 0.
    pub index: u32,
    /// Uid.
    pub uid: u64,
    /// Replica group.
    pub group: u32,
    /// Node that leads it, as far as is known.
    pub node: u32,
    /// Shard on that node.
    pub shard: u16,
    /// `Ok`, or `NotReady`: no node that answered leads it.
    pub error: ErrorCode,
    /// First offset that can still be read.
    pub log_start: u64,
    /// Offset after the last committed record.
    pub committed_end: u64,
    /// Bytes stored.
    pub bytes: u64,
    /// Segments that hold some of it.
    pub segments: u32,
}

/// One line of [`Client::describe_options`](crate::Client::describe_options): a topic setting that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionDescription {
    /// Name.
    pub key: String,
    /// Kind of value (`bytes`, `duration`, `choice`, ...).
    pub kind: String,
    /// Unit.
    pub unit: String,
    /// Default.
    pub default: String,
    /// Smallest value; empty when it has no range.
    pub min: String,
    /// Largest value; empty when it has no range.
    pub max: String,
    /// What it does.
    pub doc: String,
}

/// Where the disk space of a node went: [`Client::describe_storage`](crate::Client::describe_storage).
#[derive(Debug, Clone, PartialEq)]
pub struct NodeStorage {
    /// The node.
    pub node: u32,
    /// Its shards, in order.
    pub shards: Vec<ShardStorage>,
}

/// A position asked for with [`Client::list_offsets`](crate::Client::list_offsets).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The first offset that can still be read.
    Earliest,
    /// The offset after the last committed record.
    Latest,
    /// The first record whose timestamp is at or after this time, UTC microseconds; the end when there is none.
    Time(i64),
}

/// An answer of [`Client::list_offsets`](crate::Client::list_offsets).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionOffset {
    /// Partition.
    pub partition: u32,
    /// Offset found.
    pub offset: u64,
    /// Timestamp of the record at that offset, UTC microseconds, where the broker knows it.
    pub timestamp_us: Option<i64>,
}

/// How far [`Client::trim_topic`](crate::Client::trim_topic) trims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// Everything below this offset.
    Offset(u64),
    /// Everything before the first record whose timestamp is at or after this time, UTC microseconds.
    Time(i64),
    /// Everything that is committed at the moment of the call.
    Latest,
}

/// An answer of [`Client::trim_topic`](crate::Client::trim_topic).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrimmedPartition {
    /// Partition.
    pub partition: u32,
    /// First offset that can still be read.
    pub log_start: u64,
    /// Offset after the last committed record.
    pub committed_end: u64,
}

/// Where a [`Consumer`](crate::Consumer) starts to read a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the first record that can still be read.
    Earliest,
    /// After the last committed record: only what comes later.
    Latest,
    /// At this offset.
    Offset(u64),
    /// At the first record whose timestamp is at or after this time, UTC microseconds.
    Time(i64),
}

impl From<hello::Node<'_>> for Node {
    fn from(node: hello::Node<'_>) -> Node {
        Node { id: node.node, host: node.host.to_string(), port: node.port, shard_ports: node.shard_ports.iter().collect() }
    }
}

impl Metadata {
    /// Reads a reply of this cluster. Everything behind this takes a partition's place in its topic for its number, and its uid for its
    /// own, so both are checked here.
    pub(crate) fn read(cluster_id: [u8; 16], meta: &[u8]) -> Result<Metadata, DecodeError> {
        let reply = metadata::MetadataReply::decode(meta)?;
        let topics: Vec<TopicMetadata> = reply.topics.iter().map(TopicMetadata::from).collect();
        topics.iter().try_for_each(|topic| check_places(topic.partitions.iter().map(|partition| (partition.index, partition.uid))))?;
        Ok(Metadata { cluster_id, view_epoch: reply.view_epoch, nodes: reply.nodes.iter().map(Node::from).collect(), topics })
    }
}

/// Whether partitions stand in order of their numbers, and have uids of their own.
fn check_places(partitions: impl Iterator<Item = (u32, u64)>) -> Result<(), DecodeError> {
    let unknown = |what, value| Err(DecodeError::UnknownValue { what, value, code: ErrorCode::Malformed });
    let mut uids = Vec::new();
    for (place, (index, uid)) in (0u32..).zip(partitions) {
        if index != place {
            return unknown("partition number in this place", u64::from(index));
        }
        uids.push(uid);
    }
    uids.sort_unstable();
    if uids.first() == Some(&0) {
        return unknown("partition uid", 0);
    }
    match uids.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => unknown("second partition with the uid", pair[0]),
        None => Ok(()),
    }
}

impl From<metadata::TopicMeta<'_>> for TopicMetadata {
    fn from(topic: metadata::TopicMeta<'_>) -> TopicMetadata {
        let partitions = topic.partitions.iter().map(|partition| PartitionMetadata {
            index: partition.index,
            uid: partition.uid,
            group: partition.group,
            leader_node: partition.leader_node,
            leader_shard: partition.leader_shard,
            term: partition.term,
        });
        TopicMetadata { error: topic.error, name: topic.name.to_string(), uid: topic.topic_uid, partitions: partitions.collect() }
    }
}

impl TopicDescription {
    /// Reads a reply, with the same checks as [`Metadata::read`].
    pub(crate) fn read(meta: &[u8]) -> Result<TopicDescription, DecodeError> {
        let reply = topics::DescribeTopicReply::decode(meta)?;
        check_places(reply.partitions.iter().map(|partition| (partition.index, partition.uid)))?;
        let settings = reply.settings.iter().map(TopicSetting::from);
        let partitions = reply.partitions.iter().map(|partition| PartitionDescription {
            index: partition.index,
            uid: partition.uid,
            group: partition.group,
            node: partition.node,
            shard: partition.shard,
            error: told(partition.committed_end),
            log_start: partition.log_start,
            committed_end: if partition.committed_end == topics::END_UNKNOWN { 0 } else { partition.committed_end },
            bytes: partition.bytes,
            segments: partition.segments,
        });
        Ok(TopicDescription {
            uid: reply.topic_uid,
            name: reply.name.to_string(),
            created_us: reply.created_us,
            replicas: reply.replication,
            settings: settings.collect(),
            partitions: partitions.collect(),
            silent: Vec::new(),
        })
    }

    /// Nodes that lead partitions of which nothing was told yet, as far as is known.
    pub(crate) fn untold(&self) -> BTreeSet<u32> {
        self.partitions.iter().filter(|partition| !partition.error.is_ok()).map(|partition| partition.node).collect()
    }

    /// Takes over what another node tells of partitions that it leads.
    pub(crate) fn take_in(&mut self, other: &TopicDescription) {
        let untold = self.partitions.iter_mut().filter(|partition| !partition.error.is_ok());
        for partition in untold {
            let told = other.partitions.get(partition.index as usize).filter(|told| told.error.is_ok() && told.uid == partition.uid);
            *partition = *told.unwrap_or(partition);
        }
    }
}

/// Whether a partition's numbers were told, by its committed end.
pub(crate) fn told(committed_end: u64) -> ErrorCode {
    if committed_end == topics::END_UNKNOWN { ErrorCode::NotReady } else { ErrorCode::Ok }
}

impl From<topics::OptionItem<'_>> for OptionDescription {
    fn from(option: topics::OptionItem<'_>) -> OptionDescription {
        OptionDescription {
            key: option.key.to_string(),
            kind: option.kind.to_string(),
            unit: option.unit.to_string(),
            default: option.default.to_string(),
            min: option.min.to_string(),
            max: option.max.to_string(),
            doc: option.doc.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tramline_wire::prim::List;

    #[test]
    fn partitions_have_their_places_and_their_own_uids() {
        let partition = |index, uid| metadata::PartitionMeta { index, uid, group: 1, leader_node: 1, leader_shard: 0, term: 1 };
        let info = |index, uid| topics::PartitionInfo {
            index,
            uid,
            group: 1,
            node: 1,
            shard: 0,
            log_start: 0,
            committed_end: 0,
            bytes: 0,
            segments: 0,
        };
        let table: [(&[(u32, u64)], bool); 7] = [
            (&[], true),
            (&[(0, 9)], true),
            (&[(0, 9), (1, 5), (2, 7)], true),
            (&[(7, 9)], false),
            (&[(1, 9), (0, 5)], false),
            (&[(0, 9), (1, 0)], false),
            (&[(0, 9), (1, 5), (2, 9)], false),
        ];
        for (places, is_good) in table {
            let partitions: Vec<_> = places.iter().map(|&(index, uid)| partition(index, uid)).collect();
            let topics = [metadata::TopicMeta { error: ErrorCode::Ok, name: "t", topic_uid: 4, partitions: List::of(&partitions) }];
            let mut meta = Vec::new();
            metadata::MetadataReply { view_epoch: 1, nodes: List::default(), topics: List::of(&topics) }.encode(&mut meta);
            assert_eq!(Metadata::read([7; 16], &meta).is_ok(), is_good, "{places:?}");

            let partitions: Vec<_> = places.iter().map(|&(index, uid)| info(index, uid)).collect();
            let (settings, partitions) = (List::default(), List::of(&partitions));
            let mut meta = Vec::new();
            topics::DescribeTopicReply { topic_uid: 4, name: "t", created_us: 0, replication: 1, settings, partitions }.encode(&mut meta);
            assert_eq!(TopicDescription::read(&meta).is_ok(), is_good, "{places:?}");
        }
    }
}
