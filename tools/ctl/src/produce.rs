//! `produce`: each line of standard input becomes a record.
//!
//! Invariants: input is read by a thread of its own, so records and answers flow while the input rests (a person typing, a slow
//! pipe); every record taken from the input is counted in the end, as acknowledged or failed; the summary is the only thing on
//! standard output. SIGINT or SIGTERM ends the reading, as the end of the input does: what was sent is waited for and summed up. A record that is itself at fault is counted and the next one goes on; anything else (no topic, no
//! connection) stops the reading, because the rest would fail alike.
//! Not here: batching, windows, retries (the client); cutting lines (`lines.rs`).

use crate::args::{Compression, Format, Global, Level, Produce};
use crate::failure::{Failure, is_record_fault};
use crate::lines::{LINE_BYTES_MAX, LineCutter, LineTooLong, field};
use crate::output::show;
use crate::signals::Stop;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Read};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::time::{Duration, Instant};
use tramline_client::{Attributes, Client, Codec, Producer, ProducerConfig, Record, SendError, deliver_after};

/// Bytes of one read: some batches' worth.
const READ_BYTES: usize = 256 * 1024;
/// Reads waiting for the sender; with `READ_BYTES` it bounds what is read ahead to 1 MiB.
const READS_WAITING: usize = 4;
/// Different failures told one by one; the rest is in the count.
const FAILURES_TOLD: usize = 5;

/// Places of messages told one by one: more than anybody cancels by hand.
const PLACES_TOLD: usize = 100_000;

/// How long answers are waited for before the input is looked at again. Adds at most this to the sending of a typed line.
const ANSWER_WAIT: Duration = Duration::from_millis(2);
/// How long input is waited for before signals and the connections are looked after.
const INPUT_WAIT: Duration = Duration::from_millis(100);
/// One step of the final waiting, so that progress is shown.
const FLUSH_STEP: Duration = Duration::from_millis(200);

/// What became of the records.
#[derive(Debug, Default, PartialEq)]
struct Tally {
    records: u64,
    acked: u64,
    failed: u64,
    /// Of messages of a queue: line, partition, offset.
    places: Vec<(u64, u32, u64)>,
}

impl Tally {
    /// The JSON of the summary; its four names are part of the command line.
    fn json(&self, seconds: f64) -> Value {
        json!({"records": self.records, "acked": self.acked, "failed": self.failed, "seconds": (seconds * 1000.0).round() / 1000.0})
    }

    fn places(&self) -> Vec<String> {
        let mut places = self.places.clone();
        places.sort_unstable();
        places.iter().map(|(_, partition, offset)| format!("{partition}:{offset}")).collect()
    }

    /// Where the messages are, in order of the lines that were stored.
    fn places_text(&self) -> String {
        let mut text: String = self.places().into_iter().map(|place| place + "\n").collect();
        if self.acked > self.places.len() as u64 {
            text.push_str(&format!("and {} more\n", self.acked - self.places.len() as u64));
        }
        text
    }

    fn places_json(&self, seconds: f64) -> Value {
        let mut value = self.json(seconds);
        value["messages"] = json!(self.places());
        value
    }

    fn text(&self, seconds: f64) -> String {
        let rate = if seconds > 0.0 { self.records as f64 / seconds } else { 0.0 };
        format!("{} records, {} acknowledged, {} failed, {seconds:.3} s, {rate:.0} records/s\n", self.records, self.acked, self.failed)
    }
}

/// When a message is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// So long after it was sent.
    After(Duration),
    /// UTC microseconds.
    At(i64),
}

/// What `queue send` adds to each record.
#[derive(Clone, Debug, Default)]
pub struct MessageMarks {
    /// Not delivered before.
    pub due: Option<Due>,
    /// Higher is sooner.
    pub priority: Option<u8>,
    /// Time to live, in milliseconds.
    pub ttl_ms: Option<u32>,
    /// Message group.
    pub group: Option<String>,
    /// Message id.
    pub message_id: Option<String>,
}

impl MessageMarks {
    fn attributes(&self) -> Attributes<'_> {
        Attributes {
            deliver_at_us: self.due.map(|due| match due {
                Due::After(delay) => deliver_after(delay),
                Due::At(us) => us,
            }),
            priority: self.priority,
            ttl_ms: self.ttl_ms,
            group: self.group.as_ref().map(|group| group.as_bytes()),
            message_id: self.message_id.as_ref().map(|id| id.as_bytes()),
        }
    }
}

/// Runs the verb; the exit code says whether any record failed.
pub fn run(client: &Client, global: &Global, options: &Produce) -> Result<ExitCode, Failure> {
    send(client, global, options, None)
}

/// The same for the messages of a queue, whose places are told.
pub fn send(client: &Client, global: &Global, options: &Produce, marks: Option<&MessageMarks>) -> Result<ExitCode, Failure> {
    let stop = Stop::watch()?;
    let producer = client.producer(config(options, global.timeout))?;
    // An unknown topic is told before anything is read: a person would type a line first and a pipe would be broken.
    let partitions = client.metadata(&[&options.topic])?.topic(&options.topic).map_or(Ok(0), |topic| match topic.error.is_ok() {
        true => Ok(topic.partitions.len() as u32),
        false => Err(Failure::refused(topic.error, &format!("topic {}", options.topic))),
    })?;
    if let Some(partition) = options.partition.filter(|partition| *partition >= partitions) {
        return Err(Failure::no_partition(&options.topic, partition, partitions));
    }
    let started = Instant::now();
    let mut sending = Sending {
        producer,
        options,
        format: global.format,
        headers: options.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect(),
        marks,
        tally: Tally::default(),
        told: BTreeSet::new(),
        stop,
        fatal: None,
        shown: started,
    };
    let result = sending.all(started, global.timeout);
    let seconds = started.elapsed().as_secs_f64();
    let Sending { tally, fatal, .. } = sending;
    match marks {
        None => show(global.format, || tally.text(seconds), || tally.json(seconds))?,
        Some(_) => show(global.format, || tally.places_text() + &tally.text(seconds), || tally.places_json(seconds))?,
    }
    result?;
    match fatal {
        Some(failure) => Err(failure),
        None if tally.failed > 0 => Ok(ExitCode::FAILURE),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn config(options: &Produce, delivery_timeout: Duration) -> ProducerConfig {
    ProducerConfig {
        delivery_timeout: delivery_timeout.max(Duration::from_millis(10)), // the client's lowest
        level: match options.level {
            Level::None => tramline_client::Level::None,
            Level::Leader => tramline_client::Level::Leader,
            Level::LeaderDurable => tramline_client::Level::LeaderDurable,
            Level::Replicated => tramline_client::Level::Replicated,
            Level::Durable => tramline_client::Level::Durable,
        },
        compression: match options.compression {
            Compression::None => Codec::None,
            Compression::Lz4 => Codec::Lz4,
            Compression::Zstd => Codec::Zstd,
            Compression::Snappy => Codec::Snappy,
        },
        ..ProducerConfig::default()
    }
}

/// Standard input in pieces; an empty piece never comes, the end closes the channel.
fn read_input() -> Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = sync_channel(READS_WAITING);
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        loop {
            let mut piece = vec![0; READ_BYTES];
            let message = match input.read(&mut piece) {
                Ok(0) => return,
                Ok(bytes) => {
                    piece.truncate(bytes);
                    Ok(piece)
                }
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
                Err(cause) => Err(cause),
            };
            let last = message.is_err();
            if sender.send(message).is_err() || last {
                return;
            }
        }
    });
    receiver
}

/// The failure with the line of input that it is about.
fn at_line(line: u64, failure: Failure) -> Failure {
    Failure { message: format!("line {line}: {}", failure.message), ..failure }
}

struct Sending<'a> {
    producer: Producer,
    options: &'a Produce,
    format: Format,
    headers: Vec<(&'a str, &'a [u8])>,
    marks: Option<&'a MessageMarks>,
    tally: Tally,
    /// Sentences told so far, without their line: a lost connection fails many records alike.
    told: BTreeSet<String>,
    /// Somebody ends the program.
    stop: Stop,
    /// Why the rest of the input is not read.
    fatal: Option<Failure>,
    /// When progress was shown last.
    shown: Instant,
}

/// The rest of the input would fail alike; `fatal` says why.
struct Fatal;

impl Sending<'_> {
    /// Sends all input and waits for the answers.
    fn all(&mut self, started: Instant, timeout: Duration) -> Result<(), Failure> {
        let input = read_input();
        let mut cutter = LineCutter::default();
        let read = loop {
            if self.fatal.is_some() || self.stop.is_wanted() {
                break Ok(());
            }
            let piece = match input.try_recv() {
                Ok(piece) => piece,
                Err(TryRecvError::Disconnected) => break Ok(()),
                // Nothing to send: answers while some are due, then input.
                Err(TryRecvError::Empty) if self.producer.outstanding() > 0 => {
                    self.poll(ANSWER_WAIT);
                    continue;
                }
                Err(TryRecvError::Empty) => match input.recv_timeout(INPUT_WAIT) {
                    Ok(piece) => piece,
                    Err(RecvTimeoutError::Disconnected) => break Ok(()),
                    Err(RecvTimeoutError::Timeout) => {
                        self.poll(Duration::ZERO); // keeps the connections alive
                        continue;
                    }
                },
            };
            let piece = match piece {
                Ok(piece) => piece,
                Err(cause) => {
                    break Err(Failure::local("input", format!("standard input cannot be read: {cause}; the lines before were sent")));
                }
            };
            match cutter.feed(&piece, |line| self.send(line)) {
                Ok(Ok(())) => {}
                Ok(Err(LineTooLong)) => {
                    let line = self.tally.records + 1;
                    break Err(Failure::local(
                        "input",
                        format!("line {line} has more than {LINE_BYTES_MAX} bytes; split it (the lines before were sent)"),
                    ));
                }
                Err(Fatal) => break Ok(()),
            }
            self.poll(Duration::ZERO);
            self.progress(started);
        };
        if read.is_ok()
            && self.fatal.is_none()
            && !self.stop.is_wanted() // a line may be half there then
            && let Some(line) = cutter.finish()
        {
            // Stopping after the last line changes nothing.
            let _ = self.send(&line);
        }
        self.finish(started, timeout);
        read
    }

    /// Waits until the fate of each record is known. The client ends each within the request's time; should that fail, a second
    /// more without any answer ends the waiting, and what is left counts as failed.
    fn finish(&mut self, started: Instant, timeout: Duration) {
        let mut last_answer = Instant::now();
        while self.producer.outstanding() > 0 && last_answer.elapsed() < timeout + Duration::from_secs(1) {
            let before = self.producer.outstanding();
            // An error here is "not yet all"; the deliveries tell the rest.
            let _ = self.producer.flush(FLUSH_STEP);
            self.take_answers();
            if self.producer.outstanding() < before {
                last_answer = Instant::now();
            }
            self.progress(started);
        }
        self.take_answers();
        let left = self.producer.outstanding() as u64;
        if left > 0 {
            self.tally.failed += left;
            let sentence = format!("{left} records had no answer; they may or may not be stored, read the topic before sending them again");
            self.tell(None, Failure::local("timed_out", sentence));
        }
    }

    /// One line becomes one record.
    fn send(&mut self, line: &[u8]) -> Result<(), Fatal> {
        self.tally.records += 1;
        let key = match (self.options.key_field, &self.options.key) {
            (Some(number), _) => match field(line, number, &self.options.delimiter.0) {
                Ok(key) => Some(key),
                Err(fields) => {
                    self.tally.failed += 1;
                    let sentence = format!("the line ends with field {fields}, --key-field {number} is not there; it was not sent");
                    self.tell(Some(self.tally.records), Failure::local("input", sentence));
                    return Ok(());
                }
            },
            (None, key) => key.as_ref().map(|key| key.as_bytes()),
        };
        let record = Record {
            topic: &self.options.topic,
            partition: self.options.partition,
            key,
            value: Some(line),
            headers: &self.headers,
            attributes: self.marks.map(MessageMarks::attributes).unwrap_or_default(),
            timestamp_us: None,
            tag: self.tally.records,
        };
        let Err(error) = self.producer.send(&record) else { return Ok(()) };
        self.tally.failed += 1;
        let line = self.tally.records;
        if is_record_fault(&error) {
            self.tell(Some(line), error.into());
            return Ok(());
        }
        let failure = at_line(line, error.into());
        self.fatal = Some(failure);
        Err(Fatal)
    }

    fn poll(&mut self, wait: Duration) {
        if let Err(error) = self.producer.poll(wait) {
            self.fatal.get_or_insert(error.into());
        }
        self.take_answers();
    }

    fn take_answers(&mut self) {
        let mut failures = Vec::new();
        let is_told = self.marks.is_some();
        let (tally, fatal, told) = (&mut self.tally, &mut self.fatal, &mut self.told);
        self.producer.drain(|delivery| {
            let Some(error) = delivery.error else {
                // Level none has no acknowledgement: such a record was sent, and nobody knows more.
                tally.acked += u64::from(delivery.level != tramline_client::Level::None);
                if let Some(offset) = delivery.offset.filter(|_| is_told && tally.places.len() < PLACES_TOLD) {
                    tally.places.push((delivery.tag, delivery.partition, offset));
                }
                return;
            };
            tally.failed += 1;
            let failure = Failure::from(error.clone());
            if told.len() < FAILURES_TOLD && told.insert(failure.message.clone()) {
                let fault = is_record_fault(&SendError::Client(error.clone()));
                let failure = at_line(delivery.tag, failure);
                if fault || fatal.is_some() {
                    failures.push(failure);
                } else {
                    *fatal = Some(failure); // told when all is done
                }
            }
        });
        for failure in failures {
            eprint!("{}", failure.render(self.format));
        }
    }

    /// Tells the first few different failures on standard error, one line each.
    fn tell(&mut self, line: Option<u64>, failure: Failure) {
        if self.told.len() < FAILURES_TOLD && self.told.insert(failure.message.clone()) {
            let failure = line.map_or(failure.clone(), |line| at_line(line, failure));
            eprint!("{}", failure.render(self.format));
        }
    }

    /// A line per second on standard error, for people only.
    fn progress(&mut self, started: Instant) {
        if self.format == Format::Table && self.shown.elapsed() >= Duration::from_secs(1) && io::stderr().is_terminal() {
            self.shown = Instant::now();
            eprintln!("{:.0} s: {} records read, {} acknowledged", started.elapsed().as_secs_f64(), self.tally.records, self.tally.acked);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_the_four_names_scripts_rely_on() {
        let tally = Tally { records: 5, acked: 3, failed: 2, places: vec![(3, 1, 9), (1, 0, 7), (2, 1, 8)] };
        assert_eq!(tally.json(1.23456), json!({"records": 5, "acked": 3, "failed": 2, "seconds": 1.235}));
        assert_eq!(tally.text(2.5), "5 records, 3 acknowledged, 2 failed, 2.500 s, 2 records/s\n");
        assert_eq!(tally.places_text(), "0:7\n1:8\n1:9\n");
        assert_eq!(tally.places_json(1.0)["messages"], json!(["0:7", "1:8", "1:9"]));
        assert!(Tally::default().text(0.0).contains("0 records/s"));
    }
}
