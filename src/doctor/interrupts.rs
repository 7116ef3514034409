//! Interrupts and the kernel's own work against the shards' cores.

use super::cores::{Cores, Set, parse_list, parse_mask, show};
use super::disk::Place;
use super::finding::{Finding, Topic};
use super::tree::Tree;
use std::path::Path;

#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) devices: Vec<Device>,
    pub(super) workqueue: Option<Set>,
    pub(super) irqbalance: Balance,
}

/// A disk or a network card with its interrupts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) is_disk: bool,
    /// Number and the cores that take it; those that only configure the device are left out.
    pub(super) irqs: Vec<(u32, Set)>,
}

/// The daemon that moves interrupts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Balance {
    /// `None`: not to be seen from here.
    pub(super) is_running: Option<bool>,
    /// The cores its file keeps it from.
    pub(super) banned: Set,
}

impl Facts {
    pub(super) fn gather(tree: &Tree, place: &Place, nics: &[String]) -> Facts {
        let table = tree.text("proc/interrupts").unwrap_or_default();
        let disks = place.disks.iter().map(|disk| (disk.name.clone(), true, disk.folders.clone()));
        let folder = |nic: &String| tree.resolve(&format!("sys/class/net/{nic}/device")).into_iter().collect();
        let cards = nics.iter().map(|nic| (nic.clone(), false, folder(nic)));
        let devices = disks.chain(cards).map(|(name, is_disk, folders)| {
            let irqs = folders.iter().flat_map(|folder| irqs_of(tree, folder, &table));
            Device { name, is_disk, irqs: irqs.collect() }
        });
        Facts {
            devices: devices.collect(),
            workqueue: tree.text("sys/devices/virtual/workqueue/cpumask").and_then(|text| parse_mask(&text)),
            irqbalance: Balance {
                is_running: is_running(tree, "irqbalance"),
                banned: ["etc/default/irqbalance", "etc/sysconfig/irqbalance"]
                    .iter()
                    .find_map(|file| tree.text(file))
                    .and_then(|text| banned(&text))
                    .unwrap_or_default(),
            },
        }
    }
}

/// Interrupts of the device that a folder belongs to, with the cores that take them.
fn irqs_of(tree: &Tree, folder: &str, table: &str) -> Vec<(u32, Set)> {
    let mut numbers: Vec<u32> = Path::new(folder).ancestors().find_map(|above| numbers_at(tree, above)).unwrap_or_default();
    numbers.sort_unstable();
    let cores = |irq: u32| {
        ["effective_affinity_list", "smp_affinity_list"]
            .iter()
            .find_map(|file| tree.text(&format!("proc/irq/{irq}/{file}")).filter(|text| !text.is_empty()))
            .and_then(|text| parse_list(&text))
    };
    numbers.into_iter().filter(|irq| !is_quiet(table, *irq)).filter_map(|irq| Some((irq, cores(irq)?))).collect()
}

/// Those of one folder; `None` where the search goes on above it. It ends at the first device on a bus: above a card is the port it is plugged into, with
/// interrupts of its own.
fn numbers_at(tree: &Tree, folder: &Path) -> Option<Vec<u32>> {
    let at = |file: &str| folder.join(file).to_string_lossy().into_owned();
    let listed = tree.names(&at("msi_irqs"));
    if !listed.is_empty() {
        return Some(listed.iter().filter_map(|name| name.parse().ok()).collect());
    }
    // Without MSI a card has one line; 0 is none.
    match tree.number(&at("irq")) {
        Some(line) => Some(u32::try_from(line).ok().filter(|line| *line > 0).into_iter().collect()),
        None => folder.file_name().is_some_and(|name| is_pci_address(&name.to_string_lossy())).then(Vec::new),
    }
}

/// `0000:00:1f.2`: domain, bus, device and function, hexadecimal.
fn is_pci_address(name: &str) -> bool {
    let is_hex = |part: &str, digits: usize| part.len() == digits && part.bytes().all(|c| c.is_ascii_hexdigit());
    let Some((front, function)) = name.rsplit_once('.') else { return false };
    let parts: Vec<&str> = front.split(':').collect();
    // A domain has four digits or more.
    parts.len() == 3
        && parts[0].len() >= 4
        && is_hex(parts[0], parts[0].len())
        && is_hex(parts[1], 2)
        && is_hex(parts[2], 2)
        && is_hex(function, 1)
}

/// Whether an interrupt only configures its device, by its name in /proc/interrupts, and so hardly ever comes.
pub(super) fn is_quiet(table: &str, irq: u32) -> bool {
    let front = format!("{irq}:");
    let name = table.lines().find(|line| line.trim_start().starts_with(&front)).and_then(|line| line.split_whitespace().last());
    name.is_some_and(|name| ["-config", "-control", "-event", "-async", "-mbx", "q0"].iter().any(|end| name.ends_with(end)))
}

/// That no process has the name says something only where processes of others are to be seen. The kernel's second one, the parent of its threads, is nobody
/// else's and root's: it is hidden with hidepid, absent in a container, and of a copy mostly not copied.
fn is_running(tree: &Tree, program: &str) -> Option<bool> {
    let mut processes = tree.names("proc").into_iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    if processes.any(|pid| tree.text(&format!("proc/{pid}/comm")).as_deref() == Some(program)) {
        return Some(true);
    }
    (tree.text("proc/2/comm").as_deref() == Some("kthreadd")).then_some(false)
}

fn banned(file: &str) -> Option<Set> {
    let value = |name: &str| {
        file.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).next_back().map(|text| text.trim_matches(['"', '\'']))
    };
    match value("IRQBALANCE_BANNED_CPULIST") {
        Some(list) => parse_list(list),
        None => parse_mask(value("IRQBALANCE_BANNED_CPUS")?),
    }
}

pub(super) fn judge(facts: &Facts, cores: &Cores) -> Vec<Finding> {
    let mut topic = Topic::new("interrupts");
    if cores.shards.is_empty() || cores.others().is_empty() {
        topic.unknown("placement", "no core is left over for them");
        return topic.done();
    }
    for device in &facts.devices {
        judge_device(device, cores, &mut topic);
    }
    match &facts.workqueue {
        None => topic.unknown("workqueues", "the kernel does not tell where its work runs"),
        Some(on) if on.is_disjoint(&cores.shards) => topic.ok("workqueues", show(on), "the kernel's unbound work leaves the shards alone"),
        Some(on) => topic.warn(
            "workqueues",
            show(on),
            format!("the kernel's unbound work may run on the shards' cores: keep it to {} (tune.sh: workqueue)", show(&cores.others())),
        ),
    }
    match &facts.irqbalance {
        Balance { is_running: None, .. } => topic.unknown(
            "irqbalance",
            "processes of others are not to be seen here (hidepid, a container, a copy without /proc/PID): look as root on the host",
        ),
        Balance { is_running: Some(false), .. } => topic.ok("irqbalance", "does not run", "interrupts stay where they were put"),
        Balance { banned, .. } if banned.is_superset(&cores.shards) => {
            topic.ok("irqbalance", format!("kept off {}", show(banned)), "it leaves the shards' cores alone")
        }
        Balance { banned, .. } => topic.warn(
            "irqbalance",
            format!("runs, kept off {}", show(banned)),
            "it moves interrupts to the shards' cores again: name them in IRQBALANCE_BANNED_CPULIST (tune.sh: irqbalance)",
        ),
    }
    topic.done()
}

fn judge_device(device: &Device, cores: &Cores, topic: &mut Topic) {
    let all = device.irqs.len();
    if all == 0 {
        return topic.unknown(device.name.as_str(), "no interrupts of it were found");
    }
    let on_shards: Vec<String> =
        device.irqs.iter().filter(|(_, on)| !on.is_disjoint(&cores.shards)).map(|(irq, on)| format!("{irq} on {}", show(on))).collect();
    if on_shards.is_empty() {
        return topic.ok(device.name.as_str(), format!("{all}, none on a shard's core"), "shards are not interrupted");
    }
    let shown = on_shards.iter().take(4).cloned().collect::<Vec<_>>().join(", ");
    let found = format!("{} of {all} on shards' cores: {shown}{}", on_shards.len(), if on_shards.len() > 4 { ", .." } else { "" });
    if device.is_disk && device.name.starts_with("nvme") {
        topic.note(device.name.as_str(), found, "the kernel gives each core a queue of an NVMe disk, with its interrupt there: isolcpus=managed_irq,.. on its command line keeps them away (tune.sh: boot)");
    } else if device.is_disk {
        topic.warn(device.name.as_str(), found, "a worker of the kernel finishes each synced write on the core of the interrupt, and waits for the shard there: move them (tune.sh: irq_disk)");
    } else {
        topic.note(
            device.name.as_str(),
            found,
            "shards are interrupted for packets: right for throughput; for latency move them (tune.sh: irq_net)",
        );
    }
}
