//! Fetch (kind 4), FetchCredit (5), FetchCancel (6): reading batches, once or as a stream within credit.
//!
//! Invariants: a reply's payload is its entries' batches in entry order, without gaps; a first batch may begin before
//! the asked offset (batches are never cut), so the reader skips records below it.
//! Not here: the batches' inside (`batch`).

use crate::error::ErrorCode;
use crate::prim::{DecodeError, Item, List, ListIter, ListWriter, Reader, Zero, flags, layout};

/// Once, or until cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum FetchMode {
    /// One reply.
    #[default]
    OneShot = 0,
    /// Replies with the MORE flag as long as there is credit, until cancelled.
    Streaming = 1,
}

impl<'a> Item<'a> for FetchMode {
    const BYTES_MIN: usize = 1;
    fn read(from: &mut Reader<'a>) -> Result<FetchMode, DecodeError> {
        match from.u8()? {
            0 => Ok(FetchMode::OneShot),
            1 => Ok(FetchMode::Streaming),
            other => Err(DecodeError::UnknownValue { what: "fetch mode", value: other as u64, code: ErrorCode::InvalidRequest }),
        }
    }
    fn write(&self, to: &mut Vec<u8>) {
        to.push(*self as u8);
    }
}

/// Which records are visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Isolation {
    /// All committed records.
    #[default]
    Committed = 0,
}

impl<'a> Item<'a> for Isolation {
    const BYTES_MIN: usize = 1;
    fn read(from: &mut Reader<'a>) -> Result<Isolation, DecodeError> {
        match from.u8()? {
            0 => Ok(Isolation::Committed),
            other => Err(DecodeError::UnknownValue { what: "isolation", value: other as u64, code: ErrorCode::InvalidRequest }),
        }
    }
    fn write(&self, to: &mut Vec<u8>) {
        to.push(*self as u8);
    }
}

layout! {
    /// One partition to read.
    pub struct FetchEntry {
        /// Which.
        pub partition_uid: u64;
        /// First offset wanted.
        pub offset: u64;
        /// At most this many bytes per reply, except that one batch is always sent whole.
        pub max_bytes: u32;
    }
}

layout! {
    /// Read batches.
    pub struct FetchRequest<'a> {
        /// Once or streaming.
        pub mode: FetchMode;
        /// Which records are visible.
        pub isolation: Isolation => zero 2;
        /// How long to wait for `min_bytes`, in milliseconds.
        pub max_wait_ms: u32;
        /// Wait until this much is there; 0 or 1 answer as soon as there is anything.
        pub min_bytes: u32;
        /// One-shot: at most this many payload bytes. Streaming: the first credit.
        pub credit_bytes: u32;
        /// Partitions, in order of preference.
        pub entries: List<'a, FetchEntry>;
    }
}

impl<'a> FetchRequest<'a> {
    /// The partition of a request's first entry, by which it finds its way; what else is in the request is not looked at.
    pub fn first_partition(meta: &'a [u8]) -> Option<u64> {
        List::<FetchEntry>::first_of::<FetchRequest<'_>>(meta).map(|entry| entry.partition_uid)
    }
}

flags! {
    /// Flags of a [`FetchResult`]; none is defined yet.
    pub struct FetchFlags(u16, "fetch flags") {}
}

layout! {
    /// What was read of one partition.
    pub struct FetchResult {
        /// Which.
        pub partition_uid: u64;
        /// `Ok`, or why it cannot be read. In a stream an entry with an error is over.
        pub error: ErrorCode;
        /// Zero for now.
        pub flags: FetchFlags;
        /// Its share of the payload.
        pub payload_bytes: u32;
        /// First offset that still exists.
        pub log_start: u64;
        /// First offset that is not committed.
        pub committed_end: u64;
        /// First offset of an open transaction; the committed end while there is none.
        pub last_stable: u64;
        /// The offset to go on with.
        pub next_offset: u64;
    }
}

layout! {
    /// Batches of several partitions.
    pub struct FetchReply<'a> {
        /// Wait this long before the next request, in milliseconds.
        pub throttle_ms: u32;
        /// Only partitions with something to tell.
        pub entries: List<'a, FetchResult>;
    }
}

impl<'a> FetchReply<'a> {
    /// The entries with their batches; refused when the sizes do not add up to the payload.
    pub fn parts(&self, payload: &'a [u8]) -> Result<FetchParts<'a>, DecodeError> {
        let declared = self.entries.iter().map(|entry| entry.payload_bytes as u64).sum::<u64>();
        if declared != payload.len() as u64 {
            return Err(DecodeError::PayloadMismatch { declared, actual: payload.len() as u64 });
        }
        Ok(FetchParts { entries: self.entries.iter(), rest: payload })
    }
}

/// Entries of a fetch reply, each with its share of the payload (see `batch::Batches` to go through it).
pub struct FetchParts<'a> {
    entries: ListIter<'a, FetchResult>,
    rest: &'a [u8],
}

impl<'a> Iterator for FetchParts<'a> {
    type Item = (FetchResult, &'a [u8]);
    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next()?;
        let (part, rest) = self.rest.split_at_checked(entry.payload_bytes as usize)?;
        self.rest = rest;
        Some((entry, part))
    }
}

/// Writes a fetch request entry by entry.
#[derive(Debug)]
#[must_use = "call finish, else the list has no count"]
pub struct FetchRequestWriter(ListWriter<FetchEntry>);

impl FetchRequestWriter {
    /// Appends the fields before the entries.
    pub fn begin(out: &mut Vec<u8>, mode: FetchMode, max_wait_ms: u32, min_bytes: u32, credit_bytes: u32) -> FetchRequestWriter {
        mode.write(out);
        Isolation::Committed.write(out);
        Zero::<2>.write(out);
        max_wait_ms.write(out);
        min_bytes.write(out);
        credit_bytes.write(out);
        FetchRequestWriter(ListWriter::begin(out))
    }
    /// Appends an entry.
    #[inline]
    pub fn push(&mut self, out: &mut Vec<u8>, entry: &FetchEntry) {
        self.0.push(out, entry);
    }
    /// Fills the count in. `out` is the whole buffer that `begin` was given.
    pub fn finish(self, out: &mut [u8]) {
        self.0.finish(out);
    }
}

/// Writes a fetch reply entry by entry, without allocation besides `out`.
#[derive(Debug)]
#[must_use = "call finish, else the list has no count"]
pub struct FetchReplyWriter(ListWriter<FetchResult>);

impl FetchReplyWriter {
    /// Appends the fields before the entries.
    #[inline]
    pub fn begin(out: &mut Vec<u8>, throttle_ms: u32) -> FetchReplyWriter {
        throttle_ms.write(out);
        FetchReplyWriter(ListWriter::begin(out))
    }
    /// Appends an entry.
    #[inline]
    pub fn push(&mut self, out: &mut Vec<u8>, result: &FetchResult) {
        self.0.push(out, result);
    }
    /// Entries so far.
    pub const fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether there is no entry yet.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// Fills the count in. `out` is the whole buffer that `begin` was given.
    #[inline]
    pub fn finish(self, out: &mut [u8]) {
        self.0.finish(out);
    }
}

layout! {
    /// More credit for a stream; has no reply.
    pub struct FetchCreditRequest {
        /// Correlation of the fetch.
        pub stream: u64;
        /// Bytes that are added to its credit.
        pub credit_bytes: u32;
    }
}

layout! {
    /// End a stream: its last reply comes without the MORE flag.
    pub struct FetchCancelRequest {
        /// Correlation of the fetch.
        pub stream: u64;
    }
}

layout! {
    /// The stream is over, or was over already.
    pub struct FetchCancelReply {}
}
