//! A node from its settings to its end.

use super::clock::Clock;
use super::data_dir::{DataDir, DataDirError, EmptyDir, Found, Wanted};
use super::executors::{ShardSeed, place_of, spawn};
use super::housekeeping::{self, HousekeepingError};
use super::join::{self, Asking, JoinError, Times};
use super::listen::ListenError;
use super::mesh::{Envelope, Hub};
use super::ports::Ports;
use super::shutdown::Shutdown;
use super::topology;
use super::watch::Pulses;
use crate::config::Settings;
use crate::control::Endpoint;
use crate::ids::{NodeId, ShardId, hex};
use crate::metrics::{Health, ShardHealth, SnapshotSource};
use crate::ring::probe::{self, ProbeError};
use crate::shard::mesh::Message;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use tramline_wire::node::CLUSTER_NONE;

/// How often a start that takes long says what it waits for.
const STILL_STARTING: Duration = Duration::from_secs(10);

/// Why a node did not start, or did not end well.
#[derive(Debug)]
pub enum StartError {
    /// The data directory.
    DataDir(DataDirError),
    /// The kernel or its limits.
    Probe(ProbeError),
    /// An address.
    Listen(ListenError),
    /// No cluster has taken the node in.
    Join(JoinError),
    /// The housekeeping thread.
    Housekeeping(HousekeepingError),
    /// The system refused something small.
    Io(&'static str, io::Error),
    /// A shard did not start.
    Shard(String),
    /// A shard failed while the node ran.
    Failed(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::DataDir(cause) => cause.fmt(f),
            StartError::Probe(cause) => cause.fmt(f),
            StartError::Listen(cause) => cause.fmt(f),
            StartError::Join(cause) => cause.fmt(f),
            StartError::Housekeeping(cause) => cause.fmt(f),
            StartError::Io(doing, cause) => write!(f, "cannot {doing}: {cause}"),
            StartError::Shard(reason) => f.write_str(reason),
            StartError::Failed(reason) => write!(f, "the node stopped after a failure: {reason}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Where a node that serves is reached. Shown, it is the line that `tramline serve` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The node.
    pub node: NodeId,
    /// Address for clients.
    pub client: SocketAddr,
    /// Address of metrics and health.
    pub admin: SocketAddr,
    /// Number of shards.
    pub shards: u16,
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ready node={} client={} admin={} shards={}", self.node, self.client, self.admin, self.shards)
    }
}

/// Runs a node until it is told to stop by a signal. Prints one line on standard output when it accepts connections.
pub fn run(settings: Settings) -> Result<(), StartError> {
    run_told(settings, |ready| {
        let mut out = io::stdout().lock();
        // Whoever started us without a standard output does not wait for the line.
        let _ = writeln!(out, "{ready}").and_then(|()| out.flush());
    })
}

/// As `run`, for a node inside another program: `told` is called once, when the node accepts connections.
pub fn run_told(settings: Settings, told_ready: impl FnOnce(&Ready)) -> Result<(), StartError> {
    let settings = Arc::new(settings);
    let shutdown = Shutdown::new();
    shutdown.listen().map_err(|cause| StartError::Io("listen for signals", cause))?;
    shutdown.limit(Duration::from_micros(settings.shutdown_timeout_us));
    let found = Found::at(&settings.data_dir, &Wanted::of(&settings)).map_err(StartError::DataDir)?;
    let features = probe::probe(found.path()).map_err(StartError::Probe)?;
    tracing::debug!("kernel: {features:?}");
    let ports = Ports::open(&settings)?;
    let data_dir = match settle(found, &settings, &ports, &shutdown) {
        Err(StartError::Join(stopped @ JoinError::Stopped)) => {
            tracing::info!("{stopped}");
            return Ok(());
        }
        settled => settled?,
    };
    let info = Arc::new(ports.info(&settings, data_dir.identity()));
    let Ports { common, shards: shard_listeners, nodes: node_listeners, client, node_addresses, .. } = ports;
    let health = Arc::new(Health::new(settings.shards));
    let (hub, inboxes) = Hub::new(settings.shards);
    let hub = Arc::new(hub);
    let source: Arc<dyn SnapshotSource> = Arc::clone(&hub) as Arc<dyn SnapshotSource>;
    let (warmers, to_warm) = channel();
    let clock = Clock::new();
    let pulses = Pulses::new(clock, settings.shards);
    let allowed = topology::allowed_cpus();
    let is_roomy = topology::has_core_to_spare(&allowed, &settings.cpus, settings.shards);
    let housekeeping = housekeeping::start(&settings, Arc::clone(&health), source, to_warm, Arc::clone(&pulses), is_roomy)
        .map_err(StartError::Housekeeping)?;

    let iowq_cpus = (!settings.unpinned).then(|| topology::housekeeping_cpus(&allowed, &settings.cpus));
    let (told, serving) = channel();
    let mut threads = Vec::new();
    let is_metadata_forced = data_dir.is_to_recover();
    if is_metadata_forced {
        tracing::warn!(
            "this start goes on with what the node has of the cluster's metadata, without a majority: `tramline recover` was given here"
        );
    }
    let mut node_listeners = node_listeners.into_iter();
    for ((id, inbox), listener) in (0..settings.shards).map(ShardId).zip(inboxes).zip(shard_listeners) {
        let (dir, lock) = place_of(&data_dir, id).map_err(StartError::DataDir)?;
        let common = common.try_clone().map_err(|cause| StartError::Io("share the listening socket", cause))?;
        let seed = ShardSeed {
            id,
            settings: Arc::clone(&settings),
            info: Arc::clone(&info),
            joined: data_dir.joined(),
            is_metadata_forced,
            dir,
            lock,
            log_uid_if_new: random_u64()?,
            listeners: vec![common, listener],
            node_listener: node_listeners.next(),
            inbox,
            hub: Arc::clone(&hub),
            health: Arc::clone(&health),
            clock,
            pulses: Arc::clone(&pulses),
            iowq_cpus: iowq_cpus.clone(),
            shutdown: shutdown.clone(),
            warmers: warmers.clone(),
            told: told.clone(),
        };
        let cpu = if settings.unpinned { None } else { settings.cpus.get(usize::from(id.0)).copied() };
        threads.push(spawn(seed, cpu).map_err(StartError::Shard)?);
    }
    drop((told, common));
    let stop_hub = Arc::clone(&hub);
    let shards = settings.shards;
    shutdown.on_request(move || stop_all(&stop_hub, shards));

    let started = wait_until_serving(&serving, &health, info.cluster.as_ref(), &shutdown);
    match &started {
        Ok(true) => {
            if is_metadata_forced {
                data_dir.on_recovered().map_err(StartError::DataDir).unwrap_or_else(|error| tracing::error!("{error}"));
            }
            let admin = housekeeping.admin_address();
            told_ready(&Ready { node: info.node, client, admin, shards: settings.shards });
            if let Some(first) = node_addresses.first() {
                let ports: Vec<String> = node_addresses.iter().map(|address| address.port().to_string()).collect();
                tracing::info!("listening for other nodes on {first}, one port per shard: {}", ports.join(", "));
            }
            tracing::info!("serving clients on {client}, advertised as {}; admin on {admin}", info.client.address());
        }
        Ok(false) => {}
        Err(_) => drop(shutdown.request()),
    }
    if started.is_ok() {
        // Ends at the first signal, or at once when one came before.
        let (stop, stopped) = channel();
        shutdown.on_request(move || {
            let _ = stop.send(());
        });
        let _ = stopped.recv();
        health.stopping();
    }
    for (id, thread) in threads.into_iter().enumerate() {
        // A panic, or an executor that did not begin: its words are the only ones there are.
        if let Err(cause) = thread.join() {
            tracing::error!(shard = id, "the thread of shard {id} ended by itself: {cause}");
        }
    }
    // Ends the warming, which the housekeeping thread waits for.
    drop(warmers);
    housekeeping.stop();
    started?;
    match failure_of(&health) {
        Some(reason) => Err(StartError::Failed(reason)),
        None => Ok(()),
    }
}

/// Makes a directory that is nobody's this node's: the first one of a cluster, or one that a cluster has taken in.
fn settle(found: Found, settings: &Settings, ports: &Ports, shutdown: &Shutdown) -> Result<DataDir, StartError> {
    match found {
        Found::Known(dir) => {
            if !settings.cluster_join.is_empty() {
                let cluster = hex(&dir.identity().cluster_id);
                tracing::info!("{} is node {} of cluster {cluster} already: it joins no other", dir.path().display(), dir.identity().node);
                check_cluster(&dir, settings, ports, shutdown)?;
            }
            Ok(dir)
        }
        Found::Empty(dir) if settings.cluster_join.is_empty() => dir.begin_cluster().map_err(StartError::DataDir),
        Found::Empty(dir) => join_cluster(dir, settings, ports, shutdown),
    }
}

/// Whether what `--join` names is the cluster that the directory is in, as far as anybody says.
fn check_cluster(dir: &DataDir, settings: &Settings, ports: &Ports, shutdown: &Shutdown) -> Result<(), StartError> {
    let asking = Asking {
        seeds: &settings.cluster_join,
        spec: ports.info(settings, dir.identity()).spec(settings),
        cluster_id: dir.identity().cluster_id,
        boot: random_u64()?,
        times: Times::of_known(),
        is_stopped: &|| shutdown.is_requested(),
    };
    join::check_known(&asking).map_err(StartError::Join)
}

fn join_cluster(dir: EmptyDir, settings: &Settings, ports: &Ports, shutdown: &Shutdown) -> Result<DataDir, StartError> {
    let disk = dir.disk_to_join_as().map_err(StartError::DataDir)?;
    let asking = Asking {
        seeds: &settings.cluster_join,
        spec: ports.spec(settings, disk),
        cluster_id: CLUSTER_NONE,
        boot: random_u64()?,
        times: Times::default(),
        is_stopped: &|| shutdown.is_requested(),
    };
    let told = join::join(&asking).map_err(StartError::Join)?;
    let dir = dir.join(disk, told.joined, &told.bytes).map_err(StartError::DataDir)?;
    let identity = dir.identity();
    tracing::info!(
        "joined cluster {} as node {}, generation {}; told by {}",
        hex(&identity.cluster_id),
        identity.node,
        identity.generation,
        told.by
    );
    Ok(dir)
}

fn stop_all(hub: &Hub, shards: u16) {
    for id in (0..shards).map(ShardId) {
        // An inbox is full only for moments; the signal thread can wait for one.
        let mut envelope = Envelope::Message { from: id, message: Message::Stop };
        while let Err(back) = hub.send(id, envelope) {
            envelope = back;
            std::thread::yield_now();
        }
    }
}

/// `Ok(true)` once all shards serve, `Ok(false)` when a stop was asked for before. Without a limit: a long log takes its time, and in a cluster nobody serves
/// before a majority is there. One that fails before it has served never does.
fn wait_until_serving(
    serving: &Receiver<Result<ShardId, String>>,
    health: &Health,
    cluster: Option<&Endpoint>,
    shutdown: &Shutdown,
) -> Result<bool, StartError> {
    let shards = health.states().len() as u16;
    let mut missing: Vec<ShardId> = (0..shards).map(ShardId).collect();
    let mut told = Instant::now();
    while !missing.is_empty() {
        match serving.recv_timeout(Duration::from_millis(100)) {
            Ok(Ok(id)) => missing.retain(|shard| *shard != id),
            // A shard that is told to stop ends before it has served.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) if shutdown.is_requested() => return Ok(false),
            Ok(Err(reason)) => return Err(StartError::Shard(reason)),
            Err(RecvTimeoutError::Timeout) => {
                if let Some(reason) = failure_of(health) {
                    return Err(StartError::Shard(reason));
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Err(StartError::Shard("a shard ended before it served; see the log".to_owned())),
        }
        if told.elapsed() >= STILL_STARTING && !missing.is_empty() {
            told = Instant::now();
            tracing::info!("still starting: {}", what_is_missing(&missing, shards, cluster));
        }
    }
    Ok(true)
}

/// Why a shard has failed, if one has.
fn failure_of(health: &Health) -> Option<String> {
    health.states().into_iter().find_map(|state| match state {
        ShardHealth::Failed(reason) => Some(reason),
        _ => None,
    })
}

fn what_is_missing(missing: &[ShardId], shards: u16, cluster: Option<&Endpoint>) -> String {
    let names = missing.iter().map(ShardId::to_string).collect::<Vec<_>>().join(", ");
    let front = format!("{} of {shards} shards do not serve yet ({names}): their logs are being read", missing.len());
    match cluster {
        None => front,
        Some(Endpoint { host, port, .. }) => {
            format!(
                "{front}, or they wait for the other nodes, of which a majority has to run and to reach this one at {host}, port {port} and those of its other shards"
            )
        }
    }
}

fn random_u64() -> Result<u64, StartError> {
    let mut bytes = [0; 8];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|cause| StartError::Io("read /dev/urandom", cause))?;
    Ok(u64::from_le_bytes(bytes))
}
