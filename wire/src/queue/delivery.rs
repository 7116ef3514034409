//! Kinds 54 and 55: leasing messages, and saying what became of them.
//!
//! Not here: when a lease is lost, what a delay may be (docs/PROTOCOL.md, "Queues").

use std::ops::RangeInclusive;

use crate::error::ErrorCode;
use crate::prim::{DecodeError, Item, List, ListIter, ListWriter, Zero, choices, layout};

/// Most messages of a Receive or Browse: with 28 bytes each, a reply about them stays below 128 KiB.
pub const QUEUE_MESSAGES_MAX: u32 = 4096;

/// The most partitions that one Receive may name where it does not name all that the queue has at the shard: each one that waits remembers them.
pub const RECEIVE_NAMED_MAX: usize = 256;
/// Bytes of a consumer's name, at most.
pub const CONSUMER_BYTES_MAX: usize = 255;
/// Bytes of the reason of a nack or reject, at most.
pub const REASON_BYTES_MAX: usize = 256;
/// What a lease may last, in milliseconds: 100 ms to 12 hours.
pub const LEASE_MS: RangeInclusive<u32> = 100..=43_200_000;
/// The longest delay of a nack, in milliseconds: a day.
pub const NACK_DELAY_MS_MAX: u32 = 86_400_000;
/// Payload of a reply to Receive, at most, whatever was asked for, unless one batch is larger.
pub const RECEIVE_BYTES_MAX: u32 = 1 << 20;
/// In place of a delay: what the queue's retry policy says.
pub const DELAY_BY_POLICY: u32 = u32::MAX;
/// Messages that one Redrive brings back in each partition, at most; the next one goes on. Some milliseconds of a shard's time.
pub const REDRIVEN_MAX: u64 = 10_000;

layout! {
    /// Lease messages. All partitions are of one leader.
    pub struct ReceiveRequest<'a> {
        /// The queue.
        pub queue_uid: u64;
        /// At most so many, 1 to [`QUEUE_MESSAGES_MAX`].
        pub max_messages: u32;
        /// At most so many bytes of stored batches, except that one batch is always sent whole.
        pub max_bytes: u32;
        /// How long to wait for the first message, in milliseconds.
        pub wait_ms: u32;
        /// How long the leases last, in milliseconds; 0: as long as the queue says.
        pub visibility_ms: u32;
        /// Who this is, at most [`CONSUMER_BYTES_MAX`] bytes.
        pub consumer: &'a str;
        /// Partitions, by their identities.
        pub partitions: List<'a, u64>;
    }
}

layout! {
    /// One leased message.
    pub struct Delivery {
        /// Which.
        pub offset: u64;
        /// The lease: with partition and offset it is the token that settles the message.
        pub lease: u64;
        /// How often it was delivered, this time included.
        pub deliveries: u32 => zero 4;
    }
}

layout! {
    /// What was leased of one partition.
    pub struct Received<'a> {
        /// Which.
        pub partition_uid: u64;
        /// `Ok`, or why nothing can be had of it.
        pub error: ErrorCode => zero 2;
        /// Its share of the payload: stored batches that hold all deliveries, and messages that are not the receiver's.
        pub payload_bytes: u32;
        /// The leased messages, in the order of their delivery.
        pub deliveries: List<'a, Delivery>;
    }
}

layout! {
    /// Leased messages.
    pub struct ReceiveReply<'a> {
        /// Wait this long before the next request, in milliseconds.
        pub throttle_ms: u32;
        /// Partitions with a delivery or an error.
        pub entries: List<'a, Received<'a>>;
    }
}

impl<'a> ReceiveReply<'a> {
    /// The entries with their batches; refused when the sizes do not add up to the payload.
    pub fn parts(&self, payload: &'a [u8]) -> Result<ReceivedParts<'a>, DecodeError> {
        let declared = self.entries.iter().map(|entry| entry.payload_bytes as u64).sum::<u64>();
        if declared != payload.len() as u64 {
            return Err(DecodeError::PayloadMismatch { declared, actual: payload.len() as u64 });
        }
        Ok(ReceivedParts { entries: self.entries.iter(), rest: payload })
    }
}

/// Entries of a receive reply, each with its share of the payload (see `batch::Batches` to go through it).
pub struct ReceivedParts<'a> {
    entries: ListIter<'a, Received<'a>>,
    rest: &'a [u8],
}

impl<'a> Iterator for ReceivedParts<'a> {
    type Item = (Received<'a>, &'a [u8]);
    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next()?;
        let (part, rest) = self.rest.split_at_checked(entry.payload_bytes as usize)?;
        self.rest = rest;
        Some((entry, part))
    }
}

/// Writes a receive reply delivery by delivery, without allocation besides `out`, which is the same buffer in every call.
#[derive(Debug)]
#[must_use = "call finish, else the list has no count"]
pub struct ReceiveReplyWriter {
    entries_at: usize,
    entries: u32,
    open: Option<OpenEntry>,
}

#[derive(Debug)]
struct OpenEntry {
    payload_bytes_at: usize,
    payload_bytes: u32,
    deliveries: ListWriter<Delivery>,
}

impl ReceiveReplyWriter {
    /// Appends the fields before the entries.
    pub fn begin(out: &mut Vec<u8>, throttle_ms: u32) -> ReceiveReplyWriter {
        throttle_ms.write(out);
        let entries_at = out.len();
        out.extend_from_slice(&[0; 4]);
        ReceiveReplyWriter { entries_at, entries: 0, open: None }
    }
    /// Begins the entry of the next partition, and ends the one before.
    pub fn entry(&mut self, out: &mut Vec<u8>, partition_uid: u64, error: ErrorCode) {
        self.end_entry(out);
        self.entries += 1;
        partition_uid.write(out);
        error.write(out);
        Zero::<2>.write(out);
        let payload_bytes_at = out.len();
        0u32.write(out);
        self.open = Some(OpenEntry { payload_bytes_at, payload_bytes: 0, deliveries: ListWriter::begin(out) });
    }
    /// Appends a delivery to the entry.
    #[inline]
    pub fn delivery(&mut self, out: &mut Vec<u8>, delivery: &Delivery) {
        self.open.as_mut().expect("an entry was begun").deliveries.push(out, delivery);
    }
    /// Adds to the entry's share of the payload.
    #[inline]
    pub fn payload(&mut self, bytes: u32) {
        let open = self.open.as_mut().expect("an entry was begun");
        open.payload_bytes = open.payload_bytes.checked_add(bytes).expect("a payload is far below 4 GiB");
    }
    /// Entries so far.
    pub const fn len(&self) -> usize {
        self.entries as usize
    }
    /// Whether there is no entry yet.
    pub const fn is_empty(&self) -> bool {
        self.entries == 0
    }
    /// Fills counts and sizes in.
    pub fn finish(mut self, out: &mut [u8]) {
        self.end_entry(out);
        out[self.entries_at..self.entries_at + 4].copy_from_slice(&self.entries.to_le_bytes());
    }
    fn end_entry(&mut self, out: &mut [u8]) {
        if let Some(open) = self.open.take() {
            out[open.payload_bytes_at..open.payload_bytes_at + 4].copy_from_slice(&open.payload_bytes.to_le_bytes());
            open.deliveries.finish(out);
        }
    }
}

choices! {
    /// What becomes of a leased message.
    pub enum SettleAction("settle action") {
        /// Done: it is settled.
        Ack = 1, "ack";
        /// It failed: deliver it again later, or give it up once it was delivered often enough.
        Nack = 2, "nack";
        /// Keep the lease for longer.
        Extend = 3, "extend";
        /// Give it back as if it had not been delivered.
        Release = 4, "release";
        /// It can never be done: give it up at once.
        Reject = 5, "reject";
    }
}

layout! {
    /// What became of one message.
    pub struct SettleEntry<'a> {
        /// The lease token's partition.
        pub partition_uid: u64;
        /// The lease token's message.
        pub offset: u64;
        /// The lease.
        pub lease: u64;
        /// What to do.
        pub action: SettleAction => zero 3;
        /// Nack: time before the next delivery, [`DELAY_BY_POLICY`] as the queue says. Extend: the lease's new length from now. Milliseconds; else 0.
        pub delay_ms: u32;
        /// Nack and reject: why, at most [`REASON_BYTES_MAX`] bytes; else empty.
        pub reason: &'a str;
    }
}

layout! {
    /// Settle leased messages, durably. All partitions are of one leader.
    pub struct SettleRequest<'a> {
        /// The queue.
        pub queue_uid: u64;
        /// Who this is, as it received.
        pub consumer: &'a str;
        /// Each message for itself: one that is refused does not stop the others.
        pub entries: List<'a, SettleEntry<'a>>;
    }
}

layout! {
    /// What became of one message of a Settle or DeleteMessages.
    pub struct SettledMessage {
        /// Its partition.
        pub partition_uid: u64;
        /// Which.
        pub offset: u64;
        /// `Ok` (it is durable), or why it was not done.
        pub error: ErrorCode => zero 2;
    }
}

layout! {
    /// Answers in the order of the entries.
    pub struct SettleReply<'a> {
        /// Wait this long before the next request, in milliseconds.
        pub throttle_ms: u32;
        /// One per entry.
        pub entries: List<'a, SettledMessage>;
    }
}
