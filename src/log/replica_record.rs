//! The record of a replica: that this shard has one of a group, where its log of it begins, and who votes in the group there; later whether what it had can be relied on.
//!
//! ```text
//! 0 group u32   4 state u8 (1 present, 2 removed, 3 whole, 4 configuration forced, 5 suspect)   5 zero (3)   8 replica u64   16 base_index u64   24 base_term u64
//! 32 term u64   40 vote u64   48 voters u8   49 learners u8   50 zero (6)   56 ids u64 * (voters + learners)
//! ```
//! Invariants: the last record of states 1 and 2 of a group holds; entries of the group that stand in front of it are void. The last one of state 4 behind it says
//! who votes from then on, and in which term at least; entries in front of it stay. The last one of states 3 and 5 behind it says whether the replica is suspect;
//! nothing else of these counts. The groups that the first node of a cluster begins with need none: their first configuration is that node alone.
//!
//! Not here: configurations that a group has taken on since (entries of kind `Raft`, and the checkpoint).

use super::layout::{put, u32_at, u64_at};
use crate::ids::{GroupId, LogIndex, ReplicaId, Term};

/// Bytes in front of the ids.
const HEAD_BYTES: usize = 56;
/// Voters and learners of a group, together.
const IDS_MAX: usize = 128;

/// What a record says of its replica. The numbers are on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum ReplicaState {
    /// It begins here: nothing of the group in front of it counts.
    #[default]
    Present = 1,
    /// It is none any more: nothing of the group in front of it counts.
    Removed = 2,
    /// It is suspect no more.
    Whole = 3,
    /// The group goes on without a majority: these vote from now on, whoever did before.
    Forced = 4,
    /// It may have lost what it had acknowledged.
    Suspect = 5,
}

impl ReplicaState {
    fn from_u8(number: u8) -> Option<ReplicaState> {
        use ReplicaState::{Forced, Present, Removed, Suspect, Whole};
        [Present, Removed, Whole, Forced, Suspect].into_iter().find(|state| *state as u8 == number)
    }
}

/// A replica, as stored in an entry of kind `Replica`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaRecord {
    /// The group.
    pub group: GroupId,
    /// What it says.
    pub state: ReplicaState,
    /// The replica.
    pub replica: ReplicaId,
    /// The last entry in front of its log; 0 for a group that is new.
    pub base_index: LogIndex,
    /// Its term.
    pub base_term: Term,
    /// The term that it was in before, if it was there before.
    pub term: Term,
    /// Its vote in that.
    pub vote: u64,
    /// Who votes in the group at its base.
    pub voters: Vec<ReplicaId>,
    /// Who learns it there.
    pub learners: Vec<ReplicaId>,
}

impl ReplicaRecord {
    /// The payload to append.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.voters.len() + self.learners.len() <= IDS_MAX, "{} and {} ids", self.voters.len(), self.learners.len());
        let mut bytes = vec![0; HEAD_BYTES];
        put(&mut bytes, 0, &self.group.0.to_le_bytes());
        put(&mut bytes, 4, &[self.state as u8]);
        put(&mut bytes, 8, &self.replica.0.to_le_bytes());
        put(&mut bytes, 16, &self.base_index.0.to_le_bytes());
        put(&mut bytes, 24, &self.base_term.0.to_le_bytes());
        put(&mut bytes, 32, &self.term.0.to_le_bytes());
        put(&mut bytes, 40, &self.vote.to_le_bytes());
        put(&mut bytes, 48, &[self.voters.len() as u8, self.learners.len() as u8]);
        self.voters.iter().chain(&self.learners).for_each(|id| bytes.extend_from_slice(&id.0.to_le_bytes()));
        bytes
    }

    /// Reads a payload; `None` for one that no program of this version writes.
    pub fn decode(bytes: &[u8]) -> Option<ReplicaRecord> {
        let (voters, learners) = (usize::from(*bytes.get(48)?), usize::from(*bytes.get(49)?));
        let state = ReplicaState::from_u8(bytes[4])?;
        let is_right = bytes[5..8] == [0; 3]
            && bytes.get(50..HEAD_BYTES)? == [0; 6]
            && bytes.len() == HEAD_BYTES + (voters + learners) * 8
            && voters + learners <= IDS_MAX;
        let ids = |from: usize, count: usize| (from..from + count).map(|at| ReplicaId(u64_at(bytes, HEAD_BYTES + at * 8))).collect();
        is_right.then(|| ReplicaRecord {
            group: GroupId(u32_at(bytes, 0)),
            state,
            replica: ReplicaId(u64_at(bytes, 8)),
            base_index: LogIndex(u64_at(bytes, 16)),
            base_term: Term(u64_at(bytes, 24)),
            term: Term(u64_at(bytes, 32)),
            vote: u64_at(bytes, 40),
            voters: ids(0, voters),
            learners: ids(voters, learners),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_nothing_else_is() {
        let record = ReplicaRecord {
            group: GroupId(3),
            state: ReplicaState::Present,
            replica: ReplicaId(1 << 32 | 2),
            base_index: LogIndex(9),
            base_term: Term(4),
            term: Term(5),
            vote: 6,
            voters: vec![ReplicaId(1), ReplicaId(2)],
            learners: vec![ReplicaId(7)],
        };
        let bytes = record.encode();
        assert_eq!(bytes.len(), 80);
        assert_eq!(ReplicaRecord::decode(&bytes), Some(record.clone()));
        for state in [ReplicaState::Removed, ReplicaState::Whole, ReplicaState::Forced, ReplicaState::Suspect] {
            let other = ReplicaRecord { state, ..record.clone() };
            assert_eq!(ReplicaRecord::decode(&other.encode()), Some(other));
        }
        for len in 0..bytes.len() {
            assert_eq!(ReplicaRecord::decode(&bytes[..len]), None, "{len} bytes");
        }
        for at in (4..8).chain(48..56) {
            let mut wrong = bytes.clone();
            wrong[at] ^= 0x40;
            assert_eq!(ReplicaRecord::decode(&wrong), None, "byte {at}");
        }
    }
}
