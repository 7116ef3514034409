//! What a manifest and a checkpoint can say. Their checksums tell that the bytes are those that were written, not that the writer was right: a start
//! refuses what cannot be, with a sentence, instead of counting on it.
//!
//! Invariants: everything that a running log writes passes; whatever passes can be started from without a number that overflows, memory by a
//! count that is not there, or a place outside its file.
//!
//! Not here: checksums and archives (`envelope.rs`), whether the files fit (`recovery.rs`).

use crate::constants::PRODUCER_BATCHES_KEPT;
use crate::log::checkpoint::{CheckpointV5, ProducerBatchV1, ProducerV1, RunV1};
use crate::log::footer::footer_bytes;
use crate::log::layout::{BLOCK_ALIGN, SEGMENT_DATA_START};
use crate::log::manifest::{ManifestV2, SegmentRecordV1};
use std::collections::BTreeSet;

/// Counters, offsets and indexes are below this: what a start adds to them stays a number. At a million a second it is reached after 146,000 years.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;
/// Ids of temporary files begin at 2^40 (`operation.rs`).
const FILES_MAX: u64 = 1 << 39;

/// A stored value that can be looked at for what cannot be.
pub(crate) trait Plausible {
    /// What is wrong, if something is.
    fn check(&self) -> Result<(), String>;
}

fn below(what: &str, numbers: &[u64], max: u64) -> Result<(), String> {
    match numbers.iter().find(|number| **number >= max) {
        Some(number) => Err(format!("{what} {number}")),
        None => Ok(()),
    }
}

impl Plausible for ManifestV2 {
    fn check(&self) -> Result<(), String> {
        below("the counter", &[self.incarnation, self.next_uid], NUMBER_MAX)?;
        below("the file number", &[self.next_file], FILES_MAX)?;
        let rises = |a: &crate::log::manifest::StartV1, b: &crate::log::manifest::StartV1| {
            a.incarnation < b.incarnation && a.first_seq < b.first_seq
        };
        if !self.starts.is_sorted_by(rises)
            || self.starts.last().is_some_and(|s| s.incarnation != self.incarnation || s.first_seq >= NUMBER_MAX)
        {
            return Err(format!("starts {:?} before start {}", self.starts, self.incarnation));
        }
        let mut files = BTreeSet::new();
        let mut uids = BTreeSet::new();
        for list in [&self.segments, &self.sorted_segments] {
            if !list.is_sorted_by(|a, b| a.uid < b.uid) {
                return Err("segments out of order".to_owned());
            }
            for record in list {
                check_record(self, record)?;
                if !uids.insert(record.uid) || !files.insert(record.file) {
                    return Err(format!("segment {} or its file {} twice", record.uid, record.file));
                }
            }
        }
        match self.free.iter().find(|free| free.file >= self.next_file || !files.insert(free.file)) {
            Some(free) => Err(format!("a free file {} that is used, or not made yet", free.file)),
            None => Ok(()),
        }
    }
}

fn check_record(manifest: &ManifestV2, record: &SegmentRecordV1) -> Result<(), String> {
    let known = record.uid < manifest.next_uid && record.file < manifest.next_file && record.incarnation <= manifest.incarnation;
    let sized = record.bytes.is_multiple_of(BLOCK_ALIGN as u64)
        && record.bytes <= u64::from(u32::MAX)
        && u64::from(SEGMENT_DATA_START) + footer_bytes(record.footer_entries) <= record.bytes;
    if known && sized && record.window_bytes <= record.bytes && record.first_seq_bound < NUMBER_MAX {
        return Ok(());
    }
    Err(format!("a segment that cannot be: {record:?}"))
}

impl Plausible for CheckpointV5 {
    fn check(&self) -> Result<(), String> {
        // Where damage took the first blocks of what is scanned, the scan begins behind them: no fixed distance from what is covered.
        below("the block", &[self.covers_block, self.scan.first_seq], NUMBER_MAX)?;
        let mut groups = BTreeSet::new();
        for group in &self.groups {
            let numbers = [
                group.term,
                group.commit,
                group.applied_index,
                group.applied_term,
                group.since_block,
                group.since_applied,
                group.conf_index,
            ];
            below("the group's number", &numbers, NUMBER_MAX)?;
            let mut ids = BTreeSet::new();
            // One that has begun empty learns of the others with its snapshot.
            let is_known = !group.voters.is_empty() || group.applied_index == 0;
            let has_members = is_known && group.voters.iter().chain(&group.learners).all(|id| ids.insert(*id));
            if !groups.insert(group.group) || !has_members {
                return Err(format!("a group that cannot be: {group:?}"));
            }
        }
        let mut uids = BTreeSet::new();
        for partition in &self.partitions {
            if !uids.insert(partition.uid) || partition.log_start > partition.next_offset || partition.next_offset >= NUMBER_MAX {
                return Err(format!("a partition that cannot be: {partition:?}"));
            }
        }
        check_producers(&self.producers, &self.producer_batches)?;
        check_runs(&self.runs)
    }
}

/// A producer has batches, which follow one another, and there are as many as the producers say.
fn check_producers(producers: &[ProducerV1], batches: &[ProducerBatchV1]) -> Result<(), String> {
    if !producers.is_sorted_by(|a, b| (a.partition, a.id) < (b.partition, b.id)) {
        return Err("producers out of order".to_owned());
    }
    let fits = |batch: &ProducerBatchV1| batch.count > 0 && batch.first < NUMBER_MAX && batch.base_offset < NUMBER_MAX;
    let follows = |a: &ProducerBatchV1, b: &ProducerBatchV1| {
        let count = u64::from(a.count);
        a.first + count <= b.first && a.base_offset + count <= b.base_offset
    };
    let mut rest = batches;
    for producer in producers {
        let count = usize::from(producer.batches);
        let own = rest.split_off(..count).filter(|own| own.iter().all(fits) && own.is_sorted_by(follows));
        if producer.id == 0 || !(1..=PRODUCER_BATCHES_KEPT).contains(&count) || own.is_none() {
            return Err(format!("a producer that cannot be: {producer:?}"));
        }
    }
    if rest.is_empty() { Ok(()) } else { Err(format!("{} batches of no producer", rest.len())) }
}

/// Runs of a partition follow one another and end below what was handed out; each has something.
fn check_runs(runs: &[RunV1]) -> Result<(), String> {
    let mut order: Vec<&RunV1> = runs.iter().collect();
    order.sort_unstable_by_key(|run| (run.uid, run.first_offset));
    for run in &order {
        let bytes_fit = run.bytes <= u64::from(u32::MAX);
        let has_entries = run.footer_count > 0 && run.footer_first.checked_add(run.footer_count).is_some();
        if run.first_offset >= run.end_offset || run.end_offset >= NUMBER_MAX || !bytes_fit || !has_entries {
            return Err(format!("a run that cannot be: {run:?}"));
        }
    }
    match order.windows(2).find(|pair| pair[0].uid == pair[1].uid && pair[0].end_offset > pair[1].first_offset) {
        Some(pair) => Err(format!("runs that overlap: {:?} and {:?}", pair[0], pair[1])),
        None => Ok(()),
    }
}

/// Whether a checkpoint, of which the runs of freed segments were dropped and footers were checked, and its manifest can be of one log.
pub(crate) fn check_together(manifest: &ManifestV2, checkpoint: &CheckpointV5) -> Result<(), String> {
    for run in &checkpoint.runs {
        let of =
            |list: &[SegmentRecordV1]| list.binary_search_by_key(&run.segment, |record| record.uid).ok().map(|at| list[at].footer_entries);
        let sealed = of(&manifest.segments).filter(|_| run.segment < checkpoint.scan.segment);
        let entries = sealed.or_else(|| of(&manifest.sorted_segments)).unwrap_or(0);
        if run.footer_first + run.footer_count > entries {
            return Err(format!("a run of entries that segment {} does not have: {run:?}", run.segment));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::manifest::{FreeFileV1, StartV1};

    fn manifest() -> ManifestV2 {
        let record = |uid, file, entries| SegmentRecordV1 {
            uid,
            file,
            bytes: 128 << 10,
            incarnation: 2,
            first_seq_bound: 1,
            window_bytes: 64 << 10,
            sealed: entries > 0,
            footer_entries: entries,
        };
        ManifestV2 {
            incarnation: 3,
            starts: vec![StartV1 { incarnation: 2, first_seq: 1 }, StartV1 { incarnation: 3, first_seq: 90 }],
            next_uid: 9,
            next_file: 7,
            segments: vec![record(1, 1, 200), record(4, 2, 0)],
            sorted_segments: vec![record(3, 5, 20)],
            free: vec![FreeFileV1 { file: 6, filled: true }],
            ..ManifestV2::default()
        }
    }

    fn checkpoint() -> CheckpointV5 {
        use crate::log::checkpoint::{GroupPositionV3, PartitionPositionV1, ScanStartV1};
        let run = |segment, first_offset, end_offset, footer_first| RunV1 {
            uid: 7,
            segment,
            first_offset,
            end_offset,
            bytes: 500,
            footer_first,
            footer_count: 5,
            ..RunV1::default()
        };
        let batch = |first, base_offset| ProducerBatchV1 { first, count: 5, base_offset, append_time: 0 };
        CheckpointV5 {
            covers_block: 95,
            groups: vec![GroupPositionV3 {
                group: 1,
                term: 3,
                applied_term: 2,
                applied_index: 60,
                voters: vec![1],
                ..GroupPositionV3::default()
            }],
            partitions: vec![PartitionPositionV1 { uid: 7, log_start: 3, next_offset: 30, ..PartitionPositionV1::default() }],
            runs: vec![run(3, 0, 10, 15), run(1, 10, 30, 0)],
            producers: vec![
                ProducerV1 { partition: 7, id: 4, epoch: 1, batches: 2 },
                ProducerV1 { partition: 7, id: 5, epoch: 0, batches: 1 },
            ],
            producer_batches: vec![batch(0, 2), batch(5, 20), batch(0, 7)],
            scan: ScanStartV1 { segment: 4, first_seq: 96, prev_header_crc: 0 },
            ..CheckpointV5::default()
        }
    }

    #[test]
    fn a_manifest_that_cannot_be_is_refused() {
        assert_eq!(manifest().check(), Ok(()));
        let changes: [fn(&mut ManifestV2); 16] = [
            |m| m.next_uid = u64::MAX,
            |m| m.next_file = 1 << 39,
            |m| m.incarnation = 4,
            |m| m.starts.reverse(),
            |m| m.starts[1].first_seq = u64::MAX,
            |m| m.segments.reverse(),
            |m| m.segments[0].bytes = 0,
            |m| m.segments[0].bytes += 512,
            |m| m.segments[0].footer_entries = u32::MAX,
            |m| m.segments[0].window_bytes = u64::MAX,
            |m| m.segments[1].incarnation = 4,
            |m| m.segments[1].file = 1,
            |m| m.sorted_segments[0].uid = 4,
            |m| m.sorted_segments[0].file = 7,
            |m| m.free[0].file = 5,
            |m| m.free.push(m.free[0].clone()),
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut changed = manifest();
            change(&mut changed);
            assert!(changed.check().is_err(), "change {number}: {changed:?}");
        }
    }

    #[test]
    fn a_checkpoint_that_cannot_be_is_refused() {
        let good = |checkpoint: &CheckpointV5| checkpoint.check().and_then(|()| check_together(&manifest(), checkpoint));
        assert_eq!(good(&checkpoint()), Ok(()));
        let changes: [fn(&mut CheckpointV5); 23] = [
            |c| c.covers_block = u64::MAX,
            |c| c.scan.first_seq = u64::MAX,
            |c| c.groups[0].applied_index = u64::MAX,
            |c| c.groups[0].term = u64::MAX,
            |c| c.groups.push(c.groups[0].clone()),
            |c| c.partitions[0].log_start = 31,
            |c| c.partitions[0].next_offset = u64::MAX,
            |c| c.partitions.push(c.partitions[0].clone()),
            |c| c.runs[0].end_offset = 11,
            |c| c.runs[0].end_offset = 0,
            |c| c.runs[0].footer_count = u32::MAX,
            |c| c.runs[0].footer_first = 16,
            |c| c.runs[1].segment = 4,
            |c| c.runs[1].bytes = u64::MAX,
            |c| c.producers[0].id = 0,
            |c| c.producers[1].id = 4,
            |c| c.producers[0].batches = 0,
            |c| c.producers[1].batches = 2,
            |c| c.producers.truncate(1),
            |c| c.producer_batches[1].first = 4,
            |c| c.producer_batches[1].base_offset = u64::MAX,
            |c| c.producer_batches[1].count = 0,
            |c| {
                let batch = |n: u64| ProducerBatchV1 { first: n, count: 1, base_offset: n, append_time: 0 };
                c.producers.truncate(1);
                c.producers[0].batches = 6;
                c.producer_batches = (0..6).map(batch).collect();
            },
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut changed = checkpoint();
            change(&mut changed);
            assert!(good(&changed).is_err(), "change {number}: {changed:?}");
        }
    }
}
