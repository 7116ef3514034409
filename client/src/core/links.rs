//! The connections of a producer or a consumer: dials what its core wants, says hello, gets it metadata. No sockets.
//!
//! A driver (`crate::transport::Driver`, or a test) does, again and again: [`Links::step`] with the time; dial what [`Links::next_dial`] names, without
//! waiting; tell [`Links::on_dialled`] or [`Links::on_failed`]; write what [`Links::conn`] has queued; read into it and tell [`Links::on_received`]; drop the sockets
//! that [`Links::is_wanted`] does not want any more.
//!
//! Invariants: a lane's core hears `on_connected` once per connection, and then `on_lost` once; one that could not be opened at any of its addresses is told
//! as lost, too. A dead address costs its own lane time and no other: nothing here waits.

use std::collections::HashMap;

use super::cluster::{ClusterView, Owner};
use super::peer::{Greeting, Peer};
use super::router::Router;
use super::wish::MetadataWish;
use super::{Conn, Now};
use crate::error::Error;
use crate::link::HelloInfo;
use crate::types::Metadata;

/// A core that talks to owners, as seen from its connections.
pub(crate) trait Lanes {
    /// Number of lanes; they are counted from 0 and never go away. One that is unused may be another owner's later.
    fn lane_count(&self) -> usize;
    /// Bytes of a lane.
    fn conn(&mut self, lane: usize) -> &mut Conn;
    /// Whom a lane talks to.
    fn owner(&self, lane: usize) -> Owner;
    /// The cluster as it is known.
    fn cluster(&self) -> &ClusterView;
    /// When metadata is wanted.
    fn wish(&mut self) -> &mut MetadataWish;
    /// Names of the topics in use.
    fn topic_names(&self) -> Vec<String>;
    /// Whether a lane's open connection is of no use any more.
    fn is_given_up(&self, _lane: usize) -> bool {
        false
    }
    /// Whether a lane needs a connection, has none and none is being opened.
    fn wants_connection(&self, lane: usize, now: Now) -> bool;
    /// Whether a lane needs no connection any more, so that one that it has is to be closed.
    fn is_unused(&self, _lane: usize) -> bool {
        false
    }
    /// Its connection was closed, or is not being opened any more.
    fn on_unused(&mut self, _lane: usize) {}
    /// A connection is being opened.
    fn on_connecting(&mut self, lane: usize);
    /// It is open.
    fn on_connected(&mut self, lane: usize, address: &str, hello: &HelloInfo, now: Now);
    /// It could not be opened, or was lost.
    fn on_lost(&mut self, lane: usize, error: Error, now: Now);
    /// Newer metadata.
    fn learn(&mut self, metadata: &Metadata, now: Now);
    /// None could be got.
    fn metadata_failed(&mut self, error: Error, now: Now);
}

/// One of the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// That for metadata.
    Router,
    /// That of a lane.
    Lane(usize),
}

impl Key {
    /// 0 for the router, lanes from 1.
    pub(crate) fn place(self) -> usize {
        match self {
            Key::Router => 0,
            Key::Lane(lane) => lane + 1,
        }
    }

    pub(crate) fn at(place: usize) -> Key {
        place.checked_sub(1).map_or(Key::Router, Key::Lane)
    }
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Links {
    greeting: Greeting,
    request_timeout_us: u64,
    router: Router,
    /// By lane.
    peers: Vec<Peer>,
    /// Who leads which partition (by uid), as far as answers told: term and leader.
    told: HashMap<u64, (u64, Owner)>,
    /// Something may be to be dialled.
    dials: bool,
    /// Attempts under way, the router's included: while there are none, `step` has nothing to look after.
    opening: usize,
}

impl Links {
    pub(crate) fn new(config: &crate::config::Config) -> Links {
        let connect_timeout_us = crate::clock::micros(config.connect_timeout);
        Links {
            greeting: Greeting { client_name: config.client_name.clone(), connect_timeout_us },
            request_timeout_us: crate::clock::micros(config.request_timeout),
            router: Router::new(config.servers.clone(), config.frame_bytes_max),
            peers: Vec::new(),
            told: HashMap::new(),
            dials: false,
            opening: 0,
        }
    }

    /// What time and the core's wishes bring.
    #[inline]
    pub(crate) fn step(&mut self, core: &mut impl Lanes, now: Now) {
        if core.wish().is_due(now) {
            self.ask_metadata(core, now);
        }
        for lane in 0..core.lane_count() {
            if core.is_unused(lane) {
                self.close_unused(core, lane);
                continue;
            }
            if core.is_given_up(lane) {
                self.on_failed(core, Key::Lane(lane), Error::config("nothing is sent to this owner any more"), now);
            }
            if core.wants_connection(lane, now) {
                self.open(core, lane, now);
            }
        }
        if self.opening > 0 {
            self.give_up_late(core, now);
        }
    }

    #[cold]
    fn ask_metadata(&mut self, core: &mut impl Lanes, now: Now) {
        let topics = core.topic_names();
        core.wish().on_taken(&topics);
        if topics.is_empty() {
            return;
        }
        if let Some(next) = core.wish().take_redirect() {
            self.router.prefer(&next);
        }
        if !self.router.is_idle() {
            self.router.close();
        }
        if !self.router.ask(topics, core.cluster(), &self.greeting, now) {
            core.metadata_failed(Error::config("no server address: give at least one host:port"), now);
        }
        self.dials = true;
        self.count_opening();
    }

    #[cold]
    fn open(&mut self, core: &mut impl Lanes, lane: usize, now: Now) {
        while self.peers.len() <= lane {
            self.peers.push(Peer::new(None));
        }
        self.peers[lane].expect_node(core.owner(lane).node);
        core.on_connecting(lane);
        if self.peers[lane].begin(core.cluster().addresses(core.owner(lane)), &self.greeting, now) {
            self.dials = true;
        } else {
            core.on_lost(lane, Error::config("the owner's node is not in the cluster's metadata"), now);
        }
        self.count_opening();
    }

    #[inline]
    fn close_unused(&mut self, core: &mut impl Lanes, lane: usize) {
        if let Some(peer) = self.peers.get_mut(lane).filter(|peer| !peer.is_closed()) {
            peer.close();
            core.on_unused(lane);
            self.count_opening();
        }
    }

    #[cold]
    fn give_up_late(&mut self, core: &mut impl Lanes, now: Now) {
        if let Some(error) = self.router.is_late(now) {
            self.on_failed(core, Key::Router, error, now);
        }
        for lane in 0..self.peers.len() {
            if let Some(error) = self.peers[lane].is_late(now) {
                self.on_failed(core, Key::Lane(lane), error, now);
            }
        }
    }

    /// The next connection to be dialled, and its address. A socket that it has is to be dropped.
    pub(crate) fn next_dial(&mut self) -> Option<(Key, String)> {
        if !self.dials {
            return None;
        }
        let Links { router, peers, .. } = self;
        let peers = std::iter::once(&mut router.peer).chain(peers);
        let found = peers.enumerate().find_map(|(place, peer)| peer.take_dial().map(|address| (Key::at(place), address.to_string())));
        self.dials = found.is_some();
        found
    }

    /// Whether a lane is open.
    #[inline]
    pub(crate) fn is_open(&self, lane: usize) -> bool {
        self.peers.get(lane).is_some_and(Peer::is_open)
    }

    /// Whether a connection is wanted at all: else its socket is to be dropped.
    #[inline]
    pub(crate) fn is_wanted(&self, key: Key) -> bool {
        match key {
            Key::Router => !self.router.peer.is_closed(),
            Key::Lane(lane) => self.peers.get(lane).is_some_and(|peer| !peer.is_closed()),
        }
    }

    /// Bytes of a connection.
    #[inline]
    pub(crate) fn conn<'a>(&'a mut self, core: &'a mut impl Lanes, key: Key) -> &'a mut Conn {
        match key {
            Key::Router => &mut self.router.conn,
            Key::Lane(lane) => core.conn(lane),
        }
    }

    /// A socket is connected.
    pub(crate) fn on_dialled(&mut self, core: &mut impl Lanes, key: Key) {
        match key {
            Key::Router => self.router.peer.on_dialled(&mut self.router.conn, &self.greeting),
            Key::Lane(lane) => self.peers[lane].on_dialled(core.conn(lane), &self.greeting),
        }
    }

    /// Bytes arrived on the router's connection, or on a lane's that is not open. An error is to be answered with [`on_failed`](Self::on_failed).
    pub(crate) fn on_received(&mut self, core: &mut impl Lanes, key: Key, now: Now) -> Result<(), Error> {
        match key {
            Key::Lane(lane) => {
                let peer = &mut self.peers[lane];
                if let Some(hello) = peer.on_received(core.conn(lane))? {
                    if core.cluster().is_other(&hello.cluster_id) {
                        return Err(peer.refuse("it belongs to another cluster than the one that was known"));
                    }
                    core.on_connected(lane, peer.address(), &hello, now);
                    self.count_opening();
                }
            }
            Key::Router => {
                let Router { peer, conn, .. } = &mut self.router;
                if !peer.is_open()
                    && let Some(hello) = peer.on_received(conn)?
                {
                    self.router.on_open(hello.cluster_id, self.request_timeout_us, now)?;
                }
                if let Some(mut metadata) = self.router.on_received(self.request_timeout_us, now)? {
                    metadata.keep_topics(&core.topic_names());
                    if core.cluster().is_other(&metadata.cluster_id) {
                        self.told.clear();
                    }
                    core.learn(&metadata, now);
                    let is_news = self.brings_news(&metadata);
                    core.wish().on_answered(is_news, now);
                    if !is_news {
                        self.router.pass_over();
                    }
                    self.count_opening();
                }
            }
        }
        Ok(())
    }

    /// A connection could not be opened, or is lost.
    pub(crate) fn on_failed(&mut self, core: &mut impl Lanes, key: Key, error: Error, now: Now) {
        match key {
            Key::Router => {
                if let Some(next) = error.next_address() {
                    self.router.prefer(next);
                }
                if !self.router.on_failed(&error, &self.greeting, now) {
                    core.metadata_failed(error, now);
                }
            }
            Key::Lane(lane) => {
                let peer = &mut self.peers[lane];
                let goes_on = !peer.is_open() && peer.on_failed(core.conn(lane), &self.greeting, now);
                if !goes_on {
                    peer.close();
                    core.on_lost(lane, error, now);
                }
            }
        }
        self.dials = true;
        self.count_opening();
    }

    /// Whether an answer tells of a leader that no answer before told of.
    fn brings_news(&mut self, metadata: &Metadata) -> bool {
        let mut is_news = false;
        let mut told = HashMap::new();
        for partition in metadata.topics.iter().flat_map(|topic| &topic.partitions) {
            let new = (partition.term, Owner::from(partition));
            let known = self.told.get(&partition.uid).copied().filter(|known| known.0 > new.0 || *known == new);
            is_news |= known.is_none();
            told.insert(partition.uid, known.unwrap_or(new));
        }
        self.told = told;
        is_news
    }

    fn count_opening(&mut self) {
        let lanes = self.peers.iter().filter(|peer| !peer.is_closed() && !peer.is_open()).count();
        self.opening = lanes + usize::from(!self.router.is_idle());
    }

    /// When [`step`](Self::step) has to run next even if nothing happens; the core's own time not included.
    pub(crate) fn next_step_us(&self) -> u64 {
        if self.opening == 0 {
            return u64::MAX;
        }
        self.peers.iter().map(Peer::until_us).fold(self.router.until_us(), u64::min)
    }
}

#[cfg(test)]
mod tests;
