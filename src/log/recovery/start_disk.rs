//! The disk as recovery sees it: synchronous, used only before a shard's loop begins.
//!
//! Not here: an implementation (`runtime/` has the real one, tests a simulated one).

use crate::ids::FileId;
use std::fmt;

/// A refused disk operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskError {
    /// What was tried ("open", "read", ...).
    pub op: &'static str,
    /// The file.
    pub name: String,
    /// Positive error number; 0 for an unexpected end of the file.
    pub errno: i32,
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let advice = match self.errno {
            0 => "the file is shorter than it must be",
            1 | 13 => "give the user that runs the node read and write permission on the data directory",
            5 => "the disk reports an I/O error: look at the kernel's log and replace the disk if it says so",
            22 => "the file system refuses direct I/O: use ext4 or xfs",
            23 | 24 => "raise the limit of open files (ulimit -n)",
            28 | 122 => "make room on the disk, then start again",
            30 => "the file system is mounted read-only",
            _ => "see the error number",
        };
        write!(f, "{} of {} failed with error {}: {advice}", self.op, self.name, self.errno)
    }
}

impl std::error::Error for DiskError {}

/// Files of one shard's directory. `FileId`s are the log's choice and stay attached to the opened file: the edge hands the files that
/// are still open after recovery to its ring under the same ids.
pub trait StartDisk {
    /// Names in the directory, in any order.
    fn list(&mut self) -> Result<Vec<String>, DiskError>;
    /// Opens a file for direct, synchronous reading and writing as `file`; returns its length in bytes.
    fn open(&mut self, name: &str, file: FileId) -> Result<u64, DiskError>;
    /// Creates a file that must not exist, allocates `len` bytes for it and opens it as `file`.
    fn create(&mut self, name: &str, file: FileId, len: u64) -> Result<(), DiskError>;
    /// Closes a file.
    fn close(&mut self, file: FileId) -> Result<(), DiskError>;
    /// Fills `buf` (page-aligned, length and `pos` multiples of 4096 inside the file).
    fn read_at(&mut self, file: FileId, pos: u64, buf: &mut [u8]) -> Result<(), DiskError>;
    /// Writes all of `data` (page-aligned, length and `pos` multiples of 4096); durable on return.
    fn write_at(&mut self, file: FileId, pos: u64, data: &[u8]) -> Result<(), DiskError>;
    /// Makes durable whatever a former process wrote into the file.
    fn sync(&mut self, file: FileId) -> Result<(), DiskError>;
    /// Renames, replacing the target.
    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError>;
    /// Removes a name.
    fn remove(&mut self, name: &str) -> Result<(), DiskError>;
    /// Makes creations, renames and removals durable.
    fn sync_dir(&mut self) -> Result<(), DiskError>;
}
