//! Consumer groups: FindGroup (32), JoinGroup (33), HeartbeatGroup (34), LeaveGroup (35), CommitOffsets (36), FetchOffsets (37), ListGroups (38),
//! DescribeGroup (39) and DeleteGroup (40).
//!
//! Who is a member is known to the group's home, one shard; a committed offset lives with its partition. What ties the two together is the
//! *assignment epoch*: the home gives one with each partition, higher for each next owner, and the partition refuses offsets with a lower one than it
//! has seen.
//!
//! Not here: the rules of membership (docs/PROTOCOL.md, "Consumer groups"), reading records ([`crate::fetch`]).

use crate::error::ErrorCode;
use crate::prim::{DecodeError, Item, List, Reader, flags, layout};

/// An offset that is none: nothing was committed, or what was is to be forgotten.
pub const OFFSET_NONE: u64 = u64::MAX;
/// A duration or time that is not known, or has no end.
pub const TIME_NONE: u64 = u64::MAX;
/// Bytes of the text that goes with a committed offset, at most.
pub const OFFSET_METADATA_BYTES_MAX: usize = 4096;

flags! {
    /// Flags of FindGroup.
    pub struct FindGroupFlags(u8, "find group flags") {
        /// Create the group where there is none.
        CREATE = 1;
    }
}

layout! {
    /// Asks where a group is at home.
    pub struct FindGroupRequest<'a> {
        /// Its name.
        pub name: &'a str;
        /// Flags.
        pub flags: FindGroupFlags;
    }
}

layout! {
    /// The group and its home.
    pub struct FindGroupReply {
        /// Its identity, never given to another group, also not to one of the same name.
        pub group_uid: u64;
        /// The node that its home is on.
        pub node: u32;
        /// The shard of that node.
        pub shard: u16;
        /// Whether this request created it.
        pub created: bool;
    }
}

/// How partitions are divided among members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Assignor {
    /// As evenly as can be; of the ways to do that, the one that moves the fewest partitions.
    #[default]
    Sticky = 0,
    /// As evenly as can be, by the order of members alone: the same members have the same partitions whoever came first.
    Uniform = 1,
}

impl Assignor {
    /// Every assignor.
    pub const ALL: &'static [Assignor] = &[Assignor::Sticky, Assignor::Uniform];

    /// The name that users write.
    pub const fn name(self) -> &'static str {
        match self {
            Assignor::Sticky => "sticky",
            Assignor::Uniform => "uniform",
        }
    }

    /// The assignor with this number.
    pub const fn from_u8(number: u8) -> Option<Assignor> {
        match number {
            0 => Some(Assignor::Sticky),
            1 => Some(Assignor::Uniform),
            _ => None,
        }
    }
}

impl<'a> Item<'a> for Assignor {
    const BYTES_MIN: usize = 1;
    fn read(from: &mut Reader<'a>) -> Result<Assignor, DecodeError> {
        let number = from.u8()?;
        Assignor::from_u8(number).ok_or(DecodeError::UnknownValue { what: "assignor", value: number as u64, code: ErrorCode::Malformed })
    }
    fn write(&self, to: &mut Vec<u8>) {
        to.push(*self as u8);
    }
}

flags! {
    /// Flags of JoinGroup.
    pub struct JoinFlags(u8, "join flags") {
        /// Only if the group has no member, and then alone: for those who move a group's offsets.
        ALONE = 1;
    }
}

layout! {
    /// Become a member.
    pub struct JoinGroupRequest<'a> {
        /// The group.
        pub group_uid: u64;
        /// Flags.
        pub flags: JoinFlags;
        /// How partitions are divided: the same for all members.
        pub assignor: Assignor => zero 2;
        /// A member that is not heard of for so long is dropped, in milliseconds: the same for all members.
        pub session_timeout_ms: u32;
        /// Name of a static member, which keeps its partitions over a restart; empty for an ordinary one.
        pub instance: &'a str;
        /// Who this is, for `describe`.
        pub client: &'a str;
        /// Names of the topics it reads; one that does not exist yet counts once it does.
        pub topics: List<'a, &'a str>;
    }
}

layout! {
    /// A partition that a member may own now.
    pub struct GrantedPartition {
        /// The partition.
        pub partition_uid: u64;
        /// What FetchOffsets and CommitOffsets of it have to carry.
        pub assignment_epoch: u64;
    }
}

layout! {
    /// Joined.
    pub struct JoinGroupReply<'a> {
        /// The member, never given twice.
        pub member_id: u64;
        /// The epoch of the list that follows.
        pub epoch: u64;
        /// What it may own now.
        pub partitions: List<'a, GrantedPartition>;
    }
}

flags! {
    /// Flags of HeartbeatGroup.
    pub struct HeartbeatFlags(u8, "heartbeat flags") {
        /// `topics` takes the place of what the member said before.
        TOPICS = 1;
    }
}

layout! {
    /// Still here, and what is in force.
    pub struct HeartbeatGroupRequest<'a> {
        /// The group.
        pub group_uid: u64;
        /// The member.
        pub member_id: u64;
        /// The epoch of the list that the member has put in force: it owns the partitions of that list and no others.
        pub epoch: u64;
        /// How long the answer may wait for another list, in milliseconds.
        pub wait_ms: u32;
        /// Flags.
        pub flags: HeartbeatFlags => zero 3;
        /// Name of a static member, as it joined; else empty.
        pub instance: &'a str;
        /// Names of the topics it reads from now on; empty without `TOPICS`.
        pub topics: List<'a, &'a str>;
    }
}

layout! {
    /// The list now.
    pub struct HeartbeatGroupReply<'a> {
        /// Its epoch. The epoch of the request: nothing has changed, and the list is left out.
        pub epoch: u64;
        /// What the member may own now.
        pub partitions: List<'a, GrantedPartition>;
    }
}

flags! {
    /// Flags of LeaveGroup.
    pub struct LeaveFlags(u8, "leave flags") {
        /// A static member that comes back: it keeps its partitions until its session times out.
        KEEP = 1;
    }
}

layout! {
    /// Leave the group: the partitions go to others at once.
    pub struct LeaveGroupRequest<'a> {
        /// The group.
        pub group_uid: u64;
        /// The member.
        pub member_id: u64;
        /// Flags.
        pub flags: LeaveFlags => zero 3;
        /// Name of a static member, as it joined; else empty.
        pub instance: &'a str;
    }
}

layout! {
    /// Left.
    pub struct LeaveGroupReply {}
}

layout! {
    /// How far one partition was read.
    pub struct OffsetCommit<'a> {
        /// The partition.
        pub partition_uid: u64;
        /// The assignment epoch; 0 for who is in no group (refused once the partition has had an owner).
        pub assignment_epoch: u64;
        /// The next offset to read; [`OFFSET_NONE`] forgets what was committed.
        pub offset: u64;
        /// A text of the user's, at most [`OFFSET_METADATA_BYTES_MAX`] bytes.
        pub metadata: &'a str;
    }
}

layout! {
    /// Commit offsets, durably. All partitions are of one leader.
    pub struct CommitOffsetsRequest<'a> {
        /// The group.
        pub group_uid: u64;
        /// Each partition for itself: one that is refused does not stop the others.
        pub entries: List<'a, OffsetCommit<'a>>;
    }
}

layout! {
    /// What became of one partition's offset.
    pub struct OffsetCommitted {
        /// The partition.
        pub partition_uid: u64;
        /// `Ok` (it is durable), or why it was not taken.
        pub error: ErrorCode => zero 2;
    }
}

layout! {
    /// Answers in the order of the entries.
    pub struct CommitOffsetsReply<'a> {
        /// One per entry.
        pub entries: List<'a, OffsetCommitted>;
    }
}

layout! {
    /// Which offset is asked for.
    pub struct OffsetAsk {
        /// The partition.
        pub partition_uid: u64;
        /// The assignment epoch: whoever has a lower one commits no more once this is answered. 0 only looks.
        pub assignment_epoch: u64;
    }
}

layout! {
    /// Fetch committed offsets, and keep earlier owners from committing. All partitions are of one leader.
    pub struct FetchOffsetsRequest<'a> {
        /// The group.
        pub group_uid: u64;
        /// The partitions.
        pub entries: List<'a, OffsetAsk>;
    }
}

layout! {
    /// How far a partition was read.
    pub struct OffsetFetched<'a> {
        /// The partition.
        pub partition_uid: u64;
        /// `Ok`, or why nothing is told.
        pub error: ErrorCode => zero 2;
        /// The next offset to read; [`OFFSET_NONE`] where nothing was committed.
        pub offset: u64;
        /// When it was committed, UTC microseconds; 0 where nothing was.
        pub committed_us: i64;
        /// The text that was committed with it.
        pub metadata: &'a str;
    }
}

layout! {
    /// Answers in the order of the entries.
    pub struct FetchOffsetsReply<'a> {
        /// One per entry.
        pub entries: List<'a, OffsetFetched<'a>>;
    }
}

layout! {
    /// List all consumer groups.
    pub struct ListGroupsRequest {}
}

layout! {
    /// A group in a list.
    pub struct GroupItem<'a> {
        /// Its name.
        pub name: &'a str;
        /// Its identity.
        pub group_uid: u64;
        /// The node of its home.
        pub node: u32;
        /// The shard of its home.
        pub shard: u16;
        /// Members it has now.
        pub members: u32;
    }
}

layout! {
    /// All groups, in order of name.
    pub struct ListGroupsReply<'a> {
        /// The groups.
        pub groups: List<'a, GroupItem<'a>>;
    }
}

layout! {
    /// Describe one group.
    pub struct DescribeGroupRequest<'a> {
        /// Its name.
        pub name: &'a str;
        /// Only partitions of this topic, and of those behind it in order of name; empty: of all topics.
        pub from_topic: &'a str;
        /// The first partition of `from_topic` to tell of, by its number.
        pub from_partition: u32;
    }
}

layout! {
    /// A member of a group.
    pub struct GroupMember<'a> {
        /// Its identity.
        pub member_id: u64;
        /// Name of a static member; else empty.
        pub instance: &'a str;
        /// Who it says it is.
        pub client: &'a str;
        /// Partitions it may own now.
        pub partitions: u32;
        /// Partitions it is going to have.
        pub target: u32;
        /// Whether it has put in force what it was told last.
        pub is_settled: bool;
    }
}

layout! {
    /// One partition as a group sees it.
    pub struct GroupPartition<'a> {
        /// The partition's topic.
        pub topic: &'a str;
        /// Number within the topic.
        pub index: u32;
        /// Identity.
        pub uid: u64;
        /// The member that may own it now; 0 for none.
        pub member_id: u64;
        /// The committed offset; [`OFFSET_NONE`] for none.
        pub offset: u64;
        /// When it was committed, UTC microseconds; 0 where nothing was.
        pub committed_us: i64;
        /// First offset that still exists.
        pub log_start: u64;
        /// First offset that is not committed to the log; [`END_UNKNOWN`](crate::topics::END_UNKNOWN): the node that answers does not lead the partition, and tells
        /// no number of it.
        pub committed_end: u64;
        /// Bytes of the batches from the committed offset on (of all batches where none was committed): exact to a batch at the tail, in
        /// proportion to offsets within a sealed segment.
        pub lag_bytes: u64;
        /// Age of the oldest record that is not read, in milliseconds; 0 where all are. Within a sealed segment in proportion to offsets.
        pub lag_ms: u64;
        /// How long until nothing is left at the rate of late, in milliseconds; [`TIME_NONE`] where the lag does not fall.
        pub drain_ms: u64;
    }
}

layout! {
    /// One group.
    pub struct DescribeGroupReply<'a> {
        /// Its identity.
        pub group_uid: u64;
        /// Its name.
        pub name: &'a str;
        /// The node of its home.
        pub node: u32;
        /// The shard of its home.
        pub shard: u16;
        /// The epoch of its last change.
        pub epoch: u64;
        /// How partitions are divided.
        pub assignor: Assignor => zero 3;
        /// A member that is not heard of for so long is dropped, in milliseconds; 0 before anybody has joined.
        pub session_timeout_ms: u32;
        /// Its members, by identity.
        pub members: List<'a, GroupMember<'a>>;
        /// Whether there are more partitions behind the last one.
        pub more: bool;
        /// Partitions that it has committed an offset of or that a member owns, by topic and number; 1 at least where there are more.
        pub partitions: List<'a, GroupPartition<'a>>;
    }
}

layout! {
    /// Delete a group with its offsets. It must have no members.
    pub struct DeleteGroupRequest<'a> {
        /// Its name.
        pub name: &'a str;
    }
}

layout! {
    /// Deleted.
    pub struct DeleteGroupReply {}
}
