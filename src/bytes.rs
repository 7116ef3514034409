//! Counted, page-aligned byte buffers: the only memory that disk I/O touches.
//!
//! Job: a `Slab` hands out unique, writable `BufMut`s; `Slab::freeze` turns one into shared, read-only `Bytes`
//! whose clones are a counter increment. The slab keeps one handle of everything it froze and takes the memory
//! back, without a free or an allocation, when it holds the last one.
//!
//! Invariants: the start of every buffer is aligned to `PAGE_BYTES` (O_DIRECT); outstanding memory never passes the
//! budget given to `Slab::new`; a `BufMut` is never aliased (its `Rc` is unique, asserted on each access).
//!
//! Not here: what the bytes mean; where the memory is from (`bytes/region.rs`, which has the only `unsafe`).

mod buddy;
mod region;

use region::{Memory, Region};
use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::rc::Rc;

pub use region::Warmer;

/// Alignment and granule of every buffer, in bytes: the log's block granule and at least the strictest O_DIRECT alignment met.
pub const PAGE_BYTES: usize = 4096;
const CLASS_COUNT: usize = buddy::ORDERS; // 4 KiB ..= 8 MiB, powers of two
/// Largest buffer a slab hands out, in bytes.
pub const BUFFER_BYTES_MAX: usize = PAGE_BYTES << (CLASS_COUNT - 1);

/// How often `tidy` looks at what is taken, in microseconds.
const LOOK_US: u64 = 100_000;
/// Buffers that one call of it moves: few, for it is called in every turn.
const TIDY_BUFFERS: usize = 64;
/// Free buffers of each size that stay.
const KEEP_MIN: usize = 16;

/// A unique, writable, page-aligned buffer. Contents are whatever the last user left: write before you read.
pub struct BufMut {
    memory: Rc<Memory>,
    len: usize,
}

impl BufMut {
    /// Bytes this buffer is used for (at most its capacity); what `freeze` will expose and what a read fills.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether the used length is zero.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Bytes the memory behind this buffer has.
    pub fn capacity(&self) -> usize {
        self.memory.capacity()
    }
    /// Sets the used length. Panics if it is above the capacity.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.memory.capacity(), "length {len} above capacity {}", self.memory.capacity());
        self.len = len;
    }
    /// The used part, to be written to.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let len = self.len;
        let memory = Rc::get_mut(&mut self.memory).expect("a BufMut is unique");
        &mut memory.as_mut_slice()[..len]
    }
    /// The used part, to be read.
    pub fn as_slice(&self) -> &[u8] {
        &self.memory.as_slice()[..self.len]
    }
}

impl fmt::Debug for BufMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufMut({}/{})", self.len, self.memory.capacity())
    }
}

/// A shared, read-only range of a frozen buffer. Cloning counts; it never copies.
#[derive(Clone)]
pub struct Bytes {
    memory: Rc<Memory>,
    start: u32,
    end: u32,
}

impl Bytes {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.memory.as_slice()[self.start as usize..self.end as usize]
    }
    /// Number of bytes.
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }
    /// A part of this range, sharing the memory. Panics if `range` is not inside `0..len`.
    pub fn slice(&self, range: Range<usize>) -> Bytes {
        assert!(range.start <= range.end && range.end <= self.len(), "slice {range:?} of {} bytes", self.len());
        Bytes { memory: Rc::clone(&self.memory), start: self.start + range.start as u32, end: self.start + range.end as u32 }
    }
    /// Memory that this handle keeps alive, in bytes (the whole buffer, not only the range).
    pub fn footprint(&self) -> usize {
        self.memory.capacity()
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({}..{})", self.start, self.end)
    }
}

struct Class {
    free: Vec<Rc<Memory>>,
    /// Taken since the last look of `tidy`, and how many free ones are kept for that.
    taken: usize,
    keep: usize,
    /// Frozen and handed out, oldest first; an entry whose only holder is this queue is free again. What is kept (blocks in the tail
    /// cache) and what is soon over (reads) stand apart: behind a full cache the buffers of reads would be found only by looking
    /// through all of it, and new memory would be taken instead, whose first touch ran at 0.35 to 1.3 GB/s.
    kept: VecDeque<Rc<Memory>>,
    passing: VecDeque<Rc<Memory>>,
}

impl Class {
    /// Looks at up to `tries` lent buffers of each kind, oldest first, for one that nobody else holds.
    fn reclaim(&mut self, tries: usize) -> Option<Rc<Memory>> {
        reclaim(&mut self.passing, tries).or_else(|| reclaim(&mut self.kept, tries))
    }
}

/// The owner of all buffers of one shard: fixed classes (powers of two from 4 KiB to 8 MiB), one budget.
pub struct Slab {
    classes: Vec<Class>,
    region: Region,
    budget_bytes: usize,
    allocated_bytes: usize,
    /// When `tidy` looks next at what is taken.
    next_look_us: u64,
}

impl Slab {
    /// A small slab. Panics where `try_new` refuses.
    pub fn new(budget_bytes: usize) -> Slab {
        Slab::try_new(budget_bytes).unwrap_or_else(|error| panic!("no address space for {budget_bytes} bytes: {error}"))
    }

    /// A slab that will never hold more than `budget_bytes` (whole pages, one at the least), made on the thread that uses it. An error says that
    /// the system grants no address space for that much.
    pub fn try_new(budget_bytes: usize) -> std::io::Result<Slab> {
        let classes = (0..CLASS_COUNT)
            .map(|_| Class { free: Vec::new(), taken: 0, keep: KEEP_MIN, kept: VecDeque::new(), passing: VecDeque::new() })
            .collect();
        let budget_bytes = budget_bytes.max(PAGE_BYTES);
        Ok(Slab { classes, region: Region::new(budget_bytes)?, budget_bytes, allocated_bytes: 0, next_look_us: 0 })
    }

    /// A buffer of used length `len` whose capacity is the next power of two, or `None` when the budget is spent
    /// (which is back-pressure, not an error). Panics if `len` is above `BUFFER_BYTES_MAX`.
    pub fn take(&mut self, len: usize) -> Option<BufMut> {
        assert!(len <= BUFFER_BYTES_MAX, "a buffer of {len} bytes is above {BUFFER_BYTES_MAX}");
        let index = class_of(len);
        let capacity = PAGE_BYTES << index;
        let class = &mut self.classes[index];
        class.taken += 1;
        let fits = self.allocated_bytes + capacity <= self.budget_bytes;
        let mut found = class.free.pop().or_else(|| class.reclaim(16));
        if found.is_none() && fits {
            found = self.take_new(index);
        }
        // At a full budget, or where no such piece is free: the oldest are held for long (a slow reader), so the whole list is looked through.
        let memory = match found.or_else(|| self.classes[index].reclaim(usize::MAX)) {
            Some(memory) => memory,
            None if !fits && self.make_room(capacity, index) => self.take_new(index)?,
            None => return None,
        };
        assert_eq!(Rc::strong_count(&memory), 1, "a free buffer has one holder");
        Some(BufMut { memory, len })
    }

    /// Gives an unused buffer back.
    pub fn give_back(&mut self, buffer: BufMut) {
        let index = class_of(buffer.memory.capacity());
        self.classes[index].free.push(buffer.memory);
    }

    /// Turns a buffer into shared bytes `0..len`.
    pub fn freeze(&mut self, buffer: BufMut) -> Bytes {
        let index = class_of(buffer.memory.capacity());
        self.classes[index].kept.push_back(Rc::clone(&buffer.memory));
        Bytes { memory: buffer.memory, start: 0, end: buffer.len as u32 }
    }

    /// The same for bytes that are soon let go again: what was read for somebody.
    pub fn freeze_passing(&mut self, buffer: BufMut) -> Bytes {
        let index = class_of(buffer.memory.capacity());
        self.classes[index].passing.push_back(Rc::clone(&buffer.memory));
        Bytes { memory: buffer.memory, start: 0, end: buffer.len as u32 }
    }

    /// Memory held by this slab, in bytes, in use or not.
    pub fn allocated_bytes(&self) -> usize {
        self.allocated_bytes
    }

    /// Memory now held by someone else than the slab, in bytes (counted by walking: for metrics, not for every record).
    pub fn lent_bytes(&self) -> usize {
        let of = |c: &Class| c.kept.iter().chain(&c.passing).filter(|m| Rc::strong_count(m) > 1).map(|m| m.capacity()).sum::<usize>();
        self.classes.iter().map(of).sum()
    }

    /// The budget, in bytes.
    pub fn budget_bytes(&self) -> usize {
        self.budget_bytes
    }

    fn take_new(&mut self, index: usize) -> Option<Rc<Memory>> {
        let memory = self.region.take(index)?;
        self.allocated_bytes += memory.capacity();
        Some(Rc::new(memory))
    }

    /// Frees idle buffers of other classes until `wanted` more bytes fit. Rare: only when the mix of sizes shifts at a full budget.
    fn make_room(&mut self, wanted: usize, keep: usize) -> bool {
        for index in (0..CLASS_COUNT).rev().filter(|i| *i != keep) {
            let class = &mut self.classes[index];
            while self.allocated_bytes + wanted > self.budget_bytes {
                let Some(memory) = class.free.pop().or_else(|| class.reclaim(usize::MAX)) else { break };
                self.allocated_bytes -= memory.capacity();
                self.region.give_back(Rc::into_inner(memory).expect("a free buffer has one holder"));
            }
            if self.allocated_bytes + wanted <= self.budget_bytes {
                return true;
            }
        }
        false
    }

    /// Gives memory back that one size of buffers had and does not need any more, so that others find it whole: after a load of small blocks, large ones
    /// would go without, or break up huge pages. To be called in each turn of background work; does little in each.
    pub fn tidy(&mut self, now_us: u64) {
        if now_us >= self.next_look_us {
            self.next_look_us = now_us + LOOK_US;
            for class in &mut self.classes {
                class.keep = (2 * std::mem::take(&mut class.taken)).max(class.keep / 4 * 3).max(KEEP_MIN);
            }
            self.region.make_up_for_away();
        }
        let mut left = TIDY_BUFFERS;
        for class in &mut self.classes {
            while left > 0 && class.free.len() <= class.keep + TIDY_BUFFERS {
                let Some(memory) = pop_idle(&mut class.passing).or_else(|| pop_idle(&mut class.kept)) else { break };
                class.free.push(memory);
                left -= 1;
            }
            while left > 0 && class.free.len() > class.keep {
                let Some(memory) = class.free.pop() else { break };
                self.allocated_bytes -= memory.capacity();
                self.region.give_back(Rc::into_inner(memory).expect("a free buffer has one holder"));
                left -= 1;
            }
        }
    }

    /// What brings this slab's memory in ahead of its use, on whichever thread.
    pub fn warmer(&self) -> Warmer {
        self.region.warmer(self.budget_bytes)
    }
}

/// Takes the oldest lent buffer when nobody else holds it.
fn pop_idle(lent: &mut VecDeque<Rc<Memory>>) -> Option<Rc<Memory>> {
    let is_idle = lent.front().is_some_and(|memory| Rc::strong_count(memory) == 1);
    if is_idle { lent.pop_front() } else { None }
}

/// Looks at up to `tries` lent buffers, oldest first, for one that nobody else holds. The others keep their order.
fn reclaim(lent: &mut VecDeque<Rc<Memory>>, tries: usize) -> Option<Rc<Memory>> {
    let at = lent.iter().take(tries).position(|memory| Rc::strong_count(memory) == 1)?;
    lent.remove(at)
}

fn class_of(len: usize) -> usize {
    let pages = len.max(1).div_ceil(PAGE_BYTES);
    pages.next_power_of_two().trailing_zeros() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_come_back_without_allocation() {
        let mut slab = Slab::new(1 << 20);
        let mut buffer = slab.take(5000).unwrap();
        assert_eq!(buffer.capacity(), 8192);
        assert_eq!(buffer.as_slice().as_ptr() as usize % PAGE_BYTES, 0);
        buffer.as_mut_slice()[4999] = 7;
        let bytes = slab.freeze(buffer);
        let part = bytes.slice(4990..5000);
        drop(bytes);
        assert_eq!(part.as_slice()[9], 7);
        let other = slab.take(8192).unwrap();
        assert_eq!(slab.allocated_bytes(), 16384, "the first is still held through its slice");
        drop(part);
        slab.give_back(other);
        let _a = slab.take(8000).unwrap();
        let _b = slab.take(8000).unwrap();
        assert_eq!(slab.allocated_bytes(), 16384);
    }

    #[test]
    fn a_read_gets_its_buffer_back_behind_a_full_cache() {
        let mut slab = Slab::new(1 << 20);
        let mut cache = Vec::new();
        for _ in 0..100 {
            let buffer = slab.take(1).unwrap();
            cache.push(slab.freeze(buffer));
        }
        for _ in 0..100 {
            let buffer = slab.take(1).unwrap();
            drop(slab.freeze_passing(buffer));
        }
        assert_eq!(slab.allocated_bytes(), 101 * PAGE_BYTES, "no new memory for each read");
        drop(cache);
    }

    #[test]
    fn small_buffers_that_are_held_in_bad_places_keep_no_large_one_away() {
        let mut slab = Slab::new(4 * PAGE_BYTES);
        let taken: Vec<_> = (0..4).map(|_| slab.take(1).unwrap()).collect();
        let mut pages: Vec<_> = taken.into_iter().map(|page| slab.freeze(page)).collect();
        pages.remove(2);
        pages.remove(0);
        assert!(slab.take(2 * PAGE_BYTES).is_some(), "two pages are idle, wherever they lie");
        assert_eq!(slab.allocated_bytes(), 4 * PAGE_BYTES);
    }

    #[test]
    fn what_one_size_does_not_need_any_more_is_had_by_others_in_one_piece() {
        let mut slab = Slab::new(16 << 20);
        let small: Vec<_> = (0..3000).map(|_| slab.take(1).unwrap()).collect();
        let frozen: Vec<_> = small.into_iter().map(|buffer| slab.freeze(buffer)).collect();
        drop(frozen);
        assert_eq!(slab.allocated_bytes(), 3000 * PAGE_BYTES);
        for turn in 0..6000 {
            slab.tidy(turn * 1000);
        }
        assert_eq!(slab.allocated_bytes(), KEEP_MIN * PAGE_BYTES, "what was not asked for in seconds goes");
        // A class in use keeps what it needs.
        for turn in 0..6000 {
            let buffer = slab.take(PAGE_BYTES * 2).unwrap();
            slab.give_back(buffer);
            slab.tidy(10_000_000 + turn * 1000);
        }
        assert_eq!(slab.allocated_bytes(), KEEP_MIN * PAGE_BYTES + 2 * PAGE_BYTES);
    }

    #[test]
    fn the_budget_holds_and_shifts_between_classes() {
        let mut slab = Slab::new(4 * PAGE_BYTES);
        let small: Vec<_> = (0..4).map(|_| slab.take(1).unwrap()).collect();
        assert!(slab.take(1).is_none());
        for buffer in small {
            slab.give_back(buffer);
        }
        assert!(slab.take(4 * PAGE_BYTES).is_some());
        assert_eq!(slab.allocated_bytes(), 4 * PAGE_BYTES);
    }
}
