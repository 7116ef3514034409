//! Draws line charts as SVG: panels one below the other, each with axes, grid, lines and a legend.
//!
//! Invariants: the text is well-formed XML whatever names it is given; a point that is not a number breaks its line instead of
//! being guessed; everything that is drawn lies in its panel. Small enough that a plotting crate would be the larger thing.
//! Not here: what is drawn (`plot.rs`).

use std::fmt::Write as _;

/// Width of the picture, in pixels as all sizes here.
const WIDTH: f64 = 1100.0;
/// Left of a panel: tick texts and the name of the axis.
const LEFT: f64 = 90.0;
/// Right of a panel: the legend.
const RIGHT: f64 = 230.0;
const PANEL_HEIGHT: f64 = 260.0;
/// Between two panels: the ticks and name of the upper one's axis, the title of the lower one.
const PANEL_GAP: f64 = 80.0;
const LINE_HEIGHT: f64 = 18.0;
/// Colours that people with the usual kinds of colour blindness can tell apart (Okabe and Ito).
pub const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/// One direction of a panel.
pub struct Axis {
    /// What is measured and in which unit.
    pub label: String,
    /// Places of the scale with their texts, ascending.
    pub ticks: Vec<(f64, String)>,
    /// The two ends.
    pub range: (f64, f64),
    /// Whether equal ratios are equal distances.
    pub logarithmic: bool,
}

/// A line.
pub struct Line {
    /// What the legend calls it.
    pub name: String,
    /// Its colour.
    pub colour: &'static str,
    /// Whether it is dashed.
    pub dashed: bool,
    /// Its points; one that is not a number is a gap.
    pub points: Vec<(f64, f64)>,
}

/// A place on the horizontal axis that is worth a mark.
pub struct Mark {
    /// Where.
    pub at: f64,
    /// What is there.
    pub name: String,
}

/// A chart.
pub struct Panel {
    /// Above it.
    pub title: String,
    /// Horizontal.
    pub x: Axis,
    /// Vertical.
    pub y: Axis,
    /// What is drawn.
    pub lines: Vec<Line>,
    /// Vertical marks.
    pub marks: Vec<Mark>,
}

impl Axis {
    /// From zero to at least `highest`, in round steps.
    pub fn linear(label: &str, highest: f64) -> Axis {
        let highest = if highest.is_finite() && highest > 0.0 { highest } else { 1.0 };
        let magnitude = 10f64.powf((highest / 5.0).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * magnitude).into_iter().find(|step| highest / step <= 6.0);
        let step = step.unwrap_or(magnitude * 10.0);
        let count = (highest / step).ceil().max(1.0) as u32;
        let ticks = (0..=count).map(|n| f64::from(n) * step).map(|at| (at, number(at))).collect();
        Axis { label: label.to_owned(), ticks, range: (0.0, f64::from(count) * step), logarithmic: false }
    }

    /// Powers of ten around all of `values`; within two of them also 2 and 5.
    pub fn logarithmic(label: &str, values: impl Iterator<Item = f64>) -> Axis {
        let usable = values.filter(|value| value.is_finite() && *value > 0.0);
        let (low, high) = usable.fold((f64::INFINITY, 0f64), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high) = if high > 0.0 { (low, high) } else { (1.0, 10.0) };
        let (first, last) = (low.log10().floor() as i32, (high.log10().ceil() as i32).max(low.log10().floor() as i32 + 1));
        let factors: &[f64] = if last - first <= 2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let end = 10f64.powi(last);
        let ticks = (first..=last).flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power)));
        let ticks = ticks.filter(|at| *at <= end * 1.000_001).map(|at| (at, number(at))).collect();
        Axis { label: label.to_owned(), ticks, range: (10f64.powi(first), end), logarithmic: true }
    }

    /// Where a value lies, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        let (low, high) = self.range;
        let share = if self.logarithmic {
            (value.max(f64::MIN_POSITIVE) / low).log10() / (high / low).log10()
        } else {
            (value - low) / (high - low)
        };
        share.clamp(0.0, 1.0)
    }
}

/// A number without noise: 0.5, 20, 1 000 000.
fn number(value: f64) -> String {
    let rounded = format!("{value:.6}");
    let plain = rounded.trim_end_matches('0').trim_end_matches('.');
    let (whole, fraction) = plain.split_once('.').map_or((plain, ""), |(whole, fraction)| (whole, fraction));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    if fraction.is_empty() { grouped } else { format!("{grouped}.{fraction}") }
}

/// Text that may stand between tags and in attributes; what XML cannot hold becomes a blank.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => safe.push(' '),
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

/// The whole picture. The first of the head's lines is its title.
pub fn svg(head: &[String], panels: &[Panel]) -> String {
    let top = 20.0 + LINE_HEIGHT * head.len() as f64;
    let height = top + (PANEL_HEIGHT + PANEL_GAP) * panels.len() as f64;
    let mut out = String::new();
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">"
    );
    let _ = writeln!(out, "<title>{}</title>", escape(head.first().map_or("", String::as_str)));
    let _ = writeln!(out, "<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>");
    for (index, line) in head.iter().enumerate() {
        let (size, y) = (if index == 0 { 15 } else { 12 }, 22.0 + LINE_HEIGHT * index as f64);
        let _ = writeln!(out, "<text x=\"12\" y=\"{y}\" font-size=\"{size}\">{}</text>", escape(line));
    }
    for (index, panel) in panels.iter().enumerate() {
        draw(&mut out, panel, top + (PANEL_HEIGHT + PANEL_GAP) * index as f64 + 34.0);
    }
    out.push_str("</svg>\n");
    out
}

/// Draws a panel whose upper edge is at `top`.
fn draw(out: &mut String, panel: &Panel, top: f64) {
    let (width, bottom) = (WIDTH - LEFT - RIGHT, top + PANEL_HEIGHT);
    let x_of = |value: f64| LEFT + panel.x.share(value) * width;
    let y_of = |value: f64| bottom - panel.y.share(value) * PANEL_HEIGHT;
    let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"{}\" font-size=\"13\" font-weight=\"bold\">{}</text>", top - 10.0, escape(&panel.title));
    for (at, text) in &panel.x.ticks {
        let x = x_of(*at);
        let _ = writeln!(out, "<line x1=\"{x:.1}\" y1=\"{top}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#dddddd\"/>");
        let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>", bottom + 16.0, escape(text));
    }
    for (at, text) in &panel.y.ticks {
        let y = y_of(*at);
        let _ = writeln!(out, "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{}\" y2=\"{y:.1}\" stroke=\"#dddddd\"/>", LEFT + width);
        let _ = writeln!(out, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", LEFT - 6.0, y + 4.0, escape(text));
    }
    let _ = writeln!(out, "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{width}\" height=\"{PANEL_HEIGHT}\" fill=\"none\" stroke=\"#555555\"/>");
    let middle = LEFT + width / 2.0;
    let _ = writeln!(out, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>", bottom + 34.0, escape(&panel.x.label));
    let middle = top + PANEL_HEIGHT / 2.0;
    let turned = format!("transform=\"rotate(-90 20 {middle})\" text-anchor=\"middle\"");
    let _ = writeln!(out, "<text x=\"20\" y=\"{middle}\" {turned}>{}</text>", escape(&panel.y.label));
    for mark in &panel.marks {
        let x = x_of(mark.at);
        let _ =
            writeln!(out, "<line x1=\"{x:.1}\" y1=\"{top}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#888888\" stroke-dasharray=\"2 3\"/>");
        // Near the right edge the words stand on the left of the mark.
        let (x, anchor) = if panel.x.share(mark.at) > 0.8 { (x - 4.0, "end") } else { (x + 4.0, "start") };
        let (y, name) = (top + 14.0, escape(&mark.name));
        let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"{anchor}\" fill=\"#666666\">{name}</text>");
    }
    for (index, line) in panel.lines.iter().enumerate() {
        // The first are the thickest, so that a line is seen below another one on the same way.
        let later_count = (panel.lines.len() - 1 - index).min(3);
        draw_line(out, line, 1.5 + later_count as f64, x_of, y_of);
    }
    legend(out, &panel.lines, LEFT + width + 14.0, top + 12.0);
}

fn draw_line(out: &mut String, line: &Line, width: f64, x_of: impl Fn(f64) -> f64, y_of: impl Fn(f64) -> f64) {
    let dash = if line.dashed { " stroke-dasharray=\"6 4\"" } else { "" };
    for part in line.points.split(|(x, y)| !x.is_finite() || !y.is_finite()).filter(|part| !part.is_empty()) {
        if let [(x, y)] = part {
            // A line of one point has no length and would not be seen.
            let _ = writeln!(out, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\" fill=\"{}\"/>", x_of(*x), y_of(*y), line.colour);
            continue;
        }
        let places = part.iter().map(|(x, y)| format!("{:.1},{:.1}", x_of(*x), y_of(*y))).collect::<Vec<_>>().join(" ");
        let _ = writeln!(out, "<polyline points=\"{places}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{width}\"{dash}/>", line.colour);
    }
}

fn legend(out: &mut String, lines: &[Line], left: f64, top: f64) {
    for (index, line) in lines.iter().enumerate() {
        let y = top + LINE_HEIGHT * index as f64;
        let dash = if line.dashed { " stroke-dasharray=\"6 4\"" } else { "" };
        let end = left + 26.0;
        let _ =
            writeln!(out, "<line x1=\"{left}\" y1=\"{y}\" x2=\"{end}\" y2=\"{y}\" stroke=\"{}\" stroke-width=\"2\"{dash}/>", line.colour);
        let _ = writeln!(out, "<text x=\"{}\" y=\"{}\">{}</text>", end + 6.0, y + 4.0, escape(&line.name));
    }
}

/// The ways a text is not well-formed XML, for the tests of what is drawn: tags in pairs, attributes quoted, no stray signs.
#[cfg(test)]
pub fn check_xml(text: &str) -> Result<(), String> {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        let before = &rest[..start];
        let entities_good =
            before.split('&').skip(1).all(|after| ["amp;", "lt;", "gt;", "quot;"].iter().any(|name| after.starts_with(name)));
        if before.contains('>') || !entities_good || before.chars().any(|c| c.is_control() && c != '\n') {
            return Err(format!("stray sign in {before:?}"));
        }
        let end = rest[start..].find('>').ok_or("a tag is not closed")? + start;
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            (open.pop() == Some(name)).then_some(()).ok_or_else(|| format!("</{name}> closes something else"))?;
            continue;
        }
        if tag.contains('<') || !tag.matches('"').count().is_multiple_of(2) || tag.matches('=').count() != tag.matches("=\"").count() {
            return Err(format!("bad attributes in <{tag}>"));
        }
        if !tag.ends_with('/') {
            open.push(tag.split(' ').next().unwrap_or(tag));
        }
    }
    (open.is_empty() && rest.trim().is_empty()).then_some(()).ok_or_else(|| format!("{open:?} stay open, {rest:?} is left"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(points: Vec<(f64, f64)>) -> Panel {
        let line = Line { name: "a<b & \"c\"".to_owned(), colour: COLOURS[0], dashed: true, points };
        Panel {
            title: "t > u".to_owned(),
            x: Axis::linear("seconds", 10.0),
            y: Axis::logarithmic("us", [3.0, 900.0].into_iter()),
            lines: vec![line],
            marks: vec![Mark { at: 2.0, name: "here".to_owned() }],
        }
    }

    #[test]
    fn the_picture_is_well_formed_whatever_the_names() {
        let text = svg(&["a & <b> \u{1b}[0m".to_owned(), String::new()], &[panel(vec![(0.0, 3.0), (10.0, 900.0)])]);
        check_xml(&text).unwrap();
        assert!(text.contains("a &amp; &lt;b&gt;") && text.contains("seconds") && text.contains("a&lt;b &amp; &quot;c&quot;"), "{text}");
        for bad in ["<a>", "<a></b>", "<a b=c></a>", "<a>&</a>", "<a>></a>", "</a>", "<a/>x"] {
            assert!(check_xml(bad).is_err(), "the check finds nothing in {bad}");
        }
    }

    #[test]
    fn points_are_all_drawn_inside_and_gaps_stay_gaps() {
        let text = svg(&[], &[panel(vec![(0.0, 3.0), (1.0, 30.0), (2.0, f64::NAN), (3.0, 3.0), (4.0, f64::NAN), (99.0, 1e9), (5.0, 0.0)])]);
        check_xml(&text).unwrap();
        let places: Vec<Vec<&str>> =
            text.split("points=\"").skip(1).map(|rest| rest.split('"').next().unwrap().split(' ').collect()).collect();
        assert_eq!(places.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
        assert_eq!(text.matches("<circle").count(), 1, "a lonely point is a dot");
        assert_eq!(places[1][0], format!("{:.1},{:.1}", WIDTH - RIGHT, 54.0), "what is outside is drawn at the edge");
        assert_eq!(places[0][0].split(',').next(), Some("90.0"));
    }

    #[test]
    fn ticks_are_round_numbers_around_the_values() {
        let texts = |axis: &Axis| axis.ticks.iter().map(|(_, text)| text.clone()).collect::<Vec<_>>();
        assert_eq!(texts(&Axis::linear("", 10.0)), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(texts(&Axis::linear("", 23_400.0)), ["0", "5 000", "10 000", "15 000", "20 000", "25 000"]);
        assert_eq!(texts(&Axis::linear("", f64::NAN)).first().map(String::as_str), Some("0"));
        assert_eq!(texts(&Axis::logarithmic("", [30.0, 60.0].into_iter())), ["10", "20", "50", "100"]);
        assert_eq!(texts(&Axis::logarithmic("", [0.5, 1e6].into_iter())).len(), 8);
        assert_eq!(Axis::logarithmic("", [100.0].into_iter()).range, (100.0, 1000.0));
        assert_eq!(Axis::logarithmic("", std::iter::empty()).range, (1.0, 10.0));
        assert_eq!((number(0.001), number(1_234_567.5)), ("0.001".to_owned(), "1 234 567.5".to_owned()));
    }
}
