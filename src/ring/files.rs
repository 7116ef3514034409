//! Files: handles, writes and reads, and operations on names, each a small chain of ring operations.
//!
//! ```text
//!   Create:  openat (O_EXCL) --> fallocate --> done        a failed fallocate: close, unlinkat, then the first error
//!   Cut:     ftruncate --> fdatasync --> done
//! ```
//! Invariants: a slot holds everything its operation points to (data, buffer, paths) until the completion; a handle is closed only
//! with no operation on it (asserted); every token ends in one `Completion::Io`.
//!
//! What this does not promise: a name is durable only after `SyncDir`. A write may be short; the caller sees the count.
//!
//! Not here: which file is what (`log/`).

use super::queue::{Cqe, Kind, Queue, Tag};
use super::{Completion, RingError};
use crate::bytes::{BufMut, Bytes};
use crate::effects::{FileOp, Outcome, Token};
use crate::ids::FileId;
use io_uring::{opcode, squeue, types};
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

/// A write or read that the kernel interrupted or put off is repeated so often before its error is handed on.
const RETRY_MAX: u8 = 8;
const CREATE_FLAGS: i32 = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_DIRECT | libc::O_DSYNC | libc::O_CLOEXEC;
const CREATE_MODE: libc::mode_t = 0o640;
const SLOT_BITS: u32 = 24;

struct OpenFile {
    fd: OwnedFd,
    in_flight: u32,
}

enum State {
    Free,
    Write {
        file: FileId,
        pos: u64,
        data: Bytes,
    },
    Read {
        file: FileId,
        pos: u64,
        buf: BufMut,
    },
    CreateOpen {
        file: FileId,
        len_bytes: u64,
    },
    CreateAllocate {
        file: FileId,
        fd: OwnedFd,
    },
    CreateUndo {
        errno: i32,
    },
    Cut {
        file: FileId,
    },
    CutSync {
        file: FileId,
    },
    /// Rename, exchange, remove, close, sync of the directory: one operation, no value but success.
    Plain,
}

struct Slot {
    state: State,
    token: Token,
    /// Counts the uses of this slot, so that a tag is never that of an earlier operation.
    serial: u64,
    retry_count: u8,
    /// With the terminating zero; reused.
    path: Vec<u8>,
    path_to: Vec<u8>,
}

pub(super) struct Files {
    dir: OwnedFd,
    open: HashMap<FileId, OpenFile>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Kept open here too, until the ring is gone.
    lock: Option<File>,
    ops: usize,
    writes: usize,
    completed_writes: u64,
}

impl Files {
    pub(super) fn new(dir: OwnedFd) -> Files {
        Files { dir, open: HashMap::new(), slots: Vec::new(), free: Vec::new(), lock: None, ops: 0, writes: 0, completed_writes: 0 }
    }

    pub(super) fn in_flight_ops(&self) -> usize {
        self.ops
    }
    /// Writes that have completed since the start, well or not.
    pub(super) fn completed_writes(&self) -> u64 {
        self.completed_writes
    }

    pub(super) fn in_flight_writes(&self) -> usize {
        self.writes
    }

    pub(super) fn attach(&mut self, id: FileId, fd: OwnedFd) {
        let before = self.open.insert(id, OpenFile { fd, in_flight: 0 });
        assert!(before.is_none(), "{id:?} is attached twice");
    }

    pub(super) fn register_lock(&mut self, queue: &Queue, lock: File) -> Result<(), RingError> {
        queue.io().submitter().register_files(&[lock.as_raw_fd()]).map_err(RingError::Lock)?;
        self.lock = Some(lock);
        Ok(())
    }

    pub(super) fn write(&mut self, queue: &mut Queue, ready: &mut Vec<Completion>, token: Token, file: FileId, pos: u64, data: Bytes) {
        let Some(open) = self.open.get_mut(&file) else {
            ready.push(Completion::Io { token, outcome: Outcome::Write(Err(libc::EBADF)) });
            return;
        };
        open.in_flight += 1;
        self.writes += 1;
        let index = self.take(token, State::Write { file, pos, data });
        self.submit(queue, index);
    }

    pub(super) fn read(&mut self, queue: &mut Queue, ready: &mut Vec<Completion>, token: Token, file: FileId, pos: u64, buf: BufMut) {
        let Some(open) = self.open.get_mut(&file) else {
            ready.push(Completion::Io { token, outcome: Outcome::Read(buf, Err(libc::EBADF)) });
            return;
        };
        open.in_flight += 1;
        let index = self.take(token, State::Read { file, pos, buf });
        self.submit(queue, index);
    }

    pub(super) fn file_op(&mut self, queue: &mut Queue, ready: &mut Vec<Completion>, token: Token, op: FileOp) {
        if let Err(errno) = self.start(queue, token, op) {
            ready.push(Completion::Io { token, outcome: Outcome::File(Err(errno)) });
        }
    }

    fn start(&mut self, queue: &mut Queue, token: Token, op: FileOp) -> Result<(), i32> {
        let dir = types::Fd(self.dir.as_raw_fd());
        match op {
            FileOp::Create { file, name, len_bytes } => {
                check_name(&name)?;
                if self.open.contains_key(&file) {
                    return Err(libc::EEXIST);
                }
                let index = self.take(token, State::CreateOpen { file, len_bytes });
                set_path(&mut self.slots[index].path, &name);
                let path = self.slots[index].path.as_ptr().cast();
                self.push(queue, index, opcode::OpenAt::new(dir, path).flags(CREATE_FLAGS).mode(CREATE_MODE).build());
            }
            FileOp::Rename { from, to } => self.rename(queue, token, &from, &to, 0)?,
            FileOp::Exchange { first, second } => self.rename(queue, token, &first, &second, libc::RENAME_EXCHANGE)?,
            FileOp::Remove { name } => {
                check_name(&name)?;
                let index = self.take(token, State::Plain);
                set_path(&mut self.slots[index].path, &name);
                self.push_unlink(queue, index);
            }
            FileOp::Cut { file, len_bytes } => {
                let open = self.open.get_mut(&file).ok_or(libc::EBADF)?;
                assert_eq!(open.in_flight, 0, "{file:?} is cut with operations on it");
                open.in_flight += 1;
                let fd = types::Fd(open.fd.as_raw_fd());
                let index = self.take(token, State::Cut { file });
                self.push(queue, index, opcode::Ftruncate::new(fd, len_bytes).build());
            }
            FileOp::Close { file } => {
                let open = self.open.remove(&file).ok_or(libc::EBADF)?;
                assert_eq!(open.in_flight, 0, "{file:?} is closed with operations on it");
                let index = self.take(token, State::Plain);
                // From here on the descriptor is the kernel's to close, whatever the result.
                self.push(queue, index, opcode::Close::new(types::Fd(open.fd.into_raw_fd())).build());
            }
            FileOp::SyncDir => {
                let index = self.take(token, State::Plain);
                self.push(queue, index, opcode::Fsync::new(dir).build());
            }
        }
        Ok(())
    }

    fn rename(&mut self, queue: &mut Queue, token: Token, from: &str, to: &str, flags: u32) -> Result<(), i32> {
        check_name(from)?;
        check_name(to)?;
        let dir = types::Fd(self.dir.as_raw_fd());
        let index = self.take(token, State::Plain);
        let slot = &mut self.slots[index];
        set_path(&mut slot.path, from);
        set_path(&mut slot.path_to, to);
        let entry = opcode::RenameAt::new(dir, slot.path.as_ptr().cast(), dir, slot.path_to.as_ptr().cast()).flags(flags).build();
        self.push(queue, index, entry);
        Ok(())
    }

    pub(super) fn on_cqe(&mut self, queue: &mut Queue, cqe: Cqe, out: &mut Vec<Completion>) {
        let index = (cqe.tag.number() & ((1 << SLOT_BITS) - 1)) as usize;
        let slot = &mut self.slots[index];
        assert_eq!(slot.serial, cqe.tag.number() >> SLOT_BITS, "a completion of an operation that is over");
        let token = slot.token;
        let result = if cqe.result < 0 { Err(-cqe.result) } else { Ok(cqe.result as u32) };
        if matches!(result, Err(libc::EINTR | libc::EAGAIN))
            && matches!(slot.state, State::Write { .. } | State::Read { .. })
            && slot.retry_count < RETRY_MAX
        {
            slot.retry_count += 1;
            self.submit(queue, index);
            return;
        }
        let outcome = match std::mem::replace(&mut slot.state, State::Free) {
            State::Free => panic!("a completion for a free slot"),
            State::Write { file, .. } => {
                self.writes -= 1;
                self.completed_writes += 1;
                self.release(file);
                Outcome::Write(result)
            }
            State::Read { file, buf, .. } => {
                self.release(file);
                Outcome::Read(buf, result)
            }
            State::CreateOpen { file, len_bytes } => match result {
                Ok(fd) => {
                    // SAFETY: the kernel has just opened this descriptor for us.
                    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
                    let entry = opcode::Fallocate::new(types::Fd(fd.as_raw_fd()), len_bytes).build();
                    slot.state = State::CreateAllocate { file, fd };
                    self.push(queue, index, entry);
                    return;
                }
                Err(errno) => Outcome::File(Err(errno)),
            },
            State::CreateAllocate { file, fd } => match result {
                Ok(_) => {
                    self.attach(file, fd);
                    Outcome::File(Ok(()))
                }
                Err(errno) => {
                    drop(fd);
                    slot.state = State::CreateUndo { errno };
                    self.push_unlink(queue, index);
                    return;
                }
            },
            // If the name could not be removed either, then the first error is still the one to know.
            State::CreateUndo { errno } => Outcome::File(Err(errno)),
            State::Cut { file } if result.is_ok() => {
                slot.state = State::CutSync { file };
                let fd = types::Fd(self.open[&file].fd.as_raw_fd());
                self.push(queue, index, opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build());
                return;
            }
            State::Cut { file } | State::CutSync { file } => {
                self.release(file);
                Outcome::File(result.map(|_| ()))
            }
            State::Plain => Outcome::File(result.map(|_| ())),
        };
        self.free.push(index as u32);
        self.ops -= 1;
        out.push(Completion::Io { token, outcome });
    }

    fn release(&mut self, file: FileId) {
        let open = self.open.get_mut(&file).expect("a file is not closed with operations on it");
        open.in_flight -= 1;
    }

    fn take(&mut self, token: Token, state: State) -> usize {
        self.ops += 1;
        let index = match self.free.pop() {
            Some(index) => index as usize,
            None => {
                assert!(self.slots.len() < 1 << SLOT_BITS, "too many file operations in flight");
                self.slots.push(Slot { state: State::Free, token, serial: 0, retry_count: 0, path: Vec::new(), path_to: Vec::new() });
                self.slots.len() - 1
            }
        };
        let slot = &mut self.slots[index];
        slot.state = state;
        slot.token = token;
        slot.serial = (slot.serial + 1) & ((1 << (60 - SLOT_BITS)) - 1);
        slot.retry_count = 0;
        index
    }

    fn submit(&mut self, queue: &mut Queue, index: usize) {
        let entry = match &mut self.slots[index].state {
            State::Write { file, pos, data } => {
                let fd = types::Fd(self.open[file].fd.as_raw_fd());
                opcode::Write::new(fd, data.as_slice().as_ptr(), data.len() as u32).offset(*pos).build()
            }
            State::Read { file, pos, buf } => {
                let fd = types::Fd(self.open[file].fd.as_raw_fd());
                let len = buf.len() as u32;
                opcode::Read::new(fd, buf.as_mut_slice().as_mut_ptr(), len).offset(*pos).build()
            }
            _ => panic!("only writes and reads are submitted this way"),
        };
        self.push(queue, index, entry);
    }

    fn push_unlink(&mut self, queue: &mut Queue, index: usize) {
        let path = self.slots[index].path.as_ptr().cast();
        self.push(queue, index, opcode::UnlinkAt::new(types::Fd(self.dir.as_raw_fd()), path).build());
    }

    fn push(&mut self, queue: &mut Queue, index: usize, entry: squeue::Entry) {
        let tag = Tag::new(Kind::File, self.slots[index].serial << SLOT_BITS | index as u64);
        // SAFETY: what the entry points to (data, buffer, paths) is held by the slot, on the heap, and is neither changed nor freed
        // before the completion; descriptors stay open (`in_flight`, `state`, `dir`).
        unsafe { queue.push(entry, tag) };
    }
}

fn check_name(name: &str) -> Result<(), i32> {
    let plain = !name.is_empty() && name != "." && name != ".." && !name.bytes().any(|b| b == b'/' || b == 0);
    if plain { Ok(()) } else { Err(libc::EINVAL) }
}

fn set_path(path: &mut Vec<u8>, name: &str) {
    path.clear();
    path.extend_from_slice(name.as_bytes());
    path.push(0);
}
