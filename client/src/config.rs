//! Settings of the client, the producer and the consumer, with units, defaults and the reason of each number.
//!
//! Plain structs with public fields and a `Default`; `..Default::default()` keeps callers short. Checked once, when the
//! client, producer or consumer is made: `bounds` has the ranges with their reasons, `group` the settings of members of groups, `queue` those of a queue's consumer.

mod bounds;
mod group;
mod queue;

use std::time::Duration;

use tramline_wire::batch::Limits;
use tramline_wire::codec::Codec;
use tramline_wire::level::Level;

use crate::partitioner::Partitioner;

pub use group::{GroupConfig, OffsetReset};
pub use queue::QueueConsumerConfig;
pub(crate) use queue::{check_count, check_wait};

/// Settings of a [`Client`](crate::Client), inherited by its producers and consumers.
#[derive(Debug, Clone)]
pub struct Config {
    /// Addresses to learn the cluster from, `host:port`; the first that answers is used. The nodes that it names are asked as well from then on, so
    /// any of them may be down. 1 to 64.
    pub servers: Vec<String>,
    /// Name told to the broker at hello (it shows in the broker's logs and connection lists). At most 255 bytes.
    pub client_name: String,
    /// Longest wait for one TCP connection and its hello: 10 ms to 5 min. Default 5 s.
    pub connect_timeout: Duration,
    /// How long a producer's or consumer's request may go unanswered before its connection is given up; what it carried is then sent again, within
    /// [`ProducerConfig::delivery_timeout`]. Default 5 s, some ten times the worst flush of a healthy disk: shorter takes slowness for death, longer
    /// keeps records waiting for a node that is gone without a word. An administrative request that may be repeated goes to another node after so
    /// long, if there is one. 100 ms to 10 min.
    pub request_timeout: Duration,
    /// Longest time for one call with all its retries: administration, looking up a topic; and after so long a consumer tells what keeps it from
    /// reading. Default 30 s; 100 ms to 1 h.
    pub call_timeout: Duration,
    /// Spin on non-blocking sockets instead of sleeping in poll(2): saves some 60 us per round trip and costs a core.
    pub busy_poll: bool,
    /// While spinning, `sched_yield` after each empty poll (0.3 us). Leave it on unless the core is isolated: a thread that
    /// never yields on the core that took the disk's interrupt holds the kernel's flush worker back until the next tick,
    /// and a durable ack then takes 4 ms instead of 0.1 ms.
    pub yield_when_empty: bool,
    /// Largest frame accepted from a broker (header excluded). Bounds the receive buffer of every connection. Has to hold the largest
    /// batch of the topics that are read: 2 MiB, which is enough for topics as they come, to 17 MiB, the default, which is all that the
    /// protocol allows.
    pub frame_bytes_max: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            servers: vec!["127.0.0.1:7410".to_string()],
            client_name: "tramline-client".to_string(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(30),
            busy_poll: false,
            yield_when_empty: true,
            frame_bytes_max: 17 << 20, // the protocol's largest meta and payload together
        }
    }
}

impl Config {
    /// Defaults with these servers: one address, or several separated by commas.
    pub fn new(servers: &str) -> Config {
        let servers = servers.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_string).collect();
        Config { servers, ..Config::default() }
    }

    /// Defaults with the servers named by `TRAMLINE_SERVER`, or `127.0.0.1:7410`.
    pub fn from_env() -> Config {
        match std::env::var("TRAMLINE_SERVER") {
            Ok(servers) if !servers.trim().is_empty() => Config::new(&servers),
            _ => Config::default(),
        }
    }
}

/// What a broker accepts of records and batches with its settings as they come.
pub const BROKER_LIMITS: Limits = Limits {
    batch_bytes_max: 1_048_576, // a topic's batch.max.bytes as it is created by default; the node's is 4 MiB
    values_bytes_max: 16 << 20,
    record_bytes_max: 1_000_000, // record.max.bytes, the same
    key_bytes_max: 4 << 10,
    headers_max: 64,
    headers_bytes_max: 64 << 10,
    id_bytes_max: 256,
};

/// Settings of a [`Producer`](crate::Producer).
#[derive(Debug, Clone)]
pub struct ProducerConfig {
    /// What an acknowledgement has to mean. See the crate's page for what each level promises.
    pub level: Level,
    /// Store each record once, however often it has to be sent: batches carry an id and numbers, by which the broker knows those that it has. Without it, and
    /// at level `none`, a record whose answer was lost, or says that it may be stored (`leadership_lost`, `timed_out`), fails with [`Error::OutcomeUnknown`] and is not sent again.
    pub idempotent: bool,
    /// How long a record may take from `send` to its fate, attempts and waits included. At most half of the node's `producer.expiry`, for as long as it
    /// remembers what it stored; a producer that asks for more is told so with its first records. 10 ms to 12 h.
    pub delivery_timeout: Duration,
    /// A batch closes when it holds this many bytes (before compression). A larger record travels alone. 1 to `limits.batch_bytes_max`.
    pub batch_bytes: usize,
    /// How long a batch may wait for more records once the window has room. 0: it goes out at the next
    /// [`poll`](crate::Producer::poll); batches still grow by themselves while the window is full. At most half of
    /// `delivery_timeout`, and 60 s.
    pub linger_us: u64,
    /// Requests sent and unanswered per connection (one connection per owner, that is per node and shard). Of one partition an idempotent producer has
    /// five batches under way at most, whatever this says: the broker remembers as many. 1 to 1,024.
    pub max_in_flight: usize,
    /// Compression of values and headers, per batch.
    pub compression: Codec,
    /// Bytes of records held by the producer: open, waiting and in flight. When reached, `send` waits. `batch_bytes` to 64 GiB; below
    /// some three batches it is one at a time.
    pub buffer_bytes: usize,
    /// Most bytes of batches in one request, which may carry batches of several partitions of one shard. Bounded by the
    /// broker's frame limit as well. 1 to 14 MiB; a batch above it travels alone.
    pub request_bytes: usize,
    /// How the partition is chosen for records that name none.
    pub partitioner: Partitioner,
    /// The broker's limits on records and batches (its defaults are the default here, see [`BROKER_LIMITS`]). A record above them is refused by
    /// `send`, so that it does not take its batch down with it. Raise them together with the broker's settings.
    pub limits: Limits,
}

impl Default for ProducerConfig {
    fn default() -> ProducerConfig {
        ProducerConfig {
            level: Level::Durable,
            idempotent: true,
            delivery_timeout: Duration::from_secs(30),
            batch_bytes: 64 * 1024,
            linger_us: 0,
            max_in_flight: 5,
            compression: Codec::None,
            buffer_bytes: 32 << 20,
            request_bytes: 1 << 20,
            partitioner: Partitioner::Hash,
            limits: BROKER_LIMITS,
        }
    }
}

/// Settings of a [`Consumer`](crate::Consumer).
#[derive(Debug, Clone)]
pub struct ConsumerConfig {
    /// Bytes of batches the broker may send ahead of what was consumed, per connection. More is granted when half is used. 4 KiB to 1 GiB.
    pub credit_bytes: u32,
    /// Most bytes of one partition in one reply, from where on the others have their turn: 4 KiB to 16 MiB.
    pub partition_bytes_max: u32,
    /// Check the crc32c of every batch's header and body (about 45 us per MiB).
    pub verify_checksums: bool,
    /// Largest uncompressed size accepted for one batch's values. A batch that declares more is refused before anything is
    /// allocated for it. 1 KiB to 1 GiB.
    pub batch_values_bytes_max: u32,
}

impl Default for ConsumerConfig {
    fn default() -> ConsumerConfig {
        ConsumerConfig { credit_bytes: 1 << 20, partition_bytes_max: 128 * 1024, verify_checksums: true, batch_values_bytes_max: 64 << 20 }
    }
}
