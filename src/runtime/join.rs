//! Joining a cluster: a node whose directory is nobody's yet asks the nodes that `--join` names, until one has taken it in.
//!
//! ```text
//!   for each seed, round and round:   connect -> Hello -> HelloReply -> Call(Join, AddNode) -> CallReply(Joined)
//!        refused retriably, silent, closed, no frames     -> the next seed, then a pause, then all again
//!        not the leader, and who is                       -> that one, at once
//!        refused for good                                 -> the start fails with that sentence
//!        `Times::all` are over                            -> the start fails with what each seed answered last
//! ```
//! Runs before the shards do, on the thread that starts the node: plain blocking sockets, no ring.
//!
//! Invariants: asking twice is asking for the same thing, for the disk stands in the directory before (`data_dir.rs`), so an answer that is lost costs only
//! time; nothing that a seed sends is believed before its checksum, its place and its form were right.
//!
//! Not here: the conversation with one node (`join/talk.rs`), what a node asks that is in a cluster already (`join/known.rs`), what is kept of the answer (`data_dir.rs`), who answers (shard/).

mod known;
mod talk;
#[cfg(test)]
mod tests;

use crate::constants::{JOIN_HOPS_MAX, JOIN_PAUSE_US, JOIN_SILENCE_US, JOIN_US, NODE_DIAL_US};
use crate::control::{ClusterCommand, Command, Joined, NodeSpec};
use std::fmt;
use std::time::{Duration, Instant};
use talk::Outcome;

pub(super) use known::{Known, check_known};

/// How long is waited for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// For somebody who takes the node in.
    pub(super) all: Duration,
    /// For a connection.
    pub(super) connect: Duration,
    /// For the next byte of an answer.
    pub(super) silence: Duration,
    /// Between two rounds.
    pub(super) pause: Duration,
}

impl Default for Times {
    fn default() -> Times {
        Times {
            all: Duration::from_micros(JOIN_US),
            connect: Duration::from_micros(NODE_DIAL_US),
            silence: Duration::from_micros(JOIN_SILENCE_US),
            pause: Duration::from_micros(JOIN_PAUSE_US),
        }
    }
}

/// What is asked.
pub(super) struct Asking<'a> {
    /// Of whom: `HOST:PORT` of cluster ports.
    pub(super) seeds: &'a [String],
    /// To take in whom.
    pub(super) spec: NodeSpec,
    /// The cluster that it is in already; `CLUSTER_NONE` for none.
    pub(super) cluster_id: [u8; 16],
    /// This process, as other nodes tell it from the one before.
    pub(super) boot: u64,
    /// For how long.
    pub(super) times: Times,
    /// Whether the node is to stop.
    pub(super) is_stopped: &'a dyn Fn() -> bool,
}

/// What the cluster told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Who did.
    pub(super) by: String,
    /// The bytes, to be kept as they are.
    pub(super) bytes: Vec<u8>,
    /// What they say.
    pub(super) joined: Joined,
}

/// Why the node is in no cluster.
#[derive(Debug)]
pub enum JoinError {
    /// Somebody has decided against it.
    Refused {
        /// Who.
        by: String,
        /// Why, and what to do.
        why: String,
    },
    /// Nobody has decided.
    NoAnswer {
        /// How long was asked.
        waited: Duration,
        /// Each seed and why it was no help when it was last asked.
        last: Vec<(String, String)>,
    },
    /// The node has a cluster, and is not to be there any more, or not to look for it there.
    Known(Known),
    /// The node is to stop.
    Stopped,
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinError::Refused { by, why } => write!(f, "the cluster does not take this node in; {by} says: {why}"),
            JoinError::NoAnswer { waited, last } => {
                write!(f, "no node of --join has taken this node into its cluster within {} s", waited.as_secs())?;
                last.iter().try_for_each(|(seed, why)| write!(f, "; {seed}: {why}"))?;
                f.write_str("; check the addresses, and that nodes with --cluster-listen run there; what was begun here is gone on with when the node is started again")
            }
            JoinError::Known(known) => known.fmt(f),
            JoinError::Stopped => {
                f.write_str("the node was stopped before a cluster had taken it in; it asks again when it is started again")
            }
        }
    }
}

impl std::error::Error for JoinError {}

/// Asks until there is an answer.
pub(super) fn join(asking: &Asking<'_>) -> Result<Told, JoinError> {
    let body = Command::from(ClusterCommand::AddNode(Box::new(asking.spec.clone()))).encode();
    let until = Instant::now() + asking.times.all;
    let mut last: Vec<(String, String)> = Vec::new();
    tracing::info!("this node is in no cluster yet: asking {} to take it in as node {}", asking.seeds.join(", "), asking.spec.node);
    loop {
        for seed in asking.seeds {
            if (asking.is_stopped)() {
                return Err(JoinError::Stopped);
            }
            match ask_from(asking, seed, &body, until)? {
                Ok(told) => return Ok(told),
                Err(why) => remember(&mut last, seed, why),
            }
        }
        if !pause(asking, until) {
            return Err(JoinError::NoAnswer { waited: asking.times.all, last });
        }
    }
}

/// Asks a seed, and whoever it sends this node to. The inner error is worth another try.
fn ask_from(asking: &Asking<'_>, seed: &str, body: &[u8], until: Instant) -> Result<Result<Told, String>, JoinError> {
    let mut address = seed.to_owned();
    for _hop in 0..JOIN_HOPS_MAX {
        match talk::ask(asking, &address, body, until) {
            Outcome::Told(told) => return Ok(Ok(told)),
            Outcome::Elsewhere(next) => {
                tracing::info!("{address} sends this node to {next}, which leads the cluster's metadata");
                address = next;
            }
            Outcome::Again(why) if address == seed => return Ok(Err(why)),
            Outcome::Again(why) => return Ok(Err(format!("it names {address}, and there: {why}"))),
            Outcome::Never(why) | Outcome::Refused(_, why) => return Err(JoinError::Refused { by: address, why }),
            Outcome::Stopped => return Err(JoinError::Stopped),
        }
    }
    Ok(Err(format!("sent on {JOIN_HOPS_MAX} times, at last to {address}: the cluster's leader is changing")))
}

/// Logs why a try came to nothing: once for each reason, for it may be the same every second.
fn remember(last: &mut Vec<(String, String)>, seed: &str, why: String) {
    match last.iter_mut().find(|(known, _)| known == seed) {
        Some((_, before)) if *before == why => tracing::debug!("joining by {seed} failed again: {why}"),
        Some((_, before)) => {
            tracing::warn!("joining by {seed} failed, it is tried again: {why}");
            *before = why;
        }
        None => {
            tracing::warn!("joining by {seed} failed, it is tried again: {why}");
            last.push((seed.to_owned(), why));
        }
    }
}

/// Lets some time pass. Whether there is any left.
fn pause(asking: &Asking<'_>, until: Instant) -> bool {
    let end = Instant::now() + asking.times.pause;
    while !(asking.is_stopped)() {
        let now = Instant::now();
        if now >= until {
            return false;
        }
        if now >= end {
            break;
        }
        std::thread::sleep(talk::LOOK.min(end.min(until) - now));
    }
    true
}
