//! Newer metadata, over a connection of its own: whom to ask, when to go on to the next one.
//!
//! Asked first: the address that a refusal named (`next`), the one that answered last, the nodes known, the configured servers. The connection
//! is opened for one answer and closed after it: metadata is asked for when something moved, and every five minutes else, so an open connection would
//! mostly cost pings.
//!
//! Not here: when metadata is due and what it means (the cores).

use tramline_wire::kind::Kind;
use tramline_wire::metadata::MetadataRequest;
use tramline_wire::prim::List;

use super::peer::{Greeting, Peer};
use super::{Conn, Now};
use crate::error::Error;
use crate::link::read_reply;
use crate::types::Metadata;

/// First size of the receive buffer: metadata of a few topics.
const RECV_BYTES_FIRST: usize = 16 * 1024;

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Router {
    pub(crate) peer: Peer,
    pub(crate) conn: Conn,
    servers: Vec<String>,
    /// Named by a refusal.
    next: Option<String>,
    /// Answered last.
    last: Option<String>,
    /// The request under way, and until when it may be.
    asked: Option<(u64, u64)>,
    topics: Vec<String>,
    /// Of the node that answers.
    cluster_id: [u8; 16],
}

impl Router {
    pub(crate) fn new(servers: Vec<String>, frame_bytes_max: u32) -> Router {
        let conn = Conn::new(RECV_BYTES_FIRST, frame_bytes_max);
        Router { peer: Peer::new(None), conn, servers, next: None, last: None, asked: None, topics: Vec::new(), cluster_id: [0; 16] }
    }

    /// Whether it is free to ask.
    pub(crate) fn is_idle(&self) -> bool {
        self.peer.is_closed()
    }

    /// A refusal named a better address.
    pub(crate) fn prefer(&mut self, address: &str) {
        self.next = Some(address.to_string());
    }

    /// Begins to look for metadata of these topics. False when there is no address at all.
    pub(crate) fn ask(&mut self, topics: Vec<String>, nodes: Vec<String>, greeting: &Greeting, now: Now) -> bool {
        self.topics = topics;
        self.asked = None;
        let all = self.next.take().into_iter().chain(self.last.clone()).chain(nodes).chain(self.servers.iter().cloned());
        let mut addresses: Vec<String> = Vec::new();
        for address in all {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        self.peer.begin(addresses, greeting, now)
    }

    /// The connection is open: asks.
    pub(crate) fn on_open(&mut self, cluster_id: [u8; 16], request_timeout_us: u64, now: Now) {
        self.cluster_id = cluster_id;
        let names: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        let request = MetadataRequest { topics: List::of(&names) };
        if let Ok(correlation) = self.conn.request(Kind::Metadata, |meta| request.encode(meta)) {
            self.asked = Some((correlation, now.mono_us.saturating_add(request_timeout_us)));
        }
    }

    /// Bytes arrived on the open connection.
    pub(crate) fn on_received(&mut self) -> Result<Option<Metadata>, Error> {
        let Some((correlation, _)) = self.asked else { return Ok(None) };
        let address = self.peer.address();
        let (metadata, length) = match self.conn.peek() {
            Ok(None) => return Ok(None),
            Ok(Some((frame, length))) if frame.header.correlation == correlation || frame.header.is_error() => {
                let read = read_reply("get metadata", address, Kind::Metadata, &frame, |meta| Metadata::read(self.cluster_id, meta));
                (read?, length)
            }
            Ok(Some(_)) => return Err(Error::protocol(address, "it answered something that was not asked")),
            Err(error) => return Err(Error::protocol(address, error.to_string())),
        };
        self.conn.consume(length);
        self.last = Some(address.to_string());
        self.close();
        Ok(Some(metadata))
    }

    pub(crate) fn close(&mut self) {
        self.asked = None;
        self.peer.close();
        self.conn.reset();
    }

    /// Until when what is under way may last.
    pub(crate) fn until_us(&self) -> u64 {
        self.asked.map_or(u64::MAX, |(_, until_us)| until_us).min(self.peer.until_us())
    }

    /// The error of what takes too long.
    pub(crate) fn is_late(&self, now: Now) -> Option<Error> {
        match self.asked {
            Some((_, until_us)) if until_us <= now.mono_us => {
                Some(Error::io("no metadata came in time from", self.peer.address(), std::io::ErrorKind::TimedOut.into()))
            }
            _ => self.peer.is_late(now),
        }
    }
}
