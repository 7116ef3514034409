//! One job of the sorter: copies the batches of its inputs into one sorted segment after the other, partition by partition.
//!
//! Read-ahead: footers in windows, one per input, since inputs list their batches in the order in which they are wanted; batches in reads of
//! up to 1 MiB, across runs. Copying is in order, whatever order reads end in.
//!
//! Invariants: memory is bounded (`AHEAD_BYTES`, one window per input, one output buffer); a batch is copied only when both its checksums, its
//! partition and its offset are right; a run with one that is not stays where it is, and ends the piece before it; a piece is only of runs that
//! follow one another in their partition.
//!
//! Not here: what is done with the pieces (`sorting.rs`).

use super::sorting::SORTER;
use crate::bytes::{Bytes, Slab};
use crate::effects::Effects;
use crate::ids::{PartitionUid, SegmentUid};
use crate::log::footer::{FooterPlan, decode_slice, one_read};
use crate::log::{FooterEntry, Log, ReadError, ReadRefused, check_batch};
use crate::mutants::Mutant;
use crate::partition::{Partitions, Run};
use crate::subscription::DamageFound;
use std::collections::{BTreeMap, VecDeque};

/// Bytes read and not copied yet, at most.
const AHEAD_BYTES: u64 = 2 << 20;
/// Bytes of one read, unless one batch is larger.
const READ_BYTES: u64 = 1 << 20;
/// Bytes of no interest that are read through rather than around.
const GAP_BYTES_MAX: u64 = 16 << 10;
/// Footer entries read at once: 64 pages.
const WINDOW_ENTRIES: u32 = 64 * 102;
/// Partitions looked at in one turn.
const PARTITIONS_PER_TURN: u32 = 256;
/// Bytes copied in one turn: half a write.
const TURN_BYTES: u64 = 512 << 10;

/// Batches of other replicas, checked, for those that do not check here: by partition and first offset.
pub(super) type Spares = BTreeMap<(PartitionUid, u64), Box<[u8]>>;

/// What a turn of copying came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copied {
    /// Something is awaited that ends soon.
    Waits,
    /// There is no file to write to.
    NoFile,
    /// The next run does not fit the output any more.
    OutputFull,
    /// Everything is copied.
    All,
    /// There was nothing to copy.
    Nothing,
}

/// Runs of one partition, one behind the other, that were copied into the output.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) uid: PartitionUid,
    pub(super) runs: Vec<Run>,
    bytes: u64,
    /// Entries in the output before it.
    entries_before: usize,
    /// What follows in the partition's index may be joined to it.
    is_open: bool,
}

/// Some of an input's footer.
#[derive(Debug)]
struct Window {
    first: u32,
    count: u32,
    /// Nothing when a page of it cannot be read, or does not check.
    entries: Option<Vec<FooterEntry>>,
}

#[derive(Debug)]
struct Chunk {
    ticket: u64,
    pos: u64,
    len: u64,
    entries: Vec<FooterEntry>,
    bytes: Option<Result<Bytes, ReadError>>,
}

impl Chunk {
    /// What stands where an entry says, as it was read.
    fn stored<'a>(&self, entry: &FooterEntry, read: &'a Result<Bytes, ReadError>) -> Option<&'a [u8]> {
        let from = (u64::from(entry.pos) - self.pos) as usize;
        read.as_ref().ok().map(|bytes| &bytes.as_slice()[from..from + entry.len as usize])
    }
}

/// The spare that takes the place of what an entry names: of the same length, since the run's bytes stay the same.
fn spare_for<'a>(spares: &'a Spares, entry: &FooterEntry) -> Option<&'a [u8]> {
    spares.get(&(entry.partition_uid, entry.base_offset.0)).map(|spare| &**spare).filter(|spare| spare.len() == entry.len as usize)
}

fn wound_of(segment: SegmentUid, entry: &FooterEntry) -> DamageFound {
    let first_offset = entry.base_offset.0;
    let end_offset = first_offset + u64::from(entry.last_offset_delta) + 1;
    DamageFound { uid: entry.partition_uid.0, first_offset, end_offset, segment, pos: u64::from(entry.pos) }
}

/// A run being copied, or about to be.
#[derive(Debug)]
struct RunCopy {
    uid: PartitionUid,
    run: Run,
    /// Follows the run before it in the partition's index.
    follows: bool,
    /// Its last footer entries, which were not read yet.
    unlisted: u32,
    /// Its entries of which no read was begun yet.
    unread: VecDeque<FooterEntry>,
    chunks: VecDeque<Chunk>,
    started: bool,
    /// Something of it cannot be had: it stays where it is.
    is_broken: bool,
    /// Retention took its segment: nothing is wrong with it.
    is_gone: bool,
    /// Entry of the front chunk that is being copied, and how much of it was.
    at: usize,
    copied: usize,
}

/// One job.
#[derive(Debug)]
pub(super) struct Job {
    /// Segments with runs that stayed where they were.
    left: Vec<SegmentUid>,
    inputs: Vec<SegmentUid>,
    /// A run that came together ends when it has so much.
    run_bytes: u64,
    /// Partitions not looked at yet, backwards.
    uids: Vec<PartitionUid>,
    /// Runs of partitions looked at.
    planned: VecDeque<(PartitionUid, Run, bool)>,
    windows: BTreeMap<SegmentUid, Window>,
    /// Reads under way, as good as known: the end of one that an earlier job began counts too.
    reading: u32,
    /// The footer read under way: ticket, first entry, plan.
    footer_read: Option<(u64, u32, FooterPlan)>,
    ahead: VecDeque<RunCopy>,
    ahead_bytes: u64,
    is_output_open: bool,
    pieces: Vec<Piece>,
    spares: Spares,
    /// Batches that do not check, and have no spare.
    wounds: Vec<DamageFound>,
}

impl Job {
    pub(super) fn new(inputs: Vec<SegmentUid>, mut uids: Vec<PartitionUid>, run_bytes: u64) -> Job {
        uids.reverse();
        Job {
            left: Vec::new(),
            inputs,
            run_bytes,
            uids,
            planned: VecDeque::new(),
            windows: BTreeMap::new(),
            reading: 0,
            footer_read: None,
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            is_output_open: false,
            pieces: Vec::new(),
            spares: Spares::new(),
            wounds: Vec::new(),
        }
    }

    /// Copies what `uid` has in a segment, with `spares` in the place of what does not check there.
    pub(super) fn mending(segment: SegmentUid, uid: PartitionUid, run_bytes: u64, spares: Spares) -> Job {
        Job { spares, ..Job::new(vec![segment], vec![uid], run_bytes) }
    }

    /// Batches that did not check since the last call.
    pub(super) fn take_wounds(&mut self) -> Vec<DamageFound> {
        std::mem::take(&mut self.wounds)
    }

    /// Segments with runs that could not be copied since the last call.
    pub(super) fn take_left(&mut self) -> Vec<SegmentUid> {
        std::mem::take(&mut self.left)
    }

    /// Whether another output is needed.
    pub(super) fn has_more(&self) -> bool {
        !(self.uids.is_empty() && self.planned.is_empty() && self.ahead.is_empty())
    }

    /// The pieces of the output that was just finished.
    pub(super) fn take_pieces(&mut self) -> Vec<Piece> {
        self.is_output_open = false;
        std::mem::take(&mut self.pieces)
    }

    /// Takes the end of a read.
    pub(super) fn on_read(&mut self, ticket: u64, bytes: Result<Bytes, ReadError>) {
        self.reading = self.reading.saturating_sub(1);
        if let Some((_, first, plan)) = self.footer_read.take_if(|(t, ..)| *t == ticket) {
            let mut entries = Vec::new();
            let read = bytes.is_ok_and(|bytes| decode_slice(&plan, bytes.as_slice(), &mut entries).is_ok());
            self.windows.insert(plan.segment, Window { first, count: plan.count(), entries: read.then_some(entries) });
        } else if let Some(chunk) = self.ahead.iter_mut().flat_map(|copy| &mut copy.chunks).find(|chunk| chunk.ticket == ticket) {
            chunk.bytes = Some(bytes);
        }
    }

    /// Reads ahead as far as `allowance` lets it, copies what is there.
    pub(super) fn go_on(
        &mut self,
        partitions: &Partitions,
        log: &mut Log,
        slab: &mut Slab,
        effects: &mut Effects,
        allowance: &mut i64,
    ) -> Copied {
        self.read_ahead(partitions, log, slab, effects, allowance);
        if !self.has_more() {
            return if self.is_output_open { Copied::All } else { Copied::Nothing };
        }
        if !self.is_output_open {
            if log.begin_sorted(slab).is_none() {
                return Copied::NoFile;
            }
            self.is_output_open = true;
        }
        let mut left = TURN_BYTES;
        while left > 0 && !self.ahead.is_empty() {
            match self.copy_front(log, slab, effects) {
                Some(Ok(bytes)) => left = left.saturating_sub(bytes),
                Some(Err(full)) => return full,
                None => return Copied::Waits,
            }
        }
        if self.has_more() { Copied::Waits } else { Copied::All }
    }

    /// The next run of an input, in the order of partitions.
    fn next_planned(&mut self, partitions: &Partitions) -> Option<(PartitionUid, Run, bool)> {
        let mut left = PARTITIONS_PER_TURN;
        while self.planned.is_empty() {
            left = left.checked_sub(1)?;
            let uid = self.uids.pop()?;
            let Some(partition) = partitions.slot(uid).and_then(|slot| partitions.get(slot)) else { continue };
            let mut follows = false;
            for run in partition.index.runs() {
                let is_input = self.inputs.contains(&run.segment);
                if is_input {
                    self.planned.push_back((uid, *run, follows));
                }
                follows = is_input;
            }
        }
        self.planned.pop_front()
    }

    fn read_ahead(&mut self, partitions: &Partitions, log: &mut Log, slab: &mut Slab, effects: &mut Effects, allowance: &mut i64) {
        while self.ahead_bytes < AHEAD_BYTES && *allowance > 0 {
            // The log's own writes stand behind these reads in the disk's queue: one at a time then.
            if log.is_writing() && self.reading > 0 {
                return;
            }
            let last = self.ahead.back().map(|copy| (copy.unread.is_empty(), copy.unlisted));
            if let Some((unread, unlisted)) = last.filter(|last| *last != (true, 0)) {
                let read = match unread {
                    false => self.read_next_chunk(log, slab, effects),
                    true if self.footer_read.is_some() => return,
                    true => self.list_more(unlisted, log, slab, effects),
                };
                let Some(read) = read else { return };
                *allowance -= read as i64;
                continue;
            }
            let Some((uid, run, follows)) = self.next_planned(partitions) else { return };
            if log.footer_entries(run.segment).is_none() {
                // All of that segment expired meanwhile.
                continue;
            }
            self.ahead.push_back(RunCopy {
                uid,
                run,
                follows,
                unlisted: run.footer_count,
                unread: VecDeque::new(),
                chunks: VecDeque::new(),
                started: false,
                is_broken: false,
                is_gone: false,
                at: 0,
                copied: 0,
            });
        }
    }

    /// Lists more of the last run ahead, `unlisted` entries before its end, from its input's window, or begins the read of the next window. Answers
    /// how many bytes are read for it.
    fn list_more(&mut self, unlisted: u32, log: &mut Log, slab: &mut Slab, effects: &mut Effects) -> Option<u64> {
        let copy = self.ahead.back_mut().expect("looked at before");
        let first = copy.run.footer_end() - unlisted;
        if let Some(window) = self.windows.get(&copy.run.segment).filter(|w| w.first <= first && first < w.first + w.count) {
            match &window.entries {
                Some(entries) => {
                    let from = (first - window.first) as usize;
                    copy.unread.extend(entries.iter().skip(from).take(unlisted as usize));
                    copy.unlisted -= copy.unread.len() as u32;
                    let (run, uid) = (copy.run, copy.uid);
                    let is_of_run =
                        |e: &FooterEntry| e.partition_uid == uid && (run.first_offset..run.end_offset).contains(&e.base_offset.0);
                    if !copy.unread.iter().all(is_of_run) {
                        // A footer and a checkpoint that do not fit each other.
                        copy.unread.clear();
                        (copy.unlisted, copy.is_broken) = (0, true);
                    }
                }
                None => (copy.unlisted, copy.is_broken) = (0, true),
            }
            return Some(0);
        }
        let total = log.footer_entries(copy.run.segment);
        let plan = total.and_then(|total| log.footer_plan(copy.run.segment, first, WINDOW_ENTRIES.min(total - first)));
        let Some(plan) = plan else {
            (copy.unlisted, copy.is_broken, copy.is_gone) = (0, true, true);
            return Some(0);
        };
        match log.begin_read(slab, effects, SORTER, copy.run.segment, plan.pos, plan.len) {
            Ok(ticket) => {
                self.reading += 1;
                self.footer_read = Some((ticket, first, plan));
            }
            Err(ReadRefused::Full) => return None,
            Err(_) => (copy.unlisted, copy.is_broken, copy.is_gone) = (0, true, true),
        }
        Some(u64::from(plan.len))
    }

    /// Begins a read of the next batches of the last run ahead. Answers its bytes.
    fn read_next_chunk(&mut self, log: &mut Log, slab: &mut Slab, effects: &mut Effects) -> Option<u64> {
        let copy = self.ahead.back_mut().expect("looked at before");
        let first = *copy.unread.front().expect("looked at before");
        let pos = u64::from(first.pos);
        let (count, end) = one_read(copy.unread.iter(), READ_BYTES, GAP_BYTES_MAX);
        let len = end - pos;
        let chunk = match log.begin_read(slab, effects, SORTER, copy.run.segment, pos as u32, len as u32) {
            Ok(ticket) => {
                self.reading += 1;
                Chunk { ticket, pos, len, entries: copy.unread.drain(..count).collect(), bytes: None }
            }
            Err(ReadRefused::Full) => return None,
            // The run is gone, or the log has failed: what was read of it is thrown away with it.
            Err(ReadRefused::Gone | ReadRefused::BadRange | ReadRefused::Failed) => {
                (copy.unlisted, copy.is_broken, copy.is_gone) = (0, true, true);
                let entries = copy.unread.drain(..).collect();
                Chunk { ticket: 0, pos, len: 0, entries, bytes: Some(Err(ReadError::Short { got: 0 })) }
            }
        };
        self.ahead_bytes += chunk.len;
        copy.chunks.push_back(chunk);
        Some(len)
    }

    /// Copies the next batch, or a part of it, of the run in front. `None`: something is awaited; else how much was copied.
    fn copy_front(&mut self, log: &mut Log, slab: &mut Slab, effects: &mut Effects) -> Option<Result<u64, Copied>> {
        let copy = self.ahead.front_mut().expect("there is a run ahead");
        if copy.is_broken {
            self.leave_front(log);
            return Some(Ok(0));
        }
        if !copy.started {
            if !log.sorted_has_room(copy.run.segment, copy.run.bytes, copy.run.footer_count) {
                if !log.sorted_is_fresh() {
                    return Some(Err(Copied::OutputFull));
                }
                self.leave_front(log);
                return Some(Ok(0));
            }
            copy.started = true;
            let joins = |piece: &Piece| piece.is_open && copy.follows && piece.uid == copy.uid && piece.bytes < self.run_bytes;
            if !self.pieces.last().is_some_and(joins) {
                let entries_before = log.sorted_entries();
                self.pieces.push(Piece { uid: copy.uid, runs: Vec::new(), bytes: 0, entries_before, is_open: true });
            }
        }
        let chunk = copy.chunks.front()?;
        let read = chunk.bytes.as_ref()?;
        let entry = chunk.entries[copy.at];
        let stored = chunk.stored(&entry, read);
        let is_sound = copy.copied > 0 || stored.is_some_and(|batch| check_batch(batch, entry.partition_uid, entry.base_offset).is_ok());
        let batch = match (spare_for(&self.spares, &entry), stored) {
            (Some(spare), _) => spare,
            (None, Some(stored)) if is_sound => stored,
            _ => {
                let wounds = chunk.entries[copy.at..].iter().filter(|entry| spare_for(&self.spares, entry).is_none());
                let is_wound = |entry: &&FooterEntry| {
                    let stored = chunk.stored(entry, read);
                    stored.is_none_or(|batch| check_batch(batch, entry.partition_uid, entry.base_offset).is_err())
                };
                self.wounds.extend(wounds.filter(is_wound).map(|entry| wound_of(copy.run.segment, entry)));
                self.leave_front(log);
                return Some(Ok(0));
            }
        };
        let taken = log.write_sorted(slab, effects, &batch[copy.copied..]);
        if taken == 0 {
            return None;
        }
        copy.copied += taken;
        if copy.copied == batch.len() {
            log.end_sorted_batch(entry);
            (copy.at, copy.copied) = (copy.at + 1, 0);
            if copy.at == chunk.entries.len() {
                self.ahead_bytes -= chunk.len;
                copy.chunks.pop_front();
                copy.at = 0;
                if copy.chunks.is_empty() && copy.unread.is_empty() && copy.unlisted == 0 {
                    self.end_front();
                }
            }
        }
        Some(Ok(taken as u64))
    }

    /// The run in front is copied whole.
    fn end_front(&mut self) {
        let copy = self.ahead.pop_front().expect("it was in front");
        let piece = self.pieces.last_mut().expect("begun with its first run");
        piece.bytes += copy.run.bytes;
        piece.runs.push(copy.run);
    }

    /// The run in front stays where it is: something of it cannot be read, or does not check. What was copied of it is taken off the list.
    fn leave_front(&mut self, log: &mut Log) {
        let copy = self.ahead.pop_front().expect("it was in front");
        self.ahead_bytes -= copy.chunks.iter().map(|chunk| chunk.len).sum::<u64>();
        if !copy.is_gone {
            self.left.push(copy.run.segment);
            tracing::warn!(
                segment = copy.run.segment.0,
                partition = copy.uid.0,
                from = copy.run.first_offset,
                "damage keeps a run from being sorted"
            );
        }
        if copy.started {
            let piece = self.pieces.last().expect("begun with its first run");
            let kept = piece.entries_before + piece.runs.iter().map(|run| run.footer_count as usize).sum::<usize>();
            log.truncate_sorted(kept);
            self.pieces.pop_if(|piece| piece.runs.is_empty());
        }
        // What follows in the partition's index does not follow what was copied last.
        if let Some(piece) = self.pieces.last_mut() {
            piece.is_open = log.mutants().has(Mutant::JoinWhatDoesNotFollow) && !piece.runs.is_empty();
        }
    }
}
