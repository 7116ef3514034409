//! DescribeStorage (kind 16): where the disk space of a node went, shard by shard.
//!
//! Not here: sizes of topics and partitions (DescribeTopic tells them).

use crate::prim::{DecodeError, Item, List, Reader, fixed, layout};
use std::fmt;

/// How full the file system of a shard is. Numbers that are not known here may come: higher is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DiskStage(pub u8);

impl DiskStage {
    /// Enough is free.
    pub const OK: DiskStage = DiskStage(0);
    /// Less is free than the node's setting for a warning.
    pub const WARN: DiskStage = DiskStage(1);
    /// Producers are slowed down.
    pub const SLOW: DiskStage = DiskStage(2);
    /// No segment is added any more; produce is refused once those that are there are full.
    pub const REFUSE: DiskStage = DiskStage(3);

    /// The word for it; nothing for a number that is not known here.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            DiskStage::OK => Some("ok"),
            DiskStage::WARN => Some("warn"),
            DiskStage::SLOW => Some("slow"),
            DiskStage::REFUSE => Some("refuse"),
            _ => None,
        }
    }
}

impl fmt::Display for DiskStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "stage-{}", self.0),
        }
    }
}

impl<'a> Item<'a> for DiskStage {
    const BYTES_MIN: usize = 1;
    fn read(from: &mut Reader<'a>) -> Result<DiskStage, DecodeError> {
        from.u8().map(DiskStage)
    }
    fn write(&self, to: &mut Vec<u8>) {
        to.push(self.0);
    }
}
fixed!(DiskStage, |it| [it.0]);

layout! {
    /// Tell of all shards of the node that is asked.
    pub struct DescribeStorageRequest {}
}

layout! {
    /// One shard. The five kinds of space make up all of its segment files.
    pub struct ShardStorage {
        /// The shard.
        pub shard: u16;
        /// How full its file system is.
        pub stage: DiskStage => zero 1;
        /// Segment files that are written to, wait for their index, or are being given back.
        pub segments_open: u32;
        /// Segment files with an index.
        pub segments_sealed: u32;
        /// Of these, the ones that the sorter wrote.
        pub segments_sorted: u32;
        /// Free files whose space was written before.
        pub pool_written: u32;
        /// Free files whose space is only allocated.
        pub pool_fresh: u32;
        /// Bytes of batches that are kept, in segments with an index.
        pub live_bytes: u64;
        /// Bytes of batches that are not kept any more, in segments with an index.
        pub dead_bytes: u64;
        /// The rest of the segments with an index: headers, tables, indexes, gaps, unused ends.
        pub padding_bytes: u64;
        /// Bytes of the open segment files.
        pub open_bytes: u64;
        /// Bytes of the free files.
        pub free_bytes: u64;
        /// Bytes of the segments that wait for the sorter.
        pub sorter_waiting_bytes: u64;
        /// Bytes that are free on the file system, as of the last look; 0 before the first.
        pub disk_free_bytes: u64;
    }
}

layout! {
    /// All shards that could be asked, in order of their number.
    pub struct DescribeStorageReply<'a> {
        /// The node.
        pub node: u32;
        /// Its shards.
        pub shards: List<'a, ShardStorage>;
    }
}
