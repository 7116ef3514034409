//! The manifest: it alone says which file is live, sealed or free.
//!
//! State-based: whoever changed the table asks for an edit and gets a version; one writing covers all edits asked for before it began, and
//! who waits compares its version with the durable one. So a burst of edits costs two writings, not one each.
//!
//! Invariants: a segment enters only after its header page is durable, is called sealed only after footer and checkpoint are durable, and
//! leaves before its file is used for anything else.
//!
//! Not here: the steps of writing (`replace.rs`).

use crate::bytes::Slab;
use crate::effects::{Effects, Now, Outcome};
use crate::log::operation::Purpose;
use crate::log::replace::{Replace, Replaced};
use crate::mutants::Mutants;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

/// Schema number of the manifest in its envelope.
pub const MANIFEST_SCHEMA: u16 = 1;
/// Version of the manifest.
pub const MANIFEST_VERSION: u16 = 2;
/// Its file.
pub const MANIFEST_NAME: &str = "manifest";

/// A segment as the manifest knows it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentRecordV1 {
    /// The segment.
    pub uid: u64,
    /// Number of its file.
    pub file: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Blocks in it have this incarnation or a higher one.
    pub incarnation: u64,
    /// No block below this number is in it.
    pub first_seq_bound: u64,
    /// Bytes that recovery has to search behind a hole in it.
    pub window_bytes: u64,
    /// Whether it has a footer.
    pub sealed: bool,
    /// Entries of the footer.
    pub footer_entries: u32,
}

/// A free file.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct FreeFileV1 {
    /// Its number.
    pub file: u64,
    /// Whether all its extents were written once.
    pub filled: bool,
}

/// A start of the log: every block from `first_seq` up to the next start's has this incarnation, so a block that an earlier start wrote and
/// a later one cut is known as stale whatever else it says. What stands before `first_seq` was durable when the start wrote this.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartV1 {
    /// The incarnation.
    pub incarnation: u64,
    /// Number of its first block.
    pub first_seq: u64,
}

/// A shard's manifest, version 2.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct ManifestV2 {
    /// The cluster.
    pub cluster_id: [u8; 16],
    /// The node.
    pub node: u32,
    /// The shard.
    pub shard: u16,
    /// Number of shards of the data directory.
    pub shards: u16,
    /// The log's random number: stands in every block.
    pub log_uid: u64,
    /// The start that wrote this manifest: raised before a start's first write to the log.
    pub incarnation: u64,
    /// Starts whose blocks may stand in segments that a start scans, oldest first; the last one is this start.
    pub starts: Vec<StartV1>,
    /// Next segment.
    pub next_uid: u64,
    /// Next file.
    pub next_file: u64,
    /// Whether a checkpoint was ever written.
    pub has_checkpoint: bool,
    /// Segments in log order.
    pub segments: Vec<SegmentRecordV1>,
    /// Segments that the sorter wrote, by uid; all have a footer. They hold no blocks: `first_seq_bound` and `window_bytes` are 0.
    pub sorted_segments: Vec<SegmentRecordV1>,
    /// Free files.
    pub free: Vec<FreeFileV1>,
}

/// Serializes into `scratch`.
pub(crate) fn serialize<T>(value: &T, scratch: AlignedVec<16>) -> AlignedVec<16>
where
    T: for<'a> Serialize<rkyv::api::high::HighSerializer<AlignedVec<16>, rkyv::ser::allocator::ArenaHandle<'a>, rkyv::rancor::Error>>,
{
    rkyv::api::high::to_bytes_in(value, scratch).expect("serializing into memory only fails when memory ends")
}

/// The edits of the manifest.
pub(crate) struct ManifestWriter {
    replace: Replace,
    asked: u64,
    writing: u64,
    durable: u64,
}

impl ManifestWriter {
    pub(crate) fn new(mutants: Mutants) -> ManifestWriter {
        ManifestWriter { replace: Replace::new(MANIFEST_NAME, Purpose::Manifest, mutants), asked: 0, writing: 0, durable: 0 }
    }

    /// Asks for the table as it is now to be written; returns the version to wait for.
    pub(crate) fn ask(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }
    pub(crate) fn is_durable(&self, version: u64) -> bool {
        self.durable >= version
    }
    pub(crate) fn is_quiet(&self) -> bool {
        self.replace.is_idle() && self.asked == self.durable
    }
    pub(crate) fn create_errno(&self) -> i32 {
        self.replace.create_errno
    }

    /// Whether a writing is asked for and none is under way.
    pub(crate) fn wants_writing(&self) -> bool {
        self.replace.is_idle() && self.asked > self.durable
    }

    /// Begins a writing of the table as it is now, for all edits asked for so far.
    pub(crate) fn begin(&mut self, table: &ManifestV2, temporaries: &mut u64, slab: &mut Slab, effects: &mut Effects) {
        assert!(self.wants_writing());
        self.writing = self.asked;
        let payload = serialize(table, self.replace.take_scratch());
        self.replace.begin(MANIFEST_SCHEMA, MANIFEST_VERSION, payload, temporaries, slab, effects);
    }

    pub(crate) fn on_turn(&mut self, now: Now, slab: &mut Slab, effects: &mut Effects) {
        self.replace.on_turn(now, slab, effects);
    }

    pub(crate) fn on_done(&mut self, now: Now, slab: &mut Slab, outcome: Outcome, effects: &mut Effects) -> Result<(), String> {
        match self.replace.on_done(now, slab, outcome, effects) {
            Replaced::Going => Ok(()),
            Replaced::Failed(reason) => Err(reason),
            Replaced::Done => {
                self.durable = self.writing;
                Ok(())
            }
        }
    }
}
