//! The housekeeping thread: everything that is not on the data path and may use ordinary libraries. Runs the admin pages and a slow tick.
//!
//! Invariants: one thread, on cores that no shard has (as long as there are any); started before the shards, so that /readyz can say "starting"
//! while logs are recovered; stopped after them, so that it can say "shutting down".
//!
//! Not here: the pages (`admin/`), the shards (`executors.rs`).

use super::admin_listener::AdminListener;
use super::watch::{Pulses, Watch};
use super::{listen, logging, topology};
use crate::admin::{Admin, NodeFacts};
use crate::bytes::Warmer;
use crate::config::{DiskLevel, Settings};
use crate::constants;
use crate::metrics::{Health, SnapshotSource};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How often repeated log messages, the shards' loops and the disk's free space are looked at. In between a shard takes no more segments than this look allowed.
const TICK: Duration = Duration::from_secs(1);

/// Shards that have slept for so long have nothing to do: one with a hundred records a second wakes more often.
const REST: Duration = Duration::from_millis(10);

/// The running thread.
#[derive(Debug)]
pub struct Housekeeping {
    admin: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// Why it could not be started.
#[derive(Debug)]
pub enum HousekeepingError {
    /// The admin address.
    Listen(listen::ListenError),
    /// Thread or runtime.
    Start(io::Error),
}

impl fmt::Display for HousekeepingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HousekeepingError::Listen(error) => error.fmt(f),
            HousekeepingError::Start(error) => {
                write!(f, "cannot start the housekeeping thread: {error}; check the limits of threads and open files (ulimit -u, -n)")
            }
        }
    }
}

impl std::error::Error for HousekeepingError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            HousekeepingError::Listen(error) => Some(error),
            HousekeepingError::Start(error) => Some(error),
        }
    }
}

/// Starts the thread; the admin pages answer when this returns. `is_roomy`: there is a core for what it does beside the shards. Waits for the admin port as long as for the data directory's lock.
pub(super) fn start(
    settings: &Settings,
    health: Arc<Health>,
    source: Arc<dyn SnapshotSource>,
    to_warm: Receiver<Warmer>,
    pulses: Arc<Pulses>,
    is_roomy: bool,
) -> Result<Housekeeping, HousekeepingError> {
    let wait = Duration::from_micros(constants::LOCK_WAIT_US);
    let listener = listen::listen("admin.listen", "--admin", settings.admin_listen, wait).map_err(HousekeepingError::Listen)?;
    let admin = listener.local_addr().map_err(HousekeepingError::Start)?;
    let node = NodeFacts {
        data_dir: settings.data_dir.clone(),
        disk_of: topology::disk_of,
        disk_marks: settings.disk_marks(),
        started: Instant::now(),
        suppressed: logging::suppressed,
    };
    let allowed = topology::allowed_cpus();
    let cpus = topology::housekeeping_cpus(&allowed, &settings.cpus);
    publish_disk(&node, &health);
    let pages = Arc::new(Admin::new(Arc::clone(&health), source, node.clone(), Duration::from_millis(constants::SNAPSHOT_WAIT_MS)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().map_err(HousekeepingError::Start)?;
    listener.set_nonblocking(true).map_err(HousekeepingError::Start)?;
    let listener = {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(listener).map_err(HousekeepingError::Start)?
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::Builder::new().name("tramline-house".to_owned()).spawn(move || {
        if cpus.len() < allowed.len() {
            pin(&cpus);
        }
        let beside = (!is_roomy).then(|| Arc::clone(&pulses));
        runtime.block_on(async move {
            let mut watch = Watch::new(pulses);
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(TICK).await;
                    logging::report_repeats();
                    publish_disk(&node, &health);
                    watch.look();
                }
            });
            // On a thread of its own: it would hold up the pages.
            tokio::task::spawn_blocking(move || keep_warm(&to_warm, beside.as_deref()));
            let served = axum::serve(AdminListener::new(listener), pages.router());
            tokio::select! {
                // axum retries failed accepts itself, so it only ends with the process.
                ended = served.into_future() => if let Err(error) = ended { tracing::error!("the admin pages ended: {error}; restart the node to have them back") },
                _ = stopped => {}
            }
        });
    });
    Ok(Housekeeping { admin, stop, thread: thread.map_err(HousekeepingError::Start)? })
}

impl Housekeeping {
    /// Where the admin pages answer (the port picked, if the setting said 0).
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Ends the thread. Pages under way are cut off.
    pub fn stop(self) {
        // A receiver that is gone means that the thread has ended already.
        let _ = self.stop.send(());
        if self.thread.join().is_err() {
            tracing::error!("the housekeeping thread had panicked");
        }
    }
}

/// Brings the shards' memory in ahead of its use, until the last sender is dropped; where it has no core that is not `beside` a shard, while all of them sleep.
fn keep_warm(to_warm: &Receiver<Warmer>, beside: Option<&Pulses>) {
    let mut cold: VecDeque<Warmer> = VecDeque::new();
    let mut rest = None;
    loop {
        let may_go_on = !cold.is_empty() && (beside.is_none() || rest.is_some());
        // A step at a time, so that a stop is not kept waiting.
        match to_warm.recv_timeout(if may_go_on { Duration::ZERO } else { TICK }) {
            Ok(warmer) => cold.push_back(warmer),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if !cold.is_empty() && beside.is_some_and(|shards| !is_at_rest(shards, &mut rest)) {
            continue;
        }
        let Some(mut warmer) = cold.pop_front() else { continue };
        match warmer.warm() {
            Ok(true) => cold.push_back(warmer),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!("memory cannot be brought in ahead of its use ({error}); the first use of each page is slower");
            }
        }
    }
}

/// Whether all shards sleep and have done so for a while, and `rest` is which sleep that is. One that works gives its core away when it waits for the disk, and gets it
/// back from a thread like this one with the next tick only: records one at a time had a p99 of 4.0 ms in the 2 s behind a start.
fn is_at_rest(shards: &Pulses, rest: &mut Option<u64>) -> bool {
    let now = shards.rest();
    if rest.is_none() || now != *rest {
        std::thread::sleep(REST);
        *rest = shards.rest().filter(|later| now == Some(*later));
    }
    rest.is_some()
}

/// A failure is only worth a message: the thread works anywhere.
fn pin(cpus: &[usize]) {
    let mut set = rustix::thread::CpuSet::new();
    cpus.iter().filter(|cpu| **cpu < rustix::thread::CpuSet::MAX_CPU).for_each(|cpu| set.set(*cpu));
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        tracing::warn!("the housekeeping thread could not be kept off the shards' cores ({error}); latencies may suffer");
    }
}

/// Tells the shards how much space there is, and whoever reads the log when the stage changes.
fn publish_disk(node: &NodeFacts, health: &Health) {
    let Some(disk) = (node.disk_of)(&node.data_dir) else { return };
    let marks = &node.disk_marks;
    let look = marks.look(disk);
    let before = health.set_disk(look);
    if look.level == before.level {
        return;
    }
    let (free, dir) = (disk.free_bytes >> 20, node.data_dir.display());
    let slow = look.slow_bytes >> 20;
    match look.level {
        DiskLevel::Refuse => tracing::error!(
            "{free} MiB are free for {dir}, and disk.refuse.free keeps {} MiB: no segment is added any more, and produce is refused once the last one is full; free space, lower retention, or add disk",
            look.refuse_bytes >> 20
        ),
        DiskLevel::Slow => tracing::warn!(
            "{free} MiB are free for {dir}, below disk.slow.free ({slow} MiB): producers are slowed down; free space, lower retention, or add disk"
        ),
        DiskLevel::Low => tracing::warn!(
            "{free} MiB are free for {dir}, below disk.warn.free; below disk.slow.free ({slow} MiB) producers are slowed down, and refused when less than {} MiB would stay free",
            look.refuse_bytes >> 20
        ),
        DiskLevel::Enough => tracing::info!("{free} MiB are free for {dir}: enough again"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::Clock;
    use super::*;
    use crate::ids::ShardId;
    use crate::metrics::{ShardGone, SnapshotRequest};
    use std::io::{Read, Write};
    use std::net::TcpStream;

    struct NoShards;
    impl SnapshotSource for NoShards {
        fn shards(&self) -> u16 {
            1
        }
        fn request(&self, _: ShardId, _: SnapshotRequest) -> Result<(), ShardGone> {
            Err(ShardGone)
        }
    }

    fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn memory_comes_in_while_no_shard_beside_it_is_awake() {
        let pulses = Pulses::new(Clock::new(), 1);
        let mut rest = None;
        assert!(!is_at_rest(&pulses, &mut rest), "it has not begun");
        pulses.sleeps(ShardId(0), u64::MAX);
        assert!(is_at_rest(&pulses, &mut rest));
        let since = Instant::now();
        (0..1000).for_each(|_| assert!(is_at_rest(&pulses, &mut rest)));
        assert!(since.elapsed() < REST * 1000, "it waits at the first look only");
        pulses.wakes(ShardId(0));
        assert!(!is_at_rest(&pulses, &mut rest));
        pulses.sleeps(ShardId(0), u64::MAX);
        assert!(rest.is_none() && is_at_rest(&pulses, &mut rest), "another sleep is looked at anew");
    }

    #[test]
    fn the_pages_answer_from_start_to_stop() {
        let machine = topology::machine();
        let flags =
            [("data.dir", "."), ("admin.listen", "127.0.0.1:0"), ("listen", "127.0.0.1:0")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let sources = crate::config::Sources { flags: flags.to_vec(), ..Default::default() };
        let settings = crate::config::load(&sources, &machine).unwrap().settings(&machine).unwrap();
        let (warmers, to_warm) = std::sync::mpsc::channel();
        let pulses = Pulses::new(Clock::new(), 1);
        let house = start(&settings, Arc::new(Health::new(1)), Arc::new(NoShards), to_warm, pulses, true).unwrap();
        let address = house.admin_address();
        assert!(get(address, "/livez").starts_with("HTTP/1.1 200"));
        let ready = get(address, "/readyz");
        assert!(ready.starts_with("HTTP/1.1 503") && ready.ends_with("shard 0 is starting\n"), "{ready}");
        assert!(get(address, "/metrics").contains("tramline_shard_ready{shard=\"0\"} 0"));
        assert!(get(address, "/").contains("/metrics") && get(address, "/none").starts_with("HTTP/1.1 404"));
        drop(warmers);
        house.stop();
        assert!(TcpStream::connect(address).is_err());
    }

    #[test]
    fn the_disks_level_is_published() {
        let node = |free: u64| {
            let free = crate::config::SpaceMark { part: None, bytes: Some(free) };
            NodeFacts {
                data_dir: ".".into(),
                disk_of: topology::disk_of,
                disk_marks: crate::config::DiskMarks { warn: free, slow: free, refuse: free, segment_bytes: 1, shards: 1 },
                started: Instant::now(),
                suppressed: logging::suppressed,
            }
        };
        let health = Health::new(1);
        publish_disk(&node(u64::MAX), &health);
        assert_eq!((health.disk().level, health.disk().segments), (DiskLevel::Refuse, 0));
        publish_disk(&node(0), &health);
        assert_eq!(health.disk().level, DiskLevel::Enough);
        assert!(health.disk().segments > 0 && health.disk().free_bytes > 0);
    }
}
