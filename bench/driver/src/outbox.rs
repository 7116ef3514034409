//! Produce requests on their way out: each is a head of its own, and one of a few batches that are sent again and again.
//!
//! Invariants: frames go out in the order in which they were made; a batch is not copied.
//!
//! Not here: what the replies mean for whoever sends (`produce.rs`, `queue_cycle.rs`).

use crate::error::BenchError;
use crate::hot_socket::HotSocket;
use std::collections::VecDeque;
use std::io::IoSlice;
use tramline_wire::frame::Frame;
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::produce::{ProduceEntry, ProduceReply, ProduceRequestWriter, ProduceResult};

/// How long the broker has for a batch, in milliseconds.
const TIMEOUT_MS: u32 = 10_000;
/// Frames of one vectored write, at most.
const FRAMES_PER_WRITE: usize = 32;

/// The meta of a request with one batch of `batch_len` bytes.
pub fn produce_meta(out: &mut Vec<u8>, level: Level, partition_uid: u64, batch_len: usize) {
    let mut writer = ProduceRequestWriter::begin(out, level, TIMEOUT_MS);
    writer.push(out, &ProduceEntry { partition_uid, batch_len: batch_len as u32 });
    writer.finish(out);
}

/// Appends the head of a request with one batch, at level `durable`; answers its correlation.
pub fn produce_head(socket: &mut HotSocket, out: &mut Vec<u8>, partition_uid: u64, batch_len: usize) -> Result<u64, BenchError> {
    socket.request(out, Kind::Produce, batch_len, |out| produce_meta(out, Level::Durable, partition_uid, batch_len))
}

/// The one result of a produce reply, which has to be there at `level`.
pub fn check_produced(frame: &Frame<'_>, level: Level) -> Result<ProduceResult, BenchError> {
    let reply = ProduceReply::decode(frame.meta).map_err(|e| BenchError::Wrong(e.to_string()))?;
    let result = reply.results.iter().next().ok_or_else(|| BenchError::Wrong("a produce reply without a result".to_owned()))?;
    if !result.error.is_ok() {
        return Err(BenchError::Refused(result.error, format!("a batch for partition {}", result.partition_uid)));
    }
    if reply.level_reached < level {
        return Err(BenchError::Wrong(format!("a batch was acknowledged at level {} only", reply.level_reached)));
    }
    Ok(result)
}

/// One frame.
#[derive(Debug)]
struct Outgoing {
    head: Vec<u8>,
    batch: usize,
    /// Bytes of head and batch that the kernel has.
    sent: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Outbox {
    batches: Vec<Vec<u8>>,
    frames: VecDeque<Outgoing>,
    spare_heads: Vec<Vec<u8>>,
    frames_per_write: usize,
}

impl Outbox {
    /// For these batches, with about `write_bytes` in one vectored write.
    pub fn new(batches: Vec<Vec<u8>>, write_bytes: usize) -> Outbox {
        let frames_per_write = (write_bytes / batches[0].len()).clamp(1, FRAMES_PER_WRITE);
        Outbox { batches, frames: VecDeque::new(), spare_heads: Vec::new(), frames_per_write }
    }

    /// Bytes of the `number`th batch; they are taken in turn.
    pub fn batch_len(&self, number: usize) -> usize {
        self.batches[number % self.batches.len()].len()
    }

    /// Makes a request with the `number`th batch; answers its correlation.
    pub fn push(&mut self, socket: &mut HotSocket, partition_uid: u64, number: usize) -> Result<u64, BenchError> {
        let batch = number % self.batches.len();
        let mut head = self.spare_heads.pop().unwrap_or_default();
        head.clear();
        let correlation = produce_head(socket, &mut head, partition_uid, self.batches[batch].len())?;
        self.frames.push_back(Outgoing { head, batch, sent: 0 });
        Ok(correlation)
    }

    /// Hands the kernel as much as it takes.
    pub fn send(&mut self, socket: &mut HotSocket) -> Result<(), BenchError> {
        while !self.frames.is_empty() {
            let mut parts = [IoSlice::new(&[]); 2 * FRAMES_PER_WRITE];
            let mut used = 0;
            for frame in self.frames.iter().take(self.frames_per_write) {
                let batch = &self.batches[frame.batch];
                if frame.sent < frame.head.len() {
                    parts[used] = IoSlice::new(&frame.head[frame.sent..]);
                    used += 1;
                }
                parts[used] = IoSlice::new(&batch[frame.sent.saturating_sub(frame.head.len())..]);
                used += 1;
            }
            let sent = socket.send_some(&parts[..used])?;
            if sent == 0 {
                return Ok(());
            }
            self.on_sent(sent);
        }
        Ok(())
    }

    /// The kernel has taken so many bytes.
    fn on_sent(&mut self, mut sent: usize) {
        while sent > 0 {
            let Some(frame) = self.frames.front_mut() else { return };
            let left = frame.head.len() + self.batches[frame.batch].len() - frame.sent;
            if sent < left {
                frame.sent += sent;
                return;
            }
            sent -= left;
            self.spare_heads.extend(self.frames.pop_front().map(|frame| frame.head));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_gone_when_all_of_it_is_sent() {
        let mut outbox = Outbox::new(vec![vec![0; 10], vec![0; 20]], 100);
        for batch in 0..2 {
            outbox.frames.push_back(Outgoing { head: vec![0; 5], batch, sent: 0 });
        }
        outbox.on_sent(14);
        assert_eq!((outbox.frames.len(), outbox.frames[0].sent), (2, 14));
        outbox.on_sent(1 + 7);
        assert_eq!((outbox.frames.len(), outbox.frames[0].sent, outbox.spare_heads.len()), (1, 7, 1));
        outbox.on_sent(18);
        assert!(outbox.frames.is_empty() && outbox.spare_heads.len() == 2);
    }
}
