//! `tramctl`: the command line of the Tramline message broker.
//!
//! Reads the arguments (`args.rs`), connects, runs one verb, and turns the result into an exit code: 0 done, 1 failed,
//! 2 wrong usage. Invariants: results go to standard output and everything else to standard error; nothing is ever asked; a
//! reader that closes the pipe (`| head`) ends the program quietly.
//! Not here: the protocol (crate `tramline-client`).

mod args;
mod cluster;
mod commands;
mod consume;
mod disk;
mod failure;
mod group;
mod group_consume;
mod lines;
mod output;
mod print;
mod produce;
mod queue;
mod signals;
mod slow;
mod start;
mod table;
mod units;
mod unknown;

use args::{Cli, Format, Global, GroupVerb, TopicVerb, Verb};
use clap::Parser;
use failure::Failure;
use std::process::ExitCode;
use std::time::Duration;
use tramline_client::{Client, Config};

/// Wrong usage, as `clap` and other command lines have it.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let format = cli.global.format;
    match run(cli) {
        Ok(code) => code,
        Err(failure) if failure.code == output::CLOSED => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("{}", failure.render(format));
            if failure.code == failure::USAGE { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
        }
    }
}

/// Help and version go out as they are; errors of usage take the form that the arguments asked for.
fn usage(error: &clap::Error) -> ExitCode {
    let args: Vec<String> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    if error.exit_code() == i32::from(EXIT_USAGE) && failure::wants_json(&args) {
        let text = error.to_string();
        let sentence = text.split("\n\nUsage").next().unwrap_or(&text).trim_start_matches("error: ");
        eprint!("{}", Failure::local(failure::USAGE, sentence).render(Format::Json));
        return ExitCode::from(EXIT_USAGE);
    }
    // Failing to print help (a closed pipe) leaves nothing to report to.
    let _ = error.print();
    ExitCode::from(error.exit_code() as u8)
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let global = &cli.global;
    if let Verb::Slow { admin, limit } = &cli.verb {
        return slow::slow(global, admin.as_deref(), *limit).map(|()| ExitCode::SUCCESS);
    }
    let client = connect(global)?;
    match cli.verb {
        Verb::Topic(TopicVerb::Create { name, partitions, replicas, set, if_not_exists }) => {
            commands::create(&client, global.format, &name, (partitions, replicas), &set, if_not_exists)?;
        }
        Verb::Topic(TopicVerb::List) => commands::list(&client, global.format)?,
        Verb::Topic(TopicVerb::Describe { name }) => commands::describe(&client, global.format, &name)?,
        Verb::Topic(TopicVerb::Alter { name, replicas: Some(replicas), .. }) => {
            commands::set_replicas(&client, global.format, &name, replicas)?;
        }
        Verb::Topic(TopicVerb::Alter { name, set, partitions, .. }) => {
            commands::alter(&client, global.format, &name, partitions, &set)?;
        }
        Verb::Topic(TopicVerb::Delete { name }) => commands::delete(&client, global.format, &name)?,
        Verb::Topic(TopicVerb::Trim { name, before, partitions }) => commands::trim(&client, global.format, &name, before, &partitions)?,
        Verb::Topic(TopicVerb::Options) => commands::options(&client, global.format)?,
        Verb::Group(GroupVerb::List) => group::list(&client, global.format)?,
        Verb::Group(GroupVerb::Describe { name }) => group::describe(&client, global.format, &name)?,
        Verb::Group(GroupVerb::Delete { name }) => group::delete(&client, global.format, &name)?,
        Verb::Group(GroupVerb::Consume(options)) => group_consume::run(&client, global, &options)?,
        Verb::Group(GroupVerb::Seek { name, topic, partitions, target, dry_run }) => {
            group::seek(&client, global.format, &name, &topic, &partitions, target.target(), dry_run)?;
        }
        Verb::Queue(verb) => return queue::run(&client, global, verb),
        Verb::Offsets { topic } => commands::offsets(&client, global.format, &topic)?,
        Verb::Disk => disk::disk(&client, global.format)?,
        Verb::Slow { .. } => unreachable!("it needs no client: answered above"),
        Verb::Metadata { topics } => commands::metadata(&client, global.format, &topics)?,
        Verb::Cluster(verb) => return cluster::run(&client, global.format, &verb),
        Verb::Produce(options) => return produce::run(&client, global, &options),
        Verb::Consume(options) => consume::run(&client, global, &options)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn connect(global: &Global) -> Result<Client, Failure> {
    // The client's own lowest: a call is several requests. Who says less does not want to wait, and hardly does.
    let timeout = global.timeout.max(Duration::from_millis(100));
    let config = Config {
        servers: global.server.0.clone(),
        client_name: "tramctl".to_owned(),
        // A dead address among several shall not use up the time of the living ones.
        connect_timeout: timeout.min(Duration::from_secs(5)),
        request_timeout: timeout.min(Config::default().request_timeout),
        call_timeout: timeout,
        ..Config::default()
    };
    Ok(Client::connect(config)?)
}
