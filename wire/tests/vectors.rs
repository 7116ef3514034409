//! Golden vectors: the bytes of every body and batch, as text files in `vectors/`. Encoding gives these bytes, decoding
//! these bytes gives the value. `TRAMLINE_UPDATE_VECTORS=1` writes the files, and the fuzz targets' seeds beside them; a
//! changed file of a released version is a broken promise (docs/PROTOCOL.md), a new one belongs to a new version.

mod common;

use common::{node_samples, samples};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use tramline_wire::batch::{BATCH_HAS_TOMBSTONES, BatchView, Limits, validate};
use tramline_wire::codec::Codec;
use tramline_wire::frame::{self, Need};
use tramline_wire::node;

fn dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

fn to_text(name: &str, bytes: &[u8]) -> String {
    let mut text = format!("# {name}: {} bytes, 16 per line\n", bytes.len());
    for line in bytes.chunks(16) {
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{}", hex.join(" ")).expect("writing to a string");
    }
    text
}

fn from_text(text: &str) -> Vec<u8> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(str::split_whitespace).map(|hex| u8::from_str_radix(hex, 16).expect("two hex digits")).collect()
}

fn update() -> bool {
    std::env::var_os("TRAMLINE_UPDATE_VECTORS").is_some_and(|value| value == "1")
}

/// A seed for a fuzz target, if asked to write one.
fn seed(target: &str, name: &str, bytes: &[u8]) {
    if update() {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        fs::create_dir_all(&dir).expect("seeds directory");
        fs::write(dir.join(name), bytes).expect("write a seed");
    }
}

/// The stored bytes, after writing them if asked to, and after comparing them with what the encoder gives.
fn stored(name: &str, encoded: &[u8]) -> Vec<u8> {
    let path = dir().join(format!("{name}.hex"));
    if update() {
        fs::create_dir_all(dir()).expect("vectors directory");
        fs::write(&path, to_text(name, encoded)).expect("write a vector");
    }
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}; TRAMLINE_UPDATE_VECTORS=1 writes it", path.display()));
    let bytes = from_text(&text);
    assert_eq!(bytes, encoded, "{name}: encoding gives other bytes than vectors/{name}.hex");
    bytes
}

#[test]
fn every_body_encodes_to_its_vector_and_decodes_from_it() {
    for sample in samples::all() {
        let bytes = stored(sample.name, &sample.frame());
        seed("frame", sample.name, &bytes);
        seed("metas", sample.name, &sample.meta);
        let Ok(Need::Whole(found, len)) = frame::peek(&bytes, &frame::Limits::default()) else { panic!("{} is no frame", sample.name) };
        assert_eq!(len, bytes.len());
        assert_eq!((found.header.kind(), found.header.flags), (Some(sample.kind), sample.flags));
        (sample.check)(found.meta);
    }
}

#[test]
fn every_body_between_nodes_encodes_to_its_vector_and_decodes_from_it() {
    for sample in node_samples::all() {
        let bytes = stored(sample.name, &sample.frame());
        // What the fuzz target makes a frame of: kind, length of the meta, meta, payload.
        let meta_len = (sample.meta.len() as u16).to_le_bytes();
        seed("node", sample.name, &[&[sample.kind.as_u8()], &meta_len[..], &sample.meta, &sample.payload].concat());
        let found = node::peek(&bytes, &frame::Limits::PROTOCOL, &node::Numbers::new());
        let Ok(node::Need::Whole(found, len)) = found else { panic!("{} is no frame", sample.name) };
        assert_eq!((len, found.kind, found.number, found.payload), (bytes.len(), sample.kind, 1, &sample.payload[..]));
        (sample.check)(found.meta);
    }
}

#[test]
fn every_batch_encodes_to_its_vector_and_decodes_from_it() {
    for (name, encoded) in samples::batches() {
        let bytes = stored(name, &encoded);
        seed("batch", name, &bytes);
        let view = BatchView::parse_exact(&bytes).expect("a batch");
        view.verify_body().expect("body checksum");
        view.validate_records(&Limits::default()).expect("records");
        let is_stamped = view.partition_uid() != 0;
        assert_eq!(validate(&bytes, &Limits::default()).is_ok(), !is_stamped);
        assert_eq!(view.verify_header().is_ok(), is_stamped);
        if view.codec() != Codec::None {
            continue;
        }
        let pushed = samples::records();
        for (record, pushed) in view.records(view.stored_values()).zip(&pushed) {
            let record = record.expect("a record");
            assert_eq!((record.key, record.value, record.attributes), (pushed.key, pushed.value, pushed.attributes));
            let headers: Vec<_> = record.headers.map(|header| (header.name, header.value)).collect();
            assert_eq!(headers, pushed.headers);
        }
    }
}

#[test]
fn header_fields_are_where_the_specification_puts_them() {
    let stamped = samples::batches().into_iter().find(|(name, _)| *name == "batch_stamped").expect("sample").1;
    let view = BatchView::parse_exact(&stamped).expect("a batch");
    assert_eq!((view.record_count(), view.last_offset_delta()), (4, 3));
    assert_eq!(view.flags(), BATCH_HAS_TOMBSTONES);
    assert_eq!((view.first_timestamp_us(), view.newest_timestamp_us()), (samples::NOW_US, samples::NOW_US + 2_000_000_000));
    assert_eq!((view.producer_id(), view.producer_epoch(), view.sequence()), (0x00AA_BBCC_DDEE_FF01, 3, 1_000_000));
    assert_eq!((view.partition_uid(), view.base_offset(), view.term()), (0x0102_0304_0506_0708, 1_000, 7));
    assert_eq!((view.last_offset(), view.next_offset(), view.append_time_us()), (1_003, 1_004, samples::NOW_US + 5));
    assert_eq!(view.len(), 112 + view.body_len() as usize);
    assert_eq!(stamped[..8], *b"TRB1\x01\x00\x01\x00");
    assert_eq!(stamped[72..80], 0x0102_0304_0506_0708u64.to_le_bytes());
    assert_eq!(stamped[104..108], crc32c::crc32c(&stamped[..104]).to_le_bytes());
    let mut covered = stamped[..64].to_vec();
    covered.extend_from_slice(&stamped[112..]);
    assert_eq!(stamped[64..68], crc32c::crc32c(&covered).to_le_bytes());
}

#[test]
fn no_vector_is_left_over() {
    let named = samples::all().into_iter().map(|sample| sample.name).chain(samples::batches().into_iter().map(|(name, _)| name));
    let named = named.chain(node_samples::all().into_iter().map(|sample| sample.name));
    let named: BTreeSet<String> = named.map(|name| format!("{name}.hex")).collect();
    let present = fs::read_dir(dir()).expect("vectors directory").map(|entry| entry.expect("entry").file_name());
    let present: BTreeSet<String> = present.map(|name| name.to_string_lossy().into_owned()).collect();
    assert!(present.is_subset(&named), "vectors without a sample: {:?}", present.difference(&named).collect::<Vec<_>>());
}
