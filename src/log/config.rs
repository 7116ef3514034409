//! Settings of one shard's log, each with its unit, its reason and its limits.
//!
//! Not here: where they come from (the shard fills them from the broker's settings).

use crate::bytes::BUFFER_BYTES_MAX;
use crate::ids::{NodeId, ShardId};
use crate::log::layout::{BLOCK_ALIGN, BLOCK_HEADER_BYTES, ENTRY_BYTES, FRAGMENT_BYTES, SEGMENT_DATA_START, TRAILER_BYTES, align_up};
use crate::mutants::Mutants;

/// Whose log this is. Written into the manifest at the first start and compared at every later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogIdentity {
    /// The cluster's random identity.
    pub cluster_id: [u8; 16],
    /// The node this directory belongs to.
    pub node: NodeId,
    /// Drawn by the caller; used only at the first start of an empty directory, afterwards the manifest's number holds. It stands in
    /// every block, so that no client can build bytes which recovery would take for a block, and a file of another disk is foreign.
    pub log_uid_if_new: u64,
}

/// Settings of one shard's log.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Whose log this is.
    pub identity: LogIdentity,
    /// The shard that owns it.
    pub shard: ShardId,
    /// Number of shards of the data directory: fixed at the first start.
    pub shards: u16,
    /// Bytes of a segment file: multiple of 4096, at most 4 GiB - 4096 (positions are u32), at least four of the largest blocks.
    /// Larger means fewer rolls and coarser retention.
    pub segment_bytes: u64,
    /// A block stops taking more at this size (padding included). 1 MiB: larger ones gained nothing in the trials, and the tail of one
    /// write is what a record waits for.
    pub block_bytes_max: u32,
    /// Largest single batch or control payload; above `block_bytes_max` it gets a block of its own. At most 8 MiB less 8 KiB.
    pub batch_bytes_max: u32,
    /// Block writes under way at most, 1..=4. 3 hides one slow write without making a long queue at the disk.
    pub writes_in_flight_max: u32,
    /// Memory of written blocks kept for consumers at the tail, in bytes (whole buffers are counted).
    pub tail_cache_bytes: usize,
    /// Free files kept ready behind the prepared next segment.
    pub pool_segments: u32,
    /// Segments that the very first start creates zero-filled before it returns (the first one included); 0 leaves even the first to
    /// fresh extents. Costs segment_bytes of writing each, and saves a journal commit per write into them.
    pub prefill_segments_at_first_start: u32,
    /// Bytes of one zero-fill write. 256 KiB keeps a block that arrives meanwhile waiting for some 0.2 ms at most.
    pub fill_write_bytes: u32,
    /// How long nothing must have been written before the pool is filled, in microseconds. Beside small blocks it is filled as well (`pool.rs`).
    pub fill_idle_us: u64,
    /// Cold reads under way at most; more are refused.
    pub reads_in_flight_max: u32,
    /// Idle time after which an empty mark block is written, in microseconds (D3: one second).
    pub mark_after_us: u64,
    /// Whether a start reads and checks every page of every footer (true), or only the header page of each.
    pub check_footers_at_start: bool,
    /// The simulator's; a constant "none" everywhere else.
    pub mutants: Mutants,
}

impl LogConfig {
    /// Defaults for everything but identity and place.
    pub fn new(identity: LogIdentity, shard: ShardId, shards: u16) -> LogConfig {
        LogConfig {
            identity,
            shard,
            shards,
            segment_bytes: 256 << 20,
            block_bytes_max: 1 << 20,
            batch_bytes_max: (8 << 20) - (8 << 10),
            writes_in_flight_max: 3,
            tail_cache_bytes: 64 << 20,
            pool_segments: 2,
            prefill_segments_at_first_start: 1,
            fill_write_bytes: 256 << 10,
            fill_idle_us: 10_000,
            reads_in_flight_max: 64,
            mark_after_us: 1_000_000,
            check_footers_at_start: true,
            mutants: Mutants::default(),
        }
    }

    /// The largest block this configuration can write, in bytes, padding included.
    pub fn block_ceiling_bytes(&self) -> u32 {
        let single =
            BLOCK_HEADER_BYTES as u64 + u64::from(self.batch_bytes_max) + 8 + (ENTRY_BYTES + FRAGMENT_BYTES + TRAILER_BYTES) as u64;
        align_up(single.max(u64::from(self.block_bytes_max)), BLOCK_ALIGN as u64) as u32
    }

    /// Bytes that can be closed and not yet durable: what recovery has to look through behind a hole.
    pub fn window_bytes(&self) -> u64 {
        u64::from(self.block_ceiling_bytes()) * u64::from(self.writes_in_flight_max)
    }

    /// Checks every limit; the error says which setting has to change.
    pub fn validate(&self) -> Result<(), String> {
        let page = BLOCK_ALIGN as u64;
        if self.shards == 0 || self.shard.0 >= self.shards {
            return Err(format!("shard {} is not one of {} shards", self.shard, self.shards));
        }
        if !(1..=4).contains(&self.writes_in_flight_max) {
            return Err(format!("writes in flight must be 1 to 4, not {}", self.writes_in_flight_max));
        }
        if u64::from(self.block_bytes_max) % page != 0 || self.block_bytes_max < 4 * BLOCK_ALIGN as u32 {
            return Err(format!("the block size must be a multiple of 4096 and at least 16384, not {}", self.block_bytes_max));
        }
        if self.batch_bytes_max < 1024 || self.block_ceiling_bytes() as usize > BUFFER_BYTES_MAX {
            return Err(format!("the largest batch must be 1024 to {} bytes, not {}", BUFFER_BYTES_MAX - 8192, self.batch_bytes_max));
        }
        if !self.segment_bytes.is_multiple_of(page) || self.segment_bytes > u64::from(u32::MAX) - 4095 {
            return Err(format!("the segment size must be a multiple of 4096 below 4 GiB, not {}", self.segment_bytes));
        }
        let least = SEGMENT_DATA_START as u64 + 4 * u64::from(self.block_ceiling_bytes());
        if self.segment_bytes < least {
            return Err(format!(
                "the segment size must be at least {least} bytes (four of the largest blocks), not {}",
                self.segment_bytes
            ));
        }
        if self.fill_write_bytes == 0 || u64::from(self.fill_write_bytes) % page != 0 || self.fill_write_bytes as usize > BUFFER_BYTES_MAX {
            return Err(format!("the zero-fill write must be a multiple of 4096 up to 8 MiB, not {}", self.fill_write_bytes));
        }
        if self.reads_in_flight_max == 0 {
            return Err("at least one cold read must be allowed".to_string());
        }
        Ok(())
    }
}
