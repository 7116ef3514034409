//! The binary without a broker: usage, help, what a missing server looks like, refused files, and the comparison of two reports.
//!
//! Not here: runs against a broker, which this package cannot build.

use std::net::TcpListener;
use std::process::{Command, Output};

fn loadgen(args: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tramline-loadgen"))
        .args(args.split_whitespace())
        .env_remove("TRAMLINE_SERVER")
        .output()
        .expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An address at which nothing listens: the port was free a moment ago, and is in the kernel's range for outgoing connections.
fn dead_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").to_string()
}

#[test]
fn wrong_usage_is_exit_code_two_with_a_sentence() {
    for (args, part) in [
        ("", "Usage"),
        ("produce", "--rate"),
        ("produce --closed --size 1", "48 to 16777216"),
        ("produce --closed --buffer-bytes 1MiB --batch-bytes 8MiB", "at least one batch"),
        ("both --closed --cpu 1023", "--cpu 1023"),
        ("produce --closed --records /nonexistent.csv", "/nonexistent.csv (--records) cannot be read"),
        ("produce --closed --records /dev/null", "/dev/null (--records) is empty"),
        ("produce --closed --key-choice zipf:9", "0.1 to 5"),
        ("produce --rate 1 --burst 5", "--arrivals bursts"),
        ("produce --closed --hgrm -", "name a file"),
        ("produce --closed --disk /nonexistent", "not a directory"),
        ("produce --closed --json same --hlog ./same", "--json and --hlog would both write"),
        ("produce --rate 1 --hgrm run --plot run.service", "--plot and --hgrm would both write"),
        ("produce --closed --json=", "a file name must not be empty"),
        ("--scenario=", "a file name must not be empty"),
        ("consume --hgrm x", "--hgrm needs a latency"),
        ("consume --hlog x", "use --from latest"),
        ("replay", "--rate"),
        ("churn", "--rate"),
        ("churn --rate 1 --level none", "--level none has no answer"),
        ("fanout --closed --readers 0", "1 to 64"),
        ("sink", "--listen"),
        ("compare one.json", "B.json"),
    ] {
        let output = loadgen(args);
        assert_eq!(output.status.code(), Some(2), "{args}");
        assert!(text(&output.stderr).contains(part), "{args}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{args}");
    }
}

#[test]
fn every_scenario_file_is_a_good_command_line() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/scenarios");
    let files: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    assert!(files.len() >= 7, "{files:?}");
    let server = dead_address();
    for path in files {
        // Good options get as far as the server that is not there.
        let output = loadgen(&format!("--scenario {} --server {server} --timeout 1s", path.display()));
        assert_eq!(output.status.code(), Some(1), "{}: {}", path.display(), text(&output.stderr));
        assert!(text(&output.stderr).contains(&server), "{}: {}", path.display(), text(&output.stderr));
    }
}

#[test]
fn version_and_help_go_to_standard_output() {
    for args in [
        "--version",
        "--help",
        "produce --help",
        "consume --help",
        "both --help",
        "replay --help",
        "fanout --help",
        "churn --help",
        "sink --help",
        "compare --help",
    ] {
        let output = loadgen(args);
        assert_eq!(output.status.code(), Some(0), "{args}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{args}");
    }
    assert!(text(&loadgen("--version").stdout).starts_with("tramline-loadgen "));
}

#[test]
fn a_server_that_is_not_there_is_exit_code_one_with_its_address() {
    let address = dead_address();
    for mode in ["produce --closed", "consume", "both --rate 10", "replay --rate 10", "fanout --closed", "churn --rate 10"] {
        let output = loadgen(&format!("{mode} --server {address} --timeout 1s"));
        assert_eq!(output.status.code(), Some(1), "{mode}");
        assert!(text(&output.stderr).contains(&address), "{mode}: {}", text(&output.stderr));
    }
}

#[test]
fn a_file_that_cannot_be_written_is_told_before_the_run() {
    for option in ["--json", "--hgrm", "--hlog", "--plot"] {
        // Nothing listens there: a run that began would speak of the address.
        let output = loadgen(&format!("produce --closed {option} /nonexistent/out --server {}", dead_address()));
        assert_eq!(output.status.code(), Some(1), "{option}");
        let told = text(&output.stderr);
        assert!(told.contains("/nonexistent/out cannot be written") && told.contains(option), "{option}: {told}");
    }
}

#[test]
fn a_run_that_could_not_begin_leaves_the_files_as_they_were() {
    let dir = tempfile::tempdir().expect("a directory");
    let (old, new) = (dir.path().join("old.json"), dir.path().join("new.svg"));
    std::fs::write(&old, "an older report").expect("written");
    let (old_name, new_name) = (old.display(), new.display());
    let output = loadgen(&format!("produce --closed --timeout 1s --json {old_name} --plot {new_name} --server {}", dead_address()));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(&old).expect("still there"), "an older report");
    assert!(!new.exists());
}

/// Two reports of real runs (the machine's names replaced): open loop at 200 records/s, closed loop with 8 records under way.
fn report(name: &str) -> String {
    format!("{}/tests/reports/{name}.json", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn two_reports_are_compared_and_drawn() {
    let dir = tempfile::tempdir().expect("a directory");
    let plot = dir.path().join("plot.svg");
    let output = loadgen(&format!("compare {} {} --plot {}", report("open"), report("closed"), plot.display()));
    let told = text(&output.stdout);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""), "{told}");
    for part in [
        "!!! ONLY B IS A CLOSED LOOP",
        "warning: parameter differs: rate: 200 / none",
        "warning: machine differs: kernel: 6.1.0 / 6.2.0",
        "ack (ack from intended / ack CLOSED LOOP)",
        "asked records/s",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let row: Vec<f64> = told
        .lines()
        .find(|line| line.starts_with("p99.999"))
        .expect("the row")
        .split_whitespace()
        .skip(1)
        .map(|cell| cell.parse().expect("a number"))
        .collect();
    assert!(row.len() == 3 && (row[1] / row[0] - row[2]).abs() < 0.001, "the ratio is B by A: {row:?}");
    let svg = std::fs::read_to_string(&plot).expect("drawn");
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.contains("only B CLOSED LOOP"), "{svg}");
    // Curves: ack and service of A, ack of B; seconds: three of each; rates: one of each.
    assert_eq!(svg.matches("<polyline").count(), 3 + 6 + 2, "{svg}");
}

#[test]
fn equal_reports_have_no_warnings_of_difference() {
    let told = text(&loadgen(&format!("compare {0} {0}", report("open"))).stdout);
    assert!(!told.contains("differs") && !told.contains("CLOSED") && told.contains("1.000"), "{told}");
}

#[test]
fn what_is_no_report_is_refused_with_exit_code_two() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).expect("written");
        path.display().to_string()
    };
    let damaged = std::fs::read_to_string(report("open")).expect("a report").replace("HISTFAAA", "AISTFAAA");
    for (file, part) in [
        (dir.path().join("missing").display().to_string(), "cannot be read"),
        (dir.path().display().to_string(), "cannot be read"),
        (write("a.json", "not json"), "is not JSON"),
        (write("b.json", "{\"tool\": \"something else\"}"), "is not a report of tramline-loadgen"),
        (write("c.json", "{\"tool\": \"tramline-loadgen\"}"), "before reports had histograms"),
        (write("d.json", "{\"tool\": \"tramline-loadgen\", \"format_version\": 99}"), "report format 99"),
        (write("e.json", &damaged), "damaged histogram ack"),
    ] {
        for args in [format!("compare {file} {}", report("open")), format!("compare {} {file}", report("open"))] {
            let output = loadgen(&args);
            assert_eq!(output.status.code(), Some(2), "{args}");
            assert!(text(&output.stderr).contains(part) && text(&output.stderr).contains(&file), "{args}: {}", text(&output.stderr));
            assert!(output.stdout.is_empty(), "{args}");
        }
    }
    let output = loadgen(&format!("compare {0} {0} --plot /nonexistent/p.svg", report("open")));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("/nonexistent/p.svg") && output.stdout.is_empty());
}

#[test]
fn no_file_that_is_read_is_overwritten() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let open = std::fs::read_to_string(report("open")).expect("a report");
    std::fs::write(path("copy.json"), &open).expect("written");
    std::os::unix::fs::symlink("copy.json", path("link.json")).expect("a link");
    std::fs::write(path("lines"), "a line\n").expect("written");
    std::fs::write(path("sc.toml"), "mode = \"produce\"\nclosed = true\n").expect("written");
    let (copy, link, lines, scenario, other) = (path("copy.json"), path("link.json"), path("lines"), path("sc.toml"), report("open"));
    for args in [
        format!("compare {copy} {other} --plot {copy}"),
        format!("compare {other} {copy} --plot {copy}"),
        format!("compare {other} {copy} --plot {link}"),
        format!("produce --closed --records {lines} --json {lines}"),
        format!("--scenario {scenario} --hlog {scenario}"),
        format!("produce --closed --json {copy} --hlog {link}"),
    ] {
        // Nothing listens there: what is not refused ends with exit code 1.
        let server = if args.starts_with("compare") { String::new() } else { format!("--server {}", dead_address()) };
        let output = loadgen(&format!("{args} {server}"));
        assert_eq!(output.status.code(), Some(2), "{args}: {}", text(&output.stderr));
    }
    assert_eq!(std::fs::read_to_string(&copy).expect("still there"), open);
    let output = loadgen(&format!("compare {copy} {copy} --plot {}", path("new.svg")));
    assert_eq!(output.status.code(), Some(0), "one report may be compared with itself");
}
