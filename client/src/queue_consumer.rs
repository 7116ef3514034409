//! The consumer of a queue: turns (`crate::pump::queue`) and waits.
//!
//! Single-threaded by design: all I/O happens inside its calls, on the caller's thread.

use std::sync::Arc;
use std::time::Duration;

use crate::admin::Shared;
use crate::clock::{Clock, micros};
use crate::config::{QueueConsumerConfig, check_count, check_wait};
use crate::core::Now;
use crate::core::queue::QueueCore;
use crate::error::Error;
use crate::link::wait_mode;
use crate::message::{LeaseToken, Message, Settle};
use crate::metrics::QueueConsumerMetrics;
use crate::pump::queue::QueuePump;
use crate::queue_types::FoundQueue;
use crate::transport::{Socket, WaitMode};

/// Leases messages of a queue and settles them. Made by [`Client::queue_consumer`](crate::Client::queue_consumer).
///
/// ```no_run
/// use tramline_client::{Client, Config, QueueConsumerConfig, Settle};
///
/// let client = Client::connect(Config::from_env())?;
/// let mut consumer = client.queue_consumer("mail", QueueConsumerConfig::default())?;
/// loop {
///     for message in consumer.poll()? {
///         match std::str::from_utf8(message.value.as_deref().unwrap_or_default()) {
///             Ok(text) => {
///                 println!("{text} (delivery {})", message.deliveries);
///                 consumer.ack(message.token)?;
///             }
///             Err(cause) => consumer.reject(message.token, &cause.to_string())?,
///         }
///     }
/// }
/// # Ok::<(), tramline_client::Error>(())
/// ```
///
/// **Leases tick.** A message has to be settled before its lease is over, or its lease extended: take as many at once as are done by then. A consumer that goes in order calls
/// [`close`](Self::close), which gives back what was leased and not handed out; what was handed out is the caller's to settle. One that is dropped or dies keeps its leases until
/// they are over.
#[derive(Debug)]
pub struct QueueConsumer {
    pump: QueuePump<Socket>,
    mode: WaitMode,
    call_timeout: Duration,
}

/// The core of a queue's consumer, with the queue looked up.
pub(crate) fn open(shared: &Shared, queue: &str, config: QueueConsumerConfig) -> Result<(QueueCore, Clock), Error> {
    config.check()?;
    let (queue, metadata) = shared.queue_with_partitions(queue)?;
    let mut clock = Clock::new();
    let now = clock.now();
    Ok((QueueCore::new(config, queue, &shared.config, &metadata, crate::clock::seed(), now)?, clock))
}

impl QueueConsumer {
    pub(crate) fn new(shared: Arc<Shared>, queue: &str, config: QueueConsumerConfig) -> Result<QueueConsumer, Error> {
        let (core, clock) = open(&shared, queue, config)?;
        let pump = QueuePump::new(core, &shared.config, clock);
        Ok(QueueConsumer { pump, mode: wait_mode(&shared.config), call_timeout: shared.config.call_timeout })
    }

    /// The queue, as it was when this was made.
    pub fn queue(&self) -> &FoundQueue {
        self.pump.core.queue()
    }

    /// [`receive`](Self::receive) with what the configuration says.
    pub fn poll(&mut self) -> Result<Vec<Message>, Error> {
        let QueueConsumerConfig { max_messages, wait, .. } = *self.pump.core.config();
        self.receive(max_messages, wait)
    }

    /// Leases at most `max_messages` (1 to 4,096) messages; the brokers wait for the first of them for `wait`, at most an hour. Empty when there is none by then. The way of their
    /// answers comes on top, so that a wait of 0 finds what is there. Each owner that does not answer at all costs at most twice `request_timeout` more, or twice
    /// `connect_timeout` where it cannot be reached: it is tried once again over a new connection.
    ///
    /// An error concerns one partition or one owner, which is tried again; messages that came with it are handed out by the next call. After `queue_deleted` or `unknown_queue` nothing
    /// comes any more.
    pub fn receive(&mut self, max_messages: u32, wait: Duration) -> Result<Vec<Message>, Error> {
        check_count(max_messages)?;
        check_wait(wait)?;
        let now = self.pump.clock.now();
        self.pump.core.begin_receive(max_messages, micros(wait), now);
        let received = self.receive_some();
        self.pump.core.end_receive();
        received
    }

    fn receive_some(&mut self) -> Result<Vec<Message>, Error> {
        loop {
            if let Some(error) = self.pump.core.take_error() {
                return Err(error);
            }
            let now = self.pump.clock.now();
            let messages = self.pump.core.take_messages(now);
            if !messages.is_empty() {
                return Ok(messages);
            }
            let progress = self.pump.turn(now);
            if !progress {
                if self.pump.core.is_receive_over(now) {
                    return Ok(Vec::new());
                }
                self.wait(Duration::MAX, now)?;
            }
        }
    }

    /// The message is done. When this returns `Ok`, it is never delivered again.
    ///
    /// Refused with `lease_expired` or `lease_lost` when the lease was over: the message is, or was, delivered again. `unknown_lease`: it was settled before, or never leased so.
    pub fn ack(&mut self, token: LeaseToken) -> Result<(), Error> {
        self.settle_one(token, Settle::Ack)
    }

    /// It failed: it is delivered again after the delay (at most a day; `None`: as the queue's retry policy says), or is dead when it was delivered `max.deliveries` times. The reason (at most 256 bytes)
    /// is kept with it.
    pub fn nack(&mut self, token: LeaseToken, delay: Option<Duration>, reason: &str) -> Result<(), Error> {
        self.settle_one(token, Settle::Nack { delay, reason: reason.to_string() })
    }

    /// The lease ends so long from now (100 ms to 12 h).
    pub fn extend(&mut self, token: LeaseToken, length: Duration) -> Result<(), Error> {
        self.settle_one(token, Settle::Extend(length))
    }

    /// Gives the message back as if it had not been delivered.
    pub fn release(&mut self, token: LeaseToken) -> Result<(), Error> {
        self.settle_one(token, Settle::Release)
    }

    /// It can never be done: dead at once. The reason (at most 256 bytes) is kept with it.
    pub fn reject(&mut self, token: LeaseToken, reason: &str) -> Result<(), Error> {
        self.settle_one(token, Settle::Reject { reason: reason.to_string() })
    }

    /// Acknowledges several messages at once; results in their order.
    pub fn ack_all(&mut self, tokens: &[LeaseToken]) -> Result<Vec<Result<(), Error>>, Error> {
        let settlements: Vec<_> = tokens.iter().map(|token| (*token, Settle::Ack)).collect();
        self.settle(&settlements)
    }

    /// Settles several messages at once, in one request per owner; results in their order, each for itself: one that is refused does not stop the others. Returns when all are on
    /// stable storage or refused, or after `call_timeout`: those that are not done by then end with [`Error::Timeout`], or with [`Error::OutcomeUnknown`] if they may be done.
    /// An error of the whole means that none was sent: one of them cannot be said, or more than 65,536 would wait for the brokers (also those of calls before whose futures were dropped).
    ///
    /// What got no answer is sent again; if `unknown_lease` comes then, it was done the first time, and counts as done.
    pub fn settle(&mut self, settlements: &[(LeaseToken, Settle)]) -> Result<Vec<Result<(), Error>>, Error> {
        let start = self.pump.clock.now();
        self.pump.core.begin_settle(settlements, start)?;
        let until_us = start.mono_us.saturating_add(micros(self.call_timeout));
        let mut cut = None;
        while !self.pump.core.is_settled() && cut.is_none() {
            let now = self.pump.clock.now();
            if now.mono_us >= until_us {
                break;
            }
            if !self.pump.turn(now) && !self.pump.core.is_settled() {
                cut = self.wait(Duration::from_micros(until_us - now.mono_us), now).err();
            }
        }
        // An error of the waiting is that of what it left undone: results that came are told all the same.
        Ok(self.pump.core.take_results(self.call_timeout, cut.as_ref()))
    }

    fn settle_one(&mut self, token: LeaseToken, settle: Settle) -> Result<(), Error> {
        self.settle(&[(token, settle)])?.pop().unwrap_or_else(|| Err(Error::config("a settlement without a result")))
    }

    /// Ends in order: waits for answers that are due, gives back what was leased and not handed out, at most for `timeout`. What is not given back by then comes back when its lease is over.
    pub fn close(mut self, timeout: Duration) -> Result<(), Error> {
        let until_us = self.pump.clock.now().mono_us.saturating_add(micros(timeout));
        loop {
            if self.pump.core.give_back_and_is_done() {
                return Ok(());
            }
            let now = self.pump.clock.now();
            if now.mono_us >= until_us {
                return Err(Error::Timeout { doing: "closing the queue's consumer".to_string(), after: timeout, last: None });
            }
            if !self.pump.turn(now) {
                self.wait(Duration::from_micros(until_us - now.mono_us), now)?;
            }
        }
    }

    /// What it has done so far.
    pub fn metrics(&self) -> QueueConsumerMetrics {
        self.pump.core.metrics
    }

    fn wait(&mut self, timeout: Duration, now: Now) -> Result<(), Error> {
        let step_us = self.pump.next_step_us(now).saturating_sub(now.mono_us);
        let QueuePump { core, links, driver, .. } = &mut self.pump;
        driver.wait(self.mode, timeout.min(Duration::from_micros(step_us)), links, core)
    }
}
