//! A small shard around the log, and a naive model to compare with: a list of blocks, each a list of entries.

use crate::bytes::Slab;
use crate::effects::{Effects, Now};
use crate::ids::{BlockSeq, GroupId, LogIndex, NodeId, Offset, PartitionUid, SegmentUid, ShardId, Term};
use crate::log::checkpoint::{CheckpointV5, RunV1};
use crate::log::footer::{FooterEntry, decode_slice};
use crate::log::*;
use crate::sim::{Dice, SimDisk, Tear};
use std::collections::{BTreeMap, BTreeSet};
use tramline_wire::batch::{BatchBuilder, BatchView, LeaderStamp, Limits, NewRecord, ProducerMark};

pub(crate) fn small_config() -> LogConfig {
    let identity = LogIdentity { cluster_id: [7; 16], node: NodeId(1), log_uid_if_new: 0xFEED_BEEF_1234_5678 };
    LogConfig {
        segment_bytes: 128 << 10,
        block_bytes_max: 16 << 10,
        batch_bytes_max: 8 << 10,
        tail_cache_bytes: 64 << 10,
        pool_segments: 1,
        fill_write_bytes: 32 << 10,
        fill_idle_us: 0,
        ..LogConfig::new(identity, ShardId(0), 1)
    }
}

pub(crate) fn batch(bytes: usize, records: u32, fill: u8) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Limits::default());
    let value = vec![fill; bytes / records as usize];
    for number in 0..records {
        let record = NewRecord { value: Some(&value), timestamp_us: 1_000 + i64::from(number), ..NewRecord::default() };
        builder.push(&record).expect("small records fit");
    }
    let mut out = Vec::new();
    builder.finish_plain(&mut out, ProducerMark::default());
    out
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelBatch {
    pub(crate) uid: u64,
    pub(crate) base: u64,
    pub(crate) delta: u32,
    pub(crate) at: u32,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelEntry {
    pub(crate) group: u32,
    pub(crate) kind: EntryKind,
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) batches: Vec<ModelBatch>,
    pub(crate) payloads: Vec<Vec<u8>>,
}

#[derive(Clone, Debug)]
pub(crate) struct ModelBlock {
    pub(crate) seq: u64,
    pub(crate) segment: u64,
    pub(crate) pos: u64,
    pub(crate) entries: Vec<ModelEntry>,
}

/// Entries that count: later ones replace those with the same or a higher index in their group.
pub(crate) fn surviving(blocks: &[ModelBlock]) -> Vec<(u64, ModelEntry)> {
    let mut kept: Vec<(u64, ModelEntry)> = Vec::new();
    for block in blocks {
        for entry in &block.entries {
            if entry.kind.bears_index() {
                kept.retain(|(_, old)| old.group != entry.group || !old.kind.bears_index() || old.index < entry.index);
            }
            kept.push((block.seq, entry.clone()));
        }
    }
    kept
}

/// Log, disk, model.
pub(crate) struct Harness {
    pub(crate) cfg: LogConfig,
    pub(crate) disk: SimDisk,
    pub(crate) log: Log,
    pub(crate) slab: Slab,
    pub(crate) effects: Effects,
    pub(crate) news: Vec<LogNews>,
    pub(crate) now: Now,
    /// Every closed block since the directory was made.
    pub(crate) blocks: Vec<ModelBlock>,
    open: Vec<ModelEntry>,
    next_index: BTreeMap<u32, u64>,
    next_offset: BTreeMap<u64, u64>,
    rewound: BTreeSet<u32>,
    pub(crate) term: u64,
    /// Reported durable: may never be lost.
    pub(crate) durable: u64,
    pub(crate) checkpoint: Option<CheckpointV5>,
    pub(crate) runs: Vec<RunV1>,
    pub(crate) freed: BTreeSet<u64>,
    /// What the checkpoint on disk may be: the last durable one, and one being written.
    pub(crate) covers: u64,
    pub(crate) failed: Option<String>,
    pub(crate) reads: Vec<(u64, Result<crate::bytes::Bytes, ReadError>)>,
    pub(crate) sealed: Vec<SegmentUid>,
    pub(crate) keep_segments: usize,
    pub(crate) seal_by_itself: bool,
}

impl Harness {
    pub(crate) fn new(cfg: LogConfig) -> Harness {
        let mut disk = SimDisk::new();
        let recovered = recover(&mut disk, &cfg).expect("a first start works");
        assert!(recovered.report.first_start && recovered.entries.is_empty() && recovered.damage.is_empty());
        Harness::around(cfg, disk, recovered.log)
    }

    fn around(cfg: LogConfig, disk: SimDisk, log: Log) -> Harness {
        Harness {
            cfg,
            disk,
            log,
            slab: Slab::new(64 << 20),
            effects: Effects::new(),
            news: Vec::new(),
            now: Now { mono_us: 1, utc_us: 1_700_000_000_000_000 },
            blocks: Vec::new(),
            open: Vec::new(),
            next_index: BTreeMap::new(),
            next_offset: BTreeMap::new(),
            rewound: BTreeSet::new(),
            term: 1,
            durable: 0,
            checkpoint: None,
            runs: Vec::new(),
            freed: BTreeSet::new(),
            covers: 0,
            failed: None,
            reads: Vec::new(),
            sealed: Vec::new(),
            keep_segments: usize::MAX,
            seal_by_itself: true,
        }
    }

    fn open_entry(&mut self, group: u32, kind: EntryKind) -> &mut ModelEntry {
        let joins = kind != EntryKind::Raft;
        let found = self.open.iter().position(|entry| joins && entry.group == group && entry.kind == kind);
        let index = found.unwrap_or_else(|| {
            self.open.push(ModelEntry { group, kind, index: 0, term: 0, batches: Vec::new(), payloads: Vec::new() });
            self.open.len() - 1
        });
        &mut self.open[index]
    }

    /// Appends a batch of partition `uid`; false when it was refused for now.
    pub(crate) fn append(&mut self, group: u32, uid: u64, bytes: usize, records: u32, fill: u8) -> bool {
        let raw = batch(bytes, records, fill);
        let base = *self.next_offset.get(&uid).unwrap_or(&0);
        let stamp = LeaderStamp { partition_uid: uid, base_offset: base, term: self.term, append_time_us: self.now.utc_us };
        match self.log.append_batch(&mut self.slab, GroupId(group), &raw, &stamp) {
            Ok(appended) => {
                assert_eq!(appended.block, self.log.open_block_seq());
                let mut stored = raw;
                tramline_wire::batch::stamp_leader(&mut stored, &stamp);
                let delta = records - 1;
                self.next_offset.insert(uid, base + u64::from(records));
                let model = ModelBatch { uid, base, delta, at: appended.at, bytes: stored };
                self.open_entry(group, EntryKind::Data).batches.push(model);
                true
            }
            Err(AppendRefused::Full) => false,
            Err(other) => panic!("{other}"),
        }
    }

    pub(crate) fn append_control(&mut self, group: u32, kind: EntryKind, payload: &[u8]) -> bool {
        match self.log.append_control(&mut self.slab, GroupId(group), kind, payload) {
            Ok(_) => {
                self.open_entry(group, kind).payloads.push(payload.to_vec());
                true
            }
            Err(AppendRefused::Full) => false,
            Err(other) => panic!("{other}"),
        }
    }

    /// Lets the next entry of a group have an index that exists already (a new leader's entries), if one is free to be replaced.
    pub(crate) fn rewind(&mut self, group: u32) {
        let next = self.next_index.entry(group).or_insert(1);
        *next = (*next - 1).max(1);
        self.rewound.insert(group);
        self.term += 1;
    }

    /// Highest index of a group that a checkpoint covers: nothing replaces it.
    fn covered_index(&self, group: u32) -> u64 {
        let upto: Vec<ModelBlock> = self.blocks.iter().filter(|block| block.seq <= self.covers).cloned().collect();
        surviving(&upto).iter().filter(|(_, e)| e.group == group).map(|(_, e)| e.index).max().unwrap_or(0)
    }

    pub(crate) fn close(&mut self) -> bool {
        if !self.log.ready_to_close() {
            return false;
        }
        for group in self.rewound.clone() {
            let least = self.covered_index(group) + 1;
            let next = self.next_index.entry(group).or_insert(1);
            *next = least.max(*next);
        }
        self.rewound.retain(|group| !self.open.iter().any(|entry| entry.group == *group && entry.kind.bears_index()));
        let (next_index, open, term) = (&mut self.next_index, &mut self.open, self.term);
        let mut number = 0;
        let seq = self.log.close_block(self.now, &mut self.slab, &mut self.effects, |group, kind, len| {
            while !open[number].kind.bears_index() {
                number += 1;
            }
            let entry = &mut open[number];
            number += 1;
            assert_eq!((entry.group, entry.kind), (group.0, kind));
            let content: usize =
                entry.batches.iter().map(|b| b.bytes.len()).sum::<usize>() + entry.payloads.iter().map(Vec::len).sum::<usize>();
            assert_eq!(content, len as usize);
            let next = next_index.entry(group.0).or_insert(1);
            (entry.index, entry.term) = (*next, term);
            *next += 1;
            (Term(entry.term), LogIndex(entry.index))
        });
        let entries = std::mem::take(&mut self.open);
        self.note_block(seq, entries);
        true
    }

    fn note_block(&mut self, seq: BlockSeq, entries: Vec<ModelEntry>) {
        let place = self.log.block_place(seq).expect("a closed block has a place");
        self.blocks.push(ModelBlock { seq: seq.0, segment: place.segment.0, pos: u64::from(place.pos), entries });
        self.disk.submit(&mut self.effects);
    }

    /// Completes the operation at `index` of those under way.
    pub(crate) fn complete(&mut self, index: usize) {
        let (token, outcome) = self.disk.complete(index);
        self.log.on_done(self.now, &mut self.slab, token, outcome, &mut self.effects, &mut self.news);
        self.after_step();
    }

    pub(crate) fn turn(&mut self) {
        let before = self.log.open_block_seq();
        self.log.on_turn(self.now, 1 << 20, &mut self.slab, &mut self.effects, &mut self.news);
        if self.log.open_block_seq() > before {
            self.note_block(before, Vec::new());
        }
        self.after_step();
    }

    fn after_step(&mut self) {
        for news in std::mem::take(&mut self.news) {
            match news {
                LogNews::Durable(seq) => {
                    assert!(seq.0 > self.durable);
                    self.durable = seq.0;
                }
                LogNews::SealReady(_) | LogNews::Written { .. } => {}
                LogNews::Sealed(segment) => self.sealed.push(segment),
                LogNews::CheckpointWritten | LogNews::StateWritten | LogNews::SegmentFreed(_) | LogNews::Sorted { .. } => {}
                LogNews::Failed(reason) => self.failed = Some(reason),
                LogNews::ReadDone { ticket, bytes, .. } => self.reads.push((ticket, bytes)),
            }
        }
        if self.seal_by_itself && self.failed.is_none() {
            self.maybe_seal();
            self.maybe_free();
        }
        self.disk.submit(&mut self.effects);
    }

    /// Batches of a segment that count where the log ends behind so many blocks, as footer entries.
    pub(crate) fn footer_entries(&self, segment: u64, blocks: usize) -> Vec<FooterEntry> {
        let mut entries = Vec::new();
        for (seq, entry) in surviving(&self.blocks[..blocks]) {
            let block = &self.blocks[seq as usize - 1];
            if block.segment != segment {
                continue;
            }
            for b in &entry.batches {
                let view = BatchView::parse(&b.bytes).unwrap();
                entries.push(FooterEntry {
                    partition_uid: PartitionUid(b.uid),
                    base_offset: Offset(b.base),
                    newest_ts: view.effective_newest_us(),
                    pos: block.pos as u32 + b.at,
                    len: b.bytes.len() as u32,
                    last_offset_delta: b.delta,
                    group: GroupId(entry.group),
                });
            }
        }
        entries
    }

    fn maybe_seal(&mut self) {
        let Some(segment) = self.log.seal_ready() else { return };
        if !self.log_is_free_to_seal() {
            return;
        }
        let mut entries = self.footer_entries(segment.0, self.blocks.len());
        if entries != self.footer_entries(segment.0, self.durable as usize) {
            return; // what a block under way replaces is not committed, and the shard seals only what is
        }
        entries.sort_by_key(FooterEntry::sort_key);
        let mut runs = self.runs.clone();
        for (at, entry) in entries.iter().enumerate() {
            let end = entry.base_offset.0 + u64::from(entry.last_offset_delta) + 1;
            match runs.last_mut().filter(|run| run.segment == segment.0 && run.uid == entry.partition_uid.0) {
                Some(run) => {
                    run.end_offset = end;
                    run.footer_count += 1;
                    run.bytes += u64::from(entry.len);
                }
                None => runs.push(RunV1 {
                    uid: entry.partition_uid.0,
                    segment: segment.0,
                    first_offset: entry.base_offset.0,
                    end_offset: end,
                    newest_ts: entry.newest_ts,
                    bytes: u64::from(entry.len),
                    footer_first: at as u32,
                    footer_count: 1,
                }),
            }
        }
        let checkpoint = CheckpointV5 { covers_block: self.durable, runs: runs.clone(), control: vec![9; 5000], ..CheckpointV5::default() };
        self.log.seal(&mut self.slab, &mut self.effects, segment, &mut entries, checkpoint.clone()).expect("free to seal");
        assert!(entries.is_empty());
        self.runs = runs;
        self.covers = self.durable;
        self.checkpoint = Some(checkpoint);
    }

    fn log_is_free_to_seal(&mut self) -> bool {
        // A probe without effect: sealing is refused only while another one is under way.
        self.log.is_sealing_free()
    }

    fn maybe_free(&mut self) {
        let sealed: Vec<SegmentUid> = self.log.segments().filter(|info| info.sealed).map(|info| info.uid).collect();
        if sealed.len() > self.keep_segments {
            let oldest = sealed[0];
            if self.log.free_segment(&mut self.slab, &mut self.effects, oldest).is_ok() {
                self.freed.insert(oldest.0);
            }
        }
    }

    /// Completes everything, in order, until nothing is under way.
    pub(crate) fn settle(&mut self) {
        for _ in 0..100_000 {
            if self.disk.under_way.is_empty() {
                let before = self.log.stats();
                self.turn();
                if self.disk.under_way.is_empty() && before == self.log.stats() {
                    return;
                }
            } else {
                self.complete(0);
            }
        }
        panic!("does not settle: {:?}", self.log.stats());
    }

    pub(crate) fn write_checkpoint(&mut self) {
        let checkpoint = CheckpointV5 { covers_block: self.durable, runs: self.runs.clone(), ..CheckpointV5::default() };
        self.log.write_checkpoint(&mut self.slab, &mut self.effects, checkpoint.clone()).expect("nothing else is under way");
        self.covers = self.durable;
        self.checkpoint = Some(checkpoint);
        self.disk.submit(&mut self.effects);
    }

    /// Starts again over what the disk has now (after `disk.crash` or `disk.kill`), checks everything, and goes on with it.
    pub(crate) fn restart(&mut self) -> RecoveryReport {
        let recovered = recover(&mut self.disk, &self.cfg).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(recovered.damage, vec![], "a crash alone damages nothing");
        self.adopt(recovered)
    }

    pub(crate) fn crash(&mut self, tear: Tear, dice: &mut Dice) {
        self.disk.crash(tear, dice);
    }

    fn adopt(&mut self, recovered: Recovered) -> RecoveryReport {
        let last = recovered.report.durable_through.0;
        assert!(last >= self.durable, "block {} was durable, the log ends with {last}: {:?}", self.durable, recovered.report);
        assert!(last <= self.blocks.len() as u64, "blocks were invented: {:?}", recovered.report);
        self.blocks.truncate(last as usize);
        let covers = recovered.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.covers_block);
        assert!(covers <= self.covers);
        let kept = surviving(&self.blocks);
        let wanted: Vec<(u32, EntryKind, u64, u64, u64)> = kept
            .iter()
            .filter(|(seq, entry)| *seq > covers && entry.kind.bears_index())
            .map(|(seq, e)| (e.group, e.kind, e.index, e.term, *seq))
            .collect();
        let found: Vec<(u32, EntryKind, u64, u64, u64)> =
            recovered.entries.iter().map(|e| (e.group.0, e.kind, e.index.0, e.term.0, e.block.0)).collect();
        assert_eq!(found, wanted, "entries");
        let payloads: Vec<Vec<u8>> = kept
            .iter()
            .filter(|(seq, entry)| *seq > covers && entry.kind.bears_index())
            .flat_map(|(_, entry)| entry.payloads.clone())
            .collect();
        assert_eq!(recovered.controls.iter().map(|c| c.payload.clone()).collect::<Vec<_>>(), payloads, "payloads");

        self.log = recovered.log;
        self.slab = Slab::new(64 << 20);
        self.effects = Effects::new();
        self.news.clear();
        self.open.clear();
        self.durable = last;
        self.covers = covers;
        self.runs = recovered.checkpoint.as_ref().map_or(Vec::new(), |checkpoint| checkpoint.runs.clone());
        self.checkpoint = recovered.checkpoint;
        self.rewound.clear();
        self.next_index.clear();
        self.next_offset.clear();
        for (_, entry) in &kept {
            if entry.kind.bears_index() {
                self.next_index.insert(entry.group, entry.index + 1);
            }
            for b in &entry.batches {
                let next = b.base + u64::from(b.delta) + 1;
                let slot = self.next_offset.entry(b.uid).or_insert(0);
                *slot = next.max(*slot);
            }
        }
        self.term += 1;
        let seal_by_itself = std::mem::replace(&mut self.seal_by_itself, false);
        let mut found: Vec<(u64, u64, u64, u64, u32)> = Vec::new();
        for b in recovered.batches.iter().chain(&recovered.covered_batches) {
            assert!(!b.damaged);
            found.push((b.uid.0, b.base_offset.0, b.segment.0, u64::from(b.pos), b.len));
        }
        for run in self.runs.clone() {
            for entry in self.read_footer(&run) {
                assert_eq!(entry.partition_uid.0, run.uid);
                found.push((run.uid, entry.base_offset.0, run.segment, u64::from(entry.pos), entry.len));
            }
        }
        let live: BTreeSet<u64> = self.log.segments().map(|info| info.uid.0).collect();
        let mut wanted = Vec::new();
        for (seq, entry) in &kept {
            let block = &self.blocks[*seq as usize - 1];
            if live.contains(&block.segment) {
                wanted.extend(
                    entry.batches.iter().map(|b| (b.uid, b.base, block.segment, block.pos + u64::from(b.at), b.bytes.len() as u32)),
                );
            } else {
                assert!(self.freed.contains(&block.segment), "segment {} was never freed", block.segment);
            }
        }
        found.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(found, wanted, "batches");
        self.check_bytes(7);
        self.seal_by_itself = seal_by_itself;
        recovered.report
    }

    fn read_footer(&mut self, run: &RunV1) -> Vec<FooterEntry> {
        let plan = self.log.footer_plan(SegmentUid(run.segment), run.footer_first, run.footer_count).expect("a run's segment is sealed");
        let bytes = self.read(plan.segment, plan.pos, plan.len);
        let mut out = Vec::new();
        decode_slice(&plan, bytes.as_slice(), &mut out).expect("the footer is good");
        out
    }

    pub(crate) fn read(&mut self, segment: SegmentUid, pos: u32, len: u32) -> crate::bytes::Bytes {
        let ticket = self.log.begin_read(&mut self.slab, &mut self.effects, 1, segment, pos, len).expect("reads are free");
        self.disk.submit(&mut self.effects);
        while !self.reads.iter().any(|read| read.0 == ticket) {
            let last =
                self.disk.under_way.iter().position(|e| matches!(e, crate::effects::Effect::Read { .. })).expect("a read is under way");
            self.complete(last);
        }
        let at = self.reads.iter().position(|read| read.0 == ticket).expect("found");
        self.reads.remove(at).1.expect("the simulated disk reads")
    }

    /// Reads every `step`th batch that still exists back and compares it with the model.
    pub(crate) fn check_bytes(&mut self, step: usize) {
        let live: BTreeSet<u64> = self.log.segments().map(|info| info.uid.0).collect();
        let mut places = Vec::new();
        for (seq, entry) in surviving(&self.blocks) {
            let block = &self.blocks[seq as usize - 1];
            if live.contains(&block.segment) && !self.freed.contains(&block.segment) {
                places.extend(entry.batches.iter().map(|b| (block.seq, block.segment, block.pos, b.clone())));
            }
        }
        for (seq, segment, pos, b) in places.into_iter().step_by(step) {
            let (len, place) = (b.bytes.len() as u32, self.log.locate(BlockSeq(seq), b.at, b.bytes.len() as u32));
            let bytes = match place {
                Place::Cached(bytes) => bytes,
                Place::Disk { segment: at_segment, pos: at_pos } => {
                    assert_eq!((at_segment.0, at_pos), (segment, pos + u64::from(b.at)));
                    if seq > self.log.durable_through().0 {
                        continue;
                    }
                    self.read(at_segment, at_pos as u32, len)
                }
                Place::Gone => self.read(SegmentUid(segment), pos as u32 + b.at, len),
                Place::Open => panic!("block {seq} is closed"),
            };
            assert_eq!(bytes.as_slice(), b.bytes, "block {seq}");
            check_batch(bytes.as_slice(), PartitionUid(b.uid), Offset(b.base)).unwrap();
        }
    }
}
