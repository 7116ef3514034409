//! An allocator that counts what is allocated: what a piece says of its own memory need not be true.
//!
//! Two counts: what was asked for, and what the system's allocator (glibc's) takes for it, which has 8 bytes of its own in front of each piece and gives
//! multiples of 16, 32 at least.

#![allow(unsafe_code)] // a global allocator is an unsafe trait

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

struct Counting;

static ASKED: AtomicU64 = AtomicU64::new(0);
static TAKEN: AtomicU64 = AtomicU64::new(0);

fn taken(size: usize) -> u64 {
    ((size as u64 + 8).next_multiple_of(16)).max(32)
}

fn come(size: usize) {
    ASKED.fetch_add(size as u64, Ordering::Relaxed);
    TAKEN.fetch_add(taken(size), Ordering::Relaxed);
}

fn go(size: usize) {
    ASKED.fetch_sub(size as u64, Ordering::Relaxed);
    TAKEN.fetch_sub(taken(size), Ordering::Relaxed);
}

// SAFETY: everything is passed to the system's allocator unchanged; counting touches only atomics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        come(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        go(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        go(layout.size());
        come(size);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that are allocated now.
#[derive(Clone, Copy, Debug)]
pub struct Allocated {
    /// As asked for.
    pub asked: u64,
    /// With what the allocator adds.
    pub taken: u64,
}

impl Allocated {
    /// In the whole process.
    pub fn now() -> Allocated {
        Allocated { asked: ASKED.load(Ordering::Relaxed), taken: TAKEN.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_and_forgotten() {
        // The counts are the process's: what other tests allocate and free meanwhile is far less than the margin. Never touched, the gigabyte takes no memory.
        const BYTES: u64 = 1 << 30;
        const MARGIN: u64 = 256 << 20;
        let before = Allocated::now();
        let bytes = std::hint::black_box(Vec::<u8>::with_capacity(BYTES as usize));
        let with = Allocated::now();
        drop(bytes);
        let after = Allocated::now();
        for (before, with, after) in [(before.asked, with.asked, after.asked), (before.taken, with.taken, after.taken)] {
            assert!(with.abs_diff(before + BYTES) < MARGIN && after.abs_diff(before) < MARGIN, "{before} {with} {after}");
        }
        assert_eq!([1, 24, 25, 40, 41].map(taken), [32, 32, 48, 48, 64]);
    }
}
