//! What has to hold of a start over spoiled files, and of the next one.
//!
//! Always: no panic, no loop, nothing handed over that does not check where it stands. Where the edits forged no checksum: nothing handed over
//! that the log did not write, and no block gone without a word.

use crate::base::{Base, entries_of};
use crate::disk::MemDisk;
use crate::input::Input;
use rkyv::util::AlignedVec;
use std::collections::BTreeMap;
use tramline::log::envelope;
use tramline::log::inspect::{Detail, inspect_segment, inspect_shard};
use tramline::log::layout::BlockView;
use tramline::log::manifest::{MANIFEST_NAME, MANIFEST_SCHEMA, MANIFEST_VERSION, ManifestV2};
use tramline::log::{EntryKind, Recovered, check_batch, recover};

/// The manifest of a directory whose manifest is good.
pub fn manifest_of(disk: &MemDisk) -> ManifestV2 {
    let mut bytes = AlignedVec::<16>::new();
    bytes.extend_from_slice(disk.look(MANIFEST_NAME).expect("a manifest"));
    let payload = envelope::open(&bytes, MANIFEST_SCHEMA, MANIFEST_VERSION).expect("a good envelope");
    rkyv::from_bytes::<ManifestV2, rkyv::rancor::Error>(payload).expect("a good archive")
}

/// Segment to file name, by the manifest.
pub fn segment_files(disk: &MemDisk) -> BTreeMap<u64, String> {
    let manifest = manifest_of(disk);
    let all = manifest.segments.iter().chain(&manifest.sorted_segments);
    all.map(|record| (record.uid, format!("seg-{:08}.log", record.file))).collect()
}

/// Looks at the files as `tramline inspect` does: the directory, and one file by itself.
pub fn inspect(disk: &mut MemDisk, input: &mut Input<'_>) {
    let mut text = String::new();
    inspect_shard(disk, Detail::Entries, &mut text);
    let names: Vec<String> = disk.names().into_iter().filter(|name| name.starts_with("seg-")).collect();
    if let Some(name) = names.get(input.below(names.len())) {
        inspect_segment(disk, name, Detail::Entries, &mut text);
    }
    disk.close_all();
}

/// Starts the log over `disk`, and checks what it found. `is_honest`: no checksum was made to fit what was changed.
pub fn start(base: &Base, disk: &mut MemDisk, is_honest: bool) -> Option<Recovered> {
    let found = recover(disk, &base.image.log).ok()?;
    stands_where_it_says(disk, &found);
    if is_honest {
        is_what_was_written(base, &found);
        disk.close_all();
        // Once more: what the first start wrote has to say the same.
        let again = recover(disk, &base.image.log).unwrap_or_else(|error| panic!("a start refuses what the one before it left: {error}"));
        assert_eq!(again.entries, found.entries, "entries of the next start");
        assert_eq!(again.batches, found.batches, "batches of the next start");
        return Some(again);
    }
    Some(found)
}

/// Batches, entries and payloads stand in whole blocks of the segments that are named, and check.
fn stands_where_it_says(disk: &MemDisk, found: &Recovered) {
    let files = segment_files(disk);
    let mut rows = BTreeMap::<u64, Vec<(u32, EntryKind, u64, u64)>>::new();
    let mut payloads = BTreeMap::<u64, Vec<Vec<u8>>>::new();
    for (uid, name) in &files {
        let file = disk.look(name).expect("a file of the manifest");
        for view in crate::blocks::blocks_of(file).into_iter().filter_map(|pos| BlockView::parse(&file[pos..])) {
            if view.header.segment_uid.0 != *uid {
                continue;
            }
            for entry in view.entries() {
                let row = (entry.group.0, entry.kind, entry.index.0, entry.term.0);
                rows.entry(view.header.block_seq.0).or_default().push(row);
                let good = view.fragments_of(&entry).map(|fragment| (fragment, view.content(&fragment)));
                let good = good.filter(|(fragment, content)| crc32c::crc32c(content) == fragment.crc).map(|(_, content)| content.to_vec());
                payloads.entry(view.header.block_seq.0).or_default().extend(good);
            }
        }
    }
    for entry in &found.entries {
        let row = (entry.group.0, entry.kind, entry.index.0, entry.term.0);
        assert!(rows.get(&entry.block.0).is_some_and(|rows| rows.contains(&row)), "no whole block has {entry:?}");
    }
    for control in &found.controls {
        assert!(payloads.get(&control.block.0).is_some_and(|all| all.contains(&control.payload)), "no good fragment has {control:?}");
    }
    for batch in found.batches.iter().chain(&found.covered_batches).filter(|batch| !batch.damaged) {
        let file = disk.look(&files[&batch.segment.0]).expect("a file of the manifest");
        let bytes = &file[batch.pos as usize..batch.pos as usize + batch.len as usize];
        check_batch(bytes, batch.uid, batch.base_offset).unwrap_or_else(|fault| panic!("{batch:?} does not check: {fault:?}"));
    }
}

fn is_what_was_written(base: &Base, found: &Recovered) {
    for batch in found.batches.iter().chain(&found.covered_batches) {
        let known = |(b, _): &&(tramline::log::RecoveredBatch, Vec<u8>)| {
            (b.uid, b.base_offset, b.block, b.pos, b.len) == (batch.uid, batch.base_offset, batch.block, batch.pos, batch.len)
        };
        assert!(base.batches.iter().find(known).is_some(), "{batch:?} was never written");
    }
    let counted = entries_of(found);
    for (block, entries) in base.entries.range(..=found.report.durable_through.0.min(base.durable)) {
        let is_lost = found.lost.iter().any(|lost| lost.first.0 <= *block && *block <= lost.last.0);
        let is_covered = found.checkpoint.as_ref().is_some_and(|checkpoint| *block <= checkpoint.covers_block);
        assert!(is_lost || is_covered || counted.get(block) == Some(entries), "block {block} is neither whole nor told as lost");
    }
}
