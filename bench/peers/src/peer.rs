//! What every broker under test has to be able to do, and nothing else: topics of some partitions, a producer with acknowledgements, a reader of the
//! tail, a queue's cycle. `adapters/` says how each does it; `load/` drives it without knowing which one it is.
//!
//! Everything runs in one Tokio runtime of one thread, so that no peer's client has more cores than another's. (librdkafka has threads of its own; they
//! share the client's cores.) Futures are therefore not `Send`.

use std::future::Future;

use crate::fault::Fallible;
use crate::kinds::{Class, PeerKind};

/// How a broker that runs is reached and told.
#[derive(Debug, Clone)]
pub struct Reach {
    /// Which one.
    pub kind: PeerKind,
    /// Which durability it was started for.
    pub class: Class,
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// A second port where it has one: RabbitMQ's streams, Kafka's controller.
    pub second_port: u16,
}

/// What a producer is for. The client's settings follow from it, the same idea for every peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Send at once: no lingering.
    Latency,
    /// The client's best batching.
    Throughput,
}

/// The fate of one record.
#[derive(Debug)]
pub struct Ack {
    /// What the sender called it.
    pub tag: u64,
    /// Why it is not stored, or not known to be.
    pub error: Option<String>,
}

/// Sends records into one topic.
pub trait Producer {
    /// Takes a record; waits while the client has no room.
    fn send(&mut self, partition: u32, tag: u64, payload: &[u8]) -> impl Future<Output = Fallible<()>>;
    /// Waits until something is acknowledged, and adds all that is there. Dropping the future loses nothing. Waits for ever when nothing is under way.
    fn acks(&mut self, into: &mut Vec<Ack>) -> impl Future<Output = Fallible<()>>;
}

/// Reads partition 0 of a topic from its beginning.
pub trait Consumer {
    /// Waits until there is something, and hands all of it over.
    fn receive(&mut self, each: &mut dyn FnMut(&[u8])) -> impl Future<Output = Fallible<()>>;
    /// Ends it, before the topic is removed; for clients that have to be told.
    fn end(&mut self) -> impl Future<Output = Fallible<()>> {
        std::future::ready(Ok(()))
    }
}

/// A queue with one message in it at a time.
pub trait Queue {
    /// Sends and waits for the acknowledgement, receives, acknowledges and waits until that is known to be done. Returns what was received.
    fn cycle(&mut self, payload: &[u8]) -> impl Future<Output = Fallible<Vec<u8>>>;
}

/// A broker that runs.
pub trait Peer: Sized {
    /// Its producer.
    type Producer: Producer;
    /// Its reader.
    type Consumer: Consumer;
    /// Its queue.
    type Queue: Queue;

    /// Connects. Fails as long as the broker is not ready.
    fn connect(reach: &Reach) -> impl Future<Output = Fallible<Self>>;
    /// Makes a topic that can take records when this returns.
    fn create(&self, topic: &str, partitions: u32) -> impl Future<Output = Fallible<()>>;
    /// Removes it.
    fn remove(&self, topic: &str, partitions: u32) -> impl Future<Output = Fallible<()>>;
    /// A producer for it.
    fn producer(&self, topic: &str, partitions: u32, purpose: Purpose) -> impl Future<Output = Fallible<Self::Producer>>;
    /// A reader of partition 0.
    fn consumer(&self, topic: &str) -> impl Future<Output = Fallible<Self::Consumer>>;
    /// A queue of that name, made for the purpose; the sentence why there is none where there is none.
    fn queue(&self, name: &str) -> impl Future<Output = Fallible<Self::Queue>>;
    /// Records that the broker says it has, where it can be asked.
    fn stored(&self, topic: &str, partitions: u32) -> impl Future<Output = Fallible<Option<u64>>>;
}

/// Of a peer that has no queue: there is no value of it.
pub enum NoQueue {}

impl Queue for NoQueue {
    async fn cycle(&mut self, _: &[u8]) -> Fallible<Vec<u8>> {
        match *self {}
    }
}
