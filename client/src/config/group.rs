//! Settings of a member of a consumer group, with units, defaults and the reason of each number.
//!
//! Not here: their ranges (`bounds`).

use std::time::Duration;

use tramline_wire::group::Assignor;

use super::ConsumerConfig;

/// Where a member begins in a partition of which the group has committed nothing, or whose committed offset does not exist any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OffsetReset {
    /// At the first record that still exists: nothing is left out.
    #[default]
    Earliest,
    /// Behind the last record: what was produced before the member came is left out.
    Latest,
    /// Nowhere: the partition is not read, and `poll` tells an error that says so, until somebody seeks.
    None,
}

/// Settings of a [`GroupConsumer`](crate::GroupConsumer). `group` and `topics` have no default.
#[derive(Debug, Clone)]
pub struct GroupConfig {
    /// Name of the group, which is created where there is none. The rules of topic names.
    pub group: String,
    /// Names of the topics whose partitions the group shares; one that does not exist yet counts once it does. 1 to 100.
    pub topics: Vec<String>,
    /// Makes the member a static one: who comes back under this name within the session timeout has its partitions as before, and nobody else notices. Two
    /// processes with one name push each other out. 1 to 249 bytes.
    pub instance_id: Option<String>,
    /// A member that is not heard of for so long is dropped, and its partitions go to others. A member is heard of inside of `poll` (and `commit`) only, so this has to be
    /// longer than the longest work between two polls. Default 30 s; 1 s to 1 h. The same for all members of a group.
    pub session_timeout: Duration,
    /// How partitions are divided. The same for all members of a group.
    pub assignor: Assignor,
    /// Where to begin where nothing is committed.
    pub auto_offset_reset: OffsetReset,
    /// Commit by itself: each `auto_commit_interval`, before a partition is given up, and when the member is closed. What is committed was handed out, and then
    /// `poll` was called again: so who works on records before the next `poll` loses none. Default true.
    pub auto_commit: bool,
    /// Time between two such commits, which is what may be handed out a second time after a crash. Default 5 s; 10 ms to 1 h.
    pub auto_commit_interval: Duration,
    /// How records are read.
    pub consumer: ConsumerConfig,
}

impl GroupConfig {
    /// Defaults, for this group and these topics.
    pub fn new(group: &str, topics: &[&str]) -> GroupConfig {
        GroupConfig {
            group: group.to_string(),
            topics: topics.iter().map(ToString::to_string).collect(),
            instance_id: None,
            session_timeout: Duration::from_secs(30),
            assignor: Assignor::Sticky,
            auto_offset_reset: OffsetReset::Earliest,
            auto_commit: true,
            auto_commit_interval: Duration::from_secs(5),
            consumer: ConsumerConfig::default(),
        }
    }
}
