//! One connection's receive buffer.
//!
//! ```text
//!   0 ........ start ######## unread ######## end ........ free ........ capacity
//! ```
//! Invariants: start <= end <= capacity; while a receive is armed the kernel writes into [end, capacity) and nothing here moves.
//!
//! Memory grows by doubling and only when it is full of bytes that have really arrived, never by a length that a peer declares. It
//! goes back to its first size after a streak of small receives, or when `sweep_idle` finds the connection idle.
//!
//! Why one plain receive, armed again after parsing, and not multishot with a ring of provided buffers. Measured (2 vCPU, kernel 6.18,
//! loopback, both ends spinning, each frame copied once into a block; p50 of the round trip, then the range of throughput over the
//! runs that other processes left alone; in the machine's slower phases all p50 are 1.5 times as long, plain sockets' too):
//!
//! | strategy | 64 B, depth 1 | 1 KiB, depth 1 | 64 KiB, depth 32 |
//! |---|---|---|---|
//! | non-blocking sockets at both ends | 6.5 us | | |
//! | plain, armed after parsing (this) | 7.2-7.3 us | 7.2-7.3 us | 4.7-5.3 GB/s |
//! | multishot, 16 KiB buffers | 7.2 us | 7.1-7.2 us | 4.9-6.5 GB/s, with a copy of nearly everything |
//! | multishot, 128 KiB buffers | | | 4.6-5.3 GB/s |
//! | plain, at most 16 or 32 KiB at a time | | | 2.1-2.8 GB/s |
//!
//! A tenth of a microsecond does not pay for what plain gives: frames that are contiguous without a copy, a pause per connection
//! (do not arm), memory that is counted per connection. The receive rides on the enter that carries the reply. Waiting for the socket
//! first (POLL_FIRST) when the last receive emptied it saves 0.15 us of CPU of a round trip.
//!
//! Room for three frames instead of two: 4.1 instead of 22 us of CPU for a frame of 64 KiB (a buffer that holds just less than two makes
//! every frame move once).
//!
//! Not here: the operations (`conns.rs`).

/// After so many receives in a row that would have fit into the first size, memory shrinks. Less makes a mixed load allocate.
const SMALL_STREAK: u32 = 256;

/// A peer that fills the buffer again and again gets room for so many of its frames, so that the cut-off piece of a frame, which has
/// to be moved to the front, is a small part of what a receive brings ...
const STREAM_FRAMES: usize = 3;
/// ... but not beyond this.
const STREAM_BYTES_MAX: usize = 512 << 10;

pub(super) struct RecvBuffer {
    memory: Box<[u8]>,
    start: usize,
    end: usize,
    small_streak: u32,
    /// The last receive filled all that was free.
    filled: bool,
    /// Something was received since the last sweep.
    pub(super) touched: bool,
}

/// What a buffer may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecvLimits {
    pub(super) first: usize,
    pub(super) max: usize,
}

impl RecvBuffer {
    pub(super) fn new() -> RecvBuffer {
        RecvBuffer { memory: Box::default(), start: 0, end: 0, small_streak: 0, filled: false, touched: false }
    }

    pub(super) fn capacity(&self) -> usize {
        self.memory.len()
    }
    pub(super) fn unread(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }
    pub(super) fn consume(&mut self, n: usize) {
        assert!(n <= self.end - self.start, "{n} bytes consumed of {}", self.end - self.start);
        self.start += n;
    }
    pub(super) fn discard(&mut self) {
        self.start = self.end;
    }

    /// Makes room for a receive whose frame will have `need_total` bytes from `start` on. False: more is asked for than the limit.
    pub(super) fn prepare(&mut self, need_total: usize, limits: RecvLimits) -> bool {
        let unread = self.end - self.start;
        if need_total > limits.max || unread >= limits.max {
            return false;
        }
        if unread == 0 {
            (self.start, self.end) = (0, 0);
            if self.memory.is_empty() || (self.small_streak >= SMALL_STREAK && self.memory.len() > limits.first) {
                self.shrink(limits);
            }
        }
        let fits = self.start + need_total.max(unread + 1) <= self.memory.len();
        // Also when little is to be moved and little is free: a small move is cheaper than one more receive.
        let cramped = self.memory.len() - self.end < self.memory.len() / 2 && unread <= self.memory.len() / 8;
        if self.start > 0 && (!fits || cramped) {
            self.memory.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, unread);
        }
        let stream = self.filled && self.memory.len() < STREAM_BYTES_MAX.min(limits.max) && self.memory.len() < need_total * STREAM_FRAMES;
        if self.end == self.memory.len() || stream {
            let grown = (self.memory.len() * 2).clamp(limits.first, limits.max);
            let mut memory = vec![0u8; grown].into_boxed_slice();
            memory[..unread].copy_from_slice(&self.memory[self.start..self.end]);
            self.memory = memory;
            (self.start, self.end) = (0, unread);
        }
        true
    }

    /// Where the next bytes go.
    pub(super) fn free(&mut self) -> &mut [u8] {
        &mut self.memory[self.end..]
    }

    pub(super) fn received(&mut self, n: usize, limits: RecvLimits) {
        assert!(n <= self.memory.len() - self.end, "the kernel wrote {n} bytes into {}", self.memory.len() - self.end);
        self.end += n;
        self.filled = self.end == self.memory.len();
        self.touched = true;
        self.small_streak = if self.end - self.start <= limits.first / 2 { self.small_streak.saturating_add(1) } else { 0 };
    }

    /// Down to the smallest size (the first one, doubled) that holds what is unread, with room for more. No receive may be armed.
    pub(super) fn fit(&mut self, limits: RecvLimits) {
        let unread = self.end - self.start;
        let mut wanted = limits.first;
        while wanted <= unread {
            wanted *= 2;
        }
        if wanted.min(limits.max) < self.memory.len() {
            let mut memory = vec![0u8; wanted.min(limits.max)].into_boxed_slice();
            memory[..unread].copy_from_slice(&self.memory[self.start..self.end]);
            self.memory = memory;
            (self.start, self.end) = (0, unread);
            (self.small_streak, self.filled) = (0, false);
        }
    }

    /// Back to the first size. Only with nothing unread.
    pub(super) fn shrink(&mut self, limits: RecvLimits) {
        assert_eq!(self.start, self.end, "shrinking a buffer with unread bytes");
        (self.start, self.end) = (0, 0);
        self.small_streak = 0;
        self.memory = vec![0u8; limits.first].into_boxed_slice();
    }
}
