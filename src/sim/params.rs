//! What a seed draws before it begins: shape of the nodes, load, and how often which fault happens.
//!
//! Not here: the draws during the run.

use super::dice::Dice;
use std::fmt;

/// Which faults a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// None: for speed and for comparing. One shard, 1,000 requests per second.
    Calm,
    /// Crashes, kills, cut connections, slow and failing disks, a full disk, clock jumps; the disk keeps what it was given.
    Faults,
    /// As `Faults`, and the disk loses, flips and misplaces what it was given.
    Disk,
    /// A random part of all of them, with random rates.
    Swarm,
    /// Whole clusters of 1, 3, 4 or 5 nodes: ends of one process and of all, pauses, cuts between nodes, slow disks; of one node at a time the disk rots, is lost or is full;
    /// orderly stops, writes that fail.
    Cluster,
}

impl Profile {
    /// By its name on the command line.
    pub fn of(name: &str) -> Option<Profile> {
        Profile::ALL.into_iter().find(|profile| profile.to_string() == name)
    }

    /// All of them.
    pub const ALL: [Profile; 5] = [Profile::Calm, Profile::Faults, Profile::Disk, Profile::Swarm, Profile::Cluster];
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Profile::Calm => "calm",
            Profile::Faults => "faults",
            Profile::Disk => "disk",
            Profile::Swarm => "swarm",
            Profile::Cluster => "cluster",
        })
    }
}

/// The draws. Times in simulated microseconds; a mean of 0 means never.
#[derive(Clone, Debug)]
pub struct Params {
    /// Nothing goes wrong: what is late then is late by itself.
    pub is_calm: bool,
    /// The nodes are one cluster; else each is a cluster of one.
    pub is_cluster: bool,
    /// Nodes, 1 to 5.
    pub nodes: usize,
    /// Shards of each node, 1 or 2.
    pub shards: u16,
    /// Connected clients.
    pub clients: u64,
    /// Streams that are open at the same time, at most.
    pub streams: u64,
    /// Members of consumer groups.
    pub members: u64,
    /// Mean time between two steps of all of them together.
    pub member_every_us: u64,
    /// Consumers of queues.
    pub consumers: u64,
    /// Mean time between two steps of all of them together.
    pub consumer_every_us: u64,
    /// Mean time between two operations of all clients together.
    pub operation_every_us: u64,
    /// Operations before faults end.
    pub operations: u64,
    /// Simulated time before faults end, at least.
    pub time_us: u64,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Writes under way at most.
    pub writes_in_flight: u32,
    /// Bytes of the tail cache.
    pub tail_cache_bytes: usize,
    /// Bytes each partition keeps, or none for everything.
    pub retention_bytes: Option<u64>,
    /// Segments that are sorted together, 0 for none.
    pub sorter_segments: u32,
    /// Free files that the log keeps ready.
    pub pool_segments: u32,
    /// How long the log has to be idle until such a file is filled.
    pub fill_idle_us: u64,
    /// Largest value.
    pub value_bytes_max: u64,
    /// Mean time between two ends of the process.
    pub crash_every_us: u64,
    /// Share of these in which the power goes, so that what was not synced is lost, in percent.
    pub power_percent: u64,
    /// Mean time between two cut connections.
    pub cut_every_us: u64,
    /// One write, of this many, is short.
    pub short_write_in: u64,
    /// One write, of this many, ends with EIO.
    pub write_error_in: u64,
    /// One read, of this many, ends with EIO.
    pub read_error_in: u64,
    /// One operation on names, of this many, ends with EIO, and was carried out or not.
    pub dir_error_in: u64,
    /// Mean time between two slow periods of the disk.
    pub slow_every_us: u64,
    /// Mean time between two periods without space.
    pub full_every_us: u64,
    /// Segments that the file system holds, 0 for as many as there are.
    pub disk_segments: u64,
    /// Mean time between two faults of what is stored: flipped, lost, misplaced, unreadable.
    pub decay_every_us: u64,
    /// Mean time between two lost disks of a cluster.
    pub lose_disk_every_us: u64,
    /// Mean time between two rounds in which nodes of a cluster are restarted in order.
    pub restart_every_us: u64,
    /// Mean time between two periods in which the disk of one node of a cluster is full.
    pub fill_every_us: u64,
    /// Parts per million that the node's clock is fast (or slow, below zero).
    pub drift_ppm: i64,
    /// Whether the wall clock jumps between starts.
    pub clock_jumps: bool,
    /// Whether the file system exchanges two names at once.
    pub exchanges: bool,
    /// Mean time between two pauses of a process: it does nothing for a while, then goes on.
    pub pause_every_us: u64,
    /// Mean time between two cuts of the network between nodes.
    pub link_cut_every_us: u64,
    /// Mean time between two power cuts of all nodes at once.
    pub blackout_every_us: u64,
    /// One piece of what travels between nodes, of this many, comes with a bit flipped that the network's own sums do not see.
    pub flip_in: u64,
    /// So often a node that has begun to lead a group gets into trouble at once, or another one does, in percent.
    pub strike_percent: u64,
    /// One operation, of this many, is the operator's: moves of replicas, nodes that stand aside; 0 for none.
    pub operator_in: u64,
    /// Of 100 idempotent clients of a cluster, those that send again to the node that they sent to before, and not to whoever leads by then.
    pub stubborn_percent: u64,
    /// Constant times instead of drawn ones.
    pub ruler: Option<Ruler>,
}

/// Times that are the same each time, so that the time an answer takes can be compared with a formula, to the microsecond. No size and no cycle of a
/// shard's loop costs anything.
#[derive(Clone, Debug)]
pub struct Ruler {
    /// What an operation of a node's disk takes, by node.
    pub disk_us: Vec<u64>,
    /// What a frame takes from one node to another: by the node it leaves, then by the one it reaches.
    pub way_us: Vec<Vec<u64>>,
    /// What a frame takes between a client and a node, each way.
    pub client_way_us: u64,
}

/// What a log waits for by default: in most runs 0 instead, so that files are filled although the load never rests.
const FILL_IDLE_US: u64 = 10_000;

/// In three of ten seeds there are none: what members do closes blocks at once, and hides what happens to those that are left open.
fn draw_members(seed: u64) -> u64 {
    let mut dice = Dice::stream(seed, "member count");
    if dice.chance(30) { 0 } else { dice.within(3..9) }
}

/// In three of ten seeds there are none, as with members: what queues have to say closes blocks, too.
fn draw_consumers(seed: u64) -> u64 {
    let mut dice = Dice::stream(seed, "consumer count");
    if dice.chance(30) { 0 } else { dice.within(2..6) }
}

impl Params {
    /// Draws for `seed`.
    pub fn draw(seed: u64, profile: Profile) -> Params {
        let mut dice = Dice::stream(seed, "params");
        let second = 1_000_000;
        let mut params = Params {
            is_calm: profile == Profile::Calm,
            is_cluster: false,
            nodes: 1,
            shards: 1 + dice.below(2) as u16,
            clients: dice.within(2..9),
            streams: dice.within(1..4),
            members: draw_members(seed),
            member_every_us: 5000,
            consumers: draw_consumers(seed),
            consumer_every_us: 10_000,
            operation_every_us: 2500,
            operations: 20_000,
            time_us: 60 * second,
            segment_bytes: [128 << 10, 256 << 10, 512 << 10][dice.below(3) as usize],
            writes_in_flight: dice.within(1..5) as u32,
            tail_cache_bytes: [64 << 10, 256 << 10, 1 << 20][dice.below(3) as usize],
            retention_bytes: dice.chance(70).then(|| dice.within(16..200) << 10),
            sorter_segments: if dice.chance(10) { 0 } else { dice.within(2..7) as u32 },
            pool_segments: Dice::stream(seed, "pool").within(1..4) as u32,
            fill_idle_us: 0,
            value_bytes_max: [100, 400, 1500][dice.below(3) as usize],
            crash_every_us: dice.within(4..20) * second,
            power_percent: dice.below(101),
            cut_every_us: dice.within(1..10) * second,
            short_write_in: dice.within(50..1000),
            write_error_in: dice.within(5000..40_000),
            read_error_in: dice.within(200..2000),
            slow_every_us: dice.within(5..30) * second,
            full_every_us: dice.within(10..60) * second,
            disk_segments: 0,
            decay_every_us: 0,
            lose_disk_every_us: 0,
            restart_every_us: 0,
            fill_every_us: 0,
            drift_ppm: dice.below(2001) as i64 - 1000,
            clock_jumps: dice.chance(50),
            dir_error_in: dice.within(1000..10_000),
            exchanges: profile == Profile::Calm || !Dice::stream(seed, "exchanges").chance(10),
            pause_every_us: 0,
            link_cut_every_us: 0,
            blackout_every_us: 0,
            flip_in: 0,
            strike_percent: 0,
            operator_in: 0,
            stubborn_percent: 0,
            ruler: None,
        };
        if profile == Profile::Cluster {
            params.become_cluster(seed);
            return params;
        }
        let mut rates = [
            &mut params.crash_every_us,
            &mut params.cut_every_us,
            &mut params.short_write_in,
            &mut params.write_error_in,
            &mut params.read_error_in,
            &mut params.slow_every_us,
            &mut params.full_every_us,
            &mut params.dir_error_in,
        ];
        match profile {
            Profile::Calm => {
                rates.iter_mut().for_each(|rate| **rate = 0);
                params.operation_every_us = 1000;
                params.operations = 60_000;
                (params.shards, params.drift_ppm, params.clock_jumps) = (1, 0, false);
                // As on a node by default, the cache holds what readers at the tail want; who seeks reads from the disk. With 1 MiB, half a second
                // of this load, a run without retention read 2.3 GB from the disk for 0.4 GB of answers; with 8 MiB it was an eighth faster, with 32
                // not more.
                (params.tail_cache_bytes, params.streams) = (8 << 20, 1);
                // Each reads everything: with more of them a run measures how fast the clients compare. And topics have a retention: without it who
                // seeks reads all that was ever written, scattered, 2 GB in a run.
                params.clients = 3;
                params.retention_bytes.get_or_insert(128 << 10);
                // As few as show that groups and queues work here too: what is measured is records.
                (params.members, params.member_every_us) = (2, 50_000);
                (params.consumers, params.consumer_every_us) = (2, 200_000);
                // Some 200 segments are filled, sealed, sorted and dropped in a run.
                params.segment_bytes = 1 << 20;
                params.fill_idle_us = FILL_IDLE_US;
            }
            Profile::Faults if dice.chance(40) => params.disk_segments = u64::from(params.shards) * dice.within(8..40),
            Profile::Faults => {}
            Profile::Disk => params.decay_every_us = dice.within(2..15) * second,
            Profile::Swarm => {
                // Each kind of fault is there or not, and then more or less often: rare company makes rare states.
                for rate in &mut rates {
                    **rate = if dice.chance(50) { 0 } else { (**rate * dice.within(20..300) / 100).max(1) };
                }
                params.decay_every_us = if dice.chance(40) { dice.within(1..30) * second } else { 0 };
                params.operation_every_us = dice.within(500..3000);
                params.fill_idle_us = if Dice::stream(seed, "fill").chance(50) { FILL_IDLE_US } else { 0 };
            }
            Profile::Cluster => unreachable!("drawn above"),
        }
        params
    }

    /// A fifth of the load and of the time, with faults three times as often: a run costs a fifth, so that many seeds can be looked at. What takes long to come
    /// about (segments that are sealed and sorted, moves of replicas, rot that is healed) is seldom in it.
    pub fn make_brief(&mut self) {
        const SHORTER: u64 = 5;
        const OFTENER: u64 = 3;
        self.operations /= SHORTER;
        self.time_us /= SHORTER;
        let faults = [
            &mut self.crash_every_us,
            &mut self.cut_every_us,
            &mut self.slow_every_us,
            &mut self.full_every_us,
            &mut self.decay_every_us,
            &mut self.lose_disk_every_us,
            &mut self.restart_every_us,
            &mut self.fill_every_us,
            &mut self.pause_every_us,
            &mut self.link_cut_every_us,
            &mut self.blackout_every_us,
        ];
        faults.into_iter().for_each(|every_us| *every_us /= OFTENER);
    }

    /// Several nodes, and what goes wrong between them.
    fn become_cluster(&mut self, seed: u64) {
        let mut dice = Dice::stream(seed, "cluster");
        let second = 1_000_000;
        self.is_cluster = true;
        self.nodes = [3, 3, 3, 3, 5, 3, 3, 3, 3, 1][dice.below(10) as usize];
        self.shards = if dice.chance(10) { 2 } else { 1 };
        self.clients = dice.within(2..6);
        (self.members, self.consumers, self.streams) = (0, 0, 0);
        self.operation_every_us = dice.within(2500..8000);
        self.operations = 1000;
        self.time_us = dice.within(7..12) * second;
        // In three of ten seeds nothing is sealed: all that a replica has ever had is compared. In the others segments are so small that sealing, sorting and
        // checkpoints happen all the time, and a follower that was away needs a snapshot (8 segments behind).
        let mut segments = Dice::stream(seed, "cluster segments");
        match segments.chance(30) {
            true => (self.segment_bytes, self.pool_segments, self.sorter_segments) = (16 << 20, 1, 0),
            false => self.segment_bytes = [128 << 10, 256 << 10][segments.below(2) as usize],
        }
        (self.retention_bytes, self.fill_idle_us) = (None, FILL_IDLE_US);
        // Where there is a node more than replicas, an operator moves them.
        let mut operator = Dice::stream(seed, "cluster operator");
        self.nodes = if self.nodes == 3 && operator.chance(35) { 4 } else { self.nodes };
        self.operator_in = if self.nodes > 3 && operator.chance(80) { operator.within(10..60) } else { 0 };
        let mut stubborn = Dice::stream(seed, "stubborn clients");
        self.stubborn_percent = if stubborn.chance(40) { stubborn.within(20..80) } else { 0 };
        (self.read_error_in, self.dir_error_in) = (0, 0);
        (self.full_every_us, self.disk_segments) = (0, 0);
        self.crash_every_us = dice.within(4..25) * second;
        self.pause_every_us = dice.within(3..20) * second;
        self.link_cut_every_us = dice.within(2..10) * second;
        self.blackout_every_us = dice.within(5..25) * second;
        self.flip_in = dice.within(2000..20_000);
        self.slow_every_us = dice.within(1..8) * second;
        self.strike_percent = dice.within(5..30);
        // One disk at a time rots, or is lost.
        let mut disks = Dice::stream(seed, "cluster disks");
        self.decay_every_us = if disks.chance(45) { disks.within(300_000..3_000_000) } else { 0 };
        self.lose_disk_every_us = if disks.chance(35) { disks.within(2..8) * second } else { 0 };
        // In a quarter of the seeds an operator restarts nodes; the others are what they were before he came.
        let mut restarts = Dice::stream(seed, "orderly stops");
        self.restart_every_us = if restarts.chance(25) { restarts.within(1..6) * second } else { 0 };
        // So it is with disks that fill up, one at a time, and with writes that fail.
        let mut spaces = Dice::stream(seed, "full disks");
        self.fill_every_us = if spaces.chance(25) { spaces.within(1..6) * second } else { 0 };
        let mut failures = Dice::stream(seed, "failing disks");
        self.write_error_in = if failures.chance(25) { failures.within(500..8000) } else { 0 };
        // Each kind of fault is there or not: what is rare alone shows in rare company.
        let kinds = [
            &mut self.crash_every_us,
            &mut self.cut_every_us,
            &mut self.short_write_in,
            &mut self.slow_every_us,
            &mut self.pause_every_us,
            &mut self.link_cut_every_us,
            &mut self.blackout_every_us,
            &mut self.flip_in,
            &mut self.strike_percent,
        ];
        for kind in kinds {
            *kind = if dice.chance(30) { 0 } else { *kind };
        }
    }
}
