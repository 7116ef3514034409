//! Redis Streams: one stream per partition (XADD, XREAD), a consumer group for the queue (XREADGROUP, XACK).
//!
//! One multiplexed connection carries all commands; the client pipelines what is there, which is Redis's way of batching. XACK leaves an entry in its
//! stream, so the cycle deletes it as well (XDEL in the same pipeline), as a queue's user has to.

use redis::aio::MultiplexedConnection;
use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{AsyncCommands, AsyncConnectionConfig, Client, Cmd};

use super::acks::Acks;
use crate::fault::{Fallible, Fault, Told, fault};
use crate::peer::{Ack, Consumer, Peer, Producer, Purpose, Queue, Reach};

/// Entries that one read brings at most.
const READ_COUNT: usize = 1000;
/// How long a read of the tail waits: shorter than the patience of whoever drops it, since a read that is given up still blocks its connection.
const TAIL_BLOCK_MS: usize = 100;
/// How long a receive waits for a message.
const BLOCK_MS: usize = 5_000;
/// Commands that the client writes at once: without more than its default of 50 it would be the limit, not the server.
const PIPELINE_COMMANDS: usize = 1024;

/// Connected.
pub struct Redis {
    client: Client,
    connection: MultiplexedConnection,
}

/// Appends to the streams of one topic.
pub struct RedisProducer {
    connection: MultiplexedConnection,
    keys: Vec<String>,
    acks: Acks,
}

/// Reads one stream.
pub struct RedisConsumer {
    connection: MultiplexedConnection,
    key: String,
    last_id: String,
}

/// A stream with one group.
pub struct RedisQueue {
    connection: MultiplexedConnection,
    key: String,
}

fn key(topic: &str, partition: u32) -> String {
    format!("{topic}:{partition}")
}

impl Redis {
    async fn another(&self) -> Fallible<MultiplexedConnection> {
        // A blocking read waits longer than the client's default patience for an answer.
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(PIPELINE_COMMANDS);
        self.client.get_multiplexed_async_connection_with_config(&config).await.told("redis: connect")
    }
}

impl Peer for Redis {
    type Producer = RedisProducer;
    type Consumer = RedisConsumer;
    type Queue = RedisQueue;

    async fn connect(reach: &Reach) -> Fallible<Redis> {
        let client = Client::open(format!("redis://127.0.0.1:{}/", reach.port)).told("redis: address")?;
        let mut connection = client.get_multiplexed_async_connection().await.told("redis: connect")?;
        let _: String = redis::cmd("PING").query_async(&mut connection).await.told("redis: ping")?;
        Ok(Redis { client, connection })
    }

    async fn create(&self, _: &str, _: u32) -> Fallible<()> {
        Ok(()) // the first entry makes the stream
    }

    async fn remove(&self, topic: &str, partitions: u32) -> Fallible<()> {
        let keys: Vec<String> = (0..partitions).map(|partition| key(topic, partition)).collect();
        let _: u64 = self.connection.clone().unlink(keys).await.told("redis: unlink")?;
        Ok(())
    }

    async fn producer(&self, topic: &str, partitions: u32, _: Purpose) -> Fallible<RedisProducer> {
        let keys = (0..partitions).map(|partition| key(topic, partition)).collect();
        Ok(RedisProducer { connection: self.another().await?, keys, acks: Acks::default() })
    }

    async fn consumer(&self, topic: &str) -> Fallible<RedisConsumer> {
        Ok(RedisConsumer { connection: self.another().await?, key: key(topic, 0), last_id: "0".to_owned() })
    }

    async fn queue(&self, name: &str) -> Fallible<RedisQueue> {
        let mut connection = self.another().await?;
        let _: () = connection.xgroup_create_mkstream(name, "workers", "$").await.told("redis: create group")?;
        Ok(RedisQueue { connection, key: name.to_owned() })
    }

    async fn stored(&self, topic: &str, partitions: u32) -> Fallible<Option<u64>> {
        let mut lengths = redis::pipe();
        for partition in 0..partitions {
            lengths.xlen(key(topic, partition));
        }
        let lengths: Vec<u64> = lengths.query_async(&mut self.connection.clone()).await.told("redis: xlen")?;
        Ok(Some(lengths.iter().sum()))
    }
}

impl Producer for RedisProducer {
    async fn send(&mut self, partition: u32, tag: u64, payload: &[u8]) -> Fallible<()> {
        let command = Cmd::xadd(&self.keys[partition as usize], "*", &[("v", payload)]);
        let mut connection = self.connection.clone();
        // Commands go into the client's channel when their futures are first polled. Tokio's budget would turn one of them away in the middle, and the next would
        // overtake it (seen: a reader got record 609 before 608).
        let fate = tokio::task::unconstrained(async move { command.exec_async(&mut connection).await.map_err(|error| error.to_string()) });
        self.acks.push(tag, fate);
        Ok(())
    }

    async fn acks(&mut self, into: &mut Vec<Ack>) -> Fallible<()> {
        self.acks.take(into).await;
        Ok(())
    }
}

impl Consumer for RedisConsumer {
    async fn receive(&mut self, each: &mut dyn FnMut(&[u8])) -> Fallible<()> {
        let options = StreamReadOptions::default().block(TAIL_BLOCK_MS).count(READ_COUNT);
        let reply: Option<StreamReadReply> =
            self.connection.xread_options(&[&self.key], &[&self.last_id], &options).await.told("redis: xread")?;
        for entry in reply.into_iter().flat_map(|reply| reply.keys).flat_map(|stream| stream.ids) {
            let value: Vec<u8> = entry.get("v").ok_or_else(|| Fault("redis: an entry without its field".to_owned()))?;
            each(&value);
            self.last_id = entry.id;
        }
        Ok(())
    }
}

impl Queue for RedisQueue {
    async fn cycle(&mut self, payload: &[u8]) -> Fallible<Vec<u8>> {
        let _: String = self.connection.xadd(&self.key, "*", &[("v", payload)]).await.told("redis: xadd")?;
        let options = StreamReadOptions::default().group("workers", "one").block(BLOCK_MS).count(1);
        let reply: Option<StreamReadReply> =
            self.connection.xread_options(&[&self.key], &[">"], &options).await.told("redis: xreadgroup")?;
        let entry = reply.into_iter().flat_map(|reply| reply.keys).flat_map(|stream| stream.ids).next();
        let Some(entry) = entry else { return fault("redis: nothing came out of the queue in 5 s") };
        let value = entry.get("v").ok_or_else(|| Fault("redis: an entry without its field".to_owned()))?;
        let mut settle = redis::pipe();
        settle.xack(&self.key, "workers", &[&entry.id]).xdel(&self.key, &[&entry.id]);
        let (acked, _): (u64, u64) = settle.query_async(&mut self.connection).await.told("redis: xack")?;
        if acked == 1 { Ok(value) } else { fault(format!("redis: XACK acknowledged {acked} entries instead of one")) }
    }
}
