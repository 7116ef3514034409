//! Metadata (kind 2): nodes, topics, partitions and who owns them.
//!
//! Not here: settings and sizes of topics (`topics`).

use crate::error::ErrorCode;
use crate::hello::Node;
use crate::prim::{List, layout};

layout! {
    /// Topics to look up.
    pub struct MetadataRequest<'a> {
        /// Names; empty for all.
        pub topics: List<'a, &'a str>;
    }
}

layout! {
    /// A partition and its owner.
    pub struct PartitionMeta {
        /// Number within the topic, from 0.
        pub index: u32;
        /// Identity; never used again.
        pub uid: u64;
        /// Replica group that carries it.
        pub group: u32;
        /// Node of the leader.
        pub leader_node: u32;
        /// Shard of the leader.
        pub leader_shard: u16;
        /// Term of the leader: a higher one is newer.
        pub term: u64;
    }
}

layout! {
    /// A topic and its partitions.
    pub struct TopicMeta<'a> {
        /// `Ok`, or why there is nothing else here.
        pub error: ErrorCode;
        /// Name as asked.
        pub name: &'a str;
        /// Identity; never used again, also not by a topic of the same name.
        pub topic_uid: u64;
        /// Partitions in order of index.
        pub partitions: List<'a, PartitionMeta>;
    }
}

layout! {
    /// The cluster as the node sees it.
    pub struct MetadataReply<'a> {
        /// Grows with each change: a client keeps the highest it has seen.
        pub view_epoch: u64;
        /// All nodes.
        pub nodes: List<'a, Node<'a>>;
        /// Topics asked for.
        pub topics: List<'a, TopicMeta<'a>>;
    }
}
