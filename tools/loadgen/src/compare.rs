//! `compare A.json B.json`: quantiles and rates of two reports with their ratios, and what makes the comparison doubtful.
//!
//! Invariants: what differs between the runs is said before the numbers; a closed loop is called so; quantiles come from the
//! reports' histograms, so both are read with the same steps; text of a report is shown without control characters. Ratios are B divided
//! by A: above one, B is slower or faster carrying.
//! Not here: a verdict. Whether a difference is noise, only more runs can tell.

use crate::report::CLOSED_LOOP;
use crate::saved::{METRICS, Saved};
use crate::stats::{PERCENTILES, percentile_us, round_us};
use hdrhistogram::Histogram;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Parameters that differ between any two runs, or are shown at the top.
const PARAMETERS_EXPECTED: [&str; 4] = ["run", "started_unix_s", "server", "topic"];
/// Entries of the environment that are shown at the top: another commit is usually why two runs are compared.
const ENVIRONMENT_SHOWN: [&str; 1] = ["commit"];

/// The comparison for people.
pub fn text(names: [&str; 2], a: &Saved, b: &Saved) -> String {
    let mut text = String::new();
    for (letter, name, run) in [("A", names[0], a), ("B", names[1], b)] {
        line(&mut text, &format!("{letter}  {name}: {}", run.heading()));
        let parameters = run.get("parameters");
        let (server, topic, commit) = (shown(&parameters["server"]), shown(&parameters["topic"]), shown(&run.get("environment")["commit"]));
        line(&mut text, &format!("   server {server}, topic {topic}, load generator's commit {commit}"));
    }
    for warning in warnings(a, b) {
        line(&mut text, &warning);
    }
    for (tag, _) in METRICS {
        latencies(&mut text, tag, a, b);
    }
    rates(&mut text, a, b);
    text
}

/// A line with text from a report or a file's name, without control characters: it must neither play with the terminal nor look like a
/// line of this program's own.
fn line(text: &mut String, content: &str) {
    text.extend(content.chars().map(|c| if c.is_control() { '?' } else { c }));
    text.push('\n');
}

/// What makes the comparison doubtful, the worst first.
fn warnings(a: &Saved, b: &Saved) -> Vec<String> {
    let mut warnings = Vec::new();
    if a.closed() != b.closed() {
        let which = if a.closed() { "A" } else { "B" };
        warnings.push(format!("!!! ONLY {which} IS A {CLOSED_LOOP}: the latencies cannot be compared"));
    } else if a.closed() {
        warnings.push(format!("!!! BOTH ARE A {CLOSED_LOOP}"));
    }
    for (letter, run) in [("A", a), ("B", b)] {
        warnings.extend(run.sentences("alarms").map(|sentence| format!("!!! {letter}: {sentence}")));
    }
    if a.get("mode") != b.get("mode") {
        warnings.push(format!("!!! different scenarios: {} and {}", shown(a.get("mode")), shown(b.get("mode"))));
    }
    for (what, name, left_out) in
        [("machine", "environment", &ENVIRONMENT_SHOWN[..]), ("parameter", "parameters", &PARAMETERS_EXPECTED[..])]
    {
        for (field, left, right) in differences(a.get(name), b.get(name), left_out) {
            warnings.push(format!("warning: {what} differs: {field}: {left} / {right}"));
        }
    }
    for (letter, run) in [("A", a), ("B", b)] {
        warnings.extend(run.sentences("warnings").map(|sentence| format!("warning: {letter}: {sentence}")));
    }
    warnings
}

/// Fields of two objects that are not equal, objects in them by dotted names.
fn differences(a: &Value, b: &Value, left_out: &[&str]) -> Vec<(String, String, String)> {
    let fields: BTreeSet<&String> = [a, b].into_iter().filter_map(Value::as_object).flat_map(|object| object.keys()).collect();
    let mut found = Vec::new();
    for field in fields.into_iter().filter(|field| !left_out.contains(&field.as_str())) {
        let (left, right) = (&a[field], &b[field]);
        if left.is_object() || right.is_object() {
            found.extend(differences(left, right, &[]).into_iter().map(|(name, a, b)| (format!("{field}.{name}"), a, b)));
        } else if left != right {
            found.push((field.clone(), shown(left), shown(right)));
        }
    }
    found
}

/// A value in a sentence.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The table of one latency; nothing when neither has it.
fn latencies(text: &mut String, tag: &str, a: &Saved, b: &Saved) {
    let (left, right) = (a.metric(tag), b.metric(tag));
    let Some(some) = left.or(right) else { return };
    let name = match (left, right) {
        (Some(left), Some(right)) if left.name != right.name => format!("{tag} ({} / {})", left.name, right.name),
        _ => format!("{tag} ({})", some.name),
    };
    let _ = writeln!(text, "\n{name}");
    head(text, "latency us");
    let (left, right) = (left.map(|metric| &metric.histogram), right.map(|metric| &metric.histogram));
    let of = |histogram: Option<&Histogram<u64>>, value: &dyn Fn(&Histogram<u64>) -> f64| histogram.map(value);
    for (name, percentile) in PERCENTILES {
        let value = |histogram: &Histogram<u64>| percentile_us(histogram, percentile);
        row(text, name, of(left, &value), of(right, &value), 1);
    }
    row(text, "max", of(left, &|it| round_us(it.max())), of(right, &|it| round_us(it.max())), 1);
    row(text, "mean", of(left, &|it| round_us(it.mean() as u64)), of(right, &|it| round_us(it.mean() as u64)), 1);
    row(text, "records", of(left, &|it| it.len() as f64), of(right, &|it| it.len() as f64), 0);
}

/// The table of the rates.
fn rates(text: &mut String, a: &Saved, b: &Saved) {
    let rows = [
        ("asked records/s", [a, b].map(|run| run.get("asked_records_per_s").as_f64()), 0),
        ("written records/s", [a, b].map(|run| run.number("produce", "records_per_s")), 0),
        ("written MB/s", [a, b].map(|run| run.number("produce", "mb_per_s")), 2),
        ("connections/s", [a, b].map(|run| run.number("connect", "records_per_s")), 0),
        ("read records/s", [a, b].map(|run| run.number("consume", "records_per_s")), 0),
        ("read MB/s", [a, b].map(|run| run.number("consume", "mb_per_s")), 2),
        ("replayed MB/s", [a, b].map(|run| run.number("replay", "mb_per_s")), 2),
        (
            "failed",
            [a, b].map(|run| Some(["produce", "consume", "replay", "connect"].iter().filter_map(|side| run.number(side, "failed")).sum())),
            0,
        ),
    ];
    text.push('\n');
    head(text, "rates");
    for (name, [left, right], digits) in rows {
        if left.is_some() || right.is_some() {
            row(text, name, left, right, digits);
        }
    }
}

fn head(text: &mut String, name: &str) {
    let _ = writeln!(text, "{name:<18} {:>14} {:>14} {:>8}", "A", "B", "B/A");
}

fn row(text: &mut String, name: &str, a: Option<f64>, b: Option<f64>, digits: usize) {
    let cell = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
    let ratio = a.zip(b).filter(|(a, _)| *a > 0.0).map_or("-".to_owned(), |(a, b)| format!("{:.3}", b / a));
    let _ = writeln!(text, "{name:<18} {:>14} {:>14} {ratio:>8}", cell(a), cell(b));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoded::encode;
    use crate::report::TOOL;
    use crate::stats::{histogram, record};
    use serde_json::json;

    fn value(loop_name: &str, us: u64) -> Value {
        let mut times = histogram();
        (0..1000).for_each(|_| record(&mut times, us * 1_000));
        json!({"tool": TOOL, "format_version": 1, "mode": "produce", "loop": loop_name, "heading": format!("produce at {us}"),
            "asked_records_per_s": if loop_name == "open" { json!(100) } else { Value::Null },
            "parameters": {"size": 1000, "run": us, "server": "h:1", "topic": "t"},
            "environment": {"kernel": "6.1", "commit": format!("c{us}"), "disk": {"file_system": "xfs", "write_cache": "write back"}},
            "produce": {"records_per_s": us as f64 * 10.0, "mb_per_s": 1.0, "failed": 0},
            "histograms": {"ack": encode(&times)}, "alarms": [], "warnings": []})
    }

    fn compared(a: Value, b: Value) -> String {
        text(["a.json", "b.json"], &Saved::new(a).unwrap(), &Saved::new(b).unwrap())
    }

    #[test]
    fn quantiles_and_rates_stand_side_by_side_with_their_ratio() {
        let text = compared(value("open", 100), value("open", 150));
        let row =
            |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().rev().take(3).collect::<Vec<_>>();
        assert_eq!(row("p99.999"), ["1.500", "150.0", "100.0"].map(|cell| cell));
        assert_eq!(row("written records/s"), ["1.500", "1500", "1000"]);
        assert_eq!(row("failed"), ["-", "0", "0"]);
        assert!(text.contains("a.json: produce at 100") && text.contains("commit c150"), "{text}");
        assert!(!text.contains("warning") && !text.contains("!!!") && !text.contains("read"), "{text}");
    }

    #[test]
    fn what_differs_is_said_first() {
        let (a, mut b) = (value("open", 100), value("open", 100));
        b["parameters"]["size"] = json!(10);
        b["parameters"]["keys"] = json!(7);
        b["environment"]["kernel"] = json!("6.2");
        b["environment"]["disk"] = Value::Null;
        b["alarms"] = json!(["THE RATE WAS NOT REACHED"]);
        b["warnings"] = json!(["this is a debug build"]);
        b["mode"] = json!("both");
        let text = compared(a, b);
        for part in [
            "warning: parameter differs: size: 1000 / 10\n",
            "warning: parameter differs: keys: none / 7\n",
            "warning: machine differs: kernel: 6.1 / 6.2\n",
            "warning: machine differs: disk.write_cache: write back / none\n",
            "warning: machine differs: disk.file_system: xfs / none\n",
            "!!! B: THE RATE WAS NOT REACHED\n",
            "warning: B: this is a debug build\n",
            "!!! different scenarios: produce and both\n",
        ] {
            assert!(text.find(part).is_some_and(|at| at < text.find("latency us").unwrap()), "{part}: {text}");
        }
    }

    #[test]
    fn control_characters_of_a_report_do_not_reach_the_terminal() {
        let (a, mut b) = (value("open", 100), value("open", 100));
        let bad = "\u{1b}[2J\rx\n!!! forged\u{9b}";
        for name in ["heading", "mode"] {
            b[name] = json!(bad);
        }
        (b["alarms"], b["warnings"]) = (json!([bad]), json!([bad]));
        (b["parameters"]["server"], b["parameters"]["size"], b["parameters"][bad]) = (json!(bad), json!(bad), json!(1));
        let text = compared(a, b);
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        assert!(text.contains("?[2J?x?!!! forged?") && !text.contains("\n!!! forged"), "{text}");
    }

    #[test]
    fn a_closed_loop_is_loud() {
        assert!(compared(value("open", 1), value("closed", 1)).contains("!!! ONLY B IS A CLOSED LOOP"));
        let both = compared(value("closed", 1), value("closed", 1));
        assert!(both.contains("!!! BOTH ARE A CLOSED LOOP") && both.contains("ack (ack CLOSED LOOP)"), "{both}");
    }

    #[test]
    fn what_only_one_has_is_a_dash_for_the_other() {
        let (a, mut b) = (value("open", 100), value("open", 100));
        b["histograms"] = json!({});
        b["produce"] = Value::Null;
        let text = compared(a, b);
        let line = text.lines().find(|line| line.starts_with("p50")).unwrap();
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["p50", "100.0", "-", "-"]);
    }
}
