//! Hello: versions, limits and addresses.

use super::{ApiError, NodeInfo};
use crate::config::Settings;
use crate::constants::{FEATURE_LEVEL, FETCH_FRAME_BYTES};
use crate::ids::ShardId;
use tramline_wire::error::ErrorCode;
use tramline_wire::hello::{ApiVersions, HelloReply, HelloRequest, Node, negotiate};
use tramline_wire::kind::Kind;
use tramline_wire::prim::List;
use tramline_wire::{PROTOCOL_MAX, PROTOCOL_MIN};

/// Checks a hello; answers the protocol version both speak.
pub fn check(meta: &[u8], payload: &[u8]) -> Result<u16, ApiError> {
    let request = HelloRequest::decode(meta)?;
    if !payload.is_empty() {
        return Err(ApiError::new(ErrorCode::InvalidRequest, format!("a hello has no payload, this one has {} bytes", payload.len())));
    }
    let theirs = (request.protocol_min, request.protocol_max);
    let Some(protocol) = negotiate((PROTOCOL_MIN, PROTOCOL_MAX), theirs) else {
        let message = format!(
            "the client speaks protocol versions {} to {}, this node {PROTOCOL_MIN} to {PROTOCOL_MAX}: use a client of the node's age",
            theirs.0, theirs.1
        );
        return Err(ApiError::new(ErrorCode::UnsupportedVersion, message));
    };
    if !request.mechanism.is_empty() {
        let message = format!("this node offers no authentication mechanism, so not {:?} either: say hello without one", request.mechanism);
        return Err(ApiError::new(ErrorCode::Unauthenticated, message));
    }
    Ok(protocol)
}

/// Appends the reply. `nodes`: those of the cluster.
pub fn reply(out: &mut Vec<u8>, protocol: u16, info: &NodeInfo, nodes: &[Node<'_>], shard: ShardId, settings: &Settings) {
    let apis: Vec<_> = Kind::ALL
        .iter()
        .map(|kind| {
            let (min, max) = kind.versions();
            ApiVersions { kind: kind.as_u8(), min, max }
        })
        .collect();
    let reply = HelloReply {
        protocol,
        feature_level: FEATURE_LEVEL,
        cluster_id: info.cluster_id,
        node: info.node.0,
        shard: shard.0,
        frame_max: settings.frame_max_bytes,
        fetch_frame: FETCH_FRAME_BYTES,
        keepalive_ms: (settings.keepalive_interval_us / 1000) as u32,
        idle_timeout_ms: (settings.connection_idle_timeout_us / 1000) as u32,
        apis: List::of(&apis),
        mechanisms: List::default(),
        challenge: &[],
        nodes: List::of(nodes),
    };
    reply.encode(out);
}

/// This node as it is told to clients.
pub fn node(info: &NodeInfo) -> Node<'_> {
    Node { node: info.node.0, host: &info.client.host, port: info.client.port, shard_ports: List::of(&info.client.shard_ports) }
}
