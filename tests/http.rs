//! The HTTP port: metrics in Prometheus' text format, liveness, readiness, the slowest requests, histograms.

use common::layout::Rec;
use common::node::metric_in;
use common::tool::tramctl;
use common::{Node, Options, Peer};
use std::collections::{BTreeMap, BTreeSet};

/// Checks a Prometheus text line by line; gives each family's type.
fn parse(text: &str) -> BTreeMap<String, String> {
    let mut types = BTreeMap::new();
    let mut helped = BTreeSet::new();
    let mut seen_series = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            let (name, what) = rest.split_once(' ').unwrap_or((rest, ""));
            match word {
                "HELP" => assert!(helped.insert(name.to_owned()) && !what.is_empty(), "{line}"),
                "TYPE" => {
                    assert!(["counter", "gauge", "histogram", "summary", "unknown", "info"].contains(&what), "{line}");
                    assert_eq!(types.insert(name.to_owned(), what.to_owned()), None, "{line}");
                }
                "UNIT" | "EOF" => {}
                _ => panic!("neither HELP nor TYPE: {line}"),
            }
            continue;
        }
        let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no value: {line}"));
        let name = &line[..end];
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':'), "{line}");
        let rest = &line[end..];
        let value = match rest.strip_prefix('{') {
            Some(labels) => {
                let (labels, value) = labels.rsplit_once("} ").unwrap_or_else(|| panic!("labels do not end: {line}"));
                for label in labels.split(',').filter(|l| !l.is_empty()) {
                    let (name, value) = label.split_once('=').unwrap_or_else(|| panic!("a label without a value: {line}"));
                    assert!(!name.is_empty() && value.starts_with('"') && value.ends_with('"'), "{line}");
                }
                value
            }
            None => rest.trim_start(),
        };
        assert!(value == "+Inf" || value == "NaN" || value.parse::<f64>().is_ok(), "not a number: {line}");
        let series = &line[..line.len() - value.len()];
        assert!(seen_series.insert(series.to_owned()), "twice: {line}");
        let family = ["", "_total", "_bucket", "_sum", "_count", "_info", "_created"]
            .iter()
            .filter_map(|suffix| name.strip_suffix(suffix))
            .find(|family| types.contains_key(*family))
            .unwrap_or_else(|| panic!("a sample without a TYPE: {line}"));
        assert!(family.starts_with("tramline_") || family.starts_with("process_"), "{line}");
    }
    types
}

#[test]
fn metrics_parse_count_what_was_done_and_are_documented() {
    let node = Node::with(Options::shards(2));
    let mut peer = Peer::connect(node.ready.client);
    let before = node.http("/metrics").1;
    for partition in peer.topic("t", 4, &[]) {
        for n in 0..5 {
            peer.put(partition.uid, &[Rec::value(format!("value {n}")), Rec::value("second")]);
        }
        assert_eq!(peer.read_from(partition.uid, 0).len(), 10);
    }
    // A scrape shows a snapshot that shards publish from time to time: it is asked for until it has caught up.
    let until = std::time::Instant::now() + common::WAIT;
    let after = loop {
        let (status, text) = node.http("/metrics");
        assert_eq!(status, 200);
        let moved: usize = text.lines().filter(|l| !before.contains(*l)).count();
        if moved > 0 || std::time::Instant::now() > until {
            break text;
        }
    };
    let families = parse(&after);
    assert!(families.len() >= 10, "{families:?}");
    // The document and the program are one: every family of the document is there, and the other way round.
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/METRICS.md")).expect("docs/METRICS.md");
    let documented: BTreeSet<String> = document
        .split('`')
        .filter(|word| word.starts_with("tramline_") && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        .map(|word| word.strip_suffix("_total").unwrap_or(word).to_owned())
        .collect();
    let shown: BTreeSet<String> = families.keys().map(|name| name.strip_suffix("_total").unwrap_or(name).to_owned()).collect();
    let missing: Vec<_> = documented.difference(&shown).collect();
    let undocumented: Vec<_> = shown.difference(&documented).filter(|name| name.starts_with("tramline_")).collect();
    assert!(missing.is_empty(), "in docs/METRICS.md and not in /metrics: {missing:?}");
    assert!(undocumented.is_empty(), "in /metrics and not in docs/METRICS.md: {undocumented:?}");
    assert_eq!(metric_in("a{b=\"c\"} 2\na 3\nab 9\n", "a"), 5.0, "the helper adds up one family");
}

#[test]
fn liveness_and_readiness_are_answered_and_other_paths_are_not_found() {
    let node = Node::start();
    assert_eq!(node.http("/livez").0, 200);
    assert_eq!(node.http("/readyz").0, 200);
    assert_eq!(node.http("/no/such/page").0, 404);
}

#[test]
fn garbage_at_the_admin_port_harms_nobody() {
    use std::io::{Read, Write};
    let node = Node::start();
    for bytes in [&b"\x00\x01\x02\x03\r\n\r\n"[..], b"GET / HTTP/9.9\r\n\r\n", &[b'A'; 100_000]] {
        let mut stream = std::net::TcpStream::connect(node.ready.admin).expect("the admin port accepts");
        stream.set_read_timeout(Some(common::WAIT)).expect("a read timeout");
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    assert_eq!(node.http("/livez").0, 200);
    Peer::connect(node.ready.client).ping();
}

#[test]
fn the_slowest_requests_are_told_and_histograms_are_had() {
    let mut node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    let uid = peer.topic("t", 1, &[])[0].uid;
    peer.put(uid, &[Rec::value("value")]);
    let admin = node.ready.admin.to_string();
    let until = std::time::Instant::now() + common::WAIT;
    let produced = loop {
        let told = tramctl(&node.server(), &["slow", "--admin", &admin, "--format", "json"]).ok().json();
        let found = told["requests"].as_array().expect("a list").iter().find(|request| request["kind"] == "produce").cloned();
        if let Some(found) = found {
            break found;
        }
        assert!(std::time::Instant::now() < until, "{told}");
        node.process.watch_quietly(std::time::Duration::from_millis(50));
    };
    // What it did not pass is not told.
    let us = |stage: &str| produced[format!("{stage}_us")].as_f64().unwrap_or(0.0);
    let parts: f64 = ["parse", "append", "write", "reply"].into_iter().map(us).sum();
    assert!((parts - us("total")).abs() < 0.01 && us("write") > 0.0, "{produced}");
    let table = tramctl(&node.server(), &["slow", "--admin", &admin, "--limit", "1"]).ok().text();
    assert!(table.starts_with("ENDED (UTC)") && table.lines().count() == 2, "{table}");
    let (status, log) = node.http("/histograms");
    assert!(status == 200 && log.lines().any(|line| line.starts_with("Tag=produce.total,")), "{log}");
    assert_eq!(node.http("/histograms/7").0, 404);
    // Somebody else there, and nobody.
    let other = tramctl("127.0.0.1:1", &["slow", "--admin", &node.server()]);
    assert!(other.code == 1 && other.stderr.contains("admin"), "{other:?}");
    node.stop();
    let refused = tramctl("127.0.0.1:1", &["slow", "--admin", &admin]);
    assert!(refused.code == 1 && refused.stderr.contains("--admin names the address"), "{refused:?}");
}
