//! The two recipes of a group's member, at least once and at most once, and `tramctl group consume`: real processes, killed in the middle of their work.
//!
//! Not here: members within one process (`group_members.rs`).

use common::node::Process;
use common::tool::{example, program, tramctl, tramctl_with_input};
use common::{Node, Options, WAIT};
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use tramline_client::{Client, Config};

const COUNT: usize = 3_000;

/// A node with a topic `t` of numbered lines.
fn node() -> Node {
    let node = Node::with(Options::shards(2));
    let server = node.server();
    tramctl(&server, &["topic", "create", "t", "--partitions", "4"]).ok();
    let lines: String = (0..COUNT).map(|number| format!("line {number}\n")).collect();
    tramctl_with_input(&server, &["produce", "t", "--key-field", "2", "--delimiter", " "], lines.as_bytes()).ok();
    node
}

fn start(command: &mut Command) -> Process {
    Process::start(command.stdin(Stdio::null()).stdout(Stdio::piped()))
}

fn recipe(node: &Node, how: &str) -> Process {
    start(Command::new(example("group_once")).args([how, "workers", "t"]).env("TRAMLINE_SERVER", node.server()))
}

/// The lines that a process prints until it ends.
fn rest(process: &mut Process) -> Vec<String> {
    std::iter::from_fn(|| process.next_line(WAIT)).collect()
}

/// Runs the recipe, kills it in the middle of a portion several times, and lets it end at last: how often each line was worked on.
fn with_crashes(node: &Node, how: &str) -> BTreeMap<String, usize> {
    let mut worked: BTreeMap<String, usize> = BTreeMap::new();
    let mut note = |line: String| *worked.entry(line).or_default() += 1;
    for crash in 0..3 {
        let mut process = recipe(node, how);
        for _ in 0..500 + 7 * crash {
            note(process.next_line(WAIT).expect("it works"));
        }
        process.kill();
        // What it had said before it died counts.
        rest(&mut process).into_iter().for_each(&mut note);
    }
    let mut process = recipe(node, how);
    rest(&mut process).into_iter().for_each(&mut note);
    let status = process.wait(WAIT);
    assert!(status.success(), "{status}: {}", process.stderr());
    worked
}

#[test]
fn at_least_once_leaves_nothing_out() {
    let node = node();
    let worked = with_crashes(&node, "at-least-once");
    assert_eq!(worked.len(), COUNT, "nothing is missing");
    let again = worked.values().filter(|times| **times > 1).count();
    assert!(again <= 3 * 20, "a crash repeats a portion at most: {again}");
    let client = Client::connect(Config::new(&node.server())).expect("the node answers");
    let described = client.describe_group("workers").expect("told");
    assert!(described.partitions.len() == 4 && described.partitions.iter().all(|partition| partition.lag == 0));
}

#[test]
fn at_most_once_does_nothing_twice() {
    let node = node();
    let worked = with_crashes(&node, "at-most-once");
    let again: Vec<_> = worked.iter().filter(|(_, times)| **times > 1).collect();
    assert!(again.is_empty(), "{again:?}");
    let missing = COUNT - worked.len();
    assert!(missing <= 3 * 20, "a crash leaves out a portion at most: {missing}");
}

#[test]
fn tramctl_reads_as_a_member_and_goes_on_where_it_ended() {
    let node = node();
    let server = node.server();
    let consume = |arguments: &[&str]| {
        let mut all = vec!["group", "consume", "g", "t"];
        all.extend_from_slice(arguments);
        tramctl(&server, &all)
    };
    let first = consume(&["--count", "1000"]).ok().text();
    assert_eq!(first.lines().count(), 1000);
    let described = tramctl(&server, &["group", "describe", "g", "--format", "json"]).ok().json();
    // Partitions that gave none of the thousand may have no offset: their owner was not asked before the others had enough.
    let committed: u64 = described["partitions"].as_array().unwrap().iter().filter_map(|partition| partition["offset"].as_u64()).sum();
    assert_eq!((committed, &described["members"]), (1000, &serde_json::json!([])), "committed, and left");
    let json = consume(&["--count", "10", "--print", "json"]).ok().text();
    let record: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert!(record["topic"] == "t" && record["offset"].is_u64(), "{record}");

    // SIGINT: the last commit, and goodbye.
    let mut process = start(Command::new(program("tramctl")).args(["--server", &server, "group", "consume", "g", "t"]));
    let mut lines: Vec<String> = (0..100).map(|_| process.next_line(WAIT).expect("a record")).collect();
    process.signal("INT");
    lines.extend(rest(&mut process));
    assert!(process.wait(WAIT).success(), "{}", process.stderr());
    // --wait ends it when nothing comes any more.
    let last = consume(&["--wait", "1s"]).ok().text();
    let values = json.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["value"].as_str().unwrap().to_owned());
    let mut all: Vec<String> = first.lines().map(str::to_owned).chain(values).chain(lines).chain(last.lines().map(str::to_owned)).collect();
    assert_eq!(all.len(), COUNT, "each once: every end was an orderly one");
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), COUNT);

    // From the end, or nowhere, where nothing is committed.
    assert_eq!(tramctl(&server, &["group", "consume", "new", "t", "--from", "latest", "--wait", "1s"]).ok().text(), "");
    let nowhere = tramctl(&server, &["group", "consume", "newer", "t", "--from", "none"]);
    assert!(nowhere.code == 1 && nowhere.stderr.contains("no committed offset"), "{nowhere:?}");
    assert_eq!(consume(&["--session-timeout", "10ms", "--count", "1"]).code, 1);
    assert_eq!(tramctl(&server, &["group", "consume", "g"]).code, 2, "no topic");
}

#[test]
fn a_member_of_tramctl_that_is_killed_is_followed_by_one_that_leaves_nothing_out() {
    let node = node();
    let server = node.server();
    let arguments = ["--server", &server, "group", "consume", "g", "t", "--session-timeout", "2s"];
    let mut process = start(Command::new(program("tramctl")).args(arguments));
    let mut lines: Vec<String> = (0..500).map(|_| process.next_line(WAIT).expect("a record")).collect();
    process.kill();
    lines.extend(rest(&mut process));
    let heir = tramctl(&server, &["group", "consume", "g", "t", "--session-timeout", "2s", "--wait", "5s"]).ok().text();
    lines.extend(heir.lines().map(str::to_owned));
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), COUNT);
}
