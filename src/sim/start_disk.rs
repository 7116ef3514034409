//! The simulated disk as a start and `inspect` see it: one operation after the other, each through before the next.
//!
//! Not here: what is stable when (`disk.rs`).

use super::disk::{DirOp, EIO, SimDisk};
use crate::ids::FileId;
use crate::log::recovery::{DiskError, StartDisk};

impl StartDisk for SimDisk {
    fn list(&mut self) -> Result<Vec<String>, DiskError> {
        self.start_op("list", ".")?;
        Ok(self.names())
    }
    fn open(&mut self, name: &str, file: FileId) -> Result<u64, DiskError> {
        self.start_op("open", name)?;
        let Some(&inode) = self.names.get(name) else { return Err(DiskError { op: "open", name: name.to_string(), errno: 2 }) };
        assert!(self.open.insert(file, inode).is_none(), "{file} is open already");
        Ok(self.inodes[inode].len() as u64)
    }
    fn create(&mut self, name: &str, file: FileId, len: u64) -> Result<(), DiskError> {
        self.start_op("create", name)?;
        assert!(!self.names.contains_key(name), "{name} exists");
        let inode = self.make(name, len);
        self.open.insert(file, inode);
        Ok(())
    }
    fn close(&mut self, file: FileId) -> Result<(), DiskError> {
        self.start_op("close", "")?;
        assert!(self.open.remove(&file).is_some(), "{file} is not open");
        Ok(())
    }
    fn read_at(&mut self, file: FileId, pos: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.start_op("read", "")?;
        assert!(
            pos.is_multiple_of(4096) && buf.len().is_multiple_of(4096) && (buf.as_ptr() as usize).is_multiple_of(4096),
            "{} bytes at {pos}",
            buf.len()
        );
        let inode = self.inode_of(file);
        if self.inodes[inode].is_bad(pos as usize, buf.len()) {
            return Err(DiskError { op: "read", name: String::new(), errno: EIO });
        }
        let data = self.inodes[inode].bytes();
        match data.get(pos as usize..pos as usize + buf.len()) {
            Some(part) => buf.copy_from_slice(part),
            None => return Err(DiskError { op: "read", name: String::new(), errno: 0 }),
        }
        Ok(())
    }
    fn write_at(&mut self, file: FileId, pos: u64, data: &[u8]) -> Result<(), DiskError> {
        let inode = self.inode_of(file);
        assert!(
            pos.is_multiple_of(4096) && data.len().is_multiple_of(4096) && (data.as_ptr() as usize).is_multiple_of(4096),
            "{} bytes at {pos}",
            data.len()
        );
        if let Err(error) = self.start_op("write", "") {
            if let Some((tear, mut dice)) = self.tear_of_start.take() {
                self.store_torn(inode, pos as usize, data, tear, &mut dice);
            } else if self.happens_in_spite_of(&error) {
                self.store(inode, pos as usize, &data[..data.len() / 2], false);
            }
            return Err(error);
        }
        self.store(inode, pos as usize, data, true);
        Ok(())
    }
    fn sync(&mut self, file: FileId) -> Result<(), DiskError> {
        self.start_op("sync", "")?;
        let inode = self.inode_of(file);
        self.inodes[inode].unstable.clear();
        Ok(())
    }
    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        let told = self.start_op("rename", from);
        if told.as_ref().err().is_none_or(|error| self.happens_in_spite_of(error)) {
            self.change(DirOp::Rename(from.to_string(), to.to_string()));
        }
        told
    }
    fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        let told = self.start_op("remove", name);
        if told.as_ref().err().is_none_or(|error| self.happens_in_spite_of(error)) {
            self.change(DirOp::Remove(name.to_string()));
        }
        told
    }
    fn sync_dir(&mut self) -> Result<(), DiskError> {
        self.start_op("sync_dir", ".")?;
        self.sync_names();
        Ok(())
    }
}

impl SimDisk {
    /// What is told as failed has happened, or a part of it, each second time.
    fn happens_in_spite_of(&self, error: &DiskError) -> bool {
        error.errno == EIO && self.start_ops.is_multiple_of(2)
    }
}

impl crate::log::inspect::InspectSource for SimDisk {
    fn list(&mut self) -> Result<Vec<String>, DiskError> {
        Ok(self.names())
    }
    fn len(&mut self, name: &str) -> Result<u64, DiskError> {
        match self.names.get(name) {
            Some(inode) => Ok(self.inodes[*inode].len() as u64),
            None => Err(DiskError { op: "open", name: name.to_string(), errno: 2 }),
        }
    }
    fn read(&mut self, name: &str, pos: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        assert!(pos.is_multiple_of(4096) && buf.len().is_multiple_of(4096), "{} bytes at {pos}", buf.len());
        let inode = self.names[name];
        buf.copy_from_slice(&self.inodes[inode].bytes()[pos as usize..pos as usize + buf.len()]);
        Ok(())
    }
}
