//! Records of a topic: written, then read back from its beginning.
//!
//! Not here: sending (`sender.rs`).

use crate::sender::{Place, number_of, send};
use crate::{Args, END_WAIT, Failure};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tramline_client::{Client, ConsumerConfig, Start};

/// How long a partition that may not be readable gets.
const PARTITION_WAIT: Duration = Duration::from_secs(10);

/// What a topic has.
#[derive(Default)]
struct Found {
    /// By number: partition and offset.
    places: HashMap<u64, (u32, u64)>,
    /// By partition: the number that was read last.
    last: HashMap<u32, u64>,
    doubled: u64,
    wrong: u64,
    disordered: u64,
}

impl Found {
    fn take(&mut self, partition: u32, offset: u64, value: Option<&[u8]>) {
        let Some(number) = number_of(value) else {
            eprintln!("tramline-witness: record {offset} of partition {partition} has bytes that nobody wrote");
            self.wrong += 1;
            return;
        };
        if let Some(before) = self.places.insert(number, (partition, offset)) {
            eprintln!("tramline-witness: record {number} is at {before:?} and at {:?}", (partition, offset));
            self.doubled += 1;
        }
        if self.last.insert(partition, number).is_some_and(|last| last > number) {
            eprintln!("tramline-witness: record {number} of partition {partition}, at {offset}, comes behind a later one");
            self.disordered += 1;
        }
    }

    /// Acknowledged records that are not where they have to be, in partitions that were read.
    fn lost(&self, acked: &HashMap<u64, Place>, unread: &[u32]) -> u64 {
        let is_lost = |number: &u64, (partition, offset): &Place| match self.places.get(number) {
            Some(found) => found.0 != *partition || offset.is_some_and(|offset| offset != found.1),
            None => !unread.contains(partition),
        };
        let lost: Vec<_> = acked.iter().filter(|(number, place)| is_lost(number, place)).collect();
        lost.iter().take(20).for_each(|(number, place)| eprintln!("tramline-witness: record {number}, acknowledged at {place:?}, is lost"));
        lost.len() as u64
    }

    fn is_right(&self) -> bool {
        self.doubled == 0 && self.wrong == 0 && self.disordered == 0
    }
}

/// Writes until `ends`, then reads back.
pub fn run(client: &Client, args: &Args, ends: &AtomicBool) -> Result<(String, bool), Failure> {
    let told = send(client, args, ends)?;
    let mut consumer = client.consumer(ConsumerConfig::default())?;
    consumer.assign_all(&args.topic, Start::Earliest)?;
    let mut found = Found::default();
    consumer.read_to_end(END_WAIT, |record| found.take(record.partition, record.offset, record.value))?;
    let lost = found.lost(&told.acked, &[]);
    let Found { doubled, wrong, disordered, .. } = found;
    let (sent, acked, failed) = (told.sent, told.acked.len(), told.failed);
    let line = format!("sent={sent} acked={acked} failed={failed} lost={lost} doubled={doubled} wrong={wrong} disordered={disordered}");
    Ok((line, lost == 0 && found.is_right()))
}

/// Compares what can be read with what another witness noted.
pub fn check(client: &Client, topic: &str, acks: &Path) -> Result<(String, bool), Failure> {
    let acked = read_acks(&std::fs::read_to_string(acks)?)?;
    let partitions: Vec<u32> = client.describe_topic(topic)?.partitions.iter().map(|partition| partition.index).collect();
    let (mut found, mut unread) = (Found::default(), Vec::new());
    for partition in partitions {
        let mut consumer = client.consumer(ConsumerConfig::default())?;
        consumer.assign(topic, partition, Start::Earliest)?;
        if let Err(error) = consumer.read_to_end(PARTITION_WAIT, |record| found.take(record.partition, record.offset, record.value)) {
            eprintln!("tramline-witness: partition {partition} cannot be read to its end: {error}");
            unread.push(partition);
        }
    }
    let lost = found.lost(&acked, &unread);
    let Found { doubled, wrong, disordered, .. } = found;
    let (acked, unread) = (acked.len(), unread.len());
    let line = format!("acked={acked} lost={lost} doubled={doubled} wrong={wrong} disordered={disordered} unread={unread}");
    Ok((line, lost == 0 && found.is_right()))
}

/// What stands in a file of acknowledgements; its last line may be half written.
fn read_acks(text: &str) -> Result<HashMap<u64, Place>, Failure> {
    let mut acked = HashMap::new();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for line in whole.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let [_, partition, number, offset] = words[..] else { return Err(format!("no acknowledgement: {line:?}").into()) };
        let offset = if offset == "-" { None } else { Some(offset.parse()?) };
        acked.insert(number.parse()?, (partition.parse()?, offset));
    }
    Ok(acked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sender::value_of;

    #[test]
    fn what_is_missing_moved_doubled_wrong_or_out_of_order_is_seen() {
        let mut found = Found::default();
        for (offset, number) in [(0, 1), (1, 3), (2, 2), (3, 3)] {
            found.take(0, offset, Some(&value_of(number)));
        }
        let mut flipped = value_of(4);
        flipped[100] ^= 1;
        found.take(0, 4, Some(&flipped));
        found.take(0, 5, None);
        assert_eq!((found.doubled, found.disordered, found.wrong, found.is_right()), (1, 1, 2, false));
        let acked = read_acks("10 0 1 0\n11 0 2 -\n12 0 3 1\n13 0 5 6\n14 1 6 0\n15 0").expect("acknowledgements");
        assert_eq!(acked.len(), 5);
        // 3 is found elsewhere than it was said to be, 5 is nowhere, 6 is in a partition that was not read.
        assert_eq!((found.lost(&acked, &[]), found.lost(&acked, &[1])), (3, 2));
    }

    #[test]
    fn what_is_whole_is_right() {
        let mut found = Found::default();
        (0..10).for_each(|number| found.take(number as u32 % 2, number / 2, Some(&value_of(number))));
        let acked: HashMap<u64, Place> = (0..10).map(|number| (number, (number as u32 % 2, Some(number / 2)))).collect();
        assert_eq!((found.lost(&acked, &[]), found.is_right()), (0, true));
    }
}
