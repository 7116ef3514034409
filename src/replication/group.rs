//! One replica group: the raft state machine, what it has written but not yet durable, and what this node may do in it.
//!
//! The crate's `Raft` is driven without its `RawNode`: a `RawNode` gathers what is to be done in a `Ready` of fresh vectors, seven to
//! eight allocations per block of the log (docs/decisions/0005). What it does for a leader is done here, in the same order: entries go to
//! the storage, then count as stable, and count as persisted when their block is durable.
//!
//! Invariants: `unpersisted` is in block order; nothing stays in raft's unstable log between two calls; a batch is stamped with
//! `leader_term` only while this node leads.
//! Not here: the table of groups and the walk over a block's entries (`groups.rs`).

use super::storage::{GroupPosition, GroupStorage, Handle, marked_entry};
use crate::ids::{BlockSeq, GroupId, LogIndex, NodeId, Term};
use crate::log::EntryKind;
use raft::eraftpb::{Message, MessageType};
use raft::{Config, Raft, StateRole};
use std::collections::VecDeque;
use std::fmt;

/// What a start knows of a group: from the checkpoint and the hard states in the log.
#[derive(Clone, Debug, Default)]
pub struct GroupStart {
    /// The group.
    pub id: GroupId,
    /// The last entry that the checkpoint covers.
    pub base: GroupPosition,
    /// The highest term that was written, as a hard state or as an entry.
    pub term: Term,
    /// Vote in that term; 0 for none.
    pub vote: u64,
}

/// Why an operation on a group did not happen.
#[derive(Debug)]
pub enum ReplicationError {
    /// The consensus core refused; it says why.
    Raft(GroupId, raft::Error),
    /// This node does not lead the group.
    NotLeader(GroupId),
}

impl fmt::Display for ReplicationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplicationError::Raft(group, cause) => write!(f, "replica group {group}: {cause}"),
            ReplicationError::NotLeader(group) => write!(f, "replica group {group} is led by another node"),
        }
    }
}

impl std::error::Error for ReplicationError {}

pub(super) struct Group {
    pub(super) id: GroupId,
    pub(super) raft: Raft<GroupStorage>,
    /// Last entry of each block that is not durable yet.
    unpersisted: VecDeque<(BlockSeq, LogIndex, Term)>,
    /// Entries that raft made itself (the empty entry of a new term) and that no block carries yet.
    pub(super) own_unplaced: VecDeque<(Term, LogIndex)>,
    /// Set when term or vote changed and the change is in no block yet.
    pub(super) hard_state_dirty: bool,
    /// The first entry of this node's term; until it is committed, reads are answered with "not yet".
    first_own_index: LogIndex,
    pub(super) committed: LogIndex,
}

impl Group {
    pub(super) fn new(
        start: GroupStart,
        me: NodeId,
        entries: &[(LogIndex, Term, Handle)],
        logger: &slog::Logger,
    ) -> Result<Group, ReplicationError> {
        let voters = vec![u64::from(me.0)];
        let mut storage = GroupStorage::new(start.base, start.term, start.vote, start.base.index, voters.clone());
        for (index, term, handle) in entries {
            storage.restore(*index, *term, Some(*handle));
        }
        storage.set_voters(voters);
        let config = Config {
            id: u64::from(me.0),
            // Ticks of 100 ms: an election after 1-2 s of silence, a heartbeat each 300 ms.
            election_tick: 10,
            heartbeat_tick: 3,
            applied: start.base.index.0,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 256,
            check_quorum: true,
            pre_vote: true,
            ..Config::default()
        };
        let id = start.id;
        let raft = Raft::new(&config, storage, logger).map_err(|cause| ReplicationError::Raft(id, cause))?;
        Ok(Group {
            id,
            raft,
            unpersisted: VecDeque::new(),
            own_unplaced: VecDeque::new(),
            hard_state_dirty: false,
            first_own_index: LogIndex(u64::MAX),
            committed: start.base.index,
        })
    }

    /// Stands for election; with one voter it is won at once.
    pub(super) fn campaign(&mut self) -> Result<(), ReplicationError> {
        let mut hup = Message::default();
        hup.set_msg_type(MessageType::MsgHup);
        self.raft.step(hup).map_err(|cause| ReplicationError::Raft(self.id, cause))
    }

    pub(super) fn is_leader(&self) -> bool {
        self.raft.state == StateRole::Leader
    }

    pub(super) fn term(&self) -> Term {
        Term(self.raft.term)
    }

    pub(super) fn vote(&self) -> u64 {
        self.raft.vote
    }

    /// Whether the first entry of this leader's term is committed: only then are its ends those of the group.
    pub(super) fn is_caught_up(&self) -> bool {
        self.is_leader() && self.committed >= self.first_own_index
    }

    /// Appends a descriptor for what `block` carries; answers its place.
    pub(super) fn propose(&mut self, handle: Handle) -> Result<(Term, LogIndex), ReplicationError> {
        if !self.is_leader() {
            return Err(ReplicationError::NotLeader(self.id));
        }
        assert!(self.raft.raft_log.unstable_entries().is_empty(), "group {} appends behind entries nobody took", self.id);
        let mut entries = [marked_entry()];
        if !self.raft.append_entry(&mut entries) {
            return Err(ReplicationError::Raft(self.id, raft::Error::ProposalDropped));
        }
        let (index, term) = (LogIndex(entries[0].index), Term(entries[0].term));
        self.store(index, term, Some(handle));
        self.raft.raft_log.stable_entries(index.0, term.0);
        self.note_unpersisted(handle.block, index, term);
        Ok((term, index))
    }

    /// Takes what raft made itself (a new term or vote, the empty entry of a new leader), to be carried by `block`, the open one.
    pub(super) fn take_own(&mut self, block: BlockSeq) {
        let hard_state = self.raft.hard_state();
        let store = self.raft.mut_store();
        if (hard_state.term, hard_state.vote) != store.term_and_vote() {
            self.hard_state_dirty = true;
            store.set_hard_state(hard_state);
        }
        let mut last = None;
        for at in 0..self.raft.raft_log.unstable_entries().len() {
            let entry = &self.raft.raft_log.unstable_entries()[at];
            assert!(entry.data.is_empty(), "what is proposed is taken at once");
            let (index, term) = (LogIndex(entry.index), Term(entry.term));
            self.own_unplaced.push_back((term, index));
            if self.is_leader() {
                self.first_own_index = index;
            }
            self.store(index, term, None);
            last = Some((index, term));
        }
        if let Some((index, term)) = last {
            self.raft.raft_log.stable_entries(index.0, term.0);
            self.note_unpersisted(block, index, term);
        }
        assert!(self.raft.msgs.is_empty(), "one voter sends no messages");
    }

    fn store(&mut self, index: LogIndex, term: Term, handle: Option<Handle>) {
        self.raft.mut_store().append(index, term, handle);
    }

    fn note_unpersisted(&mut self, block: BlockSeq, index: LogIndex, term: Term) {
        match self.unpersisted.back_mut() {
            Some(last) if last.0 == block => *last = (block, index, term),
            last => {
                assert!(last.is_none_or(|l| l.0 < block), "blocks close in order");
                self.unpersisted.push_back((block, index, term));
            }
        }
    }

    /// Everything up to `block` is durable: tells raft, takes what became committed.
    /// Answers whether the commit moved.
    pub(super) fn on_durable(&mut self, block: BlockSeq) -> bool {
        let mut last = None;
        while let Some((_, index, term)) = self.unpersisted.front().filter(|(b, ..)| *b <= block) {
            last = Some((*index, *term));
            self.unpersisted.pop_front();
        }
        let Some((index, term)) = last else { return false };
        let before = self.committed;
        self.raft.on_persist_entries(index.0, term.0);
        assert!(self.raft.msgs.is_empty(), "one voter sends no messages");
        self.committed = self.committed.max(LogIndex(self.raft.raft_log.committed));
        if self.committed > before {
            self.raft.commit_apply(self.committed.0);
        }
        self.committed > before
    }
}

/// The block in which raft's own entries and data alike are found: kept here so that `groups.rs` stays a walk.
pub(super) fn own_handle(block: BlockSeq) -> Handle {
    Handle { kind: EntryKind::Raft, block }
}
