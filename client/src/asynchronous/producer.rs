//! The producer's twin: turns inside of `poll`, waits by returning `Pending`.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::{TURNS_PER_POLL, Timer, asked};
use crate::admin::Shared;
use crate::client::existing_topic;
use crate::config::ProducerConfig;
use crate::core::producer::Delivery;
use crate::error::{Error, SendError};
use crate::metrics::ProducerMetrics;
use crate::producer::Record;
use crate::pump::ProducerPump;
use crate::transport::AsyncSocket;

/// Sends records; the same guarantees as [`crate::Producer`]. Nothing moves between two awaits: keep [`drive`](Self::drive) running (in a `select!`) while
/// records are outstanding.
#[derive(Debug)]
pub struct Producer {
    shared: Arc<Shared>,
    pump: ProducerPump<AsyncSocket>,
    timer: Timer,
}

impl Producer {
    pub(super) fn new(shared: Arc<Shared>, config: ProducerConfig) -> Result<Producer, Error> {
        let pump = ProducerPump::new(&shared, config)?;
        Ok(Producer { shared, pump, timer: Timer::default() })
    }

    /// Copies a record into the open batch of its partition; waits for room when the buffer is full. Dropped while it waits, the record is not taken.
    pub async fn send(&mut self, record: &Record<'_>) -> Result<(), SendError> {
        let topic = self.look_up(record.topic).await?;
        match self.pump.offer(topic, record) {
            Err(SendError::BufferFull { .. }) => {}
            result => return result,
        }
        poll_fn(|context| {
            self.pump.core.flush(); // whatever is open has to go out, else nothing may ever make room
            self.turn_until(context, |pump| match pump.offer(topic, record) {
                Err(SendError::BufferFull { .. }) => None,
                result => Some(result),
            })
        })
        .await
    }

    /// As [`send`](Self::send), but refuses with [`SendError::BufferFull`] instead of waiting, and records of a topic that was not looked up yet
    /// ([`partitions`](Self::partitions)).
    pub fn try_send(&mut self, record: &Record<'_>) -> Result<(), SendError> {
        let Some(topic) = self.pump.core.topic(record.topic) else {
            return Err(SendError::Client(Error::config(&format!(
                "topic {:?} is not looked up yet: await send or partitions",
                record.topic
            ))));
        };
        // The task that drives is woken by its own wakers, which the sockets keep.
        self.pump.offer(topic, record)
    }

    async fn look_up(&mut self, topic: &str) -> Result<u32, Error> {
        if let Some(found) = self.pump.core.topic(topic) {
            return Ok(found);
        }
        let name = topic.to_string();
        let metadata = asked(&self.shared, move |shared| {
            let mut metadata = shared.metadata(&[&name])?;
            existing_topic(&metadata, &name)?;
            metadata.keep_topics(&[&name]);
            Ok(metadata)
        })
        .await?;
        let now = self.pump.clock.now();
        self.pump.core.learn(&metadata, now);
        let older = || Error::protocol("the broker", format!("its view of topic {topic:?} is older than one seen before"));
        self.pump.core.topic(topic).ok_or_else(older)
    }

    /// Sends what is due and receives acknowledgements until a delivery waits in [`drain`](Self::drain) or nothing is outstanding; returns how many wait.
    pub async fn drive(&mut self) -> usize {
        poll_fn(|context| {
            self.turn_until(context, |pump| {
                let waiting = pump.core.deliveries_waiting();
                (waiting > 0 || pump.core.records_outstanding() == 0).then_some(waiting)
            })
        })
        .await
    }

    /// Sends everything that was taken, whatever the linger, and waits until the fate of each record is known. Each is known before long: when its
    /// `delivery_timeout` is over at the latest.
    pub async fn flush(&mut self) {
        poll_fn(|context| {
            self.pump.core.flush();
            self.turn_until(context, |pump| (pump.core.records_outstanding() == 0).then_some(()))
        })
        .await;
    }

    /// As [`crate::Producer::drain`].
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

    /// As [`crate::Producer::durable_end`].
    pub fn durable_end(&self, topic: &str, partition: u32) -> Option<u64> {
        self.pump.core.durable_end(topic, partition)
    }

    /// As [`crate::Producer::trouble`].
    pub fn trouble(&self) -> Option<&Error> {
        self.pump.core.trouble()
    }

    /// What it has done so far.
    pub fn metrics(&self) -> ProducerMetrics {
        self.pump.core.metrics
    }

    /// As [`crate::Producer::started`].
    pub fn started(&self) -> Instant {
        self.pump.clock.origin()
    }

    /// The number of partitions of a topic, looked up when it is not known.
    pub async fn partitions(&mut self, topic: &str) -> Result<u32, Error> {
        let found = self.look_up(topic).await?;
        Ok(self.pump.core.partitions(found))
    }

    fn set_wakers(&mut self, context: &Context<'_>) {
        self.pump.driver.sockets().for_each(|socket| socket.set_waker(context.waker()));
    }

    /// Turns until `done` says so, until nothing moves and nothing is due, or for as long as one poll may take; woken in time for the
    /// next turn.
    fn turn_until<R>(&mut self, context: &mut Context<'_>, mut done: impl FnMut(&mut ProducerPump<AsyncSocket>) -> Option<R>) -> Poll<R> {
        self.set_wakers(context);
        for _ in 0..TURNS_PER_POLL {
            let now = self.pump.clock.now();
            let moved = self.pump.turn(now);
            self.set_wakers(context); // sockets that were opened on the way have none
            if let Some(result) = done(&mut self.pump) {
                return Poll::Ready(result);
            }
            if moved || self.pump.driver.take_opened() {
                continue;
            }
            let now = self.pump.clock.now();
            let after = Duration::from_micros(self.pump.next_step_us(now).saturating_sub(now.mono_us));
            if !self.timer.is_over(after, context) {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
