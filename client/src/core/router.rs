//! Newer metadata, over a connection of its own: whom to ask, when to go on to the next one.
//!
//! Asked first: the address that a refusal named (`next`), the one that answered last, some of the nodes known, the configured servers; 16
//! addresses at most per attempt, and other nodes at the next. Who cannot be reached, answers too late or refuses is passed over for the next
//! address; who answered what was known already is asked last the next time, as a node that hears nothing of its cluster goes on
//! answering. Names that are too many for a request, or for its reply, are asked for in
//! parts, over one connection. The connection is opened for one answer and closed after it: metadata is asked for when something moved, and
//! every five minutes else, so an open connection would mostly cost pings.
//!
//! Not here: when metadata is due and what it means (the cores).

use tramline_wire::error::ErrorCode;
use tramline_wire::frame::META_BYTES_MAX;
use tramline_wire::kind::Kind;
use tramline_wire::metadata::MetadataRequest;
use tramline_wire::prim::List;

use super::cluster::ClusterView;
use super::peer::{Greeting, Peer};
use super::{Conn, Now};
use crate::error::Error;
use crate::link::read_reply;
use crate::types::Metadata;

/// First size of the receive buffer: metadata of a few topics.
const RECV_BYTES_FIRST: usize = 16 * 1024;

/// Addresses tried in one attempt, and how many configured servers are among them. Each may cost `connect_timeout`.
const ADDRESSES_MAX: usize = 16;
const SERVERS_MAX: usize = 8;

/// What a list's count takes; half of it is what a name's length takes.
const LIST_BYTES: usize = 4;

/// The request under way.
#[derive(Debug, Clone, Copy)]
struct Asked {
    correlation: u64,
    /// Names in it.
    count: usize,
    /// Until when it may be under way, monotonic microseconds.
    until_us: u64,
}

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
    /// Asked after all others: it answered last, and nothing new.
    stale: Option<String>,
    asked: Option<Asked>,
    topics: Vec<String>,
    /// What was answered of them so far.
    collected: Option<Metadata>,
    /// Most names in a request, as far as a node said that its reply would be too large.
    names_max: usize,
    /// The node known that is tried first, counted round.
    first_node: usize,
    /// Of the node that answers.
    cluster_id: [u8; 16],
}

impl Router {
    pub(crate) fn new(servers: Vec<String>, frame_bytes_max: u32) -> Router {
        let conn = Conn::new(RECV_BYTES_FIRST, frame_bytes_max);
        Router {
            peer: Peer::new(None),
            conn,
            servers,
            next: None,
            last: None,
            stale: None,
            asked: None,
            topics: Vec::new(),
            collected: None,
            names_max: usize::MAX,
            first_node: 0,
            cluster_id: [0; 16],
        }
    }

    /// Whether it is free to ask.
    pub(crate) fn is_idle(&self) -> bool {
        self.peer.is_closed()
    }

    /// A refusal named a better address.
    pub(crate) fn prefer(&mut self, address: &str) {
        self.next = Some(address.to_string());
        self.stale.take_if(|stale| stale == address);
    }

    /// Begins to look for metadata of these topics. False when there is no address at all.
    pub(crate) fn ask(&mut self, topics: Vec<String>, cluster: &ClusterView, greeting: &Greeting, now: Now) -> bool {
        self.topics = topics;
        self.asked = None;
        self.collected = None;
        let servers = &self.servers[..self.servers.len().min(SERVERS_MAX)];
        let mut addresses: Vec<String> = self.next.take().into_iter().chain(self.last.clone()).collect();
        let nodes_max = ADDRESSES_MAX - addresses.len() - servers.len();
        let nodes = cluster.some_addresses(self.first_node, nodes_max);
        // All of few nodes are asked each time, and another one of them first.
        let step = if cluster.node_count() > nodes_max { nodes_max } else { 1 };
        self.first_node = self.first_node.wrapping_add(step);
        // Sixteen at most, so comparing each with all is nothing.
        for address in nodes.into_iter().chain(servers.iter().cloned()) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses.dedup();
        if let Some(at) = addresses.iter().position(|address| self.stale.as_ref() == Some(address)) {
            let stale = addresses.remove(at);
            addresses.push(stale);
        }
        self.peer.begin(addresses, greeting, now)
    }

    /// The connection is open: asks. An error: it cannot be asked.
    pub(crate) fn on_open(&mut self, cluster_id: [u8; 16], request_timeout_us: u64, now: Now) -> Result<(), Error> {
        self.cluster_id = cluster_id;
        self.ask_part(request_timeout_us, now)
    }

    /// Asks for the topics that were not answered yet, as many as a request holds.
    fn ask_part(&mut self, request_timeout_us: u64, now: Now) -> Result<(), Error> {
        let answered = self.collected.as_ref().map_or(0, |collected| collected.topics.len());
        let mut bytes = LIST_BYTES;
        let names: Vec<&str> = self.topics[answered.min(self.topics.len())..]
            .iter()
            .map(String::as_str)
            .take(self.names_max)
            .take_while(|name| {
                bytes += LIST_BYTES / 2 + name.len();
                bytes <= META_BYTES_MAX as usize
            })
            .collect();
        let request = MetadataRequest { topics: List::of(&names) };
        if names.is_empty() {
            return Err(Error::config("a topic's name is too long to be asked for"));
        }
        let sent = self.conn.request(Kind::Metadata, |meta| request.encode(meta));
        let correlation = sent.map_err(|oversized| Error::config(&format!("get metadata: {oversized}")))?;
        let count = names.len();
        self.asked = Some(Asked { correlation, count, until_us: now.mono_us.saturating_add(request_timeout_us) });
        Ok(())
    }

    /// Bytes arrived on the open connection.
    pub(crate) fn on_received(&mut self, request_timeout_us: u64, now: Now) -> Result<Option<Metadata>, Error> {
        let Some(Asked { correlation, count, .. }) = self.asked else { return Ok(None) };
        let address = self.peer.address();
        let (read, length) = match self.conn.peek() {
            Ok(None) => return Ok(None),
            Ok(Some((frame, length))) if frame.header.correlation == correlation || frame.header.is_error() => {
                let decode = |meta: &[u8]| Metadata::read(self.cluster_id, meta);
                (read_reply("get metadata", address, Kind::Metadata, &frame, decode), length)
            }
            Ok(Some(_)) => return Err(Error::protocol(address, "it answered something that was not asked")),
            Err(error) => return Err(Error::protocol(address, error.to_string())),
        };
        self.conn.consume(length);
        match read {
            Ok(part) if part.topics.len() != count => {
                return Err(Error::protocol(address, format!("it told about {} of {count} topics", part.topics.len())));
            }
            Ok(part) => self.collect(part),
            // The reply would be too large.
            Err(error) if error.code() == Some(ErrorCode::LimitExceeded) && count > 1 => self.names_max = count / 2,
            Err(error) => return Err(error),
        }
        if self.collected.as_ref().is_none_or(|collected| collected.topics.len() < self.topics.len()) {
            self.ask_part(request_timeout_us, now)?;
            return Ok(None);
        }
        self.last = Some(self.peer.address().to_string());
        self.stale = None;
        let collected = self.collected.take();
        self.close();
        Ok(collected)
    }

    /// One view of all parts: as old as the oldest of them.
    fn collect(&mut self, part: Metadata) {
        match &mut self.collected {
            None => self.collected = Some(part),
            Some(collected) => {
                collected.view_epoch = collected.view_epoch.min(part.view_epoch);
                collected.nodes = part.nodes;
                collected.topics.extend(part.topics);
            }
        }
    }

    /// What was answered last was nothing new: others are asked before that node.
    pub(crate) fn pass_over(&mut self) {
        self.stale = self.last.take();
    }

    /// The attempt failed at this address: goes on with the next, if there is one; false: closed.
    pub(crate) fn on_failed(&mut self, error: &Error, greeting: &Greeting, now: Now) -> bool {
        if self.last.as_deref() == Some(self.peer.address()) {
            self.last = None;
        }
        self.asked = None;
        self.collected = None;
        // What cannot be asked cannot be asked elsewhere either.
        let goes_on = !matches!(error, Error::Config { .. }) && self.peer.on_failed(&mut self.conn, greeting, now);
        if !goes_on {
            self.close();
        }
        goes_on
    }

    pub(crate) fn close(&mut self) {
        self.asked = None;
        self.collected = None;
        self.peer.close();
        self.conn.reset();
    }

    /// Until when what is under way may last.
    pub(crate) fn until_us(&self) -> u64 {
        self.asked.map_or(u64::MAX, |asked| asked.until_us).min(self.peer.until_us())
    }

    /// The error of what takes too long.
    pub(crate) fn is_late(&self, now: Now) -> Option<Error> {
        match self.asked {
            Some(Asked { until_us, .. }) if until_us <= now.mono_us => {
                Some(Error::io("no metadata came in time from", self.peer.address(), std::io::ErrorKind::TimedOut.into()))
            }
            _ => self.peer.is_late(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeBroker, carry, refusal_of};
    use crate::types::Node;

    const NOW: Now = Now { mono_us: 1, utc_us: 0 };

    fn greeting() -> Greeting {
        Greeting { client_name: String::new(), connect_timeout_us: 1000 }
    }

    /// Addresses that are tried when nobody answers.
    fn tried(router: &mut Router, cluster: &ClusterView) -> Vec<String> {
        assert!(router.ask(vec!["t".to_string()], cluster, &greeting(), NOW));
        let mut tried = Vec::new();
        loop {
            tried.extend(router.peer.take_dial().map(str::to_string));
            let Router { peer, conn, .. } = router;
            if !peer.on_failed(conn, &greeting(), NOW) {
                return tried;
            }
        }
    }

    #[test]
    fn of_many_nodes_some_are_tried_and_others_the_next_time() {
        let node = |id: u32| Node { id, host: format!("node{id}"), port: 1, shard_ports: Vec::new() };
        let mut cluster = ClusterView::default();
        cluster.learn(&Metadata { nodes: (0..40_000).map(node).collect(), ..Metadata::default() });
        let mut router = Router::new((0..20).map(|number| format!("server{number}:1")).collect(), 17 << 20);
        router.prefer("better:1");
        let first = tried(&mut router, &cluster);
        assert_eq!((first.len(), first[0].as_str(), first[1].as_str(), first[15].as_str()), (16, "better:1", "node0:1", "server7:1"));
        let second = tried(&mut router, &cluster);
        assert!(second[0] == "node7:1" && second[8] == "server0:1", "{second:?}");
        // Few nodes, some of them configured: each once.
        cluster.learn(&Metadata { nodes: vec![node(1), node(2)], ..Metadata::default() });
        let mut router = Router::new(vec!["node1:1".to_string(), "other:1".to_string()], 17 << 20);
        assert_eq!(tried(&mut router, &cluster), ["node1:1", "node2:1", "other:1"]);
    }

    /// Asks the broker about these topics; what came of it.
    fn get(broker: &mut FakeBroker, topics: Vec<String>) -> Result<Metadata, Error> {
        let mut router = Router::new(vec!["a:1".to_string()], 17 << 20);
        assert!(router.ask(topics, &ClusterView::default(), &greeting(), NOW));
        router.peer.take_dial();
        let Router { peer, conn, .. } = &mut router;
        peer.on_dialled(conn, &greeting());
        carry(conn, broker, 1);
        let hello = peer.on_received(conn)?.expect("hello");
        router.on_open(hello.cluster_id, 1000, NOW)?;
        loop {
            assert!(router.until_us() < u64::MAX, "nothing is asked, and it is not over");
            carry(&mut router.conn, broker, 1);
            if let Some(metadata) = router.on_received(1000, NOW)? {
                assert!(router.is_idle());
                return Ok(metadata);
            }
        }
    }

    #[test]
    fn more_names_than_a_request_holds_are_asked_for_in_parts() {
        let topics: Vec<String> = (0..8_500).map(|number| format!("{number:0>249}")).collect();
        let mut broker = FakeBroker::new();
        broker.create(&topics[8_000], 3);
        // A reply to more than 3,000 names is above the node's limit.
        broker.answer_with(|frame| {
            let is_large = frame.header.kind() == Some(Kind::Metadata) && frame.meta.len() > 3_000 * 251 + 4;
            is_large.then(|| refusal_of(frame, ErrorCode::LimitExceeded))
        });
        let metadata = get(&mut broker, topics.clone()).expect("all of them");
        assert!(metadata.topics.iter().map(|topic| &topic.name).eq(&topics));
        assert_eq!(metadata.topic(&topics[8_000]).map(|topic| topic.partitions.len()), Some(3));
        assert_eq!(broker.count(Kind::Metadata), 1 + 5, "4,177 names, which are too many, then 2,088 each");
    }

    #[test]
    fn what_cannot_be_asked_or_is_answered_short_ends() {
        let mut broker = FakeBroker::new();
        assert!(matches!(get(&mut broker, vec!["x".repeat(2 << 20)]), Err(Error::Config { .. })));
        broker.answer_with(|frame| (frame.header.kind() == Some(Kind::Metadata)).then(|| refusal_of(frame, ErrorCode::LimitExceeded)));
        let topics = ["a", "b", "c"].map(str::to_string).to_vec();
        assert_eq!(get(&mut broker, topics).expect_err("not even one").code(), Some(ErrorCode::LimitExceeded));
    }
}
