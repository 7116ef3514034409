//! What a partition remembers of its idempotent producers: the last batches of each, so that one that is sent again is found.
//!
//! The rules are those of docs/PROTOCOL.md, "Idempotent producers".
//!
//! Invariants: a producer's batches stand in order of offsets, epochs and sequences; the last `PRODUCER_BATCHES_KEPT` committed ones are there, and every one
//! behind them, so that what is before the first one is committed. Only committed ones are told to a checkpoint: a crash may cut the others, and whoever then sent one of these again
//! would be told that it is stored.
//!
//! Not here: how many producers there may be and when they are forgotten (shard/producers.rs), waiting for a level (shard/acks.rs).

use super::index::BatchRef;
use crate::constants::PRODUCER_BATCHES_KEPT;
use crate::ids::{BlockSeq, PartitionUid, ProducerId};
use crate::log::checkpoint::{ProducerBatchV1, ProducerV1};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use tramline_wire::batch::ProducerMark;

/// Batches of a producer that waits for each of its commits: those kept, and one on its way.
const DEQUE_LEN: usize = PRODUCER_BATCHES_KEPT + 1;

/// A batch of an idempotent producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerBatch {
    /// The producer's epoch.
    pub epoch: u16,
    /// Records of the epoch before this batch. What the wire calls sequence is this modulo 2^32.
    pub first: u64,
    /// Records in it.
    pub count: u32,
    /// Its first offset.
    pub base_offset: u64,
    /// When it was appended, UTC microseconds.
    pub append_time_us: i64,
    /// Its block.
    pub block: BlockSeq,
}

impl ProducerBatch {
    /// One past its last offset.
    pub fn end_offset(&self) -> u64 {
        self.base_offset + u64::from(self.count)
    }

    fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }
}

/// What a marked batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To be appended; `is_known` when the partition has heard of the producer.
    New {
        /// Whether it takes no place of its own.
        is_known: bool,
    },
    /// Stored already: the batch that it repeats.
    Duplicate(ProducerBatch),
    /// Something is missing before it.
    OutOfSequence,
    /// Of an epoch that is over.
    Fenced,
    /// Stored so long ago that its place is not remembered.
    TooOld,
}

#[derive(Debug)]
struct Producer {
    /// Never empty.
    batches: VecDeque<ProducerBatch>,
    /// When it was last heard of, by the shard's clock; `None` before the first look of this start.
    used_us: Option<u64>,
}

impl Producer {
    fn last(&self) -> &ProducerBatch {
        self.batches.back().expect("a producer has a batch")
    }
}

/// The producers of one partition.
#[derive(Debug, Default)]
pub struct Producers {
    /// Not hashed: the ids on the wire are whatever clients say, and 50,000 chosen ones made each look-up in a map without a secret take 120 us.
    by_id: BTreeMap<ProducerId, Box<Producer>>,
    /// Nobody was heard of before this: a look that goes back less far finds nothing. `None` before the first look, which tells from when on those count
    /// that were found at the start.
    oldest_us: Option<u64>,
}

impl Producers {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// What a batch of `count` records with this mark is. A mark with id 0 is not asked about (asserted).
    pub fn check(&self, mark: &ProducerMark, count: u32) -> Verdict {
        assert!(mark.id != 0, "a batch without a producer is not checked");
        let Some(producer) = self.by_id.get(&ProducerId(mark.id)) else {
            return if mark.sequence == 0 { Verdict::New { is_known: false } } else { Verdict::OutOfSequence };
        };
        let last = producer.last();
        if mark.epoch != last.epoch {
            return match (mark.epoch > last.epoch, mark.sequence) {
                (true, 0) => Verdict::New { is_known: true },
                (true, _) => Verdict::OutOfSequence,
                (false, _) => Verdict::Fenced,
            };
        }
        // How far back the batch begins. Whatever would begin before the epoch's first record, or more than half the numbers back, is ahead.
        let back = (last.end() as u32).wrapping_sub(mark.sequence);
        if back == 0 {
            return Verdict::New { is_known: true };
        }
        let Some(first) = last.end().checked_sub(u64::from(back)).filter(|_| back <= u32::MAX / 2) else { return Verdict::OutOfSequence };
        // All that are there, not the last few: one that is not committed must not be told as "stored, long ago". They are many while the disk stands still.
        let begins = producer.batches.partition_point(|batch| batch.epoch < mark.epoch);
        let place = producer.batches.partition_point(|batch| (batch.epoch, batch.first) < (mark.epoch, first));
        match producer.batches.get(place) {
            Some(batch) if (batch.first, batch.count) == (first, count) => Verdict::Duplicate(*batch),
            _ if first + u64::from(count) <= producer.batches[begins].first => Verdict::TooOld,
            _ => Verdict::OutOfSequence,
        }
    }

    /// A batch was appended that `check` found new, or that was found in the log at a start. What is committed up to `committed_end` needs to be kept
    /// no longer than the last `PRODUCER_BATCHES_KEPT`.
    pub fn accept(&mut self, mark: &ProducerMark, batch: &BatchRef, append_time_us: i64, committed_end: u64, now_us: Option<u64>) {
        let producer = self
            .by_id
            .entry(ProducerId(mark.id))
            .or_insert_with(|| Box::new(Producer { batches: VecDeque::with_capacity(DEQUE_LEN), used_us: None }));
        // At a start: it was forgotten since, and has begun anew.
        if producer.batches.back().is_some_and(|last| last.epoch > mark.epoch) {
            producer.batches.clear();
        }
        let before = producer.batches.back().filter(|last| last.epoch == mark.epoch).map(ProducerBatch::end);
        // At a start damage may have taken some before it: then the numbers go on at what it says.
        let first = match before {
            Some(end) => end + u64::from(mark.sequence.wrapping_sub(end as u32)),
            None => u64::from(mark.sequence),
        };
        let (count, base_offset, block) = (batch.record_count(), batch.base_offset, batch.block);
        producer.batches.push_back(ProducerBatch { epoch: mark.epoch, first, count, base_offset, append_time_us, block });
        while producer.batches.get(PRODUCER_BATCHES_KEPT).is_some_and(|batch| batch.end_offset() <= committed_end) {
            producer.batches.pop_front();
        }
        if producer.batches.len() <= DEQUE_LEN && producer.batches.capacity() > 8 * DEQUE_LEN {
            producer.batches.shrink_to(DEQUE_LEN);
        }
        producer.used_us = now_us;
    }

    /// A batch that was found in the log, at a start or on a follower. One that is known is there already. `committed_end` as in `accept`: `u64::MAX` where all
    /// that is replayed is committed.
    pub fn replay(&mut self, mark: &ProducerMark, batch: &BatchRef, append_time_us: i64, committed_end: u64) {
        let known = self.by_id.get(&ProducerId(mark.id)).map_or(0, |producer| producer.last().end_offset());
        if mark.id != 0 && batch.base_offset >= known {
            self.accept(mark, batch, append_time_us, committed_end, None);
        }
    }

    /// Forgets who was not heard of since `before_us`; answers how many. Those found at the start count as heard of at the first look, at `now_us`.
    pub fn expire(&mut self, before_us: u64, now_us: u64) -> usize {
        if self.oldest_us.is_some_and(|oldest_us| oldest_us >= before_us) {
            return 0;
        }
        let len = self.by_id.len();
        let mut oldest_us = now_us;
        self.by_id.retain(|_, producer| {
            let used_us = *producer.used_us.get_or_insert(now_us);
            oldest_us = oldest_us.min(used_us);
            used_us >= before_us
        });
        self.oldest_us = Some(oldest_us.max(before_us));
        len - self.by_id.len()
    }

    /// At a start: batches behind `end`, which the checkpoint told of and the log does not hold any more (a disk that lied), were never there.
    pub fn cut(&mut self, end: u64) {
        self.by_id.retain(|_, producer| {
            producer.batches.retain(|batch| batch.end_offset() <= end);
            !producer.batches.is_empty()
        });
    }

    /// Adds what a checkpoint is told: of each producer behind `after` the last committed batches (all below `committed_end`), by id. Every producer counts as one of `left`
    /// (which is not 0), and one for each batch that it may have; where that is used up, the last producer that was looked at is answered, and the next call goes on behind it.
    pub fn store(
        &self,
        partition: PartitionUid,
        committed_end: u64,
        after: Option<ProducerId>,
        left: &mut usize,
        (producers, batches): (&mut Vec<ProducerV1>, &mut Vec<ProducerBatchV1>),
    ) -> Option<ProducerId> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut last_id = after;
        for (id, producer) in self.by_id.range((from, Bound::Unbounded)) {
            if *left == 0 {
                return last_id;
            }
            last_id = Some(*id);
            *left = left.saturating_sub(1 + PRODUCER_BATCHES_KEPT);
            let committed = producer.batches.partition_point(|batch| batch.end_offset() <= committed_end);
            let Some(epoch) = committed.checked_sub(1).map(|last| producer.batches[last].epoch) else { continue };
            let before = batches.len();
            let last = producer.batches.range(committed.saturating_sub(PRODUCER_BATCHES_KEPT)..committed);
            batches.extend(last.filter(|batch| batch.epoch == epoch).map(|batch| ProducerBatchV1 {
                first: batch.first,
                count: batch.count,
                base_offset: batch.base_offset,
                append_time: batch.append_time_us,
            }));
            producers.push(ProducerV1 { partition: partition.0, id: id.0, epoch, batches: (batches.len() - before) as u16 });
        }
        None
    }

    /// At a start: what the checkpoint says. Panics when a producer has no batch (a checkpoint that says so is refused before).
    pub fn restore(&mut self, stored: &ProducerV1, batches: &[ProducerBatchV1]) {
        let of = |batch: &ProducerBatchV1| ProducerBatch {
            epoch: stored.epoch,
            first: batch.first,
            count: batch.count,
            base_offset: batch.base_offset,
            append_time_us: batch.append_time,
            block: BlockSeq(0),
        };
        let batches: VecDeque<_> = batches.iter().map(of).collect();
        assert!(!batches.is_empty(), "producer {} has a batch", stored.id);
        self.by_id.insert(ProducerId(stored.id), Box::new(Producer { batches, used_us: None }));
    }

    /// What another replica's snapshot says of one, if that is newer than what is known. Panics as `restore` does.
    pub fn learn(&mut self, stored: &ProducerV1, batches: &[ProducerBatchV1]) {
        let end = batches.last().map_or(0, |batch| batch.base_offset + u64::from(batch.count));
        if self.by_id.get(&ProducerId(stored.id)).is_none_or(|known| known.last().end_offset() < end) {
            self.restore(stored, batches);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::checkpoint::CheckpointV5;
    use crate::log::plausible::Plausible;
    use proptest::prelude::*;

    const ID: u64 = 9;

    fn mark(epoch: u16, sequence: u32) -> ProducerMark {
        ProducerMark { id: ID, epoch, sequence }
    }

    fn batch(base_offset: u64, count: u32) -> BatchRef {
        BatchRef { base_offset, newest_ts_us: 0, block: BlockSeq(base_offset), at: 0, len: 100, last_delta: count - 1 }
    }

    fn time_of(batch: &BatchRef) -> i64 {
        1_000 + batch.base_offset as i64
    }

    fn accept(producers: &mut Producers, mark: &ProducerMark, batch: &BatchRef, committed_end: u64, now_us: Option<u64>) {
        producers.accept(mark, batch, time_of(batch), committed_end, now_us);
    }

    fn replay(producers: &mut Producers, mark: &ProducerMark, batch: &BatchRef) {
        producers.replay(mark, batch, time_of(batch), u64::MAX);
    }

    /// Ten batches of ten records, offsets and sequences from 0.
    fn ten(committed_end: u64) -> Producers {
        let mut producers = Producers::default();
        for number in 0..10 {
            accept(&mut producers, &mark(3, 10 * number), &batch(u64::from(10 * number), 10), committed_end, Some(1));
        }
        producers
    }

    /// As a checkpoint tells it, one entry per producer.
    fn stored(producers: &Producers, committed_end: u64) -> Vec<(ProducerV1, Vec<ProducerBatchV1>)> {
        let (mut list, mut batches) = (Vec::new(), Vec::new());
        let mut after = None;
        loop {
            // One at a time: whatever it is cut into, the whole is the same.
            after = producers.store(PartitionUid(7), committed_end, after, &mut 1, (&mut list, &mut batches));
            if after.is_none() {
                break;
            }
        }
        let checkpoint = CheckpointV5 { producers: list.clone(), producer_batches: batches.clone(), ..CheckpointV5::default() };
        assert_eq!(checkpoint.check(), Ok(()), "what is told is taken");
        let mut rest = batches.as_slice();
        let mut next = |count: u16| rest.split_off(..usize::from(count)).expect("as many as are told").to_vec();
        list.into_iter().map(|producer| (producer.clone(), next(producer.batches))).collect()
    }

    fn restored(stored: &[(ProducerV1, Vec<ProducerBatchV1>)]) -> Producers {
        let mut producers = Producers::default();
        stored.iter().for_each(|(producer, batches)| producers.restore(producer, batches));
        producers
    }

    #[test]
    fn each_rule_of_the_protocol() {
        let producers = ten(100);
        let new = Verdict::New { is_known: true };
        let duplicate = |base: u64| match producers.check(&mark(3, base as u32), 10) {
            Verdict::Duplicate(batch) => (batch.base_offset, batch.append_time_us) == (base, 1_000 + base as i64),
            _ => false,
        };
        assert_eq!(producers.check(&mark(3, 100), 7), new);
        assert!([50, 60, 70, 80, 90].into_iter().all(duplicate));
        assert_eq!(producers.check(&mark(3, 40), 10), Verdict::TooOld);
        assert_eq!(producers.check(&mark(3, 0), 50), Verdict::TooOld);
        for (sequence, count) in [(101, 1), (u32::MAX, 1), (90, 9), (95, 5), (40, 11), (90, 11), (1 << 31, 1)] {
            assert_eq!(producers.check(&mark(3, sequence), count), Verdict::OutOfSequence, "{sequence}, {count}");
        }
        assert_eq!(producers.check(&mark(2, 100), 1), Verdict::Fenced);
        assert_eq!(producers.check(&mark(2, 90), 10), Verdict::Fenced);
        assert_eq!(producers.check(&mark(4, 0), 1), new);
        assert_eq!(producers.check(&mark(4, 100), 1), Verdict::OutOfSequence);
        let other = |sequence| producers.check(&ProducerMark { id: 8, epoch: 3, sequence }, 1);
        assert_eq!((other(0), other(1)), (Verdict::New { is_known: false }, Verdict::OutOfSequence));
    }

    #[test]
    fn a_new_epoch_forgets_the_batches_of_the_one_before() {
        let mut producers = ten(100);
        accept(&mut producers, &mark(4, 0), &batch(100, 10), 100, Some(1));
        assert!(matches!(producers.check(&mark(4, 0), 10), Verdict::Duplicate(ProducerBatch { base_offset: 100, .. })));
        assert_eq!(producers.check(&mark(4, 10), 1), Verdict::New { is_known: true });
        // As a number 90 of the epoch before this would be a repeated one.
        assert_eq!(producers.check(&mark(4, 90), 10), Verdict::OutOfSequence);
        assert_eq!(producers.check(&mark(3, 90), 10), Verdict::Fenced);
    }

    #[test]
    fn numbers_go_round() {
        let mut producers = Producers::default();
        accept(&mut producers, &mark(0, 0), &batch(0, u32::MAX - 4), u64::MAX, None);
        accept(&mut producers, &mark(0, u32::MAX - 4), &batch(u64::from(u32::MAX - 4), 10), u64::MAX, None);
        assert_eq!(producers.check(&mark(0, 5), 1), Verdict::New { is_known: true });
        assert!(matches!(producers.check(&mark(0, u32::MAX - 4), 10), Verdict::Duplicate(_)));
        assert_eq!(producers.check(&mark(0, 3), 1), Verdict::OutOfSequence);
        accept(&mut producers, &mark(0, 5), &batch(1 << 33, 10), u64::MAX, None);
        assert!(matches!(producers.check(&mark(0, 5), 10), Verdict::Duplicate(_)));
        assert!(matches!(producers.check(&mark(0, u32::MAX - 4), 10), Verdict::Duplicate(_)));
        assert_eq!(producers.check(&mark(0, 15), 1), Verdict::New { is_known: true });
    }

    #[test]
    fn what_is_not_committed_is_kept_and_not_told() {
        let mut producers = ten(30);
        accept(&mut producers, &mark(4, 0), &batch(100, 1), 30, Some(1));
        let offsets = |end| stored(&producers, end).first().map(|(p, batches)| (p.epoch, batches.iter().map(|b| b.base_offset).collect()));
        assert_eq!(offsets(30), Some((3, vec![0, 10, 20])));
        assert_eq!(offsets(39), Some((3, vec![0, 10, 20])));
        assert_eq!(offsets(100), Some((3, vec![50, 60, 70, 80, 90])));
        assert_eq!(offsets(101), Some((4, vec![100])));
        assert_eq!(offsets(9), None::<(u16, Vec<u64>)>);
        // Before it is committed it is found, however many came behind it.
        assert!(matches!(producers.check(&mark(3, 0), 10), Verdict::Fenced));
        assert!(matches!(ten(0).check(&mark(3, 0), 10), Verdict::Duplicate(ProducerBatch { base_offset: 0, .. })));
        let kept = |committed_end| ten(committed_end).by_id[&ProducerId(ID)].batches.len();
        assert_eq!((kept(30), kept(79), kept(100)), (10, 10 - 2, PRODUCER_BATCHES_KEPT));
    }

    #[test]
    fn who_is_silent_is_forgotten_and_the_start_counts_as_a_word() {
        let mut producers = Producers::default();
        replay(&mut producers, &mark(0, 0), &batch(0, 1));
        for id in 1..=3 {
            accept(&mut producers, &ProducerMark { id, ..mark(0, 0) }, &batch(id, 1), 0, Some(1000 * id));
        }
        assert_eq!(producers.expire(1500, 5000), 1);
        assert_eq!(producers.expire(1500, 5001), 0);
        assert_eq!(producers.expire(3001, 6000), 2);
        assert_eq!((producers.expire(5000, 9000), producers.len()), (0, 1));
        assert_eq!((producers.expire(5001, 9000), producers.len()), (1, 0));
    }

    #[test]
    fn a_producer_that_was_forgotten_may_begin_with_a_lower_epoch() {
        // As the log holds it.
        let mut producers = Producers::default();
        for (at, epoch) in [0, 1, 0].into_iter().enumerate() {
            replay(&mut producers, &mark(epoch, 0), &batch(at as u64, 1));
        }
        assert_eq!(stored(&producers, 3).len(), 1);
        assert_eq!(producers.check(&mark(0, 1), 1), Verdict::New { is_known: true });
    }

    #[test]
    fn what_the_log_lost_behind_the_checkpoint_was_never_there() {
        let mut producers = restored(&stored(&ten(100), 100));
        producers.cut(90);
        assert_eq!(producers.check(&mark(3, 90), 10), Verdict::New { is_known: true });
        // Another producer's records took the place, and then its own.
        accept(&mut producers, &mark(3, 90), &batch(95, 10), 95, Some(1));
        assert_eq!(stored(&producers, 105).len(), 1);
        producers.cut(0);
        assert!(producers.is_empty());
    }

    #[test]
    fn a_disk_that_stood_still_leaves_no_memory_behind() {
        let mut producers = Producers::default();
        for number in 0..100_000 {
            accept(&mut producers, &mark(0, number), &batch(u64::from(number), 1), 0, Some(1));
        }
        accept(&mut producers, &mark(0, 100_000), &batch(100_000, 1), 100_000, Some(1));
        let batches = &producers.by_id[&ProducerId(ID)].batches;
        assert!(batches.capacity() < 100, "{} of {}", batches.len(), batches.capacity());
    }

    #[test]
    fn those_found_at_a_start_have_all_of_their_time_and_no_more() {
        let mut producers = Producers::default();
        replay(&mut producers, &mark(0, 0), &batch(0, 1));
        let (minute, expiry_us) = (60_000_000, 3_600_000_000u64);
        let mut looks = (0..200u64).map(|number| 1_000_000 + number * minute);
        let forgotten = looks.find(|now_us| producers.expire(now_us.saturating_sub(expiry_us), *now_us) == 1);
        assert_eq!(forgotten.map(|at_us| at_us / minute), Some(61));
    }

    proptest! {
        /// Whatever is cut behind what was committed when a checkpoint was made, and wherever the replay begins: the state is that of the
        /// batches that are left.
        #[test]
        fn a_start_knows_what_the_log_holds(
            sizes in prop::collection::vec((1u32..20, 0u64..3, prop::bool::weighted(0.1)), 1..60),
            (committed, covered, left) in (0usize..60, 0usize..60, 0usize..60),
        ) {
            let mut log: Vec<(ProducerMark, BatchRef)> = Vec::new();
            let mut next: std::collections::BTreeMap<u64, (u16, u32)> = std::collections::BTreeMap::new();
            let mut offset = 0;
            for (count, id, raise) in sizes {
                let (epoch, sequence) = next.entry(id).or_default();
                if raise {
                    (*epoch, *sequence) = (*epoch + 1, 0);
                }
                log.push((ProducerMark { id: id + 1, epoch: *epoch, sequence: *sequence }, batch(offset, count)));
                (*sequence, offset) = (*sequence + count, offset + u64::from(count));
            }
            let left = left.min(log.len());
            let committed = committed.min(left);
            let covered = covered.min(committed);
            let end_of = |batches: usize| batches.checked_sub(1).map_or(0, |last| log[last].1.end_offset());
            let mut before = Producers::default();
            for (number, (mark, batch)) in log.iter().enumerate() {
                // Commits come behind appends.
                accept(&mut before, mark, batch, end_of(number.min(committed)), Some(1));
            }
            let mut after = restored(&stored(&before, end_of(committed)));
            log[covered..left].iter().for_each(|(mark, batch)| replay(&mut after, mark, batch));
            let mut model = Producers::default();
            log[..left].iter().for_each(|(mark, batch)| accept(&mut model, mark, batch, u64::MAX, None));
            prop_assert_eq!(stored(&after, u64::MAX), stored(&model, u64::MAX));
        }
    }
}
