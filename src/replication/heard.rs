//! What a leader hears of the other voters besides what they have durably: that they still hear it, and what they have in memory.
//!
//! Invariants: the lease ends before another leader can have been elected; what a voter has received counts while the connection lives on which it said so, and
//! behind that as far as it is durable there; the leader itself is always the first of a majority.
//!
//! Not here: what is durable at the others, and the commit that follows from it (raft's progress, `group.rs`).

use crate::ids::{LogIndex, ReplicaId};

/// Below the shortest time in which another replica can be elected by more than two clocks drift in it, and a tick.
pub(super) const LEASE_US: u64 = 900_000;

#[derive(Clone, Copy, Debug)]
struct Voter {
    replica: ReplicaId,
    /// When the beat was sent that it answered last, in microseconds of the process; 0 for none.
    answered_us: u64,
    /// Up to where it has what this leader has, in memory.
    received: LogIndex,
}

/// What the other voters of a group have said to its leader.
#[derive(Debug, Default)]
pub(super) struct Heard {
    voters: Vec<Voter>,
    /// Up to when a majority was heard, in microseconds of the process; `u64::MAX` for a lone voter, until `begin_lease` tells that it is none.
    lease_until_us: u64,
}

impl Heard {
    /// These vote besides this replica. Of those that did before, what they said holds: a change is committed by those before and those after.
    pub(super) fn set_voters(&mut self, others: impl Iterator<Item = ReplicaId>) {
        let before = std::mem::take(&mut self.voters);
        let known = |replica| before.iter().find(|voter| voter.replica == replica).copied();
        let voter = |replica| known(replica).unwrap_or(Voter { replica, answered_us: 0, received: LogIndex(0) });
        self.voters = others.map(voter).collect();
    }

    /// Nobody else votes.
    pub(super) fn hold_for_ever(&mut self) {
        self.lease_until_us = u64::MAX;
    }

    /// Somebody else votes: the lease of who was alone ends from `now_us` on, as any other does.
    pub(super) fn begin_lease(&mut self, now_us: u64) {
        if self.lease_until_us == u64::MAX {
            self.lease_until_us = now_us + LEASE_US;
        }
    }

    /// The leadership is lost, and with it all that was said.
    pub(super) fn forget(&mut self) {
        self.lease_until_us = 0;
        self.voters.iter_mut().for_each(|voter| (voter.answered_us, voter.received) = (0, LogIndex(0)));
    }

    pub(super) fn holds_lease(&self, now_us: u64) -> bool {
        now_us < self.lease_until_us
    }

    /// `from` has answered what was sent at `sent_us`. The lease runs from when the majority's latest answered beats were sent: no other leader can have
    /// been elected before it is over (docs/REPLICATION.md, 5.2).
    pub(super) fn on_answered(&mut self, from: ReplicaId, sent_us: u64) {
        if let Some(voter) = self.find(from) {
            voter.answered_us = voter.answered_us.max(sent_us);
        }
        if let Some(at_us) = self.of_majority(|voter| voter.answered_us).filter(|at_us| *at_us > 0) {
            self.lease_until_us = self.lease_until_us.max(at_us + LEASE_US);
        }
    }

    /// `from` has everything up to `index` in memory.
    pub(super) fn on_received(&mut self, from: ReplicaId, index: LogIndex) {
        if let Some(voter) = self.find(from) {
            voter.received = voter.received.max(index);
        }
    }

    /// The connection on which `from` spoke has ended: it may be another process by now, which has what is `durable`.
    pub(super) fn on_disconnected(&mut self, from: ReplicaId, durable: LogIndex) {
        if let Some(voter) = self.find(from) {
            voter.received = voter.received.min(durable);
        }
    }

    /// Up to where so many others have what this leader has that they are a majority with it; `None` where nobody else votes.
    pub(super) fn received_by_majority(&self) -> Option<LogIndex> {
        self.of_majority(|voter| voter.received.0).map(LogIndex)
    }

    /// For each of them: when the beat was sent that it answered last.
    pub(super) fn answered(&self) -> impl Iterator<Item = (ReplicaId, u64)> {
        self.voters.iter().map(|voter| (voter.replica, voter.answered_us))
    }

    fn find(&mut self, replica: ReplicaId) -> Option<&mut Voter> {
        self.voters.iter_mut().find(|voter| voter.replica == replica)
    }

    /// The largest value that enough others have reached. At most six are compared with each other: no list is made for it.
    fn of_majority(&self, value: impl Fn(&Voter) -> u64) -> Option<u64> {
        let needed = self.voters.len().div_ceil(2);
        let is_reached = |wanted: &u64| self.voters.iter().filter(|voter| value(voter) >= *wanted).count() >= needed;
        self.voters.iter().map(&value).filter(is_reached).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(others: u64) -> Heard {
        let mut heard = Heard::default();
        heard.set_voters((2..2 + others).map(ReplicaId));
        heard
    }

    #[test]
    fn a_majority_with_the_leader_has_received_it() {
        // What each of the others has; up to where a majority has it.
        let table: [(&[u64], Option<u64>); 9] = [
            (&[], None),
            (&[0], Some(0)),
            (&[7], Some(7)),
            (&[7, 9], Some(9)),
            (&[0, 9], Some(9)),
            (&[1, 2, 3], Some(2)),
            (&[5, 8, 6, 7], Some(7)),
            (&[5, 5, 0, 0], Some(5)),
            (&[5, 0, 0, 0], Some(0)),
        ];
        for (received, wanted) in table {
            let mut heard = heard(received.len() as u64);
            (2..).zip(received).for_each(|(id, index)| heard.on_received(ReplicaId(id), LogIndex(*index)));
            assert_eq!(heard.received_by_majority(), wanted.map(LogIndex), "{received:?}");
        }
    }

    #[test]
    fn what_a_connection_that_ended_has_told_counts_as_far_as_it_is_durable() {
        let mut heard = heard(2);
        heard.on_received(ReplicaId(2), LogIndex(9));
        heard.on_received(ReplicaId(2), LogIndex(8));
        heard.on_received(ReplicaId(4), LogIndex(20));
        assert_eq!(heard.received_by_majority(), Some(LogIndex(9)), "an older ack, and one of nobody who votes");
        heard.on_disconnected(ReplicaId(2), LogIndex(5));
        assert_eq!(heard.received_by_majority(), Some(LogIndex(5)));
        heard.on_disconnected(ReplicaId(2), LogIndex(6));
        assert_eq!(heard.received_by_majority(), Some(LogIndex(5)), "it is told, not guessed");
        heard.forget();
        assert_eq!(heard.received_by_majority(), Some(LogIndex(0)));
    }

    #[test]
    fn the_lease_runs_from_when_the_majority_was_asked() {
        let mut heard = heard(4);
        heard.on_answered(ReplicaId(2), 1000);
        assert!(!heard.holds_lease(1001), "two of five");
        heard.on_answered(ReplicaId(3), 500);
        assert!(heard.holds_lease(499 + LEASE_US) && !heard.holds_lease(500 + LEASE_US));
        heard.on_answered(ReplicaId(4), 2000);
        assert!(heard.holds_lease(999 + LEASE_US) && !heard.holds_lease(1000 + LEASE_US));
        heard.set_voters([2, 5].map(ReplicaId).into_iter());
        assert!(heard.holds_lease(999 + LEASE_US), "a change takes nothing of it");
        heard.forget();
        assert!(!heard.holds_lease(1));
        heard.hold_for_ever();
        heard.begin_lease(10);
        assert!(heard.holds_lease(9 + LEASE_US) && !heard.holds_lease(10 + LEASE_US));
    }
}
