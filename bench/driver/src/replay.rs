//! Consumers that replay old data, several of them polled in turn by one thread.
//!
//! Job: each reads one partition from its place to the end and from the beginning again, in streams with credit always ahead of what was read,
//! as fast as the broker sends. Offsets have to follow one another.
//!
//! Invariants: `poll` never blocks and takes at most one frame; what comes for a stream that was left is thrown away.

use crate::error::BenchError;
use crate::fetch::{CREDIT_BYTES, take_frame};
use crate::hot_socket::HotSocket;
use crate::target::Target;
use std::time::{Duration, Instant};
use tramline_wire::fetch::{FetchCancelRequest, FetchCreditRequest, FetchEntry, FetchMode, FetchRequestWriter};
use tramline_wire::kind::Kind;

/// Consumers at once.
pub const CONSUMERS: u64 = 4;

/// One consumer.
#[derive(Debug)]
struct Consumer {
    socket: HotSocket,
    uid: u64,
    end: u64,
    next: u64,
    stream: u64,
    /// Credit used and not granted again.
    used: u32,
}

/// All of them.
#[derive(Debug)]
pub struct Replay {
    consumers: Vec<Consumer>,
    turn: usize,
    /// Bytes of batches that have come so far.
    pub bytes: u64,
}

impl Replay {
    /// Begins to read the target's first partition up to offset `end`, which nobody writes any more, from as many evenly spaced places as there are consumers.
    pub fn begin(target: &Target, end: u64) -> Result<Replay, BenchError> {
        let consumers = (0..CONSUMERS).map(|number| {
            let socket = HotSocket::connect_one_of_many(&target.address)?;
            let mut consumer = Consumer { socket, uid: target.uids[0], end, next: end / CONSUMERS * number, stream: 0, used: 0 };
            consumer.open()?;
            Ok(consumer)
        });
        Ok(Replay { consumers: consumers.collect::<Result<_, BenchError>>()?, turn: 0, bytes: 0 })
    }

    /// Looks for one frame of one consumer, the next one's with each call.
    pub fn poll(&mut self) -> Result<(), BenchError> {
        self.turn = (self.turn + 1) % self.consumers.len();
        self.bytes += self.consumers[self.turn].poll()?;
        Ok(())
    }

    /// 10^9 bytes per second over `time`, with nothing beside it; the first fifth warms up and does not count.
    pub fn alone(&mut self, time: Duration) -> Result<f64, BenchError> {
        let start = Instant::now();
        while start.elapsed() < time / 5 {
            self.poll()?;
        }
        let (from, bytes) = (Instant::now(), self.bytes);
        while start.elapsed() < time {
            self.poll()?;
        }
        Ok((self.bytes - bytes) as f64 / from.elapsed().as_secs_f64() / 1e9)
    }
}

impl Consumer {
    fn open(&mut self) -> Result<(), BenchError> {
        let mut request = Vec::new();
        let entry = FetchEntry { partition_uid: self.uid, offset: self.next, max_bytes: 1 << 20 };
        self.stream = self.socket.request(&mut request, Kind::Fetch, 0, |out| {
            let mut writer = FetchRequestWriter::begin(out, FetchMode::Streaming, 500, 1, CREDIT_BYTES);
            writer.push(out, &entry);
            writer.finish(out);
        })?;
        self.used = 0;
        self.socket.send_all(&request)
    }

    fn poll(&mut self) -> Result<u64, BenchError> {
        let Some(frame) = self.socket.poll_frame()? else { return Ok(0) };
        if frame.header.correlation != self.stream {
            return Ok(0);
        }
        if !frame.header.has_more() {
            return Err(BenchError::Wrong("the stream ended before the partition did".to_owned()));
        }
        self.next = take_frame(&frame, self.uid, self.next, false)?;
        let bytes = frame.payload.len() as u32;
        self.used += bytes;
        let mut request = Vec::new();
        if self.next >= self.end {
            let cancel = FetchCancelRequest { stream: self.stream };
            self.socket.request(&mut request, Kind::FetchCancel, 0, |out| cancel.encode(out))?;
            self.socket.send_all(&request)?;
            self.next = 0;
            self.open()?;
        } else if self.used >= CREDIT_BYTES / 2 {
            let credit = FetchCreditRequest { stream: self.stream, credit_bytes: self.used };
            self.socket.request(&mut request, Kind::FetchCredit, 0, |out| credit.encode(out))?;
            self.socket.send_all(&request)?;
            self.used = 0;
        }
        Ok(u64::from(bytes))
    }
}
