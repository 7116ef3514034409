//! The binary without a broker: usage, help, what a missing server looks like, and refused files.
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
        ("both --closed --cpu 0,0,0", "two separated by a comma"),
        ("produce --closed --hgrm -", "name a file"),
        ("produce --closed --disk /nonexistent", "not a directory"),
        ("produce --closed --json same --hlog ./same", "--json and --hlog would both write"),
        ("consume --hgrm x", "--hgrm needs a latency"),
        ("consume --hlog x", "use --from latest"),
    ] {
        let output = loadgen(args);
        assert_eq!(output.status.code(), Some(2), "{args}");
        assert!(text(&output.stderr).contains(part), "{args}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{args}");
    }
}

#[test]
fn version_and_help_go_to_standard_output() {
    for args in ["--version", "--help", "produce --help", "consume --help", "both --help"] {
        let output = loadgen(args);
        assert_eq!(output.status.code(), Some(0), "{args}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{args}");
    }
    assert!(text(&loadgen("--version").stdout).starts_with("tramline-loadgen "));
}

#[test]
fn a_server_that_is_not_there_is_exit_code_one_with_its_address() {
    let address = dead_address();
    for mode in ["produce --closed", "consume", "both --rate 10"] {
        let output = loadgen(&format!("{mode} --server {address} --timeout 1s"));
        assert_eq!(output.status.code(), Some(1), "{mode}");
        assert!(text(&output.stderr).contains(&address), "{mode}: {}", text(&output.stderr));
    }
}

#[test]
fn a_file_that_cannot_be_written_is_told_before_the_run() {
    for option in ["--json", "--hgrm", "--hlog"] {
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
    let (old, new) = (dir.path().join("old.json"), dir.path().join("new.hgrm"));
    std::fs::write(&old, "an older report").expect("written");
    let (old_name, new_name) = (old.display(), new.display());
    let output = loadgen(&format!("produce --closed --timeout 1s --json {old_name} --hgrm {new_name} --server {}", dead_address()));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(&old).expect("still there"), "an older report");
    assert!(!new.exists());
}
