//! Damage below the durable end is reported and the rest stays readable; what is stale is never taken for valid.

use super::harness::{Harness, small_config, surviving};
use crate::ids::{BlockSeq, NodeId, Offset, PartitionUid, ShardId};
use crate::log::inspect::{Detail, inspect_segment, inspect_shard};
use crate::log::operation::segment_file_name;
use crate::log::*;
use crate::sim::{Dice, SimDisk, Tear};

/// A log of `count` blocks of three batches each, settled, with or without the idle mark behind them.
pub(crate) fn log_of(count: u8, mark: bool) -> Harness {
    let mut h = Harness::new(small_config());
    h.seal_by_itself = false;
    for number in 0..count {
        assert!(h.append(1, 1, 1000, 2, number));
        assert!(h.append(2, 2, 3000, 1, number));
        assert!(h.append(1, 3, 20, 1, number));
        assert!(h.append_control(1, EntryKind::Control, &[number; 40]));
        assert!(h.close());
        h.settle();
    }
    if mark {
        h.now.mono_us += 2_000_000;
        h.turn();
        h.settle();
    }
    h
}

fn recover_copy(disk: &SimDisk, cfg: &LogConfig) -> (SimDisk, Result<Recovered, RecoverError>) {
    let mut copy = disk.snapshot();
    let recovered = recover(&mut copy, cfg);
    (copy, recovered)
}

/// Every batch that recovery hands over undamaged is the model's, at the model's place.
pub(crate) fn check_against_model(h: &Harness, recovered: &Recovered, disk: &mut SimDisk) {
    for b in recovered.batches.iter().chain(&recovered.covered_batches) {
        let block = &h.blocks[b.block.0 as usize - 1];
        let model = block.entries.iter().flat_map(|e| &e.batches).find(|m| m.at == b.at);
        let model = model.unwrap_or_else(|| panic!("{b:?} was never appended"));
        assert_eq!((model.uid, model.base, model.bytes.len() as u32), (b.uid.0, b.base_offset.0, b.len));
        assert_eq!((block.segment, block.pos + u64::from(b.at)), (b.segment.0, u64::from(b.pos)));
        // By the manifest, not by what the file says of itself: damage may have copied the first page of one segment onto another's.
        let file = recovered.log.segments.get(b.segment).expect("a batch stands in a segment of the log").file;
        let bytes = disk.file(&segment_file_name(file))[b.pos as usize..(b.pos + b.len) as usize].to_vec();
        let checked = check_batch(&bytes, b.uid, b.base_offset);
        assert_eq!(checked.is_err(), b.damaged, "{b:?}");
        assert!(checked.is_err() || bytes == model.bytes, "wrong bytes are served for {b:?}");
    }
}

#[test]
fn a_flipped_bit_anywhere_below_the_durable_end_is_reported_or_harmless_and_the_rest_is_kept() {
    let h = log_of(6, true);
    let name = "seg-00000001.log";
    let mut disk = h.disk.snapshot();
    let end = h.blocks.last().unwrap().pos as usize;
    let mut reported = 0;
    for at in (4096..end).step_by(37) {
        disk.file(name)[at] ^= 1 << (at % 8);
        let (mut copy, recovered) = recover_copy(&disk, &h.cfg);
        let recovered = recovered.unwrap_or_else(|error| panic!("flip at {at}: {error}"));
        assert_eq!(recovered.report.durable_through, BlockSeq(7), "flip at {at}");
        assert_eq!(recovered.report.cut_from, None, "flip at {at}");
        check_against_model(&h, &recovered, &mut copy);
        let block = h.blocks.iter().rev().find(|block| block.pos as usize <= at).unwrap();
        let intact: Vec<u64> = recovered.entries.iter().map(|e| e.block.0).collect();
        for other in h.blocks.iter().filter(|other| other.seq != block.seq && other.seq != 7) {
            assert_eq!(intact.iter().filter(|seq| **seq == other.seq).count(), 3, "flip at {at}: block {} is touched", other.seq);
        }
        let good = recovered.batches.iter().filter(|b| !b.damaged).count();
        let lost_control = recovered.controls.len() < 6;
        if good < 18 || lost_control {
            assert!(!recovered.damage.is_empty(), "flip at {at}: something is missing and nothing is reported");
            reported += 1;
        }
        if recovered.batches.is_empty() {
            panic!("flip at {at} took everything");
        }
        let mut text = String::new();
        let inspected = inspect_shard(&mut disk, Detail::Entries, &mut text);
        assert_eq!(inspected.damage.is_empty(), recovered.damage.is_empty(), "flip at {at}: {:?} {:?}", inspected.damage, recovered.damage);
        disk.file(name)[at] ^= 1 << (at % 8);
    }
    assert!(reported > 300, "{reported}");
}

#[test]
fn a_lost_block_is_exposed_its_number_is_not_used_again_and_later_starts_say_the_same() {
    let h = log_of(6, true);
    let mut disk = h.disk.snapshot();
    let (pos, next) = (h.blocks[2].pos, h.blocks[3].pos);
    disk.file("seg-00000001.log")[pos as usize + 40] ^= 4;
    let (mut disk, first) = recover_copy(&disk, &h.cfg);
    let first = first.unwrap_or_else(|error| panic!("{error}"));
    let kind = DamageKind::BlocksLost { first_seq: BlockSeq(3), last_seq: BlockSeq(3) };
    assert_eq!(first.damage, [Damage { segment: crate::ids::SegmentUid(h.blocks[2].segment), pos, len: next - pos, kind }]);
    assert_eq!(first.lost, [LostBlocks { first: BlockSeq(3), last: BlockSeq(3), bytes: next - pos }]);
    assert_eq!(first.log.open_block_seq(), BlockSeq(8));
    assert!(matches!(first.log.locate(BlockSeq(3), 96, 10), Place::Gone));
    assert!(matches!(first.log.locate(BlockSeq(4), 96, 10), Place::Disk { .. }));
    let damage = first.damage.clone();
    drop(first);
    disk.crash(Tear::Nothing, &mut Dice(1));
    let again = recover(&mut disk, &h.cfg).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(again.damage, damage);
}

#[test]
fn a_segment_that_damage_emptied_is_passed_sealed_and_never_hides_what_follows() {
    let mut h = sealed_log();
    h.log.stop_background();
    h.write_checkpoint();
    h.settle();
    let name = format!("seg-{:08}.log", h.log.live_file().0);
    let end = h.cfg.segment_bytes as usize;
    let (last, covers) = (h.blocks.len() as u64, h.covers);
    assert_eq!(last, covers);
    let mut disk = h.disk.snapshot();
    disk.file(&name)[4096..end].fill(0);
    let mut recovered = recover(&mut disk, &h.cfg).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(recovered.lost.len(), 1);
    assert_eq!(recovered.lost[0].last, BlockSeq(last));
    let (mut wrote, mut sealed) = (last, 0);
    for round in 0..3 {
        // A small shard without a model: append, seal as soon as it is asked for, cover just the sealed segment.
        let mut run = Harness::new(h.cfg.clone());
        run.seal_by_itself = false;
        (run.log, run.disk) = (recovered.log, disk);
        run.blocks = (1..=wrote).map(|seq| super::harness::ModelBlock { seq, segment: 0, pos: 0, entries: Vec::new() }).collect();
        run.durable = wrote;
        for _ in 0..20 + 20 * round {
            run.append(1, 1, 6000, 1, 7);
            assert!(run.close());
            run.settle();
            if let Some(segment) = run.log.seal_ready().filter(|_| round > 0) {
                let last_block = run.log.segments().find(|info| info.uid == segment).unwrap().last_block;
                let covers_block = last_block.0.max(covers);
                let checkpoint = CheckpointV5 { covers_block, ..CheckpointV5::default() };
                run.log.seal(&mut run.slab, &mut run.effects, segment, &mut Vec::new(), checkpoint).unwrap();
                run.disk.submit(&mut run.effects);
                run.settle();
                sealed += 1;
            }
        }
        if round == 0 {
            // The scan start of this checkpoint is the emptied segment, its first number that of the block behind.
            let checkpoint = CheckpointV5 { covers_block: covers, ..CheckpointV5::default() };
            run.log.write_checkpoint(&mut run.slab, &mut run.effects, checkpoint).unwrap();
            run.disk.submit(&mut run.effects);
            run.settle();
        }
        wrote = run.log.open_block_seq().0 - 1;
        disk = run.disk.snapshot();
        recovered = recover(&mut disk, &h.cfg).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(recovered.report.durable_through, BlockSeq(wrote), "round {round}");
        let covers = recovered.checkpoint.as_ref().unwrap().covers_block;
        let found: Vec<u64> = recovered.entries.iter().map(|entry| entry.block.0).collect();
        let wanted: Vec<u64> = (covers.max(last) + 1..=wrote).filter(|seq| run.blocks[*seq as usize - 1].entries.len() == 1).collect();
        assert_eq!(found, wanted, "round {round}");
    }
    assert!(sealed >= 3);
    assert_eq!(recovered.damage, [], "the emptied segment is sealed, its loss was reported before");
}

#[test]
fn a_page_that_the_disk_cannot_read_costs_what_stood_there_and_nothing_else() {
    let h = log_of(6, true);
    let name = "seg-00000001.log";
    let block = &h.blocks[2];
    // The header page of the block, the page behind it, the segment's header page, a page behind the log's end.
    for (page, lost) in [(block.pos as usize / 4096, true), (block.pos as usize / 4096 + 1, true), (0, false), (31, false)] {
        let mut disk = h.disk.snapshot();
        disk.spoil_page(name, page);
        let recovered = recover(&mut disk, &h.cfg).unwrap_or_else(|error| panic!("page {page}: {error}"));
        assert_eq!(recovered.lost.iter().map(|lost| lost.first.0).collect::<Vec<_>>(), if lost { vec![3] } else { vec![] });
        let unreadable = recovered.damage.iter().filter(|d| d.kind == DamageKind::Unreadable { errno: 5 }).count();
        assert_eq!(unreadable, usize::from(page != 0), "page {page}: {:?}", recovered.damage);
        assert_eq!(recovered.entries.len(), if lost { 15 } else { 18 });
        check_against_model(&h, &recovered, &mut disk);
        // Reading it while running refuses that reader and nobody else.
        let mut running = Harness::new(small_config());
        let mut disk = h.disk.snapshot();
        running.log = recover(&mut disk, &h.cfg).unwrap_or_else(|error| panic!("{error}")).log;
        disk.spoil_page(name, block.pos as usize / 4096);
        running.disk = disk;
        let segment = crate::ids::SegmentUid(block.segment);
        let ticket = running.log.begin_read(&mut running.slab, &mut running.effects, 1, segment, block.pos as u32 + 96, 50).unwrap();
        running.disk.submit(&mut running.effects);
        running.complete(0);
        assert_eq!(running.reads.len(), 1);
        assert!(matches!(running.reads[0], (t, Err(ReadError::Io { errno: 5 })) if t == ticket));
        assert!(running.failed.is_none());
    }
}

#[test]
fn a_start_is_refused_when_the_end_of_the_log_hangs_on_a_page_that_cannot_be_read() {
    let h = log_of(5, false);
    let mut disk = h.disk.snapshot();
    disk.spoil_page("seg-00000001.log", h.blocks[4].pos as usize / 4096);
    let error = recover(&mut disk, &h.cfg).err().expect("refused").to_string();
    assert!(error.contains("seg-00000001.log") && error.contains("replace the disk"), "{error}");
}

#[test]
fn an_unreadable_footer_is_rebuilt() {
    let h = sealed_log();
    let last_page = h.cfg.segment_bytes as usize / 4096 - 1;
    for page in [last_page, last_page - 1] {
        let mut disk = h.disk.snapshot();
        disk.spoil_page("seg-00000002.log", page);
        assert_eq!(check_all_batches(&h, disk).footers_rebuilt, 1);
    }
}

#[test]
fn a_block_lost_at_the_very_end_is_damage_when_anything_says_it_was_durable() {
    // The witness is, in turn: a mark, a checkpoint, a later start.
    for witness in 0..3 {
        let mut h = log_of(5, witness == 0);
        if witness == 1 {
            h.log.stop_background();
            h.write_checkpoint();
            h.settle();
        }
        if witness == 2 {
            h.crash(Tear::Nothing, &mut Dice(1));
            h.restart();
        }
        let mut disk = h.disk.snapshot();
        let pos = h.blocks[4].pos as usize;
        disk.file("seg-00000001.log")[pos + 10] ^= 1;
        let evidence = disk.file("seg-00000001.log")[pos..pos + 8192].to_vec();
        let recovered = recover(&mut disk, &h.cfg).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(recovered.lost.len(), 1, "witness {witness}: {:?}", recovered.damage);
        assert_eq!((recovered.lost[0].first, recovered.lost[0].last), (BlockSeq(5), BlockSeq(5)));
        assert!(recovered.log.open_block_seq() > BlockSeq(5));
        // What is appended now does not touch the damaged block.
        let mut next = Harness::new(small_config());
        next.log = recovered.log;
        next.disk = disk;
        next.seal_by_itself = false;
        next.blocks = h.blocks.clone();
        next.blocks.truncate(next.log.open_block_seq().0 as usize - 1);
        while next.blocks.len() < next.log.open_block_seq().0 as usize - 1 {
            let seq = next.blocks.len() as u64 + 1;
            next.blocks.push(super::harness::ModelBlock { seq, segment: 0, pos: 0, entries: Vec::new() });
        }
        next.durable = next.log.durable_through().0;
        next.append(1, 1, 6000, 1, 9);
        next.close();
        next.settle();
        assert_eq!(next.disk.file("seg-00000001.log")[pos..pos + 8192], evidence, "witness {witness}");
        let after = recover_copy(&next.disk, &h.cfg).1.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(after.lost[0].first, BlockSeq(5));
        assert!(after.entries.iter().any(|entry| entry.block == BlockSeq(next.blocks.len() as u64)));
    }
}

#[test]
fn the_remaining_window_is_a_flip_in_the_very_last_block_before_anything_else_was_written() {
    // Documented, not wanted: nothing on the disk says that block 5 was durable, so it looks like a torn write and is cut.
    let h = log_of(5, false);
    let mut disk = h.disk.snapshot();
    disk.file("seg-00000001.log")[h.blocks[4].pos as usize + 200] ^= 1;
    let recovered = recover_copy(&disk, &h.cfg).1.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(recovered.report.cut_from, Some(BlockSeq(5)));
    assert!(recovered.damage.is_empty());
    assert_eq!(recovered.report.durable_through, BlockSeq(4));
}

#[test]
fn a_cut_block_of_an_earlier_start_is_stale_even_where_number_and_place_fit() {
    let mut h = Harness::new(small_config());
    h.append(1, 1, 500, 1, 1);
    h.close();
    h.settle();
    // Blocks 2 and 3 of one page each are under way; only 3 lands.
    for fill in [2, 3] {
        h.append(1, 1, 500, 1, fill);
        h.close();
    }
    h.complete(1);
    h.crash(Tear::Nothing, &mut Dice(1));
    let report = h.restart();
    assert_eq!((report.durable_through, report.cut_from), (BlockSeq(1), Some(BlockSeq(2))));
    // The new block 2 is as long as the old one, so the old block 3 stands exactly where a block 3 is expected.
    h.append(1, 1, 500, 1, 4);
    h.close();
    h.settle();
    h.crash(Tear::Nothing, &mut Dice(1));
    let report = h.restart();
    assert_eq!(report.durable_through, BlockSeq(2));
    h.check_bytes(1);
}

#[test]
fn behind_a_damaged_block_a_stale_one_is_not_taken_for_its_successor() {
    let mut h = Harness::new(small_config());
    h.seal_by_itself = false;
    h.append(1, 1, 500, 1, 1);
    h.close();
    h.settle();
    // Block 2 is torn, block 3 lands whole two pages behind it; both are cut by the next start.
    h.append(1, 1, 7000, 1, 2);
    h.close();
    h.append(1, 1, 500, 1, 3);
    h.close();
    h.complete(1);
    h.crash(Tear::Nothing, &mut Dice(1));
    assert_eq!(h.restart().cut_from, Some(BlockSeq(2)));
    // The new block 2 is shorter, so the old block 3 stays untouched behind it; a checkpoint says that the new one was durable.
    h.append(1, 1, 500, 1, 4);
    h.close();
    h.settle();
    h.log.stop_background();
    h.write_checkpoint();
    h.settle();
    let mut disk = h.disk.snapshot();
    let name = format!("seg-{:08}.log", h.log.live_file().0);
    disk.file(&name)[h.blocks[1].pos as usize + 33] ^= 1;
    let recovered = recover(&mut disk, &h.cfg).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(recovered.lost.iter().map(|lost| (lost.first.0, lost.last.0)).collect::<Vec<_>>(), [(2, 2)]);
    assert!(recovered.entries.is_empty(), "{:?}", recovered.entries);
    assert_eq!(recovered.covered_batches.iter().map(|b| b.block.0).collect::<Vec<_>>(), [1]);
}

/// A log with some sealed segments and an open one.
fn sealed_log() -> Harness {
    let mut h = Harness::new(small_config());
    for round in 0..110u32 {
        assert!(h.append(round % 3, u64::from(round % 4), 3000, 2, round as u8));
        assert!(h.close());
        h.settle();
    }
    assert!(h.sealed.len() >= 3);
    h
}

#[test]
fn a_whole_old_segment_in_a_recycled_file_is_never_taken_for_valid() {
    let h = sealed_log();
    let mut disk = h.disk.snapshot();
    let old = disk.file("seg-00000001.log").clone();
    let live = h.log.live_file().0;
    let live_name = format!("seg-{live:08}.log");
    let end = h.blocks.last().map(|block| block.pos as usize + 4096).unwrap();
    // Behind the live segment's blocks, and over the whole of the prepared one (header page and footer included).
    disk.file(&live_name)[end..].copy_from_slice(&old[end..]);
    let ready: Vec<u64> = h.log.segments().map(|info| info.uid.0).collect();
    let prepared =
        disk.names().into_iter().find(|name| name.starts_with("seg-") && disk.file(name)[8..16] == ready.last().unwrap().to_le_bytes());
    *disk.file(&prepared.expect("a segment is prepared")) = old.clone();
    let (mut copy, recovered) = recover_copy(&disk, &h.cfg);
    let recovered = recovered.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(recovered.report.durable_through.0, h.blocks.len() as u64);
    let kinds: Vec<&DamageKind> = recovered.damage.iter().map(|damage| &damage.kind).collect();
    assert_eq!(kinds, [&DamageKind::SegmentHeader], "only the overwritten header page is noticed");
    check_against_model(&h, &recovered, &mut copy);
    drop(recovered);
    copy.crash(Tear::Nothing, &mut Dice(1));
    let again = recover(&mut copy, &h.cfg).unwrap_or_else(|error| panic!("{error}"));
    assert!(again.damage.is_empty(), "the header page was repaired: {:?}", again.damage);
}

/// All batches that the checkpoint's runs and the scan give, read and compared with the model.
fn check_all_batches(h: &Harness, mut disk: SimDisk) -> RecoveryReport {
    let recovered = recover(&mut disk, &h.cfg).unwrap_or_else(|error| panic!("{error}"));
    let checkpoint = recovered.checkpoint.clone().expect("sealed segments have a checkpoint");
    let report = recovered.report.clone();
    let mut found: Vec<(u64, u64)> =
        recovered.batches.iter().chain(&recovered.covered_batches).map(|b| (b.uid.0, b.base_offset.0)).collect();
    let mut reader = Harness::new(small_config());
    reader.log = recovered.log;
    reader.disk = disk;
    reader.seal_by_itself = false;
    for run in &checkpoint.runs {
        let plan = reader.log.footer_plan(crate::ids::SegmentUid(run.segment), run.footer_first, run.footer_count).expect("sealed");
        let bytes = reader.read(plan.segment, plan.pos, plan.len);
        let mut entries = Vec::new();
        footer::decode_slice(&plan, bytes.as_slice(), &mut entries).expect("rebuilt");
        for entry in entries {
            let bytes = reader.read(plan.segment, entry.pos, entry.len);
            check_batch(bytes.as_slice(), PartitionUid(run.uid), entry.base_offset).expect("the batch is there");
            found.push((run.uid, entry.base_offset.0));
        }
    }
    found.sort_unstable();
    let mut wanted: Vec<(u64, u64)> = surviving(&h.blocks).iter().flat_map(|(_, e)| &e.batches).map(|b| (b.uid, b.base)).collect();
    wanted.sort_unstable();
    assert_eq!(found, wanted);
    report
}

#[test]
fn a_damaged_foreign_or_missing_footer_is_rebuilt_from_the_blocks() {
    let h = sealed_log();
    let len = h.cfg.segment_bytes as usize;
    assert_eq!(check_all_batches(&h, h.disk.snapshot()).footers_rebuilt, 0);
    let footer_of = |disk: &mut SimDisk, name: &str| disk.file(name)[len - 8192..].to_vec();
    for case in 0..4 {
        let mut disk = h.disk.snapshot();
        match case {
            0 => disk.file("seg-00000002.log")[len - 4096 + 40] ^= 1,
            1 => disk.file("seg-00000002.log")[len - 8192 + 100] ^= 1,
            2 => disk.file("seg-00000002.log")[len - 8192..].fill(0),
            _ => {
                let other = footer_of(&mut disk, "seg-00000001.log");
                disk.file("seg-00000002.log")[len - 8192..].copy_from_slice(&other);
            }
        }
        let mut text = String::new();
        let inspected = inspect_shard(&mut disk, Detail::Segments, &mut text);
        assert!(inspected.damage.iter().any(|damage| damage.file == "seg-00000002.log"), "case {case}: {:?}", inspected.damage);
        assert_eq!(check_all_batches(&h, disk).footers_rebuilt, 1, "case {case}");
    }
}

#[test]
fn a_footer_that_was_rebuilt_with_fewer_batches_fits_the_checkpoint_at_the_next_start_too() {
    let h = sealed_log();
    let mut disk = h.disk.snapshot();
    let len = h.cfg.segment_bytes as usize;
    let file = disk.file("seg-00000001.log");
    let head = file.windows(4).position(|w| w == tramline_wire::batch::BATCH_MAGIC).expect("a batch in the first segment");
    file[head + 9] ^= 1;
    file[len - 4096 + 40] ^= 1;
    let fits = |recovered: &crate::log::Recovered| {
        for run in &recovered.checkpoint.as_ref().expect("the log was sealed").runs {
            // Panics when the run is not inside the footer.
            assert!(recovered.log.footer_plan(SegmentUid(run.segment), run.footer_first, run.footer_count).is_some());
        }
    };
    let first = recover(&mut disk, &h.cfg).unwrap();
    assert_eq!(first.report.footers_rebuilt, 1);
    fits(&first);
    // The process ends before it writes a checkpoint of its own.
    drop(first);
    let mut disk = disk.snapshot();
    let second = recover(&mut disk, &h.cfg).unwrap();
    assert_eq!(second.report.footers_rebuilt, 0, "it was made good");
    fits(&second);
}

#[test]
fn a_footer_slice_is_verified_page_by_page() {
    let entries: Vec<FooterEntry> = (0..300u64)
        .map(|n| FooterEntry {
            partition_uid: PartitionUid(n / 50),
            base_offset: Offset(n),
            newest_ts: n as i64,
            pos: 4096 + n as u32 * 8,
            len: 100,
            last_offset_delta: 0,
            group: crate::ids::GroupId(1),
        })
        .collect();
    let segment = crate::ids::SegmentUid(9);
    let mut pages = vec![0; 3 * 4096];
    for (index, page) in pages.chunks_mut(4096).enumerate() {
        let from = index * 102;
        footer::encode_page(page, segment, index as u32, &entries[from..(from + 102).min(300)]);
    }
    let start = (1 << 20) - footer::footer_bytes(300) as usize;
    for (first, count) in [(0, 300), (0, 1), (101, 2), (102, 102), (299, 1), (50, 200)] {
        let plan = footer::read_plan(segment, 1 << 20, 300, first, count);
        let at = plan.pos as usize - start;
        let mut bytes = pages[at..at + plan.len as usize].to_vec();
        let mut out = Vec::new();
        footer::decode_slice(&plan, &bytes, &mut out).unwrap();
        assert_eq!(out, entries[first as usize..(first + count) as usize]);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        out.clear();
        assert!(footer::decode_slice(&plan, &bytes, &mut out).is_err() && out.is_empty());
        let foreign = footer::read_plan(crate::ids::SegmentUid(8), 1 << 20, 300, first, count);
        assert!(footer::decode_slice(&foreign, &pages[at..at + plan.len as usize], &mut out).is_err());
    }
}

#[test]
fn a_footer_that_checks_and_names_what_cannot_be_is_damage() {
    let segment = crate::ids::SegmentUid(9);
    let plan = footer::read_plan(segment, 1 << 20, 1, 0, 1);
    let mut page = vec![0; 4096];
    let good = FooterEntry {
        partition_uid: PartitionUid(1),
        base_offset: Offset(2),
        newest_ts: 3,
        pos: plan.pos - 100,
        len: 100,
        last_offset_delta: 0,
        group: crate::ids::GroupId(1),
    };
    let mut decoded = |entry: FooterEntry| {
        footer::encode_page(&mut page, segment, 0, &[entry]);
        let mut out = Vec::new();
        footer::decode_slice(&plan, &page, &mut out).map(|()| out)
    };
    assert_eq!(decoded(good), Ok(vec![good]));
    let wrong = [
        FooterEntry { len: 101, ..good },
        FooterEntry { len: u32::MAX, ..good },
        FooterEntry { len: 0, ..good },
        FooterEntry { pos: u32::MAX, ..good },
        FooterEntry { pos: 8, ..good },
        FooterEntry { base_offset: Offset(u64::MAX), ..good },
    ];
    for entry in wrong {
        assert!(decoded(entry).is_err(), "{entry:?}");
    }
}

#[test]
fn manifest_and_checkpoint_survive_damage_to_one_of_their_two_copies() {
    let h = sealed_log();
    for name in ["manifest", "checkpoint"] {
        let len = h.disk.snapshot().file(name).len();
        for (from, to) in [(0, len / 2), (len / 2, len)] {
            let mut disk = h.disk.snapshot();
            disk.file(name)[from..to].fill(0xEE);
            let recovered = recover(&mut disk, &h.cfg).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(recovered.report.durable_through.0, h.blocks.len() as u64);
        }
        let mut disk = h.disk.snapshot();
        disk.file(name)[40] ^= 1;
        disk.file(name)[len / 2 + 50] ^= 1;
        let error = recover(&mut disk, &h.cfg).err().expect("both copies are damaged").to_string();
        assert!(error.contains(name) && error.contains("damaged in both copies") && error.contains("restore"), "{error}");
    }
}

#[test]
fn starts_that_must_be_refused_say_what_to_do() {
    let h = sealed_log();
    type Change<'a> = &'a dyn Fn(&mut SimDisk, &mut LogConfig);
    let refused = |change: Change<'_>| {
        let (mut disk, mut cfg) = (h.disk.snapshot(), h.cfg.clone());
        change(&mut disk, &mut cfg);
        recover(&mut disk, &cfg).err().expect("refused").to_string()
    };
    let cases: [(&str, Change<'_>); 8] = [
        ("--shards 1", &|_, cfg| cfg.shards = 2),
        ("shard 0, not of shard 1", &|disk, cfg| {
            // The same manifest in a directory of two shards would be refused for the number first.
            cfg.shards = 1;
            cfg.shard = ShardId(0);
            let mut manifest = super::fuzz::manifest_of(disk);
            manifest.shard = 0;
            manifest.shards = 2;
            super::fuzz::put_manifest(disk, &manifest);
            cfg.shards = 2;
            cfg.shard = ShardId(1);
        }),
        ("node 1 of this cluster", &|_, cfg| cfg.identity.node = NodeId(2)),
        ("another cluster", &|_, cfg| cfg.identity.cluster_id = [8; 16]),
        ("segments but no manifest", &|disk, _| disk.remove_file("manifest")),
        ("put the file `checkpoint` back", &|disk, _| disk.remove_file("checkpoint")),
        ("is missing", &|disk, _| disk.remove_file("seg-00000002.log")),
        ("multiple of 4096", &|_, cfg| cfg.segment_bytes += 1),
    ];
    for (words, change) in cases {
        let error = refused(change);
        assert!(error.contains(words), "{words}: {error}");
    }
    let error = refused(&|disk, _| disk.file("seg-00000002.log").truncate(70_000));
    assert!(error.contains("70000 bytes instead of"), "{error}");
}

#[test]
fn foreign_names_are_left_alone_and_our_leftovers_removed() {
    let h = sealed_log();
    let mut disk = h.disk.snapshot();
    for name in ["notes.txt", "seg-1.log", "seg-00000777.log.bak", "manifest.new", "checkpoint.new", "seg-00000777.log"] {
        disk.put_file(name, vec![1; 4096]);
    }
    let recovered = recover(&mut disk, &h.cfg).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(recovered.report.files_removed, ["checkpoint.new", "manifest.new", "seg-00000777.log"]);
    let names = disk.names();
    for name in ["notes.txt", "seg-1.log", "seg-00000777.log.bak"] {
        assert!(names.contains(&name.to_string()));
    }
}

#[test]
fn of_many_leftovers_the_running_log_removes_the_rest_and_takes_one_that_is_whole() {
    let mut h = sealed_log();
    h.settle();
    h.crash(Tear::Nothing, &mut Dice(1));
    let before = h.disk.names();
    for number in 0..12 {
        h.disk.put_file(&format!("seg-{:08}.log", 700 + number), vec![1; if number == 11 { h.cfg.segment_bytes as usize } else { 65_536 }]);
    }
    let report = h.restart();
    assert_eq!(report.files_removed.iter().filter(|name| name.starts_with("seg-")).count(), 8);
    let left = |h: &Harness| h.disk.names().into_iter().filter(|name| name.starts_with("seg-000007")).collect::<Vec<_>>();
    assert_eq!(left(&h), ["seg-00000708.log", "seg-00000709.log", "seg-00000710.log", "seg-00000711.log"]);
    for _ in 0..100 {
        h.settle();
        h.now.mono_us += 10_000;
    }
    let (left, now) = (left(&h), h.disk.names());
    // A file more or less may be in the pool; no new one has a number of an old one.
    assert!(left.len() <= 1 && now.len() <= before.len() + 1, "{before:?} {now:?}");
    assert!(now.iter().all(|name| before.contains(name) || name.as_str() >= "seg-00000711.log"), "{before:?} {now:?}");
    h.append(1, 1, 500, 1, 1);
    h.close();
    h.settle();
    h.crash(Tear::Nothing, &mut Dice(1));
    h.restart();
}

#[test]
fn settings_may_change_between_starts() {
    let mut h = sealed_log();
    h.crash(Tear::Nothing, &mut Dice(1));
    h.cfg.segment_bytes = 256 << 10;
    h.cfg.block_bytes_max = 32 << 10;
    h.cfg.batch_bytes_max = 16 << 10;
    h.cfg.writes_in_flight_max = 4;
    h.restart();
    for round in 0..120 {
        h.append(1, 1, 9000, 1, round);
        h.close();
        h.settle();
    }
    h.check_bytes(3);
    h.crash(Tear::Random, &mut Dice(1));
    h.cfg = small_config();
    h.restart();
    h.append(1, 1, 3000, 1, 1);
    h.close();
    h.settle();
    h.check_bytes(3);
}

#[test]
fn a_single_segment_file_can_be_inspected_alone() {
    let h = sealed_log();
    let mut disk = h.disk.snapshot();
    let mut text = String::new();
    let report = inspect_segment(&mut disk, "seg-00000001.log", Detail::Entries, &mut text);
    assert_eq!(report.damage, []);
    assert!(report.blocks > 20 && report.batches == report.footer_entries, "{report:?}");
    assert!(text.contains("with a footer") && text.contains("batch of partition uid"), "{text}");
    disk.file("seg-00000001.log")[30_000] ^= 8;
    let report = inspect_segment(&mut disk, "seg-00000001.log", Detail::Segments, &mut text);
    assert!(!report.damage.is_empty());
    let live = format!("seg-{:08}.log", h.log.live_file().0);
    let mut disk = h.disk.snapshot();
    let report = inspect_segment(&mut disk, &live, Detail::Blocks, &mut text);
    assert_eq!(report.damage, []);
    assert!(report.blocks > 0);
}

#[test]
fn a_directory_without_damage_inspects_clean_and_a_torn_tail_is_not_damage() {
    let mut h = sealed_log();
    let mut text = String::new();
    let report = inspect_shard(&mut h.disk.snapshot(), Detail::Blocks, &mut text);
    assert_eq!(report.damage, []);
    assert_eq!(report.blocks, h.blocks.len() as u64);
    assert!(!report.torn_tail);
    h.seal_by_itself = false;
    for fill in 0..3 {
        h.append(1, 1, 5000, 1, fill);
        h.close();
    }
    let last = h.disk.under_way.len() - 1;
    h.complete(last);
    h.crash(Tear::Nothing, &mut Dice(3));
    let report = inspect_shard(&mut h.disk.snapshot(), Detail::Blocks, &mut text);
    assert_eq!(report.damage, []);
    assert!(report.torn_tail);
}
