//! One group of three voters, whose logs, links and disks the test moves by hand.

use super::super::group::Group;
use super::super::storage::GroupPosition;
use super::super::{Action, Change, Commit, GroupStart, Held, Members, OwnBlocks, Word};
use crate::ids::{BlockSeq, GroupId, LogIndex, ReplicaId, Term};
use raft::eraftpb::{Message, MessageType};

/// Ticks until everybody stands who may.
const ELECTION_PATIENCE: usize = 50;

/// A replica and its shard's log: the open block, and which block is durable.
struct Replica {
    group: Group,
    open: BlockSeq,
    durable: BlockSeq,
}

impl Replica {
    fn new(id: u64) -> Replica {
        Replica::of(id, &[1, 2, 3])
    }

    /// One that knows these voters; none: it begins empty.
    fn of(id: u64, voters: &[u64]) -> Replica {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let voters = voters.iter().copied().map(ReplicaId);
        let start = GroupStart { id: GroupId(7), members: Members::of_voters(voters), ..GroupStart::default() };
        let group = Group::new(start, ReplicaId(id), &[], &[], &logger).unwrap();
        Replica { group, open: BlockSeq(1), durable: BlockSeq(0) }
    }

    /// Takes a message in and puts what it stored into the open block, which closes.
    fn take(&mut self, message: Message) {
        let stored: Vec<_> = message.entries.iter().map(|entry| (LogIndex(entry.index), entry.data.len() as u32)).collect();
        self.group.step(message).unwrap();
        let is_new = |group: &Group, index| group.raft.store().block_of(index).is_none();
        let last = LogIndex(self.group.raft.raft_log.last_index());
        for (index, bytes) in stored {
            if index <= last && is_new(&self.group, index) {
                self.group.place(index, self.open, bytes);
            }
        }
        self.close();
    }

    /// The open block closes with raft's own entries in it.
    fn close(&mut self) -> BlockSeq {
        let (_, own) = self.group.owed(self.open);
        for _ in own {
            let _position = self.group.place_own(self.open);
        }
        self.open.0 += 1;
        BlockSeq(self.open.0 - 1)
    }

    fn propose(&mut self) -> LogIndex {
        let (_, index) = self.group.propose(self.open, 100).unwrap();
        self.group.broadcast(self.open);
        self.close();
        index
    }

    fn durable(&mut self, block: u64) -> Option<Commit> {
        self.durable = BlockSeq(block);
        self.group.on_durable(self.durable);
        self.group.take_commit(self.durable, BlockSeq(self.open.0 - 1))
    }

    /// Everything closed is durable.
    fn sync(&mut self) {
        self.durable(self.open.0 - 1);
    }

    fn commit(&mut self) -> Option<Commit> {
        self.group.take_commit(self.durable, BlockSeq(self.open.0 - 1))
    }
}

/// Carries messages until nobody has something to say; nothing to or from `away`. Of accepting answers to appends only those to what is durable count:
/// they are made here from what the replica has persisted, as `Ack`s will be.
fn talk(replicas: &mut [Replica; 3], away: &[u64]) {
    loop {
        let mut messages: Vec<Message> = replicas.iter_mut().flat_map(|r| r.group.take_messages()).collect();
        messages.retain(|m| !away.contains(&m.from) && !away.contains(&m.to));
        messages.retain(|m| m.get_msg_type() != MessageType::MsgAppendResponse || m.reject);
        if messages.is_empty() {
            return;
        }
        for message in messages {
            let to = message.to as usize - 1;
            replicas[to].take(message);
        }
    }
}

/// What a follower has durably, told to the leader.
fn ack(replicas: &mut [Replica; 3], from: usize, leader: usize) {
    let follower = &replicas[from].group;
    let position = follower.position_at(replicas[from].durable);
    let mut message =
        Message { from: from as u64 + 1, to: leader as u64 + 1, term: follower.term().0, index: position.index.0, ..Message::default() };
    message.set_msg_type(MessageType::MsgAppendResponse);
    message.commit = follower.committed().0;
    replicas[leader].group.step(message).unwrap();
}

/// Replica 1 leads; its first entry is everywhere, durable and committed.
fn led_by_the_first() -> [Replica; 3] {
    let mut replicas = [1, 2, 3].map(Replica::new);
    replicas[0].group.campaign().unwrap();
    // Nobody tells of a term or a vote that is not durable: each round of messages needs a write.
    for _round in 0..3 {
        talk(&mut replicas, &[]);
        replicas.iter_mut().for_each(|replica| {
            let _closed = replica.close();
        });
        replicas.iter_mut().for_each(Replica::sync);
    }
    assert!(replicas[0].group.is_leader());
    assert!(!replicas[0].group.is_caught_up());
    talk(&mut replicas, &[]);
    replicas.iter_mut().for_each(Replica::sync);
    ack(&mut replicas, 1, 0);
    ack(&mut replicas, 2, 0);
    talk(&mut replicas, &[]);
    assert!(!replicas[0].group.is_caught_up(), "nobody was told of the commit");
    assert!(replicas[0].commit().is_some());
    assert!(replicas[0].group.is_caught_up());
    replicas
}

#[test]
fn two_followers_commit_what_the_leader_has_not_on_its_own_disk() {
    let mut replicas = led_by_the_first();
    replicas[0].commit();
    let index = replicas[0].propose();
    let block = BlockSeq(replicas[0].open.0 - 1);
    talk(&mut replicas, &[]);
    assert_eq!(replicas[0].commit(), None, "nobody has it durably");
    for follower in [1, 2] {
        replicas[follower].sync();
        ack(&mut replicas, follower, 0);
    }
    let commit = Commit { group: GroupId(7), index, block, has_entries: true };
    assert_eq!(replicas[0].commit(), Some(commit), "the block is not durable here");
    assert!(replicas[0].durable < block);
    // The own disk is slow, and the next entry is not committed by it alone.
    let next = replicas[0].propose();
    assert_eq!(replicas[0].durable(block.0), None, "known already");
    assert_eq!(replicas[0].durable(block.0 + 1), None, "{next} is durable on one of three");
}

#[test]
fn the_leader_and_one_follower_are_a_majority() {
    let mut replicas = led_by_the_first();
    let index = replicas[0].propose();
    talk(&mut replicas, &[3]);
    replicas[0].sync();
    assert_ne!(replicas[0].group.committed(), index, "one disk of three");
    ack(&mut replicas, 1, 0);
    assert_ne!(replicas[0].group.committed(), index, "the follower has it in memory");
    replicas[1].sync();
    ack(&mut replicas, 1, 0);
    assert_eq!(replicas[0].group.committed(), index);
}

#[test]
fn an_entry_that_was_written_again_is_persisted_with_its_last_block() {
    let mut replicas = led_by_the_first();
    // Replica 2 gets entry 2 of term 1 and has it in block b, which is not durable yet.
    let index = replicas[0].propose();
    let append: Vec<_> = replicas[0].group.take_messages().into_iter().filter(|m| m.to == 2 && !m.entries.is_empty()).collect();
    let [append] = &append[..] else { panic!("{append:?}") };
    replicas[1].take(append.clone());
    let first_block = replicas[1].open.0 - 1;
    // Replica 3 leads then, without that entry, and replaces it; then 1 again, which still has it: written again, with the old term.
    let mut other = Message { from: 3, to: 2, term: 2, log_term: 1, index: index.0 - 1, commit: 1, ..append.clone() };
    other.entries[0].term = 2;
    replicas[1].take(other);
    let again = Message { from: 1, to: 2, term: 3, ..append.clone() };
    replicas[1].take(again);
    let last_block = replicas[1].open.0 - 1;
    assert_eq!(replicas[1].group.raft.store().term_of(index), Some(Term(1)), "the same index and term as at first");
    // The first write ends: what a crash would leave is not known before the last one has ended.
    replicas[1].durable(first_block);
    assert_eq!(replicas[1].group.raft.raft_log.persisted, index.0 - 1);
    replicas[1].durable(last_block);
    assert_eq!(replicas[1].group.raft.raft_log.persisted, index.0);
}

#[test]
fn a_follower_knows_what_is_committed_only_from_its_leader() {
    let mut replicas = led_by_the_first();
    let index = replicas[0].propose();
    talk(&mut replicas, &[]);
    replicas[1].sync();
    assert_ne!(replicas[1].group.committed(), index);
    ack(&mut replicas, 1, 0);
    replicas[0].sync();
    assert_eq!(replicas[0].group.committed(), index);
    replicas[0].propose();
    talk(&mut replicas, &[]);
    let commit = replicas[1].commit().expect("told by the next append");
    assert_eq!((commit.index, commit.has_entries), (index, true));
    assert_eq!(replicas[1].group.position_at(commit.block), GroupPosition { index, term: Term(1) });
}

/// The first replica was heard by a majority at this time, which is when it began to lead.
const HEARD_US: u64 = 1_000_000;

impl Replica {
    fn be_heard(&mut self) {
        self.group.note_led(HEARD_US);
        self.group.on_beat_answered(ReplicaId(2), HEARD_US, false).unwrap();
    }

    /// What holds through `block`, a little after that: `(leader_durable, replicated)`.
    fn held(&self, block: BlockSeq) -> Option<(bool, bool)> {
        let own = OwnBlocks { durable: self.durable, closed: BlockSeq(self.open.0 - 1) };
        let held = self.group.held_through(block, own, HEARD_US + 1000);
        held.map(|Held { leader_durable, replicated }| (leader_durable, replicated))
    }
}

/// What a follower has in memory and durably, told to the leader.
fn tell(replicas: &mut [Replica; 3], from: usize, leader: usize) {
    let marks = replicas[from].group.take_ack(true).expect("it is asked, and its term is durable");
    let peer = ReplicaId(from as u64 + 1);
    replicas[leader].group.on_doubt(peer, marks.is_suspect, 2_000);
    replicas[leader].group.on_marks(peer, &marks).unwrap();
}

#[test]
fn a_majority_has_received_what_one_follower_has_in_memory() {
    let mut replicas = led_by_the_first();
    let (before, open) = (BlockSeq(replicas[0].open.0 - 1), replicas[0].open);
    assert_eq!(replicas[0].held(before), None, "nobody has answered a beat");
    replicas[0].be_heard();
    replicas[0].propose();
    assert_eq!(replicas[0].held(open), Some((false, false)));
    talk(&mut replicas, &[3]);
    tell(&mut replicas, 1, 0);
    assert_eq!(replicas[0].held(open), Some((false, true)), "two of three have it, and nobody durably");
    assert_eq!(replicas[0].commit().map_or(BlockSeq(0), |commit| commit.block).max(before), before);
    assert_eq!(replicas[0].held(BlockSeq(open.0 + 1)), Some((false, false)), "a block that is open gets more");
    replicas[0].sync();
    assert_eq!(replicas[0].held(open), Some((true, true)));
    // The next one is durable here and nowhere else.
    replicas[0].propose();
    replicas[0].sync();
    let next = BlockSeq(open.0 + 1);
    assert_eq!((replicas[0].held(open), replicas[0].held(next)), (Some((true, true)), Some((true, false))));
    // A connection ends, and with it what was told of memory.
    replicas[0].group.on_disconnected(ReplicaId(2));
    assert_eq!(replicas[0].held(open), Some((true, false)));
    replicas[1].sync();
    tell(&mut replicas, 1, 0);
    assert_eq!(replicas[0].held(open), Some((true, true)));
    // No lease, no leadership: no answer.
    let own = OwnBlocks { durable: replicas[0].durable, closed: next };
    assert_eq!(replicas[0].group.held_through(open, own, HEARD_US + 900_000), None);
    replicas[0].group.step_down();
    assert_eq!(replicas[0].held(open), None);
}

#[test]
fn what_a_majority_has_received_of_an_earlier_term_counts_behind_an_entry_of_the_own_term() {
    let mut replicas = led_by_the_first();
    replicas[0].be_heard();
    let inherited = replicas[0].propose();
    let block = BlockSeq(replicas[0].open.0 - 1);
    talk(&mut replicas, &[3]);
    replicas[0].group.step_down();
    replicas.iter_mut().for_each(|replica| replica.group.forget_leader());
    replicas[0].group.campaign().unwrap();
    for _round in 0..3 {
        talk(&mut replicas, &[3]);
        replicas.iter_mut().for_each(|replica| {
            let _closed = replica.close();
            replica.sync();
        });
    }
    assert!(replicas[0].group.is_leader());
    replicas[0].be_heard();
    let term = replicas[0].group.term();
    let mut marks = replicas[1].group.take_ack(true).expect("its term is durable");
    assert!(marks.term == term && marks.received > inherited, "{marks:?}");
    // As it would be had it heard of nothing but what it had: another leader, without that, may come and replace it.
    let all = std::mem::replace(&mut marks.received, inherited);
    (marks.durable, marks.committed) = (LogIndex(0), LogIndex(0));
    replicas[0].group.on_marks(ReplicaId(2), &marks).unwrap();
    assert_eq!(replicas[0].held(block), Some((true, false)));
    marks.received = all;
    replicas[0].group.on_marks(ReplicaId(2), &marks).unwrap();
    assert_eq!(replicas[0].held(block), Some((true, true)));
}

#[test]
fn what_a_suspect_has_counts_for_no_commit_until_its_leader_is_proven_by_the_others() {
    let mut replicas = led_by_the_first();
    replicas[0].group.note_led(0);
    replicas[1].group.suspect();
    let index = replicas[0].propose();
    talk(&mut replicas, &[3]);
    replicas[0].sync();
    replicas[1].sync();
    tell(&mut replicas, 1, 0);
    assert_ne!(replicas[0].group.committed(), index, "it may have forgotten another leader");
    assert_eq!(replicas[0].group.word_for(ReplicaId(2), index), Word::default());
    // The suspect's own answers prove nothing, nor does one that was sent before it said so.
    replicas[0].group.on_beat_answered(ReplicaId(2), 5_000, true).unwrap();
    replicas[0].group.on_beat_answered(ReplicaId(3), 1_000, true).unwrap();
    assert_eq!(replicas[0].group.word_for(ReplicaId(2), index), Word::default());
    replicas[0].group.on_beat_answered(ReplicaId(3), 3_000, true).unwrap();
    assert!(replicas[0].group.word_for(ReplicaId(2), index).proven);
    assert!(!replicas[0].group.word_for(ReplicaId(2), LogIndex(index.0 - 1)).proven, "it lacks the last entry");
    let (term, at) = (replicas[0].group.term(), replicas[0].group.last());
    replicas[1].group.on_proven(Term(term.0 - 1), at);
    assert!(!replicas[1].group.take_whole(), "a leader of another term has proven nothing");
    replicas[1].group.on_proven(term, at);
    assert!(replicas[1].group.take_whole() && !replicas[1].group.take_whole());
    tell(&mut replicas, 1, 0);
    assert_eq!(replicas[0].group.committed(), index, "it counts again");
}

#[test]
fn a_suspect_is_whole_when_everything_is_durable_and_not_before() {
    let mut replicas = led_by_the_first();
    replicas[1].group.suspect();
    let index = replicas[0].propose();
    talk(&mut replicas, &[]);
    let (term, at) = (replicas[0].group.term(), replicas[0].group.last());
    replicas[1].group.on_proven(term, at);
    assert!(!replicas[1].group.take_whole(), "{index} is in no durable block");
    replicas[1].sync();
    assert!(replicas[1].group.take_whole());
}

#[test]
fn a_suspect_votes_for_nobody_and_does_not_stand() {
    let mut replicas = led_by_the_first();
    replicas[1].group.suspect();
    (0..100).for_each(|_| replicas[1].group.tick());
    assert_eq!(replicas[1].group.take_messages().len(), 0, "it does not stand");
    replicas[2].group.forget_leader();
    for _ in 0..ELECTION_PATIENCE {
        replicas[2].group.tick();
    }
    talk(&mut replicas, &[1]);
    replicas.iter_mut().for_each(Replica::sync);
    talk(&mut replicas, &[1]);
    assert!(!replicas[2].group.is_leader(), "one vote of three");
}

#[test]
fn one_without_a_past_does_not_vote() {
    let mut empty = Replica::of(2, &[]);
    for kind in [MessageType::MsgRequestPreVote, MessageType::MsgRequestVote] {
        let mut vote = Message { from: 3, to: 2, term: 9, index: 50, log_term: 8, ..Message::default() };
        vote.set_msg_type(kind);
        empty.group.step(vote).unwrap();
        assert_eq!((empty.group.term(), empty.group.vote()), (Term(0), 0), "{kind:?}");
        assert_eq!(empty.group.take_messages().len(), 0, "{kind:?}");
    }
}

#[test]
fn who_has_less_than_it_acknowledged_is_told_that_it_is_suspect() {
    let mut replicas = led_by_the_first();
    let index = replicas[0].propose();
    talk(&mut replicas, &[]);
    replicas[1].sync();
    tell(&mut replicas, 1, 0);
    assert_eq!(replicas[0].group.matched(ReplicaId(2)), Some(index));
    replicas[0].group.on_connected(ReplicaId(2), LogIndex(index.0 - 1), false, 4_000);
    assert_eq!(replicas[0].group.matched(ReplicaId(2)), Some(LogIndex(0)));
    assert_eq!(replicas[0].group.word_for(ReplicaId(2), index), Word { lost: true, proven: false });
    // As long as it has not heard that, its acks change nothing.
    tell(&mut replicas, 1, 0);
    assert!(replicas[0].group.word_for(ReplicaId(2), index).lost);
    replicas[1].group.suspect();
    tell(&mut replicas, 1, 0);
    assert_eq!(replicas[0].group.word_for(ReplicaId(2), index), Word::default(), "it says so itself");
}

#[test]
fn a_leader_whose_own_first_entry_drops_it_leaves_at_once() {
    let mut replicas = led_by_the_first();
    // The first proposes to drop the second, and dies when the others have that, and nobody knows of a commit.
    replicas[0].group.change(Change { action: Action::Leave, replica: ReplicaId(2), serves: 0 }).unwrap();
    replicas[0].close();
    replicas[0].sync();
    talk(&mut replicas, &[]);
    replicas.iter_mut().for_each(Replica::sync);
    let mut stand = Message { from: 1, to: 2, term: replicas[1].group.term().0, ..Message::default() };
    stand.set_msg_type(MessageType::MsgTimeoutNow);
    replicas[1].group.step(stand).unwrap();
    for _round in 0..3 {
        talk(&mut replicas, &[1]);
        replicas.iter_mut().for_each(|replica| {
            let _closed = replica.close();
        });
        replicas.iter_mut().for_each(Replica::sync);
    }
    assert!(replicas[1].group.is_leader());
    // More than its first entry is on its way when that one is committed, and with it that it is dropped.
    replicas[1].propose();
    talk(&mut replicas, &[1]);
    replicas.iter_mut().for_each(Replica::sync);
    ack(&mut replicas, 2, 1);
    assert!(!replicas[1].group.is_leader(), "{}", replicas[1].group.describe());
    replicas[1].close();
    replicas[1].sync();
    for _round in 0..4 {
        talk(&mut replicas, &[]);
        replicas.iter_mut().for_each(|replica| {
            let _closed = replica.close();
        });
        replicas.iter_mut().for_each(Replica::sync);
    }
    assert!(replicas[2].group.is_leader(), "it was told to stand at once: {}", replicas[2].group.describe());
}

/// A start that finds no snapshot has the log of before it. If a hard state told how far the snapshot was committed, it would take for committed what no
/// other replica has any more.
#[test]
fn a_hard_state_tells_no_commit_of_a_snapshot_that_is_not_durable() {
    let mut replicas = led_by_the_first();
    talk(&mut replicas, &[]);
    let before = replicas[2].group.committed();
    // A tail that nobody committed.
    let _stale = replicas[0].propose();
    talk(&mut replicas, &[2]);
    replicas.iter_mut().for_each(Replica::sync);
    assert_eq!(replicas[2].group.committed(), before);
    assert!(replicas[2].group.last().index > before, "it has a tail");
    let (term, members) = (replicas[2].group.term(), replicas[2].group.members().clone());
    let at = GroupPosition { index: LogIndex(before.0 + 100), term };
    assert!(replicas[2].group.install(ReplicaId(1), at, &members).unwrap());
    assert_eq!(replicas[2].group.committed(), at.index);
    // Another term comes before the checkpoint is durable that has the snapshot.
    let mut message = Message { from: 2, to: 3, term: term.0 + 1, ..Message::default() };
    message.set_msg_type(MessageType::MsgHeartbeat);
    replicas[2].group.step(message).unwrap();
    assert!(replicas[2].group.owes());
    assert_eq!(replicas[2].group.hard_state(), (Term(term.0 + 1), 0, before));
    replicas[2].group.on_installed();
    assert_eq!(replicas[2].group.hard_state(), (Term(term.0 + 1), 0, at.index));
}
