//! Hostile input: arbitrary bytes and damaged samples never panic, and each kind of damage gets its own refusal.

mod common;

use common::{samples, walk};
use proptest::collection::vec;
use proptest::prelude::*;
use tramline_wire::batch::{
    BATCH_COMPACTED, BATCH_HEADER_BYTES, BatchBuilder, BatchError, BatchView, INDEX_ENTRY_BYTES, LeaderStamp, Limits as BatchLimits,
    NewRecord, ProducerMark, mark_producer, stamp_leader, validate,
};
use tramline_wire::error::{ErrorBody, ErrorCode};
use tramline_wire::fetch::FetchRequest;
use tramline_wire::frame::{self, FrameError, Limits, Need};
use tramline_wire::kind::Kind;
use tramline_wire::metadata::{MetadataReply, MetadataRequest};
use tramline_wire::prim::DecodeError;
use tramline_wire::produce::{ProduceReply, ProduceRequest};
use tramline_wire::topics::CreateTopicRequest;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..600)) {
        walk::frame(&bytes);
        walk::metas(&bytes);
        walk::batch(&bytes);
        walk::batches(&bytes);
    }

    #[test]
    fn arbitrary_bodies_of_small_numbers_never_panic(bytes in vec(prop_oneof![8 => Just(0u8), 4 => 0u8..4, 1 => any::<u8>()], 0..200)) {
        // Small numbers make plausible lengths and counts: far more of these decode.
        walk::metas(&bytes);
    }

    #[test]
    fn damaged_bodies_never_panic(which: prop::sample::Index, damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut: prop::sample::Index) {
        let samples = samples::all();
        let mut meta = samples[which.index(samples.len())].meta.clone();
        if !meta.is_empty() {
            for (at, byte) in damage {
                let at = at.index(meta.len());
                meta[at] = byte;
            }
            walk::metas(&meta);
            walk::metas(&meta[..cut.index(meta.len())]);
        }
    }

    #[test]
    fn damaged_batches_never_panic(which: prop::sample::Index, damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut: prop::sample::Index) {
        let batches = samples::batches();
        let mut bytes = batches[which.index(batches.len())].1.clone();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        walk::batch(&bytes);
        walk::batches(&bytes);
        walk::batch(&bytes[..cut.index(bytes.len())]);
    }

    #[test]
    fn a_flipped_bit_in_a_head_is_refused(which: prop::sample::Index, at: prop::sample::Index, bit in 0..8u32) {
        let samples = samples::all();
        let mut bytes = samples[which.index(samples.len())].frame();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        match frame::peek(&bytes, &Limits::default()) {
            Err(_) => {}
            // A longer length only asks for more bytes; with them the checksum is wrong.
            Ok(Need::More(total)) => {
                prop_assert!((16..24).contains(&at) && total <= 32 + (8 << 20));
                bytes.resize(total, 0);
                prop_assert!(frame::peek(&bytes, &Limits::default()).is_err());
            }
            Ok(Need::Whole(..)) => prop_assert!(false, "bit {} of byte {} flipped unnoticed", bit, at),
        }
    }
}

fn ping() -> Vec<u8> {
    samples::all().into_iter().find(|sample| sample.name == "create_topic_request").expect("sample").frame()
}

fn refused(change: impl FnOnce(&mut Vec<u8>)) -> FrameError {
    let mut bytes = ping();
    change(&mut bytes);
    frame::peek(&bytes, &Limits::default()).expect_err("refused")
}

#[test]
fn each_damage_of_a_frame_header_has_its_refusal() {
    assert_eq!(refused(|bytes| bytes[0] = b'G'), FrameError::BadMagic(*b"GRL1"));
    assert_eq!(refused(|bytes| bytes[6] = 8), FrameError::UnknownFlags(8));
    assert_eq!(refused(|bytes| bytes[7] = 1), FrameError::UnknownFlags(256));
    assert_eq!(refused(|bytes| bytes[24] = 1), FrameError::ReservedNotZero(1));
    assert_eq!(refused(|bytes| bytes[16..20].fill(0xff)), FrameError::MetaTooLarge { bytes: u32::MAX, max: 1 << 20 });
    assert_eq!(refused(|bytes| bytes[20..24].fill(0xff)), FrameError::PayloadTooLarge { bytes: u32::MAX, max: 16 << 20 });
    let nine_mib = (9u32 << 20).to_le_bytes();
    let error = refused(|bytes| bytes[20..24].copy_from_slice(&nine_mib));
    assert!(matches!(error, FrameError::FrameTooLarge { max: 8388608, .. }), "{error:?}");
    assert_eq!(error.code(), ErrorCode::FrameTooLarge);
    let error = refused(|bytes| bytes[28] ^= 1);
    assert_eq!(error.code(), ErrorCode::ChecksumMismatch);
    assert_eq!(refused(|bytes| *bytes.last_mut().expect("meta") ^= 1).code(), ErrorCode::ChecksumMismatch);
    assert_eq!(frame::peek(b"GET / HTTP/1.1", &Limits::default()), Err(FrameError::BadMagic(*b"GET ")), "before 32 bytes are there");
    assert_eq!(frame::peek(b"TR", &Limits::default()), Ok(Need::More(32)));
}

#[test]
fn a_wrong_checksum_is_refused_before_the_payload_is_there() {
    let mut bytes = Vec::new();
    let start = frame::begin_request(&mut bytes, Kind::Produce, 1);
    bytes.extend_from_slice(b"meta");
    frame::finish_frame(&mut bytes, start, 1 << 20).expect("small");
    assert_eq!(frame::peek(&bytes[..33], &Limits::default()), Ok(Need::More(36)), "the meta first");
    assert_eq!(frame::peek(&bytes, &Limits::default()), Ok(Need::More(36 + (1 << 20))));
    bytes[35] ^= 1;
    assert!(matches!(frame::peek(&bytes, &Limits::default()), Err(FrameError::Checksum { .. })));
    assert_eq!(frame::blame(&bytes).map(|header| header.correlation), Some(1));
}

#[test]
fn a_frame_above_the_protocols_limits_is_not_written() {
    let mut out = b"earlier".to_vec();
    let start = frame::begin_request(&mut out, Kind::CreateTopic, 1);
    out.resize(7 + 32 + (1 << 20) + 1, 0);
    assert!(frame::finish_frame(&mut out, start, 0).is_err());
    assert_eq!(out, b"earlier");
}

#[test]
fn an_error_reply_decodes_and_long_messages_are_cut() {
    let mut out = Vec::new();
    let message = "ž".repeat(10_000);
    frame::write_error(&mut out, 200, 9, 77, ErrorCode::NotLeader, &message, "host:1");
    let Ok(Need::Whole(frame, _)) = frame::peek(&out, &Limits::default()) else { panic!("whole") };
    assert!(frame.header.is_reply() && frame.header.is_error() && !frame.header.has_more());
    assert_eq!((frame.header.kind, frame.header.version, frame.header.correlation), (200, 9, 77));
    let body = ErrorBody::decode(frame.meta).expect("body");
    assert_eq!((body.code(), body.retriable, body.next), (Some(ErrorCode::NotLeader), true, "host:1"));
    assert_eq!(body.message.len(), 4096);
}

/// A stored batch of four records without optional fields, changed, and with both checksums mended.
fn stored(deltas: [u16; 4], flags: u16, last_offset_delta: u32, base_offset: u64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BatchLimits::default());
    for _ in 0..4 {
        builder.push(&NewRecord { value: Some(b"v"), ..NewRecord::default() }).expect("fits");
    }
    let mut bytes = Vec::new();
    builder.finish_plain(&mut bytes, ProducerMark::default());
    bytes[8..10].copy_from_slice(&flags.to_le_bytes());
    bytes[16..20].copy_from_slice(&last_offset_delta.to_le_bytes());
    for (entry, delta) in bytes[BATCH_HEADER_BYTES..].chunks_mut(INDEX_ENTRY_BYTES).zip(deltas) {
        entry[2..4].copy_from_slice(&delta.to_le_bytes());
    }
    mark_producer(&mut bytes, ProducerMark::default());
    stamp_leader(&mut bytes, &LeaderStamp { partition_uid: 1, base_offset, term: 1, append_time_us: 0 });
    bytes
}

/// Offsets of the records until the end or the first error, and that.
fn offsets(bytes: &[u8]) -> (Vec<u64>, Option<BatchError>) {
    let mut offsets = Vec::new();
    let view = match BatchView::parse(bytes) {
        Ok(view) => view,
        Err(error) => return (offsets, Some(error)),
    };
    assert_eq!((view.verify_header(), view.verify_body()), (Ok(()), Ok(())));
    for record in view.records(view.stored_values()) {
        match record {
            Ok(record) => offsets.push(record.offset),
            Err(error) => return (offsets, Some(error)),
        }
    }
    (offsets, None)
}

#[test]
fn a_readers_walk_gives_offsets_that_grow_within_the_batch_or_an_error() {
    /// Deltas of the index, the header's last one, and what the walk gives.
    type Case = ([u16; 4], u32, (&'static [u64], Option<BatchError>));
    let bad = |record, delta| Some(BatchError::BadOffsetDelta { record, delta });
    let cases: [Case; 5] = [
        ([0, 1, 2, 3], 3, (&[10, 11, 12, 13], None)),
        ([10, 1, 2, 3], 3, (&[], bad(0, 10))),
        ([0, 0, 2, 3], 3, (&[10], bad(1, 0))),
        ([0, 1, 3, 2], 3, (&[10, 11], bad(2, 3))),
        ([0, 1, 2, 65_535], 3, (&[10, 11, 12], bad(3, 65_535))),
    ];
    for (deltas, last, (expected, error)) in cases {
        assert_eq!(offsets(&stored(deltas, 0, last, 10)), (expected.to_vec(), error), "{deltas:?}");
    }
    let compacted: [Case; 5] = [
        ([0, 1, 2, 3], 3, (&[10, 11, 12, 13], None)),
        ([2, 5, 6, 9], 12, (&[12, 15, 16, 19], None)),
        ([2, 5, 5, 9], 9, (&[12, 15], bad(2, 5))),
        ([2, 5, 4, 9], 9, (&[12, 15], bad(2, 4))),
        ([6, 7, 8, 9], 8, (&[16, 17, 18], bad(3, 9))),
    ];
    for (deltas, last, (expected, error)) in compacted {
        assert_eq!(offsets(&stored(deltas, BATCH_COMPACTED, last, 10)), (expected.to_vec(), error), "compacted {deltas:?}");
    }
    // A node refuses the same from a producer, who may not say that a batch is compacted.
    let mut produced = stored([0, 1, 3, 2], 0, 3, 0);
    produced[68..BATCH_HEADER_BYTES].fill(0);
    assert_eq!(validate(&produced, &BatchLimits::default()).map_err(|error| error.code()), Err(ErrorCode::BadBatch));
}

#[test]
fn a_base_offset_that_leaves_no_offsets_is_refused_by_the_header() {
    let highest = u64::MAX - 4;
    assert_eq!(offsets(&stored([0, 1, 2, 3], 0, 3, highest)), ((highest..u64::MAX).collect(), None));
    for base_offset in [highest + 1, u64::MAX] {
        assert_eq!(offsets(&stored([0, 1, 2, 3], 0, 3, base_offset)), (Vec::new(), Some(BatchError::BadBaseOffset { base_offset })));
    }
}

/// The meta of a sample.
fn meta(name: &str) -> Vec<u8> {
    samples::all().into_iter().find(|sample| sample.name == name).expect("sample").meta
}

#[test]
fn unknown_values_are_refused_with_their_code() {
    let mut bytes = meta("produce_request");
    bytes[0] = 5;
    assert_eq!(ProduceRequest::decode(&bytes).expect_err("level").code(), ErrorCode::UnknownLevel);
    let mut bytes = meta("produce_request");
    bytes[1] = 1;
    assert_eq!(ProduceRequest::decode(&bytes), Err(DecodeError::ReservedNotZero));
    let mut bytes = meta("fetch_request");
    bytes[0] = 2;
    assert_eq!(FetchRequest::decode(&bytes).expect_err("mode").code(), ErrorCode::InvalidRequest);
    let mut bytes = meta("fetch_request");
    bytes[1] = 1;
    assert_eq!(FetchRequest::decode(&bytes).expect_err("isolation").code(), ErrorCode::InvalidRequest);
    let mut bytes = meta("create_topic_request");
    let flags_at = 2 + "flights".len() + 4 + 2;
    bytes[flags_at] = 4;
    assert_eq!(CreateTopicRequest::decode(&bytes).expect_err("flags").code(), ErrorCode::UnknownFlag);
    let mut bytes = meta("produce_reply");
    bytes[12 + 8..12 + 10].fill(0xff);
    assert_eq!(ProduceReply::decode(&bytes).expect_err("error code").code(), ErrorCode::Malformed);
    let mut bytes = meta("metadata_request");
    bytes[6] = 0xff;
    assert_eq!(MetadataRequest::decode(&bytes), Err(DecodeError::NotUtf8));
}

#[test]
fn a_declared_count_is_not_believed() {
    let mut bytes = meta("metadata_reply");
    bytes[8..12].fill(0xff);
    let needed = u32::MAX as usize * 12;
    assert!(matches!(MetadataReply::decode(&bytes), Err(DecodeError::Short { needed: n, .. }) if n == needed));
    assert!(matches!(MetadataRequest::decode(&[0xff; 4]), Err(DecodeError::Short { .. })));
}
