//! A simulated disk: it remembers what is stable, loses the rest at a crash, and tears writes at 512 bytes.
//!
//! A write of the running log is stable once its completion was taken; a crash before that leaves any choice of its sectors. A kill (the
//! process dies, the machine lives on) leaves any choice of sectors too, readable but not yet stable: only a later `sync` makes them so.
//! Creations, renames and removals are stable after a directory sync; a crash keeps a prefix of the others.

use super::dice::Dice;
use crate::effects::{Effect, FileOp, Outcome, Token};
use crate::ids::FileId;
use crate::log::recovery::{DiskError, StartDisk};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub(crate) const SECTOR: usize = 512;
pub(super) const EIO: i32 = 5;
const ENOSPC: i32 = 28;
/// What every operation of a start answers once the machine has stopped.
pub(super) const STOPPED: i32 = 125;

#[derive(Clone, Default)]
struct Inode {
    data: Vec<u8>,
    /// Sectors that are readable and not stable: what a crash may bring back.
    unstable: BTreeMap<usize, Vec<u8>>,
    /// Pages that cannot be read until they are written.
    bad_pages: BTreeSet<usize>,
    /// How often the first page was written by a running log: once for each segment that the file was.
    lives: u32,
}

impl Inode {
    fn is_bad(&self, pos: usize, len: usize) -> bool {
        self.bad_pages.range(pos / 4096..(pos + len).div_ceil(4096)).next().is_some()
    }
}

#[derive(Clone)]
enum DirOp {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

fn apply(names: &mut BTreeMap<String, usize>, op: &DirOp) {
    match op {
        DirOp::Create(name, inode) => {
            names.insert(name.clone(), *inode);
        }
        DirOp::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        DirOp::Remove(name) => {
            names.remove(name);
        }
    }
}

/// How a write that was under way at a crash has landed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tear {
    Nothing,
    Everything,
    Prefix,
    Suffix,
    Random,
}

pub(crate) const TEARS: [Tear; 5] = [Tear::Nothing, Tear::Everything, Tear::Prefix, Tear::Suffix, Tear::Random];

/// See the module.
#[derive(Default)]
pub(crate) struct SimDisk {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    stable_names: BTreeMap<String, usize>,
    dir_ops: Vec<DirOp>,
    open: BTreeMap<FileId, usize>,
    /// Operations of the running log, oldest first.
    pub(crate) under_way: Vec<Effect>,
    /// Operations of a start until the "machine" stops: None for never.
    pub(crate) start_ops_left: Option<u64>,
    pub(crate) start_ops: u64,
    /// Creations of segment files are refused.
    pub(crate) full: bool,
    /// The next write ends with this error.
    pub(crate) fail_next_write: Option<i32>,
    /// The next write is done for this many bytes only.
    pub(crate) short_next_write: Option<u32>,
    tear_of_start: Option<(Tear, Dice)>,
    pub(crate) read_bytes: u64,
    /// First pages written over those of an earlier segment.
    pub(crate) reuses: u64,
    /// The next read ends with this error.
    pub(crate) fail_next_read: Option<i32>,
    /// Old contents of the last writes, when decay is to be simulated.
    pub(super) journal: Option<VecDeque<Written>>,
}

/// A write that was done, and what it replaced.
#[derive(Clone)]
pub(super) struct Written {
    inode: usize,
    pos: usize,
    before: Vec<u8>,
    len: usize,
}

/// Writes whose old contents are kept, and how many of the last are left alone: what was just written may be all that tells of its own
/// loss (docs/FORMAT.md names that window).
const JOURNAL_WRITES: usize = 400;
const JOURNAL_SPARES: usize = 24;

/// A fault of what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decay {
    /// A bit is another.
    Flipped,
    /// A write that was acknowledged never happened.
    Lost,
    /// A write went to another place, where something older was.
    Misplaced,
    /// A page cannot be read until it is written.
    Unreadable,
}

impl SimDisk {
    pub(crate) fn new() -> SimDisk {
        SimDisk::default()
    }

    /// Takes over what the log asked for.
    #[cfg(test)]
    pub(crate) fn submit(&mut self, effects: &mut crate::effects::Effects) {
        self.under_way.append(&mut effects.list);
        effects.clear();
    }

    /// Carries out the operation at `index` and tells how it ended.
    pub(crate) fn complete(&mut self, index: usize) -> (Token, Outcome) {
        match self.under_way.remove(index) {
            Effect::Write { token, file, pos, data } => {
                if let Some(errno) = self.fail_next_write.take() {
                    return (token, Outcome::Write(Err(errno)));
                }
                let len = self.short_next_write.take().map_or(data.len(), |len| data.len().min(len as usize));
                let inode = self.open[&file];
                self.note_write(inode, pos as usize, len);
                self.inodes[inode].lives += u32::from(pos == 0);
                self.reuses += u64::from(pos == 0 && self.inodes[inode].lives > 1);
                self.store(inode, pos as usize, &data.as_slice()[..len], true);
                (token, Outcome::Write(Ok(len as u32)))
            }
            Effect::Read { token, file: _, pos: _, buf } if self.fail_next_read.is_some() => {
                let errno = self.fail_next_read.take().expect("looked at");
                (token, Outcome::Read(buf, Err(errno)))
            }
            Effect::Read { token, file, pos, mut buf } => {
                let inode = &self.inodes[self.open[&file]];
                let (from, len) = (pos as usize, buf.len());
                assert!(from % 4096 == 0 && len % 4096 == 0 && from + len <= inode.data.len(), "read of {len} at {from}");
                if inode.is_bad(from, len) {
                    return (token, Outcome::Read(buf, Err(EIO)));
                }
                buf.as_mut_slice().copy_from_slice(&inode.data[from..from + len]);
                self.read_bytes += len as u64;
                (token, Outcome::Read(buf, Ok(len as u32)))
            }
            Effect::File { token, op } => (token, Outcome::File(self.file_op(&op))),
            #[allow(unreachable_patterns)]
            other => panic!("the log pushes no {other:?}"),
        }
    }

    fn file_op(&mut self, op: &FileOp) -> Result<(), i32> {
        match op {
            FileOp::Create { file, name, len_bytes } => {
                assert!(!self.names.contains_key(&**name), "{name} exists");
                if self.full {
                    self.make(name, 0);
                    return Err(ENOSPC);
                }
                let inode = self.make(name, *len_bytes);
                assert!(self.open.insert(*file, inode).is_none(), "{file} is open already");
            }
            FileOp::Rename { from, to } => self.change(DirOp::Rename(from.to_string(), to.to_string())),
            FileOp::Remove { name } => {
                if !self.names.contains_key(&**name) {
                    return Err(2);
                }
                self.change(DirOp::Remove(name.to_string()));
            }
            FileOp::Close { file } => {
                let busy = |effect: &Effect| matches!(effect, Effect::Write { file: f, .. } | Effect::Read { file: f, .. } if f == file);
                assert!(!self.under_way.iter().any(busy), "{file} is closed with operations under way");
                assert!(self.open.remove(file).is_some(), "{file} is not open");
            }
            FileOp::SyncDir => self.sync_names(),
        }
        Ok(())
    }

    fn make(&mut self, name: &str, len: u64) -> usize {
        self.inodes.push(Inode { data: vec![0; len as usize], ..Inode::default() });
        self.change(DirOp::Create(name.to_string(), self.inodes.len() - 1));
        self.inodes.len() - 1
    }

    fn change(&mut self, op: DirOp) {
        apply(&mut self.names, &op);
        self.dir_ops.push(op);
    }

    fn sync_names(&mut self) {
        self.dir_ops.clear();
        self.stable_names = self.names.clone();
        // Nobody can come back to a file without a name; its number stays used.
        for (number, inode) in self.inodes.iter_mut().enumerate().filter(|(_, inode)| !inode.data.is_empty()) {
            if !self.names.values().any(|n| *n == number) && !self.open.values().any(|n| *n == number) {
                *inode = Inode::default();
            }
        }
    }

    fn note_write(&mut self, inode: usize, pos: usize, len: usize) {
        if let Some(journal) = &mut self.journal {
            let before = self.inodes[inode].data[pos..pos + len].to_vec();
            journal.push_back(Written { inode, pos, before, len });
            if journal.len() > JOURNAL_WRITES {
                journal.pop_front();
            }
        }
    }

    /// Spoils a part of what was written a while ago, and is still there. Answers what happened and where.
    pub(super) fn decay(&mut self, dice: &mut Dice) -> Option<(Decay, String)> {
        let journal = self.journal.as_ref()?;
        let old = journal.len().checked_sub(JOURNAL_SPARES).filter(|old| *old > 0)?;
        let at = dice.below(old as u64) as usize;
        let written = journal[at].clone();
        let name = self.names.iter().find(|(_, inode)| **inode == written.inode).map(|(name, _)| name.clone())?;
        let overlaps =
            |later: &Written| later.inode == written.inode && later.pos < written.pos + written.len && written.pos < later.pos + later.len;
        // Segments only: manifest and checkpoint exist once, and a start refuses without them; the header page likewise. What was
        // overwritten since cannot be lost any more.
        if !name.starts_with("seg-") || written.pos == 0 || journal.iter().skip(at + 1).any(overlaps) {
            return None;
        }
        let data = &mut self.inodes[written.inode].data;
        let what = match dice.below(10) {
            0..=4 => {
                let byte = written.pos + dice.below(written.len as u64) as usize;
                data[byte] ^= 1 << dice.below(8);
                Decay::Flipped
            }
            5..=6 => {
                data[written.pos..written.pos + written.len].copy_from_slice(&written.before);
                Decay::Lost
            }
            7 => {
                let target = journal[dice.below(at as u64 + 1) as usize].clone();
                let fits = target.len >= written.len && target.pos > 0 && target.inode == written.inode && !overlaps(&target);
                if !fits
                    || journal.iter().skip(old).any(|later| {
                        later.inode == target.inode && later.pos < target.pos + target.len && target.pos < later.pos + later.len
                    })
                {
                    return None;
                }
                let moved = data[written.pos..written.pos + written.len].to_vec();
                data[written.pos..written.pos + written.len].copy_from_slice(&written.before);
                data[target.pos..target.pos + written.len].copy_from_slice(&moved);
                Decay::Misplaced
            }
            _ => {
                let page = written.pos / 4096 + dice.below((written.len / 4096).max(1) as u64) as usize;
                self.inodes[written.inode].bad_pages.insert(page);
                Decay::Unreadable
            }
        };
        Some((what, format!("{name} at {} ({} bytes)", written.pos, written.len)))
    }

    /// Whether some file was another segment before.
    pub(super) fn has_reused_files(&self) -> bool {
        self.names.values().any(|inode| self.inodes[*inode].lives > 1)
    }

    /// A start is through, or over: nothing stops the operations that come.
    pub(super) fn start_went_through(&mut self) {
        self.start_ops_left = None;
        self.tear_of_start = None;
    }

    fn store(&mut self, inode: usize, pos: usize, bytes: &[u8], stable: bool) {
        let inode = &mut self.inodes[inode];
        assert!(
            pos.is_multiple_of(SECTOR) && bytes.len().is_multiple_of(SECTOR) && pos + bytes.len() <= inode.data.len(),
            "{} bytes at {pos}",
            bytes.len()
        );
        for page in pos / 4096..(pos + bytes.len()) / 4096 {
            inode.bad_pages.remove(&page);
        }
        for (number, sector) in bytes.chunks(SECTOR).enumerate() {
            let at = pos + number * SECTOR;
            if stable {
                inode.unstable.remove(&at);
            } else {
                let old = inode.data[at..at + SECTOR].to_vec();
                inode.unstable.entry(at).or_insert(old);
            }
            inode.data[at..at + SECTOR].copy_from_slice(sector);
        }
    }

    fn store_torn(&mut self, inode: usize, pos: usize, bytes: &[u8], tear: Tear, dice: &mut Dice) {
        let sectors = bytes.len() / SECTOR;
        let cut = dice.below(sectors as u64 + 1) as usize;
        for number in 0..sectors {
            let lands = match tear {
                Tear::Nothing => false,
                Tear::Everything => true,
                Tear::Prefix => number < cut,
                Tear::Suffix => number >= cut,
                Tear::Random => dice.chance(50),
            };
            if lands {
                let at = number * SECTOR;
                self.store(inode, pos + at, &bytes[at..at + SECTOR], false);
            }
        }
    }

    /// The process ends: what was under way lands as it likes, readable but not stable.
    pub(crate) fn kill(&mut self, tear: Tear, dice: &mut Dice) {
        for effect in std::mem::take(&mut self.under_way) {
            match effect {
                Effect::Write { file, pos, data, .. } => {
                    let inode = self.open[&file];
                    self.store_torn(inode, pos as usize, data.as_slice(), tear, dice);
                }
                Effect::File { op, .. } if tear != Tear::Nothing && dice.chance(50) => {
                    let _ = self.file_op(&op);
                }
                _ => {}
            }
        }
        self.open.clear();
    }

    /// The power goes: as a kill, and then what is not stable is lost, each sector by itself.
    pub(crate) fn crash(&mut self, tear: Tear, dice: &mut Dice) {
        self.kill(tear, dice);
        for inode in &mut self.inodes {
            for (at, old) in std::mem::take(&mut inode.unstable) {
                let lost = match tear {
                    Tear::Nothing => true,
                    Tear::Everything | Tear::Prefix | Tear::Suffix => false,
                    Tear::Random => dice.chance(30),
                };
                if lost {
                    inode.data[at..at + SECTOR].copy_from_slice(&old);
                }
            }
        }
        let kept = match tear {
            Tear::Nothing => 0,
            Tear::Everything => self.dir_ops.len(),
            _ => dice.below(self.dir_ops.len() as u64 + 1) as usize,
        };
        self.names = self.stable_names.clone();
        for op in &self.dir_ops[..kept] {
            apply(&mut self.names, op);
        }
        self.sync_names();
        self.start_ops_left = None;
        self.start_ops = 0;
    }

    /// Lets a start get through `ops` operations; the one after it tears and everything after fails.
    pub(crate) fn stop_start_after(&mut self, ops: u64, tear: Tear, dice: Dice) {
        self.start_ops_left = Some(ops);
        self.tear_of_start = Some((tear, dice));
    }

    /// Makes a page of a file unreadable.
    #[cfg(test)]
    pub(crate) fn spoil_page(&mut self, name: &str, page: usize) {
        let inode = self.names[name];
        self.inodes[inode].bad_pages.insert(page);
    }

    /// A copy of the files as they are, with nothing open or under way.
    #[cfg(test)]
    pub(crate) fn snapshot(&self) -> SimDisk {
        SimDisk { inodes: self.inodes.clone(), names: self.names.clone(), stable_names: self.names.clone(), ..SimDisk::default() }
    }

    /// A file's bytes, to be damaged or looked at.
    #[cfg(test)]
    pub(crate) fn file(&mut self, name: &str) -> &mut Vec<u8> {
        let inode = self.names[name];
        &mut self.inodes[inode].data
    }
    pub(crate) fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }
    #[cfg(test)]
    pub(crate) fn put_file(&mut self, name: &str, data: Vec<u8>) {
        let inode = self.make(name, 0);
        self.inodes[inode].data = data;
        self.sync_names();
    }
    #[cfg(test)]
    pub(crate) fn remove_file(&mut self, name: &str) {
        self.names.remove(name);
        self.sync_names();
    }

    fn start_op(&mut self, op: &'static str, name: &str) -> Result<(), DiskError> {
        self.start_ops += 1;
        match &mut self.start_ops_left {
            Some(0) => Err(DiskError { op, name: name.to_string(), errno: STOPPED }),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn inode_of(&self, file: FileId) -> usize {
        *self.open.get(&file).unwrap_or_else(|| panic!("{file} is not open"))
    }
}

impl StartDisk for SimDisk {
    fn list(&mut self) -> Result<Vec<String>, DiskError> {
        self.start_op("list", ".")?;
        Ok(self.names())
    }
    fn open(&mut self, name: &str, file: FileId) -> Result<u64, DiskError> {
        self.start_op("open", name)?;
        let Some(&inode) = self.names.get(name) else { return Err(DiskError { op: "open", name: name.to_string(), errno: 2 }) };
        assert!(self.open.insert(file, inode).is_none(), "{file} is open already");
        Ok(self.inodes[inode].data.len() as u64)
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
        let data = &self.inodes[inode].data;
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
        self.start_op("rename", from)?;
        self.change(DirOp::Rename(from.to_string(), to.to_string()));
        Ok(())
    }
    fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        self.start_op("remove", name)?;
        self.change(DirOp::Remove(name.to_string()));
        Ok(())
    }
    fn sync_dir(&mut self) -> Result<(), DiskError> {
        self.start_op("sync_dir", ".")?;
        self.sync_names();
        Ok(())
    }
}

impl crate::log::inspect::InspectSource for SimDisk {
    fn list(&mut self) -> Result<Vec<String>, DiskError> {
        Ok(self.names())
    }
    fn len(&mut self, name: &str) -> Result<u64, DiskError> {
        match self.names.get(name) {
            Some(inode) => Ok(self.inodes[*inode].data.len() as u64),
            None => Err(DiskError { op: "open", name: name.to_string(), errno: 2 }),
        }
    }
    fn read(&mut self, name: &str, pos: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        assert!(pos.is_multiple_of(4096) && buf.len().is_multiple_of(4096), "{} bytes at {pos}", buf.len());
        let inode = self.names[name];
        buf.copy_from_slice(&self.inodes[inode].data[pos as usize..pos as usize + buf.len()]);
        Ok(())
    }
}
