//! Batches: building and reading is identity, validation agrees with a naive second reading, each damage has its refusal,
//! and the sizes that the design promises.

mod common;

use common::samples;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tramline_wire::batch::*;
use tramline_wire::codec::Codec;
use tramline_wire::error::ErrorCode;

#[derive(Debug, Clone)]
struct Owned {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
    timestamp_us: i64,
    numbers: (Option<i64>, Option<u8>, Option<u32>),
    group: Option<Vec<u8>>,
    message_id: Option<Vec<u8>>,
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..max)
}

fn owned() -> impl Strategy<Value = Owned> {
    let numbers = (option::weighted(0.2, any::<i64>()), option::weighted(0.2, any::<u8>()), option::weighted(0.2, any::<u32>()));
    let rare = || option::weighted(0.2, bytes(20));
    let headers = prop_oneof![4 => Just(Vec::new()), 1 => vec((".{0,8}", bytes(20)), 1..4)];
    (option::of(bytes(20)), option::weighted(0.9, bytes(60)), headers, -2_000_000_000i64..2_000_000_000, numbers, rare(), rare()).prop_map(
        |(key, value, headers, timestamp_us, numbers, group, message_id)| Owned {
            key,
            value,
            headers,
            timestamp_us,
            numbers,
            group,
            message_id,
        },
    )
}

/// Builds one batch from as many of the records as fit; returns it and their number.
fn build(owned: &[Owned], limits: Limits, mark: ProducerMark) -> (Vec<u8>, usize) {
    let mut builder = BatchBuilder::new(limits);
    let mut pushed = 0;
    for record in owned {
        let headers: Vec<(&str, &[u8])> = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let before = builder.batch_bytes();
        let result = builder.push(&NewRecord {
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
            timestamp_us: record.timestamp_us,
            attributes: attributes(record),
        });
        match result {
            Ok(number) => assert_eq!(number as usize, pushed),
            Err(refused) => {
                assert_eq!(refused, PushRefused::Full);
                assert_eq!(builder.batch_bytes(), before, "a refused push changes nothing");
                break;
            }
        }
        pushed += 1;
    }
    let expected = builder.batch_bytes();
    let mut out = b"earlier".to_vec();
    assert_eq!(builder.finish_plain(&mut out, mark), expected);
    assert!(builder.is_empty());
    (out.split_off(7), pushed)
}

fn attributes(record: &Owned) -> Attributes<'_> {
    let (deliver_at_us, priority, ttl_ms) = record.numbers;
    Attributes { deliver_at_us, priority, ttl_ms, group: record.group.as_deref(), message_id: record.message_id.as_deref() }
}

proptest! {
    #[test]
    fn what_is_pushed_is_what_is_read(owned in vec(owned(), 1..30), id: u64, epoch: u16, sequence: u32, base in 0u64..1 << 60) {
        let limits = Limits { batch_bytes_max: 1_500, ..Limits::default() };
        let (mut bytes, count) = build(&owned, limits, ProducerMark { id, epoch, sequence });
        prop_assert!(count >= 1 && bytes.len() <= 1_500);
        validate(&bytes, &limits).expect("what the builder makes is valid");
        stamp_leader(&mut bytes, &LeaderStamp { partition_uid: 5, base_offset: base, term: 2, append_time_us: 77 });
        let view = BatchView::parse_exact(&bytes).expect("a batch");
        view.verify_header().expect("stamped");
        view.verify_body().expect("the leader's stamp is outside the body checksum");
        prop_assert_eq!((view.producer_id(), view.producer_epoch(), view.sequence()), (id, epoch, sequence));
        prop_assert_eq!(view.record_count() as usize, count);
        prop_assert_eq!(view.newest_timestamp_us(), owned[..count].iter().map(|record| record.timestamp_us).max().expect("one"));
        let mut read = 0;
        for (number, record) in view.records(view.stored_values()).enumerate() {
            let (record, pushed) = (record.expect("valid"), &owned[number]);
            prop_assert_eq!(record.offset, base + number as u64);
            prop_assert_eq!(record.timestamp_us, pushed.timestamp_us);
            prop_assert_eq!(record.key, pushed.key.as_deref());
            prop_assert_eq!(record.value, pushed.value.as_deref());
            prop_assert_eq!(record.attributes, attributes(pushed));
            let headers: Vec<_> = record.headers.map(|header| (header.name.to_owned(), header.value.to_vec())).collect();
            prop_assert_eq!(&headers, &pushed.headers);
            read += 1;
        }
        prop_assert_eq!(read, count);
    }

    #[test]
    fn append_time_mends_the_checksum(owned in vec(owned(), 1..10)) {
        let (mut bytes, _) = build(&owned, Limits::default(), ProducerMark::default());
        mark_append_time(&mut bytes);
        stamp_leader(&mut bytes, &LeaderStamp { partition_uid: 5, base_offset: 0, term: 2, append_time_us: 77 });
        let view = BatchView::parse_exact(&bytes).expect("a batch");
        view.verify_body().expect("mended");
        prop_assert_eq!(view.effective_newest_us(), 77);
        prop_assert!(view.records(view.stored_values()).all(|record| record.expect("valid").timestamp_us == 77));
    }

    #[test]
    fn a_flipped_bit_is_found(owned in vec(owned(), 1..5), at: prop::sample::Index, bit in 0..8u32) {
        let (mut bytes, _) = build(&owned, Limits::default(), ProducerMark::default());
        stamp_leader(&mut bytes, &LeaderStamp { partition_uid: 5, base_offset: 1, term: 2, append_time_us: 77 });
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let sound = BatchView::parse_exact(&bytes).is_ok_and(|view| view.verify_body().is_ok() && view.verify_header().is_ok());
        prop_assert!(!sound, "bit {} of byte {} flipped unnoticed", bit, at);
    }
}

#[test]
fn a_plain_record_costs_at_most_12_bytes() {
    let mut builder = BatchBuilder::new(Limits::default());
    for number in 0..1_000i64 {
        let before = builder.batch_bytes();
        builder.push(&NewRecord { value: Some(b"0123456789"), timestamp_us: 1_000 + number, ..NewRecord::default() }).expect("fits");
        assert!(builder.batch_bytes() - before - 10 <= 12);
    }
}

#[test]
fn records_far_apart_in_time_start_a_new_batch() {
    let mut builder = BatchBuilder::new(Limits::default());
    let at = |timestamp_us| NewRecord { value: Some(b"x"), timestamp_us, ..NewRecord::default() };
    builder.push(&at(0)).expect("first");
    for far in [36 * 60 * 1_000_000, -36 * 60 * 1_000_000, i64::MAX, i64::MIN] {
        assert_eq!(builder.push(&at(far)), Err(PushRefused::Full));
    }
    for near in [35 * 60 * 1_000_000, -35 * 60 * 1_000_000] {
        builder.push(&at(near)).expect("near");
    }
    builder.clear();
    for never in [i64::MAX, i64::MIN] {
        assert_eq!(builder.push(&at(never)), Err(PushRefused::BadTimestamp { timestamp_us: never }));
    }
}

#[test]
fn a_batch_takes_65535_records_and_no_more() {
    let mut builder = BatchBuilder::new(Limits::default());
    let empty = NewRecord { value: Some(b""), ..NewRecord::default() };
    for _ in 0..65_535 {
        builder.push(&empty).expect("fits");
    }
    assert_eq!(builder.push(&empty), Err(PushRefused::Full));
    let mut out = Vec::new();
    builder.finish_plain(&mut out, ProducerMark::default());
    let view = validate(&out, &Limits::default()).expect("valid");
    assert_eq!((view.record_count(), view.last_offset_delta()), (65_535, 65_534));
}

#[test]
fn what_is_above_a_limit_is_refused_by_builder_and_validation_alike() {
    let limits = Limits {
        batch_bytes_max: 4_096,
        record_bytes_max: 100,
        key_bytes_max: 10,
        headers_max: 2,
        headers_bytes_max: 40,
        id_bytes_max: 5,
        ..Limits::default()
    };
    let (long, header): (&[u8], (&str, &[u8])) = (&[7; 101], ("n", b"v"));
    let big_header: (&str, &[u8]) = ("n", &[7; 60]);
    let ids = |group, message_id| Attributes { group, message_id, ..Attributes::default() };
    let cases: [(&str, NewRecord<'_>); 7] = [
        ("value bytes", NewRecord { value: Some(long), ..NewRecord::default() }),
        ("record bytes", NewRecord { key: Some(b"k"), value: Some(&long[1..]), ..NewRecord::default() }),
        ("key bytes", NewRecord { key: Some(&long[..11]), ..NewRecord::default() }),
        ("number of headers", NewRecord { headers: &[header, header, header], ..NewRecord::default() }),
        ("headers bytes", NewRecord { headers: &[big_header], ..NewRecord::default() }),
        ("message group bytes", NewRecord { attributes: ids(Some(&long[..6]), None), ..NewRecord::default() }),
        ("message id bytes", NewRecord { attributes: ids(None, Some(&long[..6])), ..NewRecord::default() }),
    ];
    for (expected, record) in cases {
        assert!(matches!(BatchBuilder::new(limits).push(&record), Err(PushRefused::TooLarge { .. })), "{expected}");
        let mut builder = BatchBuilder::new(Limits::LAYOUT);
        builder.push(&record).expect("the layout can hold it");
        let mut out = Vec::new();
        builder.finish_plain(&mut out, ProducerMark::default());
        match validate(&out, &limits) {
            Err(error @ BatchError::RecordTooLarge { what, .. }) => assert_eq!((what, error.code()), (expected, ErrorCode::RecordTooLarge)),
            other => panic!("{expected}: {other:?}"),
        }
    }
    let mut builder = BatchBuilder::new(Limits::LAYOUT);
    for _ in 0..50 {
        builder.push(&NewRecord { value: Some(&long[1..]), ..NewRecord::default() }).expect("fits");
    }
    let mut out = Vec::new();
    builder.finish_plain(&mut out, ProducerMark::default());
    assert_eq!(validate(&out, &limits).expect_err("batch").code(), ErrorCode::BatchTooLarge);
}

#[test]
fn a_record_that_fits_into_no_batch_is_told_which_limit_of_a_batch_it_is_above() {
    let push = |limits| BatchBuilder::new(limits).push(&NewRecord { value: Some(&[7; 100]), ..NewRecord::default() });
    let small_batch = Limits { batch_bytes_max: 200, ..Limits::default() };
    assert_eq!(push(small_batch), Err(PushRefused::TooLarge { what: "batch bytes", size: 112 + 12 + 100, max: 200 }));
    let small_values = Limits { values_bytes_max: 99, ..Limits::default() };
    assert_eq!(push(small_values), Err(PushRefused::TooLarge { what: "values bytes of a batch", size: 100, max: 99 }));
}

#[test]
fn compression_that_does_not_pay_is_left_out_and_its_error_changes_nothing() {
    let mut builder = BatchBuilder::new(Limits::default());
    builder.push(&NewRecord { value: Some(b"value"), ..NewRecord::default() }).expect("fits");
    let mut out = vec![9];
    let failed = builder.finish(&mut out, ProducerMark::default(), Codec::Lz4, |_, out| {
        out.push(1);
        Err("no memory")
    });
    assert_eq!((failed, out.len(), builder.record_count()), (Err("no memory"), 1, 1));
    out.clear();
    let grow = |values: &[u8], out: &mut Vec<u8>| {
        out.extend_from_slice(values);
        Ok::<(), ()>(())
    };
    builder.finish(&mut out, ProducerMark::default(), Codec::Lz4, grow).expect("finished");
    assert_eq!(validate(&out, &Limits::default()).expect("valid").codec(), Codec::None);
}

/// Changes a valid batch, mends its checksum, and gives what validation says.
fn after(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> BatchError {
    let mut bytes = samples::batches().into_iter().find(|(known, _)| *known == name).expect("sample").1;
    change(&mut bytes);
    if bytes.len() >= BATCH_HEADER_BYTES {
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..64]), &bytes[112..]);
        bytes[64..68].copy_from_slice(&crc.to_le_bytes());
    }
    validate(&bytes, &Limits::default()).expect_err("refused")
}

#[test]
fn each_damage_of_a_batch_has_its_refusal() {
    let one = |change: fn(&mut Vec<u8>)| after("batch_one_plain_record", change);
    let all = |change: fn(&mut Vec<u8>)| after("batch_all_features", change);
    assert_eq!(one(|bytes| bytes.truncate(111)), BatchError::Short { needed: 112, actual: 111 });
    assert_eq!(one(|bytes| bytes.truncate(128)), BatchError::Short { needed: 129, actual: 128 });
    assert_eq!(one(|bytes| bytes.push(0)), BatchError::Trailing { bytes: 1 });
    assert_eq!(one(|bytes| bytes[3] = b'2'), BatchError::BadMagic(*b"TRB2"));
    assert_eq!(one(|bytes| bytes[4] = 2), BatchError::UnknownVersion(2));
    assert_eq!(one(|bytes| bytes[5] = 4).code(), ErrorCode::UnknownCodec);
    assert_eq!(one(|bytes| bytes[6] = 2), BatchError::UnknownChecksumKind(2));
    for at in [7, 58, 59] {
        assert!(matches!(after("batch_one_plain_record", |bytes| bytes[at] = 1), BatchError::ReservedNotZero(_)), "{at}");
    }
    for at in 68..112 {
        let error = after("batch_one_plain_record", |bytes| bytes[at] = 1);
        assert!(matches!(error, BatchError::ReservedNotZero(68 | 108) | BatchError::LeaderRegionNotZero), "{at}: {error:?}");
    }
    assert_eq!(one(|bytes| bytes[8] = 32), BatchError::UnknownFlags(32));
    assert_eq!(one(|bytes| bytes[8] = 1), BatchError::NotForProducers(BATCH_CONTROL));
    assert_eq!(one(|bytes| bytes[8] = 2).code(), ErrorCode::UnknownFlag);
    assert_eq!(one(|bytes| bytes[12] = 0), BatchError::BadRecordCount(0));
    assert_eq!(one(|bytes| bytes[14] = 1), BatchError::BadRecordCount(65_537));
    assert_eq!(one(|bytes| bytes[16] = 1), BatchError::BadLastOffsetDelta { last_offset_delta: 1, record_count: 1 });
    assert!(matches!(one(|bytes| bytes[20..24].fill(0xff)), BatchError::BadLengths { .. }));
    assert!(matches!(one(|bytes| bytes[24] = 11), BatchError::BadLengths { .. }), "no room for an entry");
    assert!(matches!(one(|bytes| bytes[24..28].fill(0xff)), BatchError::BadLengths { .. }), "an index longer than the body");
    assert!(matches!(one(|bytes| bytes[28] += 1), BatchError::BadLengths { .. }), "codec none: values_len is what is there");
    assert!(matches!(after("batch_compressed", |bytes| bytes[28..32].fill(0xff)), BatchError::ValuesTooLarge { .. }));
    assert!(matches!(after("batch_compressed", |bytes| bytes[28] += 1), BatchError::BadValuesLength { .. }));
    assert!(matches!(one(|bytes| bytes[32] ^= 1), BatchError::BadTimestamps { .. }));
    assert!(matches!(
        one(|bytes| bytes[32..48].copy_from_slice(&[i64::MIN.to_le_bytes(), i64::MIN.to_le_bytes()].concat())),
        BatchError::BadTimestamps { .. }
    ));
    assert!(matches!(all(|bytes| bytes[40] ^= 1), BatchError::BadTimestamps { .. }));
    assert_eq!(one(|bytes| bytes[113] = 1).code(), ErrorCode::UnknownFlag);
    assert!(matches!(one(|bytes| bytes[112] = RECORD_KEY as u8), BatchError::IndexShort { record: 0 }));
    assert_eq!(one(|bytes| bytes[114] = 1), BatchError::BadOffsetDelta { record: 0, delta: 1 });
    assert!(matches!(one(|bytes| bytes[116] = 1), BatchError::BadTimestamps { .. }), "a producer's first record is the base of time");
    assert!(matches!(one(|bytes| bytes[120] -= 1), BatchError::BadValuesLength { .. }));
    assert!(matches!(one(|bytes| bytes[120..124].fill(0xff)), BatchError::RecordTooLarge { .. }));
    assert!(matches!(one(|bytes| bytes[112] = RECORD_NULL as u8), BatchError::BadTombstone { record: 0 }));
    assert_eq!(all(|bytes| bytes[8] = 0), BatchError::BadTombstone { record: 2 });
    // The headers' count is the last record's first value byte after its (empty) value.
    let headers_at = samples::batches()[1].1.len() - 22;
    assert_eq!(after("batch_all_features", |bytes| bytes[headers_at] = 3), BatchError::BadHeaders { record: 3 });
    assert_eq!(after("batch_all_features", |bytes| bytes[headers_at + 4] = 0xff), BatchError::BadHeaders { record: 3 }, "a name is UTF-8");
    let mut bytes = samples::batches()[1].1.clone();
    bytes[64] ^= 1;
    assert_eq!(validate(&bytes, &Limits::default()).expect_err("checksum").code(), ErrorCode::ChecksumMismatch);
}

#[test]
fn a_compacted_batch_may_have_gaps_but_must_grow() {
    let compacted = |deltas: [u16; 4], last: u32| {
        let mut bytes = samples::batches().into_iter().find(|(name, _)| *name == "batch_all_features").expect("sample").1;
        bytes[8] |= BATCH_COMPACTED as u8;
        bytes[16..20].copy_from_slice(&last.to_le_bytes());
        let mut at = 112;
        for delta in deltas {
            bytes[at + 2..at + 4].copy_from_slice(&delta.to_le_bytes());
            at += if at == 112 {
                12
            } else if bytes[at] == RECORD_KEY as u8 {
                12 + 8
            } else {
                12 + 2
            };
        }
        BatchView::parse_exact(&bytes).and_then(|view| view.validate_records(&Limits::default()))
    };
    assert_eq!(compacted([0, 1, 2, 3], 3), Ok(()));
    assert_eq!(compacted([2, 5, 6, 65_534], 65_534), Ok(()));
    assert_eq!(compacted([2, 5, 5, 9], 9), Err(BatchError::BadOffsetDelta { record: 2, delta: 5 }));
    assert_eq!(compacted([2, 5, 6, 9], 10), Err(BatchError::BadLastOffsetDelta { last_offset_delta: 10, record_count: 4 }));
    assert_eq!(compacted([0, 1, 2, 65_535], 65_535), Err(BatchError::BadLastOffsetDelta { last_offset_delta: 65_535, record_count: 4 }));
}

#[test]
fn concatenated_batches_come_one_by_one_and_end_at_the_first_error() {
    let parts: Vec<Vec<u8>> = samples::batches().into_iter().map(|(_, bytes)| bytes).collect();
    let mut joined = parts.concat();
    let found: Vec<&[u8]> = Batches::new(&joined).map(|view| view.expect("a batch").bytes()).collect();
    assert_eq!(found, parts);
    joined.pop();
    let mut batches = Batches::new(&joined);
    assert_eq!(batches.by_ref().filter(Result::is_ok).count(), parts.len() - 1);
    assert!(batches.next().is_none());
}
