//! Groups that lose their majority for good, and go on with what is left because somebody accepts the loss; who was left out comes back as one that is new.
//!
//! Not here: which survivors the metadata take (control/tests), real processes (tests/cluster_disks.rs).

use super::{Cluster, NODES};
use crate::ids::GroupId;
use crate::shard::Shard;
use tramline_wire::cluster::ClusterAction;

impl Cluster {
    /// The nodes that the metadata, where they are led, name as voters of a group.
    fn placed(&self, group: GroupId) -> Vec<usize> {
        let leader = self.leaders().get(&GroupId(0)).and_then(|nodes| nodes.first().copied());
        let found = leader.and_then(|at| self.nodes[at].shard.as_ref()).and_then(|shard| shard.view.cluster.group(group).cloned());
        let mut nodes: Vec<_> = found.iter().flat_map(|group| &group.replicas).map(|replica| replica.node.0 as usize - 1).collect();
        nodes.sort_unstable();
        nodes
    }

    fn leads(&self, at: usize, group: GroupId) -> bool {
        self.leaders().get(&group).is_some_and(|nodes| *nodes == [at])
    }

    /// Whether the group has two voters again, as each of them knows it, in terms of its recovery.
    fn is_pair(&self, group: GroupId, pair: [usize; 2]) -> bool {
        let is_voter = |shard: &Shard| {
            let known = shard.groups.members_of(group).map_or(0, |members| members.voters.len());
            let unclean = shard.view.cluster.group(group).and_then(|group| group.unclean.as_ref()).map(|unclean| unclean.first_term());
            known == 2 && unclean.is_some_and(|term| shard.groups.term_of(group) >= term)
        };
        let mut here = pair.iter().map(|at| self.nodes[*at].shard.as_ref());
        self.placed(group) == pair && here.all(|shard| shard.is_some_and(is_voter))
    }

    /// Time with records that come.
    fn work_for(&mut self, us: u64) {
        let until_us = self.now.mono_us + us;
        while self.now.mono_us < until_us {
            if self.dice.chance(3) {
                self.produce();
            }
            self.happen();
        }
    }
}

#[test]
fn a_group_goes_on_without_its_majority_where_that_is_accepted() {
    let mut acked = 0;
    for seed in super::seeds("TRAMLINE_CLUSTER_RECOVERY_SEEDS", 4) {
        println!("seed {seed}");
        let mut cluster = Cluster::with(seed, if seed % 2 == 0 { 4 << 20 } else { 128 << 10 });
        cluster.create_topic();
        let group = cluster.create_with(2);
        cluster.happen_until("its nodes", |cluster| cluster.placed(group).len() == 2);
        let Ok(pair) = <[usize; 2]>::try_from(cluster.placed(group)) else { panic!("two replicas") };
        cluster.happen_until("its leader", |cluster| pair.iter().any(|at| cluster.leads(*at, group)));
        cluster.work_for(5_000_000);
        let refused = cluster.alter(ClusterAction::UncleanRecover, group).expect_err("both are there");
        assert!(refused.contains("2 of 2 replicas are a majority"), "{refused}");
        let refused = cluster.alter(ClusterAction::UncleanRecover, GroupId(0)).expect_err("not this way");
        assert!(refused.contains("cannot decide about itself"), "{refused}");
        // What the first one takes in meanwhile nobody else has.
        let (lost, left) = if seed % 4 < 2 { (pair[0], pair[1]) } else { (pair[1], pair[0]) };
        (cluster.cut[lost][left], cluster.cut[left][lost]) = (true, true);
        cluster.work_for(1_000_000);
        cluster.end(lost, true);
        (cluster.cut[lost][left], cluster.cut[left][lost]) = (false, false);
        cluster.work_for(4_000_000);
        assert!(!cluster.leads(left, group), "one of two decides nothing");
        let before = cluster.acked.len();
        let mut tries = 0;
        while let Err(why) = cluster.alter(ClusterAction::UncleanRecover, group) {
            tries += 1;
            assert!(tries < 100, "seed {seed}: {why}");
            cluster.work_for(200_000);
        }
        cluster.happen_until("what is left leads", |cluster| cluster.leads(left, group));
        cluster.work_for(3_000_000);
        assert!(cluster.acked.len() > before, "seed {seed}: it goes on");
        cluster.check_single(left);
        // A start finds what was forced; once by what the log says, and again by its checkpoint, where one was made.
        for power in [true, false] {
            cluster.end(left, power);
            cluster.start(left);
            cluster.happen_until("it leads again", |cluster| cluster.leads(left, group));
            cluster.work_for(500_000);
        }
        assert!(cluster.shards().any(|(_, shard)| shard.view.cluster.group(group).is_some_and(|group| group.unclean.is_some())));
        // Who was left out is back, with all that it had, and gets what the others have in its place.
        cluster.start(lost);
        for round in 0..400 {
            cluster.work_for(100_000);
            if seed % 2 == 1 && round % 20 == 19 {
                cluster.fault_for_a_while();
            }
            if cluster.is_pair(group, pair) {
                break;
            }
        }
        cluster.heal();
        cluster.happen_until("two voters again", |cluster| cluster.is_pair(group, pair));
        cluster.happen_until("rest", Cluster::is_quiet);
        cluster.check_replicas();
        let snapshots: u64 = cluster.shards().map(|(_, shard)| shard.metrics.counters.snapshots_taken).sum();
        assert!(snapshots + cluster.snapshots > 0, "what was left out begins anew");
        let leader = (0..NODES).find(|at| cluster.leads(*at, group)).expect("one of them leads");
        cluster.check_single(leader);
        acked += cluster.acked.len();
    }
    assert!(acked > 400, "{acked} records acknowledged");
}
