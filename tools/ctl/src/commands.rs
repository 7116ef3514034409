//! The verbs that ask and print: topics, offsets, the cluster.
//!
//! Each has a function that asks and a pure one that makes the text and the JSON, tested without a broker. The JSON's field
//! names are relied on by scripts: fields may be added, none renamed.

use crate::args::Format;
use crate::failure::Failure;
use crate::output::show;
use crate::start::time_text;
use crate::table::Table;
use crate::unknown::{notes, or_dashes, silent_json};
use serde_json::{Map, Value, json};
use tramline_client::{
    At, Before, Client, CreatedTopic, Metadata, OptionDescription, PartitionOffset, TopicDescription, TopicSummary, TrimmedPartition,
};

fn pairs(set: &[(String, String)]) -> Vec<(&str, &str)> {
    set.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

/// `topic create`.
pub fn create(
    client: &Client,
    format: Format,
    name: &str,
    (partitions, replicas): (u32, u8),
    set: &[(String, String)],
    if_not_exists: bool,
) -> Result<(), Failure> {
    let created = client.create_replicated_topic(name, partitions, replicas, &pairs(set), if_not_exists)?;
    show(format, || created_text(name, &created), || created_json(name, &created))
}

fn created_text(name: &str, topic: &CreatedTopic) -> String {
    if topic.created {
        format!("created topic {name} with {}\n", count(topic.partitions, "partition"))
    } else {
        format!("topic {name} exists already with {}; nothing changed\n", count(topic.partitions, "partition"))
    }
}

fn created_json(name: &str, topic: &CreatedTopic) -> Value {
    json!({"topic": name, "topic_uid": topic.uid, "created": topic.created, "partitions": topic.partitions})
}

/// `topic list`.
pub fn list(client: &Client, format: Format) -> Result<(), Failure> {
    let topics = client.list_topics()?;
    show(format, || list_text(&topics), || list_json(&topics))
}

fn list_text(topics: &[TopicSummary]) -> String {
    if topics.is_empty() {
        return "no topics; create one with: tramctl topic create NAME --partitions N\n".to_owned();
    }
    let mut table = Table::new(&["TOPIC", ">PARTITIONS", ">UID"]);
    for topic in topics {
        table.row(vec![topic.name.clone(), topic.partitions.to_string(), topic.uid.to_string()]);
    }
    table.render()
}

fn list_json(topics: &[TopicSummary]) -> Value {
    topics.iter().map(|topic| json!({"topic": topic.name, "topic_uid": topic.uid, "partitions": topic.partitions})).collect()
}

/// `topic describe`.
pub fn describe(client: &Client, format: Format, name: &str) -> Result<(), Failure> {
    let topic = client.describe_topic(name)?;
    show(format, || describe_text(&topic), || describe_json(&topic))
}

fn describe_text(topic: &TopicDescription) -> String {
    let mut settings = Table::new(&["SETTING", "VALUE", "ORIGIN"]);
    for setting in &topic.settings {
        settings.row(vec![setting.key.clone(), setting.value.clone(), origin(setting.explicit).to_owned()]);
    }
    let mut partitions = Table::new(&[">PARTITION", ">NODE", ">SHARD", ">GROUP", ">FIRST", ">NEXT", ">RECORDS", ">BYTES", ">SEGMENTS"]);
    for partition in &topic.partitions {
        let records = partition.committed_end.saturating_sub(partition.log_start);
        let places = [partition.index, partition.node, u32::from(partition.shard), partition.group];
        let numbers = [partition.log_start, partition.committed_end, records, partition.bytes, u64::from(partition.segments)];
        partitions.row(places.iter().map(u32::to_string).chain(or_dashes(partition.error.is_ok(), numbers)).collect());
    }
    let untold: Vec<String> = topic
        .partitions
        .iter()
        .filter(|partition| !partition.error.is_ok())
        .map(|partition| format!("partition {}", partition.index))
        .collect();
    format!(
        "topic {}  uid {}  created {}  {}  {}\n\n{}\n{}{}",
        topic.name,
        topic.uid,
        time_text(topic.created_us),
        count(topic.partitions.len() as u32, "partition"),
        count(topic.replicas.into(), "replica"),
        settings.render(),
        partitions.render(),
        notes(&topic.silent, &untold)
    )
}

fn describe_json(topic: &TopicDescription) -> Value {
    let settings: Map<String, Value> = topic
        .settings
        .iter()
        .map(|setting| (setting.key.clone(), json!({"value": setting.value, "origin": origin(setting.explicit)})))
        .collect();
    let partitions: Vec<Value> = topic
        .partitions
        .iter()
        .map(|partition| {
            let known = |number: u64| partition.error.is_ok().then_some(number);
            json!({
                "partition": partition.index, "partition_uid": partition.uid, "group": partition.group, "node": partition.node, "shard": partition.shard,
                "error": (!partition.error.is_ok()).then(|| partition.error.name()), "first": known(partition.log_start),
                "next": known(partition.committed_end), "bytes": known(partition.bytes), "segments": known(partition.segments.into()),
            })
        })
        .collect();
    json!({
        "topic": topic.name, "topic_uid": topic.uid, "created": time_text(topic.created_us), "replicas": topic.replicas, "settings": settings,
        "partitions": partitions,
        "silent": silent_json(&topic.silent),
    })
}

fn origin(explicit: bool) -> &'static str {
    if explicit { "set" } else { "default" }
}

/// `topic alter`.
pub fn alter(client: &Client, format: Format, name: &str, partitions: Option<u32>, set: &[(String, String)]) -> Result<(), Failure> {
    client.alter_topic(name, partitions, &pairs(set))?;
    show(format, || format!("altered topic {name}\n"), || json!({"topic": name, "altered": true}))
}

/// `topic alter --replicas`.
pub fn set_replicas(client: &Client, format: Format, name: &str, replicas: u8) -> Result<(), Failure> {
    client.set_topic_replicas(name, replicas)?;
    let text = || {
        let replicas = count(replicas.into(), "replica");
        format!("altered topic {name}: it is to have {replicas}; `tramctl cluster groups` shows how its groups change\n")
    };
    show(format, text, || json!({"topic": name, "altered": true, "replicas": replicas}))
}

/// `topic delete`.
pub fn delete(client: &Client, format: Format, name: &str) -> Result<(), Failure> {
    client.delete_topic(name)?;
    show(format, || format!("deleted topic {name}\n"), || json!({"topic": name, "deleted": true}))
}

/// `topic trim`.
pub fn trim(client: &Client, format: Format, name: &str, before: Before, partitions: &[u32]) -> Result<(), Failure> {
    let trimmed = client.trim_topic(name, before, partitions)?;
    show(format, || trimmed_text(&trimmed), || trimmed_json(name, &trimmed))
}

fn trimmed_text(trimmed: &[TrimmedPartition]) -> String {
    let mut table = Table::new(&[">PARTITION", ">FIRST", ">NEXT", ">RECORDS"]);
    for partition in trimmed {
        let records = partition.committed_end.saturating_sub(partition.log_start);
        let cells = [u64::from(partition.partition), partition.log_start, partition.committed_end, records];
        table.row(cells.iter().map(u64::to_string).collect());
    }
    table.render()
}

fn trimmed_json(name: &str, trimmed: &[TrimmedPartition]) -> Value {
    let partitions: Vec<Value> = trimmed
        .iter()
        .map(|partition| {
            let records = partition.committed_end.saturating_sub(partition.log_start);
            json!({"partition": partition.partition, "first": partition.log_start, "next": partition.committed_end, "records": records})
        })
        .collect();
    json!({"topic": name, "partitions": partitions})
}

/// `topic options`.
pub fn options(client: &Client, format: Format) -> Result<(), Failure> {
    let options = client.describe_options()?;
    show(format, || options_text(&options), || options_json(&options))
}

fn options_text(options: &[OptionDescription]) -> String {
    let mut table = Table::new(&["SETTING", "KIND", "UNIT", "DEFAULT", "RANGE", "MEANING"]);
    for option in options {
        let range = match (option.min.as_str(), option.max.as_str()) {
            (choices, "") => choices.to_owned(),
            (min, max) => format!("{min} to {max}"),
        };
        table.row(vec![option.key.clone(), option.kind.clone(), option.unit.clone(), option.default.clone(), range, option.doc.clone()]);
    }
    table.render()
}

fn options_json(options: &[OptionDescription]) -> Value {
    options
        .iter()
        .map(|option| {
            json!({"key": option.key, "kind": option.kind, "unit": option.unit, "default": option.default, "min": option.min, "max": option.max, "doc": option.doc})
        })
        .collect()
}

/// `offsets`.
pub fn offsets(client: &Client, format: Format, topic: &str) -> Result<(), Failure> {
    let ends = client.end_offsets(topic)?;
    let asked: Vec<(u32, At)> = ends.iter().map(|end| (end.partition, At::Earliest)).collect();
    let starts = client.list_offsets(topic, &asked)?;
    show(format, || offsets_text(&starts, &ends), || offsets_json(topic, &starts, &ends))
}

fn offsets_text(starts: &[PartitionOffset], ends: &[PartitionOffset]) -> String {
    let mut table = Table::new(&[">PARTITION", ">FIRST", ">NEXT", ">RECORDS"]);
    let mut total = 0u64;
    for (start, end) in starts.iter().zip(ends) {
        let records = end.offset.saturating_sub(start.offset);
        total += records;
        table.row([u64::from(end.partition), start.offset, end.offset, records].iter().map(u64::to_string).collect());
    }
    if ends.len() > 1 {
        table.row(vec!["all".into(), String::new(), String::new(), total.to_string()]);
    }
    table.render()
}

fn offsets_json(topic: &str, starts: &[PartitionOffset], ends: &[PartitionOffset]) -> Value {
    let partitions: Vec<Value> = starts
        .iter()
        .zip(ends)
        .map(|(start, end)| {
            let records = end.offset.saturating_sub(start.offset);
            json!({"partition": end.partition, "first": start.offset, "next": end.offset, "records": records})
        })
        .collect();
    json!({"topic": topic, "partitions": partitions})
}

/// `cluster` and `metadata`.
pub fn metadata(client: &Client, format: Format, topics: &[String]) -> Result<(), Failure> {
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let metadata = client.metadata(&names)?;
    if let Some(missing) = metadata.topics.iter().find(|topic| !topic.error.is_ok()) {
        return Err(Failure::refused(missing.error, &format!("topic {}", missing.name)));
    }
    show(format, || metadata_text(&metadata), || metadata_json(&metadata))
}

fn metadata_text(metadata: &Metadata) -> String {
    let mut nodes = Table::new(&[">NODE", "ADDRESS", ">SHARDS", "SHARD PORTS"]);
    for node in &metadata.nodes {
        let ports = node.shard_ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
        nodes.row(vec![node.id.to_string(), format!("{}:{}", node.host, node.port), node.shard_ports.len().to_string(), ports]);
    }
    let mut partitions = Table::new(&["TOPIC", ">PARTITION", ">NODE", ">SHARD", ">GROUP", ">TERM"]);
    for topic in &metadata.topics {
        for partition in &topic.partitions {
            let numbers = [
                u64::from(partition.index),
                u64::from(partition.leader_node),
                u64::from(partition.leader_shard),
                u64::from(partition.group),
                partition.term,
            ];
            partitions.row(std::iter::once(topic.name.clone()).chain(numbers.iter().map(u64::to_string)).collect());
        }
    }
    let owners = if metadata.topics.is_empty() { "no topics\n".to_owned() } else { partitions.render() };
    format!("view {}\n\n{}\n{owners}", metadata.view_epoch, nodes.render())
}

fn metadata_json(metadata: &Metadata) -> Value {
    let nodes: Vec<Value> = metadata
        .nodes
        .iter()
        .map(|node| json!({"node": node.id, "host": node.host, "port": node.port, "shard_ports": node.shard_ports}))
        .collect();
    let topics: Vec<Value> = metadata
        .topics
        .iter()
        .map(|topic| {
            let partitions: Vec<Value> = topic
                .partitions
                .iter()
                .map(|partition| {
                    json!({
                        "partition": partition.index, "partition_uid": partition.uid, "group": partition.group,
                        "node": partition.leader_node, "shard": partition.leader_shard, "term": partition.term,
                    })
                })
                .collect();
            json!({"topic": topic.name, "topic_uid": topic.uid, "partitions": partitions})
        })
        .collect();
    json!({"view_epoch": metadata.view_epoch, "nodes": nodes, "topics": topics})
}

/// So many of it, in words.
pub fn count(number: u32, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tramline_client::{ErrorCode, Node, PartitionDescription, PartitionMetadata, SilentNode, TopicMetadata, TopicSetting};

    #[test]
    fn creating_tells_whether_something_was_created() {
        let topic = CreatedTopic { uid: 7, created: true, partitions: 1 };
        assert_eq!(created_text("t", &topic), "created topic t with 1 partition\n");
        let topic = CreatedTopic { created: false, partitions: 16, ..topic };
        assert!(created_text("t", &topic).contains("exists already with 16 partitions"));
        assert_eq!(created_json("t", &topic), json!({"topic": "t", "topic_uid": 7, "created": false, "partitions": 16}));
    }

    #[test]
    fn lists_have_a_line_per_topic() {
        let topics = [TopicSummary { name: "flights".into(), uid: 3, partitions: 16 }];
        assert_eq!(list_text(&topics), "TOPIC    PARTITIONS  UID\nflights          16    3\n");
        assert_eq!(list_json(&topics), json!([{"topic": "flights", "topic_uid": 3, "partitions": 16}]));
        assert_eq!(list_json(&[]), json!([]));
        assert!(list_text(&[]).contains("topic create"));
    }

    #[test]
    fn a_description_has_settings_with_origin_and_partitions() {
        let topic = TopicDescription {
            uid: 3,
            name: "t".into(),
            created_us: 1_000_000,
            replicas: 3,
            settings: vec![
                TopicSetting { key: "visible.at".into(), value: "durable".into(), explicit: true },
                TopicSetting { key: "a".into(), value: "1".into(), explicit: false },
            ],
            partitions: vec![PartitionDescription {
                index: 0,
                uid: 9,
                group: 1,
                node: 1,
                shard: 0,
                error: ErrorCode::Ok,
                log_start: 5,
                committed_end: 12,
                bytes: 700,
                segments: 2,
            }],
            silent: vec![],
        };
        let text = describe_text(&topic);
        assert!(
            text.contains("1970-01-01T00:00:01")
                && text.contains("  1 partition  3 replicas\n")
                && text.contains("visible.at  durable  set")
                && text.contains("default"),
            "{text}"
        );
        let json = describe_json(&topic);
        assert_eq!(json["replicas"], json!(3));
        assert_eq!(json["settings"]["visible.at"], json!({"value": "durable", "origin": "set"}));
        assert_eq!((&json["partitions"][0]["first"], &json["partitions"][0]["next"]), (&json!(5), &json!(12)));

        let away = PartitionDescription {
            error: ErrorCode::NotReady,
            node: 2,
            log_start: 0,
            committed_end: 0,
            bytes: 0,
            segments: 0,
            ..topic.partitions[0]
        };
        let silent = vec![SilentNode { node: 2, address: "h:1".into(), reason: "refused".into() }];
        let topic = TopicDescription { partitions: vec![away], silent, ..topic };
        let text = describe_text(&topic);
        assert!(text.contains("0     2      0      1      -     -        -      -         -\n"), "no number is made up: {text}");
        assert!(text.contains("node 2 (h:1) did not answer: refused;") && text.contains("leads partition 0:"), "{text}");
        let json = describe_json(&topic);
        let numbers = ["first", "next", "bytes", "segments"].map(|name| &json["partitions"][0][name]);
        assert_eq!((numbers, &json["silent"][0]["node"]), ([&Value::Null; 4], &json!(2)));
    }

    #[test]
    fn offsets_have_a_sum_when_there_are_several() {
        let at = |partition, offset| PartitionOffset { partition, offset, timestamp_us: None };
        let (starts, ends) = ([at(0, 0), at(1, 10)], [at(0, 5), at(1, 30)]);
        let text = offsets_text(&starts, &ends);
        assert!(text.ends_with("      all                    25\n"), "{text}");
        assert_eq!(offsets_json("t", &starts, &ends)["partitions"][1], json!({"partition": 1, "first": 10, "next": 30, "records": 20}));
    }

    #[test]
    fn a_trim_tells_where_each_partition_begins_now() {
        let trimmed = [TrimmedPartition { partition: 3, log_start: 10, committed_end: 25 }];
        assert_eq!(trimmed_text(&trimmed), "PARTITION  FIRST  NEXT  RECORDS\n        3     10    25       15\n");
        assert_eq!(
            trimmed_json("t", &trimmed),
            json!({"topic": "t", "partitions": [{"partition": 3, "first": 10, "next": 25, "records": 15}]})
        );
    }

    #[test]
    fn the_cluster_shows_nodes_and_owners() {
        let metadata = Metadata {
            view_epoch: 4,
            nodes: vec![Node { id: 1, host: "::1".into(), port: 7410, shard_ports: vec![7411, 7412] }],
            topics: vec![TopicMetadata {
                error: ErrorCode::Ok,
                name: "t".into(),
                uid: 3,
                partitions: vec![PartitionMetadata { index: 0, uid: 9, group: 2, leader_node: 1, leader_shard: 1, term: 6 }],
            }],
            ..Metadata::default()
        };
        let text = metadata_text(&metadata);
        assert!(text.contains("7411,7412") && text.contains("TOPIC  PARTITION"), "{text}");
        let json = metadata_json(&metadata);
        assert_eq!(json["topics"][0]["partitions"][0]["shard"], 1);
        assert_eq!(json["nodes"][0]["shard_ports"], json!([7411, 7412]));
    }

    #[test]
    fn options_show_their_range() {
        let option = OptionDescription {
            key: "segment.bytes".into(),
            kind: "integer".into(),
            unit: "bytes".into(),
            default: "5".into(),
            min: "1".into(),
            max: "9".into(),
            doc: "size".into(),
        };
        assert!(options_text(std::slice::from_ref(&option)).contains("1 to 9"));
        assert_eq!(options_json(&[option])[0]["unit"], "bytes");
    }
}
