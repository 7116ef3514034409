//! Trimming over the protocol and with `tramctl`: what is below the offset is gone at once and for good, the rest is there, space comes back.

use common::layout::{Rec, TIME_US, code};
use common::peer::Partition;
use common::tool::{tramctl, tramctl_with_input};
use common::{Node, Options, Peer, WAIT, files_with_prefix};
use serde_json::json;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

const FOREVER: [(&str, &str); 2] = [("retention.bytes", "-1"), ("retention.ms", "-1")];
const RECORD_BYTES: usize = 256 << 10;

/// Batches of two large records each; a record says its offset.
fn fill(peer: &mut Peer, uid: u64, offsets: std::ops::Range<u64>) {
    for base in offsets.step_by(2) {
        let record = |offset: u64| {
            let mut value = format!("record {offset};").into_bytes();
            value.resize(RECORD_BYTES, b'.');
            Rec { time_delta_us: (offset - base) as i32, ..Rec::value(value) }
        };
        assert_eq!(peer.put(uid, &[record(base), record(base + 1)]), base);
    }
}

/// The partition is exactly `start..end`: both ends are told, below is refused, all between is readable.
fn check(peer: &mut Peer, uid: u64, start: u64, end: u64) {
    assert_eq!((peer.list_offset(uid, -2).1, peer.list_offset(uid, -1).1), (start, end));
    if start > 0 {
        for below in [0, start - 1] {
            let fetched = peer.fetch(uid, below, 1000, 0).expect("an answer");
            assert_eq!((fetched.error, fetched.next_offset, fetched.batches.len()), (code::OFFSET_OUT_OF_RANGE, start, 0), "at {below}");
        }
    }
    let records = peer.read_from(uid, start);
    assert_eq!(records.len() as u64, end - start);
    for (record, offset) in records.iter().zip(start..) {
        assert_eq!(record.offset, offset);
        assert!(record.value.as_ref().is_some_and(|v| v.starts_with(format!("record {offset};").as_bytes())), "offset {offset}");
    }
}

fn used_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    files_with_prefix(dir, "").iter().filter_map(|path| std::fs::metadata(path).ok()).map(|m| m.blocks() * 512).sum()
}

#[test]
fn a_trim_in_the_middle_of_batch_and_segment_holds_at_once_and_over_sigkill() {
    let mut node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    let uid = peer.topic("t", 1, &FOREVER)[0].uid;
    fill(&mut peer, uid, 0..20);
    // Odd: in the middle of a batch. In the segment that is being written to.
    assert_eq!(peer.trim(&[(uid, 7)]), Ok(vec![(code::OK, 7, 20)]));
    node.process.kill();
    let mut node = node.restart();
    let mut peer = Peer::connect(node.ready.client);
    check(&mut peer, uid, 7, 20);
    // Through several segments of 16 MiB, and again in the middle of one.
    fill(&mut peer, uid, 20..300);
    assert_eq!(peer.trim(&[(uid, 151)]), Ok(vec![(code::OK, 151, 300)]));
    check(&mut peer, uid, 151, 300);
    // Going back is no error and changes nothing.
    assert_eq!(peer.trim(&[(uid, 150), (uid, 0), (uid, 151)]), Ok(vec![(code::OK, 151, 300); 3]));
    node.process.kill();
    let mut node = node.restart();
    let mut peer = Peer::connect(node.ready.client);
    check(&mut peer, uid, 151, 300);
    // Everything. Offsets go on, also in the next life.
    assert_eq!(peer.trim(&[(uid, 300)]), Ok(vec![(code::OK, 300, 300)]));
    node.process.kill();
    let mut node = node.restart();
    let mut peer = Peer::connect(node.ready.client);
    check(&mut peer, uid, 300, 300);
    fill(&mut peer, uid, 300..302);
    node.stop();
    let node = node.restart();
    check(&mut Peer::connect(node.ready.client), uid, 300, 302);
}

#[test]
fn space_comes_back_and_a_neighbour_keeps_its_records() {
    let mut node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    let (uid, neighbour) = (peer.topic("t", 1, &FOREVER)[0].uid, peer.topic("keep", 1, &FOREVER)[0].uid);
    fill(&mut peer, neighbour, 0..2);
    fill(&mut peer, uid, 0..600);
    let dir = node.shard_dir(0);
    assert!(used_bytes(&dir) >= 150 << 20);
    assert_eq!(peer.trim(&[(uid, 600)]), Ok(vec![(code::OK, 600, 600)]));
    let until = Instant::now() + WAIT;
    // The segment with the neighbour's records stays, and what the log keeps ready: its own, the next, two of the pool, one for the sorter.
    while used_bytes(&dir) >= 112 << 20 {
        assert!(Instant::now() < until, "{} bytes are in use", used_bytes(&dir));
        node.process.watch_quietly(Duration::from_millis(50));
    }
    check(&mut peer, neighbour, 0, 2);
    check(&mut peer, uid, 600, 600);
    node.process.kill();
    let node = node.restart();
    let mut peer = Peer::connect(node.ready.client);
    check(&mut peer, neighbour, 0, 2);
    check(&mut peer, uid, 600, 600);
}

#[test]
fn what_cannot_be_trimmed_is_refused_by_name_and_changes_nothing() {
    let node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    let partitions = peer.topic("t", 2, &FOREVER);
    let (uid, other) = (partitions[0].uid, partitions[1].uid);
    fill(&mut peer, uid, 0..4);
    for before in [5, u64::MAX] {
        assert_eq!(peer.trim(&[(uid, before)]), Ok(vec![(code::OFFSET_OUT_OF_RANGE, 0, 4)]), "past the committed end");
    }
    assert_eq!(peer.trim(&[(other, 1), (uid, 1)]), Ok(vec![(code::OFFSET_OUT_OF_RANGE, 0, 0), (code::OK, 1, 4)]), "each for itself");
    assert_eq!(peer.trim(&[(uid + 1000, 0)]), Ok(vec![(code::UNKNOWN_PARTITION, 0, 0)]));
    assert_eq!(peer.trim(&[]).expect_err("nothing is named").code, code::INVALID_REQUEST);
    check(&mut peer, uid, 1, 4);
}

/// A node of two shards and a topic with partitions on both; the address of each shard's own port.
fn two_shards() -> (Node, Vec<Partition>, Vec<SocketAddr>) {
    let node = Node::with(Options::shards(2));
    let mut peer = Peer::connect(node.ready.client);
    let partitions = peer.topic("t", 4, &FOREVER);
    let ports = peer.hello.as_ref().expect("hello was answered").nodes[0].shard_ports.clone();
    let addresses = ports.iter().map(|port| SocketAddr::new(node.ready.client.ip(), *port)).collect();
    (node, partitions, addresses)
}

#[test]
fn a_trim_goes_over_the_mesh_to_the_owner() {
    let (mut node, partitions, addresses) = two_shards();
    for partition in &partitions {
        let mut through_wrong = Peer::connect(addresses[1 - usize::from(partition.leader_shard)]);
        fill(&mut through_wrong, partition.uid, 0..4);
        assert_eq!(through_wrong.trim(&[(partition.uid, 3)]), Ok(vec![(code::OK, 3, 4)]));
    }
    node.process.kill();
    let node = node.restart();
    let mut peer = Peer::connect(node.ready.client);
    partitions.iter().for_each(|partition| check(&mut peer, partition.uid, 3, 4));
    // One request is one owner's: of another's partition it says so.
    let on = |shard: u16| partitions.iter().find(|p| p.leader_shard == shard).expect("partitions on both shards").uid;
    let told = peer.trim(&[(on(0), 4), (on(1), 4)]).expect("an answer");
    assert_eq!(told, [(code::OK, 4, 4), (code::NOT_LEADER, 0, 0)]);
}

#[test]
fn a_time_finds_no_trimmed_record() {
    let node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    let uid = peer.topic("t", 1, &FOREVER)[0].uid;
    fill(&mut peer, uid, 0..4);
    assert_eq!(peer.list_offset(uid, TIME_US), (code::OK, 0, TIME_US));
    peer.trim(&[(uid, 1)]).expect("an answer");
    assert_eq!(
        peer.list_offset(uid, TIME_US),
        (code::OK, 1, TIME_US + 1),
        "the second record of the first batch is the first that is left"
    );
}

#[test]
fn tramctl_trims_by_offset_time_and_latest_over_all_shards() {
    let node = Node::with(Options::shards(2));
    let server = node.server();
    tramctl(&server, &["topic", "create", "orders", "--partitions", "4"]).ok();
    for partition in ["0", "1", "2"] {
        tramctl_with_input(&server, &["produce", "orders", "--partition", partition], b"a\nb\nc\n").ok();
    }
    let json_of =
        |arguments: &[&str]| tramctl(&server, &[&["--format", "json", "topic", "trim", "orders"], arguments].concat()).ok().json();
    let row =
        |partition: u32, first: u64, next: u64| json!({"partition": partition, "first": first, "next": next, "records": next - first});

    let text = tramctl(&server, &["topic", "trim", "orders", "--before", "1", "--partition", "2", "--partition", "0"]).ok().text();
    assert_eq!(text, "PARTITION  FIRST  NEXT  RECORDS\n        2      1     3        2\n        0      1     3        2\n");
    assert_eq!(json_of(&["--before", "2", "--partition", "1"]), json!({"topic": "orders", "partitions": [row(1, 2, 3)]}));
    assert_eq!(json_of(&["--before", "0"])["partitions"], json!([row(0, 1, 3), row(1, 2, 3), row(2, 1, 3), row(3, 0, 0)]), "no way back");

    // One partition that is too short is named, and the others stay as they are.
    let refused = tramctl(&server, &["topic", "trim", "orders", "--before", "2"]);
    assert!(refused.code == 1 && refused.stdout.is_empty(), "{refused:?}");
    for part in ["partition 3", "offset_out_of_range", "offset 2 is past the committed end: trim before 0"] {
        assert!(refused.stderr.contains(part), "{part:?}: {refused:?}");
    }
    for (arguments, exit, part) in [
        (&["topic", "trim", "nosuch", "--before", "latest"][..], 1, "unknown_topic"),
        (&["topic", "trim", "orders", "--before", "latest", "--partition", "9"], 1, "unknown_partition"),
        (&["topic", "trim", "orders", "--before", "yesterday"], 2, "write latest, an offset"),
        (&["topic", "trim", "orders"], 2, "--before"),
    ] {
        let refused = tramctl(&server, arguments);
        assert!(refused.code == exit && refused.stdout.is_empty() && refused.stderr.contains(part), "{arguments:?}: {refused:?}");
    }

    // By time: the third record's is the first of its time or later.
    let record = tramctl(&server, &["consume", "orders", "--partition", "0", "--from", "2", "--count", "1", "--print", "json"]).ok();
    let time = record.json()["timestamp"].as_str().expect("a time").to_owned();
    let first = json_of(&["--before", &time, "--partition", "0"])["partitions"][0]["first"].as_u64().expect("an offset");
    assert!((1..=2).contains(&first), "records of one line each can have one time: {first}");
    assert_eq!(json_of(&["--before", "2000-01-01T00:00:00Z", "--partition", "2"])["partitions"], json!([row(2, 1, 3)]));
    assert_eq!(json_of(&["--before", "2100-01-01T00:00:00Z", "--partition", "2"])["partitions"], json!([row(2, 3, 3)]));

    let all = json!([row(0, 3, 3), row(1, 3, 3), row(2, 3, 3), row(3, 0, 0)]);
    assert_eq!(json_of(&["--before", "latest"])["partitions"], all);
    assert_eq!(json_of(&["--before", "latest"])["partitions"], all, "again");
    assert_eq!(tramctl(&server, &["consume", "orders", "--until-end"]).ok().text(), "");
}
