//! The memory behind a slab's buffers: one mapping, in huge pages where the kernel has them.
//!
//! Why not the allocator's memory: a direct read or write of 1 MiB names 256 scattered pages there, half of one page of 2 MiB here. On the
//! same day and machine, the broker with its allocator's huge pages off and on: cold fetch 1.3 and 1.6 to 2.4 GB/s (the raw chain: 3.3). A transparent huge page needs 2 MiB of aligned, advised address space, which an
//! allocator does not promise, so this room asks the kernel itself.
//!
//! Invariants: a `Memory` is the only one of its bytes, from `take` to `give_back` (the buddy hands no page out twice); the mapping
//! lives as long as any `Memory` of it. Address space is reserved at once, and four times what may be used: blocks are powers of two at
//! multiples of their size, so a few small ones that are held in bad places would keep large ones from being had although the budget
//! has room. Pages come at first touch, or before it through a `Warmer`: first touches ran at 0.35 to 1.3 GB/s on a virtual machine whose
//! host takes idle pages away, and while a slab grew that way the broker wrote 0.3 to 1.9 GB/s instead of 3.6.
//!
//! Pages once there stay, for giving back a part of a huge page breaks it up: after many blocks of 4 KiB had been given back for some of 1 MiB, the
//! broker wrote 1.0 to 1.8 GB/s instead of 3.3, and stayed at it. The first `len` bytes are home; whoever has to go beyond them (few small
//! blocks in bad places) makes as much of the free home go back to the system, and away from home nothing stays once it is free. So no more than `len`
//! bytes are held, as long as that much is free in whole huge pages, and never more than an eighth above it; a huge page that comes in for a
//! small block beyond home is there whole (seen: 0.134 above it for a moment).
//!
//! Not here: sharing and counting (`bytes.rs`), which pages are free (`buddy.rs`).

// The one place outside `ring/` and it: see the measurement above. Each block says why it holds; the tests of this file and of `bytes.rs`
// run under valgrind by `scripts/memcheck.sh`.
#![allow(unsafe_code)]

use super::PAGE_BYTES;
use super::buddy::Buddy;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

/// Size and alignment of a huge page on the machines this runs on.
const HUGE_BYTES: usize = 2 << 20;
/// Order of a block of that size.
const HUGE_ORDER: usize = (HUGE_BYTES / PAGE_BYTES).trailing_zeros() as usize;
/// Address space to memory; less where the system counts address space (vm.overcommit_memory=2, `ulimit -v`, `ulimit -d`).
const SPREADS: [usize; 3] = [4, 2, 1];

/// An anonymous mapping.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    mapped_bytes: usize,
    /// First byte used, at a multiple of `HUGE_BYTES`.
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is an address range that belongs to the process, not to a thread; its bytes are reached only through `Memory`,
// which hands out references by the usual rules.
unsafe impl Send for Mapping {}
// SAFETY: as above; nothing of it changes.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(len: usize) -> io::Result<Mapping> {
        let mapped_bytes = len + HUGE_BYTES;
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), mapped_bytes, access, kind, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast::<u8>()).expect("a mapping is not at address 0");
        let skip = base.as_ptr().align_offset(HUGE_BYTES);
        // SAFETY: `skip` is below HUGE_BYTES, so start and `len` bytes behind it are inside the mapping.
        let start = unsafe { base.add(skip) };
        // SAFETY: the range was just mapped by us. A refusal (no huge pages in this kernel) means ordinary pages, which work as well.
        unsafe { libc::madvise(start.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        prefer_this_node(start, len);
        Ok(Mapping { base, mapped_bytes, start, len })
    }
}

/// Asks for memory near the core that runs this, whichever thread touches it first: the warmer may run elsewhere. A kernel without NUMA refuses, and
/// has nothing to choose.
fn prefer_this_node(start: NonNull<u8>, len: usize) {
    const MPOL_PREFERRED: usize = 1;
    let (mut cpu, mut node) = (0u32, 0u32);
    let nowhere = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: two valid places for the answer; the third argument is unused since Linux 2.6.24.
    let told = unsafe { libc::syscall(libc::SYS_getcpu, &raw mut cpu, &raw mut node, nowhere) };
    if told != 0 || node >= 64 {
        return;
    }
    let mask = 1u64 << node;
    // SAFETY: the range is a mapping of ours, the mask has the 64 bits that are named (the kernel reads one bit less than it is told).
    unsafe { libc::syscall(libc::SYS_mbind, start.as_ptr(), len, MPOL_PREFERRED, &raw const mask, 65usize, 0usize) };
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length; every `Memory` holds the mapping, so none is left.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.mapped_bytes) };
    }
}

/// Pages that one owner has. Zero at their first use, later whatever the last user left.
#[derive(Debug)]
pub(super) struct Memory {
    mapping: Arc<Mapping>,
    first_page: u32,
    order: usize,
}

impl Memory {
    pub(super) fn capacity(&self) -> usize {
        PAGE_BYTES << self.order
    }

    fn at(&self) -> *mut u8 {
        // SAFETY: the buddy hands out pages of the region only, so the offset is inside the mapping.
        unsafe { self.mapping.start.as_ptr().add(self.first_page as usize * PAGE_BYTES) }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        // SAFETY: mapped, readable, initialised by the kernel (zero), alive as long as `self`; written only through `&mut self`, and no
        // other `Memory` has these pages.
        unsafe { std::slice::from_raw_parts(self.at(), self.capacity()) }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `&mut self` makes it the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.at(), self.capacity()) }
    }
}

/// The pages of one slab.
#[derive(Debug)]
pub(super) struct Region {
    mapping: Arc<Mapping>,
    buddy: Buddy,
    /// Pages of home: the first ones.
    home_pages: u32,
    /// By page of home: the system has it, and nobody has taken it since.
    absent: Vec<bool>,
    absent_pages: usize,
    /// Pages beyond home that somebody has.
    away_pages: usize,
}

impl Region {
    /// Reserves address space from which `len` bytes (whole pages) are to be used at the same time. To be called on the thread that will use
    /// them. An error says that the system counts address space, and grants less.
    pub(super) fn new(len: usize) -> io::Result<Region> {
        let mut refused = None;
        for spread in SPREADS {
            let pages = u32::try_from(len / PAGE_BYTES * spread).map_err(|_| io::Error::other("more than 4 TiB of buffers"))?;
            match Mapping::new(pages as usize * PAGE_BYTES) {
                Ok(mapping) => {
                    let home_pages = pages / spread as u32;
                    let absent = vec![false; home_pages as usize];
                    let (mapping, buddy) = (Arc::new(mapping), Buddy::new(pages));
                    return Ok(Region { mapping, buddy, home_pages, absent, absent_pages: 0, away_pages: 0 });
                }
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or_else(|| unreachable!("there are spreads")))
    }

    /// Memory of `PAGE_BYTES << order` bytes, or `None` when there is no free block of that size.
    pub(super) fn take(&mut self, order: usize) -> Option<Memory> {
        let first_page = self.buddy.take(order)?;
        if first_page < self.home_pages {
            self.set_absent(first_page, order, false);
        } else {
            self.away_pages += 1 << order;
            self.make_up_for_away();
        }
        Some(Memory { mapping: Arc::clone(&self.mapping), first_page, order })
    }

    /// Takes memory back.
    pub(super) fn give_back(&mut self, memory: Memory) {
        assert!(Arc::ptr_eq(&memory.mapping, &self.mapping), "memory of another region");
        let (first_page, order) = (memory.first_page, memory.order);
        drop(memory);
        if first_page >= self.home_pages {
            self.give_to_system(first_page, order);
            self.away_pages -= 1 << order;
        }
        self.buddy.give_back(first_page, order);
    }

    /// Gives free pages of home to the system until they are as many as those in use away from home: whole huge pages, and parts of them only
    /// where the difference would pass an eighth of home.
    pub(super) fn make_up_for_away(&mut self) {
        while self.absent_pages < self.away_pages {
            let smallest = if self.absent_pages + self.home_pages as usize / 8 < self.away_pages { 0 } else { HUGE_ORDER };
            let is_present = |(at, order): &(u32, usize)| {
                *at < self.home_pages && !self.absent[*at as usize..].iter().take(1 << order).all(|absent| *absent)
            };
            let found = self.buddy.free_blocks().take_while(|(_, order)| *order >= smallest).find(is_present);
            let Some((at, order)) = found else { return };
            self.give_to_system(at, order);
            self.set_absent(at, order, true);
        }
    }

    fn set_absent(&mut self, first_page: u32, order: usize, absent: bool) {
        if !absent && self.absent_pages == 0 {
            // As long as nobody had to go beyond home: 256 pages of a block of 1 MiB would be looked at to no end.
            return;
        }
        for page in self.absent[first_page as usize..].iter_mut().take(1 << order) {
            if std::mem::replace(page, absent) != absent {
                self.absent_pages = if absent { self.absent_pages + 1 } else { self.absent_pages - 1 };
            }
        }
    }

    fn give_to_system(&self, first_page: u32, order: usize) {
        // SAFETY: a block that the buddy has, or is about to have again, so nobody has a reference into it; inside the mapping.
        let at = unsafe { self.mapping.start.as_ptr().add(first_page as usize * PAGE_BYTES) };
        // SAFETY: as above. Whoever gets the pages next finds zeros, as at first. An error leaves them where they are, which only costs memory.
        unsafe { libc::madvise(at.cast(), PAGE_BYTES << order, libc::MADV_DONTNEED) };
    }

    /// A warmer of at most `bytes_max` bytes.
    pub(super) fn warmer(&self, bytes_max: usize) -> Warmer {
        Warmer { mapping: Arc::clone(&self.mapping), warm_bytes: 0, bytes_max }
    }
}

/// Gives pages to a region ahead of their use: from another thread, or before anybody is served.
#[derive(Debug)]
pub struct Warmer {
    mapping: Arc<Mapping>,
    /// Pages below this were brought in.
    warm_bytes: usize,
    bytes_max: usize,
}

impl Warmer {
    /// Brings in the next huge page, lowest first, as the buddy hands them out. Blocks meanwhile, milliseconds at that rate: not for the thread of a shard that serves. Answers
    /// whether there is more to do; after an error the rest is left to the first touch.
    pub fn warm(&mut self) -> io::Result<bool> {
        let step = HUGE_BYTES.min(self.mapping.len - self.warm_bytes);
        if self.warm_bytes < self.bytes_max {
            // SAFETY: inside the mapping, which `self` holds. It makes pages present and changes no contents (madvise(2)), so it may
            // run beside whoever uses them.
            let done = unsafe { libc::madvise(self.mapping.start.as_ptr().add(self.warm_bytes).cast(), step, libc::MADV_POPULATE_WRITE) };
            if done != 0 {
                return Err(io::Error::last_os_error());
            }
            self.warm_bytes += step;
        }
        Ok(self.warm_bytes < self.bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_zero_at_first_and_nobody_elses() {
        let mut region = Region::new(4 << 20).unwrap();
        let mut a = region.take(0).unwrap();
        let mut b = region.take(3).unwrap();
        assert_eq!((a.as_slice().len(), b.as_slice().len()), (PAGE_BYTES, 8 * PAGE_BYTES));
        assert_eq!(b.as_slice().as_ptr() as usize % (8 * PAGE_BYTES), 0, "a block starts at a multiple of its size");
        assert!(a.as_slice().iter().chain(b.as_slice()).all(|byte| *byte == 0));
        a.as_mut_slice().fill(1);
        b.as_mut_slice().fill(2);
        assert!(a.as_slice().iter().all(|byte| *byte == 1));
        let kept = b;
        region.give_back(a);
        drop(region);
        assert!(kept.as_slice().iter().all(|byte| *byte == 2), "memory outlives its region");
    }

    #[test]
    fn home_stays_and_large_blocks_can_be_had_beside_small_ones() {
        let mut region = Region::new(16 << 20).unwrap();
        let mut memory = region.take(2).unwrap();
        memory.as_mut_slice().fill(9);
        let at = memory.as_slice().as_ptr();
        region.give_back(memory);
        let again = region.take(2).unwrap();
        assert_eq!(again.as_slice().as_ptr(), at);
        assert!(again.as_slice().iter().all(|byte| *byte == 9), "the pages stayed: no huge page was broken up");
        region.give_back(again);
        // One page in each block of 8 MiB of home: the next such block lies beyond, and home's free pages go instead.
        let mut pages: Vec<Memory> = (0..4096).map(|_| region.take(0).unwrap()).collect();
        pages.iter_mut().for_each(|page| page.as_mut_slice().fill(7));
        let (kept, back): (Vec<_>, Vec<_>) = pages.into_iter().partition(|page| page.first_page.is_multiple_of(2048));
        back.into_iter().for_each(|page| region.give_back(page));
        assert_eq!(kept.len(), 2);
        let mut large = region.take(11).unwrap();
        large.as_mut_slice().fill(8);
        assert!(region.away_pages == 2048 && (2048 - 512..=4094).contains(&region.absent_pages), "all but an eighth: {region:?}");
        assert!(kept.iter().all(|page| page.as_slice().iter().all(|byte| *byte == 7)));
        let half = region.take(10).unwrap();
        assert!(half.first_page < region.home_pages);
        region.give_back(large);
        region.give_back(half);
        assert_eq!(region.away_pages, 0);
        assert!(region.take(11).unwrap().as_slice().iter().all(|byte| *byte == 0), "what was away went back to the system");
    }

    #[test]
    fn warming_leaves_contents_alone_and_ends_at_its_limit() {
        let mut region = Region::new(40 << 20).unwrap();
        let mut memory = region.take(0).unwrap();
        memory.as_mut_slice()[0] = 7;
        let mut warmer = region.warmer(40 << 20);
        let steps = (0..).find(|_| !warmer.warm().unwrap()).unwrap();
        assert_eq!((steps, warmer.warm_bytes), (19, 40 << 20), "twenty pages");
        assert_eq!(memory.as_slice()[0], 7);
        assert!(!warmer.warm().unwrap());
        assert_eq!(warmer.warm_bytes, 40 << 20);
    }
}
