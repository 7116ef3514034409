//! One client's connection: frames out, each with a number, and what each answer is the answer to.
//!
//! For workloads that stand beside `clients.rs` with clients of their own (`members.rs`).
//!
//! Invariants: requests are numbered per client, not per connection; each is answered once, or its connection ends and nobody knows what became of it.
//!
//! Not here: what is asked and what the answers mean.

use super::node::ShardAt;
use super::world::{CLIENTS_NODE, World};
use std::collections::BTreeMap;
use tramline_wire::error::{ErrorBody, ErrorCode};
use tramline_wire::frame::{self, FLAG_ERROR, Frame, Need, begin_request, finish_frame};
use tramline_wire::hello::HelloRequest;
use tramline_wire::kind::Kind;

/// A client's connection. `P` is what the client remembers of a request.
#[derive(Debug)]
pub(super) struct Link<P> {
    conn: Option<u64>,
    said_hello: bool,
    sequence: u64,
    /// `None` is the hello.
    pending: BTreeMap<u64, Option<P>>,
}

/// What a frame from the node is.
pub(super) enum Answer<'a, P> {
    /// Nothing that was asked for.
    Nothing,
    /// Meta and payload of a reply.
    Good(P, &'a [u8], &'a [u8]),
    Refused(P, ErrorCode, &'a str),
}

/// A reply that cannot be decoded, in words.
pub(super) fn broken(error: &dyn std::fmt::Display) -> String {
    format!("an unreadable reply: {error}")
}

impl<P> Default for Link<P> {
    fn default() -> Link<P> {
        Link { conn: None, said_hello: false, sequence: 0, pending: BTreeMap::new() }
    }
}

impl<P> Link<P> {
    pub(super) fn conn(&self) -> Option<u64> {
        self.conn
    }

    /// Whether requests may be sent.
    pub(super) fn is_open(&self) -> bool {
        self.conn.is_some() && self.said_hello
    }

    /// Whether an answer is due, to a hello or something else.
    pub(super) fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Requests without an answer.
    pub(super) fn pending(&self) -> impl Iterator<Item = &P> {
        self.pending.values().flatten()
    }

    /// Connects, and answers the connection; `None` while no process listens.
    pub(super) fn connect(&mut self, world: &mut World, shard: usize) -> Option<u64> {
        self.connect_to(world, ShardAt { node: CLIENTS_NODE, shard })
    }

    /// The same to a shard of any node.
    pub(super) fn connect_to(&mut self, world: &mut World, at: ShardAt) -> Option<u64> {
        let conn = world.connect(at)?;
        (self.conn, self.said_hello) = (Some(conn), false);
        let hello = HelloRequest { protocol_min: 1, protocol_max: 1, client_name: "sim", client_version: "", mechanism: "", auth: b"" };
        self.send_any(world, Kind::Hello, None, &[], |out| hello.encode(out));
        Some(conn)
    }

    /// Without a connection nothing is sent, and nobody waits.
    pub(super) fn send(&mut self, world: &mut World, kind: Kind, pending: P, meta: impl FnOnce(&mut Vec<u8>)) {
        self.send_any(world, kind, Some(pending), &[], meta);
    }

    /// The same with a payload.
    pub(super) fn send_with(&mut self, world: &mut World, kind: Kind, pending: P, payload: &[u8], meta: impl FnOnce(&mut Vec<u8>)) {
        self.send_any(world, kind, Some(pending), payload, meta);
    }

    /// Nobody answers this one.
    pub(super) fn send_unanswered(&mut self, world: &mut World, kind: Kind, payload: &[u8], meta: impl FnOnce(&mut Vec<u8>)) {
        self.send_any(world, kind, None, payload, meta);
        self.pending.remove(&self.sequence);
    }

    fn send_any(&mut self, world: &mut World, kind: Kind, pending: Option<P>, payload: &[u8], meta: impl FnOnce(&mut Vec<u8>)) {
        let Some(conn) = self.conn else { return };
        self.sequence += 1;
        let mut bytes = world.buffer();
        let start = begin_request(&mut bytes, kind, self.sequence);
        meta(&mut bytes);
        finish_frame(&mut bytes, start, payload.len()).expect("a small frame");
        bytes.extend_from_slice(payload);
        world.send(conn, bytes);
        self.pending.insert(self.sequence, pending);
    }

    /// Takes what was asked for and is not answered, of a connection that is gone.
    pub(super) fn take_pending(&mut self) -> Vec<P> {
        std::mem::take(&mut self.pending).into_values().flatten().collect()
    }

    /// The connection is gone: answers how many requests have no known outcome.
    pub(super) fn on_gone(&mut self) -> u64 {
        (self.conn, self.said_hello) = (None, false);
        std::mem::take(&mut self.pending).len() as u64
    }

    pub(super) fn take<'a>(&mut self, bytes: &'a [u8]) -> Result<Answer<'a, P>, String> {
        let Ok(Need::Whole(Frame { header, meta, payload }, len)) = frame::peek(bytes, &frame::Limits::PROTOCOL) else {
            return Err("a frame that is none came from the node".to_owned());
        };
        if len != bytes.len() {
            return Err("a frame was followed by something".to_owned());
        }
        if header.correlation == 0 {
            return Ok(Answer::Nothing);
        }
        let Some(pending) = self.pending.remove(&header.correlation) else {
            return Err(format!("an answer to request {} came twice, or to none", header.correlation));
        };
        let error = match header.flags & FLAG_ERROR {
            0 => None,
            _ => Some(ErrorBody::decode(meta).map_err(|e| format!("an unreadable error: {e}"))?),
        };
        match (pending, error) {
            (None, None) => {
                self.said_hello = true;
                Ok(Answer::Nothing)
            }
            (None, Some(error)) => Err(format!("a hello is refused: {}", error.message)),
            (Some(pending), None) => Ok(Answer::Good(pending, meta, payload)),
            (Some(pending), Some(error)) => {
                let code = error.code().ok_or_else(|| "an error without a known code".to_owned())?;
                Ok(Answer::Refused(pending, code, error.message))
            }
        }
    }
}
