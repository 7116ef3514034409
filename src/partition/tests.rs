//! The index against a naive list, and the offsets of a partition.

use super::*;
use crate::ids::{BlockSeq, GroupId, PartitionUid, SegmentUid, TopicUid};
use proptest::prelude::*;

fn batch(base_offset: u64, count: u32, block: u64) -> BatchRef {
    BatchRef { base_offset, newest_ts_us: base_offset as i64 * 10, block: BlockSeq(block), at: 96, len: count * 20, last_delta: count - 1 }
}

fn partition() -> Partition {
    Partition::new(PartitionUid(1), TopicUid(1), 0, GroupId(1), TopicRules::default())
}

proptest! {
    /// Appends, seals and drops at random; every offset is found where the list has it.
    #[test]
    fn the_index_finds_what_a_list_finds(counts in prop::collection::vec(1u32..9, 1..60), seals in prop::collection::vec(0usize..60, 0..4), dropped in 0usize..3, cached in 0u64..22, forget in any::<bool>()) {
        let mut index = Index::default();
        let (mut next, mut list) = (0, Vec::new());
        let mut segment = 0;
        for (at, count) in counts.iter().enumerate() {
            let b = batch(next, *count, at as u64 / 3 + 1);
            index.push(b);
            list.push((b, None));
            next = b.end_offset();
            if seals.contains(&at) {
                segment += 1;
                let run = index.seal(SegmentUid(segment), b.block, 0).unwrap();
                let sealed = list.iter_mut().filter(|(_, s)| s.is_none());
                prop_assert_eq!(run.footer_count as usize, sealed.map(|(_, s)| *s = Some(segment)).count());
            }
        }
        for segment in 1..=(dropped as u64).min(segment) {
            prop_assert!(index.pop_run().is_some_and(|run| run.segment == SegmentUid(segment)));
            list.retain(|(_, s)| *s != Some(segment));
        }
        let cached_from = BlockSeq(cached);
        if forget {
            index.forget_sealed(cached_from);
        }
        prop_assert_eq!(index.tail().count(), list.iter().filter(|(_, s)| s.is_none()).count());
        prop_assert_eq!(index.bytes(), list.iter().map(|(b, _)| u64::from(b.len)).sum::<u64>());
        prop_assert_eq!(index.first_offset(), list.first().map(|(b, _)| b.base_offset));
        prop_assert_eq!(index.end_offset(), list.last().map(|(b, _)| b.end_offset()));
        for offset in 0..next + 2 {
            let expected = list.iter().find(|(b, _)| b.end_offset() > offset);
            match (index.find(offset, cached_from), expected) {
                (Found::End, None) => {}
                (Found::Run(run), Some((b, segment))) => {
                    prop_assert_eq!(Some(run.segment.0), *segment);
                    prop_assert!(b.block < cached_from, "{:?} is cached and must not be read from the disk", b);
                }
                (Found::Listed(at), Some((b, segment))) => {
                    prop_assert_eq!(index.listed(at), Some(b));
                    prop_assert!(segment.is_none() || b.block >= cached_from, "{:?} is sealed and not cached", b);
                }
                (found, expected) => prop_assert!(false, "{:?} for {:?} at {}", found, expected, offset),
            }
            // 20 bytes and 10 us a record: what is left is told to a batch of at most 8.
            let first = index.first_offset().unwrap_or(next);
            let left_bytes = (next - offset.clamp(first, next)) * 20;
            prop_assert!(index.bytes_from(offset).abs_diff(left_bytes) <= 8 * 20, "{} of {} at {}", index.bytes_from(offset), left_bytes, offset);
            match index.time_at(offset) {
                None => prop_assert!(offset >= next || list.is_empty()),
                // The newest times are those of first records of batches; the oldest run has none before it to begin with.
                Some(time_us) => {
                    let oldest = index.runs().next().map_or(0, |run| run.end_offset);
                    let (time, offset) = (time_us as u64 / 10, offset.max(first));
                    prop_assert!(time.abs_diff(offset) <= 8 || offset < oldest && time <= oldest, "{} for {}", time, offset);
                }
            }
        }
    }
}

proptest! {
    /// The sorter copies some runs while retention drops and cuts runs at the old end: what takes their place holds exactly what is left.
    #[test]
    fn a_sorted_run_takes_the_place_of_what_is_left(runs in prop::collection::vec(prop::collection::vec(1u32..9, 1..12), 1..6), first in 0usize..6, count in 1usize..6, gone in 0usize..40) {
        let mut index = Index::default();
        let mut batches = Vec::new();
        for (segment, counts) in (1..).zip(&runs) {
            for count in counts {
                let b = batch(batches.last().map_or(0, BatchRef::end_offset), *count, segment);
                index.push(b);
                batches.push(b);
            }
            index.seal(SegmentUid(segment), BlockSeq(segment), 100 * segment as u32).unwrap();
        }
        let first = first.min(runs.len() - 1);
        let old: Vec<Run> = index.runs().skip(first).take(count).copied().collect();
        let copied: Vec<_> = batches.iter().filter(|b| old[0].first_offset <= b.base_offset && b.base_offset < old[old.len() - 1].end_offset).collect();
        let new = Run {
            segment: SegmentUid(99),
            first_offset: old[0].first_offset,
            end_offset: old[old.len() - 1].end_offset,
            newest_ts_us: 0,
            bytes: copied.iter().map(|b| u64::from(b.len)).sum(),
            footer_first: 1000,
            footer_count: copied.len() as u32,
        };
        // The oldest `gone` batches go: as runs where they are whole runs, else off the front of one.
        let gone = gone.min(batches.len());
        let start = batches.get(gone).map_or(u64::MAX, |b| b.base_offset);
        while index.runs().next().is_some_and(|run| run.end_offset <= start) {
            index.pop_run();
        }
        let cut: Vec<_> = batches[..gone].iter().filter(|b| index.runs().next().is_some_and(|run| run.first_offset <= b.base_offset)).collect();
        if !cut.is_empty() {
            index.cut_run(cut.len() as u32, cut.iter().map(|b| u64::from(b.len)).sum(), start);
        }
        let before: Vec<Run> = index.runs().copied().collect();
        let left: Vec<_> = copied.into_iter().filter(|b| b.base_offset >= start).collect();
        let mut replaced = Vec::new();
        let became = index.replace_runs(&old, new, &mut replaced);
        prop_assert_eq!(index.bytes(), batches[gone..].iter().map(|b| u64::from(b.len)).sum::<u64>());
        prop_assert_eq!(index.runs().map(|run| run.bytes).sum::<u64>(), index.bytes());
        prop_assert_eq!(index.first_offset(), batches.get(gone).map(|b| b.base_offset));
        let expected = left.first().map(|b| Run {
            first_offset: b.base_offset,
            bytes: left.iter().map(|b| u64::from(b.len)).sum(),
            footer_first: 1000 + new.footer_count - left.len() as u32,
            footer_count: left.len() as u32,
            ..new
        });
        prop_assert_eq!(became, expected);
        let is_old = |run: &&Run| old.iter().any(|old| old.segment == run.segment);
        prop_assert!(replaced.iter().eq(before.iter().filter(is_old)), "{:?} of {:?}", replaced, before);
        prop_assert!(index.runs().is_sorted_by(|a, b| a.end_offset <= b.first_offset));
    }
}

#[test]
fn what_is_due_is_known_without_a_look_once_somebody_has_looked() {
    let mut p = partition();
    for at in 0..4 {
        p.on_appended(batch(at * 5, 5, 1));
    }
    p.on_committed(20);
    p.index.seal(SegmentUid(1), BlockSeq(1), 0);
    let front = |base_offset: u64| {
        let b = batch(base_offset, 5, 1);
        Oldest { first_offset: base_offset, end_offset: b.end_offset(), newest_ts_us: b.newest_ts_us, bytes: u64::from(b.len) }
    };
    let due = |p: &Partition, utc_us| (p.may_be_cut(|_| true, utc_us), p.may_be_cut(|_| false, utc_us));
    assert_eq!(due(&p, i64::MAX), (false, false), "without a limit nothing is ever due");
    p.rules.retention_bytes = Some(400);
    assert_eq!(due(&p, 0), (false, false), "no more is there than is to be kept");
    p.rules.retention_bytes = Some(399);
    assert_eq!(due(&p, 0), (true, false), "it depends on the size of the first batch, which nobody knows");
    p.note_front(front(0));
    assert_eq!(due(&p, 0), (false, false));
    p.rules = TopicRules { retention_ms: Some(1), ..TopicRules::default() };
    assert_eq!((due(&p, 1000), due(&p, 1001)), ((false, false), (true, true)));
    p.index.cut_run(1, 100, 5);
    assert_eq!(due(&p, 0), (true, false), "another batch is in front");
    p.note_front(front(5));
    assert_eq!((due(&p, 1050), due(&p, 1051)), ((false, false), (true, true)));
    p.rules = TopicRules::default();
    p.trim_to(12);
    assert_eq!(due(&p, 0), (true, true));
    p.index.cut_run(1, 100, 10);
    p.note_front(front(10));
    assert_eq!(due(&p, 0), (false, false), "the start is in the middle of the first batch");
}

#[test]
fn offsets_are_handed_out_committed_and_trimmed_in_order() {
    let mut p = partition();
    p.on_appended(batch(0, 5, 1));
    p.on_appended(batch(5, 1, 2));
    assert_eq!((p.next_offset(), p.committed_end(), p.visible_end()), (6, 0, 0));
    assert!(p.on_committed(5) && !p.on_committed(5));
    p.rules.visible_at_leader = true;
    assert_eq!((p.committed_end(), p.visible_end()), (5, 6));
    p.index.seal(SegmentUid(1), BlockSeq(1), 0);
    p.index.pop_run();
    p.on_dropped(5);
    assert_eq!((p.log_start(), p.next_offset()), (5, 6));
}

#[test]
fn what_damage_took_behind_what_was_dropped_is_still_told_as_damaged() {
    let mut p = partition();
    p.on_appended(batch(0, 5, 1));
    p.skip_lost(4);
    p.on_appended(batch(9, 3, 2));
    p.on_committed(12);
    p.index.seal(SegmentUid(1), BlockSeq(1), 0);
    p.index.pop_run();
    p.on_dropped(5);
    assert_eq!((p.log_start(), p.lost_at(5)), (5, Some(&(5..9))), "nobody dropped these");
}

#[test]
#[should_panic(expected = "handed out in order")]
fn an_offset_is_not_handed_out_twice() {
    let mut p = partition();
    p.on_appended(batch(0, 5, 1));
    p.on_appended(batch(4, 1, 1));
}

#[test]
fn what_damage_took_is_told_and_never_used_again() {
    let mut p = partition();
    p.restore_batch(batch(0, 3, 1));
    p.restore_batch(batch(7, 2, 3));
    assert_eq!(p.lost(), std::slice::from_ref(&(3..7)));
    p.skip_lost(100);
    assert_eq!((p.next_offset(), p.committed_end()), (109, 109));
    assert_eq!((p.lost_at(2), p.lost_at(5), p.lost_at(50)), (None, Some(&(3..7)), Some(&(9..109))));
    p.on_appended(batch(109, 1, 9));
    assert_eq!(p.next_offset(), 110);
}

#[test]
fn commits_follow_groups_and_blocks() {
    let mut table = Partitions::default();
    let add = |table: &mut Partitions, uid: u64, group: u32| {
        table.insert(Partition::new(PartitionUid(uid), TopicUid(1), 0, GroupId(group), TopicRules::default()))
    };
    let (a, b) = (add(&mut table, 1, 1), add(&mut table, 2, 2));
    for (slot, group, base, block) in [(a, 1, 0, 1), (b, 2, 0, 1), (a, 1, 2, 1), (a, 1, 4, 2)] {
        table.get_mut(slot).unwrap().on_appended(batch(base, 2, block));
        table.touch(GroupId(group), BlockSeq(block), slot, base + 2);
    }
    let mut told = Vec::new();
    table.commit(GroupId(1), BlockSeq(1), |slot, p| told.push((slot, p.committed_end())));
    assert_eq!(told, [(a, 4)], "one group, through its block");
    table.remove(a);
    table.commit(GroupId(1), BlockSeq(2), |slot, _| told.push((slot, 0)));
    table.commit(GroupId(2), BlockSeq(2), |slot, p| told.push((slot, p.committed_end())));
    assert_eq!(told[1..], [(b, 2)], "a deleted partition has nothing to commit");
    assert_eq!((table.slot(PartitionUid(1)), table.slot(PartitionUid(2)), table.len()), (None, Some(b), 1));
}

#[test]
fn a_trim_moves_the_start_for_good_and_never_past_what_is_committed() {
    let mut p = partition();
    p.on_appended(batch(0, 5, 1));
    p.on_appended(batch(5, 5, 2));
    p.on_appended(batch(10, 5, 3));
    p.on_committed(10);
    assert_eq!(p.check_trim(11), Err(TrimError::PastCommittedEnd));
    assert_eq!((p.check_trim(0), p.check_trim(7), p.check_trim(10)), (Ok(false), Ok(true), Ok(true)));
    // What retention moved up a crash can take back: a trim to there has to be written all the same.
    p.index.seal(SegmentUid(1), BlockSeq(1), 0);
    p.index.pop_run();
    p.on_dropped(5);
    assert_eq!((p.log_start(), p.check_trim(5)), (5, Ok(true)));
    p.trim_to(7);
    assert_eq!((p.log_start(), p.committed_end(), p.next_offset()), (7, 10, 15));
    assert_eq!((p.check_trim(7), p.check_trim(8)), (Ok(false), Ok(true)));
    p.trim_to(6);
    assert_eq!(p.log_start(), 7, "a start never goes back");
    // The run that straddles the start goes later; the start does not follow it down.
    p.index.seal(SegmentUid(2), BlockSeq(2), 0);
    p.on_dropped(5);
    assert_eq!((p.log_start(), p.index.first_offset()), (7, Some(5)));
}

#[test]
fn a_trim_found_at_a_start_holds_whatever_else_was_found() {
    // The checkpoint knows of a trim that stands in the log behind the batches.
    let mut p = partition();
    p.restore_bounds(7, 7);
    p.restore_batch(batch(0, 5, 1));
    assert_eq!((p.log_start(), p.next_offset()), (7, 7), "what is below the start was handed out");
    p.restore_batch(batch(5, 5, 2));
    assert_eq!((p.log_start(), p.next_offset(), p.lost()), (7, 10, &[][..]));
    // The batches below a trim are gone with their blocks.
    p.restore_batch(batch(20, 2, 3));
    p.restore_trim(30);
    assert_eq!((p.log_start(), p.next_offset(), p.committed_end(), p.lost()), (30, 30, 30, &[][..]));
    assert_eq!(p.check_trim(30), Ok(false));
}

proptest! {
    /// What was stored is read back; a changed byte, a missing one or another version is refused.
    #[test]
    fn stored_trims_are_read_back_or_refused(list in prop::collection::vec(any::<(u64, u64)>(), 1..20), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let trims: Vec<Trim> = list.into_iter().map(|(uid, log_start)| Trim { uid: PartitionUid(uid), log_start }).collect();
        let bytes = encode_trims(&trims);
        prop_assert_eq!(decode_trims(&bytes), Ok(trims));
        let mut wrong = bytes.clone();
        wrong[at.index(bytes.len())] ^= flip;
        prop_assert!(decode_trims(&wrong).is_err());
        prop_assert!(decode_trims(&bytes[..at.index(bytes.len())]).is_err());
    }
}

#[test]
fn a_list_of_trims_is_whole_and_of_this_version() {
    use crate::log::envelope::seal;
    let sealed = |schema, version, list: &[u8]| [&seal(schema, version, list)[..], list].concat();
    let list = [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(decode_trims(&sealed(18, 1, &list)), Ok(vec![Trim { uid: PartitionUid(1), log_start: 2 }]), "the bytes are pinned");
    assert_eq!(decode_trims(&sealed(18, 1, &list[..15])), Err(StoredTrimError::Length(15)));
    assert_eq!(decode_trims(&sealed(18, 1, &[])), Err(StoredTrimError::Length(0)));
    for (schema, version) in [(18, 2), (16, 1)] {
        assert!(matches!(decode_trims(&sealed(schema, version, &list)), Err(StoredTrimError::Envelope(_))));
    }
}
