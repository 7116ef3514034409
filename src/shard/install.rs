//! Snapshots that come from leaders: batches go into the log as they come, and count when all of the snapshot is there; then the replica's log of entries begins
//! where the snapshot ends (docs/REPLICATION.md, 3.5).
//!
//! ```text
//! asked what it has -> pieces: batches are stored -> end: what was stored is durable -> the crate is told, partitions, producers, offsets, members and queues
//! are put to what came -> checkpoint -> acknowledged; until then nobody is told anything of the group
//! ```
//! Invariants: nothing of a snapshot counts before its end has come; meanwhile nothing is taken in out of the group's entries, or the snapshot is of no use; the
//! segments with its batches are not sealed before they count; the end is acknowledged when a checkpoint is durable that has all of it.
//!
//! Not here: what is sent (`catchup.rs`), what a start makes of it (`beginnings.rs`, `start.rs`).

use super::applying::{Certainty, Content, StoredBatch};
use super::beginnings::Since;
use super::pipelines::{NotTaken, write};
use super::shard::Shard;
use crate::control::State;
use crate::effects::{Effect, Effects, Now};
use crate::ids::{BlockSeq, ConnId, GroupId, LogIndex, PartitionUid, ReplicaId, Term, TopicUid};
use crate::log::AppendRefused;
use crate::log::checkpoint::{ProducerBatchV1, ProducerV1};
use crate::mutants::Mutant;
use crate::partition::{Partition, TopicRules};
use crate::replication::{GroupPosition, Members};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use tramline_wire::node::{
    CatchUp, CatchUpReply, CheckedBatches, Class, Frame, HavePartition, Kind, NodeError, Numbers, PayloadLimits, Piece, PieceAck,
    PieceBody, PiecePayload, Side,
};
use tramline_wire::prim::List;

/// Connections on which snapshots come: one per peer.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    list: Vec<Arrival>,
    installs: Vec<Install>,
}

#[derive(Debug)]
struct Arrival {
    from: ReplicaId,
    conn: ConnId,
    numbers: Numbers,
    incoming: Option<Incoming>,
}

/// A snapshot that is coming.
#[derive(Debug)]
struct Incoming {
    group: GroupId,
    /// The term of who sends it.
    term: Term,
    at: GroupPosition,
    members: Members,
    /// What of the group's entries was taken in when it began.
    applied: LogIndex,
    pieces: u64,
    bytes: u64,
    partitions: BTreeMap<PartitionUid, Imported>,
    producers: Vec<(ProducerV1, Vec<ProducerBatchV1>)>,
    /// The first block that may have a batch of it, and the last one that has.
    first_block: BlockSeq,
    last_block: BlockSeq,
    /// What stands of offsets, members and queues.
    notes: Vec<Vec<u8>>,
    /// Of group 0.
    state: Vec<u8>,
    kept_bytes: usize,
    has_ended: bool,
}

/// What has come of a partition.
#[derive(Debug, Default)]
struct Imported {
    log_start: u64,
    /// Behind what is there and what has come.
    next_offset: u64,
    lost: Vec<Range<u64>>,
    batches: Vec<StoredBatch>,
}

/// One that is taken in, and not durable yet.
#[derive(Debug)]
struct Install {
    group: GroupId,
    conn: ConnId,
    pieces: u64,
    /// Whether the checkpoint that has it is being written.
    is_written: bool,
}

impl Arrivals {
    /// The connections that there are.
    pub(super) fn conns(&self) -> impl Iterator<Item = ConnId> {
        self.list.iter().map(|arrival| arrival.conn)
    }

    /// A peer has dialed; answers the connection that this one takes the place of.
    pub(super) fn on_accepted(&mut self, from: ReplicaId, conn: ConnId, numbers: Numbers) -> Option<ConnId> {
        let before = self.list.iter().position(|arrival| arrival.from == from).map(|at| self.list.swap_remove(at).conn);
        self.list.push(Arrival { from, conn, numbers, incoming: None });
        before
    }

    /// Which one has this connection.
    pub(super) fn of(&self, conn: ConnId) -> Option<usize> {
        self.list.iter().position(|arrival| arrival.conn == conn)
    }

    /// A connection has ended; answers whether it was one of these. What is taken in goes on.
    pub(super) fn on_closed(&mut self, conn: ConnId) -> bool {
        let before = self.list.len();
        self.list.retain(|arrival| arrival.conn != conn);
        self.list.len() < before
    }

    /// A group is none of this shard's any more.
    pub(super) fn remove(&mut self, group: GroupId) {
        self.list.iter_mut().for_each(|arrival| drop(arrival.incoming.take_if(|incoming| incoming.group == group)));
        self.installs.retain(|install| install.group != group);
    }

    /// Forgets peers of whom `is_kept` does not say so; answers their connections.
    pub(super) fn keep(&mut self, is_kept: impl Fn(ReplicaId) -> bool) -> Vec<ConnId> {
        self.list.extract_if(.., |arrival| !is_kept(arrival.from)).map(|arrival| arrival.conn).collect()
    }

    /// Whether a checkpoint is being written for every snapshot that was taken in. Until then no other one may be: it would tell of the snapshot without what is
    /// kept of its queues.
    pub(super) fn is_all_written(&self) -> bool {
        self.installs.iter().all(|install| install.is_written)
    }

    /// Whether blocks up to this one have batches of a snapshot that does not count yet: a footer would not list them.
    pub(super) fn needs(&self, block: BlockSeq) -> bool {
        self.list.iter().filter_map(|arrival| arrival.incoming.as_ref()).any(|incoming| incoming.first_block <= block)
    }
}

impl Shard {
    /// What comes on a connection for snapshots.
    pub(super) fn take_catchup_order(&mut self, now: Now, at: usize, frame: &Frame<'_>, effects: &mut Effects) -> Result<(), NotTaken> {
        frame.kind.check(Class::CatchUp, Side::Dialer)?;
        effects.wake_at(0);
        match frame.kind {
            Kind::CatchUp => {
                let ask = CatchUp::decode(frame.meta).map_err(NodeError::from)?;
                self.begin_incoming(at, &ask, effects)
            }
            Kind::Piece => {
                let piece = Piece::decode(frame.meta).map_err(NodeError::from)?;
                let limits = PayloadLimits { batch_bytes_max: self.log.batch_bytes_max() as u32, ..PayloadLimits::default() };
                let payload = piece.check(frame.payload, &limits)?;
                self.take_piece(now, at, &piece, payload, effects)?;
                let incoming = self.arrivals.list[at].incoming.as_mut().expect("it took the piece");
                incoming.pieces += 1;
                incoming.bytes += frame.payload.len() as u64;
                if !incoming.has_ended {
                    self.ack_pieces(at, effects);
                }
                Ok(())
            }
            kind => Err(NotTaken::Wrong(format!("{kind} does not belong on this connection"))),
        }
    }

    fn begin_incoming(&mut self, at: usize, ask: &CatchUp<'_>, effects: &mut Effects) -> Result<(), NotTaken> {
        let (group, from) = (GroupId(ask.group), self.arrivals.list[at].from);
        if !self.has_group(group) {
            return Err(NotTaken::Wrong(format!("this shard has no replica of group {group} yet")));
        }
        if self.groups.leader_of(group) != Some(from) || self.groups.leads(group) {
            return Err(NotTaken::Wrong(format!("group {group} is not led by the node that sends a snapshot, as far as is known here")));
        }
        if self.arrivals.installs.iter().any(|install| install.group == group) {
            return Err(NotTaken::Wrong(format!("group {group} has a snapshot that is not durable yet")));
        }
        if group != GroupId(0) && self.view.epoch < ask.view_epoch {
            return Err(NotTaken::Wrong(format!("group {group}: the metadata that its snapshot goes by are not here yet")));
        }
        super::pipelines::check_numbers(&[ask.index, ask.term, ask.conf_index])?;
        let ids = |raw: &List<'_, u64>| raw.iter().map(ReplicaId).collect();
        let members = Members { voters: ids(&ask.voters), learners: ids(&ask.learners), index: LogIndex(ask.conf_index) };
        if !members.is_sound() || ask.index == 0 || Term(ask.term) > self.groups.term_of(group) {
            return Err(NotTaken::Wrong(format!("group {group}: no snapshot at entry {} of term {} has {members:?}", ask.index, ask.term)));
        }
        let incoming = Incoming {
            group,
            term: self.groups.term_of(group),
            at: GroupPosition { index: LogIndex(ask.index), term: Term(ask.term) },
            members,
            applied: self.applying.applied(group),
            pieces: 0,
            bytes: 0,
            partitions: BTreeMap::new(),
            producers: Vec::new(),
            first_block: self.log.open_block_seq(),
            last_block: BlockSeq(0),
            notes: Vec::new(),
            state: Vec::new(),
            kept_bytes: 0,
            has_ended: false,
        };
        tracing::info!(shard = self.id.0, group = group.0, node = from.node().0, index = ask.index, "a snapshot of the group comes");
        let of_group = |partition: &Partition| {
            (partition.group == group).then_some(HavePartition { uid: partition.uid.0, next_offset: partition.next_offset() })
        };
        let known = self.partitions.iter().map(|(_, partition)| partition).chain(self.unclaimed.values());
        let have: Vec<_> = known.filter_map(of_group).collect();
        let reply = CatchUpReply { group: group.0, have: List::of(&have) };
        let arrival = &mut self.arrivals.list[at];
        arrival.incoming = Some(incoming);
        let (conn, number) = (arrival.conn, arrival.numbers.advance());
        effects.send(conn, [], |out| write(out, Kind::CatchUpReply, number, |out| reply.encode(out)));
        Ok(())
    }

    fn ack_pieces(&mut self, at: usize, effects: &mut Effects) {
        let Arrival { conn, numbers, incoming, .. } = &mut self.arrivals.list[at];
        let incoming = incoming.as_ref().expect("pieces of it were taken in");
        let ack = PieceAck { group: incoming.group.0, pieces: incoming.pieces };
        effects.send(*conn, [], |out| write(out, Kind::PieceAck, numbers.advance(), |out| ack.encode(out)));
    }

    fn take_piece(
        &mut self,
        now: Now,
        at: usize,
        piece: &Piece<'_>,
        payload: PiecePayload<'_>,
        effects: &mut Effects,
    ) -> Result<(), NotTaken> {
        let limit = self.settings.memory_bytes / 4;
        let Some(incoming) = self.arrivals.list[at].incoming.as_mut().filter(|i| i.group.0 == piece.group && !i.has_ended) else {
            return Err(NotTaken::Wrong(format!("a piece of group {}, of which no snapshot has begun", piece.group)));
        };
        let (group, uid) = (incoming.group, PartitionUid(piece.uid));
        match (piece.body, payload) {
            (PieceBody::Partition { log_start, next_offset, lost, .. }, _) => {
                super::pipelines::check_numbers(&[log_start, next_offset])?;
                if log_start > next_offset {
                    return Err(NotTaken::Wrong(format!("partition {uid} begins at {log_start} and ends at {next_offset}")));
                }
                let lost = lost.iter().filter(|range| range.first < range.end).map(|range| range.first..range.end).collect();
                let there = self.partition_of(group, uid)?.map_or(0, Partition::next_offset);
                let incoming = self.arrivals.list[at].incoming.as_mut().expect("seen above");
                incoming.partitions.insert(uid, Imported { log_start, next_offset: there, lost, batches: Vec::new() });
            }
            (_, PiecePayload::Batches(batches)) => self.import(now, at, uid, batches, effects)?,
            (PieceBody::Producers { .. }, PiecePayload::Items(items)) => {
                for item in items {
                    let wrong = || NotTaken::Wrong("an item about a producer that is none".to_owned());
                    incoming.producers.push(read_producer(item).ok_or_else(wrong)?);
                    incoming.kept_bytes += item.len();
                }
            }
            (PieceBody::Notes { .. }, PiecePayload::Items(items)) => {
                for item in items {
                    incoming.kept_bytes += item.len();
                    incoming.notes.push(item.to_vec());
                }
            }
            (PieceBody::Metadata { .. }, PiecePayload::State(part)) if group == GroupId(0) => {
                incoming.kept_bytes += part.len();
                incoming.state.extend_from_slice(part);
            }
            (PieceBody::End { pieces, bytes }, _) => {
                if (pieces, bytes) != (incoming.pieces + 1, incoming.bytes) {
                    let (had, of) = (incoming.pieces + 1, incoming.bytes);
                    return Err(NotTaken::Wrong(format!(
                        "group {group}: {had} pieces of {of} bytes came, and {pieces} of {bytes} were sent"
                    )));
                }
                incoming.has_ended = true;
            }
            (body, _) => return Err(NotTaken::Wrong(format!("group {group}: {body:?} does not belong to it"))),
        }
        let kept = self.arrivals.list[at].incoming.as_ref().map_or(0, |incoming| incoming.kept_bytes);
        if kept > limit {
            return Err(NotTaken::Wrong(format!("group {group}: its state is larger than {limit} bytes: raise memory.bytes")));
        }
        Ok(())
    }

    /// The partition of this uid, if it is there; one of another group is refused.
    fn partition_of(&self, group: GroupId, uid: PartitionUid) -> Result<Option<&Partition>, NotTaken> {
        match self.found_partition(uid) {
            Some(partition) if partition.group != group => Err(NotTaken::Wrong(format!("partition {uid} is not in group {group}"))),
            partition => Ok(partition),
        }
    }

    /// Stores batches. Those that are there already are passed over, so a piece that was stored in part may come again.
    fn import(
        &mut self,
        now: Now,
        at: usize,
        uid: PartitionUid,
        batches: CheckedBatches<'_>,
        effects: &mut Effects,
    ) -> Result<(), NotTaken> {
        for batch in batches {
            let incoming = self.arrivals.list[at].incoming.as_ref().expect("the piece is one of it");
            let group = incoming.group;
            let Some(imported) = incoming.partitions.get(&uid) else {
                return Err(NotTaken::Wrong(format!("batches of partition {uid}, of which nothing was told")));
            };
            if batch.next_offset() <= imported.next_offset {
                continue;
            }
            if batch.base_offset() < imported.next_offset {
                let (base, there) = (batch.base_offset(), imported.next_offset);
                return Err(NotTaken::Wrong(format!(
                    "a batch of partition {uid} begins at {base}, in front of {there}, where the one before ends"
                )));
            }
            let bytes = batch.bytes();
            let appended = match self.in_open_block(now, effects, |log, slab| log.append_imported(slab, group, bytes)) {
                Ok(appended) => appended,
                Err(AppendRefused::Full) => return Err(NotTaken::Blocked),
                Err(AppendRefused::TooLarge) => return Err(NotTaken::Wrong(format!("a batch of {} bytes fits no block", bytes.len()))),
                Err(AppendRefused::Failed) => return Err(NotTaken::Wrong("this shard's log has failed".to_owned())),
            };
            self.urgent = true;
            let incoming = self.arrivals.list[at].incoming.as_mut().expect("seen above");
            incoming.last_block = appended.block;
            let imported = incoming.partitions.get_mut(&uid).expect("seen above");
            imported.next_offset = batch.next_offset();
            imported.batches.push(StoredBatch::read(bytes, appended.block, appended.at));
        }
        Ok(())
    }

    /// Takes in what has come whole, and goes on with what is taken in. Once at the end of each turn.
    pub(super) fn install_snapshots(&mut self, now: Now, effects: &mut Effects) {
        for at in (0..self.arrivals.list.len()).rev() {
            let arrival = &self.arrivals.list[at];
            let Some(incoming) = &arrival.incoming else { continue };
            let group = incoming.group;
            let is_of_leader = self.groups.leader_of(group) == Some(arrival.from) && self.groups.term_of(group) == incoming.term;
            if !is_of_leader || self.applying.applied(group) != incoming.applied {
                // Who leads next begins its own, and where entries come there is no need of one.
                effects.push(Effect::Close { conn: arrival.conn, reason: "a snapshot is of no use any more" });
                self.arrivals.list.swap_remove(at);
                continue;
            }
            let is_open = self.log.open_groups().iter().any(|row| row.group == group);
            if !incoming.has_ended || self.log.durable_through() < incoming.last_block || is_open {
                // What was stored is on its way to the disk. What others store behind it is not waited for: on a busy shard some of that always is.
                if incoming.has_ended {
                    self.urgent |= is_open;
                    effects.wake_at(now.mono_us + 1_000);
                }
                continue;
            }
            self.install(now, at, effects);
        }
    }

    fn install(&mut self, now: Now, at: usize, effects: &mut Effects) {
        let Arrival { from, conn, incoming, .. } = &mut self.arrivals.list[at];
        let (from, conn, incoming) = (*from, *conn, incoming.take().expect("looked at by the caller"));
        let Incoming { group, at: position, members, pieces, notes, state, applied, partitions, producers, .. } = incoming;
        let state = match group {
            GroupId(0) => match State::restore(&state) {
                Ok(state) => Some(state),
                Err(error) => return self.refuse_snapshot(conn, group, &error.to_string(), effects),
            },
            _ => None,
        };
        if position.index == self.groups.committed_of(group) && position.term != self.groups.entry_term(group, position.index) {
            return self.refuse_snapshot(conn, group, "it ends with an entry that another one is committed instead of", effects);
        }
        match self.groups.install(group, from, position, &members) {
            Err(error) => return self.refuse_snapshot(conn, group, &error.to_string(), effects),
            // The log has come that far meanwhile.
            Ok(false) => return self.tell_installed(group, conn, pieces, effects),
            Ok(true) => self.listing.forget(),
        }
        tracing::info!(
            shard = self.id.0,
            group = group.0,
            index = position.index.0,
            term = position.term.0,
            "a snapshot of the group is taken in"
        );
        self.metrics.counters.snapshots_taken += 1;
        self.applying.since.insert(group, Since { block: self.log.last_closed(), applied });
        self.applying.forget_all_found(group);
        self.applying.set(group, position.index.max(applied));
        if let Some(state) = state {
            let seat = self.seat.as_mut().expect("a replica of group 0 is on shard 0");
            if state.applied() > seat.state.applied() {
                seat.state = state;
            }
            seat.is_current = true;
            self.publish_view(now, effects);
        } else {
            self.take_partitions(group, partitions, producers);
            if let Err(what) = self.take_image(group, position.index, notes) {
                return self.fail(&format!("a snapshot of group {group} cannot be read: {what}"), effects);
            }
        }
        if self.log.mutants().has(Mutant::AckSnapshotEarly) {
            self.groups.on_installed(group);
            return self.tell_installed(group, conn, pieces, effects);
        }
        self.arrivals.installs.push(Install { group, conn, pieces, is_written: false });
        effects.wake_at(0);
    }

    /// What has come of the partitions counts from now on.
    fn take_partitions(
        &mut self,
        group: GroupId,
        partitions: BTreeMap<PartitionUid, Imported>,
        producers: Vec<(ProducerV1, Vec<ProducerBatchV1>)>,
    ) {
        for (uid, Imported { log_start, lost, batches, .. }) in partitions {
            self.imported(group, uid, |partition| {
                if log_start > partition.next_offset() {
                    partition.restore_trim(log_start);
                } else {
                    partition.trim_to(log_start.min(partition.committed_end()));
                }
            });
            self.trimmed.extend(self.partitions.slot(uid));
            batches.iter().for_each(|batch| self.apply_batch(group, batch, Certainty::Committed));
            self.imported(group, uid, |partition| {
                let log_start = partition.log_start();
                lost.into_iter().filter(|range| range.end > log_start).for_each(|range| partition.mark_lost(range));
            });
        }
        for (stored, batches) in producers {
            let uid = PartitionUid(stored.partition);
            match self.partitions.slot(uid) {
                Some(slot) => self.partitions.learn_producer(slot, &stored, &batches),
                None => self.imported(group, uid, |partition| partition.producers_mut().learn(&stored, &batches)),
            }
        }
    }

    /// Does something with a partition of `group` that is there, or that the metadata will tell of; not with one whose topic was deleted.
    pub(super) fn imported(&mut self, group: GroupId, uid: PartitionUid, what: impl FnOnce(&mut Partition)) {
        if let Some(slot) = self.partitions.slot(uid) {
            return what(self.partitions.get_mut(slot).expect("a uid's slot is filled"));
        }
        if !self.view.has_known(uid) {
            let new = || Partition::new(uid, TopicUid(0), 0, group, TopicRules::default());
            what(self.unclaimed.entry(uid).or_insert_with(new));
        }
    }

    fn refuse_snapshot(&mut self, conn: ConnId, group: GroupId, what: &str, effects: &mut Effects) {
        tracing::warn!(shard = self.id.0, group = group.0, "a snapshot of the group is not taken in: {what}");
        effects.push(Effect::Close { conn, reason: "a snapshot cannot be taken in" });
        self.arrivals.on_closed(conn);
    }

    /// What stands of offsets, members and queues is what came.
    fn take_image(&mut self, group: GroupId, index: LogIndex, notes: Vec<Vec<u8>>) -> Result<(), String> {
        self.forget_state(group, index);
        let block = self.log.last_closed();
        let content = Content::of_payloads(block, notes);
        for payload in &content.payloads {
            self.apply_payload(group, block, payload, Certainty::Committed)?;
        }
        self.note_entry(group, &content)?;
        self.queues.keeping.expire();
        Ok(())
    }

    /// Writes the checkpoint that what was taken in needs, once there is room for one. One turn of background work. It does not wait until the view knows every
    /// partition: of group 0, the view comes from what stands behind the snapshot, and nothing of that is told before the checkpoint is durable.
    pub(super) fn keep_installs(&mut self, effects: &mut Effects) {
        // Numbers of blocks that a power cut takes back are given to others: the checkpoint names none of these.
        let since = |install: &Install| self.applying.since.get(&install.group).map_or(BlockSeq(0), |since| since.block);
        let is_named_durable = |install: &Install| since(install) <= self.log.durable_through();
        let covered = self.log.covered();
        if self.arrivals.is_all_written()
            || !self.arrivals.installs.iter().all(is_named_durable)
            || !self.is_checkpoint_free()
            || !self.is_taken_in_through(covered)
            || !self.is_queue_state_kept(covered, effects)
        {
            return;
        }
        let checkpoint = self.mere_checkpoint(covered);
        let members = self.members_told(&checkpoint);
        if self.log.write_checkpoint(&mut self.slab, effects, checkpoint).is_ok() {
            self.on_checkpoint_begun(members);
            self.arrivals.installs.iter_mut().for_each(|install| install.is_written = true);
        }
    }

    /// A checkpoint is durable that was begun here: what was taken in by then is told.
    pub(super) fn on_installs_written(&mut self, effects: &mut Effects) {
        let (done, left) = std::mem::take(&mut self.arrivals.installs).into_iter().partition(|install| install.is_written);
        self.arrivals.installs = left;
        let done: Vec<Install> = done;
        if !done.is_empty() {
            self.on_checkpoint_covers();
        }
        for Install { group, conn, pieces, .. } in done {
            self.groups.on_installed(group);
            self.tell_installed(group, conn, pieces, effects);
        }
        effects.wake_at(0);
    }

    fn tell_installed(&mut self, group: GroupId, conn: ConnId, pieces: u64, effects: &mut Effects) {
        let Some(arrival) = self.arrivals.list.iter_mut().find(|arrival| arrival.conn == conn) else { return };
        let ack = PieceAck { group: group.0, pieces };
        let number = arrival.numbers.advance();
        effects.send(conn, [], |out| write(out, Kind::PieceAck, number, |out| ack.encode(out)));
    }

    /// Forgets connections of nodes that have nothing to do with this shard any more.
    pub(super) fn keep_snapshots(&mut self, wanted: &BTreeSet<ReplicaId>, effects: &mut Effects) {
        let gone = self.catchups.keep(|replica| wanted.contains(&replica));
        for conn in gone.into_iter().chain(self.arrivals.keep(|replica| wanted.contains(&replica))) {
            effects.push(Effect::Close { conn, reason: "no group is shared with this node any more" });
        }
    }
}

/// Bytes of a producer in front of its batches, and of each of these.
const PRODUCER_BYTES: usize = 18;
const PRODUCER_BATCH_BYTES: usize = 28;

/// What is known of producers, one item each: `partition u64, id u64, epoch u16`, then of each of its last batches `first u64, count u32, base_offset u64,
/// append_time i64`.
pub(super) fn producer_items(producers: &[ProducerV1], batches: &[ProducerBatchV1]) -> Vec<Vec<u8>> {
    let mut rest = batches;
    let mut items = Vec::with_capacity(producers.len());
    for producer in producers {
        let own = rest.split_off(..usize::from(producer.batches)).expect("stored together");
        let mut item = Vec::with_capacity(PRODUCER_BYTES + own.len() * PRODUCER_BATCH_BYTES);
        item.extend_from_slice(&producer.partition.to_le_bytes());
        item.extend_from_slice(&producer.id.to_le_bytes());
        item.extend_from_slice(&producer.epoch.to_le_bytes());
        for batch in own {
            item.extend_from_slice(&batch.first.to_le_bytes());
            item.extend_from_slice(&batch.count.to_le_bytes());
            item.extend_from_slice(&batch.base_offset.to_le_bytes());
            item.extend_from_slice(&batch.append_time.to_le_bytes());
        }
        items.push(item);
    }
    items
}

/// Reads one; `None` for what is none.
fn read_producer(item: &[u8]) -> Option<(ProducerV1, Vec<ProducerBatchV1>)> {
    let (head, rest) = item.split_at_checked(PRODUCER_BYTES)?;
    let number = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let (rows, left) = rest.as_chunks::<PRODUCER_BATCH_BYTES>();
    let batch = |row: &[u8; PRODUCER_BATCH_BYTES]| ProducerBatchV1 {
        first: number(row, 0),
        count: u32::from_le_bytes(row[8..12].try_into().expect("four bytes")),
        base_offset: number(row, 12),
        append_time: number(row, 20) as i64,
    };
    let batches: Vec<_> = rows.iter().map(batch).collect();
    let epoch = u16::from_le_bytes(head[16..18].try_into().expect("two bytes"));
    let producer = ProducerV1 { partition: number(head, 0), id: number(head, 8), epoch, batches: batches.len() as u16 };
    let has_ends = batches.iter().all(|batch| batch.count > 0 && batch.base_offset < 1 << 62 && batch.first < 1 << 62);
    (left.is_empty() && !batches.is_empty() && has_ends && producer.id != 0).then_some((producer, batches))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_is_read_as_it_was_written_and_nothing_else_is() {
        let batch = |base_offset| ProducerBatchV1 { first: 5, count: 6, base_offset, append_time: -7 };
        let producers =
            [ProducerV1 { partition: 1, id: 2, epoch: 3, batches: 2 }, ProducerV1 { partition: 1, id: 4, epoch: 0, batches: 1 }];
        let batches = [batch(10), batch(20), batch(30)];
        let items = producer_items(&producers, &batches);
        assert_eq!(read_producer(&items[0]), Some((producers[0].clone(), batches[..2].to_vec())));
        assert_eq!(read_producer(&items[1]), Some((producers[1].clone(), batches[2..].to_vec())));
        for bytes in 0..items[1].len() {
            assert_eq!(read_producer(&items[1][..bytes]), None, "{bytes} bytes");
        }
    }
}
