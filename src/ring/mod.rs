//! The ring room: one io_uring per shard does all steady-state I/O (D1 of the design). Facade of `src/ring/`.
//!
//! Job: sockets (accept, connect, receive buffers, send queues), files (writes, reads, operations on names), park and wake.
//! The shard loop is: `reap` -> parse and step -> `send`/`write`/`rearm_recv` -> `reap` ... and, when idle, `park` -> `reap`.
//!
//! ```text
//!   loop calls            lists of this turn            submission queue        kernel        completion queue
//!   send, close    -->    connections to send to   -+
//!   rearm_recv     -->    connections to receive   -+-> SQEs (sends first) --> operations --> CQEs --> Completion
//!   write, read, file_op ----------------------------+
//! ```
//!
//! Invariants
//! - One thread: a `Ring` is created, used and dropped on the shard's thread (SINGLE_ISSUER). Only `Waker` crosses threads.
//! - What the kernel may touch (receive buffers, out-buffers, `Bytes`, `BufMut`, iovecs, paths) lives in a slot of this room
//!   until the operation's last CQE was taken, whoever lost interest meanwhile. Dropping a `Ring` waits for that.
//! - Nothing is lost: a full submission queue is submitted and filled on, a full completion queue is drained and flushed.
//! - One receive and one send in flight per socket. A connection ends in exactly one `Completion::Closed`, after all its
//!   operations have come back (one that was never connected, in one `Completion::ConnectFailed`); its `ConnId` is never used again. Calls that name a connection that is gone do nothing.
//! - Every `Token` given in ends in exactly one `Completion::Io`.
//! - Steady state allocates nothing: slots, iovecs, out-buffers and lists are reused.
//!
//! Strategies that were measured stand with their numbers in `recv.rs` (plain receive against multishot) and `send.rs`.
//!
//! Not here: frames and their meaning, budgets (the loop pauses a connection by not calling `rearm_recv`), yielding (the loop
//! decides), glommio.

#![allow(unsafe_code)]

mod accept;
mod conns;
mod files;
mod park;
pub mod probe;
mod queue;
mod recv;
mod role;
mod send;
mod setup;
#[cfg(test)]
mod tests;

use crate::bytes::{BufMut, Bytes};
use crate::effects::{FileOp, Outcome, Token};
use crate::ids::{ConnId, FileId};
use accept::Listeners;
use conns::Conns;
use files::Files;
use park::Park;
pub use park::Waker;
use queue::{Cqe, Kind, Queue};
use role::Accounts;
pub use role::{Role, RoleLimits};
pub use setup::RingError;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How a ring is to be made.
#[derive(Clone, Debug)]
pub struct RingConfig {
    /// Submission queue entries (a power of two; 1024 is plenty). The completion queue has four times as many. Too small costs
    /// system calls, never operations.
    pub entries: u32,
    /// Cores on which the kernel's io-wq workers of this ring may run (the housekeeping cores); `None` leaves the kernel's choice,
    /// which is the shard's own core.
    pub iowq_cpus: Option<Vec<usize>>,
    /// What connections of clients may have.
    pub clients: RoleLimits,
    /// What connections with other nodes may have: the number holds for those accepted and those dialed, each.
    pub nodes: RoleLimits,
    /// The shard's directory: names of `FileOp` are relative to it.
    pub dir: PathBuf,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed its side.
    Peer,
    /// The peer reset the connection, or vanished (reset, broken pipe, time-out).
    Reset,
    /// Another error of the socket, by its errno.
    Error(i32),
    /// `Ring::close` was called; everything queued before it was handed to the kernel, and the peer closed its side as well.
    Local,
    /// `Ring::abort` was called.
    Aborted,
    /// `rearm_recv` asked for more than `RoleLimits::recv_bytes_max`.
    TooLarge,
}

/// What has happened, as handed out by `Ring::reap`.
#[derive(Debug)]
#[allow(missing_docs, reason = "each variant's text names its fields")]
pub enum Completion {
    /// A connection was accepted (TCP_NODELAY is set). Nothing is received before the first `rearm_recv`.
    Accepted { listener: u32, conn: ConnId },
    /// What `Ring::connect` began stands (with the same options). Nothing is received before the first `rearm_recv`.
    Connected { conn: ConnId },
    /// What `Ring::connect` began does not come about: refused, unreachable, or ECANCELED because it was given up. The last completion of this
    /// `ConnId`.
    ConnectFailed { conn: ConnId, errno: i32 },
    /// More bytes are in `Ring::received`. Nothing more is received before `rearm_recv`.
    Received { conn: ConnId },
    /// Some of the queue went out; `queued_bytes` are left.
    Sent { conn: ConnId, queued_bytes: usize },
    /// The connection is gone and all its operations have come back. The last completion of this `ConnId`.
    Closed { conn: ConnId, reason: CloseReason },
    /// A write, read or file operation ended.
    Io { token: Token, outcome: Outcome },
}

/// Counters for the metrics, since the ring was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingStats {
    /// `io_uring_enter` calls.
    pub enter_count: u64,
    /// Operations given to the kernel.
    pub submit_count: u64,
    /// Times at which a full submission queue had to be submitted early.
    pub sq_full_count: u64,
    /// Times at which the kernel had to keep completions aside because the completion queue was full.
    pub cq_overflow_count: u64,
    /// Connections of clients closed at once because `RoleLimits::conns_max` were open.
    pub refused_count: u64,
    /// The same of other nodes.
    pub refused_nodes_count: u64,
    /// Failed accepts (out of descriptors or memory); accepting goes on after 100 ms.
    pub accept_error_count: u64,
}

/// One shard's ring. See the module's text for the rules of use.
pub struct Ring {
    queue: Queue,
    conns: Conns,
    listeners: Listeners,
    files: Files,
    park: Park,
    /// Completions that came up outside `reap`, to be handed out by the next one.
    ready: Vec<Completion>,
    /// Writes of this turn: they go to the kernel behind the sends. Handing a direct write to the device takes it 15 us, which a reply that
    /// stood behind it would have to wait for.
    writes: Vec<(Token, FileId, u64, Bytes)>,
}

impl Ring {
    /// Makes the ring on the calling thread, which must be the one that uses it.
    pub fn new(cfg: RingConfig) -> Result<Ring, RingError> {
        for limits in [cfg.clients, cfg.nodes] {
            assert!(limits.recv_bytes_first > 0 && limits.recv_bytes_first <= limits.recv_bytes_max, "receive buffer limits: {cfg:?}");
        }
        let io = setup::build(&cfg)?;
        let dir = setup::open_dir(&cfg.dir)?;
        Ok(Ring {
            queue: Queue::new(io),
            conns: Conns::new(Accounts::new(cfg.clients, cfg.nodes)),
            listeners: Listeners::default(),
            files: Files::new(dir),
            park: Park::new()?,
            ready: Vec::new(),
            writes: Vec::new(),
        })
    }

    /// A handle with which other threads end this ring's park. Clone it freely.
    pub fn waker(&self) -> Waker {
        self.park.waker()
    }

    /// Accepts on `listener` from now on; those who come are of `role`. The number names it in `Completion::Accepted`.
    pub fn add_listener(&mut self, listener: TcpListener, role: Role) -> u32 {
        assert!(role != Role::NodeDialed, "who comes was not dialed");
        self.listeners.add(&mut self.queue, listener, role)
    }

    /// Connects to another node. Ends in one `Completion::Connected` or one `Completion::ConnectFailed`, also where there is no socket to be had or
    /// `RoleLimits::conns_max` is reached (EMFILE). How long it takes is bounded by the caller with `abort`.
    pub fn connect(&mut self, address: SocketAddr) -> ConnId {
        self.conns.connect(&mut self.queue, address, &mut self.ready)
    }

    /// Who is at the other end of a connection, if it is still there.
    pub fn role(&self, conn: ConnId) -> Option<Role> {
        self.conns.role(conn)
    }

    /// Accepts no more; listeners are closed as soon as their operations are back. Open connections stay.
    pub fn stop_accepting(&mut self) {
        self.listeners.stop(&mut self.queue);
    }

    /// Makes `file` (opened with O_DIRECT | O_DSYNC by the caller) known as `id`. Panics if `id` is in use.
    pub fn attach_file(&mut self, id: FileId, file: File) {
        self.files.attach(id, file.into());
    }

    /// Puts the data directory's lock file into the ring's file table: the kernel then holds the lock until the last write of this ring
    /// has ended, also when the process is killed. At most one.
    pub fn register_lock(&mut self, lock: File) -> Result<(), RingError> {
        self.files.register_lock(&self.queue, lock)
    }

    /// Writes `data` at `pos`. Ends in one `Completion::Io` with `Outcome::Write`; an unknown file gives EBADF.
    pub fn write(&mut self, token: Token, file: FileId, pos: u64, data: Bytes) {
        self.writes.push((token, file, pos, data));
    }

    /// Fills `buf` from `pos`. Ends in one `Completion::Io` with `Outcome::Read`, which gives the buffer back.
    pub fn read(&mut self, token: Token, file: FileId, pos: u64, buf: BufMut) {
        self.files.read(&mut self.queue, &mut self.ready, token, file, pos, buf);
    }

    /// An operation on names in the shard's directory. Ends in one `Completion::Io` with `Outcome::File`. Names are plain file names (no
    /// separator), else EINVAL. A failed `Create` leaves neither the name nor the `FileId` behind.
    pub fn file_op(&mut self, token: Token, op: FileOp) {
        self.files.file_op(&mut self.queue, &mut self.ready, token, op);
    }

    /// The unread bytes of a connection, contiguous. Empty while a receive is armed: valid between `Received` and `rearm_recv`.
    pub fn received(&self, conn: ConnId) -> &[u8] {
        self.conns.received(conn)
    }

    /// Forgets the first `n` unread bytes. Panics if there are fewer.
    pub fn consume(&mut self, conn: ConnId, n: usize) {
        self.conns.consume(conn, n);
    }

    /// Asks for more bytes; unread ones are kept. `need_total` is the size of the frame at the front of the unread bytes as far as it is
    /// known (0 if not): it decides how the buffer is used, but memory grows only when the bytes have really arrived. Above
    /// `recv_bytes_max` the connection is closed. The receive is submitted with the next `reap`, after the sends. Calling it twice
    /// does nothing.
    pub fn rearm_recv(&mut self, conn: ConnId, need_total: usize) {
        self.conns.rearm(conn, need_total, &mut self.ready);
    }

    /// Gives back what a connection's receive buffer has beyond its unread bytes, unless a receive is armed. For when memory is short.
    pub fn release_recv(&mut self, conn: ConnId) {
        self.conns.release_recv(conn);
    }

    /// Memory of the receive buffers of clients, in bytes.
    pub fn recv_memory_bytes(&self) -> usize {
        self.conns.recv_memory_bytes(Role::Client)
    }

    /// Memory of the receive buffers of other nodes, in bytes.
    pub fn recv_nodes_memory_bytes(&self) -> usize {
        self.conns.recv_memory_bytes(Role::NodeAccepted) + self.conns.recv_memory_bytes(Role::NodeDialed)
    }

    /// Queues `head` (copied) and then `parts` (held by reference; small ones are copied too). Goes out with the next `reap`.
    pub fn send(&mut self, conn: ConnId, head: &[u8], parts: &[Bytes]) {
        self.conns.send(conn, head, parts);
    }

    /// Bytes queued for a connection that the kernel has not taken yet.
    pub fn queued_bytes(&self, conn: ConnId) -> usize {
        self.conns.queued_bytes(conn)
    }

    /// Sends what is queued, then ends the connection: our side is shut down, what still arrives is thrown away until the peer closes
    /// too (closing with unread input would reset the connection and could destroy the last reply on its way). `Closed` follows. How
    /// long the queue may take is bounded by the caller with `abort`; how long the peer may take after that, by `sweep_idle`. No
    /// `Received` comes any more. One that is connecting is given up.
    pub fn close(&mut self, conn: ConnId) {
        self.conns.close(&mut self.queue, conn, &mut self.ready);
    }

    /// Ends the connection at once with a reset; what is queued is dropped. `Closed` follows; where it was connecting, `ConnectFailed`.
    pub fn abort(&mut self, conn: ConnId) {
        self.conns.abort(&mut self.queue, conn, &mut self.ready);
    }

    /// The peer's address, if the connection is still there (one system call: for logs).
    pub fn peer(&self, conn: ConnId) -> Option<SocketAddr> {
        self.conns.peer(conn)
    }

    /// Connections, also those that are connecting.
    pub fn conn_count(&self) -> usize {
        self.conns.count()
    }

    /// Shrinks the receive buffers of connections that were idle since the last sweep over them, and ends those that were closed,
    /// have nothing left to send, and whose peer has not closed its side within five seconds. Looks at up to 256 connections per call
    /// (some microseconds): call it about every 100 ms.
    pub fn sweep_idle(&mut self) {
        self.conns.sweep_idle(&mut self.queue, Instant::now(), &mut self.ready);
    }

    /// Submits what is queued, lets the kernel run what is due, without waiting, and appends what has completed to `out`. With
    /// nothing queued and nothing due it makes no system call.
    pub fn reap(&mut self, out: &mut Vec<Completion>) {
        self.conns.flush(&mut self.queue);
        self.push_writes();
        out.append(&mut self.ready);
        self.queue.enter_if_needed();
        self.drain(out);
    }

    /// Hands what is to be sent to the kernel now, where it is short and for at most four connections, and not only with what else comes of this turn: who is busy has
    /// many answers, and they share a system call. Takes no completions.
    pub fn send_early(&mut self) {
        if self.conns.has_few_sends() {
            self.conns.flush(&mut self.queue);
            self.queue.submit();
        }
    }

    fn push_writes(&mut self) {
        for (token, file, pos, data) in self.writes.drain(..) {
            self.files.write(&mut self.queue, &mut self.ready, token, file, pos, data);
        }
    }

    /// Writes, reads and file operations whose `Completion::Io` was not handed out by the kernel yet.
    pub fn in_flight_ops(&self) -> usize {
        self.files.in_flight_ops() + self.writes.len()
    }

    /// Writes that have completed since the start, well or not.
    pub fn completed_writes(&self) -> u64 {
        self.files.completed_writes()
    }

    /// The writes among them. While there are any, a spinning loop should yield to the kernel's workers (D1).
    pub fn in_flight_writes(&self) -> usize {
        self.files.in_flight_writes() + self.writes.len()
    }

    /// Submits what is queued and sleeps until an operation completes, a `Waker` wakes, or `limit` is over. It does not sleep when something is due, or when
    /// `has_work` says so: the caller's last look into its mesh, after wakers were told that this thread is about to sleep. Answers whether it slept. Then: `reap`.
    pub fn park(&mut self, limit: Option<Duration>, has_work: impl FnOnce() -> bool) -> bool {
        self.conns.flush(&mut self.queue);
        self.push_writes();
        if !self.ready.is_empty() || self.conns.has_sends_left() {
            return false;
        }
        self.park.announce(&mut self.queue);
        let sleeps = !has_work();
        if sleeps {
            self.queue.wait(limit);
        }
        self.park.retract();
        sleeps
    }

    /// Counters since the start.
    pub fn stats(&self) -> RingStats {
        let queue = self.queue.stats();
        RingStats {
            refused_count: self.conns.refused_count(Role::Client),
            refused_nodes_count: self.conns.refused_count(Role::NodeAccepted) + self.conns.refused_count(Role::NodeDialed),
            accept_error_count: self.listeners.error_count(),
            ..queue
        }
    }

    /// Ends everything: listeners and connections are cut, disk operations are waited for, and only when the kernel holds nothing
    /// any more is memory freed. Dropping a ring does the same.
    pub fn shutdown(self) {}

    fn drain(&mut self, out: &mut Vec<Completion>) {
        let mut batch = [Cqe::default(); 32];
        loop {
            let count = self.queue.take(&mut batch);
            for cqe in &batch[..count] {
                self.on_cqe(*cqe, out);
            }
            if count < batch.len() {
                return;
            }
        }
    }

    fn on_cqe(&mut self, cqe: Cqe, out: &mut Vec<Completion>) {
        match cqe.tag.kind() {
            Kind::Recv => self.conns.on_recv(&mut self.queue, cqe, out),
            Kind::Send => self.conns.on_send(&mut self.queue, cqe, out),
            Kind::File => self.files.on_cqe(&mut self.queue, cqe, out),
            Kind::Accept => self.listeners.on_accept(&mut self.queue, &mut self.conns, cqe, out),
            Kind::AcceptRetry => self.listeners.on_retry(&mut self.queue, cqe),
            Kind::AcceptCancel => self.listeners.on_cancel(&mut self.queue, cqe),
            Kind::Wake => self.park.on_wake(cqe),
            Kind::Connect => self.conns.on_connect(cqe, out),
            Kind::ConnectCancel => self.conns.on_connect_cancel(&mut self.queue, cqe),
            Kind::Ignored => {}
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let mut ended = Vec::new();
        self.conns.abort_all(&mut self.queue, &mut ended);
        self.listeners.stop(&mut self.queue);
        while self.queue.outstanding() > 0 {
            // Cancelling can miss an operation that is just being run; so it is repeated until all are back.
            self.listeners.cancel(&mut self.queue);
            self.park.disarm(&mut self.queue);
            self.conns.abort_all(&mut self.queue, &mut ended);
            self.queue.wait(Some(Duration::from_millis(20)));
            self.drain(&mut ended);
            ended.clear();
        }
    }
}
