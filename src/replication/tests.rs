//! Groups with one voter through starts, blocks and checkpoints. Several voters: `tests/voters.rs`.

mod voters;

use super::*;
use crate::ids::{BlockSeq, GroupId, LogIndex, ReplicaId, Term};
use crate::log::{EntryKind, OpenEntry};

fn entry(group: u32, kind: EntryKind) -> OpenEntry {
    OpenEntry { group: GroupId(group), kind, content_len: 10, fragments: 1, position: None }
}

fn start(groups: &[u32], term: u64) -> Groups {
    let members = || Members::of_voters([ReplicaId(1)]);
    let starts =
        groups.iter().map(|id| GroupStart { id: GroupId(*id), term: Term(term), members: members(), ..GroupStart::default() }).collect();
    Groups::start(ReplicaId(1), starts, &[], &[]).unwrap()
}

/// What a shard does at its start: the owed entries go into the first block.
fn first_block(groups: &mut Groups, block: u64) -> Vec<(Term, LogIndex)> {
    let mut open = Vec::new();
    for owed in groups.owed(BlockSeq(block)) {
        assert!(owed.hard_state.is_some(), "a new term is written before its first entry");
        open.push(entry(owed.group.0, EntryKind::HardState));
        owed.own_entries.iter().for_each(|_| open.push(entry(owed.group.0, EntryKind::Raft)));
    }
    let mut positions = Vec::new();
    groups.positions_for_close(BlockSeq(block), &open, &mut positions).unwrap();
    positions
}

#[test]
fn the_term_rises_at_a_start_and_reads_wait_for_its_first_entry() {
    let mut groups = start(&[0, 1], 7);
    assert_eq!(groups.leader_term(GroupId(1)), None, "nothing stands in front of its first entry");
    assert!(!groups.is_caught_up(GroupId(1)));
    assert_eq!(first_block(&mut groups, 1), [(Term(8), LogIndex(1)), (Term(8), LogIndex(1))]);
    assert_eq!(groups.leader_term(GroupId(1)), Some(Term(8)));
    assert!(groups.owed(BlockSeq(2)).is_empty(), "nothing is owed twice");
    let mut commits = Vec::new();
    groups.on_durable(BlockSeq(1), BlockSeq(1), &mut commits);
    assert_eq!(commits.len(), 2);
    assert!(groups.all_caught_up());
}

/// Groups that have committed something, and up to where.
fn moved(commits: &[Commit]) -> Vec<(u32, u64)> {
    commits.iter().filter(|c| c.has_entries).map(|c| (c.group.0, c.index.0)).collect()
}

#[test]
fn entries_commit_with_their_blocks_and_not_before() {
    let mut groups = start(&[1, 2], 0);
    first_block(&mut groups, 1);
    let (mut commits, mut positions) = (Vec::new(), Vec::new());
    groups.on_durable(BlockSeq(1), BlockSeq(1), &mut commits);
    commits.clear();
    groups.positions_for_close(BlockSeq(2), &[entry(1, EntryKind::Data), entry(1, EntryKind::Data)], &mut positions).unwrap();
    groups.positions_for_close(BlockSeq(3), &[entry(2, EntryKind::Data), entry(1, EntryKind::Data)], &mut positions).unwrap();
    assert_eq!(positions, [(Term(1), LogIndex(2)), (Term(1), LogIndex(3))]);
    groups.on_durable(BlockSeq(2), BlockSeq(2), &mut commits);
    assert_eq!(moved(&commits), [(1, 2)], "group 2 has nothing in block 2");
    assert!(commits.iter().all(|c| c.block == BlockSeq(2)), "and is committed through it: {commits:?}");
    commits.clear();
    groups.on_durable(BlockSeq(3), BlockSeq(3), &mut commits);
    assert_eq!(moved(&commits), [(1, 3), (2, 2)]);
}

#[test]
fn what_a_block_carries_of_a_group_is_one_entry() {
    let mut groups = start(&[1, 2], 0);
    first_block(&mut groups, 1);
    let mut positions = Vec::new();
    let open =
        [(1, EntryKind::Control), (2, EntryKind::Data), (1, EntryKind::Data), (2, EntryKind::Control)].map(|(g, kind)| entry(g, kind));
    groups.positions_for_close(BlockSeq(2), &open, &mut positions).unwrap();
    assert_eq!(positions.iter().map(|(_, index)| index.0).collect::<Vec<_>>(), [2, 2, 2, 2]);
    groups.positions_for_close(BlockSeq(3), &open[..2], &mut positions).unwrap();
    assert_eq!(positions.iter().map(|(_, index)| index.0).collect::<Vec<_>>(), [3, 3], "another block, another entry");
}

#[test]
fn a_checkpoint_remembers_where_a_group_was_at_its_block() {
    let mut groups = start(&[1], 0);
    first_block(&mut groups, 1);
    let (mut commits, mut positions) = (Vec::new(), Vec::new());
    for block in 2..=9 {
        groups.positions_for_close(BlockSeq(block), &[entry(1, EntryKind::Data)], &mut positions).unwrap();
    }
    groups.on_durable(BlockSeq(9), BlockSeq(9), &mut commits);
    let at = groups.positions_at(BlockSeq(5));
    assert_eq!((at[0].1.index, at[0].1.term), (LogIndex(5), Term(1)));
    groups.compact(&at);
    assert_eq!((groups.base_of(GroupId(1)).unwrap().index, groups.entry_count()), (LogIndex(5), 4));
    groups.positions_for_close(BlockSeq(10), &[entry(1, EntryKind::Data)], &mut positions).unwrap();
    assert_eq!(positions, [(Term(1), LogIndex(10))]);
}

#[test]
fn a_start_goes_on_behind_what_the_log_holds() {
    let handle = |block| Handle { holds: Holds::Share, block: BlockSeq(block), bytes: 10 };
    // Index 4 was written twice: the later one, of a higher term, replaces it and what followed. Index 6 is missing (damage). The two rows of 7 are one entry.
    let entries = [(3, 1, 3), (4, 1, 4), (5, 1, 5), (4, 2, 6), (5, 2, 7), (7, 2, 9), (7, 2, 9)]
        .map(|(index, term, block)| (GroupId(1), LogIndex(index), Term(term), handle(block)));
    let base = GroupPosition { index: LogIndex(2), term: Term(1) };
    let starts = vec![GroupStart {
        id: GroupId(1),
        base,
        term: Term(2),
        vote: 1,
        members: Members::of_voters([ReplicaId(1)]),
        committed: base.index,
        ..GroupStart::default()
    }];
    let mut groups = Groups::start(ReplicaId(1), starts, &entries, &[]).unwrap();
    assert_eq!(groups.entry_count(), 6, "3, 4 and 5 of term 2, a filler for 6, 7, and the first one of the new term");
    assert_eq!(first_block(&mut groups, 10), [(Term(3), LogIndex(8))]);
    let mut commits = Vec::new();
    groups.on_durable(BlockSeq(10), BlockSeq(10), &mut commits);
    let all = Commit { group: GroupId(1), index: LogIndex(8), block: BlockSeq(10), has_entries: true };
    assert_eq!(commits, [all], "one voter commits what it has");
}
