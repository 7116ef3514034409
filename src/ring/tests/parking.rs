//! Parking: whatever happens while the ring sleeps ends the sleep.

use super::*;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;

/// Sleeps until something ends the sleep. Fails if nothing does, or if the ring does not want to sleep.
fn sleep_once(bench: &mut Bench) {
    let began = Instant::now();
    assert!(bench.ring.park(Some(LIMIT), || false), "nothing is due: {:?}", bench.seen);
    assert!(began.elapsed() < LIMIT, "the sleep did not end");
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
    let began = Instant::now();
    // The wake comes after the last look: before the sleep, or while it lasts.
    let slept = bench.ring.park(Some(LIMIT), || {
        gate.wait();
        false
    });
    assert!(slept && began.elapsed() < LIMIT);
    // And nothing else comes of it.
    bench.settle();
    assert!(bench.seen.is_empty(), "{:?}", bench.seen);
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
        let began = Instant::now();
        // The last look, as the shard loop does it with its mesh.
        slept += u64::from(bench.ring.park(Some(LIMIT), || published.load(Ordering::Acquire) > have));
        assert!(began.elapsed() < LIMIT, "a wake was lost after {have}");
    }
    producer.join().unwrap();
    assert!(slept > 0, "this test must sleep");
}

#[test]
fn the_limit_ends_the_sleep_and_leaves_nothing_behind() {
    let mut bench = Bench::new();
    for ms in [20, 5] {
        let (began, limit) = (Instant::now(), Duration::from_millis(ms));
        assert!(bench.ring.park(Some(limit), || false));
        assert!(began.elapsed() >= limit && began.elapsed() < LIMIT);
        bench.ring.reap(&mut bench.seen);
        assert!(bench.seen.is_empty(), "{:?}", bench.seen);
    }
}

#[test]
fn what_was_asked_for_before_enters_the_ring_and_ends_the_sleep() {
    let mut bench = Bench::new();
    let mut slab = crate::bytes::Slab::new(1 << 20);
    let (conn, mut client) = bench.pair();
    let file = std::fs::File::create_new(bench.dir.path().join("a")).unwrap();
    bench.ring.attach_file(FileId(1), file);
    bench.settle();

    bench.ring.send(conn, b"from a sleeper", &[]);
    sleep_once(&mut bench);
    assert!(matches!(bench.next(), Completion::Sent { .. }));
    let mut got = [0; 14];
    client.read_exact(&mut got).unwrap();

    let buf = slab.take(4096).unwrap();
    let data = slab.freeze(buf);
    bench.ring.write(Token(1), FileId(1), 0, data);
    sleep_once(&mut bench);
    assert!(matches!(bench.io(Token(1)), Outcome::Write(Ok(4096))));

    client.write_all(b"x").unwrap();
    assert!(matches!(bench.next(), Completion::Received { .. }));
    bench.ring.rearm_recv(conn, 0);
    client.write_all(b"y").unwrap();
    sleep_once(&mut bench);
    assert!(matches!(bench.next(), Completion::Received { .. }));
    assert_eq!(bench.ring.received(conn), b"xy");
}

#[test]
fn a_connection_or_bytes_that_come_meanwhile_end_the_sleep() {
    let mut bench = Bench::new();
    let address = bench.listen();
    let (ask, asked) = channel();
    let client = thread::spawn(move || {
        let mut stream = None;
        // Each time the ring is about to sleep: a connection, then bytes on it.
        while asked.recv().is_ok() {
            match stream.take() {
                None => stream = Some(TcpStream::connect(address).unwrap()),
                Some(mut open) => {
                    open.write_all(b"ping").unwrap();
                    // Until the other end has ended it: it aborts.
                    let _ = open.read(&mut [0]);
                }
            }
        }
    });
    let sleep = |bench: &mut Bench| {
        bench.settle();
        let slept = bench.ring.park(Some(LIMIT), || {
            ask.send(()).unwrap();
            false
        });
        assert!(slept, "{:?}", bench.seen);
    };
    for _ in 0..100 {
        sleep(&mut bench);
        let conn = bench.accepted();
        bench.ring.rearm_recv(conn, 0);
        sleep(&mut bench);
        assert!(matches!(bench.next(), Completion::Received { .. }));
        bench.ring.abort(conn);
        assert_eq!(bench.closed(conn), CloseReason::Aborted);
    }
    drop(ask);
    client.join().unwrap();
}

#[test]
fn who_has_something_due_does_not_sleep() {
    let mut bench = Bench::new();
    bench.settle();
    assert!(!bench.ring.park(Some(LIMIT), || true), "the mesh has work");
    bench.ring.file_op(Token(1), FileOp::Close { file: FileId(404) });
    assert!(!bench.ring.park(Some(LIMIT), || panic!("it is not asked")));
    bench.ring.reap(&mut bench.seen);
    assert!(matches!(bench.io(Token(1)), Outcome::File(Err(libc::EBADF))));
}

#[test]
fn a_ring_that_is_awake_is_not_signalled_and_a_wake_costs_nothing_then() {
    let mut bench = Bench::new();
    // The poll is under way.
    assert!(bench.ring.park(Some(Duration::ZERO), || false));
    let waker = bench.ring.waker();
    for _ in 0..10 {
        waker.wake();
    }
    bench.settle();
    assert!(bench.seen.is_empty(), "{:?}", bench.seen);
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
