//! What the numbers were measured on, and what makes them doubtful: kernel, processor, build, use of the client's own core.
//!
//! Invariant: a file that is missing (another kernel, a container) is a missing entry, never a failure.
//! Not here: the server's environment, which its own log tells.

use serde_json::{Value, json};
use std::fs;

/// Above this share of a core, a client that sleeps while waiting is near its own limit, and its latencies are partly its own.
const CPU_SHARE_HIGH: f64 = 0.9;

/// The entries of the report.
pub fn environment() -> Value {
    let cpu_model = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim().to_owned()))
    });
    json!({
        "kernel": read_line("/proc/sys/kernel/osrelease"),
        "cpu": cpu_model,
        "cores": std::thread::available_parallelism().map(usize::from).ok(),
        "governor": read_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "clocksource": read_line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "build": build(),
    })
}

fn build() -> &'static str {
    if cfg!(debug_assertions) { "debug" } else { "release" }
}

fn read_line(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// A warning when this is not a release build.
pub fn build_warning() -> Option<String> {
    (build() == "debug").then(|| "this is a debug build; build with --release to measure".to_owned())
}

/// Time the calling thread has run on a core, in nanoseconds.
pub fn thread_cpu_ns() -> Option<u64> {
    cpu_ns(&fs::read_to_string("/proc/thread-self/schedstat").ok()?)
}

/// The first number of a schedstat line.
fn cpu_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

/// A warning when a side that sleeps while waiting used nearly a whole core.
pub fn cpu_warning(side: &str, cpu_ns: u64, elapsed_ns: u64, busy_poll: bool) -> Option<String> {
    let share = cpu_ns as f64 / elapsed_ns.max(1) as f64;
    (!busy_poll && share > CPU_SHARE_HIGH)
        .then(|| format!("the {side} thread used {:.0} % of a core: the client itself may be the limit", share * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_can_always_be_described() {
        let value = environment();
        assert!(value["build"].is_string() && value.as_object().is_some_and(|object| object.contains_key("kernel")));
    }

    #[test]
    fn a_full_core_is_a_warning_unless_spinning_was_asked() {
        assert!(cpu_warning("writing", 95, 100, false).is_some());
        assert!(cpu_warning("writing", 95, 100, true).is_none());
        assert!(cpu_warning("writing", 50, 100, false).is_none());
        assert_eq!(cpu_ns("12345 6 7\n"), Some(12345));
        assert_eq!(cpu_ns(""), None);
    }
}
