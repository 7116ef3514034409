//! `queue receive`: leases messages, prints them, and settles what was printed.
//!
//! Invariants: a message is acknowledged only after it was written to standard output and flushed, so it is printed at least once; what was leased and not printed is given back.
//!
//! Not here: the form of a record's fields (`print.rs`).

use super::args::Receive;
use super::settle::word;
use crate::args::{Format, Global, Print};
use crate::consume::how;
use crate::failure::Failure;
use crate::output::written;
use crate::print::{insert_bytes, insert_headers};
use crate::start::time_text;
use serde_json::{Map, Value, json};
use std::io::{self, Write};
use std::time::{Duration, Instant};
use tramline_client::{Client, Message, MessageAttributes, QueueConsumer, QueueConsumerConfig, Settle};

/// Messages leased at once: few enough to be printed long before the shortest lease is over.
const AT_ONCE: u64 = 500;

/// Runs the verb.
pub fn run(client: &Client, global: &Global, options: &Receive) -> Result<(), Failure> {
    let defaults = QueueConsumerConfig::default();
    let config = QueueConsumerConfig {
        consumer: options.consumer.clone().unwrap_or(defaults.consumer),
        visibility: options.visibility_timeout,
        ..defaults
    };
    let mut consumer = client.queue_consumer(&options.name, config)?;
    let received = receive(client, &mut consumer, global, options);
    // What two owners leased at one time and was not printed; where it cannot be given back it comes back when its lease is over.
    let closed = consumer.close(Duration::from_secs(2).min(global.timeout));
    received?;
    closed.map_err(Failure::from)
}

fn receive(client: &Client, consumer: &mut QueueConsumer, global: &Global, options: &Receive) -> Result<(), Failure> {
    let how = how(options.print, global);
    let until = Instant::now() + options.wait;
    let mut left = options.count;
    let mut is_first = true;
    let mut failed = None;
    while left > 0 {
        let wait = until.saturating_duration_since(Instant::now());
        if wait.is_zero() && !is_first {
            break;
        }
        is_first = false;
        let messages = consumer.receive(left.min(AT_ONCE) as u32, wait)?;
        if messages.is_empty() {
            // The time is over, or what came was given back; or nobody is there any more, which is not the same as no message.
            client.find_queue(&options.name)?;
            continue;
        }
        left -= messages.len() as u64;
        if let Err(failure) = write(&messages, how, options.then.hold) {
            // Nobody has seen them: others may at once.
            let given_back: Vec<_> = messages.iter().map(|message| (message.token, Settle::Release)).collect();
            let _ = consumer.settle(&given_back);
            return Err(failure);
        }
        failed = settle(consumer, &messages, options, global.format)?.or(failed);
    }
    failed.map_or(Ok(()), Err)
}

fn write(messages: &[Message], how: Print, hold: bool) -> Result<(), Failure> {
    let mut text = Vec::new();
    messages.iter().for_each(|message| print(message, how, hold, &mut text));
    let mut out = io::stdout().lock();
    written(out.write_all(&text).and_then(|()| out.flush()))
}

/// Settles what was printed; what was refused is told, and one of it is the result.
fn settle(consumer: &mut QueueConsumer, messages: &[Message], options: &Receive, format: Format) -> Result<Option<Failure>, Failure> {
    let settle = match (options.then.hold, options.then.nack) {
        (true, _) => return Ok(None),
        (false, true) => Settle::NACK,
        (false, false) => Settle::Ack,
    };
    let settlements: Vec<_> = messages.iter().map(|message| (message.token, settle.clone())).collect();
    let mut failed = None;
    for result in consumer.settle(&settlements)? {
        if let Err(error) = result {
            let failure = Failure::from(error);
            eprint!("{}", failure.render(format));
            failed = Some(Failure { message: format!("not all messages could be {}; see above", word(&settle)), ..failure });
        }
    }
    Ok(failed)
}

/// Appends a message's text, with its token in front where it is held.
fn print(message: &Message, how: Print, hold: bool, out: &mut Vec<u8>) {
    if how == Print::Json {
        let mut object = Map::new();
        object.insert("token".into(), json!(message.token.to_string()));
        insert_message(&mut object, message);
        out.extend_from_slice(Value::Object(object).to_string().as_bytes());
    } else {
        if hold {
            out.extend_from_slice(message.token.to_string().as_bytes());
            out.push(b'\t');
        }
        if how == Print::KeyValue {
            out.extend_from_slice(message.key.as_deref().unwrap_or_default());
            out.push(b'\t');
        }
        out.extend_from_slice(message.value.as_deref().unwrap_or_default());
    }
    out.push(b'\n');
}

fn insert_message(object: &mut Map<String, Value>, message: &Message) {
    object.insert("partition".into(), json!(message.partition));
    object.insert("offset".into(), json!(message.offset));
    object.insert("timestamp".into(), json!(time_text(message.timestamp_us)));
    object.insert("deliveries".into(), json!(message.deliveries));
    insert_bytes(object, "key", message.key.as_deref());
    insert_bytes(object, "value", message.value.as_deref());
    insert_headers(object, message.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())));
    object.insert("attributes".into(), attributes_json(&message.attributes));
}

/// Only what a message has.
pub(super) fn attributes_json(attributes: &MessageAttributes) -> Value {
    let mut object = Map::new();
    if let Some(at_us) = attributes.deliver_at_us {
        object.insert("deliver_at".into(), json!(time_text(at_us)));
    }
    if let Some(priority) = attributes.priority {
        object.insert("priority".into(), json!(priority));
    }
    if let Some(ttl_ms) = attributes.ttl_ms {
        object.insert("ttl_ms".into(), json!(ttl_ms));
    }
    for (name, bytes) in [("group", &attributes.group), ("id", &attributes.message_id)] {
        if bytes.is_some() {
            insert_bytes(&mut object, name, bytes.as_deref());
        }
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tramline_client::LeaseToken;

    fn message() -> Message {
        Message {
            partition: 3,
            offset: 9,
            timestamp_us: 1_000_000,
            append_time_us: 0,
            key: Some(b"k".to_vec()),
            value: Some(b"v\xff".to_vec()),
            headers: vec![("h".to_owned(), b"1".to_vec())],
            attributes: MessageAttributes { priority: Some(7), group: Some(b"g".to_vec()), ..MessageAttributes::default() },
            deliveries: 2,
            token: LeaseToken { partition_uid: 31, offset: 9, lease: 7 },
        }
    }

    fn printed(how: Print, hold: bool) -> Vec<u8> {
        let mut out = Vec::new();
        print(&message(), how, hold, &mut out);
        out
    }

    #[test]
    fn a_message_is_one_line_and_a_held_one_has_its_token() {
        assert_eq!(printed(Print::Value, false), b"v\xff\n");
        assert_eq!(printed(Print::Value, true), b"1f-9-7\tv\xff\n");
        assert_eq!(printed(Print::KeyValue, true), b"1f-9-7\tk\tv\xff\n");
        let value: Value = serde_json::from_slice(&printed(Print::Json, false)).unwrap();
        assert_eq!(
            value,
            json!({
                "token": "1f-9-7", "partition": 3, "offset": 9, "timestamp": "1970-01-01T00:00:01.000000Z", "deliveries": 2, "key": "k",
                "value_base64": "dv8=", "headers": [{"name": "h", "value": "1"}], "attributes": {"priority": 7, "group": "g"}
            })
        );
    }
}
