//! Snapshots for followers that need what this leader's log has not any more: what is sent to whom, on connections of their own (docs/REPLICATION.md, 3.5).
//!
//! Batches are sent partition by partition, as a fetch would read them; then what is known of producers, and what stands of offsets, members and queues. All of
//! that may tell of later moments than the snapshot covers: to take it in again changes nothing.
//!
//! Invariants: what is sent is committed, or is before the end piece is; one snapshot is under way to a peer, others wait; bytes sent and not taken in stay within
//! the window, and all of them within the rate.
//!
//! Not here: when a follower needs one (the crate says so), how it is taken in (`install.rs`), entries that are in the log (`shipping.rs`).

use super::catchup_line::Line;
use super::outward::Outward;
use super::pipelines::{NotTaken, write};
use super::queue::{PartKey, Told};
use super::shard::Shard;
use super::sorting::allowance_after;
use crate::control::State;
use crate::effects::{Effect, Effects, Now};
use crate::ids::{ConnId, GroupId, LogIndex, PartitionUid, ReplicaId};
use crate::partition::Partition;
use crate::replication::SnapshotNote;
use crate::subscription::queue::SnapshotCursor;
use crate::subscription::{Collected, CollectedPart, Wants, encode_notes};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use tramline_wire::error::ErrorCode;
use tramline_wire::node::{CatchUp, CatchUpReply, Frame, Kind, LostRange, NodeError, PIECE_BATCH_BYTES_MAX, PieceAck, PieceBody};
use tramline_wire::prim::List;

/// Tickets of collections for snapshots have this bit, and not those of queues.
pub(super) const CATCHUP_TICKET: u64 = 1 << 61;
/// What was told is not committed for so long: perhaps it cannot be before the follower has the snapshot.
const UNSETTLED_US: u64 = 3_000_000;
/// Between two reads of what cannot be read now: others are asked for it once a second at most.
const UNREADABLE_US: u64 = 250_000;
/// A snapshot of which nothing is taken in for so long is given up, and begun again.
const STALLED_US: u64 = 30_000_000;

/// All snapshots that this shard sends.
#[derive(Debug, Default)]
pub(super) struct Catchups {
    lines: Vec<Line>,
    next_ticket: u64,
    /// Bytes that may be read now, and when that was counted.
    allowance: i64,
    counted_us: u64,
}

/// One snapshot under way.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) note: SnapshotNote,
    stage: Stage,
    /// Partitions that are still to be sent: from where, and up to where at least.
    partitions: VecDeque<(PartitionUid, u64, u64)>,
    /// Not to be read before; 0 as long as everything could be read.
    read_next_us: u64,
    /// Since when there is nothing else left than what is not committed.
    settles_since_us: Option<u64>,
}

impl Sending {
    fn new(note: SnapshotNote) -> Sending {
        let (stage, partitions) = (Stage::Asked, VecDeque::new());
        Sending { note, stage, partitions, read_next_us: 0, settles_since_us: None }
    }
}

/// What is sent next.
#[derive(Debug)]
enum Stage {
    /// It was asked what it has.
    Asked,
    /// It has answered.
    Told(BTreeMap<PartitionUid, u64>),
    /// A partition begins.
    Partition,
    /// Its batches are to be read.
    Read,
    /// They are being read.
    Reading(u64),
    Producers,
    Offsets,
    Members,
    Queues(Option<PartKey>, SnapshotCursor),
    /// Of group 0: the state, and how much of it is sent.
    Metadata(Vec<u8>, usize),
    /// All notes made up to the first number are written, and then everything up to this entry committed.
    Settling(u64, Option<LogIndex>),
    /// The end was sent.
    Ended,
}

/// Whether there is more to do at once.
#[derive(PartialEq, Eq)]
enum Going {
    On,
    Waits,
    /// This snapshot has ended badly.
    Over(&'static str),
}

impl Catchups {
    /// A follower needs a snapshot. One that is under way, or waits, is not begun twice.
    pub(super) fn want(&mut self, to: ReplicaId, note: SnapshotNote) {
        let at = self.lines.iter().position(|line| line.outward.to == to).unwrap_or_else(|| {
            self.lines.push(Line::new(to));
            self.lines.len() - 1
        });
        let line = &mut self.lines[at];
        let is_same = |other: &SnapshotNote| (other.group, other.term) == (note.group, note.term);
        if line.sending.as_ref().is_some_and(|sending| is_same(&sending.note)) || line.queue.iter().any(is_same) {
            return;
        }
        line.queue.push_back(note);
    }

    /// The connections that there are.
    pub(super) fn conns(&self) -> impl Iterator<Item = ConnId> {
        self.lines.iter().filter_map(Line::conn)
    }

    /// Forgets lines to whom `is_kept` does not say; answers their connections.
    pub(super) fn keep(&mut self, is_kept: impl Fn(ReplicaId) -> bool) -> Vec<ConnId> {
        let gone = self.lines.extract_if(.., |line| !is_kept(line.outward.to));
        gone.filter_map(|line| line.conn()).collect()
    }

    pub(super) fn outwards(&mut self) -> impl Iterator<Item = &mut Outward> {
        self.lines.iter_mut().map(|line| &mut line.outward)
    }

    /// Which line has this connection.
    pub(super) fn line_of(&self, conn: ConnId) -> Option<usize> {
        self.lines.iter().position(|line| line.conn() == Some(conn))
    }

    /// The next collection's ticket.
    fn next_ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket | CATCHUP_TICKET
    }

    fn allow(&mut self, now_us: u64, rate: u64) {
        let passed_us = now_us - std::mem::replace(&mut self.counted_us, now_us);
        self.allowance = allowance_after(self.allowance, rate, passed_us);
    }
}

impl Shard {
    /// A connection has ended; answers whether it was one for snapshots.
    pub(super) fn on_catchup_closed(&mut self, now: Now, conn: ConnId) -> bool {
        let Some(at) = self.catchups.line_of(conn) else { return false };
        self.give_up_snapshot(now, at, "its connection has ended");
        true
    }

    /// What comes back on the connection of line `at`.
    pub(super) fn take_catchup_answer(&mut self, now: Now, at: usize, frame: &Frame<'_>, effects: &mut Effects) -> Result<(), NotTaken> {
        effects.wake_at(0);
        let line = &mut self.catchups.lines[at];
        if line.outward.take_greeting(now.mono_us, frame)? {
            return Ok(());
        }
        match frame.kind {
            Kind::CatchUpReply => {
                let reply = CatchUpReply::decode(frame.meta).map_err(NodeError::from)?;
                let is_asked = line.sending.as_ref().is_some_and(|s| s.note.group.0 == reply.group && matches!(s.stage, Stage::Asked));
                if !is_asked {
                    return Err(NotTaken::Wrong(format!("group {}: nobody asked what it has", reply.group)));
                }
                let have = reply.have.iter().map(|have| (PartitionUid(have.uid), have.next_offset)).collect();
                line.sending.as_mut().expect("just seen").stage = Stage::Told(have);
            }
            Kind::PieceAck => {
                let ack = PieceAck::decode(frame.meta).map_err(NodeError::from)?;
                if line.sending.as_ref().is_none_or(|sending| sending.note.group.0 != ack.group) || !line.on_ack(ack.pieces) {
                    return Err(NotTaken::Wrong(format!("group {}: {} pieces are acknowledged and were not sent", ack.group, ack.pieces)));
                }
                if matches!(line.sending.as_ref().map(|s| &s.stage), Some(Stage::Ended)) && line.is_all_acked() {
                    self.end_snapshot(at);
                }
            }
            kind => return Err(NotTaken::Wrong(format!("{kind} does not belong on this connection"))),
        }
        Ok(())
    }

    /// What has to be sent of a group, now that it is known what its follower has.
    fn begin_sending(&mut self, at: usize, have: &BTreeMap<PartitionUid, u64>) {
        let sending = self.catchups.lines[at].sending.as_mut().expect("looked at by the caller");
        let group = sending.note.group;
        if group == GroupId(0) {
            let state = self.seat.as_ref().map(|seat| State::snapshot(&seat.state)).unwrap_or_default();
            return sending.stage = Stage::Metadata(state, 0);
        }
        let of_group = self.partitions.iter().map(|(_, partition)| partition).filter(|partition| partition.group == group);
        let place = |partition: &Partition| {
            let from = have.get(&partition.uid).copied().unwrap_or(0).max(partition.log_start());
            (partition.uid, from, partition.committed_end())
        };
        sending.partitions = of_group.map(place).collect();
        sending.partitions.make_contiguous().sort_unstable();
        sending.stage = Stage::Partition;
    }

    /// It is taken in, durably.
    fn end_snapshot(&mut self, at: usize) {
        let line = &mut self.catchups.lines[at];
        let (to, sending) = (line.outward.to, line.sending.take().expect("it has ended"));
        let (group, bytes) = (sending.note.group, line.sent_bytes());
        tracing::info!(shard = self.id.0, group = group.0, node = to.node().0, bytes, "a snapshot of the group is taken in");
        self.metrics.counters.snapshots_sent += 1;
        self.report_snapshot(group, to, false);
    }

    /// It is begun again when the crate asks for it, with the next beat.
    fn give_up_snapshot(&mut self, now: Now, at: usize, why: &str) {
        let line = &mut self.catchups.lines[at];
        line.outward.drop_link(now.mono_us);
        let to = line.outward.to;
        if let Some(sending) = line.sending.take() {
            let group = sending.note.group;
            if let Stage::Reading(ticket) = sending.stage {
                self.sessions.drop_collections(|of| of == ticket);
            }
            tracing::info!(shard = self.id.0, group = group.0, node = to.node().0, "a snapshot of the group is given up: {why}");
            self.report_snapshot(group, to, true);
        }
    }

    fn report_snapshot(&mut self, group: GroupId, to: ReplicaId, has_failed: bool) {
        if let Err(error) = self.groups.on_snapshot_sent(group, to, has_failed) {
            tracing::debug!(shard = self.id.0, "{error}");
        }
    }

    /// Goes on with every snapshot. Once at the end of each turn.
    pub(super) fn send_snapshots(&mut self, now: Now, effects: &mut Effects) {
        if self.catchups.lines.is_empty() || self.failure().is_some() {
            return;
        }
        self.catchups.allow(now.mono_us, self.settings.catchup_bytes_per_second);
        for at in 0..self.catchups.lines.len() {
            self.care_for_line(now, at, effects);
            loop {
                match self.send_next(now, at, effects) {
                    Going::On => {}
                    Going::Waits => break,
                    Going::Over(why) => {
                        if let Some(conn) = self.catchups.lines[at].conn() {
                            effects.push(Effect::Close { conn, reason: why });
                        }
                        self.give_up_snapshot(now, at, why);
                        break;
                    }
                }
            }
        }
        self.catchups.lines.retain(|line| !line.is_idle());
    }

    fn care_for_line(&mut self, now: Now, at: usize, effects: &mut Effects) {
        let line = &mut self.catchups.lines[at];
        // Of terms that are over.
        let groups = &self.groups;
        line.queue.retain(|note| groups.led_in(note.group) == Some(note.term));
        if line.sending.is_some() || !line.queue.is_empty() {
            line.outward.reach(now, &mut self.pipelines, effects);
        } else if let Some(conn) = line.conn() {
            line.outward.drop_link(now.mono_us);
            effects.push(Effect::Close { conn, reason: "no snapshot is wanted any more" });
        }
    }

    fn send_next(&mut self, now: Now, at: usize, effects: &mut Effects) -> Going {
        let line = &mut self.catchups.lines[at];
        if !line.outward.is_live() {
            return Going::Waits;
        }
        if line.sending.is_none() {
            // The metadata first: what is told of others is taken in by who knows their names.
            let at_first = line.queue.iter().position(|note| note.group == GroupId(0)).or((self.view.epoch > 0).then_some(0));
            let Some(note) = at_first.and_then(|first| line.queue.remove(first)) else { return Going::Waits };
            self.ask_what_it_has(now, at, note, effects);
            return Going::On;
        }
        let line = &self.catchups.lines[at];
        let sending = line.sending.as_ref().expect("just seen");
        let group = sending.note.group;
        if self.groups.led_in(group) != Some(sending.note.term) {
            return Going::Over("the group has another leader");
        }
        if now.mono_us > line.outward.heard_us + STALLED_US {
            return Going::Over("nothing of it is taken in");
        }
        effects.wake_at(line.outward.heard_us + STALLED_US + 1);
        let waits = match sending.stage {
            Stage::Asked | Stage::Reading(_) | Stage::Ended => true,
            Stage::Told(_) => !self.is_told_of_all(group, sending.note.at.index),
            _ => !line.has_window(),
        };
        if waits {
            return Going::Waits;
        }
        if matches!(sending.stage, Stage::Read) && now.mono_us < sending.read_next_us {
            effects.wake_at(sending.read_next_us);
            return Going::Waits;
        }
        let heard_us = line.outward.heard_us;
        let sending = self.catchups.lines[at].sending.as_mut().expect("just seen");
        let settles = matches!(sending.stage, Stage::Members | Stage::Settling(..));
        // What came before may have taken longer than that without a word of the follower.
        if settles && now.mono_us > heard_us.max(*sending.settles_since_us.get_or_insert(now.mono_us)) + UNSETTLED_US {
            // Who does not serve the group tells what is committed, and does not serve it before more is.
            self.groups.step_down(group);
            return Going::Over("what it tells is not committed, as long as nobody else has the log");
        }
        if self.catchups.allowance < 0 {
            effects.wake_at(now.mono_us + 1_000);
            return Going::Waits;
        }
        self.send_stage(at, effects)
    }

    /// Whether this leader can tell of everything up to `index`: it knows by their names what its start has found, and of queues and members it has taken in as
    /// much. (It need not serve them: perhaps it cannot as long as nobody else has the log.)
    fn is_told_of_all(&self, group: GroupId, index: LogIndex) -> bool {
        self.unclaimed.values().all(|partition| partition.group != group)
            && self.members.are_known(&self.view)
            && self.applying.rebuild.has_noted(group, index)
    }

    fn ask_what_it_has(&mut self, now: Now, at: usize, note: SnapshotNote, effects: &mut Effects) {
        let raw = |ids: &[ReplicaId]| -> Vec<u64> { ids.iter().map(|id| id.0).collect() };
        let (voters, learners) = (raw(&note.members.voters), raw(&note.members.learners));
        let ask = CatchUp {
            group: note.group.0,
            index: note.at.index.0,
            term: note.at.term.0,
            conf_index: note.members.index.0,
            voters: List::of(&voters),
            learners: List::of(&learners),
            view_epoch: self.view.epoch,
        };
        let line = &mut self.catchups.lines[at];
        let (conn, number) = line.outward.conn_and_number();
        effects.send(conn, [], |out| write(out, Kind::CatchUp, number, |out| ask.encode(out)));
        tracing::info!(
            shard = self.id.0,
            group = note.group.0,
            node = line.outward.to.node().0,
            index = note.at.index.0,
            "a snapshot of the group begins"
        );
        line.begin(now.mono_us, Sending::new(note));
    }

    fn send_stage(&mut self, at: usize, effects: &mut Effects) -> Going {
        let Catchups { lines, allowance, .. } = &mut self.catchups;
        let line = &mut lines[at];
        let sending = line.sending.as_mut().expect("looked at by the caller");
        let group = sending.note.group;
        match &mut sending.stage {
            Stage::Told(have) => {
                let have = std::mem::take(have);
                self.begin_sending(at, &have);
            }
            Stage::Partition => {
                let Some((uid, ..)) = sending.partitions.front().copied() else {
                    sending.stage = Stage::Producers;
                    return Going::On;
                };
                sending.stage = Stage::Read;
                let Some(partition) = self.partitions.slot(uid).and_then(|slot| self.partitions.get(slot)) else { return Going::On };
                let lost: Vec<_> = partition.lost().iter().map(|range| LostRange { first: range.start, end: range.end }).collect();
                let body = PieceBody::Partition {
                    topic: partition.topic.0,
                    log_start: partition.log_start(),
                    next_offset: partition.committed_end(),
                    newest_us: partition.index.newest_us(),
                    lost: List::of(&lost),
                };
                line.send_piece(group, uid, body, effects);
            }
            Stage::Read => {
                let (uid, from, until) = *sending.partitions.front().expect("it began");
                let slot = self.partitions.slot(uid).filter(|_| from < until);
                let Some(slot) = slot else {
                    sending.partitions.pop_front();
                    sending.stage = Stage::Partition;
                    return Going::On;
                };
                let ticket = self.catchups.next_ticket();
                self.sessions.collect(ticket, PIECE_BATCH_BYTES_MAX as usize, vec![(slot, uid, Wants::From(from))]);
                self.catchups.lines[at].sending.as_mut().expect("seen above").stage = Stage::Reading(ticket);
                self.urgent = true;
                return Going::Waits;
            }
            Stage::Producers => {
                let (mut producers, mut batches) = (Vec::new(), Vec::new());
                for (_, partition) in self.partitions.iter().filter(|(_, partition)| partition.group == group) {
                    let (mut left, told) = (usize::MAX, (&mut producers, &mut batches));
                    partition.producers().store(partition.uid, partition.committed_end(), None, &mut left, told);
                }
                sending.stage = Stage::Offsets;
                let items = super::install::producer_items(&producers, &batches);
                *allowance -= line.send_items(group, &items, |crc| PieceBody::Producers { crc }, effects) as i64;
            }
            Stage::Offsets => {
                let is_ours = |uid: &PartitionUid| {
                    self.partitions.slot(*uid).and_then(|slot| self.partitions.get(slot)).is_some_and(|partition| partition.group == group)
                };
                let notes = self.offsets.table.iter().filter(|(uid, _)| is_ours(uid));
                let notes: Vec<_> = notes.filter_map(|(uid, progress)| progress.note(uid)).collect();
                let items: Vec<_> = encode_notes(&notes).into_iter().map(|(payload, _)| payload).collect();
                sending.stage = Stage::Members;
                *allowance -= line.send_items(group, &items, |crc| PieceBody::Notes { crc }, effects) as i64;
            }
            Stage::Members => {
                // As they are: all of that has to be committed.
                if !self.members.are_committed(&self.acks) {
                    return Going::Waits;
                }
                let items = self.members.snapshot_of(group, &self.view);
                sending.stage = Stage::Queues(None, SnapshotCursor::default());
                *allowance -= line.send_items(group, &items, |crc| PieceBody::Notes { crc }, effects) as i64;
            }
            Stage::Queues(part, cursor) => {
                let mut items = Vec::new();
                let partitions = &self.partitions;
                let is_ours =
                    |uid| partitions.slot(uid).and_then(|slot| partitions.get(slot)).is_some_and(|partition| partition.group == group);
                match self.queues.tell_next(is_ours, *part, cursor, &self.partitions, |payload| items.push(payload)) {
                    Told::Nothing => sending.stage = Stage::Settling(self.queues.notes_made(), None),
                    Told::Whole(key) => sending.stage = Stage::Queues(Some(key), SnapshotCursor::default()),
                    Told::Piece => {}
                }
                *allowance -= line.send_items(group, &items, |crc| PieceBody::Notes { crc }, effects) as i64;
            }
            Stage::Metadata(state, sent) => {
                let end = state.len().min(*sent + PIECE_BATCH_BYTES_MAX as usize);
                let part = state[*sent..end].to_vec();
                let is_last = end == state.len();
                *sent = end;
                if is_last {
                    sending.stage = Stage::Settling(0, None);
                }
                *allowance -= part.len() as i64;
                line.send_payload(group, &part, |crc| PieceBody::Metadata { crc }, effects);
            }
            Stage::Settling(notes, index) => {
                if !self.queues.has_written(*notes) {
                    return Going::Waits;
                }
                // Who does not serve them has told what is committed.
                let is_served = self.applying.rebuild.serves(group);
                let told = if is_served { self.groups.last_of(group).index } else { self.groups.committed_of(group) };
                let index = *index.get_or_insert(told);
                if self.groups.committed_of(group) < index {
                    return Going::Waits;
                }
                sending.stage = Stage::Ended;
                line.send_end(group, effects);
            }
            Stage::Asked | Stage::Reading(_) | Stage::Ended => unreachable!("waited for by the caller"),
        }
        Going::On
    }

    /// The first offset for which a snapshot has to wait, in what was read for it: damage that others may make good, or have what it took.
    fn snapshot_goes_to(&self, now: Now, line: &Line, found: &CollectedPart) -> u64 {
        let sending = line.sending.as_ref().expect("its batches were read");
        let (uid, ..) = sending.partitions.front().expect("its batches were read");
        let waits = |(range, code): &&(Range<u64>, ErrorCode)| match code {
            ErrorCode::NotReady => true,
            ErrorCode::Damaged => !self.may_leave_out(now, sending.note.group, *uid, range, line.outward.to),
            _ => false,
        };
        found.missing.iter().filter(waits).map(|(range, _)| range.start).min().unwrap_or(u64::MAX)
    }

    /// Batches that a snapshot needs have been read.
    pub(super) fn on_collected_for_snapshot(&mut self, now: Now, collected: &Collected, effects: &mut Effects) {
        let is_for =
            |line: &Line| matches!(line.sending.as_ref().map(|s| &s.stage), Some(Stage::Reading(ticket)) if *ticket == collected.ticket);
        let Some(at) = self.catchups.lines.iter().position(is_for) else { return };
        let found = &collected.parts[0];
        let end = self.snapshot_goes_to(now, &self.catchups.lines[at], found);
        let sending = self.catchups.lines[at].sending.as_mut().expect("just seen");
        let group = sending.note.group;
        let (uid, from, _) = sending.partitions.front_mut().expect("its batches were read");
        let uid = *uid;
        let committed_end = self.partitions.slot(uid).and_then(|slot| self.partitions.get(slot)).map_or(0, Partition::committed_end);
        let batches: Vec<_> = found.batches.iter().take_while(|batch| batch.end_offset <= committed_end.min(end)).collect();
        let before = *from;
        *from = batches.last().map_or(*from, |batch| batch.end_offset).max(*from);
        for (range, code) in found.missing.iter().filter(|(range, _)| range.start < end) {
            match code {
                ErrorCode::TopicDeleted => *from = u64::MAX,
                // What retention took, or what nobody has any more: the follower has a hole there, as this replica has.
                _ if range.end != u64::MAX => *from = range.end.max(*from),
                _ => {}
            }
        }
        // Whatever cannot be read at all ends with the snapshot's time.
        sending.stage = Stage::Read;
        if *from == before && std::mem::replace(&mut sending.read_next_us, now.mono_us + UNREADABLE_US) == 0 {
            tracing::warn!(
                shard = self.id.0,
                group = group.0,
                partition = uid.0,
                from = before,
                "what a snapshot needs cannot be read now: it waits"
            );
        }
        let bytes: u64 = batches.iter().map(|batch| batch.bytes.len() as u64).sum();
        self.catchups.allowance -= bytes as i64;
        if bytes > 0 {
            let parts: Vec<_> = batches.into_iter().map(|batch| batch.bytes.clone()).collect();
            self.catchups.lines[at].send_batches(group, uid, parts, effects);
        }
        effects.wake_at(0);
    }
}
