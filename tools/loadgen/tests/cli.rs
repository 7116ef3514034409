//! The binary without a broker: usage, help, and what a missing server looks like. Runs against a broker are in the workspace's `tests/`.

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
fn a_report_that_cannot_be_written_is_told_before_the_run() {
    let output = loadgen("produce --closed --json /nonexistent/report.json");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("/nonexistent/report.json"));
}
