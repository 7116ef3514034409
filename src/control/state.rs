//! The state machine: what the cluster is, changed by commands only.
//!
//! Invariants: `applied` is the index of the last command taken in (a replay skips what it covers); partitions of a topic are
//! numbered without holes; every partition's group is one of the registered ones; a queue's topic exists.
//!
//! Not here: snapshots (`snapshot.rs`), consumer groups (`subscriptions.rs`), queues (`queues.rs`).

use super::command::Command;
use super::queue_settings::QueueSettings;
use super::queues::{Queues, named_dead_letter};
use super::settings::{CO_LOCATE, SettingError, TopicSettings};
use super::subscriptions::Subscriptions;
use super::view::{GroupView, PartitionView, QueueView, TopicView, View};
use crate::constants::{
    GROUPS_PER_SHARD_MAX, PARTITIONS_MAX, PRODUCER_LEASE_IDS, SHARDS_MAX, TOPIC_NAME_BYTES_MAX, TOPIC_PARTITIONS_MAX, TOPICS_MAX,
};
use crate::ids::{GroupId, LogIndex, NodeId, PartitionUid, ShardId, SubscriptionUid, TopicUid};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Why a command was refused. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlError {
    /// No topic of this name.
    UnknownTopic(String),
    /// There is one already.
    TopicExists(String),
    /// Not a name.
    InvalidName(String),
    /// No consumer group of this name (and identity).
    UnknownGroup(String),
    /// There is one already.
    GroupExists(String),
    /// Not a name of a consumer group.
    InvalidGroupName(String),
    /// No queue of this name.
    UnknownQueue(String),
    /// There is one already.
    QueueExists(String),
    /// Not a name of a queue.
    InvalidQueueName(String),
    /// Dead messages would come back to where they came from.
    DeadLetterCircle {
        /// The queue's topic.
        topic: String,
        /// Where its dead messages would go.
        dead_letter: String,
    },
    /// A setting.
    Setting(SettingError),
    /// A number of partitions that cannot be.
    Partitions(String),
    /// A limit of the cluster.
    Limit(String),
    /// No node has registered yet.
    NoNodes,
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ControlError::UnknownTopic(name) => write!(f, "topic {name:?} does not exist"),
            ControlError::TopicExists(name) => write!(f, "topic {name:?} exists already"),
            ControlError::InvalidName(name) => write!(
                f,
                "{name:?} is not a topic name: 1 to {TOPIC_NAME_BYTES_MAX} of the characters a-z, A-Z, 0-9, '.', '_' and '-', not only dots"
            ),
            ControlError::UnknownGroup(name) => write!(f, "consumer group {name:?} does not exist"),
            ControlError::GroupExists(name) => write!(f, "consumer group {name:?} exists already"),
            ControlError::InvalidGroupName(name) => write!(
                f,
                "{name:?} is not a name of a consumer group: 1 to {TOPIC_NAME_BYTES_MAX} of the characters a-z, A-Z, 0-9, '.', '_' and '-', not only dots"
            ),
            ControlError::UnknownQueue(name) => write!(f, "queue {name:?} does not exist"),
            ControlError::QueueExists(name) => write!(f, "queue {name:?} exists already"),
            ControlError::InvalidQueueName(name) => write!(
                f,
                "{name:?} is not a name of a queue: 1 to {TOPIC_NAME_BYTES_MAX} of the characters a-z, A-Z, 0-9, '.', '_' and '-', not only dots"
            ),
            ControlError::DeadLetterCircle { topic, dead_letter } if topic == dead_letter => {
                write!(f, "topic {topic:?} cannot be its own dead-letter topic: choose another")
            }
            ControlError::DeadLetterCircle { topic, dead_letter } => write!(
                f,
                "dead messages of {dead_letter:?} lead back to {topic:?}, by the queues' dead-letter topics: choose another dead-letter topic"
            ),
            ControlError::Setting(cause) => cause.fmt(f),
            ControlError::Partitions(what) | ControlError::Limit(what) => f.write_str(what),
            ControlError::NoNodes => f.write_str("the cluster has no registered node yet: try again"),
        }
    }
}

impl std::error::Error for ControlError {}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// A node is known (or was already).
    Node,
    /// A topic was created, with this uid and number of partitions.
    Created(TopicUid, u32),
    /// A topic was altered.
    Altered,
    /// A topic was deleted.
    Deleted,
    /// These ids are the proposer's.
    ProducerIds(Range<u64>),
    /// A consumer group was created, with this uid.
    GroupCreated(SubscriptionUid),
    /// A consumer group was deleted.
    GroupDeleted,
    /// A queue was created, with this uid.
    QueueCreated(SubscriptionUid),
    /// A queue was altered.
    QueueAltered,
    /// A queue was deleted.
    QueueDeleted,
}

/// Whether `name` may name a topic.
pub fn valid_topic_name(name: &str) -> bool {
    let right = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && name.len() as u64 <= TOPIC_NAME_BYTES_MAX && name.chars().all(right) && !name.chars().all(|c| c == '.')
}

#[derive(Clone, Debug)]
pub(super) struct Topic {
    pub(super) uid: TopicUid,
    pub(super) created_us: i64,
    pub(super) settings: TopicSettings,
    pub(super) partitions: Vec<(PartitionUid, GroupId)>,
}

/// Where a data group lives.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupPlace {
    pub(super) node: NodeId,
    pub(super) shard: ShardId,
    pub(super) partitions: u64,
}

/// The metadata of the cluster.
#[derive(Debug, Default)]
pub struct State {
    pub(super) applied: LogIndex,
    pub(super) epoch: u64,
    pub(super) next_topic_uid: u64,
    pub(super) next_partition_uid: u64,
    pub(super) next_producer_id: u64,
    /// In the order in which they registered, for that gives their groups numbers: (node, shards, groups per shard).
    pub(super) nodes: Vec<(NodeId, u16, u16)>,
    pub(super) groups: BTreeMap<GroupId, GroupPlace>,
    pub(super) topics: BTreeMap<String, Topic>,
    pub(super) partition_count: u64,
    pub(super) subscriptions: Subscriptions,
    pub(super) queues: Queues,
}

impl State {
    /// An empty cluster.
    pub fn new() -> State {
        State { next_topic_uid: 1, next_partition_uid: 1, next_producer_id: 1, ..State::default() }
    }

    /// Index of the last command taken in.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// Rises with each change.
    pub fn view_epoch(&self) -> u64 {
        self.epoch
    }

    /// Uid and number of partitions of a topic.
    pub fn topic_identity(&self, name: &str) -> Option<(u64, u32)> {
        self.topics.get(name).map(|t| (t.uid.0, t.partitions.len() as u32))
    }

    /// The consumer group of this name: its uid and the replica group that is its home.
    pub fn group_identity(&self, name: &str) -> Option<(SubscriptionUid, GroupId)> {
        self.subscriptions.find(name).map(|found| (found.uid, found.home))
    }

    /// The uid of the queue of this name.
    pub fn queue_identity(&self, name: &str) -> Option<SubscriptionUid> {
        self.queues.find(name).ok().map(|queue| queue.uid)
    }

    /// Whether a node has registered.
    pub fn has_nodes(&self) -> bool {
        !self.nodes.is_empty()
    }

    /// Whether this node is registered.
    pub fn has_node(&self, node: NodeId) -> bool {
        self.nodes.iter().any(|(known, ..)| *known == node)
    }

    /// Takes in the commands of the entry at `index`, in order, and answers each. An entry at or below `applied` was taken in
    /// before: `None`.
    pub fn apply(&mut self, index: LogIndex, commands: &[Command]) -> Option<Vec<Result<Applied, ControlError>>> {
        if index <= self.applied {
            return None;
        }
        self.applied = index;
        let results: Vec<_> = commands.iter().map(|command| self.change(command)).collect();
        // Who has which ids is nothing that shards or clients see: no new view for them.
        if results.iter().flatten().any(|applied| !matches!(applied, Applied::ProducerIds(_))) {
            self.epoch += 1;
        }
        Some(results)
    }

    /// Says whether a command would be refused, without changing anything.
    pub fn check(&self, command: &Command) -> Result<(), ControlError> {
        match command {
            Command::RegisterNode { node, shards, groups_per_shard } => check_node(*node, *shards, *groups_per_shard),
            Command::CreateTopic { name, partitions, settings, .. } => {
                if !valid_topic_name(name) {
                    return Err(ControlError::InvalidName(name.clone()));
                }
                if self.topics.contains_key(name) {
                    return Err(ControlError::TopicExists(name.clone()));
                }
                let parsed = TopicSettings::parse(pairs(settings)).map_err(ControlError::Setting)?;
                self.check_beside(&parsed)?;
                self.check_topic_count()?;
                if self.groups.is_empty() {
                    return Err(ControlError::NoNodes);
                }
                self.check_partitions(0, *partitions)
            }
            Command::AlterTopic { name, partitions, settings } => {
                let topic = self.topic(name)?;
                let mut changed = topic.settings.clone();
                changed.change(pairs(settings)).map_err(ControlError::Setting)?;
                if settings.iter().any(|(key, _)| key == CO_LOCATE) || *partitions > topic.partitions.len() as u32 {
                    self.check_beside(&changed)?;
                }
                let have = topic.partitions.len() as u32;
                if *partitions != 0 && *partitions < have {
                    return Err(ControlError::Partitions(format!(
                        "topic {name:?} has {have} partitions: their number can grow but not shrink to {partitions}"
                    )));
                }
                if *partitions == 0 { Ok(()) } else { self.check_partitions(have, *partitions) }
            }
            Command::DeleteTopic { name } => self.topic(name).map(|_| ()),
            Command::ReserveProducerIds { count, from } if (1..=PRODUCER_LEASE_IDS).contains(count) && *from < COUNTER_MAX / 2 => Ok(()),
            Command::ReserveProducerIds { count, from } => Err(ControlError::Limit(format!(
                "1 to {PRODUCER_LEASE_IDS} ids for producers are reserved at once, not {count} from {from}"
            ))),
            Command::CreateGroup { name, .. } if !valid_topic_name(name) => Err(ControlError::InvalidGroupName(name.clone())),
            Command::CreateGroup { .. } if self.groups.is_empty() => Err(ControlError::NoNodes),
            Command::CreateGroup { name, .. } => self.subscriptions.check_new(name),
            Command::DeleteGroup { name, uid } => self.subscriptions.check_known(name, *uid),
            Command::CreateQueue { name, .. } if !valid_topic_name(name) => Err(ControlError::InvalidQueueName(name.clone())),
            Command::CreateQueue { name, topic, settings, .. } => {
                self.queues.check_new(name)?;
                self.topic(topic)?;
                QueueSettings::parse(pairs(settings)).map_err(ControlError::Setting)?;
                self.check_dead_letter(topic, settings)
            }
            Command::AlterQueue { name, settings, .. } => {
                let queue = self.queues.find(name)?;
                queue.settings.clone().change(pairs(settings)).map_err(ControlError::Setting)?;
                self.check_dead_letter(&queue.topic_name, settings)
            }
            Command::DeleteQueue { name } => self.queues.find(name).map(|_| ()),
        }
    }

    /// Whether a queue on `topic` may have the dead-letter topic that `settings` name, if they name one, and whether that exists or can be created.
    fn check_dead_letter(&self, topic: &str, settings: &[(String, String)]) -> Result<(), ControlError> {
        let Some(name) = named_dead_letter(settings) else { return Ok(()) };
        self.queues.check_dead_letter(topic, name)?;
        if self.topics.contains_key(name) {
            return Ok(());
        }
        self.check_topic_count()?;
        self.check_partitions(0, DEAD_LETTER_PARTITIONS)
    }

    fn check_topic_count(&self) -> Result<(), ControlError> {
        if self.topics.len() as u64 >= TOPICS_MAX {
            return Err(ControlError::Limit(format!("the cluster has {TOPICS_MAX} topics, its limit: delete some first")));
        }
        Ok(())
    }

    fn topic(&self, name: &str) -> Result<&Topic, ControlError> {
        self.topics.get(name).ok_or_else(|| ControlError::UnknownTopic(name.to_owned()))
    }

    fn check_partitions(&self, have: u32, wanted: u32) -> Result<(), ControlError> {
        if wanted == 0 || u64::from(wanted) > TOPIC_PARTITIONS_MAX {
            return Err(ControlError::Partitions(format!("a topic has 1 to {TOPIC_PARTITIONS_MAX} partitions, not {wanted}")));
        }
        if self.partition_count + u64::from(wanted - have.min(wanted)) > PARTITIONS_MAX {
            return Err(ControlError::Limit(format!("the cluster may have {PARTITIONS_MAX} partitions: delete topics first")));
        }
        Ok(())
    }

    fn change(&mut self, command: &Command) -> Result<Applied, ControlError> {
        self.check(command)?;
        match command {
            Command::RegisterNode { node, shards, groups_per_shard } => {
                self.register(NodeId(*node), *shards, *groups_per_shard);
                Ok(Applied::Node)
            }
            Command::CreateTopic { name, partitions, settings, created_us } => {
                let settings = TopicSettings::parse(pairs(settings)).expect("checked above");
                Ok(Applied::Created(self.create_topic(name, *partitions, settings, *created_us), *partitions))
            }
            Command::AlterTopic { name, partitions, settings } => {
                let have = self.topics[name].partitions.len() as u32;
                let topic = self.topics.get_mut(name).expect("checked above");
                topic.settings.change(pairs(settings)).expect("checked above");
                let beside = topic.settings.word(CO_LOCATE).to_owned();
                let added = self.place_beside(&beside, have, partitions.saturating_sub(have));
                let topic = self.topics.get_mut(name).expect("checked above");
                topic.partitions.extend(added);
                Ok(Applied::Altered)
            }
            Command::DeleteTopic { name } => {
                let topic = self.topics.remove(name).expect("checked above");
                for (_, group) in &topic.partitions {
                    self.groups.get_mut(group).expect("partitions are in known groups").partitions -= 1;
                }
                self.partition_count -= topic.partitions.len() as u64;
                self.queues.remove_of_topic(topic.uid);
                Ok(Applied::Deleted)
            }
            Command::ReserveProducerIds { count, from } => {
                let first = self.next_producer_id.max(*from);
                self.next_producer_id = first + u64::from(*count);
                Ok(Applied::ProducerIds(first..self.next_producer_id))
            }
            Command::CreateGroup { name, created_us } => {
                let home = self.place_home();
                Ok(Applied::GroupCreated(self.subscriptions.create(name, home, *created_us)))
            }
            Command::DeleteGroup { name, .. } => {
                self.subscriptions.delete(name);
                Ok(Applied::GroupDeleted)
            }
            Command::CreateQueue { name, topic, start, settings, created_us } => {
                let found = &self.topics[topic];
                let uid = self.subscriptions.take_uid();
                self.queues.put(QueueView {
                    name: name.clone(),
                    uid,
                    topic: found.uid,
                    topic_name: topic.clone(),
                    created_us: *created_us,
                    start: *start,
                    partitions_at_creation: found.partitions.len() as u32,
                    settings: QueueSettings::parse(pairs(settings)).expect("checked above"),
                });
                self.create_dead_letter(settings, *created_us);
                Ok(Applied::QueueCreated(uid))
            }
            Command::AlterQueue { name, settings, altered_us } => {
                let mut queue = QueueView::clone(self.queues.find(name).expect("checked above"));
                queue.settings.change(pairs(settings)).expect("checked above");
                self.queues.put(queue);
                self.create_dead_letter(settings, *altered_us);
                Ok(Applied::QueueAltered)
            }
            Command::DeleteQueue { name } => {
                self.queues.remove(name);
                Ok(Applied::QueueDeleted)
            }
        }
    }

    fn create_topic(&mut self, name: &str, partitions: u32, settings: TopicSettings, created_us: i64) -> TopicUid {
        let uid = TopicUid(self.next_topic_uid);
        self.next_topic_uid += 1;
        let partitions = self.place_beside(settings.word(CO_LOCATE), 0, partitions);
        self.topics.insert(name.to_owned(), Topic { uid, created_us, settings, partitions });
        uid
    }

    /// Creates the dead-letter topic that `settings` name, if they name one and it does not exist; `check_dead_letter` has been asked.
    fn create_dead_letter(&mut self, settings: &[(String, String)], created_us: i64) {
        if let Some(name) = named_dead_letter(settings)
            && !self.topics.contains_key(name)
        {
            self.create_topic(name, DEAD_LETTER_PARTITIONS, TopicSettings::default(), created_us);
        }
    }

    /// The replica group with the fewest consumer groups at home; among equals first over the shards, then over a shard's groups.
    fn place_home(&self) -> GroupId {
        let homes = self.subscriptions.homes();
        let of_group = |group: &GroupId| homes.get(group).copied().unwrap_or(0);
        let mut of_shard: BTreeMap<(NodeId, ShardId), u64> = BTreeMap::new();
        for (group, place) in &self.groups {
            *of_shard.entry((place.node, place.shard)).or_default() += of_group(group);
        }
        let load = |(group, place): &(&GroupId, &GroupPlace)| (of_shard[&(place.node, place.shard)], of_group(group), **group);
        *self.groups.iter().min_by_key(load).expect("a node is registered").0
    }

    pub(super) fn register(&mut self, node: NodeId, shards: u16, groups_per_shard: u16) {
        // What it has is fixed at its first start, and so is what was registered then.
        if self.has_node(node) {
            return;
        }
        self.nodes.push((node, shards, groups_per_shard));
        let mut next = self.groups.keys().next_back().map_or(1, |g| g.0 + 1);
        for shard in 0..shards {
            for _ in 0..groups_per_shard {
                self.groups.insert(GroupId(next), GroupPlace { node, shard: ShardId(shard), partitions: 0 });
                next += 1;
            }
        }
    }

    /// The topic beside which partitions are to be placed has to exist.
    fn check_beside(&self, settings: &TopicSettings) -> Result<(), ControlError> {
        match settings.word(CO_LOCATE) {
            "" => Ok(()),
            beside => self.topic(beside).map(|_| ()),
        }
    }

    /// The same as `place`, but beside the partitions of a topic, if there is one of that name; `first` is the number of the first new one.
    fn place_beside(&mut self, beside: &str, first: u32, count: u32) -> Vec<(PartitionUid, GroupId)> {
        let groups: Vec<_> = self.topics.get(beside).map_or(Vec::new(), |topic| topic.partitions.iter().map(|(_, group)| *group).collect());
        if groups.is_empty() {
            return self.place(count);
        }
        let mut placed = Vec::with_capacity(count as usize);
        for number in first..first + count {
            let group = groups[number as usize % groups.len()];
            self.groups.get_mut(&group).expect("partitions are in known groups").partitions += 1;
            placed.push((PartitionUid(self.next_partition_uid), group));
            self.next_partition_uid += 1;
        }
        self.partition_count += u64::from(count);
        placed
    }

    /// Gives `count` new partitions a uid and the group with the fewest partitions; among equals first over the shards,
    /// then over a shard's groups.
    fn place(&mut self, count: u32) -> Vec<(PartitionUid, GroupId)> {
        let mut per_shard: BTreeMap<(NodeId, ShardId), u64> = BTreeMap::new();
        for place in self.groups.values() {
            *per_shard.entry((place.node, place.shard)).or_default() += place.partitions;
        }
        let mut placed = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let shard_load = |p: &GroupPlace| per_shard[&(p.node, p.shard)];
            let (group, _) = self.groups.iter().min_by_key(|(id, p)| (shard_load(p), p.partitions, **id)).expect("a node is registered");
            let group = *group;
            let place = self.groups.get_mut(&group).expect("found above");
            place.partitions += 1;
            *per_shard.get_mut(&(place.node, place.shard)).expect("counted above") += 1;
            placed.push((PartitionUid(self.next_partition_uid), group));
            self.next_partition_uid += 1;
        }
        self.partition_count += u64::from(count);
        placed
    }

    /// The immutable copy that shards and clients work with.
    pub fn view(&self) -> Arc<View> {
        let topics = self.topics.iter().map(|(name, topic)| {
            let partitions = topic.partitions.iter().enumerate().map(|(number, (uid, group))| {
                let place = self.groups[group];
                PartitionView { number: number as u32, uid: *uid, group: *group, node: place.node, shard: place.shard }
            });
            TopicView {
                name: name.clone(),
                uid: topic.uid,
                created_us: topic.created_us,
                settings: topic.settings.clone(),
                partitions: partitions.collect(),
            }
        });
        let groups = self.subscriptions.iter().map(|(name, of)| {
            let place = self.groups[&of.home];
            GroupView { name: name.clone(), uid: of.uid, created_us: of.created_us, home: of.home, node: place.node, shard: place.shard }
        });
        let view = View::new(self.epoch, topics.collect(), groups.collect(), self.queues.iter().map(Arc::clone).collect());
        Arc::new(view.with_uids_end(self.next_partition_uid))
    }
}

/// Partitions of a dead-letter topic that a queue creates: dead messages are few, and one partition keeps their order.
const DEAD_LETTER_PARTITIONS: u32 = 1;

/// Highest that a counter of a snapshot may be: half of what it has room for, so that what is added to it stays a number.
pub(super) const COUNTER_MAX: u64 = u64::MAX / 2;

/// What a node may say it has: the limits of the settings, since every group costs memory on each replica.
pub(super) fn check_node(node: u32, shards: u16, groups_per_shard: u16) -> Result<(), ControlError> {
    let fits = |count: u16, max: u64| (1..=max).contains(&u64::from(count));
    if fits(shards, SHARDS_MAX) && fits(groups_per_shard, GROUPS_PER_SHARD_MAX) {
        return Ok(());
    }
    Err(ControlError::Limit(format!(
        "node {node} says it has {shards} shards with {groups_per_shard} groups each: 1 to {SHARDS_MAX} with 1 to {GROUPS_PER_SHARD_MAX} can be"
    )))
}

pub(super) fn pairs(list: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    list.iter().map(|(k, v)| (k.as_str(), v.as_str()))
}
