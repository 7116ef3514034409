//! Walking blocks in log order, and the torn-or-damaged rule (D3).
//!
//! The next block is expected at one place with one number, one incarnation and one `prev_header_crc`. Where it does not stand, either the
//! log rolled (the next segment begins with it), or the log ends, or something is broken. To tell the last two apart, everything behind the
//! place is searched for whole block headers of this log: the rest of the segment (more than the window that can have been in flight) and
//! the beginning of the following ones (the window). If any of them, or the checkpoint, or the manifest, says that the missing
//! block was durable, it is damage: reported, and the walk goes on at the next whole block. Otherwise it was never acknowledged: the log is
//! cut there.
//!
//! Which blocks are stale (of an earlier life of the file, or cut by an earlier start) is exact, not a guess: the segment's uid, the
//! place in it and the log's random number must match, and the manifest's list of starts says which incarnation block number n must have.
//!
//! A block whose header is whole and whose content does not check is torn (above the durable end) or damaged (below it: it is kept, its bad
//! fragments are reported).
//!
//! Not here: what entries mean, repair, files.

use crate::bytes::{BUFFER_BYTES_MAX, BufMut, Slab};
use crate::ids::{BlockSeq, Incarnation, SegmentUid, ShardId};
use crate::log::layout::{BLOCK_ALIGN, BlockView, FRAGMENT_BATCH, SEGMENT_DATA_START};
use crate::log::plausible::NUMBER_MAX;
use crate::log::recovery::DiskError;
use crate::log::types::BatchFault;
use crate::mutants::{Mutant, Mutants};
use tramline_wire::batch::BatchView;

/// Where the walk reads from: segments by their index in the plan.
pub(crate) trait ScanSource {
    /// Fills `buf` (whole pages inside the segment's file).
    fn read(&mut self, segment: usize, pos: u64, buf: &mut [u8]) -> Result<(), DiskError>;
}

/// A segment to walk through.
#[derive(Clone, Debug)]
pub(crate) struct ScanSegment {
    pub(crate) uid: SegmentUid,
    pub(crate) bytes: u64,
    /// What could be in flight at once when it was written.
    pub(crate) window_bytes: u64,
}

/// Which incarnation a block number must have.
#[derive(Clone, Debug)]
pub(crate) enum Starts {
    /// (incarnation, first block number) of each start, rising in both. A block has the incarnation of the last start at or below its number.
    Known(Vec<(Incarnation, BlockSeq)>),
    /// No manifest at hand: incarnations must not fall along the walk.
    NonDecreasing,
}

impl Starts {
    fn allows(&self, seq: BlockSeq, incarnation: Incarnation, last: Incarnation) -> bool {
        match self {
            Starts::Known(starts) => starts.iter().rev().find(|start| start.1 <= seq).is_some_and(|start| start.0 == incarnation),
            Starts::NonDecreasing => incarnation >= last,
        }
    }
}

/// What to walk.
pub(crate) struct ScanPlan {
    pub(crate) shard: ShardId,
    pub(crate) log_uid: u64,
    /// In log order.
    pub(crate) segments: Vec<ScanSegment>,
    pub(crate) starts: Starts,
    /// Number of the first block; None takes what stands there (a segment looked at alone).
    pub(crate) first_seq: Option<BlockSeq>,
    /// `prev_header_crc` of the first block, when it is known.
    pub(crate) prev_crc: Option<u32>,
    /// Known durable from elsewhere (checkpoint, manifest).
    pub(crate) known_durable: BlockSeq,
    /// False: the last segment ends where its blocks end, nothing is expected behind (a sealed segment looked at alone).
    pub(crate) expects_tail: bool,
    pub(crate) mutants: Mutants,
}

/// A fragment whose content does not check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadFragment {
    pub(crate) number: u32,
    /// None: a payload whose crc does not match.
    pub(crate) fault: Option<BatchFault>,
}

/// A block that counts.
pub(crate) struct FoundBlock<'a> {
    pub(crate) segment: usize,
    pub(crate) pos: u64,
    pub(crate) view: BlockView<'a>,
    /// Sorted by number.
    pub(crate) bad: &'a [BadFragment],
}

/// Blocks that were durable and cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LostRange {
    pub(crate) segment: usize,
    pub(crate) pos: u64,
    /// Bytes from `pos` on in that segment.
    pub(crate) len: u64,
    /// Bytes of all segments that the range may cover.
    pub(crate) total: u64,
    pub(crate) first: BlockSeq,
    pub(crate) last: BlockSeq,
}

/// How the walk ended.
#[derive(Debug)]
pub(crate) struct ScanEnd {
    /// Number of the next block.
    pub(crate) next_seq: BlockSeq,
    /// Header checksum of the last good block, or what the plan said.
    pub(crate) last_crc: u32,
    /// Where the next block may be written: behind the last block. None when durable blocks are missing there: nothing must be written
    /// over them, so the log goes on in another segment.
    pub(crate) tail: Option<(usize, u64)>,
    /// Index of the segment the walk ended in.
    pub(crate) segment: usize,
    /// Something of this log stood behind the tail and was cut.
    pub(crate) cut: bool,
    pub(crate) lost: Vec<LostRange>,
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    segment: usize,
    pos: u64,
    seq: BlockSeq,
    incarnation: Incarnation,
    durable_through: BlockSeq,
}

/// One walk.
pub(crate) struct Scan<'a> {
    plan: ScanPlan,
    source: &'a mut dyn ScanSource,
    buffer: BufMut,
    /// What `buffer` holds: segment, first byte, end.
    held: Option<(usize, u64, u64)>,
    /// Whole headers found behind (segment, pos), in order of place.
    ahead: Option<(usize, u64, Vec<Candidate>)>,
    segment: usize,
    pos: u64,
    next_seq: Option<BlockSeq>,
    prev_crc: Option<u32>,
    last_crc: u32,
    last_incarnation: Incarnation,
    known_durable: BlockSeq,
}

/// Walks and reports every block that counts to `visit`, in log order.
pub(crate) fn scan(plan: ScanPlan, source: &mut dyn ScanSource, visit: &mut dyn FnMut(FoundBlock<'_>)) -> Result<ScanEnd, DiskError> {
    let largest = plan.segments.iter().map(|segment| segment.bytes).max().unwrap_or(0);
    let want = (largest as usize).clamp(BLOCK_ALIGN, BUFFER_BYTES_MAX);
    let buffer = Slab::new(2 * BUFFER_BYTES_MAX).take(want).expect("an empty slab has room for its largest buffer");
    let (first_seq, prev_crc, known_durable) = (plan.first_seq, plan.prev_crc, plan.known_durable);
    let mut scan = Scan {
        plan,
        source,
        buffer,
        held: None,
        ahead: None,
        segment: 0,
        pos: u64::from(SEGMENT_DATA_START),
        next_seq: first_seq,
        prev_crc,
        last_crc: prev_crc.unwrap_or(0),
        last_incarnation: Incarnation(0),
        known_durable,
    };
    scan.run(visit)
}

impl Scan<'_> {
    fn run(&mut self, visit: &mut dyn FnMut(FoundBlock<'_>)) -> Result<ScanEnd, DiskError> {
        let mut lost: Vec<LostRange> = Vec::new();
        let (mut blocks, mut bytes) = (0, 0);
        let mut cut = false;
        let mut bad = Vec::new();
        let tail = loop {
            if self.segment >= self.plan.segments.len() {
                break None;
            }
            if let Some(padded) = self.expected_block(self.segment, self.pos)? {
                let (segment, pos) = (self.segment, self.pos);
                let view = self.view(segment, pos)?.expect("just seen");
                let seq = view.header.block_seq;
                check_content(&view, &mut bad);
                if self.plan.mutants.has(Mutant::SkipTailChecksum) {
                    bad.clear();
                }
                if !bad.is_empty() && self.known_durable < seq && self.durable_behind(segment, pos + padded, seq)? < seq {
                    self.next_seq = Some(seq);
                    cut = true;
                    break Some((segment, pos));
                }
                let view = self.view(segment, pos)?.expect("just seen");
                let (header, crc) = (view.header, view.header_crc);
                visit(FoundBlock { segment, pos, view, bad: &bad });
                blocks += 1;
                bytes += padded;
                self.known_durable = self.known_durable.max(header.durable_through);
                self.last_incarnation = header.incarnation;
                self.last_crc = crc;
                self.prev_crc = Some(crc);
                self.next_seq = Some(BlockSeq(seq.0 + 1));
                self.pos += padded;
                continue;
            }
            let next = self.segment + 1;
            if self.next_seq.is_some()
                && next < self.plan.segments.len()
                && self.expected_block(next, u64::from(SEGMENT_DATA_START))?.is_some()
            {
                self.segment = next;
                self.pos = u64::from(SEGMENT_DATA_START);
                continue;
            }
            match self.behind_hole(&mut lost)? {
                Hole::Jumped => continue,
                Hole::Tail { cut: something } => {
                    cut = something;
                    break Some((self.segment, self.pos));
                }
                Hole::TailLost => break None,
            }
        };
        Ok(ScanEnd {
            next_seq: self.next_seq.unwrap_or(BlockSeq(self.known_durable.0 + 1)),
            last_crc: self.last_crc,
            tail,
            segment: self.segment.min(self.plan.segments.len().saturating_sub(1)),
            cut,
            lost,
            blocks,
            bytes,
        })
    }

    /// Decides what a missing block means. May move on to the next whole block.
    fn behind_hole(&mut self, lost: &mut Vec<LostRange>) -> Result<Hole, DiskError> {
        let (segment, pos) = (self.segment, self.pos);
        let wanted = self.next_seq.unwrap_or(BlockSeq(0));
        self.look_ahead(segment, pos)?;
        let ahead = &self.ahead.as_ref().expect("just made").2;
        let last = self.last_incarnation;
        let counts = |found: &&Candidate| {
            (found.segment, found.pos) >= (segment, pos)
                && found.seq >= wanted
                && self.plan.starts.allows(found.seq, found.incarnation, last)
        };
        // With a known number the block itself was looked for in its two places already.
        let first = ahead.iter().filter(counts).find(|found| self.next_seq.is_none() || found.seq > wanted).copied();
        let top = ahead.iter().filter(counts).map(|found| found.durable_through).max().unwrap_or(BlockSeq(0));
        let something = first.is_some();
        let Some(wanted) = self.next_seq else {
            // A segment looked at alone whose first block is broken: go on at the first whole one.
            let Some(found) = first else { return Ok(Hole::Tail { cut: false }) };
            lost.push(LostRange {
                segment,
                pos,
                len: found.pos - pos,
                total: found.pos - pos,
                first: BlockSeq(found.seq.0.saturating_sub(1)),
                last: BlockSeq(found.seq.0.saturating_sub(1)),
            });
            self.jump(found);
            return Ok(Hole::Jumped);
        };
        self.known_durable = self.known_durable.max(top);
        if self.known_durable < wanted || self.plan.mutants.has(Mutant::CutDamaged) {
            return Ok(Hole::Tail { cut: something });
        }
        let rest = self.plan.segments[segment].bytes.saturating_sub(pos);
        match first {
            Some(found) => {
                let (len, total) = if found.segment == segment {
                    (found.pos - pos, found.pos - pos)
                } else {
                    let between: u64 = self.plan.segments[segment + 1..found.segment].iter().map(|s| s.bytes).sum();
                    (rest, rest + between + found.pos - u64::from(SEGMENT_DATA_START))
                };
                lost.push(LostRange { segment, pos, len, total, first: wanted, last: BlockSeq(found.seq.0 - 1) });
                self.jump(found);
                Ok(Hole::Jumped)
            }
            None if !self.plan.expects_tail => Ok(Hole::Tail { cut: false }),
            None => {
                lost.push(LostRange { segment, pos, len: rest, total: rest, first: wanted, last: self.known_durable });
                self.next_seq = Some(BlockSeq(self.known_durable.0 + 1));
                Ok(Hole::TailLost)
            }
        }
    }

    fn jump(&mut self, to: Candidate) {
        self.segment = to.segment;
        self.pos = to.pos;
        self.next_seq = Some(to.seq);
        self.prev_crc = None;
    }

    /// The padded length of the block that is expected next, if it stands at this place.
    fn expected_block(&mut self, segment: usize, pos: u64) -> Result<Option<u64>, DiskError> {
        let (wanted, prev, last) = (self.next_seq, self.prev_crc, self.last_incarnation);
        let Some(view) = self.view(segment, pos)? else { return Ok(None) };
        let (header, padded) = (view.header, u64::from(view.header.padded_len()));
        let expected = wanted.is_none_or(|seq| seq == header.block_seq)
            && prev.is_none_or(|crc| crc == header.prev_header_crc)
            && self.plan.starts.allows(header.block_seq, header.incarnation, last);
        let expected = expected || self.plan.mutants.has(Mutant::TakeStaleBlock);
        Ok(expected.then_some(padded))
    }

    /// Highest `durable_through` of the blocks behind this place that may follow block `seq`.
    fn durable_behind(&mut self, segment: usize, pos: u64, seq: BlockSeq) -> Result<BlockSeq, DiskError> {
        self.look_ahead(segment, pos)?;
        let ahead = &self.ahead.as_ref().expect("just made").2;
        let last = self.last_incarnation;
        let counts = |found: &&Candidate| {
            (found.segment, found.pos) >= (segment, pos) && found.seq > seq && self.plan.starts.allows(found.seq, found.incarnation, last)
        };
        Ok(ahead.iter().filter(counts).map(|found| found.durable_through).max().unwrap_or(BlockSeq(0)))
    }

    /// Collects the whole headers from this place on, once per segment: to its end, and the window at the start of those behind it.
    fn look_ahead(&mut self, segment: usize, pos: u64) -> Result<(), DiskError> {
        if self.ahead.as_ref().is_some_and(|(of, from, _)| *of == segment && *from <= pos) {
            return Ok(());
        }
        let mut found = Vec::new();
        let window = self.plan.segments.iter().map(|s| s.window_bytes).max().unwrap_or(0);
        for index in segment..self.plan.segments.len() {
            let bytes = self.plan.segments[index].bytes;
            let (mut at, end) = match index == segment {
                true => (pos, bytes),
                false => (u64::from(SEGMENT_DATA_START), bytes.min(u64::from(SEGMENT_DATA_START) + window)),
            };
            while at + BLOCK_ALIGN as u64 <= end {
                if let Some(view) = self.view(index, at)? {
                    let header = view.header;
                    let (seq, incarnation, durable_through) = (header.block_seq, header.incarnation, header.durable_through);
                    found.push(Candidate { segment: index, pos: at, seq, incarnation, durable_through });
                }
                at += BLOCK_ALIGN as u64;
            }
        }
        self.ahead = Some((segment, pos, found));
        Ok(())
    }

    /// A whole block (header, table, trailer) of this log and segment at this place.
    fn view(&mut self, segment: usize, pos: u64) -> Result<Option<BlockView<'_>>, DiskError> {
        let (uid, bytes) = (self.plan.segments[segment].uid, self.plan.segments[segment].bytes);
        if pos + BLOCK_ALIGN as u64 > bytes {
            return Ok(None);
        }
        let (shard, log_uid) = (self.plan.shard, self.plan.log_uid);
        self.hold(segment, pos, BLOCK_ALIGN as u64)?;
        let Some(header) = crate::log::layout::peek_header(self.at(pos, BLOCK_ALIGN as u64)) else { return Ok(None) };
        let of_segment = header.segment_uid == uid || self.plan.mutants.has(Mutant::TakeStaleBlock);
        let ours = of_segment
            && header.log_uid == log_uid
            && header.shard == shard
            && u64::from(header.pos) == pos
            && header.durable_through < header.block_seq
            && header.block_seq.0 < NUMBER_MAX;
        let padded = u64::from(header.padded_len());
        if !ours || pos + padded > bytes {
            return Ok(None);
        }
        self.hold(segment, pos, padded)?;
        Ok(BlockView::parse(self.at(pos, padded)))
    }

    fn at(&self, pos: u64, len: u64) -> &[u8] {
        let (_, start, end) = self.held.expect("held before");
        assert!(start <= pos && pos + len <= end);
        &self.buffer.as_slice()[(pos - start) as usize..(pos - start + len) as usize]
    }

    /// Makes sure that the buffer holds `len` bytes at `pos`, reading on as far as it goes.
    fn hold(&mut self, segment: usize, pos: u64, len: u64) -> Result<(), DiskError> {
        if self.held.is_some_and(|(of, start, end)| of == segment && start <= pos && pos + len <= end) {
            return Ok(());
        }
        let capacity = self.buffer.capacity() as u64;
        let end = self.plan.segments[segment].bytes.min(pos + capacity) & !(BLOCK_ALIGN as u64 - 1);
        assert!(pos.is_multiple_of(BLOCK_ALIGN as u64) && pos + len <= end, "{len} bytes at {pos}, buffer {capacity}");
        self.held = None;
        self.buffer.set_len((end - pos) as usize);
        self.source.read(segment, pos, self.buffer.as_mut_slice())?;
        self.held = Some((segment, pos, end));
        Ok(())
    }
}

enum Hole {
    /// The walk goes on at another place.
    Jumped,
    /// The log ends here.
    Tail { cut: bool },
    /// The log ended somewhere behind, but that part is gone.
    TailLost,
}

/// Finds the fragments whose content does not check.
pub(crate) fn check_content(view: &BlockView<'_>, bad: &mut Vec<BadFragment>) {
    bad.clear();
    bad.extend((0..view.header.fragment_count).filter_map(|number| check_fragment(view, number)));
}

/// What is wrong with the content of one of a block's fragments.
pub(crate) fn check_fragment(view: &BlockView<'_>, number: u32) -> Option<BadFragment> {
    let fragment = view.fragment(number);
    let content = view.content(&fragment);
    if fragment.kind == FRAGMENT_BATCH {
        return check_stored(content).err().map(|fault| BadFragment { number, fault: Some(fault) });
    }
    (crc32c::crc32c(content) != fragment.crc).then_some(BadFragment { number, fault: None })
}

/// Checks a stored batch by its own checksums.
fn check_stored(content: &[u8]) -> Result<(), BatchFault> {
    let batch = BatchView::parse_exact(content).or(Err(BatchFault::Malformed))?;
    batch.verify_header().or(Err(BatchFault::Header))?;
    batch.verify_body().or(Err(BatchFault::Body))
}
