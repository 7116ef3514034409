//! Words on the metadata that come up on a node which does not lead them: shard 0 calls whoever does (docs/REPLICATION.md, 3.1, class 4).
//!
//! A node that came back at another address hears of no leader, for all dial the old one: then it calls the others, one after the other, until one takes its word.
//!
//! Whoever has something to say says it again as long as the metadata do not show it, so nothing is kept over a broken connection, and an answer that refuses is
//! logged and no more.
//!
//! Invariants: one connection at a time, to whoever leads group 0 as far as is known here, or whose turn it is; a word waits once.
//!
//! Not here: what is to be said (`moving.rs`, `planning.rs`, `group_deletion.rs`), the other side (`joining.rs`).

use super::mesh::Message;
use super::outward::Outward;
use super::pipelines::NotTaken;
use super::shard::Shard;
use crate::control::{ClusterCommand, Command};
use crate::effects::{Effect, Effects, Now};
use crate::ids::{ConnId, GroupId, ReplicaId, ShardId};
use std::collections::VecDeque;
use tramline_wire::frame::finish_frame;
use tramline_wire::node::{self, Call, CallReply, CallWhat, Class, Frame, Kind, NodeError};

/// Words that wait: as many moves as a node takes part in, and some.
const WAITING_MAX: usize = 64;
/// A connection over which nothing came back for so long is given up.
const SILENCE_US: u64 = 3_000_000;

/// The call of this node's shard 0.
#[derive(Debug, Default)]
pub(super) struct Calling {
    waiting: VecDeque<Vec<u8>>,
    outward: Option<Outward>,
    next_call: u64,
    /// Whose turn it is where nobody is known to lead.
    turn: usize,
}

impl Calling {
    pub(super) fn conn(&self) -> Option<ConnId> {
        self.outward.as_ref().and_then(Outward::conn)
    }

    /// What waits is said again by who has to say it, and perhaps to somebody else.
    fn give_up(&mut self) {
        self.waiting.clear();
        self.turn += 1;
    }

    pub(super) fn outwards(&mut self) -> impl Iterator<Item = &mut Outward> {
        self.outward.iter_mut()
    }
}

impl Shard {
    /// Says a word on the metadata: to this shard's own log where it leads them, else to who does.
    pub(super) fn ask_metadata(&mut self, command: ClusterCommand, effects: &mut Effects) {
        if self.id != ShardId(0) {
            return effects.push(Effect::Mesh { to: ShardId(0), message: Message::Ask(Box::new(command)) });
        }
        self.on_asked(command.into(), effects);
    }

    /// Shard 0 has something to say, for itself or another shard of this node.
    pub(super) fn on_asked(&mut self, command: Command, effects: &mut Effects) {
        if self.groups.leader_term(GroupId(0)).is_some() {
            return self.take_word(command);
        }
        let bytes = command.encode();
        if self.calling.waiting.len() < WAITING_MAX && !self.calling.waiting.contains(&bytes) {
            self.calling.waiting.push_back(bytes);
            effects.wake_at(0);
        }
    }

    /// Proposes it if it changes anything; it is said again if there is no room for it now.
    fn take_word(&mut self, command: Command) {
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
        let is_theirs = match &command {
            Command::Cluster(command) => matches!(**command, ClusterCommand::AddNode(_) | ClusterCommand::NoteMove { .. }),
            Command::DeleteGroup { .. } => true,
            _ => false,
        };
        if !is_theirs {
            return Err(malformed("nodes tell of themselves, of moves, and of consumer groups without members only".to_owned()));
        }
        if self.groups.leader_term(GroupId(0)).is_none() {
            return Err(crate::api::ApiError::of(ErrorCode::NotLeader));
        }
        self.take_word(command);
        Ok(())
    }

    /// Dials, and says what waits. Once at the end of each turn.
    pub(super) fn call(&mut self, now: Now, effects: &mut Effects) {
        let called = self.called();
        let is_silent = |outward: &Outward| outward.is_live() && now.mono_us > outward.heard_us + SILENCE_US;
        if let Some(outward) = self.calling.outward.take_if(|outward| Some(outward.to) != called || is_silent(outward)) {
            if Some(outward.to) == called {
                self.calling.give_up();
            }
            if let Some(conn) = outward.conn() {
                effects.push(Effect::Close { conn, reason: "it is not the one that leads the metadata, or it is silent" });
            }
        }
        if self.calling.waiting.is_empty() {
            return;
        }
        let Some(called) = called else { return };
        let outward = self.calling.outward.get_or_insert_with(|| Outward::new(called, Class::Calls));
        let is_hopeful = outward.reach(now, &mut self.pipelines, effects);
        if !outward.is_live() {
            if !is_hopeful {
                self.calling.give_up();
            }
            return;
        }
        for payload in self.calling.waiting.drain(..) {
            self.calling.next_call += 1;
            let call = Call::of(self.calling.next_call, CallWhat::Command, &payload);
            let (conn, number) = outward.conn_and_number();
            effects.send(conn, [], |out| {
                let start = node::begin(out, Kind::Call, number);
                call.encode(out);
                finish_frame(out, start, payload.len()).expect("a word is small");
                out.extend_from_slice(&payload);
            });
        }
    }

    pub(super) fn on_call_dial_failed(&mut self, now: Now, dial: u64) {
        if self.calling.outwards().any(|outward| outward.on_dial_failed(now.mono_us, dial)) {
            self.calling.give_up();
        }
    }

    /// Who is called: whoever leads the metadata, else whose turn it is of the others that there are.
    fn called(&self) -> Option<ReplicaId> {
        match self.groups.leader_of(GroupId(0)) {
            Some(leader) => (leader != self.replica()).then_some(leader),
            // Every node has a replica of the metadata.
            None => {
                let peers = &self.pipelines.peers;
                peers.get(self.calling.turn % peers.len().max(1)).map(|peer| peer.replica)
            }
        }
    }

    /// A connection has ended; answers whether it was this one.
    pub(super) fn on_call_closed(&mut self, now: Now, conn: ConnId) -> bool {
        let Some(outward) = self.calling.outward.as_mut().filter(|outward| outward.is_on(conn)) else { return false };
        outward.drop_link(now.mono_us);
        self.calling.give_up();
        true
    }

    /// What comes back on this connection.
    pub(super) fn take_call_answer(&mut self, now: Now, frame: &Frame<'_>, effects: &mut Effects) -> Result<(), NotTaken> {
        let outward = self.calling.outward.as_mut().expect("the frame came on its connection");
        effects.wake_at(0);
        if outward.take_greeting(now.mono_us, frame)? {
            return Ok(());
        }
        match frame.kind {
            Kind::CallReply => {
                let reply = CallReply::decode(frame.meta).map_err(NodeError::from)?;
                reply.check(frame.payload)?;
                outward.on_served();
                if reply.error.code != 0 {
                    tracing::debug!("a word on the metadata is not taken: {}", reply.error.message);
                    self.calling.turn += 1;
                }
                Ok(())
            }
            kind => Err(NotTaken::Wrong(format!("{kind} does not belong on this connection"))),
        }
    }
}
