//! Messages that consumers of queues have sent: what each carries, where it went, and which of them are duplicates.
//!
//! Checked: a message is at one place, with its bytes; nothing is there that was not sent, or that was part of a step that certainly was not taken.
//!
//! Not here: what queues do with them (`queue_truth.rs`).

use super::history::{is_value_of, value_of};
use super::{Check, UTC_START_US};
use std::collections::{BTreeMap, BTreeSet};
use tramline_wire::batch::{Attributes, BatchBuilder, NewRecord};

/// Longest filling of a message.
const VALUE_BYTES_MAX: u64 = 60;

/// What a message was given for queues.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wishes {
    pub(super) deliver_at_us: Option<i64>,
    pub(super) priority: Option<u8>,
    pub(super) ttl_ms: Option<u32>,
    pub(super) group: Option<u8>,
    pub(super) id: Option<u16>,
}

/// A message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) partition: u64,
    pub(super) timestamp_us: i64,
    pub(super) sent_us: u64,
    pub(super) wishes: Wishes,
    pub(super) offset: Option<u64>,
    /// When the node appended it, by its clock.
    append_us: i64,
    /// When it was known to be durable: acknowledged, or read.
    pub(super) known_us: Option<u64>,
    /// The step that it is part of.
    pub(super) step: Option<usize>,
}

impl Record {
    /// When it was appended, by the node's clock.
    pub(super) fn appended_us(&self) -> i64 {
        self.append_us
    }
}

/// What is known of one partition.
#[derive(Debug, Default)]
struct Log {
    /// Numbers of messages.
    by_offset: BTreeMap<u64, u64>,
    read_to: u64,
    /// Something was gone before it was read.
    has_gap: bool,
    /// By message group, in order of offset.
    groups: BTreeMap<u8, Vec<u64>>,
    /// Groups of which some message has a time to live.
    mortal_groups: u64,
    /// How often each message id was sent.
    ids: BTreeMap<u16, u32>,
    /// The highest offset to which somebody asked to trim.
    trim_asked: u64,
    /// Ids of messages that may be gone with it.
    trimmed_ids: BTreeSet<u16>,
    /// Offsets to which it was trimmed, and since when that is known.
    trimmed: Vec<(u64, u64)>,
}

/// Whether a message is of a queue, by where the queue begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Within {
    Yes,
    No,
    Perhaps,
}

/// What message ids say of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    First,
    Duplicate,
    Unknown,
}

/// See the module. Messages are numbered from 1.
#[derive(Default)]
pub(super) struct Records {
    list: Vec<Record>,
    logs: BTreeMap<u64, Log>,
    scratch: Vec<u8>,
}

impl Records {
    pub(super) fn get(&self, number: u64) -> &Record {
        &self.list[number as usize - 1]
    }

    /// Numbers that the next messages get.
    pub(super) fn next(&self) -> u64 {
        self.list.len() as u64 + 1
    }

    /// A message goes into a batch.
    pub(super) fn push(&mut self, builder: &mut BatchBuilder, record: Record) {
        let (log, wishes) = (self.logs.entry(record.partition).or_default(), record.wishes);
        if let Some(id) = wishes.id {
            *log.ids.entry(id).or_default() += 1;
        }
        if let (Some(group), Some(_)) = (wishes.group, wishes.ttl_ms) {
            log.mortal_groups |= 1 << group;
        }
        let (group, id) = (wishes.group.map(|group| [b'g', group]), wishes.id.map(u16::to_le_bytes));
        let attributes = Attributes {
            deliver_at_us: wishes.deliver_at_us,
            priority: wishes.priority,
            ttl_ms: wishes.ttl_ms,
            group: group.as_ref().map(<[u8; 2]>::as_slice),
            message_id: id.as_ref().map(<[u8; 2]>::as_slice),
        };
        value_of(self.list.len() as u64 + 1, VALUE_BYTES_MAX, &mut self.scratch);
        let new = NewRecord { value: Some(&self.scratch), timestamp_us: record.timestamp_us, attributes, ..NewRecord::default() };
        builder.push(&new).expect("small records");
        self.list.push(record);
    }

    /// A message that is about to be sent.
    pub(super) fn new_record(partition: u64, now_us: u64, wishes: Wishes, step: Option<usize>) -> Record {
        let timestamp_us = UTC_START_US + now_us as i64;
        Record { partition, timestamp_us, sent_us: now_us, wishes, offset: None, append_us: 0, known_us: None, step }
    }

    /// A message is known to be stored.
    pub(super) fn on_stored(&mut self, uid: u64, offset: u64, number: u64, append_us: i64, now_us: u64) -> Check {
        let record = &mut self.list[number as usize - 1];
        let other = record.offset.replace(offset);
        record.append_us = append_us;
        record.known_us.get_or_insert(now_us);
        if let Some(other) = other.filter(|other| *other != offset) {
            return Err(format!("partition {uid}: message {number} is at offset {offset} and was at {other}"));
        }
        let log = self.logs.entry(uid).or_default();
        if offset < log.trim_asked {
            log.trimmed_ids.extend(record.wishes.id);
        }
        match log.by_offset.insert(offset, number) {
            Some(before) if before != number => {
                return Err(format!("partition {uid}: offset {offset} was message {before} and is message {number}"));
            }
            Some(_) => {}
            None => {
                if let Some(group) = record.wishes.group {
                    let offsets = log.groups.entry(group).or_default();
                    let at = offsets.partition_point(|known| *known < offset);
                    offsets.insert(at, offset);
                }
            }
        }
        Ok(())
    }

    /// A message was read or delivered. Answers its number.
    pub(super) fn on_seen(&mut self, uid: u64, offset: u64, value: &[u8], append_us: i64, now_us: u64) -> Result<u64, String> {
        let number = self.number_of(value).map_err(|error| format!("partition {uid}, offset {offset}: {error}"))?;
        let partition = self.get(number).partition;
        if partition != uid {
            return Err(format!("partition {uid}, offset {offset}: message {number} was sent to partition {partition}"));
        }
        self.on_stored(uid, offset, number, append_us, now_us)?;
        Ok(number)
    }

    /// The number of a message with these bytes.
    pub(super) fn number_of(&self, value: &[u8]) -> Result<u64, String> {
        let number = value.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let is_known = number > 0 && number < self.next() && is_value_of(number, VALUE_BYTES_MAX, value);
        if is_known { Ok(number) } else { Err(format!("{} bytes that nobody sent ({number})", value.len())) }
    }

    /// Everything from `from` to `to` was read, as far as it is there.
    pub(super) fn on_read(&mut self, uid: u64, from: u64, to: u64) {
        let log = self.logs.entry(uid).or_default();
        log.has_gap |= from > log.read_to;
        log.read_to = log.read_to.max(to);
    }

    /// Somebody asks to trim a partition. From then on there may be holes.
    pub(super) fn on_trim_sent(&mut self, uid: u64, before: u64) {
        let log = self.logs.entry(uid).or_default();
        let below =
            log.by_offset.range(log.trim_asked.min(before)..before).filter_map(|(_, number)| self.list[*number as usize - 1].wishes.id);
        log.trimmed_ids.extend(below.collect::<Vec<_>>());
        log.trim_asked = log.trim_asked.max(before);
        log.has_gap = true;
    }

    pub(super) fn is_id_trimmed(&self, uid: u64, id: u16) -> bool {
        self.logs.get(&uid).is_some_and(|log| log.trimmed_ids.contains(&id))
    }

    pub(super) fn on_trimmed(&mut self, uid: u64, before: u64, now_us: u64) {
        self.logs.entry(uid).or_default().trimmed.push((before, now_us));
    }

    pub(super) fn may_be_trimmed(&self, uid: u64, offset: u64) -> bool {
        self.logs.get(&uid).is_some_and(|log| offset < log.trim_asked)
    }

    /// Since when a message is known to be trimmed.
    pub(super) fn trimmed_us(&self, uid: u64, offset: u64) -> Option<u64> {
        let trimmed = &self.logs.get(&uid)?.trimmed;
        trimmed.iter().filter(|(before, _)| offset < *before).map(|(_, known_us)| *known_us).min()
    }

    pub(super) fn read_to(&self, uid: u64) -> u64 {
        self.logs.get(&uid).map_or(0, |log| log.read_to)
    }

    pub(super) fn at(&self, uid: u64, offset: u64) -> Option<&Record> {
        self.logs.get(&uid)?.by_offset.get(&offset).map(|number| self.get(*number))
    }

    /// Messages of a partition from `from` on whose place is known, in order.
    pub(super) fn stored(&self, uid: u64, from: u64) -> impl Iterator<Item = (u64, &Record)> {
        let of_log = self.logs.get(&uid).into_iter();
        of_log.flat_map(move |log| log.by_offset.range(from..)).map(|(offset, number)| (*offset, self.get(*number)))
    }

    /// Offsets of the messages of a group below `to`.
    pub(super) fn of_group(&self, uid: u64, group: u8) -> &[u64] {
        self.logs.get(&uid).and_then(|log| log.groups.get(&group)).map_or(&[], Vec::as_slice)
    }

    /// Whether some message of a group has a time to live, so that the next one may come out at any moment.
    pub(super) fn is_mortal(&self, uid: u64, group: u8) -> bool {
        self.logs.get(&uid).is_some_and(|log| log.mortal_groups & 1 << group != 0)
    }

    /// Whether another message of the partition was sent with the id of this one.
    pub(super) fn may_be_duplicate(&self, record: &Record) -> bool {
        record.wishes.id.is_some_and(|id| self.logs[&record.partition].ids[&id] > 1)
    }

    /// What message ids say of each message of a partition, in a queue with this window.
    pub(super) fn verdicts(&self, uid: u64, window_us: i64, within: impl Fn(&Record) -> Within) -> BTreeMap<u64, Verdict> {
        let mut verdicts = BTreeMap::new();
        let Some(log) = self.logs.get(&uid) else { return verdicts };
        // When each id came first, and whether that is certain.
        let mut first: BTreeMap<u16, (i64, bool)> = BTreeMap::new();
        let mut latest_us = i64::MIN;
        let mut stored: BTreeMap<u16, u32> = BTreeMap::new();
        for id in log.by_offset.values().filter_map(|number| self.get(*number).wishes.id) {
            *stored.entry(id).or_default() += 1;
        }
        for (offset, number) in &log.by_offset {
            let record = self.get(*number);
            if record.append_us < latest_us {
                // The clock went back: what was forgotten by the later one is not known.
                first.values_mut().for_each(|(_, certain)| *certain = false);
            }
            latest_us = latest_us.max(record.append_us);
            let Some(id) = record.wishes.id.filter(|_| window_us > 0) else { continue };
            let (at_us, within) = (record.append_us, within(record));
            if within == Within::No {
                continue;
            }
            let is_open = log.has_gap && stored[&id] < log.ids[&id];
            let before = first.get(&id).filter(|(first_us, _)| at_us - first_us < window_us).copied();
            // With the first one its id may be forgotten.
            let before = before.map(|(first_us, certain)| (first_us, certain && !log.trimmed_ids.contains(&id)));
            let verdict = match before {
                _ if within == Within::Perhaps || is_open => Verdict::Unknown,
                None => Verdict::First,
                Some((_, true)) => Verdict::Duplicate,
                Some((_, false)) => Verdict::Unknown,
            };
            verdicts.insert(*offset, verdict);
            if verdict != Verdict::Duplicate {
                // Of two that may have been the first, the later one counts for longer: after a jump back it may be the one before.
                let since_us = before.map_or(at_us, |(before_us, _)| before_us.max(at_us));
                first.insert(id, (since_us, verdict == Verdict::First));
            }
        }
        verdicts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tramline_wire::batch::Limits;

    /// Messages with ids and times, all stored in partition 1 in this order.
    fn stored(list: &[(u16, i64)]) -> Records {
        let (mut records, mut builder) = (Records::default(), BatchBuilder::new(Limits::default()));
        for (offset, (id, append_us)) in list.iter().enumerate() {
            let wishes = Wishes { id: Some(*id), ..Wishes::default() };
            records.push(&mut builder, Records::new_record(1, 0, wishes, None));
            records.on_stored(1, offset as u64, offset as u64 + 1, *append_us, 1).unwrap();
        }
        records
    }

    #[test]
    fn the_window_begins_with_the_first_and_is_exact() {
        let records = stored(&[(7, 1000), (7, 1099), (7, 1100), (8, 1150), (7, 1199), (7, 1200)]);
        let verdicts: Vec<Verdict> = records.verdicts(1, 100, |_| Within::Yes).into_values().collect();
        use Verdict::{Duplicate, First};
        assert_eq!(verdicts, [First, Duplicate, First, First, Duplicate, First]);
    }

    #[test]
    fn what_is_not_certain_is_not_judged() {
        let records = stored(&[(7, 1000), (8, 900), (7, 1050), (7, 1150)]);
        let verdicts: Vec<Verdict> = records.verdicts(1, 100, |_| Within::Yes).into_values().collect();
        use Verdict::{First, Unknown};
        assert_eq!(verdicts, [First, First, Unknown, First], "the clock went back");
        let perhaps = |record: &Record| if record.offset < Some(1) { Within::Perhaps } else { Within::Yes };
        let verdicts: Vec<Verdict> = stored(&[(7, 1000), (7, 1050)]).verdicts(1, 100, perhaps).into_values().collect();
        assert_eq!(verdicts, [Unknown, Unknown]);
    }

    #[test]
    fn a_message_is_at_one_place() {
        let mut records = stored(&[(7, 1000), (8, 1001)]);
        assert!(records.on_stored(1, 2, 1, 1000, 1).is_err() && records.on_stored(1, 1, 1, 1000, 1).is_err());
        assert!(records.on_seen(1, 5, b"nobody sent this", 1, 1).is_err());
    }
}
