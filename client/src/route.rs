//! Whom an administrative request goes to: pure, without sockets and clocks.
//!
//! Any node may be asked; one that cannot answer names another (`next`), or says that it knows none. Asked first is who was named, or leads
//! what the request is about; then the configured servers and the nodes known. Whoever did not do goes behind all others, so that a request
//! that is tried again goes round.
//!
//! Invariants: what a refusal names is followed at once a few times per request, never straight back; then there is a wait, and others are
//! asked. An address that was just found dead is not followed.
//!
//! Not here: the connection and the waits (`admin.rs`), producers and consumers (`core`, which know whom each partition belongs to).

use std::time::{Duration, Instant};

use tramline_wire::error::ErrorCode;

use crate::error::Error;
use crate::types::Node;

/// Most addresses of nodes that are tried in one attempt besides the configured servers. In a cluster that lives one of so many does.
const NODES_TRIED_MAX: usize = 16;

/// So often per request a refusal that names another node is followed at once.
const HOPS_MAX: u8 = 3;

/// An address that did not do is not followed for so long, should a node that does not know that yet name it. About as long as a cluster
/// takes to choose another leader.
const DEAD_FOR: Duration = Duration::from_secs(1);

/// How many addresses that did not do are remembered.
const FAILED_MAX: usize = 64;

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Route {
    servers: Vec<String>,
    nodes: Vec<Node>,
    /// Addresses that did not do, and when; the newest last.
    failed: Vec<(String, Instant)>,
}

/// What comes after an attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// At once, at the address that was named.
    AtOnce,
    /// After a wait, at another node.
    Elsewhere,
    /// After a wait, at the same node.
    Here,
}

/// One request on its way: where it is to go.
#[derive(Debug, Default)]
pub(crate) struct Way {
    /// The node that leads what it is about, as far as metadata told.
    node: Option<u32>,
    /// Named by the last refusal.
    next: Option<String>,
    /// Who named it.
    from: Option<String>,
    hops: u8,
}

impl Way {
    /// Of a request about what `node` leads; `None`: any node will do.
    pub(crate) fn to(node: Option<u32>) -> Way {
        Way { node, ..Way::default() }
    }
}

impl Route {
    pub(crate) fn new(servers: &[String]) -> Route {
        Route { servers: servers.to_vec(), nodes: Vec::new(), failed: Vec::new() }
    }

    /// The nodes of the cluster, as one of them told.
    pub(crate) fn learn(&mut self, nodes: &[Node]) {
        if !nodes.is_empty() {
            self.nodes = nodes.to_vec();
        }
    }

    /// Some nodes, as a hello told them: a node may know no other one yet, which says nothing about those that are known.
    pub(crate) fn learn_some(&mut self, nodes: &[Node]) {
        self.nodes.retain(|known| nodes.iter().all(|node| node.id != known.id));
        self.nodes.extend(nodes.iter().cloned());
        self.nodes.sort_by_key(|node| node.id);
    }

    /// Whether another node than this one is known, or may be.
    pub(crate) fn has_others(&self, node: u32) -> bool {
        if self.nodes.is_empty() { self.servers.len() > 1 } else { self.nodes.iter().any(|known| known.id != node) }
    }

    /// The address where a request should go, if it matters; an open connection to it, or to its node, will do.
    pub(crate) fn wanted(&self, way: &Way) -> Option<String> {
        let of_node = |id| self.nodes.iter().find(|node| node.id == id).map(Node::address);
        way.next.clone().or_else(|| way.node.and_then(of_node))
    }

    /// Whether a connection to `node` at `address` is what the request wants.
    pub(crate) fn suits(&self, way: &Way, address: &str, node: u32) -> bool {
        match (&way.next, way.node) {
            (Some(next), _) => next == address,
            (None, Some(wanted)) => wanted == node || self.wanted(way).is_none(),
            (None, None) => true,
        }
    }

    /// Where to connect to, best first.
    pub(crate) fn addresses(&self, way: &Way) -> Vec<String> {
        let nodes = self.nodes.iter().map(Node::address);
        let mut addresses: Vec<String> = Vec::new();
        let mut late: Vec<(usize, String)> = Vec::new();
        let wanted = self.wanted(way);
        let mut seen = std::collections::HashSet::new();
        for address in wanted.clone().into_iter().chain(self.servers.iter().cloned()).chain(nodes) {
            if !seen.insert(address.clone()) {
                continue;
            }
            match self.failed.iter().position(|(failed, _)| *failed == address) {
                Some(when) if wanted.as_ref() != Some(&address) => late.push((when, address)),
                _ => addresses.push(address),
            }
        }
        // Whoever failed longest ago has the next turn.
        late.sort();
        addresses.extend(late.into_iter().map(|(_, address)| address));
        addresses.truncate(self.servers.len() + NODES_TRIED_MAX);
        addresses
    }

    /// Nobody could be reached at an address, or what was asked there got no answer.
    pub(crate) fn failed(&mut self, address: &str, now: Instant) {
        self.failed.retain(|(failed, _)| failed != address);
        if self.failed.len() == FAILED_MAX {
            self.failed.remove(0);
        }
        self.failed.push((address.to_string(), now));
    }

    /// A connection was opened at an address.
    pub(crate) fn opened(&mut self, address: &str) {
        self.failed.retain(|(failed, _)| failed != address);
    }

    /// A request failed at `address`, where `node` answers; what comes next.
    pub(crate) fn after(&mut self, way: &mut Way, error: &Error, address: &str, node: u32, now: Instant) -> Again {
        // What metadata told has not led to an answer; from here on refusals lead the way.
        way.node = None;
        let next = error.next_address();
        if let Some(next) = next {
            let is_dead = self.failed.iter().any(|(failed, at)| failed == next && now.saturating_duration_since(*at) < DEAD_FOR);
            let is_back = next == address || way.from.as_deref() == Some(next);
            if !is_dead && !is_back && way.hops < HOPS_MAX {
                *way = Way { node: None, next: Some(next.to_string()), from: Some(address.to_string()), hops: way.hops + 1 };
                return Again::AtOnce;
            }
        }
        *way = Way::default();
        let is_elsewhere = match error {
            Error::Refused { code, .. } => next.is_some() || asks_for_others(*code),
            _ => true,
        };
        if !is_elsewhere || !self.has_others(node) {
            return Again::Here;
        }
        self.failed(address, now);
        // The same node under its other name.
        if let Some(common) = self.nodes.iter().find(|known| known.id == node).map(Node::address) {
            self.failed(&common, now);
        }
        Again::Elsewhere
    }
}

/// Whether another node may answer what this one refused; what has to do with load, or with a full disk, is for the one that is asked to get
/// over.
fn asks_for_others(code: ErrorCode) -> bool {
    code.retriable() && !matches!(code, ErrorCode::Overloaded | ErrorCode::DiskFull)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u32) -> Node {
        Node { id, host: format!("node{id}"), port: 1, shard_ports: vec![2] }
    }

    fn route(servers: &[&str], nodes: &[u32]) -> Route {
        let mut route = Route::new(&servers.iter().map(|server| (*server).to_string()).collect::<Vec<_>>());
        route.learn(&nodes.iter().map(|id| node(*id)).collect::<Vec<_>>());
        route
    }

    fn refused(code: ErrorCode, next: &str) -> Error {
        let next = (!next.is_empty()).then(|| next.to_string());
        Error::Refused { request: String::new(), code, retriable: code.retriable(), message: String::new(), next }
    }

    #[test]
    fn a_hello_that_tells_of_one_node_takes_none_away() {
        let mut route = route(&["server:1"], &[1, 2, 3]);
        route.learn_some(&[Node { port: 9, ..node(2) }]);
        assert_eq!(route.wanted(&Way::to(Some(3))), Some("node3:1".to_string()));
        assert_eq!(route.wanted(&Way::to(Some(2))), Some("node2:9".to_string()));
    }

    #[test]
    fn whoever_did_not_do_has_the_last_turn() {
        let now = Instant::now();
        let mut route = route(&["server:1", "node1:1"], &[1, 2]);
        assert_eq!(route.addresses(&Way::default()), ["server:1", "node1:1", "node2:1"], "each once");
        route.failed("server:1", now);
        route.failed("node1:1", now);
        assert_eq!(route.addresses(&Way::default()), ["node2:1", "server:1", "node1:1"]);
        route.failed("server:1", now);
        assert_eq!(route.addresses(&Way::default()), ["node2:1", "node1:1", "server:1"], "it goes round");
        route.opened("server:1");
        assert_eq!(route.addresses(&Way::to(Some(1))), ["node1:1", "server:1", "node2:1"], "a leader is asked first all the same");
    }

    #[test]
    fn a_node_that_is_named_is_asked_at_once_a_few_times() {
        let now = Instant::now();
        let mut route = route(&["node1:1"], &[1, 2, 3, 4, 5]);
        let mut way = Way::default();
        let asked = ["node1:1", "node2:2", "node3:2", "node4:2"];
        let named = ["node2:2", "node3:2", "node4:2", "node5:2"];
        let after: Vec<Again> =
            (0..4).map(|hop| route.after(&mut way, &refused(ErrorCode::NotLeader, named[hop]), asked[hop], 1 + hop as u32, now)).collect();
        assert_eq!(after, [Again::AtOnce, Again::AtOnce, Again::AtOnce, Again::Elsewhere]);
        assert_eq!(route.wanted(&way), None);
        assert_eq!(route.addresses(&way)[..2], ["node1:1", "node2:1"]);
        assert!(route.addresses(&way).ends_with(&["node4:1".to_string()]), "the last one that refused, at its common port");
    }

    #[test]
    fn two_nodes_that_name_each_other_are_not_asked_for_ever() {
        let now = Instant::now();
        let mut route = route(&["node1:1"], &[1, 2, 3]);
        let mut way = Way::default();
        assert_eq!(route.after(&mut way, &refused(ErrorCode::NotLeader, "node2:1"), "node1:1", 1, now), Again::AtOnce);
        assert_eq!(route.wanted(&way).as_deref(), Some("node2:1"));
        assert_eq!(route.after(&mut way, &refused(ErrorCode::NotLeader, "node1:1"), "node2:1", 2, now), Again::Elsewhere);
        assert_eq!(route.addresses(&way), ["node1:1", "node3:1", "node2:1"]);
    }

    #[test]
    fn a_dead_node_that_is_named_is_not_tried_again_at_once() {
        let now = Instant::now();
        let mut route = route(&["node1:1"], &[1, 2, 3]);
        let mut way = Way::default();
        route.failed("node2:1", now);
        assert_eq!(route.after(&mut way, &refused(ErrorCode::NotLeader, "node2:1"), "node1:1", 1, now), Again::Elsewhere);
        assert_eq!(route.addresses(&way)[0], "node3:1");
        assert_eq!(route.after(&mut way, &refused(ErrorCode::NotLeader, "node2:1"), "node3:1", 3, now + DEAD_FOR), Again::AtOnce);
        assert_eq!(route.addresses(&way)[0], "node2:1");
    }

    #[test]
    fn what_another_node_may_know_is_asked_there() {
        let now = Instant::now();
        let io = Error::io("cannot receive from", "node1:1", std::io::ErrorKind::ConnectionReset.into());
        for (error, expected) in [
            (refused(ErrorCode::NotReady, ""), Again::Elsewhere),
            (refused(ErrorCode::NotLeader, ""), Again::Elsewhere),
            (refused(ErrorCode::LeadershipLost, ""), Again::Elsewhere),
            (refused(ErrorCode::ShuttingDown, ""), Again::Elsewhere),
            (refused(ErrorCode::Overloaded, ""), Again::Here),
            (refused(ErrorCode::DiskFull, ""), Again::Here),
            (io, Again::Elsewhere),
        ] {
            assert_eq!(route(&["node1:1"], &[1, 2]).after(&mut Way::default(), &error, "node1:1", 1, now), expected, "{error}");
            // There is no other.
            assert_eq!(route(&["server:1"], &[1]).after(&mut Way::default(), &error, "server:1", 1, now), Again::Here, "{error}");
        }
    }

    #[test]
    fn an_open_connection_is_used_where_it_suits() {
        let route = route(&["server:1"], &[1, 2]);
        assert!(route.suits(&Way::default(), "server:1", 1));
        assert!(route.suits(&Way::to(Some(1)), "server:1", 1) && !route.suits(&Way::to(Some(2)), "server:1", 1));
        assert!(route.suits(&Way::to(Some(7)), "server:1", 1), "of a node that is not known any will do");
        let way = Way { next: Some("node1:2".to_string()), ..Way::default() };
        assert!(!route.suits(&way, "server:1", 1) && route.suits(&way, "node1:2", 1));
    }
}
