//! The load generator against a real node: every mode, its verdicts, and what it says when the node stands still or goes away.
//!
//! Not here: how fast either is (`bench/`), runs into the generator's own sink (`tools/loadgen/tests`).

use common::tool::{Ran, program, run, tramctl};
use common::{Node, Options, temp_dir};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

/// How long the node stands still.
const STANDS_STILL: Duration = Duration::from_secs(2);
/// A rate that a debug build on a busy machine keeps.
const RATE: &str = "500";

fn loadgen(node: &Node, arguments: &str, more: &[&str]) -> Ran {
    let server = node.server();
    let mut all: Vec<&str> = arguments.split_whitespace().collect();
    all.extend(["--server", &server, "--quiet", "--json", "-"]);
    all.extend_from_slice(more);
    run(&program("tramline-loadgen"), &all, b"")
}

/// The report of a run in which nothing was lost, doubled, out of order or changed. Exit code 3 says that this machine did not keep up, which is
/// none of the node's faults here.
fn good(ran: Ran) -> Value {
    assert!(ran.code == 0 || ran.code == 3, "{}\n{}", ran.text(), ran.stderr);
    let report = ran.json();
    for check in [&report["check"], &report["replay"]["check"]].into_iter().filter(|check| !check.is_null()) {
        for name in ["lost", "duplicates", "reordered", "changed"] {
            assert_eq!(check[name], 0, "{name}: {report}");
        }
    }
    report
}

fn count(report: &Value, side: &str, name: &str) -> u64 {
    report[side][name].as_u64().unwrap_or_else(|| panic!("{side} {name}: {report}"))
}

#[test]
fn every_mode_runs_and_checks_what_it_reads() {
    let node = Node::with(Options::shards(2));
    let report = good(loadgen(&node, &format!("produce --topic a --partitions 4 --rate {RATE} --duration 1s --warmup 0s --size 100"), &[]));
    assert!(count(&report, "produce", "acked") >= 400, "{report}");
    assert!(count(&report, "check", "received") >= 400, "what was written is read back: {report}");
    let report = good(loadgen(&node, "consume --topic a --from earliest --until-end", &[]));
    assert!(count(&report, "consume", "records") >= 400, "{report}");
    let report = good(loadgen(
        &node,
        &format!(
            "both --topic b --partitions 4 --rate {RATE} --arrivals poisson --duration 1s --warmup 0s --size 50..500 --keys 100 --key-choice zipf:1.1"
        ),
        &[],
    ));
    assert!(count(&report, "check", "received") >= 300, "{report}");
    let report = good(loadgen(&node, &format!("replay --topic a --rate {RATE} --duration 1s --warmup 0s --size 100 --readers 2"), &[]));
    assert!(report["replay"]["records"].as_u64().is_some_and(|records| records > 400), "{report}");
    let report = good(loadgen(
        &node,
        &format!("fanout --topic c --partitions 2 --rate {RATE} --duration 1s --warmup 0s --size 100 --readers 3"),
        &[],
    ));
    let written = count(&report, "produce", "acked");
    assert!(written >= 400 && count(&report, "check", "received") >= 3 * written, "each of three readers has them: {report}");
    // Few: a connection takes a busy machine some ten milliseconds, and the rate has to be held.
    let report = good(loadgen(&node, "churn --topic a --rate 10 --duration 1s --warmup 0s", &[]));
    assert!(count(&report, "connect", "records") >= 8, "{report}");
}

#[test]
fn what_weak_levels_acknowledge_is_read_back_whole() {
    let node = Node::start();
    // Of 40 such runs 4 called records lost that were committed a moment after their answers.
    for level in ["leader", "replicated", "leader", "replicated", "leader", "replicated"] {
        let arguments = format!("produce --topic t --rate 5000 --duration 200ms --warmup 0s --size 100 --late-max 10s --level {level}");
        let report = good(loadgen(&node, &arguments, &[]));
        assert!(count(&report, "check", "received") >= count(&report, "produce", "acked"), "{level}: {report}");
    }
}

#[test]
fn files_are_written_that_others_read() {
    let node = Node::start();
    let dir = temp_dir("loadgen");
    let path = |name: &str| dir.path().join(name).to_str().expect("a path in UTF-8").to_owned();
    let (hgrm, hlog, plot) = (path("a.hgrm"), path("a.hlog"), path("a.svg"));
    let arguments = format!("both --topic t --partitions 1 --rate {RATE} --duration 2s --warmup 0s --size 100");
    good(loadgen(&node, &arguments, &["--hgrm", &hgrm, "--hlog", &hlog, "--plot", &plot]));
    for name in ["a.hgrm", "a.service.hgrm", "a.ack.hgrm"] {
        let table = std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let total = table.lines().find(|line| line.contains("Total count")).unwrap_or_else(|| panic!("{name}: {table}"));
        let total = total.trim_end_matches(']').rsplit(' ').find_map(|word| word.parse::<u64>().ok());
        assert!(total.is_some_and(|total| total >= 800), "{name}: {table}");
    }
    let log = std::fs::read_to_string(&hlog).expect("an interval log");
    for tag in ["Tag=ack,", "Tag=service,", "Tag=e2e,"] {
        assert!(log.contains(tag), "{tag}: {log}");
    }
    assert!(std::fs::read_to_string(&plot).expect("a plot").contains("</svg>"));
}

#[test]
fn a_scenario_file_is_run_and_an_unknown_key_is_refused_by_name() {
    let node = Node::start();
    let dir = temp_dir("scenario");
    let file = dir.path().join("a.toml");
    let path = file.to_str().expect("a path in UTF-8");
    let body = format!(
        "mode = \"produce\"\ntopic = \"from-a-file\"\npartitions = 3\nrate = \"{RATE}\"\nsize = 64\nduration = \"1s\"\nwarmup = \"0s\"\n"
    );
    std::fs::write(&file, &body).expect("written");
    let report = good(loadgen(&node, "", &["--scenario", path]));
    assert!(count(&report, "produce", "acked") >= 400, "{report}");
    let described = tramctl(&node.server(), &["--format", "json", "topic", "describe", "from-a-file"]).ok().json();
    assert_eq!(described["partitions"].as_array().map(Vec::len), Some(3));
    std::fs::write(&file, body + "szie = 3\n").expect("written");
    let refused = loadgen(&node, "", &["--scenario", path]);
    assert!(refused.code == 2 && refused.stderr.contains("szie") && refused.stderr.contains("a.toml"), "{refused:?}");
}

#[test]
fn a_node_that_stands_still_is_in_the_latency_and_one_that_goes_away_ends_the_run() {
    let mut node = Node::start();
    let server = node.server();
    let arguments = format!(
        "produce --topic t --partitions 1 --rate {RATE} --duration 6s --warmup 0s --size 100 --no-verify --quiet --json - --server {server}"
    );
    let stopped = std::thread::scope(|scope| {
        let running = scope.spawn(|| run(&program("tramline-loadgen"), &arguments.split_whitespace().collect::<Vec<_>>(), b""));
        wait_for_topic(&node, "t");
        node.process.signal("STOP");
        // This long it stands still, which is what is asserted below: nothing is waited for.
        let stood_still = channel::<()>();
        let _ = stood_still.1.recv_timeout(STANDS_STILL);
        node.process.signal("CONT");
        running.join().expect("the generator")
    });
    let report = stopped.json();
    let longest_us = report["produce"]["latency_us"]["max"].as_f64().unwrap_or(0.0);
    assert!(longest_us > 0.9 * STANDS_STILL.as_micros() as f64, "{longest_us} us at most: {}", stopped.stderr);
    let vanished = std::thread::scope(|scope| {
        let more = arguments.replace("--topic t", "--topic u");
        let running = scope.spawn(move || run(&program("tramline-loadgen"), &more.split_whitespace().collect::<Vec<_>>(), b""));
        wait_for_topic(&node, "u");
        node.process.kill();
        running.join().expect("the generator")
    });
    assert_eq!(vanished.code, 1, "{}", vanished.stderr);
    assert!(vanished.stderr.contains("vanished"), "{}", vanished.stderr);
    assert!(vanished.json()["ended_early"].is_string(), "it tells what it had until then");
}

#[test]
fn a_node_that_stands_still_ends_a_run_that_waits_for_no_answer() {
    let node = Node::start();
    good(loadgen(&node, "produce --topic t --rate 500 --duration 200ms --warmup 0s --size 100", &[]));
    // Silence is no fault where the node answers.
    let silent = loadgen(&node, "consume --topic t --from latest --duration 1s --warmup 0s --timeout 400ms", &[]);
    assert_eq!(silent.code, 0, "{silent:?}");
    let mut runs = ["consume --topic t --from earliest", "produce --topic t --level none --rate 100 --size 100"]
        .map(|arguments| Running::start(&node, &format!("{arguments} --duration 60s --warmup 0s --timeout 1s"), &[]));
    runs.iter_mut().for_each(Running::under_way);
    node.process.signal("STOP");
    for running in runs {
        let ran = running.wait();
        assert!(ran.code == 1 && ran.stderr.contains("the server vanished"), "{ran:?}");
        assert!(ran.json()["ended_early"].is_string(), "it tells what it had until then: {}", ran.text());
    }
    node.process.signal("CONT");
}

#[test]
fn a_signal_ends_a_run_with_its_report() {
    let node = Node::start();
    good(loadgen(&node, "produce --topic t --rate 500 --duration 200ms --warmup 0s --size 100", &[]));
    let dir = temp_dir("signal");
    let hgrm = dir.path().join("a.hgrm");
    let path = hgrm.to_str().expect("a path in UTF-8");
    let runs = [
        ("produce --topic t --rate 100", "INT", 130, "produce"),
        ("both --topic t --rate 100", "TERM", 143, "consume"),
        ("consume --topic t", "INT", 130, "consume"),
        ("replay --topic t --rate 100", "TERM", 143, "replay"),
        ("fanout --topic t --rate 100 --readers 2", "INT", 130, "consume"),
        ("churn --topic t --rate 50", "TERM", 143, "connect"),
    ]
    .map(|(arguments, signal, code, side)| {
        let more = if side == "produce" { vec!["--hgrm", path] } else { vec![] };
        let arguments = format!("{arguments} --duration 60s --warmup 0s");
        (Running::start(&node, &arguments, &more), signal, code, side)
    });
    for (mut running, signal, code, side) in runs {
        running.under_way();
        let done = Command::new("kill").args(["-s", signal, &running.child.id().to_string()]).status().expect("kill runs");
        assert!(done.success());
        let ran = running.wait();
        assert!(ran.code == code && ran.stderr.contains(&format!("ended by SIG{signal}")), "{side}: {ran:?}");
        let report = ran.json();
        assert!(count(&report, side, "total_records") > 0, "{report}");
        assert_eq!(report["exit_code"], code);
        assert!(report["check"].is_null() || report["check"]["good"] == true, "{report}");
        assert!(report["measured_s"].as_f64().is_some_and(|time_s| time_s < 60.0), "{report}");
    }
    assert!(std::fs::read_to_string(&hgrm).expect("a table").contains("Total count"));
}

/// The load generator in a process of its own.
struct Running {
    child: Child,
    progress: BufReader<ChildStderr>,
    told: String,
}

impl Running {
    fn start(node: &Node, arguments: &str, more: &[&str]) -> Running {
        let mut child = Command::new(program("tramline-loadgen"))
            .args(arguments.split_whitespace())
            .args(["--server", &node.server(), "--json", "-"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the generator starts");
        let progress = BufReader::new(child.stderr.take().expect("piped"));
        Running { child, progress, told: String::new() }
    }

    /// Waits for its first progress line: a second went by, and records with it.
    fn under_way(&mut self) {
        self.progress.read_line(&mut self.told).expect("a line");
    }

    /// Waits for its end.
    fn wait(mut self) -> Ran {
        // The report is longer than a pipe holds, and comes before the standard error ends.
        let mut stdout = Vec::new();
        self.child.stdout.take().expect("piped").read_to_end(&mut stdout).expect("its report");
        self.progress.read_to_string(&mut self.told).expect("its sentences");
        let status = self.child.wait().expect("the end of our own child");
        Ran { code: status.code().unwrap_or(-1), stdout, stderr: std::mem::take(&mut self.told) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a topic has records.
fn wait_for_topic(node: &Node, topic: &str) {
    let until = std::time::Instant::now() + common::WAIT;
    loop {
        let described = tramctl(&node.server(), &["--format", "json", "topic", "describe", topic]);
        if described.code == 0 && described.json()["partitions"][0]["next"].as_u64().is_some_and(|end| end > 0) {
            return;
        }
        assert!(std::time::Instant::now() < until, "no record comes: {described:?}");
    }
}
