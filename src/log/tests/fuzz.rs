//! Arbitrary damage: recovery and inspection never panic, never hand over wrong bytes, never lose silently.

use super::damage::{check_against_model, log_of};
use super::harness::{Harness, small_config};
use crate::bytes::Slab;
use crate::effects::Effects;
use crate::ids::BlockSeq;
use crate::log::checkpoint::{CHECKPOINT_SCHEMA, CHECKPOINT_VERSION};
use crate::log::envelope;
use crate::log::inspect::{Detail, inspect_segment, inspect_shard};
use crate::log::layout::{BlockView, SegmentHeader, finish_block, peek_header};
use crate::log::manifest::{MANIFEST_SCHEMA, MANIFEST_VERSION, ManifestV2, StartV1, serialize};
use crate::log::operation::segment_file_name;
use crate::log::recovery::files::decode_envelope;
use crate::log::*;
use crate::sim::SimDisk;
use proptest::prelude::*;
use rkyv::util::AlignedVec;

pub(crate) fn manifest_of(disk: &mut SimDisk) -> ManifestV2 {
    let mut bytes = AlignedVec::new();
    bytes.extend_from_slice(disk.file("manifest"));
    decode_envelope(&bytes, MANIFEST_SCHEMA, MANIFEST_VERSION).expect("the manifest is good")
}

pub(crate) fn put_manifest(disk: &mut SimDisk, manifest: &ManifestV2) {
    put(disk, "manifest", MANIFEST_SCHEMA, MANIFEST_VERSION, &serialize(manifest, AlignedVec::new()));
}

fn put(disk: &mut SimDisk, name: &str, schema: u16, version: u16, payload: &[u8]) {
    let header = envelope::seal(schema, version, payload);
    let mut image = vec![0; envelope::image_bytes(payload.len())];
    envelope::write_image(&mut image, &header, payload);
    let file = disk.file(name);
    *file = image.clone();
    file.extend(image);
}

#[derive(Clone, Debug)]
enum Hurt {
    Flip { file: usize, at: usize, bit: u8 },
    Fill { file: usize, sector: usize, sectors: usize, byte: u8 },
    Copy { from_file: usize, from: usize, to_file: usize, to: usize, sectors: usize },
    Cut { file: usize, at: usize },
}

fn hurt() -> impl Strategy<Value = Hurt> {
    prop_oneof![
        4 => (0..20usize, any::<usize>(), 0..8u8).prop_map(|(file, at, bit)| Hurt::Flip { file, at, bit }),
        2 => (0..20usize, any::<usize>(), 1..80usize, any::<u8>())
            .prop_map(|(file, sector, sectors, byte)| Hurt::Fill { file, sector, sectors, byte }),
        2 => (0..20usize, any::<usize>(), 0..20usize, any::<usize>(), 1..80usize)
            .prop_map(|(from_file, from, to_file, to, sectors)| Hurt::Copy { from_file, from, to_file, to, sectors }),
        1 => (0..20usize, any::<usize>()).prop_map(|(file, at)| Hurt::Cut { file, at }),
    ]
}

fn apply(disk: &mut SimDisk, hurt: &Hurt) {
    let names = disk.names();
    let name = |index: usize| names[index % names.len()].clone();
    match *hurt {
        Hurt::Flip { file, at, bit } => {
            let data = disk.file(&name(file));
            let len = data.len().max(1);
            if let Some(byte) = data.get_mut(at % len) {
                *byte ^= 1 << bit;
            }
        }
        Hurt::Fill { file, sector, sectors, byte } => {
            let data = disk.file(&name(file));
            let all = (data.len() / 512).max(1);
            let from = sector % all * 512;
            let to = data.len().min(from + sectors * 512);
            data[from..to].fill(byte);
        }
        Hurt::Copy { from_file, from, to_file, to, sectors } => {
            let source = disk.file(&name(from_file)).clone();
            let all = (source.len() / 4096).max(1);
            let start = from % all * 4096;
            let part = source[start..source.len().min(start + sectors * 512)].to_vec();
            let target = disk.file(&name(to_file));
            let all = (target.len() / 4096).max(1);
            let at = to % all * 4096;
            let len = part.len().min(target.len() - at);
            target[at..at + len].copy_from_slice(&part[..len]);
        }
        Hurt::Cut { file, at } => {
            let data = disk.file(&name(file));
            let len = at % data.len().max(1);
            // Most files must not be shorter; a start that refuses is as good as one that reports.
            data.truncate(len & !511);
        }
    }
}

/// Whether header, table and trailer of a block of the model still stand in its place.
fn is_whole(disk: &mut SimDisk, block: &super::harness::ModelBlock) -> bool {
    let names = disk.names();
    names.iter().filter(|name| name.starts_with("seg-")).any(|name| {
        let view = disk.file(name).get(block.pos as usize..).and_then(BlockView::parse);
        view.is_some_and(|view| view.header.block_seq.0 == block.seq && view.header.segment_uid.0 == block.segment)
    })
}

thread_local! {
    /// A log with sealed segments, an open one, and a mark at its end; built once.
    static BASE: Harness = {
        let mut h = Harness::new(small_config());
        for round in 0..90u32 {
            h.append(round % 3, u64::from(round % 4), 2500, 2, round as u8);
            h.append_control(round % 3, EntryKind::Control, &[round as u8; 30]);
            h.close();
            h.settle();
        }
        h.now.mono_us += 2_000_000;
        h.turn();
        h.settle();
        h
    };
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn recovery_over_arbitrary_damage_serves_nothing_wrong_and_loses_nothing_silently(hurts in prop::collection::vec(hurt(), 1..6)) {
        BASE.with(|base| {
            let mut disk = base.disk.snapshot();
            for hurt in &hurts {
                apply(&mut disk, hurt);
            }
            let mut text = String::new();
            let inspected = inspect_shard(&mut disk.snapshot(), Detail::Entries, &mut text);
            for name in disk.names() {
                inspect_segment(&mut disk.snapshot(), &name, Detail::Entries, &mut text);
            }
            let Ok(recovered) = recover(&mut disk, &base.cfg) else {
                // Refused with a sentence: nothing is served at all.
                return;
            };
            check_against_model(base, &recovered, &mut disk);
            let all = base.blocks.len() as u64;
            // When every witness behind the end is gone too, the end looks like that of a shorter log: the documented window.
            let end = recovered.report.durable_through.0;
            let witnesses = base.blocks.iter().filter(|block| block.seq > end && is_whole(&mut disk, block));
            let silent = recovered.damage.is_empty() && recovered.report.cut_from.is_none();
            assert!(!silent || witnesses.count() == 0, "blocks vanished: {:?}", recovered.report);
            if recovered.damage.iter().any(|damage| damage.kind != DamageKind::SegmentHeader) {
                assert!(!inspected.damage.is_empty(), "recovery reports {:?}, inspection nothing", recovered.damage);
            }
            let from = base.blocks.iter().find(|b| recovered.checkpoint.as_ref().is_none_or(|c| b.seq > c.covers_block)).map_or(all, |b| b.seq);
            for seq in from..=recovered.report.durable_through.0.min(all) {
                let block = &base.blocks[seq as usize - 1];
                let found = recovered.entries.iter().filter(|entry| entry.block.0 == seq).count();
                let lost = recovered.lost.iter().any(|lost| lost.first.0 <= seq && seq <= lost.last.0);
                assert!(lost || found == block.entries.len(), "block {seq} is neither whole nor reported");
            }
        });
    }

    #[test]
    fn decoders_take_any_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..9000), pos in any::<usize>()) {
        let _ = BlockView::parse(&bytes);
        let _ = SegmentHeader::decode(&bytes);
        let _ = peek_header(&bytes);
        let _ = check_batch(&bytes, crate::ids::PartitionUid(1), crate::ids::Offset(0));
        let mut aligned = AlignedVec::new();
        aligned.extend_from_slice(&bytes);
        let _ = decode_envelope::<ManifestV2>(&aligned, MANIFEST_SCHEMA, MANIFEST_VERSION);
        if bytes.len() >= 4096 {
            bytes.truncate(4096);
            let _ = footer::FooterHeader::decode(&bytes);
            // A good page with one byte changed is refused.
            let entry = FooterEntry {
                partition_uid: crate::ids::PartitionUid(1), base_offset: crate::ids::Offset(2), newest_ts: 3, pos: 4, len: 5, last_offset_delta: 6,
                group: crate::ids::GroupId(7),
            };
            footer::encode_page(&mut bytes, crate::ids::SegmentUid(1), 0, &[entry]);
            assert!(footer::check_page(&bytes, crate::ids::SegmentUid(1), 0, 1).is_some());
            bytes[pos % 4096] ^= 1;
            assert!(footer::check_page(&bytes, crate::ids::SegmentUid(1), 0, 1).is_none());
        }
    }
}

#[test]
fn a_footer_is_not_made_anew_over_blocks_that_leave_no_room_for_it() {
    let mut h = Harness::new(small_config());
    for round in 0..60u8 {
        h.append(1, 1, 2500, 1, round);
        h.close();
        h.settle();
    }
    let record = manifest_of(&mut h.disk).segments.into_iter().find(|record| record.sealed).expect("a sealed segment");
    let last = h.blocks.iter().rfind(|block| block.segment == record.uid).expect("a block in it");
    let file = h.disk.file(&segment_file_name(record.file));
    let view = BlockView::parse(&file[last.pos as usize..]).expect("a whole block");
    let mut header = view.header;
    let from = last.pos as usize;
    let mut block = file[from..from + header.padded_len() as usize].to_vec();
    // A later block, in the footer's place: no log writes one there.
    let at = file.len() - block.len();
    (header.pos, header.block_seq) = (at as u32, BlockSeq(last.seq + 2));
    finish_block(&mut block, &header);
    file[at..].copy_from_slice(&block);
    let refused = recover(&mut h.disk.snapshot(), &h.cfg).err();
    assert!(matches!(&refused, Some(RecoverError::SegmentFile { what, .. }) if what.contains("no room")), "{refused:?}");
}

#[test]
fn more_durable_blocks_than_there_is_room_for_are_refused_at_once() {
    let mut h = log_of(3, true);
    let mut manifest = manifest_of(&mut h.disk);
    manifest.starts.last_mut().expect("one start").first_seq = 1;
    manifest.incarnation += 1;
    manifest.starts.push(StartV1 { incarnation: manifest.incarnation, first_seq: 1 << 50 });
    put_manifest(&mut h.disk, &manifest);
    let refused = recover(&mut h.disk.snapshot(), &h.cfg).err();
    assert!(matches!(refused, Some(RecoverError::BlockNumbers { first: 1, last, .. }) if last == (1 << 50) - 1), "{refused:?}");
}

#[test]
fn a_checkpoint_that_covers_more_than_the_log_has_is_refused() {
    BASE.with(|base| {
        let mut disk = base.disk.snapshot();
        let mut checkpoint = base.checkpoint.clone().expect("the log was sealed");
        // No segment is scanned then, so the log seems to end where the scan begins.
        checkpoint.scan.segment = 1000;
        let payload = serialize(&checkpoint, AlignedVec::new());
        put(&mut disk, "checkpoint", CHECKPOINT_SCHEMA, CHECKPOINT_VERSION, &payload);
        let refused = recover(&mut disk, &base.cfg).err();
        assert!(matches!(&refused, Some(RecoverError::Checkpoint(what)) if what.contains("covers block")), "{refused:?}");
    });
}

#[test]
fn a_segment_that_the_manifest_cuts_short_is_refused() {
    let mut h = log_of(10, false);
    let mut manifest = manifest_of(&mut h.disk);
    // Where the last block, of two pages, ends.
    manifest.segments[0].bytes = h.blocks.last().expect("blocks").pos + 8192;
    put_manifest(&mut h.disk, &manifest);
    let refused = recover(&mut h.disk.snapshot(), &h.cfg).err();
    assert!(matches!(&refused, Some(RecoverError::SegmentFile { what, .. }) if what.contains("no room")), "{refused:?}");
}

#[test]
fn a_block_of_the_last_number_there_is_is_none() {
    let mut h = log_of(2, false);
    let name = segment_file_name(1);
    let last = h.blocks.last().expect("blocks").pos as usize;
    let file = h.disk.file(&name);
    let mut header = BlockView::parse(&file[last..]).expect("a whole block").header;
    header.block_seq = BlockSeq(u64::MAX);
    finish_block(&mut file[last..last + header.padded_len() as usize], &header);
    let mut text = String::new();
    inspect_segment(&mut h.disk.snapshot(), &name, Detail::Entries, &mut text);
    assert!(!text.contains(&u64::MAX.to_string()), "{text}");
    let found = recover(&mut h.disk.snapshot(), &h.cfg).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(found.report.durable_through, BlockSeq(1));
}

#[test]
fn a_log_whose_scan_begins_behind_lost_blocks_seals_and_starts_again() {
    let mut h = Harness::new(small_config());
    h.seal_by_itself = false;
    for round in 0..60u8 {
        h.append(1, 1, 2500, 1, round);
        h.close();
        h.settle();
    }
    // The second segment loses its first block, and both are open at the next start.
    let segments = manifest_of(&mut h.disk).segments;
    let lost = h.blocks.iter().find(|block| block.segment == segments[1].uid).expect("a block in it").clone();
    h.disk.file(&segment_file_name(segments[1].file))[lost.pos as usize..lost.pos as usize + 96].fill(0);
    let mut disk = h.disk.snapshot();
    let found = recover(&mut disk, &h.cfg).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(found.lost.len(), 1, "{:?}", found.damage);
    let (mut log, mut slab, mut effects, mut news) = (found.log, Slab::new(8 << 20), Effects::new(), Vec::new());
    let mut settle = |log: &mut Log, slab: &mut Slab, effects: &mut Effects| {
        for _ in 0..200 {
            log.on_turn(h.now, 1 << 20, slab, effects, &mut news);
            disk.submit(effects);
            while !disk.under_way.is_empty() {
                let (token, outcome) = disk.complete(0);
                log.on_done(h.now, slab, token, outcome, effects, &mut news);
                disk.submit(effects);
            }
        }
    };
    settle(&mut log, &mut slab, &mut effects);
    let first = log.seal_ready().expect("the first segment is full and durable");
    let covers_block = lost.seq - 1;
    log.seal(&mut slab, &mut effects, first, &mut Vec::new(), CheckpointV5 { covers_block, ..CheckpointV5::default() })
        .expect("free to seal");
    settle(&mut log, &mut slab, &mut effects);
    drop(log);
    let again = recover(&mut disk.snapshot(), &h.cfg).unwrap_or_else(|error| panic!("{error}"));
    let scan = again.checkpoint.expect("it was sealed").scan;
    assert_eq!((scan.segment, scan.first_seq), (segments[1].uid, lost.seq + 1));
}
