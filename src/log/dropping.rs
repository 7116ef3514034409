//! Files that nobody needs any more: cut off a little at a time, then closed and removed.
//!
//! Why not at once: where a file system is mounted with `discard`, the device is told what was freed and serves nothing else meanwhile. Removing a
//! file of 256 MiB kept synced writes of 64 KiB waiting for 50 ms (their median was 0.1 ms), cutting 1 MiB off it for 0.3 ms, 4 MiB for 1 ms. With a
//! journal the device is told at a commit, each 5 s: without a sync after each cut (`FileOp::Cut`) writes stood still for 120 and 170 ms
//! then (ext4 on a loop device), with it none waited longer than 12 ms. Where nothing is discarded the cuts cost next to nothing.
//!
//! A file that waits is whole and open, and can be had back: rather than one goes and another is made.
//!
//! Invariants: a file in here is named by no durable manifest, or as a free one, which a start forgets when it is missing or shorter; nothing is under
//! way on it. A file that stays, because the process ends or the disk refuses, is removed at the next start.
//!
//! Not here: when a segment may be freed (`background.rs`).

use crate::effects::{Effect, Effects, FileOp, Now};
use crate::log::operation::{Purpose, segment_file, segment_file_name, token};
use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes that are cut off at once while few files wait, and at most: for each `WAITING_PER_STEP` files it is `CUT_BYTES` more.
const CUT_BYTES: u64 = 1 << 20;
const CUT_BYTES_MAX: u64 = 4 << 20;
const WAITING_PER_STEP: u64 = 4;
/// Rest after a cut, in microseconds, and as a multiple of the time that the cut took: 250 MB/s (1 GB/s where many wait) or less, and a fifth of the
/// device's time at most.
const REST_US: u64 = 4_000;
const REST_FACTOR: u64 = 4;
/// A file goes in so many cuts at least, so that small segments are cut too.
const CUTS_MIN: u64 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting {
    number: u64,
    bytes: u64,
    /// Its pages were written once.
    filled: bool,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    No,
    /// Has so many bytes left, and is cut at `due_us` or later.
    Resting {
        number: u64,
        left_bytes: u64,
        due_us: u64,
    },
    Cutting {
        number: u64,
        left_bytes: u64,
        begun_us: u64,
    },
    Closing(u64),
    Removing,
}

/// The queue of such files and the one that is going.
#[derive(Debug)]
pub(crate) struct Dropper {
    cut_bytes: u64,
    waiting: VecDeque<Waiting>,
    step: Step,
}

impl Dropper {
    pub(crate) fn new(segment_bytes: u64) -> Dropper {
        Dropper { cut_bytes: CUT_BYTES.min((segment_bytes / CUTS_MIN).next_multiple_of(4096)), waiting: VecDeque::new(), step: Step::No }
    }

    /// Takes over an open file, which is begun with in the next turn.
    pub(crate) fn push(&mut self, number: u64, bytes: u64, filled: bool) {
        self.waiting.push_back(Waiting { number, bytes, filled });
    }

    /// Gives a whole file of `bytes` back, one that was written if there is any: its number and whether it was.
    pub(crate) fn take_back(&mut self, bytes: u64) -> Option<(u64, bool)> {
        let fits = |want_filled: bool| self.waiting.iter().rposition(|file| file.bytes == bytes && (file.filled || !want_filled));
        let file = self.waiting.remove(fits(true).or_else(|| fits(false))?).expect("found");
        Some((file.number, file.filled))
    }

    /// Takes the next step when it is due; `in_haste`: space is needed now, so a file goes whole.
    pub(crate) fn on_turn(&mut self, now: Now, in_haste: bool, effects: &mut Effects) {
        if let Step::No = self.step
            && let Some(file) = self.waiting.pop_front()
        {
            self.step = Step::Resting { number: file.number, left_bytes: file.bytes, due_us: now.mono_us };
        }
        let Step::Resting { number, left_bytes, due_us } = self.step else { return };
        if in_haste {
            return self.close(number, effects);
        }
        if now.mono_us < due_us {
            return effects.wake_at(due_us);
        }
        let cut_bytes = (self.cut_bytes * (1 + self.waiting.len() as u64 / WAITING_PER_STEP)).min(CUT_BYTES_MAX);
        if left_bytes <= cut_bytes {
            return self.close(number, effects);
        }
        let left_bytes = left_bytes - cut_bytes;
        let op = FileOp::Cut { file: segment_file(number), len_bytes: left_bytes };
        effects.push(Effect::File { token: token(Purpose::DropFile, number), op });
        self.step = Step::Cutting { number, left_bytes, begun_us: now.mono_us };
    }

    fn close(&mut self, number: u64, effects: &mut Effects) {
        effects.push(Effect::File { token: token(Purpose::DropFile, number), op: FileOp::Close { file: segment_file(number) } });
        self.step = Step::Closing(number);
    }

    /// Takes the end of a step.
    pub(crate) fn on_done(&mut self, now: Now, result: Result<(), i32>, effects: &mut Effects) {
        self.step = match self.step {
            Step::Cutting { number, left_bytes, begun_us } if result.is_ok() => {
                let due_us = now.mono_us + REST_US.max(REST_FACTOR * now.mono_us.saturating_sub(begun_us));
                effects.wake_at(due_us);
                Step::Resting { number, left_bytes, due_us }
            }
            // Before 6.9 a ring cannot cut. Whatever it is, removing the file does not need it.
            Step::Cutting { number, .. } => return self.close(number, effects),
            Step::Closing(number) => {
                let op = FileOp::Remove { name: Arc::from(segment_file_name(number)) };
                effects.push(Effect::File { token: token(Purpose::DropFile, number), op });
                Step::Removing
            }
            Step::Removing => Step::No,
            Step::No | Step::Resting { .. } => panic!("no file is being dropped: {self:?}"),
        };
    }

    /// Whether no operation is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        matches!(self.step, Step::No | Step::Resting { .. })
    }

    /// Bytes that the files in here still take.
    pub(crate) fn file_bytes(&self) -> u64 {
        let going = match self.step {
            Step::Resting { left_bytes, .. } | Step::Cutting { left_bytes, .. } => left_bytes,
            Step::No | Step::Closing(_) | Step::Removing => 0,
        };
        going + self.waiting.iter().map(|file| file.bytes).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn at(mono_us: u64) -> Now {
        Now { mono_us, utc_us: 0 }
    }

    /// What a turn asks for, and by when it wants another one.
    fn turn(dropper: &mut Dropper, now: Now, in_haste: bool) -> (Option<FileOp>, u64) {
        let mut effects = Effects::new();
        dropper.on_turn(now, in_haste, &mut effects);
        let op = effects.list.pop().map(|effect| match effect {
            Effect::File { op, .. } => op,
            other => panic!("{other:?}"),
        });
        assert!(effects.list.is_empty(), "one step at a time");
        (op, effects.deadline_us)
    }

    fn done(dropper: &mut Dropper, now: Now, result: Result<(), i32>) -> Option<FileOp> {
        let mut effects = Effects::new();
        dropper.on_done(now, result, &mut effects);
        effects.list.pop().map(|effect| match effect {
            Effect::File { op, .. } => op,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn a_file_goes_in_cuts_with_rests_between_and_then_its_name() {
        let mut dropper = Dropper::new(256 * MIB);
        dropper.push(7, 3 * MIB, true);
        assert_eq!(dropper.file_bytes(), 3 * MIB);
        assert_eq!(turn(&mut dropper, at(100), false).0, Some(FileOp::Cut { file: segment_file(7), len_bytes: 2 * MIB }));
        assert_eq!(turn(&mut dropper, at(100_000), false).0, None, "one cut at a time");
        assert!(!dropper.is_quiet());
        assert_eq!(done(&mut dropper, at(400), Ok(())), None);
        assert!(dropper.is_quiet());
        assert_eq!(turn(&mut dropper, at(4_399), false), (None, 4_400));
        assert_eq!(turn(&mut dropper, at(4_400), false).0, Some(FileOp::Cut { file: segment_file(7), len_bytes: MIB }));
        assert_eq!(done(&mut dropper, at(7_400), Ok(())), None);
        assert_eq!(turn(&mut dropper, at(12_000), false), (None, 19_400), "a slow one rests longer");
        assert_eq!(turn(&mut dropper, at(19_400), false).0, Some(FileOp::Close { file: segment_file(7) }));
        assert_eq!(done(&mut dropper, at(19_500), Ok(())), Some(FileOp::Remove { name: segment_file_name(7).into() }));
        assert_eq!(done(&mut dropper, at(19_600), Ok(())), None);
        assert_eq!((turn(&mut dropper, at(20_000), false).0, dropper.file_bytes()), (None, 0));
    }

    #[test]
    fn a_kernel_that_cannot_cut_and_haste_remove_it_whole() {
        let mut dropper = Dropper::new(256 * MIB);
        dropper.push(7, 256 * MIB, true);
        turn(&mut dropper, at(0), false);
        assert_eq!(done(&mut dropper, at(0), Err(22)), Some(FileOp::Close { file: segment_file(7) }));
        assert_eq!(done(&mut dropper, at(0), Ok(())), Some(FileOp::Remove { name: segment_file_name(7).into() }));
        done(&mut dropper, at(0), Ok(()));
        dropper.push(8, 256 * MIB, true);
        assert_eq!(turn(&mut dropper, at(0), true).0, Some(FileOp::Close { file: segment_file(8) }));
    }

    #[test]
    fn many_that_wait_make_the_cuts_longer_up_to_a_limit() {
        let mut dropper = Dropper::new(256 * MIB);
        (1..10).for_each(|number| dropper.push(number, 256 * MIB, true));
        let (Some(FileOp::Cut { len_bytes, .. }), _) = turn(&mut dropper, at(0), false) else { panic!("it is cut") };
        assert_eq!(len_bytes, 253 * MIB);
        (10..1000).for_each(|number| dropper.push(number, 256 * MIB, true));
        done(&mut dropper, at(0), Ok(()));
        let (Some(FileOp::Cut { len_bytes, .. }), _) = turn(&mut dropper, at(5_000), false) else { panic!("it is cut") };
        assert_eq!(len_bytes, 249 * MIB);
    }

    #[test]
    fn what_waits_can_be_had_back_and_what_is_cut_cannot() {
        let mut dropper = Dropper::new(8 * MIB);
        dropper.push(1, 8 * MIB, true);
        turn(&mut dropper, at(0), false);
        assert_eq!(dropper.take_back(8 * MIB), None);
        dropper.push(2, 8 * MIB, true);
        dropper.push(3, 8 * MIB, false);
        dropper.push(4, 16 * MIB, true);
        assert_eq!(dropper.take_back(8 * MIB), Some((2, true)), "rather a written one");
        assert_eq!(dropper.take_back(8 * MIB), Some((3, false)));
        assert_eq!(dropper.take_back(8 * MIB), None, "the other has another size");
    }
}
