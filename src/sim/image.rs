//! Directories to begin from: what a short run of a node leaves on its disk. The fuzz targets (fuzz/) spoil copies of them.
//!
//! Invariants: the same seed and time give the same bytes; everything in it was written by the code that is released.
//!
//! Not here: what is done to the bytes (fuzz/), runs that are checked (`run.rs`).

use super::run::Run;
use super::{Params, Profile};
use crate::config::Settings;
use crate::log::LogConfig;
use crate::mutants::Mutants;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The directory of shard 0 of a node that has ended without warning.
pub struct Image {
    /// Its files, by name.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What the log was opened with.
    pub log: LogConfig,
    /// What the node was started with.
    pub settings: Arc<Settings>,
}

impl Image {
    /// Runs the seed's node, with clients, kills and power cuts, for `seconds` of simulated time, and ends it.
    /// Panics when that run fails: nothing is wrong with its disk.
    pub fn after(seed: u64, seconds: u64) -> Image {
        let drawn = Params::draw(seed, Profile::Faults);
        let params = Params {
            shards: 1,
            segment_bytes: 128 << 10,
            time_us: seconds * 1_000_000,
            operations: 0,
            operation_every_us: 5000,
            value_bytes_max: 400,
            retention_bytes: Some(64 << 10),
            sorter_segments: 2,
            crash_every_us: 1_500_000,
            full_every_us: 0,
            write_error_in: u64::MAX,
            read_error_in: u64::MAX,
            ..drawn
        };
        let mut run = Run::new(seed, params, Mutants::default(), false);
        run.until_done().unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        run.end_process(0, true);
        let node = &run.world.nodes[0];
        Image { files: node.disks[0].disk.files(), log: node.log_config(), settings: Arc::clone(&node.settings) }
    }
}
