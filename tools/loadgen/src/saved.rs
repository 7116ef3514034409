//! A report read back: what `compare` and the plots look at.
//!
//! Invariants: what is not a report of this program is refused with a sentence that says why; an entry that is missing is shown as
//! missing, never guessed. Plots are drawn from this form also right after a run, so a report always has all that a plot needs.
//! Not here: what is made of it (`compare.rs`, `plot.rs`).

use crate::encoded::decode;
use crate::report::{FORMAT_VERSION, TOOL};
use hdrhistogram::Histogram;
use serde_json::Value;
use std::fs::File;
use std::io::Read;

/// Longest report that is read: a day has 86,400 lines of some 500 bytes. What is longer is something else.
const REPORT_BYTES_MAX: u64 = 256 << 20;
/// The tags in the order in which they are shown, with their names for people.
pub const METRICS: [(&str, &str); 4] =
    [("ack", "ack from intended"), ("service", "ack from send"), ("e2e", "end to end"), ("connect", "connect from due")];

/// A latency of the report.
pub struct SavedMetric {
    /// `ack`, `connect`, `service` or `e2e`.
    pub tag: &'static str,
    /// For people; says so when it is of a closed loop.
    pub name: String,
    /// Nanoseconds.
    pub histogram: Histogram<u64>,
}

/// See the module's page.
pub struct Saved {
    value: Value,
    /// The latencies that were measured.
    pub metrics: Vec<SavedMetric>,
}

impl Saved {
    /// Reads a file.
    pub fn load(path: &str) -> Result<Saved, String> {
        let file = File::open(path).map_err(|cause| format!("{path} cannot be read: {cause}"))?;
        let mut text = Vec::new();
        file.take(REPORT_BYTES_MAX + 1).read_to_end(&mut text).map_err(|cause| format!("{path} cannot be read: {cause}"))?;
        if text.len() as u64 > REPORT_BYTES_MAX {
            return Err(format!("{path} is longer than any report ({} MiB)", REPORT_BYTES_MAX >> 20));
        }
        let value = serde_json::from_slice(&text).map_err(|cause| format!("{path} is not JSON: {cause}"))?;
        Saved::new(value).map_err(|why| format!("{path} {why}"))
    }

    /// Takes a report, or ends the sentence that begins with its name.
    pub fn new(value: Value) -> Result<Saved, String> {
        if value["tool"] != TOOL {
            return Err("is not a report of tramline-loadgen (--json)".to_owned());
        }
        match value["format_version"].as_u64() {
            Some(FORMAT_VERSION) => {}
            Some(other) => {
                return Err(format!("has report format {other}, this program reads {FORMAT_VERSION}; use the program that wrote it"));
            }
            None => return Err("was written before reports had histograms; measure again".to_owned()),
        }
        let closed = value["loop"] == "closed";
        let mut metrics = Vec::new();
        for (tag, name) in METRICS {
            let Some(entry) = value["histograms"].get(tag) else { continue };
            let text = entry.as_str().ok_or_else(|| format!("has a damaged histogram {tag}: not a text"))?;
            let histogram = decode(text).map_err(|why| format!("has a damaged histogram {tag}: {why}"))?;
            let name = match (closed, tag) {
                (false, "service") if value["mode"] == "churn" => "connect from start".to_owned(),
                (false, _) => name.to_owned(),
                (true, "ack") => "ack CLOSED LOOP".to_owned(),
                (true, _) => format!("{name} CLOSED LOOP"),
            };
            metrics.push(SavedMetric { tag, name, histogram });
        }
        Ok(Saved { value, metrics })
    }

    /// Whether the records waited for answers.
    pub fn closed(&self) -> bool {
        self.value["loop"] == "closed"
    }

    /// The report's own first line.
    pub fn heading(&self) -> &str {
        self.value["heading"].as_str().unwrap_or("a run without a heading")
    }

    /// Any entry.
    pub fn get(&self, name: &str) -> &Value {
        &self.value[name]
    }

    /// The latency with this tag.
    pub fn metric(&self, tag: &str) -> Option<&SavedMetric> {
        self.metrics.iter().find(|metric| metric.tag == tag)
    }

    /// A number of a side (`produce`, `consume`).
    pub fn number(&self, side: &str, name: &str) -> Option<f64> {
        self.value[side][name].as_f64()
    }

    /// The lines per second.
    pub fn seconds(&self) -> &[Value] {
        self.value["seconds"].as_array().map_or(&[], Vec::as_slice)
    }

    /// The report's sentences under a name (`alarms`, `warnings`).
    pub fn sentences(&self, name: &str) -> impl Iterator<Item = &str> {
        self.value[name].as_array().into_iter().flatten().filter_map(Value::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_no_report_is_refused_with_the_reason() {
        for (value, part) in [
            (json!({}), "is not a report"),
            (json!([1]), "is not a report"),
            (json!({"tool": "other", "format_version": 1}), "is not a report"),
            (json!({"tool": TOOL}), "before reports had histograms"),
            (json!({"tool": TOOL, "format_version": 2}), "report format 2"),
            (json!({"tool": TOOL, "format_version": 1, "histograms": {"ack": 7}}), "damaged histogram ack: not a text"),
            (json!({"tool": TOOL, "format_version": 1, "histograms": {"e2e": "AAAA"}}), "damaged histogram e2e"),
        ] {
            assert!(Saved::new(value.clone()).err().unwrap().contains(part), "{value}");
        }
    }

    #[test]
    fn files_that_cannot_be_read_are_told_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        let load = |path: &std::path::Path| Saved::load(path.to_str().unwrap()).err().unwrap();
        assert!(load(&path).contains("x.json cannot be read"));
        assert!(load(dir.path()).contains("cannot be read"));
        std::fs::write(&path, "{\"tool\": ").unwrap();
        assert!(load(&path).contains("x.json is not JSON"));
    }

    #[test]
    fn a_report_with_little_in_it_is_still_one() {
        let saved = Saved::new(json!({"tool": TOOL, "format_version": 1})).unwrap();
        assert!(saved.metrics.is_empty() && saved.seconds().is_empty() && saved.number("produce", "records_per_s").is_none());
    }
}
