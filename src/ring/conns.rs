//! Connections: slots, their life, and the receive and send operations.
//!
//! ```text
//!   open --close()--> closing --queue empty--> draining --peer closed--+
//!     |                  |                        |                    v
//!     +--EOF, error, abort()--+-------------------+-----------------> ended --both operations back--> Closed, slot free
//! ```
//! Invariants: the socket stays open until both operations are back; `ended` keeps the first reason; the ids in the two lists of this
//! turn may be of connections that are gone (they are looked up, never trusted).
//!
//! An operation in flight is brought back by shutting the socket down rather than by cancelling it: a cancel can miss a receive that
//! is just being run and goes back to waiting, a socket that is shut down answers every try.
//!
//! Sends are carried out by the core that submits them, a copy of every byte. So all bulk sends of one turn of the loop share
//! `BULK_BYTES_PER_TURN`; short ones go at once. Without it each of four replaying consumers sent 1 MiB between two receives of
//! 192 KiB of a producer, which had to do with 0.27 GB/s of the 0.75 that it wanted.
//!
//! Not here: connecting (`conns/connect.rs`), how buffers and queues are laid out (`recv.rs`, `send.rs`), limits (`role.rs`).

mod connect;

use super::queue::{Cqe, Kind, Queue, Tag};
use super::recv::{RecvBuffer, RecvLimits};
use super::role::{Accounts, Role};
use super::send::SendQueue;
use super::{CloseReason, Completion};
use crate::bytes::Bytes;
use crate::ids::ConnId;
use connect::Connecting;
use io_uring::{opcode, types};
use socket2::SockRef;
use std::collections::VecDeque;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// A connection's number is a serial number over its slot's index. 2^20 slots, 2^40 connections: twelve days at a million a second.
const SLOT_BITS: u32 = 20;
/// Bytes that the kernel may hold unsent per socket: enough to keep a fast network busy, small enough that replies pass bulk data.
const NOTSENT_LOWAT_BYTES: u32 = 256 << 10;
/// How long what was sent to another node may stay without an acknowledgement of the other end's TCP, or its window closed, until the connection
/// ends (TCP_USER_TIMEOUT). The kernel's own 15 minutes are too long. Much less is too short: no election may hang on it, so it has to be above the
/// longest election time-out (1.95 s), and a catch-up connection whose receiver has no room may stand still for 30 s (docs/REPLICATION.md, 10).
/// Silence in the sense of that document is the core's to notice. Keepalive stays off: beats come ten times a second.
const NODE_SILENCE_MS: u32 = 30_000;
/// Queued bytes above which a connection has its sends in turn with others of that kind.
const BULK_BYTES_MIN: usize = 64 << 10;
/// Connections at most whose sends are not kept for the end of the turn (`Ring::send_early`).
const EARLY_SENDS_MAX: usize = 4;
/// Bytes of all bulk sends begun in one turn of the loop in which somebody's bytes were taken in: some 90 us of copying, about as much as a
/// producer's receive brings meanwhile.
const BULK_BYTES_PER_TURN: usize = 256 << 10;
/// The same in a turn that took nothing in: few large operations cost less than many.
const BULK_BYTES_PER_CALM_TURN: usize = 1 << 20;
/// IORING_RECVSEND_POLL_FIRST: do not try first, wait for the socket to become readable.
const POLL_FIRST: u16 = 1;
/// Bytes that are thrown away for a peer that goes on sending to a closed connection: more than it can have had on the way.
const DRAIN_BYTES_MAX: usize = 16 << 20;
/// How long such a peer may take to close its side.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// Connections that one sweep looks at.
const SWEEP_COUNT: usize = 256;

#[derive(Clone, Copy)]
struct Drain {
    since: Instant,
    bytes: usize,
}

#[derive(Default)]
struct Conn {
    /// 0: the slot is free.
    id: u64,
    role: Role,
    socket: Option<OwnedFd>,
    /// Not yet connected: nothing else is done with it.
    connecting: Option<Connecting>,
    recv: Option<RecvBuffer>,
    send: SendQueue,
    /// The loop wants a receive; it is submitted with this turn.
    recv_wanted: bool,
    /// A receive is with the kernel.
    recv_in_flight: bool,
    /// The last receive left bytes in the socket: the next one tries at once, else it waits for the socket first.
    nonempty: bool,
    /// In the list of connections to send to.
    send_wanted: bool,
    /// A send is with the kernel.
    send_in_flight: bool,
    /// `close` was called.
    closing: bool,
    /// Our side is shut down; what comes in is thrown away, and counted.
    draining: Option<Drain>,
    /// No new operation is started; waits for those in flight.
    ended: Option<CloseReason>,
}

impl Conn {
    fn fd(&self) -> i32 {
        self.socket.as_ref().map_or(-1, |s| s.as_raw_fd())
    }
    /// Neither connecting nor on its way to the end.
    fn is_open(&self) -> bool {
        !self.closing && self.ended.is_none() && self.connecting.is_none()
    }
    fn recv_armed(&self) -> bool {
        self.recv_wanted || self.recv_in_flight
    }
    fn shut(&self, how: Shutdown) {
        if let Some(socket) = &self.socket {
            // Not connected any more: then there is nothing to shut down, and operations come back by themselves.
            let _ = SockRef::from(socket).shutdown(how);
        }
    }
}

pub(super) struct Conns {
    slots: Vec<Conn>,
    free: Vec<u32>,
    serial: u64,
    accounts: Accounts,
    /// To be sent to, to be received from with this turn.
    to_send: Vec<ConnId>,
    /// Those among them with much to send: the first ones have their turn, the others the next one.
    bulk: VecDeque<ConnId>,
    to_recv: Vec<ConnId>,
    sweep_next: usize,
}

impl Conns {
    pub(super) fn new(accounts: Accounts) -> Conns {
        Conns {
            slots: Vec::new(),
            free: Vec::new(),
            serial: 0,
            accounts,
            to_send: Vec::new(),
            bulk: VecDeque::new(),
            to_recv: Vec::new(),
            sweep_next: 0,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.accounts.total_count()
    }
    pub(super) fn recv_memory_bytes(&self, role: Role) -> usize {
        self.accounts.of(role).recv_memory_bytes
    }
    pub(super) fn refused_count(&self, role: Role) -> u64 {
        self.accounts.of(role).refused_count
    }
    pub(super) fn role(&self, id: ConnId) -> Option<Role> {
        self.get(id).map(|conn| conn.role)
    }

    fn index(&self, id: ConnId) -> Option<usize> {
        let index = (id.0 & ((1 << SLOT_BITS) - 1)) as usize;
        self.slots.get(index).filter(|c| c.id == id.0 && id.0 != 0).map(|_| index)
    }
    fn get(&self, id: ConnId) -> Option<&Conn> {
        self.index(id).map(|i| &self.slots[i])
    }
    fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.index(id).map(|i| &mut self.slots[i])
    }

    /// Takes an accepted socket. `None` (and the socket is closed): too many connections.
    pub(super) fn open(&mut self, socket: OwnedFd, role: Role) -> Option<ConnId> {
        if !self.has_room(role) {
            self.accounts.of_mut(role).refused_count += 1;
            return None;
        }
        set_options(&socket, role);
        let index = self.take_slot(socket, role);
        Some(ConnId(self.slots[index].id))
    }

    fn has_room(&self, role: Role) -> bool {
        let account = self.accounts.of(role);
        account.count < account.conns_max && (!self.free.is_empty() || self.slots.len() < 1 << SLOT_BITS)
    }

    /// A slot for a new connection, which there is room for.
    fn take_slot(&mut self, socket: OwnedFd, role: Role) -> usize {
        let index = match self.free.pop() {
            Some(index) => index as usize,
            None => {
                self.slots.push(Conn::default());
                self.slots.len() - 1
            }
        };
        let id = self.next_id(index);
        self.slots[index] = Conn { id, role, socket: Some(socket), ..Conn::default() };
        self.accounts.of_mut(role).count += 1;
        index
    }

    fn next_id(&mut self, index: usize) -> u64 {
        self.serial += 1;
        assert!(self.serial < 1 << (60 - SLOT_BITS), "connection numbers are used up");
        self.serial << SLOT_BITS | index as u64
    }

    /// Closes the socket and frees all memory: a slot that waits for its next connection holds nothing.
    fn free_slot(&mut self, index: usize) {
        let conn = std::mem::take(&mut self.slots[index]);
        let account = self.accounts.of_mut(conn.role);
        account.recv_memory_bytes -= conn.recv.as_ref().map_or(0, RecvBuffer::capacity);
        account.count -= 1;
        self.free.push(index as u32);
    }

    pub(super) fn received(&self, id: ConnId) -> &[u8] {
        match self.get(id) {
            Some(conn) if !conn.recv_armed() && conn.is_open() => conn.recv.as_ref().map_or(&[], |r| r.unread()),
            _ => &[],
        }
    }

    pub(super) fn consume(&mut self, id: ConnId, n: usize) {
        if let Some(conn) = self.get_mut(id)
            && conn.is_open()
        {
            assert!(!conn.recv_in_flight, "consume while a receive is armed");
            match &mut conn.recv {
                Some(recv) => recv.consume(n),
                None => assert_eq!(n, 0, "nothing was received yet"),
            }
        }
    }

    pub(super) fn rearm(&mut self, id: ConnId, need_total: usize, ready: &mut Vec<Completion>) {
        let Some(index) = self.index(id) else { return };
        let conn = &mut self.slots[index];
        if conn.recv_armed() || !conn.is_open() {
            return;
        }
        if !self.prepare(index, need_total) {
            self.end(index, CloseReason::TooLarge, ready);
            return;
        }
        self.slots[index].recv_wanted = true;
        self.to_recv.push(id);
    }

    pub(super) fn send(&mut self, id: ConnId, head: &[u8], parts: &[Bytes]) {
        let Some(conn) = self.get_mut(id) else { return };
        if !conn.is_open() {
            return;
        }
        conn.send.push(head, parts);
        if !conn.send_wanted && !conn.send_in_flight {
            conn.send_wanted = true;
            self.to_send.push(id);
        }
    }

    /// Whether sends wait for the next turn: the ring must not sleep then, as what was begun may be for peers that do not read.
    pub(super) fn has_sends_left(&self) -> bool {
        !self.bulk.is_empty()
    }

    /// Whether there is something to send, for few connections and short.
    pub(super) fn has_few_sends(&self) -> bool {
        let is_short = |id: &ConnId| self.queued_bytes(*id) <= BULK_BYTES_MIN;
        (1..=EARLY_SENDS_MAX).contains(&self.to_send.len()) && self.bulk.is_empty() && self.to_send.iter().all(is_short)
    }

    /// Begins what is short, and as much of the rest as one turn may send.
    fn flush_sends(&mut self, queue: &mut Queue) {
        let mut list = std::mem::take(&mut self.to_send);
        for id in list.drain(..) {
            let Some(index) = self.index(id) else { continue };
            if self.slots[index].send.queued_bytes() > BULK_BYTES_MIN {
                self.bulk.push_back(id);
            } else {
                self.slots[index].send_wanted = false;
                self.start_send(queue, index, BULK_BYTES_MIN);
            }
        }
        self.to_send = list;
        let mut left = if self.to_recv.is_empty() { BULK_BYTES_PER_CALM_TURN } else { BULK_BYTES_PER_TURN };
        while left > 0
            && let Some(id) = self.bulk.pop_front()
        {
            let Some(index) = self.index(id) else { continue };
            self.slots[index].send_wanted = false;
            left = left.saturating_sub(self.start_send(queue, index, left.max(BULK_BYTES_MIN)));
        }
    }

    pub(super) fn queued_bytes(&self, id: ConnId) -> usize {
        self.get(id).map_or(0, |c| c.send.queued_bytes())
    }

    pub(super) fn close(&mut self, queue: &mut Queue, id: ConnId, ready: &mut Vec<Completion>) {
        let Some(index) = self.index(id) else { return };
        let conn = &mut self.slots[index];
        if conn.connecting.is_some() {
            return self.give_up(queue, index);
        }
        if !conn.is_open() {
            return;
        }
        conn.closing = true;
        if conn.send.queued_bytes() == 0 {
            self.drain(queue, index, ready);
        }
    }

    pub(super) fn abort(&mut self, queue: &mut Queue, id: ConnId, ready: &mut Vec<Completion>) {
        let Some(index) = self.index(id) else { return };
        match self.slots[index].connecting {
            Some(_) => self.give_up(queue, index),
            None => self.end(index, CloseReason::Aborted, ready),
        }
    }

    /// Ends every connection (shutdown). May be repeated.
    pub(super) fn abort_all(&mut self, queue: &mut Queue, ended: &mut Vec<Completion>) {
        for index in 0..self.slots.len() {
            if self.slots[index].connecting.is_some() {
                self.give_up(queue, index);
            } else if self.slots[index].id != 0 {
                self.slots[index].shut(Shutdown::Both);
                self.end(index, CloseReason::Aborted, ended);
            }
        }
    }

    pub(super) fn peer(&self, id: ConnId) -> Option<SocketAddr> {
        let socket = self.get(id)?.socket.as_ref()?;
        SockRef::from(socket).peer_addr().ok()?.as_socket()
    }

    /// Submits what this turn wants: sends first, then receives.
    pub(super) fn flush(&mut self, queue: &mut Queue) {
        self.flush_sends(queue);
        let mut list = std::mem::take(&mut self.to_recv);
        for id in list.drain(..) {
            if let Some(index) = self.index(id)
                && std::mem::replace(&mut self.slots[index].recv_wanted, false)
            {
                self.start_recv(queue, index);
            }
        }
        self.to_recv = list;
    }

    pub(super) fn on_recv(&mut self, queue: &mut Queue, cqe: Cqe, out: &mut Vec<Completion>) {
        let id = ConnId(cqe.tag.number());
        let index = self.index(id).expect("a connection stays until its operations are back");
        let limits = self.limits(index);
        let conn = &mut self.slots[index];
        conn.recv_in_flight = false;
        conn.nonempty = cqe.nonempty;
        if conn.ended.is_some() {
            self.maybe_free(index, out);
            return;
        }
        let (closing, draining) = (conn.closing, conn.draining.is_some());
        match cqe.result {
            n if n > 0 => {
                let recv = conn.recv.as_mut().expect("a receive has a buffer");
                recv.received(n as usize, limits);
                if !conn.closing {
                    out.push(Completion::Received { conn: id });
                    return;
                }
                recv.discard();
                if let Some(drain) = &mut conn.draining {
                    drain.bytes += n as usize;
                    if drain.bytes > DRAIN_BYTES_MAX {
                        self.end(index, CloseReason::Local, out);
                        return;
                    }
                }
                self.prepare(index, 0);
                self.start_recv(queue, index);
            }
            // A peer that has closed its side may still read: what is queued goes out first when we are closing anyway.
            0 if closing && !draining => {}
            0 if draining => self.end(index, CloseReason::Local, out),
            0 => self.end(index, CloseReason::Peer, out),
            // Cancelled by the sweep, to give memory back; or just not now.
            e if matches!(-e, libc::ECANCELED | libc::EINTR | libc::EAGAIN) => {
                if conn.recv.as_ref().is_some_and(|r| r.unread().is_empty()) {
                    self.shrink(index);
                }
                self.start_recv(queue, index);
            }
            e => self.end(index, reason_of(-e), out),
        }
    }

    pub(super) fn on_send(&mut self, queue: &mut Queue, cqe: Cqe, out: &mut Vec<Completion>) {
        let id = ConnId(cqe.tag.number());
        let index = self.index(id).expect("a connection stays until its operations are back");
        let conn = &mut self.slots[index];
        conn.send_in_flight = false;
        if conn.ended.is_some() {
            self.maybe_free(index, out);
            return;
        }
        match cqe.result {
            n if n > 0 => {
                conn.send.sent(n as usize);
                let queued_bytes = conn.send.queued_bytes();
                out.push(Completion::Sent { conn: id, queued_bytes });
                if queued_bytes > 0 {
                    self.want_send(index);
                } else if conn.closing {
                    self.drain(queue, index, out);
                }
            }
            e if matches!(-e, libc::EINTR | libc::EAGAIN) => self.want_send(index),
            0 => self.end(index, CloseReason::Reset, out),
            e => self.end(index, reason_of(-e), out),
        }
    }

    pub(super) fn sweep_idle(&mut self, queue: &mut Queue, now: Instant, out: &mut Vec<Completion>) {
        for _ in 0..SWEEP_COUNT.min(self.slots.len()) {
            self.sweep_next = (self.sweep_next + 1) % self.slots.len();
            let first = self.limits(self.sweep_next).first;
            let conn = &mut self.slots[self.sweep_next];
            if conn.draining.is_some_and(|d| now.saturating_duration_since(d.since) > DRAIN_LIMIT) {
                self.end(self.sweep_next, CloseReason::Local, out);
                continue;
            }
            let Some(recv) = &mut conn.recv else { continue };
            let idle = !std::mem::replace(&mut recv.touched, false);
            if idle && recv.capacity() > first && recv.unread().is_empty() && conn.recv_in_flight && conn.ended.is_none() {
                let entry = opcode::AsyncCancel::new(Tag::new(Kind::Recv, conn.id).raw()).build();
                // SAFETY: the entry points to no memory.
                unsafe { queue.push(entry, Tag::new(Kind::Ignored, 0)) };
            }
        }
    }

    /// The next send goes out with the next turn.
    fn want_send(&mut self, index: usize) {
        let conn = &mut self.slots[index];
        if !std::mem::replace(&mut conn.send_wanted, true) {
            self.to_send.push(ConnId(conn.id));
        }
    }

    /// Begins a send of at most `bytes_max`. Answers how many bytes it is of.
    fn start_send(&mut self, queue: &mut Queue, index: usize, bytes_max: usize) -> usize {
        let conn = &mut self.slots[index];
        if conn.send_in_flight || conn.ended.is_some() {
            return 0;
        }
        let fd = conn.socket.as_ref().map_or(-1, |s| s.as_raw_fd());
        let Some((entry, bytes)) = conn.send.next_operation(fd, bytes_max) else { return 0 };
        conn.send_in_flight = true;
        let tag = Tag::new(Kind::Send, conn.id);
        // SAFETY: the entry points to heap memory of the send queue and to `Bytes` it holds; none of it changes or is freed while
        // `send_in_flight`: the slot is freed only in `maybe_free`, and `sent` runs after the completion.
        unsafe { queue.push(entry, tag) };
        bytes
    }

    fn start_recv(&mut self, queue: &mut Queue, index: usize) {
        let conn = &mut self.slots[index];
        if conn.recv_in_flight || conn.ended.is_some() {
            return;
        }
        let fd = conn.fd();
        let free = conn.recv.as_mut().expect("prepared before").free();
        let ioprio = if conn.nonempty { 0 } else { POLL_FIRST };
        let entry = opcode::Recv::new(types::Fd(fd), free.as_mut_ptr(), free.len() as u32).ioprio(ioprio).build();
        conn.recv_in_flight = true;
        // SAFETY: the free part of the buffer is touched by nobody else while `recv_in_flight`: it is not moved, grown or released, and
        // `unread` ends before it. The slot is freed only after the completion.
        unsafe { queue.push(entry, Tag::new(Kind::Recv, conn.id)) };
    }

    fn limits(&self, index: usize) -> RecvLimits {
        self.accounts.of(self.slots[index].role).limits
    }

    /// Makes room for a receive. False: more is asked for than the limit.
    fn prepare(&mut self, index: usize, need_total: usize) -> bool {
        self.slots[index].recv.get_or_insert_with(RecvBuffer::new);
        self.resize(index, |recv, limits| recv.prepare(need_total, limits)).expect("made above")
    }

    pub(super) fn release_recv(&mut self, id: ConnId) {
        let Some(index) = self.index(id) else { return };
        if !self.slots[index].recv_armed() {
            self.resize(index, RecvBuffer::fit);
        }
    }

    fn shrink(&mut self, index: usize) {
        self.resize(index, |recv, limits| {
            if recv.capacity() > limits.first {
                recv.shrink(limits);
            }
        });
    }

    /// Does something to a buffer that may change its size, and keeps the count of memory.
    fn resize<T>(&mut self, index: usize, change: impl FnOnce(&mut RecvBuffer, RecvLimits) -> T) -> Option<T> {
        let conn = &mut self.slots[index];
        let account = self.accounts.of_mut(conn.role);
        let recv = conn.recv.as_mut()?;
        let before = recv.capacity();
        let outcome = change(recv, account.limits);
        account.recv_memory_bytes = account.recv_memory_bytes + recv.capacity() - before;
        Some(outcome)
    }

    /// Everything queued is with the kernel: shut our side down and read until the peer does the same.
    fn drain(&mut self, queue: &mut Queue, index: usize, out: &mut Vec<Completion>) {
        let conn = &mut self.slots[index];
        conn.draining = Some(Drain { since: Instant::now(), bytes: 0 });
        conn.shut(Shutdown::Write);
        if !conn.recv_in_flight {
            conn.recv_wanted = false;
            if let Some(recv) = &mut conn.recv {
                recv.discard();
            }
            if self.prepare(index, 0) {
                self.start_recv(queue, index);
            } else {
                self.end(index, CloseReason::Local, out);
            }
        }
    }

    /// No new operation from now on. The connection is freed at once when nothing is in flight.
    fn end(&mut self, index: usize, reason: CloseReason, out: &mut Vec<Completion>) {
        let conn = &mut self.slots[index];
        if conn.ended.is_some() {
            return;
        }
        conn.ended = Some(reason);
        if let (CloseReason::Aborted, Some(socket)) = (reason, &conn.socket) {
            // So that closing resets the connection and the kernel drops what it still holds for a peer that does not read.
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
        if conn.recv_in_flight || conn.send_in_flight {
            conn.shut(Shutdown::Both);
        }
        self.maybe_free(index, out);
    }

    fn maybe_free(&mut self, index: usize, out: &mut Vec<Completion>) {
        let conn = &mut self.slots[index];
        let Some(reason) = conn.ended else { return };
        if conn.recv_in_flight || conn.send_in_flight {
            return;
        }
        let id = ConnId(conn.id);
        self.free_slot(index);
        out.push(Completion::Closed { conn: id, reason });
    }
}

/// Options of a socket that is taken in. All only make it better: a socket that refuses them (already reset) shows its error at the first receive.
fn set_options(socket: &OwnedFd, role: Role) {
    let _ = SockRef::from(socket).set_tcp_nodelay(true);
    set_tcp_option(socket, libc::TCP_NOTSENT_LOWAT, NOTSENT_LOWAT_BYTES);
    if role.is_node() {
        set_tcp_option(socket, libc::TCP_USER_TIMEOUT, NODE_SILENCE_MS);
    }
}

fn set_tcp_option(socket: &OwnedFd, option: libc::c_int, value: u32) {
    let size = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the kernel reads four bytes of a local value. The result does not matter, as above.
    let _ = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, option, (&raw const value).cast(), size) };
}

fn reason_of(errno: i32) -> CloseReason {
    match errno {
        libc::ECONNRESET | libc::EPIPE | libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ENOTCONN => CloseReason::Reset,
        other => CloseReason::Error(other),
    }
}
