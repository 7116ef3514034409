//! Letters from a dead-letter topic to where they came from.
//!
//! Each is stored in the topic that it came from, durably, and only then acknowledged, so none is lost. One can be stored twice: if this program dies in between, or is held up for half a minute longer than
//! `--timeout`, which ends the lease. One that cannot be stored stays under its lease until the run ends, so that it is tried once, and is then given back; the others go on (but for later ones of its message group, whose
//! order is kept). What would fail for all of them alike (no answer, no room) ends the run.
//!
//! What a message keeps: key, value, headers (but for those that tell how it died), priority, group. Not its message id, by which the queue would take it for the one that died; nor a delay and a time to live, which a letter does not have.

use super::args::Redrive;
use super::redrive::{Tally, check_topic, letters_of};
use crate::args::Global;
use crate::failure::Failure;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tramline_client::{
    At, Attributes, Client, ErrorCode, LeaseToken, Message, Producer, ProducerConfig, QueueConsumer, QueueConsumerConfig, Record, Settle,
};

/// What headers that tell how a message died begin with.
const HISTORY: &str = "tramline-dead-letter-";
/// The topic that it came from.
const FROM_TOPIC: &str = "tramline-dead-letter-topic";
/// The queue in which it died.
const FROM_QUEUE: &str = "tramline-dead-letter-queue";

/// Messages stored and acknowledged together.
const AT_ONCE: u64 = 100;
/// Nothing came for so long: it is asked what is left.
const QUIET: Duration = Duration::from_millis(500);
/// Nothing came so often in a row, though something is there: it does not come.
const QUIET_MAX: u32 = 4;
/// A lease lasts for so long besides the time in which a message is stored or given up.
const LEASE_MORE: Duration = Duration::from_secs(30);
/// The longest lease that there is.
const LEASE_MAX: Duration = Duration::from_secs(12 * 3600);
/// Letters given back in one call.
const GIVEN_BACK_AT_ONCE: usize = 10_000;

/// From the dead-letter topic to where they came from.
pub(super) struct Mover<'a> {
    queue: &'a str,
    /// Where messages go that do not say where they came from.
    topic: &'a str,
    consumer: QueueConsumer,
    producer: Producer,
    timeout: Duration,
    /// Letters sent, over all: a late answer is never taken for that of another.
    sent: u64,
    /// Topics that are not there, with what was said of them: they are not asked for again for each letter.
    missing: BTreeMap<String, Failure>,
    /// Leases of letters that could not be stored, by partition and offset.
    held: BTreeMap<(u64, u64), LeaseToken>,
}

impl<'a> Mover<'a> {
    /// `name`: of the queue that hands the letters out, which is made where it is missing; `dead`: their topic.
    pub(super) fn open(
        client: &Client,
        global: &Global,
        options: &'a Redrive,
        name: &str,
        dead: &str,
        topic: &'a str,
    ) -> Result<Mover<'a>, Failure> {
        // Never dead: what cannot be stored now stays to be redriven. What is held to the end of a run may be as much as a partition can have under lease. Its dedup window is that of every
        // queue: a letter that a crash doubled has one id, which no other has.
        let settings = [("max.deliveries", "-1"), ("max.in.flight.per.consumer", "100000")];
        client.create_queue(name, dead, At::Earliest, &settings, true)?;
        let timeout = global.timeout.max(Duration::from_millis(10));
        let visibility = Some((timeout + LEASE_MORE).min(LEASE_MAX));
        let consumer = client.queue_consumer(name, QueueConsumerConfig { visibility, ..QueueConsumerConfig::default() })?;
        check_topic(name, &consumer.queue().topic, dead)?;
        let producer = client.producer(ProducerConfig { delivery_timeout: timeout, ..ProducerConfig::default() })?;
        let (missing, held) = (BTreeMap::new(), BTreeMap::new());
        Ok(Mover { queue: &options.name, topic, consumer, producer, timeout, sent: 0, missing, held })
    }

    /// Looks at `there` letters at most.
    pub(super) fn all(mut self, client: &Client, options: &Redrive, there: u64, tally: &mut Tally) -> Result<(), Failure> {
        let moved = self.move_all(client, options, there, tally);
        self.give_back();
        let closed = self.consumer.close(self.timeout);
        moved?;
        Ok(closed?)
    }

    fn move_all(&mut self, client: &Client, options: &Redrive, there: u64, tally: &mut Tally) -> Result<(), Failure> {
        let started = Instant::now();
        // A tenth of a second's worth at once, so that a low rate is even.
        let at_once = options.rate.map_or(AT_ONCE, |rate| u64::from(rate / 10).clamp(1, AT_ONCE));
        let count = options.count.unwrap_or(u64::MAX);
        let mut left = there;
        let mut quiet = 0;
        while left > 0 && tally.redriven < count {
            let most = at_once.min(left).min(count - tally.redriven);
            let messages = self.consumer.receive(most as u32, QUIET)?;
            if messages.is_empty() {
                // Nothing came: because nothing is there, or because nobody was there to ask.
                let [at_hand, waiting] = letters_of(&client.describe_queue(&self.consumer.queue().name)?)?;
                quiet += 1;
                if at_hand > 0 && quiet < QUIET_MAX {
                    continue;
                }
                tally.held_up = (at_hand + waiting).saturating_sub(self.held.len() as u64);
                break;
            }
            quiet = 0;
            let messages = self.without_held(messages);
            left -= messages.len() as u64;
            self.move_some(&messages, tally)?;
            if let Some(rate) = options.rate {
                let due = Duration::from_secs_f64(tally.redriven as f64 / f64::from(rate));
                std::thread::sleep(due.saturating_sub(started.elapsed()));
            }
        }
        Ok(())
    }

    /// Those that were not tried yet. One that comes again as its lease ended before the run is held under the new one.
    fn without_held(&mut self, mut messages: Vec<Message>) -> Vec<Message> {
        messages.retain(|message| match self.held.get_mut(&place(message.token)) {
            Some(token) => {
                *token = message.token;
                false
            }
            None => true,
        });
        messages
    }

    /// Stores letters and acknowledges those that were stored; the others are held. An error is one that the next letters would meet as well.
    fn move_some(&mut self, messages: &[Message], tally: &mut Tally) -> Result<(), Failure> {
        let (mine, others): (Vec<&Message>, Vec<&Message>) = messages.iter().partition(|message| self.is_mine(message));
        let (fates, mut stop) = self.store(&mine);
        let mut done: Vec<LeaseToken> = others.iter().map(|message| message.token).collect();
        tally.others += others.len() as u64;
        for (message, fate) in mine.iter().zip(fates) {
            match fate {
                Fate::Stored => {
                    tally.redriven += 1;
                    done.push(message.token);
                    continue;
                }
                Fate::Untried => {}
                Fate::Failed(failure) => {
                    tally.failed += 1;
                    tally.first.get_or_insert(failure);
                }
            }
            self.held.insert(place(message.token), message.token);
        }
        for result in self.consumer.ack_all(&done)? {
            if let Err(error) = result {
                stop.get_or_insert(error.into());
            }
        }
        stop.map_or(Ok(()), Err)
    }

    /// What became of each letter, in their order; and what the next ones would meet as well.
    fn store(&mut self, letters: &[&Message]) -> (Vec<Fate>, Option<Failure>) {
        let first_tag = self.sent;
        self.sent += letters.len() as u64;
        let mut fates: Vec<Fate> = letters.iter().map(|_| Fate::Untried).collect();
        let mut stop: Option<Failure> = None;
        let mut sent = vec![false; letters.len()];
        for (at, letter) in letters.iter().enumerate() {
            let topic = origin(letter).unwrap_or(self.topic);
            if let Some(failure) = self.missing.get(topic) {
                fates[at] = Fate::Failed(failure.clone());
                continue;
            }
            match self.producer.send(&record(letter, topic, first_tag + at as u64).borrowed()) {
                Ok(()) => sent[at] = true,
                Err(error) => {
                    fates[at] = self.failed(topic, error.into(), &mut stop);
                }
            }
            if stop.is_some() {
                break;
            }
        }
        // What does not arrive in time has its fate told all the same.
        let _ = self.producer.flush(self.timeout + Duration::from_secs(1));
        let mut told: BTreeMap<u64, Option<Failure>> = BTreeMap::new();
        self.producer.drain(|delivery| {
            told.insert(delivery.tag, delivery.error.map(|error| error.clone().into()));
        });
        for at in (0..letters.len()).filter(|at| sent[*at]) {
            let topic = origin(letters[at]).unwrap_or(self.topic);
            fates[at] = match told.remove(&(first_tag + at as u64)) {
                Some(None) => Fate::Stored,
                Some(Some(failure)) => self.failed(topic, failure, &mut stop),
                None => self.failed(topic, no_answer(), &mut stop),
            };
        }
        (fates, stop)
    }

    /// The fate of a letter that could not be stored: its topic is remembered where it is not there, and what is not about this letter alone ends the run.
    fn failed(&mut self, topic: &str, failure: Failure, stop: &mut Option<Failure>) -> Fate {
        if is_missing(&failure) {
            self.missing.entry(topic.to_owned()).or_insert_with(|| failure.clone());
        } else if failure.retriable || failure.code == "outcome_unknown" {
            stop.get_or_insert_with(|| failure.clone());
        }
        Fate::Failed(failure)
    }

    /// Where that fails it happens by itself, when the leases end.
    fn give_back(&mut self) {
        let tokens: Vec<(LeaseToken, Settle)> =
            std::mem::take(&mut self.held).into_values().map(|token| (token, Settle::Release)).collect();
        for some in tokens.chunks(GIVEN_BACK_AT_ONCE) {
            if self.consumer.settle(some).is_err() {
                return;
            }
        }
    }

    /// Several queues can have one dead-letter topic.
    fn is_mine(&self, message: &Message) -> bool {
        message.header(FROM_QUEUE).is_none_or(|queue| queue == self.queue.as_bytes())
    }
}

/// What became of a letter.
enum Fate {
    Stored,
    Failed(Failure),
    /// The run ended before.
    Untried,
}

fn place(token: LeaseToken) -> (u64, u64) {
    (token.partition_uid, token.offset)
}

/// Whether there is no topic to store it in.
fn is_missing(failure: &Failure) -> bool {
    [ErrorCode::UnknownTopic, ErrorCode::TopicDeleted, ErrorCode::InvalidTopicName].iter().any(|code| failure.code == code.name())
}

fn no_answer() -> Failure {
    Failure { code: "timed_out".to_owned(), retriable: true, message: "a letter had no answer; it may or may not be stored".to_owned() }
}

/// The topic that a letter says it came from.
fn origin(letter: &Message) -> Option<&str> {
    letter.header(FROM_TOPIC).and_then(|name| std::str::from_utf8(name).ok()).filter(|name| !name.is_empty())
}

/// A record to send, with the list of headers that a `Record` borrows.
struct Redriven<'a> {
    topic: &'a str,
    message: &'a Message,
    headers: Vec<(&'a str, &'a [u8])>,
    tag: u64,
}

fn record<'a>(message: &'a Message, topic: &'a str, tag: u64) -> Redriven<'a> {
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
        let redriven = record(&message, origin(&message).expect("it says so"), 3);
        let told = redriven.borrowed();
        assert_eq!((told.topic, told.key, told.value, told.tag), ("origin", Some(&b"k"[..]), Some(&b"v"[..]), 3));
        assert_eq!(told.headers, [("mine", &b"1"[..])]);
        assert_eq!(told.attributes, Attributes { priority: Some(4), group: Some(b"g"), ..Attributes::default() });
        let nameless = Message { headers: Vec::new(), ..message };
        assert_eq!(origin(&nameless), None);
    }

    #[test]
    fn a_topic_that_is_gone_is_about_its_letters_alone() {
        assert!(is_missing(&Failure::local("unknown_topic", "")) && is_missing(&Failure::local("topic_deleted", "")));
        assert!(!is_missing(&no_answer()) && no_answer().retriable);
    }
}
