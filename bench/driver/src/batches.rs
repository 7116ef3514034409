//! The batches that are sent: built once with the protocol crate, as a producer would.

use crate::error::BenchError;
use std::time::{SystemTime, UNIX_EPOCH};
use tramline_wire::batch::{BatchBuilder, Limits, NewRecord, ProducerMark};

/// Bytes of a record's value.
pub const RECORD_BYTES: usize = 1024;
/// Bytes a batch may have at most.
pub const BATCH_BYTES: u32 = 64 * 1024;

/// UTC microseconds.
pub fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

/// A batch of as many 1 KiB records as `batch_bytes` holds, at least one; the content depends on `seed` and does not compress.
pub fn batch(batch_bytes: u32, seed: u64) -> Result<Vec<u8>, BenchError> {
    let now_us = now_us();
    let mut builder = BatchBuilder::new(Limits { batch_bytes_max: batch_bytes, ..Limits::default() });
    let mut values = Values::new(seed);
    loop {
        let value = values.next();
        if builder.push(&NewRecord { value: Some(&value), timestamp_us: now_us, ..NewRecord::default() }).is_err() {
            break;
        }
    }
    if builder.is_empty() {
        return Err(BenchError::Wrong(format!("no record of {RECORD_BYTES} bytes fits into a batch of {batch_bytes}")));
    }
    let mut bytes = Vec::new();
    builder.finish_plain(&mut bytes, ProducerMark::default());
    Ok(bytes)
}

/// Values that do not compress.
struct Values(u64);

impl Values {
    fn new(seed: u64) -> Values {
        Values(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> [u8; RECORD_BYTES] {
        let mut value = [0u8; RECORD_BYTES];
        for chunk in value.chunks_exact_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes());
        }
        value
    }
}

/// The value of one record.
pub fn value(seed: u64) -> [u8; RECORD_BYTES] {
    Values::new(seed).next()
}

/// A batch of exactly one record.
pub fn single(seed: u64) -> Result<Vec<u8>, BenchError> {
    // Room for one: header, one index entry, the value, and too little for a second.
    batch((tramline_wire::batch::BATCH_HEADER_BYTES + tramline_wire::batch::INDEX_ENTRY_BYTES + RECORD_BYTES) as u32, seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tramline_wire::batch::validate;

    #[test]
    fn batches_are_what_the_broker_accepts() {
        let one = single(1).expect("one record fits");
        assert_eq!(validate(&one, &Limits::default()).expect("valid").record_count(), 1);
        let full = batch(BATCH_BYTES, 2).expect("many fit");
        assert!(full.len() <= BATCH_BYTES as usize);
        assert_eq!(validate(&full, &Limits::default()).expect("valid").record_count(), 63);
    }
}
