//! The conversation of a node that joins with one node of the cluster (docs/REPLICATION.md, 3.1 and 3.2).
//!
//! Invariants: no wait is longer than `LOOK` without a look at whether the node is to stop; what is kept of a stranger's bytes grows with what has come, not with
//! what a header promises.
//!
//! Not here: whom to ask next (`join.rs`).

use super::{Asking, Told};
use crate::constants::{FEATURE_LEVEL, FEATURE_LEVEL_MIN};
use crate::control::Joined;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};
use tramline_wire::error::ErrorCode;
use tramline_wire::frame::{Limits, finish_frame};
use tramline_wire::node::{
    self, CLUSTER_NONE, Call, CallReply, CallWhat, Class, Frame, Hello, HelloReply, Kind, NODE_ANY, Need, Numbers, Refusal, Refused, Side,
};
use tramline_wire::prim::List;

/// How often a wait looks up.
pub(super) const LOOK: Duration = Duration::from_millis(100);
/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;
/// The only call of the connection.
const CALL: u64 = 1;

/// What came of asking one node.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The node is in the cluster.
    Told(Told),
    /// Another one is to be asked.
    Elsewhere(String),
    /// Later, or somewhere else, it may go well.
    Again(String),
    /// It was decided.
    Never(String),
    /// It was decided before anything was asked, by what this node says it is.
    Refused(Refusal, String),
    /// The node is to stop.
    Stopped,
}

/// Asks the node at `address` to pass `body` on to whoever decides.
pub(super) fn ask(asking: &Asking<'_>, address: &str, body: &[u8], until: Instant) -> Outcome {
    match try_ask(asking, address, body, until) {
        Ok(told) => Outcome::Told(told),
        Err(outcome) => outcome,
    }
}

/// Asks the node at `address` nothing but whether it knows this one.
pub(super) fn greet<'a>(asking: &'a Asking<'a>, address: &str, until: Instant) -> Result<Talk<'a>, Outcome> {
    let stream = connect(asking, address, until)?;
    let mut talk = Talk { asking, stream, until, received: Vec::new(), sent: Numbers::new(), expected: Numbers::new() };
    talk.send(Kind::Hello, &[], |out| hello(asking).encode(out))?;
    talk.receive(Kind::HelloReply, |frame| check_hello(&frame))?;
    Ok(talk)
}

fn try_ask(asking: &Asking<'_>, address: &str, body: &[u8], until: Instant) -> Result<Told, Outcome> {
    let mut talk = greet(asking, address, until)?;
    talk.send(Kind::Call, body, |out| Call::of(CALL, CallWhat::Join, body).encode(out))?;
    let (bytes, joined) = talk.receive(Kind::CallReply, |frame| read_reply(&frame))?;
    Ok(Told { by: address.to_owned(), bytes, joined })
}

fn hello<'a>(asking: &Asking<'_>) -> Hello<'a> {
    Hello {
        class: Class::Calls,
        cluster_id: asking.cluster_id,
        boot: asking.boot,
        from_node: asking.spec.node,
        from_generation: asking.spec.generation,
        to_node: NODE_ANY,
        to_generation: 0,
        from_shard: 0,
        to_shard: 0,
        feature_min: asking.spec.feature_min,
        feature_max: asking.spec.feature_max,
        feature_level: 0,
        view_epoch: 0,
        groups: List::of(&[]),
    }
}

/// Connects to the first address of the name that accepts.
fn connect(asking: &Asking<'_>, address: &str, until: Instant) -> Result<TcpStream, Outcome> {
    let found = address.to_socket_addrs().map_err(|error| Outcome::Again(format!("the name is not found ({error})")))?;
    let mut why = "the name has no address".to_owned();
    for target in found {
        if is_own(asking, target) {
            why = "this is the node's own address; name other nodes in --join".to_owned();
            continue;
        }
        // Zero is no time-out.
        let limit = asking.times.connect.min(until.saturating_duration_since(Instant::now())).max(LOOK);
        match TcpStream::connect_timeout(&target, limit).and_then(|stream| prepared(stream, asking.times.silence)) {
            Ok(stream) => return Ok(stream),
            Err(error) => why = format!("no connection to {target} ({error})"),
        }
        if (asking.is_stopped)() {
            return Err(Outcome::Stopped);
        }
    }
    Err(Outcome::Again(why))
}

fn prepared(stream: TcpStream, silence: Duration) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LOOK))?;
    stream.set_write_timeout(Some(silence))?;
    Ok(stream)
}

/// One list of seeds for all nodes is convenient, so a node may stand in its own.
fn is_own(asking: &Asking<'_>, target: SocketAddr) -> bool {
    let own = &asking.spec.cluster;
    target.port() == own.port && own.host.parse() == Ok(target.ip())
}

/// A connection, and the frames on it.
pub(super) struct Talk<'a> {
    asking: &'a Asking<'a>,
    stream: TcpStream,
    /// When nobody waits any more.
    until: Instant,
    /// What has come and was not looked at yet.
    received: Vec<u8>,
    sent: Numbers,
    expected: Numbers,
}

impl Talk<'_> {
    fn send(&mut self, kind: Kind, payload: &[u8], meta: impl FnOnce(&mut Vec<u8>)) -> Result<(), Outcome> {
        let mut out = Vec::new();
        let start = node::begin(&mut out, kind, self.sent.advance());
        meta(&mut out);
        // A node's addresses and rack have limits far below.
        finish_frame(&mut out, start, payload.len()).map_err(|error| Outcome::Never(error.to_string()))?;
        out.extend_from_slice(payload);
        self.stream.write_all(&out).map_err(|error| Outcome::Again(format!("it does not take what is sent ({error})")))
    }

    /// Waits for the next frame, which has to be of this kind or a refusal.
    fn receive<T>(&mut self, kind: Kind, read: impl FnOnce(Frame<'_>) -> Result<T, Outcome>) -> Result<T, Outcome> {
        let again = |error: node::NodeError| Outcome::Again(error.to_string());
        let limits = if self.expected == Numbers::new() { Limits::BEFORE_HELLO } else { Limits::PROTOCOL };
        loop {
            match node::peek(&self.received, &limits, &self.expected).map_err(again)? {
                Need::More(bytes) => {
                    while self.received.len() < bytes {
                        self.read_more()?;
                    }
                }
                Need::Whole(frame, bytes) => {
                    frame.kind.check(Class::Calls, Side::Acceptor).map_err(again)?;
                    let answer = match frame.kind {
                        Kind::Refused => Err(refused(frame.meta)),
                        found if found == kind => read(frame),
                        found => Err(Outcome::Again(format!(
                            "it sent {found} where {kind} was due: report a defect, with the versions of both nodes"
                        ))),
                    }?;
                    self.expected.advance();
                    self.received.drain(..bytes);
                    return Ok(answer);
                }
            }
        }
    }

    /// Waits for some bytes.
    fn read_more(&mut self) -> Result<(), Outcome> {
        let began = Instant::now();
        let had = self.received.len();
        self.received.resize(had + READ_BYTES, 0);
        loop {
            let read = self.stream.read(&mut self.received[had..]);
            self.received.truncate(had + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => {
                    return Err(Outcome::Again(
                        "it closed the connection without an answer; it may be starting, stopping or alone (without --cluster-listen)"
                            .to_owned(),
                    ));
                }
                Ok(_) => return Ok(()),
                Err(error) if is_worth_waiting(&error) => {}
                Err(error) => return Err(Outcome::Again(format!("the connection broke ({error})"))),
            }
            if (self.asking.is_stopped)() {
                return Err(Outcome::Stopped);
            }
            let silence = self.asking.times.silence;
            if began.elapsed() >= silence || Instant::now() >= self.until {
                return Err(Outcome::Again(format!("no answer within {} s", began.elapsed().as_secs_f64().ceil())));
            }
            self.received.resize(had + READ_BYTES, 0);
        }
    }
}

fn is_worth_waiting(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

fn refused(meta: &[u8]) -> Outcome {
    match Refused::decode(meta) {
        Ok(Refused { retriable: true, message, .. }) => Outcome::Again(message.to_owned()),
        Ok(refused) => match refused.refusal() {
            // It asks shard 0 of whoever listens there.
            Some(code @ Refusal::NoSuchShard) => Outcome::Refused(
                code,
                "this is the port of another one of its shards: name the first one, that of its --cluster-listen (by default 7700)"
                    .to_owned(),
            ),
            Some(code) => Outcome::Refused(code, refused.message.to_owned()),
            None => Outcome::Never(refused.message.to_owned()),
        },
        Err(error) => Outcome::Again(node::NodeError::from(error).to_string()),
    }
}

fn check_hello(frame: &Frame<'_>) -> Result<(), Outcome> {
    let reply = HelloReply::decode(frame.meta).map_err(|error| Outcome::Again(node::NodeError::from(error).to_string()))?;
    if (FEATURE_LEVEL_MIN..=FEATURE_LEVEL).contains(&reply.feature) {
        return Ok(());
    }
    Err(Outcome::Never(format!(
        "the cluster speaks feature level {}, this node {FEATURE_LEVEL_MIN} to {FEATURE_LEVEL}: install the version of the other nodes here",
        reply.feature
    )))
}

fn read_reply(frame: &Frame<'_>) -> Result<(Vec<u8>, Joined), Outcome> {
    let again = |error: node::NodeError| Outcome::Again(error.to_string());
    let reply = CallReply::decode(frame.meta).map_err(|error| again(error.into()))?;
    reply.check(frame.payload).map_err(again)?;
    if (reply.call, reply.what) != (CALL, CallWhat::Join) {
        return Err(Outcome::Again("it answered another call than was made: report a defect, with the versions of both nodes".to_owned()));
    }
    let error = reply.error;
    let message = match error.code() {
        Some(code) if error.message.is_empty() => code.to_string(),
        _ if error.message.is_empty() => format!("error {}", error.code),
        _ => error.message.to_owned(),
    };
    if error.code == ErrorCode::NotLeader.as_u16() && !error.next.is_empty() {
        return Err(Outcome::Elsewhere(error.next.to_owned()));
    }
    if error.code != 0 {
        return Err(if error.retriable { Outcome::Again(message) } else { Outcome::Never(message) });
    }
    let unreadable = |what: String| {
        Outcome::Never(format!("an answer that this node does not understand ({what}): install the version of the other nodes here"))
    };
    let joined = Joined::decode(frame.payload).map_err(|error| unreadable(error.to_string()))?;
    if joined.cluster_id == CLUSTER_NONE {
        return Err(unreadable("it names no cluster".to_owned()));
    }
    Ok((frame.payload.to_vec(), joined))
}
