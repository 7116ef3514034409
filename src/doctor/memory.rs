//! Memory: huge pages, swapping, balancing between nodes.

use super::finding::{Finding, Topic};
use super::tree::Tree;

#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) huge_pages: Option<String>,
    pub(super) huge_defrag: Option<String>,
    pub(super) swappiness: Option<u64>,
    /// Lines of /proc/swaps behind its head; `None` where it is not told.
    pub(super) swaps: Option<usize>,
    pub(super) numa_balancing: Option<u64>,
    /// Whether the machine tells a host which of its memory is free, by a virtio balloon.
    pub(super) reports_free_pages: Option<bool>,
}

const VIRTIO_DEVICES: &str = "sys/bus/virtio/devices";
/// A balloon's number on the virtio bus, and the bit of its features that says so (virtio 1.2, 5.5 and 5.5.3: VIRTIO_BALLOON_F_PAGE_REPORTING).
const BALLOON: &str = "0x0005";
const PAGE_REPORTING_BIT: usize = 5;

impl Facts {
    pub(super) fn gather(tree: &Tree) -> Facts {
        let chosen = |path: &str| tree.text(path).map(|text| chosen_of(&text));
        Facts {
            huge_pages: chosen("sys/kernel/mm/transparent_hugepage/enabled"),
            huge_defrag: chosen("sys/kernel/mm/transparent_hugepage/defrag"),
            swappiness: tree.number("proc/sys/vm/swappiness"),
            swaps: tree.text("proc/swaps").map(|text| text.lines().count().saturating_sub(1)),
            numa_balancing: tree.number("proc/sys/kernel/numa_balancing"),
            reports_free_pages: reports_free_pages(tree),
        }
    }
}

/// `None` where a device does not tell what it is, or a balloon with a driver what they agreed on.
fn reports_free_pages(tree: &Tree) -> Option<bool> {
    if tree.names("sys/bus").is_empty() {
        return None;
    }
    let mut reports = false;
    for name in tree.names(VIRTIO_DEVICES) {
        let device = format!("{VIRTIO_DEVICES}/{name}");
        let is_driven_balloon = tree.text(&format!("{device}/device"))? == BALLOON && tree.exists(&format!("{device}/driver"));
        if is_driven_balloon {
            // A digit for each bit, the lowest first.
            let features = tree.text(&format!("{device}/features"))?;
            let digits = features.as_bytes();
            if digits.is_empty() || digits.iter().any(|digit| !matches!(digit, b'0' | b'1')) {
                return None;
            }
            reports |= digits.get(PAGE_REPORTING_BIT) == Some(&b'1');
        }
    }
    Some(reports)
}

/// The word in brackets of `always [madvise] never`.
pub(super) fn chosen_of(text: &str) -> String {
    text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or(text, |(word, _)| word).to_owned()
}

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut topic = Topic::new("memory");
    match facts.huge_pages.as_deref() {
        None => topic.unknown("huge pages", "the kernel has none that are transparent"),
        Some("never") => topic.warn(
            "huge pages",
            "never",
            "the buffers ask for huge pages and do not get them: more misses of the TLB (tune.sh: hugepages)",
        ),
        Some(word @ "always") => {
            topic.note("huge pages", word, "the buffers get them; so do programs that gain nothing and stall while they are made")
        }
        Some(word) => topic.ok("huge pages", word, "the buffers ask for them and get them"),
    }
    match facts.huge_defrag.as_deref() {
        None => {}
        Some(word @ "always") => topic.note("huge page defrag", word, "any program may stall while a page is made (tune.sh: hugepages)"),
        Some(word) => topic.ok("huge page defrag", word, "only who asks waits for one to be made"),
    }
    match (facts.swappiness, facts.swaps) {
        (None, _) => topic.unknown("swappiness", "not there"),
        (Some(value), Some(0)) => topic.ok("swappiness", value.to_string(), "there is no swap"),
        (Some(value @ 0..=10), _) => topic.ok("swappiness", value.to_string(), "the kernel swaps only where it must"),
        (Some(value), _) => topic.warn(
            "swappiness",
            value.to_string(),
            "a page that comes back from swap costs a shard as much as many writes: set 1 (tune.sh: swappiness)",
        ),
    }
    match facts.numa_balancing {
        None => topic.unknown("numa balancing", "the kernel does not do it"),
        Some(0) => topic.ok("numa balancing", "off", "pages are not unmapped to see who uses them"),
        Some(_) => topic.warn(
            "numa balancing",
            "on",
            "pages are unmapped now and then to see who uses them, and shards are pinned anyway: switch it off (tune.sh: numa_balancing)",
        ),
    }
    match facts.reports_free_pages {
        None => topic.unknown("free page reporting", "no virtio devices can be seen, or a balloon does not tell what was agreed on"),
        Some(false) => topic.ok("free page reporting", "off", "no virtio balloon tells a host which memory is free"),
        Some(true) => topic.warn(
            "free page reporting",
            "on",
            "the host takes back what is free and gives it anew at its first use, a page at a time: some ms each. Keep memory.prefault=true (it has up to 2 s before a node serves), and ask for a machine without it",
        ),
    }
    topic.done()
}
