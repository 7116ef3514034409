//! The open block and the window of closed blocks that are not durable yet.
//!
//! A block is open (being filled), then closed (frozen, numbered, placed, its write pushed), then written (its own write ended), then
//! durable (it and every block before it are written). Writes end in any order; durable is the contiguous prefix.
//!
//! Invariants: what is appended is copied once, straight to its place (a block that outgrows its buffer moves to the next class, which the
//! prediction from the last blocks makes rare); the closed and not durable blocks never exceed the window that recovery searches behind a hole;
//! nothing is allocated once the vectors are warm.
//!
//! Not here: where a block goes (`segments.rs`), when it is closed (the shard's EndOfTurn: group commit without timers).

use crate::bytes::{BUFFER_BYTES_MAX, BufMut, Bytes, PAGE_BYTES, Slab};
use crate::ids::{BlockSeq, GroupId, LogIndex, SegmentUid, Term};
use crate::log::layout::{
    self, BLOCK_ALIGN, BLOCK_HEADER_BYTES, BlockHeader, ENTRY_BYTES, Entry, FRAGMENT_ALIGN, FRAGMENT_BYTES, Fragment, TRAILER_BYTES,
    align_up_usize,
};
use crate::log::operation::PendingWrite;
use crate::log::types::{EntryKind, OpenEntry};
use std::collections::VecDeque;

/// Closed and not durable blocks at most, whatever their size: bounds the queue when one write is stuck and blocks are small.
pub(crate) const WINDOW_BLOCKS_MAX: usize = 64;
/// A closed block whose buffer is this many times its size moves to a smaller one: the tail cache pays for whole buffers.
const SHRINK_FACTOR: usize = 4;

/// The prediction falls by this part with each block that needs less. Under load sizes vary around 600 KiB: with the last one as the
/// prediction moving blocks to a larger buffer took 10 % of the shard's time at 1.9 GB/s.
const PREDICTION_DECAY: usize = 8;

/// Why the open block did not take an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// It does not fit this block.
    BlockFull,
    /// The slab has no buffer.
    NoMemory,
    /// It fits no block.
    TooLarge,
}

/// Which row of the open block's table an append belongs to.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) group: GroupId,
    pub(crate) kind: EntryKind,
    /// Given by another replica's leader; `None` for what this one proposes when the block closes.
    pub(crate) position: Option<(Term, LogIndex)>,
}

/// The block that takes appends.
pub(crate) struct OpenBlock {
    buffer: Option<BufMut>,
    /// End of the content, from the start of the block.
    used: usize,
    entries: Vec<OpenEntry>,
    /// In order of arrival; sorted by entry when the block closes.
    fragments: Vec<Fragment>,
    batches: u32,
    /// Scratch of `close`: where the next fragment of each entry goes.
    cursors: Vec<u32>,
    /// First buffer of the next block, in bytes: what the largest of the last ones needed.
    predicted: usize,
}

/// Limits of one block.
#[derive(Clone, Copy)]
pub(crate) struct BlockLimits {
    /// A non-empty block takes nothing that would carry it past this.
    pub(crate) block_bytes_max: usize,
    /// The first append of a block may go up to this.
    pub(crate) ceiling_bytes: usize,
    /// Largest single append.
    pub(crate) batch_bytes_max: usize,
}

impl OpenBlock {
    pub(crate) fn new() -> OpenBlock {
        OpenBlock {
            buffer: None,
            used: BLOCK_HEADER_BYTES,
            entries: Vec::with_capacity(64),
            fragments: Vec::with_capacity(4096),
            batches: 0,
            cursors: Vec::with_capacity(64),
            predicted: PAGE_BYTES,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    pub(crate) fn entries(&self) -> &[OpenEntry] {
        &self.entries
    }
    /// Batches in it: each may need a footer entry in its segment.
    pub(crate) fn batches(&self) -> u32 {
        self.batches
    }
    /// Bytes it will have on disk, padding included.
    pub(crate) fn padded_len(&self) -> usize {
        align_up_usize(self.length(self.used, self.entries.len(), self.fragments.len()), BLOCK_ALIGN)
    }
    /// Bytes of content so far.
    pub(crate) fn content_bytes(&self) -> usize {
        self.used - BLOCK_HEADER_BYTES
    }

    fn length(&self, used: usize, entries: usize, fragments: usize) -> usize {
        align_up_usize(used, FRAGMENT_ALIGN) + entries * ENTRY_BYTES + fragments * FRAGMENT_BYTES + TRAILER_BYTES
    }

    /// Copies `content` (its two parts one behind the other) in as a fragment of the group's row of this kind (and, where it has one, this position).
    /// Returns its place in the block. On a refusal nothing has changed.
    pub(crate) fn append(
        &mut self,
        slab: &mut Slab,
        limits: &BlockLimits,
        row: Row,
        fragment_kind: u8,
        content: [&[u8]; 2],
    ) -> Result<u32, NotTaken> {
        let Row { group, kind, position } = row;
        let [head, tail] = content;
        let content_len = head.len() + tail.len();
        if content_len > limits.batch_bytes_max {
            return Err(NotTaken::TooLarge);
        }
        let found = self.row_of(row);
        let at = align_up_usize(self.used, FRAGMENT_ALIGN);
        let end = at + content_len;
        let length = self.length(end, self.entries.len() + usize::from(found.is_none()), self.fragments.len() + 1);
        let limit = if self.is_empty() { limits.ceiling_bytes } else { limits.block_bytes_max };
        if align_up_usize(length, BLOCK_ALIGN) > limit || (found.is_none() && self.entries.len() == usize::from(u16::MAX)) {
            return Err(NotTaken::BlockFull);
        }
        if !self.reserve(slab, length) {
            return Err(NotTaken::NoMemory);
        }
        let entry = found.unwrap_or_else(|| {
            self.entries.push(OpenEntry { group, kind, content_len: 0, fragments: 0, position });
            self.entries.len() - 1
        });
        self.entries[entry].content_len += content_len as u32;
        self.entries[entry].fragments += 1;
        let crc = if fragment_kind == layout::FRAGMENT_PAYLOAD { crc32c::crc32c_append(crc32c::crc32c(head), tail) } else { 0 };
        self.fragments.push(Fragment { offset: at as u32, length: content_len as u32, entry: entry as u16, kind: fragment_kind, crc });
        self.batches += u32::from(fragment_kind == layout::FRAGMENT_BATCH);
        let memory = self.buffer.as_mut().expect("reserved above").as_mut_slice();
        memory[self.used..at].fill(0);
        memory[at..at + head.len()].copy_from_slice(head);
        memory[at + head.len()..end].copy_from_slice(tail);
        self.used = end;
        Ok(at as u32)
    }

    /// The row that more content joins. Of those with a position only the last one of its group: an entry that was replaced and comes again within a
    /// block is written again, behind what replaced it.
    fn row_of(&self, Row { group, kind, position }: Row) -> Option<usize> {
        if matches!(kind, EntryKind::Raft | EntryKind::Replica) {
            return None;
        }
        // Mostly there is one group, and one row of what its producers bring.
        if let Some(last) = self.entries.last()
            && (last.group, last.kind, last.position) == (group, kind, position)
        {
            return Some(self.entries.len() - 1);
        }
        let ours = |entry: &OpenEntry| entry.group == group && (position.is_none() || entry.kind.bears_index());
        let rows = self.entries.iter().enumerate().rev().filter(|(_, entry)| ours(entry));
        rows.take_while(|(_, entry)| position.is_none() || entry.position == position)
            .find(|(_, entry)| entry.kind == kind && entry.position == position)
            .map(|(at, _)| at)
    }

    /// The group is led by another replica now: what was appended to the block for it, and has no place, gets none.
    pub(crate) fn void(&mut self, group: GroupId) {
        let is_proposed = |kind| matches!(kind, EntryKind::Data | EntryKind::Control);
        for entry in self.entries.iter_mut().filter(|e| e.group == group && e.position.is_none() && is_proposed(e.kind)) {
            entry.kind = EntryKind::Void;
        }
    }

    /// Makes room for what is to stand in this block together: fragments of these sizes, in up to `rows` rows that are not there yet. After it
    /// none of them is refused.
    pub(crate) fn reserve_together(&mut self, slab: &mut Slab, limits: &BlockLimits, rows: usize, sizes: &[usize]) -> Result<(), NotTaken> {
        self.reserve_up_to(slab, limits, rows, sizes, limits.block_bytes_max)
    }

    /// The same for what another node's leader had in one block: an empty block takes as much as that one could.
    pub(crate) fn reserve_stored(&mut self, slab: &mut Slab, limits: &BlockLimits, rows: usize, sizes: &[usize]) -> Result<(), NotTaken> {
        let limit = if self.is_empty() { limits.ceiling_bytes } else { limits.block_bytes_max };
        self.reserve_up_to(slab, limits, rows, sizes, limit)
    }

    fn reserve_up_to(&mut self, slab: &mut Slab, limits: &BlockLimits, rows: usize, sizes: &[usize], limit: usize) -> Result<(), NotTaken> {
        let fragments = sizes.len();
        if sizes.iter().any(|size| *size > limits.batch_bytes_max) {
            return Err(NotTaken::TooLarge);
        }
        let used = sizes.iter().fold(self.used, |used, size| align_up_usize(used, FRAGMENT_ALIGN) + size);
        let length = self.length(used, self.entries.len() + rows, self.fragments.len() + fragments);
        if align_up_usize(length, BLOCK_ALIGN) > limit || self.entries.len() + rows > usize::from(u16::MAX) {
            return Err(if self.is_empty() { NotTaken::TooLarge } else { NotTaken::BlockFull });
        }
        if self.reserve(slab, length) { Ok(()) } else { Err(NotTaken::NoMemory) }
    }

    /// What was appended at `at`, to be stamped.
    pub(crate) fn bytes_mut(&mut self, at: u32, len: usize) -> &mut [u8] {
        let memory = self.buffer.as_mut().expect("something was appended").as_mut_slice();
        &mut memory[at as usize..at as usize + len]
    }

    /// Makes sure that `length` bytes fit the buffer; false when memory is short.
    fn reserve(&mut self, slab: &mut Slab, length: usize) -> bool {
        match &self.buffer {
            Some(buffer) if buffer.capacity() >= length => true,
            Some(_) => self.grow(slab, length),
            None => {
                let wanted = self.predicted.max(length);
                match slab.take(wanted).or_else(|| slab.take(length)) {
                    Some(buffer) => {
                        self.buffer = Some(open_whole(buffer));
                        true
                    }
                    None => false,
                }
            }
        }
    }

    fn grow(&mut self, slab: &mut Slab, length: usize) -> bool {
        let Some(larger) = slab.take(length.min(BUFFER_BYTES_MAX)) else { return false };
        let mut larger = open_whole(larger);
        let smaller = self.buffer.take().expect("only an open buffer grows");
        larger.as_mut_slice()[..self.used].copy_from_slice(&smaller.as_slice()[..self.used]);
        slab.give_back(smaller);
        self.buffer = Some(larger);
        true
    }

    /// Takes a buffer for an empty mark block; false when memory is short.
    pub(crate) fn reserve_mark(&mut self, slab: &mut Slab) -> bool {
        assert!(self.is_empty(), "a mark block is empty");
        self.reserve(slab, BLOCK_HEADER_BYTES + TRAILER_BYTES)
    }

    /// Writes table, header and trailer, freezes the bytes and empties this block for the next. `header`'s counts and lengths are filled in
    /// here. `positions` gives term and index of each entry that bears an index.
    pub(crate) fn close(
        &mut self,
        slab: &mut Slab,
        mut header: BlockHeader,
        mut positions: impl FnMut(GroupId, EntryKind, u32) -> (Term, LogIndex),
    ) -> (Bytes, BlockHeader, u32) {
        let table = align_up_usize(self.used, FRAGMENT_ALIGN);
        let length = self.length(self.used, self.entries.len(), self.fragments.len());
        let padded = align_up_usize(length, BLOCK_ALIGN);
        header.entry_count = self.entries.len() as u16;
        header.fragment_count = self.fragments.len() as u32;
        header.table_pos = table as u32;
        header.length = length as u32;
        let mut buffer = self.buffer.take().expect("a block to be closed has a buffer");
        let block = &mut buffer.as_mut_slice()[..padded];
        block[self.used..table].fill(0);
        let (rows, rest) = block[table..].split_at_mut(self.entries.len() * ENTRY_BYTES);
        self.cursors.clear();
        let mut first = 0;
        for (row, open) in rows.chunks_exact_mut(ENTRY_BYTES).zip(&self.entries) {
            let (term, index) =
                if open.kind.bears_index() { positions(open.group, open.kind, open.content_len) } else { (Term(0), LogIndex(0)) };
            let (content_len, fragment_count) = (open.content_len, open.fragments);
            let entry = Entry { group: open.group, kind: open.kind, index, term, content_len, fragment_first: first, fragment_count };
            layout::put_entry(row, &entry);
            self.cursors.push(first);
            first += open.fragments;
        }
        for fragment in &self.fragments {
            let cursor = &mut self.cursors[usize::from(fragment.entry)];
            let at = *cursor as usize * FRAGMENT_BYTES;
            layout::put_fragment(&mut rest[at..at + FRAGMENT_BYTES], fragment);
            *cursor += 1;
        }
        let crc = layout::finish_block(block, &header);
        buffer.set_len(padded);
        let bytes = slab_fit(slab, buffer, padded);
        self.predicted = padded.max(self.predicted - self.predicted / PREDICTION_DECAY);
        self.used = BLOCK_HEADER_BYTES;
        self.entries.clear();
        self.fragments.clear();
        self.batches = 0;
        (bytes, header, crc)
    }
}

fn open_whole(mut buffer: BufMut) -> BufMut {
    let capacity = buffer.capacity();
    buffer.set_len(capacity);
    buffer
}

/// Freezes `buffer`, moved to a smaller one first when it is much too large for what it holds.
fn slab_fit(slab: &mut Slab, buffer: BufMut, len: usize) -> Bytes {
    if buffer.capacity() >= len * SHRINK_FACTOR
        && let Some(mut smaller) = slab.take(len)
    {
        smaller.as_mut_slice().copy_from_slice(&buffer.as_slice()[..len]);
        slab.give_back(buffer);
        return slab.freeze(smaller);
    }
    slab.freeze(buffer)
}

/// A closed block.
pub(crate) struct ClosedBlock {
    pub(crate) segment: SegmentUid,
    pub(crate) write: PendingWrite,
    /// When it was closed, `Now::mono_us`.
    pub(crate) closed_us: u64,
    /// Its own write has ended well.
    pub(crate) written: bool,
}

/// Closed blocks that are not durable, oldest first, without holes in their numbers.
pub(crate) struct WriteWindow {
    blocks: VecDeque<ClosedBlock>,
    /// All blocks up to this one are durable.
    durable_through: BlockSeq,
    bytes: u64,
    in_flight: u32,
    in_flight_max: u32,
    /// `is_crowded`.
    crowded: bool,
}

impl WriteWindow {
    pub(crate) fn new(durable_through: BlockSeq, in_flight_max: u32) -> WriteWindow {
        let blocks = VecDeque::with_capacity(WINDOW_BLOCKS_MAX);
        WriteWindow { blocks, durable_through, bytes: 0, in_flight: 0, in_flight_max, crowded: false }
    }
    pub(crate) fn durable_through(&self) -> BlockSeq {
        self.durable_through
    }
    /// Bytes closed and not durable.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
    /// Writes under way.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight
    }
    /// Whether as many writes are under way as may be.
    pub(crate) fn is_full(&self) -> bool {
        self.in_flight >= self.in_flight_max
    }
    /// Whether as many writes as may be were under way, and more than half of them (rounded down) have not ended since.
    pub(crate) fn is_crowded(&self) -> bool {
        self.crowded
    }
    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }
    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Takes a closed block whose write was pushed.
    pub(crate) fn push(&mut self, seq: BlockSeq, block: ClosedBlock) {
        assert_eq!(seq.0, self.durable_through.0 + self.blocks.len() as u64 + 1, "blocks are closed in order");
        self.bytes += block.write.data.len() as u64;
        self.in_flight += 1;
        self.crowded |= self.is_full();
        self.blocks.push_back(block);
    }

    /// The block a completion belongs to.
    pub(crate) fn get(&mut self, seq: BlockSeq) -> &mut ClosedBlock {
        let index = (seq.0 - self.durable_through.0 - 1) as usize;
        &mut self.blocks[index]
    }

    /// Notes that a block's write has ended well; returns the new durable end if it moved.
    pub(crate) fn on_written(&mut self, seq: BlockSeq) -> Option<BlockSeq> {
        let block = self.get(seq);
        assert!(!block.written, "block {seq} ended twice");
        block.written = true;
        self.on_ended();
        let before = self.durable_through;
        while self.blocks.front().is_some_and(|block| block.written) {
            let block = self.blocks.pop_front().expect("looked at");
            self.bytes -= block.write.data.len() as u64;
            self.durable_through.0 += 1;
        }
        (self.durable_through > before).then_some(self.durable_through)
    }

    /// Notes that a write ended badly: it is not under way any more, and the prefix never passes it.
    pub(crate) fn on_failed(&mut self) {
        self.on_ended();
    }

    fn on_ended(&mut self) {
        self.in_flight -= 1;
        self.crowded &= self.in_flight > self.in_flight_max / 2;
    }
}
