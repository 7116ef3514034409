//! Topic administration: CreateTopic (8), AlterTopic (9), DeleteTopic (10), ListTopics (11), DescribeTopic (12) and
//! DescribeOptions (13).
//!
//! Not here: which settings exist and what they mean; DescribeOptions answers that at run time.

use crate::error::ErrorCode;
use crate::prim::{DecodeError, Item, List, Reader, flags, layout};

/// The committed end of a partition whose numbers the node that answers does not know, since another one leads it. No partition has so many records.
pub const END_UNKNOWN: u64 = u64::MAX;

layout! {
    /// A setting and its value.
    pub struct Setting<'a> {
        /// Name.
        pub key: &'a str;
        /// Value as text.
        pub value: &'a str;
    }
}

flags! {
    /// Flags of CreateTopic.
    pub struct CreateFlags(u8, "create flags") {
        /// A topic of this name is fine.
        IF_NOT_EXISTS = 1;
        /// Check everything, create nothing.
        VALIDATE_ONLY = 2;
    }
}

layout! {
    /// Create a topic.
    pub struct CreateTopicRequest<'a> {
        /// Its name.
        pub name: &'a str;
        /// Number of partitions.
        pub partitions: u32;
        /// Number of replicas; 0 for the cluster's default.
        pub replication: u16;
        /// Flags.
        pub flags: CreateFlags;
        /// Explicit settings.
        pub settings: List<'a, Setting<'a>>;
    }
}

layout! {
    /// The topic.
    pub struct CreateTopicReply {
        /// Its identity; 0 after validate-only.
        pub topic_uid: u64;
        /// Whether this request created it.
        pub created: bool;
        /// Number of partitions it has.
        pub partitions: u32;
    }
}

layout! {
    /// Change a topic.
    pub struct AlterTopicRequest<'a> {
        /// Its name.
        pub name: &'a str;
        /// New number of partitions; 0 keeps it. It cannot shrink.
        pub partitions: u32;
        /// New number of replicas, by itself: with more partitions or settings it is refused. 0 keeps it.
        pub replication: u16;
        /// Settings to change; an empty value means back to the default.
        pub settings: List<'a, Setting<'a>>;
    }
}

layout! {
    /// Changed.
    pub struct AlterTopicReply {}
}

layout! {
    /// Delete a topic.
    pub struct DeleteTopicRequest<'a> {
        /// Its name.
        pub name: &'a str;
    }
}

layout! {
    /// Deleted.
    pub struct DeleteTopicReply {}
}

layout! {
    /// List all topics.
    pub struct ListTopicsRequest {}
}

layout! {
    /// A topic in a list.
    pub struct TopicItem<'a> {
        /// Its name.
        pub name: &'a str;
        /// Its identity.
        pub topic_uid: u64;
        /// Number of partitions.
        pub partitions: u32;
    }
}

layout! {
    /// All topics, in order of name.
    pub struct ListTopicsReply<'a> {
        /// The topics.
        pub topics: List<'a, TopicItem<'a>>;
    }
}

layout! {
    /// Describe one topic.
    pub struct DescribeTopicRequest<'a> {
        /// Its name.
        pub name: &'a str;
    }
}

/// Where an effective setting comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Origin {
    /// Nobody set it.
    #[default]
    Default = 0,
    /// Set for this topic.
    Explicit = 1,
}

impl Origin {
    /// The name shown to users.
    pub const fn name(self) -> &'static str {
        match self {
            Origin::Default => "default",
            Origin::Explicit => "explicit",
        }
    }
}

impl<'a> Item<'a> for Origin {
    const BYTES_MIN: usize = 1;
    fn read(from: &mut Reader<'a>) -> Result<Origin, DecodeError> {
        match from.u8()? {
            0 => Ok(Origin::Default),
            1 => Ok(Origin::Explicit),
            other => Err(DecodeError::UnknownValue { what: "origin of a setting", value: other as u64, code: ErrorCode::Malformed }),
        }
    }
    fn write(&self, to: &mut Vec<u8>) {
        to.push(*self as u8);
    }
}

layout! {
    /// An effective setting.
    pub struct EffectiveSetting<'a> {
        /// Name.
        pub key: &'a str;
        /// Value as text.
        pub value: &'a str;
        /// Where it comes from.
        pub origin: Origin;
    }
}

layout! {
    /// A partition's place and size.
    pub struct PartitionInfo {
        /// Number within the topic, from 0.
        pub index: u32;
        /// Identity.
        pub uid: u64;
        /// Replica group.
        pub group: u32;
        /// Node of the leader, as far as the node that answers knows.
        pub node: u32;
        /// Shard of the leader.
        pub shard: u16;
        /// First offset that still exists.
        pub log_start: u64;
        /// First offset that is not committed; [`END_UNKNOWN`]: the node that answers does not lead the partition, and none of its numbers is told.
        pub committed_end: u64;
        /// Bytes of its batches in the log.
        pub bytes: u64;
        /// Segments that hold some of it.
        pub segments: u32;
    }
}

layout! {
    /// One topic.
    pub struct DescribeTopicReply<'a> {
        /// Its identity.
        pub topic_uid: u64;
        /// Its name.
        pub name: &'a str;
        /// When it was created, UTC microseconds.
        pub created_us: i64;
        /// Replicas that it is to have.
        pub replication: u16;
        /// All settings.
        pub settings: List<'a, EffectiveSetting<'a>>;
        /// All partitions in order of index.
        pub partitions: List<'a, PartitionInfo>;
    }
}

layout! {
    /// List the settings a topic can have.
    pub struct DescribeOptionsRequest {}
}

layout! {
    /// A setting a topic can have.
    pub struct OptionItem<'a> {
        /// Name.
        pub key: &'a str;
        /// `integer`, `text`, `choice`, ...
        pub kind: &'a str;
        /// Unit of the value; empty when it has none.
        pub unit: &'a str;
        /// Default as text.
        pub default: &'a str;
        /// Smallest value as text; empty when there is none.
        pub min: &'a str;
        /// Largest value as text; empty when there is none.
        pub max: &'a str;
        /// What it does.
        pub doc: &'a str;
    }
}

layout! {
    /// All settings.
    pub struct DescribeOptionsReply<'a> {
        /// In order of key.
        pub options: List<'a, OptionItem<'a>>;
    }
}
