//! Tramline through its own client, in the runtime that all clients share (its busy-polling transport, which is faster, has no equal among the peers and is not used).

use std::time::Duration;

use tramline_client::asynchronous as tokio_client;
use tramline_client::{At, Config, ConsumerConfig, Level, ProducerConfig, QueueConsumerConfig, Record, Start};

use crate::fault::{Fallible, Told, fault};
use crate::kinds::Class;
use crate::peer::{Ack, Consumer, Peer, Producer, Purpose, Queue, Reach};

/// Connected.
pub struct Tramline {
    client: tokio_client::Client,
    class: Class,
}

/// A producer for one topic.
pub struct TramlineProducer {
    producer: tokio_client::Producer,
    topic: String,
}

/// A reader.
pub struct TramlineConsumer(tokio_client::Consumer);

/// A queue and what is sent into its topic.
pub struct TramlineQueue {
    sender: TramlineProducer,
    receiver: tokio_client::QueueConsumer,
}

fn settings(class: Class, purpose: Purpose) -> ProducerConfig {
    let level = if class == Class::Synced { Level::Durable } else { Level::Leader };
    let config = ProducerConfig { level, ..ProducerConfig::default() };
    match purpose {
        Purpose::Latency => config,
        // The largest batch that a topic takes as it comes is 1 MiB.
        Purpose::Throughput => ProducerConfig { batch_bytes: 512 << 10, request_bytes: 4 << 20, buffer_bytes: 128 << 20, ..config },
    }
}

impl Tramline {
    fn made(&self, topic: &str, purpose: Purpose) -> Fallible<TramlineProducer> {
        let producer = self.client.producer(settings(self.class, purpose)).told("tramline: producer")?;
        Ok(TramlineProducer { producer, topic: topic.to_owned() })
    }
}

impl Peer for Tramline {
    type Producer = TramlineProducer;
    type Consumer = TramlineConsumer;
    type Queue = TramlineQueue;

    async fn connect(reach: &Reach) -> Fallible<Tramline> {
        let config = Config { client_name: "peers".to_owned(), ..Config::new(&format!("127.0.0.1:{}", reach.port)) };
        let client = tokio_client::Client::connect(config).await.told("tramline: connect")?;
        Ok(Tramline { client, class: reach.class })
    }

    async fn create(&self, topic: &str, partitions: u32) -> Fallible<()> {
        let (topic, class) = (topic.to_owned(), self.class);
        let settings: &[(&str, &str)] = if class == Class::Memory { &[("visible.at", "leader")] } else { &[] };
        self.client.run(move |client| client.create_topic(&topic, partitions, settings, false)).await.told("tramline: create topic")?;
        Ok(())
    }

    async fn remove(&self, topic: &str, _: u32) -> Fallible<()> {
        let topic = topic.to_owned();
        self.client.run(move |client| client.delete_topic(&topic)).await.told("tramline: delete topic")
    }

    async fn producer(&self, topic: &str, _: u32, purpose: Purpose) -> Fallible<TramlineProducer> {
        let mut made = self.made(topic, purpose)?;
        made.producer.partitions(topic).await.told("tramline: look up topic")?;
        Ok(made)
    }

    async fn consumer(&self, topic: &str) -> Fallible<TramlineConsumer> {
        let mut consumer = self.client.consumer(ConsumerConfig::default()).told("tramline: consumer")?;
        consumer.assign(topic, 0, Start::Earliest).await.told("tramline: assign")?;
        Ok(TramlineConsumer(consumer))
    }

    async fn queue(&self, name: &str) -> Fallible<TramlineQueue> {
        let owned = name.to_owned();
        let make = move |client: &tramline_client::Client| {
            client.create_topic(&owned, 1, &[], false)?;
            client.create_queue(&owned, &owned, At::Earliest, &[], false)
        };
        self.client.run(make).await.told("tramline: create queue")?;
        let config = QueueConsumerConfig { wait: Duration::from_secs(5), ..QueueConsumerConfig::default() };
        let receiver = self.client.queue_consumer(name, config).await.told("tramline: queue consumer")?;
        Ok(TramlineQueue { sender: self.made(name, Purpose::Latency)?, receiver })
    }

    async fn stored(&self, topic: &str, _: u32) -> Fallible<Option<u64>> {
        let topic = topic.to_owned();
        let ends = self.client.run(move |client| client.end_offsets(&topic)).await.told("tramline: end offsets")?;
        Ok(Some(ends.iter().map(|end| end.offset).sum()))
    }
}

impl Producer for TramlineProducer {
    async fn send(&mut self, partition: u32, tag: u64, payload: &[u8]) -> Fallible<()> {
        let record = Record { topic: &self.topic, partition: Some(partition), value: Some(payload), tag, ..Record::default() };
        self.producer.send(&record).await.told("tramline: send")
    }

    async fn acks(&mut self, into: &mut Vec<Ack>) -> Fallible<()> {
        if self.producer.drive().await == 0 {
            return std::future::pending().await; // nothing is under way
        }
        self.producer.drain(|delivery| into.push(Ack { tag: delivery.tag, error: delivery.error.map(ToString::to_string) }));
        Ok(())
    }
}

impl Consumer for TramlineConsumer {
    async fn receive(&mut self, each: &mut dyn FnMut(&[u8])) -> Fallible<()> {
        self.0.poll(|record| each(record.value.unwrap_or_default())).await.told("tramline: poll")?;
        Ok(())
    }
}

impl Queue for TramlineQueue {
    async fn cycle(&mut self, payload: &[u8]) -> Fallible<Vec<u8>> {
        self.sender.send(0, 0, payload).await?;
        let mut fates = Vec::new();
        self.sender.acks(&mut fates).await?;
        if let Some(error) = fates.into_iter().find_map(|ack| ack.error) {
            return fault(format!("tramline: send to queue: {error}"));
        }
        let received = self.receiver.receive(1, Duration::from_secs(5)).await.told("tramline: receive")?;
        let Some(message) = received.into_iter().next() else { return fault("tramline: nothing came out of the queue in 5 s") };
        self.receiver.ack(message.token).await.told("tramline: ack")?;
        Ok(message.value.unwrap_or_default())
    }
}
