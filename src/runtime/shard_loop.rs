//! The loop of one shard: reap completions, step the core, carry out its effects, submit; spin or sleep when there is nothing.
//!
//! Invariants: one clock read and one bounded drain per cycle; background turns run when nothing else is to be done, or every millisecond under load.
//!
//! Not here: decisions, connections and their frames (`edge/`), how the ring does what it is told.

use super::clock::Clock;
use super::edge::{Edge, EdgeParts};
use super::mesh::{Envelope, Hub};
use super::stuck_writes::{NAP, StuckWrites};
use super::watch::Pulses;
use crate::config::{Settings, Spin};
use crate::constants::{TURN_BYTES, TURN_EVERY_US, TURN_US};
use crate::effects::{Effects, Event, Now};
use crate::ids::ShardId;
use crate::metrics::Health;
use crate::ring::{Completion, Ring, Role};
use crate::shard::Shard;
use crate::shard::mesh::Message;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// Messages taken from the inbox in one cycle.
const INBOX_DRAIN: usize = 256;
/// While writes are under way a shard does not sleep for so long: a wake-up costs more than most writes take longer.
const WRITE_SPIN_US: u64 = 2000;

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
    pub(super) pulses: Arc<Pulses>,
    pub(super) dir: PathBuf,
    /// For clients: given to the ring once the shard serves.
    pub(super) listeners: Vec<TcpListener>,
    /// For other nodes: given to the ring at once, since a shard may have to hear from others before it can serve. Until then the core refuses
    /// what it cannot answer.
    pub(super) node_listener: Option<TcpListener>,
    /// Called once, when the shard serves.
    pub(super) on_serving: Box<dyn FnOnce()>,
}

/// The loop's state.
pub(super) struct ShardLoop {
    id: ShardId,
    settings: Arc<Settings>,
    shard: Shard,
    edge: Edge,
    inbox: Receiver<Envelope>,
    hub: Arc<Hub>,
    health: Arc<Health>,
    clock: Clock,
    pulses: Arc<Pulses>,
    listeners: Vec<TcpListener>,
    on_serving: Option<Box<dyn FnOnce()>>,
    completions: Vec<Completion>,
    next_turn_us: u64,
    /// The last look at the disk whose grant was taken.
    disk_seen: u64,
    turn_due: bool,
    stuck_writes: StuckWrites,
    stopping: bool,
}

impl ShardLoop {
    pub(super) fn new(parts: LoopParts) -> ShardLoop {
        let LoopParts { id, settings, ring, shard, effects, inbox, hub, health, clock, pulses, dir, listeners, node_listener, on_serving } =
            parts;
        let mut edge = Edge::new(EdgeParts { id, settings: Arc::clone(&settings), ring, effects, health: Arc::clone(&health), dir });
        if let Some(listener) = node_listener {
            edge.ring.add_listener(listener, Role::NodeAccepted);
        }
        ShardLoop {
            id,
            settings,
            shard,
            edge,
            inbox,
            hub,
            health,
            clock,
            pulses,
            listeners,
            on_serving: Some(on_serving),
            completions: Vec::with_capacity(256),
            next_turn_us: 0,
            disk_seen: 0,
            turn_due: true,
            stuck_writes: StuckWrites::default(),
            stopping: false,
        }
    }

    /// Runs until the orderly stop is through.
    pub(super) fn run(mut self) {
        let mut idle_since_us = None;
        let mut last_us = 0;
        self.pulses.begin(self.id);
        loop {
            let now = self.clock.now();
            self.pulses.beat(self.id, now.mono_us);
            let (completed, in_flight) = (self.edge.ring.completed_writes(), self.edge.ring.in_flight_writes());
            if self.stuck_writes.nap_is_due(now.mono_us, completed, in_flight) {
                self.shard.metrics_mut().counters.write_naps += 1;
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
                continue;
            }
            debug_assert!(last_us <= now.mono_us);
            let idle_us = now.mono_us - *idle_since_us.get_or_insert(now.mono_us);
            let writes = self.edge.ring.in_flight_writes() > 0;
            let spins = match self.settings.spin {
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
            } else {
                self.sleep(now);
                idle_since_us = None;
            }
        }
        self.pulses.end(self.id);
        self.edge.ring.shutdown();
    }

    fn count_cycle(&mut self, began: Now) {
        let took_us = self.clock.now().mono_us - began.mono_us;
        let counters = &mut self.shard.metrics_mut().counters;
        counters.cycles += 1;
        counters.busy_us += took_us;
        counters.stalls += u64::from(took_us > 10_000);
    }

    /// Sleeps in the ring, and not in the executor around it: 0012 of the decisions.
    fn sleep(&mut self, now: Now) {
        if !self.edge.outbox.is_empty() {
            return;
        }
        let wake_us = self.edge.next_wake_us();
        let limit = (wake_us != u64::MAX).then_some(Duration::from_micros(wake_us.saturating_sub(now.mono_us)));
        let parked_us = self.clock.now().mono_us;
        self.pulses.sleeps(self.id, wake_us);
        let mut found = None;
        // Who puts a message in after this look sees that the ring is parked and wakes it.
        let slept = self.edge.ring.park(limit, || {
            found = self.inbox.try_recv().ok();
            found.is_some()
        });
        self.pulses.wakes(self.id);
        if slept {
            self.shard.metrics_mut().counters.parks += 1;
            self.stuck_writes.on_slept(parked_us, self.clock.now().mono_us);
        }
        if let Some(envelope) = found {
            self.on_envelope(now, envelope);
            self.end_of_turn(now);
        }
    }

    /// One cycle; answers whether there was anything to do.
    fn cycle(&mut self, now: Now) -> bool {
        let mut completions = std::mem::take(&mut self.completions);
        self.edge.ring.reap(&mut completions);
        let mut worked = !completions.is_empty();
        for completion in completions.drain(..) {
            self.edge.on_completion(&mut self.shard, now, completion);
        }
        self.completions = completions;
        for _ in 0..INBOX_DRAIN {
            let Some(envelope) = self.try_receive() else { break };
            self.on_envelope(now, envelope);
            worked = true;
        }
        worked |= self.flush_outbox();
        if now.mono_us >= self.edge.deadline_us {
            self.edge.deadline_us = u64::MAX;
            self.step(now, Event::Deadline);
            self.turn_due = true;
            worked = true;
        }
        worked |= self.edge.retry_blocked(&mut self.shard, now);
        if worked {
            // Whoever waits for an answer need not wait for what the end of the turn has to do.
            self.edge.ring.send_early();
            self.end_of_turn(now);
            self.turn_due = true;
        }
        if self.edge.maybe_sweep(&mut self.shard, now)
            && let Some(look) = self.health.new_disk(&mut self.disk_seen)
        {
            self.shard.set_disk(look);
        }
        worked
    }

    fn end_of_turn(&mut self, now: Now) {
        self.step(now, Event::EndOfTurn);
        if self.on_serving.is_some() && self.shard.is_serving() {
            for listener in self.listeners.drain(..) {
                self.edge.ring.add_listener(listener, Role::Client);
            }
            self.health.ready(self.id);
            if let Some(on_serving) = self.on_serving.take() {
                on_serving();
            }
        }
    }

    fn turn(&mut self, now: Now) {
        self.turn_due = false;
        self.next_turn_us = now.mono_us + TURN_EVERY_US;
        self.shard.metrics_mut().counters.turns += 1;
        self.step(now, Event::Turn { bytes: TURN_BYTES, us: TURN_US });
        self.step(now, Event::EndOfTurn);
        let took_us = self.clock.now().mono_us - now.mono_us;
        self.shard.metrics_mut().counters.turn_us += took_us;
    }

    /// Whether an orderly stop has nothing left to do.
    fn is_through(&mut self, now: Now) -> bool {
        if !self.stopping || !self.shard.has_stopped() || !self.edge.outbox.is_empty() {
            return false;
        }
        // Also where some are being closed already: the others would wait for those. And again for whoever comes late.
        if self.edge.ring.conn_count() > 0 && !(self.edge.is_over() && self.edge.is_closing()) {
            self.shard.close_all(self.edge.effects());
            self.edge.close_for_good(&mut self.shard, now);
        }
        self.edge.ring.conn_count() == 0
    }

    fn step(&mut self, now: Now, event: Event<'_>) {
        self.edge.step(&mut self.shard, now, event);
    }

    fn flush_outbox(&mut self) -> bool {
        let mut sent = false;
        while let Some((to, message)) = self.edge.outbox.pop_front() {
            match self.hub.send(to, Envelope::Message { from: self.id, message }) {
                Ok(()) => sent = true,
                Err(Envelope::Message { message, .. }) => {
                    self.edge.outbox.push_front((to, message));
                    break;
                }
                Err(Envelope::Snapshot(_)) => unreachable!("what comes back is what was sent"),
            }
        }
        sent
    }

    fn try_receive(&mut self) -> Option<Envelope> {
        self.inbox.try_recv().ok()
    }

    fn on_envelope(&mut self, now: Now, envelope: Envelope) {
        match envelope {
            Envelope::Message { from, message } => {
                if matches!(message, Message::Stop) && !self.stopping {
                    self.stopping = true;
                    self.edge.ring.stop_accepting();
                }
                self.step(now, Event::Mesh { from, message });
            }
            Envelope::Snapshot(request) => {
                let receive_bytes = self.edge.ring.recv_memory_bytes() as u64;
                self.edge.fill_metrics(self.shard.metrics_mut());
                self.shard.snapshot(now, receive_bytes, request);
            }
        }
    }
}
