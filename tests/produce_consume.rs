//! Records in, records out: levels, keys, headers, codecs, starts of reading, and the flights table read back whole.

use common::layout::{self, Rec, level};
use common::tool::{tramctl, tramctl_with_input};
use common::{Node, Options, Peer, flights};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};

fn lines_of(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// Consumes to the end with `arguments` and gives the lines.
fn consume(server: &str, arguments: &[&str]) -> Vec<String> {
    let mut all = vec!["consume"];
    all.extend_from_slice(arguments);
    all.push("--until-end");
    lines_of(&tramctl(server, &all).ok().text())
}

#[test]
fn every_level_is_acknowledged_for_what_it_is_and_every_record_is_kept() {
    let node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    let uid = peer.topic("t", 1, &[])[0].uid;
    let batch_of = |n: u64| layout::batch(layout::TIME_US, &[Rec::value(format!("value {n}"))]);
    // None: no reply at all; the next reply on the connection belongs to the next request.
    peer.send_produce(level::NONE, &[(uid, &batch_of(0))]);
    for (n, level) in [(1, level::LEADER), (2, level::LEADER_DURABLE), (3, level::REPLICATED), (4, level::DURABLE)] {
        let results = peer.produce(level, &[(uid, &batch_of(n))]).expect("produce");
        assert_eq!((results[0].error, results[0].base_offset), (0, n), "level {level}: {results:?}");
        assert!(results[0].level_reached >= level.min(2) || results[0].level_reached == level, "level {level}: {results:?}");
        assert!(results[0].append_time_us > layout::TIME_US, "{results:?}");
        if [level::LEADER_DURABLE, level::DURABLE].contains(&level) {
            assert!(results[0].durable_end > n, "level {level}: durable means durable: {results:?}");
        }
    }
    let values: Vec<_> = peer.read_from(uid, 0).into_iter().map(|r| String::from_utf8(r.value.expect("a value")).expect("text")).collect();
    assert_eq!(values, (0..5).map(|n| format!("value {n}")).collect::<Vec<_>>());
    for level in ["none", "leader", "leader_durable", "replicated", "durable"] {
        let report = tramctl_with_input(&node.server(), &["produce", "t", "--level", level, "--format", "json"], b"a\nb\n").ok().json();
        assert_eq!((&report["records"], &report["failed"]), (&json!(2), &json!(0)), "{level}: {report}");
    }
    assert_eq!(consume(&node.server(), &["t"]).len(), 15);
}

#[test]
fn keys_headers_nulls_and_times_come_back_as_they_were_sent() {
    let node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    let uid = peer.topic("t", 1, &[])[0].uid;
    let records = vec![
        Rec {
            key: Some(b"k1".to_vec()),
            headers: vec![("a".into(), b"1".to_vec()), ("a".into(), vec![]), ("b".into(), vec![0, 255])],
            ..Rec::value("v1")
        },
        Rec { key: Some(vec![]), value: None, time_delta_us: -5, ..Rec::default() },
        Rec { time_delta_us: 1_000_000, ..Rec::value("") },
        Rec { key: Some(vec![0xFF; 300]), ..Rec::value(vec![0, 10, 13, 255]) },
    ];
    assert_eq!(peer.put(uid, &records), 0);
    let got = peer.read_from(uid, 0);
    assert_eq!(got.len(), records.len());
    for (n, (sent, got)) in records.iter().zip(&got).enumerate() {
        assert_eq!((got.offset, got.timestamp_us), (n as u64, layout::TIME_US + i64::from(sent.time_delta_us)));
        assert_eq!((&got.key, &got.value, &got.headers), (&sent.key, &sent.value, &sent.headers));
    }
    // A fetch from the middle of a batch begins with that batch; the reader skips.
    assert_eq!(peer.read_from(uid, 2).iter().map(|r| r.offset).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn the_tools_write_keys_headers_and_partitions_and_print_them() {
    let node = Node::start();
    let server = node.server();
    tramctl(&server, &["topic", "create", "t", "--partitions", "3"]).ok();
    tramctl_with_input(
        &server,
        &["produce", "t", "--key", "fixed", "--header", "a=1", "--header", "b=2=3", "--partition", "2"],
        b"x;one\ny;two\n",
    )
    .ok();
    tramctl_with_input(&server, &["produce", "t", "--key-field", "2", "--delimiter", ";", "--partition", "1"], b"z;three;9\n").ok();
    assert_eq!(consume(&server, &["t", "--partition", "2"]), ["x;one", "y;two"]);
    assert_eq!(consume(&server, &["t", "--partition", "1", "--print", "key-value"]), ["three\tz;three;9"]);
    assert_eq!(consume(&server, &["t", "--partition", "0"]), Vec::<String>::new());
    let all: Vec<Value> =
        consume(&server, &["t", "--partition", "2", "--print", "json"]).iter().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    assert_eq!(
        (&all[1]["partition"], &all[1]["offset"], &all[1]["key"], &all[1]["value"]),
        (&json!(2), &json!(1), &json!("fixed"), &json!("y;two"))
    );
    assert_eq!(all[1]["headers"], json!([{"name": "a", "value": "1"}, {"name": "b", "value": "2=3"}]));
    // Several partitions at once, and a count.
    let mut both = consume(&server, &["t", "--partition", "1", "--partition", "2"]);
    both.sort();
    assert_eq!(both, ["x;one", "y;two", "z;three;9"]);
    assert_eq!(lines_of(&tramctl(&server, &["consume", "t", "--count", "2"]).ok().text()).len(), 2);
}

#[test]
fn every_codec_comes_back_the_same_and_smaller_ones_are_smaller() {
    let node = Node::start();
    let server = node.server();
    let lines: Vec<String> =
        (0..2000).map(|n| format!("line {n} of text that repeats itself, as text does, again and again; {n}")).collect();
    let input = format!("{}\n", lines.join("\n"));
    let mut bytes = HashMap::new();
    for codec in ["none", "lz4", "zstd", "snappy"] {
        let topic = format!("codec-{codec}");
        tramctl(&server, &["topic", "create", &topic, "--partitions", "1"]).ok();
        tramctl_with_input(&server, &["produce", &topic, "--compression", codec, "--header", "codec=yes"], input.as_bytes()).ok();
        assert_eq!(consume(&server, &[&topic]), lines, "{codec}");
        let described = tramctl(&server, &["--format", "json", "topic", "describe", &topic]).ok().json();
        bytes.insert(codec, described["partitions"][0]["bytes"].as_u64().expect("bytes"));
    }
    for codec in ["lz4", "zstd", "snappy"] {
        assert!(bytes[codec] < bytes["none"], "{bytes:?}");
    }
}

#[test]
fn reading_starts_at_the_earliest_the_latest_an_offset_or_a_time() {
    let node = Node::start();
    let server = node.server();
    let mut peer = Peer::connect(node.ready.client);
    let uid = peer.topic("t", 1, &[])[0].uid;
    // One record a second, from 2025-01-01T00:00:00Z on, a batch each.
    for n in 0..10i64 {
        let batch = layout::batch(layout::TIME_US + n * 1_000_000, &[Rec::value(format!("second {n}"))]);
        assert_eq!(peer.produce(level::DURABLE, &[(uid, &batch)]).expect("produce")[0].error, 0);
    }
    let from = |start: &str| consume(&server, &["t", "--from", start]);
    assert_eq!(from("earliest").len(), 10);
    assert_eq!(from("latest").len(), 0);
    assert_eq!(from("7"), ["second 7", "second 8", "second 9"]);
    assert_eq!(from("2025-01-01T00:00:08Z"), ["second 8", "second 9"]);
    assert_eq!(from("2025-01-01T00:00:07.5Z"), ["second 8", "second 9"]);
    assert_eq!(from("2025-01-01T01:00:09+01:00"), ["second 9"]);
    assert_eq!(from("2024-06-01T00:00:00Z").len(), 10);
    assert_eq!(from("2026-01-01T00:00:00Z").len(), 0);
    assert_eq!(lines_of(&tramctl(&server, &["consume", "t", "--from", "3", "--count", "2"]).ok().text()), ["second 3", "second 4"]);
    // An offset holds for all partitions, and some are shorter: beyond the end there is nothing to read, which is no failure.
    assert_eq!(from("11").len(), 0);
    // Earliest, latest and time in the protocol.
    assert_eq!((peer.list_offset(uid, -2).1, peer.list_offset(uid, -1).1), (0, 10));
    assert_eq!(peer.list_offset(uid, layout::TIME_US + 3_500_000), (0, 4, layout::TIME_US + 4_000_000));
}

#[test]
fn a_waiting_fetch_gets_what_comes_and_min_bytes_and_max_wait_hold() {
    let node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    let uid = peer.topic("t", 1, &[])[0].uid;
    // Nothing there: it waits its time and comes back empty.
    let started = std::time::Instant::now();
    let fetched = peer.fetch(uid, 0, 1 << 20, 300).expect("an empty answer");
    assert!(fetched.batches.is_empty() && started.elapsed().as_millis() >= 250, "{:?} after {:?}", fetched, started.elapsed());
    // Something comes while it waits.
    let mut waiting = Peer::connect(node.ready.client);
    waiting.send(layout::kind::FETCH, common::peer::fetch_meta(0, 30_000, 1, 1 << 20, &[(uid, 0, 1 << 20)]), Vec::new());
    peer.put(uid, &[Rec::value("news")]);
    let reply = waiting.receive().expect("an answer");
    assert_eq!(common::peer::read_fetched(&reply)[0].batches[0].records[0].value.as_deref(), Some(&b"news"[..]));
    // A batch larger than asked for comes whole, or nobody could ever read it.
    peer.put(uid, &[Rec::value(vec![1; 500_000])]);
    assert_eq!(peer.fetch(uid, 1, 1000, 0).expect("the batch").batches[0].records[0].value.as_ref().map(Vec::len), Some(500_000));
}

#[test]
fn a_fetch_that_does_not_wait_brings_what_is_there_from_memory_and_from_the_disk() {
    let mut node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    let uid = peer.topic("t", 1, &[])[0].uid;
    peer.put(uid, &[Rec::value("one"), Rec::value("two")]);
    assert_eq!(peer.fetch(uid, 0, 1 << 20, 0).expect("the records").batches.len(), 1, "from memory");
    node.stop();
    let node = node.restart();
    let mut peer = Peer::connect(node.ready.client);
    assert_eq!(peer.fetch(uid, 1, 1 << 20, 0).expect("the records").batches.len(), 1, "from the disk");
    assert!(peer.fetch(uid, 2, 1 << 20, 0).expect("nothing").batches.is_empty());
}

#[test]
fn a_stream_over_several_partitions_delivers_everything_in_order() {
    let node = Node::with(Options::shards(2));
    let mut peer = Peer::connect(node.ready.client);
    let partitions = peer.topic("t", 4, &[]);
    // A stream is for partitions of one shard: one for each.
    let mut readers: Vec<(Peer, u64)> = (0..2)
        .map(|shard| {
            let entries: Vec<_> = partitions.iter().filter(|p| p.leader_shard == shard).map(|p| (p.uid, 0, 1 << 20)).collect();
            assert_eq!(entries.len(), 2, "partitions are spread evenly: {partitions:?}");
            let mut reader = Peer::connect(node.ready.client);
            let stream = reader.send(layout::kind::FETCH, common::peer::fetch_meta(1, 1000, 1, 8 << 20, &entries), Vec::new());
            (reader, stream)
        })
        .collect();
    const EACH: u64 = 50;
    for n in 0..EACH {
        for partition in &partitions {
            assert_eq!(peer.put(partition.uid, &[Rec::value(format!("{} {n}", partition.index))]), n);
        }
    }
    for (shard, (reader, stream)) in readers.iter_mut().enumerate() {
        let mine = partitions.iter().filter(|p| p.leader_shard as usize == shard);
        let mut next: BTreeMap<u64, u64> = mine.map(|p| (p.uid, 0)).collect();
        while next.values().sum::<u64>() < EACH * next.len() as u64 {
            let reply = reader.receive().unwrap_or_else(|e| panic!("{e:?} at {next:?}"));
            assert_eq!((reply.correlation, reply.refusal()), (*stream, None));
            for entry in common::peer::read_fetched(&reply) {
                assert_eq!(entry.error, 0);
                for record in entry.batches.into_iter().flat_map(|b| b.records) {
                    let expected = next.get_mut(&entry.partition_uid).expect("a partition that was asked for");
                    assert_eq!(record.offset, *expected, "in order, once");
                    *expected += 1;
                }
            }
        }
    }
}

#[test]
fn flights_by_key_into_16_partitions_come_back_whole_and_per_key_in_order() {
    let node = Node::with(Options::shards(2));
    let server = node.server();
    let table = flights::table();
    println!("{} lines from: {}", table.lines.len(), table.source);
    tramctl(&server, &["topic", "create", "flights", "--partitions", "16"]).ok();
    let input = format!("{}\n", table.lines.join("\n"));
    let report =
        tramctl_with_input(&server, &["produce", "flights", "--key-field", "12", "--format", "json"], input.as_bytes()).ok().json();
    assert_eq!(
        (&report["records"], &report["acked"], &report["failed"]),
        (&json!(table.lines.len()), &json!(table.lines.len()), &json!(0))
    );

    let offsets = tramctl(&server, &["--format", "json", "offsets", "flights"]).ok().json();
    let counts: Vec<u64> =
        offsets["partitions"].as_array().expect("partitions").iter().map(|p| p["records"].as_u64().expect("a number")).collect();
    assert_eq!(counts.iter().sum::<u64>(), table.lines.len() as u64);
    assert!(counts.iter().all(|c| *c > 0), "keys are spread over all partitions: {counts:?}");

    let back = consume(&server, &["flights"]);
    let group = |lines: &[String]| {
        let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in lines {
            by_key.entry(flights::key(line).to_owned()).or_default().push(line.clone());
        }
        by_key
    };
    // Same lines, and for each key the same order: the groups are equal. (Not with assert_eq: it would print 30 MB.)
    let (sent, got) = (group(&table.lines), group(&back));
    assert_eq!(back.len(), table.lines.len());
    for (key, lines) in &sent {
        assert!(
            got.get(key) == Some(lines),
            "key {key}: {} lines sent, {:?} came back, or in another order",
            lines.len(),
            got.get(key).map(Vec::len)
        );
    }
    assert_eq!(got.len(), sent.len());
    // Each key is in one partition.
    for partition in ["0", "7", "15"] {
        let here = group(&consume(&server, &["flights", "--partition", partition]));
        assert!(here.iter().all(|(key, lines)| sent[key] == *lines), "a key of partition {partition} is elsewhere too");
    }
}
