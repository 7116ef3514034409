//! `queue browse`: messages that are not settled, with their bodies; changes nothing.
//!
//! How a message stands is told by the queue, its body is read from the topic. Between the two a message can be settled, or removed from the topic: it is then told without a body.

use super::args::{Browse, State};
use super::receive::attributes_json;
use crate::args::{Format, Global, Print};
use crate::consume::partitions;
use crate::failure::Failure;
use crate::output::written;
use crate::print::{insert_bytes, insert_headers};
use crate::start::time_text;
use crate::table::Table;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};
use tramline_client::wire::queue::QUEUE_MESSAGES_MAX;
use tramline_client::{Client, Consumer, ConsumerConfig, Error, MessageAttributes, MessageDescription, MessageState, Start};

/// Characters of a value in the table.
const VALUE_CHARS: usize = 40;

/// A message's body.
struct Body {
    timestamp_us: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
    attributes: MessageAttributes,
}

struct Row {
    partition: u32,
    message: MessageDescription,
    body: Option<Body>,
}

/// Runs the verb.
pub fn run(client: &Client, global: &Global, options: &Browse) -> Result<(), Failure> {
    let queue = client.find_queue(&options.name)?;
    let count = client.describe_topic(&queue.topic)?.partitions.len() as u32;
    let chosen = partitions(&queue.topic, &options.partitions, count)?;
    let mut consumer = client.consumer(ConsumerConfig::default())?;
    let mut rows = Vec::new();
    for partition in chosen {
        let left = usize::try_from(options.count).unwrap_or(usize::MAX).saturating_sub(rows.len());
        browse(client, &mut consumer, options, (&queue.topic, partition), left, global.timeout, &mut rows)?;
    }
    let print = options.print.or((global.format == Format::Json).then_some(Print::Json));
    let mut text = Vec::new();
    match print {
        None => text.extend_from_slice(table(&rows).as_bytes()),
        Some(how) => rows.iter().for_each(|row| write_row(row, how, &mut text)),
    }
    let mut out = io::stdout().lock();
    written(out.write_all(&text).and_then(|()| out.flush()))
}

/// Adds at most `left` messages of one partition.
fn browse(
    client: &Client,
    consumer: &mut Consumer,
    options: &Browse,
    (topic, partition): (&str, u32),
    left: usize,
    timeout: Duration,
    rows: &mut Vec<Row>,
) -> Result<(), Failure> {
    let end = rows.len() + left;
    let mut from = 0;
    while rows.len() < end {
        let count = u32::try_from(end - rows.len()).unwrap_or(u32::MAX).min(QUEUE_MESSAGES_MAX);
        let page = client.browse_queue(&options.name, partition, from, count, State::wanted(options.state))?;
        let offsets: Vec<u64> = page.messages.iter().map(|message| message.offset).collect();
        let mut bodies = read_bodies(consumer, topic, partition, &offsets, timeout)?;
        rows.extend(page.messages.into_iter().map(|message| Row { partition, body: bodies.remove(&message.offset), message }));
        if page.end || page.next == from {
            break;
        }
        from = page.next;
    }
    Ok(())
}

/// The bodies of these messages, as far as they are still there.
fn read_bodies(
    consumer: &mut Consumer,
    topic: &str,
    partition: u32,
    offsets: &[u64],
    timeout: Duration,
) -> Result<BTreeMap<u64, Body>, Failure> {
    let (Some(&first), Some(&last)) = (offsets.first(), offsets.last()) else { return Ok(BTreeMap::new()) };
    let mut bodies = BTreeMap::new();
    let until = Instant::now() + timeout;
    consumer.assign(topic, partition, Start::Offset(first))?;
    while consumer.position(topic, partition).is_some_and(|position| position <= last) {
        let wait = until.saturating_duration_since(Instant::now());
        let polled = consumer.poll_until(wait, |record| {
            if offsets.binary_search(&record.offset).is_ok() {
                let body = Body {
                    timestamp_us: record.timestamp_us,
                    key: record.key.map(<[u8]>::to_vec),
                    value: record.value.map(<[u8]>::to_vec),
                    headers: record.headers.map(|header| (header.name.to_owned(), header.value.to_vec())).collect(),
                    attributes: record.attributes.into(),
                };
                bodies.insert(record.offset, body);
            }
            if record.offset >= last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match polled {
            Ok(0) if wait.is_zero() => {
                let sentence = format!("the bodies of partition {partition} were not read within the time; allow more with --timeout");
                return Err(Failure::local("timed_out", sentence));
            }
            Ok(_) => {}
            Err(error) => go_on(consumer, topic, partition, error)?,
        }
    }
    consumer.unassign(topic, partition);
    Ok(bodies)
}

/// What is gone from the topic has no body any more; anything else is an error.
fn go_on(consumer: &mut Consumer, topic: &str, partition: u32, error: Error) -> Result<(), Failure> {
    match error.resume_offset() {
        Some(resume) => Ok(consumer.assign(topic, partition, Start::Offset(resume))?),
        None if error.retriable() => Ok(()),
        None => Err(error.into()),
    }
}

fn state_name(state: MessageState) -> &'static str {
    match state {
        MessageState::Ready => "ready",
        MessageState::Leased => "leased",
        MessageState::Delayed => "delayed",
        MessageState::Dead => "dead",
    }
}

fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no messages\n".to_owned();
    }
    let headings = [">PARTITION", ">OFFSET", "STATE", ">PRIORITY", ">DELIVERIES", "UNTIL", "CONSUMER", "REASON", "VALUE"];
    let mut table = Table::new(&headings);
    for Row { partition, message, body } in rows {
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let value = body.as_ref().and_then(|body| body.value.as_deref()).map(String::from_utf8_lossy);
        table.row(vec![
            partition.to_string(),
            message.offset.to_string(),
            state_name(message.state).to_owned(),
            message.priority.to_string(),
            message.deliveries.to_string(),
            message.until_us.map_or("-".to_owned(), time_text),
            or_dash(&message.consumer),
            or_dash(&message.reason),
            value.map_or("-".to_owned(), |value| value.chars().take(VALUE_CHARS).collect()),
        ]);
    }
    table.render()
}

fn write_row(row: &Row, how: Print, out: &mut Vec<u8>) {
    let body = row.body.as_ref();
    match how {
        Print::Json => out.extend_from_slice(row_json(row).to_string().as_bytes()),
        Print::Value => out.extend_from_slice(body.and_then(|body| body.value.as_deref()).unwrap_or_default()),
        Print::KeyValue => {
            out.extend_from_slice(body.and_then(|body| body.key.as_deref()).unwrap_or_default());
            out.push(b'\t');
            out.extend_from_slice(body.and_then(|body| body.value.as_deref()).unwrap_or_default());
        }
    }
    out.push(b'\n');
}

fn row_json(Row { partition, message, body }: &Row) -> Value {
    let mut object = Map::new();
    object.insert("partition".into(), json!(partition));
    object.insert("offset".into(), json!(message.offset));
    object.insert("state".into(), json!(state_name(message.state)));
    object.insert("priority".into(), json!(message.priority));
    object.insert("deliveries".into(), json!(message.deliveries));
    object.insert("until".into(), json!(message.until_us.map(time_text)));
    object.insert("consumer".into(), json!((!message.consumer.is_empty()).then_some(&message.consumer)));
    object.insert("reason".into(), json!((!message.reason.is_empty()).then_some(&message.reason)));
    if let Some(body) = body {
        object.insert("timestamp".into(), json!(time_text(body.timestamp_us)));
        insert_bytes(&mut object, "key", body.key.as_deref());
        insert_bytes(&mut object, "value", body.value.as_deref());
        insert_headers(&mut object, body.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())));
        object.insert("attributes".into(), attributes_json(&body.attributes));
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(body: bool) -> Row {
        let message = MessageDescription {
            offset: 9,
            state: MessageState::Delayed,
            priority: 3,
            deliveries: 2,
            lease: None,
            until_us: Some(1_000_000),
            consumer: String::new(),
            reason: "no disk".into(),
        };
        let body = body.then(|| Body {
            timestamp_us: 0,
            key: None,
            value: Some(b"v\n1".to_vec()),
            headers: Vec::new(),
            attributes: MessageAttributes::default(),
        });
        Row { partition: 1, message, body }
    }

    #[test]
    fn messages_are_told_with_and_without_their_bodies() {
        let text = table(&[row(true), row(false)]);
        assert!(text.contains("1       9  delayed         3           2  1970-01-01T00:00:01.000000Z  -         no disk  v?1\n"), "{text}");
        assert!(text.ends_with("no disk  -\n"), "{text}");
        let value = row_json(&row(true));
        assert_eq!((&value["state"], &value["value"], &value["consumer"]), (&json!("delayed"), &json!("v\n1"), &Value::Null));
        assert!(row_json(&row(false)).get("value").is_none());
        assert_eq!(table(&[]), "no messages\n");
    }
}
