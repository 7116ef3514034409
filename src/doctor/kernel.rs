//! The kernel, its ring, and the limits of a process.

use super::disk::Ground;
use super::finding::{Finding, Topic};
use super::tree::{Tree, read_plain};
use crate::config::Settings;
use crate::ring::probe;
use std::path::Path;

/// Files that a node needs beside its connections: rings, sockets of the mesh, segments, the log.
const FILES_BESIDE: u64 = 1024;
/// What rings take at most where a kernel counts them as locked memory: some hundred KiB each.
const MEMLOCK_PER_SHARD: u64 = 1 << 20;

#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) release: Option<String>,
    /// `kernel.io_uring_disabled`; kernels before 6.6 have none.
    pub(super) ring_disabled: Option<u64>,
    /// What the start of a node would say of rings and the file system; `None` where it was not asked.
    pub(super) ring: Option<Result<(), String>>,
    /// Whose limits these are.
    pub(super) limits_of: String,
    /// `None`: not told. `u64::MAX`: unlimited.
    pub(super) memlock_bytes: Option<u64>,
    pub(super) files: Option<u64>,
    pub(super) shards: u64,
    pub(super) connections: u64,
}

impl Facts {
    pub(super) fn gather(tree: &Tree, settings: &Settings, ground: &Ground) -> Facts {
        let running = pid_of_node(tree, &settings.data_dir);
        let (of, limits) = match running {
            Some(pid) => (format!("the running node ({pid})"), tree.text(&format!("proc/{pid}/limits"))),
            None => ("this shell; the systemd unit has its own".to_owned(), tree.text("proc/self/limits")),
        };
        let limits = limits.unwrap_or_default();
        Facts {
            release: tree.text("proc/sys/kernel/osrelease"),
            ring_disabled: tree.number("proc/sys/kernel/io_uring_disabled"),
            ring: (!tree.is_copy() && ground.in_the_way.is_none()).then(|| ring_of(&ground.dir)),
            limits_of: of,
            memlock_bytes: limit_of(&limits, "Max locked memory"),
            files: limit_of(&limits, "Max open files"),
            shards: u64::from(settings.shards),
            connections: settings.connections_max as u64 * u64::from(settings.shards),
        }
    }
}

/// Without the limits: those of this shell are not those of a node that runs.
fn ring_of(dir: &Path) -> Result<(), String> {
    probe::probe_ring(dir).map(|_| ()).map_err(|error| error.to_string())
}

/// The process that holds the data directory, if it runs: its number stands in the lock file.
pub(super) fn pid_of_node(tree: &Tree, data_dir: &Path) -> Option<u64> {
    if tree.is_copy() {
        return None;
    }
    let pid = read_plain(&data_dir.join("lock"))?.parse().ok()?;
    tree.text(&format!("proc/{pid}/comm")).filter(|comm| comm.starts_with("tramline"))?;
    Some(pid)
}

/// The soft limit in a line of /proc/PID/limits.
pub(super) fn limit_of(limits: &str, name: &str) -> Option<u64> {
    let word = limits.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?;
    if word == "unlimited" { Some(u64::MAX) } else { word.parse().ok() }
}

fn shown(limit: u64) -> String {
    if limit == u64::MAX { "unlimited".to_owned() } else { limit.to_string() }
}

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut topic = Topic::new("kernel");
    match &facts.release {
        None => topic.unknown("version", "/proc does not tell the kernel's version"),
        Some(release) => match probe::judge_release(release) {
            Ok(_) => topic.ok("version", release, "it has all that the ring needs"),
            Err(error) => topic.bad("version", release, error.to_string()),
        },
    }
    match (&facts.ring, facts.ring_disabled) {
        (Some(Ok(())), _) => topic.ok("io_uring", "works", "a ring, and direct synced writes of 4 KiB in the data directory"),
        (Some(Err(why)), _) => topic.bad("io_uring", "does not work", why),
        (None, Some(0)) => topic.ok("io_uring", "permitted", "kernel.io_uring_disabled is 0"),
        (None, Some(value)) => topic.bad(
            "io_uring",
            format!("kernel.io_uring_disabled = {value}"),
            "a node does not start: set it to 0 (tune.sh: io_uring), or with 1 put the node's user into the group of kernel.io_uring_group",
        ),
        (None, None) => topic.unknown("io_uring", "this kernel has no switch for it, and it was not tried"),
    }
    match facts.memlock_bytes {
        None => topic.unknown("memlock", "/proc does not tell the limits"),
        Some(limit) if limit < probe::MEMLOCK_BYTES_MIN => topic.bad(
            "memlock",
            shown(limit),
            format!("{}; of {}", probe::ProbeError::MemlockTooSmall { limit_bytes: limit }, facts.limits_of),
        ),
        Some(limit) if limit >= MEMLOCK_PER_SHARD * facts.shards => {
            topic.ok("memlock", shown(limit), format!("enough for the rings of {} shards; of {}", facts.shards, facts.limits_of))
        }
        Some(limit) => topic.warn(
            "memlock",
            shown(limit),
            format!("rings may count as locked memory: raise it (LimitMEMLOCK=infinity, tune.sh: limits); of {}", facts.limits_of),
        ),
    }
    let needed = facts.connections + FILES_BESIDE;
    match facts.files {
        None => topic.unknown("open files", "/proc does not tell the limits"),
        Some(limit) if limit >= needed => topic.ok("open files", shown(limit), format!("enough for connections.max on every shard; of {}", facts.limits_of)),
        Some(limit) => topic.warn(
            "open files",
            shown(limit),
            format!(
                "connections.max on every shard needs {needed}, and beyond the limit nobody can connect: raise it (LimitNOFILE, tune.sh: limits); of {}",
                facts.limits_of
            ),
        ),
    }
    topic.done()
}
