//! A group that goes on without a majority: its era, who votes from then on, and what a replica of an earlier era does not hear (docs/REPLICATION.md, 6.5).
//!
//! Invariants: eras rise; a replica that has something takes nothing of a later era before it was told to go on, or has been emptied; changes of an earlier era
//! count no more, wherever they stand in the log.
//!
//! Not here: who is told to go on, and the record of it (shard/recovering.rs).

use super::{Group, ReplicationError, Standing};
use crate::constants::ERA_BITS;
use crate::ids::{LogIndex, ReplicaId, Term};
use crate::replication::change::{Action, Change, Members};
use crate::replication::doubt::Doubts;

impl Group {
    /// Whether it has something of an earlier era than the one of `term`.
    pub(in crate::replication) fn is_left_out_of(&self, term: Term) -> bool {
        era_of(term) > era_of(self.term()) && !self.is_empty()
    }

    /// These vote from now on, in this term at least. What is in the log stays; of changes in it those of an earlier era count no more.
    pub(in crate::replication) fn force(&mut self, voters: &[ReplicaId], term: Term) {
        assert!(era_of(term) > era_of(self.term()), "group {} is in term {} and is to go on in {term}", self.id, self.term());
        self.raft.become_follower(term.0, 0);
        // What it has lost is part of the loss that was accepted.
        self.doubts = Doubts::new(false);
        let change = |action, replica: &ReplicaId| Change { action, replica: *replica, serves: 0 }.for_raft();
        let comes = voters.iter().filter(|voter| !self.members.voters.contains(voter)).map(|voter| change(Action::Vote, voter));
        let leaves = self.members.all().filter(|member| !voters.contains(member)).map(|member| change(Action::Leave, &member));
        for change in comes.chain(leaves).collect::<Vec<_>>() {
            self.raft.apply_conf_change(&change).expect("one voter is added or taken away, and one is left");
        }
        self.adopt_members(Members { voters: voters.to_vec(), learners: Vec::new(), index: self.committed });
        self.settle();
    }

    /// The only voter stands, once all that it has is durable (trap T4).
    pub(in crate::replication) fn stand_if_alone(&mut self) -> Result<(), ReplicationError> {
        let is_ready = self.standing == Standing::Durable && self.persisted == self.last().index && !self.is_installing();
        match self.members.is_lone(ReplicaId(self.raft.id)) && !self.is_leader() && is_ready {
            true => self.campaign(),
            false => Ok(()),
        }
    }

    /// Changes behind what counts already, up to `end`: those of an era before this one were somebody else's to decide.
    pub(super) fn changes_to(&self, end: LogIndex) -> impl Iterator<Item = (LogIndex, Change)> {
        let (store, era) = (self.raft.store(), era_of(self.term()));
        store.changes(self.members.index, end).filter(move |(index, _)| store.term_of(*index).is_some_and(|term| era_of(term) == era))
    }
}

/// The recovery without a majority by which a term came about.
fn era_of(term: Term) -> u64 {
    term.0 >> ERA_BITS
}
