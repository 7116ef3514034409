//! One allocation far above what any input needs is a declared length that was believed. (The sanitizer has such a bound; it is left out here,
//! where nothing but the core's one room of mapped memory is unsafe, for it makes a start several times slower.)

use std::alloc::{GlobalAlloc, Layout, System};

/// Largest allocation, in bytes.
const LARGEST: usize = 64 << 20;

/// The system's, with a bound.
pub struct Bounded;

// SAFETY: everything is handed on to the system's allocator; a refused allocation ends the process.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        bound(layout.size());
        // SAFETY: as our caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        bound(layout.size());
        // SAFETY: as our caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as our caller promises.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        bound(size);
        // SAFETY: as our caller promises.
        unsafe { System.realloc(at, layout, size) }
    }
}

fn bound(size: usize) {
    if size > LARGEST {
        // A panic would allocate; the fuzzer keeps the input of an abort as well.
        eprintln!("one allocation of {size} bytes");
        std::process::abort();
    }
}

#[global_allocator]
static BOUNDED: Bounded = Bounded;
