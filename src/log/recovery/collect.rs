//! Collects what the walked blocks say: entries, batches, payloads, hard states, places; resolves replaced entries.

use crate::ids::{BlockSeq, GroupId, Offset, PartitionUid, SegmentUid};
use crate::log::layout::{FRAGMENT_BATCH, HardState};
use crate::log::recovered::{Doubt, RecoveredBatch, RecoveredControl, RecoveredEntry};
use crate::log::recovery::scan::FoundBlock;
use crate::log::replica_record::{ReplicaRecord, ReplicaState};
use crate::log::segments::BlockRow;
use crate::log::types::{BatchFault, Damage, DamageKind, EntryKind};
use std::collections::BTreeMap;
use tramline_wire::batch::BatchView;

/// What one segment turned out to hold.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SegmentContent {
    pub(crate) first_block: BlockSeq,
    pub(crate) last_block: BlockSeq,
    pub(crate) first_prev_crc: u32,
    pub(crate) end_pos: u64,
    pub(crate) batches: u32,
}

/// What was found, replaced entries left out.
pub(crate) struct Found {
    pub(crate) entries: Vec<RecoveredEntry>,
    pub(crate) batches: Vec<RecoveredBatch>,
    pub(crate) covered_batches: Vec<RecoveredBatch>,
    pub(crate) controls: Vec<RecoveredControl>,
    pub(crate) hard_states: Vec<HardState>,
    pub(crate) replicas: Vec<(BlockSeq, ReplicaRecord)>,
    pub(crate) doubts: BTreeMap<GroupId, Doubt>,
    pub(crate) forced: Vec<(BlockSeq, ReplicaRecord)>,
}

struct Slot {
    entry: RecoveredEntry,
    replaced: bool,
}

/// Whether two rows of one block's table are one entry: its batches stand in one, its control payloads in another.
fn is_same_entry(a: &RecoveredEntry, b: &RecoveredEntry) -> bool {
    let is_share = |kind| matches!(kind, EntryKind::Data | EntryKind::Control);
    (a.block, a.index, a.term) == (b.block, b.index, b.term) && a.kind != b.kind && is_share(a.kind) && is_share(b.kind)
}

/// Collects while the walk goes on.
pub(crate) struct Collector {
    covers: BlockSeq,
    slots: Vec<Slot>,
    /// Per group the entries that count so far, by rising index.
    stacks: BTreeMap<GroupId, Vec<u32>>,
    batches: Vec<(u32, RecoveredBatch)>,
    controls: Vec<(u32, RecoveredControl)>,
    hard_states: BTreeMap<GroupId, HardState>,
    replicas: BTreeMap<GroupId, (BlockSeq, ReplicaRecord)>,
    doubts: BTreeMap<GroupId, Doubt>,
    forced: BTreeMap<GroupId, (BlockSeq, ReplicaRecord)>,
    damage: Vec<Damage>,
    pub(crate) rows: Vec<(BlockSeq, BlockRow)>,
    pub(crate) segments: Vec<SegmentContent>,
}

impl Collector {
    pub(crate) fn new(covers: BlockSeq, segment_count: usize) -> Collector {
        Collector {
            covers,
            slots: Vec::new(),
            stacks: BTreeMap::new(),
            batches: Vec::new(),
            controls: Vec::new(),
            hard_states: BTreeMap::new(),
            replicas: BTreeMap::new(),
            doubts: BTreeMap::new(),
            forced: BTreeMap::new(),
            damage: Vec::new(),
            rows: Vec::new(),
            segments: vec![SegmentContent::default(); segment_count],
        }
    }

    pub(crate) fn take(&mut self, block: &FoundBlock<'_>, segment: SegmentUid) {
        let header = block.view.header;
        let seq = header.block_seq;
        let len = header.padded_len();
        self.rows.push((seq, BlockRow { segment, pos: block.pos as u32, len }));
        let content = &mut self.segments[block.segment];
        if content.first_block.0 == 0 {
            content.first_block = seq;
            content.first_prev_crc = header.prev_header_crc;
        }
        content.last_block = seq;
        content.end_pos = block.pos + u64::from(len);
        for entry in block.view.entries().filter(|entry| entry.kind != EntryKind::Void) {
            let slot = self.slots.len() as u32;
            let found = RecoveredEntry {
                group: entry.group,
                kind: entry.kind,
                index: entry.index,
                term: entry.term,
                block: seq,
                content_len: entry.content_len,
            };
            if entry.kind.bears_index() {
                let stack = self.stacks.entry(entry.group).or_default();
                while let Some(&last) = stack.last()
                    && self.slots[last as usize].entry.index >= entry.index
                    && !is_same_entry(&self.slots[last as usize].entry, &found)
                {
                    self.slots[last as usize].replaced = true;
                    stack.pop();
                }
                stack.push(slot);
            }
            self.slots.push(Slot { entry: found, replaced: false });
            for number in entry.fragment_first..entry.fragment_first + entry.fragment_count {
                let fragment = block.view.fragment(number);
                let bytes = block.view.content(&fragment);
                let bad = block.bad.binary_search_by_key(&number, |bad| bad.number).ok().map(|index| block.bad[index]);
                let place = (segment, block.pos + u64::from(fragment.offset), u64::from(fragment.length));
                if fragment.kind == FRAGMENT_BATCH {
                    self.segments[block.segment].batches += 1;
                    self.take_batch(slot, &found, place, fragment.offset, bytes, bad.and_then(|bad| bad.fault));
                } else if bad.is_some() {
                    let kind = DamageKind::Payload { seq, group: entry.group, index: entry.index, term: entry.term };
                    self.damage.push(Damage { segment, pos: place.1, len: place.2, kind });
                } else if entry.kind == EntryKind::HardState {
                    if seq > self.covers
                        && let Some(state) = HardState::decode(bytes)
                    {
                        self.hard_states.insert(entry.group, state);
                    }
                } else if entry.kind == EntryKind::Replica {
                    if seq > self.covers
                        && let Some(record) = ReplicaRecord::decode(bytes)
                    {
                        self.take_record(seq, record);
                    }
                } else if seq > self.covers {
                    let (group, kind, index, term) = (entry.group, entry.kind, entry.index, entry.term);
                    let control = RecoveredControl { group, index, term, kind, payload: bytes.to_vec(), block: seq };
                    self.controls.push((slot, control));
                }
            }
        }
    }

    /// A replica begins here, and what stands in front of it of its group was another one's; or it goes on with other voters, or says whether it is suspect.
    fn take_record(&mut self, block: BlockSeq, record: ReplicaRecord) {
        match record.state {
            ReplicaState::Present | ReplicaState::Removed => {}
            ReplicaState::Forced => {
                // Who goes on alone has no others any more; whatever hard state stands behind tells whether it got some.
                if let Some(state) = self.hard_states.get_mut(&record.group).filter(|_| record.voters == [record.replica]) {
                    state.is_shared = false;
                }
                return drop(self.forced.insert(record.group, (block, record)));
            }
            state @ (ReplicaState::Whole | ReplicaState::Suspect) => {
                self.doubts.insert(record.group, Doubt { block, is_suspect: state == ReplicaState::Suspect });
                return;
            }
        }
        self.doubts.remove(&record.group);
        self.forced.remove(&record.group);
        let is_import = |slot: &&mut Slot| slot.entry.kind == EntryKind::Import && slot.entry.group == record.group;
        self.slots.iter_mut().filter(is_import).for_each(|slot| slot.replaced = true);
        for slot in self.stacks.remove(&record.group).unwrap_or_default() {
            self.slots[slot as usize].replaced = true;
        }
        self.hard_states.remove(&record.group);
        self.replicas.insert(record.group, (block, record));
    }

    fn take_batch(
        &mut self,
        slot: u32,
        entry: &RecoveredEntry,
        (segment, pos, len): (SegmentUid, u64, u64),
        at: u32,
        bytes: &[u8],
        fault: Option<BatchFault>,
    ) {
        let (seq, group, index) = (entry.block, entry.group, entry.index);
        let header_good = !matches!(fault, Some(BatchFault::Malformed | BatchFault::Header));
        let Some(batch) = BatchView::parse_exact(bytes).ok().filter(|_| header_good) else {
            self.damage.push(Damage { segment, pos, len, kind: DamageKind::BatchHeader { seq, group, index } });
            return;
        };
        let (uid, base_offset) = (batch.partition_uid(), batch.base_offset());
        if fault.is_some() {
            self.damage.push(Damage { segment, pos, len, kind: DamageKind::BatchBody { seq, group, uid, base_offset } });
        }
        let found = RecoveredBatch {
            group,
            index,
            term: entry.term,
            uid: PartitionUid(uid),
            base_offset: Offset(base_offset),
            last_offset_delta: batch.last_offset_delta(),
            newest_ts: batch.effective_newest_us(),
            append_time_us: batch.append_time_us(),
            producer: batch.producer(),
            block: seq,
            at,
            len: len as u32,
            segment,
            pos: pos as u32,
            damaged: fault.is_some(),
        };
        self.batches.push((slot, found));
    }

    /// Leaves out what was replaced and parts what the checkpoint covers from what it does not.
    pub(crate) fn finish(self, damage: &mut Vec<Damage>) -> Found {
        damage.extend(self.damage);
        let (slots, covers) = (self.slots, self.covers);
        let counts = |slot: u32| !slots[slot as usize].replaced;
        let mut batches = Vec::new();
        let mut covered_batches = Vec::new();
        for (_, batch) in self.batches.into_iter().filter(|(slot, _)| counts(*slot)) {
            if batch.block > covers { batches.push(batch) } else { covered_batches.push(batch) }
        }
        Found {
            controls: self.controls.into_iter().filter(|(slot, _)| counts(*slot)).map(|(_, control)| control).collect(),
            entries: slots
                .iter()
                .filter(|slot| !slot.replaced && slot.entry.kind.bears_index() && slot.entry.block > covers)
                .map(|slot| slot.entry)
                .collect(),
            batches,
            covered_batches,
            hard_states: self.hard_states.into_values().collect(),
            replicas: self.replicas.into_values().collect(),
            doubts: self.doubts,
            forced: self.forced.into_values().collect(),
        }
    }
}
