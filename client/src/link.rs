//! A connection that said hello: a socket, its bytes, and blocking calls on it.
//!
//! Used for administration and by [`RawConn`](crate::RawConn); producers and consumers have many connections, wait for all of them at once and
//! share with it only how hello and refusals are read (`core::peer`).

use std::io;
use std::time::{Duration, Instant};

use tramline_wire::error::{ErrorBody, ErrorCode};
use tramline_wire::frame::{FLAG_MORE, Frame};
use tramline_wire::hello::{HelloReply, HelloRequest};
use tramline_wire::kind::Kind;
use tramline_wire::prim::DecodeError;
use tramline_wire::{PROTOCOL_MAX, PROTOCOL_MIN};

use crate::config::Config;
use crate::core::{Conn, SharedBytes};
use crate::error::Error;
use crate::transport::{Interest, Received, Socket, WaitMode, Wire, dial, wait};
use crate::types::Node;

/// What the broker told at hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelloInfo {
    /// Protocol version in use.
    pub protocol: u16,
    /// Identity of the cluster.
    pub cluster_id: [u8; 16],
    /// Node that answered.
    pub node: u32,
    /// Shard that took this connection.
    pub shard: u16,
    /// Largest meta and payload the broker accepts in one frame.
    pub frame_bytes_max: u32,
    /// Send something at least this often, in milliseconds (0: no need).
    pub keepalive_ms: u32,
    /// The broker closes a connection that is silent for this long, in milliseconds (0: never).
    pub idle_timeout_ms: u32,
    /// The nodes and their addresses.
    pub nodes: Vec<Node>,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) socket: Socket,
    pub(crate) conn: Conn,
    pub(crate) mode: WaitMode,
    last_used: Instant,
}

/// What repeating a request means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Asking twice is as good as asking once.
    Repeatable,
    /// The second time would answer something else (created, deleted).
    Once,
    /// It carries marks by which the broker knows it again. Whoever repeats it has to know that it may have been done.
    Marked,
}

/// The receive buffer of an administrative connection starts small; it grows with what really comes.
const RECV_BYTES_FIRST: usize = 16 * 1024;

pub(crate) fn wait_mode(config: &Config) -> WaitMode {
    if config.busy_poll { WaitMode::Spin { yields: config.yield_when_empty } } else { WaitMode::Sleep }
}

impl Link {
    /// Connects, without hello.
    pub(crate) fn dial(address: &str, config: &Config, timeout: Duration, recv_bytes_first: usize) -> Result<Link, Error> {
        let socket = dial(address, timeout)?;
        let conn = Conn::new(recv_bytes_first, config.frame_bytes_max);
        Ok(Link { socket, conn, mode: wait_mode(config), last_used: Instant::now() })
    }

    /// Connects and says hello, both within this time.
    pub(crate) fn open(address: &str, config: &Config, timeout: Duration) -> Result<(Link, HelloInfo), Error> {
        let deadline = Instant::now() + timeout;
        let mut link = Link::dial(address, config, timeout, RECV_BYTES_FIRST)?;
        let hello = link.hello(config, deadline)?;
        Ok((link, hello))
    }

    /// Says hello on a fresh connection.
    pub(crate) fn hello(&mut self, config: &Config, deadline: Instant) -> Result<HelloInfo, Error> {
        let encode = |meta: &mut Vec<u8>| write_hello(&config.client_name, meta);
        let hello = self.call("say hello", Kind::Hello, Effect::Repeatable, encode, deadline, read_hello)?;
        hello.accept(self.socket.address())
    }

    /// Sends a request and waits for its reply. An error other than [`Error::Refused`] leaves the link unusable. `effect` says
    /// whether doing the request twice differs from doing it once: then silence after sending is [`Error::OutcomeUnknown`], and so is a
    /// refusal that says that it may have been done.
    pub(crate) fn call<R>(
        &mut self,
        what: &str,
        kind: Kind,
        effect: Effect,
        encode: impl FnOnce(&mut Vec<u8>),
        deadline: Instant,
        decode: impl FnOnce(&[u8]) -> Result<R, DecodeError>,
    ) -> Result<R, Error> {
        self.call_with(what, kind, effect, &[], encode, deadline, decode)
    }

    /// The same with batches as the request's payload.
    pub(crate) fn call_with<R>(
        &mut self,
        what: &str,
        kind: Kind,
        effect: Effect,
        payload: &[SharedBytes],
        encode: impl FnOnce(&mut Vec<u8>),
        deadline: Instant,
        decode: impl FnOnce(&[u8]) -> Result<R, DecodeError>,
    ) -> Result<R, Error> {
        let start = self.conn.out().queued();
        let correlation =
            self.conn.request_with(kind, encode, payload.iter()).map_err(|oversized| Error::config(&format!("{what}: {oversized}")))?;
        self.touch();
        let error = match self.await_reply(what, correlation, deadline).and_then(|()| self.take_reply(what, kind, decode)) {
            Ok(result) => return Ok(result),
            Err(error) => error,
        };
        let sent = self.conn.out().written() > start;
        let may_be_done = match &error {
            Error::Refused { code, .. } => code.may_be_done(),
            _ => sent,
        };
        Err(if effect != Effect::Repeatable && may_be_done { self.unknown(what, &error) } else { error })
    }

    /// Moves bytes both ways until the reply is there, whole. The time counts at each turn: a peer that always has something else to say is
    /// as good as one that says nothing.
    fn await_reply(&mut self, what: &str, correlation: u64, deadline: Instant) -> Result<(), Error> {
        let mut is_late = false;
        loop {
            let address = self.socket.address();
            match self.conn.peek() {
                Ok(Some((frame, _))) if frame.header.correlation == correlation => return Ok(()),
                Ok(Some((frame, _))) if frame.header.correlation == 0 && frame.header.is_error() => {
                    // A refusal of the connection itself, before it could be told apart by request.
                    return Err(refusal(what, address, frame.meta));
                }
                // A request that was given up on took its connection with it, so this is no late reply either.
                Ok(Some(_)) => return Err(Error::protocol(address, "it answered something that was not asked")),
                Ok(None) if is_late => return Err(self.late(what, Instant::now())),
                Ok(None) => {}
                Err(error) => return Err(Error::protocol(address, error.to_string())),
            }
            self.socket.flush(&mut self.conn).map_err(|source| self.failed("cannot send to", source))?;
            let came = match self.socket.fill(&mut self.conn) {
                Ok(Received::Some(_)) => true,
                Ok(Received::Empty) => false,
                Ok(Received::Closed) => return Err(self.failed("cannot receive from", closed_by_peer())),
                Err(source) => return Err(self.failed("cannot receive from", source)),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            // What came with the last read is still looked at.
            is_late = left.is_zero();
            if !came && !is_late {
                self.wait(!self.conn.out().is_empty(), left)?;
            }
        }
    }

    /// The reply that [`await_reply`](Self::await_reply) saw.
    fn take_reply<R>(&mut self, what: &str, kind: Kind, decode: impl FnOnce(&[u8]) -> Result<R, DecodeError>) -> Result<R, Error> {
        let address = self.socket.address();
        match self.conn.peek() {
            Ok(Some((frame, length))) => {
                let result = read_reply(what, address, kind, &frame, decode);
                self.conn.consume(length);
                result
            }
            Ok(None) => Err(Error::protocol(address, "its reply is gone")),
            Err(error) => Err(Error::protocol(address, error.to_string())),
        }
    }

    fn unknown(&self, what: &str, error: &Error) -> Error {
        Error::OutcomeUnknown { request: what.to_string(), address: self.socket.address().to_string(), reason: error.to_string() }
    }

    /// Waits for bytes, or for room to write; when spinning, only yields.
    pub(crate) fn wait(&self, writable: bool, timeout: Duration) -> Result<(), Error> {
        let interest = Interest::new(&self.socket, writable);
        wait(self.mode, timeout, &mut std::iter::once(interest)).map_err(|source| self.failed("cannot wait for", source))
    }

    pub(crate) fn failed(&self, doing: &'static str, source: io::Error) -> Error {
        Error::io(doing, self.socket.address(), source)
    }

    fn late(&self, what: &str, now: Instant) -> Error {
        let doing = format!("{what} at {}", self.socket.address());
        Error::Timeout { doing, after: now.duration_since(self.last_used), last: None }
    }

    /// Sends what is queued; returns when the kernel has all of it.
    pub(crate) fn flush_all(&mut self, deadline: Instant) -> Result<(), Error> {
        loop {
            self.socket.flush(&mut self.conn).map_err(|source| self.failed("cannot send to", source))?;
            if self.conn.out().is_empty() {
                return Ok(());
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(self.late("sending", now));
            }
            self.wait(true, deadline - now)?;
        }
    }

    /// A request is about to be queued: starts the time that messages about slowness tell.
    pub(crate) fn touch(&mut self) {
        self.last_used = Instant::now();
    }

    /// Where it is connected to.
    pub(crate) fn address(&self) -> &str {
        self.socket.address()
    }

    /// Whether the other side closed meanwhile (or sent what nobody asked for, which is as bad for an idle connection).
    pub(crate) fn is_stale(&mut self) -> bool {
        !matches!(self.socket.fill(&mut self.conn), Ok(Received::Empty))
    }
}

/// The meta of a hello. A name above 255 bytes is cut.
pub(crate) fn write_hello(client_name: &str, meta: &mut Vec<u8>) {
    HelloRequest {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        client_name: cut(client_name, 255),
        client_version: env!("CARGO_PKG_VERSION"),
        mechanism: "",
        auth: &[],
    }
    .encode(meta);
}

/// The answer to a hello, as it came.
#[derive(Debug)]
pub(crate) struct Hello {
    info: HelloInfo,
    /// Authentication mechanisms that it offers, when it wants one.
    wanted: Option<String>,
}

/// Reads the answer to a hello.
pub(crate) fn read_hello(meta: &[u8]) -> Result<Hello, DecodeError> {
    let reply = HelloReply::decode(meta)?;
    let info = HelloInfo {
        protocol: reply.protocol,
        cluster_id: reply.cluster_id,
        node: reply.node,
        shard: reply.shard,
        frame_bytes_max: reply.frame_max,
        keepalive_ms: reply.keepalive_ms,
        idle_timeout_ms: reply.idle_timeout_ms,
        nodes: reply.nodes.iter().map(Node::from).collect(),
    };
    let wanted = (!reply.challenge.is_empty()).then(|| reply.mechanisms.iter().collect::<Vec<&str>>().join(", "));
    Ok(Hello { info, wanted })
}

/// What a node accepts in one frame at least: the protocol's limit before hello, and the least that a node can be set to.
const FRAME_BYTES_MIN: u32 = 64 << 10;

impl Hello {
    /// What the broker told, if this client can go on with it.
    pub(crate) fn accept(self, address: &str) -> Result<HelloInfo, Error> {
        let HelloInfo { protocol, frame_bytes_max, .. } = self.info;
        if !(PROTOCOL_MIN..=PROTOCOL_MAX).contains(&protocol) {
            let message = format!("it chose protocol version {protocol}, this client speaks {PROTOCOL_MIN} to {PROTOCOL_MAX}");
            return Err(Error::protocol(address, message));
        }
        if frame_bytes_max < FRAME_BYTES_MIN {
            let message = format!("it takes frames of {frame_bytes_max} bytes, every node takes {FRAME_BYTES_MIN}");
            return Err(Error::protocol(address, message));
        }
        match self.wanted {
            None => Ok(self.info),
            Some(mechanisms) => Err(Error::Refused {
                request: "say hello".to_string(),
                code: ErrorCode::Unauthenticated,
                retriable: false,
                message: format!("{address} wants authentication ({mechanisms}), which this client cannot do"),
                next: None,
            }),
        }
    }
}

pub(crate) fn closed_by_peer() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the other side closed the connection")
}

/// Takes the one reply to a request of this kind apart: an error frame becomes [`Error::Refused`].
pub(crate) fn read_reply<R>(
    what: &str,
    address: &str,
    kind: Kind,
    frame: &Frame<'_>,
    decode: impl FnOnce(&[u8]) -> Result<R, DecodeError>,
) -> Result<R, Error> {
    if !frame.header.is_reply() {
        return Err(Error::protocol(address, "it sent a request where a reply was due"));
    }
    if frame.header.is_error() {
        return Err(refusal(what, address, frame.meta));
    }
    if frame.header.kind() != Some(kind) || frame.header.flags & FLAG_MORE != 0 || !frame.payload.is_empty() {
        return Err(Error::protocol(address, format!("its reply to {what} is none: kind, flags or payload are another request's")));
    }
    decode(frame.meta).map_err(|error| Error::protocol(address, format!("its reply to {what} does not decode: {error}")))
}

/// The error in a frame with the ERROR flag.
pub(crate) fn refusal(what: &str, address: &str, meta: &[u8]) -> Error {
    match ErrorBody::decode(meta) {
        Ok(body) => Error::Refused {
            request: what.to_string(),
            code: body.code().unwrap_or(ErrorCode::Internal),
            retriable: body.retriable,
            message: match body.code() {
                Some(_) => body.message.to_string(),
                None => format!("code {} (unknown to this client): {}", body.code, body.message),
            },
            next: (!body.next.is_empty()).then(|| body.next.to_string()),
        },
        Err(error) => Error::protocol(address, format!("its refusal of {what} does not decode: {error}")),
    }
}

fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests;
