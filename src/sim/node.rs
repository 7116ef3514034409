//! The node under test: its shards over their disks, from start to end. What a process loses when it ends is `Seat`; what stays is the disk.
//!
//! Not here: time and order of events (`world.rs`).

use super::disk::{SimDisk, Tear};
use super::{Dice, Params};
use crate::api::NodeInfo;
use crate::config::{self, DiskMarks, Machine, Settings, Sources};
use crate::effects::{Effects, Token};
use crate::ids::{ConnId, NodeId, ShardId};
use crate::log::{LogConfig, LogIdentity, RecoverError, RecoveryReport, recover};
use crate::mutants::Mutants;
use crate::shard::{Shard, ShardStart};
use std::collections::VecDeque;
use std::sync::Arc;

/// One running shard.
pub(super) struct Seat {
    pub(super) shard: Shard,
    pub(super) effects: Effects,
    /// Frames that found no room, in order of arrival.
    pub(super) blocked: VecDeque<(ConnId, Vec<u8>)>,
    pub(super) retry: bool,
    /// When the core wants to be woken, in its own monotonic time.
    pub(super) deadline_us: u64,
    pub(super) turn_planned: bool,
    pub(super) last_turn_us: u64,
    pub(super) failed: bool,
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

pub(super) struct Node {
    pub(super) seats: Vec<Seat>,
    pub(super) disks: Vec<Disk>,
    pub(super) settings: Arc<Settings>,
    log: LogConfig,
}

impl Node {
    pub(super) fn new(params: &Params, mutants: Mutants, dice: &mut Dice) -> Node {
        let machine = Machine { cpus: vec![0, 1], memory_bytes: 8 << 30, disk_of: |_| None };
        let shards = params.shards.to_string();
        let sorter_segments = params.sorter_segments.to_string();
        let flags = [
            ("data.dir", "."),
            ("shards", shards.as_str()),
            ("unpinned", "true"),
            ("memory.bytes", "64MiB"),
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
        let identity = LogIdentity { cluster_id: [7; 16], node: NodeId(1), log_uid_if_new: dice.next() };
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
        Node { seats: Vec::new(), disks, settings: Arc::new(settings), log }
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
        self.is_up() && self.seats.iter().all(|seat| seat.shard.is_serving())
    }

    /// Starts the process. `interrupt` stops the machine after so many operations of the first shard's start, `fail` is the number of one that ends
    /// with EIO.
    pub(super) fn start(&mut self, interrupt: Option<(u64, Tear, Dice)>, fail: Option<u64>) -> Started {
        assert!(self.seats.is_empty(), "one process at a time");
        let shard_ports = (0..self.log.shards).map(|shard| 7411 + shard).collect();
        let info = NodeInfo { node: NodeId(1), cluster_id: [7; 16], host: "127.0.0.1".into(), port: 7410, shard_ports };
        let info = Arc::new(info);
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
            let start = ShardStart { id, settings: Arc::clone(&self.settings), info: Arc::clone(&info), recovered, peers: Vec::new() };
            let mut effects = Effects::new();
            let shard = match Shard::start(start, &mut effects) {
                Ok(shard) => shard,
                Err(error) => {
                    self.seats.clear();
                    return Started::Refused(error.to_string());
                }
            };
            self.seats.push(Seat {
                shard,
                effects,
                blocked: VecDeque::new(),
                retry: false,
                deadline_us: u64::MAX,
                turn_planned: false,
                last_turn_us: 0,
                failed: false,
            });
        }
        Started::Yes(reports)
    }

    /// The process ends at once: what is under way lands as `tear` says. With `power` what was not synced is lost too.
    pub(super) fn end(&mut self, power: bool, tear: Tear, dice: &mut Dice) {
        self.seats.clear();
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

impl Disk {
    /// The operation `number` ends; `None` when it died with its process.
    pub(super) fn complete(&mut self, number: u64) -> Option<(Token, crate::effects::Outcome)> {
        let index = self.numbers.iter().position(|n| *n == number)?;
        self.numbers.remove(index);
        Some(self.disk.complete(index))
    }
}
