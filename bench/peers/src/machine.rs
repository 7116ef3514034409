//! Facts of the machine and of processes, read from the kernel: cores, processor time, flushes of the disk, versions.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::fault::{Fallible, Fault, Told, fault};
use crate::kinds::PeerKind;
use crate::servers::Setup;

/// The place of the count of flushes in a block device's `stat` (Documentation/block/stat.rst, from Linux 5.5).
const FLUSHES_FIELD: usize = 15;
/// The same of writes, of what is under way, and of discards.
const WRITES_FIELD: usize = 4;
const IN_FLIGHT_FIELD: usize = 8;
const DISCARDS_FIELD: usize = 11;
/// A disk is at rest when looks have found nothing to speak of for so long: a file system writes its journal now and then, and others are on the machine.
const QUIET: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(50);
const STRAY_WRITES: u64 = 4;
/// Reports come in bursts every two seconds; one or two are of whatever runs.
const REPORTS_WINDOW: Duration = Duration::from_millis(4_500);
const STRAY_REPORTS: u64 = 4;

/// What the report says of the machine.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// Of the kernel.
    pub kernel: String,
    /// Model of the first processor.
    pub processor: String,
    /// Processors.
    pub cpu_count: usize,
    /// Memory.
    pub memory_gib: f64,
    /// Load averages at the start: on a machine that others use too, read ratios and not values.
    pub load_average: String,
    /// File system of the work folder, with its options.
    pub file_system: String,
}

impl Machine {
    /// Reads it.
    pub fn read(work_dir: &Path) -> Machine {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let after = |text: &str, name: &str| {
            text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim_start_matches([' ', '\t', ':']).to_owned())).unwrap_or_default()
        };
        let memory_kib: f64 = after(&text("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0.0);
        Machine {
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: after(&text("/proc/cpuinfo"), "model name"),
            // Not what this process may use: it is bound to the clients' cores.
            cpu_count: std::fs::read_to_string("/proc/cpuinfo")
                .map_or(0, |text| text.lines().filter(|line| line.starts_with("processor")).count()),
            memory_gib: memory_kib / 1024.0 / 1024.0,
            load_average: text("/proc/loadavg").trim().to_owned(),
            file_system: file_system(&text("/proc/self/mounts"), work_dir),
        }
    }
}

/// Type and options of the mount with the longest path above `dir`.
fn file_system(mounts: &str, dir: &Path) -> String {
    let lines = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (at, kind, options) = (words.next()?, words.next()?, words.next()?);
        dir.starts_with(at).then(|| (at.len(), format!("{kind} ({options})")))
    });
    lines.max_by_key(|(length, _)| *length).map(|(_, told)| told).unwrap_or_default()
}

/// The numbers of a list of cores as taskset takes it: `0-2,5`.
pub fn cpus(list: &str) -> Fallible<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let parse = |text: &str| text.trim().parse::<usize>().map_err(|_| Fault(format!("{list:?} is no list of cores: write 0-2,5")));
        let (first, last) = (parse(first)?, parse(last)?);
        if first > last || last >= 1024 {
            return fault(format!("{list:?} is no list of cores: write 0-2,5"));
        }
        cpus.extend(first..=last);
    }
    Ok(cpus)
}

/// How many cores a list has; 1 for one that is none (it is checked at the start).
pub fn cpu_count(list: &str) -> usize {
    cpus(list).map_or(1, |cpus| cpus.len())
}

/// Binds this process, and with it all threads that it will have, to cores.
pub fn bind_to(list: &str) -> Fallible<()> {
    let mut set = rustix::thread::CpuSet::new();
    cpus(list)?.into_iter().for_each(|cpu| set.set(cpu));
    rustix::thread::sched_setaffinity(None, &set).told(&format!("cannot run on the cores {list}: does the machine have them?"))
}

/// Processor time that a process has used, in microseconds.
pub fn cpu_us(pid: u32) -> Fallible<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).told("cannot read a process's times")?;
    let ticks = ticks(&stat).ok_or_else(|| Fault("a process's times are not as expected".to_owned()))?;
    Ok(ticks * 1_000_000 / rustix::param::clock_ticks_per_second())
}

/// User and system time from a line of /proc/PID/stat; the name before them may have blanks and parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Flushes that the disk under a folder has done since the start of the machine, where the kernel counts them.
pub fn device_flushes(dir: &Path) -> Option<u64> {
    device_counts(dir)?.get(FLUSHES_FIELD).copied()
}

/// What the kernel counts of the disk under a folder.
fn device_counts(dir: &Path) -> Option<Vec<u64>> {
    let device = fs::metadata(dir).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stat = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    stat.split_ascii_whitespace().map(|field| field.parse().ok()).collect()
}

/// Waits until the machine has nothing left of whoever ran before, at most for `patience`; answers whether it came to rest.
///
/// - What was written is on the disk, and gigabytes that were removed are discarded, which takes seconds on a file system that is mounted so.
/// - A virtual machine that tells its host of free memory (free page reporting of the balloon) has told. Behind the end of Kafka, which had 10 GiB of processes and cached
///   files, that took half a minute, in bursts every two seconds, and whoever was measured meanwhile had p99s of 19 to 26 ms instead of 1.
///
/// What the kernel does not count here counts as at rest.
pub async fn settle(dir: &Path, patience: Duration) -> bool {
    let since = Instant::now();
    if let Ok(folder) = fs::File::open(dir) {
        let synced = tokio::task::spawn_blocking(move || rustix::fs::syncfs(&folder));
        // A sync that fails is its broker's business, not this wait's.
        if tokio::time::timeout(patience, synced).await.is_err() {
            return false;
        }
    }
    let (mut disk, mut disk_quiet_since) = (device_counts(dir), Instant::now());
    let (mut told, mut told_since) = (reports(&interrupts()), Instant::now());
    while (disk.is_some() && disk_quiet_since.elapsed() < QUIET) || told.is_some() {
        if since.elapsed() > patience {
            return false;
        }
        tokio::time::sleep(LOOK).await;
        let now = device_counts(dir);
        if !std::iter::zip(&disk, &now).all(|(before, now)| is_quiet(before, now)) {
            disk_quiet_since = Instant::now();
        }
        disk = now;
        if told_since.elapsed() >= REPORTS_WINDOW {
            let now = reports(&interrupts());
            let is_through = std::iter::zip(told, now).all(|(before, now)| now.abs_diff(before) <= STRAY_REPORTS);
            (told, told_since) = (now.filter(|_| !is_through), Instant::now());
        }
    }
    true
}

fn interrupts() -> String {
    fs::read_to_string("/proc/interrupts").unwrap_or_default()
}

/// How often the balloon's queue of reports was answered; none where there is no such queue.
fn reports(interrupts: &str) -> Option<u64> {
    let line = interrupts.lines().find(|line| line.ends_with("reporting_vq"))?;
    let counts = line.split_ascii_whitespace().skip(1).map_while(|word| word.parse::<u64>().ok());
    Some(counts.sum())
}

/// Whether a disk had nothing to do between two looks.
fn is_quiet(before: &[u64], now: &[u64]) -> bool {
    let count = |counts: &[u64], field: usize| counts.get(field).copied().unwrap_or(0);
    let done = |field| count(now, field).abs_diff(count(before, field));
    done(WRITES_FIELD) <= STRAY_WRITES && done(DISCARDS_FIELD) == 0 && count(now, IN_FLIGHT_FIELD) == 0
}

/// The broker's version, in its own words.
pub fn version(kind: PeerKind, setup: &Setup) -> String {
    let said = |command: &mut Command| match command.output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(error) => format!("unknown ({error})"),
    };
    match kind {
        PeerKind::Tramline => said(Command::new(&setup.tramline).arg("--version")),
        PeerKind::Nats => said(Command::new(&setup.nats).arg("--version")),
        PeerKind::Redis => said(Command::new("redis-server").arg("--version")),
        PeerKind::RabbitStream | PeerKind::RabbitQuorum => {
            format!("rabbitmq-server {}", said(Command::new("dpkg-query").args(["-W", "-f", "${Version}", "rabbitmq-server"])))
        }
        PeerKind::Kafka => kafka_version(&setup.kafka_libs),
    }
}

fn kafka_version(libs: &Path) -> String {
    let names = fs::read_dir(libs).into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut clients = names.filter_map(|name| Some(name.strip_prefix("kafka-clients-")?.strip_suffix(".jar")?.to_owned()));
    clients.next().map_or("unknown (no jars)".to_owned(), |version| format!("kafka {version}"))
}

/// The crate that a peer is driven with, and its version as this program was built.
pub fn client(kind: PeerKind) -> String {
    let name = match kind {
        PeerKind::Tramline => "tramline-client",
        PeerKind::Nats => "async-nats",
        PeerKind::Redis => "redis",
        PeerKind::RabbitStream | PeerKind::RabbitQuorum => "lapin",
        PeerKind::Kafka => "rdkafka",
    };
    let lock = include_str!("../Cargo.lock");
    let mut lines = lock.lines().skip_while(|line| *line != format!("name = \"{name}\"")).skip(1);
    let version = lines.next().and_then(|line| line.strip_prefix("version = ")).unwrap_or("?");
    format!("{name} {}", version.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_read_and_nonsense_is_refused() {
        assert_eq!(cpus("0-2,5").expect("a list"), [0, 1, 2, 5]);
        assert_eq!(cpu_count("3"), 1);
        for nonsense in ["", "a", "3-1", "1,,2", "0-99999"] {
            let told = cpus(nonsense).expect_err(nonsense).to_string();
            assert!(told.contains("write 0-2,5"), "{told}");
        }
    }

    #[test]
    fn times_are_found_behind_a_strange_name() {
        assert_eq!(ticks("1 (a) b (c)) S 1 1 1 0 -1 4194560 10 20 30 40 7 5 0 0 20 0"), Some(12));
        assert!(cpu_us(std::process::id()).is_ok());
    }

    #[test]
    fn the_longest_mount_counts() {
        let mounts = "/dev/a / ext4 rw 0 0\n/dev/b /data xfs ro,x 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/data/x")), "xfs (ro,x)");
        assert_eq!(file_system(mounts, Path::new("/database")), "ext4 (rw)");
    }

    #[test]
    fn a_disk_that_discards_or_works_is_not_at_rest() {
        let idle = [9, 0, 0, 0, 100, 0, 0, 0, 0, 7, 7, 50, 0, 0, 0];
        let with = |field: usize, value: u64| {
            let mut counts = idle;
            counts[field] = value;
            counts
        };
        assert!(is_quiet(&idle, &idle) && is_quiet(&idle, &with(WRITES_FIELD, 104)), "the journal");
        assert!(!is_quiet(&idle, &with(WRITES_FIELD, 105)));
        assert!(!is_quiet(&idle, &with(DISCARDS_FIELD, 51)) && !is_quiet(&idle, &with(IN_FLIGHT_FIELD, 1)));
        assert!(is_quiet(&[], &[]), "a kernel that does not say");
    }

    #[test]
    fn reports_of_free_memory_are_counted_over_all_cores() {
        let interrupts = "      CPU0  CPU1\n 31:  7  8925  PCI-MSIX-0000:00:01.0  3-edge  virtio0-stats\n 32:  6541  3  PCI-MSIX-0000:00:01.0  4-edge  virtio0-reporting_vq\n";
        assert_eq!(reports(interrupts), Some(6544));
        assert_eq!(reports("      CPU0\n 1:  3  IO-APIC  i8042\n"), None);
    }

    #[test]
    fn clients_have_versions_in_the_lock_file() {
        for kind in PeerKind::ALL {
            assert!(!client(kind).ends_with('?'), "{}", client(kind));
        }
    }
}
