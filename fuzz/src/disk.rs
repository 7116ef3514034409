//! Files of one directory in memory, for a start, for an inspection, and for the running log.
//!
//! Invariants asserted: operations that the real edge could not carry out (a read past the end of a file, a file opened twice) are wrong,
//! whatever the bytes are. A start that reads far more than there is loops.
//!
//! Not here: crashes and torn writes (the simulator has those).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tramline::effects::{FileOp, Outcome};
use tramline::ids::FileId;
use tramline::log::inspect::InspectSource;
use tramline::log::{DiskError, StartDisk};

const EIO: i32 = 5;
/// Bytes that are read at most, as a multiple of what there is: the walk looks at a page of a damaged segment a few times.
const READS_MAX: u64 = 300;

/// See the module.
#[derive(Clone, Default)]
pub struct MemDisk {
    files: BTreeMap<String, usize>,
    /// Shared with the directory they were copied from, until they are changed.
    inodes: Vec<Arc<Vec<u8>>>,
    open: BTreeMap<FileId, usize>,
    /// (file, page) that cannot be read until it is written.
    bad_pages: BTreeSet<(usize, usize)>,
    read_bytes: u64,
}

impl MemDisk {
    pub fn new(files: &BTreeMap<String, Arc<Vec<u8>>>) -> MemDisk {
        let mut disk = MemDisk::default();
        for (name, data) in files {
            disk.files.insert(name.clone(), disk.inodes.len());
            disk.inodes.push(Arc::clone(data));
        }
        disk
    }

    pub fn put(&mut self, name: &str, data: Vec<u8>) {
        self.files.insert(name.to_owned(), self.inodes.len());
        self.inodes.push(Arc::new(data));
    }

    pub fn take_away(&mut self, name: &str) {
        self.files.remove(name);
    }

    pub fn names(&self) -> Vec<String> {
        self.files.keys().cloned().collect()
    }

    /// A file's bytes, to be changed; none where it is missing.
    pub fn file(&mut self, name: &str) -> Option<&mut Vec<u8>> {
        self.files.get(name).map(|inode| Arc::make_mut(&mut self.inodes[*inode]))
    }

    /// A file's bytes; none where it is missing.
    pub fn look(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(|inode| self.inodes[*inode].as_slice())
    }

    pub fn spoil_page(&mut self, name: &str, page: usize) {
        if let Some(inode) = self.files.get(name) {
            self.bad_pages.insert((*inode, page));
        }
    }

    /// The process has ended: nothing is open.
    pub fn close_all(&mut self) {
        self.open.clear();
        self.read_bytes = 0;
    }

    fn bound(&mut self, len: usize) {
        self.read_bytes += len as u64;
        let all: u64 = self.inodes.iter().map(|data| data.len() as u64).sum();
        assert!(self.read_bytes <= READS_MAX * (all + (1 << 20)), "{} bytes were read of {all}: it loops", self.read_bytes);
    }

    fn is_bad(&self, inode: usize, pos: u64, len: usize) -> bool {
        let pages = pos as usize / 4096..(pos as usize + len).div_ceil(4096);
        self.bad_pages.range((inode, pages.start)..(inode, pages.end)).next().is_some()
    }

    fn inode(&self, file: FileId) -> usize {
        *self.open.get(&file).unwrap_or_else(|| panic!("{file} is not open"))
    }

    fn read_inode(&mut self, inode: usize, pos: u64, buf: &mut [u8]) -> Result<(), i32> {
        assert!(pos.is_multiple_of(4096) && buf.len().is_multiple_of(4096), "{} bytes at {pos}", buf.len());
        self.bound(buf.len());
        let end = pos.checked_add(buf.len() as u64).expect("a position in a file");
        let data = &self.inodes[inode];
        if end > data.len() as u64 {
            return Err(0);
        }
        if self.is_bad(inode, pos, buf.len()) {
            return Err(EIO);
        }
        buf.copy_from_slice(&data[pos as usize..end as usize]);
        Ok(())
    }

    fn write_inode(&mut self, inode: usize, pos: u64, bytes: &[u8]) {
        let data = Arc::make_mut(&mut self.inodes[inode]);
        assert!(pos.is_multiple_of(4096) && bytes.len().is_multiple_of(4096), "{} bytes at {pos}", bytes.len());
        let end = pos.checked_add(bytes.len() as u64).filter(|end| *end <= data.len() as u64);
        assert!(end.is_some(), "{} bytes are written at {pos} of a file of {}", bytes.len(), data.len());
        data[pos as usize..pos as usize + bytes.len()].copy_from_slice(bytes);
        self.bad_pages.retain(|(of, page)| *of != inode || (page * 4096) < pos as usize || page * 4096 >= pos as usize + bytes.len());
    }

    // --- for the running log ----------------------------------------------------------------------------------------------------

    pub fn write(&mut self, file: FileId, pos: u64, data: &[u8]) -> Outcome {
        self.write_inode(self.inode(file), pos, data);
        Outcome::Write(Ok(data.len() as u32))
    }

    pub fn read(&mut self, file: FileId, pos: u64, mut buf: tramline::bytes::BufMut) -> Outcome {
        let result = self.read_inode(self.inode(file), pos, buf.as_mut_slice());
        // The ring answers a read past the end with fewer bytes.
        let result = match result {
            Ok(()) => Ok(buf.len() as u32),
            Err(0) => Ok(0),
            Err(errno) => Err(errno),
        };
        Outcome::Read(buf, result)
    }

    pub fn file_op(&mut self, op: &FileOp) -> Outcome {
        match op {
            FileOp::Create { file, name, len_bytes } => {
                assert!(!self.files.contains_key(&**name), "{name} exists");
                assert!(*len_bytes <= 64 << 20, "{name} with {len_bytes} bytes");
                self.put(name, vec![0; *len_bytes as usize]);
                let inode = self.files[&**name];
                assert!(self.open.insert(*file, inode).is_none(), "{file} is open already");
            }
            FileOp::Rename { from, to } => {
                if let Some(inode) = self.files.remove(&**from) {
                    self.files.insert(to.to_string(), inode);
                }
            }
            FileOp::Exchange { first, second } => {
                let (Some(one), Some(other)) = (self.files.get(&**first).copied(), self.files.get(&**second).copied()) else {
                    return Outcome::File(Err(2));
                };
                self.files.insert(first.to_string(), other);
                self.files.insert(second.to_string(), one);
            }
            FileOp::Remove { name } => {
                if self.files.remove(&**name).is_none() {
                    return Outcome::File(Err(2));
                }
            }
            FileOp::Cut { file, len_bytes } => {
                let inode = self.inode(*file);
                Arc::make_mut(&mut self.inodes[inode]).truncate(*len_bytes as usize);
            }
            FileOp::Close { file } => assert!(self.open.remove(file).is_some(), "{file} is not open"),
            FileOp::SyncDir => {}
        }
        Outcome::File(Ok(()))
    }
}

fn refused(op: &'static str, name: &str, errno: i32) -> DiskError {
    DiskError { op, name: name.to_owned(), errno }
}

impl StartDisk for MemDisk {
    fn list(&mut self) -> Result<Vec<String>, DiskError> {
        Ok(self.names())
    }
    fn open(&mut self, name: &str, file: FileId) -> Result<u64, DiskError> {
        let Some(&inode) = self.files.get(name) else { return Err(refused("open", name, 2)) };
        assert!(self.open.insert(file, inode).is_none(), "{file} is open already");
        Ok(self.inodes[inode].len() as u64)
    }
    fn create(&mut self, name: &str, file: FileId, len: u64) -> Result<(), DiskError> {
        assert!(!self.files.contains_key(name), "{name} exists");
        if len > 64 << 20 {
            return Err(refused("create", name, 28));
        }
        self.put(name, vec![0; len as usize]);
        self.open.insert(file, self.files[name]);
        Ok(())
    }
    fn close(&mut self, file: FileId) -> Result<(), DiskError> {
        assert!(self.open.remove(&file).is_some(), "{file} is not open");
        Ok(())
    }
    fn read_at(&mut self, file: FileId, pos: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        assert!((buf.as_ptr() as usize).is_multiple_of(4096), "direct I/O needs aligned memory");
        self.read_inode(self.inode(file), pos, buf).map_err(|errno| refused("read", "", errno))
    }
    fn write_at(&mut self, file: FileId, pos: u64, data: &[u8]) -> Result<(), DiskError> {
        assert!((data.as_ptr() as usize).is_multiple_of(4096), "direct I/O needs aligned memory");
        self.write_inode(self.inode(file), pos, data);
        Ok(())
    }
    fn sync(&mut self, file: FileId) -> Result<(), DiskError> {
        self.inode(file);
        Ok(())
    }
    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        let inode = self.files.remove(from).ok_or_else(|| refused("rename", from, 2))?;
        self.files.insert(to.to_owned(), inode);
        Ok(())
    }
    fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        self.files.remove(name).map(|_| ()).ok_or_else(|| refused("remove", name, 2))
    }
    fn sync_dir(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

impl InspectSource for MemDisk {
    fn list(&mut self) -> Result<Vec<String>, DiskError> {
        Ok(self.names())
    }
    fn len(&mut self, name: &str) -> Result<u64, DiskError> {
        match self.files.get(name) {
            Some(inode) => Ok(self.inodes[*inode].len() as u64),
            None => Err(refused("open", name, 2)),
        }
    }
    fn read(&mut self, name: &str, pos: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        let Some(&inode) = self.files.get(name) else { return Err(refused("open", name, 2)) };
        self.read_inode(inode, pos, buf).map_err(|errno| refused("read", name, errno))
    }
}
