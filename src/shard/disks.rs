//! Disks that were replaced: a node that comes back under its number with an empty directory, and the disk that was there before (docs/REPLICATION.md, 6.5).
//!
//! Invariants: a disk is replaced only where the one before is not connected to whoever leads the metadata, and that has led for long enough to know; nothing that
//! the disk before says on a connection is looked at once the metadata have another one.
//!
//! Not here: what becomes of its replicas (control/placement.rs, `moving.rs`), the start of the new one (runtime/join.rs).

use super::shard::{Phase, Shard, Taken};
use crate::api::ApiError;
use crate::constants::ERA_BITS;
use crate::control::{ClusterError, Command, ControlError, NodeSpec, NodeState};
use crate::effects::{Effects, Now};
use crate::ids::{GroupId, NodeId, ReplicaId, ShardId};
use crate::mutants::Mutant;
use tramline_wire::error::ErrorCode;
use tramline_wire::node::{Refusal, Refused};

/// Who leads so long has been connected by whoever is there: redialing takes a second at most, and an answer as long.
pub(super) const KNOWS_US: u64 = 3_000_000;

impl Shard {
    /// Whether the metadata have removed the node of `replica`, or know it with another disk by now.
    pub(super) fn is_gone(&self, replica: ReplicaId) -> bool {
        let node = self.view.cluster.node(replica.node());
        node.is_some_and(|node| node.state == NodeState::Removed || node.generation > replica.generation())
    }

    /// Proposes that a node which joins takes the place of what has its number, if another disk has that; then that one's generation is in `spec`.
    pub(super) fn replace_disk(&mut self, now: Now, spec: &mut NodeSpec) -> Result<Taken, ApiError> {
        let node = NodeId(spec.node);
        let seat = self.seat.as_ref().expect("shard 0 has it");
        let before = seat.state.generation_of(node);
        spec.generation = before;
        if self.log.mutants().has(Mutant::WipedVotes) {
            spec.disk = self.view.cluster.node(node).map_or(spec.disk, |found| found.disk);
            return Ok(Taken::Yes);
        }
        let Some(command) = seat.state.replacement(spec).map_err(|error| ApiError::from(&error))? else { return Ok(Taken::Yes) };
        if self.groups.led_since_us(GroupId(0)).is_none_or(|since_us| now.mono_us < since_us.saturating_add(KNOWS_US)) {
            let what =
                format!("node {node} is known with another disk, and whether that is connected is not known yet: asked again shortly");
            return Err(ApiError::new(ErrorCode::NotReady, what));
        }
        let old = ReplicaId::of(before, node);
        if old == self.replica() || self.pipelines.is_live(old) {
            return Err(ApiError::from(&ControlError::Cluster(ClusterError::OtherDisk(node))));
        }
        spec.generation = before + 1;
        let command = Command::from(command);
        if seat.is_waiting_for(&command) {
            return Ok(Taken::Yes);
        }
        tracing::warn!(
            node = node.0,
            generation = before + 1,
            "the node comes back with another disk: what the one before had is given to it anew"
        );
        self.propose(command, None, false)
    }

    /// Whether who leads `group`, or stands for it, in this term does that of the metadata as they were before they went on without it (decision 0011): one of
    /// those whose directories were to be cleared was started with what it had.
    pub(super) fn is_before_recovery(&self, group: u32, term: u64) -> bool {
        let era = |term: u64| term >> ERA_BITS;
        group == 0 && self.id == ShardId(0) && era(term) < era(self.groups.term_of(GroupId(0)).0)
    }

    /// Another node does not take this one's connection. Where that is for good, a start ends: nobody else would take it either.
    pub(super) fn on_refused(&mut self, refused: &Refused<'_>, effects: &mut Effects) {
        if refused.refusal() == Some(Refusal::Removed) && self.phase == Phase::Starting {
            self.fail(refused.message, effects);
        }
    }
}
