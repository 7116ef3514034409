//! One partition: its offsets and its rules.
//!
//! The offset family, in the order in which it moves: `next_offset` (handed out, may be lost in a crash) >= `committed_end`
//! (durable at a majority, never reused) >= `log_start` (trimmed below). `visible_end` is what consumers may see: the committed
//! end, or `next_offset` for topics with `visible.at=leader`.

use super::expiry::Oldest;
use super::index::{BatchRef, Index};
use super::producers::Producers;
use super::trim::TrimError;
use crate::ids::{BlockSeq, GroupId, PartitionUid, TopicUid};
use crate::mutants::{Mutant, Mutants};
use std::ops::Range;
use tramline_wire::error::ErrorCode;

/// What a topic's settings mean for its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicRules {
    /// Milliseconds a record is kept; `None` for ever.
    pub retention_ms: Option<u64>,
    /// Bytes a partition keeps; `None` without limit.
    pub retention_bytes: Option<u64>,
    /// Microseconds that messages which a queue has not settled are kept in any case, and the longest delay of a message; `None` for ever.
    pub queue_retention_us: Option<u64>,
    /// Whether the broker's append time counts (else the producer's).
    pub append_time: bool,
    /// Whether consumers see records before they are durable.
    pub visible_at_leader: bool,
    /// Largest record value, in bytes.
    pub record_bytes_max: u32,
    /// Largest batch, in bytes.
    pub batch_bytes_max: u32,
}

impl Default for TopicRules {
    fn default() -> TopicRules {
        TopicRules {
            retention_ms: None,
            retention_bytes: None,
            queue_retention_us: None,
            append_time: false,
            visible_at_leader: false,
            record_bytes_max: 1 << 20,
            batch_bytes_max: 4 << 20,
        }
    }
}

/// One partition, owned by its shard.
#[derive(Debug)]
pub struct Partition {
    /// Never reused.
    pub uid: PartitionUid,
    /// Its topic.
    pub topic: TopicUid,
    /// Its number in the topic.
    pub number: u32,
    /// The replica group that carries it.
    pub group: GroupId,
    /// The topic's rules.
    pub rules: TopicRules,
    /// Where its batches are.
    pub index: Index,
    /// Who produces to it idempotently.
    pub(super) producers: Producers,
    /// Queues have settled everything below; [`u64::MAX`] without queues. May be behind.
    pub held_from: u64,
    log_start: u64,
    /// How far up the start is for good. Retention moves the start without a word in the log: until its segment is freed or a
    /// checkpoint says so, a crash brings it back.
    durable_start: u64,
    next_offset: u64,
    committed_end: u64,
    /// Offsets that damage of the log took away, in order.
    lost: Vec<Range<u64>>,
    /// Other nodes have replicas of it: what is damaged here is asked of them.
    pub has_others: bool,
    /// Ranges that none of them could help with.
    hopeless: Vec<Range<u64>>,
    /// The first batch of the oldest run; of another run once the run that it was the first of is cut or gone.
    pub(super) front: Option<Oldest>,
}

impl Partition {
    /// An empty partition.
    pub fn new(uid: PartitionUid, topic: TopicUid, number: u32, group: GroupId, rules: TopicRules) -> Partition {
        Partition {
            uid,
            topic,
            number,
            group,
            rules,
            index: Index::default(),
            producers: Producers::default(),
            held_from: u64::MAX,
            log_start: 0,
            durable_start: 0,
            next_offset: 0,
            committed_end: 0,
            lost: Vec::new(),
            has_others: false,
            hopeless: Vec::new(),
            front: None,
        }
    }

    /// What a reader is told of stored bytes at `offset` that do not check: to try again, as long as others may have them.
    pub fn damage_code(&self, offset: u64) -> ErrorCode {
        let is_hopeless = self.hopeless.iter().any(|range| range.contains(&offset));
        if self.has_others && !is_hopeless { ErrorCode::NotReady } else { ErrorCode::Damaged }
    }

    /// None of the others has this range either.
    pub fn note_hopeless(&mut self, range: Range<u64>) {
        self.forget_hopeless(range.start);
        self.hopeless.push(range);
    }

    /// What begins at `first` is repaired.
    pub fn forget_hopeless(&mut self, first: u64) {
        self.hopeless.retain(|range| range.start != first);
    }

    /// First offset that may be read.
    pub fn log_start(&self) -> u64 {
        self.log_start
    }

    /// The offset that the next record gets.
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// One past the last committed offset.
    pub fn committed_end(&self) -> u64 {
        self.committed_end
    }

    /// One past the last offset that a consumer may see.
    pub fn visible_end(&self) -> u64 {
        if self.rules.visible_at_leader { self.next_offset } else { self.committed_end }
    }

    /// A batch of the leader's look-ahead was appended: its offsets are taken.
    pub fn on_appended(&mut self, batch: BatchRef) {
        assert_eq!(batch.base_offset, self.next_offset, "partition {}: offsets are handed out in order", self.uid);
        self.next_offset = batch.end_offset();
        self.index.push(batch);
    }

    /// Its idempotent producers. (They change through the table, which counts them; at a start through `producers_mut`.)
    pub fn producers(&self) -> &Producers {
        &self.producers
    }

    /// For a start, before the partition stands in the table.
    pub fn producers_mut(&mut self) -> &mut Producers {
        &mut self.producers
    }

    /// Everything below `end` is committed. Answers whether that is news.
    pub fn on_committed(&mut self, end: u64) -> bool {
        assert!(end <= self.next_offset, "partition {}: committed {end} past {}", self.uid, self.next_offset);
        let news = end > self.committed_end;
        self.committed_end = self.committed_end.max(end);
        news
    }

    /// Everything in blocks up to this one is committed.
    pub fn commit_through(&mut self, block: BlockSeq) {
        if let Some(end) = self.index.tail().take_while(|batch| batch.block <= block).last().map(|batch| batch.end_offset()) {
            self.on_committed(end);
        }
    }

    /// At a start: the checkpoint's word on where this partition begins and ends.
    pub fn restore_bounds(&mut self, log_start: u64, next_offset: u64) {
        self.log_start = log_start;
        self.durable_start = log_start;
        self.next_offset = self.next_offset.max(next_offset).max(log_start);
        self.committed_end = self.next_offset;
    }

    /// At a start: a batch that was found in the log. A hole before it is damage.
    pub fn restore_batch(&mut self, batch: BatchRef) {
        if batch.base_offset > self.next_offset {
            self.lost.push(self.next_offset..batch.base_offset);
        }
        // A checkpoint can know of a trim that stands in the log behind this batch: what is below the start was handed out.
        self.next_offset = batch.end_offset().max(self.log_start);
        self.committed_end = self.next_offset;
        self.index.push(batch);
    }

    /// A batch of another node's leader was stored: committed, or only inherited by a new leader. As `restore_batch` otherwise.
    pub fn on_stored(&mut self, batch: BatchRef, is_committed: bool) {
        let committed_end = self.committed_end;
        self.restore_batch(batch);
        if !is_committed {
            self.committed_end = committed_end;
        }
    }

    /// What was appended and not committed was never there: another node leads the group.
    pub fn cut_tentative(&mut self, mutants: Mutants) {
        self.index.cut_from(self.committed_end);
        self.next_offset = self.committed_end;
        if !mutants.has(Mutant::ApplyTentativeProducer) {
            self.producers.cut(self.committed_end);
        }
    }

    /// At a start: a trim that was found in the log, after all batches. Offsets below it were handed out and committed before it
    /// was asked for, also where damage has taken the batches.
    pub fn restore_trim(&mut self, log_start: u64) {
        self.next_offset = self.next_offset.max(log_start);
        self.committed_end = self.next_offset;
        self.trim_to(log_start);
    }

    /// At a start: blocks were lost of which nobody knows what they held. Up to `count` offsets may have been handed out
    /// in them and must not be used again.
    pub fn skip_lost(&mut self, count: u64) {
        let start = self.next_offset;
        self.next_offset += count;
        self.committed_end = self.next_offset;
        match self.lost.last_mut() {
            Some(last) if last.end == start => last.end = self.next_offset,
            _ => self.lost.push(start..self.next_offset),
        }
    }

    /// Marks offsets as lost to damage that was found later.
    pub fn mark_lost(&mut self, range: Range<u64>) {
        if !self.lost.iter().any(|r| r.start <= range.start && range.end <= r.end) {
            self.lost.push(range);
            self.lost.sort_by_key(|r| r.start);
        }
    }

    /// The lost range that `offset` is in.
    pub fn lost_at(&self, offset: u64) -> Option<&Range<u64>> {
        self.lost.iter().find(|r| r.contains(&offset))
    }

    /// All lost ranges.
    pub fn lost(&self) -> &[Range<u64>] {
        &self.lost
    }

    /// Whether the partition may be trimmed to `before`, and whether that has to be made durable (else it is so already).
    pub fn check_trim(&self, before: u64) -> Result<bool, TrimError> {
        if before > self.committed_end { Err(TrimError::PastCommittedEnd) } else { Ok(before > self.durable_start) }
    }

    /// A trim is durable: nothing below `log_start` exists any more.
    pub fn trim_to(&mut self, log_start: u64) {
        assert!(log_start <= self.committed_end, "partition {}: trimmed to {log_start} past {}", self.uid, self.committed_end);
        self.durable_start = self.durable_start.max(log_start);
        self.log_start = self.log_start.max(log_start);
        self.drop_lost();
    }

    /// The oldest data up to `end` was dropped: the start moves up to there, not to what is left. What damage took between the two is damaged, not
    /// dropped.
    pub fn on_dropped(&mut self, end: u64) {
        assert!(self.index.first_offset().unwrap_or(self.next_offset) >= end, "partition {}: something below {end} is left", self.uid);
        self.log_start = self.log_start.max(end);
        self.drop_lost();
    }

    fn drop_lost(&mut self) {
        let start = self.log_start;
        self.lost.retain(|r| r.end > start);
    }
}
