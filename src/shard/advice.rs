//! Refusals that say what holds and what to do, where the code alone would send whoever reads it the wrong way.
//!
//! Not here: when something is refused (`admin.rs`, `recovering.rs`).

use super::shard::Shard;
use crate::api::ApiError;
use crate::control::{ControlError, NodeState};
use crate::ids::{GroupId, NodeId};
use tramline_wire::error::ErrorCode;

/// `node 1`, `nodes 1, 2`.
pub(super) fn named(nodes: &[NodeId]) -> String {
    let texts: Vec<String> = nodes.iter().map(NodeId::to_string).collect();
    format!("node{} {}", if nodes.len() == 1 { "" } else { "s" }, texts.join(", "))
}

impl Shard {
    /// Who does not lead the metadata says who does; where nobody is known to, what is missing.
    pub(super) fn no_metadata_leader(&self) -> ApiError {
        match self.leaders.of(GroupId(0)) {
            Some((node, _)) if node == self.node => {
                ApiError::new(ErrorCode::NotReady, "this node leads the cluster's metadata, and is not sure of its majority now: try again")
            }
            Some((node, _)) if node != NodeId(0) => {
                let message = format!("this node does not lead the cluster's metadata, node {node} does: go to the address in the reply");
                ApiError { code: ErrorCode::NotLeader, message, next: self.leader_address(GroupId(0)) }
            }
            _ => ApiError::new(ErrorCode::NoMetadataLeader, self.why_no_metadata_leader()),
        }
    }

    /// Who of the voters is missing, and what to do about it.
    fn why_no_metadata_leader(&self) -> String {
        // By the group's own configuration: the view may be behind it.
        let Some(members) = self.groups.members_of(GroupId(0)) else { return String::new() };
        let voters: Vec<NodeId> = members.voters.iter().map(|voter| voter.node()).collect();
        let (there, away): (Vec<_>, Vec<_>) = voters.iter().partition(|node| self.is_connected(**node));
        let majority = voters.len() / 2 + 1;
        if there.len() >= majority {
            return "the cluster's metadata have no leader, and one is being elected: try again".to_owned();
        }
        let plural = if away.len() == 1 { ("it", "its disk is") } else { ("them", "their disks are") };
        format!(
            "the cluster's metadata have no leader: {majority} of their voters ({}) have to reach each other, and node {} does not reach {}; start {} or mend the network; if {} gone for good, see tramline recover --help",
            named(&voters),
            self.node,
            named(&away),
            plural.0,
            plural.1
        )
    }

    /// No group of as many replicas can take partitions, nor be made. Where that is because nodes stand aside, time alone changes nothing.
    pub(super) fn no_groups(&self, why: &ControlError) -> ApiError {
        let are = |states: &[NodeState]| {
            let found = self.view.cluster.nodes().iter().filter(|node| states.contains(&node.state));
            found.map(|node| node.node).collect::<Vec<NodeId>>()
        };
        let aside = are(&[NodeState::Draining, NodeState::Drained]);
        if aside.is_empty() || !are(&[NodeState::Registered]).is_empty() {
            return ApiError::from(why);
        }
        let ways: Vec<String> = aside.iter().map(|node| format!("tramctl cluster undrain {node}")).collect();
        let stands = if aside.len() == 1 { "is drained and takes" } else { "are drained and take" };
        let message = format!(
            "{} {stands} no new partitions, and the other nodes are too few; let take part again: {}",
            named(&aside),
            ways.join(", ")
        );
        ApiError::new(ErrorCode::InvalidRequest, message)
    }
}
