//! A snapshot that takes the place of a replica's log, and what became of those for others.
//!
//! Not here: what is in one (shard/catchup.rs, shard/install.rs), who gets one (the crate says so; `empty.rs`).

use super::{Group, ReplicationError};
use crate::ids::{LogIndex, ReplicaId, Term};
use crate::replication::change::Members;
use crate::replication::storage::GroupPosition;
use crate::replication::wire_raft;

impl Group {
    /// What came as a snapshot takes the place of the log up to there.
    pub(super) fn take_snapshot(&mut self) {
        let Some(snapshot) = self.raft.raft_log.unstable_snapshot() else { return };
        let metadata = snapshot.get_metadata();
        let at = GroupPosition { index: LogIndex(metadata.index), term: Term(metadata.term) };
        let members = Members::of_raft(metadata.get_conf_state(), at.index);
        self.cut_own_from(LogIndex(0));
        self.raft.mut_store().install(at);
        self.raft.raft_log.stable_snap(at.index.0);
        self.raft.on_persist_snap(at.index.0);
        (self.persisted, self.agreed) = (at.index, at.index);
        // The first one's, if there were two: no checkpoint has either.
        self.installing.get_or_insert(self.committed);
        self.adopt_members(members);
    }

    /// What the leader of this term sent as a snapshot is taken in, and covers everything up to `at`. False where that is nothing new. Until
    /// `on_installed` this replica tells nobody anything.
    pub(in crate::replication) fn install(
        &mut self,
        from: ReplicaId,
        at: GroupPosition,
        members: &Members,
    ) -> Result<bool, ReplicationError> {
        let before = self.raft.store().base();
        self.step(wire_raft::snapshot(from, ReplicaId(self.raft.id), self.term(), at, members))?;
        Ok(self.raft.store().base() != before)
    }

    pub(in crate::replication) fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// It is durable.
    pub(in crate::replication) fn on_installed(&mut self) {
        self.installing = None;
        self.owes_ack = true;
    }

    /// What became of a snapshot for `peer`.
    pub(in crate::replication) fn on_snapshot_sent(&mut self, peer: ReplicaId, has_failed: bool) -> Result<(), ReplicationError> {
        match self.is_leader() {
            true => self.step(wire_raft::snapshot_status(peer, ReplicaId(self.raft.id), has_failed)),
            false => Ok(()),
        }
    }
}
