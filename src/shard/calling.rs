//! Words on the metadata that come up on a node which does not lead them: shard 0 calls whoever does (docs/REPLICATION.md, 3.1, class 4).
//!
//! Whoever has something to say says it again as long as the metadata do not show it, so nothing is kept over a broken connection, and an answer that refuses is
//! logged and no more.
//!
//! Invariants: one connection at a time, to whoever leads group 0 as far as is known here; a word waits once.
//!
//! Not here: what is to be said (`moving.rs`, `planning.rs`), the other side (`joining.rs`).

use super::mesh::Message;
use super::pipelines::{NotTaken, write};
use super::shard::Shard;
use crate::control::{ClusterCommand, Command};
use crate::effects::{Effect, Effects, Now};
use crate::ids::{ConnId, GroupId, ReplicaId, ShardId};
use std::collections::VecDeque;
use tramline_wire::frame::finish_frame;
use tramline_wire::node::{self, Call, CallReply, CallWhat, Class, Frame, HelloReply, Kind, NodeError, Numbers, Side};

/// Words that wait: as many moves as a node takes part in, and some.
const WAITING_MAX: usize = 64;
/// Dialing again.
const REDIAL_US: u64 = 500_000;
/// A connection over which nothing came back for so long is given up.
const SILENCE_US: u64 = 3_000_000;

/// The call of this node's shard 0.
#[derive(Debug, Default)]
pub(super) struct Calling {
    waiting: VecDeque<Vec<u8>>,
    to: Option<ReplicaId>,
    link: Link,
    next_call: u64,
    heard_us: u64,
}

#[derive(Debug, Default)]
enum Link {
    #[default]
    None,
    /// Not before this time.
    Later(u64),
    Dialing(u64),
    Greeting(ConnId, Numbers),
    Live(ConnId, Numbers),
}

impl Calling {
    fn conn(&self) -> Option<ConnId> {
        match self.link {
            Link::Greeting(conn, _) | Link::Live(conn, _) => Some(conn),
            _ => None,
        }
    }

    fn give_up(&mut self, now_us: u64) {
        self.link = Link::Later(now_us + REDIAL_US);
        self.waiting.clear();
    }
}

impl Shard {
    /// Says a word on the metadata: to this shard's own log where it leads them, else to who does.
    pub(super) fn ask_metadata(&mut self, command: ClusterCommand, effects: &mut Effects) {
        if self.id != ShardId(0) {
            return effects.push(Effect::Mesh { to: ShardId(0), message: Message::Ask(Box::new(command)) });
        }
        self.on_asked(command, effects);
    }

    /// A shard of this node has something to say.
    pub(super) fn on_asked(&mut self, command: ClusterCommand, effects: &mut Effects) {
        if self.groups.leader_term(GroupId(0)).is_some() {
            return self.take_word(command);
        }
        let bytes = Command::from(command).encode();
        if self.calling.waiting.len() < WAITING_MAX && !self.calling.waiting.contains(&bytes) {
            self.calling.waiting.push_back(bytes);
            effects.wake_at(0);
        }
    }

    /// Proposes it if it changes anything; it is said again if there is no room for it now.
    fn take_word(&mut self, command: ClusterCommand) {
        let command = Command::from(command);
        if let Some(seat) = self.seat.as_ref().filter(|seat| !seat.is_waiting_for(&command)) {
            match seat.state.check(&command) {
                Ok(()) => {
                    if let Err(error) = self.propose(command, None, false) {
                        tracing::debug!("{}", error.message);
                    }
                }
                Err(error) => tracing::debug!("a word on the metadata is refused: {error}"),
            }
        }
    }

    /// A word of another node, on a connection for calls.
    pub(super) fn on_word(&mut self, payload: &[u8]) -> Result<(), crate::api::ApiError> {
        use tramline_wire::error::ErrorCode;
        let malformed = |what: String| crate::api::ApiError::new(ErrorCode::Malformed, what);
        let command = Command::decode(payload).map_err(|error| malformed(error.to_string()))?;
        let Command::Cluster(command) = command else { return Err(malformed("not a word on nodes and moves".to_owned())) };
        if !matches!(*command, ClusterCommand::AddNode(_) | ClusterCommand::NoteMove { .. }) {
            return Err(malformed("nodes tell of themselves and of moves only".to_owned()));
        }
        if self.groups.leader_term(GroupId(0)).is_none() {
            return Err(crate::api::ApiError::of(ErrorCode::NotLeader));
        }
        self.take_word(*command);
        Ok(())
    }

    /// Dials, and says what waits. Once at the end of each turn.
    pub(super) fn call(&mut self, now: Now, effects: &mut Effects) {
        let leader = self.groups.leader_of(GroupId(0)).filter(|leader| *leader != self.replica());
        let is_silent = self.calling.conn().is_some() && now.mono_us > self.calling.heard_us + SILENCE_US;
        if self.calling.to.is_some() && (self.calling.to != leader || is_silent) {
            if let Some(conn) = self.calling.conn() {
                effects.push(Effect::Close { conn, reason: "the metadata have another leader, or it is silent" });
            }
            self.calling.to = None;
            self.calling.give_up(now.mono_us);
        }
        if self.calling.waiting.is_empty() {
            return;
        }
        effects.wake_at(now.mono_us + REDIAL_US);
        match &mut self.calling.link {
            Link::Later(at_us) if *at_us > now.mono_us => {}
            Link::None | Link::Later(_) => {
                let peer = leader.and_then(|leader| self.pipelines.peers.iter().find(|peer| peer.replica == leader));
                let Some((to, address)) = peer.and_then(|peer| Some((peer.replica, peer.address?))) else { return };
                let dial = self.pipelines.next_dial();
                (self.calling.to, self.calling.link, self.calling.heard_us) = (Some(to), Link::Dialing(dial), now.mono_us);
                effects.push(Effect::Dial { dial, address });
            }
            Link::Dialing(_) | Link::Greeting(..) => {}
            Link::Live(conn, numbers) => {
                for payload in self.calling.waiting.drain(..) {
                    self.calling.next_call += 1;
                    let call = Call::of(self.calling.next_call, CallWhat::Command, &payload);
                    effects.send(*conn, [], |out| {
                        let start = node::begin(out, Kind::Call, numbers.advance());
                        call.encode(out);
                        finish_frame(out, start, payload.len()).expect("a word is small");
                        out.extend_from_slice(&payload);
                    });
                }
            }
        }
    }

    /// Whether `dial` was for a call; then the hello is sent.
    pub(super) fn on_call_dialed(&mut self, now: Now, dial: u64, conn: ConnId, effects: &mut Effects) -> bool {
        let (Link::Dialing(ours), Some(to)) = (&self.calling.link, self.calling.to) else { return false };
        if *ours != dial {
            return false;
        }
        let hello = self.own_hello(to, Class::Calls, &[]);
        let mut numbers = Numbers::new();
        effects.send(conn, [], |out| write(out, Kind::Hello, numbers.advance(), |out| hello.encode(out)));
        (self.calling.link, self.calling.heard_us) = (Link::Greeting(conn, numbers), now.mono_us);
        true
    }

    pub(super) fn on_call_dial_failed(&mut self, now: Now, dial: u64) {
        if matches!(self.calling.link, Link::Dialing(ours) if ours == dial) {
            self.calling.give_up(now.mono_us);
        }
    }

    /// A connection has ended; answers whether it was this one.
    pub(super) fn on_call_closed(&mut self, now: Now, conn: ConnId) -> bool {
        let is_ours = self.calling.conn() == Some(conn);
        if is_ours {
            self.calling.give_up(now.mono_us);
        }
        is_ours
    }

    /// What comes back; `None` where `conn` is not this connection.
    pub(super) fn on_call_answer(
        &mut self,
        now: Now,
        conn: ConnId,
        frame: &Frame<'_>,
        effects: &mut Effects,
    ) -> Option<Result<(), NotTaken>> {
        (self.calling.conn() == Some(conn)).then(|| self.take_call_answer(now, conn, frame, effects))
    }

    fn take_call_answer(&mut self, now: Now, conn: ConnId, frame: &Frame<'_>, effects: &mut Effects) -> Result<(), NotTaken> {
        frame.kind.check(Class::Calls, Side::Acceptor)?;
        self.calling.heard_us = now.mono_us;
        effects.wake_at(0);
        match (frame.kind, &self.calling.link) {
            (Kind::HelloReply, Link::Greeting(_, numbers)) => {
                HelloReply::decode(frame.meta).map_err(NodeError::from)?;
                self.calling.link = Link::Live(conn, *numbers);
            }
            (Kind::CallReply, Link::Live(..)) => {
                let reply = CallReply::decode(frame.meta).map_err(NodeError::from)?;
                reply.check(frame.payload)?;
                if reply.error.code != 0 {
                    tracing::debug!("a word on the metadata is not taken: {}", reply.error.message);
                }
            }
            (Kind::Refused, _) => {}
            (kind, _) => return Err(NotTaken::Wrong(format!("{kind} does not belong on this connection"))),
        }
        Ok(())
    }
}
