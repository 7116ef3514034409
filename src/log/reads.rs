//! Cold reads: asked for in bytes, carried out in pages, answered in exactly the bytes asked for.
//!
//! Invariants: each ticket ends in one answer; a read pins its segment until then; the buffer belongs to the I/O until the completion. What
//! is read is not checked here: batches check themselves (`check_batch`), footer pages too (`footer::decode_slice`).
//!
//! A read error does not stop the log: what cannot be read is refused to its reader, the rest stays readable.

use crate::bytes::{BUFFER_BYTES_MAX, BufMut, Bytes, Slab};
use crate::effects::{Effect, Effects, Now};
use crate::ids::{FileId, SegmentUid};
use crate::log::BACKGROUND_OWNER;
use crate::log::layout::{BLOCK_ALIGN, align_up};
use crate::log::operation::{Purpose, token};
use crate::log::types::{ReadError, ReadRefused};

struct Read {
    ticket: u64,
    owner: u64,
    segment: SegmentUid,
    file: FileId,
    pos: u32,
    len: u32,
    again: bool,
}

/// A read that has ended.
pub(crate) struct ReadEnd {
    pub(crate) ticket: u64,
    pub(crate) owner: u64,
    pub(crate) segment: SegmentUid,
    pub(crate) pos: u32,
    pub(crate) bytes: Result<Bytes, ReadError>,
}

/// Reads under way.
pub(crate) struct Reads {
    slots: Vec<Option<Read>>,
    free: Vec<u32>,
    generation: u64,
    pub(crate) begun: u64,
    pub(crate) failed: u64,
    pub(crate) bytes: u64,
    in_flight_bytes: u64,
    /// Reads begun that somebody waits for.
    awaited: u64,
    /// `awaited` when it was last looked at, and when it was last seen to have grown.
    awaited_seen: u64,
    awaited_us: u64,
}

/// How long after its last read somebody counts as reading, in microseconds: chunks are read ahead and then sent, with pauses in between.
const LATELY_US: u64 = 500_000;

/// Slots take the low bits of a ticket; above them counts a number that is never used twice.
const SLOT_BITS: u32 = 16;

impl Reads {
    pub(crate) fn new(reads_max: u32) -> Reads {
        let count = reads_max.clamp(1, 1 << SLOT_BITS);
        Reads {
            slots: (0..count).map(|_| None).collect(),
            free: (0..count).rev().collect(),
            generation: 0,
            begun: 0,
            failed: 0,
            bytes: 0,
            in_flight_bytes: 0,
            awaited: 0,
            awaited_seen: 0,
            awaited_us: 0,
        }
    }

    pub(crate) fn in_flight(&self) -> u32 {
        (self.slots.len() - self.free.len()) as u32
    }

    /// Of those that somebody waits for.
    pub(crate) fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes
    }

    /// Whether somebody reads, or did a moment ago. To be asked in each turn.
    pub(crate) fn were_begun_lately(&mut self, now: Now) -> bool {
        if self.awaited > self.awaited_seen || self.in_flight_bytes > 0 {
            (self.awaited_seen, self.awaited_us) = (self.awaited, now.mono_us);
        }
        self.awaited_seen > 0 && now.mono_us < self.awaited_us + LATELY_US
    }

    pub(crate) fn begin(
        &mut self,
        slab: &mut Slab,
        effects: &mut Effects,
        owner: u64,
        segment: SegmentUid,
        file: FileId,
        file_bytes: u64,
        pos: u32,
        len: u32,
    ) -> Result<u64, ReadRefused> {
        let (start, end) = aligned(pos, len);
        if len == 0 || end > file_bytes || end - start > BUFFER_BYTES_MAX as u64 {
            return Err(ReadRefused::BadRange);
        }
        let Some(&slot) = self.free.last() else { return Err(ReadRefused::Full) };
        let Some(buf) = slab.take((end - start) as usize) else { return Err(ReadRefused::Full) };
        self.free.pop();
        self.generation += 1;
        let ticket = (self.generation << SLOT_BITS) | u64::from(slot);
        self.slots[slot as usize] = Some(Read { ticket, owner, segment, file, pos, len, again: false });
        self.begun += 1;
        self.bytes += end - start;
        if owner < BACKGROUND_OWNER {
            self.awaited += 1;
            self.in_flight_bytes += end - start;
        }
        effects.push(Effect::Read { token: token(Purpose::Read, ticket), file, pos: start, buf });
        Ok(ticket)
    }

    /// Takes a completion. Nothing when the read goes on (a short one is tried once more).
    pub(crate) fn on_done(
        &mut self,
        slab: &mut Slab,
        number: u64,
        buf: BufMut,
        result: Result<u32, i32>,
        effects: &mut Effects,
    ) -> Option<ReadEnd> {
        let slot = (number & ((1 << SLOT_BITS) - 1)) as usize;
        let read = self.slots[slot].as_mut().expect("a read ends once");
        let (start, _) = aligned(read.pos, read.len);
        let skip = (u64::from(read.pos) - start) as usize;
        let wanted = skip + read.len as usize;
        let bytes = match result {
            Ok(got) if got as usize >= wanted => Ok(slab.freeze_passing(buf).slice(skip..wanted)),
            Ok(_) if !read.again => {
                read.again = true;
                effects.push(Effect::Read { token: token(Purpose::Read, read.ticket), file: read.file, pos: start, buf });
                return None;
            }
            Ok(got) => {
                slab.give_back(buf);
                Err(ReadError::Short { got })
            }
            Err(errno) => {
                slab.give_back(buf);
                Err(ReadError::Io { errno })
            }
        };
        self.failed += u64::from(bytes.is_err());
        let read = self.slots[slot].take().expect("looked at");
        let (start, end) = aligned(read.pos, read.len);
        if read.owner < BACKGROUND_OWNER {
            self.in_flight_bytes -= end - start;
        }
        self.free.push(slot as u32);
        Some(ReadEnd { ticket: read.ticket, owner: read.owner, segment: read.segment, pos: read.pos, bytes })
    }
}

fn aligned(pos: u32, len: u32) -> (u64, u64) {
    let align = BLOCK_ALIGN as u64;
    (u64::from(pos) & !(align - 1), align_up(u64::from(pos) + u64::from(len), align))
}
