//! The queues between shards, and from the housekeeping thread to a shard. Bounded; a full one is kept by the sender.
//!
//! Invariants: messages of one sender to one receiver arrive in order; a receiver that sleeps is woken; sending never blocks.
//! Not here: what messages mean (`shard/mesh.rs`).

use crate::ids::ShardId;
use crate::metrics::{ShardGone, SnapshotRequest, SnapshotSource};
use crate::ring::Waker;
use crate::shard::mesh::Message;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

/// Messages an inbox holds. Forwarded bytes are bounded by the shards themselves (`ForwardBudget`).
const INBOX_MESSAGES: usize = 4096;

/// One message in an inbox.
#[derive(Debug)]
pub(super) enum Envelope {
    /// From another shard, or from the runtime itself in the shard's own name.
    Message { from: ShardId, message: Message },
    /// From the housekeeping thread.
    Snapshot(SnapshotRequest),
}

/// The senders' ends of all inboxes.
pub(super) struct Hub {
    inboxes: Vec<SyncSender<Envelope>>,
    wakers: Vec<OnceLock<Waker>>,
}

impl Hub {
    /// A hub for so many shards, and their inboxes.
    pub(super) fn new(shards: u16) -> (Hub, Vec<Receiver<Envelope>>) {
        let (inboxes, receivers) = (0..shards).map(|_| sync_channel(INBOX_MESSAGES)).unzip();
        (Hub { inboxes, wakers: (0..shards).map(|_| OnceLock::new()).collect() }, receivers)
    }

    /// A shard's ring is up: this wakes it.
    pub(super) fn set_waker(&self, shard: ShardId, waker: Waker) {
        let before = self.wakers[usize::from(shard.0)].set(waker);
        assert!(before.is_ok(), "a shard has one ring");
    }

    /// Puts a message into an inbox; gives it back when there is no room. A shard that is gone takes everything.
    pub(super) fn send(&self, to: ShardId, envelope: Envelope) -> Result<(), Envelope> {
        match self.inboxes[usize::from(to.0)].try_send(envelope) {
            Ok(()) => {}
            Err(TrySendError::Full(envelope)) => return Err(envelope),
            Err(TrySendError::Disconnected(_)) => return Ok(()),
        }
        // A shard without a ring is starting: it looks into its inbox before it sleeps.
        if let Some(waker) = self.wakers[usize::from(to.0)].get() {
            waker.wake();
        }
        Ok(())
    }
}

impl SnapshotSource for Hub {
    fn shards(&self) -> u16 {
        self.inboxes.len() as u16
    }

    fn request(&self, shard: ShardId, request: SnapshotRequest) -> Result<(), ShardGone> {
        self.send(shard, Envelope::Snapshot(request)).map_err(|_| ShardGone)
    }
}
