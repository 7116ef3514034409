//! Hello (1), HelloReply (2) and Refused (18): who speaks to whom, what for, and where each group stands.
//!
//! Invariants: these three are always written in version 1 of their kinds, so that any two nodes can talk about what they have in common; a code
//! of a refusal is a number that the reader may not know.
//! Not here: when a hello is refused, what is done with the answer (docs/REPLICATION.md, 3.2).

use super::kind::Class;
use crate::prim::{DecodeError, Item, List, Reader, Zero, flags, layout, put_str_cut};
use std::fmt;

/// Cluster id of a node that has none yet, because it asks to join; accepted on connections of class calls only.
pub const CLUSTER_NONE: [u8; 16] = [0; 16];
/// `to_node` of a node that knows an address only, because it asks to join; accepted on connections of class calls only.
pub const NODE_ANY: u32 = 0;

layout! {
    /// A group that the dialer leads or stands for.
    pub struct GroupTerm {
        /// The group.
        pub group: u32;
        /// The dialer's term.
        pub term: u64;
    }
}

layout! {
    /// The first frame of a connection: from the dialer.
    pub struct Hello<'a> {
        /// What the connection is for.
        pub class: Class => zero 3;
        /// The cluster; [`CLUSTER_NONE`] of a node that joins.
        pub cluster_id: [u8; 16];
        /// The dialer's process: random at its start.
        pub boot: u64;
        /// The dialer's node, from 1.
        pub from_node: u32;
        /// How many disks that node had before the present one; 0 of a node that joins.
        pub from_generation: u32;
        /// The node that is meant; [`NODE_ANY`] of a node that joins.
        pub to_node: u32;
        /// How many disks that node had, as the dialer knows it; 0 with [`NODE_ANY`].
        pub to_generation: u32;
        /// The dialer's shard.
        pub from_shard: u16;
        /// The shard that is meant.
        pub to_shard: u16;
        /// Lowest feature level that the dialer speaks.
        pub feature_min: u32;
        /// Highest feature level that the dialer speaks.
        pub feature_max: u32;
        /// The cluster's feature level, as the dialer knows it; 0 of a node that joins.
        pub feature_level: u32;
        /// Epoch of the view that the dialer acts on.
        pub view_epoch: u64;
        /// The groups that the dialer leads or stands for, of those with a replica on the acceptor's shard. Empty on connections for calls.
        pub groups: List<'a, GroupTerm>;
    }
}

flags! {
    /// What is to be known of a replica before it is sent anything.
    pub struct ReplicaFlags(u8, "replica flags") {
        /// Damage may have taken entries that it had acknowledged.
        SUSPECT = 1;
        /// It has no log and no configuration yet.
        EMPTY = 2;
        /// There is no replica of this group here; all numbers are 0.
        UNKNOWN = 4;
    }
}

layout! {
    /// Where the acceptor's replica of a group stands.
    pub struct ReplicaState {
        /// The group.
        pub group: u32;
        /// What is to be known of it.
        pub flags: ReplicaFlags => zero 3;
        /// Its term.
        pub term: u64;
        /// Index of its last entry.
        pub last_index: u64;
        /// Term of that entry.
        pub last_term: u64;
        /// The highest index up to which its entries are durable.
        pub persisted: u64;
    }
}

layout! {
    /// The acceptor's answer.
    pub struct HelloReply<'a> {
        /// The acceptor's process: random at its start.
        pub boot: u64;
        /// The feature level that both use on this connection.
        pub feature: u32;
        /// Bytes of payload that may be sent and not be acknowledged as received.
        pub window: u32;
        /// One per group of the hello, in its order.
        pub groups: List<'a, ReplicaState>;
    }
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal, $retriable:literal, $sentence:literal;)*) => {
        /// Why a node ends a connection with another node.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Refusal { $($(#[$doc])* $name = $number,)* }

        impl Refusal {
            /// Every one, in order of number.
            pub const ALL: &'static [Refusal] = &[$(Refusal::$name,)*];

            /// The one with this number.
            pub const fn from_u16(number: u16) -> Option<Refusal> {
                match number { $($number => Some(Refusal::$name),)* _ => None }
            }
            /// The name as in docs/REPLICATION.md.
            pub const fn name(self) -> &'static str {
                match self { $(Refusal::$name => $text,)* }
            }
            /// Whether dialing again may succeed without anybody doing anything.
            pub const fn retriable(self) -> bool {
                match self { $(Refusal::$name => $retriable,)* }
            }
            /// What happened and what to do, in one sentence.
            pub const fn sentence(self) -> &'static str {
                match self { $(Refusal::$name => $sentence,)* }
            }
        }
    };
}

refusals! {
    /// Bytes that are not taken ([`super::NodeError`]); the message says which.
    Malformed = 1, "malformed", true, "bytes came that are not taken: the message says which; look for faulty hardware, or report a defect, if it repeats";
    /// Another cluster's id.
    OtherCluster = 2, "other_cluster", false, "this node is of another cluster: check the addresses that the nodes were started with";
    /// Another node or generation was meant.
    OtherNode = 3, "other_node", true, "another node, or this one before its disk was replaced, was meant: the address has changed hands, and a newer view tells it";
    /// The dialer was removed, or its disk was replaced.
    Removed = 4, "removed", false, "the cluster has removed this node or replaced its disk: leave it stopped, or let it join again on an empty --data-dir, if the node was removed under another --node-id (its own is refused for ever)";
    /// The pair is not in the metadata that the acceptor has.
    UnknownPair = 5, "unknown_pair", true, "this node does not know the other one yet: it is tried again when its view has caught up";
    /// No feature level in common.
    NoCommonFeature = 6, "no_common_feature", false, "the two nodes have no feature level in common: update the older one, one release at a time";
    /// No such shard.
    NoSuchShard = 7, "no_such_shard", false, "the node has no such shard: it was started with fewer than it is registered with; give it the same number again";
    /// A newer connection of this pair and class.
    Replaced = 8, "replaced", false, "a newer connection of the same pair has taken its place: nothing is to be done";
    /// The acceptor is starting or stopping.
    NotServing = 9, "not_serving", true, "the node is starting, stopping or has a failed disk: it is tried again";
}

impl Refusal {
    /// The number on the wire.
    pub const fn as_u16(self) -> u16 {
        self as u16
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

/// The last frame of a connection: why it ends.
///
/// ```text
/// 0 code u16 | 2 retriable u8 | 3 reserved u8 | 4 message str
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused<'a> {
    /// The code as a number; a newer node may send one that [`Refused::refusal`] does not know.
    pub code: u16,
    /// Whether dialing again may succeed without anybody doing anything.
    pub retriable: bool,
    /// A sentence for a human, at most [`crate::prim::MESSAGE_BYTES_MAX`] bytes: a longer one is cut at a character.
    pub message: &'a str,
}

impl<'a> Refused<'a> {
    /// A body for a known code: `retriable` is the code's.
    pub const fn new(code: Refusal, message: &'a str) -> Refused<'a> {
        Refused { code: code.as_u16(), retriable: code.retriable(), message }
    }
    /// The code, if this crate knows it.
    pub const fn refusal(&self) -> Option<Refusal> {
        Refusal::from_u16(self.code)
    }
    /// Appends the body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.code.write(out);
        self.retriable.write(out);
        Zero::<1>.write(out);
        put_str_cut(out, self.message);
    }
    /// Reads a body; refuses trailing bytes.
    pub fn decode(meta: &'a [u8]) -> Result<Refused<'a>, DecodeError> {
        let mut from = Reader::new(meta);
        let (code, retriable) = (from.u16()?, bool::read(&mut from)?);
        Zero::<1>::read(&mut from)?;
        let body = Refused { code, retriable, message: from.str()? };
        from.finish()?;
        Ok(body)
    }
}
