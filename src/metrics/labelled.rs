//! Numbers that have a name of their own: of queues, and of consumer groups. Unlike those of `numbers.rs` there are as many as users make.
//!
//! Invariants: a shard tells at most [`NAMES_MAX`] of each; what is beyond is in the line of no name, or counted as left out.
//!
//! Not here: who fills them (the shard, when it is asked), the text (`admin/prometheus.rs`).

/// Queues, and groups, that a shard tells by their names: a page with a thousand lines of each is what a scrape bears.
pub const NAMES_MAX: usize = 1_000;

/// How a queue stands on a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueNumbers {
    /// Its name; empty for all beyond the limit together.
    pub name: String,
    /// Messages that may be delivered now, of those that were looked at.
    pub ready: u64,
    /// Messages under lease.
    pub leased: u64,
    /// Messages that wait for their time or their turn.
    pub delayed: u64,
    /// Messages that were given up and are still here.
    pub dead: u64,
    /// Age of the oldest message that is not settled, in microseconds; 0 without one, and where there is no name.
    pub oldest_age_us: u64,
}

/// How far a consumer group is behind on a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupNumbers {
    /// Its name.
    pub name: String,
    /// Records that are not read, in partitions of which it has committed something.
    pub lag_messages: u64,
    /// Their bytes.
    pub lag_bytes: u64,
    /// Age of the oldest of them, in microseconds.
    pub lag_us: u64,
    /// Until nothing is left at the present pace, in microseconds; `None` where the lag of a partition does not fall.
    pub drain_us: Option<u64>,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labelled {
    /// By uid.
    pub queues: Vec<QueueNumbers>,
    /// By uid.
    pub groups: Vec<GroupNumbers>,
}
