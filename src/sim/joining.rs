//! What a node that joins says to one that is there, as runtime/join.rs does it: frames, and what the answers hold.
//!
//! Not here: how the frames travel (`cluster/forming.rs`, and a test world of its own in shard/tests/cluster).

use crate::control::{ClusterCommand, Command, Joined, NodeSpec};
use tramline_wire::frame::{self, finish_frame};
use tramline_wire::node::{self, CLUSTER_NONE, Call, CallReply, CallWhat, Class, Hello, Kind, NODE_ANY, Numbers};
use tramline_wire::prim::List;

const CALL: u64 = 9;

/// A frame between nodes.
fn frame_of(kind: Kind, number: u64, payload: &[u8], meta: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    let start = node::begin(&mut out, kind, number);
    meta(&mut out);
    finish_frame(&mut out, start, payload.len()).expect("a small frame");
    out.extend_from_slice(payload);
    out
}

/// Its hello and its call, in this order.
pub(crate) fn frames(spec: &NodeSpec) -> [Vec<u8>; 2] {
    let hello = Hello {
        class: Class::Calls,
        cluster_id: CLUSTER_NONE,
        boot: 5,
        from_node: spec.node,
        from_generation: 0,
        to_node: NODE_ANY,
        to_generation: 0,
        from_shard: 0,
        to_shard: 0,
        feature_min: spec.feature_min,
        feature_max: spec.feature_max,
        feature_level: 0,
        view_epoch: 0,
        groups: List::of(&[]),
    };
    let payload = Command::from(ClusterCommand::AddNode(Box::new(spec.clone()))).encode();
    let call = Call::of(CALL, CallWhat::Join, &payload);
    [frame_of(Kind::Hello, 1, &[], |out| hello.encode(out)), frame_of(Kind::Call, 2, &payload, |out| call.encode(out))]
}

/// Hands a frame to `take`, as the edge reads it behind `numbers` frames of its connection.
pub(crate) fn as_frame<T>(bytes: &[u8], numbers: &mut Numbers, take: impl FnOnce(&node::Frame<'_>) -> T) -> T {
    let Ok(node::Need::Whole(frame, _)) = node::peek(bytes, &frame::Limits::PROTOCOL, numbers) else { panic!("a whole frame") };
    numbers.advance();
    take(&frame)
}

/// What an answer says: `None` to the hello; to the call that it is taken in, or why not.
pub(crate) fn answer(frame: &node::Frame<'_>) -> Option<Result<Joined, String>> {
    match frame.kind {
        Kind::HelloReply => None,
        Kind::CallReply => {
            let reply = CallReply::decode(frame.meta).expect("a reply that can be read");
            if reply.call != CALL || reply.error.code != 0 {
                return Some(Err(format!("call {}: {:?}", reply.call, reply.error)));
            }
            reply.check(frame.payload).expect("its bytes are whole");
            Some(Joined::decode(frame.payload).map_err(|error| format!("{error:?}")))
        }
        kind => Some(Err(format!("{kind}"))),
    }
}
