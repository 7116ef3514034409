//! The state of a queue with ten million messages under lease, acknowledged in random order: runs `tramline-micro` and compares what it tells.
//!
//! Invariants: it runs on one processor of its own, and its figures are bytes that an allocator counted and the thread's processor time.
//!
//! Not here: the measuring (`bench/micro`).

use crate::error::{BenchError, io_error};
use crate::measures::{Goal, Measure};
use crate::runs::{Condition, Pair, Runs};
use crate::stats::median;
use std::collections::BTreeMap;
use std::process::{Command, Stdio};

/// Messages at the start, and what is left when it is looked at.
const MESSAGES: u64 = 10_000_000;
const LEFT: [u64; 4] = [MESSAGES, MESSAGES / 2, MESSAGES / 10, MESSAGES / 100];
/// Of these, what is left when the goal counts: with less, what is fixed weighs more.
const GATED: usize = 2;
/// Bytes that a message under lease may take.
const BYTES: f64 = 64.0;
/// The last tenth of the acknowledgements may take so much more than the first, each.
const LAST_TO_FIRST: f64 = 2.0;
/// What one call may keep the shard from other work.
const CALL_US: f64 = 1000.0;
/// Each run goes through ten million messages four times (once as a whole, three times call by call), in an order of its own: for bytes one would do, and for
/// times the middle one of three counts.
const RUNS: u32 = 3;

impl Runs {
    /// Bytes per message, the largest of those that are gated; times are conditions.
    pub fn queue_holes(&mut self, measure: Measure) -> Result<Vec<Pair>, BenchError> {
        let mut seen: Vec<BTreeMap<String, f64>> = Vec::new();
        let mut pairs = Vec::new();
        for seed in 1..=self.pairs.min(RUNS) {
            pairs.push(self.beside_a_constant(measure, |_| {
                let figures = micro(seed)?;
                let get = |name: &str| figures.get(name).copied().ok_or_else(|| BenchError::Limits(format!("tramline-micro tells no {name}")));
                let bytes = LEFT.iter().map(|left| get(&format!("bytes_{left}"))).collect::<Result<Vec<_>, _>>()?;
                eprintln!(
                    "tramline-bench:   bytes per message: {}; an ack: {:.0} ns in the first tenth, {:.0} in the last, {:.2} times in the slowest",
                    LEFT.iter().zip(&bytes).map(|(left, bytes)| format!("{bytes:.1} with {left}")).collect::<Vec<_>>().join(", "),
                    get("ack_ns_tenth_1")?,
                    get("ack_ns_tenth_10")?,
                    get("ack_slowest_to_first")?,
                );
                for name in ["look", "pick", "ack", "snapshot", "due"] {
                    let (p9999, max) = (get(&format!("{name}_p9999_us"))?, get(&format!("{name}_max_us"))?);
                    eprintln!("tramline-bench:   {name}: p99.99 {p9999:.0} us, longest {max:.0} us");
                }
                let most = bytes[..GATED].iter().copied().fold(0.0, f64::max);
                seen.push(figures);
                Ok((most, BYTES))
            })?);
        }
        let middle =
            |name: &str| median(&seen.iter().filter_map(|figures| figures.get(name).copied()).collect::<Vec<_>>()).unwrap_or(f64::MAX);
        let at_most = |most: f64| Goal { at_least: None, at_most: Some(most) };
        self.conditions.push(Condition {
            name: "queue_holes_last_to_first",
            value: middle("ack_last_to_first"),
            goal: at_most(LAST_TO_FIRST),
        });
        self.conditions.push(Condition { name: "queue_holes_longest_call_us", value: middle("longest_call_us"), goal: at_most(CALL_US) });
        Ok(pairs)
    }
}

/// The figures of one run.
fn micro(seed: u32) -> Result<BTreeMap<String, f64>, BenchError> {
    let program = std::env::current_exe().map_err(io_error("cannot find this program"))?.with_file_name("tramline-micro");
    let output = Command::new(&program)
        .args(["queue-holes", "--messages", &MESSAGES.to_string(), "--seed", &seed.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .map_err(io_error("cannot run tramline-micro, which is to be beside tramline-bench"))?;
    if !output.status.success() {
        return Err(BenchError::Limits(format!("tramline-micro ended with {}", output.status)));
    }
    let told: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|e| BenchError::Limits(format!("unreadable output of tramline-micro: {e}")))?;
    let figures = told["figures"].as_object().ok_or_else(|| BenchError::Limits("tramline-micro tells no figures".to_owned()))?;
    Ok(figures.iter().filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect())
}
