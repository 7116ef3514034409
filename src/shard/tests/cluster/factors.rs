//! A topic gets more replicas, and fewer, while records come: its group is on all nodes, survives the end of the one that led it, and is on one again.
//!
//! Not here: which replicas come and go (control/tests), what it is to real clients (tests/cluster_factor.rs).

use super::{Cluster, NODES};
use crate::ids::GroupId;
use crate::shard::Shard;
use tramline_wire::kind::Kind;
use tramline_wire::prim::List;
use tramline_wire::topics::{AlterTopicRequest, Setting};

impl Cluster {
    /// Asks whoever leads the metadata to change a topic; a refusal in words.
    fn alter_topic(&mut self, name: &str, replication: u16, settings: &[Setting<'_>]) -> Result<(), String> {
        let at = self.leader_of(GroupId(0));
        let request = AlterTopicRequest { name, partitions: 0, replication, settings: List::of(settings) };
        let asked = self.request(at, Kind::AlterTopic, &[], |out| request.encode(out));
        self.refusal_of(at, asked)
    }

    /// Nodes with a vote in a group, by the metadata where they are led, and whether it is moved.
    fn voters(&self, group: GroupId) -> (Vec<usize>, bool) {
        let leader = self.leaders().get(&GroupId(0)).and_then(|nodes| nodes.first().copied());
        let found = leader.and_then(|at| self.nodes[at].shard.as_ref()).and_then(|shard| shard.view.cluster.group(group));
        found.map_or((Vec::new(), true), |found| {
            (found.replicas.iter().map(|replica| replica.node.0 as usize - 1).collect(), found.moving.is_some())
        })
    }

    /// Records come until the group has so many voters, and nobody else has anything of it.
    fn until_voters(&mut self, group: GroupId, count: usize) {
        for _ in 0..4_000 {
            self.produce();
            (0..30).for_each(|_| self.happen());
            let (voters, is_moved) = self.voters(group);
            if !is_moved && voters.len() == count && (0..NODES).all(|at| self.has(at, group) == voters.contains(&at)) {
                return self.happen_until("rest", Cluster::is_quiet);
            }
        }
        panic!("the group does not get {count} voters: {:?}\n{}", self.voters(group), self.describe());
    }
}

#[test]
fn a_topic_gets_replicas_and_gives_them_up_while_records_come() {
    for seed in super::seeds("TRAMLINE_CLUSTER_FACTOR_SEEDS", 2) {
        println!("seed {seed}");
        let mut cluster = Cluster::with(seed, 128 << 10);
        cluster.create_topic();
        let group = cluster.create_with(1);
        cluster.until_voters(group, 1);
        cluster.alter_topic("one", 3, &[]).expect("three nodes");
        cluster.until_voters(group, 3);
        // Each of the three can go.
        for _ in 0..NODES {
            let at = cluster.leader_of(group);
            cluster.end(at, true);
            let other = |cluster: &Cluster| cluster.leaders().get(&group).and_then(|nodes| nodes.iter().copied().find(|node| *node != at));
            cluster.happen_until("another leader", |cluster| other(cluster).is_some());
            let leader = other(&cluster).expect("just seen");
            cluster.check_single(leader);
            cluster.heal();
            cluster.happen_until("rest", |cluster| cluster.is_quiet() && cluster.is_led());
        }
        for count in [2, 1] {
            cluster.alter_topic("one", count, &[]).expect("fewer than there are");
            cluster.until_voters(group, count.into());
            let leader = cluster.leader_of(group);
            cluster.check_single(leader);
            let known = |shard: &Shard| shard.leaders.of(group).and_then(|(node, _)| (node.0 as usize).checked_sub(1));
            cluster.pass(2_000_000);
            assert!(cluster.shards().all(|(_, shard)| known(shard) == Some(leader)), "who gave its replica up knows who leads");
        }
        assert!(cluster.acked.len() > 100, "{} records acknowledged", cluster.acked.len());
    }
}

#[test]
fn a_replica_is_given_up_only_when_those_that_stay_are_a_majority_that_is_there() {
    // Where the end is noticed before, nothing is planned; where it is not, the plan waits.
    for (seed, is_noticed) in [(3, true), (3, false), (4, true), (4, false)] {
        let mut cluster = Cluster::new(seed);
        cluster.create_topic();
        let group = cluster.create_with(3);
        cluster.until_voters(group, 3);
        // The home keeps its replica, so that the two that would be left are one that is away and another one.
        let home = cluster.leader_of(group);
        cluster.end(home, true);
        if is_noticed {
            cluster.pass(5_000_000);
        }
        cluster.alter_topic("one", 2, &[]).expect("fewer than there are");
        let acked = cluster.acked.len();
        let until_us = cluster.now.mono_us + 10_000_000;
        while cluster.now.mono_us < until_us {
            cluster.produce();
            cluster.happen();
        }
        let (voters, is_moved) = cluster.voters(group);
        assert_eq!(voters.len(), 3, "without the third they could not go on");
        assert!(!(is_noticed && is_moved), "seed {seed}: nothing is planned that cannot be done");
        assert!(cluster.acked.len() > acked, "seed {seed}: they go on");
        cluster.heal();
        cluster.until_voters(group, 2);
        let leader = cluster.leader_of(group);
        cluster.check_single(leader);
    }
}

#[test]
fn a_number_of_replicas_that_cannot_be_is_refused_with_what_can() {
    let mut cluster = Cluster::new(1);
    cluster.create_topic();
    let group = cluster.create_with(1);
    let retention = [Setting { key: "retention.ms", value: "1000" }];
    for (name, replication, settings, why) in [
        ("one", 4, [].as_slice(), "topic \"one\" asks for 4 replicas, and 3 nodes can have one each: add nodes or ask for fewer"),
        ("one", 6, &[], "a topic has 1 to 5 replicas, not 6"),
        ("one", 300, &[], "a topic has 1 to 5 replicas, not 255"),
        ("two", 2, &[], "topic \"two\" does not exist"),
        ("one", 2, &retention, "replicas of topic \"one\" changes by itself: ask for partitions and settings in another request"),
    ] {
        let refused = cluster.alter_topic(name, replication, settings).expect_err(why);
        assert!(refused.contains(why), "{refused}");
    }
    // 0 is as it is.
    cluster.alter_topic("one", 0, &retention).expect("settings alone");
    cluster.happen_until("the setting", |cluster| {
        cluster.shards().all(|(_, shard)| shard.view.topic("one").is_some_and(|t| t.settings.integer("retention.ms") == Some(1000)))
    });
    assert!(cluster.shards().all(|(_, shard)| shard.view.topic("one").is_some_and(|topic| topic.replicas == 1)));
    cluster.until_voters(group, 1);
}
