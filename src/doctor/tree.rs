//! Reading /sys, /proc and /etc below a root: the machine's own, or a copy of these trees.
//!
//! Invariants: nothing is written; what is not there, cannot be read or is no plain file is `None`, whatever the cause; below a copy's root a link is
//! followed inside the root only: what leaves it is as if it were not there, or another machine's value would be told as the copy's; no open waits.

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The trees of one machine. Paths are given without the leading `/`.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    is_copy: bool,
}

/// No file that is looked at is longer; a copy may hold anything.
const TEXT_BYTES_MAX: u64 = 4 << 20;

impl Tree {
    /// Refuses a root that is no directory: everything below it would be unknown, which looks like a machine that says nothing.
    pub(super) fn open(root: &Path) -> Result<Tree, String> {
        let refused = |why: String| {
            format!("--root {} cannot be looked at: {why}; name a directory that holds copies of /sys, /proc and /etc", root.display())
        };
        let found = fs::canonicalize(root).map_err(|error| refused(error.to_string()))?;
        if !found.is_dir() {
            return Err(refused("it is no directory".to_owned()));
        }
        fs::read_dir(&found).map_err(|error| refused(error.to_string()))?;
        Ok(Tree { is_copy: found != Path::new("/"), root: found })
    }

    /// Whether this is another root than the machine's: then the machine itself tells nothing about it.
    pub(super) fn is_copy(&self) -> bool {
        self.is_copy
    }

    /// A file's text without blanks at its ends.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        read_plain(&self.inside(path)?)
    }

    /// A file that holds one number.
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.inside(path).is_some_and(|there| there.exists())
    }

    /// Names in a folder, in order; none where there is no such folder.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let entries = self.inside(path).and_then(|there| fs::read_dir(there).ok()).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Where a path leads once its links are followed.
    pub(super) fn resolve(&self, path: &str) -> Option<String> {
        let there = fs::canonicalize(self.root.join(path)).ok()?;
        Some(there.strip_prefix(&self.root).ok()?.to_string_lossy().into_owned())
    }

    /// The path to open. Nothing leaves the machine's own root; of a copy each path is followed to its end first.
    fn inside(&self, path: &str) -> Option<PathBuf> {
        let path = self.root.join(path);
        if !self.is_copy {
            return Some(path);
        }
        fs::canonicalize(path).ok().filter(|there| there.starts_with(&self.root))
    }
}

/// The text of a plain file without blanks at its ends. A pipe would be waited for until somebody writes to it, so nothing else is read.
pub(super) fn read_plain(path: &Path) -> Option<String> {
    // Without NONBLOCK opening a pipe waits already; of a plain file it changes nothing.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= TEXT_BYTES_MAX).then(|| String::from_utf8_lossy(&bytes).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_a_link_shows_outside_of_a_copy_is_not_the_copys() {
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir(outside.path().join("vm")).unwrap();
        fs::write(outside.path().join("vm/swappiness"), "60\n").unwrap();
        let copy = tempfile::tempdir().unwrap();
        fs::create_dir_all(copy.path().join("proc/sys/kernel")).unwrap();
        fs::write(copy.path().join("proc/sys/kernel/osrelease"), " 6.18.0\n").unwrap();
        symlink(outside.path().join("vm"), copy.path().join("proc/sys/vm")).unwrap();
        symlink(outside.path().join("vm/swappiness"), copy.path().join("proc/number")).unwrap();
        symlink("sys/kernel/osrelease", copy.path().join("proc/release")).unwrap();
        symlink("round", copy.path().join("proc/round")).unwrap();

        let tree = Tree::open(copy.path()).unwrap();
        for path in ["proc/sys/vm/swappiness", "proc/number", "proc/round"] {
            assert_eq!((tree.text(path), tree.exists(path), tree.resolve(path)), (None, false, None), "{path}");
        }
        assert_eq!(tree.number("proc/number"), None);
        assert_eq!((tree.names("proc/sys/vm"), tree.exists("proc/sys/vm")), (Vec::new(), false));
        // Links that stay inside are followed.
        assert_eq!(tree.text("proc/release").as_deref(), Some("6.18.0"));
        assert_eq!(tree.resolve("proc/release").as_deref(), Some("proc/sys/kernel/osrelease"));
        assert_eq!(tree.names("proc/sys/kernel"), ["osrelease"]);
    }

    #[test]
    fn the_machines_own_root_has_many_names() {
        for root in ["/", "//", "/.", "/proc/.."] {
            let tree = Tree::open(Path::new(root)).unwrap();
            assert!(!tree.is_copy() && tree.text("proc/sys/kernel/osrelease").is_some(), "{root}");
        }
    }

    #[test]
    fn a_root_that_is_no_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "x").unwrap();
        for name in ["file", "missing"] {
            let refusal = Tree::open(&dir.path().join(name)).unwrap_err();
            assert!(refusal.contains(name) && refusal.contains("name a directory"), "{refusal}");
        }
    }

    #[test]
    fn only_plain_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        // Opening it to read would wait for a writer, which never comes.
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!((read_plain(&pipe), read_plain(dir.path()), read_plain(Path::new("/dev/zero"))), (None, None, None));
        fs::write(dir.path().join("large"), vec![b'x'; TEXT_BYTES_MAX as usize + 1]).unwrap();
        assert_eq!(read_plain(&dir.path().join("large")), None);
    }
}
