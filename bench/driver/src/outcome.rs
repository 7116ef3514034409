//! The result file and the table.

use crate::environment::Environment;
use crate::measures::{Goal, Measure};
use crate::runs;
use crate::stats::median;
use clap::ValueEnum;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Numbers by name.
pub type Numbers = BTreeMap<String, f64>;

/// `bench/results/latest.json`.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// What the figures are.
    pub about: &'static str,
    /// The limit of each measure (same names as `ratios`), and all figures of `tramline-limits` below their own names: medians.
    pub limits: Numbers,
    /// The broker's figures: medians.
    pub tramline: Numbers,
    /// Broker to limit: the median of the pairs' ratios, each against the mean of the limits measured right before and right after.
    pub ratios: Numbers,
    /// The broker's medians to other figures of the limits, not gated: what the least that a broker has to do costs on this machine.
    pub cross_checks: Numbers,
    /// Whether the target is reached.
    pub reached: BTreeMap<String, bool>,
    /// The targets in words.
    pub targets: BTreeMap<String, String>,
    /// Unit of `limits` and `tramline`.
    pub units: BTreeMap<String, &'static str>,
    /// Every pair: limit, broker, ratio.
    pub pairs: BTreeMap<String, Vec<Pair>>,
    /// What could not be measured, and why.
    pub not_measured: BTreeMap<String, String>,
    /// How it was measured.
    pub parameters: BTreeMap<String, serde_json::Value>,
    /// Where.
    pub environment: Environment,
}

/// One pair.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Pair {
    /// The limit.
    pub limit: f64,
    /// The broker.
    pub tramline: f64,
    /// Broker to limit.
    pub ratio: f64,
    /// 99th percentile of the broker's latency, microseconds.
    pub tramline_p99_us: Option<f64>,
    /// Share of the time in which something waited for a processor, so: in which others disturbed (three nodes' own run is left out).
    pub waited_share: f64,
    /// The larger of the limits before and after to the smaller.
    pub limits_ratio: f64,
    /// How far the two processors were apart (median of the looks), nanoseconds for one cache line's way there and back.
    pub distance_ns: f64,
    /// The largest of these looks to the smallest: above 2.5, the processors were moved meanwhile.
    pub distance_ratio: f64,
}

impl Outcome {
    /// Nothing measured yet.
    pub fn new(environment: Environment) -> Outcome {
        Outcome {
            about: "Tramline against the limits of this machine; latencies in microseconds, throughput in 10^9 bytes per second, memory in MiB, starts in seconds, queues' rounds in 10^3 records per second, bytes between nodes per byte produced, medians of interleaved pairs",
            limits: Numbers::new(),
            tramline: Numbers::new(),
            ratios: Numbers::new(),
            cross_checks: Numbers::new(),
            reached: BTreeMap::new(),
            targets: BTreeMap::new(),
            units: BTreeMap::new(),
            pairs: BTreeMap::new(),
            not_measured: BTreeMap::new(),
            parameters: BTreeMap::new(),
            environment,
        }
    }

    /// Adds a measure's pairs: limit and broker of each.
    pub fn add(&mut self, measure: Measure, pairs: &[runs::Pair]) {
        let name = measure.name().to_owned();
        let of = |pick: &dyn Fn(&runs::Pair) -> Option<f64>| median(&pairs.iter().filter_map(pick).collect::<Vec<_>>());
        let put = |to: &mut Numbers, name: String, value: Option<f64>| {
            if let Some(value) = value {
                to.insert(name, round(value));
            }
        };
        put(&mut self.limits, name.clone(), of(&|pair| Some(pair.limit.value)));
        put(&mut self.limits, measure.p99_name(), of(&|pair| pair.limit.p99_us));
        put(&mut self.tramline, name.clone(), of(&|pair| Some(pair.broker.value)));
        put(&mut self.tramline, measure.p99_name(), of(&|pair| pair.broker.p99_us));
        let ratio = of(&|pair| Some(pair.broker.value / pair.limit.value));
        put(&mut self.ratios, name.clone(), ratio);
        if measure.goal().words() != Goal::REPORTED {
            self.reached.insert(name.clone(), ratio.is_some_and(|ratio| measure.goal().reached(ratio)));
        }
        self.targets.insert(name.clone(), measure.goal().words());
        self.units.insert(name.clone(), measure.unit());
        let pairs = pairs.iter().map(|pair| Pair {
            limit: round(pair.limit.value),
            tramline: round(pair.broker.value),
            ratio: round(pair.broker.value / pair.limit.value),
            tramline_p99_us: pair.broker.p99_us.map(round),
            waited_share: round(pair.waited_share),
            limits_ratio: round(pair.limits_ratio),
            distance_ns: round(pair.distance_ns),
            distance_ratio: round(pair.distance_ratio),
        });
        self.pairs.insert(name, pairs.collect());
    }

    /// Adds what a measure has to reach beside its ratio.
    pub fn add_condition(&mut self, condition: &runs::Condition) {
        let name = condition.name.to_owned();
        self.reached.insert(name.clone(), condition.goal.reached(condition.value));
        self.targets.insert(name.clone(), condition.goal.words());
        self.ratios.insert(name, round(condition.value));
    }

    /// Adds the figures of `tramline-limits` themselves, and what follows from them.
    pub fn add_limits(&mut self, runs: &[BTreeMap<String, f64>]) {
        let names: Vec<&String> = runs.iter().flat_map(BTreeMap::keys).collect();
        for name in names {
            let values: Vec<f64> = runs.iter().filter_map(|run| run.get(name).copied()).collect();
            if let Some(middle) = median(&values) {
                self.limits.insert(name.clone(), round(middle));
            }
        }
        for measure in Measure::value_variants() {
            let Some(broker) = self.tramline.get(measure.name()).copied() else { continue };
            for (name, figure) in measure.cross_checks(&self.limits) {
                self.cross_checks.insert(name.to_owned(), round(broker / figure));
            }
        }
    }

    /// Writes the file, replacing the last one whole.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let text = serde_json::to_string_pretty(self)?;
        let draft = path.with_extension("json.new");
        std::fs::write(&draft, text + "\n")?;
        std::fs::rename(draft, path)
    }

    fn word(&self, name: &str, goal: Goal) -> &'static str {
        match (goal.at_least, goal.at_most) {
            (None, None) => "-",
            _ if self.reached.get(name) == Some(&true) => "yes",
            _ => "NO",
        }
    }

    /// The table for people.
    pub fn table(&self, chosen: &[Measure]) -> String {
        let mut text = format!(
            "{:<36} {:>10} {:>10} {:>7}  {:<14} {:<8} {:>16} {:>16}\n",
            "measure", "limit", "tramline", "ratio", "target", "reached", "limit p99 us", "tramline p99 us"
        );
        for measure in chosen {
            let name = measure.name();
            if let Some(why) = self.not_measured.get(name) {
                text.push_str(&format!("{name:<36} not measured: {why}\n"));
                continue;
            }
            let show = |numbers: &Numbers, name: &str| numbers.get(name).map_or("-".to_owned(), |value| format!("{value:.2}"));
            let p99 = measure.p99_name();
            text.push_str(&format!(
                "{:<36} {:>10} {:>10} {:>7}  {:<14} {:<8} {:>16} {:>16}\n",
                format!("{name} ({})", measure.unit()),
                show(&self.limits, name),
                show(&self.tramline, name),
                show(&self.ratios, name),
                measure.goal().words(),
                self.word(name, measure.goal()),
                show(&self.limits, &p99),
                show(&self.tramline, &p99),
            ));
        }
        for (name, target) in &self.targets {
            if chosen.iter().all(|measure| measure.name() != name) {
                let value = self.ratios.get(name).copied().unwrap_or_default();
                let word = if self.reached.get(name) == Some(&true) { "yes" } else { "NO" };
                text.push_str(&format!("{name:<36} {:>10} {:>10} {value:>7.2}  {target:<14} {word}\n", "-", "-"));
            }
        }
        for (name, value) in &self.cross_checks {
            text.push_str(&format!("cross check, not gated: {name} {value:.2}\n"));
        }
        text
    }
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
