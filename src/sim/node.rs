//! A node: its shards over their disks, from start to end. What a process loses when it ends is `Seat`; what stays is the disk.
//!
//! Not here: time and order of events (`world.rs`).

use super::clock::Clock;
use super::disk::{SimDisk, Tear};
use super::pauses::Pause;
use super::seat_core::{Begin, Core, begin_shard};
use super::stopping::Stop;
use super::{Dice, Params};
use crate::api::NodeInfo;
use crate::config::{self, DiskLevel, DiskMarks, Machine, Settings, Sources};
use crate::control::{Endpoint, Joined, NodeSpec};
use crate::effects::{Effect, Effects, Token};
use crate::ids::{ConnId, NodeId, ShardId};
use crate::log::{LogConfig, LogIdentity, RecoverError, RecoveryReport, recover};
use crate::mutants::Mutants;
use crate::shard::ShardStart;
use std::collections::VecDeque;
use std::sync::Arc;

/// The next disk of a node has a number so much higher: no two nodes have the same.
const DISKS_BETWEEN: u64 = 0x100;

/// One shard of one node, both counted from 0; a node's id is one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ShardAt {
    pub(super) node: usize,
    pub(super) shard: usize,
}

/// One running shard.
pub(super) struct Seat {
    pub(super) core: Box<dyn Core>,
    pub(super) effects: Effects,
    /// Frames of clients that found no room, in order of arrival.
    pub(super) blocked: VecDeque<(ConnId, Vec<u8>)>,
    /// Connections of other nodes whose next frame found no room, in order of arrival. The frame stays in the connection.
    pub(super) blocked_peers: VecDeque<u64>,
    pub(super) retry: bool,
    /// When the core wants to be woken, in its own monotonic time.
    pub(super) deadline_us: u64,
    pub(super) turn_planned: bool,
    pub(super) last_turn_us: u64,
    pub(super) failed: bool,
    pub(super) stop: Stop,
    pub(super) stop_look_planned: bool,
}

/// What stays when the process ends.
pub(super) struct Disk {
    pub(super) disk: SimDisk,
    /// Numbers of the operations under way, beside `SimDisk::under_way`.
    pub(super) numbers: Vec<u64>,
}

/// How a start ended.
pub(super) enum Started {
    Yes(Vec<StartReport>),
    /// The machine stopped in the middle of it.
    Interrupted,
    /// An error of the disk that was on purpose, in these words.
    Failed(String),
    /// Refused with this reason.
    Refused(String),
}

/// What a shard's start found.
pub(super) struct StartReport {
    pub(super) recovery: RecoveryReport,
    pub(super) damage: usize,
    pub(super) lost: usize,
}

/// The file system of a node, as its housekeeping thread sees it.
pub(super) struct Space {
    /// Until when somebody else has all space that is left.
    pub(super) full_until_us: u64,
    /// The stage of the last look.
    pub(super) level: DiskLevel,
    /// When all shards served last.
    pub(super) served_us: u64,
    /// Segments that it holds, 0 for as many as there are.
    pub(super) segments: u64,
}

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) seats: Vec<Seat>,
    pub(super) disks: Vec<Disk>,
    pub(super) settings: Arc<Settings>,
    log: LogConfig,
    /// The address that the others and the clients know.
    host: String,
    /// It says where it listens for other nodes.
    is_member: bool,
    /// What it was told when it joined.
    pub(super) joined: Option<Arc<Joined>>,
    /// Its disk is gone, and it has to be taken in with another one before it starts.
    pub(super) is_lost: bool,
    /// The number of its disk, as the cluster knows it.
    disk_number: u64,
    /// Before that it is not started again.
    pub(super) down_until_us: u64,
    /// Makes what sits on a seat.
    pub(super) begin: Begin,
    /// Counts processes.
    pub(super) life: u64,
    /// The machine has power: it answers for ports that nobody listens on.
    pub(super) has_power: bool,
    pub(super) pause: Pause,
    /// A write of its process ended with an error.
    pub(super) has_failing_disk: bool,
    /// Its process was told to stop in order; the last one has ended so.
    pub(super) is_stopping: bool,
    pub(super) has_ended_in_order: bool,
    pub(super) clock: Clock,
    /// The last write of a dead process lands then: until then it holds the lock of the directory.
    pub(super) lock_free_us: u64,
    /// When the last message from one shard to another arrives.
    pub(super) mesh_last_us: [[u64; 2]; 2],
    /// The disk, and how processes end.
    pub(super) disk_dice: Dice,
    pub(super) start_dice: Dice,
    /// Clients' connections to this node, and its mesh.
    pub(super) net_dice: Dice,
    /// How long it stays down, where there are others.
    pub(super) down_dice: Dice,
    pub(super) slow_until_us: u64,
    pub(super) slow_factor: u64,
    pub(super) space: Space,
}

impl Node {
    pub(super) fn new(seed: u64, index: usize, params: &Params, mutants: Mutants) -> Node {
        let mut dice = Dice::of_node(seed, "node", index);
        let id = NodeId(index as u32 + 1);
        let machine = Machine { cpus: vec![0, 1], memory_bytes: 8 << 30, disk_of: |_| None };
        let shards = params.shards.to_string();
        let sorter_segments = params.sorter_segments.to_string();
        let flags = [
            ("data.dir", "."),
            ("shards", shards.as_str()),
            ("unpinned", "true"),
            ("memory.bytes", if params.is_cluster { "256MiB" } else { "64MiB" }),
            ("groups.per.shard", if params.is_cluster { "2" } else { "4" }),
            ("sorter.segments", sorter_segments.as_str()),
            ("sorter.bytes.per.second", "4MiB"),
            ("disk.warn.free", "30%"),
            ("disk.slow.free", "20%"),
            ("disk.refuse.free", "10%"),
            ("throttle.time", "2s"),
            // Short, so that a client that stops in the middle of a frame is met within a run.
            ("partial.frame.timeout", "5s"),
        ];
        let sources = Sources { flags: flags.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec(), ..Sources::default() };
        let settings = config::load(&sources, &machine).and_then(|all| all.settings(&machine)).expect("the simulator's settings are valid");
        let identity = LogIdentity { cluster_id: [7; 16], node: id, log_uid_if_new: dice.next() };
        let log = LogConfig {
            segment_bytes: params.segment_bytes,
            block_bytes_max: 16 << 10,
            batch_bytes_max: 12 << 10,
            tail_cache_bytes: params.tail_cache_bytes,
            writes_in_flight_max: params.writes_in_flight,
            pool_segments: params.pool_segments,
            fill_write_bytes: 32 << 10,
            fill_idle_us: params.fill_idle_us,
            mutants,
            ..LogConfig::new(identity, ShardId(0), params.shards)
        };
        let disk = || {
            let mut disk = SimDisk::new();
            disk.cannot_exchange = !params.exchanges;
            disk
        };
        let disks = (0..params.shards).map(|_| Disk { disk: disk(), numbers: Vec::new() }).collect();
        // A run of one node is the same as before there were others.
        let host = if params.nodes == 1 && !params.is_cluster { "127.0.0.1".to_owned() } else { format!("10.0.0.{id}") };
        Node {
            id,
            seats: Vec::new(),
            disks,
            settings: Arc::new(settings),
            log,
            host,
            is_member: params.is_cluster,
            joined: None,
            is_lost: false,
            disk_number: if params.is_cluster { u64::from(id.0) } else { 1 },
            down_until_us: 0,
            begin: begin_shard,
            life: 0,
            has_power: true,
            pause: Pause::default(),
            has_failing_disk: false,
            is_stopping: false,
            has_ended_in_order: false,
            clock: clock(index, params, &mut dice),
            lock_free_us: 0,
            mesh_last_us: [[0; 2]; 2],
            disk_dice: Dice::of_node(seed, "disk", index),
            start_dice: Dice::of_node(seed, "starts", index),
            net_dice: Dice::of_node(seed, "net", index),
            down_dice: Dice::of_node(seed, "down", index),
            slow_until_us: 0,
            slow_factor: 1,
            space: Space { full_until_us: 0, level: DiskLevel::Enough, served_us: 0, segments: params.disk_segments },
        }
    }

    /// What it says when it joins a cluster.
    pub(super) fn spec(&self) -> NodeSpec {
        self.info().spec(&self.settings)
    }

    fn info(&self) -> NodeInfo {
        let ports = |first| (0..self.log.shards).map(|shard| first + shard).collect();
        NodeInfo {
            node: self.id,
            cluster_id: [7; 16],
            client: Endpoint { host: self.host.as_str().into(), port: 7410, shard_ports: ports(7411) },
            disk: self.disk_number,
            generation: self.joined.as_ref().map_or(0, |joined| joined.generation),
            rack: String::new(),
            cluster: self.is_member.then(|| Endpoint { host: self.host.as_str().into(), port: 7700, shard_ports: ports(7700) }),
        }
    }

    /// Its disk is gone with everything that was on it, and an empty one is in its place.
    pub(super) fn lose_disk(&mut self) {
        assert!(self.seats.is_empty(), "a process that runs has its disk");
        for Disk { disk, numbers } in &mut self.disks {
            let cannot_exchange = disk.cannot_exchange;
            *disk = SimDisk::new();
            disk.cannot_exchange = cannot_exchange;
            numbers.clear();
        }
        self.disk_number += DISKS_BETWEEN;
        self.log.identity.log_uid_if_new = self.disk_dice.next();
        (self.joined, self.is_lost) = (None, true);
    }

    /// The stages of a disk that fills up, with the log's segments in place of the settings' ones.
    pub(super) fn disk_marks(&self) -> DiskMarks {
        DiskMarks { segment_bytes: self.log.segment_bytes, ..self.settings.disk_marks() }
    }

    /// What the log of shard 0 is opened with.
    #[cfg(feature = "sim")]
    pub(super) fn log_config(&self) -> LogConfig {
        self.log.clone()
    }

    pub(super) fn is_up(&self) -> bool {
        !self.seats.is_empty()
    }

    pub(super) fn is_serving(&self) -> bool {
        self.is_up() && self.seats.iter().all(|seat| seat.core.is_serving())
    }

    /// A shard has stopped after an error of its disk.
    pub(super) fn has_failed_shard(&self) -> bool {
        self.seats.iter().any(|seat| seat.failed)
    }

    /// Whether a write is under way.
    pub(super) fn is_writing(&self) -> bool {
        self.disks.iter().any(|disk| disk.disk.under_way.iter().any(|operation| matches!(operation, Effect::Write { .. })))
    }

    /// Starts the process. `interrupt` stops the machine after so many operations of the first shard's start, `fail` is the number of one that ends
    /// with EIO.
    pub(super) fn start(&mut self, interrupt: Option<(u64, Tear, Dice)>, fail: Option<u64>) -> Started {
        assert!(self.seats.is_empty(), "one process at a time");
        let info = Arc::new(self.info());
        if let Some((ops, tear, dice)) = interrupt {
            self.disks[0].disk.stop_start_after(ops, tear, dice);
        }
        self.disks[0].disk.fail_start_op = fail;
        let mut reports = Vec::new();
        for (id, disk) in (0..).map(ShardId).zip(&mut self.disks) {
            let log = LogConfig { shard: id, ..self.log.clone() };
            let recovered = match recover(&mut disk.disk, &log) {
                Ok(recovered) => recovered,
                Err(error) => {
                    let stopped = matches!(&error, RecoverError::Disk(cause) if cause.errno == super::disk::STOPPED);
                    // It was told, and is gone: nothing is left of what was to come.
                    let failed = fail.is_some() && disk.disk.fail_start_op.is_none();
                    self.seats.clear();
                    return match (stopped, failed) {
                        (true, _) => Started::Interrupted,
                        (_, true) => Started::Failed(error.to_string()),
                        _ => Started::Refused(error.to_string()),
                    };
                }
            };
            disk.disk.start_went_through();
            reports.push(StartReport { recovery: recovered.report.clone(), damage: recovered.damage.len(), lost: recovered.lost.len() });
            let start = ShardStart {
                id,
                settings: Arc::clone(&self.settings),
                info: Arc::clone(&info),
                recovered,
                joined: self.joined.clone(),
                is_metadata_forced: false,
            };
            let mut effects = Effects::new();
            let core = match (self.begin)(start, &mut effects) {
                Ok(core) => core,
                Err(reason) => {
                    self.seats.clear();
                    return Started::Refused(reason);
                }
            };
            self.seats.push(Seat {
                core,
                effects,
                blocked: VecDeque::new(),
                blocked_peers: VecDeque::new(),
                retry: false,
                deadline_us: u64::MAX,
                turn_planned: false,
                last_turn_us: 0,
                failed: false,
                stop: Stop::No,
                stop_look_planned: false,
            });
        }
        Started::Yes(reports)
    }

    /// The process ends at once: what is under way lands as `tear` says. With `power` what was not synced is lost too.
    pub(super) fn end(&mut self, power: bool, tear: Tear) {
        self.seats.clear();
        let dice = &mut self.disk_dice;
        for disk in &mut self.disks {
            disk.numbers.clear();
            disk.disk.start_went_through();
            match power {
                true => disk.disk.crash(tear, dice),
                false => disk.disk.kill(tear, dice),
            }
        }
    }
}

/// The first node's clock is drawn with the parameters. The others have a drift of their own, and a wall clock that was not set with the first one's.
fn clock(index: usize, params: &Params, dice: &mut Dice) -> Clock {
    if index == 0 {
        return Clock::new(params.drift_ppm, 0);
    }
    let (drift_ppm, wall_offset_us) = (dice.below(2001) as i64 - 1000, dice.below(200_000_000) as i64 - 100_000_000);
    let is_even = params.is_calm || params.ruler.is_some();
    Clock::new(if is_even { 0 } else { drift_ppm }, if params.clock_jumps { wall_offset_us } else { 0 })
}

impl Disk {
    /// The operation `number` ends; `None` when it died with its process.
    pub(super) fn complete(&mut self, number: u64) -> Option<(Token, crate::effects::Outcome)> {
        let index = self.numbers.iter().position(|n| *n == number)?;
        self.numbers.remove(index);
        Some(self.disk.complete(index))
    }
}
