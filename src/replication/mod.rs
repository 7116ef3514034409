//! Replica groups on TiKV's `raft` crate: who may append, what is committed, and where an entry's bytes are.
//!
//! The loop around a group, for a block of the shard's log (one entry per group in it, and raft's own):
//! 1. Batches arrive: `Groups::leader_term` says whether this node may append and with which term the batch is stamped.
//!    The bytes go straight to the open block; raft does not hear of them yet.
//! 2. The block closes: `Groups::positions_for_close` proposes one entry per group with content in it, and answers with (term, index) for
//!    each row of the block's table. Raft has a mark in place of the bytes; the storage knows the block.
//! 3. The block, and all before it, are durable: `Groups::on_durable` tells raft (`on_persist_entries`) and hands back what is
//!    committed now. With one voter that is the same moment; with more, the majority's answers come in between, before or behind.
//!
//! Invariants: descriptors are in the order of the log; an index is proposed once; a hard state (term, vote) is in the log
//! before the first entry of its term. This room contains no await, no socket and no clock, and never reads a disk.
//!
//! Not here: bytes (log/), offsets (partition/), pipelines between nodes (a later issue adds `pipeline.rs` beside these).

mod change;
mod doubt;
mod group;
mod groups;
mod heard;
mod marks;
mod peer;
mod storage;
#[cfg(test)]
mod tests;
pub mod wire_raft;

pub use change::{Action, CHANGE_BYTES, Change, Members};
pub use doubt::Word;
pub use group::{GroupStart, ReplicationError};
pub use groups::{Groups, Owed};
pub use marks::{Commit, EntryPlaces, FollowerMarks, Held, OwnBlocks};
pub use peer::{Accepted, Dialed, Peer, PeerStart, ShareNote};
pub use storage::{Entry, GroupPosition, Handle, Holds};
pub use wire_raft::{Outgoing, SnapshotNote};
