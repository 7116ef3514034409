//! RabbitMQ over AMQP 0.9.1: quorum queues, and streams. One queue (or stream) per partition, publisher confirms, persistent messages.
//!
//! Streams have a protocol of their own, which batches and is faster at high rates than what is measured here; its Rust client calls itself experimental. The report says
//! so. Streams want a prefetch and acknowledgements from readers, which are flow control there and settle nothing.

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};

use super::acks::Acks;
use super::tail;
use crate::fault::{Fallible, Told, fault};
use crate::kinds::PeerKind;
use crate::peer::{Ack, Consumer, Peer, Producer, Purpose, Queue, Reach};

/// Messages on the way to a reader that are not acknowledged: RabbitMQ's own example for streams has a hundred, which starves one at high rates.
const PREFETCH: u16 = 1_000;
/// What AMQP calls persistent.
const PERSISTENT: u8 = 2;

/// Connected.
pub struct Rabbit {
    connection: Connection,
    channel: Channel,
    kind: PeerKind,
}

/// Publishes to the queues of one topic.
pub struct RabbitProducer {
    channel: Channel,
    queues: Vec<ShortString>,
    acks: Acks,
}

/// Reads one queue or stream.
pub struct RabbitConsumer {
    channel: Channel,
    consumer: lapin::Consumer,
}

/// A queue and its one consumer.
pub struct RabbitQueue {
    channel: Channel,
    name: ShortString,
    consumer: lapin::Consumer,
}

fn name(topic: &str, partition: u32) -> ShortString {
    format!("{topic}-{partition}").into()
}

fn persistent() -> BasicProperties {
    BasicProperties::default().with_delivery_mode(PERSISTENT)
}

impl Rabbit {
    async fn declare(&self, name: ShortString) -> Fallible<()> {
        let kind = if self.kind == PeerKind::RabbitStream { "stream" } else { "quorum" };
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        self.channel.queue_declare(name, QueueDeclareOptions::durable(), arguments).await.told("rabbitmq: declare")?;
        Ok(())
    }

    async fn confirming(&self) -> Fallible<Channel> {
        let channel = self.connection.create_channel().await.told("rabbitmq: channel")?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.told("rabbitmq: confirms")?;
        Ok(channel)
    }

    async fn consuming(&self, queue: ShortString, prefetch: u16) -> Fallible<RabbitConsumer> {
        let channel = self.connection.create_channel().await.told("rabbitmq: channel")?;
        channel.basic_qos(prefetch, BasicQosOptions::default()).await.told("rabbitmq: prefetch")?;
        let mut arguments = FieldTable::default();
        if self.kind == PeerKind::RabbitStream {
            arguments.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
        }
        let consumed = channel.basic_consume(queue, "peers".into(), BasicConsumeOptions::default(), arguments).await;
        Ok(RabbitConsumer { channel, consumer: consumed.told("rabbitmq: consume")? })
    }
}

impl Peer for Rabbit {
    type Producer = RabbitProducer;
    type Consumer = RabbitConsumer;
    type Queue = RabbitQueue;

    async fn connect(reach: &Reach) -> Fallible<Rabbit> {
        let address = format!("amqp://guest:guest@127.0.0.1:{}/%2f", reach.port);
        let connection = Connection::connect(&address, ConnectionProperties::default()).await.told("rabbitmq: connect")?;
        let channel = connection.create_channel().await.told("rabbitmq: channel")?;
        let peer = Rabbit { connection, channel, kind: reach.kind };
        // Its port answers before its plugins are there: only a queue of the right kind says that it is ready.
        peer.declare("probe".into()).await?;
        peer.channel.queue_delete("probe".into(), QueueDeleteOptions::default()).await.told("rabbitmq: delete")?;
        Ok(peer)
    }

    async fn create(&self, topic: &str, partitions: u32) -> Fallible<()> {
        for partition in 0..partitions {
            self.declare(name(topic, partition)).await?;
        }
        Ok(())
    }

    async fn remove(&self, topic: &str, partitions: u32) -> Fallible<()> {
        for partition in 0..partitions {
            self.channel.queue_delete(name(topic, partition), QueueDeleteOptions::default()).await.told("rabbitmq: delete")?;
        }
        Ok(())
    }

    async fn producer(&self, topic: &str, partitions: u32, _: Purpose) -> Fallible<RabbitProducer> {
        let queues = (0..partitions).map(|partition| name(topic, partition)).collect();
        Ok(RabbitProducer { channel: self.confirming().await?, queues, acks: Acks::default() })
    }

    async fn consumer(&self, topic: &str) -> Fallible<RabbitConsumer> {
        self.consuming(name(topic, 0), PREFETCH).await
    }

    async fn queue(&self, queue: &str) -> Fallible<RabbitQueue> {
        let name: ShortString = queue.to_owned().into();
        self.declare(name.clone()).await?;
        let RabbitConsumer { consumer, .. } = self.consuming(name.clone(), 1).await?;
        Ok(RabbitQueue { channel: self.confirming().await?, name, consumer })
    }

    async fn stored(&self, topic: &str, partitions: u32) -> Fallible<Option<u64>> {
        if self.kind == PeerKind::RabbitStream {
            return Ok(None); // its count of messages is an estimate
        }
        let mut sum = 0;
        for partition in 0..partitions {
            let passive = QueueDeclareOptions::durable().passive();
            let queue = self.channel.queue_declare(name(topic, partition), passive, FieldTable::default()).await.told("rabbitmq: count")?;
            sum += u64::from(queue.message_count());
        }
        Ok(Some(sum))
    }
}

async fn publish(channel: &Channel, queue: ShortString, payload: &[u8]) -> Fallible<lapin::PublisherConfirm> {
    channel.basic_publish("".into(), queue, BasicPublishOptions::default(), payload, persistent()).await.told("rabbitmq: publish")
}

fn confirmed(confirmation: lapin::Result<Confirmation>) -> Result<(), String> {
    match confirmation {
        Ok(Confirmation::Ack(None)) => Ok(()),
        Ok(other) => Err(format!("not confirmed: {other:?}")),
        Err(error) => Err(error.to_string()),
    }
}

impl Producer for RabbitProducer {
    async fn send(&mut self, partition: u32, tag: u64, payload: &[u8]) -> Fallible<()> {
        let confirm = publish(&self.channel, self.queues[partition as usize].clone(), payload).await?;
        self.acks.push(tag, async move { confirmed(confirm.await) });
        Ok(())
    }

    async fn acks(&mut self, into: &mut Vec<Ack>) -> Fallible<()> {
        self.acks.take(into).await;
        Ok(())
    }
}

async fn settle(delivery: &Delivery) -> Fallible<()> {
    delivery.acker.ack(BasicAckOptions::default()).await.told("rabbitmq: ack")?;
    Ok(())
}

impl Consumer for RabbitConsumer {
    async fn receive(&mut self, each: &mut dyn FnMut(&[u8])) -> Fallible<()> {
        let mut deliveries = Vec::new();
        tail::take(&mut self.consumer, "rabbitmq: delivery", |delivery| {
            each(&delivery.data);
            deliveries.push(delivery);
        })
        .await?;
        for delivery in &deliveries {
            settle(delivery).await?;
        }
        Ok(())
    }

    /// Who lets it go by dropping it cancels while the queue is deleted, and the answer breaks the connection off.
    async fn end(&mut self) -> Fallible<()> {
        self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default()).await.told("rabbitmq: cancel")
    }
}

impl Queue for RabbitQueue {
    async fn cycle(&mut self, payload: &[u8]) -> Fallible<Vec<u8>> {
        let confirm = publish(&self.channel, self.name.clone(), payload).await?;
        confirmed(confirm.await).told("rabbitmq: publish")?;
        let Some(delivery) = self.consumer.next().await else { return fault("rabbitmq: the consumer was cancelled") };
        let delivery = delivery.told("rabbitmq: delivery")?;
        // AMQP has no answer to an acknowledgement: the cycle ends when it is handed over, which the README says.
        settle(&delivery).await?;
        Ok(delivery.data)
    }
}
