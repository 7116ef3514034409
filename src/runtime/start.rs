//! A node from its settings to its end.

use super::clock::Clock;
use super::data_dir::{DataDir, DataDirError, Wanted};
use super::executors::{ShardSeed, place_of, spawn};
use super::housekeeping::{self, HousekeepingError};
use super::listen::{self, ListenError};
use super::mesh::{Envelope, Hub};
use super::shutdown::Shutdown;
use super::topology;
use crate::api::NodeInfo;
use crate::config::Settings;
use crate::constants::LOCK_WAIT_US;
use crate::ids::{NodeId, ShardId};
use crate::metrics::{Health, ShardHealth, SnapshotSource};
use crate::ring::probe::{self, ProbeError};
use crate::shard::mesh::Message;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Why a node did not start, or did not end well.
#[derive(Debug)]
pub enum StartError {
    /// The data directory.
    DataDir(DataDirError),
    /// The kernel or its limits.
    Probe(ProbeError),
    /// An address.
    Listen(ListenError),
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
    let first_start_bytes = u64::from(settings.shards) * 2 * settings.segment_bytes;
    let wanted = Wanted {
        shards: settings.shards,
        groups_per_shard: settings.groups_per_shard,
        first_start_bytes,
        lock_wait: Duration::from_micros(LOCK_WAIT_US),
    };
    let data_dir = DataDir::open(&settings.data_dir, &wanted).map_err(StartError::DataDir)?;
    let features = probe::probe(data_dir.path()).map_err(StartError::Probe)?;
    tracing::debug!("kernel: {features:?}");
    let (common, shard_listeners) = listeners(&settings).map_err(StartError::Listen)?;
    let node_listeners = node_listeners(&settings).map_err(StartError::Listen)?;
    let address = |l: &TcpListener| l.local_addr().map_err(|cause| StartError::Io("learn the address listened on", cause));
    let client = address(&common)?;
    let shard_ports = shard_listeners.iter().map(|l| address(l).map(|a| a.port())).collect::<Result<Vec<_>, _>>()?;
    let node_addresses = node_listeners.iter().map(&address).collect::<Result<Vec<_>, _>>()?;
    let identity = data_dir.identity();
    let host = settings.advertise.clone();
    let info = Arc::new(NodeInfo {
        node: identity.node,
        cluster_id: identity.cluster_id,
        host,
        port: client.port(),
        shard_ports,
        disk: 1,
        generation: 0,
        rack: String::new(),
        cluster: None,
    });
    let health = Arc::new(Health::new(settings.shards));
    let (hub, inboxes) = Hub::new(settings.shards);
    let hub = Arc::new(hub);
    let source: Arc<dyn SnapshotSource> = Arc::clone(&hub) as Arc<dyn SnapshotSource>;
    let (warmers, to_warm) = channel();
    let housekeeping = housekeeping::start(&settings, Arc::clone(&health), source, to_warm).map_err(StartError::Housekeeping)?;

    let allowed = topology::allowed_cpus();
    let iowq_cpus = (!settings.unpinned).then(|| topology::housekeeping_cpus(&allowed, &settings.cpus));
    let clock = Clock::new();
    let (told, serving) = channel();
    let mut threads = Vec::new();
    let mut node_listeners = node_listeners.into_iter();
    for ((id, inbox), listener) in (0..settings.shards).map(ShardId).zip(inboxes).zip(shard_listeners) {
        let (dir, lock) = place_of(&data_dir, id).map_err(StartError::DataDir)?;
        let common = common.try_clone().map_err(|cause| StartError::Io("share the listening socket", cause))?;
        let seed = ShardSeed {
            id,
            settings: Arc::clone(&settings),
            info: Arc::clone(&info),
            dir,
            lock,
            log_uid_if_new: random_u64()?,
            listeners: vec![common, listener],
            node_listener: node_listeners.next(),
            inbox,
            hub: Arc::clone(&hub),
            health: Arc::clone(&health),
            clock,
            iowq_cpus: iowq_cpus.clone(),
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

    let started = wait_until_serving(&serving, settings.shards, &shutdown);
    match &started {
        Ok(true) => {
            let admin = housekeeping.admin_address();
            told_ready(&Ready { node: info.node, client, admin, shards: settings.shards });
            if let Some(first) = node_addresses.first() {
                let ports: Vec<String> = node_addresses.iter().map(|address| address.port().to_string()).collect();
                tracing::info!("listening for other nodes on {first}, one port per shard: {}", ports.join(", "));
            }
            tracing::info!("serving clients on {client}, advertised as {}:{}; admin on {admin}", info.host, info.port);
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
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a shard's thread had panicked");
        }
    }
    // Ends the warming, which the housekeeping thread waits for.
    drop(warmers);
    housekeeping.stop();
    started?;
    let failed = health.states().into_iter().find_map(|state| match state {
        ShardHealth::Failed(reason) => Some(reason),
        _ => None,
    });
    match failed {
        Some(reason) => Err(StartError::Failed(reason)),
        None => Ok(()),
    }
}

/// The common listener and one per shard: on the next ports, or all on free ones when the common port is 0.
fn listeners(settings: &Settings) -> Result<(TcpListener, Vec<TcpListener>), ListenError> {
    let wait = Duration::from_micros(LOCK_WAIT_US);
    let common = listen::listen("listen", "--listen", settings.listen, wait)?;
    let of_shard = |shard: u16| {
        let port = if settings.listen.port() == 0 { 0 } else { settings.listen.port() + 1 + shard };
        listen::listen("listen, one port per shard behind it", "--listen", SocketAddr::new(settings.listen.ip(), port), wait)
    };
    let shards = (0..settings.shards).map(of_shard).collect::<Result<Vec<_>, _>>()?;
    Ok((common, shards))
}

/// One listener per shard for other nodes, if there is to be any. docs/REPLICATION.md, 3.1, lets shard 0 listen on its own port and on that of
/// `--cluster-listen`: here these are one. Shard i has the port of `--cluster-listen` plus i, so what `--join` names is shard 0's own, and no shard has
/// two. With port 0 all are free ones.
fn node_listeners(settings: &Settings) -> Result<Vec<TcpListener>, ListenError> {
    let Some(first) = settings.cluster_listen else { return Ok(Vec::new()) };
    let wait = Duration::from_micros(LOCK_WAIT_US);
    let of_shard = |shard: u16| {
        let port = if first.port() == 0 { 0 } else { first.port() + shard };
        listen::listen("cluster.listen, one port per shard", "--cluster-listen", SocketAddr::new(first.ip(), port), wait)
    };
    (0..settings.shards).map(of_shard).collect()
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

/// `Ok(true)` once all shards serve, `Ok(false)` when a stop was asked for before.
fn wait_until_serving(
    serving: &std::sync::mpsc::Receiver<Result<ShardId, String>>,
    shards: u16,
    shutdown: &Shutdown,
) -> Result<bool, StartError> {
    let mut missing = shards;
    while missing > 0 {
        match serving.recv_timeout(Duration::from_millis(100)) {
            Ok(Ok(_)) => missing -= 1,
            Ok(Err(reason)) => return Err(StartError::Shard(reason)),
            Err(RecvTimeoutError::Timeout) if shutdown.is_requested() => return Ok(false),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(StartError::Shard("a shard ended before it served; see the log".to_owned())),
        }
    }
    Ok(true)
}

fn random_u64() -> Result<u64, StartError> {
    let mut bytes = [0; 8];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|cause| StartError::Io("read /dev/urandom", cause))?;
    Ok(u64::from_le_bytes(bytes))
}
