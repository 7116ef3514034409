//! The directories to begin from, made once per process: by the simulator, which runs the real node over a disk that it kills and cuts off.

use crate::disk::MemDisk;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use tramline::log::{Recovered, RecoveredBatch, recover};
use tramline::mutants::Mutants;
use tramline::sim::{Image, MUTANTS};

/// Seeds and simulated seconds: a young log without a footer, one with footers, and ones with sorted segments, recycled files and several
/// starts behind them.
const RUNS: [(u64, u64); 5] = [(3, 1), (5, 3), (2, 6), (7, 10), (11, 20)];

/// One of them.
pub struct Base {
    pub image: Image,
    files: BTreeMap<String, Arc<Vec<u8>>>,
    /// Batches that a start over the unspoiled directory finds, in runs or singly, with their bytes.
    pub batches: Vec<(RecoveredBatch, Vec<u8>)>,
    /// Entries of each block behind the checkpoint.
    pub entries: BTreeMap<u64, usize>,
    /// Highest block found.
    pub durable: u64,
}

impl Base {
    fn new(seed: u64, seconds: u64) -> Base {
        let mut image = Image::after(seed, seconds);
        // A bug on purpose, to see that it is found: docs/CAMPAIGNS.md.
        if let Ok(name) = std::env::var("TRAMLINE_FUZZ_MUTANT") {
            let named = MUTANTS.iter().find(|named| named.name == name).expect("a name of `tramline-sim --list-mutants`");
            image.log.mutants = Mutants::only(named.mutant);
        }
        let files: BTreeMap<_, _> = std::mem::take(&mut image.files).into_iter().map(|(name, data)| (name, Arc::new(data))).collect();
        let mut disk = MemDisk::new(&files);
        let found = recover(&mut disk, &image.log).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(found.damage.is_empty(), "seed {seed}: {:?}", found.damage);
        let names = crate::checks::segment_files(&disk);
        let bytes_of = |batch: &RecoveredBatch| {
            let file = disk.look(&names[&batch.segment.0]).expect("a segment's file");
            file[batch.pos as usize..(batch.pos + batch.len) as usize].to_vec()
        };
        let batches = found.batches.iter().chain(&found.covered_batches).map(|batch| (*batch, bytes_of(batch))).collect();
        Base { batches, entries: entries_of(&found), durable: found.report.durable_through.0, image, files }
    }

    /// A copy of its files.
    pub fn disk(&self) -> MemDisk {
        MemDisk::new(&self.files)
    }
}

/// How many entries each block has.
pub fn entries_of(found: &Recovered) -> BTreeMap<u64, usize> {
    let mut count = BTreeMap::new();
    found.entries.iter().for_each(|entry| *count.entry(entry.block.0).or_default() += 1);
    count
}

/// All of them.
pub fn bases() -> &'static [Base] {
    static BASES: LazyLock<Vec<Base>> = LazyLock::new(|| {
        let made: Vec<Base> = RUNS.iter().map(|(seed, seconds)| Base::new(*seed, *seconds)).collect();
        let all = |holds: fn(&MemDisk) -> bool| made.iter().filter(|base| holds(&base.disk())).count();
        let sorted = all(|disk| !crate::checks::manifest_of(disk).sorted_segments.is_empty());
        let sealed = all(|disk| crate::checks::manifest_of(disk).segments.iter().any(|record| record.sealed));
        assert!(
            sorted >= 1 && sealed >= 2,
            "the directories have no sorted segments ({sorted}) or no sealed ones ({sealed}): choose other seeds"
        );
        made
    });
    &BASES
}
