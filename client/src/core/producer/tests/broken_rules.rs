//! The producer against peers that break the protocol's rules: what they say is not believed, and costs one connection at most.

use tramline_wire::error::ErrorCode;
use tramline_wire::frame::{FLAG_REPLY, write_error};
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::produce::{ProduceReplyWriter, ProduceResult};
use tramline_wire::producer::InitProducerReply;

use super::super::identity::Identity;
use super::{Rig, plain};
use crate::config::ProducerConfig;
use crate::error::Error;
use crate::fake::frame_of;

impl Rig {
    /// Connects, and queues what is due; nothing of it is written.
    fn queue(&mut self) {
        let now = self.now();
        self.core.step(now);
        self.connect();
        self.core.fill_windows(now);
    }

    /// The request of this correlation is refused.
    fn refuse_early(&mut self, correlation: u64) -> Result<(), Error> {
        let kind = Kind::Produce;
        let mut bytes = Vec::new();
        write_error(&mut bytes, kind.as_u8(), kind.version(), correlation, ErrorCode::Overloaded, "not now", "");
        self.receive(0, &bytes)
    }

    /// A reply that the broker did not write arrives.
    fn hear(&mut self, lane: usize, kind: Kind, correlation: u64, meta: impl FnOnce(&mut Vec<u8>)) -> Result<(), Error> {
        let bytes = frame_of(kind, FLAG_REPLY, correlation, &[], meta);
        self.receive(lane, &bytes)
    }

    fn receive(&mut self, lane: usize, bytes: &[u8]) -> Result<(), Error> {
        let now = self.now();
        let conn = self.core.conn(lane);
        conn.room()[..bytes.len()].copy_from_slice(bytes);
        conn.received(bytes.len());
        self.core.on_received(lane, now)
    }
}

/// The results of a request at level durable.
fn results(of: &[ProduceResult], level: Level) -> impl FnOnce(&mut Vec<u8>) {
    throttled(of, level, 0)
}

fn throttled(of: &[ProduceResult], level: Level, throttle_ms: u32) -> impl FnOnce(&mut Vec<u8>) {
    move |out: &mut Vec<u8>| {
        let mut writer = ProduceReplyWriter::begin(out, level, throttle_ms);
        of.iter().for_each(|result| writer.push(out, result));
        writer.finish(out);
    }
}

fn stored_at(partition_uid: u64, base_offset: u64) -> ProduceResult {
    ProduceResult { partition_uid, error: ErrorCode::Ok, base_offset, append_time_us: 5, durable_end: base_offset + 1 }
}

/// A rig with one batch written and not answered, and the correlation of its request. The broker has it.
fn written(config: ProducerConfig) -> (Rig, u64, u64) {
    let (mut rig, uids) = Rig::new(config, 1);
    rig.broker.holds_acks = true;
    rig.push_batch(0, b"v", 1);
    rig.turn();
    rig.broker.holds_acks = false;
    let correlation = rig.core.lanes[0].window[0].correlation;
    (rig, uids[0], correlation)
}

fn is_protocol(result: &Result<(), Error>) -> bool {
    matches!(result, Err(Error::Protocol { .. }))
}

#[test]
fn an_id_that_is_none_costs_its_connection_and_no_record() {
    for (producer_id, batches_kept) in [(0, 5), (7, 0)] {
        let (mut rig, uids) = Rig::new(ProducerConfig::default(), 1);
        rig.push_batch(0, b"v", 1);
        rig.queue();
        let Identity::Asked { correlation, .. } = rig.core.identity else { panic!("not asked: {:?}", rig.core.identity) };
        let reply = InitProducerReply { producer_id, batches_kept, expiry_ms: 3_600_000 };
        let heard = rig.hear(0, Kind::InitProducer, correlation, |out| reply.encode(out));
        assert!(is_protocol(&heard), "{heard:?}");
        rig.lose(0);
        rig.turn_until_done();
        assert_eq!((rig.failed().len(), rig.broker.values(uids[0]).len()), (0, 1));
    }
}

#[test]
fn a_broker_that_misses_something_for_ever_gets_the_delivery_timeout_and_no_storm() {
    for code in [ErrorCode::OutOfSequence, ErrorCode::ProducerFenced] {
        let config = ProducerConfig { delivery_timeout: std::time::Duration::from_secs(1), ..ProducerConfig::default() };
        let (mut rig, uids) = Rig::new(config, 1);
        rig.push_batch(0, b"v", 1);
        rig.broker.log(uids[0]).refusals.extend([code; 5_000]);
        while rig.core.records_outstanding() > 0 {
            assert!(rig.now_us < 1_500_000, "no fate: {:?}", rig.core.metrics);
            // One turn as the pump does it, and a millisecond of round trip.
            rig.queue();
            rig.carry();
            rig.core.fill_windows(rig.now());
            rig.now_us += 1_000;
        }
        rig.turn();
        assert!(matches!(&rig.told[0].3, Some(Error::Timeout { last: Some(last), .. }) if last.code() == Some(code)), "{:?}", rig.told);
        assert!(rig.core.metrics.requests_sent < 40, "{} requests in a second", rig.core.metrics.requests_sent);
    }
}

#[test]
fn an_answer_about_another_partition_is_none() {
    for answer in [vec![stored_at(42, 0)], vec![], vec![stored_at(42, 0); 2]] {
        let (mut rig, uid, correlation) = written(ProducerConfig::default());
        let heard = rig.hear(0, Kind::Produce, correlation, results(&answer, Level::Durable));
        assert!(is_protocol(&heard), "{heard:?}");
        rig.lose(0);
        rig.turn_until_done();
        assert_eq!((rig.told[0].2, rig.broker.values(uid).len()), (Some(0), 1), "sent again, and stored once");

        let (mut rig, _, correlation) = written(plain());
        assert!(is_protocol(&rig.hear(0, Kind::Produce, correlation, results(&answer, Level::Durable))));
        rig.lose(0);
        rig.turn_until_done();
        assert!(rig.told[0].3.as_ref().is_some_and(Error::outcome_unknown), "{:?}", rig.told);
    }
}

#[test]
fn an_acknowledgement_below_the_level_that_was_asked_for_leaves_the_outcome_unknown() {
    let (mut rig, uid, correlation) = written(ProducerConfig::default());
    let answer = [stored_at(uid, 0)];
    rig.hear(0, Kind::Produce, correlation, results(&answer, Level::Leader)).expect("within the protocol");
    assert!(rig.core.trouble().is_some_and(|error| error.to_string().contains("level leader, durable was asked for")));
    rig.turn_until_done();
    assert_eq!((rig.told[0].2, rig.broker.values(uid).len()), (Some(0), 1), "asked again");

    let (mut rig, uid, correlation) = written(plain());
    let answer = [stored_at(uid, 0)];
    rig.hear(0, Kind::Produce, correlation, results(&answer, Level::None)).expect("within the protocol");
    rig.turn_until_done();
    assert!(rig.told[0].3.as_ref().is_some_and(Error::outcome_unknown), "{:?}", rig.told);
}

#[test]
fn an_answer_to_what_was_not_sent_whole_ends_the_connection() {
    for answered_ok in [true, false] {
        let (mut rig, uids) = Rig::new(plain(), 1);
        rig.push_batch(0, &[1; 60_000], 1);
        rig.queue();
        let correlation = rig.core.lanes[0].window[0].correlation;
        let heard = match answered_ok {
            true => rig.hear(0, Kind::Produce, correlation, results(&[stored_at(uids[0], 0)], Level::Durable)),
            false => rig.refuse_early(correlation),
        };
        assert!(is_protocol(&heard), "{heard:?}");
        rig.lose(0);
        rig.turn_until_done();
        assert_eq!((rig.failed().len(), rig.broker.values(uids[0]).len()), (0, 1), "nothing of it can be stored, so it is sent again");
    }
}

#[test]
fn a_pause_of_seven_weeks_is_cut_to_what_the_records_can_bear_and_told() {
    for (delivery_timeout_ms, longest_us) in [(700, 350_000), (60_000, 10_000_000)] {
        let delivery_timeout = std::time::Duration::from_millis(delivery_timeout_ms);
        let (mut rig, uid, correlation) = written(ProducerConfig { delivery_timeout, ..ProducerConfig::default() });
        let answer = [stored_at(uid, 0)];
        rig.hear(0, Kind::Produce, correlation, throttled(&answer, Level::Durable, u32::MAX)).expect("within the protocol");
        let from_us = rig.now_us;
        rig.push_batch(0, b"next", 2);
        rig.turn();
        assert!(rig.core.trouble().is_some_and(|error| error.to_string().contains("a pause of 4294967295 ms")));
        assert_eq!(rig.core.metrics.throttled_us, longest_us);
        rig.now_us = from_us + longest_us - 1;
        rig.turn();
        assert_eq!(rig.produce_requests(), 1);
        rig.now_us += 1;
        rig.push_batch(0, b"and next", 3);
        rig.turn();
        assert_eq!((rig.failed().len(), rig.told.len(), rig.core.trouble().is_some()), (0, 3, false));
    }
}

#[test]
fn owners_without_end_cost_no_lanes_without_end() {
    let (mut rig, _) = Rig::new(ProducerConfig::default(), 2);
    for round in 0..500u32 {
        let mut view = rig.broker.view();
        view.view_epoch = 10 + u64::from(round);
        for (partition, node) in view.topics[0].partitions.iter_mut().zip([round, 1000 + round]) {
            (partition.leader_node, partition.term) = (node, 10 + u64::from(round));
        }
        let now = rig.now();
        rig.core.learn(&view, now);
    }
    assert!(rig.core.lanes.len() <= 4, "{} lanes for two partitions", rig.core.lanes.len());
}
