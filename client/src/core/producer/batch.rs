//! Batches of a producer: open (taking records), sealed (bytes, waiting or in flight), done (a result to tell).
//!
//! Their buffers go round in a pool, so that a warm producer allocates nothing per record, and next to nothing per batch.

use std::sync::Arc;

use tramline_wire::batch::{BatchBuilder, Limits, ProducerMark};
use tramline_wire::level::Level;

use super::sequence::Marked;
use crate::core::SharedBytes;
use crate::core::codec::{CodecError, Compressor};
use crate::error::Error;

/// A batch that takes records.
#[derive(Debug)]
pub(crate) struct Open {
    pub builder: BatchBuilder,
    /// The caller's mark of each record, in order.
    pub tags: Vec<u64>,
    /// When the first record came, monotonic microseconds.
    pub opened_us: u64,
    /// The largest batch that its builder made, so what it has room for.
    largest_bytes: usize,
}

impl Open {
    /// What it takes while it waits for its next use. A builder's buffers may have room for twice of what they held; that is not counted.
    fn kept_bytes(&self) -> usize {
        self.largest_bytes + tags_bytes(&self.tags)
    }
}

fn tags_bytes(tags: &Vec<u64>) -> usize {
    tags.capacity() * size_of::<u64>()
}

/// The mark of an idempotent producer in a batch's bytes, which the body's checksum covers: both are put in when the batch first goes into a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// Not yet, or not any more: the bytes cannot be sent.
    Missing,
    /// Not an idempotent producer's.
    Plain,
    /// With this mark.
    Marked(Marked),
}

impl Stamp {
    /// What stands in the bytes.
    pub(crate) fn producer_mark(&self) -> ProducerMark {
        match self {
            Stamp::Marked(marked) => marked.mark,
            Stamp::Missing | Stamp::Plain => ProducerMark::default(),
        }
    }
}

/// How far apart the places of two batches are: a piece has its batch's place plus the number of its first record, which is below this.
pub(crate) const SEQ_STEP: u64 = tramline_wire::batch::RECORDS_MAX as u64 + 1;

/// A batch that is closed: ready for the wire but for its stamp.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub bytes: SharedBytes,
    pub tags: Vec<u64>,
    /// Index of its partition in the core.
    pub part: u32,
    /// The partition's uid as of the newest request with it: the answer has to name it. 0: not sent yet.
    pub sent_uid: u64,
    /// Place of this batch within its partition and producer: the order to keep. Batches are [`SEQ_STEP`] apart, so that pieces find a
    /// place in between.
    pub seq: u64,
    /// When its time is over, monotonic microseconds.
    pub deadline_us: u64,
    /// What it counts against `buffer_bytes` (its uncompressed size).
    pub held_bytes: usize,
    pub stamp: Stamp,
    /// When the first byte of its first request went to the socket, monotonic microseconds. Set once, whatever is sent again.
    pub first_sent_us: Option<u64>,
    /// The broker refused it for its size, or for that of a record in it: it goes on in pieces (`cut`).
    pub is_too_large: bool,
}

impl Sealed {
    pub(crate) fn is_marked(&self) -> bool {
        matches!(self.stamp, Stamp::Marked(_))
    }

    /// Whether it may be stored although nobody said so.
    pub(crate) fn is_in_doubt(&self) -> bool {
        matches!(self.stamp, Stamp::Marked(Marked { in_doubt: true, .. }))
    }
}

/// A batch whose fate is known, until the caller has drained it.
#[derive(Debug)]
pub(crate) struct Done {
    pub tags: Vec<u64>,
    pub part: u32,
    /// Offset of the first record, when the broker told it.
    pub base_offset: Option<u64>,
    pub level: Level,
    pub error: Option<Arc<Error>>,
    pub first_sent_us: Option<u64>,
}

/// Buffers to use again: at most so many of each kind. In steady state far fewer are free at a time.
const KEPT_MAX: usize = 256;

/// Buffers to use again. What is above two batches is let go, as one large record per buffer would else stay for ever; all together take no
/// more than the producer may hold.
#[derive(Debug)]
pub(crate) struct Pool {
    limits: Limits,
    opens: Vec<Open>,
    bytes: Vec<SharedBytes>,
    tags: Vec<Vec<u64>>,
    /// Largest buffer that is kept.
    buffer_bytes_max: usize,
    /// What is kept, and how much that may be.
    kept_bytes: usize,
    kept_bytes_max: usize,
}

impl Pool {
    pub(crate) fn new(limits: Limits, batch_bytes: usize, kept_bytes_max: usize) -> Pool {
        Pool {
            limits,
            opens: Vec::new(),
            bytes: Vec::new(),
            tags: Vec::new(),
            buffer_bytes_max: batch_bytes.saturating_mul(2),
            kept_bytes: 0,
            kept_bytes_max,
        }
    }

    /// Bytes of the buffers that are kept.
    #[cfg(test)]
    pub(crate) fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// Whether a buffer is kept, of which there are `count` already.
    fn keeps(&mut self, count: usize, bytes: usize) -> bool {
        let keeps = count < KEPT_MAX && bytes <= self.buffer_bytes_max && self.kept_bytes + bytes <= self.kept_bytes_max;
        self.kept_bytes += if keeps { bytes } else { 0 };
        keeps
    }

    fn take_tags(&mut self) -> Vec<u64> {
        let tags = self.tags.pop().unwrap_or_default();
        self.kept_bytes -= tags_bytes(&tags);
        tags
    }

    /// An empty open batch.
    pub(crate) fn open(&mut self, now_us: u64) -> Open {
        let mut open = match self.opens.pop() {
            Some(open) => {
                self.kept_bytes -= open.kept_bytes();
                open
            }
            None => Open { builder: BatchBuilder::new(self.limits), tags: self.take_tags(), opened_us: 0, largest_bytes: 0 },
        };
        open.opened_us = now_us;
        open
    }

    /// Takes an open batch back that is empty.
    pub(crate) fn put_open(&mut self, mut open: Open) {
        open.builder.clear();
        open.tags.clear();
        if self.keeps(self.opens.len(), open.kept_bytes()) {
            self.opens.push(open);
        }
    }

    /// Turns an open batch into bytes. If compressing fails, the batch goes uncompressed: the codec is an economy.
    pub(crate) fn seal(&mut self, mut open: Open, compressor: &mut Compressor, part: u32, seq: u64, timeout_us: u64) -> Sealed {
        let held_bytes = open.builder.batch_bytes();
        open.largest_bytes = open.largest_bytes.max(held_bytes);
        let mut bytes = self.bytes.pop().unwrap_or_default();
        self.kept_bytes -= bytes.capacity();
        if Arc::get_mut(&mut bytes).is_none() {
            bytes = SharedBytes::default();
        }
        if let Some(out) = Arc::get_mut(&mut bytes) {
            out.clear();
            let codec = compressor.codec();
            let sealed: Result<usize, CodecError> =
                open.builder.finish_unmarked(out, codec, |values, out| compressor.compress(values, out));
            if sealed.is_err() {
                open.builder.finish_plain(out, ProducerMark::default());
            }
        }
        let tags = std::mem::replace(&mut open.tags, self.take_tags());
        let deadline_us = open.opened_us.saturating_add(timeout_us);
        self.put_open(open);
        Sealed {
            bytes,
            tags,
            part,
            sent_uid: 0,
            seq,
            deadline_us,
            held_bytes,
            stamp: Stamp::Missing,
            first_sent_us: None,
            is_too_large: false,
        }
    }

    /// Takes a batch's bytes back.
    pub(crate) fn put_bytes(&mut self, bytes: SharedBytes) {
        if self.keeps(self.bytes.len(), bytes.capacity()) {
            self.bytes.push(bytes);
        }
    }

    /// Takes tags back.
    pub(crate) fn put_tags(&mut self, mut tags: Vec<u64>) {
        tags.clear();
        if self.keeps(self.tags.len(), tags_bytes(&tags)) {
            self.tags.push(tags);
        }
    }
}
