//! Message groups: of each, one message at a time is out, in order of offset; the others are parked behind it.
//!
//! A group is known by 64 bits of its name: two names with the same ones would wait for each other, and lose no order.
//!
//! Not here: the states of messages (`part.rs`).

use std::collections::{BTreeMap, VecDeque};

#[derive(Debug, Default)]
struct Lane {
    hash: u64,
    /// The message that is out.
    head: Option<u64>,
    parked: VecDeque<u64>,
}

/// The lanes that have a message out. Numbers begin at 1.
#[derive(Debug, Default)]
pub struct Lanes {
    by_hash: BTreeMap<u64, u32>,
    lanes: Vec<Lane>,
    free: Vec<u32>,
}

/// 64 bits of a message group's name: FNV-1a, the same on every machine and in every version.
pub fn group_hash(name: &[u8]) -> u64 {
    name.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

impl Lanes {
    /// A message of a group comes in, behind all that came before. Answers its lane, and whether it is out at once.
    pub fn enter(&mut self, hash: u64, offset: u64) -> (u32, bool) {
        let lane = match self.by_hash.get(&hash) {
            Some(lane) => *lane,
            None => {
                let lane = self.free.pop().unwrap_or(self.lanes.len() as u32 + 1);
                if lane as usize > self.lanes.len() {
                    self.lanes.push(Lane::default());
                }
                self.by_hash.insert(hash, lane);
                lane
            }
        };
        let slot = &mut self.lanes[lane as usize - 1];
        slot.hash = hash;
        if slot.head.is_none() {
            slot.head = Some(offset);
            return (lane, true);
        }
        slot.parked.push_back(offset);
        (lane, false)
    }

    /// The group of a lane, for what is stored.
    pub fn hash_of(&self, lane: u32) -> u64 {
        if lane == 0 { 0 } else { self.lanes[lane as usize - 1].hash }
    }

    /// A message of the lane is over. Where it was the one that was out, the next one is: the first that `is_of_lane`
    /// still.
    pub fn leave(&mut self, lane: u32, offset: u64, is_of_lane: impl Fn(u64) -> bool) -> Option<u64> {
        let slot = &mut self.lanes[lane as usize - 1];
        if slot.head != Some(offset) {
            return None;
        }
        slot.head = None;
        while let Some(next) = slot.parked.pop_front() {
            if is_of_lane(next) {
                slot.head = Some(next);
                return Some(next);
            }
        }
        slot.parked = VecDeque::new();
        self.by_hash.remove(&slot.hash);
        self.free.push(lane);
        None
    }

    /// Drops a lane, of lanes nobody asks for again; `None` without any.
    pub fn pop(&mut self) -> Option<()> {
        let lane = self.lanes.pop()?;
        self.by_hash.remove(&lane.hash);
        Some(())
    }

    /// Bytes of memory, by the sizes of what is allocated.
    #[cfg(test)]
    pub fn memory_bytes(&self) -> usize {
        self.lanes.iter().map(|lane| lane.parked.capacity() * 8 + size_of::<Lane>() + 24).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_group_is_out_and_a_free_lane_serves_another_group() {
        let mut lanes = Lanes::default();
        let (a, b) = (group_hash(b"a"), group_hash(b"b"));
        assert_eq!(lanes.enter(a, 1), (1, true));
        assert_eq!(lanes.enter(b, 2), (2, true));
        assert_eq!(lanes.enter(a, 3), (1, false));
        assert_eq!(lanes.enter(a, 4), (1, false));
        assert_eq!(lanes.leave(1, 4, |_| true), None, "a parked one that is deleted changes nothing");
        assert_eq!(lanes.leave(1, 1, |offset| offset != 3), Some(4), "3 is gone");
        assert_eq!(lanes.leave(1, 4, |_| true), None);
        assert_eq!(lanes.enter(group_hash(b"c"), 5), (1, true));
        assert_eq!(lanes.hash_of(1), group_hash(b"c"));
    }

    #[test]
    fn the_hash_is_the_one_that_is_stored() {
        assert_eq!(group_hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(group_hash(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
