//! Recovery: from the files of a shard's directory to a log that takes appends. Runs once, synchronously, before the shard's loop.
//!
//! Steps: sync what is found before trusting it; manifest and identity; remove what interrupted work left (only names of our patterns); checkpoint;
//! sync and walk the segments without a footer (`scan.rs`: torn or damaged); check footers, rebuild broken ones; make sure that there is a
//! segment to write to; raise the incarnation durably in the manifest. Nothing is written to a segment's blocks here, and whatever instant a
//! crash picks, the next start does the same again.
//!
//! Invariants: an acknowledged block is never dropped silently: it is found, or it is reported as damage and its number is never used again;
//! the manifest written at the end is the first durable trace of this start, and no block of it is written before.
//!
//! Not here: applying what was found (the shard), repair from replicas.

mod collect;
pub(crate) mod files;
mod footers;
mod open;
pub(crate) mod scan;
mod start_disk;

pub use start_disk::{DiskError, StartDisk};

use crate::ids::{BlockSeq, FileId, Incarnation, SegmentUid};
use crate::log::checkpoint::{CHECKPOINT_NAME, CHECKPOINT_SCHEMA, CHECKPOINT_VERSION, CheckpointV5, RunV1};
use crate::log::config::LogConfig;
use crate::log::footer::footer_bytes;
use crate::log::layout::BLOCK_ALIGN;
use crate::log::manifest::{MANIFEST_NAME, MANIFEST_SCHEMA, MANIFEST_VERSION, ManifestV2, SegmentRecordV1, StartV1};
use crate::log::operation::{segment_file, segment_file_name, segment_file_number};
use crate::log::plausible::check_together;
use crate::log::recovered::{LostBlocks, RecoverError, Recovered, RecoveryReport};
use crate::log::state_file::{STATE_NAME, StateFile};
use crate::log::types::{Damage, DamageKind};
use collect::Collector;
use files::Files;
use scan::{ScanEnd, ScanPlan, ScanSegment, ScanSource, Starts, scan};
use std::collections::{BTreeMap, BTreeSet};

/// Left over segment files that a start removes before it goes on: on a full disk their space may be needed, and one takes some 50 ms (`dropping.rs`).
const REMOVED_AT_ONCE_MAX: usize = 8;

/// Opens the log in `disk`'s directory: a first start, a restart, or a restart after a crash.
pub fn recover(disk: &mut dyn StartDisk, cfg: &LogConfig) -> Result<Recovered, RecoverError> {
    cfg.validate().map_err(RecoverError::BadConfig)?;
    let mut files = Files::new(disk);
    let mut report = RecoveryReport::default();
    // A crash between a rename and its directory sync: what the names say now must not change under us later.
    files.disk.sync_dir()?;
    let names: BTreeSet<String> = files.list()?.into_iter().collect();
    let mut manifest = read_manifest(&mut files, &names, cfg, &mut report)?;
    check_identity(&manifest, cfg)?;
    remove_leftovers(&mut files, &names, &manifest, &mut report)?;
    let mut checkpoint = read_checkpoint(&mut files, &names, &manifest)?;
    let state = read_state(&mut files, &names)?;
    let mut damage = Vec::new();
    open_files(&mut files, &names, &mut manifest, cfg, &mut report)?;

    let scan_from = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.scan.segment);
    let open_records: Vec<usize> = (0..manifest.segments.len()).filter(|index| manifest.segments[*index].uid >= scan_from).collect();
    for &index in &open_records {
        files.disk.sync(segment_file(manifest.segments[index].file))?;
        if files.check_segment_header(&manifest, index)? {
            damage.push(segment_damage(manifest.segments[index].uid, 0, 4096, DamageKind::SegmentHeader));
        }
    }
    let covers = BlockSeq(checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.covers_block));
    let mut collector = Collector::new(covers, open_records.len());
    let end = walk(&mut files, &manifest, &open_records, checkpoint.as_ref(), covers, cfg, &mut collector, &mut damage)?;
    let mut lost = Vec::new();
    for range in &end.lost {
        let uid = manifest.segments[open_records[range.segment]].uid;
        let kind = DamageKind::BlocksLost { first_seq: range.first, last_seq: range.last };
        damage.push(segment_damage(uid, range.pos, range.len, kind));
        lost.push(LostBlocks { first: range.first, last: range.last, bytes: range.total });
    }
    report.segments_scanned = open_records.len() as u32;
    report.blocks = end.blocks;
    report.bytes = end.bytes;
    report.cut_from = end.cut.then_some(end.next_seq);
    report.durable_through = BlockSeq(end.next_seq.0 - 1);

    footers::check_all(&mut files, &mut manifest, scan_from, checkpoint.as_mut(), cfg, &mut damage, &mut report)?;
    footers::check_sorted(&mut files, &mut manifest, checkpoint.as_mut(), cfg, &mut damage, &mut report)?;
    if report.footers_rebuilt > 0
        && let Some(checkpoint) = &checkpoint
    {
        // Its runs point into the rebuilt footers now. Before the manifest, which has the new footers' lengths: until that is written a start
        // takes them for broken and rebuilds them again.
        files.replace_checkpoint(checkpoint)?;
    }
    if let Some(checkpoint) = &mut checkpoint {
        report.runs_dropped = drop_freed_runs(checkpoint, &manifest);
        check_together(&manifest, checkpoint).map_err(|what| RecoverError::Checkpoint(format!("whole and names {what}")))?;
    }
    let log = open::open_log(&mut files, manifest, checkpoint.as_ref(), &open_records, &end, &collector, cfg, &mut report)?;
    let found = collector.finish(&mut damage);
    Ok(Recovered {
        log,
        checkpoint,
        state,
        entries: found.entries,
        batches: found.batches,
        covered_batches: found.covered_batches,
        controls: found.controls,
        hard_states: found.hard_states,
        replicas: found.replicas,
        doubts: found.doubts,
        forced: found.forced,
        damage,
        lost,
        report,
    })
}

/// Segments may have been freed after the checkpoint was written: their runs go, and with them whatever their partitions had
/// before (a neighbour may have kept an older segment). Gives the number of runs that went.
fn drop_freed_runs(checkpoint: &mut CheckpointV5, manifest: &ManifestV2) -> u32 {
    let is_in = |list: &[SegmentRecordV1], run: &RunV1| list.binary_search_by_key(&run.segment, |record| record.uid).is_ok();
    let freed = |run: &RunV1| !is_in(&manifest.segments, run) && !is_in(&manifest.sorted_segments, run);
    let mut starts: BTreeMap<u64, u64> = checkpoint.partitions.iter().map(|p| (p.uid, p.log_start)).collect();
    for run in checkpoint.runs.iter().filter(|run| freed(run)) {
        let start = starts.entry(run.uid).or_default();
        *start = run.end_offset.max(*start);
    }
    for partition in &mut checkpoint.partitions {
        partition.log_start = starts[&partition.uid];
    }
    let before = checkpoint.runs.len();
    checkpoint.runs.retain(|run| !freed(run) && starts.get(&run.uid).is_none_or(|start| run.end_offset > *start));
    (before - checkpoint.runs.len()) as u32
}

fn segment_damage(uid: u64, pos: u64, len: u64, kind: DamageKind) -> Damage {
    Damage { segment: SegmentUid(uid), pos, len, kind }
}

/// The manifest; at a first start an empty one, made durable before anything else is created.
fn read_manifest(
    files: &mut Files<'_>,
    names: &BTreeSet<String>,
    cfg: &LogConfig,
    report: &mut RecoveryReport,
) -> Result<ManifestV2, RecoverError> {
    if names.contains(MANIFEST_NAME) {
        let bytes = files.read_small(MANIFEST_NAME)?;
        return files::decode_envelope(&bytes, MANIFEST_SCHEMA, MANIFEST_VERSION).map_err(RecoverError::Manifest);
    }
    if names.iter().any(|name| name == CHECKPOINT_NAME || segment_file_number(name).is_some()) {
        return Err(RecoverError::ManifestMissing);
    }
    report.first_start = true;
    let manifest = ManifestV2 {
        cluster_id: cfg.identity.cluster_id,
        node: cfg.identity.node.0,
        shard: cfg.shard.0,
        shards: cfg.shards,
        log_uid: cfg.identity.log_uid_if_new,
        next_uid: 1,
        next_file: 1,
        ..ManifestV2::default()
    };
    files.replace_manifest(&manifest)?;
    Ok(manifest)
}

fn check_identity(manifest: &ManifestV2, cfg: &LogConfig) -> Result<(), RecoverError> {
    if manifest.shards != cfg.shards {
        return Err(RecoverError::ShardCount { found: manifest.shards, asked: cfg.shards });
    }
    if manifest.shard != cfg.shard.0 {
        return Err(RecoverError::OtherShard { found: manifest.shard, asked: cfg.shard.0 });
    }
    if manifest.cluster_id != cfg.identity.cluster_id {
        return Err(RecoverError::OtherIdentity("another cluster".to_string()));
    }
    if manifest.node != cfg.identity.node.0 {
        return Err(RecoverError::OtherIdentity(format!("node {} of this cluster", manifest.node)));
    }
    Ok(())
}

/// Removes what a crash left half done: temporary files, and segment files that the manifest does not know. Where there are many of the latter, for
/// whoever frees a lot has a queue of them, the rest waits in `Files::leftovers` for the running log. Other names are left alone.
fn remove_leftovers(
    files: &mut Files<'_>,
    names: &BTreeSet<String>,
    manifest: &ManifestV2,
    report: &mut RecoveryReport,
) -> Result<(), RecoverError> {
    let segments = manifest.segments.iter().chain(&manifest.sorted_segments).map(|record| record.file);
    let known: BTreeSet<u64> = segments.chain(manifest.free.iter().map(|free| free.file)).collect();
    let temporary =
        |name: &str| name.strip_suffix(".new").is_some_and(|stem| stem == MANIFEST_NAME || stem == CHECKPOINT_NAME || stem == STATE_NAME);
    let mut segment_files = 0;
    for name in names {
        let number = segment_file_number(name).filter(|number| !known.contains(number));
        segment_files += usize::from(number.is_some());
        // One that cannot be opened, or whose name the running log would not write like this, goes at once as well.
        if let Some(number) = number
            && segment_files > REMOVED_AT_ONCE_MAX
            && *name == segment_file_name(number)
            && let Ok(bytes) = files.disk.open(name, segment_file(number))
        {
            files.leftovers.push((number, bytes));
        } else if number.is_some() || temporary(name) {
            files.disk.remove(name)?;
            report.files_removed.push(name.clone());
        }
    }
    if !report.files_removed.is_empty() {
        files.disk.sync_dir()?;
    }
    Ok(())
}

fn read_checkpoint(files: &mut Files<'_>, names: &BTreeSet<String>, manifest: &ManifestV2) -> Result<Option<CheckpointV5>, RecoverError> {
    if !names.contains(CHECKPOINT_NAME) {
        return if manifest.has_checkpoint { Err(RecoverError::CheckpointMissing) } else { Ok(None) };
    }
    let bytes = files.read_small(CHECKPOINT_NAME)?;
    let checkpoint: CheckpointV5 =
        files::decode_envelope(&bytes, CHECKPOINT_SCHEMA, CHECKPOINT_VERSION).map_err(RecoverError::Checkpoint)?;
    if checkpoint.shard != manifest.shard {
        return Err(RecoverError::Checkpoint(format!("of shard {}", checkpoint.shard)));
    }
    Ok(Some(checkpoint))
}

fn read_state(files: &mut Files<'_>, names: &BTreeSet<String>) -> Result<Option<StateFile>, RecoverError> {
    if !names.contains(STATE_NAME) {
        return Ok(None);
    }
    let bytes = files.read_small(STATE_NAME)?;
    StateFile::read(&bytes).map(Some).map_err(RecoverError::State)
}

/// Opens every file of the manifest. A free file that is missing or of another size is forgotten; a segment's must be whole.
fn open_files(
    files: &mut Files<'_>,
    names: &BTreeSet<String>,
    manifest: &mut ManifestV2,
    cfg: &LogConfig,
    report: &mut RecoveryReport,
) -> Result<(), RecoverError> {
    let highest = names.iter().filter_map(|name| segment_file_number(name)).max().unwrap_or(0);
    manifest.next_file = manifest.next_file.max(highest + 1);
    for record in manifest.segments.iter().chain(&manifest.sorted_segments) {
        let name = segment_file_name(record.file);
        if !names.contains(&name) {
            return Err(RecoverError::SegmentFile { name, what: "is missing".to_string() });
        }
        let len = files.disk.open(&name, segment_file(record.file))?;
        if len < record.bytes {
            return Err(RecoverError::SegmentFile { name, what: format!("has {len} bytes instead of {}", record.bytes) });
        }
    }
    let mut kept = Vec::new();
    for free in std::mem::take(&mut manifest.free) {
        let name = segment_file_name(free.file);
        if !names.contains(&name) {
            continue;
        }
        if files.disk.open(&name, segment_file(free.file))? == cfg.segment_bytes {
            kept.push(free);
        } else {
            files.disk.close(segment_file(free.file))?;
            files.disk.remove(&name)?;
            report.files_removed.push(name);
        }
    }
    manifest.free = kept;
    Ok(())
}

struct OpenSegments<'a, 'd> {
    files: &'a mut Files<'d>,
    numbers: Vec<u64>,
    unreadable: BTreeMap<(FileId, u64), i32>,
}

impl ScanSource for OpenSegments<'_, '_> {
    fn read(&mut self, segment: usize, pos: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.files.read_what_can_be_read(segment_file(self.numbers[segment]), pos, buf, &mut self.unreadable)
    }
}

fn walk(
    files: &mut Files<'_>,
    manifest: &ManifestV2,
    open_records: &[usize],
    checkpoint: Option<&CheckpointV5>,
    covers: BlockSeq,
    cfg: &LogConfig,
    collector: &mut Collector,
    damage: &mut Vec<Damage>,
) -> Result<ScanEnd, RecoverError> {
    let records = || open_records.iter().map(|index| &manifest.segments[*index]);
    let to_scan =
        |record: &SegmentRecordV1| ScanSegment { uid: SegmentUid(record.uid), bytes: record.bytes, window_bytes: record.window_bytes };
    let (first_seq, prev_crc) = match checkpoint {
        Some(checkpoint) => (checkpoint.scan.first_seq.max(1), checkpoint.scan.prev_header_crc),
        None => (1, 0),
    };
    // What stood before the last start's first block was synced by that start before it wrote anything.
    let before_last_start = manifest.starts.last().map_or(0, |start| start.first_seq.saturating_sub(1));
    let plan = ScanPlan {
        shard: cfg.shard,
        log_uid: manifest.log_uid,
        segments: records().map(to_scan).collect(),
        starts: starts_of(manifest),
        first_seq: Some(BlockSeq(first_seq)),
        prev_crc: Some(prev_crc),
        known_durable: covers.max(BlockSeq(before_last_start)),
        expects_tail: true,
        mutants: cfg.mutants,
    };
    let mut source = OpenSegments { numbers: records().map(|record| record.file).collect(), files, unreadable: BTreeMap::new() };
    let end = scan(plan, &mut source, &mut |block| {
        let uid = SegmentUid(manifest.segments[open_records[block.segment]].uid);
        collector.take(&block, uid);
    })?;
    // Lost blocks were somewhere, a page each at least: a number beyond that is no count of them.
    let room: u64 = records().map(|record| record.bytes / BLOCK_ALIGN as u64).sum();
    if end.next_seq.0 - first_seq > room {
        return Err(RecoverError::BlockNumbers { first: first_seq, last: end.next_seq.0 - 1, room });
    }
    for (record, content) in records().zip(&collector.segments) {
        // The log keeps that room with each block it writes.
        if content.end_pos + footer_bytes(content.batches) > record.bytes && content.end_pos > 0 {
            let what = format!("has {} bytes of blocks, which leave no room for a footer of {} entries", content.end_pos, content.batches);
            return Err(RecoverError::SegmentFile { name: segment_file_name(record.file), what });
        }
    }
    if covers >= end.next_seq {
        return Err(RecoverError::Checkpoint(format!("whole and covers block {covers} of a log that ends before block {}", end.next_seq)));
    }
    // An unreadable page is no evidence of a torn write: where the end of the log hangs on one, nobody may decide that it was never
    // acknowledged.
    if let Some((index, tail)) = end.tail {
        let (file, window) = (segment_file(source.numbers[index]), manifest.segments[open_records[index]].window_bytes);
        if let Some((_, errno)) = source.unreadable.range((file, tail)..(file, tail + window)).next() {
            return Err(DiskError { op: "read", name: segment_file_name(source.numbers[index]), errno: *errno }.into());
        }
    }
    for ((file, pos), errno) in source.unreadable {
        let uid = records().find(|record| segment_file(record.file) == file).map_or(0, |record| record.uid);
        damage.push(segment_damage(uid, pos, BLOCK_ALIGN as u64, DamageKind::Unreadable { errno }));
    }
    Ok(end)
}

pub(crate) fn starts_of(manifest: &ManifestV2) -> Starts {
    let pair = |start: &StartV1| (Incarnation(start.incarnation), BlockSeq(start.first_seq));
    Starts::Known(manifest.starts.iter().map(pair).collect())
}
