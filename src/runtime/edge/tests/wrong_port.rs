//! Who speaks another language than the port's is told so in his own, and closed.

use super::*;
use tramline_wire::error::{ErrorBody, ErrorCode};
use tramline_wire::frame::{self as clients, Limits, begin_frame};
use tramline_wire::node::{NodeError, Refusal, Refused};

/// Everything until the other side closes.
fn told(desk: &mut Desk, mut peer: TcpStream) -> Vec<u8> {
    let reader = std::thread::spawn(move || {
        let mut told = Vec::new();
        peer.read_to_end(&mut told).unwrap();
        told
    });
    let Seen::Closed(_) = desk.next() else { panic!("not closed") };
    reader.join().unwrap()
}

fn refused(told: &[u8]) -> (Refusal, String) {
    let node::Need::Whole(frame, len) = node::peek(told, &Limits::PROTOCOL, &Numbers::new()).unwrap() else { panic!("cut off") };
    assert_eq!((frame.kind, frame.number, len), (Kind::Refused, 1, told.len()));
    let refused = Refused::decode(frame.meta).unwrap();
    (refused.refusal().unwrap(), refused.message.to_owned())
}

#[test]
fn a_client_at_the_port_for_nodes_is_told_the_flag_of_its_own() {
    let mut desk = Desk::new();
    let (mut peer, _) = desk.node();
    let mut hello = Vec::new();
    let start = begin_frame(&mut hello, 1, 1, 0, 77);
    clients::finish_frame(&mut hello, start, 0).unwrap();
    peer.write_all(&hello).unwrap();
    let told = told(&mut desk, peer);
    let clients::Need::Whole(frame, len) = clients::peek(&told, &Limits::default()).unwrap() else { panic!("cut off") };
    assert_eq!((frame.header.correlation, frame.header.kind, len), (77, 1, told.len()), "its hello is answered");
    let error = ErrorBody::decode(frame.meta).unwrap();
    assert_eq!(error.code, ErrorCode::Malformed.as_u16());
    assert!(error.message.contains("--listen"), "{}", error.message);
    assert_eq!(desk.counters().node_connections_refused_malformed, 1);
}

#[test]
fn a_node_at_the_port_for_clients_is_told_the_flag_of_its_own() {
    let mut desk = Desk::new();
    let (mut peer, _) = desk.client();
    peer.write_all(&frame(Kind::Hello, &mut Numbers::new(), b"x", &[])).unwrap();
    let (code, message) = refused(&told(&mut desk, peer));
    assert_eq!(code, Refusal::Malformed);
    assert!(message.contains("--cluster-listen"), "{message}");
    assert_eq!(desk.counters().connections_refused_malformed, 1);
}

#[test]
fn malformed_frames_are_refused_with_what_is_wrong() {
    let mut too_long = frame(Kind::Hello, &mut Numbers::new(), &[0; (64 << 10) + 1], &[]);
    too_long.truncate(32);
    let mut flipped = frame(Kind::Hello, &mut Numbers::new(), b"who", &[]);
    flipped[33] ^= 1;
    for (bytes, part) in [
        (b"GET / HTTP/1.1\r\nHost: broker-1:7700\r\n\r\n".to_vec(), "not a frame between nodes"),
        // Before the hello is through nobody may make us keep more.
        (too_long, "at most 65536 are accepted"),
        (frame(Kind::Append, &mut Numbers::new(), b"x", b"payload"), "at most 0 are accepted"),
        (flipped, "wrong frame checksum"),
    ] {
        let mut desk = Desk::new();
        let (mut peer, _) = desk.node();
        peer.write_all(&bytes).unwrap();
        let (code, message) = refused(&told(&mut desk, peer));
        assert!(code == Refusal::Malformed && message.contains(part), "{message}");
        assert!(desk.core.seen.is_empty(), "{:?}", desk.core.seen);
    }
}

#[test]
fn where_the_core_has_spoken_the_edge_does_not_use_its_numbers() {
    let mut desk = Desk::new();
    let (mut peer, conn) = desk.node();
    peer.write_all(&frame(Kind::Hello, &mut Numbers::new(), b"x", &[])).unwrap();
    assert!(matches!(desk.next(), Seen::NodeFrame(..)));
    let mut numbers = Numbers::new();
    desk.send(conn, Kind::HelloReply, &mut numbers, b"reply", &[]);
    peer.write_all(&frame(Kind::Hello, &mut Numbers::new(), b"again", &[])).unwrap();
    let told = told(&mut desk, peer);
    let node::Need::Whole(frame, len) = node::peek(&told, &Limits::PROTOCOL, &Numbers::new()).unwrap() else { panic!("cut off") };
    assert_eq!((frame.kind, len), (Kind::HelloReply, told.len()), "and nothing behind it");
}

#[test]
fn a_dialer_that_reached_something_else_says_what_came() {
    let error = node::peek(b"HTTP/1.1 400 Bad Request\r\n\r\n    ", &Limits::BEFORE_HELLO, &Numbers::new()).unwrap_err();
    assert!(matches!(error, NodeError::Frame(_)) && error.to_string().contains("check that the address is a cluster port"), "{error}");
}
