//! What a start finds: the door between recovery and the shard.
//!
//! Not here: how it is found (`recovery.rs`, `recovery/scan.rs`).

use crate::ids::{BlockSeq, GroupId, Incarnation, LogIndex, Offset, PartitionUid, SegmentUid, Term};
use crate::log::Log;
use crate::log::checkpoint::CheckpointV5;
use crate::log::layout::HardState;
use crate::log::recovery::DiskError;
use crate::log::replica_record::ReplicaRecord;
use crate::log::state_file::StateFile;
use crate::log::types::{Damage, EntryKind};
use std::collections::BTreeMap;
use std::fmt;
use tramline_wire::batch::ProducerMark;

/// An entry that counts: replaced ones are left out already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveredEntry {
    /// The group.
    pub group: GroupId,
    /// Data, control or raft.
    pub kind: EntryKind,
    /// Raft index.
    pub index: LogIndex,
    /// Raft term.
    pub term: Term,
    /// The block it is in.
    pub block: BlockSeq,
    /// Bytes of its content.
    pub content_len: u32,
}

/// A batch of an entry that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveredBatch {
    /// The entry's group.
    pub group: GroupId,
    /// The entry's index.
    pub index: LogIndex,
    /// The entry's term.
    pub term: Term,
    /// The partition.
    pub uid: PartitionUid,
    /// First offset.
    pub base_offset: Offset,
    /// Last offset minus first.
    pub last_offset_delta: u32,
    /// Newest timestamp in it, UTC microseconds.
    pub newest_ts: i64,
    /// When the leader appended it, UTC microseconds.
    pub append_time_us: i64,
    /// Its producer's mark; id 0 for none.
    pub producer: ProducerMark,
    /// The block.
    pub block: BlockSeq,
    /// Byte in the block.
    pub at: u32,
    /// Bytes.
    pub len: u32,
    /// The segment.
    pub segment: SegmentUid,
    /// Byte in the segment's file.
    pub pos: u32,
    /// The body does not check: reads of it will be refused.
    pub damaged: bool,
}

impl RecoveredBatch {
    /// Whether it came with a snapshot, and not with an entry.
    pub fn is_imported(&self) -> bool {
        self.index == LogIndex(0)
    }
}

/// A control or raft payload of an entry that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredControl {
    /// The entry's group.
    pub group: GroupId,
    /// The entry's index.
    pub index: LogIndex,
    /// The entry's term.
    pub term: Term,
    /// Control or raft.
    pub kind: EntryKind,
    /// The payload, checked.
    pub payload: Vec<u8>,
    /// The block.
    pub block: BlockSeq,
}

/// Blocks that are gone although they were durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostBlocks {
    /// First lost block.
    pub first: BlockSeq,
    /// Last lost block.
    pub last: BlockSeq,
    /// Bytes they covered, an upper bound: skip `bytes / 12` offsets at most in each partition, so that none is used again.
    pub bytes: u64,
}

/// Whether a replica may have lost what it had acknowledged, as its log tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// The block that tells it.
    pub block: BlockSeq,
    /// Whether it may; else all of that was made good by then.
    pub is_suspect: bool,
}

/// Numbers of one recovery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Whether the directory was empty: this is the first start.
    pub first_start: bool,
    /// Segments scanned.
    pub segments_scanned: u32,
    /// Blocks found good.
    pub blocks: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Block numbers that were cut: `cut_from` was torn or never written whole. None when the log ended cleanly.
    pub cut_from: Option<BlockSeq>,
    /// Highest block that is known durable.
    pub durable_through: BlockSeq,
    /// Files of interrupted work that were removed.
    pub files_removed: Vec<String>,
    /// Bytes of the batches that the footers of sealed segments list, by segment.
    pub batch_bytes: BTreeMap<u64, u64>,
    /// Footers rebuilt.
    pub footers_rebuilt: u32,
    /// Runs left out because their segment was freed.
    pub runs_dropped: u32,
    /// This start's incarnation.
    pub incarnation: Incarnation,
}

/// Everything a start finds.
pub struct Recovered {
    /// The log, ready to take appends.
    pub log: Log,
    /// The checkpoint; its runs name live segments only.
    pub checkpoint: Option<CheckpointV5>,
    /// The state file: of the checkpoint, or a later one.
    pub state: Option<StateFile>,
    /// Entries behind the checkpoint, in log order.
    pub entries: Vec<RecoveredEntry>,
    /// Batches of `entries`, in log order.
    pub batches: Vec<RecoveredBatch>,
    /// Batches that the checkpoint covers (they are applied) but that stand in segments without a footer: for the index only.
    pub covered_batches: Vec<RecoveredBatch>,
    /// Payloads of `entries`, in log order.
    pub controls: Vec<RecoveredControl>,
    /// The last hard state of each group found behind the checkpoint, by group.
    pub hard_states: Vec<HardState>,
    /// The last replica record of each group that has one behind the checkpoint.
    pub replicas: Vec<(BlockSeq, ReplicaRecord)>,
    /// What the last record of each group says that is about doubts, if there is one behind the checkpoint.
    pub doubts: BTreeMap<GroupId, Doubt>,
    /// The last record of each group whose voters were forced behind that.
    pub forced: Vec<(BlockSeq, ReplicaRecord)>,
    /// Damage found: nothing of it is served.
    pub damage: Vec<Damage>,
    /// Block numbers that were durable and are gone.
    pub lost: Vec<LostBlocks>,
    /// Numbers.
    pub report: RecoveryReport,
}

/// Why a start is refused. Nothing was changed that would matter to a later start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoverError {
    /// A setting is out of its limits.
    BadConfig(String),
    /// The disk refused an operation.
    Disk(DiskError),
    /// Segments without a manifest.
    ManifestMissing,
    /// The manifest cannot be read.
    Manifest(String),
    /// The checkpoint cannot be read.
    Checkpoint(String),
    /// The state file cannot be read.
    State(String),
    /// The manifest says there is a checkpoint.
    CheckpointMissing,
    /// Other shard count than at the first start.
    ShardCount {
        /// In the manifest.
        found: u16,
        /// Asked for.
        asked: u16,
    },
    /// Another shard's directory.
    OtherShard {
        /// In the manifest.
        found: u16,
        /// Asked for.
        asked: u16,
    },
    /// Another node's or cluster's directory.
    OtherIdentity(String),
    /// Something that checks says that more blocks were durable than there is room for.
    BlockNumbers {
        /// First block of the segments without a footer.
        first: u64,
        /// Last block that is said to be durable.
        last: u64,
        /// Blocks that these segments can hold.
        room: u64,
    },
    /// A live segment's file is missing or too short.
    SegmentFile {
        /// The file's name.
        name: String,
        /// What is wrong.
        what: String,
    },
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecoverError::BadConfig(what) => write!(f, "the log's settings do not fit: {what}"),
            RecoverError::Disk(error) => write!(f, "{error}"),
            RecoverError::ManifestMissing => f.write_str(
                "there are segments but no manifest: put the file `manifest` back, or move the directory away to start with an empty one",
            ),
            RecoverError::Manifest(what) => {
                write!(f, "the manifest is {what}: restore it from a copy of the same time, or move the directory away")
            }
            RecoverError::Checkpoint(what) => {
                write!(f, "the checkpoint is {what}: restore it from a copy of the same time, or move the directory away")
            }
            RecoverError::State(what) => {
                write!(f, "the file `queues` is {what}: restore it from a copy of the same time, or move the directory away")
            }
            RecoverError::CheckpointMissing => {
                f.write_str("the manifest names a checkpoint but there is none: put the file `checkpoint` back")
            }
            RecoverError::ShardCount { found, asked } => write!(
                f,
                "the data directory was made for {found} shards and {asked} were asked for: start with --shards {found} (to change the number, \
                 move the data to a new directory)"
            ),
            RecoverError::OtherShard { found, asked } => {
                write!(f, "this is the directory of shard {found}, not of shard {asked}: were the directories renamed?")
            }
            RecoverError::OtherIdentity(what) => {
                write!(f, "the directory belongs to {what}: point --data-dir to this node's own directory")
            }
            RecoverError::BlockNumbers { first, last, room } => write!(
                f,
                "blocks {first} to {last} are said to be durable where only {room} can be: restore the shard's directory from a copy, or move it away"
            ),
            RecoverError::SegmentFile { name, what } => write!(f, "segment file {name} {what}: put it back, or move the directory away"),
        }
    }
}

impl std::error::Error for RecoverError {}

impl From<DiskError> for RecoverError {
    fn from(error: DiskError) -> RecoverError {
        RecoverError::Disk(error)
    }
}
