//! A topic's number of replicas is changed by `tramctl` on three nodes, and its groups are moved by hand and evened out: replicas come and go, whoever led can
//! go, and each record is there throughout.
//!
//! Not here: what the core does (src/shard/tests/cluster/factors.rs), which moves are good (src/control/tests), nodes that leave (`cluster_moves.rs`).

use common::numbered::Numbered;
use common::tool::{Ran, tramctl};
use common::{Node, WAIT, nodes, temp_dir};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tramline_client::{Client, ClusterGroup, NodeState};

const NODES: usize = 3;
/// Of addresses: see `nodes`.
const BLOCK: u8 = 40;
const PARTITIONS: u64 = 4;

struct Cluster {
    dirs: Vec<tempfile::TempDir>,
    nodes: Vec<Option<Node>>,
    client: Client,
}

impl Cluster {
    fn start() -> Cluster {
        let dirs: Vec<_> = (0..NODES).map(|_| temp_dir("factor")).collect();
        let nodes = (0..NODES).map(|at| Some(start(&dirs[at], at))).collect();
        let mut cluster = Cluster { dirs, nodes, client: nodes::client(BLOCK, NODES) };
        cluster.until("three active nodes", Cluster::is_whole);
        cluster
    }

    /// Waits until something is there; the nodes run meanwhile.
    fn until(&mut self, what: &str, mut is_there: impl FnMut(&Cluster) -> bool) {
        let end = Instant::now() + 4 * WAIT;
        while !is_there(self) {
            assert!(Instant::now() < end, "{what} does not come about: {:#?}", self.client.describe_cluster());
            let running = self.nodes.iter_mut().flatten().next();
            running.expect("one runs").process.watch_quietly(Duration::from_millis(50));
        }
    }

    /// All nodes take part, the metadata has a voter on each, and all groups have leaders.
    fn is_whole(&self) -> bool {
        self.client.survey_cluster().is_ok_and(|survey| {
            let is_there = |node: &&tramline_client::ClusterNode| node.state == NodeState::Active && node.connected;
            let votes = survey.cluster.groups.iter().find(|group| group.group == 0).is_some_and(|group| group.voters.len() == NODES);
            votes
                && survey.cluster.nodes.iter().filter(is_there).count() == NODES
                && survey.cluster.groups.iter().all(|g| g.leader.is_some())
        })
    }

    /// The groups of the topic, when nothing is under way in any group.
    fn groups_at_rest(&self) -> Option<Vec<ClusterGroup>> {
        let cluster = self.client.describe_cluster().ok()?;
        let is_at_rest = cluster.groups.iter().all(|group| group.moving.is_empty() && group.learners.is_empty());
        let groups = topic_groups();
        is_at_rest.then(|| cluster.groups.into_iter().filter(|group| groups.contains(&u64::from(group.group))).collect())
    }

    fn until_voters(&mut self, count: usize) {
        self.until(&format!("{count} voters"), |cluster| {
            let groups = cluster.groups_at_rest();
            groups.is_some_and(|groups| {
                groups.iter().all(|g| g.voters.len() == count && usize::from(g.factor) == count && g.leader.is_some())
            })
        });
    }
}

fn start(dir: &tempfile::TempDir, at: usize) -> Node {
    Node::at(dir.path(), nodes::options(BLOCK, at, at, if at > 0 { &[0] } else { &[] }))
}

/// `tramctl` with the addresses of all nodes.
fn ctl(arguments: &[&str]) -> Ran {
    let servers: Vec<_> = (0..NODES).map(|at| format!("{}:7410", nodes::host(BLOCK, at))).collect();
    tramctl(&servers.join(","), arguments)
}

fn described() -> Value {
    ctl(&["topic", "describe", "t", "--format", "json"]).ok().json()
}

fn topic_groups() -> BTreeSet<u64> {
    let topic = described();
    let partitions = topic["partitions"].as_array().expect("a list");
    partitions.iter().map(|partition| partition["group"].as_u64().expect("a group")).collect()
}

fn refused(arguments: &[&str], code: i32, why: &str) {
    let ran = ctl(arguments);
    assert!(ran.code == code && ran.stderr.contains(why), "{arguments:?}: {ran:?}");
}

#[test]
fn a_topics_replicas_are_changed_and_its_groups_moved_while_every_record_stays() {
    let mut cluster = Cluster::start();
    ctl(&["topic", "create", "t", "--partitions", "4", "--replicas", "1"]).ok();
    cluster.until_voters(1);
    let mut records = Numbered::on(&cluster.client, "t", PARTITIONS, 100);
    records.send(400);

    for (replicas, code, why) in [
        ("4", 1, "topic \"t\" asks for 4 replicas, and 3 nodes can have one each: add nodes or ask for fewer"),
        ("0", 2, "1..=5"),
        ("6", 2, "1..=5"),
    ] {
        refused(&["topic", "alter", "t", "--replicas", replicas], code, why);
    }
    refused(&["topic", "alter", "u", "--replicas", "2"], 1, "topic \"u\" does not exist");
    assert!(cluster.client.set_topic_replicas("t", 0).is_err(), "0 would be as it is");
    assert_eq!(described()["replicas"], json!(1), "what is refused changes nothing");

    let altered = ctl(&["topic", "alter", "t", "--replicas", "3", "--format", "json"]).ok().json();
    assert_eq!(altered, json!({"topic": "t", "altered": true, "replicas": 3}));
    records.send(200);
    cluster.until_voters(3);
    assert_eq!(described()["replicas"], json!(3));
    refused(&["cluster", "remove", "3"], 1, "topic \"t\" asks for 3 replicas, and 2 nodes can have one each: add nodes or ask for fewer");
    stands_aside_alone(&mut cluster);
    // Whoever led the first partition ends, and what it had is read from the others.
    let leader = cluster.groups_at_rest().expect("nothing moves")[0].leader.expect("it is led") as usize - 1;
    cluster.nodes[leader].take().expect("it runs").process.kill();
    records.send(200);
    records.check(&cluster.client);
    cluster.nodes[leader] = Some(start(&cluster.dirs[leader], leader));
    cluster.until("the node that ended", Cluster::is_whole);

    for (replicas, count) in [("2", 2), ("1", 1)] {
        ctl(&["topic", "alter", "t", "--replicas", replicas]).ok();
        records.send(100);
        cluster.until_voters(count);
        records.check(&cluster.client);
    }
    // Who gave its replica up still knows who leads.
    cluster.until("all nodes know all leaders", |cluster| {
        let survey = cluster.client.survey_cluster().expect("they answer");
        survey.answers.len() == NODES && survey.answers.iter().all(|answer| answer.groups.iter().all(|group| group.leader.is_some()))
    });
    moves_by_hand(&mut cluster, &mut records);
    evens_out(&mut cluster, &mut records);
}

/// With one node aside no second one may leave: that would be no majority of the metadata.
fn stands_aside_alone(cluster: &mut Cluster) {
    ctl(&["cluster", "drain", "2"]).ok();
    refused(&["cluster", "remove", "3"], 1, "has 1 of 3 replicas left on active nodes if node 3 stands aside, which is no majority");
    ctl(&["cluster", "undrain", "2"]).ok();
    cluster.until("the node takes part again", Cluster::is_whole);
}

/// All groups of the topic go to node 3.
fn moves_by_hand(cluster: &mut Cluster, records: &mut Numbered) {
    for group in cluster.groups_at_rest().expect("nothing moves") {
        let number = group.group.to_string();
        if group.voters == [3] {
            refused(&["cluster", "move", &number, "--to", "3"], 1, "is on nodes 3 already");
            continue;
        }
        let moved = ctl(&["cluster", "move", &number, "--to", "3"]).ok().text();
        assert_eq!(moved, format!("group {number}: adds node 3, drops node {}\n", group.voters[0]));
        records.send(64);
        let is_there = |groups: Vec<ClusterGroup>| {
            groups.iter().any(|found| found.group == group.group && found.voters == [3] && found.leader == Some(3))
        };
        cluster.until("the group on node 3", |cluster| cluster.groups_at_rest().is_some_and(is_there));
    }
    refused(&["cluster", "move", "1", "--to", "9"], 1, "no node 9");
    records.send(64);
    records.check(&cluster.client);
}

/// Node 3 has more than others by now: it gives some up, until nothing is left to move.
fn evens_out(cluster: &mut Cluster, records: &mut Numbered) {
    let leads = |cluster: &Cluster| -> Vec<usize> {
        let groups = cluster.client.describe_cluster().expect("told").groups;
        let data = |node: u32| groups.iter().filter(|group| group.group != 0 && group.voters.first() == Some(&node)).count();
        (1..=NODES as u32).map(data).collect()
    };
    let before = leads(cluster);
    assert!(before[2] > before[0] + 2, "the moves have made node 3 the fullest: {before:?}");
    assert!(ctl(&["cluster", "balance"]).ok().text().starts_with("moves are planned"));
    let end = Instant::now() + 8 * WAIT;
    loop {
        records.send(64);
        cluster.until("the end of the moves", |cluster| cluster.groups_at_rest().is_some());
        let again = ctl(&["cluster", "balance"]);
        if again.code == 1 {
            assert!(again.stderr.contains("replicas and leaderships are even, or on their way: there is nothing to move"), "{again:?}");
            break;
        }
        assert!(Instant::now() < end, "it goes on: {again:?} {:?}", leads(cluster));
    }
    // Shards of two nodes differ by one at most, and each node has two.
    let after = leads(cluster);
    assert!(after.iter().max() <= after.iter().min().map(|least| least + 2).as_ref(), "{before:?} became {after:?}");
    cluster.until("leaders", Cluster::is_whole);
    records.check(&cluster.client);
}
