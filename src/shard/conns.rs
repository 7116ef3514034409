//! Connections as the core sees them: who said hello, who is silent, who does not read.
//!
//! Not here: sockets and buffers (ring/).

use crate::effects::Now;
use crate::ids::{ConnId, IdMap, ShardId};

/// One connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) said_hello: bool,
    /// When the last whole frame came, `Now::mono_us`.
    last_frame_us: u64,
    /// Since when a frame is only partly there.
    partial_since_us: Option<u64>,
    /// Bytes of replies that the kernel has not taken, and since when none was taken.
    pub(super) queued_bytes: usize,
    stuck_since_us: Option<u64>,
    /// When the frame came that is whole and was not taken in yet; 0 without one.
    held_since_us: u64,
    /// Whether requests of it were passed to other shards, which must hear of its end.
    pub(super) forwarded: bool,
    /// Streams that live on other shards: (correlation, shard), `STREAMS_MAX` at most.
    streams: Vec<(u64, ShardId)>,
}

/// Why the core ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    Idle,
    PartialFrame,
    SlowReader,
}

/// All connections of a shard.
#[derive(Debug, Default)]
pub(super) struct Conns {
    by_id: IdMap<ConnId, Conn>,
    next_sweep_us: u64,
}

/// How often silence is looked for. Time-outs are late by at most this.
const SWEEP_US: u64 = 250_000;
/// Streams on other shards that are remembered per connection.
const STREAMS_MAX: usize = 1024;

impl Conns {
    pub(super) fn open(&mut self, now: Now, conn: ConnId) {
        let state = Conn {
            said_hello: false,
            last_frame_us: now.mono_us,
            partial_since_us: None,
            queued_bytes: 0,
            stuck_since_us: None,
            held_since_us: 0,
            forwarded: false,
            streams: Vec::new(),
        };
        self.by_id.insert(conn, state);
    }

    pub(super) fn get_mut(&mut self, conn: ConnId) -> Option<&mut Conn> {
        self.by_id.get_mut(&conn)
    }

    pub(super) fn is_open(&self, conn: ConnId) -> bool {
        self.by_id.contains_key(&conn)
    }

    pub(super) fn queued_bytes(&self, conn: ConnId) -> usize {
        self.by_id.get(&conn).map_or(0, |c| c.queued_bytes)
    }

    pub(super) fn total_queued_bytes(&self) -> u64 {
        self.by_id.values().map(|c| c.queued_bytes as u64).sum()
    }

    pub(super) fn on_partial(&mut self, now: Now, conn: ConnId) {
        if let Some(state) = self.by_id.get_mut(&conn) {
            state.partial_since_us.get_or_insert(now.mono_us);
        }
    }

    /// We have stopped reading it.
    pub(super) fn on_paused(&mut self, conn: ConnId) {
        if let Some(state) = self.by_id.get_mut(&conn) {
            state.partial_since_us = None;
        }
    }

    /// A whole frame came, or comes again. Answers whether hello was said before, and when it came, `Now::mono_us`.
    pub(super) fn on_frame(&mut self, now: Now, conn: ConnId) -> (bool, u64) {
        let Some(state) = self.by_id.get_mut(&conn) else { return (false, now.mono_us) };
        state.last_frame_us = now.mono_us;
        state.partial_since_us = None;
        let came_us = std::mem::take(&mut state.held_since_us);
        (state.said_hello, if came_us == 0 { now.mono_us } else { came_us })
    }

    /// The frame that came at this time could not be taken in, and will come again.
    pub(super) fn on_held(&mut self, conn: ConnId, came_us: u64) {
        if let Some(state) = self.by_id.get_mut(&conn) {
            state.held_since_us = came_us;
        }
    }

    pub(super) fn on_sent(&mut self, now: Now, conn: ConnId, queued_bytes: usize) {
        if let Some(state) = self.by_id.get_mut(&conn) {
            state.stuck_since_us = (queued_bytes > 0).then_some(now.mono_us);
            state.queued_bytes = queued_bytes;
            // A stream's reader sends nothing for long times: taking what we send is a sign of life as well.
            state.last_frame_us = state.last_frame_us.max(now.mono_us);
        }
    }

    /// Bytes were handed to the edge for this connection.
    pub(super) fn on_queued(&mut self, now: Now, conn: ConnId, bytes: usize) {
        if let Some(state) = self.by_id.get_mut(&conn) {
            state.queued_bytes += bytes;
            state.stuck_since_us.get_or_insert(now.mono_us);
        }
    }

    /// A request was passed to another shard; `stream` if it opens one there.
    pub(super) fn on_forwarded(&mut self, conn: ConnId, stream: Option<(u64, ShardId)>) {
        let Some(state) = self.by_id.get_mut(&conn) else { return };
        state.forwarded = true;
        if let Some(stream) = stream {
            state.streams.retain(|s| s.0 != stream.0);
            state.streams.push(stream);
        }
    }

    /// Whether one more stream on another shard is allowed.
    pub(super) fn has_room_for_stream(&self, conn: ConnId) -> bool {
        self.by_id.get(&conn).is_some_and(|c| c.streams.len() < STREAMS_MAX)
    }

    /// A stream on another shard was cancelled.
    pub(super) fn forget_stream(&mut self, conn: ConnId, stream: u64) {
        if let Some(state) = self.by_id.get_mut(&conn) {
            state.streams.retain(|s| s.0 != stream);
        }
    }

    /// The shard on which a stream of this connection lives, if it is another one.
    pub(super) fn stream_owner(&self, conn: ConnId, stream: u64) -> Option<ShardId> {
        self.by_id.get(&conn)?.streams.iter().find(|s| s.0 == stream).map(|s| s.1)
    }

    pub(super) fn close(&mut self, conn: ConnId) -> Option<Conn> {
        self.by_id.remove(&conn)
    }

    /// All connections, in order.
    pub(super) fn ids(&self) -> Vec<ConnId> {
        let mut ids: Vec<_> = self.by_id.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Connections whose time is over, with the reason, every `SWEEP_US`.
    pub(super) fn overdue(&mut self, now: Now, idle_us: u64, partial_us: u64) -> Vec<(ConnId, Overdue)> {
        if now.mono_us < self.next_sweep_us {
            return Vec::new();
        }
        self.next_sweep_us = now.mono_us + SWEEP_US;
        let late = |since: u64, limit: u64| now.mono_us.saturating_sub(since) > limit;
        let mut overdue = Vec::new();
        for (conn, state) in &self.by_id {
            if state.partial_since_us.is_some_and(|since| late(since, partial_us)) {
                overdue.push((*conn, Overdue::PartialFrame));
            } else if state.stuck_since_us.is_some_and(|since| late(since, idle_us)) {
                overdue.push((*conn, Overdue::SlowReader));
            } else if state.stuck_since_us.is_none() && late(state.last_frame_us, idle_us) {
                overdue.push((*conn, Overdue::Idle));
            }
        }
        overdue.sort_unstable_by_key(|(conn, _)| *conn);
        overdue
    }

    /// When to sweep next; nothing to sweep without connections.
    pub(super) fn next_sweep_us(&self) -> u64 {
        if self.by_id.is_empty() { u64::MAX } else { self.next_sweep_us }
    }
}

/// Bytes of forwarded requests under way to each other shard, bounded so that no inbox grows without end.
#[derive(Debug, Default)]
pub(super) struct ForwardBudget {
    under_way: Vec<u64>,
}

/// Bytes of requests that may be under way from one shard to another.
const FORWARD_BYTES_MAX: u64 = 8 << 20;

impl ForwardBudget {
    pub(super) fn new(shards: u16) -> ForwardBudget {
        ForwardBudget { under_way: vec![0; usize::from(shards)] }
    }

    /// Takes room for `weight`; one message is always let through.
    pub(super) fn take(&mut self, to: ShardId, weight: u64) -> bool {
        let under_way = &mut self.under_way[usize::from(to.0)];
        if *under_way > 0 && *under_way + weight > FORWARD_BYTES_MAX {
            return false;
        }
        *under_way += weight;
        true
    }

    pub(super) fn give_back(&mut self, to: ShardId, weight: u64) {
        let under_way = &mut self.under_way[usize::from(to.0)];
        *under_way = under_way.checked_sub(weight).expect("only what was sent is taken in");
    }
}
