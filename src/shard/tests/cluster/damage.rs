//! Disks that rot under one replica at a time: nothing that was acknowledged is lost, and the damaged replica gets it back from the others.
//!
//! Not here: what a start makes of damage without other replicas (`log/tests/damage.rs`).

use super::{Cluster, NODES, REPLICATED, queues, replicas, seeds};
use crate::effects::Event;
use crate::ids::{BlockSeq, GroupId, ShardId};
use crate::log::EntryKind;
use crate::log::layout::{BLOCK_ALIGN, BlockView, Entry, SEGMENT_DATA_START, SegmentHeader, peek_header};
use crate::shard::Shard;
use crate::shard::mesh::Message;

impl Cluster {
    /// A cluster with a topic that has had so many requests, and has been at rest for so long that its logs tell that everything is durable.
    fn at_rest(seed: u64, segment_bytes: u64, requests: usize) -> Cluster {
        let mut cluster = Cluster::with(seed, segment_bytes);
        cluster.create_topic();
        cluster.work(requests, 10);
        cluster.happen_until("rest", Cluster::is_quiet);
        cluster.pass(3_000_000);
        cluster
    }

    /// Suspect replicas on a node.
    fn suspects_of(&self, at: usize) -> usize {
        self.nodes[at].shard.as_ref().map_or(0, |shard| shard.suspects.count())
    }

    /// Whether others vote in a group that the node has a replica of.
    fn is_shared(&self, at: usize, group: GroupId) -> bool {
        self.nodes[at].shard.as_ref().is_some_and(|shard| super::has_three_voters(shard, group))
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

    /// The blocks of a node of which a later one tells that they are durable: number, file and place.
    fn told_blocks(&mut self, at: usize) -> Vec<(BlockSeq, String, usize)> {
        let mut blocks = Vec::new();
        let mut told = BlockSeq(0);
        for name in self.segment_names(at) {
            let file = self.nodes[at].disk.file(&name);
            let places = (SEGMENT_DATA_START as usize..file.len() - BLOCK_ALIGN).step_by(BLOCK_ALIGN);
            for (header, pos) in places.filter_map(|pos| Some((peek_header(&file[pos..pos + BLOCK_ALIGN])?, pos))) {
                told = told.max(header.durable_through);
                blocks.push((header.block_seq, name.clone(), pos));
            }
        }
        blocks.retain(|(seq, ..)| *seq <= told);
        blocks.sort();
        blocks
    }

    /// Flips a bit in the header of a block that is not among the newest: those behind it tell that it was durable.
    pub(super) fn rot_a_header(&mut self, at: usize) -> bool {
        let blocks = self.told_blocks(at);
        // Of the newest ones: they are behind the checkpoint.
        let Some(first) = blocks.len().checked_sub(8) else { return false };
        let (_, name, pos) = &blocks[first + self.dice.below(8) as usize];
        self.nodes[at].disk.file(name)[pos + 40] ^= 1 << self.dice.below(8);
        true
    }

    /// Flips a bit of each place in the blocks of a node, from `first` on, that `of` names; how many there were.
    fn rot_in_blocks(&mut self, at: usize, first: BlockSeq, of: impl Fn(&BlockView<'_>) -> Vec<u32>) -> usize {
        let mut count = 0;
        for (_, name, pos) in self.told_blocks(at).into_iter().filter(|(seq, ..)| *seq >= first) {
            let file = self.nodes[at].disk.file(&name);
            let Some(places) = BlockView::parse(&file[pos..]).map(|view| of(&view)) else { continue };
            count += places.len();
            places.into_iter().for_each(|place| file[pos + place as usize] ^= 1);
        }
        count
    }

    /// Flips a bit every `step` bytes in the first `bytes` of the `count` oldest segments that a node has sealed, but in no file's second half: no footer is hit.
    fn rot_sealed(&mut self, at: usize, count: usize, bytes: usize, step: usize) {
        let used = self.nodes[at].shard.as_ref().expect("it runs").segments_in_use();
        let mut sealed = Vec::new();
        for name in self.segment_names(at) {
            let header = SegmentHeader::decode(&self.nodes[at].disk.file(&name)[..BLOCK_ALIGN]);
            sealed.extend(header.filter(|header| used.contains(&(header.uid, true))).map(|header| (header.uid, name)));
        }
        sealed.sort();
        for (_, name) in sealed.into_iter().take(count) {
            let file = self.nodes[at].disk.file(&name);
            let first = SEGMENT_DATA_START as usize;
            let end = (file.len() / 2).min(first + bytes);
            file[first..end].iter_mut().step_by(step).filter(|byte| **byte != 0).for_each(|byte| *byte ^= 4);
        }
    }

    /// Offsets that a node's partitions do not list, in front of others that they do.
    fn holes(&self, at: usize) -> Vec<String> {
        let shard = self.nodes[at].shard.as_ref().expect("it runs");
        let mut holes = Vec::new();
        for (_, partition) in shard.partitions.iter() {
            let mut next = partition.log_start();
            let runs = partition.index.runs().map(|run| (run.first_offset, run.end_offset));
            let tail = partition.index.tail().map(|batch| (batch.base_offset, batch.end_offset()));
            for (first, end) in runs.chain(tail) {
                if first > next {
                    holes.push(format!("node {}: partition {} has {next} and not {first}", at + 1, partition.uid));
                }
                next = next.max(end);
            }
        }
        holes
    }
}

/// A leader with damaged batches, and a follower that needs them, while the one that has them is away: it waits, and has no holes for good.
#[test]
fn no_snapshot_leaves_out_what_another_replica_may_have() {
    let (mut tried, mut repaired) = (0, 0);
    for seed in seeds("TRAMLINE_CLUSTER_HOLE_SEEDS", 3) {
        let (mut cluster, third) = Cluster::with_one_behind(seed);
        let others: Vec<_> = (0..NODES).filter(|at| *at != third).collect();
        let damaged = others[cluster.dice.below(2) as usize];
        let whole = others.into_iter().find(|at| *at != damaged).expect("two");
        let snapshots =
            |cluster: &Cluster| cluster.snapshots + cluster.shards().map(|(_, shard)| shard.metrics.counters.snapshots_taken).sum::<u64>();
        let before = snapshots(&cluster);
        cluster.rot_sealed(damaged, usize::MAX, 64 << 10, 5000);
        cluster.end(whole, false);
        cluster.start(third);
        cluster.pass(20_000_000);
        assert_eq!(cluster.holes(third), Vec::<String>::new(), "seed {seed}: while it waits");
        cluster.start(whole);
        cluster.happen_until("whole replicas", |cluster| cluster.is_healed() && cluster.is_quiet());
        cluster.pass(5_000_000);
        (0..NODES).for_each(|at| assert_eq!(cluster.holes(at), Vec::<String>::new(), "seed {seed}"));
        cluster.check();
        tried += snapshots(&cluster) - before;
        repaired += cluster.shards().map(|(_, shard)| shard.metrics.counters.repaired_ranges).sum::<u64>();
    }
    assert!(tried > 0 && repaired > 0, "{tried} snapshots, {repaired} ranges repaired");
}

/// What every voter has lost is left out at once, and not waited for.
#[test]
fn a_snapshot_does_not_wait_for_what_nobody_has() {
    let mut lost = 0;
    for seed in seeds("TRAMLINE_CLUSTER_LOST_SEEDS", 3) {
        let (mut cluster, third) = Cluster::with_one_behind(seed);
        let others: Vec<_> = (0..NODES).filter(|at| *at != third).collect();
        // The beginning of the log, which is the same on both.
        others.iter().for_each(|at| cluster.rot_sealed(*at, 1, 24 << 10, 200));
        cluster.start(third);
        // Less than the ten minutes for which a voter that says nothing would be waited for.
        for _ in 0..240 {
            if cluster.is_quiet() {
                break;
            }
            cluster.pass(1_000_000);
        }
        assert!(cluster.is_quiet(), "seed {seed}: it has what there is");
        lost += others.iter().map(|at| cluster.nodes[*at].shard.as_ref().map_or(0, |shard| shard.repairs.count())).sum::<usize>();
    }
    assert!(lost > 0, "nothing was lost");
}

/// Batches that nobody had committed rot, and another leader puts others in their place: there is nothing to be repaired.
#[test]
fn what_was_replaced_is_no_damage() {
    let mut tried = 0;
    for seed in seeds("TRAMLINE_CLUSTER_REPLACED_SEEDS", 4) {
        let mut cluster = Cluster::with(seed, 128 << 10);
        cluster.create_topic();
        cluster.work(500, 8);
        cluster.happen_until("rest", Cluster::is_quiet);
        cluster.pass(2_000_000);
        let at = cluster.dice.below(NODES as u64) as usize;
        let first = cluster.nodes[at].shard.as_ref().expect("it runs").open_block();
        for other in (0..NODES).filter(|other| *other != at) {
            (cluster.cut[at][other], cluster.cut[other][at]) = (true, true);
        }
        cluster.work(60, 20);
        cluster.end(at, false);
        // The last byte of each entry's last batch.
        cluster.rot_in_blocks(at, first, |view| {
            let entries = view.entries().filter(|row| row.kind == EntryKind::Data);
            entries.filter_map(|row| view.fragments_of(&row).last()).map(|piece| piece.offset + piece.length - 1).collect()
        });
        cluster.start(at);
        let wounds = |cluster: &Cluster| cluster.nodes[at].shard.as_ref().map_or(0, |shard| shard.repairs.count());
        tried += wounds(&cluster);
        cluster.pass(5_000_000);
        cluster.heal();
        cluster.happen_until("nothing to repair", |cluster| cluster.is_healed() && cluster.is_quiet());
        cluster.check();
        cluster.check_replicas();
    }
    assert!(tried > 0, "nothing was found to be damaged");
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
        let commands = cluster.rot_in_blocks(at, BlockSeq(1), |view| {
            let entries = view.entries().filter(|row| row.group == GroupId(0) && row.kind == EntryKind::Control);
            entries.filter_map(|row| view.fragments_of(&row).next()).map(|piece| piece.offset + 50).collect()
        });
        if commands == 0 {
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

/// A node that has lost the metadata and not its partitions gets a snapshot of metadata in which these do not stand yet: what follows it tells of them, and
/// comes only when a checkpoint has the snapshot.
#[test]
fn metadata_come_back_to_a_node_whose_partitions_are_newer() {
    let mut tried = 0;
    // Of the first sixty, those in which the snapshot is sent before its leader has committed anything of its own.
    for seed in [23, 37, 51] {
        let mut cluster = Cluster::at_rest(seed, 4 << 20, 60);
        // The one with which the cluster began: the others have the metadata's log from a snapshot on, before there was a topic.
        let at = 0;
        (0..NODES).for_each(|at| cluster.end(at, false));
        cluster.rot_in_blocks(at, BlockSeq(1), |view| {
            let entries = view.entries().filter(|row| row.group == GroupId(0) && row.kind == EntryKind::Control);
            entries.filter_map(|row| view.fragments_of(&row).next()).map(|piece| piece.offset + 50).collect()
        });
        // With one more node the partitions have leaders, and the metadata have not. These get one that knows of no more as committed than its start has found.
        [at, 1].into_iter().for_each(|at| cluster.start(at));
        assert!(cluster.suspects_of(at) > 0, "seed {seed}: the metadata are damaged");
        cluster.pass(5_000_000);
        cluster.start(2);
        let mut is_newer = false;
        cluster.happen_until("whole replicas", |cluster| {
            let shard = cluster.nodes[at].shard.as_ref().expect("it runs");
            is_newer |= shard.view.epoch > 0 && !shard.unclaimed.is_empty();
            cluster.is_healed() && cluster.is_quiet()
        });
        tried += usize::from(is_newer);
        cluster.check();
        replicas::check_metadata(&cluster.shards().collect::<Vec<_>>()).expect("the metadata are the same on all nodes");
    }
    assert!(tried > 0, "no snapshot was older than the partitions");
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
        cluster.work(120, 10);
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

/// What it hands over it puts together again from its log, of which the beginning is not in memory any more: where that cannot be read, it stops all the same.
#[test]
fn a_node_whose_log_cannot_be_read_back_stops_in_order() {
    let mut tried = 0;
    for seed in 0..4 {
        // Memory keeps the last 32 KiB.
        let mut cluster = Cluster::at_rest(seed, 128 << 10, 150);
        let leaders = cluster.leaders();
        let leads_shared = |at: usize| leaders.iter().any(|(group, nodes)| group.0 > 0 && nodes == &[at] && cluster.is_shared(at, *group));
        let at = (0..NODES).find(|at| leads_shared(*at)).expect("each leads some");
        let from = cluster.nodes[at].shard.as_ref().expect("it runs").log.cached_from();
        let covered = cluster.nodes[at].shard.as_ref().expect("it runs").log.covered();
        for (seq, name, pos) in cluster.told_blocks(at) {
            if seq > covered && seq < from {
                cluster.nodes[at].disk.file(&name)[pos + 40] ^= 1;
                tried += 1;
            }
        }
        cluster.tell(at, Event::Mesh { from: ShardId(0), message: Message::Stop });
        cluster.happen_until("it has stopped", |cluster| cluster.nodes[at].shard.as_ref().is_some_and(Shard::has_stopped));
        cluster.end(at, false);
        cluster.ledger.forget(at);
        cluster.start(at);
        cluster.happen_until("whole replicas", |cluster| cluster.is_healed() && cluster.is_quiet());
        cluster.check();
        cluster.check_replicas();
    }
    assert!(tried > 0, "no block is outside memory");
}

/// The record of a replica's beginning rots before a checkpoint has it. Of a group with one replica nobody else can tell what there was: it goes on with what it has,
/// in this start and in later ones.
#[test]
fn a_group_of_one_replica_goes_on_without_its_record() {
    let mut tried = 0;
    for seed in 0..6 {
        let mut cluster = Cluster::with(seed, 4 << 20);
        cluster.create_topic();
        let (group, at) = cluster.create_single();
        let mut acked = 0;
        for round in 0..3 {
            cluster.work(60, 10);
            cluster.happen_until("rest", Cluster::is_quiet);
            cluster.pass(3_000_000);
            assert!(cluster.acked.len() > acked, "seed {seed}, round {round}: it goes on");
            acked = cluster.acked.len();
            cluster.check_single(at);
            cluster.end(at, false);
            let records = cluster.rot_in_blocks(at, BlockSeq(1), |view| {
                let entries = view.entries().filter(|row| row.group == group && row.kind == EntryKind::Replica && round == 0);
                entries.filter_map(|row| view.fragments_of(&row).next()).map(|piece| piece.offset + 20).collect()
            });
            tried += records;
            cluster.start(at);
            cluster.happen_until("a leader", |cluster| cluster.leaders().get(&group) == Some(&vec![at]));
        }
        cluster.happen_until("whole replicas", |cluster| cluster.is_healed() && cluster.is_quiet());
        cluster.check_single(at);
    }
    assert!(tried > 0, "no group had a record of its own");
}

/// A node that has joined loses the blocks in which its replicas began. Of the metadata it knows what it was told when it joined: it goes on with that, as a suspect, and the
/// entries behind stay its own over every start. Of the others it knows nothing: they stay suspects.
#[test]
fn a_node_that_joined_goes_on_without_the_record_of_its_metadata() {
    let mut tried = 0;
    for seed in 0..4 {
        let mut cluster = Cluster::at_rest(seed, 4 << 20, 60);
        let at = (0..NODES).find(|at| cluster.nodes[*at].joined.is_some()).expect("all but the first have joined");
        (0..NODES).for_each(|at| cluster.end(at, false));
        let lost = cluster.rot_in_blocks(at, BlockSeq(1), |view| {
            let has_one = view.entries().any(|row| row.kind == EntryKind::Replica);
            if has_one { vec![40] } else { Vec::new() }
        });
        if lost == 0 {
            continue;
        }
        tried += 1;
        for start in 0..3 {
            cluster.start(at);
            let suspects = cluster.nodes[at].shard.as_ref().expect("it runs").suspects.groups();
            assert!(suspects.contains(&GroupId(0)), "seed {seed}, start {start}: {suspects:?}");
            assert!(suspects.len() >= REPLICATED, "seed {seed}, start {start}: {suspects:?}");
            // Long enough that what a start writes is durable.
            cluster.pass(3_000_000);
            cluster.end(at, false);
        }
        (0..NODES).for_each(|at| cluster.start(at));
        cluster.happen_until("whole replicas", |cluster| cluster.is_healed() && cluster.is_quiet());
        cluster.check();
        replicas::check_metadata(&cluster.shards().collect::<Vec<_>>()).expect("the metadata are the same on all nodes");
    }
    assert!(tried > 0, "no node had a block with the record");
}

/// A leader reads entries back for a follower that is behind, and what it reads has rotted, before its start or since: nothing of that goes out, the others' groups
/// go on, and a replica that has it brings it to both.
#[test]
fn a_leader_sends_nobody_what_has_rotted() {
    let (mut tried, mut repaired) = (0, 0);
    for seed in seeds("TRAMLINE_CLUSTER_ROTTEN_SEEDS", 4) {
        // Nothing is sealed, and memory keeps the last 256 KiB of the log.
        let mut cluster = Cluster::with(seed, 4 << 20);
        cluster.create_topic();
        cluster.happen_until("rest", Cluster::is_quiet);
        let third = cluster.dice.below(NODES as u64) as usize;
        cluster.end(third, false);
        cluster.work(60, 10);
        cluster.pass(3_000_000);
        let others: Vec<_> = (0..NODES).filter(|at| *at != third).collect();
        let damaged = others[cluster.dice.below(2) as usize];
        let whole = others.into_iter().find(|at| *at != damaged).expect("two");
        [whole, damaged].into_iter().for_each(|at| cluster.end(at, false));
        let bodies = |view: &BlockView<'_>| {
            let entries = view.entries().filter(|row| row.kind == EntryKind::Data).skip(1);
            entries.filter_map(|row| view.fragments_of(&row).next()).map(|piece| piece.offset + piece.length - 1).collect()
        };
        let payloads = |view: &BlockView<'_>| {
            let entries = view.entries().filter(|row| row.kind == EntryKind::Control && row.group.0 > 0);
            entries.filter_map(|row| view.fragments_of(&row).next()).map(|piece| piece.offset + 20).collect()
        };
        let is_before = seed % 2 == 0;
        if is_before {
            tried += cluster.rot_in_blocks(damaged, BlockSeq(1), bodies);
        }
        cluster.start(damaged);
        if !is_before {
            tried += cluster.rot_in_blocks(damaged, BlockSeq(1), bodies) + cluster.rot_in_blocks(damaged, BlockSeq(1), payloads);
        }
        cluster.start(third);
        cluster.pass(5_000_000);
        cluster.start(whole);
        cluster.happen_until("whole replicas", |cluster| cluster.is_healed() && cluster.is_quiet());
        cluster.pass(5_000_000);
        (0..NODES).for_each(|at| assert_eq!(cluster.holes(at), Vec::<String>::new(), "seed {seed}"));
        cluster.check();
        cluster.check_replicas();
        repaired += cluster.shards().map(|(_, shard)| shard.metrics.counters.repaired_ranges).sum::<u64>();
    }
    assert!(tried > 0 && repaired > 0, "{tried} places rotted, {repaired} ranges repaired");
}

/// The only one that has an entry nobody has committed cannot read it any more, and leads: it makes room for those that never had it.
#[test]
fn a_leader_that_cannot_read_what_nobody_else_has_makes_room() {
    let (mut tried, mut suspects) = (0, 0);
    for seed in 0..4 {
        let mut cluster = Cluster::with(seed, 4 << 20);
        cluster.create_topic();
        cluster.work(20, 10);
        cluster.happen_until("rest", Cluster::is_quiet);
        let group = cluster.group_known(cluster.uids[0]).expect("the topic is known");
        let at = cluster.leader_of(group);
        let others: Vec<_> = (0..NODES).filter(|other| *other != at).collect();
        others.iter().for_each(|other| cluster.end(*other, false));
        let first = cluster.nodes[at].shard.as_ref().expect("it leads").open_block();
        cluster.work(20, 2);
        cluster.pass(200_000);
        // What the next start writes tells that the blocks before it were durable.
        cluster.end(at, false);
        cluster.start(at);
        cluster.pass(200_000);
        cluster.end(at, false);
        tried += cluster.rot_in_blocks(at, first, |view| {
            let entries = view.entries().filter(|row| row.kind == EntryKind::Data && row.group == group);
            entries.filter_map(|row| view.fragments_of(&row).next()).map(|piece| piece.offset + piece.length - 1).collect()
        });
        cluster.start(at);
        cluster.start(others[0]);
        cluster.pass(5_000_000);
        assert_eq!(cluster.suspects_of(at), 0, "seed {seed}: without its vote the other one could not go on");
        cluster.start(others[1]);
        let mut was_suspect = false;
        cluster.happen_until("whole replicas", |cluster| {
            was_suspect |= cluster.suspects_of(at) > 0;
            cluster.is_healed() && cluster.is_quiet()
        });
        suspects += usize::from(was_suspect);
        cluster.work(20, 10);
        cluster.happen_until("rest", Cluster::is_quiet);
        cluster.check();
        cluster.check_replicas();
    }
    assert!(tried > 0 && suspects > 0, "{tried} places rotted, {suspects} suspects");
}

/// The payload of an entry that is not in memory any more has rotted since it was written, and its block can be read: nothing of it is taken for what it was.
#[test]
fn a_payload_that_has_rotted_is_not_taken_in() {
    let (mut tried, mut found) = (0, 0);
    for seed in 0..6 {
        // Memory keeps the last 32 KiB.
        let mut cluster = queues::begin(seed, 128 << 10);
        queues::work(&mut cluster, 400);
        cluster.happen_until("rest", Cluster::is_quiet);
        cluster.pass(3_000_000);
        let group = cluster.data_group();
        let at = cluster.leader_of(group);
        let log = &cluster.nodes[at].shard.as_ref().expect("it leads").log;
        let (covered, cached_from) = (log.covered(), log.cached_from());
        let rotten = cluster.rot_in_blocks(at, BlockSeq(covered.0 + 1), |view| {
            let is_read = |row: &Entry| row.kind == EntryKind::Control && row.group == group && view.header.block_seq < cached_from;
            view.entries()
                .filter(is_read)
                .filter_map(|row| view.fragments_of(&row).next())
                .map(|piece| piece.offset + piece.length - 1)
                .collect()
        });
        cluster.tell(at, Event::Mesh { from: ShardId(0), message: Message::Stop });
        cluster.happen_until("it has stopped", |cluster| cluster.nodes[at].shard.as_ref().is_some_and(Shard::has_stopped));
        // Whoever was quick to hand over did not need them.
        let is_given_up = cluster.nodes[at].shard.as_ref().is_some_and(|shard| shard.applying.rebuild.is_given_up);
        assert!(rotten > 0 || !is_given_up, "seed {seed}: nothing was wrong");
        (tried, found) = (tried + rotten, found + usize::from(is_given_up));
        cluster.end(at, false);
        cluster.ledger.forget(at);
        cluster.start(at);
        cluster.happen_until("whole replicas", |cluster| cluster.is_healed() && cluster.is_quiet());
        cluster.check();
        cluster.check_replicas();
    }
    assert!(tried > 0 && found > 0, "{tried} payloads have rotted, and {found} stops have found that");
}
