//! Arbitrary damage: recovery and inspection never panic, never hand over wrong bytes, never lose silently.

use super::damage::check_against_model;
use super::harness::{Harness, small_config};
use crate::log::envelope;
use crate::log::inspect::{Detail, inspect_segment, inspect_shard};
use crate::log::layout::{BlockView, SegmentHeader, peek_header};
use crate::log::manifest::{MANIFEST_SCHEMA, MANIFEST_VERSION, ManifestV2, serialize};
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
    let payload = serialize(manifest, AlignedVec::new());
    let header = envelope::seal(MANIFEST_SCHEMA, MANIFEST_VERSION, &payload);
    let mut image = vec![0; envelope::image_bytes(payload.len())];
    envelope::write_image(&mut image, &header, &payload);
    let file = disk.file("manifest");
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
