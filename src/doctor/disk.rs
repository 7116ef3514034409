//! The data directory's file system and the disks below it.

use super::cores::Set;
use super::finding::{Finding, Topic};
use super::memory::chosen_of;
use super::tree::Tree;
use crate::config::{DiskLevel, DiskSize, Settings};
use crate::runtime::topology;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What a log block is aligned to; no disk may ask for more.
const BLOCK_BYTES: u64 = 4096;

/// Where the data directory is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) mount: Option<Mount>,
    pub(super) disks: Vec<Disk>,
}

/// One line of /proc/self/mountinfo.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mount {
    /// Major and minor number of the device, as `259:1`.
    pub(super) device: String,
    pub(super) point: String,
    pub(super) kind: String,
    /// Those of the mount and of the file system together.
    pub(super) options: Vec<String>,
}

/// A disk that is no partition and no stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) name: String,
    /// Folders below the root, links followed, of what it is attached by: its own, or those of the controllers that lead to it (`attached_by`).
    pub(super) folders: Vec<String>,
    pub(super) rotational: Option<bool>,
    pub(super) scheduler: Option<String>,
    pub(super) nomerges: Option<u64>,
    pub(super) rq_affinity: Option<u64>,
    /// `write back` or `write through`.
    pub(super) write_cache: Option<String>,
    /// Whether one command can write and make durable.
    pub(super) fua: Option<u64>,
    pub(super) logical_block_bytes: Option<u64>,
    /// Memory nodes of what it is attached by; none where that is not told.
    pub(super) numa_nodes: Set,
}

impl Disk {
    /// Whether another machine stands behind it, whose disk this one cannot see.
    pub(super) fn is_virtual(&self) -> bool {
        ["vd", "xvd", "loop", "zram", "nbd", "drbd"].iter().any(|front| self.name.starts_with(front))
    }
}

impl Place {
    pub(super) fn of(tree: &Tree, ground: &Ground) -> Place {
        // In a copy the directory is a name, on the machine links lead elsewhere.
        let path = match tree.is_copy() {
            true => ground.dir.clone(),
            false => std::fs::canonicalize(&ground.dir).unwrap_or_else(|_| ground.dir.clone()),
        };
        let mount = tree.text("proc/self/mountinfo").and_then(|text| mount_of(&text, &path));
        let folder = mount.as_ref().and_then(|mount| tree.resolve(&format!("sys/dev/block/{}", mount.device)));
        Place { mount, disks: folder.map_or_else(Vec::new, |folder| find_disks(tree, &folder)) }
    }

    /// Whether a write can stand in a cache that loses it with the power, as far as the kernel knows.
    pub(super) fn has_volatile_cache(&self) -> Option<bool> {
        let caches: Vec<&str> = self.disks.iter().filter_map(|disk| disk.write_cache.as_deref()).collect();
        if caches.is_empty() { None } else { Some(caches.contains(&"write back")) }
    }
}

/// What there is of the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ground {
    /// The directory itself, or the nearest one above it that is there.
    pub(super) dir: PathBuf,
    /// What has its name, or that of a directory above it, and is none: no start of a node makes one there.
    pub(super) in_the_way: Option<String>,
}

impl Ground {
    pub(super) fn of(tree: &Tree, data_dir: &Path) -> Ground {
        let absolute = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
        if tree.is_copy() {
            return Ground { dir: absolute, in_the_way: None };
        }
        let mut in_the_way = None;
        for at in absolute.ancestors() {
            match std::fs::metadata(at) {
                Ok(found) if found.is_dir() => return Ground { dir: at.to_owned(), in_the_way },
                Ok(_) => in_the_way = Some(format!("{} is no directory", at.display())),
                // A link that leads to itself is as good as one that leads nowhere.
                Err(error) if [Some(libc::ENOENT), Some(libc::ELOOP)].contains(&error.raw_os_error()) => {
                    if let Ok(to) = std::fs::read_link(at) {
                        in_the_way = Some(format!("{} is a link to {}, which is not there", at.display(), to.display()));
                    }
                }
                // Below a file, or not ours to see: the file comes next, and the rest is the probe's to tell.
                Err(_) => {}
            }
        }
        Ground { dir: PathBuf::from("/"), in_the_way }
    }
}

/// The mount with the longest point above a path; of those the last one, which hides the others.
pub(super) fn mount_of(mountinfo: &str, path: &Path) -> Option<Mount> {
    mountinfo.lines().filter_map(read_mount).filter(|mount| path.starts_with(&mount.point)).fold(None, |best: Option<Mount>, mount| {
        match best {
            Some(best) if best.point.len() > mount.point.len() => Some(best),
            _ => Some(mount),
        }
    })
}

fn read_mount(line: &str) -> Option<Mount> {
    let (front, back) = line.split_once(" - ")?;
    let front: Vec<&str> = front.split(' ').collect();
    let mut back = back.split(' ');
    let kind = back.next()?.to_owned();
    let of_the_file_system = back.nth(1).unwrap_or_default();
    let options =
        front.get(5)?.split(',').chain(of_the_file_system.split(',')).filter(|option| !option.is_empty()).map(str::to_owned).collect();
    Some(Mount { device: (*front.get(2)?).to_owned(), point: unescaped(front.get(4)?), kind, options })
}

/// Blanks, ends of lines, `\` and `#` stand in mountinfo as `\` and three octal digits of the byte. In one pass: what comes out is not read again.
fn unescaped(text: &str) -> String {
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while at < bytes.len() {
        let byte = match bytes[at..] {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0')),
            _ => None,
        };
        out.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 4 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The disks below a device: the whole one of a partition, the members of a stack, of stacks as well.
fn find_disks(tree: &Tree, folder: &str) -> Vec<Disk> {
    let (mut disks, mut waiting, mut seen) = (Vec::<Disk>::new(), vec![folder.to_owned()], BTreeSet::new());
    while let Some(at) = waiting.pop() {
        let whole = match tree.exists(&format!("{at}/partition")) {
            true => at.rsplit_once('/').map_or(at.as_str(), |(above, _)| above),
            false => &at,
        };
        // No kernel has a ring of stacks, a copy may; and two members may be parts of one disk.
        if !seen.insert(whole.to_owned()) {
            continue;
        }
        let slaves = tree.names(&format!("{whole}/slaves"));
        if slaves.is_empty() {
            disks.extend(disk_at(tree, whole));
        } else {
            waiting.extend(slaves.iter().rev().filter_map(|slave| tree.resolve(&format!("{whole}/slaves/{slave}"))));
        }
    }
    disks
}

fn disk_at(tree: &Tree, whole: &str) -> Option<Disk> {
    if !tree.exists(&format!("{whole}/queue")) {
        return None;
    }
    let queue = |file: &str| format!("{whole}/queue/{file}");
    let folders = attached_by(tree, whole);
    Some(Disk {
        name: whole.rsplit('/').next().unwrap_or(whole).to_owned(),
        rotational: tree.number(&queue("rotational")).map(|value| value == 1),
        scheduler: tree.text(&queue("scheduler")).map(|text| chosen_of(&text)),
        nomerges: tree.number(&queue("nomerges")),
        rq_affinity: tree.number(&queue("rq_affinity")),
        write_cache: tree.text(&queue("write_cache")),
        fua: tree.number(&queue("fua")),
        logical_block_bytes: tree.number(&queue("logical_block_size")),
        numa_nodes: folders.iter().filter_map(|folder| numa_node(tree, folder)).collect(),
        folders,
    })
}

/// Where the kernel puts several paths to an NVMe disk together (native multipath), the disk is nobody's child: `virtual/nvme-subsystem/nvme-subsys0/nvme0n1`
/// has neither interrupts nor a memory node. Links `nvme0`, `nvme1` beside it lead to the controllers, which have both.
fn attached_by(tree: &Tree, whole: &str) -> Vec<String> {
    let Some((subsystem, _)) = whole.rsplit_once('/').filter(|(above, _)| above.contains("/nvme-subsys")) else {
        return vec![whole.to_owned()];
    };
    let is_controller =
        |name: &&String| name.strip_prefix("nvme").is_some_and(|no| !no.is_empty() && no.bytes().all(|c| c.is_ascii_digit()));
    tree.names(subsystem).iter().filter(is_controller).filter_map(|name| tree.resolve(&format!("{subsystem}/{name}"))).collect()
}

/// The memory node that a device is attached to: the first folder above it that tells.
pub(super) fn numa_node(tree: &Tree, folder: &str) -> Option<usize> {
    let node = Path::new(folder).ancestors().find_map(|above| tree.text(&above.join("numa_node").to_string_lossy()))?;
    // -1 where the firmware does not say.
    node.parse().ok()
}

/// Size of the file system, where it can be asked.
pub(super) fn space(tree: &Tree, data_dir: &Path) -> Option<DiskSize> {
    if tree.is_copy() { None } else { topology::disk_of(data_dir) }
}

pub(super) fn judge_space(settings: &Settings, disk: Option<DiskSize>) -> Vec<Finding> {
    let mut topic = Topic::new("disk");
    match disk {
        None => topic.unknown("space", "the file system was not asked"),
        Some(disk) => {
            let found = format!("{} of {} MiB are free", disk.free_bytes >> 20, disk.total_bytes >> 20);
            match settings.disk_marks().look(disk).level {
                DiskLevel::Enough => topic.ok("space", found, "above disk.warn.free"),
                DiskLevel::Low => topic.warn("space", found, "below disk.warn.free: free space, lower retention, or add disk"),
                DiskLevel::Slow => topic.warn("space", found, "below disk.slow.free: a node slows producers down"),
                DiskLevel::Refuse => {
                    topic.bad("space", found, "a node takes no further segment, and refuses what producers send: free space")
                }
            }
        }
    }
    topic.done()
}

/// Only what is wrong: that there is a directory the rest of the findings shows.
pub(super) fn judge_ground(ground: &Ground) -> Vec<Finding> {
    let mut topic = Topic::new("disk");
    if let Some(what) = &ground.in_the_way {
        topic.bad("data directory", what, "a node does not start there: move that away, or name another directory with --data-dir");
    }
    topic.done()
}

pub(super) fn judge(place: &Place) -> Vec<Finding> {
    let mut topic = Topic::new("disk");
    match &place.mount {
        None => topic.unknown("file system", "/proc/self/mountinfo does not tell"),
        Some(mount) => judge_mount(mount, &mut topic),
    }
    if place.disks.is_empty() {
        topic.unknown("device", "no disk was found below the data directory's file system");
    }
    for disk in &place.disks {
        judge_disk(disk, &mut topic);
    }
    topic.done()
}

fn judge_mount(mount: &Mount, topic: &mut Topic) {
    let found = format!("{} at {}", mount.kind, mount.point);
    match mount.kind.as_str() {
        "ext4" | "xfs" => topic.ok("file system", found, "a direct write into prepared space needs no entry of its journal"),
        "tmpfs" | "ramfs" | "devtmpfs" => {
            topic.bad("file system", found, "it is memory: nothing of what is acknowledged survives a restart of this host")
        }
        "nfs" | "nfs4" | "cifs" | "9p" | "virtiofs" | "ceph" | "glusterfs" => {
            topic.bad(
                "file system",
                found,
                "it is another machine's: whether a synced write is on a disk there nobody here knows; use ext4 or XFS on a local disk",
            );
        }
        kind if kind.starts_with("fuse") => {
            topic.bad("file system", found, "a program stands between the node and the disk; use ext4 or XFS on a local disk")
        }
        "btrfs" | "zfs" | "bcachefs" | "f2fs" | "nilfs2" => {
            topic.warn("file system", found, "it copies on each write, so prepared segments gain nothing: use ext4 or XFS");
        }
        "overlay" => topic.warn("file system", found, "the layer of a container: mount a volume on ext4 or XFS for the data directory"),
        _ => topic.note("file system", found, "not tried with Tramline: ext4 and XFS are"),
    }
    let has = |option: &str| mount.options.iter().any(|found| found == option);
    let shown = mount.options.join(",");
    if has("nobarrier") || has("barrier=0") {
        topic.bad("mount options", shown, "without barriers the disk is not told to empty its cache: a synced write is a promise that nobody keeps. Mount it without nobarrier");
    } else if has("ro") {
        topic.bad("mount options", shown, "it is mounted for reading only");
    } else if has("data=journal") {
        topic.warn(
            "mount options",
            shown,
            "data=journal writes everything twice and makes direct writes buffered: mount it with data=ordered",
        );
    } else if has("sync") || has("dirsync") {
        topic.warn("mount options", shown, "the log syncs what it must; sync makes the rest slow as well");
    } else {
        topic.ok("mount options", shown, "none that breaks a synced write or slows it down");
    }
}

fn judge_disk(disk: &Disk, topic: &mut Topic) {
    let of = |what: &str| format!("{} {what}", disk.name);
    match disk.logical_block_bytes {
        None => topic.unknown(of("alignment"), "the kernel does not tell the block size"),
        Some(bytes) if bytes <= BLOCK_BYTES => topic.ok(of("alignment"), format!("{bytes} bytes"), "direct writes of 4 KiB fit"),
        Some(bytes) => {
            topic.bad(of("alignment"), format!("{bytes} bytes"), "direct writes of 4 KiB do not fit: the disk wants larger blocks")
        }
    }
    match (disk.write_cache.as_deref(), disk.fua) {
        (None, _) => topic.unknown(of("write cache"), "the kernel does not tell"),
        (Some("write through"), _) => topic.ok(
            of("write cache"),
            "none that is volatile",
            "a synced write needs no flush: the disk says so, or somebody told the kernel (queue/write_cache); then be sure of its protection against loss of power",
        ),
        (Some(cache), _) if disk.is_virtual() => topic.note(
            of("write cache"),
            cache,
            "each synced write ends with a flush; whether the host of this virtual disk passes it on is its owner's to say (cache=none or directsync does)",
        ),
        (Some(cache), Some(1)) => topic.note(
            of("write cache"),
            cache,
            "volatile, and written through one command (FUA): safe. A disk with protection against loss of power answers some ten times sooner",
        ),
        (Some(cache), _) => topic.note(
            of("write cache"),
            cache,
            "volatile: each synced write is followed by a flush, which is safe and slow. A disk with protection against loss of power answers some ten times sooner",
        ),
    }
    if disk.rotational == Some(true) && !disk.is_virtual() {
        topic.warn(
            of("kind"),
            "turns",
            "a synced write waits for the platter, some 8 ms: use an SSD, best one with protection against loss of power",
        );
    }
    match disk.scheduler.as_deref() {
        None => topic.unknown(of("scheduler"), "the kernel does not tell"),
        Some("none") => topic.ok(of("scheduler"), "none", "requests go to the disk as they come"),
        Some(word) if disk.rotational == Some(true) && !disk.is_virtual() => {
            topic.ok(of("scheduler"), word, "a disk that turns gains by sorting")
        }
        Some(word) => topic.warn(of("scheduler"), word, "it costs each write some microseconds and a lock: set none (tune.sh: disk_queue)"),
    }
    match disk.nomerges {
        None | Some(2) => {}
        Some(value) => topic.note(
            of("merging"),
            value.to_string(),
            "log writes are large and few; looking for neighbours gains nothing (tune.sh: disk_queue)",
        ),
    }
    if disk.rq_affinity == Some(2) {
        topic.warn(
            of("completions"),
            "on the core that asked",
            "what follows a write (the flush) then waits for the shard that spins on that core: set rq_affinity to 0 (tune.sh: disk_queue)",
        );
    }
}
