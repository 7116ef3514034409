//! The raft crate's messages as rows of our frames, and back (docs/REPLICATION.md, 3.3 and 3.4).
//!
//! Invariants: no message of the crate reaches a socket, and nothing of a frame reaches the crate but through here: only kinds that replicas send, from
//! a replica that the connection stands for.
//!
//! Not here: bytes of entries (shard/pipelines.rs), acks that are no rejections (`Group::take_ack`).

use super::change::{Change, Members};
use super::peer::ShareNote;
use super::storage::{GroupPosition, marked_entry, snapshot_of};
use crate::ids::{GroupId, LogIndex, ReplicaId, Term};
use raft::eraftpb::{Entry, Message, MessageType};
use tramline_wire::node::{AckFlags, AckGroup, BeatGroup, ShareBase, Vote, VoteFlags, VoteReply, VoteReplyFlags};

/// How the crate marks a vote that the leader itself asked for.
const TRANSFER: &[u8] = b"CampaignTransfer";

/// What one of the crate's messages becomes.
#[derive(Clone, Debug, PartialEq)]
pub enum Outgoing {
    /// Entries, or the commit.
    Share(ShareNote),
    /// The leader is there.
    Beat(BeatGroup),
    /// A candidate asks.
    Vote(Vote),
    /// A voter answers.
    VoteReply(VoteReply),
    /// A follower could not take a share.
    Rejection(AckGroup),
    /// A follower needs what the log has not any more.
    Snapshot(SnapshotNote),
    /// The leader hands over.
    TimeoutNow(Term),
    /// Nothing that goes to another node this way.
    Nothing,
}

/// A snapshot that a follower needs: what it has to cover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotNote {
    /// The group.
    pub group: GroupId,
    /// The leader's term.
    pub term: Term,
    /// The last entry that it covers.
    pub at: GroupPosition,
    /// Who votes in the group by then, and who learns it.
    pub members: Members,
}

/// What goes out for `message` of `group`.
pub fn outgoing(group: GroupId, message: &Message) -> Outgoing {
    let id = group.0;
    match message.get_msg_type() {
        MessageType::MsgAppend => Outgoing::Share(ShareNote {
            group,
            term: Term(message.term),
            previous: GroupPosition { index: LogIndex(message.index), term: Term(message.log_term) },
            count: message.entries.len(),
            commit: LogIndex(message.commit),
        }),
        MessageType::MsgHeartbeat => Outgoing::Beat(BeatGroup { group: id, term: message.term, commit: message.commit }),
        kind @ (MessageType::MsgRequestVote | MessageType::MsgRequestPreVote) => {
            let mut flags = VoteFlags::default();
            if kind == MessageType::MsgRequestPreVote {
                flags = flags.with(VoteFlags::PRE_VOTE);
            }
            if message.context.as_ref() == TRANSFER {
                flags = flags.with(VoteFlags::TRANSFER);
            }
            Outgoing::Vote(Vote {
                group: id,
                flags,
                term: message.term,
                last_index: message.index,
                last_term: message.log_term,
                commit: message.commit,
                commit_term: message.commit_term,
            })
        }
        kind @ (MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse) => {
            let mut flags = VoteReplyFlags::default();
            if kind == MessageType::MsgRequestPreVoteResponse {
                flags = flags.with(VoteReplyFlags::PRE_VOTE);
            }
            if message.reject {
                flags = flags.with(VoteReplyFlags::REFUSED);
            }
            let (commit, commit_term) = (message.commit, message.commit_term);
            Outgoing::VoteReply(VoteReply { group: id, flags, term: message.term, commit, commit_term })
        }
        MessageType::MsgAppendResponse if message.reject => Outgoing::Rejection(AckGroup {
            group: id,
            flags: AckFlags::REJECTED,
            term: message.term,
            received: 0,
            durable: 0,
            applied: 0,
            rejected: message.index,
            hint_index: message.reject_hint,
            hint_term: message.log_term,
        }),
        MessageType::MsgSnapshot => {
            let metadata = message.get_snapshot().get_metadata();
            let at = GroupPosition { index: LogIndex(metadata.index), term: Term(metadata.term) };
            let members = Members::of_raft(metadata.get_conf_state(), at.index);
            Outgoing::Snapshot(SnapshotNote { group, term: Term(message.term), at, members })
        }
        MessageType::MsgTimeoutNow => Outgoing::TimeoutNow(Term(message.term)),
        _ => Outgoing::Nothing,
    }
}

fn message(kind: MessageType, from: ReplicaId, to: ReplicaId, term: u64) -> Message {
    let mut message = Message { from: from.0, to: to.0, term, ..Message::default() };
    message.set_msg_type(kind);
    message
}

/// What an entry of a share is, as far as the crate is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// A leader's share of a block.
    Share,
    /// The empty entry of a new leader.
    Empty,
    /// A change of who votes or learns.
    Change(Change),
}

/// One entry of a share, behind `previous`; without one only the commit.
pub fn append(from: ReplicaId, to: ReplicaId, base: &ShareBase, previous: GroupPosition, entry: Option<(LogIndex, Term, Sort)>) -> Message {
    let mut append = message(MessageType::MsgAppend, from, to, base.term);
    (append.index, append.log_term, append.commit) = (previous.index.0, previous.term.0, base.commit);
    if let Some((index, term, sort)) = entry {
        let entry = match sort {
            Sort::Share => marked_entry(),
            Sort::Empty => Entry::default(),
            Sort::Change(change) => change.entry(),
        };
        append.entries = vec![Entry { index: index.0, term: term.0, ..entry }].into();
    }
    append
}

/// What a leader's snapshot covers was taken in.
pub(super) fn snapshot(from: ReplicaId, to: ReplicaId, term: Term, at: GroupPosition, members: &Members) -> Message {
    let mut snapshot = message(MessageType::MsgSnapshot, from, to, term.0);
    snapshot.set_snapshot(snapshot_of(at, members));
    snapshot
}

/// What became of a snapshot for `from`.
pub(super) fn snapshot_status(from: ReplicaId, to: ReplicaId, has_failed: bool) -> Message {
    // Of this process, which to the crate is a term of 0.
    let mut status = message(MessageType::MsgSnapStatus, from, to, 0);
    status.reject = has_failed;
    status
}

/// The leader is there. `commit` as far as it may be taken.
pub fn beat(from: ReplicaId, to: ReplicaId, row: &BeatGroup, commit: LogIndex) -> Message {
    let mut beat = message(MessageType::MsgHeartbeat, from, to, row.term);
    beat.commit = commit.0;
    beat
}

/// A candidate asks.
pub fn vote(from: ReplicaId, to: ReplicaId, row: &Vote) -> Message {
    let is_pre = row.flags.has(VoteFlags::PRE_VOTE);
    let kind = if is_pre { MessageType::MsgRequestPreVote } else { MessageType::MsgRequestVote };
    let mut vote = message(kind, from, to, row.term);
    (vote.index, vote.log_term, vote.commit, vote.commit_term) = (row.last_index, row.last_term, row.commit, row.commit_term);
    if row.flags.has(VoteFlags::TRANSFER) {
        vote.context = TRANSFER.into();
    }
    vote
}

/// A voter answers.
pub fn vote_reply(from: ReplicaId, to: ReplicaId, row: &VoteReply) -> Message {
    let is_pre = row.flags.has(VoteReplyFlags::PRE_VOTE);
    let kind = if is_pre { MessageType::MsgRequestPreVoteResponse } else { MessageType::MsgRequestVoteResponse };
    let mut reply = message(kind, from, to, row.term);
    (reply.reject, reply.commit, reply.commit_term) = (row.flags.has(VoteReplyFlags::REFUSED), row.commit, row.commit_term);
    reply
}

/// A follower could not take a share.
pub fn rejection(from: ReplicaId, to: ReplicaId, row: &AckGroup) -> Message {
    let mut reply = message(MessageType::MsgAppendResponse, from, to, row.term);
    (reply.reject, reply.index, reply.reject_hint, reply.log_term) = (true, row.rejected, row.hint_index, row.hint_term);
    reply
}

/// The leader hands over.
pub fn timeout_now(from: ReplicaId, to: ReplicaId, term: u64) -> Message {
    message(MessageType::MsgTimeoutNow, from, to, term)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ReplicaId = ReplicaId(1);
    const B: ReplicaId = ReplicaId(2);
    const GROUP: GroupId = GroupId(7);

    #[test]
    fn votes_and_their_answers_come_back_as_they_were_sent() {
        for (kind, context) in
            [(MessageType::MsgRequestVote, &b""[..]), (MessageType::MsgRequestPreVote, b""), (MessageType::MsgRequestVote, TRANSFER)]
        {
            let mut asked = message(kind, A, B, 9);
            (asked.index, asked.log_term, asked.commit, asked.commit_term) = (5, 8, 4, 3);
            asked.context = context.to_vec().into();
            let Outgoing::Vote(row) = outgoing(GROUP, &asked) else { panic!("{asked:?}") };
            assert_eq!(vote(A, B, &row), asked);
        }
        for (kind, reject) in [
            (MessageType::MsgRequestVoteResponse, false),
            (MessageType::MsgRequestVoteResponse, true),
            (MessageType::MsgRequestPreVoteResponse, false),
            (MessageType::MsgRequestPreVoteResponse, true),
        ] {
            let mut told = message(kind, B, A, 9);
            (told.reject, told.commit, told.commit_term) = (reject, 4, 3);
            let Outgoing::VoteReply(row) = outgoing(GROUP, &told) else { panic!("{told:?}") };
            assert_eq!(vote_reply(B, A, &row), told);
        }
    }

    #[test]
    fn a_rejection_comes_back_and_an_acceptance_goes_another_way() {
        let mut told = message(MessageType::MsgAppendResponse, B, A, 9);
        (told.reject, told.index, told.reject_hint, told.log_term) = (true, 12, 7, 3);
        let Outgoing::Rejection(row) = outgoing(GROUP, &told) else { panic!("{told:?}") };
        assert_eq!(rejection(B, A, &row), told);
        told.reject = false;
        assert_eq!(outgoing(GROUP, &told), Outgoing::Nothing);
    }

    #[test]
    fn an_append_is_described_and_comes_entry_by_entry() {
        let mut sent = message(MessageType::MsgAppend, A, B, 9);
        (sent.index, sent.log_term, sent.commit) = (4, 8, 3);
        sent.entries = vec![Entry { index: 5, term: 9, ..marked_entry() }].into();
        let Outgoing::Share(note) = outgoing(GROUP, &sent) else { panic!("{sent:?}") };
        assert_eq!((note.previous.index.0, note.previous.term.0, note.count, note.commit.0), (4, 8, 1, 3));
        let base = ShareBase { group: 7, flags: Default::default(), term: 9, prev_index: 4, prev_term: 8, commit: 3 };
        assert_eq!(append(A, B, &base, note.previous, Some((LogIndex(5), Term(9), Sort::Share))), sent);
    }
}
