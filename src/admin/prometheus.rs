//! The text of /metrics, from what the collector knows.
//!
//! Invariants: names, kinds and meanings come from the tables in `metrics/` and nowhere else; all numbers of one name stand together, as the
//! format demands; a shard that never answered shows only its state.
//!
//! Not here: collecting (`collector.rs`).

use super::NodeFacts;
use super::collector::{Collector, ShardTotals};
use crate::constants;
use crate::metrics::document as def;
use crate::metrics::document::{BUCKETS_US, OtherDef};
use crate::metrics::labelled::GroupNumbers;
use crate::metrics::numbers::{COUNTERS, GAUGES, NumberDef, Scale};
use crate::metrics::{Health, RequestClass, ShardHealth, Stage, Timing};
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::fmt;
use tramline_wire::error::ErrorCode;
use tramline_wire::kind::Kind;

type Labels = Vec<(&'static str, String)>;

/// One number of a name.
#[derive(Debug)]
enum Sample {
    Counter(f64),
    Whole(u64),
    Gauge(f64),
    Histogram { sum: f64, count: u64, buckets: Vec<(f64, u64)> },
}

/// All numbers of one name.
#[derive(Debug)]
struct Metric {
    name: &'static str,
    doc: &'static str,
    kind: MetricType,
    samples: Vec<(Labels, Sample)>,
}

#[derive(Debug)]
struct Page(Vec<Metric>);

impl prometheus_client::collector::Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for metric in &self.0 {
            // The encoder adds the ending of counters and the full stop of the meaning itself.
            let name = metric.name.strip_suffix("_total").unwrap_or(metric.name);
            let doc = metric.doc.strip_suffix('.').unwrap_or(metric.doc);
            let mut descriptor = encoder.encode_descriptor(name, doc, None, metric.kind)?;
            for (labels, sample) in &metric.samples {
                match labels.is_empty() {
                    true => write_sample(&mut descriptor, sample)?,
                    false => write_sample(&mut descriptor.encode_family(labels)?, sample)?,
                }
            }
        }
        Ok(())
    }
}

fn write_sample(encoder: &mut MetricEncoder<'_>, sample: &Sample) -> Result<(), fmt::Error> {
    match sample {
        Sample::Counter(value) => encoder.encode_counter::<NoLabelSet, _, f64>(value, None),
        Sample::Whole(value) => encoder.encode_counter::<NoLabelSet, _, f64>(value, None),
        Sample::Gauge(value) => encoder.encode_gauge(value),
        Sample::Histogram { sum, count, buckets } => encoder.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None),
    }
}

/// The text.
pub fn page(collector: &Collector, health: &Health, node: &NodeFacts) -> String {
    let shards = collector.shards();
    let mut all = Vec::new();
    numbers(&mut all, shards, COUNTERS, MetricType::Counter, |totals| totals.last.as_ref().map(|last| &last.counters));
    numbers(&mut all, shards, GAUGES, MetricType::Gauge, |totals| totals.last.as_ref().map(|last| &last.gauges));
    by_code(&mut all, shards);
    timings(&mut all, shards);
    queues(&mut all, shards);
    lags(&mut all, shards);
    states(&mut all, shards, health);
    of_node(&mut all, node);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page(all)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("writing into a String cannot fail");
    text
}

fn shard_label(shard: usize) -> (&'static str, String) {
    ("shard", shard.to_string())
}

fn numbers<T>(
    all: &mut Vec<Metric>,
    shards: &[ShardTotals],
    table: &'static [NumberDef<T>],
    kind: MetricType,
    of: impl Fn(&ShardTotals) -> Option<&T>,
) {
    for (i, first) in table.iter().enumerate() {
        if table[..i].iter().any(|earlier| earlier.name == first.name) {
            continue;
        }
        let mut samples = Vec::new();
        for def in table.iter().filter(|def| def.name == first.name) {
            for (shard, numbers) in shards.iter().enumerate().filter_map(|(shard, totals)| Some((shard, of(totals)?))) {
                let mut labels = vec![shard_label(shard)];
                labels.extend(def.label.map(|(key, value)| (key, value.to_owned())));
                let sample = match (kind, def.scale) {
                    (MetricType::Counter, Scale::One) => Sample::Whole((def.get)(numbers)),
                    (MetricType::Counter, Scale::Microseconds) => Sample::Counter(def.shown(numbers)),
                    _ => Sample::Gauge(def.shown(numbers)),
                };
                samples.push((labels, sample));
            }
        }
        all.push(Metric { name: first.name, doc: first.doc, kind, samples });
    }
}

/// `ListOffsets` is `list_offsets`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

fn by_code(all: &mut Vec<Metric>, shards: &[ShardTotals]) {
    let (mut requests, mut errors) = (Vec::new(), Vec::new());
    for (shard, last) in shards.iter().enumerate().filter_map(|(shard, totals)| Some((shard, totals.last.as_ref()?))) {
        for kind in Kind::ALL {
            let count = last.requests.get(kind.as_u8() as usize).copied().unwrap_or(0);
            requests.push((vec![shard_label(shard), ("kind", snake(kind.name()))], Sample::Whole(count)));
        }
        for code in ErrorCode::ALL.iter().filter(|code| **code != ErrorCode::Ok) {
            let count = last.errors.get(code.as_u16() as usize).copied().unwrap_or(0);
            errors.push((vec![shard_label(shard), ("code", code.name().to_owned())], Sample::Whole(count)));
        }
    }
    push(all, &def::REQUESTS, MetricType::Counter, requests);
    push(all, &def::ERRORS, MetricType::Counter, errors);
}

fn push(all: &mut Vec<Metric>, def: &'static OtherDef, kind: MetricType, samples: Vec<(Labels, Sample)>) {
    all.push(Metric { name: def.name, doc: def.doc, kind, samples });
}

fn histogram(timing: &Timing) -> Sample {
    let bounds_ns: Vec<u64> = BUCKETS_US.iter().map(|us| us * 1_000).collect();
    let counts = timing.counts_between(&bounds_ns);
    let bounds = BUCKETS_US.iter().map(|us| *us as f64 / 1e6).chain(std::iter::once(f64::INFINITY));
    Sample::Histogram { sum: timing.sum_ns() as f64 / 1e9, count: timing.count(), buckets: bounds.zip(counts).collect() }
}

fn timings(all: &mut Vec<Metric>, shards: &[ShardTotals]) {
    let (mut durations, mut quantiles, mut writes, mut acks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (shard, totals) in shards.iter().enumerate() {
        for class in RequestClass::ALL {
            for stage in Stage::ALL {
                let Some(timing) = totals.timings.timing(class, stage) else { continue };
                let labels = vec![shard_label(shard), ("kind", class.name().to_owned()), ("stage", stage.name().to_owned())];
                for quantile in [0.5, 0.99, 0.999, 1.0] {
                    let mut labels = labels.clone();
                    labels.push(("quantile", quantile.to_string()));
                    quantiles.push((labels, Sample::Gauge(timing.quantile_ns(quantile) as f64 / 1e9)));
                }
                durations.push((labels, histogram(timing)));
            }
        }
        writes.push((vec![shard_label(shard)], histogram(&totals.timings.log_write)));
        acks.push((vec![shard_label(shard)], histogram(&totals.timings.queue_ack)));
    }
    push(all, &def::DURATIONS, MetricType::Histogram, durations);
    push(all, &def::QUANTILES, MetricType::Gauge, quantiles);
    push(all, &def::LOG_WRITES, MetricType::Histogram, writes);
    push(all, &def::QUEUE_ACKS, MetricType::Histogram, acks);
}

fn queues(all: &mut Vec<Metric>, shards: &[ShardTotals]) {
    let (mut messages, mut oldest) = (Vec::new(), Vec::new());
    for (shard, last) in shards.iter().enumerate().filter_map(|(shard, totals)| Some((shard, totals.last.as_ref()?))) {
        for queue in &last.labelled.queues {
            let labels = vec![shard_label(shard), ("queue", queue.name.clone())];
            for (state, count) in [("ready", queue.ready), ("leased", queue.leased), ("delayed", queue.delayed), ("dead", queue.dead)] {
                let mut labels = labels.clone();
                labels.push(("state", state.to_owned()));
                messages.push((labels, Sample::Gauge(count as f64)));
            }
            if !queue.name.is_empty() {
                oldest.push((labels, Sample::Gauge(queue.oldest_age_us as f64 / 1e6)));
            }
        }
    }
    push(all, &def::QUEUE_MESSAGES, MetricType::Gauge, messages);
    push(all, &def::QUEUE_OLDEST, MetricType::Gauge, oldest);
}

fn lags(all: &mut Vec<Metric>, shards: &[ShardTotals]) {
    let mut each = |def: &'static OtherDef, of: fn(&GroupNumbers) -> f64| {
        let told = shards.iter().enumerate().filter_map(|(shard, totals)| Some((shard, totals.last.as_ref()?)));
        let samples = told.flat_map(|(shard, last)| {
            let line = move |group: &GroupNumbers| (vec![shard_label(shard), ("group", group.name.clone())], Sample::Gauge(of(group)));
            last.labelled.groups.iter().map(line)
        });
        push(all, def, MetricType::Gauge, samples.collect());
    };
    each(&def::GROUP_LAG_MESSAGES, |group| group.lag_messages as f64);
    each(&def::GROUP_LAG_BYTES, |group| group.lag_bytes as f64);
    each(&def::GROUP_LAG_SECONDS, |group| group.lag_us as f64 / 1e6);
    each(&def::GROUP_DRAIN, |group| group.drain_us.map_or(f64::INFINITY, |us| us as f64 / 1e6));
}

fn states(all: &mut Vec<Metric>, shards: &[ShardTotals], health: &Health) {
    let each = |of: &dyn Fn(usize, &ShardTotals) -> f64| -> Vec<(Labels, Sample)> {
        shards.iter().enumerate().map(|(shard, totals)| (vec![shard_label(shard)], Sample::Gauge(of(shard, totals)))).collect()
    };
    let states = health.states();
    let ready = |shard: usize| f64::from(u8::from(states.get(shard) == Some(&ShardHealth::Ready)));
    push(all, &def::RESPONSIVE, MetricType::Gauge, each(&|_, totals| f64::from(u8::from(totals.responsive))));
    push(all, &def::READY, MetricType::Gauge, each(&|shard, _| ready(shard)));
    push(all, &def::BUSY, MetricType::Gauge, each(&|_, totals| totals.busy_ratio));
}

fn of_node(all: &mut Vec<Metric>, node: &NodeFacts) {
    let one = |value: f64| vec![(Labels::new(), Sample::Gauge(value))];
    if let Some(disk) = (node.disk_of)(&node.data_dir) {
        let level = node.disk_marks.look(disk).level as u8;
        push(all, &def::DISK_FREE, MetricType::Gauge, one(disk.free_bytes as f64));
        push(all, &def::DISK_TOTAL, MetricType::Gauge, one(disk.total_bytes as f64));
        push(all, &def::DISK_PRESSURE, MetricType::Gauge, one(f64::from(level)));
    }
    push(all, &def::UPTIME, MetricType::Gauge, one(node.started.elapsed().as_secs_f64()));
    push(all, &def::SUPPRESSED, MetricType::Counter, vec![(Labels::new(), Sample::Whole((node.suppressed)()))]);
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let labels = vec![("version", constants::VERSION.to_owned()), ("build", build.to_owned())];
    push(all, &def::BUILD, MetricType::Gauge, vec![(labels, Sample::Gauge(1.0))]);
}
