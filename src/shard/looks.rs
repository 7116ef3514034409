//! What tests and the simulator may see of a shard beside its effects: how far its replicas are, and what is committed of them.
//!
//! Invariants: a look changes nothing.
//!
//! Not here: what is compared with what (sim/replicas.rs).

use super::shard::{Phase, Shard};
use crate::control::NodeState;
use crate::ids::{BlockSeq, GroupId, LogIndex, PartitionUid, ReplicaId, SegmentUid, Term};
use crate::log::layout::BlockView;
use crate::log::{BlockPlace, EntryKind};
use crate::replication::{GroupPosition, Holds, Members};

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupLook {
    pub(crate) group: GroupId,
    /// The term in which it leads.
    pub(crate) leads_in: Option<Term>,
    /// It may append: it leads, and holds a lease.
    pub(crate) may_append: bool,
    /// Its own first entry is committed, where it leads.
    pub(crate) is_caught_up: bool,
    /// Its queues and members may be served, where it leads.
    pub(crate) is_state_ready: bool,
    pub(crate) voters: usize,
    /// Voters of whom it has not heard that they have anything, where it leads.
    pub(crate) voters_unheard: usize,
    pub(crate) last: GroupPosition,
    pub(crate) committed: LogIndex,
    /// Taken in; of queues and members up to `noted`.
    pub(crate) applied: LogIndex,
    pub(crate) noted: LogIndex,
}

/// One entry: its term, and the sum of its bytes where they can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryLook {
    pub(crate) term: Term,
    pub(crate) sum: Option<u32>,
    /// Its block is not closed: what it holds can be had later.
    pub(crate) is_open: bool,
}

/// How far the entry of a batch is, on its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) index: LogIndex,
    /// `None` where the batch stands in a block that is not closed: then it is no entry yet.
    pub(crate) term: Option<Term>,
    pub(crate) is_durable: bool,
    pub(crate) is_committed: bool,
}

/// A batch of a partition: without its place, which is each replica's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchLook {
    pub(crate) base_offset: u64,
    pub(crate) end_offset: u64,
    pub(crate) len: u32,
    pub(crate) newest_ts_us: i64,
}

impl Shard {
    /// Its replicas.
    pub(crate) fn group_looks(&self) -> Vec<GroupLook> {
        self.group_ids.iter().map(|group| self.group_look(*group)).collect()
    }

    /// The groups that it leads, and in which terms.
    pub(crate) fn led(&self) -> impl Iterator<Item = (GroupId, Term)> + '_ {
        self.group_ids.iter().filter_map(|group| Some((*group, self.groups.led_in(*group)?)))
    }

    fn group_look(&self, group: GroupId) -> GroupLook {
        let members = self.groups.members_of(group);
        let is_unheard = |replica: &&ReplicaId| self.groups.matched(group, **replica) == Some(LogIndex(0));
        GroupLook {
            group,
            leads_in: self.groups.led_in(group),
            may_append: self.groups.leader_term(group).is_some(),
            is_caught_up: self.groups.is_caught_up(group),
            is_state_ready: group == GroupId(0) || self.is_state_ready(group),
            voters: members.map_or(0, |members| members.voters.len()),
            voters_unheard: members.map_or(0, |members| members.voters.iter().filter(is_unheard).count()),
            last: self.groups.last_of(group),
            committed: self.groups.committed_of(group),
            // Alone, a shard has taken in what it has appended, and keeps no account of it.
            applied: if self.pipelines.is_alone() { self.groups.committed_of(group) } else { self.applying.applied(group) },
            noted: self.applying.rebuild.noted(group),
        }
    }

    /// An entry; `None` for one that a checkpoint covers. `stored` has blocks that are not in memory any more, if it can.
    pub(crate) fn entry_look(
        &self,
        group: GroupId,
        index: LogIndex,
        stored: &dyn Fn(&Shard, BlockSeq) -> Option<Vec<u8>>,
    ) -> Option<EntryLook> {
        let entry = self.groups.entry(group, index)?;
        let sum = match entry.block.filter(|block| *block < self.log.open_block_seq()) {
            // Raft's own empty entry has no bytes, and each replica writes it where it likes.
            _ if entry.holds == Holds::Own => Some(0),
            None => None,
            Some(block) => match self.log.cached_block(block) {
                Some(bytes) => sum_of(bytes.as_slice(), group, index, entry.term),
                None => stored(self, block).and_then(|bytes| sum_of(&bytes, group, index, entry.term)),
            },
        };
        let is_open = entry.block.is_none_or(|block| block >= self.log.open_block_seq());
        Some(EntryLook { term: entry.term, sum, is_open })
    }

    /// The segment of a block, and where it stands in it.
    pub(crate) fn place_of(&self, block: BlockSeq) -> Option<BlockPlace> {
        self.log.block_place(block)
    }

    /// Its partitions, with their groups and committed ends.
    pub(crate) fn partition_looks(&self) -> Vec<(PartitionUid, GroupId, u64)> {
        self.partitions.iter().map(|(_, p)| (p.uid, p.group, p.committed_end())).collect()
    }

    /// The group of a partition that it knows.
    pub(crate) fn group_of_partition(&self, uid: u64) -> Option<GroupId> {
        self.group_of(PartitionUid(uid))
    }

    /// Where the batch at `offset` of a partition stands, as long as it is listed and no checkpoint covers its entry.
    pub(crate) fn standing_of(&self, uid: PartitionUid, offset: u64) -> Option<Standing> {
        let partition = self.partitions.slot(uid).and_then(|slot| self.partitions.get(slot))?;
        let batch = partition.index.tail().find(|batch| (batch.base_offset..batch.end_offset()).contains(&offset))?;
        let is_committed = batch.end_offset() <= partition.committed_end();
        if batch.block >= self.log.open_block_seq() {
            return Some(Standing { index: LogIndex(u64::MAX), term: None, is_durable: false, is_committed });
        }
        let index = self.groups.index_at(partition.group, batch.block);
        let entry = self.groups.entry(partition.group, index)?;
        let is_durable = batch.block <= self.log.durable_through();
        Some(Standing { index, term: Some(entry.term), is_durable, is_committed })
    }

    /// The nodes of the voters of a group, from 0, and the entry of their last change.
    pub(crate) fn voters_of(&self, group: GroupId) -> (Vec<usize>, LogIndex) {
        let Some(members) = self.groups.members_of(group) else { return (Vec::new(), LogIndex(0)) };
        (members.voters.iter().map(|voter| voter.node().0 as usize - 1).collect(), members.index)
    }

    /// Whether it has an entry, in memory at least.
    pub(crate) fn has_entry_of(&self, group: GroupId, index: LogIndex, term: Term) -> bool {
        self.groups.has_entry(group, index, term)
    }

    /// The committed batches of a partition that end behind `offset`, as far as they are listed one by one.
    pub(crate) fn batch_looks(&self, uid: PartitionUid, offset: u64) -> Vec<BatchLook> {
        let Some(partition) = self.partitions.slot(uid).and_then(|slot| self.partitions.get(slot)) else { return Vec::new() };
        // The first place that is not in front of it: looked for, since there are many and few are new.
        let is_before = |at: usize| partition.index.listed(at).is_some_and(|batch| batch.end_offset() <= offset);
        let (mut from, mut end) = (0, 1);
        while is_before(end - 1) {
            (from, end) = (end, 2 * end);
        }
        while from + 1 < end {
            let middle = from + (end - from) / 2;
            (from, end) = if is_before(middle - 1) { (middle, end) } else { (from, middle) };
        }
        let listed = partition.index.listed_from(from).map(|(_, batch)| batch);
        listed
            .filter(|batch| batch.end_offset() > offset && batch.end_offset() <= partition.committed_end())
            .map(|batch| BatchLook {
                base_offset: batch.base_offset,
                end_offset: batch.end_offset(),
                len: batch.len,
                newest_ts_us: batch.newest_ts_us,
            })
            .collect()
    }

    /// Whether the metadata that it knows are in force here.
    pub(crate) fn is_view_current(&self) -> bool {
        self.seat.as_ref().is_none_or(|seat| seat.state.view_epoch() == self.view.epoch)
    }

    /// Replicas here that may have lost what they had acknowledged.
    pub(crate) fn suspect_count(&self) -> usize {
        self.suspects.count()
    }

    /// Damaged batches that are known, and not made good.
    pub(crate) fn wound_count(&self) -> usize {
        self.repairs.count()
    }

    /// The segments that the log uses, and whether nothing is written to them any more.
    pub(crate) fn segments_in_use(&self) -> Vec<(SegmentUid, bool)> {
        self.log.segments().map(|segment| (segment.uid, segment.sealed || segment.sorted)).collect()
    }

    /// The block that is written next.
    pub(crate) fn open_block(&self) -> BlockSeq {
        self.log.open_block_seq()
    }

    /// Whether a replica on a disk that was replaced is a member of the group, as far as is known here.
    pub(crate) fn has_gone_members(&self, group: GroupId) -> bool {
        self.groups.members_of(group).is_some_and(|members| members.all().any(|replica| self.is_gone(replica)))
    }

    /// Moves of replicas that have not ended, as far as is known here.
    pub(crate) fn moves_under_way(&self) -> usize {
        self.view.cluster.groups().iter().filter(|group| group.moving.is_some()).count()
    }

    /// Moves of groups that have one replica, as far as this node knows.
    pub(crate) fn lone_moves_under_way(&self) -> usize {
        self.view.cluster.groups().iter().filter(|group| group.moving.is_some() && group.replicas.len() == 1).count()
    }

    /// Whether its node is to lead nothing.
    pub(crate) fn stands_aside(&self) -> bool {
        self.view.cluster.node(self.node).is_some_and(|node| matches!(node.state, NodeState::Draining | NodeState::Drained))
    }

    /// The sum over the metadata as they are taken in here, on shard 0.
    pub(crate) fn metadata_sum(&self) -> Option<u32> {
        self.seat.as_ref().map(|seat| crc32c::crc32c(&seat.state.snapshot()))
    }

    /// Who votes in a group and who learns it, in words.
    pub(crate) fn members_in_words(&self, group: GroupId) -> String {
        let raw = |ids: &[ReplicaId]| ids.iter().map(|id| id.0).collect::<Vec<_>>();
        let words =
            |members: &Members| format!("voters {:?}, learners {:?} since {}", raw(&members.voters), raw(&members.learners), members.index);
        self.groups.members_of(group).map_or(String::new(), words)
    }

    /// Each group, peer and partition, in words.
    pub(crate) fn in_words(&self) -> String {
        let node = self.node;
        let known = self.seat.as_ref().map_or(0, |seat| seat.state.view_epoch());
        let (shard, in_force, serves) = (self.id, self.view.epoch, self.is_serving());
        let mut out = format!("node {node} shard {shard}: metadata {known}, in force {in_force}, serves {serves}\n");
        if self.phase == Phase::Stopping {
            out += &format!("  it stops, and has not: {}\n", self.stop_waits_for().collect::<Vec<_>>().join(", "));
        }
        for group in &self.group_ids {
            let (group_is, applied) = (self.groups.describe(*group), self.applying.applied(*group));
            let members = self.members_in_words(*group);
            out += &format!("node {node} group {group}: {group_is}, applied {applied}, {members}\n");
        }
        for peer in &self.pipelines.peers {
            let (replica, dialed, window) = (peer.replica, peer.dialed, peer.has_window());
            let (waiting, first) = (peer.shares.len(), peer.shares.front());
            out += &format!("  to {replica:?}: {dialed:?}, {waiting} shares queued, first {first:?}, window {window}\n");
        }
        let (reads, cached, open, stats) =
            (self.pipelines.reads.len(), self.log.cached_from(), self.log.open_block_seq(), self.log.stats());
        out += &format!("  {reads} blocks read for peers, cached from {cached}, open {open}, {stats:?}\n");
        for (_, p) in self.partitions.iter() {
            let (listed, start) = (p.index.listed_from(0).count(), p.log_start());
            let (uid, group, committed, next, lost) = (p.uid, p.group, p.committed_end(), p.next_offset(), p.lost());
            out += &format!("  partition {uid} of group {group}: {start}..{committed} ({next}), {listed} listed, lost {lost:?}\n");
        }
        out
    }
}

/// The sum over what an entry holds: its batches, then its payloads, each with its length. (A leader may have them in the other order than followers.)
fn sum_of(block: &[u8], group: GroupId, index: LogIndex, term: Term) -> Option<u32> {
    let view = BlockView::parse(block)?;
    let mut sums = [1, 1];
    for row in view.rows_of(group, index, term) {
        let sum = &mut sums[usize::from(row.kind != EntryKind::Data)];
        for fragment in view.fragments_of(&row) {
            let content = view.content(&fragment);
            *sum = crc32c::crc32c_append(crc32c::crc32c_append(*sum, &(content.len() as u32).to_le_bytes()), content);
        }
    }
    Some(crc32c::crc32c_append(sums[0], &sums[1].to_le_bytes()))
}
