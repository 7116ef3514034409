//! The consumer's core against a broker that lies: offsets, sizes, streams and views that cannot be true.

use super::*;
use crate::config::Config;
use crate::core::consumer::{Delivered, OWNERS_MAX, RecordView};
use crate::core::links::Links;
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

#[test]
fn places_of_unassigned_partitions_are_used_again() {
    let (mut rig, uids) = Rig::new(ConsumerConfig::default(), 3);
    uids.iter().for_each(|uid| rig.put_numbered(*uid, 1));
    rig.assign(0, 0);
    for _ in 0..100 {
        rig.assign(1, 0);
        rig.assign(2, 1);
        assert!(rig.core.unassign("t", 1) && rig.core.unassign("t", 2));
        rig.assign(1, 1);
        assert!(rig.core.unassign("t", 1) && !rig.core.unassign("t", 1));
    }
    assert_eq!((rig.core.parts.len(), rig.core.lanes.len()), (3, 1));
    rig.assign(1, 0);
    rig.assign(2, 0);
    rig.turn();
    let mut partitions: Vec<u32> = rig.got.iter().map(|got| got.0).collect();
    partitions.sort_unstable();
    assert_eq!(partitions, [0, 1, 2]);
}

#[test]
fn a_topic_without_partitions_is_not_asked_for_and_its_place_is_the_next_ones() {
    let (mut rig, uids) = Rig::new(ConsumerConfig::default(), 2);
    let one = rig.broker.view().topics[0].partitions[0];
    for round in 0..50 {
        let names = [round, round + 100].map(|number| format!("topic {number}"));
        for (name, uid) in names.iter().zip(&uids) {
            rig.core.assign(name, &crate::types::PartitionMetadata { uid: *uid, ..one }, 0);
        }
        assert_eq!(Lanes::topic_names(&rig.core), names);
        assert_eq!(rig.core.assigned().collect::<Vec<_>>(), [(names[0].as_str(), 0), (names[1].as_str(), 0)]);
        assert!(rig.core.unassign(&names[1], 0) && rig.core.unassign(&names[0], 0));
        assert_eq!(rig.core.position(&names[0], 0), None);
    }
    assert_eq!((rig.core.topics.len(), rig.core.parts.len()), (2, 2));
    assert!(Lanes::topic_names(&rig.core).is_empty());
}

#[test]
fn a_partition_that_moves_with_every_view_has_one_connection() {
    let (mut rig, _) = Rig::new(ConsumerConfig::default(), 1);
    let mut links = Links::new(&Config::default());
    rig.assign(0, 0);
    for round in 0..200u32 {
        let mut view = rig.broker.view();
        view.view_epoch = 10 + u64::from(round);
        view.nodes[0].id = round;
        view.topics[0].partitions[0].leader_node = round;
        rig.broker.node = round;
        let now = rig.now();
        rig.core.learn(&view, now);
        links.step(&mut rig.core, now);
        while let Some((key, _)) = links.next_dial() {
            if round % 3 == 2 {
                continue; // it is still being dialled when the next view comes
            }
            links.on_dialled(&mut rig.core, key);
            carry(links.conn(&mut rig.core, key), &mut rig.broker, round + 1);
            links.on_received(&mut rig.core, key, now).expect("the node that was looked for answers");
        }
        let lanes = &rig.core.lanes;
        assert_eq!(lanes.iter().filter(|lane| lane.open).count(), usize::from(round % 3 != 2));
        assert!(lanes.len() <= 3, "{} lanes in round {round}", lanes.len());
        assert!(lanes.iter().all(|lane| lane.open || lane.conn.recv_bytes() == 0), "memory without a connection");
    }
}

#[test]
fn a_view_with_more_owners_than_can_be_is_refused() {
    let (mut rig, _) = Rig::new(ConsumerConfig::default(), 1);
    rig.assign(0, 0);
    let mut view = rig.broker.view();
    view.view_epoch += 1;
    let one = view.topics[0].partitions[0];
    let many = |count: usize| (0..count as u32).map(|number| crate::types::PartitionMetadata { leader_node: number, index: number, ..one });
    for (owners, is_taken) in [(OWNERS_MAX, true), (OWNERS_MAX + 1, false)] {
        view.topics[0].partitions = many(owners).collect();
        let now = rig.now();
        rig.core.learn(&view, now);
        assert_eq!(rig.core.take_error().is_none(), is_taken, "{owners} owners");
    }
}

#[test]
fn a_frame_above_the_limit_is_told_at_once_with_the_setting() {
    let (mut rig, _) = reading();
    rig.core = ConsumerCore::new(ConsumerConfig::default(), 30_000_000, 5_000_000, 1000, 0).expect("a valid configuration");
    rig.assign(0, 0);
    let now = rig.now();
    rig.core.on_connected(0, "fake:1", 0, now);
    rig.core.step(now);
    let mut out = Vec::new();
    let start = frame::begin_frame(&mut out, Kind::Fetch.as_u8(), 1, FLAG_REPLY | FLAG_MORE, rig.core.lanes[0].stream.expect("a stream"));
    frame::finish_frame(&mut out, start, 2000).expect("within the protocol");
    let conn = rig.core.conn(0);
    conn.room()[..out.len()].copy_from_slice(&out);
    conn.received(out.len());
    let lost = rig.core.deliver(0, now, &mut |_: &RecordView<'_>| ControlFlow::Continue(())).expect_err("the connection is of no use");
    rig.core.on_lost(0, lost, now);
    let told = rig.core.take_error().expect("told").to_string();
    assert!(["2000", "1000", "frame_bytes_max"].iter().all(|word| told.contains(word)), "{told}");
}
