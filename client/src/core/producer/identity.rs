//! The producer's id: asked for over whichever connection is open, when the first batch needs its mark.
//!
//! Partitions that need one wait in `nameless`, outside of their lanes' lists; when their connection is lost they go back there, so that another one is
//! opened for them. An id is used by all partitions; one whose epochs are used up, or whose id somebody else uses, makes the core ask for another.

use std::sync::Arc;
use std::time::Duration;

use tramline_wire::kind::Kind;
use tramline_wire::producer::{InitProducerReply, InitProducerRequest};

use super::{ProducerCore, Source};
use crate::core::Now;
use crate::core::cluster::Hops;
use crate::error::Error;

/// See the module's page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Identity {
    /// To be asked for, once somebody needs it, not before this time.
    Wanted { at_us: u64 },
    /// Asked for; the connection is given up when there is no answer by then.
    Asked { lane: usize, correlation: u64, until_us: u64 },
    /// In use.
    Known { id: u64 },
}

impl ProducerCore {
    /// A partition cannot go on without an id.
    pub(super) fn await_identity(&mut self, id: u32) {
        let part = &mut self.parts[id as usize];
        if !part.nameless {
            part.nameless = true;
            self.nameless.push(id);
        }
    }

    /// Asks over this lane, if somebody needs an id, nobody asked yet and it is time. Not where it was just refused, nor where another node was
    /// named, as long as there is another connection.
    pub(super) fn maybe_ask_identity(&mut self, lane_index: usize, now: Now) {
        let Identity::Wanted { at_us } = self.identity else { return };
        if at_us > now.mono_us || !self.lanes[lane_index].may_ask_id() {
            return;
        }
        let may_others = |except: usize| self.lanes.iter().enumerate().any(|(other, lane)| other != except && lane.may_ask_id());
        let is_named_elsewhere = !self.lanes[lane_index].asks_id && self.lanes.iter().any(|lane| lane.asks_id);
        if is_named_elsewhere || self.identity_refused_by == Some(lane_index) && may_others(lane_index) {
            return;
        }
        let lane = &mut self.lanes[lane_index];
        // A request without fields cannot be above a limit.
        if let Ok(correlation) = lane.conn.request(Kind::InitProducer, |meta| InitProducerRequest {}.encode(meta)) {
            let until_us = now.mono_us.saturating_add(self.request_timeout_us);
            self.identity = Identity::Asked { lane: lane_index, correlation, until_us };
            lane.alive.on_sent(now);
        }
    }

    /// The id of a partition is used up: the core needs another, unless it has one already.
    pub(super) fn drop_identity(&mut self, used: u64, now: Now) {
        if self.identity == (Identity::Known { id: used }) {
            self.identity = Identity::Wanted { at_us: now.mono_us };
        }
    }

    /// Whether this is the request for an id.
    pub(super) fn is_identity_request(&self, lane: usize, correlation: u64) -> bool {
        matches!(self.identity, Identity::Asked { lane: asked, correlation: known, .. } if asked == lane && known == correlation)
    }

    /// An id came. An error means that it is none, and that its connection has to be given up: marks without an id, or a window without
    /// room, are nothing that a node of this protocol asks for.
    pub(super) fn on_identity(&mut self, lane: usize, reply: &InitProducerReply, now: Now) -> Result<(), Error> {
        let InitProducerReply { producer_id, batches_kept, .. } = *reply;
        if producer_id == 0 || batches_kept == 0 {
            let message = format!("it gave out the producer id {producer_id}, of which it keeps {batches_kept} batches; both are above 0");
            return Err(Error::protocol(&self.lanes[lane].address, message));
        }
        let half_expiry = Duration::from_millis(u64::from(reply.expiry_ms) / 2);
        if self.config.delivery_timeout > half_expiry {
            let message = format!(
                "delivery_timeout is {:?}, and the node forgets an idle producer so soon that only {half_expiry:?} are safe: lower delivery_timeout, \
                 or raise the node's producer.expiry to twice of it",
                self.config.delivery_timeout
            );
            self.on_identity_refused(lane, Error::config(&message), now);
            return Ok(());
        }
        self.ask_no_named();
        self.identity_hops = Hops::default();
        self.identity = Identity::Known { id: producer_id };
        self.identity_backoff.reset();
        self.in_flight_max = u32::from(batches_kept);
        self.clear_trouble(Source::Identity);
        self.release_nameless();
        Ok(())
    }

    /// No id, for now. What waits for it fails when asking again would not help. Where another node is named, that one is asked at once.
    pub(super) fn on_identity_refused(&mut self, lane: usize, error: Error, now: Now) {
        self.ask_no_named();
        self.identity_refused_by = Some(lane);
        let named = error.next_address().and_then(|next| self.cluster.owner_at(next));
        match named.filter(|named| self.identity_hops.may_follow(self.lanes[lane].owner, *named)) {
            Some(owner) => {
                let named = self.lane_to(owner);
                self.lanes[named as usize].asks_id = true;
                self.identity = Identity::Wanted { at_us: now.mono_us };
            }
            None => self.identity = Identity::Wanted { at_us: now.mono_us.saturating_add(self.identity_backoff.next_us()) },
        }
        if asks_for_metadata(&error) {
            self.wish.want(now);
        }
        let lasting = !error.retriable();
        let error = Arc::new(error);
        self.trouble = Some((Source::Identity, Arc::clone(&error)));
        if lasting {
            for id in self.nameless.clone() {
                self.fail_waiting(id, &error, now);
            }
        }
    }

    /// Nobody in particular is asked for the id any more.
    fn ask_no_named(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.asks_id = false);
    }

    /// The connection that was asked is gone; whoever waits wants another.
    pub(super) fn on_identity_lost(&mut self, lost_lane: usize, now: Now) {
        self.lanes[lost_lane].asks_id = false;
        if matches!(self.identity, Identity::Asked { lane, .. } if lane == lost_lane) {
            self.identity = Identity::Wanted { at_us: now.mono_us };
        }
        self.release_nameless();
    }

    /// Lets those that wait ask for themselves, over whichever connection.
    fn release_nameless(&mut self) {
        for id in std::mem::take(&mut self.nameless) {
            self.parts[id as usize].nameless = false;
            self.list(id);
        }
    }

    /// When an id may be asked for next, if somebody waits for one.
    pub(super) fn identity_at_us(&self) -> Option<u64> {
        match self.identity {
            // One that was named is asked as soon as its connection is there.
            Identity::Wanted { at_us } if !self.nameless.is_empty() && !self.lanes.iter().any(|lane| lane.asks_id) => Some(at_us),
            _ => None,
        }
    }
}

/// Whether who refused an id may know no leader, so that others are to be looked for.
fn asks_for_metadata(error: &Error) -> bool {
    error.code().is_some_and(super::settle::asks_for_metadata)
}
