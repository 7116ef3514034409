//! Sockets: blocking calls over non-blocking std TCP, waiting in poll(2) or spinning.
//!
//! The cores hold bytes and decide; this moves the bytes. A [`Socket`] never blocks in a read or write, nor in connecting when a [`Driver`] does
//! it; the only places that wait are [`wait`] (poll(2), or one `sched_yield` when spinning), [`dial`] (administration), and the system's
//! resolver where an address is a name.
//!
//! Not here: io_uring (measured: slower than sockets with one connection and than sockets behind epoll with many, `watch.rs` has the numbers), TLS (later).

mod driver;
mod tcp;
#[cfg(feature = "tokio")]
mod tokio;
mod wait;
mod watch;

use std::io;

use crate::core::Conn;
use crate::error::Error;

/// A non-blocking socket, as a turn uses it.
pub(crate) trait Wire: Sized {
    /// Begins to connect, without waiting for it.
    fn begin(address: &str) -> Result<Self, Error>;
    /// What it was dialled with.
    fn address(&self) -> &str;
    /// Whether connecting has to be finished first.
    fn is_connecting(&self) -> bool;
    /// Whether it is connected by now.
    fn finish(&mut self) -> Result<bool, Error>;
    /// Writes as much of the queue as the kernel takes now; returns the bytes written.
    fn flush(&mut self, conn: &mut Conn) -> io::Result<usize>;
    /// One read into the connection's buffer. `look`: also where nobody said yet that something is there.
    fn fill(&mut self, conn: &mut Conn, look: bool) -> io::Result<Received>;
    /// What is asked once per turn for all sockets together.
    type Watch: Default + std::fmt::Debug;
    /// Begins a turn: asks which sockets have something to read, where that is cheaper than trying.
    fn look(watch: &mut Self::Watch, slots: &mut [Option<Slot<Self>>]);
}

#[cfg(feature = "tokio")]
pub(crate) use self::tokio::AsyncSocket;
pub(crate) use driver::{Driver, Slot};
pub(crate) use tcp::{Received, Socket, dial};
pub(crate) use wait::{Interest, WaitMode, wait};
pub(crate) use watch::Watch;
