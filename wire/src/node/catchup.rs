//! CatchUp (9), CatchUpReply (10), Piece (11) and PieceAck (12): a snapshot of a group.
//!
//! Invariants: a piece's fields are those of its kind, told by the byte in front of them; what it carries besides is its payload, and every
//! byte of that is covered by a sum: batches by their own, all else by one in the piece.
//! Not here: when a snapshot is sent, and how it is installed (docs/REPLICATION.md, 3.5); entries that a follower missed ([`super::Append`]).

use super::error::{NodeError, Place};
use super::parts::{CheckedBatches, CheckedItems, PayloadLimits, check_batches, check_crc, check_items};
use crate::batch::Batches;
use crate::error::ErrorCode;
use crate::prim::{DecodeError, Item, List, Reader, Zero, layout};

/// Most bytes of batches in one piece, unless one batch is larger; and of the metadata's state.
pub const PIECE_BATCH_BYTES_MAX: u32 = 1 << 20;
/// Most bytes of items in one piece, unless one item is larger: they are taken in at once, in one turn.
pub const PIECE_ITEM_BYTES_MAX: u32 = 64 << 10;

layout! {
    /// A snapshot begins.
    pub struct CatchUp<'a> {
        /// The group.
        pub group: u32 => zero 4;
        /// What follows has everything up to this index.
        pub index: u64;
        /// The term of that entry.
        pub term: u64;
        /// Index of the entry that made the configuration below.
        pub conf_index: u64;
        /// Replicas that vote.
        pub voters: List<'a, u64>;
        /// Replicas that do not.
        pub learners: List<'a, u64>;
        /// Epoch of the view that the leader acts on: partitions that it knows and the receiver does not come with it.
        pub view_epoch: u64;
    }
}

layout! {
    /// A partition of which the receiver has committed batches.
    pub struct HavePartition {
        /// The partition.
        pub uid: u64;
        /// The offset behind the last one it has: batches are sent from there on.
        pub next_offset: u64;
    }
}

layout! {
    /// What the receiver has already. The pieces begin when this has come.
    pub struct CatchUpReply<'a> {
        /// The group: two may be under way at once.
        pub group: u32 => zero 4;
        /// Partitions that need not be sent whole; none of an empty replica.
        pub have: List<'a, HavePartition>;
    }
}

layout! {
    /// Offsets of a partition that are lost everywhere.
    pub struct LostRange {
        /// The first one.
        pub first: u64;
        /// The one behind the last.
        pub end: u64;
    }
}

/// What a piece tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PieceBody<'a> {
    /// A partition begins: its batches follow.
    Partition {
        /// Its topic.
        topic: u64,
        /// First offset that still exists.
        log_start: u64,
        /// Offset behind the last committed record.
        next_offset: u64,
        /// Highest timestamp of a record, UTC microseconds.
        newest_us: i64,
        /// Ranges that nobody has any more, in order.
        lost: List<'a, LostRange>,
    },
    /// Payload: batches of the partition, by offset.
    Batches,
    /// Payload: items about producers, as a checkpoint has them.
    Producers {
        /// crc32c of the payload.
        crc: u32,
    },
    /// Payload: notes, as a checkpoint and the file of queues have them.
    Notes {
        /// crc32c of the payload.
        crc: u32,
    },
    /// All pieces of the group were sent.
    End {
        /// How many, this one included.
        pieces: u64,
        /// Bytes of their payloads.
        bytes: u64,
    },
    /// Payload: the next part of the state of the metadata (group 0 only).
    Metadata {
        /// crc32c of the payload.
        crc: u32,
    },
}

impl PieceBody<'_> {
    /// The number of its kind.
    pub const fn number(&self) -> u8 {
        match self {
            PieceBody::Partition { .. } => 1,
            PieceBody::Batches => 2,
            PieceBody::Producers { .. } => 3,
            PieceBody::Notes { .. } => 4,
            PieceBody::End { .. } => 5,
            PieceBody::Metadata { .. } => 6,
        }
    }
}

/// A part of a snapshot.
///
/// ```text
/// 0 group u32 | 4 kind u8 | 5 reserved (3) | 8 uid u64 | 16 fields by kind
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Piece<'a> {
    /// The group.
    pub group: u32,
    /// The partition of kinds 1 and 2; else 0.
    pub uid: u64,
    /// What it tells.
    pub body: PieceBody<'a>,
}

impl<'a> Piece<'a> {
    /// Appends the body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.group.write(out);
        self.body.number().write(out);
        Zero::<3>.write(out);
        self.uid.write(out);
        match self.body {
            PieceBody::Partition { topic, log_start, next_offset, newest_us, lost } => {
                topic.write(out);
                log_start.write(out);
                next_offset.write(out);
                newest_us.write(out);
                lost.write(out);
            }
            PieceBody::Batches => {}
            PieceBody::Producers { crc } | PieceBody::Notes { crc } | PieceBody::Metadata { crc } => crc.write(out),
            PieceBody::End { pieces, bytes } => {
                pieces.write(out);
                bytes.write(out);
            }
        }
    }

    /// Reads and validates a body; refuses trailing bytes.
    pub fn decode(meta: &'a [u8]) -> Result<Piece<'a>, DecodeError> {
        let mut from = Reader::new(meta);
        let (group, kind) = (from.u32()?, from.u8()?);
        Zero::<3>::read(&mut from)?;
        let uid = from.u64()?;
        let body = match kind {
            1 => PieceBody::Partition {
                topic: from.u64()?,
                log_start: from.u64()?,
                next_offset: from.u64()?,
                newest_us: from.i64()?,
                lost: List::read(&mut from)?,
            },
            2 => PieceBody::Batches,
            3 => PieceBody::Producers { crc: from.u32()? },
            4 => PieceBody::Notes { crc: from.u32()? },
            5 => PieceBody::End { pieces: from.u64()?, bytes: from.u64()? },
            6 => PieceBody::Metadata { crc: from.u32()? },
            _ => return Err(DecodeError::UnknownValue { what: "kind of piece", value: kind as u64, code: ErrorCode::Malformed }),
        };
        from.finish()?;
        // Bytes without a meaning are refused like reserved ones: one way to write each piece.
        let of_partition = matches!(body, PieceBody::Partition { .. } | PieceBody::Batches);
        if !of_partition && uid != 0 {
            return Err(DecodeError::ReservedNotZero);
        }
        Ok(Piece { group, uid, body })
    }

    /// Checks the payload. An error ends the connection, and with it the snapshot.
    pub fn check(&self, payload: &'a [u8], limits: &PayloadLimits) -> Result<PiecePayload<'a>, NodeError> {
        let at = Place::Partition { group: self.group, uid: self.uid };
        match self.body {
            PieceBody::Partition { .. } | PieceBody::End { .. } if payload.is_empty() => Ok(PiecePayload::None),
            PieceBody::Partition { .. } | PieceBody::End { .. } => {
                Err(DecodeError::PayloadMismatch { declared: 0, actual: payload.len() as u64 }.into())
            }
            PieceBody::Batches => {
                self.check_batches(at, payload, limits)?;
                Ok(PiecePayload::Batches(CheckedBatches::of(payload)))
            }
            PieceBody::Producers { crc } | PieceBody::Notes { crc } => {
                check_crc(payload, crc, at)?;
                let items = check_items(payload, at)?;
                if items > 1 {
                    check_size(at, payload, PIECE_ITEM_BYTES_MAX)?;
                }
                Ok(PiecePayload::Items(CheckedItems::of(payload)))
            }
            PieceBody::Metadata { crc } => {
                check_size(at, payload, PIECE_BATCH_BYTES_MAX)?;
                check_crc(payload, crc, at)?;
                Ok(PiecePayload::State(payload))
            }
        }
    }

    /// Batches of this partition, by offset. Gaps are possible: a range may be lost, or compacted away.
    fn check_batches(&self, at: Place, payload: &'a [u8], limits: &PayloadLimits) -> Result<(), NodeError> {
        let is_one = matches!(Batches::new(payload).next(), Some(Ok(first)) if first.len() == payload.len());
        if !is_one {
            check_size(at, payload, PIECE_BATCH_BYTES_MAX)?;
        }
        let mut expected = 0;
        check_batches(payload, limits.batch_bytes_max, at, |batch, view| {
            let (uid, found) = (view.partition_uid(), view.base_offset());
            if uid != self.uid {
                return Err(NodeError::BatchUid { at, batch, found: uid });
            }
            if found < expected {
                return Err(NodeError::BatchOffset { at, batch, expected, found });
            }
            expected = view.next_offset();
            Ok(())
        })
    }
}

fn check_size(at: Place, payload: &[u8], max: u32) -> Result<(), NodeError> {
    let bytes = payload.len() as u64;
    if bytes <= u64::from(max) { Ok(()) } else { Err(NodeError::TooLarge { at, bytes, max }) }
}

/// A piece's payload, checked.
#[derive(Debug, Clone)]
pub enum PiecePayload<'a> {
    /// It has none.
    None,
    /// Batches of one partition, by offset, none twice.
    Batches(CheckedBatches<'a>),
    /// Items of a checkpoint or state file; what is in them is looked at by who takes them in.
    Items(CheckedItems<'a>),
    /// The next part of the state of the metadata.
    State(&'a [u8]),
}

layout! {
    /// How much of a snapshot was taken in. The one that counts the end piece is sent when the snapshot is installed durably.
    pub struct PieceAck {
        /// The group: two may be under way at once.
        pub group: u32 => zero 4;
        /// Pieces of this snapshot, from its first on.
        pub pieces: u64;
    }
}
