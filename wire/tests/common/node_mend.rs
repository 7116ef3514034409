//! Makes sums and lengths of damaged bytes right, so that what is checked behind them is reached: random bytes behind checksums find nothing.

use tramline_wire::batch::{Batches, LeaderStamp, mark_producer, stamp_leader};
use tramline_wire::frame::finish_frame;
use tramline_wire::node::*;

/// Most bytes that a payload is made longer to.
const PAYLOAD_BYTES_MAX: u64 = 64 << 10;
/// Where the heads of an entry begin in a FetchReply, and the bytes of a head.
const FETCHED_HEAD: usize = 16;
const HEAD_BYTES: usize = 24;

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn number(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
}

/// Mends both sums of all batches that parse; those of an entry get its term.
fn batches(bytes: &mut [u8], term: Option<u64>) {
    let mut at = 0;
    while let Some(Ok(view)) = Batches::new(&bytes[at..]).next() {
        let (len, producer) = (view.len(), view.producer());
        let stamp = LeaderStamp {
            partition_uid: view.partition_uid(),
            base_offset: view.base_offset(),
            term: term.unwrap_or(view.term()),
            append_time_us: view.append_time_us(),
        };
        let batch = &mut bytes[at..at + len];
        mark_producer(batch, producer);
        stamp_leader(batch, &stamp);
        at += len;
    }
}

/// Mends the entry whose head stands at `at` of the meta and whose bytes begin with the payload; returns how many these are.
fn entry(meta: &mut [u8], at: usize, payload: &mut [u8]) -> usize {
    let term = u64::from_le_bytes(meta[at..at + 8].try_into().expect("8 bytes"));
    let (data, control) = (number(meta, at + 8), number(meta, at + 12));
    let data = data.min(payload.len());
    batches(&mut payload[..data], Some(term));
    let control = control.min(payload.len() - data);
    let crc = crc32c::crc32c(&payload[data..data + control]);
    put(meta, at + 16, crc);
    data + control
}

/// Makes the payload as long as the heads say.
fn resize(payload: &mut Vec<u8>, bytes: u64) {
    payload.resize(bytes.min(PAYLOAD_BYTES_MAX) as usize, 0);
}

/// Mends what a body of this kind says of its payload, and the payload's own sums. Bytes that do not decode stay as they are.
pub fn sums(kind: Kind, meta: &mut [u8], payload: &mut Vec<u8>) {
    match kind {
        Kind::Append => {
            let Ok(body) = Append::decode(meta) else { return };
            let shares: Vec<usize> = body.groups.iter().map(|share| share.entries.len()).collect();
            resize(payload, body.groups.iter().flat_map(|share| share.entries).map(|head| head.payload_bytes()).sum());
            let (mut at, mut from) = (12, 0);
            for heads in shares {
                at += 44;
                for _ in 0..heads {
                    from += entry(meta, at, &mut payload[from..]);
                    at += HEAD_BYTES;
                }
            }
        }
        Kind::FetchReply => {
            let Ok(body) = FetchReply::decode(meta) else { return };
            match body.heads.iter().next() {
                Some(head) => {
                    resize(payload, head.payload_bytes());
                    entry(meta, FETCHED_HEAD, payload);
                }
                None => batches(payload, None),
            }
        }
        Kind::Piece if meta.len() == 20 => put(meta, 16, crc32c::crc32c(payload)),
        Kind::Piece => batches(payload, None),
        Kind::Call | Kind::CallReply if meta.len() >= 16 => put(meta, 12, crc32c::crc32c(payload)),
        _ => {}
    }
}

/// These as the first frame of a connection.
pub fn frame(kind: Kind, meta: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let start = begin(&mut out, kind, Numbers::new().advance());
    out.extend_from_slice(meta);
    // Too large a one is not written, and nothing is not a frame either.
    let _ = finish_frame(&mut out, start, payload.len());
    out.extend_from_slice(payload);
    out
}
