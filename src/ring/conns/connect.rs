//! Connecting to another node.
//!
//! ```text
//!   connect() --> connecting --answered--> open: `Connected`
//!                     |  refused, unreachable, given up (close, abort, the ring's end)
//!                     +--> `ConnectFailed`, slot free
//! ```
//! Invariants: a connection has its number from the first call on; it ends in `ConnectFailed` or, once it was `Connected`, in `Closed`. Until then
//! nothing is sent or received on it. The address stays where it is until the operation is back.
//!
//! Here an operation is cancelled, which `conns.rs` avoids for others: shutting down a socket that is connecting disconnects it, and the kernel,
//! trying once more, would begin a new connection. A cancel that misses (the operation was just being run) is repeated.
//!
//! The socket is a blocking one, as accepted ones are: the kernel does not wait when an operation is submitted, whatever the socket says, and what
//! it says would only make operations end with EAGAIN.
//!
//! Not here: how long connecting may take (the loop gives up), dialing again (the core).

use super::{Conns, Cqe, Kind, Queue, Tag, set_options};
use crate::ids::ConnId;
use crate::ring::{Completion, Role};
use io_uring::{opcode, types};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

/// A connect that is with the kernel.
pub(super) struct Connecting {
    /// Boxed: slots move when there are more of them.
    address: Box<SockAddr>,
    /// Whatever it ends in, the connection is not used.
    given_up: bool,
}

impl Conns {
    /// Begins to connect, or tells in `ready` why it cannot. EMFILE also stands for our own limit.
    pub(in crate::ring) fn connect(&mut self, queue: &mut Queue, address: SocketAddr, ready: &mut Vec<Completion>) -> ConnId {
        let socket = match self.socket_for(address) {
            Ok(socket) => socket,
            Err(errno) => {
                // A number like any other; no slot has it.
                let conn = ConnId(self.next_id(0));
                ready.push(Completion::ConnectFailed { conn, errno });
                return conn;
            }
        };
        let fd = types::Fd(socket.as_raw_fd());
        let index = self.take_slot(socket, Role::NodeDialed);
        let id = self.slots[index].id;
        let connecting = Connecting { address: Box::new(SockAddr::from(address)), given_up: false };
        let address = &self.slots[index].connecting.insert(connecting).address;
        let entry = opcode::Connect::new(fd, address.as_ptr().cast(), address.len()).build();
        // SAFETY: the entry points to a boxed address that nobody changes and that stays with the slot until the completion was taken.
        unsafe { queue.push(entry, Tag::new(Kind::Connect, id)) };
        ConnId(id)
    }

    fn socket_for(&mut self, address: SocketAddr) -> Result<OwnedFd, i32> {
        if !self.has_room(Role::NodeDialed) {
            self.accounts.of_mut(Role::NodeDialed).refused_count += 1;
            return Err(libc::EMFILE);
        }
        let made = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP));
        let socket = OwnedFd::from(made.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))?);
        set_options(&socket, Role::NodeDialed);
        Ok(socket)
    }

    pub(in crate::ring) fn on_connect(&mut self, cqe: Cqe, out: &mut Vec<Completion>) {
        let conn = ConnId(cqe.tag.number());
        let index = self.index(conn).expect("a connection stays until its operations are back");
        let connecting = self.slots[index].connecting.take().expect("one connect per connection");
        let errno = match cqe.result {
            _ if connecting.given_up => libc::ECANCELED,
            result if result < 0 => -result,
            _ if self.is_with_itself(index) => libc::ECONNREFUSED,
            _ => return out.push(Completion::Connected { conn }),
        };
        self.free_slot(index);
        out.push(Completion::ConnectFailed { conn, errno });
    }

    /// Stops connecting. May be repeated.
    pub(super) fn give_up(&mut self, queue: &mut Queue, index: usize) {
        let conn = &mut self.slots[index];
        let Some(connecting) = &mut conn.connecting else { return };
        connecting.given_up = true;
        let entry = opcode::AsyncCancel::new(Tag::new(Kind::Connect, conn.id).raw()).build();
        // SAFETY: the entry points to no memory.
        unsafe { queue.push(entry, Tag::new(Kind::ConnectCancel, conn.id)) };
    }

    pub(in crate::ring) fn on_connect_cancel(&mut self, queue: &mut Queue, cqe: Cqe) {
        if cqe.result == -libc::EALREADY
            && let Some(index) = self.index(ConnId(cqe.tag.number()))
        {
            self.give_up(queue, index);
        }
    }

    /// TCP lets a socket connect to itself: a port of this machine at which nobody listens, and which the kernel has chosen for our end too.
    fn is_with_itself(&self, index: usize) -> bool {
        self.slots[index].socket.as_ref().is_some_and(|socket| {
            let socket = SockRef::from(socket);
            matches!((socket.local_addr(), socket.peer_addr()), (Ok(local), Ok(peer)) if local == peer)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::conns::{NODE_SILENCE_MS, NOTSENT_LOWAT_BYTES};

    fn tcp_option(socket: &OwnedFd, option: libc::c_int) -> u32 {
        let (mut value, mut size) = (0u32, size_of::<u32>() as libc::socklen_t);
        // SAFETY: the kernel fills four bytes of a local value, and says how many.
        let told = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, option, (&raw mut value).cast(), &mut size) };
        assert_eq!((told, size), (0, 4));
        value
    }

    #[test]
    fn sockets_have_the_options_of_their_role() {
        for (role, silence_ms) in [(Role::Client, 0), (Role::NodeAccepted, NODE_SILENCE_MS), (Role::NodeDialed, NODE_SILENCE_MS)] {
            let socket = OwnedFd::from(Socket::new(Domain::IPV4, Type::STREAM.cloexec(), Some(Protocol::TCP)).unwrap());
            set_options(&socket, role);
            let told = [libc::TCP_NODELAY, libc::TCP_NOTSENT_LOWAT, libc::TCP_USER_TIMEOUT].map(|option| tcp_option(&socket, option));
            assert_eq!(told, [1, NOTSENT_LOWAT_BYTES, silence_ms], "{role:?}");
            assert!(!SockRef::from(&socket).keepalive().unwrap());
        }
    }
}
