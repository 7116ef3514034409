//! Administrative requests: one connection behind a lock, retries, and going from node to node (`route.rs`).
//!
//! A retriable refusal or a broken connection is tried again with growing waits until the call's time is over: at the address that the broker
//! named, if it named one; else at another node, if there is one. A request that may be repeated is given up at a node that does not answer
//! within `request_timeout`, if there is another node. Creating and deleting are not repeated after their request was sent and got no answer,
//! or one that says that it may have been done (`timed_out`, `storage_failed`, `leadership_lost`, `internal`): whether they took effect is
//! then unknown, and the error says so.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tramline_wire::error::ErrorCode;
use tramline_wire::kind::Kind;
use tramline_wire::prim::DecodeError;

use crate::config::Config;
use crate::core::{Backoff, SharedBytes};
use crate::error::Error;
use crate::link::{Effect, HelloInfo, Link};
use crate::route::{Again, Route, Way};
use crate::types::Node;

/// So long a cluster that says that its metadata have no leader is asked again: an election takes a second or two, and what takes longer needs somebody to
/// do something, who wants to be told.
const LEADERLESS_MAX: Duration = Duration::from_secs(4);

/// What a client shares with its producers and consumers: the settings and the administrative connection.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    admin: Mutex<Admin>,
}

#[derive(Debug)]
struct Admin {
    link: Option<Link>,
    /// Of that connection, or of the one before it.
    hello: HelloInfo,
    route: Route,
}

/// Who answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answerer {
    pub cluster_id: [u8; 16],
    pub node: u32,
}

/// Until when a request may take, and which node leads what it is about, where that is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aim {
    pub deadline: Instant,
    pub node: Option<u32>,
}

impl From<Instant> for Aim {
    fn from(deadline: Instant) -> Aim {
        Aim { deadline, node: None }
    }
}

/// A request, as often as it takes.
struct Request<'a, E> {
    what: &'a str,
    kind: Kind,
    effect: Effect,
    payload: &'a [SharedBytes],
    encode: E,
    deadline: Instant,
}

impl Shared {
    /// Connects to the first of the configured servers that answers.
    pub(crate) fn connect(config: Config) -> Result<Shared, Error> {
        config.check()?;
        let mut route = Route::new(&config.servers);
        let (link, hello) = open_first(&config, &mut route, &Way::default(), None)?;
        let admin = Admin { link: Some(link), hello, route };
        Ok(Shared { config, admin: Mutex::new(admin) })
    }

    /// What the broker told at the last hello.
    pub(crate) fn hello(&self) -> HelloInfo {
        self.lock().hello.clone()
    }

    /// The nodes, as metadata told them.
    pub(crate) fn learn_nodes(&self, nodes: &[Node]) {
        self.lock().route.learn(nodes);
    }

    fn lock(&self) -> MutexGuard<'_, Admin> {
        // A panic while the lock was held can leave a half-read connection, never a wrong value: `call` drops the link
        // whenever a request did not end well, and takes it out while one runs.
        self.admin.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the time of a call that begins now is over. One that takes several requests has one deadline for all of them.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.config.call_timeout
    }

    /// Runs one administrative request with its retries.
    pub(crate) fn call<R>(
        &self,
        what: &str,
        kind: Kind,
        effect: Effect,
        encode: impl Fn(&mut Vec<u8>),
        decode: impl Fn(&[u8]) -> Result<R, DecodeError>,
    ) -> Result<R, Error> {
        self.call_until(self.deadline(), what, kind, effect, encode, decode)
    }

    /// As [`call`](Self::call), as one of several under one deadline, or aimed at a node.
    pub(crate) fn call_until<R>(
        &self,
        aim: impl Into<Aim>,
        what: &str,
        kind: Kind,
        effect: Effect,
        encode: impl Fn(&mut Vec<u8>),
        decode: impl Fn(&[u8]) -> Result<R, DecodeError>,
    ) -> Result<R, Error> {
        self.call_of_cluster(aim.into(), what, kind, effect, &[], encode, |_, meta| decode(meta))
    }

    /// As [`call_until`](Self::call_until), with batches as the request's payload.
    pub(crate) fn call_with_payload<R>(
        &self,
        deadline: Instant,
        what: &str,
        kind: Kind,
        effect: Effect,
        payload: &[SharedBytes],
        encode: impl Fn(&mut Vec<u8>),
        decode: impl Fn(&[u8]) -> Result<R, DecodeError>,
    ) -> Result<R, Error> {
        self.call_of_cluster(deadline.into(), what, kind, effect, payload, encode, |_, meta| decode(meta))
    }

    /// As [`call_until`](Self::call_until), where the answer means something only with who gave it.
    pub(crate) fn call_of_cluster<R>(
        &self,
        aim: Aim,
        what: &str,
        kind: Kind,
        effect: Effect,
        payload: &[SharedBytes],
        encode: impl Fn(&mut Vec<u8>),
        decode: impl Fn(Answerer, &[u8]) -> Result<R, DecodeError>,
    ) -> Result<R, Error> {
        let mut backoff = Backoff::seeded(crate::clock::seed());
        let mut way = Way::to(aim.node);
        let request = Request { what, kind, effect, payload, encode, deadline: aim.deadline };
        let mut leaderless_since: Option<Instant> = None;
        loop {
            // The lock is given back while waiting: a producer's look at the metadata must not wait for another's retries.
            let mut admin = self.lock();
            let (error, again) = match admin.try_once(&self.config, &mut way, &request, &decode) {
                Ok(result) => return Ok(result),
                Err(failed) => failed,
            };
            drop(admin);
            let is_leaderless = error.code() == Some(ErrorCode::NoMetadataLeader);
            let is_lasting = is_leaderless && leaderless_since.get_or_insert_with(Instant::now).elapsed() >= LEADERLESS_MAX;
            if !error.retriable() || is_lasting {
                return Err(error);
            }
            if again != Again::AtOnce {
                pause(what, &mut backoff, aim.deadline, &self.config, error)?;
            }
        }
    }
}

impl Admin {
    fn try_once<R>(
        &mut self,
        config: &Config,
        way: &mut Way,
        request: &Request<'_, impl Fn(&mut Vec<u8>)>,
        decode: &impl Fn(Answerer, &[u8]) -> Result<R, DecodeError>,
    ) -> Result<R, (Error, Again)> {
        // The broker may have closed the connection meanwhile; noticing before the request is sent saves a request with an
        // unknown outcome.
        let (route, node) = (&self.route, self.hello.node);
        let reusable = self.link.take().filter(|link| route.suits(way, link.address(), node));
        let reusable = reusable.and_then(|mut link| (!link.is_stale()).then_some(link));
        let mut link = match reusable {
            Some(link) => link,
            None => {
                let opened = open_first(config, &mut self.route, way, Some(request.deadline));
                let (link, hello) = opened.map_err(|error| {
                    *way = Way::default();
                    (error, Again::Elsewhere)
                })?;
                self.hello = hello;
                link
            }
        };
        let &Request { what, kind, effect, payload, deadline, ref encode } = request;
        let (from, node) = (Answerer { cluster_id: self.hello.cluster_id, node: self.hello.node }, self.hello.node);
        let until = match effect {
            Effect::Once => deadline,
            _ if !self.route.has_others(node) => deadline,
            Effect::Repeatable | Effect::Marked => deadline.min(Instant::now() + config.request_timeout),
        };
        let error = match link.call_with(what, kind, effect, payload, encode, until, |meta| decode(from, meta)) {
            Ok(result) => {
                self.link = Some(link);
                return Ok(result);
            }
            Err(error) => error,
        };
        let address = link.address().to_string();
        let again = match error.retriable() || error.outcome_unknown() {
            true => self.route.after(way, &error, &address, node, Instant::now()),
            false => Again::Here,
        };
        if matches!(error, Error::Refused { .. }) && again == Again::Here {
            self.link = Some(link);
        }
        Err((error, again))
    }
}

/// Opens a connection to the first address that answers. Each gets `connect_timeout`, or what is left until the deadline.
fn open_first(config: &Config, route: &mut Route, way: &Way, deadline: Option<Instant>) -> Result<(Link, HelloInfo), Error> {
    let mut first_error: Option<Error> = None;
    for address in route.addresses(way) {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            break;
        }
        match Link::open(&address, config, left.map_or(config.connect_timeout, |left| left.min(config.connect_timeout))) {
            Ok((link, hello)) => {
                route.opened(&address);
                route.learn_some(&hello.nodes);
                return Ok((link, hello));
            }
            Err(error) => {
                route.failed(&address, Instant::now());
                // One that may pass says that trying again is of use, whatever else listens elsewhere.
                let is_better = first_error.as_ref().is_none_or(|first| !first.retriable() && error.retriable());
                first_error = if is_better { Some(error) } else { first_error };
            }
        }
    }
    Err(first_error.unwrap_or_else(|| match deadline {
        Some(_) => Error::Timeout { doing: "connecting".to_string(), after: config.call_timeout, last: None },
        None => Error::config("no server address: give at least one host:port"),
    }))
}

/// Sleeps before the next attempt; gives up with the last error when the time would be over.
pub(crate) fn pause(what: &str, backoff: &mut Backoff, deadline: Instant, config: &Config, last: Error) -> Result<(), Error> {
    let wait = Duration::from_micros(backoff.next_us());
    if Instant::now() + wait >= deadline {
        return Err(Error::Timeout { doing: what.to_string(), after: config.call_timeout, last: Some(Arc::new(last)) });
    }
    std::thread::sleep(wait);
    Ok(())
}
