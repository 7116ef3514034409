//! What the log does besides taking blocks: completions, the next segment, the pool, sealing, freeing, the manifest.
//!
//! Every completion and every turn ends in `advance`, which looks at each of these machines once, in a fixed order, and lets it take its
//! next step when what it waits for has happened.

use crate::bytes::Slab;
use crate::effects::{Effects, Now, Outcome, Token};
use crate::ids::{BlockSeq, SegmentUid};
use crate::log::Log;
use crate::log::checkpoint::CheckpointV5;
use crate::log::footer::{FooterEntry, FooterHeader, footer_bytes};
use crate::log::layout::SegmentHeader;
use crate::log::manifest::{FreeFileV1, ManifestV2, SegmentRecordV1};
use crate::log::operation::{Progress, Purpose, purpose_of, segment_file, token};
use crate::log::pool::Load;
use crate::log::replace::Replaced;
use crate::log::seal::SealNeed;
use crate::log::segments::{Segment, SegmentState, ready_segment};
use crate::log::state_file::StateBuilder;
use crate::log::types::{FreeRefused, LogNews, SealRefused};
use crate::mutants::Mutant;

/// Where no file may be created: the part of the last segment that is kept for the log's own bookkeeping (metadata, marks), and the part
/// below which one more file is taken after all.
pub(crate) const KEPT_PART: u64 = 8;
const LAST_PART: u64 = 32;
/// The part of the live segment that is left when a log with little to write stops waiting for a file to be filled: at 100 MB/s a third of a second, and
/// the next segment needs three synced writes.
const FRESH_PART: u64 = 8;
/// What is open and being written is light up to here, in bytes: its writes take as long as a flush takes, whatever they carry.
const LIGHT_BYTES: u64 = 128 << 10;
/// How long it has to have been light, in microseconds, before the log leaves a segment in space that was never written: each one left costs what it had left.
const LIGHT_FOR_US: u64 = 1_000_000;

impl Log {
    /// Takes the end of an operation whose token is of `TokenRoom::Log`.
    pub fn on_done(&mut self, now: Now, slab: &mut Slab, token: Token, outcome: Outcome, effects: &mut Effects, out: &mut Vec<LogNews>) {
        let (purpose, number) = purpose_of(token);
        if let Err(reason) = self.route(now, slab, purpose, number, outcome, effects, out) {
            self.fail(reason, out);
        }
        self.advance(slab, effects, out);
    }

    fn route(
        &mut self,
        now: Now,
        slab: &mut Slab,
        purpose: Purpose,
        number: u64,
        outcome: Outcome,
        effects: &mut Effects,
        out: &mut Vec<LogNews>,
    ) -> Result<(), String> {
        match (purpose, outcome) {
            (Purpose::Block, Outcome::Write(result)) => self.on_block_written(now, BlockSeq(number), result, effects, out),
            (Purpose::Read, Outcome::Read(buf, result)) => {
                if let Some(end) = self.reads.on_done(slab, number, buf, result, effects) {
                    self.unpin(end.segment);
                    out.push(LogNews::ReadDone {
                        ticket: end.ticket,
                        owner: end.owner,
                        segment: end.segment,
                        pos: end.pos,
                        bytes: end.bytes,
                    });
                }
                Ok(())
            }
            // Once failed, only what others wait for is carried on: reads end, writes are counted, nothing new begins.
            (purpose, outcome) if self.failed.is_some() => {
                let _ = (purpose, outcome);
                Ok(())
            }
            (Purpose::Fill, Outcome::Write(result)) => {
                if self.pool.on_fill_done(result, effects)? {
                    self.manifest.ask();
                }
                Ok(())
            }
            (Purpose::SegmentHeader, Outcome::Write(result)) => {
                if self.pool.on_header_done(result, effects)? {
                    let version = self.manifest.ask();
                    self.pool.header_in_manifest(version);
                }
                Ok(())
            }
            (Purpose::Footer, Outcome::Write(result)) => self.sealer.on_footer_done(slab, result, effects),
            (Purpose::SortedData, Outcome::Write(result)) => self.sorted.on_data_done(number, result, effects),
            (Purpose::SortedFooter, Outcome::Write(result)) => {
                if self.sorted.on_footer_done(slab, result, effects)? {
                    self.on_sorted_footer_durable();
                }
                Ok(())
            }
            (Purpose::Manifest, outcome) => self.manifest.on_done(now, slab, outcome, effects),
            (Purpose::Checkpoint, outcome) => match self.sealer.on_checkpoint_done(now, slab, outcome, effects)? {
                SealNeed::Manifest => {
                    self.on_checkpoint_durable();
                    Ok(())
                }
                SealNeed::Checkpoint | SealNeed::Nothing => Ok(()),
            },
            (Purpose::State, outcome) => match self.state.on_done(now, slab, outcome, effects) {
                Replaced::Going => Ok(()),
                Replaced::Failed(reason) => Err(reason),
                Replaced::Done => {
                    out.push(LogNews::StateWritten);
                    Ok(())
                }
            },
            (Purpose::PoolFile, outcome) => self.pool.on_create_done(now, &outcome, effects),
            (Purpose::DropFile, outcome) => {
                self.pool.on_drop_done(now, &outcome, effects);
                Ok(())
            }
            (purpose, outcome) => panic!("{outcome:?} does not end {purpose:?} {number}"),
        }
    }

    fn on_block_written(
        &mut self,
        now: Now,
        number: BlockSeq,
        result: Result<u32, i32>,
        effects: &mut Effects,
        out: &mut Vec<LogNews>,
    ) -> Result<(), String> {
        // The token holds the low 48 bits; the window is a few blocks behind the next number.
        let seq = BlockSeq((self.next_seq.0 & !((1 << 48) - 1)) | number.0);
        let seq = if seq >= self.next_seq { BlockSeq(seq.0 - (1 << 48)) } else { seq };
        let mutants = self.cfg.mutants;
        let block = self.window.get(seq);
        let progress = match block.write.on_done(result) {
            Progress::Again if mutants.has(Mutant::IgnoreShortWrite) => Progress::Whole,
            Progress::Failed(_) if mutants.has(Mutant::BelieveFailedWrite) => Progress::Whole,
            Progress::Failed(_) if mutants.has(Mutant::RetryFailedWrite) => Progress::Again,
            progress => progress,
        };
        match progress {
            Progress::Again => {
                self.counters.short_writes += 1;
                block.write.push(token(Purpose::Block, seq.0), effects);
                Ok(())
            }
            Progress::Failed(reason) => {
                let reason = format!("block {seq} in segment {}: {reason}", block.segment);
                self.window.on_failed();
                Err(reason)
            }
            Progress::Whole => {
                out.push(LogNews::Written { took_us: now.mono_us.saturating_sub(block.closed_us) });
                if let Some(durable) = self.window.on_written(seq)
                    && self.failed.is_none()
                {
                    out.push(LogNews::Durable(durable));
                }
                if mutants.has(Mutant::AckOutOfOrder) {
                    out.push(LogNews::Durable(seq));
                }
                Ok(())
            }
        }
    }

    fn fail(&mut self, reason: String, out: &mut Vec<LogNews>) {
        if self.failed.is_none() {
            out.push(LogNews::Failed(reason.clone()));
            self.failed = Some(reason);
        }
    }

    /// To be called last in each turn of the shard's loop: mark block, filling of the pool (at most `bytes` now), everything that waited for
    /// memory or time. Asks for its next deadline through `effects.wake_at`.
    pub fn on_turn(&mut self, now: Now, bytes: u64, slab: &mut Slab, effects: &mut Effects, out: &mut Vec<LogNews>) {
        if self.failed.is_some() {
            return;
        }
        self.maybe_mark(now, slab, effects);
        self.manifest.on_turn(now, slab, effects);
        self.sealer.on_turn(now, slab, effects);
        self.state.on_turn(now, slab, effects);
        if self.background || self.waits_for_segment() && self.pool.usable() == 0 {
            let needed = self.segments.ready_count() == 0 && !self.pool.is_preparing();
            let last = needed && !self.segments.has_room(self.cfg.segment_bytes / LAST_PART, 0);
            self.pool.maybe_create(now, needed, last, &mut self.next_file, effects);
        }
        if self.background {
            let load = Load {
                calm: self.open.is_empty() && self.window.in_flight() == 0,
                last_block_us: self.last_block_us.unwrap_or(now.mono_us),
                light: self.is_light(),
                live_used: self.segments.live().used_bytes(),
                live_is_fresh: self.segments.live().fresh,
                next_is_due: self.next_is_due(),
                reading: self.reads.were_begun_lately(now),
            };
            self.pool.maybe_fill(now, bytes, load, slab, effects);
        }
        self.advance(slab, effects, out);
        if self.background {
            self.maybe_leave_fresh(now);
            // After what was freed in this turn.
            self.pool.maybe_drop(now, effects);
        }
    }

    /// Whether the next segment is wanted soon, filled or not: the live one is half full, or was ended early, and then the next block waits for it.
    fn next_is_due(&self) -> bool {
        let live = self.segments.live();
        live.is_ended || live.write_pos * 2 >= live.bytes
    }

    /// Ends a segment whose space was never written before, once there is one whose space was: each synced write into the former pays a journal commit (430 us for 280, of 10,000 records/s),
    /// and at a rate that is light it lasts for long. It was begun under a load that had used up what was prepared; not where little of it is left, nor where files are scarce.
    fn maybe_leave_fresh(&mut self, now: Now) {
        let heavy_us = *self.heavy_us.get_or_insert(now.mono_us);
        if !self.is_light() {
            self.heavy_us = Some(now.mono_us);
        } else if now.mono_us >= heavy_us + LIGHT_FOR_US {
            let live = self.segments.live();
            let is_worth_it = live.fresh && live.used_bytes() + self.cfg.segment_bytes / FRESH_PART <= live.bytes;
            // Where the one that is ready is fresh as well, the log is through it as soon as the one behind it is ready.
            let leads_out = self.segments.next_ready().is_some_and(|next| !next.fresh || self.pool.counts().0 > 0);
            if is_worth_it && leads_out && self.pool.usable() > 0 && self.manifest.create_errno() == 0 {
                self.segments.end(live.uid);
            }
        }
    }

    /// Whether what is open and being written is small.
    fn is_light(&self) -> bool {
        self.window.bytes() + self.open.padded_len() as u64 <= LIGHT_BYTES
    }

    /// Whether the log should not wait any longer for a file that was filled.
    fn may_begin_fresh(&self) -> bool {
        let is_full = !self.segments.has_room(self.cfg.segment_bytes / FRESH_PART, 0);
        is_full || self.waits_for_segment() || self.next_is_due() && !self.is_light()
    }

    /// Lets every machine take the step it can take.
    fn advance(&mut self, slab: &mut Slab, effects: &mut Effects, out: &mut Vec<LogNews>) {
        if self.failed.is_some() {
            return;
        }
        if self.cfg.mutants.has(Mutant::AckBeforeSync) && !self.window.is_empty() {
            out.push(LogNews::Durable(BlockSeq(self.next_seq.0 - 1)));
        }
        if let Some(segment) = self.pool.take_prepared(|version| self.manifest.is_durable(version)) {
            self.segments.add(segment);
        }
        self.maybe_prepare(slab, effects);
        while let Some(segment) = self.segments.announce_full(self.window.durable_through()) {
            out.push(LogNews::SealReady(segment));
        }
        self.begin_wanted_checkpoint(slab, effects);
        match self.sealer.take_finished(|version| self.manifest.is_durable(version)) {
            Some(Some(segment)) => {
                // Only now: whoever knows its batches by block has found them up to this news.
                self.segments.forget_sealed_rows(self.next_seq);
                out.push(LogNews::Sealed(segment));
            }
            Some(None) => out.push(LogNews::CheckpointWritten),
            None => {}
        }
        self.advance_sorted(slab, effects, out);
        self.finish_freeing(out);
        self.begin_wanted_manifest(slab, effects);
    }

    fn begin_wanted_checkpoint(&mut self, slab: &mut Slab, effects: &mut Effects) {
        if let SealNeed::Checkpoint = self.sealer.need() {
            let scan = self.segments.scan_start(self.sealer.segment(), self.next_seq, self.last_crc);
            self.sealer.begin_checkpoint(&mut self.temporaries, slab, effects, |checkpoint| checkpoint.scan = scan);
        }
    }

    fn begin_wanted_manifest(&mut self, slab: &mut Slab, effects: &mut Effects) {
        if self.manifest.wants_writing() {
            let table = self.table();
            self.manifest.begin(&table, &mut self.temporaries, slab, effects);
        }
    }

    fn maybe_prepare(&mut self, slab: &mut Slab, effects: &mut Effects) {
        if !self.background && !self.waits_for_segment() || self.pool.is_preparing() || self.segments.ready_count() > 0 {
            return;
        }
        let last = !self.segments.has_room(self.cfg.segment_bytes / LAST_PART, 0);
        let Some((file, fresh)) = self.pool.take_for_log(self.may_begin_fresh(), last) else { return };
        let uid = SegmentUid(self.next_uid);
        let segment = ready_segment(uid, file, self.cfg.segment_bytes, self.incarnation, self.next_seq, self.cfg.window_bytes(), fresh);
        let header = segment_header(&segment, self);
        if self.pool.begin_prepare(segment, &header, slab, effects) {
            self.next_uid += 1;
        }
    }

    /// Seals the oldest full segment: footer, then checkpoint, then manifest; ends in `LogNews::Sealed`. `entries` are the batches in it that
    /// count (sorted here if they are not); they are taken and an empty vector comes back. `checkpoint` must cover the segment's last block and
    /// hold the runs that point to these entries.
    ///
    /// Panics when the segment is not the one that `seal_ready` names, or the checkpoint covers too little or too much.
    pub fn seal(
        &mut self,
        slab: &mut Slab,
        effects: &mut Effects,
        segment: SegmentUid,
        entries: &mut Vec<FooterEntry>,
        checkpoint: CheckpointV5,
    ) -> Result<(), SealRefused> {
        self.may_write_checkpoint(&checkpoint)?;
        assert_eq!(self.seal_ready(), Some(segment), "segments are sealed oldest first");
        let found = self.segments.get(segment).expect("ready to be sealed");
        assert!(checkpoint.covers_block >= found.last_block.0, "the checkpoint covers {} of {found:?}", checkpoint.covers_block);
        let count = entries.len() as u32;
        assert!(count <= found.batches, "{count} entries for {found:?}");
        if !entries.is_sorted_by_key(FooterEntry::sort_key) {
            entries.sort_unstable_by_key(FooterEntry::sort_key);
        }
        if self.cfg.mutants.has(Mutant::DropLastIndexEntry) {
            entries.pop();
        }
        let count = entries.len() as u32;
        let header = FooterHeader {
            shard: self.cfg.shard,
            segment,
            incarnation: self.incarnation,
            log_uid: self.log_uid,
            entry_count: count,
            position: found.bytes - footer_bytes(count),
            first_block: found.first_block,
            last_block: found.last_block,
            newest_ts: entries.iter().map(|entry| entry.newest_ts).max().unwrap_or(i64::MIN),
            data_end: found.write_pos,
            pages_crc: 0,
        };
        assert!(header.position >= found.write_pos, "the footer's room was kept: {found:?}");
        let file = segment_file(found.file);
        self.covered = BlockSeq(checkpoint.covers_block);
        self.sealer.begin_seal(file, header, entries, checkpoint);
        self.sealer.write_footer_part(slab, effects);
        Ok(())
    }

    /// Writes a checkpoint without sealing a segment (at shutdown); ends in `LogNews::CheckpointWritten`.
    pub fn write_checkpoint(&mut self, slab: &mut Slab, effects: &mut Effects, checkpoint: CheckpointV5) -> Result<(), SealRefused> {
        self.may_write_checkpoint(&checkpoint)?;
        self.covered = BlockSeq(checkpoint.covers_block);
        self.sealer.begin_checkpoint_only(checkpoint);
        self.begin_wanted_checkpoint(slab, effects);
        Ok(())
    }

    /// Replaces the state file; ends in `LogNews::StateWritten`. Panics while that is under way already.
    pub fn write_state(&mut self, slab: &mut Slab, effects: &mut Effects, state: StateBuilder) {
        let (header, payload) = state.seal();
        self.state.begin_sealed(header, payload, &mut self.temporaries, slab, effects);
    }

    /// Whether the state file may be replaced now.
    pub fn is_state_free(&self) -> bool {
        self.failed.is_none() && self.state.is_idle()
    }

    /// Whether a seal or a checkpoint may be begun now: none is under way, and the log has not failed.
    pub fn is_sealing_free(&self) -> bool {
        self.failed.is_none() && self.sealer.is_idle()
    }

    fn may_write_checkpoint(&self, checkpoint: &CheckpointV5) -> Result<(), SealRefused> {
        if self.failed.is_some() {
            return Err(SealRefused::Failed);
        }
        if !self.sealer.is_idle() {
            return Err(SealRefused::Busy);
        }
        let covers = BlockSeq(checkpoint.covers_block);
        assert!(covers <= self.durable_through() && covers >= self.covered, "a checkpoint covers {covers}: {:?}", self.stats());
        assert_eq!(checkpoint.shard, self.cfg.shard.0);
        Ok(())
    }

    fn on_checkpoint_durable(&mut self) {
        let mut version = 0;
        if let Some(segment) = self.sealer.segment() {
            self.segments.set_sealed(segment, self.sealer.footer_entries(), self.sealer.batch_bytes());
            version = self.manifest.ask();
        } else if !self.has_checkpoint {
            version = self.manifest.ask();
        }
        self.has_checkpoint = true;
        self.sealer.in_manifest(version);
    }

    /// Frees a sealed segment (retention): it cannot be read from now on, leaves the manifest, and once pins are gone its file is
    /// recycled or removed; then `LogNews::SegmentFreed`.
    pub fn free_segment(&mut self, slab: &mut Slab, effects: &mut Effects, segment: SegmentUid) -> Result<(), FreeRefused> {
        if self.failed.is_some() {
            return Err(FreeRefused::Failed);
        }
        let freeing = self.segments.count(|s| matches!(s.state, SegmentState::Freeing { keep_file: true, .. }));
        let segment_bytes = self.cfg.segment_bytes;
        let found = self.segments.get_mut(segment).ok_or(FreeRefused::Unknown)?;
        match found.state {
            SegmentState::Sealed { .. } if self.sealer.segment() != Some(segment) => {
                let keep_file = found.bytes == segment_bytes && self.pool.wants_written(freeing);
                found.state = SegmentState::Freeing { manifest_version: self.manifest.ask(), keep_file };
            }
            SegmentState::Freeing { .. } => return Err(FreeRefused::Unknown),
            _ => return Err(FreeRefused::NotSealed),
        }
        self.begin_wanted_manifest(slab, effects);
        Ok(())
    }

    fn finish_freeing(&mut self, out: &mut Vec<LogNews>) {
        loop {
            let done = self.segments.iter().find(|segment| match segment.state {
                SegmentState::Freeing { manifest_version, .. } => {
                    (segment.pins == 0 || self.cfg.mutants.has(Mutant::RecycleWhileRead))
                        && (self.manifest.is_durable(manifest_version) || self.cfg.mutants.has(Mutant::FreeBeforeManifest))
                }
                _ => false,
            });
            let Some(uid) = done.map(|segment| segment.uid) else { return };
            let segment = self.segments.remove(uid).expect("found");
            match segment.state {
                SegmentState::Freeing { keep_file: true, .. } => {
                    // A sorted segment may have been written in part only.
                    let filled = !(segment.fresh && segment.is_sorted);
                    self.pool.recycle(segment.file, filled);
                }
                _ => self.pool.drop_file(segment.file, segment.bytes, !segment.fresh),
            }
            out.push(LogNews::SegmentFreed(uid));
        }
    }

    /// The manifest as the table is now.
    pub(crate) fn table(&self) -> ManifestV2 {
        let (mut segments, mut sorted_segments) = (Vec::new(), Vec::new());
        let mut free = self.pool.free_records();
        for segment in self.segments.iter().chain(self.pool.segment_for_manifest()) {
            let (sealed, footer_entries) = match segment.state {
                SegmentState::Freeing { keep_file, .. } => {
                    if keep_file {
                        free.push(FreeFileV1 { file: segment.file, filled: true });
                    }
                    continue;
                }
                SegmentState::Sealed { footer_entries } => (true, footer_entries),
                SegmentState::Ready | SegmentState::Live | SegmentState::Full { .. } => (false, 0),
            };
            let list = if segment.is_sorted { &mut sorted_segments } else { &mut segments };
            list.push(SegmentRecordV1 {
                uid: segment.uid.0,
                file: segment.file,
                bytes: segment.bytes,
                incarnation: segment.incarnation.0,
                first_seq_bound: segment.first_seq_bound.0,
                window_bytes: segment.window_bytes,
                sealed,
                footer_entries,
            });
        }
        ManifestV2 {
            cluster_id: self.cfg.identity.cluster_id,
            node: self.cfg.identity.node.0,
            shard: self.cfg.shard.0,
            shards: self.cfg.shards,
            log_uid: self.log_uid,
            incarnation: self.incarnation.0,
            starts: self.starts.clone(),
            next_uid: self.next_uid,
            next_file: self.next_file,
            has_checkpoint: self.has_checkpoint,
            segments,
            sorted_segments,
            free,
        }
    }

    /// Stops filling, creating and preparing files, and writing marks: shutdown. What is under way ends by itself (`is_quiet`). Where what was taken in has no
    /// room in the last segment, the next one is made for it.
    pub fn stop_background(&mut self) {
        self.background = false;
    }

    /// Keeps one free file more than the setting, which only `begin_sorted` takes (`pool.rs`).
    pub fn keep_file_for_sorter(&mut self) {
        self.keeps_sorter_file = true;
        self.pool.set_reserve(u32::from(self.sorted.is_idle()));
    }

    /// How many files may be created from now on, until this is called again. Beyond it only a log that runs out of its last segment takes one,
    /// for its own bookkeeping, and only if `for_last`: manifest and checkpoint need some space to be replaced.
    pub fn set_segment_room(&mut self, segments: u32, for_last: bool) {
        self.pool.set_room(segments, for_last);
    }

    /// Whether nothing is open and nothing is under way: after `stop_background`, the process may end.
    pub fn is_quiet(&self) -> bool {
        let reading = self.reads.in_flight() > 0;
        if self.failed.is_some() {
            return self.window.in_flight() == 0 && !reading;
        }
        self.open.is_empty()
            && self.window.is_empty()
            && !reading
            && self.sealer.is_idle()
            && self.state.is_idle()
            && self.manifest.is_quiet()
            && self.sorted.is_quiet()
            && self.pool.is_quiet()
    }
}

/// The header page of a segment of this log.
pub(crate) fn segment_header(segment: &Segment, log: &Log) -> SegmentHeader {
    SegmentHeader {
        shard: log.cfg.shard,
        uid: segment.uid,
        incarnation: segment.incarnation,
        first_block_seq: segment.first_seq_bound,
        segment_bytes: segment.bytes,
        window_bytes: segment.window_bytes,
        log_uid: log.log_uid,
    }
}
