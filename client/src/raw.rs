//! One connection, frame by frame: for tests of bad input and for benches of the bare round trip.
//!
//! Nothing is retried, remembered or checked beyond the frame's own layout and checksum. Applications want
//! [`Producer`](crate::Producer) and [`Consumer`](crate::Consumer).

use std::time::{Duration, Instant};

use tramline_wire::frame::{self, Frame};
use tramline_wire::kind::Kind;

use crate::clock::deadline;
use crate::config::Config;
use crate::error::Error;
use crate::link::{HelloInfo, Link, closed_by_peer};
use crate::transport::{Received, Wire};

/// See the module's page.
///
/// ```no_run
/// use std::time::Duration;
/// use tramline_client::{Config, RawConn, wire::kind::Kind};
///
/// let mut conn = RawConn::open("127.0.0.1:7410", &Config { busy_poll: true, ..Config::default() })?;
/// let correlation = conn.next_correlation();
/// conn.send_frame(Kind::Ping, 0, correlation, &[], &[])?;
/// let reply = conn.recv_frame(Duration::from_secs(1))?.expect("an answer within a second");
/// assert_eq!(reply.header.correlation, correlation);
/// # Ok::<(), tramline_client::Error>(())
/// ```
#[derive(Debug)]
pub struct RawConn {
    link: Link,
    config: Config,
    /// Length of the frame given out last; it is let go at the next receive.
    lent: usize,
}

impl RawConn {
    /// Opens a TCP connection and says nothing. Of `config`, the timeouts, the polling mode and the frame limit count.
    pub fn connect(address: &str, config: &Config) -> Result<RawConn, Error> {
        config.check()?;
        let link = Link::dial(address, config, config.connect_timeout, 64 * 1024)?;
        Ok(RawConn { link, config: config.clone(), lent: 0 })
    }

    /// Opens a TCP connection and says hello.
    pub fn open(address: &str, config: &Config) -> Result<RawConn, Error> {
        let mut conn = RawConn::connect(address, config)?;
        conn.hello()?;
        Ok(conn)
    }

    /// Says hello.
    pub fn hello(&mut self) -> Result<HelloInfo, Error> {
        let deadline = deadline(self.config.connect_timeout);
        self.link.hello(&self.config, deadline)
    }

    /// A correlation id that was not used on this connection.
    pub fn next_correlation(&mut self) -> u64 {
        self.link.conn.next_correlation()
    }

    /// Sends one frame of the newest version of `kind`; returns when the kernel has all of it. `flags` are the frame's flags (0
    /// in requests).
    pub fn send_frame(&mut self, kind: Kind, flags: u16, correlation: u64, meta: &[u8], payload: &[&[u8]]) -> Result<(), Error> {
        self.queue_frame(kind, flags, correlation, meta, payload)?;
        self.flush()
    }

    /// Queues one frame, to be sent by [`flush`](Self::flush) or the next receive.
    pub fn queue_frame(&mut self, kind: Kind, flags: u16, correlation: u64, meta: &[u8], payload: &[&[u8]]) -> Result<(), Error> {
        let payload_len = payload.iter().map(|part| part.len()).sum();
        let mut finished = Ok(0);
        self.link.conn.out_mut().append_with(|bytes| {
            let start = frame::begin_frame(bytes, kind.as_u8(), kind.version(), flags, correlation);
            bytes.extend_from_slice(meta);
            finished = frame::finish_frame(bytes, start, payload_len);
            if finished.is_ok() {
                for part in payload {
                    bytes.extend_from_slice(part);
                }
            }
        });
        finished.map_err(|oversized| Error::config(&oversized.to_string()))?;
        self.link.touch();
        Ok(())
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.link.conn.out_mut().append_with(|out| out.extend_from_slice(bytes));
        self.link.touch();
        self.flush()
    }

    /// Sends what is queued; returns when the kernel has all of it.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.link.flush_all(deadline(self.config.call_timeout))
    }

    /// Sends as much of what is queued as the kernel takes now; returns whether it was all.
    pub fn try_flush(&mut self) -> Result<bool, Error> {
        match self.link.socket.flush(&mut self.link.conn) {
            Ok(_) => Ok(self.link.conn.out().is_empty()),
            Err(source) => Err(self.link.failed("cannot send to", source)),
        }
    }

    /// The next frame, or `None` when none came in time. It borrows the receive buffer and is gone at the next call. The other
    /// side's closing is an [`Error::Io`].
    pub fn recv_frame(&mut self, timeout: Duration) -> Result<Option<Frame<'_>>, Error> {
        self.release();
        let deadline = deadline(timeout);
        let length = loop {
            match self.link.conn.peek() {
                Ok(Some((_, length))) => break length,
                Ok(None) => {}
                Err(error) => return Err(Error::protocol(self.link.socket.address(), error.to_string())),
            }
            self.try_flush()?;
            if self.try_fill()? {
                continue;
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(None);
            }
            self.link.wait(!self.link.conn.out().is_empty(), deadline - now)?;
        };
        self.lent = length;
        match self.link.conn.peek() {
            Ok(found) => Ok(found.map(|(frame, _)| frame)),
            Err(error) => Err(Error::protocol(self.link.socket.address(), error.to_string())),
        }
    }

    /// Closes the sending direction: the broker sees the end of the stream, replies still arrive.
    pub fn shutdown_write(&mut self) -> Result<(), Error> {
        self.link.socket.shutdown_write().map_err(|source| self.link.failed("cannot close towards", source))
    }

    fn release(&mut self) {
        if self.lent > 0 {
            self.link.conn.consume(self.lent);
            self.lent = 0;
        }
    }

    fn try_fill(&mut self) -> Result<bool, Error> {
        match self.link.socket.fill(&mut self.link.conn) {
            Ok(Received::Some(_)) => Ok(true),
            Ok(Received::Empty) => Ok(false),
            Ok(Received::Closed) => Err(self.link.failed("cannot receive from", closed_by_peer())),
            Err(source) => Err(self.link.failed("cannot receive from", source)),
        }
    }
}
