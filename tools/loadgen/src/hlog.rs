//! The interval log (`.hlog`, HdrHistogram's V2): a histogram per second and metric, readable by its public tools.
//!
//! Invariants: values are nanoseconds, the column with the maximum is in milliseconds (what the Java library does by default);
//! tags are `ack`, `service`, `e2e` and `connect`; a line is handed to the kernel whole, so a killed run keeps all its seconds; only measured
//! records are in it, so that the lines of a tag add up to the report's histogram. A closed loop is said in the head.
//! Not here: when a second is over (`watch.rs`).

use crate::schedule::SECOND_NS;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriter, IntervalLogWriterBuilder, Tag};
use std::io::Write;
use std::time::{Duration, SystemTime};

/// Longest line that is written at once: a histogram of our shape is at most some 300 KiB before it is compressed.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// The column with the maximum is in milliseconds.
const MAX_DIVISOR: f64 = 1e6;

/// A log that has begun.
pub struct Log<'a, W: Write> {
    writer: IntervalLogWriter<'a, 'a, W, V2DeflateSerializer>,
}

impl<'a, W: Write> Log<'a, W> {
    /// Writes the head; `remarks` become comments. The times of intervals count from `start`.
    pub fn begin(
        out: &'a mut W,
        serializer: &'a mut V2DeflateSerializer,
        start: SystemTime,
        remarks: &[String],
    ) -> Result<Log<'a, W>, String> {
        let mut builder = IntervalLogWriterBuilder::new();
        builder.add_comment("[Histogram log format version 1.3]");
        for remark in remarks {
            builder.add_comment(remark);
        }
        // Both: some tools take the start, some the base, and to us they are the same.
        builder.with_start_time(start).with_base_time(start).with_max_value_divisor(MAX_DIVISOR);
        let writer = builder.begin_log_with(out, serializer).map_err(|cause| cause.to_string())?;
        Ok(Log { writer })
    }

    /// Writes what `tag` showed in `[from_ns, end_ns)` of the run.
    pub fn interval(&mut self, tag: &str, histogram: &Histogram<u64>, from_ns: u64, end_ns: u64) -> Result<(), String> {
        let tag = Some(Tag::new(tag).expect("our tags are plain words"));
        let (from, length) = (Duration::from_nanos(from_ns), Duration::from_nanos(end_ns.saturating_sub(from_ns)));
        self.writer.write_histogram(histogram, from, length, tag).map_err(|cause| cause.to_string())
    }
}

/// The remarks at the head of a log: what ran, and loudly that it was a closed loop.
pub fn remarks(what: &str, closed: bool) -> Vec<String> {
    let mut remarks = vec![format!("tramline-loadgen {} {what}", env!("CARGO_PKG_VERSION")), "[Values: nanoseconds]".to_owned()];
    if closed {
        remarks.push(crate::report::CLOSED_LOOP.to_owned());
    }
    remarks
}

/// Whether a second that ends at `end_ns` belongs to the log: not while the warm-up lasts, unless it has something.
pub fn wanted(histogram: &Histogram<u64>, end_ns: u64, measured_from_ns: u64) -> bool {
    !histogram.is_empty() || end_ns > measured_from_ns + SECOND_NS / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoded::decode;
    use crate::stats::{ACK, E2E, SERVICE, histogram, record};
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    use std::time::UNIX_EPOCH;

    #[test]
    fn a_log_is_read_back_as_it_was_written() {
        let (mut out, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
        let start = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let mut seconds = Vec::new();
        let mut log = Log::begin(&mut out, &mut serializer, start, &remarks("produce", true)).unwrap();
        for second in 0..3u64 {
            for tag in [ACK, SERVICE, E2E] {
                let mut histogram = histogram();
                (0..=second * 100).for_each(|n| record(&mut histogram, 1_000_000 + n * 997));
                log.interval(tag, &histogram, second * SECOND_NS, (second + 1) * SECOND_NS).unwrap();
                seconds.push((tag, second, histogram));
            }
        }
        let text = String::from_utf8(out.clone()).unwrap();
        assert!(text.starts_with("#[Histogram log format version 1.3]\n") && text.contains("#CLOSED LOOP"), "{text}");
        let mut entries = IntervalLogIterator::new(&out).map(Result::unwrap);
        assert_eq!(entries.next(), Some(LogEntry::StartTime(Duration::from_millis(1_700_000_000_123))));
        assert_eq!(entries.next(), Some(LogEntry::BaseTime(Duration::from_millis(1_700_000_000_123))));
        for (tag, second, histogram) in &seconds {
            let Some(LogEntry::Interval(interval)) = entries.next() else { panic!("no interval") };
            assert_eq!(interval.tag().map(|tag| tag.as_str()), Some(*tag));
            assert_eq!((interval.start_timestamp(), interval.duration()), (Duration::from_secs(*second), Duration::from_secs(1)));
            assert_eq!(decode(interval.encoded_histogram()).unwrap(), *histogram);
            assert!((interval.max() - histogram.max() as f64 / 1e6).abs() < 0.001, "the maximum is in milliseconds");
        }
        assert_eq!(entries.next(), None);
    }

    #[test]
    fn the_warm_up_is_not_logged_and_a_silent_second_is() {
        let (empty, mut filled) = (histogram(), histogram());
        record(&mut filled, 1);
        let measured_from_ns = 2 * SECOND_NS;
        assert!(!wanted(&empty, SECOND_NS, measured_from_ns) && !wanted(&empty, 2 * SECOND_NS + 1_000, measured_from_ns));
        assert!(wanted(&empty, 3 * SECOND_NS, measured_from_ns) && wanted(&filled, 2 * SECOND_NS, measured_from_ns));
    }
}
