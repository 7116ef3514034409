//! Atomic replacement of a small file, as a machine of steps: create the temporary file, write, rename over the old one, sync the directory.
//!
//! A crash between any two steps leaves the old file whole, or the new one; a leftover temporary file is removed at the next start.
//! No space for the temporary file is not a failure: nothing has changed, so it is tried again later. Any other error is final.
//!
//! Not here: what is written (`manifest.rs`, `checkpoint.rs`).

use crate::bytes::Slab;
use crate::effects::{Effect, Effects, FileOp, Now, Outcome};
use crate::ids::FileId;
use crate::log::envelope::{self, ENVELOPE_BYTES, image_bytes};
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

/// Whether an error number says that there is no room (ENOSPC, EDQUOT).
pub(crate) fn is_no_space(errno: i32) -> bool {
    matches!(errno, 28 | 122)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Idle,
    Create,
    /// Waits for memory to write the chunk at `written`.
    WantBuffer,
    Write,
    Rename,
    SyncDir,
    Close,
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

/// Replaces one file, one content at a time.
pub(crate) struct Replace {
    name: Arc<str>,
    temporary: Arc<str>,
    purpose: Purpose,
    step: Step,
    file: FileId,
    header: [u8; ENVELOPE_BYTES],
    payload: AlignedVec<16>,
    /// Bytes of the file (both copies) that are written.
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
            file: FileId(0),
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

    /// Begins to write `payload`. `temporaries` counts the temporary files of this process.
    pub(crate) fn begin(&mut self, schema: u16, version: u16, payload: AlignedVec<16>, temporaries: &mut u64, effects: &mut Effects) {
        assert!(self.is_idle(), "{} is being replaced already", self.name);
        self.header = envelope::seal(schema, version, &payload);
        self.payload = payload;
        self.written = 0;
        *temporaries += 1;
        self.file = temporary_file(*temporaries);
        self.create(effects);
    }

    fn create(&mut self, effects: &mut Effects) {
        self.step = Step::Create;
        self.file_op(FileOp::Create { file: self.file, name: Arc::clone(&self.temporary), len_bytes: self.file_bytes() as u64 }, effects);
    }

    fn file_op(&self, op: FileOp, effects: &mut Effects) {
        effects.push(Effect::File { token: token(self.purpose, 0), op });
    }

    fn file_bytes(&self) -> usize {
        2 * image_bytes(self.payload.len())
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
        let image = image_bytes(self.payload.len());
        let from = self.written % image;
        let len = CHUNK_BYTES.min(image - from);
        let Some(mut buffer) = slab.take(len) else {
            self.step = Step::WantBuffer;
            return;
        };
        fill_image_part(buffer.as_mut_slice(), from, &self.header, &self.payload);
        let write = PendingWrite::new(self.file, self.written as u64, slab.freeze(buffer));
        write.push(token(self.purpose, 0), effects);
        self.write = Some(write);
        self.step = Step::Write;
    }

    /// Takes a completion of this file's operations.
    pub(crate) fn on_done(&mut self, now: Now, slab: &mut Slab, outcome: Outcome, effects: &mut Effects) -> Replaced {
        match (self.step, outcome) {
            (Step::Create, Outcome::File(Ok(()))) => {
                self.create_errno = 0;
                self.write_chunk(slab, effects);
                Replaced::Going
            }
            (Step::Create, Outcome::File(Err(errno))) if is_no_space(errno) || errno == EEXIST => {
                self.create_errno = errno;
                self.step = Step::Clean;
                self.file_op(FileOp::Remove { name: Arc::clone(&self.temporary) }, effects);
                Replaced::Going
            }
            (Step::Clean, Outcome::File(Ok(()) | Err(ENOENT))) => {
                let at_us = now.mono_us + RETRY_US;
                self.step = Step::WaitUntil(at_us);
                effects.wake_at(at_us);
                Replaced::Going
            }
            (Step::Write, Outcome::Write(result)) => {
                let write = self.write.as_mut().expect("a write is under way");
                match write.on_done(result) {
                    Progress::Again => write.push(token(self.purpose, 0), effects),
                    Progress::Failed(reason) => return Replaced::Failed(format!("{} ({}): {reason}", self.name, self.temporary)),
                    Progress::Whole => self.on_chunk_written(slab, effects),
                }
                Replaced::Going
            }
            (Step::Rename, Outcome::File(Ok(()))) if self.mutants.has(Mutant::ForgetDirectorySync) => {
                self.step = Step::Close;
                self.file_op(FileOp::Close { file: self.file }, effects);
                Replaced::Going
            }
            (Step::Rename, Outcome::File(Ok(()))) => {
                self.step = Step::SyncDir;
                self.file_op(FileOp::SyncDir, effects);
                Replaced::Going
            }
            (Step::SyncDir, Outcome::File(Err(_))) if self.mutants.has(Mutant::RetryFailedSync) => {
                self.file_op(FileOp::SyncDir, effects);
                Replaced::Going
            }
            (Step::SyncDir, Outcome::File(Ok(()))) => {
                self.step = Step::Close;
                self.file_op(FileOp::Close { file: self.file }, effects);
                Replaced::Going
            }
            // The file is durable; a close that fails loses a descriptor, nothing else.
            (Step::Close, Outcome::File(_)) => {
                self.step = Step::Idle;
                Replaced::Done
            }
            (step, Outcome::File(Err(errno))) => Replaced::Failed(format!("replacing {}: {step:?} failed with error {errno}", self.name)),
            (step, outcome) => panic!("{outcome:?} does not end {step:?} of {}", self.name),
        }
    }

    fn on_chunk_written(&mut self, slab: &mut Slab, effects: &mut Effects) {
        let write = self.write.take().expect("a write has ended");
        self.written += write.data.len();
        if self.written < self.file_bytes() {
            self.write_chunk(slab, effects);
        } else {
            self.step = Step::Rename;
            self.file_op(FileOp::Rename { from: Arc::clone(&self.temporary), to: Arc::clone(&self.name) }, effects);
        }
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
