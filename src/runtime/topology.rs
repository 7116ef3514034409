//! What the machine has: cores this process may use, memory it may use, size of a file system; and who gets which core.
//!
//! Invariants: every question has an answer, also in a container that hides part of /proc (then the modest one); a housekeeping core is never a
//! shard's core as long as there is another.
//!
//! Not here: how many shards and which cores are wanted (`config/table.rs`), pinning itself (`executors.rs`, `housekeeping.rs`).

use crate::config::{DiskSize, Kind, Machine, Value};
use std::fs;
use std::path::Path;

/// The machine as this process sees it.
pub fn machine() -> Machine {
    Machine { cpus: allowed_cpus(), memory_bytes: memory_bytes(), disk_of }
}

/// Cores this process may run on, ascending: `Cpus_allowed_list`, which is the affinity mask within the control group's cpuset.
pub fn allowed_cpus() -> Vec<usize> {
    let listed = fs::read_to_string("/proc/self/status").ok().and_then(|status| cpus_of_status(&status));
    listed.unwrap_or_else(|| (0..std::thread::available_parallelism().map_or(1, usize::from)).collect())
}

/// Cores in a text such as /proc/self/status.
pub fn cpus_of_status(status: &str) -> Option<Vec<usize>> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    match Kind::Cpus.read(list) {
        Ok(Value::Cpus(cpus)) if !cpus.is_empty() => Some(cpus),
        _ => None,
    }
}

/// Those of `cpus` that this process could be given, ascending, whatever it may run on now: a thread of its own asks for all of them, and the kernel grants
/// what the control group has. `None` where it grants or tells nothing.
pub fn reachable_cpus(cpus: &[usize]) -> Option<Vec<usize>> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let mut wanted = CpuSet::new();
    cpus.iter().filter(|cpu| **cpu < CpuSet::MAX_CPU).for_each(|cpu| wanted.set(*cpu));
    // The thread ends with the answer, so nothing of this process has moved.
    let asked = std::thread::spawn(move || {
        sched_setaffinity(None, &wanted).ok()?;
        sched_getaffinity(None).ok()
    });
    let granted = asked.join().ok()??;
    Some((0..CpuSet::MAX_CPU).filter(|cpu| granted.is_set(*cpu)).collect())
}

/// Memory of the machine, or of the narrowest control group above this process if that is less; 1 GiB when nobody tells.
pub fn memory_bytes() -> u64 {
    let total = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_of_meminfo(&text));
    let group = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| group_limit(&text, Path::new("/sys/fs/cgroup")));
    total.into_iter().chain(group).min().unwrap_or(1 << 30)
}

fn total_of_meminfo(text: &str) -> Option<u64> {
    let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;
    Some(kib << 10)
}

/// Least `memory.max` from the process's group (version 2: the line `0::/path`) up to the root.
fn group_limit(cgroup: &str, root: &Path) -> Option<u64> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    let group = root.join(path.trim_start_matches('/'));
    let limits = group.ancestors().take_while(|dir| dir.starts_with(root)).filter_map(|dir| {
        // "max" is no number, and so no limit.
        fs::read_to_string(dir.join("memory.max")).ok()?.trim().parse::<u64>().ok()
    });
    limits.min()
}

/// Size of the file system that holds `path`, or would hold it: the nearest existing directory above it is asked.
pub fn disk_of(path: &Path) -> Option<DiskSize> {
    let absolute = std::path::absolute(path).ok()?;
    let disk = absolute.ancestors().find_map(|dir| rustix::fs::statvfs(dir).ok())?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    Some(DiskSize { total_bytes: bytes(disk.f_blocks), free_bytes: bytes(disk.f_bavail) })
}

/// Cores for the housekeeping thread and the kernel's I/O workers: those that no shard has, or all when the shards have them all.
pub fn housekeeping_cpus(allowed: &[usize], shards: &[usize]) -> Vec<usize> {
    let rest: Vec<usize> = allowed.iter().copied().filter(|cpu| !shards.contains(cpu)).collect();
    if rest.is_empty() { allowed.to_vec() } else { rest }
}

/// Whether there is a core beside those of `shards` shards, which are bound to `bound`, or to nothing where that is empty.
pub fn has_core_to_spare(allowed: &[usize], bound: &[usize], shards: u16) -> bool {
    if bound.is_empty() { allowed.len() > usize::from(shards) } else { housekeeping_cpus(allowed, bound).len() < allowed.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_read_from_the_status_file() {
        assert_eq!(cpus_of_status("Name:\tx\nCpus_allowed_list:\t0-2,5\nMems_allowed:\t1\n"), Some(vec![0, 1, 2, 5]));
        assert_eq!(cpus_of_status("Name:\tx\n"), None);
        assert!(!allowed_cpus().is_empty());
    }

    #[test]
    fn a_narrow_affinity_hides_no_core_that_could_be_had() {
        // The affinity of a thread is its own: the other tests keep theirs.
        std::thread::spawn(|| {
            let before = allowed_cpus();
            let last = *before.last().unwrap();
            let mut one = rustix::thread::CpuSet::new();
            one.set(last);
            rustix::thread::sched_setaffinity(None, &one).unwrap();
            let reachable = reachable_cpus(&before).unwrap();
            assert!(before.iter().all(|cpu| reachable.contains(cpu)), "{reachable:?} has not all of {before:?}");
            let still = rustix::thread::sched_getaffinity(None).unwrap();
            assert!(still.is_set(last) && still.count() == 1, "who asks is not moved");
        })
        .join()
        .unwrap();
        // A core that no machine has.
        assert_eq!(reachable_cpus(&[1023]), None);
    }

    #[test]
    fn the_narrowest_group_limits_the_memory() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("memory.max"), "max\n").unwrap();
        fs::write(root.path().join("a/memory.max"), "1000000\n").unwrap();
        assert_eq!(group_limit("0::/a/b\n", root.path()), Some(1_000_000));
        assert_eq!(group_limit("1:cpu:/x\n", root.path()), None);
        assert_eq!(total_of_meminfo("MemTotal:       2048 kB\nMemFree: 1 kB\n"), Some(2 << 20));
        assert!(memory_bytes() > 0);
    }

    #[test]
    fn the_file_system_of_a_directory_to_come_is_known() {
        let root = tempfile::tempdir().unwrap();
        let disk = disk_of(&root.path().join("not/yet/there")).unwrap();
        assert!(disk.total_bytes >= disk.free_bytes && disk.total_bytes > 0);
        assert!(disk_of(Path::new("relative-and-missing")).is_some());
    }

    #[test]
    fn housekeeping_gets_what_the_shards_leave() {
        assert_eq!(housekeeping_cpus(&[0, 1, 2, 3], &[0, 1]), [2, 3]);
        assert_eq!(housekeeping_cpus(&[0, 1], &[0, 1]), [0, 1]);
        assert_eq!(housekeeping_cpus(&[0, 1], &[]), [0, 1]);
        assert!(has_core_to_spare(&[0, 1], &[0], 1) && !has_core_to_spare(&[0, 1], &[0, 1], 2));
        assert!(has_core_to_spare(&[0, 1], &[], 1) && !has_core_to_spare(&[0, 1], &[], 2), "not bound");
    }
}
