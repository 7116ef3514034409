//! Queues against a real node of two shards, through `tramctl` and the client: the life of messages from sending to their end.
//!
//! Not here: jobs by many workers (`examples.rs`), the rules message by message (the broker's own tests).

use common::tool::{Ran, program, tramctl, tramctl_with_input};
use common::{Node, Options, WAIT};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tramline_client::{At, Attributes, Client, Config, ErrorCode, LeaseToken, ProducerConfig, QueueConsumerConfig, Record, Settle};

struct Rig {
    node: Node,
    server: String,
}

/// A node with a topic `t`, and a queue `q` on it with these options.
fn rig(partitions: u32, options: &[&str]) -> Rig {
    let node = Node::with(Options::shards(2));
    let rig = Rig { server: node.server(), node };
    rig.run(&["topic", "create", "t", "--partitions", &partitions.to_string()]).ok();
    let mut create = vec!["queue", "create", "q", "--topic", "t", "--start", "earliest"];
    create.extend_from_slice(options);
    rig.run(&create).ok();
    rig
}

impl Rig {
    fn run(&self, arguments: &[&str]) -> Ran {
        tramctl(&self.server, arguments)
    }

    /// Sends lines; where they are, in order.
    fn send(&self, options: &[&str], lines: &[&str]) -> Vec<String> {
        let mut arguments = vec!["queue", "send", "q", "--format", "json"];
        arguments.extend_from_slice(options);
        let input: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let sent = tramctl_with_input(&self.server, &arguments, input.as_bytes()).ok().json();
        assert_eq!((&sent["acked"], &sent["failed"]), (&json!(lines.len()), &json!(0)));
        sent["messages"].as_array().unwrap().iter().map(|place| place.as_str().unwrap().to_owned()).collect()
    }

    /// Messages as JSON objects.
    fn receive(&self, options: &[&str]) -> Vec<Value> {
        let mut arguments = vec!["queue", "receive", "q", "--print", "json"];
        arguments.extend_from_slice(options);
        objects(&self.run(&arguments).ok())
    }

    /// Leases one message and keeps it.
    fn hold(&self, options: &[&str]) -> (String, Value) {
        let mut messages = self.receive(&[&["--hold", "--wait", "20s"], options].concat());
        assert_eq!(messages.len(), 1);
        let message = messages.remove(0);
        (message["token"].as_str().unwrap().to_owned(), message)
    }

    fn browse(&self, options: &[&str]) -> Vec<Value> {
        let mut arguments = vec!["queue", "browse", "q", "--format", "json"];
        arguments.extend_from_slice(options);
        objects(&self.run(&arguments).ok())
    }

    /// Runs a verb that is refused for this token; the code.
    fn refused(&self, arguments: &[&str]) -> String {
        let ran = self.run(&[arguments, &["--format", "json"]].concat());
        assert_eq!(ran.code, 1, "{ran:?}");
        let error: Value = serde_json::from_str(ran.stderr.lines().next().expect("an error")).unwrap();
        error["error"]["code"].as_str().unwrap().to_owned()
    }

    fn client(&self) -> Client {
        Client::connect(Config::new(&self.server)).expect("the node answers")
    }

    /// Asks until it is so.
    fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + WAIT;
        loop {
            let described = self.run(&["queue", "describe", "q", "--format", "json"]).ok().json();
            if is_so(&described) {
                return described;
            }
            assert!(Instant::now() < until, "{what}: {described}");
        }
    }
}

fn objects(ran: &Ran) -> Vec<Value> {
    ran.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn values(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["value"].as_str().expect("text")).collect()
}

#[test]
fn messages_are_sent_received_and_acknowledged_once() {
    let rig = rig(4, &[]);
    let lines: Vec<String> = (0..200).map(|number| format!("line {number}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let places: BTreeSet<String> = rig.send(&[], &lines).into_iter().collect();
    assert_eq!(places.len(), 200);
    let received = rig.receive(&["--count", "200", "--wait", "20s"]);
    assert_eq!(values(&received).into_iter().collect::<BTreeSet<_>>(), lines.iter().copied().collect());
    let of: BTreeSet<String> = received.iter().map(|m| format!("{}:{}", m["partition"], m["offset"])).collect();
    assert_eq!(of, places);
    assert!(received.iter().all(|message| message["deliveries"] == json!(1)));
    assert!(rig.receive(&["--count", "1", "--wait", "0s"]).is_empty());
    let described = rig.run(&["queue", "describe", "q", "--format", "json"]).ok().json();
    let acked: u64 = described["partitions"].as_array().unwrap().iter().map(|p| p["acked"].as_u64().unwrap()).sum();
    assert_eq!((acked, &described["ready"], &described["leased"]), (200, &json!(0), &json!(0)));
    let text = rig.run(&["queue", "describe", "q"]).ok().text();
    assert!(text.contains("0 ready, 0 leased, 0 delayed, 0 dead") && text.contains("visibility.timeout.ms"), "{text}");
    assert_eq!(rig.run(&["queue", "list", "--format", "json"]).ok().json()[0]["topic"], json!("t"));
    // Sent as text: places, then the summary.
    let sent = tramctl_with_input(&rig.server, &["queue", "send", "q", "--partition", "1"], b"x\n").ok().text();
    assert!(sent.starts_with("1:") && sent.contains("1 records, 1 acknowledged, 0 failed"), "{sent}");
    assert_eq!(rig.run(&["queue", "receive", "q", "--wait", "20s"]).ok().text(), "x\n");
}

#[test]
fn a_sender_that_is_ended_tells_what_it_sent() {
    let rig = rig(1, &[]);
    for (signal, lines) in [("INT", 2), ("TERM", 4)] {
        let mut command = Command::new(program("tramctl"));
        command.args(["--server", &rig.server, "queue", "send", "q"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut sender = command.spawn().unwrap();
        // The input stays open, and its last line is not whole.
        let mut input = sender.stdin.take().unwrap();
        input.write_all(b"a\nb\nhal").unwrap();
        rig.until("both are there", |queue| queue["partitions"][0]["next"] == json!(lines));
        let kill = format!("kill -{signal} {}", sender.id());
        assert!(Command::new("sh").arg("-c").arg(kill).status().unwrap().success());
        let ended = sender.wait_with_output().unwrap();
        let text = String::from_utf8(ended.stdout).unwrap();
        assert!(ended.status.success(), "{text}");
        let places = format!("0:{}\n0:{}\n2 records, 2 acknowledged, 0 failed", lines - 2, lines - 1);
        assert!(text.starts_with(&places), "{text}");
        drop(input);
    }
    let refused = rig.run(&["queue", "send", "q", "--id", ""]);
    assert!(refused.code == 2 && refused.stderr.contains("leave --id out"), "{refused:?}");
}

#[test]
fn tokens_are_settled_by_other_processes_and_late_or_foreign_ones_are_refused_by_name() {
    let rig = rig(1, &["--visibility-timeout", "300ms"]);
    rig.send(&[], &["a"]);
    let (token, _) = rig.hold(&["--visibility-timeout", "1m"]);
    let done = rig.run(&["queue", "ack", "q", &token, "--format", "json"]).ok().json();
    assert_eq!(done["messages"][0], json!({"token": token, "done": true, "code": null}));
    assert_eq!(rig.refused(&["queue", "ack", "q", &token]), "unknown_lease");

    rig.send(&[], &["b"]);
    let (late, _) = rig.hold(&[]);
    rig.until("the lease ends", |queue| queue["leased"] == json!(0));
    assert_eq!(rig.refused(&["queue", "ack", "q", &late]), "lease_expired");
    let (later, message) = rig.hold(&["--visibility-timeout", "1m"]);
    assert_eq!((&message["value"], &message["deliveries"]), (&json!("b"), &json!(2)));
    assert_eq!(rig.refused(&["queue", "ack", "q", &late]), "lease_lost");
    assert_eq!(rig.refused(&["queue", "ack", "q", "fffff-0-1"]), "unknown_lease");
    let other = {
        rig.run(&["queue", "create", "other", "--topic", "t", "--start", "earliest"]).ok();
        let held = rig.run(&["queue", "receive", "other", "--hold", "--wait", "20s"]).ok().text();
        held.split('\t').next().unwrap().to_owned()
    };
    assert_eq!(rig.refused(&["queue", "ack", "q", &other]), "unknown_lease");
    assert_eq!(rig.refused(&["queue", "ack", "other", &later]), "unknown_lease");

    // Nack with a delay, extend, release, reject.
    let nacked = rig.run(&["queue", "nack", "q", &later, "--delay", "10m", "--reason", "no paper"]).ok().text();
    assert_eq!(nacked, format!("nacked {later}\n"));
    let delayed = rig.browse(&["--state", "delayed"]);
    assert_eq!((&delayed[0]["reason"], &delayed[0]["deliveries"], &delayed[0]["value"]), (&json!("no paper"), &json!(2), &json!("b")));
    rig.send(&[], &["c"]);
    let (token, message) = rig.hold(&["--visibility-timeout", "30s", "--consumer", "me"]);
    assert_eq!(message["value"], json!("c"));
    rig.run(&["queue", "extend", "q", &token, "--for", "1h"]).ok();
    let leased = rig.browse(&["--state", "leased"]);
    assert_eq!(leased[0]["consumer"], json!("me"));
    rig.run(&["queue", "release", "q", &token]).ok();
    let (token, message) = rig.hold(&["--visibility-timeout", "1m"]);
    assert_eq!(message["deliveries"], json!(1), "a release does not count");
    rig.run(&["queue", "reject", "q", &token, "--reason", "unreadable"]).ok();
    let dead = rig.browse(&["--state", "dead"]);
    assert_eq!((dead.len(), &dead[0]["reason"], &dead[0]["value"]), (1, &json!("unreadable"), &json!("c")));
    let table = rig.run(&["queue", "browse", "q"]).ok().text();
    assert!(table.contains("unreadable") && table.contains("no paper"), "{table}");
    assert_eq!(rig.run(&["queue", "browse", "q", "--state", "dead", "--print", "value"]).ok().text(), "c\n");
}

#[test]
fn dead_messages_stay_until_they_are_redriven_purged_or_deleted() {
    let rig = rig(2, &["--max-deliveries", "2", "--retry-initial", "1ms", "--retry-jitter", "0%"]);
    let places = rig.send(&["--partition", "0"], &["a", "b"]);
    // The first is ready again before, or after, the second is delivered.
    let nacked = [(); 4].map(|()| rig.receive(&["--nack", "--wait", "20s"]).remove(0));
    let of: BTreeSet<(String, u64)> = nacked.iter().map(|m| (m["value"].to_string(), m["deliveries"].as_u64().unwrap())).collect();
    let [a, b] = ["\"a\"", "\"b\""].map(str::to_owned);
    assert_eq!(of, BTreeSet::from([(a.clone(), 1), (a, 2), (b.clone(), 1), (b, 2)]));
    rig.until("both are dead", |queue| queue["dead"] == json!(2));
    let named_twice = rig.browse(&["--partition", "0", "--partition", "0"]);
    assert_eq!(values(&named_twice), ["a", "b"], "each partition once");
    let redriven = rig.run(&["queue", "redrive", "q", "--dry-run", "--format", "json"]).ok().json();
    assert_eq!((&redriven["redriven"], &redriven["dry_run"]), (&json!(2), &json!(true)));
    assert!(rig.receive(&["--wait", "0s"]).is_empty());
    assert!(rig.run(&["queue", "redrive", "q", "--count", "1"]).ok().text().starts_with("redriven 1 messages of queue q"));
    let again = rig.receive(&["--wait", "20s"]);
    assert_eq!((values(&again), &again[0]["deliveries"]), (vec!["a"], &json!(1)));

    // A delayed message is cancelled by its place.
    let later = rig.send(&["--delay", "1h"], &["later"]);
    let deleted = rig.run(&["queue", "delete-message", "q", &later[0], &places[0], "--format", "json"]);
    assert_eq!(deleted.code, 1, "one of them is settled already");
    assert_eq!(deleted.json()["messages"][1]["code"], json!("unknown_message"));
    assert_eq!(rig.browse(&["--state", "delayed"]).len(), 0);

    rig.send(&[], &["c", "d"]);
    let refused = rig.run(&["queue", "purge", "q"]);
    assert!(refused.code == 2 && refused.stderr.contains("--yes"), "{refused:?}");
    assert_eq!(rig.run(&["queue", "purge", "q", "--yes", "--format", "json"]).ok().json()["purged"], json!(3), "b, c and d");
    assert!(rig.browse(&[]).is_empty());
    assert_eq!(rig.run(&["queue", "browse", "q"]).ok().text(), "no messages\n");
}

#[test]
fn attributes_decide_when_and_in_which_order_messages_come() {
    let rig = rig(1, &[]);
    let client = rig.client();
    // In one batch, so that all are there at once.
    let mut producer = client.producer(ProducerConfig::default()).unwrap();
    for (value, priority) in [("low", 1), ("high", 9), ("middle", 5)] {
        let attributes = Attributes { priority: Some(priority), ..Attributes::default() };
        producer.send(&Record { topic: "t", value: Some(value.as_bytes()), attributes, ..Record::default() }).unwrap();
    }
    producer.flush(WAIT).unwrap();
    assert_eq!(values(&rig.receive(&["--count", "3", "--wait", "20s"])), ["high", "middle", "low"]);

    // One message of a group at a time.
    rig.send(&["--group", "g"], &["g1", "g2"]);
    let (token, message) = rig.hold(&[]);
    assert_eq!((&message["value"], &message["attributes"]), (&json!("g1"), &json!({"group": "g"})));
    assert!(rig.receive(&["--wait", "0s"]).is_empty(), "the second waits for the first");
    rig.run(&["queue", "ack", "q", &token]).ok();
    assert_eq!(values(&rig.receive(&["--wait", "20s"])), ["g2"]);

    // Delay, by length and by time; what is due in the past is due.
    let sent = Instant::now();
    rig.send(&["--delay", "700ms"], &["soon"]);
    assert!(rig.receive(&["--wait", "0s"]).is_empty());
    assert_eq!(values(&rig.receive(&["--wait", "20s"])), ["soon"]);
    assert!(sent.elapsed() >= Duration::from_millis(700));
    rig.send(&["--deliver-at", "2020-01-01T00:00:00Z"], &["overdue"]);
    assert_eq!(values(&rig.receive(&["--wait", "20s"])), ["overdue"]);

    // Time to live, and ids.
    rig.send(&["--ttl", "1ms"], &["mayfly"]);
    rig.send(&["--id", "1"], &["once"]);
    rig.send(&["--id", "1"], &["twice"]);
    rig.send(&[], &["end"]);
    assert_eq!(values(&rig.receive(&["--count", "2", "--wait", "20s"])), ["once", "end"]);
    let described = rig.until("all is settled", |queue| queue["ready"] == json!(0) && queue["partitions"][0]["duplicates"] == json!(1));
    assert_eq!(described["partitions"][0]["expired"], json!(1));

    let wrong = tramctl_with_input(&rig.server, &["queue", "send", "q", "--delay", "1000h"], b"too late\n");
    assert!(wrong.code == 1 && wrong.stderr.contains("invalid_attribute"), "{wrong:?}");
}

#[test]
fn a_paused_queue_delivers_nothing_and_an_altered_one_delivers_otherwise() {
    let rig = rig(2, &[]);
    rig.send(&[], &["a"]);
    rig.run(&["queue", "pause", "q"]).ok();
    assert!(rig.receive(&["--wait", "200ms"]).is_empty());
    rig.run(&["queue", "resume", "q"]).ok();
    let (token, _) = rig.hold(&[]);
    rig.run(&["queue", "release", "q", &token]).ok();
    rig.run(&["queue", "alter", "q", "--visibility-timeout", "200ms", "--set", "max.deliveries=-1"]).ok();
    let settings = rig.run(&["queue", "describe", "q", "--format", "json"]).ok().json()["settings"].clone();
    assert_eq!(settings["visibility.timeout.ms"], json!({"value": "200", "origin": "set"}));
    let (token, _) = rig.hold(&[]);
    let (later, message) = rig.hold(&["--visibility-timeout", "1m"]);
    assert_eq!(message["deliveries"], json!(2));
    assert_ne!(token, later);
    let wrong = rig.run(&["queue", "alter", "q", "--set", "max.deliveries=0"]);
    assert!(wrong.code == 1 && wrong.stderr.contains("invalid_setting"), "{wrong:?}");
    assert_eq!(rig.run(&["queue", "alter", "q"]).code, 2, "nothing to change");
}

#[test]
fn queues_are_created_checked_and_refused_with_what_to_do() {
    let rig = rig(1, &[]);
    let missing = rig.run(&["queue", "create", "r", "--topic", "nowhere"]);
    assert!(missing.code == 1 && missing.stderr.contains("tramctl topic create nowhere"), "{missing:?}");
    assert_eq!(rig.refused(&["queue", "create", "q", "--topic", "t"]), "queue_exists");
    assert!(rig.run(&["queue", "create", "q", "--topic", "t", "--if-not-exists"]).ok().text().contains("exists already"));
    assert_eq!(rig.refused(&["queue", "create", "a b", "--topic", "t"]), "invalid_queue_name");
    assert_eq!(rig.refused(&["queue", "create", "r", "--topic", "t", "--dead-letter", "t"]), "dead_letter_circle");
    assert!(rig.run(&["queue", "create", "r", "--topic", "t", "--validate-only"]).ok().text().contains("could be created"));
    assert_eq!(rig.run(&["queue", "list", "--format", "json"]).ok().json().as_array().unwrap().len(), 1, "nothing was");
    for verb in [
        &["receive", "r"][..],
        &["send", "r"],
        &["browse", "r"],
        &["describe", "r"],
        &["delete", "r"],
        &["purge", "r", "--yes"],
        &["ack", "r", "1-2-3"],
    ] {
        assert_eq!(rig.refused(&[&["queue"], verb].concat()), "unknown_queue", "{verb:?}");
    }
    for wrong in [
        &["ack", "q", "1-2"][..],
        &["ack", "q"],
        &["receive", "q", "--wait", "5"],
        &["send", "q", "--priority", "10"],
        &["delete-message", "q", "5"],
    ] {
        let ran = rig.run(&[&["queue"], wrong].concat());
        assert_eq!(ran.code, 2, "{ran:?}");
    }
    let missing = rig.run(&["queue", "browse", "q", "--partition", "7"]);
    assert!(missing.code == 1 && missing.stderr.contains("partition 7"), "{missing:?}");
}

#[test]
fn deleting_a_queue_ends_the_receive_that_waits() {
    let rig = rig(2, &[]);
    let mut child = Command::new(program("tramctl"))
        .args(["--server", &rig.server, "queue", "receive", "q", "--wait", "1h"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    rig.until("it waits", |queue| queue["partitions"].as_array().unwrap().iter().any(|p| p["waiting"].as_u64() > Some(0)));
    rig.run(&["queue", "delete", "q"]).ok();
    let mut error = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut error).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(error.contains("queue_deleted"), "{error}");
    // The messages stay, for a queue that is made anew.
    assert_eq!(rig.run(&["queue", "list"]).ok().text(), "no queues; create one with: tramctl queue create NAME --topic TOPIC\n");
}

#[test]
fn an_exclusive_queue_goes_to_the_next_consumer_when_its_holder_is_killed() {
    let rig = rig(1, &["--exclusive", "--consumer-timeout", "1s", "--visibility-timeout", "1s"]);
    rig.send(&[], &["a", "b"]);
    let mut holder = Command::new(program("tramctl"))
        .args(["--server", &rig.server, "queue", "receive", "q", "--hold", "--consumer", "first", "--count", "3", "--wait", "1h"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().ends_with("\ta"));
    let described = rig.until("it is held", |queue| queue["partitions"][0]["holder"] == json!("first"));
    assert_eq!(described["leased"], json!(2));
    assert!(rig.receive(&["--wait", "0s", "--consumer", "second"]).is_empty());
    holder.kill().unwrap();
    holder.wait().unwrap();
    // Held for long, as a holder that is silent has the queue only while it has leases.
    let got = rig.receive(&["--count", "2", "--wait", "20s", "--consumer", "second", "--hold", "--visibility-timeout", "1h"]);
    assert_eq!(values(&got), ["a", "b"]);
    assert!(got.iter().all(|message| message["deliveries"] == json!(2)));
    rig.until("it is the second's", |queue| queue["partitions"][0]["holder"] == json!("second"));
}

#[test]
fn a_killed_node_forgets_no_lease_no_count_and_no_acknowledgement() {
    let mut rig = rig(4, &["--visibility-timeout", "1h"]);
    let lines: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    rig.send(&[], &lines);
    let held = rig.receive(&["--hold", "--count", "20", "--wait", "20s"]);
    assert_eq!(held.len(), 20);
    let tokens: Vec<&str> = held.iter().map(|message| message["token"].as_str().unwrap()).collect();
    rig.run(&[&["queue", "ack", "q"], &tokens[..8]].concat()).ok();
    rig.run(&[&["queue", "nack", "q", "--delay", "1ms"], &tokens[8..12]].concat()).ok();
    rig.node.process.kill();
    rig.node = rig.node.restart();
    rig.server = rig.node.server();

    assert_eq!(rig.refused(&["queue", "ack", "q", tokens[0]]), "unknown_lease", "acknowledged before");
    rig.run(&[&["queue", "ack", "q"], &tokens[12..]].concat()).ok();
    let rest = rig.receive(&["--count", "24", "--wait", "20s"]);
    let acked: BTreeSet<&str> = values(&held[..8]).into_iter().chain(values(&held[12..])).collect();
    let got: BTreeSet<&str> = values(&rest).into_iter().collect();
    assert_eq!(got.len(), 24);
    assert!(got.is_disjoint(&acked));
    let nacked: BTreeSet<&str> = values(&held[8..12]).into_iter().collect();
    for message in &rest {
        let deliveries = if nacked.contains(message["value"].as_str().unwrap()) { 2 } else { 1 };
        assert_eq!(message["deliveries"], json!(deliveries), "{message}");
    }
    assert!(rig.receive(&["--wait", "0s"]).is_empty());
}

#[test]
fn a_message_that_fails_too_often_becomes_a_letter_that_tells_how_and_can_be_sent_back() {
    let rig = rig(2, &["--max-deliveries", "2", "--retry-initial", "1ms", "--retry-jitter", "0%", "--dead-letter", "dead"]);
    let place = rig.send(&["--key", "k", "--header", "mine=1", "--priority", "7"], &["bad"]).remove(0);
    for (deliveries, reason) in [(1, "no paper"), (2, "no ink")] {
        let (token, message) = rig.hold(&["--consumer", "press"]);
        assert_eq!(message["deliveries"], json!(deliveries));
        rig.run(&["queue", "nack", "q", &token, "--delay", "0s", "--reason", reason]).ok();
    }
    rig.until("it is a letter", |queue| queue["partitions"].as_array().unwrap().iter().any(|p| p["dead_lettered"] == json!(1)));
    assert!(rig.browse(&[]).is_empty(), "it is over for the queue");
    let letters = objects(&rig.run(&["consume", "dead", "--until-end", "--print", "json"]).ok());
    assert_eq!((letters.len(), &letters[0]["key"], &letters[0]["value"]), (1, &json!("k"), &json!("bad")));
    let headers: Vec<(&str, &str)> = letters[0]["headers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|header| (header["name"].as_str().unwrap(), header["value"].as_str().unwrap()))
        .collect();
    let header = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let history = |name: &str| header(&format!("tramline-dead-letter-{name}")).unwrap_or_default();
    assert_eq!(header("mine"), Some("1"));
    assert_eq!((history("queue"), history("topic"), history("deliveries"), history("reason")), ("q", "t", "2", "nacked"));
    assert_eq!(format!("{}:{}", history("partition"), history("offset")), place);
    let attempts: Vec<&str> = headers.iter().filter(|(name, _)| *name == "tramline-dead-letter-attempt").map(|(_, value)| *value).collect();
    assert!(attempts.len() == 2 && attempts[0].ends_with("no paper") && attempts[1].ends_with("no ink"), "{attempts:?}");

    let redriven = rig.run(&["queue", "redrive", "q", "--format", "json"]).ok().json();
    assert_eq!((&redriven["redriven"], &redriven["dead_letter_topic"]), (&json!(1), &json!("dead")));
    let again = rig.receive(&["--wait", "20s"]).remove(0);
    assert_eq!((&again["value"], &again["deliveries"], &again["key"]), (&json!("bad"), &json!(1), &json!("k")));
    assert_eq!((&again["headers"], &again["attributes"]), (&json!([{"name": "mine", "value": "1"}]), &json!({"priority": 7})));
}

#[test]
fn records_of_a_dead_letter_topic_go_back_where_they_came_from() {
    let rig = rig(2, &["--dead-letter", "dead"]);
    let client = rig.client();
    let mut producer = client.producer(ProducerConfig::default()).unwrap();
    for (number, queue) in [(0, "q"), (1, "elsewhere"), (2, "q")] {
        let value = format!("dead {number}");
        let headers: [(&str, &[u8]); 4] = [
            ("mine", b"1"),
            ("tramline-dead-letter-topic", b"t"),
            ("tramline-dead-letter-queue", queue.as_bytes()),
            ("tramline-dead-letter-reason", b"x"),
        ];
        let id = format!("{queue}/{number}");
        let attributes = Attributes { priority: Some(4), message_id: Some(id.as_bytes()), ..Attributes::default() };
        let record =
            Record { topic: "dead", key: Some(b"k"), value: Some(value.as_bytes()), headers: &headers, attributes, ..Record::default() };
        producer.send(&record).unwrap();
    }
    producer.flush(WAIT).unwrap();
    let counted = rig.run(&["queue", "redrive", "q", "--dry-run", "--format", "json"]).ok().json();
    assert_eq!((&counted["redriven"], &counted["dead_letter_topic"]), (&json!(3), &json!("dead")));
    assert_eq!(rig.run(&["queue", "list", "--format", "json"]).ok().json().as_array().unwrap().len(), 1, "a dry run makes nothing");
    let redriven = rig.run(&["queue", "redrive", "q", "--count", "1", "--format", "json"]).ok().json();
    assert_eq!(redriven["redriven"], json!(1));
    let redriven = rig.run(&["queue", "redrive", "q", "--rate", "1000/s", "--format", "json"]).ok().json();
    assert_eq!((&redriven["redriven"], &redriven["others"]), (&json!(1), &json!(1)));
    let got = rig.receive(&["--count", "2", "--wait", "20s"]);
    assert_eq!(values(&got), ["dead 0", "dead 2"]);
    for message in &got {
        assert_eq!(message["headers"], json!([{"name": "mine", "value": "1"}]));
        assert_eq!((&message["key"], &message["attributes"]), (&json!("k"), &json!({"priority": 4})));
    }
    let again = rig.run(&["queue", "redrive", "q", "--format", "json"]).ok().json();
    assert_eq!(again["redriven"], json!(0), "each once");
}

#[test]
fn letters_whose_topic_is_gone_wait_for_it_and_the_others_go_back() {
    let rig = rig(1, &["--dead-letter", "dead"]);
    let client = rig.client();
    client.create_topic("gone", 1, &[], false).unwrap();
    let mut producer = client.producer(ProducerConfig::default()).unwrap();
    for (number, topic) in ["gone", "t", "gone", "t"].into_iter().enumerate() {
        let value = format!("{topic} {number}");
        let headers: [(&str, &[u8]); 2] = [("tramline-dead-letter-topic", topic.as_bytes()), ("tramline-dead-letter-queue", b"q")];
        producer.send(&Record { topic: "dead", value: Some(value.as_bytes()), headers: &headers, ..Record::default() }).unwrap();
    }
    producer.flush(WAIT).unwrap();
    client.delete_topic("gone").unwrap();
    let redrive = |code: i32| {
        let ran = rig.run(&["queue", "redrive", "q", "--format", "json"]);
        assert_eq!(ran.code, code, "{ran:?}");
        (ran.json()["redriven"].as_u64().unwrap(), ran.json()["failed"].as_u64().unwrap(), ran.stderr)
    };
    let (redriven, failed, error) = redrive(1);
    assert_eq!((redriven, failed), (2, 2));
    assert!(error.contains("unknown_topic") && error.contains("2 letters could not be stored"), "{error}");
    assert_eq!(values(&rig.receive(&["--count", "2", "--wait", "20s"])), ["t 1", "t 3"]);
    let (redriven, failed, _) = redrive(1);
    assert_eq!((redriven, failed), (0, 2), "they were given back, and are tried again");
    let text = rig.run(&["queue", "redrive", "q", "--dry-run"]).ok().text();
    assert!(text.starts_with("would redrive at most 2 messages"), "{text}");
    client.create_topic("gone", 1, &[], false).unwrap();
    let (redriven, failed, _) = redrive(0);
    assert_eq!((redriven, failed), (2, 0));
    let back = objects(&rig.run(&["consume", "gone", "--until-end", "--print", "json"]).ok());
    assert_eq!(values(&back), ["gone 0", "gone 2"]);
    let (redriven, failed, _) = redrive(0);
    assert_eq!((redriven, failed), (0, 0), "each once");
}

/// Letters of queue `q` in topic `dead`, from these topics, in one message group.
fn letters(client: &Client, topics: &[&str], group: Option<&[u8]>) {
    let mut producer = client.producer(ProducerConfig::default()).unwrap();
    for topic in topics {
        let headers: [(&str, &[u8]); 2] = [("tramline-dead-letter-topic", topic.as_bytes()), ("tramline-dead-letter-queue", b"q")];
        let attributes = Attributes { group, ..Attributes::default() };
        producer.send(&Record { topic: "dead", value: Some(b"x"), headers: &headers, attributes, ..Record::default() }).unwrap();
    }
    producer.flush(WAIT).unwrap();
}

#[test]
fn letters_that_do_not_come_are_told() {
    let rig = rig(1, &["--dead-letter", "dead"]);
    let client = rig.client();
    client.create_topic("gone", 1, &[], false).unwrap();
    letters(&client, &["gone", "t", "t"], Some(b"k"));
    client.delete_topic("gone").unwrap();
    let redrive = |code: i32| {
        let ran = rig.run(&["queue", "redrive", "q", "--format", "json"]);
        assert_eq!(ran.code, code, "{ran:?}");
        let number = |field: &str| ran.json()[field].as_u64().unwrap();
        ((number("redriven"), number("failed"), number("held_up")), ran.stderr)
    };
    assert_eq!(redrive(1).0, (0, 1, 2), "two are behind one of their group");
    client.create_topic("gone", 1, &[], false).unwrap();
    rig.run(&["queue", "pause", "q.redrive"]).ok();
    let (numbers, error) = redrive(1);
    assert_eq!(numbers, (0, 0, 3));
    assert!(error.contains("letters_left") && error.contains("paused"), "{error}");
    rig.run(&["queue", "resume", "q.redrive"]).ok();
    assert_eq!(redrive(0).0, (3, 0, 0));
    // A dry run fails where the run would.
    client.create_topic("other", 1, &[], false).unwrap();
    rig.run(&["queue", "alter", "q", "--dead-letter", "other"]).ok();
    for dry_run in [&["--dry-run"][..], &[]] {
        let ran = rig.run(&[&["queue", "redrive", "q"], dry_run].concat());
        assert!(ran.code == 1 && ran.stderr.contains("is on topic dead, not on the dead-letter topic other"), "{ran:?}");
    }
}

/// That nobody answers any more is not told as "nothing there".
#[test]
fn who_receives_or_redrives_is_told_that_the_node_is_gone() {
    let mut rig = rig(1, &["--dead-letter", "dead"]);
    letters(&rig.client(), &["t"; 300], None);
    let command = |arguments: &[&str]| {
        let mut command = Command::new(program("tramctl"));
        command.args(["--server", &rig.server, "--timeout", "2s", "queue"]).args(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    // Behind all that comes back from the letters.
    rig.run(&["queue", "create", "empty", "--topic", "dead", "--start", "latest"]).ok();
    let redriving = command(&["redrive", "q", "--rate", "50/s"]);
    let receiving = command(&["receive", "empty", "--wait", "4s"]);
    rig.until("some are redriven", |queue| queue["ready"].as_u64() > Some(0));
    let until = Instant::now() + WAIT;
    let waits = || {
        let described = rig.run(&["queue", "describe", "empty", "--format", "json"]).ok().json();
        described["partitions"].as_array().unwrap().iter().any(|partition| partition["waiting"] == json!(1))
    };
    while !waits() {
        assert!(Instant::now() < until, "nobody receives");
    }
    rig.node.stop();
    for (what, child) in [("redrive", redriving), ("receive", receiving)] {
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(1), "{what}: {ended:?}");
        assert!(!ended.stderr.is_empty(), "{what}");
    }
}

#[test]
fn the_client_settles_in_batches_over_both_shards() {
    let rig = rig(4, &[]);
    let client = rig.client();
    let lines: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    rig.send(&[], &lines.iter().map(String::as_str).collect::<Vec<_>>());
    let found = client.find_queue("q").unwrap();
    assert_eq!((found.topic.as_str(), found.visibility_timeout_ms, found.is_exclusive), ("t", 30_000, false));
    let mut consumer = client.queue_consumer("q", QueueConsumerConfig::default()).unwrap();
    let mut messages = Vec::new();
    let until = Instant::now() + WAIT;
    while messages.len() < 100 {
        messages.extend(consumer.receive(100, Duration::from_secs(1)).unwrap());
        assert!(Instant::now() < until, "{} came", messages.len());
    }
    let mut settlements: Vec<(LeaseToken, Settle)> = messages.iter().map(|message| (message.token, Settle::Ack)).collect();
    settlements.push((LeaseToken { lease: 1 << 60, ..messages[0].token }, Settle::Ack));
    let results = consumer.settle(&settlements).unwrap();
    assert!(results[..100].iter().all(Result::is_ok), "{results:?}");
    assert_eq!(results[100].as_ref().unwrap_err().code(), Some(ErrorCode::UnknownLease));
    consumer.close(WAIT).unwrap();
    // A queue that begins with what comes later does not see them.
    client.create_queue("late", "t", At::Latest, &[], false).unwrap();
    let mut late = client.queue_consumer("late", QueueConsumerConfig::default()).unwrap();
    assert!(late.receive(10, Duration::ZERO).unwrap().is_empty());
}
