//! The queue consumer's twin: turns inside of its futures, waits by returning `Pending`.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{TURNS_PER_POLL, Timer, asked};
use crate::admin::Shared;
use crate::clock::micros;
use crate::config::{QueueConsumerConfig, check_count, check_wait};
use crate::core::Now;
use crate::core::queue::QueueCore;
use crate::error::Error;
use crate::message::{LeaseToken, Message, Settle};
use crate::metrics::QueueConsumerMetrics;
use crate::pump::queue::QueuePump;
use crate::queue_consumer::open;
use crate::queue_types::FoundQueue;
use crate::transport::AsyncSocket;

/// Leases messages of a queue and settles them; the same guarantees as [`crate::QueueConsumer`].
///
/// A future of [`receive`](Self::receive) that is dropped loses nothing: what its request leases is handed out by the next call, or given back. One of [`settle`](Self::settle) that is
/// dropped may have been carried out, and goes on with the next call.
#[derive(Debug)]
pub struct QueueConsumer {
    pump: QueuePump<AsyncSocket>,
    timer: Timer,
    call_timeout: Duration,
}

impl QueueConsumer {
    pub(super) async fn new(shared: Arc<Shared>, queue: &str, config: QueueConsumerConfig) -> Result<QueueConsumer, Error> {
        let name = queue.to_string();
        let (core, clock) = asked(&shared, move |shared| open(shared, &name, config)).await?;
        let pump = QueuePump::new(core, &shared.config, clock);
        Ok(QueueConsumer { pump, timer: Timer::default(), call_timeout: shared.config.call_timeout })
    }

    /// The queue, as it was when this was made.
    pub fn queue(&self) -> &FoundQueue {
        self.pump.core.queue()
    }

    /// [`receive`](Self::receive) with what the configuration says.
    pub async fn poll(&mut self) -> Result<Vec<Message>, Error> {
        let QueueConsumerConfig { max_messages, wait, .. } = *self.pump.core.config();
        self.receive(max_messages, wait).await
    }

    /// As [`crate::QueueConsumer::receive`].
    pub async fn receive(&mut self, max_messages: u32, wait: Duration) -> Result<Vec<Message>, Error> {
        check_count(max_messages)?;
        check_wait(wait)?;
        let now = self.pump.clock.now();
        self.pump.core.begin_receive(max_messages, micros(wait), now);
        let received = poll_fn(|context| {
            // When the wait is over is one of the core's own steps.
            self.turn_until(context, u64::MAX, |core, now, is_quiet| {
                if let Some(error) = core.take_error() {
                    return Some(Err(error));
                }
                let messages = core.take_messages(now);
                let is_over = !messages.is_empty() || is_quiet && core.is_receive_over(now);
                is_over.then_some(Ok(messages))
            })
        })
        .await;
        self.pump.core.end_receive();
        received
    }

    /// As [`crate::QueueConsumer::ack`].
    pub async fn ack(&mut self, token: LeaseToken) -> Result<(), Error> {
        self.settle_one(token, Settle::Ack).await
    }

    /// As [`crate::QueueConsumer::nack`].
    pub async fn nack(&mut self, token: LeaseToken, delay: Option<Duration>, reason: &str) -> Result<(), Error> {
        self.settle_one(token, Settle::Nack { delay, reason: reason.to_string() }).await
    }

    /// As [`crate::QueueConsumer::extend`].
    pub async fn extend(&mut self, token: LeaseToken, length: Duration) -> Result<(), Error> {
        self.settle_one(token, Settle::Extend(length)).await
    }

    /// As [`crate::QueueConsumer::release`].
    pub async fn release(&mut self, token: LeaseToken) -> Result<(), Error> {
        self.settle_one(token, Settle::Release).await
    }

    /// As [`crate::QueueConsumer::reject`].
    pub async fn reject(&mut self, token: LeaseToken, reason: &str) -> Result<(), Error> {
        self.settle_one(token, Settle::Reject { reason: reason.to_string() }).await
    }

    /// As [`crate::QueueConsumer::ack_all`].
    pub async fn ack_all(&mut self, tokens: &[LeaseToken]) -> Result<Vec<Result<(), Error>>, Error> {
        let settlements: Vec<_> = tokens.iter().map(|token| (*token, Settle::Ack)).collect();
        self.settle(&settlements).await
    }

    /// As [`crate::QueueConsumer::settle`].
    pub async fn settle(&mut self, settlements: &[(LeaseToken, Settle)]) -> Result<Vec<Result<(), Error>>, Error> {
        let start = self.pump.clock.now();
        self.pump.core.begin_settle(settlements, start)?;
        let until_us = start.mono_us.saturating_add(micros(self.call_timeout));
        self.turn_by(until_us, QueueCore::is_settled).await;
        Ok(self.pump.core.take_results(self.call_timeout, None))
    }

    async fn settle_one(&mut self, token: LeaseToken, settle: Settle) -> Result<(), Error> {
        self.settle(&[(token, settle)]).await?.pop().unwrap_or_else(|| Err(Error::config("a settlement without a result")))
    }

    /// As [`crate::QueueConsumer::close`].
    pub async fn close(mut self, timeout: Duration) -> Result<(), Error> {
        self.pump.core.end_receive();
        let until_us = self.pump.clock.now().mono_us.saturating_add(micros(timeout));
        self.turn_by(until_us, QueueCore::give_back_and_is_done).await;
        match self.pump.core.give_back_and_is_done() {
            true => Ok(()),
            false => Err(Error::Timeout { doing: "closing the queue's consumer".to_string(), after: timeout, last: None }),
        }
    }

    /// What it has done so far.
    pub fn metrics(&self) -> QueueConsumerMetrics {
        self.pump.core.metrics
    }

    /// Turns until that is so, or the time is over.
    async fn turn_by(&mut self, until_us: u64, is_done: impl Fn(&mut QueueCore) -> bool) {
        poll_fn(|context| self.turn_until(context, until_us, |core, now, _| (is_done(core) || now.mono_us >= until_us).then_some(())))
            .await;
    }

    /// Turns until `done` says something; it is told whether the last turn moved nothing, and asked again at `until_us` at the latest.
    fn turn_until<R>(
        &mut self,
        context: &mut Context<'_>,
        until_us: u64,
        mut done: impl FnMut(&mut QueueCore, Now, bool) -> Option<R>,
    ) -> Poll<R> {
        self.set_wakers(context);
        let mut is_quiet = false;
        for _ in 0..TURNS_PER_POLL {
            let now = self.pump.clock.now();
            if let Some(result) = done(&mut self.pump.core, now, is_quiet) {
                return Poll::Ready(result);
            }
            let moved = self.pump.turn(now);
            self.set_wakers(context);
            if moved || self.pump.driver.take_opened() {
                is_quiet = false;
                continue;
            }
            if !is_quiet {
                is_quiet = true;
                continue; // asked once more, now that nothing moves
            }
            let now = self.pump.clock.now();
            let next_us = self.pump.next_step_us(now).min(until_us);
            let after = Duration::from_micros(next_us.saturating_sub(now.mono_us));
            if !self.timer.is_over(after, context) {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn set_wakers(&mut self, context: &Context<'_>) {
        self.pump.driver.sockets().for_each(|socket| socket.set_waker(context.waker()));
    }
}
