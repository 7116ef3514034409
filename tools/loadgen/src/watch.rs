//! Looks at the workers once a second: the progress line, the series of the report, the interval log.
//!
//! Invariants: a second is taken from all workers and merged, never averaged; what was taken is kept as a sum, which together with the
//! last partial second is the whole run. A log that cannot be written any more is told once and does not end the run.
//! Not here: counting (`stats.rs`), the wording of a line (`report.rs`), the form of the log (`hlog.rs`).

use crate::clock::Clock;
use crate::hlog::{Log, wanted};
use crate::report::{progress_json, progress_line};
use crate::schedule::{SECOND_NS, Window};
use crate::stats::{ACK, E2E, Interval, SERVICE, Side};
use crate::tell::{say, tell};
use crate::write::lock;
use serde_json::Value;
use std::io::Write;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// The workers of one side.
pub struct Group<'a> {
    /// `write` or `read`.
    pub name: &'static str,
    /// One per worker.
    pub workers: &'a [Mutex<Side>],
    /// What the log gets of this side.
    pub tags: &'static [&'static str],
}

/// The tags that a side's times have in log, files and report; a closed loop sends when it intends to, so it has no service time.
pub fn tags(writes: bool, closed: bool) -> &'static [&'static str] {
    match (writes, closed) {
        (true, false) => &[ACK, SERVICE],
        (true, true) => &[ACK],
        (false, _) => &[E2E],
    }
}

/// What there is to look at, and how.
pub struct Watch<'a, 'l, W: Write> {
    /// The clock of the run.
    pub clock: Clock,
    /// The measured part.
    pub window: Window,
    /// What a progress line calls it.
    pub phase: &'static str,
    /// No progress lines.
    pub quiet: bool,
    /// The sides.
    pub groups: Vec<Group<'a>>,
    /// The interval log, when one is wanted and can be written.
    pub log: Option<&'a mut Log<'l, W>>,
}

/// What the seconds showed.
pub struct Watched {
    /// A line per second for the report.
    pub series: Vec<Value>,
    /// Per side, all its seconds added up.
    pub sums: Vec<Interval>,
    /// Why the interval log is not complete.
    pub log_error: Option<String>,
}

impl<W: Write> Watch<'_, '_, W> {
    /// Looks each second until all threads have ended, that is, until nobody holds the other end of `ended`.
    pub fn run(mut self, ended: &Receiver<()>) -> Watched {
        let fresh = || self.groups.iter().map(|_| Interval::new()).collect::<Vec<_>>();
        let (mut seconds, mut spare) = (fresh(), Interval::new());
        let mut watched = Watched { series: Vec::new(), sums: fresh(), log_error: None };
        let (mut second, mut last_ns) = (0, 0);
        loop {
            let next_ns = (second + 1) * SECOND_NS;
            let over = match ended.recv_timeout(Duration::from_nanos(next_ns.saturating_sub(self.clock.now_ns()))) {
                Ok(()) => continue,
                Err(RecvTimeoutError::Disconnected) => true,
                Err(RecvTimeoutError::Timeout) => false,
            };
            second += 1;
            let now_ns = self.clock.now_ns().max(last_ns + 1);
            self.take(&mut seconds, &mut spare);
            self.log(&seconds, last_ns, now_ns, &mut watched.log_error);
            for (sum, taken) in watched.sums.iter_mut().zip(&seconds) {
                sum.merge(taken);
            }
            // The rest of a second after the last whole one has rates of nothing; it counts only when something happened in it.
            if !over || seconds.iter().any(|taken| taken.records + taken.errors > 0) {
                self.show(second, &seconds, last_ns, now_ns, over, &mut watched.series);
            }
            if over {
                return watched;
            }
            last_ns = now_ns;
        }
    }

    /// The running second of each side, merged over its workers, who begin a new one.
    fn take(&self, seconds: &mut [Interval], spare: &mut Interval) {
        for (group, total) in self.groups.iter().zip(seconds) {
            total.clear();
            for worker in group.workers {
                spare.clear();
                std::mem::swap(&mut lock(worker).interval, spare);
                total.merge(spare);
            }
        }
    }

    fn log(&mut self, seconds: &[Interval], from_ns: u64, end_ns: u64, error: &mut Option<String>) {
        let Some(log) = &mut self.log else { return };
        for (group, taken) in self.groups.iter().zip(seconds) {
            for &tag in group.tags {
                let histogram = if tag == SERVICE { &taken.service } else { &taken.latency };
                if !wanted(histogram, end_ns, self.window.from_ns) {
                    continue;
                }
                if let Err(cause) = log.interval(tag, histogram, from_ns, end_ns) {
                    tell(format_args!("the interval log ends here: {cause}"));
                    *error = Some(cause);
                    self.log = None;
                    return;
                }
            }
        }
    }

    fn show(&self, second: u64, seconds: &[Interval], from_ns: u64, now_ns: u64, over: bool, series: &mut Vec<Value>) {
        let elapsed_s = (now_ns - from_ns) as f64 / 1e9;
        let shown: Vec<(&str, &Interval)> = self.groups.iter().map(|group| group.name).zip(seconds).collect();
        let middle_ns = from_ns + (now_ns - from_ns) / 2;
        let phase = if middle_ns < self.window.from_ns {
            "warm-up"
        } else if middle_ns < self.window.end_ns {
            self.phase
        } else {
            "drain"
        };
        if !self.quiet && !over {
            say(progress_line(second, phase, &shown, elapsed_s));
        }
        let mut line = progress_json(second, phase, &shown, elapsed_s);
        line["end_s"] = (now_ns as f64 / 1e9).into();
        line["length_s"] = elapsed_s.into();
        series.push(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoded::decode;
    use crate::hlog::remarks;
    use crate::stats::record;
    use hdrhistogram::serialization::V2DeflateSerializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    use std::sync::mpsc::channel;

    fn workers() -> Vec<Mutex<Side>> {
        (1..=2u64)
            .map(|worker| {
                let mut side = Side::new();
                side.interval.time(worker * 1_000_000, true);
                side.interval.time(77, false);
                record(&mut side.interval.service, worker * 1_000);
                side.interval.records = 2;
                Mutex::new(side)
            })
            .collect()
    }

    fn watch<W: Write>(workers: &[Mutex<Side>], log: Option<&mut Log<'_, W>>) -> Watched {
        let (sender, ended) = channel();
        drop(sender);
        let groups = vec![Group { name: "write", workers, tags: tags(true, false) }];
        let watch = Watch { clock: Clock::start(), window: Window::new(0, SECOND_NS), phase: "open", quiet: true, groups, log };
        watch.run(&ended)
    }

    #[test]
    fn the_log_adds_up_to_what_the_report_gets_without_the_warm_up() {
        let (mut out, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
        let workers = workers();
        let mut log = Log::begin(&mut out, &mut serializer, std::time::UNIX_EPOCH, &remarks("produce", false)).unwrap();
        let watched = watch(&workers, Some(&mut log));
        let logged: Vec<(String, _)> = IntervalLogIterator::new(&out)
            .filter_map(|entry| match entry.unwrap() {
                LogEntry::Interval(it) => Some((it.tag().unwrap().as_str().to_owned(), decode(it.encoded_histogram()).unwrap())),
                _ => None,
            })
            .collect();
        assert_eq!(logged.iter().map(|(tag, _)| tag.as_str()).collect::<Vec<_>>(), [ACK, SERVICE]);
        assert_eq!((&logged[0].1, &logged[1].1), (&watched.sums[0].latency, &watched.sums[0].service));
        assert_eq!((watched.sums[0].latency.len(), watched.sums[0].unmeasured.len()), (2, 2));
        assert_eq!(watched.series.len(), 1);
        assert!((watched.series[0]["write"]["max_us"].as_f64().unwrap() - 2_000.0).abs() < 2.0, "{:?}", watched.series);
    }

    #[test]
    fn a_full_disk_ends_the_log_and_not_the_run() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (mut out, mut serializer) = (Full(300), V2DeflateSerializer::new());
        let workers = workers();
        let mut log = Log::begin(&mut out, &mut serializer, std::time::UNIX_EPOCH, &remarks("produce", false)).unwrap();
        let watched = watch(&workers, Some(&mut log));
        assert!(watched.log_error.is_some());
        assert_eq!(watched.sums[0].latency.len(), 2);
    }
}
