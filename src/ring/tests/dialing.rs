//! Connecting to other nodes: it stands, is refused, is given up; roles have limits of their own.

use super::*;
use socket2::{Domain, Socket, Type};
use std::thread;

impl Bench {
    fn connected(&mut self, dialed: ConnId) {
        match self.next() {
            Completion::Connected { conn } => assert_eq!(conn, dialed),
            other => panic!("expected that {dialed:?} stands, got {other:?}"),
        }
    }

    fn connect_failed(&mut self, dialed: ConnId) -> i32 {
        match self.next() {
            Completion::ConnectFailed { conn, errno } if conn == dialed => errno,
            other => panic!("expected that {dialed:?} fails, got {other:?}"),
        }
    }
}

/// An address that takes a connection or two and then answers nothing: nobody accepts, and its queue is full. Dials go unanswered as to a machine
/// that is gone, on any machine and without a network.
fn silent_address() -> (Socket, SocketAddr) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    (listener, address)
}

/// Dials until some are unanswered; gives those.
fn unanswered(bench: &mut Bench, address: SocketAddr) -> Vec<ConnId> {
    let mut dialed: Vec<ConnId> = (0..6).map(|_| bench.ring.connect(address)).collect();
    let first = match bench.next() {
        Completion::Connected { conn } => conn,
        other => panic!("{other:?}"),
    };
    bench.settle();
    let mut answered = vec![first];
    for seen in bench.seen.drain(..) {
        match seen {
            Completion::Connected { conn } => answered.push(conn),
            other => panic!("{other:?}"),
        }
    }
    dialed.retain(|conn| !answered.contains(conn));
    assert!(dialed.len() >= 2, "{} of 6 were answered", answered.len());
    dialed
}

#[test]
fn what_was_dialed_carries_bytes_both_ways_and_ends_in_closed() {
    let mut bench = Bench::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let sent = pattern(3 << 20, 5);
    let expected = sent.clone();
    let peer = thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        let mut got = vec![0; expected.len()];
        peer.read_exact(&mut got).unwrap();
        assert!(got == expected);
        peer.write_all(&got).unwrap();
    });
    let conn = bench.ring.connect(address);
    assert_eq!(bench.ring.role(conn), Some(Role::NodeDialed));
    // Nothing is done with it before it stands.
    bench.ring.send(conn, b"too early", &[]);
    bench.ring.rearm_recv(conn, 0);
    bench.connected(conn);
    assert_eq!(bench.ring.peer(conn), Some(address));
    bench.ring.send(conn, &sent, &[]);
    bench.ring.rearm_recv(conn, sent.len());
    let mut have = 0;
    while have < sent.len() {
        match bench.next() {
            Completion::Sent { .. } => {}
            Completion::Received { .. } => {
                have = bench.ring.received(conn).len();
                if have < sent.len() {
                    bench.ring.rearm_recv(conn, sent.len());
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(bench.ring.received(conn) == sent);
    bench.ring.consume(conn, have);
    bench.ring.rearm_recv(conn, 0);
    peer.join().unwrap();
    assert_eq!(bench.closed(conn), CloseReason::Peer);
    assert_eq!((bench.ring.conn_count(), bench.ring.recv_nodes_memory_bytes(), bench.ring.role(conn)), (0, 0, None));
}

#[test]
fn a_port_without_a_listener_refuses() {
    let mut bench = Bench::new();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let conn = bench.ring.connect(gone);
    assert_eq!(bench.connect_failed(conn), libc::ECONNREFUSED);
    assert_eq!((bench.ring.conn_count(), bench.ring.role(conn)), (0, None));
    bench.ring.abort(conn);
    bench.settle();
    assert!(bench.seen.is_empty(), "nothing follows: {:?}", bench.seen);
}

#[test]
fn dials_that_nobody_answers_are_given_up_once_each() {
    let mut bench = Bench::new();
    let (_listener, address) = silent_address();
    let mut waiting = unanswered(&mut bench, address);
    let before = bench.ring.conn_count();
    // Both ways to give up, and twice.
    for (i, conn) in waiting.iter().enumerate() {
        if i % 2 == 0 {
            bench.ring.abort(*conn)
        } else {
            bench.ring.close(*conn)
        }
        bench.ring.abort(*conn);
    }
    let count = waiting.len();
    while !waiting.is_empty() {
        match bench.next() {
            Completion::ConnectFailed { conn, errno } => {
                let at = waiting.iter().position(|c| *c == conn).expect("each ends once");
                waiting.swap_remove(at);
                assert_eq!(errno, libc::ECANCELED);
            }
            other => panic!("{other:?}"),
        }
    }
    bench.settle();
    assert!(bench.seen.is_empty(), "{:?}", bench.seen);
    assert_eq!(bench.ring.conn_count(), before - count);
}

#[test]
fn a_ring_dropped_with_dials_under_way_ends() {
    let mut bench = Bench::new();
    let (_listener, address) = silent_address();
    unanswered(&mut bench, address);
    let started = Instant::now();
    bench.ring.shutdown();
    assert!(started.elapsed() < LIMIT);
}

#[test]
fn roles_do_not_use_up_each_others_room() {
    let mut bench = Bench::with(|c| {
        c.clients.conns_max = 1;
        c.nodes.conns_max = 1;
    });
    let (clients, nodes) = (bench.listen(), bench.listen_for(Role::NodeAccepted));
    let until = Instant::now() + LIMIT;
    let _node = TcpStream::connect(nodes).unwrap();
    let node = bench.accepted();
    let _second = TcpStream::connect(nodes).unwrap();
    while bench.ring.stats().refused_nodes_count == 0 {
        bench.turn(until);
    }
    // One of each of the others is let in all the same.
    let _client = TcpStream::connect(clients).unwrap();
    let client = bench.accepted();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dialed = bench.ring.connect(listener.local_addr().unwrap());
    bench.connected(dialed);
    let roles = [node, client, dialed].map(|conn| bench.ring.role(conn).unwrap());
    assert_eq!(roles, [Role::NodeAccepted, Role::Client, Role::NodeDialed]);
    let refused = bench.ring.connect(listener.local_addr().unwrap());
    assert_eq!(bench.connect_failed(refused), libc::EMFILE);
    assert_eq!((bench.ring.stats().refused_nodes_count, bench.ring.stats().refused_count), (2, 0));
}

#[test]
fn a_node_may_send_more_at_once_than_a_client() {
    let mut bench = Bench::new();
    let address = bench.listen_for(Role::NodeAccepted);
    let mut peer = TcpStream::connect(address).unwrap();
    let conn = bench.accepted();
    let total = 17 << 20;
    let sent = pattern(total, 3);
    let expected = sent.clone();
    let writer = thread::spawn(move || peer.write_all(&sent).map(|()| peer).unwrap());
    bench.ring.rearm_recv(conn, total);
    loop {
        assert!(matches!(bench.next(), Completion::Received { .. }));
        let have = bench.ring.received(conn).len();
        assert!(bench.ring.recv_nodes_memory_bytes() <= (2 * have).max(4096), "memory follows what has arrived");
        if have == total {
            break;
        }
        bench.ring.rearm_recv(conn, total);
    }
    assert!(bench.ring.received(conn) == expected);
    assert_eq!(bench.ring.recv_memory_bytes(), 0, "not in the clients' account");
    drop(writer.join().unwrap());
}
