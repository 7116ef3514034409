//! What the numbers were measured on, and what makes them doubtful: kernel, processor, build, use of the client's own core.
//!
//! Invariant: a file that is missing (another kernel, a container) is a missing entry, never a failure.
//! Not here: the server's environment, which its own log tells.

use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Above this share of a core, a client that sleeps while waiting is near its own limit, and its latencies are partly its own.
const CPU_SHARE_HIGH: f64 = 0.9;

/// The entries of the report; `disk` is the server's data directory when it is on this machine.
pub fn environment(disk: Option<&Path>) -> Value {
    let cpu_model = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim().to_owned()))
    });
    json!({
        "kernel": read_line("/proc/sys/kernel/osrelease"),
        "cpu": cpu_model,
        "cores": std::thread::available_parallelism().map(usize::from).ok(),
        "governor": read_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "clocksource": read_line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "build": build(),
        "commit": env!("TRAMLINE_LOADGEN_COMMIT"),
        "disk": disk.map(self::disk),
    })
}

/// The file system of a directory and the disk below it.
fn disk(dir: &Path) -> Value {
    let Some(dir) = dir.canonicalize().ok() else { return Value::Null };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let Some(mount) = mount_of(&mounts, &dir) else { return Value::Null };
    // A partition has no queue of its own; its disk does.
    let queues = ["queue", "../queue"].map(|queue| format!("/sys/dev/block/{}/{queue}", mount.device));
    let fact = |name: &str| queues.iter().find_map(|queue| read_line(&format!("{queue}/{name}")));
    json!({
        "file_system": mount.file_system,
        "mount_options": mount.options,
        "write_cache": fact("write_cache"),
        "fua": fact("fua"),
        "scheduler": fact("scheduler"),
        "logical_block_bytes": fact("logical_block_size"),
    })
}

/// What the kernel says of a mount.
#[derive(Debug, PartialEq, Eq)]
struct Mount<'a> {
    device: &'a str,
    file_system: &'a str,
    options: &'a str,
}

/// The mount with the longest path that contains the directory, and of those the last one, which hides the others.
/// A line is "id parent major:minor root point options [tags] - type source options".
fn mount_of<'a>(mounts: &'a str, dir: &Path) -> Option<Mount<'a>> {
    let found = mounts.lines().filter_map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let dash = words.iter().position(|word| *word == "-")?;
        let point = words.get(4)?.replace("\\040", " ");
        let mount = Mount { device: words.get(2)?, file_system: words.get(dash + 1)?, options: words.get(5)? };
        dir.starts_with(&point).then_some((point.len(), mount))
    });
    found.max_by_key(|(len, _)| *len).map(|(_, mount)| mount)
}

fn build() -> &'static str {
    if cfg!(debug_assertions) { "debug" } else { "release" }
}

fn read_line(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// A warning when this is not a release build.
pub fn build_warning() -> Option<String> {
    (build() == "debug").then(|| "this is a debug build; build with --release to measure".to_owned())
}

/// Time the calling thread has run on a core, in nanoseconds.
pub fn thread_cpu_ns() -> Option<u64> {
    cpu_ns(&fs::read_to_string("/proc/thread-self/schedstat").ok()?)
}

/// The first number of a schedstat line.
fn cpu_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

/// A warning when a side that sleeps while waiting used nearly a whole core.
pub fn cpu_warning(side: &str, cpu_ns: u64, elapsed_ns: u64, busy_poll: bool) -> Option<String> {
    let share = cpu_ns as f64 / elapsed_ns.max(1) as f64;
    (!busy_poll && share > CPU_SHARE_HIGH)
        .then(|| format!("the {side} thread used {:.0} % of a core: the client itself may be the limit", share * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_can_always_be_described() {
        let value = environment(Some(Path::new("/")));
        assert!(value["build"].is_string() && value.as_object().is_some_and(|object| object.contains_key("kernel")));
    }

    #[test]
    fn the_mount_of_a_directory_is_the_longest_and_last_one() {
        let mounts = "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /data rw,noatime shared:1 - xfs /dev/b rw\n3 1 8:3 / /my\\040data rw - ext4 /dev/c rw\n4 2 8:4 / /data ro - btrfs /dev/d rw\n";
        let of = |dir: &str| mount_of(mounts, Path::new(dir)).map(|mount| (mount.device, mount.file_system, mount.options));
        assert_eq!(of("/data/x"), Some(("8:4", "btrfs", "ro")));
        assert_eq!(of("/database"), Some(("8:1", "ext4", "rw")));
        assert_eq!(of("/my data"), Some(("8:3", "ext4", "rw")));
        assert_eq!(mount_of("", Path::new("/")), None);
    }

    #[test]
    fn a_full_core_is_a_warning_unless_spinning_was_asked() {
        assert!(cpu_warning("writing", 95, 100, false).is_some());
        assert!(cpu_warning("writing", 95, 100, true).is_none());
        assert!(cpu_warning("writing", 50, 100, false).is_none());
        assert_eq!(cpu_ns("12345 6 7\n"), Some(12345));
        assert_eq!(cpu_ns(""), None);
    }
}
