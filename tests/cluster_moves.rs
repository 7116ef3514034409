//! Four nodes of one cluster, as processes on this machine: one of them stands aside, and one leaves for good, while records come.
//!
//! Not here: what three nodes survive (`cluster.rs`), moves under faults of all kinds (src/shard/tests/cluster/moves.rs).

use common::numbered::Numbered;
use common::{Node, Options, WAIT, nodes, temp_dir};
use std::time::{Duration, Instant};
use tramline_client::{Client, ClusterDescription, ClusterGroup, NodeState};

const NODES: usize = 4;
/// Of addresses: see `nodes`.
const BLOCK: u8 = 9;

struct Cluster {
    dirs: Vec<tempfile::TempDir>,
    nodes: Vec<Node>,
}

fn options(at: usize) -> Options {
    let options = nodes::options(BLOCK, at, at, if at > 0 { &[0] } else { &[] });
    Options { shards: Some(1), ..options.set("segment.bytes", "16MiB") }
}

impl Cluster {
    fn start() -> Cluster {
        let dirs: Vec<_> = (0..NODES).map(|_| temp_dir("moves")).collect();
        let nodes = (0..NODES).map(|at| Node::at(dirs[at].path(), options(at))).collect();
        Cluster { dirs, nodes }
    }

    fn client(&self) -> Client {
        nodes::client(BLOCK, 3)
    }

    fn until(&mut self, what: &str, mut is_there: impl FnMut() -> bool) {
        let end = Instant::now() + 4 * WAIT;
        while !is_there() {
            assert!(Instant::now() < end, "{what} does not come about");
            self.nodes[0].process.watch_quietly(Duration::from_millis(50));
        }
    }
}

fn states(cluster: &ClusterDescription) -> Vec<NodeState> {
    cluster.nodes.iter().map(|node| node.state).collect()
}

/// A node gives away what it leads, also groups that the leader of the metadata has no replica of, and takes part again.
fn stands_aside(client: &Client, work: &mut Numbered, node: u32) {
    client.drain_node(node).expect("it may stand aside");
    let end = Instant::now() + 4 * WAIT;
    loop {
        work.send(64);
        let found = client.describe_cluster().expect("told");
        if states(&found)[node as usize - 1] == NodeState::Drained {
            let can_be_led_elsewhere = |group: &&ClusterGroup| group.voters.len() > 1;
            assert!(found.groups.iter().filter(can_be_led_elsewhere).all(|group| group.leader != Some(node)), "{found:?}");
            break;
        }
        assert!(Instant::now() < end, "node {node} does not give away what it leads: {found:?}");
    }
    client.undrain_node(node).expect("it may take part again");
}

#[test]
fn a_node_leaves_while_records_come() {
    let mut cluster = Cluster::start();
    let client = cluster.client();
    cluster.until("four active nodes", || client.describe_cluster().is_ok_and(|found| states(&found) == [NodeState::Active; NODES]));
    cluster.until("a topic", || client.create_topic("t", 8, &[], true).is_ok());
    // Some segments are full by then, and sealed: whoever gets a replica needs a snapshot.
    let mut work = Numbered::on(&client, "t", 8, 16 << 10);
    work.send(4096);
    stands_aside(&client, &mut work, 4);
    let victim = client.describe_cluster().expect("told").groups.iter().find(|g| g.partitions > 0).expect("some").voters[0].max(2);
    client.remove_node(victim).expect("it may leave");
    let end = Instant::now() + 8 * WAIT;
    loop {
        work.send(64);
        let found = client.describe_cluster().expect("told");
        let node = found.nodes.iter().find(|node| node.node == victim).expect("it stays known");
        if node.state == NodeState::Removed {
            let has_it = found.groups.iter().any(|group| group.voters.contains(&victim));
            assert!(!has_it && found.groups.iter().all(|g| g.group == 0 || g.partitions == 0 || g.voters.len() == 3), "{found:?}");
            break;
        }
        assert!(Instant::now() < end, "node {victim} does not leave: {found:?}");
    }
    // What it had is elsewhere: it can go.
    let at = victim as usize - 1;
    cluster.nodes.remove(at).process.kill();
    work.send(256);
    work.check(&client);
    assert!(client.remove_node(victim).is_err(), "who was removed is so for ever");
    drop(cluster.dirs);
}
