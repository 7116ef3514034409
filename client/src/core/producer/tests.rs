//! The producer's core against a broker in memory: order, windows, refusals, lost connections, time.
//!
//! Tests of what only an idempotent producer does are in `idempotence`, those of what one without idempotence does say so with `plain`;
//! peers that break the protocol's rules are in `broken_rules`, batches that are too large in `cut`.

mod broken_rules;
mod cut;
mod idempotence;
mod leaders;
mod offsets;
mod sent;

use proptest::prelude::*;
use tramline_wire::codec::Codec;
use tramline_wire::error::ErrorCode;
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;

use super::{ProducerCore, PushError};
use crate::config::ProducerConfig;
use crate::core::Now;
use crate::core::links::Lanes;
use crate::error::{Error, SendError};
use crate::fake::{FakeBroker, carry};
use crate::partitioner::Partitioner;
use crate::producer::Record;

/// Time of a record, as the default is.
const TIMEOUT_US: u64 = 30_000_000;
/// Time of a request.
const SILENCE_US: u64 = 500_000;

/// What a delivery said: tag, partition, offset, error.
type Told = (u64, u32, Option<u64>, Option<Error>);

struct Rig {
    core: ProducerCore,
    broker: FakeBroker,
    now_us: u64,
    /// Connection ids by lane.
    conns: Vec<u32>,
    next_conn: u32,
    told: Vec<Told>,
}

impl Rig {
    fn new(config: ProducerConfig, partitions: u32) -> (Rig, Vec<u64>) {
        let mut broker = FakeBroker::new();
        let uids = broker.create("t", partitions);
        let mut core = ProducerCore::new(config, SILENCE_US, 16 << 20, 0).expect("a valid configuration");
        core.learn(&broker.view(), Now { mono_us: 0, utc_us: 0 });
        (Rig { core, broker, now_us: 1, conns: Vec::new(), next_conn: 1, told: Vec::new() }, uids)
    }

    fn now(&self) -> Now {
        Now { mono_us: self.now_us, utc_us: 1_700_000_000_000_000 + self.now_us as i64 }
    }

    fn push(&mut self, partition: Option<u32>, value: &[u8], tag: u64) -> Result<bool, PushError> {
        let now = self.now();
        let topic = self.core.topic("t").expect("the topic is known");
        let record = Record { topic: "t", partition, value: Some(value), tag, ..Record::default() };
        self.core.push(|| now, topic, &record)
    }

    /// One value per batch: pushes and makes the batch due.
    fn push_batch(&mut self, partition: u32, value: &[u8], tag: u64) {
        self.push(Some(partition), value, tag).expect("taken");
        let id = self.core.topics[0].parts[partition as usize];
        self.core.seal(id);
    }

    fn connect(&mut self) {
        let now = self.now();
        for lane in 0..self.core.lane_count() {
            if self.core.wants_connection(lane, now) {
                self.conns.resize(self.core.lane_count(), 0);
                self.conns[lane] = self.next_conn;
                self.next_conn += 1;
                self.core.on_connected(lane, "fake:1", 8 << 20, 0, now);
            }
        }
    }

    fn carry(&mut self) -> bool {
        let now = self.now();
        let mut moved = false;
        for lane in 0..self.conns.len() {
            if self.conns[lane] > 0 && self.core.lanes[lane].open {
                moved |= carry(self.core.conn(lane), &mut self.broker, self.conns[lane]);
                self.core.on_written(lane, now);
                self.core.on_received(lane, now).expect("the broker speaks the protocol");
            }
        }
        moved
    }

    /// Turns until nothing moves, and takes what came of it.
    fn turn(&mut self) {
        self.turn_quietly();
        let told = &mut self.told;
        self.core.drain(|delivery| told.push((delivery.tag, delivery.partition, delivery.offset, delivery.error.cloned())));
    }

    /// Turns until nothing moves.
    fn turn_quietly(&mut self) {
        loop {
            let now = self.now();
            self.core.step(now);
            if self.core.wish.is_due(now) {
                self.core.learn(&self.broker.view(), now);
            }
            self.connect();
            self.core.fill_windows(now);
            if !self.carry() {
                break;
            }
        }
    }

    /// Turns while time goes on, until all records have their fate.
    fn turn_until_done(&mut self) {
        for _ in 0..10_000 {
            self.core.flush();
            self.turn();
            if self.core.records_outstanding() == 0 {
                assert_eq!(self.core.held_bytes(), 0);
                return;
            }
            self.now_us += 10_000;
        }
        panic!("records without a fate: {:?}", self.core);
    }

    fn lose(&mut self, lane: usize) {
        let now = self.now();
        self.broker.disconnect(self.conns[lane]);
        self.core.on_lost(lane, Error::io("cannot receive from", "fake:1", std::io::ErrorKind::ConnectionReset.into()), now);
    }

    fn failed(&self) -> Vec<u64> {
        self.told.iter().filter(|told| told.3.is_some()).map(|told| told.0).collect()
    }

    fn produce_requests(&self) -> usize {
        self.broker.seen.iter().filter(|seen| seen.1 == Kind::Produce).count()
    }
}

#[test]
fn records_come_back_with_their_offsets_in_order() {
    let (mut rig, uids) = Rig::new(ProducerConfig::default(), 1);
    for tag in 0..100 {
        rig.push(None, format!("value {tag}").as_bytes(), tag).expect("taken");
    }
    rig.turn();
    assert_eq!(rig.told.len(), 100);
    for (at, (tag, partition, offset, error)) in rig.told.iter().enumerate() {
        assert_eq!((*tag, *partition, *offset), (at as u64, 0, Some(at as u64)));
        assert!(error.is_none());
    }
    assert_eq!(rig.produce_requests(), 1, "what was sent between two polls is one batch");
    assert_eq!(rig.broker.values(uids[0])[7], b"value 7");
    assert_eq!(rig.core.durable_end("t", 0), Some(100));
}

#[test]
fn a_batch_closes_when_it_is_full() {
    let config = ProducerConfig { batch_bytes: 1000, max_in_flight: 100, linger_us: 1_000_000, ..ProducerConfig::default() };
    let (mut rig, uids) = Rig::new(config, 1);
    for tag in 0..25 {
        rig.push(None, &[7; 188], tag).expect("taken"); // 200 bytes each, 4 beside the header's 112
    }
    rig.turn();
    assert_eq!(rig.told.len(), 24, "the last one lingers");
    rig.now_us += 1_000_000;
    rig.turn();
    assert_eq!(rig.told.len(), 25);
    let counts: Vec<u32> =
        tramline_wire::batch::Batches::new(&rig.broker.logs[&uids[0]].bytes).map(|batch| batch.expect("good").record_count()).collect();
    assert_eq!(counts, [4, 4, 4, 4, 4, 4, 1]);
}

#[test]
fn a_record_larger_than_a_batch_travels_alone() {
    let config = ProducerConfig { batch_bytes: 1000, ..ProducerConfig::default() };
    let (mut rig, uids) = Rig::new(config, 1);
    for (tag, size) in [(0, 10), (1, 50_000), (2, 10)] {
        rig.push(None, &vec![1; size], tag).expect("taken");
    }
    rig.turn_until_done();
    assert_eq!(rig.broker.values(uids[0]).iter().map(Vec::len).collect::<Vec<_>>(), [10, 50_000, 10]);
}

#[test]
fn a_record_above_the_limit_is_refused_and_costs_no_other() {
    let (mut rig, uids) = Rig::new(ProducerConfig::default(), 1);
    rig.push(None, b"good", 1).expect("taken");
    assert!(matches!(rig.push(None, &vec![0; 2 << 20], 2), Err(PushError::Send(SendError::RecordTooLarge { .. }))));
    rig.push(None, b"good too", 3).expect("taken");
    rig.turn_until_done();
    assert_eq!(rig.broker.values(uids[0]).len(), 2);
}

#[test]
fn records_that_are_refused_leave_nothing_behind() {
    let (mut rig, _) = Rig::new(ProducerConfig::default(), 2);
    rig.push(Some(1), b"stays open", 1).expect("taken");
    for _ in 0..1000 {
        assert!(rig.push(Some(0), &vec![0; 2 << 20], 2).is_err());
    }
    assert_eq!((rig.core.opened.len(), rig.core.held_bytes()), (1, 112 + 12 + 10));
}

#[test]
fn large_records_leave_no_large_buffers_behind() {
    let config = ProducerConfig { buffer_bytes: 4 << 20, ..ProducerConfig::default() };
    let (mut rig, _) = Rig::new(config, 100);
    for large in 0..100 {
        for partition in 0..100 {
            // A large one to another buffer each time.
            let bytes = if partition == large { 900_000 } else { 100 };
            rig.push(Some(partition), &vec![1; bytes], 0).expect("taken");
        }
        rig.turn_until_done();
    }
    let kept_bytes = rig.core.pool.kept_bytes();
    assert!(kept_bytes > 0 && kept_bytes < 1 << 20, "{kept_bytes} bytes are kept");
}

#[test]
fn a_batch_above_the_brokers_frame_limit_is_given_back() {
    let (mut rig, uids) = Rig::new(ProducerConfig::default(), 1);
    rig.push_batch(0, &vec![0; 200_000], 1);
    rig.push_batch(0, b"small", 2);
    let now = rig.now();
    rig.conns = vec![1];
    rig.core.on_connected(0, "fake:1", 100_000, 0, now);
    rig.turn_until_done();
    assert_eq!(rig.failed(), [1]);
    assert_eq!(rig.broker.values(uids[0]), [b"small"]);
}

#[test]
fn nothing_is_sent_before_the_linger_is_over() {
    let (mut rig, _) = Rig::new(ProducerConfig { linger_us: 500, ..ProducerConfig::default() }, 1);
    rig.push(None, b"value", 1).expect("taken");
    rig.now_us += 499;
    rig.turn();
    assert_eq!(rig.produce_requests(), 0);
    assert_eq!(rig.core.next_step_us(rig.now()), rig.now_us + 1);
    rig.now_us += 1;
    rig.turn();
    assert_eq!(rig.told.len(), 1);
}

#[test]
fn while_the_window_is_full_open_batches_go_on_growing() {
    let (mut rig, uids) = Rig::new(ProducerConfig { max_in_flight: 2, ..ProducerConfig::default() }, 1);
    rig.push_batch(0, b"first", 0);
    rig.turn(); // the first answer ends probing
    rig.broker.holds_acks = true;
    for tag in 1..=10 {
        rig.push(Some(0), b"value", tag).expect("taken");
        rig.turn();
    }
    assert_eq!(rig.produce_requests(), 3, "one answered and two in flight");
    rig.broker.release(2);
    rig.turn();
    rig.broker.release(1);
    rig.turn();
    assert_eq!(rig.told.len(), 11);
    assert_eq!(rig.produce_requests(), 4, "the other eight went together");
    assert_eq!(rig.broker.logs[&uids[0]].next_offset, 11);
}

#[test]
fn several_partitions_of_an_owner_share_a_request() {
    let (mut rig, uids) = Rig::new(ProducerConfig::default(), 8);
    rig.broker.holds_acks = false;
    for partition in 0..8 {
        rig.push(Some(partition), b"value", u64::from(partition)).expect("taken");
    }
    rig.turn();
    assert_eq!(rig.produce_requests(), 1);
    assert_eq!(rig.told.len(), 8);
    for uid in uids {
        assert_eq!(rig.broker.logs[&uid].next_offset, 1);
    }
}

#[test]
fn a_request_stays_below_its_limit() {
    let config = ProducerConfig { request_bytes: 3000, max_in_flight: 100, ..ProducerConfig::default() };
    let (mut rig, _) = Rig::new(config, 8);
    for partition in 0..8 {
        rig.push(Some(partition), &[1; 1000], u64::from(partition)).expect("taken");
    }
    rig.turn();
    let sizes: Vec<usize> = rig.broker.seen.iter().filter(|seen| seen.1 == Kind::Produce).map(|seen| seen.2).collect();
    assert_eq!(sizes, [2248; 4]);
    assert_eq!(rig.told.len(), 8);
}

#[test]
fn until_the_first_answer_one_batch_is_in_flight_and_refusals_break_no_order() {
    let (mut rig, uids) = Rig::new(ProducerConfig::default(), 1);
    rig.broker.log(uids[0]).refusals = [ErrorCode::NotReady, ErrorCode::UnknownPartition, ErrorCode::NotReady].into();
    for tag in 0..5 {
        rig.push_batch(0, format!("{tag}").as_bytes(), tag);
    }
    rig.turn_until_done();
    assert_eq!(rig.failed(), [0; 0]);
    assert_eq!(rig.broker.values(uids[0]), [b"0", b"1", b"2", b"3", b"4"]);
}

/// No idempotence.
fn plain() -> ProducerConfig {
    ProducerConfig { idempotent: false, ..ProducerConfig::default() }
}

/// A rig whose partition has got its first answer, so that several batches may be in flight.
fn streaming(partitions: u32) -> (Rig, Vec<u64>) {
    streaming_with(ProducerConfig::default(), partitions)
}

fn streaming_with(config: ProducerConfig, partitions: u32) -> (Rig, Vec<u64>) {
    let (mut rig, uids) = Rig::new(config, partitions);
    for partition in 0..partitions {
        rig.push_batch(partition, b"warm", 1000);
    }
    rig.turn();
    rig.told.clear();
    (rig, uids)
}

#[test]
fn without_idempotence_refusals_are_retried_unless_a_later_batch_was_taken() {
    let (mut rig, uids) = streaming_with(plain(), 1);
    rig.broker.log(uids[0]).refusals = [ErrorCode::Overloaded, ErrorCode::Overloaded, ErrorCode::NotLeader].into();
    for tag in 0..5 {
        rig.push_batch(0, format!("{tag}").as_bytes(), tag);
    }
    // The fourth and fifth are in flight as well and are let through: those refused before them must not follow them.
    rig.turn_until_done();
    assert_eq!(rig.failed(), [0, 1, 2]);
    assert_eq!(rig.broker.values(uids[0])[1..], [b"3", b"4"]);

    let (mut rig, uids) = streaming_with(plain(), 1);
    rig.broker.log(uids[0]).refusals = [ErrorCode::Overloaded; 5].into();
    for tag in 0..5 {
        rig.push_batch(0, format!("{tag}").as_bytes(), tag);
    }
    rig.turn_until_done();
    assert_eq!(rig.failed(), [0; 0]);
    assert_eq!(rig.broker.values(uids[0])[1..], [b"0", b"1", b"2", b"3", b"4"]);
}

#[test]
fn a_refusal_waits_for_the_answers_behind_it() {
    let (mut rig, uids) = streaming(1);
    rig.broker.holds_acks = true;
    rig.broker.log(uids[0]).refusals = [ErrorCode::Overloaded, ErrorCode::Overloaded].into();
    rig.push_batch(0, b"0", 0);
    rig.push_batch(0, b"1", 1);
    rig.turn();
    rig.broker.release(1);
    rig.now_us += 1_000_000;
    rig.turn();
    assert_eq!(rig.produce_requests(), 3, "the warm one and the two; no retry yet");
    rig.broker.holds_acks = false;
    rig.broker.release(1);
    rig.turn_until_done();
    assert_eq!(rig.broker.values(uids[0])[1..], [b"0", b"1"]);
}

#[test]
fn a_refusal_of_one_partition_does_not_hold_the_others() {
    let (mut rig, uids) = streaming(2);
    rig.broker.log(uids[0]).refusals = [ErrorCode::Overloaded].into();
    rig.push_batch(0, b"a", 0);
    rig.push_batch(1, b"b", 1);
    rig.turn();
    assert_eq!(rig.told.len(), 1);
    assert_eq!(rig.told[0].0, 1);
    rig.turn_until_done();
    assert_eq!(rig.told.len(), 2);
}

#[test]
fn a_refusal_for_good_is_told_and_the_next_batch_goes_on() {
    let (mut rig, uids) = streaming(1);
    rig.broker.log(uids[0]).refusals = [ErrorCode::RecordTooLarge].into();
    rig.push_batch(0, b"0", 0);
    rig.push_batch(0, b"1", 1);
    rig.turn_until_done();
    assert_eq!(rig.failed(), [0]);
    assert_eq!(rig.told[0].3.as_ref().and_then(Error::code), Some(ErrorCode::RecordTooLarge));
    assert_eq!(rig.broker.values(uids[0])[1..], [b"1"]);
}

#[test]
fn without_idempotence_a_timeout_at_the_broker_is_not_repeated() {
    let (mut rig, uids) = streaming_with(plain(), 1);
    rig.broker.log(uids[0]).refusals = [ErrorCode::TimedOut].into();
    rig.push_batch(0, b"0", 0);
    rig.turn_until_done();
    assert_eq!(rig.failed(), [0]);
    assert_eq!(rig.produce_requests(), 2);
}

#[test]
fn a_whole_request_refused_is_retried() {
    let (mut rig, uids) = streaming(1);
    rig.broker.refuse_requests.push_back((Kind::Produce, ErrorCode::Overloaded));
    rig.push_batch(0, b"0", 0);
    rig.turn_until_done();
    assert_eq!(rig.failed(), [0; 0]);
    assert_eq!(rig.broker.values(uids[0]).len(), 2);
}

#[test]
fn without_idempotence_a_connection_lost_after_sending_is_told_and_not_repeated() {
    let (mut rig, uids) = streaming_with(plain(), 1);
    rig.broker.holds_acks = true;
    rig.push_batch(0, b"0", 0);
    rig.push_batch(0, b"1", 1);
    rig.turn();
    rig.lose(0);
    rig.broker.holds_acks = false;
    rig.push_batch(0, b"2", 2);
    rig.turn_until_done();
    assert_eq!(rig.failed(), [0, 1]);
    assert!(rig.told.iter().take(2).all(|told| told.3.as_ref().is_some_and(Error::outcome_unknown)));
    assert_eq!(rig.broker.values(uids[0])[1..], [b"0", b"1", b"2"], "they had arrived, and were not sent again");
}

#[test]
fn what_was_not_written_is_sent_again_after_a_lost_connection() {
    let (mut rig, uids) = streaming(1);
    rig.push_batch(0, b"0", 0);
    rig.push_batch(0, b"1", 1);
    rig.core.step(rig.now()); // queued, not written
    assert!(!rig.core.conn(0).out().is_empty());
    rig.lose(0);
    rig.turn_until_done();
    assert_eq!(rig.failed(), [0; 0]);
    assert_eq!(rig.broker.values(uids[0])[1..], [b"0", b"1"]);
}

#[test]
fn without_idempotence_a_request_has_all_of_its_records_time() {
    let (mut rig, _) = streaming_with(plain(), 1);
    rig.broker.holds_acks = true;
    rig.push_batch(0, b"0", 0);
    rig.turn();
    assert!(!rig.core.is_silent(0, rig.now()));
    rig.now_us += TIMEOUT_US + 1_100_000;
    rig.turn();
    assert!(rig.core.is_silent(0, rig.now()));
    rig.lose(0);
    rig.turn();
    assert_eq!(rig.failed(), [0]);
    assert!(!rig.core.is_silent(0, rig.now()));
}

#[test]
fn a_batch_that_could_never_be_sent_is_told_when_its_time_is_over() {
    let (mut rig, _) = Rig::new(ProducerConfig::default(), 1);
    rig.push(Some(0), b"value", 9).expect("taken");
    for _ in 0..TIMEOUT_US / 100_000 + 5 {
        let now = rig.now();
        rig.core.step(now);
        for lane in 0..rig.core.lane_count() {
            if rig.core.wants_connection(lane, now) {
                rig.core.on_lost(lane, Error::io("cannot connect to", "fake:1", std::io::ErrorKind::ConnectionRefused.into()), now);
            }
        }
        rig.now_us += 100_000;
    }
    rig.core.drain(|delivery| rig.told.push((delivery.tag, delivery.partition, delivery.offset, delivery.error.cloned())));
    assert_eq!(rig.failed(), [9]);
    let error = rig.told[0].3.as_ref().expect("an error").to_string();
    assert!(error.contains("nothing listens there"), "{error}");
    assert_eq!(rig.core.held_bytes(), 0);
}

#[test]
fn records_for_a_deleted_topic_are_told() {
    let (mut rig, _) = streaming(1);
    rig.broker.delete("t");
    rig.push_batch(0, b"0", 0);
    let now = rig.now();
    rig.core.step(now);
    rig.carry();
    rig.carry();
    assert!(rig.core.wish.is_due(rig.now()));
    let mut view = rig.broker.view();
    view.topics.push(crate::types::TopicMetadata { error: ErrorCode::UnknownTopic, name: "t".to_string(), uid: 0, partitions: Vec::new() });
    rig.core.learn(&view, now);
    rig.turn();
    assert_eq!(rig.failed(), [0]);
    assert_eq!(rig.core.topic("t"), None);
}

#[test]
fn a_topic_created_again_gets_what_waits() {
    let (mut rig, _) = streaming(2);
    rig.broker.delete("t");
    let uids = rig.broker.create("t", 1);
    rig.push_batch(0, b"0", 0);
    rig.push_batch(1, b"1", 1);
    rig.turn_until_done();
    assert_eq!(rig.broker.values(uids[0]), [b"0"]);
    assert_eq!(rig.failed(), [1], "the new topic has no second partition");
}

#[test]
fn the_buffer_is_bounded() {
    let config = ProducerConfig { buffer_bytes: 100_000, batch_bytes: 10_000, ..ProducerConfig::default() };
    let (mut rig, _) = Rig::new(config, 1);
    rig.broker.holds_acks = true;
    let mut taken = 0;
    while rig.push(None, &[1; 1000], taken).is_ok() {
        taken += 1;
        rig.turn();
        assert!(taken < 1000);
    }
    assert!(rig.core.held_bytes() <= 100_000);
    assert!((90..100).contains(&taken), "{taken}");
    rig.broker.holds_acks = false;
    rig.broker.release(100);
    rig.turn_until_done();
    assert_eq!(rig.told.len(), taken as usize);
    rig.push(None, &[1; 1000], 1).expect("there is room again");
}

#[test]
fn level_none_is_told_when_the_bytes_are_written() {
    let (mut rig, uids) = Rig::new(ProducerConfig { level: Level::None, ..ProducerConfig::default() }, 1);
    for tag in 0..50 {
        rig.push_batch(0, b"value", tag);
        rig.turn();
    }
    assert_eq!(rig.told.len(), 50);
    assert!(rig.told.iter().all(|told| told.2.is_none() && told.3.is_none()));
    assert_eq!(rig.broker.logs[&uids[0]].next_offset, 50);
}

#[test]
fn keyless_records_stick_to_a_partition_until_its_batch_closes() {
    let (mut rig, uids) = Rig::new(ProducerConfig::default(), 4);
    for round in 0..8u64 {
        for _ in 0..10 {
            rig.push(None, b"value", round).expect("taken");
        }
        rig.turn();
    }
    for uid in uids {
        assert_eq!(rig.broker.logs[&uid].next_offset, 20);
    }
}

#[test]
fn round_robin_goes_record_by_record() {
    let (mut rig, uids) = Rig::new(ProducerConfig { partitioner: Partitioner::RoundRobin, ..ProducerConfig::default() }, 4);
    for tag in 0..40 {
        rig.push(None, b"value", tag).expect("taken");
    }
    rig.turn();
    for uid in uids {
        assert_eq!(rig.broker.logs[&uid].next_offset, 10);
    }
}

#[test]
fn timestamps_far_apart_start_a_new_batch() {
    let (mut rig, uids) = Rig::new(ProducerConfig::default(), 1);
    let now = rig.now();
    for (tag, timestamp_us) in [(0, 0), (1, 1_000_000), (2, 36 * 60 * 1_000_000)] {
        let record = Record { topic: "t", value: Some(b"v"), timestamp_us: Some(timestamp_us), tag, ..Record::default() };
        let topic = rig.core.topic("t").expect("known");
        rig.core.push(|| now, topic, &record).expect("taken");
    }
    rig.turn_until_done();
    assert_eq!(rig.broker.logs[&uids[0]].next_offset, 3);
    assert_eq!(tramline_wire::batch::Batches::new(&rig.broker.logs[&uids[0]].bytes).count(), 2);
}

#[test]
fn an_invalid_partition_is_refused() {
    let (mut rig, _) = Rig::new(ProducerConfig::default(), 2);
    let refused = rig.push(Some(2), b"v", 0);
    assert!(matches!(refused, Err(PushError::Send(SendError::Client(Error::NoSuchPartition { partition: 2, partitions: 2, .. })))));
}

fn codec() -> impl Strategy<Value = Codec> {
    prop_oneof![Just(Codec::None), Just(Codec::Lz4), Just(Codec::Zstd), Just(Codec::Snappy)]
}

fn refusal() -> impl Strategy<Value = ErrorCode> {
    prop_oneof![
        4 => Just(ErrorCode::Ok),
        1 => Just(ErrorCode::Overloaded),
        1 => Just(ErrorCode::NotReady),
        1 => Just(ErrorCode::UnknownPartition),
        1 => Just(ErrorCode::BadBatch),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the sizes, settings and refusals: every record has one fate, what was acknowledged is there at its offset,
    /// and each partition's records are in the order they were sent.
    #[test]
    fn every_record_has_one_fate_and_order_holds(
        sizes in proptest::collection::vec((0usize..700, 0u32..3), 1..200),
        batch_bytes in 200usize..2000,
        linger_us in 0u64..3000,
        max_in_flight in 1usize..6,
        compression in codec(),
        refusals in proptest::collection::vec(refusal(), 0..40),
        lose_at in 0usize..400,
    ) {
        let config = ProducerConfig { batch_bytes, linger_us, max_in_flight, compression, ..ProducerConfig::default() };
        let (mut rig, uids) = Rig::new(config, 3);
        for (at, code) in refusals.into_iter().enumerate() {
            rig.broker.log(uids[at % 3]).refusals.push_back(code);
        }
        for (tag, (size, partition)) in sizes.iter().enumerate() {
            let mut value = (tag as u64).to_le_bytes().to_vec();
            value.resize(8 + size, 7);
            rig.push(Some(*partition), &value, tag as u64).expect("taken");
            if size % 3 == 0 {
                rig.now_us += *size as u64 * 10;
                rig.turn();
            }
            if tag == lose_at && rig.core.lane_count() > 0 && rig.core.lanes[0].open {
                rig.lose(0);
            }
        }
        rig.turn_until_done();
        let mut tags: Vec<u64> = rig.told.iter().map(|told| told.0).collect();
        tags.sort_unstable();
        prop_assert_eq!(tags, (0..sizes.len() as u64).collect::<Vec<_>>());
        let mut decompressor = crate::core::codec::Decompressor::new();
        for (partition, uid) in uids.iter().enumerate() {
            let mut stored = Vec::new();
            for batch in tramline_wire::batch::Batches::new(&rig.broker.logs[uid].bytes) {
                let batch = batch.expect("good");
                let values = decompressor.decompress(batch.codec(), batch.stored_values(), batch.values_len(), 1 << 20).expect("good");
                for record in batch.records(values) {
                    let record = record.expect("good");
                    let value = record.value.expect("a value");
                    stored.push((record.offset, u64::from_le_bytes(value[..8].try_into().expect("eight"))));
                }
            }
            prop_assert!(stored.is_sorted_by_key(|stored| stored.1), "{:?}", stored);
            for told in rig.told.iter().filter(|told| told.1 == partition as u32) {
                match told.2 {
                    Some(offset) => prop_assert!(stored.contains(&(offset, told.0))),
                    None => prop_assert!(told.3.is_some()),
                }
            }
        }
    }
}
