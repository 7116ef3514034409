//! One direction of a connection between two nodes, from the queue of the one edge to the buffer of the other.
//!
//! ```text
//!  queue ----------> on_way ------------> arrived ----------> the other edge's buffer
//!  the sender's      the network; the     the receiver's      (`peers.rs`)
//!  edge has it       first `lost` of it   kernel has it
//!                    have to be sent again
//! ```
//! Invariants: what is put in comes out in that order and once, up to some point. What has left the queue and was not read yet is at most
//! `WINDOW_BYTES`.
//!
//! Not here: times, and what becomes of it at a cut or the end of a process (`peers.rs`, `peer_faults.rs`).

use std::collections::VecDeque;

/// What the kernels at both ends have of one direction, at most: their buffers for sending and receiving.
pub(super) const WINDOW_BYTES: usize = 256 << 10;
/// What travels as one piece, at most: several of them make a large frame, so that it can be cut in the middle.
const SEGMENT_BYTES_MAX: usize = 64 << 10;
/// What a core may have waiting in one connection: a window of 8 MiB, one frame of 16 MiB, and as much again. Who queues more does not look at
/// what it is told with `Sent`.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// What travels.
pub(super) enum Segment {
    /// The connection stands; the accepting process is told now.
    Open,
    Bytes(Vec<u8>),
    /// Nothing comes any more: it was closed, reset or given up.
    End,
}

#[derive(Default)]
pub(super) struct Pipe {
    queue: VecDeque<Vec<u8>>,
    /// So many bytes of the first frame of the queue have gone out.
    gone_of_first: usize,
    queued_bytes: usize,
    on_way: VecDeque<Segment>,
    /// So many of `on_way`, from its front, were lost. What comes behind them is lost too, as far as anybody can see.
    lost: usize,
    pub(super) arrived: VecDeque<Segment>,
    /// Bytes that have left the queue and were not read, as far as the sender knows.
    unread_bytes: usize,
    /// Bytes that were read, and the word of it was lost.
    untold_bytes: usize,
    /// When the last segment arrives.
    pub(super) last_us: u64,
    /// Since when the sender's kernel sends again and again.
    pub(super) stuck_since_us: Option<u64>,
    /// The sender's kernel sends nothing again: its process was killed, its machine lost power, or it gave up.
    pub(super) is_abandoned: bool,
    /// The sender is going to be told what has gone out.
    pub(super) is_sent_planned: bool,
}

impl Pipe {
    pub(super) fn push(&mut self, frame: Vec<u8>) {
        self.queued_bytes += frame.len();
        assert!(self.queued_bytes <= QUEUE_BYTES_MAX, "{} bytes wait in a connection between nodes", self.queued_bytes);
        self.queue.push_back(frame);
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// What goes out next, if there is room for it.
    pub(super) fn pop_segment(&mut self) -> Option<Vec<u8>> {
        let first = self.queue.front()?;
        let room = WINDOW_BYTES - self.unread_bytes;
        let len = (first.len() - self.gone_of_first).min(SEGMENT_BYTES_MAX).min(room);
        if len == 0 {
            return None;
        }
        self.queued_bytes -= len;
        self.unread_bytes += len;
        let (from, end) = (self.gone_of_first, self.gone_of_first + len);
        if end < first.len() {
            self.gone_of_first = end;
            return Some(first[from..end].to_vec());
        }
        self.gone_of_first = 0;
        let whole = self.queue.pop_front()?;
        Some(if from == 0 { whole } else { whole[from..].to_vec() })
    }

    /// The sender's process forgets what has not gone out.
    pub(super) fn forget_queue(&mut self) {
        self.queue.clear();
        (self.gone_of_first, self.queued_bytes) = (0, 0);
    }

    pub(super) fn put_on_way(&mut self, segment: Segment) {
        self.on_way.push_back(segment);
    }

    /// A segment would arrive now. `None`: it is lost, or one before it is.
    pub(super) fn arrive(&mut self, is_lost: bool) -> Option<Segment> {
        if is_lost || self.lost > 0 {
            self.lost += 1;
            assert!(self.lost <= self.on_way.len(), "{} of {} segments are lost", self.lost, self.on_way.len());
            return None;
        }
        Some(self.on_way.pop_front().expect("each segment arrives once"))
    }

    pub(super) fn has_lost(&self) -> bool {
        self.lost > 0
    }

    /// What was lost comes after all.
    pub(super) fn take_lost(&mut self) -> impl Iterator<Item = Segment> {
        let lost = std::mem::take(&mut self.lost);
        self.on_way.drain(..lost)
    }

    /// So many bytes were read by the process at the other end; the word of it comes back at once, or is lost.
    pub(super) fn on_read(&mut self, bytes: usize, is_told: bool) {
        match is_told {
            true => self.unread_bytes -= bytes,
            false => self.untold_bytes += bytes,
        }
    }

    /// What was read and not told is told.
    pub(super) fn tell_read(&mut self) {
        self.unread_bytes -= std::mem::take(&mut self.untold_bytes);
    }

    /// Bytes that have left the queue and were not read.
    #[cfg(test)]
    pub(super) fn unread_bytes(&self) -> usize {
        self.unread_bytes - self.untold_bytes
    }
}
