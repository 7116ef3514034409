//! Disks that rot under one replica at a time: nothing that was acknowledged is lost, and the damaged replica gets it back from the others.
//!
//! Not here: what a start makes of damage without other replicas (`log/tests/damage.rs`).

use super::{Cluster, NODES, REPLICATED, replicas, seeds};
use crate::ids::GroupId;
use crate::log::EntryKind;
use crate::log::layout::{BLOCK_ALIGN, BlockView, SEGMENT_DATA_START, peek_header};

impl Cluster {
    /// Suspect replicas on a node.
    fn suspects_of(&self, at: usize) -> usize {
        self.nodes[at].shard.as_ref().map_or(0, |shard| shard.suspects.count())
    }

    fn is_healed(&self) -> bool {
        (0..NODES).all(|at| self.suspects_of(at) == 0 && self.nodes[at].shard.as_ref().is_none_or(|shard| shard.repairs.count() == 0))
    }

    /// Segment files of a node with something in them, by name.
    fn segment_names(&self, at: usize) -> Vec<String> {
        self.nodes[at].disk.names().into_iter().filter(|name| name.starts_with("seg-")).collect()
    }

    /// Flips bits somewhere among what the node has written.
    fn rot(&mut self, at: usize, flips: u64) {
        let names = self.segment_names(at);
        for _ in 0..flips {
            for _ in 0..10_000 {
                let name = &names[self.dice.below(names.len() as u64) as usize];
                let file = self.nodes[at].disk.file(name);
                let pos = self.dice.below(file.len() as u64) as usize;
                if file[pos] != 0 {
                    file[pos] ^= 1 << self.dice.below(8);
                    break;
                }
            }
        }
    }

    /// Flips a bit in the header of a block that is not among the newest: those behind it tell that it was durable.
    fn rot_a_header(&mut self, at: usize) -> bool {
        let mut headers = Vec::new();
        for name in self.segment_names(at) {
            let file = self.nodes[at].disk.file(&name);
            let blocks = (SEGMENT_DATA_START as usize..file.len() - BLOCK_ALIGN).step_by(BLOCK_ALIGN);
            let found = blocks.filter_map(|pos| Some((peek_header(&file[pos..pos + BLOCK_ALIGN])?, pos)));
            headers.extend(found.map(|(header, pos)| (header.block_seq, header.durable_through, name.clone(), pos)));
        }
        let told = headers.iter().map(|(_, durable, ..)| *durable).max().unwrap_or_default();
        headers.retain(|(seq, ..)| *seq <= told);
        headers.sort_by_key(|(seq, ..)| *seq);
        // Of the newest ones: they are behind the checkpoint.
        let Some(first) = headers.len().checked_sub(8) else { return false };
        let (_, _, name, pos) = headers[first + self.dice.below(8) as usize].clone();
        self.nodes[at].disk.file(&name)[pos + 40] ^= 1 << self.dice.below(8);
        true
    }

    /// Flips a bit in each command of the metadata's group that a node has, but for its first ones and for those in its last blocks.
    fn rot_commands(&mut self, at: usize) -> usize {
        let mut count = 0;
        for name in self.segment_names(at) {
            let file = self.nodes[at].disk.file(&name);
            let blocks = (SEGMENT_DATA_START as usize..file.len()).step_by(BLOCK_ALIGN);
            let heads: Vec<_> = blocks.filter_map(|pos| Some((peek_header(&file[pos..pos + BLOCK_ALIGN])?, pos))).collect();
            let told = heads.iter().map(|(head, _)| head.durable_through).max().unwrap_or_default();
            let mut found = Vec::new();
            for (_, pos) in heads.iter().filter(|(head, _)| head.block_seq <= told) {
                let Some(view) = BlockView::parse(&file[*pos..]) else { continue };
                let commands = view.entries().filter(|row| row.group == GroupId(0) && row.kind == EntryKind::Control);
                found.extend(commands.flat_map(|row| view.fragments_of(&row).next()).map(|piece| pos + piece.offset as usize));
            }
            found.iter().skip(4).for_each(|command| file[command + 50] ^= 1);
            count += found.len().saturating_sub(4);
        }
        count
    }
}

/// What was cut off and brought again stands twice in the log: in the block that is damaged, and in one that is not.
#[test]
fn a_node_whose_commands_were_brought_again_starts_again() {
    let mut tried = 0;
    for seed in seeds("TRAMLINE_CLUSTER_COMMAND_SEEDS", 3) {
        let mut cluster = Cluster::with(seed, 4 << 20);
        cluster.create_topic();
        cluster.happen_until("rest", Cluster::is_quiet);
        cluster.pass(3_000_000);
        let at = (0..NODES).find(|at| cluster.leaders().get(&GroupId(0)) != Some(&vec![*at])).expect("a follower");
        cluster.end(at, false);
        if cluster.rot_commands(at) == 0 {
            continue;
        }
        for is_found in [true, false] {
            cluster.ledger.forget(at);
            cluster.start(at);
            assert_eq!(cluster.suspects_of(at) > 0, is_found, "seed {seed}: found by the first start, and made good for the second");
            cluster.happen_until("whole replicas", |cluster| cluster.is_healed() && cluster.is_quiet());
            replicas::check_metadata(&cluster.shards().collect::<Vec<_>>()).expect("the metadata are the same on all nodes");
            cluster.end(at, false);
        }
        tried += 1;
    }
    assert!(tried > 0, "no seed had enough commands");
}

#[test]
fn a_replica_that_has_lost_blocks_helps_nobody_to_lead_who_never_had_them() {
    let mut tried = 0;
    for seed in seeds("TRAMLINE_CLUSTER_SUSPECT_SEEDS", 8) {
        let mut cluster = Cluster::with(seed, 4 << 20);
        cluster.create_topic();
        let (third, damaged) = (cluster.dice.below(NODES as u64) as usize, cluster.dice.below(2) as usize);
        let others: Vec<_> = (0..NODES).filter(|at| *at != third).collect();
        let (damaged, last) = (others[damaged], others[1 - damaged]);
        cluster.end(third, true);
        let lead = |cluster: &Cluster| {
            let leaders = cluster.replicated();
            leaders.len() == REPLICATED && leaders.values().all(|nodes| nodes.len() == 1)
        };
        cluster.happen_until("leaders of two nodes", lead);
        for _ in 0..120 {
            cluster.produce();
            (0..10).for_each(|_| cluster.happen());
        }
        cluster.happen_until("rest", Cluster::is_quiet);
        // An idle log tells what is durable.
        cluster.pass(3_000_000);
        assert!(cluster.acked.len() > 50, "{} records", cluster.acked.len());
        cluster.end(damaged, false);
        if !cluster.rot_a_header(damaged) {
            continue;
        }
        cluster.end(last, true);
        cluster.start(damaged);
        cluster.start(third);
        assert!(cluster.suspects_of(damaged) >= REPLICATED, "seed {seed}: {} suspects", cluster.suspects_of(damaged));
        cluster.pass(6_000_000);
        let leads: Vec<GroupId> = cluster.leaders().into_iter().filter(|(_, nodes)| !nodes.is_empty()).map(|(group, _)| group).collect();
        let shared = |group: &&GroupId| cluster.shards().any(|(_, shard)| super::has_three_voters(shard, **group));
        assert_eq!(leads.iter().find(shared), None, "seed {seed}: a group is led without the one that has everything");
        // Over another start the log does not look better than it is.
        cluster.end(damaged, true);
        cluster.start(damaged);
        assert!(cluster.suspects_of(damaged) >= REPLICATED, "seed {seed}");
        cluster.start(last);
        cluster.happen_until("whole replicas", |cluster| cluster.is_healed() && cluster.is_quiet());
        cluster.check();
        cluster.check_replicas();
        // Who was suspect votes again.
        cluster.end(last, true);
        cluster.happen_until("leaders without the one that had everything", |cluster| {
            lead(cluster) && cluster.replicated().values().all(|nodes| nodes[0] != last)
        });
        cluster.start(last);
        cluster.happen_until("rest", Cluster::is_quiet);
        cluster.check();
        tried += 1;
    }
    assert!(tried > 0, "no seed had enough blocks");
}

#[test]
fn what_was_acknowledged_survives_the_rot_of_one_disk_at_a_time() {
    let (mut suspects, mut acked) = (0, 0);
    for seed in seeds("TRAMLINE_CLUSTER_ROT_SEEDS", 6) {
        println!("seed {seed}");
        let mut cluster = Cluster::with(seed, [4 << 20, 512 << 10][(seed % 2) as usize]);
        cluster.create_topic();
        for _ in 0..6 {
            for _ in 0..40 {
                cluster.produce();
                let happenings = cluster.dice.below(40);
                (0..happenings).for_each(|_| cluster.happen());
            }
            let at = cluster.dice.below(NODES as u64) as usize;
            cluster.happen_until("rest", |cluster| cluster.is_quiet() && cluster.is_healed());
            cluster.pass(2_500_000);
            cluster.end(at, false);
            let flips = 1 + cluster.dice.below(4);
            cluster.rot(at, flips);
            cluster.ledger.forget(at);
            cluster.start(at);
            suspects += cluster.suspects_of(at);
            for round in 0..30 {
                cluster.produce();
                let happenings = cluster.dice.below(40);
                (0..happenings).for_each(|_| cluster.happen());
                if round % 8 == 7 {
                    cluster.fault();
                    let us = cluster.dice.below(3_000_000);
                    cluster.pass(us);
                }
            }
            cluster.heal();
        }
        cluster.happen_until("rest", |cluster| cluster.is_quiet() && cluster.is_healed());
        replicas::check_metadata(&cluster.shards().collect::<Vec<_>>()).expect("the metadata are the same on all nodes");
        cluster.check();
        acked += cluster.acked.len();
    }
    assert!(suspects > 0 && acked > 500, "{suspects} suspects, {acked} records acknowledged");
}
