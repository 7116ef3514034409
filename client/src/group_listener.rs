//! What a member of a consumer group is told, and what it says: partitions that come and go, offsets and what became of them.
//!
//! Not here: being the member (`group_consumer.rs`, and `core/group` below it).

use crate::error::Error;

/// A partition by its topic and number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// Topic.
    pub topic: String,
    /// Number within the topic.
    pub partition: u32,
}

/// An offset to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// The next offset to read: one past the last record that is done.
    pub offset: u64,
    /// A text that is kept with it, at most 4,096 bytes, else nothing of the call that commits it is committed; shown to whoever asks for it.
    pub metadata: String,
}

/// What became of an offset that was to be committed.
#[derive(Debug, Clone)]
pub struct CommitOutcome {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
    /// `None`: it is on stable storage. [`ErrorCode::StaleAssignment`](crate::ErrorCode::StaleAssignment): another member has the partition. [`Error::Timeout`]: it may
    /// or may not be committed.
    pub error: Option<Error>,
}

/// Partitions that are about to be given up: the last chance to commit them.
#[derive(Debug)]
pub struct Revoked<'a> {
    pub(crate) partitions: &'a [TopicPartition],
    /// Next offset to hand out, by place.
    pub(crate) positions: Vec<Option<u64>>,
    pub(crate) commits: Vec<Commit>,
}

impl Revoked<'_> {
    /// The partitions. No record of them is handed out any more.
    pub fn partitions(&self) -> &[TopicPartition] {
        self.partitions
    }

    /// The partitions with the next offset that would have been handed out; `None` where reading never began.
    pub fn positions(&self) -> impl Iterator<Item = (&TopicPartition, Option<u64>)> {
        self.partitions.iter().zip(self.positions.iter().copied())
    }

    /// Commits an offset of one of them before it goes. It is on its way when the callback returns, and the partition is not given up before it has arrived (or
    /// `call_timeout` is over, or a third of `session_timeout` where that is less: the next owner waits for it). Takes the place of what `auto_commit` would commit of the partition. A
    /// partition that is none of these is left out. A text above 4,096 bytes refuses everything that is committed in this callback; the next `poll` tells it.
    pub fn commit(&mut self, partition: &TopicPartition, offset: u64, metadata: &str) {
        if self.partitions.contains(partition) {
            let TopicPartition { topic, partition } = partition.clone();
            self.commits.retain(|commit| (&commit.topic, commit.partition) != (&topic, partition));
            self.commits.push(Commit { topic, partition, offset, metadata: metadata.to_string() });
        }
    }
}

/// Callbacks of a [`GroupConsumer`](crate::GroupConsumer), all of them called inside of `poll` and `close`, on the caller's thread; `()` has none of its own.
pub trait GroupListener: Send {
    /// These partitions are the member's from now on, in addition to those it has; their records come after this call.
    fn on_assigned(&mut self, _partitions: &[TopicPartition]) {}
    /// These are given up; the others go on. Nobody else reads them before this has returned and what it commits has arrived.
    fn on_revoked(&mut self, _revoked: &mut Revoked<'_>) {}
    /// These are gone: the member was dropped, or a later owner has them already. What was not committed is read again by somebody else, and can be committed no more.
    fn on_lost(&mut self, _partitions: &[TopicPartition]) {}
    /// What became of a `commit_async`.
    fn on_committed(&mut self, _outcomes: &[CommitOutcome]) {}
}

impl GroupListener for () {}
