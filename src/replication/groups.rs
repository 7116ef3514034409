//! The groups of one shard, and the walk over a closing block.
//!
//! Invariants: group ids of a shard are fixed for its life; `positions_for_close` answers each open entry exactly once.
//! Not here: raft's details (`group.rs`), the block's bytes (log/).

use super::group::{Group, GroupStart, ReplicationError, own_handle};
use super::storage::{GroupPosition, Handle};
use crate::ids::{BlockSeq, GroupId, LogIndex, NodeId, Term};
use crate::log::{EntryKind, OpenEntry};

/// A group whose committed end moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The group.
    pub group: GroupId,
    /// All its entries up to this index are committed.
    pub index: LogIndex,
    /// All its entries in blocks up to this one are committed.
    pub block: BlockSeq,
}

/// What a block must carry for a group before its data: a changed term or vote, and raft's own entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owed {
    /// The group.
    pub group: GroupId,
    /// Term and vote to be written as a hard state, if they changed.
    pub hard_state: Option<(Term, u64, LogIndex)>,
    /// How many entries of raft's own are to be written.
    pub own_entries: usize,
}

/// The replica groups whose members this shard holds.
pub struct Groups {
    list: Vec<Group>,
}

impl Groups {
    /// Builds the groups of a shard from what recovery found and makes this node stand for election in each.
    /// `entries` are in log order per group.
    pub fn start(me: NodeId, starts: Vec<GroupStart>, entries: &[(GroupId, LogIndex, Term, Handle)]) -> Result<Groups, ReplicationError> {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let mut list = Vec::with_capacity(starts.len());
        for start in starts {
            let id = start.id;
            let own: Vec<_> = entries.iter().filter(|e| e.0 == id).map(|e| (e.1, e.2, e.3)).collect();
            let mut group = Group::new(start, me, &own, &logger)?;
            group.campaign()?;
            list.push(group);
        }
        list.sort_by_key(|g| g.id);
        Ok(Groups { list })
    }

    /// What each group must have in the open block before anything else of it (a hard state, raft's own entries).
    /// The caller appends these to the log in this order; asked again, only what came up since is answered.
    pub fn owed(&mut self, open_block: BlockSeq) -> Vec<Owed> {
        let mut owed = Vec::new();
        for group in &mut self.list {
            let unplaced_before = group.own_unplaced.len();
            group.take_own(open_block);
            let own_entries = group.own_unplaced.len() - unplaced_before;
            let dirty = std::mem::take(&mut group.hard_state_dirty);
            if dirty || own_entries > 0 {
                let hard_state = dirty.then(|| (group.term(), group.vote(), group.committed));
                owed.push(Owed { group: group.id, hard_state, own_entries });
            }
        }
        owed
    }

    /// The term with which this node may append to `group`, or `None` when it does not lead it.
    pub fn leader_term(&self, group: GroupId) -> Option<Term> {
        self.find(group).filter(|g| g.is_leader()).map(Group::term)
    }

    /// Whether this leader's own first entry is committed, so that ends and reads may be answered.
    pub fn is_caught_up(&self, group: GroupId) -> bool {
        self.find(group).is_some_and(Group::is_caught_up)
    }

    /// Whether every group is led by this node and caught up.
    pub fn all_caught_up(&self) -> bool {
        self.list.iter().all(Group::is_caught_up)
    }

    /// The block closes: proposes each entry of it that bears an index, in order, and writes their places into `positions`
    /// (cleared first).
    /// Fails only if this node ceased to lead a group that it appended to, which its caller must have prevented.
    pub fn positions_for_close(
        &mut self,
        block: BlockSeq,
        open: &[OpenEntry],
        positions: &mut Vec<(Term, LogIndex)>,
    ) -> Result<(), ReplicationError> {
        positions.clear();
        for entry in open {
            let group = self.find_mut(entry.group).ok_or(ReplicationError::NotLeader(entry.group))?;
            let position = match entry.kind {
                EntryKind::HardState => continue,
                EntryKind::Raft => {
                    let (term, index) = group.own_unplaced.pop_front().expect("an own entry was announced before it was appended");
                    group.raft.mut_store().set_handle(index, own_handle(block));
                    (term, index)
                }
                EntryKind::Data | EntryKind::Control => group.propose(Handle { kind: entry.kind, block })?,
            };
            positions.push(position);
        }
        Ok(())
    }

    /// All blocks up to `block` are durable: appends to `commits` every group whose commit moved.
    pub fn on_durable(&mut self, block: BlockSeq, commits: &mut Vec<Commit>) {
        for group in &mut self.list {
            if group.on_durable(block) {
                commits.push(Commit { group: group.id, index: group.committed, block });
            }
        }
    }

    /// Where each group was when `block` was the last one: (group, position, term, vote, commit), for a checkpoint.
    pub fn positions_at(&self, block: BlockSeq) -> Vec<(GroupId, GroupPosition, Term, u64)> {
        self.list.iter().map(|g| (g.id, g.raft.store().position_at(block), g.term(), g.vote())).collect()
    }

    /// Forgets entries that a durable checkpoint covers.
    pub fn compact(&mut self, positions: &[(GroupId, GroupPosition, Term, u64)]) {
        for (id, position, ..) in positions {
            if let Some(group) = self.find_mut(*id) {
                let index = position.index.min(group.committed);
                group.raft.mut_store().compact(index);
            }
        }
    }

    /// Entries held in memory, over all groups.
    pub fn entry_count(&self) -> usize {
        self.list.iter().map(|g| g.raft.store().len()).sum()
    }

    /// The last entry covered by a checkpoint, for tests and metrics.
    pub fn base_of(&self, group: GroupId) -> Option<GroupPosition> {
        self.find(group).map(|g| g.raft.store().base())
    }

    fn find(&self, id: GroupId) -> Option<&Group> {
        self.list.iter().find(|g| g.id == id)
    }

    fn find_mut(&mut self, id: GroupId) -> Option<&mut Group> {
        self.list.iter_mut().find(|g| g.id == id)
    }
}
