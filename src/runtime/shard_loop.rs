//! The loop of one shard: reap completions, step the core, carry out its effects, submit; spin or sleep when there is nothing.
//!
//! Invariants: one clock read and one bounded drain per cycle; frames of one connection are stepped in order; a frame that the core
//! cannot take now stays in its receive buffer, and nothing more is read from that connection; background turns run when
//! nothing else is to be done, or every millisecond under load.
//!
//! Not here: decisions. Not here either: how the ring does what it is told.

use super::clock::Clock;
use super::mesh::{Envelope, Hub};
use super::park::Bed;
use super::stuck_writes::{NAP, StuckWrites};
use crate::config::{Settings, Spin};
use crate::effects::{Effect, Effects, Event, Now};
use crate::fatal;
use crate::ids::{ConnId, ShardId};
use crate::metrics::Health;
use crate::ring::{CloseReason, Completion, Ring, Role};
use crate::shard::mesh::Message;
use crate::shard::{Shard, Taken};
use std::collections::VecDeque;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use tramline_wire::frame::{self, Limits, Need, write_error};

/// Messages taken from the inbox in one cycle.
const INBOX_DRAIN: usize = 256;
/// Bytes of background work per turn.
const TURN_BYTES: u64 = 4 << 20;
/// Under load a background turn at least this often.
const TURN_EVERY_US: u64 = 1000;
/// While writes are under way a shard does not sleep for so long: a wake-up costs more than most writes take longer.
const WRITE_SPIN_US: u64 = 2000;
/// A connection that is closed by us is cut after this time.
const CLOSE_US: u64 = 5_000_000;
/// How often idle receive buffers are looked at.
const SWEEP_US: u64 = 100_000;
/// The connection that is let through while memory is short loses that when nothing came of it for this long.
const LUCKY_US: u64 = 1_000_000;
/// Frames above this many bytes wait when receive memory is short; smaller ones always get room.
const SMALL_FRAME_BYTES: usize = 64 << 10;

/// What the loop is made of.
pub(super) struct LoopParts {
    pub(super) id: ShardId,
    pub(super) settings: Arc<Settings>,
    pub(super) ring: Ring,
    pub(super) shard: Shard,
    pub(super) effects: Effects,
    pub(super) inbox: Receiver<Envelope>,
    pub(super) hub: Arc<Hub>,
    pub(super) health: Arc<Health>,
    pub(super) clock: Clock,
    pub(super) dir: PathBuf,
    /// Given to the ring once the shard serves.
    pub(super) listeners: Vec<TcpListener>,
    /// Called once, when the shard serves.
    pub(super) on_serving: Box<dyn FnOnce()>,
}

/// The loop's state.
pub(super) struct ShardLoop {
    parts: LoopParts,
    on_serving: Option<Box<dyn FnOnce()>>,
    limits: Limits,
    completions: Vec<Completion>,
    /// Messages that found no room, in order.
    outbox: VecDeque<(ShardId, Message)>,
    /// Connections whose next frame the core could not take.
    blocked: VecDeque<ConnId>,
    retry_blocked: bool,
    /// Connections with too much in their send queue to read more from them.
    choked: Vec<ConnId>,
    /// Connections that wait for receive memory: (connection, bytes wanted).
    hungry: VecDeque<(ConnId, usize)>,
    /// While memory is short, the one connection that may receive all the same until its frame is whole, and when it last did: one is
    /// always let through, else all could wait for each other's memory.
    lucky: Option<(ConnId, u64)>,
    /// Connections we closed, and when they are cut.
    closing: VecDeque<(ConnId, u64)>,
    deadline_us: u64,
    next_turn_us: u64,
    next_sweep_us: u64,
    /// The last look at the disk whose grant was taken.
    disk_seen: u64,
    turn_due: bool,
    stuck_writes: StuckWrites,
    stopping: bool,
    failed: bool,
}

impl ShardLoop {
    pub(super) fn new(mut parts: LoopParts) -> ShardLoop {
        let limits = Limits { frame_bytes_max: parts.settings.frame_max_bytes, ..Limits::default() };
        let on_serving = std::mem::replace(&mut parts.on_serving, Box::new(|| {}));
        ShardLoop {
            parts,
            on_serving: Some(on_serving),
            limits,
            completions: Vec::with_capacity(256),
            outbox: VecDeque::new(),
            blocked: VecDeque::new(),
            retry_blocked: false,
            choked: Vec::new(),
            hungry: VecDeque::new(),
            lucky: None,
            closing: VecDeque::new(),
            deadline_us: 0,
            next_turn_us: 0,
            next_sweep_us: 0,
            disk_seen: 0,
            turn_due: true,
            stuck_writes: StuckWrites::default(),
            stopping: false,
            failed: false,
        }
    }

    /// Runs until the orderly stop is through.
    pub(super) async fn run(mut self, bed: Bed) {
        let mut idle_since_us = None;
        let mut last_us = 0;
        loop {
            let now = self.parts.clock.now();
            let (completed, in_flight) = (self.parts.ring.completed_writes(), self.parts.ring.in_flight_writes());
            if self.stuck_writes.nap_is_due(now.mono_us, completed, in_flight) {
                self.parts.shard.metrics_mut().counters.write_naps += 1;
                std::thread::sleep(NAP);
            }
            let mut worked = self.cycle(now);
            if !worked && self.turn_due {
                self.turn(now);
                worked = true;
            }
            if worked {
                idle_since_us = None;
                self.count_cycle(now);
                last_us = now.mono_us;
                if self.is_through(now) {
                    break;
                }
                if now.mono_us >= self.next_turn_us {
                    self.turn(now);
                }
                glommio::yield_if_needed().await;
                continue;
            }
            debug_assert!(last_us <= now.mono_us);
            let idle_us = now.mono_us - *idle_since_us.get_or_insert(now.mono_us);
            let writes = self.parts.ring.in_flight_writes() > 0;
            let spins = match self.parts.settings.spin {
                Spin::Always => true,
                Spin::Adaptive { us } => idle_us < us || (writes && idle_us < WRITE_SPIN_US),
                Spin::Never => false,
            };
            if spins {
                // A synced write completes through a kernel worker that may need this core (D1): never hold it back.
                if writes || idle_us.is_multiple_of(64) {
                    std::thread::yield_now();
                } else {
                    std::hint::spin_loop();
                }
                glommio::yield_if_needed().await;
            } else {
                self.sleep(now, &bed).await;
                idle_since_us = None;
            }
        }
        bed.close().await;
        self.parts.ring.shutdown();
    }

    fn count_cycle(&mut self, began: Now) {
        let took_us = self.parts.clock.now().mono_us - began.mono_us;
        let counters = &mut self.parts.shard.metrics_mut().counters;
        counters.cycles += 1;
        counters.busy_us += took_us;
        counters.stalls += u64::from(took_us > 10_000);
    }

    async fn sleep(&mut self, now: Now, bed: &Bed) {
        let until_us = self.deadline_us.saturating_sub(now.mono_us);
        let timer = (self.deadline_us != u64::MAX).then_some(until_us.max(1));
        if !self.outbox.is_empty() || !self.parts.ring.prepare_park(timer) {
            return;
        }
        // Who puts a message in after this look sees the parked flag and wakes us.
        if let Some(envelope) = self.try_receive() {
            self.parts.ring.unpark();
            self.on_envelope(now, envelope);
            self.end_of_turn(now);
            return;
        }
        self.parts.shard.metrics_mut().counters.parks += 1;
        let parked_us = self.parts.clock.now().mono_us;
        if let Err(error) = bed.sleep().await {
            tracing::error!("a shard cannot sleep ({error}): it polls instead");
        }
        self.stuck_writes.on_slept(parked_us, self.parts.clock.now().mono_us);
        self.parts.ring.unpark();
    }

    /// One cycle; answers whether there was anything to do.
    fn cycle(&mut self, now: Now) -> bool {
        let mut completions = std::mem::take(&mut self.completions);
        self.parts.ring.reap(&mut completions);
        let mut worked = !completions.is_empty();
        for completion in completions.drain(..) {
            self.on_completion(now, completion);
        }
        self.completions = completions;
        for _ in 0..INBOX_DRAIN {
            let Some(envelope) = self.try_receive() else { break };
            self.on_envelope(now, envelope);
            worked = true;
        }
        worked |= self.flush_outbox();
        if now.mono_us >= self.deadline_us {
            self.deadline_us = u64::MAX;
            self.step(now, Event::Deadline);
            self.turn_due = true;
            worked = true;
        }
        if std::mem::take(&mut self.retry_blocked) {
            for _ in 0..self.blocked.len() {
                let conn = self.blocked.pop_front().expect("bounded by the length");
                self.feed(now, conn);
            }
            worked = true;
        }
        if worked {
            self.end_of_turn(now);
            self.turn_due = true;
        }
        if now.mono_us >= self.next_sweep_us {
            self.sweep(now);
        }
        worked
    }

    fn end_of_turn(&mut self, now: Now) {
        self.step(now, Event::EndOfTurn);
        if self.on_serving.is_some() && self.parts.shard.is_serving() {
            for listener in self.parts.listeners.drain(..) {
                self.parts.ring.add_listener(listener, Role::Client);
            }
            self.parts.health.ready(self.parts.id);
            if let Some(on_serving) = self.on_serving.take() {
                on_serving();
            }
        }
    }

    fn turn(&mut self, now: Now) {
        self.turn_due = false;
        self.next_turn_us = now.mono_us + TURN_EVERY_US;
        self.parts.shard.metrics_mut().counters.turns += 1;
        self.step(now, Event::Turn { bytes: TURN_BYTES, us: crate::constants::TURN_US });
        self.step(now, Event::EndOfTurn);
        let took_us = self.parts.clock.now().mono_us - now.mono_us;
        self.parts.shard.metrics_mut().counters.turn_us += took_us;
    }

    fn sweep(&mut self, now: Now) {
        self.next_sweep_us = now.mono_us + SWEEP_US;
        self.parts.ring.sweep_idle();
        if let Some(look) = self.parts.health.new_disk(&mut self.disk_seen) {
            self.parts.shard.set_disk(look);
        }
        while self.closing.front().is_some_and(|(_, at_us)| *at_us <= now.mono_us) {
            let (conn, _) = self.closing.pop_front().expect("looked at above");
            self.parts.ring.abort(conn);
        }
        // Who is let through and then sends nothing is not waited for: others have something to send.
        if self.lucky.is_some_and(|(_, at_us)| now.mono_us.saturating_sub(at_us) > LUCKY_US) {
            self.lucky = None;
        }
        self.serve_hungry(now);
        if !self.closing.is_empty() || !self.hungry.is_empty() {
            self.deadline_us = self.deadline_us.min(self.next_sweep_us);
        }
    }

    /// Whether an orderly stop has nothing left to do.
    fn is_through(&mut self, now: Now) -> bool {
        if !self.stopping || !self.parts.shard.has_stopped() || !self.outbox.is_empty() {
            return false;
        }
        if self.parts.ring.conn_count() > 0 && self.closing.is_empty() {
            self.parts.shard.close_all(&mut self.parts.effects);
            self.carry(now);
            // Replies under way get a moment; who does not read them is cut.
            let cut_us = now.mono_us + 500_000;
            self.closing.iter_mut().for_each(|(_, at_us)| *at_us = (*at_us).min(cut_us));
            self.deadline_us = self.deadline_us.min(now.mono_us + SWEEP_US);
        }
        self.parts.ring.conn_count() == 0
    }

    fn step(&mut self, now: Now, event: Event<'_>) {
        let taken = self.parts.shard.step(now, event, &mut self.parts.effects);
        assert_eq!(taken, Taken::Yes, "only frames can be blocked");
        self.carry(now);
    }

    fn on_completion(&mut self, now: Now, completion: Completion) {
        match completion {
            Completion::Accepted { conn, .. } => {
                self.step(now, Event::Opened { conn });
                self.parts.ring.rearm_recv(conn, 0);
            }
            Completion::Connected { .. } | Completion::ConnectFailed { .. } => unreachable!("no shard dials"),
            Completion::Received { conn } => self.feed(now, conn),
            Completion::Sent { conn, queued_bytes } => {
                self.step(now, Event::Sent { conn, queued_bytes });
                if queued_bytes <= self.parts.settings.connection_send_queue_bytes / 2
                    && let Some(at) = self.choked.iter().position(|c| *c == conn)
                {
                    self.choked.swap_remove(at);
                    self.feed(now, conn);
                }
            }
            Completion::Closed { conn, reason } => {
                if let CloseReason::Error(errno) = reason {
                    tracing::debug!(shard = self.parts.id.0, conn = conn.0, errno, "connection failed");
                }
                self.choked.retain(|c| *c != conn);
                self.blocked.retain(|c| *c != conn);
                self.hungry.retain(|(c, _)| *c != conn);
                self.end_luck(now, conn);
                self.closing.retain(|(c, _)| *c != conn);
                self.step(now, Event::Closed { conn });
            }
            Completion::Io { token, outcome } => self.step(now, Event::Done { token, outcome }),
            Completion::Woken | Completion::TimerFired => {}
        }
    }

    /// Hands every whole frame of a connection to the core, then asks for more bytes.
    fn feed(&mut self, now: Now, conn: ConnId) {
        loop {
            if self.parts.ring.queued_bytes(conn) > self.parts.settings.connection_send_queue_bytes {
                self.choked.push(conn);
                return;
            }
            let bytes = self.parts.ring.received(conn);
            if bytes.is_empty() {
                return self.receive(now, conn, 0);
            }
            match frame::peek(bytes, &self.limits) {
                Ok(Need::More(total)) => {
                    self.step(now, Event::Partial { conn });
                    return self.receive(now, conn, total);
                }
                Ok(Need::Whole(frame, len)) => {
                    let taken = self.parts.shard.step(now, Event::Frame { conn, frame: &frame }, &mut self.parts.effects);
                    if taken == Taken::Blocked {
                        self.blocked.push_back(conn);
                        return self.carry(now);
                    }
                    self.parts.ring.consume(conn, len);
                    self.carry(now);
                    self.end_luck(now, conn);
                }
                Err(error) => {
                    let blamed = frame::blame(bytes);
                    let mut reply = Vec::new();
                    let (kind, version, correlation) = blamed.map_or((0, 0, 0), |h| (h.kind, h.version, h.correlation));
                    write_error(&mut reply, kind, version, correlation, error.code(), &error.to_string(), "");
                    let counters = self.parts.shard.metrics_mut();
                    counters.counters.connections_refused_malformed += 1;
                    counters.count_error(error.code());
                    tracing::debug!(shard = self.parts.id.0, conn = conn.0, "refused: {error}");
                    self.parts.ring.send(conn, &reply, &[]);
                    return self.close(now, conn);
                }
            }
        }
    }

    /// Asks for more bytes of a connection, unless memory for a large frame is short.
    fn receive(&mut self, now: Now, conn: ConnId, wanted: usize) {
        if !self.is_memory_short() {
            return self.parts.ring.rearm_recv(conn, wanted);
        }
        self.parts.ring.release_recv(conn);
        let may = match self.lucky {
            Some((lucky, _)) => lucky == conn,
            None => self.hungry.is_empty(),
        };
        if wanted <= SMALL_FRAME_BYTES {
            self.parts.ring.rearm_recv(conn, wanted);
        } else if may {
            self.lucky = Some((conn, now.mono_us));
            self.parts.ring.rearm_recv(conn, wanted);
        } else {
            self.hungry.push_back((conn, wanted));
            self.step(now, Event::Paused { conn });
            self.deadline_us = self.deadline_us.min(self.next_sweep_us);
        }
    }

    fn is_memory_short(&self) -> bool {
        self.parts.ring.recv_memory_bytes() > self.parts.settings.receive_bytes_max
    }

    /// Lets waiting connections receive: all while there is memory, else one.
    fn serve_hungry(&mut self, now: Now) {
        while let Some((conn, wanted)) = self.hungry.pop_front() {
            if self.is_memory_short() {
                if self.lucky.is_some() {
                    return self.hungry.push_front((conn, wanted));
                }
                self.lucky = Some((conn, now.mono_us));
            }
            self.step(now, Event::Partial { conn });
            self.parts.ring.rearm_recv(conn, wanted);
        }
    }

    /// A connection's frame is whole, or the connection is gone: the next one may receive.
    fn end_luck(&mut self, now: Now, conn: ConnId) {
        if self.lucky.is_some_and(|(lucky, _)| lucky == conn) {
            self.lucky = None;
            self.serve_hungry(now);
        }
    }

    fn close(&mut self, now: Now, conn: ConnId) {
        self.parts.ring.close(conn);
        self.closing.push_back((conn, now.mono_us + CLOSE_US));
        self.deadline_us = self.deadline_us.min(now.mono_us + CLOSE_US);
    }

    /// Carries out what the core asked for.
    fn carry(&mut self, now: Now) {
        let mut list = std::mem::take(&mut self.parts.effects.list);
        for effect in list.drain(..) {
            match effect {
                Effect::Write { token, file, pos, data } => self.parts.ring.write(token, file, pos, data),
                Effect::Read { token, file, pos, buf } => self.parts.ring.read(token, file, pos, buf),
                Effect::File { token, op } => self.parts.ring.file_op(token, op),
                Effect::Send { conn, head, parts } => {
                    let effects = &self.parts.effects;
                    let head = &effects.heads[head.start as usize..head.end as usize];
                    let parts = &effects.parts[parts.start as usize..parts.end as usize];
                    self.parts.ring.send(conn, head, parts);
                }
                Effect::Close { conn, reason } => {
                    tracing::debug!(shard = self.parts.id.0, conn = conn.0, reason, "closing a connection");
                    self.close(now, conn);
                }
                Effect::Dial { address, .. } => unreachable!("no shard dials {address}"),
                Effect::Mesh { to, message } => self.outbox.push_back((to, message)),
                Effect::Unblock => self.retry_blocked = true,
                Effect::Fatal { reason } => {
                    self.failed = true;
                    self.parts.health.failed(self.parts.id, &reason);
                    // The evidence is written on a thread of its own; nobody here waits for it.
                    drop(fatal::shard_stops(self.parts.id, &self.parts.dir, &reason, now.utc_us));
                }
            }
        }
        self.parts.effects.list = list;
        self.deadline_us = self.deadline_us.min(self.parts.effects.deadline_us);
        self.parts.effects.clear();
    }

    fn flush_outbox(&mut self) -> bool {
        let mut sent = false;
        while let Some((to, message)) = self.outbox.pop_front() {
            match self.parts.hub.send(to, Envelope::Message { from: self.parts.id, message }) {
                Ok(()) => sent = true,
                Err(Envelope::Message { message, .. }) => {
                    self.outbox.push_front((to, message));
                    break;
                }
                Err(Envelope::Snapshot(_)) => unreachable!("what comes back is what was sent"),
            }
        }
        sent
    }

    fn try_receive(&mut self) -> Option<Envelope> {
        self.parts.inbox.try_recv().ok()
    }

    fn on_envelope(&mut self, now: Now, envelope: Envelope) {
        match envelope {
            Envelope::Message { from, message } => {
                if matches!(message, Message::Stop) && !self.stopping {
                    self.stopping = true;
                    self.parts.ring.stop_accepting();
                }
                self.step(now, Event::Mesh { from, message });
            }
            Envelope::Snapshot(request) => {
                let receive_bytes = self.parts.ring.recv_memory_bytes() as u64;
                self.parts.shard.snapshot(now, receive_bytes, request);
            }
        }
    }
}
