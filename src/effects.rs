//! What goes into the core and what comes out of it: events and effects (D2 of the design).
//!
//! The core is `step(now, Event, &mut Effects)`; the edge (the shard loop, or the simulator) feeds events and carries
//! effects out. An effect that carries a `Token` ends in exactly one `Event::Done` with that token.
//!
//! Not here: who decides what (the rooms), and how an effect is carried out (`ring/`, `runtime/`).

use crate::bytes::{BufMut, Bytes};
use crate::ids::{ConnId, FileId, ShardId};
use crate::shard::mesh::Message;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use tramline_wire::error::ErrorCode;
use tramline_wire::frame::{FrameHeader, begin_frame, finish_frame, write_error};

/// One clock reading, passed to every step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic, in microseconds from an arbitrary start of the process. Orders, leases, deadlines.
    pub mono_us: u64,
    /// UTC in microseconds since 1970, from one anchor taken at start: never goes backwards. Append times.
    pub utc_us: i64,
}

/// Names one operation under way. The top byte is the room that asked (see `TokenRoom`), the rest is that room's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// The room that reserved a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRoom {
    /// `log/`: blocks, segments, manifest, checkpoints, cold reads.
    Log,
}

impl Token {
    /// A token of `room` with the room's own number (56 bits, asserted).
    pub fn new(room: TokenRoom, number: u64) -> Token {
        assert!(number < 1 << 56, "token number {number} out of range");
        Token(((room as u64 + 1) << 56) | number)
    }
    /// The room's own number.
    pub fn number(self) -> u64 {
        self.0 & ((1 << 56) - 1)
    }
}

/// How an operation ended. `errno` is the positive error number of the system call.
#[derive(Debug)]
pub enum Outcome {
    /// A write: bytes written (may be fewer than asked: the caller handles it) or the error.
    Write(Result<u32, i32>),
    /// A read: the buffer comes back in any case, with the number of bytes read (may be short) or the error.
    Read(BufMut, Result<u32, i32>),
    /// A file operation.
    File(Result<(), i32>),
}

/// Operations on names in the shard's own directory. All of them are durable when done only after `SyncDir`.
#[allow(missing_docs)] // the variants' texts name their fields
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileOp {
    /// Creates `name` (must not exist), allocates `len_bytes` for it (no zero-fill), opens it with O_DIRECT | O_DSYNC for read and write as `file`.
    Create { file: FileId, name: Arc<str>, len_bytes: u64 },
    /// Renames, replacing the target. A `FileId` open on `from` stays open on the renamed file.
    Rename { from: Arc<str>, to: Arc<str> },
    /// Exchanges two names, both of which exist, at once. EINVAL, ENOSYS or EOPNOTSUPP where the file system cannot.
    Exchange { first: Arc<str>, second: Arc<str> },
    /// Removes a name. Open handles stay usable until closed.
    Remove { name: Arc<str> },
    /// Cuts an open file to its first `len_bytes` and syncs it: a file system with a journal frees, and discards, when it commits, and what was cut in
    /// seconds would be discarded at once. No other operation on the file may be under way. EINVAL where the kernel cannot (before 6.9).
    Cut { file: FileId, len_bytes: u64 },
    /// Closes a handle; no operation on it may be under way.
    Close { file: FileId },
    /// Makes creations, renames, exchanges and removals durable.
    SyncDir,
}

/// Who asked, and how the answer finds its way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The connection, a number of the shard that accepted it.
    pub conn: ConnId,
    /// The shard that accepted the connection, when it is not the one that answers.
    pub via: Option<ShardId>,
    /// The request's kind, as it came.
    pub kind: u8,
    /// The request's version, as it came.
    pub version: u8,
    /// The request's correlation.
    pub correlation: u64,
    /// When it was taken from the socket, `Now::mono_us`; of a fetch that has waited for records, when there were some.
    pub received_us: u64,
}

impl Caller {
    /// The sender of `header` on `conn`.
    pub fn of(conn: ConnId, via: Option<ShardId>, header: &FrameHeader, received_us: u64) -> Caller {
        Caller { conn, via, kind: header.kind, version: header.version, correlation: header.correlation, received_us }
    }
}

/// What happens to the core.
#[derive(Debug)]
#[allow(missing_docs)] // the variants' texts name their fields
pub enum Event<'a> {
    /// A connection was accepted.
    Opened { conn: ConnId },
    /// Bytes of a frame arrived that is not whole yet.
    Partial { conn: ConnId },
    /// Reading of a connection has stopped for want of memory: that its frame is not complete is not its fault.
    Paused { conn: ConnId },
    /// A whole frame whose header and lengths are valid. If `step` answers `Blocked`: keep it, try again after `Effect::Unblock`.
    Frame { conn: ConnId, frame: &'a tramline_wire::frame::Frame<'a> },
    /// Bytes left in the connection's send queue after some went out.
    Sent { conn: ConnId, queued_bytes: usize },
    /// The connection is gone; nothing may be sent to it any more.
    Closed { conn: ConnId },
    /// Another node's shard has dialed this one: a connection was accepted on the port for nodes. Its frames come as `NodeFrame`. Numbers of connections
    /// are of one space, whoever is at the other end; `Sent`, `Paused` and `Closed` come as for clients.
    NodeOpened { conn: ConnId },
    /// What was asked for with `Effect::Dial` stands. Its frames come as `NodeFrame`.
    Dialed { dial: u64, conn: ConnId },
    /// It does not come about. `errno` as in `Outcome`.
    DialFailed { dial: u64, errno: i32 },
    /// A whole frame from another node, with the next number, whose header and lengths are valid. If `step` answers `Blocked`: as for `Frame`.
    NodeFrame { conn: ConnId, frame: &'a tramline_wire::node::Frame<'a> },
    /// An operation ended.
    Done { token: Token, outcome: Outcome },
    /// A message from another shard of this node.
    Mesh { from: ShardId, message: Message },
    /// The time asked for by `Effects::deadline_us` has come.
    Deadline,
    /// Background work may run: at most this much.
    Turn { bytes: u64, us: u64 },
    /// All that had arrived was delivered: the open block may be closed.
    EndOfTurn,
}

/// One thing to be done by the edge.
#[derive(Debug)]
#[allow(missing_docs)] // the variants' texts name their fields
pub enum Effect {
    /// Write `data` at `pos` of `file`; durable when done (the file is open with O_DSYNC).
    Write { token: Token, file: FileId, pos: u64, data: Bytes },
    /// Fill `buf` (its used length) from `pos` of `file`.
    Read { token: Token, file: FileId, pos: u64, buf: BufMut },
    /// An operation on names.
    File { token: Token, op: FileOp },
    /// Send a frame: `head` of `Effects::heads`, then each of `parts` of `Effects::parts`, in this order.
    Send { conn: ConnId, head: Range<u32>, parts: Range<u32> },
    /// Close a connection once what was sent before has gone out.
    Close { conn: ConnId, reason: &'static str },
    /// Connect to a shard of another node: ends in one `Event::Dialed` or one `Event::DialFailed` with this number, which the core has chosen.
    Dial { dial: u64, address: SocketAddr },
    /// Hand a message to another shard of this node.
    Mesh { to: ShardId, message: Message },
    /// Frames that were answered with "blocked" may be tried again.
    Unblock,
    /// This shard cannot go on: it stops with this reason, the others continue.
    Fatal { reason: String },
}

/// Requests of one kind that were answered in this step and had come at one time: those of one turn share it, so that what is noted once a request would mostly be
/// noted twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Their kind, as it came.
    pub kind: u8,
    /// How many.
    pub count: u64,
    /// Payload bytes of the first of them, asked or answered.
    pub bytes: u64,
    /// `Caller::received_us`.
    pub received_us: u64,
    /// When they were taken in, `Now::mono_us`; 0 where that is not told apart from what follows.
    pub taken_us: u64,
    /// When the last block with something of theirs was closed, the same way.
    pub closed_us: u64,
}

impl Answered {
    /// One request, of which nothing else is known.
    pub fn one(caller: &Caller, bytes: usize) -> Answered {
        Answered { kind: caller.kind, count: 1, bytes: bytes as u64, received_us: caller.received_us, taken_us: 0, closed_us: 0 }
    }

    fn is_like(&self, other: &Answered) -> bool {
        (self.kind, self.received_us, self.taken_us, self.closed_us) == (other.kind, other.received_us, other.taken_us, other.closed_us)
    }
}

/// The list of effects of one step, reused from step to step so that steady state allocates nothing.
#[derive(Debug, Default)]
pub struct Effects {
    /// In the order in which they have to be carried out.
    pub list: Vec<Effect>,
    /// Heads of frames to be sent; `Effect::Send` names ranges of it.
    pub heads: Vec<u8>,
    /// Payload pieces of frames to be sent.
    pub parts: Vec<Bytes>,
    /// What was answered in this step and is not counted yet. The core takes it out itself.
    pub answered: Vec<Answered>,
    /// The earliest time at which the core wants `Event::Deadline`, in `Now::mono_us`; `u64::MAX` for none.
    pub deadline_us: u64,
}

impl Effects {
    /// An empty list.
    pub fn new() -> Effects {
        Effects { deadline_us: u64::MAX, ..Effects::default() }
    }

    /// Adds one effect.
    pub fn push(&mut self, effect: Effect) {
        self.list.push(effect);
    }

    /// Asks for a deadline no later than `at_us`.
    pub fn wake_at(&mut self, at_us: u64) {
        self.deadline_us = self.deadline_us.min(at_us);
    }

    /// Sends a frame whose head `write_head` appends and whose payload is `parts`.
    pub fn send(&mut self, conn: ConnId, parts: impl IntoIterator<Item = Bytes>, write_head: impl FnOnce(&mut Vec<u8>)) {
        let head_start = self.heads.len() as u32;
        write_head(&mut self.heads);
        let parts_start = self.parts.len() as u32;
        self.parts.extend(parts);
        self.list.push(Effect::Send { conn, head: head_start..self.heads.len() as u32, parts: parts_start..self.parts.len() as u32 });
    }

    /// Answers `caller`: a reply frame with `flags` besides REPLY, whose meta `write_meta` appends and whose payload is `parts`.
    /// Over the mesh the payload is copied. A meta above the protocol's limit becomes an error reply.
    pub fn reply(&mut self, caller: &Caller, flags: u16, parts: &mut Vec<Bytes>, write_meta: impl FnOnce(&mut Vec<u8>)) {
        let payload_bytes = parts.iter().map(Bytes::len).sum();
        self.note_answered(&Answered::one(caller, payload_bytes));
        self.push_reply(caller, flags, payload_bytes, parts, write_meta);
    }

    /// The same without a payload, where more is known of how long it took.
    pub fn reply_timed(&mut self, caller: &Caller, answered: &Answered, write_meta: impl FnOnce(&mut Vec<u8>)) {
        self.note_answered(answered);
        self.push_reply(caller, 0, 0, &mut Vec::new(), write_meta);
    }

    fn push_reply(
        &mut self,
        caller: &Caller,
        flags: u16,
        payload_bytes: usize,
        parts: &mut Vec<Bytes>,
        write_meta: impl FnOnce(&mut Vec<u8>),
    ) {
        let frame = |out: &mut Vec<u8>| {
            let start = begin_frame(out, caller.kind, caller.version, tramline_wire::frame::FLAG_REPLY | flags, caller.correlation);
            write_meta(out);
            match finish_frame(out, start, payload_bytes) {
                Ok(_) => true,
                Err(oversized) => {
                    let message = oversized.to_string();
                    write_error(out, caller.kind, caller.version, caller.correlation, ErrorCode::LimitExceeded, &message, "");
                    false
                }
            }
        };
        match caller.via {
            None => {
                let head_start = self.heads.len() as u32;
                if !frame(&mut self.heads) {
                    parts.clear();
                }
                let parts_start = self.parts.len() as u32;
                self.parts.append(parts);
                let (head, parts) = (head_start..self.heads.len() as u32, parts_start..self.parts.len() as u32);
                self.list.push(Effect::Send { conn: caller.conn, head, parts });
            }
            Some(to) => {
                let mut bytes = Vec::new();
                if frame(&mut bytes) {
                    parts.iter().for_each(|part| bytes.extend_from_slice(part.as_slice()));
                }
                parts.clear();
                self.list.push(Effect::Mesh { to, message: Message::Reply { conn: caller.conn, frame: bytes } });
            }
        }
    }

    #[inline]
    fn note_answered(&mut self, answered: &Answered) {
        match self.answered.last_mut() {
            Some(last) if last.is_like(answered) => last.count += answered.count,
            _ => self.answered.push(*answered),
        }
    }

    /// Answers `caller` with an error frame.
    pub fn refuse(&mut self, caller: &Caller, code: ErrorCode, message: &str, next: &str) {
        self.note_answered(&Answered::one(caller, 0));
        let message = if message.is_empty() { code.sentence() } else { message };
        match caller.via {
            None => {
                self.send(caller.conn, [], |out| write_error(out, caller.kind, caller.version, caller.correlation, code, message, next))
            }
            Some(to) => {
                let mut frame = Vec::new();
                write_error(&mut frame, caller.kind, caller.version, caller.correlation, code, message, next);
                self.list.push(Effect::Mesh { to, message: Message::Reply { conn: caller.conn, frame } });
            }
        }
    }

    /// Forgets everything but the capacity. The edge calls it once all effects were taken out.
    pub fn clear(&mut self) {
        self.list.clear();
        self.heads.clear();
        self.parts.clear();
        self.answered.clear();
        self.deadline_us = u64::MAX;
    }
}
