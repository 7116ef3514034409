//! A simulated disk: it remembers what is stable, loses the rest at a crash, and tears writes at 512 bytes.
//!
//! A write of the running log is stable once its completion was taken; a crash before that leaves any choice of its sectors. A kill (the
//! process dies, the machine lives on) leaves any choice of sectors too, readable but not yet stable: only a later `sync` makes them so.
//! Creations, renames and removals are stable after a directory sync; a crash keeps a prefix of the others.
//!
//! A failure is told once. Where a write failed, what the same process writes again is told as done and is not stable; where a sync of the
//! directory failed, the next ones are told as done and do nothing. So whoever tries again and believes it loses what it acknowledged.
//!
//! Not here: what a start does (`start_disk.rs`), rot (`decay.rs`, `rot.rs`), when what fails (`world.rs`).

use super::decay::Written;
use super::dice::Dice;
use super::rot::Rotten;
use crate::effects::{Effect, FileOp, Outcome, Token};
use crate::ids::FileId;
use crate::log::recovery::DiskError;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub(crate) const SECTOR: usize = 512;
/// Memory of files of this size is kept for the next one: segments come and go, and the system's zeroing of new pages costs more than ours.
const SPARE_BYTES: u64 = 64 << 10;
pub(super) const EIO: i32 = 5;
const EINVAL: i32 = 22;
const ENOSPC: i32 = 28;
/// What every operation of a start answers once the machine has stopped.
pub(super) const STOPPED: i32 = 125;

#[derive(Clone, Default)]
pub(super) struct Inode {
    pub(super) data: Vec<u8>,
    /// Sectors that are readable and not stable: what a crash may bring back.
    pub(super) unstable: BTreeMap<usize, Vec<u8>>,
    /// Pages that cannot be read until they are written.
    pub(super) bad_pages: BTreeSet<usize>,
    /// How often the first page was written by a running log: once for each segment that the file was.
    lives: u32,
    /// What is behind it was never written: zeros.
    written_to: usize,
    /// So many bytes of `data` were cut off its end: a power cut may bring them back.
    cut_off_bytes: usize,
    /// Places (first byte, end) where a write of this process failed.
    failed: Vec<(usize, usize)>,
}

impl Inode {
    /// What the file holds.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.data[..self.len()]
    }

    pub(super) fn len(&self) -> usize {
        self.data.len() - self.cut_off_bytes
    }

    pub(super) fn is_bad(&self, pos: usize, len: usize) -> bool {
        self.bad_pages.range(pos / 4096..(pos + len).div_ceil(4096)).next().is_some()
    }
}

#[derive(Clone)]
pub(super) enum DirOp {
    Create(String, usize),
    Rename(String, String),
    Exchange(String, String),
    Remove(String),
}

/// Answers the file that has lost its name.
fn apply(names: &mut BTreeMap<String, usize>, op: &DirOp) -> Option<usize> {
    match op {
        DirOp::Create(name, inode) => names.insert(name.clone(), *inode),
        DirOp::Rename(from, to) => names.remove(from).and_then(|inode| names.insert(to.clone(), inode)),
        DirOp::Exchange(first, second) => {
            let (one, other) = (names[first], names[second]);
            names.extend([(first.clone(), other), (second.clone(), one)]);
            None
        }
        DirOp::Remove(name) => names.remove(name),
    }
}

/// A write that lands after its process has died: the kernel had it already.
struct Late {
    number: u64,
    inode: usize,
    pos: usize,
    data: Vec<u8>,
    /// Which sectors land.
    lands: Vec<bool>,
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

impl Tear {
    /// Which of a write's sectors land.
    fn sectors(self, count: usize, dice: &mut Dice) -> Vec<bool> {
        let cut = dice.below(count as u64 + 1) as usize;
        let lands = |number: usize| match self {
            Tear::Nothing => false,
            Tear::Everything => true,
            Tear::Prefix => number < cut,
            Tear::Suffix => number >= cut,
            Tear::Random => dice.chance(50),
        };
        (0..count).map(lands).collect()
    }
}

pub(crate) const TEARS: [Tear; 5] = [Tear::Nothing, Tear::Everything, Tear::Prefix, Tear::Suffix, Tear::Random];

/// See the module.
#[derive(Default)]
pub(crate) struct SimDisk {
    pub(super) inodes: Vec<Inode>,
    pub(super) names: BTreeMap<String, usize>,
    stable_names: BTreeMap<String, usize>,
    dir_ops: Vec<DirOp>,
    /// Files that have lost a name: perhaps nobody can come back to them.
    nameless: Vec<usize>,
    /// A sync of the directory failed in this process.
    sync_failed: bool,
    /// A file system that does not exchange two names.
    pub(crate) cannot_exchange: bool,
    late: Vec<Late>,
    /// Memory of segments that are gone, and how much of it was written.
    spare: Vec<(Vec<u8>, usize)>,
    pub(crate) open: BTreeMap<FileId, usize>,
    /// Operations of the running log, oldest first.
    pub(crate) under_way: Vec<Effect>,
    /// Operations of a start until the "machine" stops: None for never.
    pub(crate) start_ops_left: Option<u64>,
    pub(crate) start_ops: u64,
    /// The operation of a start, other than a read, that ends with EIO: so many come before it.
    pub(super) fail_start_op: Option<u64>,
    /// What new files may take, in bytes; `None` for as much as they like.
    pub(crate) free_bytes: Option<u64>,
    /// The next write ends with this error.
    pub(crate) fail_next_write: Option<i32>,
    /// The next write is done for this many bytes only.
    pub(crate) short_next_write: Option<u32>,
    pub(super) tear_of_start: Option<(Tear, Dice)>,
    pub(crate) read_bytes: u64,
    /// First pages written over those of an earlier segment.
    pub(crate) reuses: u64,
    /// Cuts, those that a power cut took back, and exchanges of names.
    pub(super) cuts: u64,
    pub(super) cuts_undone: u64,
    pub(super) exchanges: u64,
    /// The next read ends with this error.
    pub(crate) fail_next_read: Option<i32>,
    /// The next operation on names ends with this error, and was carried out in spite of it or not.
    pub(super) fail_next_file: Option<(i32, bool)>,
    /// Old contents of the last writes, when decay is to be simulated.
    pub(super) journal: Option<VecDeque<Written>>,
    /// What has rotted of a node of a cluster, as long as it may be in use.
    pub(super) rotten: Vec<Rotten>,
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
                let inode = self.open[&file];
                if let Some(errno) = self.fail_next_write.take() {
                    self.inodes[inode].failed.push((pos as usize, pos as usize + data.len()));
                    return (token, Outcome::Write(Err(errno)));
                }
                let len = self.short_next_write.take().map_or(data.len(), |len| data.len().min(len as usize));
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
                assert!(from % 4096 == 0 && len % 4096 == 0 && from + len <= inode.len(), "read of {len} at {from}");
                if inode.is_bad(from, len) {
                    return (token, Outcome::Read(buf, Err(EIO)));
                }
                buf.as_mut_slice().copy_from_slice(&inode.data[from..from + len]);
                self.read_bytes += len as u64;
                (token, Outcome::Read(buf, Ok(len as u32)))
            }
            Effect::File { token, op } => match self.fail_next_file.take() {
                Some((errno, done)) => {
                    self.fail_file_op(&op, done);
                    (token, Outcome::File(Err(errno)))
                }
                None => (token, Outcome::File(self.file_op(&op))),
            },
            #[allow(unreachable_patterns)]
            other => panic!("the log pushes no {other:?}"),
        }
    }

    fn file_op(&mut self, op: &FileOp) -> Result<(), i32> {
        match op {
            FileOp::Create { file, name, len_bytes } => {
                assert!(!self.names.contains_key(&**name), "{name} exists");
                if let Some(free) = &mut self.free_bytes {
                    let Some(left) = free.checked_sub(*len_bytes) else {
                        self.make(name, 0);
                        return Err(ENOSPC);
                    };
                    *free = left;
                }
                let inode = self.make(name, *len_bytes);
                assert!(self.open.insert(*file, inode).is_none(), "{file} is open already");
            }
            FileOp::Rename { from, to } => self.change(DirOp::Rename(from.to_string(), to.to_string())),
            FileOp::Exchange { .. } if self.cannot_exchange => return Err(EINVAL),
            FileOp::Exchange { first, second } => {
                if !self.names.contains_key(&**first) || !self.names.contains_key(&**second) {
                    return Err(2);
                }
                self.exchanges += 1;
                self.change(DirOp::Exchange(first.to_string(), second.to_string()));
            }
            FileOp::Remove { name } => {
                if !self.names.contains_key(&**name) {
                    return Err(2);
                }
                self.change(DirOp::Remove(name.to_string()));
            }
            FileOp::Cut { file, len_bytes } => {
                assert!(!self.is_busy(*file), "{file} is cut with operations under way");
                self.cut(self.open[file], *len_bytes as usize);
            }
            FileOp::Close { file } => {
                assert!(!self.is_busy(*file), "{file} is closed with operations under way");
                assert!(self.open.remove(file).is_some(), "{file} is not open");
            }
            FileOp::SyncDir => self.sync_names(),
        }
        Ok(())
    }

    fn is_busy(&self, file: FileId) -> bool {
        let on_it = |effect: &Effect| matches!(effect, Effect::Write { file: f, .. } | Effect::Read { file: f, .. } if *f == file);
        self.under_way.iter().any(on_it)
    }

    fn cut(&mut self, inode: usize, len: usize) {
        if let Some(journal) = &mut self.journal {
            journal.retain(|written| !written.is_in(inode));
        }
        let inode = &mut self.inodes[inode];
        assert!(len <= inode.len() && len.is_multiple_of(SECTOR), "{len} of {} bytes", inode.len());
        self.cuts += 1;
        inode.cut_off_bytes = inode.data.len() - len;
        inode.unstable.split_off(&len);
        inode.bad_pages.split_off(&len.div_ceil(4096));
    }

    /// An operation that is told as failed: what it was to do has happened (`done`) or not.
    fn fail_file_op(&mut self, op: &FileOp, done: bool) {
        match op {
            // The name may be there, without its bytes.
            FileOp::Create { name, .. } if done => drop(self.make(name, 0)),
            FileOp::Rename { .. } | FileOp::Exchange { .. } | FileOp::Remove { .. } | FileOp::Cut { .. } if done => drop(self.file_op(op)),
            // A descriptor is gone whatever close says.
            FileOp::Close { .. } => drop(self.file_op(op)),
            FileOp::SyncDir => self.sync_failed = true,
            _ => {}
        }
    }

    pub(super) fn make(&mut self, name: &str, len: u64) -> usize {
        let data = match self.spare.pop_if(|_| len >= SPARE_BYTES) {
            Some((mut data, written_to)) => {
                data[..written_to].fill(0);
                data.resize(len as usize, 0);
                data
            }
            None => vec![0; len as usize],
        };
        self.inodes.push(Inode { data, ..Inode::default() });
        self.change(DirOp::Create(name.to_string(), self.inodes.len() - 1));
        self.inodes.len() - 1
    }

    pub(super) fn change(&mut self, op: DirOp) {
        self.nameless.extend(apply(&mut self.names, &op));
        self.dir_ops.push(op);
    }

    pub(super) fn sync_names(&mut self) {
        if self.sync_failed {
            return;
        }
        for op in self.dir_ops.drain(..) {
            apply(&mut self.stable_names, &op);
        }
        // Nobody can come back to a file without a name; its number stays used.
        let (names, open, inodes, spare) = (&self.names, &self.open, &mut self.inodes, &mut self.spare);
        self.nameless.retain(|number| {
            if names.values().any(|n| n == number) {
                return false;
            }
            let is_open = open.values().any(|n| n == number);
            if !is_open {
                let Inode { data, written_to, .. } = std::mem::take(&mut inodes[*number]);
                if data.len() as u64 >= SPARE_BYTES {
                    let written_to = written_to.min(data.len());
                    spare.push((data, written_to));
                }
            }
            is_open
        });
    }

    /// The names are what they are, whatever was pending.
    fn settle_names(&mut self) {
        (self.sync_failed, self.stable_names) = (false, self.names.clone());
        self.dir_ops.clear();
        self.nameless.clear();
        for (number, inode) in self.inodes.iter_mut().enumerate().filter(|(_, inode)| !inode.data.is_empty()) {
            if !self.names.values().any(|n| *n == number) && !self.open.values().any(|n| *n == number) {
                *inode = Inode::default();
            }
        }
    }

    /// Bytes of all files that have a name.
    pub(super) fn used_bytes(&self) -> u64 {
        self.names.values().map(|inode| self.inodes[*inode].len() as u64).sum()
    }

    /// Whether some file was another segment before.
    pub(super) fn has_reused_files(&self) -> bool {
        self.names.values().any(|inode| self.inodes[*inode].lives > 1)
    }

    /// A start is through, or over: nothing stops the operations that come.
    pub(super) fn start_went_through(&mut self) {
        self.start_ops_left = None;
        self.tear_of_start = None;
        self.fail_start_op = None;
    }

    pub(super) fn store(&mut self, inode: usize, pos: usize, bytes: &[u8], stable: bool) {
        let inode = &mut self.inodes[inode];
        let end = pos + bytes.len();
        assert!(pos.is_multiple_of(SECTOR) && bytes.len().is_multiple_of(SECTOR) && end <= inode.len(), "{} bytes at {pos}", bytes.len());
        if !inode.bad_pages.is_empty() {
            for page in pos / 4096..end / 4096 {
                inode.bad_pages.remove(&page);
            }
        }
        let stable = stable && !inode.failed.iter().any(|(from, to)| pos < *to && *from < end);
        if !stable || !inode.unstable.is_empty() {
            for at in (pos..end).step_by(SECTOR) {
                if stable {
                    inode.unstable.remove(&at);
                } else {
                    let old = inode.data[at..at + SECTOR].to_vec();
                    inode.unstable.entry(at).or_insert(old);
                }
            }
        }
        inode.data[pos..end].copy_from_slice(bytes);
        inode.written_to = inode.written_to.max(end);
    }

    pub(super) fn store_torn(&mut self, inode: usize, pos: usize, bytes: &[u8], tear: Tear, dice: &mut Dice) {
        self.store_some(inode, pos, bytes, &tear.sectors(bytes.len() / SECTOR, dice));
    }

    /// Stores the sectors that land, readable and not stable.
    fn store_some(&mut self, inode: usize, pos: usize, bytes: &[u8], lands: &[bool]) {
        for (number, _) in lands.iter().enumerate().filter(|(_, lands)| **lands) {
            let at = number * SECTOR;
            self.store(inode, pos + at, &bytes[at..at + SECTOR], false);
        }
    }

    /// Some of the writes under way are going to land after the process has died. Answers their numbers, counted from `number` on.
    pub(super) fn put_off_some(&mut self, number: u64, tear: Tear, dice: &mut Dice) -> std::ops::Range<u64> {
        let before = self.late.len();
        for effect in &self.under_way {
            if let Effect::Write { file, pos, data, .. } = effect
                && dice.chance(70)
            {
                let number = number + (self.late.len() - before) as u64;
                let lands = tear.sectors(data.len() / SECTOR, dice);
                self.late.push(Late { number, inode: self.open[file], pos: *pos as usize, data: data.as_slice().to_vec(), lands });
            }
        }
        let late = &self.late;
        let open = &self.open;
        self.under_way.retain(|effect| match effect {
            Effect::Write { file, pos, .. } => !late.iter().any(|l| l.inode == open[file] && l.pos == *pos as usize),
            _ => true,
        });
        number..number + (self.late.len() - before) as u64
    }

    /// A late write lands: readable, and stable once somebody syncs.
    /// Answers its file, place and length; `None` where the file was let go meanwhile, and took its late writes along.
    pub(super) fn land(&mut self, number: u64) -> Option<(String, usize, usize)> {
        let at = self.late.iter().position(|late| late.number == number).expect("each late write lands once");
        let Late { inode, pos, data, lands, .. } = self.late.remove(at);
        if pos + data.len() > self.inodes[inode].len() {
            return None;
        }
        self.store_some(inode, pos, &data, &lands);
        let name = self.names.iter().find(|(_, named)| **named == inode).map(|(name, _)| name.clone());
        Some((name?, pos, data.len()))
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
        self.inodes.iter_mut().for_each(|inode| inode.failed.clear());
        // A file system whose journal failed is mounted again, and what did not get into it is gone; or the next sync gets through after all.
        if std::mem::take(&mut self.sync_failed) && dice.chance(50) {
            self.lose_names(tear, dice);
        }
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
            if inode.cut_off_bytes > 0 {
                match dice.chance(50) {
                    true => self.cuts_undone += 1,
                    false => inode.data.truncate(inode.len()),
                }
                inode.cut_off_bytes = 0;
            }
        }
        self.lose_names(tear, dice);
        self.start_ops_left = None;
        self.start_ops = 0;
    }

    /// Of the changes of names that were not synced a prefix is kept.
    fn lose_names(&mut self, tear: Tear, dice: &mut Dice) {
        let kept = match tear {
            Tear::Nothing => 0,
            Tear::Everything => self.dir_ops.len(),
            _ => dice.below(self.dir_ops.len() as u64 + 1) as usize,
        };
        self.names = self.stable_names.clone();
        for op in &self.dir_ops[..kept] {
            apply(&mut self.names, op);
        }
        self.settle_names();
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

    /// The bytes of its segments.
    pub(super) fn segments(&self) -> impl Iterator<Item = &[u8]> {
        let segments = self.names.iter().filter(|(name, _)| name.starts_with("seg-"));
        segments.map(|(_, inode)| self.inodes[*inode].bytes())
    }

    /// A copy of the files as they are, with nothing open or under way.
    #[cfg(test)]
    pub(crate) fn snapshot(&self) -> SimDisk {
        SimDisk { inodes: self.inodes.clone(), names: self.names.clone(), stable_names: self.names.clone(), ..SimDisk::default() }
    }

    /// A file's bytes, to be damaged or looked at.
    #[cfg(test)]
    pub(crate) fn file(&mut self, name: &str) -> &mut Vec<u8> {
        let inode = &mut self.inodes[self.names[name]];
        inode.data.truncate(inode.len());
        (inode.written_to, inode.cut_off_bytes) = (inode.data.len(), 0);
        &mut inode.data
    }
    pub(crate) fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }
    /// All files as they are.
    #[cfg(feature = "sim")]
    pub(super) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        self.names.iter().map(|(name, inode)| (name.clone(), self.inodes[*inode].bytes().to_vec())).collect()
    }
    #[cfg(test)]
    pub(crate) fn put_file(&mut self, name: &str, data: Vec<u8>) {
        let inode = self.make(name, 0);
        self.inodes[inode] = Inode { written_to: data.len(), data, ..Inode::default() };
        self.settle_names();
    }
    #[cfg(test)]
    pub(crate) fn remove_file(&mut self, name: &str) {
        self.names.remove(name);
        self.settle_names();
    }

    pub(super) fn start_op(&mut self, op: &'static str, name: &str) -> Result<(), DiskError> {
        self.start_ops += 1;
        match &mut self.fail_start_op {
            Some(_) if op == "read" => {}
            Some(0) => {
                self.fail_start_op = None;
                return Err(DiskError { op, name: name.to_string(), errno: EIO });
            }
            Some(before) => *before -= 1,
            None => {}
        }
        match &mut self.start_ops_left {
            Some(0) => Err(DiskError { op, name: name.to_string(), errno: STOPPED }),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(super) fn inode_of(&self, file: FileId) -> usize {
        *self.open.get(&file).unwrap_or_else(|| panic!("{file} is not open"))
    }
}
