//! Reading behind the tail: chunks of a segment, some ahead, found through the partition's index or a sealed segment's footer.
//!
//! Invariants: chunks are in offset order and do not overlap; at most `COLD_CHUNKS_PER_CURSOR` of them; every batch is checked
//! (both checksums, its partition, its offset) in the moment it is handed out; the bytes counted in `Reading::cold_bytes`
//! are exactly those of the chunks that exist.
//!
//! Not here: the reads themselves (log/), which session is next (`sessions.rs`).

use super::cursor::Owner;
use super::sessions::{DamageFound, Reading};
use super::{
    COLD_BYTES_MAX, COLD_CHUNK_BYTES, COLD_CHUNK_BYTES_WHEN_WRITING, COLD_CHUNKS_PER_CURSOR, COLD_CHUNKS_WHEN_SHARED, COLD_READING_BYTES,
    COLD_READING_BYTES_WHEN_WRITING,
};
use crate::bytes::Bytes;
use crate::ids::{Offset, PartitionUid, SegmentUid};
use crate::log::footer::{FooterPlan, decode_slice};
use crate::log::{FooterEntry, Place, ReadError, ReadRefused, check_batch};
use crate::mutants::Mutant;
use crate::partition::{Found, Run, Slot};
use std::collections::VecDeque;
use tramline_wire::error::ErrorCode;

/// Footer entries read at once: 8,192 of 40 bytes are 320 KiB.
const FOOTER_WINDOW_ENTRIES: u32 = 8192;
/// Bytes of other partitions that are read through rather than skipped with a read of their own.
const GAP_BYTES_MAX: u64 = 64 << 10;

#[derive(Clone, Copy, Debug)]
struct ColdEntry {
    base_offset: u64,
    end_offset: u64,
    newest_ts_us: i64,
    pos: u64,
    len: u32,
}

#[derive(Debug)]
enum ChunkState {
    Reading(u64),
    Ready(Bytes),
    Failed,
}

#[derive(Debug)]
struct Chunk {
    segment: SegmentUid,
    pos: u64,
    len: u64,
    state: ChunkState,
    entries: Vec<ColdEntry>,
}

impl Chunk {
    /// Bytes of the cursor's own batches.
    fn own_bytes(&self) -> u64 {
        self.entries.iter().map(|e| u64::from(e.len)).sum()
    }
}

/// Some of a run's footer entries. A run is known by its segment and its last entry there: retention cuts its front off.
#[derive(Debug)]
struct Window {
    segment: SegmentUid,
    footer_end: u32,
    /// Number of the first within the footer.
    first: u32,
    entries: Vec<ColdEntry>,
}

/// A footer read under way.
#[derive(Clone, Copy, Debug)]
struct FooterRead {
    ticket: u64,
    run: Run,
    /// Number of its first entry within the footer.
    first: u32,
    plan: FooterPlan,
}

/// What is next behind the tail.
#[derive(Debug)]
pub(super) enum ColdNext {
    Batch {
        bytes: Bytes,
        end_offset: u64,
    },
    Wait,
    /// A read of somebody else's has to end first.
    Later,
    Starved,
    Refused {
        code: ErrorCode,
        next_offset: u64,
    },
    /// Nothing before this offset is wanted.
    Skip {
        to: u64,
    },
    /// What comes is in memory, or not there yet: the index knows.
    Warm,
}

enum Plan {
    /// As far ahead as it may be, or a footer is being read.
    Enough,
    /// The log writes, and somebody else reads.
    Later,
    Starved,
    Warm,
    Refused(ErrorCode, u64),
}

/// One cursor's reads behind the tail.
#[derive(Debug)]
pub(super) struct Cold {
    slot: Slot,
    uid: u64,
    chunks: VecDeque<Chunk>,
    window: Option<Window>,
    footer_read: Option<FooterRead>,
    /// The run whose footer could not be read, by its segment and its last entry there.
    footer_failed: Option<(SegmentUid, u32)>,
    plan_offset: u64,
    /// Bytes of its batches that are read ahead, at most.
    ahead_bytes: u64,
}

impl Cold {
    pub(super) fn new(slot: Slot, uid: u64, offset: u64, ahead_bytes: u64) -> Cold {
        Cold { slot, uid, chunks: VecDeque::new(), window: None, footer_read: None, footer_failed: None, plan_offset: offset, ahead_bytes }
    }

    /// Gives up: the memory counts no more. Reads under way end without an owner.
    pub(super) fn abandon(&mut self, cold_bytes: &mut u64) {
        for chunk in self.chunks.drain(..) {
            *cold_bytes -= chunk.len;
        }
    }

    /// A read ended. Answers whether it was one of this cursor's.
    pub(super) fn on_read(&mut self, ticket: u64, bytes: Result<Bytes, ReadError>) -> bool {
        if let Some(read) = self.footer_read.filter(|r| r.ticket == ticket) {
            self.footer_read = None;
            match bytes.ok().and_then(|bytes| decode_window(&bytes, &read, self.uid)) {
                Some(entries) => {
                    self.window = Some(Window { segment: read.run.segment, footer_end: read.run.footer_end(), first: read.first, entries });
                }
                None => self.footer_failed = Some((read.run.segment, read.run.footer_end())),
            }
            return true;
        }
        match self.chunks.iter_mut().find(|c| matches!(c.state, ChunkState::Reading(t) if t == ticket)) {
            Some(chunk) => {
                chunk.state = bytes.map_or(ChunkState::Failed, ChunkState::Ready);
                true
            }
            None => false,
        }
    }

    /// The next batch at or after `offset`.
    pub(super) fn next(&mut self, offset: u64, min_ts_us: Option<i64>, owner: Owner, reading: &mut Reading<'_>) -> ColdNext {
        while self.chunks.front().is_some_and(|c| c.entries.last().is_none_or(|e| e.end_offset <= offset)) {
            let chunk = self.chunks.pop_front().expect("looked at above");
            *reading.cold_bytes -= chunk.len;
        }
        self.plan_offset = self.plan_offset.max(offset);
        let plan = self.plan(min_ts_us, owner, reading);
        let Some(chunk) = self.chunks.front() else {
            return match plan {
                Plan::Refused(code, next_offset) => ColdNext::Refused { code, next_offset },
                Plan::Later => ColdNext::Later,
                Plan::Starved => ColdNext::Starved,
                Plan::Enough => ColdNext::Wait,
                Plan::Warm if self.plan_offset > offset => ColdNext::Skip { to: self.plan_offset },
                Plan::Warm => ColdNext::Warm,
            };
        };
        let at = chunk.entries.partition_point(|e| e.end_offset <= offset);
        let entry = chunk.entries[at];
        if min_ts_us.is_none() && entry.base_offset > offset {
            // Offsets follow one another: what no footer names any more (it was rebuilt after damage) is told, not passed over.
            return self.damaged(offset, entry.base_offset, entry.pos, reading);
        }
        let bytes = match &chunk.state {
            ChunkState::Reading(_) => return ColdNext::Wait,
            ChunkState::Failed => return self.damaged(entry.base_offset, entry.end_offset, entry.pos, reading),
            ChunkState::Ready(bytes) => {
                let start = (entry.pos - chunk.pos) as usize;
                bytes.slice(start..start + entry.len as usize)
            }
        };
        if reading.log.mutants().has(Mutant::ServeUnverified) {
            return ColdNext::Batch { bytes, end_offset: entry.end_offset };
        }
        match check_batch(bytes.as_slice(), PartitionUid(self.uid), Offset(entry.base_offset)) {
            Ok(()) => ColdNext::Batch { bytes, end_offset: entry.end_offset },
            Err(_) => self.damaged(entry.base_offset, entry.end_offset, entry.pos, reading),
        }
    }

    fn damaged(&self, first_offset: u64, end_offset: u64, pos: u64, reading: &mut Reading<'_>) -> ColdNext {
        let segment = self.chunks.front().map_or(SegmentUid(0), |c| c.segment);
        reading.damage.push(DamageFound { uid: self.uid, first_offset, end_offset, segment, pos });
        let code = self.damage_code(first_offset, reading);
        ColdNext::Refused { code, next_offset: end_offset }
    }

    fn damage_code(&self, offset: u64, reading: &Reading<'_>) -> ErrorCode {
        reading.partitions.get(self.slot).map_or(ErrorCode::Damaged, |partition| partition.damage_code(offset))
    }

    fn plan(&mut self, min_ts_us: Option<i64>, owner: Owner, reading: &mut Reading<'_>) -> Plan {
        let partitions = reading.partitions;
        let Some(partition) = partitions.get(self.slot) else { return Plan::Warm };
        let visible_end = partition.visible_end();
        // A quarter of the budget: blocks, the tail cache and what waits to be sent need the rest.
        let cold_bytes_max = COLD_BYTES_MAX.min(reading.slab.budget_bytes() as u64 / 4);
        // Many readers share what there is: each goes on, none is far ahead.
        let ahead = if *reading.cold_bytes > cold_bytes_max / 2 { COLD_CHUNKS_WHEN_SHARED } else { COLD_CHUNKS_PER_CURSOR };
        while self.chunks.len() < ahead {
            let own_bytes = self.chunks.iter().map(Chunk::own_bytes).sum();
            let left_bytes = self.ahead_bytes.saturating_sub(own_bytes);
            if left_bytes == 0 && !self.chunks.is_empty() {
                return Plan::Enough;
            }
            if self.footer_read.is_some() {
                return Plan::Enough;
            }
            // Each cursor may have one read under way, more only as long as the disk has not enough to do.
            let is_reading = self.chunks.iter().any(|c| matches!(c.state, ChunkState::Reading(_)));
            if is_reading && reading.log.reading_bytes() >= COLD_READING_BYTES {
                return Plan::Enough;
            }
            let chunk_bytes = if reading.log.is_writing() { COLD_CHUNK_BYTES_WHEN_WRITING } else { COLD_CHUNK_BYTES };
            let mut entries = Vec::new();
            let wanted = |e: &ColdEntry| min_ts_us.is_none_or(|min| e.newest_ts_us >= min);
            let (segment, planned_to) = match partition.index.find(self.plan_offset, reading.log.cached_from()) {
                Found::End => return Plan::Warm,
                Found::Run(run) => {
                    let plan_offset = self.plan_offset;
                    let window = match self.window_at(run, owner, reading) {
                        Ok(Some(window)) => window,
                        Ok(None) => return Plan::Enough,
                        Err(plan) => return plan,
                    };
                    let from = window.partition_point(|e| e.end_offset <= plan_offset);
                    let taken = collect(window[from..].iter().copied(), left_bytes, chunk_bytes, &mut entries, wanted);
                    (run.segment, taken)
                }
                Found::Listed(at) => {
                    let mut segment = None;
                    let mut on_disk = Vec::new();
                    for (_, batch) in partition.index.listed_from(at).take_while(|(_, b)| b.end_offset() <= visible_end).take(4096) {
                        match reading.log.locate(batch.block, batch.at, batch.len) {
                            Place::Disk { segment: s, pos } if segment.is_none_or(|first| first == s) => {
                                segment = Some(s);
                                on_disk.push(ColdEntry {
                                    base_offset: batch.base_offset,
                                    end_offset: batch.end_offset(),
                                    newest_ts_us: batch.newest_ts_us,
                                    pos,
                                    len: batch.len,
                                });
                                if pos - on_disk[0].pos > chunk_bytes {
                                    break;
                                }
                            }
                            _ => break,
                        }
                    }
                    let Some(segment) = segment else { return Plan::Warm };
                    (segment, collect(on_disk.into_iter(), left_bytes, chunk_bytes, &mut entries, wanted))
                }
            };
            let (Some(first), Some(last)) = (entries.first().copied(), entries.last().copied()) else {
                self.plan_offset = planned_to;
                continue;
            };
            if reading.log.is_writing() && reading.log.reading_bytes() >= COLD_READING_BYTES_WHEN_WRITING {
                // Who has one under way is woken by its end.
                return if is_reading { Plan::Enough } else { Plan::Later };
            }
            let len = last.pos + u64::from(last.len) - first.pos;
            if *reading.cold_bytes + len > cold_bytes_max && *reading.cold_bytes > 0 {
                return Plan::Starved;
            }
            let ticket = match reading.log.begin_read(reading.slab, reading.effects, owner.pack(), segment, first.pos as u32, len as u32) {
                Ok(ticket) => ticket,
                Err(ReadRefused::Full) => return Plan::Starved,
                // Retention took the segment between the look into the index and here: the index knows by the next call.
                Err(ReadRefused::Gone) => return Plan::Starved,
                Err(ReadRefused::BadRange | ReadRefused::Failed) => return Plan::Refused(ErrorCode::StorageFailed, self.plan_offset),
            };
            *reading.cold_bytes += len;
            self.plan_offset = planned_to;
            self.chunks.push_back(Chunk { segment, pos: first.pos, len, state: ChunkState::Reading(ticket), entries });
        }
        Plan::Enough
    }

    /// The footer entries of `run` around the planned offset; `None` while they are being read.
    fn window_at(&mut self, run: Run, owner: Owner, reading: &mut Reading<'_>) -> Result<Option<&[ColdEntry]>, Plan> {
        if self.footer_failed.take() == Some((run.segment, run.footer_end())) {
            let (first_offset, end_offset) = (run.first_offset, run.end_offset);
            reading.damage.push(DamageFound { uid: self.uid, first_offset, end_offset, segment: run.segment, pos: 0 });
            return Err(Plan::Refused(ErrorCode::Damaged, run.end_offset));
        }
        let first = match &self.window {
            // A sorted segment may hold several runs of one partition.
            Some(window) if (window.segment, window.footer_end) == (run.segment, run.footer_end()) => {
                let last = window.entries.last().map_or(0, |e| e.end_offset);
                if self.plan_offset < last {
                    return Ok(self.window.as_ref().map(|w| w.entries.as_slice()));
                }
                (window.first + window.entries.len() as u32).max(run.footer_first)
            }
            _ => run.footer_first,
        };
        let count = (run.footer_end() - first).min(FOOTER_WINDOW_ENTRIES);
        if count == 0 {
            // A footer that was rebuilt after damage lists fewer batches than the run had.
            return Err(Plan::Refused(ErrorCode::Damaged, run.end_offset));
        }
        let refused = |refused| match refused {
            ReadRefused::Full | ReadRefused::Gone => Plan::Starved,
            ReadRefused::BadRange | ReadRefused::Failed => Plan::Refused(ErrorCode::StorageFailed, run.end_offset),
        };
        // Retention took the segment between the look into the index and here: the index knows by the next call.
        let plan = reading.log.footer_plan(run.segment, first, count).ok_or(Plan::Starved)?;
        let read = reading.log.begin_read(reading.slab, reading.effects, owner.pack(), run.segment, plan.pos, plan.len);
        self.footer_read = Some(FooterRead { ticket: read.map_err(refused)?, run, first, plan });
        Ok(None)
    }
}

/// Takes wanted entries as long as they make one sensible read and up to `own_bytes` of them; answers the offset up to which was decided.
fn collect(
    from: impl Iterator<Item = ColdEntry>,
    own_bytes: u64,
    chunk_bytes: u64,
    entries: &mut Vec<ColdEntry>,
    wanted: impl Fn(&ColdEntry) -> bool,
) -> u64 {
    let mut decided = 0;
    let mut taken = 0;
    for entry in from {
        if !wanted(&entry) {
            decided = entry.end_offset;
            continue;
        }
        if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
            let too_long = entry.pos + u64::from(entry.len) - first.pos > chunk_bytes;
            let too_far = entry.pos - (last.pos + u64::from(last.len)) > GAP_BYTES_MAX;
            if too_long || too_far || taken >= own_bytes {
                break;
            }
        }
        decided = entry.end_offset;
        taken += u64::from(entry.len);
        entries.push(entry);
    }
    decided
}

fn decode_window(bytes: &Bytes, read: &FooterRead, uid: u64) -> Option<Vec<ColdEntry>> {
    let run = &read.run;
    let right = |e: &FooterEntry| e.partition_uid.0 == uid && e.base_offset.0 >= run.first_offset && e.base_offset.0 < run.end_offset;
    let mut decoded = Vec::new();
    decode_slice(&read.plan, bytes.as_slice(), &mut decoded).ok()?;
    if !decoded.iter().all(right) {
        return None;
    }
    let entry = |e: &FooterEntry| ColdEntry {
        base_offset: e.base_offset.0,
        end_offset: e.base_offset.0 + u64::from(e.last_offset_delta) + 1,
        newest_ts_us: e.newest_ts,
        pos: u64::from(e.pos),
        len: e.len,
    };
    Some(decoded.iter().map(entry).collect())
}
