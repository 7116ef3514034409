//! What any node of a cluster is asked, tells what all know: topics, groups, queues and the cluster itself, by `tramctl` at one node; and what could not be
//! asked is told as not known.
//!
//! Not here: what the core answers (src/shard/tests/cluster/told.rs), what it looks like (tools/ctl).

use common::node::{Process, refused};
use common::numbered::Numbered;
use common::tool::{Ran, tramctl};
use common::{Node, WAIT, copy_dir, nodes, temp_dir};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use tramline_client::{Client, NodeState};

const NODES: usize = 3;
const BLOCK: u8 = 43;
const PARTITIONS: u64 = 6;
const RECORDS: u64 = 60;

/// Waits until something is there; `node` runs meanwhile.
fn until(what: &str, node: &mut Node, mut is_there: impl FnMut() -> bool) {
    let end = Instant::now() + WAIT;
    while !is_there() {
        assert!(Instant::now() < end, "{what} does not come about");
        node.process.watch_quietly(Duration::from_millis(20));
    }
}

fn is_whole(client: &Client) -> bool {
    client.survey_cluster().is_ok_and(|survey| {
        let are_active = survey.cluster.nodes.iter().filter(|node| node.state == NodeState::Active && node.connected).count() == NODES;
        // Only then does it take two nodes' end to leave the metadata without a leader.
        let votes = survey.cluster.groups.iter().find(|group| group.group == 0).is_some_and(|group| group.voters.len() == NODES);
        are_active && votes && survey.silent.is_empty() && survey.cluster.groups.iter().all(|group| group.leader.is_some())
    })
}

fn at(node: usize, arguments: &[&str]) -> Ran {
    tramctl(&format!("{}:7410", nodes::host(BLOCK, node)), arguments)
}

fn json_at(node: usize, arguments: &[&str]) -> Value {
    at(node, &[arguments, &["--format", "json"]].concat()).ok().json()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().unwrap_or_else(|| panic!("no list {name} in {value}"))
}

fn sum(partitions: &[Value], name: &str) -> u64 {
    partitions.iter().map(|partition| partition[name].as_u64().unwrap_or_else(|| panic!("no {name} in {partition}"))).sum()
}

#[test]
fn whichever_node_is_asked_all_is_told_and_what_nobody_knows_is_no_number() {
    let dirs: Vec<_> = (0..NODES).map(|_| temp_dir("told")).collect();
    let mut running: Vec<Node> =
        (0..NODES).map(|at| Node::at(dirs[at].path(), nodes::options(BLOCK, at, at, if at > 0 { &[0] } else { &[] }))).collect();
    let client = nodes::client(BLOCK, NODES);
    until("three active nodes", &mut running[0], || is_whole(&client));
    // One replica each, so that nobody takes a partition over when its node ends; all three nodes lead some.
    client.create_replicated_topic("t", PARTITIONS as u32, 1, &[], false).expect("a new topic");
    client.create_queue("q", "t", tramline_client::At::Earliest, &[], false).expect("a new queue");
    until("leaders", &mut running[0], || is_whole(&client));
    let mut records = Numbered::on(&client, "t", PARTITIONS, 100);
    records.send(RECORDS);
    // The group is new, and every node that leads a partition knows it when its making is answered.
    let offsets: Vec<_> = (0..PARTITIONS as u32).map(|partition| (partition, 4)).collect();
    client.seek_group("g", "t", &offsets).expect("all nodes know the group");
    until("leaders of all groups", &mut running[0], || is_whole(&client));

    for node in 0..NODES {
        let topic = json_at(node, &["topic", "describe", "t"]);
        assert_eq!((list(&topic, "partitions").len() as u64, sum(list(&topic, "partitions"), "next")), (PARTITIONS, RECORDS), "{topic}");
        let group = json_at(node, &["group", "describe", "g"]);
        assert_eq!(group["lag"], json!(RECORDS - 4 * PARTITIONS), "{group}");
        assert_eq!(sum(list(&group, "partitions"), "offset"), 4 * PARTITIONS, "{group}");
        assert_eq!(group["members"], json!([]), "its home was asked: {group}");
        assert_eq!(json_at(node, &["group", "list"])[0]["members"], json!(0));
        let queue = json_at(node, &["queue", "describe", "q"]);
        assert_eq!(sum(list(&queue, "partitions"), "next"), RECORDS, "{queue}");
        assert!(at(node, &["cluster", "status"]).ok().text().ends_with("healthy\n"));
    }
    for node in 0..NODES {
        // The end is the leader's, whoever is asked first.
        let partition = node.to_string();
        let trimmed = json_at(node, &["topic", "trim", "t", "--before", "latest", "--partition", &partition]);
        assert_eq!(list(&trimmed, "partitions")[0]["first"], json!(RECORDS / PARTITIONS), "{trimmed}");
    }

    let leader_of = |partition: &Value| partition["node"].as_u64().expect("a node") as usize;
    running[2].process.kill();
    let topic = json_at(0, &["topic", "describe", "t"]);
    for partition in list(&topic, "partitions") {
        let next = if leader_of(partition) == 3 { Value::Null } else { json!(RECORDS / PARTITIONS) };
        assert_eq!(partition["next"], next, "{topic}");
    }
    let gone = list(&topic, "partitions").iter().filter(|partition| leader_of(partition) == 3).count() as u64;
    assert!(gone > 0 && gone < PARTITIONS, "{topic}");
    assert_eq!(list(&topic, "silent")[0]["node"], json!(3), "{topic}");
    let text = at(0, &["topic", "describe", "t"]).ok().text();
    assert!(text.contains("node 3 (") && text.contains(") did not answer: "), "{text}");
    let queue = json_at(0, &["queue", "describe", "q"]);
    assert_eq!(list(&queue, "partitions").iter().filter(|partition| partition["ready"].is_null()).count() as u64, gone, "{queue}");
    let group = json_at(1, &["group", "describe", "g"]);
    assert_eq!(
        (&group["lag"], list(&group, "partitions").len() as u64, &list(&group, "silent")[0]["node"]),
        (&Value::Null, PARTITIONS - gone, &json!(3))
    );
    let status = at(0, &["cluster", "status", "--format", "json"]);
    let told = status.json();
    assert_eq!((status.code, &told["healthy"]), (1, &json!(false)), "{told}");
    let troubles = told["troubles"].to_string();
    assert!(troubles.contains("node 3 (") && troubles.contains("no node that has a replica of group"), "{troubles}");
    let status = at(0, &["cluster", "status"]).text();
    assert!(status.contains("answered by nodes 1, 2 ") && status.contains("2 of 3 nodes answered"), "{status}");
    let twice = at(0, &["cluster", "move", "1", "--to", "1,1"]);
    assert!(twice.code == 2 && twice.stderr.contains("node 1 twice"), "{twice:?}");

    // A majority of the metadata's voters is gone. Who asks for a topic is told so, and not at the end of his patience.
    running[1].process.kill();
    let is_leaderless = || {
        let groups = client.survey_cluster().map(|survey| survey.cluster.groups).unwrap_or_default();
        groups.first().is_some_and(|group| group.group == 0 && group.leader.is_none())
    };
    until("metadata without a leader", &mut running[0], is_leaderless);
    let leaderless = at(0, &["topic", "create", "u", "--timeout", "10m"]);
    assert!(leaderless.code == 1 && leaderless.stderr.contains("(no_metadata_leader)"), "{leaderless:?}");
    assert!(leaderless.stderr.contains("node 1 does not reach nodes 2, 3; start them"), "{leaderless:?}");
    running[0].process.kill();
    wrong_starts(&dirs);
}

/// Starts that come to nothing, or to something else than was meant: each says what is wrong.
fn wrong_starts(dirs: &[tempfile::TempDir]) {
    let start = |at: usize, dir: &Path, seeds: &[usize]| Process::start(&mut nodes::options(BLOCK, at, at, seeds).command(dir));
    // One of three waits for a majority, and is stopped.
    let mut alone = start(1, dirs[1].path(), &[]);
    says(&mut alone, "still starting");
    alone.signal("TERM");
    assert_eq!(alone.wait(WAIT).code(), Some(0), "an orderly stop: {}", alone.stderr());
    // Node 1 lost its disk, and is started as one that was never in a cluster.
    let fresh = temp_dir("told");
    let mut fresh = Node::at(fresh.path(), nodes::options(BLOCK, 0, 0, &[]));
    let mut others: Vec<Process> = (1..NODES).map(|at| start(at, dirs[at].path(), &[])).collect();
    says(&mut fresh.process, "dials this node 1 of cluster");
    says(&mut others[0], "it is of another cluster than this node");
    others.iter_mut().for_each(Process::kill);
    // The port of another shard in --join.
    let empty = temp_dir("told");
    let mut options = nodes::options(BLOCK, 3, 3, &[]);
    options.arguments.extend(["--join".into(), format!("{}:7701", nodes::host(BLOCK, 0))]);
    let (code, told) = refused(empty.path(), &options);
    assert!(code == 1 && told.contains("the port of another one of its shards") && told.contains("--cluster-listen"), "{told}");
}

/// Waits until the process has logged it.
fn says(process: &mut Process, what: &str) {
    let end = Instant::now() + WAIT;
    while !process.stderr().contains(what) {
        assert!(Instant::now() < end && !process.has_ended(), "{what:?} is not said:\n{}", process.stderr());
        // A line of the standard output is no matter.
        let _ = process.line_within(Duration::from_millis(20));
    }
}

#[test]
fn two_processes_on_copies_of_one_directory_are_told_by_the_other_node() {
    const BLOCK: u8 = 44;
    let dirs = [temp_dir("told"), temp_dir("told")];
    let mut first = Node::at(dirs[0].path(), nodes::options(BLOCK, 0, 0, &[]));
    let second = Node::at(dirs[1].path(), nodes::options(BLOCK, 1, 1, &[0]));
    let client = nodes::client(BLOCK, 2);
    until("two active nodes", &mut first, || {
        client.describe_cluster().is_ok_and(|told| told.nodes.iter().filter(|node| node.state == NodeState::Active).count() == 2)
    });
    let copy = temp_dir("told");
    copy_dir(dirs[1].path(), copy.path());
    let twin = Process::start(&mut nodes::options(BLOCK, 1, 2, &[]).command(copy.path()));
    says(&mut first.process, "two processes may run as node 2");
    drop((twin, second));
}
