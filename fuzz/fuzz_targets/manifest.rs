//! Manifest and checkpoint: as bytes, as an archive with bytes changed, and field by field, with envelopes that check or not.
#![no_main]

use rkyv::util::AlignedVec;
use tramline::log::checkpoint::{CHECKPOINT_NAME, CHECKPOINT_SCHEMA, CHECKPOINT_VERSION, CheckpointV5, ProducerBatchV1, ProducerV1};
use tramline::log::envelope;
use tramline::log::manifest::{MANIFEST_NAME, MANIFEST_SCHEMA, MANIFEST_VERSION, ManifestV2, SegmentRecordV1};
use tramline_fuzz::{Input, MemDisk, bases, blocks, checks, node};

type Archive = AlignedVec<16>;

fn open(disk: &MemDisk, name: &str, schema: u16, version: u16) -> Option<Archive> {
    let mut bytes = Archive::new();
    bytes.extend_from_slice(disk.look(name)?);
    let mut payload = Archive::new();
    payload.extend_from_slice(envelope::open(&bytes, schema, version).ok()?);
    Some(payload)
}

fn put(disk: &mut MemDisk, name: &str, schema: u16, version: u16, payload: &[u8]) {
    let mut image = vec![0; envelope::image_bytes(payload.len())];
    envelope::write_image(&mut image, &envelope::seal(schema, version, payload), payload);
    let mut file = image.clone();
    file.extend(image);
    disk.put(name, file);
}

/// Removes, repeats, swaps or changes one of a list.
fn change_list<T: Clone + Default>(list: &mut Vec<T>, input: &mut Input<'_>, change: impl FnOnce(&mut T, &mut Input<'_>)) {
    let at = input.below(list.len());
    match input.byte() % 8 {
        0 if !list.is_empty() => drop(list.remove(at)),
        1 if !list.is_empty() => list.insert(at, list[at].clone()),
        2 if !list.is_empty() => {
            let other = input.below(list.len());
            list.swap(at, other);
        }
        3 if list.len() < 64 => list.push(T::default()),
        _ => {
            if let Some(item) = list.get_mut(at) {
                change(item, input);
            }
        }
    }
}

fn change_record(record: &mut SegmentRecordV1, input: &mut Input<'_>) {
    let field = match input.byte() % 8 {
        0 => &mut record.uid,
        1 => &mut record.file,
        2 => &mut record.bytes,
        3 => &mut record.incarnation,
        4 => &mut record.first_seq_bound,
        5 => &mut record.window_bytes,
        6 => return record.sealed = !record.sealed,
        _ => return record.footer_entries = input.number(record.footer_entries.into()) as u32,
    };
    *field = input.number(*field);
}

fn change_manifest(manifest: &mut ManifestV2, input: &mut Input<'_>) {
    let number = match input.byte() % 10 {
        0 => &mut manifest.log_uid,
        1 => &mut manifest.incarnation,
        2 => &mut manifest.next_uid,
        3 => &mut manifest.next_file,
        4 => return manifest.has_checkpoint = !manifest.has_checkpoint,
        5 => {
            return change_list(&mut manifest.starts, input, |start, input| match input.flag() {
                true => start.incarnation = input.number(start.incarnation),
                false => start.first_seq = input.number(start.first_seq),
            });
        }
        6 => {
            return change_list(&mut manifest.free, input, |free, input| match input.flag() {
                true => free.filled = !free.filled,
                false => free.file = input.number(free.file),
            });
        }
        7 | 8 => return change_list(&mut manifest.segments, input, change_record),
        _ => return change_list(&mut manifest.sorted_segments, input, change_record),
    };
    *number = input.number(*number);
}

fn change_checkpoint(checkpoint: &mut CheckpointV5, input: &mut Input<'_>) {
    match input.byte() % 10 {
        0 => checkpoint.covers_block = input.number(checkpoint.covers_block),
        1 => checkpoint.scan.segment = input.number(checkpoint.scan.segment),
        2 => checkpoint.scan.first_seq = input.number(checkpoint.scan.first_seq),
        3 => change_list(&mut checkpoint.groups, input, |group, input| {
            let number = match input.byte() % 6 {
                0 => return group.group = input.number(group.group.into()) as u32,
                1 => &mut group.term,
                2 => &mut group.vote,
                3 => &mut group.commit,
                4 => &mut group.applied_index,
                _ => &mut group.applied_term,
            };
            *number = input.number(*number);
        }),
        4 => change_list(&mut checkpoint.partitions, input, |partition, input| {
            let number = match input.byte() % 6 {
                0 => return partition.group = input.number(partition.group.into()) as u32,
                1 => return partition.newest_ts = input.number(partition.newest_ts as u64) as i64,
                2 => &mut partition.uid,
                3 => &mut partition.topic,
                4 => &mut partition.log_start,
                _ => &mut partition.next_offset,
            };
            *number = input.number(*number);
        }),
        5 => {
            let (at, width) = (input.below(checkpoint.control.len()), [1, 2, 4, 8][input.below(4)]);
            blocks::change(&mut checkpoint.control, at, width, |old| input.number(old));
            if checkpoint.control.len() >= 32 {
                let crc = crc32c::crc32c_append(crc32c::crc32c(&checkpoint.control[..28]), &checkpoint.control[32..]);
                checkpoint.control[28..32].copy_from_slice(&crc.to_le_bytes());
            }
        }
        8 => {
            let batch = |input: &mut Input<'_>| ProducerBatchV1 {
                first: input.number(0),
                count: input.number(1) as u32,
                base_offset: input.number(0),
                append_time: input.number(0) as i64,
            };
            let batches: Vec<_> = (0..input.below(7)).map(|_| batch(input)).collect();
            let partition = checkpoint.partitions.first().map_or(1, |partition| partition.uid);
            let (partition, id, epoch) = (input.number(partition), input.number(1), input.number(0) as u16);
            checkpoint.producers.push(ProducerV1 { partition, id, epoch, batches: batches.len() as u16 });
            checkpoint.producer_batches.extend(batches);
        }
        9 => change_list(&mut checkpoint.producers, input, |producer, input| {
            let number = match input.byte() % 4 {
                0 => return producer.epoch = input.number(producer.epoch.into()) as u16,
                1 => return producer.batches = input.number(producer.batches.into()) as u16,
                2 => &mut producer.partition,
                _ => &mut producer.id,
            };
            *number = input.number(*number);
        }),
        _ => change_list(&mut checkpoint.runs, input, |run, input| {
            let number = match input.byte() % 8 {
                0 => return run.footer_first = input.number(run.footer_first.into()) as u32,
                1 => return run.footer_count = input.number(run.footer_count.into()) as u32,
                2 => return run.newest_ts = input.number(run.newest_ts as u64) as i64,
                3 => &mut run.uid,
                4 => &mut run.segment,
                5 => &mut run.first_offset,
                6 => &mut run.end_offset,
                _ => &mut run.bytes,
            };
            *number = input.number(*number);
        }),
    }
}

/// Changes the archive or what it says; the envelope fits.
fn forge(disk: &mut MemDisk, input: &mut Input<'_>, of_checkpoint: bool) {
    let (name, schema, version) = match of_checkpoint {
        true => (CHECKPOINT_NAME, CHECKPOINT_SCHEMA, CHECKPOINT_VERSION),
        false => (MANIFEST_NAME, MANIFEST_SCHEMA, MANIFEST_VERSION),
    };
    let Some(mut payload) = open(disk, name, schema, version) else { return };
    match (input.byte() % 4, of_checkpoint) {
        (0, _) => {
            for _ in 0..1 + input.below(4) {
                // The root of an archive is at its end: that is where most of what is checked stands.
                let back = 1 + input.below(payload.len().min(512));
                let width = [1, 2, 4, 8][input.below(4)];
                let at = payload.len().saturating_sub(back);
                blocks::change(&mut payload, at, width, |old| input.number(old));
            }
        }
        (1, _) => {
            let at = input.below(payload.len());
            blocks::change(&mut payload, at, 4, |old| input.number(old));
        }
        (_, false) => {
            let Ok(mut manifest) = rkyv::from_bytes::<ManifestV2, rkyv::rancor::Error>(&payload) else { return };
            for _ in 0..1 + input.below(4) {
                change_manifest(&mut manifest, input);
            }
            payload = rkyv::to_bytes::<rkyv::rancor::Error>(&manifest).expect("plain values");
        }
        (_, true) => {
            let Ok(mut checkpoint) = rkyv::from_bytes::<CheckpointV5, rkyv::rancor::Error>(&payload) else { return };
            for _ in 0..1 + input.below(4) {
                change_checkpoint(&mut checkpoint, input);
            }
            payload = rkyv::to_bytes::<rkyv::rancor::Error>(&checkpoint).expect("plain values");
        }
    }
    put(disk, name, schema, version, &payload);
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let choice = input.byte();
    let base = &bases()[usize::from(choice >> 2) % bases().len()];
    let mut disk = base.disk();
    let (of_checkpoint, is_raw) = (choice & 1 == 1, choice & 2 == 2 && choice & 28 == 28);
    if is_raw {
        let name = if of_checkpoint { CHECKPOINT_NAME } else { MANIFEST_NAME };
        disk.put(name, input.bytes(20_000).to_vec());
    } else {
        forge(&mut disk, &mut input, of_checkpoint);
        if choice & 2 == 2 {
            forge(&mut disk, &mut input, !of_checkpoint);
        }
    }
    checks::inspect(&mut disk, &mut input);
    if let Some(found) = checks::start(base, &mut disk, is_raw) {
        node::run(base, &mut disk, found);
    }
});
