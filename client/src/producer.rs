//! The producer: turns (`crate::pump`) and waits.
//!
//! Single-threaded by design: all I/O happens inside [`Producer::send`] (when a batch closes or the buffer is full),
//! [`Producer::poll`] and [`Producer::flush`], on the caller's thread. What blocks besides their timeouts: the first record of
//! a topic, which is looked up at once, and the system's resolver where a broker's address is a name.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tramline_wire::batch::Attributes;

use crate::admin::Shared;
use crate::client::existing_topic;
use crate::clock::micros;
use crate::config::ProducerConfig;
use crate::core::Now;
use crate::core::producer::Delivery;
use crate::error::{Error, SendError};
use crate::link::wait_mode;
use crate::metrics::ProducerMetrics;
use crate::pump::ProducerPump;
use crate::transport::{Socket, WaitMode};

/// A record to send. Everything is borrowed and copied into the batch.
///
/// ```
/// use tramline_client::Record;
/// let record = Record { topic: "flights", key: Some(b"N14228"), value: Some(b"EWR,IAH"), tag: 7, ..Record::default() };
/// assert_eq!(record.partition, None);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Record<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Partition; `None` lets the [`Partitioner`](crate::Partitioner) choose.
    pub partition: Option<u32>,
    /// Key.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers: name and value.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// Create time, UTC microseconds; `None`: now.
    pub timestamp_us: Option<i64>,
    /// What queues look at: not before when, priority, time to live, message group, message id. See [`deliver_after`](crate::deliver_after).
    pub attributes: Attributes<'a>,
    /// Comes back with the delivery; the producer does not look at it.
    pub tag: u64,
}

/// Sends records. Made by [`Client::producer`](crate::Client::producer); see the crate's page for its guarantees.
///
/// ```no_run
/// use std::time::Duration;
/// use tramline_client::{Client, Config, ProducerConfig, Record};
///
/// let client = Client::connect(Config::from_env())?;
/// let mut producer = client.producer(ProducerConfig::default())?;
/// for number in 0..1000u64 {
///     let value = number.to_string();
///     producer.send(&Record { topic: "numbers", value: Some(value.as_bytes()), tag: number, ..Record::default() })?;
/// }
/// producer.flush(Duration::from_secs(30))?;
/// let mut failed = 0;
/// producer.drain(|delivery| failed += u32::from(delivery.error.is_some()));
/// assert_eq!(failed, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Dropping a producer drops what it holds: call [`flush`](Self::flush) first.
#[derive(Debug)]
pub struct Producer {
    shared: Arc<Shared>,
    pump: ProducerPump<Socket>,
    mode: WaitMode,
    delivery_timeout: Duration,
}

impl Producer {
    pub(crate) fn new(shared: Arc<Shared>, config: ProducerConfig) -> Result<Producer, Error> {
        let delivery_timeout = config.delivery_timeout;
        let pump = ProducerPump::new(&shared, config)?;
        let mode = wait_mode(&shared.config);
        Ok(Producer { shared, pump, mode, delivery_timeout })
    }

    /// Copies a record into the open batch of its partition. When the buffer is full, waits for acknowledgements, at most
    /// `delivery_timeout`. An error means that this record was not taken; what was taken before is not touched.
    #[inline]
    pub fn send(&mut self, record: &Record<'_>) -> Result<(), SendError> {
        match self.offer(record) {
            Err(SendError::BufferFull { .. }) => self.send_when_there_is_room(record),
            result => result,
        }
    }

    /// As [`send`](Self::send), but refuses with [`SendError::BufferFull`] instead of waiting.
    #[inline]
    pub fn try_send(&mut self, record: &Record<'_>) -> Result<(), SendError> {
        match self.offer(record) {
            Err(SendError::BufferFull { .. }) => {
                let now = self.pump.clock.now();
                self.pump.turn(now);
                self.offer(record)
            }
            result => result,
        }
    }

    #[inline]
    fn offer(&mut self, record: &Record<'_>) -> Result<(), SendError> {
        let topic = match self.pump.core.topic(record.topic) {
            Some(topic) => topic,
            None => self.look_up(record.topic)?,
        };
        self.pump.offer(topic, record)
    }

    #[cold]
    fn send_when_there_is_room(&mut self, record: &Record<'_>) -> Result<(), SendError> {
        let deadline = Instant::now() + self.delivery_timeout;
        loop {
            // Whatever is open has to go out, else nothing may ever make room.
            self.pump.core.flush();
            let now = self.pump.clock.now();
            let progress = self.pump.turn(now);
            match self.offer(record) {
                Err(SendError::BufferFull { held_bytes }) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(SendError::BufferFull { held_bytes });
                    }
                    if !progress {
                        self.wait(left, now)?;
                    }
                }
                result => return result,
            }
        }
    }

    #[cold]
    fn look_up(&mut self, topic: &str) -> Result<u32, SendError> {
        let mut metadata = self.shared.metadata(&[topic])?;
        existing_topic(&metadata, topic)?;
        metadata.keep_topics(&[topic]);
        let now = self.pump.clock.now();
        self.pump.core.learn(&metadata, now);
        match self.pump.core.topic(topic) {
            Some(found) => Ok(found),
            None => {
                Err(SendError::Client(Error::protocol("the broker", format!("its view of topic {topic:?} is older than one seen before"))))
            }
        }
    }

    /// Sends what is due, receives acknowledgements, and returns the number of deliveries that wait in
    /// [`drain`](Self::drain). Waits for the first of them, at most `timeout`; does not wait when nothing is outstanding.
    /// Call it often: nothing moves between calls.
    pub fn poll(&mut self, timeout: Duration) -> Result<usize, Error> {
        let mut deadline = None;
        loop {
            let now = self.pump.clock.now();
            self.pump.turn(now);
            if self.pump.core.deliveries_waiting() > 0 || self.pump.core.records_outstanding() == 0 || timeout.is_zero() {
                return Ok(self.pump.core.deliveries_waiting());
            }
            let deadline_us = *deadline.get_or_insert_with(|| now.mono_us.saturating_add(micros(timeout)));
            if now.mono_us >= deadline_us {
                return Ok(0);
            }
            self.wait(Duration::from_micros(deadline_us - now.mono_us), now)?;
        }
    }

    /// Sends everything that was taken, whatever the linger, and waits until the fate of each record is known. The deliveries
    /// (acknowledged or failed) then wait in [`drain`](Self::drain).
    pub fn flush(&mut self, timeout: Duration) -> Result<(), Error> {
        let start = self.pump.clock.now();
        let deadline_us = start.mono_us.saturating_add(micros(timeout));
        loop {
            let now = self.pump.clock.now();
            self.pump.core.flush();
            let progress = self.pump.turn(now);
            if self.pump.core.records_outstanding() == 0 {
                return Ok(());
            }
            if now.mono_us >= deadline_us {
                let doing = format!("flushing: {} records are not acknowledged", self.pump.core.records_outstanding());
                return Err(Error::Timeout { doing, after: timeout, last: None });
            }
            if !progress {
                self.wait(Duration::from_micros(deadline_us - now.mono_us), now)?;
            }
        }
    }

    /// Hands out the fate of records, in the order it became known; per partition that is the order they were sent in, as long
    /// as none failed. Drain regularly: results are kept until then (8 bytes per record).
    #[inline]
    pub fn drain(&mut self, each: impl FnMut(Delivery<'_>)) {
        self.pump.core.drain(each);
    }

    /// Records taken whose fate is not known yet.
    pub fn outstanding(&self) -> usize {
        self.pump.core.records_outstanding()
    }

    /// Bytes held: open, waiting and in flight.
    pub fn held_bytes(&self) -> usize {
        self.pump.core.held_bytes()
    }

    /// The offset below which everything in a partition is durable, as of the newest answer: tells when a weaker
    /// acknowledgement has become a strong one. `None` until an answer told it.
    pub fn durable_end(&self, topic: &str, partition: u32) -> Option<u64> {
        self.pump.core.durable_end(topic, partition)
    }

    /// What keeps it from delivering just now: the last refusal or failure to reach a broker that was not mended since. `None` while all is well, and while
    /// no record waits. Records do not fail before their `delivery_timeout` is over, so this is how to notice earlier that a broker is gone.
    pub fn trouble(&self) -> Option<&Error> {
        self.pump.core.trouble()
    }

    /// What it has done so far.
    pub fn metrics(&self) -> ProducerMetrics {
        self.pump.core.metrics
    }

    /// The time from which [`Delivery::first_sent_us`] is counted.
    pub fn started(&self) -> Instant {
        self.pump.clock.origin()
    }

    /// The number of partitions of a topic, as the producer knows it.
    pub fn partitions(&mut self, topic: &str) -> Result<u32, Error> {
        let found = match self.pump.core.topic(topic) {
            Some(found) => found,
            None => self.look_up(topic).map_err(|error| match error {
                SendError::Client(error) => error,
                other => Error::InvalidRecord { message: other.to_string() },
            })?,
        };
        Ok(self.pump.core.partitions(found))
    }

    /// As if nothing had come for long.
    #[cfg(test)]
    pub(crate) fn forget_when_received(&mut self) {
        self.pump.clock.skip_ahead(crate::pump::SILENCE_US * 2);
    }

    fn wait(&mut self, timeout: Duration, now: Now) -> Result<(), Error> {
        let step_us = self.pump.next_step_us(now).saturating_sub(now.mono_us);
        let ProducerPump { core, links, driver, .. } = &mut self.pump;
        driver.wait(self.mode, timeout.min(Duration::from_micros(step_us)), links, core)
    }
}
