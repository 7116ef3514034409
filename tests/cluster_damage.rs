//! Three nodes of one cluster, as processes on this machine: bits flip on one node's disk, it is started again, gets everything back from the others without a
//! stop, and leads in the end.
//!
//! Not here: damage without other replicas (`damage.rs`), rot under faults of all kinds (src/shard/tests/cluster/damage.rs).

use common::numbered::Numbered;
use common::{Dice, Node, Options, WAIT, files_with_prefix, nodes as places, temp_dir};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};
use tramline_client::NodeState;

const NODES: usize = 3;
/// Of addresses: see `places`.
const BLOCK: u8 = 12;
const PARTITIONS: u64 = 6;
const RECORDS: u64 = 6_000;
/// Bits that flip, each somewhere else.
const FLIPS: u64 = 40;

fn options(at: usize) -> Options {
    let options = places::options(BLOCK, at, at, if at > 0 { &[0] } else { &[] });
    Options { shards: Some(1), ..options.set("segment.bytes", "16MiB").set("scrub.bytes.per.second", "1GiB") }
}

/// Flips bits of what is stored, wherever something is.
fn flip_bits(shard_dir: &Path, dice: &mut Dice) {
    // A kill may meet the next segment while it is made: then its file has nothing yet.
    let mut files = files_with_prefix(shard_dir, "seg-");
    files.retain(|path| std::fs::metadata(path).is_ok_and(|found| found.len() > 0));
    for _ in 0..FLIPS {
        loop {
            let path = &files[dice.in_range(0, files.len() as u64) as usize];
            let file = OpenOptions::new().read(true).write(true).open(path).expect("a segment");
            let at = dice.in_range(0, file.metadata().expect("a segment").len());
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).expect("one byte");
            if byte[0] != 0 {
                file.write_all_at(&[byte[0] ^ 1 << dice.in_range(0, 8)], at).expect("one byte");
                file.sync_all().expect("the segment is synced");
                break;
            }
        }
    }
}

fn until(what: &str, mut is_there: impl FnMut() -> bool) {
    let end = Instant::now() + 4 * WAIT;
    while !is_there() {
        assert!(Instant::now() < end, "{what} does not come about");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

#[test]
fn flipped_bits_on_one_disk_are_repaired_from_the_others() {
    let dirs: Vec<_> = (0..NODES).map(|_| temp_dir("rot")).collect();
    let mut nodes: Vec<Option<Node>> = (0..NODES).map(|at| Some(Node::at(dirs[at].path(), options(at)))).collect();
    let client = places::client(BLOCK, NODES);
    until("three active nodes", || {
        let told = client.describe_cluster().expect("told");
        told.nodes.iter().filter(|node| node.state == NodeState::Active).count() == NODES
            && told.groups.iter().any(|group| group.group == 0 && group.voters.len() == NODES)
    });
    until("a topic", || client.create_topic("t", PARTITIONS as u32, &[], true).is_ok());
    let mut work = Numbered::on(&client, "t", PARTITIONS, 8 << 10);
    work.send(RECORDS);
    let rotten = 2;
    nodes[rotten].take().expect("it runs").process.kill();
    let mut dice = Dice(common::seed());
    flip_bits(&dirs[rotten].path().join("shard-0"), &mut dice);
    // The others go on, and so does the damaged one.
    work.send(64);
    nodes[rotten] = Some(Node::at(dirs[rotten].path(), options(rotten)));
    let node = nodes[rotten].as_ref().expect("just started");
    work.send(64);
    until("a whole node", || {
        let count = |name: &str| node.metric(name);
        count("tramline_scrub_passes_total") > 0.0
            && count("tramline_unrepaired_ranges") == 0.0
            && count("tramline_suspect_replicas") == 0.0
    });
    let found = node.metric("tramline_damaged_ranges_total");
    let repaired = node.metric("tramline_repaired_ranges_total");
    println!("{FLIPS} bits: {found} places were damaged, {repaired} batches were repaired");
    assert!(found > 0.0 && repaired > 0.0, "{found} places were damaged, {repaired} repaired: {}", node.process.stderr());
    // It leads, with one other node for the majority: whatever is read comes off its disk.
    client.drain_node(2).expect("told to");
    nodes[0].take().expect("it runs").process.kill();
    let mut leaders = Vec::new();
    until("leaderships of the damaged node", || {
        let Ok(told) = client.metadata(&["t"]) else { return false };
        let now: Vec<_> =
            told.topics[0].partitions.iter().map(|partition| (partition.index, partition.leader_node, partition.term)).collect();
        if now != leaders {
            println!("(partition, leader, term): {now:?}");
        }
        leaders = now;
        leaders.iter().all(|(_, leader, term)| *term > 0 && *leader == 3)
    });
    work.check(&client);
}
