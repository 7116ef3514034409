//! NATS JetStream: one JetStream stream with file storage per partition (that is what has an order and a log of its own there), a durable pull consumer with
//! explicit acknowledgements for the queue.

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, ReplayPolicy};
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::stream::{Config, StorageType};
use async_nats::jetstream::{Context, consumer};
use futures_util::StreamExt;
use std::time::Duration;

use super::acks::Acks;
use super::tail;
use crate::fault::{Fallible, Told, fault};
use crate::peer::{Ack, Consumer, Peer, Producer, Purpose, Queue, Reach};

/// How long an acknowledgement may take; then it counts as failed.
const ACK_PATIENCE: Duration = Duration::from_secs(30);
/// Publishes without an answer that the client allows; more than any window used here.
const IN_FLIGHT_MAX: usize = 200_000;

/// Connected.
pub struct Nats {
    context: Context,
}

/// Publishes to the subjects of one topic.
pub struct NatsProducer {
    context: Context,
    subjects: Vec<async_nats::Subject>,
    acks: Acks,
}

/// Reads one stream.
pub struct NatsConsumer(pull::Stream);

/// A stream and its durable consumer.
pub struct NatsQueue {
    context: Context,
    subject: String,
    messages: pull::Stream,
}

fn name(topic: &str, partition: u32) -> String {
    format!("{topic}-{partition}")
}

impl Nats {
    async fn make(&self, name: &str) -> Fallible<()> {
        let config = Config { name: name.to_owned(), subjects: vec![name.to_owned()], storage: StorageType::File, ..Config::default() };
        self.context.create_stream(config).await.told("nats: create stream")?;
        Ok(())
    }
}

impl Peer for Nats {
    type Producer = NatsProducer;
    type Consumer = NatsConsumer;
    type Queue = NatsQueue;

    async fn connect(reach: &Reach) -> Fallible<Nats> {
        let client = async_nats::connect(format!("127.0.0.1:{}", reach.port)).await.told("nats: connect")?;
        // Whether JetStream answers, in whatever words: the client does not understand what a server of Debian 12 says of an account.
        client.request("$JS.API.INFO", Default::default()).await.told("nats: JetStream")?;
        let context = ContextBuilder::new().timeout(ACK_PATIENCE).ack_timeout(ACK_PATIENCE).max_ack_inflight(IN_FLIGHT_MAX).build(client);
        Ok(Nats { context })
    }

    async fn create(&self, topic: &str, partitions: u32) -> Fallible<()> {
        for partition in 0..partitions {
            self.make(&name(topic, partition)).await?;
        }
        Ok(())
    }

    async fn remove(&self, topic: &str, partitions: u32) -> Fallible<()> {
        for partition in 0..partitions {
            self.context.delete_stream(name(topic, partition)).await.told("nats: delete stream")?;
        }
        Ok(())
    }

    async fn producer(&self, topic: &str, partitions: u32, _: Purpose) -> Fallible<NatsProducer> {
        let subjects = (0..partitions).map(|partition| async_nats::Subject::from(name(topic, partition))).collect();
        Ok(NatsProducer { context: self.context.clone(), subjects, acks: Acks::default() })
    }

    async fn consumer(&self, topic: &str) -> Fallible<NatsConsumer> {
        let stream = self.context.get_stream(name(topic, 0)).await.told("nats: find stream")?;
        let config = pull::Config {
            ack_policy: AckPolicy::None,
            deliver_policy: DeliverPolicy::All,
            replay_policy: ReplayPolicy::Instant,
            ..pull::Config::default()
        };
        let reader: consumer::PullConsumer = stream.create_consumer(config).await.told("nats: consumer")?;
        Ok(NatsConsumer(reader.messages().await.told("nats: messages")?))
    }

    async fn queue(&self, queue: &str) -> Fallible<NatsQueue> {
        self.make(queue).await?;
        let stream = self.context.get_stream(queue).await.told("nats: find stream")?;
        let config = pull::Config { durable_name: Some("workers".to_owned()), ack_policy: AckPolicy::Explicit, ..pull::Config::default() };
        let reader: consumer::PullConsumer = stream.create_consumer(config).await.told("nats: durable consumer")?;
        let messages = reader.messages().await.told("nats: messages")?;
        Ok(NatsQueue { context: self.context.clone(), subject: queue.to_owned(), messages })
    }

    async fn stored(&self, topic: &str, partitions: u32) -> Fallible<Option<u64>> {
        let mut sum = 0;
        for partition in 0..partitions {
            sum += self.context.get_stream(name(topic, partition)).await.told("nats: stream info")?.cached_info().state.messages;
        }
        Ok(Some(sum))
    }
}

impl Producer for NatsProducer {
    async fn send(&mut self, partition: u32, tag: u64, payload: &[u8]) -> Fallible<()> {
        let subject = self.subjects[partition as usize].clone();
        let acknowledged = self.context.publish(subject, payload.to_vec().into()).await.told("nats: publish")?;
        self.acks.push(tag, async move { acknowledged.await.map(drop).map_err(|error| error.to_string()) });
        Ok(())
    }

    async fn acks(&mut self, into: &mut Vec<Ack>) -> Fallible<()> {
        self.acks.take(into).await;
        Ok(())
    }
}

impl Consumer for NatsConsumer {
    async fn receive(&mut self, each: &mut dyn FnMut(&[u8])) -> Fallible<()> {
        tail::take(&mut self.0, "nats: message", |message| each(&message.payload)).await
    }
}

impl Queue for NatsQueue {
    async fn cycle(&mut self, payload: &[u8]) -> Fallible<Vec<u8>> {
        let sent = self.context.publish(self.subject.clone(), payload.to_vec().into()).await.told("nats: publish")?;
        sent.await.told("nats: publish")?;
        let Some(message) = self.messages.next().await else { return fault("nats: the stream of messages ended") };
        let message = message.told("nats: message")?;
        // The confirmed acknowledgement: the plain one may be lost.
        message.double_ack().await.map_err(|error| crate::fault::Fault(format!("nats: ack: {error}")))?;
        Ok(message.payload.to_vec())
    }
}
