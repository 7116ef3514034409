//! One glommio executor per shard: placement, recovery, ring, core, loop.
//!
//! The shard's task never gives way: nothing else is on its executor, and each turn of glommio's own rings would cost some 30 us (`docs/decisions/0012`).

use super::clock::Clock;
use super::data_dir::DataDir;
use super::mesh::{Envelope, Hub};
use super::shard_loop::{LoopParts, ShardLoop};
use super::shutdown::Shutdown;
use super::start_disk::FsDisk;
use super::watch::Pulses;
use crate::api::NodeInfo;
use crate::bytes::Warmer;
use crate::config::Settings;
use crate::constants::NODE_FRAME_BYTES_MAX;
use crate::control::Joined;
use crate::effects::Effects;
use crate::ids::ShardId;
use crate::log::{LogConfig, LogIdentity, recover};
use crate::metrics::Health;
use crate::ring::{Ring, RingConfig, RoleLimits};
use crate::shard::{Shard, ShardStart};
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

/// glommio's own registered buffers: nothing uses them, this is its minimum of sense.
const GLOMMIO_IO_BYTES: usize = 64 << 10;
const GLOMMIO_RING_DEPTH: usize = 16;
/// Connections above `connections.max` that may be open for the moment in which they are told so.
const REFUSALS_UNDER_WAY: usize = 64;
/// Receive buffers begin with so much, whoever is at the other end: most frames are smaller, and 10,000 idle connections have 160 MiB.
const RECV_BYTES_FIRST: usize = 16 << 10;
/// A shard brings memory in before it serves, for so long or a page longer: the default's 512 MiB took 0.05 to 0.1 s, and 1.4 to 1.5 where the host of a virtual machine
/// had taken them back (whoever uses 2 MiB first waits 5 ms then, and everybody with it). What is left comes in beside the load, or while
/// all shards sleep where these have all cores.
const PREFAULT_FIRST: Duration = Duration::from_secs(2);
/// The protocol between nodes has its own limits, no settings.
const _: () = {
    use tramline_wire::frame::{HEADER_BYTES, META_BYTES_MAX, PAYLOAD_BYTES_MAX};
    assert!(NODE_FRAME_BYTES_MAX == HEADER_BYTES as u64 + META_BYTES_MAX as u64 + PAYLOAD_BYTES_MAX as u64);
};

/// What one shard's thread needs to begin.
pub(super) struct ShardSeed {
    pub(super) id: ShardId,
    pub(super) settings: Arc<Settings>,
    pub(super) info: Arc<NodeInfo>,
    /// What the cluster told the node when it joined.
    pub(super) joined: Option<Arc<Joined>>,
    /// Somebody has said that the metadata go on with what this node has of them.
    pub(super) is_metadata_forced: bool,
    pub(super) dir: PathBuf,
    pub(super) lock: File,
    pub(super) log_uid_if_new: u64,
    pub(super) listeners: Vec<TcpListener>,
    /// For other nodes; none on a node that is a cluster of one.
    pub(super) node_listener: Option<TcpListener>,
    pub(super) inbox: Receiver<Envelope>,
    pub(super) hub: Arc<Hub>,
    pub(super) health: Arc<Health>,
    pub(super) clock: Clock,
    pub(super) pulses: Arc<Pulses>,
    pub(super) iowq_cpus: Option<Vec<usize>>,
    /// A stop that is asked for ends the bringing in of memory.
    pub(super) shutdown: Shutdown,
    /// Whoever brings the rest of the memory in takes it from here.
    pub(super) warmers: Sender<Warmer>,
    /// Where "serving" or the reason of a failed start is told.
    pub(super) told: Sender<Result<ShardId, String>>,
}

/// Starts a shard's thread; its progress is told through `seed.told`.
pub(super) fn spawn(seed: ShardSeed, cpu: Option<usize>) -> Result<ExecutorJoinHandle<()>, String> {
    let placement = cpu.map_or(Placement::Unbound, Placement::Fixed);
    let id = seed.id;
    LocalExecutorBuilder::new(placement)
        .name(&format!("shard-{id}"))
        .io_memory(GLOMMIO_IO_BYTES)
        .ring_depth(GLOMMIO_RING_DEPTH)
        .spawn(move || async move {
            let told = seed.told.clone();
            match open(seed) {
                Ok(shard_loop) => shard_loop.run(),
                // The receiver waits for every shard; if it is gone the process is ending.
                Err(reason) => drop(told.send(Err(format!("shard {id}: {reason}")))),
            }
        })
        .map_err(|error| {
            format!("shard {id} got no thread of its own: {error}; raise the limit of locked memory (LimitMEMLOCK=infinity), or use fewer shards")
        })
}

fn open(seed: ShardSeed) -> Result<ShardLoop, String> {
    let ShardSeed { id, settings, info, joined, is_metadata_forced, dir, lock, log_uid_if_new, listeners, node_listener, .. } = seed;
    let ShardSeed { inbox, hub, health, clock, pulses, iowq_cpus, shutdown, warmers, told, .. } = seed;
    let mut disk = FsDisk::new(&dir);
    let log_config = log_config(id, &settings, &info, log_uid_if_new);
    let recovered = recover(&mut disk, &log_config).map_err(|error| format!("{}: {error}", dir.display()))?;
    let report = &recovered.report;
    tracing::info!(
        shard = id.0,
        blocks = report.blocks,
        bytes = report.bytes,
        segments_scanned = report.segments_scanned,
        durable_through = report.durable_through.0,
        cut_from = report.cut_from.map(|b| b.0),
        incarnation = report.incarnation.0,
        "log opened"
    );
    let mut ring = Ring::new(ring_config(&settings, dir.clone(), iowq_cpus)).map_err(|error| error.to_string())?;
    ring.register_lock(lock).map_err(|error| error.to_string())?;
    for (file_id, file) in disk.into_files() {
        ring.attach_file(file_id, file);
    }
    hub.set_waker(id, ring.waker());
    let mut effects = Effects::new();
    let start = ShardStart { id, settings: Arc::clone(&settings), info, recovered, joined, is_metadata_forced };
    let shard = Shard::start(start, &mut effects).map_err(|error| error.to_string())?;
    if settings.memory_prefault {
        let mut warmer = shard.warmer();
        let began = Instant::now();
        // Whoever goes on tells of an error.
        while began.elapsed() < PREFAULT_FIRST && !shutdown.is_requested() && matches!(warmer.warm(), Ok(true)) {}
        // A housekeeping thread that has ended brings nothing in; then the first touch does.
        let _ = warmers.send(warmer);
    }
    let on_serving = Box::new(move || drop(told.send(Ok(id))));
    let parts =
        LoopParts { id, settings, ring, shard, effects, inbox, hub, health, clock, pulses, dir, listeners, node_listener, on_serving };
    Ok(ShardLoop::new(parts))
}

fn ring_config(settings: &Settings, dir: PathBuf, iowq_cpus: Option<Vec<usize>>) -> RingConfig {
    let limits = |recv_bytes_max, conns_max| RoleLimits { recv_bytes_first: RECV_BYTES_FIRST, recv_bytes_max, conns_max };
    // The core tells the clients above its limit why; the ring closes without a word when even these are too many.
    let clients_max = settings.connections_max + REFUSALS_UNDER_WAY;
    RingConfig {
        entries: 1024,
        iowq_cpus,
        clients: limits(settings.frame_max_bytes as usize + tramline_wire::frame::HEADER_BYTES, clients_max),
        nodes: limits(NODE_FRAME_BYTES_MAX as usize, settings.cluster_connections_max),
        dir,
    }
}

fn log_config(id: ShardId, settings: &Settings, info: &NodeInfo, log_uid_if_new: u64) -> LogConfig {
    let identity = LogIdentity { cluster_id: info.cluster_id, node: info.node, log_uid_if_new };
    LogConfig {
        segment_bytes: settings.segment_bytes,
        block_bytes_max: settings.block_bytes_max,
        batch_bytes_max: settings.batch_max_bytes,
        writes_in_flight_max: settings.writes_in_flight_max,
        tail_cache_bytes: settings.tail_cache_bytes,
        pool_segments: settings.pool_segments,
        ..LogConfig::new(identity, id, settings.shards)
    }
}

/// The directory of a shard, and one more handle of the data directory's lock.
pub(super) fn place_of(data_dir: &DataDir, id: ShardId) -> Result<(PathBuf, File), super::data_dir::DataDirError> {
    Ok((data_dir.shard_dir(id), data_dir.lock_handle()?))
}
