//! Atomic replacement of a small file, as a machine of steps: write the temporary file, exchange both names, sync the directory.
//!
//! The first time in a process the temporary file is created and renamed over the old one. From then on there are two files that take turns: what
//! was replaced keeps its place as the temporary file, and is written over the next time. So replacing needs no space on a full disk, and frees none
//! (on a file system mounted with `discard` the old checkpoint of 10,000 partitions, 12 MB, kept the device busy for 3 ms at each seal). A file has
//! room to grow by a quarter; what needs more gets a new one.
//!
//! A crash between any two steps leaves the old file whole, or the new one; a leftover temporary file is removed at the next start.
//! No space for a new file is not a failure: nothing has changed, so it is tried again later. Any other error is final.
//!
//! Invariants: the file that has the name is never written to; the other one only once the exchange before is durable.
//!
//! Not here: what is written (`manifest.rs`, `checkpoint.rs`).

use crate::bytes::Slab;
use crate::effects::{Effect, Effects, FileOp, Now, Outcome};
use crate::ids::FileId;
use crate::log::envelope::{self, ENVELOPE_BYTES, image_bytes};
use crate::log::layout::{BLOCK_ALIGN, align_up_usize};
use crate::log::operation::{PendingWrite, Progress, Purpose, temporary_file, token};
use crate::mutants::{Mutant, Mutants};
use rkyv::util::AlignedVec;
use std::sync::Arc;

/// Bytes of one write: large checkpoints must not make one long write in front of blocks.
const CHUNK_BYTES: usize = 256 << 10;
/// Wait before a temporary file that found no space is tried again, in microseconds.
const RETRY_US: u64 = 1_000_000;
const ENOENT: i32 = 2;
const EEXIST: i32 = 17;
/// A new file has room for so much more than it holds, as a part.
const SLACK_PART: usize = 4;

/// Whether an error number says that there is no room (ENOSPC, EDQUOT).
pub(crate) fn is_no_space(errno: i32) -> bool {
    matches!(errno, 28 | 122)
}

/// Whether an error number says that this file system does not exchange names (EINVAL, ENOSYS, EOPNOTSUPP).
fn cannot_exchange(errno: i32) -> bool {
    matches!(errno, 22 | 38 | 95)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Idle,
    /// The file that takes turns is too small: it is closed, then removed.
    CloseSpare,
    RemoveSpare,
    Create,
    /// Waits for memory to write the chunk at `written`.
    WantBuffer,
    Write,
    /// Both names are exchanged.
    Exchange,
    /// They cannot be: the file that has the name is let go first.
    CloseCurrent,
    /// The temporary file's name takes the place of the other one.
    Rename,
    SyncDir,
    /// The leftover of a creation that failed is being removed.
    Clean,
    WaitUntil(u64),
}

/// What a completion led to.
pub(crate) enum Replaced {
    /// More to come.
    Going,
    /// The new content is durable under its name.
    Done,
    /// Final.
    Failed(String),
}

/// An open file and its bytes.
#[derive(Clone, Copy, Debug)]
struct Place {
    file: FileId,
    bytes: usize,
}

/// Replaces one file, one content at a time.
pub(crate) struct Replace {
    name: Arc<str>,
    temporary: Arc<str>,
    purpose: Purpose,
    step: Step,
    /// What has the name, once this process has written it.
    current: Option<Place>,
    /// What has the temporary name: written over next, or being written.
    spare: Option<Place>,
    /// What a file is called that has to be created.
    fresh: FileId,
    header: [u8; ENVELOPE_BYTES],
    payload: AlignedVec<16>,
    /// Bytes of both copies that are written.
    written: usize,
    write: Option<PendingWrite>,
    /// Last error number of a creation without space; 0 after a success.
    pub(crate) create_errno: i32,
    mutants: Mutants,
}

impl Replace {
    pub(crate) fn new(name: &str, purpose: Purpose, mutants: Mutants) -> Replace {
        Replace {
            name: name.into(),
            temporary: format!("{name}.new").into(),
            purpose,
            step: Step::Idle,
            current: None,
            spare: None,
            fresh: FileId(0),
            header: [0; ENVELOPE_BYTES],
            payload: AlignedVec::new(),
            written: 0,
            write: None,
            create_errno: 0,
            mutants,
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.step == Step::Idle
    }

    /// The scratch of the last payload, to serialize the next one into.
    pub(crate) fn take_scratch(&mut self) -> AlignedVec<16> {
        assert!(self.is_idle());
        let mut scratch = std::mem::take(&mut self.payload);
        scratch.clear();
        scratch
    }

    /// Begins to write `payload`. `temporaries` counts the files of this process.
    pub(crate) fn begin(
        &mut self,
        schema: u16,
        version: u16,
        payload: AlignedVec<16>,
        temporaries: &mut u64,
        slab: &mut Slab,
        effects: &mut Effects,
    ) {
        self.begin_sealed(envelope::seal(schema, version, &payload), payload, temporaries, slab, effects);
    }

    /// The same for a payload that has its header already.
    pub(crate) fn begin_sealed(
        &mut self,
        header: [u8; ENVELOPE_BYTES],
        payload: AlignedVec<16>,
        temporaries: &mut u64,
        slab: &mut Slab,
        effects: &mut Effects,
    ) {
        assert!(self.is_idle(), "{} is being replaced already", self.name);
        self.header = header;
        self.payload = payload;
        self.written = 0;
        *temporaries += 1;
        self.fresh = temporary_file(*temporaries);
        match self.spare {
            Some(spare) if spare.bytes >= 2 * self.image_bytes() => self.write_chunk(slab, effects),
            Some(spare) => {
                self.step = Step::CloseSpare;
                self.file_op(FileOp::Close { file: spare.file }, effects);
            }
            None => self.create(effects),
        }
    }

    fn create(&mut self, effects: &mut Effects) {
        self.step = Step::Create;
        let op = FileOp::Create { file: self.fresh, name: Arc::clone(&self.temporary), len_bytes: self.fresh_bytes() as u64 };
        self.file_op(op, effects);
    }

    fn fresh_bytes(&self) -> usize {
        let image = self.image_bytes();
        2 * align_up_usize(image + image / SLACK_PART, BLOCK_ALIGN)
    }

    fn file_op(&self, op: FileOp, effects: &mut Effects) {
        effects.push(Effect::File { token: token(self.purpose, 0), op });
    }

    fn image_bytes(&self) -> usize {
        image_bytes(self.payload.len())
    }

    /// Goes on where memory or space was short. To be called in each turn.
    pub(crate) fn on_turn(&mut self, now: Now, slab: &mut Slab, effects: &mut Effects) {
        match self.step {
            Step::WantBuffer => self.write_chunk(slab, effects),
            Step::WaitUntil(at_us) if now.mono_us >= at_us => self.create(effects),
            Step::WaitUntil(at_us) => effects.wake_at(at_us),
            _ => {}
        }
    }

    fn write_chunk(&mut self, slab: &mut Slab, effects: &mut Effects) {
        let spare = self.spare.expect("there is a file to write");
        let image = self.image_bytes();
        let (copy, from) = (self.written / image, self.written % image);
        let len = CHUNK_BYTES.min(image - from);
        let Some(mut buffer) = slab.take(len) else {
            self.step = Step::WantBuffer;
            return;
        };
        fill_image_part(buffer.as_mut_slice(), from, &self.header, &self.payload);
        // A reader looks for the second copy in the middle of the file.
        let pos = copy * (spare.bytes / 2) + from;
        let write = PendingWrite::new(spare.file, pos as u64, slab.freeze(buffer));
        write.push(token(self.purpose, 0), effects);
        self.write = Some(write);
        self.step = Step::Write;
    }

    /// Takes a completion of this file's operations.
    pub(crate) fn on_done(&mut self, now: Now, slab: &mut Slab, outcome: Outcome, effects: &mut Effects) -> Replaced {
        match (self.step, outcome) {
            // A close that fails loses a descriptor, nothing else.
            (Step::CloseSpare, Outcome::File(_)) => {
                self.spare = None;
                self.step = Step::RemoveSpare;
                self.file_op(FileOp::Remove { name: Arc::clone(&self.temporary) }, effects);
            }
            (Step::RemoveSpare, Outcome::File(Ok(()) | Err(ENOENT))) => self.create(effects),
            (Step::Create, Outcome::File(Ok(()))) => {
                self.create_errno = 0;
                self.spare = Some(Place { file: self.fresh, bytes: self.fresh_bytes() });
                self.write_chunk(slab, effects);
            }
            (Step::Create, Outcome::File(Err(errno))) if is_no_space(errno) || errno == EEXIST => {
                self.create_errno = errno;
                self.step = Step::Clean;
                self.file_op(FileOp::Remove { name: Arc::clone(&self.temporary) }, effects);
            }
            (Step::Clean, Outcome::File(Ok(()) | Err(ENOENT))) => {
                let at_us = now.mono_us + RETRY_US;
                self.step = Step::WaitUntil(at_us);
                effects.wake_at(at_us);
            }
            (Step::Write, Outcome::Write(result)) => {
                let write = self.write.as_mut().expect("a write is under way");
                match write.on_done(result) {
                    Progress::Again => write.push(token(self.purpose, 0), effects),
                    Progress::Failed(reason) => return Replaced::Failed(format!("{} ({}): {reason}", self.name, self.temporary)),
                    Progress::Whole => self.on_chunk_written(slab, effects),
                }
            }
            (Step::Exchange, Outcome::File(Ok(()))) => {
                std::mem::swap(&mut self.current, &mut self.spare);
                return self.on_named(effects);
            }
            (Step::Exchange, Outcome::File(Err(errno))) if cannot_exchange(errno) => {
                self.step = Step::CloseCurrent;
                self.file_op(FileOp::Close { file: self.current.expect("exchanged with it").file }, effects);
            }
            (Step::CloseCurrent, Outcome::File(_)) => {
                self.current = None;
                self.rename(effects);
            }
            (Step::Rename, Outcome::File(Ok(()))) => {
                self.current = self.spare.take();
                return self.on_named(effects);
            }
            (Step::SyncDir, Outcome::File(Err(_))) if self.mutants.has(Mutant::RetryFailedSync) => {
                self.file_op(FileOp::SyncDir, effects);
            }
            (Step::SyncDir, Outcome::File(Ok(()))) => {
                self.step = Step::Idle;
                return Replaced::Done;
            }
            (step, Outcome::File(Err(errno))) => {
                return Replaced::Failed(format!("replacing {}: {step:?} failed with error {errno}", self.name));
            }
            (step, outcome) => panic!("{outcome:?} does not end {step:?} of {}", self.name),
        }
        Replaced::Going
    }

    fn on_chunk_written(&mut self, slab: &mut Slab, effects: &mut Effects) {
        let write = self.write.take().expect("a write has ended");
        self.written += write.data.len();
        if self.written < 2 * self.image_bytes() {
            self.write_chunk(slab, effects);
        } else if self.current.is_some() {
            self.step = Step::Exchange;
            self.file_op(FileOp::Exchange { first: Arc::clone(&self.temporary), second: Arc::clone(&self.name) }, effects);
        } else {
            self.rename(effects);
        }
    }

    fn rename(&mut self, effects: &mut Effects) {
        self.step = Step::Rename;
        self.file_op(FileOp::Rename { from: Arc::clone(&self.temporary), to: Arc::clone(&self.name) }, effects);
    }

    /// The new content has the name.
    fn on_named(&mut self, effects: &mut Effects) -> Replaced {
        if self.mutants.has(Mutant::ForgetDirectorySync) {
            self.step = Step::Idle;
            return Replaced::Done;
        }
        self.step = Step::SyncDir;
        self.file_op(FileOp::SyncDir, effects);
        Replaced::Going
    }
}

/// Fills `out` with the bytes of an image from `from` on.
fn fill_image_part(out: &mut [u8], from: usize, header: &[u8; ENVELOPE_BYTES], payload: &[u8]) {
    let mut filled = 0;
    for (source, start) in [(&header[..], 0), (payload, ENVELOPE_BYTES)] {
        let (begin, end) = (start.max(from + filled), start + source.len());
        if begin < end && from + filled < end {
            let part = &source[begin - start..end - start];
            let part = &part[..part.len().min(out.len() - filled)];
            out[filled..filled + part.len()].copy_from_slice(part);
            filled += part.len();
        }
        if filled == out.len() {
            return;
        }
    }
    out[filled..].fill(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimDisk;

    struct Bench {
        disk: SimDisk,
        slab: Slab,
        replace: Replace,
        temporaries: u64,
    }

    impl Bench {
        fn new() -> Bench {
            Bench {
                disk: SimDisk::new(),
                slab: Slab::new(8 << 20),
                replace: Replace::new("table", Purpose::Manifest, Mutants::default()),
                temporaries: 0,
            }
        }

        /// Replaces by `len` bytes of `fill`; answers the operations that it took, without the writes.
        fn put(&mut self, len: usize, fill: u8) -> Vec<&'static str> {
            let now = Now { mono_us: 0, utc_us: 0 };
            let mut payload = AlignedVec::new();
            payload.resize(len, fill);
            let (mut effects, mut took) = (Effects::new(), Vec::new());
            self.replace.begin(7, 1, payload, &mut self.temporaries, &mut self.slab, &mut effects);
            loop {
                took.extend(effects.list.iter().filter_map(|effect| match effect {
                    Effect::File { op: FileOp::Create { .. }, .. } => Some("create"),
                    Effect::File { op: FileOp::Rename { .. }, .. } => Some("rename"),
                    Effect::File { op: FileOp::Exchange { .. }, .. } => Some("exchange"),
                    Effect::File { op: FileOp::Remove { .. }, .. } => Some("remove"),
                    Effect::File { op: FileOp::Close { .. }, .. } => Some("close"),
                    Effect::File { op: FileOp::SyncDir, .. } => Some("sync"),
                    Effect::Write { file, .. } => {
                        assert_ne!(Some(*file), self.replace.current.map(|place| place.file), "what has the name is not written to");
                        None
                    }
                    other => panic!("{other:?}"),
                }));
                self.disk.submit(&mut effects);
                let (_, outcome) = self.disk.complete(0);
                match self.replace.on_done(now, &mut self.slab, outcome, &mut effects) {
                    Replaced::Going => {}
                    Replaced::Done => break,
                    Replaced::Failed(reason) => panic!("{reason}"),
                }
            }
            let mut file = AlignedVec::<16>::new();
            file.extend_from_slice(self.disk.file("table"));
            assert_eq!(envelope::open(&file, 7, 1).unwrap(), vec![fill; len]);
            file[..4096].fill(0);
            assert_eq!(envelope::open(&file, 7, 1).unwrap(), vec![fill; len], "the second copy is where a reader looks for it");
            took
        }
    }

    #[test]
    fn two_files_take_turns_and_need_no_space() {
        let mut bench = Bench::new();
        assert_eq!(bench.put(10_000, 1), ["create", "rename", "sync"]);
        assert_eq!(bench.put(10_000, 2), ["create", "exchange", "sync"]);
        bench.disk.free_bytes = Some(0);
        for fill in 3..9 {
            assert_eq!(bench.put(if fill % 2 == 0 { 12_000 } else { 20 }, fill), ["exchange", "sync"]);
        }
        bench.disk.free_bytes = None;
        assert_eq!(bench.put(600_000, 9), ["close", "remove", "create", "exchange", "sync"]);
        assert_eq!(bench.put(700_000, 10), ["close", "remove", "create", "exchange", "sync"]);
        assert_eq!(bench.put(700_000, 11), ["exchange", "sync"], "there was room to grow");
        assert_eq!(bench.disk.names(), ["table", "table.new"]);
    }

    #[test]
    fn a_file_system_that_does_not_exchange_names_gets_a_new_file_each_time() {
        let mut bench = Bench::new();
        bench.disk.cannot_exchange = true;
        assert_eq!(bench.put(10_000, 1), ["create", "rename", "sync"]);
        for fill in 2..5 {
            assert_eq!(bench.put(10_000, fill), ["create", "exchange", "close", "rename", "sync"]);
            assert_eq!((bench.disk.names(), bench.disk.open.len()), (vec!["table".to_owned()], 1));
        }
    }

    #[test]
    fn parts_of_an_image_make_the_image() {
        let payload: Vec<u8> = (0..20_000u32).map(|n| n as u8).collect();
        let header = envelope::seal(1, 1, &payload);
        let mut whole = vec![9; image_bytes(payload.len())];
        envelope::write_image(&mut whole, &header, &payload);
        for chunk in [4096, 8192, 12288] {
            let mut parts = Vec::new();
            while parts.len() < whole.len() {
                let mut part = vec![7; chunk.min(whole.len() - parts.len())];
                fill_image_part(&mut part, parts.len(), &header, &payload);
                parts.extend(part);
            }
            assert_eq!(parts, whole, "chunks of {chunk}");
        }
    }
}
