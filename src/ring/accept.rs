//! Listeners: one multishot accept each, armed again whenever the kernel ended it.
//!
//! States of a listener: accepting (an accept is with the kernel) -> waiting (a 100 ms timer is, after an error such as EMFILE that
//! would come back at once) -> accepting ...; `stop` leads to closed from either, once that operation is back.
//!
//! Not here: connections after they were accepted (`conns.rs`).

use super::conns::Conns;
use super::queue::{Cqe, Kind, Queue, Tag};
use super::{Completion, Role};
use io_uring::{opcode, types};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// How long accepting rests after an error. Shorter burns the core while descriptors are short, longer keeps clients waiting.
const REST: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Accepting,
    Resting,
    Closed,
}

struct Listener {
    /// Open until the accept is back, then dropped.
    socket: Option<TcpListener>,
    state: State,
    /// Of the connections that come in.
    role: Role,
}

pub(super) struct Listeners {
    list: Vec<Listener>,
    stopping: bool,
    error_count: u64,
    rest: Box<types::Timespec>,
}

impl Default for Listeners {
    fn default() -> Listeners {
        Listeners { list: Vec::new(), stopping: false, error_count: 0, rest: Box::new(types::Timespec::from(REST)) }
    }
}

impl Listeners {
    pub(super) fn add(&mut self, queue: &mut Queue, socket: TcpListener, role: Role) -> u32 {
        let index = self.list.len();
        if self.stopping {
            self.list.push(Listener { socket: None, state: State::Closed, role });
        } else {
            self.list.push(Listener { socket: Some(socket), state: State::Accepting, role });
            self.arm(queue, index);
        }
        index as u32
    }

    pub(super) fn stop(&mut self, queue: &mut Queue) {
        if !self.stopping {
            self.stopping = true;
            self.cancel(queue);
        }
    }

    /// Cancels whatever is with the kernel. May be repeated.
    pub(super) fn cancel(&mut self, queue: &mut Queue) {
        for index in 0..self.list.len() {
            self.cancel_one(queue, index);
        }
    }

    pub(super) fn error_count(&self) -> u64 {
        self.error_count
    }

    pub(super) fn on_accept(&mut self, queue: &mut Queue, conns: &mut Conns, cqe: Cqe, out: &mut Vec<Completion>) {
        let index = cqe.tag.number() as usize;
        if cqe.result >= 0 {
            // SAFETY: the kernel has just made this descriptor for us.
            let socket = unsafe { OwnedFd::from_raw_fd(cqe.result) };
            if !self.stopping
                && let Some(conn) = conns.open(socket, self.list[index].role)
            {
                out.push(Completion::Accepted { listener: index as u32, conn });
            }
        }
        if cqe.more {
            return;
        }
        if self.stopping {
            self.close(index);
        } else if cqe.result >= 0 || matches!(-cqe.result, libc::ECONNABORTED | libc::EINTR | libc::ECANCELED) {
            self.arm(queue, index);
        } else {
            self.error_count += 1;
            self.list[index].state = State::Resting;
            let entry = opcode::Timeout::new(&*self.rest as *const types::Timespec).build();
            // SAFETY: the boxed time outlives the ring and never changes.
            unsafe { queue.push(entry, Tag::new(Kind::AcceptRetry, index as u64)) };
        }
    }

    /// The rest after an error is over.
    pub(super) fn on_retry(&mut self, queue: &mut Queue, cqe: Cqe) {
        let index = cqe.tag.number() as usize;
        if self.stopping {
            self.close(index);
        } else {
            self.arm(queue, index);
        }
    }

    /// A cancel came back. "Already" means that the accept was just being run and may have been armed anew: once more.
    pub(super) fn on_cancel(&mut self, queue: &mut Queue, cqe: Cqe) {
        if cqe.result == -libc::EALREADY {
            self.cancel_one(queue, cqe.tag.number() as usize);
        }
    }

    fn cancel_one(&mut self, queue: &mut Queue, index: usize) {
        let entry = match self.list[index].state {
            State::Closed => return,
            State::Accepting => opcode::AsyncCancel::new(Tag::new(Kind::Accept, index as u64).raw()).build(),
            State::Resting => opcode::TimeoutRemove::new(Tag::new(Kind::AcceptRetry, index as u64).raw()).build(),
        };
        // SAFETY: the entry points to no memory.
        unsafe { queue.push(entry, Tag::new(Kind::AcceptCancel, index as u64)) };
    }

    fn close(&mut self, index: usize) {
        let listener = &mut self.list[index];
        (listener.socket, listener.state) = (None, State::Closed);
    }

    fn arm(&mut self, queue: &mut Queue, index: usize) {
        let listener = &mut self.list[index];
        let Some(socket) = &listener.socket else { return };
        listener.state = State::Accepting;
        let entry = opcode::AcceptMulti::new(types::Fd(socket.as_raw_fd())).flags(libc::SOCK_CLOEXEC).build();
        // SAFETY: no address is asked for, so the entry points to no memory; the socket stays open until the accept is back.
        unsafe { queue.push(entry, Tag::new(Kind::Accept, index as u64)) };
    }
}
