//! The producer's core against a broker that tells offsets which do not exist.

use super::*;
use tramline_wire::frame::{self, FLAG_REPLY};
use tramline_wire::level::Level;
use tramline_wire::produce::{ProduceReplyWriter, ProduceResult};

/// Sends three records and answers with this base offset; what came of the connection, and of the records.
fn answered_with(base_offset: u64) -> (Result<(), Error>, Vec<Told>) {
    let (mut rig, uids) = Rig::new(ProducerConfig { idempotent: false, ..ProducerConfig::default() }, 1);
    for tag in 0..3 {
        rig.push(Some(0), b"v", tag).expect("taken");
    }
    let now = rig.now();
    rig.core.flush();
    rig.core.step(now);
    rig.connect();
    rig.core.fill_windows(now);
    rig.broker.holds_acks = true;
    rig.carry();
    let correlation = rig.core.lanes[0].window.front().expect("one request").correlation;
    let mut out = Vec::new();
    let start = frame::begin_frame(&mut out, Kind::Produce.as_u8(), 1, FLAG_REPLY, correlation);
    let mut writer = ProduceReplyWriter::begin(&mut out, Level::Durable, 0);
    writer.push(&mut out, &ProduceResult { partition_uid: uids[0], error: ErrorCode::Ok, base_offset, append_time_us: 0, durable_end: 0 });
    writer.finish(&mut out);
    frame::finish_frame(&mut out, start, 0).expect("small");
    let conn = rig.core.conn(0);
    conn.room()[..out.len()].copy_from_slice(&out);
    conn.received(out.len());
    let result = rig.core.on_received(0, now);
    if result.is_err() {
        rig.lose(0);
    }
    let mut told = Vec::new();
    rig.core.drain(|delivery| told.push((delivery.tag, delivery.partition, delivery.offset, delivery.error.cloned())));
    (result, told)
}

#[test]
fn an_offset_that_leaves_none_for_the_records_behind_it_is_against_the_protocol() {
    let highest = u64::MAX - 65_535;
    let (result, told) = answered_with(highest);
    assert!(result.is_ok());
    assert_eq!(told.iter().map(|told| told.2).collect::<Vec<_>>(), [Some(highest), Some(highest + 1), Some(highest + 2)]);
    for base_offset in [highest + 1, u64::MAX] {
        let (result, told) = answered_with(base_offset);
        assert!(matches!(result, Err(Error::Protocol { .. })), "{result:?}");
        assert!(told.len() == 3 && told.iter().all(|told| told.3.as_ref().is_some_and(Error::outcome_unknown)), "{told:?}");
    }
}
