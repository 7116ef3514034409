//! The table of segments, and where each block of the segments without a footer is.
//!
//! A segment is `Ready` (prepared: header durable, in the manifest, no block of this start yet), then `Live` (takes blocks; exactly one is),
//! then `Full` (waits until its blocks are durable and it is sealed), then `Sealed` (has a footer), then `Freeing` (left the manifest, waits for
//! pins), then gone. Log order is uid order. Uids are never reused, files are.
//!
//! Invariants: blocks never run into the room that the footer of all batches in the segment needs; the block table covers, without a hole,
//! every block of the segments that are not sealed (lost blocks have a row with segment 0); segments are sealed oldest first.
//!
//! Not here: files and their preparation (`pool.rs`), the manifest (`manifest.rs`).

use crate::ids::{BlockSeq, Incarnation, SegmentUid};
use crate::log::checkpoint::ScanStartV1;
use crate::log::footer::footer_bytes;
use crate::log::layout::SEGMENT_DATA_START;
use crate::log::types::BlockPlace;
use std::collections::{BTreeMap, VecDeque};

/// What a segment is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentState {
    Ready,
    Live,
    Full { announced: bool },
    Sealed { footer_entries: u32 },
    Freeing { manifest_version: u64, keep_file: bool },
}

/// One segment.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) uid: SegmentUid,
    /// Number of its file.
    pub(crate) file: u64,
    /// Bytes of the file.
    pub(crate) bytes: u64,
    /// Blocks in it have this incarnation or a higher one.
    pub(crate) incarnation: Incarnation,
    /// No block below this number is in it.
    pub(crate) first_seq_bound: BlockSeq,
    /// What could be closed and not durable at once when it was prepared.
    pub(crate) window_bytes: u64,
    pub(crate) state: SegmentState,
    /// Reads and others that need the file to stay what it is.
    pub(crate) pins: u32,
    /// Batches in it: entries its footer may need.
    pub(crate) batches: u32,
    /// Bytes of the batches that its footer lists; 0 without one.
    pub(crate) batch_bytes: u64,
    /// Where the next block goes.
    pub(crate) write_pos: u64,
    /// First block in it; 0 without any.
    pub(crate) first_block: BlockSeq,
    /// Last block in it. In a full segment that damage emptied, the last one before the next segment's: what its seal covers.
    pub(crate) last_block: BlockSeq,
    /// `prev_header_crc` of its first block.
    pub(crate) first_prev_crc: u32,
    /// Whether its extents were never written before it.
    pub(crate) fresh: bool,
    /// Written by the sorter: batches by partition, no blocks.
    pub(crate) is_sorted: bool,
    /// The next block goes into the next one, whatever room there is.
    pub(crate) is_ended: bool,
}

impl Segment {
    pub(crate) fn is_sealed(&self) -> bool {
        matches!(self.state, SegmentState::Sealed { .. })
    }
    fn is_open(&self) -> bool {
        matches!(self.state, SegmentState::Ready | SegmentState::Live | SegmentState::Full { .. })
    }
    /// Bytes that are used: blocks, and the room of the footer so far.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.write_pos + footer_bytes(self.batches)
    }
    fn fits(&self, padded: u64, batches: u32) -> bool {
        !self.is_ended && self.write_pos + padded + footer_bytes(self.batches + batches) <= self.bytes
    }
}

/// A row of the block table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockRow {
    /// 0 for a block that was lost to damage.
    pub(crate) segment: SegmentUid,
    pub(crate) pos: u32,
    pub(crate) len: u32,
}

/// All segments of one log.
pub(crate) struct Segments {
    table: VecDeque<Segment>,
    /// Sorted ones: no part of the log's order.
    sorted: BTreeMap<SegmentUid, Segment>,
    rows: VecDeque<BlockRow>,
    /// Block number of the first row, of the next block when there is none.
    rows_first: BlockSeq,
}

impl Segments {
    /// `rows_hint`: block rows to have room for without allocating later.
    pub(crate) fn new(rows_first: BlockSeq, rows_hint: usize) -> Segments {
        Segments { table: VecDeque::with_capacity(64), sorted: BTreeMap::new(), rows: VecDeque::with_capacity(rows_hint), rows_first }
    }

    pub(crate) fn add(&mut self, segment: Segment) {
        assert!(self.table.back().is_none_or(|last| last.uid < segment.uid), "uids rise: {segment:?}");
        self.table.push_back(segment);
    }
    pub(crate) fn add_sorted(&mut self, segment: Segment) {
        assert!(segment.is_sorted && segment.is_sealed(), "{segment:?}");
        let before = self.sorted.insert(segment.uid, segment);
        assert!(before.is_none(), "uids are given once");
    }
    /// All of them: those of the log in log order, then the sorted ones.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Segment> + '_ {
        self.table.iter().chain(self.sorted.values())
    }
    fn index_of(&self, uid: SegmentUid) -> Option<usize> {
        self.table.binary_search_by_key(&uid, |segment| segment.uid).ok()
    }
    pub(crate) fn get(&self, uid: SegmentUid) -> Option<&Segment> {
        self.index_of(uid).map(|index| &self.table[index]).or_else(|| self.sorted.get(&uid))
    }
    pub(crate) fn get_mut(&mut self, uid: SegmentUid) -> Option<&mut Segment> {
        match self.index_of(uid) {
            Some(index) => Some(&mut self.table[index]),
            None => self.sorted.get_mut(&uid),
        }
    }
    pub(crate) fn remove(&mut self, uid: SegmentUid) -> Option<Segment> {
        match self.index_of(uid) {
            Some(index) => self.table.remove(index),
            None => self.sorted.remove(&uid),
        }
    }

    /// The segment that takes blocks. It is near the end of the table: at most the ready ones are behind it.
    pub(crate) fn live(&self) -> &Segment {
        self.table.iter().rev().find(|segment| segment.state == SegmentState::Live).expect("one segment is live")
    }
    fn live_mut(&mut self) -> &mut Segment {
        self.table.iter_mut().rev().find(|segment| segment.state == SegmentState::Live).expect("one segment is live")
    }
    /// How many segments are ready behind the live one.
    pub(crate) fn ready_count(&self) -> usize {
        self.table.iter().rev().take_while(|segment| segment.state == SegmentState::Ready).count()
    }
    /// The one that takes blocks next, if it is ready.
    pub(crate) fn next_ready(&self) -> Option<&Segment> {
        self.table.iter().rev().take_while(|segment| segment.state == SegmentState::Ready).last()
    }
    /// Whether a block has a place without waiting.
    pub(crate) fn has_room(&self, padded: u64, batches: u32) -> bool {
        self.live().fits(padded, batches) || self.ready_count() > 0
    }

    /// Gives the next block its place, rolling to the next segment when it does not fit; says whether it rolled.
    pub(crate) fn place(&mut self, seq: BlockSeq, padded: u32, prev_crc: u32, batches: u32) -> (BlockPlace, bool) {
        let rolled = !self.live().fits(u64::from(padded), batches);
        if rolled {
            self.roll();
        }
        let live = self.live_mut();
        assert!(live.fits(u64::from(padded), batches), "block {seq} of {padded} bytes does not fit an empty segment: {live:?}");
        let place = BlockPlace { segment: live.uid, pos: live.write_pos as u32, len: padded };
        live.write_pos += u64::from(padded);
        live.batches += batches;
        live.last_block = seq;
        if live.first_block.0 == 0 {
            live.first_block = seq;
            live.first_prev_crc = prev_crc;
        }
        self.push_row(seq, BlockRow { segment: place.segment, pos: place.pos, len: place.len });
        (place, rolled)
    }

    /// The next block begins a new segment, if `uid` is the live one and has a block.
    pub(crate) fn end(&mut self, uid: SegmentUid) {
        let live = self.live_mut();
        live.is_ended |= live.uid == uid && live.first_block.0 != 0;
    }

    fn roll(&mut self) {
        self.live_mut().state = SegmentState::Full { announced: false };
        let next = self.table.iter_mut().find(|segment| segment.state == SegmentState::Ready).expect("a segment is ready");
        next.state = SegmentState::Live;
    }

    pub(crate) fn push_row(&mut self, seq: BlockSeq, row: BlockRow) {
        assert_eq!(seq.0, self.rows_first.0 + self.rows.len() as u64, "block rows have no hole");
        self.rows.push_back(row);
    }

    /// Where a block is, unless it is lost, sealed away or not closed yet.
    pub(crate) fn block_place(&self, seq: BlockSeq) -> Option<BlockPlace> {
        let index = usize::try_from(seq.0.checked_sub(self.rows_first.0)?).ok()?;
        let row = self.rows.get(index)?;
        (row.segment.0 != 0).then_some(BlockPlace { segment: row.segment, pos: row.pos, len: row.len })
    }

    /// The oldest segment without a footer.
    pub(crate) fn oldest_open(&self) -> Option<&Segment> {
        self.table.iter().find(|segment| segment.is_open())
    }

    /// Marks and returns the next segment to report as ready to be sealed: full, all its blocks durable, everything older reported.
    pub(crate) fn announce_full(&mut self, durable_through: BlockSeq) -> Option<SegmentUid> {
        for segment in self.table.iter_mut() {
            match segment.state {
                SegmentState::Full { announced: true } => continue,
                SegmentState::Full { announced: false } if segment.last_block <= durable_through => {
                    segment.state = SegmentState::Full { announced: true };
                    return Some(segment.uid);
                }
                SegmentState::Full { .. } | SegmentState::Live | SegmentState::Ready => return None,
                SegmentState::Sealed { .. } | SegmentState::Freeing { .. } => continue,
            }
        }
        None
    }

    /// Where a start has to begin its scan when all segments before the oldest open one other than `sealing` have a footer.
    pub(crate) fn scan_start(&self, sealing: Option<SegmentUid>, next_seq: BlockSeq, last_crc: u32) -> ScanStartV1 {
        let mut open = self.table.iter().filter(|segment| segment.is_open() && Some(segment.uid) != sealing).peekable();
        let segment = open.peek().expect("the live one is never sealed").uid.0;
        // Damage may have emptied a segment in front: the number is that of the first block there is.
        match open.find(|segment| segment.first_block.0 != 0) {
            Some(first) => ScanStartV1 { segment, first_seq: first.first_block.0, prev_header_crc: first.first_prev_crc },
            None => ScanStartV1 { segment, first_seq: next_seq.0, prev_header_crc: last_crc },
        }
    }

    /// Turns a full segment into a sealed one. The places of its blocks are kept until `forget_sealed_rows`.
    pub(crate) fn set_sealed(&mut self, uid: SegmentUid, footer_entries: u32, batch_bytes: u64) {
        let segment = self.get_mut(uid).expect("a segment being sealed stays");
        assert!(matches!(segment.state, SegmentState::Full { .. }), "{segment:?}");
        segment.state = SegmentState::Sealed { footer_entries };
        segment.batch_bytes = batch_bytes;
    }

    /// Forgets the places of blocks in sealed segments.
    pub(crate) fn forget_sealed_rows(&mut self, next_seq: BlockSeq) {
        let keep_from = self.table.iter().find(|s| s.is_open() && s.first_block.0 != 0).map_or(next_seq, |s| s.first_block);
        while self.rows_first < keep_from && self.rows.pop_front().is_some() {
            self.rows_first.0 += 1;
        }
    }

    pub(crate) fn count(&self, wanted: impl Fn(&Segment) -> bool) -> u32 {
        self.iter().filter(|segment| wanted(segment)).count() as u32
    }
}

/// A segment that was just prepared.
pub(crate) fn ready_segment(
    uid: SegmentUid,
    file: u64,
    bytes: u64,
    incarnation: Incarnation,
    bound: BlockSeq,
    window: u64,
    fresh: bool,
) -> Segment {
    Segment {
        uid,
        file,
        bytes,
        incarnation,
        first_seq_bound: bound,
        window_bytes: window,
        state: SegmentState::Ready,
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

/// A segment that the sorter begins to write. It holds no block, so nothing bounds their numbers and there is no window.
pub(crate) fn sorted_segment(uid: SegmentUid, file: u64, bytes: u64, incarnation: Incarnation, fresh: bool) -> Segment {
    Segment { is_sorted: true, write_pos: 0, ..ready_segment(uid, file, bytes, incarnation, BlockSeq(0), 0, fresh) }
}
