//! The sorter on the real binary: batches of many partitions that lie scattered in many segments are brought together, and nobody
//! notices: not a consumer in the middle, not a start after a kill at any moment, not `tramline inspect`.
//!
//! Not here: which segments are chosen (`src/shard/sorting.rs`), crashes at every step (the simulator).

use common::layout::{self, Rec};
use common::{Node, Options, Peer, WAIT};
use std::process::Command;
use std::time::Instant;

const PARTITIONS: u32 = 128;

fn options() -> Options {
    Options::default()
        .set("segment.bytes", "16MiB")
        .set("memory.bytes", "96MiB")
        .set("tail.cache.bytes", "1MiB")
        .set("sorter.segments", "4")
}

/// A topic, and its partitions' uids.
fn topic(node: &Node) -> Vec<u64> {
    // The batches' times lie in the past.
    Peer::connect(node.ready.client).topic("t", PARTITIONS, &[("retention.ms", "-1")]).iter().map(|partition| partition.uid).collect()
}

/// Writes a batch of some 3.5 KiB to each partition in each round.
fn fill(node: &Node, uids: &[u64], rounds: std::ops::Range<u64>) {
    let mut peer = Peer::connect(node.ready.client);
    for round in rounds {
        let batches: Vec<(u64, Vec<u8>)> = uids.iter().map(|uid| (*uid, batch(*uid, round))).collect();
        let list: Vec<(u64, &[u8])> = batches.iter().map(|(uid, batch)| (*uid, batch.as_slice())).collect();
        let produced = peer.produce(layout::level::DURABLE, &list).unwrap();
        assert!(produced.iter().all(|p| p.error == 0), "{produced:?}");
    }
}

fn value(uid: u64, round: u64) -> Vec<u8> {
    format!("{uid} {round} ").into_bytes().into_iter().cycle().take(3500).collect()
}

fn batch(uid: u64, round: u64) -> Vec<u8> {
    layout::batch(layout::TIME_US, &[Rec::value(value(uid, round))])
}

fn wait_for_sorted(node: &Node, segments: f64) {
    let until = Instant::now() + WAIT;
    while node.metric("tramline_sorter_segments_total") < segments {
        assert!(Instant::now() < until, "{} sorted segments", node.metric("tramline_sorter_segments_total"));
        std::thread::yield_now();
    }
}

fn check(node: &Node, uids: &[u64], rounds: u64) {
    let mut peer = Peer::connect(node.ready.client);
    for uid in uids {
        let got = peer.read_from(*uid, 0);
        assert_eq!(got.len() as u64, rounds, "partition {uid}");
        for (round, record) in (0..).zip(&got) {
            assert!(
                record.offset == round && record.value == Some(value(*uid, round)),
                "partition {uid}, offset {round}: {:?}",
                record.offset
            );
        }
    }
}

#[test]
fn scattered_batches_are_brought_together_and_nothing_is_lost() {
    let rounds = 240;
    let mut node = Node::with(options());
    let uids = topic(&node);
    fill(&node, &uids, 0..rounds);
    wait_for_sorted(&node, 4.0);
    check(&node, &uids, rounds);
    node.stop();
    let inspected = Command::new(common::node::binary()).arg("inspect").arg(node.dir()).output().unwrap();
    let text = String::from_utf8_lossy(&inspected.stdout);
    assert!(inspected.status.success() && text.contains(": sorted, "), "{text}");
    let node = node.restart();
    check(&node, &uids, rounds);
}

#[test]
fn a_kill_at_any_moment_of_sorting_loses_nothing() {
    let rounds = 200;
    // Slow, so that the kills meet it: some four seconds for what there is.
    let mut node = Node::with(options().set("sorter.bytes.per.second", "16MiB"));
    let uids = topic(&node);
    fill(&node, &uids, 0..rounds);
    let mut dice = common::Dice(common::seed());
    for _ in 0..3 {
        node.process.watch_quietly(std::time::Duration::from_millis(dice.in_range(0, 2500)));
        node.process.kill();
        node = node.restart();
        check(&node, &uids, rounds);
    }
    node.process.kill();
    let node = node.restart_with(options());
    fill(&node, &uids, rounds..2 * rounds);
    wait_for_sorted(&node, 1.0);
    check(&node, &uids, 2 * rounds);
}

#[test]
fn what_a_deleted_topic_leaves_behind_is_given_back() {
    let mut node = Node::with(options());
    // A small topic that stays, among a large one that goes.
    let uids = topic(&node);
    let mut peer = Peer::connect(node.ready.client);
    let large = peer.topic("large", 1, &[("retention.ms", "-1")])[0].uid;
    let bulk = layout::batch(layout::TIME_US, &[Rec::value(vec![b'x'; 500_000])]);
    for round in 0..8 {
        fill(&node, &uids, round..round + 1);
        for _ in 0..40 {
            peer.produce(layout::level::DURABLE, &[(large, &bulk)]).unwrap();
        }
    }
    let before = node.metric("tramline_log_file_bytes");
    peer.delete_topic("large").unwrap();
    let until = Instant::now() + WAIT;
    while node.metric("tramline_log_file_bytes") > before - (6 << 24) as f64 {
        assert!(Instant::now() < until, "{} of {before} bytes are still there", node.metric("tramline_log_file_bytes"));
        std::thread::yield_now();
    }
    assert!(node.metric("tramline_sorter_segments_total") >= 1.0, "retention alone frees only what holds nothing of the small topic");
    check(&node, &uids, 8);
    node.process.kill();
    let node = node.restart();
    check(&node, &uids, 8);
}

/// The sorted segments' files, as `tramline inspect` names them.
fn sorted_files(node: &Node) -> Vec<std::path::PathBuf> {
    let inspected = Command::new(common::node::binary()).arg("inspect").arg(node.dir()).output().unwrap();
    let text = String::from_utf8_lossy(&inspected.stdout).into_owned();
    let lines = text.lines().filter(|line| line.contains(": sorted, "));
    lines.map(|line| node.shard_dir(0).join(line.split([' ', ':']).find(|word| word.starts_with("seg-")).unwrap())).collect()
}

fn flip(file: &std::path::Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

#[test]
fn a_sorted_segments_footer_is_made_anew_and_a_flipped_batch_is_never_served() {
    let rounds = 240;
    let mut node = Node::with(options());
    let uids = topic(&node);
    fill(&node, &uids, 0..rounds);
    wait_for_sorted(&node, 4.0);
    node.stop();
    // The last page of entries, the header page, the first page of entries: each by itself.
    let len = 16 << 20;
    for at in [len - 2 * 4096 + 100, len - 4096 + 33, len - 10 * 4096 + 5] {
        let files = sorted_files(&node);
        assert!(files.len() >= 4, "{files:?}");
        flip(&files[0], at);
        let mut restarted = node.restart();
        assert!(restarted.process.stderr().contains("footer"), "a start tells what it met:\n{}", restarted.process.stderr());
        check(&restarted, &uids, rounds);
        restarted.stop();
        node = restarted;
    }
    flip(&sorted_files(&node)[0], 4096 + 300);
    let node = node.restart();
    let mut peer = Peer::connect(node.ready.client);
    let mut refused = 0;
    for uid in &uids {
        let mut next = 0;
        while next < rounds {
            let fetched = peer.fetch(*uid, next, 1 << 20, 1000).unwrap();
            refused += u32::from(fetched.error != 0);
            assert!(fetched.next_offset > next, "{fetched:?}");
            next = fetched.next_offset;
        }
    }
    assert_eq!(refused, 1, "one batch is damaged, and everything else is served");
}
