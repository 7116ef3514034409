//! The log of one shard: the batches of all its partitions in one sequence of blocks, one write and one sync per block.
//!
//! ```text
//!  append ──> open block ──close──> window of closed blocks ──written, in any order──> durable prefix ──> news
//!                                     │  └──> tail cache (the same bytes)
//!                                     v
//!             segments: sealed ... sealed | full | live | ready          pool: free files, filled ahead
//!             manifest: which file is which     checkpoint: where a start may begin
//! ```
//! **Positions, in order:** open >= closed >= written >= durable. Four block numbers say how far something has come, and each is at most
//! the one before. *Open* is the block that takes appends; it has no bytes on disk. *Closed* is numbered, placed and handed to the disk
//! (`open - 1`). *Written* is a block whose own write has ended; that is no prefix: block 8 may be written while 7 is not. *Durable* is
//! written, and so is every block before it. Only durable may be acknowledged as stable, only durable stands in the next block's header as
//! `durable_through`, and only what is at or below some whole block's `durable_through` may recovery call damaged when it is missing;
//! anything above was never acknowledged and is cut. "Appended" means open: never confuse it with any of the others. Byte positions (`pos`)
//! are positions in a segment's file; `at` is a position in a block; neither is ever an `Offset`, which counts records of a partition.
//!
//! **Invariants.** An acknowledged byte is never overwritten. An error of a write or a sync is final: the log refuses everything from then on
//! (`LogNews::Failed`). Between start and the next start the incarnation in the blocks stays the same, and it was durable in the manifest
//! before the first of them was written. Everything decided here is a function of the calls: no clock, no dice, no hash order.
//!
//! **How it is driven.** The shard appends, closes the block at the end of each of its turns when `ready_to_close`, hands every completion to
//! `on_done`, and calls `on_turn` last. An append that is refused `Full` is kept by the caller and tried again after the next completion.
//!
//! Not here: what entries mean (replication, partitions), what is sorted and when (the shard), any system call (the edge carries the effects out).
//! Sources: D3 and D4 of the design; docs/FORMAT.md for every byte.

mod background;
mod block_writer;
pub mod checkpoint;
mod config;
mod dropping;
pub mod envelope;
pub mod footer;
mod footer_writer;
pub mod inspect;
pub mod layout;
pub mod manifest;
mod operation;
pub(crate) mod plausible;
mod pool;
mod reads;
mod recovered;
pub mod recovery;
mod replace;
mod replica_record;
mod seal;
mod segments;
mod sorted;
mod state_file;
mod tail_cache;
mod types;

#[cfg(test)]
pub(crate) mod tests;

pub use checkpoint::CheckpointV5;
pub use config::{LogConfig, LogIdentity};
pub use footer::FooterEntry;
pub use layout::HardState;
pub use recovered::{Doubt, LostBlocks, RecoverError, Recovered, RecoveredBatch, RecoveredControl, RecoveredEntry, RecoveryReport};
pub(crate) use recovery::scan::{BadFragment, check_fragment};
pub use recovery::{DiskError, StartDisk, recover};
pub use replica_record::{ReplicaRecord, ReplicaState};
pub use state_file::{STATE_NAME, StateBuilder, StateFile};
pub use types::*;

use crate::bytes::{Bytes, PAGE_BYTES, Slab};
use crate::effects::{Effects, Now};
use crate::ids::{BlockSeq, FileId, GroupId, Incarnation, LogIndex, Offset, PartitionUid, SegmentUid, Term};
use crate::mutants::Mutants;
use block_writer::{BlockLimits, ClosedBlock, NotTaken, OpenBlock, Row, WINDOW_BLOCKS_MAX, WriteWindow};
use layout::{BlockHeader, FLAG_MARK, FRAGMENT_BATCH, FRAGMENT_PAYLOAD};
use manifest::{ManifestWriter, StartV1};
use operation::{PendingWrite, Purpose, segment_file, token};
use pool::Pool;
use reads::Reads;
use replace::Replace;
use seal::Sealer;
use segments::{Segment, SegmentState, Segments};
use sorted::SortedWriter;
use tail_cache::TailCache;
use tramline_wire::batch::{BATCH_HEADER_BYTES, BatchView, LeaderStamp, mark_append_time, stamp_leader};

/// Reads of owners from this number on are background work: nobody waits for them, and they count as no reader.
pub const BACKGROUND_OWNER: u64 = u64::MAX - 4;

/// Blocks let go from the tail cache at most to make room for one append when memory is short.
const EVICTIONS_PER_APPEND: u32 = 16;

/// One shard's log. See the module's documentation for how it is driven.
pub struct Log {
    cfg: LogConfig,
    limits: BlockLimits,
    /// Drawn at the first start, in every block since.
    log_uid: u64,
    incarnation: Incarnation,
    /// Starts of this log, for the manifest.
    starts: Vec<StartV1>,
    open: OpenBlock,
    /// Number the open block will have.
    next_seq: BlockSeq,
    /// Header checksum of the last closed block (of the last good one before lost ones).
    last_crc: u32,
    /// `Now::mono_us` of the last close; None until the first turn after the start.
    last_block_us: Option<u64>,
    /// When what was open and being written was more than light last, `Now::mono_us`; the first turn counts as that.
    heavy_us: Option<u64>,
    /// The last block is not a mark: one is due after the idle time.
    mark_due: bool,
    window: WriteWindow,
    cache: TailCache,
    segments: Segments,
    pool: Pool,
    manifest: ManifestWriter,
    sealer: Sealer,
    /// The state file.
    state: Replace,
    sorted: SortedWriter,
    keeps_sorter_file: bool,
    reads: Reads,
    next_uid: u64,
    next_file: u64,
    /// Counts temporary files of this process: their ids.
    temporaries: u64,
    has_checkpoint: bool,
    /// Highest block covered by a checkpoint: a later one must not cover less.
    covered: BlockSeq,
    background: bool,
    failed: Option<String>,
    counters: LogStats,
}

impl Log {
    /// Copies a whole batch into the open block, in the group's data entry, and stamps the leader's region.
    /// On a refusal nothing has changed. Panics when `batch` is shorter than a batch header: it was validated before.
    pub fn append_batch(&mut self, slab: &mut Slab, group: GroupId, batch: &[u8], stamp: &LeaderStamp) -> Result<Appended, AppendRefused> {
        // Stamped here and not in the block: the block's memory is cold, and the header's checksum would wait for it to be read back.
        let (head, body) = batch.split_at(BATCH_HEADER_BYTES);
        let mut stamped = [0; BATCH_HEADER_BYTES];
        stamped.copy_from_slice(head);
        stamp_leader(&mut stamped, stamp);
        self.append(slab, Row { group, kind: EntryKind::Data, position: None }, FRAGMENT_BATCH, [&stamped, body], |_| {})
    }

    /// As `append_batch`, for topics whose append time counts: the batch is flagged so, and its body checksum mended.
    pub fn append_batch_with_append_time(
        &mut self,
        slab: &mut Slab,
        group: GroupId,
        batch: &[u8],
        stamp: &LeaderStamp,
    ) -> Result<Appended, AppendRefused> {
        self.append(slab, Row { group, kind: EntryKind::Data, position: None }, FRAGMENT_BATCH, [batch, &[]], |bytes| {
            mark_append_time(bytes);
            stamp_leader(bytes, stamp);
        })
    }

    /// Copies a payload into the open block. Control payloads of one group join one entry; each Raft payload (may be empty) is an entry of
    /// its own; a hard state bears no index. Data is refused by a panic: it goes through `append_batch`.
    pub fn append_control(&mut self, slab: &mut Slab, group: GroupId, kind: EntryKind, payload: &[u8]) -> Result<Appended, AppendRefused> {
        assert!(kind != EntryKind::Data, "data is appended as batches");
        self.append(slab, Row { group, kind, position: None }, FRAGMENT_PAYLOAD, [payload, &[]], |_| {})
    }

    /// Copies a stored batch (its leader's region already stamped) into the open block as it is, as part of the entry that has this place in its group:
    /// for followers.
    pub fn append_stored(
        &mut self,
        slab: &mut Slab,
        group: GroupId,
        position: (Term, LogIndex),
        batch: &[u8],
    ) -> Result<Appended, AppendRefused> {
        let row = Row { group, kind: EntryKind::Data, position: Some(position) };
        self.append(slab, row, FRAGMENT_BATCH, [batch, &[]], |_| {})
    }

    /// Copies a stored batch that came without its entry, out of another replica's snapshot, into the open block.
    pub fn append_imported(&mut self, slab: &mut Slab, group: GroupId, batch: &[u8]) -> Result<Appended, AppendRefused> {
        self.append(slab, Row { group, kind: EntryKind::Import, position: None }, FRAGMENT_BATCH, [batch, &[]], |_| {})
    }

    /// The same for a payload, control or raft's own (of which the one of an empty entry is empty).
    pub fn append_stored_control(
        &mut self,
        slab: &mut Slab,
        group: GroupId,
        kind: EntryKind,
        position: (Term, LogIndex),
        payload: &[u8],
    ) -> Result<Appended, AppendRefused> {
        assert!(matches!(kind, EntryKind::Control | EntryKind::Raft), "{kind:?} is not what a leader sends as a payload");
        self.append(slab, Row { group, kind, position: Some(position) }, FRAGMENT_PAYLOAD, [payload, &[]], |_| {})
    }

    fn append(
        &mut self,
        slab: &mut Slab,
        row: Row,
        fragment_kind: u8,
        content: [&[u8]; 2],
        finish: impl FnOnce(&mut [u8]),
    ) -> Result<Appended, AppendRefused> {
        if self.failed.is_some() {
            return Err(AppendRefused::Failed);
        }
        let mut taken = self.open.append(slab, &self.limits, row, fragment_kind, content);
        if taken == Err(NotTaken::NoMemory) && self.evict_some() {
            taken = self.open.append(slab, &self.limits, row, fragment_kind, content);
        }
        match taken {
            Ok(at) => {
                let len = content[0].len() + content[1].len();
                finish(self.open.bytes_mut(at, len));
                self.counters.appends += 1;
                Ok(Appended { block: self.next_seq, at, len: len as u32 })
            }
            Err(NotTaken::BlockFull | NotTaken::NoMemory) => Err(AppendRefused::Full),
            Err(NotTaken::TooLarge) => Err(AppendRefused::TooLarge),
        }
    }

    /// The oldest cached blocks are worth less than an append. Answers whether there was one to let go.
    fn evict_some(&mut self) -> bool {
        let durable = self.window.durable_through();
        (0..EVICTIONS_PER_APPEND).take_while(|_| self.cache.evict(durable)).count() > 0
    }

    /// Makes room in the open block for what has to become durable together: batches and payloads of these sizes, in up to `rows` rows of the block's table (one per group and kind). Until the
    /// block is closed appending these is not refused.
    pub fn reserve_together(&mut self, slab: &mut Slab, rows: usize, sizes: &[usize]) -> Result<(), AppendRefused> {
        if self.failed.is_some() {
            return Err(AppendRefused::Failed);
        }
        let reserved = self.open.reserve_together(slab, &self.limits, rows, sizes);
        Log::reserved(reserved)
    }

    /// The same for what another node's leader had in one block: an empty block takes as much as that one could. The oldest cached blocks make room.
    pub fn reserve_stored(&mut self, slab: &mut Slab, rows: usize, sizes: &[usize]) -> Result<(), AppendRefused> {
        if self.failed.is_some() {
            return Err(AppendRefused::Failed);
        }
        let mut reserved = self.open.reserve_stored(slab, &self.limits, rows, sizes);
        if reserved == Err(NotTaken::NoMemory) && self.evict_some() {
            reserved = self.open.reserve_stored(slab, &self.limits, rows, sizes);
        }
        Log::reserved(reserved)
    }

    fn reserved(reserved: Result<(), NotTaken>) -> Result<(), AppendRefused> {
        match reserved {
            Ok(()) => Ok(()),
            Err(NotTaken::TooLarge) => Err(AppendRefused::TooLarge),
            Err(NotTaken::BlockFull | NotTaken::NoMemory) => Err(AppendRefused::Full),
        }
    }

    /// What the open block carries, in the order of its entries.
    pub fn open_groups(&self) -> &[OpenEntry] {
        self.open.entries()
    }

    /// Another replica leads the group now: what this one has appended for it and not proposed counts nowhere.
    pub fn void_group(&mut self, group: GroupId) {
        self.open.void(group);
    }

    /// Whether the open block holds nothing.
    pub fn is_open_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether the open block holds less than a sixteenth of what it may (64 KiB of 1 MiB): it may stay open for a reason, where a larger one is worth its write.
    pub fn is_open_small(&self) -> bool {
        self.open.content_bytes() < self.cfg.block_bytes_max as usize / 16
    }

    /// Ends a segment before it is full, if it is the one that takes blocks: with the next block, and so it can be sealed. Not where there is no next one, nor a
    /// file for it that the manifest has room to name: what is left of the last segment of a full disk is for bookkeeping.
    pub fn end_segment(&mut self, segment: SegmentUid) {
        if self.segments.ready_count() > 0 || self.has_next_file() {
            self.segments.end(segment);
        }
    }

    /// Whether there is a file for the next segment, and room in the manifest for its name: the first manifest of a start needs a file of its own.
    fn has_next_file(&self) -> bool {
        self.manifest.create_errno() == 0 && (self.pool.usable() > 0 || self.pool.is_preparing())
    }

    /// Whether the open block holds something and may be closed now: a write may be begun, the window that recovery searches is kept, and
    /// there is a place for it.
    pub fn ready_to_close(&self) -> bool {
        !self.open.is_empty() && self.can_close(self.open.padded_len() as u64, self.open.batches())
    }

    fn can_close(&self, padded: u64, batches: u32) -> bool {
        self.failed.is_none()
            && !self.window.is_full()
            && self.window.len() < WINDOW_BLOCKS_MAX
            && self.window.bytes() + padded <= self.cfg.window_bytes()
            && self.segments.has_room(padded, batches)
    }

    /// Closes the open block (which must be `ready_to_close`) and pushes its write. `positions` is asked for term and index of each entry that
    /// bears an index, in the order of `open_groups`. Returns the block's number.
    pub fn close_block(
        &mut self,
        now: Now,
        slab: &mut Slab,
        effects: &mut Effects,
        positions: impl FnMut(GroupId, EntryKind, u32) -> (Term, LogIndex),
    ) -> BlockSeq {
        assert!(self.ready_to_close(), "closing a block that is not ready: {:?}", self.stats());
        self.mark_due = true;
        self.close(now, slab, effects, 0, positions)
    }

    fn close(
        &mut self,
        now: Now,
        slab: &mut Slab,
        effects: &mut Effects,
        flags: u16,
        positions: impl FnMut(GroupId, EntryKind, u32) -> (Term, LogIndex),
    ) -> BlockSeq {
        let seq = self.next_seq;
        let padded = self.open.padded_len();
        let batches = self.open.batches();
        let (place, rolled) = self.segments.place(seq, padded as u32, self.last_crc, batches);
        let header = BlockHeader {
            shard: self.cfg.shard,
            flags,
            entry_count: 0,
            fragment_count: 0,
            segment_uid: place.segment,
            incarnation: self.incarnation,
            block_seq: seq,
            durable_through: self.window.durable_through(),
            length: 0,
            table_pos: 0,
            prev_header_crc: self.last_crc,
            pos: place.pos,
            utc_us: now.utc_us,
            log_uid: self.log_uid,
        };
        let content = self.open.content_bytes();
        let (bytes, header, crc) = self.open.close(slab, header, positions);
        assert_eq!(bytes.len(), padded, "the block is as long as it was said to be");
        let live = self.segments.live();
        let write = PendingWrite::new(segment_file(live.file), u64::from(place.pos), bytes.clone());
        write.push(token(Purpose::Block, seq.0), effects);
        self.counters.rolls += u64::from(rolled);
        self.counters.rolls_into_fresh_extents += u64::from(rolled && live.fresh);
        self.window.push(seq, ClosedBlock { segment: place.segment, write, closed_us: now.mono_us, written: false });
        self.cache.push(seq, bytes, self.window.durable_through());
        self.last_crc = crc;
        self.next_seq = BlockSeq(seq.0 + 1);
        self.last_block_us = Some(now.mono_us);
        self.counters.blocks_closed += 1;
        self.counters.written_bytes += padded as u64;
        self.counters.padding_bytes += (padded - content - layout::table_bytes(header.entry_count, header.fragment_count)) as u64;
        seq
    }

    /// Writes an empty block that tells what is durable, when the log has been idle long enough.
    fn maybe_mark(&mut self, now: Now, slab: &mut Slab, effects: &mut Effects) {
        let last = *self.last_block_us.get_or_insert(now.mono_us);
        if !self.mark_due || !self.background || !self.open.is_empty() || !self.window.is_empty() {
            return;
        }
        let due_us = last + self.cfg.mark_after_us;
        if now.mono_us < due_us {
            return effects.wake_at(due_us);
        }
        if self.can_close(layout::BLOCK_ALIGN as u64, 0) && self.open.reserve_mark(slab) {
            self.mark_due = false;
            self.counters.marks_closed += 1;
            self.close(now, slab, effects, FLAG_MARK, |_, _, _| unreachable!("a mark has no entries"));
        }
    }

    /// The number the open block will have.
    pub fn open_block_seq(&self) -> BlockSeq {
        self.next_seq
    }

    /// The last closed block.
    pub fn last_closed(&self) -> BlockSeq {
        BlockSeq(self.next_seq.0 - 1)
    }

    /// All blocks up to this one are on stable storage.
    pub fn durable_through(&self) -> BlockSeq {
        self.window.durable_through()
    }

    /// Closed blocks from this one on are in the tail cache.
    pub fn cached_from(&self) -> BlockSeq {
        self.cache.first()
    }

    /// The largest batch that it takes, in bytes.
    pub fn batch_bytes_max(&self) -> usize {
        self.limits.batch_bytes_max
    }

    /// A closed block, whole, while it is in the tail cache.
    pub fn cached_block(&self, block: BlockSeq) -> Option<&Bytes> {
        self.cache.get(block)
    }

    /// Blocks from this one on stay in the tail cache, durable or not: what is in them is not applied yet. `BlockSeq(u64::MAX)` for none.
    pub fn keep_cached_from(&mut self, block: BlockSeq) {
        self.cache.keep_from(block);
    }

    /// This block stays in the tail cache as well, and all behind it, until `keep_cached_from` says otherwise.
    pub fn keep_cached(&mut self, block: BlockSeq) {
        self.cache.keep(block);
    }

    /// Where bytes `at..at + len` of a block are now. Panics when they are not inside a cached block: places are ours.
    pub fn locate(&self, block: BlockSeq, at: u32, len: u32) -> Place {
        if block >= self.next_seq {
            return Place::Open;
        }
        if let Some(bytes) = self.cache.get(block) {
            return Place::Cached(bytes.slice(at as usize..(at + len) as usize));
        }
        match self.segments.block_place(block) {
            Some(place) => Place::Disk { segment: place.segment, pos: u64::from(place.pos) + u64::from(at) },
            None => Place::Gone,
        }
    }

    /// Where a block of a segment without a footer is. Constant time.
    pub fn block_place(&self, block: BlockSeq) -> Option<BlockPlace> {
        self.segments.block_place(block)
    }

    /// Whether a block is on its way to the disk.
    pub fn is_writing(&self) -> bool {
        self.window.in_flight() > 0
    }

    /// Whether the disk has more to do than it can: as many writes as may be were under way, and more than half of them have not ended since. A small
    /// block does well to wait then, and to take more in ([`ready_to_close`](Self::ready_to_close) does not ask for it).
    pub fn is_crowded(&self) -> bool {
        self.window.is_crowded()
    }

    /// Bytes of the reads under way that somebody waits for.
    pub fn reading_bytes(&self) -> u64 {
        self.reads.in_flight_bytes()
    }

    /// Begins a cold read of `len` bytes at `pos` of a segment; it ends in one `LogNews::ReadDone` with the returned ticket.
    pub fn begin_read(
        &mut self,
        slab: &mut Slab,
        effects: &mut Effects,
        owner: u64,
        segment: SegmentUid,
        pos: u32,
        len: u32,
    ) -> Result<u64, ReadRefused> {
        // A failed log still reads: its segments are what they were.
        let found = self.segments.get_mut(segment).ok_or(ReadRefused::Gone)?;
        if matches!(found.state, SegmentState::Freeing { .. }) {
            return Err(ReadRefused::Gone);
        }
        let ticket = self.reads.begin(slab, effects, owner, segment, segment_file(found.file), found.bytes, pos, len)?;
        found.pins += 1;
        Ok(ticket)
    }

    /// The read for entries `first..first + count` of a sealed segment's footer, or nothing when it has none. Panics on a slice outside the
    /// footer.
    pub fn footer_plan(&self, segment: SegmentUid, first: u32, count: u32) -> Option<footer::FooterPlan> {
        let found = self.segments.get(segment)?;
        match found.state {
            SegmentState::Sealed { footer_entries } => Some(footer::read_plan(segment, found.bytes, footer_entries, first, count)),
            _ => None,
        }
    }

    /// How many entries the footer of a sealed segment has.
    pub fn footer_entries(&self, segment: SegmentUid) -> Option<u32> {
        match self.segments.get(segment)?.state {
            SegmentState::Sealed { footer_entries } => Some(footer_entries),
            _ => None,
        }
    }

    /// Whether the sorter wrote this segment.
    pub fn is_sorted(&self, segment: SegmentUid) -> bool {
        self.segments.get(segment).is_some_and(|found| found.is_sorted)
    }

    /// Bytes of the files that new segments get.
    pub fn segment_bytes(&self) -> u64 {
        self.cfg.segment_bytes
    }

    /// What the last checkpoint covers.
    pub fn covered(&self) -> BlockSeq {
        self.covered
    }

    /// Keeps a segment's file from being reused until `unpin`. False when the segment is not there (any more).
    pub fn pin(&mut self, segment: SegmentUid) -> bool {
        match self.segments.get_mut(segment) {
            Some(found) if !matches!(found.state, SegmentState::Freeing { .. }) => {
                found.pins += 1;
                true
            }
            _ => false,
        }
    }

    /// Ends a `pin`.
    pub fn unpin(&mut self, segment: SegmentUid) {
        let found = self.segments.get_mut(segment).expect("a pinned segment stays");
        found.pins = found.pins.checked_sub(1).expect("each pin ends once");
    }

    /// The oldest segment that waits to be sealed, if it was reported.
    pub fn seal_ready(&self) -> Option<SegmentUid> {
        self.segments.oldest_open().filter(|segment| segment.state == SegmentState::Full { announced: true }).map(|segment| segment.uid)
    }

    /// Segments in log order, then sorted ones.
    pub fn segments(&self) -> impl Iterator<Item = SegmentInfo> + '_ {
        self.segments.iter().map(|segment| SegmentInfo {
            uid: segment.uid,
            sealed: segment.is_sealed(),
            sorted: segment.is_sorted,
            file_bytes: segment.bytes,
            first_block: segment.first_block,
            last_block: segment.last_block,
        })
    }

    /// Why this log has failed, if it has.
    pub fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// The bugs that the simulator has switched on.
    pub fn mutants(&self) -> Mutants {
        self.cfg.mutants
    }

    /// This start's incarnation.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The file that blocks are written to now.
    pub fn live_file(&self) -> FileId {
        segment_file(self.segments.live().file)
    }

    /// Whether something is open that no segment has room for.
    fn waits_for_segment(&self) -> bool {
        !self.open.is_empty() && !self.segments.has_room(self.open.padded_len() as u64, self.open.batches())
    }

    /// Whether no segment file can be added: the file system refused the last one, or has no room above what has to stay free.
    pub fn is_tight(&self) -> bool {
        self.pool.is_out_of_room()
    }

    /// Segment files created since the start.
    pub fn files_created(&self) -> u64 {
        self.pool.created
    }

    /// Bytes that segments still take before another file is needed.
    pub fn prepared_bytes(&self) -> u64 {
        let live = self.segments.live();
        live.bytes - live.write_pos + (self.segments.ready_count() as u64 + u64::from(self.pool.usable())) * self.cfg.segment_bytes
    }

    /// Whether the file system refused the next segment, or the manifest that would name it, none is left, and `bytes` more do not fit into the live one or would
    /// take what is kept of it for bookkeeping: what is taken now could not be written before space comes back.
    pub fn is_out_of_space(&self, bytes: u64) -> bool {
        let kept = self.cfg.segment_bytes / background::KEPT_PART;
        (self.is_tight() || self.manifest.create_errno() != 0)
            && !self.has_next_file()
            && !self.segments.has_room(self.open.padded_len() as u64 + bytes + kept + 2 * PAGE_BYTES as u64, self.open.batches() + 1)
    }

    /// Numbers for metrics and budgets.
    pub fn stats(&self) -> LogStats {
        let (pool_filled, pool_unfilled) = self.pool.counts();
        // Until the shard is told that a segment is sealed, it holds the batches in its tails and counts none of them as kept.
        let being_sealed = self.sealer.segment();
        let is_sealed = |segment: &Segment| segment.is_sealed() && being_sealed != Some(segment.uid);
        let sealed = || self.segments.iter().filter(|segment| is_sealed(segment));
        let errnos = [self.pool.create_errno, self.manifest.create_errno(), self.sealer.create_errno(), self.state.create_errno];
        LogStats {
            open_bytes: self.open.content_bytes() as u64,
            undurable_bytes: self.window.bytes(),
            writes_in_flight: self.window.in_flight(),
            reads_in_flight: self.reads.in_flight(),
            reads: self.reads.begun,
            reads_failed: self.reads.failed,
            read_bytes: self.reads.bytes,
            cache_blocks: self.cache.len() as u64,
            cache_bytes: self.cache.bytes() as u64,
            segments_open: self.segments.count(|segment| !is_sealed(segment)),
            segments_sealed: self.segments.count(is_sealed),
            segments_sorted: self.segments.count(|segment| segment.is_sealed() && segment.is_sorted),
            sealed_file_bytes: sealed().map(|segment| segment.bytes).sum(),
            sealed_batch_bytes: sealed().map(|segment| segment.batch_bytes).sum(),
            pool_file_bytes: self.pool.file_bytes(),
            pool_filled,
            pool_unfilled,
            file_bytes: self.segments.iter().map(|segment| segment.bytes).sum::<u64>() + self.pool.file_bytes(),
            create_errno: errnos.into_iter().find(|errno| *errno != 0).unwrap_or(0),
            out_of_segments: self.waits_for_segment(),
            ..self.counters
        }
    }
}

/// Checks a batch that came back from a disk: whole, right by its own checksums, and the one that was asked for.
pub fn check_batch(bytes: &[u8], uid: PartitionUid, base_offset: Offset) -> Result<(), BatchFault> {
    let batch = BatchView::parse_exact(bytes).or(Err(BatchFault::Malformed))?;
    batch.verify_header().or(Err(BatchFault::Header))?;
    batch.verify_body().or(Err(BatchFault::Body))?;
    if batch.partition_uid() != uid.0 {
        return Err(BatchFault::OtherPartition { found: batch.partition_uid() });
    }
    if batch.base_offset() != base_offset.0 {
        return Err(BatchFault::OtherOffset { found: batch.base_offset() });
    }
    Ok(())
}
