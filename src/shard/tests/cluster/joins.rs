//! How the three nodes become a cluster: the first begins it, the others ask it as runtime/join.rs does.
//!
//! Not here: what they do then (`cluster.rs`).

use super::{Cluster, NODES, address};
use crate::control::{ClusterCommand, Command, Endpoint, Joined, NodeSpec};
use crate::effects::Event;
use crate::ids::{ConnId, GroupId};
use crate::shard::{Shard, Taken};
use std::collections::VecDeque;
use std::sync::Arc;
use tramline_wire::frame::{self, finish_frame};
use tramline_wire::node::{self, Call, CallReply, CallWhat, Class, Hello, HelloReply, Kind};
use tramline_wire::prim::List;

pub(super) fn endpoint(at: usize, port: u16) -> Endpoint {
    Endpoint { host: address(at).ip().to_string(), port, shard_ports: vec![port] }
}

fn spec(at: usize) -> NodeSpec {
    NodeSpec {
        node: at as u32 + 1,
        disk: at as u64 + 1,
        generation: 0,
        shards: 1,
        groups_per_shard: 2,
        rack: String::new(),
        cluster: endpoint(at, 7700),
        client: endpoint(at, 7411),
        feature_min: 1,
        feature_max: 1,
    }
}

/// A frame between nodes.
fn frame_of(kind: Kind, number: u64, payload: &[u8], meta: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    let start = node::begin(&mut out, kind, number);
    meta(&mut out);
    finish_frame(&mut out, start, payload.len()).expect("a small frame");
    out.extend_from_slice(payload);
    out
}

impl Cluster {
    /// The first node serves, the others join one by one, and the metadata get three voters.
    pub(super) fn form(&mut self) {
        self.start(0);
        let serves = |cluster: &Cluster, at: usize| cluster.nodes[at].shard.as_ref().is_some_and(Shard::is_serving);
        self.happen_until("the first node serves", |cluster| serves(cluster, 0));
        for at in 1..NODES {
            self.nodes[at].joined = Some(Arc::new(self.join(at)));
            self.start(at);
        }
        let votes = |cluster: &Cluster, at: usize| {
            let shard = cluster.nodes[at].shard.as_ref().expect("it runs");
            shard.groups.members_of(GroupId(0)).is_some_and(|members| members.voters.len() == NODES)
        };
        self.happen_until("three voters of the metadata", |cluster| (0..NODES).all(|at| votes(cluster, at)));
    }

    /// Asks the first node, and answers what it is told.
    fn join(&mut self, at: usize) -> Joined {
        let conn = ConnId(1 << 40 | at as u64);
        self.nodes[0].outside.insert(conn, VecDeque::new());
        self.tell(0, Event::NodeOpened { conn });
        let mut numbers = node::Numbers::new();
        let hello = Hello {
            class: Class::Calls,
            cluster_id: [0; 16],
            boot: 5,
            from_node: at as u32 + 1,
            from_generation: 0,
            to_node: 0,
            to_generation: 0,
            from_shard: 0,
            to_shard: 0,
            feature_min: 1,
            feature_max: 1,
            feature_level: 0,
            view_epoch: 0,
            groups: List::of(&[]),
        };
        self.say(conn, &frame_of(Kind::Hello, 1, &[], |out| hello.encode(out)));
        let reply = self.hear(conn, &mut numbers, |frame| {
            assert_eq!(frame.kind, Kind::HelloReply);
            HelloReply::decode(frame.meta).unwrap().feature
        });
        assert_eq!(reply, 1);
        let payload = Command::from(ClusterCommand::AddNode(Box::new(spec(at)))).encode();
        let call = Call::of(9, CallWhat::Join, &payload);
        self.say(conn, &frame_of(Kind::Call, 2, &payload, |out| call.encode(out)));
        self.hear(conn, &mut numbers, |frame| {
            assert_eq!(frame.kind, Kind::CallReply);
            let reply = CallReply::decode(frame.meta).unwrap();
            assert_eq!((reply.call, reply.error.code), (9, 0), "{:?}", reply.error);
            reply.check(frame.payload).unwrap();
            Joined::decode(frame.payload).unwrap()
        })
    }

    fn say(&mut self, conn: ConnId, bytes: &[u8]) {
        // As many frames as were sent on it before.
        let mut numbers = node::Numbers::new();
        if bytes[8..16] == 2u64.to_le_bytes() {
            numbers.advance();
        }
        let Ok(node::Need::Whole(frame, _)) = node::peek(bytes, &frame::Limits::PROTOCOL, &numbers) else { panic!("a whole frame") };
        assert_eq!(self.step(0, Event::NodeFrame { conn, frame: &frame }), Taken::Yes);
    }

    fn hear<T>(&mut self, conn: ConnId, numbers: &mut node::Numbers, read: impl FnOnce(&node::Frame<'_>) -> T) -> T {
        self.happen_until("an answer to a node that joins", |cluster| !cluster.nodes[0].outside[&conn].is_empty());
        let bytes = self.nodes[0].outside.get_mut(&conn).and_then(VecDeque::pop_front).expect("it came");
        let Ok(node::Need::Whole(frame, _)) = node::peek(&bytes, &frame::Limits::PROTOCOL, numbers) else { panic!("a whole frame") };
        numbers.advance();
        read(&frame)
    }
}
