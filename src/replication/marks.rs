//! What a group tells of itself: how far a follower is, how far the group is committed, what holds before that, where entries stand.
//!
//! Not here: how any of it comes about (`group.rs`).

use super::storage::Holds;
use crate::ids::{BlockSeq, GroupId, LogIndex, Term};

/// How far a follower is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerMarks {
    /// Its term.
    pub term: Term,
    /// Up to where it has what the leader has, in memory.
    pub received: LogIndex,
    /// Up to where it has that on stable storage.
    pub durable: LogIndex,
    /// Up to where it knows it to be committed.
    pub committed: LogIndex,
    /// Whether it may have lost what it had acknowledged.
    pub is_suspect: bool,
}

/// Where entries stand that a message tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryPlaces {
    /// Index, term, what each holds, and its block.
    Known(Vec<(LogIndex, Term, Holds, BlockSeq)>),
    /// Some are in no block yet.
    NotYet,
    /// The log was cut or forgotten there since: the message is of no use any more.
    Gone,
}

/// How far the log of a shard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnBlocks {
    /// All its blocks up to this one are durable.
    pub durable: BlockSeq,
    /// The last one that is closed: it will get no more.
    pub closed: BlockSeq,
}

/// What holds of all that a group has in blocks up to some block, before it is committed (docs/REPLICATION.md, 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// It is durable on the leader.
    pub leader_durable: bool,
    /// A majority has received it.
    pub replicated: bool,
}

/// How far a group is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The group.
    pub group: GroupId,
    /// All its entries up to this index are committed.
    pub index: LogIndex,
    /// All its entries in blocks up to this one are committed.
    pub block: BlockSeq,
    /// Whether an entry became committed; else only blocks without an entry of the group have passed.
    pub has_entries: bool,
}
