//! Runs of the binary against its own null sink, in another process: loads, verdicts and exit codes as a user sees them.
//!
//! Not here: runs against a broker, which this package cannot build; what a report looks like (`cli.rs`).

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

const BINARY: &str = env!("CARGO_BIN_EXE_tramline-loadgen");

/// Ends its process when dropped.
struct Sink {
    child: Child,
    address: String,
}

impl Sink {
    fn start(args: &str) -> Sink {
        let mut child = Command::new(BINARY)
            .args(["sink", "--listen", "127.0.0.1:0"])
            .args(args.split_whitespace())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it says when it is ready");
        let address = line.trim().strip_prefix("ready ").expect("its address").to_owned();
        Sink { child, address }
    }

    fn run(&self, args: &str) -> Ran {
        let output = Command::new(BINARY)
            .args(args.split_whitespace())
            .args(["--server", &self.address, "--warmup", "0s", "--quiet", "--json", "-"])
            .env_remove("TRAMLINE_SERVER")
            .output()
            .expect("the binary runs");
        Ran::of(args, output)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Ran {
    code: Option<i32>,
    stderr: String,
    report: Value,
}

impl Ran {
    fn of(args: &str, output: Output) -> Ran {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        assert!(output.status.code() == Some(2) || stderr.is_empty() || stderr.contains("tramline-loadgen:"), "{args}: {stderr}");
        Ran { code: output.status.code(), stderr, report }
    }

    fn count(&self, side: &str, name: &str) -> u64 {
        self.report[side][name].as_u64().unwrap_or_else(|| panic!("{side} {name}: {} {}", self.report, self.stderr))
    }
}

#[test]
fn a_closed_loop_of_many_producers_on_few_threads_keeps_all_of_them_busy() {
    let sink = Sink::start("");
    let ran =
        sink.run("produce --closed --producers 40 --threads 2 --outstanding 8 --size 100 --partitions 3 --no-verify --duration 500ms");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!((ran.count("produce", "failed"), ran.count("produce", "total_records")), (0, ran.count("produce", "acked")));
    // Each of 40 has its 8 records answered again and again; if they rested a second after a round, there would be 320 in all.
    assert!(ran.count("produce", "records") > 640, "{}", ran.report);
    assert_eq!(ran.report["parameters"]["threads"], 2);
}

#[test]
fn an_open_loop_of_many_producers_sends_what_is_due() {
    let sink = Sink::start("");
    for arrivals in ["constant", "bursts --burst 10", "poisson"] {
        let args =
            format!("produce --rate 2000 --arrivals {arrivals} --producers 50 --threads 2 --late-max 10s --no-verify --duration 500ms");
        let ran = sink.run(&args);
        let total = ran.count("produce", "total_records") + ran.count("produce", "unsent");
        // 1,000, of a Poisson process with a standard deviation of 32; bursts end with whole ones.
        let (least, most) = if arrivals == "poisson" { (850, 1_150) } else { (1_000, 1_000) };
        assert!((least..=most).contains(&total), "{arrivals}: {total}");
        assert_eq!((ran.count("lateness", "records"), ran.count("lateness", "late_by_generator")), (total, 0), "{arrivals}");
    }
}

#[test]
fn a_seed_repeats_a_run() {
    let sink = Sink::start("");
    let count = || sink.run("produce --rate 1000 --arrivals poisson --seed 77 --late-max 10s --no-verify --duration 300ms").report;
    let (one, other) = (count(), count());
    let due = |report: &Value| report["lateness"]["records"].as_u64().expect("a count");
    assert!(due(&one) == due(&other) && due(&one) > 200, "{} {}", one["lateness"], other["lateness"]);
    assert_eq!((&one["seeds"]["seed"], &other["seeds"]["seed"]), (&Value::from("77"), &Value::from("77")));
}

#[test]
fn a_generator_that_is_too_slow_says_so_with_exit_code_three() {
    let sink = Sink::start("");
    // More than any core can make; the buffer is too large to fill, so nothing of it is the sink's fault.
    let ran = sink.run("produce --rate 100M --size 100 --buffer-bytes 4GiB --in-flight 1024 --no-verify --duration 300ms");
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("THE RATE WAS NOT REACHED") && ran.stderr.contains("the bottleneck was the LOAD GENERATOR"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("RECORDS WERE SENT LATE"), "{}", ran.stderr);
    assert_eq!(ran.report["exit_code"], 3);
}

#[test]
fn a_server_that_is_too_slow_is_named_as_the_bottleneck() {
    let sink = Sink::start("--bytes-per-second 2M");
    let ran = sink.run("produce --rate 20k --size 1000 --buffer-bytes 1MiB --no-verify --duration 500ms");
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    assert!(ran.stderr.contains("the bottleneck was the SERVER"), "{}", ran.stderr);
    assert!(ran.count("lateness", "late_by_server") > ran.count("lateness", "late_by_generator"), "{}", ran.report["lateness"]);
}

#[test]
fn what_cannot_be_read_back_is_told_before_the_run() {
    let ran = Sink::start("").run("produce --closed --duration 100ms");
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("--no-verify"), "{}", ran.stderr);
}

#[test]
fn real_records_with_their_keys_are_sent() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("lines.csv");
    let lines: String = (0..200).map(|n| format!("{n},key{},some text\n", n % 7)).collect();
    std::fs::write(&path, lines).expect("written");
    let args = format!("produce --closed --records {} --key-field 2 --partitions 4 --no-verify --duration 200ms", path.display());
    let ran = Sink::start("").run(&args);
    assert_eq!((ran.code, ran.count("produce", "failed")), (Some(0), 0), "{}", ran.stderr);
    assert!(ran.count("produce", "records") > 200, "the file goes round");
}

#[test]
fn a_sink_that_goes_away_ends_the_run_with_what_was_measured() {
    let mut sink = Sink::start("");
    let child = Command::new(BINARY)
        .args("produce --rate 1000 --no-verify --duration 60s --warmup 0s --timeout 1s --json -".split_whitespace())
        .args(["--server", &sink.address])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("the binary runs");
    // A line of progress each second: after the first one records are under way.
    let mut progress = BufReader::new(child.stderr.take().expect("piped"));
    let mut told = String::new();
    progress.read_line(&mut told).expect("a second goes by");
    sink.child.kill().expect("our own child");
    std::io::Read::read_to_string(&mut progress, &mut told).expect("it ends");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("the server vanished"), "{told}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert!(report["produce"]["acked"].as_u64() > Some(0) && report["ended_early"].is_string(), "{report}");
}

#[test]
fn a_standard_error_that_cannot_be_written_costs_no_report() {
    let sink = Sink::start("");
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device that is always full");
    // A progress line after a second, and the alarm of a missed rate at the end.
    for args in
        ["produce --rate 100 --no-verify --duration 1100ms", "produce --rate 100M --buffer-bytes 1MiB --no-verify --duration 100ms --quiet"]
    {
        let output = Command::new(BINARY)
            .args(args.split_whitespace())
            .args(["--server", &sink.address, "--warmup", "0s", "--late-max", "10s", "--json", "-"])
            .stderr(full())
            .output()
            .expect("the binary runs");
        let ran = Ran::of(args, output);
        assert!(matches!(ran.code, Some(0 | 3)), "{args}: {:?}", ran.code);
        assert!(ran.count("produce", "acked") > 0, "{args}");
    }
    let output = Command::new(BINARY).args("produce --closed --json /nonexistent/out".split_whitespace()).stderr(full()).output();
    assert_eq!(output.expect("the binary runs").status.code(), Some(1));
}

#[test]
fn a_stall_is_in_the_latency_of_all_it_delayed_and_in_the_service_time_of_what_was_on_the_wire() {
    let sink = Sink::start("");
    let child = Command::new(BINARY)
        .args(
            "produce --rate 200 --in-flight 1 --size 100 --no-verify --duration 3s --warmup 0s --late-max 10s --json -".split_whitespace(),
        )
        .args(["--server", &sink.address])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("the binary runs");
    let signal = |name: &str| {
        let done = Command::new("kill").args(["-s", name, &sink.child.id().to_string()]).status().expect("kill runs");
        assert!(done.success(), "{name}");
    };
    let mut progress = BufReader::new(child.stderr.take().expect("piped"));
    let mut told = String::new();
    // From one progress line to the next it stands still: 1 s of 3.
    progress.read_line(&mut told).expect("a second goes by");
    signal("STOP");
    progress.read_line(&mut told).expect("another one");
    signal("CONT");
    std::io::Read::read_to_string(&mut progress, &mut told).expect("it ends");
    let output = child.wait_with_output().expect("it ends");
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    let us =
        |name: &str, quantile: &str| report["produce"][name][quantile].as_f64().unwrap_or_else(|| panic!("{name} {quantile}: {report}"));
    // A third of the records is evenly late by 0 to 1 s.
    assert!(us("latency_us", "p90") > 300_000.0 && us("latency_us", "max") > 600_000.0, "{}", report["produce"]);
    // One batch was on the wire, with what was taken between two turns.
    assert!(us("service_us", "max") > 600_000.0 && us("service_us", "p90") < 200_000.0, "{}", report["produce"]);
    assert_eq!(report["produce"]["failed"], 0);
}

#[test]
fn connections_come_and_go_at_a_rate() {
    let sink = Sink::start("");
    let ran = sink.run("churn --rate 200 --threads 2 --partitions 3 --late-max 10s --duration 500ms");
    assert_eq!(ran.count("connect", "total_records") + ran.count("connect", "unsent"), 100, "{}", ran.stderr);
    assert_eq!(ran.count("connect", "failed"), 0, "{}", ran.report["connect"]);
    let latencies = ran.report["connect"]["latency_us"]["count"].as_u64();
    assert_eq!((latencies, &ran.report["loop"]), (ran.report["connect"]["service_us"]["count"].as_u64(), &Value::from("open")));
    assert!(latencies > Some(50), "{}", ran.report["connect"]);
    let ran = sink.run("churn --rate 100 --action produce --level leader --arrivals poisson --late-max 10s --duration 300ms");
    assert_eq!(ran.count("connect", "failed"), 0, "{}", ran.report["connect"]);
}

#[test]
fn a_scenario_file_is_a_command_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |text: &str| {
        let path = dir.path().join("load.toml");
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let sink = Sink::start("");
    let path = write("mode = \"produce\"\nrate = 1000\nsize = \"100..200\"\nno-verify = true\nduration = \"10s\"\nlate-max = \"10s\"\n");
    let ran = sink.run(&format!("--scenario {path} --duration 200ms"));
    assert_eq!(ran.count("produce", "total_records") + ran.count("produce", "unsent"), 200, "{}", ran.stderr);
    assert_eq!(
        (&ran.report["parameters"]["size"], &ran.report["parameters"]["scenario"]),
        (&Value::from("100..200"), &Value::from(path.as_str()))
    );
    for (text, part) in [
        ("mode = \"produce\"\nclosed = true\nspeed = 5\n", "has the key speed, which is no option of produce; its keys are mode, server"),
        ("closed = true\n", "names no mode"),
        ("mode = \"produce\"\nrate = 0\n", "1 to 100000000"),
        ("mode = \"produce\"\n", "--rate"),
        ("mode produce", "is not TOML"),
    ] {
        let path = write(text);
        let ran = sink.run(&format!("--scenario {path}"));
        assert_eq!(ran.code, Some(2), "{text}");
        assert!(ran.stderr.contains(part) && ran.stderr.contains(&path), "{text}: {}", ran.stderr);
    }
    let ran = sink.run("--scenario /nonexistent.toml");
    assert!(ran.code == Some(2) && ran.stderr.contains("/nonexistent.toml (--scenario) cannot be read"), "{}", ran.stderr);
}
