//! What is remembered of single messages: one cell of 32 bytes each, by offset, for those that are not simply settled or simply fresh.
//!
//! Invariants: cells lie in chunks of at most [`CHUNK_CELLS`] in order of offset; chunks do not overlap, none is empty; `len` counts the cells; each block
//! belongs to one chunk, whose base it knows.
//!
//! Cost: a hash table or one large vector would stop the shard while it grows (ten million cells: hundreds of milliseconds), a tree with one entry per
//! message takes twice the memory. Here an insertion or removal moves at most [`CHUNK_CELLS`] cells, 4 KiB, whatever the number of messages and
//! wherever the holes are.
//!
//! Not here: what the states mean (`part.rs`), memory (`blocks.rs`).

use super::blocks::{BLOCK_CELLS, BlockId, Blocks};
use std::collections::BTreeMap;

/// Cells of one chunk, at most.
pub const CHUNK_CELLS: usize = 128;
/// A chunk with fewer cells is put together with a neighbour, if both together leave some room.
const CHUNK_CELLS_LOW: usize = 32;

/// How things stand with one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// May be delivered now.
    Ready = 1,
    /// Somebody has it.
    Leased = 2,
    /// To be delivered later.
    Delayed = 3,
    /// Another message of its group goes first.
    Parked = 4,
    /// Given up; it stays until it is moved, redriven or deleted.
    Dead = 5,
}

impl State {
    /// The state with this number.
    pub fn from_u8(number: u8) -> Option<State> {
        [State::Ready, State::Leased, State::Delayed, State::Parked, State::Dead].into_iter().find(|state| *state as u8 == number)
    }
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Leased: when the lease ends, on the monotonic clock. Delayed and parked: not to be delivered before, UTC. Microseconds.
    pub until_us: u64,
    /// The number of its lease; 0 without one.
    pub lease: u32,
    /// Its offset minus that of its chunk.
    pub(super) delta: u32,
    /// Its message group's lane; 0 without one.
    pub lane: u32,
    /// Leased: the length of the lease, in milliseconds.
    pub lease_ms: u32,
    /// Who has it or had it last; 0 for nobody with a name.
    pub consumer: u16,
    /// How often it was delivered.
    pub deliveries: u16,
    /// How things stand with it.
    pub state: State,
    /// 0 to 9, higher is sooner.
    pub priority: u8,
}

impl Cell {
    /// A message that was never delivered.
    pub fn new(state: State) -> Cell {
        Cell { until_us: 0, lease: 0, delta: 0, lane: 0, lease_ms: 0, consumer: 0, deliveries: 0, state, priority: 0 }
    }

    /// Whether things stand alike with another message.
    pub(super) fn same_but_offset(&self, other: &Cell) -> bool {
        *self == Cell { delta: self.delta, ..*other }
    }
}

/// Where the cells of a chunk are: the cell number n in the block number n / 8, all blocks but the last one full.
#[derive(Clone, Debug)]
struct Chunk {
    blocks: [BlockId; CHUNK_CELLS / BLOCK_CELLS],
    len: u8,
}

/// All cells of one queue in one partition.
#[derive(Debug, Default)]
pub struct Cells {
    /// By an offset at or below that of the first cell.
    chunks: BTreeMap<u64, Chunk>,
    blocks: Blocks,
    len: usize,
}

impl Cells {
    /// Number of cells.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The lowest offset that has a cell.
    pub fn first(&self) -> Option<u64> {
        self.chunks.first_key_value().map(|(base, chunk)| base + u64::from(chunk.cell(&self.blocks, 0).delta))
    }

    /// The cell of `offset`.
    pub fn get(&self, offset: u64) -> Option<&Cell> {
        let (base, chunk) = self.chunks.range(..=offset).next_back()?;
        let at = chunk.find(&self.blocks, u32::try_from(offset - base).ok()?).ok()?;
        Some(chunk.cell(&self.blocks, at))
    }

    /// The cell of `offset`, to be changed.
    pub fn get_mut(&mut self, offset: u64) -> Option<&mut Cell> {
        let (base, chunk) = self.chunks.range(..=offset).next_back()?;
        let at = chunk.find(&self.blocks, u32::try_from(offset - base).ok()?).ok()?;
        Some(&mut self.blocks.cells_mut(chunk.blocks[at / BLOCK_CELLS])[at % BLOCK_CELLS])
    }

    /// Cells from `offset` on, with their offsets, in order.
    pub fn iter_from(&self, offset: u64) -> impl Iterator<Item = (u64, &Cell)> {
        let first_chunk = self.chunks.range(..=offset).next_back().map_or(offset, |(base, _)| *base);
        self.chunks
            .range(first_chunk..)
            .flat_map(move |(base, chunk)| {
                let below = u32::try_from(offset.saturating_sub(*base)).map_or(chunk.len(), |delta| chunk.below(&self.blocks, delta));
                (below..chunk.len()).map(move |at| (*base, chunk.cell(&self.blocks, at)))
            })
            .map(|(base, cell)| (base + u64::from(cell.delta), cell))
    }

    /// Puts a cell at `offset`. Panics if there is one.
    pub fn insert(&mut self, offset: u64, mut cell: Cell) {
        let found = self.chunks.range_mut(..=offset).next_back().filter(|(base, _)| offset - **base <= u64::from(u32::MAX));
        let Some((base, chunk)) = found else { return self.insert_alone(offset, cell) };
        let base = *base;
        cell.delta = (offset - base) as u32;
        let at = chunk.below(&self.blocks, cell.delta);
        assert!(at == chunk.len() || chunk.cell(&self.blocks, at).delta != cell.delta, "offset {offset} has two cells");
        if chunk.len() < CHUNK_CELLS {
            chunk.insert(&mut self.blocks, base, at, cell);
            self.len += 1;
        } else if at == CHUNK_CELLS {
            self.insert_alone(offset, cell);
        } else {
            let (upper_base, upper) = chunk.split(&mut self.blocks, base);
            self.chunks.insert(upper_base, upper);
            self.insert(offset, cell);
        }
    }

    /// In a chunk of its own.
    fn insert_alone(&mut self, offset: u64, cell: Cell) {
        let mut chunk = Chunk { blocks: Default::default(), len: 0 };
        chunk.insert(&mut self.blocks, offset, 0, Cell { delta: 0, ..cell });
        assert!(self.chunks.insert(offset, chunk).is_none(), "offset {offset} has two chunks");
        self.len += 1;
    }

    /// Takes the cell of `offset` out.
    pub fn remove(&mut self, offset: u64) -> Option<Cell> {
        let (base, chunk) = self.chunks.range_mut(..=offset).next_back()?;
        let base = *base;
        let at = chunk.find(&self.blocks, u32::try_from(offset - base).ok()?).ok()?;
        let (cell, unused) = chunk.remove(&mut self.blocks, at);
        self.len -= 1;
        let left = chunk.len();
        if left == 0 {
            self.chunks.remove(&base);
        }
        if let Some(block) = unused {
            self.give_back(block);
        }
        if 0 < left && left < CHUNK_CELLS_LOW {
            self.join(base);
        }
        Some(cell)
    }

    fn give_back(&mut self, block: BlockId) {
        let Some(moved) = self.blocks.give_back(block) else { return };
        let owner = self.chunks.get_mut(&moved.owner).expect("each block belongs to a chunk");
        let count = owner.block_count();
        let place = owner.blocks[..count].iter_mut().find(|block| **block == moved.from);
        *place.expect("the chunk knows its blocks") = moved.to;
    }

    /// Drops some of the cells, none of which is asked for again; whether there are more.
    pub fn drop_some(&mut self) -> bool {
        /// Chunks; one page goes with them.
        const AT_ONCE: usize = 500;
        for _ in 0..AT_ONCE {
            let Some((_, chunk)) = self.chunks.pop_first() else { break };
            self.len -= chunk.len();
        }
        self.blocks.drop_page() || self.len > 0
    }

    /// Puts the chunk at `base` together with a neighbour.
    fn join(&mut self, base: u64) {
        let next = self.chunks.range(base + 1..).next().map(|(next, _)| (base, *next));
        let before = self.chunks.range(..base).next_back().map(|(before, _)| (*before, base));
        for (lower, upper) in [next, before].into_iter().flatten() {
            let further = &self.chunks[&upper];
            let last_delta = u64::from(further.cell(&self.blocks, further.len() - 1).delta);
            if self.chunks[&lower].len() + further.len() > CHUNK_CELLS - CHUNK_CELLS_LOW || upper - lower + last_delta > u64::from(u32::MAX)
            {
                continue;
            }
            let further = self.chunks.remove(&upper).expect("just seen");
            let chunk = self.chunks.get_mut(&lower).expect("just seen");
            let shift = (upper - lower) as u32;
            for at in 0..further.len() {
                let cell = *further.cell(&self.blocks, at);
                chunk.insert(&mut self.blocks, lower, chunk.len(), Cell { delta: cell.delta + shift, ..cell });
            }
            // From the last one: one that is moved is not one of these, which would not know of it.
            let mut unused: Vec<BlockId> = further.blocks[..further.block_count()].to_vec();
            unused.sort_unstable_by(|a, b| b.cmp(a));
            unused.into_iter().for_each(|block| self.give_back(block));
            return;
        }
    }

    /// Bytes of memory that the cells take, by the sizes of what is allocated.
    #[cfg(test)]
    pub fn memory_bytes(&self) -> usize {
        // A node of the tree has room for eleven, and is filled to about two thirds.
        let per_chunk = (size_of::<u64>() + size_of::<Chunk>()) * 3 / 2;
        self.chunks.len() * per_chunk + self.blocks.memory_bytes()
    }
}

impl Chunk {
    fn len(&self) -> usize {
        usize::from(self.len)
    }

    fn block_count(&self) -> usize {
        self.len().div_ceil(BLOCK_CELLS)
    }

    fn cell<'a>(&self, blocks: &'a Blocks, at: usize) -> &'a Cell {
        &blocks.cells(self.blocks[at / BLOCK_CELLS])[at % BLOCK_CELLS]
    }

    /// How many cells lie below `delta`.
    fn below(&self, blocks: &Blocks, delta: u32) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = (low + high) / 2;
            if self.cell(blocks, middle).delta < delta {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn find(&self, blocks: &Blocks, delta: u32) -> Result<usize, ()> {
        let at = self.below(blocks, delta);
        if at < self.len() && self.cell(blocks, at).delta == delta { Ok(at) } else { Err(()) }
    }

    /// Puts a cell before the one number `at`. The chunk has room, and lies at `base`.
    fn insert(&mut self, blocks: &mut Blocks, base: u64, at: usize, cell: Cell) {
        let len = self.len();
        if len.is_multiple_of(BLOCK_CELLS) {
            self.blocks[len / BLOCK_CELLS] = blocks.take(base, cell);
        }
        let (mut carried, mut within) = (cell, at % BLOCK_CELLS);
        for number in at / BLOCK_CELLS..=len / BLOCK_CELLS {
            let cells = blocks.cells_mut(self.blocks[number]);
            let last = cells[BLOCK_CELLS - 1];
            cells.copy_within(within..BLOCK_CELLS - 1, within + 1);
            cells[within] = carried;
            (carried, within) = (last, 0);
        }
        self.len += 1;
    }

    /// Takes the cell number `at` out; answers it, and a block that is not needed any more.
    fn remove(&mut self, blocks: &mut Blocks, at: usize) -> (Cell, Option<BlockId>) {
        let cell = *self.cell(blocks, at);
        let last = self.block_count() - 1;
        let mut within = at % BLOCK_CELLS;
        for number in at / BLOCK_CELLS..=last {
            let carried = if number < last { Some(blocks.cells(self.blocks[number + 1])[0]) } else { None };
            let cells = blocks.cells_mut(self.blocks[number]);
            cells.copy_within(within + 1.., within);
            if let Some(carried) = carried {
                cells[BLOCK_CELLS - 1] = carried;
            }
            within = 0;
        }
        self.len -= 1;
        (cell, (self.block_count() == last).then(|| self.blocks[last]))
    }

    /// Takes the upper half of a full chunk out, with its base.
    fn split(&mut self, blocks: &mut Blocks, base: u64) -> (u64, Chunk) {
        const HALF: usize = CHUNK_CELLS / 2;
        let shift = self.cell(blocks, HALF).delta;
        let mut upper = Chunk { blocks: Default::default(), len: (CHUNK_CELLS - HALF) as u8 };
        for (to, from) in upper.blocks.iter_mut().zip(&self.blocks[HALF / BLOCK_CELLS..]) {
            *to = *from;
            blocks.set_owner(*from, base + u64::from(shift));
            blocks.cells_mut(*from).iter_mut().for_each(|cell| cell.delta -= shift);
        }
        self.len = HALF as u8;
        (base + u64::from(shift), upper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_takes_32_bytes() {
        assert_eq!(size_of::<Cell>(), 32);
    }

    /// Random insertions and removals against a map of the standard library.
    #[test]
    fn cells_are_where_they_were_put() {
        let mut state = 7_u64;
        let mut dice = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for spread in [300, 5_000, 1 << 40] {
            let (mut cells, mut model) = (Cells::default(), BTreeMap::new());
            for step in 0..40_000_u64 {
                let offset = if spread == 300 || dice(4) > 0 { dice(spread) } else { step };
                let grows = step < 25_000;
                if (dice(3) > 0) == grows {
                    if model.insert(offset, step as u32).is_none() {
                        cells.insert(offset, Cell { lease: step as u32, ..Cell::new(State::Leased) });
                    } else {
                        cells.get_mut(offset).expect("in the model").lease = step as u32;
                    }
                } else {
                    assert_eq!(cells.remove(offset).map(|cell| cell.lease), model.remove(&offset));
                }
                let at = dice(spread);
                assert_eq!(cells.get(at).map(|cell| cell.lease), model.get(&at).copied());
                assert_eq!(cells.first(), model.first_key_value().map(|(offset, _)| *offset));
                assert_eq!(cells.len(), model.len());
            }
            let from = dice(spread);
            let seen: Vec<_> = cells.iter_from(from).map(|(offset, cell)| (offset, cell.lease)).collect();
            assert_eq!(seen, model.range(from..).map(|(offset, lease)| (*offset, *lease)).collect::<Vec<_>>());
            for chunk in cells.chunks.values() {
                let deltas: Vec<u32> = (0..chunk.len()).map(|at| chunk.cell(&cells.blocks, at).delta).collect();
                assert!(!deltas.is_empty() && deltas.len() <= CHUNK_CELLS && deltas.is_sorted_by(|a, b| a < b));
            }
            while cells.drop_some() {}
            assert!(cells.is_empty() && cells.iter_from(0).next().is_none());
        }
    }

    #[test]
    fn holes_anywhere_cost_no_more_than_some_cells() {
        for step in [1, 7, 1_000_003] {
            let mut cells = Cells::default();
            (0..200_000_u64).for_each(|n| cells.insert(n * step, Cell::new(State::Leased)));
            assert!(cells.memory_bytes() < 36 * cells.len(), "{} bytes each", cells.memory_bytes() / cells.len());
            // One after the other of ten neighbours goes, until one of them is left.
            for hole in [7, 1, 4, 9, 0, 5, 8, 2, 6] {
                for n in (hole..200_000_u64).step_by(10) {
                    cells.remove(n * step);
                }
                assert!(cells.memory_bytes() < 46 * cells.len(), "{} bytes each", cells.memory_bytes() / cells.len());
            }
        }
    }
}
