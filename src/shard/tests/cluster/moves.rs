//! A group of one replica goes from node to node while records come: by way of a snapshot, a vote, a hand-over.
//!
//! Not here: which moves are good (control/tests), what a move is to real clients (tests/cluster_moves.rs).

use super::{Cluster, NODES};
use crate::ids::{GroupId, PartitionUid};
use crate::partition::Partition;
use crate::shard::Shard;
use tramline_wire::cluster::{AlterClusterRequest, ClusterAction};
use tramline_wire::error::ErrorBody;
use tramline_wire::frame::{self, Need};
use tramline_wire::kind::Kind;
use tramline_wire::prim::List;
use tramline_wire::topics::{CreateFlags, CreateTopicRequest};

impl Cluster {
    /// A topic of one partition with one replica, to which all records go from now on; answers its group and its node.
    pub(super) fn create_single(&mut self) -> (GroupId, usize) {
        let group = self.create_with(1);
        let home = (0..NODES).find(|at| self.has(*at, group)).expect("a node has it");
        (group, home)
    }

    /// The same with so many replicas.
    pub(super) fn create_with(&mut self, replication: u16) -> GroupId {
        let at = self.leader_of(GroupId(0));
        let request =
            CreateTopicRequest { name: "one", partitions: 1, replication, flags: CreateFlags::IF_NOT_EXISTS, settings: List::of(&[]) };
        self.request(at, Kind::CreateTopic, &[], |out| request.encode(out));
        let place =
            |shard: &Shard| shard.view.partitions().find(|(topic, _)| topic.name == "one").map(|(_, place)| (place.uid, place.group));
        self.happen_until("the topic", |cluster| {
            cluster.nodes.iter().all(|node| node.shard.as_ref().is_some_and(|shard| place(shard).is_some()))
        });
        let (uid, group) = place(self.nodes[at].shard.as_ref().expect("up")).expect("just seen");
        self.uids = vec![uid.0];
        group
    }

    /// Asks whoever leads the metadata to change something; a refusal in words.
    pub(super) fn alter(&mut self, action: ClusterAction, group: GroupId) -> Result<(), String> {
        let at = self.leader_of(GroupId(0));
        let request = AlterClusterRequest { action, node: 0, group: group.0, from_node: 0 };
        let asked = self.request(at, Kind::AlterCluster, &[], |out| request.encode(out));
        self.refusal_of(at, asked)
    }

    /// A request that is refused is so at once.
    pub(super) fn refusal_of(&self, at: usize, asked: u64) -> Result<(), String> {
        for bytes in &self.nodes[at].replies {
            let Ok(Need::Whole(frame, _)) = frame::peek(bytes, &frame::Limits::PROTOCOL) else { panic!("a whole frame") };
            if frame.header.correlation == asked && frame.header.flags & frame::FLAG_ERROR != 0 {
                return Err(ErrorBody::decode(frame.meta).expect("an error").message.to_owned());
            }
        }
        Ok(())
    }

    pub(super) fn has(&self, at: usize, group: GroupId) -> bool {
        self.nodes[at].shard.as_ref().is_some_and(|shard| shard.group_ids.contains(&group))
    }

    /// Whether the metadata, where they are led, show that the group is on node `to` alone, and nothing moves.
    fn is_on(&self, group: GroupId, to: usize) -> bool {
        let leader = self.leaders().get(&GroupId(0)).and_then(|nodes| nodes.first().copied());
        let found = leader.and_then(|at| self.nodes[at].shard.as_ref()).and_then(|shard| shard.view.cluster.group(group).cloned());
        found.is_some_and(|group| group.moving.is_none() && group.replicas.iter().map(|r| r.node.0 as usize - 1).eq([to]))
    }

    pub(super) fn move_it(&mut self, group: GroupId, from: usize, to: usize) {
        let at = self.leader_of(GroupId(0));
        let request = AlterClusterRequest { action: ClusterAction::Move, node: to as u32 + 1, group: group.0, from_node: from as u32 + 1 };
        self.request(at, Kind::AlterCluster, &[], |out| request.encode(out));
    }

    pub(super) fn check_single(&mut self, at: usize) {
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
                    cluster.fault_for_a_while();
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

/// A group that goes away from its only node and comes back to it.
#[derive(Clone, Copy)]
struct Return {
    group: GroupId,
    uid: PartitionUid,
    home: usize,
    away: usize,
}

impl Return {
    fn new(seed: u64) -> (Cluster, Return) {
        let mut cluster = Cluster::with(seed, 128 << 10);
        cluster.create_topic();
        let (group, home) = cluster.create_single();
        let uid = PartitionUid(cluster.uids[0]);
        (cluster, Return { group, uid, home, away: (home + 1) % NODES })
    }

    fn shard(self, cluster: &Cluster) -> &Shard {
        cluster.nodes[self.home].shard.as_ref().expect("up")
    }

    fn end_offset(self, cluster: &Cluster) -> u64 {
        self.shard(cluster).found_partition(self.uid).map_or(0, Partition::next_offset)
    }

    fn sealed(self, cluster: &Cluster) -> usize {
        self.shard(cluster).log.segments().filter(|segment| segment.sealed).count()
    }

    fn produce_until(self, cluster: &mut Cluster, is_there: impl Fn(&Cluster) -> bool) {
        while !is_there(cluster) {
            cluster.work(1, 20);
        }
    }

    /// Until the replica of its node is given up.
    fn go(self, cluster: &mut Cluster) {
        cluster.move_it(self.group, self.home, self.away);
        cluster.happen_until("the group goes away", |cluster| cluster.is_on(self.group, self.away) && !cluster.has(self.home, self.group));
    }

    fn begin_anew(self, cluster: &mut Cluster) {
        cluster.move_it(self.group, self.away, self.home);
        cluster.happen_until("the group comes back", |cluster| cluster.has(self.home, self.group));
    }

    /// The node loses its power, and has it again.
    fn crash(self, cluster: &mut Cluster) {
        cluster.end(self.home, true);
        cluster.heal();
    }

    fn check(self, cluster: &mut Cluster) {
        cluster.happen_until("the end of the move", |cluster| {
            let is_led = cluster.leaders().get(&self.group).is_some_and(|nodes| *nodes == [self.home]);
            self.shard(cluster).is_serving() && cluster.is_on(self.group, self.home) && is_led
        });
        cluster.check_single(self.home);
    }
}

/// The checkpoint of the first replica is the last one there when the second begins: nothing of it counts, least of all where batches are whose segments are freed.
#[test]
fn a_replica_that_comes_back_has_nothing_of_the_one_that_was_given_up() {
    let (mut cluster, it) = Return::new(5);
    it.produce_until(&mut cluster, |cluster| it.sealed(cluster) >= 3);
    assert!(it.end_offset(&cluster) > 100);
    cluster.nodes[it.home].are_checkpoints_stuck = true;
    it.go(&mut cluster);
    let (sealed, said_in) = (it.sealed(&cluster), it.shard(&cluster).log.last_closed());
    cluster.happen_until("what it held is freed", |cluster| it.sealed(cluster) < sealed);
    assert!(it.shard(&cluster).log.durable_through() >= said_in, "before it is durable that the replica is none");
    it.crash(&mut cluster);
    assert_eq!(it.end_offset(&cluster), 0, "before a view comes, in which what nobody wants is dropped");
    cluster.happen_until("the start", |cluster| it.shard(cluster).is_serving());
    it.begin_anew(&mut cluster);
    let said_in = it.shard(&cluster).log.open_block_seq();
    cluster.happen_until("that is durable", |cluster| it.shard(cluster).log.durable_through() >= said_in);
    it.crash(&mut cluster);
    assert_eq!(it.end_offset(&cluster), 0);
    cluster.nodes[it.home].are_checkpoints_stuck = false;
    it.check(&mut cluster);
}

/// The partition has the same uid then, and nothing of what the seal has listed.
#[test]
fn a_seal_ends_where_a_replica_was_given_up_and_begun_anew_meanwhile() {
    let (mut cluster, it) = Return::new(6);
    // The first segment with batches of it is sealed, so that all that follow have some as well.
    it.produce_until(&mut cluster, |cluster| {
        it.shard(cluster).found_partition(it.uid).is_some_and(|partition| partition.index.runs().next().is_some())
    });
    cluster.nodes[it.home].are_checkpoints_stuck = true;
    it.produce_until(&mut cluster, |cluster| it.shard(cluster).sealing.is_some());
    it.go(&mut cluster);
    it.begin_anew(&mut cluster);
    let is_sealing = |cluster: &Cluster| it.shard(cluster).sealing.is_some();
    assert!(is_sealing(&cluster) && it.shard(&cluster).partitions.slot(it.uid).is_some(), "of the first, while there is another one");
    cluster.nodes[it.home].are_checkpoints_stuck = false;
    cluster.happen_until("the end of the seal", |cluster| !is_sealing(cluster));
    it.check(&mut cluster);
    it.crash(&mut cluster);
    it.check(&mut cluster);
}

#[test]
fn a_move_to_a_node_that_is_away_is_given_up_when_asked_and_after_ten_minutes() {
    let mut cluster = Cluster::new(21);
    cluster.create_topic();
    let (group, from) = cluster.create_single();
    let refused = cluster.alter(ClusterAction::CancelMove, group).expect_err("nothing moves");
    assert!(refused.contains("is not being moved"), "{refused}");
    let to = (from + 1) % NODES;
    let moving = |cluster: &Cluster| {
        let leader = cluster.leaders().get(&GroupId(0)).and_then(|nodes| nodes.first().copied());
        let shard = leader.and_then(|at| cluster.nodes[at].shard.as_ref());
        shard.is_none_or(|shard| shard.view.cluster.group(group).is_none_or(|group| group.moving.is_some()))
    };
    let learners = |cluster: &Cluster| {
        cluster.nodes[from].shard.as_ref().and_then(|shard| shard.groups.members_of(group)).map_or(0, |members| members.learners.len())
    };
    for by_hand in [true, false] {
        cluster.end(to, true);
        cluster.move_it(group, from, to);
        cluster.happen_until("the node learns the group, as far as the others can bring that about", |cluster| learners(cluster) == 1);
        let until_us = cluster.now.mono_us + 5_000_000;
        while cluster.now.mono_us < until_us {
            cluster.produce();
            cluster.happen();
        }
        assert!(moving(&cluster), "seconds are no reason");
        match by_hand {
            true => cluster.alter(ClusterAction::CancelMove, group).expect("it can be given up"),
            false => {
                // Who leads the metadata may be another one behind such a pause, and counts anew.
                for _ in 0..4 {
                    cluster.now.mono_us += 601_000_000;
                    cluster.now.utc_us += 601_000_000;
                    cluster.leader_of(GroupId(0));
                    (0..20_000).for_each(|_| cluster.happen());
                }
            }
        }
        cluster.happen_until("the end of the move", |cluster| !moving(cluster));
        cluster.happen_until("nobody learns the group", |cluster| learners(cluster) == 0);
        cluster.heal();
        (0..100).for_each(|_| cluster.produce());
        cluster.happen_until("rest", Cluster::is_quiet);
        assert!(cluster.has(from, group) && !cluster.has(to, group));
        cluster.check_single(from);
    }
}
