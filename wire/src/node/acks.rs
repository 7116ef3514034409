//! Ack (4) and Beat (5): how far a follower is, and that a leader is there.
//!
//! Invariant: what an ack tells is cumulative within a (connection, term), so the latest one says all.
//! Not here: when they are sent and what a leader makes of them (docs/REPLICATION.md, 3.3); entries ([`super::Append`]).

use crate::prim::{List, flags, layout};

flags! {
    /// Flags of an [`AckGroup`].
    pub struct AckFlags(u8, "ack flags") {
        /// A share was not taken: `rejected`, `hint_index` and `hint_term` say which and what would be.
        REJECTED = 1;
        /// The replica is suspect: it does not vote, and is not counted for `received` above `durable`.
        SUSPECT = 2;
    }
}

layout! {
    /// How far one group is.
    pub struct AckGroup {
        /// The group.
        pub group: u32;
        /// What is to be known besides.
        pub flags: AckFlags => zero 3;
        /// The follower's term: a higher one than the leader's ends its leadership.
        pub term: u64;
        /// The highest index up to which it has what the leader has, in memory.
        pub received: u64;
        /// The highest index up to which it has that on stable storage.
        pub durable: u64;
        /// The highest index that it has applied.
        pub applied: u64;
        /// Index of the entry before the first of the share that was not taken; 0 without `REJECTED`.
        pub rejected: u64;
        /// An index at which the logs may agree; 0 without `REJECTED`.
        pub hint_index: u64;
        /// The term of the follower's entry there; 0 without `REJECTED`.
        pub hint_term: u64;
    }
}

layout! {
    /// How far a follower's shard is.
    pub struct Ack<'a> {
        /// The highest `beat` that was handled; 0 before the first, and on connections for catch-up.
        pub beat: u64;
        /// The groups of which something has changed.
        pub groups: List<'a, AckGroup>;
    }
}

layout! {
    /// A group that the sender leads.
    pub struct BeatGroup {
        /// The group.
        pub group: u32 => zero 4;
        /// The leader's term.
        pub term: u64;
        /// The leader's commit, at most what this follower is known to have.
        pub commit: u64;
    }
}

layout! {
    /// The sender's shard is there.
    pub struct Beat<'a> {
        /// Higher with each Append and Beat of this connection, from 1.
        pub beat: u64;
        /// All groups that the sender leads and that have a replica on the receiver's shard.
        pub groups: List<'a, BeatGroup>;
    }
}
