//! What shards and clients see of the metadata: an immutable copy, published by the one writer at each change.
//!
//! Not here: its part about nodes and replica groups (`view_cluster.rs`).

use super::queue_settings::{DEAD_LETTER_TOPIC, QueueSettings};
use super::queues::QueueStart;
use super::settings::TopicSettings;
use super::view_cluster::ClusterView;
use crate::ids::{GroupId, NodeId, PartitionUid, ShardId, SubscriptionUid, TopicUid};
use std::sync::Arc;

/// A partition and where it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionView {
    /// Its number in the topic.
    pub number: u32,
    /// Never reused.
    pub uid: PartitionUid,
    /// Its replica group.
    pub group: GroupId,
    /// The node that leads the group by preference.
    pub node: NodeId,
    /// The shard of that node.
    pub shard: ShardId,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicView {
    /// Its name.
    pub name: String,
    /// Never reused.
    pub uid: TopicUid,
    /// When it was created, UTC microseconds.
    pub created_us: i64,
    /// Its settings.
    pub settings: TopicSettings,
    /// Replicas that it is to have.
    pub replicas: u8,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionView>,
}

/// A consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// Its name.
    pub name: String,
    /// Never reused.
    pub uid: SubscriptionUid,
    /// When it was created, UTC microseconds.
    pub created_us: i64,
    /// The replica group that keeps who is a member.
    pub home: GroupId,
    /// The node that leads that.
    pub node: NodeId,
    /// The shard of that node.
    pub shard: ShardId,
}

/// A queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueView {
    /// Its name.
    pub name: String,
    /// Never reused, also not for a consumer group.
    pub uid: SubscriptionUid,
    /// Its topic, which exists.
    pub topic: TopicUid,
    /// The name of its topic.
    pub topic_name: String,
    /// When it was created, UTC microseconds.
    pub created_us: i64,
    /// Where it begins in the partitions that the topic had then.
    pub start: QueueStart,
    /// How many those were; in later ones it begins with their first record.
    pub partitions_at_creation: u32,
    /// Its settings.
    pub settings: QueueSettings,
}

impl QueueView {
    /// Where its dead messages go. The topic was there when it was named; it may have been deleted since.
    pub fn dead_letter_topic(&self) -> Option<&str> {
        Some(self.settings.word(DEAD_LETTER_TOPIC)).filter(|name| !name.is_empty())
    }
}

/// All topics, consumer groups, queues, nodes and replica groups at one moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Rises with each change.
    pub epoch: u64,
    topics: Vec<TopicView>,
    groups: Vec<GroupView>,
    /// (uid, place in `groups`), by uid.
    groups_by_uid: Vec<(SubscriptionUid, u32)>,
    queues: Vec<Arc<QueueView>>,
    /// (uid, place in `queues`), by uid.
    queues_by_uid: Vec<(SubscriptionUid, u32)>,
    /// (uid, topic, number), by uid.
    by_uid: Vec<(PartitionUid, u32, u32)>,
    /// The first partition uid that is not given out yet.
    uids_end: u64,
    /// The first uid of a consumer group or queue that is not given out yet.
    subscriptions_end: u64,
    /// Nodes and replica groups.
    pub cluster: ClusterView,
}

impl View {
    /// The same, where partition uids below `uids_end`, and those of consumer groups and queues below `subscriptions_end`, have been given out.
    pub fn with_uids_end(self, uids_end: u64, subscriptions_end: u64) -> View {
        View { uids_end, subscriptions_end, ..self }
    }

    /// Whether the partition exists or existed: one that does not exist here was deleted, or else its creation is not known here yet.
    pub fn has_known(&self, uid: PartitionUid) -> bool {
        uid.0 < self.uids_end
    }

    /// Whether the consumer group or queue exists or existed: as with partitions.
    pub fn has_known_subscription(&self, uid: SubscriptionUid) -> bool {
        uid.0 < self.subscriptions_end
    }

    /// `topics`, `groups` and `queues` are in order of their names (asserted).
    pub fn new(epoch: u64, topics: Vec<TopicView>, groups: Vec<GroupView>, queues: Vec<Arc<QueueView>>, cluster: ClusterView) -> View {
        assert!(topics.windows(2).all(|w| w[0].name < w[1].name), "topics in order of names");
        assert!(groups.windows(2).all(|w| w[0].name < w[1].name), "groups in order of names");
        assert!(queues.windows(2).all(|w| w[0].name < w[1].name), "queues in order of names");
        let mut queues_by_uid: Vec<_> = queues.iter().enumerate().map(|(at, queue)| (queue.uid, at as u32)).collect();
        queues_by_uid.sort_unstable();
        let mut groups_by_uid: Vec<_> = groups.iter().enumerate().map(|(at, group)| (group.uid, at as u32)).collect();
        groups_by_uid.sort_unstable();
        let of_topic = |(at, t): (usize, &TopicView)| t.partitions.iter().map(|p| (p.uid, at as u32, p.number)).collect::<Vec<_>>();
        let mut by_uid: Vec<_> = topics.iter().enumerate().flat_map(of_topic).collect();
        by_uid.sort_unstable();
        View { epoch, topics, groups, groups_by_uid, queues, queues_by_uid, by_uid, uids_end: 0, subscriptions_end: 0, cluster }
    }

    /// The consumer group of this name.
    pub fn group(&self, name: &str) -> Option<&GroupView> {
        self.groups.binary_search_by(|g| g.name.as_str().cmp(name)).ok().map(|at| &self.groups[at])
    }

    /// The consumer group with this uid.
    pub fn group_by_uid(&self, uid: SubscriptionUid) -> Option<&GroupView> {
        let at = self.groups_by_uid.binary_search_by_key(&uid, |entry| entry.0).ok()?;
        Some(&self.groups[self.groups_by_uid[at].1 as usize])
    }

    /// All consumer groups, by name.
    pub fn groups(&self) -> &[GroupView] {
        &self.groups
    }

    /// The queue of this name.
    pub fn queue(&self, name: &str) -> Option<&Arc<QueueView>> {
        self.queues.binary_search_by(|q| q.name.as_str().cmp(name)).ok().map(|at| &self.queues[at])
    }

    /// The queue with this uid.
    pub fn queue_by_uid(&self, uid: SubscriptionUid) -> Option<&Arc<QueueView>> {
        let at = self.queues_by_uid.binary_search_by_key(&uid, |entry| entry.0).ok()?;
        Some(&self.queues[self.queues_by_uid[at].1 as usize])
    }

    /// All queues, by name.
    pub fn queues(&self) -> &[Arc<QueueView>] {
        &self.queues
    }

    /// The topic of this name.
    pub fn topic(&self, name: &str) -> Option<&TopicView> {
        self.topics.binary_search_by(|t| t.name.as_str().cmp(name)).ok().map(|at| &self.topics[at])
    }

    /// All topics, by name.
    pub fn topics(&self) -> &[TopicView] {
        &self.topics
    }

    /// A partition and its topic.
    pub fn find_partition(&self, uid: PartitionUid) -> Option<(&TopicView, &PartitionView)> {
        let at = self.by_uid.binary_search_by_key(&uid, |entry| entry.0).ok()?;
        let (_, topic, number) = self.by_uid[at];
        let topic = &self.topics[topic as usize];
        Some((topic, &topic.partitions[number as usize]))
    }

    /// All partitions with their topics, by uid.
    pub fn partitions(&self) -> impl Iterator<Item = (&TopicView, &PartitionView)> {
        self.by_uid.iter().map(|(_, topic, number)| {
            let topic = &self.topics[*topic as usize];
            (topic, &topic.partitions[*number as usize])
        })
    }
}
