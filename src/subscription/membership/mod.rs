//! Who is a member of one consumer group, and which partitions each member may own: a state machine without I/O.
//!
//! The broker decides, member by member, and nobody stops for a change that does not concern it (in the spirit of Kafka's KIP-848). Each
//! member has a **target** (what the assignor wants it to have) and a **grant** (what it may own now). The way of a partition from one
//! member to another:
//!
//! ```text
//!              the target moves                    A acknowledges an epoch >= its since,
//!                                                  or leaves, is dropped, is replaced
//!  granted to A ----------------> releasing by A -----------------------------------------> free -> granted to B
//!  (assignment epoch a)           (a, since = the group's epoch)                              (a new assignment epoch b > a)
//! ```
//! A partition that a member keeps stays granted under the assignment epoch that it had: the member never stops on it.
//!
//! The group's **epoch** rises with every operation that changes something that lasts, by one. A member is told its grant together with its
//! `granted_epoch`, the group's epoch at which the grant last changed, and says in a heartbeat which of them it has put in force. From then
//! on it owns exactly what it was told with that epoch.
//!
//! What lasts (`durable.rs`) is written as records (`Change`): absolute ("set to"), each list opened by the group's epoch. The state
//! machine runs ahead of the log; the shard answers a client only when the records of its operation are committed. So what a crash cuts was
//! told to nobody, and an operation that the log holds in part is as good as one that stopped there: each record by itself leaves a state
//! in which nobody owns what another one owns.
//!
//! Invariants: a partition has one holder at most; an assignment epoch is the group's epoch of its grant, so it rises from owner to owner;
//! an instance name belongs to one member; a member's id is the group's epoch of its joining.
//!
//! Not here: offsets that members commit; fencing at the partitions (they compare assignment epochs); who may join; how long a heartbeat
//! waits; writing the log and answering (shard/); names of groups and the first epoch of a group (whoever creates it).

use crate::constants::TOPIC_NAME_BYTES_MAX;
use crate::ids::PartitionUid;
use std::fmt;
use tramline_wire::group::Assignor;

mod assign;
mod durable;
mod group;
mod stored;
#[cfg(test)]
mod tests;

pub use durable::{Durable, RestoreError};
pub use group::{Grant, Group, MemberView};
pub use stored::{CHANGE_SCHEMA, Change, PAYLOAD_BYTES_MAX, StoredChangeError, decode, encode};

/// Members of a group, at most. Each change of members costs a pass over members and partitions, and a thousand
/// members that join one by one cause a thousand of them. Fewer would exclude groups that exist elsewhere.
pub const MEMBERS_MAX: usize = 1_000;
/// Topics a member names, at most: with `MEMBERS_MAX` members 100,000 names, of 249 bytes at most.
pub const TOPICS_PER_MEMBER_MAX: usize = 100;
/// Bytes of an instance name, at most: as a topic's, because people make them in the same way (and a length is one byte in the log).
pub const INSTANCE_BYTES_MAX: usize = TOPIC_NAME_BYTES_MAX as usize;
/// Bytes of what a client says of itself, at most: its length is one byte in the log.
pub const CLIENT_BYTES_MAX: usize = 255;
/// Shortest session timeout. Below it a pause of a client's garbage collector, or of one flush of a disk, moves partitions.
pub const SESSION_TIMEOUT_MS_MIN: u32 = 1_000;
/// Longest session timeout, an hour: so long may partitions of a dead member be read by nobody.
pub const SESSION_TIMEOUT_MS_MAX: u32 = 3_600_000;
/// Rounds of balancing between topics with different subscribers, at most. Each round is a pass over all of them; where everybody
/// subscribes to the same topics the first one is the last. What is not balanced by then waits for the next change.
pub const BALANCE_ROUNDS_MAX: usize = 16;

/// Appends the partitions of the topic with this name; none when there is no such topic. Asked only when targets are computed.
pub type PartitionsOf<'a> = &'a dyn Fn(&str, &mut Vec<PartitionUid>);

/// What all members of a group have in common. The first member brings it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How targets are computed.
    pub assignor: Assignor,
    /// A member that is silent for so long is dropped, `SESSION_TIMEOUT_MS_MIN..=SESSION_TIMEOUT_MS_MAX`.
    pub session_timeout_ms: u32,
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "assignor {}, session timeout {} ms", self.assignor.name(), self.session_timeout_ms)
    }
}

/// Somebody who wants to be a member.
#[derive(Clone, Copy, Debug)]
pub struct Join<'a> {
    /// A name of its own that survives its restarts (a static member), 1 to `INSTANCE_BYTES_MAX` bytes.
    pub instance: Option<&'a str>,
    /// What it says of itself, for whoever looks at the group, at most `CLIENT_BYTES_MAX` bytes.
    pub client: &'a str,
    /// Names of topics, in any order, 1 to `TOPICS_PER_MEMBER_MAX`. They need not exist.
    pub topics: &'a [&'a str],
    /// See `Settings`.
    pub session_timeout_ms: u32,
    /// See `Settings`.
    pub assignor: Assignor,
    /// For administrators: only as the only member, and nobody else may join until it is gone.
    pub only_if_empty: bool,
}

/// A word of a member that is alive.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeat<'a> {
    /// The member's instance name, as when it joined.
    pub instance: Option<&'a str>,
    /// The newest `granted_epoch` that it has put in force; 0 before the first one.
    pub acked_epoch: u64,
    /// How long the answer may wait for news: so much longer it may be silent. The caller has bounded it.
    pub wait_ms: u32,
    /// Its topics, when they are other ones now.
    pub topics: Option<&'a [&'a str]>,
}

/// Why a member's request is refused. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MembershipError {
    /// The group has no such member (any more): join again.
    UnknownMember,
    /// A newer member has the instance name: stop, and do not join again.
    Fenced,
    /// The member acknowledges an epoch that it was never told.
    EpochAhead {
        /// What it says.
        acked_epoch: u64,
        /// What its last grant has.
        granted_epoch: u64,
    },
    /// The group has other settings, and other members.
    MixedSettings {
        /// What the group has.
        group: Settings,
        /// What the joiner wants.
        joiner: Settings,
    },
    /// It wants to be alone, and there are members.
    GroupNotEmpty,
    /// An administrator is in the group, alone: try again later.
    Busy,
    /// `MEMBERS_MAX` are there.
    TooManyMembers,
    /// Not 1 to `TOPICS_PER_MEMBER_MAX` topics.
    TopicCount(usize),
    /// A topic's name of so many bytes, not 1 to `TOPIC_NAME_BYTES_MAX`.
    TopicNameBytes(usize),
    /// An instance name of so many bytes, not 1 to `INSTANCE_BYTES_MAX`.
    InstanceBytes(usize),
    /// More than `CLIENT_BYTES_MAX` bytes about the client.
    ClientBytes(usize),
    /// A session timeout that is out of range.
    SessionTimeout {
        /// What the joiner wants.
        session_timeout_ms: u32,
    },
}

impl fmt::Display for MembershipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MembershipError::UnknownMember => f.write_str("the group has no such member; join again"),
            MembershipError::Fenced => f.write_str("a newer member has this instance name"),
            MembershipError::EpochAhead { acked_epoch, granted_epoch } => {
                write!(f, "epoch {acked_epoch} is acknowledged, the member's grant has epoch {granted_epoch}")
            }
            MembershipError::MixedSettings { group, joiner } => {
                write!(f, "mixed settings: the group has {group}; the joiner wants {joiner}")
            }
            MembershipError::GroupNotEmpty => f.write_str("the group has members"),
            MembershipError::Busy => f.write_str("an administrator has the group for itself; try again later"),
            MembershipError::TooManyMembers => write!(f, "the group has {MEMBERS_MAX} members, more are not allowed"),
            MembershipError::TopicCount(count) => write!(f, "{count} topics, a member has 1 to {TOPICS_PER_MEMBER_MAX}"),
            MembershipError::TopicNameBytes(bytes) => write!(f, "a topic's name of {bytes} bytes, it has 1 to {TOPIC_NAME_BYTES_MAX}"),
            MembershipError::InstanceBytes(bytes) => write!(f, "an instance name of {bytes} bytes, it has 1 to {INSTANCE_BYTES_MAX}"),
            MembershipError::ClientBytes(bytes) => write!(f, "{bytes} bytes about the client, at most {CLIENT_BYTES_MAX} are kept"),
            MembershipError::SessionTimeout { session_timeout_ms } => {
                write!(f, "a session timeout of {session_timeout_ms} ms, it is {SESSION_TIMEOUT_MS_MIN} to {SESSION_TIMEOUT_MS_MAX} ms")
            }
        }
    }
}

impl std::error::Error for MembershipError {}
