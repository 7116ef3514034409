//! Groups whose majority is gone for good, and that go on with what is left (docs/REPLICATION.md, 6.5): who may, on whoever leads the metadata, and what a replica
//! does when the metadata tell it.
//!
//! ```text
//!   the metadata: recovered at index i, survivors      a replica of the group, by its own term's era (term >> 20)
//!     of the survivors, its era below i   -> record 4: the survivors vote, term i << 20, what it has stays; whoever of them has most is elected
//!     left out, its era below i           -> given up: it comes back as one that is new
//!     its era is i                        -> it went on, or came later: nothing
//! ```
//! Invariants: who of the survivors leads is decided by an election among all of them, so what any of them had of the highest (term, index) stays; nothing of a
//! later era is taken by a replica that has something of an earlier one.
//!
//! Not here: group 0 itself (decision 0011), which survivors the metadata allow (control/moves.rs).

use super::beginnings::record_of;
use super::disks::KNOWS_US;
use super::shard::Shard;
use crate::api::ApiError;
use crate::control::{ClusterCommand, ClusterError, ControlError, View};
use crate::effects::{Effects, Now};
use crate::ids::{GroupId, ReplicaId, Term};
use crate::log::{ReplicaRecord, ReplicaState};
use crate::replication::{GroupPosition, GroupStart, Members};
use tramline_wire::error::ErrorCode;

impl Shard {
    /// What lets `group` go on with its replicas on nodes that are connected: refused by the metadata where they are a majority.
    pub(super) fn recovering(&self, now: Now, group: GroupId) -> Result<ClusterCommand, ApiError> {
        self.check_leads_metadata()?;
        let Some(found) = self.view.cluster.group(group) else {
            return Err(ApiError::from(&ControlError::Cluster(ClusterError::UnknownGroup(group))));
        };
        let is_left = |replica: &&crate::control::ReplicaView| !replica.is_stale && self.is_connected(replica.node);
        let survivors: Vec<u64> = found.replicas.iter().filter(is_left).map(|replica| replica.id.0).collect();
        let knows = self.groups.led_since_us(GroupId(0)).is_some_and(|since_us| now.mono_us >= since_us.saturating_add(KNOWS_US));
        // More may be connected in a moment. Of a group that has a majority already the metadata say so.
        if !knows && survivors.len() * 2 <= found.replicas.len() {
            return Err(ApiError::new(ErrorCode::NotReady, "which nodes are connected is not known yet: ask again in some seconds"));
        }
        if survivors.is_empty() {
            let what = format!("no replica of group {group} can be reached: start a node that has one, then ask again");
            return Err(ApiError::new(ErrorCode::InvalidRequest, what));
        }
        Ok(ClusterCommand::UncleanRecover { group: group.0, survivors })
    }

    /// Does what the metadata say of groups that went on without a majority. False where something of it has to wait.
    pub(super) fn recover_replicas(&mut self, now: Now, view: &View, effects: &mut Effects) -> bool {
        let me = self.replica();
        for group in view.cluster.groups() {
            let Some(unclean) = group.unclean.as_ref().filter(|_| self.has_group(group.id) && group.id != GroupId(0)) else { continue };
            let term = unclean.first_term();
            if self.groups.term_of(group.id) >= term || self.groups.is_empty(group.id) {
                continue;
            }
            let is_done = match unclean.survivors.contains(&me) {
                true => self.go_on(now, group.id, (&unclean.survivors, term), effects),
                false => {
                    tracing::warn!(
                        shard = self.id.0,
                        group = group.id.0,
                        "the group went on without this replica: what it has is given up"
                    );
                    self.groups.step_down(group.id);
                    self.on_leaderships(now, effects);
                    self.give_up(now, group.id, effects)
                }
            };
            if !is_done {
                return false;
            }
        }
        true
    }

    /// This replica is one of those that go on. False where it has to be tried again: for want of room, or while a snapshot is not durable, which the record's
    /// base would be of.
    fn go_on(&mut self, now: Now, group: GroupId, (survivors, term): (&[ReplicaId], Term), effects: &mut Effects) -> bool {
        if self.groups.is_installing(group) {
            return false;
        }
        self.groups.step_down(group);
        self.on_leaderships(now, effects);
        let mut voters = survivors.to_vec();
        voters.sort_unstable();
        let committed = self.groups.committed_of(group);
        let base = GroupPosition { index: committed, term: self.groups.entry_term(group, committed) };
        let start = GroupStart { id: group, base, term, members: Members::of_voters(voters.clone()), ..GroupStart::default() };
        let record = ReplicaRecord { state: ReplicaState::Forced, ..record_of(self.replica(), &start) };
        if self.write_record(now, &record, effects).is_none() {
            return false;
        }
        let last = self.groups.last_of(group);
        tracing::warn!(
            shard = self.id.0,
            group = group.0,
            term = term.0,
            last = last.index.0,
            committed = committed.0,
            ?voters,
            "the group goes on without a majority: what only the others had is lost"
        );
        self.pipelines.forced.insert(group);
        self.groups.force(group, &voters, term);
        self.suspects.accept(group);
        self.on_leaderships(now, effects);
        effects.wake_at(0);
        true
    }

    /// Who went on as the only one stands as soon as what it has is durable.
    pub(super) fn stand_alone(&mut self) {
        for group in &self.pipelines.forced {
            if let Err(error) = self.groups.stand_if_alone(*group) {
                tracing::debug!("{error}: tried again");
            }
        }
    }
}
