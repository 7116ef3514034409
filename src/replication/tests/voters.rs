//! One group of three voters, whose logs, links and disks the test moves by hand.

use super::super::group::Group;
use super::super::storage::GroupPosition;
use super::super::{Action, Change, Commit, GroupStart, Members};
use crate::ids::{BlockSeq, GroupId, LogIndex, ReplicaId, Term};
use raft::eraftpb::{Message, MessageType};

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

#[test]
fn who_begins_empty_takes_no_log_but_a_snapshot_and_knows_all_who_vote() {
    let mut replicas = [Replica::of(1, &[1]), Replica::of(2, &[]), Replica::of(3, &[])];
    // A change that is applied, a term and a snapshot each need a write before anything is told.
    let settle = |replicas: &mut [Replica; 3]| {
        for _round in 0..8 {
            talk(replicas, &[3]);
            replicas.iter_mut().for_each(|replica| {
                let _closed = replica.close();
            });
            replicas.iter_mut().for_each(Replica::sync);
            replicas.iter_mut().for_each(|replica| {
                let _told = replica.commit();
            });
        }
    };
    let change = |action| Change { action, replica: ReplicaId(2), serves: 0 };
    let mut vote = Message { from: 3, to: 2, term: 9, index: 50, log_term: 8, ..Message::default() };
    vote.set_msg_type(MessageType::MsgRequestVote);
    replicas[1].group.step(vote).unwrap();
    assert_eq!((replicas[1].group.term(), replicas[1].group.vote()), (Term(0), 0), "one without a past does not vote");
    replicas[0].group.campaign().unwrap();
    settle(&mut replicas);
    assert!(replicas[0].group.is_caught_up());
    // The log is there from its first entry on, and the first of it that is sent does not match: the leader would go back to the beginning.
    replicas[0].group.change(change(Action::Learn)).unwrap();
    settle(&mut replicas);
    let base = replicas[1].group.raft.store().base();
    assert_eq!(base.index, replicas[0].group.committed(), "it came as a snapshot");
    assert!(!replicas[1].group.is_empty());
    replicas[1].group.on_installed();
    replicas[0].group.on_snapshot_sent(ReplicaId(2), false).unwrap();
    ack(&mut replicas, 1, 0);
    replicas[0].propose();
    settle(&mut replicas);
    ack(&mut replicas, 1, 0);
    replicas[0].group.change(change(Action::Vote)).unwrap();
    settle(&mut replicas);
    replicas[0].propose();
    settle(&mut replicas);
    for replica in &replicas[..2] {
        assert_eq!(replica.group.members().voters, [1, 2].map(ReplicaId), "who voted before is known");
    }
}
