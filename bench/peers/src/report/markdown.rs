//! The report to read: a section per class, a table per kind of cell, one line per peer that has a place in it.

use std::fmt::Write as _;

use super::About;
use super::plots::Plot;
use crate::campaign::{Findings, Measured};
use crate::kinds::{Cell, Class};
use crate::load::figures::Figures;

/// The whole text.
pub fn text(about: &About, measured: &[Measured], findings: &Findings, plots: &[Plot], interrupted: bool) -> String {
    let mut out = String::from("# Side by side\n\n");
    conditions(&mut out, about, findings, interrupted);
    for class in [Class::Synced, Class::Memory] {
        let of_class: Vec<&Measured> = measured.iter().filter(|it| it.class == class).collect();
        let missing = findings.not_measured().iter().any(|it| it.class == class);
        if of_class.is_empty() && !missing {
            continue;
        }
        let _ = writeln!(out, "## {}\n", class.title());
        let mut cells: Vec<Cell> = of_class.iter().map(|it| it.cell).collect();
        cells.sort();
        cells.dedup();
        for cell in cells {
            table(&mut out, cell, &of_class);
        }
        missed(&mut out, class, findings);
        for plot in plots.iter().filter(|plot| plot.class == class) {
            let _ = writeln!(out, "![{}]({})\n", plot.title, plot.file);
        }
    }
    out
}

fn conditions(out: &mut String, about: &About, findings: &Findings, interrupted: bool) {
    let machine = &about.machine;
    if interrupted {
        let _ = writeln!(out, "**Interrupted: {} of {} rounds were finished.**\n", findings.rounds_done, about.rounds);
    }
    if !about.release_build {
        out.push_str("**The generator was built without optimization: do not believe the numbers.**\n\n");
    }
    let _ = writeln!(
        out,
        "{} processors ({}), {:.0} GiB, Linux {}, {}; load average at the start {}.\n",
        machine.cpu_count, machine.processor, machine.memory_gib, machine.kernel, machine.file_system, machine.load_average
    );
    let _ = writeln!(
        out,
        "Broker on core {}, generator and client on core {}. Records of {} bytes, trials of {} s after {:.1} s of warm-up, median of {} interleaved rounds. Latencies in \
         microseconds; in open loop they begin when a record was due.\n",
        about.broker_cpus,
        about.client_cpus,
        about.record_bytes,
        about.seconds,
        about.warm_up_seconds,
        findings.rounds_done.max(1)
    );
    out.push_str("| peer | version | client | synced before ack | in memory |\n|---|---|---|---|---|\n");
    for peer in &about.peers {
        let _ = writeln!(out, "| {} | {} | {} | {} | {} |", peer.peer.name(), peer.version, peer.client, peer.synced, peer.memory);
    }
    out.push('\n');
}

/// What a cell is called above its table.
fn title(cell: Cell) -> String {
    let many = |partitions: u32| if partitions == 1 { "1 partition".to_owned() } else { format!("{partitions} partitions") };
    match cell {
        Cell::OneInFlight => "One in flight".to_owned(),
        Cell::Open { rate_per_s, partitions } => format!("Open loop, {rate_per_s} records/s, {}", many(partitions)),
        Cell::Max { partitions } => format!("Maximum throughput, {}", many(partitions)),
        Cell::EndToEnd { rate_per_s } => format!("End to end, {rate_per_s} records/s"),
        Cell::QueueCycle => "Queue: send, receive, acknowledge, one at a time".to_owned(),
        Cell::Syncs => "Does it sync? One in flight, traced".to_owned(),
    }
}

fn table(out: &mut String, cell: Cell, of_class: &[&Measured]) {
    let _ = writeln!(out, "### {}\n", title(cell));
    let lines = of_class.iter().filter(|it| it.cell == cell);
    if cell == Cell::Syncs {
        out.push_str("| peer | syncs per record | flushes of the disk per record (all processes) | counted by | what it means |\n|---|---:|---:|---|---|\n");
        lines.for_each(|it| syncs_line(out, it.peer.name(), &it.median));
    } else {
        out.push_str("| peer | per second | p50 | p99 | p99.9 | max | notes |\n|---|---:|---:|---:|---:|---:|---|\n");
        lines.for_each(|it| line(out, it.peer.name(), &it.median));
    }
    out.push('\n');
}

fn line(out: &mut String, peer: &str, figures: &Figures) {
    let latencies = [figures.p50_us, figures.p99_us, figures.p999_us, figures.max_us].map(|us| format!("{us:.0}")).join(" | ");
    let _ = writeln!(out, "| {peer} | {:.0} | {latencies} | {} |", figures.rate_per_s, notes(figures));
}

fn notes(figures: &Figures) -> String {
    let mut notes = Vec::new();
    if figures.held == Some(false) {
        notes.push("**could not hold the rate**: latencies are a lower bound".to_owned());
    }
    if figures.failed + figures.unfinished > 0 {
        notes.push(format!("{} failed, {} unfinished in all trials", figures.failed, figures.unfinished));
    }
    if let Some(window) = figures.window.filter(|window| *window > 1) {
        notes.push(format!("window {window}"));
    }
    if let Some(late_us) = figures.generator_late_p99_us.filter(|late_us| *late_us > figures.p99_us / 2.0) {
        notes.push(format!("the generator itself was {late_us:.0} us late (p99)"));
    }
    if let (Some(broker), Some(client)) = (figures.broker_cpu_us_per_record, figures.client_cpu_us_per_record) {
        notes.push(format!("processor per record: broker {broker:.1} us, client {client:.1} us"));
    }
    notes.join("; ")
}

fn syncs_line(out: &mut String, peer: &str, figures: &Figures) {
    let syncs = figures.syncs_per_record.unwrap_or(0.0);
    let flushes = figures.device_flushes_per_record.map_or("not counted".to_owned(), |flushes| format!("{flushes:.2}"));
    let verdict = if syncs >= 0.99 { "syncs before it acknowledges" } else { "**does not sync each record before it acknowledges**" };
    let _ = writeln!(out, "| {peer} | {syncs:.2} | {flushes} | {} | {verdict} |", figures.counted_by.as_deref().unwrap_or("-"));
}

fn missed(out: &mut String, class: Class, findings: &Findings) {
    let of_class: Vec<_> = findings.not_measured().iter().filter(|it| it.class == class).collect();
    if of_class.is_empty() {
        return;
    }
    out.push_str("Not measured, or not wholly:\n\n");
    for it in of_class {
        let what = it.cell.as_deref().unwrap_or("everything");
        let kind = if it.failed { "FAILED" } else { "does not have it" };
        let _ = writeln!(out, "- {}, {what}: {kind}: {}", it.peer.name(), it.reason.replace('\n', " "));
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_held_and_what_does_not_sync_is_told() {
        let mut out = String::new();
        line(&mut out, "x", &Figures { held: Some(false), failed: 2, ..Figures::default() });
        syncs_line(&mut out, "y", &Figures { syncs_per_record: Some(0.02), ..Figures::default() });
        syncs_line(&mut out, "z", &Figures { syncs_per_record: Some(1.0), ..Figures::default() });
        assert!(out.contains("could not hold the rate") && out.contains("2 failed"), "{out}");
        assert!(out.contains("| y | 0.02 | not counted | - | **does not sync"), "{out}");
        assert!(out.contains("| z | 1.00 | not counted | - | syncs before"), "{out}");
    }
}
