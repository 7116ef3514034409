//! The groups of one shard, and the walk over a closing block.
//!
//! Invariants: the groups stand by their ids; `positions_for_close` answers each open entry exactly once.
//! Not here: raft's details (`group.rs`), the block's bytes (log/).

use super::change::{Change, Members};
use super::doubt::Word;
use super::group::{Group, GroupStart, ReplicationError};
use super::marks::{Commit, EntryPlaces, FollowerMarks, Held, OwnBlocks};
use super::storage::{Entry, GroupPosition, Handle};
use crate::ids::{BlockSeq, GroupId, LogIndex, ReplicaId, Term};
use crate::log::layout::HARD_STATE_BYTES;
use crate::log::{EntryKind, OpenEntry};
use crate::mutants::{Mutant, Mutants};
use raft::eraftpb::Message;

/// What a block must carry for a group before its data: a changed term or vote, and raft's own entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owed {
    /// The group.
    pub group: GroupId,
    /// Term and vote to be written as a hard state, if they changed.
    pub hard_state: Option<(Term, u64, LogIndex)>,
    /// Whether others vote in the group.
    pub is_shared: bool,
    /// The entries of raft's own that are to be written: a change of who votes, or an empty one.
    pub own_entries: Vec<Option<Change>>,
}

/// The replica groups whose members this shard holds.
pub struct Groups {
    me: ReplicaId,
    /// By id.
    list: Vec<Group>,
    now_us: u64,
    mutants: Mutants,
}

impl Groups {
    /// Builds the groups of a shard from what recovery found; in those of which it is the only voter this replica stands for election at once.
    /// `entries` are in log order per group; the rows of one entry (its batches, its control payloads) follow one another.
    pub fn start(
        me: ReplicaId,
        starts: Vec<GroupStart>,
        entries: &[(GroupId, LogIndex, Term, Handle)],
        changes: &[(GroupId, LogIndex, Change)],
    ) -> Result<Groups, ReplicationError> {
        let mut groups = Groups { me, list: Vec::with_capacity(starts.len()), now_us: 0, mutants: Mutants::default() };
        for start in starts {
            let of_group = |id: GroupId| id == start.id;
            let own: Vec<_> = entries.iter().filter(|e| of_group(e.0)).map(|e| (e.1, e.2, e.3)).collect();
            let changes: Vec<_> = changes.iter().filter(|c| of_group(c.0)).map(|c| (c.1, c.2)).collect();
            groups.begin(start, &own, &changes)?;
        }
        Ok(groups)
    }

    /// Bugs on purpose.
    pub fn set_mutants(&mut self, mutants: Mutants) {
        self.mutants = mutants;
        self.list.iter_mut().for_each(|group| group.mutants = mutants);
    }

    /// A replica of one more group, which has nothing in the log yet.
    pub fn add(&mut self, start: GroupStart) -> Result<(), ReplicationError> {
        self.begin(start, &[], &[])
    }

    fn begin(
        &mut self,
        start: GroupStart,
        entries: &[(LogIndex, Term, Handle)],
        changes: &[(LogIndex, Change)],
    ) -> Result<(), ReplicationError> {
        assert!(self.find(start.id).is_none(), "a replica of group {} is here already", start.id);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let mut group = Group::new(start, self.me, entries, changes, &logger)?;
        if group.members().is_lone(self.me) && !group.is_suspect() {
            group.campaign()?;
        }
        group.mutants = self.mutants;
        let at = self.list.partition_point(|other| other.id < group.id);
        self.list.insert(at, group);
        Ok(())
    }

    /// Forgets the replica of `group`.
    pub fn remove(&mut self, group: GroupId) {
        self.list.retain(|found| found.id != group);
    }

    /// Who votes in `group` and who learns it, as far as that is committed.
    pub fn members_of(&self, group: GroupId) -> Option<&Members> {
        self.find(group).map(Group::members)
    }

    /// Everybody that this shard shares a group with.
    pub fn others(&self) -> impl Iterator<Item = ReplicaId> {
        self.list.iter().flat_map(|group| group.members().all()).filter(|replica| *replica != self.me)
    }

    /// Whether the members of a group have changed since this was asked. From `now_us` on a leader that was alone has to be heard.
    pub fn take_members_changed(&mut self, now_us: u64) -> bool {
        let mut has_changed = false;
        self.list.iter_mut().for_each(|group| has_changed |= group.take_members_changed(now_us));
        has_changed
    }

    /// How far another replica of a group that is led here is known to be.
    pub fn matched(&self, group: GroupId, replica: ReplicaId) -> Option<LogIndex> {
        self.find(group).and_then(|group| group.matched(replica))
    }

    /// Proposes a change of who votes in a group that is led here, or learns it.
    pub fn change(&mut self, group: GroupId, change: Change) -> Result<LogIndex, ReplicationError> {
        self.find_mut(group).ok_or(ReplicationError::NotLeader(group))?.change(change)
    }

    /// The change that an entry of `group` is, if it is one.
    pub fn change_at(&self, group: GroupId, index: LogIndex) -> Option<Change> {
        self.find(group).and_then(|group| group.change_at(index))
    }

    /// Hands `group` over to another replica; see `Group::transfer`.
    pub fn transfer(&mut self, group: GroupId, to: ReplicaId) -> Result<(), ReplicationError> {
        self.find_mut(group).map_or(Ok(()), |group| group.transfer(to))
    }

    /// Whether term, vote and who votes in `group` are durable here as they are.
    pub fn is_settled(&self, group: GroupId) -> bool {
        self.find(group).is_some_and(Group::is_settled)
    }

    /// This replica gives the leadership of `group` up.
    pub fn step_down(&mut self, group: GroupId) {
        self.find_mut(group).into_iter().for_each(Group::step_down);
    }

    /// Whether one of the groups is being handed over.
    pub fn is_transferring(&self) -> bool {
        self.list.iter().any(Group::is_transferring)
    }

    /// This replica stands for election in `group` after so many ticks.
    pub fn hurry(&mut self, group: GroupId, ticks: usize) {
        self.find_mut(group).into_iter().for_each(|group| group.hurry(ticks));
    }

    /// Since when this node works as the leader of `group`.
    pub fn led_since_us(&self, group: GroupId) -> Option<u64> {
        self.find(group).filter(|group| group.is_leader()).map(Group::led_since_us)
    }

    /// Who leads `group`, as far as this replica knows.
    pub fn leader_of(&self, group: GroupId) -> Option<ReplicaId> {
        self.find(group).and_then(Group::leader)
    }

    /// What each group must have in the open block before anything else of it (a hard state, raft's own entries).
    /// The caller appends these to the log in this order; asked again, only what came up since is answered.
    pub fn owed(&mut self, open_block: BlockSeq) -> Vec<Owed> {
        let mut owed = Vec::new();
        for group in self.list.iter_mut().filter(|group| group.owes()) {
            let (dirty, own_entries) = group.owed(open_block);
            if dirty || !own_entries.is_empty() {
                let hard_state = dirty.then(|| group.hard_state());
                let is_shared = group.is_suspect() || !group.members().is_lone(self.me);
                owed.push(Owed { group: group.id, hard_state, is_shared, own_entries });
            }
        }
        owed
    }

    /// Bytes of each payload that `owed` stands for.
    pub fn owed_sizes(&self) -> Vec<usize> {
        let mut sizes = Vec::new();
        for (hard_state, own) in self.list.iter().map(Group::owes_now) {
            sizes.extend(std::iter::repeat_n(HARD_STATE_BYTES, usize::from(hard_state)).chain(own));
        }
        sizes
    }

    /// Whether `owed` has something to say.
    pub fn owes(&self) -> bool {
        self.list.iter().any(Group::owes)
    }

    /// Time goes on: leases are looked at by this, in microseconds of the process.
    pub fn on_time(&mut self, now_us: u64) {
        self.now_us = now_us;
    }

    /// The term with which this node may append to `group`, or `None` when it does not lead it, or was not heard by a majority lately.
    pub fn leader_term(&self, group: GroupId) -> Option<Term> {
        let may_append = |g: &&Group| g.is_leader() && !g.is_transferring() && g.holds_lease(self.now_us) && g.has_announced_own();
        self.find(group).filter(may_append).map(Group::term)
    }

    /// What holds of all that `group` has in blocks up to `block`, before it is committed; `None` where this node may not answer for that now.
    pub fn held_through(&self, group: GroupId, block: BlockSeq, own: OwnBlocks) -> Option<Held> {
        self.find(group).and_then(|g| g.held_through(block, own, self.now_us))
    }

    /// This node works as the leader of `group` from now on.
    pub fn note_led(&mut self, group: GroupId, now_us: u64) {
        self.find_mut(group).into_iter().for_each(|g| g.note_led(now_us));
    }

    /// What of the commit of `group` was told by `take_commits`.
    pub fn reported_of(&self, group: GroupId) -> LogIndex {
        self.find(group).map_or(LogIndex(0), Group::reported)
    }

    /// The term of `group`.
    pub fn term_of(&self, group: GroupId) -> Term {
        self.find(group).map_or(Term(0), Group::term)
    }

    /// Whether this node leads `group`.
    pub fn leads(&self, group: GroupId) -> bool {
        self.find(group).is_some_and(Group::is_leader)
    }

    /// The term in which this node leads `group`, whether a majority was heard lately or not.
    pub fn led_in(&self, group: GroupId) -> Option<Term> {
        self.find(group).filter(|g| g.is_leader()).map(Group::term)
    }

    /// Whether this leader's own first entry is committed, so that ends and reads may be answered.
    pub fn is_caught_up(&self, group: GroupId) -> bool {
        self.find(group).is_some_and(Group::is_caught_up)
    }

    /// The other replicas of a group that is led here are to hear now how far it is committed: else the next entries tell them, or a beat.
    pub fn tell_commit(&mut self, group: GroupId) {
        self.find_mut(group).into_iter().for_each(Group::tell_commit);
    }

    /// Whether every group of which this node is the only voter is led by it and caught up.
    pub fn all_caught_up(&self) -> bool {
        self.list.iter().filter(|group| group.members().is_lone(self.me) && !group.is_suspect()).all(Group::is_caught_up)
    }

    /// The block closes: proposes what it holds, one entry per group with batches or control payloads and one per entry of raft's own, and writes the
    /// place of each row that bears an index into `positions` (cleared first), in order.
    /// Fails only if this node ceased to lead a group that it appended to, which its caller must have prevented.
    pub fn positions_for_close(
        &mut self,
        block: BlockSeq,
        open: &[OpenEntry],
        positions: &mut Vec<(Term, LogIndex)>,
    ) -> Result<(), ReplicationError> {
        positions.clear();
        for entry in open {
            if !entry.kind.bears_index() {
                continue;
            }
            let group = self.find_mut(entry.group).ok_or(ReplicationError::NotLeader(entry.group))?;
            let position = match entry.kind {
                _ if let Some(position) = entry.position => position,
                EntryKind::Raft => group.place_own(block),
                _ => group.propose(block, entry.content_len)?,
            };
            positions.push(position);
        }
        self.list.iter_mut().for_each(|group| group.broadcast(block));
        Ok(())
    }

    /// All blocks up to `block` are durable, and those up to `closed` are closed: appends to `commits` how far each group is committed, where that is
    /// news.
    pub fn on_durable(&mut self, block: BlockSeq, closed: BlockSeq, commits: &mut Vec<Commit>) {
        for group in &mut self.list {
            group.on_durable(block);
        }
        self.take_commits(block, closed, commits);
    }

    /// Appends to `commits` how far each group is committed, where that is news. All blocks up to `durable` are durable, those up to `closed` are closed.
    pub fn take_commits(&mut self, durable: BlockSeq, closed: BlockSeq, commits: &mut Vec<Commit>) {
        commits.extend(self.list.iter_mut().filter_map(|group| group.take_commit(durable, closed)));
    }

    /// A tick of time, for groups with other replicas.
    pub fn tick(&mut self) {
        self.list.iter_mut().for_each(Group::tick);
    }

    /// Takes in what another replica says of `group`. Groups that are not here are passed over: nobody may make this replica vote in them.
    pub fn step(&mut self, group: GroupId, message: Message) -> Result<(), ReplicationError> {
        match self.find_mut(group) {
            Some(group) if !group.is_left_out_of(Term(message.term)) => group.step(message),
            _ => Ok(()),
        }
    }

    /// What may be told to other replicas now.
    pub fn take_messages(&mut self, mut each: impl FnMut(GroupId, Message)) {
        for group in self.list.iter_mut().filter(|g| g.has_peers()) {
            group.take_messages().into_iter().for_each(|message| each(group.id, message));
        }
    }

    /// What each follower here has to tell its leader `to`. Of the groups in `asked` in any case, as soon as their terms are durable: then they are taken
    /// out of it.
    pub fn take_acks(&mut self, to: ReplicaId, asked: &mut Vec<GroupId>, mut each: impl FnMut(GroupId, FollowerMarks)) {
        for group in self.list.iter_mut().filter(|g| g.has_peers()) {
            let is_asked = asked.contains(&group.id);
            if (is_asked || group.leader() == Some(to))
                && let Some(marks) = group.take_ack(is_asked)
            {
                asked.retain(|asked| *asked != group.id);
                each(group.id, marks);
            }
        }
    }

    /// What the leader `from` sent as a snapshot of `group` is taken in, and covers everything up to `at`. False where that is nothing new. Until
    /// `on_installed` this replica tells nobody anything of the group.
    pub fn install(&mut self, group: GroupId, from: ReplicaId, at: GroupPosition, members: &Members) -> Result<bool, ReplicationError> {
        self.find_mut(group).map_or(Ok(false), |g| g.install(from, at, members))
    }

    /// Whether a snapshot of `group` was taken in that is not durable yet.
    pub fn is_installing(&self, group: GroupId) -> bool {
        self.find(group).is_some_and(Group::is_installing)
    }

    /// It is durable.
    pub fn on_installed(&mut self, group: GroupId) {
        self.find_mut(group).into_iter().for_each(Group::on_installed);
    }

    /// Whether the replica of `group` here is of an era before the one of `term`, and has something of it: then it was left out of a recovery, or is of those that
    /// are to go on and was not told yet.
    pub fn is_left_out_of(&self, group: GroupId, term: Term) -> bool {
        self.find(group).is_some_and(|group| group.is_left_out_of(term))
    }

    /// The group goes on with these voters, and in this term at least, whoever voted before.
    pub fn force(&mut self, group: GroupId, voters: &[ReplicaId], term: Term) {
        self.find_mut(group).into_iter().for_each(|group| group.force(voters, term));
    }

    /// Its only voter stands, once all that it has is durable.
    pub fn stand_if_alone(&mut self, group: GroupId) -> Result<(), ReplicationError> {
        self.find_mut(group).map_or(Ok(()), Group::stand_if_alone)
    }

    /// Whether the replica of `group` here has nothing yet, not even who votes.
    pub fn is_empty(&self, group: GroupId) -> bool {
        self.find(group).is_some_and(Group::is_empty)
    }

    /// Whether it takes no entries for that reason, not even from the first one on.
    pub fn wants_snapshot(&self, group: GroupId) -> bool {
        self.is_empty(group) && !self.mutants.has(Mutant::TakeLogEmpty)
    }

    /// `peer` has nothing of `group`: it gets a snapshot.
    pub fn send_snapshot(&mut self, group: GroupId, peer: ReplicaId) {
        self.find_mut(group).into_iter().for_each(|group| group.send_snapshot(peer));
    }

    /// What became of a snapshot of `group` for `peer`.
    pub fn on_snapshot_sent(&mut self, group: GroupId, peer: ReplicaId, has_failed: bool) -> Result<(), ReplicationError> {
        self.find_mut(group).map_or(Ok(()), |g| g.on_snapshot_sent(peer, has_failed))
    }

    /// A follower says how far it is with `group`.
    pub fn on_marks(&mut self, group: GroupId, from: ReplicaId, marks: &FollowerMarks) -> Result<(), ReplicationError> {
        self.find_mut(group).map_or(Ok(()), |g| g.on_marks(from, marks))
    }

    /// A follower has answered what was sent at `sent_us`, which counts as a beat of all groups that are led here and have a replica there.
    pub fn on_beat_answered(
        &mut self,
        from: ReplicaId,
        sent_us: u64,
        is_beat: bool,
        has_replica: impl Fn(GroupId) -> bool,
    ) -> Result<(), ReplicationError> {
        self.list.iter_mut().filter(|group| has_replica(group.id)).try_for_each(|group| group.on_beat_answered(from, sent_us, is_beat))
    }

    /// A connection to `peer` stands, which has told what it has persisted of `group`.
    pub fn on_connected(&mut self, group: GroupId, peer: ReplicaId, persisted: LogIndex, is_suspect: bool) {
        let now_us = self.now_us;
        if let Some(group) = self.find_mut(group) {
            group.on_connected(peer, persisted, is_suspect, now_us);
        }
    }

    /// This shard's replica of `group` may have lost what it had acknowledged: it does not vote until it is whole.
    pub fn suspect(&mut self, group: GroupId) {
        self.find_mut(group).into_iter().for_each(Group::suspect);
    }

    /// Whether that is so.
    pub fn is_suspect(&self, group: GroupId) -> bool {
        self.find(group).is_some_and(Group::is_suspect)
    }

    /// `peer` says whether its replica of `group` is suspect.
    pub fn on_doubt(&mut self, group: GroupId, peer: ReplicaId, is_suspect: bool) {
        let now_us = self.now_us;
        self.find_mut(group).into_iter().for_each(|group| group.on_doubt(peer, is_suspect, now_us));
    }

    /// The leader of `term` has proven that it has everything up to `at`.
    pub fn on_proven(&mut self, group: GroupId, term: Term, at: GroupPosition) {
        self.find_mut(group).into_iter().for_each(|group| group.on_proven(term, at));
    }

    /// Groups of which the replica here is suspect no more.
    pub fn take_whole(&mut self) -> Vec<GroupId> {
        self.list.iter_mut().filter_map(|group| group.take_whole().then_some(group.id)).collect()
    }

    /// What a share of `group`, of entries behind `previous`, has to tell `peer`.
    pub fn word_for(&self, group: GroupId, peer: ReplicaId, previous: LogIndex) -> Word {
        self.find(group).map_or_else(Word::default, |group| group.word_for(peer, previous))
    }

    /// Bytes of the entries of `group` that are in closed blocks and not committed.
    pub fn uncommitted_of(&self, group: GroupId) -> u64 {
        self.find(group).map_or(0, Group::uncommitted_bytes)
    }

    /// The same of all groups that are led here and have other members.
    pub fn uncommitted_led(&self) -> u64 {
        self.list.iter().filter(|group| group.is_leader() && group.has_peers()).map(Group::uncommitted_bytes).sum()
    }

    /// The connection to `peer` has ended.
    pub fn on_disconnected(&mut self, peer: ReplicaId) {
        self.list.iter_mut().for_each(|group| group.on_disconnected(peer));
    }

    /// What a hello tells of each group: its term, its last entry, and what is persisted.
    pub fn states(&self) -> impl Iterator<Item = (GroupId, Term, GroupPosition, LogIndex)> {
        self.list.iter().map(|g| (g.id, g.term(), g.last(), g.persisted()))
    }

    /// Where the `count` entries of `group` behind `previous` stand.
    pub fn entry_places(&self, group: GroupId, previous: GroupPosition, count: usize) -> EntryPlaces {
        self.find(group).map_or(EntryPlaces::Gone, |g| g.entry_places(previous, count))
    }

    /// Whether the entry is covered by a checkpoint: committed, and not known singly any more.
    pub fn is_forgotten(&self, group: GroupId, index: LogIndex) -> bool {
        self.find(group).is_some_and(|g| index <= g.raft.store().base().index)
    }

    /// What is known of an entry; `None` for one that a checkpoint covers, or that is not here.
    pub fn entry(&self, group: GroupId, index: LogIndex) -> Option<Entry> {
        self.find(group).and_then(|g| g.raft.store().entry(index))
    }

    /// The term of an entry of `group` that is here, or of the last one that a checkpoint covers.
    pub fn entry_term(&self, group: GroupId, index: LogIndex) -> Term {
        self.find(group).and_then(|g| g.raft.store().term_of(index)).unwrap_or_default()
    }

    /// The last entry of `group` in blocks up to `block`.
    pub fn index_at(&self, group: GroupId, block: BlockSeq) -> LogIndex {
        self.find(group).map_or(LogIndex(0), |g| g.position_at(block).index)
    }

    /// Whether `group` has this entry, or a checkpoint covers it.
    pub fn has_entry(&self, group: GroupId, index: LogIndex, term: Term) -> bool {
        self.is_forgotten(group, index) || self.entry(group, index).is_some_and(|entry| entry.term == term)
    }

    /// Whether `group` has this entry and no block carries it yet.
    pub fn wants_bytes(&self, group: GroupId, index: LogIndex, term: Term) -> bool {
        self.entry(group, index).is_some_and(|entry| entry.term == term && entry.block.is_none())
    }

    /// `block`, the open one, has got an entry.
    pub fn place(&mut self, group: GroupId, index: LogIndex, block: BlockSeq, bytes: u32) {
        self.find_mut(group).expect("a group of this shard").place(index, block, bytes);
    }

    /// A commit that a leader tells, as far as it may be taken.
    pub fn clamped_commit(&self, group: GroupId, commit: LogIndex) -> LogIndex {
        self.find(group).map_or(LogIndex(0), |g| g.clamped_commit(commit))
    }

    /// The last entry of `group`.
    pub fn last_of(&self, group: GroupId) -> GroupPosition {
        self.find(group).map_or_else(GroupPosition::default, Group::last)
    }

    /// The group in words, for messages.
    pub fn describe(&self, group: GroupId) -> String {
        self.find(group).map(Group::describe).unwrap_or_default()
    }

    /// The last committed entry of `group`.
    pub fn committed_of(&self, group: GroupId) -> LogIndex {
        self.find(group).map_or(LogIndex(0), Group::committed)
    }

    /// The connection from a node has ended by a reset: groups that it led forget it.
    pub fn forget_leader(&mut self, replica: ReplicaId) {
        self.list.iter_mut().filter(|g| g.leader() == Some(replica) && !g.is_leader()).for_each(Group::forget_leader);
    }

    /// Whether everything in blocks up to `block` is committed, in each group: then it may be sealed, and covered by a checkpoint.
    pub fn are_committed_through(&self, block: BlockSeq) -> bool {
        self.list.iter().all(|group| group.is_committed_through(block))
    }

    /// Where each group was when `block` was the last one: (group, position, term, vote), for a checkpoint.
    pub fn positions_at(&self, block: BlockSeq) -> Vec<(GroupId, GroupPosition, Term, u64)> {
        self.list.iter().map(|g| (g.id, g.position_at(block), g.term(), g.vote())).collect()
    }

    /// Forgets entries that a durable checkpoint covers.
    pub fn compact(&mut self, positions: &[(GroupId, GroupPosition, Term, u64)]) {
        for (id, position, ..) in positions {
            if let Some(group) = self.find_mut(*id) {
                let index = position.index.min(group.committed());
                group.raft.mut_store().compact(index);
            }
        }
    }

    /// Entries held in memory, over all groups.
    pub fn entry_count(&self) -> usize {
        self.list.iter().map(|g| g.raft.store().len()).sum()
    }

    /// The last entry covered by a checkpoint, for tests and metrics.
    pub fn base_of(&self, group: GroupId) -> Option<GroupPosition> {
        self.find(group).map(|g| g.raft.store().base())
    }

    fn find(&self, id: GroupId) -> Option<&Group> {
        self.list.iter().find(|g| g.id == id)
    }

    fn find_mut(&mut self, id: GroupId) -> Option<&mut Group> {
        self.list.iter_mut().find(|g| g.id == id)
    }
}
