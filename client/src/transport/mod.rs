//! Sockets: blocking calls over non-blocking std TCP, waiting in poll(2) or spinning.
//!
//! The cores hold bytes and decide; this moves the bytes. A [`Socket`] never blocks in a read or write, nor in connecting when a [`Driver`] does
//! it; the only places that wait are [`wait`] (poll(2), or one `sched_yield` when spinning), [`dial`] (administration), and the system's
//! resolver where an address is a name.
//!
//! Not here: io_uring (measured: non-blocking sockets that spin are faster for one connection, 6.4 against 7.4 us), TLS, an
//! async transport (both come later, over the same cores).

mod driver;
mod tcp;
mod wait;

pub(crate) use driver::{Driver, Slot};
pub(crate) use tcp::{Received, Socket, dial};
pub(crate) use wait::{Interest, WaitMode, wait};
