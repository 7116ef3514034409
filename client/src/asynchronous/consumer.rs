//! The consumer's twin: turns inside of `poll`, waits by returning `Pending`.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{TURNS_PER_POLL, Timer, asked};
use crate::admin::Shared;
use crate::config::ConsumerConfig;
use crate::core::consumer::RecordView;
use crate::error::Error;
use crate::metrics::ConsumerMetrics;
use crate::pump::ConsumerPump;
use crate::transport::AsyncSocket;
use crate::types::Start;

/// Reads records of partitions it was told to read; the same guarantees as [`crate::Consumer`].
#[derive(Debug)]
pub struct Consumer {
    shared: Arc<Shared>,
    pump: ConsumerPump<AsyncSocket>,
    timer: Timer,
}

impl Consumer {
    pub(super) fn new(shared: Arc<Shared>, config: ConsumerConfig) -> Result<Consumer, Error> {
        let pump = ConsumerPump::new(&shared, config)?;
        Ok(Consumer { shared, pump, timer: Timer::default() })
    }

    /// Reads a partition from `start` on; a seek if it is being read already.
    pub async fn assign(&mut self, topic: &str, partition: u32, start: Start) -> Result<(), Error> {
        self.assign_some(topic, Some(vec![partition]), start).await.map(|_| ())
    }

    /// Reads all partitions the topic has now; returns their number.
    pub async fn assign_all(&mut self, topic: &str, start: Start) -> Result<u32, Error> {
        self.assign_some(topic, None, start).await
    }

    async fn assign_some(&mut self, topic: &str, partitions: Option<Vec<u32>>, start: Start) -> Result<u32, Error> {
        let name = topic.to_string();
        let assignment = asked(&self.shared, move |shared| shared.assignment(&name, partitions.as_deref(), start)).await?;
        Ok(assignment.give_to(&mut self.pump.core))
    }

    /// Goes on reading a partition elsewhere; also starts one that stopped with an error again.
    pub async fn seek(&mut self, topic: &str, partition: u32, start: Start) -> Result<(), Error> {
        self.assign(topic, partition, start).await
    }

    /// Stops reading a partition; returns whether it was being read.
    pub fn unassign(&mut self, topic: &str, partition: u32) -> bool {
        self.pump.core.unassign(topic, partition)
    }

    /// As [`crate::Consumer::pause`].
    pub fn pause(&mut self, topic: &str, partition: u32) -> bool {
        self.pump.core.set_paused(topic, partition, true).unwrap_or(false)
    }

    /// As [`crate::Consumer::resume`].
    pub fn resume(&mut self, topic: &str, partition: u32) -> bool {
        self.pump.core.set_paused(topic, partition, false).unwrap_or(false)
    }

    /// Hands out records that have arrived; waits for the first, for as long as it takes. Returns how many. Errors as of [`crate::Consumer::poll`].
    pub async fn poll(&mut self, mut each: impl FnMut(&RecordView<'_>)) -> Result<usize, Error> {
        self.poll_until(|record| {
            each(record);
            ControlFlow::Continue(())
        })
        .await
    }

    /// As [`poll`](Self::poll), but stops after the record for which `each` says `Break`; the next poll goes on after it.
    pub async fn poll_until(&mut self, mut each: impl FnMut(&RecordView<'_>) -> ControlFlow<()>) -> Result<usize, Error> {
        poll_fn(|context| self.poll_records(context, &mut each)).await
    }

    fn poll_records(
        &mut self,
        context: &mut Context<'_>,
        each: &mut impl FnMut(&RecordView<'_>) -> ControlFlow<()>,
    ) -> Poll<Result<usize, Error>> {
        self.set_wakers(context);
        for _ in 0..TURNS_PER_POLL {
            if let Some(error) = self.pump.core.take_error() {
                return Poll::Ready(Err(error));
            }
            let now = self.pump.clock.now();
            let (delivered, moved) = self.pump.turn(now, each);
            self.set_wakers(context);
            if delivered.records > 0 {
                return Poll::Ready(Ok(delivered.records));
            }
            if moved || self.pump.driver.take_opened() || self.pump.core.has_error() {
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

    /// As [`crate::Consumer::read_to_end`], for as long as it takes.
    pub async fn read_to_end(&mut self, mut each: impl FnMut(&RecordView<'_>)) -> Result<usize, Error> {
        let mut ends = self.end_offsets().await?;
        let mut count = 0;
        loop {
            self.pump.leave_unreached(&mut ends);
            if ends.is_empty() {
                return Ok(count);
            }
            count += self.poll(&mut each).await?;
        }
    }

    /// As [`crate::Consumer::end_offsets`].
    pub async fn end_offsets(&self) -> Result<Vec<(String, u32, u64)>, Error> {
        let assigned = self.pump.core.assigned().map(|(topic, partition)| (topic.to_string(), partition)).collect();
        asked(&self.shared, move |shared| shared.ends_of(assigned)).await
    }

    /// The offset that is handed out next in a partition being read.
    pub fn position(&self, topic: &str, partition: u32) -> Option<u64> {
        self.pump.core.position(topic, partition)
    }

    /// As [`crate::Consumer::committed_end`].
    pub fn committed_end(&self, topic: &str, partition: u32) -> Option<u64> {
        self.pump.core.committed_end(topic, partition)
    }

    /// What it has done so far.
    pub fn metrics(&self) -> ConsumerMetrics {
        self.pump.core.metrics
    }

    fn set_wakers(&mut self, context: &Context<'_>) {
        self.pump.driver.sockets().for_each(|socket| socket.set_waker(context.waker()));
    }
}
