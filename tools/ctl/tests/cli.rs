//! The binary without a broker: usage, help, and what a missing server looks like. Runs against a broker are in the workspace's `tests/`.

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

fn tramctl(args: &str) -> Output {
    tramctl_with(args, None)
}

fn tramctl_with(args: &str, server: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tramctl"));
    command.args(args.split_whitespace()).env_remove("TRAMLINE_SERVER").stdin(Stdio::null());
    if let Some(server) = server {
        command.env("TRAMLINE_SERVER", server);
    }
    command.output().expect("the binary runs")
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
        ("topic", "Usage"),
        ("topic create t --partitions 0", "1 to 10000"),
        ("consume t --from newest", "earliest"),
        ("produce t --key-field 0", "counted from 1"),
        ("offsets t --timeout 0s", "1ms to 1h"),
    ] {
        let output = tramctl(args);
        assert_eq!(output.status.code(), Some(2), "{args}");
        assert!(text(&output.stderr).contains(part), "{args}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{args}");
    }
}

#[test]
fn with_json_errors_of_usage_are_an_object_too() {
    let output = tramctl("--format json topic create t --partitions 0");
    assert_eq!(output.status.code(), Some(2));
    let line = text(&output.stderr);
    assert!(line.starts_with(r#"{"error":{"code":"usage""#) && line.contains("1 to 10000") && line.matches('\n').count() == 1, "{line}");
}

#[test]
fn version_and_help_go_to_standard_output() {
    for args in ["--version", "--help", "topic --help", "topic create --help", "produce --help", "consume --help", "offsets --help"] {
        let output = tramctl(args);
        assert_eq!(output.status.code(), Some(0), "{args}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{args}");
    }
    assert!(text(&tramctl("--version").stdout).starts_with("tramctl "));
}

#[test]
fn a_server_that_is_not_there_is_exit_code_one_with_its_address() {
    let address = dead_address();
    for verb in ["topic list", "topic create t", "produce t", "consume t", "offsets t", "metadata", "cluster status"] {
        let output = tramctl(&format!("{verb} --server {address} --timeout 1s"));
        assert_eq!(output.status.code(), Some(1), "{verb}");
        let line = text(&output.stderr);
        assert!(line.contains(&address) && line.contains("[connection_failed]") && line.matches('\n').count() == 1, "{verb}: {line}");
        assert!(output.stdout.is_empty(), "{verb}");
    }
    let line = text(&tramctl(&format!("topic list --format json --server {address}")).stderr);
    assert!(line.contains(r#""code":"connection_failed""#) && line.contains(r#""retriable":true"#), "{line}");
}

#[test]
fn the_server_comes_from_the_option_before_the_environment() {
    let (from_env, from_option) = (dead_address(), dead_address());
    assert!(text(&tramctl_with("topic list", Some(&from_env)).stderr).contains(&from_env));
    let line = text(&tramctl_with(&format!("topic list --server {from_option}"), Some(&from_env)).stderr);
    assert!(line.contains(&from_option) && (from_env == from_option || !line.contains(&from_env)), "{line}");
    assert_eq!(tramctl_with("topic list", Some("nonsense")).status.code(), Some(2));
}
