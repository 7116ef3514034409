//! Batches of a reply to records.
//!
//! A frame is let go only when all of it was handed out. If the caller stops in the middle, the frame stays at the front of
//! the receive buffer and is gone through again next time: positions have moved, so what was handed out is skipped like
//! everything else below the position.

use std::ops::ControlFlow;

use tramline_wire::batch::{BatchView, Batches};
use tramline_wire::error::ErrorCode;
use tramline_wire::fetch::{FetchReply, FetchResult};
use tramline_wire::frame::FrameError;

use super::{ConsumerCore, Lane, Part, RecordView, State};
use crate::config::ConsumerConfig;
use crate::core::Now;
use crate::core::bad_batch::BadBatch;
use crate::core::codec::Decompressor;
use crate::error::Error;
use crate::link::refusal;

/// What [`ConsumerCore::deliver`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Delivered {
    pub records: usize,
    /// The caller asked to stop; more may be there.
    pub stopped: bool,
}

/// What a frame was, copied out so that the connection is free again.
enum Seen {
    /// Data of the live stream, all handed out. `ended`: the stream is over. `stray`: some is for partitions that are not read any more.
    Data { payload_bytes: usize, ended: bool, stray: bool },
    /// The live stream was refused.
    Refused(Error),
    /// Late data of an old stream, or an answer nobody waits for.
    Other,
}

impl ConsumerCore {
    /// Hands out the records of all whole frames of a lane. An error means that the connection has to be given up
    /// ([`on_lost`](Self::on_lost)); records handed out before it were good.
    pub(crate) fn deliver(
        &mut self,
        lane_index: usize,
        now: Now,
        sink: &mut impl FnMut(&RecordView<'_>) -> ControlFlow<()>,
    ) -> Result<Delivered, Error> {
        let mut delivered = Delivered::default();
        loop {
            let mut failed: Vec<(usize, ErrorCode, Option<u64>)> = Vec::new();
            let ConsumerCore { lanes, parts, by_uid, topics, decompressor, config, errors, metrics, .. } = self;
            let Lane { conn, stream, address, dirty, moved, .. } = &mut lanes[lane_index];
            let (frame, length) = match conn.peek() {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(delivered),
                Err(FrameError::FrameTooLarge { bytes, max }) => {
                    // Told at once, not when it has lasted: the next connection brings the same frame.
                    errors.push_back(too_large(address, bytes, max));
                    return Err(too_large(address, bytes, max));
                }
                Err(error) => return Err(Error::protocol(address, error.to_string())),
            };
            let live = *stream == Some(frame.header.correlation);
            let seen = if !frame.header.is_reply() {
                return Err(Error::protocol(address, "it sent a request where a reply was due"));
            } else if frame.header.is_error() {
                let error = refusal("fetch", address, frame.meta);
                match (live, frame.header.correlation) {
                    (true, _) => Seen::Refused(error),
                    (false, 0) => return Err(error), // of the connection itself
                    (false, _) => Seen::Other,
                }
            } else if !live {
                Seen::Other
            } else {
                let undecodable = |error| Error::protocol(address, format!("its reply to fetch does not decode: {error}"));
                let mut stray = false;
                let reply = FetchReply::decode(frame.meta).map_err(undecodable)?;
                for (entry, payload) in reply.parts(frame.payload).map_err(undecodable)? {
                    let Some(&id) = by_uid.get(&entry.partition_uid) else {
                        // Not read any more. The stream goes on without a word as long as nothing comes for it: the
                        // commonest reason to stop reading is that there is nothing more.
                        stray |= !payload.is_empty();
                        continue;
                    };
                    let part = &mut parts[id];
                    if part.lane != lane_index || !part.is_read() {
                        stray |= part.paused && !payload.is_empty(); // as above; it is fetched again from its position
                        continue;
                    }
                    let topic = topics[part.topic as usize].name.as_str();
                    let (before, began_at) = (delivered.records, part.position);
                    let read = read_entry(part, topic, payload, decompressor, config, sink, &mut delivered.records);
                    metrics.records += (delivered.records - before) as u64;
                    if part.position > began_at {
                        *moved = true;
                        part.backoff.reset();
                    }
                    match read {
                        Ok(ControlFlow::Continue(())) => {}
                        Ok(ControlFlow::Break(())) => {
                            delivered.stopped = true;
                            return Ok(delivered);
                        }
                        Err(bad) => {
                            part.state = State::Stopped;
                            metrics.corrupt_batches += 1;
                            *dirty = true; // the stream starts again without it
                            let (topic, partition, offset) = (topic.to_string(), part.index, part.position);
                            errors.push_back(Error::Corrupt { topic, partition, offset, message: bad.message() });
                            continue;
                        }
                    }
                    if entry.error.is_ok() {
                        part.leader.worked();
                        go_on(part, &entry, topic).map_err(|message| Error::protocol(address, message))?;
                        *moved |= part.position > began_at;
                    } else {
                        failed.push((id, entry.error, resume_at(&entry)));
                    }
                }
                Seen::Data { payload_bytes: frame.payload.len(), ended: !frame.header.has_more(), stray }
            };
            conn.consume(length);
            self.lanes[lane_index].alive.on_heard(now);
            let refused = !failed.is_empty();
            for (id, code, resume) in failed {
                self.entry_failed(id, code, resume, now);
            }
            self.after_frame(lane_index, seen, refused, now);
        }
    }

    /// `refused`: a partition has its own wait now, so the stream that goes on without it needs none.
    fn after_frame(&mut self, lane_index: usize, seen: Seen, refused: bool, now: Now) {
        let lane = &mut self.lanes[lane_index];
        match seen {
            Seen::Data { payload_bytes, ended, stray } => {
                lane.used_bytes += payload_bytes as u64;
                self.metrics.bytes_received += payload_bytes as u64;
                self.metrics.replies_received += 1;
                lane.used_at_us = now.mono_us;
                lane.failing_since_us = None;
                if lane.moved {
                    lane.backoff.reset();
                }
                if ended {
                    lane.stream = None;
                }
                if ended || stray {
                    lane.start_again(refused, now);
                }
                self.grant_credit(lane_index, now);
            }
            Seen::Refused(error) => self.stream_refused(lane_index, error, now),
            Seen::Other => {}
        }
    }
}

impl Lane {
    /// The broker is the reason for another stream. When the last one moved no position, nor does it lack a partition that waits for
    /// itself, the next may end like it: without a wait, a broker that answers each fetch with nothing is asked as often as it answers.
    fn start_again(&mut self, refused: bool, now: Now) {
        if !self.moved && !refused && !self.dirty {
            self.start_at_us = now.mono_us.saturating_add(self.backoff.next_us());
        }
        self.dirty = true;
    }
}

fn too_large(address: &str, bytes: u64, max: u32) -> Error {
    Error::protocol(address, format!("it sent a frame of {bytes} bytes, at most {max} are accepted: raise frame_bytes_max"))
}

/// Takes over what an entry without an error says of its partition; a sentence when that cannot be.
#[inline]
fn go_on(part: &mut Part, entry: &FetchResult, topic: &str) -> Result<(), String> {
    // Offsets may be passed over of which there is nothing to hand out (compaction, control batches), but none that is not there yet.
    if entry.next_offset > part.position.max(entry.committed_end) {
        let FetchResult { next_offset, committed_end, .. } = entry;
        return Err(format!(
            "it goes on at offset {next_offset} of topic {topic:?} partition {}, which ends at {committed_end}",
            part.index
        ));
    }
    part.position = part.position.max(entry.next_offset);
    part.log_start = entry.log_start;
    part.committed_end = Some(entry.committed_end);
    part.failing_since_us = None;
    Ok(())
}

/// Where reading may go on, for errors that a seek can get past.
fn resume_at(entry: &FetchResult) -> Option<u64> {
    match entry.error {
        ErrorCode::OffsetOutOfRange | ErrorCode::Damaged => Some(entry.next_offset),
        _ => None,
    }
}

/// Hands out one partition's share of a reply.
fn read_entry(
    part: &mut Part,
    topic: &str,
    payload: &[u8],
    decompressor: &mut Decompressor,
    config: &ConsumerConfig,
    sink: &mut impl FnMut(&RecordView<'_>) -> ControlFlow<()>,
    records: &mut usize,
) -> Result<ControlFlow<()>, BadBatch> {
    for batch in Batches::new(payload) {
        let batch = batch?;
        if config.verify_checksums {
            batch.verify_header()?;
        }
        if batch.partition_uid() != part.uid {
            return Err(BadBatch::OtherPartition { uid: batch.partition_uid() });
        }
        if batch.next_offset() <= part.position {
            continue;
        }
        if config.verify_checksums {
            batch.verify_body()?;
        }
        if !batch.is_control() && read_batch(part, topic, &batch, decompressor, config, sink, records)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        part.position = batch.next_offset();
    }
    Ok(ControlFlow::Continue(()))
}

#[inline]
fn read_batch(
    part: &mut Part,
    topic: &str,
    batch: &BatchView<'_>,
    decompressor: &mut Decompressor,
    config: &ConsumerConfig,
    sink: &mut impl FnMut(&RecordView<'_>) -> ControlFlow<()>,
    records: &mut usize,
) -> Result<ControlFlow<()>, BadBatch> {
    let values = decompressor
        .decompress(batch.codec(), batch.stored_values(), batch.values_len(), config.batch_values_bytes_max)
        .map_err(BadBatch::Codec)?;
    let append_time_us = batch.append_time_us();
    for record in batch.records(values) {
        let record = record?;
        if record.offset < part.position {
            continue;
        }
        part.position = record.offset + 1;
        *records += 1;
        let view = RecordView {
            topic,
            partition: part.index,
            offset: record.offset,
            timestamp_us: record.timestamp_us,
            append_time_us,
            key: record.key,
            value: record.value,
            headers: record.headers,
            attributes: record.attributes,
        };
        if sink(&view).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}
