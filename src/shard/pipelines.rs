//! Between this shard and the other nodes' shards that hold replicas of its groups: connections, time, and what comes in.
//!
//! Invariants: what a leader has appended leaves in the turn in which its block closes, before its own write is done; a follower's entry stands in the open
//! block when it is told as received, and in a durable one when it is told as durable; a frame that finds no room stays at the edge, and what of it was
//! taken in is not taken twice.
//!
//! Not here: what goes out (`shipping.rs`), who leads and what is committed (replication/), what a committed entry changes (`applying.rs`), what a change of leaders changes
//! (`leadership.rs`).

use super::joining::{CallConn, refuse_hello};
use super::seldom::Seldom;
use super::shard::{Phase, Shard, Taken};
use super::shipping::BlockRead;
use super::strays::Strays;
use crate::bytes::Bytes;
use crate::constants::{FEATURE_LEVEL, FEATURE_LEVEL_MIN};
use crate::effects::{Effect, Effects, Now};
use crate::ids::{ConnId, GroupId, LogIndex, NodeId, ReplicaId, Term};
use crate::log::{AppendRefused, EntryKind};
use crate::replication::wire_raft::Sort;
use crate::replication::{Change, Dialed, FollowerMarks, GroupPosition, Peer, PeerStart, ReplicationError, wire_raft};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use tramline_wire::frame::finish_frame;
use tramline_wire::node::{
    self, Ack, AckFlags, Append, Beat, CLUSTER_NONE, CheckedEntry, CheckedShare, Class, EntryHead, Frame, GroupTerm, Hello, HelloReply,
    Kind, NodeError, Numbers, PayloadLimits, Refusal, Refused, ReplicaFlags, ReplicaState, Side, TimeoutNow, Vote, VoteReply,
};
use tramline_wire::prim::List;

/// A tick of the groups' time.
const TICK_US: u64 = 50_000;
/// Bytes that a node may send before they are answered.
const WINDOW_BYTES: u32 = 8 << 20;
/// Connections of nodes that have not said who they are.
const STRANGERS_MAX: usize = 256;

/// Whether there is a feature level that both nodes speak.
pub(super) fn speaks_alike(hello: &Hello) -> bool {
    (hello.feature_min..=hello.feature_max).contains(&FEATURE_LEVEL)
}

/// The other nodes' shards, as this one sees them.
#[derive(Debug, Default)]
pub(super) struct Pipelines {
    pub(super) peers: Vec<Peer>,
    /// Accepted, and nothing said yet.
    strangers: Vec<ConnId>,
    /// Accepted, of nodes that have calls.
    pub(super) callers: Vec<CallConn>,
    next_dial: u64,
    next_tick_us: u64,
    /// When moves are looked at next.
    pub(super) next_move_look_us: u64,
    /// Groups that went on without a majority in this process.
    pub(super) forced: BTreeSet<GroupId>,
    /// Replicas that have no place in groups that are led here.
    pub(super) strays: Strays,
    /// An orderly stop has given everything away and left the others.
    pub(super) has_left: bool,
    /// When each group was handed over last.
    pub(super) handed_over_us: BTreeMap<GroupId, u64>,
    /// When a leadership may be given away next.
    pub(super) next_hand_over_us: u64,
    /// Until when an orderly stop gives them all away, and whether it has given up.
    pub(super) stop_until_us: Option<u64>,
    pub(super) gave_up_giving: bool,
    /// This process, to others.
    pub(super) boot: u64,
    /// What others do again and again.
    pub(super) seldom: Seldom,
    /// For each peer a block that is not in the tail cache: being read, then held until another one is asked for.
    pub(super) reads: BTreeMap<ReplicaId, BlockRead>,
    /// Scratch: entries of the frame that is being made.
    pub(super) parts: Vec<Bytes>,
    pub(super) heads: Vec<EntryHead>,
}

impl Pipelines {
    pub(super) fn new(boot: u64) -> Pipelines {
        Pipelines { boot, ..Pipelines::default() }
    }

    /// The connections to other nodes, dialed and accepted.
    pub(super) fn conns(&self) -> Vec<ConnId> {
        self.peers.iter().flat_map(Peer::conns).collect()
    }

    /// Forgets peers that are not among these; answers their connections.
    pub(super) fn keep_peers(&mut self, wanted: &BTreeSet<ReplicaId>) -> Vec<ConnId> {
        self.reads.retain(|replica, _| wanted.contains(replica));
        let gone = self.peers.extract_if(.., |peer| !wanted.contains(&peer.replica));
        gone.flat_map(|peer| peer.conns().collect::<Vec<_>>()).collect()
    }

    /// Names the next attempt to connect.
    pub(super) fn next_dial(&mut self) -> u64 {
        self.next_dial += 1;
        self.next_dial
    }

    /// Where the shard of a peer accepts, as far as is known.
    pub(super) fn address_of(&self, replica: ReplicaId) -> Option<SocketAddr> {
        self.peers.iter().find(|peer| peer.replica == replica).and_then(|peer| peer.address)
    }

    /// Whether this shard is connected to the shard of a peer.
    pub(super) fn is_live(&self, replica: ReplicaId) -> bool {
        self.peers.iter().any(|peer| peer.replica == replica && peer.live().is_some())
    }

    /// Whether there is another node.
    pub(super) fn is_alone(&self) -> bool {
        self.peers.is_empty()
    }
}

/// Why a frame of another node was not taken in.
pub(super) enum NotTaken {
    /// No room: it has to come again.
    Blocked,
    /// It breaks the protocol: the connection ends.
    Wrong(String),
}

impl From<NodeError> for NotTaken {
    fn from(error: NodeError) -> NotTaken {
        NotTaken::Wrong(error.to_string())
    }
}

impl From<ReplicationError> for NotTaken {
    fn from(error: ReplicationError) -> NotTaken {
        NotTaken::Wrong(error.to_string())
    }
}

impl Shard {
    /// This node, on its present disk.
    pub(super) fn replica(&self) -> ReplicaId {
        ReplicaId::of(self.info.generation, self.node)
    }

    /// A node has dialed this shard.
    pub(super) fn on_node_opened(&mut self, conn: ConnId, effects: &mut Effects) {
        if self.pipelines.strangers.len() >= STRANGERS_MAX {
            return effects.push(Effect::Close { conn, reason: "too many nodes that do not say who they are" });
        }
        self.pipelines.strangers.push(conn);
    }

    pub(super) fn on_dialed(&mut self, now: Now, dial: u64, conn: ConnId, effects: &mut Effects) {
        if self.on_outward_dialed(now, dial, conn, effects) {
            return;
        }
        let Some(at) = self.pipelines.peers.iter_mut().position(|peer| peer.on_dialed(now.mono_us, dial, conn)) else {
            return effects.push(Effect::Close { conn, reason: "nobody waits for this connection" });
        };
        let to = self.pipelines.peers[at].replica;
        let terms: Vec<_> = self.groups.states().map(|(group, term, ..)| GroupTerm { group: group.0, term: term.0 }).collect();
        let at = self.pipelines.peers[at].next_number();
        self.say_hello(at, to, Class::Live, &terms, effects);
    }

    /// What this shard says first on a connection that it has dialed: under which number, to whom, what for.
    pub(super) fn say_hello(
        &self,
        (conn, number): (ConnId, u64),
        to: ReplicaId,
        class: Class,
        groups: &[GroupTerm],
        effects: &mut Effects,
    ) {
        let me = self.replica();
        let hello = Hello {
            class,
            cluster_id: self.info.cluster_id,
            boot: self.pipelines.boot,
            from_node: me.node().0,
            from_generation: me.generation(),
            to_node: to.node().0,
            to_generation: to.generation(),
            from_shard: self.id.0,
            to_shard: self.id.0,
            feature_min: FEATURE_LEVEL_MIN,
            feature_max: FEATURE_LEVEL,
            feature_level: FEATURE_LEVEL,
            view_epoch: self.view.epoch,
            groups: List::of(groups),
        };
        effects.send(conn, [], |out| write(out, Kind::Hello, number, |out| hello.encode(out)));
    }

    /// The answer to a hello, on a connection that was accepted.
    pub(super) fn answer_hello(&self, conn: ConnId, numbers: &mut Numbers, groups: &[ReplicaState], effects: &mut Effects) {
        let reply = HelloReply { boot: self.pipelines.boot, feature: FEATURE_LEVEL, window: WINDOW_BYTES, groups: List::of(groups) };
        effects.send(conn, [], |out| write(out, Kind::HelloReply, numbers.advance(), |out| reply.encode(out)));
    }

    pub(super) fn on_dial_failed(&mut self, now: Now, dial: u64) {
        if self.catchups.outwards().any(|outward| outward.on_dial_failed(now.mono_us, dial)) {
            return;
        }
        self.on_repair_dial_failed(now, dial);
        self.on_call_dial_failed(now, dial);
        self.pipelines.peers.iter_mut().for_each(|peer| peer.on_dial_failed(now.mono_us, dial));
    }

    /// A connection has ended; answers whether it was one of a node.
    pub(super) fn on_node_closed(&mut self, now: Now, conn: ConnId) -> bool {
        if let Some(at) = self.pipelines.strangers.iter().position(|stranger| *stranger == conn) {
            self.pipelines.strangers.swap_remove(at);
            return true;
        }
        if let Some(at) = self.pipelines.callers.iter().position(|caller| caller.conn == conn) {
            self.pipelines.callers.swap_remove(at);
            return true;
        }
        if self.on_catchup_closed(now, conn) || self.arrivals.on_closed(conn) || self.on_call_closed(now, conn) {
            return true;
        }
        if self.on_repair_closed(now, conn) || self.on_asker_closed(conn) {
            return true;
        }
        for peer in &mut self.pipelines.peers {
            match peer.on_closed(now.mono_us, conn) {
                // What the peer leads has nobody who would be heard on another connection.
                Some(true) => {
                    let replica = peer.replica;
                    self.groups.forget_leader(replica);
                    return true;
                }
                Some(false) => {
                    let replica = peer.replica;
                    self.groups.on_disconnected(replica);
                    return true;
                }
                None => {}
            }
        }
        false
    }

    /// A frame of another node.
    pub(super) fn on_node_frame(&mut self, now: Now, conn: ConnId, frame: &Frame<'_>, effects: &mut Effects) -> Taken {
        match self.take_node_frame(now, conn, frame, effects) {
            Ok(()) => Taken::Yes,
            Err(NotTaken::Blocked) => {
                self.blocked = true;
                Taken::Blocked
            }
            Err(NotTaken::Wrong(what)) => {
                tracing::warn!(shard = self.id.0, conn = conn.0, kind = %frame.kind, "a frame of another node is refused, and its connection ends: {what}");
                effects.push(Effect::Close { conn, reason: "a frame of another node is refused" });
                self.on_node_closed(now, conn);
                Taken::Yes
            }
        }
    }

    fn take_node_frame(&mut self, now: Now, conn: ConnId, frame: &Frame<'_>, effects: &mut Effects) -> Result<(), NotTaken> {
        if let Some(at) = self.pipelines.strangers.iter().position(|stranger| *stranger == conn) {
            self.pipelines.strangers.swap_remove(at);
            return self.on_hello(now, conn, frame, effects);
        }
        let dialed =
            |peer: &Peer| matches!(peer.dialed, Dialed::Greeting { conn: ours, .. } | Dialed::Live { conn: ours, .. } if ours == conn);
        if let Some(at) = self.pipelines.peers.iter().position(dialed) {
            frame.kind.check(Class::Live, Side::Acceptor)?;
            return self.on_answer(now, at, frame, effects);
        }
        let accepted = |peer: &Peer| peer.accepted.as_ref().is_some_and(|accepted| accepted.conn == conn);
        if let Some(at) = self.pipelines.peers.iter().position(accepted) {
            frame.kind.check(Class::Live, Side::Dialer)?;
            return self.on_order(now, at, frame, effects);
        }
        if self.pipelines.callers.iter().any(|caller| caller.conn == conn) {
            return self.on_call(now, conn, frame, effects);
        }
        if let Some(at) = self.catchups.line_of(conn) {
            return self.take_catchup_answer(now, at, frame, effects);
        }
        if let Some(at) = self.arrivals.of(conn) {
            return self.take_catchup_order(now, at, frame, effects);
        }
        if self.repairs.asks_on(conn) {
            return self.take_repair_answer(now, frame, effects);
        }
        if let Some(at) = self.repair_answers.of(conn) {
            return self.take_repair_question(at, frame, effects);
        }
        if self.calling.conn() == Some(conn) {
            return self.take_call_answer(now, frame, effects);
        }
        // Of a connection that was replaced or is being closed: not looked at.
        Ok(())
    }

    fn on_hello(&mut self, now: Now, conn: ConnId, frame: &Frame<'_>, effects: &mut Effects) -> Result<(), NotTaken> {
        if frame.kind != Kind::Hello {
            return Err(NotTaken::Wrong(format!("a connection begins with a hello, not with {}", frame.kind)));
        }
        let hello = Hello::decode(frame.meta).map_err(NodeError::from)?;
        if ![CLUSTER_NONE, self.info.cluster_id].contains(&hello.cluster_id) {
            self.meet_foreigner(now, &hello);
        }
        if hello.class == Class::Calls {
            self.on_call_hello(conn, &hello, effects);
            return Ok(());
        }
        let from = ReplicaId::of(hello.from_generation, NodeId(hello.from_node));
        let me = self.replica();
        let refusal = if hello.cluster_id != self.info.cluster_id {
            Some(Refusal::OtherCluster)
        } else if (hello.to_node, hello.to_generation) != (me.node().0, me.generation()) {
            Some(Refusal::OtherNode)
        } else if self.is_gone(from) || hello.groups.iter().any(|row| self.is_before_recovery(row.group, row.term)) {
            Some(Refusal::Removed)
        } else if !speaks_alike(&hello) {
            Some(Refusal::NoCommonFeature)
        } else if !matches!(hello.class, Class::Live | Class::CatchUp | Class::Repair) || hello.to_shard != self.id.0 {
            Some(Refusal::NoSuchShard)
        } else if self.failure().is_some() || self.phase == Phase::Stopping {
            Some(Refusal::NotServing)
        } else {
            None
        };
        let mut at = self.pipelines.peers.iter().position(|peer| peer.replica == from);
        if at.is_none() && refusal.is_none() && self.suspects.count() > 0 {
            // Who it is may be among what this shard has lost.
            at = Some(self.pipelines.peers.len());
            self.pipelines.peers.push(Peer::new(&PeerStart { replica: from, address: None }));
        }
        let (Some(at), None) = (at, refusal) else {
            let code = refusal.unwrap_or(Refusal::UnknownPair);
            refuse_hello(conn, code, effects);
            return Ok(());
        };
        if hello.class == Class::Repair {
            self.answer_repairs_of(from, conn, effects);
            return Ok(());
        }
        if hello.class == Class::CatchUp {
            self.take_snapshots_from(from, conn, effects);
            return Ok(());
        }
        let before = self.pipelines.peers[at].on_accepted(conn);
        self.note_connection(now, from, hello.boot, before.is_some());
        if let Some(before) = before {
            effects.push(Effect::Close { conn: before, reason: "a newer connection of the same node has come" });
        }
        let states: Vec<_> = self.groups.states().collect();
        let mut rows: Vec<_> =
            hello.groups.iter().map(|asked| replica_state(&states, asked.group, self.groups.is_suspect(GroupId(asked.group)))).collect();
        rows.iter_mut()
            .filter(|row| self.groups.wants_snapshot(GroupId(row.group)))
            .for_each(|row| row.flags = row.flags.with(ReplicaFlags::EMPTY));
        let mut numbers = Numbers::new();
        self.answer_hello(conn, &mut numbers, &rows, effects);
        self.pipelines.peers[at].accepted.as_mut().expect("just set").numbers = numbers;
        effects.wake_at(0);
        Ok(())
    }

    /// A peer has dialed to send snapshots.
    fn take_snapshots_from(&mut self, from: ReplicaId, conn: ConnId, effects: &mut Effects) {
        let mut numbers = Numbers::new();
        self.answer_hello(conn, &mut numbers, &[], effects);
        if let Some(before) = self.arrivals.on_accepted(from, conn, numbers) {
            effects.push(Effect::Close { conn: before, reason: "a newer connection of the same node has come" });
        }
    }

    /// What comes back on the connection that this shard has dialed.
    fn on_answer(&mut self, now: Now, at: usize, frame: &Frame<'_>, effects: &mut Effects) -> Result<(), NotTaken> {
        let (from, me) = (self.pipelines.peers[at].replica, self.replica());
        match (frame.kind, self.pipelines.peers[at].dialed) {
            (Kind::HelloReply, Dialed::Greeting { .. }) => {
                let reply = HelloReply::decode(frame.meta).map_err(NodeError::from)?;
                self.pipelines.peers[at].on_greeted(now.mono_us);
                for row in reply.groups.iter().filter(|row| !row.flags.has(ReplicaFlags::UNKNOWN)) {
                    check_numbers(&[row.term, row.last_index, row.last_term, row.persisted])?;
                    self.pipelines.peers[at].note_replica(GroupId(row.group));
                    let is_suspect = row.flags.has(ReplicaFlags::SUSPECT);
                    self.groups.on_connected(GroupId(row.group), from, LogIndex(row.persisted), is_suspect);
                    if row.flags.has(ReplicaFlags::EMPTY) {
                        self.groups.send_snapshot(GroupId(row.group), from);
                    }
                }
            }
            (Kind::Refused, _) => {
                let refused = Refused::decode(frame.meta).map_err(NodeError::from)?;
                self.note_refusal(now, from.node(), &refused);
                self.pipelines.peers[at].drop_dialed(now.mono_us);
                self.on_refused(&refused, effects);
            }
            (Kind::Ack, Dialed::Live { .. }) => {
                let ack = Ack::decode(frame.meta).map_err(NodeError::from)?;
                for row in ack.groups.iter() {
                    let group = GroupId(row.group);
                    check_term(row.term)?;
                    check_numbers(&[row.received, row.durable, row.applied, row.rejected, row.hint_index, row.hint_term])?;
                    self.pipelines.peers[at].note_replica(group);
                    // What begins with the first entry fits every log: this replica has none (`refuse_share`).
                    if row.flags.has(AckFlags::REJECTED) && row.rejected == 0 {
                        // One of an old term is no word for this leader.
                        if self.groups.led_in(group) == Some(Term(row.term)) {
                            self.groups.send_snapshot(group, from);
                        }
                        continue;
                    }
                    if row.flags.has(AckFlags::REJECTED) {
                        self.groups.step(group, wire_raft::rejection(from, me, &row))?;
                        continue;
                    }
                    let durable = LogIndex(row.durable);
                    let is_suspect = row.flags.has(AckFlags::SUSPECT);
                    // What a suspect has is good for a majority once it is on its disk.
                    let received = if is_suspect { durable } else { LogIndex(row.received) };
                    let told = durable.max(received);
                    if self.groups.led_in(group) == Some(Term(row.term)) && told > self.groups.last_of(group).index {
                        return Err(NotTaken::Wrong(format!("group {group}: entry {told} is acknowledged and was never sent")));
                    }
                    if self.groups.led_in(group) == Some(Term(row.term)) {
                        self.groups.on_doubt(group, from, is_suspect);
                    }
                    let marks = FollowerMarks { term: Term(row.term), received, durable, committed: LogIndex(row.applied), is_suspect };
                    self.groups.on_marks(group, from, &marks)?;
                }
                // Behind the rows: one of them may have told of a higher term.
                if let Some(sent_us) = self.pipelines.peers[at].on_beat(now.mono_us, ack.beat) {
                    let peer = &self.pipelines.peers[at];
                    self.groups.on_beat_answered(from, sent_us, peer.has_answered_beat(), |group| peer.has_replica(group))?;
                }
            }
            (Kind::VoteReply, Dialed::Live { .. }) => {
                let row = VoteReply::decode(frame.meta).map_err(NodeError::from)?;
                check_term(row.term)?;
                check_numbers(&[row.commit, row.commit_term])?;
                self.groups.step(GroupId(row.group), wire_raft::vote_reply(from, me, &row))?;
            }
            (kind, state) => return Err(NotTaken::Wrong(format!("{kind} does not belong here ({state:?})"))),
        }
        effects.wake_at(0);
        Ok(())
    }

    /// What a peer says on the connection that it has dialed.
    fn on_order(&mut self, now: Now, at: usize, frame: &Frame<'_>, effects: &mut Effects) -> Result<(), NotTaken> {
        let (from, me) = (self.pipelines.peers[at].replica, self.replica());
        match frame.kind {
            Kind::Append => return self.on_append(now, at, frame, effects),
            Kind::Beat => {
                let beat = Beat::decode(frame.meta).map_err(NodeError::from)?;
                for row in beat.groups.iter() {
                    let group = GroupId(row.group);
                    check_term(row.term)?;
                    if self.is_before_recovery(row.group, row.term) {
                        // Its next hello is refused for it.
                        return Err(NotTaken::Wrong(format!("node {} leads the metadata as they were before their recovery", from.node())));
                    }
                    let commit = self.groups.clamped_commit(group, LogIndex(row.commit));
                    self.groups.step(group, wire_raft::beat(from, me, &row, commit))?;
                    self.note_commit_told(group, (Term(row.term), LogIndex(row.commit)));
                    self.owe_ack(at, group);
                }
                self.note_beat(at, beat.beat);
            }
            Kind::Vote => {
                let row = Vote::decode(frame.meta).map_err(NodeError::from)?;
                check_term(row.term)?;
                check_numbers(&[row.last_index, row.last_term, row.commit, row.commit_term])?;
                self.groups.step(GroupId(row.group), wire_raft::vote(from, me, &row))?;
            }
            Kind::TimeoutNow => {
                let row = TimeoutNow::decode(frame.meta).map_err(NodeError::from)?;
                check_term(row.term)?;
                self.groups.step(GroupId(row.group), wire_raft::timeout_now(from, me, row.term))?;
            }
            Kind::Leaders => self.on_leaders(at, frame, effects)?,
            Kind::Activity => self.on_activity(now, at, frame)?,
            kind => return Err(NotTaken::Wrong(format!("{kind} does not belong on this connection"))),
        }
        effects.wake_at(0);
        Ok(())
    }

    /// A leader has told how far its group is committed: what was acknowledged before is among it once an entry of its own term is.
    fn note_commit_told(&mut self, group: GroupId, (term, commit): (Term, LogIndex)) {
        let Some(seat) = self.seat.as_mut().filter(|_| group == GroupId(0)) else { return };
        let is_all = self.groups.entry_term(group, commit) == term;
        seat.is_current |= is_all && commit <= self.groups.committed_of(group);
    }

    fn note_beat(&mut self, at: usize, beat: u64) {
        if let Some(accepted) = &mut self.pipelines.peers[at].accepted {
            accepted.beat = accepted.beat.max(beat);
        }
    }

    fn owe_ack(&mut self, at: usize, group: GroupId) {
        if let Some(accepted) = &mut self.pipelines.peers[at].accepted
            && !accepted.asked.contains(&group)
        {
            accepted.asked.push(group);
        }
    }

    fn on_append(&mut self, now: Now, at: usize, frame: &Frame<'_>, effects: &mut Effects) -> Result<(), NotTaken> {
        let append = Append::decode(frame.meta).map_err(NodeError::from)?;
        let limits = PayloadLimits { batch_bytes_max: self.log.batch_bytes_max() as u32, ..PayloadLimits::default() };
        let checked = append.check(frame.payload, &limits)?;
        for share in checked.shares() {
            self.take_share(now, at, &share, effects)?;
            self.heed_words(now, share.base(), effects);
        }
        self.note_beat(at, append.beat);
        effects.wake_at(0);
        Ok(())
    }

    /// Takes the entries of a share one by one: each as a whole, or none of it. One that is there already is not stored again, so a share that was
    /// taken in part may come again.
    fn take_share(&mut self, now: Now, at: usize, share: &CheckedShare<'_>, effects: &mut Effects) -> Result<(), NotTaken> {
        let (from, me, base) = (self.pipelines.peers[at].replica, self.replica(), share.base());
        let group = GroupId(base.group);
        if !self.has_group(group) {
            return Ok(());
        }
        // What a replica has that was left out of a recovery is not what this leader has: the metadata will tell it.
        if self.groups.is_left_out_of(group, Term(base.term)) {
            return Ok(());
        }
        self.owe_ack(at, group);
        if Term(base.term) < self.groups.term_of(group) {
            // Of a leader that is none any more: the answer tells it the term. What it wants stored is not looked at.
            let previous = GroupPosition { index: LogIndex(base.prev_index), term: Term(base.prev_term) };
            return Ok(self.groups.step(group, wire_raft::append(from, me, base, previous, None))?);
        }
        if self.groups.wants_snapshot(group) {
            return self.refuse_share(at, base);
        }
        let mut previous = GroupPosition { index: LogIndex(base.prev_index), term: Term(base.prev_term) };
        if share.entries().next().is_none() {
            return Ok(self.groups.step(group, wire_raft::append(from, me, base, previous, None))?);
        }
        // In the log such an entry would stand behind whatever was there before the snapshot, and after a start without it be taken for what follows that. The
        // answer to the next beat says that it is not here. What its leader says besides counts: its answered beat is a word for its term.
        if self.groups.is_installing(group) {
            let beat = node::BeatGroup { group: base.group, term: base.term, commit: 0 };
            return Ok(self.groups.step(group, wire_raft::beat(from, me, &beat, LogIndex(0)))?);
        }
        for entry in share.entries() {
            let (index, term) = (LogIndex(entry.index()), Term(entry.term()));
            self.check_replaces_nothing_committed(group, index, term, effects)?;
            if previous.index > self.groups.committed_of(group) && !self.groups.has_entry(group, previous.index, previous.term) {
                // What is before it is not here: to say so takes no room. Where there is none the frame would come again and again, and be answered each time.
                self.groups.step(group, wire_raft::append(from, me, base, previous, None))?;
                self.on_leaderships(now, effects);
                return Ok(());
            }
            if !self.groups.has_entry(group, index, term) {
                let has_room = self.write_owed(now, effects);
                let reserved = if has_room { self.reserve_entry(now, &entry, effects) } else { Err(NotTaken::Blocked) };
                if matches!(reserved, Err(NotTaken::Blocked)) {
                    // What it says of the commit frees memory, perhaps.
                    self.groups.step(group, wire_raft::append(from, me, base, previous, None))?;
                    self.on_leaderships(now, effects);
                }
                reserved?;
            }
            let sort = sort_of(&entry)?;
            self.groups.step(group, wire_raft::append(from, me, base, previous, Some((index, term, sort))))?;
            // A lost leadership has to be worked off before a block is closed.
            self.on_leaderships(now, effects);
            if !self.groups.has_entry(group, index, term) {
                // Not taken: the term is old, or what is before it is not here. The answer is on its way.
                return Ok(());
            }
            if self.groups.wants_bytes(group, index, term) {
                self.store_entry(group, (term, index), &entry);
            }
            previous = GroupPosition { index, term };
        }
        Ok(())
    }

    /// A leader that would replace what is committed is no leader of this group: this replica stops, and says what it has and what came (trap T15).
    fn check_replaces_nothing_committed(
        &mut self,
        group: GroupId,
        index: LogIndex,
        term: Term,
        effects: &mut Effects,
    ) -> Result<(), NotTaken> {
        let committed = self.groups.committed_of(group);
        if index > committed || self.groups.has_entry(group, index, term) {
            return Ok(());
        }
        let what = format!("group {group}: entry {index} of term {term} came, and another one is committed there (commit {committed})");
        self.fail(&what, effects);
        Err(NotTaken::Wrong(what))
    }

    fn reserve_entry(&mut self, now: Now, entry: &CheckedEntry<'_>, effects: &mut Effects) -> Result<(), NotTaken> {
        let own = entry.kind() == node::EntryKind::Raft;
        let sizes: Vec<usize> = match entry.kind() {
            node::EntryKind::Raft => vec![entry.controls().map(<[u8]>::len).sum()],
            node::EntryKind::Block => entry.batches().map(|b| b.bytes().len()).chain(entry.controls().map(<[u8]>::len)).collect(),
        };
        let rows = usize::from(entry.batches().next().is_some()) + usize::from(own || entry.controls().next().is_some());
        match self.in_open_block(now, effects, |log, slab| log.reserve_stored(slab, rows, &sizes)) {
            Ok(()) => Ok(()),
            Err(AppendRefused::Full) => Err(NotTaken::Blocked),
            Err(AppendRefused::TooLarge) => {
                Err(NotTaken::Wrong(format!("an entry of {} bytes fits no block of this shard", entry.payload_bytes())))
            }
            Err(AppendRefused::Failed) => Err(NotTaken::Wrong("this shard's log has failed".to_owned())),
        }
    }

    /// Puts a reserved entry into the open block.
    fn store_entry(&mut self, group: GroupId, position: (Term, LogIndex), entry: &CheckedEntry<'_>) {
        let (log, slab) = (&mut self.log, &mut self.slab);
        let block = log.open_block_seq();
        match entry.kind() {
            node::EntryKind::Raft => {
                let payload = entry.controls().next().unwrap_or_default();
                log.append_stored_control(slab, group, EntryKind::Raft, position, payload).expect("reserved");
            }
            node::EntryKind::Block => {
                for batch in entry.batches() {
                    log.append_stored(slab, group, position, batch.bytes()).expect("reserved");
                }
                for payload in entry.controls() {
                    log.append_stored_control(slab, group, EntryKind::Control, position, payload).expect("reserved");
                }
            }
        }
        self.groups.place(group, position.1, block, entry.payload_bytes() as u32);
        log.keep_cached(block);
        self.urgent = true;
    }

    /// Time: ticks, dialing, connections that are silent.
    pub(super) fn care_for_peers(&mut self, now: Now, effects: &mut Effects) {
        if self.pipelines.is_alone() || self.failure().is_some() || self.pipelines.has_left {
            return;
        }
        if now.mono_us >= self.pipelines.next_tick_us {
            // One that was missed is not made up for: whoever was paused has not waited.
            self.pipelines.next_tick_us = now.mono_us + TICK_US;
            self.groups.tick();
        }
        for at in 0..self.pipelines.peers.len() {
            let dial = self.pipelines.next_dial();
            let peer = &mut self.pipelines.peers[at];
            if peer.is_silent(now.mono_us)
                && let Dialed::Greeting { conn, .. } | Dialed::Live { conn, .. } = peer.dialed
            {
                effects.push(Effect::Close { conn, reason: "the node at the other end is silent" });
                peer.drop_dialed(now.mono_us);
                self.groups.on_disconnected(peer.replica);
            }
            if let Some(address) = peer.begin_dial(now.mono_us, dial) {
                effects.push(Effect::Dial { dial, address });
            }
            effects.wake_at(self.pipelines.peers[at].next_deadline_us());
        }
        effects.wake_at(self.pipelines.next_tick_us);
    }
}

/// What an entry is to the crate. A payload of raft's own is a change of who votes or learns.
fn sort_of(entry: &CheckedEntry<'_>) -> Result<Sort, NotTaken> {
    if entry.kind() == node::EntryKind::Block {
        return Ok(Sort::Share);
    }
    let Some(payload) = entry.controls().next() else { return Ok(Sort::Empty) };
    let change = Change::decode(payload).ok_or_else(|| NotTaken::Wrong("an entry of raft's own that is no change".to_owned()))?;
    Ok(Sort::Change(change))
}

/// No term and no index gets that far.
const NUMBER_END: u64 = 1 << 62;

/// The crate adds to what it is told.
pub(super) fn check_numbers(numbers: &[u64]) -> Result<(), NotTaken> {
    match numbers.iter().find(|number| **number >= NUMBER_END) {
        Some(number) => Err(NotTaken::Wrong(format!("a term or an index of {number}"))),
        None => Ok(()),
    }
}

/// To the crate a term of 0 means a message of its own.
pub(super) fn check_term(term: u64) -> Result<(), NotTaken> {
    check_numbers(&[term])?;
    if term == 0 { Err(NotTaken::Wrong("a term of 0".to_owned())) } else { Ok(()) }
}

pub(super) fn write(out: &mut Vec<u8>, kind: Kind, number: u64, meta: impl FnOnce(&mut Vec<u8>)) {
    let start = node::begin(out, kind, number);
    meta(out);
    finish_frame(out, start, 0).expect("rows of at most 63 groups are within the limits");
}

fn replica_state(states: &[(GroupId, Term, GroupPosition, LogIndex)], group: u32, is_suspect: bool) -> ReplicaState {
    let found = states.iter().find(|(id, ..)| id.0 == group);
    let flags = match found {
        None => ReplicaFlags::UNKNOWN,
        Some(_) if is_suspect => ReplicaFlags::SUSPECT,
        Some(_) => ReplicaFlags::default(),
    };
    let (_, term, last, persisted) = found.copied().unwrap_or_default();
    ReplicaState { group, flags, term: term.0, last_index: last.index.0, last_term: last.term.0, persisted: persisted.0 }
}
