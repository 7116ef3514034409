//! One TCP connection: connect with a deadline or without waiting, write what is queued, read what is there.

use std::io::{self, IoSlice, Read};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType, connect, sendmsg, socket_with};

use super::{Slot, Watch, Wire};
use crate::core::{Conn, IOVECS_MAX};
use crate::error::Error;

/// A non-blocking socket, connected or about to be.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    address: String,
    /// Not connected yet.
    pub(super) connecting: bool,
    /// A `Watch` has it: there is nothing to read unless it is `ready`.
    pub(super) watched: bool,
    /// Something came, as of the last look.
    pub(super) ready: bool,
    /// More addresses of the same name, the next one last.
    rest: Vec<SocketAddr>,
}

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// This many bytes.
    Some(usize),
    /// Nothing now.
    Empty,
    /// The other side has closed.
    Closed,
}

/// Connects to `host:port`, trying each of its addresses until one answers or the time is over.
pub(crate) fn dial(address: &str, timeout: Duration) -> Result<Socket, Error> {
    let failed = |source| Error::io("cannot connect to", address, source);
    let deadline = crate::clock::deadline(timeout);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for candidate in address.to_socket_addrs().map_err(failed)? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            last = io::ErrorKind::TimedOut.into();
            break;
        }
        match TcpStream::connect_timeout(&candidate, left) {
            Ok(stream) => {
                // A request is written whole; waiting for more (Nagle) would only add the peer's delayed ack to it.
                stream.set_nodelay(true).map_err(failed)?;
                stream.set_nonblocking(true).map_err(failed)?;
                return Ok(Socket {
                    stream,
                    address: address.to_string(),
                    connecting: false,
                    watched: false,
                    ready: false,
                    rest: Vec::new(),
                });
            }
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

/// The addresses of `host:port`, the first one last. A name may take the system a while; an address is read at once.
pub(super) fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    let mut found: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
    found.reverse();
    Ok(found)
}

/// Begins to connect to the last of these addresses that lets it, and takes it and those behind it away. Tells whether it is connected already.
pub(super) fn begin(rest: &mut Vec<SocketAddr>) -> io::Result<(TcpStream, bool)> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    while let Some(candidate) = rest.pop() {
        match begin_one(&candidate) {
            Ok(begun) => return Ok(begun),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn begin_one(to: &SocketAddr) -> io::Result<(TcpStream, bool)> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    let connected = match connect(&fd, to) {
        Ok(()) => true,
        Err(Errno::INPROGRESS | Errno::INTR) => false,
        Err(error) => return Err(error.into()),
    };
    let stream = TcpStream::from(fd);
    stream.set_nodelay(true)?; // as in `dial`
    Ok((stream, connected))
}

impl Socket {
    /// Writes as much of the queue as the kernel takes now; returns the bytes written.
    pub(crate) fn flush(&mut self, conn: &mut Conn) -> io::Result<usize> {
        let mut total = 0;
        while !conn.out().is_empty() {
            let mut slices = [IoSlice::new(&[]); IOVECS_MAX];
            let count = conn.out().io_slices(&mut slices);
            // Not writev(2): in a program that does not ignore SIGPIPE (any but Rust's own) a peer that went away would end it.
            match sendmsg(&self.stream, &slices[..count], &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    conn.out_mut().advance(written);
                    total += written;
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(total)
    }

    /// One read into the connection's buffer.
    pub(crate) fn fill(&mut self, conn: &mut Conn) -> io::Result<Received> {
        let room = conn.room();
        if room.is_empty() {
            return Ok(Received::Empty);
        }
        loop {
            match self.stream.read(room) {
                Ok(0) => return Ok(Received::Closed),
                Ok(count) => {
                    conn.received(count);
                    return Ok(Received::Some(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Received::Empty),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends the sending direction.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write)
    }
}

impl Wire for Socket {
    type Watch = Watch;
    fn begin(address: &str) -> Result<Socket, Error> {
        let failed = |source| Error::io("cannot connect to", address, source);
        let mut rest = resolve(address).map_err(failed)?;
        let (stream, connected) = begin(&mut rest).map_err(failed)?;
        Ok(Socket { stream, address: address.to_string(), connecting: !connected, watched: false, ready: false, rest })
    }
    fn address(&self) -> &str {
        &self.address
    }
    fn is_connecting(&self) -> bool {
        self.connecting
    }
    fn finish(&mut self) -> Result<bool, Error> {
        let source = match self.stream.take_error() {
            Ok(None) => {
                self.connecting = self.stream.peer_addr().is_err();
                return Ok(!self.connecting);
            }
            Ok(Some(error)) | Err(error) => error,
        };
        // An address that refuses is followed by the next one of its name.
        if self.rest.is_empty() {
            return Err(Error::io("cannot connect to", &self.address, source));
        }
        let (stream, connected) = begin(&mut self.rest).map_err(|source| Error::io("cannot connect to", &self.address, source))?;
        (self.stream, self.connecting, self.watched) = (stream, !connected, false);
        Ok(connected)
    }
    #[inline]
    fn flush(&mut self, conn: &mut Conn) -> io::Result<usize> {
        Socket::flush(self, conn)
    }
    #[inline]
    fn fill(&mut self, conn: &mut Conn, look: bool) -> io::Result<Received> {
        if self.watched && !self.ready && !look {
            return Ok(Received::Empty);
        }
        Socket::fill(self, conn)
    }
    #[inline]
    fn look(watch: &mut Watch, slots: &mut [Option<Slot<Socket>>]) {
        watch.look(slots);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
