//! Parking: whatever happens while the ring sleeps ends the sleep.

use super::*;
use crate::bytes::Slab;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

/// Parks, waits for the eventfd, unparks. Fails if nothing ends the sleep.
fn sleep_once(bench: &mut Bench, deadline_us: Option<u64>) {
    assert!(bench.ring.prepare_park(deadline_us), "nothing is due: {:?}", bench.seen);
    assert!(await_event(bench.ring.event_fd(), LIMIT.as_millis() as i32), "the sleep did not end");
    bench.ring.unpark();
    bench.ring.reap(&mut bench.seen);
}

#[test]
fn a_waker_on_another_thread_ends_the_sleep() {
    let mut bench = Bench::new();
    let waker = bench.ring.waker();
    let gate = Arc::new(Barrier::new(2));
    let other = thread::spawn({
        let gate = Arc::clone(&gate);
        move || {
            gate.wait();
            waker.wake();
        }
    });
    assert!(bench.ring.prepare_park(None));
    gate.wait();
    assert!(await_event(bench.ring.event_fd(), LIMIT.as_millis() as i32));
    bench.ring.unpark();
    assert!(matches!(bench.next(), Completion::Woken));
    other.join().unwrap();
}

#[test]
fn no_wake_is_lost_between_looking_and_sleeping() {
    const COUNT: u64 = 30_000;
    let mut bench = Bench::new();
    let waker = bench.ring.waker();
    let published = Arc::new(AtomicU64::new(0));
    let taken = Arc::new(AtomicU64::new(0));
    let producer = thread::spawn({
        let (published, taken) = (Arc::clone(&published), Arc::clone(&taken));
        move || {
            for i in 1..=COUNT {
                published.store(i, Ordering::Release);
                waker.wake();
                // One at a time, so that each wake has to work on its own.
                let until = Instant::now() + LIMIT;
                while taken.load(Ordering::Acquire) < i {
                    assert!(Instant::now() < until, "item {i} was never taken");
                    thread::yield_now();
                }
            }
        }
    });
    let mut slept = 0;
    let mut have = 0;
    while have < COUNT {
        bench.ring.reap(&mut bench.seen);
        bench.seen.clear();
        let seen = published.load(Ordering::Acquire);
        if seen > have {
            have = seen;
            taken.store(have, Ordering::Release);
            continue;
        }
        if bench.ring.prepare_park(None) {
            // The last look, as the shard loop does it with its mesh.
            if published.load(Ordering::Acquire) == have {
                slept += 1;
                assert!(await_event(bench.ring.event_fd(), LIMIT.as_millis() as i32), "a wake was lost after {have}");
            }
            bench.ring.unpark();
        }
    }
    producer.join().unwrap();
    assert!(slept > 0, "this test must sleep");
}

#[test]
fn the_deadline_ends_the_sleep_and_a_nearer_one_is_not_missed() {
    let mut bench = Bench::new();
    let started = Instant::now();
    sleep_once(&mut bench, Some(20_000));
    assert!(started.elapsed() >= Duration::from_millis(20));
    assert!(matches!(bench.next(), Completion::TimerFired));
    // A far timer stays armed when the sleep ends otherwise ...
    assert!(bench.ring.prepare_park(Some(3_600_000_000)));
    bench.ring.unpark();
    // ... and does not hide a nearer deadline.
    let started = Instant::now();
    sleep_once(&mut bench, Some(10_000));
    assert!(started.elapsed() < LIMIT);
    assert!(matches!(bench.next(), Completion::TimerFired));
    assert!(bench.seen.is_empty());
    assert!(!bench.ring.prepare_park(Some(0)), "a deadline of now is no sleep");
}

#[test]
fn what_is_submitted_while_parked_enters_the_ring_and_ends_the_sleep() {
    let mut bench = Bench::new();
    let mut slab = Slab::new(1 << 20);
    let (conn, mut client) = bench.pair();
    let file = std::fs::File::create_new(bench.dir.path().join("a")).unwrap();
    bench.ring.attach_file(FileId(1), file);
    bench.settle();

    assert!(bench.ring.prepare_park(None));
    bench.ring.send(conn, b"from a parked ring", &[]);
    let mut got = [0; 18];
    client.read_exact(&mut got).unwrap();
    assert!(await_event(bench.ring.event_fd(), LIMIT.as_millis() as i32));
    bench.ring.unpark();
    assert!(matches!(bench.next(), Completion::Sent { .. }));

    assert!(bench.ring.prepare_park(None));
    let buf = slab.take(4096).unwrap();
    let data = slab.freeze(buf);
    bench.ring.write(Token(1), FileId(1), 0, data);
    assert!(await_event(bench.ring.event_fd(), LIMIT.as_millis() as i32));
    bench.ring.unpark();
    assert!(matches!(bench.io(Token(1)), Outcome::Write(Ok(4096))));

    client.write_all(b"x").unwrap();
    assert!(matches!(bench.next(), Completion::Received { .. }));
    assert!(bench.ring.prepare_park(None));
    bench.ring.rearm_recv(conn, 0);
    client.write_all(b"y").unwrap();
    assert!(await_event(bench.ring.event_fd(), LIMIT.as_millis() as i32));
    bench.ring.unpark();
    assert!(matches!(bench.next(), Completion::Received { .. }));
    assert_eq!(bench.ring.received(conn), b"xy");
}

#[test]
fn a_connection_or_bytes_that_come_while_parked_end_the_sleep() {
    let mut bench = Bench::new();
    let address = bench.listen();
    for _ in 0..100 {
        bench.settle();
        assert!(bench.ring.prepare_park(None), "{:?}", bench.seen);
        let mut client = TcpStream::connect(address).unwrap();
        assert!(await_event(bench.ring.event_fd(), LIMIT.as_millis() as i32));
        bench.ring.unpark();
        let conn = bench.accepted();
        bench.ring.rearm_recv(conn, 0);
        bench.settle();
        assert!(bench.ring.prepare_park(None), "{:?}", bench.seen);
        client.write_all(b"ping").unwrap();
        assert!(await_event(bench.ring.event_fd(), LIMIT.as_millis() as i32));
        bench.ring.unpark();
        assert!(matches!(bench.next(), Completion::Received { .. }));
        bench.ring.abort(conn);
        assert_eq!(bench.closed(conn), CloseReason::Aborted);
    }
}

#[test]
fn what_is_over_at_once_ends_the_sleep_too() {
    let mut bench = Bench::new();
    let address = bench.listen();
    let _client = TcpStream::connect(address).unwrap();
    let conn = bench.accepted();
    bench.settle();
    assert!(bench.ring.prepare_park(None));
    bench.ring.abort(conn);
    assert!(await_event(bench.ring.event_fd(), 1000));
    bench.ring.unpark();
    assert_eq!(bench.seen.len(), 0);
    bench.ring.reap(&mut bench.seen);
    assert!(bench.seen.iter().any(|c| matches!(c, Completion::Closed { .. })), "{:?}", bench.seen);
    bench.seen.clear();
    assert!(bench.ring.prepare_park(None));
    bench.ring.file_op(Token(1), FileOp::Close { file: FileId(404) });
    assert!(await_event(bench.ring.event_fd(), 1000));
    bench.ring.unpark();
    bench.ring.reap(&mut bench.seen);
    assert!(bench.seen.iter().any(|c| matches!(c, Completion::Io { outcome: Outcome::File(Err(libc::EBADF)), .. })), "{:?}", bench.seen);
}

#[test]
fn a_spinning_ring_is_not_signalled_and_a_wake_costs_nothing_then() {
    let mut bench = Bench::new();
    let (conn, mut client) = bench.pair();
    let waker = bench.ring.waker();
    waker.wake();
    client.write_all(b"x").unwrap();
    let until = Instant::now() + LIMIT;
    while bench.seen.is_empty() {
        assert!(Instant::now() < until);
        bench.ring.reap(&mut bench.seen);
    }
    assert!(matches!(bench.next(), Completion::Received { .. }));
    bench.ring.send(conn, b"y", &[]);
    bench.settle();
    let mut poll = libc::pollfd { fd: bench.ring.event_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one local pollfd is passed.
    assert_eq!(unsafe { libc::poll(&mut poll, 1, 0) }, 0, "the eventfd is silent while the ring is not parked");
}

#[test]
fn a_spinning_ring_without_work_makes_no_system_call() {
    let mut bench = Bench::new();
    let (_conn, _client) = bench.pair();
    bench.settle();
    let before = bench.ring.stats().enter_count;
    for _ in 0..1000 {
        bench.ring.reap(&mut bench.seen);
    }
    assert_eq!(bench.ring.stats().enter_count, before);
}

#[test]
fn the_event_descriptor_can_be_duplicated() {
    let mut bench = Bench::new();
    let twin = bench.ring.event_fd_dup().unwrap();
    assert!(bench.ring.prepare_park(None));
    bench.ring.waker().wake();
    assert!(await_event(twin.as_raw_fd(), 1000));
    bench.ring.unpark();
}
