//! The producer without sockets: batches, windows, order, refusals.
//!
//! The loop around it (`crate::producer`, or a test) does, again and again: [`ProducerCore::step`] with the time; let its
//! connections be opened and metadata be got (`core::links`); write what a lane's connection has queued and tell it
//! ([`ProducerCore::on_written`]); read into it and tell it ([`ProducerCore::on_received`]); take results with
//! [`ProducerCore::drain`].
//!
//! | file | job |
//! |---|---|
//! | `batch` | open, sealed and done batches, and the pool of their buffers |
//! | `cut` | batches that are too large for the broker, in pieces |
//! | `part` | one partition: the rule that keeps order |
//! | `sequence` | its numbers, when idempotent: marks, epochs, what answers mean |
//! | `unresolved` | batches that were sent and have no fate: again, anew, or given up |
//! | `identity` | the producer's id |
//! | `lane`, `lanes` | one connection and its window; all of them as `core::links` sees them |
//! | `push` | a record into its open batch; sealing |
//! | `send` | which batches make a request, and when |
//! | `settle` | what answers, refusals, lost connections and time mean for batches |
//! | `tests` | the core against a fake broker in memory |
//!
//! Invariants: every record that was taken ends in exactly one delivery; batches of one partition are accepted in the order
//! they were sealed, or some are given back as failed (see `part`); an idempotent producer's batch is stored once at most; `held_bytes` is the sum over open, waiting and flying
//! batches and stays below `buffer_bytes` plus one record.

mod batch;
mod cut;
mod identity;
mod lane;
mod lanes;
mod part;
mod push;
mod send;
pub(crate) mod sequence;
mod settle;
#[cfg(test)]
mod tests;
mod unresolved;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tramline_wire::batch::Limits;
use tramline_wire::level::Level;
use tramline_wire::produce::ProduceResult;

use super::cluster::{ClusterView, Hops, Leadership, Learned, Owner};
use super::codec::Compressor;
use super::wish::MetadataWish;
use super::{Alive, Backoff, Conn, Now};
use crate::clock::micros;
use crate::config::ProducerConfig;
use crate::error::Error;
use crate::metrics::ProducerMetrics;
use crate::types::{Metadata, TopicMetadata};
use batch::{Done, Pool};
use identity::Identity;
use lane::Lane;
use part::{NO_LANE, Part};
pub(crate) use push::PushError;

/// How often queues are searched for batches whose time is over. Deadlines are seconds; 10 ms late is nothing, and the
/// search over 10,000 partitions costs some 30 us.
const EXPIRY_SCAN_US: u64 = 10_000;

/// Metadata is looked up again after this long, so that partitions added to a topic get their share: 5 minutes.
const METADATA_AGE_US_MAX: u64 = 300_000_000;

/// First size of a producer connection's receive buffer: acknowledgements are small.
const RECV_BYTES_FIRST: usize = 16 * 1024;

/// A topic the producer sends to.
#[derive(Debug)]
struct Topic {
    name: String,
    uid: u64,
    /// Indexes of its partitions in the core, by partition number.
    parts: Vec<u32>,
    /// Partition of records without a key, until its batch closes.
    sticky: u32,
    /// Next partition in turn.
    next_in_turn: u32,
    /// What new partitions begin with, see `Part`: what was learnt about the topic's limit.
    batch_bytes: usize,
    refused_bytes: usize,
    /// Set when the broker says the topic is gone.
    gone: bool,
}

/// Whose trouble it is, so that it is over when that one's is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Lane(usize),
    /// The pause that a lane's broker asked for.
    Throttle(usize),
    Part(u32),
    Identity,
    Metadata,
    /// Another cluster took the place of the one that was known.
    Cluster,
}

/// The fate of one record.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// The mark given with the record.
    pub tag: u64,
    /// Topic.
    pub topic: &'a str,
    /// Partition it went to.
    pub partition: u32,
    /// Its offset; `None` after an error, at level `none`, and where it was acknowledged so late that the broker knew only that it is stored.
    pub offset: Option<u64>,
    /// The level reached; [`Level::None`] after an error.
    pub level: Level,
    /// Why it was not acknowledged.
    pub error: Option<&'a Error>,
    /// When the first bytes of its batch were first given to the kernel, microseconds after
    /// [`Producer::started`](crate::Producer::started). Until then it waited in the producer, for a full batch or for room in the window
    /// of requests; what is sent again keeps the first time. `None` when it never got so far.
    pub first_sent_us: Option<u64>,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct ProducerCore {
    config: ProducerConfig,
    /// An unanswered request's connection is given up after so long.
    request_timeout_us: u64,
    /// A record's time, from when it was taken.
    delivery_timeout_us: u64,
    /// Whether batches are marked.
    marks: bool,
    /// Batches of one partition that may be in flight.
    in_flight_max: u32,
    identity: Identity,
    identity_backoff: Backoff,
    identity_hops: Hops,
    /// The lane that refused an id last.
    identity_refused_by: Option<usize>,
    /// Partitions that wait for an id.
    nameless: Vec<u32>,
    frame_bytes_max: u32,
    compressor: Compressor,
    pool: Pool,
    cluster: ClusterView,
    topics: Vec<Topic>,
    topic_index: HashMap<String, u32>,
    /// The topic of the last record: most callers send to one.
    last_topic: u32,
    parts: Vec<Part>,
    lanes: Vec<Lane>,
    /// Open batches in the order they were opened: (partition, its `next_seq` then, time).
    opened: VecDeque<(u32, u64, u64)>,
    /// Partitions that wait for their `retry_at_us`.
    delayed: Vec<u32>,
    done: VecDeque<Done>,
    deliveries_waiting: usize,
    /// Room for the results of one answer.
    results: Vec<ProduceResult>,
    held_bytes: usize,
    records_outstanding: usize,
    wish: MetadataWish,
    next_expiry_scan_us: u64,
    /// What keeps it from delivering, as of the newest failure that was not mended.
    trouble: Option<(Source, Arc<Error>)>,
    pub(crate) metrics: ProducerMetrics,
    seed: u32,
    seeds_drawn: u32,
}

/// Until the broker has told its own number (which comes with the id, so before the first marked batch): what brokers keep.
const BATCHES_KEPT: u32 = 5;

impl ProducerCore {
    /// `seed` decides which partition the sticky choice starts with, and how long waits between attempts are.
    pub(crate) fn new(config: ProducerConfig, request_timeout_us: u64, frame_bytes_max: u32, seed: u32) -> Result<ProducerCore, Error> {
        config.check()?;
        let compressor = Compressor::new(config.compression).map_err(|cause| Error::config(&format!("no compressor: {cause}")))?;
        let limits: Limits = config.limits;
        let marks = config.idempotent && config.level != Level::None;
        let delivery_timeout_us = micros(config.delivery_timeout);
        let pool = Pool::new(limits, config.batch_bytes, config.buffer_bytes);
        Ok(ProducerCore {
            config,
            request_timeout_us,
            delivery_timeout_us,
            marks,
            in_flight_max: if marks { BATCHES_KEPT } else { u32::MAX },
            identity: Identity::Wanted { at_us: 0 },
            identity_backoff: Backoff::seeded(u64::from(seed)),
            identity_hops: Hops::default(),
            identity_refused_by: None,
            nameless: Vec::new(),
            frame_bytes_max,
            compressor,
            pool,
            cluster: ClusterView::default(),
            topics: Vec::new(),
            topic_index: HashMap::new(),
            last_topic: 0,
            parts: Vec::new(),
            lanes: Vec::new(),
            opened: VecDeque::new(),
            delayed: Vec::new(),
            done: VecDeque::new(),
            deliveries_waiting: 0,
            results: Vec::new(),
            held_bytes: 0,
            records_outstanding: 0,
            wish: MetadataWish::seeded(u64::from(seed) + 1),
            next_expiry_scan_us: 0,
            trouble: None,
            metrics: ProducerMetrics::default(),
            seed,
            seeds_drawn: 1,
        })
    }

    /// The topic's index, if it is known and exists.
    #[inline]
    pub(crate) fn topic(&mut self, name: &str) -> Option<u32> {
        if let Some(topic) = self.topics.get(self.last_topic as usize)
            && topic.name == name
        {
            return (!topic.gone).then_some(self.last_topic);
        }
        let index = *self.topic_index.get(name)?;
        self.last_topic = index;
        (!self.topics[index as usize].gone).then_some(index)
    }

    /// Number of partitions of a topic.
    pub(crate) fn partitions(&self, topic: u32) -> u32 {
        self.topics[topic as usize].parts.len() as u32
    }

    /// The offset below which everything is durable in a partition, as of the newest answer.
    pub(crate) fn durable_end(&self, name: &str, partition: u32) -> Option<u64> {
        let topic = &self.topics[*self.topic_index.get(name)? as usize];
        let part = &self.parts[*topic.parts.get(partition as usize)? as usize];
        (part.durable_end > 0).then_some(part.durable_end)
    }

    /// Who leads a partition, as far as is known.
    #[cfg(test)]
    pub(crate) fn leader_of(&self, name: &str, partition: u32) -> Option<Owner> {
        let topic = &self.topics[*self.topic_index.get(name)? as usize];
        let part = &self.parts[*topic.parts.get(partition as usize)? as usize];
        self.lanes.get(part.lane as usize).map(|lane| lane.owner)
    }

    /// Takes over a newer view of the cluster.
    pub(crate) fn learn(&mut self, metadata: &Metadata, now: Now) {
        self.wish.on_learned(Some(now.mono_us.saturating_add(METADATA_AGE_US_MAX)));
        self.metrics.metadata_refreshes += 1;
        self.clear_trouble(Source::Metadata);
        let learned = self.cluster.learn_at(metadata, now);
        match learned {
            Learned::Older => return self.learn_leaders(metadata),
            Learned::Newer => {}
            Learned::Lower | Learned::OtherCluster => self.parts.iter_mut().for_each(|part| part.leader = Leadership::default()),
        }
        if learned == Learned::OtherCluster {
            self.leave_old_cluster(now);
        }
        for topic in &metadata.topics {
            if topic.error.is_ok() {
                self.learn_topic(topic, now);
            } else if let Some(&known) = self.topic_index.get(&topic.name)
                && !topic.error.retriable()
            {
                self.topic_gone(known, topic, now);
            }
        }
    }

    /// An older view: what it says of leaders counts where its term is higher.
    fn learn_leaders(&mut self, metadata: &Metadata) {
        for told in metadata.topics.iter().filter(|topic| topic.error.is_ok()) {
            let Some(&topic) = self.topic_index.get(&told.name) else { continue };
            for partition in &told.partitions {
                let Some(&id) = self.topics[topic as usize].parts.get(partition.index as usize) else { continue };
                let part = &mut self.parts[id as usize];
                if part.uid == partition.uid && part.leader.believes(partition.term, true) {
                    part.leader.learn(partition.term);
                    self.move_to_owner(id, Owner::from(partition));
                }
            }
        }
    }

    fn learn_topic(&mut self, metadata: &TopicMetadata, now: Now) {
        let topic = match self.topic_index.get(&metadata.name) {
            Some(&topic) => topic,
            None => {
                let topic = self.topics.len() as u32;
                self.topic_index.insert(metadata.name.clone(), topic);
                let sticky = self.seed % (metadata.partitions.len() as u32).max(1);
                let name = metadata.name.clone();
                let (batch_bytes, refused_bytes) = (self.config.batch_bytes, usize::MAX);
                let parts = Vec::new();
                self.topics.push(Topic {
                    name,
                    uid: metadata.uid,
                    parts,
                    sticky,
                    next_in_turn: sticky,
                    batch_bytes,
                    refused_bytes,
                    gone: false,
                });
                topic
            }
        };
        let known = &mut self.topics[topic as usize];
        known.gone = false;
        let recreated = known.uid != metadata.uid;
        known.uid = metadata.uid;
        if recreated {
            self.forget_batch_limit(topic);
        }
        for partition in &metadata.partitions {
            let place = partition.index as usize;
            let known = &mut self.topics[topic as usize];
            if place == known.parts.len() {
                known.parts.push(self.parts.len() as u32);
                let (batch_bytes, refused_bytes) = (known.batch_bytes, known.refused_bytes);
                let backoff = self.backoff();
                let leader = Leadership::told(partition.term);
                let part = Part::new(topic, partition.index, partition.uid, leader, batch_bytes, backoff);
                self.parts.push(Part { refused_bytes, ..part });
            }
            let id = self.topics[topic as usize].parts[place];
            let part = &mut self.parts[id as usize];
            let is_same = !recreated && part.uid == partition.uid;
            if is_same && !part.leader.believes(partition.term, false) {
                continue; // an older view of this partition
            }
            match is_same {
                true => part.leader.learn(partition.term),
                false => part.leader = Leadership::told(partition.term),
            }
            if part.uid != partition.uid {
                part.uid = partition.uid;
                part.sequence.restart();
                // What flies towards the old partition has to be answered first, and what waits was marked for it.
                part.probing = true;
                if part.in_flight == 0 && self.marks {
                    self.settle_marked(id, now);
                }
            }
            self.move_to_owner(id, Owner::from(partition));
        }
        if recreated {
            // Fewer partitions than before: what waits for the missing ones has nowhere to go.
            let known = &mut self.topics[topic as usize].parts;
            let missing = known.split_off(metadata.partitions.len().min(known.len()));
            for id in missing {
                let error = Arc::new(Error::NoSuchPartition {
                    topic: metadata.name.clone(),
                    partition: self.parts[id as usize].index,
                    partitions: metadata.partitions.len() as u32,
                });
                self.fail_waiting(id, &error, now);
            }
        }
    }

    fn lane_to(&mut self, owner: Owner) -> u32 {
        if let Some(lane) = self.lanes.iter().position(|lane| lane.owner == owner) {
            return lane as u32;
        }
        let backoff = self.backoff();
        let lane = match self.lanes.iter().position(Lane::is_free) {
            Some(lane) => {
                self.clear_trouble(Source::Lane(lane));
                self.lanes[lane].reuse(owner, backoff);
                lane
            }
            None => {
                self.lanes.push(Lane::new(owner, Conn::new(RECV_BYTES_FIRST, self.frame_bytes_max), backoff));
                self.lanes.len() - 1
            }
        };
        lane as u32
    }

    fn move_to_owner(&mut self, id: u32, owner: Owner) {
        let lane = self.lane_to(owner);
        let part = &mut self.parts[id as usize];
        if part.lane != lane {
            // What flies towards the old owner has to be answered before the new one gets anything.
            part.probing = true;
            if part.lane != NO_LANE {
                self.lanes[part.lane as usize].partitions -= 1;
            }
            self.lanes[lane as usize].partitions += 1;
            part.lane = lane;
            part.listed = false;
        }
        self.list(id);
    }

    fn topic_gone(&mut self, topic: u32, metadata: &TopicMetadata, now: Now) {
        let known = &mut self.topics[topic as usize];
        known.gone = true;
        let error = Arc::new(Error::Refused {
            request: format!("send to topic {:?}", known.name),
            code: metadata.error,
            retriable: false,
            message: String::new(),
            next: None,
        });
        for id in known.parts.clone() {
            self.fail_waiting(id, &error, now);
        }
    }

    /// Puts a partition into its lane's ready list, if it has something to send and may.
    fn list(&mut self, id: u32) {
        let part = &mut self.parts[id as usize];
        if part.listed || part.nameless || part.lane == NO_LANE || !part.has_work() || part.must_wait(self.in_flight_max) {
            return;
        }
        part.listed = true;
        self.lanes[part.lane as usize].ready.push_back(id);
    }

    /// The connection of a lane.
    pub(crate) fn conn(&mut self, lane: usize) -> &mut Conn {
        &mut self.lanes[lane].conn
    }

    /// Whether a lane has something to send and no connection.
    fn wants_connection(&self, lane: usize, now: Now) -> bool {
        let lane = &self.lanes[lane];
        !lane.open && !lane.connecting && lane.is_needed() && lane.connect_at_us <= now.mono_us
    }

    /// A lane's socket is connected and has said hello.
    pub(crate) fn on_connected(&mut self, lane_index: usize, address: &str, frame_bytes_max: u32, keepalive_ms: u32, now: Now) {
        // Room for the produce meta: 12 bytes per entry, and an entry's batch has 124 bytes at least.
        let payload_max = (frame_bytes_max as usize).min(tramline_wire::frame::PAYLOAD_BYTES_MAX as usize) / 8 * 7;
        let lane = &mut self.lanes[lane_index];
        lane.open = true;
        lane.connecting = false;
        lane.address = address.to_string();
        lane.silent = false;
        lane.request_bytes_max = self.config.request_bytes.min(payload_max);
        lane.payload_bytes_max = payload_max;
        lane.alive = Alive::opened(keepalive_ms, now);
        lane.last_error = None;
        for part in self.parts.iter_mut().filter(|part| part.lane as usize == lane_index) {
            part.batch_bytes = part.batch_bytes.min(payload_max);
        }
        self.metrics.connections_opened += 1;
        self.clear_trouble(Source::Lane(lane_index));
    }

    /// What keeps it from delivering just now.
    pub(crate) fn trouble(&self) -> Option<&Error> {
        self.trouble.as_ref().filter(|_| self.records_outstanding > 0).map(|(_, error)| error.as_ref())
    }

    fn clear_trouble(&mut self, source: Source) {
        if self.trouble.as_ref().is_some_and(|(of, _)| *of == source) {
            self.trouble = None;
        }
    }

    /// Waits of their own for each lane and partition.
    fn backoff(&mut self) -> Backoff {
        self.seeds_drawn += 1;
        Backoff::seeded(u64::from(self.seed) + u64::from(self.seeds_drawn))
    }

    /// Records taken whose fate is not known yet.
    pub(crate) fn records_outstanding(&self) -> usize {
        self.records_outstanding
    }

    /// Results that wait to be drained.
    pub(crate) fn deliveries_waiting(&self) -> usize {
        self.deliveries_waiting
    }

    /// Bytes held.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Hands out all results.
    pub(crate) fn drain(&mut self, mut each: impl FnMut(Delivery<'_>)) {
        while let Some(done) = self.done.pop_front() {
            let part = &self.parts[done.part as usize];
            let topic = self.topics[part.topic as usize].name.as_str();
            for (number, &tag) in done.tags.iter().enumerate() {
                let offset = done.base_offset.map(|base| base + number as u64);
                let error = done.error.as_deref();
                each(Delivery { tag, topic, partition: part.index, offset, level: done.level, error, first_sent_us: done.first_sent_us });
            }
            self.deliveries_waiting -= done.tags.len();
            self.pool.put_tags(done.tags);
        }
    }
}
