//! One replica group: the raft state machine, what of its log stands in durable blocks, and what this replica may do in it.
//!
//! The crate's `Raft` is driven without its `RawNode`: a `RawNode` gathers what is to be done in a `Ready` of fresh vectors, seven to
//! eight allocations per block of the log (docs/decisions/0005). Each call into the crate is followed by `settle`, which takes what such a
//! `Ready` would have held (docs/REPLICATION.md, 4.1).
//!
//! Invariants: nothing stays in raft's unstable log between two calls; an entry is persisted when the block that got it *last* is durable, and
//! all before it are; a batch is stamped with `leader_term` only while this replica leads; what is committed may be ahead of this replica's own disk.
//! Not here: the table of groups and the walk over a block's entries (`groups.rs`), replicas that have nothing (`group/empty.rs`), a group that goes on without a
//! majority (`group/forced.rs`), snapshots (`group/snapshots.rs`).

mod empty;
mod forced;
mod handing_over;
mod snapshots;

use super::change::{CHANGE_BYTES, Change, Members};
use super::doubt::Doubts;
use super::heard::Heard;
use super::marks::{Commit, EntryPlaces, FollowerMarks, Held, OwnBlocks};
use super::storage::{Entry, GroupPosition, GroupStorage, Handle, Holds, marked_entry};
use crate::ids::{BlockSeq, GroupId, LogIndex, ReplicaId, Term};
use crate::mutants::{Mutant, Mutants};
use raft::eraftpb::{EntryType, Message, MessageType};
use raft::{Config, Raft, StateRole};
use std::collections::VecDeque;
use std::fmt;

/// Ticks of 50 ms. An election after 1.1 to 1.95 s of silence, a beat each 100 ms (docs/REPLICATION.md, 10).
const ELECTION_TICKS: usize = 20;
const ELECTION_TICKS_MIN: usize = 22;
const ELECTION_TICKS_MAX: usize = 40;
const BEAT_TICKS: usize = 2;
/// Bytes of the entries in one message, and messages under way to one peer (docs/REPLICATION.md, 3.6).
const SHARE_BYTES_MAX: u64 = 1 << 20;
const SHARES_IN_FLIGHT_MAX: usize = 256;

/// What a start knows of a group: from the checkpoint and the hard states in the log.
#[derive(Clone, Debug, Default)]
pub struct GroupStart {
    /// The group.
    pub id: GroupId,
    /// The last entry that the checkpoint covers.
    pub base: GroupPosition,
    /// The highest term that was written, as a hard state or as an entry.
    pub term: Term,
    /// Vote in that term; 0 for none.
    pub vote: u64,
    /// Who votes in it, and who learns it.
    pub members: Members,
    /// Entries up to this one are known to be committed; not below the base.
    pub committed: LogIndex,
    /// This replica may have lost what it had acknowledged; it has others, whoever votes at its base.
    pub is_suspect: bool,
}

/// Why an operation on a group did not happen.
#[derive(Debug)]
pub enum ReplicationError {
    /// The consensus core refused; it says why.
    Raft(GroupId, raft::Error),
    /// This node does not lead the group.
    NotLeader(GroupId),
    /// The change before is not committed yet, or nothing of this leader's term is.
    ChangePending(GroupId),
}

impl fmt::Display for ReplicationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplicationError::Raft(group, cause) => write!(f, "replica group {group}: {cause}"),
            ReplicationError::NotLeader(group) => write!(f, "replica group {group} is led by another node"),
            ReplicationError::ChangePending(group) => write!(f, "replica group {group} is changing who votes in it"),
        }
    }
}

impl std::error::Error for ReplicationError {}

/// Where the last change of term or vote stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// In memory alone.
    Owed,
    /// In this block.
    In(BlockSeq),
    Durable,
}

pub(super) struct Group {
    pub(super) id: GroupId,
    pub(super) mutants: Mutants,
    pub(super) raft: Raft<GroupStorage>,
    /// Every entry up to this one stands in a durable block, for the last time that it was written. The crate's own guard against an entry that was
    /// replaced and comes again is its unstable log, which is empty here (docs/REPLICATION.md, trap T3).
    persisted: LogIndex,
    /// Entries that raft made itself (the empty entry of a new term, a change) and that no block carries yet.
    own_unplaced: VecDeque<(Term, LogIndex)>,
    /// Of those, how many were announced by `Groups::owed`.
    own_announced: usize,
    /// Where the last change of term or vote stands.
    standing: Standing,
    /// What is to be told to other replicas once term and vote are durable.
    held: Vec<Message>,
    /// The highest index that this replica knows to be the same as in the log of the leader of its term.
    agreed: LogIndex,
    /// The leader's terms and votes changed, or what it has to be told of did: its next ack says so.
    owes_ack: bool,
    was_leader: bool,
    /// When this replica began to lead; `u64::MAX` before it was told.
    led_since_us: u64,
    /// What the other voters have said to this leader.
    pub(super) heard: Heard,
    /// Who votes and learns, as far as that is committed.
    members: Members,
    /// They have changed since that was asked.
    members_changed: bool,
    /// Whether there is another one among them, or nobody is known to be.
    has_peers: bool,
    /// A snapshot was taken in and is not durable: nobody is told anything. What was committed before it, which is all that a hard state may tell until then:
    /// a start that does not find the snapshot has the log of before, and its tail may be one that other leaders have replaced.
    installing: Option<LogIndex>,
    pub(super) doubts: Doubts,
    /// The first entry of this leader's term; until it is committed, reads are answered with "not yet".
    first_own_index: LogIndex,
    /// What was proposed last, and for which block: the other kind of content of the same block joins it.
    last_proposed: Option<(BlockSeq, Term, LogIndex)>,
    committed: LogIndex,
    /// What of it was reported, and through which block.
    reported: (LogIndex, BlockSeq),
}

impl Group {
    pub(super) fn new(
        start: GroupStart,
        me: ReplicaId,
        entries: &[(LogIndex, Term, Handle)],
        changes: &[(LogIndex, Change)],
        logger: &slog::Logger,
    ) -> Result<Group, ReplicationError> {
        let mut storage = GroupStorage::new(start.base, start.term, start.vote, start.base.index, start.members.clone());
        for (index, term, handle) in entries {
            storage.restore(*index, *term, *handle);
        }
        changes.iter().for_each(|(index, change)| storage.note_change(*index, *change));
        let persisted = storage.last().index;
        let config = Config {
            id: me.0,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: BEAT_TICKS,
            min_election_tick: ELECTION_TICKS_MIN,
            max_election_tick: ELECTION_TICKS_MAX,
            applied: start.base.index.0,
            max_size_per_msg: SHARE_BYTES_MAX,
            max_inflight_msgs: SHARES_IN_FLIGHT_MAX,
            check_quorum: true,
            pre_vote: true,
            // Followers learn what is committed by the next append or beat.
            skip_bcast_commit: true,
            ..Config::default()
        };
        let id = start.id;
        let raft = Raft::new(&config, storage, logger).map_err(|cause| ReplicationError::Raft(id, cause))?;
        let mut group = Group {
            id,
            mutants: Mutants::default(),
            raft,
            persisted,
            own_unplaced: VecDeque::new(),
            own_announced: 0,
            standing: Standing::Durable,
            held: Vec::new(),
            agreed: start.base.index,
            owes_ack: false,
            was_leader: false,
            led_since_us: u64::MAX,
            heard: Heard::default(),
            members: Members::default(),
            members_changed: false,
            has_peers: false,
            installing: None,
            doubts: Doubts::new(start.is_suspect),
            first_own_index: LogIndex(u64::MAX),
            last_proposed: None,
            committed: start.base.index,
            reported: (start.base.index, BlockSeq(0)),
        };
        group.adopt_members(start.members);
        group.raft.raft_log.committed = group.raft.raft_log.committed.max(start.committed.0.min(group.last().index.0));
        group.settle();
        Ok(group)
    }

    /// Works with these members from now on. What the lease was good for it stays good for: a change is committed by those before and those after.
    fn adopt_members(&mut self, members: Members) {
        let me = ReplicaId(self.raft.id);
        self.heard.set_voters(members.voters.iter().copied().filter(|voter| *voter != me));
        self.has_peers = members.voters.is_empty() || self.is_suspect() || members.all().any(|replica| replica != me);
        if members.is_lone(me) {
            self.heard.hold_for_ever();
        }
        self.members = members;
        self.members_changed = true;
    }

    /// What is committed of who votes counts from now on.
    fn take_changes(&mut self) {
        let changes: Vec<_> = self.changes_to(self.committed).collect();
        for (index, change) in changes {
            match self.raft.apply_conf_change(&change.for_raft()) {
                Ok(conf) => {
                    self.adopt_members(Members::of_raft(&conf, index));
                    // With the commit, in a hard state: after a start nobody else may be left who could say that it is one.
                    self.standing = Standing::Owed;
                }
                // A change that cannot be was refused by every replica alike.
                Err(_) => self.members.index = index,
            }
        }
    }

    /// Whether they have changed since this was asked. The lease of who was alone ends from `now_us` on, as any other does.
    pub(super) fn take_members_changed(&mut self, now_us: u64) -> bool {
        if !self.members.is_lone(ReplicaId(self.raft.id)) {
            self.heard.begin_lease(now_us);
        }
        std::mem::take(&mut self.members_changed)
    }

    pub(super) fn members(&self) -> &Members {
        &self.members
    }

    /// How far `replica` is, as its acks tell.
    pub(super) fn matched(&self, replica: ReplicaId) -> Option<LogIndex> {
        self.raft.prs().get(replica.0).filter(|_| self.is_leader()).map(|progress| LogIndex(progress.matched))
    }

    /// Proposes a change of who votes or learns: one at a time, behind an entry of this leader's own term that is committed (docs/REPLICATION.md, 6.3).
    pub(super) fn change(&mut self, change: Change) -> Result<LogIndex, ReplicationError> {
        if !self.is_leader() {
            return Err(ReplicationError::NotLeader(self.id));
        }
        let has_pending = self.changes_to(LogIndex(u64::MAX)).next().is_some();
        if has_pending || !self.is_caught_up() || self.raft.has_pending_conf() {
            return Err(ReplicationError::ChangePending(self.id));
        }
        let mut entries = [change.entry()];
        if !self.raft.append_entry(&mut entries) {
            return Err(ReplicationError::Raft(self.id, raft::Error::ProposalDropped));
        }
        let index = LogIndex(entries[0].index);
        self.raft.pending_conf_index = index.0;
        self.raft.bcast_append();
        self.settle();
        Ok(index)
    }

    /// Whether term, vote and who votes are durable as they are.
    pub(super) fn is_settled(&self) -> bool {
        self.standing == Standing::Durable
    }

    /// It stands for election after so many ticks, instead of waiting for a leader that there never was, or that has ended.
    pub(super) fn hurry(&mut self, ticks: usize) {
        let elapsed = self.raft.randomized_election_timeout().saturating_sub(ticks);
        self.raft.election_elapsed = elapsed.max(self.raft.election_elapsed);
    }

    /// The change that an entry of raft's own is, if it is one.
    pub(super) fn change_at(&self, index: LogIndex) -> Option<Change> {
        self.raft.store().change(index)
    }

    /// Stands for election; a lone voter has won when this returns. Of a lone voter everything has to be persisted (trap T4).
    pub(super) fn campaign(&mut self) -> Result<(), ReplicationError> {
        let mut hup = Message::default();
        hup.set_msg_type(MessageType::MsgHup);
        self.step(hup)
    }

    /// Takes in what another replica says. Its entries, if any, have no place yet: `place` names it.
    pub(super) fn step(&mut self, message: Message) -> Result<(), ReplicationError> {
        if self.is_deaf_to(message.get_msg_type()) {
            return Ok(());
        }
        self.raft.step(message).map_err(|cause| ReplicationError::Raft(self.id, cause))?;
        self.settle();
        Ok(())
    }

    pub(super) fn is_leader(&self) -> bool {
        self.raft.state == StateRole::Leader
    }

    pub(super) fn term(&self) -> Term {
        Term(self.raft.term)
    }

    pub(super) fn vote(&self) -> u64 {
        self.raft.vote
    }

    pub(super) fn committed(&self) -> LogIndex {
        self.committed
    }

    /// What a hard state written now may tell: the term, the vote in it, and how far the log is committed that a start will find with it.
    pub(super) fn hard_state(&self) -> (Term, u64, LogIndex) {
        (self.term(), self.vote(), self.installing.unwrap_or(self.committed))
    }

    /// Whether the first entry of this leader's term is committed, and was told so (`take_commit`): only then are its ends those of the group.
    pub(super) fn is_caught_up(&self) -> bool {
        self.is_leader() && self.reported.0 >= self.first_own_index
    }

    /// The place of `bytes` more of what `block`, which is being closed, carries for this group: one entry, whatever kinds its content has. So a
    /// block's share holds as a whole or not at all, also where another replica leads next.
    pub(super) fn propose(&mut self, block: BlockSeq, bytes: u32) -> Result<(Term, LogIndex), ReplicationError> {
        if !self.is_leader() {
            return Err(ReplicationError::NotLeader(self.id));
        }
        if let Some((_, term, index)) = self.last_proposed.filter(|(at, ..)| *at == block) {
            self.place(index, block, bytes);
            return Ok((term, index));
        }
        assert_eq!(self.own_unplaced.len(), 0, "group {}: raft's own entries stand in front of what is proposed", self.id);
        let mut entries = [marked_entry()];
        if !self.raft.append_entry(&mut entries) {
            return Err(ReplicationError::Raft(self.id, raft::Error::ProposalDropped));
        }
        let (index, term) = (LogIndex(entries[0].index), Term(entries[0].term));
        self.settle();
        self.place(index, block, bytes);
        self.last_proposed = Some((block, term, index));
        Ok((term, index))
    }

    /// The others are to hear now how far the group is committed: they would with the next entries, or a beat.
    pub(super) fn tell_commit(&mut self) {
        if self.has_peers() && self.is_leader() {
            self.raft.bcast_append();
            self.settle();
        }
    }

    /// What was proposed goes out to the others, once per block.
    pub(super) fn broadcast(&mut self, block: BlockSeq) {
        if self.has_peers() && self.last_proposed.is_some_and(|(at, ..)| at == block) {
            self.raft.bcast_append();
            self.settle();
        }
    }

    /// The next of raft's own entries that `block`, which is being closed, carries.
    pub(super) fn place_own(&mut self, block: BlockSeq) -> (Term, LogIndex) {
        assert!(self.own_announced > 0, "an own entry of group {} was not announced before it was appended", self.id);
        self.own_announced -= 1;
        let (term, index) = self.own_unplaced.pop_front().expect("counted");
        let (store, is_change) = (self.raft.store(), self.change_at(index).is_some());
        if store.term_of(index) == Some(term) && store.block_of(index).is_none() {
            self.place(index, block, if is_change { CHANGE_BYTES as u32 } else { 0 });
        }
        (term, index)
    }

    /// `block` has got (more of) an entry.
    pub(super) fn place(&mut self, index: LogIndex, block: BlockSeq, bytes: u32) {
        self.raft.mut_store().place(index, block, bytes);
    }

    /// What the open block has to carry of this group before anything else: a changed term or vote, and how many of raft's own entries. Asked again,
    /// only what came up since.
    pub(super) fn owed(&mut self, open_block: BlockSeq) -> (bool, Vec<Option<Change>>) {
        let own = self.own_unplaced.range(self.own_announced..).map(|(_, index)| self.change_at(*index)).collect();
        self.own_announced = self.own_unplaced.len();
        let owes_hard_state = self.standing == Standing::Owed;
        if owes_hard_state {
            self.standing = Standing::In(open_block);
        }
        (owes_hard_state, own)
    }

    /// Whether `owed` has something to say.
    pub(super) fn owes(&self) -> bool {
        self.standing == Standing::Owed || !self.has_announced_own()
    }

    /// What `owed` would say: whether term and vote changed, and bytes of each of raft's own entries.
    pub(super) fn owes_now(&self) -> (bool, impl Iterator<Item = usize>) {
        let own = self.own_unplaced.range(self.own_announced..);
        (self.standing == Standing::Owed, own.map(|(_, index)| self.change_at(*index).map_or(0, |_| CHANGE_BYTES)))
    }

    /// Takes what a call into the crate has left to be done.
    pub(super) fn settle(&mut self) {
        let hard_state = self.raft.hard_state();
        let store = self.raft.mut_store();
        if (hard_state.term, hard_state.vote) != store.term_and_vote() {
            if hard_state.term != store.term_and_vote().0 {
                self.agreed = self.committed;
            }
            self.standing = Standing::Owed;
            store.set_hard_state(hard_state);
        }
        self.take_unstable();
        let leads = self.is_leader();
        if leads && !self.was_leader {
            // The crate has appended the empty entry of the term.
            self.first_own_index = LogIndex(self.raft.raft_log.last_index());
            if self.members.is_lone(ReplicaId(self.raft.id)) {
                self.heard.hold_for_ever();
            }
        }
        if !leads && self.was_leader {
            self.first_own_index = LogIndex(u64::MAX);
            self.heard.forget();
            self.led_since_us = u64::MAX;
        }
        self.was_leader = leads;
        self.take_raft_messages();
        // A change of who votes can commit more, and makes messages.
        while LogIndex(self.raft.raft_log.committed) > self.committed {
            self.committed = LogIndex(self.raft.raft_log.committed);
            self.raft.mut_store().count_committed(self.committed);
            self.take_changes();
            self.take_raft_messages();
        }
        if self.has_peers {
            let at = GroupPosition { index: self.committed, term: self.raft.store().term_of(self.committed).unwrap_or_default() };
            self.raft.mut_store().note_committed(at, &self.members);
        }
        // Two followers can commit what is not durable here. The crate does not want to hear of it before (trap T1).
        let applied = self.committed.min(self.persisted).0;
        if applied > self.raft.raft_log.applied() {
            self.raft.commit_apply(applied);
        }
        // A lone voter waits for nobody, and settles once for each block of its log.
        if self.has_peers() {
            let timeout = election_ticks(self.id, ReplicaId(self.raft.id), self.raft.term);
            self.raft.set_randomized_election_timeout(timeout);
        }
        if self.is_leader() && self.raft.prs().get(self.raft.id).is_none() {
            self.leave();
        }
    }

    fn take_raft_messages(&mut self) {
        for message in self.raft.msgs.drain(..) {
            match message.get_msg_type() {
                // Told by acks, which say what is durable, and may say it of many at once.
                MessageType::MsgAppendResponse if !message.reject => {
                    self.agreed = self.agreed.max(LogIndex(message.index));
                    self.owes_ack = true;
                }
                MessageType::MsgHeartbeatResponse => self.owes_ack = true,
                _ => self.held.push(message),
            }
        }
    }

    fn take_unstable(&mut self) {
        self.take_snapshot();
        let mut last = None;
        for at in 0..self.raft.raft_log.unstable_entries().len() {
            let entry = &self.raft.raft_log.unstable_entries()[at];
            let change = if entry.get_entry_type() == EntryType::EntryConfChange { Change::decode(&entry.data) } else { None };
            let holds = match change {
                Some(_) => Holds::Change,
                None if entry.data.is_empty() => Holds::Own,
                None => Holds::Share,
            };
            let (index, term) = (LogIndex(entry.index), Term(entry.term));
            assert!(index > self.committed, "group {}: entry {index} is committed and was to be replaced", self.id);
            if last.is_none() {
                self.cut_own_from(index);
                if !self.mutants.has(Mutant::PersistReplaced) {
                    self.persisted = self.persisted.min(LogIndex(index.0 - 1));
                }
            }
            self.raft.mut_store().append(index, term, holds);
            change.into_iter().for_each(|change| self.raft.mut_store().note_change(index, change));
            if self.is_leader() && holds.is_own() {
                self.own_unplaced.push_back((term, index));
            }
            last = Some((index, term));
        }
        if let Some((index, term)) = last {
            self.raft.raft_log.stable_entries(index.0, term.0);
        }
    }

    /// Of raft's own entries that have no row yet, those that were replaced get none. Those that have one keep it: it stands in front of what replaces
    /// them.
    fn cut_own_from(&mut self, index: LogIndex) {
        while self.own_unplaced.len() > self.own_announced && self.own_unplaced.back().is_some_and(|(_, own)| *own >= index) {
            self.own_unplaced.pop_back();
        }
    }

    /// Every block up to `block` is durable.
    pub(super) fn on_durable(&mut self, block: BlockSeq) {
        if matches!(self.standing, Standing::In(at) if at <= block) {
            self.standing = Standing::Durable;
            self.owes_ack = true;
        }
        let persisted = self.raft.store().end_of_run(self.persisted, block);
        if persisted == self.persisted {
            return;
        }
        self.persisted = persisted;
        self.owes_ack = true;
        let term = self.raft.store().term_of(persisted).expect("an entry that is kept");
        self.raft.on_persist_entries(persisted.0, term.0);
        self.settle();
    }

    /// What is committed, if that or the block is news: the last committed entry, and the last block such that every entry of this group in blocks up
    /// to it is committed. The block is `durable`, the last durable one, or further where others have made an entry durable before this replica, but never
    /// beyond `closed`, the last closed one: what is open may get more.
    pub(super) fn take_commit(&mut self, durable: BlockSeq, closed: BlockSeq) -> Option<Commit> {
        let store = self.raft.store();
        // Of a snapshot there is no block: nothing of the group in those that were told before is left.
        let reached = store.block_of(self.committed).unwrap_or(self.reported.1).max(durable).min(closed);
        let through = match store.next_block(self.committed) {
            Some(_) if self.mutants.has(Mutant::AckOwnDisk) => reached,
            Some(next) => reached.min(BlockSeq(next.0 - 1)),
            None => reached,
        };
        let (index_before, through_before) = self.reported;
        assert!(through >= through_before, "group {}: committed through block {through_before}, and now {through}", self.id);
        if (self.committed, through) == self.reported {
            return None;
        }
        self.reported = (self.committed, through);
        let has_entries = self.committed > index_before || self.mutants.has(Mutant::AckOwnDisk);
        Some(Commit { group: self.id, index: self.committed, block: through, has_entries })
    }

    /// Whether every entry in blocks up to `block` is committed. Constant time where that was reported; else a walk over the entries.
    pub(super) fn is_committed_through(&self, block: BlockSeq) -> bool {
        block <= self.reported.1 || self.position_at(block).index <= self.committed
    }

    /// What may be told to other replicas now: nothing of a term or vote that a crash could take back (traps T2, T4).
    pub(super) fn take_messages(&mut self) -> Vec<Message> {
        match self.standing {
            Standing::Durable if !self.is_installing() => std::mem::take(&mut self.held),
            _ if self.mutants.has(Mutant::TellVoteEarly) => std::mem::take(&mut self.held),
            _ => Vec::new(),
        }
    }

    /// How far this follower is, for its leader, if that is news or `asked` for. Told in a durable term only.
    pub(super) fn take_ack(&mut self, asked: bool) -> Option<FollowerMarks> {
        if self.standing != Standing::Durable || self.is_installing() || !(std::mem::take(&mut self.owes_ack) || asked) {
            return None;
        }
        let received = self.raft.store().end_of_run(self.persisted, BlockSeq(u64::MAX)).min(self.agreed);
        let durable = match self.mutants {
            mutants if mutants.has(Mutant::AckAppendEarly) => received,
            mutants if mutants.has(Mutant::AckBeyondAgreed) => self.persisted,
            _ => self.persisted.min(self.agreed),
        };
        Some(FollowerMarks {
            term: self.term(),
            received,
            durable,
            committed: self.committed.min(self.agreed),
            is_suspect: self.is_suspect(),
        })
    }

    /// A follower says how far it is.
    pub(super) fn on_marks(&mut self, from: ReplicaId, marks: &FollowerMarks) -> Result<(), ReplicationError> {
        if self.is_left_out_of(marks.term) {
            return Ok(());
        }
        if self.is_doubted(from) && marks.term <= self.term() {
            self.on_doubted_marks(from, marks);
            return Ok(());
        }
        if self.is_leader() && marks.term == self.term() {
            assert!(marks.received <= self.last().index, "group {}: {from:?} has received {marks:?}, and {}", self.id, self.describe());
            self.heard.on_received(from, marks.received);
        }
        let mut message = Message { from: from.0, to: self.raft.id, term: marks.term.0, ..Message::default() };
        message.set_msg_type(MessageType::MsgAppendResponse);
        (message.index, message.commit) = (marks.durable.0, marks.committed.0);
        self.step(message)
    }

    /// A follower has answered a beat, or an append that counts as one, which was sent at `sent_us`. The crate hears of beats alone (`is_beat`): it answers
    /// with an append where entries are not acknowledged yet, which was answered at once, and so on: as fast as frames travel, as long as a disk is slow.
    pub(super) fn on_beat_answered(&mut self, from: ReplicaId, sent_us: u64, is_beat: bool) -> Result<(), ReplicationError> {
        if !self.is_leader() || self.members.all().all(|member| member != from) {
            return Ok(());
        }
        // One that was sent before this replica led is no answer to its leadership.
        if sent_us >= self.led_since_us {
            self.heard.on_answered(from, sent_us);
            self.prove();
        }
        if !is_beat {
            return Ok(());
        }
        let mut message = Message { from: from.0, to: self.raft.id, term: self.raft.term, ..Message::default() };
        message.set_msg_type(MessageType::MsgHeartbeatResponse);
        self.step(message)
    }

    /// Whether this leader may answer at `now_us`: a majority heard it lately.
    pub(super) fn holds_lease(&self, now_us: u64) -> bool {
        self.heard.holds_lease(now_us) || self.mutants.has(Mutant::AckWithoutLease)
    }

    /// What holds of all that this group has in blocks up to `block`, which need not be committed. `None` where this replica may not answer for such: it does
    /// not lead, was not heard by a majority lately, or is giving the leadership away.
    pub(super) fn held_through(&self, block: BlockSeq, own: OwnBlocks, now_us: u64) -> Option<Held> {
        if !self.is_leader() || self.is_transferring() || !self.holds_lease(now_us) {
            return None;
        }
        let is_closed = block <= own.closed;
        let leader_durable = block <= own.durable || (is_closed && self.mutants.has(Mutant::AnswerClosedBlock));
        let replicated = is_closed && (self.is_received_through(block) || self.mutants.has(Mutant::AnswerOwnBlock));
        Some(Held { leader_durable, replicated })
    }

    /// Whether a majority has what closed blocks up to `block` hold of this group. Of entries of earlier terms that says nothing before one of this leader's
    /// own is among them: until then another leader may replace them although a majority has them, as with a commit.
    fn is_received_through(&self, block: BlockSeq) -> bool {
        // Alone a leader is the majority.
        let Some(index) = self.heard.received_by_majority() else { return true };
        index >= self.first_own_index && self.raft.store().next_block(index).is_none_or(|next| next > block)
    }

    /// This replica works as the leader from now on.
    pub(super) fn note_led(&mut self, now_us: u64) {
        self.doubts.begin_leading();
        self.led_since_us = now_us;
    }

    pub(super) fn led_since_us(&self) -> u64 {
        self.led_since_us
    }

    /// What of the commit was told.
    pub(super) fn reported(&self) -> LogIndex {
        self.reported.0
    }

    /// Whether everything that raft has made itself has a row: only then may rows of what is proposed follow.
    pub(super) fn has_announced_own(&self) -> bool {
        self.own_unplaced.len() == self.own_announced
    }

    /// A tick of time. One that is alone needs none, and a suspect does not stand.
    pub(super) fn tick(&mut self) {
        if self.has_peers && !self.is_suspect() {
            self.raft.tick();
            self.settle();
        }
    }

    /// A connection to `peer` stands, which has `persisted`: what was under way on an older one is lost.
    pub(super) fn on_connected(&mut self, peer: ReplicaId, persisted: LogIndex, is_suspect: bool, now_us: u64) {
        if !self.is_leader() {
            return;
        }
        // One that says nothing of it has lost what it had acknowledged, too (trap T7).
        let has_lost = self.matched(peer).is_some_and(|matched| matched > persisted);
        match is_suspect || has_lost {
            // On each connection anew: it may have lost more since the last one.
            true => self.doubt(peer, !is_suspect, now_us),
            false => self.on_doubt(peer, false, now_us),
        }
        // It is asked at what it says it has: from the beginning on this leader may not have the log any more, as a replica that joined never had it.
        let (first, end) = (self.raft.store().base().index.0 + 1, self.last().index.0 + 1);
        if let Some(progress) = self.raft.mut_prs().get_mut(peer.0) {
            self.heard.on_disconnected(peer, LogIndex(progress.matched));
            progress.become_probe();
            progress.next_idx = (persisted.0 + 1).clamp(first, end).max(progress.next_idx);
            progress.resume();
            self.raft.send_append(peer.0);
            self.settle();
        }
    }

    /// The connection to `peer` has ended.
    pub(super) fn on_disconnected(&mut self, peer: ReplicaId) {
        if let Some(durable) = self.matched(peer) {
            self.heard.on_disconnected(peer, durable);
        }
    }

    /// The connection from the leader's node has ended by a reset: nobody needs to wait for its silence. The others of the group stand one tick after
    /// the other, so that they do not split the votes.
    pub(super) fn forget_leader(&mut self) {
        let (me, leader) = (self.raft.id, self.raft.leader_id);
        self.raft.leader_id = 0;
        let mut left: Vec<_> = self.members.voters.iter().map(|voter| voter.0).filter(|voter| *voter != leader).collect();
        left.sort_unstable();
        if let Some(rank) = left.iter().position(|voter| *voter == me) {
            self.hurry(rank + 1);
        }
    }

    /// Where the `count` entries behind `previous` stand.
    pub(super) fn entry_places(&self, previous: GroupPosition, count: usize) -> EntryPlaces {
        let store = self.raft.store();
        if store.term_of(previous.index) != Some(previous.term) {
            return EntryPlaces::Gone;
        }
        let mut places = Vec::with_capacity(count);
        for index in (previous.index.0 + 1..).take(count).map(LogIndex) {
            let Some(Entry { term, holds, block }) = store.entry(index) else { return EntryPlaces::Gone };
            let Some(block) = block else { return EntryPlaces::NotYet };
            places.push((index, term, holds, block));
        }
        EntryPlaces::Known(places)
    }

    /// Bytes of the entries that are not committed, as far as they stand in blocks.
    pub(super) fn uncommitted_bytes(&self) -> u64 {
        self.raft.store().uncommitted_bytes()
    }

    /// Whether another replica votes or learns.
    pub(super) fn has_peers(&self) -> bool {
        self.has_peers
    }

    /// Its next ack is due.
    pub(super) fn owe_ack(&mut self) {
        self.owes_ack = true;
    }

    /// Whether this entry is here, or a checkpoint covers it.
    pub(super) fn has(&self, at: GroupPosition) -> bool {
        at.index <= self.raft.store().base().index || self.raft.store().term_of(at.index) == Some(at.term)
    }

    /// Whether everything up to `index` is durable here, and as the leader has it.
    pub(super) fn is_agreed_durably(&self, index: LogIndex) -> bool {
        !self.is_installing() && self.standing == Standing::Durable && self.persisted.min(self.agreed) >= index
    }

    pub(super) fn last(&self) -> GroupPosition {
        self.raft.store().last()
    }

    pub(super) fn leader(&self) -> Option<ReplicaId> {
        Some(ReplicaId(self.raft.leader_id)).filter(|leader| leader.0 != 0)
    }

    pub(super) fn persisted(&self) -> LogIndex {
        self.persisted
    }

    pub(super) fn describe(&self) -> String {
        let (role, term, vote, standing) = (self.raft.state, self.raft.term, self.raft.vote, self.standing);
        let (elapsed, of) = (self.raft.election_elapsed, self.raft.randomized_election_timeout());
        let (last, persisted, committed, agreed) = (self.last(), self.persisted, self.committed, self.agreed);
        let (held, own) = (self.held.len(), self.own_unplaced.len());
        let peers = self.raft.prs().iter().filter(|_| self.is_leader()).map(|(id, progress)| {
            let (state, matched, next) = (progress.state, progress.matched, progress.next_idx);
            format!(", of {id}: {state:?}, matched {matched}, next {next}, pending snapshot {}", progress.pending_snapshot)
        });
        format!(
            "{role:?} of term {term}, vote {vote}, {standing:?}, leader {}, last {last:?}, persisted {persisted}, agreed {agreed}, committed {committed}, \
             {held} held, {own} own without a block, tick {elapsed} of {of}{}",
            self.raft.leader_id,
            peers.collect::<String>()
        )
    }

    /// Commits are not taken beyond what this replica shares with its leader (trap T7).
    pub(super) fn clamped_commit(&self, commit: LogIndex) -> LogIndex {
        commit.min(self.agreed)
    }

    pub(super) fn position_at(&self, block: BlockSeq) -> GroupPosition {
        self.raft.store().position_at(block)
    }
}

/// Ticks until a replica that hears nobody stands: 22 to 39, the same for the same input, so that a run repeats (trap T5). Two replicas of a group
/// differ in most terms.
fn election_ticks(group: GroupId, replica: ReplicaId, term: u64) -> usize {
    let mut mixed = (u64::from(group.0) << 40) ^ (replica.0 << 20) ^ term;
    // Finalizer of MurmurHash3: a bit of the input moves half of the output.
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        mixed = (mixed ^ (mixed >> 33)).wrapping_mul(factor);
    }
    let range = ELECTION_TICKS_MAX - ELECTION_TICKS_MIN;
    ELECTION_TICKS_MIN + ((mixed ^ (mixed >> 33)) % range as u64) as usize
}
