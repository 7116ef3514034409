//! What one node was told, the others know: answers of the metadata wait for those that are there, and a node finds them from wherever it comes back.
//!
//! Not here: who leads which group, as a list (`leaders.rs` of the shard has its own tests).

use super::{Cluster, NODES, Node};
use crate::ids::GroupId;
use crate::shard::Shard;
use crate::shard::admin::ELSEWHERE_US;
use tramline_wire::frame::{self, Need};
use tramline_wire::kind::Kind;
use tramline_wire::prim::List;
use tramline_wire::topics::{CreateFlags, CreateTopicRequest};

fn correlation(bytes: &[u8]) -> (u64, u8) {
    let Ok(Need::Whole(frame, _)) = frame::peek(bytes, &frame::Limits::PROTOCOL) else { panic!("a whole frame") };
    (frame.header.correlation, frame.header.kind)
}

impl Cluster {
    /// Asks the leader of the metadata for a topic; answers what its reply will be known by.
    fn ask_for_topic(&mut self, at: usize, name: &str) -> u64 {
        let request = CreateTopicRequest { name, partitions: 2, replication: 0, flags: CreateFlags::default(), settings: List::of(&[]) };
        self.request(at, Kind::CreateTopic, &[], |out| request.encode(out))
    }

    /// Goes on until a request is answered, without taking replies away; then who knows the topic.
    fn nodes_that_know(&mut self, at: usize, asked: u64, name: &str) -> Vec<usize> {
        for _ in 0..200_000 {
            let is_answer = |bytes: &Vec<u8>| correlation(bytes) == (asked, Kind::CreateTopic.as_u8());
            if self.nodes[at].replies.iter().any(is_answer) {
                self.nodes[at].replies.clear();
                let knows = |node: &Node| node.shard.as_ref().is_some_and(|shard| shard.view.topic(name).is_some());
                return (0..NODES).filter(|at| knows(&self.nodes[*at])).collect();
            }
            self.happen_but_replies();
        }
        panic!("no answer: {}", self.describe());
    }

    /// The leader of the metadata, once all groups have leaders and it serves.
    fn metadata_leader(&mut self) -> usize {
        self.happen_until("leaders of all groups", Cluster::is_led);
        let at = self.leader_of(GroupId(0));
        self.happen_until("a view", |cluster| cluster.nodes[at].shard.as_ref().is_some_and(Shard::is_serving));
        at
    }
}

#[test]
fn what_a_client_was_told_every_node_knows() {
    for seed in 0..4 {
        let mut cluster = Cluster::new(seed);
        for number in 0..8 {
            let (at, name) = (cluster.metadata_leader(), format!("t{number}"));
            let asked = cluster.ask_for_topic(at, &name);
            assert_eq!(cluster.nodes_that_know(at, asked, &name), [0, 1, 2], "seed {seed}, topic {number}");
        }
    }
}

#[test]
fn a_node_that_says_nothing_is_not_waited_for_for_ever() {
    let mut cluster = Cluster::new(1);
    let at = cluster.metadata_leader();
    let silent = (at + 1) % NODES;
    cluster.nodes[silent].paused_until_us = u64::MAX;
    let (asked, before_us) = (cluster.ask_for_topic(at, "t"), cluster.now.mono_us);
    let knowing = cluster.nodes_that_know(at, asked, "t");
    let took_us = cluster.now.mono_us - before_us;
    assert!(!knowing.contains(&silent) && knowing.len() == NODES - 1, "{knowing:?}");
    assert!(took_us < ELSEWHERE_US + 500_000, "{took_us} us");
    // Its connections are given up by then: nobody waits for it any more.
    cluster.pass(ELSEWHERE_US);
    let (asked, before_us) = (cluster.ask_for_topic(at, "t2"), cluster.now.mono_us);
    assert_eq!(cluster.nodes_that_know(at, asked, "t2").len(), NODES - 1);
    let took_us = cluster.now.mono_us - before_us;
    assert!(took_us < 500_000, "{took_us} us");
}

#[test]
fn a_node_that_comes_back_at_another_address_is_found_again() {
    for seed in 0..4 {
        let mut cluster = Cluster::new(seed);
        cluster.create_topic();
        let at = (cluster.metadata_leader() + 1 + seed as usize % 2) % NODES;
        cluster.end(at, false);
        cluster.nodes[at].moved += 1;
        cluster.start(at);
        let node = crate::ids::NodeId(at as u32 + 1);
        let wanted = cluster.info(at).cluster.expect("it has one");
        let knows = |shard: &Shard| shard.view.cluster.node(node).is_some_and(|found| found.cluster == wanted);
        cluster.happen_until("all know where it is now", |cluster| {
            cluster.shards().count() == NODES && cluster.shards().all(|(_, s)| knows(s))
        });
        cluster.happen_until("it follows again", Cluster::is_quiet);
    }
}
