//! Sockets: blocking calls over non-blocking std TCP, waiting in poll(2) or spinning.
//!
//! The cores hold bytes and decide; this moves the bytes. A [`Socket`] never blocks in a read or write; the only places
//! that wait are [`wait`] (poll(2), or one `sched_yield` when spinning) and connecting.
//!
//! Not here: io_uring (measured: non-blocking sockets that spin are faster for one connection, 6.4 against 7.4 us), TLS, an
//! async transport (both come later, over the same cores).

mod tcp;
mod wait;

pub(crate) use tcp::{Received, Socket, dial};
pub(crate) use wait::{Interest, WaitMode, wait};
