//! `scripts/systemd/`: systemd itself finds nothing wrong with the units, and what they say of the program is so (exit codes, times, settings).
//!
//! Not here: a node under systemd (that needs a machine that systemd has started).

use common::node::binary;
use common::tool::{Ran, run_command, tramline};
use common::{not_run, temp_dir};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

fn file(name: &str) -> String {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/systemd")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The value of the only line `NAME=..` of a unit.
fn value(unit: &str, name: &str) -> String {
    let found: Vec<&str> = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect();
    assert_eq!(found.len(), 1, "lines {name}= of the unit");
    found[0].to_owned()
}

/// `systemd-analyze`; `None` (said aloud) where there is none.
fn analyze(test: &str, arguments: &[&str]) -> Option<Ran> {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        not_run(test, "there is no systemd-analyze");
        return None;
    }
    Some(run_command(Command::new("systemd-analyze").args(arguments), b""))
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let dir = temp_dir("units");
    let tune = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/tune/tune.sh");
    let mut paths = Vec::new();
    for (name, there, here) in
        [("tramline.service", "/usr/local/bin/tramline", binary()), ("tramline-tune.service", "/usr/local/lib/tramline/tune/tune.sh", tune)]
    {
        let unit = file(name);
        assert!(unit.contains(there));
        let path = dir.path().join(name);
        fs::write(&path, unit.replace(there, here)).expect("written");
        paths.push(path.to_str().expect("UTF-8").to_owned());
    }
    let drop_in = dir.path().join("tramline.service.d");
    fs::create_dir(&drop_in).expect("made");
    fs::write(drop_in.join("cores.conf"), file("cores.conf").replace("\n#N", "\nN")).expect("written");
    let arguments = ["verify", &paths[0], &paths[1]];
    let Some(ran) = analyze("systemd_finds_nothing_wrong_with_the_units", &arguments) else { return };
    // What it says of the machine's own units is not about these.
    let about: Vec<&str> = ran.stderr.lines().filter(|line| line.contains("tramline") || line.contains("cores.conf")).collect();
    assert!(about.is_empty(), "{about:?}");
    // It can find something.
    fs::write(&paths[0], file("tramline.service").replace("Restart=on-failure", "Restart=sometimes")).expect("written");
    let wrong = analyze("systemd_finds_nothing_wrong_with_the_units", &arguments).expect("it was there").stderr;
    assert!(wrong.contains("sometimes"), "{wrong}");
}

#[test]
fn the_filter_of_system_calls_lets_the_ring_and_its_memory_pass() {
    let set = value(&file("tramline.service"), "SystemCallFilter");
    let mut sets = vec![set];
    let mut calls = Vec::new();
    while let Some(set) = sets.pop() {
        let Some(ran) = analyze("the_filter_of_system_calls_lets_the_ring_and_its_memory_pass", &["syscall-filter", &set]) else { return };
        let words: Vec<String> =
            ran.ok().text().lines().skip(1).map(|line| line.trim().to_owned()).filter(|line| !line.starts_with('#')).collect();
        let (further, named): (Vec<_>, Vec<_>) = words.into_iter().filter(|word| !word.is_empty()).partition(|word| word.starts_with('@'));
        sets.extend(further);
        calls.extend(named);
    }
    for call in [
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "eventfd2",
        "madvise",
        "mlock",
        "mmap",
        "sched_setaffinity",
        "sched_yield",
        "fallocate",
        "pwrite64",
        "fsync",
        "renameat",
        "statfs",
        "fstatfs",
        "getrandom",
        "clone3",
        "rseq",
        "membarrier",
        "timerfd_create",
        "epoll_wait",
        "accept4",
    ] {
        assert!(calls.iter().any(|found| found == call), "{call} is not in {calls:?}");
    }
}

#[test]
fn what_the_unit_says_of_the_program_is_so() {
    let unit = file("tramline.service");
    // A wrong command line ends with the code at which systemd does not try again; a start that is refused does not.
    let wrong = value(&unit, "RestartPreventExitStatus");
    assert_eq!(tramline(&["serve", "--no-such-flag"]).code.to_string(), wrong);
    let refused = tramline(&["serve", "--data-dir", "/proc/no/such"]);
    assert!(refused.code != 0 && refused.code.to_string() != wrong, "{refused:?}");
    // The program ends its own stop before systemd does.
    let shown = tramline(&["config", "--format", "json"]).ok().json();
    let find =
        |key: &str| shown.as_array().into_iter().flatten().find(|entry| entry["key"] == key).cloned().unwrap_or_else(|| shown[key].clone());
    assert_eq!(find("shutdown.timeout")["value"], "30s", "{shown}");
    assert!(value(&unit, "TimeoutStopSec").parse::<u64>().expect("seconds") > 30 + 10);
    // The data directory of the settings is the one that the unit makes and that tune.sh looks at.
    assert_eq!(value(&unit, "StateDirectory"), "tramline");
    assert_eq!(value(&unit, "RequiresMountsFor"), "/var/lib/tramline");
}

#[test]
fn the_settings_file_is_one_with_and_without_its_comments() {
    let dir = temp_dir("settings");
    let path = dir.path().join("tramline.toml");
    let shown = |text: &str| {
        fs::write(&path, text).expect("written");
        tramline(&["config", "--config", path.to_str().expect("UTF-8"), "--format", "toml"])
    };
    let text = file("tramline.toml");
    let plain = shown(&text).ok();
    assert!(plain.text().contains("data.dir = \"/var/lib/tramline\""), "{plain:?}");
    // `cpus` is for a larger machine than this may be.
    let all: String = text
        .lines()
        .filter(|line| !line.contains("cpus"))
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_owned() + "\n")
        .collect();
    let all = shown(&all).ok().text();
    assert!(all.contains("10.0.0.1:7700") && all.contains("10.0.0.3:7700") && all.contains("0.0.0.0:7410"), "{all}");
}
