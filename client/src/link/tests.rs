//! Blocking calls against peers that break the protocol's rules, over real sockets.

use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;

use tramline_wire::error::ErrorCode;
use tramline_wire::frame::{FLAG_MORE, FLAG_REPLY, HEADER_BYTES};
use tramline_wire::hello::HelloReply;
use tramline_wire::kind::Kind;
use tramline_wire::prim::List;

use crate::fake::tcp::FakeServer;
use crate::fake::{frame_of, refusal_of, reply_to};
use crate::{Client, Config, Error};

/// Short, because tests wait for it.
const SHORT: Duration = Duration::from_millis(100);

fn connect(server: &FakeServer) -> Client {
    Client::connect(Config { call_timeout: SHORT, ..server.config() }).expect("the fake broker answers")
}

/// A port where whoever connects gets a frame that does not end, byte by byte.
fn dripping() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        let frame = frame_of(Kind::Hello, FLAG_REPLY, 1, &vec![0; 16 << 20], |_| {});
        for mut stream in listener.incoming().flatten() {
            let _ = stream.set_nodelay(true);
            let (head, rest) = frame.split_at(HEADER_BYTES);
            // Ends when the other side has had enough, which is what is tested.
            let _ = stream.write_all(head).and_then(|()| rest.chunks(1).try_for_each(|byte| stream.write_all(byte)));
        }
    });
    address
}

#[test]
fn a_peer_that_never_stops_talking_gets_no_more_time_than_one_that_is_silent() {
    let config = Config { connect_timeout: SHORT, ..Config::new(&dripping()) };
    let error = Client::connect(config).expect_err("no hello came");
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
}

#[test]
fn a_reply_to_what_was_not_asked_ends_the_connection() {
    for correlation in [0, 1, 999] {
        let server = FakeServer::start();
        let client = connect(&server);
        server.broker().answer_with(move |frame| {
            (frame.header.kind() == Some(Kind::Ping)).then(|| frame_of(Kind::Ping, FLAG_REPLY, correlation, &[], |_| {}))
        });
        let error = client.ping().expect_err("not an answer");
        assert!(matches!(error, Error::Protocol { .. }), "{error}");
        server.broker().answer_with(|_| None);
        client.ping().expect("on a new connection");
        assert_eq!(server.broker().count(Kind::Hello), 2);
    }
}

#[test]
fn a_reply_of_another_kind_or_with_more_to_come_or_with_a_payload_is_no_success() {
    for (kind, flags, payload) in
        [(Kind::Ping, FLAG_REPLY, &b""[..]), (Kind::DeleteTopic, FLAG_REPLY | FLAG_MORE, b""), (Kind::DeleteTopic, FLAG_REPLY, b"what")]
    {
        let server = FakeServer::start();
        let client = connect(&server);
        server.broker().answer_with(move |frame| {
            let is_asked = frame.header.kind() == Some(Kind::DeleteTopic);
            is_asked.then(|| frame_of(kind, flags, frame.header.correlation, payload, |_| {}))
        });
        let error = client.delete_topic("t").expect_err("nobody knows");
        assert!(error.outcome_unknown() && error.to_string().contains("its reply to delete topic"), "{error}");
    }
}

/// What connecting says to a node that answers hello so.
fn greeted_with(frame_max: u32, challenge: &'static [u8]) -> Error {
    let server = FakeServer::start();
    server.broker().answer_with(move |frame| {
        let reply = HelloReply {
            protocol: 1,
            feature_level: 1,
            cluster_id: [7; 16],
            node: 1,
            shard: 0,
            frame_max,
            fetch_frame: 0,
            keepalive_ms: 0,
            idle_timeout_ms: 0,
            apis: List::default(),
            mechanisms: List::of(&["scram"]),
            challenge,
            nodes: List::default(),
        };
        Some(reply_to(frame, |out| reply.encode(out)))
    });
    Client::connect(server.config()).expect_err("it cannot go on")
}

#[test]
fn a_node_that_wants_authentication_is_told_as_such() {
    let error = greeted_with(8 << 20, b"prove it");
    assert_eq!(error.code(), Some(ErrorCode::Unauthenticated));
    assert!(error.to_string().contains("wants authentication (scram)"), "{error}");
}

#[test]
fn a_node_that_takes_less_than_every_node_does_is_none() {
    for frame_max in [0, (64 << 10) - 1] {
        let error = greeted_with(frame_max, b"");
        assert!(matches!(error, Error::Protocol { .. }), "{error}");
    }
}

#[test]
fn a_creation_that_may_have_been_done_is_not_repeated() {
    for code in [ErrorCode::TimedOut, ErrorCode::StorageFailed, ErrorCode::Internal, ErrorCode::LeadershipLost] {
        let server = FakeServer::start();
        let client = connect(&server);
        server.broker().answer_with(move |frame| {
            let is_asked = matches!(frame.header.kind(), Some(Kind::CreateTopic | Kind::DeleteTopic));
            is_asked.then(|| refusal_of(frame, code))
        });
        let error = client.create_topic("t", 1, &[], false).expect_err("refused");
        assert!(error.outcome_unknown() && error.to_string().contains(code.name()), "{error}");
        let error = client.delete_topic("t").expect_err("refused");
        assert!(error.outcome_unknown(), "{error}");
        let counts = [Kind::CreateTopic, Kind::DeleteTopic].map(|kind| server.broker().count(kind));
        assert_eq!(counts, [1, 1]);
    }
    // The same with if_not_exists may be repeated, and is.
    let server = FakeServer::start();
    let client = connect(&server);
    server.broker().refuse_requests.push_back((Kind::CreateTopic, ErrorCode::TimedOut));
    client.create_topic("t", 1, &[], true).expect("the second attempt");
    assert_eq!(server.broker().count(Kind::CreateTopic), 2);
}
