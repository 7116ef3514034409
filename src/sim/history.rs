//! What clients sent, were told and have read, and what follows from it. Each check costs a look-up or two.
//!
//! Checked: what was acknowledged at `leader_durable` or above is there once, in order, with the bytes sent, or is told as damaged where the
//! disk was made to decay; nothing is read that was not sent; an offset that was acknowledged or seen never means something else; committed
//! ends never go back; what an acknowledged trim dropped never comes back, and no start moves up further than trims and retention can
//! have moved it; pipelined requests of one connection keep their order.
//!
//! Not here: who sends and reads (`clients.rs`).

use super::Check;
use std::collections::BTreeMap;

/// Offsets from here on are none: no run sends as many records, or loses room for as many.
const OFFSETS_MAX: u64 = 1 << 26;
/// Acknowledged places that are remembered of one connection or producer and partition. Those under way are eight at most.
const ORDER_MAX: usize = 64;
/// Record 0 is none.
const NONE: u64 = 0;

/// Length and filling of record `id`.
fn shape_of(id: u64, bytes_max: u64) -> (usize, u8) {
    let mixed = id.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (8 + (mixed >> 33) as usize % (bytes_max as usize + 1), (mixed >> 24) as u8)
}

/// The bytes of record `id`: its number, and a filling that follows from it.
pub(super) fn value_of(id: u64, bytes_max: u64, out: &mut Vec<u8>) {
    let (len, filling) = shape_of(id, bytes_max);
    out.clear();
    out.extend_from_slice(&id.to_le_bytes());
    out.resize(len, filling);
}

/// Whether these are the bytes of record `id`, without making them.
pub(super) fn is_value_of(id: u64, bytes_max: u64, value: &[u8]) -> bool {
    let (len, filling) = shape_of(id, bytes_max);
    let Some((number, rest)) = value.split_first_chunk::<8>() else { return false };
    // Every byte is looked at: the first of the filling, and each next one against the one before, which memcmp does fastest.
    let is_filling = rest.first().is_none_or(|first| *first == filling && rest[1..] == rest[..rest.len() - 1]);
    value.len() == len && u64::from_le_bytes(*number) == id && is_filling
}

/// A record that was sent.
#[derive(Clone, Copy)]
struct Sent {
    partition: u64,
    /// Where it was acknowledged or seen.
    place: Option<u64>,
}

/// Where a partition begins and ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) start: u64,
    pub(super) committed: u64,
    /// What is below was trimmed, and that was acknowledged.
    pub(super) trimmed: u64,
}

/// What is known of one partition.
#[derive(Default)]
struct Partition {
    /// Records by offset that must stay: acknowledged, or seen by a consumer of an ordinary topic. `NONE` where there is none.
    kept: Vec<u64>,
    ends: Ends,
    /// The highest offset that anybody asked to trim to, answered or not.
    trim_asked: u64,
    damaged: Vec<(u64, u64)>,
    /// Consumers see records before they are durable, so what they saw may vanish.
    shows_early: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct History {
    partitions: BTreeMap<u64, Partition>,
    /// By record; they are numbered from 1 without holes.
    sent: Vec<Sent>,
    /// Acknowledged places by connection and partition: number of the request and offset, in order of sending.
    order: BTreeMap<(u64, u64), Vec<(u64, u64)>>,
    pub(super) value_bytes_max: u64,
    /// Topics have a retention: starts move up by themselves.
    pub(super) retains: bool,
    /// The disk was made to decay: damage may be told.
    pub(super) decayed: bool,
    /// A read of this process has failed: what it was for is told as damaged until the next start.
    pub(super) read_failed: bool,
}

/// One partition's records, looked up once for many of them.
pub(super) struct Records<'a> {
    uid: u64,
    /// None of a topic that is deleted.
    partition: Option<&'a mut Partition>,
    sent: &'a mut [Sent],
    value_bytes_max: u64,
}

impl Records<'_> {
    fn keep(&mut self, offset: u64, id: u64, how: &str) -> Check {
        let uid = self.uid;
        let Some(partition) = &mut self.partition else { return Ok(()) };
        if offset >= OFFSETS_MAX {
            return Err(format!("partition {uid}: record {id} is {how} at offset {offset}, and so many were never sent"));
        }
        if partition.kept.len() as u64 <= offset {
            partition.kept.resize(offset as usize + 1, NONE);
        }
        let other = std::mem::replace(&mut partition.kept[offset as usize], id);
        if other != NONE && other != id {
            return Err(format!("partition {uid}: offset {offset} was record {other} and is now {how} as record {id}"));
        }
        match self.sent[id as usize - 1].place.replace(offset) {
            Some(other) if other != offset => Err(format!("partition {uid}: record {id} is {how} at offset {offset} and was at {other}")),
            _ => Ok(()),
        }
    }

    /// A consumer was given a record.
    pub(super) fn on_read(&mut self, offset: u64, value: &[u8]) -> Check {
        let uid = self.uid;
        let Some(id) = value.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes)) else {
            return Err(format!("partition {uid}: offset {offset} holds {} bytes that nobody sent", value.len()));
        };
        match id.checked_sub(1).and_then(|at| self.sent.get(at as usize)) {
            Some(sent) if sent.partition == uid => {}
            Some(sent) => return Err(format!("partition {uid}: offset {offset} holds record {id}, which was sent to {}", sent.partition)),
            None => return Err(format!("partition {uid}: offset {offset} holds record {id}, which nobody sent")),
        }
        if !is_value_of(id, self.value_bytes_max, value) {
            return Err(format!("partition {uid}: offset {offset}, record {id}: the bytes are not those that were sent"));
        }
        let is_kept = |partition: &Partition| partition.kept.get(offset as usize).is_some_and(|kept| *kept != NONE);
        if self.partition.as_ref().is_some_and(|p| p.shows_early && !is_kept(p)) {
            return Ok(());
        }
        self.keep(offset, id, "read")
    }
}

impl History {
    pub(super) fn add_partition(&mut self, uid: u64, shows_early: bool) {
        self.partitions.entry(uid).or_insert_with(|| Partition { shows_early, ..Partition::default() });
    }

    /// Whether consumers of the partition see records before they are durable.
    pub(super) fn shows_early(&self, uid: u64) -> bool {
        self.partitions.get(&uid).is_some_and(|partition| partition.shows_early)
    }

    pub(super) fn forget_partition(&mut self, uid: u64) {
        self.partitions.remove(&uid);
    }

    pub(super) fn on_sent(&mut self, uid: u64, id: u64) {
        assert_eq!(id, self.sent.len() as u64 + 1, "the simulator numbers records once, without holes");
        self.sent.push(Sent { partition: uid, place: None });
    }

    /// A produce was answered well. `sequence` is the request's number on its connection.
    pub(super) fn on_acked(
        &mut self,
        conn: u64,
        sequence: u64,
        uid: u64,
        base_offset: u64,
        ids: std::ops::Range<u64>,
        durable: bool,
    ) -> Check {
        let order = self.order.entry((conn, uid)).or_default();
        if order.len() >= ORDER_MAX {
            order.drain(..ORDER_MAX / 2);
        }
        // Mostly it is the newest one.
        let is_newest = order.last().is_none_or(|(number, _)| *number < sequence);
        let at = if is_newest { order.len() } else { order.partition_point(|(number, _)| *number < sequence) };
        let (before, after) = (at.checked_sub(1).map(|before| order[before]), order.get(at));
        if before.is_some_and(|(_, base)| base >= base_offset) || after.is_some_and(|(_, base)| *base <= base_offset) {
            return Err(format!("partition {uid}: request {sequence} got offset {base_offset}, out of order: {before:?}, {after:?}"));
        }
        order.insert(at, (sequence, base_offset));
        if !durable {
            return Ok(());
        }
        let mut records = self.records(uid);
        (base_offset..).zip(ids).try_for_each(|(offset, id)| records.keep(offset, id, "acknowledged"))
    }

    /// A connection is over: its requests have no order any more.
    pub(super) fn on_disconnected(&mut self, conn: u64) {
        let keys: Vec<_> = self.order.range((conn, 0)..=(conn, u64::MAX)).map(|(key, _)| *key).collect();
        keys.iter().for_each(|key| drop(self.order.remove(key)));
    }

    /// The process has ended: the next one reads anew what could not be read.
    pub(super) fn on_process_end(&mut self) {
        self.read_failed = false;
        if !self.decayed {
            self.partitions.values_mut().for_each(|partition| partition.damaged.clear());
        }
    }

    /// The records of one partition, to be compared with what is known of them.
    pub(super) fn records(&mut self, uid: u64) -> Records<'_> {
        Records { uid, partition: self.partitions.get_mut(&uid), sent: &mut self.sent, value_bytes_max: self.value_bytes_max }
    }

    /// Where a partition begins and ends, as far as anybody was told: whoever asks from now on is told no less.
    pub(super) fn ends(&self, uid: u64) -> Ends {
        self.partitions.get(&uid).map_or(Ends::default(), |p| p.ends)
    }

    /// A fetch that was sent when `floor` was known told where a partition begins and ends.
    pub(super) fn on_ends(&mut self, uid: u64, floor: Ends, told: Ends) -> Check {
        // Of a topic that was deleted while the answer was on its way nobody knows any more whether it showed records early.
        let Some(shows_early) = self.partitions.get(&uid).map(|partition| partition.shows_early) else { return Ok(()) };
        if told.committed < floor.committed && !shows_early {
            return Err(format!("partition {uid}: its end went back from {floor:?} to {told:?}"));
        }
        if told.start < self.never_below(floor) {
            return Err(format!("partition {uid}: it was trimmed to {}, and its start went back to {}", floor.trimmed, told.start));
        }
        if let Some(partition) = self.partitions.get_mut(&uid) {
            if told.start > partition.trim_asked && !self.retains {
                return Err(format!("partition {uid}: nobody trimmed it above {}, and it begins at {}", partition.trim_asked, told.start));
            }
            // The start may go back with a crash to what was trimmed: what retention dropped is there again, if it was not made durable.
            let committed = partition.ends.committed.max(told.committed);
            partition.ends = Ends { start: told.start, committed, ..partition.ends };
        }
        Ok(())
    }

    /// Below this nothing may be served to whoever asked when `floor` was known. A decaying disk can lose the word of a trim.
    pub(super) fn never_below(&self, floor: Ends) -> u64 {
        if self.decayed { 0 } else { floor.trimmed }
    }

    pub(super) fn on_trim_sent(&mut self, uid: u64, before: u64) {
        if let Some(partition) = self.partitions.get_mut(&uid) {
            // What is past the end is refused. The end can have grown until the request arrives, though not by as much as is asked too much.
            let possible = if before <= partition.ends.committed { before } else { 0 };
            partition.trim_asked = partition.trim_asked.max(possible);
        }
    }

    /// A trim is acknowledged: from now on nobody is served what is below.
    pub(super) fn on_trimmed(&mut self, uid: u64, before: u64) {
        if let Some(partition) = self.partitions.get_mut(&uid) {
            partition.ends.trimmed = partition.ends.trimmed.max(before);
        }
    }

    /// A trim was refused because the partition ends before: that has to fit what is known of its end.
    pub(super) fn on_trim_refused(&self, uid: u64, before: u64, committed_end: u64) -> Check {
        let Some(partition) = self.partitions.get(&uid) else { return Ok(()) };
        // The end of a topic that shows records early was told before they were committed.
        if before <= committed_end || before <= partition.ends.committed && !partition.shows_early {
            return Err(format!(
                "partition {uid}: a trim to {before} is refused at its end {committed_end}, known are {:?}",
                partition.ends
            ));
        }
        Ok(())
    }

    /// A fetch was answered with "damaged".
    pub(super) fn on_damaged(&mut self, uid: u64, from: u64, to: u64) -> Check {
        if !self.decayed && !self.read_failed {
            return Err(format!("partition {uid}: offsets {from}..{to} are told as damaged, and the disk kept everything"));
        }
        if let Some(partition) = self.partitions.get_mut(&uid) {
            partition.damaged.push((from, to));
        }
        Ok(())
    }

    /// One past the last offset that has to stay.
    pub(super) fn known_end(&self, uid: u64) -> u64 {
        self.partitions.get(&uid).map_or(0, |p| p.kept.len() as u64)
    }

    pub(super) fn live_partitions(&self) -> Vec<u64> {
        self.partitions.keys().copied().collect()
    }

    /// Everything of a partition was just read from its start: nothing that had to stay may be missing. Answers how many records were checked.
    pub(super) fn check_complete(&mut self, uid: u64, found: &BTreeMap<u64, u64>) -> Result<u64, String> {
        let Some(partition) = self.partitions.get(&uid) else { return Ok(0) };
        let mut checked = 0;
        let kept = partition.kept.iter().enumerate().skip(partition.ends.start as usize).filter(|(_, id)| **id != NONE);
        for (offset, id) in kept.map(|(offset, id)| (offset as u64, id)) {
            checked += 1;
            if found.get(&offset) == Some(id) || partition.damaged.iter().any(|(from, to)| (*from..*to).contains(&offset)) {
                continue;
            }
            return Err(format!("partition {uid}: record {id} at offset {offset} is gone; found there: {:?}", found.get(&offset)));
        }
        // Retention may have moved the start up while this was read: what is below it does not count.
        let mut next = partition.ends.start;
        for offset in found.range(next..).map(|(offset, _)| offset) {
            if *offset != next && !partition.damaged.iter().any(|(from, to)| (*from..*to).contains(&next)) {
                return Err(format!("partition {uid}: after offset {next} comes {offset}, and nothing was said about it"));
            }
            next = offset + 1;
        }
        Ok(checked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_its_records_and_no_other() {
        let mut value = Vec::new();
        for id in 1..200 {
            value_of(id, 400, &mut value);
            assert!(is_value_of(id, 400, &value) && !is_value_of(id + 1, 400, &value));
            assert!(!is_value_of(id, 400, &value[..value.len() - 1]));
            for at in 0..value.len() {
                value[at] ^= 4;
                assert!(!is_value_of(id, 400, &value), "byte {at} of record {id}");
                value[at] ^= 4;
            }
        }
    }
}
