//! Reading /sys, /proc and /etc below a root: the machine's own, or a copy of these trees.
//!
//! Invariants: nothing is written; what is not there or cannot be read is `None`, whatever the cause; links are followed inside the root only.

use std::fs;
use std::path::{Path, PathBuf};

/// The trees of one machine. Paths are given without the leading `/`.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    is_copy: bool,
}

/// No file that is looked at is longer; a copy may hold anything.
const TEXT_BYTES_MAX: usize = 4 << 20;

impl Tree {
    pub(super) fn new(root: &Path) -> Tree {
        let root = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
        Tree { is_copy: root != Path::new("/"), root }
    }

    /// Whether this is another root than the machine's: then the machine itself tells nothing about it.
    pub(super) fn is_copy(&self) -> bool {
        self.is_copy
    }

    /// A file's text without blanks at its ends.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        let bytes = fs::read(self.root.join(path)).ok().filter(|bytes| bytes.len() <= TEXT_BYTES_MAX)?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// A file that holds one number.
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// Names in a folder, in order; none where there is no such folder.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Where a path leads once its links are followed.
    pub(super) fn resolve(&self, path: &str) -> Option<String> {
        let there = fs::canonicalize(self.root.join(path)).ok()?;
        Some(there.strip_prefix(&self.root).ok()?.to_string_lossy().into_owned())
    }
}
