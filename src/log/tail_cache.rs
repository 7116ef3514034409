//! The blocks written last, kept in memory: consumers at the tail get the very bytes that were written.
//!
//! Invariants: the blocks are consecutive; memory (whole buffers, not only what is used of them) stays within the budget, except that a
//! block that is not durable is always kept (the disk may not have it yet, so a cold read would find old bytes), and so is one that is not applied yet; cold reads never come in here, so they cannot push anything out.

use crate::bytes::Bytes;
use crate::ids::BlockSeq;
use std::collections::VecDeque;

pub(crate) struct TailCache {
    blocks: VecDeque<Bytes>,
    /// Number of the first block held; of the next one to come when none is.
    first: BlockSeq,
    bytes: usize,
    budget_bytes: usize,
    /// Blocks from this one on are kept in any case.
    kept_from: BlockSeq,
}

impl TailCache {
    pub(crate) fn new(next: BlockSeq, budget_bytes: usize) -> TailCache {
        TailCache { blocks: VecDeque::with_capacity(1024), first: next, bytes: 0, budget_bytes, kept_from: BlockSeq(u64::MAX) }
    }

    /// Takes the next block and lets go of the oldest durable ones above the budget.
    pub(crate) fn push(&mut self, seq: BlockSeq, block: Bytes, durable_through: BlockSeq) {
        assert_eq!(seq.0, self.first.0 + self.blocks.len() as u64, "the cache holds consecutive blocks");
        self.bytes += block.footprint();
        self.blocks.push_back(block);
        while self.bytes > self.budget_bytes && self.evict(durable_through) {}
    }

    /// Lets go of no block from this one on. Those that were let go of before do not come back.
    pub(crate) fn keep_from(&mut self, block: BlockSeq) {
        self.kept_from = block;
    }

    /// Lets go of neither this block nor one behind it.
    pub(crate) fn keep(&mut self, block: BlockSeq) {
        self.kept_from = self.kept_from.min(block);
    }

    /// Lets go of the oldest block; false when none is held, it is not durable, or it has to be kept.
    pub(crate) fn evict(&mut self, durable_through: BlockSeq) -> bool {
        if self.first > durable_through || self.first >= self.kept_from {
            return false;
        }
        match self.blocks.pop_front() {
            Some(block) => {
                self.bytes -= block.footprint();
                self.first.0 += 1;
                true
            }
            None => false,
        }
    }

    pub(crate) fn get(&self, seq: BlockSeq) -> Option<&Bytes> {
        let index = seq.0.checked_sub(self.first.0)?;
        self.blocks.get(usize::try_from(index).ok()?)
    }

    /// Number of the first block held; of the next one to come when none is.
    pub(crate) fn first(&self) -> BlockSeq {
        self.first
    }
    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}
