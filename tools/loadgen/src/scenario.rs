//! A scenario file: options of the command line as a TOML file, so that a load has a name and can be repeated.
//!
//! ```toml
//! mode = "both"
//! rate = "20k"
//! arrivals = "poisson"
//! cpu = [0, 1]
//! busy-poll = true
//! ```
//! The file becomes arguments in front of those of the command line, so every key is an option's name and every value is read by that
//! option's own parser: ranges and words exist once. Invariants: an option of the command line wins over the same one of the file, and
//! over those it cannot be used with (`--closed` over `rate`); a key that is no option is refused, never ignored.
//! Not here: what the options mean.

use crate::ranges::NO_NAME;
use clap::{ArgAction, ArgMatches, Command, parser::ValueSource};
use std::ffi::OsString;
use toml::{Table, Value};

/// The key that names the mode.
const MODE: &str = "mode";
/// The option that names the file.
const OPTION: &str = "--scenario";
/// Longest file; what is longer is none. A file has some 40 keys, so this leaves room for much explanation.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The arguments with those of the scenario file in front of the given ones, and the file's name; as they are where none is named. `args`
/// begins with the program's name.
pub fn expand(command: &Command, args: Vec<OsString>) -> Result<(Vec<OsString>, Option<String>), String> {
    let Some(path) = path_in(&args) else { return Ok((args, None)) };
    let text = read(&path)?;
    let expanded = with_file(command, &args, &text).map_err(|why| format!("{path} {why}"))?;
    Ok((expanded, Some(path)))
}

fn read(path: &str) -> Result<String, String> {
    use std::io::Read as _;
    if path.is_empty() {
        return Err(format!("{OPTION}: {NO_NAME}"));
    }
    let unreadable = |cause: std::io::Error| format!("{path} ({OPTION}) cannot be read: {cause}");
    let mut text = Vec::new();
    // One byte more than allowed: what stops at the limit looks whole, and options behind it would be left out in silence.
    std::fs::File::open(path).map_err(unreadable)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("{path} ({OPTION}) is longer than any scenario; allowed is {} MiB", FILE_BYTES_MAX >> 20));
    }
    String::from_utf8(text).map_err(|cause| format!("{path} ({OPTION}) is no text: {cause}"))
}

/// The file that the arguments name.
fn path_in(args: &[OsString]) -> Option<String> {
    let args: Vec<&str> = args.iter().map(|arg| arg.to_str().unwrap_or_default()).take_while(|arg| *arg != "--").collect();
    let place = args.iter().position(|arg| *arg == OPTION || arg.strip_prefix(OPTION).is_some_and(|rest| rest.starts_with('=')))?;
    match args[place].split_once('=') {
        Some((_, path)) => Some(path.to_owned()),
        None => args.get(place + 1).map(|path| (*path).to_owned()),
    }
}

/// The arguments with those of a file's text, or the end of the sentence that begins with its name.
fn with_file(command: &Command, args: &[OsString], text: &str) -> Result<Vec<OsString>, String> {
    let mut table: Table = text.parse().map_err(|cause: toml::de::Error| format!("is not TOML: {}", cause.to_string().trim_end()))?;
    let modes: Vec<&Command> =
        command.get_subcommands().filter(|mode| mode.get_arguments().any(|arg| arg.get_long() == Some("scenario"))).collect();
    let mode_named = |name: &str| modes.iter().find(|mode| mode.get_name() == name).copied();
    let of_file = match table.remove(MODE) {
        None => None,
        Some(Value::String(name)) if mode_named(&name).is_some() => Some(name),
        Some(other) => {
            let names: Vec<&str> = modes.iter().map(|mode| mode.get_name()).collect();
            return Err(format!("has the mode {other}; allowed is one of {}", names.join(", ")));
        }
    };
    let given = args.get(1).and_then(|arg| arg.to_str()).filter(|name| mode_named(name).is_some());
    let name = given.map(str::to_owned).or(of_file).ok_or_else(|| format!("names no mode; write {MODE} = \"both\" or another one"))?;
    let mode = mode_named(&name).ok_or("names a mode that went away")?;

    let rest: Vec<OsString> = args.iter().skip(if given.is_some() { 2 } else { 1 }).cloned().collect();
    let start = [args.first().cloned().unwrap_or_default(), OsString::from(&name)];
    let alone: Vec<OsString> = start.iter().chain(&rest).cloned().collect();
    // What is wrong with them is said when all are parsed; here only their names count.
    let matches = command.clone().ignore_errors(true).try_get_matches_from(alone).ok();
    let matches = matches.as_ref().and_then(|matches| matches.subcommand()).map(|(_, matches)| matches);

    let mut expanded: Vec<OsString> = start.to_vec();
    for (key, value) in &table {
        let option = mode.get_arguments().find(|arg| arg.get_long() == Some(key) && key != "scenario" && !is_help(arg));
        let Some(option) = option else {
            let keys: Vec<&str> = mode
                .get_arguments()
                .filter(|arg| !is_help(arg))
                .filter_map(|arg| arg.get_long())
                .filter(|key| *key != "scenario")
                .collect();
            return Err(format!("has the key {key}, which is no option of {name}; its keys are {MODE}, {}", keys.join(", ")));
        };
        if matches.is_some_and(|matches| is_overruled(mode, option, matches)) {
            continue;
        }
        expanded.extend(argument(key, value, matches!(option.get_action(), ArgAction::SetTrue))?.map(OsString::from));
    }
    expanded.extend(rest);
    Ok(expanded)
}

fn is_help(option: &clap::Arg) -> bool {
    matches!(option.get_action(), ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version)
}

/// Whether the command line has this option itself, or one that it cannot be used with.
fn is_overruled(mode: &Command, option: &clap::Arg, given: &ArgMatches) -> bool {
    let is_given = |arg: &clap::Arg| given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
    let excludes = |one: &clap::Arg, other: &clap::Arg| mode.get_arg_conflicts_with(one).iter().any(|arg| arg.get_id() == other.get_id());
    mode.get_arguments()
        .filter(|other| !is_help(other) && is_given(other))
        .any(|other| other.get_id() == option.get_id() || excludes(other, option) || excludes(option, other))
}

/// A key and its value as an argument; none for a switch that is off.
fn argument(key: &str, value: &Value, is_switch: bool) -> Result<Option<String>, String> {
    let plain = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        _ => None,
    };
    if is_switch {
        return match value {
            Value::Boolean(on) => Ok(on.then(|| format!("--{key}"))),
            _ => Err(format!("has {key} = {value}; allowed is true or false")),
        };
    }
    let text = match value {
        Value::Array(list) => list.iter().map(plain).collect::<Option<Vec<_>>>().map(|list| list.join(",")),
        other => plain(other),
    };
    text.map(|text| Some(format!("--{key}={text}")))
        .ok_or_else(|| format!("has {key} = {value}; allowed is a text, a number, or a list of them"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Mode};
    use clap::{CommandFactory, Parser};

    fn words(line: &str) -> Vec<OsString> {
        std::iter::once("tramline-loadgen").chain(line.split_whitespace()).map(OsString::from).collect()
    }

    fn expanded(line: &str, text: &str) -> Result<String, String> {
        let args = with_file(&Cli::command(), &words(line), text)?;
        Ok(args.iter().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn keys_become_options_in_front_of_the_command_line() {
        let text = "mode = \"both\"\nrate = \"20k\"\ncompressible = 0.5\nsize = 100\ncpu = [0, 1]\nbusy-poll = true\nquiet = false\n";
        assert_eq!(
            expanded("--scenario f --topic t", text).unwrap(),
            "both --busy-poll --compressible=0.5 --cpu=0,1 --rate=20k --size=100 --scenario f --topic t"
        );
    }

    #[test]
    fn the_command_line_wins_over_the_same_option_and_over_what_excludes_it() {
        let text = "mode = \"both\"\nrate = 1000\narrivals = \"poisson\"\nsize = 100\nkeys = 5\n";
        for (line, expected) in [
            ("--scenario f --size 200", "both --arrivals=poisson --keys=5 --rate=1000 --scenario f --size 200"),
            ("--scenario f --rate=7", "both --arrivals=poisson --keys=5 --size=100 --scenario f --rate=7"),
            ("--scenario f --closed", "both --keys=5 --size=100 --scenario f --closed"),
            ("both --scenario f --records r", "both --arrivals=poisson --keys=5 --rate=1000 --scenario f --records r"),
            ("--scenario f --records r --key-field 2", "both --arrivals=poisson --rate=1000 --scenario f --records r --key-field 2"),
            ("produce --scenario f", "produce --arrivals=poisson --keys=5 --rate=1000 --size=100 --scenario f"),
        ] {
            assert_eq!(expanded(line, text).unwrap(), expected, "{line}");
        }
        let closed = "mode = \"produce\"\nclosed = true\noutstanding = 5\n";
        assert_eq!(expanded("--scenario f --rate 3", closed).unwrap(), "produce --scenario f --rate 3");
    }

    #[test]
    fn what_is_no_option_is_refused_with_its_name_and_the_list() {
        for (text, part) in [
            ("mode = \"produce\"\nratee = 5", "has the key ratee, which is no option of produce; its keys are mode, server, topic"),
            ("mode = \"produce\"\ncredit-bytes = 5", "credit-bytes, which is no option of produce"),
            ("mode = \"produce\"\nbusy_poll = true", "busy_poll"),
            ("mode = \"produce\"\nscenario = \"x\"", "the key scenario"),
            ("mode = \"produce\"\nhelp = true", "the key help"),
            ("mode = \"compare\"", "has the mode \"compare\"; allowed is one of produce, consume, both"),
            ("mode = 5", "has the mode 5"),
            ("rate = 5", "names no mode"),
            ("mode = ", "is not TOML"),
            ("mode = \"produce\"\nrate = true", "has rate = true; allowed is a text, a number"),
            ("mode = \"produce\"\nrate = [[1]]", "allowed is a text, a number"),
            ("mode = \"produce\"\nclosed = \"yes\"", "has closed = \"yes\"; allowed is true or false"),
            ("[mode]\nx = 1", "has the mode"),
        ] {
            let told = expanded("--scenario f", text).expect_err(text);
            assert!(told.contains(part), "{text}: {told}");
        }
    }

    #[test]
    fn values_are_read_by_the_options_own_parsers() {
        let parse = |text: &str| Cli::try_parse_from(with_file(&Cli::command(), &words("--scenario f"), text).unwrap());
        let crate::args::Command::Run(Mode::Produce(produce)) =
            parse("mode = \"produce\"\nrate = \"20k\"\nsize = \"100..200\"").unwrap().command
        else {
            panic!("not produce")
        };
        assert_eq!((produce.load.pacing.rate, produce.load.size.max), (Some(20_000), 200));
        let error = parse("mode = \"produce\"\nrate = 0").unwrap_err().to_string();
        assert!(error.contains("1 to 100000000"), "{error}");
    }

    #[test]
    fn a_file_that_is_too_long_is_refused_and_not_cut() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let of_bytes = |bytes: u64| std::fs::write(path, "#".repeat(bytes as usize)).unwrap();
        of_bytes(FILE_BYTES_MAX);
        assert_eq!(read(path).unwrap().len() as u64, FILE_BYTES_MAX);
        of_bytes(FILE_BYTES_MAX + 1);
        let told = read(path).unwrap_err();
        assert!(told.contains("longer than any scenario; allowed is 1 MiB") && told.contains(path), "{told}");
        std::fs::write(path, [0xff]).unwrap();
        assert!(read(path).unwrap_err().contains("is no text"));
    }

    #[test]
    fn the_file_is_found_in_both_forms_and_not_behind_the_end_of_options() {
        assert_eq!(path_in(&words("both --scenario a.toml")), Some("a.toml".to_owned()));
        assert_eq!(path_in(&words("--scenario=a=b.toml --closed")), Some("a=b.toml".to_owned()));
        for line in ["both --scenario", "compare -- --scenario x", "both --scenarios x"] {
            assert_eq!(path_in(&words(line)), None, "{line}");
        }
    }
}
