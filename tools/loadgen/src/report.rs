//! The result of a run: the verdict (exit code), the table for people and the JSON for machines.
//!
//! Invariants: a closed loop is called so wherever a latency stands; a rate below 99 % of the asked one is said first and
//! loudest; what was measured is reported also when the run ended early. All rates are per second of the measured part; MB are 10^6 bytes of values.
//! Not here: measuring. Everything is a function of numbers.

use crate::check::Found;
use crate::encoded::encode;
use crate::lateness::Lates;
use crate::schedule::{Window, kept_rate, per_second, rate_is_held};
use crate::stats::{ACK, E2E, Interval, PERCENTILES, SERVICE, Side, histogram_json, percentile_us, round_us};
use crate::units::format_duration;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Duration;

/// What is said of a closed loop wherever its latencies stand.
pub const CLOSED_LOOP: &str = "CLOSED LOOP (latencies leave out what a stall would delay)";
/// What a report is recognized by when it is read back (`saved.rs`).
pub const TOOL: &str = "tramline-loadgen";
/// Raised when the meaning of an entry changes; new entries do not raise it.
pub const FORMAT_VERSION: u64 = 1;

/// Exit code when something failed.
pub const EXIT_FAILED: u8 = 1;
/// Exit code when the asked rate was not reached.
pub const EXIT_RATE: u8 = 3;

/// Largest share of the records that may be late by the generator's own fault.
const LATE_SHARE_MAX: f64 = 0.01;

/// All that a run showed.
pub struct Outcome {
    /// `produce`, `consume` or `both`.
    pub mode: &'static str,
    /// The options, for the reader of the file.
    pub parameters: Value,
    /// Machine, kernel, build.
    pub environment: Value,
    /// Rate of the open loop; none for a closed loop or a reader.
    pub asked_rate: Option<u64>,
    /// The measured part, cut where the run ended early.
    pub window: Window,
    /// The writing side.
    pub produce: Option<Side>,
    /// Records that were due and not sent when the time was over.
    pub unsent: u64,
    /// How late records were sent; none in a closed loop.
    pub lates: Option<Lates>,
    /// The reading side, all readers together.
    pub consume: Option<Side>,
    /// Number of readers, each of which gets all records.
    pub readers: u64,
    /// What the check found.
    pub found: Option<Found>,
    /// Why it could not be checked.
    pub unverified: Option<String>,
    /// A line per second.
    pub series: Vec<Value>,
    /// Why the run ended early.
    pub vanished: Option<String>,
    /// What makes the numbers doubtful.
    pub warnings: Vec<String>,
    /// What each random choice was drawn from.
    pub seeds: Value,
    /// Why the interval log is not complete.
    pub log_error: Option<String>,
}

/// One kind of latency of the run.
pub struct Metric<'a> {
    /// Its name in files: `ack`, `service` or `e2e`.
    pub tag: &'static str,
    /// Its name for people; says so when it is of a closed loop.
    pub name: &'static str,
    /// The times, nanoseconds.
    pub histogram: &'a Histogram<u64>,
}

impl Outcome {
    /// Whether this run's records waited for answers.
    pub fn closed(&self) -> bool {
        self.produce.is_some() && self.asked_rate.is_none()
    }

    /// `open`, `closed`, or none where nothing was written.
    fn loop_name(&self) -> Option<&'static str> {
        self.produce.as_ref().map(|_| if self.closed() { "closed" } else { "open" })
    }

    /// The latencies that were measured.
    pub fn metrics(&self) -> Vec<Metric<'_>> {
        let mut metrics = Vec::new();
        let closed = self.closed();
        if let Some(side) = &self.produce {
            let name = if closed { "ack CLOSED LOOP" } else { "ack from intended" };
            metrics.push(Metric { tag: ACK, name, histogram: &side.latency });
            if !closed {
                metrics.push(Metric { tag: SERVICE, name: "ack from send", histogram: &side.service });
            }
        }
        if let Some(side) = &self.consume {
            let name = if closed { "end to end CLOSED LOOP" } else { "end to end" };
            metrics.push(Metric { tag: E2E, name, histogram: &side.latency });
        }
        metrics.retain(|metric| !metric.histogram.is_empty());
        metrics
    }

    /// Throughput of the measured part.
    fn rate(&self, side: &Side) -> f64 {
        per_second(side.done_records, self.window.length_ns())
    }

    fn mb_per_s(&self, side: &Side) -> f64 {
        per_second(side.done_bytes, self.window.length_ns()) / 1e6
    }

    /// The achieved rate when it is too low; where there are readers, of each of them too. Either measure will do: throughput is wrong
    /// by a record or two in a short run at a low rate, the rate kept up with is wrong when answers take long but come steadily.
    fn rate_missed(&self) -> Option<f64> {
        let lowest = self.produce_rate().into_iter().chain(self.reader_rate()).fold(f64::INFINITY, f64::min);
        (!rate_is_held(lowest, self.asked_rate?)).then_some(lowest)
    }

    fn produce_rate(&self) -> Option<f64> {
        self.produce.as_ref().map(|side| self.achieved(side))
    }

    /// Of one reader, in the mean.
    fn reader_rate(&self) -> Option<f64> {
        self.consume.as_ref().map(|side| self.achieved(side) / self.readers.max(1) as f64)
    }

    fn achieved(&self, side: &Side) -> f64 {
        self.rate(side).max(kept_rate(side.measured_records, self.window, side.last_done_ns))
    }

    /// Whether too many records were sent late by the generator's own fault.
    fn sent_late(&self) -> Option<&Lates> {
        self.lates.as_ref().filter(|lates| lates.own_share() > LATE_SHARE_MAX)
    }

    /// Who kept the run from its rate, as the end of a sentence.
    fn bottleneck(&self) -> String {
        let asked = self.asked_rate.unwrap_or_default();
        let lates = self.lates.as_ref();
        let share = |share: f64| format!("{:.1} % of the records", share * 100.0);
        match lates {
            _ if self.produce_rate().is_some_and(|rate| rate_is_held(rate, asked)) => {
                "the bottleneck was the reading side, since all records were written in time".to_owned()
            }
            Some(lates) if lates.own_share() > LATE_SHARE_MAX && lates.own >= lates.blocked => {
                format!("the bottleneck was the LOAD GENERATOR, by whose own fault {} were late", share(lates.own_share()))
            }
            Some(lates) if lates.blocked > 0 => {
                format!("the bottleneck was the SERVER, which did not take {} in time", share(lates.blocked_share()))
            }
            _ => "the bottleneck was the SERVER: records were sent in time and answered late".to_owned(),
        }
    }

    /// The exit code: failures before a missed rate.
    pub fn exit_code(&self) -> u8 {
        let failed = [&self.produce, &self.consume].into_iter().flatten().any(|side| side.failed > 0);
        let bad = self.found.is_some_and(|found| !found.good());
        if self.vanished.is_some() || self.log_error.is_some() || self.unverified.is_some() || failed || bad {
            EXIT_FAILED
        } else if self.rate_missed().is_some() || self.sent_late().is_some() {
            EXIT_RATE
        } else {
            0
        }
    }

    /// Sentences that must not be overlooked, the worst first.
    pub fn alarms(&self) -> Vec<String> {
        let mut alarms = Vec::new();
        if let Some(reason) = &self.vanished {
            alarms.push(format!("THE RUN ENDED EARLY: {reason}; what follows was measured until then"));
        }
        if let Some(found) = self.found.filter(|found| !found.good()) {
            alarms.push(format!(
                "RECORDS ARE NOT WHAT WAS WRITTEN: {} lost, {} duplicated, {} reordered, {} changed",
                found.lost, found.duplicates, found.reordered, found.changed
            ));
        }
        for (side, verb) in [(&self.produce, "written"), (&self.consume, "read")] {
            if let Some(side) = side.as_ref().filter(|side| side.failed > 0) {
                alarms.push(format!("{} RECORDS OR REQUESTS COULD NOT BE {}", side.failed, verb.to_uppercase()));
            }
        }
        if let Some(cause) = &self.unverified {
            alarms.push(format!("WHAT WAS WRITTEN COULD NOT BE READ BACK: {cause}"));
        }
        if let Some(cause) = &self.log_error {
            alarms.push(format!("THE INTERVAL LOG IS NOT COMPLETE: {cause}"));
        }
        if let (Some(rate), Some(asked), None) = (self.rate_missed(), self.asked_rate, &self.vanished) {
            alarms.push(format!(
                "THE RATE WAS NOT REACHED: {rate:.0} of {asked} records/s ({:.1} %, {} records due were never sent); {}; the latencies below are those of an overload, lower --rate to measure this server",
                rate * 100.0 / asked as f64,
                self.unsent,
                self.bottleneck()
            ));
        }
        if let (Some(lates), None) = (self.sent_late(), &self.vanished) {
            alarms.push(format!(
                "RECORDS WERE SENT LATE: {:.1} % of them by more than {} and by the LOAD GENERATOR's own fault (allowed is {:.0} %): its latencies are partly its own; give it free cores, --busy-poll or more --threads",
                lates.own_share() * 100.0,
                format_duration(Duration::from_nanos(lates.late_max_ns())),
                LATE_SHARE_MAX * 100.0
            ));
        }
        alarms
    }

    /// The report as JSON.
    pub fn json(&self) -> Value {
        let side = |side: &Side, latency_name: &str| {
            let mut object = json!({
                "records": side.done_records,
                "records_per_s": round(self.rate(side)),
                "mb_per_s": round(self.mb_per_s(side)),
                "total_records": side.records,
                "failed": side.failed,
                "errors": side.errors,
            });
            object[latency_name] = histogram_json(&side.latency);
            object
        };
        let produce = self.produce.as_ref().map(|produce| {
            let mut object = side(produce, "latency_us");
            object["service_us"] = histogram_json(&produce.service);
            object["acked"] = json!(produce.acked);
            object["unsent"] = json!(self.unsent);
            object
        });
        let found = self.found.map(|found| {
            json!({"received": found.received, "lost": found.lost, "duplicates": found.duplicates, "reordered": found.reordered, "changed": found.changed, "foreign": found.foreign, "good": found.good()})
        });
        let histograms: serde_json::Map<String, Value> =
            self.metrics().iter().map(|metric| (metric.tag.to_owned(), json!(encode(metric.histogram)))).collect();
        json!({
            "tool": TOOL,
            "format_version": FORMAT_VERSION,
            "version": env!("CARGO_PKG_VERSION"),
            "mode": self.mode,
            "loop": self.loop_name(),
            "latency_is": if self.closed() { "CLOSED LOOP: completion minus send; a stall delays few records here and many users in production" } else { "completion minus intended time" },
            "asked_records_per_s": self.asked_rate,
            "rate_held": self.asked_rate.map(|_| self.rate_missed().is_none()),
            "measured_s": round(self.window.length_ns() as f64 / 1e9),
            "heading": self.heading(),
            "parameters": self.parameters,
            "seeds": self.seeds,
            "environment": self.environment,
            "produce": produce,
            "lateness": self.lates.as_ref().map(lateness_json),
            "consume": self.consume.as_ref().map(|consume| side(consume, "end_to_end_us")),
            "check": found,
            "not_checked": self.unverified,
            "histograms": histograms,
            "histograms_are": "HdrHistogram V2, compressed, base64; nanoseconds; one per metric, of the measured part",
            "seconds": self.series,
            "ended_early": self.vanished,
            "alarms": self.alarms(),
            "warnings": self.warnings,
            "exit_code": self.exit_code(),
        })
    }

    fn lateness_line(&self) -> Option<String> {
        let lates = self.lates.as_ref().filter(|lates| lates.records > 0)?;
        let sent = |percentile| percentile_us(&lates.sent, percentile);
        Some(format!(
            "sent p50 {} p99 {} max {} us after due; later than {}: {:.2} % by the generator's own fault, {:.2} % by the server's",
            sent(50.0),
            sent(99.0),
            round_us(lates.sent.max()),
            format_duration(Duration::from_nanos(lates.late_max_ns())),
            lates.own_share() * 100.0,
            lates.blocked_share() * 100.0
        ))
    }

    /// The report for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "{}", self.heading());
        for alarm in self.alarms() {
            let _ = writeln!(text, "!!! {alarm}");
        }
        for warning in &self.warnings {
            let _ = writeln!(text, "warning: {warning}");
        }
        if let Some(side) = &self.produce {
            let _ = writeln!(text, "written   {}", self.side_line(side));
        }
        if let Some(line) = self.lateness_line() {
            let _ = writeln!(text, "lateness  {line}");
        }
        if let Some(side) = &self.consume {
            let _ = writeln!(text, "read      {}", self.side_line(side));
        }
        if let Some(found) = self.found {
            let _ = writeln!(
                text,
                "checked   {} records: {} lost, {} duplicated, {} reordered, {} changed{}",
                found.received,
                found.lost,
                found.duplicates,
                found.reordered,
                found.changed,
                if found.foreign > 0 { format!("; {} not of this run", found.foreign) } else { String::new() }
            );
        }
        for (sentence, count) in [&self.produce, &self.consume].into_iter().flatten().flat_map(|side| &side.errors) {
            let _ = writeln!(text, "error     {count} x {sentence}");
        }
        text.push_str(&self.latency_table());
        text
    }

    /// The first line: what ran, and how.
    pub fn heading(&self) -> String {
        let load = match (self.loop_name(), self.asked_rate) {
            (Some("open"), Some(rate)) => format!("open loop at {rate} records/s"),
            (Some(_), _) => CLOSED_LOOP.to_owned(),
            (None, _) => "reading".to_owned(),
        };
        let options = self.parameters.as_object().map(|object| {
            let shown = |value: &Value| value.as_str().map(str::to_owned).unwrap_or_else(|| value.to_string());
            let wanted = [
                "arrivals",
                "level",
                "size",
                "records",
                "batch_bytes",
                "in_flight",
                "compression",
                "producers",
                "threads",
                "keys",
                "partitions",
                "busy_poll",
            ];
            wanted
                .iter()
                .filter_map(|name| object.get(*name).filter(|value| !value.is_null()).map(|value| format!("{name}={}", shown(value))))
                .collect::<Vec<_>>()
                .join(" ")
        });
        format!("{}: {load}, measured {:.1} s  {}", self.mode, self.window.length_ns() as f64 / 1e9, options.unwrap_or_default())
    }

    fn side_line(&self, side: &Side) -> String {
        format!("{} records, {:.0} records/s, {:.2} MB/s, {} failed", side.done_records, self.rate(side), self.mb_per_s(side), side.failed)
    }

    fn latency_table(&self) -> String {
        let columns = self.metrics();
        if columns.is_empty() {
            return String::new();
        }
        let mut text = String::from("latency us");
        for metric in &columns {
            let _ = write!(text, "  {:>22}", metric.name);
        }
        text.push('\n');
        for (name, percentile) in PERCENTILES.into_iter().chain([("max", 100.0)]) {
            let _ = write!(text, "{name:<10}");
            for metric in &columns {
                let histogram = metric.histogram;
                let value = if name == "max" { histogram.max() as f64 / 1e3 } else { percentile_us(histogram, percentile) };
                let _ = write!(text, "  {value:>22.1}");
            }
            text.push('\n');
        }
        text
    }
}

fn lateness_json(lates: &Lates) -> Value {
    json!({
        "late_is_above_us": round_us(lates.late_max_ns()),
        "records": lates.records,
        "late_by_generator": lates.own,
        "late_by_server": lates.blocked,
        "late_by_generator_share": lates.own_share(),
        "late_by_server_share": lates.blocked_share(),
        "sent_minus_intended_us": histogram_json(&lates.sent),
    })
}

/// The line of one second on standard error.
pub fn progress_line(second: u64, phase: &str, sides: &[(&str, &Interval)], elapsed_s: f64) -> String {
    let mut line = format!("{second:>4}s {phase:<8}");
    for (name, interval) in sides {
        let per_second = |count: u64| count as f64 / elapsed_s;
        let _ = write!(line, "  {name} {:.0}/s {:.2} MB/s", per_second(interval.records), per_second(interval.bytes) / 1e6);
        let latency = interval.all_latencies();
        if !latency.is_empty() {
            let _ = write!(line, " p50 {:.0} us p99 {:.0} us", percentile_us(&latency, 50.0), percentile_us(&latency, 99.0));
        }
        let _ = write!(line, " errors {}", interval.errors);
    }
    line
}

/// The same second for the JSON report.
pub fn progress_json(second: u64, phase: &str, sides: &[(&str, &Interval)], elapsed_s: f64) -> Value {
    let mut object = json!({"second": second, "phase": phase});
    for (name, interval) in sides {
        let mut entry = json!({
            "records_per_s": round(interval.records as f64 / elapsed_s),
            "mb_per_s": round(interval.bytes as f64 / elapsed_s / 1e6),
            "errors": interval.errors,
        });
        let latency = interval.all_latencies();
        if !latency.is_empty() {
            entry["p50_us"] = json!(percentile_us(&latency, 50.0));
            entry["p99_us"] = json!(percentile_us(&latency, 99.0));
            entry["max_us"] = json!(round_us(latency.max()));
        }
        object[*name] = entry;
    }
    object
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lateness::Late;
    use crate::schedule::SECOND_NS;
    use crate::stats::record;

    fn side(records: u64, latency_ns: u64) -> Side {
        let mut side = Side::new();
        (side.records, side.acked, side.measured_records) = (records, records, records);
        (side.done_records, side.done_bytes) = (records, records * 1000);
        side.last_done_ns = 11 * SECOND_NS;
        for _ in 0..records {
            record(&mut side.latency, latency_ns);
            record(&mut side.service, latency_ns / 2);
        }
        side
    }

    fn outcome(asked: Option<u64>, produce: Option<Side>, consume: Option<Side>) -> Outcome {
        Outcome {
            mode: "both",
            parameters: json!({"level": "durable", "size": 1000}),
            environment: json!({}),
            asked_rate: asked,
            window: Window::new(SECOND_NS, 10 * SECOND_NS),
            produce,
            unsent: 0,
            lates: asked.map(|_| Lates::new(1_000_000)),
            readers: u64::from(consume.is_some()),
            consume,
            found: None,
            unverified: None,
            series: Vec::new(),
            vanished: None,
            warnings: Vec::new(),
            seeds: json!({}),
            log_error: None,
        }
    }

    #[test]
    fn a_good_run_says_so_in_numbers() {
        let outcome = outcome(Some(100), Some(side(1000, 150_000)), Some(side(1000, 900_000)));
        assert_eq!((outcome.exit_code(), outcome.alarms().len()), (0, 0));
        let json = outcome.json();
        assert_eq!((&json["loop"], &json["rate_held"], &json["exit_code"]), (&json!("open"), &json!(true), &json!(0)));
        assert_eq!((&json["produce"]["records_per_s"], &json["produce"]["mb_per_s"]), (&json!(100.0), &json!(0.1)));
        assert!((json["produce"]["latency_us"]["p99.99"].as_f64().unwrap() - 150.0).abs() < 0.5);
        assert!((json["produce"]["service_us"]["p50"].as_f64().unwrap() - 75.0).abs() < 0.5);
        assert!((json["consume"]["end_to_end_us"]["max"].as_f64().unwrap() - 900.0).abs() < 1.0);
        let text = outcome.text();
        assert!(text.contains("open loop at 100 records/s") && text.contains("ack from intended") && text.contains("p99.99"), "{text}");
        assert!(!text.contains("CLOSED") && !text.contains("!!!"), "{text}");
    }

    #[test]
    fn a_missed_rate_is_exit_code_three_and_loud() {
        let mut outcome = outcome(Some(100), Some(side(989, 1000)), None);
        outcome.unsent = 11;
        assert_eq!(outcome.exit_code(), EXIT_RATE);
        assert!(outcome.text().lines().nth(1).unwrap().starts_with("!!! THE RATE WAS NOT REACHED: 99 of 100"), "{}", outcome.text());
        assert_eq!(outcome.json()["rate_held"], false);
        outcome.produce = Some(side(990, 1000));
        assert_eq!(outcome.exit_code(), 0);
    }

    #[test]
    fn an_overload_shows_its_throughput_although_no_record_of_the_window_was_sent() {
        let mut side = Side::new();
        (side.done_records, side.done_bytes) = (500, 500_000);
        let outcome = outcome(Some(100), Some(side), None);
        assert_eq!(outcome.exit_code(), EXIT_RATE);
        assert!(outcome.text().contains("THE RATE WAS NOT REACHED: 50 of 100"), "{}", outcome.text());
        assert_eq!(outcome.json()["produce"]["records_per_s"], 50.0);
    }

    fn lates(late: Late, late_records: u64, good_records: u64) -> Option<Lates> {
        let mut lates = Lates::new(1_000_000);
        (0..late_records).for_each(|_| lates.take(late));
        (0..good_records).for_each(|_| lates.take(Late { all_ns: 900_000, own_ns: 900_000 }));
        Some(lates)
    }

    #[test]
    fn a_generator_that_sends_late_is_exit_code_three_although_the_rate_is_held() {
        let mut outcome = outcome(Some(100), Some(side(1000, 1000)), None);
        outcome.lates = lates(Late { all_ns: 5_000_000, own_ns: 5_000_000 }, 11, 989);
        assert_eq!(outcome.exit_code(), EXIT_RATE);
        let text = outcome.text();
        assert!(text.contains("!!! RECORDS WERE SENT LATE: 1.1 %") && text.contains("LOAD GENERATOR") && text.contains("1ms"), "{text}");
        assert!(text.contains("lateness  sent p50 9"), "{text}");
        assert_eq!(outcome.json()["lateness"]["late_by_generator"], 11);
        outcome.lates = lates(Late { all_ns: 5_000_000, own_ns: 5_000_000 }, 10, 990);
        assert_eq!((outcome.exit_code(), outcome.alarms().len()), (0, 0), "one in a hundred is allowed");
        outcome.lates = lates(Late { all_ns: 5_000_000, own_ns: 0 }, 500, 500);
        assert_eq!(outcome.exit_code(), 0, "what waits for the server is in the latency and is no fault of the generator");
    }

    #[test]
    fn a_missed_rate_names_the_bottleneck() {
        let told = |lates, produced, consumed: Option<u64>| {
            let mut outcome = outcome(Some(100), Some(side(produced, 1)), consumed.map(|records| side(records, 1)));
            outcome.lates = lates;
            outcome.alarms()[0].clone()
        };
        let (own, blocked) = (Late { all_ns: 9_000_000, own_ns: 9_000_000 }, Late { all_ns: 9_000_000, own_ns: 0 });
        for (lates, produced, consumed, part) in [
            (lates(own, 400, 100), 500, None, "the bottleneck was the LOAD GENERATOR, by whose own fault 80.0 % of the records were late"),
            (lates(blocked, 400, 100), 500, None, "the bottleneck was the SERVER, which did not take 80.0 % of the records in time"),
            (lates(own, 0, 500), 500, None, "the bottleneck was the SERVER: records were sent in time and answered late"),
            (lates(own, 0, 1000), 1000, Some(500), "the bottleneck was the reading side"),
        ] {
            let sentence = told(lates, produced, consumed);
            assert!(sentence.starts_with("THE RATE WAS NOT REACHED: 50 of 100") && sentence.contains(part), "{sentence}");
        }
    }

    #[test]
    fn each_of_several_readers_has_to_keep_the_rate() {
        let mut outcome = outcome(Some(100), Some(side(1000, 1)), Some(side(4000, 1)));
        outcome.readers = 4;
        assert_eq!(outcome.exit_code(), 0);
        outcome.readers = 5;
        assert_eq!(outcome.exit_code(), EXIT_RATE);
    }

    #[test]
    fn answers_that_take_long_and_come_steadily_are_no_missed_rate() {
        let mut slow = side(1000, 1_000_000_000);
        slow.last_done_ns = 12 * SECOND_NS;
        assert_eq!(outcome(Some(100), Some(slow), None).exit_code(), 0);
    }

    #[test]
    fn a_slow_reader_misses_the_rate_too() {
        assert_eq!(outcome(Some(100), Some(side(1000, 1)), Some(side(900, 1))).exit_code(), EXIT_RATE);
    }

    #[test]
    fn failures_outrank_a_missed_rate() {
        let mut failed = outcome(Some(100), Some(side(10, 1000)), None);
        failed.produce.as_mut().unwrap().failed = 1;
        assert_eq!(failed.exit_code(), EXIT_FAILED);
        let mut vanished = outcome(None, Some(side(10, 1000)), None);
        vanished.vanished = Some("no answer for 2 s".to_owned());
        assert_eq!(vanished.exit_code(), EXIT_FAILED);
        assert!(vanished.text().contains("ENDED EARLY: no answer for 2 s"));
        let mut lost = outcome(None, Some(side(10, 1000)), Some(side(10, 1000)));
        lost.found = Some(Found { received: 10, lost: 1, ..Found::default() });
        assert_eq!(lost.exit_code(), EXIT_FAILED);
        assert!(lost.text().contains("1 lost"));
    }

    #[test]
    fn what_could_not_be_read_back_is_a_failure() {
        let mut outcome = outcome(None, Some(side(10, 1000)), None);
        outcome.unverified = Some("the disk is gone".to_owned());
        assert_eq!(outcome.exit_code(), EXIT_FAILED);
        assert!(outcome.text().contains("!!! WHAT WAS WRITTEN COULD NOT BE READ BACK: the disk is gone"));
    }

    #[test]
    fn a_closed_loop_is_called_so_in_all_output() {
        let outcome = outcome(None, Some(side(1000, 1000)), Some(side(1000, 1000)));
        assert_eq!(outcome.exit_code(), 0);
        let text = outcome.text();
        assert!(
            text.starts_with("both: CLOSED LOOP") && text.contains("ack CLOSED LOOP") && text.contains("end to end CLOSED LOOP"),
            "{text}"
        );
        assert!(!text.contains("from intended"), "{text}");
        let json = outcome.json();
        assert_eq!(json["loop"], "closed");
        assert!(json["latency_is"].as_str().unwrap().starts_with("CLOSED LOOP"));
        assert_eq!((&json["asked_records_per_s"], &json["rate_held"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn reading_alone_has_no_loop() {
        let mut outcome = outcome(None, None, Some(side(5, 1)));
        outcome.mode = "consume";
        assert_eq!(outcome.json()["loop"], Value::Null);
        assert!(!outcome.text().contains("CLOSED"));
    }

    #[test]
    fn a_run_without_any_record_has_a_report() {
        let outcome = outcome(Some(10), Some(Side::new()), None);
        assert_eq!((outcome.exit_code(), &outcome.json()["produce"]["latency_us"]), (EXIT_RATE, &Value::Null));
        assert!(!outcome.text().contains("p50"));
    }

    #[test]
    fn the_line_of_a_second_has_rate_bytes_percentiles_and_errors() {
        let mut interval = Interval::new();
        (interval.records, interval.bytes, interval.errors) = (2000, 2_000_000, 3);
        record(&mut interval.latency, 120_000);
        let line = progress_line(7, "open", &[("write", &interval)], 2.0);
        assert_eq!(line, "   7s open      write 1000/s 1.00 MB/s p50 120 us p99 120 us errors 3");
        assert_eq!(progress_json(7, "open", &[("write", &interval)], 2.0)["write"]["records_per_s"], 1000.0);
    }
}
