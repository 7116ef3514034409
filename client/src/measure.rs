//! What a producer costs without a network, for the benchmark (`bench/driver`), which has no other way into the core.
//!
//! Included: copying records into batches, checksums, requests, marks, the completion of each record; and what stands for the other side: one copy of
//! what is sent, as a socket would make, and an answer per request. Not included: system calls, waiting.

use std::time::Instant;

use tramline_wire::batch::BatchView;
use tramline_wire::error::ErrorCode;
use tramline_wire::frame::{self, Limits, Need};
use tramline_wire::kind::Kind;
use tramline_wire::produce::{ProduceReplyWriter, ProduceRequest, ProduceResult};
use tramline_wire::producer::InitProducerReply;

use crate::clock::Clock;
use crate::config::ProducerConfig;
use crate::core::producer::{ProducerCore, PushError};
use crate::core::{IOVECS_MAX, Now};
use crate::error::Error;
use crate::producer::Record;
use crate::types::{Metadata, Node, PartitionMetadata, TopicMetadata};

const FRAME_BYTES_MAX: u32 = 8 << 20;
const TOPIC: &str = "t";

/// Nanoseconds per record of `value`, over `records` of them (a tenth more warms up), to one partition. An error: the settings make no sense, or a record
/// did not end well.
#[doc(hidden)]
pub fn producer_ns_per_record(config: ProducerConfig, value: &[u8], records: u64) -> Result<f64, Error> {
    let mut clock = Clock::new();
    let mut core = ProducerCore::new(config, 5_000_000, FRAME_BYTES_MAX, 1)?;
    let now = clock.now();
    core.learn(&metadata(), now);
    core.on_connected(0, "measure:1", FRAME_BYTES_MAX, 0, now);
    let topic = core.topic(TOPIC).ok_or_else(|| Error::config("the topic is not known"))?;
    let mut broker = Broker::default();
    let mut start = Instant::now();
    let warm = records / 10;
    let mut failed = None;
    for tag in 0..warm + records {
        if tag == warm {
            start = Instant::now();
        }
        let record = Record { topic: TOPIC, partition: Some(0), value: Some(value), tag, ..Record::default() };
        loop {
            let pushed = core.push(|| clock.now(), topic, &record);
            let is_full = match pushed {
                Ok(false) => break,
                Ok(true) => false,
                Err(PushError::BufferFull) => true,
                Err(PushError::Send(error)) => return Err(Error::InvalidRecord { message: error.to_string() }),
            };
            let now = clock.now();
            core.step_between_polls(now);
            broker.carry(&mut core, now)?;
            core.on_received(0, now)?;
            core.drain(|delivery| failed = failed.take().or_else(|| delivery.error.cloned()));
            if !is_full {
                break;
            }
        }
    }
    let mut turns = 0;
    while core.records_outstanding() > 0 {
        let now = clock.now();
        core.flush();
        core.step(now);
        broker.carry(&mut core, now)?;
        core.on_received(0, now)?;
        core.drain(|delivery| failed = failed.take().or_else(|| delivery.error.cloned()));
        turns += 1;
        if turns > 1_000_000 {
            return Err(Error::config("the last records do not end"));
        }
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(start.elapsed().as_nanos() as f64 / records as f64),
    }
}

fn metadata() -> Metadata {
    let partition = PartitionMetadata { index: 0, uid: 1, group: 1, leader_node: 1, leader_shard: 0, term: 1 };
    Metadata {
        cluster_id: [0; 16],
        view_epoch: 1,
        nodes: vec![Node { id: 1, host: "measure".to_owned(), port: 1, shard_ports: vec![1] }],
        topics: vec![TopicMetadata { error: ErrorCode::Ok, name: TOPIC.to_owned(), uid: 1, partitions: vec![partition] }],
    }
}

/// Takes everything that is sent and says that it is stored.
#[derive(Default)]
struct Broker {
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    next_offset: u64,
}

impl Broker {
    fn carry(&mut self, core: &mut ProducerCore, now: Now) -> Result<(), Error> {
        let wrong = |message: String| Error::protocol("the producer", message);
        let conn = core.conn(0);
        self.inbox.clear();
        while !conn.out().is_empty() {
            let mut slices = [std::io::IoSlice::new(&[]); IOVECS_MAX];
            let count = conn.out().io_slices(&mut slices);
            let before = self.inbox.len();
            slices[..count].iter().for_each(|slice| self.inbox.extend_from_slice(slice));
            let taken = self.inbox.len() - before;
            conn.out_mut().advance(taken);
        }
        core.on_written(0, now);
        self.outbox.clear();
        let mut rest = self.inbox.as_slice();
        while !rest.is_empty() {
            let Need::Whole(found, len) = frame::peek(rest, &Limits::PROTOCOL).map_err(|error| wrong(error.to_string()))? else {
                return Err(wrong("half of a request".to_owned()));
            };
            let header = found.header;
            match header.kind() {
                Some(Kind::Produce) => {
                    let request = ProduceRequest::decode(found.meta).map_err(|error| wrong(error.to_string()))?;
                    let start = frame::begin_reply(&mut self.outbox, &header, 0);
                    let mut writer = ProduceReplyWriter::begin(&mut self.outbox, request.level, 0);
                    for (entry, batch) in request.batches(found.payload).map_err(|error| wrong(error.to_string()))? {
                        let count = BatchView::parse(batch).map_err(|error| wrong(error.to_string()))?.record_count();
                        let base_offset = self.next_offset;
                        self.next_offset += u64::from(count);
                        let durable_end = self.next_offset;
                        let result = ProduceResult {
                            partition_uid: entry.partition_uid,
                            error: ErrorCode::Ok,
                            base_offset,
                            append_time_us: 0,
                            durable_end,
                        };
                        writer.push(&mut self.outbox, &result);
                    }
                    writer.finish(&mut self.outbox);
                    frame::finish_frame(&mut self.outbox, start, 0).map_err(|error| wrong(error.to_string()))?;
                }
                Some(Kind::InitProducer) => {
                    let start = frame::begin_reply(&mut self.outbox, &header, 0);
                    InitProducerReply { producer_id: 1, batches_kept: 5, expiry_ms: 3_600_000 }.encode(&mut self.outbox);
                    frame::finish_frame(&mut self.outbox, start, 0).map_err(|error| wrong(error.to_string()))?;
                }
                other => return Err(wrong(format!("a request of kind {other:?}"))),
            }
            rest = &rest[len..];
        }
        let mut rest = self.outbox.as_slice();
        while !rest.is_empty() {
            let room = core.conn(0).room();
            let take = rest.len().min(room.len());
            room[..take].copy_from_slice(&rest[..take]);
            core.conn(0).received(take);
            rest = &rest[take..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_ends_well() {
        for (idempotent, bytes) in [(true, 100), (false, 100), (true, 100_000)] {
            let config = ProducerConfig { idempotent, ..ProducerConfig::default() };
            let ns = producer_ns_per_record(config, &vec![7; bytes], 2_000).expect("measured");
            assert!(ns > 1.0, "{ns} ns for {bytes} bytes");
        }
    }
}
