//! The native client of Tramline: produce and consume without a runtime, a thread or an async executor of its own.
//!
//! ```no_run
//! use std::time::Duration;
//! use tramline_client::{Client, Config, ConsumerConfig, ProducerConfig, Record, Start};
//!
//! let client = Client::connect(Config::new("127.0.0.1:7410"))?;
//! client.create_topic("greetings", 4, &[], true)?;
//!
//! let mut producer = client.producer(ProducerConfig::default())?;
//! producer.send(&Record { topic: "greetings", key: Some(b"en"), value: Some(b"hello"), ..Record::default() })?;
//! producer.flush(Duration::from_secs(5))?;
//! producer.drain(|delivery| println!("offset {:?}, level {}, error {:?}", delivery.offset, delivery.level, delivery.error));
//!
//! let mut consumer = client.consumer(ConsumerConfig::default())?;
//! consumer.assign_all("greetings", Start::Earliest)?;
//! consumer.poll(Duration::from_secs(5), |record| println!("{}: {:?}", record.offset, record.value))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `examples/` has small programs to start from (`produce`, `consume`, `stream_group`, `group_once`, `queue_jobs`, `atomic_step`, `busy_poll`, `tokio`); they find the broker through
//! `TRAMLINE_SERVER`.
//!
//! # How it works
//!
//! Everything happens on the caller's thread, inside the calls: nothing moves between two calls of
//! [`Producer::poll`] or [`Consumer::poll`]. A [`Client`] has one connection for administration; every producer and every
//! consumer has connections of its own, one per owner (node and shard) it talks to, straight to the port of that shard.
//! [`Client`] is `Sync`; producers and consumers are `Send`, and belong to one thread at a time.
//!
//! With the feature `tokio` there is the same for a Tokio runtime: the module `asynchronous`.
//!
//! For the lowest latency set [`Config::busy_poll`]: the calls then spin on non-blocking sockets instead of sleeping in
//! poll(2).
//!
//! # What a producer promises
//!
//! Every record that [`Producer::send`] took ends in exactly one [`Delivery`]: acknowledged with its offset, or failed with an
//! error. An acknowledgement means what was asked for with [`ProducerConfig::level`]:
//!
//! | level | acknowledged means | does not survive |
//! |---|---|---|
//! | [`Level::None`] | handed to the operating system; no offset, no errors | anything |
//! | [`Level::Leader`] | in the leader's memory | the leader's process or machine going down |
//! | [`Level::LeaderDurable`] | on the leader's stable storage | the loss of that disk, or another node taking over that does not have them yet |
//! | [`Level::Replicated`] | received by a majority of the replicas | a power failure of that majority at once |
//! | [`Level::Durable`] (default) | on stable storage at a majority of the replicas | the loss of that majority's disks |
//!
//! On a single node `Replicated` is `Leader` and `Durable` is `LeaderDurable`. [`Producer::durable_end`] tells when records
//! with a weaker acknowledgement have become durable.
//!
//! **Order.** Within a partition, records are appended in the order of `send`. A refusal that may pass (overloaded, not ready,
//! not the leader, not known yet, disk full, shutting down) is retried in order until `delivery_timeout` is over. Between
//! partitions there is no order.
//!
//! **Once.** A producer is idempotent unless [`ProducerConfig::idempotent`] says otherwise: what got no answer (a lost connection,
//! a silent or restarted broker) is sent again with the number it had, the broker knows what it has, and no record is stored
//! twice. A record that has no answer when its `delivery_timeout` is over fails: with [`Error::OutcomeUnknown`] if it may be stored
//! all the same (it is then stored once, before everything sent later), with any other error if it is not. A caller that sends such a record
//! again may double it. This holds for one producer's life: a process that starts anew is another producer.
//!
//! **Without idempotence**, and at level `none`, a record whose request may have arrived fails with [`Error::OutcomeUnknown`] and is
//! not sent again; and a refused record fails when later ones of its partition were accepted, instead of being put behind them.
//!
//! # What a consumer promises
//!
//! Records of a partition come in order of offset, each at most once per position, committed ones only (unless the topic says
//! otherwise with `visible.at`). Checksums are verified ([`ConsumerConfig::verify_checksums`]); what does not match is told
//! ([`Error::Corrupt`]) and never handed out. Broken connections and moved partitions are dealt with inside; positions live
//! in the consumer, so where to start again after a restart is the caller's to remember. Offsets may have gaps.
//!
//! # What a member of a group promises
//!
//! [`GroupConsumer`]: the members of a consumer group share the partitions of its topics. A partition has one member at a time, one that goes to another is given up in good
//! order while all others are read on, and where to go on is remembered by the partition itself. Its page has the recipes for *at least once* and *at most once*.
//!
//! # What a queue's consumer promises
//!
//! [`QueueConsumer::receive`] leases messages: each is this consumer's until its lease is over, and comes back (to whomever) unless it was settled by then. So a message is
//! delivered at least once; [`Message::deliveries`] tells how often. [`QueueConsumer::ack`] and the others return when the settlement is on stable storage. A lease belongs to its
//! [`LeaseToken`], not to the connection: another process can settle it. Nothing is leased ahead of the caller; what a queue's several owners
//! have to give at the same time is handed out by the next call, or given back.
//!
//! # Partitions of keys
//!
//! [`key_partition`]: FNV-1a, 64 bits, folded, modulo the number of partitions. The same in every client.
//!
//! # Code map
//!
//! `core/` decides and does no I/O; `transport/` moves bytes; `pump` is a turn of the two, `producer`, `consumer` and `group_consumer` turn and wait;
//! `queue_consumer` and `pump::queue` are the same for a queue's leases;
//! `steps` carries out atomic steps; `client`, `assign`, `trim`, `groups`, `queues` are administration (`owners` sorts their questions, `everywhere` asks several nodes), `raw` is one bare connection. The protocol itself is the crate [`wire`], re-exported.

#![forbid(unsafe_code)]

mod admin;
mod assign;
#[cfg(feature = "tokio")]
pub mod asynchronous;
mod client;
mod clock;
mod cluster;
mod config;
mod consumer;
mod core;
mod error;
mod everywhere;
#[cfg(test)]
mod facade_tests;
#[cfg(test)]
mod fake;
mod group_consumer;
mod group_listener;
mod groups;
mod link;
#[doc(hidden)]
pub mod measure;
mod message;
mod metrics;
#[cfg(test)]
mod node_tests;
mod owners;
mod pages;
mod partitioner;
mod producer;
mod pump;
mod queue_consumer;
#[cfg(test)]
mod queue_tests;
mod queue_types;
mod queues;
mod raw;
mod route;
mod steps;
mod transport;
mod trim;
mod types;

pub use tramline_wire as wire;
pub use tramline_wire::batch::Attributes;
pub use tramline_wire::codec::Codec;
pub use tramline_wire::error::ErrorCode;
pub use tramline_wire::group::Assignor;
pub use tramline_wire::level::Level;
pub use tramline_wire::queue::{BrowseState, MessageState};

pub use crate::client::Client;
pub use crate::cluster::{ClusterDescription, ClusterGroup, ClusterNode, ClusterSurvey, NodeState};
pub use crate::config::{BROKER_LIMITS, Config, ConsumerConfig, GroupConfig, OffsetReset, ProducerConfig, QueueConsumerConfig};
pub use crate::consumer::Consumer;
pub use crate::core::consumer::RecordView;
pub use crate::core::producer::Delivery;
pub use crate::error::{Error, SendError};
pub use crate::everywhere::SilentNode;
pub use crate::group_consumer::GroupConsumer;
pub use crate::group_listener::{Commit, CommitOutcome, GroupListener, Revoked, TopicPartition};
pub use crate::groups::{GroupDescription, GroupProgress, GroupSummary, MemberDescription};
pub use crate::link::HelloInfo;
pub use crate::message::{LeaseToken, Message, MessageAttributes, Settle, deliver_after};
pub use crate::metrics::{ConsumerMetrics, ProducerMetrics, QueueConsumerMetrics};
pub use crate::partitioner::{Partitioner, fnv1a_64, key_partition};
pub use crate::producer::{Producer, Record};
pub use crate::queue_consumer::QueueConsumer;
pub use crate::queue_types::{
    BrowsedPage, CreatedQueue, FoundQueue, MessageDescription, QueueDescription, QueuePartitionDescription, QueueSummary,
};
pub use crate::raw::RawConn;
pub use crate::steps::{Step, Steps};
pub use crate::types::*;
