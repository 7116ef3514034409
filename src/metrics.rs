//! What a shard counts and times about itself, and how those numbers leave the shard.
//!
//! ```text
//!   shard (one thread)                     housekeeping thread
//!   ShardMetrics  <--- SnapshotRequest{spare interval} ---  admin::collector
//!   counters += 1                                             totals.add(interval)
//!   interval.record()  --- ShardSnapshot{numbers, interval} -->  spare = interval, zeroed
//! ```
//!
//! Invariants
//! - Counters and gauges are plain `u64` fields of the shard: no atomics, no locks, nothing is shared.
//! - Recording allocates nothing. Answering a snapshot copies some 100 numbers and swaps one pointer: the histograms of the time since the
//!   previous snapshot travel whole, and the asker hands in empty ones. (Copying them would be 2 MB, some 0.5 ms of a shard's time per scrape.)
//! - Every number has its name and meaning in one table (`numbers.rs`, `stages.rs`), from which /metrics and docs/METRICS.md are made.
//!
//! Not here: the text format and HTTP (`admin/`), totals over time and shards (`admin/collector.rs`), when to ask (`runtime/housekeeping.rs`).

pub mod document;
pub mod health;
pub mod labelled;
pub mod numbers;
pub mod snapshot;
pub mod stages;

pub use health::{Health, ShardHealth};
pub use numbers::{NumberDef, ShardCounters, ShardGauges};
pub use snapshot::{ShardGone, ShardSnapshot, SnapshotReply, SnapshotRequest, SnapshotSource, snapshot_request};
pub use stages::{Interval, RequestClass, SlowRequest, Stage, Stamps, Timing};

use tramline_wire::error::ErrorCode;
use tramline_wire::kind::Kind;

/// Room in `ShardCounters::errors` for codes to come; a code above it is counted in the last place.
pub const ERROR_CODES: usize = 64;
/// Room in `ShardCounters::requests` for the kinds of the data protocol; a kind above it is counted in place 0 (no kind has this number).
pub const REQUEST_KINDS: usize = 96;

/// All numbers of one shard. Owned by the shard.
#[derive(Debug)]
pub struct ShardMetrics {
    /// What has happened since the start. The shard adds to the fields directly.
    pub counters: ShardCounters,
    /// How things stand. The shard sets the fields before it answers a snapshot, not at each change.
    pub gauges: ShardGauges,
    /// Numbers with names. The shard sets them when `gauges` are set; they leave with the answer.
    pub labelled: labelled::Labelled,
    /// Requests by kind number (`count_request`).
    requests: [u64; REQUEST_KINDS],
    /// Errors answered by code number (`count_error`).
    errors: [u64; ERROR_CODES],
    /// Timings since the previous full snapshot.
    interval: Box<Interval>,
}

impl Default for ShardMetrics {
    fn default() -> ShardMetrics {
        ShardMetrics::new()
    }
}

impl ShardMetrics {
    /// All zero. Allocates the histograms, some 2 MB of which only the touched pages become real.
    pub fn new() -> ShardMetrics {
        ShardMetrics {
            counters: ShardCounters::default(),
            gauges: ShardGauges::default(),
            labelled: labelled::Labelled::default(),
            requests: [0; REQUEST_KINDS],
            errors: [0; ERROR_CODES],
            interval: Box::new(Interval::new()),
        }
    }

    /// Counts a request that arrived.
    #[inline]
    pub fn count_request(&mut self, kind: Kind) {
        let place = kind.as_u8() as usize;
        self.requests[if place < REQUEST_KINDS { place } else { 0 }] += 1;
    }

    /// Counts an error that was answered, to a whole request or to one of its entries.
    #[inline]
    pub fn count_error(&mut self, code: ErrorCode) {
        self.errors[(code.as_u16() as usize).min(ERROR_CODES - 1)] += 1;
    }

    /// Records how long so many requests took, stage by stage. `bytes` is the payload of one of them, asked or answered; `utc_us` the time they ended.
    #[inline]
    pub fn record(&mut self, class: RequestClass, stamps: &Stamps, count: u64, utc_us: i64, bytes: u64) {
        self.interval.record(class, stamps, count, utc_us, bytes);
    }

    /// Records one synced log write, from handing it to the ring to its completion.
    #[inline]
    pub fn record_log_write(&mut self, ns: u64) {
        self.interval.log_write.record(ns);
    }

    /// Records for how long a message was leased when it was acked.
    #[inline]
    pub fn record_queue_ack(&mut self, ns: u64) {
        self.interval.queue_ack.record(ns);
    }

    /// Answers a request for the numbers. Set `gauges` first.
    pub fn answer(&mut self, request: SnapshotRequest, utc_us: i64) {
        let SnapshotRequest { spare, reply } = request;
        let interval = spare.map(|spare| std::mem::replace(&mut self.interval, spare));
        let (counters, gauges, requests, errors) = (self.counters, self.gauges, self.requests, self.errors);
        let labelled = std::mem::take(&mut self.labelled);
        reply.send(ShardSnapshot { utc_us, counters, gauges, labelled, requests, errors, interval });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_leaves_the_shard_whole_and_counters_stay() {
        let mut metrics = ShardMetrics::new();
        metrics.counters.produce_records += 3;
        metrics.count_request(Kind::Produce);
        metrics.count_error(ErrorCode::DiskFull);
        let stamps = Stamps { received_ns: 1_000, parsed_ns: 2_000, appended_ns: 5_000, written_ns: 105_000, replied_ns: 107_000 };
        metrics.record(RequestClass::Produce, &stamps, 1, 7, 100);
        let (request, mut reply) = snapshot_request(Some(Box::new(Interval::new())));
        metrics.answer(request, 9);
        let first = reply.try_take().expect("answered");
        assert_eq!((first.counters.produce_records, first.requests[3], first.errors[23]), (3, 1, 1));
        let interval = first.interval.expect("asked for");
        assert_eq!(interval.timing(RequestClass::Produce, Stage::Total).unwrap().count(), 1);
        assert_eq!(interval.slowest().next().unwrap().total_ns(), 106_000);

        let (request, mut reply) = snapshot_request(Some(interval));
        metrics.answer(request, 10);
        let second = reply.try_take().expect("answered");
        assert_eq!(second.counters.produce_records, 3);
        assert_eq!(second.interval.unwrap().timing(RequestClass::Produce, Stage::Total).unwrap().count(), 0);

        let (request, mut reply) = snapshot_request(None);
        metrics.answer(request, 11);
        assert!(reply.try_take().expect("answered").interval.is_none());
    }

    #[test]
    fn numbers_beyond_the_tables_do_not_panic() {
        for kind in Kind::ALL {
            assert!((kind.as_u8() as usize) < REQUEST_KINDS, "raise REQUEST_KINDS");
            ShardMetrics::new().count_request(*kind);
        }
        for code in ErrorCode::ALL {
            assert!((code.as_u16() as usize) < ERROR_CODES, "raise ERROR_CODES");
            ShardMetrics::new().count_error(*code);
        }
    }
}
