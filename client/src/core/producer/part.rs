//! One partition as a producer sees it: its batches and the rule that keeps their order.
//!
//! **Order.** Batches of a partition are sent in order, several requests may be in flight. When one is refused in a way
//! that may pass (overloaded, not ready, not the leader, not known yet), nothing more is sent for the partition until every
//! batch in flight is answered; then those without a fate go back to the front of the queue, in order (`unresolved`).
//! An idempotent producer's broker took none that stands behind a refused one.
//!
//! Without idempotence later ones may have been accepted already: then the refused one is given back to the caller as failed,
//! as sending it now would put it behind its successor. While `probing` (at first, and after any refusal or lost connection)
//! one batch at a time is in flight, so the refusals that are common at a start break no order at all, and cost one batch's
//! bytes, not those of a window.

use std::collections::VecDeque;
use std::sync::Arc;

use super::batch::{Open, Sealed};
use super::sequence::Sequence;
use crate::core::cluster::Leadership;
use crate::core::{Backoff, Now};
use crate::error::Error;

/// No lane: the owner is not known.
pub(crate) const NO_LANE: u32 = u32::MAX;

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Part {
    /// Index of its topic in the core.
    pub topic: u32,
    /// Number within the topic.
    pub index: u32,
    pub uid: u64,
    pub leader: Leadership,
    /// Index of the lane to its owner, or [`NO_LANE`].
    pub lane: u32,
    pub open: Option<Open>,
    /// The open batch has waited long enough: it goes with the next request that has room.
    pub due: bool,
    /// An open batch is closed at this size: the producer's `batch_bytes`, or less where the broker takes less.
    pub batch_bytes: usize,
    /// The smallest batch that the broker refused for its size, as it travels.
    pub refused_bytes: usize,
    /// Sealed and not sent, in order of `seq`.
    pub queue: VecDeque<Sealed>,
    /// Batches sent and unanswered.
    pub in_flight: u32,
    /// One batch at a time. See the module's page.
    pub probing: bool,
    /// Refused in a way that may pass; waiting for the answers of what is in flight.
    pub refused: Vec<(Sealed, Arc<Error>)>,
    /// Highest `seq` that the broker accepted or may have accepted, plus one.
    pub accepted_next_seq: u64,
    pub next_seq: u64,
    /// Not before this time, after a refusal.
    pub retry_at_us: u64,
    pub backoff: Backoff,
    /// Why it was refused last: told when time runs out.
    pub last_error: Option<Arc<Error>>,
    /// A refusal came that calls for a wait before the next attempt; a lost connection has its lane's wait.
    pub wants_pause: bool,
    /// Times that its batches got new numbers since one was stored.
    pub renumbered: u32,
    /// Whether it stands in its lane's ready list.
    pub listed: bool,
    /// Whether it waits for an id instead.
    pub nameless: bool,
    /// The numbers of an idempotent producer.
    pub sequence: Sequence,
    /// All offsets below are durable, as of the newest answer.
    pub durable_end: u64,
}

impl Part {
    pub(crate) fn new(topic: u32, index: u32, uid: u64, leader: Leadership, batch_bytes: usize, backoff: Backoff) -> Part {
        Part {
            topic,
            index,
            uid,
            leader,
            lane: NO_LANE,
            open: None,
            due: false,
            batch_bytes,
            refused_bytes: usize::MAX,
            queue: VecDeque::new(),
            in_flight: 0,
            probing: true,
            refused: Vec::new(),
            accepted_next_seq: 0,
            next_seq: 0,
            retry_at_us: 0,
            backoff,
            last_error: None,
            wants_pause: false,
            renumbered: 0,
            listed: false,
            nameless: false,
            sequence: Sequence::default(),
            durable_end: 0,
        }
    }

    /// Whether there is something that should go out.
    pub(crate) fn has_work(&self) -> bool {
        !self.queue.is_empty() || (self.due && self.open.is_some())
    }

    /// Whether it has to wait for answers before it may send. `in_flight_max`: batches that may be in flight.
    pub(crate) fn must_wait(&self, in_flight_max: u32) -> bool {
        !self.refused.is_empty() || (self.probing && self.in_flight > 0) || self.in_flight >= in_flight_max
    }

    /// A batch was refused in a way that may pass.
    pub(crate) fn refuse(&mut self, batch: Sealed, error: Arc<Error>) {
        self.probing = true;
        self.last_error = Some(Arc::clone(&error));
        self.refused.push((batch, error));
    }

    /// Once nothing is in flight, without idempotence: puts refused batches back to the front of the queue, after a wait where one is called
    /// for, and returns those that must not be sent any more.
    pub(crate) fn settle_refused(&mut self, now: Now) -> Vec<(Sealed, Arc<Error>)> {
        if self.in_flight > 0 || self.refused.is_empty() {
            return Vec::new();
        }
        let mut refused = std::mem::take(&mut self.refused);
        refused.sort_by_key(|(batch, _)| batch.seq);
        let first_kept = refused.partition_point(|(batch, _)| batch.seq < self.accepted_next_seq);
        for (batch, _) in refused.drain(first_kept..).rev() {
            self.queue.push_front(batch);
        }
        let wait_us = if std::mem::take(&mut self.wants_pause) { self.backoff.next_us() } else { 0 };
        self.retry_at_us = now.mono_us.saturating_add(wait_us);
        refused
    }
}
