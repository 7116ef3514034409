//! The sorter: many sealed segments in which the partitions' batches lie scattered, or of which little is still wanted, become few in which
//! each partition's batches lie together; the files go back to the pool (D3).
//!
//! ```text
//! idle --look, each second--> copying --output full, or nothing left--> finishing (footer, manifest) --> runs are swapped
//!   ^                            ^                                                                            |
//!   |                            +------ more to copy ------ inputs' runs are dropped <-- checkpoint durable <-+
//!   +--------------------------------- nothing left -----------------+
//! ```
//! Which: sealed segments whose runs are short on average (`sorter.run.bytes`), or of which too little is wanted, padding included
//! (`sorter.live.percent`); not before some files are won by it. What lies together well enough is left alone. Where the disk is full, the emptiest
//! ones that fit into one file together: one file is kept for this (`log/pool.rs`), and comes back with another.
//!
//! Invariants: a run points to a sorted segment only once the manifest names that segment; an input is freed only once a checkpoint without
//! its runs is durable, and its reads have ended; what does not check is not copied, and its segment stays for it.
//! A crash at any step leaves the old runs, or the new ones, whole.
//!
//! Not here: the copying (`sort_job.rs`), the segment's file (`log/sorted.rs`), what is dropped for good (`retention.rs`).

use super::retention::Use;
use super::shard::{Phase, Shard};
use super::sort_job::{Copied, Job};
use super::throttle::Scarce;
use crate::config::Settings;
use crate::effects::{Effects, Now};
use crate::ids::{PartitionUid, SegmentUid};
use crate::log::{BACKGROUND_OWNER, FooterEntry, ReadError, SegmentInfo};
use crate::mutants::Mutant;
use crate::partition::Run;
use std::collections::{BTreeMap, BTreeSet};

/// Whom the log's reads belong to when the sorter began them.
pub(super) const SORTER: u64 = BACKGROUND_OWNER + 1;
/// How often segments are looked at while there is nothing to do, in microseconds.
const LOOK_US: u64 = 1_000_000;
/// Between two attempts to mend runs of the same segment, of which the first came to nothing.
const MEND_AGAIN_US: u64 = 2_000_000;
/// Files that sorting has to win before it is begun for space alone.
const FILES_WON_MIN: u64 = 2;
/// How much may be saved up while there is nothing to read, in microseconds' worth of the rate.
const SAVED_US: u64 = 20_000;

/// What is worth sorting: the settings, so that it can be asked without a shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    pub(super) run_bytes: u64,
    pub(super) live_percent: u64,
}

impl Policy {
    pub(super) fn of(settings: &Settings) -> Policy {
        Policy { run_bytes: settings.sorter_run_bytes, live_percent: settings.sorter_live_percent }
    }

    /// Whether a segment's partitions lie in pieces too short to be read well.
    pub(super) fn is_scattered(&self, segment: &SegmentInfo, usage: &Use) -> bool {
        segment.sealed && !segment.sorted && usage.live_bytes < self.run_bytes * u64::from(usage.runs)
    }

    /// Whether so little of a segment is wanted that its space is worth a copy of it.
    fn is_wasteful(&self, segment: &SegmentInfo, usage: &Use) -> bool {
        usage.live_bytes * 100 < segment.file_bytes * self.live_percent
    }
}

/// The sorter of a shard.
#[derive(Debug, Default)]
pub(super) struct Sorting {
    step: Step,
    next_look_us: u64,
    /// Bytes that may be read now (below zero: read ahead of the rate, to be waited for), and when that was counted.
    allowance: i64,
    counted_us: u64,
    /// Segments with a run that could not be copied: they are left alone until the next start, else they would be read again and again.
    left: BTreeSet<SegmentUid>,
    /// From when on runs of a segment may be mended again: one that was not mended is tried seldom, or it would take the place of all that there is to sort.
    mended_next_us: BTreeMap<SegmentUid, u64>,
}

#[derive(Debug, Default)]
enum Step {
    #[default]
    Idle,
    Copying(Box<Job>),
    Finishing(Box<Job>),
    /// Runs are swapped in memory. The old ones, to be dropped once a checkpoint is durable.
    WantCheckpoint(Box<Job>, Vec<Run>),
    Checkpoint(Box<Job>, Vec<Run>),
}

impl Sorting {
    /// What was wrong with a segment is mended.
    pub(super) fn leave_no_more(&mut self, segment: SegmentUid) {
        self.left.remove(&segment);
        self.mended_next_us.remove(&segment);
    }

    /// Whether runs of a segment may be mended now.
    pub(super) fn may_mend(&self, segment: SegmentUid, now: Now) -> bool {
        self.mended_next_us.get(&segment).is_none_or(|next_us| *next_us <= now.mono_us)
    }

    /// Whether a segment is left alone because something of it could not be copied.
    pub(super) fn leaves(&self, segment: SegmentUid) -> bool {
        self.left.contains(&segment)
    }
}

impl Shard {
    /// Whether the sorter is at work.
    pub fn is_sorting(&self) -> bool {
        !matches!(self.sorting.step, Step::Idle)
    }

    /// One turn of sorting.
    pub(super) fn sort(&mut self, now: Now, effects: &mut Effects) {
        if self.phase != Phase::Serving {
            return self.stop_sorting();
        }
        let rate = self.settings.sorter_bytes_per_second;
        let passed_us = now.mono_us - std::mem::replace(&mut self.sorting.counted_us, now.mono_us);
        self.sorting.allowance = allowance_after(self.sorting.allowance, rate, passed_us);
        match std::mem::take(&mut self.sorting.step) {
            Step::Idle => self.look(now, effects),
            Step::Copying(job) => self.copy(now, job, effects),
            Step::WantCheckpoint(job, old) => self.write_runs(job, old, effects),
            waiting @ (Step::Finishing(_) | Step::Checkpoint(..)) => self.sorting.step = waiting,
        }
    }

    /// Leaves what can be left: nothing points to what was copied so far.
    fn stop_sorting(&mut self) {
        match std::mem::take(&mut self.sorting.step) {
            Step::Copying(_) => {}
            // What is on its way is carried to its end by the log.
            other => self.sorting.step = other,
        }
    }

    /// Whether the sorter would take this segment. Larger files than new ones are of another setting: what they hold may not fit. They stay as they are.
    pub(super) fn may_be_sorted(&self, segment: &SegmentInfo) -> bool {
        !self.sorting.leaves(segment.uid) && segment.file_bytes <= self.log.segment_bytes()
    }

    fn look(&mut self, now: Now, effects: &mut Effects) {
        if self.log.may_begin_sorted()
            && let Some((segment, job)) = self.next_mending(now)
        {
            self.sorting.mended_next_us.retain(|_, next_us| *next_us > now.mono_us);
            self.sorting.mended_next_us.insert(segment, now.mono_us + MEND_AGAIN_US);
            return self.copy(now, Box::new(job), effects);
        }
        if now.mono_us < self.sorting.next_look_us || self.settings.sorter_segments == 0 || !self.log.may_begin_sorted() {
            return;
        }
        self.sorting.next_look_us = now.mono_us + LOOK_US;
        let most = self.settings.sorter_segments as usize;
        self.sorting.left.retain(|segment| self.retention.use_of(*segment).is_some());
        let segments = self.log.segments().filter(|s| self.may_be_sorted(s)).filter_map(|s| Some((s, *self.retention.use_of(s.uid)?)));
        let inputs = match self.log.is_tight() {
            true => choose_to_win_space(segments, most.max(2), |bytes, batches| self.log.sorted_holds(bytes, batches)),
            false => choose(Policy::of(&self.settings), segments, most, self.log.segment_bytes()),
        };
        if inputs.is_empty() {
            return effects.wake_at(self.sorting.next_look_us);
        }
        tracing::debug!(shard = self.id.0, segments = inputs.len(), "sorting begins");
        let mut uids: Vec<PartitionUid> = self.partitions.iter().map(|(_, partition)| partition.uid).collect();
        uids.sort_unstable();
        self.copy(now, Box::new(Job::new(inputs, uids, self.settings.sorter_run_bytes)), effects);
    }

    fn copy(&mut self, now: Now, mut job: Box<Job>, effects: &mut Effects) {
        let allowance = &mut self.sorting.allowance;
        let copied = job.go_on(&self.partitions, &mut self.log, &mut self.slab, effects, allowance);
        self.sorting.left.extend(job.take_left());
        self.report_damage(&job.take_wounds());
        match copied {
            Copied::Waits => {
                // For bytes of the rate, or for memory; reads and writes come with a turn of their own.
                effects.wake_at(now.mono_us + 1_000);
                self.sorting.step = Step::Copying(job);
            }
            Copied::OutputFull | Copied::All => {
                self.log.finish_sorted(&mut self.slab, effects);
                self.sorting.step = Step::Finishing(job);
            }
            // What was copied so far stays.
            Copied::NoFile | Copied::Nothing => self.end_sorting(),
        }
    }

    /// Nothing is left to be done: the next look chooses anew.
    fn end_sorting(&self) {
        tracing::debug!(shard = self.id.0, "sorting ends");
    }

    /// A read of the sorter's has ended.
    pub(super) fn on_sorter_read(&mut self, ticket: u64, bytes: Result<crate::bytes::Bytes, ReadError>) {
        // Of a job that was left: nobody waits for it.
        if let Step::Copying(job) | Step::Finishing(job) | Step::WantCheckpoint(job, _) | Step::Checkpoint(job, _) = &mut self.sorting.step
        {
            job.on_read(ticket, bytes);
        }
    }

    /// The sorted segment is durable: its runs take the place of those that were copied.
    pub(super) fn on_sorted(&mut self, segment: SegmentUid, entries: &[FooterEntry]) {
        let Step::Finishing(mut job) = std::mem::take(&mut self.sorting.step) else {
            // Of a job that was left.
            if !entries.is_empty() {
                self.retention.on_sealed(segment, Use::default());
            }
            return;
        };
        let mut usage = Use::default();
        let mut old = Vec::new();
        for piece in job.take_pieces() {
            let run = run_of(segment, piece.uid, &piece.runs, entries);
            let Some(partition) = self.partitions.slot(piece.uid).and_then(|slot| self.partitions.get_mut(slot)) else { continue };
            let Some(new) = partition.index.replace_runs(&piece.runs, run, &mut old) else { continue };
            usage.add(new.bytes, new.footer_count);
            self.metrics.counters.sorter_bytes += new.bytes;
        }
        if !entries.is_empty() {
            self.retention.on_sealed(segment, usage);
            self.metrics.counters.sorter_segments += 1;
            self.throttle.take_for_others(Scarce::Disk, self.log.segment_bytes());
        }
        tracing::debug!(
            shard = self.id.0,
            segment = segment.0,
            runs = usage.runs,
            bytes = usage.live_bytes,
            instead_of = old.len(),
            "sorted"
        );
        if self.log.mutants().has(Mutant::FreeSortedEarly) {
            old.drain(..).for_each(|run| self.retention.on_run_dropped(&run));
        }
        if old.is_empty() {
            return self.go_on_sorting(job);
        }
        self.sorting.step = Step::WantCheckpoint(job, old);
    }

    /// Begins the checkpoint with the new runs, once no seal is under way.
    fn write_runs(&mut self, job: Box<Job>, old: Vec<Run>, effects: &mut Effects) {
        if self.may_write_checkpoint() {
            let checkpoint = self.mere_checkpoint(self.log.covered());
            match self.log.write_checkpoint(&mut self.slab, effects, checkpoint) {
                Ok(()) => return self.sorting.step = Step::Checkpoint(job, old),
                Err(error) => tracing::debug!(shard = self.id.0, "a checkpoint has to wait: {error:?}"),
            }
        }
        self.sorting.step = Step::WantCheckpoint(job, old);
    }

    /// A checkpoint is durable. If it is the one with the new runs the inputs lose theirs.
    pub(super) fn on_runs_written(&mut self) {
        let (job, old) = match std::mem::take(&mut self.sorting.step) {
            Step::Checkpoint(job, old) => (job, old),
            // The one that an orderly stop writes.
            other => return self.sorting.step = other,
        };
        for run in old {
            self.retention.on_run_dropped(&run);
        }
        self.close_wounds();
        self.go_on_sorting(job);
    }

    fn go_on_sorting(&mut self, job: Box<Job>) {
        match job.has_more() {
            true => self.sorting.step = Step::Copying(job),
            false => self.end_sorting(),
        }
    }
}

/// What may be read after `passed_us` more at `rate` bytes per second. A read may be larger than what is left: it is owed, else each millisecond's
/// few bytes would let another whole read begin (seen: 650 MB/s at a rate of 256 MiB/s).
pub(super) fn allowance_after(allowance: i64, rate: u64, passed_us: u64) -> i64 {
    let earned = (rate.saturating_mul(passed_us) / 1_000_000).min(i64::MAX as u64 / 2) as i64;
    let saved_max = (rate / 1_000_000 * SAVED_US).max(2 << 20) as i64;
    (allowance + earned).min(saved_max)
}

/// The run that a sorted segment holds in place of `runs`.
fn run_of(segment: SegmentUid, uid: PartitionUid, runs: &[Run], entries: &[FooterEntry]) -> Run {
    let (first, last) = (runs.first().expect("a piece has runs"), runs.last().expect("a piece has runs"));
    let at = |offset: u64| entries.partition_point(|entry| (entry.partition_uid, entry.base_offset.0) < (uid, offset)) as u32;
    let (footer_first, footer_end) = (at(first.first_offset), at(last.end_offset));
    let run = Run {
        segment,
        first_offset: first.first_offset,
        end_offset: last.end_offset,
        newest_ts_us: runs.iter().map(|run| run.newest_ts_us).max().unwrap_or(i64::MIN),
        bytes: runs.iter().map(|run| run.bytes).sum(),
        footer_first,
        footer_count: footer_end - footer_first,
    };
    assert_eq!(run.footer_count, runs.iter().map(|run| run.footer_count).sum::<u32>(), "all of {uid}'s batches were copied");
    run
}

/// The segments to sort now, oldest first; none while it is not worth it. `file_bytes` is what a new file has. Where the oldest `most` are not, for they
/// win too little and keep what is behind them from being reached: the scattered ones alone once there are enough of them, else the wasteful ones.
fn choose(policy: Policy, segments: impl Iterator<Item = (SegmentInfo, Use)>, most: usize, file_bytes: u64) -> Vec<SegmentUid> {
    let is_wasteful = |(segment, usage): &(SegmentInfo, Use)| policy.is_wasteful(segment, usage);
    let is_scattered = |(segment, usage): &(SegmentInfo, Use)| policy.is_scattered(segment, usage);
    let all: Vec<_> = segments.filter(|all| all.0.sealed && all.1.runs > 0 && (is_scattered(all) || is_wasteful(all))).collect();
    let first = |which: &dyn Fn(&(SegmentInfo, Use)) -> bool| -> Vec<(SegmentInfo, Use)> {
        all.iter().filter(|all| which(all)).take(most).cloned().collect()
    };
    // A thirty-second of a file is more than its header, paddings and footer take, unless its batches are tiny.
    let outputs = |inputs: &[(SegmentInfo, Use)]| {
        inputs.iter().map(|(_, usage)| usage.live_bytes).sum::<u64>().div_ceil(file_bytes - file_bytes / 32)
    };
    let won_min = FILES_WON_MIN.min(most as u64 / 2).max(1);
    let wins = |inputs: &[(SegmentInfo, Use)]| inputs.len() as u64 >= outputs(inputs) + won_min;
    let (oldest, scattered, wasteful) = (first(&|_| true), first(&is_scattered), first(&is_wasteful));
    let chosen = if wins(&oldest) {
        oldest
    } else if scattered.len() == most {
        scattered
    } else if wins(&wasteful) {
        wasteful
    } else {
        Vec::new()
    };
    chosen.iter().map(|(segment, _)| segment.uid).collect()
}

/// The segments to sort where no file can be had but the one that is kept: the emptiest, as many as `fit` into it by their bytes and batches. None
/// when that would win nothing.
fn choose_to_win_space(segments: impl Iterator<Item = (SegmentInfo, Use)>, most: usize, fit: impl Fn(u64, u32) -> bool) -> Vec<SegmentUid> {
    let mut used: Vec<_> = segments.filter(|(segment, usage)| segment.sealed && usage.runs > 0).collect();
    used.sort_by_key(|(segment, usage)| (usage.live_bytes, segment.uid));
    let (mut bytes, mut batches) = (0, 0);
    let fits = used.iter().take(most).take_while(|(_, usage)| {
        (bytes, batches) = (bytes + usage.live_bytes, batches + usage.batches);
        fit(bytes, batches)
    });
    let inputs: Vec<SegmentUid> = fits.map(|(segment, _)| segment.uid).collect();
    if inputs.len() > 1 { inputs } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::BlockSeq;

    const FILE_BYTES: u64 = 256 << 20;
    const DEFAULT: Policy = Policy { run_bytes: 256 << 10, live_percent: 50 };

    fn segment(uid: u64, sorted: bool, runs: u32, live_mib: u64) -> (SegmentInfo, Use) {
        let info = SegmentInfo {
            uid: SegmentUid(uid),
            sealed: true,
            sorted,
            file_bytes: FILE_BYTES,
            first_block: BlockSeq(0),
            last_block: BlockSeq(0),
        };
        (info, Use { runs, live_bytes: live_mib << 20, batches: runs })
    }

    fn chosen(list: &[(SegmentInfo, Use)], most: usize) -> Vec<u64> {
        choose(DEFAULT, list.iter().copied(), most, FILE_BYTES).into_iter().map(|uid| uid.0).collect()
    }

    #[test]
    fn no_more_is_read_than_the_rate_allows_whatever_the_size_of_a_read() {
        let (rate, read) = (256 << 20, 1 << 20);
        let (mut allowance, mut begun) = (0, 0u64);
        // A second in turns of one millisecond, each of which reads as long as anything is allowed.
        for _ in 0..1000 {
            allowance = allowance_after(allowance, rate, 1000);
            while allowance > 0 {
                (allowance, begun) = (allowance - read, begun + 1);
            }
        }
        assert!((255..=257).contains(&begun), "{begun} MiB at 256 MiB/s");
        assert!(allowance_after(0, rate, u64::MAX) < 6 << 20, "what is saved up is bounded");
    }

    #[test]
    fn what_lies_together_is_left_alone() {
        let fat: Vec<_> = (1..40).map(|uid| segment(uid, false, 10, 250)).collect();
        assert!(chosen(&fat, 16).is_empty());
        let sorted: Vec<_> = (1..40).map(|uid| segment(uid, true, 10_000, 250)).collect();
        assert!(chosen(&sorted, 16).is_empty(), "short runs that were sorted already do not get longer by it");
    }

    #[test]
    fn the_settings_say_what_is_long_and_what_is_waste() {
        let (info, usage) = segment(1, false, 1000, 100);
        let policy = |run_bytes, live_percent| Policy { run_bytes, live_percent };
        assert!(policy(256 << 10, 50).is_scattered(&info, &usage) && !policy(64 << 10, 50).is_scattered(&info, &usage));
        assert!(
            policy(0, 50).is_wasteful(&info, &usage)
                && !policy(0, 39).is_wasteful(&info, &usage)
                && !policy(0, 0).is_wasteful(&info, &usage)
        );
    }

    #[test]
    fn scattered_segments_wait_until_there_are_enough_of_them() {
        let list: Vec<_> = (1..=16).map(|uid| segment(uid, false, 10_000, 250)).collect();
        assert!(chosen(&list[..15], 16).is_empty());
        assert_eq!(chosen(&list, 16).len(), 16);
    }

    #[test]
    fn what_wins_too_little_does_not_keep_the_scattered_ones_behind_it_from_being_sorted() {
        let mut list: Vec<_> = (1..4).map(|uid| segment(uid, true, 9, 120)).collect();
        assert!(chosen(&list, 4).is_empty(), "three become two: not worth a copy");
        assert_eq!(chosen(&list, 2), [1, 2], "with a small setting one file is worth it");
        list.extend((4..7).map(|uid| segment(uid, false, 10_000, 250)));
        assert!(chosen(&list, 4).is_empty(), "they wait until there are enough of them");
        list.push(segment(7, false, 10_000, 250));
        assert_eq!(chosen(&list, 4), [4, 5, 6, 7]);
    }

    #[test]
    fn what_waits_to_be_more_does_not_keep_waste_behind_it_from_being_won() {
        let mut list: Vec<_> = (1..16).map(|uid| segment(uid, false, 10_000, 250)).collect();
        list.extend((20..30).map(|uid| segment(uid, true, 9, 25)));
        assert_eq!(chosen(&list, 16), (20..30).collect::<Vec<_>>());
    }

    #[test]
    fn on_a_full_disk_the_emptiest_that_fit_into_one_file_are_joined() {
        let tight = |list: &[(SegmentInfo, Use)], most| {
            let fit = |bytes, batches: u32| bytes + u64::from(batches) <= 256 << 20;
            choose_to_win_space(list.iter().copied(), most, fit).into_iter().map(|uid| uid.0).collect::<Vec<_>>()
        };
        let list = [segment(1, false, 9, 200), segment(2, true, 9, 90), segment(3, false, 9, 60), segment(4, false, 9, 100)];
        assert_eq!(tight(&list, 16), [3, 2, 4], "250 MiB");
        assert_eq!(tight(&list, 2), [3, 2]);
        assert!(tight(&list[..2], 16).is_empty(), "two that do not fit into one win nothing");
        let brim = [segment(1, false, 2, 128), segment(2, false, 2, 128)];
        assert!(tight(&brim, 16).is_empty(), "batches count, not bytes alone");
        assert!(tight(&[segment(9, false, 0, 0), segment(1, false, 1, 1)], 16).is_empty(), "what nobody wants is retention's");
    }

    #[test]
    fn waste_is_won_back_when_files_are_won_by_it() {
        let list: Vec<_> = (1..=4).map(|uid| segment(uid, uid % 2 == 0, 3, 20)).collect();
        assert!(chosen(&list[..2], 16).is_empty(), "two become one: not worth a copy");
        assert_eq!(chosen(&list[..3], 16), [1, 2, 3]);
        let unused = segment(9, false, 0, 0);
        assert!(chosen(&[unused, unused, unused], 16).is_empty(), "what nobody wants is retention's");
    }
}
