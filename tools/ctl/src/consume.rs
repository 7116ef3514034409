//! `consume`: reads partitions and prints their records.
//!
//! Invariants: what is printed of one partition is in order of offset; `--until-end` prints nothing at or behind the end as it
//! was when reading started, `--count` nothing behind the last counted record; output is flushed when nothing more is there,
//! so that a person following a topic sees each record at once and a pipe gets large writes. A partition that cannot be read on
//! is told and the others go on; the exit code is 1 then.
//! Not here: the form of a record (`print.rs`).

use crate::args::{Consume, Format, Global, Print};
use crate::failure::Failure;
use crate::output::written;
use crate::print::{Printed, print};
use crate::start::From;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::time::Duration;
use tramline_client::{Client, Consumer, ConsumerConfig, Error, RecordView, Start};

/// Bytes collected for one write to standard output.
const OUTPUT_BYTES: usize = 64 * 1024;
/// One wait for records, when there is nothing to flush.
pub const WAIT: Duration = Duration::from_millis(500);

/// When to stop, and which records are still wanted.
#[derive(Debug)]
struct Wanted {
    /// Records left to print; none without `--count`.
    left: Option<u64>,
    /// Ends of the partitions that are not there yet; none without `--until-end`.
    ends: Option<BTreeMap<u32, u64>>,
}

impl Wanted {
    /// Whether this record is to be printed; counts it.
    fn take(&mut self, partition: u32, offset: u64) -> bool {
        if let Some(ends) = &self.ends
            && ends.get(&partition).is_none_or(|end| offset >= *end)
        {
            return false;
        }
        match &mut self.left {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

    /// Partitions whose end is reached, by their positions; they are not asked for again.
    fn reached(&mut self, position: impl Fn(u32) -> Option<u64>) -> Vec<u32> {
        let Some(ends) = &mut self.ends else { return Vec::new() };
        let reached: Vec<u32> = ends
            .iter()
            .filter(|(partition, end)| position(**partition).is_some_and(|at| at >= **end))
            .map(|(partition, _)| *partition)
            .collect();
        ends.retain(|partition, _| !reached.contains(partition));
        reached
    }

    /// Nothing more will come of this partition.
    fn give_up(&mut self, partition: u32) {
        if let Some(ends) = &mut self.ends {
            ends.remove(&partition);
        }
    }

    fn done(&self) -> bool {
        self.left == Some(0) || self.ends.as_ref().is_some_and(BTreeMap::is_empty)
    }
}

/// The partitions to read, each once: those asked for, or all.
pub fn partitions(topic: &str, asked: &[u32], count: u32) -> Result<Vec<u32>, Failure> {
    if let Some(&missing) = asked.iter().find(|partition| **partition >= count) {
        return Err(Failure::no_partition(topic, missing, count));
    }
    let mut wanted = if asked.is_empty() { (0..count).collect() } else { asked.to_vec() };
    wanted.sort_unstable();
    wanted.dedup();
    Ok(wanted)
}

/// Where the client starts.
fn start(from: From) -> Start {
    match from {
        From::Earliest => Start::Earliest,
        From::Latest => Start::Latest,
        From::Offset(offset) => Start::Offset(offset),
        From::Time(micros) => Start::Time(micros),
    }
}

/// What is printed of each record.
pub fn how(asked: Option<Print>, global: &Global) -> Print {
    asked.unwrap_or(if global.format == Format::Json { Print::Json } else { Print::Value })
}

/// Runs the verb.
pub fn run(client: &Client, global: &Global, options: &Consume) -> Result<(), Failure> {
    let topic = options.topic.as_str();
    let ends = client.end_offsets(topic)?;
    let read = partitions(topic, &options.partitions, ends.len() as u32)?;
    let ends =
        options.until_end.then(|| ends.iter().filter(|end| read.contains(&end.partition)).map(|end| (end.partition, end.offset)).collect());
    let mut wanted = Wanted { left: options.count, ends };
    let mut consumer = client.consumer(ConsumerConfig::default())?;
    consumer.assign_many(topic, &read, start(options.from))?;
    // Partitions that have nothing before their end are not even asked for.
    stop_at_ends(&mut consumer, topic, &mut wanted);
    let how = how(options.print, global);
    let mut output = Output::new();
    let mut last_failure = None;
    while !wanted.done() && consumer.assigned().next().is_some() {
        // Wait only when everything read is on its way; otherwise look whether more is there, and flush when not.
        let wait = if output.buffer.is_empty() { WAIT } else { Duration::ZERO };
        let result = consumer.poll_until(wait, |record| {
            if wanted.take(record.partition, record.offset) {
                output.record(record, None, how);
            }
            if output.has_failed() || wanted.left == Some(0) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        output.check()?;
        match result {
            Ok(0) => output.flush()?,
            Ok(_) => {}
            Err(error) => {
                output.flush()?;
                last_failure = Some(partition_failed(&mut consumer, topic, &mut wanted, error, global.format)?);
            }
        }
        stop_at_ends(&mut consumer, topic, &mut wanted);
    }
    output.flush()?;
    match last_failure {
        // Told above already; this line says what it means for the whole.
        Some(failure) => Err(Failure { message: "not all partitions could be read; see above".to_owned(), ..failure }),
        None => Ok(()),
    }
}

/// One partition failed: told, and given up when it will not heal. Any other error ends the reading.
fn partition_failed(consumer: &mut Consumer, topic: &str, wanted: &mut Wanted, error: Error, format: Format) -> Result<Failure, Failure> {
    let partition = match &error {
        Error::Partition { partition, .. } | Error::Corrupt { partition, .. } => *partition,
        _ => return Err(error.into()),
    };
    let heals = error.retriable();
    let failure = Failure::from(error);
    eprint!("{}", failure.render(format));
    if !heals {
        wanted.give_up(partition);
        consumer.unassign(topic, partition);
    }
    Ok(failure)
}

/// Ends the reading of partitions that are at their end.
fn stop_at_ends(consumer: &mut Consumer, topic: &str, wanted: &mut Wanted) {
    for partition in wanted.reached(|partition| consumer.position(topic, partition)) {
        consumer.unassign(topic, partition);
    }
}

/// Standard output with a buffer that is flushed by hand.
pub struct Output<'a> {
    out: io::StdoutLock<'a>,
    buffer: Vec<u8>,
    /// A write failed inside the reader's callback, which cannot return an error.
    failed: Option<Failure>,
}

impl Output<'_> {
    /// Takes standard output.
    pub fn new() -> Output<'static> {
        Output { out: io::stdout().lock(), buffer: Vec::with_capacity(OUTPUT_BYTES * 2), failed: None }
    }

    /// Prints a record, sooner or later. `topic`: where several may be read.
    pub fn record(&mut self, record: &RecordView<'_>, topic: Option<&str>, how: Print) {
        let headers = record.headers.map(|header| (header.name, header.value)).collect();
        let printed = Printed {
            topic,
            partition: record.partition,
            offset: record.offset,
            timestamp_us: record.timestamp_us,
            key: record.key,
            value: record.value,
            headers,
        };
        print(&printed, how, &mut self.buffer);
        self.write_if_full();
    }

    /// Whether a write failed: no more records are of use.
    pub fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    fn write_if_full(&mut self) {
        if self.buffer.len() >= OUTPUT_BYTES
            && let Err(failure) = self.write()
        {
            self.failed = Some(failure);
        }
    }

    fn write(&mut self) -> Result<(), Failure> {
        let result = written(self.out.write_all(&self.buffer));
        self.buffer.clear();
        result
    }

    /// Writes what is kept.
    pub fn flush(&mut self) -> Result<(), Failure> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.write()?;
        written(self.out.flush())
    }

    /// The failure of a write, if one failed.
    pub fn check(&mut self) -> Result<(), Failure> {
        self.failed.take().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_prints_so_many_and_no_more() {
        let mut wanted = Wanted { left: Some(2), ends: None };
        assert!(wanted.take(0, 0) && !wanted.done() && wanted.take(1, 0));
        assert!(wanted.done() && !wanted.take(0, 1));
        assert!(Wanted { left: Some(0), ends: None }.done());
    }

    #[test]
    fn until_end_stops_each_partition_at_its_end() {
        let mut wanted = Wanted { left: None, ends: Some([(0, 2), (3, 5)].into()) };
        assert!(wanted.take(0, 0) && wanted.take(0, 1) && !wanted.take(0, 2), "the end is not included");
        assert!(wanted.take(3, 4) && !wanted.take(1, 0), "a partition that was empty at the start gives nothing");
        assert_eq!(wanted.reached(|partition| Some(if partition == 0 { 2 } else { 4 })), [0]);
        assert!(!wanted.done() && !wanted.take(0, 1));
        assert_eq!(wanted.reached(|_| None), Vec::<u32>::new());
        assert_eq!(wanted.reached(|_| Some(9)), [3], "offsets may have holes at the end");
        assert!(wanted.done());
    }

    #[test]
    fn until_end_of_nothing_is_done_at_once() {
        assert!(Wanted { left: None, ends: Some(BTreeMap::new()) }.done());
        let mut wanted = Wanted { left: None, ends: Some([(0, 2)].into()) };
        wanted.give_up(0);
        assert!(wanted.done());
    }

    #[test]
    fn without_limits_it_follows() {
        let mut wanted = Wanted { left: None, ends: None };
        assert!(wanted.take(0, u64::MAX) && !wanted.done() && wanted.reached(|_| Some(9)).is_empty());
    }

    #[test]
    fn each_partition_is_read_once_and_must_exist() {
        assert_eq!(partitions("t", &[], 3), Ok(vec![0, 1, 2]));
        assert_eq!(partitions("t", &[2, 0, 2], 3), Ok(vec![0, 2]));
        assert_eq!(partitions("t", &[3], 3).unwrap_err().code, "unknown_partition");
    }
}
