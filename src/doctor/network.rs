//! Network cards and the kernel's settings of the network.

use super::cores::Cores;
use super::finding::{Finding, Topic};
use super::tree::Tree;
use std::process::Command;

/// A setting of the kernel: below `least` it is told, with what that costs.
struct Least {
    path: &'static str,
    least: u64,
    why: &'static str,
}

const NUMBERS: [Least; 5] = [
    Least {
        path: "net/core/somaxconn",
        least: 4096,
        why: "a node asks for 4096 waiting connections per port; less refuses clients that come back together",
    },
    Least { path: "net/core/rmem_max", least: 4 << 20, why: "what a program may ask for as its receive buffer" },
    Least { path: "net/core/wmem_max", least: 4 << 20, why: "what a program may ask for as its send buffer" },
    Least {
        path: "net/core/netdev_max_backlog",
        least: 10_000,
        why: "packets that wait for the stack, loopback's among them; what comes beyond is dropped",
    },
    Least { path: "net/ipv4/tcp_max_syn_backlog", least: 4096, why: "connections that are being made" },
];

/// The last of three numbers: how far a window grows by itself.
const WINDOWS: [&str; 2] = ["net/ipv4/tcp_rmem", "net/ipv4/tcp_wmem"];
const WINDOW_BYTES_MIN: u64 = 4 << 20;

#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) cards: Vec<Card>,
    /// Path below /proc/sys and text.
    pub(super) settings: Vec<(&'static str, Option<String>)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Card {
    pub(super) name: String,
    pub(super) receive_queues: usize,
    pub(super) is_virtual: bool,
    pub(super) coalescing: Option<Coalescing>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Coalescing {
    pub(super) is_adaptive: bool,
    pub(super) receive_us: Option<u64>,
}

/// Cards that are devices, by name.
pub(super) fn nics(tree: &Tree) -> Vec<String> {
    tree.names("sys/class/net").into_iter().filter(|name| tree.exists(&format!("sys/class/net/{name}/device"))).collect()
}

impl Facts {
    pub(super) fn gather(tree: &Tree, nics: &[String]) -> Facts {
        let cards = nics.iter().map(|name| Card {
            receive_queues: tree.names(&format!("sys/class/net/{name}/queues")).iter().filter(|queue| queue.starts_with("rx-")).count(),
            is_virtual: tree.resolve(&format!("sys/class/net/{name}/device")).is_some_and(|folder| folder.contains("virtio")),
            coalescing: if tree.is_copy() { None } else { coalescing_of(name) },
            name: name.clone(),
        });
        let paths = NUMBERS.iter().map(|number| number.path).chain(WINDOWS).chain(["net/ipv4/tcp_slow_start_after_idle"]);
        Facts { cards: cards.collect(), settings: paths.map(|path| (path, tree.text(&format!("proc/sys/{path}")))).collect() }
    }
}

/// What the program `ethtool` says, where it is installed: sysfs does not tell.
fn coalescing_of(card: &str) -> Option<Coalescing> {
    let told = Command::new("ethtool").args(["-c", card]).output().ok().filter(|output| output.status.success())?;
    read_coalescing(&String::from_utf8_lossy(&told.stdout))
}

pub(super) fn read_coalescing(text: &str) -> Option<Coalescing> {
    let value = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
    let adaptive = value("Adaptive RX:")?.split_whitespace().next()?;
    Some(Coalescing { is_adaptive: adaptive == "on", receive_us: value("rx-usecs:").and_then(|text| text.parse().ok()) })
}

pub(super) fn judge(facts: &Facts, cores: &Cores) -> Vec<Finding> {
    let mut topic = Topic::new("network");
    if facts.cards.is_empty() {
        topic.unknown("cards", "no network card was found");
    }
    for card in &facts.cards {
        let wanted = cores.shards.len().max(1);
        let queues = format!("{} queues", card.receive_queues);
        match card.receive_queues {
            0 => topic.unknown(card.name.as_str(), "it does not tell its queues"),
            has if has >= wanted || cores.others().len() <= has => {
                topic.ok(card.name.as_str(), queues, "enough for the cores that take its interrupts")
            }
            _ => topic.note(
                card.name.as_str(),
                queues,
                "one core takes in what all shards receive; where the card has more: ethtool -L (tune.sh: nic_queues)",
            ),
        }
        let name = format!("{} coalescing", card.name);
        match &card.coalescing {
            None if card.is_virtual => topic.unknown(name, "a virtual card; its host decides"),
            None => topic.unknown(name, "only ethtool tells, and it is not installed or the card does not answer"),
            Some(Coalescing { is_adaptive: false, receive_us: Some(0) | None }) => {
                topic.ok(name, "off", "the card tells of each packet at once")
            }
            Some(Coalescing { is_adaptive: true, .. }) => topic.note(
                name,
                "adaptive",
                "the card gathers packets under load: right for throughput; for latency switch it off (tune.sh: nic_coalescing)",
            ),
            Some(Coalescing { receive_us: Some(us), .. }) => {
                topic.note(name, format!("{us} us"), "a packet waits so long before the card tells of it (tune.sh: nic_coalescing)");
            }
        }
    }
    let text = |path: &str| facts.settings.iter().find(|(found, _)| *found == path).and_then(|(_, text)| text.as_deref());
    for Least { path, least, why } in &NUMBERS {
        judge_number(&mut topic, path, text(path).map(|text| text.parse().ok()), *least, why);
    }
    for path in WINDOWS {
        let last = text(path).map(|text| text.split_whitespace().last().and_then(|word| word.parse().ok()));
        judge_number(
            &mut topic,
            path,
            last,
            WINDOW_BYTES_MIN,
            "how far a connection's window grows by itself: replicas and replays need as much as a round trip holds",
        );
    }
    let path = "net/ipv4/tcp_slow_start_after_idle";
    match text(path) {
        None => topic.unknown(path, "not there"),
        Some("0") => topic.ok(path, "0", "a connection that was idle goes on with its window"),
        Some(value) => topic.warn(path, value, "a connection that was idle begins anew with ten packets: set 0 (tune.sh: tcp)"),
    }
    topic.done()
}

fn judge_number(topic: &mut Topic, path: &str, found: Option<Option<u64>>, least: u64, why: &str) {
    match found {
        None => topic.unknown(path, "not there"),
        Some(None) => topic.unknown(path, "it holds no number"),
        Some(Some(value)) if value >= least => topic.ok(path, value.to_string(), why),
        Some(Some(value)) => {
            let setting = if path.starts_with("net/core") { "net_core" } else { "tcp" };
            topic.warn(path, value.to_string(), format!("{why}; at least {least} (tune.sh: {setting})"));
        }
    }
}
