//! How the three nodes become a cluster: the first begins it, the others ask it as runtime/join.rs does.
//!
//! Not here: what they say (sim/joining.rs), what they do then (`cluster.rs`).

use super::{Cluster, NODES, address};
use crate::api::NodeInfo;
use crate::control::{Endpoint, Joined};
use crate::effects::Event;
use crate::ids::{ConnId, GroupId, NodeId};
use crate::shard::{Shard, Taken};
use crate::sim::joining;
use std::collections::VecDeque;
use std::sync::Arc;
use tramline_wire::node::Numbers;

fn endpoint(at: usize, port: u16) -> Endpoint {
    Endpoint { host: address(at).ip().to_string(), port, shard_ports: vec![port] }
}

pub(super) fn info(at: usize) -> NodeInfo {
    NodeInfo {
        node: NodeId(at as u32 + 1),
        cluster_id: [7; 16],
        client: endpoint(at, 7411),
        disk: at as u64 + 1,
        generation: 0,
        rack: String::new(),
        cluster: Some(endpoint(at, 7700)),
    }
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
        let (mut ours, mut theirs) = (Numbers::new(), Numbers::new());
        for bytes in joining::frames(&info(at).spec(&self.settings)) {
            let taken = joining::as_frame(&bytes, &mut ours, |frame| self.step(0, Event::NodeFrame { conn, frame }));
            assert_eq!(taken, Taken::Yes);
        }
        loop {
            self.happen_until("an answer to a node that joins", |cluster| !cluster.nodes[0].outside[&conn].is_empty());
            let bytes = self.nodes[0].outside.get_mut(&conn).and_then(VecDeque::pop_front).expect("it came");
            if let Some(answer) = joining::as_frame(&bytes, &mut theirs, joining::answer) {
                return answer.expect("it is taken in");
            }
        }
    }
}
