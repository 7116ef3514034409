//! What a seal lists of its partitions (their batches in the segment, their producers), taken down a part in each turn: a segment can hold 250,000 batches, and 50,000 producers can
//! have sent them. In one go that took 27 to 31 ms, in which nobody was answered.
//!
//! Invariants: batches are listed by partition and offset, producers by partition and id; a list that is handed out is of exactly the partitions that there are, in the same slots (a
//! replica that was given up and begun anew has another one). What was taken down stays true meanwhile: the segment's batches are committed before it begins, and a producer's
//! batches that come afterwards are in blocks behind the segment, which a start reads again. Only a snapshot that is taken in changes what is behind us, so it ends the list (`forget`).
//!
//! Not here: when a segment may be sealed, and the checkpoint (`sealing.rs`).

use super::shard::Shard;
use crate::ids::{BlockSeq, Offset, PartitionUid, ProducerId, SegmentUid};
use crate::log::FooterEntry;
use crate::log::checkpoint::{ProducerBatchV1, ProducerV1};
use crate::mutants::Mutant;
use crate::partition::{Partition, Slot};

/// Batches of partitions or of producers that are taken down in one turn, at most: some 0.2 ms. Tests have small segments.
const ENTRIES_A_TURN: usize = if cfg!(any(test, feature = "sim")) { 16 } else { 4096 };
/// Lists in a row that were in vain, since partitions came or went, or snapshots. The next one is made in one go: a segment must be sealed at some time.
const IN_VAIN_MAX: u32 = 8;

/// The list of one seal.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// What it is a list of; `None` without one under way.
    of: Option<(SegmentUid, BlockSeq)>,
    /// The partitions of its beginning, by uid; those that the view does not know have no slot.
    partitions: Vec<(PartitionUid, Option<Slot>)>,
    /// How many of them are listed with their batches, then with their producers.
    batches_done: usize,
    producers_done: usize,
    /// Of the next partition that are listed already: batches below this offset, producers up to this one.
    from: u64,
    after: Option<ProducerId>,
    in_vain: u32,
    pub(super) footer: Vec<FooterEntry>,
    producers: Vec<ProducerV1>,
    producer_batches: Vec<ProducerBatchV1>,
}

/// The last batches of producers, as a checkpoint has them.
pub(super) type ToldProducers = (Vec<ProducerV1>, Vec<ProducerBatchV1>);

impl Listing {
    /// What was listed is not to be used.
    pub(super) fn forget(&mut self) {
        self.in_vain += u32::from(self.of.take().is_some());
    }

    /// Whether a list is begun and not whole.
    #[cfg(test)]
    pub(super) fn is_under_way(&self) -> bool {
        self.of.is_some()
    }

    /// The producers that were listed.
    pub(super) fn take_producers(&mut self) -> ToldProducers {
        (std::mem::take(&mut self.producers), std::mem::take(&mut self.producer_batches))
    }

    fn begin(&mut self, of: (SegmentUid, BlockSeq), partitions: Vec<(PartitionUid, Option<Slot>)>) {
        self.of = Some(of);
        self.partitions = partitions;
        (self.batches_done, self.producers_done) = (0, 0);
        (self.from, self.after) = (0, None);
        self.footer.clear();
        self.producers.clear();
        self.producer_batches.clear();
    }
}

impl Shard {
    /// Lists on; returns whether the list of this segment is whole. One that is not goes on in the next turn.
    pub(super) fn list_for_seal(&mut self, segment: SegmentUid, last_block: BlockSeq) -> bool {
        let mut listing = std::mem::take(&mut self.listing);
        if listing.of != Some((segment, last_block)) {
            listing.begin((segment, last_block), self.present());
        }
        let mut left = if listing.in_vain < IN_VAIN_MAX { ENTRIES_A_TURN } else { usize::MAX };
        self.list_batches(&mut listing, &mut left);
        if listing.batches_done == listing.partitions.len() {
            self.list_producers(&mut listing, &mut left);
        }
        let is_through = listing.producers_done == listing.partitions.len();
        let is_whole = is_through && listing.partitions == self.present();
        if is_through {
            listing.in_vain = if is_whole { 0 } else { listing.in_vain + 1 };
            listing.of = None;
        }
        self.listing = listing;
        is_whole
    }

    /// The producers of all partitions in one go, for a checkpoint that seals nothing.
    pub(super) fn all_producers(&self) -> ToldProducers {
        let mut listing = Listing { partitions: self.present(), ..Listing::default() };
        let mut left = usize::MAX;
        self.list_producers(&mut listing, &mut left);
        listing.take_producers()
    }

    /// The partitions there are, by uid; those that the view does not know have no slot.
    fn present(&self) -> Vec<(PartitionUid, Option<Slot>)> {
        let known = self.partitions.iter().map(|(slot, partition)| (partition.uid, Some(slot)));
        let mut all: Vec<_> = known.chain(self.unclaimed.keys().map(|uid| (*uid, None))).collect();
        all.sort_unstable();
        all
    }

    fn present_partition(&self, uid: PartitionUid, slot: Option<Slot>) -> Option<&Partition> {
        match slot {
            Some(slot) => self.partitions.get(slot),
            None => self.unclaimed.get(&uid),
        }
    }

    fn list_batches(&self, listing: &mut Listing, left: &mut usize) {
        let Some((segment, last_block)) = listing.of else { return };
        while let Some((uid, slot)) = listing.partitions.get(listing.batches_done).copied() {
            if *left == 0 {
                return;
            }
            // The footer tells of those that the view knows.
            if let Some(partition) = slot.and_then(|slot| self.partitions.get(slot)) {
                for batch in partition.index.tail_from(listing.from).take_while(|batch| batch.block <= last_block) {
                    if *left == 0 {
                        return;
                    }
                    *left -= 1;
                    let place = self.log.block_place(batch.block).expect("blocks of unsealed segments have a place");
                    assert_eq!(place.segment, segment, "segments are sealed oldest first");
                    listing.from = batch.end_offset();
                    listing.footer.push(FooterEntry {
                        partition_uid: uid,
                        base_offset: Offset(batch.base_offset),
                        newest_ts: batch.newest_ts_us,
                        pos: place.pos + batch.at,
                        len: batch.len,
                        last_offset_delta: batch.last_delta,
                        group: partition.group,
                    });
                }
            }
            listing.batches_done += 1;
            listing.from = 0;
            // A look counts as well: there may be 100,000 partitions with nothing to list.
            *left = left.saturating_sub(1);
        }
    }

    fn list_producers(&self, listing: &mut Listing, left: &mut usize) {
        let mutants = self.log.mutants();
        while let Some((uid, slot)) = listing.partitions.get(listing.producers_done).copied() {
            if *left == 0 {
                return;
            }
            if let Some(partition) = self.present_partition(uid, slot).filter(|_| !mutants.has(Mutant::ForgetProducers)) {
                let committed_end =
                    if mutants.has(Mutant::CheckpointTentative) { partition.next_offset() } else { partition.committed_end() };
                let told = (&mut listing.producers, &mut listing.producer_batches);
                listing.after = partition.producers().store(uid, committed_end, listing.after, left, told);
                if listing.after.is_some() {
                    return;
                }
            }
            listing.producers_done += 1;
            listing.after = None;
            *left = left.saturating_sub(1);
        }
    }
}
