//! Call (15), CallReply (16), Leaders (17) and Activity (19): what shards 0 ask of and tell each other.
//!
//! Invariants: what is asked and answered is the payload, covered by a sum that stands in the meta; several calls may be under way, and are
//! answered in any order.
//!
//! Not here: what is in the payload. A command is an archive of the metadata (docs/FORMAT.md, schema 16) and no business of this crate; a client's
//! request is its frame whole, with its own header ([`crate::frame`]), and so is the reply to it; joining and ids for producers come with
//! steps 8 and 9 of docs/REPLICATION.md.

use super::error::{NodeError, Place};
use super::parts::check_crc;
use crate::error::ErrorBody;
use crate::prim::{List, choices, layout};

choices! {
    /// What is asked for.
    pub enum CallWhat("call") {
        /// To become a node of the cluster, or to come back with another disk.
        Join = 1, "join";
        /// A command on the metadata; the reply's payload is the command's result.
        Command = 2, "command";
        /// Ids for producers.
        ProducerIds = 3, "producer ids";
        /// A client's request about groups or queues that only group 0's leader can answer.
        Client = 4, "client";
    }
}

layout! {
    /// Something that another node's shard 0 has to do.
    pub struct Call {
        /// Chosen by who calls; the reply carries it.
        pub call: u64;
        /// What is asked for.
        pub what: CallWhat => zero 3;
        /// crc32c of the payload.
        pub crc: u32;
    }
}

impl Call {
    /// A call with this payload.
    pub fn of(call: u64, what: CallWhat, payload: &[u8]) -> Call {
        Call { call, what, crc: crc32c::crc32c(payload) }
    }
    /// Checks the payload. An error ends the connection.
    pub fn check(&self, payload: &[u8]) -> Result<(), NodeError> {
        check_crc(payload, self.crc, Place::Call { call: self.call })
    }
}

layout! {
    /// What became of a call.
    pub struct CallReply<'a> {
        /// Which.
        pub call: u64;
        /// What was asked for.
        pub what: CallWhat => zero 3;
        /// crc32c of the payload.
        pub crc: u32;
        /// As for clients: code 0 without a message where it was done, else why not. `next` is the cluster address of whoever leads group 0 where
        /// this one does not.
        pub error: ErrorBody<'a>;
    }
}

impl CallReply<'_> {
    /// Checks the payload. An error ends the connection.
    pub fn check(&self, payload: &[u8]) -> Result<(), NodeError> {
        check_crc(payload, self.crc, Place::Call { call: self.call })
    }
}

layout! {
    /// Who leads a group.
    pub struct GroupLeader {
        /// The group.
        pub group: u32;
        /// The leader's node.
        pub node: u32;
        /// Its term: the highest of a group holds.
        pub term: u64;
    }
}

layout! {
    /// Which view the sender acts on, and who leads which group. It says where to go, and decides nothing.
    pub struct Leaders<'a> {
        /// Epoch of the view that all shards of the sender act on.
        pub view_in_force: u64;
        /// Leaders that have changed; after a hello all that the sender's node leads.
        pub groups: List<'a, GroupLeader>;
    }
}

layout! {
    /// When a consumer group was last active, as far as the sender's node knows.
    pub struct GroupActive {
        /// Uid of the group.
        pub group_uid: u64;
        /// How long ago in milliseconds: by a span, for the clocks of two nodes may differ.
        pub idle_ms: u64;
    }
}

layout! {
    /// Consumer groups that had a member, or an offset committed, on the sender's node. Each node tells every other one about once a minute, also when there is
    /// nothing to tell: a group is deleted for want of use only by who has heard from everybody.
    pub struct Activity<'a> {
        /// All that the sender's node knows of; when they are more than fit one frame of 4,096, a frame with fewer is the last one.
        pub groups: List<'a, GroupActive>;
    }
}
