//! Produce (kind 3): batches for several partitions, and what became of each.
//!
//! Invariants: the request's payload is its entries' batches in order, without gaps; at level `none` there is no reply.
//! Not here: the batches' inside (`batch`).

use crate::error::ErrorCode;
use crate::level::Level;
use crate::prim::{DecodeError, Fixed, Item, List, ListIter, ListWriter, Zero, layout};

layout! {
    /// One batch of the payload.
    pub struct ProduceEntry {
        /// Where it goes.
        pub partition_uid: u64;
        /// Its bytes.
        pub batch_len: u32;
    }
}

layout! {
    /// Append batches.
    pub struct ProduceRequest<'a> {
        /// What has to be true before the reply.
        pub level: Level => zero 3;
        /// How long the level may take, in milliseconds.
        pub timeout_ms: u32;
        /// One entry per batch; at most one batch per partition and request keeps errors per partition clear, but is not required.
        pub entries: List<'a, ProduceEntry>;
    }
}

impl<'a> ProduceRequest<'a> {
    /// The entries with their batches; refused when the lengths do not add up to the payload.
    pub fn batches(&self, payload: &'a [u8]) -> Result<ProduceBatches<'a>, DecodeError> {
        ProduceBatches::of(self.entries, payload)
    }

    /// The partition of a request's first entry, by which it finds its way; what else is in the request is not looked at.
    pub fn first_partition(meta: &'a [u8]) -> Option<u64> {
        List::<ProduceEntry>::first_of::<ProduceRequest<'_>>(meta).map(|entry| entry.partition_uid)
    }
}

/// Entries of a produce request, each with its batch.
pub struct ProduceBatches<'a> {
    entries: ListIter<'a, ProduceEntry>,
    rest: &'a [u8],
}

impl<'a> ProduceBatches<'a> {
    /// Entries with their batches; refused when the lengths do not add up to the payload.
    pub fn of(entries: List<'a, ProduceEntry>, payload: &'a [u8]) -> Result<ProduceBatches<'a>, DecodeError> {
        let declared = entries.iter().map(|entry| entry.batch_len as u64).sum::<u64>();
        if declared != payload.len() as u64 {
            return Err(DecodeError::PayloadMismatch { declared, actual: payload.len() as u64 });
        }
        Ok(ProduceBatches { entries: entries.iter(), rest: payload })
    }
}

impl<'a> Iterator for ProduceBatches<'a> {
    type Item = (ProduceEntry, &'a [u8]);
    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next()?;
        let (batch, rest) = self.rest.split_at_checked(entry.batch_len as usize)?;
        self.rest = rest;
        Some((entry, batch))
    }
}

/// Writes a produce request entry by entry.
#[derive(Debug)]
#[must_use = "call finish, else the list has no count"]
pub struct ProduceRequestWriter(ListWriter<ProduceEntry>);

impl ProduceRequestWriter {
    /// Appends the fields before the entries.
    pub fn begin(out: &mut Vec<u8>, level: Level, timeout_ms: u32) -> ProduceRequestWriter {
        level.write(out);
        Zero::<3>.write(out);
        timeout_ms.write(out);
        ProduceRequestWriter(ListWriter::begin(out))
    }
    /// Appends an entry.
    #[inline]
    pub fn push(&mut self, out: &mut Vec<u8>, entry: &ProduceEntry) {
        self.0.push(out, entry);
    }
    /// Fills the count in. `out` is the whole buffer that `begin` was given.
    pub fn finish(self, out: &mut [u8]) {
        self.0.finish(out);
    }
}

layout! {
    /// What became of one batch.
    pub struct ProduceResult {
        /// Where it went.
        pub partition_uid: u64;
        /// `Ok`, or why it was refused.
        pub error: ErrorCode => zero 6;
        /// Offset of its first record.
        pub base_offset: u64;
        /// When the leader appended it, UTC microseconds.
        pub append_time_us: i64;
        /// All offsets below this one are durable: learns when weaker acks became durable.
        pub durable_end: u64;
    }
}

layout! {
    /// What became of a produce request.
    pub struct ProduceReply<'a> {
        /// The level that all accepted batches reached.
        pub level_reached: Level => zero 3;
        /// Wait this long before the next request, in milliseconds.
        pub throttle_ms: u32;
        /// One result per entry, in the same order.
        pub results: List<'a, ProduceResult>;
    }
}

/// Writes a produce reply result by result, without allocation besides `out`.
#[derive(Debug)]
#[must_use = "call finish, else the list has no count"]
pub struct ProduceReplyWriter(ListWriter<ProduceResult>);

impl ProduceReplyWriter {
    /// Appends the fields before the results.
    #[inline]
    pub fn begin(out: &mut Vec<u8>, level_reached: Level, throttle_ms: u32) -> ProduceReplyWriter {
        let mut head = [0; 8];
        level_reached.put(&mut head[..1]);
        throttle_ms.put(&mut head[4..]);
        out.extend_from_slice(&head);
        ProduceReplyWriter(ListWriter::begin(out))
    }
    /// Appends a result.
    #[inline]
    pub fn push(&mut self, out: &mut Vec<u8>, result: &ProduceResult) {
        self.0.push(out, result);
    }
    /// Fills the count in. `out` is the whole buffer that `begin` was given.
    #[inline]
    pub fn finish(self, out: &mut [u8]) {
        self.0.finish(out);
    }
}
