//! `tramctl disk` against the real binary: the numbers of all shards, which add up to the files in the directory, before and after a restart.
//!
//! Not here: the stages of a disk that fills up.

use common::layout::{self, Rec};
use common::tool::tramctl;
use common::{Node, Options, Peer, WAIT, files_with_prefix};
use serde_json::Value;
use std::time::{Duration, Instant};

const KINDS: [&str; 5] = ["live_bytes", "dead_bytes", "padding_bytes", "open_bytes", "free_bytes"];

/// What `tramctl disk` says of each shard. Files come and go in the background: asked until the kinds add up to what the directory holds.
fn disk(node: &mut Node) -> Vec<Value> {
    let until = Instant::now() + WAIT;
    loop {
        let told = tramctl(&node.server(), &["disk", "--format", "json"]).ok().json();
        assert_eq!(told["node"], 1);
        let shards = told["shards"].as_array().expect("a list").clone();
        let adds_up = |(number, shard): (usize, &Value)| {
            assert_eq!(shard["shard"], number, "in order of shard");
            let sum: u64 = KINDS.iter().map(|kind| bytes(shard, kind)).sum();
            let files = files_with_prefix(&node.shard_dir(number as u16), "seg-");
            sum == files.iter().map(|file| std::fs::metadata(file).map_or(0, |meta| meta.len())).sum::<u64>()
        };
        if shards.iter().enumerate().all(adds_up) {
            return shards;
        }
        assert!(Instant::now() < until, "the kinds of space never add up to the files: {shards:?}");
        node.process.watch_quietly(Duration::from_millis(50));
    }
}

fn bytes(shard: &Value, field: &str) -> u64 {
    shard[field].as_u64().unwrap_or_else(|| panic!("{field} of {shard}"))
}

#[test]
fn the_space_of_every_shard_is_told_and_adds_up() {
    let options = Options::shards(2).set("segment.bytes", "16MiB").set("memory.bytes", "96MiB").set("sorter.segments", "0");
    let mut node = Node::with(options);
    let mut peer = Peer::connect(node.ready.client);
    let partitions = peer.topic("t", 2, &[("retention.ms", "-1")]);
    let shard_of = |uid: u64| partitions.iter().find(|p| p.uid == uid).expect("ours").leader_shard;
    let uids: Vec<u64> = partitions.iter().map(|partition| partition.uid).collect();
    assert_ne!(shard_of(uids[0]), shard_of(uids[1]));
    let batch = layout::batch(layout::TIME_US, &[Rec::value(vec![b'x'; 250_000])]);
    // 50 MB to the first one: three full segments of its shard, 66 batches in each, and a bit.
    for uid in std::iter::repeat_n(uids[0], 200).chain([uids[1]]) {
        assert_eq!(peer.produce(layout::level::DURABLE, &[(uid, &batch)]).unwrap()[0].error, 0);
    }
    let until = Instant::now() + WAIT;
    let full = loop {
        let shard = disk(&mut node)[usize::from(shard_of(uids[0]))].clone();
        if bytes(&shard, "segments_sealed") == 3 {
            break shard;
        }
        assert!(Instant::now() < until, "{shard}");
    };
    let sealed = bytes(&full, "segments_sealed");
    let (live, padding) = (bytes(&full, "live_bytes"), bytes(&full, "padding_bytes"));
    assert!(live.is_multiple_of(batch.len() as u64) && live > 0 && bytes(&full, "dead_bytes") == 0, "{full}");
    assert_eq!(live + padding, sealed << 24);
    // 250,000 bytes in blocks of a multiple of 4,096, and an end that no block fits: some three per cent.
    assert!(padding < live / 10, "{full}");
    assert_eq!(full["stage"], "ok");
    assert!(bytes(&full, "disk_free_bytes") > 0);
    // What is trimmed away is dead, and stays so as long as its segment is needed.
    let keep_from = live / batch.len() as u64 - 1;
    assert_eq!(peer.trim(&[(uids[0], keep_from)]).unwrap()[0].1, keep_from);
    let until = Instant::now() + WAIT;
    let trimmed = loop {
        let shard = disk(&mut node)[usize::from(shard_of(uids[0]))].clone();
        if bytes(&shard, "live_bytes") == batch.len() as u64 {
            break shard;
        }
        assert!(Instant::now() < until, "{shard}");
    };
    assert!(
        bytes(&trimmed, "dead_bytes").is_multiple_of(batch.len() as u64) && bytes(&trimmed, "dead_bytes") > 10 * batch.len() as u64,
        "{trimmed}"
    );
    let metric = |node: &Node, kind: &str| {
        let labels = [format!("shard=\"{}\"", shard_of(uids[0])), format!("kind=\"{kind}\"")];
        let text = node.http("/metrics").1;
        let is_it = |line: &&str| line.starts_with("tramline_space_bytes{") && labels.iter().all(|label| line.contains(label));
        let line = text.lines().find(is_it).unwrap_or_else(|| panic!("no {labels:?} in\n{text}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64
    };
    for kind in ["live", "dead", "padding"] {
        assert_eq!(metric(&node, kind), bytes(&trimmed, &format!("{kind}_bytes")), "{kind}");
    }
    // The same after a start, which has to find out what is in the sealed segments.
    node.stop();
    let mut node = node.restart();
    let again = disk(&mut node)[usize::from(shard_of(uids[0]))].clone();
    for kind in ["live_bytes", "dead_bytes", "padding_bytes", "segments_sealed"] {
        assert_eq!(again[kind], trimmed[kind], "{kind}: {again}");
    }
    let table = tramctl(&node.server(), &["disk"]).ok().text();
    assert!(table.starts_with("node 1\n\nSHARD") && table.contains("PADDING") && table.contains("\n  all "), "{table}");
}
