//! A lane: the producer's connection to one owner (node, shard) with its window of requests in flight.

use std::collections::VecDeque;
use std::sync::Arc;

use super::batch::Sealed;
use crate::core::cluster::Owner;
use crate::core::{Alive, Backoff, Conn, Now};
use crate::error::Error;

/// A request sent (or queued for sending) and unanswered.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub correlation: u64,
    /// Its batches, in the order of the request's entries.
    pub batches: Vec<Sealed>,
    /// Where it starts and ends in the connection's outgoing bytes.
    pub start: u64,
    pub end: u64,
    /// The connection is given up when there is no answer by then, monotonic microseconds.
    pub deadline_us: u64,
    /// Whether its first byte went to the socket: then its batches know when.
    pub on_wire: bool,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Lane {
    pub owner: Owner,
    /// Where it is connected to, or was last.
    pub address: String,
    pub conn: Conn,
    /// Whether a socket is connected and said hello.
    pub open: bool,
    /// Partitions that it leads to. Without any it is closed, and its place is used again.
    pub partitions: u32,
    /// The producer's id is asked for here, because another node named it.
    pub asks_id: bool,
    /// Its connection leads to where nothing is sent any more: it is to be closed.
    pub given_up: bool,
    /// A connection is being opened.
    pub connecting: bool,
    /// Not before this time, after a failure.
    pub connect_at_us: u64,
    pub backoff: Backoff,
    pub window: VecDeque<InFlight>,
    /// Partitions with work, each at most once (see `Part::listed`).
    pub ready: VecDeque<u32>,
    /// The broker asked for a pause until then.
    pub pause_until_us: u64,
    /// Most payload bytes of one request that carries several batches.
    pub request_bytes_max: usize,
    /// Most payload bytes that the broker takes at all.
    pub payload_bytes_max: usize,
    pub alive: Alive,
    /// A request or a ping was not answered in time, as of the last look.
    pub silent: bool,
    /// Why it is not open.
    pub last_error: Option<Arc<Error>>,
    /// Lists of batches to use again.
    pub spare: Vec<Vec<Sealed>>,
}

impl Lane {
    pub(crate) fn new(owner: Owner, conn: Conn, backoff: Backoff) -> Lane {
        Lane {
            owner,
            address: String::new(),
            conn,
            open: false,
            partitions: 0,
            asks_id: false,
            given_up: false,
            connecting: false,
            connect_at_us: 0,
            backoff,
            window: VecDeque::new(),
            ready: VecDeque::new(),
            pause_until_us: 0,
            request_bytes_max: 0,
            payload_bytes_max: 0,
            alive: Alive::default(),
            silent: false,
            last_error: None,
            spare: Vec::new(),
        }
    }

    /// Notes when the batches of requests went to the socket whose first byte is among those written until now.
    pub(crate) fn mark_sent(&mut self, now: Now) {
        let written = self.conn.out().written();
        // Bytes go in order, so those that were not marked yet are the last ones.
        for request in self.window.iter_mut().rev().take_while(|request| !request.on_wire) {
            if request.start < written {
                request.on_wire = true;
                for batch in &mut request.batches {
                    batch.first_sent_us.get_or_insert(now.mono_us);
                }
            }
        }
    }

    /// Takes the place of one that leads to nothing. Its connection's correlations go on.
    pub(crate) fn reuse(&mut self, owner: Owner, backoff: Backoff) {
        self.owner = owner;
        self.backoff = backoff;
        self.connect_at_us = 0;
        self.pause_until_us = 0;
        self.last_error = None;
        self.address.clear();
        self.ready.clear();
    }

    /// Whether something waits for its connection.
    pub(crate) fn is_needed(&self) -> bool {
        !self.ready.is_empty() || self.asks_id
    }

    /// Whether the producer's id can be asked for here.
    pub(crate) fn may_ask_id(&self) -> bool {
        self.open && !self.given_up
    }

    /// Whether it leads to nothing, and nobody waits for it.
    pub(crate) fn is_free(&self) -> bool {
        self.partitions == 0 && !self.asks_id && !self.open && !self.connecting
    }

    /// Whether its connection is of no use any more.
    pub(crate) fn is_useless(&self) -> bool {
        self.open && (self.given_up || self.partitions == 0 && !self.asks_id && self.window.is_empty())
    }

    /// Whether the request of this correlation was written whole, if there is one.
    pub(crate) fn is_written(&self, correlation: u64) -> bool {
        let written = self.conn.out().written();
        self.window.iter().find(|request| request.correlation == correlation).is_none_or(|request| request.end <= written)
    }

    /// Takes the request of this correlation out of the window. Answers mostly come in order, so it is the first.
    pub(crate) fn take_in_flight(&mut self, correlation: u64) -> Option<InFlight> {
        let at = self.window.iter().position(|request| request.correlation == correlation)?;
        self.window.remove(at)
    }
}
