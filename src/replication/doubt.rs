//! Replicas that may have lost what they had acknowledged: the disk was damaged, or lied about what is durable (docs/REPLICATION.md, 8).
//!
//! A suspect follows and takes entries, and does not vote: it may have been the second of three that made an entry durable, and the third, which never had
//! it, could lead with its vote. Nor does its leader count it: the leader may be one of an old term, and the suspect may have forgotten the newer one.
//!
//! ```text
//! suspect --ack says so--> doubted --a majority of the others answers a beat that was sent since--> proven: this leader has everything that was ever
//! committed, up to its last entry --a share says so--> the suspect has all of it durably: whole --ack without the flag--> counted again
//! ```
//! Invariants: what a doubted replica has counts for no commit; a proof is of one leader's term, and nothing that a suspect has said helps to make it.
//!
//! Not here: what damage is, and records on disk (shard/suspects.rs).

use super::group::Group;
use super::marks::FollowerMarks;
use super::storage::GroupPosition;
use crate::ids::{LogIndex, ReplicaId, Term};
use raft::ProgressState;
use raft::eraftpb::MessageType;

/// What a share tells its follower besides its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// It has lost what it had acknowledged.
    pub lost: bool,
    /// It is whole once it has everything in front of the share durably.
    pub proven: bool,
}

#[derive(Clone, Copy, Debug)]
struct Doubted {
    replica: ReplicaId,
    /// Since when, in microseconds of the process.
    since_us: u64,
    /// It does not know it yet.
    must_hear: bool,
    /// This leader's last entry when a majority of the others had heard it since.
    proven: Option<LogIndex>,
}

/// What a group knows of doubts.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// About this replica.
    is_suspect: bool,
    /// Where it is whole, by the leader of a term.
    whole_at: Option<(Term, LogIndex)>,
    /// About others, as long as this replica leads.
    of_others: Vec<Doubted>,
}

impl Doubts {
    pub(super) fn new(is_suspect: bool) -> Doubts {
        Doubts { is_suspect, ..Doubts::default() }
    }

    fn of(&self, replica: ReplicaId) -> Option<&Doubted> {
        self.of_others.iter().find(|doubted| doubted.replica == replica)
    }

    /// Another leadership begins: whoever is suspect says so with its next ack.
    pub(super) fn begin_leading(&mut self) {
        self.of_others.clear();
    }
}

impl Group {
    pub(super) fn is_suspect(&self) -> bool {
        self.doubts.is_suspect
    }

    /// This replica may have lost what it had acknowledged.
    pub(super) fn suspect(&mut self) {
        self.doubts.is_suspect = true;
        self.doubts.whole_at = None;
        self.owe_ack();
    }

    /// Whether a message is one that a suspect does not hear, nor one that has nothing: these neither vote nor stand. Of who asks for a vote they could not tell
    /// whether he has what is committed.
    pub(super) fn is_deaf_to(&self, kind: MessageType) -> bool {
        let is_vote = matches!(kind, MessageType::MsgRequestVote | MessageType::MsgRequestPreVote | MessageType::MsgTimeoutNow);
        is_vote && (self.doubts.is_suspect || self.is_empty())
    }

    /// The leader of `term` has proven that it has everything up to `at`, which is here.
    pub(super) fn on_proven(&mut self, term: Term, at: GroupPosition) {
        let is_here = term == self.term() && !self.is_leader() && self.has(at);
        if self.doubts.is_suspect && is_here {
            let before = self.doubts.whole_at.filter(|(of, _)| *of == term).map(|(_, index)| index);
            self.doubts.whole_at = Some((term, before.map_or(at.index, |index| index.min(at.index))));
        }
    }

    /// Whether this replica has become whole; asked again it has not.
    pub(super) fn take_whole(&mut self) -> bool {
        let Some((term, index)) = self.doubts.whole_at.filter(|_| self.doubts.is_suspect) else { return false };
        if term != self.term() || !self.is_agreed_durably(index) {
            return false;
        }
        self.doubts.is_suspect = false;
        self.doubts.whole_at = None;
        self.owe_ack();
        true
    }

    /// `peer` says whether it is suspect.
    pub(super) fn on_doubt(&mut self, peer: ReplicaId, is_suspect: bool, now_us: u64) {
        if !self.is_leader() {
            return;
        }
        match self.doubts.of_others.iter_mut().find(|doubted| doubted.replica == peer) {
            Some(doubted) if is_suspect => doubted.must_hear = false,
            Some(doubted) if !doubted.must_hear => self.doubts.of_others.retain(|doubted| doubted.replica != peer),
            None if is_suspect => self.doubt(peer, false, now_us),
            Some(_) | None => {}
        }
    }

    /// Nothing that `peer` has counts until it is whole. `must_hear`: it does not know that it has lost something.
    pub(super) fn doubt(&mut self, peer: ReplicaId, must_hear: bool, now_us: u64) {
        self.doubts.of_others.retain(|doubted| doubted.replica != peer);
        self.doubts.of_others.push(Doubted { replica: peer, since_us: now_us, must_hear, proven: None });
        self.heard.on_disconnected(peer, LogIndex(0));
        if let Some(progress) = self.raft.mut_prs().get_mut(peer.0) {
            progress.matched = 0;
        }
    }

    pub(super) fn is_doubted(&self, peer: ReplicaId) -> bool {
        self.doubts.of(peer).is_some()
    }

    /// A doubted follower says how far it is. The crate would count it: what it makes of an ack is done here, without that.
    pub(super) fn on_doubted_marks(&mut self, from: ReplicaId, marks: &FollowerMarks) {
        if marks.term != self.term() || !self.is_leader() {
            return;
        }
        let durable = marks.durable.0;
        let Some(progress) = self.raft.mut_prs().get_mut(from.0) else { return };
        progress.recent_active = true;
        progress.next_idx = progress.next_idx.max(durable + 1);
        // Its steps go by what has matched.
        progress.matched = durable;
        match progress.state {
            ProgressState::Probe => progress.become_replicate(),
            ProgressState::Snapshot if durable >= progress.pending_snapshot => progress.become_probe(),
            ProgressState::Snapshot => {}
            ProgressState::Replicate => progress.ins.free_to(durable),
        }
        progress.matched = 0;
        if progress.next_idx <= self.last().index.0 {
            self.raft.send_append(from.0);
        }
        self.settle();
    }

    /// Beats were answered: perhaps by a majority without those that are doubted. No other leader can have been elected by then, so this one has every entry
    /// that was ever committed.
    pub(super) fn prove(&mut self) {
        if self.doubts.of_others.is_empty() {
            return;
        }
        let last = self.last().index;
        let voters = self.members().voters.len();
        let is_heard = |since_us: u64| {
            let heard = self.heard.answered().filter(|(replica, at_us)| *at_us > since_us && self.doubts.of(*replica).is_none()).count();
            // This replica itself.
            heard + 1 > voters / 2
        };
        let proven: Vec<bool> = self.doubts.of_others.iter().map(|doubted| is_heard(doubted.since_us)).collect();
        for (doubted, is_proven) in self.doubts.of_others.iter_mut().zip(proven) {
            if is_proven && doubted.proven.is_none() {
                doubted.proven = Some(last);
            }
        }
    }

    /// What a share of entries behind `previous` has to tell `peer`.
    pub(super) fn word_for(&self, peer: ReplicaId, previous: LogIndex) -> Word {
        let Some(doubted) = self.doubts.of(peer) else { return Word::default() };
        Word { lost: doubted.must_hear, proven: doubted.proven.is_some_and(|proven| previous >= proven) && !doubted.must_hear }
    }
}
