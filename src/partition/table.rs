//! The partitions of one shard: by slot (a small number, used on the path of a record) and by uid.
//!
//! Invariants: a slot is not reused while the process lives (sessions and waiters may still name it); what was appended
//! to a group is committed in the order of appending.

use super::index::BatchRef;
use super::partition::Partition;
use crate::ids::{BlockSeq, GroupId, IdMap, PartitionUid};
use crate::log::checkpoint::{ProducerBatchV1, ProducerV1};
use crate::mutants::Mutants;
use std::collections::VecDeque;
use tramline_wire::batch::ProducerMark;

/// A partition's place in its shard's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

#[derive(Clone, Copy, Debug)]
struct Touched {
    block: BlockSeq,
    slot: Slot,
    end_offset: u64,
}

/// All partitions of a shard.
#[derive(Default)]
pub struct Partitions {
    /// Boxed, so that the slot of a deleted partition costs 8 bytes.
    slots: Vec<Option<Box<Partition>>>,
    by_uid: IdMap<PartitionUid, Slot>,
    /// Per group: what was appended and is not committed, in the order of appending.
    touched: Vec<(GroupId, VecDeque<Touched>)>,
    /// Idempotent producers of all partitions together.
    producers: usize,
}

impl Partitions {
    /// Adds a partition. Panics if its uid is there already.
    pub fn insert(&mut self, partition: Partition) -> Slot {
        let slot = Slot(self.slots.len() as u32);
        let before = self.by_uid.insert(partition.uid, slot);
        assert!(before.is_none(), "partition {} exists", partition.uid);
        if !self.touched.iter().any(|(g, _)| *g == partition.group) {
            self.touched.push((partition.group, VecDeque::new()));
        }
        self.producers += partition.producers.len();
        self.slots.push(Some(Box::new(partition)));
        slot
    }

    /// Removes a partition (its topic was deleted). Its slot stays empty.
    pub fn remove(&mut self, slot: Slot) -> Option<Partition> {
        let partition = self.slots[slot.0 as usize].take()?;
        self.by_uid.remove(&partition.uid);
        self.producers -= partition.producers.len();
        Some(*partition)
    }

    /// The slot of a uid.
    pub fn slot(&self, uid: PartitionUid) -> Option<Slot> {
        self.by_uid.get(&uid).copied()
    }

    /// The partition in a slot; `None` once it was removed.
    pub fn get(&self, slot: Slot) -> Option<&Partition> {
        self.slots.get(slot.0 as usize).and_then(Option::as_deref)
    }

    /// The partition in a slot; `None` once it was removed.
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut Partition> {
        self.slots.get_mut(slot.0 as usize).and_then(Option::as_deref_mut)
    }

    /// All partitions, in order of their slots.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Partition)> {
        self.slots.iter().enumerate().filter_map(|(i, p)| p.as_deref().map(|p| (Slot(i as u32), p)))
    }

    /// All partitions, in order of their slots.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Slot, &mut Partition)> {
        self.slots.iter_mut().enumerate().filter_map(|(i, p)| p.as_deref_mut().map(|p| (Slot(i as u32), p)))
    }

    /// One past the highest slot given out.
    pub fn slot_count(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Number of partitions.
    pub fn len(&self) -> usize {
        self.by_uid.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_uid.is_empty()
    }

    /// Idempotent producers of all partitions together: one that sends to two partitions counts twice.
    pub fn producer_count(&self) -> usize {
        self.producers
    }

    /// A marked batch of `slot` was appended that `Producers::check` found new.
    pub fn accept_producer(&mut self, slot: Slot, mark: &ProducerMark, batch: &BatchRef, append_time_us: i64, now_us: u64) {
        let partition = self.slots[slot.0 as usize].as_mut().expect("the slot of a batch is filled");
        let before = partition.producers.len();
        partition.producers.accept(mark, batch, append_time_us, partition.committed_end(), Some(now_us));
        self.producers += partition.producers.len() - before;
    }

    /// Of batches of `slot` that were stored before it stood in the table, those in blocks up to `committed` are committed, the others will be with
    /// their blocks.
    pub fn touch_tentative(&mut self, slot: Slot, committed: BlockSeq) {
        let partition = self.slots[slot.0 as usize].as_mut().expect("just filled");
        let (group, from) = (partition.group, partition.committed_end());
        let tentative: Vec<_> =
            partition.index.tail().filter(|batch| batch.end_offset() > from).map(|b| (b.block, b.end_offset())).collect();
        let queue = &mut self.touched.iter_mut().find(|(g, _)| *g == group).expect("a partition's group has a queue").1;
        for (block, end_offset) in tentative {
            if block <= committed {
                partition.on_committed(end_offset);
                continue;
            }
            let at = queue.partition_point(|touched| touched.block <= block);
            queue.insert(at, Touched { block, slot, end_offset });
        }
    }

    /// A batch of `slot` that another node's leader has taken in was stored: its producer is known from now on.
    pub fn replay_producer(&mut self, slot: Slot, mark: &ProducerMark, batch: &BatchRef, append_time_us: i64, is_committed: bool) {
        let partition = self.slots[slot.0 as usize].as_mut().expect("the slot of a batch is filled");
        let before = partition.producers.len();
        let committed_end = if is_committed { u64::MAX } else { partition.committed_end() };
        partition.producers.replay(mark, batch, append_time_us, committed_end);
        self.producers += partition.producers.len() - before;
    }

    /// What another replica's snapshot says of a producer of `slot`.
    pub fn learn_producer(&mut self, slot: Slot, stored: &ProducerV1, batches: &[ProducerBatchV1]) {
        let partition = self.slots[slot.0 as usize].as_mut().expect("the slot of a partition is filled");
        let before = partition.producers.len();
        partition.producers.learn(stored, batches);
        self.producers += partition.producers.len() - before;
    }

    /// Another node leads the group: what is not committed in its partitions was never there.
    pub fn cut_tentative(&mut self, group: GroupId, mutants: Mutants) {
        if let Some((_, queue)) = self.touched.iter_mut().find(|(g, _)| *g == group) {
            queue.clear();
        }
        for partition in self.slots.iter_mut().flatten().filter(|partition| partition.group == group) {
            let before = partition.producers.len();
            partition.cut_tentative(mutants);
            self.producers -= before - partition.producers.len();
        }
    }

    /// Forgets the producers of `slot` that were not heard of since `before_us`.
    pub fn expire_producers(&mut self, slot: Slot, before_us: u64, now_us: u64) {
        if let Some(partition) = self.get_mut(slot) {
            self.producers -= partition.producers.expire(before_us, now_us);
        }
    }

    /// Notes that a batch of `slot` that ends at `end_offset` is in `block`, to be committed with it.
    pub fn touch(&mut self, group: GroupId, block: BlockSeq, slot: Slot, end_offset: u64) {
        let queue = &mut self.touched.iter_mut().find(|(g, _)| *g == group).expect("a partition's group has a queue").1;
        match queue.back_mut() {
            Some(last) if last.slot == slot && last.block == block => last.end_offset = end_offset,
            _ => queue.push_back(Touched { block, slot, end_offset }),
        }
    }

    /// The group's entries in all blocks up to `block` are committed: calls `each` for every partition whose end moved.
    pub fn commit(&mut self, group: GroupId, block: BlockSeq, mut each: impl FnMut(Slot, &Partition)) {
        let Some((_, queue)) = self.touched.iter_mut().find(|(g, _)| *g == group) else { return };
        while let Some(touched) = queue.front().filter(|t| t.block <= block) {
            // A partition that was deleted meanwhile has nothing to commit.
            if let Some(partition) = self.slots[touched.slot.0 as usize].as_mut()
                && partition.on_committed(touched.end_offset)
            {
                each(touched.slot, partition);
            }
            queue.pop_front();
        }
    }
}
