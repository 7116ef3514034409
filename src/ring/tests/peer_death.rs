//! A peer that is killed: when its connection's end is seen. A process that had operations in its ring is torn down late by the kernel, writes that
//! are under way first, and its sockets close with the ring (docs/REPLICATION.md, end of section 12).
//!
//! One round of each kind as a test; `TRAMLINE_KILL_ROUNDS=20`, `--nocapture` for numbers.

use super::*;
use crate::bytes::Slab;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};

/// In the environment of the process that is to be killed: the address to dial, a directory, whether to write.
const PEER: &str = "TRAMLINE_RING_TEST_PEER";
const NAME: &str = "ring::tests::peer_death::the_end_of_a_killed_peer_is_seen_soon";
/// Bytes of one write, and how many are under way.
const WRITE_BYTES: usize = 1 << 20;
const WRITES: u64 = 3;

/// What the peer does when it is killed.
#[derive(Clone, Copy, Debug)]
enum Doing {
    /// It waits for bytes.
    Nothing,
    /// Synced writes are under way, as when a shard is loaded.
    Writes,
}

#[test]
fn the_end_of_a_killed_peer_is_seen_soon() {
    if let Ok(orders) = std::env::var(PEER) {
        return be_the_peer(&orders);
    }
    let rounds = std::env::var("TRAMLINE_KILL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    for doing in [Doing::Nothing, Doing::Writes] {
        let mut took: Vec<Duration> = (0..rounds).map(|_| round(doing)).collect();
        took.sort();
        let (median, max) = (took[took.len() / 2], took[took.len() - 1]);
        println!("peer killed, {doing:?}: {rounds} rounds, median {median:?}, most {max:?}");
        // Not a promise of speed: the machine may be busy.
        assert!(max < LIMIT, "{took:?}");
    }
}

/// From the signal to `Closed`.
fn round(doing: Doing) -> Duration {
    let mut bench = Bench::new();
    let address = bench.listen_for(Role::NodeAccepted);
    let mut peer = start_peer(&format!("{address} {doing:?} {}", bench.dir.path().display()));
    let conn = bench.accepted();
    bench.ring.rearm_recv(conn, 0);
    assert!(matches!(bench.next(), Completion::Received { .. }), "the peer says when it is as it should be");
    bench.ring.consume(conn, 1);
    bench.ring.rearm_recv(conn, 0);
    let killed = Instant::now();
    peer.kill().unwrap();
    bench.closed(conn);
    let took = killed.elapsed();
    peer.wait().unwrap();
    took
}

fn start_peer(orders: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--test-threads=1"])
        .env(PEER, orders)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Dials, receives, writes without end. Ends by a signal only, or with the connection.
fn be_the_peer(orders: &str) {
    let [address, doing, dir] = orders.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
    let path = std::path::Path::new(dir);
    let limits = RoleLimits { recv_bytes_first: 4096, recv_bytes_max: 1 << 20, conns_max: 4 };
    let mut ring = Ring::new(RingConfig { entries: 64, iowq_cpus: None, clients: limits, nodes: limits, dir: path.to_path_buf() }).unwrap();
    let flags = libc::O_DIRECT | libc::O_DSYNC;
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).custom_flags(flags).open(path.join("peer")).unwrap();
    ring.attach_file(FileId(1), file);
    let mut slab = Slab::new(64 << 20);
    let conn = ring.connect(address.parse().unwrap());
    let mut write = |ring: &mut Ring, number: u64| {
        let buf = slab.take(WRITE_BYTES).unwrap();
        let data = slab.freeze(buf);
        ring.write(Token(number), FileId(1), number % 16 * WRITE_BYTES as u64, data);
    };
    let (mut seen, mut next) = (Vec::new(), 0);
    loop {
        ring.reap(&mut seen);
        for completion in seen.drain(..) {
            match completion {
                Completion::Connected { .. } => {
                    ring.rearm_recv(conn, 0);
                    if doing == "Writes" {
                        (0..WRITES).for_each(|number| write(&mut ring, number));
                        next = WRITES;
                    } else {
                        ring.send(conn, b"r", &[]);
                    }
                }
                Completion::Io { outcome, .. } => {
                    assert!(matches!(outcome, Outcome::Write(Ok(_))), "{outcome:?}");
                    write(&mut ring, next);
                    next += 1;
                    if next == 4 * WRITES {
                        ring.send(conn, b"r", &[]);
                    }
                }
                Completion::Closed { .. } | Completion::ConnectFailed { .. } => return,
                _ => {}
            }
        }
        ring.park(Some(Duration::from_secs(1)), || false);
    }
}
