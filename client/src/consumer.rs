//! The consumer: runs the loop between its core and the sockets.
//!
//! Single-threaded by design: all I/O happens inside [`Consumer::poll`], on the caller's thread. Between calls the broker
//! goes on sending within the credit, into the socket's buffer.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crate::client::Shared;
use crate::clock::{Clock, micros};
use crate::config::ConsumerConfig;
use crate::core::Now;
use crate::core::consumer::{ConsumerCore, Delivered, RecordView};
use crate::core::links::Links;
use crate::error::Error;
use crate::link::{closed_by_peer, wait_mode};
use crate::metrics::ConsumerMetrics;
use crate::transport::{Driver, Received, Socket};
use crate::types::{At, Start};

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
    core: ConsumerCore,
    links: Links,
    driver: Driver,
    clock: Clock,
}

/// Reads per lane and turn: bounds how long one busy lane keeps the others waiting.
const READS_PER_TURN: usize = 4;

impl Consumer {
    pub(crate) fn new(shared: Arc<Shared>, config: ConsumerConfig) -> Result<Consumer, Error> {
        let client = &shared.config;
        let core = ConsumerCore::new(
            config,
            micros(client.call_timeout),
            micros(client.request_timeout),
            client.frame_bytes_max,
            crate::clock::seed() as u32,
        )?;
        let (links, driver) = (Links::new(client), Driver::new(wait_mode(client)));
        Ok(Consumer { shared, core, links, driver, clock: Clock::new() })
    }

    /// Reads a partition from `start` on; a seek if it is being read already. Nothing is fetched before the next poll.
    pub fn assign(&mut self, topic: &str, partition: u32, start: Start) -> Result<(), Error> {
        self.assign_many(topic, &[partition], start)
    }

    /// Reads all partitions the topic has now; returns their number.
    pub fn assign_all(&mut self, topic: &str, start: Start) -> Result<u32, Error> {
        let partitions = self.shared.topic(topic)?.partitions.len() as u32;
        let all: Vec<u32> = (0..partitions).collect();
        self.assign_many(topic, &all, start)?;
        Ok(partitions)
    }

    /// Reads several partitions of a topic; two requests in all, however many they are.
    pub fn assign_many(&mut self, topic: &str, partitions: &[u32], start: Start) -> Result<(), Error> {
        let metadata = self.shared.metadata(&[topic])?;
        let found = crate::client::existing_topic(&metadata, topic)?;
        let mut wanted = Vec::with_capacity(partitions.len());
        for &partition in partitions {
            let known = found.partitions.get(partition as usize).ok_or_else(|| Error::NoSuchPartition {
                topic: topic.to_string(),
                partition,
                partitions: found.partitions.len() as u32,
            })?;
            wanted.push(known);
        }
        let at = match start {
            Start::Offset(_) => None,
            Start::Earliest => Some(At::Earliest),
            Start::Latest => Some(At::Latest),
            Start::Time(us) => Some(At::Time(us)),
        };
        let asked: Vec<(u32, At)> = at.map_or_else(Vec::new, |at| partitions.iter().map(|&partition| (partition, at)).collect());
        let offsets = if asked.is_empty() { Vec::new() } else { self.shared.list_offsets(topic, &asked)? };
        self.core.learn_nodes(&metadata);
        for (place, partition) in wanted.into_iter().enumerate() {
            let position = match start {
                Start::Offset(offset) => offset,
                _ => offsets[place].offset,
            };
            self.core.assign(topic, partition, position);
        }
        Ok(())
    }

    /// Goes on reading a partition elsewhere. The same as [`assign`](Self::assign): also starts a partition that stopped with an
    /// error again.
    pub fn seek(&mut self, topic: &str, partition: u32, start: Start) -> Result<(), Error> {
        self.assign(topic, partition, start)
    }

    /// Stops reading a partition; returns whether it was being read.
    pub fn unassign(&mut self, topic: &str, partition: u32) -> bool {
        self.core.unassign(topic, partition)
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
        let mut deadline = None;
        loop {
            // Told before more is handed out: partitions that flow must not keep one that stopped from being heard.
            if let Some(error) = self.core.take_error() {
                return Err(error);
            }
            let now = self.clock.now();
            let (delivered, progress) = self.turn(now, &mut each);
            if delivered.records > 0 {
                return Ok(delivered.records);
            }
            if self.core.has_error() {
                continue;
            }
            if progress {
                continue;
            }
            let deadline_us = *deadline.get_or_insert_with(|| now.mono_us.saturating_add(micros(timeout)));
            if now.mono_us >= deadline_us {
                return Ok(0);
            }
            self.wait(Duration::from_micros(deadline_us - now.mono_us), now)?;
        }
    }

    /// Hands out records until every partition being read (and not paused) has been read up to its end as it is when this is called, or an error; returns
    /// how many. What was added meanwhile may come along. [`Error::Timeout`] when it takes longer than `timeout`; what was handed out until then is
    /// behind the positions, so a second call goes on.
    pub fn read_to_end(&mut self, timeout: Duration, mut each: impl FnMut(&RecordView<'_>)) -> Result<usize, Error> {
        let deadline_us = self.clock.now().mono_us.saturating_add(micros(timeout));
        let mut ends = self.end_offsets()?;
        let mut count = 0;
        loop {
            // A partition that was paused or unassigned by then is not waited for.
            ends.retain(|(topic, partition, end)| {
                let is_paused = self.core.paused().any(|paused| paused == (topic.as_str(), *partition));
                !is_paused && self.core.position(topic, *partition).is_some_and(|position| position < *end)
            });
            if ends.is_empty() {
                return Ok(count);
            }
            let now_us = self.clock.now().mono_us;
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
        self.core.set_paused(topic, partition, true).unwrap_or(false)
    }

    /// Goes on with a paused partition; returns whether it was paused.
    pub fn resume(&mut self, topic: &str, partition: u32) -> bool {
        self.core.set_paused(topic, partition, false).unwrap_or(false)
    }

    /// Partitions that are paused.
    pub fn paused(&self) -> impl Iterator<Item = (&str, u32)> {
        self.core.paused()
    }

    /// What it has done so far.
    pub fn metrics(&self) -> ConsumerMetrics {
        self.core.metrics
    }

    /// The offset that is handed out next in a partition being read.
    pub fn position(&self, topic: &str, partition: u32) -> Option<u64> {
        self.core.position(topic, partition)
    }

    /// The offset after the last committed record, as of the newest reply; `None` before the first.
    pub fn committed_end(&self, topic: &str, partition: u32) -> Option<u64> {
        self.core.committed_end(topic, partition)
    }

    /// The first offset that can still be read, as of the newest reply; `None` before the first.
    pub fn log_start(&self, topic: &str, partition: u32) -> Option<u64> {
        self.core.log_start(topic, partition)
    }

    /// Partitions being read.
    pub fn assigned(&self) -> impl Iterator<Item = (&str, u32)> {
        self.core.assigned()
    }

    /// Asks the broker for the committed end of every partition being read: topic, partition, offset. Reading until every
    /// [`position`](Self::position) has reached it is reading "until the end as it is now".
    pub fn end_offsets(&self) -> Result<Vec<(String, u32, u64)>, Error> {
        let mut assigned: Vec<(&str, u32)> = self.core.assigned().collect();
        assigned.sort_unstable();
        let mut ends = Vec::with_capacity(assigned.len());
        for of_topic in assigned.chunk_by(|one, other| one.0 == other.0) {
            let topic = of_topic[0].0;
            let asked: Vec<(u32, At)> = of_topic.iter().map(|&(_, partition)| (partition, At::Latest)).collect();
            let found = self.shared.list_offsets(topic, &asked)?;
            ends.extend(found.into_iter().map(|end| (topic.to_string(), end.partition, end.offset)));
        }
        Ok(ends)
    }

    /// One turn of everything: streams, connections, metadata; over all lanes: hand out, send, receive. Returns what was handed out and whether bytes
    /// moved.
    fn turn(&mut self, now: Now, each: &mut impl FnMut(&RecordView<'_>) -> ControlFlow<()>) -> (Delivered, bool) {
        let Consumer { core, links, driver, .. } = self;
        links.step(core, now);
        driver.dial(links, core, now);
        core.step(now);
        let mut all = Delivered::default();
        let mut progress = false;
        for place in 0..driver.places() {
            let Some((lane, slot)) = driver.open_lane(place, links) else {
                if driver.turn(place, links, core, now) {
                    core.step(now); // a lane that is open now begins its stream
                    progress = true;
                }
                continue;
            };
            match lane_turn(&mut slot.socket, core, lane, now, each) {
                Ok((delivered, moved)) => {
                    all.records += delivered.records;
                    progress |= moved;
                    if delivered.stopped {
                        all.stopped = true;
                        break;
                    }
                }
                Err(error) => {
                    driver.fail(place, links, core, error, now);
                    progress = true;
                }
            }
        }
        (all, progress)
    }

    fn wait(&mut self, timeout: Duration, now: Now) -> Result<(), Error> {
        let step_us = self.core.next_step_us(now).min(self.links.next_step_us()).saturating_sub(now.mono_us);
        self.driver.wait(timeout.min(Duration::from_micros(step_us)), &mut self.links, &mut self.core)
    }
}

fn lane_turn(
    socket: &mut Socket,
    core: &mut ConsumerCore,
    lane: usize,
    now: Now,
    each: &mut impl FnMut(&RecordView<'_>) -> ControlFlow<()>,
) -> Result<(Delivered, bool), Error> {
    let failed = |socket: &Socket, doing, source| Error::io(doing, socket.address(), source);
    let mut all = Delivered::default();
    let mut progress = false;
    for _ in 0..READS_PER_TURN {
        let delivered = core.deliver(lane, now, each)?;
        all.records += delivered.records;
        all.stopped = delivered.stopped;
        if !core.conn(lane).out().is_empty() {
            let written = socket.flush(core.conn(lane)).map_err(|source| failed(socket, "cannot send to", source))?;
            progress |= written > 0;
        }
        if all.stopped {
            break;
        }
        match socket.fill(core.conn(lane)) {
            Ok(Received::Some(_)) => progress = true,
            Ok(Received::Empty) if core.is_silent(lane, now) => {
                let source = std::io::Error::new(std::io::ErrorKind::TimedOut, "a ping was not answered in time");
                return Err(failed(socket, "cannot receive from", source));
            }
            Ok(Received::Empty) => break,
            Ok(Received::Closed) => return Err(failed(socket, "cannot receive from", closed_by_peer())),
            Err(source) => return Err(failed(socket, "cannot receive from", source)),
        }
    }
    Ok((all, progress))
}
