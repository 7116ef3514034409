//! What the fake broker looks for in batches: whether it takes one, where a time is.
//!
//! Not here: marks (`marks`), storing.

use tramline_wire::batch::{BatchView, Batches};
use tramline_wire::error::ErrorCode;

use super::Log;

/// Whether the topic takes a batch and its records.
pub(super) fn check_batch(bytes: &[u8], batch_bytes_max: usize, record_bytes_max: u64) -> ErrorCode {
    let batch = BatchView::parse(bytes).expect("a batch");
    if bytes.len() > batch_bytes_max {
        ErrorCode::BatchTooLarge
    } else if batch.index().any(|entry| entry.expect("an entry").record_bytes() > record_bytes_max) {
        ErrorCode::RecordTooLarge
    } else if batch.index().any(|entry| entry.expect("an entry").attributes.priority.is_some_and(|priority| priority > 9)) {
        ErrorCode::InvalidAttribute
    } else {
        ErrorCode::Ok
    }
}

pub(super) fn first_at_or_after(log: &Log, time: i64) -> (u64, i64) {
    for batch in Batches::new(&log.bytes) {
        let batch = batch.expect("a stored batch");
        for (delta, entry) in batch.index().enumerate() {
            let timestamp_us = batch.first_timestamp_us() + i64::from(entry.expect("a stored record").time_delta_us);
            if timestamp_us >= time {
                return (batch.base_offset() + delta as u64, timestamp_us);
            }
        }
    }
    (log.next_offset, -1)
}
