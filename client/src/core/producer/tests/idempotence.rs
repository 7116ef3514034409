//! The idempotent producer against the broker's rules: lost requests, lost answers, copies that come late, restarts that lose a tail.
//!
//! A [`Stage`] holds the bytes between the two: what the producer wrote lies in a pipe per connection until a test hands it on, and goes on lying there
//! when the connection is lost, so that it may come later than what was sent over the next one. Only a restart of the broker ends that: bytes of
//! a connection to a process that is gone reach nobody.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tramline_wire::batch::Batches;
use tramline_wire::error::ErrorCode;
use tramline_wire::frame::{self, Limits, Need};
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;

use super::{Rig, Told};
use crate::config::ProducerConfig;
use crate::core::links::Lanes;
use crate::error::Error;

struct Stage {
    rig: Rig,
    uids: Vec<u64>,
    /// Written and not arrived, by connection; the last one of a lane is the live one.
    pipes: BTreeMap<u32, Vec<u8>>,
    next_tag: u64,
}

impl Stage {
    fn new(config: ProducerConfig, partitions: u32) -> Stage {
        let (rig, uids) = Rig::new(config, partitions);
        Stage { rig, uids, pipes: BTreeMap::new(), next_tag: 0 }
    }

    fn push(&mut self, partition: u32, records: u64) {
        for _ in 0..records {
            let tag = self.next_tag;
            self.next_tag += 1;
            self.rig.push(Some(partition), &tag.to_le_bytes(), tag).expect("taken");
        }
        let id = self.rig.core.topics[0].parts[partition as usize];
        self.rig.core.seal(id);
    }

    fn live(&self, lane: usize) -> Option<u32> {
        (lane < self.rig.conns.len() && self.rig.core.lanes[lane].open).then(|| self.rig.conns[lane])
    }

    /// The producer does what is due, and writes at most so many bytes.
    fn write(&mut self, limit: usize) {
        let now = self.rig.now();
        self.rig.core.step(now);
        if self.rig.core.wish.is_due(now) {
            self.rig.core.learn(&self.rig.broker.view(), now);
        }
        self.rig.connect();
        self.rig.core.fill_windows(now);
        for lane in 0..self.rig.core.lane_count() {
            if self.rig.core.is_silent(lane, now) {
                self.lose(lane, true);
            }
            let Some(conn) = self.live(lane) else { continue };
            let pipe = self.pipes.entry(conn).or_default();
            let out = self.rig.core.conn(lane).out_mut();
            let mut left = limit;
            while !out.is_empty() && left > 0 {
                let mut slices = [std::io::IoSlice::new(&[]); crate::core::IOVECS_MAX];
                let count = out.io_slices(&mut slices);
                let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).take(left).collect();
                pipe.extend_from_slice(&bytes);
                out.advance(bytes.len());
                left -= bytes.len();
            }
            self.rig.core.on_written(lane, now);
        }
    }

    /// One whole frame of a connection arrives at the broker; returns whether there was one.
    fn arrive(&mut self, conn: u32) -> bool {
        let Some(pipe) = self.pipes.get_mut(&conn) else { return false };
        let length = match frame::peek(pipe, &Limits::PROTOCOL).expect("well-formed") {
            Need::Whole(_, length) => length,
            Need::More(_) => return false,
        };
        let frame: Vec<u8> = pipe.drain(..length).collect();
        self.rig.broker.receive(conn, &frame);
        true
    }

    fn arrive_on_lane(&mut self, lane: usize) -> bool {
        self.live(lane).is_some_and(|conn| self.arrive(conn))
    }

    /// The next frame of a connection that is lost arrives all the same.
    fn arrive_late(&mut self) -> bool {
        let live: Vec<Option<u32>> = (0..self.rig.core.lane_count()).map(|lane| self.live(lane)).collect();
        let lost: Vec<u32> = self.pipes.keys().copied().filter(|conn| !live.contains(&Some(*conn))).collect();
        lost.into_iter().any(|conn| self.arrive(conn))
    }

    /// The broker's answers reach the producer.
    fn answer(&mut self, lane: usize) {
        let Some(conn) = self.live(lane) else { return };
        let bytes = self.rig.broker.take_output(conn);
        let now = self.rig.now();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let room = self.rig.core.conn(lane).room();
            let take = rest.len().min(room.len());
            room[..take].copy_from_slice(&rest[..take]);
            self.rig.core.conn(lane).received(take);
            rest = &rest[take..];
            self.rig.core.on_received(lane, now).expect("the broker speaks the protocol");
        }
        self.collect();
    }

    /// A connection is lost with the answers on it; what was written may still come, if `late`.
    fn lose(&mut self, lane: usize, late: bool) {
        let Some(conn) = self.live(lane) else { return };
        self.rig.lose(lane);
        if !late {
            self.pipes.remove(&conn);
        }
        self.collect();
    }

    fn restart(&mut self) {
        self.rig.broker.restart();
        self.pipes.clear();
        for lane in 0..self.rig.core.lane_count() {
            self.lose(lane, false);
        }
    }

    fn sync(&mut self) {
        self.rig.broker.sync();
        self.rig.broker.release(usize::MAX);
    }

    fn collect(&mut self) {
        let told = &mut self.rig.told;
        self.rig.core.drain(|delivery| told.push((delivery.tag, delivery.partition, delivery.offset, delivery.error.cloned())));
    }

    /// No connection is lost from now on.
    fn finish(&mut self) {
        for _ in 0..5000 {
            self.rig.core.flush();
            self.write(usize::MAX);
            for lane in 0..self.rig.core.lane_count() {
                while self.arrive_on_lane(lane) {}
            }
            self.sync();
            for lane in 0..self.rig.core.lane_count() {
                self.answer(lane);
            }
            self.collect();
            if self.rig.core.records_outstanding() == 0 {
                return assert_eq!(self.rig.core.held_bytes(), 0);
            }
            self.rig.now_us += 1_000;
        }
        panic!("records without a fate: {:?}", self.rig.core);
    }

    /// One quick turn in which nothing goes wrong.
    fn turn(&mut self) {
        self.write(usize::MAX);
        while self.arrive_on_lane(0) {}
        self.answer(0);
        self.write(usize::MAX);
        while self.arrive_on_lane(0) {}
        self.answer(0);
    }

    /// What is stored of a partition: offset and tag.
    fn stored(&self, partition: usize) -> Vec<(u64, u64)> {
        let mut stored = Vec::new();
        for batch in Batches::new(&self.rig.broker.logs[&self.uids[partition]].bytes) {
            let batch = batch.expect("good");
            for record in batch.records(batch.stored_values()) {
                let record = record.expect("good");
                let tag = u64::from_le_bytes(record.value.expect("a value").try_into().expect("eight bytes"));
                stored.push((record.offset, tag));
            }
        }
        stored
    }

    fn tags(&self) -> Vec<u64> {
        self.stored(0).into_iter().map(|(_, tag)| tag).collect()
    }

    /// Epoch and sequence of each batch stored in the first partition.
    fn marks(&self) -> Vec<(u16, u32)> {
        let batches = Batches::new(&self.rig.broker.logs[&self.uids[0]].bytes);
        batches.map(|batch| batch.expect("good").producer()).map(|mark| (mark.epoch, mark.sequence)).collect()
    }

    /// A stage whose first partition has taken a batch, so that several may be in flight.
    fn warm() -> Stage {
        let mut stage = Stage::new(quick(Level::Leader), 1);
        stage.push(0, 1);
        stage.turn();
        assert_eq!(stage.told(), [(0, Some(0), false)]);
        stage
    }

    /// Tag, offset, whether it failed.
    fn told(&self) -> Vec<(u64, Option<u64>, bool)> {
        self.rig.told.iter().map(|(tag, _, offset, error)| (*tag, *offset, error.is_some())).collect()
    }

    fn refuse(&mut self, codes: &[ErrorCode]) {
        let uid = self.uids[0];
        self.rig.broker.log(uid).refusals.extend(codes);
    }
}

/// Times short enough that tests get to the end of them.
fn quick(level: Level) -> ProducerConfig {
    ProducerConfig { level, delivery_timeout: std::time::Duration::from_secs(3), ..ProducerConfig::default() }
}

fn is_unknown(told: &Told) -> bool {
    told.3.as_ref().is_some_and(Error::outcome_unknown)
}

#[test]
fn the_first_batch_waits_for_an_id_which_is_asked_for_once() {
    let mut stage = Stage::new(quick(Level::Durable), 2);
    stage.rig.broker.refuse_requests.push_back((Kind::InitProducer, ErrorCode::NotReady));
    stage.push(0, 1);
    stage.push(1, 1);
    stage.turn();
    assert_eq!((stage.rig.produce_requests(), stage.rig.core.trouble().and_then(Error::code)), (0, Some(ErrorCode::NotReady)));
    stage.rig.now_us = stage.rig.core.next_step_us(stage.rig.now());
    stage.turn();
    stage.turn();
    assert_eq!(stage.told(), [(0, Some(0), false), (1, Some(0), false)]);
    let asked = stage.rig.broker.seen.iter().filter(|seen| seen.1 == Kind::InitProducer).count();
    assert_eq!((asked, stage.rig.core.trouble().is_some()), (2, false));
    assert_eq!(stage.marks(), [(0, 0)]);
}

#[test]
fn a_lost_answer_is_got_again_and_nothing_is_stored_twice() {
    let mut stage = Stage::warm();
    for _ in 0..3 {
        stage.push(0, 2);
    }
    stage.write(usize::MAX);
    while stage.arrive_on_lane(0) {}
    stage.lose(0, true);
    assert!(stage.rig.core.trouble().is_some_and(|error| matches!(error, Error::Io { .. })));
    stage.finish();
    assert_eq!(stage.told()[1..], [1, 2, 3, 4, 5, 6].map(|tag| (tag, Some(tag), false)));
    assert_eq!(stage.tags(), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(stage.rig.core.metrics.epochs_raised, 0);
    assert_eq!(stage.rig.core.metrics.batches_sent_again, 3);
}

#[test]
fn a_lost_request_is_sent_again_and_its_copy_may_come_late() {
    let mut stage = Stage::warm();
    stage.push(0, 1);
    stage.push(0, 1);
    stage.write(usize::MAX);
    stage.lose(0, true);
    stage.finish();
    while stage.arrive_late() {}
    assert_eq!(stage.tags(), [0, 1, 2]);
    assert_eq!(stage.marks(), [(0, 0), (0, 1), (0, 2)]);
}

#[test]
fn a_refused_batch_is_followed_by_those_behind_it_in_order() {
    let mut stage = Stage::warm();
    stage.refuse(&[ErrorCode::Overloaded, ErrorCode::Ok, ErrorCode::DiskFull]);
    for _ in 0..5 {
        stage.push(0, 1);
    }
    stage.finish();
    assert_eq!(stage.tags(), [0, 1, 2, 3, 4, 5]);
    assert!(stage.rig.failed().is_empty());
    assert_eq!(stage.rig.core.metrics.epochs_raised, 0, "the broker took none behind it");
}

#[test]
fn an_answer_that_says_perhaps_is_asked_again() {
    for code in [ErrorCode::TimedOut, ErrorCode::StorageFailed, ErrorCode::Internal, ErrorCode::LeadershipLost] {
        let mut stage = Stage::warm();
        let uid = stage.uids[0];
        stage.rig.broker.log(uid).stored_but.push_back(code);
        stage.refuse(&[ErrorCode::Ok, code]);
        stage.push(0, 1);
        stage.push(0, 1);
        stage.finish();
        assert_eq!(stage.tags(), [0, 1, 2], "{code:?}");
        assert!(stage.rig.failed().is_empty());
    }
}

#[test]
fn no_more_batches_of_a_partition_are_under_way_than_the_broker_keeps() {
    let mut stage = Stage::new(ProducerConfig { max_in_flight: 100, ..quick(Level::Leader) }, 1);
    stage.push(0, 1);
    stage.turn();
    for _ in 0..20 {
        stage.push(0, 1);
    }
    stage.write(usize::MAX);
    assert_eq!(stage.rig.core.parts[0].in_flight, 5);
    stage.finish();
    assert_eq!(stage.tags(), (0..21).collect::<Vec<_>>());
}

#[test]
fn after_a_batch_was_refused_for_good_the_next_ones_get_a_new_epoch() {
    let mut stage = Stage::warm();
    stage.refuse(&[ErrorCode::RecordTooLarge]);
    for _ in 0..3 {
        stage.push(0, 1);
    }
    stage.finish();
    assert_eq!(stage.rig.failed(), [1]);
    assert_eq!(stage.tags(), [0, 2, 3]);
    assert_eq!(stage.marks(), [(0, 0), (1, 0), (1, 1)]);
}

#[test]
fn a_tail_that_the_broker_lost_costs_the_new_records_nothing() {
    let mut stage = Stage::warm();
    stage.sync();
    stage.push(0, 1);
    stage.turn();
    stage.restart();
    stage.push(0, 1);
    stage.push(0, 1);
    stage.finish();
    assert!(stage.rig.failed().is_empty());
    assert_eq!(stage.tags(), [0, 2, 3], "what was acknowledged in memory only is gone");
    assert_eq!(stage.marks(), [(0, 0), (1, 0), (1, 1)]);
}

#[test]
fn a_batch_given_up_in_doubt_is_shut_out_by_the_next_epoch() {
    let mut stage = Stage::warm();
    stage.push(0, 1);
    stage.write(usize::MAX);
    stage.lose(0, true);
    stage.rig.now_us += 4_000_000;
    stage.push(0, 1); // its own time begins now
    stage.finish();
    assert_eq!(stage.rig.failed(), [1]);
    assert!(is_unknown(&stage.rig.told[1]));
    while stage.arrive_late() {}
    assert_eq!(stage.tags(), [0, 2], "the late copy was fenced");
    assert_eq!(stage.marks(), [(0, 0), (1, 0)]);
}

#[test]
fn a_batch_behind_one_given_up_is_not_sent_anew_while_both_may_come() {
    let mut stage = Stage::warm();
    stage.push(0, 1);
    stage.rig.now_us += 2_000_000;
    stage.push(0, 1);
    stage.write(usize::MAX);
    stage.lose(0, true);
    stage.rig.now_us += 1_500_000; // the first one's time is over, the second one's not
    for _ in 0..4 {
        stage.write(usize::MAX);
        while stage.arrive_on_lane(0) {}
        stage.answer(0);
    }
    assert_eq!(stage.rig.failed(), [1, 2]);
    assert!(stage.rig.told[1..].iter().all(is_unknown), "{:?}", stage.rig.told);
    while stage.arrive_late() {}
    stage.push(0, 1);
    stage.finish();
    assert_eq!(stage.tags(), [0, 1, 2, 3]);
}

#[test]
fn a_batch_that_was_always_refused_is_told_as_not_stored() {
    let mut stage = Stage::warm();
    stage.push(0, 1);
    for _ in 0..40 {
        stage.refuse(&[ErrorCode::Overloaded]);
        stage.turn();
        stage.rig.now_us += 200_000;
    }
    assert_eq!(stage.rig.failed(), [1]);
    assert!(matches!(&stage.rig.told[1].3, Some(Error::Timeout { last: Some(last), .. }) if last.code() == Some(ErrorCode::Overloaded)));
}

#[test]
fn stored_long_ago_is_stored() {
    let mut stage = Stage::warm();
    stage.refuse(&[ErrorCode::DuplicateTooOld]);
    stage.push(0, 1);
    stage.finish();
    assert_eq!(stage.told()[1..], [(1, None, false)]);
    assert_eq!(stage.rig.core.metrics.duplicates_too_old, 1);
}

#[test]
fn a_fenced_producer_goes_on_with_another_id() {
    let mut stage = Stage::warm();
    stage.refuse(&[ErrorCode::ProducerFenced]);
    stage.push(0, 1);
    stage.finish();
    assert_eq!(stage.tags(), [0, 1]);
    assert_eq!(stage.rig.broker.producer_id, 2);
}

#[test]
fn a_topic_created_again_starts_at_zero_and_gets_nothing_twice() {
    let mut stage = Stage::warm();
    stage.push(0, 1);
    stage.write(usize::MAX);
    stage.lose(0, false);
    stage.rig.broker.delete("t");
    stage.uids = stage.rig.broker.create("t", 1);
    stage.push(0, 1);
    stage.finish();
    assert_eq!(stage.rig.failed(), [1]);
    assert!(is_unknown(&stage.rig.told[1]), "it may be in the one that is gone: {:?}", stage.rig.told[1]);
    assert_eq!((stage.tags(), stage.marks()), (vec![2], vec![(0, 0)]));
}

#[test]
fn more_time_than_the_broker_remembers_is_refused() {
    let mut stage = Stage::new(quick(Level::Durable), 1);
    stage.rig.broker.expiry_ms = 5_999;
    stage.push(0, 1);
    stage.turn();
    assert_eq!(stage.rig.failed(), [0]);
    let error = stage.rig.told[0].3.as_ref().expect("an error").to_string();
    assert!(error.contains("delivery_timeout is 3s") && error.contains("2.999s"), "{error}");
    let refused = ProducerConfig { delivery_timeout: std::time::Duration::ZERO, ..ProducerConfig::default() }.check();
    assert!(refused.expect_err("no time at all").to_string().contains("between 10ms and"));
}

#[test]
fn a_silent_connection_is_given_up_long_before_the_records_are() {
    let mut stage = Stage::new(ProducerConfig::default(), 1);
    stage.push(0, 1);
    stage.write(usize::MAX);
    // Not even the id is answered.
    stage.rig.now_us += super::SILENCE_US + 1_100_000;
    stage.write(usize::MAX);
    stage.finish();
    assert_eq!(stage.told(), [(0, Some(0), false)]);
    assert_eq!(stage.rig.core.metrics.connections_lost, 1);
}

#[test]
fn an_idle_connection_whose_peer_is_gone_is_given_up_before_it_is_needed() {
    let mut stage = Stage::warm();
    stage.rig.now_us = stage.rig.core.next_step_us(stage.rig.now());
    stage.turn();
    assert!(stage.rig.broker.seen.iter().any(|seen| seen.1 == Kind::Ping));
    stage.rig.now_us = stage.rig.core.next_step_us(stage.rig.now());
    stage.write(usize::MAX); // the ping goes nowhere
    stage.rig.now_us = stage.rig.core.next_step_us(stage.rig.now());
    stage.rig.core.step(stage.rig.now());
    assert!(stage.rig.core.is_silent(0, stage.rig.now()));
    stage.lose(0, false);
    stage.push(0, 1);
    stage.finish();
    assert_eq!(stage.tags(), [0, 1]);
}

#[test]
fn an_answer_that_lay_in_the_socket_while_the_caller_was_away_counts() {
    let mut stage = Stage::warm();
    stage.push(0, 1);
    stage.write(usize::MAX);
    stage.arrive_on_lane(0);
    stage.rig.now_us += 60_000_000;
    stage.rig.core.step(stage.rig.now());
    assert!(stage.rig.core.is_silent(0, stage.rig.now()));
    stage.answer(0);
    assert!(!stage.rig.core.is_silent(0, stage.rig.now()));
    assert_eq!(stage.told()[1..], [(1, Some(1), false)]);
}

#[test]
fn a_broker_that_hangs_up_when_asked_for_an_id_is_not_asked_without_a_pause() {
    let mut stage = Stage::new(quick(Level::Durable), 1);
    stage.push(0, 1);
    for _ in 0..1000 {
        stage.write(usize::MAX);
        stage.lose(0, false);
        stage.rig.now_us += 1_000;
    }
    let opened = stage.rig.core.metrics.connections_opened;
    assert!((8..20).contains(&opened), "{opened} connections in a second");
    stage.finish();
    assert_eq!(stage.tags(), [0]);
}

#[derive(Debug, Clone)]
enum Event {
    Push(u32, u64),
    Write(usize),
    Arrive,
    ArriveAll,
    Late,
    Answer,
    Lose {
        late: bool,
    },
    /// Written and lost, and on its way.
    Cut,
    /// Written, arrived, answered.
    Round,
    Refuse(u32, ErrorCode),
    StoredBut(u32, ErrorCode),
    Sync,
    Restart,
    Time(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let unsure = prop_oneof![Just(ErrorCode::TimedOut), Just(ErrorCode::Internal)];
    let refusal = prop_oneof![
        3 => Just(ErrorCode::Overloaded),
        2 => Just(ErrorCode::NotReady),
        1 => Just(ErrorCode::TimedOut),
        1 => Just(ErrorCode::BadBatch),
        1 => Just(ErrorCode::BatchTooLarge),
        2 => Just(ErrorCode::Ok),
    ];
    prop_oneof![
        10 => (0u32..2, 1u64..4).prop_map(|(partition, records)| Event::Push(partition, records)),
        10 => prop_oneof![3 => Just(usize::MAX), 1 => 1usize..400].prop_map(Event::Write),
        4 => Just(Event::Arrive),
        4 => Just(Event::ArriveAll),
        6 => Just(Event::Late),
        8 => Just(Event::Answer),
        2 => any::<bool>().prop_map(|late| Event::Lose { late }),
        5 => Just(Event::Cut),
        6 => Just(Event::Round),
        2 => (0u32..2, refusal).prop_map(|(partition, code)| Event::Refuse(partition, code)),
        1 => (0u32..2, unsure).prop_map(|(partition, code)| Event::StoredBut(partition, code)),
        5 => Just(Event::Sync),
        1 => Just(Event::Restart),
        5 => prop_oneof![3 => 100u64..5_000, 3 => 50_000u64..250_000].prop_map(Event::Time),
    ]
}

/// Runs the events, then lets everything end well, then lets all late copies come; checks what was promised.
fn check(level: Level, events: &[Event]) -> Result<(), TestCaseError> {
    // Less time than most connections get to live, so that batches are given up in all states.
    let config = ProducerConfig { delivery_timeout: std::time::Duration::from_millis(400), ..quick(level) };
    let mut stage = Stage::new(config, 2);
    // An answer of level durable waits for the sync.
    stage.rig.broker.holds_acks = level == Level::Durable;
    let mut restarted = false;
    for event in events {
        match *event {
            Event::Push(partition, records) => stage.push(partition, records),
            Event::Write(limit) => stage.write(limit),
            Event::Arrive => drop(stage.arrive_on_lane(0)),
            Event::ArriveAll => while stage.arrive_on_lane(0) {},
            Event::Late => drop(stage.arrive_late()),
            Event::Answer => stage.answer(0),
            Event::Lose { late } => stage.lose(0, late),
            Event::Cut => {
                stage.write(usize::MAX);
                stage.lose(0, true);
            }
            Event::Round => {
                stage.write(usize::MAX);
                while stage.arrive_on_lane(0) {}
                stage.answer(0);
            }
            Event::Refuse(partition, code) => {
                let uid = stage.uids[partition as usize];
                stage.rig.broker.log(uid).refusals.push_back(code);
            }
            Event::StoredBut(partition, code) => {
                let uid = stage.uids[partition as usize];
                stage.rig.broker.log(uid).stored_but.push_back(code);
            }
            Event::Sync => stage.sync(),
            Event::Restart => {
                restarted = true;
                stage.restart();
            }
            Event::Time(us) => stage.rig.now_us += us,
        }
    }
    for log in stage.rig.broker.logs.values_mut() {
        log.refusals.clear();
        log.stored_but.clear();
    }
    stage.finish();
    while stage.arrive_late() {}

    let mut fates: Vec<u64> = stage.rig.told.iter().map(|told| told.0).collect();
    fates.sort_unstable();
    prop_assert_eq!(fates, (0..stage.next_tag).collect::<Vec<_>>(), "each record has one fate");
    for partition in 0..2 {
        let stored = stage.stored(partition);
        prop_assert!(stored.windows(2).all(|pair| pair[0].1 < pair[1].1), "stored twice or out of order: {:?}", stored);
        for told in stage.rig.told.iter().filter(|told| told.1 == partition as u32) {
            let is_stored = stored.iter().any(|(_, tag)| *tag == told.0);
            match (&told.3, told.2) {
                (None, offset) => {
                    let right = offset.is_none_or(|offset| stored.contains(&(offset, told.0)));
                    prop_assert!(is_stored && right || level == Level::Leader && restarted, "acknowledged and not there: {:?}", told);
                }
                (Some(error), _) => prop_assert!(error.outcome_unknown() || !is_stored, "told as not stored: {:?}", told),
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn nothing_is_stored_twice_lost_or_out_of_order(events in proptest::collection::vec(event(), 1..150)) {
        check(Level::Durable, &events)?;
    }

    #[test]
    fn at_level_leader_a_restart_may_lose_what_was_acknowledged_and_nothing_else(events in proptest::collection::vec(event(), 1..150)) {
        check(Level::Leader, &events)?;
    }
}
