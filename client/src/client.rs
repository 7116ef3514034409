//! The client's root: finds a broker, runs administrative requests, makes producers and consumers.
//!
//! Administrative requests share one connection behind a lock (`admin.rs`); producers and consumers open their own.

use std::sync::Arc;
use std::time::Instant;

use tramline_wire::kind::Kind;
use tramline_wire::metadata::MetadataRequest;
use tramline_wire::offsets::{self, ListOffsetsReply, ListOffsetsRequest, OffsetAnswer, OffsetQuery};
use tramline_wire::prim::List;
use tramline_wire::storage::{DescribeStorageReply, DescribeStorageRequest};
use tramline_wire::topics::{
    AlterTopicReply, AlterTopicRequest, CreateFlags, CreateTopicReply, CreateTopicRequest, DeleteTopicReply, DeleteTopicRequest,
    DescribeOptionsReply, DescribeOptionsRequest, DescribeTopicRequest, ListTopicsReply, ListTopicsRequest, Setting,
};

use crate::admin::{Answerer, Shared};
use crate::config::{Config, ConsumerConfig, GroupConfig, ProducerConfig, QueueConsumerConfig};
use crate::consumer::Consumer;
use crate::error::Error;
use crate::everywhere::Asked;
use crate::group_consumer::GroupConsumer;
use crate::group_listener::GroupListener;
use crate::link::{Effect, HelloInfo};
use crate::owners::{Wanted, aim, answered, refused};
use crate::producer::Producer;
use crate::queue_consumer::QueueConsumer;
use crate::types::{
    At, CreatedTopic, Metadata, NodeStorage, OptionDescription, PartitionOffset, TopicDescription, TopicMetadata, TopicSummary,
};

/// Most partitions named in one request for offsets or trims: a quarter of the broker's default limit (`entries.max`).
pub(crate) const PARTITIONS_PER_REQUEST_MAX: usize = 1024;

/// A connection to a cluster. Cheap to share between threads by reference; see the crate's page for examples.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

impl Client {
    /// Connects to the first of the configured servers that answers. Tries each once: whoever waits for a broker to start
    /// does so by calling again.
    pub fn connect(config: Config) -> Result<Client, Error> {
        Ok(Client { shared: Arc::new(Shared::connect(config)?) })
    }

    pub(crate) fn share(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// What the broker told at the last hello.
    pub fn hello(&self) -> HelloInfo {
        self.shared.hello()
    }

    /// The settings in use.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Nodes, and the partitions of these topics with their owners; of all topics when none is named.
    pub fn metadata(&self, topics: &[&str]) -> Result<Metadata, Error> {
        self.shared.metadata(topics)
    }

    /// Creates a topic. With `if_not_exists` an existing topic is fine, whatever its settings.
    pub fn create_topic(&self, name: &str, partitions: u32, settings: &[(&str, &str)], if_not_exists: bool) -> Result<CreatedTopic, Error> {
        let flags = if if_not_exists { CreateFlags::IF_NOT_EXISTS } else { CreateFlags(0) };
        self.create(name, partitions, 0, settings, flags)
    }

    /// As [`create_topic`](Self::create_topic), with a number of replicas of its own: at most as many as the cluster has nodes.
    pub fn create_replicated_topic(
        &self,
        name: &str,
        partitions: u32,
        replicas: u8,
        settings: &[(&str, &str)],
        if_not_exists: bool,
    ) -> Result<CreatedTopic, Error> {
        let flags = if if_not_exists { CreateFlags::IF_NOT_EXISTS } else { CreateFlags(0) };
        self.create(name, partitions, replicas, settings, flags)
    }

    /// Checks what [`create_topic`](Self::create_topic) would check, and creates nothing.
    pub fn validate_topic(&self, name: &str, partitions: u32, settings: &[(&str, &str)]) -> Result<(), Error> {
        self.create(name, partitions, 0, settings, CreateFlags::VALIDATE_ONLY).map(|_| ())
    }

    fn create(
        &self,
        name: &str,
        partitions: u32,
        replicas: u8,
        settings: &[(&str, &str)],
        flags: CreateFlags,
    ) -> Result<CreatedTopic, Error> {
        check_lengths(name, settings)?;
        let settings = wire_settings(settings);
        let request = CreateTopicRequest { name, partitions, replication: u16::from(replicas), flags, settings: List::of(&settings) };
        let effect = if flags == CreateFlags(0) { Effect::Once } else { Effect::Repeatable };
        let what = format!("create topic {name:?}");
        self.shared.call(
            &what,
            Kind::CreateTopic,
            effect,
            |meta| request.encode(meta),
            |meta| {
                let reply = CreateTopicReply::decode(meta)?;
                Ok(CreatedTopic { uid: reply.topic_uid, created: reply.created, partitions: reply.partitions })
            },
        )
    }

    /// Changes settings (an empty value: back to the default) and raises the number of partitions (`None` keeps it).
    pub fn alter_topic(&self, name: &str, partitions: Option<u32>, settings: &[(&str, &str)]) -> Result<(), Error> {
        check_lengths(name, settings)?;
        let settings = wire_settings(settings);
        self.alter(&AlterTopicRequest { name, partitions: partitions.unwrap_or(0), replication: 0, settings: List::of(&settings) })
    }

    /// Changes how many replicas a topic has: 1 to 5, at most as many as the cluster has nodes. Returns when that is known to the cluster, which then brings
    /// replicas to nodes, or takes them away, one at a time; [`describe_cluster`](Self::describe_cluster) tells of each group how far it is. Topics that share
    /// a group have as many replicas in it as the one of them that wants most.
    pub fn set_topic_replicas(&self, name: &str, replicas: u8) -> Result<(), Error> {
        check_lengths(name, &[])?;
        if replicas == 0 {
            return Err(Error::config(&format!("topic {name:?} cannot have 0 replicas: ask for 1 at least, or delete it")));
        }
        self.alter(&AlterTopicRequest { name, partitions: 0, replication: u16::from(replicas), settings: List::default() })
    }

    fn alter(&self, request: &AlterTopicRequest<'_>) -> Result<(), Error> {
        let what = format!("alter topic {:?}", request.name);
        self.shared.call(
            &what,
            Kind::AlterTopic,
            Effect::Repeatable,
            |meta| request.encode(meta),
            |meta| AlterTopicReply::decode(meta).map(|_| ()),
        )
    }

    /// Deletes a topic and all its records.
    pub fn delete_topic(&self, name: &str) -> Result<(), Error> {
        check_lengths(name, &[])?;
        let request = DeleteTopicRequest { name };
        let what = format!("delete topic {name:?}");
        self.shared.call(
            &what,
            Kind::DeleteTopic,
            Effect::Once,
            |meta| request.encode(meta),
            |meta| DeleteTopicReply::decode(meta).map(|_| ()),
        )
    }

    /// All topics, in order of name.
    pub fn list_topics(&self) -> Result<Vec<TopicSummary>, Error> {
        self.shared.call(
            "list topics",
            Kind::ListTopics,
            Effect::Repeatable,
            |meta| ListTopicsRequest {}.encode(meta),
            |meta| {
                let reply = ListTopicsReply::decode(meta)?;
                let topics = reply.topics.iter();
                Ok(topics
                    .map(|topic| TopicSummary { name: topic.name.to_string(), uid: topic.topic_uid, partitions: topic.partitions })
                    .collect())
            },
        )
    }

    /// One topic with its settings and partitions. Numbers of a partition are asked of the node that leads it: an error says of each one that could not be
    /// asked that nothing is known of it.
    pub fn describe_topic(&self, name: &str) -> Result<TopicDescription, Error> {
        self.describe_topic_until(name, self.shared.deadline())
    }

    pub(crate) fn describe_topic_until(&self, name: &str, deadline: Instant) -> Result<TopicDescription, Error> {
        check_lengths(name, &[])?;
        let request = DescribeTopicRequest { name };
        let what = format!("describe topic {name:?}");
        let encode = |meta: &mut Vec<u8>| request.encode(meta);
        let read = |from: Answerer, meta: &[u8]| Ok((TopicDescription::read(meta)?, from.node));
        let (mut topic, node) =
            self.shared.call_of_cluster(deadline.into(), &what, Kind::DescribeTopic, Effect::Repeatable, &[], encode, read)?;
        let ask = |asked: &mut Asked<'_>| asked.call(Kind::DescribeTopic, encode, TopicDescription::read);
        let take_in = |topic: &mut TopicDescription, other: TopicDescription| topic.take_in(&other);
        topic.silent = self.shared.complete(&what, (&mut topic, node), deadline, TopicDescription::untold, ask, take_in)?;
        Ok(topic)
    }

    /// All settings a topic can have, with units, ranges and defaults.
    pub fn describe_options(&self) -> Result<Vec<OptionDescription>, Error> {
        let request = DescribeOptionsRequest {};
        self.shared.call(
            "describe options",
            Kind::DescribeOptions,
            Effect::Repeatable,
            |meta| request.encode(meta),
            |meta| Ok(DescribeOptionsReply::decode(meta)?.options.iter().map(OptionDescription::from).collect()),
        )
    }

    /// Where the disk space of a node went, shard by shard: of the node that this client reaches first.
    pub fn describe_storage(&self) -> Result<NodeStorage, Error> {
        self.shared.call(
            "describe storage",
            Kind::DescribeStorage,
            Effect::Repeatable,
            |meta| DescribeStorageRequest {}.encode(meta),
            |meta| {
                let reply = DescribeStorageReply::decode(meta)?;
                Ok(NodeStorage { node: reply.node, shards: reply.shards.iter().collect() })
            },
        )
    }

    /// Offsets of partitions of a topic, in the order asked.
    pub fn list_offsets(&self, topic: &str, asked: &[(u32, At)]) -> Result<Vec<PartitionOffset>, Error> {
        self.shared.list_offsets(topic, asked, self.shared.deadline())
    }

    /// The offset after the last committed record of every partition, in order of partition: where reading "until the end as
    /// it is now" stops.
    pub fn end_offsets(&self, topic: &str) -> Result<Vec<PartitionOffset>, Error> {
        let deadline = self.shared.deadline();
        let partitions = self.shared.topic(topic, deadline)?.partitions.len() as u32;
        let asked: Vec<(u32, At)> = (0..partitions).map(|partition| (partition, At::Latest)).collect();
        self.shared.list_offsets(topic, &asked, deadline)
    }

    /// Asks for a sign of life; returns the round trip's time.
    pub fn ping(&self) -> Result<std::time::Duration, Error> {
        let start = Instant::now();
        self.shared.call("ping", Kind::Ping, Effect::Repeatable, |_| {}, |_| Ok(()))?;
        Ok(start.elapsed())
    }

    /// A producer with connections of its own. Opens them when it first needs them.
    pub fn producer(&self, config: ProducerConfig) -> Result<Producer, Error> {
        Producer::new(Arc::clone(&self.shared), config)
    }

    /// A consumer of a queue, with connections of its own. The queue is looked up now.
    pub fn queue_consumer(&self, queue: &str, config: QueueConsumerConfig) -> Result<QueueConsumer, Error> {
        QueueConsumer::new(Arc::clone(&self.shared), queue, config)
    }

    /// A consumer with connections of its own. Opens them when it first needs them.
    pub fn consumer(&self, config: ConsumerConfig) -> Result<Consumer, Error> {
        Consumer::new(Arc::clone(&self.shared), config)
    }

    /// A member of a consumer group, with connections of its own. It joins when it is first polled.
    pub fn group_consumer(&self, config: GroupConfig) -> Result<GroupConsumer, Error> {
        self.group_consumer_with(config, ())
    }

    /// As [`group_consumer`](Self::group_consumer), with callbacks.
    pub fn group_consumer_with(&self, config: GroupConfig, listener: impl GroupListener + 'static) -> Result<GroupConsumer, Error> {
        GroupConsumer::new(Arc::clone(&self.shared), config, Box::new(listener))
    }
}

impl Shared {
    /// Metadata of these topics (all, when empty).
    pub(crate) fn metadata(&self, topics: &[&str]) -> Result<Metadata, Error> {
        self.metadata_until(topics, self.deadline())
    }

    pub(crate) fn metadata_until(&self, topics: &[&str], deadline: Instant) -> Result<Metadata, Error> {
        for topic in topics {
            check_lengths(topic, &[])?;
        }
        let request = MetadataRequest { topics: List::of(topics) };
        let encode = |meta: &mut Vec<u8>| request.encode(meta);
        let metadata =
            self.call_of_cluster(deadline.into(), "get metadata", Kind::Metadata, Effect::Repeatable, &[], encode, |from, meta| {
                Metadata::read(from.cluster_id, meta)
            })?;
        self.learn_nodes(&metadata.nodes);
        Ok(metadata)
    }

    /// Metadata of one topic that has to exist.
    pub(crate) fn topic(&self, name: &str, deadline: Instant) -> Result<TopicMetadata, Error> {
        let metadata = self.metadata_until(&[name], deadline)?;
        existing_topic(&metadata, name).cloned()
    }

    pub(crate) fn list_offsets(&self, topic: &str, asked: &[(u32, At)], deadline: Instant) -> Result<Vec<PartitionOffset>, Error> {
        let what = format!("list offsets of topic {topic:?}");
        let wanted = asked.iter().map(|&(partition, at)| Ok(Wanted { partition, uid: None, asked: wire_at(at)? }));
        let wanted = wanted.collect::<Result<Vec<Wanted<i64>>, Error>>()?;
        let mut found: Vec<PartitionOffset> =
            asked.iter().map(|&(partition, _)| PartitionOffset { partition, offset: 0, timestamp_us: None }).collect();
        self.by_owner(&what, topic, &wanted, PARTITIONS_PER_REQUEST_MAX, deadline, |questions| {
            let queries: Vec<OffsetQuery> = questions.iter().map(|q| OffsetQuery { partition_uid: q.uid, at: q.asked }).collect();
            let request = ListOffsetsRequest { entries: List::of(&queries) };
            let encode = |meta: &mut Vec<u8>| request.encode(meta);
            let answers: Vec<OffsetAnswer> =
                self.call_until(aim(questions, deadline), &what, Kind::ListOffsets, Effect::Repeatable, encode, |meta| {
                    Ok(ListOffsetsReply::decode(meta)?.entries.iter().collect())
                })?;
            for (question, answer) in answered(questions, answers, |answer| answer.partition_uid)? {
                if !answer.error.is_ok() {
                    return Err(refused(&what, question.partition, answer.error, String::new()));
                }
                let found = &mut found[question.place];
                found.offset = answer.offset;
                found.timestamp_us = (answer.timestamp_us != offsets::TIMESTAMP_UNKNOWN).then_some(answer.timestamp_us);
            }
            Ok(())
        })?;
        Ok(found)
    }
}

/// The topic in a metadata reply, or why it is not there.
pub(crate) fn existing_topic<'a>(metadata: &'a Metadata, name: &str) -> Result<&'a TopicMetadata, Error> {
    match metadata.topic(name) {
        Some(topic) if topic.error.is_ok() => Ok(topic),
        Some(topic) => Err(Error::Refused {
            request: format!("look up topic {name:?}"),
            code: topic.error,
            retriable: topic.error.retriable(),
            message: String::new(),
            next: None,
        }),
        None => Err(Error::protocol("the broker", format!("its metadata does not mention topic {name:?}"))),
    }
}

fn wire_at(at: At) -> Result<i64, Error> {
    match at {
        At::Earliest => Ok(offsets::AT_EARLIEST),
        At::Latest => Ok(offsets::AT_LATEST),
        At::Time(us) if us >= 0 => Ok(us),
        At::Time(us) => Err(Error::config(&format!("the time {us} us is before 1970, which cannot be asked for: use Earliest"))),
    }
}

pub(crate) fn wire_settings<'a>(settings: &[(&'a str, &'a str)]) -> Vec<Setting<'a>> {
    settings.iter().map(|&(key, value)| Setting { key, value }).collect()
}

/// Strings travel behind a 16-bit length; the encoder asserts it, so it is checked here.
pub(crate) fn check_lengths(name: &str, settings: &[(&str, &str)]) -> Result<(), Error> {
    let longest = settings.iter().flat_map(|(key, value)| [key.len(), value.len()]).chain([name.len()]).max().unwrap_or(0);
    if longest > tramline_wire::prim::STR_BYTES_MAX {
        return Err(Error::config(&format!("a name or setting of {longest} bytes cannot be sent: at most 65,535")));
    }
    Ok(())
}
