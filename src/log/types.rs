//! Words that cross the door of this room: what an append answers, where bytes are, what the log reports.
//!
//! Not here: any behaviour beyond formatting, and bytes on disk (`layout.rs`).

use crate::bytes::Bytes;
use crate::ids::{BlockSeq, GroupId, LogIndex, SegmentUid, Term};
use crate::log::footer::FooterEntry;
use std::fmt;

/// What an entry is. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// Batches of the group's partitions.
    Data = 1,
    /// Control payloads of the group (topics, offsets, leases, ...).
    Control = 2,
    /// The group's Raft hard state: bears no index, the last one holds.
    HardState = 3,
    /// A Raft entry without a body of ours: no-op or change of voters. Each append is an entry of its own.
    Raft = 4,
    /// A replica of a group (`ReplicaRecord`): bears no index, the last one of its group holds.
    Replica = 5,
    /// What a leader had appended to the open block when it lost the group: not proposed, bears no index, counts nowhere.
    Void = 6,
    /// Committed batches out of another replica's snapshot, without their entries: bears no index, counts whatever stands in front of it.
    Import = 7,
}

impl EntryKind {
    /// The kind of a number found on disk.
    pub fn from_u8(number: u8) -> Option<EntryKind> {
        match number {
            1 => Some(EntryKind::Data),
            2 => Some(EntryKind::Control),
            3 => Some(EntryKind::HardState),
            4 => Some(EntryKind::Raft),
            5 => Some(EntryKind::Replica),
            6 => Some(EntryKind::Void),
            7 => Some(EntryKind::Import),
            _ => None,
        }
    }
    /// Whether entries of this kind carry a Raft index.
    pub fn bears_index(self) -> bool {
        !matches!(self, EntryKind::HardState | EntryKind::Replica | EntryKind::Void | EntryKind::Import)
    }
}

/// Where an append went: bytes `at..at + len` of block `block`. Appended is not durable: see `LogNews::Durable`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The open block, to be closed later under this number.
    pub block: BlockSeq,
    /// Byte in the block.
    pub at: u32,
    /// Bytes.
    pub len: u32,
}

/// Why an append was not taken. The state is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendRefused {
    /// The open block is full and cannot be closed yet, or memory is short. Close the block if `ready_to_close`, else retry after
    /// the next completion.
    Full,
    /// Larger than `batch_bytes_max`: never fits.
    TooLarge,
    /// The log has failed: nothing is taken any more.
    Failed,
}

impl fmt::Display for AppendRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AppendRefused::Full => "the log's queue is full; retry after the next write is done",
            AppendRefused::TooLarge => "larger than the log's largest batch; send smaller batches",
            AppendRefused::Failed => "this shard's log has failed; restart the node once its disk is looked after",
        })
    }
}

/// One entry of the open block: what the log carries for a group under one index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenEntry {
    /// The group.
    pub group: GroupId,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes of content so far, without gaps.
    pub content_len: u32,
    /// Fragments (batches or payloads) so far.
    pub fragments: u32,
    /// Its place, where another replica's leader has given it one already; else it gets one when the block closes.
    pub position: Option<(Term, LogIndex)>,
}

/// Where bytes of the log are now.
#[derive(Clone, Debug)]
pub enum Place {
    /// In memory: the very bytes that were written.
    Cached(Bytes),
    /// On disk: read `len` bytes at `pos` with `begin_read`.
    Disk {
        /// The segment.
        segment: SegmentUid,
        /// Byte position in the segment's file.
        pos: u64,
    },
    /// In the open block: ask again once it is closed.
    Open,
    /// The log does not know this block: sealed (use the footer's places) or freed.
    Gone,
}

/// Where a whole block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockPlace {
    /// The segment.
    pub segment: SegmentUid,
    /// Byte position in the segment's file.
    pub pos: u32,
    /// Bytes on disk, padding included.
    pub len: u32,
}

/// Why a cold read was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadRefused {
    /// Too many reads under way or no memory: retry after the next completion.
    Full,
    /// The segment is not there (any more).
    Gone,
    /// Empty, beyond the segment's end, or above 8 MiB once aligned to pages: ask for less.
    BadRange,
    /// The log has failed.
    Failed,
}

/// How a cold read failed. The bytes are not to be had here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The disk's error number.
    Io {
        /// Positive error number.
        errno: i32,
    },
    /// The disk gave fewer bytes than the file must have, twice.
    Short {
        /// Bytes given.
        got: u32,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Io { errno } => write!(f, "the disk answered error {errno}; look at the kernel's log"),
            ReadError::Short { got } => write!(f, "the disk gave only {got} bytes; was the file cut by somebody?"),
        }
    }
}

/// What the log reports from a completion or a turn.
#[derive(Debug)]
pub enum LogNews {
    /// All blocks up to this one are on stable storage.
    Durable(BlockSeq),
    /// A block's write has ended well, this many microseconds after the block was closed.
    Written {
        /// Microseconds, by the clock of the calls.
        took_us: u64,
    },
    /// A cold read ended.
    ReadDone {
        /// The number `begin_read` gave.
        ticket: u64,
        /// What the asker passed in.
        owner: u64,
        /// The segment.
        segment: SegmentUid,
        /// Position asked for.
        pos: u32,
        /// Exactly the bytes asked for. Not checked: see `check_batch` and `footer::decode_slice`.
        bytes: Result<Bytes, ReadError>,
    },
    /// A segment is full and all its blocks are durable: collect its footer entries and call `seal`. Reported oldest first.
    SealReady(SegmentUid),
    /// The state file is durable.
    StateWritten,
    /// Footer, checkpoint and manifest of a sealed segment are durable.
    Sealed(SegmentUid),
    /// A sorted segment is durable, its footer and the manifest's edit too: runs may point to these entries. Without entries: it was thrown away.
    Sorted {
        /// The segment.
        segment: SegmentUid,
        /// What its footer lists, in that order.
        entries: Vec<FooterEntry>,
    },
    /// The checkpoint handed to `write_checkpoint` is durable.
    CheckpointWritten,
    /// A freed segment is forgotten durably and its file given back.
    SegmentFreed(SegmentUid),
    /// A write or sync failed: this log takes nothing more. The reason names file, position and error.
    Failed(String),
}

/// What is wrong with bytes that came back from a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// Blocks `first_seq..=last_seq` cannot be read: header, table or trailer are damaged, or they are missing.
    BlocksLost {
        /// First lost block.
        first_seq: BlockSeq,
        /// Last lost block.
        last_seq: BlockSeq,
    },
    /// A batch whose header does not check: it is not listed and its partition is unknown.
    BatchHeader {
        /// The block.
        seq: BlockSeq,
        /// The entry's group.
        group: GroupId,
        /// The entry's index.
        index: LogIndex,
    },
    /// A batch whose header is good and whose body does not check: it is listed, and each read of it will be refused.
    BatchBody {
        /// The block.
        seq: BlockSeq,
        /// The entry's group.
        group: GroupId,
        /// Partition uid in the batch.
        uid: u64,
        /// First offset of the batch.
        base_offset: u64,
    },
    /// A control payload that does not check: it is left out.
    Payload {
        /// The block.
        seq: BlockSeq,
        /// The entry's group.
        group: GroupId,
        /// The entry's index.
        index: LogIndex,
        /// The entry's term.
        term: Term,
    },
    /// The disk refuses to read here; what stood there shows as blocks lost, if any did.
    Unreadable {
        /// The disk's error number.
        errno: i32,
    },
    /// The segment's header page does not check (repaired from the manifest).
    SegmentHeader,
    /// The footer of a sealed segment does not check (rebuilt from the blocks).
    Footer,
    /// The batch is not the one that was asked for, or does not check.
    Batch(BatchFault),
}

/// What `check_batch` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchFault {
    /// Not a batch: magic, version, lengths or flags.
    Malformed,
    /// The leader's checksum over the header does not match.
    Header,
    /// The producer's checksum over the body does not match.
    Body,
    /// A whole batch, but of another partition.
    OtherPartition {
        /// The uid found.
        found: u64,
    },
    /// A whole batch, but at another offset.
    OtherOffset {
        /// The base offset found.
        found: u64,
    },
}

impl fmt::Display for BatchFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BatchFault::Malformed => f.write_str("not a batch"),
            BatchFault::Header => f.write_str("the batch header's checksum does not match"),
            BatchFault::Body => f.write_str("the batch body's checksum does not match"),
            BatchFault::OtherPartition { found } => write!(f, "a batch of partition uid {found} stands in this place"),
            BatchFault::OtherOffset { found } => write!(f, "a batch with base offset {found} stands in this place"),
        }
    }
}

/// Damage found in the log: never served, never cut silently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub segment: SegmentUid,
    /// Where it begins in the segment's file.
    pub pos: u64,
    /// How many bytes it covers; an upper bound for what was lost (a record takes at least 12 bytes).
    pub len: u64,
    /// What it is.
    pub kind: DamageKind,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {} at byte {} ({} bytes): ", self.segment, self.pos, self.len)?;
        match &self.kind {
            DamageKind::BlocksLost { first_seq, last_seq } => write!(f, "blocks {first_seq} to {last_seq} cannot be read"),
            DamageKind::BatchHeader { seq, group, .. } => write!(f, "block {seq}: a batch header of group {group} does not check"),
            DamageKind::BatchBody { seq, uid, base_offset, .. } => {
                write!(f, "block {seq}: the batch of partition uid {uid} at offset {base_offset} does not check")
            }
            DamageKind::Payload { seq, group, index, .. } => {
                write!(f, "block {seq}: a control payload of group {group} at index {index} does not check")
            }
            DamageKind::Unreadable { errno } => write!(f, "the disk answers error {errno}"),
            DamageKind::SegmentHeader => f.write_str("the segment's header page does not check"),
            DamageKind::Footer => f.write_str("the segment's footer does not check"),
            DamageKind::Batch(fault) => fault.fmt(f),
        }
    }
}

/// Why a segment cannot be freed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreeRefused {
    /// Not a segment of this log, or freed already.
    Unknown,
    /// Only sealed segments can be freed.
    NotSealed,
    /// The log has failed.
    Failed,
}

/// Why sealing or a checkpoint was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealRefused {
    /// Another seal or checkpoint is under way: retry after its news.
    Busy,
    /// The log has failed.
    Failed,
}

/// Numbers of one log, for metrics and for the shard's budgets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Blocks closed since the start, marks included.
    pub blocks_closed: u64,
    /// Mark blocks closed since the start.
    pub marks_closed: u64,
    /// Batches and payloads appended since the start.
    pub appends: u64,
    /// Bytes of blocks written since the start, padding included.
    pub written_bytes: u64,
    /// Of these, bytes that are neither content nor tables.
    pub padding_bytes: u64,
    /// Writes that came back short and were continued.
    pub short_writes: u64,
    /// Segments begun since the start.
    pub rolls: u64,
    /// Of these, how many into extents that were never written.
    pub rolls_into_fresh_extents: u64,
    /// Bytes in the open block.
    pub open_bytes: u64,
    /// Bytes closed and not yet durable.
    pub undurable_bytes: u64,
    /// Block writes under way.
    pub writes_in_flight: u32,
    /// Cold reads under way.
    pub reads_in_flight: u32,
    /// Cold reads begun since the start.
    pub reads: u64,
    /// Cold reads that failed.
    pub reads_failed: u64,
    /// Bytes read for cold reads, alignment included.
    pub read_bytes: u64,
    /// Blocks in the tail cache.
    pub cache_blocks: u64,
    /// Memory of the tail cache.
    pub cache_bytes: u64,
    /// Segments that hold or will hold blocks and are not sealed.
    pub segments_open: u32,
    /// Sealed segments.
    pub segments_sealed: u32,
    /// Of these, the ones the sorter wrote.
    pub segments_sorted: u32,
    /// Bytes of the files of sealed segments.
    pub sealed_file_bytes: u64,
    /// Bytes of the batches that their footers list.
    pub sealed_batch_bytes: u64,
    /// Bytes of free files.
    pub pool_file_bytes: u64,
    /// Free files, filled.
    pub pool_filled: u32,
    /// Free files, not filled.
    pub pool_unfilled: u32,
    /// Bytes of files on disk.
    pub file_bytes: u64,
    /// Last error number of a file that could not be created (0: none since the last success): 28 means no space.
    pub create_errno: i32,
    /// Whether appends stand still because no segment is ready.
    pub out_of_segments: bool,
}

/// What is known of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// The segment.
    pub uid: SegmentUid,
    /// Whether it has a footer.
    pub sealed: bool,
    /// Whether it was written by the sorter: partition by partition, without blocks.
    pub sorted: bool,
    /// Bytes of its file.
    pub file_bytes: u64,
    /// First block in it (0: none, or sealed before this start).
    pub first_block: BlockSeq,
    /// Last block in it (0: none, or sealed before this start).
    pub last_block: BlockSeq,
}
