//! A report as a table for people and as JSON for programs.

use super::finding::{Report, Severity};
use std::fmt::Write;

/// One line per finding, the severe ones last of their topic being as visible as the others; the counts at the end.
pub fn table(report: &Report) -> String {
    let rows: Vec<[&str; 4]> = report
        .findings
        .iter()
        .map(|finding| [finding.severity.word(), finding.topic, finding.name.as_str(), finding.found.as_str()])
        .collect();
    let heads = ["SEVERITY", "TOPIC", "NAME", "FOUND"];
    // What was found may be long; the reason then stands further right in that line alone.
    let most = [usize::MAX, usize::MAX, usize::MAX, 40];
    let widths: [usize; 4] =
        std::array::from_fn(|i| rows.iter().map(|row| row[i].chars().count()).chain([heads[i].len()]).max().unwrap_or(0).min(most[i]));
    let mut out = String::new();
    let mut line = |cells: [&str; 4], reason: &str| {
        let [a, b, c, d] = widths;
        let _ = writeln!(out, "{:a$}  {:b$}  {:c$}  {:d$}  {reason}", cells[0], cells[1], cells[2], cells[3]);
    };
    line(heads, "REASON");
    for (row, finding) in rows.iter().zip(&report.findings) {
        line(*row, &finding.reason);
    }
    let counts: Vec<String> = Severity::ALL
        .iter()
        .rev()
        .filter(|severity| report.count(**severity) > 0)
        .map(|severity| format!("{} {}", report.count(*severity), severity.word()))
        .collect();
    let _ = writeln!(out, "\n{}", counts.join(", "));
    out
}

/// `{"worst": .., "counts": {..}, "findings": [..]}`.
pub fn json(report: &Report) -> String {
    let findings: Vec<serde_json::Value> = report
        .findings
        .iter()
        .map(|finding| {
            serde_json::json!({
                "severity": finding.severity.word(),
                "topic": finding.topic,
                "name": finding.name,
                "found": finding.found,
                "reason": finding.reason,
            })
        })
        .collect();
    let counts: serde_json::Map<String, serde_json::Value> =
        Severity::ALL.iter().map(|severity| (severity.word().to_owned(), report.count(*severity).into())).collect();
    let whole = serde_json::json!({ "worst": report.worst().word(), "counts": counts, "findings": findings });
    format!("{whole:#}\n")
}
