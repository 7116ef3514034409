//! Produce round trips: one record of 1 KiB, one request in flight, busy-polling: through the client's producer as users have it, and over its bare
//! connection, with a request that is made once.

use crate::batches;
use crate::error::BenchError;
use crate::outbox::{check_produced, produce_meta};
use crate::stats::{Quantiles, histogram, quantiles};
use crate::target::Target;
use std::time::{Duration, Instant};
use tramline_client::{Client, Config, ProducerConfig, RawConn, Record};
use tramline_wire::error::{ErrorBody, ErrorCode};
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;

const REPLY_PATIENCE: Duration = Duration::from_secs(10);

/// Latency at `level` over `time` (the first fifth warms up) of a producer with its defaults (idempotent, no linger): from before `send` until the delivery is
/// in hand. Checks that each record reached the level and that offsets follow one another.
pub fn producer_round_trips(target: &Target, topic: &str, level: Level, time: Duration) -> Result<Quantiles, BenchError> {
    let config = Config { client_name: "tramline-bench".to_owned(), busy_poll: true, ..Config::new(&target.address) };
    let mut producer = Client::connect(config)?.producer(ProducerConfig { level, ..ProducerConfig::default() })?;
    let value = batches::value(7);
    let mut histogram = histogram();
    let mut expected = None;
    let start = Instant::now();
    for tag in 0u64.. {
        let sent = Instant::now();
        producer.send(&Record { topic, partition: Some(0), value: Some(&value), tag, ..Record::default() })?;
        producer.poll(REPLY_PATIENCE)?;
        let mut seen = None;
        producer.drain(|delivery| seen = Some((delivery.tag, delivery.level, delivery.offset, delivery.error.cloned())));
        let now = Instant::now();
        let Some((answered, reached, Some(offset), None)) = seen else {
            return Err(BenchError::Wrong(format!("record {tag} ended as {seen:?}")));
        };
        if answered != tag || reached < level || expected.is_some_and(|expected| expected != offset) {
            return Err(BenchError::Wrong(format!("record {tag} ended as {answered} at level {reached}, offset {offset}")));
        }
        expected = Some(offset + 1);
        if now - start > time / 5 {
            histogram.saturating_record((now - sent).as_nanos() as u64);
        }
        if now - start > time {
            break;
        }
    }
    Ok(quantiles(&histogram))
}

/// Latency at `level` over `time` (the first fifth warms up) over a bare connection. Checks that each reply reached the level and that offsets follow one another.
pub fn produce_round_trips(target: &Target, level: Level, time: Duration) -> Result<Quantiles, BenchError> {
    let config = Config { client_name: "tramline-bench".to_owned(), busy_poll: true, ..Config::new(&target.address) };
    let mut conn = RawConn::open(&target.address, &config)?;
    let batch = batches::single(7)?;
    let mut meta = Vec::new();
    produce_meta(&mut meta, level, target.uids[0], batch.len());
    let mut histogram = histogram();
    let mut expected = None;
    let start = Instant::now();
    loop {
        let sent = Instant::now();
        let correlation = conn.next_correlation();
        conn.send_frame(Kind::Produce, 0, correlation, &meta, &[&batch])?;
        let frame = conn.recv_frame(REPLY_PATIENCE)?.ok_or(BenchError::Silent("a produce request"))?;
        let now = Instant::now();
        if frame.header.is_error() {
            let body = ErrorBody::decode(frame.meta).map_err(|e| BenchError::Wrong(e.to_string()))?;
            return Err(BenchError::Refused(body.code().unwrap_or(ErrorCode::Internal), body.message.to_owned()));
        }
        let result = check_produced(&frame, level)?;
        if frame.header.correlation != correlation || expected.is_some_and(|offset| offset != result.base_offset) {
            return Err(BenchError::Wrong(format!("reply {result:?} to request {correlation}")));
        }
        expected = Some(result.base_offset + 1);
        if now - start > time / 5 {
            histogram.saturating_record((now - sent).as_nanos() as u64);
        }
        if now - start > time {
            return Ok(quantiles(&histogram));
        }
    }
}
