//! Three nodes of one cluster, as processes on this machine, whose disks are lost: one comes back under its number with an empty directory, and the directory
//! before that when it has a successor; a group whose majority is gone for good.
//!
//! Not here: lost disks under faults of all kinds (src/shard/tests/cluster/disks.rs), nodes that leave (`cluster_moves.rs`).

use common::node::refused;
use common::numbered::Numbered;
use common::tool::{tramctl, tramline};
use common::{Node, Options, WAIT, copy_dir, nodes, temp_dir};
use std::time::{Duration, Instant};
use tramline_client::{Client, ClusterDescription, NodeState};

const NODES: usize = 3;

/// Nodes on addresses of a test: `number` tells tests of one process apart; processes are told apart by their ids.
struct Cluster {
    number: u8,
    dirs: Vec<tempfile::TempDir>,
    nodes: Vec<Option<Node>>,
}

/// The block of a test: see `nodes`.
fn block(number: u8) -> u8 {
    20 + number
}

fn host(number: u8, at: usize) -> String {
    nodes::host(block(number), at)
}

/// Node `at`, on the address of place `of`.
fn options(number: u8, at: usize, of: usize, joins: bool) -> Options {
    let seeds: Vec<_> = (0..NODES).filter(|seed| joins && *seed != at).collect();
    nodes::options(block(number), at, of, &seeds).set("segment.bytes", "16MiB")
}

impl Cluster {
    fn start(number: u8) -> Cluster {
        let dirs: Vec<_> = (0..NODES).map(|_| temp_dir("disks")).collect();
        let nodes = (0..NODES).map(|at| Some(Node::at(dirs[at].path(), options(number, at, at, at > 0)))).collect();
        Cluster { number, dirs, nodes }
    }

    /// All of them are active, and a topic has its replicas and leaders.
    fn with_topic(number: u8, topic: &'static str, partitions: u32, replicas: u8) -> (Cluster, Client, Numbered) {
        let mut cluster = Cluster::start(number);
        let client = cluster.client();
        cluster.until("three active nodes", || client.describe_cluster().is_ok_and(|found| is_whole(&found)));
        cluster.until("a topic", || client.create_replicated_topic(topic, partitions, replicas, &[], true).is_ok());
        cluster.until("its leaders", || client.describe_cluster().is_ok_and(|found| is_whole(&found)));
        let work = Numbered::on(&client, topic, u64::from(partitions), 4096);
        (cluster, client, work)
    }

    fn client(&self) -> Client {
        nodes::client(block(self.number), NODES)
    }

    fn kill(&mut self, at: usize) {
        self.nodes[at].take().expect("it runs").process.kill();
    }

    fn start_node(&mut self, at: usize) {
        self.nodes[at] = Some(Node::at(self.dirs[at].path(), options(self.number, at, at, true)));
    }

    fn until(&mut self, what: &str, mut is_there: impl FnMut() -> bool) {
        let end = Instant::now() + 4 * WAIT;
        while !is_there() {
            assert!(Instant::now() < end, "{what} does not come about");
            let running = self.nodes.iter_mut().flatten().next();
            running.expect("one runs").process.watch_quietly(Duration::from_millis(50));
        }
    }
}

/// All take part, each group with partitions has all nodes as voters, and so has the metadata; nothing moves.
fn is_whole(cluster: &ClusterDescription) -> bool {
    let active = cluster.nodes.iter().filter(|node| node.state == NodeState::Active && node.connected).count();
    let mut replicated = cluster.groups.iter().filter(|group| group.group == 0 || group.factor == NODES as u8);
    // A replica whose disk is gone is listed until it has been dropped, and counted nowhere.
    let listed = |node: u32| cluster.groups.iter().filter(|group| group.voters.contains(&node)).count();
    let is_there = cluster.nodes.iter().all(|node| listed(node.node) == node.replicas as usize);
    active == NODES && is_there && replicated.all(|group| group.voters.len() == NODES && group.moving.is_empty() && group.leader.is_some())
}

fn is_led_without(cluster: &ClusterDescription, away: u32) -> bool {
    cluster.groups.iter().filter(|group| group.factor == NODES as u8).all(|group| group.leader.is_some_and(|leader| leader != away))
}

#[test]
fn a_node_whose_disk_is_lost_comes_back_and_its_old_disk_does_not() {
    let (mut cluster, client, mut work) = Cluster::with_topic(0, "t", 6, 3);
    work.send(3000);

    // Node 2 dies, and its directory is gone; a copy was kept somewhere.
    cluster.kill(1);
    let kept = temp_dir("disks");
    copy_dir(cluster.dirs[1].path(), &kept.path().join("old"));
    work.send(200);
    cluster.dirs[1] = temp_dir("disks");
    cluster.start_node(1);
    let node = |client: &Client| client.describe_cluster().ok().and_then(|found| found.nodes.into_iter().find(|node| node.node == 2));
    assert_eq!(node(&client).expect("it is known").generation, 1);
    let identity = std::fs::read_to_string(cluster.dirs[1].path().join("node")).expect("its identity");
    assert!(identity.contains("generation = 1"), "{identity}");
    work.send(200);
    cluster.until("three voters again", || client.describe_cluster().is_ok_and(|found| is_whole(&found)));

    // The directory before it is refused, whoever starts it how; so is another machine under the number of one that runs.
    let old = kept.path().join("old");
    let (code, text) = refused(&old, &options(0, 1, 5, true));
    assert!(code == 1 && text.contains("let it join again on an empty --data-dir"), "{text}");
    let (code, text) = refused(&old, &options(0, 1, 6, false));
    assert!(code == 1 && text.contains("let it join again on an empty --data-dir"), "{text}");
    let stranger = temp_dir("disks");
    let (code, text) = refused(stranger.path(), &options(0, 1, 7, true));
    assert!(code == 1 && text.contains("so this --node-id is taken"), "{text}");

    // A restart of the new one is nothing special; then another node is gone for good.
    cluster.kill(1);
    cluster.start_node(1);
    work.send(100);
    cluster.until("three voters", || client.describe_cluster().is_ok_and(|found| is_whole(&found)));
    cluster.kill(0);
    drop(std::mem::replace(&mut cluster.dirs[0], temp_dir("disks")));
    let client = cluster.client();
    cluster.until("leaders", || client.describe_cluster().is_ok_and(|found| is_led_without(&found, 1)));
    work.send(100);
    work.check(&client);
}

#[test]
fn a_group_without_its_majority_goes_on_where_the_loss_is_accepted() {
    let (mut cluster, client, mut work) = Cluster::with_topic(1, "pair", 1, 2);
    work.send(2000);
    let group = |client: &Client| {
        let found = client.describe_cluster().ok()?;
        found.groups.into_iter().find(|group| group.factor == 2 && group.partitions > 0)
    };
    let pair = group(&client).expect("it has a partition");
    let number = pair.group.to_string();
    let ask = |server: &str, accept: &[&str]| tramctl(server, &[&["cluster", "unclean-recover", number.as_str()], accept].concat());
    let server = |at: usize| format!("{}:7410", host(1, at));
    let ran = ask(&server(0), &[]);
    assert!(ran.code != 0 && ran.stderr.contains("would be lost") && ran.stderr.contains("--i-accept-loss"), "{}", ran.stderr);
    let mut told = String::new();
    cluster.until("a refusal, once it is known who is there", || {
        told = ask(&server(0), &["--i-accept-loss"]).stderr;
        told.contains("2 of 2 replicas are a majority")
    });

    // One after the other goes, as if for good: the one that is left goes on each time, with all that was acknowledged, since both had to have it.
    let voters = [pair.voters[0], pair.voters[1]];
    for gone in voters {
        let (at, left) = (gone as usize - 1, (0..NODES).find(|at| *at + 1 != gone as usize).expect("another one"));
        cluster.kill(at);
        cluster.until("its recovery", || ask(&server(left), &["--i-accept-loss"]).code == 0);
        let client = cluster.client();
        cluster.until("a leader", || group(&client).is_some_and(|group| group.leader.is_some_and(|leader| leader != gone)));
        assert!(group(&client).expect("it is known").unclean_term.is_some());
        let shown = tramctl(&server(left), &["cluster", "groups"]).ok().text();
        assert!(shown.lines().any(|line| line.trim_start().starts_with(&number) && line.contains("since term ")), "{shown}");
        work.send(300);
        work.check(&client);
        // It was not for good: what it has counts no more, and is brought to it anew.
        cluster.start_node(at);
        cluster.until("two voters again", || group(&client).is_some_and(|group| group.voters.len() == 2 && group.moving.is_empty()));
        work.send(300);
    }
    work.check(&cluster.client());
}

#[test]
fn the_metadata_go_on_with_one_node_where_the_loss_is_accepted() {
    let (mut cluster, _, mut work) = Cluster::with_topic(2, "t", 4, 3);
    work.send(1000);
    // Two stop in good order, so the third has everything by then; and their disks are gone.
    for at in [2, 1] {
        cluster.nodes[at].take().expect("it runs").stop();
        cluster.dirs[at] = temp_dir("disks");
    }
    let dir = cluster.dirs[0].path().to_str().expect("a path in UTF-8").to_owned();
    let ran = tramline(&["recover", "--data-dir", &dir]);
    assert!(ran.code == 1 && ran.stderr.contains("say --i-accept-loss"), "{}", ran.stderr);
    let ran = tramline(&["recover", "--data-dir", &dir, "--i-accept-loss"]);
    assert!(ran.code == 1 && ran.stderr.contains("is in use"), "{}", ran.stderr);
    cluster.kill(0);
    let told = tramline(&["recover", "--data-dir", &dir, "--i-accept-loss"]).ok().text();
    assert!(told.starts_with("node 1 of cluster ") && told.contains("clear the data directories of all other nodes"), "{told}");
    cluster.nodes[0] = Some(Node::at(cluster.dirs[0].path(), options(2, 0, 0, false)));
    assert!(!cluster.dirs[0].path().join("recover").exists(), "once");

    let server = format!("{}:7410", host(2, 0));
    let client = cluster.client();
    let groups = |client: &Client| client.describe_cluster().map(|found| found.groups).unwrap_or_default();
    let lost: Vec<_> =
        groups(&client).iter().filter(|group| group.group != 0 && group.factor == 3).map(|group| group.group.to_string()).collect();
    for group in &lost {
        cluster.until("its recovery", || tramctl(&server, &["cluster", "unclean-recover", group, "--i-accept-loss"]).code == 0);
    }
    cluster.until("leaders", || {
        groups(&client).iter().filter(|group| group.unclean_term.is_some() && group.leader == Some(1)).count() == lost.len()
    });
    work.send(200);
    work.check(&client);
    // The others come back one by one: the second of them when the first one votes again.
    for at in [1, 2] {
        cluster.start_node(at);
        let number = at as u32 + 1;
        let is_back = |found: &ClusterDescription| {
            let voter = found.groups[0].voters.contains(&number) && found.groups[0].moving.is_empty();
            let listed = found.groups.iter().filter(|group| group.voters.contains(&number)).count();
            voter && found.nodes.iter().any(|node| node.node == number && node.replicas as usize == listed && node.generation == 1)
        };
        cluster.until("it votes", || client.describe_cluster().is_ok_and(|found| is_back(&found)));
    }
    cluster.until("three voters again", || client.describe_cluster().is_ok_and(|found| is_whole(&found)));
    cluster.kill(0);
    let client = cluster.client();
    cluster.until("leaders", || client.describe_cluster().is_ok_and(|found| is_led_without(&found, 1)));
    work.send(200);
    work.check(&client);
}
