//! Streaming fetches of the fake broker: replies as long as there is something to tell and credit left.

use tramline_wire::batch;
use tramline_wire::error::ErrorCode;
use tramline_wire::fetch::{FetchFlags, FetchMode, FetchReplyWriter, FetchRequest, FetchResult};
use tramline_wire::frame::{self, FLAG_MORE, Frame, FrameHeader};

use super::{FakeBroker, Log};

/// Payload of one fetch reply, small so that tests see many.
pub(super) const FETCH_FRAME_BYTES: usize = 4096;

#[derive(Debug)]
pub(super) struct Stream {
    pub conn: u32,
    pub header: FrameHeader,
    entries: Vec<(u64, u64)>,
    pub credit: i64,
    /// Entries that are over in this stream.
    over: Vec<u64>,
    told: bool,
}

impl FakeBroker {
    pub(super) fn fetch(&mut self, conn: u32, frame: &Frame<'_>) {
        let request = FetchRequest::decode(frame.meta).expect("decodes");
        assert_eq!(request.mode, FetchMode::Streaming);
        self.streams.push(Stream {
            conn,
            header: frame.header,
            entries: request.entries.iter().map(|entry| (entry.partition_uid, entry.offset)).collect(),
            credit: i64::from(request.credit_bytes.min(self.credit_max)),
            over: Vec::new(),
            told: false,
        });
    }

    pub(super) fn advance_streams(&mut self, conn: u32) {
        let mut streams = std::mem::take(&mut self.streams);
        for stream in streams.iter_mut().filter(|stream| stream.conn == conn) {
            while let Some(bytes) = self.next_reply(stream) {
                self.outboxes.entry(conn).or_default().extend_from_slice(&bytes);
            }
        }
        self.streams = streams;
    }

    /// One reply of a stream, if there is something to tell and credit left.
    fn next_reply(&mut self, stream: &mut Stream) -> Option<Vec<u8>> {
        if stream.credit <= 0 {
            return None;
        }
        let mut results = Vec::new();
        let mut payload = Vec::new();
        for (uid, next) in &mut stream.entries {
            if stream.over.contains(uid) {
                continue;
            }
            let result = |error, payload_bytes, log: &Log, next_offset| FetchResult {
                partition_uid: *uid,
                error,
                flags: FetchFlags::default(),
                payload_bytes,
                log_start: log.log_start,
                committed_end: log.next_offset,
                last_stable: log.next_offset,
                next_offset,
            };
            let Some(log) = self.logs.get_mut(uid) else {
                results.push(result(ErrorCode::UnknownPartition, 0, &Log::default(), 0));
                stream.over.push(*uid);
                continue;
            };
            let mut code = log.fetch_refusals.pop_front().unwrap_or(ErrorCode::Ok);
            if *next < log.log_start || *next > log.next_offset {
                code = ErrorCode::OffsetOutOfRange;
            }
            if !code.is_ok() {
                results.push(result(code, 0, log, log.next_offset));
                stream.over.push(*uid);
                continue;
            }
            let before = payload.len();
            let mut rest = log.bytes.as_slice();
            while let Some(length) = batch::BatchView::declared_len(rest) {
                let (bytes, after) = rest.split_at(length as usize);
                rest = after;
                // The header is read without its checks: tests damage bodies.
                let base = u64::from_le_bytes(bytes[80..88].try_into().expect("eight bytes"));
                let end = base + u64::from(u32::from_le_bytes(bytes[16..20].try_into().expect("four bytes"))) + 1;
                if end <= *next {
                    continue;
                }
                if !payload.is_empty() && payload.len() + bytes.len() > FETCH_FRAME_BYTES {
                    break;
                }
                payload.extend_from_slice(bytes);
                *next = end;
            }
            if payload.len() > before || !stream.told {
                results.push(result(ErrorCode::Ok, (payload.len() - before) as u32, log, *next));
            }
        }
        if results.is_empty() {
            return None;
        }
        stream.told = true;
        stream.credit -= payload.len() as i64;
        // The last reply may go beyond the credit by one frame, never more.
        self.overdrawn |= stream.credit < -(FETCH_FRAME_BYTES as i64 + 65_536);
        let mut out = Vec::new();
        let start = frame::begin_reply(&mut out, &stream.header, FLAG_MORE);
        let mut writer = FetchReplyWriter::begin(&mut out, 0);
        for result in &results {
            writer.push(&mut out, result);
        }
        writer.finish(&mut out);
        frame::finish_frame(&mut out, start, payload.len()).expect("within the limits");
        out.extend_from_slice(&payload);
        Some(out)
    }
}
