//! Footers at a start: checking them, and rebuilding one that does not check from the blocks of its segment.
//!
//! A rebuilt footer holds the batches that the checkpoint's runs of this segment name; the runs' places in the footer are set anew, so
//! that both fit each other whatever was lost.

use crate::ids::{BlockSeq, FileId, GroupId, Incarnation, Offset, PartitionUid, SegmentUid, ShardId};
use crate::log::checkpoint::{CheckpointV5, RunV1};
use crate::log::config::LogConfig;
use crate::log::footer::{
    FOOTER_PAGE_BYTES, FOOTER_PAGE_ENTRIES, FooterEntry, FooterHeader, batch_bytes_of, check_page, decode_slice, encode_page, footer_bytes,
    page_count, read_plan,
};
use crate::log::layout::{FRAGMENT_ALIGN, FRAGMENT_BATCH, SEGMENT_DATA_START};
use crate::log::manifest::{ManifestV2, SegmentRecordV1};
use crate::log::operation::{segment_file, segment_file_name};
use crate::log::recovered::{RecoverError, RecoveryReport};
use crate::log::recovery::files::{Files, is_medium_error};
use crate::log::recovery::scan::{FoundBlock, ScanPlan, ScanSegment, ScanSource, scan};
use crate::log::recovery::{DiskError, segment_damage, starts_of};
use crate::log::types::{BatchFault, Damage, DamageKind, EntryKind};
use std::collections::BTreeMap;
use tramline_wire::batch::{BATCH_HEADER_BYTES, BatchView};

/// Checks the footer of every segment before `scan_from` (the checkpoint's runs point into them), whatever the manifest calls them.
pub(crate) fn check_all(
    files: &mut Files<'_>,
    manifest: &mut ManifestV2,
    scan_from: u64,
    mut checkpoint: Option<&mut CheckpointV5>,
    cfg: &LogConfig,
    damage: &mut Vec<Damage>,
    report: &mut RecoveryReport,
) -> Result<(), RecoverError> {
    for index in 0..manifest.segments.len() {
        let record = manifest.segments[index].clone();
        if record.uid >= scan_from {
            manifest.segments[index].sealed = false;
            manifest.segments[index].footer_entries = 0;
            continue;
        }
        let listed = match good_footer(files, manifest, &record, cfg)? {
            Some(listed) => listed,
            None => {
                report_broken(&record, damage, report);
                let runs = checkpoint.as_deref_mut().map(|checkpoint| &mut checkpoint.runs);
                rebuild(files, manifest, &record, runs, cfg, damage)?
            }
        };
        manifest.segments[index].sealed = true;
        manifest.segments[index].footer_entries = listed.entries;
        report.batch_bytes.insert(record.uid, listed.batch_bytes);
    }
    Ok(())
}

/// The same for the sorter's segments, which have no blocks: a footer is rebuilt from the batches themselves.
pub(crate) fn check_sorted(
    files: &mut Files<'_>,
    manifest: &mut ManifestV2,
    mut checkpoint: Option<&mut CheckpointV5>,
    cfg: &LogConfig,
    damage: &mut Vec<Damage>,
    report: &mut RecoveryReport,
) -> Result<(), RecoverError> {
    for index in 0..manifest.sorted_segments.len() {
        let record = manifest.sorted_segments[index].clone();
        let listed = match good_footer(files, manifest, &record, cfg)? {
            Some(listed) => listed,
            None => {
                report_broken(&record, damage, report);
                rebuild_sorted(files, manifest, &record, checkpoint.as_deref_mut(), damage)?
            }
        };
        manifest.sorted_segments[index].footer_entries = listed.entries;
        report.batch_bytes.insert(record.uid, listed.batch_bytes);
    }
    Ok(())
}

/// What a footer lists.
struct Listed {
    entries: u32,
    /// Bytes of all their batches; 0 where nobody has looked.
    batch_bytes: u64,
}

/// The entries of a footer that is there and checks.
fn good_footer(
    files: &mut Files<'_>,
    manifest: &ManifestV2,
    record: &SegmentRecordV1,
    cfg: &LogConfig,
) -> Result<Option<Listed>, RecoverError> {
    let Some(header) = readable(read_header(files, manifest, record))?.flatten() else { return Ok(None) };
    let entries = header.entry_count;
    if !cfg.check_footers_at_start {
        return Ok(Some(Listed { entries, batch_bytes: 0 }));
    }
    let batch_bytes = readable(batch_bytes_of_good_pages(files, record, &header))?.flatten();
    Ok(batch_bytes.map(|batch_bytes| Listed { entries, batch_bytes }))
}

fn report_broken(record: &SegmentRecordV1, damage: &mut Vec<Damage>, report: &mut RecoveryReport) {
    let pos = record.bytes - FOOTER_PAGE_BYTES as u64;
    damage.push(segment_damage(record.uid, pos, FOOTER_PAGE_BYTES as u64, DamageKind::Footer));
    report.footers_rebuilt += 1;
}

/// Nothing where the medium refuses to be read: a footer there is as good as none.
fn readable<T>(result: Result<T, DiskError>) -> Result<Option<T>, DiskError> {
    match result {
        Err(error) if is_medium_error(error.errno) => Ok(None),
        other => other.map(Some),
    }
}

fn read_header(files: &mut Files<'_>, manifest: &ManifestV2, record: &SegmentRecordV1) -> Result<Option<FooterHeader>, DiskError> {
    let mut page = vec![0; FOOTER_PAGE_BYTES];
    files.read_pages(segment_file(record.file), record.bytes - FOOTER_PAGE_BYTES as u64, &mut page)?;
    let fits = |header: &FooterHeader| {
        header.segment.0 == record.uid
            && header.log_uid == manifest.log_uid
            && footer_bytes(header.entry_count) < record.bytes
            && header.position == record.bytes - footer_bytes(header.entry_count)
            && (!record.sealed || header.entry_count == record.footer_entries)
    };
    Ok(FooterHeader::decode(&page).filter(fits))
}

/// The bytes of all batches that a footer lists; nothing when one of its pages does not check.
fn batch_bytes_of_good_pages(files: &mut Files<'_>, record: &SegmentRecordV1, header: &FooterHeader) -> Result<Option<u64>, DiskError> {
    let mut pages = vec![0; page_count(header.entry_count) as usize * FOOTER_PAGE_BYTES];
    files.read_pages(segment_file(record.file), header.position, &mut pages)?;
    let (mut crc, mut batch_bytes) = (0, 0);
    for (index, page) in (0..).zip(pages.chunks_exact(FOOTER_PAGE_BYTES)) {
        let held = (header.entry_count - index * FOOTER_PAGE_ENTRIES).min(FOOTER_PAGE_ENTRIES);
        match check_page(page, header.segment, index, held) {
            Some(page_crc) => crc = crc32c::crc32c_append(crc, &page_crc.to_le_bytes()),
            None => return Ok(None),
        }
        batch_bytes += batch_bytes_of(page, held);
    }
    Ok((crc == header.pages_crc).then_some(batch_bytes))
}

struct OneSegment<'a, 'd> {
    files: &'a mut Files<'d>,
    number: u64,
    unreadable: BTreeMap<(FileId, u64), i32>,
}

impl ScanSource for OneSegment<'_, '_> {
    fn read(&mut self, _segment: usize, pos: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.files.read_what_can_be_read(segment_file(self.number), pos, buf, &mut self.unreadable)
    }
}

/// Makes the footer of a sealed segment anew.
fn rebuild(
    files: &mut Files<'_>,
    manifest: &ManifestV2,
    record: &SegmentRecordV1,
    runs: Option<&mut Vec<RunV1>>,
    cfg: &LogConfig,
    damage: &mut Vec<Damage>,
) -> Result<Listed, RecoverError> {
    let uid = SegmentUid(record.uid);
    let plan = ScanPlan {
        shard: cfg.shard,
        log_uid: manifest.log_uid,
        segments: vec![ScanSegment { uid, bytes: record.bytes, window_bytes: record.window_bytes }],
        starts: match manifest.starts.first() {
            // The list of starts reaches back to the oldest segment without a footer only.
            Some(first) if first.incarnation <= record.incarnation => starts_of(manifest),
            _ => crate::log::recovery::scan::Starts::NonDecreasing,
        },
        first_seq: None,
        prev_crc: None,
        known_durable: BlockSeq(u64::MAX - 1),
        expects_tail: false,
        mutants: cfg.mutants,
    };
    let mut entries = Vec::new();
    let (mut first_block, mut last_block, mut data_end) = (BlockSeq(0), BlockSeq(0), u64::from(SEGMENT_DATA_START));
    let mut source = OneSegment { files, number: record.file, unreadable: BTreeMap::new() };
    let end = scan(plan, &mut source, &mut |block| {
        let seq = block.view.header.block_seq;
        first_block = if first_block.0 == 0 { seq } else { first_block };
        last_block = seq;
        data_end = block.pos + u64::from(block.view.header.padded_len());
        collect_entries(&block, uid, &mut entries, damage);
    })?;
    for ((_, pos), errno) in source.unreadable {
        damage.push(segment_damage(record.uid, pos, FOOTER_PAGE_BYTES as u64, DamageKind::Unreadable { errno }));
    }
    for range in &end.lost {
        let kind = DamageKind::BlocksLost { first_seq: range.first, last_seq: range.last };
        damage.push(segment_damage(record.uid, range.pos, range.len, kind));
    }
    write_rebuilt(files, manifest, record, runs, entries, [first_block, last_block], data_end)
}

/// Each page of a footer checks by itself, and the manifest says where they are. What a bad page listed is looked for among the batches between
/// those that its neighbours list.
fn rebuild_sorted(
    files: &mut Files<'_>,
    manifest: &ManifestV2,
    record: &SegmentRecordV1,
    checkpoint: Option<&mut CheckpointV5>,
    damage: &mut Vec<Damage>,
) -> Result<Listed, RecoverError> {
    let uid = SegmentUid(record.uid);
    let header = readable(read_header(files, manifest, record))?.flatten();
    let position = record.bytes - footer_bytes(record.footer_entries);
    let mut unreadable = BTreeMap::new();
    let mut pages = vec![0; page_count(record.footer_entries) as usize * FOOTER_PAGE_BYTES];
    files.read_copied(segment_file(record.file), position, &mut pages, &mut unreadable)?;
    let mut entries: Vec<FooterEntry> = Vec::new();
    // Where the batches of bad pages are; open until the next good page tells where it ends.
    let mut gap_from = None;
    let mut gaps = Vec::new();
    for (index, page) in (0..).zip(pages.chunks_exact(FOOTER_PAGE_BYTES)) {
        let first = index * FOOTER_PAGE_ENTRIES;
        let count = (record.footer_entries - first).min(FOOTER_PAGE_ENTRIES);
        let listed = entries.len();
        let end = entries.last().map_or(u64::from(SEGMENT_DATA_START), |last| u64::from(last.pos) + u64::from(last.len));
        match decode_slice(&read_plan(uid, record.bytes, record.footer_entries, first, count), page, &mut entries) {
            Ok(()) => gaps.extend(gap_from.take().and_then(|from| gap(from, u64::from(entries[listed].pos), position))),
            Err(_) => gap_from = gap_from.or(Some(end)),
        }
    }
    gaps.extend(gap_from.and_then(|from| gap(from, header.map_or(position, |header| header.data_end), position)));
    let groups: BTreeMap<u64, u32> = checkpoint.iter().flat_map(|c| &c.partitions).map(|p| (p.uid, p.group)).collect();
    for gap in gaps {
        let from = gap.start & !(FOOTER_PAGE_BYTES as u64 - 1);
        let mut bytes = vec![0; ((gap.end - from) as usize).next_multiple_of(FOOTER_PAGE_BYTES)];
        files.read_copied(segment_file(record.file), from, &mut bytes, &mut unreadable)?;
        let found = batches_in(&bytes, from, gap);
        entries
            .extend(found.map(|entry| FooterEntry { group: GroupId(groups.get(&entry.partition_uid.0).copied().unwrap_or(0)), ..entry }));
    }
    for ((_, pos), errno) in unreadable {
        damage.push(segment_damage(record.uid, pos, FOOTER_PAGE_BYTES as u64, DamageKind::Unreadable { errno }));
    }
    // What lies behind the data is of an earlier life of the file: the lower place counts.
    entries.sort_by_key(|entry| (entry.sort_key(), entry.pos));
    entries.dedup_by_key(|entry| entry.sort_key());
    let data_end = entries.iter().map(|e| u64::from(e.pos) + u64::from(e.len)).max().unwrap_or(0).max(u64::from(SEGMENT_DATA_START));
    write_rebuilt(files, manifest, record, checkpoint.map(|c| &mut c.runs), entries, [BlockSeq(0); 2], data_end)
}

/// Where batches may stand that no good page lists: before the footer, whatever the pages around say.
fn gap(from: u64, end: u64, footer_position: u64) -> Option<std::ops::Range<u64>> {
    let end = end.min(footer_position);
    (from < end).then_some(from..end)
}

/// The batches whose headers check, in `range` of the file of which `bytes` begin at `from`. Where none stands the next one is looked for eight
/// bytes further on.
fn batches_in(bytes: &[u8], from: u64, range: std::ops::Range<u64>) -> impl Iterator<Item = FooterEntry> + '_ {
    let mut at = range.start.next_multiple_of(FRAGMENT_ALIGN as u64);
    std::iter::from_fn(move || {
        while at + (BATCH_HEADER_BYTES as u64) <= range.end {
            let pos = at;
            let found = BatchView::parse(&bytes[(pos - from) as usize..]).ok().filter(|batch| batch.verify_header().is_ok());
            let Some(batch) = found.filter(|batch| pos + batch.bytes().len() as u64 <= range.end) else {
                at += FRAGMENT_ALIGN as u64;
                continue;
            };
            at = (pos + batch.bytes().len() as u64).next_multiple_of(FRAGMENT_ALIGN as u64);
            return Some(FooterEntry {
                partition_uid: PartitionUid(batch.partition_uid()),
                base_offset: Offset(batch.base_offset()),
                newest_ts: batch.effective_newest_us(),
                pos: pos as u32,
                len: batch.bytes().len() as u32,
                last_offset_delta: batch.last_offset_delta(),
                group: GroupId(0),
            });
        }
        None
    })
}

/// Writes the footer of the entries that runs point to, and points the runs to it.
fn write_rebuilt(
    files: &mut Files<'_>,
    manifest: &ManifestV2,
    record: &SegmentRecordV1,
    runs: Option<&mut Vec<RunV1>>,
    mut entries: Vec<FooterEntry>,
    [first_block, last_block]: [BlockSeq; 2],
    data_end: u64,
) -> Result<Listed, RecoverError> {
    let uid = SegmentUid(record.uid);
    entries.sort_by_key(FooterEntry::sort_key);
    // Of two batches at one offset the later one counts; the sort is stable, so it is the last of its like.
    entries.reverse();
    entries.dedup_by_key(|entry| entry.sort_key());
    entries.reverse();
    let no_runs = &mut Vec::new();
    let runs = runs.unwrap_or(no_runs);
    entries.retain(|entry| runs.iter().any(|run| holds(run, uid, entry)));
    set_run_places(runs, uid, &entries);
    let count = entries.len() as u32;
    // Each batch kept room for its footer entry, so blocks that run into that room were not written by a log.
    let Some(position) = record.bytes.checked_sub(footer_bytes(count)).filter(|position| *position >= data_end) else {
        let what = format!("has {data_end} bytes of blocks, which leave no room for a footer of {count} entries");
        return Err(RecoverError::SegmentFile { name: segment_file_name(record.file), what });
    };
    let mut header = FooterHeader {
        shard: ShardId(manifest.shard),
        segment: uid,
        incarnation: Incarnation(manifest.incarnation),
        log_uid: manifest.log_uid,
        entry_count: count,
        position,
        first_block,
        last_block,
        newest_ts: entries.iter().map(|entry| entry.newest_ts).max().unwrap_or(i64::MIN),
        data_end,
        pages_crc: 0,
    };
    let mut bytes = vec![0; footer_bytes(count) as usize];
    let (pages, header_page) = bytes.split_at_mut(page_count(count) as usize * FOOTER_PAGE_BYTES);
    for ((index, page), part) in (0..).zip(pages.chunks_exact_mut(FOOTER_PAGE_BYTES)).zip(entries.chunks(FOOTER_PAGE_ENTRIES as usize)) {
        let crc = encode_page(page, uid, index, part);
        header.pages_crc = crc32c::crc32c_append(header.pages_crc, &crc.to_le_bytes());
    }
    header.encode(header_page);
    files.write_pages(segment_file(record.file), position, &bytes)?;
    Ok(Listed { entries: count, batch_bytes: entries.iter().map(|entry| u64::from(entry.len)).sum() })
}

fn collect_entries(block: &FoundBlock<'_>, segment: SegmentUid, out: &mut Vec<FooterEntry>, damage: &mut Vec<Damage>) {
    for entry in block.view.entries().filter(|entry| matches!(entry.kind, EntryKind::Data | EntryKind::Import)) {
        for fragment in block.view.fragments_of(&entry).filter(|fragment| fragment.kind == FRAGMENT_BATCH) {
            let content = block.view.content(&fragment);
            let number = entry.fragment_first..entry.fragment_first + entry.fragment_count;
            let bad = block.bad.iter().any(|bad| {
                number.contains(&bad.number) && block.view.fragment(bad.number) == fragment && bad.fault != Some(BatchFault::Body)
            });
            let Some(batch) = BatchView::parse_exact(content).ok().filter(|_| !bad) else {
                let (pos, len) = (block.pos + u64::from(fragment.offset), u64::from(fragment.length));
                let kind = DamageKind::BatchHeader { seq: block.view.header.block_seq, group: entry.group, index: entry.index };
                damage.push(segment_damage(segment.0, pos, len, kind));
                continue;
            };
            out.push(FooterEntry {
                partition_uid: PartitionUid(batch.partition_uid()),
                base_offset: Offset(batch.base_offset()),
                newest_ts: batch.effective_newest_us(),
                pos: (block.pos + u64::from(fragment.offset)) as u32,
                len: fragment.length,
                last_offset_delta: batch.last_offset_delta(),
                group: GroupId(entry.group.0),
            });
        }
    }
}

fn holds(run: &RunV1, segment: SegmentUid, entry: &FooterEntry) -> bool {
    let offset = entry.base_offset.0;
    run.segment == segment.0 && run.uid == entry.partition_uid.0 && run.first_offset <= offset && offset < run.end_offset
}

/// Points the runs of this segment at their entries; a run that has none left goes.
fn set_run_places(runs: &mut Vec<RunV1>, segment: SegmentUid, entries: &[FooterEntry]) {
    for run in runs.iter_mut().filter(|run| run.segment == segment.0) {
        let first = entries.partition_point(|entry| entry.sort_key() < (PartitionUid(run.uid), Offset(run.first_offset)));
        let end = entries.partition_point(|entry| entry.sort_key() < (PartitionUid(run.uid), Offset(run.end_offset)));
        run.footer_first = first as u32;
        run.footer_count = (end - first) as u32;
    }
    runs.retain(|run| run.segment != segment.0 || run.footer_count > 0);
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_gap_lies_before_the_footer_and_does_not_end_before_it_begins() {
        assert_eq!(super::gap(4096, 9000, 20_480), Some(4096..9000));
        assert_eq!(super::gap(4096, u64::MAX, 20_480), Some(4096..20_480));
        assert_eq!(super::gap(9000, 4096, 20_480), None);
        assert_eq!(super::gap(9000, 9000, 20_480), None);
    }
}
