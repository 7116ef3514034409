//! Produce round trips: one record of 1 KiB, one request in flight, the client library's busy-polling connection.

use crate::batches;
use crate::error::BenchError;
use crate::stats::{Quantiles, histogram, quantiles};
use crate::target::Target;
use std::time::{Duration, Instant};
use tramline_client::{Config, RawConn};
use tramline_wire::error::{ErrorBody, ErrorCode};
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::produce::{ProduceEntry, ProduceReply, ProduceRequestWriter};

const REPLY_PATIENCE: Duration = Duration::from_secs(10);

/// Latency at `level` over `time` (the first fifth warms up). Checks that each reply reached the level and that offsets follow one another.
pub fn produce_round_trips(target: &Target, level: Level, time: Duration) -> Result<Quantiles, BenchError> {
    let config = Config { client_name: "tramline-bench".to_owned(), busy_poll: true, ..Config::new(&target.address) };
    let mut conn = RawConn::open(&target.address, &config)?;
    let batch = batches::single(7)?;
    let uid = target.uids[0];
    let mut meta = Vec::new();
    let mut writer = ProduceRequestWriter::begin(&mut meta, level, 10_000);
    writer.push(&mut meta, &ProduceEntry { partition_uid: uid, batch_len: batch.len() as u32 });
    writer.finish(&mut meta);
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
        let reply = ProduceReply::decode(frame.meta).map_err(|e| BenchError::Wrong(e.to_string()))?;
        let result = reply.results.iter().next().ok_or_else(|| BenchError::Wrong("a produce reply without a result".to_owned()))?;
        if !result.error.is_ok() {
            return Err(BenchError::Refused(result.error, "a record of the round trip".to_owned()));
        }
        if frame.header.correlation != correlation
            || reply.level_reached < level
            || expected.is_some_and(|offset| offset != result.base_offset)
        {
            return Err(BenchError::Wrong(format!("reply {result:?} at level {} to request {correlation}", reply.level_reached)));
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
