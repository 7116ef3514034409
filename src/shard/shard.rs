//! The shard: its parts, and where each event goes.
//!
//! Not here: what the events do (the files beside this one, by subject).

use super::acks::Acks;
use super::admin::ControlSeat;
use super::applying::Applying;
use super::calling::Calling;
use super::catchup::Catchups;
use super::conns::{Conns, ForwardBudget, Overdue};
use super::expiry::{EXPIRY, Expiry};
use super::gathers::Gathers;
use super::group_deletion::Deletions;
use super::group_expiry::GroupExpiry;
use super::groups::MemberCare;
use super::install::Arrivals;
use super::leaders::Leaders;
use super::listing::Listing;
use super::mesh::Message;
use super::offsets::OffsetCare;
use super::pipelines::Pipelines;
use super::produce::Progress;
use super::producers::ProducerCare;
use super::queue::QueueCare;
use super::rebuild::REBUILDER;
use super::repair::Repairs;
use super::repair_answers::RepairAnswers;
use super::retention::Retention;
use super::scrubbing::{SCRUBBER, Scrubbing};
use super::sealing::Sealing;
use super::shipping::PEERS;
use super::sorting::{SORTER, Sorting};
use super::start::append_owed;
use super::suspects::Suspects;
use super::throttle::{Scarce, Throttle};
use super::trims::Trims;
use super::uncommitted::Uncommitted;
use crate::api::{ApiError, NodeInfo};
use crate::bytes::{Slab, Warmer};
use crate::config::Settings;
use crate::control::View;
use crate::effects::{Caller, Effect, Effects, Event, Now, Outcome, Token};
use crate::ids::{BlockSeq, ConnId, GroupId, IdHasher, IdMap, LogIndex, NodeId, PartitionUid, ShardId, Term};
use crate::log::{Log, LogNews};
use crate::metrics::ShardMetrics;
use crate::partition::{Partition, Partitions, Slot};
use crate::replication::{Commit, Groups};
use crate::subscription::Sessions;
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use tramline_wire::error::ErrorCode;
use tramline_wire::kind::Kind;

/// How long a block that nobody waits for stays open, in microseconds.
const LAZY_US: u64 = 1000;

/// Whether an event was taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a blocked frame has to be kept"]
pub enum Taken {
    /// Yes.
    Yes,
    /// No room for it now: keep the frame and try again after `Effect::Unblock`.
    Blocked,
}

/// Where the shard is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Groups not caught up, or no view yet.
    Starting,
    Serving,
    /// No new work; what was taken in becomes durable.
    Stopping,
    /// The log has failed; reads go on.
    Failed(String),
}

/// One core's share of a node.
pub struct Shard {
    pub(super) id: ShardId,
    pub(super) node: NodeId,
    pub(super) settings: Arc<Settings>,
    pub(super) info: Arc<NodeInfo>,
    pub(super) phase: Phase,
    pub(super) slab: Slab,
    pub(super) log: Log,
    pub(super) groups: Groups,
    /// By number.
    pub(super) group_ids: Vec<GroupId>,
    /// Replicas that the metadata put here, and that found no room yet.
    pub(super) replicas_owed: bool,
    /// The cluster began with this node.
    pub(super) is_founder: bool,
    pub(super) leaders: Leaders,
    pub(super) pipelines: Pipelines,
    pub(super) applying: Applying,
    pub(super) catchups: Catchups,
    pub(super) arrivals: Arrivals,
    pub(super) calling: Calling,
    pub(super) suspects: Suspects,
    pub(super) repairs: Repairs,
    pub(super) repair_answers: RepairAnswers,
    pub(super) partitions: Partitions,
    /// Partitions found at the start whose topic is not known yet (no view has come).
    pub(super) unclaimed: IdMap<PartitionUid, Partition>,
    pub(super) view: Arc<View>,
    /// Shard 0 has the metadata.
    pub(super) seat: Option<ControlSeat>,
    pub(super) gathers: Gathers,
    pub(super) deletions: Deletions,
    pub(super) conns: Conns,
    pub(super) forwards: ForwardBudget,
    pub(super) acks: Acks,
    pub(super) trims: Trims,
    pub(super) offsets: OffsetCare,
    pub(super) members: MemberCare,
    pub(super) group_expiry: GroupExpiry,
    pub(super) queues: QueueCare,
    pub(super) sessions: Sessions,
    pub(super) metrics: ShardMetrics,
    /// Something was refused for lack of room: tell the edge when there is some.
    pub(super) blocked: bool,
    /// Forwarded requests that found no room, in order of arrival.
    pub(super) deferred: std::collections::VecDeque<(ShardId, Box<super::mesh::Forwarded>)>,
    /// Partitions with new records of topics that show them at once, to be woken when the block closes.
    pub(super) visible_at_close: Vec<Slot>,
    /// Produce frames of which a part is appended and the rest waits for room.
    pub(super) half_taken: HashMap<(ConnId, Option<ShardId>), Progress, BuildHasherDefault<IdHasher>>,
    pub(super) spare_progress: Progress,
    pub(super) listing: Listing,
    pub(super) sealing: Option<Sealing>,
    pub(super) retention: Retention,
    pub(super) expiry: Expiry,
    pub(super) sorting: Sorting,
    pub(super) scrubbing: Scrubbing,
    pub(super) producer_care: ProducerCare,
    pub(super) throttle: Throttle,
    pub(super) uncommitted: Uncommitted,
    /// Somebody waits for what is in the open block.
    pub(super) urgent: bool,
    /// When the open block is closed although nobody waits for it.
    lazy_until_us: u64,
    news: Vec<LogNews>,
    commits: Vec<Commit>,
    /// Partitions whose trims have just become durable.
    pub(super) trimmed: Vec<Slot>,
    positions: Vec<(Term, LogIndex)>,
}

/// Everything `Shard::assemble` needs; made by `start.rs`.
pub(super) struct Parts {
    pub(super) id: ShardId,
    pub(super) node: NodeId,
    pub(super) settings: Arc<Settings>,
    pub(super) info: Arc<NodeInfo>,
    pub(super) slab: Slab,
    pub(super) log: Log,
    pub(super) groups: Groups,
    pub(super) group_ids: Vec<GroupId>,
    pub(super) pipelines: Pipelines,
    pub(super) is_founder: bool,
    pub(super) applying: Applying,
    pub(super) suspects: Suspects,
    pub(super) unclaimed: IdMap<PartitionUid, Partition>,
    pub(super) seat: Option<ControlSeat>,
    pub(super) offsets: OffsetCare,
    pub(super) members: MemberCare,
    pub(super) queues: QueueCare,
}

impl Shard {
    pub(super) fn assemble(parts: Parts) -> Shard {
        let Parts {
            id,
            node,
            settings,
            info,
            slab,
            log,
            groups,
            group_ids,
            pipelines,
            is_founder,
            applying,
            suspects,
            unclaimed,
            seat,
            offsets,
            members,
            queues,
        } = parts;
        Shard {
            forwards: ForwardBudget::new(settings.shards),
            acks: Acks::new(group_ids.iter().copied()),
            trims: Trims::default(),
            offsets,
            members,
            group_expiry: GroupExpiry::default(),
            queues,
            id,
            node,
            settings,
            info,
            phase: Phase::Starting,
            slab,
            log,
            groups,
            group_ids,
            replicas_owed: false,
            is_founder,
            leaders: Leaders::new(node),
            pipelines,
            applying,
            catchups: Catchups::default(),
            arrivals: Arrivals::default(),
            calling: Calling::default(),
            suspects,
            repairs: Repairs::default(),
            repair_answers: RepairAnswers::default(),
            partitions: Partitions::default(),
            unclaimed,
            view: Arc::new(View::default()),
            seat,
            gathers: Gathers::default(),
            deletions: Deletions::default(),
            conns: Conns::default(),
            sessions: Sessions::default(),
            metrics: ShardMetrics::new(),
            blocked: false,
            deferred: std::collections::VecDeque::new(),
            visible_at_close: Vec::new(),
            half_taken: HashMap::default(),
            spare_progress: Progress::default(),
            listing: Listing::default(),
            sealing: None,
            retention: Retention::default(),
            expiry: Expiry::default(),
            sorting: Sorting::default(),
            scrubbing: Scrubbing::default(),
            producer_care: ProducerCare::default(),
            throttle: Throttle::default(),
            uncommitted: Uncommitted::default(),
            urgent: true,
            lazy_until_us: u64::MAX,
            news: Vec::new(),
            commits: Vec::new(),
            trimmed: Vec::new(),
            positions: Vec::new(),
        }
    }

    /// Takes in one event; what is to be done for it is in `effects`.
    pub fn step(&mut self, now: Now, event: Event<'_>, effects: &mut Effects) -> Taken {
        let first_effect = effects.list.len();
        self.groups.on_time(now.mono_us);
        self.sessions.on_time(now.mono_us);
        let taken = self.dispatch(now, event, effects);
        self.note_queued(now, effects, first_effect);
        self.note_answered(now, effects);
        taken
    }

    fn dispatch(&mut self, now: Now, event: Event<'_>, effects: &mut Effects) -> Taken {
        match event {
            Event::Opened { conn } => {
                self.metrics.counters.connections_opened += 1;
                self.conns.open(now, conn);
                if self.conns.len() > self.settings.connections_max {
                    self.refuse_connection(now, conn, effects);
                }
                effects.wake_at(self.conns.next_sweep_us().max(now.mono_us));
            }
            Event::Partial { conn } => self.conns.on_partial(now, conn),
            Event::Paused { conn } => self.conns.on_paused(conn),
            Event::Frame { conn, frame } => return self.on_frame(now, conn, frame, effects),
            Event::Sent { conn, queued_bytes } => {
                self.conns.on_sent(now, conn, queued_bytes);
                self.sessions.on_sent(conn, queued_bytes);
                self.unblock(effects);
            }
            Event::Closed { conn } => {
                if !self.on_node_closed(now, conn) {
                    self.on_closed(conn, effects);
                }
            }
            Event::NodeOpened { conn } => self.on_node_opened(conn, effects),
            Event::NodeFrame { conn, frame } => {
                let taken = self.on_node_frame(now, conn, frame, effects);
                self.on_leaderships(now, effects);
                return taken;
            }
            Event::Dialed { dial, conn } => self.on_dialed(now, dial, conn, effects),
            Event::DialFailed { dial, errno: _ } => self.on_dial_failed(now, dial),
            Event::Done { token, outcome } => self.on_done(now, token, outcome, effects),
            Event::Mesh { from, message } => self.on_mesh(now, from, message, effects),
            Event::Deadline => self.on_deadline(now, effects),
            Event::Turn { bytes, us: _ } => self.on_turn(now, bytes, effects),
            Event::EndOfTurn => self.end_of_turn(now, effects),
        }
        Taken::Yes
    }

    /// What this step sends stands in the connections' queues from now on.
    fn note_queued(&mut self, now: Now, effects: &Effects, first_effect: usize) {
        for effect in &effects.list[first_effect..] {
            // Those of other nodes are counted where they are carried.
            if let Effect::Send { conn, head, parts } = effect
                && self.conns.is_open(*conn)
            {
                let parts = &effects.parts[parts.start as usize..parts.end as usize];
                let bytes = head.len() + parts.iter().map(crate::bytes::Bytes::len).sum::<usize>();
                self.metrics.counters.frames_out += 1;
                self.metrics.counters.network_bytes_out += bytes as u64;
                self.conns.on_queued(now, *conn, bytes);
            }
        }
    }

    /// Whether requests are served.
    pub fn is_serving(&self) -> bool {
        self.phase == Phase::Serving
    }

    /// Why the shard has failed, if it has.
    pub fn failure(&self) -> Option<&str> {
        match &self.phase {
            Phase::Failed(reason) => Some(reason),
            _ => None,
        }
    }

    /// Whether an orderly stop is through: everything taken in is durable and answered.
    pub fn has_stopped(&self) -> bool {
        match &self.phase {
            Phase::Stopping => self.stop_waits_for().next().is_none(),
            Phase::Failed(_) => true,
            _ => false,
        }
    }

    /// What an orderly stop waits for, in words.
    pub(super) fn stop_waits_for(&self) -> impl Iterator<Item = &'static str> {
        let parts = [
            ("leaderships", self.has_given_all_away()),
            ("halves of requests", self.half_taken.is_empty()),
            ("acknowledgements", self.acks.are_answered()),
            ("members", self.members.is_quiet()),
            ("queues", self.queues.is_quiet()),
            ("a segment that is sealed", self.sealing.is_none()),
            ("a checkpoint", !self.owes_checkpoint()),
            ("the log", self.log.is_quiet()),
        ];
        parts.into_iter().filter(|(_, is_done)| !is_done).map(|(what, _)| what)
    }

    /// What the shard has counted, for the edge to add to.
    pub fn metrics_mut(&mut self) -> &mut ShardMetrics {
        &mut self.metrics
    }

    /// What brings this shard's memory in ahead of its use.
    pub fn warmer(&self) -> Warmer {
        self.slab.warmer()
    }

    /// Memory of reads behind the tail, in bytes.
    pub fn cold_bytes(&self) -> u64 {
        self.sessions.cold_bytes()
    }

    /// One connection too many: it is told so, in answer to the hello that it is about to send.
    fn refuse_connection(&mut self, now: Now, conn: ConnId, effects: &mut Effects) {
        self.metrics.counters.connections_refused_limit += 1;
        let caller = Caller { conn, via: None, kind: Kind::Hello.as_u8(), version: 1, correlation: 0, received_us: now.mono_us };
        let max = self.settings.connections_max;
        let message =
            format!("the shard has {max} connections, which is its limit (connections.max): close some, or use another shard's port");
        self.refuse(&caller, &ApiError::new(ErrorCode::LimitExceeded, message), effects);
        effects.push(Effect::Close { conn, reason: "too many connections" });
    }

    fn on_closed(&mut self, conn: ConnId, effects: &mut Effects) {
        let Some(state) = self.conns.close(conn) else { return };
        self.half_taken.remove(&(conn, None));
        self.sessions.close_conn(conn, None);
        self.close_receivers(conn, None);
        if state.forwarded {
            for shard in (0..self.settings.shards).map(ShardId).filter(|s| *s != self.id) {
                effects.push(Effect::Mesh { to: shard, message: Message::ConnClosed { conn } });
            }
        }
    }

    fn on_done(&mut self, now: Now, token: Token, outcome: Outcome, effects: &mut Effects) {
        let mut news = std::mem::take(&mut self.news);
        self.log.on_done(now, &mut self.slab, token, outcome, effects, &mut news);
        self.on_news(now, &mut news, effects);
        self.news = news;
        self.unblock(effects);
        self.answer_deferred(now, effects);
    }

    fn on_turn(&mut self, now: Now, bytes: u64, effects: &mut Effects) {
        let mut news = std::mem::take(&mut self.news);
        self.log.on_turn(now, bytes, &mut self.slab, effects, &mut news);
        self.on_news(now, &mut news, effects);
        self.news = news;
        self.background(now, effects);
    }

    fn on_news(&mut self, now: Now, news: &mut Vec<LogNews>, effects: &mut Effects) {
        for item in news.drain(..) {
            match item {
                LogNews::Written { took_us } => self.metrics.record_log_write(took_us * 1000),
                LogNews::Durable(block) => self.on_block_durable(now, block, effects),
                LogNews::ReadDone { ticket, owner: SORTER, bytes, .. } => self.on_sorter_read(ticket, bytes),
                LogNews::ReadDone { ticket, owner: SCRUBBER, bytes, .. } => self.on_scrubber_read(ticket, bytes),
                LogNews::ReadDone { ticket, owner: owner @ (PEERS | REBUILDER), bytes, .. } => {
                    self.on_block_read(owner, ticket, bytes, effects)
                }
                LogNews::ReadDone { ticket, owner: EXPIRY, bytes, .. } => self.on_expiry_read(now, ticket, bytes),
                LogNews::ReadDone { ticket, owner, bytes, .. } => self.sessions.on_read(owner, ticket, bytes),
                LogNews::Sealed(segment) => self.on_sealed(now, segment),
                LogNews::Sorted { segment, entries } => self.on_sorted(segment, &entries),
                LogNews::CheckpointWritten => {
                    self.on_installs_written(effects);
                    self.on_runs_written();
                }
                LogNews::StateWritten => self.queues.keeping.on_written(),
                LogNews::SealReady(_) => {}
                LogNews::SegmentFreed(segment) => {
                    self.throttle.give_back(Scarce::Disk, self.log.segment_bytes());
                    tracing::debug!(shard = self.id.0, segment = segment.0, "segment freed");
                }
                LogNews::Failed(reason) => self.fail(&reason, effects),
            }
        }
    }

    /// All blocks up to `block` are durable: what is committed by it holds, and who waited for it is answered.
    fn on_block_durable(&mut self, now: Now, block: BlockSeq, effects: &mut Effects) {
        let mut commits = std::mem::take(&mut self.commits);
        let closed = self.log.last_closed();
        self.groups.on_durable(block, closed, &mut commits);
        self.on_leaderships(now, effects);
        self.on_commits(now, &commits, effects);
        commits.clear();
        self.commits = commits;
    }

    /// What is committed holds, and who waited for it is answered.
    fn on_commits(&mut self, now: Now, commits: &[Commit], effects: &mut Effects) {
        commits.iter().for_each(|commit| self.on_group_committed(now, commit, effects));
        self.note_room(now);
        self.answer_producers(effects);
        self.on_trimmed(now);
        self.trims.release(&self.acks, &self.partitions, effects);
        self.offsets.release(&self.acks, &self.view, effects);
        self.members.release(&self.acks, effects);
        self.release_queues(now, effects);
        self.maybe_serve(effects);
    }

    /// What other nodes have brought in this turn, and what they are to be told.
    fn talk(&mut self, now: Now, effects: &mut Effects) {
        if self.pipelines.is_alone() {
            return;
        }
        let mut commits = std::mem::take(&mut self.commits);
        self.groups.take_commits(self.log.durable_through(), self.log.last_closed(), &mut commits);
        self.on_commits(now, &commits, effects);
        commits.clear();
        self.commits = commits;
        self.apply_committed(now, effects);
        self.install_snapshots(now, effects);
        self.tell_leaders(effects);
        self.answer_awaiting(now, effects);
        self.tell_nodes(effects);
        self.talk_to_peers(now, effects);
        self.send_snapshots(now, effects);
    }

    /// Puts terms, votes and raft's own entries into the log. False when there is no room for them now.
    ///
    /// Before anything of another leader is stored: an entry that stood behind one with a higher index would replace it at the next start.
    pub(super) fn write_owed(&mut self, now: Now, effects: &mut Effects) -> bool {
        if self.failure().is_some() || !self.groups.owes() {
            return true;
        }
        let sizes = self.groups.owed_sizes();
        if self.in_open_block(now, effects, |log, slab| log.reserve_together(slab, sizes.len(), &sizes)).is_err() {
            self.blocked = true;
            return false;
        }
        match append_owed(&mut self.groups, &mut self.log, &mut self.slab) {
            Ok(()) => self.urgent = true,
            Err(error) => self.fail(&error.to_string(), effects),
        }
        true
    }

    fn on_group_committed(&mut self, now: Now, commit: &Commit, effects: &mut Effects) {
        // Group 0's commit, earlier in this list, may have brought a view into force that gives this one up.
        if !self.has_group(commit.group) {
            return;
        }
        // A group without an entry in a block is committed through it as well: requests wait for all their groups.
        self.acks.on_commit(commit.group, commit.block);
        if !commit.has_entries {
            return;
        }
        let sessions = &mut self.sessions;
        self.partitions.commit(commit.group, commit.block, |slot, _| sessions.wake(slot));
        for partition in self.unclaimed.values_mut().filter(|partition| partition.group == commit.group) {
            partition.commit_through(commit.block);
        }
        self.trims.commit(commit.group, commit.block, &mut self.partitions, &mut self.trimmed);
        self.offsets.commit(now, commit.group, commit.block, &self.partitions, &mut self.metrics);
        if commit.group == GroupId(0) {
            self.on_metadata_committed(now, commit.index, effects);
        }
    }

    fn end_of_turn(&mut self, now: Now, effects: &mut Effects) {
        self.care_for_replicas(now, effects);
        self.care_for_suspects(now, effects);
        if !self.pipelines.is_alone() {
            self.care_for_peers(now, effects);
            self.on_leaderships(now, effects);
            let _later = self.write_owed(now, effects);
            self.register_if_new(effects);
        } else {
            self.tell_that_alone(effects);
            if self.groups.owes() {
                // A group that began while the shard runs.
                let _later = self.write_owed(now, effects);
            }
        }
        self.plan(now, effects);
        self.carry_moves_out(now, effects);
        self.call(now, effects);
        self.write_controls(now, effects);
        self.close_blocks(now, effects);
        if !self.deferred.is_empty() {
            self.answer_deferred(now, effects);
            self.write_controls(now, effects);
            self.close_blocks(now, effects);
        }
        if !self.pipelines.is_alone() {
            self.prefer_leaders(now, effects);
        }
        self.talk(now, effects);
        self.look_for_queues(now, effects);
        if self.sessions.has_work() {
            let conns = &self.conns;
            self.sessions.pump(&self.partitions, &mut self.log, &mut self.slab, effects, |conn| conns.queued_bytes(conn));
            self.after_pump();
            self.on_collected(now, effects);
            if self.sessions.take_wants_more() {
                self.urgent = true;
            }
            self.write_controls(now, effects);
            self.close_blocks(now, effects);
        }
        if self.sessions.has_starved() {
            // A millisecond: about the time in which a read or a send gives memory back.
            effects.wake_at(now.mono_us + 1000);
        }
        if self.blocked || !self.deferred.is_empty() {
            // Memory may come back without a completion of the log's.
            effects.wake_at(now.mono_us + 1000);
        }
        effects.wake_at(self.sessions.next_deadline_us());
        effects.wake_at(self.acks.next_deadline_us());
        if self.phase == Phase::Serving {
            effects.wake_at(self.members.next_deadline_us());
            effects.wake_at(self.queues.next_deadline_us());
        }
        effects.wake_at(self.conns.next_sweep_us());
    }

    /// Puts into the open block what consumer groups and queues have to say.
    fn write_controls(&mut self, now: Now, effects: &mut Effects) {
        if self.groups.owes() {
            // Raft's own entries stand in front of what a leader proposes.
            return;
        }
        if self.members.has_unwritten() {
            self.write_groups(now, effects);
        }
        self.serve_queues(now, effects);
        self.bury_dead(now, effects);
        if self.queues.has_unwritten() {
            self.write_queues(now, effects);
        }
        self.release_queues(now, effects);
    }

    /// Closes what may be closed. A small block in which nobody waits for anything (levels `none` and `leader`) is left open for up to a
    /// millisecond: handing a write to the device costs the core 15 us, which the next request would pay for.
    fn close_blocks(&mut self, now: Now, effects: &mut Effects) {
        let is_small = self.log.is_open_small();
        if is_small && self.must_small_block_wait() {
            return; // a write that ends brings the shard back here
        }
        if !self.urgent && self.phase == Phase::Serving && is_small {
            if self.log.is_open_empty() {
                return;
            }
            if self.lazy_until_us == u64::MAX {
                self.lazy_until_us = now.mono_us + LAZY_US;
            }
            if now.mono_us < self.lazy_until_us {
                return effects.wake_at(self.lazy_until_us);
            }
        }
        while self.failure().is_none() && self.log.ready_to_close() {
            self.close_block(now, effects);
        }
    }

    /// Whether a small block waits for writes under way, and takes in what comes meanwhile: each flushes the disk's cache and keeps the next one waiting (decision 0014 has what was
    /// measured). On a node by itself for all of them, as it is acknowledged behind them in any case. With other nodes its entries leave when it is closed, and may be
    /// committed before this disk has them; and a topic may show records then: these wait only where the disk is crowded.
    fn must_small_block_wait(&self) -> bool {
        let only_the_disk_counts = self.pipelines.is_alone() && self.visible_at_close.is_empty();
        self.log.is_crowded() || only_the_disk_counts && self.log.is_writing()
    }

    pub(super) fn close_block(&mut self, now: Now, effects: &mut Effects) {
        let block = self.log.open_block_seq();
        self.urgent = false;
        self.lazy_until_us = u64::MAX;
        let mut positions = std::mem::take(&mut self.positions);
        if let Err(error) = self.groups.positions_for_close(block, self.log.open_groups(), &mut positions) {
            // With one voter this cannot be; were it so, what was appended must not be acknowledged.
            self.fail(&error.to_string(), effects);
            return;
        }
        if let Some(seat) = &mut self.seat {
            seat.on_close(self.log.open_groups(), &positions);
        }
        let mut next = positions.iter();
        let closed = self.log.close_block(now, &mut self.slab, effects, |_, _, _| *next.next().expect("one position per entry"));
        assert_eq!(closed, block, "the open block closes under its number");
        self.acks.on_closed(now, block);
        if !self.pipelines.is_alone() {
            // Until the end of the turn tells what of it is committed and taken in: it may be durable, and the cache full, before that.
            self.log.keep_cached(block);
        }
        self.positions = positions;
        for slot in self.visible_at_close.drain(..) {
            self.sessions.wake(slot);
        }
        self.unblock(effects);
    }

    pub(super) fn unblock(&mut self, effects: &mut Effects) {
        if std::mem::take(&mut self.blocked) {
            effects.push(Effect::Unblock);
        }
    }

    fn on_deadline(&mut self, now: Now, effects: &mut Effects) {
        self.unblock(effects);
        self.answer_deferred(now, effects);
        self.acks.on_deadline(now, effects, &mut self.metrics);
        self.on_group_deadline(now);
        self.on_queue_deadline(now, effects);
        self.sessions.on_deadline(now, &self.partitions, effects);
        let overdue = self.conns.overdue(now, self.settings.connection_idle_timeout_us, self.settings.partial_frame_timeout_us);
        for (conn, why) in overdue {
            let counters = &mut self.metrics.counters;
            let reason = match why {
                Overdue::Idle => {
                    counters.connections_refused_idle += 1;
                    "idle"
                }
                Overdue::PartialFrame => {
                    counters.connections_refused_partial += 1;
                    "partial frame"
                }
                Overdue::SlowReader => {
                    counters.connections_refused_slow += 1;
                    "slow reader"
                }
            };
            effects.push(Effect::Close { conn, reason });
        }
    }

    /// The log has failed: no produce is acknowledged any more; what is readable stays readable.
    pub(super) fn fail(&mut self, reason: &str, effects: &mut Effects) {
        if self.failure().is_some() {
            return;
        }
        tracing::error!(shard = self.id.0, reason, "shard failed: it takes no more records");
        self.phase = Phase::Failed(reason.to_owned());
        self.acks.fail_all(effects, &mut self.metrics, reason);
        self.trims.fail_all(effects, reason);
        self.offsets.fail_all(effects, reason);
        self.members.fail_all(effects, reason);
        self.fail_queues(effects, reason);
        if let Some(seat) = &mut self.seat {
            let joiners = seat.take_joiners();
            seat.fail_all(effects, &mut self.metrics, reason);
            let failed = ApiError::new(ErrorCode::StorageFailed, reason.to_owned());
            joiners.into_iter().for_each(|joiner| self.refuse_join(joiner, &failed, effects));
        }
        self.refuse_deletions(&ApiError::new(ErrorCode::StorageFailed, reason.to_owned()), effects);
        // What others have replicas of is theirs to serve: what is known of it here gets old.
        let shared: BTreeSet<GroupId> = self.group_ids.iter().copied().filter(|group| self.has_others(*group)).collect();
        self.sessions.leave(|slot| self.partitions.get(slot).is_some_and(|partition| shared.contains(&partition.group)));
        // The others stand for election at once, and nobody is kept in office by a shard that stores nothing.
        let of_snapshots = self.catchups.conns().chain(self.arrivals.conns());
        let of_repair = self.repairs.conns().chain(self.repair_answers.conns());
        for conn in self.pipelines.conns().into_iter().chain(of_snapshots).chain(of_repair).chain(self.calling.conn()) {
            effects.push(Effect::Close { conn, reason: "the shard has failed" });
        }
        effects.push(Effect::Fatal { reason: reason.to_owned() });
    }
}
