//! Questions that no node can answer alone: numbers of a partition are told by its leader, and who leads a group by the nodes that have replicas of it.
//!
//! Invariants: each node is asked once, on a connection of its own and within the time of one request, several at once; whoever does not answer, or is
//! another node than it should be, is named with the reason, and nothing is made up for it.
//!
//! Not here: what is asked and how answers are put together (`client.rs`, `groups.rs`, `queues.rs`, `cluster.rs`).

use std::collections::BTreeSet;
use std::time::Instant;

use tramline_wire::kind::Kind;
use tramline_wire::prim::DecodeError;

use crate::admin::Shared;
use crate::config::Config;
use crate::error::Error;
use crate::link::{Effect, Link};

/// Nodes that are asked at once: each costs a thread for as long as it takes.
const AT_ONCE: usize = 16;

/// A node that was asked and did not answer. What only it knows is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SilentNode {
    /// Its number.
    pub node: u32,
    /// Where it was asked; empty where it has not told where it listens for clients.
    pub address: String,
    /// Why there is no answer.
    pub reason: String,
}

/// A node and where it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub node: u32,
    pub address: String,
}

/// A connection to one node, for all that one question takes.
pub(crate) struct Asked<'a> {
    node: u32,
    what: &'a str,
    link: Link,
    config: &'a Config,
    deadline: Instant,
}

impl Asked<'_> {
    /// The node.
    pub(crate) fn node(&self) -> u32 {
        self.node
    }

    /// One request that may be repeated; it is not.
    pub(crate) fn call<R>(
        &mut self,
        kind: Kind,
        encode: impl FnOnce(&mut Vec<u8>),
        decode: impl FnOnce(&[u8]) -> Result<R, DecodeError>,
    ) -> Result<R, Error> {
        let until = self.deadline.min(Instant::now() + self.config.request_timeout);
        self.link.call(self.what, kind, Effect::Repeatable, encode, until, decode)
    }
}

/// What some nodes said, by node, and who did not answer.
pub(crate) type Answers<R> = (Vec<(u32, R)>, Vec<SilentNode>);

impl Shared {
    /// Asks each of these nodes.
    pub(crate) fn ask_each<R: Send>(
        &self,
        what: &str,
        places: &[Place],
        deadline: Instant,
        ask: &(impl Fn(&mut Asked<'_>) -> Result<R, Error> + Sync),
    ) -> Answers<R> {
        let cluster_id = self.hello().cluster_id;
        let (mut told, mut silent) = (Vec::new(), Vec::new());
        for some in places.chunks(AT_ONCE) {
            let results: Vec<Result<R, Error>> = std::thread::scope(|scope| {
                let asked = |place| scope.spawn(move || self.ask_one(what, place, cluster_id, deadline, ask));
                let threads: Vec<_> = some.iter().map(asked).collect();
                let joined = threads.into_iter().map(|thread| thread.join());
                joined.map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
            });
            for (place, result) in some.iter().zip(results) {
                match result {
                    Ok(answer) => told.push((place.node, answer)),
                    Err(error) => {
                        silent.push(SilentNode { node: place.node, address: place.address.clone(), reason: error.to_string() });
                    }
                }
            }
        }
        (told, silent)
    }

    fn ask_one<R>(
        &self,
        what: &str,
        place: &Place,
        cluster_id: [u8; 16],
        deadline: Instant,
        ask: &impl Fn(&mut Asked<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        if place.address.is_empty() {
            return Err(Error::config("it has not told yet where it listens for clients"));
        }
        let config = &self.config;
        let left = deadline.saturating_duration_since(Instant::now());
        let (link, hello) = Link::open(&place.address, config, left.min(config.connect_timeout).min(config.request_timeout))?;
        if hello.node != place.node || hello.cluster_id != cluster_id {
            let whose = if hello.cluster_id == cluster_id { "of this cluster" } else { "of another cluster" };
            return Err(Error::protocol(&place.address, format!("node {} {whose} answers there", hello.node)));
        }
        ask(&mut Asked { node: place.node, what, link, config, deadline })
    }

    /// Goes on asking until nothing is missing of `known`, which `first` has told, or every node was asked: those first that are said to lead what is
    /// missing (`missing` names them), then all others at once, since who was asked may not know who leads. Returns who did not answer.
    pub(crate) fn complete<T, R: Send>(
        &self,
        what: &str,
        (known, first): (&mut T, u32),
        deadline: Instant,
        missing: impl Fn(&T) -> BTreeSet<u32>,
        ask: impl Fn(&mut Asked<'_>) -> Result<R, Error> + Sync,
        mut take_in: impl FnMut(&mut T, R),
    ) -> Result<Vec<SilentNode>, Error> {
        let mut named = missing(known);
        if named.is_empty() {
            return Ok(Vec::new());
        }
        let mut left = self.places(deadline)?;
        left.retain(|place| place.node != first);
        let mut silent = Vec::new();
        while !named.is_empty() && !left.is_empty() {
            let is_next = |place: &Place| named.contains(&place.node);
            let (next, others): (Vec<_>, Vec<_>) = left.into_iter().partition(is_next);
            let (next, others) = if next.is_empty() { (others, next) } else { (next, others) };
            left = others;
            let (told, more) = self.ask_each(what, &next, deadline, &ask);
            told.into_iter().for_each(|(_, answer)| take_in(known, answer));
            silent.extend(more);
            named = missing(known);
        }
        Ok(silent)
    }

    /// All nodes that may answer.
    pub(crate) fn places(&self, deadline: Instant) -> Result<Vec<Place>, Error> {
        Ok(self.cluster_of_one(deadline)?.places())
    }
}
