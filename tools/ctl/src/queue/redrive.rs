//! `queue redrive`: dead messages are delivered once more.
//!
//! Without a dead-letter topic they are still in the queue, and become ready. With one they are records there: a queue of its own, `NAME.redrive` on the dead-letter topic, hands them out, each
//! is stored in the topic that it came from, durably, and only then acknowledged. So none is lost, and one can be stored twice if this program dies in between. The queue remembers what was redriven; the dead
//! records stay in their topic.
//!
//! What a message keeps: key, value, headers (but for those that tell how it died), priority, group. Not its message id, by which the queue would take it for the one that died; nor a delay and a time to live, which a letter does not have.

use super::args::Redrive;
use crate::args::{Format, Global};
use crate::failure::Failure;
use crate::output::show;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tramline_client::{
    At, Attributes, Client, Error, ErrorCode, Message, Producer, ProducerConfig, QueueConsumer, QueueConsumerConfig, Record, Settle,
};

/// What headers that tell how a message died begin with.
const HISTORY: &str = "tramline-dead-letter-";
/// The topic that it came from.
const FROM_TOPIC: &str = "tramline-dead-letter-topic";
/// The queue in which it died.
const FROM_QUEUE: &str = "tramline-dead-letter-queue";

/// Messages stored and acknowledged together.
const AT_ONCE: u32 = 100;
/// Nothing came for so long: all are redriven.
const QUIET: Duration = Duration::from_millis(500);

/// What was done.
#[derive(Default)]
struct Tally {
    redriven: u64,
    /// Of other queues with the same dead-letter topic.
    others: u64,
}

/// Runs the verb.
pub fn run(client: &Client, global: &Global, options: &Redrive) -> Result<(), Failure> {
    let queue = client.describe_queue(&options.name)?;
    match queue.setting("dead.letter.topic").filter(|topic| !topic.is_empty()) {
        None if options.rate.is_some() => {
            let message = format!(
                "--rate is for messages in a dead-letter topic, and queue {} has none: its dead messages become ready all at once; leave --rate out, or use --count",
                options.name
            );
            Err(Failure::local("invalid_argument", message))
        }
        None => in_queue(client, global.format, options),
        Some(topic) if options.dry_run => {
            let count = count_dead(client, &options.name, topic)?.min(options.count.unwrap_or(u64::MAX));
            told(global.format, options, Some(topic), &Tally { redriven: count, others: 0 })
        }
        Some(topic) => {
            let mut tally = Tally::default();
            let moved = Mover::open(client, global, options, topic, &queue.topic)?.all(options, &mut tally);
            told(global.format, options, Some(topic), &tally)?;
            moved
        }
    }
}

fn told(format: Format, options: &Redrive, topic: Option<&str>, tally: &Tally) -> Result<(), Failure> {
    let Redrive { name, dry_run, .. } = options;
    let Tally { redriven, others } = *tally;
    let text = || {
        let of = topic.map_or(String::new(), |topic| format!(" from topic {topic}"));
        let others = if others > 0 { format!("{others} of other queues were left where they are\n") } else { String::new() };
        match dry_run {
            true => format!("would redrive {redriven} messages of queue {name}{of} (--dry-run: nothing was changed)\n"),
            false => format!("redriven {redriven} messages of queue {name}{of}\n{others}"),
        }
    };
    let value = || json!({"queue": name, "redriven": redriven, "others": others, "dead_letter_topic": topic, "dry_run": dry_run});
    show(format, text, value)
}

/// Dead messages that are still in the queue.
fn in_queue(client: &Client, format: Format, options: &Redrive) -> Result<(), Failure> {
    let count = options.count.map(|count| u32::try_from(count).unwrap_or(u32::MAX));
    let redriven = client.redrive_queue(&options.name, &[], count, options.dry_run)?.iter().map(|(_, count)| count).sum();
    told(format, options, None, &Tally { redriven, others: 0 })
}

fn redrive_queue(name: &str) -> String {
    format!("{name}.redrive")
}

/// How many may be redriven from a dead-letter topic.
fn count_dead(client: &Client, name: &str, topic: &str) -> Result<u64, Failure> {
    match client.describe_queue(&redrive_queue(name)) {
        Ok(queue) => {
            let left = queue.partitions.iter().map(|p| p.ready + p.leased + p.delayed + p.committed_end.saturating_sub(p.looked_to));
            Ok(left.sum())
        }
        Err(error) if error.code() == Some(ErrorCode::UnknownQueue) => match client.describe_topic(topic) {
            Ok(topic) => Ok(topic.partitions.iter().map(|p| p.committed_end.saturating_sub(p.log_start)).sum()),
            Err(error) if error.code() == Some(ErrorCode::UnknownTopic) => Ok(0),
            Err(error) => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// From the dead-letter topic to where they came from.
struct Mover<'a> {
    queue: &'a str,
    /// Where messages go that do not say where they came from.
    topic: &'a str,
    consumer: QueueConsumer,
    producer: Producer,
    timeout: Duration,
}

impl<'a> Mover<'a> {
    fn open(client: &Client, global: &Global, options: &'a Redrive, dead: &str, topic: &'a str) -> Result<Mover<'a>, Failure> {
        let name = redrive_queue(&options.name);
        // Never dead: what cannot be stored now stays to be redriven. Its dedup window is that of every queue: a letter that a crash doubled has one id, which no other has.
        client.create_queue(&name, dead, At::Earliest, &[("max.deliveries", "-1")], true)?;
        let consumer = client.queue_consumer(&name, QueueConsumerConfig::default())?;
        if consumer.queue().topic != dead {
            let message = format!(
                "queue {name} is on topic {}, not on the dead-letter topic {dead}: delete it with: tramctl queue delete {name}",
                consumer.queue().topic
            );
            return Err(Failure::local("invalid_argument", message));
        }
        let timeout = global.timeout.max(Duration::from_millis(10));
        let producer = client.producer(ProducerConfig { delivery_timeout: timeout, ..ProducerConfig::default() })?;
        Ok(Mover { queue: &options.name, topic, consumer, producer, timeout })
    }

    fn all(mut self, options: &Redrive, tally: &mut Tally) -> Result<(), Failure> {
        let moved = self.move_all(options, tally);
        let closed = self.consumer.close(self.timeout);
        moved?;
        Ok(closed?)
    }

    fn move_all(&mut self, options: &Redrive, tally: &mut Tally) -> Result<(), Failure> {
        let started = Instant::now();
        // A tenth of a second's worth at once, so that a low rate is even.
        let at_once = options.rate.map_or(AT_ONCE, |rate| (rate / 10).clamp(1, AT_ONCE));
        let mut left = options.count.unwrap_or(u64::MAX);
        while left > 0 {
            let messages = self.consumer.receive(u32::try_from(left).unwrap_or(u32::MAX).min(at_once), QUIET)?;
            if messages.is_empty() {
                break;
            }
            let before = tally.redriven;
            self.move_some(messages, tally)?;
            left -= tally.redriven - before;
            if let Some(rate) = options.rate {
                let due = Duration::from_secs_f64(tally.redriven as f64 / f64::from(rate));
                std::thread::sleep(due.saturating_sub(started.elapsed()));
            }
        }
        Ok(())
    }

    /// Stores messages and acknowledges those that were stored; the others are given back, and the first reason is the error.
    fn move_some(&mut self, messages: Vec<Message>, tally: &mut Tally) -> Result<(), Failure> {
        let mut fates: BTreeMap<u64, Option<Error>> = BTreeMap::new();
        let mut failed: Option<Failure> = None;
        let (mine, others): (Vec<Message>, Vec<Message>) = messages.into_iter().partition(|message| self.is_mine(message));
        for (tag, message) in mine.iter().enumerate() {
            if failed.is_none()
                && let Err(error) = self.producer.send(&record(message, self.topic, tag as u64).borrowed())
            {
                failed = Some(error.into());
            }
        }
        // What does not arrive in time has its fate told all the same.
        let _ = self.producer.flush(self.timeout + Duration::from_secs(1));
        self.producer.drain(|delivery| {
            fates.insert(delivery.tag, delivery.error.cloned());
        });
        let settlements: Vec<_> = others
            .iter()
            .map(|message| (message.token, Settle::Ack))
            .chain(mine.iter().enumerate().map(|(tag, message)| match fates.get(&(tag as u64)) {
                Some(None) => (message.token, Settle::Ack),
                Some(Some(error)) => {
                    failed.get_or_insert(error.clone().into());
                    (message.token, Settle::Release)
                }
                None => (message.token, Settle::Release),
            }))
            .collect();
        tally.others += others.len() as u64;
        tally.redriven += fates.values().filter(|fate| fate.is_none()).count() as u64;
        for result in self.consumer.settle(&settlements)? {
            if let Err(error) = result {
                failed.get_or_insert(error.into());
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Several queues can have one dead-letter topic.
    fn is_mine(&self, message: &Message) -> bool {
        message.header(FROM_QUEUE).is_none_or(|queue| queue == self.queue.as_bytes())
    }
}

/// A record to send, with the list of headers that a `Record` borrows.
struct Redriven<'a> {
    topic: &'a str,
    message: &'a Message,
    headers: Vec<(&'a str, &'a [u8])>,
    tag: u64,
}

fn record<'a>(message: &'a Message, topic: &'a str, tag: u64) -> Redriven<'a> {
    let topic = message.header(FROM_TOPIC).and_then(|name| std::str::from_utf8(name).ok()).filter(|name| !name.is_empty()).unwrap_or(topic);
    let kept = message.headers.iter().filter(|(name, _)| !name.starts_with(HISTORY));
    Redriven { topic, message, headers: kept.map(|(name, value)| (name.as_str(), value.as_slice())).collect(), tag }
}

impl Redriven<'_> {
    fn borrowed(&self) -> Record<'_> {
        let Message { key, value, attributes, .. } = self.message;
        Record {
            topic: self.topic,
            key: key.as_deref(),
            value: value.as_deref(),
            headers: &self.headers,
            attributes: Attributes { deliver_at_us: None, ttl_ms: None, message_id: None, ..attributes.borrowed() },
            tag: self.tag,
            ..Record::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tramline_client::{LeaseToken, MessageAttributes};

    #[test]
    fn a_redriven_record_is_the_message_without_its_history() {
        let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        let message = Message {
            partition: 0,
            offset: 1,
            timestamp_us: 5,
            append_time_us: 6,
            key: Some(b"k".to_vec()),
            value: Some(b"v".to_vec()),
            headers: vec![header("mine", "1"), header(FROM_TOPIC, "origin"), header("tramline-dead-letter-reason", "x")],
            attributes: MessageAttributes {
                deliver_at_us: Some(1),
                priority: Some(4),
                group: Some(b"g".to_vec()),
                message_id: Some(b"id".to_vec()),
                ttl_ms: Some(1),
            },
            deliveries: 1,
            token: LeaseToken { partition_uid: 1, offset: 1, lease: 1 },
        };
        let redriven = record(&message, "fallback", 3);
        let told = redriven.borrowed();
        assert_eq!((told.topic, told.key, told.value, told.tag), ("origin", Some(&b"k"[..]), Some(&b"v"[..]), 3));
        assert_eq!(told.headers, [("mine", &b"1"[..])]);
        assert_eq!(told.attributes, Attributes { priority: Some(4), group: Some(b"g"), ..Attributes::default() });
        let nameless = Message { headers: Vec::new(), ..message };
        assert_eq!(record(&nameless, "fallback", 0).borrowed().topic, "fallback");
    }
}
