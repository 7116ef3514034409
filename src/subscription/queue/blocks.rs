//! Memory for cells: blocks of eight, in pages, packed so that no block in between is free.
//!
//! Invariants: blocks are numbered from 0 without a gap; all pages but the last one are full. Who gives a block back is told which other one was moved into
//! its place.
//!
//! Cost: a piece of memory from the system's allocator for each chunk of cells left millions of small free pieces behind when messages are acknowledged in
//! random order, and one of the next calls of the allocator sorted them: 2 to 32 ms in which the shard stood still, with ten million messages. Here it is asked
//! for a page at a time, and what is taken falls as the cells do.
//!
//! Not here: which cell is where (`cells.rs`).

use super::cells::Cell;

/// Cells of one block.
pub(super) const BLOCK_CELLS: usize = 8;
/// Blocks of one page, some 66 KiB.
const PAGE_BLOCKS: usize = 256;

/// Some cells, which belong to one chunk.
#[derive(Debug)]
struct Block {
    /// The chunk's base.
    owner: u64,
    cells: [Cell; BLOCK_CELLS],
}

/// The number of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BlockId(u32);

/// A block has another number now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved {
    pub(super) owner: u64,
    pub(super) from: BlockId,
    pub(super) to: BlockId,
}

/// All blocks of one queue in one partition.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// The first one grows as vectors do: most queues have few messages.
    pages: Vec<Vec<Block>>,
    /// The last page that became empty: cells come and go at its border.
    spare: Option<Vec<Block>>,
}

impl Blocks {
    /// A block more, for the chunk at `owner`, full of `cell`.
    pub(super) fn take(&mut self, owner: u64, cell: Cell) -> BlockId {
        if self.pages.last().is_none_or(|page| page.len() == PAGE_BLOCKS) {
            let capacity = if self.pages.is_empty() { 0 } else { PAGE_BLOCKS };
            self.pages.push(self.spare.take().unwrap_or_else(|| Vec::with_capacity(capacity)));
        }
        let before = (self.pages.len() - 1) * PAGE_BLOCKS;
        let page = self.pages.last_mut().expect("just seen to");
        if page.len() == page.capacity() {
            page.reserve_exact(page.len().clamp(1, PAGE_BLOCKS - page.len()));
        }
        page.push(Block { owner, cells: [cell; BLOCK_CELLS] });
        BlockId(u32::try_from(before + page.len() - 1).expect("CELLS_MAX cells at most"))
    }

    /// A block is not needed any more: the last one takes its place. Nobody has to be told if it was the last one itself.
    pub(super) fn give_back(&mut self, block: BlockId) -> Option<Moved> {
        let last_page = self.pages.len() - 1;
        let page = &mut self.pages[last_page];
        let last = page.pop().expect("no page is empty");
        let from = BlockId((last_page * PAGE_BLOCKS + page.len()) as u32);
        if page.is_empty() {
            self.spare = self.pages.pop();
        } else if last_page == 0 && page.len() < page.capacity() / 4 {
            page.shrink_to(page.len() * 2);
            self.spare = None;
        }
        if from == block {
            return None;
        }
        let moved = Moved { owner: last.owner, from, to: block };
        *self.block_mut(block) = last;
        Some(moved)
    }

    /// The block belongs to another chunk now, or to the same with another base.
    pub(super) fn set_owner(&mut self, block: BlockId, owner: u64) {
        self.block_mut(block).owner = owner;
    }

    pub(super) fn cells(&self, block: BlockId) -> &[Cell; BLOCK_CELLS] {
        &self.pages[block.0 as usize / PAGE_BLOCKS][block.0 as usize % PAGE_BLOCKS].cells
    }

    pub(super) fn cells_mut(&mut self, block: BlockId) -> &mut [Cell; BLOCK_CELLS] {
        &mut self.block_mut(block).cells
    }

    /// Drops a page of them, whoever they belong to: nobody asks for any of them again. Whether there are more.
    pub(super) fn drop_page(&mut self) -> bool {
        self.spare = None;
        self.pages.pop();
        !self.pages.is_empty()
    }

    /// Bytes that are taken.
    #[cfg(test)]
    pub(super) fn memory_bytes(&self) -> usize {
        let pages = self.pages.iter().chain(&self.spare);
        pages.map(|page| page.capacity() * size_of::<Block>()).sum::<usize>() + self.pages.capacity() * size_of::<Vec<Block>>()
    }

    fn block_mut(&mut self, block: BlockId) -> &mut Block {
        &mut self.pages[block.0 as usize / PAGE_BLOCKS][block.0 as usize % PAGE_BLOCKS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscription::queue::cells::State;

    #[test]
    fn blocks_are_packed_and_pages_given_back() {
        let mut blocks = Blocks::default();
        let cell = |lease: u32| Cell { lease, ..Cell::new(State::Leased) };
        // Where each owner's block is.
        let mut places: Vec<BlockId> = (0..1000).map(|owner| blocks.take(u64::from(owner), cell(owner))).collect();
        assert!(blocks.memory_bytes() < 1300 * size_of::<Block>());
        for owner in (0..1000).rev().step_by(2).chain((0..1000).step_by(2)).take(999) {
            if let Some(moved) = blocks.give_back(places[owner]) {
                assert_eq!(places[moved.owner as usize], moved.from);
                places[moved.owner as usize] = moved.to;
                assert_eq!(blocks.cells(moved.to)[7].lease, moved.owner as u32);
            }
        }
        assert_eq!(places[998], BlockId(0), "the last one left is the first");
        assert_eq!(blocks.cells(places[998])[0].lease, 998);
        assert!(blocks.memory_bytes() < 10 * size_of::<Block>(), "of a thousand one is left: {} bytes", blocks.memory_bytes());
        assert!(!blocks.drop_page());
    }
}
