//! What is remembered of single messages: one cell of 32 bytes each, by offset, for those that are not simply settled or simply fresh.
//!
//! Invariants: cells lie in chunks of at most [`CHUNK_CELLS`] in order of offset; chunks do not overlap, none is empty; `len` counts the cells.
//!
//! Cost: a hash table or one large vector would stop the shard while it grows (ten million cells: hundreds of milliseconds), a tree with one entry per
//! message takes twice the memory. Here an insertion or removal moves at most [`CHUNK_CELLS`] cells, 4 KiB, whatever the number of messages and
//! wherever the holes are.
//!
//! Not here: what the states mean (`part.rs`).

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
}

/// All cells of one queue in one partition.
#[derive(Debug, Default)]
pub struct Cells {
    /// By an offset at or below that of the first cell.
    chunks: BTreeMap<u64, Vec<Cell>>,
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
        self.chunks.first_key_value().map(|(base, chunk)| base + u64::from(chunk[0].delta))
    }

    /// The cell of `offset`.
    pub fn get(&self, offset: u64) -> Option<&Cell> {
        let (base, chunk) = self.chunks.range(..=offset).next_back()?;
        let delta = u32::try_from(offset - base).ok()?;
        chunk.binary_search_by_key(&delta, |cell| cell.delta).ok().map(|at| &chunk[at])
    }

    /// The cell of `offset`, to be changed.
    pub fn get_mut(&mut self, offset: u64) -> Option<&mut Cell> {
        let (base, chunk) = self.chunks.range_mut(..=offset).next_back()?;
        let delta = u32::try_from(offset - base).ok()?;
        chunk.binary_search_by_key(&delta, |cell| cell.delta).ok().map(|at| &mut chunk[at])
    }

    /// Cells from `offset` on, with their offsets, in order.
    pub fn iter_from(&self, offset: u64) -> impl Iterator<Item = (u64, &Cell)> {
        let first_chunk = self.chunks.range(..=offset).next_back().map_or(offset, |(base, _)| *base);
        self.chunks
            .range(first_chunk..)
            .flat_map(|(base, chunk)| chunk.iter().map(move |cell| (base + u64::from(cell.delta), cell)))
            .skip_while(move |(at, _)| *at < offset)
    }

    /// Puts a cell at `offset`. Panics if there is one.
    pub fn insert(&mut self, offset: u64, mut cell: Cell) {
        self.len += 1;
        let found = self.chunks.range_mut(..=offset).next_back().filter(|(base, _)| offset - **base <= u64::from(u32::MAX));
        let Some((base, chunk)) = found else {
            cell.delta = 0;
            self.chunks.insert(offset, one(cell));
            return;
        };
        let base = *base;
        cell.delta = (offset - base) as u32;
        let at = chunk.partition_point(|known| known.delta < cell.delta);
        assert!(chunk.get(at).is_none_or(|known| known.delta != cell.delta), "offset {offset} has two cells");
        if chunk.len() < CHUNK_CELLS {
            if chunk.len() == chunk.capacity() {
                // Twice as much, but never more than a chunk.
                chunk.reserve_exact(chunk.len().min(CHUNK_CELLS - chunk.len()).max(1));
            }
            chunk.insert(at, cell);
            return;
        }
        if at == chunk.len() {
            cell.delta = 0;
            self.chunks.insert(offset, one(cell));
            return;
        }
        let mut upper = chunk.split_off(CHUNK_CELLS / 2);
        chunk.shrink_to_fit();
        let upper_base = rebase(base, &mut upper);
        self.chunks.insert(upper_base, upper);
        self.len -= 1;
        self.insert(offset, cell);
    }

    /// Takes the cell of `offset` out.
    pub fn remove(&mut self, offset: u64) -> Option<Cell> {
        let (base, chunk) = self.chunks.range_mut(..=offset).next_back()?;
        let base = *base;
        let delta = u32::try_from(offset - base).ok()?;
        let at = chunk.binary_search_by_key(&delta, |cell| cell.delta).ok()?;
        let cell = chunk.remove(at);
        self.len -= 1;
        let left = chunk.len();
        if left == 0 {
            self.chunks.remove(&base);
        } else if left < CHUNK_CELLS_LOW {
            self.join(base);
        } else {
            shrink(chunk);
        }
        Some(cell)
    }

    /// Drops some of the cells; whether there are more.
    pub fn drop_some(&mut self) -> bool {
        /// About 100 us.
        const AT_ONCE: usize = 500;
        for _ in 0..AT_ONCE {
            let Some((_, chunk)) = self.chunks.pop_first() else { break };
            self.len -= chunk.len();
        }
        self.len > 0
    }

    /// Puts the chunk at `base` together with a neighbour, or gives the memory back that it does not need any more.
    fn join(&mut self, base: u64) {
        let next = self.chunks.range(base + 1..).next().map(|(next, _)| (base, *next));
        let before = self.chunks.range(..base).next_back().map(|(before, _)| (*before, base));
        for (lower, upper) in [next, before].into_iter().flatten() {
            let further = &self.chunks[&upper];
            let cells = self.chunks[&lower].len() + further.len();
            if cells > CHUNK_CELLS - CHUNK_CELLS_LOW || upper - lower + u64::from(further[further.len() - 1].delta) > u64::from(u32::MAX) {
                continue;
            }
            let further = self.chunks.remove(&upper).expect("just seen");
            let chunk = self.chunks.get_mut(&lower).expect("just seen");
            chunk.reserve_exact(further.len());
            let shift = (upper - lower) as u32;
            chunk.extend(further.into_iter().map(|cell| Cell { delta: cell.delta + shift, ..cell }));
            return;
        }
        shrink(self.chunks.get_mut(&base).expect("the caller's"));
    }

    /// Bytes of memory that the cells take, by the sizes of what is allocated.
    #[cfg(test)]
    pub fn memory_bytes(&self) -> usize {
        // A node of the tree has room for eleven, and is filled to about two thirds.
        let per_chunk = (size_of::<u64>() + size_of::<Vec<Cell>>()) * 3 / 2;
        self.chunks.values().map(|chunk| chunk.capacity() * size_of::<Cell>() + per_chunk).sum()
    }
}

/// Gives memory back once a third is not needed: as holes are made a chunk is moved some five times until it is put together with its neighbour. It keeps
/// an eighth, so that a cell that comes does not undo it.
fn shrink(chunk: &mut Vec<Cell>) {
    let wanted = chunk.len() + chunk.len() / 8;
    if chunk.capacity() > wanted + chunk.len() / 4 + 4 {
        chunk.shrink_to(wanted);
    }
}

fn one(cell: Cell) -> Vec<Cell> {
    let mut chunk = Vec::with_capacity(4);
    chunk.push(cell);
    chunk
}

/// Counts the cells of a chunk from their first one on, which it answers.
fn rebase(base: u64, chunk: &mut [Cell]) -> u64 {
    let shift = chunk[0].delta;
    chunk.iter_mut().for_each(|cell| cell.delta -= shift);
    base + u64::from(shift)
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
            assert!(cells.chunks.values().all(|chunk| !chunk.is_empty() && chunk.len() <= CHUNK_CELLS));
            assert!(cells.chunks.values().all(|chunk| chunk.is_sorted_by(|a, b| a.delta < b.delta)));
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
                assert!(cells.memory_bytes() < 50 * cells.len(), "{} bytes each", cells.memory_bytes() / cells.len());
            }
        }
    }
}
