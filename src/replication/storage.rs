//! The in-memory answer to raft's questions about its log: terms and handles, never bytes, never the disk.
//!
//! Invariants: entries are contiguous from `first_index`; everything below is covered by a checkpoint and its last term is kept.
//! Not here: hard state on disk (it is a fragment of the shard's log, written by `Groups`).

use crate::ids::{BlockSeq, LogIndex, Term};
use crate::log::EntryKind;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use std::collections::VecDeque;

/// What raft sees as the data of an entry that this node proposed: only that it is not raft's own, empty entry. Where its bytes are
/// stands in the slot beside it, so that an entry costs no memory of its own.
const MARK: &[u8] = b"h";

/// An entry to be proposed.
pub(super) fn marked_entry() -> Entry {
    Entry { data: MARK.into(), ..Entry::default() }
}

/// What raft carries in place of an entry's bytes: where they are in this shard's log. Local to the process, never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    /// What the entry holds.
    pub kind: EntryKind,
    /// The block that carries it.
    pub block: BlockSeq,
}

/// How far a group's log is, for checkpoints and for a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct GroupPosition {
    /// Index of the last entry.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    term: u64,
    /// `None` for raft's own empty entry until its block is known.
    handle: Option<Handle>,
}

/// Raft's storage of one group.
pub struct GroupStorage {
    hard_state: HardState,
    voters: Vec<u64>,
    /// Position of the entry before the first kept one.
    base: GroupPosition,
    slots: VecDeque<Slot>,
}

impl GroupStorage {
    pub(super) fn new(base: GroupPosition, term: Term, vote: u64, commit: LogIndex, voters: Vec<u64>) -> GroupStorage {
        let hard_state = HardState { term: term.0, vote, commit: commit.0, ..HardState::default() };
        GroupStorage { hard_state, voters, base, slots: VecDeque::new() }
    }

    pub(super) fn last(&self) -> GroupPosition {
        match self.slots.back() {
            Some(slot) => GroupPosition { index: LogIndex(self.base.index.0 + self.slots.len() as u64), term: Term(slot.term) },
            None => self.base,
        }
    }

    /// Adds an entry found by recovery; one with an index that exists replaces it and everything after it.
    /// A hole (entries lost to damage of a log without another replica) is filled with empty entries of the term before.
    pub(super) fn restore(&mut self, index: LogIndex, term: Term, handle: Option<Handle>) {
        if index <= self.base.index {
            return;
        }
        while self.last().index >= index {
            self.slots.pop_back();
        }
        while self.last().index.0 + 1 < index.0 {
            let term = self.last().term.0;
            self.slots.push_back(Slot { term, handle: None });
        }
        self.slots.push_back(Slot { term: term.0, handle });
    }

    /// Adds an entry; one with an index that exists replaces it and everything after it.
    pub(super) fn append(&mut self, index: LogIndex, term: Term, handle: Option<Handle>) {
        assert!(index > self.base.index, "raft rewrote entry {index} below the checkpoint {:?}", self.base);
        while self.last().index >= index {
            self.slots.pop_back();
        }
        assert_eq!(index.0, self.last().index.0 + 1, "raft's entries are contiguous");
        self.slots.push_back(Slot { term: term.0, handle });
    }

    pub(super) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    pub(super) fn term_and_vote(&self) -> (u64, u64) {
        (self.hard_state.term, self.hard_state.vote)
    }

    pub(super) fn set_voters(&mut self, voters: Vec<u64>) {
        self.voters = voters;
    }

    /// The last entry whose block is at or below `block`: what a checkpoint that covers `block` records.
    pub(super) fn position_at(&self, block: BlockSeq) -> GroupPosition {
        let mut at = self.base;
        for (i, slot) in self.slots.iter().enumerate() {
            // Raft's own entries are in the same block as the hard state before them; their handle is set when it is known.
            if slot.handle.is_some_and(|h| h.block > block) {
                break;
            }
            at = GroupPosition { index: LogIndex(self.base.index.0 + 1 + i as u64), term: Term(slot.term) };
        }
        at
    }

    /// Names the block of an entry that raft made itself.
    pub(super) fn set_handle(&mut self, index: LogIndex, handle: Handle) {
        assert!(index > self.base.index, "entry {index} is below the checkpoint");
        let at = (index.0 - self.base.index.0 - 1) as usize;
        self.slots[at].handle = Some(handle);
    }

    /// Forgets entries up to `index` (kept by a checkpoint), keeping the term of the last forgotten one.
    pub(super) fn compact(&mut self, index: LogIndex) {
        while self.base.index < index {
            let Some(slot) = self.slots.pop_front() else { return };
            self.base = GroupPosition { index: LogIndex(self.base.index.0 + 1), term: Term(slot.term) };
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn base(&self) -> GroupPosition {
        self.base
    }
}

impl Storage for GroupStorage {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let conf_state = ConfState { voters: self.voters.clone(), ..ConfState::default() };
        Ok(RaftState { hard_state: self.hard_state.clone(), conf_state })
    }

    fn entries(&self, low: u64, high: u64, max_size: impl Into<Option<u64>>, _: GetEntriesContext) -> raft::Result<Vec<Entry>> {
        if low <= self.base.index.0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        assert!(high <= self.last().index.0 + 1, "raft asked for entry {high} past the end {:?}", self.last());
        let max_size = max_size.into().unwrap_or(u64::MAX);
        let mut size = 0;
        let mut entries = Vec::with_capacity((high - low) as usize);
        for index in low..high {
            let slot = self.slots[(index - self.base.index.0 - 1) as usize];
            let is_own = slot.handle.is_none_or(|h| h.kind == EntryKind::Raft);
            let mut entry = if is_own { Entry::default() } else { marked_entry() };
            (entry.index, entry.term) = (index, slot.term);
            size += MARK.len() as u64 + 16;
            if size > max_size && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.base.index.0 {
            return Ok(self.base.term.0);
        }
        if index < self.base.index.0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        match self.slots.get((index - self.base.index.0 - 1) as usize) {
            Some(slot) => Ok(slot.term),
            None => Err(raft::Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.index.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last().index.0)
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}
