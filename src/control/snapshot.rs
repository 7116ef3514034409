//! The metadata's snapshot: what a checkpoint (and later a far replica) keeps of the state.
//!
//! Invariant: a snapshot restores to the same state, or is refused: one that says what no state can be is wrong, whoever wrote it.
//!
//! Not here: the state machine (`state.rs`), nodes and groups in a snapshot (`snapshot_cluster.rs`).

use super::queue_settings::QueueSettings;
use super::queues::QueueStart;
use super::settings::TopicSettings;
use super::snapshot_cluster::{ClusterV1, NodeV1};
use super::state::{COUNTER_MAX, State, Topic, pairs, valid_topic_name};
use super::stored::{self, StoredError};
use super::subscriptions::Subscription;
use super::view::QueueView;
use crate::constants::{PARTITIONS_MAX, REPLICAS_MAX, TOPIC_PARTITIONS_MAX};
use crate::ids::{GroupId, LogIndex, PartitionUid, SubscriptionUid, TopicUid};
use rkyv::{Archive, Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The version that is written.
const VERSION: u16 = 5;
/// The versions that are read.
const VERSIONS: [u16; 2] = [VERSION, 4];

#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
struct TopicV1 {
    name: String,
    uid: u64,
    created_us: i64,
    settings: Vec<(String, String)>,
    /// (uid, group), by number.
    partitions: Vec<(u64, u32)>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
struct TopicV2 {
    name: String,
    uid: u64,
    created_us: i64,
    settings: Vec<(String, String)>,
    replicas: u8,
    /// (uid, group), by number.
    partitions: Vec<(u64, u32)>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
struct ConsumerGroupV1 {
    name: String,
    uid: u64,
    home: u32,
    created_us: i64,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
struct QueueV1 {
    name: String,
    uid: u64,
    topic: u64,
    created_us: i64,
    start: QueueStart,
    partitions_at_creation: u32,
    settings: Vec<(String, String)>,
}

/// Version 4 of the snapshot: queues came in. (Versions 1 to 3 were never released.)
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
struct StateV4 {
    applied: u64,
    epoch: u64,
    next_topic_uid: u64,
    next_partition_uid: u64,
    next_producer_id: u64,
    /// In the order in which they registered.
    nodes: Vec<NodeV1>,
    topics: Vec<TopicV1>,
    next_subscription_uid: u64,
    consumer_groups: Vec<ConsumerGroupV1>,
    queues: Vec<QueueV1>,
}

/// Version 5 of the snapshot: groups have replicas, nodes and topics tell more about themselves.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
struct StateV5 {
    applied: u64,
    epoch: u64,
    next_topic_uid: u64,
    next_partition_uid: u64,
    next_producer_id: u64,
    cluster: ClusterV1,
    topics: Vec<TopicV2>,
    next_subscription_uid: u64,
    consumer_groups: Vec<ConsumerGroupV1>,
    queues: Vec<QueueV1>,
}

impl StateV5 {
    /// Until version 4 groups followed from the nodes that had registered, and each had one replica.
    fn of_v4(old: StateV4) -> Result<StateV5, StoredError> {
        let topic = |t: TopicV1| TopicV2 {
            name: t.name,
            uid: t.uid,
            created_us: t.created_us,
            settings: t.settings,
            replicas: 1,
            partitions: t.partitions,
        };
        Ok(StateV5 {
            applied: old.applied,
            epoch: old.epoch,
            next_topic_uid: old.next_topic_uid,
            next_partition_uid: old.next_partition_uid,
            next_producer_id: old.next_producer_id,
            cluster: ClusterV1::of_v4(&old.nodes)?,
            topics: old.topics.into_iter().map(topic).collect(),
            next_subscription_uid: old.next_subscription_uid,
            consumer_groups: old.consumer_groups,
            queues: old.queues,
        })
    }
}

impl State {
    /// The snapshot's bytes, for checkpoints and (later) far replicas.
    pub fn snapshot(&self) -> Vec<u8> {
        let topics = self.topics.iter().map(|(name, topic)| TopicV2 {
            name: name.clone(),
            uid: topic.uid.0,
            created_us: topic.created_us,
            settings: owned(topic.settings.explicit()),
            replicas: topic.replicas,
            partitions: topic.partitions.iter().map(|(uid, group)| (uid.0, group.0)).collect(),
        });
        let consumer_groups = self.subscriptions.iter().map(|(name, of)| ConsumerGroupV1 {
            name: name.clone(),
            uid: of.uid.0,
            home: of.home.0,
            created_us: of.created_us,
        });
        let queues = self.queues.iter().map(|queue| QueueV1 {
            name: queue.name.clone(),
            uid: queue.uid.0,
            topic: queue.topic.0,
            created_us: queue.created_us,
            start: queue.start,
            partitions_at_creation: queue.partitions_at_creation,
            settings: owned(queue.settings.explicit()),
        });
        let state = StateV5 {
            applied: self.applied.0,
            epoch: self.epoch,
            next_topic_uid: self.next_topic_uid,
            next_partition_uid: self.next_partition_uid,
            next_producer_id: self.next_producer_id,
            cluster: ClusterV1::of(&self.nodes, &self.groups),
            topics: topics.collect(),
            next_subscription_uid: self.subscriptions.next_uid,
            consumer_groups: consumer_groups.collect(),
            queues: queues.collect(),
        };
        let archive = rkyv::to_bytes::<rkyv::rancor::Error>(&state).expect("serialising plain values into memory cannot fail");
        stored::seal(stored::SNAPSHOT_SCHEMA, VERSION, &archive)
    }

    /// Reads a snapshot; one that says what no state can be is refused.
    pub fn restore(bytes: &[u8]) -> Result<State, StoredError> {
        let (version, archive) = stored::open_any(bytes, stored::SNAPSHOT_SCHEMA, &VERSIONS)?;
        let stored = match version {
            VERSION => rkyv::from_bytes::<StateV5, rkyv::rancor::Error>(&archive).map_err(StoredError::archive)?,
            _ => StateV5::of_v4(rkyv::from_bytes::<StateV4, rkyv::rancor::Error>(&archive).map_err(StoredError::archive)?)?,
        };
        let next = [stored.next_topic_uid, stored.next_partition_uid, stored.next_producer_id, stored.next_subscription_uid];
        let counters = [&[stored.applied, stored.epoch], next.as_slice()].concat();
        if counters.iter().any(|counter| *counter > COUNTER_MAX) || stored.next_producer_id == 0 {
            return wrong(format!("counters {counters:?}"));
        }
        let mut state = State::new();
        (state.nodes, state.groups) = stored.cluster.restore(stored.applied)?;
        restore_topics(&mut state, stored.topics, stored.next_topic_uid, stored.next_partition_uid)?;
        state.subscriptions.next_uid = stored.next_subscription_uid;
        restore_groups(&mut state, stored.consumer_groups)?;
        restore_queues(&mut state, stored.queues)?;
        state.applied = LogIndex(stored.applied);
        state.epoch = stored.epoch;
        state.next_topic_uid = stored.next_topic_uid;
        state.next_partition_uid = stored.next_partition_uid;
        state.next_producer_id = stored.next_producer_id;
        Ok(state)
    }
}

/// Nothing that a state can be.
pub(super) fn wrong<T>(what: String) -> Result<T, StoredError> {
    Err(StoredError::Archive(what))
}

fn restore_topics(state: &mut State, stored: Vec<TopicV2>, next_topic_uid: u64, next_partition_uid: u64) -> Result<(), StoredError> {
    let (mut topic_uids, mut uids) = (BTreeSet::new(), BTreeSet::new());
    for topic in stored {
        let count = topic.partitions.len() as u64;
        let is_new = topic_uids.insert(topic.uid) && topic.partitions.iter().all(|(uid, _)| *uid < next_partition_uid && uids.insert(*uid));
        let is_right = valid_topic_name(&topic.name) && (1..=REPLICAS_MAX).contains(&topic.replicas);
        if !is_right || topic.uid >= next_topic_uid || count > TOPIC_PARTITIONS_MAX || !is_new {
            return wrong(format!("topic {:?} with uid {} and {count} partitions", topic.name, topic.uid));
        }
        let partitions: Vec<_> = topic.partitions.iter().map(|(uid, group)| (PartitionUid(*uid), GroupId(*group))).collect();
        for (_, group) in &partitions {
            let found = state.groups.data.get_mut(group).ok_or_else(|| StoredError::Archive(format!("unknown group {group}")))?;
            found.partitions += 1;
        }
        state.partition_count += count;
        let settings = TopicSettings::parse(pairs(&topic.settings)).map_err(StoredError::archive)?;
        let restored = Topic { uid: TopicUid(topic.uid), created_us: topic.created_us, settings, replicas: topic.replicas, partitions };
        if state.partition_count > PARTITIONS_MAX || state.topics.insert(topic.name, restored).is_some() {
            return wrong(format!("more than {PARTITIONS_MAX} partitions, or two topics of one name"));
        }
    }
    Ok(())
}

fn restore_groups(state: &mut State, stored: Vec<ConsumerGroupV1>) -> Result<(), StoredError> {
    for group in stored {
        let is_right = valid_topic_name(&group.name) && state.groups.data.contains_key(&GroupId(group.home));
        let (name, uid) = (group.name.clone(), group.uid);
        let found = Subscription { uid: SubscriptionUid(uid), home: GroupId(group.home), created_us: group.created_us };
        if !is_right || !state.subscriptions.restore(group.name, found) {
            return wrong(format!("consumer group {name:?} with uid {uid} at home in replica group {}", group.home));
        }
    }
    Ok(())
}

/// After topics and groups: a queue's topic exists, and its uid is no group's.
fn restore_queues(state: &mut State, stored: Vec<QueueV1>) -> Result<(), StoredError> {
    let topics: BTreeMap<u64, (String, usize)> =
        state.topics.iter().map(|(name, topic)| (topic.uid.0, (name.clone(), topic.partitions.len()))).collect();
    let mut uids: BTreeSet<_> = state.subscriptions.iter().map(|(_, of)| of.uid.0).collect();
    for queue in stored {
        let is_new = queue.uid < state.subscriptions.next_uid && uids.insert(queue.uid);
        let topic = topics.get(&queue.topic).filter(|(_, partitions)| (1..=*partitions).contains(&(queue.partitions_at_creation as usize)));
        let Some((topic_name, _)) = topic.filter(|_| is_new && valid_topic_name(&queue.name)) else {
            return wrong(format!("queue {:?} with uid {} on topic {}", queue.name, queue.uid, queue.topic));
        };
        state.queues.check_new(&queue.name).map_err(StoredError::archive)?;
        let restored = QueueView {
            name: queue.name,
            uid: SubscriptionUid(queue.uid),
            topic: TopicUid(queue.topic),
            topic_name: topic_name.clone(),
            created_us: queue.created_us,
            start: queue.start,
            partitions_at_creation: queue.partitions_at_creation,
            settings: QueueSettings::parse(pairs(&queue.settings)).map_err(StoredError::archive)?,
        };
        if let Some(dead_letter) = restored.dead_letter_topic() {
            state.queues.check_dead_letter(topic_name, dead_letter).map_err(StoredError::archive)?;
        }
        state.queues.put(restored);
    }
    Ok(())
}

fn owned<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<(String, String)> {
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}
