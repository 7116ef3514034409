//! The verbs that ask and print: queues and their settings, and single messages without leases.

use super::args::{Create, Settings};
use crate::args::Format;
use crate::failure::{self, Failure};
use crate::output::show;
use crate::start::time_text;
use crate::table::Table;
use crate::unknown::{notes, silent_json};
use serde_json::{Map, Value, json};
use std::process::ExitCode;
use tramline_client::{Client, Error, ErrorCode, QueueDescription, QueuePartitionDescription, QueueSummary};

/// Keys and values, or what is wrong with the command line.
fn pairs(settings: &Settings) -> Result<Vec<(String, String)>, Failure> {
    settings.pairs().map_err(|sentence| Failure::local(failure::USAGE, sentence))
}

fn borrowed(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

/// `queue create`.
pub fn create(client: &Client, format: Format, options: &Create) -> Result<(), Failure> {
    let Create { name, topic, start, settings, if_not_exists, validate_only } = options;
    let pairs = pairs(settings)?;
    if *validate_only {
        client.validate_queue(name, topic, *start, &borrowed(&pairs)).map_err(|error| with_topic(error, topic))?;
        let text = || format!("queue {name} could be created on topic {topic}\n");
        return show(format, text, || json!({"queue": name, "topic": topic, "created": false, "valid": true}));
    }
    let created = client.create_queue(name, topic, *start, &borrowed(&pairs), *if_not_exists).map_err(|error| with_topic(error, topic))?;
    let text = || match created.created {
        true => format!("created queue {name} on topic {topic}\n"),
        false => format!("queue {name} exists already; nothing changed\n"),
    };
    show(format, text, || json!({"queue": name, "queue_uid": created.uid, "topic": topic, "created": created.created}))
}

/// A queue does not create its topic: how many partitions that has is to be decided.
fn with_topic(error: Error, topic: &str) -> Failure {
    match error.code() {
        Some(ErrorCode::UnknownTopic) => {
            let message = format!("topic {topic} does not exist; create it with: tramctl topic create {topic} --partitions N");
            Failure { message, ..error.into() }
        }
        _ => error.into(),
    }
}

/// `queue alter`.
pub fn alter(client: &Client, format: Format, name: &str, settings: &Settings) -> Result<(), Failure> {
    let pairs = pairs(settings)?;
    if pairs.is_empty() {
        return Err(Failure::local(failure::USAGE, "nothing to change: give a setting, such as --visibility-timeout 1m"));
    }
    client.alter_queue(name, &borrowed(&pairs))?;
    show(format, || format!("altered queue {name}\n"), || json!({"queue": name, "altered": true}))
}

/// `queue pause` and `queue resume`.
pub fn pause(client: &Client, format: Format, name: &str, paused: bool) -> Result<(), Failure> {
    client.alter_queue(name, &[("paused", if paused { "true" } else { "false" })])?;
    let done = if paused { "paused" } else { "resumed" };
    show(format, || format!("{done} queue {name}\n"), || json!({"queue": name, "paused": paused}))
}

/// `queue delete`.
pub fn delete(client: &Client, format: Format, name: &str) -> Result<(), Failure> {
    client.delete_queue(name)?;
    show(format, || format!("deleted queue {name}\n"), || json!({"queue": name, "deleted": true}))
}

/// `queue list`.
pub fn list(client: &Client, format: Format) -> Result<(), Failure> {
    let queues = client.list_queues()?;
    show(format, || list_text(&queues), || list_json(&queues))
}

fn list_text(queues: &[QueueSummary]) -> String {
    if queues.is_empty() {
        return "no queues; create one with: tramctl queue create NAME --topic TOPIC\n".to_owned();
    }
    let mut table = Table::new(&["QUEUE", "TOPIC", ">UID"]);
    queues.iter().for_each(|queue| table.row(vec![queue.name.clone(), queue.topic.clone(), queue.uid.to_string()]));
    table.render()
}

fn list_json(queues: &[QueueSummary]) -> Value {
    queues.iter().map(|queue| json!({"queue": queue.name, "queue_uid": queue.uid, "topic": queue.topic})).collect()
}

/// `queue describe`.
pub fn describe(client: &Client, format: Format, name: &str) -> Result<(), Failure> {
    let queue = client.describe_queue(name)?;
    show(format, || describe_text(&queue), || describe_json(&queue))
}

fn total(queue: &QueueDescription, of: impl Fn(&QueuePartitionDescription) -> u64) -> u64 {
    queue.partitions.iter().map(of).fold(0, u64::saturating_add)
}

fn describe_text(queue: &QueueDescription) -> String {
    let at_least = if is_whole(queue) { "" } else { "at least " };
    let mut text = format!(
        "queue {}  uid {}  topic {}  created {}\n{at_least}{} ready, {} leased, {} delayed, {} dead\n\n",
        queue.name,
        queue.uid,
        queue.topic,
        time_text(queue.created_us),
        total(queue, |p| p.ready),
        total(queue, |p| p.leased),
        total(queue, |p| p.delayed),
        total(queue, |p| p.dead),
    );
    let mut settings = Table::new(&["SETTING", "VALUE", "ORIGIN"]);
    for setting in &queue.settings {
        let origin = if setting.explicit { "set" } else { "default" };
        settings.row(vec![setting.key.clone(), setting.value.clone(), origin.to_owned()]);
    }
    text.push_str(&settings.render());
    let mut parts = Table::new(&[
        ">PARTITION",
        ">NODE",
        ">SHARD",
        ">SETTLED TO",
        ">LOOKED TO",
        ">END",
        ">READY",
        ">LEASED",
        ">DELAYED",
        ">DEAD",
        ">WAITING",
        "OLDEST",
        "HOLDER",
    ]);
    let mut counts = Table::new(&[">PARTITION", ">ACKED", ">REDELIVERED", ">EXPIRED", ">DEAD-LETTERED", ">DUPLICATES", ">DELETED"]);
    for p in &queue.partitions {
        if !p.error.is_ok() {
            let mut row = vec![p.partition.to_string(), p.node.to_string(), p.shard.to_string()];
            row.resize(11, "-".to_owned());
            parts.row(row.into_iter().chain([p.error.name().to_owned(), "-".to_owned()]).collect());
            continue;
        }
        let numbers = [
            u64::from(p.partition),
            p.node.into(),
            p.shard.into(),
            p.settled_to,
            p.looked_to,
            p.committed_end,
            p.ready,
            p.leased,
            p.delayed,
            p.dead,
            p.waiting.into(),
        ];
        let holder = if p.active.is_empty() { "-".to_owned() } else { p.active.clone() };
        let oldest = p.oldest_us.map_or("-".to_owned(), time_text);
        parts.row(numbers.iter().map(u64::to_string).chain([oldest, holder]).collect());
        let numbers = [u64::from(p.partition), p.acked, p.redelivered, p.expired, p.dead_lettered, p.duplicates, p.deleted];
        counts.row(numbers.iter().map(u64::to_string).collect());
    }
    text.push('\n');
    text.push_str(&parts.render());
    text.push_str("\nsince the shards started:\n");
    text.push_str(&counts.render());
    let untold: Vec<String> = queue.partitions.iter().filter(|p| !p.error.is_ok()).map(|p| format!("partition {}", p.partition)).collect();
    text.push_str(&notes(&queue.silent, &untold));
    text
}

/// Whether every partition was told, so that sums are sums of all.
fn is_whole(queue: &QueueDescription) -> bool {
    queue.partitions.iter().all(|p| p.error.is_ok())
}

fn describe_json(queue: &QueueDescription) -> Value {
    let settings: Map<String, Value> = queue
        .settings
        .iter()
        .map(|s| (s.key.clone(), json!({"value": s.value, "origin": if s.explicit { "set" } else { "default" }})))
        .collect();
    let partitions: Vec<Value> = queue.partitions.iter().map(partition_json).collect();
    // Sums of what is not whole are no facts.
    let sum = |of: fn(&QueuePartitionDescription) -> u64| is_whole(queue).then(|| total(queue, of));
    json!({
        "queue": queue.name, "queue_uid": queue.uid, "topic": queue.topic, "created": time_text(queue.created_us),
        "ready": sum(|p| p.ready), "leased": sum(|p| p.leased), "delayed": sum(|p| p.delayed), "dead": sum(|p| p.dead),
        "settings": settings, "partitions": partitions, "silent": silent_json(&queue.silent),
    })
}

fn partition_json(p: &QueuePartitionDescription) -> Value {
    let known = |number: u64| p.error.is_ok().then_some(number);
    json!({
        "partition": p.partition, "partition_uid": p.uid, "node": p.node, "shard": p.shard,
        "error": (!p.error.is_ok()).then(|| p.error.name()), "settled_to": known(p.settled_to), "looked_to": known(p.looked_to),
        "next": known(p.committed_end), "ready": known(p.ready), "leased": known(p.leased), "delayed": known(p.delayed),
        "dead": known(p.dead), "oldest": p.oldest_us.map(time_text), "acked": known(p.acked), "redelivered": known(p.redelivered),
        "expired": known(p.expired), "dead_lettered": known(p.dead_lettered), "duplicates": known(p.duplicates), "deleted": known(p.deleted),
        "waiting": known(p.waiting.into()),
        "holder": (!p.active.is_empty()).then_some(p.active.as_str()),
    })
}

/// `queue purge`.
pub fn purge(client: &Client, format: Format, name: &str, yes: bool) -> Result<(), Failure> {
    if !yes {
        let queue = client.describe_queue(name)?;
        let count = total(&queue, |p| p.ready + p.leased + p.delayed + p.dead + p.committed_end.saturating_sub(p.looked_to));
        let some = if is_whole(&queue) { "some" } else { "at least" };
        let message =
            format!("this would settle {some} {count} messages of queue {name} for good; do it with: tramctl queue purge {name} --yes");
        return Err(Failure::local(failure::USAGE, message));
    }
    let purged = client.purge_queue(name, &[])?;
    let count: u64 = purged.iter().map(|(_, count)| count).sum();
    let partitions = || purged.iter().map(|(partition, count)| json!({"partition": partition, "purged": count})).collect::<Value>();
    show(
        format,
        || format!("purged {count} messages of queue {name}\n"),
        || json!({"queue": name, "purged": count, "partitions": partitions()}),
    )
}

/// `queue delete-message`; exit code 1 where one of them was not deleted.
pub fn delete_messages(client: &Client, format: Format, name: &str, messages: &[(u32, u64)]) -> Result<ExitCode, Failure> {
    let told = client.delete_messages(name, messages)?;
    let results: Vec<(String, ErrorCode)> =
        messages.iter().zip(&told).map(|((partition, offset), code)| (format!("{partition}:{offset}"), *code)).collect();
    let text = || {
        let line = |(place, code): &(String, ErrorCode)| match code.is_ok() {
            true => format!("deleted message {place}\n"),
            false => format!("message {place} was not deleted ({}): {}\n", code.name(), code.sentence()),
        };
        results.iter().map(line).collect::<String>()
    };
    let value = || {
        let told = |(place, code): &(String, ErrorCode)| json!({"message": place, "deleted": code.is_ok(), "code": (!code.is_ok()).then(|| code.name())});
        json!({"queue": name, "messages": results.iter().map(told).collect::<Value>()})
    };
    show(format, text, value)?;
    Ok(if told.iter().all(|code| code.is_ok()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tramline_client::TopicSetting;

    fn queue() -> QueueDescription {
        let partition = QueuePartitionDescription {
            partition: 0,
            uid: 9,
            node: 1,
            shard: 0,
            error: ErrorCode::Ok,
            settled_to: 5,
            looked_to: 12,
            committed_end: 12,
            ready: 3,
            leased: 2,
            delayed: 1,
            dead: 1,
            oldest_us: Some(1_700_000_000_000_000),
            acked: 5,
            redelivered: 4,
            expired: 0,
            dead_lettered: 1,
            duplicates: 0,
            deleted: 0,
            waiting: 0,
            active: "host/1/1".into(),
        };
        let away = QueuePartitionDescription {
            partition: 1,
            error: ErrorCode::NotReady,
            ready: 0,
            leased: 0,
            delayed: 0,
            dead: 0,
            ..partition.clone()
        };
        QueueDescription {
            uid: 7,
            name: "mail".into(),
            topic: "letters".into(),
            created_us: 1_700_000_000_000_000,
            settings: vec![TopicSetting { key: "max.deliveries".into(), value: "5".into(), explicit: false }],
            partitions: vec![partition, away],
            silent: vec![],
        }
    }

    #[test]
    fn a_queue_is_told_with_its_partitions() {
        let text = describe_text(&queue());
        assert!(
            text.starts_with(
                "queue mail  uid 7  topic letters  created 2023-11-14T22:13:20.000000Z\nat least 3 ready, 2 leased, 1 delayed, 1 dead\n"
            ),
            "{text}"
        );
        assert!(text.contains("host/1/1") && text.contains("not_ready") && text.contains("max.deliveries  5      default"), "{text}");
        let value = describe_json(&queue());
        assert_eq!(
            (&value["ready"], &value["partitions"][1]["error"], &value["partitions"][0]["error"]),
            (&Value::Null, &json!("not_ready"), &Value::Null)
        );
        assert_eq!((&value["partitions"][1]["ready"], &value["partitions"][1]["acked"]), (&Value::Null, &Value::Null));
        assert!(text.ends_with("nobody who answered leads partition 1: see tramctl cluster status\n"), "{text}");
        let whole = QueueDescription { partitions: queue().partitions[..1].to_vec(), ..queue() };
        assert_eq!(describe_json(&whole)["ready"], json!(3));
        assert_eq!(value["partitions"][0]["holder"], "host/1/1");
    }

    #[test]
    fn a_missing_topic_is_told_with_the_command_that_creates_it() {
        let refused = |code: ErrorCode| Error::Refused { request: "x".into(), code, retriable: false, message: String::new(), next: None };
        let failure = with_topic(refused(ErrorCode::UnknownTopic), "t");
        assert_eq!(failure.code, "unknown_topic");
        assert!(failure.message.contains("tramctl topic create t"), "{}", failure.message);
        assert!(!with_topic(refused(ErrorCode::QueueExists), "t").message.contains("create t"));
    }

    #[test]
    fn no_queues_is_told_with_how_to_make_one() {
        assert!(list_text(&[]).contains("queue create"));
        assert_eq!(list_json(&[]), json!([]));
    }
}
