//! Tests of the ring room over real sockets and files. Waiting is done as the shard loop does it (park), bounded by `LIMIT`; nothing sleeps to synchronise.

mod dialing;
mod files;
mod parking;
mod peer_death;
mod probing;
mod sockets;

use super::*;
use std::io::{Read, Write};
use std::net::TcpStream;
use tempfile::TempDir;

/// What takes longer has failed. Generous: the machine may be busy.
const LIMIT: Duration = Duration::from_secs(30);

/// A ring in a directory of its own, and what it has handed out.
struct Bench {
    ring: Ring,
    seen: Vec<Completion>,
    dir: TempDir,
}

fn config(dir: &TempDir) -> RingConfig {
    RingConfig {
        entries: 64,
        iowq_cpus: None,
        clients: RoleLimits { recv_bytes_first: 4096, recv_bytes_max: 1 << 20, conns_max: 4096 },
        nodes: RoleLimits { recv_bytes_first: 4096, recv_bytes_max: 20 << 20, conns_max: 64 },
        dir: dir.path().to_path_buf(),
    }
}

impl Bench {
    fn new() -> Bench {
        Bench::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut RingConfig)) -> Bench {
        // Beside the test binary: the system's directory for temporary files may be a file system without direct I/O.
        let dir = scratch_dir();
        let mut cfg = config(&dir);
        change(&mut cfg);
        Bench { ring: Ring::new(cfg).unwrap(), seen: Vec::new(), dir }
    }

    /// One turn: sleeps, bounded, if there is nothing to do. Panics after `until`.
    fn turn(&mut self, until: Instant) {
        assert!(Instant::now() < until, "nothing happened; seen but not expected: {:?}", self.seen);
        self.ring.reap(&mut self.seen);
        if self.seen.is_empty() {
            self.ring.park(Some(Duration::from_secs(1)), || false);
        }
    }

    /// Takes the next completion.
    fn next(&mut self) -> Completion {
        let until = Instant::now() + LIMIT;
        while self.seen.is_empty() {
            self.turn(until);
        }
        self.seen.remove(0)
    }

    /// Turns without waiting until the kernel has nothing more to say right now.
    fn settle(&mut self) {
        loop {
            let before = self.seen.len();
            self.ring.reap(&mut self.seen);
            // A park without an end to wait for runs what the kernel has put off.
            if self.seen.len() == before && self.ring.park(Some(Duration::ZERO), || false) {
                self.ring.reap(&mut self.seen);
                if self.seen.len() == before {
                    return;
                }
            }
        }
    }

    fn listen(&mut self) -> SocketAddr {
        self.listen_for(Role::Client)
    }

    fn listen_for(&mut self, role: Role) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        self.ring.add_listener(listener, role);
        address
    }

    fn accepted(&mut self) -> ConnId {
        match self.next() {
            Completion::Accepted { conn, .. } => conn,
            other => panic!("expected an accepted connection, got {other:?}"),
        }
    }

    /// A connected pair: the ring's side, already receiving, and the client's.
    fn pair(&mut self) -> (ConnId, TcpStream) {
        let address = self.listen();
        let client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        let conn = self.accepted();
        self.ring.rearm_recv(conn, 0);
        (conn, client)
    }

    fn closed(&mut self, conn: ConnId) -> CloseReason {
        loop {
            match self.next() {
                Completion::Closed { conn: c, reason } if c == conn => return reason,
                Completion::Sent { .. } => {}
                other => panic!("expected the end of {conn:?}, got {other:?}"),
            }
        }
    }

    fn io(&mut self, token: Token) -> Outcome {
        match self.next() {
            Completion::Io { token: t, outcome } if t == token => outcome,
            other => panic!("expected the end of {token:?}, got {other:?}"),
        }
    }
}

/// Bytes that differ from place to place, so that a swapped or lost piece shows.
fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

fn random(state: &mut u64, below: usize) -> usize {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    ((*state >> 33) as usize) % below
}

fn scratch_dir() -> TempDir {
    let binary = std::env::current_exe().unwrap();
    tempfile::tempdir_in(binary.parent().unwrap()).unwrap()
}
