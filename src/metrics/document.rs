//! The list of all metrics, for docs/METRICS.md: shard numbers from their tables, and what is known per node or made from timings.
//!
//! Invariant: the document is a function of the tables alone; a test compares it with the file, another one with what /metrics answers.
//!
//! Not here: the values (`admin/prometheus.rs`).

use super::numbers::{COUNTERS, GAUGES, NumberDef};
use super::stages::{RequestClass, Stage};
use std::fmt::Write;

/// A metric that is not one field of a shard.
#[derive(Debug)]
pub struct OtherDef {
    /// Name in /metrics (of a histogram without `_bucket`, `_sum`, `_count`).
    pub name: &'static str,
    /// `counter`, `gauge`, `histogram` or `info`.
    pub kind: &'static str,
    /// Its labels besides `shard`.
    pub labels: &'static str,
    /// Whether there is one per shard.
    pub per_shard: bool,
    /// What it tells.
    pub doc: &'static str,
}

/// Bounds of the exposed histograms, in microseconds: about three per decade, dense where the broker works.
pub const BUCKETS_US: [u64; 22] = [
    5, 10, 20, 50, 75, 100, 150, 200, 300, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    5_000_000, 30_000_000,
];

/// Requests by kind.
pub const REQUESTS: OtherDef =
    OtherDef { name: "tramline_requests_total", kind: "counter", labels: "kind", per_shard: true, doc: "Requests that arrived, by kind." };
/// Errors by code.
pub const ERRORS: OtherDef = OtherDef {
    name: "tramline_errors_total",
    kind: "counter",
    labels: "code",
    per_shard: true,
    doc: "Errors answered to requests or to single entries of them, by code.",
};
/// Stage timings.
pub const DURATIONS: OtherDef = OtherDef {
    name: "tramline_request_duration_seconds",
    kind: "histogram",
    labels: "kind, stage",
    per_shard: true,
    doc: "Time of requests by stage: parse (a whole frame until it is taken in: room, throttling), append (taken in until its block is closed and handed to the disk; of a fetch: looked up and read), write (closed until the level asked for is reached), reply (what is left), total. A stage that begins and ends in one turn of the shard takes no time and is left out; a total is not. A fetch counts from when there was something for it. Stages for produce and fetch, totals for the other kinds; receiving from a queue and joining a group wait for others and are not timed.",
};
/// Exact quantiles of stage timings.
pub const QUANTILES: OtherDef = OtherDef {
    name: "tramline_request_duration_quantile_seconds",
    kind: "gauge",
    labels: "kind, stage, quantile",
    per_shard: true,
    doc: "Quantiles 0.5, 0.99, 0.999 and 1 of the same times since the start, to three digits.",
};
/// Log writes.
pub const LOG_WRITES: OtherDef = OtherDef {
    name: "tramline_log_write_seconds",
    kind: "histogram",
    labels: "",
    per_shard: true,
    doc: "Time of synced log writes, from closing the block to its completion.",
};
/// Leases until their ack.
pub const QUEUE_ACKS: OtherDef = OtherDef {
    name: "tramline_queue_ack_seconds",
    kind: "histogram",
    labels: "",
    per_shard: true,
    doc: "Time for which messages of queues that were acked had been leased: since they were received, or since their lease was extended last. More than a minute counts as a minute.",
};
/// Messages of queues.
pub const QUEUE_MESSAGES: OtherDef = OtherDef {
    name: "tramline_queue_messages",
    kind: "gauge",
    labels: "queue, state",
    per_shard: true,
    doc: "Messages of queues that are not settled, of those that were looked at, by state: ready, leased, delayed (also those whose group has another one out), dead. At most 1,000 queues of a shard have a line of their own (and 4,000 of their partitions); those beyond (tramline_queues_left_out) are together in that of the empty name.",
};
/// Oldest messages.
pub const QUEUE_OLDEST: OtherDef = OtherDef {
    name: "tramline_queue_oldest_age_seconds",
    kind: "gauge",
    labels: "queue",
    per_shard: true,
    doc: "Age of the oldest message of a queue that is not settled, about; 0 where all are. For the same queues.",
};
/// Lag of groups.
pub const GROUP_LAG_MESSAGES: OtherDef = OtherDef {
    name: "tramline_group_lag_messages",
    kind: "gauge",
    labels: "group",
    per_shard: true,
    doc: "Records that a consumer group has not read, in the partitions of this shard of which it has committed something. At most 1,000 groups of a shard are told (and 2,000 partitions of them together); tramline_groups_left_out counts the others.",
};
/// The same in bytes.
pub const GROUP_LAG_BYTES: OtherDef =
    OtherDef { name: "tramline_group_lag_bytes", kind: "gauge", labels: "group", per_shard: true, doc: "Their bytes, about." };
/// The same as an age.
pub const GROUP_LAG_SECONDS: OtherDef = OtherDef {
    name: "tramline_group_lag_seconds",
    kind: "gauge",
    labels: "group",
    per_shard: true,
    doc: "Age of the oldest of them, about.",
};
/// Until nothing is left.
pub const GROUP_DRAIN: OtherDef = OtherDef {
    name: "tramline_group_drain_seconds",
    kind: "gauge",
    labels: "group",
    per_shard: true,
    doc: "Time until the last partition of the group here has nothing left at the pace of its commits; +Inf where the lag of one does not fall.",
};
/// Whether a shard answers.
pub const RESPONSIVE: OtherDef = OtherDef {
    name: "tramline_shard_responsive",
    kind: "gauge",
    labels: "",
    per_shard: true,
    doc: "1 if the shard answered this scrape within 2 seconds, else 0; its other numbers are then those of its last answer.",
};
/// Whether a shard serves.
pub const READY: OtherDef = OtherDef {
    name: "tramline_shard_ready",
    kind: "gauge",
    labels: "",
    per_shard: true,
    doc: "1 while the shard serves; 0 while starting, stopping, or failed.",
};
/// Share of time with work.
pub const BUSY: OtherDef = OtherDef {
    name: "tramline_shard_busy_ratio",
    kind: "gauge",
    labels: "",
    per_shard: true,
    doc: "Share of the time between the last two answers that the shard spent in cycles with something to do (polling for nothing does not count).",
};
/// Free space.
pub const DISK_FREE: OtherDef = OtherDef {
    name: "tramline_disk_free_bytes",
    kind: "gauge",
    labels: "",
    per_shard: false,
    doc: "Free bytes of the data directory's file system.",
};
/// Whole space.
pub const DISK_TOTAL: OtherDef = OtherDef {
    name: "tramline_disk_total_bytes",
    kind: "gauge",
    labels: "",
    per_shard: false,
    doc: "Bytes of the data directory's file system.",
};
/// Pressure.
pub const DISK_PRESSURE: OtherDef = OtherDef {
    name: "tramline_disk_pressure_level",
    kind: "gauge",
    labels: "",
    per_shard: false,
    doc: "0 enough space, 1 below disk.warn.free, 2 below disk.slow.free (producers are slowed down), 3 no room for one more segment of each shard above disk.refuse.free.",
};
/// Uptime.
pub const UPTIME: OtherDef =
    OtherDef { name: "tramline_uptime_seconds", kind: "gauge", labels: "", per_shard: false, doc: "Time since the process started." };
/// Log messages that were not written.
pub const SUPPRESSED: OtherDef = OtherDef {
    name: "tramline_log_messages_suppressed_total",
    kind: "counter",
    labels: "",
    per_shard: false,
    doc: "Repeated messages to standard error that were counted instead of written.",
};
/// Build.
pub const BUILD: OtherDef = OtherDef {
    name: "tramline_build_info",
    kind: "gauge",
    labels: "version, build",
    per_shard: false,
    doc: "Always 1; the labels tell version and build profile.",
};

/// All metrics that are not one field of a shard.
pub static OTHERS: &[&OtherDef] = &[
    &REQUESTS,
    &ERRORS,
    &DURATIONS,
    &QUANTILES,
    &LOG_WRITES,
    &QUEUE_ACKS,
    &QUEUE_MESSAGES,
    &QUEUE_OLDEST,
    &GROUP_LAG_MESSAGES,
    &GROUP_LAG_BYTES,
    &GROUP_LAG_SECONDS,
    &GROUP_DRAIN,
    &RESPONSIVE,
    &READY,
    &BUSY,
    &DISK_FREE,
    &DISK_TOTAL,
    &DISK_PRESSURE,
    &UPTIME,
    &SUPPRESSED,
    &BUILD,
];

/// The text of docs/METRICS.md.
pub fn document() -> String {
    let mut out = String::from(
        "# Metrics\n\n\
         `GET /metrics` on the admin address answers in the OpenMetrics text format, which Prometheus reads. Made from `src/metrics/`; a test compares the\n\
         two. Refresh with `TRAMLINE_UPDATE_DOCS=1 cargo test --test nodes documents`.\n\n\
         Numbers of a shard carry the label `shard`. They are counted by the shard itself without atomics or locks, and collected at scrape: a shard\n\
         that does not answer within 2 seconds is shown with `tramline_shard_responsive 0` and the numbers of its last answer.\n\n",
    );
    out.push_str("## Of a shard\n\n| name | type | labels | meaning |\n|---|---|---|---|\n");
    fields(&mut out, COUNTERS, "counter");
    others(&mut out, true);
    fields(&mut out, GAUGES, "gauge");
    out.push_str("\n## Of the node\n\n| name | type | labels | meaning |\n|---|---|---|---|\n");
    others(&mut out, false);
    let classes: Vec<&str> = RequestClass::ALL.iter().map(|class| class.name()).collect();
    let stages: Vec<&str> = Stage::ALL.iter().map(|stage| stage.name()).collect();
    let _ = write!(
        out,
        "\n## Label values\n\n\
         - `kind` of durations: {}. `stage`: {}.\n\
         - `kind` of `tramline_requests_total`: the request kinds of docs/PROTOCOL.md in lower case with underscores. `code`: the names of the error codes there.\n\
         - Bounds of the histograms in seconds: {}.\n\n\
         ## Other pages\n\n\
         - `/livez`: 200 while the process answers at all.\n\
         - `/readyz`: 200 when every shard serves and answers; else 503, with one line per reason.\n\
         - `/slow`: the slowest requests of the last hour with their stages, as JSON; `tramctl slow` shows them.\n\
         - `/histograms`, `/histograms/SHARD`: all timings since the start, of all shards together or of one, as a log of HDR histograms in nanoseconds (tags: `produce.total` and so on).\n",
        classes.join(", "),
        stages.join(", "),
        BUCKETS_US.iter().map(|us| (*us as f64 / 1e6).to_string()).collect::<Vec<_>>().join(", "),
    );
    out
}

fn fields<T>(out: &mut String, table: &[NumberDef<T>], kind: &str) {
    for (i, def) in table.iter().enumerate() {
        if table[..i].iter().any(|earlier| earlier.name == def.name) {
            continue;
        }
        let same = table.iter().filter(|other| other.name == def.name).filter_map(|other| other.label);
        let values: Vec<&str> = same.map(|(_, value)| value).collect();
        let label = def.label.map_or(String::new(), |(key, _)| format!("{key} = {}", values.join(", ")));
        let _ = writeln!(out, "| `{}` | {kind} | {label} | {} |", def.name, def.doc);
    }
}

fn others(out: &mut String, per_shard: bool) {
    for def in OTHERS.iter().filter(|def| def.per_shard == per_shard) {
        let _ = writeln!(out, "| `{}` | {} | {} | {} |", def.name, def.kind, def.labels, def.doc);
    }
}
