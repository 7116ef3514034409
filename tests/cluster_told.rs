//! What any node of a cluster is asked, tells what all know: topics, groups, queues and the cluster itself, by `tramctl` at one node; and what could not be
//! asked is told as not known.
//!
//! Not here: what the core answers (src/shard/tests/cluster/told.rs), what it looks like (tools/ctl).

mod common;

use common::numbered::Numbered;
use common::tool::{Ran, tramctl};
use common::{Node, WAIT, nodes, temp_dir};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tramline_client::{Client, NodeState};

const NODES: usize = 3;
const BLOCK: u8 = 1;
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
        are_active && survey.silent.is_empty() && survey.cluster.groups.iter().all(|group| group.leader.is_some())
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
    client.seek_group("g", "t", &(0..PARTITIONS as u32).map(|partition| (partition, 4)).collect::<Vec<_>>()).expect("a new group");

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
}
