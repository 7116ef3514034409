//! One connection's send queue.
//!
//! Two halves: `filling` takes what the loop sends; `flying` is with the kernel (or partly sent) and does not move until it is empty,
//! then they change places. A half is a buffer of copied bytes (heads, small parts) and a list of pieces in order: ranges of that
//! buffer, or handles of big parts.
//!
//! Invariants: one operation in flight; `flying.copied` and the vectors do not change while it is; a part's handle is dropped as soon
//! as its last byte was taken by the kernel, not before.
//!
//! SEND for one piece and SENDMSG for more cost the same (5.9 us of CPU for a round trip of 1 KiB with either), and so does
//! MSG_WAITALL, which spares a slow reader's connection the way through us after each partial send.
//!
//! Not here: when to send (`conns.rs`).

use crate::bytes::Bytes;
use io_uring::{opcode, squeue, types};
use std::collections::VecDeque;
use std::os::fd::RawFd;

/// Parts below this are copied next to the head. Copying 2 KiB takes less than 0.1 us and gives the slab its buffer back at once;
/// more copying would cost a big frame what the vectors are there to save.
const COPY_BELOW: usize = 2048;
/// A piece that keeps more than this many times its size alive is copied too: a slow reader must not hold whole blocks for small batches.
/// 64 copies what is below 16 KiB out of a block of 1 MiB. With 16, batches of 64 KiB were copied, and that was a fifth of the shard's time
/// while one consumer read the tail at 2.8 GB/s.
const PINS_AT_MOST: usize = 64;
/// Vectors of one operation at most.
const VECTORS_MAX: usize = 64;
/// An emptied copy buffer above this is given back.
const COPIED_KEEP_BYTES: usize = 256 << 10;
/// MSG_WAITALL lets the kernel go on after a partial send by itself instead of coming back to us.
const FLAGS: libc::c_int = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;

enum Piece {
    /// A range of the half's copied bytes.
    Copied {
        start: usize,
        end: usize,
    },
    Part(Bytes),
}

#[derive(Default)]
struct Half {
    copied: Vec<u8>,
    pieces: VecDeque<Piece>,
}

impl Half {
    fn copy(&mut self, bytes: &[u8]) {
        let start = self.copied.len();
        self.copied.extend_from_slice(bytes);
        match self.pieces.back_mut() {
            Some(Piece::Copied { end, .. }) if *end == start => *end = self.copied.len(),
            _ => self.pieces.push_back(Piece::Copied { start, end: self.copied.len() }),
        }
    }

    fn piece(&self, index: usize) -> Option<&[u8]> {
        self.pieces.get(index).map(|piece| match piece {
            Piece::Copied { start, end } => &self.copied[*start..*end],
            Piece::Part(bytes) => bytes.as_slice(),
        })
    }

    fn clear(&mut self) {
        self.pieces.clear();
        self.copied.clear();
        if self.copied.capacity() > COPIED_KEEP_BYTES {
            self.copied = Vec::new();
        }
    }
}

/// What a SENDMSG points to. Boxed: the kernel may read it until the operation is back.
struct Vectors {
    message: libc::msghdr,
    list: [libc::iovec; VECTORS_MAX],
}

#[derive(Default)]
pub(super) struct SendQueue {
    filling: Half,
    flying: Half,
    /// Bytes of the first piece of `flying` that have gone out.
    piece_sent: usize,
    /// Bytes of both halves that have not gone out.
    queued_bytes: usize,
    vectors: Option<Box<Vectors>>,
}

impl SendQueue {
    pub(super) fn push(&mut self, head: &[u8], parts: &[Bytes]) {
        self.queued_bytes += head.len() + parts.iter().map(Bytes::len).sum::<usize>();
        if !head.is_empty() {
            self.filling.copy(head);
        }
        for part in parts.iter().filter(|p| !p.is_empty()) {
            if part.len() < COPY_BELOW || part.footprint() > PINS_AT_MOST * part.len() {
                self.filling.copy(part.as_slice());
            } else {
                self.filling.pieces.push_back(Piece::Part(part.clone()));
            }
        }
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// The next operation, of at most `bytes_max`, and its bytes; `None` when nothing is queued. Must not be called while one is in flight. The
    /// entry points into `self`, whose heap memory stays where it is until `sent` is called.
    pub(super) fn next_operation(&mut self, fd: RawFd, bytes_max: usize) -> Option<(squeue::Entry, usize)> {
        if self.flying.pieces.is_empty() {
            self.flying.clear();
            std::mem::swap(&mut self.filling, &mut self.flying);
        }
        let first = &self.flying.piece(0)?[self.piece_sent..];
        if self.flying.pieces.len() == 1 {
            let len = first.len().min(bytes_max);
            return Some((opcode::Send::new(types::Fd(fd), first.as_ptr(), len as u32).flags(FLAGS).build(), len));
        }
        let vectors = self.vectors.get_or_insert_with(new_vectors);
        let (mut count, mut bytes) = (0, 0);
        while count < VECTORS_MAX && bytes < bytes_max {
            let Some(piece) = self.flying.piece(count) else { break };
            let piece = if count == 0 { &piece[self.piece_sent..] } else { piece };
            let len = piece.len().min(bytes_max - bytes);
            vectors.list[count] = libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: len };
            count += 1;
            bytes += len;
        }
        vectors.message.msg_iov = vectors.list.as_mut_ptr();
        vectors.message.msg_iovlen = count as _;
        Some((opcode::SendMsg::new(types::Fd(fd), &vectors.message).flags(FLAGS as u32).build(), bytes))
    }

    /// The kernel took `n` bytes; the operation is over.
    pub(super) fn sent(&mut self, n: usize) {
        assert!(n <= self.queued_bytes, "{n} bytes sent of {}", self.queued_bytes);
        self.queued_bytes -= n;
        let mut left = self.piece_sent + n;
        while let Some(piece) = self.flying.piece(0)
            && left >= piece.len()
        {
            left -= piece.len();
            self.flying.pieces.pop_front();
        }
        self.piece_sent = left;
    }
}

fn new_vectors() -> Box<Vectors> {
    // SAFETY: an all-zero msghdr is a message without name, control data and vectors.
    let message: libc::msghdr = unsafe { std::mem::zeroed() };
    Box::new(Vectors { message, list: [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; VECTORS_MAX] })
}
