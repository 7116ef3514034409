//! The result of a run: the table for people and the JSON for machines.
//!
//! Invariants: a closed loop is called so wherever a latency stands; a rate below 99 % of the asked one is said first and
//! loudest; what was measured is reported also when the run ended early. All rates are per second of the measured part; MB are 10^6 bytes of values.
//! Not here: measuring (everything is a function of numbers), the verdict (`verdict.rs`).

use crate::check::Found;
use crate::encoded::encode;
use crate::interrupt::Signal;
use crate::lateness::Lates;
use crate::schedule::{Window, per_second};
use crate::stats::{ACK, CONNECT, E2E, Interval, PERCENTILES, SERVICE, Side, histogram_json, percentile_us, round_us};
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

/// All that a run showed.
pub struct Outcome {
    /// `produce`, `consume`, `both`, `replay`, `fanout` or `churn`.
    pub mode: &'static str,
    /// The options, for the reader of the file.
    pub parameters: Value,
    /// Machine, kernel, build.
    pub environment: Value,
    /// Rate of the open loop; none for a closed loop or a reader.
    pub asked_rate: Option<u64>,
    /// Whether what is due is drawn at random, so that its number is not the rate times the time.
    pub random_arrivals: bool,
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
    /// Of each reader, each of which gets all records.
    pub readers: Vec<Kept>,
    /// The cold readers.
    pub replay: Option<Replayed>,
    /// The connections of a churn.
    pub connect: Option<Side>,
    /// What the check found.
    pub found: Option<Found>,
    /// Records that were to be read (`--until-end`) and were not when the time was over.
    pub left: u64,
    /// Why it could not be checked.
    pub unverified: Option<String>,
    /// A line per second.
    pub series: Vec<Value>,
    /// Why the run ended early.
    pub vanished: Option<String>,
    /// The signal that ended it, or the reading back after it.
    pub signal: Option<Signal>,
    /// What makes the numbers doubtful.
    pub warnings: Vec<String>,
    /// What each random choice was drawn from.
    pub seeds: Value,
    /// Why the interval log is not complete.
    pub log_error: Option<String>,
}

/// What the cold readers of a run came to, all together.
pub struct Replayed {
    /// Their counts.
    pub side: Side,
    /// Whole laps.
    pub laps: u64,
    /// What the checks of all laps found.
    pub found: Found,
}

/// What one reader kept up with, in the measured part.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// Records that came in the measured part.
    pub done_records: u64,
    /// Records that were intended for the measured part.
    pub measured_records: u64,
    /// When the last of them came.
    pub last_done_ns: u64,
}

impl Kept {
    /// As if so many more had come, at once.
    pub fn with(self, more: u64) -> Kept {
        Kept { done_records: self.done_records + more, measured_records: self.measured_records + more, ..self }
    }

    /// Of one side.
    pub fn of(side: &Side) -> Kept {
        Kept { done_records: side.done_records, measured_records: side.measured_records, last_done_ns: side.last_done_ns }
    }
}

/// One kind of latency of the run.
pub struct Metric<'a> {
    /// Its name in files: `ack`, `service`, `e2e` or `connect`.
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
        self.produce.as_ref().or(self.connect.as_ref()).map(|_| if self.closed() { "closed" } else { "open" })
    }

    /// The sides of the run.
    pub fn sides(&self) -> impl Iterator<Item = &Side> {
        let replay = self.replay.as_ref().map(|replay| &replay.side);
        [self.produce.as_ref(), self.consume.as_ref(), replay, self.connect.as_ref()].into_iter().flatten()
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
        if let Some(side) = &self.connect {
            metrics.push(Metric { tag: CONNECT, name: "connect from due", histogram: &side.latency });
            metrics.push(Metric { tag: SERVICE, name: "connect from start", histogram: &side.service });
        }
        metrics.retain(|metric| !metric.histogram.is_empty());
        metrics
    }

    /// Throughput of the measured part.
    pub fn rate(&self, side: &Side) -> f64 {
        self.rate_of(side.done_records)
    }

    /// So many records as throughput of the measured part.
    pub fn rate_of(&self, records: u64) -> f64 {
        per_second(records, self.window.length_ns())
    }

    fn mb_per_s(&self, side: &Side) -> f64 {
        per_second(side.done_bytes, self.window.length_ns()) / 1e6
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
        let replay = self.replay.as_ref().map(|replay| {
            let mut object = side(&replay.side, "latency_us");
            object["laps"] = json!(replay.laps);
            object["check"] = found_json(replay.found);
            object
        });
        let consume = self.consume.as_ref().map(|consume| {
            let mut object = side(consume, "end_to_end_us");
            let rates: Vec<f64> = self.readers.iter().map(|kept| round(self.rate_of(kept.done_records))).collect();
            object["records_per_s_of_readers"] = json!(rates);
            object
        });
        let connect = self.connect.as_ref().map(|connect| {
            let mut object = side(connect, "latency_us");
            object["service_us"] = histogram_json(&connect.service);
            object["unsent"] = json!(self.unsent);
            object
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
            "consume": consume,
            "replay": replay,
            "connect": connect,
            "left": self.left,
            "check": self.found.map(found_json),
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
        if let Some(replay) = &self.replay {
            let _ = writeln!(text, "replayed  {}, {} whole laps", self.side_line(&replay.side), replay.laps);
            let _ = writeln!(text, "checked   {} (cold readers)", found_text(replay.found));
        }
        if let Some(side) = &self.connect {
            let _ =
                writeln!(text, "connected {} connections, {:.0} connections/s, {} failed", side.done_records, self.rate(side), side.failed);
        }
        if let Some(found) = self.found {
            let _ = writeln!(text, "checked   {}", found_text(found));
        }
        for (sentence, count) in self.sides().flat_map(|side| &side.errors) {
            let _ = writeln!(text, "error     {count} x {sentence}");
        }
        text.push_str(&self.latency_table());
        text
    }

    /// The first line: what ran, and how.
    pub fn heading(&self) -> String {
        let load = match (self.loop_name(), self.asked_rate) {
            (Some("open"), Some(rate)) if self.connect.is_some() => format!("open loop at {rate} connections/s"),
            (Some("open"), Some(rate)) => format!("open loop at {rate} records/s"),
            (Some(_), _) => CLOSED_LOOP.to_owned(),
            (None, _) => "reading".to_owned(),
        };
        let options = self.parameters.as_object().map(|object| {
            let shown = |value: &Value| value.as_str().map(str::to_owned).unwrap_or_else(|| value.to_string());
            let wanted = [
                "arrivals",
                "action",
                "readers",
                "cold_readers",
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

fn found_json(found: Found) -> Value {
    json!({
        "received": found.received, "lost": found.lost, "duplicates": found.duplicates, "reordered": found.reordered,
        "changed": found.changed, "foreign": found.foreign, "good": found.good(),
    })
}

fn found_text(found: Found) -> String {
    let Found { received, lost, duplicates, reordered, changed, foreign } = found;
    let foreign = if foreign > 0 { format!("; {foreign} not of this run") } else { String::new() };
    format!("{received} records: {lost} lost, {duplicates} duplicated, {reordered} reordered, {changed} changed{foreign}")
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
    use crate::stats::record;
    use crate::tests::{outcome, side};
    use crate::verdict::{EXIT_FAILED, EXIT_RATE};

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
    fn a_churn_has_connections_and_a_latency_of_its_own() {
        let mut outcome = outcome(Some(100), None, None);
        outcome.mode = "churn";
        outcome.connect = Some(side(1000, 400_000));
        let json = outcome.json();
        assert_eq!((&json["loop"], &json["connect"]["records_per_s"], &json["produce"]), (&json!("open"), &json!(100.0), &Value::Null));
        assert!((json["connect"]["latency_us"]["p99"].as_f64().unwrap() - 400.0).abs() < 1.0);
        let text = outcome.text();
        assert!(text.contains("open loop at 100 connections/s") && text.contains("connect from due"), "{text}");
        assert_eq!(outcome.exit_code(), 0);
    }

    #[test]
    fn a_replay_is_reported_and_checked_beside_the_tail() {
        let mut outcome = outcome(Some(100), Some(side(1000, 1)), Some(side(1000, 1)));
        outcome.replay = Some(Replayed { side: side(50_000, 1), laps: 3, found: Found { received: 50_000, ..Found::default() } });
        assert!(
            outcome.text().contains("replayed  50000 records, 5000 records/s, 5.00 MB/s, 0 failed, 3 whole laps"),
            "{}",
            outcome.text()
        );
        assert_eq!((&outcome.json()["replay"]["laps"], outcome.exit_code()), (&json!(3), 0));
        outcome.replay.as_mut().unwrap().found.changed = 1;
        assert_eq!(outcome.exit_code(), EXIT_FAILED);
        assert!(outcome.text().contains("!!! RECORDS ARE NOT WHAT WAS WRITTEN: 0 lost, 0 duplicated, 0 reordered, 1 changed"));
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
