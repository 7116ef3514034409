//! Completions of the ring into events, effects of the core into operations, and the ends of connections.
//!
//! Invariant: effects are carried out in their order, before the next event is stepped.
//!
//! Not here: frames (`feed.rs`), the mesh's queues (`shard_loop.rs` empties the outbox).

use super::links::Links;
use super::rations::Rations;
use crate::config::Settings;
use crate::effects::{Effect, Effects, Event, Now};
use crate::fatal;
use crate::ids::{ConnId, ShardId};
use crate::metrics::{Health, ShardMetrics};
use crate::ring::{CloseReason, Completion, Ring, Role};
use crate::shard::mesh::Message;
use crate::shard::{Shard, Taken};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tramline_wire::frame::Limits;

/// A connection that is closed by us is cut after this time.
const CLOSE_US: u64 = 5_000_000;
/// The same when the node stops: replies under way get a moment; who does not read them is cut.
const LAST_CLOSE_US: u64 = 500_000;
/// How often idle receive buffers, and whatever is overdue, are looked at.
const SWEEP_US: u64 = 100_000;

/// What the edge needs of the core. A shard is one; tests of the edge bring their own.
pub(in crate::runtime) trait Core {
    /// As `Shard::step`.
    fn step(&mut self, now: Now, event: Event<'_>, effects: &mut Effects) -> Taken;
    /// As `Shard::metrics_mut`.
    fn metrics_mut(&mut self) -> &mut ShardMetrics;
}

impl Core for Shard {
    fn step(&mut self, now: Now, event: Event<'_>, effects: &mut Effects) -> Taken {
        Shard::step(self, now, event, effects)
    }
    fn metrics_mut(&mut self) -> &mut ShardMetrics {
        Shard::metrics_mut(self)
    }
}

/// What an edge is made of.
pub(in crate::runtime) struct EdgeParts {
    pub(in crate::runtime) id: ShardId,
    pub(in crate::runtime) settings: Arc<Settings>,
    pub(in crate::runtime) ring: Ring,
    /// With what the core asked for at its start.
    pub(in crate::runtime) effects: Effects,
    pub(in crate::runtime) health: Arc<Health>,
    /// The shard's directory: evidence of a failure is written there.
    pub(in crate::runtime) dir: PathBuf,
}

/// The edge of one shard.
pub(in crate::runtime) struct Edge {
    pub(super) id: ShardId,
    health: Arc<Health>,
    dir: PathBuf,
    pub(in crate::runtime) ring: Ring,
    pub(super) effects: Effects,
    /// Messages to other shards, in order.
    pub(in crate::runtime) outbox: VecDeque<(ShardId, Message)>,
    /// The earliest time at which the core wants to be told, in `Now::mono_us`; `u64::MAX` for none.
    pub(in crate::runtime) deadline_us: u64,
    next_sweep_us: u64,
    /// Of frames of clients.
    pub(super) limits: Limits,
    /// Above it nothing more is read from a connection that only answers questions.
    pub(super) send_queue_bytes_max: usize,
    /// Connections whose next frame the core could not take.
    pub(super) blocked: VecDeque<ConnId>,
    retry_blocked: bool,
    /// Connections with too much in their send queue to read more from them.
    pub(super) choked: Vec<ConnId>,
    pub(super) client_rations: Rations,
    pub(super) node_rations: Rations,
    pub(super) links: Links,
    /// Connections we closed, and when they are cut: oldest first.
    closing: VecDeque<(ConnId, u64)>,
    /// The node stops, and everything has been closed: nothing is dialed any more.
    is_over: bool,
}

impl Edge {
    pub(in crate::runtime) fn new(parts: EdgeParts) -> Edge {
        let EdgeParts { id, settings, ring, effects, health, dir } = parts;
        Edge {
            id,
            health,
            dir,
            ring,
            effects,
            outbox: VecDeque::new(),
            deadline_us: 0,
            next_sweep_us: 0,
            limits: Limits { frame_bytes_max: settings.frame_max_bytes, ..Limits::default() },
            send_queue_bytes_max: settings.connection_send_queue_bytes,
            blocked: VecDeque::new(),
            retry_blocked: false,
            choked: Vec::new(),
            client_rations: Rations::new(settings.receive_bytes_max),
            node_rations: Rations::new(settings.cluster_receive_bytes_max),
            links: Links::default(),
            closing: VecDeque::new(),
            is_over: false,
        }
    }

    /// Steps the core with an event that it cannot refuse, and carries out what comes of it.
    pub(in crate::runtime) fn step(&mut self, core: &mut impl Core, now: Now, event: Event<'_>) {
        let taken = core.step(now, event, &mut self.effects);
        assert_eq!(taken, Taken::Yes, "only frames can be blocked");
        self.carry(core, now);
    }

    pub(in crate::runtime) fn on_completion(&mut self, core: &mut impl Core, now: Now, completion: Completion) {
        match completion {
            Completion::Accepted { conn, .. } => self.on_accepted(core, now, conn),
            Completion::Connected { conn } => {
                core.metrics_mut().counters.node_connections_dialed += 1;
                let dial = self.links.dialed(conn);
                self.step(core, now, Event::Dialed { dial, conn });
                self.ring.rearm_recv(conn, 0);
            }
            Completion::ConnectFailed { conn, errno } => {
                core.metrics_mut().counters.node_dials_failed += 1;
                let (dial, address, errno) = self.links.dial_failed(conn, errno);
                tracing::debug!(shard = self.id.0, "dialing {address} failed: {}", std::io::Error::from_raw_os_error(errno));
                self.step(core, now, Event::DialFailed { dial, errno });
            }
            Completion::Received { conn } => self.feed(core, now, conn),
            Completion::Sent { conn, queued_bytes } => {
                self.step(core, now, Event::Sent { conn, queued_bytes });
                if queued_bytes <= self.send_queue_bytes_max / 2
                    && let Some(at) = self.choked.iter().position(|c| *c == conn)
                {
                    self.choked.swap_remove(at);
                    self.feed(core, now, conn);
                }
            }
            Completion::Closed { conn, reason } => self.on_closed(core, now, conn, reason),
            Completion::Io { token, outcome } => self.step(core, now, Event::Done { token, outcome }),
        }
    }

    fn on_accepted(&mut self, core: &mut impl Core, now: Now, conn: ConnId) {
        match self.ring.role(conn) {
            Some(Role::Client) => self.step(core, now, Event::Opened { conn }),
            Some(Role::NodeAccepted) => {
                core.metrics_mut().counters.node_connections_accepted += 1;
                self.links.accepted(now.mono_us, conn, self.ring.peer(conn));
                self.step(core, now, Event::NodeOpened { conn });
            }
            other => unreachable!("{conn:?} was just accepted, and is {other:?}"),
        }
        self.ring.rearm_recv(conn, 0);
    }

    fn on_closed(&mut self, core: &mut impl Core, now: Now, conn: ConnId, reason: CloseReason) {
        if let Some(link) = self.links.closed(conn) {
            let peer = link.peer();
            match self.links.tells_end(now.mono_us, peer) {
                Some(0) => tracing::info!(shard = self.id.0, "the connection with another node at {peer} has ended: {reason:?}"),
                Some(untold) => tracing::info!(
                    shard = self.id.0,
                    "the connection with another node at {peer} has ended: {reason:?} ({untold} others there since this was said last)"
                ),
                None => tracing::debug!(shard = self.id.0, "the connection with another node at {peer} has ended: {reason:?}"),
            }
        } else if let CloseReason::Error(errno) = reason {
            tracing::debug!(shard = self.id.0, conn = conn.0, errno, "connection failed");
        }
        self.choked.retain(|c| *c != conn);
        self.blocked.retain(|c| *c != conn);
        self.forget_hunger(core, now, conn);
        self.closing.retain(|(c, _)| *c != conn);
        self.step(core, now, Event::Closed { conn });
    }

    /// Tries frames again that the core could not take, once it has said that there may be room. Answers whether it had.
    pub(in crate::runtime) fn retry_blocked(&mut self, core: &mut impl Core, now: Now) -> bool {
        let retries = std::mem::take(&mut self.retry_blocked);
        if retries {
            for _ in 0..self.blocked.len() {
                let conn = self.blocked.pop_front().expect("bounded by the length");
                self.feed(core, now, conn);
            }
        }
        retries
    }

    /// Does what time alone makes due, if it is time to look. Answers whether it was.
    pub(in crate::runtime) fn maybe_sweep(&mut self, core: &mut impl Core, now: Now) -> bool {
        if now.mono_us < self.next_sweep_us {
            return false;
        }
        self.next_sweep_us = now.mono_us + SWEEP_US;
        self.ring.sweep_idle();
        while self.closing.front().is_some_and(|(_, at_us)| *at_us <= now.mono_us) {
            let (conn, _) = self.closing.pop_front().expect("looked at above");
            self.ring.abort(conn);
        }
        while let Some(conn) = self.links.next_overdue_dial(now.mono_us) {
            self.ring.abort(conn);
        }
        while let Some(conn) = self.links.next_unheard(now.mono_us) {
            self.close_silent(core, now, conn);
        }
        self.serve_hungry(core, now);
        true
    }

    /// When to be woken at the latest, in `Now::mono_us`; `u64::MAX` for not at all: when the core wants it, or for the next sweep where somebody waits for
    /// what that looks at.
    pub(in crate::runtime) fn next_wake_us(&self) -> u64 {
        if self.is_anything_due() { self.deadline_us.min(self.next_sweep_us) } else { self.deadline_us }
    }

    fn is_anything_due(&self) -> bool {
        let is_anybody_hungry = self.client_rations.is_anybody_waiting() || self.node_rations.is_anybody_waiting();
        is_anybody_hungry || !self.closing.is_empty() || self.links.is_anything_due()
    }

    /// Somebody has connected to the port for nodes and says nothing.
    fn close_silent(&mut self, core: &mut impl Core, now: Now, conn: ConnId) {
        let Some(link) = self.links.get(conn) else { return };
        core.metrics_mut().counters.node_connections_refused_silent += 1;
        let limit_s = crate::constants::NODE_HELLO_US / 1_000_000;
        tracing::warn!(
            shard = self.id.0,
            "{} connected to the port for nodes and sent no whole frame within {limit_s} s: closed",
            link.peer()
        );
        self.close(now, conn);
    }

    /// Closes a connection once what was sent has gone out, and cuts it after a while.
    pub(super) fn close(&mut self, now: Now, conn: ConnId) {
        self.ring.close(conn);
        self.closing.push_back((conn, now.mono_us + CLOSE_US));
    }

    /// The core has closed its connections for the last time: so are those with other nodes, nothing is dialed any more, and nobody is waited for.
    pub(in crate::runtime) fn close_for_good(&mut self, core: &mut impl Core, now: Now) {
        self.is_over = true;
        self.carry(core, now);
        for conn in self.links.ids() {
            if !self.closing.iter().any(|(c, _)| *c == conn) {
                self.close(now, conn);
            }
        }
        for conn in self.links.dials() {
            self.ring.abort(conn);
        }
        let cut_us = now.mono_us + LAST_CLOSE_US;
        self.closing.iter_mut().for_each(|(_, at_us)| *at_us = (*at_us).min(cut_us));
    }

    /// Whether all connections have been closed for the last time.
    pub(in crate::runtime) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether connections that we closed have not ended.
    pub(in crate::runtime) fn is_closing(&self) -> bool {
        !self.closing.is_empty()
    }

    /// The list of effects, for a core that is asked for something outside of `step`; `carry` has to follow.
    pub(in crate::runtime) fn effects(&mut self) -> &mut Effects {
        &mut self.effects
    }

    /// Sets what the edge knows of how things stand, before the numbers leave the shard.
    pub(in crate::runtime) fn fill_metrics(&self, metrics: &mut ShardMetrics) {
        metrics.gauges.node_connections = self.links.len() as u64;
        metrics.gauges.memory_receive_nodes = self.ring.recv_nodes_memory_bytes() as u64;
        metrics.counters.node_connections_refused_limit = self.ring.stats().refused_nodes_count;
    }

    /// Carries out what the core asked for.
    pub(in crate::runtime) fn carry(&mut self, core: &mut impl Core, now: Now) {
        let mut list = std::mem::take(&mut self.effects.list);
        for effect in list.drain(..) {
            match effect {
                Effect::Write { token, file, pos, data } => self.ring.write(token, file, pos, data),
                Effect::Read { token, file, pos, buf } => self.ring.read(token, file, pos, buf),
                Effect::File { token, op } => self.ring.file_op(token, op),
                Effect::Send { conn, head, parts } => {
                    let head = &self.effects.heads[head.start as usize..head.end as usize];
                    let parts = &self.effects.parts[parts.start as usize..parts.end as usize];
                    if let Some(link) = self.ring.role(conn).filter(|role| role.is_node()).and_then(|_| self.links.get_mut(conn)) {
                        link.has_spoken = true;
                        let counters = &mut core.metrics_mut().counters;
                        counters.node_frames_out += 1;
                        counters.node_bytes_out += (head.len() + parts.iter().map(crate::bytes::Bytes::len).sum::<usize>()) as u64;
                    }
                    self.ring.send(conn, head, parts);
                }
                Effect::Close { conn, reason } => {
                    tracing::debug!(shard = self.id.0, conn = conn.0, reason, "closing a connection");
                    self.close(now, conn);
                }
                Effect::Dial { dial, address } => self.dial(now, dial, address),
                Effect::Mesh { to, message } => self.outbox.push_back((to, message)),
                Effect::Unblock => self.retry_blocked = true,
                Effect::Fatal { reason } => {
                    self.health.failed(self.id, &reason);
                    // The evidence is written on a thread of its own; nobody here waits for it.
                    drop(fatal::shard_stops(self.id, &self.dir, &reason, now.utc_us));
                }
            }
        }
        self.effects.list = list;
        self.deadline_us = self.deadline_us.min(self.effects.deadline_us);
        self.effects.clear();
    }

    fn dial(&mut self, now: Now, dial: u64, address: SocketAddr) {
        let conn = self.ring.connect(address);
        self.links.dialing(now.mono_us, conn, dial, address);
        if self.is_over {
            self.ring.abort(conn);
        }
    }
}
