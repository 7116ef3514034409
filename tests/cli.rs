//! The exact command lines that scripts and users rely on: verbs, options before and after the verb, JSON, exit codes.

use common::tool::{Ran, program, run, run_command, tramctl, tramctl_with_input, tramline};
use common::{Node, Options, temp_dir};
use serde_json::{Value, json};
use std::process::Command;

/// Runs `tramctl` with JSON output and expects success.
fn json_of(server: &str, arguments: &[&str]) -> Value {
    let mut all = vec!["--format", "json"];
    all.extend_from_slice(arguments);
    tramctl(server, &all).ok().json()
}

#[test]
fn topics_are_managed_with_json_output_and_exit_codes() {
    let node = Node::with(Options::shards(2));
    let server = node.server();
    let created = json_of(&server, &["topic", "create", "orders", "--partitions", "4", "--set", "retention.ms=3600000"]);
    assert_eq!((&created["topic"], &created["created"], &created["partitions"]), (&json!("orders"), &json!(true), &json!(4)));
    let again = tramctl(&server, &["topic", "create", "orders", "--partitions", "4"]);
    assert_eq!(again.code, 1);
    assert!(again.stdout.is_empty() && again.stderr.contains("topic_exists"), "{again:?}");
    let again = json_of(&server, &["topic", "create", "orders", "--partitions", "4", "--if-not-exists"]);
    assert_eq!(again["created"], json!(false));

    let list = json_of(&server, &["topic", "list"]);
    assert_eq!((list.as_array().map(Vec::len), &list[0]["topic"], &list[0]["partitions"]), (Some(1), &json!("orders"), &json!(4)));
    let described = json_of(&server, &["topic", "describe", "orders"]);
    assert_eq!(described["settings"]["retention.ms"], json!({"value": "3600000", "origin": "set"}));
    assert_eq!(described["partitions"].as_array().map(Vec::len), Some(4));

    tramctl(&server, &["topic", "alter", "orders", "--set", "retention.ms=7200000", "--partitions", "6"]).ok();
    let described = json_of(&server, &["topic", "describe", "orders"]);
    assert_eq!(
        (&described["settings"]["retention.ms"]["value"], described["partitions"].as_array().map(Vec::len)),
        (&json!("7200000"), Some(6))
    );
    let refused = tramctl(&server, &["topic", "alter", "orders", "--set", "no.such=1"]);
    assert!(refused.code == 1 && refused.stderr.contains("no.such"), "{refused:?}");

    let offsets = json_of(&server, &["offsets", "orders"]);
    assert_eq!(offsets["partitions"][5], json!({"partition": 5, "first": 0, "next": 0, "records": 0}));
    tramctl(&server, &["topic", "delete", "orders"]).ok();
    let gone = tramctl(&server, &["--format", "json", "topic", "describe", "orders"]);
    assert_eq!(gone.code, 1);
    let error: Value = serde_json::from_str(&gone.stderr).unwrap_or_else(|e| panic!("{e}: {}", gone.stderr));
    assert_eq!((&error["error"]["code"], &error["error"]["retriable"]), (&json!("unknown_topic"), &json!(false)));
    assert_eq!(json_of(&server, &["topic", "list"]), json!([]));
}

#[test]
fn global_options_stand_before_or_after_the_verb_and_the_server_comes_from_the_environment_too() {
    let node = Node::start();
    let server = node.server();
    let tramctl = program("tramctl");
    for arguments in [
        vec!["--server", &server, "--format", "json", "--timeout", "20s", "topic", "list"],
        vec!["topic", "list", "--server", &server, "--format", "json", "--timeout", "20s"],
        vec!["topic", "--format", "json", "list", "--server", &server],
    ] {
        assert_eq!(run(&tramctl, &arguments, b"").ok().json(), json!([]), "{arguments:?}");
    }
    let ran = run_command(Command::new(&tramctl).args(["--format", "json", "topic", "list"]).env("TRAMLINE_SERVER", &server), b"").ok();
    assert_eq!(ran.json(), json!([]));
    // The flag wins over the environment.
    let ran = run_command(
        Command::new(&tramctl).args(["--server", &server, "--format", "json", "topic", "list"]).env("TRAMLINE_SERVER", "127.0.0.1:1"),
        b"",
    );
    assert_eq!(ran.ok().json(), json!([]));
}

#[test]
fn wrong_usage_is_exit_code_2_and_no_server_is_exit_code_1() {
    let usage = |arguments: &[&str]| {
        let ran = run(&program("tramctl"), arguments, b"");
        assert_eq!(ran.code, 2, "{arguments:?}: {ran:?}");
        assert!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "{arguments:?}: {ran:?}");
    };
    for arguments in [
        &[][..],
        &["fly"],
        &["topic", "create"],
        &["topic", "create", "t", "--partitions", "0"],
        &["topic", "create", "t", "--partitions", "1", "--set", "novalue"],
        &["produce", "t", "--level", "maybe"],
        &["produce", "t", "--compression", "rar"],
        &["produce", "t", "--key-field", "0"],
        &["consume", "t", "--from", "yesterday"],
        &["consume", "t", "--count", "1", "--until-end"],
        &["consume", "t", "--print", "xml"],
        &["offsets"],
        &["topic", "list", "--timeout", "soon"],
        &["topic", "list", "--format", "xml"],
    ] {
        usage(arguments);
    }
    // A port where nobody listens: found and given back, so that it is free.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
    let ran = run(&program("tramctl"), &["--server", &format!("127.0.0.1:{port}"), "--timeout", "2s", "topic", "list"], b"");
    assert!(ran.code == 1 && ran.stderr.contains(&port.to_string()), "{ran:?}");
}

#[test]
fn produce_reports_and_ends_with_1_when_records_failed() {
    let node = Node::start();
    let server = node.server();
    tramctl(&server, &["topic", "create", "t", "--partitions", "1", "--set", "record.max.bytes=100"]).ok();
    let report = tramctl_with_input(&server, &["produce", "t", "--format", "json"], b"one\ntwo\nthree\n").ok().json();
    assert_eq!((&report["records"], &report["acked"], &report["failed"]), (&json!(3), &json!(3), &json!(0)), "{report}");
    assert!(report["seconds"].is_number(), "{report}");
    let long = format!("short\n{}\n", "x".repeat(500));
    let ran = tramctl_with_input(&server, &["produce", "t", "--format", "json"], long.as_bytes());
    assert_eq!(ran.code, 1, "{ran:?}");
    let report = ran.json();
    assert!(report["failed"].as_u64() >= Some(1), "{report}");
    assert_eq!(
        report["records"].as_u64(),
        Some(report["acked"].as_u64().expect("acked") + report["failed"].as_u64().expect("failed")),
        "{report}"
    );
    // Nothing to send is not a failure; no such topic is.
    let report = tramctl_with_input(&server, &["produce", "t", "--format", "json"], b"").ok().json();
    assert_eq!(report["records"], json!(0));
    let ran = tramctl_with_input(&server, &["produce", "nowhere"], b"x\n");
    assert!(ran.code == 1 && ran.stderr.contains("nowhere"), "{ran:?}");
    let ran = tramctl_with_input(&server, &["produce", "t", "--partition", "7"], b"x\n");
    assert!(ran.code == 1 && ran.stderr.contains('7'), "{ran:?}");
}

#[test]
fn a_consumer_that_follows_prints_what_comes() {
    use std::io::{BufRead, BufReader};
    let node = Node::start();
    let server = node.server();
    tramctl(&server, &["topic", "create", "t", "--partitions", "2"]).ok();
    tramctl_with_input(&server, &["produce", "t"], b"before\n").ok();
    let mut child = Command::new(program("tramctl"))
        .args(["--server", &server, "consume", "t", "--from", "earliest"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("tramctl starts");
    let (sender, lines) = std::sync::mpsc::channel();
    let stdout = child.stdout.take().expect("piped");
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let next = || lines.recv_timeout(common::WAIT);
    let first = next();
    tramctl_with_input(&server, &["produce", "t"], b"after\n").ok();
    let second = next();
    child.kill().expect("our own child");
    child.wait().expect("our own child");
    reader.join().expect("the reader");
    assert_eq!((first.as_deref(), second.as_deref()), (Ok("before"), Ok("after")));
}

#[test]
fn every_binary_has_help_with_defaults_and_a_version() {
    let check = |ran: Ran, name: &str, parts: &[&str]| {
        let ran = ran.ok();
        for part in parts {
            assert!(ran.text().contains(part), "{name}: no {part:?} in:\n{}", ran.text());
        }
    };
    let tramline_path = std::path::PathBuf::from(common::node::binary());
    for (name, path) in
        [("tramline", tramline_path.clone()), ("tramctl", program("tramctl")), ("tramline-loadgen", program("tramline-loadgen"))]
    {
        check(run(&path, &["--version"], b""), name, &[name, env!("CARGO_PKG_VERSION")]);
        check(run(&path, &["--help"], b""), name, &["Usage"]);
        assert_eq!(run(&path, &["--no-such-flag"], b"").code, 2, "{name}");
    }
    check(
        run(&tramline_path, &["serve", "--help"], b""),
        "serve",
        &[
            "--data-dir",
            "--config",
            "--listen",
            "127.0.0.1:7410",
            "--advertise",
            "--admin",
            "127.0.0.1:7401",
            "--shards",
            "--cpus",
            "--spin",
            "adaptive",
        ],
    );
    check(
        run(&program("tramctl"), &["--help"], b""),
        "tramctl",
        &["--server", "127.0.0.1:7410", "TRAMLINE_SERVER", "--format", "table", "--timeout", "30s"],
    );
    check(
        run(&program("tramctl"), &["produce", "--help"], b""),
        "produce",
        &["--key-field", "--delimiter", "--level", "durable", "--compression"],
    );
    check(run(&program("tramctl"), &["consume", "--help"], b""), "consume", &["--from", "earliest", "--until-end", "--print", "key-value"]);
}

#[test]
fn config_tells_each_setting_with_its_origin() {
    let dir = temp_dir("config");
    let file = dir.path().join("node.toml");
    std::fs::write(&file, "pool.segments = 3\nspin = \"never\"\n").expect("a settings file");
    let file_name = file.display().to_string();
    let mut command = Command::new(common::node::binary());
    command
        .args(["config", "--data-dir", "x", "--config", &file_name, "--spin", "always", "--set", "segment.bytes=32MiB"])
        .env("TRAMLINE_LOG_FORMAT", "json");
    let text = run_command(&mut command, b"").ok().text();
    let line =
        |key: &str| text.lines().find(|l| l.split_whitespace().next() == Some(key)).unwrap_or_else(|| panic!("no {key} in:\n{text}"));
    for (key, parts) in [
        ("spin", ["always", "flag"]),
        ("segment.bytes", ["32MiB", "flag"]),
        ("log.format", ["json", "environment"]),
        ("pool.segments", ["3", "file"]),
        ("block.bytes.max", ["1MiB", "default"]),
    ] {
        for part in parts {
            assert!(line(key).split_whitespace().any(|word| word == part), "{}: {part} expected", line(key));
        }
    }
    // Unknown keys are refused by name, wherever they stand.
    std::fs::write(&file, "no.such.key = 3\n").expect("a settings file");
    let refused = tramline(&["config", "--data-dir", "x", "--config", &file_name]);
    assert!(refused.code != 0 && refused.stderr.contains("no.such.key"), "{refused:?}");
    let refused = tramline(&["config", "--data-dir", "x", "--set", "no.such.key=3"]);
    assert!(refused.code != 0 && refused.stderr.contains("no.such.key"), "{refused:?}");
    let refused = tramline(&["config", "--data-dir", "x", "--set", "segment.bytes=1"]);
    assert!(refused.code != 0 && refused.stderr.contains("segment.bytes"), "{refused:?}");
}
