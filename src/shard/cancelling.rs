//! Moves that are given up: because somebody asks for it, or because the node that they bring a replica to has been away for too long (docs/REPLICATION.md, 10).
//!
//! Not here: up to which step that can be (control/moves.rs), what is left of it in the group (`strays.rs`).

use super::shard::Shard;
use crate::api::ApiError;
use crate::control::{ClusterCommand, ClusterError, ControlError};
use crate::effects::Now;
use crate::ids::{GroupId, MoveId, NodeId};
use std::collections::BTreeMap;
use tramline_wire::error::ErrorCode;

/// A reboot is no reason to copy terabytes, and who is away for longer does not come back by itself.
const AWAY_US: u64 = 600_000_000;

/// Since when the node that a move brings a replica to is away.
pub(super) type Away = BTreeMap<MoveId, u64>;

impl Shard {
    /// Whether this node has a connection to `node`, or is it.
    pub(super) fn is_connected(&self, node: NodeId) -> bool {
        node == self.node || self.pipelines.peers.iter().any(|peer| peer.replica.node() == node && peer.live().is_some())
    }

    /// What gives a group's move up.
    pub(super) fn cancelling(&self, group: GroupId) -> Result<ClusterCommand, ApiError> {
        self.check_leads_metadata()?;
        let Some(found) = self.view.cluster.group(group) else {
            return Err(ApiError::from(&ControlError::Cluster(ClusterError::UnknownGroup(group))));
        };
        match &found.moving {
            Some(moving) => Ok(ClusterCommand::CancelMove { id: moving.id.0 }),
            None => Err(ApiError::new(
                ErrorCode::InvalidRequest,
                format!("replica group {group} is not being moved: there is nothing to cancel"),
            )),
        }
    }

    /// Gives up a move whose new node is away for too long, and that can be given up. Asked by whoever leads the metadata, whose time it is.
    pub(super) fn hopeless_move(&mut self, now: Now) -> Option<ClusterCommand> {
        let moves = self.view.cluster.groups().iter().filter_map(|group| group.moving.as_ref());
        let comes = moves.filter_map(|moving| Some((moving.id, moving.add?.node)));
        let away: Vec<MoveId> = comes.filter(|(_, node)| !self.is_connected(*node)).map(|(id, _)| id).collect();
        let seat = self.seat.as_mut().expect("who plans has it");
        seat.away.retain(|id, _| away.contains(id));
        for id in &away {
            seat.away.entry(*id).or_insert(now.mono_us);
        }
        let cancel = |id: &MoveId| ClusterCommand::CancelMove { id: id.0 };
        let mut over = seat.away.iter().filter(|(_, since_us)| now.mono_us >= since_us.saturating_add(AWAY_US)).map(|(id, _)| cancel(id));
        let found = over.find(|command| seat.state.check(&command.clone().into()).is_ok());
        if let Some(command) = &found {
            tracing::warn!(?command, "the node that a move brings a replica to is away for ten minutes: the move is given up");
        }
        found
    }
}
