//! Sockets in a Tokio runtime: the same turns, woken by its reactor instead of poll(2).
//!
//! A turn runs inside of one `poll` of a future: before it the future's waker is put into each socket ([`AsyncSocket::set_waker`]), and a socket that would block
//! leaves it with the reactor. So nothing is half done between two polls, and a future can be dropped at any await.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};

use ::tokio::io::Interest;
use ::tokio::net::TcpStream;

use super::tcp::{begin, resolve};
use super::{Received, Slot, Wire};
use crate::core::{Conn, IOVECS_MAX};
use crate::error::Error;

/// See the module's page.
#[derive(Debug)]
pub(crate) struct AsyncSocket {
    stream: TcpStream,
    address: String,
    connecting: bool,
    /// More addresses of the same name, the next one last.
    rest: Vec<SocketAddr>,
    /// Of whoever turns now.
    waker: Waker,
}

impl AsyncSocket {
    /// Who is to be woken when this socket is ready.
    pub(crate) fn set_waker(&mut self, waker: &Waker) {
        self.waker.clone_from(waker);
    }

    /// Whether it may be written; else the waker is with the reactor.
    fn is_writable(&self) -> io::Result<bool> {
        match self.stream.poll_write_ready(&mut Context::from_waker(&self.waker)) {
            Poll::Ready(ready) => ready.map(|()| true),
            Poll::Pending => Ok(false),
        }
    }
}

impl Wire for AsyncSocket {
    type Watch = ();
    fn begin(address: &str) -> Result<AsyncSocket, Error> {
        let failed = |source| Error::io("cannot connect to", address, source);
        let mut rest = resolve(address).map_err(failed)?;
        let (stream, connected) = begin(&mut rest).map_err(failed)?;
        let stream = TcpStream::from_std(stream).map_err(failed)?;
        Ok(AsyncSocket { stream, address: address.to_string(), connecting: !connected, rest, waker: Waker::noop().clone() })
    }

    fn address(&self) -> &str {
        &self.address
    }

    fn is_connecting(&self) -> bool {
        self.connecting
    }

    fn finish(&mut self) -> Result<bool, Error> {
        let failed = |source| Error::io("cannot connect to", &self.address, source);
        loop {
            if !self.is_writable().map_err(failed)? {
                return Ok(false);
            }
            let source = match self.stream.take_error() {
                Ok(None) if self.stream.peer_addr().is_ok() => {
                    self.connecting = false;
                    return Ok(true);
                }
                Ok(None) => {
                    // Not yet, whatever the reactor thought: it forgets that and is asked again.
                    let nothing: io::Result<()> = self.stream.try_io(Interest::WRITABLE, || Err(io::ErrorKind::WouldBlock.into()));
                    debug_assert!(nothing.is_err());
                    continue;
                }
                Ok(Some(error)) | Err(error) => error,
            };
            if self.rest.is_empty() {
                return Err(failed(source));
            }
            let (stream, _) = begin(&mut self.rest).map_err(failed)?;
            self.stream = TcpStream::from_std(stream).map_err(failed)?;
        }
    }

    fn flush(&mut self, conn: &mut Conn) -> io::Result<usize> {
        let mut total = 0;
        while !conn.out().is_empty() {
            let mut slices = [IoSlice::new(&[]); IOVECS_MAX];
            let count = conn.out().io_slices(&mut slices);
            match self.stream.try_write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    conn.out_mut().advance(written);
                    total += written;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.is_writable()? {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }

    /// The runtime tells which socket is ready.
    fn look(_watch: &mut (), _slots: &mut [Option<Slot<AsyncSocket>>]) {}

    fn fill(&mut self, conn: &mut Conn, look: bool) -> io::Result<Received> {
        let room = conn.room();
        if room.is_empty() {
            return Ok(Received::Empty);
        }
        let read = loop {
            match self.stream.try_read(room) {
                Ok(read) => break read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.stream.poll_read_ready(&mut Context::from_waker(&self.waker))?.is_ready() {
                        continue;
                    }
                    if !look {
                        return Ok(Received::Empty);
                    }
                    // The reactor may not have run since bytes came, when this task was away for long.
                    match rustix::net::recv(&self.stream, &mut *room, rustix::net::RecvFlags::empty()) {
                        Ok((read, _)) => break read,
                        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(Received::Empty),
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(error) => return Err(error),
            }
        };
        if read == 0 {
            return Ok(Received::Closed);
        }
        conn.received(read);
        Ok(Received::Some(read))
    }
}
