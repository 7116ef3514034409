//! Writing a sorted segment: batches out of many sealed segments, one partition behind the other, and a footer that lists them.
//!
//! ```text
//! header page | batch batch batch ... each at a multiple of 8, by (partition, offset) | free | footer, as in a sealed segment
//! ```
//! Order: data and header page, then the footer, then the manifest's edit that names the segment; only after that may a run point here, and
//! only when a checkpoint with those runs is durable may the segments be freed that they took the place of. A crash before the edit leaves a
//! file that no manifest names, or names as free; after it a segment that no run points to, or that all do. Nothing has to be undone.
//!
//! Invariants: one segment at a time, one stream of writes in the order of the file, at most `WRITES_MAX` under way; what is listed was
//! copied whole; a failed write is final for the log (D4).
//!
//! Not here: which batches, and whether they are good (the shard's sorter).

use crate::bytes::{BufMut, Slab};
use crate::effects::Effects;
use crate::ids::{BlockSeq, SegmentUid};
use crate::log::Log;
use crate::log::background::segment_header;
use crate::log::footer::{FooterEntry, FooterHeader, footer_bytes};
use crate::log::footer_writer::{FooterStep, FooterWriter};
use crate::log::layout::{BLOCK_ALIGN, FRAGMENT_ALIGN, SEGMENT_DATA_START, align_up, align_up_usize};
use crate::log::operation::{PendingWrite, Progress, Purpose, segment_file, token};
use crate::log::segments::{Segment, SegmentState, sorted_segment};
use crate::log::types::LogNews;
use std::collections::VecDeque;

/// Bytes of one write, and how many of them a segment has at the least.
const WRITE_BYTES: usize = 1 << 20;
const WRITES_PER_SEGMENT: u64 = 8;
/// Writes under way at most: one at the disk, one behind it; while the log writes too only one, since its blocks wait behind them.
const WRITES_MAX: usize = 2;

/// The one sorted segment that is being written.
pub(crate) struct SortedWriter {
    step: Step,
    /// Numbers the writes of this process.
    writes_begun: u64,
    writes: VecDeque<(u64, PendingWrite)>,
}

enum Step {
    Idle,
    Open(Box<Output>),
    /// Nothing is appended any more; its last writes are under way.
    Closing(Box<Output>),
    /// Given up; its file goes back once the writes have ended.
    Leaving(Box<Output>),
    Footer(Box<Segment>, Box<FooterWriter>),
    Manifest {
        segment: SegmentUid,
        version: u64,
        entries: Vec<FooterEntry>,
    },
}

struct Output {
    segment: Segment,
    entries: Vec<FooterEntry>,
    buffer: Option<BufMut>,
    write_bytes: usize,
    /// Bytes of the buffer that are filled.
    filled: usize,
    /// Where the batch being copied begins.
    batch_pos: u64,
}

impl Output {
    /// Where the next byte goes.
    fn pos(&self) -> u64 {
        self.segment.write_pos + self.filled as u64
    }

    /// The next batch begins at a multiple of the alignment. A write's size is one, so a buffer that was just pushed needs no padding.
    fn next_batch(&mut self) {
        let end = align_up_usize(self.filled, FRAGMENT_ALIGN);
        if let Some(buffer) = &mut self.buffer {
            buffer.as_mut_slice()[self.filled..end].fill(0);
        }
        self.filled = end;
        self.batch_pos = self.pos();
    }
}

/// Where batches end at the latest that begin at `pos`.
fn sorted_end(pos: u64, bytes: u64, batches: u32) -> u64 {
    let padding = u64::from(batches) * (FRAGMENT_ALIGN as u64 - 1);
    align_up(pos + bytes + padding, BLOCK_ALIGN as u64)
}

impl SortedWriter {
    pub(crate) fn new() -> SortedWriter {
        SortedWriter { step: Step::Idle, writes_begun: 0, writes: VecDeque::with_capacity(WRITES_MAX) }
    }

    /// Whether the process may end: what is open is thrown away with it.
    pub(crate) fn is_quiet(&self) -> bool {
        self.writes.is_empty() && matches!(self.step, Step::Idle | Step::Open(_))
    }

    /// Whether none is being written.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.step, Step::Idle)
    }

    /// Pushes what the buffer holds as a write.
    fn push_buffer(&mut self, slab: &mut Slab, effects: &mut Effects) {
        let (Step::Open(output) | Step::Closing(output)) = &mut self.step else { panic!("no sorted segment is open") };
        let Some(mut buffer) = output.buffer.take().filter(|_| output.filled > 0) else { return };
        let padded = align_up_usize(output.filled, BLOCK_ALIGN);
        buffer.as_mut_slice()[output.filled..padded].fill(0);
        buffer.set_len(padded);
        let write = PendingWrite::new(segment_file(output.segment.file), output.segment.write_pos, slab.freeze_passing(buffer));
        output.segment.write_pos += output.filled as u64;
        output.filled = 0;
        self.writes_begun += 1;
        write.push(token(Purpose::SortedData, self.writes_begun), effects);
        self.writes.push_back((self.writes_begun, write));
    }

    /// Takes the end of a data write.
    pub(crate) fn on_data_done(&mut self, number: u64, result: Result<u32, i32>, effects: &mut Effects) -> Result<(), String> {
        let at = self.writes.iter().position(|(n, _)| *n == number).expect("a write ends once");
        match self.writes[at].1.on_done(result) {
            Progress::Again => self.writes[at].1.push(token(Purpose::SortedData, number), effects),
            Progress::Failed(reason) => return Err(format!("a sorted segment: {reason}")),
            Progress::Whole => drop(self.writes.remove(at)),
        }
        Ok(())
    }

    /// Takes the end of a footer write.
    pub(crate) fn on_footer_done(&mut self, slab: &mut Slab, result: Result<u32, i32>, effects: &mut Effects) -> Result<bool, String> {
        let Step::Footer(_, footer) = &mut self.step else { panic!("no sorted segment's footer is being written") };
        Ok(footer.on_done(slab, result, effects)? == FooterStep::Durable)
    }
}

impl Log {
    /// Begins a sorted segment in a free file. `None`: one is being written, or there is no file to spare (the log's own next segment
    /// goes before), or no memory.
    pub fn begin_sorted(&mut self, slab: &mut Slab) -> Option<SegmentUid> {
        if !self.may_begin_sorted() {
            return None;
        }
        let part = (self.cfg.segment_bytes / WRITES_PER_SEGMENT) as usize & !(BLOCK_ALIGN - 1);
        let write_bytes = WRITE_BYTES.min(part).max(2 * BLOCK_ALIGN);
        let mut buffer = slab.take(write_bytes)?;
        let Some((file, fresh)) = self.pool.take_for_sorted() else {
            slab.give_back(buffer);
            return None;
        };
        // It is his now; the rest is the log's.
        self.pool.set_reserve(0);
        let uid = SegmentUid(self.next_uid);
        self.next_uid += 1;
        let segment = sorted_segment(uid, file, self.cfg.segment_bytes, self.incarnation, fresh);
        buffer.set_len(BLOCK_ALIGN);
        segment_header(&segment, self).encode(buffer.as_mut_slice());
        buffer.set_len(write_bytes);
        let filled = SEGMENT_DATA_START as usize;
        let output = Output { segment, entries: Vec::new(), buffer: Some(buffer), write_bytes, filled, batch_pos: filled as u64 };
        self.sorted.step = Step::Open(Box::new(output));
        Some(uid)
    }

    /// Whether a sorted segment could be begun now: none is being written, and there is a free file beside the log's own next one, or the one that
    /// is kept for this.
    pub fn may_begin_sorted(&self) -> bool {
        let has_next = self.segments.ready_count() > 0 || self.pool.is_preparing();
        let spare = self.pool.counts() != (0, 0) && (has_next || self.keeps_sorter_file);
        self.failed.is_none() && self.background && self.sorted.is_idle() && spare
    }

    /// Whether `batches` batches of `bytes` in all fit into one sorted segment.
    pub fn sorted_holds(&self, bytes: u64, batches: u32) -> bool {
        sorted_end(u64::from(SEGMENT_DATA_START), bytes, batches) + footer_bytes(batches) <= self.cfg.segment_bytes
    }

    /// Whether nothing was copied into the open sorted segment yet.
    pub fn sorted_is_fresh(&self) -> bool {
        matches!(&self.sorted.step, Step::Open(output) if output.pos() == u64::from(SEGMENT_DATA_START))
    }

    /// Whether `batches` batches of `bytes` in all, which stand in segment `from`, fit behind what the open sorted segment has. Reckoned with the most padding
    /// that there can be; where that is too much, an empty one still has room for whatever a segment of its size holds: batches are aligned in the same way in
    /// both, a sorted one has nothing else, and its footer lists no more of them. Without that a sorted segment that is full to its last page could not be copied again.
    pub fn sorted_has_room(&self, from: SegmentUid, bytes: u64, batches: u32) -> bool {
        let Step::Open(output) = &self.sorted.step else { return false };
        if self.sorted_is_fresh() && self.segments.get(from).is_some_and(|found| found.bytes <= output.segment.bytes) {
            return true;
        }
        sorted_end(output.pos(), bytes, batches) + footer_bytes(output.entries.len() as u32 + batches) <= output.segment.bytes
    }

    /// Copies bytes of a batch behind what is there; answers how many were taken (fewer while writes are under way or memory is short).
    /// Panics when no sorted segment is open, or it is full: ask `sorted_has_room` first.
    pub fn write_sorted(&mut self, slab: &mut Slab, effects: &mut Effects, bytes: &[u8]) -> usize {
        let mut taken = 0;
        let writes_max = if self.is_writing() { 1 } else { WRITES_MAX };
        while taken < bytes.len() {
            let Step::Open(output) = &mut self.sorted.step else { panic!("no sorted segment is open") };
            if output.buffer.is_none() {
                if self.sorted.writes.len() >= writes_max {
                    break;
                }
                output.buffer = slab.take(output.write_bytes);
            }
            let Some(buffer) = &mut output.buffer else { break };
            let part = (output.write_bytes - output.filled).min(bytes.len() - taken);
            buffer.as_mut_slice()[output.filled..output.filled + part].copy_from_slice(&bytes[taken..taken + part]);
            output.filled += part;
            taken += part;
            assert!(output.pos() <= output.segment.bytes, "sorted_has_room was asked: {:?}", output.segment);
            if output.filled == output.write_bytes {
                self.sorted.push_buffer(slab, effects);
            }
        }
        taken
    }

    /// The batch just copied is whole: lists it. `entry.pos` is set here.
    pub fn end_sorted_batch(&mut self, mut entry: FooterEntry) {
        let Step::Open(output) = &mut self.sorted.step else { panic!("no sorted segment is open") };
        assert_eq!(output.pos() - output.batch_pos, u64::from(entry.len), "a batch is copied whole");
        entry.pos = output.batch_pos as u32;
        output.entries.push(entry);
        output.next_batch();
    }

    /// Batches listed so far.
    pub fn sorted_entries(&self) -> usize {
        match &self.sorted.step {
            Step::Open(output) => output.entries.len(),
            _ => 0,
        }
    }

    /// Takes the batches behind the first `count` off the list, and whatever of a batch was copied since: their bytes stay, for nothing.
    pub fn truncate_sorted(&mut self, count: usize) {
        let Step::Open(output) = &mut self.sorted.step else { panic!("no sorted segment is open") };
        output.entries.truncate(count);
        output.next_batch();
    }

    /// Ends the open sorted segment: the rest of its data, its footer, the manifest; then `LogNews::Sorted`. One that lists nothing is thrown
    /// away, and `LogNews::Sorted` comes with no entries.
    pub fn finish_sorted(&mut self, slab: &mut Slab, effects: &mut Effects) {
        self.sorted.step = match std::mem::replace(&mut self.sorted.step, Step::Idle) {
            Step::Open(output) if output.entries.is_empty() => Step::Leaving(output),
            Step::Open(output) => Step::Closing(output),
            _ => panic!("no sorted segment is open"),
        };
        if let Step::Closing(_) = self.sorted.step {
            self.sorted.push_buffer(slab, effects);
        }
    }

    /// Lets the sorted segment take the step it can take; called with every completion and turn.
    pub(crate) fn advance_sorted(&mut self, slab: &mut Slab, effects: &mut Effects, out: &mut Vec<LogNews>) {
        if !self.sorted.writes.is_empty() {
            return;
        }
        self.sorted.step = match std::mem::replace(&mut self.sorted.step, Step::Idle) {
            Step::Closing(output) => {
                let Output { segment, mut entries, .. } = *output;
                if !entries.is_sorted_by_key(FooterEntry::sort_key) {
                    entries.sort_unstable_by_key(FooterEntry::sort_key);
                }
                let header = self.sorted_footer_header(&segment, &entries);
                let mut footer = FooterWriter::new(Purpose::SortedFooter, segment_file(segment.file), header, entries);
                footer.go_on(slab, effects);
                Step::Footer(Box::new(segment), Box::new(footer))
            }
            Step::Leaving(output) => {
                let Output { segment, buffer, .. } = *output;
                if let Some(buffer) = buffer {
                    slab.give_back(buffer);
                }
                self.pool.give(segment.file, !segment.fresh);
                out.push(LogNews::Sorted { segment: segment.uid, entries: Vec::new() });
                Step::Idle
            }
            Step::Footer(segment, mut footer) => {
                footer.go_on(slab, effects);
                Step::Footer(segment, footer)
            }
            Step::Manifest { segment, version, entries } if self.manifest.is_durable(version) => {
                out.push(LogNews::Sorted { segment, entries });
                Step::Idle
            }
            other => other,
        };
        if self.keeps_sorter_file && self.sorted.is_idle() {
            self.pool.set_reserve(1);
        }
    }

    /// The footer is durable: the manifest may name the segment.
    pub(crate) fn on_sorted_footer_durable(&mut self) {
        let Step::Footer(segment, footer) = std::mem::replace(&mut self.sorted.step, Step::Idle) else { panic!("looked at before") };
        let (uid, entries) = (segment.uid, footer.entries);
        let (state, batch_bytes) =
            (SegmentState::Sealed { footer_entries: entries.len() as u32 }, entries.iter().map(|e| u64::from(e.len)).sum());
        self.segments.add_sorted(Segment { state, batch_bytes, ..*segment });
        self.sorted.step = Step::Manifest { segment: uid, version: self.manifest.ask(), entries };
    }

    fn sorted_footer_header(&self, segment: &Segment, entries: &[FooterEntry]) -> FooterHeader {
        let count = entries.len() as u32;
        let position = segment.bytes - footer_bytes(count);
        assert!(position >= align_up(segment.write_pos, BLOCK_ALIGN as u64), "the footer's room was kept: {segment:?}");
        FooterHeader {
            shard: self.cfg.shard,
            segment: segment.uid,
            incarnation: self.incarnation,
            log_uid: self.log_uid,
            entry_count: count,
            position,
            first_block: BlockSeq(0),
            last_block: BlockSeq(0),
            newest_ts: entries.iter().map(|entry| entry.newest_ts).max().unwrap_or(i64::MIN),
            data_end: segment.write_pos,
            pages_crc: 0,
        }
    }
}
