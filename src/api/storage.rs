//! DescribeStorage: the answer from what the shards said.
//!
//! Not here: the numbers (shard/).

use crate::ids::NodeId;
use tramline_wire::prim::List;
use tramline_wire::storage::{DescribeStorageReply, ShardStorage};

/// Appends the answer; `shards` in any order.
pub fn describe(out: &mut Vec<u8>, node: NodeId, shards: &[ShardStorage]) {
    let mut shards = shards.to_vec();
    shards.sort_unstable_by_key(|storage| storage.shard);
    DescribeStorageReply { node: node.0, shards: List::of(&shards) }.encode(out);
}
