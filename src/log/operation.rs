//! Operations under way: token numbers, and writes that may come back short.
//!
//! Invariant: a write counts as done only when every byte of it was reported written; an error or a count that cannot be continued is
//! final (D4: never retried and then believed). A short count is legal, on direct I/O too, and is continued from a page boundary, so bytes
//! may be written twice with the same content.

use crate::bytes::Bytes;
use crate::effects::{Effect, Effects, Token, TokenRoom};
use crate::ids::FileId;
use crate::log::layout::BLOCK_ALIGN;

/// Sector of the strictest count a disk may stop at, in bytes.
const SECTOR_BYTES: u32 = 512;
/// Short counts in a row without a whole page of progress before a write is given up.
const STUCK_MAX: u8 = 4;
/// File ids from here on name temporary files (manifest, checkpoint); below are segment files by their number.
const TEMPORARY_FILES: u64 = 1 << 40;

/// Which part of the room an operation belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Block = 1,
    Fill = 2,
    SegmentHeader = 3,
    Footer = 4,
    Manifest = 5,
    Checkpoint = 6,
    Read = 7,
    PoolFile = 8,
    DropFile = 9,
    SortedData = 10,
    SortedFooter = 11,
    State = 12,
}

const PURPOSE_SHIFT: u32 = 48;

pub(crate) fn token(purpose: Purpose, number: u64) -> Token {
    Token::new(TokenRoom::Log, ((purpose as u64) << PURPOSE_SHIFT) | (number & ((1 << PURPOSE_SHIFT) - 1)))
}

pub(crate) fn purpose_of(token: Token) -> (Purpose, u64) {
    let number = token.number();
    let purpose = match number >> PURPOSE_SHIFT {
        1 => Purpose::Block,
        2 => Purpose::Fill,
        3 => Purpose::SegmentHeader,
        4 => Purpose::Footer,
        5 => Purpose::Manifest,
        6 => Purpose::Checkpoint,
        7 => Purpose::Read,
        8 => Purpose::PoolFile,
        9 => Purpose::DropFile,
        10 => Purpose::SortedData,
        11 => Purpose::SortedFooter,
        12 => Purpose::State,
        _ => panic!("{token:?} was not reserved by the log"),
    };
    (purpose, number & ((1 << PURPOSE_SHIFT) - 1))
}

/// The id under which segment file `number` is open.
pub(crate) fn segment_file(number: u64) -> FileId {
    assert!(number > 0 && number < TEMPORARY_FILES, "file number {number}");
    FileId(number)
}

/// The id of the `count`th temporary file of this process.
pub(crate) fn temporary_file(count: u64) -> FileId {
    FileId(TEMPORARY_FILES + count)
}

/// The name of segment file `number`. It stays the same when the file is recycled for another segment.
pub(crate) fn segment_file_name(number: u64) -> String {
    format!("seg-{number:08}.log")
}

/// The number in a segment file's name.
pub(crate) fn segment_file_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("seg-")?.strip_suffix(".log")?;
    if digits.len() < 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|number| *number > 0 && *number < TEMPORARY_FILES)
}

fn describe(file: FileId) -> String {
    if file.0 < TEMPORARY_FILES { segment_file_name(file.0) } else { "a temporary file".to_string() }
}

/// How far a write has come.
pub(crate) enum Progress {
    /// Every byte was written.
    Whole,
    /// The remainder has to be pushed again.
    Again,
    /// Final.
    Failed(String),
}

/// One write under way.
#[derive(Debug)]
pub(crate) struct PendingWrite {
    pub(crate) file: FileId,
    pub(crate) pos: u64,
    pub(crate) data: Bytes,
    done: u32,
    stuck: u8,
}

impl PendingWrite {
    pub(crate) fn new(file: FileId, pos: u64, data: Bytes) -> PendingWrite {
        assert!(
            pos.is_multiple_of(BLOCK_ALIGN as u64) && data.len().is_multiple_of(BLOCK_ALIGN),
            "unaligned write at {pos} of {} bytes",
            data.len()
        );
        PendingWrite { file, pos, data, done: 0, stuck: 0 }
    }

    /// Pushes what is still to be written.
    pub(crate) fn push(&self, token: Token, effects: &mut Effects) {
        let data = if self.done == 0 { self.data.clone() } else { self.data.slice(self.done as usize..self.data.len()) };
        effects.push(Effect::Write { token, file: self.file, pos: self.pos + u64::from(self.done), data });
    }

    /// Takes the end of the last push.
    pub(crate) fn on_done(&mut self, result: Result<u32, i32>) -> Progress {
        let left = self.data.len() as u32 - self.done;
        let pos = self.pos + u64::from(self.done);
        // Called on failures only: a write that ends well allocates nothing.
        let name = || describe(self.file);
        let count = match result {
            Ok(count) => count,
            Err(errno) => return Progress::Failed(format!("writing {left} bytes at {pos} of {} failed with error {errno}", name())),
        };
        if count == left {
            self.done += count;
            return Progress::Whole;
        }
        if count == 0 || count > left || count % SECTOR_BYTES != 0 {
            return Progress::Failed(format!(
                "writing {left} bytes at {pos} of {} ended after {count} bytes, which cannot be continued",
                name()
            ));
        }
        let whole_pages = count & !(BLOCK_ALIGN as u32 - 1);
        self.stuck = if whole_pages == 0 { self.stuck + 1 } else { 0 };
        if self.stuck >= STUCK_MAX {
            return Progress::Failed(format!("writing at {pos} of {} makes no progress ({count} bytes at a time)", name()));
        }
        self.done += whole_pages;
        Progress::Again
    }
}
