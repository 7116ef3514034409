//! Off-line inspection: prints what a shard's directory or a single segment file holds and verifies every checksum in it.
//!
//! Reads only, through `InspectSource`. Uses the walk and the rules of recovery, so what it calls damage is what a start calls damage; on
//! top of that it checks the content of sealed segments, which a start does not read, and that footers and blocks agree.
//!
//! Not here: opening files (`tramline inspect` brings a source over the file system), repair.

use crate::ids::{BlockSeq, SegmentUid, ShardId};
use crate::log::check_batch;
use crate::log::checkpoint::{CHECKPOINT_NAME, CHECKPOINT_SCHEMA, CHECKPOINT_VERSION, CheckpointV5};
use crate::log::footer::{FOOTER_PAGE_BYTES, FooterEntry, FooterHeader, decode_slice, footer_bytes, read_plan};
use crate::log::layout::{BLOCK_ALIGN, FRAGMENT_BATCH, SegmentHeader, peek_header};
use crate::log::manifest::{MANIFEST_NAME, MANIFEST_SCHEMA, MANIFEST_VERSION, ManifestV2, SegmentRecordV1};
use crate::log::operation::segment_file_name;
use crate::log::plausible::Plausible;
use crate::log::recovery::files::{decode_envelope, header_of};
use crate::log::recovery::scan::{FoundBlock, ScanEnd, ScanPlan, ScanSegment, ScanSource, Starts, scan};
use crate::log::recovery::{DiskError, starts_of};
use crate::log::types::EntryKind;
use rkyv::util::AlignedVec;
use std::collections::BTreeMap;
use std::fmt::Write;
use tramline_wire::batch::BatchView;

/// Files of one shard's directory, or of the directory a single segment file is in; read only.
pub trait InspectSource {
    /// Names in the directory.
    fn list(&mut self) -> Result<Vec<String>, DiskError>;
    /// Bytes of a file.
    fn len(&mut self, name: &str) -> Result<u64, DiskError>;
    /// Fills `buf` from `pos` of a file (inside it; both multiples of 4096).
    fn read(&mut self, name: &str, pos: u64, buf: &mut [u8]) -> Result<(), DiskError>;
}

/// How much is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// One line per file and per segment.
    Segments,
    /// And one per block.
    Blocks,
    /// And one per entry, batch and footer entry.
    Entries,
}

/// Something that does not check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectDamage {
    /// The file.
    pub file: String,
    /// Where it begins.
    pub pos: u64,
    /// Bytes.
    pub len: u64,
    /// What is wrong.
    pub what: String,
}

/// What an inspection found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InspectReport {
    /// Damage, in the order met. Empty: everything checks.
    pub damage: Vec<InspectDamage>,
    /// Segments looked at.
    pub segments: u64,
    /// Good blocks.
    pub blocks: u64,
    /// Entries in them.
    pub entries: u64,
    /// Batches in them, each checked.
    pub batches: u64,
    /// Bytes of the good blocks.
    pub bytes: u64,
    /// Footer entries, each compared with its batch.
    pub footer_entries: u64,
    /// Blocks that were never acknowledged whole stand behind the end (a crash left them): not damage.
    pub torn_tail: bool,
}

struct Inspector<'a> {
    source: &'a mut dyn InspectSource,
    out: &'a mut dyn Write,
    detail: Detail,
    report: InspectReport,
}

/// Inspects a shard's directory.
pub fn inspect_shard(source: &mut dyn InspectSource, detail: Detail, out: &mut dyn Write) -> InspectReport {
    let mut inspector = Inspector { source, out, detail, report: InspectReport::default() };
    inspector.shard();
    inspector.report
}

/// Inspects one segment file by itself. Without a manifest the rules are a little weaker: see docs/FORMAT.md.
pub fn inspect_segment(source: &mut dyn InspectSource, name: &str, detail: Detail, out: &mut dyn Write) -> InspectReport {
    let mut inspector = Inspector { source, out, detail, report: InspectReport::default() };
    if let Err(error) = inspector.lone_segment(name) {
        inspector.damage(name, 0, 0, error.to_string());
    }
    inspector.report
}

struct Named<'a> {
    source: &'a mut dyn InspectSource,
    names: Vec<String>,
}

impl ScanSource for Named<'_> {
    fn read(&mut self, segment: usize, pos: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.source.read(&self.names[segment], pos, buf)
    }
}

/// A batch that was met: what a footer entry has to agree with, by position in the segment.
type Batches = BTreeMap<u32, (u64, u64, u32)>;

impl Inspector<'_> {
    fn say(&mut self, line: std::fmt::Arguments<'_>) {
        // A writer that refuses (a closed pipe) must not end the verification.
        let _ = self.out.write_fmt(line);
        let _ = self.out.write_char('\n');
    }

    fn damage(&mut self, file: &str, pos: u64, len: u64, what: String) {
        self.say(format_args!("DAMAGE {file} at byte {pos} ({len} bytes): {what}"));
        self.report.damage.push(InspectDamage { file: file.to_string(), pos, len, what });
    }

    fn shard(&mut self) {
        let names = match self.source.list() {
            Ok(names) => names,
            Err(error) => return self.damage(".", 0, 0, error.to_string()),
        };
        let Some(manifest) = self.small_file::<ManifestV2>(MANIFEST_NAME, MANIFEST_SCHEMA, MANIFEST_VERSION) else { return };
        self.say(format_args!(
            "manifest: node {} shard {} of {}, start {}, {} segments, {} sorted, {} free files",
            manifest.node,
            manifest.shard,
            manifest.shards,
            manifest.incarnation,
            manifest.segments.len(),
            manifest.sorted_segments.len(),
            manifest.free.len()
        ));
        let mut checkpoint = None;
        if names.iter().any(|name| name == CHECKPOINT_NAME) {
            checkpoint = self.small_file::<CheckpointV5>(CHECKPOINT_NAME, CHECKPOINT_SCHEMA, CHECKPOINT_VERSION);
        } else if manifest.has_checkpoint {
            self.damage(CHECKPOINT_NAME, 0, 0, "the manifest names a checkpoint and there is none".to_string());
        }
        if let Some(checkpoint) = &checkpoint {
            self.say(format_args!(
                "checkpoint: covers block {}, {} groups, {} partitions, {} runs",
                checkpoint.covers_block,
                checkpoint.groups.len(),
                checkpoint.partitions.len(),
                checkpoint.runs.len()
            ));
        }
        let scan_from = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.scan.segment);
        let (sealed, open): (Vec<_>, Vec<_>) = manifest.segments.iter().partition(|record| record.uid < scan_from);
        for record in sealed {
            self.whole_file(&manifest, record, |inspector, name| inspector.sealed(&manifest, record, name));
        }
        for record in &manifest.sorted_segments {
            self.whole_file(&manifest, record, |inspector, name| {
                inspector.sorted(manifest.log_uid, SegmentUid(record.uid), record.bytes, name)
            });
        }
        let mut whole = Vec::new();
        for record in open {
            self.whole_file(&manifest, record, |_, _| {
                whole.push(record);
                Ok(())
            });
        }
        if let Err(error) = self.open_segments(&manifest, &whole, checkpoint.as_ref()) {
            self.damage(&error.name.clone(), 0, 0, error.to_string());
        }
    }

    fn small_file<T>(&mut self, name: &str, schema: u16, version: u16) -> Option<T>
    where
        T: rkyv::Archive + Plausible,
        T::Archived: for<'b> rkyv::bytecheck::CheckBytes<rkyv::api::high::HighValidator<'b, rkyv::rancor::Error>>
            + rkyv::Deserialize<T, rkyv::api::high::HighDeserializer<rkyv::rancor::Error>>,
    {
        let read = |source: &mut dyn InspectSource| -> Result<AlignedVec<16>, DiskError> {
            let len = source.len(name)? as usize & !(BLOCK_ALIGN - 1);
            let mut bytes = AlignedVec::new();
            bytes.resize(len, 0);
            source.read(name, 0, &mut bytes)?;
            Ok(bytes)
        };
        let decoded = match read(self.source) {
            Ok(bytes) => decode_envelope(&bytes, schema, version).map_err(|what| (bytes.len() as u64, what)),
            Err(error) => Err((0, error.to_string())),
        };
        match decoded {
            Ok(value) => Some(value),
            Err((len, what)) => {
                self.damage(name, 0, len, what);
                None
            }
        }
    }

    /// Checks length and header page of a segment's file, then goes on with `then`.
    fn whole_file(&mut self, manifest: &ManifestV2, record: &SegmentRecordV1, then: impl FnOnce(&mut Self, &str) -> Result<(), DiskError>) {
        let name = segment_file_name(record.file);
        let mut page = [0; BLOCK_ALIGN];
        let len = self.source.len(&name);
        let result = match len {
            Ok(len) if len < record.bytes => return self.damage(&name, len, record.bytes - len, "the file is cut".to_string()),
            Ok(_) => self.source.read(&name, 0, &mut page),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            return self.damage(&name, 0, 0, error.to_string());
        }
        self.report.segments += 1;
        if SegmentHeader::decode(&page) != Some(header_of(manifest, record)) {
            self.damage(&name, 0, BLOCK_ALIGN as u64, "the segment's header page does not check".to_string());
        }
        if let Err(error) = then(self, &name) {
            self.damage(&name, 0, 0, error.to_string());
        }
    }

    fn sealed(&mut self, manifest: &ManifestV2, record: &SegmentRecordV1, name: &str) -> Result<(), DiskError> {
        let uid = SegmentUid(record.uid);
        let plan = ScanPlan {
            shard: ShardId(manifest.shard),
            log_uid: manifest.log_uid,
            segments: vec![ScanSegment { uid, bytes: record.bytes, window_bytes: record.window_bytes }],
            starts: Starts::NonDecreasing,
            first_seq: None,
            prev_crc: None,
            known_durable: BlockSeq(u64::MAX - 1),
            expects_tail: false,
            mutants: Default::default(),
        };
        let header = self.footer_header(name, uid, manifest.log_uid, record.bytes)?;
        self.say(format_args!("segment {uid} in {name}: sealed, {} footer entries", header.map_or(0, |header| header.entry_count)));
        let mut batches = vec![Batches::new()];
        let end = self.walk(plan, vec![name.to_string()], &mut batches)?;
        match header {
            None => self.damage(
                name,
                record.bytes - FOOTER_PAGE_BYTES as u64,
                FOOTER_PAGE_BYTES as u64,
                "the footer does not check".to_string(),
            ),
            Some(header) => {
                if end.next_seq.0 <= header.last_block.0 {
                    let what = format!("blocks {} to {} cannot be read", end.next_seq, header.last_block);
                    let from = end.tail.map_or(0, |tail| tail.1);
                    self.damage(name, from, header.data_end.saturating_sub(from), what);
                }
                self.footer(name, &header, record.bytes, &batches[0])?;
            }
        }
        Ok(())
    }

    /// A segment of the sorter's: nothing but batches, and the footer that lists them.
    fn sorted(&mut self, log_uid: u64, uid: SegmentUid, bytes: u64, name: &str) -> Result<(), DiskError> {
        let Some(header) = self.footer_header(name, uid, log_uid, bytes)? else {
            let pos = bytes - FOOTER_PAGE_BYTES as u64;
            self.damage(name, pos, FOOTER_PAGE_BYTES as u64, "the footer does not check".to_string());
            return Ok(());
        };
        self.say(format_args!("segment {uid} in {name}: sorted, {} footer entries", header.entry_count));
        let mut good = Batches::new();
        for entry in self.footer_entries(name, &header, bytes)?.unwrap_or_default() {
            let from = u64::from(entry.pos) & !(BLOCK_ALIGN as u64 - 1);
            let end = u64::from(entry.pos) + u64::from(entry.len);
            if end > header.position {
                continue;
            }
            let mut pages = vec![0; ((end - from) as usize).next_multiple_of(BLOCK_ALIGN)];
            self.source.read(name, from, &mut pages)?;
            let batch = &pages[(u64::from(entry.pos) - from) as usize..(end - from) as usize];
            if check_batch(batch, entry.partition_uid, entry.base_offset).is_ok() {
                good.insert(entry.pos, (entry.partition_uid.0, entry.base_offset.0, entry.len));
                self.report.batches += 1;
            }
        }
        self.footer(name, &header, bytes, &good)
    }

    fn footer_header(&mut self, name: &str, uid: SegmentUid, log_uid: u64, bytes: u64) -> Result<Option<FooterHeader>, DiskError> {
        let mut page = vec![0; FOOTER_PAGE_BYTES];
        self.source.read(name, bytes - FOOTER_PAGE_BYTES as u64, &mut page)?;
        let fits = |header: &FooterHeader| {
            header.segment == uid
                && header.log_uid == log_uid
                && footer_bytes(header.entry_count) < bytes
                && header.position == bytes - footer_bytes(header.entry_count)
        };
        Ok(FooterHeader::decode(&page).filter(fits))
    }

    fn footer(&mut self, name: &str, header: &FooterHeader, bytes: u64, batches: &Batches) -> Result<(), DiskError> {
        let Some(entries) = self.footer_entries(name, header, bytes)? else {
            let len = bytes - FOOTER_PAGE_BYTES as u64 - header.position;
            self.damage(name, header.position, len, "a page of the footer does not check".to_string());
            return Ok(());
        };
        self.report.footer_entries += entries.len() as u64;
        for entry in &entries {
            if self.detail >= Detail::Entries {
                self.say(format_args!(
                    "    footer: partition uid {} offset {} +{} at {} ({} bytes)",
                    entry.partition_uid, entry.base_offset, entry.last_offset_delta, entry.pos, entry.len
                ));
            }
            if batches.get(&entry.pos) != Some(&(entry.partition_uid.0, entry.base_offset.0, entry.len)) {
                let (uid, offset) = (entry.partition_uid, entry.base_offset);
                let what = format!("the footer names a batch of partition uid {uid} at offset {offset} here and there is no good one");
                self.damage(name, u64::from(entry.pos), u64::from(entry.len), what);
            }
        }
        if !entries.is_sorted_by_key(FooterEntry::sort_key) {
            self.damage(name, header.position, bytes - header.position, "the footer is not sorted".to_string());
        }
        Ok(())
    }

    /// What a footer lists; nothing when a page of it does not check.
    fn footer_entries(&mut self, name: &str, header: &FooterHeader, bytes: u64) -> Result<Option<Vec<FooterEntry>>, DiskError> {
        let mut entries = Vec::new();
        if header.entry_count > 0 {
            let plan = read_plan(header.segment, bytes, header.entry_count, 0, header.entry_count);
            let mut pages = vec![0; plan.len as usize];
            self.source.read(name, u64::from(plan.pos), &mut pages)?;
            if decode_slice(&plan, &pages, &mut entries).is_err() {
                return Ok(None);
            }
        }
        Ok(Some(entries))
    }

    fn open_segments(
        &mut self,
        manifest: &ManifestV2,
        records: &[&SegmentRecordV1],
        checkpoint: Option<&CheckpointV5>,
    ) -> Result<(), DiskError> {
        for record in records {
            self.say(format_args!("segment {} in {}: open", record.uid, segment_file_name(record.file)));
        }
        let before_last_start = manifest.starts.last().map_or(0, |start| start.first_seq.saturating_sub(1));
        let plan = ScanPlan {
            shard: ShardId(manifest.shard),
            log_uid: manifest.log_uid,
            segments: records
                .iter()
                .map(|record| ScanSegment { uid: SegmentUid(record.uid), bytes: record.bytes, window_bytes: record.window_bytes })
                .collect(),
            starts: starts_of(manifest),
            first_seq: Some(BlockSeq(checkpoint.map_or(1, |checkpoint| checkpoint.scan.first_seq.max(1)))),
            prev_crc: Some(checkpoint.map_or(0, |checkpoint| checkpoint.scan.prev_header_crc)),
            known_durable: BlockSeq(checkpoint.map_or(0, |checkpoint| checkpoint.covers_block).max(before_last_start)),
            expects_tail: true,
            mutants: Default::default(),
        };
        let names: Vec<String> = records.iter().map(|record| segment_file_name(record.file)).collect();
        let mut batches = vec![Batches::new(); names.len()];
        let end = self.walk(plan, names, &mut batches)?;
        self.say(format_args!("the log ends with block {}", end.next_seq.0 - 1));
        self.note_cut(&end);
        Ok(())
    }

    fn note_cut(&mut self, end: &ScanEnd) {
        if end.cut {
            self.report.torn_tail = true;
            self.say(format_args!("behind it stand blocks of a write that a crash cut short; they were never acknowledged"));
        }
    }

    fn lone_segment(&mut self, name: &str) -> Result<(), DiskError> {
        let bytes = self.source.len(name)? & !(BLOCK_ALIGN as u64 - 1);
        if bytes < 2 * BLOCK_ALIGN as u64 {
            self.damage(name, 0, bytes, "too short for a segment".to_string());
            return Ok(());
        }
        let mut pages = vec![0; 2 * BLOCK_ALIGN];
        self.source.read(name, 0, &mut pages)?;
        self.report.segments += 1;
        let header = SegmentHeader::decode(&pages);
        let first = peek_header(&pages[BLOCK_ALIGN..]);
        let (shard, uid, log_uid, window_bytes) = match (&header, &first) {
            (Some(header), _) => (header.shard, header.uid, header.log_uid, header.window_bytes),
            (None, Some(block)) => (block.shard, block.segment_uid, block.log_uid, bytes),
            (None, None) => {
                self.damage(name, 0, BLOCK_ALIGN as u64, "neither a segment header nor a block: not a segment file".to_string());
                return Ok(());
            }
        };
        if header.is_none() {
            self.damage(name, 0, BLOCK_ALIGN as u64, "the segment's header page does not check".to_string());
        }
        // Every segment of blocks has a window behind which recovery searches; the sorter's have no blocks.
        if header.as_ref().is_some_and(|header| header.window_bytes == 0) {
            return self.sorted(log_uid, uid, bytes, name);
        }
        let footer = self.footer_header(name, uid, log_uid, bytes)?;
        self.say(format_args!("segment {uid} of shard {shard}: {}", if footer.is_some() { "with a footer" } else { "without a footer" }));
        let plan = ScanPlan {
            shard,
            log_uid,
            segments: vec![ScanSegment { uid, bytes, window_bytes }],
            starts: Starts::NonDecreasing,
            first_seq: None,
            prev_crc: None,
            known_durable: BlockSeq(if footer.is_some() { u64::MAX - 1 } else { 0 }),
            expects_tail: footer.is_none(),
            mutants: Default::default(),
        };
        let mut batches = vec![Batches::new()];
        let end = self.walk(plan, vec![name.to_string()], &mut batches)?;
        match footer {
            Some(header) => {
                if end.next_seq.0 <= header.last_block.0 {
                    let what = format!("blocks {} to {} cannot be read", end.next_seq, header.last_block);
                    self.damage(name, end.tail.map_or(0, |tail| tail.1), 0, what);
                }
                self.footer(name, &header, bytes, &batches[0])
            }
            None => {
                self.note_cut(&end);
                Ok(())
            }
        }
    }

    fn walk(&mut self, plan: ScanPlan, names: Vec<String>, batches: &mut [Batches]) -> Result<ScanEnd, DiskError> {
        let detail = self.detail;
        let (mut lines, mut bad) = (String::new(), Vec::new());
        let (mut entries, mut batch_count) = (0, 0);
        let (out, mut source) = (&mut *self.out, Named { source: &mut *self.source, names });
        let walked = scan(plan, &mut source, &mut |block| {
            lines.clear();
            describe(&block, detail, &mut lines);
            let _ = out.write_str(&lines);
            entries += u64::from(block.view.header.entry_count);
            batch_count += note_batches(&block, &mut batches[block.segment], &mut bad);
        });
        let names = source.names;
        for (segment, pos, len, what) in bad {
            self.damage(&names[segment], pos, len, what);
        }
        self.report.entries += entries;
        self.report.batches += batch_count;
        let end = walked?;
        self.report.blocks += end.blocks;
        self.report.bytes += end.bytes;
        for lost in &end.lost {
            let what = format!("blocks {} to {} cannot be read", lost.first, lost.last);
            self.damage(&names[lost.segment], lost.pos, lost.len, what);
        }
        Ok(end)
    }
}

/// One line per block, entry, batch, as far as asked for.
fn describe(block: &FoundBlock<'_>, detail: Detail, out: &mut String) {
    let header = &block.view.header;
    if detail >= Detail::Blocks {
        let mark = if header.is_mark() { ", mark" } else { "" };
        let _ = writeln!(
            out,
            "  block {} at {}: {} bytes, start {}, {} entries, {} fragments, durable through {}{mark}",
            header.block_seq,
            block.pos,
            header.length,
            header.incarnation,
            header.entry_count,
            header.fragment_count,
            header.durable_through
        );
    }
    if detail < Detail::Entries {
        return;
    }
    for entry in block.view.entries() {
        let kind = match entry.kind {
            EntryKind::Data => "data",
            EntryKind::Control => "control",
            EntryKind::HardState => "hard state",
            EntryKind::Raft => "raft",
            EntryKind::Replica => "replica",
            EntryKind::Void => "void",
            EntryKind::Import => "import",
        };
        let _ = writeln!(out, "    {kind} of group {} index {} term {}: {} bytes", entry.group, entry.index, entry.term, entry.content_len);
        for fragment in block.view.fragments_of(&entry).filter(|fragment| fragment.kind == FRAGMENT_BATCH) {
            if let Ok(batch) = BatchView::parse_exact(block.view.content(&fragment)) {
                let at = block.pos + u64::from(fragment.offset);
                let _ = writeln!(
                    out,
                    "      batch of partition uid {} offset {} to {} at {at} ({} bytes)",
                    batch.partition_uid(),
                    batch.base_offset(),
                    batch.last_offset(),
                    fragment.length
                );
            }
        }
    }
}

/// Notes the good batches of a block and describes the bad fragments. Returns the number of batches.
fn note_batches(block: &FoundBlock<'_>, batches: &mut Batches, bad: &mut Vec<(usize, u64, u64, String)>) -> u64 {
    let mut count = 0;
    for number in 0..block.view.header.fragment_count {
        let fragment = block.view.fragment(number);
        let pos = block.pos + u64::from(fragment.offset);
        let is_batch = fragment.kind == FRAGMENT_BATCH;
        count += u64::from(is_batch);
        if let Ok(index) = block.bad.binary_search_by_key(&number, |bad| bad.number) {
            let what = match block.bad[index].fault {
                Some(fault) => format!("block {}: {fault}", block.view.header.block_seq),
                None => format!("block {}: a payload's checksum does not match", block.view.header.block_seq),
            };
            bad.push((block.segment, pos, u64::from(fragment.length), what));
        } else if is_batch && let Ok(batch) = BatchView::parse_exact(block.view.content(&fragment)) {
            batches.insert(pos as u32, (batch.partition_uid(), batch.base_offset(), fragment.length));
        }
    }
    count
}
