//! Look-ups by time: the first record whose time is at or after a given one.
//!
//! The index knows the newest time of each batch (and footers of each batch in a sealed segment), so that only the one batch
//! that can hold the answer is read; its record index gives the record.

use tramline_wire::batch::{BATCH_APPEND_TIME, BatchView};
use tramline_wire::error::ErrorCode;

/// One question of a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookupEntry {
    /// The partition.
    pub uid: u64,
    /// The time, UTC microseconds.
    pub at_us: i64,
}

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookupAnswer {
    /// The partition.
    pub uid: u64,
    /// `Ok`, or why there is no answer.
    pub error: ErrorCode,
    /// The offset; the end when there is no such record.
    pub offset: u64,
    /// The record's time, or `None` when there is no such record.
    pub timestamp_us: Option<i64>,
}

/// The first record of a batch at or after `at_us`, as (offset, time). Records below `log_start` are trimmed: they do not count.
pub(super) fn first_record_at(batch: &[u8], at_us: i64, log_start: u64) -> Option<(u64, i64)> {
    let view = BatchView::parse(batch).ok()?;
    let first = view.base_offset().max(log_start);
    if view.flags() & BATCH_APPEND_TIME != 0 {
        let time = view.append_time_us();
        return (time >= at_us).then_some((first, time));
    }
    let time = |delta_us: i32| view.first_timestamp_us().saturating_add(i64::from(delta_us));
    let records = view.index().map_while(Result::ok).map(|e| (view.base_offset() + u64::from(e.offset_delta), time(e.time_delta_us)));
    records.skip_while(|(offset, _)| *offset < first).find(|(_, time_us)| *time_us >= at_us)
}
