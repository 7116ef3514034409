//! Which pages of a region are free: blocks of a power of two of pages, split when a smaller one is wanted, joined when both halves are
//! back (Knuth, The Art of Computer Programming, volume 1, 2.5).
//!
//! Invariants: a page is in at most one block that was handed out; a block starts at a multiple of its own size. The smallest block
//! that does is taken, of those the lowest, so the pages that were ever used lie close together at the front.
//!
//! Not here: memory (`region.rs`). Not on the path of a record: a slab keeps what it was given and asks again only when its needs change.

use std::collections::BTreeSet;

/// Blocks are of `1 << order` pages, order below this.
pub(super) const ORDERS: usize = 12;

#[derive(Debug)]
pub(super) struct Buddy {
    /// First pages of the free blocks, by order.
    free: [BTreeSet<u32>; ORDERS],
    pages: u32,
}

impl Buddy {
    /// `pages` free pages, cut into the largest blocks that fit.
    pub(super) fn new(pages: u32) -> Buddy {
        let mut buddy = Buddy { free: Default::default(), pages };
        let mut at = 0;
        while at < pages {
            let order = (0..ORDERS).rev().find(|o| at.is_multiple_of(1 << o) && at + (1 << o) <= pages).expect("one page always fits");
            buddy.free[order].insert(at);
            at += 1 << order;
        }
        buddy
    }

    /// The first page of a block, or `None` when no free block is large enough.
    pub(super) fn take(&mut self, order: usize) -> Option<u32> {
        let found = (order..ORDERS).find(|o| !self.free[*o].is_empty())?;
        let at = self.free[found].pop_first()?;
        for half in (order..found).rev() {
            self.free[half].insert(at + (1 << half));
        }
        Some(at)
    }

    /// The free blocks, as first page and order, the largest first.
    pub(super) fn free_blocks(&self) -> impl Iterator<Item = (u32, usize)> + '_ {
        self.free.iter().enumerate().rev().flat_map(|(order, at)| at.iter().map(move |at| (*at, order)))
    }

    /// Takes a block back. Panics when it cannot have been handed out.
    pub(super) fn give_back(&mut self, at: u32, order: usize) {
        assert!(at.is_multiple_of(1 << order) && at + (1 << order) <= self.pages, "no block of order {order} starts at page {at}");
        let (mut at, mut order) = (at, order);
        while order + 1 < ORDERS && self.free[order].remove(&(at ^ (1 << order))) {
            at &= !(1 << order);
            order += 1;
        }
        assert!(self.free[order].insert(at), "page {at} is free already");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free_pages(buddy: &Buddy) -> usize {
        buddy.free.iter().enumerate().map(|(order, set)| set.len() << order).sum()
    }

    /// A naive model: one mark per page.
    #[test]
    fn no_page_is_handed_out_twice_and_all_come_back() {
        for (seed, pages) in [(1u64, 1u32), (2, 7), (3, 2048), (4, 5000), (5, 12_288)] {
            let mut state = seed;
            let mut dice = |below: usize| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as usize % below
            };
            let mut buddy = Buddy::new(pages);
            assert_eq!(free_pages(&buddy), pages as usize);
            let mut used = vec![false; pages as usize];
            let mut held: Vec<(u32, usize)> = Vec::new();
            for _ in 0..5000 {
                if dice(2) == 0 {
                    let order = dice(ORDERS);
                    let Some(at) = buddy.take(order) else { continue };
                    assert!(at.is_multiple_of(1 << order));
                    for page in at..at + (1 << order) {
                        assert!(!std::mem::replace(&mut used[page as usize], true), "seed {seed}: page {page} twice");
                    }
                    held.push((at, order));
                } else if !held.is_empty() {
                    let (at, order) = held.swap_remove(dice(held.len()));
                    (at..at + (1 << order)).for_each(|page| used[page as usize] = false);
                    buddy.give_back(at, order);
                }
                assert_eq!(free_pages(&buddy), used.iter().filter(|u| !**u).count(), "seed {seed}");
            }
            held.drain(..).for_each(|(at, order)| buddy.give_back(at, order));
            let fresh = Buddy::new(pages);
            assert_eq!(buddy.free, fresh.free, "seed {seed}: all halves were joined again");
        }
    }

    #[test]
    #[should_panic(expected = "is free already")]
    fn a_block_comes_back_once() {
        let mut buddy = Buddy::new(8);
        let at = buddy.take(0).unwrap();
        let _other = buddy.take(0).unwrap();
        buddy.give_back(at, 0);
        buddy.give_back(at, 0);
    }
}
