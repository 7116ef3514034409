//! A bare connection for throughput: frames are sent from where they lie and read where they land.
//!
//! Throughput at several GB/s is bound by copies; one more on the client's core would be measured as the broker's. So this
//! sends the same batches again and again with vectored writes, and looks at replies inside the receive buffer. Round trips
//! use the client library's `RawConn`.
//!
//! Invariants: never blocks; `poll_frame` yields the core when nothing is there (the disk's interrupts may need it).

use crate::error::{BenchError, io_error};
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tramline_wire::error::{ErrorBody, ErrorCode};
use tramline_wire::frame::{self, Frame, Limits, Need};
use tramline_wire::hello::HelloRequest;
use tramline_wire::kind::Kind;

/// How long a reply may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Receive buffer: several fetch frames of 128 KiB, and still within a core's own cache.
const INPUT_BYTES: usize = 768 << 10;
/// When less than this is free behind the received bytes, they are moved to the front.
const ROOM_BYTES: usize = 192 << 10;
/// Taken at once by one of many: some 20 us of copying.
const SHARED_READ_BYTES: usize = 64 << 10;

/// See the module's page.
#[derive(Debug)]
pub struct HotSocket {
    socket: TcpStream,
    input: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of the frame that was lent last.
    lent: usize,
    correlation: u64,
    heard: Instant,
    empty: u32,
    /// Bytes taken from the kernel at once.
    read_bytes: usize,
}

impl HotSocket {
    /// One of several that are looked at in turn: takes little at once, since the others wait meanwhile.
    pub fn connect_one_of_many(address: &str) -> Result<HotSocket, BenchError> {
        Ok(HotSocket { read_bytes: SHARED_READ_BYTES, ..HotSocket::connect(address)? })
    }

    /// Connects and says hello.
    pub fn connect(address: &str) -> Result<HotSocket, BenchError> {
        let socket = TcpStream::connect(address).map_err(io_error("cannot connect to the broker"))?;
        socket.set_nodelay(true).map_err(io_error("cannot set TCP_NODELAY"))?;
        socket.set_nonblocking(true).map_err(io_error("cannot set the socket non-blocking"))?;
        let mut hot = HotSocket {
            socket,
            input: vec![0; INPUT_BYTES],
            start: 0,
            end: 0,
            lent: 0,
            correlation: 0,
            heard: Instant::now(),
            empty: 0,
            read_bytes: usize::MAX,
        };
        let hello = HelloRequest {
            protocol_min: tramline_wire::PROTOCOL_MIN,
            protocol_max: tramline_wire::PROTOCOL_MAX,
            client_name: "tramline-bench",
            client_version: env!("CARGO_PKG_VERSION"),
            mechanism: "",
            auth: &[],
        };
        let mut bytes = Vec::new();
        hot.request(&mut bytes, Kind::Hello, 0, |out| hello.encode(out))?;
        hot.send_all(&bytes)?;
        hot.wait_frame()?;
        Ok(hot)
    }

    /// Appends a request's head (header and meta) to `out`; its payload of `payload_len` bytes is to follow. Returns its correlation.
    pub fn request(
        &mut self,
        out: &mut Vec<u8>,
        kind: Kind,
        payload_len: usize,
        meta: impl FnOnce(&mut Vec<u8>),
    ) -> Result<u64, BenchError> {
        self.correlation += 1;
        let start = frame::begin_request(out, kind, self.correlation);
        meta(out);
        frame::finish_frame(out, start, payload_len).map_err(|e| BenchError::Wrong(e.to_string()))?;
        Ok(self.correlation)
    }

    /// Sends as much as the kernel takes; 0 when it takes nothing now.
    pub fn send_some(&mut self, parts: &[IoSlice<'_>]) -> Result<usize, BenchError> {
        match self.socket.write_vectored(parts) {
            Ok(n) => Ok(n),
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(e) => Err(BenchError::Io("cannot send to the broker", e)),
        }
    }

    /// Sends all of a small request.
    pub fn send_all(&mut self, mut bytes: &[u8]) -> Result<(), BenchError> {
        while !bytes.is_empty() {
            match self.send_some(&[IoSlice::new(bytes)])? {
                0 => std::thread::yield_now(),
                n => bytes = &bytes[n..],
            }
        }
        Ok(())
    }

    /// The next frame if it is there, else `None` after a `sched_yield`. An error reply is an error.
    pub fn poll_frame(&mut self) -> Result<Option<Frame<'_>>, BenchError> {
        self.start += self.lent;
        self.lent = 0;
        let limits = Limits::PROTOCOL;
        let mut need = frame::HEADER_BYTES;
        loop {
            if self.end - self.start >= need {
                match frame::peek(&self.input[self.start..self.end], &limits).map_err(|e| BenchError::Wrong(e.to_string()))? {
                    Need::Whole(_, len) => {
                        self.lent = len;
                        break;
                    }
                    Need::More(bytes) => need = bytes,
                }
            }
            if !self.fill(need)? {
                self.idle()?;
                return Ok(None);
            }
        }
        self.heard = Instant::now();
        match frame::peek(&self.input[self.start..self.end], &limits) {
            Ok(Need::Whole(frame, _)) if frame.header.is_error() => Err(refusal(&frame)),
            Ok(Need::Whole(frame, _)) => Ok(Some(frame)),
            _ => Err(BenchError::Wrong("a frame changed under our eyes".to_owned())),
        }
    }

    /// The next frame.
    pub fn wait_frame(&mut self) -> Result<Frame<'_>, BenchError> {
        while self.poll_frame()?.is_none() {}
        // The frame found stays lent until the next poll, so it can be looked at again.
        match frame::peek(&self.input[self.start..self.end], &Limits::PROTOCOL) {
            Ok(Need::Whole(frame, _)) => Ok(frame),
            _ => Err(BenchError::Wrong("a frame changed under our eyes".to_owned())),
        }
    }

    /// Reads what is there; `false` when nothing is. `need` is the size of the frame (or the part of it) that is wanted.
    fn fill(&mut self, need: usize) -> Result<bool, BenchError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.start > 0 && self.input.len() - self.end < ROOM_BYTES.max(need.saturating_sub(self.end - self.start)) {
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.input.len() < need {
            // Bounded by the protocol's limits, and only after the meta's checksum was right.
            self.input.resize(need, 0);
        }
        let until = self.input.len().min(self.end.saturating_add(self.read_bytes));
        match self.socket.read(&mut self.input[self.end..until]) {
            Ok(0) => Err(BenchError::Broker("it closed the connection".to_owned())),
            Ok(n) => {
                self.end += n;
                Ok(true)
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(BenchError::Io("cannot receive from the broker", e)),
        }
    }

    fn idle(&mut self) -> Result<(), BenchError> {
        std::thread::yield_now();
        self.empty = self.empty.wrapping_add(1);
        // The clock is looked at rarely.
        if self.empty.is_multiple_of(1 << 14) && self.heard.elapsed() > PATIENCE {
            return Err(BenchError::Silent("a connection under load"));
        }
        Ok(())
    }
}

/// What an error reply says.
fn refusal(frame: &Frame<'_>) -> BenchError {
    match ErrorBody::decode(frame.meta) {
        Ok(body) => BenchError::Refused(body.code().unwrap_or(ErrorCode::Internal), body.message.to_owned()),
        Err(e) => BenchError::Wrong(format!("an unreadable error reply: {e}")),
    }
}
