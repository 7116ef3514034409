//! Vote (6), VoteReply (7) and TimeoutNow (8): elections.
//!
//! Not here: who may vote, and what has to be durable before these are sent (docs/REPLICATION.md, 3.4).

use crate::prim::{flags, layout};

flags! {
    /// Flags of a [`Vote`].
    pub struct VoteFlags(u8, "vote flags") {
        /// Only asked whether the vote would be given: nobody's term rises.
        PRE_VOTE = 1;
        /// The leader itself wants it: who hears that leader votes all the same.
        TRANSFER = 2;
    }
}

layout! {
    /// A candidate asks for a vote.
    pub struct Vote {
        /// The group.
        pub group: u32;
        /// What kind of vote.
        pub flags: VoteFlags => zero 3;
        /// The term it stands for.
        pub term: u64;
        /// Index of its last entry.
        pub last_index: u64;
        /// Term of that entry.
        pub last_term: u64;
        /// Its commit.
        pub commit: u64;
        /// Term of that entry.
        pub commit_term: u64;
    }
}

flags! {
    /// Flags of a [`VoteReply`].
    pub struct VoteReplyFlags(u8, "vote reply flags") {
        /// The vote is not given.
        REFUSED = 1;
        /// The answer to a pre-vote.
        PRE_VOTE = 2;
    }
}

layout! {
    /// The vote.
    pub struct VoteReply {
        /// The group.
        pub group: u32;
        /// Whether it is given.
        pub flags: VoteReplyFlags => zero 3;
        /// The term it is given for; of a refusal the voter's own.
        pub term: u64;
        /// The voter's commit.
        pub commit: u64;
        /// Term of that entry.
        pub commit_term: u64;
    }
}

layout! {
    /// Stand at once: the leader hands over.
    pub struct TimeoutNow {
        /// The group.
        pub group: u32 => zero 4;
        /// The leader's term.
        pub term: u64;
    }
}
