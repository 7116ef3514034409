//! Wounds: stored batches that do not check, in groups of which other nodes have replicas. Each is asked of these, and its run is copied into a sorted segment
//! with what they answer in its place (docs/REPLICATION.md, 8).
//!
//! ```text
//! found (at a start, by the scrubber, the sorter or a reader, or as a block is read back) -> asked of one replica after the other -> its bytes are here, checked -> its run is copied
//! (sorting.rs) -> a checkpoint names the new run: healed
//! ```
//! Invariants: nothing is written over; a wound is healed only by a batch of the same partition, offset and length whose sums are right; one question is under way
//! at a time; what is kept of answers is bounded.
//!
//! Not here: answering others (`repair_answers.rs`), the copying (`sort_job.rs`), entries that are gone (`suspects.rs`). Offsets that no index lists any more, for
//! a footer and its blocks were lost together, stay as they are.

use super::outward::Outward;
use super::pipelines::{NotTaken, write};
use super::shard::Shard;
use super::sort_job::{Job, Spares};
use crate::effects::{Effect, Effects, Now};
use crate::ids::{BlockSeq, ConnId, GroupId, LogIndex, PartitionUid, ReplicaId, SegmentUid, Term};
use crate::log::layout::BlockView;
use crate::log::{BadFragment, BatchFault, DamageKind, Recovered, check_fragment};
use crate::partition::Run;
use crate::subscription::DamageFound;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use tramline_wire::batch::BatchView;
use tramline_wire::error::ErrorCode;
use tramline_wire::node::{Class, Fetch, FetchReply, Fetched, Frame, Kind, NodeError, PayloadLimits};

/// Wounds that are known at once; the scrubber finds the others again.
const WOUNDS_MAX: usize = 4096;
/// Bytes kept of answers, or one batch.
const SPARE_BYTES_MAX: usize = 16 << 20;
/// An answer comes within so long.
const ANSWER_US: u64 = 10_000_000;
/// A wound that no replica can help with is asked about again after 1 s, doubling up to a minute.
const AGAIN_US_MIN: u64 = 1_000_000;
const AGAIN_US_MAX: u64 = 60_000_000;
/// Wounds are looked over once in so long, and when there is a new one.
const LOOK_US: u64 = 1_000_000;
/// After so many rounds of refusals readers are told that the range is damaged, instead of to try again.
const ROUNDS_OF_HOPE: u32 = 3;

/// So long a snapshot waits for a voter that does not say whether it has what is damaged here: as long as a move waits for a dead node.
const SILENCE_US: u64 = 600_000_000;

/// A batch that does not check, as far as is known.
#[derive(Debug, Default)]
struct Wound {
    /// Behind its last offset; only the first one is known at a start.
    end: u64,
    /// Where the bytes stand that do not check: segment, and byte in it.
    place: (SegmentUid, u64),
    /// When it was first looked at, or its spare came.
    since_us: Option<u64>,
    /// Who has said that they have no such batch either.
    without: Vec<ReplicaId>,
    /// What another replica has there.
    spare: Option<Box<[u8]>>,
    /// The segment out of which its run is being copied.
    mending: Option<SegmentUid>,
    /// Times that somebody could not help.
    refusals: u32,
    ask_at_us: u64,
    is_hopeless: bool,
}

type WoundKey = (PartitionUid, u64);

/// Whom this shard asks.
#[derive(Debug)]
struct Asking {
    outward: Outward,
    question: Option<(WoundKey, Fetch, u64)>,
}

/// The wounds of a shard.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    wounds: BTreeMap<WoundKey, Wound>,
    asking: Option<Asking>,
    spare_bytes: usize,
    next_look_us: u64,
    /// Places that were found damaged when they were read back, and told.
    told: BTreeSet<(SegmentUid, u64)>,
}

impl Repairs {
    pub(super) fn count(&self) -> usize {
        self.wounds.len()
    }

    /// Whether a place was not told of yet: what is read back is so again and again. Of very many some are told twice.
    fn is_news(&mut self, place: (SegmentUid, u64)) -> bool {
        if self.told.len() >= WOUNDS_MAX {
            self.told.clear();
        }
        self.told.insert(place)
    }

    pub(super) fn conns(&self) -> impl Iterator<Item = ConnId> {
        self.asking.iter().filter_map(|asking| asking.outward.conn())
    }

    pub(super) fn outwards(&mut self) -> impl Iterator<Item = &mut Outward> {
        self.asking.iter_mut().map(|asking| &mut asking.outward)
    }

    /// Whether others are asked on this connection.
    pub(super) fn asks_on(&self, conn: ConnId) -> bool {
        self.asking.as_ref().is_some_and(|asking| asking.outward.is_on(conn))
    }

    fn remove(&mut self, key: WoundKey) -> Option<Wound> {
        let wound = self.wounds.remove(&key)?;
        self.spare_bytes -= wound.spare.as_ref().map_or(0, |spare| spare.len());
        Some(wound)
    }

    /// Asking has come to nothing: the next replica is asked, or all of them again later.
    fn on_refused(&mut self, now_us: u64, key: WoundKey, replicas: usize) {
        let Some(wound) = self.wounds.get_mut(&key) else { return };
        wound.refusals += 1;
        let rounds = wound.refusals / replicas.max(1) as u32;
        let is_round = wound.refusals.is_multiple_of(replicas.max(1) as u32);
        let wait_us = if is_round { (AGAIN_US_MIN << rounds.min(10)).min(AGAIN_US_MAX) } else { 0 };
        wound.ask_at_us = now_us + wait_us;
        wound.is_hopeless |= rounds >= ROUNDS_OF_HOPE;
    }

    /// The next wound to be asked about, and when one has to be at the latest.
    fn next_question(&self, now_us: u64) -> (Option<WoundKey>, u64) {
        let open = || self.wounds.iter().filter(|(_, wound)| wound.spare.is_none());
        let due = open().find(|(_, wound)| wound.ask_at_us <= now_us).map(|(key, _)| *key);
        (due, open().map(|(_, wound)| wound.ask_at_us).min().unwrap_or(u64::MAX))
    }
}

/// Batches whose bodies do not check, as a start finds them.
pub(super) fn found_at_start(recovered: &Recovered) -> Vec<(GroupId, DamageFound)> {
    let body = |damage: &crate::log::Damage| match damage.kind {
        DamageKind::BatchBody { group, uid, base_offset, .. } => {
            let (first_offset, end_offset) = (base_offset, base_offset + 1);
            Some((group, DamageFound { uid, first_offset, end_offset, segment: damage.segment, pos: damage.pos }))
        }
        _ => None,
    };
    recovered.damage.iter().filter_map(body).collect()
}

impl Shard {
    /// Whether others have replicas of a group.
    pub(super) fn has_others(&self, group: GroupId) -> bool {
        let me = self.replica();
        self.groups.members_of(group).is_some_and(|members| members.all().any(|replica| replica != me))
    }

    /// Partitions whose damage can be made good say so to readers.
    pub(super) fn note_others(&mut self) {
        let shared: Vec<GroupId> = self.group_ids.iter().copied().filter(|group| self.has_others(*group)).collect();
        self.partitions.iter_mut().for_each(|(_, partition)| partition.has_others = shared.contains(&partition.group));
    }

    /// Takes note of damage that others may help with. Answers whether it is news.
    pub(super) fn note_wound(&mut self, found: &DamageFound) -> bool {
        // Of a footer it is not known what it listed: the next start makes it anew.
        let is_batch = found.pos > 0;
        let key = (PartitionUid(found.uid), found.first_offset);
        if let Some(known) = self.repairs.wounds.get_mut(&key) {
            known.end = known.end.max(found.end_offset);
            if is_batch {
                known.place = (found.segment, found.pos);
            }
            return false;
        }
        let is_shared = self.group_of(key.0).is_some_and(|group| self.has_others(group));
        if is_batch && is_shared && self.repairs.wounds.len() < WOUNDS_MAX {
            let place = (found.segment, found.pos);
            self.repairs.wounds.insert(key, Wound { end: found.end_offset, place, ..Wound::default() });
            self.repairs.next_look_us = 0;
        }
        true
    }

    /// Whether something of an entry does not check, in a block that was read back; of its batches' bodies only where they are to go out. It was whole when it was
    /// written, and may have rotted since. Who is sent a batch that does not check ends the connection, and all groups with it; a payload carries no sums of its own,
    /// and would be believed. What has rotted is told, and its segment ends: then a checkpoint covers it, and a snapshot brings followers what others have of it.
    pub(super) fn is_rotten(
        &mut self,
        (group, index, term): (GroupId, LogIndex, Term),
        block: BlockSeq,
        bytes: &[u8],
        with_bodies: bool,
    ) -> bool {
        let view = BlockView::parse(bytes).expect("it was checked when it was read");
        let numbers = view.rows_of(group, index, term).flat_map(|row| row.fragment_first..row.fragment_first + row.fragment_count);
        let bad: Vec<BadFragment> = numbers.filter_map(|number| check_fragment(&view, number)).collect();
        for BadFragment { number, fault } in &bad {
            // One of a segment that is sealed meanwhile is the scrubber's to find.
            let Some(place) = self.log.block_place(block) else { break };
            self.log.end_segment(place.segment);
            let fragment = view.fragment(*number);
            let (segment, pos) = (place.segment, u64::from(place.pos) + u64::from(fragment.offset));
            if !self.repairs.is_news((segment, pos)) {
                continue;
            }
            if *fault == Some(BatchFault::Body) {
                let batch = BatchView::parse_exact(view.content(&fragment)).expect("its header was checked");
                let (uid, first_offset, end_offset) = (batch.partition_uid(), batch.base_offset(), batch.next_offset());
                self.report_damage(&[DamageFound { uid, first_offset, end_offset, segment, pos }]);
            } else {
                let (shard, group, block, segment) = (self.id.0, group.0, block.0, segment.0);
                tracing::error!(shard, group, block, segment, position = pos, ?fault, "an entry of the log that is read back is damaged");
            }
        }
        bad.iter().any(|bad| with_bodies || bad.fault != Some(BatchFault::Body))
    }

    /// One turn of repair.
    pub(super) fn repair(&mut self, now: Now, effects: &mut Effects) {
        if self.repairs.wounds.is_empty() && self.repairs.asking.is_none() || self.view.epoch == 0 {
            return;
        }
        if now.mono_us >= self.repairs.next_look_us {
            self.repairs.next_look_us = now.mono_us + LOOK_US;
            self.forget_wounds();
            for wound in self.repairs.wounds.values_mut() {
                wound.since_us.get_or_insert(now.mono_us);
            }
            self.end_segments_with_wounds();
        }
        effects.wake_at(self.repairs.next_look_us);
        if let Some((key, _, asked_us)) = self.repairs.asking.as_ref().and_then(|asking| asking.question) {
            if now.mono_us < asked_us + ANSWER_US {
                return effects.wake_at(asked_us + ANSWER_US);
            }
            self.on_not_helped(now, key);
            self.stop_asking("it does not answer", effects);
        }
        if self.repairs.spare_bytes >= SPARE_BYTES_MAX {
            return;
        }
        let (due, next_us) = self.repairs.next_question(now.mono_us);
        match due {
            Some(key) => {
                if !self.ask(now, key, effects) {
                    effects.wake_at(self.repairs.next_question(now.mono_us).1);
                }
            }
            // A connection of a class of its own for what comes once in a year.
            None if next_us == u64::MAX => self.stop_asking("everything is answered", effects),
            None => effects.wake_at(next_us),
        }
    }

    /// The other replicas of a partition's group whose nodes can be dialed, the leader first.
    fn who_may_have(&self, uid: PartitionUid) -> Vec<ReplicaId> {
        let Some(partition) = self.partitions.slot(uid).and_then(|slot| self.partitions.get(slot)) else { return Vec::new() };
        let (me, leader) = (self.replica(), self.groups.leader_of(partition.group));
        let has_address = |replica: &ReplicaId| self.pipelines.address_of(*replica).is_some();
        let members = self.groups.members_of(partition.group).into_iter().flat_map(|members| members.all());
        let mut others: Vec<_> = members.filter(|replica| *replica != me && has_address(replica)).collect();
        others.sort_by_key(|replica| Some(*replica) != leader);
        others
    }

    /// Asks the next replica, or tries to reach it. False where that did not help.
    fn ask(&mut self, now: Now, key: WoundKey, effects: &mut Effects) -> bool {
        let replicas = self.who_may_have(key.0);
        let refusals = self.repairs.wounds[&key].refusals as usize;
        let Some(to) = replicas.get(refusals % replicas.len().max(1)).copied() else {
            self.on_not_helped(now, key);
            return false;
        };
        if self.repairs.asking.as_ref().is_some_and(|asking| asking.outward.to != to) {
            self.stop_asking("another node is asked", effects);
        }
        let asking = self.repairs.asking.get_or_insert_with(|| Asking { outward: Outward::new(to, Class::Repair), question: None });
        if !asking.outward.reach(now, &mut self.pipelines, effects) {
            self.on_not_helped(now, key);
            return false;
        }
        if asking.outward.is_live() {
            let group = self.partitions.slot(key.0).and_then(|slot| self.partitions.get(slot)).map_or(0, |partition| partition.group.0);
            let fetch = Fetch { group, uid: key.0.0, first: key.1, end: key.1 + 1, max_bytes: 0 };
            let (conn, number) = asking.outward.conn_and_number();
            effects.send(conn, [], |out| write(out, Kind::Fetch, number, |out| fetch.encode(out)));
            asking.question = Some((key, fetch, now.mono_us));
            effects.wake_at(now.mono_us + ANSWER_US);
        }
        true
    }

    /// Whoever was asked, or was to be, did not help. Readers are told once there is no hope.
    fn on_not_helped(&mut self, now: Now, key: WoundKey) {
        let replicas = self.who_may_have(key.0).len();
        self.repairs.on_refused(now.mono_us, key, replicas);
        let Some(wound) = self.repairs.wounds.get(&key).filter(|wound| wound.is_hopeless) else { return };
        let range = key.1..wound.end;
        if let Some(partition) = self.partitions.slot(key.0).and_then(|slot| self.partitions.get_mut(slot)) {
            partition.note_hopeless(range);
        }
    }

    fn stop_asking(&mut self, why: &'static str, effects: &mut Effects) {
        if let Some(conn) = self.repairs.asking.take().and_then(|asking| asking.outward.conn()) {
            effects.push(Effect::Close { conn, reason: why });
        }
    }

    pub(super) fn on_repair_dial_failed(&mut self, now: Now, dial: u64) {
        if self.repairs.outwards().any(|outward| outward.on_dial_failed(now.mono_us, dial)) {
            self.give_up_asking(now);
        }
    }

    /// A connection has ended; answers whether it was the one for repair.
    pub(super) fn on_repair_closed(&mut self, now: Now, conn: ConnId) -> bool {
        let is_ours = self.repairs.asks_on(conn);
        if is_ours {
            self.give_up_asking(now);
        }
        is_ours
    }

    /// Whoever was to be asked is not there: the next one is.
    fn give_up_asking(&mut self, now: Now) {
        let Some(asking) = self.repairs.asking.take() else { return };
        let key = asking.question.map(|(key, ..)| key).or(self.repairs.next_question(now.mono_us).0);
        if let Some(key) = key {
            self.on_not_helped(now, key);
        }
    }

    /// What comes back on the connection for repair.
    pub(super) fn take_repair_answer(&mut self, now: Now, frame: &Frame<'_>, effects: &mut Effects) -> Result<(), NotTaken> {
        effects.wake_at(0);
        let asking = self.repairs.asking.as_mut().expect("the frame came on its connection");
        if asking.outward.take_greeting(now.mono_us, frame)? {
            return Ok(());
        }
        if frame.kind != Kind::FetchReply {
            return Err(NotTaken::Wrong(format!("{} does not belong on this connection", frame.kind)));
        }
        let reply = FetchReply::decode(frame.meta).map_err(NodeError::from)?;
        let Some((key, fetch, _)) = asking.question.take() else {
            return Err(NotTaken::Wrong("an answer to what nobody asked".to_owned()));
        };
        asking.outward.on_served();
        let to = asking.outward.to;
        let limits = PayloadLimits { batch_bytes_max: self.log.batch_bytes_max() as u32, ..PayloadLimits::default() };
        let spare = match reply.check(&fetch, frame.payload, &limits)? {
            Fetched::Batches(mut batches) => batches.next().filter(|batch| batch.base_offset() == key.1),
            Fetched::Error(_) | Fetched::Entry(_) => None,
        };
        // One that is gone meanwhile needs nothing.
        let Some(wound) = self.repairs.wounds.get_mut(&key) else { return Ok(()) };
        if let Some(batch) = spare {
            wound.end = batch.next_offset();
            wound.spare = Some(batch.bytes().into());
            wound.since_us = Some(now.mono_us);
            self.repairs.spare_bytes += batch.bytes().len();
            return Ok(());
        }
        let has_none = matches!(reply.error, ErrorCode::Damaged | ErrorCode::OffsetOutOfRange | ErrorCode::UnknownPartition);
        if has_none && !wound.without.contains(&to) {
            wound.without.push(to);
        }
        self.on_not_helped(now, key);
        let (shard, error) = (self.id.0, reply.error);
        tracing::info!(shard, partition = key.0.0, first_offset = key.1, node = to.node().0, ?error, "a replica cannot repair it");
        Ok(())
    }

    /// Whether a snapshot for `to` may go without these offsets, which are damaged here: what it leaves out its receiver has lost for good. Not while a voter may
    /// have them that has not said that it has not, nor while they wait here to be copied.
    pub(super) fn may_leave_out(&self, now: Now, group: GroupId, uid: PartitionUid, range: &Range<u64>, to: ReplicaId) -> bool {
        let me = self.replica();
        let is_lost = |wound: &Wound| {
            let mut others = self
                .groups
                .members_of(group)
                .into_iter()
                .flat_map(|members| members.voters.iter())
                .filter(|voter| ![me, to].contains(voter));
            let is_old = wound.since_us.is_some_and(|since_us| now.mono_us >= since_us.saturating_add(SILENCE_US));
            is_old || wound.spare.is_none() && others.all(|voter| wound.without.contains(voter))
        };
        let mut wounds = self.repairs.wounds.range((uid, 0)..(uid, range.end)).filter(|(_, wound)| wound.end > range.start);
        wounds.all(|(_, wound)| is_lost(wound))
    }

    /// Forgets wounds of what is not kept any more.
    fn forget_wounds(&mut self) {
        let wounds = self.repairs.wounds.iter();
        let gone: Vec<WoundKey> = wounds.filter(|(key, wound)| !self.is_wound_kept(**key, wound)).map(|(key, _)| *key).collect();
        for key in gone {
            drop(self.repairs.remove(key));
            if let Some(partition) = self.partitions.slot(key.0).and_then(|slot| self.partitions.get_mut(slot)) {
                partition.forget_hopeless(key.1);
            }
        }
    }

    /// Whether the batch of a wound is, or may yet be, one of its partition's. It is not when it was trimmed, and not when it was of an entry that another
    /// leader has replaced: its offset is then another batch's, or nobody's.
    fn is_wound_kept(&self, (uid, first): WoundKey, wound: &Wound) -> bool {
        let Some(partition) = self.partitions.slot(uid).and_then(|slot| self.partitions.get(slot)) else {
            return self.unclaimed.contains_key(&uid);
        };
        if wound.end <= partition.log_start() || !partition.has_others {
            return false;
        }
        if let Some(batch) = partition.index.tail_at(first) {
            let place = self.log.block_place(batch.block);
            return place.is_none_or(|place| (place.segment, u64::from(place.pos) + u64::from(batch.at)) == wound.place);
        }
        // In front of the end of the runs all is committed: what no run lists there is lost, and was not replaced. What a start has found behind it may be listed
        // when it is known to be committed.
        let is_sealed = partition.index.runs().last().is_some_and(|run| first < run.end_offset);
        is_sealed || self.applying.applied(partition.group) < self.groups.last_of(partition.group).index
    }

    /// A wound in the segment that is being written to waits for its seal: that ends with the next block.
    fn end_segments_with_wounds(&mut self) {
        for (uid, first) in self.repairs.wounds.keys() {
            let Some(partition) = self.partitions.slot(*uid).and_then(|slot| self.partitions.get(slot)) else { continue };
            let block = partition.index.tail_at(*first).map(|batch| batch.block);
            if let Some(place) = block.and_then(|block| self.log.block_place(block)) {
                self.log.end_segment(place.segment);
            }
        }
    }

    /// The next run that can be healed: everything that is known to be wrong with it is here.
    pub(super) fn next_mending(&mut self, now: Now) -> Option<(SegmentUid, Job)> {
        self.repairs.wounds.values_mut().for_each(|wound| wound.mending = None);
        let (uid, run) = self.repairs.wounds.iter().filter(|(_, wound)| wound.spare.is_some()).find_map(|((uid, first), _)| {
            let run = self.run_at(*uid, *first).filter(|run| self.sorting.may_mend(run.segment, now))?;
            let mut within = self.repairs.wounds.range((*uid, run.first_offset)..(*uid, run.end_offset));
            within.all(|(_, wound)| wound.spare.is_some()).then_some((*uid, run))
        })?;
        let mut spares = Spares::new();
        for (key, wound) in self.repairs.wounds.range_mut((uid, 0)..=(uid, u64::MAX)) {
            if let Some(spare) = &wound.spare {
                spares.insert(*key, spare.clone());
                wound.mending = Some(run.segment);
            }
        }
        Some((run.segment, Job::mending(run.segment, uid, self.settings.sorter_run_bytes, spares)))
    }

    fn run_at(&self, uid: PartitionUid, offset: u64) -> Option<Run> {
        let partition = self.partitions.slot(uid).and_then(|slot| self.partitions.get(slot))?;
        partition.index.runs().find(|run| (run.first_offset..run.end_offset).contains(&offset)).copied()
    }

    /// A checkpoint is durable that names the runs that were copied: wounds whose runs stand elsewhere now are healed.
    pub(super) fn close_wounds(&mut self) {
        let is_elsewhere = |key: &WoundKey, wound: &Wound| {
            let before = wound.mending?;
            (self.run_at(key.0, key.1)?.segment != before).then_some(before)
        };
        let healed: Vec<_> =
            self.repairs.wounds.iter().filter_map(|(key, wound)| is_elsewhere(key, wound).map(|segment| (*key, segment))).collect();
        for (key, segment) in healed {
            let wound = self.repairs.remove(key).expect("listed above");
            self.sorting.leave_no_more(segment);
            self.metrics.counters.repaired_ranges += 1;
            self.metrics.counters.repaired_bytes += wound.spare.map_or(0, |spare| spare.len() as u64);
            if let Some(partition) = self.partitions.slot(key.0).and_then(|slot| self.partitions.get_mut(slot)) {
                partition.forget_hopeless(key.1);
            }
            tracing::info!(
                shard = self.id.0,
                partition = key.0.0,
                first_offset = key.1,
                end_offset = wound.end,
                "a damaged batch was repaired from a replica"
            );
        }
    }
}
