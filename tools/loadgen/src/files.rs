//! The files a run writes: opened before it begins, filled when there is something to write.
//!
//! Invariants: what cannot be opened is told before the run; an older file of that name keeps its content until there is a new
//! one; a run that could not begin leaves no empty file behind; no output is another one's file, or one that the run reads.
//! Not here: what stands in them (`report.rs`, `hgrm.rs`, `hlog.rs`, `plot.rs`).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A file that will be written.
pub struct OutputFile {
    option: &'static str,
    path: String,
    file: File,
    /// Whether opening made it and nothing stands in it yet: then it goes away again with this value.
    new_and_empty: bool,
}

impl OutputFile {
    /// Opens the file that `option` names.
    pub fn open(option: &'static str, path: &str) -> Result<OutputFile, String> {
        let (opened, new_and_empty) = match OpenOptions::new().write(true).create_new(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                (OpenOptions::new().write(true).create(true).truncate(false).open(path), false)
            }
            other => (other, true),
        };
        let file = opened.map_err(|cause| unwritable(option, path, &cause))?;
        Ok(OutputFile { option, path: path.to_owned(), file, new_and_empty })
    }

    /// Puts `bytes` in the place of what was there, down to the disk.
    pub fn write(mut self, bytes: &[u8]) -> Result<(), String> {
        let written = self.empty().and_then(|()| self.file.write_all(bytes)).and_then(|()| self.sync());
        written.map_err(|cause| unwritable(self.option, &self.path, &cause))
    }

    /// The empty file, for what is written bit by bit.
    pub fn begin(mut self) -> Result<File, String> {
        let file = self.empty().and_then(|()| self.file.try_clone());
        file.map_err(|cause| unwritable(self.option, &self.path, &cause))
    }

    fn empty(&mut self) -> io::Result<()> {
        self.new_and_empty = false;
        if self.is_regular() { self.file.set_len(0) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        if self.is_regular() { self.file.sync_all() } else { Ok(()) }
    }

    /// Pipes and devices can be written too, but neither cut nor synced.
    fn is_regular(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.is_file())
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if self.new_and_empty {
            // The file was only tried; one that cannot be removed does no harm.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn unwritable(option: &str, path: &str, cause: &io::Error) -> String {
    format!("{path} cannot be written: {cause}; name another file with {option}")
}

/// `run.hgrm` and `service` give `run.service.hgrm`.
pub fn tagged(path: &str, tag: &str) -> String {
    let whole = Path::new(path);
    let name = match (whole.file_stem(), whole.extension()) {
        (Some(stem), Some(extension)) => format!("{}.{tag}.{}", stem.to_string_lossy(), extension.to_string_lossy()),
        _ => format!("{}.{tag}", whole.file_name().unwrap_or_default().to_string_lossy()),
    };
    whole.with_file_name(name).to_string_lossy().into_owned()
}

/// Which file a path means, whatever leads to it.
#[derive(Debug, PartialEq, Eq)]
enum Identity {
    /// It is there: device and number on it, and whether writing replaces its content (not that of a pipe or a device).
    There { device: u64, inode: u64, is_regular: bool },
    /// It is not there yet: its name in its directory, links followed.
    New(PathBuf),
}

/// Links in a row that are followed by hand; the kernel gives up after 40 as well.
const LINKS_MAX: usize = 40;

impl Identity {
    fn of(path: &str) -> Identity {
        if let Ok(found) = std::fs::metadata(path) {
            return Identity::There { device: found.dev(), inode: found.ino(), is_regular: found.is_file() };
        }
        let mut path = PathBuf::from(path);
        for _ in 0..LINKS_MAX {
            // A link to a file that is not there yet: opening makes that file.
            let Ok(target) = std::fs::read_link(&path) else { break };
            path = path.parent().unwrap_or(Path::new("")).join(target);
        }
        let path = std::path::absolute(&path).unwrap_or(path);
        let folder = path.parent().and_then(|folder| std::fs::canonicalize(folder).ok());
        Identity::New(folder.zip(path.file_name()).map_or(path.clone(), |(folder, name)| folder.join(name)))
    }

    fn is_regular(&self) -> bool {
        matches!(self, Identity::There { is_regular: true, .. })
    }
}

/// Refuses two outputs in one file, and an output in a file that is read; each is given as its option and path.
pub fn check_distinct(inputs: &[(&'static str, String)], outputs: &[(&'static str, String)]) -> Result<(), String> {
    let read: Vec<(&str, Identity)> = inputs.iter().map(|(option, path)| (*option, Identity::of(path))).collect();
    let mut written: Vec<(&str, Identity)> = Vec::new();
    for (option, path) in outputs {
        let file = Identity::of(path);
        if let Some((other, _)) = written.iter().find(|(_, earlier)| *earlier == file) {
            return Err(format!("{other} and {option} would both write {path}; name two files"));
        }
        if let Some((input, _)) = read.iter().find(|(_, input)| input.is_regular() && *input == file) {
            return Err(format!("{option} would overwrite {path}, which is read ({input}); name another file"));
        }
        written.push((option, file));
    }
    Ok(())
}

/// Whether a path leads to something that is no regular file, such as a pipe or a device.
pub fn is_special(path: &str) -> bool {
    std::fs::metadata(path).is_ok_and(|found| !found.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_file_keeps_its_content_until_there_is_new_content() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old.json"), dir.path().join("new.json"));
        fs::write(&old, "a long older report").unwrap();
        let open = |path: &Path| OutputFile::open("--json", path.to_str().unwrap()).unwrap();
        drop((open(&old), open(&new)));
        assert_eq!(fs::read_to_string(&old).unwrap(), "a long older report");
        assert!(!new.exists(), "a file that was only tried is gone");
        open(&old).write(b"short").unwrap();
        open(&new).write(b"").unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "short");
        assert!(new.exists());
        open(&old).begin().unwrap().write_all(b"bit").unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "bit");
    }

    #[test]
    fn what_cannot_be_written_is_told_with_its_option() {
        let dir = tempfile::tempdir().unwrap();
        let error = OutputFile::open("--plot", dir.path().to_str().unwrap()).err().unwrap();
        assert!(error.contains("cannot be written") && error.contains("--plot"), "{error}");
        OutputFile::open("--json", "/dev/null").unwrap().write(b"x").unwrap();
    }

    #[test]
    fn the_tag_goes_before_the_extension() {
        for (path, expected) in
            [("run.hgrm", "run.ack.hgrm"), ("a.b/run", "a.b/run.ack"), ("d/.hidden", "d/.hidden.ack"), ("x.y.z", "x.y.ack.z")]
        {
            assert_eq!(tagged(path, "ack"), expected);
        }
    }

    #[test]
    fn one_file_for_two_outputs_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let both = |a: &str, b: &str| check_distinct(&[], &[("--json", a.to_owned()), ("--hlog", b.to_owned())]);
        assert!(both("a", "b").is_ok());
        assert!(both("a", "./a").unwrap_err().contains("--json and --hlog"));
        symlink("new", path("to-new")).unwrap();
        symlink("to-new", path("to-to-new")).unwrap();
        assert!(both(&path("new"), &path("to-to-new")).is_err(), "a link to a file that is not there yet");
        fs::write(path("new"), "").unwrap();
        assert!(both(&path("to-new"), &path("new")).is_err());
        fs::hard_link(path("new"), path("same")).unwrap();
        assert!(both(&path("same"), &path("new")).is_err(), "two names of one file");
        symlink(".", path("folder")).unwrap();
        assert!(both(&path("folder/x"), &path("x")).is_err(), "a link in the way");
        assert!(both(&path("x"), &path("same")).is_ok());
    }

    #[test]
    fn a_file_that_is_read_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        fs::write(path("lines"), "x").unwrap();
        symlink("lines", path("link")).unwrap();
        let of = |input: &str, output: &str| check_distinct(&[("--records", input.to_owned())], &[("--json", output.to_owned())]);
        for (input, output) in [("lines", "lines"), ("link", "lines"), ("lines", "link")] {
            let told = of(&path(input), &path(output)).unwrap_err();
            assert!(told.contains("--json would overwrite") && told.contains("(--records)"), "{told}");
        }
        assert!(of(&path("lines"), &path("other")).is_ok());
        assert!(of("/dev/null", "/dev/null").is_ok(), "a device keeps nothing that could be lost");
    }
}
