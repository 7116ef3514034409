//! The consumer's core against a broker in memory: positions, credit, bad batches, refusals, lost connections.

mod hostile;
mod nodes;

use std::ops::ControlFlow;

use proptest::prelude::*;
use tramline_wire::batch::{BATCH_HEADER_BYTES, BatchBuilder, Limits, NewRecord, ProducerMark};
use tramline_wire::codec::Codec;
use tramline_wire::error::ErrorCode;
use tramline_wire::kind::Kind;

use super::ConsumerCore;
use crate::config::ConsumerConfig;
use crate::core::Now;
use crate::core::codec::Compressor;
use crate::core::links::Lanes;
use crate::error::Error;
use crate::fake::{FakeBroker, carry};

struct Rig {
    core: ConsumerCore,
    broker: FakeBroker,
    now_us: u64,
    conns: Vec<u32>,
    next_conn: u32,
    /// Partition, offset, value.
    got: Vec<(u32, u64, Vec<u8>)>,
    errors: Vec<Error>,
}

impl Rig {
    fn new(config: ConsumerConfig, partitions: u32) -> (Rig, Vec<u64>) {
        let mut broker = FakeBroker::new();
        let uids = broker.create("t", partitions);
        let mut core = ConsumerCore::new(config, 30_000_000, 5_000_000, 16 << 20, 0).expect("a valid configuration");
        core.learn_nodes(&broker.view());
        (Rig { core, broker, now_us: 1, conns: Vec::new(), next_conn: 1, got: Vec::new(), errors: Vec::new() }, uids)
    }

    fn now(&self) -> Now {
        Now { mono_us: self.now_us, utc_us: 0 }
    }

    fn assign(&mut self, partition: u32, position: u64) {
        let view = self.broker.view();
        self.core.assign("t", &view.topics[0].partitions[partition as usize], position);
    }

    fn put(&mut self, uid: u64, codec: Codec, values: &[&[u8]]) {
        let mut builder = BatchBuilder::new(Limits::default());
        for value in values {
            let headers: [(&str, &[u8]); 1] = [("n", b"1")];
            let record = NewRecord { key: Some(b"k"), value: Some(value), headers: &headers, timestamp_us: 77, ..NewRecord::default() };
            builder.push(&record).expect("fits");
        }
        let mut bytes = Vec::new();
        let mut compressor = Compressor::new(codec).expect("a compressor");
        builder.finish(&mut bytes, ProducerMark::default(), codec, |values, out| compressor.compress(values, out)).expect("compresses");
        self.broker.log(uid).append(uid, &bytes);
    }

    /// Batches of one record each, whose values are their offsets.
    fn put_numbered(&mut self, uid: u64, count: u64) {
        for _ in 0..count {
            let number = self.broker.log(uid).next_offset.to_string();
            self.put(uid, Codec::None, &[number.as_bytes()]);
        }
    }

    fn turn(&mut self) {
        self.turn_until(|_| ControlFlow::Continue(()));
    }

    /// Turns until nothing moves; `stop` is asked after each record and ends the turn.
    fn turn_until(&mut self, mut stop: impl FnMut(u64) -> ControlFlow<()>) {
        loop {
            let now = self.now();
            if self.core.wish.is_due(now) {
                self.core.learn(&self.broker.view(), now);
            }
            for lane in 0..self.core.lane_count() {
                if self.core.wants_connection(lane, now) {
                    self.conns.resize(self.core.lane_count(), 0);
                    self.conns[lane] = self.next_conn;
                    self.next_conn += 1;
                    self.core.on_connected(lane, "fake:1", 0, now);
                }
            }
            self.core.step(now);
            let mut moved = false;
            for lane in 0..self.conns.len() {
                if !self.core.lanes[lane].open {
                    continue;
                }
                moved |= carry(self.core.conn(lane), &mut self.broker, self.conns[lane]);
                let got = &mut self.got;
                let mut sink = |record: &super::RecordView<'_>| {
                    assert_eq!((record.topic, record.key, record.timestamp_us, record.append_time_us), ("t", Some(b"k".as_slice()), 77, 5));
                    assert_eq!(record.headers.count(), 1);
                    got.push((record.partition, record.offset, record.value.unwrap_or_default().to_vec()));
                    stop(record.offset)
                };
                let delivered = self.core.deliver(lane, now, &mut sink).expect("the broker speaks the protocol");
                if delivered.stopped {
                    return;
                }
            }
            while let Some(error) = self.core.take_error() {
                self.errors.push(error);
            }
            if !moved {
                return;
            }
        }
    }

    fn offsets(&self) -> Vec<u64> {
        self.got.iter().map(|got| got.1).collect()
    }
}

#[test]
fn records_come_in_order_and_positions_follow() {
    let (mut rig, uids) = Rig::new(ConsumerConfig::default(), 1);
    rig.put_numbered(uids[0], 300);
    rig.assign(0, 0);
    rig.turn();
    assert_eq!(rig.offsets(), (0..300).collect::<Vec<_>>());
    assert!(rig.got.iter().all(|(_, offset, value)| *value == offset.to_string().into_bytes()));
    assert_eq!(rig.core.position("t", 0), Some(300));
    assert_eq!(rig.core.committed_end("t", 0), Some(300));
    rig.put_numbered(uids[0], 1);
    rig.turn();
    assert_eq!(rig.got.len(), 301, "the stream goes on");
}

#[test]
fn records_below_the_asked_offset_are_skipped() {
    let (mut rig, uids) = Rig::new(ConsumerConfig::default(), 1);
    rig.put(uids[0], Codec::Lz4, &[b"aaaaaaaaaaaaaaaaaaaaaaaa", b"bbbbbbbbbbbbbbbbbbbbbbbbbbbb", b"cccccccccccccccccccccccccc"]);
    rig.put(uids[0], Codec::None, &[b"d"]);
    rig.assign(0, 2);
    rig.turn();
    assert_eq!(rig.offsets(), [2, 3]);
}

#[test]
fn every_codec_is_read() {
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd, Codec::Snappy] {
        let (mut rig, uids) = Rig::new(ConsumerConfig::default(), 1);
        let value = vec![b'x'; 3000];
        rig.put(uids[0], codec, &[&value, b"short", &value]);
        rig.assign(0, 0);
        rig.turn();
        assert_eq!(rig.got.iter().map(|got| got.2.len()).collect::<Vec<_>>(), [3000, 5, 3000], "{codec}");
    }
}

#[test]
fn credit_is_granted_when_half_is_used_and_never_overdrawn() {
    let (mut rig, uids) = Rig::new(ConsumerConfig { credit_bytes: 8192, ..ConsumerConfig::default() }, 1);
    rig.put_numbered(uids[0], 500);
    rig.assign(0, 0);
    rig.turn();
    assert_eq!(rig.got.len(), 500);
    let grants = rig.broker.seen.iter().filter(|seen| seen.1 == Kind::FetchCredit).count();
    let bytes = rig.broker.logs[&uids[0]].bytes.len();
    assert!((bytes / 8192..=bytes / 4096 + 1).contains(&grants), "{grants} grants for {bytes} bytes");
    assert!(!rig.broker.overdrawn);
}

#[test]
fn a_broker_that_counts_less_credit_than_asked_for_gets_more_after_a_silence() {
    let (mut rig, uids) = Rig::new(ConsumerConfig { credit_bytes: 1 << 30, ..ConsumerConfig::default() }, 1);
    rig.broker.credit_max = 8192;
    rig.put_numbered(uids[0], 500);
    rig.assign(0, 0);
    let mut rounds = 0;
    while rig.got.len() < 500 {
        rig.turn();
        rig.now_us += 10_000;
        rounds += 1;
        assert!(rounds < 100);
    }
}

#[test]
fn a_partition_that_is_not_read_any_more_leaves_the_stream_alone_until_data_comes() {
    let (mut rig, uids) = Rig::new(ConsumerConfig::default(), 2);
    rig.put_numbered(uids[0], 5);
    rig.assign(0, 0);
    rig.assign(1, 0);
    rig.turn();
    let fetches = |rig: &Rig| rig.broker.seen.iter().filter(|seen| seen.1 == Kind::Fetch).count();
    assert!(rig.core.unassign("t", 0));
    rig.put_numbered(uids[1], 5);
    rig.turn();
    assert_eq!((rig.got.len(), fetches(&rig)), (10, 1));
    rig.put_numbered(uids[0], 1);
    rig.turn();
    assert_eq!((rig.got.len(), fetches(&rig)), (10, 2));
    assert!(rig.core.unassign("t", 1));
    rig.turn();
    assert_eq!(rig.core.lanes[0].stream, None);
}

#[test]
fn without_taking_records_no_more_credit_is_granted() {
    let (mut rig, uids) = Rig::new(ConsumerConfig { credit_bytes: 8192, ..ConsumerConfig::default() }, 1);
    rig.put_numbered(uids[0], 500);
    rig.assign(0, 0);
    let now = rig.now();
    rig.core.on_connected(0, "fake:1", 0, now);
    rig.core.step(now);
    for _ in 0..10 {
        carry(rig.core.conn(0), &mut rig.broker, 1);
        rig.core.step(now);
    }
    assert!(rig.broker.seen.iter().all(|seen| seen.1 != Kind::FetchCredit));
}

#[test]
fn a_stop_in_the_middle_of_a_batch_goes_on_after_it() {
    let (mut rig, uids) = Rig::new(ConsumerConfig::default(), 1);
    rig.put(uids[0], Codec::Zstd, &[b"a", b"b", b"c", b"d"]);
    rig.put(uids[0], Codec::None, &[b"e"]);
    rig.assign(0, 0);
    for _ in 0..8 {
        rig.turn_until(|_| ControlFlow::Break(()));
    }
    assert_eq!(rig.offsets(), [0, 1, 2, 3, 4]);
    assert_eq!(rig.core.position("t", 0), Some(5));
}

#[test]
fn a_seek_drops_what_was_on_its_way() {
    let (mut rig, uids) = Rig::new(ConsumerConfig::default(), 1);
    rig.put_numbered(uids[0], 200);
    rig.assign(0, 0);
    rig.turn_until(|offset| if offset == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
    rig.assign(0, 190);
    rig.turn();
    assert_eq!(rig.offsets(), [0, 1, 2, 3].into_iter().chain(190..200).collect::<Vec<_>>());
    rig.assign(0, 0);
    rig.turn();
    assert_eq!(rig.got.len(), 14 + 200);
}

#[test]
fn partitions_are_added_and_removed_while_reading() {
    let (mut rig, uids) = Rig::new(ConsumerConfig::default(), 3);
    for uid in &uids {
        rig.put_numbered(*uid, 10);
    }
    rig.assign(0, 0);
    rig.turn();
    rig.assign(1, 0);
    rig.assign(2, 5);
    rig.turn();
    assert_eq!(rig.got.len(), 25);
    assert!(rig.core.unassign("t", 0));
    assert!(!rig.core.unassign("t", 0));
    for uid in &uids {
        rig.put_numbered(*uid, 1);
    }
    rig.turn();
    assert_eq!(rig.got.len(), 27);
}

#[test]
fn a_damaged_body_is_told_and_never_handed_out_and_other_partitions_go_on() {
    let (mut rig, uids) = Rig::new(ConsumerConfig::default(), 2);
    rig.put_numbered(uids[0], 5);
    rig.put_numbered(uids[1], 5);
    let length = rig.broker.log(uids[0]).bytes.len() / 5;
    rig.broker.log(uids[0]).bytes[3 * length + BATCH_HEADER_BYTES + 14] ^= 1; // the fourth batch
    rig.assign(0, 0);
    rig.assign(1, 0);
    rig.turn();
    assert_eq!(rig.got.iter().filter(|got| got.0 == 0).count(), 3);
    assert_eq!(rig.got.iter().filter(|got| got.0 == 1).count(), 5);
    assert!(matches!(&rig.errors[..], [Error::Corrupt { partition: 0, offset: 3, .. }]), "{:?}", rig.errors);
    rig.assign(0, 4);
    rig.turn();
    assert_eq!(rig.got.last().map(|got| (got.0, got.1)), Some((0, 4)), "the rest can be read");
}

#[test]
fn a_declared_size_above_the_maximum_is_refused() {
    let (mut rig, uids) = Rig::new(ConsumerConfig { batch_values_bytes_max: 1024, ..ConsumerConfig::default() }, 1);
    rig.put(uids[0], Codec::Zstd, &[&[1; 2000]]);
    rig.assign(0, 0);
    rig.turn();
    assert!(rig.got.is_empty());
    assert!(rig.errors[0].to_string().contains("batch_values_bytes_max"), "{}", rig.errors[0]);
}

#[test]
fn a_refusal_that_may_pass_is_tried_again_without_a_word() {
    let (mut rig, uids) = Rig::new(ConsumerConfig::default(), 2);
    rig.put_numbered(uids[0], 3);
    rig.put_numbered(uids[1], 3);
    rig.broker.log(uids[0]).fetch_refusals = [ErrorCode::NotReady, ErrorCode::NotLeader].into();
    rig.assign(0, 0);
    rig.assign(1, 0);
    rig.turn();
    assert_eq!(rig.got.len(), 3);
    for _ in 0..5 {
        rig.now_us += 100_000;
        rig.turn();
    }
    assert_eq!(rig.got.len(), 6);
    assert!(rig.errors.is_empty());
}

#[test]
fn a_refusal_that_lasts_is_told_and_tried_again() {
    let (mut rig, uids) = Rig::new(ConsumerConfig::default(), 1);
    rig.put_numbered(uids[0], 1);
    rig.broker.log(uids[0]).fetch_refusals = std::iter::repeat_n(ErrorCode::NotReady, 200).collect();
    rig.assign(0, 0);
    while !rig.broker.log(uids[0]).fetch_refusals.is_empty() {
        rig.turn();
        rig.now_us += 250_000;
    }
    for _ in 0..4 {
        rig.now_us += 250_000;
        rig.turn();
    }
    assert!(matches!(&rig.errors[..], [Error::Partition { partition: 0, .. }]), "{:?}", rig.errors);
    assert_eq!(rig.errors[0].code(), Some(ErrorCode::NotReady));
    assert_eq!(rig.got.len(), 1);
}

#[test]
fn an_offset_out_of_range_is_told_with_the_range() {
    let (mut rig, uids) = Rig::new(ConsumerConfig::default(), 1);
    rig.put_numbered(uids[0], 3);
    rig.assign(0, 10);
    rig.turn();
    assert_eq!(rig.errors.len(), 1);
    let text = rig.errors[0].to_string();
    assert!(text.contains("offset_out_of_range"), "{text}");
    assert_eq!(rig.errors[0].resume_offset(), Some(3));
    rig.assign(0, 1);
    rig.turn();
    assert_eq!(rig.offsets(), [1, 2]);
}

#[test]
fn a_refused_stream_is_started_again() {
    let (mut rig, uids) = Rig::new(ConsumerConfig::default(), 1);
    rig.put_numbered(uids[0], 3);
    rig.broker.refuse_requests.push_back((Kind::Fetch, ErrorCode::Overloaded));
    rig.assign(0, 0);
    rig.turn();
    rig.now_us += 100_000;
    rig.turn();
    assert_eq!(rig.offsets(), [0, 1, 2]);
    assert!(rig.errors.is_empty());
}

#[test]
fn a_lost_connection_goes_on_at_the_position() {
    let (mut rig, uids) = Rig::new(ConsumerConfig::default(), 1);
    rig.put_numbered(uids[0], 100);
    rig.assign(0, 0);
    rig.turn_until(|offset| if offset == 41 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
    rig.broker.disconnect(rig.conns[0]);
    let now = rig.now();
    rig.core.on_lost(0, Error::io("cannot receive from", "fake:1", std::io::ErrorKind::ConnectionReset.into()), now);
    rig.now_us += 10_000;
    rig.turn();
    assert_eq!(rig.offsets(), (0..100).collect::<Vec<_>>());
    assert!(rig.errors.is_empty());
}

#[test]
fn a_topic_created_again_is_another_topic() {
    let (mut rig, uids) = Rig::new(ConsumerConfig::default(), 1);
    rig.put_numbered(uids[0], 3);
    rig.assign(0, 0);
    rig.turn();
    rig.broker.delete("t");
    rig.broker.create("t", 1);
    for _ in 0..5 {
        rig.now_us += 300_000;
        rig.turn();
    }
    assert_eq!(rig.got.len(), 3);
    assert_eq!(rig.errors.iter().map(Error::code).collect::<Vec<_>>(), [Some(ErrorCode::TopicDeleted)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the batches, codecs, credit and stops: every record from the start on comes once and in order.
    #[test]
    fn every_record_comes_once_and_in_order(
        batches in proptest::collection::vec((1usize..20, 0usize..300, 0usize..4), 1..30),
        start in 0u64..40,
        credit_bytes in 4096u32..20_000,
        stop_every in 1u64..50,
        verify_checksums in any::<bool>(),
    ) {
        let (mut rig, uids) = Rig::new(ConsumerConfig { credit_bytes, verify_checksums, ..ConsumerConfig::default() }, 1);
        let mut end = 0;
        for (records, size, codec) in batches {
            let value = vec![b'v'; size];
            rig.put(uids[0], Codec::ALL[codec], &vec![value.as_slice(); records]);
            end += records as u64;
        }
        let start = start.min(end);
        rig.assign(0, start);
        let mut rounds = 0;
        while rig.core.position("t", 0) != Some(end) {
            rig.turn_until(|offset| if offset % stop_every == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
            rounds += 1;
            prop_assert!(rounds < 2000);
        }
        prop_assert_eq!(rig.offsets(), (start..end).collect::<Vec<_>>());
        prop_assert!(rig.errors.is_empty());
        prop_assert!(!rig.broker.overdrawn);
    }

    /// Whatever a broker sends: an error or a record that verifies, never a panic.
    #[test]
    fn arbitrary_changes_of_stored_bytes_never_panic(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        verify_checksums in any::<bool>(),
        codec in 0usize..4,
    ) {
        let (mut rig, uids) = Rig::new(ConsumerConfig { verify_checksums, batch_values_bytes_max: 1 << 20, ..ConsumerConfig::default() }, 1);
        rig.put(uids[0], Codec::ALL[codec], &[&[b'v'; 200], &[b'w'; 200]]);
        let (before, mut payload) = (rig.broker.log(uids[0]).bytes.clone(), rig.broker.log(uids[0]).bytes.clone());
        for (place, byte) in flips {
            let at = place.index(payload.len());
            payload[at] ^= byte;
        }
        let changed = before != payload;
        rig.assign(0, 0);
        let now = rig.now();
        rig.core.on_connected(0, "fake:1", 0, now);
        rig.core.step(now);
        let stream = rig.core.lanes[0].stream.expect("a stream");
        let mut out = Vec::new();
        let header = tramline_wire::frame::begin_frame(&mut out, Kind::Fetch.as_u8(), 1, 3, stream);
        let mut writer = tramline_wire::fetch::FetchReplyWriter::begin(&mut out, 0);
        writer.push(&mut out, &tramline_wire::fetch::FetchResult {
            partition_uid: uids[0],
            error: ErrorCode::Ok,
            flags: Default::default(),
            payload_bytes: payload.len() as u32,
            log_start: 0,
            committed_end: 2,
            last_stable: 2,
            next_offset: 2,
        });
        writer.finish(&mut out);
        tramline_wire::frame::finish_frame(&mut out, header, payload.len()).expect("small");
        out.extend_from_slice(&payload);
        let room = rig.core.conn(0).room();
        room[..out.len()].copy_from_slice(&out);
        rig.core.conn(0).received(out.len());
        let mut values = 0;
        let mut sink = |record: &super::RecordView<'_>| {
            values += record.value.map_or(0, <[u8]>::len);
            ControlFlow::Continue(())
        };
        rig.core.deliver(0, now, &mut sink).expect("the frame itself is right");
        if verify_checksums && changed {
            prop_assert_eq!(values, 0);
            prop_assert!(rig.core.take_error().is_some());
        }
    }
}

#[test]
fn a_paused_partition_keeps_its_position_and_the_others_go_on() {
    let (mut rig, uids) = Rig::new(ConsumerConfig::default(), 2);
    rig.put_numbered(uids[0], 10);
    rig.put_numbered(uids[1], 10);
    rig.assign(0, 0);
    rig.assign(1, 0);
    // Stops within the first reply: what is behind it has arrived and was not handed out.
    rig.turn_until(|offset| if offset == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
    let partition = rig.got[0].0;
    assert_eq!(rig.core.set_paused("t", partition, true), Some(true));
    assert_eq!(rig.core.set_paused("t", partition, true), Some(false));
    assert_eq!(rig.core.set_paused("t", 7, true), None);
    assert_eq!(rig.core.paused().collect::<Vec<_>>(), [("t", partition)]);
    rig.put_numbered(uids[0], 5);
    rig.put_numbered(uids[1], 5);
    rig.turn();
    let offsets_of = |rig: &Rig, wanted: u32| rig.got.iter().filter(|got| got.0 == wanted).map(|got| got.1).collect::<Vec<_>>();
    assert_eq!((offsets_of(&rig, partition), offsets_of(&rig, 1 - partition)), ((0..4).collect(), (0..15).collect()));
    assert_eq!(rig.core.position("t", partition), Some(4));
    rig.core.set_paused("t", partition, false);
    rig.turn();
    assert_eq!(offsets_of(&rig, partition), (0..15).collect::<Vec<_>>());
    assert_eq!(rig.core.metrics.records, 30);
}

#[test]
fn with_everything_paused_nothing_is_asked_for() {
    let (mut rig, uids) = Rig::new(ConsumerConfig::default(), 1);
    rig.assign(0, 0);
    rig.core.set_paused("t", 0, true);
    rig.turn();
    assert!(rig.broker.seen.is_empty(), "not even a connection is opened");
    rig.core.set_paused("t", 0, false);
    rig.turn();
    rig.core.set_paused("t", 0, true);
    rig.turn();
    rig.put_numbered(uids[0], 3);
    rig.turn();
    assert_eq!(rig.offsets(), [0; 0]);
    let fetches = rig.broker.seen.iter().filter(|seen| seen.1 == Kind::Fetch).count();
    assert_eq!(fetches, 1);
    rig.assign(0, 1); // a seek moves it and leaves it paused
    rig.turn();
    assert_eq!(rig.offsets(), [0; 0]);
    rig.core.set_paused("t", 0, false);
    rig.turn();
    assert_eq!(rig.offsets(), [1, 2]);
}

#[test]
fn a_peer_that_answers_no_ping_is_given_up() {
    let (mut rig, _) = Rig::new(ConsumerConfig::default(), 1);
    rig.assign(0, 0);
    rig.turn();
    rig.now_us = rig.core.next_step_us(rig.now());
    assert_eq!(rig.now_us, 15_000_001, "fifteen seconds without a word");
    rig.turn();
    assert_eq!(rig.broker.seen.iter().filter(|seen| seen.1 == Kind::Ping).count(), 1);
    assert!(!rig.core.is_silent(0, rig.now()), "it was answered");
    rig.now_us = rig.core.next_step_us(rig.now());
    rig.core.step(rig.now()); // the ping goes nowhere
    rig.now_us = rig.core.next_step_us(rig.now());
    assert_eq!(rig.now_us, 35_000_001);
    assert!(rig.core.is_silent(0, rig.now()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is paused and resumed when: each record once, in order.
    #[test]
    fn pausing_loses_and_repeats_nothing(
        events in proptest::collection::vec((0u8..5, 0u32..3, 1u64..20), 1..60),
        credit_bytes in 4096u32..20_000,
    ) {
        let (mut rig, uids) = Rig::new(ConsumerConfig { credit_bytes, ..ConsumerConfig::default() }, 3);
        (0..3).for_each(|partition| rig.assign(partition, 0));
        for (what, partition, count) in events {
            match what {
                0 => rig.put_numbered(uids[partition as usize], count),
                1 | 2 => {
                    rig.core.set_paused("t", partition, what == 1);
                }
                3 => rig.turn(),
                _ => {
                    let mut left = count;
                    rig.turn_until(|_| {
                        left -= 1;
                        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                    });
                }
            }
            rig.now_us += 11_000; // used credit is granted again
        }
        for partition in 0..3 {
            rig.core.set_paused("t", partition, false);
        }
        for _ in 0..200 {
            rig.turn();
            rig.now_us += 11_000;
        }
        for (partition, uid) in uids.iter().enumerate() {
            let offsets: Vec<u64> = rig.got.iter().filter(|got| got.0 == partition as u32).map(|got| got.1).collect();
            prop_assert_eq!(offsets, (0..rig.broker.logs[uid].next_offset).collect::<Vec<_>>());
        }
    }
}
