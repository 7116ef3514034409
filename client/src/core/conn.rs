//! One connection: frames out, frames in, correlation ids.
//!
//! Invariants: correlation ids start at 1 and are never used twice on one connection; a frame above the limits is refused
//! by its header, before room is made for it; after [`Conn::peek`] failed the connection is unusable (its bytes have no
//! frame boundary any more) and its owner drops it.
//!
//! Not here: which replies are awaited (admin, producer and consumer each keep their own few).

use tramline_wire::frame::{self, Frame, FrameError, Limits, Need, OversizedFrame};
use tramline_wire::kind::Kind;

use super::{OutQueue, RecvBuf, SharedBytes};

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Conn {
    recv: RecvBuf,
    out: OutQueue,
    limits: Limits,
    /// Bytes in total that the frame at the front needs, as far as known. 0: nothing known.
    needed: usize,
    next_correlation: u64,
}

impl Conn {
    /// A connection whose receive buffer starts with `recv_bytes_first` and that accepts frames of `frame_bytes_max`.
    pub(crate) fn new(recv_bytes_first: usize, frame_bytes_max: u32) -> Conn {
        let limits = Limits { frame_bytes_max, ..Limits::PROTOCOL };
        Conn {
            recv: RecvBuf::new(recv_bytes_first, frame_bytes_max as usize + frame::HEADER_BYTES),
            out: OutQueue::default(),
            limits,
            needed: 0,
            next_correlation: 1,
        }
    }

    /// What is to be written.
    pub(crate) fn out(&self) -> &OutQueue {
        &self.out
    }

    /// What is to be written.
    pub(crate) fn out_mut(&mut self) -> &mut OutQueue {
        &mut self.out
    }

    /// Room for received bytes.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        self.recv.room(self.needed)
    }

    /// `count` bytes were put into the room.
    pub(crate) fn received(&mut self, count: usize) {
        self.recv.received(count);
    }

    /// Bytes of its receive buffer.
    #[cfg(test)]
    pub(crate) fn recv_bytes(&self) -> usize {
        self.recv.capacity()
    }

    /// An unused correlation id.
    pub(crate) fn next_correlation(&mut self) -> u64 {
        let correlation = self.next_correlation;
        self.next_correlation += 1;
        correlation
    }

    /// Queues a request without payload; returns its correlation.
    pub(crate) fn request(&mut self, kind: Kind, meta: impl FnOnce(&mut Vec<u8>)) -> Result<u64, OversizedFrame> {
        self.request_with(kind, meta, std::iter::empty())
    }

    /// Queues a request with the batches as its payload; returns its correlation. Nothing is queued on an error.
    pub(crate) fn request_with<'a>(
        &mut self,
        kind: Kind,
        meta: impl FnOnce(&mut Vec<u8>),
        payload: impl Iterator<Item = &'a SharedBytes> + Clone,
    ) -> Result<u64, OversizedFrame> {
        let correlation = self.next_correlation();
        let payload_len: usize = payload.clone().map(|batch| batch.len()).sum();
        let mut finished = Ok(0);
        self.out.append_with(|bytes| {
            let start = frame::begin_request(bytes, kind, correlation);
            meta(bytes);
            finished = frame::finish_frame(bytes, start, payload_len);
        });
        finished?;
        for batch in payload {
            self.out.append_shared(batch);
        }
        Ok(correlation)
    }

    /// The frame at the front, if it is whole, with the bytes to [`consume`](Self::consume) afterwards.
    #[inline]
    pub(crate) fn peek(&mut self) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
        let unread = self.recv.unread();
        if unread.is_empty() || unread.len() < self.needed {
            return Ok(None);
        }
        match frame::peek(unread, &self.limits)? {
            Need::More(needed) => {
                self.needed = needed;
                Ok(None)
            }
            Need::Whole(frame, length) => Ok(Some((frame, length))),
        }
    }

    /// The frame of `length` bytes at the front was read.
    #[inline]
    pub(crate) fn consume(&mut self, length: usize) {
        self.recv.consume(length);
        self.needed = 0;
    }

    /// Forgets all bytes: the socket below is gone. Correlation ids go on, so that nothing late can be mistaken.
    pub(crate) fn reset(&mut self) {
        self.recv.clear();
        self.out.clear();
        self.needed = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::IoSlice;
    use std::sync::Arc;

    fn carry(from: &mut Conn, to: &mut Conn, limit: usize) -> usize {
        let mut moved = 0;
        while moved < limit && !from.out().is_empty() {
            let mut slices = [IoSlice::new(&[]); crate::core::IOVECS_MAX];
            let count = from.out().io_slices(&mut slices);
            let room = to.room();
            let take = slices[..count].first().map_or(0, |slice| slice.len()).min(room.len()).min(limit - moved);
            room[..take].copy_from_slice(&slices[0][..take]);
            to.received(take);
            from.out_mut().advance(take);
            moved += take;
        }
        moved
    }

    #[test]
    fn a_frame_in_pieces_is_seen_once_it_is_whole() {
        let mut near = Conn::new(64, 1 << 20);
        let mut far = Conn::new(64, 1 << 20);
        let payload: Vec<SharedBytes> = vec![Arc::new(vec![7; 5000]), Arc::new(vec![9; 10])];
        let first = near.request_with(Kind::Produce, |meta| meta.extend_from_slice(b"meta"), payload.iter());
        let second = near.request(Kind::Ping, |_| {});
        assert_eq!((first, second), (Ok(1), Ok(2)));
        let mut seen = Vec::new();
        while !near.out().is_empty() {
            carry(&mut near, &mut far, 7);
            while let Some((frame, length)) = far.peek().expect("well-formed") {
                seen.push((frame.header.correlation, frame.meta.to_vec(), frame.payload.len()));
                far.consume(length);
            }
        }
        assert_eq!(seen, [(1, b"meta".to_vec(), 5010), (2, Vec::new(), 0)]);
    }

    #[test]
    fn a_frame_above_the_limit_is_refused_by_its_header() {
        let mut near = Conn::new(64, 1 << 20);
        let mut far = Conn::new(64, 1000);
        near.request_with(Kind::Produce, |_| {}, [Arc::new(vec![0; 4000])].iter()).expect("within the protocol");
        carry(&mut near, &mut far, 40);
        assert!(matches!(far.peek(), Err(FrameError::FrameTooLarge { bytes: 4000, max: 1000 })));
        assert!(far.recv.capacity() <= 1032);
    }

    #[test]
    fn an_oversized_request_leaves_the_queue_as_it_was() {
        let mut near = Conn::new(64, 1 << 20);
        let refused = near.request(Kind::CreateTopic, |meta| meta.resize(meta.len() + (1 << 20) + 1, 0));
        assert!(refused.is_err());
        assert!(near.out().is_empty());
    }
}
