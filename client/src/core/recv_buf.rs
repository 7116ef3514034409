//! Bytes that came from a socket and wait to be read as frames.
//!
//! One flat buffer, `[start, end)` unread. It is made when there is something to receive and given back by `clear`, so a lane
//! without a connection costs none. It grows by doubling, only when it is full, and never beyond the frame limit plus one
//! header: a peer that declares a large frame costs what it really sends. Frames are read in place; what is left of the last,
//! incomplete one is moved to the front when the room behind it runs out (at most once per fill).
//!
//! Not here: what a frame looks like (the caller says how many bytes it wants).

/// See the module's page. Invariant: `start <= end <= bytes.len() <= bytes_max`.
#[derive(Debug)]
pub struct RecvBuf {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    bytes_first: usize,
    bytes_max: usize,
}

impl RecvBuf {
    /// An empty buffer that begins with `bytes_first` bytes and may grow to `bytes_max`.
    pub fn new(bytes_first: usize, bytes_max: usize) -> RecvBuf {
        let bytes_max = bytes_max.max(64);
        RecvBuf { bytes: Vec::new(), start: 0, end: 0, bytes_first: bytes_first.clamp(64, bytes_max), bytes_max }
    }

    /// The unread bytes.
    #[inline]
    pub fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Marks the first `count` unread bytes as read.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.end - self.start, "consumed {count} of {} unread bytes", self.end - self.start);
        self.start += count;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Room to receive into; never empty unless the buffer is full at its maximum. `wanted_total` is the length of the frame
    /// being received as far as known (0: unknown), and only decides whether moving or growing is worth it.
    pub fn room(&mut self, wanted_total: usize) -> &mut [u8] {
        let unread = self.end - self.start;
        let room_behind = self.bytes.len() - self.end;
        let missing = wanted_total.saturating_sub(unread);
        // A quarter of the buffer is worth a system call; less, and the rest is moved to the front first.
        if self.start > 0 && (room_behind < missing || room_behind < self.bytes.len() / 4) {
            self.bytes.copy_within(self.start..self.end, 0);
            self.start = 0;
            self.end = unread;
        }
        if self.end == self.bytes.len() && self.bytes.len() < self.bytes_max {
            let grown = (self.bytes.len() * 2).clamp(self.bytes_first, self.bytes_max);
            self.bytes.resize(grown, 0);
        }
        &mut self.bytes[self.end..]
    }

    /// `count` bytes were received into [`room`](Self::room).
    pub fn received(&mut self, count: usize) {
        assert!(count <= self.bytes.len() - self.end, "received {count} bytes into {} of room", self.bytes.len() - self.end);
        self.end += count;
    }

    /// Drops what is unread, and the memory: the connection is gone.
    pub fn clear(&mut self) {
        *self = RecvBuf { bytes: Vec::new(), start: 0, end: 0, ..*self };
    }

    /// Bytes allocated.
    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_grows_only_when_full_and_never_past_the_maximum() {
        let mut buf = RecvBuf::new(64, 200);
        assert_eq!(buf.room(1 << 30).len(), 64);
        buf.received(64);
        assert_eq!(buf.room(1 << 30).len(), 64);
        assert_eq!(buf.capacity(), 128);
        buf.received(64);
        assert_eq!(buf.room(1 << 30).len(), 72);
        buf.received(72);
        assert_eq!(buf.room(1 << 30).len(), 0);
        assert_eq!(buf.capacity(), 200);
    }

    #[test]
    fn there_is_memory_only_while_there_is_something_to_receive() {
        let mut buf = RecvBuf::new(64, 200);
        assert_eq!((buf.capacity(), buf.unread().len()), (0, 0));
        buf.room(0);
        buf.received(64);
        buf.room(0);
        assert_eq!(buf.capacity(), 128);
        buf.clear();
        assert_eq!((buf.capacity(), buf.unread().len()), (0, 0));
        assert_eq!(buf.room(0).len(), 64);
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order(steps in proptest::collection::vec((0usize..90, 0usize..90), 1..200)) {
            let mut buf = RecvBuf::new(64, 512);
            let (mut written, mut read) = (0u64, 0u64);
            for (put, take) in steps {
                let room = buf.room(put);
                let count = put.min(room.len());
                for byte in &mut room[..count] {
                    *byte = (written % 251) as u8;
                    written += 1;
                }
                buf.received(count);
                let count = take.min(buf.unread().len());
                for byte in &buf.unread()[..count] {
                    prop_assert_eq!(*byte, (read % 251) as u8);
                    read += 1;
                }
                buf.consume(count);
                prop_assert_eq!(buf.unread().len() as u64, written - read);
            }
        }
    }
}
