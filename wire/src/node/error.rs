//! Why bytes of another node are not taken.
//!
//! Invariant: every one of these ends the connection on which the bytes came: what is behind them cannot be trusted, and a new connection begins
//! with a hello that settles where both stand. Nothing of the frame has been stored then.
//! Not here: refusals that are told to the other node ([`super::Refused`]).

use super::kind::{Class, Kind, Side};
use crate::batch::BatchError;
use crate::frame::FrameError;
use crate::prim::DecodeError;
use std::fmt;

/// What a batch or payload belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// An entry of a group's log.
    Entry {
        /// The group.
        group: u32,
        /// The entry's index.
        index: u64,
    },
    /// A partition of a group.
    Partition {
        /// The group.
        group: u32,
        /// The partition's uid; 0 where it is the group's own state.
        uid: u64,
    },
    /// A call between shards 0.
    Call {
        /// Its number, chosen by who calls.
        call: u64,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Entry { group, index } => write!(f, "entry {index} of group {group}"),
            Place::Partition { group, uid: 0 } => write!(f, "state of group {group}"),
            Place::Partition { group, uid } => write!(f, "partition {uid:016x} of group {group}"),
            Place::Call { call } => write!(f, "call {call}"),
        }
    }
}

/// Why a frame, its body or its payload is refused. The connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeError {
    /// Not a frame.
    Frame(FrameError),
    /// Not the next frame of this connection.
    Number {
        /// The next one's number.
        expected: u64,
        /// What the header says.
        found: u64,
    },
    /// A kind nobody knows.
    UnknownKind(u8),
    /// A version of a kind that is not read here.
    UnknownVersion {
        /// The kind.
        kind: Kind,
        /// The version.
        version: u8,
    },
    /// A payload behind a kind that has none.
    UnexpectedPayload {
        /// The kind.
        kind: Kind,
        /// Its bytes.
        bytes: u32,
    },
    /// A kind that does not belong on this connection, or not in this direction.
    OutOfPlace {
        /// The kind.
        kind: Kind,
        /// What the connection is for.
        class: Class,
        /// Who sent it.
        sender: Side,
    },
    /// The body does not decode, or its sizes are not those of the payload.
    Body(DecodeError),
    /// A share's term is 0, or 2^62 and more.
    ShareTerm {
        /// The group.
        group: u32,
        /// The term.
        term: u64,
    },
    /// The entry before a share's first cannot be: its term is above the share's, or only one of index and term is 0.
    ShareBase {
        /// The group.
        group: u32,
        /// The share's term.
        term: u64,
        /// Index of the entry before.
        prev_index: u64,
        /// Its term.
        prev_term: u64,
    },
    /// An index of a share is 2^62 or more.
    IndexTooHigh {
        /// The group.
        group: u32,
        /// The index: of the last entry, or the commit.
        index: u64,
    },
    /// An entry's term is below that of the entry before, or above its share's.
    EntryTerm {
        /// The entry.
        at: Place,
        /// Its term.
        term: u64,
        /// The lowest that can be: that of the entry before.
        min: u64,
        /// The highest that can be: that of the share.
        max: u64,
    },
    /// A block's share without a byte.
    EntryEmpty {
        /// The entry.
        at: Place,
    },
    /// An entry or payload is above the limit.
    TooLarge {
        /// The entry or partition.
        at: Place,
        /// Its bytes.
        bytes: u64,
        /// Accepted bytes.
        max: u32,
    },
    /// One of raft's own entries has batches.
    RaftWithBatches {
        /// The entry.
        at: Place,
        /// Bytes of them.
        bytes: u32,
    },
    /// A batch is refused.
    Batch {
        /// What it is in.
        at: Place,
        /// Number of the batch there, from 0.
        batch: u32,
        /// Why.
        error: BatchError,
    },
    /// A batch was stamped in another term than its entry has.
    BatchTerm {
        /// The entry.
        at: Place,
        /// Number of the batch there, from 0.
        batch: u32,
        /// The entry's term.
        expected: u64,
        /// The batch's term.
        found: u64,
    },
    /// A batch of another partition.
    BatchUid {
        /// The partition.
        at: Place,
        /// Number of the batch there, from 0.
        batch: u32,
        /// The batch's partition.
        found: u64,
    },
    /// A batch's base offset is not where the batches before it end.
    BatchOffset {
        /// The partition.
        at: Place,
        /// Number of the batch there, from 0.
        batch: u32,
        /// The offset that was due: this one or, in a snapshot, a higher one.
        expected: u64,
        /// The batch's base offset.
        found: u64,
    },
    /// The checksum over control payloads, items, state or the body of a call is wrong.
    PayloadChecksum {
        /// What it belongs to.
        at: Place,
        /// What the meta says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// An item ends behind the bytes that are there, or has none.
    ItemLength {
        /// What it belongs to.
        at: Place,
        /// Number of the item there, from 0.
        item: u32,
        /// Bytes it needs with its length; 0 for an item without bytes.
        needed: u64,
        /// Bytes that are left.
        left: usize,
    },
    /// The payload of one of raft's own entries is neither empty nor one change of voters.
    Change {
        /// The entry.
        at: Place,
        /// Why.
        error: DecodeError,
    },
    /// A reply to another question: an entry where batches were asked for or the other way round, or more than was asked for.
    OtherAnswer {
        /// What was asked for.
        at: Place,
    },
}

impl From<FrameError> for NodeError {
    fn from(error: FrameError) -> NodeError {
        NodeError::Frame(error)
    }
}

impl From<DecodeError> for NodeError {
    fn from(error: DecodeError) -> NodeError {
        NodeError::Body(error)
    }
}

/// What to do when the bytes are not those that the other node sent.
const TRANSIT: &str = "the connection is made anew; look for faulty hardware if it repeats";
/// What to do when the other node sent what it must not.
const DEFECT: &str = "the connection is made anew; if it repeats report a defect, with the versions of both nodes";

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeError::Frame(FrameError::BadMagic(found)) => {
                write!(f, "not a frame between nodes: it starts with {found:02x?}; check that the address is a cluster port of a node")
            }
            NodeError::Frame(FrameError::UnknownFlags(flags)) => {
                write!(f, "flags {flags:#06x} of a frame between nodes, which has none: {DEFECT}")
            }
            NodeError::Frame(FrameError::Checksum { stored, computed }) => {
                write!(f, "wrong frame checksum: {stored:#010x} stored, {computed:#010x} computed; {TRANSIT}")
            }
            NodeError::Frame(error) => write!(f, "{error}; between nodes: {DEFECT}"),
            NodeError::Number { expected, found } => {
                write!(f, "frame {found} came where {expected} was due, so frames were lost or doubled on the way: {TRANSIT}")
            }
            NodeError::UnknownKind(kind) => {
                write!(f, "unknown kind {kind} of frame: update this node before the cluster's feature level is raised")
            }
            NodeError::UnknownVersion { kind, version } => {
                write!(f, "unknown version {version} of {kind}: update this node before the cluster's feature level is raised")
            }
            NodeError::UnexpectedPayload { kind, bytes } => write!(f, "{bytes} bytes of payload behind {kind}, which has none: {DEFECT}"),
            NodeError::OutOfPlace { kind, class, sender } => {
                write!(f, "{kind} from the {} of a connection for {}: {DEFECT}", sender.name(), class.name())
            }
            NodeError::Body(error) => write!(f, "the body of a frame does not decode: {error}; {DEFECT}"),
            NodeError::OtherAnswer { at } => write!(f, "the reply about {at} is not about what was asked for: {DEFECT}"),
            _ => self.fmt_entry(f),
        }
    }
}

impl NodeError {
    /// The refusals of shares, entries and payloads.
    fn fmt_entry(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeError::ShareTerm { group, term } => write!(f, "the share of group {group} has term {term}, not 1 to 2^62 - 1: {DEFECT}"),
            NodeError::ShareBase { group, term, prev_index, prev_term } => {
                write!(
                    f,
                    "the share of group {group} in term {term} follows index {prev_index} of term {prev_term}, which cannot be: {DEFECT}"
                )
            }
            NodeError::IndexTooHigh { group, index } => write!(f, "index {index} of group {group} is 2^62 or more: {DEFECT}"),
            NodeError::EntryTerm { at, term, min, max } => write!(f, "{at} has term {term}, possible are {min} to {max}: {DEFECT}"),
            NodeError::EntryEmpty { at } => write!(f, "{at} has no bytes: {DEFECT}"),
            NodeError::TooLarge { at, bytes, max } => {
                write!(f, "{at} has {bytes} bytes, at most {max} are accepted: give all nodes the same limits of batches and blocks")
            }
            NodeError::RaftWithBatches { at, bytes } => write!(f, "{at} is raft's own and has {bytes} bytes of batches: {DEFECT}"),
            NodeError::Batch { at, batch, error: error @ (BatchError::BodyChecksum { .. } | BatchError::HeaderChecksum { .. }) } => {
                write!(f, "batch {batch} of {at}: {error}; {TRANSIT}")
            }
            NodeError::Batch { at, batch, error: error @ BatchError::BatchTooLarge { .. } } => {
                write!(f, "batch {batch} of {at}: {error}: give all nodes the same limits of batches and blocks")
            }
            NodeError::Batch { at, batch, error } => write!(f, "batch {batch} of {at}: {error}; {DEFECT}"),
            NodeError::BatchTerm { at, batch, expected, found } => {
                write!(f, "batch {batch} of {at} was stamped in term {found}, the entry has term {expected}: {DEFECT}")
            }
            NodeError::BatchUid { at, batch, found } => write!(f, "batch {batch} of {at} is one of partition {found:016x}: {DEFECT}"),
            NodeError::BatchOffset { at, batch, expected, found } => {
                write!(f, "batch {batch} of {at} begins at offset {found}, due was {expected}: {DEFECT}")
            }
            NodeError::PayloadChecksum { at, stored, computed } => {
                write!(f, "wrong checksum of payloads of {at}: {stored:#010x} stored, {computed:#010x} computed; {TRANSIT}")
            }
            NodeError::ItemLength { at, item, needed: 0, .. } => write!(f, "payload {item} of {at} has no bytes: {DEFECT}"),
            NodeError::ItemLength { at, item, needed, left } => {
                write!(f, "payload {item} of {at} needs {needed} bytes, {left} are there: {DEFECT}")
            }
            NodeError::Change { at, error } => write!(f, "{at} is no change of voters: {error}; {DEFECT}"),
            // Told by `Display`; listed, so that a new one is not forgotten.
            NodeError::Frame(_)
            | NodeError::Number { .. }
            | NodeError::UnknownKind(_)
            | NodeError::UnknownVersion { .. }
            | NodeError::UnexpectedPayload { .. }
            | NodeError::OutOfPlace { .. }
            | NodeError::Body(_)
            | NodeError::OtherAnswer { .. } => Ok(()),
        }
    }
}

impl std::error::Error for NodeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            NodeError::Frame(error) => Some(error),
            NodeError::Body(error) | NodeError::Change { error, .. } => Some(error),
            NodeError::Batch { error, .. } => Some(error),
            _ => None,
        }
    }
}
