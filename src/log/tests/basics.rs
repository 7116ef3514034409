//! Appends, closing, completions in any order, reads, sealing, freeing, refusals.

use super::harness::{Harness, batch, small_config};
use crate::effects::Effect;
use crate::ids::{BlockSeq, GroupId, SegmentUid};
use crate::log::*;
use crate::sim::{Dice, Tear};
use tramline_wire::batch::LeaderStamp;

fn block_writes(h: &Harness) -> Vec<usize> {
    let is_block = |effect: &Effect| matches!(effect, Effect::Write { token, .. } if token.number() >> 48 == 1);
    (0..h.disk.under_way.len()).filter(|index| is_block(&h.disk.under_way[*index])).collect()
}

#[test]
fn a_batch_is_stored_stamped_and_found_again_after_a_restart() {
    let mut h = Harness::new(small_config());
    assert!(h.append(1, 100, 1000, 3, b'a'));
    assert!(h.append(2, 200, 500, 1, b'b'));
    assert!(h.append(1, 101, 300, 2, b'c'));
    assert!(h.append_control(1, EntryKind::Control, b"offsets"));
    assert!(h.append_control(3, EntryKind::Raft, b""));
    assert!(h.append_control(3, EntryKind::Raft, b"voters"));
    let state = HardState { group: GroupId(3), term: crate::ids::Term(4), vote: 1, commit: crate::ids::LogIndex(9), is_shared: true };
    assert!(h.append_control(3, EntryKind::HardState, &state.encode()));
    let groups: Vec<(u32, EntryKind, u32)> = h.log.open_groups().iter().map(|e| (e.group.0, e.kind, e.fragments)).collect();
    assert_eq!(
        groups,
        [
            (1, EntryKind::Data, 2),
            (2, EntryKind::Data, 1),
            (1, EntryKind::Control, 1),
            (3, EntryKind::Raft, 1),
            (3, EntryKind::Raft, 1),
            (3, EntryKind::HardState, 1)
        ]
    );
    assert!(h.close());
    assert!(!h.log.ready_to_close(), "nothing is open");
    h.settle();
    assert_eq!(h.durable, 1);
    h.check_bytes(1);
    h.crash(Tear::Nothing, &mut Dice(1));
    let report = h.restart();
    assert_eq!(report.blocks, 1);
    assert_eq!(report.cut_from, None);
    h.check_bytes(1);
}

#[test]
fn durable_is_the_contiguous_prefix_whatever_the_order_of_completions() {
    let mut h = Harness::new(small_config());
    for number in 0..3 {
        assert!(h.append(1, 1, 4000, 1, number));
        assert!(h.close());
    }
    assert!(h.append(1, 1, 100, 1, 9));
    assert!(!h.log.ready_to_close() && h.log.is_crowded(), "three writes are under way");
    let writes = block_writes(&h);
    assert_eq!(writes.len(), 3);
    h.complete(writes[2]);
    assert_eq!(h.log.durable_through(), BlockSeq(0));
    assert!(h.log.ready_to_close() && h.log.is_crowded(), "there is a place, and two of three are left");
    h.complete(writes[1]);
    assert_eq!(h.log.durable_through(), BlockSeq(0));
    assert!(!h.log.is_crowded(), "one is left");
    h.complete(writes[0]);
    assert_eq!(h.log.durable_through(), BlockSeq(3));
    assert!(h.close());
    h.settle();
    assert_eq!(h.durable, 4);
}

#[test]
fn a_full_queue_refuses_and_takes_again_after_a_completion() {
    let mut h = Harness::new(small_config());
    let mut taken = 0;
    loop {
        if !h.append(1, 1, 3000, 1, 1) && !h.close() {
            break;
        }
        taken += 1;
        assert!(taken < 1000, "the queue is bounded");
    }
    assert!(h.log.stats().undurable_bytes <= h.cfg.window_bytes());
    let write = block_writes(&h)[0];
    h.complete(write);
    assert!(h.close());
    assert!(h.append(1, 1, 3000, 1, 1));
}

#[test]
fn while_one_write_hangs_the_others_never_fill_more_than_the_window_that_recovery_searches() {
    let mut h = Harness::new(small_config());
    for round in 0..50 {
        h.append(1, 1, 7000, 1, round);
        h.append(1, 1, 7000, 1, round);
        h.close();
        // The first write hangs; all others are done at once.
        while let Some(&last) = block_writes(&h).get(1..).and_then(|rest| rest.last()) {
            h.complete(last);
        }
        assert!(h.log.stats().undurable_bytes <= h.cfg.window_bytes(), "{:?}", h.log.stats());
    }
    assert_eq!(h.durable, 0);
    assert!(!h.log.ready_to_close() && h.log.stats().blocks_closed >= 3);
    h.settle();
    assert_eq!(h.durable, h.log.stats().blocks_closed);
}

#[test]
fn a_batch_above_the_limit_is_refused_for_good_and_one_at_the_limit_gets_a_block_of_its_own() {
    let cfg = LogConfig { block_bytes_max: 16 << 10, batch_bytes_max: 100 << 10, segment_bytes: 512 << 10, ..small_config() };
    let mut h = Harness::new(cfg);
    let stamp = LeaderStamp::default();
    let refused = h.log.append_batch(&mut h.slab, GroupId(1), &batch(101 << 10, 1, 1), &stamp);
    assert_eq!(refused, Err(AppendRefused::TooLarge));
    assert!(h.append(1, 1, 99 << 10, 1, 1));
    assert!(!h.append(1, 1, 10, 1, 1), "an oversize block takes nothing more");
    assert!(h.close());
    h.settle();
    h.crash(Tear::Nothing, &mut Dice(1));
    h.restart();
    h.check_bytes(1);
}

#[test]
fn an_idle_log_writes_one_mark_after_a_second_and_no_second_one() {
    let mut h = Harness::new(small_config());
    h.append(1, 1, 100, 1, 1);
    h.close();
    h.settle();
    h.now.mono_us += 999_000;
    h.turn();
    assert_eq!(h.log.open_block_seq(), BlockSeq(2), "not yet");
    assert!(h.effects.deadline_us >= h.now.mono_us);
    h.now.mono_us += 1_500;
    h.turn();
    h.settle();
    assert_eq!(h.log.open_block_seq(), BlockSeq(3), "the mark is block 2");
    assert_eq!(h.durable, 2);
    h.now.mono_us += 10_000_000;
    h.turn();
    h.settle();
    assert_eq!(h.log.open_block_seq(), BlockSeq(3));
    assert_eq!(h.log.stats().marks_closed, 1);
}

#[test]
fn an_empty_log_writes_no_mark() {
    let mut h = Harness::new(small_config());
    h.settle();
    h.now.mono_us += 10_000_000;
    h.turn();
    h.settle();
    assert_eq!(h.log.stats().blocks_closed, 0);
}

#[test]
fn a_short_write_is_continued_from_a_page_boundary_before_it_counts() {
    for short in [512, 4096, 4608, 8192 - 512] {
        let mut h = Harness::new(small_config());
        h.append(1, 1, 8000, 1, 7);
        h.close();
        h.disk.short_next_write = Some(short);
        let write = block_writes(&h)[0];
        h.complete(write);
        assert_eq!(h.durable, 0, "{short} bytes are not the block");
        assert_eq!(h.log.stats().short_writes, 1);
        h.settle();
        assert_eq!(h.durable, 1);
        h.crash(Tear::Nothing, &mut Dice(1));
        h.restart();
        h.check_bytes(1);
    }
}

#[test]
fn a_failed_or_impossible_write_is_final() {
    for (errno, short) in [(Some(5), None), (None, Some(0)), (None, Some(512 * 3))] {
        let mut h = Harness::new(small_config());
        h.append(1, 1, 8000, 1, 7);
        h.close();
        h.append(1, 1, 10, 1, 7);
        let write = block_writes(&h)[0];
        if short == Some(512 * 3) {
            // Never a whole page of progress.
            for _ in 0..5 {
                if h.failed.is_none() {
                    h.disk.short_next_write = short;
                    let write = block_writes(&h)[0];
                    h.complete(write);
                }
            }
        } else {
            h.disk.fail_next_write = errno;
            h.disk.short_next_write = short;
            h.complete(write);
        }
        let reason = h.failed.clone().expect("the log has failed");
        assert!(reason.contains("seg-00000001.log") && reason.contains("4096"), "{reason}");
        assert!(errno.is_none() || reason.contains("error 5"), "{reason}");
        assert_eq!(h.durable, 0);
        assert!(!h.log.ready_to_close());
        let refused = h.log.append_batch(&mut h.slab, GroupId(1), &batch(10, 1, 1), &LeaderStamp::default());
        assert_eq!(refused, Err(AppendRefused::Failed));
        let read = h.log.begin_read(&mut h.slab, &mut h.effects, 0, SegmentUid(1), 0, 10);
        assert!(read.is_ok(), "what is there can still be read");
    }
}

/// What was ended for its damage has no room for the next block, however little stands in it: a file that nobody has filled yet has to do.
#[test]
fn a_segment_that_is_ended_early_does_not_wait_for_the_next_one_to_be_filled() {
    let mut h = Harness::new(LogConfig { fill_idle_us: 1 << 40, ..small_config() });
    assert!(h.append(1, 100, 1000, 3, b'a') && h.close());
    h.settle();
    // The first time the file that is ready is taken; the free one behind it stays unfilled.
    for _ in 0..2 {
        let live = h.log.block_place(h.log.last_closed()).expect("just written").segment;
        h.log.end_segment(live);
        assert!(h.append(1, 100, 1000, 3, b'b'));
        h.settle();
        assert!(h.close(), "the block has a place");
        h.settle();
        assert_ne!(h.log.block_place(h.log.last_closed()).expect("just written").segment, live);
    }
}

/// Block after block, one always under way: the log is never idle, and has a filled file for each of its segments all the same.
#[test]
fn small_blocks_without_a_pause_do_not_run_into_space_that_was_never_written() {
    let mut h = Harness::new(LogConfig { segment_bytes: 1 << 20, fill_write_bytes: 64 << 10, fill_idle_us: 10_000, ..small_config() });
    h.settle();
    let before = h.log.stats();
    assert!(h.append(1, 1, 3000, 1, 1) && h.close());
    let mut number = 0u32;
    while h.log.stats().rolls < before.rolls + 5 {
        number += 1;
        assert!(number < 5000, "it rolls: {:?}", h.log.stats());
        h.now.mono_us += 200;
        assert!(h.append(1, 1, 3000, 1, number as u8) && h.close());
        h.turn();
        // What is not a block's ends at once, of the blocks all but the last one.
        while h.disk.under_way.len() > 1 {
            let blocks = block_writes(&h);
            let last = *blocks.last().expect("one was begun just now");
            h.complete((0..h.disk.under_way.len()).find(|at| *at != last).expect("there are more"));
        }
        assert!(h.log.is_writing());
    }
    assert_eq!(h.log.stats().rolls_into_fresh_extents, before.rolls_into_fresh_extents);
}

/// A load that used up what was prepared leaves a segment in space that was never written: behind it, it is not filled to its end by small blocks.
#[test]
fn a_segment_in_space_that_was_never_written_is_left_once_the_next_one_is_filled() {
    let config = LogConfig { prefill_segments_at_first_start: 0, pool_segments: 3, ..small_config() };
    let mut h = Harness::new(LogConfig { segment_bytes: 1 << 20, fill_write_bytes: 64 << 10, fill_idle_us: 1 << 40, ..config });
    let live = |h: &Harness| h.log.block_place(h.log.last_closed()).expect("just written").segment;
    assert!(h.append(1, 1, 3000, 1, 1) && h.close());
    h.settle();
    let fresh = live(&h);
    // A turn each 10 ms, a block each 200.
    let turn = |h: &mut Harness, number: u32| {
        h.now.mono_us += 10_000;
        if number.is_multiple_of(20) {
            assert!(h.append(1, 1, 3000, 1, number as u8) && h.close());
        }
        h.turn();
        while !h.disk.under_way.is_empty() {
            h.complete(0);
        }
    };
    let mut turns = 0;
    while h.log.stats().rolls == h.log.stats().rolls_into_fresh_extents {
        turns += 1;
        assert!(turns < 3000, "it is left: {:?}", h.log.stats());
        turn(&mut h, turns);
    }
    let stats = h.log.stats();
    assert!(turns >= 100 && live(&h) != fresh, "not in the first second of light load: {turns}");
    assert_eq!((stats.rolls, stats.rolls_into_fresh_extents), (1, 0), "{stats:?}");
    assert!(stats.written_bytes < 1 << 18, "it was not full: {stats:?}");
    // The one that was written before is not left.
    let written = live(&h);
    (1..300).for_each(|number| turn(&mut h, number));
    assert_eq!(live(&h), written);
}

#[test]
fn segments_roll_seal_and_are_freed_and_their_files_recycled() {
    let mut h = Harness::new(small_config());
    h.keep_segments = 3;
    for round in 0..400u32 {
        assert!(h.append(round % 3, u64::from(round % 5), 3000, 2, round as u8));
        assert!(h.close());
        h.settle();
    }
    let stats = h.log.stats();
    assert!(stats.rolls >= 10, "{stats:?}");
    assert!(h.sealed.len() >= 9 && h.sealed.is_sorted());
    assert!(stats.segments_sealed <= 4, "{stats:?}");
    let files = h.disk.names().iter().filter(|name| name.starts_with("seg-")).count();
    assert!(files <= 8, "files are recycled: {:?}", h.disk.names());
    h.check_bytes(1);
    h.crash(Tear::Nothing, &mut Dice(3));
    h.restart();
    h.check_bytes(1);
}

/// What stands in a sorted segment that is full to its last byte can be copied once more: by the most padding that there can be it would not fit.
#[test]
fn a_sorted_segment_takes_all_of_one_that_is_full() {
    let mut h = Harness::new(LogConfig { pool_segments: 2, ..small_config() });
    h.settle();
    let batch = batch(3972, 1, 7);
    assert_eq!(batch.len(), 4096);
    let count = (h.cfg.segment_bytes - u64::from(layout::SEGMENT_DATA_START) - footer::footer_bytes(29)) / 4096;
    assert_eq!(count, 29);
    let segment = h.log.begin_sorted(&mut h.slab).expect("a file is free");
    let has_room = |h: &Harness| h.log.sorted_has_room(SegmentUid(1), count * 4096, count as u32);
    assert!(!h.log.sorted_holds(count * 4096, count as u32) && has_room(&h));
    for number in 0..count {
        let mut copied = 0;
        while copied < batch.len() {
            copied += h.log.write_sorted(&mut h.slab, &mut h.effects, &batch[copied..]);
            h.disk.submit(&mut h.effects);
            while !h.disk.under_way.is_empty() {
                h.complete(0);
            }
        }
        let (partition_uid, base_offset) = (PartitionUid(1), Offset(number));
        let entry =
            footer::FooterEntry { partition_uid, base_offset, newest_ts: 0, pos: 0, len: 4096, last_offset_delta: 0, group: GroupId(1) };
        h.log.end_sorted_batch(entry);
        assert!(!has_room(&h), "it is not empty any more");
    }
    h.log.finish_sorted(&mut h.slab, &mut h.effects);
    h.disk.submit(&mut h.effects);
    h.settle();
    assert_eq!(h.failed, None);
    assert!(h.log.segments().any(|info| info.uid == segment && info.sorted && info.sealed));
}

#[test]
fn a_pinned_segment_keeps_its_file_until_the_pin_is_gone() {
    let mut h = Harness::new(small_config());
    let mut round = 0;
    while h.sealed.is_empty() {
        h.append(1, 1, 3000, 1, round);
        h.close();
        h.settle();
        round = round.wrapping_add(1);
    }
    let segment = h.sealed[0];
    assert!(h.log.pin(segment));
    h.log.free_segment(&mut h.slab, &mut h.effects, segment).unwrap();
    h.freed.insert(segment.0);
    assert_eq!(h.log.free_segment(&mut h.slab, &mut h.effects, segment), Err(FreeRefused::Unknown));
    h.disk.submit(&mut h.effects);
    h.settle();
    assert!(h.log.segments().any(|info| info.uid == segment));
    assert!(!h.log.pin(segment), "no new pins");
    h.log.unpin(segment);
    h.turn();
    h.settle();
    assert!(!h.log.segments().any(|info| info.uid == segment));
    let live = h.log.segments().map(|info| info.uid).last().unwrap();
    assert_eq!(h.log.free_segment(&mut h.slab, &mut h.effects, live), Err(FreeRefused::NotSealed));
}

#[test]
fn a_clean_shutdown_leaves_a_checkpoint_and_a_quiet_log() {
    let mut h = Harness::new(small_config());
    for round in 0..30 {
        h.append(1, u64::from(round % 4), 2000, 1, round);
        h.close();
        h.settle();
    }
    h.log.stop_background();
    h.write_checkpoint();
    h.settle();
    assert!(h.log.is_quiet());
    h.crash(Tear::Nothing, &mut Dice(3));
    let report = h.restart();
    assert_eq!(report.cut_from, None);
    assert_eq!(h.covers, 30);
}

/// Appends two hundred batches of some 3 KB, each in a block of its own as long as one can be closed; answers how many were taken.
fn append_many(h: &mut Harness) -> usize {
    let mut stored = 0;
    for round in 0..200 {
        h.now.mono_us += 1_000;
        stored += usize::from(h.append(1, 1, 3000, 1, round));
        h.close();
        while !h.disk.under_way.is_empty() {
            h.complete(0);
        }
        h.turn();
        while !h.disk.under_way.is_empty() {
            h.complete(0);
        }
    }
    stored
}

/// Else an orderly stop would wait until its time is over.
#[test]
fn what_waits_for_the_next_segment_at_a_shutdown_gets_it() {
    let mut h = Harness::new(LogConfig { pool_segments: 0, ..small_config() });
    h.disk.free_bytes = Some(0);
    append_many(&mut h);
    assert!(h.log.stats().out_of_segments);
    h.log.stop_background();
    h.disk.free_bytes = None;
    h.now.mono_us += 3_000_000;
    h.settle();
    h.close();
    h.settle();
    assert!(!h.log.stats().out_of_segments && h.log.is_quiet(), "{:?}", h.log.stats());
    h.crash(Tear::Nothing, &mut Dice(1));
    h.restart();
}

#[test]
fn without_space_for_another_segment_appends_stand_still_and_go_on_when_there_is_some() {
    let mut h = Harness::new(LogConfig { pool_segments: 0, ..small_config() });
    h.disk.free_bytes = Some(0);
    let stored = append_many(&mut h);
    assert!(stored < 100, "one segment holds some 30 of them");
    assert!(h.log.stats().out_of_segments);
    assert_eq!(h.log.stats().create_errno, 28);
    assert!(h.failed.is_none(), "{:?}", h.failed);
    h.disk.free_bytes = None;
    h.now.mono_us += 3_000_000;
    h.settle();
    assert!(h.close());
    h.settle();
    assert_eq!(h.log.stats().create_errno, 0);
    h.crash(Tear::Nothing, &mut Dice(1));
    h.restart();
}

#[test]
fn the_tail_is_served_from_memory_and_older_blocks_from_disk() {
    let mut h = Harness::new(LogConfig { tail_cache_bytes: 40 << 10, ..small_config() });
    for round in 0..20 {
        h.append(1, 1, 3000, 1, round);
        h.close();
        h.settle();
    }
    assert!(h.log.stats().cache_bytes <= 40 << 10);
    assert!(matches!(h.log.locate(BlockSeq(20), 96, 100), Place::Cached(_)));
    assert!(matches!(h.log.locate(BlockSeq(1), 96, 100), Place::Disk { .. }));
    assert!(matches!(h.log.locate(BlockSeq(21), 96, 100), Place::Open));
    let before = h.log.stats();
    h.check_bytes(1);
    let after = h.log.stats();
    assert!(after.reads > before.reads && after.cache_blocks == before.cache_blocks, "cold reads evict nothing");
}

#[test]
fn a_block_that_is_not_durable_is_served_from_memory_however_small_the_cache() {
    let mut h = Harness::new(LogConfig { tail_cache_bytes: 0, ..small_config() });
    for fill in 0..3 {
        h.append(1, 1, 3000, 1, fill);
        h.close();
    }
    for seq in 1..=3 {
        assert!(matches!(h.log.locate(BlockSeq(seq), 96, 100), Place::Cached(_)), "block {seq} is under way");
    }
    h.settle();
    h.append(1, 1, 3000, 1, 9);
    h.close();
    assert!(matches!(h.log.locate(BlockSeq(3), 96, 100), Place::Disk { .. }));
    assert!(matches!(h.log.locate(BlockSeq(4), 96, 100), Place::Cached(_)));
}

#[test]
fn memory_held_by_the_tail_cache_gives_way_to_appends() {
    let mut h = Harness::new(LogConfig { tail_cache_bytes: 1 << 30, pool_segments: 0, ..small_config() });
    h.slab = crate::bytes::Slab::new(200 << 10);
    for round in 0..100u32 {
        // A size the cached blocks do not have, from time to time.
        assert!(h.append(1, 1, if round % 10 == 9 { 7000 } else { 2000 }, 1, round as u8), "round {round}: {:?}", h.log.stats());
        assert!(h.close());
        h.settle();
    }
    assert!(h.slab.allocated_bytes() <= 200 << 10);
}

#[test]
fn a_batch_that_is_not_the_one_asked_for_is_told_apart() {
    let mut raw = batch(100, 2, 5);
    tramline_wire::batch::stamp_leader(&mut raw, &LeaderStamp { partition_uid: 5, base_offset: 70, term: 1, append_time_us: 1 });
    let check = |bytes: &[u8], uid, offset| check_batch(bytes, crate::ids::PartitionUid(uid), crate::ids::Offset(offset));
    assert_eq!(check(&raw, 5, 70), Ok(()));
    assert_eq!(check(&raw, 6, 70), Err(BatchFault::OtherPartition { found: 5 }));
    assert_eq!(check(&raw, 5, 71), Err(BatchFault::OtherOffset { found: 70 }));
    assert_eq!(check(&raw[..raw.len() - 1], 5, 70), Err(BatchFault::Malformed));
    let mut flipped = raw.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(check(&flipped, 5, 70), Err(BatchFault::Body));
    let mut flipped = raw.clone();
    flipped[75] ^= 1;
    assert_eq!(check(&flipped, 5, 70), Err(BatchFault::Header));
}
