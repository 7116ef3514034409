//! Replicas that have nothing of a group, not even who votes: they take a snapshot, and nothing else.
//!
//! Not here: how they refuse what else comes (shard/replicas.rs), what a snapshot holds (shard/catchup.rs).

use super::Group;
use crate::ids::{LogIndex, ReplicaId};
use raft::ProgressState;

impl Group {
    /// Whether this replica knows nobody who votes: it has nothing, and takes nothing but a snapshot, which tells it.
    pub(in crate::replication) fn is_empty(&self) -> bool {
        self.members.voters.is_empty()
    }

    /// `peer` is such a replica. From the first entry on it could have the log, but not who votes, for no entry tells who did at the beginning.
    pub(in crate::replication) fn send_snapshot(&mut self, peer: ReplicaId) {
        if !self.is_leader() || self.committed == LogIndex(0) {
            return;
        }
        if self.raft.store().base().index == LogIndex(0) {
            // A leader's empty one: nobody misses it.
            self.raft.mut_store().compact(LogIndex(1));
        }
        let Some(progress) = self.raft.mut_prs().get_mut(peer.0).filter(|progress| progress.state != ProgressState::Snapshot) else {
            return;
        };
        progress.become_probe();
        (progress.matched, progress.next_idx) = (0, 1);
        progress.resume();
        self.raft.send_append(peer.0);
        self.settle();
    }
}
