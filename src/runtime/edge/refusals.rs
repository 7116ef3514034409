//! What somebody is told whose bytes are no frames of this port, in the language in which he seems to speak: clients and nodes mistake each other's ports.
//!
//! Not here: refusals by the core, closing.

use tramline_wire::error::ErrorCode;
use tramline_wire::frame::{self, FrameError, finish_frame, write_error};
use tramline_wire::node::{self, Kind, NodeError, Numbers, Refusal, Refused};

/// For clients at the port of nodes.
pub(super) const CLIENT_AT_NODE_PORT: &str =
    "this port is for the other nodes of the cluster (cluster.listen): connect to the address that --listen names";
/// For nodes at a port of clients.
pub(super) const NODE_AT_CLIENT_PORT: &str =
    "this port is for clients (listen): name the address that --cluster-listen has given the node, by default port 7700";

/// The answer to bytes at a port of clients, and its code.
pub(super) fn at_client_port(out: &mut Vec<u8>, bytes: &[u8], error: &FrameError) -> ErrorCode {
    if bytes.starts_with(&node::MAGIC) {
        refuse_node(out, NODE_AT_CLIENT_PORT);
    } else {
        refuse_client(out, bytes, error.code(), &error.to_string());
    }
    error.code()
}

/// The answer to bytes at a port of nodes, as the first frame that goes out.
pub(super) fn at_node_port(out: &mut Vec<u8>, bytes: &[u8], error: &NodeError) {
    if bytes.starts_with(&frame::MAGIC) {
        refuse_client(out, bytes, ErrorCode::Malformed, CLIENT_AT_NODE_PORT);
    } else {
        refuse_node(out, &error.to_string());
    }
}

fn refuse_client(out: &mut Vec<u8>, bytes: &[u8], code: ErrorCode, message: &str) {
    let (kind, version, correlation) = frame::blame(bytes).map_or((0, 0, 0), |h| (h.kind, h.version, h.correlation));
    write_error(out, kind, version, correlation, code, message, "");
}

fn refuse_node(out: &mut Vec<u8>, message: &str) {
    let start = node::begin(out, Kind::Refused, Numbers::new().advance());
    Refused::new(Refusal::Malformed, message).encode(out);
    let finished = finish_frame(out, start, 0);
    debug_assert!(finished.is_ok(), "a refusal has at most 8 KiB and some");
}
