//! Which groups this shard has a replica of, and which other nodes' shards it has to do with for that: both follow the metadata while it runs.
//!
//! Invariants: a replica's record stands in the log in front of everything else of it; a peer is dialed as long as it shares a group with this shard, in the
//! metadata or in a group's own configuration, and its address is known.
//!
//! Not here: the groups of a start (`beginnings.rs`), what a group's configuration is (replication/), who ought to have replicas (control/).

use super::beginnings::record_of;
use super::pipelines::NotTaken;
use super::shard::Shard;
use crate::control::{Endpoint, ReplicaView, View};
use crate::effects::{Effect, Effects, Now};
use crate::ids::{BlockSeq, GroupId, LogIndex, NodeId, ReplicaId};
use crate::log::{EntryKind, ReplicaRecord, ReplicaState};
use crate::replication::{GroupStart, Members, Peer, PeerStart, wire_raft};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use tramline_wire::node::{AckFlags, AckGroup, BeatGroup, ShareBase};

/// The preferred leader of a group that is new stands after so many ticks: the others have to hear of the group first.
const HURRY_TICKS: usize = 2;

impl Shard {
    /// Begins a replica of each group that the metadata put here and that is not here yet, and gives up those that they have put elsewhere. What finds no room is
    /// done with a later turn.
    pub(super) fn adopt_replicas(&mut self, now: Now, view: &View, effects: &mut Effects) {
        self.replicas_owed = false;
        if self.failure().is_some() {
            return;
        }
        if !self.recover_replicas(now, view, effects) {
            self.replicas_owed = true;
            return effects.wake_at(now.mono_us + 1000);
        }
        let me = self.replica();
        let shard = self.id;
        let is_mine = |replica: &ReplicaView| replica.id == me && replica.shard == shard;
        for group in view.cluster.groups_on(self.node, shard) {
            if self.has_group(group.id) {
                continue;
            }
            let is_voter = group.replicas.iter().any(is_mine);
            let comes = group.moving.as_ref().is_some_and(|moving| moving.add.as_ref().is_some_and(is_mine));
            // A group that is new has the configuration that it was created with; what a move brings begins empty, and is told by its leader what it needs.
            let voters = match (comes, is_voter) {
                (true, _) => Vec::new(),
                (false, true) => group.replicas.iter().map(|replica| replica.id).collect(),
                (false, false) => continue,
            };
            if !self.begin_replica(now, group.id, voters, effects) {
                self.replicas_owed = true;
                effects.wake_at(now.mono_us + 1000);
                return;
            }
            if group.replicas[0].id == me && !comes {
                self.groups.hurry(group.id, HURRY_TICKS);
            }
        }
        self.forget_replicas(now, view, effects);
    }

    fn begin_replica(&mut self, now: Now, group: GroupId, mut voters: Vec<ReplicaId>, effects: &mut Effects) -> bool {
        voters.sort_unstable();
        let members = Members::of_voters(voters);
        let is_alone = members.is_lone(self.replica());
        let mut start = GroupStart { id: group, members, ..GroupStart::default() };
        let record = record_of(self.replica(), &start);
        if self.write_record(now, &record, effects).is_none() {
            return false;
        }
        start.is_suspect = !is_alone && self.suspects.on_begun(group);
        if let Err(error) = self.groups.add(start) {
            self.fail(&error.to_string(), effects);
            return false;
        }
        self.group_ids.push(group);
        self.group_ids.sort_unstable();
        self.acks.add_group(group);
        self.applying.set(group, LogIndex(0));
        if !is_alone {
            self.applying.rebuild.track(group, LogIndex(0));
        }
        tracing::info!(shard = self.id.0, group = group.0, voters = ?record.voters, "a replica of the group begins");
        true
    }

    /// A replica that has nothing follows who leads, and takes nothing of the log: of that it needs a snapshot, which tells who votes.
    pub(super) fn refuse_share(&mut self, at: usize, base: &ShareBase) -> Result<(), NotTaken> {
        let from = self.pipelines.peers[at].replica;
        let row = BeatGroup { group: base.group, term: base.term, commit: 0 };
        self.groups.step(GroupId(base.group), wire_raft::beat(from, self.replica(), &row, LogIndex(0)))?;
        let rejection = AckGroup {
            group: base.group,
            flags: AckFlags::REJECTED,
            term: base.term,
            received: 0,
            durable: 0,
            applied: 0,
            // Whatever came in front of it. Would it name that, the leader sent everything from the first entry on again, in several frames where blocks are read
            // back for it, and so on without an end.
            rejected: 0,
            hint_index: 0,
            hint_term: 0,
        };
        if let Some(accepted) = &mut self.pipelines.peers[at].accepted {
            accepted.rejections.push(rejection);
        }
        Ok(())
    }

    /// Answers which block will have it; `None` where there is no room now.
    pub(super) fn write_record(&mut self, now: Now, record: &ReplicaRecord, effects: &mut Effects) -> Option<BlockSeq> {
        let payload = record.encode();
        let written = self.in_open_block(now, effects, |log, slab| log.append_control(slab, record.group, EntryKind::Replica, &payload));
        self.urgent |= written.is_ok();
        written.ok().map(|appended| appended.block)
    }

    /// Forgets replicas of groups that the metadata have put elsewhere: with them goes what their partitions hold.
    fn forget_replicas(&mut self, now: Now, view: &View, effects: &mut Effects) {
        let me = self.replica();
        // Numbers of groups rise: whoever knows of a later one has known, and forgotten, those that it does not know.
        let last = view.cluster.groups().last().map_or(GroupId(0), |group| group.id);
        let is_gone = |group: &GroupId| {
            match view.cluster.group(*group).filter(|_| *group != GroupId(0)) {
                Some(found) => found.replica(me).is_none() && !self.groups.leads(*group),
                // One that lost its last disk while a move brought it here: the metadata have forgotten it, and nobody is left to bring anything.
                None => *group != GroupId(0) && (self.groups.is_empty(*group) || *group < last && !self.groups.leads(*group)),
            }
        };
        let gone: Vec<_> = self.group_ids.iter().copied().filter(is_gone).collect();
        for group in gone {
            if !self.give_up(now, group, effects) {
                self.replicas_owed = true;
                return effects.wake_at(now.mono_us + 1000);
            }
        }
    }

    /// The replica of `group` here is none any more. False where that has to wait.
    pub(super) fn give_up(&mut self, now: Now, group: GroupId, effects: &mut Effects) -> bool {
        let start = GroupStart { id: group, term: self.groups.term_of(group), ..GroupStart::default() };
        let record = ReplicaRecord { state: ReplicaState::Removed, ..record_of(self.replica(), &start) };
        // What the open block has of it closes first.
        let is_open = self.log.open_groups().iter().any(|row| row.group == group);
        self.urgent |= is_open;
        if is_open {
            return false;
        }
        let Some(block) = self.write_record(now, &record, effects) else { return false };
        self.retention.hold_until(block);
        tracing::info!(shard = self.id.0, group = group.0, "the group's replica here is given up");
        self.forget_replica(group);
        true
    }

    fn forget_replica(&mut self, group: GroupId) {
        self.forget_state(group, LogIndex(0));
        self.sessions.leave(|slot| self.partitions.get(slot).is_some_and(|partition| partition.group == group));
        let slots: Vec<_> = self.partitions.iter().filter(|(_, partition)| partition.group == group).map(|(slot, _)| slot).collect();
        let mut gone = BTreeSet::new();
        for slot in slots {
            let partition = self.partitions.remove(slot).expect("listed above");
            self.retention.on_partition_dropped(&partition);
            self.sessions.wake(slot);
            gone.insert(partition.uid);
        }
        let unclaimed: Vec<_> = self.unclaimed.iter().filter(|(_, partition)| partition.group == group).map(|(uid, _)| *uid).collect();
        for uid in unclaimed {
            let partition = self.unclaimed.remove(&uid).expect("listed above");
            self.retention.on_partition_dropped(&partition);
            gone.insert(uid);
        }
        self.offsets.table.retain(|uid, _| !gone.contains(&uid));
        self.groups.remove(group);
        self.group_ids.retain(|other| *other != group);
        self.acks.remove_group(group);
        self.applying.remove(group);
        self.arrivals.remove(group);
        self.suspects.remove(group);
        self.pipelines.handed_over_us.remove(&group);
        self.pipelines.forced.remove(&group);
    }

    /// Knows exactly those other nodes' shards that this one shares a group with.
    pub(super) fn meet_peers(&mut self, effects: &mut Effects) {
        let me = self.replica();
        // Under the address of a disk that was replaced its successor listens.
        let mut wanted: BTreeSet<ReplicaId> = self.groups.others().filter(|replica| !self.is_gone(*replica)).collect();
        for group in self.view.cluster.groups_on(self.node, self.id) {
            let arriving = group.moving.iter().filter_map(|moving| moving.add.as_ref());
            let there = group.replicas.iter().chain(&group.learners).chain(arriving);
            wanted.extend(
                there.filter(|replica| replica.shard == self.id && !replica.is_stale && replica.id != me).map(|replica| replica.id),
            );
        }
        // Whom a suspect group has may be lost with its log. A shard whose groups all went on alone is not alone: what it does of other nodes' accord goes on.
        if self.suspects.count() > 0 || !self.pipelines.forced.is_empty() {
            wanted.extend(self.pipelines.peers.iter().map(|peer| peer.replica).filter(|replica| !self.is_gone(*replica)));
        }
        // What this node had before its disk was replaced may be a member still, and listens nowhere.
        wanted.retain(|replica| replica.node() != me.node());
        self.keep_snapshots(&wanted, effects);
        for conn in self.pipelines.keep_peers(&wanted) {
            effects.push(Effect::Close { conn, reason: "no group is shared with this node any more" });
        }
        for replica in wanted {
            let address = self.address_of(replica.node());
            match self.pipelines.peers.iter_mut().find(|peer| peer.replica == replica) {
                Some(peer) => peer.address = address.or(peer.address),
                None => self.pipelines.peers.push(Peer::new(&PeerStart { replica, address })),
            }
        }
        effects.wake_at(0);
    }

    /// The same while it runs.
    pub(super) fn meet_others(&mut self, effects: &mut Effects) {
        let was_alone = self.pipelines.is_alone();
        self.meet_peers(effects);
        if was_alone && !self.pipelines.is_alone() {
            // What a lone leader has appended it has taken in, and nobody has kept count of it.
            for group in &self.group_ids {
                self.applying.set(*group, self.groups.last_of(*group).index);
            }
        }
    }

    /// Where the shard of another node accepts that has the number of this one. By what is committed, or else by what the log tells of: an address
    /// decides nothing.
    fn address_of(&self, node: NodeId) -> Option<SocketAddr> {
        let of_view = self.view.cluster.node(node).map(|found| &found.cluster);
        let of_log = self.seat.iter().flat_map(|seat| &seat.addresses).find(|(found, _)| *found == node).map(|(_, endpoint)| endpoint);
        [of_view, of_log].into_iter().flatten().find_map(|endpoint| self.shard_address_in(endpoint))
    }

    fn shard_address_in(&self, endpoint: &Endpoint) -> Option<SocketAddr> {
        let ip: IpAddr = endpoint.host.parse().ok()?;
        let port = endpoint.shard_ports.get(usize::from(self.id.0))?;
        Some(SocketAddr::new(ip, *port))
    }

    /// What became known, or possible, since the last turn: configurations of groups, replicas that found no room.
    pub(super) fn care_for_replicas(&mut self, now: Now, effects: &mut Effects) {
        if self.groups.take_members_changed(now.mono_us) {
            self.meet_others(effects);
            self.note_others();
        }
        self.stand_alone();
        if self.replicas_owed {
            let view = std::sync::Arc::clone(&self.view);
            self.adopt_replicas(now, &view, effects);
            self.adopt_partitions(&view);
            self.adopt_groups(now, &view, effects);
            self.adopt_queues(now, &view, effects);
        }
    }

    /// Whether this shard has a replica of `group`.
    pub(super) fn has_group(&self, group: GroupId) -> bool {
        self.group_ids.binary_search(&group).is_ok()
    }
}
