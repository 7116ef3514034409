//! The one table of node settings: key, kind, range, default, flag, meaning. Everything else about settings is made from it: the command line,
//! the environment's names, the file's keys, `tramline config` and docs/SETTINGS.md.
//!
//! Invariants: keys are lower case words joined by dots; no key is the front of another one (`a` and `a.b` could not both stand in a TOML
//! file); a derived default looks only at the machine, at what was given explicitly, and at settings above it in the table.
//!
//! Not here: settings of a topic (the control room), numbers nobody may change (`constants.rs`).

use super::value::{Kind, Value};
use super::{DiskSize, Machine};
use crate::constants;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECOND: u64 = 1_000_000;

/// One setting.
#[derive(Debug)]
pub struct Def {
    /// Its name in `--set`, in the file and in all messages.
    pub key: &'static str,
    /// What its text means.
    pub kind: Kind,
    /// Smallest accepted number (numbers only).
    pub min: u64,
    /// Largest accepted number (numbers only).
    pub max: u64,
    /// What holds when nothing is said.
    pub default: DefaultValue,
    /// Its own flag of `serve`, without the dashes.
    pub flag: Option<&'static str>,
    /// What it is for, and what a smaller or larger value does.
    pub doc: &'static str,
}

/// What holds when nothing is said.
#[derive(Debug)]
pub enum DefaultValue {
    /// Always the same.
    Fixed(&'static str),
    /// Depends on the machine or on other settings.
    Derived {
        /// The rule in words.
        rule: &'static str,
        /// The rule.
        of: fn(&Facts<'_>) -> Value,
    },
}

/// What a derived default may look at.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The machine.
    pub machine: &'a Machine,
    /// The file system of the data directory, when it could be asked.
    pub disk: Option<DiskSize>,
    /// Looks up what is known so far.
    pub known: &'a [(&'static str, Value)],
}

impl Facts<'_> {
    fn number(&self, key: &str) -> Option<u64> {
        self.known.iter().find(|(known, _)| *known == key).and_then(|(_, value)| match value {
            Value::Number(number) => Some(*number),
            _ => None,
        })
    }
    fn cpus(&self) -> Option<&[usize]> {
        self.known.iter().find(|(known, _)| *known == "cpus").and_then(|(_, value)| match value {
            Value::Cpus(cpus) if !cpus.is_empty() => Some(cpus.as_slice()),
            _ => None,
        })
    }
    fn shards(&self) -> u64 {
        self.number("shards").unwrap_or(1).max(1)
    }
}

/// Name of a setting's environment variable: `segment.bytes` is `TRAMLINE_SEGMENT_BYTES`.
pub fn env_name(key: &str) -> String {
    format!("TRAMLINE_{}", key.replace('.', "_").to_uppercase())
}

/// The definition of `key`.
pub fn find(key: &str) -> Option<&'static Def> {
    TABLE.iter().find(|def| def.key == key)
}

impl Def {
    /// The accepted range in words.
    pub fn range(&self) -> String {
        match self.kind {
            Kind::Bytes | Kind::Duration | Kind::Count { .. } => {
                format!("{} to {}", self.kind.show(&Value::Number(self.min)), self.kind.show(&Value::Number(self.max)))
            }
            Kind::Choice(words) => words.join(", "),
            Kind::Flag => "true, false".to_owned(),
            Kind::Space => "per cent of the file system, bytes, or the smaller of both".to_owned(),
            Kind::Address | Kind::AddressOrNone | Kind::Addresses | Kind::Host | Kind::Rack | Kind::Cpus | Kind::Path => String::new(),
        }
    }
    /// The default in words.
    pub fn default_words(&self) -> &'static str {
        match self.default {
            DefaultValue::Fixed("") => "none",
            DefaultValue::Fixed(text) => text,
            DefaultValue::Derived { rule, .. } => rule,
        }
    }
}

const fn text(key: &'static str, kind: Kind, default: DefaultValue, flag: Option<&'static str>, doc: &'static str) -> Def {
    Def { key, kind, min: 0, max: 0, default, flag, doc }
}
const fn bytes(key: &'static str, min: u64, max: u64, default: DefaultValue, doc: &'static str) -> Def {
    Def { key, kind: Kind::Bytes, min, max, default, flag: None, doc }
}
const fn span(key: &'static str, min: u64, max: u64, default: DefaultValue, doc: &'static str) -> Def {
    Def { key, kind: Kind::Duration, min, max, default, flag: None, doc }
}
const fn space(key: &'static str, default: &'static str, doc: &'static str) -> Def {
    Def { key, kind: Kind::Space, min: 0, max: 0, default: fixed(default), flag: None, doc }
}
const fn count(key: &'static str, unit: &'static str, min: u64, max: u64, default: DefaultValue, doc: &'static str) -> Def {
    Def { key, kind: Kind::Count { unit }, min, max, default, flag: None, doc }
}
const fn fixed(text: &'static str) -> DefaultValue {
    DefaultValue::Fixed(text)
}

/// All settings of a node.
pub static TABLE: &[Def] = &[
    text("data.dir", Kind::Path, fixed(""), Some("data-dir"), "Directory that holds everything this node keeps. One node per directory."),
    Def {
        key: "node.id",
        kind: Kind::Count { unit: "nodes" },
        min: 1,
        max: constants::NODE_ID_MAX,
        default: fixed("1"),
        flag: Some("node-id"),
        doc: "Number of this node in its cluster, which no other node has or had. Fixed for a data directory at its first start.",
    },
    text(
        "listen",
        Kind::Address,
        fixed("127.0.0.1:7410"),
        Some("listen"),
        "Address for clients. Every shard accepts on this port; shard i also listens on the port plus 1 plus i. Port 0 picks free ports.",
    ),
    text(
        "advertise",
        Kind::Host,
        fixed(""),
        Some("advertise"),
        "Host name or address told to clients. None means the one of listen; needed when that is 0.0.0.0 or [::].",
    ),
    text(
        "admin.listen",
        Kind::Address,
        fixed("127.0.0.1:7401"),
        Some("admin"),
        "Address for /metrics, /livez and /readyz. Port 0 picks a free one.",
    ),
    text(
        "cluster.listen",
        Kind::AddressOrNone,
        fixed(""),
        Some("cluster-listen"),
        "Address for the other nodes of the cluster, HOST:7700 by convention: shard 0's, and the one that other nodes are given to join. Shard i listens on its port plus i. Port 0 picks free ports. None: no node can connect, a cluster of one. Where it is 0.0.0.0 or [::], others are told advertise, which has to be an IP address then.",
    ),
    text(
        "cluster.join",
        Kind::Addresses,
        fixed(""),
        Some("join"),
        "Addresses (cluster.listen) of nodes of the cluster that this node becomes a part of at the first start of its data directory; one that answers is enough. Later starts ask whether these nodes are of the same cluster: where one is of another, the start is refused; where none answers, it goes on. None: the first start begins a cluster.",
    ),
    text(
        "rack",
        Kind::Rack,
        fixed(""),
        Some("rack"),
        "What fails together with this node: a rack, a room, a zone. Replicas are spread over different ones.",
    ),
    text(
        "cpus",
        Kind::Cpus,
        DefaultValue::Derived { rule: "the first cores allowed to the process, one per shard", of: cpus_default },
        Some("cpus"),
        "Cores of the shards, one each. The cores left over do the housekeeping.",
    ),
    Def {
        key: "shards",
        kind: Kind::Count { unit: "shards" },
        min: 1,
        max: constants::SHARDS_MAX,
        default: DefaultValue::Derived {
            rule: "as many as cpus names; else the cores allowed to the process less one, at least 1",
            of: shards_default,
        },
        flag: Some("shards"),
        doc: "Shards of this node, one core each. Fixed for a data directory at its first start.",
    },
    text(
        "unpinned",
        Kind::Flag,
        fixed("false"),
        Some("unpinned"),
        "Lets shards float over all cores and allows more shards than cores. For tests: latencies suffer.",
    ),
    text(
        "spin",
        Kind::Choice(&["always", "adaptive", "never"]),
        fixed("adaptive"),
        Some("spin"),
        "What an idle shard does: always polls (lowest latency, a core at 100 %), polls for adaptive.us and then sleeps, or sleeps at once.",
    ),
    count(
        "adaptive.us",
        "microseconds",
        1,
        1_000_000,
        fixed("50"),
        "How long an idle shard polls before it sleeps when spin is adaptive. Waking costs some 50 us, so much less gains nothing.",
    ),
    count(
        "groups.per.shard",
        "replica groups",
        1,
        crate::constants::GROUPS_PER_SHARD_MAX,
        fixed("4"),
        "Replica groups on each shard. Fixed for a data directory at its first start. More spread leaderships finer, each costs a consensus state.",
    ),
    bytes(
        "segment.bytes",
        16 * MIB,
        2 * GIB,
        DefaultValue::Derived {
            rule: "256MiB; on a file system below 16 GiB a 64th of it, a power of two, at least 16MiB",
            of: segment_default,
        },
        "Size of a new log segment file. Space is given back by whole segments: small ones sooner, large ones with fewer files. Existing files keep theirs.",
    ),
    bytes(
        "block.bytes.max",
        64 * KIB,
        4 * MIB,
        fixed("1MiB"),
        "Largest log block, which is what one synced write carries. Larger ones gain little throughput and add to the latency of what waits behind them.",
    ),
    count(
        "writes.in.flight.max",
        "writes",
        1,
        4,
        fixed("3"),
        "Log writes of a shard under way at once. One leaves the disk idle between writes; more than the disk can overlap only makes blocks smaller.",
    ),
    count(
        "pool.segments",
        "segments",
        1,
        64,
        fixed("2"),
        "Segment files kept prepared. Writing into prepared space needs no journal commit: about half the latency.",
    ),
    bytes(
        "memory.bytes",
        48 * MIB,
        256 * GIB,
        DefaultValue::Derived { rule: "a quarter of the memory divided by the shards, 64MiB to 512MiB", of: memory_default },
        "Memory for buffers, per shard: open and in-flight blocks, tail cache, reads. When it is used up, the shard stops reading from sockets.",
    ),
    count(
        "sorter.segments",
        "segments",
        0,
        64,
        fixed("16"),
        "Sealed segments that are sorted together at most; scattered ones wait until there are so many. More make longer runs and need as much more space meanwhile. 0: nothing is sorted.",
    ),
    bytes(
        "sorter.bytes.per.second",
        MIB,
        16 * GIB,
        fixed("256MiB"),
        "What the sorter reads at most per shard and second; it writes as much.",
    ),
    bytes(
        "replica.catchup.bytes.per.second",
        MIB,
        16 * GIB,
        fixed("256MiB"),
        "What a shard reads at most per second for followers that need a snapshot: new replicas, and those that were away for long.",
    ),
    bytes(
        "sorter.run.bytes",
        4 * KIB,
        16 * MIB,
        fixed("256KiB"),
        "Segments whose runs of one partition have so much on average are left alone, and sorted runs end at it: a read of 256 KiB costs little more than its bytes. Less: less is copied, and replays read smaller pieces.",
    ),
    count(
        "sorter.live.percent",
        "percent",
        0,
        90,
        fixed("50"),
        "A sealed segment of which less than this share is still wanted is copied to win its space back. More: less space for the same data, and more copying. 0: never.",
    ),
    bytes(
        "sorter.debt.bytes",
        32 * MIB,
        1024 * GIB,
        DefaultValue::Derived { rule: "four times sorter.segments times segment.bytes", of: debt_default },
        "Scattered segments that may wait for the sorter, per shard. Above the half of it producers are slowed down towards what the sorter works off.",
    ),
    bytes(
        "index.bytes.max",
        16 * MIB,
        64 * GIB,
        DefaultValue::Derived { rule: "a sixteenth of the memory divided by the shards, at least 64MiB", of: index_default },
        "Memory that may list where batches are, per shard, beside memory.bytes: 40 bytes a batch until its segment is full, 56 per partition and segment until sorting joins them. Above the half of it producers are slowed down.",
    ),
    bytes(
        "scrub.bytes.per.second",
        0,
        GIB,
        fixed("4MiB"),
        "What the scrubber reads per shard and second to check what is stored. 4MiB are 14 GiB an hour. 0: it does not run.",
    ),
    span(
        "scrub.interval",
        60 * SECOND,
        365 * 24 * 3600 * SECOND,
        fixed("24h"),
        "From the beginning of one pass of the scrubber to that of the next. The first one begins with the process.",
    ),
    text(
        "memory.prefault",
        Kind::Flag,
        fixed("true"),
        None,
        "Brings memory.bytes in before the node serves, for up to 2 s; the rest in the background, and where no core is left beside the shards only while all of them sleep. Pages that come at their first use make the first seconds of load slow. false: memory is taken as it is needed.",
    ),
    bytes(
        "tail.cache.bytes",
        MIB,
        128 * GIB,
        DefaultValue::Derived { rule: "256MiB or half of memory.bytes, whichever is less", of: tail_default },
        "Part of memory.bytes that keeps the newest blocks, per shard: consumers that keep up are served from it without a disk read.",
    ),
    bytes(
        "receive.bytes.max",
        16 * MIB,
        64 * GIB,
        DefaultValue::Derived { rule: "half of memory.bytes", of: receive_default },
        "Memory for received bytes that wait to be handled, all connections of a shard together; beyond it the shard stops reading from sockets that ask for more.",
    ),
    bytes(
        "cluster.receive.bytes.max",
        32 * MIB,
        64 * GIB,
        DefaultValue::Derived { rule: "a quarter of memory.bytes, at least 32MiB", of: cluster_receive_default },
        "Memory for received bytes of other nodes that wait to be handled, all their connections with a shard together, beside receive.bytes.max; beyond it only one of those that ask for more than 64KiB is read at a time.",
    ),
    bytes(
        "frame.max.bytes",
        64 * KIB,
        16 * MIB,
        fixed("8MiB"),
        "Largest frame (meta and payload) a client may send; a larger one is refused and the connection closed.",
    ),
    bytes(
        "batch.max.bytes",
        16 * KIB,
        6 * MIB,
        DefaultValue::Derived { rule: "4MiB or an eighth of segment.bytes, whichever is less", of: batch_default },
        "Largest batch, header included. A segment has to hold four of them.",
    ),
    bytes("record.max.bytes", KIB, 6 * MIB, fixed("1MiB"), "Largest record: key, value and headers together, as stored."),
    bytes("key.max.bytes", 16, 65_535, fixed("4KiB"), "Longest record key."),
    count("headers.max", "headers", 0, 65_535, fixed("64"), "Most headers of one record."),
    bytes("headers.bytes.max", 0, 6 * MIB, fixed("64KiB"), "Largest headers section of one record."),
    count(
        "entries.max",
        "partitions",
        1,
        20_000,
        fixed("4096"),
        "Most partitions that one produce, fetch or list-offsets request may name.",
    ),
    count(
        "connections.max",
        "connections",
        1,
        1_000_000,
        fixed("10000"),
        "Most client connections of a shard; one more is accepted, told why, and closed.",
    ),
    count(
        "cluster.connections.max",
        "connections",
        16,
        131_072,
        fixed("4096"),
        "Most connections with other nodes, per shard, of those that came and of those that were made, each; they do not count towards connections.max. 63 other nodes need 252 each with as many shards as this one, at most 252 for every shard of such a node.",
    ),
    count(
        "producers.max",
        "producers",
        1,
        500_000,
        fixed("50000"),
        "Idempotent producers that a shard remembers, counted once per partition they send to; some 350 bytes each, and at most 400 in each checkpoint (one per sealed segment). One more is refused (retriable) until one is forgotten.",
    ),
    span(
        "producer.expiry",
        600 * SECOND,
        30 * 24 * 3600 * SECOND,
        fixed("1h"),
        "An idempotent producer that sends nothing to a partition for so long is forgotten there; its batches are not told from new ones any more. Clients give a batch up long before (delivery timeout at most half of it).",
    ),
    span(
        "group.expiry",
        SECOND,
        365 * 24 * 3600 * SECOND,
        fixed("168h"),
        "A consumer group without members of which no offset was committed for so long is deleted with its offsets.",
    ),
    span(
        "connection.idle.timeout",
        SECOND,
        24 * 3600 * SECOND,
        fixed("10m"),
        "A connection on which nothing arrived for this long is closed.",
    ),
    span(
        "keepalive.interval",
        SECOND,
        3600 * SECOND,
        fixed("30s"),
        "How often a client is asked to ping on an otherwise silent connection.",
    ),
    bytes(
        "connection.send.queue.bytes",
        256 * KIB,
        GIB,
        fixed("4MiB"),
        "Bytes that may wait to be sent on one connection. Beyond it requests of that connection wait; a client that never reads costs this much and no more.",
    ),
    span(
        "partial.frame.timeout",
        100_000,
        3600 * SECOND,
        fixed("30s"),
        "A frame that has begun has to be complete within this time, or the connection is closed.",
    ),
    bytes(
        "credit.max.bytes",
        64 * KIB,
        GIB,
        fixed("64MiB"),
        "Most bytes of credit that count on one fetch stream; more is taken as this much.",
    ),
    span(
        "fetch.wait.max",
        1_000,
        3600 * SECOND,
        fixed("1m"),
        "Longest time a fetch may ask to wait for something new; more is taken as this much.",
    ),
    space(
        "disk.warn.free",
        "10%,20GiB",
        "A warning is logged and shown when the data directory's file system has less free space than this.",
    ),
    space(
        "disk.slow.free",
        "5%,8GiB",
        "Producers are slowed down when less than this is free (throttle.time): time for retention, the sorter and the operator.",
    ),
    space(
        "disk.refuse.free",
        "1.5%,2GiB",
        "No new segment is taken from the file system when less than this would stay free: produce is then refused (retriable); reading, trimming, deleting, retention and sorting go on.",
    ),
    span(
        "throttle.time",
        SECOND / 10,
        3600 * SECOND,
        fixed("1m"),
        "How slow: below disk.slow.free producers get what is left above disk.refuse.free divided by this, each second, and what retention gives back.",
    ),
    span("shutdown.timeout", SECOND, 3600 * SECOND, fixed("30s"), "How long an orderly stop may take before the process ends anyway."),
    text(
        "log.level",
        Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        fixed("info"),
        Some("log-level"),
        "Least important messages that are written to standard error.",
    ),
    text(
        "log.format",
        Kind::Choice(&["text", "json"]),
        fixed("text"),
        Some("log-format"),
        "Form of the messages on standard error: for people or one JSON object per line.",
    ),
];

fn shards_default(facts: &Facts<'_>) -> Value {
    let shards = facts.cpus().map_or(facts.machine.cpus.len().saturating_sub(1), <[usize]>::len);
    Value::Number((shards as u64).clamp(1, constants::SHARDS_MAX))
}

/// Stands before `shards` in the table, so it counts on its own what `shards` will be.
fn cpus_default(facts: &Facts<'_>) -> Value {
    let shards = facts.number("shards").unwrap_or_else(|| match shards_default(facts) {
        Value::Number(number) => number,
        _ => 1,
    });
    Value::Cpus(facts.machine.cpus.iter().copied().take(shards as usize).collect())
}

fn segment_default(facts: &Facts<'_>) -> Value {
    let total = facts.disk.map_or(u64::MAX, |disk| disk.total_bytes);
    let part = (total / 64).clamp(16 * MIB, 256 * MIB);
    Value::Number(1 << part.ilog2())
}

fn batch_default(facts: &Facts<'_>) -> Value {
    Value::Number((4 * MIB).min(facts.number("segment.bytes").unwrap_or(256 * MIB) / 8))
}

fn debt_default(facts: &Facts<'_>) -> Value {
    let segments = 4 * facts.number("sorter.segments").unwrap_or(16).max(1);
    Value::Number((segments * facts.number("segment.bytes").unwrap_or(256 * MIB)).max(32 * MIB))
}

fn index_default(facts: &Facts<'_>) -> Value {
    Value::Number((facts.machine.memory_bytes / 16 / facts.shards()).clamp(64 * MIB, 64 * GIB) / MIB * MIB)
}

fn memory_default(facts: &Facts<'_>) -> Value {
    let share = facts.machine.memory_bytes / 4 / facts.shards();
    Value::Number(share.clamp(64 * MIB, 512 * MIB) / MIB * MIB)
}

fn tail_default(facts: &Facts<'_>) -> Value {
    Value::Number((256 * MIB).min(facts.number("memory.bytes").unwrap_or(512 * MIB) / 2))
}

fn receive_default(facts: &Facts<'_>) -> Value {
    Value::Number((facts.number("memory.bytes").unwrap_or(512 * MIB) / 2).max(16 * MIB))
}

fn cluster_receive_default(facts: &Facts<'_>) -> Value {
    Value::Number((facts.number("memory.bytes").unwrap_or(512 * MIB) / 4).max(32 * MIB))
}
