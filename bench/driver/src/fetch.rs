//! Fetch throughput: one streaming fetch of one partition, credit always ahead of what was read.

use crate::error::BenchError;
use crate::hot_socket::HotSocket;
use crate::stats::{Quantiles, histogram, quantiles};
use crate::target::Target;
use std::time::{Duration, Instant};
use tramline_wire::batch::Batches;
use tramline_wire::fetch::{FetchCancelRequest, FetchCreditRequest, FetchEntry, FetchMode, FetchReply, FetchRequestWriter};
use tramline_wire::frame::Frame;
use tramline_wire::kind::Kind;

/// Credit granted at first, and whenever half of it is used the half again: many frames of 128 KiB under way.
pub const CREDIT_BYTES: u32 = 8 << 20;

/// What was seen.
#[derive(Clone, Copy, Debug)]
pub struct Fetched {
    /// 10^9 bytes of batches per second.
    pub gbps: f64,
    /// Bytes of batches.
    pub bytes: u64,
    /// Time between one frame and the next.
    pub gaps: Quantiles,
}

/// Reads the target's first partition from `from` to `to` again and again for `time`, at least once. Offsets have to follow
/// one another without a hole; with `verify`, each batch's two checksums are computed.
pub fn throughput(target: &Target, from: u64, to: u64, verify: bool, time: Duration) -> Result<Fetched, BenchError> {
    let mut socket = HotSocket::connect(&target.address)?;
    let mut gaps = histogram();
    let (mut bytes, mut seconds) = (0u64, 0.0);
    let start = Instant::now();
    while bytes == 0 || start.elapsed() < time {
        let pass = Instant::now();
        bytes += read_once(&mut socket, target.uids[0], from, to, verify, &mut gaps)?;
        seconds += pass.elapsed().as_secs_f64();
    }
    Ok(Fetched { gbps: bytes as f64 / seconds / 1e9, bytes, gaps: quantiles(&gaps) })
}

fn read_once(
    socket: &mut HotSocket,
    uid: u64,
    from: u64,
    to: u64,
    verify: bool,
    gaps: &mut hdrhistogram::Histogram<u64>,
) -> Result<u64, BenchError> {
    let mut request = Vec::new();
    let stream = socket.request(&mut request, Kind::Fetch, 0, |out| {
        let mut writer = FetchRequestWriter::begin(out, FetchMode::Streaming, 500, 1, CREDIT_BYTES);
        writer.push(out, &FetchEntry { partition_uid: uid, offset: from, max_bytes: 1 << 20 });
        writer.finish(out);
    })?;
    socket.send_all(&request)?;
    let (mut next, mut bytes, mut used) = (from, 0u64, 0u32);
    let mut last = Instant::now();
    while next < to {
        let Some(frame) = socket.poll_frame()? else { continue };
        if frame.header.correlation != stream || !frame.header.has_more() {
            return Err(BenchError::Wrong("the stream ended before the partition did".to_owned()));
        }
        next = take_frame(&frame, uid, next, verify)?;
        bytes += frame.payload.len() as u64;
        used += frame.payload.len() as u32;
        let now = Instant::now();
        gaps.saturating_record((now - last).as_nanos() as u64);
        last = now;
        if used >= CREDIT_BYTES / 2 {
            request.clear();
            let credit = FetchCreditRequest { stream, credit_bytes: used };
            socket.request(&mut request, Kind::FetchCredit, 0, |out| credit.encode(out))?;
            socket.send_all(&request)?;
            used = 0;
        }
    }
    cancel(socket, stream)?;
    Ok(bytes)
}

/// Looks at one frame of a stream of `uid` at which offset `next` is due; answers the offset that is due then. With `verify`, each batch's two
/// checksums are computed.
pub fn take_frame(frame: &Frame<'_>, uid: u64, mut next: u64, verify: bool) -> Result<u64, BenchError> {
    let wrong = |e: &dyn std::fmt::Display| BenchError::Wrong(format!("a fetch reply: {e}"));
    let reply = FetchReply::decode(frame.meta).map_err(|e| wrong(&e))?;
    for (result, part) in reply.parts(frame.payload).map_err(|e| wrong(&e))? {
        if !result.error.is_ok() {
            return Err(BenchError::Refused(result.error, format!("offset {next} of the stream")));
        }
        for batch in Batches::new(part) {
            let batch = batch.map_err(|e| wrong(&e))?;
            if verify {
                batch.verify_header().map_err(|e| wrong(&e))?;
                batch.verify_body().map_err(|e| wrong(&e))?;
            }
            if batch.base_offset() > next || batch.next_offset() <= next || batch.partition_uid() != uid {
                return Err(BenchError::Wrong(format!("offset {next} was due, a batch from {} came", batch.base_offset())));
            }
            next = batch.next_offset();
        }
    }
    Ok(next)
}

/// Ends the stream and reads on until both its last reply and the cancel's reply are here.
fn cancel(socket: &mut HotSocket, stream: u64) -> Result<(), BenchError> {
    let mut request = Vec::new();
    let cancel = socket.request(&mut request, Kind::FetchCancel, 0, |out| FetchCancelRequest { stream }.encode(out))?;
    socket.send_all(&request)?;
    let (mut stream_over, mut cancel_over) = (false, false);
    while !(stream_over && cancel_over) {
        let Some(frame) = socket.poll_frame()? else { continue };
        stream_over |= frame.header.correlation == stream && !frame.header.has_more();
        cancel_over |= frame.header.correlation == cancel;
    }
    Ok(())
}
