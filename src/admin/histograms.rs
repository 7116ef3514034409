//! All timings since the start as HDR histograms, in the interval log that the tools of HdrHistogram read: a line each, named by its tag, in nanoseconds.
//!
//! Invariants: a histogram goes out whole, with the three digits it was recorded with; the maximum that a line shows for people is in milliseconds, as such
//! logs have it.
//!
//! Not here: collecting (`collector.rs`), HTTP.

use crate::metrics::Interval;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use std::time::{Duration, SystemTime};

const NS_PER_MS: f64 = 1_000_000.0;

/// The log of `timings`, which began `lasted` ago, when it was `began`. Those that nothing was recorded in are left out. An error is the library's, in its words.
pub(super) fn log(timings: &Interval, began: SystemTime, lasted: Duration) -> Result<String, String> {
    let mut out = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder.add_comment("Times in nanoseconds since the start; tags: kind.stage, log_write, queue_ack (docs/METRICS.md)");
    builder.with_start_time(began).with_base_time(began).with_max_value_divisor(NS_PER_MS);
    let mut writer = builder.begin_log_with(&mut out, &mut serializer).map_err(|error| error.to_string())?;
    for (name, timing) in timings.named().filter(|(_, timing)| timing.count() > 0) {
        let tag = Tag::new(&name).expect("names have neither spaces nor commas");
        writer.write_histogram(timing.histogram(), Duration::ZERO, lasted, Some(tag)).map_err(|error| error.to_string())?;
    }
    drop(writer);
    String::from_utf8(out).map_err(|error| error.to_string())
}
