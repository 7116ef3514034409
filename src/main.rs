//! The `tramline` binary: reads the command line, makes settings of it, and hands over.
//!
//! Invariants: every setting of the table can be given as `--set KEY=VALUE`, the ones with a flag also by that; help texts and defaults are made
//! from the table; a refusal is one sentence on standard error that says what to do, with exit code 1 (2 when the command line itself is
//! wrong); standard output carries only what was asked for.
//!
//! Not here: what a node does (`runtime/`), what settings mean (`config/table.rs`), looking into segments (`log/inspect.rs`), what is wrong with a host
//! (`doctor/`).

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use tramline::config::{self, Kind, Loaded, Machine, Sources, TABLE, env_name};
use tramline::constants;
use tramline::doctor::{self, Severity};
use tramline::runtime::{self, logging, topology};

fn main() -> ExitCode {
    let matches = command().get_matches();
    let outcome = match matches.subcommand() {
        Some(("serve", matches)) => serve(matches),
        Some(("config", matches)) => show_config(matches),
        Some(("doctor", matches)) => doctor(matches),
        Some(("inspect", matches)) => inspect(matches),
        Some(("recover", matches)) => recover(matches),
        _ => Err("no command; see tramline --help".to_owned()),
    };
    logging::flush();
    match outcome {
        Ok(code) => code,
        Err(sentence) => {
            // Standard error may be gone; the exit code still tells.
            let _ = writeln!(io::stderr(), "tramline: {sentence}");
            ExitCode::from(constants::EXIT_FAILED)
        }
    }
}

fn command() -> Command {
    let settings =
        "Every setting can also be given in the environment or in a settings file; `tramline config` lists all of them with their meaning.";
    let path = Arg::new("path").value_name("PATH").required(true).value_parser(value_parser!(PathBuf));
    Command::new("tramline")
        .version(constants::VERSION)
        .about("A thread-per-core message broker: streams and queues on one durable log")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_settings(Command::new("serve")).about("Runs a node until SIGTERM or SIGINT").after_help(format!(
            "When the node accepts connections it prints one line on standard output:\n  ready node=1 client=HOST:PORT admin=HOST:PORT shards=N\n\n{settings}"
        )))
        .subcommand(
            with_settings(Command::new("config")).about("Prints the effective settings with their origin: flag, environment, file or default").arg(
                Arg::new("format")
                    .long("format")
                    .value_parser(PossibleValuesParser::new(["table", "json", "toml"]))
                    .default_value("table")
                    .help("table for people, json for programs, toml as a settings file"),
            ),
        )
        .subcommand(
            with_settings(Command::new("doctor"))
                .about("Says what of this host keeps a node with these settings from running, from keeping what it acknowledged, or from being fast")
                .after_help(
                    "Nothing is changed; a file of 4 MiB without a name is written beside the data for a second.\n\
                     Exit codes: 0 nothing to do, 1 it could not be looked at, 2 wrong usage, 3 something makes a node slower than it could be,\n\
                     4 a node does not run here, or what it acknowledges may be lost.\n\
                     scripts/tune/tune.sh changes what can be changed; docs/TUNING.md says what each setting buys.",
                )
                .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("For programs, in place of the table"))
                .arg(Arg::new("no-self-test").long("no-self-test").action(ArgAction::SetTrue).help("Measures nothing and writes nothing"))
                .arg(
                    Arg::new("root")
                        .long("root")
                        .value_name("DIR")
                        .default_value("/")
                        .value_parser(value_parser!(PathBuf))
                        .help("Reads a copy of the trees /sys, /proc and /etc below DIR, and only that"),
                ),
        )
        .subcommand(
            Command::new("inspect")
                .about("Prints and verifies a segment file or a whole data directory, off line; exit code 1 when something is damaged")
                .arg(path.help("A segment file, a shard's directory or a data directory")),
        )
        .subcommand(
            Command::new("recover")
                .about("Lets the cluster's metadata go on with what one stopped node has of them, when the majority that voted about them is gone for good")
                .arg(
                    Arg::new("data-dir")
                        .long("data-dir")
                        .value_name("DIR")
                        .required(true)
                        .value_parser(value_parser!(PathBuf))
                        .help("The data directory of the node that is left"),
                )
                .arg(Arg::new("i-accept-loss").long("i-accept-loss").action(ArgAction::SetTrue).help("What only the others knew is lost, and that is accepted")),
        )
}

/// Adds the flags that the table names, and the two general ones.
fn with_settings(mut command: Command) -> Command {
    command = command.arg(
        Arg::new("config")
            .long("config")
            .value_name("FILE")
            .env("TRAMLINE_CONFIG")
            .value_parser(value_parser!(PathBuf))
            .help("Settings file (TOML) [default: none]"),
    );
    for def in TABLE {
        let Some(flag) = def.flag else { continue };
        let words = match def.kind {
            Kind::Choice(words) => format!(" [one of: {}]", words.join(", ")),
            _ => String::new(),
        };
        let help = format!("{}{words} [default: {}] [env: {}]", def.doc, def.default_words(), env_name(def.key));
        let arg = Arg::new(def.key).long(flag).help(help).value_name(def.kind.placeholder());
        command = command.arg(match def.kind {
            Kind::Flag => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
            _ => arg,
        });
    }
    command.arg(
        Arg::new("set").long("set").value_name("KEY=VALUE").action(ArgAction::Append).help("Any setting by its key, as often as needed"),
    )
}

fn sources(matches: &ArgMatches) -> Result<Sources, String> {
    let mut flags = Vec::new();
    for def in TABLE.iter().filter(|def| def.flag.is_some()) {
        if let Some(text) = matches.get_one::<String>(def.key) {
            flags.push((def.key.to_owned(), text.clone()));
        }
    }
    for pair in matches.get_many::<String>("set").into_iter().flatten() {
        let (key, text) = pair.split_once('=').ok_or_else(|| format!("--set {pair}: write it as --set KEY=VALUE"))?;
        flags.push((key.trim().to_owned(), text.to_owned()));
    }
    // Names and values that are not UTF-8 are nobody's settings.
    let environment = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect();
    Ok(Sources { flags, environment, file: matches.get_one::<PathBuf>("config").cloned() })
}

fn load(matches: &ArgMatches) -> Result<(Loaded, Machine), String> {
    let machine = topology::machine();
    let loaded = config::load(&sources(matches)?, &machine).map_err(|error| error.to_string())?;
    Ok((loaded, machine))
}

fn serve(matches: &ArgMatches) -> Result<ExitCode, String> {
    let (loaded, machine) = load(matches)?;
    let settings = loaded.settings(&machine).map_err(|error| error.to_string())?;
    logging::init(&settings.log_level, settings.log_format);
    tramline::fatal::install_panic_hook();
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    logging::warn_if_exposed(&settings);
    runtime::run(settings).map_err(|error| error.to_string())?;
    Ok(ExitCode::from(constants::EXIT_OK))
}

fn show_config(matches: &ArgMatches) -> Result<ExitCode, String> {
    let (loaded, machine) = load(matches)?;
    let text = match matches.get_one::<String>("format").map(String::as_str) {
        Some("json") => config::show::json(&loaded.effective),
        Some("toml") => config::show::toml(&loaded.effective),
        // On a screen a meaning that wraps makes the table unreadable; into a pipe it goes whole.
        _ => config::show::table(&loaded.effective, if io::stdout().is_terminal() { 200 } else { 0 }),
    };
    print(&text)?;
    for warning in &loaded.warnings {
        let _ = writeln!(io::stderr(), "tramline: warning: {warning}");
    }
    match loaded.settings(&machine) {
        // Without a data directory the settings can still be looked at.
        Ok(_) | Err(config::SettingsError::NoDataDir) => Ok(ExitCode::from(constants::EXIT_OK)),
        Err(error) => Err(format!("a node would not start with these settings: {error}")),
    }
}

fn doctor(matches: &ArgMatches) -> Result<ExitCode, String> {
    let root = matches.get_one::<PathBuf>("root").ok_or("no --root")?;
    let host = doctor::Host::at(root)?;
    let sources = sources(matches)?;
    let load = |cpus: Option<Vec<usize>>| {
        let mut machine = topology::machine();
        machine.cpus = cpus.unwrap_or(machine.cpus);
        let loaded = config::load(&sources, &machine).map_err(|error| error.to_string())?;
        let settings = loaded.settings(&machine).map_err(|error| error.to_string())?;
        Ok::<_, String>((loaded, settings))
    };
    // What a node can be given, not what this process may run on: the two differ after isolcpus=, under taskset, and on another machine.
    let (mut loaded, mut settings) = load(host.cores())?;
    if let Some(cores) = host.cores_of_node(&settings.data_dir) {
        // Where the two do not agree, the report says so.
        (loaded, settings) = load(Some(cores)).unwrap_or((loaded, settings));
    }
    let report = doctor::examine(&settings, &host, !matches.get_flag("no-self-test"));
    print(&if matches.get_flag("json") { doctor::json(&report) } else { doctor::table(&report) })?;
    for warning in &loaded.warnings {
        let _ = writeln!(io::stderr(), "tramline: warning: {warning}");
    }
    Ok(ExitCode::from(match report.worst() {
        Severity::Bad => constants::EXIT_FAULTS,
        Severity::Warn => constants::EXIT_WARNINGS,
        Severity::Ok | Severity::Unknown | Severity::Note => constants::EXIT_OK,
    }))
}

fn inspect(matches: &ArgMatches) -> Result<ExitCode, String> {
    let path = matches.get_one::<PathBuf>("path").ok_or("no PATH")?;
    let mut out = io::stdout().lock();
    match tramline::runtime::inspect::inspect(path, &mut out) {
        Ok(0) => Ok(ExitCode::from(constants::EXIT_OK)),
        Ok(_damaged) => Ok(ExitCode::from(constants::EXIT_FAILED)),
        Err(error) => Err(format!("cannot inspect {}: {error}", path.display())),
    }
}

fn recover(matches: &ArgMatches) -> Result<ExitCode, String> {
    let dir = matches.get_one::<PathBuf>("data-dir").ok_or("no --data-dir")?;
    let next = tramline::runtime::recover::recover(dir, matches.get_flag("i-accept-loss"))?;
    // It is done, whoever hears of it.
    let _ = print(&format!("{next}\n"));
    Ok(ExitCode::from(constants::EXIT_OK))
}

/// A reader that has gone away (`| head`) is not an error; a disk that is full is: who asked has no answer.
fn print(text: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("cannot write to the standard output: {error}")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn flags_become_settings() {
        let line =
            "tramline serve --data-dir d --shards 2 --spin never --unpinned --admin 127.0.0.1:0 --set pool.segments=3 --set log.level=warn";
        let matches = command().try_get_matches_from(line.split(' ')).unwrap();
        let (_, matches) = matches.subcommand().unwrap();
        let flags = sources(matches).unwrap().flags;
        let expected = [
            ("data.dir", "d"),
            ("admin.listen", "127.0.0.1:0"),
            ("shards", "2"),
            ("unpinned", "true"),
            ("spin", "never"),
            ("pool.segments", "3"),
            ("log.level", "warn"),
        ];
        assert_eq!(flags, expected.map(|(key, text)| (key.to_owned(), text.to_owned())));
    }

    #[test]
    fn unknown_flags_are_refused() {
        for line in ["tramline serve --data-dir d --shard 2", "tramline", "tramline nothing", "tramline inspect"] {
            assert!(command().try_get_matches_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
