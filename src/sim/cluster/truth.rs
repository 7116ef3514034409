//! What clients of a cluster were told, and what has to hold of it for ever.
//!
//! A record has a number, which its bytes tell. It is promised a place (partition and offset) when it is acknowledged as durable, or when a consumer has
//! read it: consumers read what is committed.
//!
//! Invariants: a record has one place at most, and a place one record; what is below an end that was told is there.
//!
//! Not here: what was asked (`clients.rs`), replicas (`../replicas.rs`).

use crate::sim::Check;
use crate::sim::history::{is_value_of, value_of};
use std::collections::BTreeMap;

/// A record that was sent.
struct Sent {
    uid: u64,
    /// Of which stream of batches of an idempotent producer, and its number there.
    of: Option<(u64, u64)>,
    /// Where it is promised to be.
    place: Option<u64>,
}

pub(super) struct Truth {
    value_bytes_max: u64,
    /// By number, from 1.
    sent: Vec<Sent>,
    /// By partition and offset.
    places: BTreeMap<(u64, u64), u64>,
    /// Per partition: everything below is promised.
    ends: BTreeMap<u64, u64>,
}

impl Truth {
    pub(super) fn new(value_bytes_max: u64) -> Truth {
        Truth { value_bytes_max, sent: Vec::new(), places: BTreeMap::new(), ends: BTreeMap::new() }
    }

    /// One more record for a partition: its number.
    pub(super) fn send(&mut self, uid: u64, of: Option<(u64, u64)>, value: &mut Vec<u8>) -> u64 {
        self.sent.push(Sent { uid, of, place: None });
        let id = self.sent.len() as u64;
        value_of(id, self.value_bytes_max, value);
        id
    }

    /// The record is at this offset for ever.
    pub(super) fn promise(&mut self, uid: u64, offset: u64, id: u64) -> Check {
        let Some(sent) = id.checked_sub(1).and_then(|at| self.sent.get_mut(at as usize)) else {
            return Err(format!("partition {uid} has a record {id} at {offset} that nobody has sent"));
        };
        if sent.uid != uid {
            return Err(format!("record {id} was sent to partition {} and is at {offset} of {uid}", sent.uid));
        }
        if let Some(other) = sent.place.replace(offset).filter(|other| *other != offset) {
            return Err(format!("record {id} of partition {uid} is at {offset}, and was promised to be at {other}"));
        }
        match self.places.insert((uid, offset), id) {
            Some(other) if other != id => Err(format!("offset {offset} of partition {uid} was promised to record {other}, and is {id}'s")),
            _ => Ok(()),
        }
    }

    /// A consumer has read this. Answers the record's number.
    pub(super) fn read(&mut self, uid: u64, offset: u64, value: &[u8]) -> Result<u64, String> {
        let id = value.first_chunk::<8>().copied().map_or(0, u64::from_le_bytes);
        if !is_value_of(id, self.value_bytes_max, value) {
            return Err(format!("what is read at {offset} of partition {uid} are no bytes of record {id}"));
        }
        self.promise(uid, offset, id)?;
        Ok(id)
    }

    /// Everything below `end` was told to be committed.
    pub(super) fn tell_end(&mut self, uid: u64, end: u64) {
        let known = self.ends.entry(uid).or_default();
        *known = end.max(*known);
    }

    pub(super) fn end(&self, uid: u64) -> u64 {
        self.ends.get(&uid).copied().unwrap_or(0)
    }

    /// Everything that a partition has, from its beginning. Nothing that was promised is missing; what idempotent producers sent is there once, in their
    /// order, and without a hole.
    pub(super) fn check_all(&self, uid: u64, found: &BTreeMap<u64, u64>) -> Check {
        let count = found.len() as u64;
        if let Some((hole, _)) = (0..).zip(found.keys()).find(|(at, offset)| at != *offset) {
            return Err(format!("partition {uid} has {count} records, and none at {hole}"));
        }
        if self.end(uid) > count {
            return Err(format!("partition {uid} ends at {count}, and {} was told to be committed", self.end(uid)));
        }
        for ((_, offset), id) in self.places.range((uid, 0)..=(uid, u64::MAX)) {
            let is = found.get(offset);
            if is != Some(id) {
                return Err(format!(
                    "offset {offset} of partition {uid} was promised to record {id}; there are {count}, and that one is {is:?}"
                ));
            }
        }
        let mut next: BTreeMap<u64, u64> = BTreeMap::new();
        for (offset, id) in found {
            let Some((stream, number)) = self.sent[*id as usize - 1].of else { continue };
            let due = next.entry(stream).or_default();
            if number != *due {
                return Err(format!("partition {uid} has record {number} of producer {stream} at {offset}, and {due} is due"));
            }
            *due += 1;
        }
        Ok(())
    }

    pub(super) fn promised(&self) -> usize {
        self.places.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_holds_for_ever() {
        let (mut truth, mut value) = (Truth::new(100), Vec::new());
        let ids: Vec<u64> = (0..3).map(|number| truth.send(7, Some((1, number)), &mut value)).collect();
        assert_eq!(truth.promise(7, 0, ids[0]), Ok(()));
        assert!(truth.promise(7, 1, ids[0]).is_err() && truth.promise(8, 0, ids[1]).is_err() && truth.promise(7, 5, 99).is_err());
        let (mut truth, found) = (Truth::new(100), |list: &[(u64, u64)]| list.iter().copied().collect::<BTreeMap<_, _>>());
        let ids: Vec<u64> = (0..3).map(|number| truth.send(7, Some((1, number)), &mut value)).collect();
        assert_eq!(truth.read(7, 2, &value), Ok(ids[2]));
        assert_eq!(truth.check_all(7, &found(&[(0, ids[0]), (1, ids[1]), (2, ids[2])])), Ok(()));
        assert!(truth.check_all(7, &found(&[(0, ids[0]), (1, ids[1])])).is_err(), "what was read is missing");
        assert!(truth.check_all(7, &found(&[(0, ids[1]), (1, ids[0]), (2, ids[2])])).is_err(), "out of order");
        assert!(truth.check_all(7, &found(&[(1, ids[0]), (2, ids[2])])).is_err(), "a hole");
        truth.tell_end(7, 4);
        assert!(truth.check_all(7, &found(&[(0, ids[0]), (1, ids[1]), (2, ids[2])])).is_err(), "more was told");
    }
}
