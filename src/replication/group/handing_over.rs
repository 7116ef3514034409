//! How a leadership ends by its leader's own doing: it is handed over, given up, or ends because the leader is none of the group's any more.
//!
//! Not here: when that is wanted (shard/preferring.rs, shard/moving.rs), leaderships that are lost (raft's).

use super::{Group, ReplicationError};
use crate::ids::ReplicaId;
use raft::eraftpb::{Message, MessageType};

impl Group {
    /// Hands the group over to `to`, which votes in it and has nearly everything: it stands as soon as it has all. Given up after an election time-out.
    pub(in crate::replication) fn transfer(&mut self, to: ReplicaId) -> Result<(), ReplicationError> {
        let mut message = Message { from: to.0, to: self.raft.id, term: self.raft.term, ..Message::default() };
        message.set_msg_type(MessageType::MsgTransferLeader);
        self.step(message)
    }

    /// Gives the leadership up: whoever stands next leads.
    pub(in crate::replication) fn step_down(&mut self) {
        if self.is_leader() {
            self.raft.become_follower(self.raft.term, 0);
            self.settle();
        }
    }

    /// Whether it is being handed over: nothing new may be appended then (trap T6).
    pub(in crate::replication) fn is_transferring(&self) -> bool {
        self.raft.lead_transferee.is_some()
    }

    /// It leads a group that it is dropped from, by a change that its own first entry has committed (a leader that proposes one hands over first): whoever has
    /// most stands at once. The crate would go on, and look in vain for its own place with the next entry that the others have.
    pub(super) fn leave(&mut self) {
        let me = ReplicaId(self.raft.id);
        let others = self.members.voters.iter().filter(|voter| **voter != me);
        if let Some(to) = others.max_by_key(|voter| self.matched(**voter)) {
            let mut message = Message { from: me.0, to: to.0, term: self.raft.term, ..Message::default() };
            message.set_msg_type(MessageType::MsgTimeoutNow);
            self.held.push(message);
        }
        self.step_down();
    }
}
