//! Who votes in a group and who learns it, and the changes of that, one replica at a time (docs/REPLICATION.md, 2.1 and 6.3).
//!
//! Invariants: a replica votes or learns, never both; a configuration has a voter; a change counts when its entry is committed.
//!
//! Not here: which changes are wanted (control/), when a leader may propose one (`group.rs`).

use crate::ids::{LogIndex, ReplicaId};
use raft::eraftpb::{self, ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, EntryType};

/// Bytes of a change in the log and between nodes: `action u8, zero (7), replica u64, move u64`.
pub const CHANGE_BYTES: usize = 24;

/// What becomes of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It learns the group.
    Learn,
    /// It votes.
    Vote,
    /// It is none of the group's any more.
    Leave,
}

/// A change of who votes in a group, or learns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What is to happen.
    pub action: Action,
    /// To whom.
    pub replica: ReplicaId,
    /// The move of group 0 that it belongs to; 0 for none.
    pub serves: u64,
}

impl Change {
    /// The payload of its entry.
    pub fn encode(&self) -> [u8; CHANGE_BYTES] {
        let mut bytes = [0; CHANGE_BYTES];
        bytes[0] = match self.action {
            Action::Learn => 1,
            Action::Vote => 2,
            Action::Leave => 3,
        };
        bytes[8..16].copy_from_slice(&self.replica.0.to_le_bytes());
        bytes[16..].copy_from_slice(&self.serves.to_le_bytes());
        bytes
    }

    /// Reads a payload; `None` for what is no change.
    pub fn decode(bytes: &[u8]) -> Option<Change> {
        let bytes: &[u8; CHANGE_BYTES] = bytes.try_into().ok()?;
        let action = match bytes[0] {
            1 => Action::Learn,
            2 => Action::Vote,
            3 => Action::Leave,
            _ => return None,
        };
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let change = Change { action, replica: ReplicaId(number(8)), serves: number(16) };
        (bytes[1..8] == [0; 7] && change.replica.0 != 0).then_some(change)
    }

    /// What the crate has for it: it looks at the kind only.
    pub(super) fn entry(&self) -> eraftpb::Entry {
        eraftpb::Entry { entry_type: EntryType::EntryConfChange, data: self.encode().to_vec().into(), ..eraftpb::Entry::default() }
    }

    pub(super) fn for_raft(&self) -> ConfChangeV2 {
        let change_type = match self.action {
            Action::Learn => ConfChangeType::AddLearnerNode,
            Action::Vote => ConfChangeType::AddNode,
            Action::Leave => ConfChangeType::RemoveNode,
        };
        let single = ConfChangeSingle { change_type, node_id: self.replica.0, ..ConfChangeSingle::default() };
        ConfChangeV2 { changes: vec![single].into(), ..ConfChangeV2::default() }
    }
}

/// Who votes in a group, and who learns it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Members {
    /// Voters.
    pub voters: Vec<ReplicaId>,
    /// Learners.
    pub learners: Vec<ReplicaId>,
    /// The newest change that is in here; 0 for none.
    pub index: LogIndex,
}

impl Members {
    /// A configuration of voters alone.
    pub fn of_voters(voters: impl IntoIterator<Item = ReplicaId>) -> Members {
        Members { voters: voters.into_iter().collect(), ..Members::default() }
    }

    /// As the crate has it, once the change at `index` is in it.
    pub(super) fn of_raft(conf: &ConfState, index: LogIndex) -> Members {
        let ids = |raw: &[u64]| {
            let mut ids: Vec<_> = raw.iter().copied().map(ReplicaId).collect();
            ids.sort_unstable();
            ids
        };
        Members { voters: ids(&conf.voters), learners: ids(&conf.learners), index }
    }

    /// As the crate has it.
    pub(super) fn for_raft(&self) -> ConfState {
        let raw = |ids: &[ReplicaId]| ids.iter().map(|id| id.0).collect();
        ConfState { voters: raw(&self.voters), learners: raw(&self.learners), ..ConfState::default() }
    }

    /// Whether somebody votes, and nobody is named twice.
    pub fn is_sound(&self) -> bool {
        let mut all: Vec<_> = self.all().collect();
        all.sort_unstable();
        !self.voters.is_empty() && all.windows(2).all(|two| two[0] != two[1])
    }

    /// Whether `replica` alone decides.
    pub fn is_lone(&self, replica: ReplicaId) -> bool {
        self.voters == [replica]
    }

    /// All.
    pub fn all(&self) -> impl Iterator<Item = ReplicaId> {
        self.voters.iter().chain(&self.learners).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_sound_where_somebody_votes_and_nobody_stands_twice() {
        let members = |voters: &[u64], learners: &[u64]| {
            let ids = |raw: &[u64]| raw.iter().copied().map(ReplicaId).collect();
            Members { voters: ids(voters), learners: ids(learners), index: LogIndex(3) }
        };
        assert!(members(&[3, 1], &[2]).is_sound() && members(&[1], &[]).is_sound());
        for wrong in [members(&[], &[]), members(&[], &[1]), members(&[1, 2, 1], &[]), members(&[1], &[1]), members(&[1], &[2, 2])] {
            assert!(!wrong.is_sound(), "{wrong:?}");
        }
    }

    #[test]
    fn a_change_is_read_as_it_was_written_and_nothing_else_is() {
        for action in [Action::Learn, Action::Vote, Action::Leave] {
            let change = Change { action, replica: ReplicaId(5 << 32 | 6), serves: 7 };
            let bytes = change.encode();
            assert_eq!(Change::decode(&bytes), Some(change));
            assert_eq!(Change::decode(&bytes[..23]), None);
            for at in 0..8 {
                let mut wrong = bytes;
                wrong[at] ^= 0x80;
                assert_eq!(Change::decode(&wrong), None, "byte {at}");
            }
        }
        assert_eq!(Change::decode(&Change { action: Action::Vote, replica: ReplicaId(0), serves: 0 }.encode()), None);
    }
}
