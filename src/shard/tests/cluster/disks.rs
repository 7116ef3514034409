//! Disks that are lost: the node comes back under its number with an empty one, under load and faults; and what the disk before is told when it comes back.
//!
//! Not here: which commands that takes (control/tests), real processes (tests/cluster_disks.rs).

use super::{Cluster, NODES, config};
use crate::control::ReplicaGroupView;
use crate::effects::Effects;
use crate::ids::{GroupId, NodeId, ReplicaId, ShardId};
use crate::log::recover;
use crate::shard::{Shard, ShardStart};
use crate::sim::SimDisk;
use std::sync::Arc;
use tramline_wire::cluster::ClusterAction;

/// What is left of a node when its machine is taken away.
struct OldDisk {
    disk: SimDisk,
    number: u64,
    joined: Option<Arc<crate::control::Joined>>,
}

impl Cluster {
    /// A node ends, and its disk is taken away.
    fn lose_disk(&mut self, at: usize, power: bool) -> OldDisk {
        if self.nodes[at].shard.is_some() {
            self.end(at, power);
        }
        let node = &mut self.nodes[at];
        let old = OldDisk { disk: std::mem::replace(&mut node.disk, SimDisk::new()), number: node.disk_number, joined: node.joined.take() };
        node.disk_number += 0x100;
        node.is_lost = true;
        old
    }

    /// One try to be taken in again, by whoever leads the metadata, and what that said if it did not.
    fn try_rejoin(&mut self, at: usize) -> Result<(), String> {
        let Some([leader]) = self.leaders().get(&GroupId(0)).map(Vec::as_slice).and_then(|nodes| <[usize; 1]>::try_from(nodes).ok()) else {
            return Err("nobody leads".to_owned());
        };
        let joined = self.join(at, leader)?;
        self.nodes[at].joined = Some(Arc::new(joined));
        self.nodes[at].is_lost = false;
        self.start(at);
        Ok(())
    }

    fn replica_of(&self, at: usize) -> ReplicaId {
        let generation = self.nodes[at].joined.as_ref().map_or(0, |joined| joined.generation);
        ReplicaId::of(generation, NodeId(at as u32 + 1))
    }

    /// Whether a node takes what its own disk before had for somebody to talk to.
    fn knows_itself(&self, at: usize) -> bool {
        let own = NodeId(at as u32 + 1);
        self.nodes[at].shard.as_ref().is_some_and(|shard| shard.pipelines.peers.iter().any(|peer| peer.replica.node() == own))
    }

    /// Whether every replicated group has the present disks as its voters and no other, as each of its replicas knows it.
    fn is_whole(&self) -> bool {
        let mut wanted: Vec<_> = (0..NODES).map(|at| self.replica_of(at)).collect();
        wanted.sort_unstable();
        let groups: Vec<_> =
            self.leaders().into_keys().filter(|group| self.shards().all(|(_, shard)| shard.group_ids.contains(group))).collect();
        let knows = |shard: &Shard, group: GroupId| {
            let mut voters = shard.groups.members_of(group).map(|members| members.voters.clone()).unwrap_or_default();
            voters.sort_unstable();
            voters == wanted
        };
        groups.len() == super::REPLICATED && groups.iter().all(|group| self.shards().all(|(_, shard)| knows(shard, *group)))
    }

    fn load(&mut self, rounds: usize, happenings: usize) {
        for _ in 0..rounds {
            self.produce();
            (0..happenings).for_each(|_| self.happen());
        }
    }
}

/// Disks are lost one after the other; answers how many records were acknowledged, and how many snapshots brought replicas back.
fn survives_losses(seed: u64, segment_bytes: u64) -> (usize, u64) {
    let mut cluster = Cluster::with(seed, segment_bytes);
    cluster.create_topic();
    for _ in 0..3 {
        cluster.load(60, 20);
        let at = cluster.dice.below(NODES as u64) as usize;
        let power = cluster.dice.chance(50);
        cluster.lose_disk(at, power);
        let mut tries = 0;
        while let Err(why) = cluster.try_rejoin(at) {
            tries += 1;
            assert!(tries < 400, "seed {seed}: node {} is not taken in: {why}\n{}", at + 1, cluster.describe());
            cluster.load(5, 40);
        }
        assert!(!cluster.knows_itself(at), "seed {seed}: node {} would dial its own address", at + 1);
        for round in 0..4_000 {
            cluster.produce();
            (0..30).for_each(|_| cluster.happen());
            if seed % 2 == 1 && round % 40 == 39 {
                cluster.fault_for_a_while();
            }
            if cluster.is_whole() {
                break;
            }
        }
        cluster.heal();
        cluster.happen_until("three voters of each group again", Cluster::is_whole);
    }
    cluster.happen_until("rest", Cluster::is_quiet);
    crate::sim::replicas::check_metadata(&cluster.shards().collect::<Vec<_>>()).expect("the metadata are the same on all nodes");
    cluster.check();
    // Now that all have come back, any one of them can go for good.
    let gone = 1 + cluster.dice.below(NODES as u64 - 1) as usize;
    cluster.end(gone, true);
    cluster.happen_until("leaders without one node", |cluster| {
        let leaders = cluster.replicated();
        leaders.len() == super::REPLICATED && leaders.values().all(|nodes| nodes.len() == 1 && nodes[0] != gone)
    });
    cluster.check();
    let snapshots: u64 = cluster.shards().map(|(_, shard)| shard.metrics.counters.snapshots_taken).sum();
    (cluster.acked.len(), snapshots + cluster.snapshots)
}

#[test]
fn a_node_comes_back_with_an_empty_disk_while_records_come() {
    let (mut acked, mut snapshots) = (0, 0);
    for seed in super::seeds("TRAMLINE_CLUSTER_DISK_SEEDS", 6) {
        let (of_seed, of_seed_snapshots) = survives_losses(seed, if seed % 4 < 2 { 4 << 20 } else { 128 << 10 });
        println!("seed {seed}: {of_seed} records, {of_seed_snapshots} snapshots");
        acked += of_seed;
        snapshots += of_seed_snapshots;
    }
    assert!(acked > 1000 && snapshots > 6, "{acked} records acknowledged, {snapshots} snapshots");
}

#[test]
fn a_number_that_another_disk_is_connected_under_is_taken() {
    let mut cluster = Cluster::new(11);
    cluster.create_topic();
    for at in 0..NODES {
        // Another machine asks under the number of a node that runs, be it the leader's own.
        let before = std::mem::replace(&mut cluster.nodes[at].disk_number, 0x900 + at as u64);
        let joined = cluster.nodes[at].joined.take();
        let leader = cluster.leader_of(GroupId(0));
        cluster.pass(4_000_000);
        let refused = cluster.join(at, leader).expect_err("the number is taken");
        assert!(refused.contains("InvalidRequest") || refused.contains("so this --node-id is taken"), "{refused}");
        (cluster.nodes[at].disk_number, cluster.nodes[at].joined) = (before, joined);
    }
    cluster.load(60, 20);
    cluster.happen_until("rest", Cluster::is_quiet);
    assert!(cluster.is_whole());
    cluster.check();
}

#[test]
fn a_disk_that_was_replaced_is_nobody_when_it_comes_back() {
    let mut cluster = Cluster::new(12);
    cluster.create_topic();
    cluster.load(60, 20);
    let at = 1;
    let old = cluster.lose_disk(at, false);
    while cluster.try_rejoin(at).is_err() {
        cluster.load(2, 40);
    }
    cluster.happen_until("three voters of each group again", Cluster::is_whole);
    // The new one is stopped, and somebody starts the old one instead: what it says is not heard, and it does not serve.
    cluster.end(at, false);
    let node = &mut cluster.nodes[at];
    let new = OldDisk {
        disk: std::mem::replace(&mut node.disk, old.disk),
        number: std::mem::replace(&mut node.disk_number, old.number),
        joined: std::mem::replace(&mut node.joined, old.joined),
    };
    cluster.may_fail = vec![at];
    cluster.start(at);
    let reason = |cluster: &Cluster| cluster.nodes[at].shard.as_ref().and_then(|shard| shard.failure().map(str::to_owned));
    cluster.happen_until("the end of the old disk's start", |cluster| reason(cluster).is_some());
    assert!(reason(&cluster).expect("just seen").contains("let it join again on an empty --data-dir"));
    assert!(!cluster.nodes[at].shard.as_ref().expect("up").is_serving());
    let others_with_it = cluster.shards().filter(|(other, _)| *other != at);
    assert!(others_with_it.flat_map(|(_, shard)| &shard.pipelines.peers).all(|peer| peer.replica != ReplicaId::of(0, NodeId(2))));
    cluster.end(at, false);
    let node = &mut cluster.nodes[at];
    (node.disk, node.disk_number, node.joined) = (new.disk, new.number, new.joined);
    cluster.may_fail = Vec::new();
    cluster.start(at);
    cluster.load(30, 20);
    cluster.happen_until("rest", Cluster::is_quiet);
    assert!(cluster.is_whole());
    cluster.check();
}

#[test]
fn one_node_of_three_goes_on_with_the_metadata_and_gets_the_others_back() {
    let mut cluster = Cluster::new(31);
    cluster.create_topic();
    cluster.load(100, 20);
    // All have everything then: what is lost otherwise is accepted, and could not be told from a defect here.
    cluster.happen_until("rest", Cluster::is_quiet);
    let replicated: Vec<GroupId> = cluster.replicated().into_keys().filter(|group| *group != GroupId(0)).collect();
    assert_eq!(replicated.len() + 1, super::REPLICATED);
    (1..NODES).for_each(|at| drop(cluster.lose_disk(at, true)));
    cluster.end(0, true);
    // Twice: a start that ends before it serves is no start.
    cluster.nodes[0].is_metadata_forced = true;
    cluster.start(0);
    (0..20).for_each(|_| cluster.happen());
    cluster.end(0, true);
    cluster.nodes[0].is_metadata_forced = true;
    cluster.start(0);
    let is_serving = |cluster: &Cluster| cluster.nodes[0].shard.as_ref().is_some_and(Shard::is_serving);
    cluster.happen_until("the metadata go on", |cluster| is_serving(cluster) && cluster.leaders().contains_key(&GroupId(0)));
    // And no more than once more by itself.
    cluster.end(0, true);
    cluster.start(0);
    cluster.happen_until("the metadata go on", |cluster| is_serving(cluster) && cluster.leaders().contains_key(&GroupId(0)));
    for group in replicated {
        let mut tries = 0;
        while let Err(why) = cluster.alter(ClusterAction::UncleanRecover, group) {
            tries += 1;
            assert!(tries < 200, "group {group}: {why}");
            (0..1000).for_each(|_| cluster.happen());
        }
    }
    cluster
        .happen_until("all groups go on", |cluster| cluster.leaders().values().filter(|nodes| **nodes == [0]).count() >= super::REPLICATED);
    cluster.load(60, 20);
    for at in 1..NODES {
        let mut tries = 0;
        while let Err(why) = cluster.try_rejoin(at) {
            tries += 1;
            assert!(tries < 400, "node {} is not taken in: {why}\n{}", at + 1, cluster.describe());
            cluster.load(5, 40);
        }
    }
    cluster.happen_until("three voters of each group again", Cluster::is_whole);
    cluster.load(60, 20);
    cluster.happen_until("rest", Cluster::is_quiet);
    cluster.check();
    // Any one of them can go.
    cluster.end(0, true);
    cluster.happen_until("leaders without the first node", |cluster| {
        let leaders = cluster.replicated();
        leaders.len() == super::REPLICATED && leaders.values().all(|nodes| nodes.len() == 1 && nodes[0] != 0)
    });
    cluster.start(0);
    cluster.happen_until("rest", Cluster::is_quiet);
    cluster.check();
}

#[test]
fn who_only_learns_the_metadata_does_not_go_on_with_them() {
    let mut cluster = Cluster::new(32);
    cluster.create_topic();
    drop(cluster.lose_disk(1, true));
    while cluster.try_rejoin(1).is_err() {
        cluster.load(5, 40);
    }
    // It has joined again, and has no vote yet.
    cluster.end(1, false);
    let (settings, info, shape) = (Arc::clone(&cluster.settings), Arc::new(cluster.info(1)), cluster.shape);
    let node = &mut cluster.nodes[1];
    let recovered = recover(&mut node.disk, &config(1, node.disk_number, shape)).expect("a start");
    let start = ShardStart { id: ShardId(0), settings, info, recovered, joined: node.joined.clone(), is_metadata_forced: true };
    let refused = Shard::start(start, &mut Effects::new()).map(drop).expect_err("it does not vote").to_string();
    assert!(refused.contains("does not vote about the cluster's metadata") && refused.contains("one of nodes 1, 3, which do"), "{refused}");
    // And nothing of it stays.
    cluster.end(1, false);
    cluster.start(1);
    cluster.happen_until("three voters of each group again", Cluster::is_whole);
    cluster.happen_until("rest", Cluster::is_quiet);
    cluster.check();
}

#[test]
fn who_should_have_been_cleared_is_told_so_when_the_metadata_went_on_without_it() {
    let mut cluster = Cluster::new(33);
    cluster.create_topic();
    cluster.happen_until("rest", Cluster::is_quiet);
    (0..NODES).for_each(|at| cluster.end(at, true));
    cluster.nodes[0].is_metadata_forced = true;
    cluster.start(0);
    cluster.happen_until("the metadata go on", |cluster| cluster.leaders().contains_key(&GroupId(0)));
    // They are a majority of those who voted before, and would lead the metadata as they were.
    cluster.may_fail = vec![1, 2];
    (1..NODES).for_each(|at| cluster.start(at));
    let reason = |cluster: &Cluster| (1..NODES).find_map(|at| cluster.nodes[at].shard.as_ref()?.failure().map(str::to_owned));
    cluster.happen_until("the end of one of them", |cluster| reason(cluster).is_some());
    assert!(reason(&cluster).expect("just seen").contains("let it join again on an empty --data-dir"));
    // And the other one is no majority.
    cluster.pass(10_000_000);
    assert!((1..NODES).all(|at| !cluster.nodes[at].shard.as_ref().expect("it runs").is_serving()));
    assert_eq!(cluster.leaders()[&GroupId(0)], [0]);
}

/// What has no partition is forgotten when its only disk is lost, also where a move had begun to take it elsewhere: nobody keeps what it was to be.
#[test]
fn a_group_that_was_lost_while_it_moved_leaves_nothing_behind() {
    for seed in 0..3 {
        let mut cluster = Cluster::new(seed);
        cluster.create_topic();
        let leader = cluster.leader_of(GroupId(0));
        let (from, to) = ((leader + 1) % NODES, (leader + 2) % NODES);
        let shard = cluster.nodes[leader].shard.as_ref().expect("it leads");
        let is_alone_on = |found: &&ReplicaGroupView| found.replicas.len() == 1 && found.replicas[0].node.0 as usize == from + 1;
        let is_empty = |found: &&ReplicaGroupView| shard.view.partitions().all(|(_, place)| place.group != found.id);
        let group = shard.view.cluster.groups().iter().filter(is_alone_on).find(is_empty).expect("homes have groups of one replica").id;
        cluster.move_it(group, from, to);
        let has_some = |cluster: &Cluster, at: usize| {
            cluster.has(at, group) && cluster.nodes[at].shard.as_ref().is_some_and(|shard| !shard.groups.is_empty(group))
        };
        cluster.happen_until("a learner that has something", |cluster| has_some(cluster, to));
        cluster.lose_disk(from, true);
        for tries in 0.. {
            let Err(why) = cluster.try_rejoin(from) else { break };
            assert!(tries < 400, "seed {seed}: node {} is not taken in: {why}", from + 1);
            cluster.load(5, 40);
        }
        cluster.happen_until("nothing of it", |cluster| (0..NODES).all(|at| !cluster.has(at, group)));
        cluster.happen_until("rest", Cluster::is_quiet);
        cluster.end(to, false);
        cluster.start(to);
        cluster.happen_until("rest", Cluster::is_quiet);
        assert!((0..NODES).all(|at| !cluster.has(at, group)), "seed {seed}: it does not come back");
    }
}
