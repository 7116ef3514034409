//! The consumer's core against a broker that lies: offsets, sizes, streams and views that cannot be true.

use super::*;
use crate::core::consumer::{Delivered, RecordView};
use tramline_wire::batch::{LeaderStamp, mark_producer, stamp_leader};
use tramline_wire::fetch::{FetchReplyWriter, FetchResult};
use tramline_wire::frame::{self, FLAG_MORE, FLAG_REPLY};

/// A batch of records with these values as the broker has it, changed, with both checksums mended.
fn tampered(rig: &mut Rig, uid: u64, values: &[&[u8]], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    rig.put(uid, Codec::None, values);
    let mut bytes = std::mem::take(&mut rig.broker.log(uid).bytes);
    change(&mut bytes);
    let base_offset = u64::from_le_bytes(bytes[80..88].try_into().expect("eight bytes"));
    mark_producer(&mut bytes, ProducerMark::default());
    stamp_leader(&mut bytes, &LeaderStamp { partition_uid: uid, base_offset, term: 1, append_time_us: 5 });
    bytes
}

fn entry(uid: u64, payload: &[u8], committed_end: u64, next_offset: u64) -> FetchResult {
    FetchResult {
        partition_uid: uid,
        error: ErrorCode::Ok,
        flags: Default::default(),
        payload_bytes: payload.len() as u32,
        log_start: 0,
        committed_end,
        last_stable: committed_end,
        next_offset,
    }
}

/// A rig that reads one partition from its start, with a stream that waits for its first reply.
fn reading() -> (Rig, u64) {
    let (mut rig, uids) = Rig::new(ConsumerConfig::default(), 1);
    rig.assign(0, 0);
    let now = rig.now();
    rig.core.on_connected(0, "fake:1", 0, now);
    rig.core.step(now);
    (rig, uids[0])
}

/// Answers the live stream.
fn answer(rig: &mut Rig, flags: u16, entries: &[FetchResult], payload: &[u8]) -> Result<Delivered, Error> {
    let stream = rig.core.lanes[0].stream.expect("a stream");
    let mut out = Vec::new();
    let start = frame::begin_frame(&mut out, Kind::Fetch.as_u8(), 1, FLAG_REPLY | flags, stream);
    let mut writer = FetchReplyWriter::begin(&mut out, 0);
    entries.iter().for_each(|entry| writer.push(&mut out, entry));
    writer.finish(&mut out);
    frame::finish_frame(&mut out, start, payload.len()).expect("small");
    out.extend_from_slice(payload);
    let conn = rig.core.conn(0);
    conn.room()[..out.len()].copy_from_slice(&out);
    conn.received(out.len());
    let now = rig.now();
    let got = &mut rig.got;
    rig.core.deliver(0, now, &mut |record: &RecordView<'_>| {
        got.push((record.partition, record.offset, Vec::new()));
        ControlFlow::Continue(())
    })
}

#[test]
fn a_record_whose_offset_is_not_of_its_batch_is_not_handed_out() {
    type Change = fn(&mut [u8]);
    // The index begins at 112; its entries have 12 bytes, and 3 of the key and 4 of the headers' length.
    let cases: [(Change, &[u64]); 4] = [
        (|bytes| bytes[112 + 2] = 10, &[]),         // far behind the batch
        (|bytes| bytes[112 + 19 + 2] = 0, &[0]),    // the same once more
        (|bytes| bytes[112 + 38 + 2] = 1, &[0, 1]), // and back
        (|bytes| bytes[80..88].fill(0xff), &[]),    // no offset is left for the others
    ];
    for (number, (change, expected)) in cases.into_iter().enumerate() {
        let (mut rig, uid) = reading();
        let payload = tampered(&mut rig, uid, &[b"a", b"b", b"c"], change);
        answer(&mut rig, FLAG_MORE, &[entry(uid, &payload, 3, 3)], &payload).expect("the frame itself is right");
        assert_eq!(rig.offsets(), expected, "case {number}");
        assert_eq!(rig.core.position("t", 0), Some(expected.len() as u64), "case {number}");
        assert!(matches!(rig.core.take_error(), Some(Error::Corrupt { partition: 0, .. })), "case {number}");
    }
}

#[test]
fn the_next_offset_cannot_be_behind_the_end() {
    let (mut rig, uid) = reading();
    answer(&mut rig, FLAG_MORE, &[entry(uid, &[], 5, 5)], &[]).expect("passed over, as after compaction");
    assert_eq!(rig.core.position("t", 0), Some(5));
    answer(&mut rig, FLAG_MORE, &[entry(uid, &[], 3, 5)], &[]).expect("an end that went back moves nothing");
    for next_offset in [7, u64::MAX] {
        let (mut rig, uid) = reading();
        let error = answer(&mut rig, FLAG_MORE, &[entry(uid, &[], 6, next_offset)], &[]).expect_err("it cannot be read yet");
        assert!(matches!(error, Error::Protocol { .. }), "{error}");
        assert_eq!(rig.core.position("t", 0), Some(0));
    }
}

/// How many fetches a second brings when each is answered like this.
fn fetches_in_a_second(rig: &mut Rig, mut answer_one: impl FnMut(&mut Rig)) -> u64 {
    let before = rig.core.metrics.streams_started;
    let end_us = rig.now_us + 1_000_000;
    while rig.now_us < end_us {
        let now = rig.now();
        rig.core.step(now);
        while rig.core.lanes[0].stream.is_some() && !rig.core.lanes[0].dirty {
            answer_one(rig);
        }
        rig.now_us = rig.core.next_step_us(rig.now()).clamp(rig.now_us + 1, end_us);
    }
    rig.core.metrics.streams_started - before
}

#[test]
fn streams_that_end_without_a_record_are_started_again_after_a_wait() {
    let (mut rig, uid) = reading();
    let fetches = fetches_in_a_second(&mut rig, |rig| {
        answer(rig, 0, &[], &[]).expect("allowed");
    });
    assert!((5..=25).contains(&fetches), "{fetches} fetches with no entry");
    let fetches = fetches_in_a_second(&mut rig, |rig| {
        answer(rig, 0, &[entry(uid, &[], 0, 0)], &[]).expect("allowed");
    });
    assert!((4..=25).contains(&fetches), "{fetches} fetches with an entry that says nothing");
    // One that lets the partition pass, and one whose data is for nobody.
    let refused = FetchResult { error: ErrorCode::NotReady, ..entry(uid, &[], 0, 0) };
    let fetches = fetches_in_a_second(&mut rig, |rig| {
        answer(rig, 0, &[entry(uid, &[], 0, 0), refused], &[]).expect("allowed");
    });
    assert!((4..=25).contains(&fetches), "{fetches} fetches with an entry and a refusal of it");
    let stray = tampered(&mut rig, uid, &[b"a"], |_| {});
    let fetches = fetches_in_a_second(&mut rig, |rig| {
        answer(rig, FLAG_MORE, &[entry(uid + 1000, &stray, 0, 0)], &stray).expect("allowed");
    });
    assert!((4..=25).contains(&fetches), "{fetches} fetches with data for nobody");
    // A stream that brought something is started again at once, and so is what the caller changes.
    let payload = tampered(&mut rig, uid, &[b"a"], |bytes| bytes[80..88].fill(0));
    rig.now_us += 300_000;
    let now = rig.now();
    rig.core.step(now);
    answer(&mut rig, 0, &[entry(uid, &payload, 1, 1)], &payload).expect("a record");
    assert_eq!(rig.offsets(), [0]);
    rig.core.step(now);
    assert!(rig.core.lanes[0].stream.is_some());
    rig.assign(0, 0);
    let started = rig.core.metrics.streams_started;
    rig.core.step(now);
    assert_eq!(rig.core.metrics.streams_started, started + 1);
}
