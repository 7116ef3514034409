//! A group of one replica goes from node to node while records come: by way of a snapshot, a vote, a hand-over.
//!
//! Not here: which moves are good (control/tests), what a move is to real clients (tests/cluster_moves.rs).

use super::{Cluster, NODES};
use crate::ids::{GroupId, PartitionUid};
use crate::shard::Shard;
use tramline_wire::cluster::{AlterClusterRequest, ClusterAction};
use tramline_wire::kind::Kind;
use tramline_wire::prim::List;
use tramline_wire::topics::{CreateFlags, CreateTopicRequest};

impl Cluster {
    /// A topic of one partition with one replica, to which all records go from now on; answers its group and its node.
    fn create_single(&mut self) -> (GroupId, usize) {
        let at = self.leader_of(GroupId(0));
        let request =
            CreateTopicRequest { name: "one", partitions: 1, replication: 1, flags: CreateFlags::IF_NOT_EXISTS, settings: List::of(&[]) };
        self.request(at, Kind::CreateTopic, &[], |out| request.encode(out));
        let place =
            |shard: &Shard| shard.view.partitions().find(|(topic, _)| topic.name == "one").map(|(_, place)| (place.uid, place.group));
        self.happen_until("the topic", |cluster| {
            cluster.nodes.iter().all(|node| node.shard.as_ref().is_some_and(|shard| place(shard).is_some()))
        });
        let (uid, group) = place(self.nodes[at].shard.as_ref().expect("up")).expect("just seen");
        self.uids = vec![uid.0];
        let home = (0..NODES).find(|at| self.has(*at, group)).expect("a node has it");
        (group, home)
    }

    fn has(&self, at: usize, group: GroupId) -> bool {
        self.nodes[at].shard.as_ref().is_some_and(|shard| shard.group_ids.contains(&group))
    }

    /// Whether the metadata, where they are led, show that the group is on node `to` alone, and nothing moves.
    fn is_on(&self, group: GroupId, to: usize) -> bool {
        let leader = self.leaders().get(&GroupId(0)).and_then(|nodes| nodes.first().copied());
        let found = leader.and_then(|at| self.nodes[at].shard.as_ref()).and_then(|shard| shard.view.cluster.group(group).cloned());
        found.is_some_and(|group| group.moving.is_none() && group.replicas.iter().map(|r| r.node.0 as usize - 1).eq([to]))
    }

    fn move_it(&mut self, group: GroupId, from: usize, to: usize) {
        let at = self.leader_of(GroupId(0));
        let request = AlterClusterRequest { action: ClusterAction::Move, node: to as u32 + 1, group: group.0, from_node: from as u32 + 1 };
        self.request(at, Kind::AlterCluster, &[], |out| request.encode(out));
    }

    fn check_single(&mut self, at: usize) {
        let uid = self.uids[0];
        let found = self.read(at, uid);
        for ((_, offset), value) in self.acked.range((uid, 0)..=(uid, u64::MAX)) {
            assert_eq!(found.get(offset), Some(value), "offset {offset} on node {}", at + 1);
        }
    }
}

#[test]
fn a_group_goes_from_node_to_node_while_records_come() {
    let mut acked = 0;
    for seed in super::seeds("TRAMLINE_CLUSTER_MOVE_SEEDS", 4) {
        println!("seed {seed}");
        let mut cluster = Cluster::with(seed, 128 << 10);
        cluster.create_topic();
        let (group, mut from) = cluster.create_single();
        for _ in 0..3 {
            for _ in 0..60 {
                cluster.produce();
                (0..20).for_each(|_| cluster.happen());
            }
            let to = (from + 1) % NODES;
            cluster.move_it(group, from, to);
            for round in 0..4_000 {
                cluster.produce();
                (0..30).for_each(|_| cluster.happen());
                if seed % 2 == 1 && round % 40 == 39 {
                    cluster.fault();
                    let until_us = cluster.now.mono_us + cluster.dice.below(3_000_000);
                    while cluster.now.mono_us < until_us {
                        cluster.happen();
                    }
                    cluster.heal();
                    if !cluster.is_on(group, to) && cluster.dice.chance(30) {
                        // It may have been refused, or lost with its leader, and is asked for again.
                        cluster.move_it(group, from, to);
                    }
                }
                if cluster.is_on(group, to) {
                    break;
                }
            }
            cluster.heal();
            assert!(cluster.is_on(group, to), "seed {seed}: the move does not end\n{}", cluster.describe());
            let serves = |cluster: &Cluster| cluster.nodes.iter().all(|node| node.shard.as_ref().is_some_and(Shard::is_serving));
            cluster.happen_until("the new leader, and the old replica's end", |cluster| {
                serves(cluster) && cluster.leaders().get(&group).is_some_and(|nodes| *nodes == [to]) && !cluster.has(from, group)
            });
            cluster.check_single(to);
            let known = |cluster: &Cluster| {
                let shard = cluster.nodes[from].shard.as_ref().expect("up");
                shard.partitions.slot(PartitionUid(cluster.uids[0])).is_some()
            };
            assert!(!known(&cluster), "what its partitions held is gone with the replica");
            // Starts find the same.
            (0..NODES).for_each(|at| cluster.end(at, true));
            cluster.heal();
            cluster.happen_until("the leader again", |cluster| {
                serves(cluster) && cluster.leaders().get(&group).is_some_and(|nodes| *nodes == [to])
            });
            assert!(!cluster.has(from, group) && !known(&cluster));
            cluster.check_single(to);
            from = to;
        }
        acked += cluster.acked.len();
    }
    assert!(acked > 1000, "{acked} records acknowledged");
}
