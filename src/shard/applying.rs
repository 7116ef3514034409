//! What committed entries change on a replica that does not lead, and what entries that are not committed yet change on one that begins to lead.
//!
//! A leader takes its own entries in when it appends them. A follower has their bytes only, and takes them in once they are committed, in order of
//! index, each once, out of the blocks that carry them: those stay in the tail cache until then. What a start found behind the checkpoint is kept
//! parsed, since its blocks are not in memory.
//!
//! What an entry says of queues and of members has a mark of its own, which can be behind the others': it is never taken in before it is committed.
//!
//! Not here: the leader's way (the files of each subject), storing (`pipelines.rs`), that other mark (`rebuild.rs`).

use super::beginnings::Since;
use super::rebuild::{REBUILDER, Rebuild};
use super::shard::{Phase, Shard};
use super::shipping::BlockFor;
use super::start::batch_ref;
use crate::control::Command;
use crate::effects::{Effects, Now};
use crate::ids::{BlockSeq, GroupId, LogIndex, PartitionUid, Term, TopicUid};
use crate::log::layout::BlockView;
use crate::log::{EntryKind, RecoveredBatch, RecoveredControl, envelope};
use crate::mutants::Mutant;
use crate::partition::{BatchRef, Partition, Slot, TopicRules, decode_trims};
use crate::replication::Entry;
use crate::subscription::membership::CHANGE_SCHEMA;
use crate::subscription::queue::QUEUE_SCHEMA;
use crate::subscription::{OFFSETS_SCHEMA, decode_notes};
use std::collections::BTreeMap;
use tramline_wire::batch::{BatchView, ProducerMark};

/// A batch that stands in the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredBatch {
    pub(super) uid: PartitionUid,
    pub(super) place: BatchRef,
    pub(super) mark: ProducerMark,
    pub(super) append_time_us: i64,
}

impl StoredBatch {
    /// What a start found.
    pub(super) fn found(batch: &RecoveredBatch) -> StoredBatch {
        StoredBatch { uid: batch.uid, place: batch_ref(batch), mark: batch.producer, append_time_us: batch.append_time_us }
    }

    pub(super) fn read(bytes: &[u8], block: BlockSeq, at: u32) -> StoredBatch {
        let batch = BatchView::parse_exact(bytes).expect("a batch was checked before it was stored");
        let place = BatchRef {
            base_offset: batch.base_offset(),
            newest_ts_us: batch.effective_newest_us(),
            block,
            at,
            len: bytes.len() as u32,
            last_delta: batch.last_offset_delta(),
        };
        StoredBatch { uid: PartitionUid(batch.partition_uid()), place, mark: batch.producer(), append_time_us: batch.append_time_us() }
    }
}

/// What one entry holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    block: BlockSeq,
    batches: Vec<StoredBatch>,
    pub(super) payloads: Vec<Vec<u8>>,
}

impl Content {
    /// Payloads alone.
    pub(super) fn of_payloads(block: BlockSeq, payloads: Vec<Vec<u8>>) -> Content {
        Content { block, payloads, batches: Vec::new() }
    }
}

/// How far each group is taken in (kept up while there are other nodes), and what a start found of it.
#[derive(Debug, Default)]
pub(super) struct Applying {
    applied: BTreeMap<GroupId, LogIndex>,
    found: BTreeMap<(GroupId, LogIndex), Content>,
    /// Groups that this shard works for as their leader, and in which term.
    pub(super) led: BTreeMap<GroupId, Term>,
    /// Where groups came as a snapshot.
    pub(super) since: BTreeMap<GroupId, Since>,
    /// Queues and members.
    pub(super) rebuild: Rebuild,
}

impl Applying {
    /// `base`: what a start has taken in of each group.
    pub(super) fn new(base: impl IntoIterator<Item = (GroupId, LogIndex)>) -> Applying {
        Applying { applied: base.into_iter().collect(), ..Applying::default() }
    }

    /// Keeps what a start found and what is not known to be committed, to be taken in when it is.
    pub(super) fn keep(
        &mut self,
        batches: &[RecoveredBatch],
        controls: &[RecoveredControl],
        is_pending: impl Fn(GroupId, LogIndex) -> bool,
    ) {
        for batch in batches.iter().filter(|b| is_pending(b.group, b.index)) {
            let content = self.found.entry((batch.group, batch.index)).or_default();
            content.block = batch.block;
            content.batches.push(StoredBatch::found(batch));
        }
        for control in controls.iter().filter(|c| c.kind == EntryKind::Control && is_pending(c.group, c.index)) {
            let content = self.found.entry((control.group, control.index)).or_default();
            content.block = control.block;
            content.payloads.push(control.payload.clone());
        }
    }

    /// Up to where `group` is taken in.
    pub(super) fn applied(&self, group: GroupId) -> LogIndex {
        self.applied.get(&group).copied().unwrap_or_default()
    }

    /// Committed, and taken in.
    fn forget_found(&mut self, group: GroupId, end: LogIndex) {
        let gone: Vec<_> = self.found.range((group, LogIndex(0))..=(group, end)).map(|(key, _)| *key).collect();
        gone.iter().for_each(|key| drop(self.found.remove(key)));
    }

    /// The group is none of this shard's any more.
    pub(super) fn remove(&mut self, group: GroupId) {
        self.forget_found(group, LogIndex(u64::MAX));
        self.applied.remove(&group);
        self.led.remove(&group);
        self.since.remove(&group);
        self.rebuild.remove(group);
    }

    /// A snapshot took the place of it.
    pub(super) fn forget_all_found(&mut self, group: GroupId) {
        self.forget_found(group, LogIndex(u64::MAX));
    }

    /// What a leader appends it takes in at once, and what it loses with its leadership it has not taken in.
    pub(super) fn set(&mut self, group: GroupId, index: LogIndex) {
        self.applied.insert(group, index);
    }
}

/// Whether what is taken in is committed, or only may be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Certainty {
    Committed,
    Tentative,
}

impl Shard {
    /// Takes in what has become committed in groups that this replica does not lead.
    pub(super) fn apply_committed(&mut self, now: Now, effects: &mut Effects) {
        for at in 0.. {
            // A view that comes into force in between can end some.
            let Some(group) = self.group_ids.get(at).copied() else { break };
            if !self.groups.leads(group) {
                let committed = self.groups.committed_of(group);
                self.apply_up_to(now, group, committed, Certainty::Committed, effects);
            } else {
                // Taken in when it was appended. What a start found of it is needed no more.
                self.applying.set(group, self.groups.last_of(group).index);
            }
        }
        self.rebuild(now, effects);
        for group in &self.group_ids {
            let taken_in = self.groups.committed_of(*group).min(self.applying.rebuild.noted(*group)).min(self.applying.applied(*group));
            self.applying.forget_found(*group, taken_in);
        }
        self.on_trimmed(now);
        self.keep_unapplied();
    }

    /// Takes in the entries of `group` up to `end`, in order.
    pub(super) fn apply_up_to(&mut self, now: Now, group: GroupId, end: LogIndex, certainty: Certainty, effects: &mut Effects) {
        while self.applying.applied(group) < end && self.failure().is_none() {
            let index = LogIndex(self.applying.applied(group).0 + 1);
            let Some(content) = self.content_of(now, group, index, effects) else { break };
            let mutants = self.log.mutants();
            if mutants.has(Mutant::SkipApply) && index.0.is_multiple_of(16) && !content.batches.is_empty() {
                self.applying.set(group, index);
                continue;
            }
            if let Err(what) = self.apply_entry(group, index, &content, certainty) {
                return self.fail(&format!("entry {index} of group {group}, from another node, cannot be read: {what}"), effects);
            }
            self.applying.set(group, index);
            // In the same go, unless these are behind.
            if certainty == Certainty::Committed && self.applying.rebuild.is_next(group, index) {
                if let Err(what) = self.note_entry(group, &content) {
                    return self.fail(&format!("entry {index} of group {group}, from another node, cannot be read: {what}"), effects);
                }
                self.applying.rebuild.set_noted(group, index);
            }
        }
        if group == GroupId(0)
            && certainty == Certainty::Committed
            && self.applying.applied(group) >= end
            && self.seat.as_ref().is_some_and(|seat| seat.is_current && seat.state.view_epoch() > self.view.epoch)
        {
            self.publish_view(now, effects);
        }
    }

    fn apply_entry(&mut self, group: GroupId, index: LogIndex, content: &Content, certainty: Certainty) -> Result<(), String> {
        if group == GroupId(0) {
            let commands: Result<Vec<_>, _> = content.payloads.iter().map(|payload| Command::decode(payload)).collect();
            let commands = commands.map_err(|error| error.to_string())?;
            // Of raft's own entry there are none.
            if let Some(seat) = self.seat.as_mut().filter(|_| !commands.is_empty()) {
                match certainty {
                    Certainty::Committed => seat.apply(index, &commands),
                    Certainty::Tentative => seat.inherit(index, commands),
                }
            }
            return Ok(());
        }
        content.batches.iter().for_each(|batch| self.apply_batch(group, batch, certainty));
        content.payloads.iter().try_for_each(|payload| self.apply_payload(group, content.block, payload, certainty))
    }

    /// What an entry holds: of raft's own nothing. `None` where it cannot be read yet, or the shard has failed over it. A block that is not in memory any more
    /// is read back, one at a time: what waits for it is to be tried again when it is there.
    pub(super) fn content_of(&mut self, now: Now, group: GroupId, index: LogIndex, effects: &mut Effects) -> Option<Content> {
        let Some(Entry { term, holds, block }) = self.groups.entry(group, index) else {
            if index == LogIndex(1) {
                // A leader's empty one, which its log gives up where a replica without a past is to get a snapshot (replication/group/empty.rs), perhaps before this.
                return Some(Content::default());
            }
            self.fail(&format!("group {group}: entry {index} is committed and is not known any more"), effects);
            return None;
        };
        if let Some(content) = self.applying.found.get(&(group, index)).filter(|content| block == Some(content.block)) {
            return Some(content.clone());
        }
        if holds.is_own() {
            return Some(Content::default());
        }
        let Some(block) = block else {
            self.fail(&format!("group {group}: entry {index} is committed and stands in no block"), effects);
            return None;
        };
        if block >= self.log.open_block_seq() {
            // Others have made it durable before this shard could close its block: taken in when that is closed.
            return None;
        }
        if self.applying.rebuild.is_given_up {
            return None;
        }
        let mut read = std::mem::take(&mut self.applying.rebuild.read);
        let found = self.closed_block(now, &mut read, REBUILDER, (group, index, term), block, effects);
        self.applying.rebuild.read = read;
        let bytes = match found {
            BlockFor::Here(bytes) => bytes,
            BlockFor::Later => return None,
            // The next start finds what is wrong with it, and has it made good.
            BlockFor::Never if self.phase == Phase::Stopping => {
                tracing::error!(
                    shard = self.id.0,
                    group = group.0,
                    block = block.0,
                    "a block cannot be read back: no checkpoint is written at this stop"
                );
                self.applying.rebuild.is_given_up = true;
                return None;
            }
            BlockFor::Never => {
                let from = self.log.cached_from();
                let what = format!(
                    "group {group}: entry {index} in block {block} is not taken in, memory begins with block {from}, and the block cannot be read back"
                );
                self.fail(&what, effects);
                return None;
            }
        };
        let view = BlockView::parse(bytes.as_slice()).expect("a block of the tail cache is the one that was written");
        let mut content = Content { block, ..Content::default() };
        for row in view.rows_of(group, index, term) {
            for fragment in view.fragments_of(&row) {
                let bytes = view.content(&fragment);
                match row.kind {
                    EntryKind::Data => content.batches.push(StoredBatch::read(bytes, block, fragment.offset)),
                    EntryKind::Control => content.payloads.push(bytes.to_vec()),
                    _ => {}
                }
            }
        }
        Some(content)
    }

    pub(super) fn apply_batch(&mut self, group: GroupId, batch: &StoredBatch, certainty: Certainty) {
        let is_committed = certainty == Certainty::Committed;
        let Some(slot) = self.partitions.slot(batch.uid) else {
            if self.view.has_known(batch.uid) {
                // Its topic was deleted.
                return;
            }
            // The metadata that tell of it are on their way.
            let new = || Partition::new(batch.uid, TopicUid(0), 0, group, TopicRules::default());
            let partition = self.unclaimed.entry(batch.uid).or_insert_with(new);
            if batch.place.end_offset() > partition.next_offset() {
                partition.on_stored(batch.place, is_committed);
                let committed_end = if is_committed { u64::MAX } else { partition.committed_end() };
                partition.producers_mut().replay(&batch.mark, &batch.place, batch.append_time_us, committed_end);
            }
            return;
        };
        let partition = self.partitions.get_mut(slot).expect("a uid's slot is filled");
        if batch.place.end_offset() <= partition.next_offset() {
            // A checkpoint knew of it: taken in already.
            return;
        }
        partition.on_stored(batch.place, is_committed);
        if is_committed {
            self.sessions.wake(slot);
        } else {
            self.partitions.touch(group, batch.place.block, slot, batch.place.end_offset());
        }
        if batch.mark.id != 0 {
            self.partitions.replay_producer(slot, &batch.mark, &batch.place, batch.append_time_us, is_committed);
        }
    }

    pub(super) fn apply_payload(&mut self, group: GroupId, block: BlockSeq, payload: &[u8], certainty: Certainty) -> Result<(), String> {
        let is_committed = certainty == Certainty::Committed;
        match envelope::schema_of(payload) {
            Some(OFFSETS_SCHEMA) => {
                for note in decode_notes(payload).map_err(|error| error.to_string())? {
                    match is_committed {
                        true => self.offsets.table.apply(&note),
                        false => self.offsets.proposed.push(group, block, note),
                    }
                }
            }
            // At their own time.
            Some(QUEUE_SCHEMA | CHANGE_SCHEMA) => {}
            _ => {
                for trim in decode_trims(payload).map_err(|error| error.to_string())? {
                    let Some(slot) = self.partitions.slot(trim.uid) else {
                        if let Some(partition) = self.unclaimed.get_mut(&trim.uid).filter(|_| is_committed) {
                            partition.trim_to(trim.log_start.min(partition.committed_end()));
                        }
                        continue;
                    };
                    match is_committed {
                        true => self.apply_trim(slot, trim.log_start),
                        false => self.trims.proposed.push(group, block, (slot, trim.log_start)),
                    }
                }
            }
        }
        Ok(())
    }

    fn apply_trim(&mut self, slot: Slot, log_start: u64) {
        let partition = self.partitions.get_mut(slot).expect("a uid's slot is filled");
        partition.trim_to(log_start.min(partition.committed_end()));
        self.trimmed.push(slot);
    }

    /// Whether everything in blocks up to `block` is taken in, by partitions that the view knows: a footer lists what these have.
    pub(super) fn is_applied_through(&self, block: BlockSeq) -> bool {
        self.pipelines.is_alone() || self.unclaimed.is_empty() && self.is_taken_in_through(block)
    }

    /// Whether everything in blocks up to `block` is taken in, by whatever partition: a checkpoint that covers no more than the one before tells of all of them.
    pub(super) fn is_taken_in_through(&self, block: BlockSeq) -> bool {
        let is_applied = |group: &GroupId| {
            let index = self.groups.index_at(*group, block);
            self.applying.applied(*group) >= index && self.applying.rebuild.noted(*group) >= index
        };
        self.pipelines.is_alone() || self.group_ids.iter().all(is_applied)
    }

    /// Blocks with entries that are not taken in stay in memory.
    fn keep_unapplied(&mut self) {
        let first = |group: &GroupId| {
            let index = LogIndex(self.applying.applied(*group).0.min(self.groups.committed_of(*group).0) + 1);
            self.groups.entry(*group, index)?.block
        };
        let from = self.group_ids.iter().filter_map(first).min().unwrap_or(BlockSeq(u64::MAX));
        self.log.keep_cached_from(from);
    }
}
