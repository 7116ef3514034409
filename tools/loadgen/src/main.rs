//! `tramline-loadgen`: drives a Tramline broker and measures it honestly.
//!
//! Reads the options (`args.rs`), runs (`run.rs`), writes the report (`report.rs`) and the other files, or compares two reports
//! (`compare.rs`). Invariants: progress and alarms go to standard error, the report to standard output (table, or JSON with `--json -`)
//! or to a file; a run that could begin always ends with a report, also when the server vanished. Exit codes: 0 good, 1 failed,
//! 2 wrong usage (also a file to compare that is no report), 3 the asked rate was not reached, or the generator
//! itself was late, 130 and 143 ended by SIGINT and SIGTERM.
//!
//! ```text
//! scenario -> args, load, ranges -> plan -> run -> threads -+-> crew -> write: arrivals, pick -> flow -> payload, lines -> client
//!                                                           +-> read:  client's consumer -> payload -> check
//!                                                           +-> cold, churn: readers from the beginning, connections
//!                                                           +-> asker: is the server still there
//!                                                           +-> watch: a look each second -> progress, hlog
//! what was written -> verify -> check
//! stats, lateness, check -> verdict, report: table, JSON, hgrm -> saved -+-> plot -> chart
//!                                                                        +-> compare
//! sink -> session: a server that keeps nothing, in a process of its own
//! ```
//! Not here: the protocol (crate `tramline-client`), comparison with the machine's limits (`bench/`).

#![deny(clippy::print_stderr)] // it panics where standard error cannot be written; `tell.rs` does not

mod args;
mod arrivals;
mod asker;
mod chart;
mod check;
mod churn;
mod clock;
mod cold;
mod compare;
mod crew;
mod encoded;
mod environment;
mod files;
mod flow;
mod hgrm;
mod hlog;
mod interrupt;
mod lateness;
mod lines;
mod load;
mod open_files;
mod payload;
mod pick;
mod plan;
mod plot;
mod quantity;
mod random;
mod ranges;
mod read;
mod report;
mod run;
mod saved;
mod scenario;
mod schedule;
mod session;
mod sink;
mod stats;
mod tell;
#[cfg(test)]
mod tests;
mod threads;
// One reading of durations and addresses for both tools; a crate of its own would be larger than the file.
#[path = "../../ctl/src/units.rs"]
mod units;
mod vanish;
mod verdict;
mod verify;
mod watch;
mod write;
mod zipf;

use args::{Cli, Command, Common, Compare};
use clap::{CommandFactory, Parser};
use files::OutputFile;
use interrupt::Interrupt;
use plan::Plan;
use report::{CLOSED_LOOP, Outcome};
use saved::Saved;
use std::io::{self, Write};
use std::process::ExitCode;
use tell::tell;
use verdict::EXIT_FAILED;

/// Exit code of wrong usage, as clap has it.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let done = match parse().command {
        Command::Run(mode) => {
            let plan =
                Plan::new(&mode).unwrap_or_else(|sentence| Cli::command().error(clap::error::ErrorKind::ValueValidation, sentence).exit());
            measure(&plan).map_err(|sentence| (EXIT_FAILED, sentence))
        }
        Command::Compare(compare) => self::compare(&compare),
        Command::Sink(options) => sink::serve(&options).map_err(|sentence| (EXIT_FAILED, sentence)),
    };
    let code = done.unwrap_or_else(|(code, sentence)| {
        tell(sentence);
        code
    });
    ExitCode::from(code)
}

/// The command line, with the options of a scenario file. Ends the program where it is wrong.
fn parse() -> Cli {
    let usage = |sentence| Cli::command().error(clap::error::ErrorKind::ValueValidation, sentence).exit();
    let (args, file) = scenario::expand(&Cli::command(), std::env::args_os().collect()).unwrap_or_else(usage);
    Cli::try_parse_from(args).unwrap_or_else(|error| {
        if let Some(file) = file.filter(|_| error.use_stderr()) {
            tell(format_args!("with the options of {file}:"));
        }
        error.exit()
    })
}

fn measure(plan: &Plan<'_>) -> Result<u8, String> {
    let common = plan.common;
    // Before there are files that an end without a report would leave empty.
    let interrupt = Interrupt::listen()?;
    let (files, hlog) = Files::open(common, &plan.latencies())?;
    let outcome = run::run(plan, hlog, &interrupt)?;
    for alarm in outcome.alarms() {
        tell(alarm);
    }
    let json = outcome.json();
    // The table first: what a full disk does to the files must not take it away.
    let text = if common.json.as_deref() == Some("-") { format!("{json:#}\n") } else { outcome.text() };
    print(&text)?;
    files.write(&outcome, json)?;
    Ok(outcome.exit_code())
}

fn compare(compare: &Compare) -> Result<u8, (u8, String)> {
    let usage = |sentence| (EXIT_USAGE, sentence);
    let (a, b) = (Saved::load(&compare.a).map_err(usage)?, Saved::load(&compare.b).map_err(usage)?);
    let inputs = [("A", compare.a.clone()), ("B", compare.b.clone())];
    let outputs: Vec<_> = compare.plot.iter().map(|path| ("--plot", path.clone())).collect();
    files::check_distinct(&inputs, &outputs).map_err(usage)?;
    let failed = |sentence| (EXIT_FAILED, sentence);
    let plot = compare.plot.as_deref().map(|path| OutputFile::open("--plot", path)).transpose().map_err(failed)?;
    print(&compare::text([&compare.a, &compare.b], &a, &b)).map_err(failed)?;
    plot.map_or(Ok(()), |file| file.write(plot::of_two(&a, &b).as_bytes())).map_err(failed)?;
    Ok(0)
}

/// The files of a run, opened before it begins: what cannot be written is told then and not after it.
struct Files {
    json: Option<OutputFile>,
    plot: Option<OutputFile>,
    /// Each with the latency it is for.
    hgrm: Vec<(&'static str, OutputFile)>,
}

impl Files {
    /// Opens all; the interval log is apart, since the run writes it.
    fn open(common: &Common, latencies: &[&'static str]) -> Result<(Files, Option<OutputFile>), String> {
        let open = |option, path: Option<&str>| path.map(|path| OutputFile::open(option, path)).transpose();
        let hgrm = common.hgrm_files(latencies).into_iter();
        let files = Files {
            json: open("--json", common.json.as_deref().filter(|path| *path != "-"))?,
            plot: open("--plot", common.plot.as_deref())?,
            hgrm: hgrm.map(|(tag, path)| Ok((tag, OutputFile::open("--hgrm", &path)?))).collect::<Result<_, String>>()?,
        };
        let hlog = open("--hlog", common.hlog.as_deref())?;
        Ok((files, hlog))
    }

    fn write(self, outcome: &Outcome, json: serde_json::Value) -> Result<(), String> {
        if let Some(file) = self.json {
            file.write(format!("{json:#}\n").as_bytes())?;
        }
        for (tag, file) in self.hgrm {
            let mut remarks = vec![format!("{tag} in milliseconds; {}", outcome.heading())];
            remarks.extend(outcome.closed().then(|| CLOSED_LOOP.to_owned()));
            remarks.extend(outcome.alarms().iter().map(|alarm| format!("!!! {alarm}")));
            let metric = outcome.metrics().into_iter().find(|metric| metric.tag == tag);
            // A latency without a record has a file too: it says that there was none.
            let text = metric.map_or_else(|| hgrm::text(&stats::histogram(), &remarks), |metric| hgrm::text(metric.histogram, &remarks));
            file.write(text.as_bytes())?;
        }
        if let Some(file) = self.plot {
            let saved = Saved::new(json).map_err(|why| format!("the run's own report {why}"))?;
            file.write(plot::of_run(&saved).as_bytes())?;
        }
        Ok(())
    }
}

/// To standard output; a reader that went away is no failure.
fn print(text: &str) -> Result<(), String> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(cause) if cause.kind() != io::ErrorKind::BrokenPipe => Err(format!("the report cannot be written to standard output: {cause}")),
        _ => Ok(()),
    }
}
