//! The last part of a start: a segment to write to, the raised incarnation, and the log made of what was found.

use crate::ids::{BlockSeq, Incarnation, SegmentUid};
use crate::log::Log;
use crate::log::block_writer::{BlockLimits, OpenBlock, WriteWindow};
use crate::log::checkpoint::CheckpointV5;
use crate::log::config::LogConfig;
use crate::log::layout::{BLOCK_ALIGN, SEGMENT_DATA_START};
use crate::log::manifest::{FreeFileV1, ManifestV2, ManifestWriter, SegmentRecordV1, StartV1};
use crate::log::operation::Purpose;
use crate::log::operation::{segment_file, segment_file_name};
use crate::log::pool::Pool;
use crate::log::reads::Reads;
use crate::log::recovered::{RecoverError, RecoveryReport};
use crate::log::recovery::collect::Collector;
use crate::log::recovery::files::{Files, header_of};
use crate::log::recovery::scan::ScanEnd;
use crate::log::replace::Replace;
use crate::log::seal::Sealer;
use crate::log::segments::{BlockRow, Segment, SegmentState, Segments};
use crate::log::sorted::SortedWriter;
use crate::log::state_file::STATE_NAME;
use crate::log::tail_cache::TailCache;
use crate::log::types::LogStats;

/// Rows of the block table to have room for: two segments of smallest blocks, but not more than this.
const ROWS_HINT_MAX: u64 = 1 << 17;

pub(crate) fn open_log(
    files: &mut Files<'_>,
    mut manifest: ManifestV2,
    checkpoint: Option<&CheckpointV5>,
    open_records: &[usize],
    end: &ScanEnd,
    collector: &Collector,
    cfg: &LogConfig,
    report: &mut RecoveryReport,
) -> Result<Log, RecoverError> {
    let sealed_end = open_records.first().copied().unwrap_or(manifest.segments.len());
    // Prepared segments of another size than now asked for hold nothing that counts: they are replaced by fresh ones.
    let used = |open_index: usize| open_index <= end.segment && !open_records.is_empty();
    let mut unused_files = Vec::new();
    let mut segments = Vec::new();
    for (index, record) in manifest.segments.drain(..).enumerate() {
        let open_index = index.checked_sub(sealed_end);
        if open_index.is_some_and(|open_index| !used(open_index)) && record.bytes != cfg.segment_bytes {
            unused_files.push(record.file);
            continue;
        }
        segments.push((record, open_index));
    }
    manifest.segments = segments.iter().map(|(record, _)| record.clone()).collect();
    manifest.has_checkpoint |= checkpoint.is_some();
    manifest.incarnation += 1;
    if !report.first_start {
        // A crash may have left the next uids in header pages that no manifest knows: of a prepared segment and of a sorted one.
        manifest.next_uid += 2;
    }
    note_start(&mut manifest, end.next_seq, collector);

    let live_index = match end.tail {
        Some((open_index, _)) => Some(sealed_end + open_index),
        // Durable blocks are missing at the end, or there is no segment: go on in the first unused one.
        None => segments.iter().position(|(_, open_index)| open_index.is_some_and(|open_index| !used(open_index))),
    };
    let created = match live_index {
        Some(_) => None,
        None => Some(make_segment(files, &mut manifest, end.next_seq, cfg)?),
    };
    if report.first_start {
        prefill(files, &mut manifest, cfg)?;
    }
    files.replace_manifest(&manifest)?;
    for number in unused_files {
        files.disk.close(segment_file(number))?;
        files.disk.remove(&segment_file_name(number))?;
        report.files_removed.push(segment_file_name(number));
    }
    report.incarnation = Incarnation(manifest.incarnation);

    let rows_first = collector.rows.first().map_or(end.next_seq, |row| row.0);
    let rows_hint = (2 * cfg.segment_bytes / BLOCK_ALIGN as u64).min(ROWS_HINT_MAX);
    let mut table = Segments::new(rows_first, rows_hint as usize);
    let mut last_block = BlockSeq(checkpoint.map_or(0, |checkpoint| checkpoint.scan.first_seq.saturating_sub(1)));
    for (position, (record, open_index)) in segments.iter().enumerate() {
        let state = if record.sealed {
            SegmentState::Sealed { footer_entries: record.footer_entries }
        } else if Some(position) == live_index {
            SegmentState::Live
        } else if open_index.is_some_and(used) {
            SegmentState::Full { announced: false }
        } else {
            SegmentState::Ready
        };
        let mut segment = segment_of(record, state, false);
        segment.batch_bytes = report.batch_bytes.get(&record.uid).copied().unwrap_or(0);
        if let Some(content) = open_index.and_then(|open_index| collector.segments.get(open_index)) {
            segment.first_block = content.first_block;
            segment.last_block = content.last_block;
            segment.first_prev_crc = content.first_prev_crc;
            segment.batches = content.batches;
            segment.write_pos = content.end_pos.max(u64::from(SEGMENT_DATA_START));
        }
        if let Some((open_index, pos)) = end.tail
            && Some(sealed_end + open_index) == Some(position)
        {
            segment.write_pos = pos;
        }
        last_block = last_block.max(segment.last_block);
        if state == (SegmentState::Full { announced: false }) {
            segment.last_block = last_block;
        }
        table.add(segment);
    }
    if let Some((record, fresh)) = created {
        table.add(segment_of(&record, SegmentState::Live, fresh));
    }
    for record in &manifest.sorted_segments {
        let state = SegmentState::Sealed { footer_entries: record.footer_entries };
        let batch_bytes = report.batch_bytes.get(&record.uid).copied().unwrap_or(0);
        table.add_sorted(Segment { is_sorted: true, batch_bytes, ..segment_of(record, state, false) });
    }
    let mut next_row = rows_first;
    for (seq, row) in &collector.rows {
        fill_lost_rows(&mut table, &mut next_row, *seq);
        table.push_row(*seq, *row);
        next_row = BlockSeq(seq.0 + 1);
    }
    fill_lost_rows(&mut table, &mut next_row, end.next_seq);

    let mut pool = Pool::new(cfg.segment_bytes, cfg.fill_write_bytes, cfg.fill_idle_us, cfg.pool_segments);
    for free in &manifest.free {
        pool.give(free.file, free.filled);
    }
    for (number, bytes) in files.leftovers.drain(..) {
        pool.drop_file(number, bytes, false);
    }
    let durable = BlockSeq(end.next_seq.0 - 1);
    Ok(Log {
        limits: BlockLimits {
            block_bytes_max: cfg.block_bytes_max as usize,
            ceiling_bytes: cfg.block_ceiling_bytes() as usize,
            batch_bytes_max: cfg.batch_bytes_max as usize,
        },
        log_uid: manifest.log_uid,
        incarnation: Incarnation(manifest.incarnation),
        starts: manifest.starts.clone(),
        open: OpenBlock::new(),
        next_seq: end.next_seq,
        last_crc: end.last_crc,
        last_block_us: None,
        heavy_us: None,
        // The mark of this start makes known that everything found is durable.
        mark_due: durable.0 > 0,
        window: WriteWindow::new(durable, cfg.writes_in_flight_max),
        cache: TailCache::new(end.next_seq, cfg.tail_cache_bytes),
        segments: table,
        pool,
        manifest: ManifestWriter::new(cfg.mutants),
        sealer: Sealer::new(cfg.mutants),
        state: Replace::new(STATE_NAME, Purpose::State, cfg.mutants),
        sorted: SortedWriter::new(),
        keeps_sorter_file: false,
        reads: Reads::new(cfg.reads_in_flight_max),
        next_uid: manifest.next_uid,
        next_file: manifest.next_file,
        temporaries: 0,
        has_checkpoint: manifest.has_checkpoint,
        covered: BlockSeq(checkpoint.map_or(0, |checkpoint| checkpoint.covers_block)),
        background: true,
        failed: None,
        counters: LogStats::default(),
        cfg: cfg.clone(),
    })
}

/// Adds this start to the list and drops what no scan can need any more: starts whose blocks all stand before the first scanned one, and
/// starts that wrote nothing.
fn note_start(manifest: &mut ManifestV2, next_seq: BlockSeq, collector: &Collector) {
    let first = collector.rows.first().map_or(next_seq, |row| row.0);
    manifest.starts.retain(|start| start.first_seq < next_seq.0);
    let needed_from = manifest.starts.iter().rposition(|start| start.first_seq <= first.0).unwrap_or(0);
    manifest.starts.drain(..needed_from);
    manifest.starts.push(StartV1 { incarnation: manifest.incarnation, first_seq: next_seq.0 });
}

fn fill_lost_rows(table: &mut Segments, next: &mut BlockSeq, end: BlockSeq) {
    while *next < end {
        table.push_row(*next, BlockRow { segment: SegmentUid(0), pos: 0, len: 0 });
        next.0 += 1;
    }
}

fn segment_of(record: &SegmentRecordV1, state: SegmentState, fresh: bool) -> Segment {
    Segment {
        uid: SegmentUid(record.uid),
        file: record.file,
        bytes: record.bytes,
        incarnation: Incarnation(record.incarnation),
        first_seq_bound: BlockSeq(record.first_seq_bound),
        window_bytes: record.window_bytes,
        state,
        pins: 0,
        batches: 0,
        batch_bytes: 0,
        write_pos: u64::from(SEGMENT_DATA_START),
        first_block: BlockSeq(0),
        last_block: BlockSeq(0),
        first_prev_crc: 0,
        fresh,
        is_sorted: false,
        is_ended: false,
    }
}

fn create_file(files: &mut Files<'_>, manifest: &mut ManifestV2, bytes: u64, fill: bool) -> Result<u64, RecoverError> {
    let number = manifest.next_file;
    manifest.next_file += 1;
    files.disk.create(&segment_file_name(number), segment_file(number), bytes)?;
    if fill {
        files.fill_zero(segment_file(number), bytes)?;
    }
    files.disk.sync_dir()?;
    Ok(number)
}

/// Prepares a segment the way the running log does, but at once: a filled free file, any free file, or a new one.
fn make_segment(
    files: &mut Files<'_>,
    manifest: &mut ManifestV2,
    next_seq: BlockSeq,
    cfg: &LogConfig,
) -> Result<(SegmentRecordV1, bool), RecoverError> {
    let index = manifest.free.iter().position(|free| free.filled).or(if manifest.free.is_empty() { None } else { Some(0) });
    let (file, fresh) = match index {
        Some(index) => {
            let free = manifest.free.remove(index);
            (free.file, !free.filled)
        }
        None => {
            let fill = cfg.prefill_segments_at_first_start > 0 && manifest.segments.is_empty();
            (create_file(files, manifest, cfg.segment_bytes, fill)?, !fill)
        }
    };
    let record = SegmentRecordV1 {
        uid: manifest.next_uid,
        file,
        bytes: cfg.segment_bytes,
        incarnation: manifest.incarnation,
        first_seq_bound: next_seq.0,
        window_bytes: cfg.window_bytes(),
        sealed: false,
        footer_entries: 0,
    };
    manifest.next_uid += 1;
    let mut page = [0; BLOCK_ALIGN];
    header_of(manifest, &record).encode(&mut page);
    files.write_pages(segment_file(file), 0, &page)?;
    manifest.segments.push(record.clone());
    Ok((record, fresh))
}

fn prefill(files: &mut Files<'_>, manifest: &mut ManifestV2, cfg: &LogConfig) -> Result<(), RecoverError> {
    for _ in 1..cfg.prefill_segments_at_first_start {
        let file = create_file(files, manifest, cfg.segment_bytes, true)?;
        manifest.free.push(FreeFileV1 { file, filled: true });
    }
    Ok(())
}
