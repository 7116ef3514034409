//! The machine a result belongs to: a figure without it means nothing.

use serde::Serialize;
use std::path::Path;
use std::process::Command;

/// Facts for the result file.
#[derive(Clone, Debug, Serialize)]
pub struct Environment {
    /// Commit of the tree the binaries were built from; `+` behind it when it was changed.
    pub commit: String,
    /// Output of `tramline --version`.
    pub tramline: String,
    /// Kernel release.
    pub kernel: String,
    /// Model of the processor.
    pub cpu: String,
    /// Processors on line.
    pub cpus: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Load average over one minute, at the start and at the end: well above 0 at the start means that others disturb.
    pub load_average: [f64; 2],
    /// The disk below the data directory.
    pub disk: Disk,
    /// UTC seconds at the start.
    pub started_utc_s: u64,
    /// How long it took, in seconds.
    pub took_s: f64,
    /// Whether the driver was built in release mode (the broker is built with it).
    pub release_build: bool,
}

/// Facts about the disk.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Disk {
    /// Type of the file system.
    pub file_system: String,
    /// Its mount options.
    pub mount_options: String,
    /// Device number, major:minor.
    pub device: String,
    /// `write back` or `write through`: whether a sync has to flush a cache.
    pub write_cache: String,
    /// 1 when a single write can be forced through the cache.
    pub fua: String,
    /// I/O scheduler, the one in brackets.
    pub scheduler: String,
    /// Bytes of a sector.
    pub logical_block_bytes: String,
    /// Free bytes at the start, in GiB.
    pub free_gib: u64,
}

impl Environment {
    /// What is true now.
    pub fn look(dir: &Path, tramline: &Path) -> Environment {
        let cpuinfo = read("/proc/cpuinfo");
        let meminfo = read("/proc/meminfo");
        let memory_kib = value_of(&meminfo, "MemTotal").split(' ').next().and_then(|number| number.parse::<u64>().ok());
        Environment {
            commit: commit(),
            tramline: output(Command::new(tramline).arg("--version")),
            kernel: read("/proc/sys/kernel/osrelease"),
            cpu: value_of(&cpuinfo, "model name").to_owned(),
            cpus: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            memory_mib: memory_kib.unwrap_or(0) / 1024,
            load_average: [load_average(), 0.0],
            disk: disk(dir),
            started_utc_s: std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            took_s: 0.0,
            release_build: !cfg!(debug_assertions),
        }
    }
}

/// Load average over the last minute.
pub fn load_average() -> f64 {
    read("/proc/loadavg").split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn output(command: &mut Command) -> String {
    command.output().map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

fn commit() -> String {
    let head = output(Command::new("git").args(["rev-parse", "HEAD"]));
    let changed = !output(Command::new("git").args(["status", "--porcelain"])).is_empty();
    if head.is_empty() { "unknown".to_owned() } else { format!("{head}{}", if changed { "+" } else { "" }) }
}

/// The value behind `name :` in a file of such lines.
fn value_of<'a>(text: &'a str, name: &str) -> &'a str {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim()).next().unwrap_or_default()
}

fn disk(dir: &Path) -> Disk {
    let mut disk = Disk::default();
    let Ok(dir) = dir.canonicalize() else { return disk };
    // The mount with the longest path that contains the directory: "id parent major:minor root point options - type source ...".
    let mounts = read("/proc/self/mountinfo");
    let best = mounts.lines().filter_map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let dash = words.iter().position(|word| *word == "-")?;
        let point = *words.get(4)?;
        dir.starts_with(point).then(|| (point.len(), words[2], *words.get(dash + 1).unwrap_or(&""), *words.get(dash + 3).unwrap_or(&"")))
    });
    if let Some((_, device, file_system, options)) = best.max_by_key(|(len, ..)| *len) {
        let queue = format!("/sys/dev/block/{device}/queue");
        // A partition has no queue of its own; its disk does.
        let queue = if Path::new(&queue).exists() { queue } else { format!("/sys/dev/block/{device}/../queue") };
        let fact = |name: &str| read(&format!("{queue}/{name}"));
        disk.device = device.to_owned();
        disk.file_system = file_system.to_owned();
        disk.mount_options = options.to_owned();
        disk.write_cache = fact("write_cache");
        disk.fua = fact("fua");
        disk.scheduler = fact("scheduler");
        disk.logical_block_bytes = fact("logical_block_size");
    }
    if let Ok(stat) = rustix::fs::statvfs(&dir) {
        disk.free_gib = (stat.f_bavail * stat.f_frsize) >> 30;
    }
    disk
}
