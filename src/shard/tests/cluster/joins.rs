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

impl Cluster {
    fn endpoint(&self, at: usize, port: u16) -> Endpoint {
        Endpoint { host: address(at, self.nodes[at].moved).ip().to_string(), port, shard_ports: vec![port] }
    }

    pub(super) fn info(&self, at: usize) -> NodeInfo {
        NodeInfo {
            node: NodeId(at as u32 + 1),
            cluster_id: [7; 16],
            client: self.endpoint(at, 7411),
            disk: self.nodes[at].disk_number,
            generation: self.nodes[at].joined.as_ref().map_or(0, |joined| joined.generation),
            rack: String::new(),
            cluster: Some(self.endpoint(at, 7700)),
        }
    }

    /// The first node serves, the others join one by one, and the metadata get three voters.
    pub(super) fn form(&mut self) {
        self.start(0);
        let serves = |cluster: &Cluster, at: usize| cluster.nodes[at].shard.as_ref().is_some_and(Shard::is_serving);
        self.happen_until("the first node serves", |cluster| serves(cluster, 0));
        for at in 1..NODES {
            let joined = self.join(at, 0).expect("it is taken in");
            self.nodes[at].joined = Some(Arc::new(joined));
            self.start(at);
        }
        let votes = |cluster: &Cluster, at: usize| {
            let shard = cluster.nodes[at].shard.as_ref().expect("it runs");
            shard.groups.members_of(GroupId(0)).is_some_and(|members| members.voters.len() == NODES)
        };
        self.happen_until("three voters of the metadata", |cluster| (0..NODES).all(|at| votes(cluster, at)));
    }

    /// Asks a node, and answers what it says; that it says nothing any more is an answer, too.
    pub(super) fn join(&mut self, at: usize, asked: usize) -> Result<Joined, String> {
        let conn = ConnId(1 << 40 | self.next_correlation << 8 | at as u64);
        self.next_correlation += 1;
        let life = self.nodes[asked].life;
        self.nodes[asked].outside.insert(conn, VecDeque::new());
        self.tell(asked, Event::NodeOpened { conn });
        let answer = self.ask(at, asked, conn, life);
        if self.nodes[asked].life == life {
            self.tell(asked, Event::Closed { conn });
        }
        answer
    }

    fn ask(&mut self, at: usize, asked: usize, conn: ConnId, life: u64) -> Result<Joined, String> {
        let (mut ours, mut theirs) = (Numbers::new(), Numbers::new());
        for bytes in joining::frames(&self.info(at).spec(&self.settings)) {
            let taken = joining::as_frame(&bytes, &mut ours, |frame| self.step(asked, Event::NodeFrame { conn, frame }));
            if taken == Taken::Blocked {
                return Err("no room".to_owned());
            }
        }
        for _ in 0..20_000 {
            self.happen();
            if self.nodes[asked].life != life || self.nodes[asked].shard.is_none() {
                return Err("the node that was asked has ended".to_owned());
            }
            while let Some(bytes) = self.nodes[asked].outside.get_mut(&conn).and_then(VecDeque::pop_front) {
                if let Some(answer) = joining::as_frame(&bytes, &mut theirs, joining::answer) {
                    return answer;
                }
            }
        }
        Err("no answer".to_owned())
    }
}
