//! The blocks written last, kept in memory: consumers at the tail get the very bytes that were written.
//!
//! Invariants: the blocks are consecutive; memory (whole buffers, not only what is used of them) stays within the budget, except that the
//! newest block is always kept; cold reads never come in here, so they cannot push anything out.

use crate::bytes::Bytes;
use crate::ids::BlockSeq;
use std::collections::VecDeque;

pub(crate) struct TailCache {
    blocks: VecDeque<Bytes>,
    /// Number of the first block held; of the next one to come when none is.
    first: BlockSeq,
    bytes: usize,
    budget_bytes: usize,
}

impl TailCache {
    pub(crate) fn new(next: BlockSeq, budget_bytes: usize) -> TailCache {
        TailCache { blocks: VecDeque::with_capacity(1024), first: next, bytes: 0, budget_bytes }
    }

    /// Takes the next block and lets go of the oldest ones above the budget.
    pub(crate) fn push(&mut self, seq: BlockSeq, block: Bytes) {
        assert_eq!(seq.0, self.first.0 + self.blocks.len() as u64, "the cache holds consecutive blocks");
        self.bytes += block.footprint();
        self.blocks.push_back(block);
        while self.bytes > self.budget_bytes && self.blocks.len() > 1 {
            self.evict();
        }
    }

    /// Lets go of the oldest block; false when none is held.
    pub(crate) fn evict(&mut self) -> bool {
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

    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}
