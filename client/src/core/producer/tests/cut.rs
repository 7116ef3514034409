//! Batches that are too large for the node or the topic: their records are stored all the same, in order, once.

use proptest::prelude::*;
use tramline_wire::batch::{Attributes, Batches};
use tramline_wire::codec::Codec;
use tramline_wire::error::ErrorCode;

use super::{Rig, codec, plain};
use crate::config::ProducerConfig;
use crate::core::codec::Decompressor;
use crate::error::Error;
use crate::producer::Record;

/// Tags in the order in which they are stored; a value is its tag and padding.
fn stored(rig: &Rig, uid: u64) -> Vec<u64> {
    rig.broker.values(uid).iter().map(|value| u64::from_le_bytes(value[..8].try_into().expect("eight bytes"))).collect()
}

fn push_sized(rig: &mut Rig, tag: u64, bytes: usize) {
    push_with(rig, tag, bytes, None);
}

fn push_with(rig: &mut Rig, tag: u64, bytes: usize, priority: Option<u8>) {
    let mut value = tag.to_le_bytes().to_vec();
    value.resize(bytes, 7);
    let (now, topic) = (rig.now(), rig.core.topic("t").expect("known"));
    let attributes = Attributes { priority, ..Attributes::default() };
    let record = Record { topic: "t", partition: Some(0), value: Some(&value), attributes, tag, ..Record::default() };
    rig.core.push(|| now, topic, &record).expect("taken");
}

#[test]
fn a_node_that_takes_small_frames_gets_small_batches() {
    let (mut rig, uids) = Rig::new(ProducerConfig::default(), 1);
    let send = |rig: &mut Rig, tags: std::ops::Range<u64>| tags.for_each(|tag| push_sized(rig, tag, 1000));
    send(&mut rig, 0..100);
    let now = rig.now();
    rig.core.step(now);
    rig.conns = vec![1];
    // The least that a node can have as frame.max.bytes; what was closed before it told is larger than the payload beside a meta.
    rig.core.on_connected(0, "fake:1", 64 << 10, 0, now);
    rig.turn_until_done();
    send(&mut rig, 100..200);
    rig.turn_until_done();
    assert_eq!((rig.failed(), stored(&rig, uids[0])), (vec![], (0..200).collect()));
    let sizes: Vec<usize> = Batches::new(&rig.broker.logs[&uids[0]].bytes).map(|batch| batch.expect("good").len()).collect();
    assert!(sizes.iter().all(|bytes| *bytes <= (64 << 10) / 8 * 7) && sizes.len() == 5, "{sizes:?}");
}

#[test]
fn a_topic_that_takes_small_batches_gets_them_and_is_asked_no_more_than_it_takes_to_find_out() {
    for config in [ProducerConfig::default(), plain()] {
        let (mut rig, uids) = Rig::new(config, 2);
        rig.broker.batch_bytes_max = 16 << 10;
        for tag in 0..1000 {
            push_sized(&mut rig, tag, 1000);
        }
        rig.turn_until_done();
        let sent = rig.core.metrics.batches_sent;
        assert_eq!((rig.failed(), stored(&rig, uids[0])), (vec![], (0..1000).collect()));
        assert!(sent < 1000 / 8 + 20, "{sent} batches");
        // Both partitions are the topic's.
        for tag in 0..100 {
            rig.push(Some(1), &[7; 1000], tag).expect("taken");
        }
        rig.turn_until_done();
        assert_eq!((rig.failed(), rig.core.metrics.batches_sent_again), (vec![], 0));
        assert_eq!(rig.broker.values(uids[1]).len(), 100);
        assert!(rig.core.trouble().is_none());
    }
}

#[test]
fn one_record_that_is_too_large_or_has_a_bad_attribute_fails_alone() {
    for code in [ErrorCode::RecordTooLarge, ErrorCode::BatchTooLarge, ErrorCode::InvalidAttribute] {
        let (mut rig, uids) = Rig::new(ProducerConfig::default(), 1);
        match code {
            ErrorCode::RecordTooLarge => rig.broker.record_bytes_max = 4000,
            ErrorCode::BatchTooLarge => rig.broker.batch_bytes_max = 4000,
            _ => {}
        }
        for tag in 0..50 {
            // Only the one has what cannot be.
            let (bytes, priority) = match code {
                ErrorCode::InvalidAttribute => (100, 10),
                _ => (5000, 9),
            };
            match tag {
                33 => push_with(&mut rig, tag, bytes, Some(priority)),
                _ => push_with(&mut rig, tag, 100, Some(9)),
            }
        }
        rig.turn_until_done();
        assert_eq!(rig.failed(), [33], "{code:?}");
        let error = rig.told.iter().find_map(|told| told.3.as_ref()).and_then(Error::code);
        assert_eq!(error, Some(code));
        assert_eq!(stored(&rig, uids[0]), (0..50).filter(|tag| *tag != 33).collect::<Vec<_>>());
    }
}

#[test]
fn a_batch_in_doubt_is_not_cut() {
    let (mut rig, uids) = Rig::new(ProducerConfig::default(), 1);
    let partition = rig.broker.log(uids[0]);
    partition.stored_but.push_back(ErrorCode::TimedOut);
    partition.refusals.extend([ErrorCode::Ok, ErrorCode::BatchTooLarge]);
    push_sized(&mut rig, 0, 10);
    push_sized(&mut rig, 1, 10);
    rig.turn_until_done();
    assert!(rig.told.iter().all(|told| told.3.as_ref().is_some_and(Error::outcome_unknown)), "{:?}", rig.told);
    assert_eq!(stored(&rig, uids[0]), [0, 1]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever the sizes, times and limits: what is small enough is stored as it was sent, in order, and nothing else is.
    #[test]
    fn what_is_small_enough_survives_the_cutting(
        records in proptest::collection::vec((8usize..3000, 0i64..4_200_000_000, any::<bool>()), 1..120),
        batch_bytes_max in 1200usize..20_000,
        record_bytes_max in 100u64..3000,
        idempotent in any::<bool>(),
        compression in codec(),
    ) {
        // One batch at a time: without idempotence a refused one may not follow a smaller one that was taken.
        let config = ProducerConfig { compression, idempotent, max_in_flight: 1, ..ProducerConfig::default() };
        let (mut rig, uids) = Rig::new(config, 1);
        (rig.broker.batch_bytes_max, rig.broker.record_bytes_max) = (batch_bytes_max, record_bytes_max);
        let sent: Vec<(Vec<u8>, i64, bool)> = records.iter().enumerate().map(|(tag, (bytes, timestamp_us, is_keyed))| {
            let mut value = (tag as u64).to_le_bytes().to_vec();
            // Not compressible, so that a record has its size.
            value.extend((8..*bytes).map(|at| (tag * 31 + at * at * 7 + (at >> 3)) as u8));
            (value, *timestamp_us, *is_keyed)
        }).collect();
        let headers: [(&str, &[u8]); 2] = [("trace", b"abc"), ("", b"")];
        let now = rig.now();
        let topic = rig.core.topic("t").expect("known");
        for (tag, (value, timestamp_us, is_keyed)) in sent.iter().enumerate() {
            let headers = if *is_keyed { &headers[..] } else { &[] };
            let (key, timestamp_us) = (is_keyed.then_some(&b"key"[..]), Some(*timestamp_us));
            let attributes = Attributes { priority: Some(3), group: key, ..Attributes::default() };
            let record = Record { topic: "t", partition: Some(0), key, value: Some(value), headers, timestamp_us, attributes, tag: tag as u64 };
            rig.core.push(|| now, topic, &record).expect("taken");
        }
        rig.turn_until_done();
        let failed = rig.failed();
        let mut found = Vec::new();
        let mut decompressor = Decompressor::new();
        for batch in Batches::new(&rig.broker.logs[&uids[0]].bytes) {
            let batch = batch.expect("good");
            let values = decompressor.decompress(batch.codec(), batch.stored_values(), batch.values_len(), 1 << 20).expect("good");
            for record in batch.records(values) {
                let record = record.expect("good");
                let is_keyed = record.key.is_some();
                prop_assert_eq!(record.attributes, Attributes { priority: Some(3), group: record.key, ..Attributes::default() });
                prop_assert_eq!(record.headers.count(), if is_keyed { 2 } else { 0 });
                found.push((record.value.expect("a value").to_vec(), record.timestamp_us, is_keyed));
            }
        }
        let kept: Vec<_> = (0..).zip(&sent).filter(|(tag, _)| !failed.contains(tag)).map(|(_, sent)| sent.clone()).collect();
        prop_assert_eq!(found, kept);
        for (tag, (value, _, is_keyed)) in (0..).zip(&sent) {
            let bytes = value.len() + if *is_keyed { 3 + 3 + 2 + 2 * 6 + 8 } else { 0 };
            if bytes as u64 <= record_bytes_max && bytes + 124 + 9 <= batch_bytes_max {
                prop_assert!(!failed.contains(&tag), "{} bytes failed, {:?}", bytes, rig.told[tag as usize]);
            }
        }
        prop_assert!(compression != Codec::None || failed.iter().all(|tag| sent[*tag as usize].0.len() as u64 + 28 > record_bytes_max
            || sent[*tag as usize].0.len() + 161 > batch_bytes_max));
    }
}
