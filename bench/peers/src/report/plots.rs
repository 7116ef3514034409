//! The pictures: latency by percentile, tail by rate, throughput by partitions. One of each per class, never both classes in one.

// The load generator's own chart: one drawing of axes and lines for both.
#[allow(dead_code)] // marks are drawn there only
#[path = "../../../../tools/loadgen/src/chart.rs"]
mod chart;

use chart::{Axis, COLOURS, Line, Panel};

use crate::campaign::Measured;
use crate::kinds::{Cell, Class, PeerKind};
use crate::load::figures::{CURVE, Figures};

/// One picture.
pub struct Plot {
    /// Its file.
    pub file: String,
    /// What it shows.
    pub title: String,
    /// Of which class.
    pub class: Class,
    /// Its text.
    pub svg: String,
}

/// All that there are numbers for.
pub fn draw(measured: &[Measured]) -> Vec<Plot> {
    let mut plots = Vec::new();
    for class in [Class::Synced, Class::Memory] {
        let of_class: Vec<&Measured> = measured.iter().filter(|it| it.class == class).collect();
        let panels = [
            ("latency", "Latency", latency_panels(&of_class)),
            ("rates", "Tail by rate", rate_panels(&of_class)),
            ("partitions", "Throughput by partitions", partition_panels(&of_class)),
        ];
        for (name, title, panels) in panels {
            if !panels.is_empty() {
                let title = format!("{title}: {}", class.title().to_lowercase());
                plots.push(Plot {
                    file: format!("{name}-{}.svg", class.name()),
                    svg: chart::svg(&[title.clone(), "medians of interleaved rounds".to_owned()], &panels),
                    title,
                    class,
                });
            }
        }
    }
    plots
}

fn colour(peer: PeerKind) -> &'static str {
    let index = PeerKind::ALL.iter().position(|it| *it == peer).unwrap_or(0);
    COLOURS[index % COLOURS.len()]
}

fn line(peer: PeerKind, points: Vec<(f64, f64)>) -> Line {
    Line { name: peer.name().to_owned(), colour: colour(peer), dashed: false, points }
}

/// Percentiles lie evenly: each step is another order of rarity.
fn latency_panels(of_class: &[&Measured]) -> Vec<Panel> {
    let shown = [
        (Cell::OneInFlight, "One in flight"),
        (Cell::EndToEnd { rate_per_s: 1_000 }, "End to end, 1,000 records/s"),
        (Cell::QueueCycle, "Queue cycle"),
    ];
    let panels = shown.iter().filter_map(|(cell, title)| {
        let lines: Vec<Line> = of_class
            .iter()
            .filter(|it| it.cell == *cell)
            .map(|it| line(it.peer, it.median.curve_us.iter().enumerate().map(|(index, us)| (index as f64, *us)).collect()))
            .collect();
        let ticks = CURVE.iter().enumerate().map(|(index, percentile)| (index as f64, percentile_name(*percentile))).collect();
        let x = Axis { label: "percentile".to_owned(), ticks, range: (0.0, (CURVE.len() - 1) as f64), logarithmic: false };
        panel(title, x, "microseconds", lines)
    });
    panels.collect()
}

fn percentile_name(percentile: f64) -> String {
    if percentile >= 100.0 { "max".to_owned() } else { format!("{percentile}") }
}

fn rate_panels(of_class: &[&Measured]) -> Vec<Panel> {
    let panels = [
        ("Median by rate", (|it| it.p50_us) as fn(&Figures) -> f64),
        ("99th percentile by rate (a line ends where the rate could not be held)", |it| it.p99_us),
    ];
    panels
        .into_iter()
        .filter_map(|(title, figure)| {
            let lines = by_number(of_class, |it| match it.cell {
                Cell::Open { rate_per_s, partitions: 1 } if it.median.held == Some(true) => {
                    Some((f64::from(rate_per_s), figure(&it.median)))
                }
                _ => None,
            });
            let x = Axis::logarithmic("records per second", [1_000.0, 50_000.0].into_iter());
            panel(title, x, "microseconds", lines)
        })
        .collect()
}

fn partition_panels(of_class: &[&Measured]) -> Vec<Panel> {
    let lines = by_number(of_class, |it| match it.cell {
        Cell::Max { partitions } => Some((f64::from(partitions), it.median.rate_per_s)),
        _ => None,
    });
    let counts: Vec<f64> = lines.iter().flat_map(|line| line.points.iter().map(|point| point.0)).collect();
    let x = Axis::logarithmic("partitions, streams or queues", counts.into_iter());
    panel("Records per second", x, "records per second", lines).into_iter().collect()
}

fn by_number(of_class: &[&Measured], point: impl Fn(&Measured) -> Option<(f64, f64)>) -> Vec<Line> {
    let of_peer = |peer: PeerKind| {
        let mut points: Vec<(f64, f64)> = of_class.iter().filter(|it| it.peer == peer).filter_map(|it| point(it)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        line(peer, points)
    };
    PeerKind::ALL.into_iter().map(of_peer).filter(|line| !line.points.is_empty()).collect()
}

fn panel(title: &str, x: Axis, y_label: &str, lines: Vec<Line>) -> Option<Panel> {
    if lines.is_empty() {
        return None;
    }
    let y =
        Axis::logarithmic(y_label, lines.iter().flat_map(|line| line.points.iter().map(|point| point.1)).collect::<Vec<_>>().into_iter());
    Some(Panel { title: title.to_owned(), x, y, lines, marks: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(peer: PeerKind, cell: Cell, held: Option<bool>) -> Measured {
        let median = Figures { rate_per_s: 5.0, p99_us: 7.0, p50_us: 3.0, held, curve_us: vec![1.0; CURVE.len()], ..Figures::default() };
        Measured { class: Class::Synced, peer, cell, name: cell.name(), trials: vec![median.clone()], median }
    }

    #[test]
    fn every_peer_has_its_line_and_its_name() {
        let all: Vec<Measured> = PeerKind::ALL.iter().map(|peer| measured(*peer, Cell::OneInFlight, None)).collect();
        let plots = draw(&all);
        assert_eq!(plots.len(), 1);
        for peer in PeerKind::ALL {
            assert!(plots[0].svg.contains(peer.name()), "{}", peer.name());
        }
    }

    #[test]
    fn a_rate_that_was_not_held_is_no_point() {
        let cell = Cell::Open { rate_per_s: 1_000, partitions: 1 };
        assert!(draw(&[measured(PeerKind::Redis, cell, Some(false))]).is_empty());
        assert_eq!(draw(&[measured(PeerKind::Redis, cell, Some(true))]).len(), 1);
    }
}
