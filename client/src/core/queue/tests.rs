//! The core against a broker in memory: leases, several owners, settlements, refusals, lost connections, replies that cannot be.

mod nodes;
mod settlements;

use std::time::Duration;

use tramline_wire::batch::{BatchBuilder, Limits, NewRecord, ProducerMark};
use tramline_wire::codec::Codec;
use tramline_wire::error::ErrorCode;
use tramline_wire::kind::Kind;

use super::QueueCore;
use crate::config::{Config, QueueConsumerConfig};
use crate::core::Now;
use crate::core::codec::Compressor;
use crate::core::links::Lanes;
use crate::error::Error;
use crate::fake::queues::{QUEUE_UID, Spoil, State, VISIBILITY_MS};
use crate::fake::{FakeBroker, carry};
use crate::link::HelloInfo;
use crate::message::{LeaseToken, Message, Settle};
use crate::queue_types::FoundQueue;

struct Rig {
    core: QueueCore,
    broker: FakeBroker,
    now_us: u64,
    conns: Vec<u32>,
    next_conn: u32,
    /// Metadata that is wanted comes.
    learns: bool,
}

fn found(broker: &FakeBroker) -> FoundQueue {
    FoundQueue {
        name: "q".to_string(),
        uid: QUEUE_UID,
        topic: "t".to_string(),
        topic_uid: broker.topics[0].uid,
        visibility_timeout_ms: VISIBILITY_MS,
        is_paused: false,
        is_exclusive: false,
    }
}

impl Rig {
    fn new(partitions: u32, shards: u16) -> (Rig, Vec<u64>) {
        let mut broker = FakeBroker::new();
        broker.shard_ports = (0..shards).map(|shard| 7411 + shard).collect();
        let uids = broker.create("t", partitions);
        broker.queues.name = "q".to_string();
        let now = Now { mono_us: 1, utc_us: 0 };
        let config = QueueConsumerConfig { consumer: "me".to_string(), ..QueueConsumerConfig::default() };
        let core = QueueCore::new(config, found(&broker), &Config::default(), &broker.view(), 0, now).expect("a valid configuration");
        (Rig { core, broker, now_us: 1, conns: Vec::new(), next_conn: 1, learns: true }, uids)
    }

    fn now(&self) -> Now {
        Now { mono_us: self.now_us, utc_us: 0 }
    }

    fn put(&mut self, uid: u64, codec: Codec, values: &[&str]) {
        let mut builder = BatchBuilder::new(Limits::default());
        for value in values {
            let headers: [(&str, &[u8]); 1] = [("n", b"1")];
            let record = NewRecord { value: Some(value.as_bytes()), headers: &headers, timestamp_us: 77, ..NewRecord::default() };
            builder.push(&record).expect("fits");
        }
        let mut bytes = Vec::new();
        let mut compressor = Compressor::new(codec).expect("a compressor");
        builder.finish(&mut bytes, ProducerMark::default(), codec, |values, out| compressor.compress(values, out)).expect("compresses");
        self.broker.log(uid).append(uid, &bytes);
    }

    fn hello() -> HelloInfo {
        HelloInfo {
            protocol: 1,
            cluster_id: [7; 16],
            node: 1,
            shard: 0,
            frame_bytes_max: 0,
            keepalive_ms: 0,
            idle_timeout_ms: 0,
            nodes: Vec::new(),
        }
    }

    /// Turns until nothing moves.
    fn turn(&mut self) -> Result<(), Error> {
        loop {
            let now = self.now();
            if self.learns && Lanes::wish(&mut self.core).is_due(now) {
                Lanes::learn(&mut self.core, &self.broker.view(), now);
            }
            for lane in 0..self.core.lane_count() {
                if Lanes::wants_connection(&self.core, lane, now) {
                    self.conns.resize(self.core.lane_count(), 0);
                    self.conns[lane] = self.next_conn;
                    self.next_conn += 1;
                    Lanes::on_connected(&mut self.core, lane, "fake:1", &Rig::hello(), now);
                }
            }
            self.core.step(now);
            let mut moved = false;
            for lane in 0..self.conns.len() {
                if !self.core.lanes[lane].open {
                    continue;
                }
                moved |= carry(self.core.conn(lane), &mut self.broker, self.conns[lane]);
                self.core.on_received(lane, now)?;
            }
            if !moved {
                return Ok(());
            }
        }
    }

    fn begin(&mut self, max_messages: u32, wait_us: u64) {
        let now = self.now();
        self.core.begin_receive(max_messages, wait_us, now);
        self.turn().expect("the broker speaks the protocol");
    }

    fn take(&mut self) -> Vec<Message> {
        let now = self.now();
        let taken = self.core.take_messages(now);
        self.core.end_receive();
        taken
    }

    fn receive(&mut self, max_messages: u32) -> Vec<Message> {
        self.begin(max_messages, 0);
        self.take()
    }

    fn lose(&mut self, lane: usize) {
        self.broker.disconnect(self.conns[lane]);
        let now = self.now();
        Lanes::on_lost(&mut self.core, lane, Error::config("cut"), now);
        self.now_us += 1_000_000;
    }

    fn settle(&mut self, settlements: &[(LeaseToken, Settle)]) -> Vec<Result<(), Error>> {
        let now = self.now();
        self.core.begin_settle(settlements, now).expect("can be said");
        self.turn().expect("the broker speaks the protocol");
        assert!(self.core.is_settled(), "each has a result");
        self.core.take_results(Duration::ZERO, None)
    }
}

fn values(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8_lossy(message.value.as_deref().unwrap_or_default()).into_owned()).collect()
}

fn code(result: &Result<(), Error>) -> ErrorCode {
    result.as_ref().map_or_else(|error| error.code().expect("the broker's"), |()| ErrorCode::Ok)
}

#[test]
fn only_what_was_leased_is_handed_out_of_the_batches_that_hold_it() {
    for codec in [Codec::None, Codec::Lz4] {
        let (mut rig, uids) = Rig::new(1, 1);
        rig.put(uids[0], codec, &["a", "b", "c"]);
        rig.put(uids[0], codec, &["d"]);
        let first = rig.receive(2);
        assert_eq!(values(&first), ["a", "b"]);
        let second = rig.receive(10);
        assert_eq!(values(&second), ["c", "d"], "its batch begins with others' messages");
        let Message { partition, offset, timestamp_us, append_time_us, ref headers, deliveries, token, .. } = second[1];
        assert_eq!((partition, offset, timestamp_us, append_time_us, deliveries), (0, 3, 77, 5, 1));
        assert_eq!(headers, &[("n".to_string(), b"1".to_vec())]);
        assert_eq!((token.partition_uid, token.offset), (uids[0], 3));
        assert!(rig.receive(10).is_empty() && rig.core.is_receive_over(rig.now()));
        assert_eq!(rig.broker.message(uids[0], 0).holder, "me");
    }
}

#[test]
fn owners_are_asked_by_turns_and_only_then_wait_all_at_once() {
    let (mut rig, uids) = Rig::new(2, 2);
    rig.put(uids[0], Codec::None, &["0a", "0b"]);
    rig.put(uids[1], Codec::None, &["1a", "1b"]);
    assert_eq!(values(&rig.receive(1)), ["0a"]);
    assert_eq!(values(&rig.receive(1)), ["1a"], "the next owner's turn");
    assert_eq!(values(&rig.receive(5)), ["0b"]);
    assert_eq!(rig.broker.queues.asked, [(0, 1), (0, 1), (0, 5)], "one at a time, without a wait");
    assert_eq!(values(&rig.receive(5)), ["1b"]);
    rig.broker.queues.asked.clear();
    rig.begin(5, 10_000_000);
    assert_eq!(rig.broker.queues.asked, [(0, 5), (0, 5), (1_000, 3), (1_000, 3)], "nobody has any: both wait, each for its share");
    rig.put(uids[1], Codec::None, &["1c"]);
    rig.turn().expect("well-formed");
    assert_eq!(values(&rig.take()), ["1c"]);
    // The other one is not asked a second time while it waits, and what it leases then comes with the next call.
    assert!(rig.core.is_asking());
    rig.put(uids[0], Codec::None, &["0c"]);
    rig.turn().expect("well-formed");
    assert_eq!(values(&rig.receive(5)), ["0c"]);
}

#[test]
fn what_was_leased_between_two_calls_is_given_back_when_its_lease_is_half_over() {
    let (mut rig, uids) = Rig::new(2, 2);
    rig.begin(4, 10_000_000);
    rig.put(uids[0], Codec::None, &["0"]);
    rig.put(uids[1], Codec::None, &["1"]);
    let now = rig.now();
    // The first answer ends the call, the second one lies in the socket.
    for lane in [0, 1] {
        carry(rig.core.conn(lane), &mut rig.broker, rig.conns[lane]);
    }
    rig.core.on_received(0, now).expect("well-formed");
    assert_eq!(values(&rig.take()), ["0"]);
    rig.now_us += u64::from(VISIBILITY_MS) * 500;
    rig.begin(4, 0);
    let now = rig.now();
    assert!(rig.core.take_messages(now).is_empty());
    rig.turn().expect("well-formed");
    assert_eq!(rig.core.metrics.given_back, 1);
    assert_eq!(rig.broker.message(uids[1], 0).deliveries, 0, "a release does not count");
    assert_eq!(values(&rig.receive(4)), ["1"]);
}

#[test]
fn settlements_travel_together_and_each_has_its_result() {
    let (mut rig, uids) = Rig::new(1, 1);
    rig.put(uids[0], Codec::None, &["a", "b", "c", "d", "e"]);
    let got = rig.receive(5);
    let token = |place: usize| got[place].token;
    let nack = Settle::Nack { delay: Some(Duration::from_micros(1_001)), reason: "why".to_string() };
    let wrong = LeaseToken { lease: 999, ..token(4) };
    let results = rig.settle(&[
        (token(0), Settle::Ack),
        (token(1), nack),
        (token(2), Settle::Reject { reason: "bad".to_string() }),
        (token(3), Settle::Release),
        (wrong, Settle::Ack),
        (token(0), Settle::Ack),
    ]);
    let codes: Vec<_> = results.iter().map(code).collect();
    use ErrorCode::{Ok, UnknownLease};
    assert_eq!(codes, [Ok, Ok, Ok, Ok, UnknownLease, UnknownLease]);
    assert_eq!(rig.broker.queues.settles, [6]);
    assert_eq!((rig.broker.message(uids[0], 1).delay_ms, rig.broker.message(uids[0], 1).reason.as_str()), (2, "why"));
    assert!(rig.broker.message(uids[0], 2).dead);
    assert_eq!(rig.broker.message(uids[0], 3).deliveries, 0);
    let sentence = results[4].as_ref().expect_err("refused").to_string();
    assert!(sentence.contains(&wrong.to_string()), "{sentence}");
}

#[test]
fn an_answer_that_was_lost_is_asked_for_again_and_what_was_done_counts() {
    let (mut rig, uids) = Rig::new(1, 1);
    rig.put(uids[0], Codec::None, &["a", "b"]);
    let got = rig.receive(2);
    rig.broker.queues.swallows_answers = true;
    let now = rig.now();
    rig.core.begin_settle(&[(got[0].token, Settle::Ack), (got[1].token, Settle::Extend(Duration::from_secs(1)))], now).expect("taken");
    rig.turn().expect("well-formed");
    assert!(!rig.core.is_settled());
    rig.lose(0);
    rig.broker.queues.swallows_answers = false;
    rig.turn().expect("well-formed");
    let codes: Vec<_> = rig.core.take_results(Duration::ZERO, None).iter().map(code).collect();
    assert_eq!(codes, [ErrorCode::Ok; 2]);
    // Without a lost answer the same refusal means what it says.
    assert_eq!(code(&rig.settle(&[(got[0].token, Settle::Ack)])[0]), ErrorCode::UnknownLease);
}

#[test]
fn settlements_that_take_too_long_say_whether_they_may_be_done() {
    let (mut rig, uids) = Rig::new(1, 1);
    rig.put(uids[0], Codec::None, &["a", "b"]);
    let got = rig.receive(2);
    rig.broker.queues.settle_refusals = [ErrorCode::NotLeader, ErrorCode::Ok].into();
    let now = rig.now();
    rig.core.begin_settle(&[(got[0].token, Settle::Ack)], now).expect("taken");
    rig.turn().expect("well-formed");
    let results = rig.core.take_results(Duration::from_secs(1), None);
    assert!(matches!(&results[..], [Err(Error::Timeout { last: Some(_), .. })]), "{results:?}");
    assert_eq!(code(&results[0]), ErrorCode::NotLeader);
    rig.now_us += 1_000_000;
    rig.broker.queues.swallows_answers = true;
    let now = rig.now();
    rig.core.begin_settle(&[(got[1].token, Settle::Ack)], now).expect("taken");
    rig.turn().expect("well-formed");
    let results = rig.core.take_results(Duration::from_secs(1), None);
    assert!(matches!(&results[..], [Err(Error::OutcomeUnknown { .. })]), "{results:?}");
}

#[test]
fn a_refusal_that_may_pass_waits_and_one_that_will_not_is_told() {
    let (mut rig, uids) = Rig::new(1, 1);
    rig.put(uids[0], Codec::None, &["a"]);
    rig.broker.queues.refusals.insert(uids[0], [ErrorCode::NotLeader, ErrorCode::Damaged].into());
    assert!(rig.receive(1).is_empty() && rig.core.take_error().is_none());
    rig.now_us += 1_000_000;
    assert!(rig.receive(1).is_empty());
    assert_eq!(rig.core.take_error().and_then(|error| error.code()), Some(ErrorCode::Damaged));
    rig.now_us += 1_000_000;
    assert_eq!(values(&rig.receive(1)), ["a"]);
    rig.broker.refuse_requests.push_back((Kind::Receive, ErrorCode::InvalidRequest));
    assert!(rig.receive(1).is_empty());
    assert_eq!(rig.core.take_error().and_then(|error| error.code()), Some(ErrorCode::InvalidRequest));
    assert!(rig.core.take_error().is_none());
}

#[test]
fn a_queue_that_is_deleted_is_told_by_every_call() {
    let (mut rig, uids) = Rig::new(1, 1);
    rig.begin(1, 10_000_000);
    rig.broker.queues.name.clear();
    rig.turn().expect("well-formed");
    for _ in 0..2 {
        assert_eq!(rig.core.take_error().and_then(|error| error.code()), Some(ErrorCode::QueueDeleted));
    }
    // So is one whose topic is gone, or is another one of the same name.
    let (mut rig, _) = Rig::new(1, 1);
    rig.broker.delete("t");
    rig.broker.create("t", 1);
    rig.now_us += 60_000_000;
    rig.turn().expect("well-formed");
    assert_eq!(rig.core.take_error().and_then(|error| error.code()), Some(ErrorCode::QueueDeleted));
    let stranger = LeaseToken { partition_uid: uids[0] + 77, offset: 0, lease: 1 };
    let results = rig.settle(&[(stranger, Settle::Ack)]);
    assert!(results[0].as_ref().expect_err("refused").to_string().contains("another queue's"), "{results:?}");
}

#[test]
fn partitions_that_the_topic_gets_later_are_received_from() {
    let (mut rig, _) = Rig::new(1, 1);
    assert!(rig.receive(1).is_empty());
    let uid = 5_000;
    rig.broker.topics[0].partitions.push(uid);
    rig.broker.logs.insert(uid, Default::default());
    rig.broker.view_epoch += 1;
    rig.put(uid, Codec::None, &["new"]);
    rig.now_us += 30_000_000;
    assert_eq!(values(&rig.receive(1)), ["new"]);
}

#[test]
fn a_connection_that_was_closed_meanwhile_is_opened_again_within_the_call() {
    let (mut rig, uids) = Rig::new(1, 1);
    assert!(rig.receive(1).is_empty());
    rig.put(uids[0], Codec::None, &["a"]);
    let now = rig.now();
    rig.core.begin_receive(1, 0, now);
    rig.lose(0);
    assert!(!rig.core.is_receive_over(rig.now()), "the owner has not had its say");
    rig.turn().expect("well-formed");
    assert_eq!(values(&rig.take()), ["a"]);
    // One that cannot be opened has had it.
    rig.begin(1, 0);
    for _ in 0..2 {
        rig.lose(0);
    }
    assert!(rig.core.is_receive_over(rig.now()));
}

#[test]
fn an_answer_that_does_not_come_is_overdue_after_its_wait() {
    let (mut rig, _) = Rig::new(1, 1);
    rig.begin(1, 60_000_000);
    assert!(rig.core.is_asking());
    rig.now_us += 30_000_000 + 5_000_000 - 1_000;
    assert!(!rig.core.is_silent(0, rig.now()));
    rig.now_us += 2_000;
    assert!(rig.core.is_silent(0, rig.now()));
}

#[test]
fn an_owner_that_answers_at_once_although_it_should_wait_is_not_asked_as_often() {
    let (mut rig, _) = Rig::new(1, 1);
    let now = rig.now();
    rig.core.begin_receive(1, 60_000_000, now);
    for _ in 0..100 {
        rig.turn().expect("well-formed");
        rig.broker.queues.end_waits();
        rig.now_us += 1_000;
    }
    assert!(rig.broker.queues.asked.len() < 12, "{:?}", rig.broker.queues.asked);
}

#[test]
fn a_throttled_owner_is_left_alone_for_so_long() {
    let (mut rig, uids) = Rig::new(1, 1);
    rig.put(uids[0], Codec::None, &["a", "b"]);
    rig.broker.queues.throttle_ms = 500;
    assert_eq!(values(&rig.receive(1)), ["a"]);
    rig.now_us += 499_000;
    rig.begin(1, 10_000_000);
    assert!(rig.take().is_empty());
    rig.now_us += 2_000;
    assert_eq!(values(&rig.receive(1)), ["b"]);
}

/// Replies whose bytes are changed on their way: the fixed part of the only entry begins behind throttle and count.
#[test]
fn a_reply_that_cannot_be_is_not_believed() {
    const ENTRY: usize = 8;
    const DELIVERIES: usize = ENTRY + 16 + 4;
    let cases: [(Spoil, &str); 7] = [
        (|meta, _| meta[ENTRY] ^= 0x40, "was not asked for"),
        (|meta, _| meta[DELIVERIES + 24] = meta[DELIVERIES], "twice"),
        (|meta, _| meta[DELIVERIES + 8..DELIVERIES + 16].fill(0), "without a lease"),
        (|meta, _| meta[DELIVERIES + 16..DELIVERIES + 20].fill(0), "without a lease or a count"),
        (|_, payload| payload.push(0), "does not decode"),
        (|meta, _| meta.push(0), "does not decode"),
        (|meta, _| meta[ENTRY + 12] += 1, "does not decode"),
    ];
    for (number, (spoil, sentence)) in cases.into_iter().enumerate() {
        let (mut rig, uids) = Rig::new(1, 1);
        rig.put(uids[0], Codec::None, &["a", "b"]);
        rig.broker.queues.spoil = Some(spoil);
        let now = rig.now();
        rig.core.begin_receive(2, 0, now);
        let error = rig.turn().expect_err("refused").to_string();
        assert!(error.contains(sentence), "case {number}: {error}");
        assert!(rig.take().is_empty(), "case {number}");
    }
}

#[test]
fn a_batch_that_is_wrong_is_told_and_the_others_are_handed_out() {
    let cases: [(Spoil, &str); 4] = [
        (|_, payload| *payload.last_mut().expect("a byte") ^= 1, "checksum"),
        (|_, payload| payload[105] ^= 1, "checksum"),
        (|meta, _| meta[8 + 16 + 4 + 24] = 9, "no batch of the reply holds offset 9"),
        (|meta, _| meta[8 + 16 + 4 + 24 + 7] = 1, "no batch of the reply holds offset"),
    ];
    for (number, (spoil, sentence)) in cases.into_iter().enumerate() {
        let (mut rig, uids) = Rig::new(1, 1);
        rig.put(uids[0], Codec::None, &["a", "b"]);
        rig.broker.queues.spoil = Some(spoil);
        rig.begin(2, 0);
        let error = rig.core.take_error().expect("told").to_string();
        assert!(error.contains(sentence) && error.contains("not delivered"), "case {number}: {error}");
        assert_eq!(values(&rig.take()), if number < 2 { vec![] } else { vec!["a"] }, "case {number}");
    }
}

#[test]
fn what_is_answered_again_forgets_that_it_was_refused() {
    let (mut rig, uids) = Rig::new(2, 1);
    let wait_us = |rig: &Rig, id: usize| rig.core.parts[id].not_before_us.saturating_sub(rig.now_us);
    let refuse = |rig: &mut Rig, times: usize| {
        for _ in 0..times {
            rig.broker.queues.refusals.entry(uids[0]).or_default().push_back(ErrorCode::NotLeader);
            rig.now_us += 2_000_000;
            assert!(rig.receive(1).is_empty());
        }
    };
    refuse(&mut rig, 1);
    let first_us = wait_us(&rig, 0);
    refuse(&mut rig, 8);
    let last_us = wait_us(&rig, 0);
    assert!(last_us > 4 * first_us && rig.core.parts[0].failing_since_us.is_some(), "{first_us} {last_us}");
    // Nothing is there, but it is answered.
    rig.now_us += 2_000_000;
    assert!(rig.receive(1).is_empty());
    assert_eq!((rig.core.parts[0].failing_since_us, rig.core.parts[0].refusal), (None, ErrorCode::Ok));
    refuse(&mut rig, 1);
    assert!(wait_us(&rig, 0) < last_us / 2, "it waits as after a first refusal");
    assert_eq!(rig.core.parts[1].failing_since_us, None);
    // A settlement that is done says the same.
    let token = {
        rig.now_us += 2_000_000;
        rig.put(uids[0], Codec::None, &["a"]);
        rig.receive(1)[0].token
    };
    refuse(&mut rig, 1);
    assert!(rig.core.parts[0].failing_since_us.is_some());
    rig.now_us += 2_000_000;
    assert_eq!(code(&rig.settle(&[(token, Settle::Ack)])[0]), ErrorCode::Ok);
    assert_eq!((rig.core.parts[0].failing_since_us, rig.core.parts[0].refusal), (None, ErrorCode::Ok));
}

#[test]
fn a_partition_that_refuses_many_settlements_has_refused_once() {
    let (mut rig, uids) = Rig::new(1, 1);
    rig.put(uids[0], Codec::None, &["a"; 20]);
    let got = rig.receive(20);
    rig.broker.queues.settle_refusals = [vec![ErrorCode::Ok], vec![ErrorCode::NotLeader; 19]].concat().into();
    let now = rig.now();
    let settlements: Vec<_> = got.iter().map(|message| (message.token, Settle::Ack)).collect();
    rig.core.begin_settle(&settlements, now).expect("taken");
    rig.turn().expect("well-formed");
    assert_eq!((rig.core.metrics.refusals, rig.core.metrics.settled), (1, 1));
    assert!(rig.core.parts[0].not_before_us - rig.now_us < 100_000, "as after a first refusal");
    rig.now_us += 100_000;
    rig.turn().expect("well-formed");
    assert!(rig.core.is_settled());
}

#[test]
fn settlements_that_wait_have_a_bound() {
    let (mut rig, uids) = Rig::new(1, 1);
    let token = |offset| LeaseToken { partition_uid: uids[0], offset, lease: 1 };
    let many: Vec<_> = (0..super::settle::WAITING_MAX as u64).map(|offset| (token(offset), Settle::Ack)).collect();
    let now = rig.now();
    rig.core.begin_settle(&many, now).expect("room");
    let error = rig.core.begin_settle(&many[..1], now).expect_err("full").to_string();
    assert!(error.contains("65536 settlements wait") && error.contains("settle fewer"), "{error}");
    assert_eq!(rig.core.take_results(Duration::ZERO, None).len(), many.len(), "those of the call before have their ends");
    rig.core.begin_settle(&many[..1], now).expect("room again");
}

#[test]
fn more_partitions_than_can_be_named_at_once_have_their_turns() {
    let (mut rig, uids) = Rig::new(600, 1);
    rig.put(uids[0], Codec::None, &["0"; 9]);
    rig.put(uids[300], Codec::None, &["300"]);
    rig.put(uids[599], Codec::None, &["599"]);
    // All are named, and one is refused: the others are more than can be named without it.
    rig.broker.queues.refusals.insert(uids[42], [ErrorCode::NotLeader].into());
    assert_eq!(values(&rig.receive(1)), ["0"]);
    assert_eq!(rig.broker.queues.named, [600]);
    let got = [values(&rig.receive(1)), values(&rig.receive(1)), values(&rig.receive(1))].concat();
    assert_eq!((got.join(" ").as_str(), &rig.broker.queues.named[1..]), ("0 300 599", &[256, 256, 256][..]));
    // One call goes through all of them, without a wait first, and then by short turns.
    rig.broker.queues.waits_by_hand = true;
    for uid in [uids[0], uids[300], uids[599]] {
        let states = (0..9).map(|offset| (uid, offset));
        rig.broker.queues.messages.extend(states.map(|at| (at, State { settled: true, ..State::default() })));
    }
    rig.broker.queues.asked.clear();
    rig.begin(1, 60_000_000);
    assert_eq!(rig.broker.queues.asked, [(0, 1), (0, 1), (0, 1), (100, 1)]);
    assert!(!rig.core.is_receive_over(rig.now()));
    rig.broker.queues.end_waits();
    rig.now_us += 100_000;
    rig.turn().expect("well-formed");
    // The partition that was refused is asked again by now, so all of them are.
    assert_eq!((rig.broker.queues.named.last(), rig.broker.queues.asked.last()), (Some(&600), Some(&(30_000, 1))));
}

#[test]
fn an_owner_that_has_more_partitions_than_are_known_is_asked_for_few_until_they_are() {
    let (mut rig, uids) = Rig::new(300, 1);
    rig.learns = false;
    let uid = 5_000;
    rig.broker.topics[0].partitions.push(uid);
    rig.broker.logs.insert(uid, Default::default());
    rig.broker.view_epoch += 1;
    rig.put(uids[299], Codec::None, &["a"]);
    assert_eq!(values(&rig.receive(1)), ["a"]);
    assert_eq!(rig.broker.queues.named, [300, 256, 256]);
    assert!(rig.core.take_error().is_none(), "nothing is wrong");
    rig.learns = true;
    rig.put(uid, Codec::None, &["new"]);
    assert_eq!(values(&rig.receive(1)), ["new"]);
    assert_eq!(rig.broker.queues.named.last(), Some(&301));
}
