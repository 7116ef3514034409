//! Received bytes into frames, in the protocol of the connection's role, and who waits for what.
//!
//! | waits for | until |
//! |---|---|
//! | room in the core (`Taken::Blocked`) | `Effect::Unblock` |
//! | its send queue: it asks for more than it reads | half of the limit has gone out |
//! | memory for received bytes | there is some, or it is its turn (`rations.rs`) |
//!
//! A connection that we dialed never waits for its send queue: what stands there is bounded by the core's windows, and what comes in are the
//! acknowledgements that open these. So of two nodes that both have much to say one always reads.
//!
//! Not here: what frames mean.

use super::edge::{Core, Edge};
use super::rations::Rations;
use super::refusals;
use crate::effects::{Event, Now};
use crate::ids::ConnId;
use crate::ring::Role;
use crate::shard::Taken;
use tramline_wire::frame::{self, FrameError, Need};
use tramline_wire::node::{self, NodeError};

impl Edge {
    /// Hands every whole frame of a connection to the core, then asks for more bytes.
    pub(super) fn feed(&mut self, core: &mut impl Core, now: Now, conn: ConnId) {
        match self.ring.role(conn) {
            Some(Role::Client) => self.feed_client(core, now, conn),
            Some(role) => self.feed_node(core, now, conn, role),
            None => {}
        }
    }

    fn feed_client(&mut self, core: &mut impl Core, now: Now, conn: ConnId) {
        loop {
            if self.ring.queued_bytes(conn) > self.send_queue_bytes_max {
                return self.choked.push(conn);
            }
            let bytes = self.ring.received(conn);
            if bytes.is_empty() {
                return self.receive(core, now, conn, Role::Client, 0);
            }
            match frame::peek(bytes, &self.limits) {
                Ok(Need::More(total)) => {
                    self.step(core, now, Event::Partial { conn });
                    return self.receive(core, now, conn, Role::Client, total);
                }
                Ok(Need::Whole(frame, len)) => {
                    let taken = core.step(now, Event::Frame { conn, frame: &frame }, &mut self.effects);
                    if taken == Taken::Blocked {
                        self.blocked.push_back(conn);
                        return self.carry(core, now);
                    }
                    self.ring.consume(conn, len);
                    self.carry(core, now);
                    self.end_luck(core, now, conn, Role::Client);
                }
                Err(error) => return self.refuse_client(core, now, conn, &error),
            }
        }
    }

    fn feed_node(&mut self, core: &mut impl Core, now: Now, conn: ConnId, role: Role) {
        loop {
            if role == Role::NodeAccepted && self.ring.queued_bytes(conn) > self.send_queue_bytes_max {
                return self.choked.push(conn);
            }
            let bytes = self.ring.received(conn);
            if bytes.is_empty() {
                return self.receive(core, now, conn, role, 0);
            }
            let link = self.links.get(conn).expect("a connection with a node has its link until it is gone");
            match link.peek(bytes) {
                Ok(node::Need::More(total)) => return self.receive(core, now, conn, role, total),
                Ok(node::Need::Whole(frame, len)) => {
                    let taken = core.step(now, Event::NodeFrame { conn, frame: &frame }, &mut self.effects);
                    if taken == Taken::Blocked {
                        self.blocked.push_back(conn);
                        return self.carry(core, now);
                    }
                    self.ring.consume(conn, len);
                    self.links.took_frame(conn);
                    let counters = &mut core.metrics_mut().counters;
                    counters.node_frames_in += 1;
                    counters.node_bytes_in += len as u64;
                    self.carry(core, now);
                    self.end_luck(core, now, conn, role);
                }
                Err(error) => return self.refuse_node(core, now, conn, &error),
            }
        }
    }

    fn refuse_client(&mut self, core: &mut impl Core, now: Now, conn: ConnId, error: &FrameError) {
        let bytes = self.ring.received(conn);
        if bytes.starts_with(&node::MAGIC) {
            let peer = self.ring.peer(conn).map_or("somebody who is gone".to_owned(), |address| address.to_string());
            tracing::warn!(shard = self.id.0, "{peer} speaks as a node at the port for clients: {}", refusals::NODE_AT_CLIENT_PORT);
        }
        let mut reply = Vec::new();
        let code = refusals::at_client_port(&mut reply, bytes, error);
        let metrics = core.metrics_mut();
        metrics.counters.connections_refused_malformed += 1;
        metrics.count_error(code);
        tracing::debug!(shard = self.id.0, conn = conn.0, "refused: {error}");
        self.ring.send(conn, &reply, &[]);
        self.close(now, conn);
    }

    fn refuse_node(&mut self, core: &mut impl Core, now: Now, conn: ConnId, error: &NodeError) {
        core.metrics_mut().counters.node_connections_refused_malformed += 1;
        let link = self.links.get(conn).expect("looked at before");
        tracing::warn!(shard = self.id.0, "closing the connection with another node at {}: {error}", link.peer());
        if !link.has_spoken {
            let mut reply = Vec::new();
            refusals::at_node_port(&mut reply, self.ring.received(conn), error);
            self.ring.send(conn, &reply, &[]);
        }
        self.close(now, conn);
    }

    /// Asks for more bytes of a connection, unless memory for a large frame is short.
    fn receive(&mut self, core: &mut impl Core, now: Now, conn: ConnId, role: Role, wanted: usize) {
        let used_bytes = self.recv_bytes(role);
        if self.rations(role).is_short(used_bytes) {
            self.ring.release_recv(conn);
        }
        if self.rations(role).ask(now.mono_us, conn, wanted, used_bytes) {
            self.ring.rearm_recv(conn, wanted);
        } else {
            self.step(core, now, Event::Paused { conn });
        }
    }

    fn rations(&mut self, role: Role) -> &mut Rations {
        if role.is_node() { &mut self.node_rations } else { &mut self.client_rations }
    }

    fn recv_bytes(&self, role: Role) -> usize {
        if role.is_node() { self.ring.recv_nodes_memory_bytes() } else { self.ring.recv_memory_bytes() }
    }

    /// Lets waiting connections receive, and forgets who was let through and sends nothing.
    pub(super) fn serve_hungry(&mut self, core: &mut impl Core, now: Now) {
        for role in [Role::Client, Role::NodeAccepted] {
            self.rations(role).expire_luck(now.mono_us);
            self.serve_hungry_of(core, now, role);
        }
    }

    fn serve_hungry_of(&mut self, core: &mut impl Core, now: Now, role: Role) {
        loop {
            let used_bytes = self.recv_bytes(role);
            let Some((conn, wanted)) = self.rations(role).next(now.mono_us, used_bytes) else { return };
            if role == Role::Client {
                self.step(core, now, Event::Partial { conn });
            }
            self.ring.rearm_recv(conn, wanted);
        }
    }

    /// A connection's frame is whole, or the connection is gone: the next one may receive.
    fn end_luck(&mut self, core: &mut impl Core, now: Now, conn: ConnId, role: Role) {
        if self.rations(role).end_luck(conn) {
            self.serve_hungry_of(core, now, role);
        }
    }

    /// The connection is gone, whatever it was.
    pub(super) fn forget_hunger(&mut self, core: &mut impl Core, now: Now, conn: ConnId) {
        for role in [Role::Client, Role::NodeAccepted] {
            self.rations(role).forget(conn);
            self.end_luck(core, now, conn, role);
        }
    }
}
