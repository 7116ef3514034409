//! Bytes on their way to a socket: frame heads copied together, batches by reference.
//!
//! A batch is shared (`Arc<Vec<u8>>`) between this queue and the producer, which may have to send it again; it is never
//! copied here. Small parts are appended to an owned tail buffer, so that a request of many small batches is still a few
//! iovecs. `queued` and `written` count bytes since the connection opened: a request whose end is at or below `written`
//! has left this process, one whose start is at or above it was never seen by the other side.
//!
//! In steady state nothing is allocated: owned buffers go back to a spare list.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

/// A batch ready for the wire, shared between the queue and whoever may send it again.
pub type SharedBytes = Arc<Vec<u8>>;

/// Parts below this are copied next to the head: below some 2 KiB a copy costs less than one more iovec.
const COPY_BYTES_MAX: usize = 2048;

/// Most iovecs handed to one write.
pub const IOVECS_MAX: usize = 64;

#[derive(Debug)]
enum Part {
    Owned(Vec<u8>),
    Shared(SharedBytes),
}

impl Part {
    fn bytes(&self) -> &[u8] {
        match self {
            Part::Owned(bytes) => bytes,
            Part::Shared(bytes) => bytes,
        }
    }
}

/// See the module's page.
#[derive(Debug, Default)]
pub struct OutQueue {
    parts: VecDeque<Part>,
    /// Bytes of the first part that are written already.
    first_written: usize,
    spare: Vec<Vec<u8>>,
    queued: u64,
    written: u64,
}

impl OutQueue {
    /// Appends bytes through `fill`, which may only append.
    pub fn append_with(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        if !matches!(self.parts.back(), Some(Part::Owned(bytes)) if bytes.len() < 64 * 1024) {
            let mut bytes = self.spare.pop().unwrap_or_default();
            bytes.clear();
            self.parts.push_back(Part::Owned(bytes));
        }
        if let Some(Part::Owned(bytes)) = self.parts.back_mut() {
            let before = bytes.len();
            fill(bytes);
            assert!(bytes.len() >= before, "the out queue's tail was cut");
            self.queued += (bytes.len() - before) as u64;
        }
    }

    /// Appends a batch by reference (or a copy, when it is small).
    pub fn append_shared(&mut self, batch: &SharedBytes) {
        if batch.len() < COPY_BYTES_MAX {
            self.append_with(|bytes| bytes.extend_from_slice(batch));
        } else {
            self.queued += batch.len() as u64;
            self.parts.push_back(Part::Shared(Arc::clone(batch)));
        }
    }

    /// Whether everything was written.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queued == self.written
    }

    /// Bytes queued since the connection opened.
    pub fn queued(&self) -> u64 {
        self.queued
    }

    /// Bytes written since the connection opened.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Fills `slices` with what is to be written next; returns how many are used.
    pub fn io_slices<'a>(&'a self, slices: &mut [IoSlice<'a>; IOVECS_MAX]) -> usize {
        let mut count = 0;
        let mut skip = self.first_written;
        for part in &self.parts {
            let bytes = &part.bytes()[skip..];
            skip = 0;
            if bytes.is_empty() {
                continue;
            }
            slices[count] = IoSlice::new(bytes);
            count += 1;
            if count == IOVECS_MAX {
                break;
            }
        }
        count
    }

    /// `count` bytes of what [`io_slices`](Self::io_slices) gave were written.
    pub fn advance(&mut self, mut count: usize) {
        assert!(self.written + count as u64 <= self.queued, "wrote {count} bytes, only {} were queued", self.queued - self.written);
        self.written += count as u64;
        while let Some(first) = self.parts.front() {
            let left = first.bytes().len() - self.first_written;
            if count < left {
                self.first_written += count;
                return;
            }
            count -= left;
            self.first_written = 0;
            if let Some(Part::Owned(bytes)) = self.parts.pop_front()
                && self.spare.len() < 4
                && bytes.capacity() <= 1 << 20
            {
                self.spare.push(bytes);
            }
        }
    }

    /// Forgets everything: the connection is gone. The counters start again.
    pub fn clear(&mut self) {
        self.parts.clear();
        self.first_written = 0;
        self.queued = 0;
        self.written = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_the_sizes_of_parts_and_writes_the_bytes_keep_their_order(
            parts in proptest::collection::vec((0usize..5000, any::<bool>()), 1..150),
            writes in proptest::collection::vec(1usize..9000, 1..40),
        ) {
            let mut queue = OutQueue::default();
            let mut expected = Vec::new();
            let mut got = Vec::new();
            let mut next = 0u32;
            let mut writes = writes.iter().cycle();
            for (length, shared) in parts {
                let bytes: Vec<u8> = (0..length).map(|_| { next += 1; (next % 253) as u8 }).collect();
                expected.extend_from_slice(&bytes);
                if shared {
                    queue.append_shared(&Arc::new(bytes));
                } else {
                    queue.append_with(|out| out.extend_from_slice(&bytes));
                }
                write_some(&mut queue, *writes.next().unwrap_or(&1), &mut got);
            }
            while !queue.is_empty() {
                write_some(&mut queue, 7000, &mut got);
            }
            prop_assert_eq!(queue.queued(), expected.len() as u64);
            prop_assert_eq!(got, expected);
        }
    }

    fn write_some(queue: &mut OutQueue, limit: usize, got: &mut Vec<u8>) {
        let mut slices = [IoSlice::new(&[]); IOVECS_MAX];
        let count = queue.io_slices(&mut slices);
        let mut written = 0;
        for slice in &slices[..count] {
            let take = slice.len().min(limit - written);
            got.extend_from_slice(&slice[..take]);
            written += take;
        }
        queue.advance(written);
    }
}
