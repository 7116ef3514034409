//! Retention: old records go, to the batch where they lie together, the start of the log says so, the newest stay, disk space comes back.

use common::layout::{self, Got, Rec, code};
use common::{Node, Options, Peer, WAIT, files_with_prefix};
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

/// Waits until the log occupies no more than `sealed` full segments of 16 MiB, and what stays of any log: the segment that is written to, the one behind
/// it, two files of the pool, and the one that is kept for the sorter.
fn wait_for_space(node: &mut Node, dir: &Path, sealed: u64) {
    let (most, until) = ((sealed + 5) * (16 << 20) + (1 << 20), Instant::now() + WAIT);
    while used_bytes(dir) > most {
        assert!(Instant::now() < until, "space does not come back: {} bytes, not {most}\n{}", used_bytes(dir), node.http("/metrics").1);
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

/// Everything from `from` to `end` is there, but for what retention drops while it is read: a segment may be due still. Answers where it began.
fn check_kept(peer: &mut Peer, uid: u64, mut from: u64, end: u64) -> u64 {
    let records = loop {
        match peer.read_what_is_kept(uid, from) {
            Ok(records) => break records,
            // It moves forward only, so this ends.
            Err(start) => {
                assert!(from < start && start <= end, "{from}, then {start} of {end}");
                from = start;
            }
        }
    };
    check_records(&records, from, end);
    from
}

fn check_readable(peer: &mut Peer, uid: u64, from: u64, end: u64) {
    check_records(&peer.read_from(uid, from), from, end);
}

fn check_records(records: &[Got], from: u64, end: u64) {
    assert_eq!((records.first().map(|r| r.offset), records.len() as u64), (Some(from), end - from));
    for record in records {
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
    let start = check_kept(&mut peer, uid, start, 512);
    assert!(512 - start >= (8 << 20) / RECORD_BYTES as u64, "at least what is to be kept is kept: {start}");
    // Freed files go to the pool or away: one or two sealed segments, and what every log has.
    wait_for_space(&mut node, &dir, 2);
    // It stays so over a restart, and offsets go on.
    node.stop();
    let node = node.restart();
    let mut peer = Peer::connect(node.ready.client);
    assert!(peer.list_offset(uid, -2).1 >= start);
    fill(&mut peer, uid, 512, 4);
    let start = peer.list_offset(uid, -2).1;
    check_kept(&mut peer, uid, start, 516);
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
    check_kept(&mut peer, drop, start, 160);
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
    wait_for_space(&mut node, &dir, 0);
}

/// Now, in UTC microseconds.
fn now_us() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as i64
}

/// Waits until each partition begins at `start`, and fails when one begins above it.
fn wait_for_starts(node: &mut Node, uids: &[u64], start: u64) {
    let mut peer = Peer::connect(node.ready.client);
    wait_until(node, "every partition begins where its rule says", |_| {
        let starts: Vec<u64> = uids.iter().map(|uid| peer.list_offset(*uid, -2).1).collect();
        assert!(starts.iter().all(|at| *at <= start), "more than the rule says is gone: {starts:?} above {start}");
        starts.iter().all(|at| *at == start)
    });
}

/// How many batches of `bytes` are kept so that they are `keep` bytes and no batch more.
fn kept(keep: u64, bytes: usize) -> u64 {
    keep.div_ceil(bytes as u64)
}

#[test]
fn a_long_run_keeps_its_bytes_to_the_batch_also_over_a_stop_and_a_kill() {
    let keep = 40 << 20;
    let mut node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    let uid = peer.topic("exact", 1, &[("retention.bytes", &keep.to_string()), ("retention.ms", "-1")])[0].uid;
    // 125 MiB through segments of 16 MiB: what is kept begins in the middle of one.
    fill(&mut peer, uid, 0, 500);
    let batch = |n: u64| {
        let mut value = format!("record {n};").into_bytes();
        value.resize(RECORD_BYTES, b'.');
        layout::batch(layout::TIME_US, &[Rec::value(value)])
    };
    let start = 500 - kept(keep, batch(0).len());
    wait_for_starts(&mut node, &[uid], start);
    check_readable(&mut peer, uid, start, 500);
    node.stop();
    let mut node = node.restart();
    let mut peer = Peer::connect(node.ready.client);
    assert_eq!(peer.list_offset(uid, -2).1, start, "an orderly stop keeps the start");
    fill(&mut peer, uid, 500, 5);
    wait_for_starts(&mut node, &[uid], start + 5);
    node.process.kill();
    let mut node = node.restart();
    // A crash can bring back what was not in a checkpoint, for as long as it takes to look.
    wait_for_starts(&mut node, &[uid], start + 5);
    check_readable(&mut Peer::connect(node.ready.client), uid, start + 5, 505);
}

const PARTITIONS: u32 = 128;
const ROUNDS: u64 = 240;

/// Many partitions whose batches, some 3.5 KiB each, lie scattered in many segments until the sorter has brought the oldest ones together.
fn scattered(settings: &[(&str, &str)], time_us: impl Fn(u64) -> i64) -> (Node, Vec<u64>, usize) {
    let options = [("segment.bytes", "16MiB"), ("memory.bytes", "96MiB"), ("tail.cache.bytes", "1MiB"), ("sorter.segments", "2")];
    let node = Node::with(options.iter().fold(Options::default(), |all, (key, value)| all.set(key, value)));
    let mut peer = Peer::connect(node.ready.client);
    let uids: Vec<u64> = peer.topic("scattered", PARTITIONS, settings).iter().map(|partition| partition.uid).collect();
    let mut len = 0;
    for round in 0..ROUNDS {
        let batch = layout::batch(time_us(round), &[Rec::value(vec![round as u8; 3500])]);
        let list: Vec<(u64, &[u8])> = uids.iter().map(|uid| (*uid, batch.as_slice())).collect();
        assert!(peer.produce(layout::level::DURABLE, &list).unwrap().iter().all(|p| p.error == 0));
        len = batch.len();
    }
    (node, uids, len)
}

#[test]
fn sorted_partitions_keep_their_bytes_to_the_batch() {
    let keep = 500_000;
    let (mut node, uids, len) = scattered(&[("retention.bytes", &keep.to_string()), ("retention.ms", "-1")], |_| layout::TIME_US);
    let start = ROUNDS - kept(keep, len);
    wait_for_starts(&mut node, &uids, start);
    let lookups = node.metric("tramline_retention_lookups_total");
    assert!(node.metric("tramline_retention_batches_total") > 0.0 && lookups > 0.0);
    node.process.watch_quietly(Duration::from_millis(2500));
    assert_eq!(node.metric("tramline_retention_lookups_total"), lookups, "nobody looks while nothing is due");
    node.process.kill();
    let mut node = node.restart();
    wait_for_starts(&mut node, &uids, start);
}

#[test]
fn sorted_partitions_lose_what_is_too_old_to_the_batch() {
    // The first 100 are two hours old, and what comes then is of now.
    let now = now_us();
    let time_us = |round| if round < 100 { now - 7_200_000_000 } else { now };
    let (mut node, uids, _) = scattered(&[("retention.ms", "3600000")], time_us);
    wait_for_starts(&mut node, &uids, 100);
    let got = Peer::connect(node.ready.client).read_from(uids[7], 100);
    assert_eq!((got.first().map(|r| r.offset), got.len() as u64), (Some(100), ROUNDS - 100));
}
