//! The state machine: what the cluster is, changed by commands only.
//!
//! Invariants: `applied` is the index of the last command taken in (a replay skips what it covers); partitions of a topic are
//! numbered without holes; every partition's group is one of the registered ones; a queue's topic exists.
//!
//! Not here: snapshots (`snapshot.rs`), nodes, groups and moves (`cluster.rs`), consumer groups (`subscriptions.rs`), queues (`queues.rs`).

use super::cluster_error::ClusterError;
use super::command::Command;
use super::error::ControlError;
use super::groups::{Groups, Place};
use super::nodes::Nodes;
use super::placement::Spread;
use super::queue_settings::QueueSettings;
use super::queues::{Queues, named_dead_letter};
use super::settings::{CO_LOCATE, TopicSettings};
use super::subscriptions::Subscriptions;
use super::view::{GroupView, PartitionView, QueueView, TopicView, View};
use super::view_cluster::ClusterView;
use crate::constants::{PARTITIONS_MAX, PRODUCER_LEASE_IDS, TOPIC_NAME_BYTES_MAX, TOPIC_PARTITIONS_MAX, TOPICS_MAX};
use crate::ids::{GroupId, LogIndex, MoveId, NodeId, PartitionUid, SubscriptionUid, TopicUid};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// A node is known (or was already), or has changed.
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
    /// So many groups were created; 0 where all were there.
    Groups(u32),
    /// A move was planned.
    Planned(MoveId),
    /// A move, a factor, a level or a recovery was taken in.
    Cluster,
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
    /// Replicas that it is to have; its groups have as many at least.
    pub(super) replicas: u8,
    pub(super) partitions: Vec<(PartitionUid, GroupId)>,
}

/// The metadata of the cluster.
#[derive(Debug, Default)]
pub struct State {
    pub(super) applied: LogIndex,
    pub(super) epoch: u64,
    pub(super) next_topic_uid: u64,
    pub(super) next_partition_uid: u64,
    pub(super) next_producer_id: u64,
    pub(super) nodes: Nodes,
    pub(super) groups: Groups,
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

    /// Whether a node has registered and was not removed.
    pub fn has_node(&self, node: NodeId) -> bool {
        self.nodes.get(node).is_ok()
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
            Command::RegisterNode { node, shards, groups_per_shard } => {
                Ok(self.check_register(NodeId(*node), *shards, *groups_per_shard)?)
            }
            Command::CreateTopic { name, partitions, settings, .. } => self.check_create(name, *partitions, settings, None),
            Command::CreateReplicatedTopic { name, partitions, settings, replicas, .. } => {
                self.check_create(name, *partitions, settings, Some(*replicas))
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
                if *partitions <= have {
                    return Ok(());
                }
                match self.beside(&changed) {
                    Some(other) if other.replicas < topic.replicas => return Err(beside_another(name, &changed, other, topic.replicas)),
                    Some(_) => {}
                    None => self.check_open(topic.replicas)?,
                }
                self.check_partitions(have, *partitions)
            }
            Command::DeleteTopic { name } => self.topic(name).map(|_| ()),
            Command::ReserveProducerIds { count, from } if (1..=PRODUCER_LEASE_IDS).contains(count) && *from < COUNTER_MAX / 2 => Ok(()),
            Command::ReserveProducerIds { count, from } => Err(ControlError::Limit(format!(
                "1 to {PRODUCER_LEASE_IDS} ids for producers are reserved at once, not {count} from {from}"
            ))),
            Command::CreateGroup { name, .. } if !valid_topic_name(name) => Err(ControlError::InvalidGroupName(name.clone())),
            Command::CreateGroup { name, .. } => {
                self.subscriptions.check_new(name)?;
                self.check_open(self.nodes.default_replicas())
            }
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
            Command::Cluster(command) => self.check_cluster(command),
        }
    }

    fn check_create(&self, name: &str, partitions: u32, settings: &[(String, String)], replicas: Option<u8>) -> Result<(), ControlError> {
        if !valid_topic_name(name) {
            return Err(ControlError::InvalidName(name.to_owned()));
        }
        if self.topics.contains_key(name) {
            return Err(ControlError::TopicExists(name.to_owned()));
        }
        let parsed = TopicSettings::parse(pairs(settings)).map_err(ControlError::Setting)?;
        self.check_beside(&parsed)?;
        self.check_topic_count()?;
        match (self.beside(&parsed), replicas) {
            // Beside another topic there is no choice.
            (Some(other), Some(replicas)) if other.replicas != replicas => return Err(beside_another(name, &parsed, other, replicas)),
            (Some(_), _) => {}
            (None, replicas) => self.check_open(replicas.unwrap_or(self.nodes.default_replicas()))?,
        }
        self.check_partitions(0, partitions)
    }

    /// Whether new partitions can be given to groups of this factor.
    fn check_open(&self, replicas: u8) -> Result<(), ControlError> {
        if self.nodes.is_empty() {
            return Err(ControlError::NoNodes);
        }
        self.check_factor("a topic", replicas, self.nodes.staying())?;
        match self.groups.open_to(&self.nodes, replicas).next() {
            Some(_) => Ok(()),
            None => Err(ClusterError::NoGroups(replicas).into()),
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
        self.check_partitions(0, self.topic(topic)?.partitions.len() as u32)
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
                Ok(Applied::Created(self.create_topic(name, *partitions, settings, *created_us, None), *partitions))
            }
            Command::CreateReplicatedTopic { name, partitions, settings, created_us, replicas } => {
                let settings = TopicSettings::parse(pairs(settings)).expect("checked above");
                Ok(Applied::Created(self.create_topic(name, *partitions, settings, *created_us, Some(*replicas)), *partitions))
            }
            Command::AlterTopic { name, partitions, settings } => {
                let have = self.topics[name].partitions.len() as u32;
                let topic = self.topics.get_mut(name).expect("checked above");
                topic.settings.change(pairs(settings)).expect("checked above");
                let beside = topic.settings.word(CO_LOCATE).to_owned();
                let replicas = topic.replicas;
                let added = self.place_beside(&beside, have, partitions.saturating_sub(have), replicas);
                let topic = self.topics.get_mut(name).expect("checked above");
                topic.partitions.extend(added);
                Ok(Applied::Altered)
            }
            Command::DeleteTopic { name } => {
                let topic = self.topics.remove(name).expect("checked above");
                for (_, group) in &topic.partitions {
                    self.groups.known_mut(*group).partitions -= 1;
                }
                self.partition_count -= topic.partitions.len() as u64;
                self.groups.forget_lost(&self.nodes, &self.subscriptions.homes());
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
                self.groups.forget_lost(&self.nodes, &self.subscriptions.homes());
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
                self.create_dead_letter(topic, settings, *created_us);
                Ok(Applied::QueueCreated(uid))
            }
            Command::AlterQueue { name, settings, altered_us } => {
                let mut queue = QueueView::clone(self.queues.find(name).expect("checked above"));
                queue.settings.change(pairs(settings)).expect("checked above");
                self.create_dead_letter(&queue.topic_name, settings, *altered_us);
                self.queues.put(queue);
                Ok(Applied::QueueAltered)
            }
            Command::DeleteQueue { name } => {
                self.queues.remove(name);
                Ok(Applied::QueueDeleted)
            }
            Command::Cluster(command) => Ok(self.change_cluster(command)),
        }
    }

    fn create_topic(&mut self, name: &str, partitions: u32, settings: TopicSettings, created_us: i64, replicas: Option<u8>) -> TopicUid {
        let uid = TopicUid(self.next_topic_uid);
        self.next_topic_uid += 1;
        let beside = self.beside(&settings).map(|topic| topic.replicas);
        let replicas = beside.or(replicas).unwrap_or(self.nodes.default_replicas());
        let partitions = self.place_beside(settings.word(CO_LOCATE), 0, partitions, replicas);
        self.topics.insert(name.to_owned(), Topic { uid, created_us, settings, replicas, partitions });
        uid
    }

    /// Creates the dead-letter topic of a queue on `topic` that `settings` name, if they name one and it does not exist; `check_dead_letter` has been asked. It lies
    /// beside `topic`, partition for partition: whoever leads the one leads the other, and letters go nowhere over nodes.
    fn create_dead_letter(&mut self, topic: &str, settings: &[(String, String)], created_us: i64) {
        let Some(name) = named_dead_letter(settings).filter(|name| !self.topics.contains_key(*name)) else { return };
        let partitions = self.topics[topic].partitions.len() as u32;
        let beside = TopicSettings::parse([(CO_LOCATE, topic)]).expect("the name of a topic");
        self.create_topic(name, partitions, beside, created_us, None);
    }

    /// The replica group with the fewest consumer groups at home; among equals first over the shards, then over a shard's groups.
    fn place_home(&self) -> GroupId {
        let homes = self.subscriptions.homes();
        let of_group = |group: GroupId| homes.get(&group).copied().unwrap_or(0);
        let mut of_shard: BTreeMap<Place, u64> = BTreeMap::new();
        for (group, found) in &self.groups.data {
            *of_shard.entry(found.home).or_default() += of_group(*group);
        }
        let open = self.groups.open_to(&self.nodes, self.nodes.default_replicas());
        let load = open.map(|(group, found)| (of_shard[&found.home], of_group(group), group));
        load.min().expect("checked: a group is open").2
    }

    /// The topic beside which partitions are to be placed has to exist.
    fn check_beside(&self, settings: &TopicSettings) -> Result<(), ControlError> {
        match settings.word(CO_LOCATE) {
            "" => Ok(()),
            beside => self.topic(beside).map(|_| ()),
        }
    }

    /// The topic beside which partitions are placed.
    fn beside(&self, settings: &TopicSettings) -> Option<&Topic> {
        self.topics.get(settings.word(CO_LOCATE)).filter(|topic| !topic.partitions.is_empty())
    }

    /// The same as `place`, but beside the partitions of a topic, if there is one of that name; `first` is the number of the first new one.
    fn place_beside(&mut self, beside: &str, first: u32, count: u32, replicas: u8) -> Vec<(PartitionUid, GroupId)> {
        let groups: Vec<_> = self.topics.get(beside).map_or(Vec::new(), |topic| topic.partitions.iter().map(|(_, group)| *group).collect());
        if groups.is_empty() {
            return self.place(count, replicas);
        }
        let mut placed = Vec::with_capacity(count as usize);
        for number in first..first + count {
            let group = groups[number as usize % groups.len()];
            self.groups.known_mut(group).partitions += 1;
            placed.push((PartitionUid(self.next_partition_uid), group));
            self.next_partition_uid += 1;
        }
        self.partition_count += u64::from(count);
        placed
    }

    /// Gives `count` new partitions a uid and, of the groups with so many replicas, the one with the fewest partitions; among equals first over the shards,
    /// then over a shard's groups.
    fn place(&mut self, count: u32, replicas: u8) -> Vec<(PartitionUid, GroupId)> {
        let mut per_shard: BTreeMap<Place, u64> = BTreeMap::new();
        for group in self.groups.data.values() {
            *per_shard.entry(group.home).or_default() += group.partitions;
        }
        let open = self.groups.open_to(&self.nodes, replicas).map(|(id, group)| (id, group.home, group.partitions));
        let mut spread = Spread::new(open, &per_shard);
        let mut placed = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let group = spread.next().expect("checked: a group is open");
            self.groups.known_mut(group).partitions += 1;
            placed.push((PartitionUid(self.next_partition_uid), group));
            self.next_partition_uid += 1;
        }
        self.partition_count += u64::from(count);
        placed
    }

    /// The immutable copy that shards and clients work with.
    pub fn view(&self) -> Arc<View> {
        let cluster = ClusterView::of(&self.nodes, &self.groups);
        let leader = |group: GroupId| cluster.group(group).expect("partitions and consumer groups are in known groups").replicas[0];
        let topics = self.topics.iter().map(|(name, topic)| {
            let partitions = topic.partitions.iter().enumerate().map(|(number, (uid, group))| {
                let place = leader(*group);
                PartitionView { number: number as u32, uid: *uid, group: *group, node: place.node, shard: place.shard }
            });
            TopicView {
                name: name.clone(),
                uid: topic.uid,
                created_us: topic.created_us,
                settings: topic.settings.clone(),
                replicas: topic.replicas,
                partitions: partitions.collect(),
            }
        });
        let groups = self.subscriptions.iter().map(|(name, of)| {
            let place = leader(of.home);
            GroupView { name: name.clone(), uid: of.uid, created_us: of.created_us, home: of.home, node: place.node, shard: place.shard }
        });
        let (topics, groups, queues) = (topics.collect(), groups.collect(), self.queues.iter().map(Arc::clone).collect());
        let view = View::new(self.epoch, topics, groups, queues, cluster);
        Arc::new(view.with_uids_end(self.next_partition_uid, self.subscriptions.next_uid))
    }
}

/// Topic `name` is to be beside a topic with another number of replicas than it wants.
fn beside_another(name: &str, settings: &TopicSettings, other: &Topic, replicas: u8) -> ControlError {
    ControlError::Partitions(format!(
        "topic {name:?} is to be beside {:?}, which has {} replicas: it has as many then, not {replicas}",
        settings.word(CO_LOCATE),
        other.replicas
    ))
}

/// Highest that a counter of a snapshot may be: half of what it has room for, so that what is added to it stays a number.
pub(super) const COUNTER_MAX: u64 = u64::MAX / 2;

pub(super) fn pairs(list: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    list.iter().map(|(k, v)| (k.as_str(), v.as_str()))
}
