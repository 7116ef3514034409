//! Retention by whole segments: old records go, the start of the log says so, the newest stay, disk space comes back.

mod common;

use common::layout::{Rec, code};
use common::{Node, Peer, WAIT, files_with_prefix};
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes that the files of a shard occupy on the disk.
fn used_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    files_with_prefix(dir, "").iter().filter_map(|path| std::fs::metadata(path).ok()).map(|m| m.blocks() * 512).sum()
}

/// Waits until `done`, asking again every 50 ms while the node is quiet.
fn wait_until(node: &mut Node, what: &str, mut done: impl FnMut(&mut Node) -> bool) {
    let until = Instant::now() + WAIT;
    while !done(node) {
        assert!(Instant::now() < until, "not within {WAIT:?}: {what}\n{}", node.process.stderr());
        node.process.watch_quietly(Duration::from_millis(50));
    }
}

const RECORD_BYTES: usize = 256 << 10;

fn fill(peer: &mut Peer, uid: u64, from: u64, count: u64) {
    for n in from..from + count {
        let mut value = format!("record {n};").into_bytes();
        value.resize(RECORD_BYTES, b'.');
        assert_eq!(peer.put(uid, &[Rec::value(value)]), n);
    }
}

fn check_readable(peer: &mut Peer, uid: u64, from: u64, end: u64) {
    let records = peer.read_from(uid, from);
    assert_eq!((records.first().map(|r| r.offset), records.len() as u64), (Some(from), end - from));
    for record in &records {
        assert!(
            record.value.as_ref().is_some_and(|v| v.starts_with(format!("record {};", record.offset).as_bytes())),
            "offset {}",
            record.offset
        );
    }
}

#[test]
fn retention_by_bytes_drops_whole_segments_and_keeps_the_newest() {
    let mut node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    let uid = peer.topic("small", 1, &[("retention.bytes", "8388608"), ("retention.ms", "-1")])[0].uid;
    let dir = node.shard_dir(0);
    // 128 MiB through segments of 16 MiB, with 8 MiB to be kept.
    fill(&mut peer, uid, 0, 512);
    wait_until(&mut node, "the start of the log moves", |_| peer.list_offset(uid, -2).1 >= 512 - 2 * (16 << 20) / RECORD_BYTES as u64 - 32);
    let start = peer.list_offset(uid, -2).1;
    assert!(512 - start >= (8 << 20) / RECORD_BYTES as u64, "at least what is to be kept is kept: {start}");
    let fetched = peer.fetch(uid, 0, 1000, 0);
    assert_eq!(fetched.map_or_else(|r| r.code, |f| f.error), code::OFFSET_OUT_OF_RANGE, "what is gone is refused by name");
    check_readable(&mut peer, uid, start, 512);
    // Freed files go to the pool or away: the directory does not hold the 128 MiB any more.
    wait_until(&mut node, "space comes back", |_| used_bytes(&dir) < 96 << 20);
    // It stays so over a restart, and offsets go on.
    node.stop();
    let node = node.restart();
    let mut peer = Peer::connect(node.ready.client);
    assert!(peer.list_offset(uid, -2).1 >= start);
    fill(&mut peer, uid, 512, 4);
    let start = peer.list_offset(uid, -2).1;
    check_readable(&mut peer, uid, start, 516);
}

#[test]
fn a_topic_without_limits_keeps_its_records_while_a_neighbour_is_dropped() {
    let mut node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    let forever = [("retention.bytes", "-1"), ("retention.ms", "-1")];
    let (keep, drop) =
        (peer.topic("keep", 1, &forever)[0].uid, peer.topic("drop", 1, &[("retention.bytes", "4194304"), ("retention.ms", "-1")])[0].uid);
    fill(&mut peer, keep, 0, 2);
    fill(&mut peer, drop, 0, 160);
    fill(&mut peer, keep, 2, 2);
    // The first segment holds both topics' records: it stays as long as one of them needs it.
    wait_until(&mut node, "the neighbour's log start moves", |_| peer.list_offset(drop, -2).1 > 0);
    check_readable(&mut peer, keep, 0, 4);
    node.process.kill();
    let node = node.restart();
    let mut peer = Peer::connect(node.ready.client);
    check_readable(&mut peer, keep, 0, 4);
    let start = peer.list_offset(drop, -2).1;
    check_readable(&mut peer, drop, start, 160);
}

#[test]
fn retention_by_time_drops_old_segments() {
    let mut node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    // The records' own time (2025) counts: all of it is older than an hour.
    let uid = peer.topic("old", 1, &[("retention.ms", "3600000")])[0].uid;
    fill(&mut peer, uid, 0, 200);
    wait_until(&mut node, "the start of the log moves", |_| peer.list_offset(uid, -2).1 > 100);
    let start = peer.list_offset(uid, -2).1;
    assert!(start <= 200);
    assert_eq!(peer.put(uid, &[Rec::value("next")]), 200, "offsets go on");
}

#[test]
fn deleting_a_topic_gives_its_space_back() {
    let mut node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    let uid = peer.topic("gone", 1, &[("retention.ms", "-1")])[0].uid;
    fill(&mut peer, uid, 0, 400);
    let dir = node.shard_dir(0);
    assert!(used_bytes(&dir) >= 100 << 20);
    peer.delete_topic("gone").expect("it exists");
    wait_until(&mut node, "space comes back", |_| used_bytes(&dir) < 80 << 20);
}
