//! `tramline-peers`: measures Tramline side by side with other brokers. `run.sh` installs what it needs and calls it.
//!
//! ```text
//! main -> campaign -> round -+-> servers: processes and their settings
//!                            +-> adapters: how each peer does what `peer` asks for
//!                            +-> load: flow, ends, cycle -> figures
//!                            +-> syncs: does it really sync
//! findings -> report: JSON, Markdown, plots
//! ```
//! Invariants: progress goes to standard error; a campaign that could begin ends with a report, also when it is interrupted; nothing that was started is left running. Exit codes: 0
//! everything asked for was measured, 1 something failed (the report says what), 2 wrong usage, 130 and 143 ended by SIGINT and SIGTERM.

mod adapters;
mod campaign;
mod cli;
mod fault;
mod kinds;
mod load;
mod machine;
mod peer;
mod report;
mod round;
mod servers;
mod syncs;

use std::process::ExitCode;

use campaign::{Campaign, Findings};
use clap::Parser;
use cli::Cli;
use fault::{Fallible, Told};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(reason) => {
            eprintln!("tramline-peers: {reason}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> Fallible<ExitCode> {
    let (campaign, setup, options) = cli.checked()?;
    machine::bind_to(&cli.client_cpus)?;
    let about = report::About::read(&campaign, &setup, &options, cli);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().told("cannot make a runtime")?;
    let mut findings = Findings::default();
    let ended_by = runtime.block_on(until_interrupted(&campaign, &setup, &options, &mut findings))?;
    // Threads for blocking calls may still wait for a broker that is gone.
    runtime.shutdown_background();
    report::write(&cli.output, &about, &findings, ended_by.is_some())?;
    eprintln!("the report is in {}: report.md, report.json and plots", cli.output.display());
    let failed = findings.not_measured().iter().any(|missed| missed.failed);
    Ok(ExitCode::from(ended_by.unwrap_or(u8::from(failed))))
}

/// The exit code of a signal, if one ended it. What runs is dropped then, and its processes with it.
async fn until_interrupted(
    campaign: &Campaign,
    setup: &servers::Setup,
    options: &round::Options,
    findings: &mut Findings,
) -> Fallible<Option<u8>> {
    let mut interrupt = signal(SignalKind::interrupt()).told("cannot listen to SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).told("cannot listen to SIGTERM")?;
    tokio::select! {
        () = campaign.run(setup, options, findings) => Ok(None),
        _ = interrupt.recv() => Ok(Some(130)),
        _ = terminate.recv() => Ok(Some(143)),
    }
}
