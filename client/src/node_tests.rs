//! A client of several nodes over real sockets: dead ones, such that know no leader, such that name another.

use std::net::TcpListener;
use std::time::Duration;

use tramline_wire::error::ErrorCode;
use tramline_wire::kind::Kind;

use crate::fake::refusal_to;
use crate::fake::tcp::FakeServer;
use crate::types::Node;
use crate::{Client, Config, Error};

/// Nodes 1 and 2, which know of each other. What is stored is each one's own.
fn two_nodes() -> (FakeServer, FakeServer) {
    let (first, second) = (FakeServer::start(), FakeServer::start());
    let [port, other] = [&first, &second].map(|server| server.broker().port);
    for (id, server) in [(1, &first), (2, &second)] {
        let mut broker = server.broker();
        (broker.node, broker.port, broker.shard_ports) = (id, port, vec![port]);
        broker.nodes.others = vec![Node { id: 2, host: "127.0.0.1".to_string(), port: other, shard_ports: Vec::new() }];
    }
    (first, second)
}

fn connect(server: &FakeServer) -> Client {
    Client::connect(server.config()).expect("the fake broker answers")
}

impl FakeServer {
    /// Refuses requests of a kind; names an address.
    fn refuses(&self, kind: Kind, code: ErrorCode, next: &str) {
        let next = next.to_string();
        self.broker().answer_with(move |frame| (frame.header.kind() == Some(kind)).then(|| refusal_to(frame, code, &next)));
    }

    fn asked(&self, kind: Kind) -> usize {
        self.broker().count(kind)
    }
}

#[test]
fn a_request_goes_where_a_refusal_says_and_so_do_those_after_it() {
    let (first, second) = two_nodes();
    let client = connect(&first);
    first.refuses(Kind::CreateTopic, ErrorCode::NotLeader, &second.address);
    assert!(client.create_topic("t", 1, &[], false).expect("created").created);
    assert!(client.create_topic("u", 1, &[], false).expect("created").created);
    assert_eq!((first.asked(Kind::CreateTopic), second.asked(Kind::CreateTopic)), (1, 2));
}

#[test]
fn a_node_that_knows_no_leader_is_left_for_another() {
    for code in [ErrorCode::NotReady, ErrorCode::NotLeader, ErrorCode::ShuttingDown] {
        let (first, second) = two_nodes();
        let client = connect(&first);
        first.refuses(Kind::CreateTopic, code, "");
        assert!(client.create_topic("t", 1, &[], false).expect("created").created);
        assert_eq!((first.asked(Kind::CreateTopic), second.asked(Kind::CreateTopic)), (1, 1), "{code:?}");
    }
}

#[test]
fn a_node_that_does_not_answer_is_left_for_another() {
    let (first, second) = two_nodes();
    second.broker().create("t", 3);
    first.broker().answer_with(|frame| (frame.header.kind() == Some(Kind::Metadata)).then(Vec::new));
    let client = Client::connect(Config { request_timeout: Duration::from_millis(100), ..first.config() }).expect("hello");
    assert_eq!(client.metadata(&["t"]).expect("of the other").topics[0].partitions.len(), 3);
    assert_eq!((first.asked(Kind::Metadata), second.asked(Kind::Metadata)), (1, 1));
}

#[test]
fn a_node_that_is_gone_is_left_for_another_that_it_named() {
    let (first, second) = two_nodes();
    let client = connect(&first);
    drop(first);
    assert!(client.create_topic("t", 1, &[], false).expect("created").created);
    assert_eq!(second.asked(Kind::CreateTopic), 1);
}

#[test]
fn of_several_addresses_dead_ones_are_passed_over() {
    let (first, second) = two_nodes();
    let dead = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address");
    let servers = format!("{dead},{},{}", first.address, second.address);
    let client = Client::connect(Config { servers: Config::new(&servers).servers, ..first.config() }).expect("the second");
    assert_eq!(client.hello().node, 1);
    drop(first);
    client.ping().expect("the third");
    assert_eq!(client.hello().node, 2);
}

#[test]
fn two_nodes_that_name_each_other_are_asked_with_waits_until_the_time_is_over() {
    let (first, second) = two_nodes();
    first.refuses(Kind::CreateTopic, ErrorCode::NotLeader, &second.address);
    second.refuses(Kind::CreateTopic, ErrorCode::NotLeader, &first.address);
    let client = Client::connect(Config { call_timeout: Duration::from_millis(400), ..first.config() }).expect("hello");
    let error = client.create_topic("t", 1, &[], false).expect_err("nobody leads");
    assert!(matches!(error, Error::Timeout { .. }) && error.code() == Some(ErrorCode::NotLeader), "{error}");
    let asked = first.asked(Kind::CreateTopic) + second.asked(Kind::CreateTopic);
    assert!((4..60).contains(&asked), "{asked}");
}

#[test]
fn a_dead_node_that_is_named_again_and_again_does_not_keep_a_call_from_another() {
    let (first, second) = two_nodes();
    let dead = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address").to_string();
    first.refuses(Kind::CreateTopic, ErrorCode::NotLeader, &dead);
    let client = connect(&first);
    assert!(client.create_topic("t", 1, &[], false).expect("created").created);
    assert!(first.asked(Kind::CreateTopic) <= 2, "{}", first.asked(Kind::CreateTopic));
    assert_eq!(second.asked(Kind::CreateTopic), 1);
}

#[test]
fn questions_about_partitions_go_to_the_nodes_that_lead_them() {
    let (first, second) = two_nodes();
    for server in [&first, &second] {
        let mut broker = server.broker();
        let uids = broker.create("t", 2);
        broker.nodes.leaders.insert(uids[1], (2, 0, 1));
    }
    let client = connect(&first);
    assert_eq!(client.end_offsets("t").expect("offsets").len(), 2);
    assert_eq!((first.asked(Kind::ListOffsets), second.asked(Kind::ListOffsets)), (1, 1));
}

#[test]
fn what_may_have_been_done_is_told_and_not_done_elsewhere() {
    let (first, second) = two_nodes();
    first.refuses(Kind::CreateTopic, ErrorCode::LeadershipLost, &second.address);
    let client = connect(&first);
    let error = client.create_topic("t", 1, &[], false).expect_err("perhaps created");
    assert!(error.outcome_unknown(), "{error}");
    assert!(client.create_topic("t", 1, &[], true).expect("this may be repeated").created);
    assert_eq!((first.asked(Kind::CreateTopic), second.asked(Kind::CreateTopic)), (1, 1), "at a node that may know more");
}
