//! Connections: bytes arrive whole and in order, ends are reported once, limits hold.

use super::*;
use crate::bytes::Slab;
use std::os::fd::AsRawFd;
use std::thread;

/// Answers what was received until `conn` ends; returns the reason.
fn echo_until_closed(bench: &mut Bench, conn: ConnId) -> CloseReason {
    loop {
        match bench.next() {
            Completion::Received { conn } => {
                let bytes = bench.ring.received(conn).to_vec();
                assert!(!bytes.is_empty());
                bench.ring.consume(conn, bytes.len());
                bench.ring.send(conn, &bytes, &[]);
                bench.ring.rearm_recv(conn, 0);
            }
            Completion::Sent { .. } => {}
            Completion::Closed { conn: c, reason } => {
                assert_eq!(c, conn);
                return reason;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_echo_returns_every_byte_in_order() {
    let mut bench = Bench::new();
    let (conn, mut client) = bench.pair();
    let writer = thread::spawn(move || {
        let mut seed = 42;
        for round in 0..300 {
            let sent = pattern(1 + random(&mut seed, 20_000), round);
            client.write_all(&sent).unwrap();
            let mut got = vec![0; sent.len()];
            client.read_exact(&mut got).unwrap();
            assert!(got == sent, "round {round}");
        }
    });
    assert_eq!(echo_until_closed(&mut bench, conn), CloseReason::Peer);
    writer.join().unwrap();
    assert_eq!(bench.ring.conn_count(), 0);
    assert_eq!(bench.ring.recv_memory_bytes(), 0);
}

#[test]
fn heads_and_parts_reach_a_slow_reader_whole_and_are_given_back() {
    let mut bench = Bench::new();
    let mut slab = Slab::new(64 << 20);
    let (conn, mut client) = bench.pair();
    socket2::SockRef::from(&client).set_recv_buffer_size(64 << 10).unwrap();
    let mut seed = 7;
    let mut expected = Vec::new();
    for round in 0..400u64 {
        let head = pattern(random(&mut seed, 200), round);
        expected.extend_from_slice(&head);
        let mut parts = Vec::new();
        for _ in 0..random(&mut seed, 5) {
            let len = [0, 1, 100, 2047, 2048, 5000, 70_000][random(&mut seed, 7)];
            let mut buf = slab.take(len).unwrap();
            buf.as_mut_slice().copy_from_slice(&pattern(len, round));
            expected.extend_from_slice(buf.as_slice());
            parts.push(slab.freeze(buf));
        }
        bench.ring.send(conn, &head, &parts);
    }
    assert_eq!(bench.ring.queued_bytes(conn), expected.len());
    let total = expected.len();
    let reader = thread::spawn(move || {
        let mut got = vec![0; expected.len()];
        let mut at = 0;
        // Odd little reads: the sender's queue is taken in uneven bites.
        while at < got.len() {
            let end = (at + 30_011).min(got.len());
            at += client.read(&mut got[at..end]).unwrap();
        }
        assert!(got == expected);
        client
    });
    let mut left = total;
    let mut sent_count = 0;
    while left > 0 {
        match bench.next() {
            Completion::Sent { conn: c, queued_bytes } => {
                assert_eq!(c, conn);
                assert!(queued_bytes < left, "{queued_bytes} after {left}");
                assert_eq!(bench.ring.queued_bytes(conn), queued_bytes);
                left = queued_bytes;
                sent_count += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(sent_count >= total / (2 << 20), "progress is reported: {sent_count} times for {total} bytes");
    let client = reader.join().unwrap();
    assert_eq!(slab.lent_bytes(), 0, "all parts were given back");
    drop(client);
    assert_eq!(bench.closed(conn), CloseReason::Peer);
}

#[test]
fn bulk_sends_share_a_turn_and_short_ones_pass() {
    let mut bench = Bench::new();
    let bulk = pattern(1 << 20, 3);
    let pairs: Vec<_> = (0..4).map(|_| bench.pair()).collect();
    let (short, mut waits) = bench.pair();
    bench.settle();
    pairs.iter().for_each(|(conn, _)| bench.ring.send(*conn, &bulk, &[]));
    bench.ring.send(short, b"short", &[]);
    bench.ring.reap(&mut bench.seen);
    let sent: usize = pairs.iter().map(|(conn, _)| bulk.len() - bench.ring.queued_bytes(*conn)).sum();
    assert!(sent <= 1 << 20, "one turn begins a MiB, whoever it is for: {sent} bytes");
    let mut got = [0; 5];
    waits.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"short");
    let readers: Vec<_> = pairs
        .into_iter()
        .map(|(conn, mut client)| {
            let mut got = vec![0; bulk.len()];
            (conn, thread::spawn(move || client.read_exact(&mut got).map(|()| (got, client)).unwrap()))
        })
        .collect();
    while readers.iter().any(|(conn, _)| bench.ring.queued_bytes(*conn) > 0) {
        assert!(matches!(bench.next(), Completion::Sent { .. }));
    }
    for (_, reader) in readers {
        assert!(reader.join().unwrap().0 == bulk);
    }
}

#[test]
fn few_short_sends_leave_early_and_others_wait_for_the_turn() {
    let mut bench = Bench::new();
    let mut pairs: Vec<_> = (0..5).map(|_| bench.pair()).collect();
    bench.settle();
    let (conn, client) = &mut pairs[0];
    bench.ring.send(*conn, b"early", &[]);
    bench.ring.send_early();
    let mut got = [0; 5];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"early");
    assert!(matches!(bench.next(), Completion::Sent { queued_bytes: 0, .. }));
    let entered = bench.ring.stats().enter_count;
    bench.ring.send_early();
    // Too many of them, and one that is too long.
    pairs.iter().for_each(|(conn, _)| bench.ring.send(*conn, b"later", &[]));
    bench.ring.send_early();
    assert_eq!(bench.ring.stats().enter_count, entered, "nothing was handed over");
    bench.settle();
    bench.ring.send(pairs[1].0, &pattern(1 << 20, 5), &[]);
    let entered = bench.ring.stats().enter_count;
    bench.ring.send_early();
    assert_eq!(bench.ring.stats().enter_count, entered, "nothing was handed over");
    for (_, client) in &mut pairs {
        client.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"later");
    }
}

#[test]
fn peers_that_do_not_read_keep_nobody_waiting() {
    let mut bench = Bench::new();
    // More than one socket takes, for each of more connections than have room in one turn.
    let silent: Vec<_> = (0..8).map(|_| bench.pair()).collect();
    let (conn, mut client) = bench.pair();
    bench.settle();
    let much = vec![7; 16 << 20];
    silent.iter().for_each(|(conn, _)| bench.ring.send(*conn, &much, &[]));
    bench.ring.send(conn, &pattern(1 << 20, 9), &[]);
    let reader = thread::spawn(move || {
        let mut got = vec![0; 1 << 20];
        client.read_exact(&mut got).map(|()| (got, client)).unwrap()
    });
    while bench.ring.queued_bytes(conn) > 0 {
        assert!(matches!(bench.next(), Completion::Sent { .. }));
    }
    assert!(reader.join().unwrap().0 == pattern(1 << 20, 9));
    assert!(silent.iter().all(|(conn, _)| bench.ring.queued_bytes(*conn) > 0), "these are really full");
}

#[test]
fn sends_queued_while_one_is_in_flight_follow_it() {
    let mut bench = Bench::new();
    let (conn, mut client) = bench.pair();
    let mut expected = Vec::new();
    for round in 0..200u64 {
        let bytes = pattern(30_000, round);
        expected.extend_from_slice(&bytes);
        bench.ring.send(conn, &bytes, &[]);
        bench.settle();
    }
    let mut got = vec![0; expected.len()];
    let reader = thread::spawn(move || {
        client.read_exact(&mut got).unwrap();
        (got, client)
    });
    while bench.ring.queued_bytes(conn) > 0 {
        assert!(matches!(bench.next(), Completion::Sent { .. }));
    }
    assert!(reader.join().unwrap().0 == expected);
}

#[test]
fn a_peer_that_vanishes_ends_in_one_closed_and_its_parts_come_back() {
    let mut bench = Bench::new();
    let mut slab = Slab::new(64 << 20);
    let (conn, client) = bench.pair();
    for _ in 0..40 {
        let buf = slab.take(1 << 20).unwrap();
        let part = slab.freeze(buf);
        bench.ring.send(conn, b"head", &[part]);
    }
    bench.settle();
    assert!(bench.ring.queued_bytes(conn) > 0, "the queue must be stuck for this test");
    drop(client); // with unread bytes: a reset
    // The kernel tells it once: a send that was carried out in part answers with its bytes, and then the receive finds an end.
    let reason = bench.closed(conn);
    assert!(matches!(reason, CloseReason::Reset | CloseReason::Peer), "{reason:?}");
    bench.settle();
    assert!(bench.seen.is_empty(), "nothing follows: {:?}", bench.seen);
    assert_eq!(slab.lent_bytes(), 0);
    // All calls on it are harmless now.
    bench.ring.send(conn, b"x", &[]);
    bench.ring.rearm_recv(conn, 0);
    bench.ring.consume(conn, 5);
    bench.ring.close(conn);
    bench.ring.abort(conn);
    assert!(bench.ring.received(conn).is_empty());
    assert_eq!(bench.ring.queued_bytes(conn), 0);
    assert!(bench.ring.peer(conn).is_none());
    bench.settle();
    assert!(bench.seen.is_empty(), "{:?}", bench.seen);
}

#[test]
fn a_slot_used_again_gets_a_new_number() {
    let mut bench = Bench::new();
    let address = bench.listen();
    let mut numbers = std::collections::HashSet::new();
    for _ in 0..50 {
        let client = TcpStream::connect(address).unwrap();
        let conn = bench.accepted();
        assert!(numbers.insert(conn.0));
        bench.ring.rearm_recv(conn, 0);
        drop(client);
        assert_eq!(bench.closed(conn), CloseReason::Peer);
    }
}

#[test]
fn close_sends_the_rest_and_does_not_reset_although_input_is_unread() {
    let mut bench = Bench::new();
    let (conn, mut client) = bench.pair();
    client.write_all(&pattern(50_000, 1)).unwrap();
    assert!(matches!(bench.next(), Completion::Received { .. }));
    let answer = pattern(3 << 20, 2);
    bench.ring.send(conn, &answer, &[]);
    bench.ring.close(conn);
    bench.ring.send(conn, b"after close: dropped", &[]);
    assert!(bench.ring.received(conn).is_empty());
    let reader = thread::spawn(move || {
        // More input meanwhile, which the ring has to throw away without a reset.
        client.write_all(&pattern(200_000, 3)).unwrap();
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        got
    });
    assert_eq!(bench.closed(conn), CloseReason::Local);
    assert!(reader.join().unwrap() == answer);
}

#[test]
fn close_of_a_connection_whose_peer_never_closes_is_bounded_by_abort() {
    let mut bench = Bench::new();
    let (conn, mut client) = bench.pair();
    bench.ring.send(conn, b"bye", &[]);
    bench.ring.close(conn);
    let mut got = Vec::new();
    // Our side is shut down although the peer's is not.
    let reader = thread::spawn(move || {
        client.read_to_end(&mut got).unwrap();
        (got, client)
    });
    assert!(matches!(bench.next(), Completion::Sent { queued_bytes: 0, .. }));
    let (got, _client) = reader.join().unwrap();
    assert_eq!(got, b"bye");
    bench.settle();
    assert!(bench.seen.is_empty());
    bench.ring.abort(conn);
    bench.ring.abort(conn);
    assert_eq!(bench.closed(conn), CloseReason::Aborted);
}

#[test]
fn a_closed_connection_whose_peer_never_closes_is_ended_by_the_sweep() {
    let mut bench = Bench::new();
    let (conn, _client) = bench.pair();
    bench.ring.close(conn);
    bench.settle();
    bench.ring.sweep_idle();
    bench.settle();
    assert!(bench.seen.is_empty(), "not at once: {:?}", bench.seen);
    let later = Instant::now() + Duration::from_secs(6);
    bench.ring.conns.sweep_idle(&mut bench.ring.queue, later, &mut bench.ring.ready);
    assert_eq!(bench.closed(conn), CloseReason::Local);
}

#[test]
fn a_peer_that_goes_on_sending_after_close_is_cut() {
    let mut bench = Bench::new();
    let (conn, mut client) = bench.pair();
    bench.ring.close(conn);
    let writer = thread::spawn(move || {
        let junk = vec![0; 1 << 20];
        (0..1000).find(|_| client.write_all(&junk).is_err())
    });
    assert_eq!(bench.closed(conn), CloseReason::Local);
    assert!(writer.join().unwrap().is_some(), "the peer was never stopped");
}

#[test]
fn abort_resets_and_drops_the_queue() {
    let mut bench = Bench::new();
    let (conn, mut client) = bench.pair();
    bench.ring.send(conn, &vec![1; 20 << 20], &[]);
    bench.settle();
    bench.seen.clear();
    bench.ring.abort(conn);
    assert_eq!(bench.closed(conn), CloseReason::Aborted);
    let ended = client.read_to_end(&mut Vec::new());
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn abort_before_anything_was_armed_ends_too() {
    let mut bench = Bench::new();
    let address = bench.listen();
    let _client = TcpStream::connect(address).unwrap();
    let conn = bench.accepted();
    bench.ring.abort(conn);
    assert_eq!(bench.closed(conn), CloseReason::Aborted);
}

#[test]
fn a_connection_that_is_not_rearmed_receives_nothing_and_keeps_its_bytes() {
    let mut bench = Bench::new();
    let (conn, mut client) = bench.pair();
    client.write_all(b"first").unwrap();
    assert!(matches!(bench.next(), Completion::Received { .. }));
    client.write_all(b" second").unwrap();
    bench.settle();
    assert!(bench.seen.is_empty(), "paused: {:?}", bench.seen);
    assert_eq!(bench.ring.received(conn), b"first");
    bench.ring.consume(conn, 2);
    bench.ring.rearm_recv(conn, 0);
    bench.ring.rearm_recv(conn, 0);
    assert!(bench.ring.received(conn).is_empty(), "armed");
    assert!(matches!(bench.next(), Completion::Received { .. }));
    assert_eq!(bench.ring.received(conn), b"rst second");
    assert!(bench.seen.is_empty());
}

#[test]
fn memory_grows_with_what_arrived_and_not_with_what_was_declared_and_goes_back() {
    let mut bench = Bench::new();
    let (conn, mut client) = bench.pair();
    client.write_all(&[1; 10]).unwrap();
    assert!(matches!(bench.next(), Completion::Received { .. }));
    bench.ring.rearm_recv(conn, 1 << 20);
    assert_eq!(bench.ring.recv_memory_bytes(), 4096, "a declared length allocates nothing");
    let frame = pattern(1 << 20, 5);
    let sent = frame.clone();
    let writer = thread::spawn(move || {
        client.write_all(&sent[10..]).unwrap();
        client
    });
    let mut have = 10;
    while have < 1 << 20 {
        assert!(matches!(bench.next(), Completion::Received { .. }));
        have = bench.ring.received(conn).len();
        if have < 1 << 20 {
            bench.ring.rearm_recv(conn, 1 << 20);
        }
        assert!(bench.ring.recv_memory_bytes() <= (2 * have).max(4096));
    }
    assert_eq!(bench.ring.received(conn)[10..], frame[10..]);
    bench.ring.consume(conn, have);
    bench.ring.rearm_recv(conn, 0);
    let mut client = writer.join().unwrap();
    assert_eq!(bench.ring.recv_memory_bytes(), 1 << 20);
    bench.settle();
    // Idle: the first sweep marks, the second takes the memory back, and receiving goes on.
    bench.ring.sweep_idle();
    bench.ring.sweep_idle();
    bench.settle();
    assert_eq!(bench.ring.recv_memory_bytes(), 4096);
    client.write_all(b"still there").unwrap();
    assert!(matches!(bench.next(), Completion::Received { .. }));
    assert_eq!(bench.ring.received(conn), b"still there");
}

#[test]
fn a_streak_of_small_frames_gives_memory_back() {
    let mut bench = Bench::new();
    let (conn, mut client) = bench.pair();
    let writer = thread::spawn(move || {
        client.write_all(&vec![0; 100_000]).unwrap();
        client
    });
    let mut have = 0;
    while have < 100_000 {
        assert!(matches!(bench.next(), Completion::Received { .. }));
        have = bench.ring.received(conn).len();
        if have < 100_000 {
            bench.ring.rearm_recv(conn, 100_000);
        }
    }
    assert!(bench.ring.recv_memory_bytes() >= 100_000);
    bench.ring.consume(conn, have);
    bench.ring.rearm_recv(conn, 0);
    let mut client = writer.join().unwrap();
    for _ in 0..300 {
        client.write_all(b"small").unwrap();
        assert!(matches!(bench.next(), Completion::Received { .. }));
        let have = bench.ring.received(conn).len();
        bench.ring.consume(conn, have);
        bench.ring.rearm_recv(conn, 0);
    }
    assert_eq!(bench.ring.recv_memory_bytes(), 4096);
}

#[test]
fn asking_for_more_than_the_limit_ends_the_connection() {
    let mut bench = Bench::new();
    let (conn, mut client) = bench.pair();
    client.write_all(b"frame").unwrap();
    assert!(matches!(bench.next(), Completion::Received { .. }));
    bench.ring.rearm_recv(conn, (1 << 20) + 1);
    assert_eq!(bench.closed(conn), CloseReason::TooLarge);
}

#[test]
fn connections_above_the_maximum_are_closed_at_once_and_counted() {
    let mut bench = Bench::with(|c| c.clients.conns_max = 2);
    let address = bench.listen();
    let first = TcpStream::connect(address).unwrap();
    let conn = bench.accepted();
    bench.ring.rearm_recv(conn, 0);
    let _second = TcpStream::connect(address).unwrap();
    bench.accepted();
    let mut third = TcpStream::connect(address).unwrap();
    third.set_read_timeout(Some(LIMIT)).unwrap();
    let until = Instant::now() + LIMIT;
    while bench.ring.stats().refused_count == 0 {
        bench.turn(until);
    }
    assert!(matches!(third.read(&mut [0]), Ok(0) | Err(_)));
    drop(first);
    assert_eq!(bench.closed(conn), CloseReason::Peer);
    let _fourth = TcpStream::connect(address).unwrap();
    bench.accepted();
}

#[test]
fn after_stop_accepting_open_connections_go_on_and_new_ones_are_refused() {
    let mut bench = Bench::new();
    let address = bench.listen();
    let mut client = TcpStream::connect(address).unwrap();
    let conn = bench.accepted();
    bench.ring.rearm_recv(conn, 0);
    bench.ring.stop_accepting();
    bench.settle();
    assert!(TcpStream::connect(address).is_err(), "the listener is closed");
    client.write_all(b"still served").unwrap();
    assert!(matches!(bench.next(), Completion::Received { .. }));
    assert_eq!(bench.ring.received(conn), b"still served");
    let late = TcpListener::bind("127.0.0.1:0").unwrap();
    let late_address = late.local_addr().unwrap();
    bench.ring.add_listener(late, Role::Client);
    assert!(TcpStream::connect(late_address).is_err());
}

#[test]
fn a_thousand_connections_fit_through_a_queue_of_eight() {
    raise_file_limit();
    const COUNT: usize = 1000;
    let mut bench = Bench::with(|c| {
        c.entries = 8;
        c.clients.recv_bytes_first = 512;
    });
    let address = bench.listen();
    let clients = thread::spawn(move || {
        let mut clients: Vec<TcpStream> = (0..COUNT).map(|_| TcpStream::connect(address).unwrap()).collect();
        for (i, client) in clients.iter_mut().enumerate() {
            client.set_read_timeout(Some(LIMIT)).unwrap();
            client.write_all(&pattern(300, i as u64)).unwrap();
        }
        for (i, client) in clients.iter_mut().enumerate() {
            let mut got = vec![0; 300];
            client.read_exact(&mut got).unwrap();
            assert!(got == pattern(300, i as u64), "connection {i}");
        }
    });
    let (mut accepted, mut closed) = (Vec::new(), 0);
    while accepted.len() < COUNT {
        match bench.next() {
            Completion::Accepted { conn, .. } => accepted.push(conn),
            other => panic!("{other:?}"),
        }
    }
    // All at once: 1,000 receives through 8 entries, whose completions do not fit into 32 either.
    for conn in &accepted {
        bench.ring.rearm_recv(*conn, 300);
    }
    while closed < COUNT {
        match bench.next() {
            Completion::Received { conn } => {
                let bytes = bench.ring.received(conn).to_vec();
                bench.ring.consume(conn, bytes.len());
                bench.ring.send(conn, &bytes, &[]);
                bench.ring.rearm_recv(conn, 0);
            }
            Completion::Sent { .. } => {}
            Completion::Closed { reason, .. } => {
                assert_eq!(reason, CloseReason::Peer);
                closed += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    clients.join().unwrap();
    assert!(bench.ring.stats().sq_full_count > 0);
    assert_eq!(bench.ring.conn_count(), 0);
}

#[test]
fn a_full_completion_queue_loses_nothing() {
    raise_file_limit();
    const COUNT: usize = 300;
    let mut bench = Bench::with(|c| c.entries = 2);
    let address = bench.listen();
    let mut clients = Vec::new();
    let mut conns = Vec::new();
    for _ in 0..COUNT {
        clients.push(TcpStream::connect(address).unwrap());
        conns.push(bench.accepted());
    }
    for client in &mut clients {
        client.write_all(b"x").unwrap();
    }
    // The bytes are there already: these complete while they are submitted, two by two, and pile up in eight places.
    for conn in &conns {
        bench.ring.rearm_recv(*conn, 0);
    }
    for conn in &conns {
        bench.ring.send(*conn, b"y", &[]);
    }
    let (mut received, mut sent) = (0, 0);
    while received < COUNT || sent < COUNT {
        match bench.next() {
            Completion::Received { .. } => received += 1,
            Completion::Sent { queued_bytes: 0, .. } => sent += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(bench.ring.stats().cq_overflow_count > 0, "this test must overflow: {:?}", bench.ring.stats());
}

#[test]
fn a_ring_dropped_with_everything_in_flight_gives_all_memory_back() {
    let mut slab = Slab::new(256 << 20);
    let mut bench = Bench::new();
    let address = bench.listen();
    let mut clients = Vec::new();
    let mut conns = Vec::new();
    for _ in 0..20 {
        clients.push(TcpStream::connect(address).unwrap());
        conns.push(bench.accepted());
    }
    for conn in conns {
        bench.ring.rearm_recv(conn, 0);
        for _ in 0..8 {
            let buf = slab.take(1 << 20).unwrap();
            let part = slab.freeze(buf);
            bench.ring.send(conn, b"head", &[part]);
        }
    }
    bench.settle();
    bench.ring.park(Some(Duration::ZERO), || false);
    let file = bench.dir.path().join("data");
    let data = std::fs::OpenOptions::new().create_new(true).write(true).open(file).unwrap();
    bench.ring.attach_file(FileId(1), data);
    for i in 0..10 {
        let buf = slab.take(1 << 20).unwrap();
        let bytes = slab.freeze(buf);
        bench.ring.write(Token(i), FileId(1), i << 20, bytes);
    }
    assert!(slab.lent_bytes() > 0);
    let started = Instant::now();
    bench.ring.shutdown();
    assert!(started.elapsed() < LIMIT);
    assert_eq!(slab.lent_bytes(), 0);
    for mut client in clients {
        client.set_read_timeout(Some(LIMIT)).unwrap();
        assert!(client.read_to_end(&mut Vec::new()).is_err(), "reset");
    }
}

#[test]
fn accepting_goes_on_when_descriptors_are_to_be_had_again() {
    // The limit is the whole process's: so this runs in one of its own.
    if !in_child("accepting_goes_on_when_descriptors_are_to_be_had_again") {
        return;
    }
    let mut bench = Bench::new();
    let address = bench.listen();
    let clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    let before = set_file_limit(|_| clients[2].as_raw_fd() as u64 + 1);
    let until = Instant::now() + LIMIT;
    while bench.ring.stats().accept_error_count == 0 {
        bench.turn(until);
    }
    assert!(bench.seen.is_empty());
    set_file_limit(|_| before);
    for _ in 0..3 {
        bench.accepted();
    }
}

/// True in a process of its own that runs only this test; elsewhere it starts that process, checks its end, and gives false.
fn in_child(name: &str) -> bool {
    const MARK: &str = "TRAMLINE_RING_TEST_CHILD";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let (_, module) = module_path!().split_once("::").unwrap();
    let run = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{module}::{name}"), "--test-threads=1"])
        .env(MARK, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && text.contains("1 passed"), "{text}");
    false
}

/// Tests with many sockets need more than the usual soft limit.
fn raise_file_limit() {
    set_file_limit(|hard| hard.min(16_384));
}

/// Sets the soft limit of open files, given the hard one; returns the soft one before.
fn set_file_limit(choose: impl FnOnce(u64) -> u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills and reads a local struct.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        let before = limit.rlim_cur;
        limit.rlim_cur = choose(limit.rlim_max);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
        before
    }
}
