//! The checkpoint: what a start needs so that it does not have to read the log from its beginning.
//!
//! It covers every block up to `covers_block` (their entries were applied) and holds the run lists of the sealed segments, so that only
//! segments that are not sealed are scanned. One file, `checkpoint`, replaced atomically (`replace.rs`), as an rkyv archive in our envelope.
//!
//! Not here: where its content comes from (the shard), when it is written (`seal.rs`).

use rkyv::{Archive, Deserialize, Serialize};

/// The checkpoint's file.
pub const CHECKPOINT_NAME: &str = "checkpoint";
/// Schema number of the checkpoint in its envelope.
pub const CHECKPOINT_SCHEMA: u16 = 2;
/// Version of the checkpoint.
pub const CHECKPOINT_VERSION: u16 = 5;

/// A group's place in Raft.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupPositionV3 {
    /// The group.
    pub group: u32,
    /// Current term.
    pub term: u64,
    /// Vote in this term, 0 for none.
    pub vote: u64,
    /// Committed index.
    pub commit: u64,
    /// Applied index: the checkpoint's content includes it and nothing behind it.
    pub applied_index: u64,
    /// Term of the applied index.
    pub applied_term: u64,
    /// This shard's replica of it.
    pub replica: u64,
    /// Of the entries of it in blocks up to this one only batches up to `since_applied` count: what is behind came with a snapshot. 0 without one.
    pub since_block: u64,
    /// The last entry that was taken in when the snapshot came.
    pub since_applied: u64,
    /// Index of the newest change of who votes and learns that is taken in, 0 for none.
    pub conf_index: u64,
    /// Who votes in it.
    pub voters: Vec<u64>,
    /// Who learns it.
    pub learners: Vec<u64>,
}

/// A partition's place.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionPositionV1 {
    /// The partition.
    pub uid: u64,
    /// Its topic's uid.
    pub topic: u64,
    /// Its group.
    pub group: u32,
    /// First offset that is kept.
    pub log_start: u64,
    /// Offset the next record gets.
    pub next_offset: u64,
    /// Newest timestamp of its records, UTC microseconds.
    pub newest_ts: i64,
}

/// A batch of an idempotent producer.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerBatchV1 {
    /// Records of the producer's epoch before it.
    pub first: u64,
    /// Records in it.
    pub count: u32,
    /// Its first offset.
    pub base_offset: u64,
    /// When it was appended, UTC microseconds.
    pub append_time: i64,
}

/// What a partition remembers of an idempotent producer. Committed batches only, also some behind `covers_block`.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerV1 {
    /// The partition.
    pub partition: u64,
    /// The producer.
    pub id: u64,
    /// Its epoch.
    pub epoch: u16,
    /// How many batches of it the checkpoint has: at least one.
    pub batches: u16,
}

/// A run: the batches of one partition in one sealed segment.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct RunV1 {
    /// The partition.
    pub uid: u64,
    /// The segment.
    pub segment: u64,
    /// First offset.
    pub first_offset: u64,
    /// Offset behind the last one.
    pub end_offset: u64,
    /// Newest timestamp, UTC microseconds.
    pub newest_ts: i64,
    /// Bytes of its batches.
    pub bytes: u64,
    /// Its first entry in the segment's footer.
    pub footer_first: u32,
    /// How many it has there.
    pub footer_count: u32,
}

/// Where the scan of a start begins. Filled in by the log when it writes the checkpoint; callers leave it at its default.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanStartV1 {
    /// First segment that the run lists do not account for: this one and all behind it are scanned.
    pub segment: u64,
    /// Number of its first block.
    pub first_seq: u64,
    /// Header checksum of the block before that.
    pub prev_header_crc: u32,
}

/// A checkpoint, version 5.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointV5 {
    /// The shard.
    pub shard: u16,
    /// All blocks up to this one are accounted for in what follows.
    pub covers_block: u64,
    /// Groups.
    pub groups: Vec<GroupPositionV3>,
    /// Partitions.
    pub partitions: Vec<PartitionPositionV1>,
    /// Runs of sealed segments.
    pub runs: Vec<RunV1>,
    /// Idempotent producers, by partition and id.
    pub producers: Vec<ProducerV1>,
    /// The last batches of each of them (of its epoch, in order), one producer after the other.
    pub producer_batches: Vec<ProducerBatchV1>,
    /// Control payloads that say what consumer groups have committed and who their members are, to be taken in before those of the log.
    pub notes: Vec<Vec<u8>>,
    /// Shard 0: snapshot of group 0.
    pub control: Vec<u8>,
    /// Filled in by the log.
    pub scan: ScanStartV1,
}
