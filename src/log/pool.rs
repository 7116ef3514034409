//! Files for segments: created and zero-filled ahead, recycled; and the next segment prepared before it is needed.
//!
//! Why filled: writing into extents that were written before needs no journal commit (measured 113-183 us against 362 us for 4 KiB and
//! sync). Filling happens in short writes while the log is idle; where no filled file is left, also beside small blocks, in step with them. Beside large
//! ones it would take the disk from them, and they gain least by it. When no filled file is there, the next segment takes a fresh one: slower, not refused.
//!
//! Preparing: header page written (durable), then the manifest's edit durable, then the segment is ready; all of it while the live
//! segment still has room, so that a roll does not wait.
//!
//! One free file more than asked for is the sorter's: the log's own next segment does not take it, because where a disk is full of segments that
//! are half dead only sorting wins space back, and it needs a file to begin with. The log takes it when it is at its very end: without room for its
//! own bookkeeping nothing could be deleted any more.
//!
//! Invariants: a file being filled is never handed out while a fill write is under way (zeros would land on blocks); a file that a crash
//! leaves outside the manifest holds nothing and is removed at the next start; no space is not a failure, it is tried again each second.
//!
//! Not here: when a segment may be freed (the caller), how one too many goes (`dropping.rs`), atomic edits (`manifest.rs`).

use crate::bytes::{Bytes, Slab};
use crate::effects::{Effect, Effects, FileOp, Now, Outcome};
use crate::log::dropping::Dropper;
use crate::log::layout::{BLOCK_ALIGN, SegmentHeader};
use crate::log::manifest::FreeFileV1;
use crate::log::operation::{PendingWrite, Progress, Purpose, segment_file, segment_file_name, token};
use crate::log::replace::is_no_space;
use crate::log::segments::Segment;
use std::collections::VecDeque;
use std::sync::Arc;

/// Wait before a creation that was refused is tried again, in microseconds.
const RETRY_US: u64 = 1_000_000;
/// Where files come back, how long they may be too few until one is created, in microseconds. A topic that is full gives a file back for each one that
/// it takes, a moment later (its retention looks when a segment was sealed, and each second): a file created at once was one too many then and went,
/// never written, and taking it to pieces cost synced writes beside it 160 cuts, discards and journal commits in a second. With a target of 1 none is
/// left in that moment, so one is created all the same.
const CREATE_REST_US: u64 = 2_000_000;
/// Distance of fill writes while the log is not idle but the next roll would go into fresh extents, in microseconds: with 256 KiB each, a
/// 256 MiB file is filled within some 2 s of light load, and a log of small blocks does not outrun it below 130 MB/s (reckoned).
const URGENT_FILL_US: u64 = 2_000;
/// The same where nothing is urgent but the live segment is in fresh space, which it leaves for the next one that is filled: a 256 MiB file within some 8 s (reckoned).
const LEAVING_FILL_US: u64 = 8_000;
/// Distance of fill writes while somebody reads from the same disk, in microseconds. Each one ends in a journal commit and a flush. With 10 ms slow
/// replays were more frequent (5 of 18 runs) than with next to none (3 of 18), which is no proof; 100 ms costs a pool that fills at 2.5 MB/s meanwhile.
const GENTLE_FILL_US: u64 = 100_000;

#[derive(Debug)]
struct FreeFile {
    number: u64,
    filled: bool,
}

#[derive(Debug)]
enum Creating {
    No,
    Create(u64),
    SyncDir(u64),
    Clean,
    WaitUntil(u64),
}

#[derive(Debug)]
enum Preparing {
    No,
    Header { segment: Segment, write: PendingWrite },
    Manifest { segment: Segment, version: u64 },
}

#[derive(Debug)]
struct Fill {
    number: u64,
    pos: u64,
    write: Option<PendingWrite>,
}

/// How busy the log is, as far as background writing minds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Nothing open, nothing being written.
    pub(crate) calm: bool,
    /// Since when, `Now::mono_us` of the last block.
    pub(crate) last_block_us: u64,
    /// What is open and being written is small.
    pub(crate) light: bool,
    /// Bytes of the live segment that are used.
    pub(crate) live_used: u64,
    /// It is in space that was never written before.
    pub(crate) live_is_fresh: bool,
    /// The live segment is half full or more, or was ended before: the next one is wanted soon.
    pub(crate) next_is_due: bool,
    /// Somebody reads behind the tail, or did a moment ago.
    pub(crate) reading: bool,
}

/// Free files and what is being done to them.
pub(crate) struct Pool {
    segment_bytes: u64,
    fill_write_bytes: u32,
    fill_idle_us: u64,
    target: u32,
    /// Files beyond the target that the log's own segments leave for the sorter: 1, or 0 where nothing is sorted or while the sorter has it.
    reserve: u32,
    free: VecDeque<FreeFile>,
    creating: Creating,
    /// Since when files are too few.
    short_since_us: Option<u64>,
    /// A file came back since one was last created for lack of such: the next may too. A log that only grows has its files ahead of their use.
    comes_back: bool,
    preparing: Preparing,
    fill: Option<Fill>,
    last_fill_us: u64,
    zeros: Option<Bytes>,
    dropper: Dropper,
    /// Files that may still be created, and whether one more may be by a log at its end (`set_room`).
    room: u32,
    room_for_last: bool,
    /// Files created since the start.
    pub(crate) created: u64,
    /// Last error number of a creation; 0 after a success.
    pub(crate) create_errno: i32,
}

impl Pool {
    pub(crate) fn new(segment_bytes: u64, fill_write_bytes: u32, fill_idle_us: u64, target: u32) -> Pool {
        Pool {
            segment_bytes,
            fill_write_bytes,
            fill_idle_us,
            target,
            reserve: 0,
            free: VecDeque::with_capacity(16),
            creating: Creating::No,
            short_since_us: None,
            comes_back: false,
            preparing: Preparing::No,
            fill: None,
            last_fill_us: 0,
            zeros: None,
            dropper: Dropper::new(segment_bytes),
            room: u32::MAX,
            room_for_last: true,
            created: 0,
            create_errno: 0,
        }
    }

    pub(crate) fn set_room(&mut self, files: u32, for_last: bool) {
        self.room_for_last = for_last;
        // One that is being made may not have been seen.
        let coming = matches!(self.creating, Creating::Create(_) | Creating::SyncDir(_));
        self.room = files.saturating_sub(u32::from(coming));
        if files > 0 && matches!(self.creating, Creating::WaitUntil(_)) {
            self.creating = Creating::No;
        }
        // What the last creation found is old. Where it is still so (a quota, which nobody is told of) the next one finds it again.
        if files > 0 && is_no_space(self.create_errno) && (!self.wants_more() || self.usable() > 0) {
            self.create_errno = 0;
        }
    }
    /// Whether no file can be created, by the room that was told or by the file system's last word, and none is on its way.
    pub(crate) fn is_out_of_room(&self) -> bool {
        (self.room == 0 || is_no_space(self.create_errno)) && matches!(self.creating, Creating::No | Creating::WaitUntil(_))
    }
    /// Sets how many files the log's own segments leave for the sorter.
    pub(crate) fn set_reserve(&mut self, files: u32) {
        self.reserve = files;
    }
    /// Free files that the log's next segment may take.
    pub(crate) fn usable(&self) -> u32 {
        (self.free.len() as u32).saturating_sub(self.reserve)
    }
    fn wanted(&self) -> u32 {
        self.target + self.reserve
    }
    /// Takes a file that nobody needs any more; it stays open.
    pub(crate) fn give(&mut self, number: u64, filled: bool) {
        self.free.push_back(FreeFile { number, filled });
    }
    /// Takes the file of a freed segment. When that is one too many, one that was never written goes in its place.
    pub(crate) fn recycle(&mut self, number: u64, filled: bool) {
        self.comes_back = true;
        self.give(number, filled);
        let busy = self.fill.as_ref().filter(|fill| fill.write.is_some()).map(|fill| fill.number);
        if self.free.len() as u32 > self.wanted()
            && let Some(at) = self.free.iter().position(|file| !file.filled && Some(file.number) != busy)
        {
            let unfilled = self.free.remove(at).expect("found").number;
            self.fill.take_if(|fill| fill.number == unfilled);
            // The manifest may still name it: a free file that is missing is forgotten at a start.
            self.drop_file(unfilled, self.segment_bytes, false);
        }
    }
    /// Whether another free file is welcome.
    fn wants_more(&self) -> bool {
        (self.free.len() as u32) < self.wanted()
    }
    /// Whether another written file is welcome; `coming` are on their way.
    pub(crate) fn wants_written(&self, coming: u32) -> bool {
        self.counts().0 + coming < self.wanted()
    }
    /// Removes an open file of `bytes` that the manifest does not name, or only as a free one, in the turns that follow.
    pub(crate) fn drop_file(&mut self, number: u64, bytes: u64, filled: bool) {
        self.dropper.push(number, bytes, filled);
    }
    /// Free files, filled and not filled.
    pub(crate) fn counts(&self) -> (u32, u32) {
        let filled = self.free.iter().filter(|file| file.filled).count();
        (filled as u32, (self.free.len() - filled) as u32)
    }
    /// Whether no operation is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        matches!(self.creating, Creating::No | Creating::WaitUntil(_))
            && matches!(self.preparing, Preparing::No)
            && self.dropper.is_quiet()
            && self.fill.as_ref().is_none_or(|fill| fill.write.is_none())
    }
    /// What the manifest has to say about free files.
    pub(crate) fn free_records(&self) -> Vec<FreeFileV1> {
        let mut records: Vec<FreeFileV1> = self.free.iter().map(|file| FreeFileV1 { file: file.number, filled: file.filled }).collect();
        if let Preparing::Header { segment, .. } = &self.preparing {
            records.push(FreeFileV1 { file: segment.file, filled: !segment.fresh });
        }
        records
    }
    /// The segment whose header is durable and whose manifest edit is not.
    pub(crate) fn segment_for_manifest(&self) -> Option<&Segment> {
        match &self.preparing {
            Preparing::Manifest { segment, .. } => Some(segment),
            _ => None,
        }
    }
    pub(crate) fn is_preparing(&self) -> bool {
        !matches!(self.preparing, Preparing::No)
    }

    /// A file for the log's next segment, as `take` has it; `last`: the log is at its end, so where no file can be created the sorter's goes too.
    pub(crate) fn take_for_log(&mut self, urgent: bool, last: bool) -> Option<(u64, bool)> {
        let may_take = self.usable() > 0 || (last && self.is_out_of_room());
        may_take.then(|| self.take(urgent)).flatten()
    }

    /// A file for a segment: a filled one; a fresh one only when it is urgent. (number, fresh)
    pub(crate) fn take(&mut self, urgent: bool) -> Option<(u64, bool)> {
        let busy = self.fill.as_ref().filter(|fill| fill.write.is_some()).map(|fill| fill.number);
        let index = self.free.iter().position(|file| file.filled).or_else(|| {
            let usable = |file: &FreeFile| urgent && Some(file.number) != busy;
            self.free.iter().position(usable)
        })?;
        let file = self.free.remove(index).expect("found");
        if self.fill.as_ref().is_some_and(|fill| fill.number == file.number) {
            self.fill = None;
        }
        Some((file.number, !file.filled))
    }

    /// A file for a sorted segment: rather a fresh one, since nobody waits for what the sorter writes. (number, fresh)
    pub(crate) fn take_for_sorted(&mut self) -> Option<(u64, bool)> {
        let filling = self.fill.as_ref().map(|fill| fill.number);
        match self.free.iter().position(|file| !file.filled && Some(file.number) != filling) {
            Some(at) => self.free.remove(at).map(|file| (file.number, true)),
            None => self.take(true),
        }
    }

    /// Writes the header page of `segment`, whose file came from `take_for_log`. Without memory the file goes back.
    pub(crate) fn begin_prepare(&mut self, segment: Segment, header: &SegmentHeader, slab: &mut Slab, effects: &mut Effects) -> bool {
        assert!(!self.is_preparing(), "one segment is prepared at a time");
        let Some(mut page) = slab.take(BLOCK_ALIGN) else {
            self.free.push_front(FreeFile { number: segment.file, filled: !segment.fresh });
            return false;
        };
        header.encode(page.as_mut_slice());
        let write = PendingWrite::new(segment_file(segment.file), 0, slab.freeze(page));
        write.push(token(Purpose::SegmentHeader, segment.uid.0), effects);
        self.preparing = Preparing::Header { segment, write };
        true
    }

    /// Takes the end of the header page's write. True: durable, ask for a manifest edit and tell its version by `header_in_manifest`.
    pub(crate) fn on_header_done(&mut self, result: Result<u32, i32>, effects: &mut Effects) -> Result<bool, String> {
        let Preparing::Header { segment, write } = &mut self.preparing else { panic!("no header is being written") };
        match write.on_done(result) {
            Progress::Whole => Ok(true),
            Progress::Again => {
                write.push(token(Purpose::SegmentHeader, segment.uid.0), effects);
                Ok(false)
            }
            Progress::Failed(reason) => Err(reason),
        }
    }

    pub(crate) fn header_in_manifest(&mut self, version: u64) {
        self.preparing = match std::mem::replace(&mut self.preparing, Preparing::No) {
            Preparing::Header { segment, .. } => Preparing::Manifest { segment, version },
            other => panic!("{other:?} has no header"),
        };
    }

    /// The prepared segment, once `is_durable` says so of its manifest version.
    pub(crate) fn take_prepared(&mut self, is_durable: impl Fn(u64) -> bool) -> Option<Segment> {
        match std::mem::replace(&mut self.preparing, Preparing::No) {
            Preparing::Manifest { segment, version } if is_durable(version) => Some(segment),
            other => {
                self.preparing = other;
                None
            }
        }
    }

    /// Creates a file when too few are free, after a rest where files come back and half of those wanted are left. `next_file` is the manifest's
    /// counter. `needed`: even a target of 0 must not stop the log. `last`: nor may a file system without room, as long as there is any.
    pub(crate) fn maybe_create(&mut self, now: Now, needed: bool, last: bool, next_file: &mut u64, effects: &mut Effects) {
        let wanted = self.wants_more() || (needed && self.usable() == 0);
        if !wanted {
            self.short_since_us = None;
            return;
        }
        if let Some((number, filled)) = self.dropper.take_back(self.segment_bytes) {
            self.short_since_us = None;
            return self.give(number, filled);
        }
        let due_us = *self.short_since_us.get_or_insert(now.mono_us) + CREATE_REST_US;
        if self.comes_back && self.usable() > 0 && 2 * self.usable() >= self.target && now.mono_us < due_us {
            return effects.wake_at(due_us);
        }
        match self.creating {
            Creating::No => {}
            Creating::WaitUntil(at_us) if now.mono_us >= at_us => self.creating = Creating::No,
            Creating::WaitUntil(at_us) => return effects.wake_at(at_us),
            _ => return,
        }
        if self.room > 0 || (last && self.room_for_last && self.usable() == 0) {
            self.room = self.room.saturating_sub(1);
            self.comes_back &= now.mono_us < due_us;
            let number = *next_file;
            *next_file += 1;
            let op = FileOp::Create { file: segment_file(number), name: segment_file_name(number).into(), len_bytes: self.segment_bytes };
            effects.push(Effect::File { token: token(Purpose::PoolFile, number), op });
            self.creating = Creating::Create(number);
        } else {
            // Room is told, not found out: whoever waits for it alone has to look again by itself.
            effects.wake_at(now.mono_us + RETRY_US);
        }
    }

    /// Takes the end of a step of a creation.
    pub(crate) fn on_create_done(&mut self, now: Now, outcome: &Outcome, effects: &mut Effects) -> Result<(), String> {
        let Outcome::File(result) = outcome else { panic!("{outcome:?} does not end a file operation") };
        match (&self.creating, result) {
            (&Creating::Create(number), Ok(())) => {
                self.create_errno = 0;
                self.created += 1;
                effects.push(Effect::File { token: token(Purpose::PoolFile, number), op: FileOp::SyncDir });
                self.creating = Creating::SyncDir(number);
            }
            // Nothing is lost by a file that cannot be made; without space it is the disk that has to be looked after.
            (&Creating::Create(number), Err(errno)) => {
                self.create_errno = *errno;
                let op = FileOp::Remove { name: Arc::from(segment_file_name(number)) };
                effects.push(Effect::File { token: token(Purpose::PoolFile, number), op });
                self.creating = Creating::Clean;
            }
            (&Creating::Clean, _) => {
                let at_us = now.mono_us + RETRY_US;
                self.creating = Creating::WaitUntil(at_us);
                effects.wake_at(at_us);
            }
            (&Creating::SyncDir(number), Ok(())) => {
                self.give(number, false);
                self.creating = Creating::No;
            }
            (&Creating::SyncDir(_), Err(errno)) => return Err(format!("syncing the shard's directory failed with error {errno}")),
            (step, _) => panic!("{step:?} is no operation"),
        }
        Ok(())
    }

    /// Writes some zeros when there is something to fill and the log is idle enough. `bytes` bounds the write.
    pub(crate) fn maybe_fill(&mut self, now: Now, bytes: u64, load: Load, slab: &mut Slab, effects: &mut Effects) {
        if self.fill.is_none() {
            match self.free.iter().find(|file| !file.filled) {
                Some(file) => self.fill = Some(Fill { number: file.number, pos: 0, write: None }),
                None => return self.zeros = None,
            }
        }
        let fill = self.fill.as_mut().expect("set above");
        // Ahead of the live segment by a quarter, the file is filled when four fifths of that are used: before the log has to take a fresh one.
        let is_behind = fill.pos * 4 <= load.live_used * 5;
        let keeps_step = load.light && (is_behind || load.live_is_fresh);
        let urgent = (load.next_is_due || keeps_step) && !self.free.iter().any(|file| file.filled);
        let idle_us = load.last_block_us + self.fill_idle_us;
        let pause_us = if is_behind || load.next_is_due { URGENT_FILL_US } else { LEAVING_FILL_US };
        let due_us = match load.reading {
            true => self.last_fill_us + GENTLE_FILL_US,
            false if urgent => idle_us.min(self.last_fill_us + pause_us),
            false => idle_us,
        };
        if fill.write.is_some() {
            return;
        }
        if now.mono_us < due_us {
            return effects.wake_at(due_us);
        }
        let len = u64::from(self.fill_write_bytes).min(bytes).min(self.segment_bytes - fill.pos) as usize & !(BLOCK_ALIGN - 1);
        if !(load.calm || urgent && keeps_step) || len == 0 {
            return;
        }
        if self.zeros.as_ref().is_none_or(|zeros| zeros.len() < len) {
            let Some(mut buffer) = slab.take(self.fill_write_bytes as usize) else { return };
            buffer.as_mut_slice().fill(0);
            self.zeros = Some(slab.freeze(buffer));
        }
        let zeros = self.zeros.as_ref().expect("made above").slice(0..len);
        let write = PendingWrite::new(segment_file(fill.number), fill.pos, zeros);
        write.push(token(Purpose::Fill, fill.number), effects);
        fill.write = Some(write);
        self.last_fill_us = now.mono_us;
    }

    /// Takes the end of a fill write. True when a file has become filled: worth a manifest edit.
    pub(crate) fn on_fill_done(&mut self, result: Result<u32, i32>, effects: &mut Effects) -> Result<bool, String> {
        let fill = self.fill.as_mut().expect("a fill write keeps its file");
        let write = fill.write.as_mut().expect("a fill write was under way");
        match write.on_done(result) {
            Progress::Again => write.push(token(Purpose::Fill, fill.number), effects),
            Progress::Failed(reason) => return Err(reason),
            Progress::Whole => {
                fill.pos += write.data.len() as u64;
                fill.write = None;
                let (number, is_whole) = (fill.number, fill.pos == self.segment_bytes);
                // Enough came written meanwhile: it was kept by the write alone when `recycle` looked for what goes.
                if self.counts().0 >= self.wanted().max(1) {
                    self.fill = None;
                    self.free.retain(|file| file.number != number);
                    self.drop_file(number, self.segment_bytes, is_whole);
                } else if is_whole {
                    self.fill = None;
                    let file = self.free.iter_mut().find(|file| file.number == number).expect("a file being filled is free");
                    file.filled = true;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Goes on with dropping files; in a hurry where there is no room.
    pub(crate) fn maybe_drop(&mut self, now: Now, effects: &mut Effects) {
        self.dropper.on_turn(now, self.is_out_of_room(), effects);
    }

    /// Takes the end of a step of dropping a file.
    pub(crate) fn on_drop_done(&mut self, now: Now, outcome: &Outcome, effects: &mut Effects) {
        let Outcome::File(result) = outcome else { panic!("{outcome:?} does not end a file operation") };
        self.dropper.on_done(now, *result, effects);
    }

    /// Bytes of all free files, and of those that go.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.free.len() as u64 * self.segment_bytes + self.dropper.file_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_too_many_that_was_being_filled_goes_when_its_write_has_ended() {
        const FILE_BYTES: u64 = 1 << 20;
        let load =
            Load { calm: true, last_block_us: 0, light: true, live_used: 0, live_is_fresh: false, next_is_due: false, reading: false };
        let now = Now { mono_us: 1_000_000, utc_us: 0 };
        let (mut pool, mut slab) = (Pool::new(FILE_BYTES, 64 << 10, 0, 1), Slab::new(1 << 20));
        pool.give(1, false);
        pool.maybe_fill(now, FILE_BYTES, load, &mut slab, &mut Effects::new());
        pool.recycle(2, true);
        assert_eq!(pool.counts(), (1, 1), "nothing goes under a write");
        assert_eq!(pool.on_fill_done(Ok(64 << 10), &mut Effects::new()), Ok(false));
        assert_eq!((pool.counts(), pool.file_bytes()), ((1, 0), 2 * FILE_BYTES), "one is free, one goes");
        let mut effects = Effects::new();
        pool.maybe_drop(now, &mut effects);
        assert!(matches!(effects.list.pop(), Some(Effect::File { op: FileOp::Cut { file, .. }, .. }) if file == segment_file(1)));
        assert_eq!(pool.take(true), Some((2, false)));
    }

    #[test]
    fn beside_blocks_a_file_is_filled_in_step_with_small_ones_while_none_is_filled() {
        const FILE_BYTES: u64 = 1 << 20;
        // Whether a write begins with so much of both files used and filled, in a log that is at work.
        let begins = |load: Load, filled: u64, is_one_filled: bool| {
            let (mut pool, mut slab) = (Pool::new(FILE_BYTES, 64 << 10, 0, 2), Slab::new(1 << 20));
            pool.give(1, false);
            if is_one_filled {
                pool.give(2, true);
            }
            pool.fill = Some(Fill { number: 1, pos: filled, write: None });
            let mut effects = Effects::new();
            pool.maybe_fill(Now { mono_us: 1_000_000, utc_us: 0 }, FILE_BYTES, load, &mut slab, &mut effects);
            !effects.list.is_empty()
        };
        let work = Load {
            calm: false,
            last_block_us: 0,
            light: true,
            live_used: 400 << 10,
            live_is_fresh: false,
            next_is_due: false,
            reading: false,
        };
        assert!(begins(work, 0, false) && begins(work, 500 << 10, false), "not a quarter ahead");
        assert!(!begins(work, 512 << 10, false), "ahead");
        assert!(begins(Load { live_is_fresh: true, ..work }, 512 << 10, false), "the live one is to be left");
        assert!(!begins(Load { live_is_fresh: true, light: false, ..work }, 512 << 10, false), "not now");
        assert!(!begins(work, 0, true), "one is filled");
        assert!(!begins(Load { light: false, ..work }, 0, false), "large blocks go first");
        assert!(!begins(Load { light: false, next_is_due: true, ..work }, 0, false), "also before a roll");
        assert!(begins(Load { calm: true, ..work }, 512 << 10, false), "idle");
    }

    #[test]
    fn a_file_is_made_when_none_is_left_or_none_came_back_for_a_while() {
        let mut pool = Pool::new(1 << 20, 64 << 10, 0, 2);
        let mut next_file = 3;
        // What it asks for at a time, and when it wants to be asked again.
        let mut turn = |pool: &mut Pool, mono_us: u64| {
            let mut effects = Effects::new();
            pool.maybe_create(Now { mono_us, utc_us: 0 }, false, false, &mut next_file, &mut effects);
            (effects.list.len(), effects.deadline_us)
        };
        pool.give(1, true);
        pool.recycle(2, true);
        assert_eq!(turn(&mut pool, 0), (0, u64::MAX));
        assert_eq!(pool.take(true), Some((1, false)));
        assert_eq!(turn(&mut pool, 10), (0, 10 + CREATE_REST_US), "one is left");
        pool.recycle(1, true);
        assert_eq!(turn(&mut pool, 20), (0, u64::MAX), "and one came back");
        pool.take(true);
        assert_eq!(turn(&mut pool, 30), (0, 30 + CREATE_REST_US));
        assert_eq!(turn(&mut pool, 30 + CREATE_REST_US), (1, u64::MAX), "nothing comes back: it is made");
        let mut pool = Pool::new(1 << 20, 64 << 10, 0, 2);
        assert_eq!(turn(&mut pool, 40), (1, u64::MAX), "none is left: at once");
        let mut pool = Pool::new(1 << 20, 64 << 10, 0, 2);
        pool.give(1, true);
        assert_eq!(turn(&mut pool, 50), (1, u64::MAX), "none ever came back: at once");
    }
}
