//! What the fuzz targets share: directories that a simulated run of the real node has left, a disk over copies of them, edits out of the
//! fuzzer's bytes, a start over what came out, and what has to hold of it.
//!
//! Not here: the targets (fuzz_targets/), which choose where edits go.

pub mod allocator;
pub mod base;
pub mod blocks;
pub mod checks;
pub mod disk;
pub mod edits;
pub mod input;
pub mod node;

pub use base::{Base, bases};
pub use disk::MemDisk;
pub use input::Input;
