//! Cores: whose they are, clocks, idle states, shared physical cores, memory nodes, stolen time.
//!
//! Not here: what the kernel's command line keeps away from them (`boot.rs`).

use super::boot;
use super::cores::{Cores, Set, parse_list, show};
use super::disk::{self, Place};
use super::finding::{Finding, Topic};
use super::tree::Tree;
use std::collections::BTreeMap;

/// An idle state that takes longer to wake from is told: the profile `latency` leaves none.
const WAKE_US_MAX: u64 = 10;
/// And one above this costs without need: the profile `throughput` leaves none either.
const WAKE_SLOW_US: u64 = 100;
/// Per cent of the time that a hypervisor may take without a word.
const STEAL_PERCENT_MAX: f64 = 1.0;
/// Ticks (hundredths of a second) below which a share says nothing.
const STEAL_TICKS_MIN: u64 = 50;

#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Of the shards' cores, those that have one.
    pub(super) governors: BTreeMap<usize, String>,
    /// Of the shards' cores: the slowest idle state that is not switched off, by its time to wake.
    pub(super) wake_us: BTreeMap<usize, u64>,
    /// `Some(true)`: two threads per core are in use.
    pub(super) smt: Option<bool>,
    /// Threads of the same physical core, itself among them, of each shard's core.
    pub(super) siblings: BTreeMap<usize, Set>,
    pub(super) cmdline: Option<String>,
    /// Cores of each memory node.
    pub(super) nodes: BTreeMap<usize, Set>,
    /// The disks and network cards, and the memory nodes each is attached to; none where that is not told.
    pub(super) device_nodes: Vec<(String, Set)>,
    pub(super) clock: Option<String>,
}

impl Facts {
    pub(super) fn gather(tree: &Tree, cores: &Cores, place: &Place, nics: &[String]) -> Facts {
        let of_core = |core: &usize, file: &str| format!("sys/devices/system/cpu/cpu{core}/{file}");
        let each = |file: &'static str| cores.shards.iter().filter_map(move |core| Some((*core, tree.text(&of_core(core, file))?)));
        let nodes = tree.names("sys/devices/system/node").into_iter().filter_map(|name| {
            let number = name.strip_prefix("node")?.parse().ok()?;
            Some((number, parse_list(&tree.text(&format!("sys/devices/system/node/{name}/cpulist"))?)?))
        });
        let nic_folder = |nic: &String| tree.resolve(&format!("sys/class/net/{nic}/device"));
        let of_nics =
            nics.iter().map(|nic| (nic.clone(), nic_folder(nic).and_then(|folder| disk::numa_node(tree, &folder)).into_iter().collect()));
        let of_disks = place.disks.iter().map(|disk| (disk.name.clone(), disk.numa_nodes.clone()));
        Facts {
            governors: each("cpufreq/scaling_governor").collect(),
            wake_us: cores.shards.iter().filter_map(|core| Some((*core, slowest_state(tree, *core)?))).collect(),
            smt: tree.number("sys/devices/system/cpu/smt/active").map(|active| active == 1),
            siblings: each("topology/thread_siblings_list").filter_map(|(core, text)| Some((core, parse_list(&text)?))).collect(),
            cmdline: tree.text("proc/cmdline"),
            nodes: nodes.collect(),
            device_nodes: of_disks.chain(of_nics).collect(),
            clock: tree.text("sys/devices/system/clocksource/clocksource0/current_clocksource"),
        }
    }
}

fn slowest_state(tree: &Tree, core: usize) -> Option<u64> {
    let folder = format!("sys/devices/system/cpu/cpu{core}/cpuidle");
    let states = tree.names(&folder).into_iter().filter(|name| name.starts_with("state"));
    let used = states.filter(|state| tree.number(&format!("{folder}/{state}/disable")) != Some(1));
    used.filter_map(|state| tree.number(&format!("{folder}/{state}/latency"))).max()
}

pub(super) fn judge(facts: &Facts, cores: &Cores) -> Vec<Finding> {
    let mut topic = Topic::new("cpu");
    judge_placement(cores, &mut topic);
    judge_clocks(facts, &mut topic);
    judge_siblings(facts, cores, &mut topic);
    boot::judge(facts.cmdline.as_deref(), cores, &mut topic);
    judge_nodes(facts, cores, &mut topic);
    topic.done()
}

fn judge_placement(cores: &Cores, topic: &mut Topic) {
    let left = cores.left();
    if cores.shards.is_empty() {
        topic.note("placement", "unpinned", "shards float over all cores: for tests, latencies suffer");
    } else if cores.online.is_empty() {
        topic.unknown("placement", "the machine does not tell its cores");
    } else if !cores.shards.is_subset(&cores.allowed) {
        topic.bad(
            "placement",
            format!("shards on {}, a node may run on {}", show(&cores.shards), show(&cores.allowed)),
            "a node refuses to start so: name other cores with --cpus, or give it these (CPUAffinity=, scripts/systemd/cores.conf)",
        );
    } else if left.is_empty() {
        topic.note(
            "placement",
            format!("shards on {}, none is left", show(&cores.shards)),
            "interrupts, the kernel's workers and the housekeeping share the shards' cores: leave one core without a shard",
        );
    } else {
        let found = format!("shards on {}, {} left", show(&cores.shards), show(&left));
        topic.ok("placement", found, "what is not a shard has a core to run on");
    }
    if !cores.shell.is_empty() && !cores.shell.is_superset(&cores.allowed) {
        topic.note(
            "affinity",
            format!("this shell may run on {}, a node on {}", show(&cores.shell), show(&cores.allowed)),
            "looked at is what a node can be given; one that this shell starts has the shell's cores alone: use taskset, or CPUAffinity= in its unit (scripts/systemd/cores.conf)",
        );
    }
}

fn judge_clocks(facts: &Facts, topic: &mut Topic) {
    let slow: Set = facts.governors.iter().filter(|(_, word)| *word != "performance").map(|(core, _)| *core).collect();
    match (facts.governors.values().next(), slow.first()) {
        (None, _) => topic.unknown("governor", "no core has one: a virtual machine, or the firmware decides"),
        (Some(_), None) => topic.ok("governor", "performance", "cores keep their clock while they wait"),
        (Some(_), Some(core)) => {
            let found = format!("{} on {}", facts.governors[core], show(&slow));
            topic.warn("governor", found, "a core that waited begins slowly: set performance (tune.sh: governor)");
        }
    }
    let deepest = facts.wake_us.values().max();
    match deepest {
        None => topic.unknown("idle states", "the kernel lists none: a virtual machine, or idle=poll"),
        Some(us) if *us <= WAKE_US_MAX => {
            topic.ok("idle states", format!("at most {us} us to wake"), "a core that sleeps is there again at once")
        }
        Some(us) => {
            let sleepers: Set = facts.wake_us.iter().filter(|(_, us)| **us > WAKE_US_MAX).map(|(core, _)| *core).collect();
            let found = format!("up to {us} us to wake, on {}", show(&sleepers));
            match *us > WAKE_SLOW_US {
                true => topic.warn(
                    "idle states",
                    found,
                    "it is added to the latency of whatever wakes the shard: switch them off (tune.sh: cstates), or spin=always",
                ),
                false => topic.note(
                    "idle states",
                    found,
                    "right for throughput, where cores may sleep lightly; for latency switch them off (tune.sh: cstates), or spin=always",
                ),
            }
        }
    }
    match facts.clock.as_deref() {
        None => topic.unknown("clock", "the kernel does not tell its clock source"),
        Some(clock @ ("tsc" | "kvm-clock" | "arch_sys_counter" | "hyperv_clocksource_tsc_page")) => {
            topic.ok("clock", clock, "it is read without a system call, some 20 ns");
        }
        Some(clock) => topic.warn(
            "clock",
            clock,
            "each reading asks the kernel or a device, a microsecond, and every cycle of a shard reads it: set tsc (tune.sh: clocksource)",
        ),
    }
}

fn judge_siblings(facts: &Facts, cores: &Cores, topic: &mut Topic) {
    match facts.smt {
        None => return topic.unknown("smt", "the kernel does not tell"),
        Some(false) => return topic.ok("smt", "one thread per core", "a shard has its physical core to itself"),
        Some(true) => {}
    }
    let shared = |with: &Set| -> Set {
        let is_shared =
            |core: &&usize| facts.siblings.get(core).is_some_and(|all| all.iter().any(|other| other != *core && with.contains(other)));
        cores.shards.iter().filter(is_shared).copied().collect()
    };
    let (with_shards, with_others) = (shared(&cores.shards), shared(&cores.others()));
    if !with_shards.is_empty() {
        topic.warn(
            "smt",
            format!("shards {} share physical cores", show(&with_shards)),
            "each runs at some 60 %: choose --cpus of different physical cores",
        );
    } else if !with_others.is_empty() {
        topic.note(
            "smt",
            format!("shards {} share theirs with cores left over", show(&with_others)),
            "what runs there slows the shard down: keep these threads idle, or switch SMT off",
        );
    } else {
        topic.ok("smt", "on", "no shard shares its physical core");
    }
}

fn judge_nodes(facts: &Facts, cores: &Cores, topic: &mut Topic) {
    match facts.nodes.len() {
        0 => return topic.unknown("memory nodes", "the kernel does not tell them"),
        1 => return topic.ok("memory nodes", "one", "all memory is equally near to all cores"),
        _ => {}
    }
    let used: Set = facts.nodes.iter().filter(|(_, of)| !of.is_disjoint(&cores.shards)).map(|(node, _)| *node).collect();
    // One of several ways to a disk is enough: the kernel takes the near one.
    let far = facts.device_nodes.iter().filter(|(_, nodes)| !nodes.is_empty() && nodes.is_disjoint(&used));
    let far: Vec<String> = far.map(|(name, nodes)| format!("{name} (node {})", show(nodes))).collect();
    let untold: Vec<&str> = facts.device_nodes.iter().filter(|(_, nodes)| nodes.is_empty()).map(|(name, _)| name.as_str()).collect();
    if !far.is_empty() {
        let found = format!("shards on node {}, not on that of {}", show(&used), far.join(", "));
        topic.warn("memory nodes", found, "every byte crosses between the processors: choose --cpus on the node of the disk and the card");
    } else if used.len() > 1 {
        topic.note(
            "memory nodes",
            format!("shards on nodes {}", show(&used)),
            "messages between shards cross between the processors; one node per process avoids that",
        );
    } else if facts.device_nodes.is_empty() || !untold.is_empty() {
        let of = if untold.is_empty() { "disk and network card".to_owned() } else { untold.join(", ") };
        topic.unknown("memory nodes", format!("there are {}, and the kernel does not tell that of {of}", facts.nodes.len()));
    } else {
        topic.ok("memory nodes", format!("shards on node {}", show(&used)), "cores, memory and devices are near to each other");
    }
}

/// /proc/stat before and after the self-test.
#[derive(Clone, Debug, Default)]
pub(super) struct Steal {
    pub(super) before: Option<String>,
    pub(super) after: Option<String>,
}

/// Ticks of all cores: stolen ones, and all.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let numbers: Vec<u64> =
        stat.lines().find_map(|line| line.strip_prefix("cpu "))?.split_whitespace().map_while(|word| word.parse().ok()).collect();
    // User, nice, system, idle, iowait, irq, softirq, steal; guests are counted within user.
    Some((*numbers.get(7)?, numbers.iter().take(8).sum()))
}

pub(super) fn judge_steal(steal: &Steal) -> Vec<Finding> {
    let mut topic = Topic::new("cpu");
    let Some((stolen, all)) = steal.before.as_deref().and_then(ticks).filter(|(_, all)| *all > 0) else {
        topic.unknown("steal", "/proc/stat does not tell");
        return topic.done();
    };
    let during =
        steal.after.as_deref().and_then(ticks).map(|(later, all_later)| (later.saturating_sub(stolen), all_later.saturating_sub(all)));
    let percent = |(stolen, all): (u64, u64)| stolen as f64 * 100.0 / all as f64;
    let since_start = percent((stolen, all));
    let now = during.filter(|(_, all)| *all >= STEAL_TICKS_MIN).map(percent);
    let found = match now {
        Some(now) => format!("{now:.1} % now, {since_start:.1} % since the start"),
        None => format!("{since_start:.1} % since the start"),
    };
    match now.unwrap_or(since_start) > STEAL_PERCENT_MAX {
        true => topic.warn("steal", found, "the hypervisor gives this machine's cores to others: each time a shard stands still for milliseconds. Ask for cores of its own"),
        false => topic.ok("steal", found, "nobody else runs on these cores, as far as a hypervisor tells"),
    }
    topic.done()
}
