//! `tramline-loadgen`: drives a Tramline broker and measures it honestly.
//!
//! Reads the options (`args.rs`), runs (`run.rs`), writes the report (`report.rs`). Invariants: progress and alarms go to
//! standard error, the report to standard output (table, or JSON with `--json -`) or to a file; a run that could begin always
//! ends with a report, also when the server vanished. Exit codes: 0 good, 1 failed, 2 wrong usage, 3 the asked rate was not reached.
//!
//! ```text
//! args -> run -+-> write: schedule -> flow -> payload -> client's producer -> stats
//!              +-> read:  client's consumer -> payload -> check, stats
//!              +-> report: verdict, table, JSON
//! ```
//! Not here: the protocol (crate `tramline-client`), comparison with the machine's limits (`bench/`).

mod args;
mod check;
mod clock;
mod environment;
mod flow;
mod payload;
mod quantity;
mod read;
mod report;
mod run;
mod schedule;
mod stats;
// One reading of durations and addresses for both tools; a crate of its own would be larger than the file.
#[path = "../../ctl/src/units.rs"]
mod units;
mod vanish;
mod write;

use args::{Cli, Mode};
use clap::{CommandFactory, Parser};
use std::fs::File;
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(sentence) = run::check(&cli.mode) {
        Cli::command().error(clap::error::ErrorKind::ValueValidation, sentence).exit();
    }
    match measure(&cli.mode) {
        Ok(code) => ExitCode::from(code),
        Err(sentence) => {
            eprintln!("tramline-loadgen: {sentence}");
            ExitCode::from(report::EXIT_FAILED)
        }
    }
}

fn measure(mode: &Mode) -> Result<u8, String> {
    let common = match mode {
        Mode::Produce(it) => &it.common,
        Mode::Consume(it) => &it.common,
        Mode::Both(it) => &it.common,
    };
    // The file is opened first: a path that cannot be written is told before the run and not after it.
    let path = common.json.as_deref().filter(|path| *path != "-");
    let file = path.map(|path| File::create(path).map_err(|cause| unwritable(path, &cause))).transpose()?;
    let outcome = run::run(mode)?;
    for alarm in outcome.alarms() {
        eprintln!("tramline-loadgen: {alarm}");
    }
    if let (Some(path), Some(mut file)) = (path, file) {
        writeln!(file, "{:#}", outcome.json()).and_then(|()| file.sync_all()).map_err(|cause| unwritable(path, &cause))?;
    }
    let text = if common.json.as_deref() == Some("-") { format!("{:#}\n", outcome.json()) } else { outcome.text() };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(cause) if cause.kind() != io::ErrorKind::BrokenPipe => Err(unwritable("standard output", &cause)),
        _ => Ok(outcome.exit_code()),
    }
}

fn unwritable(path: &str, cause: &io::Error) -> String {
    format!("the report cannot be written to {path}: {cause}; name another file with --json")
}
