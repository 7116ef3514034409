//! What settings may be: the lowest and the highest value of each, with the reason.
//!
//! A value outside is refused when the client, producer or consumer is made, by a sentence that names setting, range and value. The
//! bounds are wide: they refuse what cannot work, what would be a mistake of units, and what would make arithmetic or memory go
//! wrong further in.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use tramline_wire::batch::Limits;
use tramline_wire::frame::{META_BYTES_MAX, PAYLOAD_BYTES_MAX};

use super::{Config, ConsumerConfig, GroupConfig, ProducerConfig};
use crate::error::Error;

/// More servers to start with than a cluster has nodes are a mistake; each may take a `connect_timeout`.
const SERVERS_MAX: usize = 64;

/// The protocol's own, for names told at hello: it was cut there before, and two clients with one prefix became the same.
const CLIENT_NAME_BYTES_MAX: usize = 255;

/// Below, not even a neighbour's hello is certain to come in time; above, a dead address costs more than anybody waits.
const CONNECT_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(300);

/// Below, one slow flush of a healthy disk costs a connection, with everything that is under way over it.
const REQUEST_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(600);

/// A call is several requests, one after the other. An hour is what the tools take for `--timeout`.
const CALL_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

/// Below, a record can expire before it was ever sent. What no broker took for half a day is not to be held in memory any longer; and
/// brokers forget what they stored (`producer.expiry`, an hour by default), after which nothing can be sent again.
const DELIVERY_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(12 * 3600);

/// A topic's largest batch as topics are created (`batch.max.bytes`: 1 MiB), and the largest meta with it, to all that a frame may have.
const FRAME_BYTES: RangeInclusive<u32> = (1 << 20) + META_BYTES_MAX..=PAYLOAD_BYTES_MAX + META_BYTES_MAX;

/// A minute of waiting for company is a mistake of units: milliseconds for microseconds.
const LINGER_US_MAX: u64 = 60_000_000;

/// Each has a place in the window, and is looked at when time goes by.
const IN_FLIGHT: RangeInclusive<usize> = 1..=1024;

/// More memory than that for what is not sent is a mistake of units.
const BUFFER_BYTES_MAX: u64 = 64 << 30;

/// Seven eighths of the largest payload: the room that a request leaves for its meta.
const REQUEST_BYTES_MAX: u32 = PAYLOAD_BYTES_MAX / 8 * 7;

/// Room for the header, an entry of the index and a key; one that fits into no request could never be sent.
const BATCH_BYTES_LIMIT: RangeInclusive<u32> = 1 << 10..=REQUEST_BYTES_MAX;

/// Four times what brokers accept (16 MiB): what a consumer takes by default.
const VALUES_BYTES_LIMIT: RangeInclusive<u32> = 1 << 10..=64 << 20;

/// Lengths of keys, ids and counts of headers have 16 bits.
const SHORT_LIMIT: RangeInclusive<u32> = 0..=65_535;

/// A batch is sent whole as soon as there is any credit, so the lowest only has to keep grants from being as many as records. Brokers
/// count far less than the highest (`credit.max.bytes`: 64 MiB as they come).
const CREDIT_BYTES: RangeInclusive<u32> = 4 << 10..=1 << 30;

/// A page, below which partitions take turns batch by batch, to the largest payload.
const PARTITION_BYTES: RangeInclusive<u32> = 4 << 10..=PAYLOAD_BYTES_MAX;

/// Less than one small batch cannot be read; more than a gigabyte for one is no maximum.
pub(super) const BATCH_VALUES_BYTES: RangeInclusive<u32> = 1 << 10..=1 << 30;

/// The protocol's own: a home that is asked to drop members sooner drops those that wait for a disk, and one that waits longer waits for nobody.
const SESSION_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// Below, commits are most of what a member does, each of them a flush of a disk; above, a crash repeats more than an hour's work.
const AUTO_COMMIT_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);

/// The protocol's own limits of one member.
const GROUP_TOPICS: RangeInclusive<usize> = 1..=100;
const GROUP_NAME_BYTES: RangeInclusive<usize> = 1..=249;

impl Config {
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.servers.is_empty() {
            return Err(Error::config("no server address: give at least one host:port"));
        }
        within("the number of servers", self.servers.len(), 1..=SERVERS_MAX)?;
        self.servers.iter().try_for_each(|server| check_server(server))?;
        within("client_name's bytes", self.client_name.len(), 0..=CLIENT_NAME_BYTES_MAX)?;
        time_within("connect_timeout", self.connect_timeout, CONNECT_TIMEOUT)?;
        time_within("request_timeout", self.request_timeout, REQUEST_TIMEOUT)?;
        time_within("call_timeout", self.call_timeout, CALL_TIMEOUT)?;
        within("frame_bytes_max", self.frame_bytes_max, FRAME_BYTES)
    }
}

impl ProducerConfig {
    pub(crate) fn check(&self) -> Result<(), Error> {
        check_limits(&self.limits)?;
        within("batch_bytes", self.batch_bytes, 1..=self.limits.batch_bytes_max as usize)?;
        time_within("delivery_timeout", self.delivery_timeout, DELIVERY_TIMEOUT)?;
        // Half, so that a record which waited has as long to be sent.
        let half_us = crate::clock::micros(self.delivery_timeout / 2);
        within("linger_us (at most half of delivery_timeout)", self.linger_us, 0..=LINGER_US_MAX.min(half_us))?;
        within("max_in_flight", self.max_in_flight, IN_FLIGHT)?;
        // One batch, not two: with one it is sent and answered before the next is begun, which is slow and not wrong.
        within("buffer_bytes (at least batch_bytes)", self.buffer_bytes as u64, self.batch_bytes as u64..=BUFFER_BYTES_MAX)?;
        // Not from batch_bytes on: a batch above it has a request of its own, which is what large batches want.
        within("request_bytes", self.request_bytes, 1..=REQUEST_BYTES_MAX as usize)
    }
}

fn check_limits(limits: &Limits) -> Result<(), Error> {
    within("limits.batch_bytes_max", limits.batch_bytes_max, BATCH_BYTES_LIMIT)?;
    within("limits.values_bytes_max", limits.values_bytes_max, VALUES_BYTES_LIMIT)?;
    within("limits.record_bytes_max (below limits.batch_bytes_max)", limits.record_bytes_max, 1..=limits.batch_bytes_max - 1)?;
    within("limits.key_bytes_max", limits.key_bytes_max, SHORT_LIMIT)?;
    within("limits.headers_max", limits.headers_max, SHORT_LIMIT)?;
    within("limits.headers_bytes_max (at most limits.record_bytes_max)", limits.headers_bytes_max, 0..=limits.record_bytes_max)?;
    within("limits.id_bytes_max", limits.id_bytes_max, SHORT_LIMIT)
}

impl ConsumerConfig {
    pub(crate) fn check(&self) -> Result<(), Error> {
        within("credit_bytes", self.credit_bytes, CREDIT_BYTES)?;
        // Above the credit it only has no effect: who lowers the credit alone means it.
        within("partition_bytes_max", self.partition_bytes_max, PARTITION_BYTES)?;
        within("batch_values_bytes_max", self.batch_values_bytes_max, BATCH_VALUES_BYTES)
    }
}

impl GroupConfig {
    pub(crate) fn check(&self) -> Result<(), Error> {
        within("group's bytes", self.group.len(), GROUP_NAME_BYTES)?;
        within("the number of topics", self.topics.len(), GROUP_TOPICS)?;
        self.topics.iter().try_for_each(|topic| within("a topic's bytes", topic.len(), GROUP_NAME_BYTES))?;
        if let Some((place, twice)) = self.topics.iter().enumerate().find(|(place, topic)| self.topics[..*place].contains(topic)) {
            return Err(Error::config(&format!("topic {twice:?} is named twice (at place {place}): name it once")));
        }
        if let Some(instance) = &self.instance_id {
            within("instance_id's bytes", instance.len(), GROUP_NAME_BYTES)?;
        }
        time_within("session_timeout", self.session_timeout, SESSION_TIMEOUT)?;
        time_within("auto_commit_interval", self.auto_commit_interval, AUTO_COMMIT_INTERVAL)?;
        self.consumer.check()
    }
}

fn check_server(server: &str) -> Result<(), Error> {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    match server.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !host.contains(char::is_whitespace) && is_port(port) => Ok(()),
        _ => Err(Error::config(&format!("{server:?} is no server address: give host:port, with a port of 1 to 65535"))),
    }
}

pub(super) fn within<T: PartialOrd + Display>(name: &str, value: T, range: RangeInclusive<T>) -> Result<(), Error> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(Error::config(&format!("{name} must be between {} and {}, it is {value}", range.start(), range.end())))
}

pub(super) fn time_within(name: &str, value: Duration, range: RangeInclusive<Duration>) -> Result<(), Error> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(Error::config(&format!("{name} must be between {:?} and {:?}, it is {value:?}", range.start(), range.end())))
}

#[cfg(test)]
mod tests;
