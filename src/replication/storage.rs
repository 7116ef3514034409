//! The in-memory answer to raft's questions about its log: terms and handles, never bytes, never the disk.
//!
//! Invariants: entries are contiguous from `first_index`; everything below is covered by a checkpoint and its last term is kept; the blocks of entries do not
//! fall, and an entry without a block stands behind those with one.
//! Not here: hard state on disk (it is a fragment of the shard's log, written by `Groups`).

use super::change::{Change, Members};
use crate::ids::{BlockSeq, LogIndex, Term};
use raft::eraftpb::{self, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use std::collections::{BTreeMap, VecDeque};

/// What the crate calls a snapshot: what it covers, and who votes by then.
pub(super) fn snapshot_of(at: GroupPosition, members: &Members) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let metadata = snapshot.mut_metadata();
    (metadata.index, metadata.term) = (at.index.0, at.term.0);
    *metadata.mut_conf_state() = members.for_raft();
    snapshot
}

/// What raft sees as the data of an entry that this node proposed: only that it is not raft's own entry. Where its bytes are
/// stands in the slot beside it, so that an entry costs no memory of its own.
const MARK: &[u8] = b"h";

/// Entries of one message that memory is reserved for: a follower that is far behind is asked about millions, and gets a mebibyte at a time.
const ENTRIES_RESERVED: usize = 256;

/// An entry to be proposed.
pub(super) fn marked_entry() -> eraftpb::Entry {
    eraftpb::Entry { data: MARK.into(), ..eraftpb::Entry::default() }
}

/// What an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// A group's share of one block of the leader: batches, control payloads, or both.
    Share,
    /// Raft's own: the empty entry of a new leader.
    Own,
    /// Raft's own: a change of who votes or learns.
    Change,
}

impl Holds {
    /// Whether it is one that raft has made, not a share of a leader's block.
    pub fn is_own(self) -> bool {
        self != Holds::Share
    }
}

/// Where the bytes of an entry stand in this shard's log: what raft has in their place. Local to the process, never sent, never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    /// What the entry holds.
    pub holds: Holds,
    /// The block that carries it.
    pub block: BlockSeq,
    /// Bytes of its content, without rows and padding.
    pub bytes: u32,
}

/// What is known of an entry besides its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its term.
    pub term: Term,
    /// What it holds.
    pub holds: Holds,
    /// The block that carries it; `None` until the open block has got its bytes.
    pub block: Option<BlockSeq>,
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
    holds: Holds,
    /// `None` until the open block has got the entry's bytes.
    block: Option<BlockSeq>,
    bytes: u32,
}

/// Raft's storage of one group.
pub struct GroupStorage {
    hard_state: HardState,
    /// At the start.
    members: Members,
    /// What a snapshot would have, once something is committed.
    committed: Option<(GroupPosition, Members)>,
    /// The changes among the entries.
    changes: BTreeMap<LogIndex, Change>,
    /// Position of the entry before the first kept one.
    base: GroupPosition,
    slots: VecDeque<Slot>,
    /// Bytes of the entries behind `counted`, the last one that is known to be committed.
    uncommitted_bytes: u64,
    counted: LogIndex,
}

impl GroupStorage {
    pub(super) fn new(base: GroupPosition, term: Term, vote: u64, commit: LogIndex, members: Members) -> GroupStorage {
        let hard_state = HardState { term: term.0, vote, commit: commit.0, ..HardState::default() };
        let (changes, slots) = (BTreeMap::new(), VecDeque::new());
        GroupStorage { hard_state, members, committed: None, changes, base, slots, uncommitted_bytes: 0, counted: base.index }
    }

    pub(super) fn last(&self) -> GroupPosition {
        match self.slots.back() {
            Some(slot) => GroupPosition { index: LogIndex(self.base.index.0 + self.slots.len() as u64), term: Term(slot.term) },
            None => self.base,
        }
    }

    /// Adds an entry found by recovery; one with an index that exists replaces it and everything after it, but for another row of the same entry (its
    /// batches and its control payloads are two). A hole (entries lost to damage of a log without another replica) is filled with empty entries of the
    /// term before, in the same block.
    pub(super) fn restore(&mut self, index: LogIndex, term: Term, handle: Handle) {
        if index <= self.base.index {
            return;
        }
        let Handle { holds, block, bytes } = handle;
        let is_last = self.last().index == index;
        if let Some(last) = self.slots.back_mut().filter(|_| is_last)
            && (last.term, last.block, last.holds, holds) == (term.0, Some(block), Holds::Share, Holds::Share)
        {
            last.bytes += bytes;
            self.uncommitted_bytes += u64::from(bytes);
            return;
        }
        self.cut_from(index);
        self.uncommitted_bytes += u64::from(bytes);
        while self.last().index.0 + 1 < index.0 {
            let term = self.last().term.0;
            self.slots.push_back(Slot { term, holds: Holds::Own, block: Some(block), bytes: 0 });
        }
        self.slots.push_back(Slot { term: term.0, holds, block: Some(block), bytes });
    }

    /// Adds an entry whose place is not known yet; one with an index that exists replaces it and everything after it.
    pub(super) fn append(&mut self, index: LogIndex, term: Term, holds: Holds) {
        assert!(index > self.base.index, "raft rewrote entry {index} below the checkpoint {:?}", self.base);
        self.cut_from(index);
        assert_eq!(index.0, self.last().index.0 + 1, "raft's entries are contiguous");
        self.slots.push_back(Slot { term: term.0, holds, block: None, bytes: 0 });
    }

    fn cut_from(&mut self, index: LogIndex) {
        while self.last().index >= index {
            let is_counted = self.last().index > self.counted;
            let Some(slot) = self.slots.pop_back() else { break };
            self.uncommitted_bytes -= if is_counted { u64::from(slot.bytes) } else { 0 };
        }
        self.changes.split_off(&index);
    }

    /// The entry at `index`, which is there, is this change.
    pub(super) fn note_change(&mut self, index: LogIndex, change: Change) {
        assert_eq!(self.entry(index).map(|entry| entry.holds), Some(Holds::Change), "entry {index}");
        self.changes.insert(index, change);
    }

    /// The changes behind `index`, up to `end`.
    pub(super) fn changes(&self, index: LogIndex, end: LogIndex) -> impl Iterator<Item = (LogIndex, Change)> {
        self.changes.iter().filter(move |(at, _)| **at > index && **at <= end).map(|(at, change)| (*at, *change))
    }

    pub(super) fn change(&self, index: LogIndex) -> Option<Change> {
        self.changes.get(&index).copied()
    }

    pub(super) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    pub(super) fn term_and_vote(&self) -> (u64, u64) {
        (self.hard_state.term, self.hard_state.vote)
    }

    fn slots_after(&self, index: LogIndex) -> impl Iterator<Item = (LogIndex, &Slot)> {
        let first = self.base.index.0 + 1;
        let skipped = (index.0 + 1).saturating_sub(first);
        (first + skipped..).map(LogIndex).zip(self.slots.range(skipped as usize..))
    }

    /// The last entry of those, following one another behind `index`, whose blocks are at or below `block`; `index` itself if there is none. An entry without
    /// a block stands nowhere yet, so it and what is behind it are not among them.
    pub(super) fn end_of_run(&self, index: LogIndex, block: BlockSeq) -> LogIndex {
        let stands = |slot: &Slot| slot.block.is_some_and(|b| b <= block);
        self.slots_after(index).take_while(|(_, slot)| stands(slot)).last().map_or(index, |(index, _)| index)
    }

    /// The last entry whose block is at or below `block`: what a checkpoint that covers `block` records.
    pub(super) fn position_at(&self, block: BlockSeq) -> GroupPosition {
        let index = self.end_of_run(self.base.index, block);
        GroupPosition { index, term: self.term_of(index).expect("an entry of the storage, or the one before") }
    }

    /// The term of an entry that is kept, or of the last forgotten one.
    pub(super) fn term_of(&self, index: LogIndex) -> Option<Term> {
        match index.0.checked_sub(self.base.index.0)? {
            0 => Some(self.base.term),
            at => self.slots.get(at as usize - 1).map(|slot| Term(slot.term)),
        }
    }

    /// What is known of an entry; `None` for one that was forgotten, or is not there.
    pub(super) fn entry(&self, index: LogIndex) -> Option<Entry> {
        let at = index.0.checked_sub(self.base.index.0 + 1)?;
        self.slots.get(at as usize).map(|slot| Entry { term: Term(slot.term), holds: slot.holds, block: slot.block })
    }

    /// The block of an entry. `None` where it is not known: not placed yet, or forgotten.
    pub(super) fn block_of(&self, index: LogIndex) -> Option<BlockSeq> {
        self.entry(index)?.block
    }

    /// The block of the first entry behind `index` that stands in one.
    pub(super) fn next_block(&self, index: LogIndex) -> Option<BlockSeq> {
        self.slots_after(index).find_map(|(_, slot)| slot.block)
    }

    /// Names the block that has got an entry, or more of its bytes.
    pub(super) fn place(&mut self, index: LogIndex, block: BlockSeq, bytes: u32) {
        assert!(index > self.base.index, "entry {index} is below the checkpoint");
        let slot = &mut self.slots[(index.0 - self.base.index.0 - 1) as usize];
        assert!(slot.block.is_none_or(|b| b == block), "entry {index} stands in block {:?} and in {block}", slot.block);
        slot.block = Some(block);
        slot.bytes += bytes;
        if index > self.counted {
            self.uncommitted_bytes += u64::from(bytes);
        }
    }

    /// Everything up to `index` is committed.
    pub(super) fn count_committed(&mut self, index: LogIndex) {
        let bytes: u64 = self.slots_after(self.counted).take_while(|(at, _)| *at <= index).map(|(_, slot)| u64::from(slot.bytes)).sum();
        self.uncommitted_bytes -= bytes;
        self.counted = self.counted.max(index);
    }

    /// Bytes of the entries that are not known to be committed.
    pub(super) fn uncommitted_bytes(&self) -> u64 {
        self.uncommitted_bytes
    }

    /// Forgets entries up to `index` (kept by a checkpoint), keeping the term of the last forgotten one.
    pub(super) fn compact(&mut self, index: LogIndex) {
        while self.base.index < index {
            let Some(slot) = self.slots.pop_front() else { return };
            self.base = GroupPosition { index: LogIndex(self.base.index.0 + 1), term: Term(slot.term) };
            self.changes.remove(&self.base.index);
        }
    }

    /// A snapshot has taken the place of everything up to `at`, and of whatever stood behind it.
    pub(super) fn install(&mut self, at: GroupPosition) {
        assert!(at.index > self.base.index, "a snapshot of entry {} in front of {:?}", at.index, self.base);
        self.base = at;
        (self.uncommitted_bytes, self.counted) = (0, self.counted.max(at.index));
        self.slots.clear();
        self.changes.clear();
    }

    /// Everything up to `at` is committed, and who votes by then is `members`.
    pub(super) fn note_committed(&mut self, at: GroupPosition, members: &Members) {
        match &mut self.committed {
            Some((position, known)) if known == members => *position = at,
            committed => *committed = Some((at, members.clone())),
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
        Ok(RaftState { hard_state: self.hard_state.clone(), conf_state: self.members.for_raft() })
    }

    fn entries(&self, low: u64, high: u64, max_size: impl Into<Option<u64>>, _: GetEntriesContext) -> raft::Result<Vec<eraftpb::Entry>> {
        if low <= self.base.index.0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        assert!(high <= self.last().index.0 + 1, "raft asked for entry {high} past the end {:?}", self.last());
        // The size of the bytes that the entries stand for: of what raft holds, a byte each, the limit would be everything.
        let max_bytes = max_size.into().unwrap_or(u64::MAX);
        let mut bytes = 0;
        let mut entries = Vec::with_capacity(((high - low) as usize).min(ENTRIES_RESERVED));
        for (index, slot) in self.slots_after(LogIndex(low - 1)).take((high - low) as usize) {
            bytes += u64::from(slot.bytes);
            if bytes > max_bytes && !entries.is_empty() {
                break;
            }
            let mut entry = match slot.holds {
                Holds::Share => marked_entry(),
                Holds::Own => eraftpb::Entry::default(),
                Holds::Change => self.changes[&index].entry(),
            };
            (entry.index, entry.term) = (index.0, slot.term);
            entries.push(entry);
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match self.term_of(LogIndex(index)) {
            Some(term) => Ok(term.0),
            None if index < self.base.index.0 => Err(raft::Error::Store(StorageError::Compacted)),
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
        // What is in it is looked up when it is sent: the crate knows what it covers.
        let Some((at, members)) = self.committed.as_ref().filter(|(at, _)| at.index > LogIndex(0)) else {
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        };
        Ok(snapshot_of(*at, members))
    }
}
