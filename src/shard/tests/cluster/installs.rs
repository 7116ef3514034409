//! Snapshots that are taken in and not durable yet: what may happen to a replica until a checkpoint has them.
//!
//! Not here: what a snapshot holds (`damage.rs` for what is left out), moves of replicas (`moves.rs`).

use super::{Cluster, seeds};
use crate::ids::{GroupId, LogIndex};
use std::collections::BTreeSet;

impl Cluster {
    /// Groups of a node whose snapshot is not durable, with their last entries.
    fn installing(&self, at: usize) -> Vec<(GroupId, LogIndex)> {
        let shard = self.nodes[at].shard.as_ref().expect("it runs");
        let groups = shard.group_ids.iter().filter(|group| shard.groups.is_installing(**group));
        groups.map(|group| (*group, shard.groups.last_of(*group).index)).collect()
    }
}

/// Such entries would stand in the log behind what was there before the snapshot, and a start without it would take that for what they follow.
#[test]
fn nothing_is_taken_in_behind_a_snapshot_that_is_not_durable() {
    let mut tried = 0;
    for seed in seeds("TRAMLINE_CLUSTER_BEHIND_SEEDS", 6) {
        let (mut cluster, behind) = Cluster::with_one_behind(seed);
        cluster.start(behind);
        cluster.happen_until("a snapshot", |cluster| !cluster.installing(behind).is_empty());
        cluster.nodes[behind].are_checkpoints_stuck = true;
        let before = cluster.installing(behind);
        // A leader sends nothing behind a snapshot that it waits for; on a connection anew it goes by what the follower says that it has.
        cluster.close_links(|link| link.ends.iter().any(|(node, _)| *node == behind));
        cluster.work(100, 20);
        cluster.pass(500_000);
        for (group, last) in &before {
            let now = cluster.nodes[behind].shard.as_ref().expect("it runs").groups.last_of(*group).index;
            assert_eq!(now, *last, "seed {seed}: group {group}");
            let leader = cluster.leader_of(*group);
            let of_leader = cluster.nodes[leader].shard.as_ref().expect("it leads").groups.last_of(*group).index;
            tried += usize::from(of_leader > *last);
        }
        cluster.nodes[behind].are_checkpoints_stuck = false;
        cluster.happen_until("rest", Cluster::is_quiet);
        cluster.check();
        cluster.check_replicas();
    }
    assert!(tried > 0, "no leader had more than its snapshot");
}

/// Who sends a snapshot need not know of everything that a suspect has forgotten: without a proof of that it stays suspect, over a start as well.
#[test]
fn a_suspect_that_took_a_snapshot_in_is_suspect_at_its_next_start() {
    let mut tried = 0;
    for seed in seeds("TRAMLINE_CLUSTER_DOUBT_SEEDS", 4) {
        let (mut cluster, behind) = Cluster::with_one_behind(seed);
        if !cluster.rot_a_header(behind) {
            continue;
        }
        cluster.start(behind);
        let suspects = |cluster: &Cluster| cluster.nodes[behind].shard.as_ref().expect("it runs").suspects.groups();
        let (mut began, mut found) = (BTreeSet::new(), Vec::new());
        cluster.happen_until("a snapshot, or a whole replica", |cluster| {
            let (now, suspects) = (cluster.installing(behind), suspects(cluster));
            let is_durable = |group: &&GroupId| now.iter().all(|(installing, _)| installing != *group);
            found = began.iter().filter(is_durable).filter(|group| suspects.contains(group)).copied().collect();
            began.extend(now.iter().map(|(group, _)| *group));
            !found.is_empty() || cluster.is_quiet()
        });
        cluster.end(behind, true);
        cluster.ledger.forget(behind);
        cluster.start(behind);
        let still = suspects(&cluster);
        assert!(found.iter().all(|group| still.contains(group)), "seed {seed}: of {found:?} only {still:?} are suspect after a start");
        tried += found.len();
        cluster.happen_until("whole replicas", |cluster| suspects(cluster).is_empty() && cluster.is_quiet());
        cluster.check();
        cluster.check_replicas();
    }
    assert!(tried > 0, "no suspect took a snapshot in");
}
