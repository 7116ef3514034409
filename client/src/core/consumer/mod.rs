//! The consumer without sockets: streams, credit, positions.
//!
//! One streaming fetch per lane (connection to an owner) carries all partitions of that owner. When the set of partitions or
//! a position changes, the stream is cancelled and a new one started; what still arrives for the old one is dropped by its
//! correlation id. An entry that ends with an error leaves the others of its stream alone.
//!
//! The loop around it does, again and again: [`ConsumerCore::step`]; let connections be opened and metadata be got
//! (`core::links`); write; deliver what is whole ([`ConsumerCore::deliver`]); read.
//!
//! | file | job |
//! |---|---|
//! | `stream` | starting, cancelling and ending streams; connections; entries' errors |
//! | `deliver` | batches of a reply to records: skipping, checksums, decompression |
//! | `lanes` | its connections as `core::links` sees them |
//! | `tests` | the core against a fake broker in memory |
//!
//! Invariants: `position` is the next offset to hand out, it never goes backwards but by a seek; a record is handed out at
//! most once per position; nothing of a batch whose checksum or structure is wrong is handed out; credit not yet used is at
//! most `credit_bytes`.

mod deliver;
mod lanes;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};

use tramline_wire::batch::{Attributes, Headers};

pub(crate) use deliver::Delivered;

use super::cluster::{ClusterView, Leadership, Owner};
use super::codec::Decompressor;
use super::wish::MetadataWish;
use super::{Alive, Backoff, Conn};
use crate::config::ConsumerConfig;
use crate::error::Error;
use crate::metrics::ConsumerMetrics;
use crate::types::{Metadata, PartitionMetadata};

/// Owners of the partitions in one view. Each is a connection, and a process has some thousand file descriptors by default: what
/// names more is no cluster.
const OWNERS_MAX: usize = 4096;

/// Refuses a view with more owners than can be.
pub(crate) fn check_owners(metadata: &Metadata) -> Result<(), Error> {
    let mut owners = HashSet::new();
    for partition in metadata.topics.iter().flat_map(|topic| &topic.partitions) {
        owners.insert(Owner::from(partition));
        if owners.len() > OWNERS_MAX {
            return Err(Error::protocol("the broker", format!("its view names more than {OWNERS_MAX} owners of partitions")));
        }
    }
    Ok(())
}

/// First size of a fetch connection's receive buffer: four fetch frames, so that one system call brings several.
pub(crate) const FETCH_RECV_BYTES_FIRST: usize = 512 * 1024;

/// A record handed out by [`Consumer::poll`](crate::Consumer::poll). It borrows the receive buffer: copy what is to be kept.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Partition.
    pub partition: u32,
    /// Offset.
    pub offset: u64,
    /// Timestamp, UTC microseconds: the producer's, or the append time where the topic says so.
    pub timestamp_us: i64,
    /// When the broker appended it, UTC microseconds.
    pub append_time_us: i64,
    /// Key.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers: an iterator over names and values; copy it to go through them twice.
    pub headers: Headers<'a>,
    /// Queue attributes.
    pub attributes: Attributes<'a>,
}

/// Where a partition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Being read, or about to be.
    Reading,
    /// Waits for the time (after a refusal that may pass), then is read again.
    Waiting { until_us: u64 },
    /// Ended with an error that was told; goes on after a seek.
    Stopped,
}

/// A topic of partitions being read.
#[derive(Debug)]
struct Topic {
    name: String,
    /// Partitions of it that are assigned. Without any it is not asked for, and its place is the next topic's.
    assigned: usize,
}

/// A partition being read.
#[derive(Debug)]
pub(crate) struct Part {
    pub topic: u32,
    pub index: u32,
    pub uid: u64,
    pub leader: Leadership,
    /// Index of the lane to its owner.
    pub lane: usize,
    /// Next offset to hand out.
    pub position: u64,
    pub state: State,
    pub backoff: Backoff,
    /// Since when it could not be read, monotonic microseconds; told as an error when it lasts.
    pub failing_since_us: Option<u64>,
    pub log_start: u64,
    /// First offset that is not committed, as of the newest reply.
    pub committed_end: Option<u64>,
    /// False once it was unassigned: its place waits for another, so that indexes stay.
    pub assigned: bool,
    /// Not read until it is resumed. What comes for it meanwhile is dropped and fetched again.
    pub paused: bool,
}

impl Part {
    /// Whether it belongs into its lane's stream.
    pub(crate) fn is_read(&self) -> bool {
        self.assigned && !self.paused && self.state == State::Reading
    }
}

/// A connection to an owner.
#[derive(Debug)]
pub(crate) struct Lane {
    pub owner: Owner,
    /// Partitions of it that are assigned. Without any its connection is closed, and the lane is the next owner's.
    pub assigned: usize,
    pub address: String,
    pub conn: Conn,
    pub open: bool,
    /// A connection is being opened.
    pub connecting: bool,
    pub connect_at_us: u64,
    pub backoff: Backoff,
    /// Correlation of the live stream.
    pub stream: Option<u64>,
    /// The first partition that it names, by uid: a refusal that names another leader is about this one.
    pub stream_first: u64,
    /// The stream has to be started again: partitions or positions changed, or it ended.
    pub dirty: bool,
    /// Not before this time, monotonic microseconds: set when it is the broker's doing that streams end.
    pub start_at_us: u64,
    /// A position moved since the stream was started: the waits between streams begin at the shortest again.
    pub moved: bool,
    /// Credit used up since the last grant.
    pub used_bytes: u64,
    /// When some was used last, monotonic microseconds.
    pub used_at_us: u64,
    pub alive: Alive,
    /// Since when it could not be used, monotonic microseconds; told as an error when it lasts.
    pub failing_since_us: Option<u64>,
}

impl Lane {
    /// Whether it has neither partitions nor a connection, nor anything of one.
    fn is_free(&self) -> bool {
        self.assigned == 0 && !self.open && !self.connecting
    }
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct ConsumerCore {
    config: ConsumerConfig,
    /// What keeps it from reading is told after so long.
    told_after_us: u64,
    /// A ping's answer may take so long.
    request_timeout_us: u64,
    frame_bytes_max: u32,
    cluster: ClusterView,
    topics: Vec<Topic>,
    parts: Vec<Part>,
    /// Places of partitions that were unassigned.
    free_parts: Vec<usize>,
    by_uid: HashMap<u64, usize>,
    /// By topic and number; only partitions being read.
    by_number: HashMap<(u32, u32), usize>,
    lanes: Vec<Lane>,
    decompressor: Decompressor,
    errors: VecDeque<Error>,
    /// The first of the times that partitions wait for; `u64::MAX`: none waits.
    waiting_until_us: u64,
    wish: MetadataWish,
    pub(crate) metrics: ConsumerMetrics,
    /// Of the waits between attempts.
    seed: u64,
}

impl ConsumerCore {
    pub(crate) fn new(
        config: ConsumerConfig,
        told_after_us: u64,
        request_timeout_us: u64,
        frame_bytes_max: u32,
        seed: u32,
    ) -> Result<ConsumerCore, Error> {
        config.check()?;
        Ok(ConsumerCore {
            config,
            told_after_us,
            request_timeout_us,
            frame_bytes_max,
            cluster: ClusterView::default(),
            topics: Vec::new(),
            parts: Vec::new(),
            free_parts: Vec::new(),
            by_uid: HashMap::new(),
            by_number: HashMap::new(),
            lanes: Vec::new(),
            decompressor: Decompressor::new(),
            errors: VecDeque::new(),
            waiting_until_us: u64::MAX,
            wish: MetadataWish::seeded(u64::from(seed)),
            metrics: ConsumerMetrics::default(),
            seed: u64::from(seed),
        })
    }

    fn topic(&mut self, name: &str) -> u32 {
        if let Some(topic) = self.topics.iter().position(|topic| topic.name == name) {
            return topic as u32;
        }
        match self.topics.iter().position(|topic| topic.assigned == 0) {
            Some(free) => {
                self.topics[free].name = name.to_string();
                free as u32
            }
            None => {
                self.topics.push(Topic { name: name.to_string(), assigned: 0 });
                self.topics.len() as u32 - 1
            }
        }
    }

    fn backoff(&mut self) -> Backoff {
        self.seed += 1;
        Backoff::seeded(self.seed)
    }

    fn find(&self, topic: &str, partition: u32) -> Option<usize> {
        let topic = self.topics.iter().position(|known| known.name == topic)?;
        self.by_number.get(&(topic as u32, partition)).copied()
    }

    fn part(&self, topic: &str, partition: u32) -> Option<&Part> {
        self.find(topic, partition).map(|id| &self.parts[id])
    }

    /// Takes over the addresses of a newer view.
    pub(crate) fn learn_nodes(&mut self, metadata: &Metadata) {
        self.cluster.learn(metadata);
    }

    /// Reads a partition from `position` on; a seek if it is being read already.
    pub(crate) fn assign(&mut self, topic: &str, partition: &PartitionMetadata, position: u64) {
        let found = self.find(topic, partition.index);
        // A seek may come with what was known of the leader some time ago.
        let known =
            found.map(|id| &self.parts[id]).filter(|part| part.uid == partition.uid && !part.leader.believes(partition.term, false));
        let (lane, leader) = match known {
            Some(part) => (part.lane, part.leader),
            None => (self.lane_of(Owner::from(partition)), Leadership::told(partition.term)),
        };
        match found {
            Some(id) => {
                self.by_uid.remove(&self.parts[id].uid);
                self.by_uid.insert(partition.uid, id);
                self.move_to(id, lane);
                let part = &mut self.parts[id];
                part.uid = partition.uid;
                part.leader = leader;
                part.position = position;
                part.state = State::Reading;
                part.failing_since_us = None;
            }
            None => {
                let topic = self.topic(topic);
                let part = Part {
                    topic,
                    index: partition.index,
                    uid: partition.uid,
                    leader,
                    lane,
                    position,
                    state: State::Reading,
                    backoff: self.backoff(),
                    failing_since_us: None,
                    log_start: 0,
                    committed_end: None,
                    assigned: true,
                    paused: false,
                };
                let id = match self.free_parts.pop() {
                    Some(id) => {
                        self.parts[id] = part;
                        id
                    }
                    None => {
                        self.parts.push(part);
                        self.parts.len() - 1
                    }
                };
                self.lanes[lane].assigned += 1;
                self.topics[topic as usize].assigned += 1;
                self.by_uid.insert(partition.uid, id);
                self.by_number.insert((topic, partition.index), id);
            }
        }
        self.lanes[lane].dirty = true;
    }

    /// A partition has this owner now, which has refused nothing: it is read there at once. Both streams are started again.
    fn move_to_owner(&mut self, id: usize, owner: Owner) {
        let lane = self.lane_of(owner);
        let part = &mut self.parts[id];
        if part.lane == lane {
            return;
        }
        if matches!(part.state, State::Waiting { .. }) {
            part.state = State::Reading;
        }
        self.move_to(id, lane);
    }

    fn move_to(&mut self, id: usize, lane: usize) {
        let before = std::mem::replace(&mut self.parts[id].lane, lane);
        self.lanes[before].assigned -= 1;
        self.lanes[lane].assigned += 1;
        self.lanes[before].dirty = true;
        self.lanes[lane].dirty = true;
    }

    /// Stops reading a partition; returns whether it was being read.
    pub(crate) fn unassign(&mut self, topic: &str, partition: u32) -> bool {
        let Some(id) = self.find(topic, partition) else { return false };
        let part = &mut self.parts[id];
        part.assigned = false;
        let lane = part.lane;
        self.by_number.remove(&(part.topic, part.index));
        self.by_uid.remove(&part.uid);
        self.topics[part.topic as usize].assigned -= 1;
        self.free_parts.push(id);
        self.lanes[lane].assigned -= 1;
        // Others of the stream go on undisturbed; it is started again without this one when data for it still comes.
        if !self.parts.iter().any(|part| part.lane == lane && part.is_read()) {
            self.lanes[lane].dirty = true;
        }
        true
    }

    /// Stops or goes on handing out a partition's records; returns whether that is a change. `None`: it is not being read.
    pub(crate) fn set_paused(&mut self, topic: &str, partition: u32, paused: bool) -> Option<bool> {
        let id = self.find(topic, partition)?;
        let part = &mut self.parts[id];
        if std::mem::replace(&mut part.paused, paused) == paused {
            return Some(false);
        }
        let lane = part.lane;
        // As after unassigning: while others are read, the stream goes on until something comes for this one. Resumed, it needs a new stream, which
        // begins at the position it has.
        if !paused || !self.parts.iter().any(|part| part.lane == lane && part.is_read()) {
            self.lanes[lane].dirty = true;
        }
        Some(true)
    }

    /// Partitions that are paused: topic, partition.
    pub(crate) fn paused(&self) -> impl Iterator<Item = (&str, u32)> {
        let paused = self.parts.iter().filter(|part| part.assigned && part.paused);
        paused.map(|part| (self.topics[part.topic as usize].name.as_str(), part.index))
    }

    fn lane_of(&mut self, owner: Owner) -> usize {
        if let Some(lane) = self.lanes.iter().position(|lane| lane.owner == owner) {
            return lane;
        }
        let backoff = self.backoff();
        let lane = Lane {
            owner,
            assigned: 0,
            address: String::new(),
            conn: Conn::new(FETCH_RECV_BYTES_FIRST, self.frame_bytes_max),
            open: false,
            connecting: false,
            connect_at_us: 0,
            backoff,
            stream: None,
            stream_first: 0,
            dirty: false,
            start_at_us: 0,
            moved: false,
            used_bytes: 0,
            used_at_us: 0,
            alive: Alive::default(),
            failing_since_us: None,
        };
        match self.lanes.iter().position(Lane::is_free) {
            Some(free) => {
                self.lanes[free] = lane;
                free
            }
            None => {
                self.lanes.push(lane);
                self.lanes.len() - 1
            }
        }
    }

    /// Partitions being read: topic, partition.
    pub(crate) fn assigned(&self) -> impl Iterator<Item = (&str, u32)> {
        let assigned = self.parts.iter().filter(|part| part.assigned);
        assigned.map(|part| (self.topics[part.topic as usize].name.as_str(), part.index))
    }

    /// Next offset to hand out.
    pub(crate) fn position(&self, topic: &str, partition: u32) -> Option<u64> {
        self.part(topic, partition).map(|part| part.position)
    }

    /// First offset that is not committed, as of the newest reply.
    pub(crate) fn committed_end(&self, topic: &str, partition: u32) -> Option<u64> {
        self.part(topic, partition).and_then(|part| part.committed_end)
    }

    /// First offset that can still be read, as of the newest reply.
    pub(crate) fn log_start(&self, topic: &str, partition: u32) -> Option<u64> {
        self.part(topic, partition).filter(|part| part.committed_end.is_some()).map(|part| part.log_start)
    }

    /// The oldest error that was not told yet.
    pub(crate) fn take_error(&mut self) -> Option<Error> {
        self.errors.pop_front()
    }

    /// Whether there is an error to tell.
    pub(crate) fn has_error(&self) -> bool {
        !self.errors.is_empty()
    }

    /// The connection of a lane.
    pub(crate) fn conn(&mut self, lane: usize) -> &mut Conn {
        &mut self.lanes[lane].conn
    }
}
