//! The examples of the Rust client, as their comments say to run them, against a real node.
//!
//! Not here: the C examples (`capi.rs`), the Python client (`clients.rs`).

use common::node::Process;
use common::tool::{Ran, example, run_command};
use common::{Node, Options, Peer};
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Instant;
use tramline_client::{Client, Config};

fn run(name: &str, node: &Node, arguments: &[&str], input: &[u8]) -> Ran {
    let mut command = Command::new(example(name));
    run_command(command.env("TRAMLINE_SERVER", node.server()).args(arguments), input)
}

#[test]
fn lines_are_produced_and_consumed() {
    let node = Node::with(Options::shards(2));
    let lines: Vec<String> = (0..1000).map(|number| format!("line {number}")).collect();
    let produced = run("produce", &node, &["words"], (lines.join("\n") + "\n").as_bytes()).ok().text();
    assert!(produced.starts_with("1000 acknowledged, 0 failed"), "{produced}");
    let consumed = run("consume", &node, &["words"], b"").ok().text();
    let mut values: Vec<&str> = consumed.lines().map(|line| line.split_once(' ').expect("partition/offset value").1).collect();
    values.sort_unstable_by_key(|value| value.trim_start_matches("line ").parse::<u64>().expect("its number"));
    assert_eq!(values, lines);
    // Each partition's offsets begin at 0 and have no hole.
    let mut next = [0u64; 4];
    for place in consumed.lines().filter_map(|line| line.split_once(' ')).map(|(place, _)| place) {
        let (partition, offset) = place.split_once('/').expect("partition/offset");
        let next = &mut next[partition.parse::<usize>().expect("a partition")];
        assert_eq!(offset.parse::<u64>().expect("an offset"), *next);
        *next += 1;
    }
}

#[test]
fn a_busy_polling_producer_measures_round_trips() {
    let node = Node::start();
    let said = run("busy_poll", &node, &["numbers", "500"], b"").ok().text();
    assert!(said.starts_with("500 round trips: median "), "{said}");
    let mut peer = Peer::connect(node.ready.client);
    let uid = peer.partitions("numbers")[0].uid;
    // At level `leader` they become durable, and so readable, a moment later.
    let until = Instant::now() + common::WAIT;
    while peer.list_offset(uid, -1).1 < 500 {
        assert!(Instant::now() < until, "they do not become durable");
    }
    let values: Vec<Vec<u8>> = peer.read_from(uid, 0).into_iter().filter_map(|record| record.value).collect();
    assert!(values.into_iter().eq((0..500usize).map(|number| number.to_le_bytes().to_vec())), "the records are those that were sent");
}

#[test]
fn members_of_a_group_come_go_and_crash_and_no_record_is_left_out() {
    let node = Node::with(Options::shards(2));
    let ran = run("stream_group", &node, &["numbers"], b"").ok();
    let said = ran.text();
    assert!(said.starts_with("10000 of 10000 records worked on, 0 missing, "), "{said}");
    assert!(ran.stderr.contains("crashing: crashes after ") && ran.stderr.contains("late: "), "{}", ran.stderr);
}

#[test]
fn producer_and_consumer_share_a_runtime() {
    let node = Node::with(Options::shards(2));
    let said = run("tokio", &node, &["numbers"], b"").ok().text();
    assert_eq!(said.trim(), "read 1000 numbers, their sum is 499500; 0 failed");
}

#[test]
fn jobs_of_a_queue_are_done_or_dead() {
    let node = Node::with(Options::shards(2));
    let said = run("queue_jobs", &node, &["jobs"], b"").ok().text();
    assert!(said.starts_with("300 jobs sent: 288 done, 12 dead\n"), "{said}");
}

/// Inputs that do not have exactly one output, and outputs that have no input.
fn wrong(inputs: &[String], outputs: &[String]) -> Vec<String> {
    let mut times: BTreeMap<&str, i64> = inputs.iter().map(|input| (input.as_str(), 0)).collect();
    for output in outputs {
        // What was never put in begins at 100, so that no number of times makes it right.
        *times.entry(output.strip_prefix("done: ").unwrap_or(output)).or_insert(100) += 1;
    }
    times.into_iter().filter(|(_, times)| *times != 1).map(|(input, times)| format!("{input}: {times} times")).collect()
}

/// Messages of the queue that are under leases.
fn leased(client: &Client) -> u64 {
    client.describe_queue("orders").expect("told").partitions.iter().map(|partition| partition.leased).sum()
}

/// Lets a worker work for so many lines, and kills it at a moment at which it has leases that no step of it can end any more.
fn kill_in_the_middle(node: &Node, client: &Client, lines: usize) {
    let mut command = Command::new(example("atomic_step"));
    command.args(["orders", "invoices"]).env("TRAMLINE_SERVER", node.server()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut worker = Process::start(&mut command);
    for _ in 0..lines {
        worker.next_line(common::WAIT).expect("it works");
    }
    loop {
        worker.signal("STOP");
        // A step that is on its way ends 5 leases at most.
        if leased(client) > 5 {
            break;
        }
        worker.signal("CONT");
        worker.next_line(common::WAIT).expect("it has not done all");
    }
    worker.kill();
    // What it had comes again when its leases are over: they are not to be taken for those of the next worker.
    let until = Instant::now() + common::WAIT;
    while leased(client) > 0 {
        assert!(Instant::now() < until, "leases do not end");
    }
}

#[test]
fn a_worker_that_is_killed_writes_each_output_once() {
    let node = Node::with(Options::shards(2));
    let inputs: Vec<String> = (0..3000).map(|number| format!("order {number}")).collect();
    run("produce", &node, &["orders"], (inputs.join("\n") + "\n").as_bytes()).ok();
    let client = Client::connect(Config::new(&node.server())).expect("the node answers");
    for crash in 0..3 {
        kill_in_the_middle(&node, &client, 300 + 7 * crash);
    }
    let last = run("atomic_step", &node, &["orders", "invoices"], b"").ok();
    assert!(last.text().lines().count() < inputs.len() - 900, "what was done before is not done again");
    let partitions = client.describe_queue("orders").expect("told").partitions;
    assert!(partitions.iter().map(|partition| partition.redelivered).sum::<u64>() >= 3, "each crash left something: {partitions:?}");
    assert!(partitions.iter().all(|partition| partition.ready + partition.leased + partition.dead == 0), "{partitions:?}");

    let consumed = run("consume", &node, &["invoices"], b"").ok().text();
    let mut outputs: Vec<String> =
        consumed.lines().map(|line| line.split_once(' ').expect("partition/offset value").1.to_string()).collect();
    assert_eq!(wrong(&inputs, &outputs), Vec::<String>::new());
    // The check sees one too many, and one that is missing.
    outputs.push(outputs[0].clone());
    assert_eq!(wrong(&inputs, &outputs).len(), 1);
    outputs.truncate(outputs.len() - 2);
    assert_eq!(wrong(&inputs, &outputs).len(), 1);
}
