//! Asking a shard for its numbers: the request, its answer, and the way to a shard.
//!
//! Invariants: a request is answered at most once; a shard that goes away drops the request, and the asker sees that; asking never blocks
//! either side.
//!
//! Not here: how the request reaches the shard (`runtime/`), what is done with the answer (`admin/`).

use super::labelled::Labelled;
use super::{ERROR_CODES, Interval, REQUEST_KINDS, ShardCounters, ShardGauges};
use crate::ids::ShardId;
use tokio::sync::oneshot;

/// The numbers of one shard at one time.
#[derive(Debug)]
pub struct ShardSnapshot {
    /// When it was taken, UTC microseconds.
    pub utc_us: i64,
    /// What has happened since the start.
    pub counters: ShardCounters,
    /// How things stood.
    pub gauges: ShardGauges,
    /// Numbers of queues and groups by name.
    pub labelled: Labelled,
    /// Requests since the start, by kind number.
    pub requests: [u64; REQUEST_KINDS],
    /// Errors answered since the start, by code number.
    pub errors: [u64; ERROR_CODES],
    /// Timings since the previous full snapshot; there if the request carried a spare.
    pub interval: Option<Box<Interval>>,
}

/// Asks a shard for its numbers. Hand it to `ShardMetrics::answer`.
#[derive(Debug)]
pub struct SnapshotRequest {
    /// An empty interval that takes the place of the one handed out; `None` asks for counters and gauges only.
    pub spare: Option<Box<Interval>>,
    /// Where the answer goes.
    pub reply: SnapshotReply,
}

/// Where a snapshot goes.
#[derive(Debug)]
pub struct SnapshotReply(oneshot::Sender<ShardSnapshot>);

impl SnapshotReply {
    /// Hands the snapshot over. An asker that has gone away does not matter: its totals went with it.
    pub fn send(self, snapshot: ShardSnapshot) {
        let _ = self.0.send(snapshot);
    }
}

/// The asker's end.
#[derive(Debug)]
pub struct PendingSnapshot(oneshot::Receiver<ShardSnapshot>);

impl PendingSnapshot {
    /// The answer, if it is there.
    pub fn try_take(&mut self) -> Option<ShardSnapshot> {
        self.0.try_recv().ok()
    }
    /// Waits for the answer; `None` when the shard dropped the request.
    pub async fn take(&mut self) -> Option<ShardSnapshot> {
        (&mut self.0).await.ok()
    }
}

/// A request and the end where its answer arrives.
pub fn snapshot_request(spare: Option<Box<Interval>>) -> (SnapshotRequest, PendingSnapshot) {
    let (sender, receiver) = oneshot::channel();
    (SnapshotRequest { spare, reply: SnapshotReply(sender) }, PendingSnapshot(receiver))
}

/// The shard is not there any more (stopped or failed).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardGone;

/// The way to the shards' numbers, given to the housekeeping thread by whoever runs the shards.
pub trait SnapshotSource: Send + Sync {
    /// Number of shards of this node.
    fn shards(&self) -> u16;
    /// Hands `request` to `shard` and wakes it if it sleeps. Never blocks. The shard answers in its next turn.
    fn request(&self, shard: ShardId, request: SnapshotRequest) -> Result<(), ShardGone>;
}
