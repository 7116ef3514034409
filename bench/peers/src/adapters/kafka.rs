//! Apache Kafka through librdkafka, which most programs outside of the JVM use: a topic of so many partitions, acks=all.
//!
//! librdkafka's own threads share the client's cores. Not here: a queue (share groups are not generally available in this version).

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};

use super::acks::Acks;
use super::tail;
use crate::fault::{Fallible, Fault, Told, fault};
use crate::peer::{Ack, Consumer, NoQueue, Peer, Producer, Purpose, Reach};

/// How long one question may take.
const ASK_PATIENCE: Duration = Duration::from_secs(30);

/// Connected.
pub struct Kafka {
    address: String,
    admin: AdminClient<DefaultClientContext>,
    /// For questions about offsets.
    asker: StreamConsumer,
}

/// Produces into one topic.
pub struct KafkaProducer {
    producer: FutureProducer,
    topic: String,
    acks: Acks,
}

/// Reads one partition.
pub struct KafkaConsumer(StreamConsumer);

fn config(address: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("broker.address.family", "v4");
    config
}

fn reader(address: &str) -> Fallible<StreamConsumer> {
    let mut config = config(address);
    config.set("group.id", "peers").set("enable.auto.commit", "false");
    config.create().told("kafka: consumer")
}

impl Peer for Kafka {
    type Producer = KafkaProducer;
    type Consumer = KafkaConsumer;
    type Queue = NoQueue;

    async fn connect(reach: &Reach) -> Fallible<Kafka> {
        let address = format!("127.0.0.1:{}", reach.port);
        let admin = config(&address).create().told("kafka: admin")?;
        let asker = reader(&address)?;
        let metadata = asker.fetch_metadata(None, Duration::from_secs(5)).told("kafka: metadata")?;
        if metadata.brokers().is_empty() {
            return fault("kafka: no broker is registered yet");
        }
        Ok(Kafka { address, admin, asker })
    }

    async fn create(&self, topic: &str, partitions: u32) -> Fallible<()> {
        let new = NewTopic::new(topic, partitions as i32, TopicReplication::Fixed(1));
        let options = AdminOptions::new().operation_timeout(Some(ASK_PATIENCE)).request_timeout(Some(ASK_PATIENCE));
        let results = self.admin.create_topics(&[new], &options).await.told("kafka: create topic")?;
        results.into_iter().find_map(Result::err).map_or(Ok(()), |(_, code)| fault(format!("kafka: create topic: {code}")))?;
        // Created is not led yet: a partition without a leader would be measured as a slow one.
        let since = std::time::Instant::now();
        loop {
            let metadata = self.asker.fetch_metadata(Some(topic), ASK_PATIENCE).told("kafka: metadata")?;
            let led = metadata.topics().iter().flat_map(|it| it.partitions()).filter(|it| it.leader() >= 0 && it.error().is_none()).count();
            if led == partitions as usize {
                return Ok(());
            }
            if since.elapsed() > ASK_PATIENCE {
                return fault(format!("kafka: {led} of {partitions} partitions have a leader after {} s", ASK_PATIENCE.as_secs()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn remove(&self, topic: &str, _: u32) -> Fallible<()> {
        let options = AdminOptions::new().operation_timeout(Some(ASK_PATIENCE));
        let results = self.admin.delete_topics(&[topic], &options).await.told("kafka: delete topic")?;
        results.into_iter().find_map(Result::err).map_or(Ok(()), |(_, code)| fault(format!("kafka: delete topic: {code}")))
    }

    async fn producer(&self, topic: &str, _: u32, purpose: Purpose) -> Fallible<KafkaProducer> {
        let mut config = config(&self.address);
        config.set("acks", "all").set("queue.buffering.max.kbytes", "262144");
        match purpose {
            Purpose::Latency => config.set("linger.ms", "0"),
            // The largest batch that a broker takes with its defaults is a little more than 1 MB.
            Purpose::Throughput => config.set("linger.ms", "5").set("batch.size", "1000000"),
        };
        let producer: FutureProducer = config.create().told("kafka: producer")?;
        Ok(KafkaProducer { producer, topic: topic.to_owned(), acks: Acks::default() })
    }

    async fn consumer(&self, topic: &str) -> Fallible<KafkaConsumer> {
        let consumer = reader(&self.address)?;
        let mut assigned = TopicPartitionList::new();
        assigned.add_partition_offset(topic, 0, Offset::Beginning).told("kafka: offset")?;
        consumer.assign(&assigned).told("kafka: assign")?;
        Ok(KafkaConsumer(consumer))
    }

    async fn queue(&self, _: &str) -> Fallible<NoQueue> {
        fault("kafka: no queue in this version")
    }

    async fn stored(&self, topic: &str, partitions: u32) -> Fallible<Option<u64>> {
        let mut sum = 0;
        for partition in 0..partitions {
            let (low, high) = self.asker.fetch_watermarks(topic, partition as i32, ASK_PATIENCE).told("kafka: offsets")?;
            sum += u64::try_from(high - low).map_err(|_| Fault(format!("kafka: offsets {low} to {high}")))?;
        }
        Ok(Some(sum))
    }
}

impl Producer for KafkaProducer {
    async fn send(&mut self, partition: u32, tag: u64, payload: &[u8]) -> Fallible<()> {
        let record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(&self.topic).partition(partition as i32).payload(payload);
        let fate = self.producer.send_result(record).map_err(|(error, _)| error).told("kafka: send")?;
        self.acks.push(tag, async move {
            match fate.await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err((error, _))) => Err(error.to_string()),
                Err(_) => Err("the producer went away".to_owned()),
            }
        });
        Ok(())
    }

    async fn acks(&mut self, into: &mut Vec<Ack>) -> Fallible<()> {
        self.acks.take(into).await;
        Ok(())
    }
}

impl Consumer for KafkaConsumer {
    async fn receive(&mut self, each: &mut dyn FnMut(&[u8])) -> Fallible<()> {
        tail::take(&mut self.0.stream(), "kafka: message", |message| each(message.payload().unwrap_or_default())).await
    }
}
