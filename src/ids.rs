//! Newtypes for everything that could be swapped for something else, and the map that is keyed by them. No other logic here.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id!(/// A node of the cluster; 1 on a node that was never joined to others.
    NodeId(u32));
id!(/// A node's copy of a group, as votes and configurations name it: `ReplicaId::of`.
    ReplicaId(u64));
id!(/// A shard (one core) of a node, from 0.
    ShardId(u16));
id!(/// A replica group: the unit of replication and failover. 0 is the cluster's metadata.
    GroupId(u32));
id!(/// A plan to change the nodes that have a group; never reused.
    MoveId(u64));
id!(/// A topic, never reused, also not by a topic of the same name.
    TopicUid(u64));
id!(/// A partition, never reused.
    PartitionUid(u64));
id!(/// A consumer group or a queue, never reused, also not by one of the same name.
    SubscriptionUid(u64));
id!(/// A member of a consumer group, never reused within it; 0 is none.
    MemberId(u64));
id!(/// An idempotent producer, never reused; 0 is none.
    ProducerId(u64));
id!(/// A record's place in its partition, from 0.
    Offset(u64));
id!(/// A block's number in its shard's log, from 1, without holes.
    BlockSeq(u64));
id!(/// A segment's number in its shard, never reused although its file may be.
    SegmentUid(u64));
id!(/// A start of this shard's log; raised durably before a start's first write.
    Incarnation(u64));
id!(/// Raft term.
    Term(u64));
id!(/// Raft log index within one group.
    LogIndex(u64));
id!(/// A connection of this shard; never reused while the process lives.
    ConnId(u64));
id!(/// A file as the core names it; the edge maps it to a descriptor.
    FileId(u64));

impl ReplicaId {
    /// That of a node that has had `generation` disks before this one. A node whose disk was replaced is another replica: nothing that its predecessor voted
    /// for or acknowledged is taken for its own (docs/REPLICATION.md, 1).
    pub const fn of(generation: u32, node: NodeId) -> ReplicaId {
        ReplicaId((generation as u64) << 32 | node.0 as u64)
    }
    /// The node.
    pub const fn node(self) -> NodeId {
        NodeId(self.0 as u32)
    }
    /// How many disks the node had before.
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// A map keyed by one of these numbers. Its hash is fixed, so that nothing depends on a random seed.
pub type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// Ids are counters: one multiplication spreads them.
#[derive(Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }
    fn write_u16(&mut self, value: u16) {
        self.write_u64(u64::from(value));
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(26);
    }
}

/// An identity's bytes as digits, as people see them.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
