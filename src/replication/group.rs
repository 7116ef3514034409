//! One replica group: the raft node, what it has written but not yet durable, and what this node may do in it.
//!
//! Invariants: `durable_numbers` is in block order; a batch is stamped with `leader_term` only while this node leads.
//! Not here: the table of groups and the walk over a block's entries (`groups.rs`).

use super::storage::{GroupPosition, GroupStorage, Handle};
use crate::ids::{BlockSeq, GroupId, LogIndex, NodeId, Term};
use crate::log::EntryKind;
use raft::{Config, RawNode, StateRole};
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
    pub(super) node: RawNode<GroupStorage>,
    /// Ready numbers whose entries are in a block that is not durable yet.
    durable_numbers: VecDeque<(BlockSeq, u64)>,
    /// Entries that raft made itself (the empty entry of a new term) and that no block carries yet.
    pub(super) own_unplaced: VecDeque<(Term, LogIndex)>,
    /// Set when term or vote changed and the change is in no block yet.
    pub(super) hard_state_dirty: bool,
    /// The first entry of this node's term; until it is committed, reads are answered with "not yet".
    first_own_index: LogIndex,
    pub(super) committed: LogIndex,
    applied: LogIndex,
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
        let node = RawNode::new(&config, storage, logger).map_err(|cause| ReplicationError::Raft(id, cause))?;
        Ok(Group {
            id,
            node,
            durable_numbers: VecDeque::new(),
            own_unplaced: VecDeque::new(),
            hard_state_dirty: false,
            first_own_index: LogIndex(u64::MAX),
            committed: start.base.index,
            applied: start.base.index,
        })
    }

    /// Stands for election; with one voter it is won at once.
    pub(super) fn campaign(&mut self) -> Result<(), ReplicationError> {
        self.node.campaign().map_err(|cause| ReplicationError::Raft(self.id, cause))
    }

    pub(super) fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    pub(super) fn term(&self) -> Term {
        Term(self.node.raft.term)
    }

    pub(super) fn vote(&self) -> u64 {
        self.node.raft.vote
    }

    /// Whether the first entry of this leader's term is committed: only then are its ends those of the group.
    pub(super) fn is_caught_up(&self) -> bool {
        self.is_leader() && self.committed >= self.first_own_index
    }

    /// Proposes a descriptor; answers its place.
    pub(super) fn propose(&mut self, handle: Handle) -> Result<(Term, LogIndex), ReplicationError> {
        if !self.is_leader() {
            return Err(ReplicationError::NotLeader(self.id));
        }
        self.node.propose(Vec::new(), handle.encode()).map_err(|cause| ReplicationError::Raft(self.id, cause))?;
        Ok((self.term(), LogIndex(self.node.raft.raft_log.last_index())))
    }

    /// Takes what raft wants to have written. `block` is the block that carries the entries (the open one).
    pub(super) fn take_ready(&mut self, block: BlockSeq) {
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            if let Some(hard_state) = ready.hs() {
                let before = &self.node.store().initial_hard_state();
                if (hard_state.term, hard_state.vote) != *before {
                    self.hard_state_dirty = true;
                }
                let hard_state = hard_state.clone();
                self.node.mut_store().set_hard_state(&hard_state);
            }
            let entries = ready.take_entries();
            for entry in &entries {
                if Handle::decode(&entry.data).is_none() {
                    self.own_unplaced.push_back((Term(entry.term), LogIndex(entry.index)));
                    if self.is_leader() {
                        self.first_own_index = LogIndex(entry.index);
                    }
                }
            }
            self.node.mut_store().append(&entries);
            for entry in ready.take_committed_entries() {
                self.committed = self.committed.max(LogIndex(entry.index));
            }
            assert!(ready.messages().is_empty() && ready.persisted_messages().is_empty(), "one voter sends no messages");
            let number = ready.number();
            self.node.advance_append_async(ready);
            self.durable_numbers.push_back((block, number));
        }
    }

    /// Everything up to `block` is durable: tells raft, takes what became committed.
    /// Answers whether the commit moved.
    pub(super) fn on_durable(&mut self, block: BlockSeq) -> bool {
        let mut last = None;
        while let Some((_, number)) = self.durable_numbers.front().filter(|(b, _)| *b <= block) {
            last = Some(*number);
            self.durable_numbers.pop_front();
        }
        let Some(number) = last else { return false };
        let before = self.committed;
        self.node.on_persist_ready(number);
        // What follows carries no new entries (nothing was proposed in between), so it counts as written already.
        self.take_ready(block);
        if self.committed > self.applied {
            self.applied = self.committed;
            self.node.advance_apply_to(self.applied.0);
        }
        self.committed > before
    }
}

impl GroupStorage {
    fn initial_hard_state(&self) -> (u64, u64) {
        let state = raft::Storage::initial_state(self).expect("answered from memory");
        (state.hard_state.term, state.hard_state.vote)
    }
}

/// The block in which raft's own entries and data alike are found: kept here so that `groups.rs` stays a walk.
pub(super) fn own_handle(block: BlockSeq) -> Handle {
    Handle { kind: EntryKind::Raft, block }
}
