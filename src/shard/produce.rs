//! Produce: from a frame's batches to the open block.
//!
//! Invariants: a frame that finds no room is kept by the edge and goes on at the batch where it stopped; a batch is checked before it
//! is appended; offsets are handed out in the order of appending.

use super::acks::{BatchResult, HeldIn, Waiting, reply};
use super::producers::Marked;
use super::shard::{Phase, Shard, Taken};
use crate::api::{self, ApiError};
use crate::effects::{Answered, Caller, Effects, Now};
use crate::ids::{BlockSeq, PartitionUid};
use crate::log::AppendRefused;
use crate::partition::{BatchRef, Slot};
use crate::replication::OwnBlocks;
use tramline_wire::batch::{BatchView, LeaderStamp};
use tramline_wire::error::ErrorCode;
use tramline_wire::frame::Frame;
use tramline_wire::level::Level;
use tramline_wire::produce::ProduceRequest;

/// How far a frame was taken in.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) results: Vec<BatchResult>,
    pub(super) groups: u64,
    block: BlockSeq,
}

impl Progress {
    fn clear(&mut self) {
        self.results.clear();
        self.groups = 0;
        self.block = BlockSeq(0);
    }
}

/// Why a batch was not appended.
pub(super) enum NotTaken {
    NoRoom,
    Refused(ErrorCode),
}

/// Who has made a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Producer,
    /// A shard of this node, of dead messages: their headers are more than a producer's may be.
    DeadLetters,
}

/// A request without a time-out of its own waits this long for its level.
const TIMEOUT_US_DEFAULT: u64 = 30_000_000;

impl Shard {
    pub(super) fn produce(&mut self, now: Now, caller: Caller, frame: &Frame<'_>, effects: &mut Effects) -> Taken {
        // A frame that was begun goes on where it stopped, whatever has changed meanwhile.
        let begun = if self.half_taken.is_empty() { None } else { self.half_taken.remove(&(caller.conn, caller.via)) };
        let request = match ProduceRequest::decode(frame.meta) {
            Ok(request) => request,
            Err(error) => {
                self.refuse(&caller, &error.into(), effects);
                return Taken::Yes;
            }
        };
        let refuse_all = |shard: &mut Shard, error: ApiError, effects: &mut Effects| {
            if request.level == Level::None {
                shard.metrics.count_error(error.code);
            } else {
                shard.refuse(&caller, &error, effects);
            }
            Taken::Yes
        };
        if let Phase::Failed(reason) = &self.phase {
            let error = ApiError::new(ErrorCode::StorageFailed, reason.clone());
            return refuse_all(self, error, effects);
        }
        if begun.is_none() && self.log.is_out_of_space(frame.payload.len() as u64) {
            let disk = self.throttle.disk();
            let message = format!(
                "shard {} has no room for another segment: {} bytes are free and disk.refuse.free keeps {}; free space, lower retention, or trim or delete topics",
                self.id, disk.free_bytes, disk.refuse_bytes
            );
            return refuse_all(self, ApiError::new(ErrorCode::DiskFull, message), effects);
        }
        if begun.is_none() && self.holds_produce(now, caller.via.is_some()) {
            return Taken::Blocked;
        }
        if request.entries.is_empty() || request.entries.len() > self.settings.entries_max as usize {
            let message = format!("a produce request carries 1 to {} batches, not {}", self.settings.entries_max, request.entries.len());
            return refuse_all(self, ApiError::new(ErrorCode::InvalidRequest, message), effects);
        }
        let batches = match request.batches(frame.payload) {
            Ok(batches) => batches,
            Err(error) => return refuse_all(self, error.into(), effects),
        };
        let mut progress = begun.unwrap_or_else(|| std::mem::take(&mut self.spare_progress));
        for (entry, batch) in batches.skip(progress.results.len()) {
            let uid = PartitionUid(entry.partition_uid);
            match self.take_batch(now, uid, batch, Source::Producer, effects) {
                Ok((result, group_bit, in_block)) => {
                    progress.groups |= group_bit;
                    progress.block = progress.block.max(in_block);
                    progress.results.push(result);
                }
                Err(NotTaken::NoRoom) => {
                    if !progress.results.is_empty() {
                        self.half_taken.insert((caller.conn, caller.via), progress);
                    }
                    return Taken::Blocked;
                }
                Err(NotTaken::Refused(error)) => {
                    self.metrics.count_error(error);
                    let slot = self.partitions.slot(uid);
                    progress.results.push(BatchResult { uid: uid.0, slot, error, base_offset: 0, append_time_us: 0 });
                }
            }
        }
        // Once, when all of it is taken in: a frame that finds no room comes back as often as it takes.
        self.throttle.on_produced(frame.payload.len() as u64, caller.via.is_some());
        self.finish_produce(now, caller, &request, frame.payload.len(), &progress, effects);
        progress.clear();
        self.spare_progress = progress;
        Taken::Yes
    }

    fn finish_produce(
        &mut self,
        now: Now,
        caller: Caller,
        request: &ProduceRequest<'_>,
        payload_bytes: usize,
        progress: &Progress,
        effects: &mut Effects,
    ) {
        if request.level == Level::None {
            return;
        }
        let (is_alone, own) = (self.pipelines.is_alone(), self.own_blocks());
        let held = |group, block| self.groups.held_through(group, block, own);
        let reached = match request.level {
            // One replica is the majority: `replicated` is what the leader has, `durable` what it has durably.
            level if is_alone => (progress.groups == 0 || matches!(level, Level::Leader | Level::Replicated)).then_some(level),
            level => self.acks.reached(level, progress.groups, progress.block, &held),
        };
        if let Some(level) = reached {
            let answered = Answered { taken_us: now.mono_us, ..Answered::one(&caller, payload_bytes) };
            return reply(&caller, &answered, level, progress.results.iter().copied(), &self.partitions, effects);
        }
        let timeout_us = if request.timeout_ms == 0 { TIMEOUT_US_DEFAULT } else { u64::from(request.timeout_ms) * 1000 };
        let waiting = Waiting {
            caller,
            level: request.level,
            block: progress.block,
            groups: progress.groups,
            deadline_us: now.mono_us.saturating_add(timeout_us),
            taken_us: now.mono_us,
            payload_bytes: payload_bytes as u64,
        };
        self.urgent = true;
        self.acks.push(waiting, is_alone, &progress.results);
    }

    fn own_blocks(&self) -> OwnBlocks {
        OwnBlocks { durable: self.log.durable_through(), closed: self.log.last_closed() }
    }

    /// Answers those whose level is reached.
    pub(super) fn answer_producers(&mut self, effects: &mut Effects) {
        let own = self.own_blocks();
        let held = |group, block| self.groups.held_through(group, block, own);
        let held: Option<HeldIn<'_>> = if self.pipelines.is_alone() { None } else { Some(&held) };
        self.acks.release(held, &self.partitions, effects);
    }

    /// Checks a batch and appends it; answers its result, the group's bit and its block.
    pub(super) fn take_batch(
        &mut self,
        now: Now,
        uid: PartitionUid,
        batch: &[u8],
        source: Source,
        effects: &mut Effects,
    ) -> Result<(BatchResult, u64, BlockSeq), NotTaken> {
        let (slot, view) = self.check_batch(now, uid, batch, source).map_err(NotTaken::Refused)?;
        if view.producer().id != 0 {
            match self.check_mark(now, slot, &view) {
                Marked::New => {}
                Marked::Repeated(result, group_bit, in_block) => return Ok((result, group_bit, in_block)),
                Marked::Refused(error) => return Err(NotTaken::Refused(error)),
            }
        }
        if source == Source::Producer {
            let group = self.partitions.get(slot).expect("checked").group;
            self.check_uncommitted(now, group)?;
        }
        self.append_checked(now, slot, batch, &view, source, effects)
    }

    /// Checks everything of a batch but its producer's mark; answers where it goes.
    pub(super) fn check_batch<'a>(
        &self,
        now: Now,
        uid: PartitionUid,
        batch: &'a [u8],
        source: Source,
    ) -> Result<(Slot, BatchView<'a>), ErrorCode> {
        let slot = self.partitions.slot(uid).ok_or_else(|| self.not_here(uid).0)?;
        let partition = self.partitions.get(slot).expect("a uid's slot is filled");
        self.groups.leader_term(partition.group).ok_or(ErrorCode::NotLeader)?;
        let limits = match source {
            Source::Producer => api::produce::limits(&partition.rules, &self.settings),
            Source::DeadLetters => api::produce::letter_limits(&partition.rules, &self.settings),
        };
        let view = api::produce::check(batch, &limits, &partition.rules, now.utc_us).map_err(|error| error.code())?;
        Ok((slot, view))
    }

    /// Appends a batch that was checked, and its mark too.
    pub(super) fn append_checked(
        &mut self,
        now: Now,
        slot: Slot,
        batch: &[u8],
        view: &BatchView<'_>,
        source: Source,
        effects: &mut Effects,
    ) -> Result<(BatchResult, u64, BlockSeq), NotTaken> {
        let partition = self.partitions.get(slot).expect("checked");
        let (uid, group, rules, mark) = (partition.uid, partition.group, partition.rules, view.producer());
        let Some(term) = self.groups.leader_term(group) else { return Err(NotTaken::Refused(ErrorCode::NotLeader)) };
        let stamp = LeaderStamp { partition_uid: uid.0, base_offset: partition.next_offset(), term: term.0, append_time_us: now.utc_us };
        let appended = self.in_open_block(now, effects, |log, slab| match rules.append_time {
            true => log.append_batch_with_append_time(slab, group, batch, &stamp),
            false => log.append_batch(slab, group, batch, &stamp),
        });
        let appended = appended.map_err(|refused| match refused {
            AppendRefused::Full => NotTaken::NoRoom,
            AppendRefused::TooLarge => NotTaken::Refused(ErrorCode::BatchTooLarge),
            AppendRefused::Failed => NotTaken::Refused(ErrorCode::StorageFailed),
        })?;
        let partition = self.partitions.get_mut(slot).expect("found above");
        let newest_ts_us = if rules.append_time { now.utc_us } else { view.newest_timestamp_us() };
        let placed = BatchRef {
            base_offset: stamp.base_offset,
            newest_ts_us,
            block: appended.block,
            at: appended.at,
            len: appended.len,
            last_delta: view.last_offset_delta(),
        };
        partition.on_appended(placed);
        if mark.id != 0 {
            self.partitions.accept_producer(slot, &mark, &placed, now.utc_us, now.mono_us);
        }
        self.partitions.touch(group, appended.block, slot, placed.end_offset());
        self.urgent |= self.sessions.is_awaited(slot);
        if self.queues.has_queues_on(uid) {
            self.show_queues(now, uid, view, &stamp, rules.append_time);
        }
        if rules.visible_at_leader && self.visible_at_close.last() != Some(&slot) {
            self.visible_at_close.push(slot);
        }
        if source == Source::Producer {
            let counters = &mut self.metrics.counters;
            counters.produce_batches += 1;
            counters.produce_records += u64::from(view.record_count());
            counters.produce_bytes += batch.len() as u64;
        }
        let result =
            BatchResult { uid: uid.0, slot: Some(slot), error: ErrorCode::Ok, base_offset: stamp.base_offset, append_time_us: now.utc_us };
        Ok((result, self.acks.bit_of(group), appended.block))
    }
}
