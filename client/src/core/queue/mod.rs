//! A queue's consumer without sockets: one Receive under way per owner, settlements in batches, leases that are not handed out given back.
//!
//! A call of `receive` begins, and ends with the first reply that brings messages. Where the queue's partitions have several owners, the call first asks those whose connections are
//! open one after the other, by turns, for what is there now; only when none of them has any are all asked at once to wait, and so is, as soon as its connection is open, whoever had
//! none (in a consumer's first call that is most of them). So nothing is leased ahead of the caller, except what an owner has to give within
//! [`WAIT_SLICE_US`](ask::WAIT_SLICE_US) after another one ended the call: it is handed out by the next call, or given back where its lease is half over by then.
//!
//! | file | job |
//! |---|---|
//! | `ask` | the call: whom to ask, for how long; when it is over |
//! | `answers` | whole frames to what they mean |
//! | `entry` | the batches of one partition to messages: checksums, offsets, decompression |
//! | `settle` | settlements: in batches to the owners, again where one may not have arrived |
//! | `lanes` | its connections as `core::links` sees them; owners |
//! | `tests` | the core against a broker in memory |
//!
//! Invariants: at most one Receive and one Settle are under way per lane; a settlement that was taken has one result, or was given up by its caller; nothing of a batch whose
//! checksum or structure is wrong is handed out; a message is handed out once per delivery.
//!
//! Not here: what a queue is (docs/PROTOCOL.md, "Queues").

mod answers;
mod ask;
mod entry;
mod lanes;
mod settle;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;

use settle::Entry;
use tramline_wire::error::ErrorCode;

use super::cluster::{ClusterView, Leadership, Owner};
use super::codec::Decompressor;
use super::wish::MetadataWish;
use super::{Alive, Backoff, Conn, Now};
use crate::clock::micros;
use crate::config::QueueConsumerConfig;
use crate::error::Error;
use crate::message::Message;
use crate::metrics::QueueConsumerMetrics;
use crate::queue_types::FoundQueue;
use crate::types::Metadata;

/// A partition of the queue.
#[derive(Debug)]
struct Part {
    index: u32,
    uid: u64,
    leader: Leadership,
    /// Index of the lane to its owner.
    lane: usize,
    /// Not asked for before this time, monotonic microseconds: after a refusal.
    not_before_us: u64,
    backoff: Backoff,
    /// Since when it is refused, monotonic microseconds; told as an error when it lasts.
    failing_since_us: Option<u64>,
    /// The newest refusal; `Ok` since something came of it.
    refusal: ErrorCode,
    /// Number of the newest Receive that named it.
    asked: u64,
}

/// A Receive that has no answer yet.
#[derive(Debug, Clone, Copy)]
struct Asked {
    /// Its own, of all that this consumer sent.
    number: u64,
    correlation: u64,
    /// Number of the call that it belongs to.
    call: u64,
    max_messages: u32,
    wait_us: u64,
    sent_us: u64,
    /// The first partition that was named, and how many were.
    first: usize,
    named: usize,
    /// They are not all that can be asked for: the others have the next turns.
    is_turn: bool,
}

/// A Settle that has no answer yet.
#[derive(Debug)]
struct Settling {
    correlation: u64,
    sent_us: u64,
    entries: Vec<Entry>,
}

/// A connection to an owner.
#[derive(Debug)]
struct Lane {
    owner: Owner,
    /// Partitions that it owns. Without any its connection is closed, and the lane is the next owner's.
    parts: usize,
    address: String,
    conn: Conn,
    open: bool,
    connecting: bool,
    connect_at_us: u64,
    backoff: Backoff,
    alive: Alive,
    /// Since when it could not be used, monotonic microseconds; told as an error when it lasts.
    failing_since_us: Option<u64>,
    /// Nothing is sent to it before this time, monotonic microseconds.
    not_before_us: u64,
    /// Nor a Receive before this one.
    ask_after_us: u64,
    asked: Option<Asked>,
    settling: Option<Settling>,
    /// It has had its say in the call under way: answered for all its partitions, refused, or cannot be reached.
    said: bool,
    /// So many partitions had their turn in the call under way.
    named: usize,
    /// The partition that is named first by the next Receive that cannot name all.
    next_part: usize,
    /// It has other partitions of the queue than this consumer knows of, so no Receive names all: until metadata was learned.
    names_few: bool,
}

/// A message that waits to be handed out.
#[derive(Debug)]
struct Ready {
    message: Message,
    /// From then on it is given back instead, monotonic microseconds.
    stale_at_us: u64,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct QueueCore {
    config: QueueConsumerConfig,
    queue: FoundQueue,
    /// What keeps it from receiving is told after so long.
    told_after_us: u64,
    request_timeout_us: u64,
    frame_bytes_max: u32,
    cluster: ClusterView,
    parts: Vec<Part>,
    by_uid: HashMap<u64, usize>,
    lanes: Vec<Lane>,
    decompressor: Decompressor,
    errors: VecDeque<Error>,
    /// Why nothing will ever be received again.
    gone: Option<Error>,
    wish: MetadataWish,
    ready: VecDeque<Ready>,
    call: ask::Call,
    /// The lane that is asked first by the next call.
    turn: usize,
    /// Number of the newest Receive.
    last_receive: u64,
    /// Settlements to be sent.
    waiting: VecDeque<Entry>,
    next_entry: u64,
    /// The entries whose results somebody waits for.
    wanted: Range<u64>,
    results: BTreeMap<u64, Result<(), Error>>,
    pub(crate) metrics: QueueConsumerMetrics,
    /// Of the waits between attempts.
    seed: u64,
}

impl QueueCore {
    pub(crate) fn new(
        config: QueueConsumerConfig,
        queue: FoundQueue,
        client: &crate::config::Config,
        metadata: &Metadata,
        seed: u64,
        now: Now,
    ) -> Result<QueueCore, Error> {
        config.check()?;
        let mut core = QueueCore {
            config,
            queue,
            told_after_us: micros(client.call_timeout),
            request_timeout_us: micros(client.request_timeout),
            frame_bytes_max: client.frame_bytes_max,
            cluster: ClusterView::default(),
            parts: Vec::new(),
            by_uid: HashMap::new(),
            lanes: Vec::new(),
            decompressor: Decompressor::new(),
            errors: VecDeque::new(),
            gone: None,
            wish: MetadataWish::seeded(seed),
            ready: VecDeque::new(),
            call: ask::Call::default(),
            turn: 0,
            last_receive: 0,
            waiting: VecDeque::new(),
            next_entry: 1,
            wanted: 0..0,
            results: BTreeMap::new(),
            metrics: QueueConsumerMetrics::default(),
            seed,
        };
        core.learn_view(metadata, now);
        Ok(core)
    }

    pub(crate) fn queue(&self) -> &FoundQueue {
        &self.queue
    }

    pub(crate) fn config(&self) -> &QueueConsumerConfig {
        &self.config
    }

    /// Everything that time or the caller's wishes bring: settlements, Receives, pings.
    pub(crate) fn step(&mut self, now: Now) {
        for lane in 0..self.lanes.len() {
            if !self.lanes[lane].open {
                continue;
            }
            self.send_settlements(lane, now);
            let lane = &mut self.lanes[lane];
            if lane.alive.ping_at_us() <= now.mono_us {
                // A ping without fields cannot be above a limit.
                let _ = lane.conn.request(tramline_wire::kind::Kind::Ping, |_| {});
                lane.alive.on_pinged(now);
            }
        }
        self.ask(now);
    }

    /// The oldest error that was not told yet; that the queue is gone is told again and again.
    pub(crate) fn take_error(&mut self) -> Option<Error> {
        self.errors.pop_front().or_else(|| self.gone.clone())
    }

    pub(crate) fn conn(&mut self, lane: usize) -> &mut Conn {
        &mut self.lanes[lane].conn
    }

    /// Whether an answer is overdue: the caller gives the connection up when a read brought nothing either.
    pub(crate) fn is_silent(&self, lane: usize, now: Now) -> bool {
        self.lanes[lane].open && self.lanes[lane].dead_at_us(self.request_timeout_us) <= now.mono_us
    }

    /// When [`step`](Self::step) has to run next even if nothing arrives, monotonic microseconds. What is due already was done by the step before.
    pub(crate) fn next_step_us(&self, now: Now) -> u64 {
        let later = |us: u64| if us > now.mono_us { us } else { u64::MAX };
        let mut next = self.wish.next_us().min(later(self.call.until_us));
        for part in &self.parts {
            next = next.min(later(part.not_before_us));
        }
        for lane in &self.lanes {
            next = next.min(later(lane.not_before_us)).min(later(lane.ask_after_us));
            if lane.open {
                next = next.min(lane.alive.ping_at_us()).min(lane.dead_at_us(self.request_timeout_us));
            } else if !lane.connecting && lane.parts > 0 {
                next = next.min(lane.connect_at_us);
            }
        }
        next
    }

    fn backoff(&mut self) -> Backoff {
        self.seed += 1;
        Backoff::seeded(self.seed)
    }
}

impl Part {
    /// Something sent at `sent_us` came of it: what was refused before is forgotten, what was refused since is not.
    fn answered(&mut self, sent_us: u64) {
        self.leader.worked();
        if self.not_before_us <= sent_us {
            self.backoff.reset();
            (self.failing_since_us, self.refusal) = (None, ErrorCode::Ok);
        }
    }
}

impl Lane {
    fn dead_at_us(&self, request_timeout_us: u64) -> u64 {
        let asked = self.asked.map_or(u64::MAX, |asked| asked.sent_us.saturating_add(asked.wait_us).saturating_add(request_timeout_us));
        let settling = self.settling.as_ref().map_or(u64::MAX, |settling| settling.sent_us.saturating_add(request_timeout_us));
        asked.min(settling).min(self.alive.dead_at_us(request_timeout_us))
    }
}
