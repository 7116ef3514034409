//! The consumer: turns (`crate::pump`) and waits.
//!
//! Single-threaded by design: all I/O happens inside [`Consumer::poll`], on the caller's thread. Between calls the broker
//! goes on sending within the credit, into the socket's buffer.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crate::admin::Shared;
use crate::clock::micros;
use crate::config::ConsumerConfig;
use crate::core::Now;
use crate::core::consumer::RecordView;
use crate::error::Error;
use crate::link::wait_mode;
use crate::metrics::ConsumerMetrics;
use crate::pump::ConsumerPump;
use crate::transport::{Socket, WaitMode};
use crate::types::Start;

/// Reads records of partitions it was told to read. Made by [`Client::consumer`](crate::Client::consumer); see the crate's
/// page for its guarantees.
///
/// ```no_run
/// use std::time::Duration;
/// use tramline_client::{Client, Config, ConsumerConfig, Start};
///
/// let client = Client::connect(Config::from_env())?;
/// let mut consumer = client.consumer(ConsumerConfig::default())?;
/// consumer.assign("numbers", 0, Start::Earliest)?;
/// loop {
///     let count = consumer.poll(Duration::from_secs(1), |record| {
///         println!("{} {:?}", record.offset, record.value.map(String::from_utf8_lossy));
///     })?;
///     if count == 0 {
///         break;
///     }
/// }
/// # Ok::<(), tramline_client::Error>(())
/// ```
///
/// One consumer reads at most 4,096 partitions of one shard (the broker's `entries.max`); more need a second consumer.
#[derive(Debug)]
pub struct Consumer {
    shared: Arc<Shared>,
    pump: ConsumerPump<Socket>,
    mode: WaitMode,
}

impl Consumer {
    pub(crate) fn new(shared: Arc<Shared>, config: ConsumerConfig) -> Result<Consumer, Error> {
        let pump = ConsumerPump::new(&shared, config)?;
        let mode = wait_mode(&shared.config);
        Ok(Consumer { shared, pump, mode })
    }

    /// Reads a partition from `start` on; a seek if it is being read already. Nothing is fetched before the next poll.
    pub fn assign(&mut self, topic: &str, partition: u32, start: Start) -> Result<(), Error> {
        self.assign_many(topic, &[partition], start)
    }

    /// Reads all partitions the topic has now; returns their number.
    pub fn assign_all(&mut self, topic: &str, start: Start) -> Result<u32, Error> {
        let assignment = self.shared.assignment(topic, None, start)?;
        Ok(assignment.give_to(&mut self.pump.core))
    }

    /// Reads several partitions of a topic; two requests in all, however many they are.
    pub fn assign_many(&mut self, topic: &str, partitions: &[u32], start: Start) -> Result<(), Error> {
        let assignment = self.shared.assignment(topic, Some(partitions), start)?;
        assignment.give_to(&mut self.pump.core);
        Ok(())
    }

    /// Goes on reading a partition elsewhere. The same as [`assign`](Self::assign): also starts a partition that stopped with an
    /// error again.
    pub fn seek(&mut self, topic: &str, partition: u32, start: Start) -> Result<(), Error> {
        self.assign(topic, partition, start)
    }

    /// Stops reading a partition; returns whether it was being read.
    pub fn unassign(&mut self, topic: &str, partition: u32) -> bool {
        self.pump.core.unassign(topic, partition)
    }

    /// Hands out records that have arrived; waits for the first, at most `timeout`. Returns how many. Records of one partition
    /// come in order of offset. An error concerns one partition (which stops until a [`seek`](Self::seek), if the error will
    /// not pass by itself) or one broker (which is tried again); the others go on at the next call. It may come one call after
    /// records that arrived with it.
    pub fn poll(&mut self, timeout: Duration, mut each: impl FnMut(&RecordView<'_>)) -> Result<usize, Error> {
        self.poll_until(timeout, |record| {
            each(record);
            ControlFlow::Continue(())
        })
    }

    /// As [`poll`](Self::poll), but stops after the record for which `each` says `Break`; the next poll goes on after it.
    pub fn poll_until(&mut self, timeout: Duration, mut each: impl FnMut(&RecordView<'_>) -> ControlFlow<()>) -> Result<usize, Error> {
        let start = self.pump.clock.now();
        let deadline_us = start.mono_us.saturating_add(micros(timeout));
        loop {
            // Told before more is handed out: partitions that flow must not keep one that stopped from being heard.
            if let Some(error) = self.pump.core.take_error() {
                return Err(error);
            }
            let now = self.pump.clock.now();
            let (delivered, progress) = self.pump.turn(now, &mut each);
            if delivered.records > 0 {
                return Ok(delivered.records);
            }
            if self.pump.core.has_error() {
                continue;
            }
            // Also while bytes come: a broker that talks and sends no record must not keep the caller.
            if now.mono_us >= deadline_us {
                return Ok(0);
            }
            if !progress {
                self.wait(Duration::from_micros(deadline_us - now.mono_us), now)?;
            }
        }
    }

    /// Hands out records until every partition being read (and not paused) has been read up to its end as it is when this is called, or an error; returns
    /// how many. What was added meanwhile may come along. [`Error::Timeout`] when it takes longer than `timeout`; what was handed out until then is
    /// behind the positions, so a second call goes on.
    pub fn read_to_end(&mut self, timeout: Duration, mut each: impl FnMut(&RecordView<'_>)) -> Result<usize, Error> {
        let deadline_us = self.pump.clock.now().mono_us.saturating_add(micros(timeout));
        let mut ends = self.end_offsets()?;
        let mut count = 0;
        loop {
            self.pump.leave_unreached(&mut ends);
            if ends.is_empty() {
                return Ok(count);
            }
            let now_us = self.pump.clock.now().mono_us;
            if now_us >= deadline_us {
                let doing = format!("reading to the end: {} partitions are not read up to it", ends.len());
                return Err(Error::Timeout { doing, after: timeout, last: None });
            }
            count += self.poll(Duration::from_micros(deadline_us - now_us), &mut each)?;
        }
    }

    /// Stops handing out a partition's records, keeps its position; returns whether it was being read and not paused yet. A seek moves a paused partition without resuming
    /// it. What has arrived and was not handed out is fetched again after [`resume`](Self::resume): nothing is lost or repeated. Each resume starts
    /// the stream of that owner anew, so this is for pauses of a second, not between two records.
    pub fn pause(&mut self, topic: &str, partition: u32) -> bool {
        self.pump.core.set_paused(topic, partition, true).unwrap_or(false)
    }

    /// Goes on with a paused partition; returns whether it was paused.
    pub fn resume(&mut self, topic: &str, partition: u32) -> bool {
        self.pump.core.set_paused(topic, partition, false).unwrap_or(false)
    }

    /// Partitions that are paused.
    pub fn paused(&self) -> impl Iterator<Item = (&str, u32)> {
        self.pump.core.paused()
    }

    /// What it has done so far.
    pub fn metrics(&self) -> ConsumerMetrics {
        self.pump.core.metrics
    }

    /// The offset that is handed out next in a partition being read.
    pub fn position(&self, topic: &str, partition: u32) -> Option<u64> {
        self.pump.core.position(topic, partition)
    }

    /// The offset after the last committed record, as of the newest reply; `None` before the first.
    pub fn committed_end(&self, topic: &str, partition: u32) -> Option<u64> {
        self.pump.core.committed_end(topic, partition)
    }

    /// The first offset that can still be read, as of the newest reply; `None` before the first.
    pub fn log_start(&self, topic: &str, partition: u32) -> Option<u64> {
        self.pump.core.log_start(topic, partition)
    }

    /// Partitions being read.
    pub fn assigned(&self) -> impl Iterator<Item = (&str, u32)> {
        self.pump.core.assigned()
    }

    /// Asks the broker for the committed end of every partition being read: topic, partition, offset. Reading until every
    /// [`position`](Self::position) has reached it is reading "until the end as it is now".
    pub fn end_offsets(&self) -> Result<Vec<(String, u32, u64)>, Error> {
        self.shared.ends_of(self.pump.core.assigned().map(|(topic, partition)| (topic.to_string(), partition)).collect())
    }

    fn wait(&mut self, timeout: Duration, now: Now) -> Result<(), Error> {
        let step_us = self.pump.next_step_us(now).saturating_sub(now.mono_us);
        let ConsumerPump { core, links, driver, .. } = &mut self.pump;
        driver.wait(self.mode, timeout.min(Duration::from_micros(step_us)), links, core)
    }
}
