//! The real disk for recovery (`log::StartDisk`): one shard's directory over std::fs, before the ring exists.
//!
//! Invariants: every file is opened O_DIRECT | O_DSYNC for reading and writing, so a write is durable on return and what is read is what the
//! disk holds, not what the page cache believes; a `FileId` is attached to at most one open file; short reads and writes are continued, an
//! error is never retried. The files still open after recovery go to the ring with `into_files`.
//!
//! Not here: what the files mean (`log/`), steady-state I/O (`ring/`).

use crate::ids::FileId;
use crate::log::{DiskError, StartDisk};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// One shard's directory.
#[derive(Debug)]
pub struct FsDisk {
    dir: PathBuf,
    open: BTreeMap<FileId, (String, File)>,
}

impl FsDisk {
    /// Over `dir`, which exists.
    pub fn new(dir: &Path) -> FsDisk {
        FsDisk { dir: dir.to_owned(), open: BTreeMap::new() }
    }

    /// The files still open, to be attached to the ring under the same ids.
    pub fn into_files(self) -> Vec<(FileId, File)> {
        self.open.into_iter().map(|(id, (_, file))| (id, file)).collect()
    }

    fn file(&self, op: &'static str, id: FileId) -> Result<(&str, &File), DiskError> {
        let (name, file) = self.open.get(&id).ok_or_else(|| DiskError { op, name: format!("file {id}"), errno: libc::EBADF })?;
        Ok((name, file))
    }

    fn attach(&mut self, op: &'static str, name: &str, id: FileId, options: &OpenOptions) -> Result<&File, DiskError> {
        assert!(!self.open.contains_key(&id), "{id:?} is attached to an open file already, and now to {name}");
        let file = options.open(self.dir.join(name)).map_err(refused(op, name))?;
        Ok(&self.open.entry(id).or_insert((name.to_owned(), file)).1)
    }
}

fn direct() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_DIRECT | libc::O_DSYNC | libc::O_CLOEXEC);
    options
}

fn refused<'a>(op: &'static str, name: &'a str) -> impl Fn(io::Error) -> DiskError + 'a {
    move |error| DiskError { op, name: name.to_owned(), errno: error.raw_os_error().unwrap_or(libc::EIO) }
}

impl StartDisk for FsDisk {
    fn list(&mut self) -> Result<Vec<String>, DiskError> {
        let refused = refused("list", ".");
        let entries = fs::read_dir(&self.dir).map_err(&refused)?;
        entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()).map_err(&refused)).collect()
    }

    fn open(&mut self, name: &str, file: FileId) -> Result<u64, DiskError> {
        let opened = self.attach("open", name, file, &direct())?;
        opened.metadata().map(|metadata| metadata.len()).map_err(refused("stat", name))
    }

    fn create(&mut self, name: &str, file: FileId, len: u64) -> Result<(), DiskError> {
        let created = self.attach("create", name, file, direct().create_new(true))?;
        if let Err(errno) = rustix::fs::fallocate(created, rustix::fs::FallocateFlags::empty(), 0, len) {
            // Nothing half made stays behind: the name would be in the way of the next attempt.
            self.open.remove(&file);
            let _ = fs::remove_file(self.dir.join(name));
            return Err(DiskError { op: "allocate", name: name.to_owned(), errno: errno.raw_os_error() });
        }
        Ok(())
    }

    fn close(&mut self, file: FileId) -> Result<(), DiskError> {
        self.file("close", file)?;
        self.open.remove(&file);
        Ok(())
    }

    fn read_at(&mut self, file: FileId, pos: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        let (name, opened) = self.file("read", file)?;
        let mut done = 0;
        while done < buf.len() {
            match opened.read_at(&mut buf[done..], pos + done as u64) {
                Ok(0) => return Err(DiskError { op: "read", name: name.to_owned(), errno: 0 }),
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(refused("read", name)(error)),
            }
        }
        Ok(())
    }

    fn write_at(&mut self, file: FileId, pos: u64, data: &[u8]) -> Result<(), DiskError> {
        let (name, opened) = self.file("write", file)?;
        let mut done = 0;
        while done < data.len() {
            match opened.write_at(&data[done..], pos + done as u64) {
                Ok(0) => return Err(DiskError { op: "write", name: name.to_owned(), errno: libc::ENOSPC }),
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(refused("write", name)(error)),
            }
        }
        Ok(())
    }

    fn sync(&mut self, file: FileId) -> Result<(), DiskError> {
        let (name, opened) = self.file("sync", file)?;
        opened.sync_all().map_err(refused("sync", name))
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        fs::rename(self.dir.join(from), self.dir.join(to)).map_err(refused("rename", from))?;
        // A handle stays with its file, whatever that is called now; one on the replaced file keeps its old name in messages.
        for (name, _) in self.open.values_mut().filter(|(name, _)| name == from) {
            *name = to.to_owned();
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        fs::remove_file(self.dir.join(name)).map_err(refused("remove", name))
    }

    fn sync_dir(&mut self) -> Result<(), DiskError> {
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(refused("sync", "."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Slab;

    /// Direct I/O needs a real file system; the build's directory is on one where /tmp may be tmpfs.
    fn dir() -> tempfile::TempDir {
        let program = std::env::current_exe().unwrap();
        tempfile::tempdir_in(program.parent().unwrap()).unwrap()
    }

    #[test]
    fn files_are_made_written_read_renamed_and_handed_on() {
        let dir = dir();
        let mut disk = FsDisk::new(dir.path());
        disk.create("a", FileId(1), 16_384).unwrap();
        let mut slab = Slab::new(1 << 20);
        let mut page = slab.take(4096).unwrap();
        page.as_mut_slice().fill(7);
        disk.write_at(FileId(1), 8192, page.as_slice()).unwrap();
        page.as_mut_slice().fill(0);
        disk.read_at(FileId(1), 8192, page.as_mut_slice()).unwrap();
        assert!(page.as_slice().iter().all(|byte| *byte == 7));
        disk.sync(FileId(1)).unwrap();
        disk.rename("a", "b").unwrap();
        disk.sync_dir().unwrap();
        assert_eq!(disk.list().unwrap(), ["b"]);
        assert_eq!(disk.open("b", FileId(2)).unwrap(), 16_384);
        disk.close(FileId(2)).unwrap();
        let files = disk.into_files();
        assert_eq!(files.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [FileId(1)]);
        let flags = rustix::fs::fcntl_getfl(&files[0].1).unwrap().bits() as i32;
        assert_eq!(flags & (libc::O_DIRECT | libc::O_DSYNC), libc::O_DIRECT | libc::O_DSYNC, "{flags:#o}");
    }

    #[test]
    fn refusals_carry_the_error_number_and_the_name() {
        let dir = dir();
        let mut disk = FsDisk::new(dir.path());
        let numbers = |error: DiskError| (error.op, error.name, error.errno);
        assert_eq!(numbers(disk.open("none", FileId(1)).unwrap_err()), ("open", "none".to_owned(), libc::ENOENT));
        disk.create("a", FileId(1), 4096).unwrap();
        assert_eq!(numbers(disk.create("a", FileId(2), 4096).unwrap_err()), ("create", "a".to_owned(), libc::EEXIST));
        let mut slab = Slab::new(1 << 20);
        let mut page = slab.take(4096).unwrap();
        assert_eq!(numbers(disk.read_at(FileId(1), 4096, page.as_mut_slice()).unwrap_err()), ("read", "a".to_owned(), 0));
        assert_eq!(disk.sync(FileId(9)).unwrap_err().errno, libc::EBADF);
        assert_eq!(disk.remove("none").unwrap_err().errno, libc::ENOENT);
        let huge = disk.create("huge", FileId(3), 1 << 55).unwrap_err();
        assert_eq!(huge.op, "allocate");
        assert_eq!(disk.list().unwrap(), ["a"], "a file that could not be allocated leaves no name behind");
    }
}
