//! What a plot shows: the percentile curve of each latency, its seconds, and the rates.
//!
//! Invariants: the horizontal axis of the curve is 1/(1-q), logarithmic, and ends at the number of records, since beyond it there is
//! nothing to see; percentiles of seconds are never averaged (in a long run a point is the worst of several seconds, and the
//! label says of how many); a closed loop is said in the title and at each of its lines.
//! Not here: drawing (`chart.rs`).

use crate::chart::{Axis, COLOURS, Line, Mark, Panel, svg};
use crate::hgrm::steps;
use crate::report::CLOSED_LOOP;
use crate::saved::{METRICS, Saved};
use hdrhistogram::Histogram;
use serde_json::Value;

/// Points of a line at most: twice the pixels of a panel's width.
const POINTS_MAX: usize = 1600;
/// The rest of a second at the end of a run has too few records for a point when it is shorter; they are in the percentile curve.
const LENGTH_S_MIN: f64 = 0.5;
/// What fits in the width of the picture.
const ALARM_CHARS_MAX: usize = 150;
/// Sides of the lines per second and what they are called.
const SIDES: [(&str, &str, &str); 4] = [
    ("write", "acknowledgements", "written"),
    ("read", "end to end", "read"),
    ("replay", "", "replayed"),
    ("connect", "connections", "connected"),
];

/// The plot of one run.
pub fn of_run(run: &Saved) -> String {
    let mut head: Vec<String> = lines_of(run.heading());
    head.extend(about(run));
    head.extend(alarms("", run));
    picture(head, &[("", run)])
}

/// The plot of two runs, A as solid lines and B as dashed ones.
pub fn of_two(a: &Saved, b: &Saved) -> String {
    let loops = match (a.closed(), b.closed()) {
        (false, false) => String::new(),
        (true, true) => format!(", both {CLOSED_LOOP}"),
        (true, false) => format!(", only A {CLOSED_LOOP}"),
        (false, true) => format!(", only B {CLOSED_LOOP}"),
    };
    let mut head = vec![format!("two runs compared{loops}")];
    head.extend([("A", a), ("B", b)].into_iter().flat_map(|(name, run)| lines_of(&format!("{name}: {}", run.heading()))));
    head.extend([("A: ", a), ("B: ", b)].into_iter().flat_map(|(name, run)| alarms(name, run)));
    picture(head, &[("A ", a), ("B ", b)])
}

/// A heading has two parts with two blanks between, and together they are wider than the picture.
fn lines_of(heading: &str) -> Vec<String> {
    heading.split("  ").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// The report's alarms; the beginning of a long one is enough to look it up in the report.
fn alarms(name: &str, run: &Saved) -> Vec<String> {
    let short = |sentence: &str| format!("!!! {name}{}", sentence.chars().take(ALARM_CHARS_MAX).collect::<String>());
    run.sentences("alarms").map(short).collect()
}

/// What the numbers were measured on, as far as the report knows.
fn about(run: &Saved) -> Option<String> {
    let environment = run.get("environment");
    let facts = ["cpu", "kernel", "commit"].map(|name| environment[name].as_str().map(|value| format!("{name} {value}")));
    let facts: Vec<String> = facts.into_iter().flatten().collect();
    (!facts.is_empty()).then(|| facts.join(", "))
}

fn picture(head: Vec<String>, runs: &[(&str, &Saved)]) -> String {
    let mut panels: Vec<Panel> = curves(runs).into_iter().collect();
    panels.extend(SIDES.iter().filter_map(|(side, name, _)| seconds(runs, side, name)));
    panels.push(rates(runs));
    svg(&head, &panels)
}

/// The percentile curves of all runs; none without a latency.
fn curves(runs: &[(&str, &Saved)]) -> Option<Panel> {
    let mut lines = Vec::new();
    for (index, (prefix, run)) in runs.iter().enumerate() {
        for metric in &run.metrics {
            let colour = COLOURS[METRICS.iter().position(|(tag, _)| *tag == metric.tag).unwrap_or(0)];
            let points = curve(&metric.histogram);
            lines.push(Line { name: format!("{prefix}{}", metric.name), colour, dashed: index > 0, points });
        }
    }
    let all = || lines.iter().flat_map(|line| &line.points);
    let y = Axis::logarithmic("latency, us (logarithmic)", all().map(|(_, y)| *y));
    let x_end = all().map(|(x, _)| *x).fold(10.0, f64::max);
    let title = "percentiles of the measured part".to_owned();
    (!lines.is_empty()).then(|| Panel { title, x: percentile_axis(x_end), y, lines, marks: Vec::new() })
}

/// Points of a curve: 1/(1-q) and microseconds.
pub fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let end = histogram.len() as f64;
    // The last step is q = 1, at infinity; and no step can be behind the one record that is the maximum.
    steps(histogram).into_iter().map(|step| ((1.0 / (1.0 - step.quantile)).min(end), step.value_ns as f64 / 1e3)).collect()
}

fn percentile_axis(end: f64) -> Axis {
    let names = [(1.0, "0 %"), (2.0, "50 %"), (10.0, "90 %"), (100.0, "99 %"), (1e3, "99.9 %"), (1e4, "99.99 %"), (1e5, "99.999 %")];
    let names = names.into_iter().chain([(1e6, "99.9999 %"), (1e7, "99.99999 %"), (1e8, "99.999999 %")]);
    let ticks = names.filter(|(at, _)| *at <= end).map(|(at, name)| (at, name.to_owned())).collect();
    Axis { label: "percentile, at 1/(1-q) (logarithmic)".to_owned(), ticks, range: (1.0, end), logarithmic: true }
}

/// p50, p99 and maximum of each second of one side; none when it has no latencies.
fn seconds(runs: &[(&str, &Saved)], side: &str, name: &str) -> Option<Panel> {
    let mut lines = Vec::new();
    let mut of_each = 1;
    for (index, (prefix, run)) in runs.iter().enumerate() {
        for (field, colour) in [("p50_us", COLOURS[2]), ("p99_us", COLOURS[0]), ("max_us", COLOURS[1])] {
            let all: Vec<(f64, f64)> = whole_seconds(run).map(|second| (end_s(second), number(&second[side][field]))).collect();
            if all.iter().all(|(_, y)| y.is_nan()) {
                continue;
            }
            let (points, group) = thinned(&all, f64::max);
            of_each = of_each.max(group);
            let loop_name = if run.closed() { " CLOSED LOOP" } else { "" };
            let name = format!("{prefix}{}{loop_name}", field.trim_end_matches("_us"));
            lines.push(Line { name, colour, dashed: index > 0, points });
        }
    }
    let y = Axis::logarithmic("latency, us (logarithmic)", lines.iter().flat_map(|line| &line.points).map(|(_, y)| *y));
    let worst = if of_each > 1 { format!(", the worst of each {of_each} seconds") } else { String::new() };
    let title = format!("{name}: latency of each second{worst}");
    (!lines.is_empty()).then(|| Panel { title, x: time_axis(runs), y, lines, marks: marks(runs) })
}

/// Records per second of both sides.
fn rates(runs: &[(&str, &Saved)]) -> Panel {
    let mut lines = Vec::new();
    for (index, (prefix, run)) in runs.iter().enumerate() {
        for ((side, _, name), colour) in SIDES.iter().zip(COLOURS) {
            let all: Vec<(f64, f64)> = whole_seconds(run).map(|second| (end_s(second), number(&second[side]["records_per_s"]))).collect();
            if all.iter().any(|(_, y)| y.is_finite()) {
                // Seconds are equally long, so their mean is the rate of them together.
                let (mut points, group) = thinned(&all, |sum, value| sum + value);
                points.iter_mut().for_each(|(_, y)| *y /= group as f64);
                lines.push(Line { name: format!("{prefix}{name}"), colour, dashed: index > 0, points });
            }
        }
    }
    let highest = lines.iter().flat_map(|line| &line.points).map(|(_, y)| *y).fold(0.0, f64::max);
    let y = Axis::linear("records/s", highest);
    Panel { title: "rate of each second".to_owned(), x: time_axis(runs), y, lines, marks: marks(runs) }
}

fn time_axis(runs: &[(&str, &Saved)]) -> Axis {
    let end = runs.iter().filter_map(|(_, run)| run.seconds().last()).map(end_s).fold(1.0, f64::max);
    Axis { range: (0.0, end), ..Axis::linear("seconds since the beginning, warm-up included", end) }.within()
}

impl Axis {
    /// Without the ticks that lie behind the end.
    fn within(mut self) -> Axis {
        let end = self.range.1;
        self.ticks.retain(|(at, _)| *at <= end);
        self
    }
}

/// Where the measured part begins and ends; of one run only, since two would cover each other.
fn marks(runs: &[(&str, &Saved)]) -> Vec<Mark> {
    let [(_, run)] = runs else { return Vec::new() };
    let (from, length) = (number(&run.get("parameters")["warmup_s"]), number(run.get("measured_s")));
    let marks = [(from, "measured from here"), (from + length, "to here")];
    marks.into_iter().filter(|(at, _)| at.is_finite() && *at > 0.0).map(|(at, name)| Mark { at, name: name.to_owned() }).collect()
}

/// The seconds that are long enough for a point.
fn whole_seconds(run: &Saved) -> impl Iterator<Item = &Value> {
    run.seconds().iter().filter(|second| number(&second["length_s"]) >= LENGTH_S_MIN)
}

/// The time at which a second was over.
fn end_s(second: &Value) -> f64 {
    number(&second["end_s"])
}

/// A number, or none as "not a number", which leaves a gap in a line.
fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

/// At most so many points as can be seen: neighbours are put together with `join`, and how many of them is told. Whole groups only, so
/// that all mean the same; the rest at the end is the last group, overlapping the one before.
fn thinned(points: &[(f64, f64)], join: impl Fn(f64, f64) -> f64) -> (Vec<(f64, f64)>, usize) {
    let group = points.len().div_ceil(POINTS_MAX).max(1);
    if group == 1 {
        return (points.to_vec(), 1);
    }
    let joined = |part: &[(f64, f64)]| {
        let end = part.last().map_or(f64::NAN, |(x, _)| *x);
        (end, part.iter().map(|(_, y)| *y).filter(|y| y.is_finite()).reduce(&join).unwrap_or(f64::NAN))
    };
    let mut thin: Vec<(f64, f64)> = points.chunks_exact(group).map(joined).collect();
    if !points.len().is_multiple_of(group) {
        thin.push(joined(&points[points.len() - group..]));
    }
    (thin, group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chart::check_xml;
    use crate::encoded::encode;
    use crate::report::TOOL;
    use crate::stats::{histogram, record};
    use serde_json::json;

    fn report(loop_name: &str, seconds: usize) -> Saved {
        let mut times = histogram();
        (1..=10_000u64).for_each(|n| record(&mut times, n * 1_000));
        let second = |n: usize| {
            let side = json!({"records_per_s": 1000.0, "p50_us": 50.0 + n as f64, "p99_us": 200.0, "max_us": 900.0});
            json!({"second": n, "end_s": n as f64, "length_s": 1.0, "write": side, "read": side})
        };
        let histograms = json!({"ack": encode(&times), "e2e": encode(&times)});
        let mut seconds: Vec<Value> = (1..=seconds).map(second).collect();
        let mut rest = second(seconds.len() + 1);
        rest["length_s"] = json!(0.03);
        seconds.push(rest);
        Saved::new(json!({"tool": TOOL, "format_version": 1, "loop": loop_name, "heading": "both: a <test> & more", "measured_s": 9.0,
            "alarms": ["THE RATE WAS NOT REACHED"], "parameters": {"warmup_s": 1.0}, "environment": {"cpu": "x"}, "histograms": histograms, "seconds": seconds}))
        .unwrap()
    }

    fn points(svg: &str) -> Vec<usize> {
        svg.split("points=\"").skip(1).map(|rest| rest.split('"').next().unwrap().split(' ').count()).collect()
    }

    #[test]
    fn a_run_has_its_curves_its_seconds_and_its_rates() {
        let run = report("open", 10);
        let svg = of_run(&run);
        check_xml(&svg).unwrap();
        let curve_points = steps(&run.metrics[0].histogram).len();
        let mut expected = vec![curve_points; 2];
        expected.extend([10; 8]); // p50, p99, max of two sides, then two rates
        assert_eq!(points(&svg), expected);
        for part in [
            "99.99 %",
            "latency, us",
            "records/s",
            "seconds since",
            "ack from intended",
            "end to end",
            "p99",
            "measured from here",
            "!!! THE RATE",
        ] {
            assert!(svg.contains(part), "{part}");
        }
        assert!(!svg.contains("CLOSED"));
    }

    #[test]
    fn the_curve_ends_at_the_number_of_records_with_the_maximum() {
        let run = report("open", 1);
        let curve = curve(&run.metrics[0].histogram);
        let (first, last) = (curve[0], curve[curve.len() - 1]);
        assert_eq!((first.0, last.0), (1.0, 10_000.0));
        assert!((last.1 - 10_000.0).abs() < 10.0 && curve.windows(2).all(|pair| pair[0] <= pair[1]), "{curve:?}");
    }

    #[test]
    fn a_closed_loop_is_said_in_the_title_and_at_its_lines() {
        let (open, closed) = (report("open", 3), report("closed", 3));
        let svg = of_two(&open, &closed);
        check_xml(&svg).unwrap();
        let title = svg.split("<title>").nth(1).unwrap().split("</title>").next().unwrap();
        assert!(title.contains("CLOSED LOOP"), "{title}");
        assert!(svg.contains("B ack CLOSED LOOP") && svg.contains("A ack from intended") && svg.contains("B p99 CLOSED LOOP"), "{svg}");
        assert_eq!(points(&svg).len(), 4 + 12 + 4);
        assert!(!of_two(&open, &open).contains("CLOSED"));
    }

    #[test]
    fn a_run_without_latencies_or_seconds_still_has_a_picture() {
        let empty = Saved::new(json!({"tool": TOOL, "format_version": 1})).unwrap();
        let svg = of_run(&empty);
        check_xml(&svg).unwrap();
        assert_eq!(points(&svg), Vec::<usize>::new());
    }

    #[test]
    fn a_long_run_shows_the_worst_of_several_seconds_and_says_so() {
        let mut all: Vec<(f64, f64)> = (0..5_000).map(|n| (f64::from(n), 10.0)).collect();
        all[777].1 = 9_999.0;
        let (thin, group) = thinned(&all, f64::max);
        assert!(thin.len() <= POINTS_MAX && group == 4, "{} {group}", thin.len());
        assert_eq!(thin.iter().filter(|(_, y)| *y == 9_999.0).count(), 1);
        assert!(of_run(&report("open", 5_000)).contains("the worst of each 4 seconds"));
    }
}
